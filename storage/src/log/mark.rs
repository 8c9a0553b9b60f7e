//! The mark of what was acknowledged: a small file beside the log's database that says how far the
//! log had come when somebody was last told so.
//!
//! A write-ahead log that was cut at its end looks like one whose last write was never finished. The
//! mark tells them apart: with fewer changes than it names, acknowledged ones are missing, and the
//! replicas must not start from what is left, since they could vote against what they promised.
//!
//! Owns: the file `ACKED` in the log's root and the thread that makes it durable. Layout, big endian:
//! two slots, at 0 and at [`SLOT_DISTANCE`], each magic(8) ‖ version(4) ‖ sequence(8) ‖ crc32 of all
//! before(4). The one in use is written over until it was made durable, and then the other one, so that a
//! write that is torn leaves the other one, and each time costs the disk one page. The other one is older by one sync at most; what
//! was written into a slot while it was made durable is durable with the next one.
//!
//! When it is written: after a batch is durable and before anybody is told, but not with an fsync of
//! its own in between; it is made durable [`SYNC_EVERY`] after it has moved, however often it moves
//! meanwhile, and when the log is closed. So a cut is found whatever happens to the process, and after a power failure for all but the changes of the
//! last moments, which an honest disk does not lose anyway. An older copy of the whole root, mark
//! included, is consistent in itself and not found.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::StorageError;
use crate::rocks::{read_file, sync_folder};

const FILE: &str = "ACKED";
const MAGIC: &[u8; 8] = b"SEAMACKD";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 8 + 4 + 8 + 4;
/// Slots lie on different sectors and pages.
const SLOT_DISTANCE: u64 = 4096;
/// After so long a mark that has moved is made durable.
const SYNC_EVERY: Duration = Duration::from_millis(100);

fn encode(sequence: u64) -> [u8; SLOT_BYTES] {
    let mut out = [0; SLOT_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_be_bytes());
    out[12..20].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32fast::hash(&out[..20]);
    out[20..].copy_from_slice(&crc.to_be_bytes());
    out
}

/// The number in a slot; `None` for one that is torn or damaged.
fn decode(path: &Path, slot: &[u8]) -> Result<Option<u64>, StorageError> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    if slot.len() != SLOT_BYTES || slot[..8] != MAGIC[..] || number(&slot[20..]) != crc32fast::hash(&slot[..20]).into()
    {
        return Ok(None);
    }
    match u32::try_from(number(&slot[8..12])) {
        Ok(VERSION) => Ok(Some(number(&slot[12..20]))),
        found => {
            let found = found.unwrap_or(u32::MAX);
            Err(StorageError::NewerVersion { path: path.to_path_buf(), found, supported: VERSION })
        }
    }
}

/// The acknowledged sequence in a log's root; `None` when there is no mark.
fn read(root: &Path) -> Result<Option<u64>, StorageError> {
    let path = root.join(FILE);
    let Some(bytes) = read_file(&path)? else { return Ok(None) };
    let mut newest = None;
    for at in [0, SLOT_DISTANCE as usize] {
        let slot = bytes.get(at..at + SLOT_BYTES).unwrap_or_default();
        newest = newest.max(decode(&path, slot)?);
    }
    match newest {
        Some(sequence) => Ok(Some(sequence)),
        None => Err(StorageError::corrupt(path, "the mark of what was acknowledged fails its checksum")),
    }
}

/// Refuses a log in `root` that ends at `found` although more was acknowledged. `folder` is its
/// database, for the name of the file that ends too early.
pub(super) fn check(root: &Path, folder: &Path, found: u64) -> Result<Option<u64>, StorageError> {
    match read(root)? {
        Some(acknowledged) if acknowledged > found => {
            Err(StorageError::Truncated { path: last_wal(folder), found, acknowledged })
        }
        // A database without a mark that was never written: its making was interrupted.
        None if found > 0 => {
            Err(StorageError::corrupt(root.join(FILE), "the mark of what was acknowledged is missing"))
        }
        mark => Ok(mark),
    }
}

/// The newest write-ahead log in a database folder, or the folder.
fn last_wal(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).max();
    newest.unwrap_or_else(|| folder.to_path_buf())
}

#[derive(Default)]
struct Pace {
    dirty: bool,
    closed: bool,
    /// How often it was made durable.
    syncs: u64,
}

/// What the writer and the thread that syncs share.
#[derive(Default)]
struct Turn {
    pace: Mutex<Pace>,
    bell: Condvar,
}

/// The open mark; the writer has it. Dropping it makes it durable.
pub(super) struct Mark {
    path: PathBuf,
    file: File,
    /// The slot in use.
    slot: u64,
    /// How often the mark had been made durable when this slot came into use.
    since: u64,
    turn: Arc<Turn>,
    syncing: Option<JoinHandle<()>>,
}

impl Mark {
    /// Opens the mark of a log that ends at `found` and was checked, or makes it. `failed` hears of a
    /// sync that failed.
    pub(super) fn open(
        root: &Path,
        found: u64,
        failed: impl Fn(&StorageError) + Send + 'static,
    ) -> Result<Self, StorageError> {
        Self::open_with(root, found, SYNC_EVERY, failed)
    }

    fn open_with(
        root: &Path,
        found: u64,
        every: Duration,
        failed: impl Fn(&StorageError) + Send + 'static,
    ) -> Result<Self, StorageError> {
        let path = root.join(FILE);
        let io = |error: std::io::Error| StorageError::io(&path, &error);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
        // Both slots hold a number from here on, so neither is mistaken for a torn one.
        for slot in 0..2 {
            file.write_all_at(&encode(found), slot * SLOT_DISTANCE).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        sync_folder(root)?;
        let turn = Arc::new(Turn::default());
        let (synced, waits, at) = (file.try_clone().map_err(io)?, Arc::clone(&turn), path.clone());
        let syncing = std::thread::Builder::new()
            .name("log-mark".into())
            .spawn(move || sync_in_turn(&synced, &waits, every, |error| failed(&StorageError::io(&at, &error))))
            .map_err(io)?;
        Ok(Self { path, file, slot: 0, since: 0, turn, syncing: Some(syncing) })
    }

    /// Notes that everything up to `sequence` is durable and about to be acknowledged.
    pub(super) fn advance(&mut self, sequence: u64) -> Result<(), StorageError> {
        let syncs = self.turn.pace.lock().syncs;
        if syncs != self.since {
            // What is in this slot is safe.
            (self.slot, self.since) = (self.slot ^ 1, syncs);
        }
        let written = self.file.write_all_at(&encode(sequence), self.slot * SLOT_DISTANCE);
        written.map_err(|error| StorageError::io(&self.path, &error))?;
        let mut pace = self.turn.pace.lock();
        if !std::mem::replace(&mut pace.dirty, true) {
            self.turn.bell.notify_one();
        }
        Ok(())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.turn.pace.lock().closed = true;
        self.turn.bell.notify_one();
        if let Some(syncing) = self.syncing.take()
            && syncing.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the thread of the acknowledgement mark panicked");
        }
    }
}

/// Makes the mark durable so long after it has moved, until it is closed.
fn sync_in_turn(file: &File, turn: &Turn, every: Duration, failed: impl Fn(std::io::Error)) {
    loop {
        {
            let mut pace = turn.pace.lock();
            turn.bell.wait_while(&mut pace, |pace| !pace.dirty && !pace.closed);
            turn.bell.wait_while_for(&mut pace, |pace| !pace.closed, every);
            if !std::mem::take(&mut pace.dirty) {
                return;
            }
        }
        if let Err(error) = file.sync_data() {
            tracing::error!(%error, "the acknowledgement mark cannot be made durable");
            return failed(error);
        }
        turn.pace.lock().syncs += 1;
        turn.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &Path, found: u64, every: Duration) -> Mark {
        Mark::open_with(root, found, every, |error| panic!("{error}")).expect("open")
    }

    /// Waits until the mark was made durable so often.
    fn synced(mark: &Mark, syncs: u64) {
        let mut pace = mark.turn.pace.lock();
        mark.turn.bell.wait_while(&mut pace, |pace| pace.syncs < syncs);
    }

    #[test]
    fn it_is_synced_once_for_all_that_it_has_moved_meanwhile() {
        let root = tempfile::tempdir().expect("temporary folder");
        let mut mark = open(root.path(), 5, Duration::from_secs(3600));
        for sequence in 6..100 {
            mark.advance(sequence).expect("advance");
            assert_eq!(read(root.path()), Ok(Some(sequence)));
        }
        let turn = Arc::clone(&mark.turn);
        assert_eq!(turn.pace.lock().syncs, 0);
        drop(mark);
        assert_eq!(turn.pace.lock().syncs, 1, "when it was closed");
        // All went into one slot: a torn one leaves what was durable before.
        let path = root.path().join(FILE);
        let mut torn = std::fs::read(&path).expect("file");
        torn[20] ^= 1;
        std::fs::write(&path, &torn).expect("write");
        assert_eq!(read(root.path()), Ok(Some(5)));
        drop(open(root.path(), 99, Duration::from_secs(3600)));
        assert_eq!(read(root.path()), Ok(Some(99)), "one that has not moved is closed at once");
    }

    #[test]
    fn golden_bytes() {
        let slot = encode(0x0102);
        let hex: String = slot.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..40], "5345414d41434b44000000010000000000000102");
        assert_eq!(decode(Path::new("x"), &slot), Ok(Some(0x0102)));
        for at in 0..SLOT_BYTES {
            let mut bad = slot;
            bad[at] ^= 1;
            assert_eq!(decode(Path::new("x"), &bad), Ok(None), "byte {at}");
        }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let root = tempfile::tempdir().expect("temporary folder");
        let path = root.path().join(FILE);
        assert_eq!(read(root.path()), Ok(None));
        let mut mark = open(root.path(), 0, Duration::from_millis(1));
        for (syncs, sequence) in (1..).zip([3, 7, 8]) {
            mark.advance(sequence).expect("advance");
            assert_eq!(read(root.path()), Ok(Some(sequence)));
            synced(&mark, syncs);
        }
        drop(mark);
        let whole = std::fs::read(&path).expect("file");
        // The slot that was written last is torn: the one before it counts.
        let mut torn = whole.clone();
        torn[20] ^= 1;
        std::fs::write(&path, &torn).expect("write");
        assert_eq!(read(root.path()), Ok(Some(7)));
        torn[SLOT_DISTANCE as usize + 20] ^= 1;
        std::fs::write(&path, &torn).expect("write");
        assert_eq!(read(root.path()).expect_err("both are damaged").code(), "storage_corrupt");
        std::fs::write(&path, b"").expect("write");
        assert_eq!(read(root.path()).expect_err("emptied").code(), "storage_corrupt");
        std::fs::write(&path, &whole).expect("write");

        assert_eq!(check(root.path(), root.path(), 8), Ok(Some(8)));
        assert_eq!(check(root.path(), root.path(), 9), Ok(Some(8)), "more than was acknowledged is no harm");
        assert_eq!(check(root.path(), root.path(), 7).expect_err("one is missing").code(), "storage_truncated");
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(check(root.path(), root.path(), 7).expect_err("removed").code(), "storage_corrupt");
        assert_eq!(check(root.path(), root.path(), 0), Ok(None));
    }
}
