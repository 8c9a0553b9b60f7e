//! Golden vectors of what a replica puts into its log and its database, says to its peers and
//! computes from the genesis.

#![cfg(feature = "server")]

mod support;
#[path = "../../ledger/tests/support/vectors.rs"]
mod vectors;

use beacon::jobs::{JobReport, RootShape, Said, SealedProof};
use consensus::port::{AppliedState, Position};
use cross_shard::{Bundle, StreamLeaf};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{GroupId, Height, JobId, NodeId, TimeMs, TxId};
use ledger::{Outcome, Receipt, Reject};
use shard_node::core::applied::{AppliedRecord, ENGINE_START_VERSION, EngineStart};
use shard_node::core::entry::{Command, ENTRY_VERSION, Entry};
use shard_node::core::genesis::{genesis_state, writes_hash};
use shard_node::core::peer::{HeadProof, PeerMessage};
use shard_node::core::records::{BlockRecord, ReceiptPlace};
use support::{GROUPS, NOW, PEER, SHARD};
use vectors::{Vectors, refuses_other_lengths};

fn every_command() -> Vec<Command> {
    vec![
        Command::Tx(vec![1, 2, 3]),
        Command::Deliver(vec![4]),
        Command::Ack(vec![5, 6]),
        Command::Checkpoint(Vec::new()),
        Command::Registry(vec![7; 8]),
        Command::Channel(vec![8, 9]),
        Command::Ready(vec![8; 8]),
        Command::Evidence(vec![9; 4]),
        Command::Silence(vec![10; 3]),
        Command::Report(vec![11; 2]),
        Command::Sealed(vec![12; 2]),
        Command::Contribution(vec![12; 3]),
        Command::Audit(vec![13; 5]),
    ]
}

/// A command without a vector does not compile here.
fn name_of_command(command: &Command) -> &'static str {
    match command {
        Command::Tx(_) => "command/tx",
        Command::Deliver(_) => "command/deliver",
        Command::Ack(_) => "command/ack",
        Command::Checkpoint(_) => "command/checkpoint",
        Command::Registry(_) => "command/registry",
        Command::Channel(_) => "command/channel",
        Command::Ready(_) => "command/ready",
        Command::Evidence(_) => "command/evidence",
        Command::Silence(_) => "command/silence",
        Command::Contribution(_) => "command/contribution",
        Command::Audit(_) => "command/audit",
        Command::Report(_) => "command/report",
        Command::Sealed(_) => "command/sealed",
    }
}

#[test]
fn entries() {
    let mut vectors = Vectors::open("entries.json");
    for command in every_command() {
        vectors.format(name_of_command(&command), &command, &command.hash().to_string());
        let bytes = borsh::to_vec(&command).expect("writing to memory does not fail");
        assert_eq!(command.size(), bytes.len(), "batches are filled by this size");
    }
    let empty = Entry { version: ENTRY_VERSION, stamp_ms: NOW, commands: Vec::new() };
    vectors.format("entry/empty", &empty, "");
    let entry = Entry { commands: every_command(), ..empty };
    vectors.format("entry/every command", &entry, "");
    let bytes = entry.encode();
    assert_eq!(Entry::decode(&bytes), entry);
    refuses_other_lengths("entry in the log", &bytes, |bytes| !Entry::decode(bytes).commands.is_empty());
    vectors.finish();
}

#[test]
fn equal_bytes_in_different_commands_have_different_hashes() {
    let bytes = vec![1, 2, 3];
    let commands = [
        Command::Tx,
        Command::Deliver,
        Command::Ack,
        Command::Checkpoint,
        Command::Registry,
        Command::Channel,
        Command::Ready,
        Command::Evidence,
        Command::Silence,
        Command::Contribution,
        Command::Audit,
        Command::Report,
        Command::Sealed,
    ];
    let mut hashes: Vec<Hash32> = commands.iter().map(|command| command(bytes.clone()).hash()).collect();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), commands.len());
}

fn every_peer_message() -> Vec<PeerMessage> {
    let sent = support::credits(3);
    let header = support::header(SHARD, 7);
    let ack = support::ack_from_peer(&sent);
    let Bundle { leaf, path, certificate, .. } = support::bundle_from_peer(&support::committee(PEER, 0), &sent, 0, 3);
    let head = HeadProof { version: 1, leaf, path, certificate };
    let trail = beacon::Trail {
        version: beacon::audit::AUDIT_VERSION,
        headers: vec![support::header(SHARD, 6)],
        certificate: support::certify(header.clone()),
        outbox: vec![leaf],
        inbox: Vec::new(),
    };
    let pull = |ack| PeerMessage::Pull { dest: PEER, node: NodeId(4), next_seq: 3, ack };
    let sealed = support::certify(ledger::Header { flags: ledger::header::FLAG_SEALED, ..header.clone() });
    let shapes = vec![RootShape::Leaf { position: [5; 32], value: [6; 32] }, RootShape::Empty];
    vec![
        PeerMessage::Attest { attestation: support::attestation(1, &header), wants_certificate: true },
        PeerMessage::Certified(support::certify(header.clone())),
        PeerMessage::Ready(beacon::Readiness {
            version: beacon::seats::READINESS_VERSION,
            coming: Hash32([9; 32]),
            certificate: support::certify(header.clone()),
            signatures: vec![(NodeId(1), support::attestation(1, &header).signature)],
        }),
        pull(None),
        pull(Some(ack.clone())),
        PeerMessage::Serving { source: PEER },
        PeerMessage::Bundle(support::bundle_from_peer(&support::committee(PEER, 0), &sent, 0, 2)),
        PeerMessage::Ack(ack),
        PeerMessage::Checkpoint(support::certify(header)),
        PeerMessage::Probe { dest: PEER, next_seq: 3 },
        PeerMessage::Head(head),
        PeerMessage::Want { height: ledger::Height(7) },
        PeerMessage::Evidence(support::twice(1)),
        PeerMessage::Silence(beacon::Silence {
            version: beacon::watch::WATCH_VERSION,
            cluster: ledger::ClusterId(Hash32([1; 32])),
            reporter: NodeId(2),
            at_ms: NOW,
            silent: vec![NodeId(3), NodeId(5)],
            signature: ledger::Signature([7; 64]),
        }),
        PeerMessage::WantTrail { after: None },
        PeerMessage::WantTrail { after: Some(Height(6)) },
        PeerMessage::Audit(Box::new(beacon::AuditEntry::Trail(trail))),
        PeerMessage::Contribution(beacon::Contribution {
            version: beacon::epochs::CONTRIBUTION_VERSION,
            cluster: ledger::ClusterId(Hash32([1; 32])),
            epoch: 3,
            node: NodeId(2),
            part: beacon::epochs::Part::Secret(Hash32([5; 32])),
            signature: ledger::Signature([7; 64]),
        }),
        PeerMessage::Report(JobReport {
            version: beacon::jobs::report::REPORT_VERSION,
            cluster: ledger::ClusterId(Hash32([1; 32])),
            node: NodeId(2),
            group: SHARD,
            at_ms: NOW,
            said: Said::Warm(JobId(3)),
            signature: ledger::Signature([7; 64]),
        }),
        PeerMessage::Sealed(SealedProof {
            version: beacon::jobs::commit::SEALED_PROOF_VERSION,
            job: JobId(3),
            certificate: sealed,
            inbox: vec![StreamLeaf { peer: PEER, next_seq: 3, head: Hash32([4; 32]) }],
            roots: shapes.iter().map(RootShape::root).collect(),
            shapes,
        }),
        PeerMessage::WantHeaders { after: Height(6) },
        PeerMessage::WantStreams { at: Height(7) },
    ]
}

/// A message without a vector does not compile here.
fn name_of_message(message: &PeerMessage) -> &'static str {
    match message {
        PeerMessage::Attest { .. } => "attest",
        PeerMessage::Certified(_) => "certified",
        PeerMessage::Pull { ack: None, .. } => "pull",
        PeerMessage::Pull { ack: Some(_), .. } => "pull/with acknowledgement",
        PeerMessage::Serving { .. } => "serving",
        PeerMessage::Bundle(_) => "bundle",
        PeerMessage::Ack(_) => "acknowledgement",
        PeerMessage::Checkpoint(_) => "checkpoint",
        PeerMessage::Probe { .. } => "probe",
        PeerMessage::Head(_) => "head",
        PeerMessage::Want { .. } => "want",
        PeerMessage::Ready(_) => "ready",
        PeerMessage::Evidence(_) => "evidence",
        PeerMessage::Silence(_) => "silence",
        PeerMessage::WantTrail { after: None } => "want trail/from the start",
        PeerMessage::WantTrail { after: Some(_) } => "want trail",
        PeerMessage::Audit(_) => "audit",
        PeerMessage::Contribution(_) => "contribution",
        PeerMessage::Report(_) => "report",
        PeerMessage::Sealed(_) => "sealed",
        PeerMessage::WantHeaders { .. } => "want headers",
        PeerMessage::WantStreams { .. } => "want streams",
    }
}

#[test]
fn peer_messages() {
    let mut vectors = Vectors::open("peer.json");
    for message in every_peer_message() {
        vectors.format(name_of_message(&message), &message, "");
        assert_eq!(borsh::from_slice::<PeerMessage>(&message.encode()).expect("it decodes"), message);
    }
    vectors.finish();
}

fn receipt(index: u32, outcome: Outcome) -> Receipt {
    let txid = TxId(sha256(&index.to_le_bytes()));
    Receipt { version: 1, txid, group: SHARD, height: Height(7), index, time_ms: NOW, outcome }
}

#[test]
fn records() {
    let mut vectors = Vectors::open("records.json");
    let fresh = AppliedRecord {
        version: 1,
        consensus: AppliedState::default(),
        height: Height(0),
        header_hash: Hash32([3; 32]),
        time_ms: NOW,
        state_root: Hash32([4; 32]),
    };
    vectors.format("applied/fresh", &fresh, "");
    let position = Position { term: 2, leader: 1, index: 9 };
    let consensus = AppliedState { position: Some(position), membership: Some((Some(position), vec![5, 6])) };
    let later = AppliedRecord { consensus, height: Height(8), time_ms: TimeMs(NOW.0 + 1), ..fresh };
    vectors.format("applied/later", &later, "");
    let start = EngineStart {
        version: ENGINE_START_VERSION,
        engine: ledger::Engine::Bft,
        after: position,
        height: Height(8),
        anchor: Hash32([3; 32]),
    };
    vectors.format("engine start", &start, "");
    vectors.format("receipt place", &ReceiptPlace { height: Height(7), index: 2, chain: SHARD }, "");
    vectors.format("block/empty", &BlockRecord::default(), "");
    let leaf = |peer, next_seq| StreamLeaf { peer, next_seq, head: Hash32([6; 32]) };
    let record = BlockRecord {
        receipts: vec![
            receipt(0, Outcome::Committed { mail: vec![(PEER, 5)] }),
            receipt(1, Outcome::Rejected(Reject::InsufficientFunds)),
        ],
        outbox: vec![leaf(PEER, 6)],
        inbox: vec![leaf(GroupId::BEACON, 1), leaf(PEER, 2)],
    };
    vectors.format("block/full", &record, "");
    vectors.finish();
}

#[test]
fn block_zero() {
    let mut vectors = Vectors::open("genesis.json");
    let genesis = support::genesis();
    vectors.pin("cluster", &borsh::to_vec(&genesis).expect("it encodes"), &genesis.cluster_id().to_string());
    for group in GROUPS {
        let state = genesis_state(&genesis, None, group).expect("the genesis names the group");
        assert_eq!(state.applied.header_hash, state.header.hash());
        assert!(state.writes.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, each key once");
        vectors.format(&format!("{group}/header"), &state.header, &state.header.hash().to_string());
        vectors.format(&format!("{group}/applied"), &state.applied, "");
        let keys: Vec<u8> = state.writes.iter().flat_map(|(key, _)| key.clone()).collect();
        vectors.pin(&format!("{group}/keys and hash of all writes"), &keys, &writes_hash(&state.writes).to_string());
    }
    assert!(genesis_state(&genesis, None, GroupId::shard(2)).is_err(), "a group that the genesis does not name");
    vectors.finish();
}
