//! The harness is proved: bugs put back are found, each by the checkers and within 200 seeds. The
//! table in `docs/simulator.md` is what this prints.

mod support;

use std::time::Instant;

use cluster_sim::{Sabotage, SimConfig, run};
use support::on_all_cores;

const SEEDS: u64 = 200;

/// The first seed that finds a bug, and what it says.
fn found(sabotage: Sabotage) -> Option<(u64, Vec<String>)> {
    let config = SimConfig { sabotage: Some(sabotage), ..SimConfig::default() };
    (0..SEEDS).find_map(|seed| {
        let report = run(seed, &config);
        let expected = (!report.passed()).then(|| format!("seamark sim --seed {seed}"));
        assert_eq!(report.reproduce, expected);
        (!report.passed()).then_some((seed, report.violations))
    })
}

#[test]
fn every_bug_that_is_put_back_is_found() {
    let results = on_all_cores(Sabotage::ALL, |sabotage| {
        let start = Instant::now();
        (found(*sabotage), start.elapsed())
    });
    for (sabotage, (result, took)) in Sabotage::ALL.iter().zip(&results) {
        let (seed, violations) = result.as_ref().unwrap_or_else(|| panic!("{SEEDS} seeds did not find {sabotage:?}"));
        println!("| {sabotage:?} | {} | {} | {took:.1?}", seed + 1, violations[0]);
    }
}
