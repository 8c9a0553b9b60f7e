//! The layout: which shard owns which accounts, as a prefix tree over account partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::hash::Hash32;
use crate::ids::{Address, GroupId, GroupKind, LayoutVersion};

/// The first `length` bits of a key; bits beyond are zero.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
pub struct BitPrefix {
    /// The bits, left-aligned in a big-endian number.
    pub bits: u64,
    /// How many count, at most 64.
    pub length: u8,
}

impl BitPrefix {
    /// The prefix of everything.
    pub const ALL: Self = Self { bits: 0, length: 0 };

    /// Extends by one bit.
    #[must_use]
    pub fn child(self, one: bool) -> Self {
        debug_assert!(self.length < 64);
        let bits = if one { self.bits | (1 << (63 - self.length)) } else { self.bits };
        Self { bits, length: self.length + 1 }
    }

    /// The prefix one bit shorter; `None` for that of everything.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        let length = self.length.checked_sub(1)?;
        // A length over 64 is refused by `Layout::well_formed`; until then it must not panic.
        let last = 1u64.checked_shl(63u32.saturating_sub(u32::from(length))).unwrap_or(0);
        Some(Self { bits: self.bits & !last, length })
    }

    /// Whether a key starts with this prefix.
    #[must_use]
    pub fn covers(&self, key: &[u8; 32]) -> bool {
        let mut head = [0; 8];
        head.copy_from_slice(&key[..8]);
        // A length over 64 is refused by `Layout::well_formed`; until then it must not panic.
        let shift = 64u32.saturating_sub(u32::from(self.length));
        let differing = u64::from_be_bytes(head) ^ self.bits;
        differing.checked_shr(shift).unwrap_or(0) == 0
    }
}

impl BitPrefix {
    /// Whether everything under `other` lies under this prefix.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&other.bits.to_be_bytes());
        self.length <= other.length && self.covers(&key)
    }

    /// The same prefix as the state tree takes it.
    #[must_use]
    pub fn in_tree(self) -> crate::tree::BitPrefix {
        let mut position = [0; 32];
        position[..8].copy_from_slice(&self.bits.to_be_bytes());
        crate::tree::BitPrefix::of(&position, u16::from(self.length)).expect("64 bits fit into a position")
    }
}

impl fmt::Display for BitPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == 0 {
            return f.write_str("*");
        }
        for bit in 0..self.length.min(64) {
            write!(f, "{}", (self.bits >> (63 - bit)) & 1)?;
        }
        Ok(())
    }
}

impl fmt::Debug for BitPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A shard and the prefix it owns.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ShardRange {
    /// The shard.
    pub group: GroupId,
    /// What it owns.
    pub prefix: BitPrefix,
}

/// A retired shard and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Lineage {
    /// The retired shard.
    pub group: GroupId,
    /// What it owned.
    pub prefix: BitPrefix,
    /// Layout version that retired it.
    pub until: LayoutVersion,
    /// Its successors: two after a split, one after a merge.
    pub successors: Vec<GroupId>,
}

/// Which shard owns which accounts, with full lineage.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Layout {
    /// Format version, 1.
    pub format: u8,
    /// Counts layouts.
    pub version: LayoutVersion,
    /// Sorted by prefix bits; together they cover everything without overlap.
    pub shards: Vec<ShardRange>,
    /// Every shard that ever was and is no more, in the order in which they ended; of two that ended together the
    /// left one first.
    pub lineage: Vec<Lineage>,
}

impl Layout {
    /// An even layout of `count` shards (at least one): a prefix tree whose depths differ by at
    /// most one.
    #[must_use]
    pub fn even(count: u32) -> Self {
        let mut prefixes = vec![BitPrefix::ALL];
        while prefixes.len() < count as usize {
            // The shortest prefix splits next; among equals the first, so the result is determined.
            let at =
                (0..prefixes.len()).min_by_key(|index| prefixes[*index].length).expect("there is always one prefix");
            let parent = prefixes[at];
            prefixes.splice(at..=at, [parent.child(false), parent.child(true)]);
        }
        let shards = prefixes
            .into_iter()
            .zip(0u32..)
            .map(|(prefix, ordinal)| ShardRange { group: GroupId::shard(ordinal), prefix })
            .collect();
        Self { format: 1, version: LayoutVersion(1), shards, lineage: Vec::new() }
    }

    /// The shard that owns a partition. The layout is [`Layout::well_formed`], which whoever takes
    /// one from outside has checked, so there is at least one shard.
    #[must_use]
    pub fn owner(&self, partition: &Hash32) -> GroupId {
        let mut head = [0; 8];
        head.copy_from_slice(&partition.0[..8]);
        let key = u64::from_be_bytes(head);
        let after = self.shards.partition_point(|shard| shard.prefix.bits <= key);
        self.shards[after.saturating_sub(1)].group
    }

    /// The shard that owns an account.
    #[must_use]
    pub fn locate(&self, account: &Address) -> GroupId {
        self.owner(&account.partition())
    }

    /// The prefix of a shard that is part of the layout.
    #[must_use]
    pub fn prefix_of(&self, group: GroupId) -> Option<BitPrefix> {
        self.shards.iter().find(|shard| shard.group == group).map(|shard| shard.prefix)
    }

    fn ended(&self, group: GroupId) -> Option<&Lineage> {
        self.lineage.iter().find(|entry| entry.group == group)
    }

    /// Whether a shard ever was and is no more.
    #[must_use]
    pub fn retired(&self, group: GroupId) -> bool {
        self.ended(group).is_some()
    }

    /// The prefix of a shard, living or retired: it is the same for all its life.
    #[must_use]
    pub fn prefix_ever(&self, group: GroupId) -> Option<BitPrefix> {
        self.prefix_of(group).or_else(|| self.ended(group).map(|entry| entry.prefix))
    }

    /// The living shard that does for a retired one what only one can do: the leftmost of those that came from it.
    /// Every other group is its own heir.
    #[must_use]
    pub fn heir(&self, group: GroupId) -> GroupId {
        let mut heir = group;
        // Successors stand behind their parents, so there are at most as many steps as there are entries.
        for entry in &self.lineage {
            if entry.group == heir {
                heir = entry.successors.first().copied().unwrap_or(heir);
            }
        }
        heir
    }

    /// The living shards that came from a retired one, in order of prefix; any other group itself.
    #[must_use]
    pub fn successors(&self, group: GroupId) -> Vec<GroupId> {
        if !self.retired(group) {
            return vec![group];
        }
        let family = self.family(group);
        self.shards.iter().map(|shard| shard.group).filter(|shard| family.contains(shard)).collect()
    }

    /// Whether `group` is `ancestor` or came from it.
    #[must_use]
    pub fn descends(&self, group: GroupId, ancestor: GroupId) -> bool {
        group == ancestor || self.family(ancestor).contains(&group)
    }

    /// A shard and all that came from it, living or not.
    fn family(&self, ancestor: GroupId) -> BTreeSet<GroupId> {
        let mut family = BTreeSet::from([ancestor]);
        // Successors stand behind their parents, so one pass finds all of them.
        for entry in &self.lineage {
            if family.contains(&entry.group) {
                family.extend(&entry.successors);
            }
        }
        family
    }

    /// The shard that the next one to be born would be: ordinals count up over living and retired.
    #[must_use]
    pub fn next_shard(&self) -> GroupId {
        let living = self.shards.iter().map(|shard| shard.group.ordinal());
        let ever = living.chain(self.lineage.iter().map(|entry| entry.group.ordinal()));
        GroupId::shard(ever.max().map_or(0, |last| last.saturating_add(1)))
    }

    /// Whether a shard of this number could be born: it is a shard's, and no shard ever had it.
    fn free(&self, group: GroupId) -> bool {
        group.kind() == Some(GroupKind::Shard) && self.prefix_ever(group).is_none()
    }

    /// The layout after this one, in which a shard is cut into two new ones, left and right; `None` when there is
    /// no such shard, it cannot be cut once more, or a child is not new.
    #[must_use]
    pub fn split(&self, parent: GroupId, children: [GroupId; 2]) -> Option<Self> {
        let at = self.shards.iter().position(|shard| shard.group == parent)?;
        let prefix = self.shards[at].prefix;
        if prefix.length >= 64 || children[0] == children[1] || !children.iter().all(|child| self.free(*child)) {
            return None;
        }
        let mut next = self.after();
        let halves = [false, true].map(|right| prefix.child(right));
        let born = children.into_iter().zip(halves).map(|(group, prefix)| ShardRange { group, prefix });
        next.shards.splice(at..=at, born);
        next.lineage.push(Lineage { group: parent, prefix, until: next.version, successors: children.to_vec() });
        Some(next)
    }

    /// The layout after this one, in which two shards, left and right, are joined into a new one; `None` when they
    /// are not the halves of one prefix, or the child is not new.
    #[must_use]
    pub fn merge(&self, parents: [GroupId; 2], child: GroupId) -> Option<Self> {
        let at = self.shards.iter().position(|shard| shard.group == parents[0])?;
        // Halves of one prefix that both live stand beside each other.
        let right = self.shards.get(at + 1).filter(|shard| shard.group == parents[1])?;
        let halves = [self.shards[at].prefix, right.prefix];
        let prefix = halves[0].parent()?;
        if halves != [prefix.child(false), prefix.child(true)] || !self.free(child) {
            return None;
        }
        let mut next = self.after();
        next.shards.splice(at..at + 2, [ShardRange { group: child, prefix }]);
        for (group, prefix) in parents.into_iter().zip(halves) {
            next.lineage.push(Lineage { group, prefix, until: next.version, successors: vec![child] });
        }
        Some(next)
    }

    fn after(&self) -> Self {
        Self { version: LayoutVersion(self.version.0 + 1), ..self.clone() }
    }

    /// Whether the shards are distinct and cover everything exactly once, in order, each by a
    /// prefix without bits beyond its length, and whether the retired ones became them: each was cut into its halves
    /// or joined with its other half, once, into shards that are known.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        self.covers_all() && self.lineage_holds()
    }

    fn covers_all(&self) -> bool {
        let mut next: u128 = 0;
        for shard in &self.shards {
            if shard.prefix.length > 64 || u128::from(shard.prefix.bits) != next {
                return false;
            }
            let width = 1u128 << (64 - shard.prefix.length);
            if !next.is_multiple_of(width) {
                return false;
            }
            next += width;
        }
        let mut groups: Vec<_> = self.shards.iter().map(|shard| shard.group).collect();
        groups.sort_unstable();
        next == 1 << 64 && groups.windows(2).all(|pair| pair[0] != pair[1])
    }

    fn lineage_holds(&self) -> bool {
        // Where each shard stands: its prefix, and its place among the retired, which the living are all behind.
        let mut known: BTreeMap<GroupId, (BitPrefix, usize)> =
            self.shards.iter().map(|shard| (shard.group, (shard.prefix, usize::MAX))).collect();
        for (entry, at) in self.lineage.iter().zip(0..) {
            if known.insert(entry.group, (entry.prefix, at)).is_some() {
                return false;
            }
        }
        // Behind its parent, so that a walk from parent to child ends.
        let born = |at: usize, group: &GroupId, prefix: BitPrefix| {
            known.get(group).is_some_and(|(own, place)| *own == prefix && *place > at)
        };
        let mut before = LayoutVersion(0);
        self.lineage.iter().zip(0..).all(|(entry, at)| {
            let became = match (entry.successors.as_slice(), entry.prefix.parent()) {
                ([left, right], _) => {
                    entry.prefix.length < 64
                        && left != right
                        && born(at, left, entry.prefix.child(false))
                        && born(at, right, entry.prefix.child(true))
                }
                ([child], Some(whole)) => whole.length < 64 && born(at, child, whole) && self.joined(at, whole, *child),
                _ => false,
            };
            let in_order = before <= entry.until && entry.until <= self.version;
            before = entry.until;
            became && in_order
        })
    }

    /// Whether the entry at `at` and the one beside it are the halves of `whole`, left first, joined at once.
    fn joined(&self, at: usize, whole: BitPrefix, child: GroupId) -> bool {
        let is_half = |entry: Option<&Lineage>, right: bool, until: LayoutVersion| {
            entry.is_some_and(|entry| {
                entry.prefix == whole.child(right) && entry.until == until && entry.successors == [child]
            })
        };
        let entry = &self.lineage[at];
        let left = entry.prefix == whole.child(false);
        let other = if left { self.lineage.get(at + 1) } else { at.checked_sub(1).and_then(|at| self.lineage.get(at)) };
        is_half(Some(entry), !left, entry.until) && is_half(other, left, entry.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_overlaps_or_a_shard_named_twice_is_not_well_formed() {
        let range =
            |ordinal, bits, length| ShardRange { group: GroupId::shard(ordinal), prefix: BitPrefix { bits, length } };
        let layout = |shards| Layout { shards, ..Layout::even(1) };
        let quarter = 1 << 62;
        assert!(layout(vec![range(0, 0, 1), range(1, 2 * quarter, 1)]).well_formed());
        // The widths add up, but the middle one has a bit beyond its length and covers the first.
        let shifted = vec![range(0, 0, 2), range(1, quarter, 1), range(2, 3 * quarter, 2)];
        assert!(!layout(shifted).well_formed());
        assert!(!layout(vec![range(0, 0, 1), range(0, 2 * quarter, 1)]).well_formed());
        assert!(!layout(Vec::new()).well_formed());
        let long = range(0, 0, 200);
        assert!(long.prefix.covers(&[0; 32]) && !long.prefix.covers(&[1; 32]));
        assert_eq!(long.prefix.to_string().len(), 64);
        assert!(!layout(vec![long]).well_formed());
    }

    #[test]
    fn every_partition_has_exactly_one_owner() {
        for count in 1..40 {
            let layout = Layout::even(count);
            assert!(layout.well_formed());
            assert_eq!(layout.shards.len(), count as usize);
            for seed in 0..200u8 {
                let partition = crate::hash::sha256(&[seed]);
                let owners: Vec<_> = layout.shards.iter().filter(|shard| shard.prefix.covers(&partition.0)).collect();
                assert_eq!(owners.len(), 1);
                assert_eq!(layout.owner(&partition), owners[0].group);
            }
        }
    }
}
