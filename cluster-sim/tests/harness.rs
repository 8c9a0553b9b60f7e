//! The harness is proved: bugs put back into the shell are found, each by the checkers.

use cluster_sim::{Sabotage, SimConfig, run};

const SEEDS: u64 = 50;

fn found(sabotage: Sabotage) -> (u64, String) {
    let config = SimConfig { sabotage: Some(sabotage), ..SimConfig::default() };
    for seed in 0..SEEDS {
        let report = run(seed, &config);
        if let Some(first) = report.violations.first() {
            assert_eq!(report.reproduce, Some(format!("seamark sim --seed {seed}")));
            assert!(!report.tail.is_empty(), "a violation comes with the events before it");
            return (seed, first.clone());
        }
    }
    panic!("{SEEDS} seeds did not find {sabotage:?}");
}

#[test]
fn every_bug_that_is_put_back_is_found() {
    for sabotage in Sabotage::ALL {
        let start = std::time::Instant::now();
        let (seed, violation) = found(*sabotage);
        println!("{sabotage:?}: seed {seed}, {:.1?}: {violation}", start.elapsed());
    }
}
