//! Binary Merkle trees over the ordered items of a block (RFC 6962 hashing): receipts, commands,
//! mail streams. The state has a tree of its own in [`crate::tree`].

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash::{Hash32, tagged};
use crate::limits::MERKLE_PATH_MAX;

/// Hash of an item: `sha256(0x00 ‖ bytes)`.
#[must_use]
pub fn leaf_hash(bytes: &[u8]) -> Hash32 {
    tagged(&[0], &[bytes])
}

fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    tagged(&[1], &[&left.0, &right.0])
}

/// Root over item hashes in order; `sha256("")` of nothing. An odd item moves up unpaired, which
/// gives the same tree as RFC 6962.
#[must_use]
pub fn root(leaves: &[Hash32]) -> Hash32 {
    if leaves.is_empty() {
        return crate::hash::sha256(b"");
    }
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = pair_up(&level);
    }
    level[0]
}

fn pair_up(level: &[Hash32]) -> Vec<Hash32> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => node_hash(left, right),
            single => single[0],
        })
        .collect()
}

/// Proof that an item stands at an index below a root.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MerklePath {
    /// Index of the item.
    pub index: u32,
    /// Number of items.
    pub count: u32,
    /// Siblings from the item up; levels where the node has no sibling are left out.
    pub siblings: Vec<Hash32>,
}

/// The path of item `index`, or `None` when there is no such item. Whoever proves several items makes a [`MerkleTree`].
#[must_use]
pub fn prove(leaves: &[Hash32], index: usize) -> Option<MerklePath> {
    MerkleTree::new(leaves.to_vec()).prove(index)
}

/// A tree with all its levels: hashed once, it proves any of its items.
#[derive(Clone, Debug)]
pub struct MerkleTree {
    /// From the items up; the last level has one node, or none where there are no items.
    levels: Vec<Vec<Hash32>>,
}

impl MerkleTree {
    /// The tree over item hashes in order.
    #[must_use]
    pub fn new(leaves: Vec<Hash32>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let above = pair_up(level);
            levels.push(above);
        }
        Self { levels }
    }

    /// The root, as [`root`] has it of the items.
    #[must_use]
    pub fn root(&self) -> Hash32 {
        let top = self.levels.last().and_then(|level| level.first());
        top.copied().unwrap_or_else(|| crate::hash::sha256(b""))
    }

    /// Puts another item in the place of one, and hashes what lies above it anew. Does nothing where there is no such
    /// item.
    pub fn set(&mut self, index: usize, leaf: Hash32) {
        if index >= self.levels[0].len() {
            return;
        }
        self.levels[0][index] = leaf;
        let mut at = index / 2;
        for level in 1..self.levels.len() {
            let below = &self.levels[level - 1][2 * at..];
            let hash = match below {
                [left, right, ..] => node_hash(left, right),
                single => single[0],
            };
            self.levels[level][at] = hash;
            at /= 2;
        }
    }

    /// The path of item `index`, or `None` when there is no such item.
    #[must_use]
    pub fn prove(&self, index: usize) -> Option<MerklePath> {
        let count = self.levels[0].len();
        if index >= count {
            return None;
        }
        let (mut siblings, mut at) = (Vec::new(), index);
        for level in &self.levels {
            siblings.extend(level.get(at ^ 1).copied());
            at /= 2;
        }
        Some(MerklePath { index: u32::try_from(index).ok()?, count: u32::try_from(count).ok()?, siblings })
    }
}

impl MerklePath {
    /// Whether an item with this hash lies below `root`. The root does not bind the count, so index
    /// and count are only hints to the shape: what depends on a position carries it in the item.
    #[must_use]
    pub fn leads_to(&self, leaf: &Hash32, root: &Hash32) -> bool {
        if self.index >= self.count || self.siblings.len() > MERKLE_PATH_MAX {
            return false;
        }
        let (mut at, mut width, mut hash) = (self.index, self.count, *leaf);
        let mut siblings = self.siblings.iter();
        while width > 1 {
            let has_sibling = at % 2 == 1 || at + 1 < width;
            if has_sibling {
                let Some(sibling) = siblings.next() else {
                    return false;
                };
                hash = if at % 2 == 1 { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) };
            }
            at /= 2;
            width = width.div_ceil(2);
        }
        siblings.next().is_none() && hash == *root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_whose_items_change_is_the_tree_of_what_it_has() {
        for count in 0..40u32 {
            let mut leaves: Vec<Hash32> = (0..count).map(|i| leaf_hash(&i.to_le_bytes())).collect();
            let mut tree = MerkleTree::new(leaves.clone());
            for index in (0..leaves.len()).rev().step_by(3) {
                leaves[index] = leaf_hash(&[index as u8, 1]);
                tree.set(index, leaves[index]);
            }
            tree.set(leaves.len(), Hash32::ZERO);
            assert_eq!(tree.root(), root(&leaves), "{count} items");
            for (index, leaf) in leaves.iter().enumerate() {
                assert!(tree.prove(index).expect("the item exists").leads_to(leaf, &tree.root()));
            }
        }
    }

    #[test]
    fn every_item_of_every_size_proves_itself_and_no_other() {
        for count in 1..40u32 {
            let leaves: Vec<Hash32> = (0..count).map(|i| leaf_hash(&i.to_le_bytes())).collect();
            let root = root(&leaves);
            for index in 0..leaves.len() {
                let path = prove(&leaves, index).expect("the item exists");
                assert!(path.leads_to(&leaves[index], &root));
                assert!(!path.leads_to(&leaf_hash(b"other"), &root));
                let mut moved = path.clone();
                moved.index = (moved.index + 1) % count;
                assert!(count == 1 || !moved.leads_to(&leaves[index], &root));
            }
            assert!(prove(&leaves, leaves.len()).is_none());
        }
    }
}
