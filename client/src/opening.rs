//! Sealing what founders agree on, so that those whom the founding names read it and the beacon does not.
//!
//! Owns how a [`SealedOpening`] is made and opened; what an opening is, and what becomes of it, is for [`channel::opening`].
//! Never sends anything: what is sealed goes into a founding (`beacon::BeaconCommand::ProposeSealedChannel`), what is opened
//! is shown to people before they approve, and given to the channel once it runs.
//!
//! It is ECIES over secp256k1, the curve of the keys that there are: the body under a random key, and that key for each
//! organisation under `sha256` of what a key made for this one opening and the organisation's admin key have in common.
//! The cipher is XChaCha20-Poly1305 with a nonce of zeros throughout, since no key is used twice. The cipher does not bind
//! a ciphertext to one key, the hash that the founding carries does: whatever a copy opens to, it counts only if it is what
//! that is the hash of.

use std::collections::BTreeMap;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use channel::limits::OPENING_PAD_BYTES;
use channel::opening::{PROMISE_VERSION, SealedOpening};
use channel::{Opening, Promise};
use ledger::hash::tagged;
use ledger::{ClusterId, Hash32, OrgId, PublicKey, SecretKey};
use zeroize::Zeroizing;

use crate::keyfile;

/// Bytes of the length before what is padded.
const LENGTH_BYTES: usize = 4;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Why an opening was not sealed, or not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// No randomness.
    #[error("an opening cannot be sealed: {0}; check this machine's source of randomness")]
    Randomness(String),
    /// The registry has no usable key.
    #[error("nothing can be sealed for organisation {0}, whose admin key is no key; let it replace the key")]
    Key(OrgId),
    /// There is no copy, or another key than that of the admin opens it.
    #[error(
        "what the founding promises is not sealed for this key of organisation {0}; use the admin key that the registry had when \
         it was proposed, or have it withdrawn and proposed again"
    )]
    Sealed(OrgId),
    /// What was sealed is not what was promised.
    #[error(
        "what is sealed in the founding is not what it promises; reject it: who proposed it has told you something else than what counts"
    )]
    Wrong,
}

impl OpeningError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Randomness(_) => "randomness",
            Self::Key(_) => "opening_key",
            Self::Sealed(_) => "opening_sealed",
            Self::Wrong => "channel_opening_wrong",
        }
    }
}

/// A promise of this opening, sealed for the admins of these organisations, for a founding that this proposer proposes.
///
/// # Errors
/// [`OpeningError::Key`], [`OpeningError::Randomness`].
pub fn seal(
    cluster: &ClusterId,
    proposer: OrgId,
    opening: &Opening,
    readers: &BTreeMap<OrgId, PublicKey>,
) -> Result<Promise, OpeningError> {
    let secret = random()?;
    let sender = SecretKey::from_bytes(&secret).map_err(|error| OpeningError::Randomness(error.to_string()))?;
    let (hash, body_key) = (opening.hash(), random()?);
    let bound = bound_to(cluster, proposer, &hash);
    let body = encrypt(&body_key, &bound, &padded(opening))?;
    let mut keys = Vec::with_capacity(readers.len());
    for (org, reader) in readers {
        let key = key_for(&sender, reader, &sender.public(), reader, *org).ok_or(OpeningError::Key(*org))?;
        let sealed = encrypt(&key, &bound, &body_key[..])?;
        let sealed: [u8; 48] =
            sealed.try_into().map_err(|_| OpeningError::Randomness("a key of another length".to_owned()))?;
        keys.push((*org, sealed));
    }
    Ok(Promise { version: PROMISE_VERSION, hash, sealed: SealedOpening { sender: sender.public(), keys, body } })
}

/// The opening that a founding of this proposer promises, by the admin key of an organisation that it names.
///
/// # Errors
/// [`OpeningError::Sealed`] when this key opens nothing, [`OpeningError::Wrong`] when it opens something else than was
/// promised.
pub fn open(
    cluster: &ClusterId,
    proposer: OrgId,
    promise: &Promise,
    org: OrgId,
    admin: &SecretKey,
) -> Result<Opening, OpeningError> {
    let sealed = &promise.sealed;
    let bound = bound_to(cluster, proposer, &promise.hash);
    let own = sealed.keys.iter().find(|(known, _)| *known == org).ok_or(OpeningError::Sealed(org))?;
    let key = key_for(admin, &sealed.sender, &sealed.sender, &admin.public(), org).ok_or(OpeningError::Sealed(org))?;
    let body_key = decrypt(&key, &bound, &own.1).ok_or(OpeningError::Sealed(org))?;
    let body_key: [u8; KEY_BYTES] = body_key[..].try_into().map_err(|_| OpeningError::Wrong)?;
    let body = decrypt(&Zeroizing::new(body_key), &bound, &sealed.body).ok_or(OpeningError::Wrong)?;
    let opening = unpadded(&body).ok_or(OpeningError::Wrong)?;
    if opening.hash() == promise.hash { Ok(opening) } else { Err(OpeningError::Wrong) }
}

/// Random bytes for a secret.
fn random() -> Result<Zeroizing<[u8; KEY_BYTES]>, OpeningError> {
    keyfile::random().map(Zeroizing::new).map_err(|fault| OpeningError::Randomness(format!("{fault:?}")))
}

/// What every ciphertext is bound to, so that none can be moved to the founding of somebody who cannot read it: those who can
/// would approve it, and give a channel in which the mover sits what was never said to the mover.
fn bound_to(cluster: &ClusterId, proposer: OrgId, hash: &Hash32) -> Hash32 {
    tagged(b"seamark/channel-opening-bound/v1", &[&cluster.0.0, &proposer.0.to_be_bytes(), &hash.0])
}

/// The key that the sender and a reader share: `sha256("seamark/channel-opening-key/v1" ‖ sender ‖ reader ‖ org ‖ shared)`.
/// `None` where the other's key is no point of the curve.
fn key_for(
    own: &SecretKey,
    other: &PublicKey,
    sender: &PublicKey,
    reader: &PublicKey,
    org: OrgId,
) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let shared = Zeroizing::new(own.agree(other).ok()?);
    let parts: [&[u8]; 4] = [&sender.0, &reader.0, &org.0.to_be_bytes(), &shared[..]];
    Some(Zeroizing::new(tagged(b"seamark/channel-opening-key/v1", &parts).0))
}

/// The length, the opening, and zeros: what is sealed does not tell by its size which policies it has.
fn padded(opening: &Opening) -> Zeroizing<Vec<u8>> {
    let bytes = borsh::to_vec(opening).expect("writing to memory does not fail");
    let length = u32::try_from(bytes.len()).expect("an opening is far below 4 GiB");
    let mut padded = Zeroizing::new(length.to_le_bytes().to_vec());
    padded.extend_from_slice(&bytes);
    let whole = padded.len().next_multiple_of(OPENING_PAD_BYTES);
    padded.resize(whole, 0);
    padded
}

fn unpadded(padded: &[u8]) -> Option<Opening> {
    let (length, rest) = padded.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    borsh::from_slice(rest.get(..length)?).ok()
}

fn cipher(key: &Zeroizing<[u8; KEY_BYTES]>) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new_from_slice(key.as_slice()).expect("the key has the length of the cipher's")
}

fn encrypt(key: &Zeroizing<[u8; KEY_BYTES]>, bound: &Hash32, clear: &[u8]) -> Result<Vec<u8>, OpeningError> {
    let payload = Payload { msg: clear, aad: &bound.0 };
    let sealed = cipher(key).encrypt(&XNonce::from([0; NONCE_BYTES]), payload);
    sealed.map_err(|error| OpeningError::Randomness(error.to_string()))
}

fn decrypt(key: &Zeroizing<[u8; KEY_BYTES]>, bound: &Hash32, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let payload = Payload { msg: sealed, aad: &bound.0 };
    cipher(key).decrypt(&XNonce::from([0; NONCE_BYTES]), payload).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use channel::opening::first_policies;
    use channel::{Policy, Quorum, Role, Subject};

    const CLUSTER: ClusterId = ClusterId(Hash32([1; 32]));
    const PROPOSER: OrgId = OrgId(1);

    fn admin(org: u16) -> SecretKey {
        SecretKey::derive(b"admin", &org.to_be_bytes())
    }

    fn readers(orgs: &[u16]) -> BTreeMap<OrgId, PublicKey> {
        orgs.iter().map(|org| (OrgId(*org), admin(*org).public())).collect()
    }

    fn opening() -> Opening {
        let policy = Policy::members(Quorum::Majority, Role::Admin);
        Opening::new([7; 32], Subject::ALL.map(|subject| (subject, policy.clone())).to_vec())
    }

    #[test]
    fn those_whom_it_is_sealed_for_open_it_and_nobody_else_does() {
        let promise = seal(&CLUSTER, PROPOSER, &opening(), &readers(&[1, 2, 3])).unwrap();
        assert!(promise.check(&[1, 2, 3].map(OrgId).into()).is_ok(), "the beacon takes it");
        for org in 1..=3 {
            assert_eq!(open(&CLUSTER, PROPOSER, &promise, OrgId(org), &admin(org)), Ok(opening()));
        }
        for (org, key) in [(4, 4), (4, 1), (1, 2), (2, 1)] {
            let opened = open(&CLUSTER, PROPOSER, &promise, OrgId(org), &admin(key));
            assert_eq!(opened, Err(OpeningError::Sealed(OrgId(org))), "organisation {org} with the key of {key}");
        }
        let elsewhere = open(&ClusterId(Hash32([2; 32])), PROPOSER, &promise, OrgId(1), &admin(1));
        assert_eq!(elsewhere, Err(OpeningError::Sealed(OrgId(1))));
    }

    #[test]
    fn what_is_not_what_was_promised_is_told() {
        let whole = seal(&CLUSTER, PROPOSER, &opening(), &readers(&[1, 2])).unwrap();
        let mut body = whole.clone();
        body.sealed.body[20] ^= 1;
        assert_eq!(open(&CLUSTER, PROPOSER, &body, OrgId(1), &admin(1)), Err(OpeningError::Wrong));
        let mut key = whole.clone();
        key.sealed.keys[0].1[3] ^= 1;
        assert_eq!(open(&CLUSTER, PROPOSER, &key, OrgId(1), &admin(1)), Err(OpeningError::Sealed(OrgId(1))));
        assert_eq!(open(&CLUSTER, PROPOSER, &key, OrgId(2), &admin(2)), Ok(opening()), "the other copy is as it was");
        // The hash of one opening with copies of another one: they are bound to the other's hash.
        let other = seal(&CLUSTER, PROPOSER, &Opening::new([8; 32], first_policies()), &readers(&[1, 2])).unwrap();
        let mixed = Promise { hash: whole.hash, ..other };
        assert_eq!(open(&CLUSTER, PROPOSER, &mixed, OrgId(1), &admin(1)), Err(OpeningError::Sealed(OrgId(1))));
        // A liar seals another opening under the hash of the first one.
        let mut lie = whole.clone();
        let (sender, body_key) = (SecretKey::derive(b"sender", b""), Zeroizing::new([9; 32]));
        let bound = bound_to(&CLUSTER, PROPOSER, &whole.hash);
        let key = key_for(&sender, &admin(1).public(), &sender.public(), &admin(1).public(), OrgId(1)).unwrap();
        lie.sealed.sender = sender.public();
        lie.sealed.keys[0].1 = encrypt(&key, &bound, &body_key[..]).unwrap().try_into().unwrap();
        lie.sealed.body = encrypt(&body_key, &bound, &padded(&Opening::new([8; 32], first_policies()))).unwrap();
        assert_eq!(open(&CLUSTER, PROPOSER, &lie, OrgId(1), &admin(1)), Err(OpeningError::Wrong));
    }

    /// Whoever hosts the beacon has copies that it cannot open, and could propose a founding that promises the same.
    #[test]
    fn a_copy_opens_in_no_founding_of_somebody_else() {
        let promise = seal(&CLUSTER, PROPOSER, &opening(), &readers(&[1, 2])).unwrap();
        let mut moved = promise.clone();
        moved.sealed.keys.push((OrgId(3), [0; 48]));
        assert!(moved.check(&[1, 2, 3].map(OrgId).into()).is_ok(), "the beacon cannot tell");
        assert_eq!(open(&CLUSTER, PROPOSER, &moved, OrgId(2), &admin(2)), Ok(opening()));
        for org in [1, 2] {
            let opened = open(&CLUSTER, OrgId(3), &moved, OrgId(org), &admin(org));
            assert_eq!(opened, Err(OpeningError::Sealed(OrgId(org))));
        }
    }

    #[test]
    fn the_size_tells_nothing_of_short_policies() {
        let one = seal(&CLUSTER, PROPOSER, &opening(), &readers(&[1])).unwrap();
        let policy = Policy::one(OrgId(1), Role::Admin);
        let other = Opening::new([7; 32], Subject::ALL.map(|subject| (subject, policy.clone())).to_vec());
        assert_ne!(borsh::object_length(&other).unwrap(), borsh::object_length(&opening()).unwrap());
        let other = seal(&CLUSTER, PROPOSER, &other, &readers(&[1])).unwrap();
        assert_eq!(one.sealed.body.len(), other.sealed.body.len());
        assert_eq!(one.sealed.body.len(), OPENING_PAD_BYTES + 16);
    }

    #[test]
    fn what_is_no_key_is_named() {
        let mut readers = readers(&[1, 2]);
        readers.insert(OrgId(2), PublicKey([5; 33]));
        assert_eq!(seal(&CLUSTER, PROPOSER, &opening(), &readers), Err(OpeningError::Key(OrgId(2))));
    }
}
