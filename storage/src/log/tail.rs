//! One group's log as readers see it: bounds, single records, and the newest entries in memory.
//!
//! Owns: the in-memory half of a group. Never does: IO. Invariant: an entry leaves memory only
//! after it is on disk, so a reader finds every entry either here or in the database.

use std::collections::VecDeque;

use bytes::Bytes;

use super::mem::{check_append, check_purge};

/// Number of a change within its group, counted from 1.
pub(super) type Sequence = u64;

/// The visible state of a group. Entries are `first..next`; the cache holds `cached_from()..next`.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purged: Option<(u64, Bytes)>,
    first: u64,
    next: u64,
    cache: VecDeque<(Sequence, Bytes)>,
    cache_bytes: usize,
    issued: Sequence,
    durable: Sequence,
    /// Counts truncations and purges, so that a reader notices one during its disk read.
    pub(super) epoch: u64,
}

impl Tail {
    /// The state found on disk; `last` is the last entry with its index.
    pub(super) fn loaded(
        vote: Option<Bytes>,
        committed: Option<Bytes>,
        purged: Option<(u64, Bytes)>,
        first: u64,
        last: Option<(u64, Bytes)>,
    ) -> Self {
        let mut tail = Self { vote, committed, purged, ..Self::default() };
        if let Some((index, entry)) = last {
            tail.cache_bytes = entry.len();
            tail.cache.push_back((0, entry));
            (tail.first, tail.next) = (first, index + 1);
        }
        tail
    }

    /// Numbers the next change.
    pub(super) fn issue(&mut self) -> Sequence {
        self.issued += 1;
        self.issued
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first == self.next
    }

    pub(super) fn first(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.first)
    }

    /// Index behind the last entry; meaningless while empty.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    fn last_index(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.next - 1)
    }

    fn purged_index(&self) -> Option<u64> {
        self.purged.as_ref().map(|(index, _)| *index)
    }

    /// First index that is in memory.
    pub(super) fn cached_from(&self) -> u64 {
        self.next - self.cache.len() as u64
    }

    /// An entry, if it is in memory.
    pub(super) fn cached(&self, index: u64) -> Option<&Bytes> {
        let at = index.checked_sub(self.cached_from())?;
        self.cache.get(usize::try_from(at).ok()?).map(|(_, entry)| entry)
    }

    pub(super) fn check_append(&self, entries: &[(u64, Bytes)]) -> Result<(), String> {
        check_append(entries, self.last_index(), self.purged_index())
    }

    /// Adds checked entries.
    pub(super) fn append(&mut self, sequence: Sequence, entries: Vec<(u64, Bytes)>) {
        let Some(&(first, _)) = entries.first() else {
            return;
        };
        if self.is_empty() {
            (self.first, self.next) = (first, first);
            // A new beginning may not be mistaken for entries that were read before.
            self.epoch += 1;
        }
        for (_, entry) in entries {
            self.cache_bytes += entry.len();
            self.cache.push_back((sequence, entry));
            self.next += 1;
        }
    }

    /// Keeps entries up to `last_kept`. Returns the first index removed, if any entry was.
    pub(super) fn truncate(&mut self, last_kept: Option<u64>) -> Option<u64> {
        let keep_next = last_kept.map_or(0, |last| last.saturating_add(1)).max(self.first);
        if keep_next >= self.next {
            return None;
        }
        self.epoch += 1;
        while self.next > keep_next {
            if let Some((_, entry)) = self.cache.pop_back() {
                self.cache_bytes -= entry.len();
            }
            self.next -= 1;
        }
        Some(keep_next)
    }

    pub(super) fn check_purge(&self, index: u64) -> Result<(), String> {
        check_purge(index, self.first(), self.purged_index())
    }

    /// Removes entries up to `index`. Returns the removed range, if any entry was.
    pub(super) fn purge(&mut self, index: u64, marker: Bytes) -> Option<(u64, u64)> {
        self.purged = Some((index, marker));
        self.epoch += 1;
        let removed = (self.first, (index + 1).min(self.next));
        if removed.1 <= removed.0 {
            return None;
        }
        while self.cached_from() < removed.1 {
            let Some((_, entry)) = self.cache.pop_front() else {
                break;
            };
            self.cache_bytes -= entry.len();
        }
        self.first = removed.1;
        Some(removed)
    }

    /// Notes that all changes up to `sequence` are on disk, and forgets old entries beyond the bound.
    pub(super) fn flushed(&mut self, sequence: Sequence, cache_bytes_max: usize) {
        self.durable = self.durable.max(sequence);
        while self.cache_bytes > cache_bytes_max && self.cache.len() > 1 {
            match self.cache.front() {
                Some((written, entry)) if *written <= self.durable => self.cache_bytes -= entry.len(),
                _ => break,
            }
            self.cache.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::Range<u64>) -> Vec<(u64, Bytes)> {
        range.map(|index| (index, Bytes::from(vec![index as u8; 10]))).collect()
    }

    #[test]
    fn unflushed_entries_are_never_evicted() {
        let mut tail = Tail::default();
        let one = tail.issue();
        tail.append(one, entries(5..10));
        let two = tail.issue();
        tail.append(two, entries(10..15));
        tail.flushed(0, 0);
        assert_eq!(tail.cached_from(), 5);
        tail.flushed(one, 0);
        assert_eq!(tail.cached_from(), 10);
        tail.flushed(two, 25);
        assert_eq!((tail.first(), tail.cached_from(), tail.next()), (Some(5), 13, 15));
        tail.flushed(two, 0);
        assert_eq!(tail.cached_from(), 14, "the last one always stays");
    }

    #[test]
    fn truncate_and_purge_move_the_bounds() {
        let mut tail = Tail::default();
        tail.append(1, entries(1..11));
        tail.flushed(1, 30);
        assert_eq!(tail.cached_from(), 8);
        assert_eq!(tail.truncate(Some(10)), None);
        assert_eq!(tail.truncate(Some(5)), Some(6), "below the cache");
        assert_eq!((tail.first(), tail.cached_from(), tail.next()), (Some(1), 6, 6));
        assert_eq!(tail.purge(2, Bytes::new()), Some((1, 3)));
        assert_eq!(tail.purge(20, Bytes::new()), Some((3, 6)));
        assert!(tail.is_empty() && tail.check_append(&entries(20..21)).is_err());
        assert!(tail.check_append(&entries(21..22)).is_ok());
        assert!(tail.check_purge(19).is_err());
        assert_eq!(tail.truncate(None), None);
    }
}
