//! The folder of a cluster.
//!
//! ```text
//! D/cluster.lock            held while a process runs or makes the cluster
//! D/genesis.json            written last: with it, the cluster exists
//! D/cluster-id              hash of the genesis
//! D/client.toml             the client profile
//! D/client/                 certificate and key of a client
//! D/ca/roots.pem            certificates of all authorities
//! D/ca/org-a/               certificate and key of an organisation's authority
//! D/admin/org-a/            its admin: TLS certificate and key, signing key
//! D/nodes/node-1/           everything one node needs; may be copied to its machine
//! ```
//!
//! Each file is written in one step. A folder with anything else in it is refused, one that a
//! crash left half made is made again. Private keys are sealed. Unless a passphrase is given, each
//! folder that has some gets one of its own, in the file `passphrase` beside them, so that a new
//! cluster starts without questions; whoever runs it moves that file to where the data are not.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use client::profile::{PROFILE_FILE, Profile, RouterEndpoint, read_genesis};
use client::secrets::{Keyring, PASSPHRASE_FILE, Passphrase, SecretKind};
use ledger::crypto::SecretKey;
use ledger::genesis::{Genesis, NodeInfo};
use ledger::ids::NodeId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use shard_node::server::config::NodeConfig;
use zeroize::Zeroizing;

use super::error::{SetupError, io_error};
use super::genesis::{MadeCluster, MadeNode};

/// Folder of a user's keys.
pub const KEYS_DIR: &str = "keys";
/// Folder of signed transactions whose fate is open.
pub const TRANSACTIONS_DIR: &str = "transactions";
const LOCK_FILE: &str = "cluster.lock";
const GENESIS_FILE: &str = "genesis.json";
const ID_FILE: &str = "cluster-id";
/// Stands in the folder while it is being made.
const MAKING_FILE: &str = "cluster.making";
const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// Where things are in the folder of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDir {
    root: PathBuf,
}

impl ClusterDir {
    /// The folder at `root`, whether it is there or not.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The genesis.
    #[must_use]
    pub fn genesis_path(&self) -> PathBuf {
        self.root.join(GENESIS_FILE)
    }

    /// The client profile.
    #[must_use]
    pub fn profile_path(&self) -> PathBuf {
        self.root.join(PROFILE_FILE)
    }

    /// The folder of a node.
    #[must_use]
    pub fn node_dir(&self, node: NodeId) -> PathBuf {
        self.root.join("nodes").join(format!("node-{node}"))
    }

    /// The configuration of a node.
    #[must_use]
    pub fn node_config(&self, node: NodeId) -> PathBuf {
        self.node_dir(node).join("node.toml")
    }

    /// The folder of an organisation's admin.
    #[must_use]
    pub fn admin_dir(&self, org: &str) -> PathBuf {
        self.root.join("admin").join(org)
    }

    /// The folder of an organisation's certificate authority.
    #[must_use]
    pub fn ca_dir(&self, org: &str) -> PathBuf {
        self.root.join("ca").join(org)
    }

    /// Whether a cluster has been made here.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.genesis_path().is_file()
    }

    /// Reads the genesis of a folder that holds a cluster, and checks that it is sound and the one
    /// the folder was made with.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn genesis(&self) -> Result<Genesis, SetupError> {
        let path = self.genesis_path();
        if !self.exists() {
            return Err(SetupError::NoCluster { path: self.root.clone() });
        }
        let genesis = read_genesis(&path)?;
        beacon::genesis::check(&genesis).map_err(|cause| SetupError::Genesis { path: path.clone(), cause })?;
        let id_path = self.root.join(ID_FILE);
        let expected = fs::read_to_string(&id_path).map_err(io_error(&id_path))?;
        let found = genesis.cluster_id();
        if expected.trim() == found.to_string() {
            Ok(genesis)
        } else {
            Err(SetupError::Altered { path, found, expected: expected.trim().to_owned() })
        }
    }

    /// The configuration files of all nodes of the genesis, by id.
    #[must_use]
    pub fn node_configs(&self, genesis: &Genesis) -> Vec<(NodeId, PathBuf)> {
        let mut nodes: Vec<NodeId> = genesis.nodes.iter().map(|node| node.id).collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|node| (node, self.node_config(node))).collect()
    }

    /// The key that signs an organisation's commands to the beacon.
    ///
    /// # Errors
    /// As [`read_signing_key`].
    pub fn admin_key(&self, org: &str) -> Result<SecretKey, SetupError> {
        read_signing_key(&self.admin_dir(org).join("signing.key"))
    }
}

/// Reads a signing key: sealed, or 64 hex digits. The passphrase is found by the rule of [`Passphrase::find`].
///
/// # Errors
/// [`SetupError::Secret`].
pub fn read_signing_key(path: &Path) -> Result<SecretKey, SetupError> {
    Ok(Keyring::finding(None).signing_key(path)?)
}

/// Held by whoever makes or runs the cluster of a folder. The system releases it with the process.
#[derive(Debug)]
pub struct ClusterLock {
    _file: File,
}

impl ClusterLock {
    /// Takes the lock of a folder, which is made if it is not there. Never waits.
    ///
    /// # Errors
    /// [`SetupError::Locked`] when another process has it.
    pub fn acquire(dir: &ClusterDir) -> Result<Self, SetupError> {
        make_dir(&dir.root)?;
        let path = dir.root.join(LOCK_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PUBLIC)
            .open(&path)
            .map_err(io_error(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(SetupError::Locked { path: dir.root.clone() }),
            Err(error) => Err(io_error(&path)(error.into())),
        }
    }
}

/// Writes a new cluster into its folder, under the folder's lock.
///
/// # Errors
/// [`SetupError::Exists`] for a folder with a cluster, [`SetupError::NotEmpty`] for one with
/// anything else but a user's keys and transactions, and what the system says.
pub fn write_cluster(dir: &ClusterDir, _lock: &ClusterLock, made: &MadeCluster) -> Result<(), SetupError> {
    prepare(dir)?;
    write_orgs(dir, made)?;
    for node in &made.nodes {
        write_node(dir, made, node)?;
    }
    write_client(dir, made)?;
    write(&dir.root.join(ID_FILE), format!("{}\n", made.genesis.cluster_id()).as_bytes(), PUBLIC)?;
    write(&dir.genesis_path(), &genesis_json(&made.genesis)?, PUBLIC)?;
    let making = dir.root.join(MAKING_FILE);
    fs::remove_file(&making).map_err(io_error(&making))
}

/// Refuses what is not ours, and clears what an interrupted run left.
fn prepare(dir: &ClusterDir) -> Result<(), SetupError> {
    if dir.exists() {
        return Err(SetupError::Exists { path: dir.root.clone() });
    }
    let making = dir.root.join(MAKING_FILE);
    // Keys and kept transactions are the user's, and may be there before the cluster is.
    let ours = [LOCK_FILE, MAKING_FILE, KEYS_DIR, TRANSACTIONS_DIR];
    let parts = ["ca", "admin", "nodes", "client", PROFILE_FILE, ID_FILE];
    let interrupted = making.is_file();
    for entry in fs::read_dir(&dir.root).map_err(io_error(&dir.root))? {
        let entry = entry.map_err(io_error(&dir.root))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let temporary = name.ends_with(".tmp");
        if ours.contains(&name.as_str()) {
            continue;
        }
        if !interrupted || !(temporary || parts.contains(&name.as_str())) {
            return Err(SetupError::NotEmpty { path: dir.root.clone(), found: name });
        }
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(io_error(&path))?;
    }
    write(&making, b"a cluster is being made here\n", PUBLIC)
}

fn genesis_json(genesis: &Genesis) -> Result<Vec<u8>, SetupError> {
    let mut text = serde_json::to_vec_pretty(genesis)
        .map_err(|error| SetupError::Io { path: PathBuf::from(GENESIS_FILE), cause: error.into() })?;
    text.push(b'\n');
    Ok(text)
}

fn roots_pem(made: &MadeCluster) -> String {
    made.orgs.iter().map(|org| org.authority.cert_pem()).collect()
}

/// What the keys of a folder are sealed under: the passphrase that was given, else one of the folder's own, which is
/// left there.
fn passphrase_of(folder: &Path, made: &MadeCluster) -> Result<Passphrase, SetupError> {
    match &made.passphrase {
        Some(given) => Ok(given.clone()),
        None => own_passphrase(folder),
    }
}

/// Makes a passphrase of a folder's own, which is left there.
fn own_passphrase(folder: &Path) -> Result<Passphrase, SetupError> {
    let own = Passphrase::generate()?;
    let line = Zeroizing::new(format!("{}\n", own.text()));
    write(&folder.join(PASSPHRASE_FILE), line.as_bytes(), SECRET)?;
    Ok(own)
}

fn write_sealed(path: &Path, kind: SecretKind, secret: &[u8], keyring: &mut Keyring) -> Result<(), SetupError> {
    write(path, &keyring.seal(path, kind, secret)?, SECRET)
}

fn write_orgs(dir: &ClusterDir, made: &MadeCluster) -> Result<(), SetupError> {
    for org in &made.orgs {
        let ca = dir.ca_dir(&org.name);
        make_dir(&ca)?;
        write(&ca.join("ca.pem"), org.authority.cert_pem().as_bytes(), PUBLIC)?;
        if !org.had_authority {
            let sealed = org.authority.sealed_key_pem(passphrase_of(&ca, made)?.text())?;
            write(&ca.join("ca.key"), sealed.as_bytes(), SECRET)?;
        }
        let admin = dir.admin_dir(&org.name);
        make_dir(&admin)?;
        let mut keyring = Keyring::holding(passphrase_of(&admin, made)?);
        write(&admin.join("admin.pem"), org.admin.cert_pem.as_bytes(), PUBLIC)?;
        write_sealed(&admin.join("admin.key"), SecretKind::Tls, org.admin.key_pem.as_bytes(), &mut keyring)?;
        write_signing_key(&admin.join("signing.key"), &org.admin_key, &mut keyring)?;
    }
    write(&dir.root.join("ca").join("roots.pem"), roots_pem(made).as_bytes(), PUBLIC)
}

/// Writes the folder of a node that joins a cluster which runs. Its configuration comes last: with it, the folder is whole,
/// and one that a crash left half made is made again.
///
/// # Errors
/// [`SetupError`].
pub fn write_joining_node(
    dir: &ClusterDir,
    genesis: &Genesis,
    node: &MadeNode,
    info: &NodeInfo,
) -> Result<(), SetupError> {
    let roots = dir.root.join("ca").join("roots.pem");
    let roots = fs::read_to_string(&roots).map_err(io_error(&roots))?;
    let config = NodeConfig { passphrase_file: Some(PathBuf::from(PASSPHRASE_FILE)), ..node_config(info)? };
    let folder = dir.node_dir(node.id);
    make_dir(&folder.join("data"))?;
    let passphrase = own_passphrase(&folder)?;
    write_node_files(dir, (genesis, &roots), node, &config, passphrase)
}

fn write_node(dir: &ClusterDir, made: &MadeCluster, node: &MadeNode) -> Result<(), SetupError> {
    let folder = dir.node_dir(node.id);
    make_dir(&folder.join("data"))?;
    let info = made.genesis.node(node.id).ok_or_else(|| SetupError::NoCluster { path: folder.clone() })?;
    // Named, so that the node says which file is gone instead of looking for a passphrase elsewhere. A passphrase that
    // was given is given to the nodes, too, by whoever gave it.
    let passphrase_file = made.passphrase.is_none().then(|| PathBuf::from(PASSPHRASE_FILE));
    let config = NodeConfig { passphrase_file, ..node_config(info)? };
    let passphrase = passphrase_of(&folder, made)?;
    write_node_files(dir, (&made.genesis, &roots_pem(made)), node, &config, passphrase)
}

/// Writes what a node needs into its folder, under this passphrase.
fn write_node_files(
    dir: &ClusterDir,
    (genesis, roots): (&Genesis, &str),
    node: &MadeNode,
    config: &NodeConfig,
    passphrase: Passphrase,
) -> Result<(), SetupError> {
    let folder = dir.node_dir(node.id);
    let mut keyring = Keyring::holding(passphrase);
    write(&folder.join(&config.genesis), &genesis_json(genesis)?, PUBLIC)?;
    write(&folder.join(&config.ca), roots.as_bytes(), PUBLIC)?;
    write(&folder.join(&config.cert), node.tls.cert_pem.as_bytes(), PUBLIC)?;
    write_sealed(&folder.join(&config.key), SecretKind::Tls, node.tls.key_pem.as_bytes(), &mut keyring)?;
    write_signing_key(&folder.join(&config.signing_key), &node.signing_key, &mut keyring)?;
    write(&dir.node_config(node.id), config.to_toml()?.as_bytes(), PUBLIC)
}

/// The configuration of a node by its registry entry. An address that is a name is listened for on
/// every interface.
fn node_config(info: &NodeInfo) -> Result<NodeConfig, SetupError> {
    let listen = |addr: &str| -> Result<SocketAddr, SetupError> {
        let bad = || SetupError::Listen { node: info.id, addr: addr.to_owned() };
        if let Ok(found) = addr.parse::<SocketAddr>() {
            return Ok(found);
        }
        let port = addr.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        Ok(SocketAddr::from(([0, 0, 0, 0], port.ok_or_else(bad)?)))
    };
    Ok(NodeConfig::in_folder(info.id, listen(&info.peer_addr)?, listen(&info.client_addr)?))
}

fn write_client(dir: &ClusterDir, made: &MadeCluster) -> Result<(), SetupError> {
    let folder = dir.root.join("client");
    make_dir(&folder)?;
    write(&folder.join("client.pem"), made.client.cert_pem.as_bytes(), PUBLIC)?;
    let mut keyring = Keyring::holding(passphrase_of(&folder, made)?);
    write_sealed(&folder.join("client.key"), SecretKind::Tls, made.client.key_pem.as_bytes(), &mut keyring)?;
    profile(&made.genesis).save(&dir.profile_path())?;
    Ok(())
}

/// The profile of a cluster whose nodes all embed a router.
fn profile(genesis: &Genesis) -> Profile {
    Profile {
        cluster: genesis.name.clone(),
        cluster_id: genesis.cluster_id(),
        genesis: GENESIS_FILE.into(),
        ca: Path::new("ca").join("roots.pem"),
        cert: Path::new("client").join("client.pem"),
        key: Path::new("client").join("client.key"),
        routers: genesis
            .nodes
            .iter()
            .map(|node| RouterEndpoint {
                node: Some(node.id),
                addr: node.client_addr.clone(),
                server_name: client::net::node_server_name(node.id),
            })
            .collect(),
        base: PathBuf::new(),
    }
}

fn write_signing_key(path: &Path, key: &SecretKey, keyring: &mut Keyring) -> Result<(), SetupError> {
    write_sealed(path, SecretKind::Signing, Zeroizing::new(key.to_bytes()).as_slice(), keyring)
}

/// Makes a folder and those above it, private to its owner where it is new.
fn make_dir(path: &Path) -> Result<(), SetupError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))
}

/// Writes a file in one step: a crash leaves all of it or nothing.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SetupError> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(".tmp");
    let temp = PathBuf::from(temp);
    let write_temp = || {
        // Under the folder's lock, a temporary file can only be left from a crash.
        let _ = fs::remove_file(&temp);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write_temp().map_err(io_error(path))
}
