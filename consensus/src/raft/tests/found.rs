//! Replicas whose logs are empty: new ones begin together, and one that has lost its log does not begin.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::ids::NodeId;
use storage::{LogEngine, MemLog};
use tempfile::TempDir;

use super::support::*;
use crate::port::replica_id;
use crate::raft::failure::Failure;
use crate::raft::log::Log;
use crate::raft::types::{LeaderId, Vote};
use crate::raft::{FoundError, Founding, Prepared, RaftGroup, Standing, StartError, codec, found};
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

/// As in a group that begins out of another one whose log is in the same files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_its_hosts_word_a_replica_begins_without_the_others_and_one_of_them_gives_the_members() {
    let mut founders = Founders::new();
    for node in [1, 2] {
        founders.open(node).await;
        founders.prepared[&node].begin().unwrap();
        assert_eq!(founders.standing(node), Standing::Begun);
    }
    // What it knows survives that it stops before it has run.
    founders.close(2);
    founders.open(2).await;
    assert_eq!(founders.standing(2), Standing::Sure);
    founders.prepared[&2].begin().unwrap();
    let second = founders.prepared.remove(&2).unwrap().start().await.unwrap();
    founders.net.run(2, second.clone());
    let first = founders.begin(1).await;
    until(&first, |role| role.leads).await;
    until(&second, |role| role.leader == Some(NodeId(1))).await;
}

#[test]
fn what_a_replica_knows_by_its_hosts_word_is_durable_before_anything_that_it_promises_and_nobody_waits() {
    let store = MemLog::manual("log");
    let log = Log::new(Arc::new(store.clone()), Failure::default());
    let stands = || found::standing(&log).unwrap();
    let begin = || {
        let founding = Founding::new(raft_id(1), stands());
        found::begin(&founding, &log).unwrap();
        founding.standing()
    };
    assert_eq!((stands(), begin(), store.unflushed()), (Standing::Unsure, Standing::Begun, 1));
    // Lost with the power, and nothing was promised.
    store.crash(0);
    assert_eq!((stands(), begin()), (Standing::Unsure, Standing::Begun));
    let vote = Vote { leader_id: LeaderId { term: 1, node_id: raft_id(1) }, committed: false };
    log.note_vote(codec::encode_vote(&vote)).unwrap();
    assert_eq!((stands(), store.unflushed()), (Standing::Begun, 2), "in this order");
    store.crash(1);
    assert_eq!((stands(), begin(), store.unflushed()), (Standing::Sure, Standing::Begun, 0), "it is written once");
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

/// A replica of a later join that does not take part yet, in a folder of its own.
struct Joiner {
    folder: TempDir,
    engine: LogEngine,
    applier: TestApplier,
    prepared: Prepared,
}

impl Joiner {
    /// The replica of a node's join with a folder that holds nothing, as a new one or one that lost all has it.
    async fn empty(net: &Arc<Net>, node: u32, join: u16) -> Self {
        Self::open(net, node, join, TempDir::new().unwrap()).await
    }

    async fn open(net: &Arc<Net>, node: u32, join: u16, folder: TempDir) -> Self {
        let (engine, applier) = (open_engine(folder.path()), TestApplier::default());
        let opened = try_prepare_replica(net, (node, join), GROUP, folder.path(), &engine, applier.clone()).await;
        Self { prepared: opened.unwrap(), folder, engine, applier }
    }

    /// One round of asking those who vote before it comes.
    async fn ask(&self, voters: &[u32]) -> Result<(), FoundError> {
        let voters: Vec<NodeId> = voters.iter().copied().map(NodeId).collect();
        self.prepared.join(&voters).await
    }

    /// What it has written stays, and it stops.
    fn close(self) -> TempDir {
        let Self { folder, engine, applier, prepared } = self;
        drop((engine, applier, prepared));
        folder
    }

    /// Takes part in a cluster.
    async fn begin(self, cluster: &mut Cluster, node: u32) {
        let Self { folder: dir, engine, applier, prepared } = self;
        let group = prepared.start().await.unwrap();
        cluster.net.run(node, group.clone());
        cluster.nodes.insert(node, Node { dir, engine: Some(engine), applier, group });
    }
}

/// Makes these the voters, through whoever leads among them and the old ones.
async fn change(cluster: &Cluster, leader: u32, joins: (u32, u16), voters: &[(u32, u16)]) {
    let group = cluster.group(leader);
    let id = |(node, join): (u32, u16)| replica_id(NodeId(node), join);
    group.add_learner(id(joins), NodeId(joins.0)).await.unwrap();
    let last = propose(cluster, leader, "for the learner").await;
    cluster.applied(&[joins.0], last).await;
    group.change_voters(voters.iter().copied().map(id).collect()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_asks_a_majority_and_begins_again_only_with_what_it_wrote() {
    let mut cluster = Cluster::new(3).await;
    let net = cluster.net.clone();
    cluster.leader(&[1, 2, 3]).await;
    let joiner = Joiner::empty(&net, 4, 2).await;
    net.cut(NodeId(1));
    net.cut(NodeId(2));
    let waits = joiner.ask(&[1, 2, 3]).await;
    assert!(matches!(&waits, Err(FoundError::Joining { of: 3, answers }) if answers.len() == 2), "{waits:?}");
    assert_eq!(waits.unwrap_err().code(), "group_joining");
    assert_eq!(joiner.prepared.founding().standing(), Standing::Unsure);
    net.join(NodeId(2));
    joiner.ask(&[1, 2, 3]).await.unwrap();

    // It is sure, and that stays: it asks nobody when it comes back.
    let folder = joiner.close();
    net.cut(NodeId(2));
    net.cut(NodeId(3));
    let joiner = Joiner::open(&net, 4, 2, folder).await;
    assert_eq!(joiner.prepared.founding().standing(), Standing::Sure);
    joiner.ask(&[1, 2, 3]).await.unwrap();
    [1, 2, 3].into_iter().for_each(|node| net.join(NodeId(node)));
    joiner.begin(&mut cluster, 4).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    change(&cluster, leader, (4, 2), &[(1, 1), (2, 1), (3, 1), (4, 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_lost_its_log_is_found_out_by_every_majority_of_those_before_it() {
    let mut cluster = Cluster::new(3).await;
    let net = cluster.net.clone();
    let leader = cluster.leader(&[1, 2, 3]).await;
    // Another one than the leader goes.
    let goes = (1..=3).find(|node| *node != leader).unwrap();
    let stay: Vec<u32> = (1..=3).filter(|node| *node != goes).collect();
    let joiner = Joiner::empty(&net, 4, 2).await;
    joiner.ask(&[1, 2, 3]).await.unwrap();
    joiner.begin(&mut cluster, 4).await;

    // As a learner nobody counts on it, and so it may begin anew.
    cluster.group(leader).add_learner(replica_id(NodeId(4), 2), NodeId(4)).await.unwrap();
    let anew = Joiner::empty(&net, 4, 2).await;
    anew.ask(&[1, 2, 3]).await.unwrap();
    drop(anew.close());

    // One of those who vote has not heard of the change when it is done.
    net.cut(NodeId(goes));
    change(&cluster, leader, (4, 2), &[(stay[0], 1), (stay[1], 1), (4, 2)]).await;
    cluster.stop(4).await;
    let lost = Joiner::empty(&net, 4, 2).await;
    assert_eq!(lost.prepared.founding().standing(), Standing::Unsure);
    net.join(NodeId(goes));
    for away in 1..=3 {
        net.cut(NodeId(away));
        let found = lost.ask(&[1, 2, 3]).await;
        assert!(matches!(&found, Err(FoundError::Overtaken(node)) if *node != NodeId(away)), "{found:?}");
        assert_eq!(found.unwrap_err().code(), "replica_log_lost");
        net.join(NodeId(away));
    }
    assert_eq!(lost.prepared.founding().standing(), Standing::Unsure);
    drop(lost.close());

    // Its seat went to another one, and its id is dead: there is none that knows it and does not say so.
    let next = Joiner::empty(&net, 5, 3).await;
    next.ask(&[stay[0], stay[1], 4]).await.unwrap();
    next.begin(&mut cluster, 5).await;
    change(&cluster, leader, (5, 3), &[(stay[0], 1), (stay[1], 1), (5, 3)]).await;
    let late = Joiner::empty(&net, 4, 2).await;
    assert!(matches!(late.ask(&stay).await, Err(FoundError::Overtaken(_))));
    // A node that has left and joined again, and has nothing yet, speaks by its own join.
    let again = Joiner::empty(&net, goes, 4).await;
    again.ask(&[stay[0], stay[1], 5]).await.unwrap();
    cluster.stop(goes).await;
    again.begin(&mut cluster, goes).await;
    stay.iter().for_each(|node| net.cut(NodeId(*node)));
    assert_eq!(late.ask(&[goes]).await, Err(FoundError::Overtaken(NodeId(goes))));
}
