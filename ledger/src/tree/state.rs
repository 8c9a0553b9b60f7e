//! The tree in memory: batches of updates in, a root and proofs out.
//!
//! Owns the nodes of one subtree. A batch is sorted once and carried down the tree as
//! a slice, so shared paths are walked once, and nothing is hashed until the root is
//! asked for; then only what changed is. Shape changes (bulk build, split, merge) are in
//! `reshape.rs`.

use super::arena::{Arena, Branch, Leaf, Link, Target};
use super::hash::{chain_hash, internal_hash, leaf_hash};
use super::prefix::{bit, common_bits};
use super::{BitPrefix, DEPTH_MAX, NodeHash, PLACEHOLDER, Position, ProofLeaf, SubtreeKind, SubtreeRoot, TreeProof};

/// Why the tree refused a call. Nothing has changed when one is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A position or prefix is not under the prefix of this tree.
    #[error("the position is outside the prefix of this tree")]
    OutsidePrefix,
    /// Leaves for a bulk build must come in strictly ascending order.
    #[error("leaves are not in strictly ascending order")]
    Unsorted,
    /// Only two sibling subtrees can be merged, the left one first.
    #[error("the trees are not the left and the right half of one prefix")]
    NotSiblings,
    /// A whole position cannot be split further.
    #[error("a prefix of 256 bits cannot be split")]
    CannotSplit,
}

impl TreeError {
    /// Stable code for logs and interfaces.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OutsidePrefix => "tree_outside_prefix",
            Self::Unsorted => "tree_unsorted_leaves",
            Self::NotSiblings => "tree_not_siblings",
            Self::CannotSplit => "tree_cannot_split",
        }
    }
}

/// A new value hash for a position, or `None` to delete the leaf.
pub(super) type Update = (Position, Option<NodeHash>);

/// A sparse Merkle tree over the positions under one prefix.
#[derive(Clone, Debug)]
pub struct StateTree {
    pub(super) prefix: BitPrefix,
    pub(super) root: Link,
    pub(super) root_hash: NodeHash,
    pub(super) root_stale: bool,
    pub(super) leaves: Arena<Leaf>,
    pub(super) branches: Arena<Branch>,
}

impl StateTree {
    /// An empty tree for the positions under `prefix`.
    pub fn new(prefix: BitPrefix) -> Self {
        Self {
            prefix,
            root: Link::EMPTY,
            root_hash: PLACEHOLDER,
            root_stale: false,
            leaves: Arena::new(),
            branches: Arena::new(),
        }
    }

    /// The prefix this tree owns.
    pub fn prefix(&self) -> &BitPrefix {
        &self.prefix
    }

    /// Number of leaves.
    pub fn len(&self) -> usize {
        self.leaves.live()
    }

    /// Whether there is no leaf.
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// Bytes of memory held for nodes, spare capacity included.
    pub fn memory_bytes(&self) -> usize {
        self.leaves.memory_bytes() + self.branches.memory_bytes()
    }

    /// The value hash at `position`.
    pub fn get(&self, position: &Position) -> Option<NodeHash> {
        let mut link = self.root;
        loop {
            match link.target() {
                Target::Empty => return None,
                Target::Leaf(index) => {
                    let leaf = &self.leaves[index];
                    return (leaf.position == *position).then_some(leaf.value_hash);
                }
                Target::Branch(index) => {
                    let branch = &self.branches[index];
                    link = branch.child[usize::from(bit(position, u16::from(branch.depth)))];
                }
            }
        }
    }

    /// All leaves in ascending order of position.
    pub fn leaves(&self) -> Leaves<'_> {
        Leaves { tree: self, stack: vec![self.root] }
    }

    /// Sets and deletes leaves. Later updates of a position win over earlier ones;
    /// deleting what is not there is no change.
    pub fn apply(&mut self, updates: impl IntoIterator<Item = (Position, Option<NodeHash>)>) -> Result<(), TreeError> {
        let mut batch: Vec<Update> = updates.into_iter().collect();
        batch.sort_by_key(|update| update.0);
        batch.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = later.1;
            }
            same
        });
        self.apply_sorted(&batch)
    }

    /// As [`apply`](Self::apply), for a batch in strictly ascending order.
    pub(super) fn apply_sorted(&mut self, batch: &[Update]) -> Result<(), TreeError> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return Ok(());
        };
        // In sorted order everything between two positions under a prefix is under it.
        if !self.prefix.contains(&first.0) || !self.prefix.contains(&last.0) {
            return Err(TreeError::OutsidePrefix);
        }
        let (root, changed) = self.update(self.root, self.prefix.len(), batch);
        self.root = root;
        self.root_stale |= changed;
        Ok(())
    }

    /// The root hash. Hashes again what changed since the last call.
    pub fn root(&mut self) -> NodeHash {
        if self.root_stale {
            self.root_hash = self.hash_at(self.root, self.prefix.len());
            self.root_stale = false;
        }
        self.root_hash
    }

    /// The root with its kind, as [`combine`](super::combine) needs it.
    pub fn subtree_root(&mut self) -> SubtreeRoot {
        SubtreeRoot { hash: self.root(), kind: kind_of(self.root) }
    }

    /// The root of the subtree under a longer prefix: what the root of a shard that took
    /// over `prefix` would be.
    pub fn subtree_root_at(&mut self, prefix: &BitPrefix) -> Result<SubtreeRoot, TreeError> {
        if !self.prefix.covers(prefix) {
            return Err(TreeError::OutsidePrefix);
        }
        self.root();
        let link = self.locate(prefix);
        Ok(SubtreeRoot { hash: self.hash_at(link, prefix.len()), kind: kind_of(link) })
    }

    /// Proves that `position` holds its value hash, or that it holds none.
    pub fn prove(&mut self, position: &Position) -> Result<TreeProof, TreeError> {
        if !self.prefix.contains(position) {
            return Err(TreeError::OutsidePrefix);
        }
        self.root();
        let mut siblings = Vec::new();
        let mut link = self.root;
        let mut from = self.prefix.len();
        let leaf = loop {
            match link.target() {
                Target::Empty => break None,
                Target::Leaf(index) => {
                    let leaf = &self.leaves[index];
                    break Some(ProofLeaf { position: leaf.position, value_hash: leaf.value_hash });
                }
                Target::Branch(index) => {
                    let depth = u16::from(self.branches[index].depth);
                    let shared = self.shared_bits(link, from, depth, position, position);
                    let placeholders = usize::from(shared.min(depth) - from);
                    siblings.extend(std::iter::repeat_n(PLACEHOLDER, placeholders));
                    if shared < depth {
                        // The path leaves a one-sided chain: its other side is empty.
                        siblings.push(self.hash_at(link, shared + 1));
                        break None;
                    }
                    let branch = &self.branches[index];
                    let side = usize::from(bit(position, depth));
                    siblings.push(branch.hash[1 - side]);
                    link = branch.child[side];
                    from = depth + 1;
                }
            }
        };
        Ok(TreeProof::new(leaf, siblings))
    }

    /// The node whose leaves are exactly those under `prefix`.
    pub(super) fn locate(&self, prefix: &BitPrefix) -> Link {
        let mut link = self.root;
        loop {
            match link.target() {
                Target::Branch(index) if u16::from(self.branches[index].depth) < prefix.len() => {
                    let branch = &self.branches[index];
                    let side = bit(prefix.first_position(), u16::from(branch.depth));
                    link = branch.child[usize::from(side)];
                }
                Target::Empty => return link,
                Target::Branch(_) | Target::Leaf(_) => {
                    // Compressed bits were skipped on the way down: check them all at once.
                    let below = &self.leaves[self.any_leaf(link)].position;
                    return if prefix.contains(below) { link } else { Link::EMPTY };
                }
            }
        }
    }

    /// Some leaf at or below a link that is not empty.
    pub(super) fn any_leaf(&self, link: Link) -> u32 {
        match link.target() {
            Target::Leaf(index) => index,
            Target::Branch(index) => self.branches[index].any_leaf,
            Target::Empty => unreachable!("callers have ruled out the empty link"),
        }
    }

    /// The least number of bits that a sorted batch (given by its ends) shares with the
    /// path to a node at `depth`, knowing that it shares the first `from`. At least
    /// `depth` when nothing leaves the path.
    #[inline]
    fn shared_bits(&self, link: Link, from: u16, depth: u16, first: &Position, last: &Position) -> u16 {
        if from == depth {
            return depth;
        }
        let path = &self.leaves[self.any_leaf(link)].position;
        // Over a sorted slice the shared length falls away on both sides of `path`,
        // so its minimum is at an end.
        common_bits(path, first).min(common_bits(path, last))
    }

    /// Applies a sorted batch to the subtree at `link`, whose edge begins at depth `from`.
    /// Returns what takes its place, and whether its hash may have changed.
    fn update(&mut self, link: Link, from: u16, batch: &[Update]) -> (Link, bool) {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return (link, false);
        };
        match link.target() {
            Target::Empty => {
                let built = self.build(batch);
                (built, !built.is_empty())
            }
            Target::Leaf(index) => {
                let shared = self.shared_bits(link, from, DEPTH_MAX, &first.0, &last.0);
                if shared < DEPTH_MAX {
                    return self.diverge(link, shared, batch);
                }
                match first.1 {
                    Some(value_hash) => {
                        let leaf = &mut self.leaves[index];
                        let changed = leaf.value_hash != value_hash;
                        leaf.value_hash = value_hash;
                        (link, changed)
                    }
                    None => {
                        self.leaves.remove(index);
                        (Link::EMPTY, true)
                    }
                }
            }
            Target::Branch(index) => {
                let depth = u16::from(self.branches[index].depth);
                let shared = self.shared_bits(link, from, depth, &first.0, &last.0);
                if shared < depth {
                    return self.diverge(link, shared, batch);
                }
                let (left, right) = cut(batch, depth);
                let [left_child, right_child] = self.branches[index].child;
                let left = self.update(left_child, depth + 1, left);
                let right = self.update(right_child, depth + 1, right);
                self.relink(index, left, right)
            }
        }
    }

    /// Part of the batch leaves the path to `link` at depth `at`, where all of it still
    /// agreed before.
    fn diverge(&mut self, link: Link, at: u16, batch: &[Update]) -> (Link, bool) {
        let path = &self.leaves[self.any_leaf(link)].position;
        let side = usize::from(bit(path, at));
        let (left, right) = cut(batch, at);
        let (along, away) = if side == 0 { (left, right) } else { (right, left) };
        let (kept, changed) = self.update(link, at + 1, along);
        let built = self.build(away);
        if built.is_empty() {
            return (kept, changed);
        }
        let (left, right) = if side == 0 { (kept, built) } else { (built, kept) };
        (self.join(at, left, right), true)
    }

    /// Puts the updated sides of a branch in place, and dissolves it when one is gone.
    fn relink(&mut self, index: u32, left: (Link, bool), right: (Link, bool)) -> (Link, bool) {
        if !left.1 && !right.1 {
            return (Link::branch(index), false);
        }
        if left.0.is_empty() || right.0.is_empty() {
            self.branches.remove(index);
            let rest = if left.0.is_empty() { right.0 } else { left.0 };
            return (rest, true);
        }
        // The remembered leaf may be gone; one of a side just visited is at hand.
        let any_leaf = self.any_leaf(if left.1 { left.0 } else { right.0 });
        let branch = &mut self.branches[index];
        branch.child = [left.0, right.0];
        branch.any_leaf = any_leaf;
        branch.stale |= u8::from(left.1) | u8::from(right.1) << 1;
        (Link::branch(index), true)
    }

    /// A new subtree from the values of a sorted batch; deletions in it mean nothing.
    fn build(&mut self, batch: &[Update]) -> Link {
        match batch {
            [] | [(_, None)] => Link::EMPTY,
            [(position, Some(value_hash))] => {
                Link::leaf(self.leaves.insert(Leaf { position: *position, value_hash: *value_hash }))
            }
            [first, .., last] => {
                let depth = common_bits(&first.0, &last.0);
                let (left, right) = cut(batch, depth);
                let left = self.build(left);
                let right = self.build(right);
                self.join(depth, left, right)
            }
        }
    }

    /// A branch over two subtrees, or the one of them that is not empty.
    pub(super) fn join(&mut self, depth: u16, left: Link, right: Link) -> Link {
        if left.is_empty() {
            return right;
        }
        if right.is_empty() {
            return left;
        }
        let any_leaf = self.any_leaf(left);
        Link::branch(self.branches.insert(Branch {
            hash: [PLACEHOLDER; 2],
            child: [left, right],
            any_leaf,
            depth: u8::try_from(depth).expect("two positions differ before bit 256"),
            stale: 0b11,
        }))
    }

    /// The hash of the subtree at `link` as an inner node at depth `top`. The recursion
    /// is bounded by the length of a position.
    fn hash_at(&mut self, link: Link, top: u16) -> NodeHash {
        match link.target() {
            Target::Empty => PLACEHOLDER,
            Target::Leaf(index) => {
                let leaf = &self.leaves[index];
                leaf_hash(&leaf.position, &leaf.value_hash)
            }
            Target::Branch(index) => {
                let Branch { child, depth, stale, .. } = self.branches[index];
                let depth = u16::from(depth);
                for (side, child) in child.into_iter().enumerate() {
                    if stale & (1 << side) != 0 {
                        self.branches[index].hash[side] = self.hash_at(child, depth + 1);
                    }
                }
                let branch = &mut self.branches[index];
                branch.stale = 0;
                let hash = internal_hash(&branch.hash[0], &branch.hash[1]);
                if depth == top {
                    return hash;
                }
                let path = &self.leaves[self.branches[index].any_leaf].position;
                chain_hash(hash, path, top, depth)
            }
        }
    }
}

/// Leaves of a tree in ascending order; made by [`StateTree::leaves`].
#[derive(Debug)]
pub struct Leaves<'a> {
    tree: &'a StateTree,
    stack: Vec<Link>,
}

impl Iterator for Leaves<'_> {
    type Item = (Position, NodeHash);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.stack.pop()?.target() {
                Target::Empty => {}
                Target::Leaf(index) => {
                    let leaf = &self.tree.leaves[index];
                    return Some((leaf.position, leaf.value_hash));
                }
                Target::Branch(index) => {
                    let [left, right] = self.tree.branches[index].child;
                    self.stack.push(right);
                    self.stack.push(left);
                }
            }
        }
    }
}

fn kind_of(link: Link) -> SubtreeKind {
    match link.target() {
        Target::Empty => SubtreeKind::Empty,
        Target::Leaf(_) => SubtreeKind::Leaf,
        Target::Branch(_) => SubtreeKind::Internal,
    }
}

/// Cuts a sorted batch, equal before bit `depth`, into those with the bit clear and set.
fn cut(batch: &[Update], depth: u16) -> (&[Update], &[Update]) {
    batch.split_at(batch.partition_point(|(position, _)| !bit(position, depth)))
}
