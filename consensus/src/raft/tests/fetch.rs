//! A replica that has lost its state and whose log was purged: it comes back under its old id, with
//! its vote and its log, by a snapshot of another one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ledger::ids::NodeId;
use openraft::entry::RaftEntry;
use storage::{GroupLog, LogStore, PlainCipher};

use super::support::*;
use crate::port::Position;
use crate::raft::codec;
use crate::raft::types::{Batch, Entry, EntryPayload, log_id, position};
use crate::sequencer::Sequencer;

/// Three replicas, and the third one's files after it was stopped behind a purged log, its state and
/// its snapshots gone.
async fn bereft() -> Cluster {
    let mut cluster = Cluster { net: Default::default(), nodes: Default::default() };
    cluster.net.snapshot_every.store(20, Ordering::Relaxed);
    for node in 1..=3 {
        cluster.add(node).await;
    }
    let members = (1..=3).map(|node| (raft_id(node), NodeId(node))).collect();
    cluster.group(1).bootstrap(members).await.unwrap();
    let leader = cluster.leader(&[1, 2, 3]).await;
    let log = log_of(&cluster, 3);
    // Bounded: a log that is never purged fails the test.
    for number in 0..2000 {
        let last = propose(&cluster, leader, &number.to_string()).await;
        cluster.applied(&[3], last).await;
        if log.purged_index().unwrap().is_some() {
            drop(log);
            cluster.stop(3).await;
            std::fs::remove_dir_all(cluster.nodes[&3].dir.path().join(format!("snapshots-{GROUP}"))).unwrap();
            return cluster;
        }
    }
    panic!("the log was not purged");
}

fn log_of(cluster: &Cluster, node: u32) -> GroupLog {
    let engine = cluster.nodes[&node].engine.as_ref().unwrap();
    engine.group(GROUP.0, Arc::new(PlainCipher)).unwrap()
}

fn others() -> Vec<NodeId> {
    [1, 2].map(NodeId).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_a_state_fetches_one_and_takes_part_again() {
    let mut cluster = bereft().await;
    let leader = cluster.leader(&[1, 2]).await;
    propose(&cluster, leader, "meanwhile").await;

    let mut prepared = cluster.prepare(3).await;
    let log = log_of(&cluster, 3);
    let purged = log.purged_index().unwrap();
    assert_eq!(prepared.missing(), purged);
    let promised = (log.read_vote().unwrap(), log.last().unwrap(), log.read_committed().unwrap());
    for node in [1, 2] {
        cluster.net.cut(NodeId(node));
    }
    let error = prepared.fetch(&others()).await.unwrap_err();
    assert_eq!(error.0.iter().map(|answer| answer.0).collect::<Vec<_>>(), [NodeId(1), NodeId(2)], "{error}");
    assert!(prepared.fetch(&[]).await.is_err(), "nobody to ask");
    assert_eq!(prepared.missing(), purged);
    for node in [1, 2] {
        cluster.net.join(NodeId(node));
    }
    prepared.fetch(&others()).await.unwrap();
    assert_eq!(prepared.missing(), None);
    assert!(cluster.state(3).sender.is_some(), "the applier knows whose it is");
    let kept = (log.read_vote().unwrap(), log.last().unwrap(), log.read_committed().unwrap());
    assert_eq!(kept, promised, "what it has promised and acknowledged stays");

    cluster.run(3, prepared).await;
    let last = propose(&cluster, cluster.leader(&[1, 2, 3]).await, "after").await;
    cluster.applied(&[1, 2, 3], last).await;
    assert_eq!(cluster.state(3).batches, cluster.state(1).batches);
    assert_eq!(cluster.state(3).installed, 1);
    // It votes and acknowledges: without one of the others there is a majority.
    cluster.stop(1).await;
    let last = propose(&cluster, cluster.leader(&[2, 3]).await, "two of three").await;
    cluster.applied(&[2, 3], last).await;
}

/// Folders of snapshots that were received and are still there.
fn received(cluster: &Cluster) -> usize {
    let dir = cluster.nodes[&3].dir.path().join(format!("snapshots-{GROUP}"));
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("recv-")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_stream_and_a_refused_snapshot_are_discarded_and_the_next_member_is_asked() {
    let mut cluster = bereft().await;
    let mut prepared = cluster.prepare(3).await;
    let only = |node: u32| vec![NodeId(node)];
    // Damaged on the way: the file does not verify.
    cluster.net.alter_reads_of.store(1, Ordering::Relaxed);
    let error = prepared.fetch(&only(1)).await.unwrap_err();
    assert!(error.to_string().contains("applied did not verify, deep/batches did not verify"), "{error}");
    assert_eq!((cluster.state(3).prepared, cluster.state(3).installed), (0, 0), "nobody looks into such files");
    // Whole, but with a content that does not hold: nothing of it stays.
    cluster.net.alter_reads_of.store(0, Ordering::Relaxed);
    cluster.nodes[&3].applier.0.lock().distrusts = Some(NodeId(1));
    for _ in 0..2 {
        let error = prepared.fetch(&only(1)).await.unwrap_err();
        assert!(error.to_string().contains("trusts nobody"), "{error}");
        assert_eq!(received(&cluster), 0);
    }
    assert_eq!(cluster.state(3).installed, 0);
    // The next member is asked at once, and the replica runs.
    prepared.fetch(&others()).await.unwrap();
    assert_eq!((cluster.state(3).sender, cluster.state(3).installed), (Some(NodeId(2)), 1));
    assert_eq!(received(&cluster), 0);
    cluster.run(3, prepared).await;
    let last = propose(&cluster, cluster.leader(&[1, 2, 3]).await, "after").await;
    cluster.applied(&[1, 2, 3], last).await;
    assert_eq!(cluster.state(3).batches, cluster.state(1).batches);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_it_the_replica_does_not_start() {
    let mut cluster = bereft().await;
    let prepared = cluster.prepare(3).await;
    let error = prepared.start().await.err().unwrap();
    assert_eq!(error.code(), "state_missing", "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_contradict_the_snapshot_go_and_others_stay() {
    let mut cluster = bereft().await;
    // Another leader, of a later term, commits more than this replica has, and the others keep that as
    // a snapshot.
    let leader = cluster.leader(&[1, 2]).await;
    let next = 3 - leader;
    cluster.group(leader).transfer_leader(NodeId(next)).await.unwrap();
    until(&cluster.group(next), |role| role.leads).await;
    let mut reached = 0;
    for number in 0..60 {
        reached = propose(&cluster, next, &format!("later {number}")).await;
    }
    cluster.applied(&[1, 2], reached).await;
    let mut upto = 0;
    for node in [1, 2] {
        upto = cluster.group(node).snapshot_now().await.unwrap();
    }
    // What the leader before had left with this replica alone.
    let mut prepared = cluster.prepare(3).await;
    let log = log_of(&cluster, 3);
    let (last, bytes) = log.last().unwrap().unwrap();
    assert!(last < upto);
    let earlier = position(&codec::decode_entry_id(last, &bytes).unwrap());
    let entry = |index| {
        let payload = EntryPayload::Normal(Batch(bytes::Bytes::from_static(b"never")));
        (index, codec::encode_entry(&Entry::new(log_id(&Position { index, ..earlier }), payload)))
    };
    let (done, written) = tokio::sync::oneshot::channel();
    let entries = (last + 1..upto + 50).map(entry).collect();
    log.append(entries, Box::new(move |result| drop(done.send(result))));
    written.await.unwrap().unwrap();

    prepared.fetch(&others()).await.unwrap();
    let (kept, _) = log.last().unwrap().unwrap();
    assert_eq!(kept, upto - 1, "from where it contradicts the snapshot");
    cluster.run(3, prepared).await;
    let last = propose(&cluster, cluster.leader(&[1, 2, 3]).await, "after").await;
    cluster.applied(&[1, 2, 3], last).await;
    assert_eq!(cluster.state(3).batches, cluster.state(1).batches);
    assert!(!cluster.state(3).batches.contains(&b"never".to_vec()));
}
