//! The client profile: what a client needs to find its cluster and to be let in.
//!
//! Owns the TOML format, the default folder, and reading what the profile names. Paths in a profile
//! are relative to its own folder, so that a cluster's folder can be moved.

use std::path::{Path, PathBuf};

use ledger::genesis::Genesis;
use ledger::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use crate::net::{Identity, NetError, TrustRoots};

/// Name of the profile in a cluster's folder.
pub const PROFILE_FILE: &str = "client.toml";
/// Routers in one profile.
pub const ROUTERS_MAX: usize = 1024;

/// One front door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterEndpoint {
    /// The node that embeds it; absent for a stand-alone router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// `host:port`.
    pub addr: String,
    /// Name its certificate must carry, such as `node-3.seamark`.
    pub server_name: String,
}

/// The profile file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name of the cluster, for people.
    pub cluster: String,
    /// Hash of the genesis; the file at `genesis` must have it.
    pub cluster_id: ClusterId,
    /// Path of the genesis, in JSON.
    pub genesis: PathBuf,
    /// Path of the certificate authorities, in PEM.
    pub ca: PathBuf,
    /// Path of the client's certificate, in PEM.
    pub cert: PathBuf,
    /// Path of the client's key, in PEM.
    pub key: PathBuf,
    /// All routers, in the order they are tried.
    pub routers: Vec<RouterEndpoint>,
    /// Folder that relative paths start from: where the file was loaded from or saved to.
    #[serde(skip)]
    pub base: PathBuf,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No file.
    #[error("there is no client profile at {path}; start a cluster with 'seamark up', or name its folder with --dir")]
    Missing {
        /// Where it was looked for.
        path: String,
    },
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written: {cause}; check the path and its permissions")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// A file has another form.
    #[error("{path} is not valid: {cause}; correct it, or copy it again from the cluster's folder")]
    Form {
        /// The file.
        path: String,
        /// What is wrong, with its position.
        cause: String,
    },
    /// The genesis is that of another cluster.
    #[error("{path} is the genesis of cluster {found}, but the profile is for {expected}; copy the right genesis")]
    OtherCluster {
        /// The genesis file.
        path: String,
        /// Its hash.
        found: ClusterId,
        /// The profile's.
        expected: ClusterId,
    },
    /// No home folder is known.
    #[error("neither SEAMARK_DIR nor HOME is set, so there is no default folder; name one with --dir")]
    NoHome,
    /// Certificates or keys are unusable.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl ProfileError {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "profile_missing",
            Self::Io { .. } => "profile_io",
            Self::Form { .. } => "profile_form",
            Self::OtherCluster { .. } => "profile_other_cluster",
            Self::NoHome => "profile_no_home",
            Self::Net(error) => error.code(),
        }
    }
}

/// The folder of the cluster a command talks to when none is named: `$SEAMARK_DIR`, else
/// `~/.seamark/dev`.
///
/// # Errors
/// [`ProfileError::NoHome`].
pub fn default_dir() -> Result<PathBuf, ProfileError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SEAMARK_DIR").or_else(|| set("HOME").map(|home| home.join(".seamark").join("dev"))).ok_or(ProfileError::NoHome)
}

fn io(path: &Path, error: &std::io::Error) -> ProfileError {
    ProfileError::Io { path: path.display().to_string(), cause: error.to_string() }
}

fn form(path: &Path, cause: impl ToString) -> ProfileError {
    ProfileError::Form { path: path.display().to_string(), cause: cause.to_string() }
}

impl Profile {
    /// Reads the profile of a cluster's folder.
    ///
    /// # Errors
    /// As [`Profile::load`].
    pub fn load_dir(dir: &Path) -> Result<Self, ProfileError> {
        Self::load(&dir.join(PROFILE_FILE))
    }

    /// Reads the profile of the default folder.
    ///
    /// # Errors
    /// As [`Profile::load`] and [`default_dir`].
    pub fn load_default() -> Result<Self, ProfileError> {
        Self::load_dir(&default_dir()?)
    }

    /// Reads and checks a profile file.
    ///
    /// # Errors
    /// [`ProfileError::Missing`], [`ProfileError::Io`] or [`ProfileError::Form`].
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ProfileError::Missing { path: path.display().to_string() },
            _ => io(path, &error),
        })?;
        let mut profile: Self = toml::from_str(&text).map_err(|error| form(path, error))?;
        profile.base = path.parent().map(Path::to_path_buf).unwrap_or_default();
        match profile.routers.len() {
            0 => Err(form(path, "it lists no router")),
            1..=ROUTERS_MAX => Ok(profile),
            _ => Err(form(path, "it lists more than 1024 routers")),
        }
    }

    /// Writes the profile, replacing an older one in one step.
    ///
    /// # Errors
    /// [`ProfileError::Io`] or [`ProfileError::Form`].
    pub fn save(&self, path: &Path) -> Result<(), ProfileError> {
        let text = toml::to_string_pretty(self).map_err(|error| form(path, error))?;
        crate::files::replace(path, text.as_bytes(), 0o644).map_err(|error| io(path, &error))
    }

    /// A path of the profile, from its folder.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// Reads the genesis and checks that it is this cluster's.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn genesis(&self) -> Result<Genesis, ProfileError> {
        let path = self.resolve(&self.genesis);
        let genesis = read_genesis(&path)?;
        let found = genesis.cluster_id();
        if found == self.cluster_id {
            Ok(genesis)
        } else {
            Err(ProfileError::OtherCluster { path: path.display().to_string(), found, expected: self.cluster_id })
        }
    }

    /// Reads the client's certificate and key.
    ///
    /// # Errors
    /// [`ProfileError::Net`].
    pub fn identity(&self) -> Result<Identity, ProfileError> {
        Ok(Identity::load(&self.resolve(&self.cert), &self.resolve(&self.key))?)
    }

    /// Reads the certificate authorities.
    ///
    /// # Errors
    /// [`ProfileError::Net`].
    pub fn roots(&self) -> Result<TrustRoots, ProfileError> {
        Ok(TrustRoots::load(&self.resolve(&self.ca))?)
    }
}

/// Reads a genesis file in JSON.
///
/// # Errors
/// [`ProfileError::Io`] or [`ProfileError::Form`].
pub fn read_genesis(path: &Path) -> Result<Genesis, ProfileError> {
    let text = std::fs::read_to_string(path).map_err(|error| io(path, &error))?;
    let genesis: Genesis = serde_json::from_str(&text).map_err(|error| form(path, error))?;
    if !genesis.version_fits() {
        return Err(form(
            path,
            format!("unknown version {} of a genesis, or not the one for what it states", genesis.version),
        ));
    }
    if !genesis.layout.well_formed() || !genesis.committees.iter().all(ledger::Committee::well_formed) {
        return Err(form(path, "its layout or a committee is not well formed"));
    }
    Ok(genesis)
}

/// Writes a genesis file in JSON.
///
/// # Errors
/// [`ProfileError::Io`] or [`ProfileError::Form`].
pub fn write_genesis(path: &Path, genesis: &Genesis) -> Result<(), ProfileError> {
    let mut text = serde_json::to_string_pretty(genesis).map_err(|error| form(path, error))?;
    text.push('\n');
    crate::files::replace(path, text.as_bytes(), 0o644).map_err(|error| io(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Profile {
        Profile {
            cluster: "dev".to_owned(),
            cluster_id: ClusterId(ledger::hash::sha256(b"x")),
            genesis: "genesis.json".into(),
            ca: "ca.pem".into(),
            cert: "client.pem".into(),
            key: "client.key".into(),
            routers: vec![
                RouterEndpoint {
                    node: Some(NodeId(1)),
                    addr: "127.0.0.1:7001".into(),
                    server_name: "node-1.seamark".into(),
                },
                RouterEndpoint { node: None, addr: "127.0.0.1:7009".into(), server_name: "localhost".into() },
            ],
            base: PathBuf::new(),
        }
    }

    #[test]
    fn a_profile_survives_its_file_and_knows_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PROFILE_FILE);
        example().save(&path).unwrap();
        let loaded = Profile::load_dir(dir.path()).unwrap();
        assert_eq!(loaded.resolve(&loaded.ca), dir.path().join("ca.pem"));
        assert_eq!(Profile { base: PathBuf::new(), ..loaded }, example());
    }

    #[test]
    fn what_is_wrong_with_a_profile_has_a_code() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PROFILE_FILE);
        assert_eq!(Profile::load(&path).unwrap_err().code(), "profile_missing");
        example().save(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("surprise = 1\n{text}")).unwrap();
        let error = Profile::load(&path).unwrap_err();
        assert_eq!(error.code(), "profile_form");
        assert!(error.to_string().contains("surprise"), "{error}");
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert_eq!(Profile::load(&path).unwrap_err().code(), "profile_form");
        assert_eq!(example().genesis().unwrap_err().code(), "profile_io");
        assert_eq!(example().identity().unwrap_err().code(), "tls_file");
    }
}
