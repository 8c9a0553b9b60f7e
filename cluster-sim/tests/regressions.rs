//! Runs that once violated something. A line of `regressions/seeds.txt` is a run, as the flags of
//! `seamark sim`, and why it is there.
//!
//! When the generator of loads or faults changes, a seed becomes another run and may meet something
//! else; what it once met is tested for good by the unit test that the line names.

mod support;

use cluster_sim::{SimConfig, run_twice};
use support::{assert_passed, on_all_cores};

const SEEDS: &str = include_str!("regressions/seeds.txt");

#[test]
fn what_once_failed_passes() {
    let lines = SEEDS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let runs: Vec<(u64, SimConfig)> = lines
        .map(|line| {
            let (flags, why) = line.split_once('#').expect("every line says why it is there");
            assert!(why.len() > 20, "every line says why it is there: {line}");
            SimConfig::parse(flags).expect("flags of seamark sim")
        })
        .collect();
    assert!(!runs.is_empty());
    on_all_cores(&runs, |(seed, config)| run_twice(*seed, config)).iter().for_each(assert_passed);
}
