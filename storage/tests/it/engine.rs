//! The shared log engine: one fsync for many groups, order, crash, shutdown, damage.

use std::sync::mpsc;

use bytes::Bytes;
use storage::log::verify_offline;
use storage::{LogStore, StorageError};

use crate::log_suite::{all, entries, wait};
use crate::support::{Folder, copy_of, cut, flip, plain, waiter};

#[test]
fn many_groups_share_few_fsyncs() {
    let folder = Folder::new();
    let engine = folder.engine();
    let logs: Vec<_> = (0..60).map(|group| engine.group(group, plain()).expect("group")).collect();
    // The first completion holds the writer until all the others have queued.
    let (release, held) = mpsc::channel::<()>();
    logs[0].save_vote(
        Bytes::from_static(b"v"),
        Box::new(move |_| {
            let _ = held.recv();
        }),
    );
    let (sender, results) = mpsc::channel();
    for round in 0..10_u64 {
        for log in &logs {
            let (sender, group) = (sender.clone(), log.group_id());
            log.append(
                entries(round..round + 1, "e"),
                Box::new(move |result| {
                    result.expect("append");
                    let _ = sender.send((round, group));
                }),
            );
            assert_eq!(log.last().expect("readable at once").map(|(index, _)| index), Some(round));
        }
    }
    drop(release);
    let order: Vec<_> = results.iter().take(600).collect();
    assert!(order.is_sorted(), "completions run in the order of the calls");
    let stats = engine.stats();
    assert_eq!((stats.appends, stats.entries), (600, 600));
    assert!((1..=3).contains(&stats.fsyncs), "600 appends of 60 groups, {} fsyncs", stats.fsyncs);
    assert_eq!(stats.fsyncs, stats.batches, "and each batch had one, by the database's own count");
    drop((logs, engine));
    let engine = folder.engine();
    for group in 0..60 {
        assert_eq!(all(&engine.group(group, plain()).expect("group")), entries(0..10, "e"));
    }
}

#[test]
fn a_queue_at_its_bound_makes_callers_wait_but_not_its_own_completions() {
    let folder = Folder::new();
    let options = storage::LogOptions { queue_bytes_max: 1, cache_bytes_max: 0 };
    let engine = storage::LogEngine::open_with(&folder.root(), crate::support::shared(), crate::support::LOG, options)
        .expect("open");
    let log = engine.group(1, plain()).expect("group");
    let (sender, results) = mpsc::channel();
    for index in 0..50 {
        let (sender, again) = (sender.clone(), log.clone());
        log.append(
            entries(index..index + 1, "e"),
            Box::new(move |result| {
                result.expect("append");
                // From the writer's thread: would wait for itself if the bound held here.
                again.save_vote(Bytes::from(vec![index as u8]), Box::new(move |r| drop(sender.send(r))));
            }),
        );
    }
    assert!(results.iter().take(50).all(|result| result.is_ok()));
    assert_eq!(all(&log), entries(0..50, "e"));
}

#[test]
fn dropping_the_engine_writes_what_is_queued_and_frees_the_folder() {
    let folder = Folder::new();
    let engine = folder.engine();
    let log = engine.group(1, plain()).expect("group");
    let receivers: Vec<_> = (0..100_u64)
        .map(|index| {
            let (done, receiver) = waiter();
            log.append(entries(index..index + 1, "e"), done);
            receiver
        })
        .collect();
    log.save_committed(Bytes::from_static(b"99")).expect("committed");
    drop(engine);
    for receiver in receivers {
        assert_eq!(receiver.recv(), Ok(Ok(())));
    }
    // `log` is still alive; the folder is free nevertheless.
    assert_eq!(log.last().expect_err("closed").code(), "storage_closed");
    assert_eq!(wait(|done| log.truncate_after(None, done)).expect_err("closed").code(), "storage_closed");
    let engine = folder.engine();
    let log = engine.group(1, plain()).expect("group");
    assert_eq!(all(&log), entries(0..100, "e"));
    assert_eq!(log.read_committed().expect("read"), Some(Bytes::from_static(b"99")), "rode with the last batch");
}

#[test]
fn a_dropped_group_is_gone_and_its_neighbours_stay() {
    let folder = Folder::new();
    let engine = folder.engine();
    let log = |group| engine.group(group, plain()).expect("group");
    for group in [6, 7, 8, u64::MAX] {
        wait(|done| log(group).append(entries(0..5, "e"), done)).expect("append");
        log(group).save_committed(Bytes::from_static(b"c")).expect("committed");
    }
    let old = log(7);
    engine.drop_group(7).expect("drop");
    engine.drop_group(u64::MAX).expect("drop");
    engine.drop_group(1234).expect("a group that never was");
    assert_eq!(old.last().expect_err("dropped").code(), "storage_closed");
    assert_eq!(wait(|done| old.append(entries(5..6, "e"), done)).expect_err("dropped").code(), "storage_closed");
    assert_eq!(old.save_committed(Bytes::new()).expect_err("dropped").code(), "storage_closed");
    assert!(all(&log(7)).is_empty(), "a new life begins empty");
    wait(|done| log(7).append(entries(50..52, "n"), done)).expect("append");
    drop(old);
    let engine = {
        drop(engine);
        folder.engine()
    };
    let log = |group| engine.group(group, plain()).expect("group");
    assert_eq!(all(&log(7)), entries(50..52, "n"));
    assert_eq!(log(7).read_committed().expect("read"), None);
    assert!(all(&log(u64::MAX)).is_empty());
    for group in [6, 8] {
        assert_eq!(all(&log(group)), entries(0..5, "e"));
        assert_eq!(log(group).read_committed().expect("read"), Some(Bytes::from_static(b"c")));
    }
}

#[test]
fn what_a_group_keeps_beside_its_entries_is_apart_from_them_and_goes_with_the_group() {
    let folder = Folder::new();
    let engine = folder.engine();
    let beside = |group| engine.beside(group, plain()).expect("group");
    for group in [6, 7] {
        wait(|done| engine.group(group, plain()).expect("group").append(entries(0..5, "e"), done)).expect("append");
        wait(|done| beside(group).append(entries(100..103, "b"), done)).expect("append");
    }
    assert_eq!(all(&engine.group(7, plain()).expect("group")), entries(0..5, "e"));
    assert_eq!(all(&beside(7)), entries(100..103, "b"));
    let old = beside(7);
    engine.drop_group(7).expect("drop");
    assert_eq!(old.last().expect_err("dropped").code(), "storage_closed");
    assert!(all(&beside(7)).is_empty(), "a new life has promised nothing");
    assert_eq!(all(&beside(6)), entries(100..103, "b"));
    drop((old, engine));
    verify_offline(&folder.root()).expect("both logs are whole");
    let engine = folder.engine();
    assert!(all(&engine.beside(7, plain()).expect("group")).is_empty());
    assert_eq!(all(&engine.beside(6, plain()).expect("group")), entries(100..103, "b"));
}

#[test]
fn readers_beside_a_writer_never_see_a_mixture() {
    let folder = Folder::new();
    let options = storage::LogOptions { cache_bytes_max: 64, ..Default::default() };
    let engine = storage::LogEngine::open_with(&folder.root(), crate::support::shared(), crate::support::LOG, options)
        .expect("open");
    let log = engine.group(1, plain()).expect("group");
    std::thread::scope(|scope| {
        let reader = log.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let reading = scope.spawn(move || {
            let mut reads = 0_u64;
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let found = reader.read(0..u64::MAX, usize::MAX).expect("read");
                // One tag from some point on: rounds replace the log from index 10 on.
                let tags: Vec<_> = found.iter().skip(10).map(|(_, entry)| entry.split(|b| *b == b'-').next()).collect();
                assert!(tags.windows(2).all(|pair| pair[0] == pair[1]), "a mixture: {found:?}");
                assert!(found.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
                reads += 1;
            }
            reads
        });
        wait(|done| log.append(entries(0..10, "base"), done)).expect("append");
        for round in 0..200 {
            log.truncate_after(Some(9), Box::new(|result| result.expect("truncate")));
            wait(|done| log.append(entries(10..30, &format!("r{round}")), done)).expect("append");
        }
        drop(stop);
        assert!(reading.join().expect("reader") > 0);
    });
}

#[test]
fn what_was_acknowledged_is_in_the_files_at_that_moment() {
    let folder = Folder::new();
    let engine = folder.engine();
    let log = engine.group(1, plain()).expect("group");
    for round in 0..5 {
        wait(|done| log.append(entries(round * 3..round * 3 + 3, "e"), done)).expect("append");
        wait(|done| log.save_vote(Bytes::from(vec![round as u8]), done)).expect("vote");
        let crashed = copy_of(&folder);
        let engine = crashed.engine();
        let after = engine.group(1, plain()).expect("group");
        assert_eq!(all(&after), entries(0..round * 3 + 3, "e"));
        assert_eq!(after.read_vote().expect("read"), Some(Bytes::from(vec![round as u8])));
    }
}

fn filled() -> Folder {
    let folder = Folder::new();
    let engine = folder.engine();
    let log = engine.group(1, plain()).expect("group");
    for index in 0..50_u64 {
        let entry = Bytes::from(vec![index as u8; 1000]);
        wait(|done| log.append(vec![(index, entry)], done)).expect("append");
    }
    drop(engine);
    folder
}

fn is_wal(name: &str) -> bool {
    name.ends_with(".log")
}

fn open_and_read(folder: &Folder) -> Result<Vec<(u64, Bytes)>, StorageError> {
    let engine = folder.try_engine()?;
    let log = engine.group(1, plain())?;
    log.read(0..u64::MAX, usize::MAX)
}

#[test]
fn a_damaged_write_ahead_log_is_refused_naming_the_file() {
    let folder = filled();
    let report = verify_offline(&folder.root()).expect("intact");
    assert_eq!((report.pairs, report.cluster), (50, crate::support::CLUSTER));
    let wal = folder.file(is_wal);
    flip(&wal, 20_000);
    for error in [open_and_read(&folder).expect_err("damaged"), verify_offline(&folder.root()).expect_err("damaged")] {
        assert_eq!(error.code(), "storage_corrupt", "{error}");
        assert!(error.to_string().contains(".log") || error.path().starts_with(folder.root()), "{error}");
    }
}

/// A folder as it stood after the acknowledgement of each of two appends of a running engine.
fn twice() -> (Folder, Folder) {
    let folder = Folder::new();
    let engine = folder.engine();
    let log = engine.group(1, plain()).expect("group");
    wait(|done| log.append(entries(0..50, "e"), done)).expect("append");
    let first = copy_of(&folder);
    wait(|done| log.append(entries(50..51, "last"), done)).expect("append");
    (first, copy_of(&folder))
}

#[test]
fn a_write_that_nobody_was_told_of_may_be_torn() {
    let (first, second) = twice();
    let (before, after) = (first.file(is_wal), second.file(is_wal));
    let acknowledged = std::fs::metadata(&before).expect("file").len();
    let whole = std::fs::read(&after).expect("file");
    // What a crash in the middle of the second write leaves, at every length of it.
    for length in acknowledged as usize..whole.len() {
        let crashed = copy_of(&first);
        std::fs::write(crashed.file(is_wal), &whole[..length]).expect("write");
        assert_eq!(open_and_read(&crashed).expect("a torn tail is normal"), entries(0..50, "e"), "{length}");
    }
    // And the same with the write complete, before anybody was told.
    std::fs::write(&before, &whole).expect("write");
    assert_eq!(open_and_read(&first).expect("more than was acknowledged").len(), 51);
}

#[test]
fn a_write_ahead_log_that_lost_what_was_acknowledged_is_refused_naming_the_file() {
    let (first, second) = twice();
    let acknowledged = std::fs::metadata(first.file(is_wal)).expect("file").len();
    let whole = std::fs::metadata(second.file(is_wal)).expect("file").len();
    // At the end of a record and in the middle of one, by one record and by all of them.
    for length in [whole - 1, acknowledged, acknowledged - 1, 100, 0] {
        let hurt = copy_of(&second);
        let wal = hurt.file(is_wal);
        cut(&wal, length);
        for error in [
            verify_offline(&hurt.root()).expect_err("acknowledged entries are missing"),
            open_and_read(&hurt).expect_err("acknowledged entries are missing"),
            open_and_read(&hurt).expect_err("and a second start finds it as well"),
        ] {
            assert_eq!(error.code(), "storage_truncated", "cut to {length}: {error}");
            assert!(error.to_string().contains("51 were acknowledged"), "{error}");
            assert_eq!(error.path().extension().expect("a file"), "log", "{error}");
        }
    }
    let gone = copy_of(&second);
    std::fs::remove_file(gone.file(is_wal)).expect("remove");
    let code = open_and_read(&gone).expect_err("the file is gone").code();
    assert!(["storage_truncated", "storage_corrupt"].contains(&code), "{code}");
    // Without the mark nothing says what was acknowledged, so it is not guessed.
    let unmarked = copy_of(&second);
    std::fs::remove_file(unmarked.root().join("ACKED")).expect("remove");
    assert_eq!(open_and_read(&unmarked).expect_err("the mark is gone").code(), "storage_corrupt");
    assert_eq!(open_and_read(&second).expect("untouched").len(), 51);
}

/// What is flushed into tables leaves the write-ahead log; the count goes on over it.
#[test]
fn the_mark_holds_over_restarts_flushes_and_removed_groups() {
    let folder = Folder::new();
    let payload = Bytes::from(vec![7; 1 << 20]);
    for life in 0..4_u64 {
        let engine = folder.engine();
        let log = engine.group(1, plain()).expect("group");
        for index in life * 20..life * 20 + 20 {
            wait(|done| log.append(vec![(index, payload.clone())], done)).expect("append");
        }
        wait(|done| log.purge_upto(life * 20, Bytes::new(), done)).expect("purge");
        engine.drop_group(2).expect("drop");
        let crashed = copy_of(&folder);
        assert_eq!(
            crashed.engine().group(1, plain()).expect("group").last().expect("last").expect("one").0,
            life * 20 + 19
        );
        drop((log, engine));
        verify_offline(&folder.root()).expect("intact");
    }
}

#[test]
fn a_missing_or_cut_manifest_is_refused() {
    for damage in [
        |path: &std::path::Path| cut(path, 10),
        |path: &std::path::Path| {
            std::fs::remove_file(path).expect("remove");
        },
    ] {
        let folder = filled();
        damage(&folder.file(|name| name.starts_with("MANIFEST-")));
        let error = open_and_read(&folder).expect_err("damaged");
        assert_eq!(error.code(), "storage_corrupt", "{error}");
        assert_eq!(verify_offline(&folder.root()).expect_err("damaged").code(), "storage_corrupt");
    }
    let folder = filled();
    std::fs::remove_file(folder.file(|name| name == "CURRENT")).expect("remove");
    assert_eq!(open_and_read(&folder).expect_err("never recreated empty").code(), "storage_corrupt");
}
