//! Bulk build, split and merge of trees.
//!
//! Split and merge copy nodes together with their cached hashes, so neither hashes more
//! than the chain at the new root.

use super::arena::{Branch, Leaf, Link, Target};
use super::prefix::{bit, common_bits};
use super::{BitPrefix, NodeHash, Position, StateTree, TreeError};

impl StateTree {
    /// Builds a tree from all its leaves, given in strictly ascending order.
    pub fn from_sorted(
        prefix: BitPrefix,
        leaves: impl IntoIterator<Item = (Position, NodeHash)>,
    ) -> Result<Self, TreeError> {
        let mut tree = Self::new(prefix);
        let leaves = leaves.into_iter();
        tree.leaves.reserve(leaves.size_hint().0);
        let mut previous: Option<Position> = None;
        for (position, value_hash) in leaves {
            if !prefix.contains(&position) {
                return Err(TreeError::OutsidePrefix);
            }
            if previous.is_some_and(|previous| previous >= position) {
                return Err(TreeError::Unsorted);
            }
            previous = Some(position);
            tree.leaves.insert(Leaf { position, value_hash });
        }
        let count = u32::try_from(tree.len()).expect("the arena bounds the number of leaves");
        tree.branches.reserve(tree.len().saturating_sub(1));
        tree.root = tree.build_over(0, count);
        tree.root_stale = count > 0;
        Ok(tree)
    }

    /// Builds the branches over the sorted leaves `low..high` of a fresh arena.
    fn build_over(&mut self, low: u32, high: u32) -> Link {
        match high - low {
            0 => return Link::EMPTY,
            1 => return Link::leaf(low),
            _ => {}
        }
        let depth = common_bits(&self.leaves[low].position, &self.leaves[high - 1].position);
        let (mut first_right, mut end) = (low, high);
        while first_right < end {
            let middle = first_right + (end - first_right) / 2;
            if bit(&self.leaves[middle].position, depth) {
                end = middle;
            } else {
                first_right = middle + 1;
            }
        }
        let left = self.build_over(low, first_right);
        let right = self.build_over(first_right, high);
        self.join(depth, left, right)
    }

    /// Cuts the tree into the halves under the next bit.
    pub fn split(mut self) -> Result<(Self, Self), TreeError> {
        let left = self.prefix.child(false).ok_or(TreeError::CannotSplit)?;
        let right = self.prefix.child(true).ok_or(TreeError::CannotSplit)?;
        self.root();
        Ok((self.half(left), self.half(right)))
    }

    fn half(&self, prefix: BitPrefix) -> Self {
        let mut half = Self::new(prefix);
        half.root = half.copy_from(self, self.locate(&prefix));
        half.root_stale = !half.root.is_empty();
        half
    }

    /// Joins the two halves of one prefix.
    pub fn merge(left: Self, mut right: Self) -> Result<Self, TreeError> {
        let parent = left.prefix.parent().ok_or(TreeError::NotSiblings)?;
        if parent.child(false) != Some(left.prefix) || parent.child(true) != Some(right.prefix) {
            return Err(TreeError::NotSiblings);
        }
        right.root();
        let mut whole = left;
        whole.root();
        let copied = whole.copy_from(&right, right.root);
        whole.root = whole.join(parent.len(), whole.root, copied);
        whole.root_stale = !whole.root.is_empty();
        whole.prefix = parent;
        Ok(whole)
    }

    /// Copies a subtree of another tree into this one's arenas, hashes included.
    fn copy_from(&mut self, other: &Self, link: Link) -> Link {
        match link.target() {
            Target::Empty => Link::EMPTY,
            Target::Leaf(index) => Link::leaf(self.leaves.insert(other.leaves[index].clone())),
            Target::Branch(index) => {
                let branch = &other.branches[index];
                let left = self.copy_from(other, branch.child[0]);
                let right = self.copy_from(other, branch.child[1]);
                let any_leaf = self.any_leaf(left);
                Link::branch(self.branches.insert(Branch {
                    hash: branch.hash,
                    child: [left, right],
                    any_leaf,
                    depth: branch.depth,
                    stale: branch.stale,
                }))
            }
        }
    }
}
