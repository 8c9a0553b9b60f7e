//! The keystore: secp256k1 keys, each in a file of its own, encrypted under a passphrase.
//!
//! Owns the file format and the folder. It never asks for a passphrase and never prints a key.
//!
//! A file is `magic ‖ version ‖ length ‖ public part ‖ ciphertext ‖ sha256 of all before`. The
//! public part (name, address, public key, parameters) is in the clear and bound to the ciphertext
//! as associated data. The checksum carries no security: it tells a damaged file from a wrong
//! passphrase, which the cipher alone cannot.

use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use borsh::{BorshDeserialize, BorshSerialize};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use ledger::auth::Authorisation;
use ledger::hash::sha256;
use ledger::{Address, PublicKey, SecretKey};
use rand::TryRngCore;
use zeroize::Zeroizing;

use crate::files;

const MAGIC: &[u8; 8] = b"SEAMKEYS";
const FORMAT_VERSION: u8 = 1;
const EXTENSION: &str = "key";
const NAME_BYTES_MAX: usize = 64;
/// Larger files are no keys of ours.
const FILE_BYTES_MAX: u64 = 4096;
const CHECKSUM_BYTES: usize = 32;
/// Bytes before the public part: magic, version, its length.
const PREFIX_BYTES: usize = 8 + 1 + 2;

/// How expensive it is to try a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KdfCost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfCost {
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 }
    }
}

impl KdfCost {
    /// Whether a file may ask for it: a forged file must not be able to take all memory.
    fn bounded(&self) -> bool {
        (8..=1024 * 1024).contains(&self.memory_kib)
            && (1..=64).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
    }
}

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
    salt: [u8; 16],
    nonce: [u8; 24],
}

struct Sealed {
    header: Header,
    /// Everything before the ciphertext: the associated data.
    clear: Vec<u8>,
    ciphertext: Vec<u8>,
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
            let secret: Zeroizing<[u8; 32]> = Zeroizing::new(random()?);
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
            salt: random()?,
            nonce: random()?,
        };
        let bytes = seal(&header, key, passphrase)?;
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
        let cipher = cipher(&sealed.header, passphrase)?;
        let payload = Payload { msg: &sealed.ciphertext, aad: &sealed.clear };
        let secret = cipher
            .decrypt(&XNonce::from(sealed.header.nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| KeystoreError::WrongPassphrase(name.to_owned()))?;
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

fn random<const N: usize>() -> Result<[u8; N], KeystoreError> {
    let mut bytes = [0; N];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| KeystoreError::Crypto(format!("no randomness: {error}")))?;
    Ok(bytes)
}

fn cipher(header: &Header, passphrase: &str) -> Result<XChaCha20Poly1305, KeystoreError> {
    let crypto = |error: argon2::Error| KeystoreError::Crypto(error.to_string());
    let cost = header.cost;
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(crypto)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &header.salt, key.as_mut_slice())
        .map_err(crypto)?;
    XChaCha20Poly1305::new_from_slice(key.as_slice()).map_err(|error| KeystoreError::Crypto(error.to_string()))
}

fn seal(header: &Header, key: &SecretKey, passphrase: &str) -> Result<Vec<u8>, KeystoreError> {
    let public = borsh::to_vec(header).expect("writing to memory does not fail");
    let length = u16::try_from(public.len()).expect("a name has at most 64 bytes, and the rest is fixed");
    let mut bytes = MAGIC.to_vec();
    bytes.push(FORMAT_VERSION);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&public);
    let secret = Zeroizing::new(key.to_bytes());
    let payload = Payload { msg: secret.as_slice(), aad: &bytes };
    let ciphertext = cipher(header, passphrase)?
        .encrypt(&XNonce::from(header.nonce), payload)
        .map_err(|error| KeystoreError::Crypto(error.to_string()))?;
    bytes.extend_from_slice(&ciphertext);
    bytes.extend_from_slice(&sha256(&bytes).0);
    Ok(bytes)
}

fn open(path: &Path) -> Result<Sealed, KeystoreError> {
    let size = std::fs::metadata(path).map_err(|error| io(path, &error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(damaged(path, "it is too large for a key"));
    }
    let bytes = std::fs::read(path).map_err(|error| io(path, &error))?;
    if bytes.len() < PREFIX_BYTES + CHECKSUM_BYTES || !bytes.starts_with(MAGIC) {
        return Err(damaged(path, "it does not start as a key file does"));
    }
    if bytes[8] != FORMAT_VERSION {
        return Err(KeystoreError::UnknownVersion { path: path.display().to_string(), found: bytes[8] });
    }
    let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    if sha256(content).0 != checksum {
        return Err(damaged(path, "its checksum does not match"));
    }
    let length = usize::from(u16::from_le_bytes([content[9], content[10]]));
    let public = content.get(PREFIX_BYTES..PREFIX_BYTES + length).ok_or_else(|| damaged(path, "it is truncated"))?;
    let header: Header = borsh::from_slice(public).map_err(|error| damaged(path, error))?;
    if !header.cost.bounded() {
        return Err(damaged(path, "its parameters are out of range"));
    }
    let (clear, ciphertext) = content.split_at(PREFIX_BYTES + length);
    Ok(Sealed { header, clear: clear.to_vec(), ciphertext: ciphertext.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
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
