use bytes::Bytes;
use ledger::asset::AssetDef;
use ledger::header::{FLAG_SEALED, Header};
use ledger::ids::{Height, NodeId, TimeMs};
use ledger::machine::Driver;

use super::*;
use crate::core::driver::jobs::LONE_PROOF_MS;
use crate::core::driver::testing::{at_zero, block, config};
use crate::core::driver::{CertifiedBlock, DriverConfig, Input, SystemView};
use crate::core::elastic::{JOB, LEFT, RIGHT, asset, borsh_of, split_seal};
use crate::core::entry::{Command, Entry};
use crate::core::support::{
    PEER, SHARD, attestation, bundle, certify, committee, committees, header, node_key, stream_head,
};
use cross_shard::StreamLeaf;
use cross_shard::stream;
use ledger::lineage::SEALED_VERSION;

/// The beacon's nodes.
const BEACONS: [NodeId; 3] = [NodeId(7), NodeId(8), NodeId(9)];

struct Bench {
    driver: GroupDriver,
    now: u64,
}

impl Bench {
    fn new(view: SystemView) -> Self {
        let mut bench = Self { driver: GroupDriver::new(config(1)), now: 0 };
        bench.step(Input::System(view));
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.driver.step(Tick(self.now), input, &mut out);
        out
    }

    fn later(&mut self, ms: u64) -> Vec<Output> {
        self.now += ms;
        self.step(Input::Timer)
    }

    fn lead(&mut self) -> Vec<Output> {
        self.step(Input::Role { leads: true, leader: Some(NodeId(1)) })
    }

    fn hears(&mut self, bundle: Bundle) -> Vec<Output> {
        self.step(Input::Peer { from: BEACONS[0], message: Box::new(PeerMessage::Bundle(bundle)) })
    }
}

fn shapes() -> Vec<RootShape> {
    vec![RootShape::Leaf { position: [1; 32], value: [2; 32] }, RootShape::Empty]
}

fn sealed_at(height: u64) -> SealedBy {
    SealedBy { version: SEALED_VERSION, seal: split_seal(), height: Height(height) }
}

fn inbox() -> Vec<StreamLeaf> {
    vec![stream_head(GroupId::BEACON, &[vec![1], vec![2]])]
}

/// Block 1 of [`SHARD`], which took a seal.
fn last_block() -> CommittedBlock {
    let header = Header { flags: FLAG_SEALED, inbox_cursors_root: stream::root(&inbox()), ..header(SHARD, 1) };
    CommittedBlock { sealed: Some(sealed_at(1)), shapes: shapes(), inbox: inbox(), ..block(header) }
}

/// The state of [`SHARD`] at block 0, at which it is sealed, and which is certified or not.
fn sealed_state(certified: bool) -> SystemView {
    let zero = Header { flags: FLAG_SEALED, ..header(SHARD, 0) };
    let certificate = certify(zero.clone());
    let mut view = at_zero(SHARD, committees());
    view.recent[0].hash = zero.hash();
    view.recent[0].header = std::sync::Arc::new(zero);
    let certified = certified.then(|| CertifiedBlock { certificate, outbox: Vec::new(), inbox: inbox() });
    SystemView { sealed: Some(Standstill { by: sealed_at(0), shapes: shapes() }), certified, ..view }
}

fn tx(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 10])
}

fn refused(out: &[Output]) -> Vec<(Bytes, Reject)> {
    let given_back = |output: &Output| match output {
        Output::Refuse { txs, reject } => txs.iter().map(|tx| (tx.clone(), *reject)).collect(),
        _ => Vec::new(),
    };
    out.iter().flat_map(given_back).collect()
}

fn proposed(out: &[Output]) -> Vec<(u64, Vec<Command>)> {
    let entry = |output: &Output| match output {
        Output::Propose { id, entry } => Some((*id, Entry::decode(entry).commands)),
        _ => None,
    };
    out.iter().filter_map(entry).collect()
}

/// The proofs of a seal that were sent, with whom to.
fn proofs(out: &[Output]) -> Vec<(NodeId, SealedProof)> {
    let proof = |output: &Output| match output {
        Output::Send { node, group: GroupId::BEACON, message: PeerMessage::Sealed(proof) } => {
            Some((*node, proof.clone()))
        }
        _ => None,
    };
    out.iter().filter_map(proof).collect()
}

/// The groups that were asked for mail.
fn asked(out: &[Output]) -> Vec<GroupId> {
    let pull = |output: &Output| match output {
        Output::Send { group, message: PeerMessage::Pull { .. }, .. } => Some(*group),
        _ => None,
    };
    out.iter().filter_map(pull).collect()
}

/// What the beacon has told [`SHARD`] from message `first` on.
fn told(messages: &[Message], first: usize) -> Bundle {
    let sent: Vec<Vec<u8>> = messages.iter().map(Message::encode).collect();
    let outbox = [stream_head(SHARD, &sent)];
    let header = Header { outbox_root: stream::root(&outbox), ..header(GroupId::BEACON, sent.len() as u64) };
    bundle(certify(header), &outbox, &sent, SHARD, first, sent.len())
}

#[test]
fn a_seal_gives_everything_back_and_nothing_is_taken_or_proposed_under_it() {
    let mut bench = Bench::new(at_zero(SHARD, committees()));
    let asks = asked(&bench.lead());
    assert!(asks.contains(&PEER) && asks.contains(&GroupId::BEACON));
    bench.step(Input::Submit(vec![tx(1)]));
    bench.step(Input::Submit(vec![tx(2)]));
    let out = bench.step(Input::Committed(CommittedBlock { next_deadline: Some(TimeMs(0)), ..last_block() }));
    assert_eq!(refused(&out), [(tx(1), Reject::Sealing), (tx(2), Reject::Sealing)]);
    assert_eq!(refused(&bench.step(Input::Proposed { id: 0, accepted: false })), []);
    assert_eq!(refused(&bench.step(Input::Submit(vec![tx(3)]))), [(tx(3), Reject::Sealing)]);
    bench.step(Input::ClockOffset(1_000_000));
    // Deadlines make it propose nothing, mail of others neither.
    let mail = crate::core::support::bundle_from_peer(&committee(PEER, 0), &crate::core::support::credits(2), 0, 2);
    let message = Box::new(PeerMessage::Bundle(mail));
    let mut out = bench.step(Input::Peer { from: NodeId(4), message });
    for _ in 0..10 {
        out.extend(bench.later(300));
    }
    assert_eq!(proposed(&out), []);
    assert!(!asked(&out).is_empty() && asked(&out).iter().all(|group| *group == GroupId::BEACON));
    // Once the job is committed, others own the accounts.
    bench.step(Input::JobCommitted(JobId(JOB.0 + 1)));
    assert_eq!(refused(&bench.step(Input::Submit(vec![tx(4)]))), [(tx(4), Reject::Sealing)]);
    bench.step(Input::JobCommitted(JOB));
    assert_eq!(refused(&bench.step(Input::Submit(vec![tx(4)]))), [(tx(4), Reject::Moved)]);
    bench.step(Input::Role { leads: false, leader: Some(NodeId(2)) });
    assert_eq!(refused(&bench.step(Input::Submit(vec![tx(5)]))), [(tx(5), Reject::Moved)]);
}

#[test]
fn a_seal_waits_for_nothing_that_is_in_flight_and_takes_nothing_along() {
    let mut bench = Bench { driver: GroupDriver::new(DriverConfig { pipeline: 3, ..config(1) }), now: 0 };
    bench.step(Input::System(at_zero(SHARD, committees())));
    bench.lead();
    assert_eq!(proposed(&bench.step(Input::Submit(vec![tx(1)]))), [(0, vec![Command::Tx(tx(1).to_vec())])]);
    assert_eq!(proposed(&bench.step(Input::Submit(vec![tx(2)]))), [], "there is little to add");
    let messages = [Message::AssetUpdate(asset()), Message::Seal(split_seal())];
    let word = told(&messages[..1], 0);
    assert_eq!(proposed(&bench.hears(word.clone())), [], "what the beacon says otherwise waits as well");
    let seal = told(&messages, 1);
    let delivered: Vec<Command> =
        [word, seal.clone()].iter().map(|bundle| Command::Deliver(borsh_of(bundle))).collect();
    assert_eq!(proposed(&bench.hears(seal)), [(1, delivered)]);
    assert_eq!(proposed(&bench.step(Input::Submit(vec![tx(3)]))), [], "and what follows waits again");
    let out = bench.step(Input::Committed(last_block()));
    assert_eq!(refused(&out), [1, 2, 3].map(|byte| (tx(byte), Reject::Sealing)));
}

#[test]
fn a_leader_proves_its_last_block_once_that_is_certified_and_until_it_is_known() {
    let mut bench = Bench::new(at_zero(SHARD, committees()));
    bench.lead();
    let last = last_block();
    let header = (*last.header).clone();
    assert!(proofs(&bench.step(Input::Committed(last))).is_empty(), "nobody has certified it");
    let message = PeerMessage::Attest { attestation: attestation(2, &header), wants_certificate: false };
    let out = bench.step(Input::Peer { from: NodeId(2), message: Box::new(message) });
    let sent = proofs(&out);
    assert_eq!(sent.iter().map(|(node, _)| *node).collect::<Vec<_>>(), BEACONS);
    let proof = &sent[0].1;
    assert_eq!((proof.job, proof.certificate.header.hash()), (JOB, header.hash()));
    assert!(proof.certificate.verify(&committee(SHARD, 0)).is_ok());
    assert_eq!((&proof.inbox, stream::root(&proof.inbox)), (&inbox(), header.inbox_cursors_root));
    assert_eq!((&proof.shapes, proof.roots.len()), (&shapes(), 2));
    assert!(proof.roots.iter().zip(&proof.shapes).all(|(root, shape)| *root == shape.root()));
    assert!(proofs(&bench.later(AGAIN_MS - 1)).is_empty());
    assert_eq!(proofs(&bench.later(1)).len(), 3);
    bench.step(Input::JobCommitted(JOB));
    assert!(proofs(&bench.later(10 * AGAIN_MS)).is_empty());
}

#[test]
fn a_new_leader_of_a_sealed_group_sends_the_proof_from_what_is_in_state() {
    let mut bench = Bench::new(sealed_state(true));
    assert!(proofs(&bench.later(AGAIN_MS)).is_empty(), "it does not lead");
    let sent = proofs(&bench.lead());
    assert_eq!(sent.len(), 3);
    assert_eq!((sent[0].1.job, sent[0].1.certificate.header.height), (JOB, Height(0)));
    assert_eq!((&sent[0].1.inbox, &sent[0].1.shapes), (&inbox(), &shapes()));
    // One that lost the lead and has it again begins at once.
    bench.step(Input::Role { leads: false, leader: Some(NodeId(2)) });
    assert_eq!(proofs(&bench.lead()).len(), 3);
    let mut without = Bench::new(sealed_state(false));
    assert!(proofs(&without.lead()).is_empty(), "without a certificate there is no proof");
    assert_eq!(refused(&without.step(Input::Submit(vec![tx(1)]))), [(tx(1), Reject::Sealing)]);
}

#[test]
fn the_word_that_takes_a_seal_back_is_proposed_with_all_before_it() {
    let mut bench = Bench::new(sealed_state(true));
    bench.lead();
    let other = AssetDef { frozen: true, ..asset() };
    let first = vec![Message::AssetUpdate(other.clone()), Message::Unseal(JobId(JOB.0 + 1))];
    assert_eq!(proposed(&bench.hears(told(&first, 0))), [], "it waits for what makes it count");
    let all = [first, vec![Message::Unseal(JOB)]].concat();
    let bundles = [told(&all[..2], 0), told(&all, 2)];
    let out = bench.hears(bundles[1].clone());
    let expected: Vec<Command> = bundles.iter().map(|bundle| Command::Deliver(borsh_of(bundle))).collect();
    assert_eq!(proposed(&out), [(0, expected.clone())]);
    // Lost: all of it is asked for again. What was void counts as lost, too.
    for (id, accepted) in [(0, false), (1, true)] {
        bench.step(Input::Proposed { id, accepted });
        bench.hears(bundles[0].clone());
        assert_eq!(proposed(&bench.hears(bundles[1].clone())), [(id + 1, expected.clone())]);
    }
    // Taken: the group goes on.
    let block = CommittedBlock { unsealed: true, ..block(header(SHARD, 1)) };
    assert_eq!(refused(&bench.step(Input::Committed(block))), []);
    bench.step(Input::Proposed { id: 2, accepted: true });
    let out = bench.step(Input::Submit(vec![tx(1)]));
    assert_eq!(proposed(&out), [(3, vec![Command::Tx(tx(1).to_vec())])]);
    assert!(proofs(&bench.later(AGAIN_MS)).is_empty());
    assert!(asked(&bench.later(300)).contains(&PEER), "and hears everybody");
}

#[test]
fn streams_follow_a_change_of_the_layout() {
    let mut bench = Bench::new(at_zero(SHARD, committees()));
    bench.lead();
    // PEER was cut into two: what was mailed to it goes to them, from number 0 on.
    let mut known = committees();
    known.retain(|committee| committee.group != PEER);
    known.extend([LEFT, RIGHT].map(|group| committee(group, 0)));
    bench.step(Input::Committees(known.into()));
    let sent = crate::core::support::credits(2);
    let view = |dest: GroupId, messages: &[Vec<u8>]| crate::core::driver::OutboxView {
        leaf: stream_head(dest, messages),
        acked: 0,
        messages: messages.iter().cloned().map(Bytes::from).collect(),
    };
    let outbox = vec![view(LEFT, &sent[..1]), view(RIGHT, &sent)];
    let leaves: Vec<StreamLeaf> = outbox.iter().map(|view| view.leaf).collect();
    bench.step(Input::Streams { outbox, inbox: Vec::new() });
    let header = Header { outbox_root: stream::root(&leaves), ..header(SHARD, 1) };
    bench.step(Input::Committed(CommittedBlock { outbox: leaves, ..block(header.clone()) }));
    let message = PeerMessage::Attest { attestation: attestation(2, &header), wants_certificate: false };
    bench.step(Input::Peer { from: NodeId(2), message: Box::new(message) });
    let pull = PeerMessage::Pull { dest: RIGHT, node: BEACONS[0], next_seq: 0, ack: None };
    let out = bench.step(Input::Peer { from: BEACONS[0], message: Box::new(pull) });
    let served: Vec<usize> = out
        .iter()
        .filter_map(|output| match output {
            Output::Send { group: RIGHT, message: PeerMessage::Bundle(bundle), .. } => Some(bundle.messages.len()),
            _ => None,
        })
        .collect();
    assert_eq!(served, [2]);
    let asks = asked(&bench.later(300));
    assert!(asks.contains(&LEFT) && asks.contains(&RIGHT) && !asks.contains(&PEER));
}

#[test]
fn the_beacon_takes_reports_of_nodes_and_proofs_of_members() {
    use beacon::jobs::{JobReport, Said};
    let mut driver = GroupDriver::new(DriverConfig { group: GroupId::BEACON, key: node_key(7).into(), ..config(7) });
    let mut now = 0;
    let mut step = |ms: u64, input: Input| {
        now += ms;
        let mut out = Vec::new();
        driver.step(Tick(now), input, &mut out);
        let taken: Vec<(u64, Vec<Command>)> = proposed(&out);
        for (id, _) in &taken {
            driver.step(Tick(now), Input::Proposed { id: *id, accepted: true }, &mut Vec::new());
        }
        taken.into_iter().flat_map(|(_, commands)| commands).collect::<Vec<Command>>()
    };
    step(0, Input::System(at_zero(GroupId::BEACON, committees())));
    step(0, Input::Role { leads: true, leader: Some(NodeId(7)) });
    let hears = |from: u32, message: PeerMessage| Input::Peer { from: NodeId(from), message: Box::new(message) };
    let cluster = crate::core::support::genesis().cluster_id();
    let report = |node: u32, group, at_ms, said| {
        JobReport::sign(cluster, NodeId(node), group, TimeMs(at_ms), said, &node_key(node))
    };
    let warm = report(1, SHARD, 5, Said::Warm(JOB));
    let brought = |report: &JobReport| vec![Command::Report(borsh_of(report))];
    assert_eq!(step(0, hears(1, PeerMessage::Report(warm.clone()))), brought(&warm));
    let again = report(1, SHARD, 6, Said::Warm(JOB));
    assert_eq!(step(1, hears(1, PeerMessage::Report(again.clone()))), [], "the same was said a moment ago");
    let cold = report(1, SHARD, 7, Said::Cold(JOB));
    assert_eq!(step(1, hears(1, PeerMessage::Report(cold.clone()))), brought(&cold), "it is something else");
    assert_eq!(step(1_000, hears(1, PeerMessage::Report(again.clone()))), brought(&again));
    let forged = JobReport { node: NodeId(3), ..report(2, SHARD, 8, Said::Warm(JOB)) };
    let unknown = report(2, LEFT, 8, Said::Open(JOB));
    let bad = [(3, forged), (2, warm.clone()), (2, unknown)];
    for (from, report) in bad {
        assert_eq!(step(0, hears(from, PeerMessage::Report(report))), []);
    }
    let sealed = Header { flags: FLAG_SEALED, ..header(SHARD, 1) };
    let proof = |header: Header| SealedProof {
        version: SEALED_PROOF_VERSION,
        job: JOB,
        certificate: certify(header),
        inbox: Vec::new(),
        roots: shapes().iter().map(RootShape::root).collect(),
        shapes: shapes(),
    };
    let good = proof(sealed.clone());
    let sent = |proof: &SealedProof| PeerMessage::Sealed(proof.clone());
    assert_eq!(step(0, hears(1, sent(&good))), [Command::Sealed(borsh_of(&good))]);
    assert_eq!(step(1, hears(1, sent(&good))), [], "it was taken a moment ago");
    assert_eq!(step(1, hears(2, sent(&good))), [Command::Sealed(borsh_of(&good))], "another one leads now");
    let mut weak = good.clone();
    weak.certificate.signatures.truncate(1);
    let open = proof(header(SHARD, 1));
    for (from, proof) in [(4, &good), (3, &weak), (3, &open)] {
        assert_eq!(step(0, hears(from, sent(proof))), []);
    }
    // What was in an entry that is lost is taken when it comes again, and not a while later: payers wait.
    let mut take = |ms: u64, lost: Option<u64>| {
        let (at, mut out) = (Tick(now + ms), Vec::new());
        if let Some(id) = lost {
            driver.step(at, Input::Proposed { id, accepted: false }, &mut Vec::new());
        }
        driver.step(at, hears(3, sent(&good)), &mut out);
        proposed(&out)
    };
    let first = take(1, None);
    let (id, commands) = first.first().expect("it is taken");
    assert_eq!(*commands, [Command::Sealed(borsh_of(&good))]);
    assert_eq!(take(2, None), []);
    let again = take(3, Some(*id));
    assert_eq!(again.iter().map(|(_, commands)| commands).collect::<Vec<_>>(), [commands]);
    // A node's own word goes to all of the beacon's.
    let mut own = Bench::new(at_zero(SHARD, committees()));
    let out = own.step(Input::Report(warm));
    assert_eq!(out.len(), BEACONS.len());
}

#[test]
fn of_two_shards_that_are_joined_one_block_of_the_beacon_takes_both_ends() {
    let beacon = || {
        let config = DriverConfig { group: GroupId::BEACON, key: node_key(7).into(), pipeline: 3, ..config(7) };
        let mut driver = GroupDriver::new(config);
        driver.step(Tick(0), Input::System(at_zero(GroupId::BEACON, committees())), &mut Vec::new());
        driver.step(Tick(0), Input::Role { leads: true, leader: Some(NodeId(7)) }, &mut Vec::new());
        move |now: u64, input: Input| {
            let mut out = Vec::new();
            driver.step(Tick(now), input, &mut out);
            proposed(&out)
        }
    };
    let mut whole = shapes();
    whole.truncate(1);
    let ends = [SHARD, PEER].map(|group| SealedProof {
        version: SEALED_PROOF_VERSION,
        job: JOB,
        certificate: certify(Header { flags: FLAG_SEALED, ..header(group, 1) }),
        inbox: Vec::new(),
        roots: whole.iter().map(RootShape::root).collect(),
        shapes: whole.clone(),
    });
    let brings = |which: usize| {
        let (from, end) = (NodeId([1, 4][which]), ends[which].clone());
        Input::Peer { from, message: Box::new(PeerMessage::Sealed(end)) }
    };
    let [left, right] = [0, 1].map(|which: usize| Command::Sealed(borsh_of(&ends[which])));
    let both = vec![left.clone(), right.clone()];
    let commands = |proposals: &[(u64, Vec<Command>)]| -> Vec<Vec<Command>> {
        proposals.iter().map(|(_, commands)| commands.clone()).collect()
    };

    let mut step = beacon();
    assert!(step(0, brings(1)).is_empty(), "nothing follows on one of them");
    assert_eq!(commands(&step(40, brings(0))), std::slice::from_ref(&both));

    // Another one leads by now, or it comes late: nobody waits for it for long.
    let mut step = beacon();
    assert!(step(0, brings(0)).is_empty());
    assert!(step(LONE_PROOF_MS - 1, Input::Timer).is_empty());
    assert_eq!(commands(&step(LONE_PROOF_MS, Input::Timer)), [vec![left]]);
    let second = step(LONE_PROOF_MS + 1, brings(1));
    assert_eq!(commands(&second), [vec![right]], "with the first one in flight");
    let lost = Input::Proposed { id: second[0].0, accepted: false };
    assert!(step(LONE_PROOF_MS + 2, lost).is_empty());
    assert!(step(LONE_PROOF_MS + 3, brings(1)).is_empty(), "which of them was lost is not known");
    assert_eq!(commands(&step(LONE_PROOF_MS + 4, brings(0))), [both]);
}
