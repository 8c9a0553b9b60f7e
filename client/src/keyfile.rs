//! The file of a secret under a passphrase: its frame, its cipher and what a try costs, whatever the secret is.
//!
//! [`crate::keystore`] keeps keys of accounts in such files, [`crate::secrets`] those of processes and organisations.
//! Each has a version of its own, which says what the public part is. Never reads or writes a file, and never asks for
//! a passphrase.
//!
//! A file is `magic ‖ version ‖ length ‖ public part ‖ ciphertext ‖ sha256 of all before`. The public part (parameters,
//! and what may be known of the secret) is in the clear and bound to the ciphertext as associated data. The checksum
//! carries no security: it tells a damaged file from a wrong passphrase, which the cipher alone cannot.

use argon2::{Algorithm, Argon2, Params, Version};
use borsh::{BorshDeserialize, BorshSerialize};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use ledger::hash::sha256;
use rand::TryRngCore;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"SEAMKEYS";
const VERSION_AT: usize = 8;
pub(crate) const CHECKSUM_BYTES: usize = 32;
/// Bytes before the public part: magic, version, its length.
pub(crate) const PREFIX_BYTES: usize = 8 + 1 + 2;
pub(crate) const SALT_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;

/// What a passphrase becomes. Wiped when dropped; the schedules that the cipher makes of it are not.
pub(crate) type Key = Zeroizing<[u8; KEY_BYTES]>;

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
    /// For a passphrase of 256 random bits. Expense makes up for a passphrase that can be guessed. This one cannot,
    /// and a node that restarts, or a hundred clusters of a test run, should not pay for it.
    pub const OF_RANDOM: Self = Self { memory_kib: 64, passes: 1, lanes: 1 };

    /// Whether a file may ask for it: a forged file must not be able to take all memory.
    pub(crate) fn bounded(&self) -> bool {
        (8..=1024 * 1024).contains(&self.memory_kib)
            && (1..=64).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
    }
}

/// What is wrong with the bytes of a file, or with this machine.
#[derive(Debug)]
pub(crate) enum Fault {
    /// They are not what was written.
    Damaged(String),
    /// They are of another version.
    Version(u8),
    /// No randomness, or not enough memory.
    Crypto(String),
}

/// A file, taken apart.
pub(crate) struct Parts {
    /// Everything before the ciphertext: the associated data.
    clear: Vec<u8>,
    ciphertext: Vec<u8>,
}

impl Parts {
    /// Takes a file of this version apart.
    pub(crate) fn of(bytes: &[u8], version: u8) -> Result<Self, Fault> {
        let damaged = |cause: &str| Fault::Damaged(cause.to_owned());
        if bytes.len() < PREFIX_BYTES + CHECKSUM_BYTES || !is_sealed(bytes) {
            return Err(damaged("it does not start as a key file does"));
        }
        if bytes[VERSION_AT] != version {
            return Err(Fault::Version(bytes[VERSION_AT]));
        }
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if sha256(content).0 != checksum {
            return Err(damaged("its checksum does not match"));
        }
        let length = usize::from(u16::from_le_bytes([content[9], content[10]]));
        if content.len() < PREFIX_BYTES + length {
            return Err(damaged("it is truncated"));
        }
        let (clear, ciphertext) = content.split_at(PREFIX_BYTES + length);
        Ok(Self { clear: clear.to_vec(), ciphertext: ciphertext.to_vec() })
    }

    /// The public part.
    pub(crate) fn public(&self) -> &[u8] {
        &self.clear[PREFIX_BYTES..]
    }

    /// The secret; `None` when it does not open with this key.
    pub(crate) fn open(&self, key: &Key, nonce: [u8; NONCE_BYTES]) -> Option<Zeroizing<Vec<u8>>> {
        let payload = Payload { msg: &self.ciphertext, aad: &self.clear };
        cipher(key).decrypt(&XNonce::from(nonce), payload).ok().map(Zeroizing::new)
    }
}

/// Whether bytes begin as a sealed file does, of whatever version.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The bytes of a file.
pub(crate) fn seal(
    version: u8,
    public: &impl BorshSerialize,
    key: &Key,
    nonce: [u8; NONCE_BYTES],
    secret: &[u8],
) -> Result<Vec<u8>, Fault> {
    let public = borsh::to_vec(public).expect("writing to memory does not fail");
    let length = u16::try_from(public.len()).expect("names are bounded, and the rest is fixed");
    let mut bytes = MAGIC.to_vec();
    bytes.push(version);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&public);
    let payload = Payload { msg: secret, aad: &bytes };
    let sealed = cipher(key).encrypt(&XNonce::from(nonce), payload);
    let ciphertext = sealed.map_err(|error| Fault::Crypto(error.to_string()))?;
    bytes.extend_from_slice(&ciphertext);
    bytes.extend_from_slice(&sha256(&bytes).0);
    Ok(bytes)
}

/// What a passphrase becomes under a salt.
pub(crate) fn derive(cost: KdfCost, salt: &[u8; SALT_BYTES], passphrase: &str) -> Result<Key, Fault> {
    let crypto = |error: argon2::Error| Fault::Crypto(error.to_string());
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_BYTES)).map_err(crypto)?;
    let mut key = Key::default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
        .map_err(crypto)?;
    Ok(key)
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new_from_slice(key.as_slice()).expect("the key has the length of the cipher's")
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|error| Fault::Crypto(format!("no randomness: {error}")))?;
    Ok(bytes)
}
