//! What can go wrong with the folder of a cluster.

use std::io;
use std::path::{Path, PathBuf};

use client::{ProfileError, SecretError};
use ledger::ids::{ClusterId, NodeId};
use shard_node::server::config::ConfigError;

use super::pki::PkiError;

/// Why a cluster's folder cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written: {cause}; check the path, its permissions and the free space")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process works on the folder.
    #[error(
        "{path} is in use by another 'seamark up' or 'seamark init'; stop that one, or name another folder with --dir"
    )]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// There is a cluster already.
    #[error("{path} already holds a cluster; start it with 'seamark up', or name another folder with --dir")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// There is something else.
    #[error("{path} holds {found}, which is not part of a cluster; name an empty folder with --dir")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One name in it.
        found: String,
    },
    /// There is no cluster.
    #[error("{path} holds no cluster; make one with 'seamark up' or 'seamark init'")]
    NoCluster {
        /// The folder.
        path: PathBuf,
    },
    /// The genesis is not the one that the folder was made with.
    #[error(
        "{path} has been altered: it is the genesis of {found}, and the folder is of {expected}; restore it from a node's folder"
    )]
    Altered {
        /// The genesis file.
        path: PathBuf,
        /// Its hash.
        found: ClusterId,
        /// What `cluster-id` says.
        expected: String,
    },
    /// The genesis cannot start a cluster.
    #[error("{path}: {cause}; restore it from a node's folder")]
    Genesis {
        /// The genesis file.
        path: PathBuf,
        /// What is wrong.
        cause: beacon::genesis::GenesisFault,
    },
    /// A private key, or its passphrase, cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The key of an authority cannot be sealed.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The address of a node cannot be listened on.
    #[error("node {node} cannot listen on '{addr}': expected host:port with a port above zero")]
    Listen {
        /// The node.
        node: NodeId,
        /// Its address.
        addr: String,
    },
    /// The profile or genesis cannot be written or read.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A node's configuration cannot be written.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl SetupError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "setup_io",
            Self::Locked { .. } => "setup_locked",
            Self::Exists { .. } => "setup_exists",
            Self::NotEmpty { .. } => "setup_not_empty",
            Self::NoCluster { .. } => "setup_no_cluster",
            Self::Altered { .. } => "setup_altered",
            Self::Genesis { cause, .. } => cause.code(),
            Self::Secret(error) => error.code(),
            Self::Pki(error) => error.code(),
            Self::Listen { .. } => "setup_listen",
            Self::Profile(error) => error.code(),
            Self::Config(error) => error.code(),
        }
    }
}

/// Names the file that an operation failed on.
pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SetupError + '_ {
    move |cause| SetupError::Io { path: path.to_owned(), cause }
}
