//! Keys of the shared log: `group(8, big endian) ‖ kind(1) ‖ index(8, big endian)`.
//!
//! Owns: the layout, so that a group is one range and its entries are in index order. What a group keeps
//! beside its entries has the group's number with the highest bit set, which no group's own number has.

/// Length of every key.
pub(super) const KEY_BYTES: usize = 17;
/// A key of the shared log.
pub(super) type LogKey = [u8; KEY_BYTES];

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// The hard state.
    Vote,
    /// The committed mark.
    Committed,
    /// Index and marker of the last purge.
    Purged,
    /// A log entry.
    Entry,
}

impl Record {
    fn tag(self) -> u8 {
        match self {
            Self::Vote => 0,
            Self::Committed => 1,
            Self::Purged => 2,
            Self::Entry => 3,
        }
    }
}

/// Set in the number of the log beside a group's entries.
const BESIDE: u64 = 1 << 63;

/// The number of the log that a group keeps beside its entries; that of such a log is itself.
pub(super) const fn beside(group: u64) -> u64 {
    group | BESIDE
}

/// A log for people.
pub(super) fn name(group: u64) -> String {
    match group & BESIDE {
        0 => format!("group {group}"),
        _ => format!("what group {} keeps beside its entries", group & !BESIDE),
    }
}

fn join(group: u64, tag: u8, index: u64) -> LogKey {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&group.to_be_bytes());
    key[8] = tag;
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The key of an entry.
pub(super) fn entry(group: u64, index: u64) -> LogKey {
    join(group, Record::Entry.tag(), index)
}

/// The key of a record of which a group has one.
pub(super) fn single(group: u64, record: Record) -> LogKey {
    join(group, record.tag(), 0)
}

/// The first key behind all entries of a group.
pub(super) fn entries_end(group: u64) -> LogKey {
    join(group, Record::Entry.tag() + 1, 0)
}

/// The range of everything a group has.
pub(super) fn group_range(group: u64) -> (LogKey, LogKey) {
    (join(group, 0, 0), join(group, u8::MAX, u64::MAX))
}

/// Takes a key apart.
pub(super) fn parse(key: &[u8]) -> Option<(u64, Record, u64)> {
    let (group, rest) = key.split_first_chunk::<8>()?;
    let (tag, index) = rest.split_first()?;
    let record = match tag {
        0 => Record::Vote,
        1 => Record::Committed,
        2 => Record::Purged,
        3 => Record::Entry,
        _ => return None,
    };
    Some((u64::from_be_bytes(*group), record, u64::from_be_bytes(index.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_group_then_kind_then_index_and_parse_back() {
        let sorted = [
            single(1, Record::Vote),
            single(1, Record::Purged),
            entry(1, 0),
            entry(1, 255),
            entry(1, 256),
            entries_end(1),
            single(2, Record::Vote),
            entry(u64::MAX, u64::MAX),
        ];
        assert!(sorted.is_sorted());
        assert_eq!(parse(&entry(7, 9)), Some((7, Record::Entry, 9)));
        assert_eq!(parse(&single(7, Record::Committed)), Some((7, Record::Committed, 0)));
        assert_eq!(parse(&entries_end(7)), None);
        assert_eq!(parse(b"short"), None);
        let (from, to) = group_range(1);
        assert!(from <= sorted[0] && entries_end(1) < to && to < sorted[6]);
        assert_eq!(entry(1, 2), *b"\0\0\0\0\0\0\0\x01\x03\0\0\0\0\0\0\0\x02", "pinned layout");
    }
}
