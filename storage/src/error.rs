//! What can go wrong in storage, each with a stable code, the file, the cause and what to do.
//!
//! Owns: [`StorageError`] and its codes. Never does: decide what a caller does about it; the host
//! stops the group on anything that touched its data. Next: `code()` goes into logs, metrics and
//! the API unchanged.

use std::fmt;
use std::path::{Path, PathBuf};

/// An error of the storage layer. `Clone`, because one failed write fails many waiting callers.
///
/// Its text is path, cause and fix; whoever shows them apart takes [`StorageError::cause`] and
/// [`StorageError::fix`] and never splits the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageError {
    /// Bytes on disk are not the bytes that were written.
    Corrupt {
        /// The damaged file, or its folder when the file is not known.
        path: PathBuf,
        /// What did not match.
        detail: String,
    },
    /// The log ends before something that was acknowledged.
    Truncated {
        /// The file that ends too early.
        path: PathBuf,
        /// Number of the last change that is there.
        found: u64,
        /// Number of the last change that was acknowledged.
        acknowledged: u64,
    },
    /// There is no log, and something else says that there has been one.
    LogMissing {
        /// Where the log should be.
        path: PathBuf,
        /// What says that there has been one.
        witness: PathBuf,
    },
    /// The file system has no room left.
    DiskFull {
        /// The file or folder that was written.
        path: PathBuf,
        /// The operating system's words.
        detail: String,
    },
    /// The process may not open any more files.
    OpenFiles {
        /// The file or folder that was to be opened.
        path: PathBuf,
        /// The operating system's words.
        detail: String,
    },
    /// The folder belongs to another cluster.
    WrongCluster {
        /// The identity file.
        path: PathBuf,
        /// Cluster id in the file, hex.
        found: String,
        /// Cluster id of the caller, hex.
        expected: String,
    },
    /// The folder belongs to another node of the cluster.
    WrongNode {
        /// The identity file.
        path: PathBuf,
        /// Node in the file.
        found: u32,
        /// The caller's.
        expected: u32,
    },
    /// The folder belongs to another group, or holds another kind of data.
    WrongGroup {
        /// The identity file.
        path: PathBuf,
        /// What the file says.
        found: String,
        /// What the caller wanted.
        expected: String,
    },
    /// The folder was written by newer software.
    NewerVersion {
        /// The file with the version.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version this program reads.
        supported: u32,
    },
    /// Another process (or another handle of this one) has the folder open.
    InUse {
        /// The folder.
        path: PathBuf,
        /// The engine's words.
        detail: String,
    },
    /// Any other failure of the operating system.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's words.
        detail: String,
    },
    /// An earlier write failed, so nothing after it can be trusted to be in order.
    Poisoned {
        /// The engine's folder.
        path: PathBuf,
        /// The first failure.
        detail: String,
    },
    /// The engine was shut down, or the group was dropped from it.
    Closed {
        /// The engine's folder.
        path: PathBuf,
        /// What was closed.
        detail: String,
    },
    /// The caller asked for something that would break the data's order.
    Refused {
        /// The engine's folder.
        path: PathBuf,
        /// The rule that was about to be broken.
        detail: String,
    },
    /// This implementation cannot do what was asked.
    Unsupported {
        /// The implementation's name or folder.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}. {}", self.path().display(), self.cause(), self.fix())
    }
}

impl std::error::Error for StorageError {}

impl StorageError {
    /// The stable code of this error; never changes once released.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "storage_corrupt",
            Self::Truncated { .. } => "storage_truncated",
            Self::LogMissing { .. } => "storage_log_missing",
            Self::DiskFull { .. } => "storage_disk_full",
            Self::OpenFiles { .. } => "storage_open_files",
            Self::WrongCluster { .. } => "storage_wrong_cluster",
            Self::WrongNode { .. } => "storage_wrong_node",
            Self::WrongGroup { .. } => "storage_wrong_group",
            Self::NewerVersion { .. } => "storage_newer_version",
            Self::InUse { .. } => "storage_in_use",
            Self::Io { .. } => "storage_io",
            Self::Poisoned { .. } => "storage_poisoned",
            Self::Closed { .. } => "storage_closed",
            Self::Refused { .. } => "storage_refused",
            Self::Unsupported { .. } => "storage_unsupported",
        }
    }

    /// What happened, without the path.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Corrupt { detail, .. } => format!("damaged data: {detail}; nothing was served from it"),
            Self::Truncated { found, acknowledged, .. } => format!(
                "acknowledged changes are missing: the log ends at change {found}, and {acknowledged} were \
                 acknowledged; the file was cut, emptied or replaced, and nothing was started, since the replicas of \
                 this node could vote against what they have promised"
            ),
            Self::LogMissing { witness, .. } => format!(
                "there is no log, and {} says that there has been one; nothing was started, since the replicas of \
                 this node do not know any more what they have promised",
                witness.display()
            ),
            Self::DiskFull { detail, .. } => format!("the disk is full: {detail}"),
            Self::OpenFiles { detail, .. } => {
                format!("this process has as many files open as it may have: {detail}")
            }
            Self::WrongCluster { found, expected, .. } => {
                format!("this folder belongs to cluster {found}, but the node is configured for cluster {expected}")
            }
            Self::WrongNode { found, expected, .. } => {
                format!("this folder belongs to node {found}, and this is node {expected}")
            }
            Self::WrongGroup { found, expected, .. } => {
                format!("this folder holds {found}, but {expected} was asked for")
            }
            Self::NewerVersion { found, supported, .. } => {
                format!("written in format {found}, this program reads up to format {supported}")
            }
            Self::InUse { detail, .. } => format!("in use: {detail}"),
            Self::Io { detail, .. } => format!("input/output error: {detail}"),
            Self::Poisoned { detail, .. } => {
                format!("stopped after a failed write: {detail}; nothing was written since")
            }
            Self::Closed { detail, .. } => format!("closed: {detail}"),
            Self::Refused { detail, .. } => format!("refused: {detail}"),
            Self::Unsupported { detail, .. } => format!("not supported: {detail}"),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => {
                "Stop the node. The state of a group is set aside with 'seamark node rebuild', and the replica built \
                 again; without its shared log a node must not come back (docs/operations.md)"
            }
            Self::Truncated { .. } => {
                "Bring the log's folder back as it was; without it these replicas are lost, and the node has to stay \
                 away while its groups go on with the others (docs/operations.md)"
            }
            Self::LogMissing { .. } => {
                "Mount or bring back the node's data folder as it was when it ran last; if it is lost, so are these \
                 replicas: no command makes them again, and the node has to stay away while its groups go on with the \
                 others (docs/operations.md)"
            }
            Self::DiskFull { .. } => "Free or add space on this file system, then restart the node",
            Self::OpenFiles { .. } => "Raise the limit with 'ulimit -n' (65536 or more) and start it again",
            Self::WrongCluster { .. } => "Point the node at its own data folder, or correct the genesis it was given",
            Self::WrongNode { .. } => {
                "Point each node at its own data folder; check that data folders were not swapped or copied over one \
                 another"
            }
            Self::WrongGroup { .. } => "Check that data folders were not swapped or copied over one another",
            Self::NewerVersion { .. } => "Upgrade the program; a downgrade is not possible",
            Self::InUse { .. } => "Stop the other process that has this folder open",
            Self::Io { .. } => "Check the disk, the permissions and the system log",
            Self::Poisoned { .. } => "Repair the cause and restart the node",
            Self::Closed { .. } => "Open it again before use",
            Self::Refused { .. } => "This is a defect in the caller; please report it",
            Self::Unsupported { .. } => "Use a RocksDB database for this",
        }
    }

    /// The file or folder the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Corrupt { path, .. }
            | Self::Truncated { path, .. }
            | Self::LogMissing { path, .. }
            | Self::DiskFull { path, .. }
            | Self::OpenFiles { path, .. }
            | Self::WrongCluster { path, .. }
            | Self::WrongNode { path, .. }
            | Self::WrongGroup { path, .. }
            | Self::NewerVersion { path, .. }
            | Self::InUse { path, .. }
            | Self::Io { path, .. }
            | Self::Poisoned { path, .. }
            | Self::Closed { path, .. }
            | Self::Refused { path, .. }
            | Self::Unsupported { path, .. } => path,
        }
    }

    /// A corruption of `path`.
    pub fn corrupt(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), detail: detail.into() }
    }

    /// An operating system error on `path`, told apart from a full disk and from
    /// too many open files.
    pub fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        let (path, detail) = (path.into(), error.to_string());
        if is_open_files(error) {
            return Self::OpenFiles { path, detail };
        }
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { path, detail },
            _ => Self::Io { path, detail },
        }
    }
}

/// Whether the system refuses because the process, or the machine, has too many files open.
#[must_use]
pub fn is_open_files(error: &std::io::Error) -> bool {
    // EMFILE and ENFILE on every Unix; std has no kind for them.
    matches!(error.raw_os_error(), Some(23 | 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_file_and_a_fix() {
        let path = PathBuf::from("/data/group-7");
        let all = [
            StorageError::corrupt(&path, "x"),
            StorageError::io(&path, &std::io::Error::from(std::io::ErrorKind::StorageFull)),
            StorageError::io(&path, &std::io::Error::from(std::io::ErrorKind::PermissionDenied)),
            StorageError::NewerVersion { path: path.clone(), found: 2, supported: 1 },
            StorageError::Truncated { path: path.clone(), found: 2, acknowledged: 3 },
            StorageError::Poisoned { path: path.clone(), detail: "x".into() },
            StorageError::io(&path, &std::io::Error::from_raw_os_error(24)),
            StorageError::LogMissing { path: path.clone(), witness: "/keys/signing.key.started".into() },
            StorageError::WrongNode { path: path.clone(), found: 2, expected: 3 },
        ];
        let codes: Vec<_> = all.iter().map(StorageError::code).collect();
        assert_eq!(
            codes,
            [
                "storage_corrupt",
                "storage_disk_full",
                "storage_io",
                "storage_newer_version",
                "storage_truncated",
                "storage_poisoned",
                "storage_open_files",
                "storage_log_missing",
                "storage_wrong_node"
            ]
        );
        for error in &all {
            let text = error.to_string();
            assert!(text.starts_with("/data/group-7: "), "{text}");
            assert_eq!(text, format!("/data/group-7: {}. {}", error.cause(), error.fix()));
            assert_eq!(error.path(), path);
        }
    }
}
