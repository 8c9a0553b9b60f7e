//! What can go wrong in storage, each with a stable code, the file, the cause and what to do.
//!
//! Owns: [`StorageError`] and its codes. Never does: decide what a caller does about it; the host
//! stops the group on anything that touched its data. Next: `code()` goes into logs, metrics and
//! the API unchanged.

use std::path::{Path, PathBuf};

/// An error of the storage layer. `Clone`, because one failed write fails many waiting callers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// Bytes on disk are not the bytes that were written.
    #[error(
        "{path}: damaged data: {detail}. Nothing was served from it. Stop the node. The state of a group is set \
         aside with 'seamark node rebuild', and the replica built again; without its shared log a node must not come \
         back (docs/operations.md)"
    )]
    Corrupt {
        /// The damaged file, or its folder when the file is not known.
        path: PathBuf,
        /// What did not match.
        detail: String,
    },
    /// The log ends before something that was acknowledged.
    #[error(
        "{path}: acknowledged changes are missing: the log ends at change {found}, and {acknowledged} were \
         acknowledged. The file was cut, emptied or replaced; nothing was started, since the replicas of this node \
         could vote against what they have promised. Bring the log's folder back as it was; without it these replicas \
         are lost, and the node has to leave its groups and join again"
    )]
    Truncated {
        /// The file that ends too early.
        path: PathBuf,
        /// Number of the last change that is there.
        found: u64,
        /// Number of the last change that was acknowledged.
        acknowledged: u64,
    },
    /// The file system has no room left.
    #[error("{path}: the disk is full: {detail}. Free or add space on this file system, then restart the node")]
    DiskFull {
        /// The file or folder that was written.
        path: PathBuf,
        /// The operating system's words.
        detail: String,
    },
    /// The folder belongs to another cluster.
    #[error(
        "{path}: this folder belongs to cluster {found}, but the node is configured for cluster {expected}. \
         Point the node at its own data folder, or correct the genesis it was given"
    )]
    WrongCluster {
        /// The identity file.
        path: PathBuf,
        /// Cluster id in the file, hex.
        found: String,
        /// Cluster id of the caller, hex.
        expected: String,
    },
    /// The folder belongs to another group, or holds another kind of data.
    #[error(
        "{path}: this folder holds {found}, but {expected} was asked for. Check that data folders were not \
         swapped or copied over one another"
    )]
    WrongGroup {
        /// The identity file.
        path: PathBuf,
        /// What the file says.
        found: String,
        /// What the caller wanted.
        expected: String,
    },
    /// The folder was written by newer software.
    #[error(
        "{path}: written in format {found}, this program reads up to format {supported}. Upgrade the program; \
         a downgrade is not possible"
    )]
    NewerVersion {
        /// The file with the version.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version this program reads.
        supported: u32,
    },
    /// Another process (or another handle of this one) has the folder open.
    #[error("{path}: in use: {detail}. Stop the other process that has this folder open")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The engine's words.
        detail: String,
    },
    /// Any other failure of the operating system.
    #[error("{path}: input/output error: {detail}. Check the disk, the permissions and the system log")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's words.
        detail: String,
    },
    /// An earlier write failed, so nothing after it can be trusted to be in order.
    #[error(
        "{path}: stopped after a failed write: {detail}. Nothing was written since. Repair the cause and \
         restart the node"
    )]
    Poisoned {
        /// The engine's folder.
        path: PathBuf,
        /// The first failure.
        detail: String,
    },
    /// The engine was shut down, or the group was dropped from it.
    #[error("{path}: closed: {detail}. Open it again before use")]
    Closed {
        /// The engine's folder.
        path: PathBuf,
        /// What was closed.
        detail: String,
    },
    /// The caller asked for something that would break the data's order.
    #[error("{path}: refused: {detail}. This is a defect in the caller; please report it")]
    Refused {
        /// The engine's folder.
        path: PathBuf,
        /// The rule that was about to be broken.
        detail: String,
    },
    /// This implementation cannot do what was asked.
    #[error("{path}: not supported: {detail}. Use a RocksDB database for this")]
    Unsupported {
        /// The implementation's name or folder.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
}

impl StorageError {
    /// The stable code of this error; never changes once released.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "storage_corrupt",
            Self::Truncated { .. } => "storage_truncated",
            Self::DiskFull { .. } => "storage_disk_full",
            Self::WrongCluster { .. } => "storage_wrong_cluster",
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

    /// The file or folder the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Corrupt { path, .. }
            | Self::Truncated { path, .. }
            | Self::DiskFull { path, .. }
            | Self::WrongCluster { path, .. }
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

    /// An operating system error on `path`, told apart from a full disk.
    pub fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        let (path, detail) = (path.into(), error.to_string());
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { path, detail },
            _ => Self::Io { path, detail },
        }
    }
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
                "storage_poisoned"
            ]
        );
        for error in &all {
            let text = error.to_string();
            assert!(text.starts_with("/data/group-7: "), "{text}");
            assert!(text.contains(". "), "names a fix: {text}");
            assert_eq!(error.path(), path);
        }
    }
}
