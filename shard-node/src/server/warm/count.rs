//! What a parent has of each asset under the prefix of a copy, counted once and then change by change, so that at the seal
//! nothing is left to count.

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger::ids::ClusterId;
use ledger::layout::BitPrefix;
use ledger::schema;
use storage::{KeyRange, Kv};

use super::copy::CopyError;
use crate::core::tally::{ChildTally, Tally};

/// A running count of one parent's part.
pub struct Count {
    cluster: ClusterId,
    prefix: BitPrefix,
    tally: Tally,
    /// Records of transactions that count at the moment. Of two parents both may have one under the same key, and the copy
    /// keeps one of them.
    open: BTreeMap<Vec<u8>, Bytes>,
}

impl Count {
    /// Of nothing yet.
    #[must_use]
    pub fn new(cluster: ClusterId, prefix: BitPrefix) -> Self {
        Self { cluster, prefix, tally: Tally::new(cluster, prefix), open: BTreeMap::new() }
    }

    /// The keys of the state tree that count.
    #[must_use]
    pub fn leaves(&self) -> KeyRange {
        under(schema::STATE, self.prefix)
    }

    /// Takes a pair that the parent has when the count begins.
    ///
    /// # Errors
    /// [`CopyError::Tally`].
    pub fn pair(&mut self, key: &[u8], value: &Bytes) -> Result<(), CopyError> {
        match key.first() {
            Some(&schema::STATE) => Ok(self.tally.change(key, None, Some(&value[..]))?),
            Some(&schema::PREPARED) => self.record(key, Some(value)),
            _ => Ok(()),
        }
    }

    /// Takes what a block has written, before the copy does.
    ///
    /// # Errors
    /// [`CopyError`] when the copy cannot be read, or does not hold what was counted.
    pub fn block(&mut self, copy: &dyn Kv, writes: &[(Vec<u8>, Option<Bytes>)]) -> Result<(), CopyError> {
        let own = self.leaves();
        for (key, value) in writes {
            match key.first() {
                Some(&schema::STATE) if own.contains(key) => {
                    let before = copy.get(key)?;
                    self.tally.change(key, before.as_deref(), value.as_deref())?;
                }
                Some(&schema::PREPARED) => self.record(key, value.as_ref())?,
                _ => {}
            }
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: Option<&Bytes>) -> Result<(), CopyError> {
        let before = self.open.remove(key);
        self.tally.change(key, before.as_deref(), value.map(|value| &value[..]))?;
        if let Some(value) = value {
            let alone = Tally::of(self.cluster, self.prefix, [(key, value)])?;
            if !alone.counted().sync_debits.is_empty() {
                self.open.insert(key.to_vec(), value.clone());
            }
        }
        Ok(())
    }

    /// What was counted.
    #[must_use]
    pub fn counted(&self) -> ChildTally {
        self.tally.counted()
    }
}

/// The keys of a name space that belong to accounts under a prefix.
#[must_use]
pub fn under(space: u8, prefix: BitPrefix) -> KeyRange {
    let at = |bits: u64| [&[space], &bits.to_be_bytes()[..]].concat();
    let width = 1u64.checked_shl(64u32.saturating_sub(u32::from(prefix.length)));
    match width.and_then(|width| prefix.bits.checked_add(width)) {
        Some(end) => KeyRange::new(at(prefix.bits), at(end)),
        None => KeyRange::new(at(prefix.bits), vec![space + 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_under_a_prefix_are_those_that_it_covers() {
        let halves = [false, true].map(|one| BitPrefix::ALL.child(one));
        for prefix in [BitPrefix::ALL, halves[0], halves[1], halves[1].child(true), halves[0].child(true)] {
            for first in 0..=u8::MAX {
                let mut partition = [0xff; 32];
                partition[0] = first;
                let key = [&[schema::STATE], &partition[..], &[schema::KIND_ACCOUNT]].concat();
                assert_eq!(under(schema::STATE, prefix).contains(&key), prefix.covers(&partition), "{prefix} {first}");
                assert!(!under(schema::HISTORY, prefix).contains(&key));
            }
        }
    }
}
