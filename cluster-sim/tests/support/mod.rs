//! Runs on all cores, and who finds which bug.

#![allow(dead_code, reason = "every test binary uses a part of it")]

pub mod finders;

use std::sync::atomic::{AtomicUsize, Ordering};

use cluster_sim::SimReport;

/// Does `work` for every item, on all cores; results in the order of the items.
pub fn on_all_cores<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let worker = || {
            let mut mine = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                match items.get(at) {
                    Some(item) => mine.push((at, work(item))),
                    None => return mine,
                }
            }
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(move || ledger::memo::remembering(worker))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a run panics only where it is caught")).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Fails with everything there is to know about the first run that violated something.
pub fn assert_passed(report: &SimReport) {
    assert!(report.passed(), "{}", serde_json::to_string_pretty(report).expect("a report is plain data"));
}
