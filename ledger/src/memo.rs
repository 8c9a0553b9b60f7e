//! A memory of signatures, for threads that meet the same ones again and again: a simulation checks each
//! certificate for every replica, and each seed twice.
//!
//! Both functions it stands before depend on nothing but their arguments (signing is deterministic, RFC
//! 6979), so what is remembered is what would be computed; that a signature made here holds is remembered with it. It is
//! off unless a thread asks for it with [`remembering`], or several for one between them with [`remembering_in`]; no node
//! does.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::crypto::{CryptoError, PublicKey, Signature};
use crate::hash::Hash32;

/// Signatures and verdicts that are remembered, each; full, it starts anew.
const REMEMBERED_MAX: usize = 1 << 18;

type Verdicts = HashMap<(PublicKey, Hash32, Signature), Result<(), CryptoError>>;

#[derive(Default)]
struct Memo {
    verdicts: Verdicts,
    signatures: HashMap<(PublicKey, Hash32), Signature>,
}

/// What was signed and checked. Clones share it.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Memo>>);

impl Memory {
    /// A thread that panicked with the lock has left whole entries behind.
    fn memo(&self) -> MutexGuard<'_, Memo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

/// Does `work` with a memory of the signatures that this thread has made and checked meanwhile.
pub fn remembering<T>(work: impl FnOnce() -> T) -> T {
    remembering_in(&Memory::default(), work)
}

/// As [`remembering`], in a memory that other threads may have, too.
pub fn remembering_in<T>(memory: &Memory, work: impl FnOnce() -> T) -> T {
    let before = MEMORY.replace(Some(memory.clone()));
    let done = work();
    MEMORY.set(before);
    done
}

/// What a check says, or said before.
pub(crate) fn verdict(
    key: impl FnOnce() -> (PublicKey, Hash32, Signature),
    check: impl FnOnce() -> Result<(), CryptoError>,
) -> Result<(), CryptoError> {
    recalled(|memo| &mut memo.verdicts, key, check, |_, _, _| ())
}

/// A signature, or the one made before.
pub(crate) fn signature(key: impl FnOnce() -> (PublicKey, Hash32), sign: impl FnOnce() -> Signature) -> Signature {
    let holds = |memo: &mut Memo, (public, digest): &(PublicKey, Hash32), signature: &Signature| {
        keep(&mut memo.verdicts, (*public, *digest, *signature), Ok(()));
    };
    recalled(|memo| &mut memo.signatures, key, sign, holds)
}

/// What is remembered, or else computed; `follows` may remember what that says beside. Nothing is computed while others wait for
/// the memory.
fn recalled<K: std::hash::Hash + Eq, V: Clone>(
    map: impl Fn(&mut Memo) -> &mut HashMap<K, V>,
    key: impl FnOnce() -> K,
    compute: impl FnOnce() -> V,
    follows: impl FnOnce(&mut Memo, &K, &V),
) -> V {
    let Some(memory) = MEMORY.with_borrow(Clone::clone) else { return compute() };
    let key = key();
    let known = {
        let mut guard = memory.memo();
        let memo: &mut Memo = &mut guard;
        map(memo).get(&key).cloned()
    };
    if let Some(known) = known {
        return known;
    }
    let value = compute();
    let mut guard = memory.memo();
    let memo: &mut Memo = &mut guard;
    follows(memo, &key, &value);
    keep(map(memo), key, value.clone());
    value
}

fn keep<K: std::hash::Hash + Eq, V>(known: &mut HashMap<K, V>, key: K, value: V) {
    if known.len() >= REMEMBERED_MAX {
        known.clear();
    }
    known.insert(key, value);
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
            assert_eq!(
                MEMORY.with_borrow(|memory| memory.as_ref().map(|memory| memory.memo().verdicts.len())),
                Some(3)
            );
        });
        assert!(MEMORY.with_borrow(Option::is_none), "and forgotten");
    }

    #[test]
    fn threads_share_a_memory_and_what_one_signed_the_others_know_to_hold() {
        let (key, digest, memory) = (SecretKey::derive(b"memo", b"1"), sha256(b"message"), Memory::default());
        let sizes = |memory: &Memory| {
            let memo = memory.memo();
            (memo.signatures.len(), memo.verdicts.len())
        };
        let signature = remembering_in(&memory, || key.sign(&digest));
        assert_eq!(signature, key.sign(&digest));
        assert_eq!(sizes(&memory), (1, 1), "it was signed, and holds");
        std::thread::scope(|scope| {
            let other = scope.spawn(|| remembering_in(&memory, || verify(&key.public(), &digest, &signature)));
            assert_eq!(other.join().expect("no panic"), Ok(()));
        });
        assert_eq!(sizes(&memory), (1, 1), "nothing was computed again");
        let mut broken = signature;
        broken.0[40] ^= 1;
        assert_eq!(remembering_in(&memory, || verify(&key.public(), &digest, &broken)), Err(CryptoError::Signature));
        assert_eq!(sizes(&memory), (1, 2), "another signature is checked");
    }
}
