//! The layout: which shard owns which accounts, as a prefix tree over account partitions.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::hash::Hash32;
use crate::ids::{Address, GroupId, LayoutVersion};

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
    /// Every shard that ever was and is no more.
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

    /// Whether the shards are distinct and cover everything exactly once, in order, each by a
    /// prefix without bits beyond its length.
    #[must_use]
    pub fn well_formed(&self) -> bool {
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
