//! A memory of signatures, for threads that meet the same ones again and again: a simulation checks each
//! certificate for every replica, and each seed twice.
//!
//! Both functions it stands before depend on nothing but their arguments (signing is deterministic, RFC
//! 6979), so what is remembered is what would be computed. It is off unless a thread asks for it with
//! [`remembering`]; no node does.

use std::cell::RefCell;

use hashbrown::HashMap;

use crate::crypto::{CryptoError, PublicKey, Signature};
use crate::hash::Hash32;

/// Signatures and verdicts that one thread remembers, each; full, it starts anew.
const REMEMBERED_MAX: usize = 1 << 18;

type Verdicts = HashMap<(PublicKey, Hash32, Signature), Result<(), CryptoError>>;

#[derive(Default)]
struct Memo {
    verdicts: Verdicts,
    signatures: HashMap<(PublicKey, Hash32), Signature>,
}

thread_local! {
    static MEMO: RefCell<Option<Memo>> = const { RefCell::new(None) };
}

/// Does `work` with a memory of the signatures that this thread has made and checked meanwhile.
pub fn remembering<T>(work: impl FnOnce() -> T) -> T {
    let before = MEMO.with_borrow_mut(|memo| memo.replace(Memo::default()));
    let done = work();
    MEMO.with_borrow_mut(|memo| *memo = before);
    done
}

/// What a check says, or said before.
pub(crate) fn verdict(
    key: impl FnOnce() -> (PublicKey, Hash32, Signature),
    check: impl FnOnce() -> Result<(), CryptoError>,
) -> Result<(), CryptoError> {
    recalled(|memo| &mut memo.verdicts, key, check)
}

/// A signature, or the one made before.
pub(crate) fn signature(key: impl FnOnce() -> (PublicKey, Hash32), sign: impl FnOnce() -> Signature) -> Signature {
    recalled(|memo| &mut memo.signatures, key, sign)
}

fn recalled<K: std::hash::Hash + Eq, V: Clone>(
    map: impl Fn(&mut Memo) -> &mut HashMap<K, V>,
    key: impl FnOnce() -> K,
    compute: impl FnOnce() -> V,
) -> V {
    MEMO.with_borrow_mut(|memo| match memo.as_mut().map(map) {
        None => compute(),
        Some(known) => {
            if known.len() >= REMEMBERED_MAX {
                known.clear();
            }
            known.entry(key()).or_insert_with(compute).clone()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{SecretKey, verify};
    use crate::hash::sha256;

    #[test]
    fn what_is_remembered_is_what_is_computed() {
        let (key, other) = (SecretKey::derive(b"memo", b"1"), SecretKey::derive(b"memo", b"2"));
        let digest = sha256(b"message");
        let plain = (key.sign(&digest), verify(&other.public(), &digest, &key.sign(&digest)));
        remembering(|| {
            for _ in 0..2 {
                let signature = key.sign(&digest);
                assert_eq!((signature, verify(&other.public(), &digest, &signature)), plain);
                assert_eq!(verify(&key.public(), &digest, &signature), Ok(()));
                assert_eq!(verify(&key.public(), &sha256(b"another"), &signature), Err(CryptoError::Signature));
            }
            assert_eq!(MEMO.with_borrow(|memo| memo.as_ref().map(|memo| memo.verdicts.len())), Some(3));
        });
        assert!(MEMO.with_borrow(Option::is_none), "and forgotten");
    }
}
