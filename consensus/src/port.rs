//! The port between a group's host and the engine that orders its entries.
//!
//! The host proposes opaque batches through [`Sequencer`] (asynchronous, so only with an engine
//! feature); the engine hands what is committed to the host's [`Applier`], in order, exactly once
//! per position that the applier has not yet made durable. Replies to clients do not pass through
//! here: they leave the commit loop after the block is persisted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::Committee;
use ledger::committee::Engine;
use ledger::hash::Hash32;
use ledger::ids::{NodeId, TimeMs};

/// Where an entry stands in the engine's log. Opaque to the ledger: no header field depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Position {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// Engine-level id of this leader (a raft id, not a node id).
    pub leader: u64,
    /// Index in the log, contiguous.
    pub index: u64,
}

/// The engine's id of a node's replica in its group: the node, and how often it has joined the group,
/// counted from 1, so that no id is ever used again.
#[must_use]
pub const fn replica_id(node: NodeId, join: u16) -> u64 {
    ((node.0 as u64) << 16) | join as u64
}

/// Names whatever replica a node has of its group, for questions that any of them may answer.
#[must_use]
pub const fn any_replica(node: NodeId) -> u64 {
    (node.0 as u64) << 16
}

/// How often the node of a replica's id had joined the group with it: what [`replica_id`] was given.
#[must_use]
pub const fn join_of(replica: u64) -> u16 {
    (replica & 0xFFFF) as u16
}

/// The node of a replica's id; `None` for a number that [`replica_id`] does not give.
#[must_use]
pub fn node_of(replica: u64) -> Option<NodeId> {
    let node = u32::try_from(replica >> 16).ok()?;
    (replica & 0xFFFF != 0).then_some(NodeId(node))
}

/// What stands at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing; makes no block, but its position is persisted.
    Blank,
    /// A batch, as proposed.
    Batch(Bytes),
    /// A membership change, encoded by the engine; makes no block, but is persisted.
    Membership(Bytes),
}

/// One committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where it stands.
    pub position: Position,
    /// What it is.
    pub payload: Payload,
    /// What the engine has to find again beside the position, for an engine whose members follow from the
    /// state: kept in the place of a membership.
    pub note: Option<Bytes>,
}

/// What the applier has made part of its state, read back at start and after a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AppliedState {
    /// Position of the last applied entry.
    pub position: Option<Position>,
    /// Position and engine encoding of the last applied membership, or of the last entry's note.
    pub membership: Option<(Option<Position>, Vec<u8>)>,
}

/// What orders the entries of a group, as its state has it. While an engine is in force is its *stint*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The engine in force.
    pub engine: Engine,
    /// The last entry that the engine before it has ordered; none while a group has its first one.
    pub after: Option<Position>,
    /// What the first entry of the engine builds on, the same on all replicas: the hash of a header.
    pub anchor: Hash32,
}

impl Order {
    /// The stint's name: the index that it begins behind, 0 for the first. It only grows.
    #[must_use]
    pub fn stint(&self) -> u64 {
        self.after.map_or(0, |after| after.index)
    }
}

/// The applier failed in a way that stops its group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the group stopped: {0}")]
pub struct Fatal(pub String);

/// Why a snapshot folder does not become the state. The state is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// What it holds does not pass the checks; it never will.
    #[error("the snapshot is refused: {0}")]
    Refused(String),
    /// The medium failed while it was prepared.
    #[error("the snapshot could not be prepared: {0}")]
    Failed(String),
}

/// What another replica needs to read a snapshot that it is sent, and what never lies beside it: the key that its values
/// are sealed under, which is of that copy alone. Empty where nothing is sealed. Travels between members only, over
/// connections that hide it. Wiped when it is dropped; the messages that carry it are not.
#[derive(Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SnapshotSecret(pub Vec<u8>);

impl Drop for SnapshotSecret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl std::fmt::Debug for SnapshotSecret {
    fn fmt(&self, form: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        form.write_str("SnapshotSecret(hidden)")
    }
}

/// In which form a snapshot can be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Whether there is a copy of it for that; otherwise its own files are sent.
    pub copied: bool,
    /// What the receiver needs to read it.
    pub secret: SnapshotSecret,
}

/// Makes of snapshots what others may be sent, beside the commit loop, and as often as it is asked.
pub trait Packer: Send + Sync + 'static {
    /// Brings the snapshot in `dir` into the form in which it can be sent. Where its own files tell more than what is in them,
    /// or take a key that is for this replica alone, a copy is written into a new folder at `to`. Nothing is left there
    /// after an error.
    ///
    /// # Errors
    /// When the medium fails.
    fn pack(&self, dir: &Path, to: &Path) -> std::io::Result<Packed>;

    /// The hash of what is in the snapshot in `dir` that no root of its last header covers, the same on all replicas whose
    /// state is behind the same entry: what a replica has found out by itself does not count. Reads all of that. Zero where
    /// headers cover everything.
    ///
    /// # Errors
    /// When the snapshot cannot be read.
    fn uncovered(&self, dir: &Path) -> std::io::Result<Hash32> {
        let _ = dir;
        Ok(Hash32::ZERO)
    }
}

/// Sends snapshots as they are.
pub struct AsTheyAre;

impl Packer for AsTheyAre {
    fn pack(&self, _: &Path, _: &Path) -> std::io::Result<Packed> {
        Ok(Packed::default())
    }
}

/// Where a snapshot comes from that another replica has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who sent it.
    pub node: NodeId,
    /// What came with it.
    pub secret: SnapshotSecret,
}

/// A snapshot that was copied and passed the applier's own checks: what it says of itself, for others to confirm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it contains.
    pub applied: AppliedState,
    /// What orders the entries behind it.
    pub order: Order,
    /// Hash of its last header.
    pub header: Hash32,
    /// The committee that signs this header. This replica's own chain leads to it, over certified changes.
    pub signers: Committee,
    /// The committee in force behind it, which the header names.
    pub committee: Committee,
    /// Whether the certificate of the last header, by those who sign it, has come with it: then it is certain who is in force.
    pub certified: bool,
    /// The hash of what is in it that no root of this header covers, by [`Packer::uncovered`].
    pub uncovered: Hash32,
}

/// A snapshot on disk: a folder with the files of a database checkpoint, whose applied state was
/// read from inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDir {
    /// The folder; its owner deletes it when no reader needs it any more.
    pub path: PathBuf,
    /// What the checkpoint contains.
    pub applied: AppliedState,
}

/// The commit loop of a group, driven by its engine. Calls are synchronous and never concurrent.
pub trait Applier: Send + 'static {
    /// What is in state.
    fn applied(&self) -> AppliedState;

    /// Applies entries in order: one block and one atomic write for each batch. When this returns,
    /// reads show them; whether they are durable is the engine's log's business.
    ///
    /// An entry that is not ordered by the engine in force is void: it leaves no trace, and the position stays before
    /// it.
    ///
    /// # Errors
    /// [`Fatal`] stops the group.
    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), Fatal>;

    /// Writes a checkpoint of the state into a new folder at `dir` (which must not exist). It is
    /// durable when this returns, so the log up to its position may be purged.
    ///
    /// # Errors
    /// [`Fatal`] when the medium fails.
    fn checkpoint(&mut self, dir: &Path) -> Result<SnapshotDir, Fatal>;

    /// Reads what a received snapshot folder claims to contain, checking that it is of this group.
    ///
    /// # Errors
    /// [`Fatal`] when it is of another cluster or group, or damaged.
    fn inspect(&self, dir: &Path) -> Result<AppliedState, Fatal>;

    /// The committee that the state has in force: the members of an engine that has no membership of its own.
    ///
    /// # Errors
    /// [`Fatal`] when the state cannot be read.
    fn committee(&self) -> Result<Option<Committee>, Fatal> {
        Ok(None)
    }

    /// What orders the entries by the state as it is now; `None` where the state does not know. Asked after every
    /// call, so it is to cost nothing.
    fn order(&self) -> Option<Order> {
        None
    }

    /// Hash of the state's last header; `None` for a state without headers. Asked after every entry, so it is to cost
    /// nothing.
    fn header(&self) -> Option<Hash32> {
        None
    }

    /// The entries of [`Applier::apply`] are ordered by this engine from now on.
    fn ordered_by(&mut self, _engine: Engine) {}

    /// What makes of this replica's snapshots what others may be sent.
    fn packer(&self) -> Arc<dyn Packer> {
        Arc::new(AsTheyAre)
    }

    /// Copies and checks the snapshot in `dir` completely, so that [`Applier::install`] has only to
    /// switch to it. `from` is where it comes from; `None` for a snapshot of this replica's own. The
    /// state does not change, and the folder stays as it is.
    ///
    /// # Errors
    /// [`SnapshotError`] when it must not become the state.
    fn prepare(&mut self, dir: &Path, from: Option<Origin>) -> Result<Candidate, SnapshotError>;

    /// What was prepared last does not become the state. Where its sender has lied, `lie` names it and says how that
    /// was found, for people to hear of it.
    ///
    /// # Errors
    /// [`Fatal`] when nobody can be told any more.
    fn discard(&mut self, _lie: Option<(NodeId, String)>) -> Result<(), Fatal> {
        Ok(())
    }

    /// Replaces the state by the snapshot in `dir`, atomically. One that was not prepared is checked
    /// first, as the replica's own. The folder is not needed any more afterwards.
    ///
    /// # Errors
    /// [`Fatal`] when it does not verify or the medium fails; a snapshot that does not verify leaves
    /// the state in place.
    fn install(&mut self, dir: &Path) -> Result<AppliedState, Fatal>;
}

/// What this replica is in its group at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleView {
    /// Whether this replica leads and may propose.
    pub leads: bool,
    /// The leader's node, as far as known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// The stint of the engine, by [`Order::stint`].
    pub stint: u64,
    /// Index of the last log entry this replica has.
    pub last_log_index: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Voters, by node.
    pub voters: Vec<NodeId>,
    /// Learners, by node. A replica that is among its own follows without a vote. Under the Byzantine engine that is all
    /// that is known, whether it has a seat or not: one that is not among its own votes as soon as a committee names it.
    pub learners: Vec<NodeId>,
    /// On the leader: the last log index known to be on each other replica, for lag reports.
    pub replicated: Vec<(NodeId, u64)>,
    /// Set when the replica has stopped after a failure.
    pub stopped: Option<String>,
}

impl RoleView {
    /// Who takes over from a leader that has to go: of the voters that may (`stays`), the one with the longest log; of
    /// several, the first one behind the leader.
    #[must_use]
    pub fn heir(&self, stays: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let reached = |node: &NodeId| self.replicated.iter().find(|(other, _)| other == node).map(|(_, upto)| *upto);
        let behind = self.voters.iter().position(|node| Some(*node) == self.leader).map_or(0, |leader| leader + 1);
        let (first, last) = self.voters.split_at(behind);
        let order = last.iter().chain(first).copied().filter(|node| stays(*node));
        // Of several that are greatest, `max_by_key` names the last one.
        order.rev().max_by_key(reached)
    }
}

/// Why a proposal or another request to the engine did not go through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequencerError {
    /// Another replica leads; its node is named if known. The proposal did not enter the log.
    #[error("this replica does not lead its group")]
    NotLeader(Option<NodeId>),
    /// The proposal was in flight when leadership or a quorum was lost: it may or may not commit.
    #[error("the proposal's fate is not known: {0}")]
    Unknown(String),
    /// The replica has stopped.
    #[error("the group stopped on this node: {0}")]
    Stopped(String),
    /// A membership change that cannot be made now.
    #[error("the change is refused: {0}")]
    Refused(String),
}

/// Times that the engine goes by, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between heartbeats.
    pub heartbeat_ms: u64,
    /// Lower bound of the randomised election time-out.
    pub election_min_ms: u64,
    /// Upper bound of it.
    pub election_max_ms: u64,
}

impl Timing {
    /// Fits a loopback cluster on a busy machine: fail-over well under two seconds.
    pub const DEFAULT: Self = Self { heartbeat_ms: 100, election_min_ms: 500, election_max_ms: 900 };
}

/// A stamp that a leader gives an entry; the machine uses `max(stamp, previous + 1)`.
pub type Stamp = TimeMs;
