//! What every key-value database must do, as functions over `&dyn Kv` on an empty database.

use std::sync::Arc;

use bytes::Bytes;
use storage::{
    ChaChaCipher, CounterNonces, FaultyKv, FrameCipher, KeyRange, Kv, MemKv, NoFaults, SealedKv, WriteBatch,
};

pub fn batch(puts: &[(&str, &str)]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in puts {
        batch.put(key.to_string(), value.to_string());
    }
    batch
}

pub fn content(kv: &dyn Kv) -> Vec<(String, String)> {
    text(kv.scan(KeyRange::all(), usize::MAX).expect("scan"))
}

fn text(pairs: Vec<(Bytes, Bytes)>) -> Vec<(String, String)> {
    let string = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("test data is text");
    pairs.into_iter().map(|(key, value)| (string(key), string(value))).collect()
}

fn keys(pairs: Vec<(Bytes, Bytes)>) -> Vec<String> {
    text(pairs).into_iter().map(|(key, _)| key).collect()
}

/// Runs all of the suite; `make` gives a new empty database each time.
pub fn run<K: Kv>(make: impl Fn() -> K) {
    let parts: [(&str, fn(&dyn Kv)); 7] = [
        ("reads", reads),
        ("batches apply in order", order),
        ("scans", scans),
        ("delete_range", ranges),
        ("views are frozen", views),
        ("odd keys and values", odd),
        ("flush and checkpoint", durable),
    ];
    for (name, part) in parts {
        println!("part: {name}");
        part(&make());
    }
}

fn reads(kv: &dyn Kv) {
    assert_eq!(kv.get(b"a").expect("get"), None);
    assert!(content(kv).is_empty());
    kv.write(batch(&[("a", "1"), ("b", "2")])).expect("write");
    assert_eq!(kv.get(b"a").expect("get").expect("present"), "1");
    let found = kv.multi_get(&[b"b", b"none", b"a", b"b"]).expect("multi_get");
    let two = Some(Bytes::from_static(b"2"));
    assert_eq!(found, [two.clone(), None, Some(Bytes::from_static(b"1")), two]);
    assert!(kv.multi_get(&[]).expect("multi_get").is_empty());
    kv.write(WriteBatch::new()).expect("an empty batch is fine");
}

fn order(kv: &dyn Kv) {
    let mut changes = batch(&[("a", "1"), ("a", "2"), ("b", "1")]);
    changes.delete("b");
    changes.delete("never there");
    changes.delete_range("a", "z");
    changes.put("c", "3");
    kv.write(changes).expect("write");
    assert_eq!(content(kv), [("c".to_string(), "3".to_string())]);
}

fn scans(kv: &dyn Kv) {
    kv.write(batch(&[("b", "2"), ("a", "1"), ("ab", "3"), ("c", "4")])).expect("write");
    let scan = |range, limit| keys(kv.scan(range, limit).expect("scan"));
    assert_eq!(scan(KeyRange::all(), 9), ["a", "ab", "b", "c"]);
    assert_eq!(scan(KeyRange::all(), 2), ["a", "ab"]);
    assert_eq!(scan(KeyRange::all(), 0), [""; 0]);
    assert_eq!(scan(KeyRange::new("ab", "c"), 9), ["ab", "b"]);
    assert_eq!(scan(KeyRange::new("c", "ab"), 9), [""; 0]);
    assert_eq!(scan(KeyRange::new("b", "b"), 9), [""; 0]);
    assert_eq!(scan(KeyRange::from("b"), 9), ["b", "c"]);
    assert_eq!(scan(KeyRange::prefix(b"a"), 9), ["a", "ab"]);
}

fn ranges(kv: &dyn Kv) {
    kv.write(batch(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")])).expect("write");
    let mut changes = WriteBatch::new();
    changes.delete_range("b", "d");
    changes.delete_range("d", "a"); // empty: does nothing
    changes.delete_range("a", "a");
    kv.write(changes).expect("write");
    assert_eq!(keys(kv.scan(KeyRange::all(), 9).expect("scan")), ["a", "d"]);
    kv.write(batch(&[("b", "again")])).expect("write");
    assert_eq!(kv.get(b"b").expect("get").expect("present"), "again");
}

fn views(kv: &dyn Kv) {
    kv.write(batch(&[("a", "1"), ("b", "2")])).expect("write");
    let view = kv.snapshot_view();
    let mut changes = batch(&[("a", "changed"), ("c", "new")]);
    changes.delete("b");
    kv.write(changes).expect("write");
    assert_eq!(view.get(b"a").expect("get").expect("present"), "1");
    assert_eq!(view.get(b"c").expect("get"), None);
    assert_eq!(keys(view.scan(KeyRange::all(), 9).expect("scan")), ["a", "b"]);
    assert_eq!(keys(view.scan(KeyRange::from("b"), 1).expect("scan")), ["b"]);
    assert_eq!(kv.get(b"a").expect("get").expect("present"), "changed");
}

fn odd(kv: &dyn Kv) {
    let pairs = [vec![0_u8], vec![0, 0], vec![0xff; 40], vec![0xff, 0]];
    let mut changes = WriteBatch::new();
    for key in &pairs {
        changes.put(key.clone(), Bytes::new());
    }
    changes.put("large", vec![7_u8; 300_000]);
    kv.write(changes).expect("write");
    for key in &pairs {
        assert_eq!(kv.get(key).expect("get"), Some(Bytes::new()), "an empty value is not an absent one");
    }
    assert_eq!(kv.get(b"large").expect("get").map(|value| value.len()), Some(300_000));
    assert_eq!(kv.scan(KeyRange::from(vec![0xff_u8]), 9).expect("scan").len(), 2);
}

fn durable(kv: &dyn Kv) {
    kv.write(batch(&[("a", "1")])).expect("write");
    kv.flush().expect("flush");
    kv.flush().expect("nothing to flush is fine");
    let dir = tempfile::tempdir().expect("temporary folder");
    kv.checkpoint(&dir.path().join("copy")).expect("checkpoint");
    assert!(kv.checkpoint(&dir.path().join("copy")).is_err(), "never over an existing folder");
    assert_eq!(content(kv), [("a".to_string(), "1".to_string())]);
}

#[test]
fn memory() {
    run(MemKv::new);
}

#[test]
fn faulty_without_faults() {
    run(|| FaultyKv::new(MemKv::new(), NoFaults, "faulty"));
}

#[test]
fn sealed() {
    run(|| SealedKv::new(MemKv::new(), Arc::new(FrameCipher), "framed"));
    let cipher = || Arc::new(ChaChaCipher::new(&[3; 32], Box::new(CounterNonces::new([0; 16]))));
    run(|| SealedKv::new(MemKv::new(), cipher(), "sealed"));
}

#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb() {
    use crate::support::{Folder, plain};
    run(|| Folder::new().into_state(plain()));
    let cipher = || Arc::new(ChaChaCipher::new(&[3; 32], Box::new(CounterNonces::new([0; 16]))));
    run(|| Folder::new().into_state(cipher()));
}
