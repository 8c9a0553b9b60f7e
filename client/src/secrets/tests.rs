use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ledger::hash::sha256;
use tempfile::TempDir;

use super::*;
use crate::keyfile::{CHECKSUM_BYTES, PREFIX_BYTES};

const SECRET: [u8; 32] = [7; 32];
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----\n";

/// A folder with the passphrase of its keys.
fn folder() -> (TempDir, Passphrase) {
    let folder = tempfile::tempdir().unwrap();
    let passphrase = Passphrase::generate().unwrap();
    private(&folder.path().join(PASSPHRASE_FILE), passphrase.text());
    (folder, passphrase)
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn finding() -> Keyring {
    Keyring::finding(None)
}

/// A key that lies sealed in a folder.
fn sealed(folder: &TempDir, name: &str, kind: SecretKind, secret: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    finding().write(&path, kind, secret).unwrap();
    path
}

fn code<T>(result: Result<T, SecretError>) -> &'static str {
    result.err().expect("it is refused").code()
}

#[test]
fn a_key_comes_back_with_the_passphrase_beside_it_and_the_file_shows_nothing_of_it() {
    let (folder, _) = folder();
    let path = sealed(&folder, "signing.key", SecretKind::Signing, &SECRET);
    let pem = sealed(&folder, "node.key", SecretKind::Tls, PEM.as_bytes());
    assert_eq!(*finding().key(&path, SecretKind::Signing).unwrap(), SECRET);
    assert_eq!(finding().signing_key(&path).unwrap().to_bytes(), SECRET);
    assert_eq!(finding().pem(&pem).unwrap().as_str(), PEM);
    let bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(8).any(|part| part == [7; 8]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Each kind says what it is.
    assert_eq!(code(finding().key(&path, SecretKind::Storage)), "key_form");
    assert_eq!(code(finding().pem(&path)), "key_form");
}

#[test]
fn all_keys_of_an_owner_cost_one_derivation_and_share_no_nonce() {
    let (folder, _) = folder();
    let mut ring = finding();
    let paths = ["a.key", "b.key"].map(|name| folder.path().join(name));
    for path in &paths {
        ring.write(path, SecretKind::Signing, &SECRET).unwrap();
    }
    let headers = paths.clone().map(|path| {
        let (header, _) = taken_apart(&path, SecretKind::Signing, &fs::read(&path).unwrap()).unwrap();
        assert_eq!(header.cost, KdfCost::OF_RANDOM, "256 random bits need no expense");
        (header.salt, header.nonce)
    });
    assert_eq!(headers[0].0, headers[1].0);
    assert_ne!(headers[0].1, headers[1].1);
    // Also a key that is added later.
    let mut later = finding();
    later.key(&paths[0], SecretKind::Signing).unwrap();
    later.write(&paths[1], SecretKind::Signing, &SECRET).unwrap();
    let (header, _) = taken_apart(&paths[1], SecretKind::Signing, &fs::read(&paths[1]).unwrap()).unwrap();
    assert_eq!(header.salt, headers[0].0);
}

#[test]
fn a_passphrase_that_somebody_thought_of_is_expensive_to_try() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing.key");
    let mut ring = Keyring::holding(Passphrase::new("correct horse", "a test"));
    ring.write(&path, SecretKind::Signing, &SECRET).unwrap();
    let (header, _) = taken_apart(&path, SecretKind::Signing, &fs::read(&path).unwrap()).unwrap();
    assert_eq!(header.cost, KdfCost::default());
    let random = Passphrase::generate().unwrap();
    assert!(random.is_random() && !is_random("random-") && !is_random(&random.text()[1..]));
    assert!(!is_random(&random.text().to_uppercase()));
    assert_ne!(random.text(), Passphrase::generate().unwrap().text());
    assert_eq!(format!("{random:?}"), "Passphrase(of this run)");
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let (folder, _) = folder();
    let path = sealed(&folder, "signing.key", SecretKind::Signing, &SECRET);
    let whole = fs::read(&path).unwrap();
    // What begins otherwise is taken for a key in the clear, and is none.
    let expected = |at: usize| match at {
        0..8 => "key_form",
        8 => "key_version",
        _ => "key_damaged",
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(code(finding().key(&path, SecretKind::Signing)), expected(at), "byte {at}");
        fs::write(&path, &whole[..at]).unwrap();
        let cut = code(finding().key(&path, SecretKind::Signing));
        assert_eq!(cut, if at < 8 { "key_form" } else { "key_damaged" }, "cut at {at}");
    }
}

#[test]
fn what_a_file_says_of_its_key_is_bound_to_it() {
    let (folder, _) = folder();
    let path = sealed(&folder, "storage.key", SecretKind::Storage, &SECRET);
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - CHECKSUM_BYTES);
    // The first byte of the public part is the kind: a storage key passed off as one that signs.
    assert_eq!(bytes[PREFIX_BYTES], 1);
    bytes[PREFIX_BYTES] = 0;
    let checksum = sha256(&bytes).0;
    bytes.extend_from_slice(&checksum);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(code(finding().key(&path, SecretKind::Signing)), "wrong_passphrase");
}

#[test]
fn a_passphrase_that_is_wrong_missing_or_open_to_others_has_a_code_and_a_fix() {
    let (folder, passphrase) = folder();
    let path = sealed(&folder, "signing.key", SecretKind::Signing, &SECRET);
    let file = folder.path().join(PASSPHRASE_FILE);
    let open = |ring: &mut Keyring| ring.key(&path, SecretKind::Signing);
    let told = |error: SecretError| (error.code(), error.to_string());

    private(&file, Passphrase::generate().unwrap().text());
    let (code, text) = told(open(&mut finding()).unwrap_err());
    assert_eq!(code, "wrong_passphrase");
    assert!(text.contains("signing.key") && text.contains(&file.display().to_string()), "{text}");

    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let (code, text) = told(open(&mut finding()).unwrap_err());
    assert_eq!(code, "passphrase_readable");
    assert!(text.contains("chmod 600"), "{text}");

    fs::remove_file(&file).unwrap();
    let named = folder.path().join("elsewhere");
    let (code, text) = told(open(&mut Keyring::finding(Some(named.clone()))).unwrap_err());
    assert_eq!(code, "passphrase_file", "the file that is named has to be there");
    assert!(text.contains("elsewhere") && text.contains("SEAMARK_PASSPHRASE"), "{text}");
    let (code, text) = told(open(&mut Keyring::empty()).unwrap_err());
    assert_eq!(code, "passphrase_missing");
    assert!(text.contains("seamark-passphrase"), "{text}");

    for (text, code) in [("", "passphrase_form"), ("\n", "passphrase_form"), ("a\nb", "passphrase_form")] {
        private(&named, text);
        assert_eq!(open(&mut Keyring::finding(Some(named.clone()))).unwrap_err().code(), code, "{text:?}");
    }
    private(&named, &"x".repeat(2000));
    assert_eq!(open(&mut Keyring::finding(Some(named.clone()))).unwrap_err().code(), "passphrase_form");
    // The end of the line belongs to the file.
    private(&named, &format!("{}\r\n", passphrase.text()));
    assert_eq!(*open(&mut Keyring::finding(Some(named))).unwrap(), SECRET);
}

#[test]
fn a_key_in_the_clear_is_read_and_can_be_sealed_where_it_lies() {
    let (folder, _) = folder();
    let signing = folder.path().join("signing.key");
    let pem = folder.path().join("node.key");
    let digits = format!("{}\n", hex::encode(SECRET));
    private(&signing, &digits);
    private(&pem, PEM);
    // Another name for the same bytes on the disk.
    let same = folder.path().join("same");
    fs::hard_link(&signing, &same).unwrap();
    assert_eq!(*Keyring::empty().key(&signing, SecretKind::Signing).unwrap(), SECRET);
    assert_eq!(Keyring::empty().pem(&pem).unwrap().as_str(), PEM);
    assert_eq!((holds(&signing).unwrap(), holds(&pem).unwrap()), (Holds::Digits, Holds::Pem));

    let mut ring = finding();
    for expected in [Sealing::Sealed, Sealing::Already] {
        assert_eq!(seal_in_place(&signing, SecretKind::Signing, &mut ring, None).unwrap(), expected);
        assert_eq!(seal_in_place(&pem, SecretKind::Tls, &mut ring, None).unwrap(), expected);
    }
    assert_eq!(holds(&signing).unwrap(), Holds::Sealed(SecretKind::Signing));
    assert_eq!(*finding().key(&signing, SecretKind::Signing).unwrap(), SECRET);
    assert_eq!(finding().pem(&pem).unwrap().as_str(), PEM);
    assert_eq!(fs::read(&same).unwrap(), vec![0; digits.len()], "the bytes themselves are gone");

    // Under another passphrase: only with the present one, and once.
    let mut other = Keyring::holding(Passphrase::generate().unwrap());
    assert_eq!(code(seal_in_place(&pem, SecretKind::Tls, &mut other, None)), "wrong_passphrase");
    let mut earlier = finding();
    for expected in [Sealing::Resealed, Sealing::Already] {
        assert_eq!(seal_in_place(&pem, SecretKind::Tls, &mut other, Some(&mut earlier)).unwrap(), expected);
    }
    assert_eq!(other.pem(&pem).unwrap().as_str(), PEM);
    assert_eq!(code(finding().pem(&pem)), "wrong_passphrase");
}

#[test]
fn what_is_no_key_stays_as_it_is() {
    let (folder, _) = folder();
    let path = folder.path().join("signing.key");
    for text in ["", "x", "12", &"g".repeat(64), &"0".repeat(66)] {
        private(&path, text);
        assert_eq!(code(finding().key(&path, SecretKind::Signing)), "key_form", "{text:?}");
        assert_eq!(code(seal_in_place(&path, SecretKind::Signing, &mut finding(), None)), "key_form");
        assert_eq!(holds(&path).unwrap(), Holds::Other);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    private(&path, &"0".repeat(64));
    assert_eq!(code(finding().signing_key(&path)), "key_form", "zero is no key of the curve");
    assert_eq!(code(finding().key(&folder.path().join("none.key"), SecretKind::Signing)), "key_io");
    private(&path, &"0".repeat(70_000));
    assert_eq!(code(finding().key(&path, SecretKind::Signing)), "key_damaged");

    // The keystore's files are of the same frame, and of another version.
    let store = crate::Keystore::new(folder.path().join("keys")).with_cost(KdfCost::OF_RANDOM);
    let account = store.generate("alice", "x").unwrap().path;
    assert_eq!(holds(&account).unwrap(), Holds::Other);
    assert_eq!(code(finding().key(&account, SecretKind::Signing)), "key_form");
    let own = sealed(&folder, "own.key", SecretKind::Signing, &SECRET);
    fs::copy(own, &account).unwrap();
    assert_eq!(store.show("alice").unwrap_err().code(), "key_damaged");
}
