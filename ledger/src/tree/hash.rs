//! Node hashing, and how the roots of two siblings make the root of their parent.
//!
//! Owns the byte layout of every hashed node. The constants are those of `jmt` 0.12:
//! `types/proof.rs` (`LEAF_DOMAIN_SEPARATOR`, `INTERNAL_DOMAIN_SEPARATOR`) and `lib.rs`
//! (`SPARSE_MERKLE_PLACEHOLDER_HASH`).

use borsh::{BorshDeserialize, BorshSerialize};
use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

use super::{NodeHash, Position, prefix::bit};

/// Hash of a subtree without leaves (`jmt` `lib.rs`, `SPARSE_MERKLE_PLACEHOLDER_HASH`).
pub const PLACEHOLDER: NodeHash = *b"SPARSE_MERKLE_PLACEHOLDER_HASH__";

const LEAF_DOMAIN: &[u8; 13] = b"JMT::LeafNode";
/// Spelt as `jmt` spells it: a vowel is missing so that it fills 16 bytes.
const INTERNAL_DOMAIN: &[u8; 16] = b"JMT::IntrnalNode";

/// The SHA-256 initial state (FIPS 180-4, 5.3.3).
const SHA256_INIT: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// What a subtree is made of; it decides whether a parent collapses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SubtreeKind {
    /// No leaf.
    Empty,
    /// Exactly one leaf.
    Leaf,
    /// Two leaves or more.
    Internal,
}

/// The root of a subtree, with what a parent needs to know to hash over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SubtreeRoot {
    /// Hash of the subtree.
    pub hash: NodeHash,
    /// What is below.
    pub kind: SubtreeKind,
}

impl SubtreeRoot {
    /// The root of a subtree without leaves.
    pub const EMPTY: Self = Self { hash: PLACEHOLDER, kind: SubtreeKind::Empty };
}

/// The root of the parent of two sibling subtrees.
///
/// A single leaf rises to the parent unchanged, as in `jmt` `node_type.rs`
/// (`merkle_hash`, `has_only_child`); an inner node beside an empty sibling does not.
pub fn combine(left: SubtreeRoot, right: SubtreeRoot) -> SubtreeRoot {
    use SubtreeKind::{Empty, Internal, Leaf};
    match (left.kind, right.kind) {
        (Empty, Empty) => SubtreeRoot::EMPTY,
        (Leaf, Empty) => left,
        (Empty, Leaf) => right,
        (Internal, _) | (_, Internal) | (Leaf, Leaf) => {
            SubtreeRoot { hash: internal_hash(&left.hash, &right.hash), kind: Internal }
        }
    }
}

/// Hash of a value, as stored in a leaf (`jmt` `lib.rs`, `ValueHash::with`).
pub fn value_hash(value: &[u8]) -> NodeHash {
    Sha256::digest(value).into()
}

/// Hash of a leaf (`jmt` `types/proof.rs`, `SparseMerkleLeafNode::hash`).
pub fn leaf_hash(position: &Position, value_hash: &NodeHash) -> NodeHash {
    two_blocks(LEAF_DOMAIN, position, value_hash)
}

/// Hash of an inner node (`jmt` `types/proof.rs`, `SparseMerkleInternalNode::hash`).
pub fn internal_hash(left: &NodeHash, right: &NodeHash) -> NodeHash {
    two_blocks(INTERNAL_DOMAIN, left, right)
}

/// Hashes upwards through one-sided inner nodes, from depth `bottom` to depth `top`,
/// along the path of `position`.
pub(super) fn chain_hash(mut hash: NodeHash, position: &Position, top: u16, bottom: u16) -> NodeHash {
    for depth in (top..bottom).rev() {
        hash =
            if bit(position, depth) { internal_hash(&PLACEHOLDER, &hash) } else { internal_hash(&hash, &PLACEHOLDER) };
    }
    hash
}

/// SHA-256 of `domain ‖ a ‖ b`, whose padded form always fills two blocks.
///
/// Laid out by hand because this is the inner loop of every commit: the general
/// hasher spends a noticeable part of its time on buffering 80 bytes.
#[inline]
fn two_blocks<const D: usize>(domain: &[u8; D], a: &[u8; 32], b: &[u8; 32]) -> NodeHash {
    const { assert!(D + 64 + 9 > 64 && D + 64 + 9 <= 128) };
    let mut message = [0u8; 128];
    message[..D].copy_from_slice(domain);
    message[D..D + 32].copy_from_slice(a);
    message[D + 32..D + 64].copy_from_slice(b);
    message[D + 64] = 0x80;
    message[120..].copy_from_slice(&((D as u64 + 64) * 8).to_be_bytes());

    let (blocks, _) = message.as_chunks::<64>();
    let mut state = SHA256_INIT;
    compress256(&mut state, blocks);

    let mut out = [0u8; 32];
    for (word, bytes) in state.iter().zip(out.as_chunks_mut::<4>().0) {
        *bytes = word.to_be_bytes();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_layout_is_plain_sha256() {
        let (a, b) = ([7u8; 32], [0xf3u8; 32]);
        let plain = |domain: &[u8]| -> NodeHash {
            let mut hasher = Sha256::new();
            hasher.update(domain);
            hasher.update(a);
            hasher.update(b);
            hasher.finalize().into()
        };
        assert_eq!(leaf_hash(&a, &b), plain(b"JMT::LeafNode"));
        assert_eq!(internal_hash(&a, &b), plain(b"JMT::IntrnalNode"));
    }

    #[test]
    fn combine_collapses_only_single_leaves() {
        let leaf = SubtreeRoot { hash: [1; 32], kind: SubtreeKind::Leaf };
        let inner = SubtreeRoot { hash: [2; 32], kind: SubtreeKind::Internal };
        let empty = SubtreeRoot::EMPTY;
        assert_eq!(combine(empty, empty), empty);
        assert_eq!(combine(leaf, empty), leaf);
        assert_eq!(combine(empty, leaf), leaf);
        assert_eq!(combine(inner, empty).hash, internal_hash(&inner.hash, &PLACEHOLDER));
        assert_eq!(combine(empty, inner).hash, internal_hash(&PLACEHOLDER, &inner.hash));
        assert_eq!(combine(leaf, leaf).hash, internal_hash(&leaf.hash, &leaf.hash));
        assert_eq!(combine(leaf, inner).hash, internal_hash(&leaf.hash, &inner.hash));
    }
}
