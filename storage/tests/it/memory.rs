//! Crash and fault semantics of the memory and faulty databases.

use std::sync::Arc;

use storage::{Crash, Fault, FaultPlan, FaultyKv, FrameCipher, KeyRange, Kv, MemKv, NoFaults, Operation, SealedKv};

use crate::kv_suite::{batch, content};

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_string(), value.to_string())
}

#[test]
fn a_crash_keeps_a_prefix_of_the_unflushed_batches() {
    for keep in 0..=3 {
        let kv = MemKv::new();
        kv.write(batch(&[("flushed", "yes")])).expect("write");
        kv.flush().expect("flush");
        for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            kv.write(batch(&[(key, value)])).expect("write");
        }
        assert_eq!(kv.unflushed(), 3);
        kv.crash(keep);
        let expected = match keep {
            0 => vec![],
            1 => vec![pair("a", "1")],
            2 => vec![pair("a", "1"), pair("b", "2")],
            _ => vec![pair("a", "3"), pair("b", "2")],
        };
        assert_eq!(content(&kv), [expected, vec![pair("flushed", "yes")]].concat());
        kv.crash(0);
        assert_eq!(kv.get(b"flushed").expect("get").expect("present"), "yes");
    }
}

#[test]
fn a_checkpoint_opens_again_and_damage_to_it_is_found() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (kv, copy) = (MemKv::new(), dir.path().join("copy"));
    kv.write(batch(&[("a", "1"), ("b", "")])).expect("write");
    kv.checkpoint(&copy).expect("checkpoint");
    let opened = MemKv::open_checkpoint(&copy).expect("open");
    opened.crash(0);
    assert_eq!(content(&opened), content(&kv));
    let exported = kv.export();
    for at in 0..exported.len() {
        let mut bad = exported.to_vec();
        bad[at] ^= 4;
        let error = MemKv::import(&bad, &copy).err().expect("damage is found");
        assert_eq!(error.code(), "storage_corrupt");
        assert!(MemKv::import(&exported[..at], &copy).is_err(), "cut at {at}");
    }
}

#[test]
fn failures_have_no_effect_and_their_codes() {
    let plan = |number: u64, operation: Operation| match (number, operation) {
        (0, Operation::Write { .. }) => Fault::DiskFull,
        (1, Operation::Write { .. }) => Fault::Io,
        (_, Operation::Flush) => Fault::Slow { units: 5 },
        _ => Fault::None,
    };
    let kv = FaultyKv::new(MemKv::new(), plan, "disk");
    assert_eq!(kv.write(batch(&[("a", "1")])).expect_err("fails").code(), "storage_disk_full");
    assert_eq!(kv.write(batch(&[("a", "1")])).expect_err("fails").code(), "storage_io");
    assert!(content(&kv).is_empty());
    kv.write(batch(&[("a", "2")])).expect("write");
    kv.flush().expect("slow, not wrong");
    let counts = kv.counts();
    assert_eq!((counts.failed, counts.slow_units), (2, 5));
}

#[test]
fn a_lost_flush_lies_and_a_torn_crash_keeps_what_the_plan_says() {
    struct Torn;
    impl FaultPlan for Torn {
        fn decide(&mut self, _: u64, operation: Operation) -> Fault {
            if operation == Operation::Flush { Fault::LostFlush } else { Fault::None }
        }
        fn survivors(&mut self, unflushed: usize) -> usize {
            unflushed / 2
        }
    }
    let kv = FaultyKv::new(MemKv::new(), Torn, "disk");
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] {
        kv.write(batch(&[(key, value)])).expect("write");
        kv.flush().expect("says it is durable");
    }
    kv.crash_by_plan();
    assert_eq!(content(&kv), [pair("a", "1"), pair("b", "2")]);
    assert_eq!((kv.counts().lost_flushes, kv.counts().crashes), (4, 1));
}

#[test]
fn a_flipped_byte_is_served_raw_but_found_behind_a_frame() {
    let flips = |_: u64, operation: Operation| match operation {
        Operation::Get | Operation::MultiGet(_) | Operation::Scan => Fault::Corrupt { byte: 1 },
        Operation::Write { .. } | Operation::Flush | Operation::Checkpoint => Fault::None,
    };
    let raw = FaultyKv::new(MemKv::new(), flips, "raw");
    raw.write(batch(&[("a", "xyz")])).expect("write");
    assert_eq!(raw.get(b"a").expect("get").expect("present"), "xxz");
    assert_eq!(raw.inner().get(b"a").expect("get").expect("present"), "xyz");

    let framed = SealedKv::new(FaultyKv::new(MemKv::new(), flips, "raw"), Arc::new(FrameCipher), "framed");
    framed.write(batch(&[("a", "xyz")])).expect("write");
    let view = framed.snapshot_view();
    let errors = [
        framed.get(b"a").map(drop),
        framed.multi_get(&[b"none", b"a"]).map(drop),
        framed.scan(KeyRange::all(), 9).map(drop),
        view.get(b"a").map(drop),
        view.scan(KeyRange::all(), 9).map(drop),
    ];
    for error in errors {
        assert_eq!(error.expect_err("found").code(), "storage_corrupt");
    }
    assert_eq!(framed.inner().counts().corrupted, 5);
}

#[test]
fn crashes_pass_through_the_wrappers() {
    let kv = SealedKv::new(FaultyKv::new(MemKv::new(), NoFaults, "d"), Arc::new(FrameCipher), "s");
    kv.write(batch(&[("a", "1")])).expect("write");
    kv.write(batch(&[("b", "2")])).expect("write");
    assert_eq!(kv.unflushed(), 2);
    kv.crash(1);
    assert_eq!(content(&kv), [pair("a", "1")]);
}
