//! Snapshot folders on disk: building, keeping, sending.
//!
//! The current snapshot lives in `at-<index>-<term>-<leader>` below the group's snapshot folder. A
//! folder is removed when it is superseded and its last reader is gone. Files never change, so a
//! transfer goes on where it broke off.
//!
//! What others are sent may be a copy of it, in `lent-<name>`, made when the first of them asks and gone with the folder, or
//! at the next start: the secret that reads it is nowhere but in memory.

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
use crate::port::{AppliedState, Applier, Fatal, Packed, Packer, Position, SnapshotSecret};

const FINISHED: &str = "at-";
const UNFINISHED: &str = "tmp-";
/// Behind [`UNFINISHED`]: one of a state in which nothing is applied.
const EMPTY: &str = "empty";
const LENT: &str = "lent-";
pub(crate) const RECEIVING: &str = "recv-";
/// Read at a time when a file is hashed.
const HASH_BUFFER_BYTES: usize = 256 << 10;

/// A snapshot's folder. Whoever holds it may read; it is removed with the last holder unless it is
/// still the current one. A received one is never that: installing it copies what is in it.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) applied: AppliedState,
    /// Makes of it what others may be sent; none for one that was received.
    packer: Option<Arc<dyn Packer>>,
    keep: AtomicBool,
    sent: Mutex<Option<Arc<Sent>>>,
    /// What is in it that no header covers, once somebody has wanted to know.
    #[cfg(feature = "bft")]
    uncovered: Mutex<Option<ledger::hash::Hash32>>,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, form: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        form.debug_struct("Folder").field("path", &self.path).field("applied", &self.applied).finish_non_exhaustive()
    }
}

/// What others are sent of a snapshot.
pub(crate) struct Sent {
    pub(crate) manifest: Arc<Manifest>,
    /// Where its files are.
    pub(crate) path: PathBuf,
    /// What reads them.
    pub(crate) secret: SnapshotSecret,
    copied: bool,
}

impl Drop for Sent {
    fn drop(&mut self) {
        if self.copied {
            remove(&self.path);
        }
    }
}

impl Folder {
    /// One of this replica's own, which is kept.
    fn own(path: PathBuf, applied: AppliedState, packer: Arc<dyn Packer>) -> Self {
        Self {
            path,
            applied,
            packer: Some(packer),
            keep: AtomicBool::new(true),
            sent: Mutex::new(None),
            #[cfg(feature = "bft")]
            uncovered: Mutex::new(None),
        }
    }

    /// One that another replica has sent.
    pub(crate) fn received(path: PathBuf, applied: AppliedState) -> Self {
        Self {
            path,
            applied,
            packer: None,
            keep: AtomicBool::new(false),
            sent: Mutex::new(None),
            #[cfg(feature = "bft")]
            uncovered: Mutex::new(None),
        }
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

    /// Makes what others are sent, lists and hashes its files, once.
    pub(crate) fn sent(&self) -> io::Result<Arc<Sent>> {
        let mut known = self.sent.lock();
        if let Some(sent) = known.as_ref() {
            return Ok(sent.clone());
        }
        let packer = self.packer.as_ref().ok_or_else(|| io::Error::other("a received snapshot is not sent on"))?;
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let copy = self.path.with_file_name(format!("{LENT}{name}"));
        // What an attempt has left that did not come to its end.
        remove(&copy);
        let Packed { copied, secret } = packer.pack(&self.path, &copy)?;
        let path = if copied { copy } else { self.path.clone() };
        let mut files = Vec::new();
        if let Err(error) = list(&path, "", &mut files) {
            if copied {
                remove(&path);
            }
            return Err(error);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let (membership_at, membership) = self.applied.membership.clone().unwrap_or_default();
        let manifest = Arc::new(Manifest { position: self.applied.position, membership_at, membership, files });
        let sent = Arc::new(Sent { manifest, path, secret, copied });
        *known = Some(sent.clone());
        Ok(sent)
    }
}

#[cfg(feature = "bft")]
impl Folder {
    /// The hash of what is in it that no header covers; counted once, however many want to know.
    pub(crate) fn uncovered(&self) -> io::Result<ledger::hash::Hash32> {
        let mut known = self.uncovered.lock();
        if let Some(hash) = *known {
            return Ok(hash);
        }
        let packer = self.packer.as_ref().ok_or_else(|| io::Error::other("a received snapshot is not told of"))?;
        let hash = packer.uncovered(&self.path)?;
        *known = Some(hash);
        Ok(hash)
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
    /// Makes of them what others may be sent.
    packer: Arc<dyn Packer>,
    current: Mutex<Option<Arc<Folder>>>,
    /// Set by an install, which uses up the folder: the next reader gets a fresh checkpoint.
    rebuild: AtomicBool,
    /// Whom this replica asks last when it needs a snapshot of another one.
    pub(crate) last_asked: LastAsked,
    /// Entries behind which others want a snapshot.
    #[cfg(feature = "bft")]
    pub(crate) meetings: Arc<super::meetings::Meetings>,
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
            if name.starts_with(UNFINISHED) || name.starts_with(LENT) {
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
        let (mut current, packer) = (None, applier.packer());
        while let Some((_, position, path)) = finished.pop() {
            let usable = applier.inspect(&path).ok().filter(|applied| applied.position == Some(position));
            match usable {
                Some(applied) if current.is_none() => {
                    current = Some(Arc::new(Folder::own(path, applied, packer.clone())));
                }
                _ => remove(&path),
            }
        }
        let dir = dir.to_path_buf();
        let rebuild = AtomicBool::new(false);
        Ok(Self {
            dir,
            packer,
            current: Mutex::new(current),
            rebuild,
            last_asked: LastAsked::default(),
            #[cfg(feature = "bft")]
            meetings: Arc::default(),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a checkpoint of what is applied now, unless the current snapshot is that.
    pub(crate) fn build(&self, applier: &mut dyn Applier) -> Result<Arc<Folder>, Fatal> {
        // Without a position the folder is not for the next start: there is nothing in it to find.
        let name = applier.applied().position.map_or_else(|| format!("{UNFINISHED}{EMPTY}"), name_of);
        let unfinished = self.dir.join(format!("{UNFINISHED}{name}"));
        let path = self.dir.join(name);
        // Known by where the state stood, whatever it says of itself: the end of this one would take another one away
        // that was made in its place.
        if let Some(current) = self.current.lock().clone()
            && current.path == path
        {
            return Ok(current);
        }
        remove(&unfinished);
        remove(&path);
        let snapshot = applier.checkpoint(&unfinished)?;
        fs::rename(&unfinished, &path)
            .and_then(|()| sync_dir(&self.dir))
            .map_err(|error| Fatal(format!("{}: the snapshot could not be put in place: {error}", path.display())))?;
        let folder = Arc::new(Folder::own(path, snapshot.applied, self.packer.clone()));
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
    let packing = folder.clone();
    let sent = blocking(move || packing.sent()).await.map_err(network)?;
    let manifest = &sent.manifest;
    let name = snapshot_name(manifest).map_err(network)?;
    let offer = wire::Offer { vote: vote.into(), manifest: (**manifest).clone(), secret: sent.secret.clone() };
    let have = match call(peer, wire::SNAPSHOT_OFFER, peer.request(&offer)).await? {
        wire::OfferReply::NotNeeded(vote) | wire::OfferReply::HigherVote(vote) => {
            return Ok(vote.into());
        }
        wire::OfferReply::Have(have) => have,
    };
    for (number, info) in manifest.files.iter().enumerate() {
        let have = have.get(number).copied().unwrap_or(0);
        send_file(peer, &name, number as u32, &sent.path.join(&info.path), info.length_bytes, have).await?;
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

/// Sends what the receiver has not yet of a file. The next part is read while one is on its way.
async fn send_file(peer: &Peer, name: &[u8; 32], file: u32, path: &Path, length: u64, have: u64) -> Sending<()> {
    let read = |offset: u64| {
        let path = path.to_path_buf();
        blocking(move || read_part(&path, offset))
    };
    let mut offset = have.min(length);
    let mut ahead: Option<(u64, Bytes)> = None;
    while offset < length {
        let data = match ahead.take() {
            Some((at, data)) if at == offset => data,
            _ => read(offset).await.map_err(network)?,
        };
        let end = offset + data.len() as u64;
        let part = wire::Part { snapshot: *name, file, offset_bytes: offset, data };
        let sending = call(peer, wire::SNAPSHOT_PART, peer.request(&part));
        let reading = async {
            let read = if end < length { Some((end, read(end).await?)) } else { None };
            io::Result::Ok(read)
        };
        let (sent, read) = tokio::join!(sending, reading);
        let next = match sent? {
            wire::PartReply::Continue(next) => next,
            wire::PartReply::Unknown => {
                return Err(network("the receiver is not receiving this snapshot any more"));
            }
        };
        if next <= offset {
            return Err(network("the receiver went back in a snapshot file"));
        }
        ahead = read.map_err(network)?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicU8;

    use super::*;

    /// Copies with every byte turned over, each time under another secret; fails as often as it is told to.
    #[derive(Default)]
    struct Turning {
        made: AtomicU8,
        fails: AtomicBool,
    }

    impl Packer for Turning {
        fn pack(&self, dir: &Path, to: &Path) -> io::Result<Packed> {
            fs::create_dir(to)?;
            if self.fails.load(Ordering::Relaxed) {
                return Err(io::Error::other("the disk is full"));
            }
            let bytes = fs::read(dir.join("state"))?;
            fs::write(to.join("state"), bytes.iter().map(|byte| !byte).collect::<Vec<u8>>())?;
            let secret = SnapshotSecret(vec![self.made.fetch_add(1, Ordering::Relaxed)]);
            Ok(Packed { copied: true, secret })
        }
    }

    #[test]
    fn others_are_sent_a_copy_that_is_made_once_and_goes_with_the_snapshot() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("at-1");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("state"), b"\x01\x02").unwrap();
        let turning = Arc::new(Turning::default());
        let folder = Folder::own(path.clone(), AppliedState::default(), turning.clone());
        turning.fails.store(true, Ordering::Relaxed);
        assert!(folder.sent().is_err());
        turning.fails.store(false, Ordering::Relaxed);
        let sent = folder.sent().unwrap();
        assert_eq!(sent.path, root.path().join("lent-at-1"));
        assert_eq!(fs::read(sent.path.join("state")).unwrap(), b"\xfe\xfd");
        assert_eq!(sent.manifest.files[0].sha256, <[u8; 32]>::from(Sha256::digest(b"\xfe\xfd")));
        assert_eq!((sent.secret.0.as_slice(), folder.sent().unwrap().secret.0.as_slice()), (&[0][..], &[0][..]));
        folder.keep(false);
        drop(folder);
        assert!(!path.exists());
        assert!(sent.path.exists(), "whoever reads it still has it");
        drop(sent);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_received_is_not_sent_on() {
        let root = tempfile::tempdir().unwrap();
        assert!(Folder::received(root.path().join("recv-1"), AppliedState::default()).sent().is_err());
    }
}
