//! The view a machine works on: reads from a base, writes to an overlay, with one level of
//! roll-back for a transaction that turns out to be refused.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use hashbrown::HashMap;

use crate::checked::Checked;

/// Committed state, as the host's database or a simulator's map shows it.
pub trait StateReader {
    /// The value of a key.
    ///
    /// # Errors
    /// [`ReadFault`] when the medium fails; the group then stops before anything is written.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault>;

    /// The entries under a prefix, in order. Only for small, bounded families such as streams.
    ///
    /// # Errors
    /// As [`StateReader::get`].
    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadFault>;

    /// The first entries at or after `from` that start with `prefix`, in order, at most `limit`.
    ///
    /// # Errors
    /// As [`StateReader::get`].
    fn scan_from(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ReadFault>;

    /// Certificates that the reader of this state has found to hold already. No state: what a machine does depends on
    /// it in nothing but time.
    fn checked(&self) -> Option<&Checked> {
        None
    }
}

/// Committed state beside a memory of certificates that hold.
pub struct Knowing<'a> {
    base: &'a dyn StateReader,
    checked: &'a Checked,
}

impl<'a> Knowing<'a> {
    /// The state of `base`, for a machine that asks `checked` before it checks a certificate.
    #[must_use]
    pub fn new(base: &'a dyn StateReader, checked: &'a Checked) -> Self {
        Self { base, checked }
    }
}

impl StateReader for Knowing<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        self.base.get(key)
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        self.base.scan_prefix(prefix)
    }

    fn scan_from(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        self.base.scan_from(prefix, from, limit)
    }

    fn checked(&self) -> Option<&Checked> {
        Some(self.checked)
    }
}

/// The medium failed or holds bytes that cannot be ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state cannot be read: {0}")]
pub struct ReadFault(pub String);

/// Reads and buffered writes of one block.
pub struct View<'a> {
    base: &'a dyn StateReader,
    writes: HashMap<Vec<u8>, Option<Bytes>>,
    undo: Vec<(Vec<u8>, Option<Option<Bytes>>)>,
    fault: Option<ReadFault>,
}

impl<'a> View<'a> {
    /// A view without writes.
    #[must_use]
    pub fn new(base: &'a dyn StateReader) -> Self {
        Self { base, writes: HashMap::new(), undo: Vec::new(), fault: None }
    }

    /// The value of a key. After a fault everything is absent, and the block is never persisted.
    pub fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        if let Some(written) = self.writes.get(key) {
            return written.clone();
        }
        match self.base.get(key) {
            Ok(value) => value,
            Err(fault) => {
                self.fault.get_or_insert(fault);
                None
            }
        }
    }

    /// Certificates that need no check any more, where the reader of the state remembers any.
    #[must_use]
    pub fn checked(&self) -> Option<&'a Checked> {
        self.base.checked()
    }

    /// The decoded value of a key.
    pub fn load<T: BorshDeserialize>(&mut self, key: &[u8]) -> Option<T> {
        let bytes = self.get(key)?;
        match borsh::from_slice(&bytes) {
            Ok(value) => Some(value),
            Err(error) => {
                let fault = ReadFault(format!("the value of key {} does not decode: {error}", hex::encode(key)));
                self.fault.get_or_insert(fault);
                None
            }
        }
    }

    /// Entries under a prefix, writes included, in order.
    pub fn scan_prefix(&mut self, prefix: &[u8]) -> Vec<(Vec<u8>, Bytes)> {
        let mut entries: BTreeMap<Vec<u8>, Bytes> = match self.base.scan_prefix(prefix) {
            Ok(found) => found.into_iter().map(|(key, value)| (key.to_vec(), value)).collect(),
            Err(fault) => {
                self.fault.get_or_insert(fault);
                BTreeMap::new()
            }
        };
        for (key, value) in &self.writes {
            if key.starts_with(prefix) {
                match value {
                    Some(value) => entries.insert(key.clone(), value.clone()),
                    None => entries.remove(key),
                };
            }
        }
        entries.into_iter().collect()
    }

    /// The first keys at or after `from` under a prefix, writes included, in order, at most `limit`.
    pub fn first_keys(&mut self, prefix: &[u8], from: &[u8], limit: usize) -> Vec<Vec<u8>> {
        let written: BTreeMap<&[u8], bool> = self
            .writes
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && key.as_slice() >= from)
            .map(|(key, value)| (key.as_slice(), value.is_some()))
            .collect();
        // Of what the base has, as many may have been deleted since as there are deletions.
        let deleted = written.values().filter(|there| !**there).count();
        let found = match self.base.scan_from(prefix, from, limit + deleted) {
            Ok(found) => found,
            Err(fault) => {
                self.fault.get_or_insert(fault);
                Vec::new()
            }
        };
        let mut keys: std::collections::BTreeSet<Vec<u8>> = found
            .into_iter()
            .map(|(key, _)| key.to_vec())
            .filter(|key| written.get(key.as_slice()) != Some(&false))
            .collect();
        keys.extend(written.iter().filter(|(_, there)| **there).map(|(key, _)| key.to_vec()));
        keys.into_iter().take(limit).collect()
    }

    /// The keys under a prefix that were written, in order, and whether each of them is there.
    #[must_use]
    pub fn written(&self, prefix: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let written = self.writes.iter().filter(|(key, _)| key.starts_with(prefix));
        let mut keys: Vec<(Vec<u8>, bool)> = written.map(|(key, value)| (key.clone(), value.is_some())).collect();
        keys.sort_unstable();
        keys
    }

    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.set(key, Some(value.into()));
    }

    /// Sets a key to an encoded value.
    pub fn store<T: BorshSerialize>(&mut self, key: Vec<u8>, value: &T) {
        self.put(key, borsh::to_vec(value).expect("writing to memory does not fail"));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.set(key, None);
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        let before = self.writes.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    /// Marks the point that [`View::rollback`] returns to.
    pub fn begin(&mut self) {
        self.undo.clear();
    }

    /// Takes back everything since [`View::begin`].
    pub fn rollback(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(value) => self.writes.insert(key, value),
                None => self.writes.remove(&key),
            };
        }
    }

    /// The first fault of the medium, if there was one.
    #[must_use]
    pub fn fault(&self) -> Option<&ReadFault> {
        self.fault.as_ref()
    }

    /// The writes, sorted by key, or the fault that forbids them.
    ///
    /// # Errors
    /// The first [`ReadFault`] met.
    pub fn into_writes(self) -> Result<Vec<(Vec<u8>, Option<Bytes>)>, ReadFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut writes: Vec<_> = self.writes.into_iter().collect();
        writes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(writes)
    }
}

impl StateReader for BTreeMap<Vec<u8>, Bytes> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        Ok(self
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (Bytes::copy_from_slice(key), value.clone()))
            .collect())
    }

    fn scan_from(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        Ok(self
            .range(prefix.max(from).to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (Bytes::copy_from_slice(key), value.clone()))
            .collect())
    }
}
