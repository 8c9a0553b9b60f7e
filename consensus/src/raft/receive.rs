//! An arriving snapshot: files grow in `recv-<name>` below the group's snapshot folder until they
//! are whole and verify, and are then handed to openraft.
//!
//! One transfer at a time; the offer of another snapshot discards it. A transfer survives a broken
//! connection, a new leader that offers the same snapshot, and a restart of this node.
//!
//! How large a snapshot is its sender says, and it may lie. One that is larger than any may be, or that would fill the disk,
//! is refused before anything of it is read: a full disk stops all groups of a node.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ledger::ids::NodeId;
use ledger::limits::{SNAPSHOT_BYTES_MAX, SNAPSHOT_RESERVE_BYTES, SNAPSHOT_RESERVE_PARTS};
use openraft::async_runtime::WatchReceiver;
use tokio::sync::Mutex;

use super::codec;
use super::group::HandleError;
use super::machine::ApplierCell;
use super::snapshot::{self, Folder, RECEIVING, Snapshots, blocking};
use super::types::{LogId, Raft, Vote, log_id};
use super::wire::{
    Done, DoneReply, Manifest, Offer, OfferReply, Part, PartReply, SNAPSHOT_FILES_MAX, SNAPSHOT_PATH_BYTES_MAX,
    SNAPSHOT_SECRET_BYTES_MAX,
};
use crate::port::{AppliedState, Origin, SnapshotError, SnapshotSecret};

const DEPTH_MAX: usize = 4;

/// The receiving end of one group.
pub(crate) struct Receiver {
    snapshots: Arc<Snapshots>,
    applier: Arc<ApplierCell>,
    transfer: Mutex<Option<Transfer>>,
    /// The last snapshot that did not pass the checks, what came with it, and why: it is not received again.
    refused: parking_lot::Mutex<Option<([u8; 32], SnapshotSecret, String)>>,
}

/// A snapshot whose files grow below a folder of their own.
#[derive(Clone)]
pub(crate) struct Transfer {
    pub(crate) name: [u8; 32],
    pub(crate) manifest: Arc<Manifest>,
    /// What reads the files; never on this disk.
    pub(crate) secret: SnapshotSecret,
    pub(crate) path: PathBuf,
}

impl Receiver {
    pub(crate) fn new(snapshots: Arc<Snapshots>, applier: Arc<ApplierCell>) -> Self {
        Self { snapshots, applier, transfer: Mutex::new(None), refused: parking_lot::Mutex::default() }
    }

    /// Starts a transfer, or goes on with one.
    pub(crate) async fn offer(&self, raft: &Raft, offer: Offer) -> Result<OfferReply, HandleError> {
        let (own, applied) = own_state(raft);
        if own > Vote::from(offer.vote) {
            return Ok(OfferReply::HigherVote((&own).into()));
        }
        if applied >= offer.manifest.position.as_ref().map(log_id) {
            return Ok(OfferReply::NotNeeded((&own).into()));
        }
        check(&offer.manifest, &offer.secret)?;
        let mut transfer = self.transfer.lock().await;
        let next = Transfer::new(offer.manifest, offer.secret, self.snapshots.dir()).map_err(failed)?;
        let known = self.refused.lock().clone();
        if let Some((_, _, reason)) = known.filter(|(name, secret, _)| *name == next.name && *secret == next.secret) {
            return Err(HandleError::Snapshot(reason));
        }
        *transfer = None;
        let (dir, folder) = (self.snapshots.dir().to_path_buf(), next.folder_name());
        let prepared = next.clone();
        let have = blocking(move || prepared.make_room(&dir, &folder)).await.map_err(failed)??;
        *transfer = Some(next);
        Ok(OfferReply::Have(have))
    }

    /// Appends to a file.
    pub(crate) async fn part(&self, part: Part) -> Result<PartReply, HandleError> {
        let transfer = self.transfer.lock().await;
        let Some(current) = transfer.as_ref().filter(|current| current.name == part.snapshot).cloned() else {
            return Ok(PartReply::Unknown);
        };
        // The lock is held over the write, so parts of one file never interleave.
        let end = blocking(move || current.write(&part)).await.map_err(failed)?;
        drop(transfer);
        Ok(PartReply::Continue(end))
    }

    /// Verifies the files, lets the applier check what is in them, and only then installs the
    /// snapshot. One that does not pass leaves the replica as it was, and running.
    pub(crate) async fn done(&self, raft: &Raft, from: NodeId, done: Done) -> Result<DoneReply, HandleError> {
        let mut transfer = self.transfer.lock().await;
        let Some(current) = transfer.take_if(|current| current.name == done.snapshot) else {
            return Ok(DoneReply::Again("this snapshot is not being received".into()));
        };
        let verifying = current.clone();
        if let Some(bad) = blocking(move || verifying.verify()).await.map_err(failed)? {
            return Ok(DoneReply::Again(bad));
        }
        let applied = current.applied();
        let secret = current.secret.clone();
        let folder = Arc::new(Folder::received(current.path.clone(), applied.clone()));
        let (prepared, origin) = (folder.clone(), Origin { node: from, secret });
        let checked = self.applier.run(move |applier| Ok(applier.prepare(&prepared.path, Some(origin)))).await;
        let refused = match checked.map_err(|error| HandleError::Stopped(error.to_string()))? {
            Ok(checked) if checked.applied.position == applied.position => None,
            Ok(checked) => Some(format!("the files contain {:?}", checked.applied.position)),
            Err(SnapshotError::Refused(reason)) => Some(reason),
            Err(SnapshotError::Failed(reason)) => return Err(HandleError::Snapshot(reason)),
        };
        if let Some(reason) = refused {
            *self.refused.lock() = Some((current.name, current.secret, reason.clone()));
            return Ok(DoneReply::Again(reason));
        }
        let snapshot = snapshot::snapshot(folder).map_err(failed)?;
        let installed = raft.install_full_snapshot(done.vote.into(), snapshot).await;
        let installed = installed.map_err(|error| HandleError::Stopped(error.to_string()))?;
        Ok(DoneReply::Installed((&installed.vote).into()))
    }
}

fn own_state(raft: &Raft) -> (Vote, Option<LogId>) {
    let metrics = raft.metrics();
    let now = metrics.borrow_watched();
    (now.vote, now.last_applied)
}

fn failed(error: io::Error) -> HandleError {
    HandleError::Snapshot(error.to_string())
}

fn folder_name(name: &[u8; 32]) -> String {
    format!("{RECEIVING}{}", hex(&name[..8]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an engine keeps with the state: raft its members, the Byzantine engine the place in its order.
fn known(note: &[u8]) -> Result<(), codec::CodecError> {
    if codec::of_another_engine(note) {
        return Ok(());
    }
    codec::decode_membership(note).map(drop)
}

/// A file system, as far as it matters here.
#[derive(Clone, Copy, Debug)]
struct Disk {
    size_bytes: u64,
    /// What this process may still write.
    free_bytes: u64,
}

impl Disk {
    /// The one that a folder is on.
    fn of(dir: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(dir).map_err(io::Error::from)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Self { size_bytes: bytes(found.f_blocks), free_bytes: bytes(found.f_bavail) })
    }

    /// Whether so many bytes of a snapshot fit that are still to be read. They are there twice before they become the state:
    /// it is a copy that is checked, and values that are sealed are sealed anew there.
    fn fits(self, left_bytes: u64) -> Result<(), HandleError> {
        let reserve = SNAPSHOT_RESERVE_BYTES.min(self.size_bytes / SNAPSHOT_RESERVE_PARTS);
        let needed = left_bytes.saturating_mul(2);
        if needed.saturating_add(reserve) <= self.free_bytes {
            return Ok(());
        }
        Err(HandleError::NoRoom { needed, free: self.free_bytes, reserve })
    }
}

/// Refuses names that lead out of the folder, more bytes than any snapshot has, a membership that is none, and a secret that
/// is no key.
pub(crate) fn check(manifest: &Manifest, secret: &SnapshotSecret) -> Result<(), HandleError> {
    if secret.0.len() > SNAPSHOT_SECRET_BYTES_MAX {
        return Err(HandleError::Malformed(format!("a snapshot with a secret of {} bytes", secret.0.len())));
    }
    if manifest.files.len() > SNAPSHOT_FILES_MAX {
        return Err(HandleError::Malformed(format!("a snapshot of {} files", manifest.files.len())));
    }
    for file in &manifest.files {
        let path = Path::new(&file.path);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let depth = path.components().count();
        let long = file.path.len() > SNAPSHOT_PATH_BYTES_MAX;
        if !plain || depth == 0 || depth > DEPTH_MAX || long || file.path.contains('\0') {
            return Err(HandleError::Malformed(format!("snapshot file name {:?}", file.path)));
        }
    }
    let lengths = manifest.files.iter().map(|file| file.length_bytes);
    let bytes = lengths.fold(0_u64, u64::saturating_add);
    if bytes > SNAPSHOT_BYTES_MAX {
        return Err(HandleError::SnapshotTooLarge { bytes, most: SNAPSHOT_BYTES_MAX });
    }
    if !manifest.membership.is_empty() {
        known(&manifest.membership).map_err(|error| HandleError::Malformed(error.to_string()))?;
    }
    Ok(())
}

/// Removes what earlier transfers left, but for this folder.
fn discard_others(dir: &Path, keep: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(RECEIVING) && name != keep) {
            snapshot::remove(&entry.path());
        }
    }
    Ok(())
}

impl Transfer {
    pub(crate) fn new(manifest: Manifest, secret: SnapshotSecret, dir: &Path) -> io::Result<Self> {
        let name = snapshot::snapshot_name(&manifest)?;
        let path = dir.join(folder_name(&name));
        Ok(Self { name, manifest: Arc::new(manifest), secret, path })
    }

    /// Whether its values are sealed under a key that is of this copy alone.
    fn is_sealed(&self) -> bool {
        !self.secret.0.is_empty()
    }

    /// Name of its folder.
    pub(crate) fn folder_name(&self) -> String {
        folder_name(&self.name)
    }

    /// What the sender says it contains.
    pub(crate) fn applied(&self) -> AppliedState {
        let manifest = &self.manifest;
        let membership =
            (!manifest.membership.is_empty()).then(|| (manifest.membership_at, manifest.membership.clone()));
        AppliedState { position: manifest.position, membership }
    }

    /// Makes place below a folder in which nothing but this transfer's may stay, as [`Transfer::prepare`] does; not when the
    /// disk has no room for what is left to be read.
    pub(crate) fn make_room(&self, dir: &Path, keep: &str) -> io::Result<Result<Vec<u64>, HandleError>> {
        discard_others(dir, keep)?;
        let have = self.prepare()?;
        // No sum of them is larger than the limit: see `check`.
        let left = self.manifest.files.iter().zip(&have).map(|(file, have)| file.length_bytes.saturating_sub(*have));
        Ok(Disk::of(dir)?.fits(left.sum()).map(|()| have))
    }

    /// Creates the folders and says how much of each file is there.
    fn prepare(&self) -> io::Result<Vec<u64>> {
        fs::create_dir_all(&self.path)?;
        let mut have = Vec::with_capacity(self.manifest.files.len());
        for file in &self.manifest.files {
            let path = self.path.join(&file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let there = fs::OpenOptions::new().create(true).append(true).open(&path)?.metadata()?.len();
            if there > file.length_bytes {
                fs::File::create(&path)?;
                have.push(0);
            } else {
                have.push(there);
            }
        }
        Ok(have)
    }

    /// Appends a part if it fits the end of its file. Returns where the file ends now.
    pub(crate) fn write(&self, part: &Part) -> io::Result<u64> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
        let info =
            self.manifest.files.get(part.file as usize).ok_or_else(|| invalid("no such file in the snapshot"))?;
        let mut file = fs::OpenOptions::new().append(true).open(self.path.join(&info.path))?;
        let end = file.metadata()?.len();
        if part.offset_bytes != end {
            return Ok(end);
        }
        if info.length_bytes.saturating_sub(end) < part.data.len() as u64 {
            return Err(invalid("more data than the file has"));
        }
        file.write_all(&part.data)?;
        Ok(end + part.data.len() as u64)
    }

    /// Names all files that do not verify, and removes those that are wrong, so that one more transfer brings all of them.
    ///
    /// A sealed one is not made durable: what becomes the state is sealed anew, which is, and of what a failure of the power
    /// leaves here the next transfer finds out by this whether it is worth anything. So it is gone again before the system has
    /// written it. Of any other one the files themselves become those of the state, and are durable before anybody waits for
    /// them.
    pub(crate) fn verify(&self) -> io::Result<Option<String>> {
        let mut bad = Vec::new();
        for info in &self.manifest.files {
            let path = self.path.join(&info.path);
            let (length, sha256) = snapshot::hash_file(&path)?;
            if length < info.length_bytes {
                bad.push(format!("{} is not complete", info.path));
                continue;
            }
            if length != info.length_bytes || sha256 != info.sha256 {
                fs::remove_file(&path)?;
                bad.push(format!("{} did not verify", info.path));
                continue;
            }
            if self.is_sealed() {
                continue;
            }
            fs::File::open(&path)?.sync_all()?;
            if let Some(parent) = path.parent() {
                snapshot::sync_dir(parent)?;
            }
        }
        if !self.is_sealed() {
            snapshot::sync_dir(&self.path)?;
        }
        Ok((!bad.is_empty()).then(|| bad.join(", ")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::raft::wire::FileInfo;

    fn manifest(lengths: &[u64]) -> Manifest {
        let file = |(number, length): (usize, &u64)| FileInfo {
            path: format!("{number}.sst"),
            length_bytes: *length,
            sha256: [7; 32],
        };
        let files = lengths.iter().enumerate().map(file).collect();
        Manifest { position: None, membership_at: None, membership: Vec::new(), files }
    }

    /// Why a snapshot of files of these lengths is not read.
    fn refusal(lengths: &[u64]) -> Option<&'static str> {
        check(&manifest(lengths), &SnapshotSecret::default()).err().map(|error| error.code())
    }

    #[test]
    fn files_that_are_larger_together_than_any_snapshot_are_refused() {
        let most = SNAPSHOT_BYTES_MAX;
        assert_eq!(refusal(&[most]), None);
        assert_eq!(refusal(&[most - 2, 0, 1, 1]), None);
        assert_eq!(refusal(&[most + 1]), Some("snapshot_too_large"));
        assert_eq!(refusal(&[1, most]), Some("snapshot_too_large"));
        // A sum that goes around is none that is small.
        assert_eq!(refusal(&[u64::MAX, 2]), Some("snapshot_too_large"));
        assert_eq!(refusal(&[1 << 63, 1 << 63]), Some("snapshot_too_large"));
        let many: Vec<u64> = std::iter::repeat_n(u64::MAX, SNAPSHOT_FILES_MAX).collect();
        assert_eq!(refusal(&many), Some("snapshot_too_large"));
    }

    #[test]
    fn a_snapshot_fits_when_it_is_there_twice_and_leaves_something_free() {
        const GIB: u64 = 1 << 30;
        let rows = [
            // Size and free bytes of the disk, and the most that fits.
            (1024 * GIB, 101 * GIB, 50 * GIB),
            (1024 * GIB, 2 * GIB, GIB / 2),
            (1024 * GIB, GIB, 0),
            // A thirty-second part of a small one.
            (16 << 20, 10 << 20, (10 << 19) - (1 << 18)),
        ];
        for (size_bytes, free_bytes, most) in rows {
            let disk = Disk { size_bytes, free_bytes };
            assert_eq!(disk.fits(most), Ok(()), "{disk:?}");
            assert_eq!(disk.fits(most + 1).map_err(|error| error.code()), Err("snapshot_no_room"), "{disk:?}");
        }
        let full = Disk { size_bytes: 1024 * GIB, free_bytes: 0 };
        for left in [0, 1, u64::MAX] {
            assert_eq!(full.fits(left).map_err(|error| error.code()), Err("snapshot_no_room"));
        }
    }

    #[test]
    fn what_would_fill_the_disk_is_not_read_and_what_is_there_already_counts() {
        let dir = tempfile::TempDir::new().unwrap();
        let free = Disk::of(dir.path()).unwrap().free_bytes;
        assert!(free > 0);
        let prepared = |length: u64| {
            let transfer = Transfer::new(manifest(&[length]), SnapshotSecret::default(), dir.path()).unwrap();
            let made = transfer.make_room(dir.path(), &transfer.folder_name()).unwrap();
            (transfer, made)
        };
        let (large, refused) = prepared(free);
        assert_eq!(refused.map_err(|error| error.code()), Err("snapshot_no_room"));
        let part = fs::File::options().write(true).open(large.path.join("0.sst")).unwrap();
        // All of it is there, as far as its length says: the file has holes.
        part.set_len(free).unwrap();
        assert_eq!(prepared(free).1, Ok(vec![free]));
    }
}
