//! `sim`: the deterministic simulator, by seed.

use cluster_sim::{Coverage, SimConfig, SimReport, run_twice};
use rayon::prelude::*;
use serde::Serialize;

use crate::args::Sim;
use crate::error::CliError;
use crate::output::{Output, grouped};

/// Runs when nothing is said.
const SEEDS: u64 = 20;
/// Runs whose reports are printed one by one.
const LISTED_MAX: usize = 1_000;

#[derive(Serialize)]
struct Report {
    seeds: u64,
    passed: u64,
    failed: u64,
    transactions: u64,
    committed: u64,
    faults: u64,
    events: u64,
    coverage: Coverage,
    /// Event hash of each seed, in their order.
    event_hashes: Vec<(u64, String)>,
    /// The runs that violated something.
    failures: Vec<SimReport>,
}

pub(super) fn run(args: &Sim, output: Output) -> Result<(), CliError> {
    let seeds: Vec<u64> = match (args.seed, args.seeds) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(SEEDS)).collect(),
    };
    let bar = output.bar(seeds.len() as u64, "simulating");
    let config = SimConfig::default();
    let reports: Vec<SimReport> = tokio::task::block_in_place(|| {
        seeds.par_iter().map(|seed| run_twice(*seed, &config)).inspect(|_| bar.inc(1)).collect()
    });
    bar.finish_and_clear();
    let report = sum_up(reports);
    output.result(&report, || text(&report))?;
    match report.failures.first() {
        None => Ok(()),
        Some(first) => {
            let cause = format!(
                "{} of {} seeds violated something; seed {}: {}",
                report.failed,
                report.seeds,
                first.seed,
                first.violations.join("; ")
            );
            Err(CliError::new(
                "sim_violation",
                cause,
                format!("repeat it alone with: seamark sim --seed {}", first.seed),
            )
            .after_report())
        }
    }
}

fn sum_up(reports: Vec<SimReport>) -> Report {
    let mut coverage = Coverage::default();
    reports.iter().for_each(|report| coverage.add(&report.coverage));
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum();
    let passed = reports.iter().filter(|report| report.passed()).count() as u64;
    Report {
        seeds: reports.len() as u64,
        passed,
        failed: reports.len() as u64 - passed,
        transactions: sum(|report| report.transactions),
        committed: sum(|report| report.committed),
        faults: sum(|report| report.faults),
        events: sum(|report| report.events),
        coverage,
        event_hashes: reports.iter().take(LISTED_MAX).map(|report| (report.seed, report.event_hash.clone())).collect(),
        failures: reports.into_iter().filter(|report| !report.passed()).collect(),
    }
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "{} seeds, each run twice: {} passed, {} failed\n  {} transactions, {} committed, {} faults, {} events\n  {} crashes, {} leader changes, {} lost, {} doubled and {} reordered messages",
        report.seeds,
        report.passed,
        report.failed,
        grouped(report.transactions.into()),
        grouped(report.committed.into()),
        grouped(report.faults.into()),
        grouped(report.events.into()),
        grouped(report.coverage.crashes.into()),
        grouped(report.coverage.leader_changes.into()),
        grouped(report.coverage.lost_messages.into()),
        grouped(report.coverage.duplicated_messages.into()),
        grouped(report.coverage.reordered_messages.into()),
    );
    if let [(seed, hash)] = report.event_hashes.as_slice() {
        text.push_str(&format!("\n  seed {seed}: event hash {hash}"));
    }
    for failure in &report.failures {
        text.push_str(&format!(
            "\nseed {} ({}):\n  - {}",
            failure.seed,
            failure.scenario,
            failure.violations.join("\n  - ")
        ));
        if !failure.tail.is_empty() {
            text.push_str(&format!("\n  the last events:\n    {}", failure.tail.join("\n    ")));
        }
    }
    text
}
