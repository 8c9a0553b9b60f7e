//! Setting the files of a replica aside, offline, so that the next start of the node builds it anew:
//! from its log where that goes back to the beginning, else from another member's snapshot.
//!
//! Nothing is removed, and the shared log is only looked at: it holds the replica's vote and what it
//! has acknowledged, and a member that forgot those could vote twice in a term or lose what counts as
//! committed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ledger::ids::{GroupId, GroupKind, NodeId};
use storage::{LogEngine, LogIdentity, LogStore, ResourceLimits, SharedResources, StorageError};

use crate::server::config::NodeConfig;
use crate::server::kept;
use crate::server::node::{NodeError, load_genesis};
use crate::server::vault::{LocalSeal, Vault, VaultError};

/// What of a group's folder makes up a replica's state.
pub(super) const PARTS: [&str; 2] = ["state", "snapshots"];
/// Start of the names of folders that hold what was set aside.
pub const ASIDE: &str = "aside-";

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The node.
    pub node: NodeId,
    /// The group.
    pub group: GroupId,
    /// Folders that were moved, and where they are now.
    pub moved: Vec<(PathBuf, PathBuf)>,
    /// The log index up to which the log was purged; `None` when it goes back to the beginning.
    pub purged: Option<u64>,
}

/// Why nothing was set aside.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The configuration or the genesis.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The keys of what it keeps of channels.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The node has no replica of the group.
    #[error("node {node} has no replica of {group}; name one of: {}", hosted.join(", "))]
    NotHosted {
        /// The node.
        node: NodeId,
        /// The group.
        group: GroupId,
        /// What it has.
        hosted: Vec<String>,
    },
    /// The node runs.
    #[error("{} is in use, so the node runs; stop it first", .0.display())]
    Running(PathBuf),
    /// There is no log.
    #[error(
        "{} is not there, and with it the votes of this node; point data_dir at the right folder: without its votes a node must not come back",
        .0.display()
    )]
    NoLog(PathBuf),
    /// The log is damaged or of another cluster.
    #[error("the log cannot be read, and without the votes in it the replica must not come back: {0}")]
    Log(#[source] StorageError),
    /// Nobody could lend a snapshot.
    #[error(
        "{0} has no other replica and its log no longer goes back to the beginning, so nothing could be built again; restore the data folder from a backup"
    )]
    Alone(GroupId),
    /// A folder could not be moved.
    #[error("{} cannot be moved: {cause}; check its permissions, and run this again", path.display())]
    Move {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
}

impl RebuildError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Node(error) => error.code(),
            Self::Vault(error) => error.code(),
            Self::NotHosted { .. } => "rebuild_group",
            Self::Running(_) => "rebuild_running",
            Self::NoLog(_) => "rebuild_no_log",
            Self::Log(error) => error.code(),
            Self::Alone(_) => "rebuild_alone",
            Self::Move { .. } => "rebuild_move",
        }
    }
}

/// Moves the state and the snapshots of a group's replica into a folder beside them.
///
/// # Errors
/// [`RebuildError`] when the node runs, when the replica could not be built again, or when the system
/// refuses. What was moved before an error stays moved; running it again goes on.
pub fn set_aside(config: &NodeConfig, group: GroupId) -> Result<SetAside, RebuildError> {
    let genesis = load_genesis(&config.genesis)?;
    let kept = kept::load(&config.data_dir, &genesis);
    let committees = kept.as_ref().map_or(&genesis.committees, |kept| &kept.registry.committees);
    let of_node = committees.iter().filter(|committee| committee.index_of(config.node).is_some());
    let hosted: Vec<String> = of_node.clone().map(|committee| committee.group.to_string()).collect();
    let committee = of_node.into_iter().find(|committee| committee.group == group).ok_or(RebuildError::NotHosted {
        node: config.node,
        group,
        hosted,
    })?;
    // Held open until the end, so that the node cannot start in between.
    let log =
        open_log(&config.data_dir.join("log"), LogIdentity { cluster: genesis.cluster_id().0.0, node: config.node.0 })?;
    let folder = config.data_dir.join(group.to_string());
    let seal = match group.kind() {
        Some(GroupKind::Channel) => {
            let (cluster, mut keyring) = (genesis.cluster_id(), config.keyring());
            let vault = Vault::open(&config.storage_key, &config.data_dir, cluster, config.node, &mut keyring)?;
            vault.seal_of(group, &folder)?
        }
        _ => LocalSeal::open(),
    };
    let purged = {
        let ballots = log.beside(group.0, seal.cipher()).map_err(RebuildError::Log)?;
        let log = log.group(group.0, seal.cipher()).map_err(RebuildError::Log)?;
        // Unreadable votes are found now, not after the move.
        log.read_vote().map_err(RebuildError::Log)?;
        ballots.last().map_err(RebuildError::Log)?;
        log.purged_index().map_err(RebuildError::Log)?
    };
    if purged.is_some() && committee.members.len() == 1 {
        return Err(RebuildError::Alone(group));
    }
    let moved = move_parts(&folder)?;
    Ok(SetAside { node: config.node, group, moved, purged })
}

fn open_log(folder: &Path, identity: LogIdentity) -> Result<LogEngine, RebuildError> {
    // Opening would make an empty one.
    if !LogEngine::is_there(folder).map_err(RebuildError::Log)? {
        return Err(RebuildError::NoLog(folder.to_owned()));
    }
    let resources = SharedResources::new(ResourceLimits::default()).map_err(RebuildError::Log)?;
    match LogEngine::open(folder, &resources, identity) {
        Err(StorageError::InUse { .. }) => Err(RebuildError::Running(folder.to_owned())),
        opened => opened.map_err(RebuildError::Log),
    }
}

fn move_parts(folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>, RebuildError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| RebuildError::Move { path, cause: error.to_string() }
    };
    let there: Vec<PathBuf> = PARTS.iter().map(|part| folder.join(part)).filter(|path| path.exists()).collect();
    let Some(aside) = (1u32..).map(|number| folder.join(format!("{ASIDE}{number}"))).find(|path| !path.exists()) else {
        return Ok(Vec::new());
    };
    if there.is_empty() {
        return Ok(Vec::new());
    }
    fs::create_dir(&aside).map_err(failed(&aside))?;
    let mut moved = Vec::new();
    for from in there {
        let to = aside.join(from.file_name().unwrap_or_default());
        fs::rename(&from, &to).map_err(failed(&from))?;
        moved.push((from, to));
    }
    for changed in [&aside, folder] {
        File::open(changed).and_then(|folder| folder.sync_all()).map_err(failed(changed))?;
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_moved_and_never_over_what_was_moved_before() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(move_parts(folder.path()).expect("nothing to do"), []);
        for number in 1..=2 {
            fs::create_dir_all(folder.path().join("state/db-1")).expect("a state");
            if number == 1 {
                fs::create_dir(folder.path().join("snapshots")).expect("snapshots");
            }
            let moved = move_parts(folder.path()).expect("moved");
            assert_eq!(moved.len(), 3 - number);
            let aside = folder.path().join(format!("aside-{number}"));
            assert_eq!(moved[0], (folder.path().join("state"), aside.join("state")));
            assert!(aside.join("state/db-1").is_dir() && !folder.path().join("state").exists());
        }
    }

    #[test]
    fn a_missing_log_is_not_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let identity = |cluster: u8| LogIdentity { cluster: [cluster; 32], node: 1 };
        assert_eq!(open_log(&log, identity(1)).err().map(|error| error.code()), Some("rebuild_no_log"));
        assert!(!log.exists());
        let resources = SharedResources::new(ResourceLimits::default()).expect("resources");
        let running = LogEngine::open(&log, &resources, identity(1)).expect("a log");
        assert_eq!(open_log(&log, identity(1)).err().map(|error| error.code()), Some("rebuild_running"));
        drop(running);
        assert_eq!(open_log(&log, identity(2)).err().map(|error| error.code()), Some("storage_wrong_cluster"));
        assert!(open_log(&log, identity(1)).is_ok());
    }
}
