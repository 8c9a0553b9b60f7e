//! The log port: one group's raft log as consensus sees it.
//!
//! Owns: the contract. Never does: IO. Implemented by `GroupLog` (RocksDB) and [`crate::MemLog`];
//! one conformance suite covers both.
//!
//! The contract: changes take effect for readers when the call returns, become durable in the order
//! of the calls, and `done` runs once the change is durable or has failed. After a failed write
//! every later call fails (fail-stop). `done` may run on the caller's thread or on the writer's; it
//! must be short and must not wait for another change.

use std::ops::Range;

use bytes::Bytes;

use crate::StorageError;

/// Runs exactly once, when a change is durable or can no longer become so.
///
/// A completion that is dropped without being run (a crash) means the change's fate is unknown.
pub type Completion = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// The raft log of one group.
pub trait LogStore: Send + Sync {
    /// Appends entries with contiguous indexes. The first one follows the last entry, or the purged
    /// index if there is no entry; a log without both may begin anywhere. Readable when the call returns.
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Completion);

    /// Replaces the hard state (term and vote).
    fn save_vote(&self, vote: Bytes, done: Completion);

    /// Notes how far the log is committed. Costs no fsync of its own: becomes durable with the next
    /// other change, never before the changes that were made earlier.
    fn save_committed(&self, committed: Bytes) -> Result<(), StorageError>;

    /// The last hard state.
    fn read_vote(&self) -> Result<Option<Bytes>, StorageError>;

    /// The last committed mark.
    fn read_committed(&self) -> Result<Option<Bytes>, StorageError>;

    /// Removes all entries behind `last_kept`; `None` removes all.
    fn truncate_after(&self, last_kept: Option<u64>, done: Completion);

    /// Removes all entries up to `index` (included) and remembers `marker` for it. `index` may lie
    /// beyond the last entry (after a snapshot was installed; the log is then empty), but not before
    /// an earlier purge, and it may not leave a hole before the first entry.
    fn purge_upto(&self, index: u64, marker: Bytes, done: Completion);

    /// Entries of `range` in order, clipped to what is there; stops before the payloads exceed
    /// `bytes_max`, but returns at least one entry if there is one.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageError>;

    /// Index of the first entry.
    fn first_index(&self) -> Result<Option<u64>, StorageError>;

    /// The last entry.
    fn last(&self) -> Result<Option<(u64, Bytes)>, StorageError>;

    /// The marker of the last purge.
    fn purged(&self) -> Result<Option<Bytes>, StorageError>;

    /// The index of the last purge.
    fn purged_index(&self) -> Result<Option<u64>, StorageError>;
}
