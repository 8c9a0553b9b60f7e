//! The key-value port: what a group's state needs from a database, and nothing more.
//!
//! Owns: the traits and the batch type. Never does: IO. Implemented by `rocks::StateDb`,
//! [`crate::MemKv`], [`crate::FaultyKv`] and [`crate::SealedKv`]; one conformance suite covers all.
//!
//! The durability contract, which the commit loop leans on: a batch is atomic; batches become
//! durable in the order they were written; [`Kv::flush`] makes all earlier ones durable. After a
//! crash the database holds a prefix of the batches, at least up to the last completed flush.

use std::path::Path;

use bytes::Bytes;

use crate::StorageError;

/// An ordered, synchronous key-value database.
pub trait Kv: Send + Sync {
    /// The value of one key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// The values of many keys, in the order of the keys; from one point in time.
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError>;

    /// The first `limit` pairs of a range, in key order.
    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError>;

    /// As [`Kv::scan`], for whoever goes through a database once: what it reads takes no place in a cache from what others
    /// read again and again.
    fn sweep(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        self.scan(range, limit)
    }

    /// Applies a batch atomically. Visible at once, durable after the next [`Kv::flush`] at the latest.
    fn write(&self, batch: WriteBatch) -> Result<(), StorageError>;

    /// Makes everything written so far durable before it returns.
    fn flush(&self) -> Result<(), StorageError>;

    /// Writes a complete, durable copy of the present content into the new folder `dir`.
    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError>;

    /// Reads from this moment's content, whatever is written meanwhile.
    fn snapshot_view(&self) -> Box<dyn KvView + '_>;

    /// Estimated bytes that the keys of a range take on the disk, what was removed of it and still lies there included.
    /// Nothing where nothing lies on a disk.
    fn disk_bytes(&self, range: &KeyRange) -> Result<u64, StorageError> {
        let _ = range;
        Ok(0)
    }

    /// Bytes of the files that [`Kv::compact`] would read, and at most write anew, for a range: more than those that it lies in,
    /// where some were not compacted yet.
    fn compacted_bytes(&self, range: &KeyRange) -> Result<u64, StorageError> {
        let _ = range;
        Ok(0)
    }

    /// Whether nothing is compacted in the background, until [`Kv::wake`].
    fn is_quiet(&self) -> bool {
        false
    }

    /// Lets go of table files that lie in one of these ranges as a whole, unread, where there is nothing in it but what was removed.
    /// Nobody may write there at the same time. Does so only while the database is quiet ([`Kv::is_quiet`]), and leaves ranges alone
    /// that are not empty, or have no end.
    fn drop_files(&self, ranges: &[KeyRange]) -> Result<(), StorageError> {
        let _ = ranges;
        Ok(())
    }

    /// Lets a database that was opened without it compact in the background.
    fn wake(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Gives the space back that removed keys of a range still take. May take long; others read and write meanwhile.
    fn compact(&self, range: &KeyRange) -> Result<(), StorageError> {
        let _ = range;
        Ok(())
    }

    /// Gives up what is compacted just then, and compacts nothing any more: for a database that is about to be closed, so that
    /// nobody waits for that. It can still be read, and nothing of it becomes durable any more.
    fn give_up(&self) {}
}

/// A consistent view of one moment.
pub trait KvView: Send {
    /// The value of one key at that moment.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// The first `limit` pairs of a range at that moment, in key order.
    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError>;

    /// As [`Kv::sweep`], of that moment.
    fn sweep(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        self.scan(range, limit)
    }
}

/// Implementations that can lose power on demand; for simulators and tests.
pub trait Crash: Kv {
    /// Batches that were written since the last effective flush.
    fn unflushed(&self) -> usize;

    /// Loses what was not flushed, except for the first `keep` unflushed batches.
    fn crash(&self, keep: usize);
}

/// Keys from `start` (inclusive) to `end` (exclusive; `None` is unbounded).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// First key of the range.
    pub start: Bytes,
    /// First key behind the range.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    /// Keys in `start..end`.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Keys from `start` on.
    pub fn from(start: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: None }
    }

    /// Keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let kept = prefix.iter().rposition(|&byte| byte != u8::MAX);
        let end = kept.map(|at| {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1; // not 0xff, by the choice of `at`
            Bytes::from(end)
        });
        Self { start: Bytes::copy_from_slice(prefix), end }
    }

    /// Keys that begin with `prefix`, from `from` on.
    pub fn prefix_from(prefix: &[u8], from: &[u8]) -> Self {
        Self { start: Bytes::copy_from_slice(prefix.max(from)), ..Self::prefix(prefix) }
    }

    /// Whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOp {
    /// Sets a value.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key; removing an absent key is allowed.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Removes the keys in `start..end`; an empty range does nothing.
    DeleteRange {
        /// First key to go.
        start: Bytes,
        /// First key that stays.
        end: Bytes,
    },
}

/// Changes that become visible and durable together, applied in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    ops: Vec<WriteOp>,
    bytes: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `ops` changes.
    pub fn with_capacity(ops: usize) -> Self {
        Self { ops: Vec::with_capacity(ops), bytes: 0 }
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(WriteOp::Put { key: key.into(), value: value.into() });
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.push(WriteOp::Delete { key: key.into() });
    }

    /// Removes the keys in `start..end`.
    pub fn delete_range(&mut self, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        self.push(WriteOp::DeleteRange { start: start.into(), end: end.into() });
    }

    /// Adds one change.
    pub fn push(&mut self, op: WriteOp) {
        self.bytes += match &op {
            WriteOp::Put { key, value } => key.len() + value.len(),
            WriteOp::Delete { key } => key.len(),
            WriteOp::DeleteRange { start, end } => start.len() + end.len(),
        };
        self.ops.push(op);
    }

    /// Moves all changes of `other` behind the ones of this batch.
    pub fn append(&mut self, mut other: WriteBatch) {
        self.ops.append(&mut other.ops);
        self.bytes += other.bytes;
    }

    /// The changes in order.
    pub fn ops(&self) -> &[WriteOp] {
        &self.ops
    }

    /// The changes in order, by value.
    pub fn into_ops(self) -> Vec<WriteOp> {
        self.ops
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether the batch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Sum of the lengths of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_range_covers_exactly_the_prefix() {
        let table: [(&[u8], Option<&[u8]>); 5] =
            [(b"", None), (b"a", Some(b"b")), (b"a\xff", Some(b"b")), (b"\xff\xff", None), (b"a\x00", Some(b"a\x01"))];
        for (prefix, end) in table {
            let range = KeyRange::prefix(prefix);
            assert_eq!(range.end.as_deref(), end);
            assert!(range.contains(prefix));
            assert!(range.contains(&[prefix, b"\xff\xff"].concat()));
        }
        assert!(!KeyRange::prefix(b"a").contains(b"b"));
        assert!(KeyRange::new("b", "b").is_empty() && KeyRange::new("c", "b").is_empty());
    }

    #[test]
    fn a_batch_counts_its_bytes() {
        let mut batch = WriteBatch::with_capacity(2);
        batch.put("ab", "cde");
        batch.delete("f");
        let mut more = WriteBatch::new();
        more.delete_range("a", "bb");
        batch.append(more);
        assert_eq!((batch.len(), batch.bytes()), (3, 9));
    }
}
