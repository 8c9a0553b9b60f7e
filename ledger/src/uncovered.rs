//! What no root of a header covers, in one hash.
//!
//! A header commits to the state tree, to receipts and commands of its block, and to the heads of streams. Everything
//! else that a group keeps follows from its chain, and nobody can see that it does who has not executed the chain
//! ([ADR 3](../docs/adr/0003-what-the-state-root-covers.md)). Members of a group that have executed it have the same rows,
//! so a hash of all of them, in the order of their keys, is the same on all that stand behind the same entry. A member
//! that takes another one's state compares it with theirs
//! ([ADR 33](../docs/adr/0033-members-tell-what-no-header-covers.md)).
//!
//! Owns which rows count and how they are hashed. Never reads a database.

use sha2::{Digest, Sha256};

use crate::hash::Hash32;
use crate::schema::{ARCHIVE, CERTIFICATE, META, NODE, STATE, applied};

/// What stands before the rows.
const TAG: &[u8] = b"seamark/uncovered/v1";
/// Name space and group of an inherited key, which follows them.
const ARCHIVED_HEAD_BYTES: usize = 1 + 8;

/// Whether the row of a key counts. These do not:
///
/// - leaves of the state tree, which the state root covers;
/// - certificates, inherited ones among them, and marks, which each node has its own of;
/// - the applied position, which members compare by itself: it moves with entries that make no block, too.
#[must_use]
pub fn is_uncovered(key: &[u8]) -> bool {
    match key.first() {
        None | Some(&(STATE | CERTIFICATE | NODE)) => false,
        Some(&META) => key != applied(),
        Some(&ARCHIVE) => key.get(ARCHIVED_HEAD_BYTES) != Some(&CERTIFICATE),
        Some(_) => true,
    }
}

/// Hashes rows:
/// `sha256("seamark/uncovered/v1" ‖ for each row: key length(8) ‖ key ‖ value length(8) ‖ value)`, lengths little endian.
pub struct UncoveredHasher(Sha256);

impl Default for UncoveredHasher {
    fn default() -> Self {
        let mut hasher = Sha256::new();
        hasher.update(TAG);
        Self(hasher)
    }
}

impl UncoveredHasher {
    /// Adds a row if it counts. All rows of a state are to be added, in the order of their keys.
    pub fn row(&mut self, key: &[u8], value: &[u8]) {
        if is_uncovered(key) {
            for part in [key, value] {
                self.0.update((part.len() as u64).to_le_bytes());
                self.0.update(part);
            }
        }
    }

    /// The hash of all of them.
    #[must_use]
    pub fn finish(self) -> Hash32 {
        Hash32(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::tagged;
    use crate::ids::{Address, AssetId, GroupId, Height, LockId, TxId};
    use crate::schema;

    fn hash(rows: &[(&[u8], &[u8])]) -> Hash32 {
        let mut hasher = UncoveredHasher::default();
        rows.iter().for_each(|(key, value)| hasher.row(key, value));
        hasher.finish()
    }

    #[test]
    fn what_follows_from_the_chain_counts_and_what_a_root_covers_or_a_node_has_of_its_own_does_not() {
        let (group, address, height) = (GroupId::shard(1), Address([1; 20]), Height(5));
        let (txid, asset) = (TxId(Hash32([2; 32])), AssetId([3; 16]));
        let counts = [
            schema::asset(&asset),
            schema::current_committee(group),
            schema::layout(),
            schema::mail(group, 1),
            schema::inbox(group),
            schema::header(height),
            schema::block(height),
            schema::entry(height),
            schema::receipt(&txid),
            schema::history(&address, height, 0),
            schema::prepared(&txid),
            schema::total(&asset),
            schema::handover(height),
            schema::closed_mail(group, group, 1),
            schema::archived(group, &schema::header(height)),
            schema::sealed_flow(height),
        ];
        for key in counts {
            assert!(is_uncovered(&key), "{}", String::from_utf8_lossy(&key));
        }
        let others = [
            schema::account(&address),
            schema::lock(&address, &LockId(Hash32([4; 32]))),
            schema::certificate(height),
            schema::archived(group, &schema::certificate(height)),
            [&[NODE], &b"checked"[..]].concat(),
            schema::applied(),
            Vec::new(),
        ];
        for key in others {
            assert!(!is_uncovered(&key), "{}", String::from_utf8_lossy(&key));
        }
    }

    #[test]
    fn rows_are_hashed_with_their_lengths() {
        assert_eq!(hash(&[]), tagged(b"seamark/uncovered/v1", &[]));
        let (two, one) = (2_u64.to_le_bytes(), 1_u64.to_le_bytes());
        assert_eq!(hash(&[(b"Ya", b"b")]), tagged(b"seamark/uncovered/v1", &[&two, b"Ya", &one, b"b"]));
        let same = hash(&[(b"Ya", b"b"), (b"Yc", b"d")]);
        // Rows that do not count change nothing.
        assert_eq!(hash(&[(b"C1", b"x"), (b"Ya", b"b"), (b"Yc", b"d"), (b"S1", b"y")]), same);
        let others: [&[(&[u8], &[u8])]; 5] = [
            &[(b"Ya", b"b")],
            &[(b"Ya", b"b"), (b"Yc", b"e")],
            &[(b"Ya", b"b"), (b"Yd", b"d")],
            &[(b"Ya", b"bY"), (b"Y", b"d")],
            &[(b"Ya", b"b"), (b"Yc", b"d"), (b"Ye", b"")],
        ];
        for rows in others {
            assert_ne!(hash(rows), same, "{rows:?}");
        }
    }
}
