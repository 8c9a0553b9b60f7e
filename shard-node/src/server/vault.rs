//! The keys under which a node seals what it keeps of channels: state, log entries and snapshots.
//!
//! Owns two kinds of secret files. The storage key belongs to the node, lies outside its data folder (`storage_key`
//! in node.toml) and seals nothing but the second kind: a local key for each channel, in the channel's folder, made
//! when the node takes its seat there and destroyed when it leaves. No other node has it. What a node sends to
//! another member is read with it there and sealed anew under that member's own.
//! Never does: seal shards or the beacon, which all members of the cluster may read; or replace a key that is gone,
//! since what it sealed is gone with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use consensus::port::SnapshotSecret;
use ledger::ids::{ClusterId, GroupId, GroupKind, NodeId};
use rand::TryRngCore;
use storage::cipher::SEAL_OVERHEAD_BYTES;
use storage::{ChaChaCipher, CounterNonces, PlainCipher, ValueCipher};
use zeroize::Zeroizing;

use crate::server::seat;

/// The local key, in the folder of a channel: [`MAGIC`] and the key, sealed under the node's storage key.
const FILE: &str = "local.key";
const MAGIC: &[u8; 8] = b"SEAMLKEY";
const KEY_BYTES: usize = 32;
/// Readable by the owner alone.
const SECRET: u32 = 0o600;

type Key = Zeroizing<[u8; KEY_BYTES]>;

/// Why what a node keeps of channels cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A key file cannot be read or written.
    #[error("{path}: {cause}; check its permissions and the disk")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The storage key is not 64 hex digits.
    #[error("{0} is no storage key: it has to hold 64 hex digits; restore it from a backup")]
    StorageKey(PathBuf),
    /// The storage key is gone, and something is sealed under it.
    #[error("the storage key {path} is gone, and {sealed} is sealed under it; restore it from a backup")]
    StorageKeyMissing {
        /// Where it has to be.
        path: PathBuf,
        /// A local key that needs it.
        sealed: PathBuf,
    },
    /// The local key of a channel is gone.
    #[error(
        "{path} is gone, and with it what this node has of {group}; restore it from a backup, or have the node leave the channel and join anew with 'seamark channel nodes'"
    )]
    KeyMissing {
        /// The channel.
        group: GroupId,
        /// Where it has to be.
        path: PathBuf,
    },
    /// The local key of a channel does not open.
    #[error(
        "{path} does not open ({cause}): it was altered, or storage_key in node.toml names another node's key; restore both from one backup"
    )]
    KeyWrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness, so no key is made: {0}")]
    Randomness(String),
}

impl VaultError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "key_file",
            Self::StorageKey(_) => "storage_key",
            Self::StorageKeyMissing { .. } => "storage_key_missing",
            Self::KeyMissing { .. } => "channel_key_missing",
            Self::KeyWrong { .. } => "channel_key_wrong",
            Self::Randomness(_) => "randomness",
        }
    }
}

/// How a replica's values reach the disk, and how those of others are read that send theirs.
#[derive(Clone)]
pub struct LocalSeal {
    cipher: Arc<dyn ValueCipher>,
    secret: SnapshotSecret,
}

impl LocalSeal {
    /// That of groups whose data need no encryption at rest: shards and the beacon.
    #[must_use]
    pub fn open() -> Self {
        Self { cipher: Arc::new(PlainCipher), secret: SnapshotSecret::default() }
    }

    fn under(key: &Key) -> Result<Self, VaultError> {
        // Two ciphers under one key, in this run or another, never meet: each draws its own prefix.
        let cipher = ChaChaCipher::new(key, Box::new(CounterNonces::new(*random::<16>()?)));
        Ok(Self { cipher: Arc::new(cipher), secret: SnapshotSecret(key.to_vec()) })
    }

    /// Seals values and log entries.
    #[must_use]
    pub fn cipher(&self) -> Arc<dyn ValueCipher> {
        Arc::clone(&self.cipher)
    }

    /// What a member needs to read a snapshot of this replica. It goes over connections between members only, and
    /// never onto a disk.
    #[must_use]
    pub fn secret(&self) -> SnapshotSecret {
        self.secret.clone()
    }

    /// What reads the values of a snapshot that came with this secret; `None` where nothing is sealed.
    ///
    /// # Errors
    /// When one of the two replicas seals and the other one does not.
    pub fn of_sender(&self, secret: &SnapshotSecret) -> Result<Option<ChaChaCipher>, &'static str> {
        match (self.secret.0.is_empty(), <&[u8; KEY_BYTES]>::try_from(&secret.0[..])) {
            (true, _) if secret.0.is_empty() => Ok(None),
            // It seals nothing, so its nonces do not matter.
            (false, Ok(key)) => Ok(Some(ChaChaCipher::new(key, Box::new(CounterNonces::new([0; 16]))))),
            _ => Err("it does not come with the key that its group's values are sealed under"),
        }
    }
}

/// The node's storage key.
pub struct Vault {
    cluster: ClusterId,
    node: NodeId,
    cipher: ChaChaCipher,
}

impl Vault {
    /// Reads the storage key, or makes it where nothing is sealed yet below the data folder.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn open(path: &Path, data_dir: &Path, cluster: ClusterId, node: NodeId) -> Result<Self, VaultError> {
        let key = match fs::read_to_string(path).map(Zeroizing::new) {
            Ok(text) => {
                let mut key = Key::default();
                hex::decode_to_slice(text.trim(), key.as_mut_slice())
                    .map_err(|_| VaultError::StorageKey(path.to_owned()))?;
                key
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(sealed) = first_sealed(data_dir) {
                    return Err(VaultError::StorageKeyMissing { path: path.to_owned(), sealed });
                }
                let key = random::<KEY_BYTES>()?;
                let text = Zeroizing::new(format!("{}\n", hex::encode(*key)));
                write_new(path, text.as_bytes()).map_err(|error| file(path, &error))?;
                key
            }
            Err(error) => return Err(file(path, &error)),
        };
        let nonces = CounterNonces::new(*random::<16>()?);
        Ok(Self { cluster, node, cipher: ChaChaCipher::new(&key, Box::new(nonces)) })
    }

    /// How a replica in this folder is sealed. The local key of a channel is made when the node has no seat there yet.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn seal_of(&self, group: GroupId, folder: &Path) -> Result<LocalSeal, VaultError> {
        if group.kind() != Some(GroupKind::Channel) {
            return Ok(LocalSeal::open());
        }
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => LocalSeal::under(&self.opened(group, &path, bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if seat::has_begun(folder) {
                    return Err(VaultError::KeyMissing { group, path });
                }
                let key = random::<KEY_BYTES>()?;
                let sealed = self.cipher.seal(&self.context(group), &*key);
                fs::create_dir_all(folder)
                    .and_then(|()| write_new(&path, &[&MAGIC[..], &sealed].concat()))
                    .map_err(|error| file(&path, &error))?;
                LocalSeal::under(&key)
            }
            Err(error) => Err(file(&path, &error)),
        }
    }

    fn opened(&self, group: GroupId, path: &Path, bytes: Vec<u8>) -> Result<Key, VaultError> {
        let wrong = |cause: &str| VaultError::KeyWrong { path: path.to_owned(), cause: cause.to_owned() };
        if bytes.len() != MAGIC.len() + KEY_BYTES + SEAL_OVERHEAD_BYTES || !bytes.starts_with(MAGIC) {
            return Err(wrong("it is no local key"));
        }
        let sealed = Bytes::from(bytes).slice(MAGIC.len()..);
        let key = self.cipher.open(&self.context(group), sealed).map_err(|damaged| wrong(&damaged.0))?;
        let mut opened = Key::default();
        opened.copy_from_slice(&key);
        Ok(opened)
    }

    /// A key sealed here is that of this channel on this node, and nothing else.
    fn context(&self, group: GroupId) -> Vec<u8> {
        let of = [&self.cluster.0.0[..], &self.node.0.to_be_bytes(), &group.0.to_be_bytes()].concat();
        [&b"seamark local key"[..], &of].concat()
    }
}

/// Destroys the local key in the folder of a channel that is left: without another copy of that file nobody reads what is
/// sealed under it any more, also where blocks of removed files stay. Nothing happens where there is none.
///
/// # Errors
/// When the file cannot be overwritten or removed.
pub fn destroy(folder: &Path) -> io::Result<()> {
    let path = folder.join(FILE);
    let mut key = match OpenOptions::new().write(true).open(&path) {
        Ok(key) => key,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // A file system that writes elsewhere keeps the old block for a while, sealed under the storage key.
    key.write_all(&[0; MAGIC.len() + KEY_BYTES + SEAL_OVERHEAD_BYTES])?;
    key.sync_all()?;
    fs::remove_file(&path)?;
    File::open(folder)?.sync_all()
}

/// A local key somewhere below a data folder.
fn first_sealed(data_dir: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(data_dir).into_iter().flatten().flatten();
    folders.map(|folder| folder.path().join(FILE)).find(|path| path.exists())
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, VaultError> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::rngs::OsRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(|error| VaultError::Randomness(error.to_string()))?;
    Ok(bytes)
}

/// Writes a secret that was not there, in one step: a crash leaves all of it or nothing.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(SECRET).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
}

fn file(path: &Path, error: &io::Error) -> VaultError {
    VaultError::File { path: path.to_owned(), cause: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
mod tests {
    use ledger::Hash32;

    use super::*;

    const GROUP: GroupId = GroupId::channel(3);

    fn open(folder: &Path, node: u32) -> Result<Vault, VaultError> {
        Vault::open(&folder.join("storage.key"), &folder.join("data"), ClusterId(Hash32([7; 32])), NodeId(node))
    }

    /// A node's folder, with a local key for the channel; and the channel's folder.
    fn node() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let group = folder.path().join("data").join(GROUP.to_string());
        open(folder.path(), 1).expect("a vault").seal_of(GROUP, &group).expect("a key");
        (folder, group)
    }

    fn code<T>(result: Result<T, VaultError>) -> &'static str {
        result.err().expect("it is refused").code()
    }

    #[test]
    fn what_is_sealed_is_read_after_a_restart_and_by_who_has_the_secret_only() {
        let (folder, group) = node();
        let seal = open(folder.path(), 1).unwrap().seal_of(GROUP, &group).unwrap();
        let sealed = Bytes::from(seal.cipher().seal(b"k", b"hush").into_owned());
        let later = open(folder.path(), 1).unwrap().seal_of(GROUP, &group).unwrap();
        assert_eq!(later.cipher().open(b"k", sealed.clone()).unwrap(), "hush");
        assert_ne!(later.cipher().seal(b"k", b"hush"), seal.cipher().seal(b"k", b"hush"), "no nonce comes twice");

        let (elsewhere, other_group) = node();
        let other = open(elsewhere.path(), 1).unwrap().seal_of(GROUP, &other_group).unwrap();
        assert!(other.cipher().open(b"k", sealed.clone()).is_err(), "each node has a key of its own");
        let sender = other.of_sender(&seal.secret()).unwrap().expect("it is sealed");
        assert_eq!(sender.open(b"k", sealed).unwrap(), "hush");
        assert_eq!(format!("{:?}", seal.secret()), "SnapshotSecret(hidden)");
    }

    #[test]
    fn shards_and_the_beacon_are_not_sealed() {
        let (folder, _) = node();
        let vault = open(folder.path(), 1).unwrap();
        for group in [GroupId::BEACON, GroupId::shard(0)] {
            let seal = vault.seal_of(group, &folder.path().join("data/none")).unwrap();
            assert_eq!(seal.cipher().seal(b"k", b"v"), &b"v"[..]);
            assert!(seal.of_sender(&SnapshotSecret::default()).unwrap().is_none());
            assert!(seal.of_sender(&SnapshotSecret(vec![1; KEY_BYTES])).is_err());
        }
        assert!(!folder.path().join("data/none").exists());
        let sealed = vault.seal_of(GROUP, &folder.path().join("data").join(GROUP.to_string())).unwrap();
        assert!(sealed.of_sender(&SnapshotSecret::default()).is_err(), "a member's snapshot is sealed");
        assert!(sealed.of_sender(&SnapshotSecret(vec![1; KEY_BYTES - 1])).is_err());
    }

    #[test]
    fn a_key_that_is_gone_or_wrong_is_said_and_never_made_anew() {
        let (folder, group) = node();
        let key = group.join(FILE);
        let bytes = fs::read(&key).unwrap();

        // Another storage key, another node, another channel.
        let storage = folder.path().join("storage.key");
        let text = fs::read(&storage).unwrap();
        fs::write(&storage, format!("{}\n", "ab".repeat(32))).unwrap();
        assert_eq!(code(open(folder.path(), 1).unwrap().seal_of(GROUP, &group)), "channel_key_wrong");
        fs::write(&storage, "short").unwrap();
        assert_eq!(code(open(folder.path(), 1)), "storage_key");
        fs::remove_file(&storage).unwrap();
        assert_eq!(code(open(folder.path(), 1)), "storage_key_missing");
        assert!(!storage.exists());
        fs::write(&storage, text).unwrap();
        assert_eq!(code(open(folder.path(), 2).unwrap().seal_of(GROUP, &group)), "channel_key_wrong");
        assert_eq!(code(open(folder.path(), 1).unwrap().seal_of(GroupId::channel(4), &group)), "channel_key_wrong");

        let vault = open(folder.path(), 1).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            fs::write(&key, altered).unwrap();
            assert_eq!(code(vault.seal_of(GROUP, &group)), "channel_key_wrong", "byte {at}");
        }
        fs::write(&key, &bytes[1..]).unwrap();
        assert_eq!(code(vault.seal_of(GROUP, &group)), "channel_key_wrong");

        fs::remove_file(&key).unwrap();
        fs::create_dir(group.join("state")).unwrap();
        assert_eq!(code(vault.seal_of(GROUP, &group)), "channel_key_missing");
        assert!(!key.exists());
    }

    #[test]
    fn a_destroyed_key_opens_nothing() {
        let (folder, group) = node();
        let copy = group.join("copy");
        fs::hard_link(group.join(FILE), &copy).unwrap();
        destroy(&group).unwrap();
        destroy(&group).unwrap();
        assert!(!group.join(FILE).exists());
        assert!(fs::read(copy).unwrap().iter().all(|byte| *byte == 0), "the bytes themselves are gone");
        assert!(open(folder.path(), 1).is_ok());
    }
}
