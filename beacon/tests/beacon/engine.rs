//! Switching engines: what is refused, what is shown before, and the road from one committee to the other.

use beacon::command::{BeaconCommand, SignedCommand};
use beacon::engine::{self, EngineBook, Side, Standing, preflight};
use beacon::genesis::first_committees;
use beacon::machine::{CommandOutcome, Executed, execute_command};
use beacon::seats::apply_ready;
use beacon::{ClusterView, Constraints, channels, registry};
use cross_shard::message::Message;
use cross_shard::notice::ChannelUpdate;
use ledger::committee::{Committee, Engine};
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{Epoch, GroupId, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;
use proptest::prelude::*;

use crate::channels::Beacon;
use crate::seats::{readiness, run};
use crate::support::{NOW, State, admin, at, dealt, genesis, node, settle, state_of};

const SHARD: GroupId = GroupId::shard(0);

fn by(state: &mut State, genesis: &Genesis, org: u16, salt: u8, command: &BeaconCommand) -> Result<Executed, Reject> {
    let until = TimeMs(NOW + 60_000);
    let signed = SignedCommand::sign(&genesis.cluster_id(), command, OrgId(org), [salt; 16], until, &admin(org));
    run(state, |view| execute_command(view, &at(genesis, NOW), &signed.encode()).map_err(|refused| refused.reject))
}

fn switch(group: GroupId, engine: Engine) -> BeaconCommand {
    BeaconCommand::SwitchEngine { group, engine }
}

fn coming(state: &State, group: GroupId) -> Option<Committee> {
    registry::coming_of(&mut View::new(state), group)
}

fn current(state: &State, group: GroupId) -> Committee {
    registry::committee(&mut View::new(state), group).unwrap()
}

/// Puts the prepared committee of a group into force; the mail that follows.
fn arrive(state: &mut State, genesis: &Genesis, group: GroupId, height: u64) -> Executed {
    let (now, next) = (current(state, group), coming(state, group).unwrap());
    let ready = readiness(genesis, &now, &next, height);
    run(state, |view| apply_ready(view, &at(genesis, NOW), &ready)).unwrap()
}

/// A cluster with this many nodes of three organisations, whose shards have so many members under Raft.
fn seated(count: u32, replicas: u16, seed: Hash32) -> Genesis {
    let nodes = dealt(count, 3);
    let committees = first_committees(&seed, &nodes, 4, replicas, 1, &Constraints::default()).unwrap();
    Genesis { seed, nodes, committees, ..genesis() }
}

fn of_nodes(count: u32) -> Genesis {
    seated(count, 3, Hash32([7; 32]))
}

#[test]
fn a_shard_of_three_goes_on_under_the_other_engine_with_four_and_comes_back() {
    let genesis = of_nodes(5);
    let mut state = state_of(&genesis);
    let pending = CommandOutcome::Pending { approvals: 1, needed: 2 };
    let bft = switch(SHARD, Engine::Bft);
    assert_eq!(by(&mut state, &genesis, 1, 1, &bft).unwrap().outcome, pending);
    assert_eq!(by(&mut state, &genesis, 1, 2, &bft).unwrap().outcome, pending, "nobody counts twice");
    assert_eq!(coming(&state, SHARD), None);
    let decided = by(&mut state, &genesis, 2, 3, &bft).unwrap();
    assert_eq!(decided.outcome, CommandOutcome::Applied);

    // First the seat that is missing, under the engine in force.
    let (three, four) = (current(&state, SHARD), coming(&state, SHARD).unwrap());
    assert_eq!((four.engine, four.members.len(), four.epoch), (Engine::Raft, 4, Epoch(1)));
    assert!(three.members.iter().all(|member| four.index_of(member.node).is_some()));
    assert_eq!(decided.mail, [(SHARD, Message::CommitteePlan(four.clone()))]);
    assert_eq!(by(&mut state, &genesis, 3, 4, &bft).unwrap().mail, [], "it is under way already");
    arrive(&mut state, &genesis, SHARD, 5);

    // Then the engine, with the same members and nobody who joins.
    let lying = coming(&state, SHARD).unwrap();
    assert_eq!((lying.engine, lying.threshold, lying.epoch), (Engine::Bft, 3, Epoch(2)));
    assert_eq!(lying.members, four.members);
    let executed = arrive(&mut state, &genesis, SHARD, 6);
    assert_eq!(executed.committees, std::slice::from_ref(&lying));
    assert_eq!((current(&state, SHARD), coming(&state, SHARD)), (lying.clone(), None));
    assert!(!state.contains_key(&engine::wanted_key(SHARD)), "what was wanted is there");
    assert_eq!(by(&mut state, &genesis, 1, 5, &bft), Err(Reject::EngineSame));

    // And back: first the engine, with the same members.
    for (org, salt) in [(2, 6), (3, 7)] {
        by(&mut state, &genesis, org, salt, &switch(SHARD, Engine::Raft)).unwrap();
    }
    arrive(&mut state, &genesis, SHARD, 7);
    let back = current(&state, SHARD);
    assert_eq!((back.engine, back.threshold, &back.members), (Engine::Raft, 3, &lying.members));
    // Then the seat that the genesis does not give the shard.
    let fewer = coming(&state, SHARD).unwrap();
    assert_eq!((fewer.engine, fewer.members.len(), fewer.epoch), (Engine::Raft, 3, Epoch(4)));
    assert!(fewer.members.iter().all(|member| back.index_of(member.node).is_some()));
    assert_eq!(by(&mut state, &genesis, 1, 8, &bft), Err(Reject::EngineChanging), "seats are moving");
    arrive(&mut state, &genesis, SHARD, 8);
    assert_eq!((current(&state, SHARD), coming(&state, SHARD)), (fewer, None), "nothing is left to do");
    assert!(ClusterView::read(&state).unwrap().well_formed());
    settle(&state, |view| assert!(engine::proposals(view).is_empty()));
}

#[test]
fn a_switch_is_taken_back_until_it_is_in_force() {
    let genesis = of_nodes(5);
    let mut state = state_of(&genesis);
    for org in [1, 2] {
        by(&mut state, &genesis, org, 1, &switch(SHARD, Engine::Bft)).unwrap();
    }
    assert!(coming(&state, SHARD).is_some());
    assert_eq!(
        by(&mut state, &genesis, 1, 2, &switch(SHARD, Engine::Raft)).unwrap().outcome,
        CommandOutcome::Pending { approvals: 1, needed: 2 },
        "it takes as many as the switch took"
    );
    let executed = by(&mut state, &genesis, 3, 2, &switch(SHARD, Engine::Raft)).unwrap();
    assert_eq!(executed.mail, [(SHARD, Message::CommitteePlan(current(&state, SHARD)))]);
    assert_eq!(coming(&state, SHARD), None);
    assert_eq!(by(&mut state, &genesis, 1, 3, &switch(SHARD, Engine::Raft)), Err(Reject::EngineSame));
}

#[test]
fn a_switch_that_lacks_a_node_waits_for_the_next_one() {
    let genesis = of_nodes(4);
    let mut state = state_of(&genesis);
    for org in [1, 2] {
        by(&mut state, &genesis, org, 1, &switch(SHARD, Engine::Bft)).unwrap();
    }
    // The fourth node, of organisation 1 as the only one that has two, is drained before it has a seat.
    let (three, four) = (current(&state, SHARD), coming(&state, SHARD).unwrap());
    let joins = four.members.iter().find(|member| three.index_of(member.node).is_none()).unwrap();
    assert_eq!(joins.org, OrgId(1));
    by(&mut state, &genesis, 1, 2, &BeaconCommand::SetNodeCapacity { node: joins.node, capacity: 0 }).unwrap();
    assert_eq!(coming(&state, SHARD), None);
    // Nothing shows it but what the beacon is asked for.
    let EngineBook { standing, .. } = EngineBook::read(&mut View::new(&state)).unwrap();
    let said = |engine| preflight(&standing, SHARD, engine).unwrap();
    let (on, back) = (said(Engine::Bft), said(Engine::Raft));
    assert_eq!((on.refusal, on.under_way), (None, Some(Engine::Bft)));
    assert!(on.notes.iter().any(|note| note.contains("waits for a node")), "{on:?}");
    assert_eq!((back.refusal, back.under_way, back.steps), (None, Some(Engine::Bft), 0));
    let again = by(&mut state, &genesis, 3, 3, &switch(SHARD, Engine::Bft)).unwrap();
    assert_eq!((again.outcome, again.mail), (CommandOutcome::Applied, vec![]), "it is under way");
    by(&mut state, &genesis, 2, 4, &BeaconCommand::RegisterNode(node(5, 2, "zone-2"))).unwrap();
    let four = coming(&state, SHARD).unwrap();
    assert_eq!((four.engine, four.members.len()), (Engine::Raft, 4));
    assert!(four.index_of(NodeId(5)).is_some());
}

/// A shard of three on five nodes that has taken its fourth seat for a switch and, `with_engine`, goes back by a second one.
fn grown(with_engine: bool) -> (Genesis, State) {
    let genesis = of_nodes(5);
    let mut state = state_of(&genesis);
    let ask = |state: &mut State, salt: u8, engine| {
        for org in [1, 2] {
            by(state, &genesis, org, salt, &switch(SHARD, engine)).unwrap();
        }
    };
    ask(&mut state, 1, Engine::Bft);
    arrive(&mut state, &genesis, SHARD, 5);
    if with_engine {
        arrive(&mut state, &genesis, SHARD, 6);
    }
    ask(&mut state, 2, Engine::Raft);
    if with_engine {
        arrive(&mut state, &genesis, SHARD, 7);
    }
    (genesis, state)
}

#[test]
fn seats_that_a_switch_has_brought_are_given_up_also_when_it_is_taken_back() {
    for with_engine in [false, true] {
        let (genesis, mut state) = grown(with_engine);
        let (four, three) = (current(&state, SHARD), coming(&state, SHARD).unwrap());
        assert_eq!((four.engine, four.members.len()), (Engine::Raft, 4));
        assert_eq!((three.engine, three.members.len()), (Engine::Raft, 3));
        // Five nodes of three organisations: the one with two seats loses one.
        let orgs: std::collections::BTreeSet<OrgId> = three.members.iter().map(|member| member.org).collect();
        assert_eq!(orgs.len(), 3);
        // What others do in the registry prepares nothing new.
        let told = by(&mut state, &genesis, 3, 20, &BeaconCommand::RegisterNode(node(6, 3, "zone-3"))).unwrap();
        assert!(told.mail.iter().all(|(group, _)| *group != SHARD), "{:?}", told.mail);
        assert_eq!(coming(&state, SHARD), Some(three.clone()));
        arrive(&mut state, &genesis, SHARD, 9);
        assert_eq!((current(&state, SHARD), coming(&state, SHARD)), (three, None));
    }
}

#[test]
fn whoever_may_keep_no_seat_gives_it_up_first() {
    let (genesis, mut state) = grown(true);
    let (four, planned) = (current(&state, SHARD), coming(&state, SHARD).unwrap());
    let drained = planned.members[0].clone();
    let command = BeaconCommand::SetNodeCapacity { node: drained.node, capacity: 0 };
    by(&mut state, &genesis, drained.org.0, 30, &command).unwrap();
    // Another one than was planned leaves, and nobody has to come for it.
    let three = coming(&state, SHARD).unwrap();
    assert_eq!((three.members.len(), three.index_of(drained.node)), (3, None));
    assert!(three.members.iter().all(|member| four.index_of(member.node).is_some()));
    // Nor is anything planned anew when a second one may keep none: it goes behind that, and the fifth node comes.
    let [also, third] = [1, 2].map(|skip| three.members[skip].clone());
    let drain = |state: &mut State, member: &ledger::Member, salt: u8| {
        let command = BeaconCommand::SetNodeCapacity { node: member.node, capacity: 0 };
        by(state, &genesis, member.org.0, salt, &command).err()
    };
    assert_eq!(drain(&mut state, &also, 31), None);
    assert_eq!(coming(&state, SHARD), Some(three));
    assert_eq!(drain(&mut state, &third, 32), Some(Reject::Quorum), "three seats, and two nodes that may have one");
    let mut height = 40;
    while coming(&state, SHARD).is_some() {
        arrive(&mut state, &genesis, SHARD, height);
        height += 1;
    }
    let last = current(&state, SHARD);
    assert_eq!((last.engine, last.members.len()), (Engine::Raft, 3));
    assert!([drained.node, also.node].into_iter().all(|node| last.index_of(node).is_none()));
}

#[test]
fn what_cannot_hold_is_refused_before_anybody_is_asked() {
    let refused = |nodes: u32, before: &[BeaconCommand], command: &BeaconCommand| {
        let genesis = of_nodes(nodes);
        let mut state = state_of(&genesis);
        for (salt, command) in (10u8..).zip(before) {
            // Node n is of organisation (n - 1) % 3 + 1.
            let BeaconCommand::SetNodeCapacity { node, .. } = command else { panic!("a change of a node") };
            let org = u16::try_from((node.0 - 1) % 3 + 1).unwrap();
            by(&mut state, &genesis, org, salt, command).unwrap();
        }
        by(&mut state, &genesis, 1, 1, command).err()
    };
    let drain = |node: u32| BeaconCommand::SetNodeCapacity { node: NodeId(node), capacity: 0 };
    for (what, nodes, before, command, expected) in [
        ("in force", 5, vec![], switch(SHARD, Engine::Raft), Some(Reject::EngineSame)),
        ("the beacon's, too", 5, vec![], switch(GroupId::BEACON, Engine::Bft), None),
        ("the beacon's, with three nodes", 3, vec![], switch(GroupId::BEACON, Engine::Bft), Some(Reject::EngineNodes)),
        ("members decide", 5, vec![], switch(GroupId::channel(0), Engine::Bft), Some(Reject::EngineFixed)),
        ("no such shard", 5, vec![], switch(GroupId::shard(9), Engine::Bft), Some(Reject::UnknownGroup)),
        ("three nodes", 3, vec![], switch(SHARD, Engine::Bft), Some(Reject::EngineNodes)),
        // Every committee has node 3, the only one of its organisation.
        ("seats are moving", 5, vec![drain(3)], switch(SHARD, Engine::Bft), Some(Reject::EngineChanging)),
        ("five nodes", 5, vec![], switch(SHARD, Engine::Bft), None),
    ] {
        assert_eq!(refused(nodes, &before, &command), expected, "{what}");
    }
}

#[test]
fn the_beacons_engine_is_switched_and_goes_back_to_what_the_genesis_gives_it() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let mut height = 5;
    let mut ask = |state: &mut State, salt: u8, engine| {
        for org in [1, 2] {
            by(state, &genesis, org, salt, &switch(GroupId::BEACON, engine)).unwrap();
        }
        let mut came = Vec::new();
        while coming(state, GroupId::BEACON).is_some() {
            let executed = arrive(state, &genesis, GroupId::BEACON, height);
            height += 1;
            let [committee] = &executed.committees[..] else { panic!("one comes into force") };
            let told = |(group, message): &(GroupId, Message)| {
                (*message == Message::CommitteeUpdate(committee.clone())).then_some(*group)
            };
            let told: Vec<GroupId> = executed.mail.iter().filter_map(told).collect();
            assert_eq!(told, (0..4).map(GroupId::shard).collect::<Vec<_>>(), "everybody else hears of it");
            came.push((committee.engine, committee.members.len()));
        }
        came
    };
    assert_eq!(ask(&mut state, 1, Engine::Bft), [(Engine::Raft, 4), (Engine::Bft, 4)]);
    assert_eq!(ask(&mut state, 2, Engine::Raft), [(Engine::Raft, 4), (Engine::Raft, 3)]);
}

#[test]
fn a_preflight_says_what_would_change() {
    let genesis = of_nodes(5);
    let state = state_of(&genesis);
    let standing = Standing::read(&mut View::new(&state)).unwrap();
    let found = preflight(&standing, SHARD, Engine::Bft).unwrap();
    assert_eq!(found.refusal, None);
    assert_eq!((found.joining.len(), found.steps), (1, 2));
    // Raft: 2 + 2 and 3 × 2 of headers. The other: 3 proposals, two votes of four to three others, 4 × 3 of headers.
    let now = Side { engine: Engine::Raft, members: 3, threshold: 2, tolerated: 1, messages: 10, signatures: 3 };
    let then = Side { engine: Engine::Bft, members: 4, threshold: 3, tolerated: 1, messages: 45, signatures: 13 };
    assert_eq!((found.now, found.then), (now, then));
    assert_eq!(found.most.map(|(_, seats)| seats), Some(2), "four seats of three organisations");
    assert!(found.notes[0].contains("2 of 4 seats"), "{:?}", found.notes);
    assert!(found.rate.contains("lower where one does"));
    // A follower computes the same from what it is shown.
    let followed = Standing::of(&ClusterView::read(&state).unwrap(), &genesis);
    assert_eq!(preflight(&followed, SHARD, Engine::Bft), Ok(found));
    assert_eq!(preflight(&standing, GroupId::shard(9), Engine::Bft), Err(Reject::UnknownGroup));

    // With one member that is to go already, the new committee could not bear another one failing.
    let mut whole = standing;
    let committee = whole.committees.iter_mut().find(|committee| committee.group == SHARD).unwrap();
    *committee = Committee::of(Engine::Raft, SHARD, committee.incarnation, committee.epoch, {
        let info = |node: &ledger::genesis::NodeInfo| ledger::Member { node: node.id, org: node.org, key: node.key };
        genesis.nodes[..4].iter().map(info).collect()
    });
    whole.accused = vec![NodeId(1)];
    assert_eq!(preflight(&whole, SHARD, Engine::Bft).unwrap().refusal, Some(Reject::EngineRisk));
    whole.accused.clear();
    assert_eq!(preflight(&whole, SHARD, Engine::Bft).unwrap().refusal, None);
    // Who has no vote now counts for nothing: three of four decide, two do not.
    whole.voteless = vec![NodeId(2)];
    let three = preflight(&whole, SHARD, Engine::Bft).unwrap();
    assert_eq!((three.refusal, three.voting), (None, 3));
    assert!(three.notes.iter().any(|note| note.contains("node 2; ") && note.contains("0 more may fail")), "{three:?}");
    whole.voteless.push(NodeId(4));
    let two = preflight(&whole, SHARD, Engine::Bft).unwrap();
    assert_eq!((two.refusal, two.voting), (Some(Reject::EngineVotes), 2));
    whole.voteless.clear();
    // Fewer tolerated failures are said, not refused.
    let mut seven = Standing { nodes: dealt(7, 7), ..whole };
    seven.committees = vec![Committee::of(Engine::Raft, SHARD, ledger::Incarnation(0), Epoch(0), {
        let info = |node: &ledger::genesis::NodeInfo| ledger::Member { node: node.id, org: node.org, key: node.key };
        seven.nodes.iter().map(info).collect()
    })];
    let found = preflight(&seven, SHARD, Engine::Bft).unwrap();
    assert_eq!((found.refusal, found.steps, found.now.tolerated, found.then.tolerated), (None, 1, 3, 2));
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
}

/// A channel says which engine it wants, and its committee follows as it follows its nodes.
#[test]
fn a_channels_committee_follows_the_engine_that_it_names() {
    let mut beacon = Beacon::new();
    let (group, _) = beacon.found("steel");
    let entry = beacon.read(channels::directory).remove(0);
    let nodes: Vec<NodeId> = (1..=4).map(NodeId).collect();
    let few = ChannelUpdate { engine: Engine::Bft, ..entry.shown.clone() };
    beacon.state = settle(&beacon.state, |view| assert_eq!(channels::apply_update(view, group, few), []));
    let shown = ChannelUpdate { nodes, engine: Engine::Bft, ..entry.shown };
    beacon.state = settle(&beacon.state, |view| drop(channels::apply_update(view, group, shown.clone())));
    let genesis = beacon.genesis.clone();
    let seats = coming(&beacon.state, group).unwrap();
    assert_eq!((seats.engine, seats.members.len()), (Engine::Raft, 4));
    for (height, engine) in [(5, Engine::Raft), (6, Engine::Bft)] {
        let (now, next) = (current(&beacon.state, group), coming(&beacon.state, group).unwrap());
        assert_eq!((next.engine, next.members.len()), (engine, 4));
        let mut ready = readiness(&genesis_with(&genesis, &now), &now, &next, height);
        ready.certificate.header.cluster = genesis.cluster_id();
        resign(&mut ready, &now, &next);
        run(&mut beacon.state, |view| apply_ready(view, &at(&genesis, NOW), &ready)).unwrap();
    }
    assert_eq!((current(&beacon.state, group).engine, coming(&beacon.state, group)), (Engine::Bft, None));
    // Back again, while nobody has asked for anything else.
    let back = ChannelUpdate { engine: Engine::Raft, ..shown };
    beacon.state = settle(&beacon.state, |view| drop(channels::apply_update(view, group, back)));
    assert_eq!(coming(&beacon.state, group).map(|next| next.engine), Some(Engine::Raft));
}

/// A genesis that names a channel's committee, which headers are made from here.
fn genesis_with(genesis: &Genesis, committee: &Committee) -> Genesis {
    let mut genesis = genesis.clone();
    genesis.committees.push(committee.clone());
    genesis
}

/// Signs a proof again whose header was changed.
fn resign(ready: &mut beacon::Readiness, now: &Committee, next: &Committee) {
    let digest: Hash32 = ready.certificate.header.hash();
    let sign = |node: NodeId| (node, crate::support::node_key(node.0).sign(&digest));
    ready.certificate.signatures = now.members.iter().map(|member| sign(member.node)).collect();
    ready.signatures = beacon::seats::joining(now, next).into_iter().map(sign).collect();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the nodes and the shard's size: what the preflight refuses is refused, and what it announces happens, by
    /// steps of which none moves seats and engine together, and none takes a seat away before the way back.
    #[test]
    fn the_beacon_does_what_the_preflight_says(nodes in 1..12u32, replicas in 1..8u16, seed: [u8; 32]) {
        prop_assume!(u32::from(replicas) <= nodes);
        let genesis = seated(nodes, replicas, Hash32(seed));
        let mut state = state_of(&genesis);
        let first = current(&state, SHARD);
        let standing = Standing::read(&mut View::new(&state)).unwrap();
        let said = preflight(&standing, SHARD, Engine::Bft).unwrap();
        let refused = by(&mut state, &genesis, 1, 1, &switch(SHARD, Engine::Bft)).err();
        prop_assert_eq!(refused, said.refusal);
        prop_assert_eq!(refused.is_some(), nodes < 4);
        if refused.is_some() {
            return Ok(());
        }
        by(&mut state, &genesis, 2, 2, &switch(SHARD, Engine::Bft)).unwrap();
        let mut steps = 0;
        while coming(&state, SHARD).is_some() {
            let before = current(&state, SHARD);
            steps += 1;
            prop_assert!(steps <= said.steps);
            arrive(&mut state, &genesis, SHARD, 4 + steps as u64);
            let after = current(&state, SHARD);
            prop_assert!(before.members.iter().all(|member| after.index_of(member.node).is_some()));
            prop_assert!(before.engine == after.engine || before.members == after.members);
        }
        let last = current(&state, SHARD);
        let new = last.members.iter().map(|member| member.node).filter(|node| first.index_of(*node).is_none());
        prop_assert_eq!((steps, new.collect::<Vec<_>>()), (said.steps, said.joining));
        prop_assert_eq!(Side::of(last.engine, last.members.len()), said.then);
        prop_assert_eq!(usize::from(last.threshold), said.then.threshold);
        prop_assert!(said.then.tolerated >= 1);

        // And back to what the genesis gives the shard: first the engine, then a seat or a few at a time.
        let full = last;
        let standing = Standing::read(&mut View::new(&state)).unwrap();
        let said = preflight(&standing, SHARD, Engine::Raft).unwrap();
        prop_assert_eq!(said.refusal, None);
        for org in [1, 2] {
            by(&mut state, &genesis, org, 3, &switch(SHARD, Engine::Raft)).unwrap();
        }
        let mut steps = 0;
        while coming(&state, SHARD).is_some() {
            let before = current(&state, SHARD);
            steps += 1;
            prop_assert!(steps <= said.steps);
            arrive(&mut state, &genesis, SHARD, 30 + steps as u64);
            let after = current(&state, SHARD);
            prop_assert!(after.members.iter().all(|member| before.index_of(member.node).is_some()));
            prop_assert!(before.engine == after.engine || before.members == after.members);
            let gone = before.members.len() - after.members.len();
            prop_assert!(gone <= before.engine.tolerated(before.members.len()).max(1));
        }
        let last = current(&state, SHARD);
        let gone = full.members.iter().map(|member| member.node).filter(|node| last.index_of(*node).is_none());
        prop_assert_eq!((steps, gone.collect::<Vec<_>>()), (said.steps, said.leaving));
        prop_assert_eq!(Side::of(last.engine, last.members.len()), said.then);
        prop_assert_eq!(last.members.len(), usize::from(replicas));
    }
}
