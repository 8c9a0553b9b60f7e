//! The encryption hook: how a value is turned into the bytes that reach the disk, and back.
//!
//! Owns: the trait, the identity, a checksum-only variant and XChaCha20-Poly1305.
//! Never does: make keys or randomness. Keys live in the host's keystore; nonces come from a
//! [`NonceSource`] the host supplies. Applied by the state database to its values and by the log
//! engine to votes and entries; keys of pairs stay in the clear because the databases order by them.

#[cfg(feature = "rocksdb")]
mod fast;
#[cfg(any(test, not(feature = "rocksdb")))]
mod reference;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
#[cfg(feature = "rocksdb")]
use fast::Aead24;
#[cfg(not(feature = "rocksdb"))]
use reference::Aead24;

use crate::frame;

/// Stored bytes that are not what was sealed; the holder of the file adds its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub String);

/// Seals values before they are stored and opens them after they are read.
pub trait ValueCipher: Send + Sync {
    /// What is stored for `plain` under `key_context`. Borrows when nothing changes.
    fn seal<'a>(&self, key_context: &[u8], plain: &'a [u8]) -> Cow<'a, [u8]>;

    /// The value that was sealed under the same `key_context`. Shares the buffer where it can.
    fn open(&self, key_context: &[u8], sealed: Bytes) -> Result<Bytes, Damaged>;
}

/// Stores values as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainCipher;

impl ValueCipher for PlainCipher {
    fn seal<'a>(&self, _: &[u8], plain: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Borrowed(plain)
    }

    fn open(&self, _: &[u8], sealed: Bytes) -> Result<Bytes, Damaged> {
        Ok(sealed)
    }
}

/// No secrecy, but a checksum bound to the key; for databases that do not check their own reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameCipher;

impl ValueCipher for FrameCipher {
    fn seal<'a>(&self, key_context: &[u8], plain: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Owned(frame::seal(key_context, plain))
    }

    fn open(&self, key_context: &[u8], sealed: Bytes) -> Result<Bytes, Damaged> {
        frame::open(key_context, sealed)
    }
}

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Bytes that [`ChaChaCipher`] adds to a value: version, nonce, tag.
pub const SEAL_OVERHEAD_BYTES: usize = 1 + NONCE_BYTES + TAG_BYTES;
const SEAL_VERSION: u8 = 1;

/// Where nonces come from. Must never give the same one twice under one key.
pub trait NonceSource: Send + Sync {
    /// The next nonce.
    fn next_nonce(&self) -> [u8; NONCE_BYTES];
}

/// Nonces that count: a prefix that is unique per start of the process, then a counter.
///
/// The host draws the prefix (128 random bits) when it unlocks the key, so two runs under one key
/// do not meet; a test or simulator passes a constant and stays deterministic.
#[derive(Debug)]
pub struct CounterNonces {
    prefix: [u8; 16],
    next: AtomicU64,
}

impl CounterNonces {
    /// Counts from zero under `prefix`.
    pub fn new(prefix: [u8; 16]) -> Self {
        Self { prefix, next: AtomicU64::new(0) }
    }
}

impl NonceSource for CounterNonces {
    fn next_nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..16].copy_from_slice(&self.prefix);
        nonce[16..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        nonce
    }
}

/// XChaCha20-Poly1305: `version(1) ‖ nonce(24) ‖ ciphertext ‖ tag(16)`, with the key context as
/// associated data, so a sealed value cannot be moved under another key.
pub struct ChaChaCipher {
    aead: Aead24,
    nonces: Box<dyn NonceSource>,
}

impl ChaChaCipher {
    /// A cipher under a 256-bit key.
    pub fn new(key: &[u8; 32], nonces: Box<dyn NonceSource>) -> Self {
        Self { aead: Aead24::new(key), nonces }
    }
}

impl std::fmt::Debug for ChaChaCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChaChaCipher(key hidden)")
    }
}

impl ValueCipher for ChaChaCipher {
    fn seal<'a>(&self, key_context: &[u8], plain: &'a [u8]) -> Cow<'a, [u8]> {
        let nonce = self.nonces.next_nonce();
        let mut sealed = Vec::with_capacity(SEAL_OVERHEAD_BYTES + plain.len());
        sealed.push(SEAL_VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self.aead.seal(&nonce, key_context, &mut sealed[1 + NONCE_BYTES..]);
        sealed.extend_from_slice(&tag);
        Cow::Owned(sealed)
    }

    fn open(&self, key_context: &[u8], sealed: Bytes) -> Result<Bytes, Damaged> {
        let body = sealed
            .get(1 + NONCE_BYTES..)
            .filter(|body| body.len() >= TAG_BYTES)
            .ok_or_else(|| Damaged(format!("a sealed value of {} bytes is shorter than its envelope", sealed.len())))?;
        if sealed[0] != SEAL_VERSION {
            return Err(Damaged(format!("seal version {} is unknown (expected {SEAL_VERSION})", sealed[0])));
        }
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&sealed[1..=NONCE_BYTES]);
        let opened = self.aead.open(&nonce, key_context, body).map(Bytes::from);
        opened.ok_or_else(|| {
            Damaged("a sealed value does not authenticate: it was altered, or the key is another one".into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(key: u8) -> ChaChaCipher {
        ChaChaCipher::new(&[key; 32], Box::new(CounterNonces::new([9; 16])))
    }

    #[test]
    fn chacha_round_trip_hides_the_value_and_never_repeats() {
        let cipher = cipher(1);
        let (one, two) = (cipher.seal(b"k", b"secret value"), cipher.seal(b"k", b"secret value"));
        assert_ne!(one, two, "a fresh nonce each time");
        assert_eq!(one.len(), SEAL_OVERHEAD_BYTES + 12);
        assert!(!one.windows(6).any(|w| w == b"secret"));
        assert_eq!(cipher.open(b"k", Bytes::from(one.into_owned())).expect("intact"), "secret value");
        let empty = cipher.seal(b"k", b"").into_owned();
        assert_eq!(cipher.open(b"k", Bytes::from(empty)).expect("intact"), "");
    }

    #[test]
    fn any_tampering_is_refused() {
        let sealed = cipher(1).seal(b"k", b"v").into_owned();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 0x80;
            assert!(cipher(1).open(b"k", Bytes::from(bad)).is_err(), "byte {at}");
            assert!(cipher(1).open(b"k", Bytes::copy_from_slice(&sealed[..at])).is_err(), "cut {at}");
        }
        assert!(cipher(1).open(b"other", Bytes::from(sealed.clone())).is_err());
        assert!(cipher(2).open(b"k", Bytes::from(sealed)).is_err());
    }

    #[test]
    fn the_plain_cipher_copies_nothing() {
        let value = Bytes::from_static(b"value");
        assert!(matches!(PlainCipher.seal(b"k", &value), Cow::Borrowed(_)));
        assert_eq!(PlainCipher.open(b"k", value.clone()).expect("plain").as_ptr(), value.as_ptr());
    }
}
