use beacon::Trail;
use beacon::audit::{AUDIT_VERSION, Twice};
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::Height;
use ledger::machine::Driver;

use super::*;
use crate::core::driver::testing::{at_zero, block, config};
use crate::core::driver::{DriverConfig, Input};
use crate::core::entry::{Command, Entry};
use crate::core::support::{self, PEER, SHARD, committees, header};

struct Bench {
    driver: GroupDriver,
    now: Tick,
}

impl Bench {
    fn new(group: GroupId, node: u32, leads: bool) -> Self {
        let mut bench = Self { driver: GroupDriver::new(DriverConfig { group, ..config(node) }), now: Tick(0) };
        bench.step(Input::System(at_zero(group, committees())));
        bench.step(Input::Role { leads, leader: leads.then_some(NodeId(node)) });
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.driver.step(self.now, input, &mut out);
        out
    }

    fn peer(&mut self, from: u32, message: PeerMessage) -> Vec<Output> {
        self.step(Input::Peer { from: NodeId(from), message: Box::new(message) })
    }

    fn audit(&mut self, from: u32, entry: AuditEntry) -> Vec<Command> {
        proposed(&self.peer(from, PeerMessage::Audit(Box::new(entry))))
    }

    fn after(&mut self, ms: u64) -> Vec<Output> {
        self.now.0 += ms;
        self.step(Input::Timer)
    }

    /// The block is executed here, and another replica has signed it.
    fn certified(&mut self, height: u64) -> Vec<Output> {
        let header = header(SHARD, height);
        let mut out = self.step(Input::Committed(block(header.clone())));
        let attestation = support::attestation(2, &header);
        out.extend(self.peer(2, PeerMessage::Attest { attestation, wants_certificate: false }));
        out
    }
}

fn proposed(out: &[Output]) -> Vec<Command> {
    let entries = out.iter().filter_map(|output| match output {
        Output::Propose { entry, .. } => Some(Entry::decode(entry).commands),
        _ => None,
    });
    entries.flatten().collect()
}

/// The nodes that are shown a certificate of this height.
fn shown(out: &[Output]) -> Vec<(u32, u64)> {
    let shown = out.iter().filter_map(|output| match output {
        Output::Send { node, group: GroupId::BEACON, message: PeerMessage::Checkpoint(certificate) } => {
            Some((node.0, certificate.header.height.0))
        }
        _ => None,
    });
    shown.collect()
}

fn trail(height: u64) -> AuditEntry {
    let certificate = support::certify(header(SHARD, height));
    let (outbox, inbox) = (Vec::new(), Vec::new());
    AuditEntry::Trail(Trail { version: AUDIT_VERSION, headers: Vec::new(), certificate, outbox, inbox })
}

fn twice() -> AuditEntry {
    let other = Header { state_root: Hash32([7; 32]), ..header(SHARD, 5) };
    AuditEntry::Twice(Twice::of(support::certify(header(SHARD, 5)), support::certify(other)))
}

#[test]
fn a_group_that_rests_is_shown_to_the_beacon_again() {
    let mut bench = Bench::new(SHARD, 1, true);
    assert_eq!(shown(&bench.certified(1)), [], "it is early for a checkpoint");
    assert_eq!(shown(&bench.after(CHECKPOINT_AGAIN_MS - 1)), []);
    assert_eq!(shown(&bench.after(1)), [(7, 1), (8, 1), (9, 1)]);
    assert_eq!(shown(&bench.after(1)), []);
    assert_eq!(shown(&bench.after(CHECKPOINT_AGAIN_MS)), [(7, 1), (8, 1), (9, 1)], "what was asked for may be lost");
    let mut follower = Bench::new(SHARD, 1, false);
    follower.certified(1);
    assert_eq!(shown(&follower.after(10 * CHECKPOINT_AGAIN_MS)), [], "that is for the one that leads");
}

#[test]
fn the_beacon_asks_whoever_shows_it_a_certificate_for_what_is_before_it() {
    let asked = |out: &[Output]| {
        let asked = out.iter().filter_map(|output| match output {
            Output::AskTrail { group, node, certified, .. } => Some((*group, node.0, certified.0)),
            _ => None,
        });
        asked.collect::<Vec<_>>()
    };
    let checkpoint = || PeerMessage::Checkpoint(support::certify(header(SHARD, 64)));
    let mut leader = Bench::new(GroupId::BEACON, 7, true);
    assert_eq!(asked(&leader.peer(1, checkpoint())), [(SHARD, 1, 64)]);
    assert_eq!(asked(&leader.peer(2, checkpoint())), [(SHARD, 2, 64)], "also of one that is known");
    assert_eq!(asked(&leader.peer(4, checkpoint())), [], "it is no member of the group");
    let mut follower = Bench::new(GroupId::BEACON, 7, false);
    assert_eq!(asked(&follower.peer(1, checkpoint())), []);
}

#[test]
fn headers_are_given_to_the_beacon_alone() {
    let mut bench = Bench::new(SHARD, 1, false);
    for wanted in [Wanted::Trail(Some(Height(3))), Wanted::Headers(Height(3)), Wanted::Streams(Height(3))] {
        let mut given = |from| {
            let out = bench.peer(from, PeerMessage::want(wanted));
            let gives = |output: &Output| match output {
                Output::GiveTrail { node, wanted: given } => node.0 == from && *given == wanted,
                _ => false,
            };
            out.iter().any(gives)
        };
        assert!(given(8), "{wanted:?}");
        assert!(!given(2) && !given(4), "{wanted:?}");
    }
}

#[test]
fn what_is_brought_before_the_audit_is_judged_before_it_is_sequenced() {
    let mut follower = Bench::new(GroupId::BEACON, 7, false);
    assert_eq!(follower.audit(1, trail(5)), [], "it does not lead");
    let mut bench = Bench::new(GroupId::BEACON, 7, true);
    assert_eq!(bench.audit(4, trail(5)), [], "nobody of the group, nor of the beacon");
    let mut forged = support::certify(header(SHARD, 5));
    forged.signatures[0].1 = support::node_key(50).sign(&forged.header.hash());
    let AuditEntry::Trail(good) = trail(5) else { panic!("a trail") };
    assert_eq!(bench.audit(1, AuditEntry::Trail(Trail { certificate: forged, ..good })), [], "forged");
    assert_eq!(bench.audit(1, trail(5)), [Command::Audit(trail(5).encode())]);
    bench.step(Input::Proposed { id: 0, accepted: true });
    assert_eq!(bench.audit(8, twice()), [Command::Audit(twice().encode())], "from a member of the beacon");
    bench.step(Input::Proposed { id: 1, accepted: true });
    assert_eq!(bench.audit(1, twice()), [], "a proof is not sequenced again and again");
    assert_eq!(bench.audit(1, trail(5)).len(), 1, "a trail may have got lost");
}

#[test]
fn a_replica_that_is_contradicted_tells_the_beacon_what_it_has() {
    let mut bench = Bench::new(SHARD, 1, false);
    let own = header(SHARD, 1);
    bench.step(Input::Committed(block(own.clone())));
    let other = support::certify(Header { state_root: Hash32([7; 32]), ..own.clone() });
    let out = bench.peer(2, PeerMessage::Certified(other.clone()));
    assert!(matches!(out.last(), Some(Output::Stop(_))), "{out:?}");
    let expected = Divergent::sign(own, NodeId(1), &support::node_key(1), other);
    assert!(expected.holds(&support::genesis().cluster_id(), &support::committee(SHARD, 0)));
    let told: Vec<u32> = out
        .iter()
        .filter_map(|output| match output {
            Output::Send { node, group: GroupId::BEACON, message: PeerMessage::Audit(entry) } => {
                assert_eq!(**entry, AuditEntry::Divergent(expected.clone()));
                Some(node.0)
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [7, 8, 9]);
    let mut beacon = Bench::new(GroupId::BEACON, 7, true);
    assert_eq!(beacon.audit(1, AuditEntry::Divergent(expected)).len(), 1);
    assert_eq!(beacon.audit(5, AuditEntry::Trail(of(PEER))).len(), 0, "one proposal is in flight");
}

fn of(group: GroupId) -> Trail {
    let certificate = support::certify(header(group, 5));
    Trail { version: AUDIT_VERSION, headers: Vec::new(), certificate, outbox: Vec::new(), inbox: Vec::new() }
}
