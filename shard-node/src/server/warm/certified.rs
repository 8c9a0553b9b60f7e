//! The certificates of a parent on their way into copies of it: no block writes them, and some come late.
//!
//! Each is taken once. Those of the last thousand blocks are more than what a shard under load writes in a second, and at the
//! seal payers wait until all that was taken is durable.

use std::collections::BTreeSet;

use ledger::ids::Height;
use ledger::schema;
use ledger::view::{ReadFault, StateReader};

use super::copy::height;
use crate::core::follow::Writes;

/// Certificates of so many blocks before the last one that was looked at may have come since.
const LATE: u64 = 1024;

/// What of the certificates of one parent is in the copies.
pub(super) struct Certificates {
    /// The parent's last block when they were looked at last.
    looked_at: Height,
    /// Keys of those that are in the copies, as far back as one may still come.
    taken: BTreeSet<Vec<u8>>,
}

impl Certificates {
    /// Of copies that were made at a block, with whatever was there by then.
    pub(super) fn at(made_at: Height) -> Self {
        Self { looked_at: made_at, taken: BTreeSet::new() }
    }

    /// Those that have come since the last time, to be written into the copies.
    ///
    /// # Errors
    /// [`ReadFault`] when the parent's state cannot be read; the copies are worth nothing then.
    pub(super) fn fresh(&mut self, parent: &dyn StateReader) -> Result<Writes, ReadFault> {
        let from = schema::certificate(Height(self.looked_at.0.saturating_sub(LATE)));
        self.taken = self.taken.split_off(&from);
        let found = parent.scan_from(&[schema::CERTIFICATE], &from, usize::MAX)?;
        self.looked_at = height(parent)?;
        let found = found.into_iter().map(|(key, value)| (key.to_vec(), Some(value)));
        Ok(found.filter(|(key, _)| self.taken.insert(key.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use ledger::hash::Hash32;
    use ledger::ids::TimeMs;

    use super::*;
    use crate::core::applied::AppliedRecord;

    /// A parent that has certificates of some blocks, and its last block.
    struct Parent(BTreeMap<Vec<u8>, Bytes>);

    impl Parent {
        fn stands_at(&mut self, height: u64) {
            let applied = AppliedRecord {
                version: 1,
                consensus: Default::default(),
                height: Height(height),
                header_hash: Hash32::ZERO,
                time_ms: TimeMs(1),
                state_root: Hash32::ZERO,
            };
            let bytes = borsh::to_vec(&applied).expect("writing to memory does not fail");
            self.0.insert(schema::applied(), bytes.into());
        }

        fn certified(&mut self, heights: impl IntoIterator<Item = u64>) {
            let keys = heights.into_iter().map(|height| schema::certificate(Height(height)));
            self.0.extend(keys.map(|key| (key, Bytes::from_static(b"certificate"))));
        }
    }

    impl StateReader for Parent {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
            Ok(self.0.get(key).cloned())
        }

        fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
            self.scan_from(prefix, prefix, usize::MAX)
        }

        fn scan_from(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
            let behind = self.0.range(from.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
            Ok(behind.take(limit).map(|(key, value)| (Bytes::from(key.clone()), value.clone())).collect())
        }
    }

    #[test]
    fn certificates_are_taken_once_each_and_also_those_that_come_late() {
        let mut parent = Parent(BTreeMap::new());
        parent.stands_at(3_000);
        parent.certified((1..=2_990).filter(|height| *height != 2_500));
        let mut certificates = Certificates::at(Height(2_900));
        let mut fresh = |parent: &Parent| -> Vec<Vec<u8>> {
            let writes = certificates.fresh(parent).expect("memory can be read");
            writes.into_iter().map(|(key, _)| key).collect()
        };
        let keys = |heights: &[u64]| -> Vec<Vec<u8>> {
            heights.iter().map(|height| schema::certificate(Height(*height))).collect()
        };
        let first = fresh(&parent);
        assert_eq!((first.len(), &first[..1]), (1_114, &keys(&[1_876])[..]), "what may have come since");
        assert!(fresh(&parent).is_empty());
        // A late one, and those of blocks that were just made.
        parent.certified([2_500, 2_991, 3_001]);
        parent.stands_at(3_001);
        assert_eq!(fresh(&parent), keys(&[2_500, 2_991, 3_001]));
        parent.stands_at(5_000);
        assert!(fresh(&parent).is_empty());
        // Further back nobody looks any more.
        parent.certified([2_600, 3_976, 5_000]);
        assert_eq!(fresh(&parent), keys(&[3_976, 5_000]));
    }
}
