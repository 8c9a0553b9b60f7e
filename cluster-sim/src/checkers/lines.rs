//! The checkers' own view of the layout: which shard owns what, for all of its life, and which came from which. It is
//! worked out from the layouts that blocks of the beacon put in force, by bits of prefixes and lists of successors alone.

use std::collections::{BTreeMap, BTreeSet};

use ledger::ids::GroupId;
use ledger::layout::{BitPrefix, Layout};

/// Every shard that there was so far.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    prefixes: BTreeMap<GroupId, BitPrefix>,
    /// Retired ones, and what each became, left first.
    successors: BTreeMap<GroupId, Vec<GroupId>>,
    /// Layouts, by version.
    layouts: BTreeMap<u64, Layout>,
}

/// Whether a prefix is one of a partition's.
#[must_use]
pub fn under(prefix: &BitPrefix, partition: &[u8; 32]) -> bool {
    let bit = |at: u8| partition[usize::from(at / 8)] >> (7 - at % 8) & 1;
    (0..prefix.length).all(|at| u64::from(bit(at)) == prefix.bits >> (63 - at) & 1)
}

impl Lines {
    /// What there is with the first layout.
    #[must_use]
    pub fn new(first: &Layout) -> Self {
        let mut lines = Self::default();
        lines.learn(first);
        lines
    }

    /// A layout is in force.
    pub fn learn(&mut self, layout: &Layout) {
        for shard in &layout.shards {
            self.prefixes.entry(shard.group).or_insert(shard.prefix);
        }
        for ended in &layout.lineage {
            self.prefixes.entry(ended.group).or_insert(ended.prefix);
            self.successors.entry(ended.group).or_insert_with(|| ended.successors.clone());
        }
        self.layouts.entry(layout.version.0).or_insert_with(|| layout.clone());
    }

    /// Whether any shard has ended so far.
    #[must_use]
    pub fn changed(&self) -> bool {
        !self.successors.is_empty()
    }

    /// The layouts so far, by version.
    #[must_use]
    pub fn layouts(&self) -> &BTreeMap<u64, Layout> {
        &self.layouts
    }

    /// Whether a shard has ended.
    #[must_use]
    pub fn retired(&self, group: GroupId) -> bool {
        self.successors.contains_key(&group)
    }

    /// What a shard became that has ended, left first; nothing of one that lives.
    #[must_use]
    pub fn successors(&self, group: GroupId) -> &[GroupId] {
        self.successors.get(&group).map_or(&[], Vec::as_slice)
    }

    /// Shards that live.
    pub fn living(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.prefixes.keys().copied().filter(|group| !self.retired(*group))
    }

    /// What a shard owns, living or not.
    #[must_use]
    pub fn prefix(&self, group: GroupId) -> Option<&BitPrefix> {
        self.prefixes.get(&group)
    }

    /// Whether a shard owns a partition, or did while it lived.
    #[must_use]
    pub fn owns(&self, group: GroupId, partition: &[u8; 32]) -> bool {
        self.prefixes.get(&group).is_some_and(|prefix| under(prefix, partition))
    }

    /// The living shard that owns a partition.
    #[must_use]
    pub fn owner(&self, partition: &[u8; 32]) -> Option<GroupId> {
        self.living().find(|group| self.owns(*group, partition))
    }

    /// Whether a group is another one, or came from it.
    #[must_use]
    pub fn descends(&self, group: GroupId, ancestor: GroupId) -> bool {
        let (mut open, mut seen) = (vec![ancestor], BTreeSet::new());
        while let Some(next) = open.pop() {
            if next == group {
                return true;
            }
            if seen.insert(next) {
                open.extend(self.successors.get(&next).into_iter().flatten());
            }
        }
        false
    }

    /// Whether a group does, or did, for another one what only one may do: it is that one, or its leftmost successor, or
    /// that one's.
    #[must_use]
    pub fn stands_for(&self, group: GroupId, named: GroupId) -> bool {
        let mut heir = named;
        while heir != group {
            let Some(next) = self.successors.get(&heir).and_then(|successors| successors.first()) else { return false };
            heir = *next;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_what_and_who_owns_what() {
        let shard = GroupId::shard;
        let first = Layout::even(2);
        let cut = first.split(shard(1), [shard(2), shard(3)]).expect("it can be cut");
        let joined = cut.merge([shard(2), shard(3)], shard(4)).expect("they are halves");
        let mut lines = Lines::new(&first);
        assert!(!lines.changed());
        lines.learn(&cut);
        lines.learn(&joined);
        assert_eq!(lines.living().collect::<Vec<_>>(), vec![shard(0), shard(4)]);
        assert!(lines.descends(shard(4), shard(1)) && lines.descends(shard(4), shard(3)));
        assert!(!lines.descends(shard(4), shard(0)) && !lines.descends(shard(1), shard(4)));
        assert!(lines.stands_for(shard(4), shard(1)) && lines.stands_for(shard(2), shard(1)));
        assert!(!lines.stands_for(shard(3), shard(1)));
        for seed in 0..64u8 {
            let partition = ledger::hash::sha256(&[seed]);
            let owners: Vec<GroupId> = lines.living().filter(|group| lines.owns(*group, &partition.0)).collect();
            assert_eq!(owners, vec![joined.owner(&partition)]);
            assert_eq!(lines.owner(&partition.0), Some(owners[0]));
        }
    }
}
