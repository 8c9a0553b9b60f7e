//! The offline check: reads every block of a database and trusts nothing.
//!
//! Owns: `seamark node check`'s storage half. Never does: write, repair or guess; the database is
//! opened read-only and every checksum on the way is verified.

use std::path::{Path, PathBuf};

use rocksdb::{DB, LiveFile, ReadOptions};

use crate::StorageError;
use crate::kv::KeyRange;
use crate::rocks::{Identity, Kind, Profile, ResourceLimits, SharedResources, live_folder, map_error};

/// What is read ahead of each table file where a database is read as a whole.
const AHEAD_BYTES: usize = 2 << 20;

/// What a complete check saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The live database folder.
    pub folder: PathBuf,
    /// Cluster id in the identity file.
    pub cluster: [u8; 32],
    /// Node in the identity file; none in one that an earlier program wrote.
    pub node: Option<u32>,
    /// Group id in the identity file (0 for the shared log).
    pub group: u64,
    /// Format version in the identity file.
    pub format_version: u32,
    /// Pairs read.
    pub pairs: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Table files.
    pub files: u64,
    /// Changes that were ever made, as the database counts them.
    pub sequence: u64,
}

/// Counts of [`check_all`].
pub(crate) struct Checked {
    pub(crate) pairs: u64,
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    pub(crate) sequence: u64,
}

/// A database that is read as a whole or in parts, every block of it verified.
pub(crate) struct Reader {
    db: DB,
    folder: PathBuf,
    /// Of each table file, while a range is read.
    ahead_bytes: usize,
}

impl Reader {
    /// Opens the database folder `folder`, which nobody writes to.
    pub(crate) fn open(folder: &Path, shared: &SharedResources, profile: Profile) -> Result<Self, StorageError> {
        let map = |error: rocksdb::Error| map_error(folder, &error);
        let options = shared.options(profile, false).map_err(map)?;
        let db = DB::open_for_read_only(&options, folder, false).map_err(map)?;
        Ok(Self { db, folder: folder.to_path_buf(), ahead_bytes: AHEAD_BYTES })
    }

    /// For so many ranges that are read at a time, with as much memory as one takes alone.
    pub(crate) fn for_ranges(self, ranges: usize) -> Self {
        Self { ahead_bytes: self.ahead_bytes / ranges.max(1), ..self }
    }

    /// Its table files.
    pub(crate) fn files(&self) -> Result<Vec<LiveFile>, StorageError> {
        self.db.live_files().map_err(|error| map_error(&self.folder, &error))
    }

    /// Shows each pair of a range to `visit`, in the order of the keys. Returns how many there were, and their bytes.
    pub(crate) fn read(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
    ) -> Result<(u64, u64), StorageError> {
        let mut reading = ReadOptions::default();
        reading.set_verify_checksums(true);
        reading.fill_cache(false);
        reading.set_total_order_seek(true);
        reading.set_readahead_size(self.ahead_bytes);
        if let Some(end) = &range.end {
            reading.set_iterate_upper_bound(end.to_vec());
        }
        let mut iterator = self.db.raw_iterator_opt(reading);
        iterator.seek(&range.start);
        let (mut pairs, mut bytes) = (0, 0);
        while let Some((key, value)) = iterator.item() {
            visit(key, value)?;
            pairs += 1;
            bytes += (key.len() + value.len()) as u64;
            iterator.next();
        }
        iterator.status().map_err(|error| map_error(&self.folder, &error))?;
        Ok((pairs, bytes))
    }
}

/// Reads everything in the database folder `folder`, showing each pair to `visit`.
pub(crate) fn check_all(
    folder: &Path,
    shared: &SharedResources,
    profile: Profile,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
) -> Result<Checked, StorageError> {
    let reader = Reader::open(folder, shared, profile)?;
    let files = reader.files()?.len() as u64;
    let (pairs, bytes) = reader.read(&KeyRange::all(), visit)?;
    Ok(Checked { pairs, bytes, files, sequence: reader.db.latest_sequence_number() })
}

/// Checks `root` as a whole; `kind` is what it must hold.
pub(crate) fn verify_root(
    root: &Path,
    kind: Kind,
    profile: Profile,
    visit: &mut dyn FnMut(&Path, &[u8], &[u8]) -> Result<(), StorageError>,
) -> Result<VerifyReport, StorageError> {
    let folder = live_folder(root)?;
    let Identity { kind: found, cluster, group, format_version, node } = Identity::load(&folder)?;
    if found != kind {
        let (found, expected) = (format!("{found:?}"), format!("{kind:?}"));
        return Err(StorageError::WrongGroup { path: folder, found, expected });
    }
    let limits = ResourceLimits { block_cache_bytes: 8 << 20, ..ResourceLimits::default() };
    let shared = SharedResources::new(limits)?;
    let checked = check_all(&folder, &shared, profile, &mut |key, value| visit(&folder, key, value))?;
    let Checked { pairs, bytes, files, sequence } = checked;
    Ok(VerifyReport { folder, cluster, node, group, format_version, pairs, bytes, files, sequence })
}

/// Checks a state folder that no process has open: pointer, identity, manifest, and every block.
///
/// Values of an encrypted database are checked by the table's checksums, not decrypted: the check
/// needs no key.
pub fn verify_offline(root: &Path) -> Result<VerifyReport, StorageError> {
    verify_root(root, Kind::State, Profile::State, &mut |_, _, _| Ok(()))
}
