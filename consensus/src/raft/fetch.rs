//! Fetching: a replica whose state is gone takes a snapshot of another one before it takes part.
//!
//! It is needed when the log was purged and neither the state nor a kept snapshot reaches what is left
//! of it. openraft does not start then, and a leader sends its snapshot only to a follower whose log
//! is behind, which this one's is not. So the replica asks for one itself, of any other member: what a
//! member has applied is committed, whoever leads.
//!
//! The replica keeps its vote and its log, so whatever it promised or acknowledged before stays as it
//! was. Only entries that contradict the snapshot go: they cannot have been committed.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use futures::future::join_all;
use ledger::ids::{GroupId, NodeId};
use tokio::sync::Mutex;

use super::codec;
use super::group::HandleError;
use super::log::Log;
use super::machine::ApplierCell;
use super::network::{Peer, Sender};
use super::purge::Sending;
use super::receive::{Transfer, check, discard_others};
use super::snapshot::{self, Folder, Snapshots, blocking};
use super::types::{log_id, position};
use super::wire::{self, Ask, AskReply, Manifest, Part, ReadReply};
use crate::port::{Origin, Position, any_replica};

/// Why no snapshot was fetched: what each of the others said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no other replica lends its snapshot: {}", said(.0))]
pub struct FetchError(pub Vec<(NodeId, String)>);

fn said(answers: &[(NodeId, String)]) -> String {
    if answers.is_empty() {
        return "there is no other".to_owned();
    }
    let answers: Vec<String> = answers.iter().map(|(node, what)| format!("node {node}: {what}")).collect();
    answers.join("; ")
}

/// Gives this replica's snapshot to others that ask for it.
pub(crate) struct Lender {
    snapshots: Arc<Snapshots>,
    applier: Arc<ApplierCell>,
    /// What is being read, so that the log behind it stays.
    sending: Arc<Sending>,
    /// What was lent last, so that it stays while it is read although a newer one supersedes it.
    lent: Mutex<Option<([u8; 32], Arc<Folder>, Arc<Manifest>)>>,
}

impl Lender {
    pub(crate) fn new(snapshots: Arc<Snapshots>, applier: Arc<ApplierCell>, sending: Arc<Sending>) -> Self {
        Self { snapshots, applier, sending, lent: Mutex::new(None) }
    }

    /// Whoever reads needs what comes behind the snapshot next, and that counts a little longer than the read.
    fn needed(&self, folder: &Folder) {
        if let Some(position) = folder.applied.position {
            drop(self.sending.begin(position.index));
        }
    }

    /// Lends a snapshot that reaches at least so far, made now if there is none.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<AskReply, HandleError> {
        let failed = |error: io::Error| HandleError::Snapshot(error.to_string());
        let snapshots = self.snapshots.clone();
        let found = self.applier.run(move |applier| snapshots.reaching(applier, ask.at_least)).await;
        let Some(folder) = found.map_err(|error| HandleError::Stopped(error.to_string()))? else {
            return Ok(AskReply::Behind);
        };
        let hashing = folder.clone();
        let manifest = blocking(move || hashing.manifest()).await.map_err(failed)?;
        let name = snapshot::snapshot_name(&manifest).map_err(failed)?;
        let secret = folder.secret.clone();
        self.needed(&folder);
        *self.lent.lock().await = Some((name, folder, manifest.clone()));
        Ok(AskReply::Lent((*manifest).clone(), secret))
    }

    /// Reads a piece of what was lent.
    pub(crate) async fn read(&self, read: wire::Read) -> Result<ReadReply, HandleError> {
        let (path, length) = {
            let lent = self.lent.lock().await;
            let current = lent.as_ref().filter(|(name, ..)| *name == read.snapshot);
            let Some((_, folder, manifest)) = current else { return Ok(ReadReply::Unknown) };
            let Some(info) = manifest.files.get(read.file as usize) else { return Ok(ReadReply::Unknown) };
            self.needed(folder);
            (folder.path.join(&info.path), info.length_bytes)
        };
        if read.offset_bytes >= length {
            return Err(HandleError::Malformed("a read behind the end of a file".into()));
        }
        let data = blocking(move || snapshot::read_part(&path, read.offset_bytes)).await;
        data.map(ReadReply::Data).map_err(|error| HandleError::Snapshot(error.to_string()))
    }
}

/// A snapshot of another replica, whole on this disk, and not judged yet.
pub(crate) struct Borrowed {
    transfer: Transfer,
    node: NodeId,
}

/// Brings a snapshot that reaches at least `needed` onto this disk, from the first of these nodes that lends one. The
/// state stays as it is.
pub(crate) async fn borrow(
    sender: &Arc<Sender>,
    snapshots: &Arc<Snapshots>,
    needed: Position,
    others: &[NodeId],
) -> Result<Borrowed, FetchError> {
    let mut answers = Vec::new();
    for node in others {
        match Borrower::at(sender, *node, snapshots, needed).borrow().await {
            Ok(borrowed) => return Ok(borrowed),
            Err(what) => answers.push((*node, what)),
        }
    }
    Err(FetchError(answers))
}

/// What a replica looks for the others with that have gone on without it.
pub(crate) struct Lookout {
    pub(crate) sender: Arc<Sender>,
    pub(crate) snapshots: Arc<Snapshots>,
}

impl Lookout {
    /// The group.
    pub(crate) fn group(&self) -> GroupId {
        self.sender.group
    }

    /// The latest stint that any of these nodes is in, as they say.
    pub(crate) async fn latest_stint(&self, nodes: &[NodeId]) -> Option<u64> {
        let asking = nodes.iter().map(|node| async move {
            let peer = Peer::to(self.sender.clone(), any_replica(*node), *node);
            peer.call::<u64>(wire::STINT, peer.request(&()), peer.call_timeout()).await.ok()
        });
        join_all(asking).await.into_iter().flatten().max()
    }

    /// Brings a snapshot that reaches this index onto this disk, from whichever of these nodes lends one.
    pub(crate) async fn borrow_snapshot(&self, index: u64, nodes: &[NodeId]) -> Result<Borrowed, FetchError> {
        borrow(&self.sender, &self.snapshots, Position { index, ..Position::default() }, nodes).await
    }
}

/// Fetches a snapshot that reaches at least `needed`, from the first of these nodes that lends one, and
/// installs it. Any replica of theirs will do: what it has applied is committed.
pub(crate) async fn fetch(
    sender: &Arc<Sender>,
    snapshots: &Arc<Snapshots>,
    applier: &Arc<ApplierCell>,
    log: &Log,
    needed: Position,
    others: &[NodeId],
) -> Result<(), FetchError> {
    let mut answers = Vec::new();
    for node in others {
        let fetched = match Borrower::at(sender, *node, snapshots, needed).borrow().await {
            Ok(borrowed) => borrowed.install(snapshots, applier, log).await,
            Err(what) => Err(what),
        };
        match fetched {
            Ok(()) => return Ok(()),
            Err(what) => answers.push((*node, what)),
        }
    }
    Err(FetchError(answers))
}

struct Borrower<'a> {
    peer: Peer,
    node: NodeId,
    snapshots: &'a Arc<Snapshots>,
    needed: Position,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl<'a> Borrower<'a> {
    fn at(sender: &Arc<Sender>, node: NodeId, snapshots: &'a Arc<Snapshots>, needed: Position) -> Self {
        Self { peer: Peer::to(sender.clone(), any_replica(node), node), node, snapshots, needed }
    }

    async fn borrow(&self) -> Result<Borrowed, String> {
        let transfer = self.ask().await?;
        let (dir, keep) = (self.snapshots.dir().to_path_buf(), transfer.folder_name());
        let preparing = transfer.clone();
        let have = blocking(move || {
            discard_others(&dir, &keep)?;
            preparing.prepare()
        });
        for (file, have) in have.await.map_err(text)?.into_iter().enumerate() {
            self.read(&transfer, file, have).await?;
        }
        let verifying = transfer.clone();
        if let Some(bad) = blocking(move || verifying.verify()).await.map_err(text)? {
            return Err(bad);
        }
        Ok(Borrowed { transfer, node: self.node })
    }

    async fn ask(&self) -> Result<Transfer, String> {
        // Making and hashing a snapshot takes as long as it is large.
        let patience = self.peer.call_timeout() * 100;
        let ask = self.peer.request(&Ask { at_least: self.needed.index });
        match self.peer.call(wire::SNAPSHOT_ASK, ask, patience).await.map_err(text)? {
            AskReply::Behind => Err("it is behind this replica's log".to_owned()),
            AskReply::Lent(manifest, secret) => {
                check(&manifest, &secret).map_err(text)?;
                if manifest.position.is_none_or(|position| position.index < self.needed.index) {
                    return Err("it lends a snapshot that does not reach far enough".to_owned());
                }
                Transfer::new(manifest, secret, self.snapshots.dir()).map_err(text)
            }
        }
    }

    async fn read(&self, transfer: &Transfer, file: usize, have: u64) -> Result<(), String> {
        let (snapshot, length) = (transfer.name, transfer.manifest.files[file].length_bytes);
        let file = u32::try_from(file).map_err(text)?;
        let mut offset = have;
        while offset < length {
            let read = self.peer.request(&wire::Read { snapshot, file, offset_bytes: offset });
            let reply = self.peer.call(wire::SNAPSHOT_READ, read, self.peer.call_timeout()).await;
            let data = match reply.map_err(text)? {
                ReadReply::Data(data) => data,
                ReadReply::Unknown => return Err("it does not lend this snapshot any more".to_owned()),
            };
            let (writing, part) = (transfer.clone(), Part { snapshot, file, offset_bytes: offset, data });
            let end = blocking(move || writing.write(&part)).await.map_err(text)?;
            if end <= offset {
                return Err("it sent nothing".to_owned());
            }
            offset = end;
        }
        Ok(())
    }
}

impl Borrowed {
    /// Lets the applier check what is in the files, takes what contradicts them off the log, and
    /// installs them as another node's, which they would not be to a start that finds them. A crash in
    /// between leaves a log that is as good as before.
    pub(crate) async fn install(
        self,
        snapshots: &Arc<Snapshots>,
        applier: &Arc<ApplierCell>,
        log: &Log,
    ) -> Result<(), String> {
        let transfer = self.transfer;
        let applied = transfer.applied();
        let at = applied.position.ok_or("it contains no position")?;
        let (path, secret) = (transfer.path.clone(), transfer.secret);
        // Whatever becomes of it, the files are not needed any more after this.
        let folder = Folder::new(transfer.path, applied.clone(), secret.clone(), false);
        let origin = Origin { node: self.node, secret };
        let checked = applier.run(move |applier| Ok(applier.prepare(&path, Some(origin)))).await.map_err(text)?;
        if checked.map_err(text)?.position != applied.position {
            return Err("its files contain another position than it said".to_owned());
        }
        let conflicts = log.entry_id(at.index).map_err(text)?.is_some_and(|id| id != log_id(&at));
        if conflicts {
            let kept = at.index.checked_sub(1);
            log.truncate_behind(kept).await.map_err(text)?;
        }
        let snapshots = snapshots.clone();
        applier.run(move |applier| snapshots.install(applier, &folder)).await.map_err(text)
    }
}

/// The position that a snapshot has to reach, when neither the state nor the kept snapshot does: where the log begins,
/// and where the stint began that this replica has promised something in. Entries of a stint before are not replayed
/// by the engine of this one.
pub(crate) fn missing(log: &Log, applied: Option<Position>, kept: Option<Position>) -> io::Result<Option<Position>> {
    let purged = log.purged()?.map(|marker| codec::decode_log_id(&marker)).transpose()?.flatten();
    let stint = log.stint()?.filter(|stint| stint.start > 0);
    let begun = stint.map(|stint| Position { index: stint.start, ..Position::default() });
    let needed = purged.as_ref().map(position).into_iter().chain(begun).max_by_key(|position| position.index);
    let reached = applied.max(kept).map(|position| position.index);
    Ok(needed.filter(|needed| reached < Some(needed.index)))
}
