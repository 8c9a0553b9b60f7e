//! The configuration file of a node: `node.toml`.
//!
//! Owns its form, its limits and its errors, each of which names the file, the key and what to do.
//! Opens nothing: the host takes the checked values from here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use client::secrets::Keyring;
use ledger::genesis::VerifyMode;
use ledger::ids::NodeId;
use ledger::limits::TRIM_BYTES_PER_S;
use serde::{Deserialize, Serialize};

/// Largest configuration file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Longest log filter.
const LOG_BYTES_MAX: usize = 1024;

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("there is no configuration at {file}; make one with 'seamark init', or name the right file")]
    Missing {
        /// The configuration file.
        file: PathBuf,
    },
    /// The file cannot be read.
    #[error("{file} cannot be read: {cause}; check the path and its permissions")]
    Io {
        /// The configuration file.
        file: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// Not TOML, an unknown key, a missing key, or a value of another type.
    #[error(
        "{file} is not a node's configuration: {cause}\ncorrect the key at this place; 'seamark init' writes a complete example"
    )]
    Form {
        /// The configuration file.
        file: PathBuf,
        /// The key and its place.
        cause: String,
    },
    /// A value is out of range or contradicts another.
    #[error("{file}: {key} {cause}; {fix}")]
    Value {
        /// The configuration file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        cause: String,
        /// What to do.
        fix: &'static str,
    },
    /// A file that a key names is not there, or not as it has to be.
    #[error("{file}: {key} names {path}, which {cause}; {fix}")]
    Path {
        /// The configuration file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// What it names.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// What to do.
        fix: &'static str,
    },
}

impl ConfigError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "config_missing",
            Self::Io { .. } => "config_io",
            Self::Form { .. } => "config_form",
            Self::Value { .. } => "config_value",
            Self::Path { .. } => "config_path",
        }
    }
}

/// Timing of the consensus engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftTiming {
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// Shortest silence after which a follower stands for election.
    pub election_min_ms: u64,
    /// Longest such silence; each time one between the two is drawn.
    pub election_max_ms: u64,
}

impl Default for RaftTiming {
    /// A lost leader is replaced in about half a second on one site.
    fn default() -> Self {
        Self { heartbeat_ms: 100, election_min_ms: 400, election_max_ms: 800 }
    }
}

fn default_log() -> String {
    // What the consensus engines tell of their everyday business, such as each vote, would bury the rest. A
    // target stands for all that begin with it.
    "info,openraft=error,arc_malachitebft=warn".to_owned()
}

fn default_storage_key() -> PathBuf {
    "storage.key".into()
}

fn default_snapshot_every() -> u64 {
    20_000
}

fn default_trim_bytes_per_s() -> u64 {
    TRIM_BYTES_PER_S
}

/// The configuration of one node. Relative paths start from the file's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Which node of the registry this is.
    pub node: NodeId,
    /// Folder of logs and databases. Made when it is not there.
    pub data_dir: PathBuf,
    /// The cluster's genesis, in JSON.
    pub genesis: PathBuf,
    /// Where other nodes are answered.
    pub listen_peer: SocketAddr,
    /// Where clients are answered.
    pub listen_client: SocketAddr,
    /// TLS certificate, in PEM.
    pub cert: PathBuf,
    /// Its key, sealed or in PEM.
    pub key: PathBuf,
    /// Certificates of all organisations' authorities, in PEM.
    pub ca: PathBuf,
    /// Key that signs headers, sealed or as 64 hex digits.
    pub signing_key: PathBuf,
    /// Key under which the local keys of channels are sealed, itself sealed or as 64 hex digits. Made at the first start.
    #[serde(default = "default_storage_key")]
    pub storage_key: PathBuf,
    /// File of the passphrase that these keys are sealed under. Without it, a passphrase is looked for by the rule of
    /// [`Passphrase::find`](client::secrets::Passphrase::find).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// Checks client signatures otherwise than the genesis says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyMode>,
    /// Log entries of a group between two snapshots.
    #[serde(default = "default_snapshot_every")]
    pub snapshot_every: u64,
    /// Bytes of table files a second, at most, that are rewritten to give back the space of accounts that a shard has left to a
    /// sibling.
    #[serde(default = "default_trim_bytes_per_s")]
    pub trim_bytes_per_s: u64,
    /// What is logged: a filter such as `info` or `info,openraft=error`.
    #[serde(default = "default_log")]
    pub log: String,
    /// Timing of the consensus engine.
    #[serde(default)]
    pub raft: RaftTiming,
}

impl NodeConfig {
    /// A configuration with defaults for everything that has one, and file names as a node's
    /// folder has them.
    #[must_use]
    pub fn in_folder(node: NodeId, listen_peer: SocketAddr, listen_client: SocketAddr) -> Self {
        Self {
            node,
            data_dir: "data".into(),
            genesis: "genesis.json".into(),
            listen_peer,
            listen_client,
            cert: "node.pem".into(),
            key: "node.key".into(),
            ca: "roots.pem".into(),
            signing_key: "signing.key".into(),
            storage_key: default_storage_key(),
            passphrase_file: None,
            verify: None,
            snapshot_every: default_snapshot_every(),
            trim_bytes_per_s: default_trim_bytes_per_s(),
            log: default_log(),
            raft: RaftTiming::default(),
        }
    }

    /// Reads a configuration and checks it. All paths in the result are resolved.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the key and what to do.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = read_text(file)?;
        let config = Self::parse(&text, file)?;
        config.check(file)?;
        Ok(config)
    }

    /// Takes the text of a configuration and resolves its paths against the folder of `file`.
    ///
    /// # Errors
    /// [`ConfigError::Form`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Form { file: file.to_owned(), cause: error.to_string() })?;
        let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
        for path in [
            &mut config.data_dir,
            &mut config.genesis,
            &mut config.cert,
            &mut config.key,
            &mut config.ca,
            &mut config.signing_key,
            &mut config.storage_key,
        ]
        .into_iter()
        .chain(&mut config.passphrase_file)
        {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// What opens and seals the keys of this node.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        Keyring::finding(self.passphrase_file.clone())
    }

    /// The text of the file, to be written by whoever sets up a node.
    ///
    /// # Errors
    /// [`ConfigError::Form`] when a path is no text.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self)
            .map_err(|error| ConfigError::Form { file: PathBuf::from("node.toml"), cause: error.to_string() })
    }

    /// Checks values against each other and that the files are there. `file` is for messages.
    ///
    /// # Errors
    /// [`ConfigError::Value`] or [`ConfigError::Path`].
    pub fn check(&self, file: &Path) -> Result<(), ConfigError> {
        self.check_values(file)?;
        self.check_files(file)
    }

    fn check_values(&self, file: &Path) -> Result<(), ConfigError> {
        let bad = |key, cause: &str, fix| {
            Err(ConfigError::Value { file: file.to_owned(), key, cause: cause.to_owned(), fix })
        };
        if self.node.0 == 0 {
            return bad("node", "is 0", "nodes are numbered from 1, as in the genesis");
        }
        for (key, addr) in [("listen_peer", self.listen_peer), ("listen_client", self.listen_client)] {
            if addr.port() == 0 {
                return bad(key, "has port 0", "name the port that the genesis has for this node");
            }
        }
        let (peer, client) = (self.listen_peer, self.listen_client);
        let overlap = peer.ip() == client.ip() || peer.ip().is_unspecified() || client.ip().is_unspecified();
        if peer.port() == client.port() && overlap {
            return bad("listen_client", "has the port of listen_peer", "give each a port of its own");
        }
        if !(100..=100_000_000).contains(&self.snapshot_every) {
            return bad("snapshot_every", "is not from 100 to 100000000", "leave it out for the default of 20000");
        }
        if self.trim_bytes_per_s == 0 {
            return bad("trim_bytes_per_s", "is 0", "leave it out for the default of 4194304");
        }
        if self.log.is_empty() || self.log.len() > LOG_BYTES_MAX || self.log.chars().any(char::is_control) {
            return bad("log", "is empty or too long", "use a filter such as 'info' or 'info,openraft=warn'");
        }
        let raft = self.raft;
        if !(10..=10_000).contains(&raft.heartbeat_ms) {
            return bad("raft.heartbeat_ms", "is not from 10 to 10000", "leave it out for the default of 100");
        }
        if raft.election_min_ms < raft.heartbeat_ms * 3 {
            return bad(
                "raft.election_min_ms",
                "is less than three heartbeats",
                "raise it, or one late heartbeat costs the leader its place",
            );
        }
        if raft.election_max_ms <= raft.election_min_ms || raft.election_max_ms > 60_000 {
            return bad(
                "raft.election_max_ms",
                "is not above raft.election_min_ms and at most 60000",
                "use about twice raft.election_min_ms",
            );
        }
        Ok(())
    }

    fn check_files(&self, file: &Path) -> Result<(), ConfigError> {
        let copy = "copy it from the cluster's folder";
        for (key, path, secret) in [
            ("genesis", &self.genesis, false),
            ("cert", &self.cert, false),
            ("key", &self.key, true),
            ("ca", &self.ca, false),
            ("signing_key", &self.signing_key, true),
            ("storage_key", &self.storage_key, true),
        ] {
            let bad = |cause: String, fix| {
                Err(ConfigError::Path { file: file.to_owned(), key, path: path.clone(), cause, fix })
            };
            match std::fs::metadata(path) {
                // The host makes it where nothing needs it yet.
                Err(error) if key == "storage_key" && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return bad(format!("cannot be read: {error}"), copy),
                Ok(found) if !found.is_file() => return bad("is no file".to_owned(), copy),
                Ok(found) if secret && readable_by_others(&found) => {
                    return bad("others than its owner can read".to_owned(), "run chmod 600 on it");
                }
                Ok(_) => {}
            }
        }
        match std::fs::metadata(&self.data_dir) {
            Ok(found) if !found.is_dir() => Err(ConfigError::Path {
                file: file.to_owned(),
                key: "data_dir",
                path: self.data_dir.clone(),
                cause: "is no folder".to_owned(),
                fix: "name a folder of its own for this node",
            }),
            // A folder that is not there yet is made by the host.
            _ => Ok(()),
        }
    }
}

#[cfg(unix)]
fn readable_by_others(found: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    found.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn readable_by_others(_found: &std::fs::Metadata) -> bool {
    false
}

fn read_text(file: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigError::Missing { file: file.to_owned() },
        _ => ConfigError::Io { file: file.to_owned(), cause: error.to_string() },
    };
    let mut text = String::new();
    let source = std::fs::File::open(file).map_err(io)?;
    let read = source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::Io { file: file.to_owned(), cause: "it is over 64 KiB".to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
