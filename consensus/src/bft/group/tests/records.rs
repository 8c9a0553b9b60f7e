//! What a member writes down before it votes: first on the disk, then on the wire, and never another's.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use ledger::ids::GroupId;
use storage::{LogStore, MemLog};

use super::support::*;
use crate::port::{RoleView, SequencerError};
use crate::raft::StartError;
use crate::sequencer::Sequencer;

/// Nothing happens by itself.
const QUIET: crate::bft::BftTiming = crate::bft::BftTiming { idle_ms: 600_000, ..CALM };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_records_cannot_be_written_stops_and_says_nothing_more() {
    let cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let first = cluster.propose(leader, "one").await;
    cluster.applied(&[1, 2, 3, 4], first).await;
    let (group, wal) = (cluster.group(4), cluster.nodes[&4].wal());
    wal.failing.store(true, Ordering::SeqCst);
    let last = cluster.propose(leader, "two").await;
    let role: RoleView = until(&group, |role| role.stopped.is_some()).await;
    let reason = role.stopped.unwrap();
    assert!(reason.contains("storage_io") && reason.contains("this test's disk is broken"), "{reason}");
    assert!(!role.leads && role.leader.is_none());
    let refused = group.submit(Bytes::from_static(b"three")).await;
    assert!(matches!(refused.err(), Some(SequencerError::Stopped(_))));
    // The others are enough.
    cluster.applied(&[1, 2, 3], last).await;
    let last = cluster.propose(leader, "three").await;
    cluster.applied(&[1, 2, 3], last).await;
    for node in 1..=4 {
        let durable = ballots_in(&cluster.nodes[&node].wal().records());
        let sent = cluster.net.ballots(node);
        assert!(!sent.is_empty(), "node {node}");
        let early: Vec<_> = sent.iter().filter(|ballot| !durable.contains(*ballot)).collect();
        assert!(early.is_empty(), "node {node} has sent what it had not written down: {early:?}");
    }
    let after = cluster.net.ballots(4).into_iter().filter(|signed| signed.ballot.index >= last).count();
    assert_eq!(after, 0);
}

/// A group of one with some records, stopped.
async fn stopped() -> Cluster {
    let mut cluster = Cluster::new(1, QUIET).await;
    cluster.leader(&[1]).await;
    for batch in ["one", "two", "three"] {
        cluster.propose(1, batch).await;
    }
    cluster.stop(1).await;
    cluster
}

/// Starts the node with these records.
async fn start_with(cluster: &mut Cluster, group: GroupId, wal: MemLog) -> Result<(), StartError> {
    let log = if group == GROUP { cluster.nodes[&1].log() } else { Watched::of(MemLog::immediate("its log")) };
    cluster.nodes.get_mut(&1).unwrap().disk = Disk::Memory(log, Watched::of(wal));
    if group != GROUP {
        *cluster.nodes[&1].applier.0.lock() = State::new(committee(1));
    }
    let (prepared, parts) = cluster.prepare(1, group).await?;
    prepared.found(&[]).await.unwrap();
    cluster.begin(1, prepared, parts).await
}

/// The records of the node, one of them altered.
fn records(cluster: &Cluster, alter: impl Fn(&mut Vec<u8>)) -> MemLog {
    let wal = cluster.nodes[&1].wal();
    let copy = MemLog::immediate("copied wal");
    let (purged, mark) = (wal.purged_index().unwrap().unwrap(), wal.purged().unwrap().unwrap());
    copy.purge_upto(purged, mark, Box::new(|done| done.unwrap()));
    let mut found = wal.read(0..u64::MAX, usize::MAX).unwrap();
    assert!(found.len() > 3, "there is something to alter");
    let at = found.len() / 2;
    let mut bytes = found[at].1.to_vec();
    alter(&mut bytes);
    found[at].1 = bytes.into();
    copy.append(found, Box::new(|done| done.unwrap()));
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_not_what_was_written_are_refused() {
    let mut cluster = stopped().await;
    let altered = records(&cluster, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let torn = records(&cluster, |bytes| bytes.truncate(bytes.len() - 1));
    let cut = records(&cluster, |bytes| bytes.truncate(10));
    let whole = records(&cluster, |_| {});
    for (what, wal) in [("altered", altered), ("torn", torn), ("cut", cut)] {
        let error = start_with(&mut cluster, GROUP, wal).await.expect_err(what);
        assert_eq!(error.code(), "bft_wal", "{what}: {error}");
        cluster.stop(1).await;
    }
    start_with(&mut cluster, GROUP, whole).await.unwrap();
    assert!(cluster.group(1).votes());
    cluster.leader(&[1]).await;
    cluster.propose(1, "four").await;
    assert_eq!(cluster.batches(1), ["one", "two", "three", "four"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_another_group_are_refused() {
    let mut cluster = stopped().await;
    let whole = records(&cluster, |_| {});
    let error = start_with(&mut cluster, GroupId::shard(8), whole).await.unwrap_err();
    assert_eq!(error.code(), "bft_wal");
    assert!(error.to_string().contains("of another replica, group or cluster"), "{error}");
}
