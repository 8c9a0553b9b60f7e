//! Random histories: every database against a plain ordered map, with crashes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use storage::{Crash, KeyRange, Kv, MemKv, WriteBatch};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Op>),
    Flush,
    /// Reads a range and a key.
    Look(Vec<u8>, Vec<u8>, usize),
    /// Power off (memory: so many batches survive) and on again.
    Restart(usize),
}

#[derive(Debug, Clone)]
enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (key(), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(key, value)| Op::Put(key, value)),
        2 => key().prop_map(Op::Delete),
        1 => (key(), key()).prop_map(|(start, end)| Op::DeleteRange(start, end)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => proptest::collection::vec(op(), 0..6).prop_map(Step::Write),
        1 => Just(Step::Flush),
        3 => (key(), key(), 0..9_usize).prop_map(|(start, end, limit)| Step::Look(start, end, limit)),
        1 => (0..5_usize).prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

fn apply(map: &mut Map, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
            Op::Delete(key) => drop(map.remove(key)),
            Op::DeleteRange(start, end) => map.retain(|key, _| key < start || key >= end),
        }
    }
}

fn to_batch(ops: &[Op]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for op in ops {
        match op.clone() {
            Op::Put(key, value) => batch.put(key, value),
            Op::Delete(key) => batch.delete(key),
            Op::DeleteRange(start, end) => batch.delete_range(start, end),
        }
    }
    batch
}

fn content(kv: &dyn Kv) -> Map {
    let pairs = kv.scan(KeyRange::all(), usize::MAX).expect("scan");
    pairs.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// `restart` powers the database off and on; it says how many unflushed batches must have survived,
/// or `None` if any prefix may have.
fn run<K: Kv>(steps: Vec<Step>, mut kv: K, restart: impl Fn(K, usize) -> (K, Option<usize>)) {
    // All states that a crash may leave: the flushed one, then one per batch.
    let mut states: Vec<Map> = vec![Map::new()];
    for step in steps {
        let now = states.last().expect("never empty").clone();
        match step {
            Step::Write(ops) => {
                kv.write(to_batch(&ops)).expect("write");
                let mut next = now;
                apply(&mut next, &ops);
                states.push(next);
            }
            Step::Flush => {
                kv.flush().expect("flush");
                states = vec![now];
            }
            Step::Look(start, end, limit) => {
                let got = kv.get(&start).expect("get").map(|value| value.to_vec());
                assert_eq!(got.as_ref(), now.get(&start));
                let got = kv.scan(KeyRange::new(start.clone(), end.clone()), limit).expect("scan");
                let got: Vec<_> = got.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
                let expected: Vec<_> =
                    now.into_iter().filter(|(key, _)| *key >= start && *key < end).take(limit).collect();
                assert_eq!(got, expected);
            }
            Step::Restart(keep) => {
                let (opened, survived) = restart(kv, keep);
                kv = opened;
                let found = content(&kv);
                match survived {
                    Some(count) => assert_eq!(found, states[count.min(states.len() - 1)]),
                    None => assert!(states.contains(&found), "not a prefix of the batches"),
                }
                states = vec![found];
            }
        }
    }
    assert_eq!(&content(&kv), states.last().expect("never empty"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_is_an_ordered_map_with_prefix_crashes(steps in steps()) {
        run(steps, MemKv::new(), |kv, keep| { kv.crash(keep); (kv, Some(keep)) });
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rocksdb_is_an_ordered_map_with_prefix_crashes(steps in steps()) {
        let folder = crate::support::Folder::new();
        run(steps, folder.state(), |kv, _| {
            drop(kv);
            (folder.state(), None)
        });
    }
}
