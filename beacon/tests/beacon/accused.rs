//! Nodes that have voted twice: what is held against them, and how they lose their seats.

use beacon::accused::{Hindrance, accusations, accuse, removals, without_one};
use beacon::command::{BeaconCommand, SignedCommand};
use beacon::genesis::first_committees;
use beacon::machine::execute_command;
use beacon::{ClusterView, Constraints};
use cross_shard::message::Message;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, Equivocation};
use ledger::committee::{Committee, Engine, Member};
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{Epoch, GroupId, Incarnation, NodeId, OrgId, TimeMs};
use ledger::view::View;

use crate::support::{NOW, State, admin, at, dealt, genesis, node, node_key, settle, state_of};

/// Two prevotes of a node in a shard.
pub fn twice(genesis: &Genesis, node: u32) -> Equivocation {
    twice_in(genesis, node, Hash32([5; 32]))
}

/// Two prevotes of a node as a member of a committee of a shard, by the key that it begins with.
pub fn twice_in(genesis: &Genesis, node: u32, committee: Hash32) -> Equivocation {
    two_of(genesis, node, committee, BallotKind::Prevote)
}

/// As [`twice_in`], two ballots of another kind.
fn two_of(genesis: &Genesis, node: u32, committee: Hash32, kind: BallotKind) -> Equivocation {
    let ballot = |value: u8| Ballot {
        version: BALLOT_VERSION,
        cluster: genesis.cluster_id(),
        group: GroupId::shard(0),
        incarnation: Incarnation(0),
        committee,
        index: 5,
        round: 0,
        kind,
        value: Some(Hash32([value; 32])),
        node: NodeId(node),
    };
    let [one, other] = [1, 2].map(|value| ballot(value).sign(&node_key(node)));
    Equivocation::of(one, other).unwrap()
}

fn against(state: &mut State, genesis: &Genesis, node: u32) -> Vec<(GroupId, Message)> {
    let mut mail = Vec::new();
    *state = settle(state, |view| mail = accuse(view, &at(genesis, NOW), &twice(genesis, node)));
    mail
}

fn run(state: &mut State, genesis: &Genesis, org: u16, salt: u8, command: &BeaconCommand) {
    let until = TimeMs(NOW + 60_000);
    let signed = SignedCommand::sign(&genesis.cluster_id(), command, OrgId(org), [salt; 16], until, &admin(org));
    *state = settle(state, |view| {
        execute_command(view, &at(genesis, NOW), &signed.encode()).unwrap();
    });
}

/// Seats of accused nodes, and what keeps each.
fn seats(state: &State) -> Vec<(u32, GroupId, Option<Hindrance>)> {
    let found = removals(&mut View::new(state));
    found.into_iter().map(|removal| (removal.node.0, removal.group, removal.hindrance)).collect()
}

#[test]
fn whatever_was_signed_twice_accuses() {
    let genesis = genesis();
    for kind in [
        BallotKind::Proposal { valid_round: None },
        BallotKind::Proposal { valid_round: Some(0) },
        BallotKind::Prevote,
        BallotKind::Precommit,
    ] {
        let proof = two_of(&genesis, 2, Hash32([5; 32]), kind);
        let mut state = state_of(&genesis);
        let mut mail = Vec::new();
        state = settle(&state, |view| mail = accuse(view, &at(&genesis, NOW), &proof));
        let [accusation] = &accusations(&mut View::new(&state))[..] else { panic!("one accusation of {kind:?}") };
        assert_eq!((accusation.node, accusation.evidence), (NodeId(2), proof.id()), "{kind:?}");
        assert!(!mail.is_empty() && seats(&state).iter().all(|(node, _, hindrance)| (*node, *hindrance) == (2, None)));
    }
}

#[test]
fn an_accused_node_loses_its_seats_without_anybodys_command() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let mail = against(&mut state, &genesis, 2);
    let [accusation] = &accusations(&mut View::new(&state))[..] else { panic!("one accusation") };
    assert_eq!((accusation.node, accusation.org, accusation.group), (NodeId(2), OrgId(2), GroupId::shard(0)));
    assert_eq!(accusation.evidence, twice(&genesis, 2).id());
    let view = ClusterView::read(&state).unwrap();
    let plans = view.coming.iter().map(|coming| (coming.group, Message::CommitteePlan(coming.clone())));
    assert_eq!(mail, plans.collect::<Vec<_>>());
    assert!(view.coming.iter().all(|coming| coming.index_of(NodeId(2)).is_none()));
    for (node, group, hindrance) in seats(&state) {
        assert_eq!((node, hindrance), (2, None), "{group}");
    }
    // It is accused once, and no weight that its organisation gives it brings a seat back.
    let before = state.clone();
    assert_eq!(against(&mut state, &genesis, 2), []);
    assert_eq!(state, before);
    run(&mut state, &genesis, 2, 1, &BeaconCommand::SetNodeCapacity { node: NodeId(2), capacity: 9 });
    assert_eq!(ClusterView::read(&state).unwrap().coming, view.coming);
    assert_eq!(against(&mut state, &genesis, 99), [], "nobody knows such a node");
}

/// A cluster with this many nodes, whose groups have three members.
fn of_nodes(count: u32) -> Genesis {
    let (first, nodes) = (genesis(), dealt(count, 3));
    let committees = first_committees(&first.seed, &nodes, 4, 3, 3, &Constraints::default()).unwrap();
    Genesis { nodes, committees, ..first }
}

#[test]
fn a_seat_that_nobody_can_take_waits_for_a_node() {
    let genesis = of_nodes(3);
    let mut state = state_of(&genesis);
    assert_eq!(against(&mut state, &genesis, 2), []);
    let groups = || std::iter::once(GroupId::BEACON).chain((0..4).map(GroupId::shard));
    let all = |hindrance: Option<Hindrance>| -> Vec<(u32, GroupId, Option<Hindrance>)> {
        groups().map(|group| (2, group, hindrance)).collect()
    };
    assert_eq!(seats(&state), all(Some(Hindrance::NoNode)));
    run(&mut state, &genesis, 2, 1, &BeaconCommand::RegisterNode(node(4, 2, "zone-2")));
    assert_eq!(seats(&state), all(None), "the node that joins takes the seats that waited");
    let view = ClusterView::read(&state).unwrap();
    assert!(view.well_formed());
    let members = |coming: &Committee| coming.members.iter().map(|member| member.node.0).collect::<Vec<_>>();
    assert!(view.coming.iter().all(|coming| members(coming) == [1, 3, 4]));
    // That node is accused, too: nobody goes on preparing it.
    let mail = against(&mut state, &genesis, 4);
    let in_force = |group: GroupId| (group, Message::CommitteePlan(genesis.committee(group).unwrap().clone()));
    assert_eq!(mail, groups().map(in_force).collect::<Vec<_>>());
    assert_eq!(seats(&state), all(Some(Hindrance::NoNode)));
}

#[test]
fn a_committee_gives_a_seat_up_only_if_it_outlives_a_failure_without_it() {
    let nodes = dealt(8, 4);
    let committee = |engine, members: u32| {
        let member = |node: &ledger::genesis::NodeInfo| Member { node: node.id, org: node.org, key: node.key };
        let members = nodes[..members as usize].iter().map(member).collect();
        Committee::of(engine, GroupId::shard(0), Incarnation(0), Epoch(0), members)
    };
    for (engine, members, accused, left) in [
        (Engine::Raft, 3, &[2][..], None),
        (Engine::Raft, 4, &[2], Some(3)),
        (Engine::Raft, 5, &[2], Some(4)),
        (Engine::Bft, 4, &[2], None),
        (Engine::Bft, 5, &[2], Some(4)),
        // One at a time.
        (Engine::Bft, 7, &[2, 3], Some(6)),
        (Engine::Bft, 7, &[8], None),
    ] {
        let accused: Vec<NodeId> = accused.iter().map(|node| NodeId(*node)).collect();
        let found = without_one(&committee(engine, members), &accused);
        assert_eq!(found.as_ref().map(Vec::len), left, "{engine} of {members}");
        let gone = found.is_none_or(|members| members.iter().all(|member| member.node != accused[0]));
        assert!(gone, "{engine} of {members}");
    }
}
