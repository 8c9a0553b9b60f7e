//! One group's state in RocksDB.
//!
//! Owns: the database of one group: single column family, WAL off, values sealed by a cipher.
//! Never does: replay; what was not flushed when the process died is replayed from the log by the
//! commit loop. One column family is what makes a block's writes, page roots, mail and applied log
//! id durable together: memory tables are flushed whole and in order, so a crash leaves a prefix of
//! the batches.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DEFAULT_COLUMN_FAMILY_NAME,
    Options, Range, ReadOptions, Snapshot, WriteOptions,
};

use crate::StorageError;
use crate::cipher::ValueCipher;
use crate::kv::{KeyRange, Kv, KvView, WriteBatch, WriteOp};
use crate::rocks::anchor::Anchor;
use crate::rocks::folder::{remove_old, stage, stage_by, switch, sync_folder};
use crate::rocks::reseal::reseal;
use crate::rocks::tables::Tables;
use crate::rocks::{
    Identity, Kind, Profile, SharedResources, check_all, map_error, open_or_create, space, stall, tables,
};
use crate::sealed::open_value;

/// Bytes that a sweep has read ahead of it.
const SWEEP_AHEAD_BYTES: usize = 1 << 20;
/// Stands behind every key where a range has no end.
const BEHIND_ALL: [u8; 64] = [0xff; 64];

/// Whose state a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateIdentity {
    /// The cluster's id.
    pub cluster: [u8; 32],
    /// The node, from 1.
    pub node: u32,
    /// The group's id.
    pub group: u64,
    /// Newest format of keys and values that the caller reads; a new folder is written in it.
    pub format_version: u32,
}

impl StateIdentity {
    fn to_file(self) -> Identity {
        let Self { cluster, node, group, format_version } = self;
        Identity { kind: Kind::State, cluster, group, format_version, node: Some(node) }
    }
}

/// A copy of a snapshot beside the live state: open, whole, and not live. Dropped, it is removed.
pub struct StagedState {
    db: Option<StateDb>,
    root: PathBuf,
    generation: u64,
}

impl StagedState {
    /// The copy, to be judged before it becomes the state. What is written into it becomes part of it.
    pub fn db(&self) -> &StateDb {
        self.db.as_ref().expect("it is there until it is switched to")
    }

    /// Makes the copy durable and then, by one pointer switch, the live state. A crash leaves either
    /// the old state or this one. The old one may still be open: see [`StateDb::remove_old`].
    pub fn switch(mut self) -> Result<StateDb, StorageError> {
        self.db().flush()?;
        switch(self.db().folder(), &self.root, self.generation)?;
        Ok(self.db.take().expect("it is switched to once"))
    }
}

impl Drop for StagedState {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let folder = db.folder.clone();
        drop(db);
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "a staged snapshot could not be removed");
        }
    }
}

/// A group's state database.
pub struct StateDb {
    db: DB,
    /// By which it finds its files wherever its root goes; closed behind it.
    anchor: Option<Anchor>,
    folder: PathBuf,
    identity: Identity,
    cipher: Arc<dyn ValueCipher>,
    no_wal: WriteOptions,
    /// Whether nothing is compacted in the background so far.
    quiet: AtomicBool,
}

pub(super) fn open_database(folder: &Path, shared: &SharedResources, create: bool) -> Result<DB, StorageError> {
    let options = shared.options(Profile::State, create).map_err(|error| map_error(folder, &error))?;
    open_with(folder, &options)
}

fn open_without_compactions(folder: &Path, shared: &SharedResources, create: bool) -> Result<DB, StorageError> {
    open_quietly((folder, folder), shared, create)
}

/// Opens the database in `folder` by another name of it, without compactions.
fn open_quietly((name, folder): (&Path, &Path), shared: &SharedResources, create: bool) -> Result<DB, StorageError> {
    let options = shared.quiet_options(create).map_err(|error| map_error(folder, &error))?;
    open_named((name, folder), &options)
}

fn open_with(folder: &Path, options: &Options) -> Result<DB, StorageError> {
    open_named((folder, folder), options)
}

fn open_named((name, folder): (&Path, &Path), options: &Options) -> Result<DB, StorageError> {
    let family = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.clone());
    DB::open_cf_descriptors(options, name, [family]).map_err(|error| map_error(folder, &error))
}

impl StateDb {
    /// Opens the state under `root`, creating an empty one if there is none.
    pub fn open(
        root: &Path,
        shared: &SharedResources,
        identity: StateIdentity,
        cipher: Arc<dyn ValueCipher>,
    ) -> Result<Self, StorageError> {
        let open = |folder: &Path, create: bool| open_database(folder, shared, create);
        let (db, folder, identity) = open_or_create(root, &identity.to_file(), open)?;
        stall::admit(&db).map_err(|error| map_error(&folder, &error))?;
        Ok(Self::of(db, folder, identity, cipher))
    }

    /// As [`StateDb::open`], and nothing is compacted in the background before [`Kv::wake`]: for a state that payers wait for.
    pub fn open_quiet(
        root: &Path,
        shared: &SharedResources,
        identity: StateIdentity,
        cipher: Arc<dyn ValueCipher>,
    ) -> Result<Self, StorageError> {
        let open = |folder: &Path, create: bool| open_without_compactions(folder, shared, create);
        let (db, folder, identity) = open_or_create(root, &identity.to_file(), open)?;
        Ok(Self { quiet: true.into(), ..Self::of(db, folder, identity, cipher) })
    }

    fn of(db: DB, folder: PathBuf, identity: Identity, cipher: Arc<dyn ValueCipher>) -> Self {
        let mut no_wal = WriteOptions::default();
        no_wal.disable_wal(true);
        Self { db, anchor: None, folder, identity, cipher, no_wal, quiet: false.into() }
    }

    /// Copies the checkpoint in `received` beside the state under `root`, which may be open, and reads
    /// every block of the copy. The state does not change.
    pub fn stage(
        received: &Path,
        root: &Path,
        shared: &SharedResources,
        identity: StateIdentity,
        cipher: Arc<dyn ValueCipher>,
    ) -> Result<StagedState, StorageError> {
        let own = identity.to_file();
        let found = own.expect_copy(received)?;
        let check = |copy: &Path| check_all(copy, shared, Profile::State, &mut |_, _| Ok(())).map(drop);
        let (folder, generation) = stage(received, root, check)?;
        let staged = open_database(&folder, shared, false).and_then(|db| Ok((db, own.adopt(&folder, found)?)));
        let (db, found) = staged?;
        let db = Self::of(db, folder, found, cipher);
        Ok(StagedState { db: Some(db), root: root.to_path_buf(), generation })
    }

    /// As [`StateDb::stage`], of a checkpoint whose values `sender` opens: each is sealed anew under
    /// `cipher` on its way, so that nothing of the copy can be read with the sender's key.
    pub fn stage_resealed(
        received: &Path,
        root: &Path,
        shared: &SharedResources,
        identity: StateIdentity,
        (sender, cipher): (&dyn ValueCipher, Arc<dyn ValueCipher>),
    ) -> Result<StagedState, StorageError> {
        let own = identity.to_file();
        let found = Identity { node: own.node, ..own.expect_copy(received)? };
        let fill = |folder: &Path| {
            reseal(received, folder, shared, sender, &*cipher)?;
            found.store(folder)
        };
        let (folder, generation) = stage_by(root, fill)?;
        let db = Self::of(open_database(&folder, shared, false)?, folder, found, cipher);
        Ok(StagedState { db: Some(db), root: root.to_path_buf(), generation })
    }

    /// Writes into the new folder `to` what the checkpoint in `from` holds, its values opened by `own` and sealed anew under
    /// `cipher`: nothing of it can be read with the key of the database it was made of. Works in the new folder `work`, which is
    /// gone afterwards. What an error leaves behind is for the caller to remove.
    pub fn reseal_checkpoint(
        from: &Path,
        (work, to): (&Path, &Path),
        shared: &SharedResources,
        identity: StateIdentity,
        (own, cipher): (&dyn ValueCipher, Arc<dyn ValueCipher>),
    ) -> Result<(), StorageError> {
        let found = identity.to_file().expect_copy(from)?;
        std::fs::create_dir(work).map_err(|error| StorageError::io(work, &error))?;
        reseal(from, work, shared, own, &*cipher)?;
        let copy = Self::of(open_database(work, shared, false)?, work.to_path_buf(), found, cipher);
        copy.checkpoint(to)?;
        drop(copy);
        std::fs::remove_dir_all(work).map_err(|error| StorageError::io(work, &error))
    }

    /// Shows the pairs of the checkpoint in `from` whose keys are `wanted` to `visit`, in the order of the keys, with their values
    /// as `cipher` opens them. Reads every block, and leaves the files as they are.
    pub fn read_checkpoint(
        from: &Path,
        shared: &SharedResources,
        identity: StateIdentity,
        cipher: &dyn ValueCipher,
        wanted: fn(&[u8]) -> bool,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), StorageError> {
        identity.to_file().expect_copy(from)?;
        let mut show = |key: &[u8], sealed: &[u8]| -> Result<(), StorageError> {
            if wanted(key) {
                visit(key, &open_value(cipher, from, key, Bytes::copy_from_slice(sealed))?);
            }
            Ok(())
        };
        check_all(from, shared, Profile::State, &mut show).map(drop)
    }

    /// Makes the checkpoint in `received`, which is of `from`, the state of `identity` under `root`, where there is none yet:
    /// a group begins with a copy of another one's state. Table files are shared by links where the disk can. It is not
    /// compacted in the background before [`Kv::wake`], or before it is opened anew, and may stay open while the folder that the
    /// root is in is renamed where [`StateDb::goes_along`] says so.
    pub fn branch(
        received: &Path,
        root: &Path,
        shared: &SharedResources,
        (from, identity): (StateIdentity, StateIdentity),
        cipher: Arc<dyn ValueCipher>,
    ) -> Result<Self, StorageError> {
        let found = from.to_file().expect_copy(received)?;
        let own = Identity { format_version: found.format_version, ..identity.to_file() };
        let (folder, generation) = stage(received, root, |copy| own.store(copy))?;
        let anchor = Anchor::of(root);
        let named = anchor.as_ref().zip(folder.file_name()).map(|(anchor, name)| anchor.path().join(name));
        let db = open_quietly((named.as_deref().unwrap_or(&folder), &folder), shared, false)?;
        switch(&folder, root, generation)?;
        Ok(Self { quiet: true.into(), anchor, ..Self::of(db, folder, own, cipher) })
    }

    /// Whether it may stay open while its root, or a folder above, is renamed. One that may not is closed before that.
    pub fn goes_along(&self) -> bool {
        self.anchor.is_some()
    }

    /// The same database, still open, now that its root has become `root` by a renaming. `None` where it has not, or could not go
    /// along: it is closed then, and can be opened there if it is there.
    pub fn settled(self, root: &Path) -> Option<Self> {
        let folder = root.join(self.folder.file_name()?);
        self.anchor.as_ref().filter(|anchor| anchor.is_at(root))?;
        Some(Self { folder, ..self })
    }

    /// Brings in pairs, in the order of their keys and none twice, by table files that nothing is sorted for or compacted with
    /// again where no other keys lie between theirs. They stand above all that was written before, and are durable then.
    pub fn bring(&self, shared: &SharedResources, pairs: &[(Vec<u8>, Bytes)]) -> Result<(), StorageError> {
        let parts = self.folder.join("brought");
        std::fs::create_dir(&parts).map_err(|error| StorageError::io(&parts, &error))?;
        let options = shared.options(Profile::State, true).map_err(|error| self.error(&error))?;
        let mut tables = Tables::new(&options, &parts);
        for (key, value) in pairs {
            tables.put(key, &self.cipher.seal(key, value))?;
        }
        tables::move_into(&self.db, &parts, tables.finish()?)
    }

    /// Removes the database folders beside this one, which is the live one. Whatever was live before
    /// must be closed.
    pub fn remove_old(&self) -> Result<(), StorageError> {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        let generation = name.and_then(|name| name.strip_prefix("db-")).and_then(|digits| digits.parse().ok());
        match (self.folder.parent(), generation) {
            (Some(root), Some(generation)) => remove_old(root, generation),
            _ => Ok(()),
        }
    }

    /// The format that the folder was written in; not newer than the one passed to [`StateDb::open`].
    pub fn format_version(&self) -> u32 {
        self.identity.format_version
    }

    /// The folder of the live database, for messages.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn error(&self, error: &rocksdb::Error) -> StorageError {
        map_error(&self.folder, error)
    }

    fn family(&self) -> Result<&ColumnFamily, StorageError> {
        let missing = || StorageError::corrupt(&self.folder, "the default column family is missing");
        self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME).ok_or_else(missing)
    }

    fn open_value(&self, key: &[u8], sealed: &[u8]) -> Result<Bytes, StorageError> {
        open_value(&*self.cipher, &self.folder, key, Bytes::copy_from_slice(sealed))
    }

    fn get_with(&self, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, StorageError> {
        let sealed = self.db.get_pinned_opt(key, options).map_err(|error| self.error(&error))?;
        sealed.map(|sealed| self.open_value(key, &sealed)).transpose()
    }

    fn scan_with(
        &self,
        range: KeyRange,
        limit: usize,
        mut options: ReadOptions,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        if range.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        if let Some(end) = &range.end {
            options.set_iterate_upper_bound(end.to_vec());
        }
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(&range.start);
        let mut pairs = Vec::new();
        while pairs.len() < limit {
            let Some((key, sealed)) = iterator.item() else {
                break;
            };
            pairs.push((Bytes::copy_from_slice(key), self.open_value(key, sealed)?));
            iterator.next();
        }
        // The end of the range and a failed read look alike to the loop above.
        iterator.status().map_err(|error| self.error(&error))?;
        Ok(pairs)
    }
}

impl Kv for StateDb {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.get_with(key, &ReadOptions::default())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let found = self.db.batched_multi_get_cf(self.family()?, keys.iter().copied(), false);
        keys.iter()
            .zip(found)
            .map(|(key, sealed)| match sealed {
                Ok(sealed) => sealed.map(|sealed| self.open_value(key, &sealed)).transpose(),
                Err(error) => Err(self.error(&error)),
            })
            .collect()
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        self.scan_with(range, limit, ReadOptions::default())
    }

    fn sweep(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        self.scan_with(range, limit, sweeping(ReadOptions::default()))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        // RocksDB's own framing: a tag and two lengths per change.
        let mut changes = rocksdb::WriteBatch::with_capacity_bytes(batch.bytes() + 16 * batch.len() + 16);
        for op in batch.ops() {
            match op {
                WriteOp::Put { key, value } => changes.put(key, self.cipher.seal(key, value)),
                WriteOp::Delete { key } => changes.delete(key),
                WriteOp::DeleteRange { start, end } if start < end => changes.delete_range(start, end),
                WriteOp::DeleteRange { .. } => {}
            }
        }
        self.db.write_opt(changes, &self.no_wal).map_err(|error| self.error(&error))
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.db.flush().map_err(|error| self.error(&error))
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        let made = Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(dir));
        made.map_err(|error| map_error(dir, &error))?;
        // Last, so that an interrupted checkpoint has no identity and is never taken for a whole one.
        self.identity.store(dir)?;
        match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync_folder(parent),
            None => Ok(()),
        }
    }

    fn snapshot_view(&self) -> Box<dyn KvView + '_> {
        Box::new(StateView { db: self, snapshot: self.db.snapshot() })
    }

    fn disk_bytes(&self, range: &KeyRange) -> Result<u64, StorageError> {
        let end = range.end.as_deref().unwrap_or(&BEHIND_ALL);
        let sizes = self.db.get_approximate_sizes(&[Range::new(&range.start, end)]);
        Ok(sizes.into_iter().sum())
    }

    fn compacted_bytes(&self, range: &KeyRange) -> Result<u64, StorageError> {
        let files = self.db.live_files().map_err(|error| self.error(&error))?;
        Ok(space::compacted_bytes(&files, range))
    }

    fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire)
    }

    fn drop_files(&self, ranges: &[KeyRange]) -> Result<(), StorageError> {
        if !self.is_quiet() {
            return Ok(());
        }
        let mut empty = Vec::new();
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            let Some(end) = range.end.as_deref() else { continue };
            if self.sweep(range.clone(), 1)?.is_empty() {
                empty.push((&range.start[..], end));
            }
        }
        space::drop_files(&self.db, &self.no_wal, &empty).map_err(|error| self.error(&error))
    }

    fn wake(&self) -> Result<(), StorageError> {
        stall::wake(&self.db).map_err(|error| self.error(&error))?;
        self.quiet.store(false, Ordering::Release);
        Ok(())
    }

    fn compact(&self, range: &KeyRange) -> Result<(), StorageError> {
        let mut options = CompactOptions::default();
        // Whoever writes goes on, and so do the compactions of the background.
        options.set_exclusive_manual_compaction(false);
        // What is removed lies at the bottom.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_opt(Some(&range.start[..]), range.end.as_deref(), &options);
        Ok(())
    }

    fn give_up(&self) {
        self.db.cancel_all_background_work(false);
    }
}

/// Options of a reader that reads everything once.
fn sweeping(mut options: ReadOptions) -> ReadOptions {
    options.fill_cache(false);
    options.set_readahead_size(SWEEP_AHEAD_BYTES);
    options
}

struct StateView<'a> {
    db: &'a StateDb,
    snapshot: Snapshot<'a>,
}

impl StateView<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

impl KvView for StateView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.db.get_with(key, &self.options())
    }

    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        self.db.scan_with(range, limit, self.options())
    }
    fn sweep(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        self.db.scan_with(range, limit, sweeping(self.options()))
    }
}
