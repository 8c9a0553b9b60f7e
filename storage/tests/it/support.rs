//! Folders, identities and small helpers of the RocksDB tests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};

use storage::{
    Completion, KeyRange, Kv, KvView, LogEngine, LogIdentity, PlainCipher, ResourceLimits, SharedResources, StateDb,
    StateIdentity, StorageError, ValueCipher, WriteBatch,
};

pub const CLUSTER: [u8; 32] = [0xc1; 32];
pub const STATE: StateIdentity = StateIdentity { cluster: CLUSTER, node: 1, group: 7, format_version: 1 };
pub const LOG: LogIdentity = LogIdentity { cluster: CLUSTER, node: 1 };

/// One set of shared resources for the test process, as in a node.
pub fn shared() -> &'static SharedResources {
    static SHARED: OnceLock<SharedResources> = OnceLock::new();
    SHARED.get_or_init(|| {
        let limits = ResourceLimits { block_cache_bytes: 16 << 20, ..ResourceLimits::default() };
        SharedResources::new(limits).expect("resources")
    })
}

pub fn plain() -> Arc<dyn ValueCipher> {
    Arc::new(PlainCipher)
}

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    pub fn root(&self) -> PathBuf {
        self.0.path().join("data")
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn state(&self) -> StateDb {
        self.try_state().expect("open")
    }

    pub fn try_state(&self) -> Result<StateDb, StorageError> {
        StateDb::open(&self.root(), shared(), STATE, plain())
    }

    pub fn engine(&self) -> LogEngine {
        self.try_engine().expect("open")
    }

    pub fn try_engine(&self) -> Result<LogEngine, StorageError> {
        LogEngine::open(&self.root(), shared(), LOG)
    }

    /// A database that keeps its folder alive.
    pub fn into_state(self, cipher: Arc<dyn ValueCipher>) -> OwnedState {
        let db = StateDb::open(&self.root(), shared(), STATE, cipher).expect("open");
        OwnedState { db, _folder: self }
    }

    /// The newest file of the live database whose name matches.
    pub fn file(&self, matches: impl Fn(&str) -> bool) -> PathBuf {
        let mut found: Vec<PathBuf> = std::fs::read_dir(self.live())
            .expect("folder")
            .map(|entry| entry.expect("entry").path())
            .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&matches))
            .collect();
        found.sort();
        found.pop().expect("such a file exists")
    }

    pub fn live(&self) -> PathBuf {
        let mut found: Vec<PathBuf> = std::fs::read_dir(self.root())
            .expect("folder")
            .map(|entry| entry.expect("entry").path())
            .filter(|path| path.is_dir())
            .collect();
        found.sort();
        found.pop().expect("a live database")
    }
}

pub struct OwnedState {
    db: StateDb,
    _folder: Folder,
}

impl Kv for OwnedState {
    fn get(&self, key: &[u8]) -> Result<Option<bytes::Bytes>, StorageError> {
        self.db.get(key)
    }
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<bytes::Bytes>>, StorageError> {
        self.db.multi_get(keys)
    }
    fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>, StorageError> {
        self.db.scan(range, limit)
    }
    fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        self.db.write(batch)
    }
    fn flush(&self) -> Result<(), StorageError> {
        self.db.flush()
    }
    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        self.db.checkpoint(dir)
    }
    fn snapshot_view(&self) -> Box<dyn KvView + '_> {
        self.db.snapshot_view()
    }
}

/// A completion and the end that waits for it.
pub fn waiter() -> (Completion, mpsc::Receiver<Result<(), StorageError>>) {
    let (sender, receiver) = mpsc::sync_channel(1);
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

/// Flips one bit in the middle of a file.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("file");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("write");
}

/// Shortens a file.
pub fn cut(path: &Path, len: u64) {
    std::fs::OpenOptions::new().write(true).open(path).expect("file").set_len(len).expect("cut");
}

/// What a power loss would leave: a copy of the files while the database is open. A power loss takes one
/// moment, so when the database made or removed a file in the meantime, the copy is made anew.
pub fn copy_of(folder: &Folder) -> Folder {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            match path.is_dir() {
                true => files(&path, found),
                false => found.push(path),
            }
        }
    }
    let listed = || {
        let mut found = Vec::new();
        files(&folder.root(), &mut found);
        found.sort();
        found
    };
    loop {
        let (copied, before) = (Folder::new(), listed());
        let copy = |path: &PathBuf| {
            let target = copied.root().join(path.strip_prefix(folder.root()).expect("a file of it"));
            std::fs::create_dir_all(target.parent().expect("a folder")).and_then(|()| std::fs::copy(path, target))
        };
        let there = |done: std::io::Result<u64>| match done {
            Ok(_) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => panic!("copy: {error}"),
        };
        if before.iter().map(copy).all(there) && listed() == before {
            return copied;
        }
    }
}
