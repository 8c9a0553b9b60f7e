//! XChaCha20-Poly1305 by RustCrypto: the reference, and what builds without RocksDB use, since it brings no source of
//! randomness with it.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305, XNonce};

use super::{NONCE_BYTES, TAG_BYTES};

/// A cipher under one key.
pub(super) struct Aead24(XChaCha20Poly1305);

impl Aead24 {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(&(*key).into()))
    }

    /// Encrypts in place.
    pub(super) fn seal(&self, nonce: &[u8; NONCE_BYTES], context: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let sealed = self.0.encrypt_inout_detached(&XNonce::from(*nonce), context, body.into());
        sealed.expect("a value is far below the 256 GiB that this cipher takes").into()
    }

    /// Decrypts a ciphertext and its tag; `None` when they do not authenticate.
    pub(super) fn open(&self, nonce: &[u8; NONCE_BYTES], context: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(&XNonce::from(*nonce), Payload { msg: body, aad: context }).ok()
    }
}
