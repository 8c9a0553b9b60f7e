//! Flat storage for tree nodes: one vector per kind of node, `u32` links, and a free
//! list. A node costs its fields and nothing else, and dropping a tree is two frees.

use super::{NodeHash, Position};

/// The marker bit that tells links to leaves from links to branches.
const LEAF_BIT: u32 = 1 << 31;

/// A link to a node, or to nothing, in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(u32);

/// What a link points to.
pub(super) enum Target {
    Empty,
    Leaf(u32),
    Branch(u32),
}

impl Link {
    pub(super) const EMPTY: Self = Self(u32::MAX);

    pub(super) fn leaf(index: u32) -> Self {
        Self(index | LEAF_BIT)
    }

    pub(super) fn branch(index: u32) -> Self {
        Self(index)
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    #[inline]
    pub(super) fn target(self) -> Target {
        if self == Self::EMPTY {
            Target::Empty
        } else if self.0 & LEAF_BIT != 0 {
            Target::Leaf(self.0 & !LEAF_BIT)
        } else {
            Target::Branch(self.0)
        }
    }
}

/// A leaf: 64 bytes.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) position: Position,
    pub(super) value_hash: NodeHash,
}

/// An inner node with leaves on both sides: 80 bytes.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// Hash of each side at depth `depth + 1`, that is at the upper end of the edge to the
    /// child. Kept here rather than in the child so that hashing a branch reads no other
    /// node, and so that leaf hashes and one-sided chains are cached as well.
    pub(super) hash: [NodeHash; 2],
    pub(super) child: [Link; 2],
    /// Some leaf below: gives the bits of the path, which the branch itself does not store.
    pub(super) any_leaf: u32,
    /// The bit that decides between the sides.
    pub(super) depth: u8,
    /// Bit 0: `hash[0]` is out of date; bit 1: `hash[1]` is.
    pub(super) stale: u8,
}

/// A growable array of nodes with a free list.
#[derive(Clone, Debug)]
pub(super) struct Arena<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    pub(super) const fn new() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }

    /// Number of nodes in use.
    pub(super) fn live(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Bytes held, spare capacity included.
    pub(super) fn memory_bytes(&self) -> usize {
        self.items.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }

    pub(super) fn reserve(&mut self, additional: usize) {
        self.items.reserve_exact(additional);
    }

    pub(super) fn insert(&mut self, item: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.items[index as usize] = item;
            return index;
        }
        let index = u32::try_from(self.items.len()).expect("node count fits u32");
        assert!(index < LEAF_BIT - 1, "a tree holds fewer than 2^31 leaves");
        if self.items.len() == self.items.capacity() {
            // A quarter at a time: doubling would let a large tree hold twice its size.
            self.items.reserve_exact(self.items.len() / 4 + 16);
        }
        self.items.push(item);
        index
    }

    /// Gives a node back; its index must not be used again.
    pub(super) fn remove(&mut self, index: u32) {
        self.free.push(index);
    }
}

impl<T> std::ops::Index<u32> for Arena<T> {
    type Output = T;
    #[inline]
    fn index(&self, index: u32) -> &T {
        &self.items[index as usize]
    }
}

impl<T> std::ops::IndexMut<u32> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.items[index as usize]
    }
}
