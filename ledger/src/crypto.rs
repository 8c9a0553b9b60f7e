//! secp256k1 keys, signatures, and the one function that verifies.
//!
//! Signatures have RFC 6979 nonces and low S. Signing and verification are libsecp256k1 by default (it
//! measured faster at both, see docs/adr/0008), k256 without the feature `libsecp256k1`; tests hold both to the
//! same vectors and to each other, signatures to the last bit.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
// Provides the lock that guards k256's precomputed tables.
use critical_section as _;
use k256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use k256::elliptic_curve::point::AffineCoordinates;

use crate::hash::Hash32;
use crate::memo;

/// A compressed SEC1 point: 33 bytes. Whether it lies on the curve is checked by [`verify`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PublicKey(pub [u8; 33]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(d)?;
        let mut key = [0; 33];
        hex::decode_to_slice(&text, &mut key).map_err(serde::de::Error::custom)?;
        Ok(Self(key))
    }
}

/// `r ‖ s`, 64 bytes, S in the lower half of the order (BIP-146); a high S is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A signing key. Zeroised on drop by k256; never printed.
#[derive(Clone)]
pub struct SecretKey(k256::ecdsa::SigningKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

/// Why bytes are no key, or a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// Zero or not below the order of the curve.
    #[error("the bytes are no secp256k1 secret key")]
    SecretKey,
    /// Not a compressed point of the curve.
    #[error("the bytes are no compressed secp256k1 public key")]
    PublicKey,
    /// Not two scalars, a high S, or not made by this key over this digest.
    #[error("the signature does not verify")]
    Signature,
}

impl SecretKey {
    /// Takes 32 bytes as a key.
    ///
    /// # Errors
    /// [`CryptoError::SecretKey`] for zero and for values not below the order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, CryptoError> {
        k256::ecdsa::SigningKey::from_slice(bytes).map(Self).map_err(|_| CryptoError::SecretKey)
    }

    /// Derives a key from any secret bytes, by hashing until the value is below the order (the
    /// first hash practically always is).
    #[must_use]
    pub fn derive(secret: &[u8], purpose: &[u8]) -> Self {
        let mut candidate = crate::hash::tagged(b"seamark/key/v1", &[&crate::hash::sha256(secret).0, purpose]);
        loop {
            if let Ok(key) = Self::from_bytes(&candidate.0) {
                return key;
            }
            candidate = crate::hash::sha256(&candidate.0);
        }
    }

    /// The 32 secret bytes, for a keystore.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes().into()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let point = self.0.verifying_key().to_sec1_point(true);
        let mut key = [0; 33];
        key.copy_from_slice(point.as_bytes());
        PublicKey(key)
    }

    /// What this key and another one have in common, and nobody else can compute: the x coordinate of the product of one's
    /// secret and the other's point (Diffie-Hellman). No key by itself: hash it together with both public keys and what the
    /// key is for.
    ///
    /// # Errors
    /// [`CryptoError::PublicKey`] when the other key is no compressed point of the curve.
    pub fn agree(&self, other: &PublicKey) -> Result<[u8; 32], CryptoError> {
        // As for signatures: a key has one encoding.
        if !matches!(other.0[0], 0x02 | 0x03) {
            return Err(CryptoError::PublicKey);
        }
        let other = k256::PublicKey::from_sec1_bytes(&other.0).map_err(|_| CryptoError::PublicKey)?;
        // The order is prime and neither factor is zero, so the product is a point with coordinates.
        let secret: &k256::Scalar = self.0.as_nonzero_scalar().as_ref();
        Ok((other.to_projective() * secret).to_affine().x().into())
    }

    /// Signs a digest: deterministic (RFC 6979), low S.
    #[must_use]
    pub fn sign(&self, digest: &Hash32) -> Signature {
        memo::signature(|| (self.public(), *digest), || self.sign_anew(digest))
    }

    fn sign_anew(&self, digest: &Hash32) -> Signature {
        #[cfg(feature = "libsecp256k1")]
        return self.sign_libsecp256k1(digest);
        #[cfg(not(feature = "libsecp256k1"))]
        self.sign_k256(digest)
    }

    /// The reference signature by k256.
    #[must_use]
    pub fn sign_k256(&self, digest: &Hash32) -> Signature {
        let signature: k256::ecdsa::Signature =
            self.0.sign_prehash(&digest.0).expect("a 32-byte digest is always signable");
        Signature(signature.normalize_s().to_bytes().into())
    }

    /// The same signature by libsecp256k1, whose copy of the key is wiped when it is made.
    #[cfg(feature = "libsecp256k1")]
    #[must_use]
    pub fn sign_libsecp256k1(&self, digest: &Hash32) -> Signature {
        let mut key = secp256k1::SecretKey::from_secret_bytes(self.to_bytes())
            .expect("a key of k256 is neither zero nor beyond the order");
        let signature = secp256k1::ecdsa::sign(secp256k1::Message::from_digest(digest.0), &key);
        key.non_secure_erase();
        Signature(signature.serialize_compact())
    }
}

/// Verifies a signature over a digest. All of Seamark goes through this function.
///
/// # Errors
/// [`CryptoError::PublicKey`] when the key is no point of the curve, [`CryptoError::Signature`]
/// when the signature is malformed, has a high S, or does not match.
pub fn verify(key: &PublicKey, digest: &Hash32, signature: &Signature) -> Result<(), CryptoError> {
    memo::verdict(|| (*key, *digest, *signature), || verify_anew(key, digest, signature))
}

fn verify_anew(key: &PublicKey, digest: &Hash32, signature: &Signature) -> Result<(), CryptoError> {
    #[cfg(feature = "libsecp256k1")]
    return verify_libsecp256k1(key, digest, signature);
    #[cfg(not(feature = "libsecp256k1"))]
    verify_k256(key, digest, signature)
}

/// The reference verification by k256.
///
/// # Errors
/// As [`verify`].
pub fn verify_k256(key: &PublicKey, digest: &Hash32, signature: &Signature) -> Result<(), CryptoError> {
    // k256 also reads the 33-byte compact form (0x05), which libsecp256k1 does not know: a key has
    // one encoding, and both backends must agree on it.
    if !matches!(key.0[0], 0x02 | 0x03) {
        return Err(CryptoError::PublicKey);
    }
    let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&key.0).map_err(|_| CryptoError::PublicKey)?;
    let signature = k256::ecdsa::Signature::from_slice(&signature.0).map_err(|_| CryptoError::Signature)?;
    if signature.normalize_s() != signature {
        return Err(CryptoError::Signature);
    }
    key.verify_prehash(&digest.0, &signature).map_err(|_| CryptoError::Signature)
}

/// Verification by libsecp256k1, which refuses a high S by itself.
///
/// # Errors
/// As [`verify`].
#[cfg(feature = "libsecp256k1")]
pub fn verify_libsecp256k1(key: &PublicKey, digest: &Hash32, signature: &Signature) -> Result<(), CryptoError> {
    let key = secp256k1::PublicKey::from_slice(&key.0).map_err(|_| CryptoError::PublicKey)?;
    let signature = secp256k1::ecdsa::Signature::from_compact(&signature.0).map_err(|_| CryptoError::Signature)?;
    let message = secp256k1::Message::from_digest(digest.0);
    secp256k1::ecdsa::verify(&signature, message, &key).map_err(|_| CryptoError::Signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    #[test]
    fn what_is_signed_verifies_and_nothing_else() {
        let key = SecretKey::derive(b"test", b"a");
        let digest = sha256(b"message");
        let signature = key.sign(&digest);
        assert_eq!(verify(&key.public(), &digest, &signature), Ok(()));
        assert_eq!(verify_k256(&key.public(), &digest, &signature), Ok(()));
        assert_eq!(verify(&key.public(), &sha256(b"other"), &signature), Err(CryptoError::Signature));
        let mut broken = signature;
        broken.0[40] ^= 1;
        assert_eq!(verify(&key.public(), &digest, &broken), Err(CryptoError::Signature));
        assert_eq!(verify(&PublicKey([5; 33]), &digest, &signature), Err(CryptoError::PublicKey));
    }

    #[test]
    fn two_keys_agree_and_a_third_one_does_not() {
        let [a, b, c] = [1, 2, 3].map(|purpose| SecretKey::derive(b"test", &[purpose]));
        let shared = a.agree(&b.public()).expect("a key");
        assert_eq!(b.agree(&a.public()), Ok(shared));
        assert_ne!(c.agree(&a.public()), Ok(shared));
        assert_ne!(c.agree(&b.public()), Ok(shared));
        // One times a point is that point.
        let mut one = [0; 32];
        one[31] = 1;
        let one = SecretKey::from_bytes(&one).expect("a key");
        assert_eq!(one.agree(&a.public()).expect("a key")[..], a.public().0[1..]);
        let mut beyond = [0xff; 33];
        beyond[0] = 2;
        for wrong in [[5; 33], [0; 33], beyond] {
            assert_eq!(a.agree(&PublicKey(wrong)), Err(CryptoError::PublicKey));
        }
    }
}
