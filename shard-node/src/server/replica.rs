//! The commit loop of one group: the only place where a block becomes durable state.
//!
//! The engine hands over committed entries; for each batch this executes the block, writes
//! everything in one RocksDB batch, and only then tells the group's task, which replies and sends
//! mail. A failed write stops the group.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use consensus::engine::first_note;
use consensus::port::{
    AppliedState, Applier, Candidate, Committed, Fatal, Order, Origin, Packer, Payload, SnapshotDir, SnapshotError,
};
use cross_shard::commit::Decision;
use ledger::Committee;
use ledger::checked::Checked;
use ledger::committee::Engine;
use ledger::genesis::{Genesis, VerifyMode};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId};
use ledger::layout::Layout;
use ledger::lineage;
use ledger::receipt::Receipt;
use ledger::schema;
use ledger::tree::{BitPrefix, StateTree, value_hash};
use ledger::view::{Knowing, ReadFault, StateReader};
use parking_lot::{Mutex, RwLock};
use storage::{KeyRange, Kv, KvView, SharedResources, StateDb, StateIdentity, WriteBatch};
use tokio::sync::mpsc;

use crate::core::applied::{self, AppliedRecord, EngineStart};
use crate::core::driver::CommittedBlock;
use crate::core::executor::{self, ExecutedBlock, Execution, GroupConstants, RefusedTx};
use crate::core::follow::Writes;
use crate::core::genesis::{Founded, genesis_state};
use crate::core::heads::Heads;
use crate::core::machine::BlockWork;
use crate::core::marks;
use crate::core::records::{BlockRecord, ReceiptPlace};
use crate::server::followers::Followers;
use crate::server::halt::Halt;
use crate::server::snapshot::{self, Copies, Staged, label};
use crate::server::vault::LocalSeal;

/// Newest format of the state database that this program reads and writes.
pub const STATE_FORMAT: u32 = 1;
/// Pairs read at once when the tree is rebuilt.
const SCAN_CHUNK: usize = 8192;

/// What the commit loop tells the group's task, after the write.
#[allow(clippy::large_enum_variant, reason = "nearly all of them are the large one")]
pub enum Committing {
    /// A block.
    Block {
        /// For the driver.
        block: CommittedBlock,
        /// New receipts, in order.
        receipts: Vec<ledger::Receipt>,
        /// Transactions refused without one.
        refused: Vec<RefusedTx>,
        /// Votes on transactions that other groups vote on, too.
        votes: Vec<(ledger::TxId, Decision)>,
        /// Committees or the layout changed.
        system_changed: bool,
    },
    /// The whole state was replaced by a snapshot.
    Installed,
    /// A snapshot that a node sent did not pass its checks; the state is as it was.
    Refused(String),
}

/// Reads of a group's database, shared with everybody who answers questions.
#[derive(Clone)]
pub struct StateHandle {
    db: Arc<RwLock<Option<Arc<dyn Kv>>>>,
}

impl StateHandle {
    /// The database, or `None` once it was closed.
    #[must_use]
    pub fn db(&self) -> Option<Arc<dyn Kv>> {
        self.db.read().clone()
    }

    /// Closes the database as soon as nobody reads it any more.
    pub fn close(&self) {
        self.db.write().take();
    }

    /// A decoded value.
    ///
    /// # Errors
    /// [`ReadFault`] when the database fails, is closed, or holds foreign bytes.
    pub fn load<T: borsh::BorshDeserialize>(&self, key: &[u8]) -> Result<Option<T>, ReadFault> {
        let db = self.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
        match DbReader(&*db).get(key)? {
            Some(bytes) => borsh::from_slice(&bytes).map(Some).map_err(|error| ReadFault(error.to_string())),
            None => Ok(None),
        }
    }
}

/// A database as the pure core reads it.
pub struct DbReader<'a>(pub &'a dyn Kv);

fn fault(error: storage::StorageError) -> ReadFault {
    ReadFault(format!("{}: {error}", error.code()))
}

impl StateReader for DbReader<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        self.0.get(key).map_err(fault)
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        self.0.scan(KeyRange::prefix(prefix), usize::MAX).map_err(fault)
    }

    fn scan_from(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        self.0.scan(KeyRange::prefix_from(prefix, from), limit).map_err(fault)
    }
}

/// One moment of a database as the pure core reads it: nothing that is applied meanwhile shows.
pub struct ViewReader<'a>(pub Box<dyn KvView + 'a>);

impl<'a> ViewReader<'a> {
    /// The database as it is now.
    #[must_use]
    pub fn of(db: &'a dyn Kv) -> Self {
        Self(db.snapshot_view())
    }
}

impl StateReader for ViewReader<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        self.0.get(key).map_err(fault)
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        self.0.scan(KeyRange::prefix(prefix), usize::MAX).map_err(fault)
    }

    fn scan_from(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        self.0.scan(KeyRange::prefix_from(prefix, from), limit).map_err(fault)
    }
}

/// The tree and the position it stands at, for proofs.
pub struct Stand {
    /// The state tree.
    pub tree: StateTree,
    /// The heads of streams after it.
    pub heads: Heads,
    /// What the database contains.
    pub applied: AppliedRecord,
    /// What orders the entries by that.
    pub order: Order,
    /// Accounts that the database holds.
    pub accounts: u64,
}

/// What of a [`Stand`] takes a look at every leaf, by whoever has had that already.
pub struct Counted {
    /// The state tree.
    pub tree: StateTree,
    /// Accounts.
    pub accounts: u64,
}

/// Where a replica's state lies, and how.
pub struct Files<'a> {
    /// The folder.
    pub root: &'a Path,
    /// What databases share.
    pub resources: &'a SharedResources,
    /// How its values are sealed.
    pub seal: LocalSeal,
    /// What is known of it already.
    pub known: Known,
}

/// What a host knows of a replica's state before it is opened.
#[derive(Default)]
pub struct Known {
    /// What is known of its leaves.
    pub counted: Option<Counted>,
    /// Its database, which was open already and has stayed so while its folder became that of the replica.
    pub db: Option<StateDb>,
    /// What a new one begins with instead of block 0.
    pub first: Option<Writes>,
}

/// One replica's state and the way it moves.
pub struct Replica {
    root: PathBuf,
    resources: SharedResources,
    seal: LocalSeal,
    identity: StateIdentity,
    constants: GroupConstants,
    state: StateHandle,
    stand: Arc<Mutex<Stand>>,
    effects: mpsc::Sender<Committing>,
    halt: Halt,
    followers: Followers,
    checked: Checked,
    staged: Option<Staged>,
    /// The engine that delivers.
    by: Engine,
    /// Bytes written into the state database.
    written_bytes: Arc<AtomicU64>,
    /// Transactions that got a receipt.
    transactions: Arc<AtomicU64>,
}

/// What a replica shares with the rest of its group's host.
#[derive(Clone)]
pub struct ReplicaShare {
    /// Reads.
    pub state: StateHandle,
    /// Tree and position. Whoever reads both tree and state looks at `halt` under this lock: after a
    /// failure the tree may be ahead of what was written.
    pub stand: Arc<Mutex<Stand>>,
    /// Whether the group has stopped here.
    pub halt: Halt,
    /// Who is told of its blocks.
    pub followers: Followers,
    /// Certificates that were found to hold, by its driver or its machine.
    pub checked: Checked,
    /// Bytes of removed accounts whose space on the disk has not come back yet.
    pub trimming_bytes: Arc<AtomicU64>,
    /// Bytes written into the state database.
    pub written_bytes: Arc<AtomicU64>,
    /// Transactions that got a receipt.
    pub transactions: Arc<AtomicU64>,
}

impl ReplicaShare {
    /// The receipts of the block that a place is in, of this group `here` or of one that it came from; none where the
    /// block is gone.
    ///
    /// # Errors
    /// [`ReadFault`] when the database fails.
    pub fn receipts_at(&self, here: GroupId, place: &ReceiptPlace) -> Result<Vec<Receipt>, ReadFault> {
        let origin = if place.chain == here { None } else { self.state.load::<lineage::Origin>(&schema::origin())? };
        let record: Option<BlockRecord> = self.state.load(&place.block_key(here, origin.as_ref()))?;
        Ok(record.map(|record| record.receipts).unwrap_or_default())
    }
}

/// Why a replica's state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database refuses: damaged, of another cluster, in use, disk full.
    #[error(transparent)]
    Storage(#[from] storage::StorageError),
    /// The content cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// Nothing is known of how the group began.
    #[error(transparent)]
    Genesis(#[from] crate::core::genesis::GenesisError),
    /// The leaves do not add up to the root that was recorded with the last block.
    #[error(
        "the state in {path} does not match its recorded root: it is damaged; stop the node, and set it aside with 'seamark node rebuild'"
    )]
    Root {
        /// The folder.
        path: String,
    },
    /// Something that is always there is missing.
    #[error(
        "the state in {path} holds no {what}: it is damaged; stop the node, and set it aside with 'seamark node rebuild'"
    )]
    Missing {
        /// The folder.
        path: String,
        /// What is missing.
        what: &'static str,
    },
    /// The replica has found out that this state is not what its group agreed on.
    #[error("the state in {path} is not served: {reason}; stop the node, and set it aside with 'seamark node rebuild'")]
    Wrong {
        /// The folder.
        path: String,
        /// What was found.
        reason: String,
    },
    /// A leaf outside the shard's prefix.
    #[error("the state in {path} holds accounts of another shard: {detail}")]
    Tree {
        /// The folder.
        path: String,
        /// The tree's words.
        detail: String,
    },
}

impl OpenError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Read(_) => "state_unreadable",
            Self::Genesis(_) => "unknown_group",
            Self::Wrong { .. } => "state_wrong",
            Self::Root { .. } | Self::Missing { .. } | Self::Tree { .. } => "state_corrupt",
        }
    }
}

impl Replica {
    /// Opens the state that a node has of `group`, writing block 0 into a new one, and rebuilds the tree, which must
    /// match the recorded root.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the folder.
    pub fn open(
        files: Files<'_>,
        genesis: &Genesis,
        founded: Founded<'_>,
        (node, group): (NodeId, GroupId),
        verify: VerifyMode,
        effects: mpsc::Sender<Committing>,
    ) -> Result<(Self, ReplicaShare), OpenError> {
        let cluster = genesis.cluster_id();
        let (node, format_version) = (node.0, STATE_FORMAT);
        let identity = StateIdentity { cluster: cluster.0.0, node, group: group.0, format_version };
        let Files { root, resources, seal, known: Known { counted, db, first } } = files;
        let db = match db.and_then(|db| db.settled(root)) {
            Some(db) => db,
            None => {
                // One that has just become a state is opened while payers wait for all of its kind at once.
                let open = if counted.is_some() { StateDb::open_quiet } else { StateDb::open };
                open(root, resources, identity, seal.cipher())?
            }
        };
        let reader = DbReader(&db);
        if reader.get(&schema::applied())?.is_none() {
            match first {
                Some(writes) => write_first(&db, writes)?,
                None => write_genesis(&db, genesis, founded, group)?,
            }
        }
        if let Some(reason) = reader.get(&marks::wrong())? {
            let reason = borsh::from_slice(&reason).map_err(|error| ReadFault(error.to_string()))?;
            return Err(OpenError::Wrong { path: db.folder().display().to_string(), reason });
        }
        let stand = stand(&db, &db.folder().display().to_string(), group, counted)?;
        let by = stand.order.engine;
        let share = ReplicaShare {
            state: StateHandle { db: Arc::new(RwLock::new(Some(Arc::new(db)))) },
            stand: Arc::new(Mutex::new(stand)),
            halt: Halt::default(),
            followers: Followers::default(),
            checked: Checked::default(),
            trimming_bytes: Arc::default(),
            written_bytes: Arc::default(),
            transactions: Arc::default(),
        };
        let replica = Self {
            root: root.to_path_buf(),
            resources: resources.clone(),
            seal,
            identity,
            constants: GroupConstants { cluster, group, verify },
            state: share.state.clone(),
            stand: Arc::clone(&share.stand),
            effects,
            halt: share.halt.clone(),
            followers: share.followers.clone(),
            checked: share.checked.clone(),
            staged: None,
            by,
            written_bytes: Arc::clone(&share.written_bytes),
            transactions: Arc::clone(&share.transactions),
        };
        Ok((replica, share))
    }

    fn db(&self) -> Result<Arc<dyn Kv>, Fatal> {
        self.state.db().ok_or_else(|| Fatal("the state is closed".into()))
    }

    fn write(&self, db: &dyn Kv, batch: WriteBatch) -> Result<(), Fatal> {
        self.written_bytes.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        db.write(batch).map_err(|error| Fatal(format!("{}: {error}", error.code())))
    }

    fn tell(&self, what: Committing) -> Result<(), Fatal> {
        self.effects.blocking_send(what).map_err(|_| Fatal("the group's task has ended".into()))
    }

    /// A snapshot that a node sent does not become the state.
    fn refuse(&self, node: NodeId, reason: &str) -> Result<(), Fatal> {
        let text = format!(
            "snapshot_refused: {}: a snapshot that node {node} sent does not hold: {reason}; this replica keeps the state \
             it has, and takes the next one or that of another node",
            self.constants.group
        );
        self.tell(Committing::Refused(text))
    }

    /// Persists a position that makes no block.
    fn note(&self, db: &dyn Kv, consensus: AppliedState) -> Result<(), Fatal> {
        let mut stand = self.stand.lock();
        let mut applied = stand.applied.clone();
        applied.consensus = consensus;
        let mut batch = WriteBatch::new();
        batch.put(schema::applied(), encoded(&applied));
        self.write(db, batch)?;
        stand.applied = applied;
        Ok(())
    }

    /// Executes and writes a block; `None` for an entry that makes none. The tree moves first: when the write then fails,
    /// the group has stopped before anybody else sees the tree again.
    fn persisted(
        &self,
        db: &dyn Kv,
        stand: &mut Stand,
        consensus: AppliedState,
        payload: &Bytes,
    ) -> Result<Option<ExecutedBlock>, Fatal> {
        let previous = stand.applied.clone();
        let leaves = stand.tree.len();
        let reader = DbReader(db);
        let base = Knowing::new(&reader, &self.checked);
        let Stand { tree, heads, .. } = stand;
        let run = BlockWork::run;
        let executed =
            executor::execute_behind(&base, tree, heads, &self.constants, &previous, consensus, payload, run);
        let mut block = match executed.map_err(|error| Fatal(error.to_string()))? {
            Execution::Block(block) => *block,
            Execution::Void => return Ok(None),
        };
        if let Some((start, committee)) = &block.handed_over {
            let note = engine_note(db, start, committee)?;
            block.applied.consensus.membership = Some((Some(start.after), note));
            let applied = encoded(&block.applied);
            block.writes.retain(|(key, _)| *key != schema::applied());
            block.writes.push((schema::applied(), Some(applied)));
        }
        // Accounts come and go with leaves.
        let accounts = if stand.tree.len() == leaves { (0, 0) } else { accounts_changed(db, &block.writes)? };
        let writes = std::mem::take(&mut block.writes);
        // Whoever begins to follow holds the lock of this stand.
        let followed = (!self.followers.is_empty()).then(|| Arc::new(writes.clone()));
        let mut batch = WriteBatch::with_capacity(writes.len());
        for (key, value) in writes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        self.write(db, batch)?;
        if let Some(writes) = followed {
            self.followers.block(block.header.height, &writes);
        }
        stand.applied = block.applied.clone();
        stand.accounts = (stand.accounts + accounts.0).saturating_sub(accounts.1);
        if let Some((start, _)) = &block.handed_over {
            let (group, height) = (self.constants.group, start.height);
            tracing::info!(%group, engine = start.engine.name(), %height, "the committee in force has another engine");
            stand.order = start.order();
        }
        Ok(Some(block))
    }

    fn block(&self, db: &dyn Kv, consensus: AppliedState, payload: &Bytes) -> Result<(), Fatal> {
        let block = {
            let mut stand = self.stand.lock();
            let at = consensus.clone();
            self.persisted(db, &mut stand, at, payload).inspect_err(|fatal| self.halt.stop(&fatal.0))?
        };
        // Behind a seal an entry is worth no more than one of the engine's own.
        let Some(block) = block else { return self.note(db, consensus) };
        self.transactions.fetch_add(block.receipts.len() as u64, Ordering::Relaxed);
        self.tell(Committing::Block {
            block: CommittedBlock {
                header: Arc::new(block.header),
                header_hash: block.header_hash,
                outcomes: block.outcomes,
                mail: block.mail,
                outbox: block.outbox,
                inbox: block.inbox,
                cursors: block.cursors,
                to_verify: Arc::new(block.to_verify),
                next_deadline: block.next_deadline,
                sealed: block.sealed,
                shapes: block.shapes,
                unsealed: block.unsealed,
                reshaped: block.reshaped,
            },
            receipts: block.receipts,
            refused: block.refused,
            votes: block.votes,
            system_changed: block.system_changed,
        })
    }
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    Bytes::from(borsh::to_vec(value).expect("writing to memory does not fail"))
}

/// What the engine that begins finds beside the state at the entry that hands over to it.
fn engine_note(db: &dyn Kv, start: &EngineStart, committee: &Committee) -> Result<Vec<u8>, Fatal> {
    let members = applied::replicas(&DbReader(db), committee).map_err(|fault| Fatal(fault.0))?;
    first_note(&start.order(), committee, &members).map_err(|error| Fatal(error.to_string()))
}

fn write_first(db: &dyn Kv, writes: Writes) -> Result<(), OpenError> {
    let mut batch = WriteBatch::with_capacity(writes.len());
    for (key, value) in writes {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    db.write(batch)?;
    db.flush()?;
    Ok(())
}

fn write_genesis(db: &dyn Kv, genesis: &Genesis, founded: Founded<'_>, group: GroupId) -> Result<(), OpenError> {
    let first = genesis_state(genesis, founded, group)?;
    let mut batch = WriteBatch::new();
    for (key, value) in first.writes {
        batch.put(key, value);
    }
    db.write(batch)?;
    db.flush()?;
    Ok(())
}

/// How many accounts a block has added, and how many it has taken away.
fn accounts_changed(db: &dyn Kv, writes: &[(Vec<u8>, Option<Bytes>)]) -> Result<(u64, u64), Fatal> {
    let (mut added, mut removed) = (0, 0);
    for (key, value) in writes.iter().filter(|(key, _)| schema::is_account(key)) {
        let before = DbReader(db).get(key).map_err(|fault| Fatal(fault.0))?.is_some();
        added += u64::from(value.is_some() && !before);
        removed += u64::from(value.is_none() && before);
    }
    Ok((added, removed))
}

/// Reads the last position and rebuilds the tree from its leaves.
pub(crate) fn rebuild(db: &dyn Kv, path: &str, group: GroupId) -> Result<Stand, OpenError> {
    stand(db, path, group, None)
}

/// As [`rebuild`], without a look at the leaves where somebody has counted them.
fn stand(db: &dyn Kv, path: &str, group: GroupId, counted: Option<Counted>) -> Result<Stand, OpenError> {
    let path = path.to_owned();
    let missing = |what: &'static str| OpenError::Missing { path: path.clone(), what };
    let reader = DbReader(db);
    let decode_fault = |error: std::io::Error| OpenError::Read(ReadFault(error.to_string()));
    let applied = reader.get(&schema::applied())?.ok_or_else(|| missing("applied position"))?;
    let applied: AppliedRecord = borsh::from_slice(&applied).map_err(decode_fault)?;
    let layout = reader.get(&schema::layout())?.ok_or_else(|| missing("layout"))?;
    let layout: Layout = borsh::from_slice(&layout).map_err(decode_fault)?;
    let prefix = layout.prefix_ever(group).map_or(BitPrefix::ROOT, ledger::BitPrefix::in_tree);
    // Its accounts come with a snapshot.
    let lacking = reader.get(&marks::lacking())?.is_some();
    let Counted { mut tree, accounts } = match counted {
        _ if lacking => Counted { tree: StateTree::new(prefix), accounts: 0 },
        Some(counted) => counted,
        None => count(db, &path, prefix)?,
    };
    if *tree.prefix() != prefix || !lacking && Hash32(tree.root()) != applied.state_root {
        return Err(OpenError::Root { path });
    }
    let order = applied::order(&reader, group)?;
    Ok(Stand { tree, heads: Heads::default(), applied, order, accounts })
}

/// Looks at every leaf.
fn count(db: &dyn Kv, path: &str, prefix: BitPrefix) -> Result<Counted, OpenError> {
    let missing = |what: &'static str| OpenError::Missing { path: path.to_owned(), what };
    let (mut leaves, mut accounts) = (Vec::new(), 0);
    let mut range = KeyRange::prefix(&[schema::STATE]);
    loop {
        let part = db.scan(range.clone(), SCAN_CHUNK)?;
        for (key, value) in &part {
            let position = schema::tree_position(key).ok_or_else(|| missing("well-formed state key"))?;
            leaves.push((position, value_hash(value)));
            accounts += u64::from(schema::is_account(key));
        }
        let Some((last, _)) = part.last().filter(|_| part.len() == SCAN_CHUNK) else { break };
        let mut next = last.to_vec();
        next.push(0);
        range.start = Bytes::from(next);
    }
    leaves.sort_unstable_by_key(|leaf| leaf.0);
    let tree = StateTree::from_sorted(prefix, leaves)
        .map_err(|error| OpenError::Tree { path: path.to_owned(), detail: error.to_string() })?;
    Ok(Counted { tree, accounts })
}

impl Replica {
    fn applied_all(&self, entries: Vec<Committed>) -> Result<(), Fatal> {
        let db = self.db()?;
        for entry in entries {
            let (order, mut consensus) = {
                let stand = self.stand.lock();
                (stand.order, stand.applied.consensus.clone())
            };
            if !applied::counts(&order, self.by, entry.position.index) {
                continue;
            }
            consensus.position = Some(entry.position);
            if let Some(note) = entry.note {
                consensus.membership = Some((Some(entry.position), note.to_vec()));
            }
            match entry.payload {
                Payload::Blank => self.note(&*db, consensus)?,
                Payload::Membership(members) => {
                    consensus.membership = Some((Some(entry.position), members.to_vec()));
                    self.note(&*db, consensus)?;
                }
                Payload::Batch(payload) => self.block(&*db, consensus, &payload)?,
            }
        }
        Ok(())
    }
}

impl Applier for Replica {
    fn applied(&self) -> AppliedState {
        self.stand.lock().applied.consensus.clone()
    }

    fn committee(&self) -> Result<Option<Committee>, Fatal> {
        let db = self.db()?;
        let key = schema::current_committee(self.constants.group);
        let found = DbReader(&*db).get(&key).map_err(|fault| Fatal(fault.0))?;
        let committee = found.map(|bytes| borsh::from_slice(&bytes)).transpose();
        committee.map_err(|error| Fatal(format!("the committee in force does not decode: {error}")))
    }

    fn order(&self) -> Option<Order> {
        Some(self.stand.lock().order)
    }

    fn header(&self) -> Option<Hash32> {
        Some(self.stand.lock().applied.header_hash)
    }

    fn ordered_by(&mut self, engine: Engine) {
        self.by = engine;
    }

    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), Fatal> {
        // What was found wrong with the state meanwhile counts from the next entry on.
        if let Some(reason) = self.halt.reason() {
            return Err(Fatal(reason));
        }
        self.applied_all(entries).inspect_err(|fatal| self.halt.stop(&fatal.0))
    }

    fn checkpoint(&mut self, dir: &Path) -> Result<SnapshotDir, Fatal> {
        let db = self.db()?;
        db.checkpoint(dir).map_err(|error| Fatal(format!("{}: {error}", error.code())))?;
        let applied = self.applied();
        label::write(dir, &self.constants, &applied).map_err(|error| {
            let error = storage::StorageError::io(dir, &error);
            Fatal(format!("{}: {error}", error.code()))
        })?;
        Ok(SnapshotDir { path: dir.to_path_buf(), applied })
    }

    fn inspect(&self, dir: &Path) -> Result<AppliedState, Fatal> {
        label::read(dir, &self.constants).map_err(|cause| Fatal(format!("snapshot {}: {cause}", dir.display())))
    }

    fn packer(&self) -> Arc<dyn Packer> {
        let (resources, seal) = (self.resources.clone(), self.seal.clone());
        Arc::new(Copies { resources, identity: self.identity, seal })
    }

    fn prepare(&mut self, dir: &Path, from: Option<Origin>) -> Result<Candidate, SnapshotError> {
        self.staged = None;
        let checked = self.db().map_err(|fatal| SnapshotError::Failed(fatal.0)).and_then(|db| {
            let target = snapshot::Target {
                root: &self.root,
                resources: &self.resources,
                identity: self.identity,
                constants: &self.constants,
                seal: &self.seal,
            };
            snapshot::stage(dir, from.as_ref(), &target, &*db)
        });
        match checked {
            Ok(staged) => {
                let candidate = staged.candidate();
                self.staged = Some(staged);
                Ok(candidate)
            }
            Err(error) => {
                if let (Some(Origin { node, .. }), SnapshotError::Refused(reason)) = (from, &error) {
                    self.refuse(node, reason).map_err(|fatal| SnapshotError::Failed(fatal.0))?;
                }
                Err(error)
            }
        }
    }

    fn discard(&mut self, lie: Option<(NodeId, String)>) -> Result<(), Fatal> {
        self.staged = None;
        lie.map_or(Ok(()), |(node, reason)| self.refuse(node, &reason))
    }

    fn install(&mut self, dir: &Path) -> Result<AppliedState, Fatal> {
        if self.staged.as_ref().is_none_or(|staged| staged.dir != dir) {
            self.prepare(dir, None).map_err(|error| Fatal(format!("snapshot {}: {error}", dir.display())))?;
        }
        let Some(Staged { state, stand, .. }) = self.staged.take() else {
            return Err(Fatal("no snapshot is prepared".into()));
        };
        let db = Arc::new(state.switch().map_err(|error| Fatal(format!("{}: {error}", error.code())))?);
        let consensus = stand.applied.consensus.clone();
        let old = {
            // Whoever reads tree and state together holds this lock.
            let mut current = self.stand.lock();
            *current = stand;
            self.followers.replaced();
            self.state.db.write().replace(Arc::clone(&db) as Arc<dyn Kv>)
        };
        // Readers hold the old database for one question at a time; nobody can get it any more.
        if let Some(old) = old {
            while Arc::strong_count(&old) > 1 {
                std::thread::yield_now();
            }
        }
        if let Err(error) = db.remove_old() {
            tracing::warn!(group = %self.constants.group, %error, "the old state is still on the disk");
        }
        tracing::info!(group = %self.constants.group, "snapshot installed");
        self.tell(Committing::Installed)?;
        Ok(consensus)
    }
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
