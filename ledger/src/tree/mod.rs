//! The state tree: one 32-byte root that commits to every leaf of a group's state.
//!
//! Owns the shape and the hashing of the tree, its proofs, and the arithmetic of
//! split and merge. It never sees keys or values, only positions and value hashes,
//! and it never does IO: the leaves themselves live in the state database, and the
//! tree can be rebuilt from them at any time. Roots go into block headers, proofs
//! into answers to clients.
//!
//! The tree is a binary sparse Merkle tree over 256-bit positions, hashed exactly as
//! the `jmt` crate 0.12 does (the Jellyfish Merkle Tree of Gao, Hu and Wu, 2021, as
//! maintained by Penumbra), so that roots and proofs can be held against an
//! independent implementation. Three rules say everything:
//!
//! 1. a subtree without leaves hashes to [`PLACEHOLDER`];
//! 2. a subtree with one leaf hashes to that leaf's hash, at any depth;
//! 3. any other subtree hashes to `H(left, right)`, also when one side is empty.
//!
//! Rule 3 makes chains: two leaves that share 128 bits hang below 128 one-sided inner
//! nodes that must all be hashed. The nodes here are path-compressed, and a compressed
//! edge remembers the hash at its upper end, so a chain is hashed again only when a
//! leaf below it changes.
//!
//! A shard owns the positions under a [`BitPrefix`]. Its root is the hash of the inner
//! node of the whole tree at that prefix, so [`combine`] of two siblings is the root of
//! their parent; that is what makes split and merge checkable.

mod arena;
mod hash;
mod paged;
mod prefix;
mod proof;
mod reshape;
mod state;

pub use hash::{PLACEHOLDER, SubtreeKind, SubtreeRoot, combine, internal_hash, leaf_hash, value_hash};
pub use paged::{LeafSource, PAGE_BITS_MAX, PagedError, PagedTree};
pub use prefix::BitPrefix;
pub use proof::{PROOF_VERSION, ProofError, ProofLeaf, SIBLINGS_MAX, SubtreeProof, TreeProof};
pub use state::{Leaves, StateTree, TreeError};

/// Where a leaf hangs: bit 0 is the most significant bit of byte 0 and chooses at the root.
pub type Position = [u8; 32];

/// A SHA-256 hash of a node, a leaf or a value.
pub type NodeHash = [u8; 32];

/// Number of bits of a position, and so the greatest depth of a leaf.
pub const DEPTH_MAX: u16 = 256;
