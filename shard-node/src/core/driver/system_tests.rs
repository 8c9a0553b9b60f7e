use std::collections::BTreeMap;

use bytes::Bytes;
use consensus::port::AppliedState;
use ledger::tree::{BitPrefix, StateTree};

use super::*;
use crate::core::entry::{ENTRY_VERSION, Entry};
use crate::core::executor::{GroupConstants, execute};
use crate::core::genesis::genesis_state;
use crate::core::marks;
use crate::core::support::{NOW, SHARD, certify, genesis};

type State = BTreeMap<Vec<u8>, Bytes>;

/// A state of [`SHARD`] with this many empty blocks.
fn state(blocks: u64) -> State {
    let genesis = genesis();
    let first = genesis_state(&genesis, None, SHARD).expect("the genesis names the group");
    let mut state: State = first.writes.into_iter().map(|(key, value)| (key, value.into())).collect();
    let prefix = genesis.layout.prefix_of(SHARD).map_or(BitPrefix::ROOT, ledger::BitPrefix::in_tree);
    let (mut tree, mut applied) = (StateTree::new(prefix), first.applied);
    let constants = GroupConstants { cluster: genesis.cluster_id(), group: SHARD, verify: VerifyMode::Ingest };
    for number in 0..blocks {
        let stamp_ms = TimeMs(NOW.0 + number);
        let payload = Entry { version: ENTRY_VERSION, stamp_ms, commands: Vec::new() }.encode().into();
        let block = execute(&state, &mut tree, &constants, &applied, AppliedState::default(), &payload);
        let block = block.expect("it is executed").block().expect("a block");
        state.extend(block.writes.into_iter().filter_map(|(key, value)| Some((key, value?))));
        applied = block.applied;
    }
    state
}

fn put<T: borsh::BorshSerialize>(state: &mut State, key: Vec<u8>, value: &T) {
    state.insert(key, borsh::to_vec(value).expect("writing to memory does not fail").into());
}

/// Certifies a block of the state and keeps the certificate, with so many of its signatures.
fn keep_certificate(state: &mut State, height: u64, signatures: usize) {
    let header = borsh::from_slice(&state[&schema::header(Height(height))]).expect("a header");
    let mut certificate = certify(header);
    certificate.signatures.truncate(signatures);
    put(state, schema::certificate(Height(height)), &certificate);
}

fn read(state: &State, verify: VerifyMode) -> Result<SystemView, ReadFault> {
    SystemView::read(state, SHARD, verify)
}

fn heights(view: &SystemView) -> (Vec<u64>, Option<u64>) {
    let recent = view.recent.iter().map(|block| block.header.height.0).collect();
    (recent, view.certified.as_ref().map(|certified| certified.certificate.header.height.0))
}

#[test]
fn it_starts_with_the_last_block_and_those_that_miss_their_certificate() {
    let mut state = state(5);
    let view = read(&state, VerifyMode::Ingest).expect("a view");
    assert_eq!(heights(&view), (vec![0, 1, 2, 3, 4, 5], None));
    keep_certificate(&mut state, 2, 2);
    keep_certificate(&mut state, 4, 2);
    assert_eq!(heights(&read(&state, VerifyMode::Ingest).expect("a view")), (vec![0, 1, 3, 5], Some(4)));
    keep_certificate(&mut state, 5, 1);
    let view = read(&state, VerifyMode::Ingest).expect("a view");
    assert_eq!(heights(&view), (vec![0, 1, 3, 5], Some(4)), "one that does not hold is none");
    keep_certificate(&mut state, 5, 2);
    let view = read(&state, VerifyMode::Ingest).expect("a view");
    assert_eq!(heights(&view), (vec![0, 1, 3, 5], Some(5)), "the last block is always there");
}

#[test]
fn what_has_been_checked_follows_from_the_marks_and_from_certificates() {
    let mut state = state(5);
    let checked = |state: &State, verify| read(state, verify).expect("a view").checked.0;
    assert_eq!(checked(&state, VerifyMode::Ingest), 5, "nothing is checked here at all");
    assert_eq!(checked(&state, VerifyMode::Every), 0);
    put(&mut state, marks::checked(), &Height(2));
    assert_eq!(checked(&state, VerifyMode::Every), 2);
    keep_certificate(&mut state, 4, 2);
    assert_eq!(checked(&state, VerifyMode::Every), 4, "a quorum has");
    put(&mut state, marks::checked(), &Height(9));
    assert_eq!(checked(&state, VerifyMode::Every), 5, "not beyond what there is");
    put(&mut state, marks::forged(), &Height(3));
    put(&mut state, marks::installed(), &Height(1));
    let view = read(&state, VerifyMode::Every).expect("a view");
    assert_eq!((view.forged, view.installed), (Some(Height(3)), Some(Height(1))));
}

#[test]
fn a_state_that_lacks_something_is_a_fault() {
    let whole = state(3);
    assert!(read(&whole, VerifyMode::Ingest).is_ok());
    for key in [schema::applied(), schema::header(Height(3)), schema::header(Height(2)), schema::block(Height(3))] {
        let mut state = whole.clone();
        state.remove(&key);
        assert!(read(&state, VerifyMode::Ingest).is_err(), "without {}", String::from_utf8_lossy(&key));
    }
    let mut state = whole.clone();
    put(&mut state, schema::outbox(crate::core::support::PEER), &OutStream { next_seq: 1, ..OutStream::default() });
    let fault = read(&state, VerifyMode::Ingest).expect_err("a message is missing");
    assert!(fault.0.contains("message 0 to shard-1"), "{fault}");
    let mut state = whole;
    let earlier = state[&schema::header(Height(2))].clone();
    state.insert(schema::header(Height(3)), earlier);
    assert!(read(&state, VerifyMode::Ingest).is_err(), "the last header is not the one that was applied");
}
