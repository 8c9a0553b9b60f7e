//! Changes of committees: who takes a seat, what is prepared, and what puts it into force.

use std::collections::BTreeMap;

use beacon::command::{BeaconCommand, SignedCommand};
use beacon::machine::{CommandOutcome, Executed, execute_command};
use beacon::seats::{READINESS_VERSION, Readiness, Wanted, apply_ready, joining, next_members};
use beacon::{ClusterView, registry};
use cross_shard::message::Message;
use ledger::certificate::Certificate;
use ledger::committee::{Committee, Member};
use ledger::genesis::{Genesis, NodeInfo};
use ledger::hash::Hash32;
use ledger::ids::{Epoch, GroupId, Incarnation, NodeId, TimeMs};
use ledger::reject::Reject;

use crate::support::{NOW, State, admin, at, certified, dealt, genesis, node_key, settle, state_of};

const GROUP: GroupId = GroupId::shard(0);

fn committee(nodes: &[NodeInfo], ids: &[u32]) -> Committee {
    let member = |id: &u32| {
        let node = nodes.iter().find(|node| node.id == NodeId(*id)).unwrap();
        Member { node: node.id, org: node.org, key: node.key }
    };
    Committee::majority(GROUP, Incarnation(0), Epoch(0), ids.iter().map(member).collect())
}

fn next(nodes: &[NodeInfo], current: &Committee, held: &[(u32, u32)]) -> Result<Option<Vec<u32>>, Reject> {
    let held: BTreeMap<NodeId, u32> = held.iter().map(|(node, seats)| (NodeId(*node), *seats)).collect();
    let wanted = Wanted { seed: &Hash32([5; 32]), nodes, held: &held };
    let members = next_members(current, &wanted)?;
    Ok(members.map(|members| members.iter().map(|member| member.node.0).collect()))
}

#[test]
fn seats_move_only_when_they_must_and_a_few_at_a_time() {
    // Node n is of organisation (n - 1) % 3 + 1, in a zone of its own organisation's.
    let drained = |ids: &[u32]| {
        let mut nodes = dealt(9, 3);
        nodes.iter_mut().filter(|node| ids.contains(&node.id.0)).for_each(|node| node.capacity = 0);
        nodes
    };
    for (empty, now, held, expected) in [
        (&[][..], &[1, 2, 3][..], &[][..], Ok(None)),
        // Node 3 is of organisation 3, which the two that stay are not of; 6 and 9 are.
        (&[3], &[1, 2, 3], &[(6, 4), (9, 1)], Ok(Some(vec![1, 2, 9]))),
        (&[3], &[1, 2, 3], &[(6, 1), (9, 4)], Ok(Some(vec![1, 2, 6]))),
        // Nobody of organisation 3 is left: another one has two seats.
        (&[3, 6, 9], &[1, 2, 3], &[(4, 9), (5, 0), (7, 9), (8, 9)], Ok(Some(vec![1, 2, 5]))),
        // Three replicas tolerate one failure: one seat a step, the lowest node first.
        (&[2, 3], &[1, 2, 3], &[(5, 0), (8, 3)], Ok(Some(vec![1, 3, 5]))),
        // Five tolerate two.
        (&[3, 4, 5], &[1, 2, 3, 4, 5], &[(6, 0), (7, 0), (8, 9), (9, 9)], Ok(Some(vec![1, 2, 5, 6, 7]))),
        // One replica is moved whole.
        (&[1], &[1], &[(4, 0), (7, 1), (2, 1), (3, 1), (5, 1), (6, 1), (8, 1), (9, 1)], Ok(Some(vec![4]))),
        // Nobody is free.
        (&[4, 5, 6, 7, 8, 9, 1], &[1, 2, 3], &[], Err(Reject::Quorum)),
    ] {
        let nodes = drained(empty);
        assert_eq!(next(&nodes, &committee(&nodes, now), held), expected, "{now:?} without {empty:?}");
    }
}

fn capacity(state: &mut State, genesis: &Genesis, node: u32, capacity: u16, salt: u8) -> Result<Executed, Reject> {
    let org = genesis.node(NodeId(node)).unwrap().org;
    let command = BeaconCommand::SetNodeCapacity { node: NodeId(node), capacity };
    let until = TimeMs(NOW + 60_000);
    let signed = SignedCommand::sign(&genesis.cluster_id(), &command, org, [salt; 16], until, &admin(org.0));
    run(state, |view| execute_command(view, &at(genesis, NOW), &signed.encode()).map_err(|refused| refused.reject))
}

pub fn run(
    state: &mut State,
    work: impl FnOnce(&mut ledger::view::View<'_>) -> Result<Executed, Reject>,
) -> Result<Executed, Reject> {
    let mut executed = Err(Reject::Storage);
    let next = settle(state, |view| executed = work(view));
    if executed.is_err() {
        assert_eq!(next, *state, "a refusal leaves no trace");
    }
    *state = next;
    executed
}

/// A header certified by all of a committee, with the signatures of those who join.
pub fn readiness(genesis: &Genesis, current: &Committee, coming: &Committee, height: u64) -> Readiness {
    let Certificate { mut header, .. } = certified(genesis, current.group, height, 1);
    (header.committee_hash, header.next_committee_hash) = (current.hash(), current.hash());
    let digest = header.hash();
    let sign = |node: NodeId| (node, node_key(node.0).sign(&digest));
    let signatures = current.members.iter().map(|member| sign(member.node)).collect();
    Readiness {
        version: READINESS_VERSION,
        coming: coming.hash(),
        certificate: Certificate { version: 1, header, signatures },
        signatures: joining(current, coming).into_iter().map(sign).collect(),
    }
}

#[test]
fn a_drained_node_loses_its_seats_once_others_have_the_state() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let leaves = NodeId(2);
    let executed = capacity(&mut state, &genesis, leaves.0, 0, 1).unwrap();
    assert_eq!(executed.outcome, CommandOutcome::Applied);
    let view = ClusterView::read(&state).unwrap();
    assert!(view.well_formed());
    let seated = |committee: &&Committee| committee.index_of(leaves).is_some();
    let groups: Vec<GroupId> = genesis.committees.iter().filter(seated).map(|committee| committee.group).collect();
    assert!(!groups.is_empty());
    assert_eq!(view.coming.iter().map(|coming| coming.group).collect::<Vec<_>>(), groups);
    let plans = view.coming.iter().map(|coming| (coming.group, Message::CommitteePlan(coming.clone())));
    assert_eq!(executed.mail, plans.collect::<Vec<_>>(), "each group hears of its own plan alone");

    for coming in &view.coming {
        let current = view.committee(coming.group).unwrap();
        assert_eq!(coming.epoch, Epoch(1));
        assert!(coming.well_formed() && coming.index_of(leaves).is_none());
        let good = readiness(&genesis, current, coming, 5);
        assert_eq!(good.signatures.len(), 1);
        let stays = good.certificate.signatures.iter().find(|(node, _)| *node != leaves).copied().unwrap();
        for (what, wrong) in [
            ("no signature of who joins", Readiness { signatures: Vec::new(), ..good.clone() }),
            ("one of a member instead", Readiness { signatures: vec![stays], ..good.clone() }),
            ("another plan", Readiness { coming: Hash32([1; 32]), ..good.clone() }),
            ("another version", Readiness { version: 2, ..good.clone() }),
            ("of another header", {
                let other = readiness(&genesis, current, coming, 6);
                Readiness { signatures: other.signatures, ..good.clone() }
            }),
            ("not certified", {
                let mut certificate = good.certificate.clone();
                certificate.signatures.truncate(1);
                Readiness { certificate, ..good.clone() }
            }),
        ] {
            let refused = run(&mut state, |view| apply_ready(view, &at(&genesis, NOW), &wrong));
            assert_eq!(refused, Err(Reject::MailForged), "{what}");
        }
        let executed = run(&mut state, |view| apply_ready(view, &at(&genesis, NOW), &good)).unwrap();
        assert_eq!(executed.committees, std::slice::from_ref(coming));
        let told: Vec<GroupId> = executed.mail.iter().map(|(group, _)| *group).collect();
        assert_eq!(told, genesis.layout.shards.iter().map(|shard| shard.group).collect::<Vec<_>>());
        let again = run(&mut state, |view| apply_ready(view, &at(&genesis, NOW), &good));
        assert_eq!(again, Err(Reject::CommitteeUnknown), "it is in force already");
    }
    let view = ClusterView::read(&state).unwrap();
    assert!(view.coming.is_empty());
    assert_eq!(view.groups_of(leaves).count(), 0);
    // The committee before is kept, so that what it certified can be judged.
    settle(&state, |view| {
        for group in &groups {
            let before = genesis.committee(*group).unwrap();
            assert_eq!(registry::committee_by_hash(view, *group, &before.hash()).as_ref(), Some(before));
        }
    });
}

#[test]
fn a_plan_is_dropped_when_its_reason_is_and_its_epoch_is_not_given_again() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    capacity(&mut state, &genesis, 2, 0, 1).unwrap();
    let planned = ClusterView::read(&state).unwrap().coming;
    let executed = capacity(&mut state, &genesis, 2, 1, 2).unwrap();
    let view = ClusterView::read(&state).unwrap();
    assert!(view.coming.is_empty());
    let in_force = |group: GroupId| (group, Message::CommitteePlan(view.committee(group).unwrap().clone()));
    assert_eq!(executed.mail, planned.iter().map(|plan| in_force(plan.group)).collect::<Vec<_>>());
    let late = readiness(&genesis, view.committee(planned[0].group).unwrap(), &planned[0], 5);
    assert_eq!(run(&mut state, |view| apply_ready(view, &at(&genesis, NOW), &late)), Err(Reject::CommitteeUnknown));
    capacity(&mut state, &genesis, 2, 0, 3).unwrap();
    assert!(ClusterView::read(&state).unwrap().coming.iter().all(|coming| coming.epoch == Epoch(2)));
}

#[test]
fn a_node_whose_seats_nobody_can_take_is_not_drained() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    // With two of five nodes gone, each group of three has all that are left.
    let mut refused = 0;
    for (salt, node) in (1u8..).zip([1, 2, 3]) {
        match capacity(&mut state, &genesis, node, 0, salt) {
            Ok(_) => {}
            Err(Reject::Quorum) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0);
    let view = ClusterView::read(&state).unwrap();
    assert!(view.nodes.iter().filter(|node| node.capacity > 0).count() >= 3);
    // Whoever has no seat at stake is not refused because of it.
    let idle = view.nodes.iter().find(|node| node.capacity > 0).unwrap().id;
    assert!(capacity(&mut state, &genesis, idle.0, 2, 9).is_ok());
}
