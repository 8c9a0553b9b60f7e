//! The driver of the beacon when its own committee changes, and those of groups that follow it.

use std::sync::Arc;

use bytes::Bytes;
use cross_shard::stream;
use ledger::Committee;
use ledger::header::Header;
use ledger::ids::{Epoch, GroupId, Height, NodeId, Tick};
use ledger::machine::Driver;

use crate::core::driver::testing::{at_zero, block, config};
use crate::core::driver::{
    CertifiedBlock, CommittedBlock, Committees, DriverConfig, GroupDriver, Input, OutboxView, Output, SystemView,
};
use crate::core::entry::{Command, Entry};
use crate::core::executor::EmittedMail;
use crate::core::peer::PeerMessage;
use crate::core::support::{self, PEER, SHARD, certify, committee, committees, credits, header, node_key, stream_head};

const BEACON: GroupId = GroupId::BEACON;
/// The node that joins the beacon.
const JOINS: u32 = 14;

/// The beacon's next committee: node 14 in the place of node 9.
fn next() -> Committee {
    let mut next = committee(BEACON, 1);
    next.members[2].node = NodeId(JOINS);
    next.members[2].key = node_key(JOINS).public();
    next
}

/// All committees, with this one of the beacon in force.
fn known(beacon: Committee, former: Vec<Committee>, coming: Option<Committee>, height: u64) -> Committees {
    let mut current = committees();
    current.retain(|committee| committee.group != BEACON);
    current.push(beacon);
    Committees { current, former, coming, height: Height(height), ..Committees::default() }
}

/// A driver whose proposals are all accepted.
struct Bench {
    driver: GroupDriver,
    now: Tick,
}

impl Bench {
    fn new(group: GroupId, node: u32, view: SystemView) -> Self {
        let driver = GroupDriver::new(DriverConfig { group, ..config(node) });
        let mut bench = Self { driver, now: Tick(0) };
        bench.step(Input::System(view));
        bench.step(Input::Role { leads: true, leader: Some(NodeId(node)) });
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let (mut inputs, mut all) = (vec![input], Vec::new());
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            self.driver.step(self.now, input, &mut out);
            let accepted = out.iter().filter_map(|output| match output {
                Output::Propose { id, .. } => Some(Input::Proposed { id: *id, accepted: true }),
                _ => None,
            });
            inputs.extend(accepted.collect::<Vec<_>>());
            all.extend(out);
        }
        all
    }

    fn peer(&mut self, from: u32, message: PeerMessage) -> Vec<Output> {
        self.step(Input::Peer { from: NodeId(from), message: Box::new(message) })
    }

    fn signed(&mut self, node: u32, header: &Header) -> Vec<Output> {
        let attestation = support::attestation(node, header);
        self.peer(node, PeerMessage::Attest { attestation, wants_certificate: false })
    }

    /// A block with all that the group has sent to [`SHARD`] so far, of which `new` messages are its own.
    fn committed(&mut self, header: Header, sent: &[Vec<u8>], new: usize) -> Vec<Output> {
        let outbox = vec![stream_head(SHARD, sent)];
        let seqs = (sent.len() - new) as u64..;
        let mail = seqs.zip(&sent[sent.len() - new..]).map(|(seq, message)| EmittedMail {
            dest: SHARD,
            seq,
            message: message.clone().into(),
        });
        self.step(Input::Committed(CommittedBlock { mail: mail.collect(), outbox, ..block(header) }))
    }

    /// What is served to node 1 of [`SHARD`] from a cursor on: first message, messages, block that certifies.
    fn served(&mut self, next_seq: u64) -> Vec<(u64, usize, u64)> {
        let out = self.peer(1, PeerMessage::Pull { dest: SHARD, node: NodeId(1), next_seq, ack: None });
        let bundles = out.into_iter().filter_map(|output| match output {
            Output::Send { node: NodeId(1), group: SHARD, message: PeerMessage::Bundle(bundle) } => Some(bundle),
            _ => None,
        });
        bundles.map(|bundle| (bundle.first_seq, bundle.messages.len(), bundle.certificate.header.height.0)).collect()
    }
}

fn commands(out: &[Output]) -> Vec<Command> {
    let entries = out.iter().filter_map(|output| match output {
        Output::Propose { entry, .. } => Some(Entry::decode(entry).commands),
        _ => None,
    });
    entries.flatten().collect()
}

/// A header of the beacon over this mail for [`SHARD`], by one committee, which names the next.
fn of_beacon(height: u64, by: &Committee, names: &Committee, sent: &[Vec<u8>]) -> Header {
    Header {
        outbox_root: stream::root(&[stream_head(SHARD, sent)]),
        committee_hash: by.hash(),
        next_committee_hash: names.hash(),
        ..header(BEACON, height)
    }
}

#[test]
fn the_beacon_proves_its_own_committee_and_serves_each_piece_under_the_one_that_is_known_there() {
    let (first, second, sent) = (committee(BEACON, 0), next(), credits(6));
    let mut bench = Bench::new(BEACON, 7, at_zero(BEACON, committees()));
    bench.committed(of_beacon(1, &first, &first, &sent[..2]), &sent[..2], 2);
    bench.step(Input::Committees(known(first.clone(), Vec::new(), Some(second.clone()), 1)));
    let quiet = of_beacon(2, &first, &first, &sent[..2]);
    bench.committed(quiet.clone(), &sent[..2], 0);
    let mut out = bench.signed(JOINS, &quiet);
    out.extend(bench.signed(8, &quiet));
    let ready: Vec<Command> =
        commands(&out).into_iter().filter(|command| matches!(command, Command::Ready(_))).collect();
    let [Command::Ready(proof)] = &ready[..] else { panic!("one proof: {out:?}") };
    let proof: beacon::Readiness = borsh::from_slice(proof).expect("it decodes");
    assert!(proof.holds(&first, &second), "what the leader proposes is what the beacon takes");
    let sends = |output: &Output| matches!(output, Output::Send { message: PeerMessage::Ready(_), .. });
    assert!(!out.iter().any(sends), "nobody has to be told");

    // The block that takes it hands over; the next one is certified by those who come.
    let last = of_beacon(3, &first, &second, &sent[..4]);
    bench.committed(last.clone(), &sent[..4], 2);
    bench.step(Input::Committees(known(second.clone(), vec![first], None, 3)));
    bench.signed(8, &last);
    let new = of_beacon(4, &second, &second, &sent);
    bench.committed(new.clone(), &sent, 2);
    bench.signed(JOINS, &new);
    assert_eq!(bench.driver.certificate().map(|latest| latest.header.height), Some(Height(4)));
    assert_eq!(bench.served(0), [(0, 4, 3), (4, 2, 4)]);
    assert_eq!(bench.served(3), [(3, 1, 3), (4, 2, 4)]);
    assert_eq!(bench.served(4), [(4, 2, 4)], "one that has the hand-over needs no more of it");
}

#[test]
fn a_replica_of_the_beacon_that_starts_again_serves_as_before() {
    let (first, second, sent) = (committee(BEACON, 0), next(), credits(6));
    let certified = |header: Header, signers: [u32; 2], sent: &[Vec<u8>]| {
        let mut certificate = certify(header);
        let digest = certificate.header.hash();
        certificate.signatures = signers.map(|node| (NodeId(node), node_key(node).sign(&digest))).to_vec();
        CertifiedBlock { certificate, outbox: vec![stream_head(SHARD, sent)], inbox: Vec::new() }
    };
    let handed = certified(of_beacon(3, &first, &second, &sent[..4]), [7, 8], &sent[..4]);
    let latest = certified(of_beacon(4, &second, &second, &sent), [7, JOINS], &sent);
    let zero = at_zero(BEACON, committees());
    let mut recent = zero.recent.clone();
    recent[0].header = Arc::new(latest.certificate.header.clone());
    recent[0].hash = latest.certificate.header.hash();
    let messages = sent.iter().cloned().map(Bytes::from).collect();
    let view = SystemView {
        committees: known(second, vec![first], None, 4),
        height: Height(4),
        recent,
        certified: Some(latest),
        handovers: vec![handed],
        checked: Height(4),
        outbox: vec![OutboxView { leaf: stream_head(SHARD, &sent), acked: 0, messages }],
        ..zero
    };
    let mut bench = Bench::new(BEACON, 7, view);
    assert_eq!(bench.served(1), [(1, 3, 3), (4, 2, 4)]);
    // How far it goes is shown in the same way.
    let out = bench.peer(1, PeerMessage::Probe { dest: SHARD, next_seq: 2 });
    let heads = out.iter().filter_map(|output| match output {
        Output::Send { message: PeerMessage::Head(proof), .. } => {
            Some((proof.leaf.next_seq, &proof.certificate.header))
        }
        _ => None,
    });
    assert_eq!(heads.map(|(upto, header)| (upto, header.height.0)).collect::<Vec<_>>(), [(4, 3)]);
}

/// A replica that was away for longer than it remembers signatures gets the certificate of a hand-over from another one.
#[test]
fn a_certificate_that_comes_late_serves_as_well() {
    let (first, second, sent) = (committee(BEACON, 0), next(), credits(4));
    let mut bench = Bench::new(BEACON, 7, at_zero(BEACON, committees()));
    let latest = of_beacon(1, &first, &first, &sent);
    bench.committed(latest.clone(), &sent, 4);
    bench.signed(8, &latest);
    assert_eq!(bench.served(0), [(0, 4, 1)]);
    for (names, expected) in [(&first, vec![(0, 4, 1)]), (&second, vec![(0, 2, 0), (2, 2, 1)])] {
        let certificate = certify(of_beacon(0, &first, names, &sent[..2]));
        let block = CertifiedBlock { certificate, outbox: vec![stream_head(SHARD, &sent[..2])], inbox: Vec::new() };
        bench.step(Input::Found(Box::new(block)));
        assert_eq!(bench.served(0), expected, "only a block that hands over counts");
    }
}

/// Nobody whom the group knows as a member of the beacon is there any more.
#[test]
fn a_group_that_was_away_asks_the_nodes_that_the_registry_names() {
    let mut bench = Bench::new(SHARD, 1, at_zero(SHARD, committees()));
    let pulled = |bench: &mut Bench, until: u64| {
        let mut asked = std::collections::BTreeSet::new();
        while bench.now < Tick(until) {
            bench.now = Tick(bench.now.0 + 25);
            for output in bench.step(Input::Timer) {
                if let Output::Send { node, group: BEACON, message: PeerMessage::Pull { .. } } = output {
                    asked.insert(node.0);
                }
            }
        }
        asked.into_iter().collect::<Vec<u32>>()
    };
    assert_eq!(pulled(&mut bench, 6_000), [7, 8, 9], "as far as it knows");
    let sent = credits(2);
    let certificate = certify(of_beacon(1, &committee(BEACON, 0), &next(), &sent));
    let mail = support::bundle(certificate, &[stream_head(SHARD, &sent)], &sent, SHARD, 0, 2);
    let offered = |bench: &mut Bench| commands(&bench.peer(17, PeerMessage::Bundle(mail.clone()))).len();
    assert_eq!(offered(&mut bench), 0, "a stranger");
    bench.step(Input::Beacon(vec![NodeId(17), NodeId(18)]));
    assert_eq!(pulled(&mut bench, 14_000), [7, 8, 9, 17, 18]);
    assert_eq!(offered(&mut bench), 1, "what it brings is judged by the committee that certified it");
    // It speaks for the beacon alone, and what it brings under no known committee is not taken.
    let unknown = Committee { epoch: Epoch(5), ..next() };
    let more = credits(4);
    let certificate = certify(of_beacon(2, &unknown, &unknown, &more));
    let mail = support::bundle(certificate, &[stream_head(SHARD, &more)], &more, SHARD, 2, 4);
    assert_eq!(commands(&bench.peer(17, PeerMessage::Bundle(mail))), []);
    let foreign = support::bundle_from_peer(&committee(PEER, 0), &sent, 0, 2);
    assert_eq!(commands(&bench.peer(17, PeerMessage::Bundle(foreign))), []);
}
