//! A database of all that is in another one, its values sealed under another cipher.
//!
//! Owns how that is done: in parts that lie behind each other, as many at a time as there are processors, since opening and
//! sealing values is what takes the time. Never does: say under which ciphers, or where the database goes.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use bytes::Bytes;
use rocksdb::{DBCompressionType, Options};

use crate::StorageError;
use crate::cipher::ValueCipher;
use crate::kv::KeyRange;
use crate::rocks::state::open_database;
use crate::rocks::tables::{TABLE_BYTES, Tables, move_into};
use crate::rocks::verify::Reader;
use crate::rocks::{Profile, SharedResources, map_error};
use crate::sealed::open_value;

/// Parts that are sealed at a time, however many processors there are.
const AT_A_TIME_MAX: usize = 4;

/// Makes a database in `folder` of all pairs in `received`, their values opened by `sender` and sealed under `cipher`. Reads
/// every block.
pub(super) fn reseal(
    received: &Path,
    folder: &Path,
    shared: &SharedResources,
    sender: &dyn ValueCipher,
    cipher: &dyn ValueCipher,
) -> Result<(), StorageError> {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(AT_A_TIME_MAX);
    reseal_in(processors, TABLE_BYTES, (received, folder), shared, (sender, cipher))
}

/// In so many parts at most, none of which is smaller than this but the last.
fn reseal_in(
    parts_max: usize,
    part_bytes_min: u64,
    (received, folder): (&Path, &Path),
    shared: &SharedResources,
    (sender, cipher): (&dyn ValueCipher, &dyn ValueCipher),
) -> Result<(), StorageError> {
    let database = open_database(folder, shared, true)?;
    let parts = folder.join("resealed");
    std::fs::create_dir(&parts).map_err(|error| StorageError::io(&parts, &error))?;
    let mut options = shared.options(Profile::State, true).map_err(|error| map_error(folder, &error))?;
    // What a cipher has made does not compress.
    options.set_compression_type(DBCompressionType::None);
    let reader = Reader::open(received, shared, Profile::State)?;
    let files = reader.files()?;
    let starts = files.iter().filter_map(|file| Some((file.start_key.as_deref()?, file.size as u64))).collect();
    let ranges = ranges(cuts(starts, parts_max, part_bytes_min));
    let reader = reader.for_ranges(ranges.len());
    let part = Part { reader: &reader, received, options: &options, sender, cipher };
    let made: Vec<Result<Vec<PathBuf>, StorageError>> = thread::scope(|scope| {
        let part = &part;
        let at_work: Vec<_> = ranges
            .into_iter()
            .enumerate()
            .map(|(number, range)| {
                let folder = parts.join(number.to_string());
                scope.spawn(move || part.make(&range, &folder))
            })
            .collect();
        at_work.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let paths: Vec<Vec<PathBuf>> = made.into_iter().collect::<Result<_, _>>()?;
    move_into(&database, &parts, paths.concat())
}

/// What all parts go by.
struct Part<'a> {
    reader: &'a Reader,
    received: &'a Path,
    options: &'a Options,
    sender: &'a dyn ValueCipher,
    cipher: &'a dyn ValueCipher,
}

impl Part<'_> {
    /// Writes table files of a range into a folder that is not there yet.
    fn make(&self, range: &KeyRange, folder: &Path) -> Result<Vec<PathBuf>, StorageError> {
        std::fs::create_dir(folder).map_err(|error| StorageError::io(folder, &error))?;
        let mut tables = Tables::new(self.options, folder);
        self.reader.read(range, &mut |key, sealed| {
            let value = open_value(self.sender, self.received, key, Bytes::copy_from_slice(sealed))?;
            tables.put(key, &self.cipher.seal(key, &value))
        })?;
        tables.finish()
    }
}

/// Where to cut what lies in files with these first keys and so many bytes: parts of about one size, so many at most, and none
/// but the last smaller than this.
fn cuts(mut files: Vec<(&[u8], u64)>, parts_max: usize, part_bytes_min: u64) -> Vec<&[u8]> {
    files.sort_unstable();
    let whole_bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let part_bytes = whole_bytes.div_ceil(parts_max.max(1) as u64).max(part_bytes_min).max(1);
    let (mut cuts, mut open_bytes) = (Vec::new(), 0);
    // Nothing lies before the first of them.
    let mut last: &[u8] = files.first().map_or(&[], |(start, _)| start);
    for (start, bytes) in files {
        if open_bytes >= part_bytes && start > last {
            cuts.push(start);
            (last, open_bytes) = (start, 0);
        }
        open_bytes += bytes;
    }
    cuts
}

/// All keys, cut there.
fn ranges(cuts: Vec<&[u8]>) -> Vec<KeyRange> {
    let mut starts: Vec<Bytes> = vec![Bytes::new()];
    starts.extend(cuts.into_iter().map(Bytes::copy_from_slice));
    let ends = starts.iter().skip(1).cloned().map(Some).chain([None]);
    starts.iter().cloned().zip(ends).map(|(start, end)| KeyRange { start, end }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cipher::PlainCipher;
    use crate::kv::{Kv, WriteBatch};
    use crate::rocks::{ResourceLimits, StateDb, StateIdentity};

    #[test]
    fn parts_are_of_about_one_size() {
        type File = (&'static [u8], u64);
        let table: [(&[File], usize, u64, &[&[u8]]); 7] = [
            (&[], 4, 1, &[]),
            (&[(b"a", 10)], 4, 1, &[]),
            // Whatever order they are told in.
            (&[(b"c", 10), (b"a", 10), (b"d", 10), (b"b", 10)], 2, 1, &[b"c"]),
            (&[(b"a", 10), (b"b", 10), (b"c", 10), (b"d", 10)], 9, 1, &[b"b", b"c", b"d"]),
            // Small ones are not cut.
            (&[(b"a", 10), (b"b", 10), (b"c", 10), (b"d", 10)], 4, 40, &[]),
            (&[(b"a", 10), (b"b", 10), (b"c", 10), (b"d", 10)], 4, 15, &[b"c"]),
            // What memory tables were flushed to begins with the same key.
            (&[(b"a", 30), (b"a", 30), (b"a", 30), (b"b", 5)], 3, 1, &[b"b"]),
        ];
        for (files, parts_max, part_bytes_min, expected) in table {
            assert_eq!(cuts(files.to_vec(), parts_max, part_bytes_min), expected, "{files:?}");
        }
    }

    #[test]
    fn nothing_is_lost_or_doubled_where_parts_meet() {
        let root = tempfile::tempdir().expect("a folder");
        let shared = SharedResources::new(ResourceLimits::default()).expect("resources");
        let identity = StateIdentity { cluster: [1; 32], node: 1, group: 1, format_version: 1 };
        let open = |name: &str| StateDb::open(&root.path().join(name), &shared, identity, Arc::new(PlainCipher));
        let source = open("source").expect("open");
        for file in 0..6_u8 {
            let mut batch = WriteBatch::new();
            for at in 0..50_u8 {
                // Each file begins with a key that an earlier one has, too.
                batch.put(vec![file, at], vec![file; 64]);
                batch.put(vec![file.saturating_sub(1), 49], vec![file; 3]);
            }
            batch.delete(vec![file, 7]);
            source.write(batch).expect("write");
            source.flush().expect("flush");
        }
        let [kept, made] = ["kept", "made"].map(|name| root.path().join(name));
        source.checkpoint(&kept).expect("checkpoint");
        let all = source.scan(KeyRange::all(), usize::MAX).expect("scan");
        for parts_max in [1, 3, 100] {
            std::fs::create_dir(&made).expect("a folder");
            reseal_in(parts_max, 1, (&kept, &made), &shared, (&PlainCipher, &PlainCipher)).expect("resealed");
            let (mut pairs, reader) = (Vec::new(), Reader::open(&made, &shared, Profile::State).expect("open"));
            let mut visit = |key: &[u8], value: &[u8]| {
                pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                Ok(())
            };
            reader.read(&KeyRange::all(), &mut visit).expect("read");
            assert_eq!(pairs, all, "{parts_max} parts");
            drop(reader);
            std::fs::remove_dir_all(&made).expect("removed");
        }
    }
}
