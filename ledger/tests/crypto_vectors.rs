//! Wycheproof vectors for ECDSA over secp256k1 with SHA-256, through every verifier we have.

use ledger::crypto::{self, CryptoError, PublicKey, Signature};
use ledger::hash::{Hash32, sha256};
use wycheproof::TestResult;
use wycheproof::ecdsa::{TestName, TestSet};

/// `n / 2`, the highest S that is accepted (BIP-146).
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57, 0x6e,
    0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

fn compress(uncompressed: &[u8]) -> PublicKey {
    assert_eq!((uncompressed.len(), uncompressed[0]), (65, 4));
    let mut key = [0; 33];
    key[0] = 2 + (uncompressed[64] & 1);
    key[1..].copy_from_slice(&uncompressed[1..33]);
    PublicKey(key)
}

/// All backends, which must agree on the result and on the error.
fn verify_everywhere(key: &PublicKey, digest: &Hash32, signature: &Signature) -> Result<(), CryptoError> {
    let result = crypto::verify(key, digest, signature);
    assert_eq!(result, crypto::verify_k256(key, digest, signature), "k256 disagrees");
    #[cfg(feature = "libsecp256k1")]
    assert_eq!(result, crypto::verify_libsecp256k1(key, digest, signature), "libsecp256k1 disagrees");
    result
}

/// One positive DER integer of at most 32 bytes, in its only valid encoding.
fn der_integer(input: &mut &[u8]) -> Option<[u8; 32]> {
    let (&[tag, length], rest) = input.split_first_chunk::<2>()?;
    if tag != 0x02 || length == 0 || length > 33 || rest.len() < usize::from(length) {
        return None;
    }
    let (digits, rest) = rest.split_at(usize::from(length));
    let padded = digits[0] == 0 && digits.len() > 1;
    if digits[0] & 0x80 != 0 || (padded && digits[1] & 0x80 == 0) {
        return None;
    }
    let digits = if padded { &digits[1..] } else { digits };
    let mut number = [0; 32];
    number.get_mut(32usize.checked_sub(digits.len())?..)?.copy_from_slice(digits);
    *input = rest;
    Some(number)
}

/// A DER signature read strictly. What this refuses could never reach us: our form is `r ‖ s`.
fn der(bytes: &[u8]) -> Option<Signature> {
    let (&[tag, length], mut rest) = bytes.split_first_chunk::<2>()?;
    if tag != 0x30 || length >= 0x80 || rest.len() != usize::from(length) {
        return None;
    }
    let (r, s) = (der_integer(&mut rest)?, der_integer(&mut rest)?);
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    rest.is_empty().then_some(Signature(signature))
}

fn p1363(bytes: &[u8]) -> Option<Signature> {
    bytes.try_into().ok().map(Signature)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    run: usize,
    accepted: usize,
    refused_by_form: usize,
}

/// Runs a set; `low_s` says whether the set itself counts a high S as invalid.
fn run(name: TestName, parse: fn(&[u8]) -> Option<Signature>, low_s: bool) -> Counts {
    let mut counts = Counts::default();
    for group in TestSet::load(name).expect("the set is part of the crate").test_groups {
        let key = compress(&group.key.key);
        for test in group.tests {
            counts.run += 1;
            let signature = parse(&test.sig);
            counts.refused_by_form += usize::from(signature.is_none());
            let high_s = signature.is_some_and(|signature| signature.0[32..] > HALF_ORDER[..]);
            let accepted =
                signature.is_some_and(|signature| verify_everywhere(&key, &sha256(&test.msg), &signature).is_ok());
            counts.accepted += usize::from(accepted);
            let expected = test.result == TestResult::Valid && (low_s || !high_s);
            assert_eq!(accepted, expected, "{name:?} {}: {} {:?}", test.tc_id, test.comment, test.flags);
        }
    }
    counts
}

#[test]
fn the_bitcoin_set_holds_for_every_backend() {
    let counts = run(TestName::EcdsaSecp256k1Sha256Bitcoin, der, true);
    assert_eq!(counts.run, 463);
    assert!(counts.accepted > 100 && counts.run - counts.accepted - counts.refused_by_form > 50, "{counts:?}");
}

#[test]
fn the_plain_set_holds_for_every_backend_but_for_high_s() {
    let counts = run(TestName::EcdsaSecp256k1Sha256, der, false);
    assert_eq!(counts.run, 476);
    assert!(counts.accepted > 50, "{counts:?}");
}

#[test]
fn the_p1363_set_holds_for_every_backend_but_for_high_s() {
    let counts = run(TestName::EcdsaSecp256k1Sha256P1363, p1363, false);
    assert_eq!(counts.run, 252);
    assert!(counts.accepted > 50, "{counts:?}");
}
