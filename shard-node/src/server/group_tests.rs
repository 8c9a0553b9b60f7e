use super::*;
use crate::core::genesis::genesis_state;
use crate::core::support::SHARD;
use crate::server::reads;
use crate::server::testing::{Lone, NODE, certify};
use bytes::Bytes;
use proto::v1;

fn account(prove: bool, consistency: v1::Consistency) -> v1::QueryRequest {
    let query = v1::AccountQuery { address: Bytes::copy_from_slice(&[3; 20]) };
    v1::QueryRequest {
        consistency: consistency.into(),
        prove,
        query: Some(v1::query_request::Query::Account(query)),
        ..v1::QueryRequest::default()
    }
}

async fn refusal(handle: &GroupHandle, request: v1::QueryRequest) -> Option<v1::Refusal> {
    reads::answer(handle, request).await.refusal
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
        handle.inputs.is_closed() && handle.raft.role().has_changed().is_err()
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
    let first = genesis_state(&lone.genesis, SHARD).expect("the genesis names the group").header;
    let other = Header { state_root: Hash32([7; 32]), ..first };
    lone.handle.peer(NODE, PeerMessage::Certified(certify(other)));
    lone.until("it stops", |handle| handle.stopped().is_some()).await;
    let reason = lone.handle.stopped().unwrap_or_default();
    assert!(reason.contains("its state is wrong"), "{reason}");
    let refused = refusal(&lone.handle, account(false, v1::Consistency::Stale)).await.expect("it serves nothing");
    assert_eq!((refused.code.as_str(), refused.detail), (Reject::GroupStopped.code(), reason));
    lone.stop().await;
}
