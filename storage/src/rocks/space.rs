//! The space of removed keys: what giving it back costs, and what of it costs nothing.

use rocksdb::{DB, Error, LiveFile, WriteBatch, WriteOptions};

use crate::kv::KeyRange;

/// Stands behind all keys with the same beginning.
const BEHIND: [u8; 64] = [0xff; 64];

/// Whether any key of a range may lie in a file.
fn touches(file: &LiveFile, range: &KeyRange) -> bool {
    let ends_before = file.end_key.as_deref().is_some_and(|last| last < &range.start[..]);
    let begins_behind = match (&file.start_key, &range.end) {
        (Some(first), Some(end)) => first[..] >= end[..],
        (None, _) | (_, None) => false,
    };
    !ends_before && !begins_behind
}

/// Bytes of the files that are read, and at most written anew, where a range is compacted. What memory tables were flushed to
/// spans nearly all keys: where any of that is compacted, all of it is, and with it all of the level below.
pub(super) fn compacted_bytes(files: &[LiveFile], range: &KeyRange) -> u64 {
    let flushed = files.iter().any(|file| file.level == 0 && touches(file, range));
    let below = files.iter().map(|file| file.level).filter(|level| *level > 0).min();
    let spanned = |file: &LiveFile| flushed && (file.level == 0 || Some(file.level) == below);
    let compacted = files.iter().filter(|file| spanned(file) || touches(file, range));
    compacted.map(|file| file.size as u64).sum()
}

/// The last key before another one, or one behind it that nobody has.
fn last_before(key: &[u8]) -> Vec<u8> {
    let Some((last, first)) = key.split_last() else { return Vec::new() };
    match last.checked_sub(1) {
        None => first.to_vec(),
        Some(last) => [first, &[last], &BEHIND[..]].concat(),
    }
}

/// Removes the table files that lie in one of these ranges, first and behind the last key, in all of which nothing is left. No
/// file may be compacted meanwhile.
pub(super) fn drop_files(db: &DB, no_wal: &WriteOptions, ranges: &[(&[u8], &[u8])]) -> Result<(), Error> {
    if ranges.is_empty() {
        return Ok(());
    }
    // A file that goes may hold what removes older pairs in a file that stays. So what removes all of them is written once more:
    // it is flushed to the uppermost level, of which nothing goes, and nothing that is not compacted leaves it.
    let mut above = WriteBatch::default();
    for (start, end) in ranges {
        above.delete_range(*start, *end);
    }
    db.write_opt(above, no_wal)?;
    db.flush()?;
    for (start, end) in ranges {
        // RocksDB takes the end along.
        db.delete_file_in_range(*start, &last_before(end)[..])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(level: i32, size: usize, keys: (u8, u8)) -> LiveFile {
        LiveFile {
            column_family_name: "default".into(),
            name: "/000001.sst".into(),
            size,
            level,
            start_key: Some(vec![keys.0]),
            end_key: Some(vec![keys.1]),
            num_entries: 1,
            num_deletions: 0,
        }
    }

    #[test]
    fn the_last_key_before_another_one_is_before_it_and_behind_all_others() {
        let table: [(&[u8], &[&[u8]]); 3] = [
            (&[32], &[&[31], &[31, 255, 255], &[]]),
            (&[32, 0], &[&[32], &[31, 255]]),
            (&[32, 1], &[&[32, 0], &[32, 0, 255], &[32]]),
        ];
        for (key, before) in table {
            let last = last_before(key);
            assert!(&last[..] < key, "{key:?}");
            assert!(before.iter().all(|before| *before <= &last[..]), "{key:?}");
        }
        assert!(last_before(&[]).is_empty());
    }

    #[test]
    fn who_compacts_what_was_flushed_compacts_the_level_below_as_well() {
        let settled = vec![file(5, 1, (0, 9)), file(5, 2, (10, 19)), file(6, 4, (0, 9)), file(6, 8, (10, 19))];
        let bytes =
            |files: &[LiveFile], first: u8, end: u8| compacted_bytes(files, &KeyRange::new(vec![first], vec![end]));
        assert_eq!([bytes(&settled, 0, 5), bytes(&settled, 9, 11), bytes(&settled, 20, 30)], [5, 15, 0]);
        let flushed = [settled, vec![file(0, 16, (0, 15)), file(0, 32, (1, 19))]].concat();
        assert_eq!([bytes(&flushed, 0, 1), bytes(&flushed, 16, 17), bytes(&flushed, 20, 30)], [55, 59, 0]);
        assert_eq!(compacted_bytes(&flushed, &KeyRange::all()), 63);
        assert_eq!(compacted_bytes(&[], &KeyRange::all()), 0);
    }
}
