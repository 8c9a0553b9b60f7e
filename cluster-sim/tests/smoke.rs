//! Many small clusters, each from its seed and each run twice.

mod support;

use std::time::Instant;

use cluster_sim::{Coverage, Scenario, SimConfig, record, run, run_twice};
use support::{assert_passed, on_all_cores};

const SEEDS: u64 = 200;

/// What no seed has by itself: members that lose their seats, and money in a channel that is founded meanwhile.
const ASKED_FOR: [&str; 10] = [
    "accused",
    "struck_off",
    "slanders",
    "late_ballots",
    "swaps_in_changing_channels",
    "payments_behind_a_change",
    "undecided_at_a_change",
    "brought_in",
    "taken_home",
    "handed_on",
];

#[test]
fn no_seed_violates_anything_and_equal_seeds_are_equal() {
    let (config, start) = (SimConfig::default(), Instant::now());
    let seeds: Vec<u64> = (0..SEEDS).collect();
    let reports = on_all_cores(&seeds, |seed| run_twice(*seed, &config));
    let mut total = Coverage::default();
    let (mut transactions, mut committed, mut aborted, mut faults) = (0, 0, 0, 0);
    for report in &reports {
        assert_passed(report);
        total.add(&report.coverage);
        transactions += report.transactions;
        committed += report.committed;
        aborted += report.aborted;
        faults += report.faults;
    }
    println!("{SEEDS} seeds, {transactions} transactions and {faults} faults in {:.1?}", start.elapsed());
    // The seeds together must have met everything that they are there for.
    for (what, count) in total.counts().into_iter().filter(|(what, _)| !ASKED_FOR.contains(what)) {
        assert!(count >= SEEDS / 10, "{SEEDS} seeds met only {count} {what}");
    }
    for (what, count) in [("committed", committed), ("aborted", aborted)] {
        assert!(count >= 10 * SEEDS, "{SEEDS} seeds met only {count} {what} transactions");
    }
    let met = |scenario: &Scenario| reports.iter().any(|report| report.scenario == scenario.name());
    assert!(Scenario::ALL.iter().all(met), "some scenario was not met");
    assert!((1..=8).filter(|shards| reports.iter().any(|report| report.shards == *shards)).count() >= 7);
}

#[test]
fn different_seeds_are_different_runs_and_recording_changes_nothing() {
    let config = SimConfig { transactions: Some(10), safety_ms: Some(1_500), ..SimConfig::default() };
    let (one, other) = (run(1, &config), run(2, &config));
    assert_ne!(one.event_hash, other.event_hash);
    let (recorded, log) = record(1, &config);
    assert_eq!(recorded.event_hash, one.event_hash);
    assert_eq!(log.head.event_hash, one.event_hash);
    assert!(log.lines.len() > 100, "{} lines", log.lines.len());
    assert!(log.lines.is_sorted_by_key(|line| line.at_ms));
}

#[test]
fn every_scenario_runs_on_other_shapes_too() {
    let shapes = [(3, 1, 3), (9, 4, 5), (7, 8, 3)];
    let runs: Vec<(Scenario, (u32, u32, u16), u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| shapes.map(|shape| (*scenario, shape)))
        .zip(1_000..)
        .map(|((scenario, shape), seed)| (scenario, shape, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, (nodes, shards, replicas), seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            nodes: Some(*nodes),
            shards: Some(*shards),
            replicas: Some(*replicas),
            transactions: Some(30),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
}
