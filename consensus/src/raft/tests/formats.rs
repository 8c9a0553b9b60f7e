//! Bytes of the log and the wire: fixed, and safe against garbage.

use bytes::Bytes;
use ledger::ids::NodeId;
use openraft::entry::RaftEntry;
use openraft::raft::AppendEntriesRequest;
use proptest::prelude::*;

use crate::port::{Position, SnapshotSecret};
use crate::raft::codec;
use crate::raft::types::{Batch, Entry, EntryPayload, LeaderId, Membership, Vote, log_id};
use crate::raft::wire;

fn at(index: u64) -> crate::raft::types::LogId {
    log_id(&Position { term: 3, leader: 9, index })
}

fn membership() -> Membership {
    let voters = vec![[1, 2].into(), [2, 4].into()];
    Membership::new(
        voters,
        [1, 2, 4, 5].into_iter().map(|id| (id, NodeId(id as u32 + 10))).collect::<std::collections::BTreeMap<_, _>>(),
    )
    .unwrap()
}

fn entries() -> Vec<Entry> {
    vec![
        Entry::new(at(5), EntryPayload::Blank),
        Entry::new(at(6), EntryPayload::Normal(Batch(Bytes::from_static(b"batch")))),
        Entry::new(at(7), EntryPayload::Membership(membership())),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn formats_do_not_change() {
    let encoded: Vec<_> = entries().iter().map(codec::encode_entry).collect();
    assert_eq!(hex(&encoded[0]), "010300000000000000090000000000000000");
    assert_eq!(hex(&encoded[1]), "0103000000000000000900000000000000016261746368");
    assert_eq!(hex(&codec::encode_log_id(Some(&at(5)))), "0101030000000000000009000000000000000500000000000000");
    let vote = Vote { leader_id: LeaderId { term: 3, node_id: 9 }, committed: true };
    assert_eq!(hex(&codec::encode_vote(&vote)), "010300000000000000090000000000000001");
    assert_eq!(codec::decode_vote(&codec::encode_vote(&vote)), Ok(vote));
    for (entry, bytes) in entries().iter().zip(&encoded) {
        assert_eq!(codec::decode_entry(entry.index(), bytes).as_ref(), Ok(entry));
    }
    assert_eq!(codec::decode_membership(&codec::encode_membership(&membership())), Ok(membership()));
}

#[cfg(feature = "bft")]
#[test]
fn entries_with_a_seal_and_votes_with_a_stint_do_not_change() {
    let position = Position { term: 3, leader: 9, index: 6 };
    let batch = codec::encode_sealed(&position, b"seal", Some(b"batch"));
    assert_eq!(hex(&batch), "010300000000000000090000000000000004040000007365616c6261746368");
    let blank = codec::encode_sealed(&position, b"seal", None);
    assert_eq!(codec::decode_entry(6, &batch), Ok(Entry::new(at(6), EntryPayload::Normal(Batch("batch".into())))));
    assert_eq!(codec::decode_entry(6, &blank), Ok(Entry::new(at(6), EntryPayload::Blank)));
    let both = Some(("seal".into(), Some("batch".into())));
    assert_eq!(codec::decode_sealed(6, &batch), Ok(both));
    assert_eq!(codec::decode_sealed(6, &codec::encode_entry(&entries()[1])), Ok(None));
    for cut in 18..22 {
        assert!(codec::decode_entry(6, &batch.slice(..cut)).is_err(), "{cut}");
    }
    let vote = Vote { leader_id: LeaderId { term: 3, node_id: 9 }, committed: true };
    let stint = codec::Stint { start: 5, votes: true };
    let noted = codec::encode_stint(&vote, stint);
    assert_eq!(hex(&noted), "020300000000000000090000000000000001050000000000000001");
    assert_eq!((codec::decode_vote(&noted), codec::decode_stint(&noted)), (Ok(vote), Ok(Some(stint))));
    assert_eq!(codec::decode_stint(&codec::encode_vote(&vote)), Ok(None));
}

const HEAD: wire::Head = wire::Head { to: 1, from: 2, stint: 0 };
const IN_A_STINT: wire::Head = wire::Head { stint: 77, ..HEAD };

/// A group that has never gone over to another engine sends what it always has.
#[test]
fn a_request_says_of_which_stint_it_is() {
    let first = wire::request(HEAD, &7_u8);
    assert_eq!(hex(&first), "010100000000000000020000000000000007");
    let later = wire::request(IN_A_STINT, &7_u8);
    assert_eq!(hex(&later), "02010000000000000002000000000000004d0000000000000007");
    for (bytes, stint) in [(first, 0), (later.clone(), 77)] {
        let request = wire::open_request(bytes).unwrap();
        assert_eq!((request.to, request.from, request.stint, request.body.as_ref()), (1, 2, stint, &[7][..]));
    }
    for cut in 0..25 {
        assert!(wire::open_request(later.slice(..cut)).is_err(), "{cut}");
    }
}

fn append() -> Bytes {
    let request = AppendEntriesRequest {
        vote: Vote { leader_id: LeaderId { term: 3, node_id: 9 }, committed: true },
        prev_log_id: Some(at(4)),
        entries: entries(),
        leader_commit: Some(at(2)),
    };
    wire::append(HEAD, &wire::Append { stream: 7, sequence: 8, request })
}

#[test]
fn appends_arrive_as_sent() {
    let request = wire::open_request(append()).unwrap();
    assert_eq!((request.to, request.from), (1, 2));
    let append = wire::open_append(&request.body).unwrap();
    assert_eq!((append.stream, append.sequence), (7, 8));
    assert_eq!(append.request.entries, entries());
    assert_eq!(append.request.prev_log_id, Some(at(4)));
    assert_eq!(append.request.leader_commit, Some(at(2)));
}

proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
        if head && !bytes.is_empty() {
            bytes[0] = 1;
        }
        let bytes = Bytes::from(bytes);
        let _ = codec::decode_entry(3, &bytes);
        let _ = codec::decode_vote(&bytes);
        let _ = codec::decode_log_id(&bytes);
        let _ = codec::decode_membership(&bytes);
        let _ = wire::open_append(&bytes);
        let _ = wire::open_request(bytes.clone());
        let _ = wire::body::<wire::Offer>(&bytes);
        let _ = wire::body::<wire::Ask>(&bytes);
        let _ = wire::body::<wire::Read>(&bytes);
        let _ = wire::open_reply::<wire::AskReply>(&bytes);
        let _ = wire::open_reply::<wire::ReadReply>(&bytes);
        let _ = wire::open_reply::<wire::AppendReply>(&bytes);
    }

    #[test]
    fn cut_or_altered_appends_never_panic(cut in 0_usize..300, flip in 0_usize..300, bit in 0_u8..8) {
        let whole = append();
        let mut bytes = whole[..cut.min(whole.len())].to_vec();
        if let Some(byte) = bytes.get_mut(flip) {
            *byte ^= 1 << bit;
        }
        if let Ok(request) = wire::open_request(bytes.into()) {
            let _ = wire::open_append(&request.body);
        }
    }
}

/// What a transport has to let through, with the fullest append there can be: one entry of the
/// largest batch, or as many as an append takes, as full as they may be together.
#[test]
fn the_largest_calls_are_within_the_limit_of_calls() {
    use ledger::limits::{BATCH_BYTES_MAX, GRPC_BYTES_MAX};
    let append = |payloads: Vec<usize>| {
        let batch = |(index, bytes)| Entry::new(at(index), EntryPayload::Normal(Batch(Bytes::from(vec![7; bytes]))));
        let request = AppendEntriesRequest {
            vote: Vote { leader_id: LeaderId { term: 3, node_id: 9 }, committed: true },
            prev_log_id: Some(at(4)),
            entries: (5..).zip(payloads).map(batch).collect(),
            leader_commit: Some(at(2)),
        };
        wire::append(IN_A_STINT, &wire::Append { stream: 1, sequence: 0, request }).len()
    };
    let many = crate::raft::config::APPEND_ENTRIES_MAX as usize;
    for largest in [append(vec![BATCH_BYTES_MAX]), append(vec![wire::APPEND_BYTES_MAX / many; many])] {
        assert!(largest <= wire::CALL_BYTES_MAX, "{largest}");
    }
    let file =
        wire::FileInfo { path: "x".repeat(wire::SNAPSHOT_PATH_BYTES_MAX), length_bytes: u64::MAX, sha256: [9; 32] };
    let manifest = wire::Manifest {
        position: None,
        membership_at: None,
        membership: Vec::new(),
        files: vec![file; wire::SNAPSHOT_FILES_MAX],
    };
    let secret = SnapshotSecret(vec![7; wire::SNAPSHOT_SECRET_BYTES_MAX]);
    let vote = Vote { leader_id: LeaderId { term: 3, node_id: 9 }, committed: true };
    let offer = wire::request(IN_A_STINT, &wire::Offer { vote: (&vote).into(), manifest, secret });
    assert!(offer.len() <= wire::CALL_BYTES_MAX, "{}", offer.len());
    // The group and the kind that the node's service puts around a call, and its gRPC frame.
    const { assert!(wire::CALL_BYTES_MAX + 64 <= GRPC_BYTES_MAX) };
}
