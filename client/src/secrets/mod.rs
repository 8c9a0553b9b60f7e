//! Private keys of processes and organisations: each in a file of its own, sealed under a passphrase.
//!
//! Owns what such a file says of its key, and the rule by which a passphrase is found when nobody can be asked
//! ([`Passphrase::find`]). Keys of accounts are those of [`crate::keystore`], in files of the same frame. A file in the
//! clear, as builds before this one wrote it and as other programs need it, is read all the same, with a warning.
//! Never prints a key. What is handed out is wiped when it is dropped; what a TLS library makes of it is not ours to wipe.

mod error;
mod passphrase;
mod place;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::SecretKey;
use zeroize::Zeroizing;

use crate::files;
use crate::keyfile::{self, Fault, KdfCost, Key, NONCE_BYTES, Parts, SALT_BYTES};

pub use error::SecretError;
pub use passphrase::{CREDENTIAL, PASSPHRASE_FILE, PASSPHRASE_VARIABLE, Passphrase, is_random};
pub use place::{Holds, Sealing, holds, seal_in_place};

/// Version of the files; that of accounts' keys is 1.
pub(crate) const FORMAT_VERSION: u8 = 2;
const ACCOUNTS_VERSION: u8 = 1;
/// Larger files are no keys of ours.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const KEY_BYTES: usize = 32;
/// Readable by the owner alone.
const MODE: u32 = 0o600;

/// What a key is for. A sealed file says it, so that none is taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SecretKind {
    /// Signs headers of a node, or commands of an organisation: 32 bytes, in the clear 64 hex digits.
    Signing,
    /// Seals the local keys of a node's channels: 32 bytes, in the clear 64 hex digits.
    Storage,
    /// The key of a certificate, in PEM.
    Tls,
}

impl SecretKind {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Signing => "a signing key",
            Self::Storage => "a storage key",
            Self::Tls => "the key of a certificate",
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Signing => "a signing key, sealed or as 64 hex digits,",
            Self::Storage => "a storage key, sealed or as 64 hex digits,",
            Self::Tls => "the key of a certificate, sealed or in PEM,",
        }
    }
}

/// The public part of a file.
#[derive(BorshSerialize, BorshDeserialize)]
struct Header {
    kind: SecretKind,
    cost: KdfCost,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
}

/// What a passphrase has become under one salt.
struct Derived {
    cost: KdfCost,
    salt: [u8; SALT_BYTES],
    key: Key,
}

/// Opens and seals the keys of one owner under one passphrase.
///
/// What it seals has the salt of what it opened or sealed before, and only a nonce of its own, so that keys that were made
/// together cost one derivation: at the start of a node, all of them.
pub struct Keyring {
    named: Option<PathBuf>,
    /// Whether a passphrase is looked for when the first sealed file is met.
    looks: bool,
    passphrase: Option<Passphrase>,
    derived: Vec<Derived>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({:?})", self.passphrase)
    }
}

impl Keyring {
    /// Finds its passphrase by the rule of [`Passphrase::find`] once it needs one, in the file that is named or, if
    /// none is, from the first key on.
    #[must_use]
    pub fn finding(named: Option<PathBuf>) -> Self {
        Self { named, looks: true, passphrase: None, derived: Vec::new() }
    }

    /// Has this passphrase.
    #[must_use]
    pub fn holding(passphrase: Passphrase) -> Self {
        Self { named: None, looks: false, passphrase: Some(passphrase), derived: Vec::new() }
    }

    /// Has none, and looks for none: it reads what is in the clear.
    #[must_use]
    pub fn empty() -> Self {
        Self { named: None, looks: false, passphrase: None, derived: Vec::new() }
    }

    /// The passphrase, which is looked for beside this key if none is named.
    ///
    /// # Errors
    /// As [`Passphrase::find`].
    pub fn passphrase(&mut self, key: &Path) -> Result<Option<&Passphrase>, SecretError> {
        if self.passphrase.is_none() && self.looks {
            self.passphrase = Passphrase::find(self.named.as_deref(), key)?;
        }
        Ok(self.passphrase.as_ref())
    }

    /// Reads the 32 bytes of a key.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn key(&mut self, path: &Path, kind: SecretKind) -> Result<Zeroizing<[u8; 32]>, SecretError> {
        let secret = self.open(path, kind)?;
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        if secret.len() != KEY_BYTES {
            return Err(form(path, format!("{} bytes", secret.len()), kind));
        }
        key.copy_from_slice(&secret);
        Ok(key)
    }

    /// Reads a key that signs.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn signing_key(&mut self, path: &Path) -> Result<SecretKey, SecretError> {
        let bytes = self.key(path, SecretKind::Signing)?;
        SecretKey::from_bytes(&bytes).map_err(|error| form(path, error.to_string(), SecretKind::Signing))
    }

    /// Reads the key of a certificate, in PEM.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn pem(&mut self, path: &Path) -> Result<Zeroizing<String>, SecretError> {
        let secret = self.open(path, SecretKind::Tls)?;
        match std::str::from_utf8(&secret) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(form(path, "no text".to_owned(), SecretKind::Tls)),
        }
    }

    /// Reads a key, sealed or in the clear.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn open(&mut self, path: &Path, kind: SecretKind) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let bytes = read(path)?;
        if keyfile::is_sealed(&bytes) {
            return self.unsealed(path, kind, &bytes);
        }
        let secret = plain(path, kind, &bytes)?;
        tracing::warn!(
            file = %path.display(),
            "{} lies in the clear, and whoever reads this file has it; seal it with 'seamark key seal'",
            kind.name()
        );
        Ok(secret)
    }

    fn unsealed(&mut self, path: &Path, kind: SecretKind, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let (header, parts) = taken_apart(path, kind, bytes)?;
        if header.kind != kind {
            return Err(form(path, header.kind.name().to_owned(), kind));
        }
        let opened = parts.open(self.derived(path, header.cost, header.salt)?, header.nonce);
        opened.ok_or_else(|| SecretError::WrongPassphrase {
            path: path.display().to_string(),
            source_of: self.passphrase.as_ref().map(|given| given.source().to_owned()).unwrap_or_default(),
        })
    }

    /// What the passphrase becomes under a salt, which is worked out once.
    fn derived(&mut self, path: &Path, cost: KdfCost, salt: [u8; SALT_BYTES]) -> Result<&Key, SecretError> {
        let known = self.derived.iter().position(|known| known.cost == cost && known.salt == salt);
        let at = match known {
            Some(at) => at,
            None => {
                let missing = || SecretError::NoPassphrase { path: path.display().to_string() };
                let passphrase = self.passphrase(path)?.ok_or_else(missing)?;
                let key = keyfile::derive(cost, &salt, passphrase.text()).map_err(|fault| of(path, fault))?;
                self.derived.push(Derived { cost, salt, key });
                self.derived.len() - 1
            }
        };
        Ok(&self.derived[at].key)
    }

    /// The bytes of a file that holds a key. `path` is where it will lie.
    ///
    /// # Errors
    /// [`SecretError`]; [`SecretError::NoPassphrase`] when there is none.
    pub fn seal(&mut self, path: &Path, kind: SecretKind, secret: &[u8]) -> Result<Vec<u8>, SecretError> {
        let missing = || SecretError::NoPassphrase { path: path.display().to_string() };
        let cost = self.passphrase(path)?.ok_or_else(missing)?.cost();
        let salt = match self.derived.iter().find(|known| known.cost == cost) {
            Some(known) => known.salt,
            None => keyfile::random().map_err(|fault| of(path, fault))?,
        };
        let nonce = keyfile::random().map_err(|fault| of(path, fault))?;
        let header = Header { kind, cost, salt, nonce };
        let key = self.derived(path, cost, salt)?;
        keyfile::seal(FORMAT_VERSION, &header, key, nonce, secret).map_err(|fault| of(path, fault))
    }

    /// Writes a file that holds a key, sealed, in the place of one that is there.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn write(&mut self, path: &Path, kind: SecretKind, secret: &[u8]) -> Result<(), SecretError> {
        let bytes = self.seal(path, kind, secret)?;
        files::replace(path, &bytes, MODE).map_err(|error| SecretError::io(path, &error))
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let size = std::fs::metadata(path).map_err(|error| SecretError::io(path, &error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(SecretError::damaged(path, "it is too large for a key"));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(|error| SecretError::io(path, &error))
}

/// A sealed file. `kind` is what it is read for, for messages.
fn taken_apart(path: &Path, kind: SecretKind, bytes: &[u8]) -> Result<(Header, Parts), SecretError> {
    let parts = match Parts::of(bytes, FORMAT_VERSION) {
        Err(Fault::Version(ACCOUNTS_VERSION)) => return Err(form(path, "the key of an account".to_owned(), kind)),
        parts => parts.map_err(|fault| of(path, fault))?,
    };
    let header: Header = borsh::from_slice(parts.public()).map_err(|error| SecretError::damaged(path, error))?;
    if header.cost.bounded() {
        Ok((header, parts))
    } else {
        Err(SecretError::damaged(path, "its parameters are out of range"))
    }
}

/// A key in the clear.
fn plain(path: &Path, kind: SecretKind, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let text = std::str::from_utf8(bytes).map_err(|_| form(path, "no text".to_owned(), kind))?;
    match kind {
        SecretKind::Tls => Ok(Zeroizing::new(bytes.to_vec())),
        SecretKind::Signing | SecretKind::Storage => {
            let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
            hex::decode_to_slice(text.trim(), key.as_mut_slice())
                .map_err(|_| form(path, "no 64 hex digits".to_owned(), kind))?;
            Ok(key)
        }
    }
}

fn form(path: &Path, found: String, kind: SecretKind) -> SecretError {
    SecretError::Form { path: path.display().to_string(), found, wanted: kind.wanted() }
}

fn of(path: &Path, fault: Fault) -> SecretError {
    match fault {
        Fault::Damaged(cause) => SecretError::damaged(path, cause),
        Fault::Version(found) => SecretError::UnknownVersion { path: path.display().to_string(), found },
        Fault::Crypto(cause) => SecretError::Crypto(cause),
    }
}
