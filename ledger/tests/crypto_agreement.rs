//! The backends are one function: they verify every key, digest and signature alike, well formed or not, down to the
//! error, and a key has one signature of a digest, whichever of them makes it.

#![cfg(feature = "libsecp256k1")]

use ledger::crypto::{CryptoError, PublicKey, SecretKey, Signature, verify, verify_k256, verify_libsecp256k1};
use ledger::hash::Hash32;
use proptest::prelude::*;

/// The order of the curve.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc,
    0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

fn agree(key: &PublicKey, digest: &Hash32, signature: &Signature) -> Result<(), CryptoError> {
    let result = verify_k256(key, digest, signature);
    assert_eq!(result, verify_libsecp256k1(key, digest, signature), "{key} {digest} {signature:?}");
    assert_eq!(result, verify(key, digest, signature));
    result
}

/// `n − s` for a scalar below the order.
fn negate(scalar: &[u8]) -> [u8; 32] {
    let mut result = [0; 32];
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let digit = i16::from(ORDER[at]) - i16::from(scalar[at]) - borrow;
        borrow = i16::from(digit < 0);
        result[at] = u8::try_from(digit.rem_euclid(256)).expect("below 256");
    }
    result
}

fn scalar() -> impl Strategy<Value = [u8; 32]> {
    let mut above = ORDER;
    above[31] += 1;
    let mut below = ORDER;
    below[31] -= 1;
    let mut one = [0; 32];
    one[31] = 1;
    prop_oneof![
        4 => any::<[u8; 32]>(),
        1 => prop::sample::select(vec![[0; 32], one, below, ORDER, above, [0xff; 32]]),
    ]
}

fn signed() -> impl Strategy<Value = (PublicKey, Hash32, Signature)> {
    (any::<[u8; 16]>(), any::<[u8; 32]>()).prop_map(|(seed, digest)| {
        let key = SecretKey::derive(&seed, b"agreement");
        let digest = Hash32(digest);
        (key.public(), digest, key.sign(&digest))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_signed_is_accepted_and_its_high_twin_refused((key, digest, signature) in signed()) {
        prop_assert_eq!(agree(&key, &digest, &signature), Ok(()));
        let mut high = signature;
        high.0[32..].copy_from_slice(&negate(&signature.0[32..]));
        prop_assert_eq!(agree(&key, &digest, &high), Err(CryptoError::Signature));
    }

    /// Digests at the order and beyond are left out: RFC 6979 takes them modulo the order and libsecp256k1 as they are,
    /// which gives another nonce and as good a signature. A hash comes to one in 2^128 cases.
    #[test]
    fn a_key_has_one_signature_of_a_digest(seed in any::<[u8; 16]>(), digest in any::<[u8; 32]>()) {
        prop_assume!(digest < ORDER);
        let (key, digest) = (SecretKey::derive(&seed, b"agreement"), Hash32(digest));
        let signature = key.sign_k256(&digest);
        prop_assert_eq!(signature, key.sign_libsecp256k1(&digest));
        prop_assert_eq!(signature, key.sign(&digest));
    }

    #[test]
    fn a_flipped_bit_is_refused_by_both((key, digest, signature) in signed(), bit in 0usize..8 * 129) {
        let (mut key, mut digest, mut signature) = (key, digest, signature);
        let (byte, mask) = (bit / 8, 1u8 << (bit % 8));
        match byte {
            0..33 => key.0[byte] ^= mask,
            33..65 => digest.0[byte - 33] ^= mask,
            _ => signature.0[byte - 65] ^= mask,
        }
        prop_assert!(agree(&key, &digest, &signature).is_err());
    }

    #[test]
    fn any_scalars_and_any_key_bytes_are_judged_alike(
        (key, digest, _) in signed(),
        r in scalar(),
        s in scalar(),
        garbage in any::<[u8; 32]>(),
        prefix in prop_oneof![0u8..9, any::<u8>()],
        x_of_a_point in any::<bool>(),
    ) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&s);
        prop_assert_eq!(agree(&key, &digest, &Signature(signature)), Err(CryptoError::Signature));
        let mut other = [0; 33];
        other[0] = prefix;
        other[1..].copy_from_slice(if x_of_a_point { &key.0[1..] } else { &garbage });
        prop_assert!(agree(&PublicKey(other), &digest, &Signature(signature)).is_err());
    }

    #[test]
    fn only_the_two_compressed_prefixes_make_a_key((key, digest, signature) in signed(), prefix in any::<u8>()) {
        // 0x00 is infinity, 0x04 uncompressed, 0x05 compact, 0x06 and 0x07 hybrid.
        let mut other = key;
        other.0[0] = prefix;
        let result = agree(&other, &digest, &signature);
        match prefix {
            0x02 | 0x03 => prop_assert_eq!(result.is_ok(), prefix == key.0[0]),
            _ => prop_assert_eq!(result, Err(CryptoError::PublicKey)),
        }
    }
}

#[test]
fn every_prefix_byte_over_a_signed_key_is_judged_alike() {
    let digest = Hash32([7; 32]);
    for seed in 0..8u8 {
        let key = SecretKey::derive(&[seed], b"prefix");
        let signature = key.sign(&digest);
        for prefix in (0..=255u8).filter(|prefix| !matches!(prefix, 2 | 3)) {
            let mut other = key.public();
            other.0[0] = prefix;
            assert_eq!(agree(&other, &digest, &signature), Err(CryptoError::PublicKey), "{prefix:#x}");
        }
    }
    for garbage in [PublicKey([0; 33]), PublicKey([0xff; 33]), PublicKey([2; 33])] {
        let _ = agree(&garbage, &digest, &SecretKey::derive(b"a", b"b").sign(&digest));
    }
}
