//! Snapshots: built, sent, resumed, found again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ledger::ids::NodeId;

use super::support::*;
use crate::sequencer::Sequencer;

const PARTS: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_catches_up_behind_a_purged_log() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let group = cluster.group(leader);
    // Large enough for several parts.
    let mut index = 0;
    for number in 0..6_u8 {
        index = group.propose(Bytes::from(vec![number; 600 << 10])).await.unwrap();
    }
    let reached = group.snapshot_now().await.unwrap();
    assert!(reached >= index);
    assert_eq!(group.snapshot_now().await.unwrap(), reached, "nothing new, the same snapshot");
    group.purge(index).await.unwrap();
    let last = propose(&cluster, leader, "after").await;
    cluster.add(4).await;
    group.add_learner(raft_id(4), NodeId(4)).await.unwrap();
    cluster.applied(&[4], last).await;
    let state = cluster.state(4);
    assert_eq!(state.installed, 1, "through a snapshot, not the log");
    assert_eq!(state.batches, cluster.state(leader).batches);
    // The newcomer can pass it on: it becomes leader and serves another one.
    group.change_voters((1..=4).map(raft_id).collect()).await.unwrap();
    group.transfer_leader(NodeId(4)).await.unwrap();
    until(&cluster.group(4), |role| role.leads).await;
    cluster.add(5).await;
    cluster.group(4).add_learner(raft_id(5), NodeId(5)).await.unwrap();
    let last = propose(&cluster, 4, "end").await;
    cluster.applied(&[5], last).await;
    assert_eq!(cluster.state(5).batches, cluster.state(4).batches);
    assert_eq!(cluster.state(5).installed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_its_snapshot_and_clears_leftovers() {
    let mut cluster = Cluster::new(1).await;
    cluster.leader(&[1]).await;
    propose(&cluster, 1, "one").await;
    let first = cluster.group(1).snapshot_now().await.unwrap();
    propose(&cluster, 1, "two").await;
    let second = cluster.group(1).snapshot_now().await.unwrap();
    assert!(second > first);
    cluster.group(1).purge(second).await.unwrap();
    let state = cluster.state(1);
    cluster.stop(1).await;
    let dir = cluster.nodes[&1].dir.path().join(format!("snapshots-{GROUP}"));
    let folders = || {
        let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let kept = folders();
    assert_eq!(kept.len(), 1, "the superseded snapshot is gone: {kept:?}");
    std::fs::create_dir(dir.join("tmp-at-00000000000000000099-1-1")).unwrap();
    std::fs::create_dir(dir.join("at-00000000000000000099-1-1")).unwrap();
    cluster.restart(1, state).await;
    assert_eq!(folders(), kept);
    cluster.leader(&[1]).await;
    propose(&cluster, 1, "three").await;
    assert_eq!(cluster.state(1).batches.len(), 3);
}

/// A single replica with a purged log and a snapshot of [`PARTS`] parts; what a learner then needs.
async fn purged() -> (Cluster, u64) {
    let mut cluster = Cluster::new(1).await;
    cluster.leader(&[1]).await;
    let group = cluster.group(1);
    for number in 0..6_u8 {
        group.propose(Bytes::from(vec![number; 600 << 10])).await.unwrap();
    }
    let upto = group.snapshot_now().await.unwrap();
    group.purge(upto).await.unwrap();
    cluster.add(2).await;
    (cluster, upto)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    let (cluster, upto) = purged().await;
    cluster.net.lose_part.store(4, Ordering::Relaxed);
    cluster.group(1).add_learner(raft_id(2), NodeId(2)).await.unwrap();
    cluster.applied(&[2], upto).await;
    assert_eq!(cluster.state(2).batches, cluster.state(1).batches);
    assert_eq!(cluster.net.parts.load(Ordering::Relaxed), PARTS + 1, "only the lost part is sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_transfer_is_not_installed() {
    let (cluster, upto) = purged().await;
    cluster.net.alter_part.store(3, Ordering::Relaxed);
    cluster.group(1).add_learner(raft_id(2), NodeId(2)).await.unwrap();
    cluster.applied(&[2], upto).await;
    assert_eq!(cluster.state(2).batches, cluster.state(1).batches);
    assert_eq!(cluster.state(2).installed, 1);
    assert!(cluster.net.parts.load(Ordering::Relaxed) > PARTS, "the damaged file is sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_behind_a_snapshot_is_kept_while_it_is_sent() {
    let (cluster, upto) = purged().await;
    let (leader, net) = (cluster.group(1), Arc::clone(&cluster.net));
    let closed = net.gate.lock().await;
    let adding = leader.clone();
    let added = tokio::spawn(async move { adding.add_learner(raft_id(2), NodeId(2)).await });
    let on_its_way = async {
        while net.parts.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), on_its_way).await.unwrap();
    // Much more than is kept for those who are a little behind.
    for _ in 0..30 {
        propose(&cluster, 1, "later").await;
    }
    leader.snapshot_now().await.unwrap();
    let last = propose(&cluster, 1, "last").await;
    drop(closed);
    added.await.unwrap().unwrap();
    cluster.applied(&[2], last.max(upto)).await;
    assert_eq!(cluster.state(2).installed, 1, "one snapshot, and the log behind it");
    assert_eq!(cluster.state(2).batches, cluster.state(1).batches);
}

/// Folders of snapshots on a node.
fn folders(cluster: &Cluster, node: u32) -> Vec<String> {
    let dir = cluster.nodes[&node].dir.path().join(format!("snapshots-{GROUP}"));
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installed_snapshot_leaves_no_files_behind() {
    let (cluster, upto) = purged().await;
    cluster.group(1).add_learner(raft_id(2), NodeId(2)).await.unwrap();
    cluster.applied(&[2], upto).await;
    assert_eq!(cluster.state(2).sender, Some(NodeId(1)), "the applier knows whose it is");
    let gone = async {
        while folders(&cluster, 2).iter().any(|name| name.starts_with("recv-")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_refused_leaves_the_replica_running_and_is_not_sent_again() {
    let (cluster, _) = purged().await;
    cluster.nodes[&2].applier.0.lock().distrust = true;
    cluster.group(1).add_learner(raft_id(2), NodeId(2)).await.unwrap();
    let refused = async {
        while cluster.state(2).prepared == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), refused).await.unwrap();
    let sent = cluster.net.parts.load(Ordering::Relaxed);
    let gone = async {
        while folders(&cluster, 2).iter().any(|name| name.starts_with("recv-")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("what was refused is discarded");
    // The next one is another snapshot: it is received and passes.
    cluster.nodes[&2].applier.0.lock().distrust = false;
    let last = propose(&cluster, 1, "more").await;
    let upto = cluster.group(1).snapshot_now().await.unwrap();
    assert!(upto >= last);
    cluster.group(1).purge(upto).await.unwrap();
    cluster.applied(&[2], upto).await;
    let state = cluster.state(2);
    assert_eq!((state.installed, state.prepared), (1, 2), "the refused one was offered in vain");
    assert_eq!(state.batches, cluster.state(1).batches);
    assert!(cluster.net.parts.load(Ordering::Relaxed) >= sent + PARTS);
    assert!(cluster.group(2).role().borrow().stopped.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_come_by_themselves_and_the_log_stays_short() {
    use storage::LogStore;
    let mut cluster = Cluster { net: Default::default(), nodes: Default::default() };
    cluster.net.snapshot_every.store(20, Ordering::Relaxed);
    cluster.add(1).await;
    cluster.group(1).bootstrap(vec![(raft_id(1), NodeId(1))]).await.unwrap();
    cluster.leader(&[1]).await;
    let log = cluster.nodes[&1].engine.as_ref().unwrap();
    let log = log.group(GROUP.0, std::sync::Arc::new(storage::PlainCipher)).unwrap();
    // Bounded: a log that is never purged fails the test.
    for number in 0..2000 {
        propose(&cluster, 1, &number.to_string()).await;
        if log.first_index().unwrap() > Some(20) {
            return;
        }
    }
    panic!("the log was not purged");
}
