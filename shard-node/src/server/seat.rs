//! What a node remembers of its seat in a group, beside the group's state: the number of its join, of
//! which the replica's raft id is made and which must outlive everything that can be built anew.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use beacon::seats::join_at;
use ledger::Committee;
use ledger::ids::{GroupId, NodeId};
use router::gateway::ClusterView;
use serde::{Deserialize, Serialize};

use crate::server::group::{FIRST_JOIN, Seat};

/// The file in the folder of a group.
const FILE: &str = "seat.json";

/// What stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u8,
    group: String,
    join: u16,
}

/// Why a node does not know its own seat.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// The file cannot be used.
    #[error("{path}: {cause}; restore it, or drain the node and let it join anew")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The node is a member that has lost its replica with its votes.
    #[error("the replica of {0} is gone from this node, and its votes with it; drain the node and let it join anew")]
    Lost(GroupId),
}

impl SeatError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "seat_file",
            Self::Lost(_) => "seat_lost",
        }
    }
}

/// The join with which a member that is being prepared takes part; none for one that has its seat.
#[must_use]
pub fn coming_join(view: &ClusterView, group: GroupId, node: NodeId) -> Option<u16> {
    let seated = |committee: &&Committee| committee.index_of(node).is_some();
    let coming = view.coming.get(&group).filter(seated)?;
    match view.committees.get(&group).filter(seated) {
        Some(_) => None,
        None => join_at(coming),
    }
}

/// The seat of this node in a group, from the file in the group's folder, which is written when the
/// seat is new. `missed` says that the group began out of others without this node, which was a member of them and is one
/// of it, and that nothing of it was ever here.
///
/// # Errors
/// [`SeatError`].
pub fn seat(view: &ClusterView, group: GroupId, node: NodeId, folder: &Path, missed: bool) -> Result<Seat, SeatError> {
    let founded = view.foundations.get(&group).cloned();
    if let Some(join) = read(folder, group)? {
        return Ok(Seat { founded, join });
    }
    // A group does not begin without any of its first members, and each of them has this file before it
    // begins (`hosting`, ADR 17). So where a later committee is in force, none of them is merely late. A shard that others
    // were cut or joined into begins without those that are down: of such a one its log says whether it was ever here.
    let begun = view.committees.get(&group).is_none_or(|committee| committee.epoch.0 == 0);
    // Whoever has left has no log of that join any more, whatever an old registry says.
    let fresh = (begun || missed) && !gone_file(folder).exists();
    let join = match coming_join(view, group, node) {
        Some(join) => join,
        // Written before there was such a file, or at the beginning.
        None if folder.join("state").exists() || fresh => FIRST_JOIN,
        None => return Err(SeatError::Lost(group)),
    };
    write(folder, group, join)?;
    Ok(Seat { founded, join })
}

/// Notes in the folder of a copy that is about to be made for a shard, durably, that this node is in the shard since its
/// beginning: payers wait from the seal until the shard opens, and need not wait for this then.
///
/// # Errors
/// [`SeatError::File`].
pub fn begin(folder: &Path, group: GroupId) -> Result<(), SeatError> {
    write(folder, group, FIRST_JOIN)
}

/// Removes what [`begin`] has noted: the node has lost that seat meanwhile, and is to have another one.
///
/// # Errors
/// [`SeatError::File`].
pub fn forget(folder: &Path) -> Result<(), SeatError> {
    let path = folder.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SeatError::File { path, cause: error.to_string() })
        }
        _ => Ok(()),
    }
}

/// The file beside the folder of a group that says that this node has left the group: its votes went
/// with its log, so that it must never take part under the same join again.
fn gone_file(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".gone");
    folder.with_file_name(name)
}

/// Notes, durably, that this node leaves a group. Comes before anything of it is removed.
///
/// # Errors
/// [`SeatError::File`].
pub fn leave(folder: &Path) -> Result<(), SeatError> {
    let path = gone_file(folder);
    let write = || -> std::io::Result<()> {
        File::create(&path)?.sync_all()?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(|error| SeatError::File { path: path.clone(), cause: error.to_string() })
}

/// Whether a folder holds anything of a replica: its seat, or its state.
#[must_use]
pub fn has_begun(folder: &Path) -> bool {
    folder.join(FILE).exists() || folder.join("state").exists()
}

/// The join in the folder of a group.
///
/// # Errors
/// [`SeatError::File`].
pub fn read(folder: &Path, group: GroupId) -> Result<Option<u16>, SeatError> {
    let path = folder.join(FILE);
    let bad = |cause: String| SeatError::File { path: path.clone(), cause };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(error.to_string())),
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if record.version != 1 || record.group != group.to_string() || record.join == 0 {
        return Err(bad("it is of another group or version".to_owned()));
    }
    Ok(Some(record.join))
}

fn write(folder: &Path, group: GroupId, join: u16) -> Result<(), SeatError> {
    let path = folder.join(FILE);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let fresh = folder.join("seat.json.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&Record { version: 1, group: group.to_string(), join })?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| SeatError::File { path: path.clone(), cause: error.to_string() })
}

#[cfg(test)]
mod tests {
    use ledger::ids::Epoch;

    use super::*;

    #[test]
    fn whoever_has_left_does_not_begin_again_under_the_same_join() {
        let root = tempfile::tempdir().expect("a folder");
        let genesis = crate::server::testing::lone_genesis(ledger::genesis::VerifyMode::Ingest);
        let view = ClusterView::of_genesis(&genesis);
        let (group, node) = (crate::core::support::SHARD, genesis.committees[0].members[0].node);
        let folder = root.path().join("shard");
        let first = seat(&view, group, node, &folder, false).expect("it is in the genesis");
        assert_eq!(first.join, FIRST_JOIN);
        leave(&folder).expect("noted");
        fs::remove_dir_all(&folder).expect("removed");
        // An old registry, as after the loss of the kept one, still gives it the seat.
        assert_eq!(seat(&view, group, node, &folder, false).map_err(|error| error.code()).err(), Some("seat_lost"));
    }

    #[test]
    fn a_first_member_without_its_seat_is_late_until_a_later_committee_is_in_force_and_then_lost() {
        let root = tempfile::tempdir().expect("a folder");
        let genesis = crate::server::testing::lone_genesis(ledger::genesis::VerifyMode::Ingest);
        let mut view = ClusterView::of_genesis(&genesis);
        let group = crate::core::support::SHARD;
        let committee = view.committees.get_mut(&group).expect("it is in the genesis");
        let node = committee.members[0].node;
        committee.epoch = Epoch(1);
        let folder = root.path().join("shard");
        assert_eq!(seat(&view, group, node, &folder, false).map_err(|error| error.code()).err(), Some("seat_lost"));
        assert!(!has_begun(&folder), "nothing is written for a seat that is lost");
        view.committees.get_mut(&group).expect("it is in the genesis").epoch = Epoch(0);
        assert_eq!(seat(&view, group, node, &folder, false).expect("it may not have begun").join, FIRST_JOIN);
        view.committees.get_mut(&group).expect("it is in the genesis").epoch = Epoch(1);
        assert_eq!(seat(&view, group, node, &folder, false).expect("it has its seat").join, FIRST_JOIN);
    }

    /// It was down while its shard was cut, and for as long as the others were given to open theirs; meanwhile a seat of
    /// another member has moved.
    #[test]
    fn a_member_that_missed_the_birth_of_a_shard_is_late_also_when_a_later_committee_is_in_force() {
        let root = tempfile::tempdir().expect("a folder");
        let genesis = crate::server::testing::lone_genesis(ledger::genesis::VerifyMode::Ingest);
        let mut view = ClusterView::of_genesis(&genesis);
        let group = crate::core::support::SHARD;
        let committee = view.committees.get_mut(&group).expect("it is in the genesis");
        let node = committee.members[0].node;
        committee.epoch = Epoch(1);
        let folder = root.path().join("shard");
        assert_eq!(seat(&view, group, node, &folder, true).expect("nothing of it was here").join, FIRST_JOIN);
        // As ever where it was here, and has left.
        leave(&folder).expect("noted");
        fs::remove_dir_all(&folder).expect("removed");
        let found = seat(&view, group, node, &folder, true).map_err(|error| error.code());
        assert_eq!(found.err(), Some("seat_lost"));
    }

    #[test]
    fn the_seat_of_a_shard_that_is_born_is_there_when_it_opens_unless_it_is_forgotten() {
        let root = tempfile::tempdir().expect("a folder");
        let child = GroupId::shard(7);
        forget(root.path()).expect("there is nothing to forget");
        begin(root.path(), child).expect("noted");
        assert_eq!(read(root.path(), child).expect("readable"), Some(FIRST_JOIN));
        forget(root.path()).expect("removed");
        assert_eq!(read(root.path(), child).expect("nothing there"), None);
    }

    #[test]
    fn a_join_is_kept_and_a_foreign_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let group = GroupId::channel(3);
        assert_eq!(read(folder.path(), group).expect("nothing there"), None);
        write(folder.path(), group, 7).expect("written");
        assert_eq!(read(folder.path(), group).expect("readable"), Some(7));
        let other = read(folder.path(), GroupId::channel(4)).map_err(|error| error.code());
        assert_eq!(other, Err("seat_file"));
        fs::write(folder.path().join(FILE), b"{}").expect("damaged");
        assert_eq!(read(folder.path(), group).map_err(|error| error.code()), Err("seat_file"));
    }
}
