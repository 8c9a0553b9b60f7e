use super::outputs::{Late, judge_late};
use super::*;
use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::genesis::genesis_state;
use crate::core::marks;
use crate::core::support::SHARD;
use crate::server::reads;
use crate::server::testing::{Lone, NODE, certify, forged, mint, write_asset};
use bytes::Bytes;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::Address;
use ledger::reject::Reject;
use ledger::schema;
use proto::v1;
use storage::WriteBatch;

fn account(prove: bool, consistency: v1::Consistency) -> v1::QueryRequest {
    let query = v1::AccountQuery { address: Bytes::copy_from_slice(&[3; 20]), group: 0 };
    v1::QueryRequest {
        consistency: consistency.into(),
        prove,
        query: Some(v1::query_request::Query::Account(query)),
        ..v1::QueryRequest::default()
    }
}

async fn refusal(handle: &GroupHandle, request: v1::QueryRequest) -> Option<v1::Refusal> {
    reads::answer(handle, None, request).await.refusal
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_group_answers_nobody() {
    let lone = Lone::start(VerifyMode::Ingest).await;
    let handle = Arc::clone(&lone.handle);
    for consistency in [v1::Consistency::Stale, v1::Consistency::Linearizable] {
        assert_eq!(refusal(&handle, account(false, consistency)).await, None);
        assert_eq!(refusal(&handle, account(true, consistency)).await, None);
    }
    handle.share.halt.stop("the disk of this test is full");
    for (prove, consistency) in
        [(false, v1::Consistency::Stale), (true, v1::Consistency::Stale), (false, v1::Consistency::Linearizable)]
    {
        let refused = refusal(&handle, account(prove, consistency)).await.expect("nothing is read any more");
        assert_eq!(refused.code, Reject::GroupStopped.code(), "{refused:?}");
    }
    lone.until("its task and its engine have ended", |handle| {
        handle.inputs.is_closed() && handle.engine.role().has_changed().is_err()
    })
    .await;
    let role = handle.role();
    assert!(!role.leads && role.leader.is_none(), "{role:?}");
    let alarms = handle.alarms.current();
    assert!(alarms.iter().any(|alarm| alarm.contains("the disk of this test is full")), "{alarms:?}");
    lone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_learns_that_its_state_is_wrong_stops() {
    let lone = Lone::start(VerifyMode::Ingest).await;
    let first = genesis_state(&lone.genesis, None, SHARD).expect("the genesis names the group").header;
    let other = Header { state_root: Hash32([7; 32]), ..first };
    lone.handle.peer(NODE, PeerMessage::Certified(certify(other)));
    lone.until("it stops", |handle| handle.stopped().is_some()).await;
    let reason = lone.handle.stopped().unwrap_or_default();
    assert!(reason.contains("its state is wrong"), "{reason}");
    let refused = refusal(&lone.handle, account(false, v1::Consistency::Stale)).await.expect("it serves nothing");
    assert_eq!((refused.code.as_str(), &refused.detail), (Reject::GroupStopped.code(), &reason));

    // It does not begin again with what it knows to be wrong.
    let folder = lone.stop().await;
    let Err((folder, error)) = Lone::start_in(folder, VerifyMode::Ingest).await else { panic!("it serves again") };
    assert_eq!(error.code(), "state_wrong");
    assert!(error.to_string().contains(&reason), "{error}");
    // What the message says to do: the state goes, and the log makes a new one.
    std::fs::remove_dir_all(folder.path().join("shard/state")).expect("the folder is there");
    let lone = Lone::start_in(folder, VerifyMode::Ingest).await.expect("it starts anew");
    assert_eq!(refusal(&lone.handle, account(false, v1::Consistency::Stale)).await, None);
    lone.stop().await;
}

/// Puts an entry with this transaction through consensus.
async fn propose(lone: &Lone, tx: Bytes) {
    let commands = vec![Command::Tx(tx.to_vec())];
    let entry = Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(0), commands };
    lone.handle.engine.propose(entry.encode().into()).await.expect("it is committed");
}

fn certified(handle: &GroupHandle) -> u64 {
    handle.certified.borrow().as_ref().map_or(0, |certificate| certificate.header.height.0)
}

fn alarmed(handle: &GroupHandle) -> bool {
    handle.alarms.current().iter().any(|alarm| alarm.contains("carries a signature that does not hold"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_block_and_what_is_built_on_it_stay_unattested_over_restarts() {
    let lone = Lone::start(VerifyMode::Every).await;
    write_asset(&lone.handle.share.state);
    let pay = |salt| mint(&lone.genesis, salt, Address([3; 20]), 5).1;
    propose(&lone, pay(1)).await;
    lone.until("the first block is certified", |handle| certified(handle) == 1).await;
    // A leader that checks nothing sequences what its client never signed.
    propose(&lone, forged(&lone.genesis, 2)).await;
    lone.until("it is noticed", alarmed).await;
    propose(&lone, pay(3)).await;
    assert_eq!(certified(&lone.handle), 1);

    let mut folder = lone.stop().await;
    for salt in 4..6 {
        let lone = Lone::start_in(folder, VerifyMode::Every).await.expect("it starts");
        lone.until("it remembers", alarmed).await;
        propose(&lone, mint(&lone.genesis, salt, Address([3; 20]), 5).1).await;
        let height = u64::from(salt);
        lone.until("the block is applied", |handle| handle.share.stand.lock().applied.height.0 == height).await;
        assert_eq!(certified(&lone.handle), 1, "block {height} stands on the forged one");
        folder = lone.stop().await;
    }
    // Without the memory of it, the blocks that it has not checked tell.
    let lone = Lone::start_in(folder, VerifyMode::Ingest).await.expect("it starts");
    let mut batch = WriteBatch::new();
    batch.delete(marks::forged());
    lone.handle.share.state.db().expect("it is open").write(batch).expect("a write");
    let folder = lone.stop().await;
    let lone = Lone::start_in(folder, VerifyMode::Every).await.expect("it starts");
    lone.until("it is found again", alarmed).await;
    lone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_was_lost_is_made_again_at_the_next_start() {
    let lone = Lone::start(VerifyMode::Ingest).await;
    write_asset(&lone.handle.share.state);
    for salt in 1..4 {
        propose(&lone, mint(&lone.genesis, salt, Address([3; 20]), 5).1).await;
    }
    lone.until("all are certified", |handle| certified(handle) == 3).await;
    let kept = |handle: &GroupHandle, height| {
        handle.share.state.load::<Certificate>(&schema::certificate(Height(height))).expect("a read")
    };
    let whole = kept(&lone.handle, 2).expect("it is kept");
    let mut batch = WriteBatch::new();
    batch.delete(schema::certificate(Height(2)));
    lone.handle.share.state.db().expect("it is open").write(batch).expect("a write");
    let folder = lone.stop().await;
    let lone = Lone::start_in(folder, VerifyMode::Ingest).await.expect("it starts");
    assert_eq!(certified(&lone.handle), 3, "what is kept counts from the start");
    lone.until("the gap is closed", |handle| kept(handle, 2).is_some()).await;
    assert_eq!(kept(&lone.handle, 2).map(|certificate| certificate.header), Some(whole.header));
    lone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_certificate_is_judged_by_what_is_in_the_database() {
    let lone = Lone::start(VerifyMode::Ingest).await;
    write_asset(&lone.handle.share.state);
    propose(&lone, mint(&lone.genesis, 1, Address([3; 20]), 5).1).await;
    let share = &lone.handle.share;
    let header: Header = share.state.load(&schema::header(Height(1))).expect("a read").expect("a header");
    let judge = |certificate: &Certificate| judge_late(share, SHARD, certificate).expect("a verdict");
    let good = certify(header.clone());
    assert!(matches!(judge(&good), Late::Holds));
    assert!(matches!(judge(&Certificate { signatures: Vec::new(), ..good }), Late::Nothing));
    let other = Header { state_root: Hash32([7; 32]), ..header.clone() };
    assert!(matches!(judge(&certify(other)), Late::Contradicts));
    let future = Header { height: Height(9), ..header };
    assert!(matches!(judge(&certify(future)), Late::Nothing));
    lone.stop().await;
}
