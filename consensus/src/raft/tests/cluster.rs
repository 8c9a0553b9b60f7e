//! Groups of three and four replicas: order, loss of nodes, membership, reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ledger::ids::{GroupId, NodeId};
use tempfile::TempDir;

use super::support::*;
use crate::port::SequencerError;
use crate::raft::{HandleError, RaftGroup, wire};
use crate::sequencer::Sequencer;

async fn pipelined(group: RaftGroup, task: u32, count: u32) -> Vec<(u64, Vec<u8>)> {
    let mut waiting = Vec::new();
    for number in 0..count {
        let batch = format!("{task}:{number}").into_bytes();
        waiting.push((group.submit(Bytes::from(batch.clone())).await.unwrap(), batch));
    }
    let mut done = Vec::new();
    for (proposal, batch) in waiting {
        done.push((proposal.await.unwrap(), batch));
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pipelined_batches_are_applied_alike_everywhere() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let tasks: Vec<_> = (0..4).map(|task| tokio::spawn(pipelined(cluster.group(leader), task, 250))).collect();
    let mut log = Vec::new();
    for task in tasks {
        let done = task.await.unwrap();
        assert!(done.is_sorted_by_key(|(index, _)| *index), "calls in order are entries in order");
        log.extend(done);
    }
    log.sort();
    let expected: Vec<_> = log.iter().map(|(_, batch)| batch.clone()).collect();
    cluster.applied(&[1, 2, 3], log.last().unwrap().0).await;
    for node in 1..=3 {
        assert_eq!(cluster.state(node).batches, expected, "node {node}");
    }
    let role = until(&cluster.group(leader), |role| role.replicated.iter().all(|(_, upto)| *upto >= log[999].0)).await;
    assert_eq!(role.voters, [1, 2, 3].map(NodeId));
    assert_eq!(role.replicated.len(), 2);
    let follower = cluster.group(1 + leader % 3);
    let refused = follower.propose(Bytes::from_static(b"no")).await;
    assert_eq!(refused, Err(SequencerError::NotLeader(Some(NodeId(leader)))));
    // A second bootstrap does nothing.
    cluster.group(leader).bootstrap(vec![(raft_id(leader), NodeId(leader))]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_that_reorders_costs_nothing_but_time() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.net.shuffled.store(true, Ordering::Relaxed);
    let done = pipelined(cluster.group(leader), 0, 500).await;
    let expected: Vec<_> = done.iter().map(|(_, batch)| batch.clone()).collect();
    cluster.applied(&[1, 2, 3], done[499].0).await;
    for node in 1..=3 {
        assert_eq!(cluster.state(node).batches, expected, "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_follower_replays_what_its_state_lost() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let follower = 1 + leader % 3;
    let first = propose(&cluster, leader, "one").await;
    cluster.applied(&[follower], first).await;
    let early = cluster.state(follower);
    let second = propose(&cluster, leader, "two").await;
    cluster.applied(&[follower], second).await;
    cluster.stop(follower).await;
    let third = propose(&cluster, leader, "three").await;
    cluster.restart(follower, early).await;
    // What was committed before the stop is there again before the replica serves anything.
    assert!(cluster.group(follower).role().borrow().applied_index >= first);
    cluster.applied(&[follower], third).await;
    assert_eq!(cluster.state(follower).batches, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_takes_nothing_committed_with_it() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let mut expected = Vec::new();
    for number in 0..20 {
        propose(&cluster, leader, &format!("before {number}")).await;
        expected.push(format!("before {number}").into_bytes());
    }
    let state = cluster.state(leader);
    cluster.stop(leader).await;
    let rest: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
    let next = cluster.leader(&rest).await;
    // It leads only when it has applied everything that was committed.
    assert_eq!(cluster.state(next).batches, expected);
    let last = propose(&cluster, next, "after").await;
    expected.push(b"after".to_vec());
    cluster.applied(&rest, last).await;
    cluster.restart(leader, state).await;
    cluster.applied(&[leader], last).await;
    for node in 1..=3 {
        assert_eq!(cluster.state(node).batches, expected, "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_changes_from_three_to_four_and_back() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let group = cluster.group(leader);
    propose(&cluster, leader, "old").await;
    cluster.add(4).await;
    let unknown = group.change_voters(vec![101, 102, 103, 104]).await;
    assert!(matches!(unknown, Err(SequencerError::Refused(_))), "not a learner yet: {unknown:?}");
    assert!(matches!(group.change_voters(vec![]).await, Err(SequencerError::Refused(_))));
    group.add_learner(raft_id(4), NodeId(4)).await.unwrap();
    let role = until(&group, |role| role.learners == [NodeId(4)]).await;
    until(&group, |now| now.replicated.contains(&(NodeId(4), role.last_log_index))).await;
    group.change_voters((1..=4).map(raft_id).collect()).await.unwrap();
    let index = propose(&cluster, leader, "four").await;
    cluster.applied(&[4], index).await;
    let leaving = 1 + leader % 3;
    group.change_voters((1..=4).filter(|node| *node != leaving).map(raft_id).collect()).await.unwrap();
    let role = until(&group, |role| role.voters.len() == 3).await;
    assert!(!role.voters.contains(&NodeId(leaving)) && role.learners.is_empty());
    cluster.stop(leaving).await;
    let index = propose(&cluster, leader, "three").await;
    let rest: Vec<u32> = (1..=4).filter(|node| *node != leaving).collect();
    cluster.applied(&rest, index).await;
    assert_eq!(cluster.state(4).batches, [b"old".to_vec(), b"four".to_vec(), b"three".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    propose(&cluster, leader, "one").await;
    let heir = 1 + leader % 3;
    cluster.group(leader).transfer_leader(NodeId(heir)).await.unwrap();
    until(&cluster.group(heir), |role| role.leads).await;
    let index = propose(&cluster, heir, "two").await;
    cluster.applied(&[1, 2, 3], index).await;
    let unknown = cluster.group(heir).transfer_leader(NodeId(9)).await;
    assert!(matches!(unknown, Err(SequencerError::Refused(_))));
    cluster.group(heir).step_down().await.unwrap();
    let rest: Vec<u32> = (1..=3).filter(|node| *node != heir).collect();
    let next = cluster.leader(&rest).await;
    let index = propose(&cluster, next, "three").await;
    cluster.applied(&[1, 2, 3], index).await;
    cluster.group(heir).step_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_refuses_linearizable_reads() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let old = cluster.group(leader);
    let index = propose(&cluster, leader, "one").await;
    assert!(old.read_barrier().await.unwrap() >= index);
    let follower = cluster.group(1 + leader % 3);
    assert_eq!(follower.read_barrier().await, Err(SequencerError::NotLeader(Some(NodeId(leader)))));
    cluster.net.cut(NodeId(leader));
    let refused = old.read_barrier().await;
    assert!(matches!(refused, Err(SequencerError::Unknown(_) | SequencerError::NotLeader(_))), "{refused:?}");
    let rest: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
    let next = cluster.leader(&rest).await;
    let lost = old.submit(Bytes::from_static(b"lost")).await.unwrap();
    let index = propose(&cluster, next, "two").await;
    assert!(cluster.group(next).read_barrier().await.unwrap() >= index);
    let role = until(&old, |role| !role.leads).await;
    assert_eq!(role.leader, None, "it knows that it is cut off");
    cluster.net.join(NodeId(leader));
    cluster.applied(&[leader], index).await;
    let fate = lost.await;
    assert!(matches!(fate, Err(SequencerError::Unknown(_) | SequencerError::NotLeader(_))), "{fate:?}");
    assert_eq!(cluster.state(leader).batches, [b"one".to_vec(), b"two".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_leads_before_its_time_out_when_it_is_told_to_stand_and_somebody_is_there_to_vote() {
    let mut cluster = Cluster { net: Arc::default(), nodes: BTreeMap::new() };
    cluster.net.patient.store(true, Ordering::Relaxed);
    cluster.add(1).await;
    let members = (1..=3).map(|node| (raft_id(node), NodeId(node))).collect();
    cluster.group(1).bootstrap(members).await.unwrap();
    cluster.group(1).campaign().await.unwrap();
    // Nobody else is there, so that no term has begun.
    assert_eq!(cluster.group(1).role().borrow().term, 0);
    cluster.add(2).await;
    cluster.group(1).campaign().await.unwrap();
    let role = until(&cluster.group(1), |role| role.leads).await;
    assert_eq!(role.leader, Some(NodeId(1)));
    cluster.add(3).await;
    // It leads already.
    cluster.group(1).campaign().await.unwrap();
    let index = propose(&cluster, 1, "one").await;
    cluster.applied(&[1, 2, 3], index).await;
    assert_eq!(cluster.group(1).role().borrow().term, role.term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_applier_stops_its_group_only() {
    let dir = TempDir::new().unwrap();
    let engine = open_engine(dir.path());
    let net = Arc::default();
    let (bad, good) = (TestApplier::default(), TestApplier::default());
    let first = start_group(&net, 1, GroupId::shard(1), dir.path(), &engine, bad.clone()).await;
    let second = start_group(&net, 1, GroupId::shard(2), dir.path(), &engine, good.clone()).await;
    for group in [&first, &second] {
        group.bootstrap(vec![(raft_id(1), NodeId(1))]).await.unwrap();
        until(group, |role| role.leads).await;
        group.propose(Bytes::from_static(b"one")).await.unwrap();
    }
    bad.0.lock().fail = true;
    let unknown = first.propose(Bytes::from_static(b"two")).await;
    assert!(matches!(&unknown, Err(SequencerError::Unknown(why)) if why.contains("disk of this test")), "{unknown:?}");
    let role = until(&first, |role| role.stopped.is_some()).await;
    assert_eq!(role.stopped.as_deref(), Some("the disk of this test is full"));
    assert!(!role.leads);
    let stopped = first.propose(Bytes::from_static(b"three")).await;
    assert!(matches!(stopped, Err(SequencerError::Stopped(_))), "{stopped:?}");
    second.propose(Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(good.0.lock().batches.len(), 2);
    first.shutdown().await;
    second.shutdown().await;
    assert!(second.role().borrow().stopped.is_none());
    assert_eq!((Arc::strong_count(&bad.0), Arc::strong_count(&good.0)), (1, 1));
}

/// A member of the group is authenticated by the transport; it cannot act as another one, neither by
/// the head of a request nor by the vote inside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_speaks_for_no_other() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let (to, other) = (1 + leader % 3, 1 + (leader + 1) % 3);
    let (sender, heard) = std::sync::mpsc::channel();
    *cluster.net.heard.lock() = Some(sender);
    cluster.group(leader).transfer_leader(NodeId(to)).await.unwrap();
    propose(&cluster, cluster.leader(&[to]).await, "one").await;
    let calls: Vec<_> = heard.try_iter().collect();

    let claims = |node: u32, kind: u8| {
        let found = calls.iter().find(|call| call.0 == NodeId(node) && call.2 == kind);
        found.unwrap_or_else(|| panic!("node {node} made no call of kind {kind}")).clone()
    };
    let vote = claims(to, wire::VOTE);
    let append = claims(to, wire::APPEND);
    let transfer = claims(leader, wire::TRANSFER);
    for (owner, receiver, kind, payload) in [vote, append, transfer] {
        let thief = [leader, to, other].map(NodeId).into_iter().find(|node| *node != owner && *node != receiver);
        let thief = thief.unwrap();
        let group = cluster.group(receiver.0);
        let stolen = group.handle(thief, kind, payload.clone()).await.unwrap_err();
        assert_eq!(stolen.code(), "raft_wrong_sender", "kind {kind}: {stolen}");
        // Under its own name, with a vote that is not its own.
        let mut altered = payload.to_vec();
        altered[9..17].copy_from_slice(&raft_id(thief.0).to_le_bytes());
        let stolen = group.handle(thief, kind, altered.into()).await.unwrap_err();
        assert_eq!(stolen, HandleError::WrongSender { node: thief, claimed: raft_id(owner.0) }, "kind {kind}");
    }
    let (owner, receiver, kind, payload) = claims(to, wire::VOTE);
    assert!(cluster.group(receiver.0).handle(owner, kind, payload).await.is_ok(), "its own request is answered");
}
