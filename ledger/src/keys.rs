//! The keys that a node signs with: one, and more while the first is being replaced.
//!
//! Owns which of them is taken: the one that is asked for by its public half, as a committee names it. So what is signed
//! is a function of the committee; what a node holds only decides whether it can sign at all. The host brings a key
//! before any committee names it, and drops one when none does any more. Pure: reads no file.

use std::sync::{Arc, PoisonError, RwLock};

use crate::crypto::{PublicKey, SecretKey};

/// The signing keys that a node holds. A copy is a handle to the same keys, so that every part of a node has a key as soon
/// as its host has.
#[derive(Clone, Debug, Default)]
pub struct NodeKeys(Arc<RwLock<Vec<(PublicKey, SecretKey)>>>);

impl NodeKeys {
    /// Holds none, and so signs nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The secret half of a key, if it is held.
    #[must_use]
    pub fn of(&self, key: &PublicKey) -> Option<SecretKey> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        held.iter().find(|(public, _)| public == key).map(|(_, secret)| secret.clone())
    }

    /// Whether a key is held.
    #[must_use]
    pub fn holds(&self, key: &PublicKey) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().any(|(public, _)| public == key)
    }

    /// The public halves, the oldest first.
    #[must_use]
    pub fn public(&self) -> Vec<PublicKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().map(|(public, _)| *public).collect()
    }

    /// Takes one more key. One that is held changes nothing.
    pub fn add(&self, key: SecretKey) {
        let public = key.public();
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.iter().all(|(known, _)| *known != public) {
            held.push((public, key));
        }
    }

    /// Takes one more key, which is older than these of those that are held. One that is held changes nothing.
    pub fn add_before(&self, key: SecretKey, later: &[PublicKey]) {
        let public = key.public();
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.iter().all(|(known, _)| *known != public) {
            let at = held.iter().position(|(known, _)| later.contains(known)).unwrap_or(held.len());
            held.insert(at, (public, key));
        }
    }

    /// Drops these keys.
    pub fn let_go(&self, keys: &[PublicKey]) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|(public, _)| !keys.contains(public));
    }

    /// Drops every key but this one. Nothing is dropped if it is not held.
    pub fn keep(&self, key: &PublicKey) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.iter().any(|(public, _)| public == key) {
            held.retain(|(public, _)| public == key);
        }
    }
}

impl From<SecretKey> for NodeKeys {
    fn from(key: SecretKey) -> Self {
        let keys = Self::default();
        keys.add(key);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_late_has_its_place_before_those_that_follow_it() {
        let [first, second, third, fourth] = [b"1", b"2", b"3", b"4"].map(|number| SecretKey::derive(b"node", number));
        let keys = NodeKeys::from(first.clone());
        keys.add_before(fourth.clone(), &[]);
        keys.add_before(second.clone(), &[third.public(), fourth.public()]);
        keys.add_before(third.clone(), &[fourth.public()]);
        let all = [&first, &second, &third, &fourth].map(SecretKey::public);
        assert_eq!(keys.public(), all);
        keys.add_before(fourth, &[first.public()]);
        assert_eq!(keys.public(), all, "one that is held stays where it is");
    }

    #[test]
    fn a_key_is_found_by_its_public_half_until_it_is_dropped() {
        let (first, second) = (SecretKey::derive(b"node", b"1"), SecretKey::derive(b"node", b"2"));
        let keys = NodeKeys::from(first.clone());
        let handle = keys.clone();
        assert!(keys.of(&second.public()).is_none());
        keys.add(second.clone());
        keys.add(second.clone());
        assert_eq!(handle.public(), [first.public(), second.public()]);
        let digest = crate::hash::sha256(b"a header");
        let signed = handle.of(&second.public()).map(|key| key.sign(&digest));
        assert_eq!(signed, Some(second.sign(&digest)));
        let third = SecretKey::derive(b"node", b"3");
        keys.add(third.clone());
        keys.let_go(&[third.public(), SecretKey::derive(b"node", b"4").public()]);
        assert_eq!(handle.public(), [first.public(), second.public()], "what is not held is not missed");
        keys.keep(&third.public());
        assert_eq!(handle.public().len(), 2, "a key that is not held drops none");
        keys.keep(&second.public());
        assert_eq!((handle.public(), handle.holds(&first.public())), (vec![second.public()], false));
        assert_eq!(NodeKeys::none().public(), []);
    }
}
