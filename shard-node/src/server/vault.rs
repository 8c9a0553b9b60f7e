//! The keys under which a node seals what it keeps of channels: state, log entries and snapshots.
//!
//! Owns two kinds of secret files. The storage key belongs to the node, lies outside its data folder (`storage_key`
//! in node.toml) and seals nothing but the second kind: a local key for each channel, in the channel's folder, made
//! when the node takes its seat there and destroyed when it leaves. No other node is ever given it: a member's node that is
//! sent a snapshot is sent a copy under a key of its own, and that key with it. It reads the copy, seals it anew under its own
//! local key, and forgets the other one; kept, that opens this copy and nothing else. The storage key itself lies under the
//! passphrase of the node's other keys, where it has one ([`client::secrets`]).
//! Never does: seal shards or the beacon, which all members of the cluster may read; or replace a key that is gone,
//! since what it sealed is gone with it.

mod rotation;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use client::secrets::{Keyring, SecretError, SecretKind};
use consensus::port::SnapshotSecret;
use ledger::ids::{ClusterId, GroupId, GroupKind, NodeId};
use rand::TryRngCore;
use storage::cipher::SEAL_OVERHEAD_BYTES;
use storage::{ChaChaCipher, CounterNonces, PlainCipher, ValueCipher};
use zeroize::{Zeroize, Zeroizing};

use crate::server::seat;

pub use rotation::rotate;

/// The local key, in the folder of a channel: [`MAGIC`] and the key, sealed under the node's storage key; while that is
/// being replaced, under both.
const FILE: &str = "local.key";
const MAGIC: &[u8; 8] = b"SEAMLKEY";
const KEY_BYTES: usize = 32;
const COPY_BYTES: usize = KEY_BYTES + SEAL_OVERHEAD_BYTES;
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
    /// The storage key cannot be read.
    #[error(transparent)]
    StorageKey(#[from] SecretError),
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
            Self::StorageKey(error) => error.code(),
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
    seals: bool,
}

impl LocalSeal {
    /// That of groups whose data need no encryption at rest: shards and the beacon.
    #[must_use]
    pub fn open() -> Self {
        Self { cipher: Arc::new(PlainCipher), seals: false }
    }

    fn under(key: &Key) -> Result<Self, VaultError> {
        // Two ciphers under one key, in this run or another, never meet: each draws its own prefix.
        let cipher = ChaChaCipher::new(key, Box::new(CounterNonces::new(*random::<16>()?)));
        Ok(Self { cipher: Arc::new(cipher), seals: true })
    }

    /// Seals values and log entries.
    #[must_use]
    pub fn cipher(&self) -> Arc<dyn ValueCipher> {
        Arc::clone(&self.cipher)
    }

    /// What seals a copy of a snapshot that is to be sent, and what a member needs to read that copy, which goes over
    /// connections between members only, and never onto a disk. Both are new; `None` where nothing is sealed.
    ///
    /// # Errors
    /// [`VaultError::Randomness`].
    pub fn for_one_copy(&self) -> Result<Option<(Arc<dyn ValueCipher>, SnapshotSecret)>, VaultError> {
        if !self.seals {
            return Ok(None);
        }
        let key = random::<KEY_BYTES>()?;
        Ok(Some((Self::under(&key)?.cipher, SnapshotSecret(key.to_vec()))))
    }

    /// What reads the values of a snapshot that came with this secret; `None` where nothing is sealed.
    ///
    /// # Errors
    /// When one of the two replicas seals and the other one does not.
    pub fn of_sender(&self, secret: &SnapshotSecret) -> Result<Option<ChaChaCipher>, &'static str> {
        match (self.seals, <&[u8; KEY_BYTES]>::try_from(&secret.0[..])) {
            (false, _) if secret.0.is_empty() => Ok(None),
            // It seals nothing, so its nonces do not matter.
            (true, Ok(key)) => Ok(Some(ChaChaCipher::new(key, Box::new(CounterNonces::new([0; 16]))))),
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
    pub fn open(
        path: &Path,
        data_dir: &Path,
        cluster: ClusterId,
        node: NodeId,
        keyring: &mut Keyring,
    ) -> Result<Self, VaultError> {
        let key = if path.try_exists().map_err(|error| file(path, &error))? {
            keyring.key(path, SecretKind::Storage)?
        } else {
            if let Some(sealed) = first_sealed(data_dir) {
                return Err(VaultError::StorageKeyMissing { path: path.to_owned(), sealed });
            }
            let key = random::<KEY_BYTES>()?;
            write_storage_key(path, &key, keyring)?;
            key
        };
        Self::under(&key, cluster, node)
    }

    fn under(key: &Key, cluster: ClusterId, node: NodeId) -> Result<Self, VaultError> {
        let nonces = CounterNonces::new(*random::<16>()?);
        Ok(Self { cluster, node, cipher: ChaChaCipher::new(key, Box::new(nonces)) })
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
            Ok(bytes) => {
                let copies = bytes.len() > MAGIC.len() + COPY_BYTES;
                let key = self.opened(group, &path, bytes)?;
                if copies {
                    // The storage key was being replaced, and that did not come to its end. Whichever one it is now, the
                    // other copy is of no use.
                    write(&path, &self.sealed(group, &key)).map_err(|error| file(&path, &error))?;
                }
                LocalSeal::under(&key)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if seat::has_begun(folder) {
                    return Err(VaultError::KeyMissing { group, path });
                }
                let key = random::<KEY_BYTES>()?;
                fs::create_dir_all(folder)
                    .and_then(|()| write(&path, &self.sealed(group, &key)))
                    .map_err(|error| file(&path, &error))?;
                LocalSeal::under(&key)
            }
            Err(error) => Err(file(&path, &error)),
        }
    }

    /// The bytes of the file of a local key.
    fn sealed(&self, group: GroupId, key: &Key) -> Vec<u8> {
        [&MAGIC[..], &self.cipher.seal(&self.context(group), &**key)].concat()
    }

    /// The local key in the bytes of its file, by whichever copy opens.
    fn opened(&self, group: GroupId, path: &Path, bytes: Vec<u8>) -> Result<Key, VaultError> {
        let wrong = |cause: &str| VaultError::KeyWrong { path: path.to_owned(), cause: cause.to_owned() };
        let copies = bytes.len().saturating_sub(MAGIC.len()) / COPY_BYTES;
        if bytes.len() != MAGIC.len() + copies * COPY_BYTES || !(1..=2).contains(&copies) || !bytes.starts_with(MAGIC) {
            return Err(wrong("it is no local key"));
        }
        let bytes = Bytes::from(bytes);
        let mut refused = String::new();
        for at in (MAGIC.len()..bytes.len()).step_by(COPY_BYTES) {
            match self.cipher.open(&self.context(group), bytes.slice(at..at + COPY_BYTES)) {
                Ok(plain) => {
                    let mut key = Key::default();
                    key.copy_from_slice(&plain);
                    if let Ok(mut plain) = plain.try_into_mut() {
                        plain.zeroize();
                    }
                    return Ok(key);
                }
                Err(damaged) => refused = damaged.0,
            }
        }
        Err(wrong(&refused))
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
    key.write_all(&[0; MAGIC.len() + 2 * COPY_BYTES])?;
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

/// Writes the storage key, sealed where the node has a passphrase. Its other keys lie in the clear where it has none, so
/// this one is no worse there.
fn write_storage_key(path: &Path, key: &Key, keyring: &mut Keyring) -> Result<(), VaultError> {
    let has_passphrase = keyring.passphrase(path)?.is_some();
    let bytes = if has_passphrase {
        Zeroizing::new(keyring.seal(path, SecretKind::Storage, key.as_slice())?)
    } else {
        tracing::warn!(file = %path.display(), "the storage key is written in the clear; seal it with 'seamark key seal'");
        Zeroizing::new(format!("{}\n", hex::encode(key.as_slice())).into_bytes())
    };
    write(path, &bytes).map_err(|error| file(path, &error))
}

/// Writes a secret in one step: a crash leaves what was there before, or all of it.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
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
mod tests;
