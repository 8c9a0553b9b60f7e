//! Roots of state trees, computed from leaves and from the roots of halves, by SHA-256.

use ledger::hash::Hash32;
use sha2::{Digest, Sha256};

/// The root of no leaves.
const EMPTY: [u8; 32] = *b"SPARSE_MERKLE_PLACEHOLDER_HASH__";

/// A bit of a place in the tree.
pub(super) fn bit(position: &[u8; 32], depth: usize) -> bool {
    position[depth / 8] >> (7 - depth % 8) & 1 == 1
}

/// SHA-256 over parts, one behind the other.
pub(super) fn hash_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// The root of leaves that agree in their first bits; they are sorted.
pub(super) fn root(leaves: &[([u8; 32], [u8; 32])], depth: usize) -> [u8; 32] {
    match leaves {
        [] => EMPTY,
        [(position, value)] => hash_of(&[b"JMT::LeafNode", position, value]),
        _ => {
            let (left, right) = leaves.split_at(leaves.partition_point(|(position, _)| !bit(position, depth)));
            hash_of(&[b"JMT::IntrnalNode", &root(left, depth + 1), &root(right, depth + 1)])
        }
    }
}

/// The inner node over two halves, each by its root and the number of its leaves. One leaf alone is its own tree, wherever
/// it stands.
pub(super) fn over(left: (Hash32, usize), right: (Hash32, usize)) -> Hash32 {
    match (left.1, right.1) {
        (0, 0) => Hash32(EMPTY),
        (1, 0) => left.0,
        (0, 1) => right.0,
        _ => Hash32(hash_of(&[b"JMT::IntrnalNode", &left.0.0, &right.0.0])),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ledger::tree::{StateTree, value_hash};

    /// So many leaves, sorted by place.
    pub fn leaves(count: u8) -> Vec<([u8; 32], [u8; 32])> {
        let mut leaves: Vec<_> = (0..count).map(|seed| (hash_of(&[&[seed]]), value_hash(&[seed]))).collect();
        leaves.sort_unstable();
        leaves
    }

    #[test]
    fn the_root_is_that_of_the_tree() {
        for count in 0..24u8 {
            let mut leaves: Vec<([u8; 32], [u8; 32])> =
                (0..count).map(|seed| (hash_of(&[&[seed]]), value_hash(&[seed]))).collect();
            let mut tree = StateTree::new(ledger::tree::BitPrefix::ROOT);
            tree.apply(leaves.iter().map(|(position, value)| (*position, Some(*value))))
                .expect("all are below the root");
            leaves.sort_unstable();
            assert_eq!(root(&leaves, 0), tree.root(), "{count}");
        }
    }

    #[test]
    fn the_inner_node_over_two_halves_is_the_root_of_both() {
        for (count, depth) in (0..24u8).flat_map(|count| [0, 1].map(|depth| (count, depth))) {
            // Of the tree below one bit, those leaves that are there.
            let all: Vec<_> = leaves(count).into_iter().filter(|(place, _)| depth == 0 || bit(place, 0)).collect();
            let (left, right) = all.split_at(all.partition_point(|(place, _)| !bit(place, depth)));
            let half = |leaves: &[([u8; 32], [u8; 32])]| (Hash32(root(leaves, depth + 1)), leaves.len());
            assert_eq!(over(half(left), half(right)), Hash32(root(&all, depth)), "{count} {depth}");
        }
    }
}
