//! What every log must do, over a factory that can also reopen it.

use std::sync::mpsc;

use bytes::Bytes;
use storage::{LogStore, MemLog, StorageError};

/// A way to get logs of one implementation.
pub trait Rig {
    type Log: LogStore;
    fn log(&self) -> Self::Log;
    /// Clean stop and start.
    fn reopen(&mut self);
}

/// Calls `change` with a completion and waits for it.
pub fn wait(change: impl FnOnce(storage::Completion)) -> Result<(), StorageError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    change(Box::new(move |result| drop(sender.send(result))));
    receiver.recv().expect("a completion always runs")
}

pub fn entries(range: std::ops::Range<u64>, tag: &str) -> Vec<(u64, Bytes)> {
    range.map(|index| (index, Bytes::from(format!("{tag}-{index}")))).collect()
}

fn marker(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn append(log: &impl LogStore, range: std::ops::Range<u64>, tag: &str) {
    wait(|done| log.append(entries(range, tag), done)).expect("append");
}

pub fn all(log: &impl LogStore) -> Vec<(u64, Bytes)> {
    log.read(0..u64::MAX, usize::MAX).expect("read")
}

/// Bounds of the log, checked against its content.
fn bounds(log: &impl LogStore) -> (Option<u64>, Option<u64>) {
    let (first, last) = (log.first_index().expect("first"), log.last().expect("last"));
    assert_eq!(first, all(log).first().map(|(index, _)| *index));
    assert_eq!(last, all(log).last().cloned());
    (first, last.map(|(index, _)| index))
}

pub fn run<R: Rig>(make: impl Fn() -> R) {
    let parts: [(&str, fn(&mut R)); 6] = [
        ("empty", empty),
        ("append and read", append_and_read),
        ("single records", records),
        ("truncate", truncate),
        ("purge", purge),
        ("refusals", refusals),
    ];
    for (name, part) in parts {
        println!("part: {name}");
        part(&mut make());
    }
}

fn empty<R: Rig>(rig: &mut R) {
    for _ in 0..2 {
        let log = rig.log();
        assert_eq!(bounds(&log), (None, None));
        assert_eq!(log.read_vote().expect("read"), None);
        assert_eq!(log.read_committed().expect("read"), None);
        assert_eq!(log.purged().expect("read"), None);
        assert_eq!(log.purged_index().expect("read"), None);
        wait(|done| log.append(Vec::new(), done)).expect("nothing to append is fine");
        wait(|done| log.truncate_after(None, done)).expect("nothing to truncate is fine");
        drop(log);
        rig.reopen();
    }
}

fn append_and_read<R: Rig>(rig: &mut R) {
    let log = rig.log();
    append(&log, 0..3, "a");
    append(&log, 3..10, "a");
    for again in [false, true] {
        let log = if again {
            rig.reopen();
            rig.log()
        } else {
            rig.log()
        };
        assert_eq!(all(&log), entries(0..10, "a"));
        assert_eq!(bounds(&log), (Some(0), Some(9)));
        assert_eq!(log.read(4..6, 999).expect("read"), entries(4..6, "a"));
        assert_eq!(log.read(8..20, 999).expect("read"), entries(8..10, "a"));
        assert_eq!(log.read(10..20, 999).expect("read"), []);
        let backwards = std::ops::Range { start: 6, end: 4 };
        assert_eq!(log.read(backwards, 999).expect("read"), []);
        // Each entry has 3 bytes.
        assert_eq!(log.read(0..9, 7).expect("read"), entries(0..2, "a"));
        assert_eq!(log.read(0..9, 6).expect("read"), entries(0..2, "a"));
        assert_eq!(log.read(0..9, 0).expect("read"), entries(0..1, "a"), "at least one");
    }
    append(&rig.log(), 10..11, "a");
    assert_eq!(rig.log().last().expect("last"), entries(10..11, "a").pop());
}

fn records<R: Rig>(rig: &mut R) {
    let log = rig.log();
    wait(|done| log.save_vote(marker("vote 1"), done)).expect("vote");
    wait(|done| log.save_vote(marker("vote 2"), done)).expect("vote");
    log.save_committed(marker("committed 1")).expect("committed");
    log.save_committed(marker("committed 2")).expect("committed");
    append(&log, 5..6, "a");
    drop(log);
    for _ in 0..2 {
        assert_eq!(rig.log().read_vote().expect("read"), Some(marker("vote 2")));
        assert_eq!(rig.log().read_committed().expect("read"), Some(marker("committed 2")));
        rig.reopen();
    }
}

fn truncate<R: Rig>(rig: &mut R) {
    let log = rig.log();
    append(&log, 0..10, "a");
    wait(|done| log.truncate_after(Some(20), done)).expect("beyond the end: nothing");
    wait(|done| log.truncate_after(Some(9), done)).expect("at the end: nothing");
    assert_eq!(bounds(&log), (Some(0), Some(9)));
    wait(|done| log.truncate_after(Some(5), done)).expect("truncate");
    assert_eq!(all(&log), entries(0..6, "a"));
    append(&log, 6..8, "b");
    let expected = [entries(0..6, "a"), entries(6..8, "b")].concat();
    assert_eq!(all(&log), expected);
    drop(log);
    rig.reopen();
    let log = rig.log();
    assert_eq!(all(&log), expected, "the old tail does not come back");
    wait(|done| log.truncate_after(None, done)).expect("all of it");
    assert_eq!(bounds(&log), (None, None));
    append(&log, 3..4, "c");
    drop(log);
    rig.reopen();
    assert_eq!(all(&rig.log()), entries(3..4, "c"));
}

fn purge<R: Rig>(rig: &mut R) {
    let log = rig.log();
    append(&log, 1..11, "a");
    wait(|done| log.purge_upto(0, marker("p0"), done)).expect("before the first entry");
    wait(|done| log.purge_upto(4, marker("p4"), done)).expect("purge");
    wait(|done| log.purge_upto(4, marker("p4"), done)).expect("again");
    for _ in 0..2 {
        let log = rig.log();
        assert_eq!(all(&log), entries(5..11, "a"));
        assert_eq!(bounds(&log), (Some(5), Some(10)));
        assert_eq!(log.purged().expect("read"), Some(marker("p4")));
        assert_eq!(log.purged_index().expect("read"), Some(4));
        drop(log);
        rig.reopen();
    }
    let log = rig.log();
    wait(|done| log.purge_upto(20, marker("p20"), done)).expect("beyond the end");
    assert_eq!(bounds(&log), (None, None));
    drop(log);
    rig.reopen();
    let log = rig.log();
    assert_eq!(log.purged().expect("read"), Some(marker("p20")));
    append(&log, 21..23, "b");
    drop(log);
    rig.reopen();
    assert_eq!(all(&rig.log()), entries(21..23, "b"));
    wait(|done| rig.log().truncate_after(Some(2), done)).expect("below the purge: all of it");
    assert_eq!(bounds(&rig.log()), (None, None));
}

fn refusals<R: Rig>(rig: &mut R) {
    let log = rig.log();
    append(&log, 5..8, "a");
    let code = |result: Result<(), StorageError>| result.expect_err("refused").code();
    for range in [9..10, 7..8, 0..1] {
        assert_eq!(code(wait(|done| log.append(entries(range, "x"), done))), "storage_refused");
    }
    let hole = [entries(8..9, "x"), entries(10..11, "x")].concat();
    assert_eq!(code(wait(|done| log.append(hole, done))), "storage_refused");
    assert_eq!(code(wait(|done| log.purge_upto(2, marker("p"), done))), "storage_refused");
    wait(|done| log.purge_upto(9, marker("p9"), done)).expect("purge");
    assert_eq!(code(wait(|done| log.append(entries(9..10, "x"), done))), "storage_refused");
    assert_eq!(code(wait(|done| log.append(entries(11..12, "x"), done))), "storage_refused");
    assert_eq!(code(wait(|done| log.purge_upto(8, marker("p8"), done))), "storage_refused");
    let end = vec![(u64::MAX, Bytes::new())];
    assert_eq!(code(wait(|done| log.append(end, done))), "storage_refused");
    append(&log, 10..11, "a");
    assert_eq!(all(&log), entries(10..11, "a"), "a refusal changes nothing");
}

struct MemRig(MemLog);

impl Rig for MemRig {
    type Log = MemLog;
    fn log(&self) -> MemLog {
        self.0.clone()
    }
    fn reopen(&mut self) {
        self.0.flush(usize::MAX);
        self.0.crash(0);
    }
}

#[test]
fn memory() {
    run(|| MemRig(MemLog::immediate("memory log")));
}

#[test]
fn memory_loses_what_was_not_flushed_in_order() {
    let log = MemLog::manual("memory log");
    let (sender, results) = mpsc::channel();
    for index in 0..4 {
        let sender = sender.clone();
        log.append(entries(index..index + 1, "a"), Box::new(move |result| drop(sender.send((index, result)))));
    }
    assert_eq!(all(&log), entries(0..4, "a"), "readable at once");
    assert!(results.try_recv().is_err(), "not durable yet");
    log.flush(2);
    assert_eq!(results.try_iter().collect::<Vec<_>>(), [(0, Ok(())), (1, Ok(()))]);
    log.crash(1);
    assert_eq!(all(&log), entries(0..3, "a"), "one more survived, unacknowledged");
    assert!(results.try_iter().next().is_none());

    log.save_vote(marker("v"), Box::new(move |result| drop(sender.send((9, result)))));
    log.fail_next_flush(StorageError::DiskFull { path: "d".into(), detail: "test".into() });
    log.flush(1);
    let failed = results.try_recv().expect("answered").1.expect_err("failed");
    assert_eq!(failed.code(), "storage_disk_full");
    assert_eq!(log.read_vote().expect_err("poisoned").code(), "storage_poisoned");
    assert_eq!(wait(|done| log.save_vote(marker("w"), done)).expect_err("poisoned").code(), "storage_poisoned");
    log.crash(0);
    assert_eq!(log.read_vote().expect("a restart heals it"), None);
}

#[cfg(feature = "rocksdb")]
mod shared_engine {
    use std::sync::Arc;

    use storage::{ChaChaCipher, CounterNonces, GroupLog, LogEngine, LogOptions, ValueCipher};

    use super::Rig;
    use crate::support::{Folder, LOG, plain, shared};

    struct EngineRig {
        engine: Option<LogEngine>,
        folder: Folder,
        cipher: Arc<dyn ValueCipher>,
        options: LogOptions,
    }

    impl EngineRig {
        fn new(cipher: Arc<dyn ValueCipher>, cache_bytes_max: usize) -> Self {
            let options = LogOptions { cache_bytes_max, ..LogOptions::default() };
            let mut rig = Self { engine: None, folder: Folder::new(), cipher, options };
            rig.reopen();
            rig
        }
    }

    impl Rig for EngineRig {
        type Log = GroupLog;
        fn log(&self) -> GroupLog {
            self.engine.as_ref().expect("open").group(3, self.cipher.clone()).expect("group")
        }
        fn reopen(&mut self) {
            self.engine = None;
            let engine = LogEngine::open_with(&self.folder.root(), shared(), LOG, self.options);
            self.engine = Some(engine.expect("open"));
        }
    }

    #[test]
    fn shared_engine() {
        super::run(|| EngineRig::new(plain(), 1 << 20));
    }

    #[test]
    fn shared_engine_without_a_cache() {
        super::run(|| EngineRig::new(plain(), 0));
    }

    #[test]
    fn shared_engine_sealed() {
        super::run(|| EngineRig::new(Arc::new(ChaChaCipher::new(&[5; 32], Box::new(CounterNonces::new([1; 16])))), 0));
    }
}
