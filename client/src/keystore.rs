//! The keystore: secp256k1 keys of accounts, each in a file of its own, encrypted under a passphrase.
//!
//! Owns the folder and what a file says of its key: name, address and public key are in the clear. The frame of a file
//! is that of `keyfile`. It never asks for a passphrase and never prints a key.

use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::auth::Authorisation;
use ledger::{Address, PublicKey, SecretKey};
use zeroize::Zeroizing;

pub use crate::keyfile::KdfCost;
use crate::keyfile::{self, Fault, NONCE_BYTES, Parts, SALT_BYTES};
use crate::{files, secrets};

const FORMAT_VERSION: u8 = 1;
const EXTENSION: &str = "key";
const NAME_BYTES_MAX: usize = 64;
/// Larger files are no keys of ours.
const FILE_BYTES_MAX: u64 = 4096;

/// What everybody may know about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Name in this keystore.
    pub name: String,
    /// Address of the account that starts with this key.
    pub address: Address,
    /// The public key.
    pub public: PublicKey,
    /// The file.
    pub path: PathBuf,
}

/// What is in a keystore.
#[derive(Debug, Default)]
pub struct KeyList {
    /// The keys, by name.
    pub keys: Vec<KeyInfo>,
    /// Key files that cannot be read, each with its path and the reason.
    pub unreadable: Vec<KeystoreError>,
}

/// Why a key cannot be stored or used.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// Not a name.
    #[error("'{0}' is no key name; use 1 to 64 letters, digits, '.', '-' or '_', not starting with '.'")]
    Name(String),
    /// Already there.
    #[error("there is already a key '{0}'; choose another name, or move its file away")]
    Exists(String),
    /// Not there.
    #[error("there is no key '{0}'; see 'seamark key list'")]
    NotFound(String),
    /// The passphrase does not open it.
    #[error("the passphrase for key '{0}' is wrong; try again")]
    WrongPassphrase(String),
    /// The file is not what was written.
    #[error("the key file {path} is damaged: {cause}; restore it from a copy")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// Written by another version.
    #[error("the key file {path} has version {found}, this program knows version 1; use a newer program")]
    UnknownVersion {
        /// The file.
        path: String,
        /// Its version.
        found: u8,
    },
    /// The system refused.
    #[error("{path} cannot be read or written: {cause}; check the path and its permissions")]
    Io {
        /// The file or folder.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// No randomness, or not enough memory.
    #[error("the key cannot be encrypted or decrypted here: {0}")]
    Crypto(String),
}

impl KeystoreError {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "key_name",
            Self::Exists(_) => "key_exists",
            Self::NotFound(_) => "key_not_found",
            Self::WrongPassphrase(_) => "wrong_passphrase",
            Self::Damaged { .. } => "key_damaged",
            Self::UnknownVersion { .. } => "key_version",
            Self::Io { .. } => "key_io",
            Self::Crypto(_) => "key_crypto",
        }
    }
}

/// The public part of a file.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Header {
    name: String,
    address: Address,
    public: PublicKey,
    cost: KdfCost,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
}

struct Sealed {
    header: Header,
    parts: Parts,
}

/// A folder of keys.
#[derive(Clone, Debug)]
pub struct Keystore {
    dir: PathBuf,
    cost: KdfCost,
}

impl Keystore {
    /// The keystore in a folder, which is made when the first key is.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), cost: KdfCost::default() }
    }

    /// With another cost for keys made from now on.
    #[must_use]
    pub fn with_cost(mut self, cost: KdfCost) -> Self {
        self.cost = cost;
        self
    }

    /// Makes a new random key and stores it.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub fn generate(&self, name: &str, passphrase: &str) -> Result<KeyInfo, KeystoreError> {
        loop {
            let secret: Zeroizing<[u8; 32]> = Zeroizing::new(keyfile::random().map_err(|fault| of(&self.dir, fault))?);
            // Practically always a key on the first draw.
            if let Ok(key) = SecretKey::from_bytes(&secret) {
                return self.create(name, &key, passphrase);
            }
        }
    }

    /// Stores a key under a name that is free.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub fn create(&self, name: &str, key: &SecretKey, passphrase: &str) -> Result<KeyInfo, KeystoreError> {
        let path = self.path(name)?;
        std::fs::create_dir_all(&self.dir).map_err(|error| io(&self.dir, &error))?;
        let header = Header {
            name: name.to_owned(),
            address: Authorisation::Single(key.public()).address(),
            public: key.public(),
            cost: self.cost,
            salt: keyfile::random().map_err(|fault| of(&path, fault))?,
            nonce: keyfile::random().map_err(|fault| of(&path, fault))?,
        };
        let secret = Zeroizing::new(key.to_bytes());
        let bytes = keyfile::derive(header.cost, &header.salt, passphrase)
            .and_then(|key| keyfile::seal(FORMAT_VERSION, &header, &key, header.nonce, secret.as_slice()))
            .map_err(|fault| of(&path, fault))?;
        files::create(&path, &bytes, 0o600).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => KeystoreError::Exists(name.to_owned()),
            _ => io(&path, &error),
        })?;
        Ok(info(header, path))
    }

    /// All keys, by name, and the files that cannot be read.
    ///
    /// # Errors
    /// [`KeystoreError`] when the folder itself cannot be read.
    pub fn list(&self) -> Result<KeyList, KeystoreError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(KeyList::default()),
            Err(error) => return Err(io(&self.dir, &error)),
        };
        let mut list = KeyList::default();
        for entry in entries {
            let path = entry.map_err(|error| io(&self.dir, &error))?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|extension| extension == EXTENSION) {
                match open(&path) {
                    Ok(sealed) => list.keys.push(info(sealed.header, path)),
                    Err(error) => list.unreadable.push(error),
                }
            }
        }
        list.keys.sort_by(|a, b| a.name.cmp(&b.name));
        list.unreadable.sort_by_key(ToString::to_string);
        Ok(list)
    }

    /// The public part of one key.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub fn show(&self, name: &str) -> Result<KeyInfo, KeystoreError> {
        let (sealed, path) = self.open_named(name)?;
        Ok(info(sealed.header, path))
    }

    /// The key itself.
    ///
    /// # Errors
    /// [`KeystoreError`]; [`KeystoreError::WrongPassphrase`] when the file is whole but does not open.
    pub fn unlock(&self, name: &str, passphrase: &str) -> Result<SecretKey, KeystoreError> {
        let (sealed, path) = self.open_named(name)?;
        let Sealed { header, parts } = &sealed;
        let key = keyfile::derive(header.cost, &header.salt, passphrase).map_err(|fault| of(&path, fault))?;
        let secret = parts.open(&key, header.nonce).ok_or_else(|| KeystoreError::WrongPassphrase(name.to_owned()))?;
        let bytes: Zeroizing<[u8; 32]> =
            Zeroizing::new(secret.as_slice().try_into().map_err(|_| damaged(&path, "the secret has another length"))?);
        let key = SecretKey::from_bytes(&bytes).map_err(|error| damaged(&path, error))?;
        if key.public() == sealed.header.public {
            Ok(key)
        } else {
            Err(damaged(&path, "the secret does not belong to the public key"))
        }
    }

    fn open_named(&self, name: &str) -> Result<(Sealed, PathBuf), KeystoreError> {
        let path = self.path(name)?;
        if !path.exists() {
            return Err(KeystoreError::NotFound(name.to_owned()));
        }
        let sealed = open(&path)?;
        if sealed.header.name == name {
            Ok((sealed, path))
        } else {
            Err(damaged(&path, format!("it holds the key '{}'", sealed.header.name)))
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, KeystoreError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let good = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.');
        if good { Ok(self.dir.join(format!("{name}.{EXTENSION}"))) } else { Err(KeystoreError::Name(name.to_owned())) }
    }
}

fn info(header: Header, path: PathBuf) -> KeyInfo {
    KeyInfo { name: header.name, address: header.address, public: header.public, path }
}

fn io(path: &Path, error: &std::io::Error) -> KeystoreError {
    KeystoreError::Io { path: path.display().to_string(), cause: error.to_string() }
}

fn damaged(path: &Path, cause: impl ToString) -> KeystoreError {
    KeystoreError::Damaged { path: path.display().to_string(), cause: cause.to_string() }
}

fn of(path: &Path, fault: Fault) -> KeystoreError {
    match fault {
        Fault::Damaged(cause) => damaged(path, cause),
        Fault::Version(secrets::FORMAT_VERSION) => damaged(path, "it holds a key of a process or an organisation"),
        Fault::Version(found) => KeystoreError::UnknownVersion { path: path.display().to_string(), found },
        Fault::Crypto(cause) => KeystoreError::Crypto(cause),
    }
}

fn open(path: &Path) -> Result<Sealed, KeystoreError> {
    let size = std::fs::metadata(path).map_err(|error| io(path, &error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(damaged(path, "it is too large for a key"));
    }
    let bytes = std::fs::read(path).map_err(|error| io(path, &error))?;
    let parts = Parts::of(&bytes, FORMAT_VERSION).map_err(|fault| of(path, fault))?;
    let header: Header = borsh::from_slice(parts.public()).map_err(|error| damaged(path, error))?;
    if !header.cost.bounded() {
        return Err(damaged(path, "its parameters are out of range"));
    }
    Ok(Sealed { header, parts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyfile::{CHECKSUM_BYTES, PREFIX_BYTES};
    use ledger::hash::sha256;
    use std::os::unix::fs::PermissionsExt;

    fn store(dir: &tempfile::TempDir) -> Keystore {
        let cost = KdfCost { memory_kib: 64, passes: 1, lanes: 1 };
        Keystore::new(dir.path().join("keys")).with_cost(cost)
    }

    #[test]
    fn a_key_comes_back_only_with_its_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        assert_eq!(store.list().unwrap().keys, []);
        let made = store.generate("alice", "open sesame").unwrap();
        let key = store.unlock("alice", "open sesame").unwrap();
        assert_eq!(key.public(), made.public);
        assert_eq!(Authorisation::Single(key.public()).address(), made.address);
        assert_eq!(store.unlock("alice", "open").unwrap_err().code(), "wrong_passphrase");
        assert_eq!(store.show("alice").unwrap(), made);
        let mode = std::fs::metadata(&made.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn names_are_checked_and_never_reused() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let made = store.generate("a", "x").unwrap();
        assert_eq!(store.generate("a", "x").unwrap_err().code(), "key_exists");
        assert_eq!(store.show("a").unwrap(), made);
        for name in ["", ".a", "a/b", "../a", "ä", &"n".repeat(65)] {
            assert_eq!(store.generate(name, "x").unwrap_err().code(), "key_name", "{name}");
        }
        assert_eq!(store.unlock("b", "x").unwrap_err().code(), "key_not_found");
        store.generate("B-2", "x").unwrap();
        let names: Vec<_> = store.list().unwrap().keys.into_iter().map(|key| key.name).collect();
        assert_eq!(names, ["B-2", "a"]);
        std::fs::write(made.path.with_file_name("c.key"), "not a key").unwrap();
        let list = store.list().unwrap();
        assert_eq!(list.keys.len(), 2, "the others are there all the same");
        assert_eq!(list.unreadable.iter().map(KeystoreError::code).collect::<Vec<_>>(), ["key_damaged"]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let path = store.generate("k", "x").unwrap().path;
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let code = store.unlock("k", "x").unwrap_err().code();
            assert_eq!(code, if at == 8 { "key_version" } else { "key_damaged" }, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(store.unlock("k", "x").unwrap_err().code(), "key_damaged", "cut at {at}");
        }
    }

    #[test]
    fn the_public_part_is_bound_to_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let path = store.generate("k", "x").unwrap().path;
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        bytes[PREFIX_BYTES + 4 + 1] ^= 1; // first byte of the address, behind the name
        let checksum = sha256(&bytes).0;
        bytes.extend_from_slice(&checksum);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(store.unlock("k", "x").unwrap_err().code(), "wrong_passphrase");
    }
}
