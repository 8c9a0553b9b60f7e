//! Fetching: a replica whose state is gone takes a snapshot of another one before it takes part.
//!
//! It is needed when the log was purged and neither the state nor a kept snapshot reaches what is left
//! of it. openraft does not start then, and a leader sends its snapshot only to a follower whose log
//! is behind, which this one's is not. So the replica asks for one itself, of any other member: what a
//! member has applied is committed, whoever leads. In a Byzantine group the others say so, too, before it is gone by
//! (see [`super::vouch`]).
//!
//! A lender that gives nothing usable costs one attempt, and is asked last from then on. In a Byzantine group nothing is read
//! before as many others as may lie have told one place where it stands: without them the lender's word would not be enough,
//! and to read it takes as long as it is large. There, members are asked first to make a snapshot behind the same entry
//! ([`super::meet`]), and only those that have are asked for theirs.
//!
//! The replica keeps its vote and its log, so whatever it promised or acknowledged before stays as it
//! was. Only entries that contradict the snapshot go: they cannot have been committed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ledger::committee::Engine;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId};
use ledger::limits::LENT_MAX;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::codec;
use super::group::HandleError;
use super::loans::{self, Loans};
use super::log::Log;
use super::machine::ApplierCell;
use super::meet::{self, Meeting};
use super::network::{Peer, Sender};
use super::purge::Sending;
use super::receive::{Transfer, check};
use super::snapshot::{self, Folder, Sent, Snapshots, blocking};
use super::types::{log_id, position};
use super::vouch::{self, Doubt};
use super::wire::{self, Ask, AskReply, Part, ReadReply};
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

/// No snapshot is made for those who ask in so many times the time that the last one took, so that nobody has a lender do
/// that all the time.
const REST_FACTOR: u32 = 9;
/// Nor in this time.
const REST_MIN: Duration = Duration::from_secs(2);

/// What is lent: a snapshot, under the name that its reader knows it by.
struct Lent {
    name: [u8; 32],
    folder: Arc<Folder>,
    sent: Arc<Sent>,
}

impl PartialEq for Lent {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Gives this replica's snapshots to others that ask for them. Whoever asks shares what is there already; one is made only
/// for an entry that none reaches, and after a rest.
pub(crate) struct Lender {
    snapshots: Arc<Snapshots>,
    applier: Arc<ApplierCell>,
    /// What is being read, so that the log behind it stays.
    sending: Arc<Sending>,
    /// What each borrower reads, which stays while it does although a newer one supersedes it.
    loans: parking_lot::Mutex<Loans<Lent>>,
    /// When the next one may be made. Held while one is, so that all who need it then get the same.
    making: Arc<Mutex<Option<Instant>>>,
}

/// A snapshot that is being made for somebody who asks. The rest behind it begins when the work is done, also when nobody
/// waits for it any more.
struct Making {
    next: OwnedMutexGuard<Option<Instant>>,
    begun: Instant,
    made: bool,
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.made {
            *self.next = Some(Instant::now() + REST_MIN.max(self.begun.elapsed() * REST_FACTOR));
        }
    }
}

impl Lender {
    pub(crate) fn new(snapshots: Arc<Snapshots>, applier: Arc<ApplierCell>, sending: Arc<Sending>) -> Self {
        Self { snapshots, applier, sending, loans: parking_lot::Mutex::default(), making: Arc::default() }
    }

    /// Whoever reads needs what comes behind the snapshot next, and that counts a little longer than the read.
    fn needed(&self, folder: &Folder) {
        if let Some(position) = folder.applied.position {
            drop(self.sending.begin(position.index));
        }
    }

    /// Lends a snapshot that reaches at least so far, made now if there is none and it is not too soon.
    pub(crate) async fn ask(&self, from: NodeId, ask: Ask) -> Result<AskReply, HandleError> {
        let folder = match self.there(from, ask.at_least) {
            Some(folder) => folder,
            None => match self.make(from, ask.at_least).await? {
                Some(folder) => folder,
                None => return Ok(AskReply::Behind),
            },
        };
        let packing = folder.clone();
        let sent = blocking(move || packing.sent()).await.map_err(failed)?;
        let (manifest, secret) = (sent.manifest.clone(), sent.secret.clone());
        let name = snapshot::snapshot_name(&manifest).map_err(failed)?;
        self.needed(&folder);
        let bytes = manifest.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.length_bytes));
        let lent = Lent { name, folder, sent };
        self.loans.lock().give(from, lent, bytes, Instant::now());
        Ok(AskReply::Lent((*manifest).clone(), secret))
    }

    /// A snapshot that is there and reaches so far: the one that was made for this node to meet others at, the one that it reads
    /// already, the last one, or what another one reads.
    fn there(&self, from: NodeId, at_least: u64) -> Option<Arc<Folder>> {
        let mut loans = self.loans.lock();
        let now = Instant::now();
        #[cfg(feature = "bft")]
        if let Some(met) = self.snapshots.meetings.folder(from).filter(|folder| folder.reaches(at_least)) {
            return Some(met);
        }
        let own = loans.read(from, now).map(|lent| lent.folder.clone()).filter(|folder| folder.reaches(at_least));
        let kept = own.or_else(|| self.snapshots.kept_reaching(at_least));
        kept.or_else(|| {
            loans.others(from, now).map(|lent| &lent.folder).find(|folder| folder.reaches(at_least)).cloned()
        })
    }

    /// Makes a snapshot that reaches so far; `None` when the state does not.
    async fn make(&self, from: NodeId, at_least: u64) -> Result<Option<Arc<Folder>>, HandleError> {
        let next = self.making.clone().lock_owned().await;
        let mut making = Making { next, begun: Instant::now(), made: false };
        if let Some(folder) = self.there(from, at_least) {
            return Ok(Some(folder));
        }
        if making.next.is_some_and(|next| making.begun < next) {
            return Err(HandleError::LendsNone("one was made a moment ago"));
        }
        if self.lent_to_others(from) >= LENT_MAX {
            return Err(HandleError::LendsNone("as many others are being read as may be"));
        }
        let snapshots = self.snapshots.clone();
        let built = self.applier.run(move |applier| {
            let folder = snapshots.reaching(applier, at_least)?;
            making.made = folder.is_some();
            Ok((folder, making))
        });
        let (folder, making) = built.await.map_err(|error| HandleError::Stopped(error.to_string()))?;
        let Some(folder) = folder else { return Ok(None) };
        // Copying and hashing are the larger part of the work.
        let packing = folder.clone();
        let packed = blocking(move || {
            let sent = packing.sent();
            drop(making);
            sent
        });
        packed.await.map_err(failed)?;
        Ok(Some(folder))
    }

    /// How many snapshots others than this node read.
    fn lent_to_others(&self, from: NodeId) -> usize {
        let mut loans = self.loans.lock();
        let mut names: Vec<[u8; 32]> = loans.others(from, Instant::now()).map(|lent| lent.name).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }

    /// Reads a piece of what was lent to this node.
    pub(crate) async fn read(&self, from: NodeId, read: wire::Read) -> Result<ReadReply, HandleError> {
        let (folder, path, length) = {
            let mut loans = self.loans.lock();
            let current = loans.read(from, Instant::now()).filter(|lent| lent.name == read.snapshot);
            let Some(Lent { folder, sent, .. }) = current else { return Ok(ReadReply::Unknown) };
            let Some(info) = sent.manifest.files.get(read.file as usize) else { return Ok(ReadReply::Unknown) };
            (folder.clone(), sent.path.join(&info.path), info.length_bytes)
        };
        if read.offset_bytes >= length {
            return Err(HandleError::Malformed("a read behind the end of a file".into()));
        }
        self.needed(&folder);
        let data = blocking(move || {
            let data = snapshot::read_part(&path, read.offset_bytes);
            // It is there until it was read, whoever borrows what meanwhile.
            drop(folder);
            data
        });
        data.await.map(ReadReply::Data).map_err(failed)
    }
}

fn failed(error: io::Error) -> HandleError {
    HandleError::Snapshot(error.to_string())
}

/// Nodes that gave nothing usable the last time that they were asked for a snapshot, the latest one last.
#[derive(Default)]
pub(crate) struct LastAsked(parking_lot::Mutex<Vec<NodeId>>);

impl LastAsked {
    /// These nodes, in the order in which they are asked.
    pub(crate) fn order(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let last = self.0.lock();
        let mut order = nodes.to_vec();
        // Those that are not among them come first, as they were.
        order.sort_by_key(|node| last.iter().position(|other| other == node));
        order
    }

    /// A node has given nothing usable.
    pub(crate) fn add(&self, node: NodeId) {
        let mut last = self.0.lock();
        last.retain(|other| *other != node);
        last.push(node);
    }

    /// A node has given a snapshot.
    pub(crate) fn remove(&self, node: NodeId) {
        self.0.lock().retain(|other| *other != node);
    }
}

/// Whom a replica asks that needs a snapshot: for one, and where that of another one stands.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// These nodes, in this order.
    pub(crate) nodes: &'a [NodeId],
    /// So many members of the group may lie, as far as this replica knows.
    pub(crate) tolerated: usize,
    /// The state of this replica is of a group that bears members which lie.
    pub(crate) doubts: bool,
}

impl<'a> Asked<'a> {
    /// All the others of a group: so many may lie as a Byzantine one of this size outlives.
    pub(crate) const fn all(nodes: &'a [NodeId], doubts: bool) -> Self {
        Self { nodes, tolerated: Engine::Bft.tolerated(nodes.len() + 1), doubts }
    }

    /// Whether a snapshot with this note is worth reading, by what others have told of the place where it stands: with its
    /// lender they have to be more than may lie. Only what nobody could vouch for is not; who vouches in the end follows
    /// from its content.
    fn worth_reading(&self, note: &[u8], told: &BTreeMap<NodeId, Hash32>) -> Result<(), String> {
        if !self.doubts && !codec::of_another_engine(note) {
            return Ok(());
        }
        let same = |place: &Hash32| told.values().filter(|other| *other == place).count();
        let alike = told.values().map(same).max().unwrap_or(0);
        if alike >= self.tolerated {
            return Ok(());
        }
        let needed = self.tolerated;
        let code = Doubt::TooFew { alike, needed }.code();
        Err(format!("{code}: {alike} others say alike where it stands, and {needed} have to"))
    }
}

/// A snapshot of another replica, whole on this disk, and not judged yet.
pub(crate) struct Borrowed {
    transfer: Transfer,
    node: NodeId,
    /// What others have told of the place where it stands.
    told: BTreeMap<NodeId, Hash32>,
    /// Who has a snapshot behind the same entry, perhaps.
    meeting: Option<Arc<Meeting>>,
    /// The way to those who have not been asked.
    sender: Arc<Sender>,
}

/// Brings a snapshot that reaches at least `needed` onto this disk, from the first of these nodes that lends one. The
/// state stays as it is.
pub(crate) async fn borrow(
    sender: &Arc<Sender>,
    snapshots: &Arc<Snapshots>,
    needed: Position,
    others: &[NodeId],
) -> Result<Borrowed, FetchError> {
    // One that runs the Byzantine engine fetches for itself: see `fetch`.
    let asked = Asked::all(others, false);
    let needed = remembered(sender, needed, asked).await;
    let (meeting, order) = met(sender, snapshots, asked).await;
    let mut answers = Vec::new();
    for node in order {
        match Borrower::at(sender, node, snapshots, needed, asked).borrow(meeting.clone()).await {
            Ok(borrowed) => return Ok(borrowed),
            Err(what) => {
                snapshots.last_asked.add(node);
                answers.push((node, what));
            }
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

    /// How many of these nodes have in their states what this stint begins behind, as far as they say so within this time.
    #[cfg(feature = "bft")]
    pub(crate) async fn gone_on(&self, stint: u64, nodes: &[NodeId], patience: Duration) -> usize {
        vouch::gone_on(&self.sender, nodes, stint, patience).await
    }

    /// Brings a snapshot that reaches this index onto this disk, from whichever of these nodes lends one.
    pub(crate) async fn borrow_snapshot(&self, index: u64, nodes: &[NodeId]) -> Result<Borrowed, FetchError> {
        borrow(&self.sender, &self.snapshots, Position { index, ..Position::default() }, nodes).await
    }
}

/// A snapshot has to reach what others remember, so that they can vouch for it.
async fn remembered(sender: &Arc<Sender>, needed: Position, asked: Asked<'_>) -> Position {
    let remembered = vouch::remembered(sender, asked.nodes, asked.tolerated).await;
    Position { index: needed.index.max(remembered), ..needed }
}

/// Where these nodes meet, if they do, and in which order they are asked for their snapshots: where there is a meeting, only
/// those that are at it, since nobody could say what is in any other one.
async fn met(
    sender: &Arc<Sender>,
    snapshots: &Arc<Snapshots>,
    asked: Asked<'_>,
) -> (Option<Arc<Meeting>>, Vec<NodeId>) {
    let meeting = meet::meet(sender, asked).await.map(Arc::new);
    let mut order = snapshots.last_asked.order(asked.nodes);
    order.retain(|node| meeting.as_ref().is_none_or(|meeting| meeting.nodes.contains(node)));
    (meeting, order)
}

/// Fetches a snapshot that reaches at least `needed`, from the first of these nodes that lends one that holds, and
/// installs it. Any replica of theirs will do: what it has applied is committed.
pub(crate) async fn fetch(
    sender: &Arc<Sender>,
    snapshots: &Arc<Snapshots>,
    applier: &Arc<ApplierCell>,
    log: &Log,
    needed: Position,
    asked: Asked<'_>,
) -> Result<(), FetchError> {
    let needed = remembered(sender, needed, asked).await;
    let (meeting, order) = met(sender, snapshots, asked).await;
    let mut answers = Vec::new();
    for node in order {
        let fetched = match Borrower::at(sender, node, snapshots, needed, asked).borrow(meeting.clone()).await {
            Ok(borrowed) => borrowed.install(snapshots, applier, log).await,
            Err(what) => Err(what),
        };
        match fetched {
            Ok(()) => {
                snapshots.last_asked.remove(node);
                return Ok(());
            }
            Err(what) => {
                snapshots.last_asked.add(node);
                answers.push((node, what));
            }
        }
    }
    Err(FetchError(answers))
}

/// How fast a lender is, by the time that it was waited for.
#[derive(Default)]
struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// Counts an answer; an error when the lender has taken longer than it may for what it has brought so far.
    fn count(&mut self, bytes: usize, waited: Duration) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waited += waited;
        if self.waited > loans::allowed(self.bytes) {
            return Err(format!("it is too slow: {} bytes in {} s", self.bytes, self.waited.as_secs()));
        }
        Ok(())
    }
}

struct Borrower<'a> {
    sender: &'a Arc<Sender>,
    peer: Peer,
    node: NodeId,
    snapshots: &'a Arc<Snapshots>,
    needed: Position,
    /// Who else may say where the snapshot stands.
    asked: Asked<'a>,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Why nothing is read of a snapshot, with its code.
fn refused(error: HandleError) -> String {
    format!("{}: {error}", error.code())
}

impl<'a> Borrower<'a> {
    fn at(
        sender: &'a Arc<Sender>,
        node: NodeId,
        snapshots: &'a Arc<Snapshots>,
        needed: Position,
        asked: Asked<'a>,
    ) -> Self {
        let peer = Peer::to(sender.clone(), any_replica(node), node);
        Self { sender, peer, node, snapshots, needed, asked }
    }

    async fn borrow(&self, meeting: Option<Arc<Meeting>>) -> Result<Borrowed, String> {
        let transfer = self.ask().await?;
        let index = transfer.manifest.position.map_or(0, |position| position.index);
        // Before it is read, which takes as long as it is large: nobody remembers for ever.
        let told = vouch::places(self.sender, self.asked.nodes, self.node, index).await;
        self.asked.worth_reading(&transfer.manifest.membership, &told)?;
        let (dir, keep) = (self.snapshots.dir().to_path_buf(), transfer.folder_name());
        let preparing = transfer.clone();
        let have = blocking(move || preparing.make_room(&dir, &keep)).await.map_err(text)?.map_err(refused)?;
        let mut pace = Pace::default();
        for (file, have) in have.into_iter().enumerate() {
            self.read(&transfer, file, have, &mut pace).await?;
        }
        let verifying = transfer.clone();
        if let Some(bad) = blocking(move || verifying.verify()).await.map_err(text)? {
            return Err(bad);
        }
        Ok(Borrowed { transfer, node: self.node, told, meeting, sender: self.sender.clone() })
    }

    async fn ask(&self) -> Result<Transfer, String> {
        // Making and hashing a snapshot takes as long as it is large.
        let patience = self.peer.call_timeout() * 100;
        let ask = self.peer.request(&Ask { at_least: self.needed.index });
        match self.peer.call(wire::SNAPSHOT_ASK, ask, patience).await.map_err(text)? {
            AskReply::Behind => Err("it is behind this replica's log".to_owned()),
            AskReply::Lent(manifest, secret) => {
                check(&manifest, &secret).map_err(refused)?;
                if manifest.position.is_none_or(|position| position.index < self.needed.index) {
                    return Err("it lends a snapshot that does not reach far enough".to_owned());
                }
                Transfer::new(manifest, secret, self.snapshots.dir()).map_err(text)
            }
        }
    }

    /// Reads a file from where it ends here. Every piece has to be as long as there is room for in one, and all together
    /// have to come in time: a lender that trickles is left for the next one.
    async fn read(&self, transfer: &Transfer, file: usize, have: u64, pace: &mut Pace) -> Result<(), String> {
        let (snapshot, length) = (transfer.name, transfer.manifest.files[file].length_bytes);
        let file = u32::try_from(file).map_err(text)?;
        let mut offset = have;
        while offset < length {
            let read = self.peer.request(&wire::Read { snapshot, file, offset_bytes: offset });
            let asked = Instant::now();
            let reply = self.peer.call(wire::SNAPSHOT_READ, read, self.peer.call_timeout()).await;
            let data = match reply.map_err(text)? {
                ReadReply::Data(data) => data,
                ReadReply::Unknown => return Err("it does not lend this snapshot any more".to_owned()),
            };
            let wanted = (length - offset).min(wire::PART_BYTES_MAX as u64);
            if data.len() as u64 != wanted {
                return Err(format!("it sent {} bytes where {wanted} were asked for", data.len()));
            }
            pace.count(data.len(), asked.elapsed())?;
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
    /// Who has lent it.
    #[cfg(feature = "bft")]
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Lets the applier check what is in the files, and the others say where that stands and what is in it that no header covers,
    /// takes what contradicts it off the log, and installs the files as another node's, which they would not be to a start that finds them. A
    /// crash in between leaves a log that is as good as before.
    pub(crate) async fn install(
        self,
        snapshots: &Arc<Snapshots>,
        applier: &Arc<ApplierCell>,
        log: &Log,
    ) -> Result<(), String> {
        let Self { transfer, node, told, meeting, sender } = self;
        let applied = transfer.applied();
        let at = applied.position.ok_or("it contains no position")?;
        let (path, secret) = (transfer.path.clone(), transfer.secret);
        // Whatever becomes of it, the files are not needed any more after this.
        let folder = Folder::received(transfer.path, applied.clone());
        let origin = Origin { node, secret };
        let checked = applier.run(move |applier| Ok(applier.prepare(&path, Some(origin)))).await.map_err(text)?;
        let candidate = checked.map_err(text)?;
        if candidate.applied.position != applied.position {
            return Err("its files contain another position than it said".to_owned());
        }
        let mut judged = vouch::confirm(&sender, &candidate, node, told).await;
        if judged.is_ok() {
            // Others count as long as their states are large.
            let patience = sender.call_timeout * 100;
            judged = meet::attested(&sender, meeting.as_deref(), &candidate, node, patience).await;
        }
        if let Err(doubt) = judged {
            let why = format!("{}: {doubt}", doubt.code());
            let lie = doubt.lie().then(|| (node, why.clone()));
            applier.run(move |applier| applier.discard(lie)).await.map_err(text)?;
            return Err(why);
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
