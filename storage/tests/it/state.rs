//! The RocksDB state database: durability without a WAL, damage, many databases in one process.

use storage::rocks::verify_offline;
use storage::{KeyRange, Kv, StateDb, StateIdentity, WriteBatch};

use crate::kv_suite::{batch, content};
use crate::support::{Folder, STATE, copy_of, cut, flip, plain, shared};

#[test]
fn what_was_not_flushed_is_lost_what_was_flushed_stays() {
    let folder = Folder::new();
    let db = folder.state();
    db.write(batch(&[("a", "1")])).expect("write");
    db.flush().expect("flush");
    db.write(batch(&[("a", "2"), ("b", "2")])).expect("write");
    drop(db);
    let db = folder.state();
    assert_eq!(content(&db), [("a".to_string(), "1".to_string())], "no WAL, no flush at the end");
    db.write(batch(&[("a", "3")])).expect("write");
    db.flush().expect("flush");
    drop(db);
    assert_eq!(content(&folder.state()), [("a".to_string(), "3".to_string())]);
}

#[test]
fn what_was_flushed_is_in_the_files_at_that_moment() {
    let folder = Folder::new();
    let db = folder.state();
    for value in ["1", "2", "3"] {
        db.write(batch(&[("a", value)])).expect("write");
        db.flush().expect("flush");
        db.write(batch(&[("a", "not flushed")])).expect("write");
        let crashed = copy_of(&folder);
        assert_eq!(content(&crashed.state()), [("a".to_string(), value.to_string())]);
    }
}

#[test]
fn memory_pressure_flushes_whole_batches_in_order() {
    // 40 MiB through 16 MiB write buffers: some were flushed in the background, some not.
    let folder = Folder::new();
    let db = folder.state();
    let filler = vec![1_u8; 64 << 10];
    for number in 0..640_u64 {
        let mut changes = WriteBatch::new();
        changes.put("head", number.to_be_bytes().to_vec());
        changes.put(number.to_be_bytes().to_vec(), filler.clone());
        changes.put("tail", number.to_be_bytes().to_vec());
        db.write(changes).expect("write");
    }
    drop(db);
    let db = folder.state();
    let (head, tail) = (db.get(b"head").expect("get"), db.get(b"tail").expect("get"));
    assert_eq!(head, tail, "a batch is whole or absent");
    let survived = head.map_or(0, |head| u64::from_be_bytes(head[..].try_into().expect("8 bytes")) + 1);
    let numbered = db.scan(KeyRange::new(vec![0; 8], vec![0, 0, 0, 0, 1]), usize::MAX).expect("scan");
    assert_eq!(numbered.len() as u64, survived, "a prefix of the batches");
}

fn filled() -> Folder {
    let folder = Folder::new();
    let db = folder.state();
    let mut changes = WriteBatch::new();
    for number in 0..5_000_u64 {
        changes.put(number.to_be_bytes().to_vec(), format!("{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
    db.write(changes).expect("write");
    db.flush().expect("flush");
    folder
}

fn is_table(name: &str) -> bool {
    name.ends_with(".sst")
}

#[test]
fn the_offline_check_sees_everything() {
    let folder = filled();
    let report = verify_offline(&folder.root()).expect("intact");
    assert_eq!((report.pairs, report.files, report.group), (5_000, 1, STATE.group));
}

#[test]
fn a_flipped_byte_anywhere_in_a_block_is_found() {
    let length = std::fs::metadata(filled().file(is_table)).expect("file").len() as usize;
    for part in [10, length / 3, length / 2] {
        let folder = filled();
        let table = folder.file(is_table);
        flip(&table, part);
        // Deliberately a process-fresh cache entry: another folder, another file.
        let error = folder.try_state().and_then(|db| db.scan(KeyRange::all(), usize::MAX)).expect_err("found");
        assert_eq!(error.code(), "storage_corrupt", "{error}");
        assert_eq!(error.path(), table, "names the file");
        let error = verify_offline(&folder.root()).expect_err("found");
        assert_eq!((error.code(), error.path()), ("storage_corrupt", &*table), "{error}");
    }
}

#[test]
fn cut_or_missing_files_are_clear_errors() {
    let damages: [fn(&Folder); 5] = [
        |folder| cut(&folder.file(is_table), 100),
        |folder| cut(&folder.file(is_table), 0),
        |folder| std::fs::remove_file(folder.file(is_table)).expect("remove"),
        |folder| cut(&folder.file(|name| name.starts_with("MANIFEST-")), 12),
        |folder| std::fs::remove_file(folder.file(|name| name == "CURRENT")).expect("remove"),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let folder = filled();
        damage(&folder);
        let read = folder.try_state().and_then(|db| db.scan(KeyRange::all(), usize::MAX));
        let error = read.err().unwrap_or_else(|| panic!("damage {number} was served"));
        assert_eq!(error.code(), "storage_corrupt", "damage {number}: {error}");
        assert_eq!(verify_offline(&folder.root()).expect_err("found").code(), "storage_corrupt");
    }
}

#[test]
fn a_checkpoint_is_complete_and_later_writes_do_not_reach_it() {
    let folder = Folder::new();
    let db = folder.state();
    db.write(batch(&[("a", "1")])).expect("write");
    db.checkpoint(&folder.path().join("copy")).expect("checkpoint flushes");
    db.write(batch(&[("a", "2")])).expect("write");
    db.flush().expect("flush");
    let fresh = Folder::new();
    let staged = StateDb::stage(&folder.path().join("copy"), &fresh.root(), shared(), STATE, plain());
    drop(staged.and_then(storage::StagedState::switch).expect("install"));
    assert_eq!(content(&fresh.state()), [("a".to_string(), "1".to_string())]);
}

#[test]
fn sixty_databases_share_one_budget() {
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let folders: Vec<Folder> = (0..60).map(|_| Folder::new()).collect();
    let _warm = Folder::new().into_state(plain());
    let before = threads();
    let databases: Vec<StateDb> = folders.iter().map(Folder::state).collect();
    for db in &databases {
        db.write(batch(&[("a", "1")])).expect("write");
    }
    for db in &databases {
        db.flush().expect("flush");
    }
    // Other tests start threads as well; one per database would still show.
    assert!(threads() < before + 40, "{before} threads before, {} after", threads());
}

/// RocksDB's threads have names where the C library gives them any.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn threads_that_compact_stand_back_and_threads_that_flush_do_not() {
    let own = rustix::process::getpriority_process(Some(rustix::thread::gettid())).expect("every thread has one");
    let _open = Folder::new().into_state(plain());
    let (mut compacting, mut flushing) = (Vec::new(), Vec::new());
    for thread in std::fs::read_dir("/proc/self/task").expect("the threads of this process") {
        let folder = thread.expect("a thread").path();
        // One that has ended meanwhile has neither a name nor a niceness.
        let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let id = folder.file_name().and_then(|id| id.to_str()).and_then(|id| id.parse().ok());
        let id = id.and_then(rustix::process::Pid::from_raw).expect("folders are named by threads");
        let Ok(niceness) = rustix::process::getpriority_process(Some(id)) else { continue };
        match name.trim_end() {
            "rocksdb:low" => compacting.push(niceness),
            "rocksdb:high" => flushing.push(niceness),
            _ => {}
        }
    }
    assert!(!compacting.is_empty() && compacting.iter().all(|niceness| *niceness == own.max(5)), "{compacting:?}");
    assert!(!flushing.is_empty() && flushing.iter().all(|niceness| *niceness == own), "{flushing:?}");
}

#[test]
fn a_copy_of_another_groups_state_is_its_own_and_gives_space_back() {
    let folder = Folder::new();
    let parent = folder.state();
    let letter = |at: u32| b'a' + u8::try_from((at.wrapping_mul(2_654_435_761) >> 13) % 26).expect("below 26");
    let filler: Vec<u8> = (0..64u32 << 10).map(letter).collect();
    for number in 0..64_u8 {
        let mut changes = WriteBatch::new();
        changes.put(vec![number], filler.clone());
        parent.write(changes).expect("write");
    }
    let received = folder.path().join("checkpoint");
    parent.checkpoint(&received).expect("checkpoint");
    let (root, child) = (folder.path().join("child"), StateIdentity { group: STATE.group + 1, ..STATE });
    let other = StateIdentity { group: STATE.group + 2, ..STATE };
    let refused = StateDb::branch(&received, &root, shared(), (other, child), plain());
    assert_eq!(refused.err().map(|error| error.code()), Some("storage_wrong_group"));
    let copy = StateDb::branch(&received, &root, shared(), (STATE, child), plain()).expect("a copy");
    assert_eq!(content(&copy), content(&parent));

    let (cut, kept) = (KeyRange::new(vec![0], vec![32]), KeyRange::new(vec![32], vec![64]));
    let mut changes = WriteBatch::new();
    changes.delete_range(cut.start.clone(), cut.end.clone().expect("it has an end"));
    copy.write(changes).expect("write");
    copy.flush().expect("flush");
    assert!(copy.disk_bytes(&cut).expect("an estimate") > 0, "only the space is still there");
    let costs = copy.compacted_bytes(&cut).expect("a sum");
    assert!(costs >= copy.disk_bytes(&cut).expect("an estimate"), "whole files are rewritten: {costs}");
    assert_eq!(copy.compacted_bytes(&KeyRange::new(vec![64], vec![65])).expect("a sum"), 0, "no file lies there");
    // Whoever is about to be closed compacts nothing, and can be read until then.
    copy.give_up();
    copy.compact(&cut).expect("given up");
    assert!(copy.disk_bytes(&cut).expect("an estimate") > 0);
    assert_eq!(content(&copy).len(), 32);
    assert!(copy.flush().is_err(), "it is not taken for durable");
    drop(copy);
    let copy = StateDb::open_quiet(&root, shared(), child, plain()).expect("open");
    copy.compact(&cut).expect("compacted");
    assert_eq!(copy.disk_bytes(&cut).expect("an estimate"), 0);
    assert!(copy.disk_bytes(&kept).expect("an estimate") > 0);
    assert_eq!(content(&parent).len(), 64, "the parent is as it was");
    drop(copy);
    assert_eq!(content(&StateDb::open(&root, shared(), child, plain()).expect("open")).len(), 32);
}

#[test]
#[cfg(target_os = "linux")]
fn a_copy_that_follows_for_long_keeps_all_of_its_table_files_open() {
    let folder = Folder::new();
    let parent = folder.state();
    parent.write(batch(&[("a", "1")])).expect("write");
    let received = folder.path().join("checkpoint");
    parent.checkpoint(&received).expect("checkpoint");
    let (root, child) = (folder.path().join("child"), StateIdentity { group: STATE.group + 1, ..STATE });
    let copy = StateDb::branch(&received, &root, shared(), (STATE, child), plain()).expect("a copy");
    let there = std::fs::canonicalize(&root).expect("it is there");
    let open = || {
        let files = std::fs::read_dir("/proc/self/fd").expect("this system has it").flatten();
        let files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        files.filter(|file| file.starts_with(&there) && file.extension().is_some_and(|kind| kind == "sst")).count()
    };
    // One is the parent's, and no state has more than 54 of its files open where nothing else is said.
    for number in 1..60_u8 {
        copy.write(batch(&[("a", "1"), (number.to_string().as_str(), "2")])).expect("write");
        copy.flush().expect("flush");
    }
    assert_eq!(content(&copy).len(), 60);
    assert_eq!(open(), 60);
    drop(copy);
    let quiet = StateDb::open_quiet(&root, shared(), child, plain()).expect("open");
    assert_eq!(content(&quiet).len(), 60);
    assert_eq!(open(), 60);
}

/// Where the system knows no such names, it is closed and opened again.
#[test]
#[cfg(target_os = "linux")]
fn a_copy_stays_open_while_its_folder_becomes_that_of_its_group() {
    let folder = Folder::new();
    let parent = folder.state();
    assert!(!parent.goes_along(), "nobody renames what it lies in");
    parent.write(batch(&[("a", "1"), ("b", "1")])).expect("write");
    let received = folder.path().join("checkpoint");
    parent.checkpoint(&received).expect("checkpoint");
    let (warm, settled) = (folder.path().join("warm"), folder.path().join("settled"));
    let (root, child) = (settled.join("state"), StateIdentity { group: STATE.group + 1, ..STATE });
    let branch = |warm: &std::path::Path| {
        std::fs::create_dir(warm).expect("a folder");
        StateDb::branch(&received, &warm.join("state"), shared(), (STATE, child), plain()).expect("a copy")
    };
    let copy = branch(&warm);
    assert!(copy.goes_along() && copy.folder().starts_with(&warm));
    copy.write(batch(&[("a", "2")])).expect("write");
    copy.flush().expect("flush");
    let opened = || std::fs::read(root.join("db-0000000000000001").join("CURRENT")).expect("it has one");
    std::fs::rename(&warm, &settled).expect("renamed");
    let before = opened();
    let copy = copy.settled(&root).expect("it has gone along");
    assert!(copy.folder().starts_with(&settled));

    // It writes and reads files, and gives them to others, as any other one.
    copy.write(batch(&[("c", "3")])).expect("write");
    copy.flush().expect("flush");
    copy.bring(shared(), &[(b"d".to_vec(), "4".into())]).expect("brought");
    copy.wake().expect("it compacts from now on");
    copy.compact(&KeyRange::all()).expect("compacted");
    let lent = folder.path().join("lent");
    copy.checkpoint(&lent).expect("checkpoint");
    let all = [("a", "2"), ("b", "1"), ("c", "3"), ("d", "4")].map(|(key, value)| (key.to_string(), value.to_string()));
    assert_eq!(content(&copy), all);
    assert_eq!(opened(), before, "it was opened once");
    drop(copy);
    assert!(!warm.exists());
    assert_eq!(content(&StateDb::open(&root, shared(), child, plain()).expect("it is closed, and whole")), all);
    let lender = StateDb::stage(&lent, &folder.path().join("borrower"), shared(), child, plain()).expect("whole");
    assert_eq!(content(lender.db()), all);

    // One that has not gone there is closed.
    let copy = branch(&warm);
    assert!(copy.settled(&root).is_none());
    let copy = StateDb::open(&warm.join("state"), shared(), child, plain()).expect("it is closed, and where it was");
    assert_eq!(content(&copy), content(&parent));
}

#[test]
fn files_in_which_nothing_is_left_go_unread_and_nothing_else_does() {
    let folder = Folder::new();
    let parent = folder.state();
    let letter = |at: u32| b'a' + u8::try_from((at.wrapping_mul(2_654_435_761) >> 13) % 26).expect("below 26");
    let filler = bytes::Bytes::from_iter((0..64u32 << 10).map(letter));
    // Each of them a file on the lowest level; the third one lies on both sides.
    for keys in [0..16, 16..31, 31..33, 33..64_u8] {
        let pairs: Vec<_> = keys.map(|number| (vec![number], filler.clone())).collect();
        parent.bring(shared(), &pairs).expect("brought");
    }
    let received = folder.path().join("checkpoint");
    parent.checkpoint(&received).expect("checkpoint");
    let (root, child) = (folder.path().join("child"), StateIdentity { group: STATE.group + 1, ..STATE });
    let copy = StateDb::branch(&received, &root, shared(), (STATE, child), plain()).expect("a copy");
    let (cut, kept) = (KeyRange::new(vec![0], vec![32]), KeyRange::new(vec![32], vec![64]));
    let bytes = |db: &StateDb, range: &KeyRange| db.disk_bytes(range).expect("an estimate");
    let (all, rest) = (bytes(&copy, &cut), bytes(&copy, &kept));
    copy.drop_files(&[cut.clone(), kept.clone(), KeyRange::all()]).expect("nothing is empty");
    assert_eq!(content(&copy).len(), 64);
    let mut changes = WriteBatch::new();
    changes.delete_range(cut.start.clone(), cut.end.clone().expect("it has an end"));
    copy.write(changes).expect("write");
    copy.flush().expect("flush");
    drop(copy);

    let left = content(&parent).split_off(32);
    let loud = StateDb::open(&root, shared(), child, plain()).expect("open");
    loud.drop_files(std::slice::from_ref(&cut)).expect("not while it is compacted");
    assert!(bytes(&loud, &cut) > all / 2);
    drop(loud);
    let quiet = StateDb::open_quiet(&root, shared(), child, plain()).expect("open");
    quiet.drop_files(&[cut.clone(), kept.clone()]).expect("dropped");
    assert!(bytes(&quiet, &cut) < all / 8, "of the third file a half");
    assert!(bytes(&quiet, &kept) > rest / 2);
    assert_eq!(content(&quiet), left);
    drop(quiet);
    let open = StateDb::open(&root, shared(), child, plain()).expect("open");
    assert_eq!(content(&open), left);
    open.compact(&cut).expect("compacted");
    assert_eq!(bytes(&open, &cut), 0);
    assert_eq!(content(&open), left);
    assert_eq!(content(&parent).len(), 64, "the parent is as it was");
}

#[test]
fn a_copy_is_swept_like_any_other_reader_and_takes_pairs_above_what_it_has() {
    let folder = Folder::new();
    let parent = folder.state();
    let filler = vec![b'a'; 1 << 10];
    for number in 0..64_u8 {
        let mut changes = WriteBatch::new();
        changes.put(vec![number], filler.clone());
        parent.write(changes).expect("write");
    }
    let received = folder.path().join("checkpoint");
    parent.checkpoint(&received).expect("checkpoint");
    let (root, child) = (folder.path().join("child"), StateIdentity { group: STATE.group + 1, ..STATE });
    let copy = StateDb::branch(&received, &root, shared(), (STATE, child), plain()).expect("a copy");
    let all = parent.scan(KeyRange::all(), 100).expect("read");
    assert_eq!(copy.sweep(KeyRange::all(), 100).expect("swept"), all);
    assert_eq!(copy.snapshot_view().sweep(KeyRange::all(), 100).expect("swept"), all);

    // What is brought stands above what was there, whether or not that is on the disk.
    let mut changes = WriteBatch::new();
    changes.put(vec![64, 1], "before");
    copy.write(changes).expect("write");
    copy.bring(shared(), &[]).expect("nothing is brought");
    copy.bring(shared(), &[(vec![63], "new".into()), (vec![64, 1], "after".into())]).expect("brought");
    let get = |key: &[u8]| copy.get(key).expect("read");
    assert_eq!((get(&[63]), get(&[64, 1])), (Some("new".into()), Some("after".into())));
    copy.bring(shared(), &[(vec![63], filler.clone().into())]).expect("brought");
    let mut changes = WriteBatch::new();
    changes.delete(vec![64, 1]);
    copy.write(changes).expect("write");
    assert_eq!(content(&copy), content(&parent));

    copy.flush().expect("flush");
    drop(copy);
    let open = StateDb::open_quiet(&root, shared(), child, plain()).expect("open");
    assert_eq!(content(&open), content(&parent));
    assert!(open.is_quiet() && !parent.is_quiet());
    open.wake().expect("it compacts from now on");
    assert!(!open.is_quiet());
    assert_eq!(content(&open), content(&parent));
}
