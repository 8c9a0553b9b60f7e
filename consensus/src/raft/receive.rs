//! An arriving snapshot: files grow in `recv-<name>` below the group's snapshot folder until they
//! are whole and verify, and are then handed to openraft.
//!
//! One transfer at a time; the offer of another snapshot discards it. A transfer survives a broken
//! connection, a new leader that offers the same snapshot, and a restart of this node.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ledger::ids::NodeId;
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
        let have = blocking(move || {
            discard_others(&dir, &folder)?;
            prepared.prepare()
        });
        let have = have.await.map_err(failed)?;
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
        let folder = Arc::new(Folder::new(current.path.clone(), applied.clone(), secret.clone(), false));
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

/// Refuses names that lead out of the folder, a membership that is none, and a secret that is no key.
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
    if !manifest.membership.is_empty() {
        known(&manifest.membership).map_err(|error| HandleError::Malformed(error.to_string()))?;
    }
    Ok(())
}

/// Removes what earlier transfers left, but for this folder.
pub(crate) fn discard_others(dir: &Path, keep: &str) -> io::Result<()> {
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

    /// Creates the folders and says how much of each file is there.
    pub(crate) fn prepare(&self) -> io::Result<Vec<u64>> {
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

    /// Makes the files durable; names all that do not verify, and removes those that are wrong, so that
    /// one more transfer brings all of them.
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
            fs::File::open(&path)?.sync_all()?;
            if let Some(parent) = path.parent() {
                snapshot::sync_dir(parent)?;
            }
        }
        snapshot::sync_dir(&self.path)?;
        Ok((!bad.is_empty()).then(|| bad.join(", ")))
    }
}
