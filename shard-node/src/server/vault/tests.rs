//! What is sealed, what opens it, and what is never made anew.
#![allow(clippy::unwrap_used)] // a test that meets an error has failed

use client::secrets::{Holds, Passphrase, holds};
use ledger::Hash32;

use super::rotation::Replacing;
use super::*;

const GROUP: GroupId = GroupId::channel(3);
const CLUSTER: ClusterId = ClusterId(Hash32([7; 32]));

/// The vault of a node that has no passphrase.
fn open(folder: &Path, node: u32) -> Result<Vault, VaultError> {
    open_with(folder, node, &mut Keyring::empty())
}

fn open_with(folder: &Path, node: u32, keyring: &mut Keyring) -> Result<Vault, VaultError> {
    Vault::open(&folder.join("storage.key"), &folder.join("data"), CLUSTER, NodeId(node), keyring)
}

/// A node's folder, with a local key for the channel; and the channel's folder.
fn node() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let group = folder.path().join("data").join(GROUP.to_string());
    open(folder.path(), 1).expect("a vault").seal_of(GROUP, &group).expect("a key");
    (folder, group)
}

fn code<T>(result: Result<T, VaultError>) -> &'static str {
    result.err().expect("it is refused").code()
}

/// Whether one reads what the other seals: they have one key.
fn opens(one: &LocalSeal, other: &LocalSeal) -> bool {
    let sealed = Bytes::from(other.cipher().seal(b"k", b"v").into_owned());
    one.cipher().open(b"k", sealed).is_ok()
}

#[test]
fn what_is_sealed_is_read_after_a_restart_and_by_who_has_the_secret_only() {
    let (folder, group) = node();
    let seal = open(folder.path(), 1).unwrap().seal_of(GROUP, &group).unwrap();
    let sealed = Bytes::from(seal.cipher().seal(b"k", b"hush").into_owned());
    let later = open(folder.path(), 1).unwrap().seal_of(GROUP, &group).unwrap();
    assert_eq!(later.cipher().open(b"k", sealed.clone()).unwrap(), "hush");
    assert_ne!(later.cipher().seal(b"k", b"hush"), seal.cipher().seal(b"k", b"hush"), "no nonce comes twice");

    let (elsewhere, other_group) = node();
    let other = open(elsewhere.path(), 1).unwrap().seal_of(GROUP, &other_group).unwrap();
    assert!(other.cipher().open(b"k", sealed.clone()).is_err(), "each node has a key of its own");
    // A copy that is sent has a key of its own, each another one, and that opens nothing else.
    let copies = [0; 2].map(|_| seal.for_one_copy().unwrap().expect("it is sealed"));
    assert!(copies[0].1 != copies[1].1);
    for (cipher, secret) in &copies {
        let sent = Bytes::from(cipher.seal(b"k", b"hush").into_owned());
        let sender = other.of_sender(secret).unwrap().expect("it is sealed");
        assert_eq!(sender.open(b"k", sent.clone()).unwrap(), "hush");
        assert!(sender.open(b"k", sealed.clone()).is_err(), "what the sender keeps it does not open");
        assert!(seal.cipher().open(b"k", sent).is_err(), "nor does the local key open the copy");
        assert_eq!(format!("{secret:?}"), "SnapshotSecret(hidden)");
    }
}

#[test]
fn shards_and_the_beacon_are_not_sealed() {
    let (folder, _) = node();
    let vault = open(folder.path(), 1).unwrap();
    for group in [GroupId::BEACON, GroupId::shard(0)] {
        let seal = vault.seal_of(group, &folder.path().join("data/none")).unwrap();
        assert_eq!(seal.cipher().seal(b"k", b"v"), &b"v"[..]);
        assert!(seal.of_sender(&SnapshotSecret::default()).unwrap().is_none());
        assert!(seal.for_one_copy().unwrap().is_none());
        assert!(seal.of_sender(&SnapshotSecret(vec![1; KEY_BYTES])).is_err());
    }
    assert!(!folder.path().join("data/none").exists());
    let sealed = vault.seal_of(GROUP, &folder.path().join("data").join(GROUP.to_string())).unwrap();
    assert!(sealed.of_sender(&SnapshotSecret::default()).is_err(), "a member's snapshot is sealed");
    assert!(sealed.of_sender(&SnapshotSecret(vec![1; KEY_BYTES - 1])).is_err());
}

#[test]
fn a_key_that_is_gone_or_wrong_is_said_and_never_made_anew() {
    let (folder, group) = node();
    let key = group.join(FILE);
    let bytes = fs::read(&key).unwrap();

    // Another storage key, another node, another channel.
    let storage = folder.path().join("storage.key");
    let text = fs::read(&storage).unwrap();
    fs::write(&storage, format!("{}\n", "ab".repeat(32))).unwrap();
    assert_eq!(code(open(folder.path(), 1).unwrap().seal_of(GROUP, &group)), "channel_key_wrong");
    fs::write(&storage, "short").unwrap();
    assert_eq!(code(open(folder.path(), 1)), "key_form");
    fs::remove_file(&storage).unwrap();
    assert_eq!(code(open(folder.path(), 1)), "storage_key_missing");
    assert!(!storage.exists());
    fs::write(&storage, text).unwrap();
    assert_eq!(code(open(folder.path(), 2).unwrap().seal_of(GROUP, &group)), "channel_key_wrong");
    assert_eq!(code(open(folder.path(), 1).unwrap().seal_of(GroupId::channel(4), &group)), "channel_key_wrong");

    let vault = open(folder.path(), 1).unwrap();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        fs::write(&key, altered).unwrap();
        assert_eq!(code(vault.seal_of(GROUP, &group)), "channel_key_wrong", "byte {at}");
    }
    fs::write(&key, &bytes[1..]).unwrap();
    assert_eq!(code(vault.seal_of(GROUP, &group)), "channel_key_wrong");

    fs::remove_file(&key).unwrap();
    fs::create_dir(group.join("state")).unwrap();
    assert_eq!(code(vault.seal_of(GROUP, &group)), "channel_key_missing");
    assert!(!key.exists());
}

#[test]
fn a_destroyed_key_opens_nothing() {
    let (folder, group) = node();
    let copy = group.join("copy");
    fs::hard_link(group.join(FILE), &copy).unwrap();
    destroy(&group).unwrap();
    destroy(&group).unwrap();
    assert!(!group.join(FILE).exists());
    assert!(fs::read(copy).unwrap().iter().all(|byte| *byte == 0), "the bytes themselves are gone");
    assert!(open(folder.path(), 1).is_ok());
}

#[test]
fn the_storage_key_lies_under_the_passphrase_of_the_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let group = folder.path().join("data").join(GROUP.to_string());
    let passphrase = Passphrase::generate().unwrap();
    let ring = || Keyring::holding(passphrase.clone());
    let seal = open_with(folder.path(), 1, &mut ring()).unwrap().seal_of(GROUP, &group).unwrap();
    assert_eq!(holds(&folder.path().join("storage.key")).unwrap(), Holds::Sealed(SecretKind::Storage));
    let again = open_with(folder.path(), 1, &mut ring()).unwrap().seal_of(GROUP, &group).unwrap();
    assert!(opens(&again, &seal));
    assert_eq!(code(open(folder.path(), 1)), "passphrase_missing");
    let mut other = Keyring::holding(Passphrase::generate().unwrap());
    assert_eq!(code(open_with(folder.path(), 1, &mut other)), "wrong_passphrase");
}

#[test]
fn a_storage_key_is_replaced_and_the_local_keys_stay() {
    let passphrase = Passphrase::generate().unwrap();
    let ring = || Keyring::holding(passphrase.clone());
    let second = GroupId::channel(4);
    // However far it comes before it is interrupted.
    for steps in 0..=3 {
        let folder = tempfile::tempdir().expect("a folder");
        let groups = [GROUP, second].map(|group| (group, folder.path().join("data").join(group.to_string())));
        let (storage, data) = (folder.path().join("storage.key"), folder.path().join("data"));
        let vault = open_with(folder.path(), 1, &mut ring()).unwrap();
        let secrets = groups.clone().map(|(group, path)| vault.seal_of(group, &path).unwrap());
        // A channel that is left: its key counts no more, whatever is in its file.
        fs::create_dir(data.join("left-channel-9")).unwrap();
        fs::write(data.join("left-channel-9").join(FILE), "x").unwrap();
        let old = *ring().key(&storage, SecretKind::Storage).unwrap();

        let mut keyring = ring();
        let replacing = Replacing::begin(&storage, &data, CLUSTER, NodeId(1), &mut keyring).unwrap();
        if steps > 0 {
            replacing.seal_under_both().unwrap();
        }
        if steps > 1 {
            replacing.put_in_place(&mut keyring).unwrap();
        }
        if steps > 2 {
            replacing.finish().unwrap();
        }
        let new = *ring().key(&storage, SecretKind::Storage).unwrap();
        assert_eq!(new == old, steps < 2);
        for ((group, path), secret) in groups.iter().zip(&secrets) {
            let copies = if (1..=2).contains(&steps) { 2 } else { 1 };
            assert_eq!(fs::read(path.join(FILE)).unwrap().len(), MAGIC.len() + copies * COPY_BYTES);
            let seal = open_with(folder.path(), 1, &mut ring()).unwrap().seal_of(*group, path).unwrap();
            assert!(opens(&seal, secret), "after {steps} steps");
            assert_eq!(fs::read(path.join(FILE)).unwrap().len(), MAGIC.len() + COPY_BYTES, "the other copy is gone");
            if steps > 1 {
                let key = Zeroizing::new(old);
                let bytes = fs::read(path.join(FILE)).unwrap();
                let before = Vault::under(&key, CLUSTER, NodeId(1)).unwrap();
                assert_eq!(code(before.opened(*group, path, bytes)), "channel_key_wrong");
            }
        }
    }
}

#[test]
fn both_copies_of_a_destroyed_key_are_gone() {
    let (folder, group) = node();
    let (storage, data) = (folder.path().join("storage.key"), folder.path().join("data"));
    let replacing = Replacing::begin(&storage, &data, CLUSTER, NodeId(1), &mut Keyring::empty()).unwrap();
    replacing.seal_under_both().unwrap();
    let copy = group.join("copy");
    fs::hard_link(group.join(FILE), &copy).unwrap();
    destroy(&group).unwrap();
    assert!(fs::read(copy).unwrap().iter().all(|byte| *byte == 0));
}
