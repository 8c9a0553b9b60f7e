//! Snapshot folders on disk: building, keeping, sending.
//!
//! The current snapshot lives in `at-<index>-<term>-<leader>` below the group's snapshot folder. A
//! folder is removed when it is superseded and its last reader is gone. Files never change, so a
//! transfer goes on where it broke off.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, StreamingError};
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::codec;
use super::fetch::LastAsked;
use super::network::Peer;
use super::types::{LeaderId, SnapshotMeta, TypeConfig, Vote, log_id};
use super::wire::{self, FileInfo, Manifest};
use crate::port::{AppliedState, Applier, Fatal, Position, SnapshotSecret};

const FINISHED: &str = "at-";
const UNFINISHED: &str = "tmp-";
pub(crate) const RECEIVING: &str = "recv-";
/// Read at a time when a file is hashed.
const HASH_BUFFER_BYTES: usize = 256 << 10;

/// A snapshot's folder. Whoever holds it may read; it is removed with the last holder unless it is
/// still the current one. A received one is never that: installing it copies what is in it.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) applied: AppliedState,
    /// What others need to read it.
    pub(crate) secret: SnapshotSecret,
    keep: AtomicBool,
    manifest: Mutex<Option<Arc<Manifest>>>,
}

impl Folder {
    pub(crate) fn new(path: PathBuf, applied: AppliedState, secret: SnapshotSecret, keep: bool) -> Self {
        Self { path, applied, secret, keep: AtomicBool::new(keep), manifest: Mutex::new(None) }
    }

    /// Whether it has the entry of this index.
    pub(crate) fn reaches(&self, index: u64) -> bool {
        self.applied.position.is_some_and(|position| position.index >= index)
    }

    /// Whether the folder outlives its holders.
    pub(crate) fn keep(&self, keep: bool) {
        self.keep.store(keep, Ordering::Relaxed);
    }

    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta {
            last_log_id: self.applied.position.as_ref().map(log_id),
            last_membership: codec::stored_membership(&self.applied)?,
        })
    }

    /// Lists and hashes the files, once.
    pub(crate) fn manifest(&self) -> io::Result<Arc<Manifest>> {
        let mut known = self.manifest.lock();
        if let Some(manifest) = known.as_ref() {
            return Ok(manifest.clone());
        }
        let mut files = Vec::new();
        list(&self.path, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let (membership_at, membership) = self.applied.membership.clone().unwrap_or_default();
        let manifest = Arc::new(Manifest { position: self.applied.position, membership_at, membership, files });
        *known = Some(manifest.clone());
        Ok(manifest)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Relaxed) {
            remove(&self.path);
        }
    }
}

/// Removes a folder; what cannot be removed is found again at the next start.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a snapshot folder could not be removed");
    }
}

/// Makes names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn list(folder: &Path, below: &str, out: &mut Vec<FileInfo>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| io::Error::other(format!("{}: not UTF-8", entry.path().display())))?;
        let path = format!("{below}{name}");
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{path}/"), out)?;
        } else {
            let (length_bytes, sha256) = hash_file(&entry.path())?;
            out.push(FileInfo { path, length_bytes, sha256 });
        }
    }
    Ok(())
}

/// Length and hash of a file.
pub(crate) fn hash_file(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((length, hasher.finalize().into())),
            read => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
}

/// Name of a transfer.
pub(crate) fn snapshot_name(manifest: &Manifest) -> io::Result<[u8; 32]> {
    Ok(Sha256::digest(borsh::to_vec(manifest)?).into())
}

/// The group's snapshots.
pub(crate) struct Snapshots {
    dir: PathBuf,
    /// What others need to read them.
    secret: SnapshotSecret,
    current: Mutex<Option<Arc<Folder>>>,
    /// Set by an install, which uses up the folder: the next reader gets a fresh checkpoint.
    rebuild: AtomicBool,
    /// Whom this replica asks last when it needs a snapshot of another one.
    pub(crate) last_asked: LastAsked,
}

impl Snapshots {
    /// Finds the newest finished snapshot and removes whatever else an earlier run left behind,
    /// except a transfer that can go on.
    pub(crate) fn open(dir: &Path, applier: &dyn Applier) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut finished = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(UNFINISHED) {
                remove(&entry.path());
            } else if let Some(position) = parse_name(name) {
                finished.push((position.index, position, entry.path()));
            } else if name.starts_with(RECEIVING) {
                // One that was installed before the last stop; others may go on.
                let applied = applier.applied().position;
                let whole = applier.inspect(&entry.path());
                if whole.is_ok_and(|received| received.position.is_some() && received.position <= applied) {
                    remove(&entry.path());
                }
            }
        }
        finished.sort();
        let (mut current, secret) = (None, applier.secret());
        while let Some((_, position, path)) = finished.pop() {
            let usable = applier.inspect(&path).ok().filter(|applied| applied.position == Some(position));
            match usable {
                Some(applied) if current.is_none() => {
                    current = Some(Arc::new(Folder::new(path, applied, secret.clone(), true)));
                }
                _ => remove(&path),
            }
        }
        let dir = dir.to_path_buf();
        let rebuild = AtomicBool::new(false);
        Ok(Self { dir, secret, current: Mutex::new(current), rebuild, last_asked: LastAsked::default() })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a checkpoint of what is applied now, unless the current snapshot is that.
    pub(crate) fn build(&self, applier: &mut dyn Applier) -> Result<Arc<Folder>, Fatal> {
        let applied = applier.applied();
        if let Some(current) = self.current.lock().clone()
            && current.applied.position == applied.position
        {
            return Ok(current);
        }
        // Without a position the folder is never found again: there is nothing in it to find.
        let name = name_of(applied.position.unwrap_or_default());
        let unfinished = self.dir.join(format!("{UNFINISHED}{name}"));
        let path = self.dir.join(name);
        remove(&unfinished);
        remove(&path);
        let snapshot = applier.checkpoint(&unfinished)?;
        fs::rename(&unfinished, &path)
            .and_then(|()| sync_dir(&self.dir))
            .map_err(|error| Fatal(format!("{}: the snapshot could not be put in place: {error}", path.display())))?;
        let folder = Arc::new(Folder::new(path, snapshot.applied, self.secret.clone(), true));
        self.replace(Some(folder.clone()));
        Ok(folder)
    }

    /// Gives a received or found snapshot to the applier.
    pub(crate) fn install(&self, applier: &mut dyn Applier, folder: &Folder) -> Result<(), Fatal> {
        let applied = applier.install(&folder.path)?;
        if applied.position != folder.applied.position {
            return Err(Fatal(format!(
                "{}: installed up to {:?}, but the snapshot was announced up to {:?}",
                folder.path.display(),
                applied.position,
                folder.applied.position
            )));
        }
        self.rebuild.store(true, Ordering::Relaxed);
        self.replace(None);
        Ok(())
    }

    /// The current snapshot, made anew if the last one was used up by an install.
    pub(crate) fn current(&self, applier: &mut dyn Applier) -> Result<Option<Arc<Folder>>, Fatal> {
        let current = self.current.lock().clone();
        match current {
            None if self.rebuild.load(Ordering::Relaxed) => self.build(applier).map(Some),
            current => Ok(current),
        }
    }

    /// Where the current snapshot stands.
    pub(crate) fn kept(&self) -> Option<Position> {
        self.current.lock().as_ref().and_then(|folder| folder.applied.position)
    }

    /// The current snapshot, where it reaches this index at least.
    pub(crate) fn kept_reaching(&self, index: u64) -> Option<Arc<Folder>> {
        self.current.lock().clone().filter(|folder| folder.reaches(index))
    }

    /// A snapshot that reaches this index at least, made now if need be; `None` when the state itself
    /// has not got so far.
    pub(crate) fn reaching(&self, applier: &mut dyn Applier, index: u64) -> Result<Option<Arc<Folder>>, Fatal> {
        let reaches = |applied: &AppliedState| applied.position.is_some_and(|position| position.index >= index);
        let current = self.current.lock().clone().filter(|folder| reaches(&folder.applied));
        if current.is_some() {
            return Ok(current);
        }
        if reaches(&applier.applied()) { self.build(applier).map(Some) } else { Ok(None) }
    }

    fn replace(&self, next: Option<Arc<Folder>>) {
        let previous = std::mem::replace(&mut *self.current.lock(), next);
        if let Some(previous) = previous {
            previous.keep(false);
        }
    }
}

fn name_of(position: Position) -> String {
    format!("{FINISHED}{:020}-{}-{}", position.index, position.term, position.leader)
}

fn parse_name(name: &str) -> Option<Position> {
    let mut numbers = name.strip_prefix(FINISHED)?.splitn(3, '-').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let (index, term, leader) = (next()?, next()?, next()?);
    Some(Position { term, leader, index })
}

/// openraft's form of a folder.
pub(crate) fn snapshot(folder: Arc<Folder>) -> io::Result<Snapshot<LeaderId, u64, ledger::ids::NodeId, Arc<Folder>>> {
    Ok(Snapshot { meta: folder.meta()?, snapshot: folder })
}

type Sending<T> = Result<T, StreamingError<TypeConfig>>;

fn network(what: impl ToString) -> StreamingError<TypeConfig> {
    NetworkError::from_string(what).into()
}

async fn call<R: borsh::BorshDeserialize>(peer: &Peer, kind: u8, payload: Bytes) -> Sending<R> {
    let reply = peer.call(kind, payload, peer.call_timeout()).await;
    reply.map_err(|error| RPCError::from(error).into())
}

/// Sends a snapshot and waits until it is installed; the receiver's vote comes back. After a broken
/// transfer the receiver says how much it has.
pub(crate) async fn send(peer: &Peer, vote: &Vote, folder: &Arc<Folder>) -> Sending<Vote> {
    let hashing = folder.clone();
    let manifest = blocking(move || hashing.manifest()).await.map_err(network)?;
    let name = snapshot_name(&manifest).map_err(network)?;
    let offer = wire::Offer { vote: vote.into(), manifest: (*manifest).clone(), secret: folder.secret.clone() };
    let have = match call(peer, wire::SNAPSHOT_OFFER, peer.request(&offer)).await? {
        wire::OfferReply::NotNeeded(vote) | wire::OfferReply::HigherVote(vote) => {
            return Ok(vote.into());
        }
        wire::OfferReply::Have(have) => have,
    };
    for (number, info) in manifest.files.iter().enumerate() {
        let have = have.get(number).copied().unwrap_or(0);
        send_file(peer, &name, number as u32, &folder.path.join(&info.path), info.length_bytes, have).await?;
    }
    let done = wire::Done { vote: vote.into(), snapshot: name };
    // Verifying and installing takes as long as the snapshot is large.
    let patience = peer.call_timeout() * 100;
    let reply = peer.call(wire::SNAPSHOT_DONE, peer.request(&done), patience).await;
    match reply.map_err(RPCError::from)? {
        wire::DoneReply::Installed(vote) => Ok(vote.into()),
        wire::DoneReply::Again(reason) => Err(network(reason)),
    }
}

async fn send_file(peer: &Peer, name: &[u8; 32], file: u32, path: &Path, length: u64, have: u64) -> Sending<()> {
    let mut offset = have.min(length);
    while offset < length {
        let path = path.to_path_buf();
        let data = blocking(move || read_part(&path, offset)).await.map_err(network)?;
        let part = wire::Part { snapshot: *name, file, offset_bytes: offset, data };
        let next = match call(peer, wire::SNAPSHOT_PART, peer.request(&part)).await? {
            wire::PartReply::Continue(next) => next,
            wire::PartReply::Unknown => {
                return Err(network("the receiver is not receiving this snapshot any more"));
            }
        };
        if next <= offset {
            return Err(network("the receiver went back in a snapshot file"));
        }
        offset = next;
    }
    Ok(())
}

/// A piece of a file, from an offset that it has.
pub(crate) fn read_part(path: &Path, offset: u64) -> io::Result<Bytes> {
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut data = Vec::with_capacity(wire::PART_BYTES_MAX);
    file.take(wire::PART_BYTES_MAX as u64).read_to_end(&mut data)?;
    if data.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{}: shorter than listed", path.display())));
    }
    Ok(data.into())
}

/// Runs file work away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
