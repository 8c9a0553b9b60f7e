//! Laws of assignment, and the small clusters people start with.

use std::collections::BTreeMap;

use beacon::genesis::{committees_of, first_groups};
use beacon::{AssignError, Constraints, GroupSeats, assign};
use ledger::Engine;
use ledger::genesis::NodeInfo;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId, OrgId};
use proptest::prelude::*;

use crate::support::{dealt, node};

fn groups(shards: u32, seats: u16) -> Vec<GroupSeats> {
    first_groups(shards, seats, seats, |_| Engine::Raft)
}

fn loads(nodes: &[NodeInfo], seated: &[(GroupId, Vec<NodeId>)]) -> BTreeMap<NodeId, usize> {
    let mut loads: BTreeMap<NodeId, usize> = nodes.iter().map(|node| (node.id, 0)).collect();
    for id in seated.iter().flat_map(|(_, members)| members) {
        *loads.get_mut(id).unwrap() += 1;
    }
    loads
}

fn per<K: Ord>(nodes: &[NodeInfo], members: &[NodeId], of: impl Fn(&NodeInfo) -> K) -> usize {
    let mut counts: BTreeMap<K, usize> = BTreeMap::new();
    for id in members {
        *counts.entry(of(nodes.iter().find(|node| node.id == *id).unwrap())).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

fn spread(loads: &BTreeMap<NodeId, usize>) -> usize {
    loads.values().max().unwrap() - loads.values().min().unwrap()
}

/// The least number of seats some organisation must take, by counting.
fn least_org_cap(nodes: &[NodeInfo], seats: usize) -> usize {
    let mut sizes: BTreeMap<OrgId, usize> = BTreeMap::new();
    nodes.iter().for_each(|node| *sizes.entry(node.org).or_default() += 1);
    (1..=seats).find(|cap| sizes.values().map(|size| size.min(cap)).sum::<usize>() >= seats).unwrap()
}

#[test]
fn five_nodes_of_three_orgs_seat_one_of_each_org_everywhere() {
    let nodes = dealt(5, 3);
    for seed in 0..20 {
        let seated = assign(&Hash32([seed; 32]), &nodes, &groups(4, 3), &Constraints::default()).unwrap();
        assert_eq!(seated.len(), 5);
        for (group, members) in &seated {
            assert_eq!(members.len(), 3, "{group}");
            assert_eq!(per(&nodes, members, |node| node.org), 1, "{group}");
        }
        // The third organisation has one node, which is in every committee; the others share.
        let mut counts: Vec<usize> = loads(&nodes, &seated).into_values().collect();
        counts.sort_unstable();
        assert_eq!(counts, [2, 2, 3, 3, 5]);
    }
}

#[test]
fn small_clusters() {
    // nodes, orgs, shards, replicas, most seats of one org in a committee, spread of loads
    for (nodes, orgs, shards, replicas, org_max, spread_max) in [
        (1, 1, 1, 1, 1, 0),
        (3, 3, 1, 3, 1, 0),
        (3, 1, 4, 3, 3, 0),
        (4, 4, 3, 3, 1, 0),
        (6, 3, 4, 3, 1, 1),
        (6, 2, 4, 3, 2, 1),
        (5, 5, 16, 3, 1, 1),
        (9, 3, 15, 5, 2, 1),
        (7, 7, 2, 5, 2, 1),
    ] {
        let pool = dealt(nodes, orgs);
        let seated = assign(&Hash32([3; 32]), &pool, &groups(shards, replicas), &Constraints::default()).unwrap();
        let most = seated.iter().map(|(_, members)| per(&pool, members, |node| node.org)).max().unwrap();
        assert!(most <= org_max, "{nodes} nodes of {orgs} orgs: {most} seats");
        let spread = spread(&loads(&pool, &seated));
        assert!(spread <= spread_max, "{nodes} nodes of {orgs} orgs: spread {spread}");
    }
}

#[test]
fn an_uneven_consortium_is_balanced_as_far_as_stratification_allows() {
    // Two organisations with two nodes, two with one: one seat an org leaves two seats for the
    // pairs and one for the single nodes in every committee, so equal loads exist.
    let nodes = vec![
        node(1, 1, "z1"),
        node(2, 1, "z1"),
        node(3, 2, "z2"),
        node(4, 2, "z2"),
        node(5, 3, "z3"),
        node(6, 4, "z4"),
    ];
    for seed in 0..50 {
        let seated = assign(&Hash32([seed; 32]), &nodes, &groups(3, 3), &Constraints::default()).unwrap();
        assert_eq!(spread(&loads(&nodes, &seated)), 0, "seed {seed}");
    }
}

#[test]
fn zones_are_the_second_criterion() {
    // Each organisation has a node in every zone; five seats tolerate two faults.
    let mut nodes = Vec::new();
    for org in 1..=3u16 {
        for zone in 1..=3u32 {
            nodes.push(node(u32::from(org) * 10 + zone, org, &format!("zone-{zone}")));
        }
    }
    let seated = assign(&Hash32([9; 32]), &nodes, &groups(20, 5), &Constraints::default()).unwrap();
    for (_, members) in &seated {
        assert!(per(&nodes, members, |node| node.org) <= 2);
        assert!(per(&nodes, members, |node| node.zone.clone()) <= 2);
    }
    assert!(spread(&loads(&nodes, &seated)) <= 1);
}

#[test]
fn capacity_and_held_seats_count() {
    let mut nodes = dealt(4, 4);
    nodes[0].capacity = 3;
    nodes[3].capacity = 0;
    let wanted: Vec<GroupSeats> =
        (0..10).map(|ordinal| GroupSeats { group: GroupId::shard(ordinal), seats: 1, engine: Engine::Raft }).collect();
    let found = loads(&nodes, &assign(&Hash32([1; 32]), &nodes, &wanted, &Constraints::default()).unwrap());
    assert_eq!(found.into_values().collect::<Vec<_>>(), [6, 2, 2, 0]);

    let held = BTreeMap::from([(NodeId(1), 10)]);
    let nodes = dealt(3, 3);
    let constraints = Constraints { held, ..Constraints::default() };
    let found = loads(&nodes, &assign(&Hash32([1; 32]), &nodes, &wanted, &constraints).unwrap());
    assert_eq!(found.into_values().collect::<Vec<_>>(), [0, 5, 5]);
}

#[test]
fn what_cannot_be_seated_is_refused() {
    let seed = Hash32([0; 32]);
    let plain = Constraints::default();
    let one = |seats| vec![GroupSeats { group: GroupId::shard(0), seats, engine: Engine::Raft }];
    let code = |result: Result<_, AssignError>| result.map(|_: Vec<(GroupId, Vec<NodeId>)>| ()).unwrap_err().code();
    assert_eq!(code(assign(&seed, &dealt(2, 2), &one(3), &plain)), "assign_too_few_nodes");
    assert_eq!(code(assign(&seed, &dealt(2, 2), &one(0), &plain)), "assign_seats");
    assert_eq!(code(assign(&seed, &dealt(2, 2), &one(65), &plain)), "assign_seats");
    let twice = [dealt(2, 2), dealt(1, 1)].concat();
    assert_eq!(code(assign(&seed, &twice, &one(1), &plain)), "assign_duplicate_node");
    let again = [one(1), one(1)].concat();
    assert_eq!(code(assign(&seed, &dealt(2, 2), &again, &plain)), "assign_duplicate_group");

    let strict = Constraints { strict: true, ..Constraints::default() };
    assert!(assign(&seed, &dealt(5, 3), &one(3), &strict).is_ok());
    assert_eq!(code(assign(&seed, &dealt(5, 2), &one(3), &strict)), "assign_stratification");
    let lying = |seats| vec![GroupSeats { group: GroupId::shard(0), seats, engine: Engine::Bft }];
    assert_eq!(code(assign(&seed, &dealt(6, 3), &lying(4), &strict)), "assign_stratification");
    assert!(assign(&seed, &dealt(4, 4), &lying(4), &strict).is_ok());
    for seats in 1..4 {
        let refused = assign(&seed, &dealt(6, 6), &lying(seats), &plain).unwrap_err();
        assert_eq!(refused.code(), "assign_engine");
        assert!(refused.to_string().contains("needs at least 4"), "it says what is needed: {refused}");
    }
}

/// Seats follow the engine of each group: a third may lie where another group's minority may stop.
#[test]
fn groups_of_both_engines_are_seated_together() {
    let nodes = dealt(12, 3);
    let engine = |group: GroupId| if group == GroupId::BEACON { Engine::Raft } else { Engine::Bft };
    let wanted = first_groups(3, 7, 5, engine);
    let made = committees_of(&Hash32([4; 32]), &nodes, &wanted, &Constraints::default()).unwrap();
    for committee in &made {
        let members: Vec<NodeId> = committee.members.iter().map(|member| member.node).collect();
        let most = per(&nodes, &members, |node| node.org);
        assert!(committee.well_formed());
        assert_eq!(committee.engine, engine(committee.group), "{}", committee.group);
        let (seats, threshold, cap) = if committee.group == GroupId::BEACON { (5, 3, 2) } else { (7, 5, 3) };
        assert_eq!((members.len(), usize::from(committee.threshold)), (seats, threshold), "{}", committee.group);
        // Seven seats of three organisations: the cap of two is raised by one, no more.
        assert_eq!(most, cap, "{}", committee.group);
    }
    let wide = dealt(12, 6);
    for committee in committees_of(&Hash32([4; 32]), &wide, &wanted, &Constraints::default()).unwrap() {
        let members: Vec<NodeId> = committee.members.iter().map(|member| member.node).collect();
        assert!(per(&wide, &members, |node| node.org) <= committee.engine.tolerated(members.len()));
    }
}

fn consortium() -> impl Strategy<Value = Vec<NodeInfo>> {
    prop::collection::vec((1..6u16, 1..5u8), 1..20)
        .prop_map(|dealt| (1u32..).zip(dealt).map(|(id, (org, zone))| node(id, org, &format!("zone-{zone}"))).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn committees_are_full_stratified_and_without_repetition(
        nodes in consortium(), shards in 1..12u32, seats in 1..8u16, seed: [u8; 32],
    ) {
        prop_assume!(usize::from(seats) <= nodes.len());
        let seated = assign(&Hash32(seed), &nodes, &groups(shards, seats), &Constraints::default()).unwrap();
        prop_assert_eq!(seated.len(), shards as usize + 1);
        let seats = usize::from(seats);
        let cap = Engine::Raft.tolerated(seats).max(least_org_cap(&nodes, seats));
        for (_, members) in &seated {
            prop_assert_eq!(members.len(), seats);
            prop_assert!(members.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(per(&nodes, members, |node| node.org) <= cap);
        }
    }

    #[test]
    fn the_order_of_the_input_has_no_influence(
        nodes in consortium(), shards in 1..8u32, seats in 1..6u16, seed: [u8; 32], turn in 0..20usize,
    ) {
        prop_assume!(usize::from(seats) <= nodes.len());
        let wanted = groups(shards, seats);
        let first = assign(&Hash32(seed), &nodes, &wanted, &Constraints::default()).unwrap();
        let (mut turned, mut backwards) = (nodes.clone(), wanted);
        let by = turn % turned.len();
        turned.rotate_left(by);
        backwards.reverse();
        prop_assert_eq!(first, assign(&Hash32(seed), &turned, &backwards, &Constraints::default()).unwrap());
    }

    #[test]
    fn equal_organisations_are_loaded_equally(
        orgs in 1..6u16, each in 1..4u32, shards in 1..12u32, seats in 1..8u16, seed: [u8; 32],
    ) {
        let nodes = dealt(u32::from(orgs) * each, orgs);
        prop_assume!(usize::from(seats) <= nodes.len());
        let seated = assign(&Hash32(seed), &nodes, &groups(shards, seats), &Constraints::default()).unwrap();
        prop_assert!(spread(&loads(&nodes, &seated)) <= 1);
    }

    /// With organisations alone the balance is the best there is: no single chain of swaps could
    /// even it out, which a flow with integer bounds shows for a node below the mean.
    #[test]
    fn a_node_is_idle_only_if_its_organisation_is_full(
        dealt in prop::collection::vec(1..5u16, 2..12), shards in 1..10u32, seats in 1..5u16, seed: [u8; 32],
    ) {
        let nodes: Vec<NodeInfo> = (1u32..).zip(dealt).map(|(id, org)| node(id, org, "z")).collect();
        prop_assume!(usize::from(seats) <= nodes.len());
        let seated = assign(&Hash32(seed), &nodes, &groups(shards, seats), &Constraints::default()).unwrap();
        let loads = loads(&nodes, &seated);
        let cap = Engine::Raft.tolerated(usize::from(seats)).max(least_org_cap(&nodes, usize::from(seats)));
        let org = |id: &NodeId| nodes.iter().find(|node| node.id == *id).unwrap().org;
        for (_, members) in &seated {
            for from in members {
                for to in nodes.iter().filter(|node| !members.contains(&node.id)) {
                    let room = org(from) == to.org || members.iter().filter(|id| org(id) == to.org).count() < cap;
                    prop_assert!(!room || loads[&to.id] + 1 >= loads[from]);
                }
            }
        }
    }
}
