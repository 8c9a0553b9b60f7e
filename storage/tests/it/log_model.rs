//! Random histories: the shared engine against the memory log, with restarts and two groups.

use bytes::Bytes;
use proptest::prelude::*;
use storage::{GroupLog, LogEngine, LogOptions, LogStore, MemLog};

use crate::log_suite::{all, entries, wait};
use crate::support::{Folder, LOG, plain, shared};

#[derive(Debug, Clone)]
enum Step {
    /// Appends so many entries at the end, shifted by an offset that is mostly 0 (else refused).
    Append(u64, u64),
    Truncate(Option<u64>),
    Purge(u64),
    Vote(u8),
    Committed(u8),
    Read(u64, u64, usize),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let step = prop_oneof![
        6 => (0..6_u64, prop_oneof![9 => Just(0_u64), 1 => Just(1)]).prop_map(|(n, off)| Step::Append(n, off)),
        2 => proptest::option::of(0..40_u64).prop_map(Step::Truncate),
        2 => (0..40_u64).prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => any::<u8>().prop_map(Step::Committed),
        4 => (0..40_u64, 0..40_u64, 0..60_usize).prop_map(|(from, to, bytes)| Step::Read(from, to, bytes)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec((any::<bool>(), step), 1..40)
}

fn next_index(log: &impl LogStore) -> u64 {
    let last = log.last().expect("last").map(|(index, _)| index);
    last.or(log.purged_index().expect("purged")).map_or(0, |index| index + 1)
}

/// One change on one log; only whether it was refused is compared.
fn change(log: &impl LogStore, step: &Step, round: usize) -> Result<(), &'static str> {
    let result = match step {
        Step::Append(count, offset) => {
            let from = next_index(log) + offset;
            wait(|done| log.append(entries(from..from + count, &format!("r{round}")), done))
        }
        Step::Truncate(last_kept) => wait(|done| log.truncate_after(*last_kept, done)),
        Step::Purge(index) => wait(|done| log.purge_upto(*index, Bytes::from(format!("p{index}")), done)),
        Step::Vote(vote) => wait(|done| log.save_vote(Bytes::from(vec![*vote]), done)),
        Step::Committed(committed) => log.save_committed(Bytes::from(vec![*committed])),
        Step::Read(..) | Step::Restart => Ok(()),
    };
    result.map_err(|error| error.code())
}

fn same(real: &GroupLog, model: &MemLog) {
    assert_eq!(all(real), all(model));
    assert_eq!(real.first_index(), model.first_index());
    assert_eq!(real.last(), model.last());
    assert_eq!(real.purged(), model.purged());
    assert_eq!(real.purged_index(), model.purged_index());
    assert_eq!(real.read_vote(), model.read_vote());
    assert_eq!(real.read_committed(), model.read_committed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_shared_engine_is_the_memory_log(steps in steps(), cache_bytes_max in 0..40_usize) {
        let folder = Folder::new();
        let options = LogOptions { cache_bytes_max, ..LogOptions::default() };
        let open = || LogEngine::open_with(&folder.root(), shared(), LOG, options).expect("open");
        let mut engine = open();
        let models = [MemLog::immediate("model"), MemLog::immediate("model")];
        for (round, (second, step)) in steps.into_iter().enumerate() {
            if matches!(step, Step::Restart) {
                drop(engine);
                engine = open();
            }
            let logs = [1, 2].map(|group| engine.group(group, plain()).expect("group"));
            let (log, model) = (&logs[usize::from(second)], &models[usize::from(second)]);
            assert_eq!(change(log, &step, round), change(model, &step, round));
            if let Step::Read(from, to, bytes_max) = step {
                assert_eq!(log.read(from..to, bytes_max), model.read(from..to, bytes_max));
            }
            for (log, model) in logs.iter().zip(&models) {
                same(log, model);
            }
        }
    }
}
