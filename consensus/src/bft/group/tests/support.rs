//! Members in one process: their stores, a transport that can be cut, and an applier that keeps what it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::ballot::{BallotKind, SignedBallot};
use ledger::committee::{Committee, Engine, Member};
use ledger::crypto::SecretKey;
use ledger::hash::{Hash32, sha256};
use ledger::ids::{ClusterId, Epoch, GroupId, Incarnation, NodeId, OrgId};
use parking_lot::Mutex;
use storage::{
    Completion, LogEngine, LogIdentity, LogStore, MemLog, PlainCipher, ResourceLimits, SharedResources, StorageError,
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::bft::{BftGroup, BftParts, BftTiming, Caught, Event, Judge, Message, Record, chain_of};
use crate::port::{
    AppliedState, Applier, Candidate, Committed, Fatal, Order, Origin, Packed, Packer, Payload, Position, RoleView,
    SnapshotDir, SnapshotError, SnapshotSecret, Timing, replica_id,
};
use crate::raft::{Founding, Prepared, RaftGroupConfig, RaftTransport, StartError, TransportError, wire};
use crate::sequencer::Sequencer;

pub(super) const GROUP: GroupId = GroupId::shard(7);
pub(super) const CLUSTER: ClusterId = ClusterId(Hash32([9; 32]));
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The number that a node's records have in its log engine.
const WAL: u64 = GROUP.0 | (1 << 63);
/// How a batch of [`seats`] begins.
const SEATS: &str = "seats ";
/// What orders the entries of the group, from its beginning on.
const ORDER: Order = Order { engine: Engine::Bft, after: None, anchor: Hash32([1; 32]) };

/// Nobody is taken for dead because the machine is busy.
pub(super) const CALM: BftTiming =
    BftTiming { idle_ms: 200, propose_ms: 5000, vote_ms: 2000, step_ms: 200, repeat_ms: 300 };
/// A leader that is away is replaced soon.
pub(super) const QUICK: BftTiming =
    BftTiming { idle_ms: 150, propose_ms: 700, vote_ms: 300, step_ms: 100, repeat_ms: 300 };

pub(super) fn key(node: u32) -> SecretKey {
    SecretKey::derive(&node.to_le_bytes(), b"bft test")
}

pub(super) fn committee(nodes: u32) -> Committee {
    seated(0, (1..=nodes).collect())
}

/// These nodes as the members in an epoch.
fn seated(epoch: u64, nodes: Vec<u32>) -> Committee {
    let member = |node| Member { node: NodeId(node), org: OrgId(1), key: key(node).public() };
    let members = nodes.into_iter().map(member).collect();
    Committee::of(Engine::Bft, GROUP, Incarnation::default(), Epoch(epoch), members)
}

/// A batch behind which these nodes are the members. A snapshot does not tell of it.
pub(super) fn seats(nodes: &[u32]) -> String {
    let nodes: Vec<String> = nodes.iter().map(u32::to_string).collect();
    format!("{SEATS}{}", nodes.join(" "))
}

/// The members that a batch brings, if it does.
fn seats_in(batch: &[u8]) -> Option<Vec<u32>> {
    let nodes = std::str::from_utf8(batch).ok()?.strip_prefix(SEATS)?;
    Some(nodes.split(' ').map(|node| node.parse().unwrap()).collect())
}

/// The state of a [`TestApplier`]; outlives it as a database would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) committee: Committee,
    pub(super) applied: AppliedState,
    pub(super) batches: Vec<Vec<u8>>,
    pub(super) installed: usize,
    /// What of the state no header covers.
    pub(super) history: Vec<u8>,
    /// Its snapshots say that they stand so many entries before where they do: those of a liar.
    pub(super) shifted: u64,
    /// Its snapshots have another history: those of a liar, too.
    pub(super) altered: bool,
    /// Snapshots that were found to be a lie, by whose they were.
    pub(super) lies: Vec<NodeId>,
}

impl State {
    pub(super) fn new(committee: Committee) -> Self {
        let applied = AppliedState::default();
        Self {
            committee,
            applied,
            batches: Vec::new(),
            installed: 0,
            history: Vec::new(),
            shifted: 0,
            altered: false,
            lies: Vec::new(),
        }
    }
}

/// What a liar's snapshot says of itself: well formed, and not where it stands.
fn shift(applied: &mut AppliedState, by: u64) {
    let position = applied.position.unwrap();
    let mut chain = chain_of(&applied.membership.as_ref().unwrap().1).unwrap();
    chain.index -= by;
    let at = Some(Position { index: position.index - by, ..position });
    *applied = AppliedState { position: at, membership: Some((at, chain.encode().to_vec())) };
}

#[derive(Clone)]
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

    fn uncovered(&self, dir: &Path) -> std::io::Result<Hash32> {
        Ok(sha256(&std::fs::read(dir.join("history"))?))
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
        for entry in entries {
            match entry.payload {
                Payload::Blank => {}
                // Each once, as a ledger knows a transaction again.
                Payload::Batch(batch) if state.batches.iter().any(|one| *one == batch) => {}
                Payload::Batch(batch) => {
                    if let Some(nodes) = seats_in(&batch) {
                        state.committee = seated(state.committee.epoch.0 + 1, nodes);
                    }
                    state.history.push(batch.len() as u8);
                    state.batches.push(batch.to_vec());
                }
                Payload::Membership(_) => return Err(fatal("this engine has no memberships")),
            }
            let before = state.applied.position.map_or(0, |position| position.index);
            assert_eq!(entry.position.index, before + 1, "applied twice, or with a gap");
            assert!(state.applied.position < Some(entry.position), "positions grow");
            state.applied.position = Some(entry.position);
            state.applied.membership = entry.note.map(|note| (Some(entry.position), note.to_vec()));
        }
        Ok(())
    }

    fn checkpoint(&mut self, dir: &Path) -> Result<SnapshotDir, Fatal> {
        let state = self.0.lock();
        let mut applied = state.applied.clone();
        if state.shifted > 0 {
            shift(&mut applied, state.shifted);
        }
        std::fs::create_dir_all(dir).map_err(fatal)?;
        std::fs::write(dir.join("applied"), borsh::to_vec(&applied).map_err(fatal)?).map_err(fatal)?;
        std::fs::write(dir.join("batches"), borsh::to_vec(&state.batches).map_err(fatal)?).map_err(fatal)?;
        let mut history = state.history.clone();
        if state.altered {
            history.reverse();
            history.push(0);
        }
        std::fs::write(dir.join("history"), history).map_err(fatal)?;
        Ok(SnapshotDir { path: dir.to_path_buf(), applied })
    }

    fn inspect(&self, dir: &Path) -> Result<AppliedState, Fatal> {
        borsh::from_slice(&std::fs::read(dir.join("applied")).map_err(fatal)?).map_err(fatal)
    }

    fn committee(&self) -> Result<Option<Committee>, Fatal> {
        Ok(Some(self.0.lock().committee.clone()))
    }

    fn order(&self) -> Option<Order> {
        Some(ORDER)
    }

    fn header(&self) -> Option<Hash32> {
        Some(sha256(&borsh::to_vec(&self.0.lock().batches).unwrap()))
    }

    fn packer(&self) -> Arc<dyn Packer> {
        Arc::new(Telling)
    }

    fn prepare(&mut self, dir: &Path, _from: Option<Origin>) -> Result<Candidate, SnapshotError> {
        let refused = |error: Fatal| SnapshotError::Refused(error.0);
        let applied = self.inspect(dir).map_err(refused)?;
        let batches = std::fs::read(dir.join("batches")).map_err(fatal).map_err(refused)?;
        let committee = self.0.lock().committee.clone();
        let (header, signers) = (sha256(&batches), committee.clone());
        let uncovered = Telling.uncovered(dir).map_err(fatal).map_err(refused)?;
        Ok(Candidate { applied, order: ORDER, header, signers, committee, certified: false, uncovered })
    }

    fn discard(&mut self, lie: Option<(NodeId, String)>) -> Result<(), Fatal> {
        self.0.lock().lies.extend(lie.map(|(node, _)| node));
        Ok(())
    }

    fn install(&mut self, dir: &Path) -> Result<AppliedState, Fatal> {
        let applied = self.inspect(dir)?;
        let batches = std::fs::read(dir.join("batches")).map_err(fatal)?;
        let history = std::fs::read(dir.join("history")).map_err(fatal)?;
        let mut state = self.0.lock();
        state.history = history;
        state.batches = borsh::from_slice(&batches).map_err(fatal)?;
        state.applied = applied.clone();
        state.installed += 1;
        Ok(applied)
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

/// A log that remembers what was written, and that fails or takes its time on demand.
pub(super) struct Watched {
    pub(super) log: MemLog,
    pub(super) failing: AtomicBool,
    pub(super) written: Mutex<Vec<Bytes>>,
    /// From this entry on nothing becomes durable.
    held_from: AtomicU64,
}

impl Watched {
    pub(super) fn of(log: MemLog) -> Arc<Self> {
        let held_from = AtomicU64::new(u64::MAX);
        Arc::new(Self { log, failing: AtomicBool::new(false), written: Mutex::default(), held_from })
    }

    /// From this entry on, what is written can be read and does not become durable: of a [`Disk::slow`].
    pub(super) fn hold_from(&self, index: u64) {
        self.held_from.store(index, Ordering::SeqCst);
    }

    /// What was held becomes durable, and so does what follows.
    pub(super) fn release(&self) {
        self.hold_from(u64::MAX);
        self.sync();
    }

    /// Loses power: what was held is gone.
    pub(super) fn crash(&self) {
        self.log.crash(0);
        self.hold_from(u64::MAX);
    }

    fn sync(&self) {
        let last = self.log.last().ok().flatten().map(|(index, _)| index);
        if last.is_none_or(|last| last < self.held_from.load(Ordering::SeqCst)) {
            self.log.flush(usize::MAX);
        }
    }

    /// Records of this replica that were durable at some time.
    pub(super) fn records(&self) -> Vec<Record> {
        let written = self.written.lock();
        written.iter().map(|framed| borsh::from_slice(&framed[65..]).unwrap()).collect()
    }
}

impl LogStore for Watched {
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Completion) {
        if self.failing.load(Ordering::SeqCst) {
            return done(Err(StorageError::Io { path: "wal".into(), detail: "this test's disk is broken".into() }));
        }
        self.written.lock().extend(entries.iter().map(|(_, bytes)| bytes.clone()));
        self.log.append(entries, done);
        self.sync();
    }

    fn save_vote(&self, vote: Bytes, done: Completion) {
        self.log.save_vote(vote, done);
        self.sync();
    }

    fn save_committed(&self, committed: Bytes) -> Result<(), StorageError> {
        self.log.save_committed(committed)
    }

    fn read_vote(&self) -> Result<Option<Bytes>, StorageError> {
        self.log.read_vote()
    }

    fn read_committed(&self) -> Result<Option<Bytes>, StorageError> {
        self.log.read_committed()
    }

    fn truncate_after(&self, last_kept: Option<u64>, done: Completion) {
        self.log.truncate_after(last_kept, done);
        self.sync();
    }

    fn purge_upto(&self, index: u64, marker: Bytes, done: Completion) {
        self.log.purge_upto(index, marker, done);
        self.sync();
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageError> {
        self.log.read(range, bytes_max)
    }

    fn first_index(&self) -> Result<Option<u64>, StorageError> {
        self.log.first_index()
    }

    fn last(&self) -> Result<Option<(u64, Bytes)>, StorageError> {
        self.log.last()
    }

    fn purged(&self) -> Result<Option<Bytes>, StorageError> {
        self.log.purged()
    }

    fn purged_index(&self) -> Result<Option<u64>, StorageError> {
        self.log.purged_index()
    }
}

/// Who is where, who is cut off, and what members have sent each other.
#[derive(Default)]
pub(super) struct Net {
    groups: Mutex<BTreeMap<NodeId, BftGroup>>,
    founding: Mutex<BTreeMap<NodeId, Founding>>,
    cut: Mutex<BTreeSet<NodeId>>,
    frozen: Mutex<BTreeSet<NodeId>>,
    /// Who has asked a frozen node for decided values.
    stuck: watch::Sender<BTreeSet<NodeId>>,
    heard: Mutex<Vec<(NodeId, Bytes)>>,
    /// Who does not hear precommits, and from which entry on.
    deaf: Mutex<(BTreeSet<NodeId>, u64)>,
    /// Nobody else lends a snapshot before that of this node was found to be a lie, by the replica with this applier.
    lends_first: Mutex<Option<(NodeId, TestApplier)>>,
    pub(super) snapshot_every: AtomicU64,
}

impl Net {
    pub(super) fn cut(&self, node: u32) {
        self.cut.lock().insert(NodeId(node));
    }

    pub(super) fn join(&self, node: u32) {
        self.cut.lock().remove(&NodeId(node));
    }

    /// These nodes, and no others, do not hear precommits for this entry and later ones.
    pub(super) fn deafen(&self, nodes: &[u32], from: u64) {
        *self.deaf.lock() = (nodes.iter().copied().map(NodeId).collect(), from);
    }

    /// The messages of a call as `to` hears them.
    fn as_heard(&self, to: NodeId, payload: Bytes) -> Bytes {
        let (nodes, from) = &*self.deaf.lock();
        if !nodes.contains(&to) {
            return payload;
        }
        let request = wire::open_request(payload).unwrap();
        let mut messages = wire::body::<Vec<Message>>(&request.body).unwrap();
        let unheard =
            |signed: &SignedBallot| signed.ballot.kind == BallotKind::Precommit && signed.ballot.index >= *from;
        messages.retain(|message| match message {
            Message::Ballot(signed) => !unheard(signed),
            Message::Ballots(_, ballots) => !ballots.iter().any(unheard),
            Message::Part(_) | Message::Want { .. } => true,
        });
        let head = wire::Head { to: request.to, from: request.from, stint: request.stint };
        wire::request(head, &messages)
    }

    /// A node stands still, with its connections open: no call from it or to it ends.
    pub(super) fn freeze(&self, node: u32) {
        self.frozen.lock().insert(NodeId(node));
    }

    /// Waits until a node has asked a frozen one for decided values.
    pub(super) async fn stuck(&self, node: u32) {
        let mut stuck = self.stuck.subscribe();
        let found = tokio::time::timeout(PATIENCE, stuck.wait_for(|stuck| stuck.contains(&NodeId(node)))).await;
        assert!(matches!(found, Ok(Ok(_))), "node {node} has not asked");
    }

    /// Nobody else lends a snapshot before that of this node was found to be a lie, by the replica with this applier.
    pub(super) fn lends_first(&self, liar: u32, borrower: &TestApplier) {
        *self.lends_first.lock() = Some((NodeId(liar), borrower.clone()));
    }

    /// A node is asked for a snapshot.
    fn asked_to_lend(&self, node: NodeId) -> Result<(), TransportError> {
        let mut first = self.lends_first.lock();
        if first.as_ref().is_some_and(|(_, borrower)| !borrower.0.lock().lies.is_empty()) {
            *first = None;
        }
        match first.as_ref() {
            Some((liar, _)) if *liar != node => Err(TransportError::Unreachable("it is another one's turn".into())),
            _ => Ok(()),
        }
    }

    fn is_frozen(&self, a: NodeId, b: NodeId) -> bool {
        let frozen = self.frozen.lock();
        frozen.contains(&a) || frozen.contains(&b)
    }

    fn open(&self, a: NodeId, b: NodeId) -> Result<(), TransportError> {
        let cut = self.cut.lock();
        if cut.contains(&a) || cut.contains(&b) {
            return Err(TransportError::Unreachable("cut".into()));
        }
        Ok(())
    }

    /// Ballots of a node that it has sent, whoever has passed them on not counted.
    pub(super) fn ballots(&self, node: u32) -> Vec<SignedBallot> {
        let heard = self.heard.lock();
        let calls = heard.iter().filter(|(from, _)| *from == NodeId(node));
        let messages = calls.flat_map(|(_, payload)| {
            let request = wire::open_request(payload.clone()).unwrap();
            wire::body::<Vec<Message>>(&request.body).unwrap()
        });
        let ballots = messages.flat_map(|message| match message {
            Message::Ballot(ballot) => vec![ballot],
            Message::Ballots(_, ballots) => ballots,
            Message::Part(_) | Message::Want { .. } => Vec::new(),
        });
        ballots.filter(|signed| signed.ballot.node == NodeId(node)).collect()
    }

    /// What was heard so far does not count any more.
    pub(super) fn forget(&self) {
        self.heard.lock().clear();
    }
}

struct Link {
    own: NodeId,
    net: Arc<Net>,
}

#[async_trait]
impl RaftTransport for Link {
    async fn call(&self, to: NodeId, _group: GroupId, kind: u8, payload: Bytes) -> Result<Bytes, TransportError> {
        if self.net.is_frozen(self.own, to) {
            if kind == wire::BFT_DECIDED {
                self.net.stuck.send_modify(|stuck| {
                    stuck.insert(self.own);
                });
            }
            return std::future::pending().await;
        }
        self.net.open(self.own, to)?;
        if kind == wire::SNAPSHOT_ASK {
            self.net.asked_to_lend(to)?;
        }
        if kind == wire::BFT_MESSAGES {
            self.net.heard.lock().push((self.own, payload.clone()));
        }
        let payload = if kind == wire::BFT_MESSAGES { self.net.as_heard(to, payload) } else { payload };
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
    Memory(Arc<Watched>, Arc<Watched>),
    /// In one engine on disk, open while the replica runs.
    Engine(Option<LogEngine>),
}

impl Disk {
    pub(super) fn memory() -> Self {
        Self::Memory(Watched::of(MemLog::immediate("log")), Watched::of(MemLog::immediate("wal")))
    }

    /// As [`Disk::memory`], with a log that can be held: see [`Watched::hold_from`].
    pub(super) fn slow() -> Self {
        Self::Memory(Watched::of(MemLog::manual("log")), Watched::of(MemLog::immediate("wal")))
    }

    fn open(&mut self, dir: &Path) -> (Arc<dyn LogStore>, Arc<dyn LogStore>) {
        match self {
            Self::Memory(log, wal) => (log.clone(), wal.clone()),
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

    fn close(&mut self) {
        if let Self::Engine(engine) = self {
            *engine = None;
        }
    }
}

/// One node with one replica.
pub(super) struct Node {
    pub(super) dir: TempDir,
    pub(super) disk: Disk,
    pub(super) applier: TestApplier,
    pub(super) join: u16,
    pub(super) group: Option<BftGroup>,
}

impl Node {
    pub(super) fn new(disk: Disk, members: u32) -> Self {
        let applier = TestApplier(Arc::new(Mutex::new(State::new(committee(members)))));
        Self { dir: TempDir::new().unwrap(), disk, applier, join: 1, group: None }
    }

    /// The records of its votes.
    pub(super) fn wal(&self) -> Arc<Watched> {
        match &self.disk {
            Disk::Memory(_, wal) => wal.clone(),
            Disk::Engine(_) => panic!("it is on disk"),
        }
    }

    /// Its log.
    pub(super) fn log(&self) -> Arc<Watched> {
        match &self.disk {
            Disk::Memory(log, _) => log.clone(),
            Disk::Engine(_) => panic!("it is on disk"),
        }
    }
}

pub(super) struct Cluster {
    pub(super) net: Arc<Net>,
    pub(super) timing: BftTiming,
    pub(super) nodes: BTreeMap<u32, Node>,
}

impl Cluster {
    /// A group that has begun.
    pub(super) async fn new(members: u32, timing: BftTiming) -> Self {
        Self::on(members, timing, |_| Disk::memory(), 0).await
    }

    /// As [`Cluster::new`], with these disks and automatic snapshots.
    pub(super) async fn on(members: u32, timing: BftTiming, disk: impl Fn(u32) -> Disk, snapshot_every: u64) -> Self {
        let mut cluster = Self { net: Arc::default(), timing, nodes: BTreeMap::new() };
        cluster.net.snapshot_every.store(snapshot_every, Ordering::Relaxed);
        let mut prepared = BTreeMap::new();
        for node in 1..=members {
            cluster.nodes.insert(node, Node::new(disk(node), members));
            prepared.insert(node, cluster.prepare(node, GROUP).await.unwrap());
        }
        // Each is sure when it has heard the others, and begins when it hears that they are.
        for round in 0..2 {
            for (node, (one, _)) in &prepared {
                let others = (1..=members).filter(|other| other != node);
                let others: Vec<_> = others.map(|other| (replica_id(NodeId(other), 1), NodeId(other))).collect();
                let founded = one.found(&others).await;
                assert!(round == 0 || founded.is_ok(), "node {node}: {founded:?}");
            }
        }
        for (node, (one, parts)) in prepared {
            cluster.begin(node, one, parts).await.unwrap();
        }
        cluster
    }

    /// Opens what a node has.
    pub(super) async fn prepare(&mut self, node: u32, group: GroupId) -> Result<(Prepared, BftParts), StartError> {
        let own = self.nodes.get_mut(&node).unwrap();
        let config = RaftGroupConfig {
            group,
            raft_id: replica_id(NodeId(node), own.join),
            node: NodeId(node),
            timing: Timing { heartbeat_ms: 60, election_min_ms: 300, election_max_ms: 600 },
            snapshot_dir: own.dir.path().join("snapshots"),
            snapshot_every_entries: self.net.snapshot_every.load(Ordering::Relaxed),
            snapshot_keep_entries: 5,
        };
        let (log, wal) = own.disk.open(own.dir.path());
        let link = Arc::new(Link { own: NodeId(node), net: self.net.clone() });
        let parts = BftParts {
            cluster: CLUSTER,
            key: key(node).into(),
            timing: self.timing,
            caught: Caught::open(wal.clone(), CLUSTER, (group, config.raft_id))?,
            wal,
            judge: Arc::new(Anything),
            anchor: Hash32([1; 32]),
            start: Position::default(),
            // Whoever is a member is one by the logs of those who were, so the own state finds them.
            others: Arc::new(Vec::new),
        };
        let prepared = Prepared::open(config, log, Box::new(own.applier.clone()), link).await?;
        self.net.founding.lock().insert(NodeId(node), prepared.founding());
        Ok((prepared, parts))
    }

    /// Starts what was opened.
    pub(super) async fn begin(&mut self, node: u32, prepared: Prepared, parts: BftParts) -> Result<(), StartError> {
        let group = prepared.start_bft(parts).await?;
        self.net.groups.lock().insert(NodeId(node), group.clone());
        self.nodes.get_mut(&node).unwrap().group = Some(group);
        Ok(())
    }

    /// Starts a node with what it has.
    pub(super) async fn start(&mut self, node: u32) {
        let (prepared, parts) = self.prepare(node, GROUP).await.unwrap();
        self.begin(node, prepared, parts).await.unwrap();
    }

    pub(super) async fn stop(&mut self, node: u32) {
        self.net.groups.lock().remove(&NodeId(node));
        self.net.founding.lock().remove(&NodeId(node));
        let stopped = self.nodes.get_mut(&node).unwrap();
        if let Some(group) = stopped.group.take() {
            group.shutdown().await;
        }
        stopped.disk.close();
        assert_eq!(Arc::strong_count(&stopped.applier.0), 1, "the applier is dropped");
    }

    pub(super) fn group(&self, node: u32) -> BftGroup {
        self.nodes[&node].group.clone().unwrap()
    }

    pub(super) fn state(&self, node: u32) -> State {
        self.nodes[&node].applier.0.lock().clone()
    }

    pub(super) fn batches(&self, node: u32) -> Vec<String> {
        let batches = self.state(node).batches;
        batches.into_iter().map(|batch| String::from_utf8(batch).unwrap()).collect()
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

    /// Orders a batch, through this node while it leads. As a client does, it is sent again to whoever leads among those
    /// that are not cut off, until one says that it is ordered.
    pub(super) async fn propose(&self, leader: u32, batch: &str) -> u64 {
        let bytes = Bytes::copy_from_slice(batch.as_bytes());
        if let Ok(index) = self.group(leader).propose(bytes.clone()).await {
            return index;
        }
        let cut = self.net.cut.lock().clone();
        let among = self.nodes.iter().filter(|(node, one)| one.group.is_some() && !cut.contains(&NodeId(**node)));
        let among: Vec<u32> = among.map(|(node, _)| *node).collect();
        let ordering = async {
            loop {
                let leader = self.leader(&among).await;
                match self.group(leader).propose(bytes.clone()).await {
                    Ok(index) => return index,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, ordering).await.unwrap_or_else(|_| panic!("not ordered: {batch}"))
    }

    /// Waits until these nodes have applied up to `index`.
    pub(super) async fn applied(&self, among: &[u32], index: u64) {
        for node in among {
            until(&self.group(*node), |role| role.applied_index >= index).await;
        }
    }
}

/// Waits for a role.
pub(super) async fn until(group: &BftGroup, condition: impl FnMut(&RoleView) -> bool) -> RoleView {
    let mut role = group.role();
    let found = tokio::time::timeout(PATIENCE, role.wait_for(condition)).await;
    match found {
        Ok(Ok(role)) => role.clone(),
        other => panic!("not reached: {other:?}; the role is {:?}", group.role().borrow()),
    }
}

/// Waits until something holds that changes whenever the replica's role does.
pub(super) async fn until_so(group: &BftGroup, mut condition: impl FnMut() -> bool) {
    until(group, |_| condition()).await;
}

/// Which ballots these records tell of.
pub(super) fn ballots_in(records: &[Record]) -> BTreeSet<SignedBallot> {
    let ballots = records.iter().flat_map(|record| match &record.event {
        Event::Ballot(ballot) => vec![*ballot],
        Event::Polka(ballots) => ballots.clone(),
        Event::Value { .. } | Event::Timeout { .. } => Vec::new(),
    });
    ballots.collect()
}
