//! The shared log engine: one database, one writer thread, one fsync per batch for all groups.
//!
//! Owns: the database of the node's logs, the queue, the writer's life. Never does: interpret
//! entries. Next: [`super::GroupLog`] is what a group's consensus holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{DB, WriteOptions};

use super::group::{GroupLog, GroupState};
use super::keys;
use super::mark::{self, Mark};
use super::queue::{Change, Queue};
use super::writer::{self, Sink};
use crate::StorageError;
use crate::cipher::ValueCipher;
use crate::rocks::{Identity, Kind, Profile, SharedResources, is_there, map_error, open_or_create};

/// Newest format of the log that this program reads and writes.
pub(super) const LOG_FORMAT_VERSION: u32 = 1;

/// Whose log a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster's id.
    pub cluster: [u8; 32],
    /// The node, from 1.
    pub node: u32,
}

/// Bounds of the engine's memory.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Encoded changes that may wait for the writer; callers wait beyond it.
    pub queue_bytes_max: usize,
    /// Durable entries that are kept in memory per group. Entries that are not durable yet are
    /// always in memory, within `queue_bytes_max`.
    pub cache_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { queue_bytes_max: 64 << 20, cache_bytes_max: 8 << 20 }
    }
}

/// What the engine did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Batches written.
    pub batches: u64,
    /// Times the disk was asked to make a batch durable, as the database counts them.
    pub fsyncs: u64,
    /// Bytes of all batches.
    pub bytes: u64,
    /// Append calls.
    pub appends: u64,
    /// Entries of all append calls.
    pub entries: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    batches: AtomicU64,
    bytes: AtomicU64,
    appends: AtomicU64,
    entries: AtomicU64,
}

impl Counters {
    pub(super) fn add(&self, bytes: u64, appends: u64, entries: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.appends.fetch_add(appends, Ordering::Relaxed);
        self.entries.fetch_add(entries, Ordering::Relaxed);
    }
}

/// What handles, groups and the writer share.
pub(super) struct Shared {
    pub(super) root: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) options: LogOptions,
    pub(super) queue: Queue,
    pub(super) counters: Counters,
    poison: OnceLock<StorageError>,
    /// Gone once the writer ended, so that the folder is free although handles may still live.
    db: RwLock<Option<Arc<DB>>>,
    groups: Mutex<BTreeMap<u64, Arc<GroupState>>>,
}

impl Shared {
    /// The error that all calls give after a failed write.
    pub(super) fn poison(&self) -> Option<StorageError> {
        self.poison.get().cloned()
    }

    pub(super) fn set_poison(&self, cause: &StorageError) {
        // The first cause stays; later ones are its consequences.
        let detail = format!("{}: {cause}", cause.code());
        let _ = self.poison.set(StorageError::Poisoned { path: self.root.clone(), detail });
    }

    pub(super) fn closed(&self, what: &str) -> StorageError {
        StorageError::Closed { path: self.root.clone(), detail: what.to_owned() }
    }

    /// The database, unless a write failed or the engine was shut down.
    pub(super) fn db(&self) -> Result<Arc<DB>, StorageError> {
        match self.poison() {
            Some(poisoned) => Err(poisoned),
            None => self.db.read().clone().ok_or_else(|| self.closed("the log engine was shut down")),
        }
    }
}

/// The log of all groups of a node. Dropping it writes what is queued, then closes the database;
/// handles that are still around get `storage_closed` from then on.
pub struct LogEngine {
    shared: Arc<Shared>,
    /// Holds the database's counters.
    settings: rocksdb::Options,
    writer: Option<JoinHandle<()>>,
}

impl LogEngine {
    /// Whether there is a log under `root`, or has been one that lost its pointer. Whoever knows that
    /// there has been one asks before it opens, since that makes an empty one.
    pub fn is_there(root: &Path) -> Result<bool, StorageError> {
        is_there(root)
    }

    /// Opens the log under `root`, creating an empty one if there is none.
    pub fn open(root: &Path, resources: &SharedResources, identity: LogIdentity) -> Result<Self, StorageError> {
        Self::open_with(root, resources, identity, LogOptions::default())
    }

    /// Opens with other bounds than the default ones.
    pub fn open_with(
        root: &Path,
        resources: &SharedResources,
        identity: LogIdentity,
        options: LogOptions,
    ) -> Result<Self, StorageError> {
        Self::start(root, resources, identity, options, |sink| sink)
    }

    /// `wrap` stands between the writer and the database; tests make it fail.
    fn start(
        root: &Path,
        resources: &SharedResources,
        identity: LogIdentity,
        options: LogOptions,
        wrap: impl FnOnce(Sink) -> Sink,
    ) -> Result<Self, StorageError> {
        let LogIdentity { cluster, node } = identity;
        let identity =
            Identity { kind: Kind::Log, cluster, group: 0, format_version: LOG_FORMAT_VERSION, node: Some(node) };
        let ((db, settings), folder, _) = open_or_create(root, &identity, |folder, create| {
            let mut settings = resources.options(Profile::Log, create).map_err(|error| map_error(folder, &error))?;
            settings.enable_statistics();
            settings.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
            let db = DB::open(&settings, folder).map_err(|error| map_error(folder, &error))?;
            Ok((db, settings))
        })?;
        let db = Arc::new(db);
        let found = db.latest_sequence_number();
        mark::check(root, &folder, found)?;
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            folder: folder.clone(),
            options,
            queue: Queue::new(options.queue_bytes_max),
            counters: Counters::default(),
            poison: OnceLock::new(),
            db: RwLock::new(Some(db.clone())),
            groups: Mutex::default(),
        });
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        // Nobody else writes, so the newest change is the last one of the batch.
        let sink = wrap(Box::new(move |batch| match db.write_opt(batch, &durable) {
            Ok(()) => Ok(db.latest_sequence_number()),
            Err(error) => Err(map_error(&folder, &error)),
        }));
        let poisoned = Arc::downgrade(&shared);
        let mark = Mark::open(root, found, move |error| {
            if let Some(shared) = poisoned.upgrade() {
                shared.set_poison(error);
            }
        })?;
        let of_writer = shared.clone();
        let writer = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || {
                writer::run(&of_writer, sink, mark);
                *of_writer.db.write() = None;
            })
            .map_err(|error| StorageError::io(root, &error))?;
        Ok(Self { shared, settings, writer: Some(writer) })
    }

    /// A handle on one group's log; an unknown group has an empty one. All handles of a group share
    /// its state, and the cipher of the first one counts.
    pub fn group(&self, group: u64, cipher: Arc<dyn ValueCipher>) -> Result<GroupLog, StorageError> {
        let mut groups = self.shared.groups.lock();
        let db = self.shared.db()?;
        let state = match groups.get(&group) {
            Some(state) => state.clone(),
            None => {
                let state = Arc::new(GroupState::load(group, cipher, &db, &self.shared.folder)?);
                groups.insert(group, state.clone());
                state
            }
        };
        Ok(GroupLog::new(self.shared.clone(), state))
    }

    /// A handle on the log that a group keeps beside its entries: what a member writes down before it signs.
    /// As [`LogEngine::group`] otherwise.
    pub fn beside(&self, group: u64, cipher: Arc<dyn ValueCipher>) -> Result<GroupLog, StorageError> {
        self.group(keys::beside(group), cipher)
    }

    /// Removes everything of a group, durably, with what it keeps beside its entries. Waits for the writer, so
    /// not from a completion. Handles of the group that are still around get `storage_closed`.
    pub fn drop_group(&self, group: u64) -> Result<(), StorageError> {
        let beside = keys::beside(group);
        if beside != group {
            self.drop_log(beside)?;
        }
        self.drop_log(group)
    }

    fn drop_log(&self, group: u64) -> Result<(), StorageError> {
        let mut groups = self.shared.groups.lock();
        let db = self.shared.db()?;
        let state = match groups.remove(&group) {
            Some(state) => state,
            None => Arc::new(GroupState::empty(group)),
        };
        drop(db);
        let (sender, receiver) = sync_channel(1);
        let (from, to) = keys::group_range(group);
        let handle = GroupLog::new(self.shared.clone(), state);
        handle.submit_last(vec![Change::DeleteRange { from, to }], move |result| {
            // Nobody listens any more only if this thread is gone.
            let _ = sender.send(result);
        });
        // The registry stays locked meanwhile: a new handle must not load what is being removed.
        receiver.recv().unwrap_or_else(|_| Err(self.shared.closed("the log engine was shut down")))
    }

    /// Waits until everything that was asked for is done and told, or the log is closed. For tools that
    /// stop the time of their caller while the disk works; nobody else needs it, and a completion must not
    /// call it.
    pub fn wait_idle(&self) {
        self.shared.queue.wait_idle();
    }

    /// Why nothing is written any more, once a write has failed.
    pub fn failure(&self) -> Option<StorageError> {
        self.shared.poison()
    }

    /// What was done since the engine was opened.
    pub fn stats(&self) -> LogStats {
        let counters = &self.shared.counters;
        LogStats {
            batches: counters.batches.load(Ordering::Relaxed),
            fsyncs: self.settings.get_ticker_count(Ticker::WalFileSynced),
            bytes: counters.bytes.load(Ordering::Relaxed),
            appends: counters.appends.load(Ordering::Relaxed),
            entries: counters.entries.load(Ordering::Relaxed),
        }
    }
}

impl Drop for LogEngine {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // A completion may hold the last engine; the writer then ends by itself right after.
            if writer.thread().id() != std::thread::current().id() && writer.join().is_err() {
                tracing::error!(path = %self.shared.root.display(), "the log writer panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use bytes::Bytes;

    use super::*;
    use crate::{LogStore, PlainCipher, ResourceLimits};

    const IDENTITY: LogIdentity = LogIdentity { cluster: [1; 32], node: 1 };

    fn resources() -> SharedResources {
        SharedResources::new(ResourceLimits::default()).expect("resources")
    }

    #[test]
    fn a_failed_write_stops_the_engine_for_good() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (fail, failing) = mpsc::channel::<()>();
        let wrap = |mut sink: Sink| -> Sink {
            Box::new(move |batch| match failing.try_recv() {
                Ok(()) => Err(StorageError::DiskFull { path: "x".into(), detail: "test".into() }),
                Err(_) => sink(batch),
            })
        };
        let engine = LogEngine::start(dir.path(), &resources(), IDENTITY, LogOptions::default(), wrap).expect("open");
        let log = engine.group(1, Arc::new(PlainCipher)).expect("group");
        let (sender, results) = mpsc::channel();
        let append = |index: u64| {
            let sender = sender.clone();
            log.append(vec![(index, Bytes::from_static(b"e"))], Box::new(move |r| drop(sender.send(r))));
        };
        append(1);
        assert_eq!(results.recv().expect("a result"), Ok(()));
        fail.send(()).expect("writer lives");
        append(2);
        assert_eq!(results.recv().expect("a result").expect_err("fails").code(), "storage_disk_full");
        append(3);
        let poisoned = results.recv().expect("a result").expect_err("fails");
        assert_eq!(poisoned.code(), "storage_poisoned");
        let text = poisoned.to_string();
        assert!(text.contains("storage_disk_full") && text.contains("disk is full"), "names the first cause: {text}");
        assert_eq!(engine.failure(), Some(poisoned));
        assert_eq!(log.read(0..9, 99).expect_err("fails").code(), "storage_poisoned");
        assert_eq!(log.save_committed(Bytes::new()).expect_err("fails").code(), "storage_poisoned");
        assert_eq!(engine.group(2, Arc::new(PlainCipher)).err().map(|e| e.code()), Some("storage_poisoned"));
        assert_eq!(engine.drop_group(1).expect_err("fails").code(), "storage_poisoned");
        drop((engine, log));
        let engine = LogEngine::open(dir.path(), &resources(), IDENTITY).expect("open again");
        let log = engine.group(1, Arc::new(PlainCipher)).expect("group");
        assert_eq!(log.last().expect("readable"), Some((1, Bytes::from_static(b"e"))));
    }

    #[test]
    fn a_panicking_completion_poisons_instead_of_hanging() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let engine = LogEngine::open(dir.path(), &resources(), IDENTITY).expect("open");
        let log = engine.group(1, Arc::new(PlainCipher)).expect("group");
        log.save_vote(Bytes::from_static(b"v"), Box::new(|_| panic!("test: a completion panics")));
        let (sender, results) = mpsc::channel();
        log.save_vote(Bytes::from_static(b"w"), Box::new(move |r| drop(sender.send(r))));
        // Both may have been in one batch; what counts is that the second one was answered.
        let _ = results.recv().expect("answered");
        assert_eq!(engine.drop_group(1).expect_err("stopped").code(), "storage_poisoned");
    }
}
