//! Replicas whose logs are empty: new ones begin together, and one that has lost its log does not begin.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::ids::NodeId;
use storage::LogEngine;
use tempfile::TempDir;

use super::support::*;
use crate::raft::{FoundError, Prepared, RaftGroup, Standing, StartError};
use crate::sequencer::Sequencer;

/// Three replicas that do not take part yet.
struct Founders {
    net: Arc<Net>,
    folders: BTreeMap<u32, TempDir>,
    engines: BTreeMap<u32, LogEngine>,
    prepared: BTreeMap<u32, Prepared>,
}

fn others(of: u32) -> Vec<(u64, NodeId)> {
    (1..=3).filter(|node| *node != of).map(|node| (raft_id(node), NodeId(node))).collect()
}

impl Founders {
    fn new() -> Self {
        Self { net: Arc::default(), folders: BTreeMap::new(), engines: BTreeMap::new(), prepared: BTreeMap::new() }
    }

    /// Opens a replica with what its folder holds, which is nothing for a new one.
    async fn open(&mut self, node: u32) {
        let folder = self.folders.entry(node).or_insert_with(|| TempDir::new().unwrap());
        let engine = open_engine(folder.path());
        let prepared = prepare_group(&self.net, node, GROUP, folder.path(), &engine, TestApplier::default()).await;
        self.net.founding.lock().insert(NodeId(node), prepared.founding());
        self.engines.insert(node, engine);
        self.prepared.insert(node, prepared);
    }

    fn close(&mut self, node: u32) {
        self.net.founding.lock().remove(&NodeId(node));
        drop(self.prepared.remove(&node));
        drop(self.engines.remove(&node));
    }

    /// One round of asking.
    async fn ask(&self, node: u32) -> Result<(), FoundError> {
        self.prepared[&node].found(&others(node)).await
    }

    fn standing(&self, node: u32) -> Standing {
        self.prepared[&node].founding().standing()
    }

    async fn begin(&mut self, node: u32) -> RaftGroup {
        let group = self.prepared.remove(&node).unwrap().start().await.unwrap();
        self.net.run(node, group.clone());
        let members = (1..=3).map(|node| (raft_id(node), NodeId(node))).collect();
        group.bootstrap(members).await.unwrap();
        group
    }
}

fn waits_for(result: Result<(), FoundError>) -> Vec<u32> {
    match result {
        Err(FoundError::Waiting(answers)) => answers.iter().map(|(node, _)| node.0).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_begins_before_everybody_knows_that_nobody_has() {
    let mut founders = Founders::new();
    founders.open(1).await;
    founders.open(2).await;
    assert_eq!(waits_for(founders.ask(1).await), [3], "a majority is not enough");
    assert_eq!(founders.standing(1), Standing::Unsure);
    founders.open(3).await;
    assert_eq!(waits_for(founders.ask(1).await), [2, 3], "it is sure, and the others are not");
    assert_eq!(founders.standing(1), Standing::Sure);

    // What it knows survives that it stops; what nobody wrote down does not.
    for node in [1, 2] {
        founders.close(node);
        founders.open(node).await;
    }
    assert_eq!((founders.standing(1), founders.standing(2)), (Standing::Sure, Standing::Unsure));

    assert_eq!(waits_for(founders.ask(2).await), [3]);
    founders.ask(3).await.unwrap();
    let third = founders.begin(3).await;
    // Node 1 hears of one that has begun, and was sure before: it was counted on.
    founders.net.cut(NodeId(2));
    founders.ask(1).await.unwrap();
    founders.begin(1).await;
    until(&third, |role| role.leader.is_some()).await;
    founders.net.join(NodeId(2));
    founders.ask(2).await.unwrap();
    founders.begin(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_log_stays_away_whoever_answers() {
    let mut founders = Founders::new();
    for node in 1..=3 {
        founders.open(node).await;
    }
    for node in [1, 2, 3] {
        // The last one hears that all are sure; what the first ones say is looked at above.
        let _ = founders.ask(node).await;
    }
    for node in [1, 2, 3] {
        founders.ask(node).await.unwrap();
    }
    let mut groups = BTreeMap::new();
    for node in [1, 2, 3] {
        groups.insert(node, founders.begin(node).await);
    }
    until(&groups[&1], |role| role.leader.is_some()).await;

    // The second one comes back without its folder: it never takes part again.
    founders.net.leave(2);
    groups.remove(&2).unwrap().shutdown().await;
    founders.close(2);
    founders.folders.remove(&2);
    founders.open(2).await;
    assert_eq!(founders.standing(2), Standing::Unsure);
    let lost = founders.ask(2).await.unwrap_err();
    assert_eq!((lost.code(), founders.standing(2)), ("replica_log_lost", Standing::Unsure));
    // With one of the others gone, the one that is left is enough to know.
    founders.net.cut(NodeId(1));
    assert_eq!(founders.ask(2).await, Err(FoundError::Lost(NodeId(3))));
    // With both gone it waits.
    founders.net.cut(NodeId(3));
    assert_eq!(waits_for(founders.ask(2).await), [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_beside_an_empty_log_is_refused() {
    let mut cluster = Cluster::new(1).await;
    let leader = cluster.leader(&[1]).await;
    let last = propose(&cluster, leader, "one").await;
    cluster.applied(&[1], last).await;
    let state = cluster.state(1);
    assert!(state.applied.position.is_some());
    cluster.stop(1).await;
    let folder = TempDir::new().unwrap();
    let engine = open_engine(folder.path());
    let applier = TestApplier(Arc::new(parking_lot::Mutex::new(state)));
    let opened = try_prepare_group(&cluster.net, 1, GROUP, folder.path(), &engine, applier).await;
    assert_eq!(opened.err(), Some(StartError::LogLost { group: GROUP }));
}
