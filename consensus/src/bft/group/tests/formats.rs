//! Bytes that a member of a Byzantine group keeps on its disk: pinned by `vectors/bft.json`.

use std::sync::Arc;

use bytes::Bytes;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, Equivocation, SignedBallot};
use ledger::committee::{Committee, Engine, Member};
use ledger::crypto::{SecretKey, Signature};
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, Epoch, GroupId, Incarnation, NodeId, OrgId};
use storage::{LogStore, MemLog};

use super::super::decided;
use super::super::wal::Wal;
use crate::bft::{Body, CHAIN_VERSION, Chain, Decided, Event, Missed, Record, Turn, VALUE_VERSION, Value};
use crate::port::{Position, replica_id};
use vectors::Vectors;

#[path = "../../../../../ledger/tests/support/vectors.rs"]
mod vectors;

const CLUSTER: ClusterId = ClusterId(Hash32([7; 32]));
const SHARD: GroupId = GroupId::shard(1);
/// Version, owner and hash of a frame.
const FRAME_HASH: std::ops::Range<usize> = 33..65;

fn key() -> SecretKey {
    SecretKey::derive(b"golden", b"a member's key")
}

fn ballot(kind: BallotKind, value: Option<Hash32>) -> SignedBallot {
    let ballot = Ballot {
        version: BALLOT_VERSION,
        cluster: CLUSTER,
        group: SHARD,
        incarnation: Incarnation(2),
        committee: Hash32([6; 32]),
        index: 5,
        round: 3,
        kind,
        value,
        node: NodeId(2),
    };
    ballot.sign(&key())
}

fn value(heir: Option<NodeId>, body: Body) -> Value {
    Value {
        version: VALUE_VERSION,
        index: 5,
        previous: Hash32([1; 32]),
        proposer: NodeId(2),
        round: 3,
        heir,
        lasted_ms: 700,
        body,
    }
}

fn decided(heir: Option<NodeId>, body: Body) -> Decided {
    let signatures = vec![(NodeId(1), Signature([7; 64])), (NodeId(2), Signature([8; 64]))];
    Decided { value: value(heir, body), round: 6, signatures }
}

fn batch() -> Body {
    Body::Batch(Bytes::from_static(b"batch"))
}

/// Every kind of record, with its name. An event without a vector does not compile here.
fn records() -> Vec<(&'static str, Record)> {
    let prevote = ballot(BallotKind::Prevote, None);
    let events = [
        Event::Value { encoded: value(None, batch()).encode(), round: 3, valid: true },
        Event::Ballot(ballot(BallotKind::Proposal { valid_round: Some(1) }, Some(Hash32([5; 32])))),
        Event::Polka(vec![prevote]),
        Event::Timeout { step: 2, round: 9 },
    ];
    let named = events.map(|event| {
        let name = match event {
            Event::Value { .. } => "value",
            Event::Ballot(_) => "ballot",
            Event::Polka(_) => "polka",
            Event::Timeout { .. } => "timeout",
        };
        (name, Record { index: 5, event })
    });
    named.to_vec()
}

/// What stands in the log of a replica's records, frame by frame.
fn wal(vectors: &mut Vectors) {
    let store = Arc::new(MemLog::immediate("golden"));
    let wal = Wal::new(store.clone(), CLUSTER, SHARD, replica_id(NodeId(2), 3));
    let mut pin = |name: &str, frame: &Bytes| vectors.pin(name, frame, &hex::encode(&frame[FRAME_HASH]));
    // Up to the sixth they are forgotten; the engine began behind entry 4.
    wal.forget(6, 4, |done| done.unwrap());
    pin("wal/mark", &store.purged().unwrap().unwrap());
    let all: Vec<Record> = records().into_iter().map(|(_, record)| record).collect();
    wal.append(7, &all, |done| done.unwrap());
    let frames = store.read(0..u64::MAX, usize::MAX).unwrap();
    assert_eq!(frames.len(), all.len());
    for ((name, _), (_, frame)) in records().iter().zip(&frames) {
        pin(&format!("wal/record/{name}"), frame);
    }
    let proof = Equivocation::of(
        ballot(BallotKind::Prevote, Some(Hash32([1; 32]))),
        ballot(BallotKind::Prevote, Some(Hash32([2; 32]))),
    );
    let proof = proof.expect("they exclude each other");
    wal.save_caught(&[proof], |done| done.unwrap());
    pin("wal/caught", &store.read_vote().unwrap().unwrap());

    let kept = wal.open().unwrap().unwrap();
    assert_eq!((kept.start, kept.first, kept.records), (4, 7, all));
    assert_eq!(wal.caught().unwrap(), [proof]);
}

/// Decided values as entries of the group's log: head, seal and batch.
fn entries(vectors: &mut Vectors) {
    let at = Position { term: 3, leader: 9, index: 5 };
    for (name, one) in [("batch", decided(Some(NodeId(1)), batch())), ("blank", decided(None, Body::Blank))] {
        let entry = decided::encode(&at, &one);
        let golden = vectors.pin(&format!("entry/{name}"), &entry, &one.value.id().to_string());
        assert_eq!(decided::decode(at.index, &golden.into()), Ok(Some(one)));
    }
}

#[test]
fn what_a_member_keeps_does_not_change() {
    let mut vectors = Vectors::open("bft.json");
    for (name, one) in [("batch", value(Some(NodeId(4)), batch())), ("blank", value(None, Body::Blank))] {
        vectors.format(&format!("value/{name}"), &one, &one.id().to_string());
    }
    vectors.format("decided", &decided(Some(NodeId(4)), batch()), "");
    for (name, record) in records() {
        vectors.format(&format!("record/{name}"), &record, "");
    }
    let member = Member { node: NodeId(2), org: OrgId(1), key: key().public() };
    let committee = Committee::of(Engine::Bft, SHARD, Incarnation(2), Epoch(4), vec![member]);
    vectors.format("chain/start", &Chain::start(4, Hash32([9; 32]), &committee), "");
    let missed = vec![Missed { node: NodeId(3), skips: 1, next: 2 }];
    let turn = Turn { owner: NodeId(1), leader: NodeId(2), until: 1029, lasted_ms: 900, missed };
    let chain = Chain { version: CHAIN_VERSION, index: 5, value: Hash32([1; 32]), turn };
    assert_eq!(chain.encode(), borsh::to_vec(&chain).unwrap(), "the note of an entry is this");
    vectors.format("chain", &chain, "");
    entries(&mut vectors);
    wal(&mut vectors);
    vectors.finish();
}
