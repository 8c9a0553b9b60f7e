//! Who may spend from an account: one key, or k of n keys.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{self, PublicKey, Signature};
use crate::hash::{Hash32, tagged};
use crate::ids::Address;
use crate::limits::AUTH_KEYS_MAX;

/// The rule that an account's spends must satisfy.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Authorisation {
    /// One key.
    Single(PublicKey),
    /// At least `threshold` of `keys`; keys strictly ascending, so that each has one encoding.
    Multi {
        /// Signatures needed, from 1 to the number of keys.
        threshold: u8,
        /// At most [`AUTH_KEYS_MAX`], strictly ascending.
        keys: Vec<PublicKey>,
    },
}

impl Authorisation {
    /// The address of an account that starts with this authorisation.
    #[must_use]
    pub fn address(&self) -> Address {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        let hash = tagged(b"seamark/addr/v1", &[&bytes]);
        let mut address = [0; 20];
        address.copy_from_slice(&hash.0[..20]);
        Address(address)
    }

    /// Whether the form is canonical and within limits.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        match self {
            Self::Single(_) => true,
            Self::Multi { threshold, keys } => {
                let n = keys.len();
                (1..=AUTH_KEYS_MAX).contains(&n)
                    && (1..=n).contains(&usize::from(*threshold))
                    && keys.windows(2).all(|pair| pair[0] < pair[1])
            }
        }
    }

    /// The key at `index`, if there is one.
    #[must_use]
    pub fn key(&self, index: u8) -> Option<&PublicKey> {
        match self {
            Self::Single(key) => (index == 0).then_some(key),
            Self::Multi { keys, .. } => keys.get(usize::from(index)),
        }
    }

    /// How many signatures satisfy it.
    #[must_use]
    pub fn threshold(&self) -> usize {
        match self {
            Self::Single(_) => 1,
            Self::Multi { threshold, .. } => usize::from(*threshold),
        }
    }
}

/// An authorisation revealed, with the signatures that satisfy it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Witness {
    /// The rule, as the account holds it or, at the first spend, as its address commits to it.
    pub auth: Authorisation,
    /// Key index and signature over the txid; indices strictly ascending, exactly `threshold` many.
    pub signatures: Vec<(u8, Signature)>,
}

impl Witness {
    /// Whether the witness is canonical: form, order and count, without looking at the curve.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        self.auth.well_formed()
            && self.signatures.len() == self.auth.threshold()
            && self.signatures.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self.signatures.iter().all(|(index, _)| self.auth.key(*index).is_some())
    }

    /// Verifies every signature over `digest`. The count is bounded by the authorisation.
    #[must_use]
    pub fn verifies(&self, digest: &Hash32) -> bool {
        self.well_formed()
            && self.signatures.iter().all(|(index, signature)| {
                self.auth.key(*index).is_some_and(|key| crypto::verify(key, digest, signature).is_ok())
            })
    }
}
