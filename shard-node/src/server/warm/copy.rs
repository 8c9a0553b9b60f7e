//! The copies that one job needs on this node, and how they become the first states of shards.
//!
//! Copies are made of a checkpoint of the parent, follow its blocks one by one, and become what
//! [`crate::core::birth::birth`] says once every parent stands at its seal. Made late, at the seal, they come out the same:
//! it is the same way, with no blocks in between. Everything here blocks; it runs on a thread of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use beacon::Job;
use bytes::Bytes;
use ledger::ids::{ClusterId, GroupId, Height, NodeId};
use ledger::layout::BitPrefix;
use ledger::lineage::{Origin, SealedBy};
use ledger::schema;
use ledger::tree::{StateTree, SubtreeRoot, value_hash};
use ledger::view::{ReadFault, StateReader};
use storage::{KeyRange, Kv, SharedResources, StateDb, StateIdentity, StorageError, WriteBatch};

use super::born::{Born, at_once};
use super::certified::Certificates;
use super::count::{Count, under};
use super::pace::Steps;
use super::record::{self, Record};
use crate::core::applied::AppliedRecord;
use crate::core::birth::{BirthError, birth};
use crate::core::follow::{Right, Side, Writes, follow};
use crate::core::tally::{ChildTally, TallyError};
use crate::server::followers::Followed;
use crate::server::replica::{Counted, DbReader, ReplicaShare, STATE_FORMAT, ViewReader};
use crate::server::seat::{self, SeatError};
use crate::server::vault::LocalSeal;

/// Pairs read at once.
const CHUNK: usize = 8192;
/// Bytes of the right parent that are sorted and written at once.
const PART_BYTES: usize = 16 << 20;

/// Why there is no copy, or no shard comes of it. It is made anew.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A database.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A state.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// What was counted.
    #[error(transparent)]
    Tally(#[from] TallyError),
    /// What the parents say of the copies.
    #[error(transparent)]
    Birth(#[from] BirthError),
    /// A leaf outside of the shard.
    #[error("the tree of {0} cannot be made: {1}")]
    Tree(GroupId, String),
    /// A folder.
    #[error("{path}: {cause}; check its permissions and the disk")]
    File {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The seat that comes with a copy.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// A parent has no replica here at the moment.
    #[error("{0} does not run on this node at the moment")]
    Parent(GroupId),
    /// The copy was not told of all blocks.
    #[error("the copy has fallen behind {0}")]
    Behind(GroupId),
}

impl CopyError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Read(_) => "state_unreadable",
            Self::Tally(_) | Self::Birth(BirthError::Totals { .. }) => "birth_totals",
            Self::Tree(..) | Self::Birth(BirthError::Root(_)) => "birth_root",
            Self::Birth(_) => "birth_seal",
            Self::File { .. } => "file_unwritable",
            Self::Seat(error) => error.code(),
            Self::Parent(_) => "parent_missing",
            Self::Behind(_) => "copy_behind",
        }
    }
}

/// Where copies are made.
#[derive(Clone)]
pub struct Place {
    /// The node's data folder.
    pub data_dir: PathBuf,
    /// What databases share.
    pub resources: SharedResources,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
}

impl Place {
    fn identity(&self, group: GroupId) -> StateIdentity {
        let format_version = STATE_FORMAT;
        StateIdentity { cluster: self.cluster.0.0, node: self.node.0, group: group.0, format_version }
    }

    /// Whether a shard has a state here already.
    #[must_use]
    pub fn has_state(&self, group: GroupId) -> bool {
        self.data_dir.join(group.to_string()).join("state").exists()
    }

    /// An empty folder for a copy, with its record, and with the seat that the node will have had in the shard since its
    /// beginning: it counts for nothing before the folder is that of the shard, and payers need not wait for it then.
    fn begin(&self, record: &Record, child: GroupId) -> Result<PathBuf, CopyError> {
        let folder = record::folder(&self.data_dir, child);
        remove(&folder)?;
        record.write(&folder).map_err(|error| file(&folder, &error))?;
        seat::begin(&folder, child)?;
        Ok(folder)
    }
}

/// Removes a copy, if it is there.
///
/// # Errors
/// [`CopyError::File`].
pub fn remove(folder: &Path) -> Result<(), CopyError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file(folder, &error)),
        _ => Ok(()),
    }
}

pub(super) fn file(path: &Path, error: &std::io::Error) -> CopyError {
    CopyError::File { path: path.to_owned(), cause: error.to_string() }
}

/// A parent that runs on this node.
pub struct Parent {
    /// The shard.
    pub group: GroupId,
    /// Its replica.
    pub share: ReplicaShare,
}

impl Parent {
    fn db(&self) -> Result<Arc<dyn Kv>, CopyError> {
        self.share.state.db().ok_or(CopyError::Parent(self.group))
    }

    /// The last block that it has applied.
    #[must_use]
    pub fn height(&self) -> Height {
        self.share.stand.lock().applied.height
    }

    /// Whether its replica has ended here, and waits for everybody who reads its state.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.share.state.db().is_none()
    }

    /// Whether it stands still for a job, so that payers wait.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.share.state.load::<SealedBy>(&schema::sealed()).is_ok_and(|sealed| sealed.is_some())
    }

    /// Makes everything that it has applied durable.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn flush(&self) -> Result<(), CopyError> {
        Ok(self.db()?.flush()?)
    }
}

/// One of them.
pub(super) struct OneCopy {
    pub(super) child: GroupId,
    prefix: BitPrefix,
    pub(super) db: StateDb,
    pub(super) leaves: Counted,
}

impl OneCopy {
    /// Looks at every leaf of a database that was just made, and lets `count` take those that are its.
    fn new(
        (child, prefix): (GroupId, BitPrefix),
        db: StateDb,
        count: &mut Count,
        steps: &mut Steps<'_>,
    ) -> Result<Self, CopyError> {
        let (mut leaves, mut accounts, counted) = (Vec::new(), 0, count.leaves());
        pairs(
            child,
            steps,
            |range, limit| db.sweep(range, limit),
            |range| db.disk_bytes(range),
            under(schema::STATE, prefix),
            |key, value| {
                if counted.contains(key) {
                    count.pair(key, value)?;
                }
                let position = schema::tree_position(key);
                let position = position.ok_or_else(|| ReadFault("a leaf has a foreign key".to_owned()))?;
                leaves.push((position, value_hash(value)));
                accounts += u64::from(schema::is_account(key));
                Ok(())
            },
        )?;
        leaves.sort_unstable_by_key(|leaf| leaf.0);
        let tree = StateTree::from_sorted(prefix.in_tree(), leaves);
        let mut tree = tree.map_err(|error| CopyError::Tree(child, error.to_string()))?;
        // Here and not at the seal, where all of it would be hashed while payers wait.
        tree.root();
        // Nothing rests behind it: where it is the last step, that would only keep the job waiting.
        Ok(Self { child, prefix, db, leaves: Counted { tree, accounts } })
    }

    fn apply(&mut self, kept: Writes) -> Result<(), CopyError> {
        for (key, value) in kept.iter().filter(|(key, _)| schema::is_account(key)) {
            let before = self.db.get(key)?.is_some();
            let added = self.leaves.accounts + u64::from(value.is_some() && !before);
            self.leaves.accounts = added.saturating_sub(u64::from(value.is_none() && before));
        }
        let updates = kept.iter().filter_map(|(key, value)| {
            let value = value.as_deref().map(value_hash);
            Some((schema::tree_position(key)?, value))
        });
        let applied = self.leaves.tree.apply(updates);
        applied.map_err(|error| CopyError::Tree(self.child, error.to_string()))?;
        Ok(self.db.write(batch(kept))?)
    }

    fn root(&mut self) -> SubtreeRoot {
        self.leaves.tree.subtree_root()
    }
}

pub(super) fn batch(writes: Writes) -> WriteBatch {
    let mut batch = WriteBatch::with_capacity(writes.len());
    for (key, value) in writes {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch
}

fn go_on(group: GroupId, steps: &mut Steps<'_>) -> Result<(), CopyError> {
    if steps.next() { Ok(()) } else { Err(CopyError::Behind(group)) }
}

/// Reads all pairs of a range, some in each step. `size` says how many bytes a part of it takes on the disk.
fn pairs(
    group: GroupId,
    steps: &mut Steps<'_>,
    scan: impl Fn(KeyRange, usize) -> Result<Vec<(Bytes, Bytes)>, StorageError>,
    size: impl Fn(&KeyRange) -> Result<u64, StorageError>,
    mut range: KeyRange,
    mut each: impl FnMut(&[u8], &Bytes) -> Result<(), CopyError>,
) -> Result<(), CopyError> {
    loop {
        let part = scan(range.clone(), CHUNK)?;
        for (key, value) in &part {
            each(&key[..], value)?;
        }
        let next = part.last().filter(|_| part.len() == CHUNK).map(|(last, _)| {
            let mut next = last.to_vec();
            next.push(0);
            Bytes::from(next)
        });
        let end = next.clone().or_else(|| range.end.clone());
        steps.read(size(&KeyRange { start: range.start.clone(), end })?);
        go_on(group, steps)?;
        let Some(next) = next else { return Ok(()) };
        range.start = next;
    }
}

fn load<T: borsh::BorshDeserialize>(reader: &dyn StateReader, key: &[u8]) -> Result<Option<T>, ReadFault> {
    let decode = |bytes: Bytes| borsh::from_slice(&bytes).map_err(|error| ReadFault(error.to_string()));
    reader.get(key)?.map(decode).transpose()
}

/// The last block in a state.
pub(super) fn height(reader: &dyn StateReader) -> Result<Height, ReadFault> {
    let applied: Option<AppliedRecord> = load(reader, &schema::applied())?;
    applied.map(|applied| applied.height).ok_or_else(|| ReadFault("the state holds no applied position".to_owned()))
}

/// What the copies follow.
enum Shape {
    /// The halves of one parent, each with what it has.
    Halves(Vec<(OneCopy, Count)>),
    /// Two parents in one.
    Joined(Box<Joined>),
}

/// A copy of two parents.
struct Joined {
    copy: OneCopy,
    /// What each of them has, the left one first.
    counts: [Count; 2],
    /// How each of them began.
    origins: [Option<Origin>; 2],
}

/// The copies of a job.
pub struct Copies {
    place: Place,
    record: Vec<(GroupId, Record)>,
    shape: Shape,
    /// The last block of each parent that is in them.
    heights: Vec<Height>,
    /// Which certificates of each parent are in them.
    certificates: Vec<Certificates>,
    /// The seal that each parent stands at.
    sealed: Vec<Option<SealedBy>>,
}

impl Copies {
    /// Makes the copies that a job needs. `parents` are those of the job, left first, and are followed already; `steps` say
    /// how fast, and whether that has come to an end.
    ///
    /// # Errors
    /// [`CopyError`]; what was made is removed by whoever begins again.
    pub fn make(place: &Place, job: &Job, parents: &[Parent], steps: &mut Steps<'_>) -> Result<Self, CopyError> {
        let groups: Vec<GroupId> = parents.iter().map(|parent| parent.group).collect();
        let mut records = Vec::new();
        for child in &job.children {
            let record = Record::new(job.id, child.group, &groups);
            place.begin(&record, child.group)?;
            records.push((child.group, record));
        }
        let first = record::folder(&place.data_dir, records.first().ok_or(CopyError::Parent(groups[0]))?.0);
        let received = first.join("received");
        parents[0].db()?.checkpoint(&received)?;
        steps.begin(to_read(job, parents)?);
        let branch = |child: GroupId| {
            let root = record::folder(&place.data_dir, child).join("state");
            let identities = (place.identity(groups[0]), place.identity(child));
            StateDb::branch(&received, &root, &place.resources, identities, LocalSeal::open().cipher())
        };
        let (shape, heights, sealed) = if let [_, right] = parents {
            let child = &job.children[0];
            join(place, (child.group, child.prefix), branch(child.group)?, (&parents[0], right), steps)?
        } else {
            let mut halves = Vec::new();
            let (mut at, mut sealed) = (Height(0), None);
            for child in &job.children {
                let db = branch(child.group)?;
                let reader = DbReader(&db);
                (at, sealed) = (height(&reader)?, load(&reader, &schema::sealed())?);
                let mut count = Count::new(place.cluster, child.prefix);
                undecided(groups[0], &db, &mut count, steps)?;
                halves.push((OneCopy::new((child.group, child.prefix), db, &mut count, steps)?, count));
            }
            (Shape::Halves(halves), vec![at], vec![sealed])
        };
        remove(&received)?;
        let numbers: Vec<u64> = heights.iter().map(|height| height.0).collect();
        for (child, record) in &mut records {
            *record = record.clone().at(numbers.clone());
            let folder = record::folder(&place.data_dir, *child);
            record.write(&folder).map_err(|error| file(&folder, &error))?;
        }
        let certificates = heights.iter().copied().map(Certificates::at).collect();
        Ok(Self { place: place.clone(), record: records, shape, heights, certificates, sealed })
    }

    /// How many blocks they are behind their parents, at most.
    #[must_use]
    pub fn behind(&self, parents: &[Parent]) -> u64 {
        let lags = self.heights.iter().zip(parents).map(|(at, parent)| parent.height().0.saturating_sub(at.0));
        lags.max().unwrap_or_default()
    }

    /// Takes a block of a parent.
    ///
    /// # Errors
    /// [`CopyError`]; the copies are worth nothing then.
    pub fn block(&mut self, parents: &[Parent], followed: &Followed) -> Result<(), CopyError> {
        let Followed { place, height, writes, .. } = followed;
        let parent = parents.get(*place).ok_or(CopyError::Parent(GroupId::BEACON))?;
        if *height <= self.heights[*place] {
            return Ok(());
        }
        if *height != self.heights[*place].next() {
            return Err(CopyError::Behind(parent.group));
        }
        match &mut self.shape {
            Shape::Halves(halves) => {
                for (copy, count) in halves {
                    count.block(&copy.db, writes)?;
                    let kept = follow(&Side::Half(copy.prefix), writes.iter())?;
                    copy.apply(kept)?;
                }
            }
            Shape::Joined(joined) => {
                let Joined { copy, counts, origins } = &mut **joined;
                counts[*place].block(&copy.db, writes)?;
                let left = parents[0].db()?;
                let left = DbReader(&*left);
                let side = match *place {
                    0 => Side::Left,
                    _ => Side::Right(beside(parent.group, origins, &left)),
                };
                let kept = follow(&side, writes.iter())?;
                copy.apply(kept)?;
            }
        }
        self.heights[*place] = *height;
        if let Some((_, value)) = writes.iter().find(|(key, _)| *key == schema::sealed()) {
            let sealed = value.as_ref().map(|bytes| borsh::from_slice::<SealedBy>(bytes)).transpose();
            self.sealed[*place] = sealed.map_err(|error| ReadFault(error.to_string()))?;
        }
        Ok(())
    }

    /// Whether every parent stands at the seal of this job.
    #[must_use]
    pub fn complete(&self, job: &Job) -> bool {
        self.sealed.iter().all(|sealed| sealed.as_ref().is_some_and(|sealed| sealed.seal.job == job.id))
    }

    /// Whether any parent does.
    #[must_use]
    pub fn has_end(&self, job: &Job) -> bool {
        self.sealed.iter().flatten().any(|sealed| sealed.seal.job == job.id)
    }

    /// Hashes what has changed, so that little is left to be hashed at the seal.
    pub fn hash(&mut self) {
        match &mut self.shape {
            Shape::Halves(halves) => {
                for (copy, _) in halves {
                    copy.root();
                }
            }
            Shape::Joined(joined) => {
                joined.copy.root();
            }
        }
    }

    /// Takes the certificates that the parents have got since the last time: no block writes them, and at the seal all of
    /// them would be.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn certify(&mut self, parents: &[Parent]) -> Result<(), CopyError> {
        let databases = parents.iter().map(Parent::db).collect::<Result<Vec<_>, _>>()?;
        let views: Vec<ViewReader<'_>> = databases.iter().map(|db| ViewReader::of(&**db)).collect();
        match &mut self.shape {
            Shape::Halves(halves) => {
                let found = self.certificates[0].fresh(&views[0])?;
                halves.iter().try_for_each(|(copy, _)| copy.db.write(batch(found.clone())))?;
            }
            Shape::Joined(joined) => {
                let mut found = self.certificates[0].fresh(&views[0])?;
                let side = Side::Right(beside(parents[1].group, &joined.origins, &views[0]));
                found.extend(follow(&side, self.certificates[1].fresh(&views[1])?.iter())?);
                joined.copy.db.write(batch(found))?;
            }
        }
        Ok(())
    }

    /// Makes what was taken durable.
    ///
    /// # Errors
    /// [`CopyError::Storage`].
    pub fn flush(&self) -> Result<(), CopyError> {
        match &self.shape {
            Shape::Halves(halves) => halves.iter().try_for_each(|(copy, _)| copy.db.flush())?,
            Shape::Joined(joined) => joined.copy.db.flush()?,
        }
        Ok(())
    }

    /// Makes the copies the first states of their shards, durably. Returns those that have no state on this node yet.
    ///
    /// # Errors
    /// [`CopyError::Birth`] when a parent does not stand at its seal, or the copies are not what it has certified.
    pub fn births(self, parents: &[Parent]) -> Result<BTreeMap<GroupId, Born>, CopyError> {
        let Self { place, record, shape, mut certificates, .. } = self;
        let databases = parents.iter().map(Parent::db).collect::<Result<Vec<_>, _>>()?;
        // One moment of each: a seal may be taken back while this goes on.
        let views: Vec<ViewReader<'_>> = databases.iter().map(|db| ViewReader::of(&**db)).collect();
        let readers: Vec<&dyn StateReader> = views.iter().map(|view| view as &dyn StateReader).collect();
        let mut born = BTreeMap::new();
        match shape {
            Shape::Halves(mut halves) => {
                let roots: Vec<SubtreeRoot> = halves.iter_mut().map(|(copy, _)| copy.root()).collect();
                let tallies: Vec<ChildTally> = halves.iter().map(|(_, count)| count.counted()).collect();
                let mut late = marks(readers[0])?;
                late.extend(certificates[0].fresh(readers[0])?);
                let mut ready = Vec::with_capacity(halves.len());
                // Both were made in the order of the job's children.
                for ((copy, _), (_, record)) in halves.into_iter().zip(record) {
                    let birth = birth(&readers, copy.child, &roots, &tallies)?;
                    ready.push((copy, record, birth, late.clone()));
                }
                for one in at_once(&place, ready) {
                    born.extend(one?);
                }
            }
            Shape::Joined(joined) => {
                let Joined { mut copy, counts, origins } = *joined;
                let roots = [false, true].map(|one| {
                    let half = copy.prefix.child(one).in_tree();
                    copy.leaves.tree.subtree_root_at(&half)
                });
                let [left, right] = roots;
                let wrong = |error: ledger::tree::TreeError| CopyError::Tree(copy.child, error.to_string());
                let roots = [left.map_err(wrong)?, right.map_err(wrong)?];
                let tallies = [counts[0].counted(), counts[1].counted()];
                let mut late = marks(readers[0])?;
                late.extend(certificates[0].fresh(readers[0])?);
                let side = Side::Right(beside(parents[1].group, &origins, readers[0]));
                late.extend(follow(&side, certificates[1].fresh(readers[1])?.iter())?);
                let birth = birth(&readers, copy.child, &roots, &tallies)?;
                let (_, record) = record.into_iter().next().ok_or(CopyError::Parent(copy.child))?;
                born.extend(copy.become_born(&place, &record, birth, late)?);
            }
        }
        Ok(born)
    }
}

/// Bytes on the disk that making the copies reads, about: what is undecided, all of a right parent, and every leaf of each
/// copy.
fn to_read(job: &Job, parents: &[Parent]) -> Result<u64, CopyError> {
    let mut bytes = 0u64;
    for (number, parent) in parents.iter().enumerate() {
        let db = parent.db()?;
        if number > 0 {
            bytes += db.disk_bytes(&KeyRange::all())?;
        }
        for child in &job.children {
            let undecided = if number > 0 { 0 } else { db.disk_bytes(&KeyRange::prefix(&[schema::PREPARED]))? };
            bytes += undecided + db.disk_bytes(&under(schema::STATE, child.prefix))?;
        }
    }
    Ok(bytes)
}

/// The right one of two parents that are joined.
fn beside<'a>(group: GroupId, origins: &'a [Option<Origin>; 2], left: &'a dyn StateReader) -> Right<'a> {
    Right { group, origin: origins[1].as_ref(), left_origin: origins[0].as_ref(), left }
}

/// Lets a count take the transactions that are undecided.
fn undecided(group: GroupId, db: &StateDb, count: &mut Count, steps: &mut Steps<'_>) -> Result<(), CopyError> {
    let records = KeyRange::prefix(&[schema::PREPARED]);
    let (sweep, size) = (|range, limit| db.sweep(range, limit), |range: &KeyRange| db.disk_bytes(range));
    pairs(group, steps, sweep, size, records, |key, value| count.pair(key, value))
}

/// Pairs of the right parent on their way into a copy of the left one.
#[derive(Default)]
struct Brought {
    pairs: Vec<(Vec<u8>, Bytes)>,
    bytes: usize,
}

impl Brought {
    /// Nothing is deleted from an empty place.
    fn add(&mut self, kept: Writes) {
        let pairs = kept.into_iter().filter_map(|(key, value)| Some((key, value?)));
        self.pairs.extend(pairs.inspect(|(key, value)| self.bytes += key.len() + value.len()));
    }

    fn write(&mut self, db: &StateDb, resources: &SharedResources) -> Result<(), CopyError> {
        // Names change on the way, and with them the order.
        self.pairs.sort_by(|one, other| one.0.cmp(&other.0));
        self.pairs.dedup_by(|later, first| {
            let again = later.0 == first.0;
            if again {
                first.1 = std::mem::take(&mut later.1);
            }
            again
        });
        db.bring(resources, &self.pairs)?;
        *self = Self::default();
        Ok(())
    }
}

/// Brings the right parent into a copy of the left one.
fn join(
    place: &Place,
    (child, prefix): (GroupId, BitPrefix),
    db: StateDb,
    (left, right): (&Parent, &Parent),
    steps: &mut Steps<'_>,
) -> Result<(Shape, Vec<Height>, Vec<Option<SealedBy>>), CopyError> {
    let mut counts = [false, true].map(|one| Count::new(place.cluster, prefix.child(one)));
    let reader = DbReader(&db);
    let (left_at, left_sealed) = (height(&reader)?, load(&reader, &schema::sealed())?);
    let left_origin: Option<Origin> = load(&reader, &schema::origin())?;
    undecided(left.group, &db, &mut counts[0], steps)?;
    let right_db = right.db()?;
    let view = ViewReader::of(&*right_db);
    let (right_at, right_sealed) = (height(&view)?, load(&view, &schema::sealed())?);
    let origins = [left_origin, load(&view, &schema::origin())?];
    let (mut part, mut brought) = (Writes::with_capacity(CHUNK), Brought::default());
    let bring = |part: &mut Writes, brought: &mut Brought| -> Result<(), CopyError> {
        // Held for a moment only: whoever replaces the left parent's state waits for its readers.
        let left = left.db()?;
        let left = DbReader(&*left);
        let kept = follow(&Side::Right(beside(right.group, &origins, &left)), part.iter())?;
        part.clear();
        brought.add(kept);
        if brought.bytes >= PART_BYTES { brought.write(&db, &place.resources) } else { Ok(()) }
    };
    pairs(
        right.group,
        steps,
        |range, limit| view.0.sweep(range, limit),
        |range| right_db.disk_bytes(range),
        KeyRange::all(),
        |key, value| {
            counts[1].pair(key, value)?;
            part.push((key.to_vec(), Some(value.clone())));
            if part.len() == CHUNK { bring(&mut part, &mut brought) } else { Ok(()) }
        },
    )?;
    bring(&mut part, &mut brought)?;
    brought.write(&db, &place.resources)?;
    // All of it has been read: whoever replaces or removes the right parent's state need not wait for the tree.
    drop(view);
    drop(right_db);
    let copy = OneCopy::new((child, prefix), db, &mut counts[0], steps)?;
    Ok((
        Shape::Joined(Box::new(Joined { copy, counts, origins })),
        vec![left_at, right_at],
        vec![left_sealed, right_sealed],
    ))
}

/// What a replica has found out by itself, which no block writes.
fn marks(reader: &dyn StateReader) -> Result<Writes, ReadFault> {
    Ok(reader.scan_prefix(&[schema::NODE])?.into_iter().map(|(key, value)| (key.to_vec(), Some(value))).collect())
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
