//! XChaCha20-Poly1305 over ring's ChaCha20-Poly1305, several times as fast as the reference where that is not compiled for
//! one processor.
//!
//! XChaCha20 is ChaCha20 under a subkey that HChaCha20 makes of the key and the first 16 bytes of the nonce, with the other
//! 8 behind four zeros as its nonce (draft-irtf-cfrg-xchacha, section 2.3). Nonces here count behind a prefix that is drawn
//! once ([`super::CounterNonces`]), so there are few subkeys, and they are kept.

use std::collections::HashMap;
use std::sync::Arc;

use chacha20::{R20, hchacha};
use parking_lot::RwLock;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{NONCE_BYTES, TAG_BYTES};

const PREFIX_BYTES: usize = 16;
/// Subkeys that are kept at a time: one for each opening of a group whose values are still there.
const SUBKEYS_MAX: usize = 1_024;

/// A cipher under one key.
pub(super) struct Aead24 {
    key: [u8; 32],
    subkeys: RwLock<HashMap<[u8; PREFIX_BYTES], Arc<LessSafeKey>>>,
}

impl Aead24 {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { key: *key, subkeys: RwLock::default() }
    }

    /// The subkey for a nonce, and what is left of the nonce.
    fn under(&self, nonce: &[u8; NONCE_BYTES]) -> (Arc<LessSafeKey>, Nonce) {
        let (mut prefix, mut rest) = ([0; PREFIX_BYTES], [0; 12]);
        prefix.copy_from_slice(&nonce[..PREFIX_BYTES]);
        rest[4..].copy_from_slice(&nonce[PREFIX_BYTES..]);
        let rest = Nonce::assume_unique_for_key(rest);
        if let Some(known) = self.subkeys.read().get(&prefix) {
            return (Arc::clone(known), rest);
        }
        let subkey = hchacha::<R20>(&self.key.into(), &prefix.into());
        let subkey = UnboundKey::new(&CHACHA20_POLY1305, &subkey).expect("a subkey has the length of a key");
        let subkey = Arc::new(LessSafeKey::new(subkey));
        let mut subkeys = self.subkeys.write();
        if subkeys.len() >= SUBKEYS_MAX {
            subkeys.clear();
        }
        subkeys.insert(prefix, Arc::clone(&subkey));
        (subkey, rest)
    }

    /// Encrypts in place.
    pub(super) fn seal(&self, nonce: &[u8; NONCE_BYTES], context: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let (key, nonce) = self.under(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(context), body);
        let tag = tag.expect("a value is far below the 256 GiB that this cipher takes");
        tag.as_ref().try_into().expect("a tag has 16 bytes")
    }

    /// Decrypts a ciphertext and its tag; `None` when they do not authenticate.
    pub(super) fn open(&self, nonce: &[u8; NONCE_BYTES], context: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let (key, nonce) = self.under(nonce);
        let mut opened = body.to_vec();
        key.open_in_place(nonce, Aad::from(context), &mut opened).ok()?;
        opened.truncate(body.len() - TAG_BYTES);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reference;
    use super::*;

    proptest! {
        /// What one seals the other one opens, byte for byte the same; and neither opens what was altered.
        #[test]
        fn it_is_the_reference(
            key: [u8; 32],
            prefix: [u8; 16],
            counter: [u8; 8],
            context in proptest::collection::vec(any::<u8>(), 0..80),
            plain in proptest::collection::vec(any::<u8>(), 0..700),
            flip: (usize, u8),
        ) {
            let (fast, slow) = (Aead24::new(&key), reference::Aead24::new(&key));
            let nonce: [u8; NONCE_BYTES] = [&prefix[..], &counter].concat().try_into().expect("24 bytes");
            let (mut one, mut two) = (plain.clone(), plain.clone());
            let tag = fast.seal(&nonce, &context, &mut one);
            prop_assert_eq!(tag, slow.seal(&nonce, &context, &mut two));
            prop_assert_eq!(&one, &two);
            let mut sealed = [&one[..], &tag].concat();
            prop_assert_eq!(fast.open(&nonce, &context, &sealed), Some(plain.clone()));
            prop_assert_eq!(slow.open(&nonce, &context, &sealed), Some(plain));
            let at = flip.0 % sealed.len();
            sealed[at] ^= flip.1.max(1);
            prop_assert_eq!(fast.open(&nonce, &context, &sealed), None);
            prop_assert_eq!(slow.open(&nonce, &context, &sealed), None);
        }
    }

    #[test]
    fn subkeys_are_bounded_and_made_again() {
        let cipher = Aead24::new(&[1; 32]);
        let nonce = |at: u64| -> [u8; NONCE_BYTES] {
            let mut nonce = [0; NONCE_BYTES];
            nonce[..8].copy_from_slice(&at.to_be_bytes());
            nonce
        };
        let mut first = *b"hush";
        let tag = cipher.seal(&nonce(0), b"k", &mut first);
        for at in 1..=SUBKEYS_MAX as u64 {
            cipher.seal(&nonce(at), b"k", &mut []);
        }
        assert!(cipher.subkeys.read().len() <= SUBKEYS_MAX);
        assert_eq!(cipher.open(&nonce(0), b"k", &[&first[..], &tag].concat()).as_deref(), Some(&b"hush"[..]));
    }
}
