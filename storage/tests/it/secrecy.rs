//! Ciphers on disk: nothing readable in any file, nothing altered served.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use storage::{ChaChaCipher, CounterNonces, Kv, LogEngine, LogStore, PlainCipher, StateDb, ValueCipher, WriteBatch};

use crate::log_suite::wait;
use crate::support::{Folder, LOG, STATE, shared};

const SECRET: &[u8] = b"the quick brown secret";

fn cipher(key: u8, prefix: u8) -> Arc<dyn ValueCipher> {
    Arc::new(ChaChaCipher::new(&[key; 32], Box::new(CounterNonces::new([prefix; 16]))))
}

/// Whether any file below `folder` contains the secret.
fn leaks(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("folder").any(|entry| {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            return leaks(&path);
        }
        std::fs::read(&path).expect("file").windows(SECRET.len()).any(|window| window == SECRET)
    })
}

#[test]
fn state_values_are_unreadable_on_disk_and_bound_to_their_key() {
    for (sealed, expected) in [(true, false), (false, true)] {
        let folder = Folder::new();
        let cipher = || {
            if sealed { cipher(1, 1) } else { Arc::new(PlainCipher) }
        };
        let db = StateDb::open(&folder.root(), shared(), STATE, cipher()).expect("open");
        let mut batch = WriteBatch::new();
        batch.put("a", SECRET);
        db.write(batch).expect("write");
        db.flush().expect("flush");
        assert_eq!(leaks(&folder.root()), expected, "the search itself works");
        assert_eq!(db.get(b"a").expect("get").expect("present"), SECRET);
    }
}

#[test]
fn a_tampered_or_moved_value_or_another_key_is_an_error() {
    let folder = Folder::new();
    let open = |cipher| StateDb::open(&folder.root(), shared(), STATE, cipher).expect("open");
    let db = open(cipher(1, 1));
    let mut batch = WriteBatch::new();
    batch.put("a", SECRET);
    db.write(batch).expect("write");
    db.flush().expect("flush");
    drop(db);
    // Someone with write access to the files alters the ciphertext and fixes all checksums.
    let raw = open(Arc::new(PlainCipher));
    let sealed = raw.get(b"a").expect("get").expect("present").to_vec();
    let mut altered = sealed.clone();
    altered[30] ^= 1;
    let mut batch = WriteBatch::new();
    batch.put("altered", altered);
    batch.put("moved", sealed);
    raw.write(batch).expect("write");
    raw.flush().expect("flush");
    drop(raw);
    let db = open(cipher(1, 2));
    assert_eq!(db.get(b"a").expect("get").expect("present"), SECRET);
    for key in [&b"altered"[..], b"moved"] {
        assert_eq!(db.get(key).expect_err("refused").code(), "storage_corrupt");
        assert_eq!(db.multi_get(&[b"a", key]).expect_err("refused").code(), "storage_corrupt");
    }
    assert!(db.scan(storage::KeyRange::all(), 9).is_err());
    drop(db);
    assert_eq!(open(cipher(2, 1)).get(b"a").expect_err("another key").code(), "storage_corrupt");
}

#[test]
fn log_entries_votes_and_marks_are_unreadable_on_disk() {
    for (sealed, expected) in [(true, false), (false, true)] {
        let folder = Folder::new();
        let engine = LogEngine::open(&folder.root(), shared(), LOG).expect("open");
        let cipher = || {
            if sealed { cipher(1, 1) } else { Arc::new(PlainCipher) }
        };
        let log = engine.group(1, cipher()).expect("group");
        wait(|done| log.append(vec![(1, Bytes::from_static(SECRET))], done)).expect("append");
        wait(|done| log.purge_upto(1, Bytes::from_static(SECRET), done)).expect("purge");
        log.save_committed(Bytes::from_static(SECRET)).expect("committed");
        wait(|done| log.save_vote(Bytes::from_static(SECRET), done)).expect("vote");
        drop(engine);
        assert_eq!(leaks(&folder.root()), expected);
        storage::log::verify_offline(&folder.root()).expect("checked without a key");
        if sealed {
            let engine = LogEngine::open(&folder.root(), shared(), LOG).expect("open");
            let error = engine.group(1, self::cipher(2, 1)).err().expect("another key");
            assert_eq!(error.code(), "storage_corrupt");
        }
    }
}

/// Values that fill more than one table file, with some that are gone and some that were written twice.
fn fill(db: &StateDb) {
    for part in 0..40_u32 {
        let mut batch = WriteBatch::new();
        for at in 0..50 {
            // Ciphertext does not compress, so what a cipher makes of this takes its whole length on the disk.
            batch.put(format!("{:08}", part * 50 + at), [SECRET, &vec![7; 20_000]].concat());
        }
        batch.delete(format!("{:08}", part * 50 + 7));
        batch.put(format!("{:08}", part * 50 + 8), "again");
        db.write(batch).expect("write");
    }
    db.flush().expect("flush");
}

#[test]
fn a_snapshot_of_another_replica_is_sealed_anew_under_the_own_key() {
    let (ours, theirs) = (Folder::new(), Folder::new());
    let source = StateDb::open(&theirs.root(), shared(), STATE, cipher(1, 1)).expect("open");
    fill(&source);
    let received = theirs.path().join("received");
    source.checkpoint(&received).expect("checkpoint");

    let root = ours.root();
    let live = StateDb::open(&root, shared(), STATE, cipher(2, 2)).expect("open");
    let stage = |sender: u8, received: &Path| {
        let sender = cipher(sender, 9);
        StateDb::stage_resealed(received, &root, shared(), STATE, (&*sender, cipher(2, 3)))
    };
    let folders = || std::fs::read_dir(&root).expect("folder").count();
    assert_eq!(stage(3, &received).err().expect("not the sender's key").code(), "storage_corrupt");
    assert_eq!(folders(), 2, "nothing is left of it");

    let staged = stage(1, &received).expect("staged");
    let all = |db: &StateDb| db.scan(storage::KeyRange::all(), usize::MAX).expect("scan");
    assert_eq!(all(staged.db()), all(&source));
    assert!(std::fs::read_dir(staged.db().folder()).expect("folder").flatten().all(|entry| entry.path().is_file()));
    drop(live);
    let next = staged.switch().expect("switch");
    next.remove_old().expect("remove");
    let mut batch = WriteBatch::new();
    batch.put("00000003", "later");
    next.write(batch).expect("it is written to as any other");
    next.flush().expect("flush");
    drop(next);

    let reopened = StateDb::open(&root, shared(), STATE, cipher(2, 4)).expect("open");
    assert_eq!(reopened.get(b"00000003").expect("get").expect("present"), "later");
    assert_eq!(reopened.get(b"00000007").expect("get"), None);
    assert_eq!(all(&reopened).len(), all(&source).len());
    drop(reopened);
    let with_theirs = StateDb::open(&root, shared(), STATE, cipher(1, 5)).expect("open");
    assert!(with_theirs.get(b"00000000").is_err(), "the sender's key opens nothing here");
    assert!(!leaks(&root) && !leaks(&received));

    let other = storage::StateIdentity { group: 8, ..STATE };
    let refused = StateDb::stage_resealed(&received, &root, shared(), other, (&*cipher(1, 1), cipher(2, 6)));
    assert_eq!(refused.err().expect("another group's").code(), "storage_wrong_group");
}

#[test]
fn a_snapshot_without_a_pair_is_taken_too() {
    let (ours, theirs) = (Folder::new(), Folder::new());
    let source = StateDb::open(&theirs.root(), shared(), STATE, cipher(1, 1)).expect("open");
    let received = theirs.path().join("received");
    source.checkpoint(&received).expect("checkpoint");
    let sender = cipher(1, 2);
    let staged = StateDb::stage_resealed(&received, &ours.root(), shared(), STATE, (&*sender, cipher(2, 2)));
    assert_eq!(staged.expect("staged").db().scan(storage::KeyRange::all(), 9).expect("scan"), []);
}

#[test]
fn what_is_sent_is_sealed_under_a_key_of_its_own() {
    let (ours, theirs) = (Folder::new(), Folder::new());
    let source = StateDb::open(&theirs.root(), shared(), STATE, cipher(1, 1)).expect("open");
    fill(&source);
    let [kept, work, sent] = ["kept", "work", "sent"].map(|name| theirs.path().join(name));
    source.checkpoint(&kept).expect("checkpoint");
    let reseal =
        |own: u8| StateDb::reseal_checkpoint(&kept, (&work, &sent), shared(), STATE, (&*cipher(own, 3), cipher(7, 1)));
    assert_eq!(reseal(3).expect_err("not the key of the checkpoint").code(), "storage_corrupt");
    drop(std::fs::remove_dir_all(&work));
    reseal(1).expect("resealed");
    assert!(!work.exists() && !leaks(&sent));
    let stage =
        |key: u8| StateDb::stage_resealed(&sent, &ours.root(), shared(), STATE, (&*cipher(key, 9), cipher(2, 3)));
    assert_eq!(stage(1).err().expect("the sender's own key does not open it").code(), "storage_corrupt");
    let staged = stage(7).expect("staged");
    let all = |db: &StateDb| db.scan(storage::KeyRange::all(), usize::MAX).expect("scan");
    assert_eq!(all(staged.db()), all(&source));
    drop(staged);
    // Its pairs can be read where it lies, with its own key.
    let read = |key: u8| {
        let mut pairs = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| pairs.push((key.to_vec(), value.to_vec()));
        let wanted = |key: &[u8]| key < &b"00000100"[..];
        StateDb::read_checkpoint(&kept, shared(), STATE, &*cipher(key, 4), wanted, &mut visit).map(|()| pairs)
    };
    let expected = source.scan(storage::KeyRange::new(vec![], "00000100"), usize::MAX).expect("scan");
    assert!(expected.len() > 50);
    let expected: Vec<_> = expected.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(read(1), Ok(expected));
    assert_eq!(read(7).expect_err("not the key of the checkpoint").code(), "storage_corrupt");
    // The checkpoint that it was made of is as it was.
    let again = StateDb::stage(&kept, &ours.root(), shared(), STATE, cipher(1, 8)).expect("staged");
    assert_eq!(all(again.db()), all(&source));
}
