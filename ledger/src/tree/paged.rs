//! The tree with only part of its leaves in memory.
//!
//! Owns the top of the tree, down to a fixed number of bits, and a cache of the pages
//! below it. A page is a [`StateTree`] rebuilt from a range scan of the state database,
//! so no node is ever written: the database holds the leaves and one root a page. What
//! a page is rebuilt to is checked against its root, so a damaged or stale database
//! cannot go unnoticed. This module does no IO; the caller's [`LeafSource`] does.

use super::hash::combine;
use super::prefix::bit;
use super::state::Update;
use super::{BitPrefix, DEPTH_MAX, NodeHash, Position, StateTree, SubtreeKind, SubtreeRoot, TreeError, TreeProof};

/// Most bits the top of a paged tree may cover: 65,536 pages.
pub const PAGE_BITS_MAX: u16 = 16;

/// Where the leaves of pages come from.
pub trait LeafSource {
    /// Why reading failed.
    type Error;

    /// The leaves under `prefix`, in ascending order of position, as of the last batch
    /// that was persisted.
    fn leaves(&self, prefix: &BitPrefix) -> impl Iterator<Item = Result<(Position, NodeHash), Self::Error>>;
}

/// Why a paged tree refused a call. Nothing has changed when one is returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PagedError<E> {
    /// The leaves could not be read.
    #[error("cannot read the leaves of a page")]
    Source(E),
    /// The position, the batch or the leaves do not fit the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The leaves read do not hash to the root that was stored for their page.
    #[error("the leaves of page {page} do not match its stored root")]
    PageMismatch {
        /// Number of the page.
        page: u32,
    },
    /// The number of page roots is not that of the page bits, or there are too many bits.
    #[error("wrong number of page roots or page bits")]
    Shape,
}

impl<E> PagedError<E> {
    /// Stable code for logs and interfaces.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Source(_) => "tree_page_unreadable",
            Self::Tree(error) => error.code(),
            Self::PageMismatch { .. } => "tree_page_mismatch",
            Self::Shape => "tree_page_shape",
        }
    }
}

/// A page in memory.
#[derive(Clone, Debug)]
struct Page {
    tree: StateTree,
    used_at: u64,
}

/// A state tree whose pages are loaded when they are needed.
#[derive(Clone, Debug)]
pub struct PagedTree {
    prefix: BitPrefix,
    page_bits: u16,
    /// The top of the tree as a heap: node `i` is over `2i` and `2i + 1`, node 1 is the
    /// root, and the last half are the page roots.
    top: Vec<SubtreeRoot>,
    pages: Vec<Option<Box<Page>>>,
    resident_leaves: usize,
    /// Counts uses of pages; orders them for eviction.
    uses: u64,
}

impl PagedTree {
    /// A tree over `2^page_bits` pages with the given roots, in ascending order of prefix.
    /// Whoever calls this compares [`root`](Self::root) with the certified one.
    pub fn open<E>(prefix: BitPrefix, page_bits: u16, page_roots: &[SubtreeRoot]) -> Result<Self, PagedError<E>> {
        let fits = page_bits <= PAGE_BITS_MAX && prefix.len() + page_bits <= DEPTH_MAX;
        if !fits || page_roots.len() != 1 << page_bits {
            return Err(PagedError::Shape);
        }
        let count = page_roots.len();
        let mut top = vec![SubtreeRoot::EMPTY; count];
        top.extend_from_slice(page_roots);
        for node in (1..count).rev() {
            top[node] = combine(top[2 * node], top[2 * node + 1]);
        }
        Ok(Self { prefix, page_bits, top, pages: vec![None; count], resident_leaves: 0, uses: 0 })
    }

    /// The prefix this tree owns.
    pub fn prefix(&self) -> &BitPrefix {
        &self.prefix
    }

    /// The root hash.
    pub fn root(&self) -> NodeHash {
        self.top[1].hash
    }

    /// The root with its kind.
    pub fn subtree_root(&self) -> SubtreeRoot {
        self.top[1]
    }

    /// The roots of all pages, as [`open`](Self::open) takes them.
    pub fn page_roots(&self) -> &[SubtreeRoot] {
        &self.top[self.pages.len()..]
    }

    /// Number of leaves in memory.
    pub fn resident_leaves(&self) -> usize {
        self.resident_leaves
    }

    /// Sets and deletes leaves as [`StateTree::apply`] does, and returns the pages whose
    /// roots changed. The caller persists leaves and page roots in one batch.
    pub fn apply<S: LeafSource>(
        &mut self,
        source: &S,
        updates: impl IntoIterator<Item = (Position, Option<NodeHash>)>,
    ) -> Result<Vec<(u32, SubtreeRoot)>, PagedError<S::Error>> {
        let mut batch: Vec<Update> = updates.into_iter().collect();
        if batch.iter().any(|(at, _)| !self.prefix.contains(at)) {
            return Err(TreeError::OutsidePrefix.into());
        }
        batch.sort_by_key(|update| update.0);

        // All pages are loaded before the first one changes, so a failed read changes nothing.
        let mut parts: Vec<(usize, &[Update])> = Vec::new();
        let page_of = |update: &Update| self.page_of(&update.0);
        for part in batch.chunk_by(|a, b| page_of(a) == page_of(b)) {
            parts.push((page_of(&part[0]), part));
        }
        for (page, _) in &parts {
            self.load(source, *page)?;
        }

        let mut changed = Vec::new();
        for (page, part) in parts {
            let tree = self.page(page);
            let before = tree.len();
            tree.apply(part.iter().copied())?;
            let (after, root) = (tree.len(), tree.subtree_root());
            self.resident_leaves = self.resident_leaves + after - before;
            let node = self.pages.len() + page;
            if self.top[node] != root {
                self.top[node] = root;
                changed.push((page as u32, root));
            }
        }
        self.rehash_above(&changed);
        Ok(changed)
    }

    /// Proves what `position` holds, as [`StateTree::prove`] does.
    pub fn prove<S: LeafSource>(&mut self, source: &S, position: &Position) -> Result<TreeProof, PagedError<S::Error>> {
        if !self.prefix.contains(position) {
            return Err(TreeError::OutsidePrefix.into());
        }
        let mut siblings = Vec::new();
        let mut node = 1;
        for depth in self.prefix.len()..self.prefix.len() + self.page_bits {
            match self.top[node].kind {
                SubtreeKind::Empty => return Ok(TreeProof::new(None, siblings)),
                SubtreeKind::Leaf => return self.prove_only_leaf(source, node, siblings),
                SubtreeKind::Internal => {
                    node = 2 * node + usize::from(bit(position, depth));
                    siblings.push(self.top[node ^ 1].hash);
                }
            }
        }
        let page = node - self.pages.len();
        self.load(source, page)?;
        Ok(self.page(page).prove(position)?.below(siblings))
    }

    /// Drops the pages used least recently until at most `leaves_max` leaves are in
    /// memory. Call it only once all changes are persisted: a page dropped before would
    /// be rebuilt from old leaves, and refused.
    pub fn evict(&mut self, leaves_max: usize) {
        if self.resident_leaves <= leaves_max {
            return;
        }
        let resident = self.pages.iter().enumerate();
        let mut by_use: Vec<(u64, usize)> =
            resident.filter_map(|(page, slot)| Some((slot.as_ref()?.used_at, page))).collect();
        by_use.sort_unstable();
        for (_, page) in by_use {
            if self.resident_leaves <= leaves_max {
                return;
            }
            if let Some(dropped) = self.pages[page].take() {
                self.resident_leaves -= dropped.tree.len();
            }
        }
    }

    /// The single leaf under an inner node of the top has risen to that node: the path
    /// ends there, in that leaf.
    fn prove_only_leaf<S: LeafSource>(
        &mut self,
        source: &S,
        mut node: usize,
        siblings: Vec<NodeHash>,
    ) -> Result<TreeProof, PagedError<S::Error>> {
        while node < self.pages.len() {
            let right = self.top[2 * node].kind == SubtreeKind::Empty;
            node = 2 * node + usize::from(right);
        }
        let page = node - self.pages.len();
        self.load(source, page)?;
        let only = self.page(page).leaves().next();
        let (position, value_hash) = only.ok_or(PagedError::PageMismatch { page: page as u32 })?;
        let leaf = super::ProofLeaf { position, value_hash };
        Ok(TreeProof::new(Some(leaf), siblings))
    }

    /// Number of the page that a position under the prefix belongs to.
    fn page_of(&self, position: &Position) -> usize {
        let bits = self.prefix.len()..self.prefix.len() + self.page_bits;
        bits.fold(0, |page, depth| 2 * page + usize::from(bit(position, depth)))
    }

    /// Hashes the top again above the changed pages, level by level.
    fn rehash_above(&mut self, changed: &[(u32, SubtreeRoot)]) {
        let mut level: Vec<usize> = changed.iter().map(|(page, _)| self.pages.len() + *page as usize).collect();
        for _ in 0..self.page_bits {
            for node in &mut level {
                *node /= 2;
            }
            level.dedup();
            for node in &level {
                self.top[*node] = combine(self.top[2 * node], self.top[2 * node + 1]);
            }
        }
    }

    /// Makes sure that a page is in memory.
    fn load<S: LeafSource>(&mut self, source: &S, page: usize) -> Result<(), PagedError<S::Error>> {
        self.uses += 1;
        if let Some(resident) = &mut self.pages[page] {
            resident.used_at = self.uses;
            return Ok(());
        }
        let mut prefix = self.prefix;
        for shift in (0..self.page_bits).rev() {
            let right = page >> shift & 1 == 1;
            prefix = prefix.child(right).ok_or(PagedError::Shape)?;
        }
        let stored = self.top[self.pages.len() + page];
        let leaves = if stored.kind == SubtreeKind::Empty {
            Vec::new()
        } else {
            let read: Result<Vec<_>, _> = source.leaves(&prefix).collect();
            read.map_err(PagedError::Source)?
        };
        let mut tree = StateTree::from_sorted(prefix, leaves)?;
        if tree.subtree_root() != stored {
            return Err(PagedError::PageMismatch { page: page as u32 });
        }
        self.resident_leaves += tree.len();
        self.pages[page] = Some(Box::new(Page { tree, used_at: self.uses }));
        Ok(())
    }

    /// A page that [`load`](Self::load) has brought in.
    fn page(&mut self, page: usize) -> &mut StateTree {
        let page = self.pages[page].as_mut();
        &mut page.expect("the page was loaded just before").tree
    }
}
