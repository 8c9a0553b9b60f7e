//! Replicas in one process whose engine changes with what they apply: a batch `to bft` or `to raft` puts a committee
//! with that engine in force, and `seat 5 for 1` one with another member.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::committee::{Committee, Engine, Member};
use ledger::crypto::SecretKey;
use ledger::hash::{Hash32, sha256};
use ledger::ids::{ClusterId, Epoch, GroupId, Incarnation, NodeId, OrgId};
use parking_lot::Mutex;
use storage::{LogEngine, LogIdentity, LogStore, MemLog, PlainCipher, ResourceLimits, SharedResources};
use tempfile::TempDir;
use tokio::sync::watch;

use super::trip::{Trip, Watched};
use crate::bft::{BftTiming, Judge};
use crate::engine::{Group, Means, first_note};
use crate::port::{
    AppliedState, Applier, Candidate, Committed, Fatal, Order, Origin, Payload, Position, RoleView, SnapshotDir,
    SnapshotError, Timing, replica_id,
};
use crate::raft::{Founding, Prepared, RaftGroupConfig, RaftTransport, StartError, TransportError, wire};
use crate::sequencer::Sequencer;

pub(super) const GROUP: GroupId = GroupId::shard(7);
pub(super) const CLUSTER: ClusterId = ClusterId(Hash32([9; 32]));
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The number that a node's records have in its log engine.
const WAL: u64 = GROUP.0 | (1 << 63);
/// The join of those that a group does not begin with.
pub(super) const JOIN: u16 = 2;
const TIMING: BftTiming = BftTiming { idle_ms: 150, propose_ms: 1500, vote_ms: 500, step_ms: 200, repeat_ms: 300 };

pub(super) fn key(node: u32) -> SecretKey {
    SecretKey::derive(&node.to_le_bytes(), b"engine test")
}

fn committee(engine: Engine, epoch: u64, nodes: impl IntoIterator<Item = u32>) -> Committee {
    let member = |node| Member { node: NodeId(node), org: OrgId(1), key: key(node).public() };
    Committee::of(engine, GROUP, Incarnation::default(), Epoch(epoch), nodes.into_iter().map(member).collect())
}

/// The state of a [`TestApplier`]; outlives it as a database would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) order: Order,
    pub(super) committee: Committee,
    pub(super) applied: AppliedState,
    /// Each once, as a ledger knows a transaction again.
    pub(super) batches: Vec<String>,
    /// Entries that were void.
    pub(super) void: usize,
    by: Engine,
}

impl State {
    pub(super) fn new(engine: Engine, nodes: u32) -> Self {
        Self {
            order: Order { engine, after: None, anchor: Hash32([1; 32]) },
            committee: committee(engine, 0, 1..=nodes),
            applied: AppliedState::default(),
            batches: Vec::new(),
            void: 0,
            by: engine,
        }
    }

    fn take(&mut self, batch: &[u8], at: Position) {
        let batch = String::from_utf8_lossy(batch).into_owned();
        if self.batches.contains(&batch) {
            return;
        }
        let (mut next, mut seat) = (None, None);
        match batch.split_whitespace().collect::<Vec<_>>()[..] {
            ["to", "bft", ..] => next = Some(Engine::Bft),
            ["to", "raft", ..] => next = Some(Engine::Raft),
            ["seat", new, "for", old] => seat = Some([new, old].map(|node| node.parse::<u32>().unwrap())),
            _ => {}
        }
        self.batches.push(batch);
        if let Some([new, old]) = seat {
            let members = self.committee.members.iter().map(|member| member.node.0);
            let members = members.map(|node| if node == old { new } else { node });
            self.committee = committee(self.order.engine, self.committee.epoch.0 + 1, members);
        }
        let Some(engine) = next.filter(|engine| *engine != self.order.engine) else { return };
        let nodes = self.committee.members.len() as u32;
        self.committee = committee(engine, self.committee.epoch.0 + 1, 1..=nodes);
        self.order = Order { engine, after: Some(at), anchor: self.header() };
        let members: Vec<_> = (1..=nodes).map(|node| (replica_id(NodeId(node), 1), NodeId(node))).collect();
        self.applied.membership = Some((Some(at), first_note(&self.order, &self.committee, &members).unwrap()));
    }

    /// Names the last batch and all before.
    fn header(&self) -> Hash32 {
        sha256(self.batches.join("\n").as_bytes())
    }

    fn encode(&self) -> Vec<u8> {
        let Order { engine, after, anchor } = self.order;
        borsh::to_vec(&(engine, after, anchor, &self.committee, &self.applied, &self.batches)).unwrap()
    }

    fn adopt(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        type Parts = (Engine, Option<Position>, Hash32, Committee, AppliedState, Vec<String>);
        let (engine, after, anchor, committee, applied, batches) = borsh::from_slice::<Parts>(bytes)?;
        (self.order, self.committee) = (Order { engine, after, anchor }, committee);
        (self.applied, self.batches) = (applied, batches);
        Ok(())
    }
}

#[derive(Clone)]
pub(super) struct TestApplier(pub(super) Arc<Mutex<State>>, Arc<Trip>);

fn fatal(error: impl ToString) -> Fatal {
    Fatal(error.to_string())
}

impl Applier for TestApplier {
    fn applied(&self) -> AppliedState {
        self.0.lock().applied.clone()
    }

    fn order(&self) -> Option<Order> {
        Some(self.0.lock().order)
    }

    fn header(&self) -> Option<Hash32> {
        Some(self.0.lock().header())
    }

    fn ordered_by(&mut self, engine: Engine) {
        let before = std::mem::replace(&mut self.0.lock().by, engine);
        if before != engine {
            self.1.begins();
        }
    }

    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), Fatal> {
        let mut state = self.0.lock();
        for entry in entries {
            let at = entry.position;
            if state.by != state.order.engine || state.order.after.is_some_and(|after| at.index <= after.index) {
                state.void += 1;
                continue;
            }
            let before = state.applied.position;
            assert!(before < Some(at), "positions grow: {before:?}, {at:?}");
            let index = before.map_or(at.index, |before| before.index + 1);
            assert_eq!(at.index, index, "applied twice, or with a gap");
            state.applied.position = Some(at);
            if let Some(note) = entry.note {
                state.applied.membership = Some((Some(at), note.to_vec()));
            }
            match entry.payload {
                Payload::Blank => {}
                Payload::Batch(batch) => state.take(&batch, at),
                Payload::Membership(bytes) => state.applied.membership = Some((Some(at), bytes.to_vec())),
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, dir: &Path) -> Result<SnapshotDir, Fatal> {
        let ended = || Fatal("the replica has ended".to_owned());
        self.1.step("a snapshot is written").then_some(()).ok_or_else(ended)?;
        let state = self.0.lock();
        std::fs::create_dir_all(dir).map_err(fatal)?;
        std::fs::write(dir.join("applied"), borsh::to_vec(&state.applied).map_err(fatal)?).map_err(fatal)?;
        std::fs::write(dir.join("state"), state.encode()).map_err(fatal)?;
        self.1.step("it is put in place").then_some(()).ok_or_else(ended)?;
        Ok(SnapshotDir { path: dir.to_path_buf(), applied: state.applied.clone() })
    }

    fn inspect(&self, dir: &Path) -> Result<AppliedState, Fatal> {
        borsh::from_slice(&std::fs::read(dir.join("applied")).map_err(fatal)?).map_err(fatal)
    }

    fn committee(&self) -> Result<Option<Committee>, Fatal> {
        Ok(Some(self.0.lock().committee.clone()))
    }

    fn prepare(&mut self, dir: &Path, _from: Option<Origin>) -> Result<Candidate, SnapshotError> {
        let refused = |error: std::io::Error| SnapshotError::Refused(error.to_string());
        let bytes = std::fs::read(dir.join("state")).map_err(refused)?;
        let mut state = self.0.lock().clone();
        state.adopt(&bytes).map_err(refused)?;
        let (order, header) = (state.order, state.header());
        let State { applied, committee, .. } = state;
        Ok(Candidate {
            applied,
            order,
            header,
            signers: committee.clone(),
            committee,
            certified: false,
            uncovered: Hash32::ZERO,
        })
    }

    fn install(&mut self, dir: &Path) -> Result<AppliedState, Fatal> {
        let bytes = std::fs::read(dir.join("state")).map_err(fatal)?;
        let mut state = self.0.lock();
        state.adopt(&bytes).map_err(fatal)?;
        Ok(state.applied.clone())
    }
}

/// Votes for whatever is proposed.
struct Anything;

#[async_trait]
impl Judge for Anything {
    async fn judge(&self, _batch: Bytes, _agreed: bool) -> Result<(), String> {
        Ok(())
    }
}

/// Who is where, and who is cut off.
#[derive(Default)]
pub(super) struct Net {
    groups: Mutex<BTreeMap<NodeId, Group>>,
    founding: Mutex<BTreeMap<NodeId, Founding>>,
    cut: Mutex<BTreeSet<NodeId>>,
    /// Whom nobody reaches; they reach others.
    deaf: Mutex<BTreeSet<NodeId>>,
    /// Who hears of entries, and not that they are committed.
    kept_from: Mutex<BTreeSet<NodeId>>,
    /// How often a leader has spoken to one of those.
    spoken: watch::Sender<u64>,
    /// Who has a seat by the registry; whoever is there until somebody says so.
    seats: Mutex<Option<Vec<u32>>>,
}

impl Net {
    /// These nodes have a seat by the registry.
    pub(super) fn seat(&self, nodes: &[u32]) {
        *self.seats.lock() = Some(nodes.to_vec());
    }

    pub(super) fn cut(&self, node: u32) {
        self.cut.lock().insert(NodeId(node));
    }

    /// All reach this node again.
    pub(super) fn join(&self, node: u32) {
        self.cut.lock().remove(&NodeId(node));
        self.deaf.lock().remove(&NodeId(node));
    }

    /// Nobody reaches this node, and it reaches others.
    pub(super) fn deafen(&self, node: u32) {
        self.deaf.lock().insert(NodeId(node));
    }

    /// These nodes, and no others, do not hear from a leader what is committed.
    pub(super) fn keep_from(&self, nodes: &[u32]) {
        *self.kept_from.lock() = nodes.iter().copied().map(NodeId).collect();
    }

    /// Waits until leaders have spoken so often to those that do not hear what is committed.
    pub(super) async fn spoken(&self, times: u64) {
        let mut spoken = self.spoken.subscribe();
        let until = *spoken.borrow_and_update() + times;
        let there = tokio::time::timeout(PATIENCE, spoken.wait_for(|spoken| *spoken >= until)).await;
        drop(there.expect("a leader goes on speaking").expect("the net is here"));
    }

    /// What arrives of a call.
    fn arrives(&self, to: NodeId, kind: u8, payload: Bytes) -> Bytes {
        if kind != wire::APPEND || !self.kept_from.lock().contains(&to) {
            return payload;
        }
        let request = wire::open_request(payload).unwrap();
        let mut append = wire::open_append(&request.body).unwrap();
        append.request.leader_commit = None;
        self.spoken.send_modify(|spoken| *spoken += 1);
        wire::append(wire::Head { to: request.to, from: request.from, stint: request.stint }, &append)
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
    async fn call(&self, to: NodeId, _group: GroupId, kind: u8, payload: Bytes) -> Result<Bytes, TransportError> {
        self.net.open(self.own, to)?;
        if self.net.deaf.lock().contains(&to) {
            return Err(TransportError::Unreachable("it hears nothing".into()));
        }
        let payload = self.net.arrives(to, kind, payload);
        let target = self.net.groups.lock().get(&to).cloned();
        let founding = self.net.founding.lock().get(&to).cloned();
        let reply = match (target, founding) {
            (Some(target), _) => target.handle(self.own, kind, payload).await,
            (None, Some(founding)) => founding.handle(self.own, kind, payload),
            (None, None) => return Err(TransportError::Unreachable("not there".into())),
        };
        self.net.open(self.own, to)?;
        reply.map_err(|error| TransportError::Refused(error.to_string()))
    }
}

/// Where a node keeps what it must not forget.
pub(super) enum Disk {
    /// In memory; both outlive the replica.
    Memory(MemLog, MemLog),
    /// In one engine on disk, open while the replica runs.
    Engine(Option<LogEngine>),
}

impl Disk {
    pub(super) fn memory() -> Self {
        Self::Memory(MemLog::immediate("log"), MemLog::immediate("wal"))
    }

    fn open(&mut self, dir: &Path, trip: &Arc<Trip>) -> (Arc<dyn LogStore>, Arc<dyn LogStore>) {
        match self {
            Self::Memory(log, wal) => (Watched::log(log, trip), Watched::records(wal, trip)),
            Self::Engine(engine) => {
                let limits = ResourceLimits { block_cache_bytes: 8 << 20, ..ResourceLimits::default() };
                let resources = SharedResources::new(limits).unwrap();
                let identity = LogIdentity { cluster: [7; 32], node: 1 };
                let opened = LogEngine::open(&dir.join("log"), &resources, identity).unwrap();
                let group = |id| -> Arc<dyn LogStore> { Arc::new(opened.group(id, Arc::new(PlainCipher)).unwrap()) };
                let stores = (group(GROUP.0), group(WAL));
                *engine = Some(opened);
                stores
            }
        }
    }
}

struct Node {
    dir: TempDir,
    disk: Disk,
    applier: TestApplier,
    join: u16,
    group: Option<Group>,
}

impl Node {
    /// What a node has at first: it knows the members that the group begins with.
    fn new(engine: Engine, nodes: u32, disk: Disk, join: u16) -> Self {
        let applier = TestApplier(Arc::new(Mutex::new(State::new(engine, nodes))), Arc::default());
        Self { dir: TempDir::new().unwrap(), disk, applier, join, group: None }
    }
}

pub(super) struct Cluster {
    pub(super) net: Arc<Net>,
    nodes: BTreeMap<u32, Node>,
}

impl Cluster {
    /// A group that has begun with this engine.
    pub(super) async fn new(engine: Engine, nodes: u32, disk: impl Fn() -> Disk) -> Self {
        let mut cluster = Self { net: Arc::default(), nodes: BTreeMap::new() };
        let mut prepared = BTreeMap::new();
        for node in 1..=nodes {
            cluster.nodes.insert(node, Node::new(engine, nodes, disk(), 1));
            prepared.insert(node, cluster.prepare(node).await.unwrap());
        }
        let members = cluster.first_members();
        // Each is sure when it has heard the others, and begins when it hears that they are.
        for round in 0..2 {
            for (node, (one, _)) in &prepared {
                let others: Vec<_> = members.iter().copied().filter(|(_, other)| other.0 != *node).collect();
                let founded = one.found(&others).await;
                assert!(round == 0 || founded.is_ok(), "node {node}: {founded:?}");
            }
        }
        for (node, (one, means)) in prepared {
            cluster.begin(node, one, means).await.unwrap();
            cluster.bootstrap(node).await;
        }
        cluster
    }

    /// Those that the group begins with, by their ids.
    fn first_members(&self) -> Vec<(u64, NodeId)> {
        let first = self.nodes.iter().filter(|(_, one)| one.join == 1);
        first.map(|(node, one)| (replica_id(NodeId(*node), one.join), NodeId(*node))).collect()
    }

    /// Gives a node that was just started the first members of its group, as a host does at every start, whether the group
    /// has begun or not.
    pub(super) async fn bootstrap(&self, node: u32) {
        self.group(node).bootstrap(self.first_members()).await.unwrap();
    }

    /// Starts a node that joins a group which has begun with this engine and so many nodes.
    pub(super) async fn join(&mut self, node: u32, engine: Engine, nodes: u32) {
        self.nodes.insert(node, Node::new(engine, nodes, Disk::memory(), JOIN));
        self.start(node).await;
    }

    /// Opens what a node has.
    pub(super) async fn prepare(&mut self, node: u32) -> Result<(Prepared, Means), StartError> {
        let (all, net): (Vec<u32>, _) = (self.nodes.keys().copied().collect(), self.net.clone());
        let own = self.nodes.get_mut(&node).unwrap();
        let config = RaftGroupConfig {
            group: GROUP,
            raft_id: replica_id(NodeId(node), own.join),
            node: NodeId(node),
            timing: Timing { heartbeat_ms: 60, election_min_ms: 300, election_max_ms: 600 },
            snapshot_dir: own.dir.path().join("snapshots"),
            snapshot_every_entries: 0,
            snapshot_keep_entries: 5,
        };
        let (log, wal) = own.disk.open(own.dir.path(), &own.applier.1);
        let link = Arc::new(Link { own: NodeId(node), net: self.net.clone() });
        let others = move || {
            let seats = net.seats.lock().clone().unwrap_or_else(|| all.clone());
            seats.into_iter().filter(|other| *other != node).map(NodeId).collect::<Vec<NodeId>>()
        };
        let (judge, others) = (Arc::new(Anything), Arc::new(others));
        let means = Means { cluster: CLUSTER, key: key(node).into(), timing: TIMING, wal, judge, others };
        let prepared = Prepared::open(config, log, Box::new(own.applier.clone()), link).await?;
        self.net.founding.lock().insert(NodeId(node), prepared.founding());
        Ok((prepared, means))
    }

    pub(super) async fn begin(&mut self, node: u32, prepared: Prepared, means: Means) -> Result<(), StartError> {
        let group = Group::start(prepared, means).await?;
        self.net.groups.lock().insert(NodeId(node), group.clone());
        self.nodes.get_mut(&node).unwrap().group = Some(group);
        Ok(())
    }

    /// Starts a node with what it has.
    pub(super) async fn start(&mut self, node: u32) {
        let (prepared, means) = self.prepare(node).await.unwrap();
        self.begin(node, prepared, means).await.unwrap();
    }

    pub(super) async fn stop(&mut self, node: u32) {
        self.net.groups.lock().remove(&NodeId(node));
        self.net.founding.lock().remove(&NodeId(node));
        let stopped = self.nodes.get_mut(&node).unwrap();
        if let Some(group) = stopped.group.take() {
            group.shutdown().await;
        }
        if let Disk::Engine(engine) = &mut stopped.disk {
            *engine = None;
        }
        assert_eq!(Arc::strong_count(&stopped.applier.0), 1, "the applier is dropped");
    }

    /// What a stopped node has of its state is this, as if nothing later had reached its disk.
    pub(super) fn lose(&self, node: u32, state: State) {
        *self.nodes[&node].applier.0.lock() = state;
    }

    /// A stopped node has lost its power: its state is this, and what its log was not asked to keep is gone.
    pub(super) fn lose_power(&self, node: u32, state: State) {
        self.lose(node, state);
        if let Disk::Memory(log, wal) = &self.nodes[&node].disk {
            log.crash(0);
            wal.crash(0);
        }
    }

    /// Counts what a node writes when it goes over to another engine.
    pub(super) fn trip(&self, node: u32) -> Arc<Trip> {
        self.nodes[&node].applier.1.clone()
    }

    /// Removes the snapshots of a stopped node.
    pub(super) fn lose_snapshots(&self, node: u32) {
        std::fs::remove_dir_all(self.nodes[&node].dir.path().join("snapshots")).unwrap();
    }

    /// Removes the log of a stopped node.
    pub(super) fn lose_log(&mut self, node: u32) {
        self.nodes.get_mut(&node).unwrap().disk = Disk::memory();
    }

    /// Makes a snapshot of a node, and waits until its log begins behind it.
    pub(super) async fn purge(&self, node: u32) {
        let (group, Disk::Memory(log, _)) = (self.group(node), &self.nodes[&node].disk) else { panic!("in memory") };
        let upto = group.snapshot_now().await.unwrap();
        group.purge(upto).await.unwrap();
        let purged = async {
            while log.purged_index().unwrap() < Some(upto) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, purged).await.expect("the log begins later");
    }

    /// The last entry that a node's log does not have any more.
    pub(super) fn purged(&self, node: u32) -> Option<u64> {
        let Disk::Memory(log, _) = &self.nodes[&node].disk else { panic!("in memory") };
        log.purged_index().unwrap()
    }

    pub(super) fn group(&self, node: u32) -> Group {
        self.nodes[&node].group.clone().unwrap()
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

    /// Orders a batch, as a client does: again, until whoever leads says that it is ordered.
    pub(super) async fn order(&self, among: &[u32], batch: &str) -> u64 {
        let ordering = async {
            loop {
                let leader = self.leader(among).await;
                match self.group(leader).propose(Bytes::copy_from_slice(batch.as_bytes())).await {
                    Ok(index) => return index,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, ordering).await.unwrap_or_else(|_| panic!("not ordered: {batch}"))
    }

    /// Waits until these nodes have applied a batch, and run this engine.
    pub(super) async fn reached(&self, among: &[u32], engine: Engine, batch: &str) {
        for node in among {
            let (group, applier) = (self.group(*node), self.nodes[node].applier.clone());
            let there = || applier.0.lock().batches.iter().any(|one| one == batch) && group.engine() == engine;
            until(&group, |_| there()).await;
        }
    }
}

/// Waits for a role, or for something that changes no later than the role does.
pub(super) async fn until(group: &Group, condition: impl FnMut(&RoleView) -> bool) -> RoleView {
    let mut role = group.role();
    let found = tokio::time::timeout(PATIENCE, role.wait_for(condition)).await;
    match found {
        Ok(Ok(role)) => role.clone(),
        other => panic!("not reached: {other:?}; the role is {:?}", group.role().borrow()),
    }
}
