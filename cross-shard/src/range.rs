//! The hash of a stream: a Merkle mountain range over its messages.
//!
//! Messages stand under complete binary trees, one for each bit of their number, the largest first;
//! the roots of these trees are the **peaks**. Whoever has the peaks at one point of the stream can
//! check with a few hashes that what is certified later continues it, however long it has become:
//! only complete subtrees are missing, and each of them is one hash. Never does: know messages; it
//! sees their hashes.

use std::collections::VecDeque;

use ledger::hash::{Hash32, tagged};

fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    tagged(b"seamark/mail-node/v1", &[&left.0, &right.0])
}

/// Appends the complete subtree of `2^level` messages that begins at `at`, the number of messages so
/// far, which is a multiple of its size. Peaks that do not belong to `at` give a head that nobody
/// certified.
pub(crate) fn push(peaks: &mut Vec<Hash32>, at: u64, level: u32, hash: Hash32) {
    let mut node = hash;
    // The trees of equal size to the left, as one bit after the other is carried.
    let equal = (!(at >> level)).trailing_zeros();
    for left in std::iter::from_fn(|| peaks.pop()).take(equal as usize).collect::<Vec<_>>() {
        node = node_hash(&left, &node);
    }
    peaks.push(node);
}

/// What headers commit to: the number of messages and the peaks over them.
pub(crate) fn head(count: u64, peaks: &[Hash32]) -> Hash32 {
    let peaks: Vec<u8> = peaks.iter().flat_map(|peak| peak.0).collect();
    tagged(b"seamark/mail-head/v1", &[&count.to_be_bytes(), &peaks])
}

/// The largest complete subtrees between two points of a stream, in order: where each begins, and its
/// level.
pub(crate) fn steps(from: u64, to: u64) -> impl Iterator<Item = (u64, u32)> {
    let mut at = from;
    std::iter::from_fn(move || {
        let rest = to.checked_sub(at).filter(|rest| *rest > 0)?;
        let step = (at, at.trailing_zeros().min(rest.ilog2()));
        at += 1 << step.1;
        Some(step)
    })
}

/// The nodes over the messages that a source still keeps, from which it takes proofs.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    first: u64,
    next: u64,
    /// By level, the complete subtrees that begin at `first` or behind it.
    levels: Vec<VecDeque<Hash32>>,
}

impl Nodes {
    /// No nodes yet; the first message has this sequence number.
    #[must_use]
    pub fn starting_at(first: u64) -> Self {
        Self { first, next: first, levels: Vec::new() }
    }

    /// Index of the first subtree of a level that is kept.
    fn base(&self, level: usize) -> u64 {
        self.first.div_ceil(1 << level)
    }

    fn node(&self, level: usize, index: u64) -> Option<&Hash32> {
        let at = usize::try_from(index.checked_sub(self.base(level))?).ok()?;
        self.levels.get(level)?.get(at)
    }

    /// Adds the next message by its hash, and every subtree that it completes.
    pub fn push(&mut self, hash: Hash32) {
        self.next += 1;
        let mut node = hash;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(VecDeque::new());
            }
            self.levels[level].push_back(node);
            let count = self.next >> level;
            let left = if count.is_multiple_of(2) { self.node(level, count - 2) } else { None };
            let Some(left) = left else { return };
            node = node_hash(left, &node);
        }
    }

    /// Drops what begins below a sequence number, which is not beyond the last message.
    pub fn drop_below(&mut self, seq: u64) {
        let before: Vec<u64> = (0..self.levels.len()).map(|level| self.base(level)).collect();
        self.first = self.first.max(seq);
        for (level, before) in before.into_iter().enumerate() {
            let gone = usize::try_from(self.base(level) - before).unwrap_or(usize::MAX);
            let nodes = &mut self.levels[level];
            nodes.drain(..gone.min(nodes.len()));
        }
    }

    /// What leads from the peaks at `from` to the head at `to`; `None` when that is not kept.
    #[must_use]
    pub fn proof(&self, from: u64, to: u64) -> Option<Vec<Hash32>> {
        steps(from, to).map(|(at, level)| self.node(level as usize, at >> level).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use ledger::hash::sha256;
    use ledger::limits::BUNDLE_PROOF_MAX;

    use super::*;

    fn leaf(seq: u64) -> Hash32 {
        sha256(&seq.to_be_bytes())
    }

    /// The root over `2^level` messages from `at` on, by the definition.
    fn subtree(at: u64, level: u32) -> Hash32 {
        match level {
            0 => leaf(at),
            _ => node_hash(&subtree(at, level - 1), &subtree(at + (1 << (level - 1)), level - 1)),
        }
    }

    /// The peaks over so many messages, by the definition.
    fn peaks(count: u64) -> Vec<Hash32> {
        let sizes = (0..64).rev().filter(|level| count >> level & 1 == 1);
        let mut at = 0;
        let peak = |level| {
            let peak = subtree(at, level);
            at += 1 << level;
            peak
        };
        sizes.map(peak).collect()
    }

    #[test]
    fn peaks_are_the_roots_of_complete_trees() {
        let mut pushed = Vec::new();
        for count in 0..200 {
            assert_eq!(pushed, peaks(count), "{count}");
            push(&mut pushed, count, 0, leaf(count));
        }
    }

    #[test]
    fn from_any_point_a_proof_leads_to_any_later_head_whatever_was_dropped_before() {
        for first in 0..40 {
            let mut nodes = Nodes::starting_at(first);
            (first..70).for_each(|seq| nodes.push(leaf(seq)));
            for dropped in first..70 {
                nodes.drop_below(dropped);
                for to in dropped..=70 {
                    let mut reached = peaks(dropped);
                    let proof = nodes.proof(dropped, to).expect("it is kept");
                    for ((at, level), node) in steps(dropped, to).zip(proof) {
                        push(&mut reached, at, level, node);
                    }
                    assert_eq!(head(to, &reached), head(to, &peaks(to)), "{dropped} to {to}");
                }
                assert_eq!(dropped.checked_sub(1).and_then(|before| nodes.proof(before, 70)), None);
                assert_eq!(nodes.proof(dropped, 71), None);
            }
        }
    }

    #[test]
    fn nodes_go_on_after_all_were_dropped() {
        let mut nodes = Nodes::starting_at(0);
        for seq in 0..100 {
            nodes.push(leaf(seq));
            nodes.drop_below(seq + u64::from(seq % 3 == 0));
            let mut reached = peaks(seq);
            if seq % 3 != 0 {
                push(&mut reached, seq, 0, nodes.proof(seq, seq + 1).expect("it is kept")[0]);
                assert_eq!(reached, peaks(seq + 1));
            }
        }
        assert!(nodes.levels.iter().all(|level| level.len() <= 2), "what was dropped takes no memory");
    }

    #[test]
    fn no_proof_is_longer_than_the_limit() {
        assert_eq!(steps(1, u64::MAX).count(), 63 + 63);
        for (from, to) in [(0, u64::MAX), (1, 1 << 63), (u64::MAX - 1, u64::MAX), (5, 5), (6, 5)] {
            assert!(steps(from, to).count() <= BUNDLE_PROOF_MAX, "{from} to {to}");
        }
    }
}
