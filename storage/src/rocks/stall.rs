//! How many table files there may be on the uppermost level of a state before its writers are held back.
//!
//! RocksDB slows writers down, and then stops them, where more such files come than compactions take away. A state that was
//! not compacted for a while, since payers waited for it, has many of them when compactions begin: its writers would stand
//! still until the first one has ended, which rewrites most of the state. So those that are there by then do not count.
//! Whoever writes faster than is compacted is held back as before.

use std::ffi::c_int;

use rocksdb::{DB, Error, Options};

/// Files from which on writers are slowed down, and stopped. RocksDB's own numbers are 20 and 36, for threads that compact as
/// fast as any other; these stand back ([`super::compactors`]), and a flush that somebody waits for is not begun either where it
/// would slow writers down. Beyond what is compacted at (4 files of a log, 8 of a state) there is room for 24 write buffers of a
/// state while one compaction runs, and for 12 at RocksDB's numbers.
const LIMITS: [usize; 2] = [32, 64];

/// Files on the level that memory tables are flushed to.
fn uppermost(db: &DB) -> Result<usize, Error> {
    Ok(db.live_files()?.iter().filter(|file| file.level == 0).count())
}

/// The limits of a state that begins with so many files.
fn limits(files: usize) -> [String; 2] {
    LIMITS.map(|limit| limit.saturating_add(files).to_string())
}

/// The limits of a database, where nothing else is said while it is open.
pub(super) fn set(options: &mut Options) {
    let [slowed, stopped] = LIMITS.map(|limit| c_int::try_from(limit).unwrap_or(c_int::MAX));
    options.set_level_zero_slowdown_writes_trigger(slowed);
    options.set_level_zero_stop_writes_trigger(stopped);
}

/// Lets the writers of a state that was just opened go on, however many files it has.
pub(super) fn admit(db: &DB) -> Result<(), Error> {
    let files = uppermost(db)?;
    if files < LIMITS[0] {
        return Ok(());
    }
    let [slowed, stopped] = limits(files);
    db.set_options(&[
        ("level0_slowdown_writes_trigger", slowed.as_str()),
        ("level0_stop_writes_trigger", stopped.as_str()),
    ])
}

/// Has a state compacted in the background from now on, and lets its writers go on meanwhile.
pub(super) fn wake(db: &DB) -> Result<(), Error> {
    let [slowed, stopped] = limits(uppermost(db)?);
    db.set_options(&[
        ("level0_slowdown_writes_trigger", slowed.as_str()),
        ("level0_stop_writes_trigger", stopped.as_str()),
        ("disable_auto_compactions", "false"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with more files than writers are stopped at, which nothing was compacted in.
    fn full(folder: &std::path::Path) -> DB {
        let mut options = Options::default();
        set(&mut options);
        options.create_if_missing(true);
        options.set_disable_auto_compactions(true);
        let db = DB::open(&options, folder).expect("it opens");
        for number in 0..=64_u8 {
            db.put([number], [number]).expect("it is written");
            db.flush().expect("it is flushed");
        }
        assert_eq!(uppermost(&db), Ok(65));
        db
    }

    /// Whether writers are stopped, and how much they are slowed down.
    fn held_back(db: &DB) -> [Option<u64>; 2] {
        let of = |name: &str| db.property_int_value(name).expect("a property");
        [of("rocksdb.is-write-stopped"), of("rocksdb.actual-delayed-write-rate")]
    }

    #[test]
    fn who_writes_to_a_state_that_is_woken_late_is_not_held_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = full(folder.path());
        wake(&db).expect("it is woken");
        assert_eq!(held_back(&db), [Some(0), Some(0)]);
        db.put([65], [65]).expect("it is written");
    }

    #[test]
    fn who_writes_to_a_state_that_is_opened_with_many_files_is_not_held_back() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(full(folder.path()));
        let mut options = Options::default();
        set(&mut options);
        let db = DB::open(&options, folder.path()).expect("it opens");
        admit(&db).expect("it is let in");
        assert_eq!(held_back(&db), [Some(0), Some(0)]);
        db.put([65], [65]).expect("it is written");
    }

    #[test]
    fn what_comes_later_counts() {
        assert_eq!(limits(0), ["32", "64"]);
        assert_eq!(limits(40), ["72", "104"]);
    }
}
