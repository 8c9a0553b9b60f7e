//! Snapshots as the commit loop takes them: copied, judged completely, and only then switched to.
//!
//! Owns the label of a snapshot folder, what a snapshot has to show before it becomes the state, and the copy of a sealed one
//! that others are sent.
//! Never does: the switch itself, which is [`super::replica`]'s.
//!
//! A snapshot holds when its files are whole, its tree has the root that its last header names, its
//! streams and its committee in force are those of that header, and its headers continue this replica's own
//! chain, each committee named by the one before. That the last header is the group's takes a certificate, which
//! is often younger than the snapshot: where it is missing, the driver attests nothing before it has come. In a
//! Byzantine group the members that sign this header say so before it is gone by, or where it is certified those that it
//! names, and the engine asks them (`consensus::raft::vouch`). They say as well what their own states have that no root of a
//! header covers, in one hash, which is counted here on both sides.

use std::io;
use std::path::{Path, PathBuf};

use consensus::port::{Candidate, Origin, Packed, Packer, SnapshotError};
use cross_shard::stream;
use ledger::genesis::VerifyMode;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::Height;
use ledger::schema;
use ledger::uncovered::{UncoveredHasher, is_uncovered};
use ledger::view::{ReadFault, View};
use ledger::{Certificate, Committee};
use storage::{
    KeyRange, Kv, SharedResources, StagedState, StateDb, StateIdentity, StorageError, ValueCipher, WriteBatch,
};

use crate::core::applied::AppliedRecord;
use crate::core::driver::SystemView;
use crate::core::executor::GroupConstants;
use crate::core::marks::{self, Marks};
use crate::server::replica::{DbReader, Stand, rebuild};
use crate::server::vault::LocalSeal;

/// Headers read at once.
const HEADERS_CHUNK: usize = 1024;

/// A snapshot that may become the state.
pub struct Staged {
    /// The folder it was copied from.
    pub dir: PathBuf,
    /// The copy.
    pub state: StagedState,
    /// Its tree and position.
    pub stand: Stand,
    /// Who signs its last header.
    pub signers: Committee,
    /// Who is in force behind it.
    pub committee: Committee,
    /// Whether those who sign its last header have certified it.
    pub certified: bool,
    /// The hash of what no root of this header covers, where others have to say so, too.
    pub uncovered: Hash32,
}

impl Staged {
    /// What it says of itself.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        let Stand { applied, order, .. } = &self.stand;
        Candidate {
            applied: applied.consensus.clone(),
            order: *order,
            header: applied.header_hash,
            signers: self.signers.clone(),
            committee: self.committee.clone(),
            certified: self.certified,
            uncovered: self.uncovered,
        }
    }
}

/// Where a snapshot is to go.
pub struct Target<'a> {
    /// The folder of the group's state.
    pub root: &'a Path,
    /// What databases share.
    pub resources: &'a SharedResources,
    /// Whose state it is.
    pub identity: StateIdentity,
    /// The group.
    pub constants: &'a GroupConstants,
    /// How it is sealed.
    pub seal: &'a LocalSeal,
}

/// Makes copies of this replica's snapshots for others, where its own are sealed: under a key that is of the copy alone.
pub struct Copies {
    /// What databases share.
    pub resources: SharedResources,
    /// Whose state it is.
    pub identity: StateIdentity,
    /// How it is sealed here.
    pub seal: LocalSeal,
}

impl Packer for Copies {
    fn pack(&self, dir: &Path, to: &Path) -> io::Result<Packed> {
        let Some((cipher, secret)) = self.seal.for_one_copy().map_err(io::Error::other)? else {
            return Ok(Packed::default());
        };
        let mut work = to.as_os_str().to_owned();
        work.push(".work");
        let work = PathBuf::from(work);
        let own = self.seal.cipher();
        let made = clear(&work).and_then(|()| {
            StateDb::reseal_checkpoint(dir, (&work, to), &self.resources, self.identity, (&*own, cipher))
                .map_err(|error| io::Error::other(format!("{}: {error}", error.code())))?;
            label::copy(dir, to)
        });
        if let Err(error) = made {
            clear(&work).and_then(|()| clear(to))?;
            return Err(error);
        }
        Ok(Packed { copied: true, secret })
    }

    fn uncovered(&self, dir: &Path) -> io::Result<Hash32> {
        let counted = uncovered(dir, &self.resources, self.identity, &*self.seal.cipher());
        counted.map_err(|error| io::Error::other(format!("{}: {error}", error.code())))
    }
}

/// The hash of what no root of a header covers in a snapshot whose values this cipher opens.
fn uncovered(
    dir: &Path,
    resources: &SharedResources,
    identity: StateIdentity,
    cipher: &dyn ValueCipher,
) -> Result<Hash32, StorageError> {
    let mut hasher = UncoveredHasher::default();
    let mut add = |key: &[u8], value: &[u8]| hasher.row(key, value);
    StateDb::read_checkpoint(dir, resources, identity, cipher, is_uncovered, &mut add)?;
    Ok(hasher.finish())
}

/// Removes a folder, if it is there.
fn clear(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn refused(reason: impl ToString) -> SnapshotError {
    SnapshotError::Refused(reason.to_string())
}

/// Whether the files or the medium are to blame.
fn storage(error: StorageError) -> SnapshotError {
    let text = format!("{}: {error}", error.code());
    match error {
        StorageError::Corrupt { .. }
        | StorageError::WrongCluster { .. }
        | StorageError::WrongGroup { .. }
        | StorageError::NewerVersion { .. } => SnapshotError::Refused(text),
        _ => SnapshotError::Failed(text),
    }
}

/// Copies a snapshot beside the state `own` and judges it. `from` is where it comes from.
///
/// # Errors
/// [`SnapshotError`]; nothing is left of the copy then.
pub fn stage(dir: &Path, from: Option<&Origin>, target: &Target<'_>, own: &dyn Kv) -> Result<Staged, SnapshotError> {
    let labelled = label::read(dir, target.constants).map_err(refused)?;
    let Target { root, resources, identity, seal, .. } = *target;
    let sender = from.map_or(Ok(None), |origin| seal.of_sender(&origin.secret)).map_err(refused)?;
    let state = match &sender {
        Some(sender) => StateDb::stage_resealed(dir, root, resources, identity, (sender, seal.cipher())),
        None => StateDb::stage(dir, root, resources, identity, seal.cipher()),
    };
    let state = state.map_err(storage)?;
    let stand = rebuild(state.db(), &dir.display().to_string(), target.constants.group)
        .map_err(|error| refused(format!("{}: {error}", error.code())))?;
    if stand.applied.consensus != labelled {
        return Err(refused("its label names another position than its content"));
    }
    let (signers, committee) = check(state.db(), own, target.constants, &stand.applied)?;
    // Whatever the driver is going to read must be there.
    let reader = DbReader(state.db());
    SystemView::read(&reader, target.constants.group, VerifyMode::Every).map_err(refused)?;
    write_marks(state.db(), own, from.is_some(), stand.applied.height)?;
    let certified = certified(state.db(), stand.applied.height, stand.applied.header_hash, &signers)?;
    let uncovered = match &sender {
        // Its own, or of a group where the lender's word is enough.
        _ if from.is_none() || !stand.order.engine.bears_liars() => Hash32::ZERO,
        Some(sender) => uncovered(dir, resources, identity, sender).map_err(storage)?,
        None => uncovered(dir, resources, identity, &*seal.cipher()).map_err(storage)?,
    };
    Ok(Staged { dir: dir.to_path_buf(), state, stand, signers, committee, certified, uncovered })
}

fn load<T: borsh::BorshDeserialize>(db: &dyn Kv, key: &[u8], what: &str) -> Result<T, SnapshotError> {
    let bytes = db.get(key).map_err(storage)?.ok_or_else(|| refused(format!("it holds no {what}")))?;
    borsh::from_slice(&bytes).map_err(|error| refused(format!("its {what} does not decode: {error}")))
}

/// Judges everything but the tree. Returns who signs the last header, and who is in force behind it.
fn check(
    new: &dyn Kv,
    own: &dyn Kv,
    constants: &GroupConstants,
    applied: &AppliedRecord,
) -> Result<(Committee, Committee), SnapshotError> {
    let last: Header = load(new, &schema::header(applied.height), "last header")?;
    let named = (last.hash(), last.state_root, last.time_ms);
    if named != (applied.header_hash, applied.state_root, applied.time_ms) {
        return Err(refused("its last header does not name its state"));
    }
    let reader = DbReader(new);
    let mut view = View::new(&reader);
    let outbox = stream::root(&stream::outbox_leaves(&mut view));
    let inbox = stream::root(&stream::inbox_leaves(&mut view));
    if let Some(fault) = view.fault() {
        return Err(refused(fault));
    }
    if (outbox, inbox) != (last.outbox_root, last.inbox_cursors_root) {
        return Err(refused("its mail is not what its last header names"));
    }
    continues(new, own, constants, &last)?;
    let group = constants.group;
    let signers: Committee =
        load(new, &schema::committee(group, &last.committee_hash), "committee of its last header")?;
    let committee: Committee = load(new, &schema::current_committee(group), "committee in force")?;
    if (signers.hash(), committee.hash()) != (last.committee_hash, last.next_committee_hash) {
        return Err(refused("its committees are not those that its last header names"));
    }
    Ok((signers, committee))
}

/// Follows the snapshot's headers from this replica's own last block to its last one. Each names its
/// parent and the committee of the next; where the committee changes, the old one must have certified
/// that.
fn continues(new: &dyn Kv, own: &dyn Kv, constants: &GroupConstants, last: &Header) -> Result<(), SnapshotError> {
    let applied: AppliedRecord = load(own, &schema::applied(), "own position")?;
    let mut before: Header = load(own, &schema::header(applied.height), "own last header")?;
    if last.height < before.height {
        return Err(refused(format!("it ends at height {}, before this replica's {}", last.height, before.height)));
    }
    if last.height == before.height && *last != before {
        return Err(refused("its last block is another one than this replica's"));
    }
    while before.height < last.height {
        let range = KeyRange::new(schema::header(before.height.next()), schema::header(last.height.next()));
        let part = new.scan(range, HEADERS_CHUNK).map_err(storage)?;
        if part.is_empty() {
            return Err(refused(format!("it holds no header of height {}", before.height.next())));
        }
        for (_, bytes) in part {
            let header: Header = borsh::from_slice(&bytes).map_err(|error| refused(format!("a header: {error}")))?;
            let follows = header.cluster == constants.cluster
                && header.group == constants.group
                && header.height == before.height.next()
                && header.parents == [before.hash()]
                && header.committee_hash == before.next_committee_hash;
            if !follows {
                let height = before.height;
                return Err(refused(format!("its chain does not continue this replica's at height {height}")));
            }
            if before.next_committee_hash != before.committee_hash {
                handed_over(new, own, &before)?;
            }
            before = header;
        }
    }
    Ok(())
}

/// A committee is followed by another one only under a certificate of its own.
fn handed_over(new: &dyn Kv, own: &dyn Kv, header: &Header) -> Result<(), SnapshotError> {
    let key = schema::committee(header.group, &header.committee_hash);
    let committee = match own.get(&key).map_err(storage)? {
        Some(bytes) => borsh::from_slice::<Committee>(&bytes).map_err(refused)?,
        None => load(new, &key, "committee of a header")?,
    };
    let certificate: Certificate =
        load(new, &schema::certificate(header.height), "certificate of a change of committee")?;
    if certificate.header != *header || certificate.verify(&committee).is_err() {
        return Err(refused(format!("the change of committee at height {} is not certified", header.height)));
    }
    Ok(())
}

/// Whether the last header has come with a certificate of those who sign it. One that is none is as if there were none.
fn certified(new: &dyn Kv, height: Height, header: Hash32, signers: &Committee) -> Result<bool, SnapshotError> {
    let found = new.get(&schema::certificate(height)).map_err(storage)?;
    let certificate = found.and_then(|bytes| borsh::from_slice::<Certificate>(&bytes).ok());
    Ok(certificate.is_some_and(|one| one.header.hash() == header && one.verify(signers).is_ok()))
}

/// What this node has found out by itself goes over to the new state; what another node claims to have
/// found out does not.
fn write_marks(new: &dyn Kv, own: &dyn Kv, received: bool, height: Height) -> Result<(), SnapshotError> {
    let read = |db: &dyn Kv| -> Result<Marks, ReadFault> {
        let reader = DbReader(db);
        let mut view = View::new(&reader);
        let marks = Marks::read(&mut view);
        view.fault().cloned().map_or(Ok(marks), Err)
    };
    let mine = read(own).map_err(|fault| SnapshotError::Failed(fault.0))?;
    let marks = if received {
        Marks { installed: Some(height), ..mine }
    } else {
        let kept = read(new).map_err(refused)?;
        let forged = [mine.forged, kept.forged].into_iter().flatten().min();
        Marks { checked: mine.checked.max(kept.checked), forged, installed: mine.installed.max(kept.installed) }
    };
    let mut batch = WriteBatch::new();
    let values =
        [(marks::checked(), marks.checked), (marks::forged(), marks.forged), (marks::installed(), marks.installed)];
    for (key, value) in values {
        match value {
            Some(value) => batch.put(key, borsh::to_vec(&value).expect("writing to memory does not fail")),
            None => batch.delete(key),
        }
    }
    batch.delete(marks::wrong());
    batch.delete(marks::lacking());
    new.write(batch).map_err(storage)
}

/// The label of a snapshot: a small file that says whose it is and where it stands, so that a
/// folder can be judged before its database is opened. The content is checked against it when the
/// snapshot is installed.
pub(super) mod label {
    use std::io::Write;
    use std::path::Path;

    use borsh::{BorshDeserialize, BorshSerialize};
    use consensus::port::AppliedState;
    use ledger::hash::{Hash32, sha256};
    use ledger::ids::{ClusterId, GroupId};

    use crate::core::executor::GroupConstants;

    const FILE: &str = "APPLIED";
    const MAGIC: &[u8; 8] = b"SEAMSNAP";
    const LABEL_BYTES_MAX: u64 = 1024 * 1024;

    #[derive(BorshSerialize, BorshDeserialize)]
    struct Label {
        version: u8,
        cluster: ClusterId,
        group: GroupId,
        applied: AppliedState,
    }

    /// `magic ‖ sha256(label) ‖ label`, durable when this returns.
    pub(in crate::server) fn write(
        dir: &Path,
        constants: &GroupConstants,
        applied: &AppliedState,
    ) -> std::io::Result<()> {
        let label = Label { version: 1, cluster: constants.cluster, group: constants.group, applied: applied.clone() };
        let bytes = borsh::to_vec(&label)?;
        let mut file = std::fs::File::create(dir.join(FILE))?;
        file.write_all(MAGIC)?;
        file.write_all(&sha256(&bytes).0)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::File::open(dir)?.sync_all()
    }

    /// That of one folder for another one with the same content, durable when this returns.
    pub(in crate::server) fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
        std::fs::copy(from.join(FILE), to.join(FILE))?;
        std::fs::File::open(to.join(FILE))?.sync_all()?;
        std::fs::File::open(to)?.sync_all()
    }

    pub(in crate::server) fn read(dir: &Path, constants: &GroupConstants) -> Result<AppliedState, String> {
        let path = dir.join(FILE);
        let length = std::fs::metadata(&path).map_err(|error| format!("no label: {error}"))?.len();
        if length > LABEL_BYTES_MAX {
            return Err("the label is too large".into());
        }
        let bytes = std::fs::read(&path).map_err(|error| format!("the label cannot be read: {error}"))?;
        let rest = bytes.strip_prefix(MAGIC).ok_or("the label is no label")?;
        let (hash, body) = rest.split_at_checked(32).ok_or("the label is truncated")?;
        if sha256(body) != Hash32(hash.try_into().map_err(|_| "the label is truncated")?) {
            return Err("the label is damaged".into());
        }
        let label: Label = borsh::from_slice(body).map_err(|error| format!("the label does not decode: {error}"))?;
        if label.version != 1 || label.cluster != constants.cluster || label.group != constants.group {
            return Err("it is of another cluster, group or version".into());
        }
        Ok(label.applied)
    }
}
