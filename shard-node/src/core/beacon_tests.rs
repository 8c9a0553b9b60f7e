//! The beacon's own committee in the composed machine: prepared, proved and put into force in the beacon's own chain, and
//! told to everybody by mail that whoever has been away can judge.

use beacon::Readiness;
use beacon::command::BeaconCommand;
use beacon::seats::{READINESS_VERSION, joining};
use cross_shard::stream;
use ledger::ids::{GroupId, NodeId};
use ledger::{Certificate, Committee, Reject, schema};

use crate::core::consortium::{Consortium, SHARDS, borsh_of, node_key, node_of};
use crate::core::driver::SystemView;
use crate::core::entry::Command;
use crate::core::machine::CommandOutcome;

const BEACON: GroupId = GroupId::BEACON;

fn known(world: &Consortium, group: GroupId) -> Committee {
    world.chain(group).read(|view| view.load(&schema::current_committee(BEACON))).expect("everybody knows the beacon")
}

fn planned(world: &Consortium) -> Option<Committee> {
    world.chain(BEACON).read(|view| view.load(&schema::coming_committee()))
}

/// Proves to the beacon that its prepared committee can take over.
fn prove(world: &mut Consortium) -> CommandOutcome {
    let (current, coming) = (known(world, BEACON), planned(world).expect("a committee is prepared"));
    let chain = world.chain(BEACON);
    let header = chain.headers.last().expect("it has blocks");
    let digest = header.hash();
    let signatures = joining(&current, &coming).into_iter().map(|node| (node, node_key(node).sign(&digest)));
    let ready = Readiness {
        version: READINESS_VERSION,
        coming: coming.hash(),
        certificate: chain.certify(header),
        signatures: signatures.collect(),
    };
    world.one(BEACON, Command::Ready(borsh_of(&ready)))
}

/// Has a node leave the beacon, and its successor come into force.
fn hand_over(world: &mut Consortium, leaves: NodeId) -> Committee {
    let org = world.genesis.node(leaves).expect("it is in the genesis").org.0;
    let drain = BeaconCommand::SetNodeCapacity { node: leaves, capacity: 0 };
    assert_eq!(world.beacon(org, &drain), CommandOutcome::Registered);
    let coming = planned(world).expect("the beacon prepares its own");
    assert!(coming.index_of(leaves).is_none() && coming.members.len() == 3, "{coming:?}");
    assert_eq!(world.chain(BEACON).read(|view| beacon::registry::coming_of(view, BEACON)), Some(coming.clone()));
    let before = known(world, BEACON);
    assert_eq!(prove(world), CommandOutcome::Registered);
    assert_eq!(planned(world), None);
    // The block that takes the proof is the last of the committee before, and the next one the first of the other.
    let last = world.chain(BEACON).headers.last().expect("a block").clone();
    assert_eq!((last.committee_hash, last.next_committee_hash), (before.hash(), coming.hash()));
    world.block(BEACON, Vec::new());
    let next = world.chain(BEACON).headers.last().expect("a block");
    assert_eq!((next.committee_hash, next.next_committee_hash), (coming.hash(), coming.hash()));
    assert_eq!(world.chain(BEACON).mailed.iter().filter(|(dest, _)| *dest == BEACON).count(), 0, "no mail to itself");
    coming
}

#[test]
fn a_group_that_was_away_follows_the_beacon_over_several_committees() {
    let mut world = Consortium::new();
    let (follows, away) = (SHARDS[0], SHARDS[1]);
    world.issue("EUR");
    let first = known(&world, BEACON);
    let mut all = vec![first.clone()];
    for org in [1, 2, 3] {
        all.push(hand_over(&mut world, node_of(org, 0)));
        while world.carry(BEACON, follows) {}
        assert_eq!(known(&world, follows), *all.last().expect("some"), "it is there for each of them");
    }
    let gone = first.members.iter().all(|member| all[3].index_of(member.node).is_none());
    assert!(gone, "nobody of the first committee is left: {all:?}");

    // What the last committee certifies, the group cannot judge yet, and takes nothing of it.
    assert_eq!(known(&world, away), first);
    let cursor = world.chain(away).read(|view| stream::in_cursor(view, BEACON));
    let latest = world.chain(BEACON).latest_bundle(away, &cursor).expect("there is mail");
    let refused = world.one(away, Command::Deliver(borsh_of(&latest)));
    assert_eq!(refused, CommandOutcome::Ignored(Reject::CommitteeUnknown));
    for committee in &all[1..] {
        assert!(world.carry(BEACON, away), "one piece for each committee");
        assert_eq!(known(&world, away), *committee);
    }
    world.settle();
    assert_eq!(known(&world, follows), known(&world, away));
    // And whatever comes then.
    world.issue("USD");
}

#[test]
fn a_driver_starts_with_the_hand_overs_that_somebody_still_needs() {
    let mut world = Consortium::new();
    world.issue("EUR");
    hand_over(&mut world, node_of(1, 0));
    hand_over(&mut world, node_of(2, 0));
    let height = |certificate: &Certificate| certificate.header.height.0;
    let heights: Vec<u64> = world.chain(BEACON).read(|view| {
        let keys = view.scan_prefix(schema::HANDOVER_PREFIX);
        keys.iter().filter_map(|(key, _)| schema::handover_of(key)).map(|height| height.0).collect()
    });
    assert_eq!(heights.len(), 2);
    let read = |world: &Consortium| {
        let system = SystemView::read(&world.chain(BEACON).state, BEACON, world.genesis.verify).expect("it is whole");
        system.handovers.iter().map(|block| height(&block.certificate)).collect::<Vec<_>>()
    };
    assert!(read(&world).is_empty(), "without a certificate a hand-over proves nothing");
    let certified: Vec<Certificate> = {
        let chain = world.chain(BEACON);
        let named = chain.headers.iter().filter(|header| heights.contains(&header.height.0));
        named.map(|header| chain.certify(header)).collect()
    };
    let chain = world.chains.get_mut(&BEACON).expect("it runs");
    for certificate in &certified {
        let bytes = bytes::Bytes::from(borsh_of(certificate));
        chain.state.insert(schema::certificate(certificate.header.height), bytes);
    }
    assert_eq!(read(&world), heights);
    // One group has everything, the other one only what the first of them proves.
    while world.carry(BEACON, SHARDS[0]) {}
    assert!(world.carry(BEACON, SHARDS[1]));
    assert_eq!(read(&world), heights[1..]);
    world.settle();
    assert!(read(&world).is_empty());
}

#[test]
fn a_proof_that_does_not_hold_changes_nothing_and_one_that_does_is_taken_once() {
    let mut world = Consortium::new();
    let drain = BeaconCommand::SetNodeCapacity { node: node_of(1, 0), capacity: 0 };
    world.beacon(1, &drain);
    let (first, coming) = (known(&world, BEACON), planned(&world).expect("a plan"));
    let chain = world.chain(BEACON);
    let certificate = chain.certify(chain.headers.last().expect("a block"));
    let bare = Readiness { version: READINESS_VERSION, coming: coming.hash(), certificate, signatures: Vec::new() };
    let refused = world.one(BEACON, Command::Ready(borsh_of(&bare)));
    assert_eq!(refused, CommandOutcome::Ignored(Reject::MailForged));
    assert_eq!((known(&world, BEACON), planned(&world)), (first, Some(coming.clone())));
    // Taken back, nothing is prepared any more.
    let stays = BeaconCommand::SetNodeCapacity { node: node_of(1, 0), capacity: 1 };
    world.beacon(1, &stays);
    assert_eq!(planned(&world), None);
    world.beacon(1, &drain);
    let again = planned(&world).expect("a plan");
    assert!(again.epoch > coming.epoch, "no epoch is given twice");
    assert_eq!(prove(&mut world), CommandOutcome::Registered);
    assert_eq!(known(&world, BEACON), again);
}

#[test]
fn a_channel_is_founded_under_a_later_committee_of_the_beacon() {
    let mut world = Consortium::new();
    let second = hand_over(&mut world, node_of(1, 0));
    let channel = world.found("steel", &[1, 2, 3]);
    assert_eq!(known(&world, channel), second, "it begins with the one that certifies its first mail");
    world.settle();
    let third = hand_over(&mut world, node_of(2, 0));
    world.settle();
    for group in [SHARDS[0], SHARDS[1], channel] {
        assert_eq!(known(&world, group), third, "{group}");
    }
}
