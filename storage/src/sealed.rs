//! A key-value database whose values pass through a [`ValueCipher`].
//!
//! Owns: the wrapping of reads and writes. Never does: touch keys or order. `rocks::StateDb` seals
//! its values itself; this wrapper gives memory and faulty databases the same property, so that the
//! simulator can flip a byte and see it found.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::StorageError;
use crate::cipher::ValueCipher;
use crate::kv::{Crash, KeyRange, Kv, KvView, WriteBatch, WriteOp};

/// `K` with sealed values; `name` is the path shown in errors.
pub struct SealedKv<K> {
    inner: K,
    cipher: Arc<dyn ValueCipher>,
    name: PathBuf,
}

impl<K: Kv> SealedKv<K> {
    /// Wraps `inner`.
    pub fn new(inner: K, cipher: Arc<dyn ValueCipher>, name: impl Into<PathBuf>) -> Self {
        Self { inner, cipher, name: name.into() }
    }

    /// The wrapped database.
    pub fn inner(&self) -> &K {
        &self.inner
    }
}

/// Opens one value, naming `path` if it is damaged.
pub(crate) fn open_value(
    cipher: &dyn ValueCipher,
    path: &Path,
    key: &[u8],
    sealed: Bytes,
) -> Result<Bytes, StorageError> {
    cipher.open(key, sealed).map_err(|damaged| StorageError::corrupt(path, damaged.0))
}

fn open_pairs(
    cipher: &dyn ValueCipher,
    path: &Path,
    pairs: Vec<(Bytes, Bytes)>,
) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
    pairs.into_iter().map(|(key, sealed)| open_value(cipher, path, &key, sealed).map(|value| (key, value))).collect()
}

impl<K: Kv> Kv for SealedKv<K> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let sealed = self.inner.get(key)?;
        sealed.map(|sealed| open_value(&*self.cipher, &self.name, key, sealed)).transpose()
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let sealed = self.inner.multi_get(keys)?;
        keys.iter()
            .zip(sealed)
            .map(|(key, sealed)| sealed.map(|sealed| open_value(&*self.cipher, &self.name, key, sealed)).transpose())
            .collect()
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        open_pairs(&*self.cipher, &self.name, self.inner.scan(range, limit)?)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut sealed = WriteBatch::with_capacity(batch.len());
        for op in batch.into_ops() {
            sealed.push(match op {
                WriteOp::Put { key, value } => {
                    let changed = match self.cipher.seal(&key, &value) {
                        Cow::Owned(sealed) => Some(Bytes::from(sealed)),
                        Cow::Borrowed(_) => None,
                    };
                    WriteOp::Put { key, value: changed.unwrap_or(value) }
                }
                op @ (WriteOp::Delete { .. } | WriteOp::DeleteRange { .. }) => op,
            });
        }
        self.inner.write(sealed)
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.inner.flush()
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        self.inner.checkpoint(dir)
    }

    fn snapshot_view(&self) -> Box<dyn KvView + '_> {
        Box::new(SealedView { inner: self.inner.snapshot_view(), cipher: &*self.cipher, name: &self.name })
    }

    fn disk_bytes(&self, range: &KeyRange) -> Result<u64, StorageError> {
        self.inner.disk_bytes(range)
    }

    fn compacted_bytes(&self, range: &KeyRange) -> Result<u64, StorageError> {
        self.inner.compacted_bytes(range)
    }

    fn is_quiet(&self) -> bool {
        self.inner.is_quiet()
    }

    fn drop_files(&self, ranges: &[KeyRange]) -> Result<(), StorageError> {
        self.inner.drop_files(ranges)
    }

    fn wake(&self) -> Result<(), StorageError> {
        self.inner.wake()
    }

    fn compact(&self, range: &KeyRange) -> Result<(), StorageError> {
        self.inner.compact(range)
    }

    fn give_up(&self) {
        self.inner.give_up();
    }
}

impl<K: Crash> Crash for SealedKv<K> {
    fn unflushed(&self) -> usize {
        self.inner.unflushed()
    }

    fn crash(&self, keep: usize) {
        self.inner.crash(keep);
    }
}

struct SealedView<'a> {
    inner: Box<dyn KvView + 'a>,
    cipher: &'a dyn ValueCipher,
    name: &'a Path,
}

impl KvView for SealedView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let sealed = self.inner.get(key)?;
        sealed.map(|sealed| open_value(self.cipher, self.name, key, sealed)).transpose()
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        open_pairs(self.cipher, self.name, self.inner.scan(range, limit)?)
    }
}
