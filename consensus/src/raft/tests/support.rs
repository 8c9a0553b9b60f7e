//! Replicas in one process: real log engines in temporary folders, a transport that can be cut, and
//! an applier that keeps what it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::committee::{Committee, Engine};
use ledger::hash::Hash32;
use ledger::ids::{Epoch, GroupId, Incarnation, NodeId};
use parking_lot::Mutex;
use storage::{LogEngine, LogIdentity, PlainCipher, ResourceLimits, SharedResources};
use tempfile::TempDir;

use crate::port::{
    AppliedState, Applier, Candidate, Committed, Fatal, Order, Origin, Packed, Packer, Payload, Position, RoleView,
    SnapshotDir, SnapshotError, SnapshotSecret, Timing, replica_id,
};
use crate::raft::{Founding, Prepared, RaftGroup, RaftGroupConfig, RaftTransport, StartError, TransportError};
use crate::sequencer::Sequencer;

pub(super) const GROUP: GroupId = GroupId::shard(7);
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The state of a [`TestApplier`]; outlives it as a database would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) applied: AppliedState,
    pub(super) batches: Vec<Vec<u8>>,
    pub(super) fail: bool,
    pub(super) installed: usize,
    /// Refuses every snapshot, or those of one node.
    pub(super) distrust: bool,
    pub(super) distrusts: Option<NodeId>,
    /// Where its snapshots say that they stand, when that is not where they do.
    pub(super) claims: Option<Position>,
    /// Snapshots that were checked, and the node that sent the last one.
    pub(super) prepared: usize,
    pub(super) sender: Option<NodeId>,
}

#[derive(Clone, Default)]
pub(super) struct TestApplier(pub(super) Arc<Mutex<State>>);

fn fatal(error: impl ToString) -> Fatal {
    Fatal(error.to_string())
}

/// Sends snapshots as they are, with what reads them.
struct Telling;

impl Packer for Telling {
    fn pack(&self, _: &Path, _: &Path) -> std::io::Result<Packed> {
        Ok(Packed { copied: false, secret: reads_snapshots() })
    }
}

fn reads_snapshots() -> SnapshotSecret {
    SnapshotSecret(b"what reads snapshots".to_vec())
}

impl Applier for TestApplier {
    fn applied(&self) -> AppliedState {
        self.0.lock().applied.clone()
    }

    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), Fatal> {
        let mut state = self.0.lock();
        if state.fail {
            return Err(fatal("the disk of this test is full"));
        }
        for entry in entries {
            match entry.payload {
                Payload::Blank => {}
                Payload::Batch(batch) => state.batches.push(batch.to_vec()),
                Payload::Membership(bytes) => {
                    state.applied.membership = Some((Some(entry.position), bytes.to_vec()));
                }
            }
            assert!(state.applied.position < Some(entry.position), "applied twice");
            state.applied.position = Some(entry.position);
        }
        Ok(())
    }

    fn checkpoint(&mut self, dir: &Path) -> Result<SnapshotDir, Fatal> {
        let state = self.0.lock();
        let mut applied = state.applied.clone();
        applied.position = state.claims.or(applied.position);
        std::fs::create_dir_all(dir.join("deep")).map_err(fatal)?;
        std::fs::write(dir.join("applied"), borsh::to_vec(&applied).map_err(fatal)?).map_err(fatal)?;
        std::fs::write(dir.join("deep/batches"), borsh::to_vec(&state.batches).map_err(fatal)?).map_err(fatal)?;
        Ok(SnapshotDir { path: dir.to_path_buf(), applied })
    }

    fn inspect(&self, dir: &Path) -> Result<AppliedState, Fatal> {
        borsh::from_slice(&std::fs::read(dir.join("applied")).map_err(fatal)?).map_err(fatal)
    }

    fn packer(&self) -> Arc<dyn Packer> {
        Arc::new(Telling)
    }

    fn prepare(&mut self, dir: &Path, from: Option<Origin>) -> Result<Candidate, SnapshotError> {
        let mut state = self.0.lock();
        state.prepared += 1;
        let foreign = from.as_ref().is_some_and(|origin| origin.secret != reads_snapshots());
        state.sender = from.map(|origin| origin.node);
        if foreign {
            return Err(SnapshotError::Refused("it cannot be read without its secret".into()));
        }
        if state.distrust || state.distrusts.is_some_and(|node| state.sender == Some(node)) {
            return Err(SnapshotError::Refused("this test trusts nobody".into()));
        }
        drop(state);
        let applied = self.inspect(dir).map_err(|error| SnapshotError::Refused(error.0))?;
        // Of a group that nobody has to vouch in.
        let committee = Committee::majority(GROUP, Incarnation::default(), Epoch::default(), Vec::new());
        let order = Order { engine: Engine::Raft, after: None, anchor: Hash32::ZERO };
        let signers = committee.clone();
        Ok(Candidate {
            applied,
            order,
            header: Hash32::ZERO,
            signers,
            committee,
            certified: false,
            uncovered: Hash32::ZERO,
        })
    }

    fn install(&mut self, dir: &Path) -> Result<AppliedState, Fatal> {
        let applied = self.inspect(dir)?;
        let batches = std::fs::read(dir.join("deep/batches")).map_err(fatal)?;
        let mut state = self.0.lock();
        state.batches = borsh::from_slice(&batches).map_err(fatal)?;
        state.applied = applied.clone();
        state.installed += 1;
        Ok(applied)
    }
}

/// Who is where, and who is cut off.
#[derive(Default)]
pub(super) struct Net {
    /// Whether calls overtake each other.
    pub(super) shuffled: AtomicBool,
    /// Replicas started from now on stand for election by themselves only after longer than any test waits.
    pub(super) patient: AtomicBool,
    /// Automatic snapshots of groups started from now on.
    pub(super) snapshot_every: AtomicU64,
    /// Snapshot parts sent so far.
    pub(super) parts: AtomicU64,
    /// No part arrives while somebody holds this.
    pub(super) gate: tokio::sync::Mutex<()>,
    /// The part that is lost, and the one that is altered on the way.
    pub(super) lose_part: AtomicU64,
    pub(super) alter_part: AtomicU64,
    /// The node whose snapshot is altered on the way to those who read it.
    pub(super) alter_reads_of: AtomicU64,
    calls: AtomicU64,
    /// Somebody who hears every call: who sent it, to whom, its kind and its bytes.
    pub(super) heard: Mutex<Option<std::sync::mpsc::Sender<(NodeId, NodeId, u8, Bytes)>>>,
    groups: Mutex<BTreeMap<(NodeId, GroupId), RaftGroup>>,
    /// Replicas that do not take part yet.
    pub(super) founding: Mutex<BTreeMap<NodeId, Founding>>,
    cut: Mutex<BTreeSet<NodeId>>,
    /// Nodes that nobody gives entries to.
    withheld: Mutex<BTreeSet<NodeId>>,
}

impl Net {
    pub(super) fn cut(&self, node: NodeId) {
        self.cut.lock().insert(node);
    }

    /// Calls to this replica of [`GROUP`] reach it from now on.
    pub(super) fn run(&self, node: u32, group: RaftGroup) {
        self.groups.lock().insert((NodeId(node), GROUP), group);
    }

    pub(super) fn leave(&self, node: u32) {
        self.groups.lock().remove(&(NodeId(node), GROUP));
    }

    pub(super) fn join(&self, node: NodeId) {
        self.cut.lock().remove(&node);
    }

    /// Every host keeps entries from this node from now on.
    pub(super) fn withhold(&self, node: NodeId) {
        self.withheld.lock().insert(node);
    }

    pub(super) fn give_again(&self, node: NodeId) {
        self.withheld.lock().remove(&node);
    }

    /// Spoils what a test wants spoiled.
    async fn pass(&self, kind: u8, payload: Bytes) -> Result<Bytes, TransportError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.shuffled.load(Ordering::Relaxed) {
            for _ in 0..(call * 7) % 13 {
                tokio::task::yield_now().await;
            }
        }
        if kind != crate::raft::wire::SNAPSHOT_PART {
            return Ok(payload);
        }
        let part = self.parts.fetch_add(1, Ordering::Relaxed) + 1;
        drop(self.gate.lock().await);
        if part == self.lose_part.load(Ordering::Relaxed) {
            return Err(TransportError::Unreachable("lost".into()));
        }
        if part == self.alter_part.load(Ordering::Relaxed) {
            let mut altered = payload.to_vec();
            if let Some(last) = altered.last_mut() {
                *last ^= 1;
            }
            return Ok(altered.into());
        }
        Ok(payload)
    }

    fn open(&self, a: NodeId, b: NodeId) -> Result<(), TransportError> {
        let cut = self.cut.lock();
        if cut.contains(&a) || cut.contains(&b) {
            return Err(TransportError::Unreachable("cut".into()));
        }
        Ok(())
    }
}

struct Link {
    own: NodeId,
    net: Arc<Net>,
}

#[async_trait]
impl RaftTransport for Link {
    async fn call(&self, to: NodeId, group: GroupId, kind: u8, payload: Bytes) -> Result<Bytes, TransportError> {
        self.net.open(self.own, to)?;
        let payload = self.net.pass(kind, payload).await?;
        if let Some(heard) = &*self.net.heard.lock() {
            // Nobody listens any more: the test has what it wanted.
            let _ = heard.send((self.own, to, kind, payload.clone()));
        }
        let target = self.net.groups.lock().get(&(to, group)).cloned();
        let founding = self.net.founding.lock().get(&to).cloned();
        let reply = match (target, founding) {
            (Some(target), _) => target.handle(self.own, kind, payload).await,
            (None, Some(founding)) => founding.handle(self.own, kind, payload),
            (None, None) => return Err(TransportError::Unreachable("not there".into())),
        };
        self.net.open(self.own, to)?;
        let reply = reply.map_err(|error| TransportError::Refused(error.to_string()))?;
        let altered = kind == crate::raft::wire::SNAPSHOT_READ
            && u64::from(to.0) == self.net.alter_reads_of.load(Ordering::Relaxed);
        let mut bytes = reply.to_vec();
        if let Some(last) = bytes.last_mut().filter(|_| altered) {
            *last ^= 1;
        }
        Ok(bytes.into())
    }

    fn gives_entries(&self, to: NodeId, _group: GroupId, _caught_up: bool) -> bool {
        !self.net.withheld.lock().contains(&to)
    }
}

pub(super) fn open_engine(dir: &Path) -> LogEngine {
    let limits = ResourceLimits { block_cache_bytes: 8 << 20, ..ResourceLimits::default() };
    let resources = SharedResources::new(limits).unwrap();
    LogEngine::open(&dir.join("log"), &resources, LogIdentity { cluster: [7; 32], node: 1 }).unwrap()
}

/// One node with one replica.
pub(super) struct Node {
    pub(super) dir: TempDir,
    pub(super) engine: Option<LogEngine>,
    pub(super) applier: TestApplier,
    pub(super) group: RaftGroup,
}

pub(super) struct Cluster {
    pub(super) net: Arc<Net>,
    pub(super) nodes: BTreeMap<u32, Node>,
}

pub(super) fn raft_id(node: u32) -> u64 {
    replica_id(NodeId(node), 1)
}

pub(super) async fn prepare_group(
    net: &Arc<Net>,
    node: u32,
    group: GroupId,
    dir: &Path,
    engine: &LogEngine,
    applier: TestApplier,
) -> Prepared {
    try_prepare_group(net, node, group, dir, engine, applier).await.unwrap()
}

pub(super) async fn try_prepare_group(
    net: &Arc<Net>,
    node: u32,
    group: GroupId,
    dir: &Path,
    engine: &LogEngine,
    applier: TestApplier,
) -> Result<Prepared, StartError> {
    try_prepare_replica(net, (node, 1), group, dir, engine, applier).await
}

/// As [`try_prepare_group`], for a later join of a node.
pub(super) async fn try_prepare_replica(
    net: &Arc<Net>,
    (node, join): (u32, u16),
    group: GroupId,
    dir: &Path,
    engine: &LogEngine,
    applier: TestApplier,
) -> Result<Prepared, StartError> {
    let times = if net.patient.load(Ordering::Relaxed) { 1_000 } else { 1 };
    let config = RaftGroupConfig {
        group,
        raft_id: replica_id(NodeId(node), join),
        node: NodeId(node),
        timing: Timing { heartbeat_ms: 60, election_min_ms: 300 * times, election_max_ms: 600 * times },
        snapshot_dir: dir.join(format!("snapshots-{group}")),
        snapshot_every_entries: net.snapshot_every.load(Ordering::Relaxed),
        snapshot_keep_entries: 5,
    };
    let log = Arc::new(engine.group(group.0, Arc::new(PlainCipher)).unwrap());
    let link = Arc::new(Link { own: NodeId(node), net: net.clone() });
    Prepared::open(config, log, Box::new(applier), link).await
}

pub(super) async fn start_group(
    net: &Arc<Net>,
    node: u32,
    group: GroupId,
    dir: &Path,
    engine: &LogEngine,
    applier: TestApplier,
) -> RaftGroup {
    let started = prepare_group(net, node, group, dir, engine, applier).await.start().await.unwrap();
    net.groups.lock().insert((NodeId(node), group), started.clone());
    started
}

impl Cluster {
    pub(super) async fn new(nodes: u32) -> Self {
        let mut cluster = Self { net: Arc::default(), nodes: BTreeMap::new() };
        for node in 1..=nodes {
            cluster.add(node).await;
        }
        let members: Vec<_> = (1..=nodes).map(|node| (raft_id(node), NodeId(node))).collect();
        cluster.group(1).bootstrap(members).await.unwrap();
        cluster
    }

    /// A node without a membership.
    pub(super) async fn add(&mut self, node: u32) {
        let dir = TempDir::new().unwrap();
        let engine = open_engine(dir.path());
        let applier = TestApplier::default();
        let group = start_group(&self.net, node, GROUP, dir.path(), &engine, applier.clone()).await;
        self.nodes.insert(node, Node { dir, engine: Some(engine), applier, group });
    }

    /// Stops a node for good or until [`Cluster::restart`].
    pub(super) async fn stop(&mut self, node: u32) {
        self.net.groups.lock().remove(&(NodeId(node), GROUP));
        let stopped = self.nodes.get_mut(&node).unwrap();
        stopped.group.shutdown().await;
        stopped.engine = None;
    }

    /// Starts it with this state, as if nothing later had reached its database.
    pub(super) async fn restart(&mut self, node: u32, state: State) {
        let stopped = self.nodes.get_mut(&node).unwrap();
        assert_eq!(Arc::strong_count(&stopped.applier.0), 1, "the applier was not dropped");
        let engine = open_engine(stopped.dir.path());
        stopped.applier = TestApplier(Arc::new(Mutex::new(state)));
        stopped.group = start_group(&self.net, node, GROUP, stopped.dir.path(), &engine, stopped.applier.clone()).await;
        stopped.engine = Some(engine);
    }

    /// Opens what a stopped node has, its state apart, which is gone.
    pub(super) async fn prepare(&mut self, node: u32) -> Prepared {
        let stopped = self.nodes.get_mut(&node).unwrap();
        let engine = open_engine(stopped.dir.path());
        stopped.applier = TestApplier::default();
        let prepared =
            prepare_group(&self.net, node, GROUP, stopped.dir.path(), &engine, stopped.applier.clone()).await;
        stopped.engine = Some(engine);
        prepared
    }

    /// Starts what was prepared.
    pub(super) async fn run(&mut self, node: u32, prepared: Prepared) {
        let started = prepared.start().await.unwrap();
        self.net.groups.lock().insert((NodeId(node), GROUP), started.clone());
        self.nodes.get_mut(&node).unwrap().group = started;
    }

    pub(super) fn group(&self, node: u32) -> RaftGroup {
        self.nodes[&node].group.clone()
    }

    pub(super) fn state(&self, node: u32) -> State {
        self.nodes[&node].applier.0.lock().clone()
    }

    /// Waits until one of these nodes leads.
    pub(super) async fn leader(&self, among: &[u32]) -> u32 {
        let waits = among.iter().map(|node| {
            let group = self.group(*node);
            Box::pin(async move {
                until(&group, |role| role.leads).await;
                *node
            })
        });
        futures::future::select_all(waits).await.0
    }

    /// Waits until these nodes have applied up to `index`.
    pub(super) async fn applied(&self, among: &[u32], index: u64) {
        for node in among {
            until(&self.group(*node), |role| role.applied_index >= index).await;
        }
    }
}

/// Waits for a role.
pub(super) async fn until(group: &RaftGroup, condition: impl FnMut(&RoleView) -> bool) -> RoleView {
    let mut role = group.role();
    let found = tokio::time::timeout(PATIENCE, role.wait_for(condition)).await;
    match found {
        Ok(Ok(role)) => role.clone(),
        other => panic!("not reached: {other:?}; the role is {:?}", group.role().borrow()),
    }
}

/// Proposes on whoever leads until it is accepted.
pub(super) async fn propose(cluster: &Cluster, leader: u32, batch: &str) -> u64 {
    cluster.group(leader).propose(Bytes::copy_from_slice(batch.as_bytes())).await.unwrap()
}
