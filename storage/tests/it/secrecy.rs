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
