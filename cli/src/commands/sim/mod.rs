//! `sim`: the deterministic simulator, by seed; `--replay` steps through what a seed did. With `--scale` the scale study,
//! which [`scale`] and `steps` run and `chart` draws.

mod chart;
mod replay;
mod scale;
mod steps;

use std::path::{Path, PathBuf};
use std::time::Instant;

use cluster_sim::config::SHARDS_MAX;
use cluster_sim::{Coverage, SimConfig, SimReport, record, run as run_once, run_twice};
use rayon::prelude::*;
use serde::Serialize;

use crate::args::Sim;
use crate::error::CliError;
use crate::output::{Output, grouped, rounded};

/// Runs when nothing is said.
const SEEDS: u64 = 20;
/// Of many seeds every so many-th is run twice.
const TWICE_EVERY: u64 = 10;
/// Runs whose event hashes are printed one by one.
const LISTED_MAX: usize = 1_000;
/// Seeds that fail of which an event log is written.
const LOGS_MAX: usize = 5;
/// Nodes of a simulated cluster.
const NODES_MAX: u32 = 32;
/// Replicas of its groups.
const REPLICAS_MAX: u16 = 7;

#[derive(Serialize)]
struct Report {
    /// The first seed.
    seed: u64,
    /// How many there were.
    seeds: u64,
    /// What all of them were about, or `any`.
    scenario: String,
    passed: u64,
    failed: u64,
    transactions: u64,
    committed: u64,
    aborted: u64,
    faults: u64,
    /// Each with its seed in front.
    violations: Vec<String>,
    /// SHA-256 over the hashes of all seeds in their order; of one seed, its own.
    event_hash: String,
    /// Wall-clock time of all runs.
    seconds: f64,
    transactions_per_second: f64,
    faults_per_second: f64,
    virtual_seconds: f64,
    events: u64,
    /// What has happened, in all runs together.
    coverage: Coverage,
    /// What of it has happened in no run.
    unmet: Vec<&'static str>,
    /// Event hash of each seed, in their order.
    event_hashes: Vec<(u64, String)>,
    /// The runs that violated something, with the command that repeats each.
    failures: Vec<SimReport>,
    /// Their event logs.
    logs: Vec<PathBuf>,
}

pub(super) fn run(args: &Sim, output: Output) -> Result<(), CliError> {
    if let Some(file) = &args.replay {
        return replay::run(file, output);
    }
    if args.study.scale {
        return scale::run(args, output);
    }
    check(args)?;
    if args.seeds == Some(0) {
        return Err(CliError::usage("sim_seeds", "no seed is to be run", "ask for at least one: --seeds 1"));
    }
    let seeds: Vec<u64> = match (args.seed, args.seeds) {
        (Some(seed), _) => vec![seed],
        (None, count) => (args.from..args.from.saturating_add(count.unwrap_or(SEEDS))).collect(),
    };
    let config = config(args);
    let bar = output.bar(seeds.len() as u64, "simulating");
    let start = Instant::now();
    let single = seeds.len() == 1;
    let one = |seed: &u64| {
        if single || seed.is_multiple_of(TWICE_EVERY) { run_twice(*seed, &config) } else { run_once(*seed, &config) }
    };
    let reports: Vec<SimReport> =
        tokio::task::block_in_place(|| seeds.par_iter().with_max_len(1).map(one).inspect(|_| bar.inc(1)).collect());
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let mut report = sum_up(args, reports, seconds);
    for failure in report.failures.iter_mut().take(LOGS_MAX) {
        // Recorded in a run of its own; what is recorded changes nothing.
        let (recorded, log) = tokio::task::block_in_place(|| record(failure.seed, &config));
        failure.tail = recorded.tail;
        report.logs.push(replay::write(&args.logs, &log)?);
    }
    output.result(&report, || text(&report))?;
    match report.failures.first() {
        None => met(args, &report),
        Some(first) => {
            let cause = format!(
                "{} of {} seeds violated something; seed {}: {}",
                report.failed,
                report.seeds,
                first.seed,
                first.violations.join("; ")
            );
            Err(CliError::new("sim_violation", cause, how_to_repeat(first, report.logs.first())).after_report())
        }
    }
}

/// Whether all has happened that was asked for.
fn met(args: &Sim, report: &Report) -> Result<(), CliError> {
    let missing: Vec<&str> =
        report.unmet.iter().copied().filter(|what| args.met.iter().any(|name| name == what)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let cause = format!("in {} seeds there was nothing of: {}", report.seeds, missing.join(", "));
    Err(CliError::new("sim_unmet", cause, "run more seeds, or such as have it: --reshapes 3").after_report())
}

/// Only studies take as much as the grammar does.
fn check(args: &Sim) -> Result<(), CliError> {
    let limits = [
        ("shards", args.shards, SHARDS_MAX),
        ("nodes", args.nodes, NODES_MAX),
        ("replicas", args.replicas.map(u32::from), REPLICAS_MAX.into()),
    ];
    let known = Coverage::default().counts();
    if let Some(name) = args.met.iter().find(|name| known.iter().all(|(what, _)| what != name)) {
        let cause = format!("nothing that happens in a run is called '{name}'");
        return Err(CliError::usage(
            "sim_coverage",
            cause,
            "take names of `coverage` in the JSON: sim --seed 1 --json",
        ));
    }
    match limits.into_iter().find_map(|(what, asked, max)| Some((what, asked.filter(|asked| *asked > max)?, max))) {
        None => Ok(()),
        Some((what, asked, max)) => {
            let cause = format!("{asked} {what} were asked for, and a simulated cluster has {max} at most");
            Err(CliError::usage("sim_size", cause, "ask for fewer, or for a study without faults: --scale"))
        }
    }
}

fn config(args: &Sim) -> SimConfig {
    SimConfig {
        scenario: args.scenario,
        shards: args.shards,
        replicas: args.replicas,
        nodes: args.nodes,
        transactions: args.transactions,
        safety_ms: args.safety_ms,
        consensus: args.consensus.map(Into::into),
        beacon: args.beacon_consensus.map(Into::into),
        switches: args.switches,
        reshapes: args.reshapes,
        moves: args.moves,
        comings: args.comings,
        epochs: args.epochs,
        keys: args.keys,
        policies: args.policies,
        money: args.money,
        removals: args.removals,
        lie: args.lie,
        too_many: false,
        sabotage: None,
    }
}

fn how_to_repeat(failure: &SimReport, log: Option<&PathBuf>) -> String {
    let command = failure.reproduce.clone().unwrap_or_default();
    match log {
        Some(log) => format!("repeat it with: {command}; step through it with: seamark sim --replay {}", log.display()),
        None => format!("repeat it with: {command}"),
    }
}

fn sum_up(args: &Sim, reports: Vec<SimReport>, seconds: f64) -> Report {
    let mut coverage = Coverage::default();
    reports.iter().for_each(|report| coverage.add(&report.coverage));
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let passed = reports.iter().filter(|report| report.passed()).count() as u64;
    let (transactions, faults) = (sum(|report| report.transactions), sum(|report| report.faults));
    let violations = reports
        .iter()
        .flat_map(|report| report.violations.iter().map(|text| format!("seed {}: {text}", report.seed)))
        .collect();
    Report {
        seed: args.seed.unwrap_or(args.from),
        seeds: reports.len() as u64,
        scenario: scenario(args, &reports),
        passed,
        failed: reports.len() as u64 - passed,
        transactions,
        committed: sum(|report| report.committed),
        aborted: sum(|report| report.aborted),
        faults,
        violations,
        event_hash: hash_of(&reports),
        seconds: rounded(seconds),
        transactions_per_second: rounded(transactions as f64 / seconds),
        faults_per_second: rounded(faults as f64 / seconds),
        virtual_seconds: rounded(reports.iter().map(|report| report.virtual_seconds).sum()),
        events: sum(|report| report.events),
        unmet: coverage.counts().into_iter().filter(|(_, count)| *count == 0).map(|(what, _)| what).collect(),
        coverage,
        event_hashes: reports.iter().take(LISTED_MAX).map(|report| (report.seed, report.event_hash.clone())).collect(),
        failures: reports.into_iter().filter(|report| !report.passed()).collect(),
        logs: Vec::new(),
    }
}

fn scenario(args: &Sim, reports: &[SimReport]) -> String {
    match (args.scenario, reports) {
        (Some(scenario), _) => scenario.name().to_owned(),
        (None, [one]) => one.scenario.clone(),
        (None, _) => "any".to_owned(),
    }
}

fn hash_of(reports: &[SimReport]) -> String {
    if let [one] = reports {
        return one.event_hash.clone();
    }
    use sha2::Digest;
    let mut hasher = sha2::Sha256::new();
    reports.iter().for_each(|report| hasher.update(report.event_hash.as_bytes()));
    hex::encode(hasher.finalize())
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "{} seeds ({}): {} passed, {} failed\n  {} transactions, {} committed, {} aborted, {} faults, {} events\n  {:.1} s: {:.0} transactions and {:.1} faults a second; {:.0} virtual seconds\n  event hash {}",
        report.seeds,
        report.scenario,
        report.passed,
        report.failed,
        grouped(report.transactions.into()),
        grouped(report.committed.into()),
        grouped(report.aborted.into()),
        grouped(report.faults.into()),
        grouped(report.events.into()),
        report.seconds,
        report.transactions_per_second,
        report.faults_per_second,
        report.virtual_seconds,
        report.event_hash,
    );
    let counts = report.coverage.counts();
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(what, count)| format!("{} {}", grouped(count.into()), what.replace('_', " ")))
        .collect();
    for line in counts.chunks(6) {
        text.push_str(&format!("\n  {}", line.join(", ")));
    }
    if !report.unmet.is_empty() {
        text.push_str(&format!("\n  in no run: {}", report.unmet.join(", ").replace('_', " ")));
    }
    for (at, failure) in report.failures.iter().enumerate() {
        text.push_str(&format!(
            "\nseed {} ({}):\n  - {}",
            failure.seed,
            failure.scenario,
            failure.violations.join("\n  - ")
        ));
        if !failure.tail.is_empty() {
            text.push_str(&format!("\n  the last events:\n    {}", failure.tail.join("\n    ")));
        }
        text.push_str(&format!("\n  {}", how_to_repeat(failure, report.logs.get(at))));
    }
    text
}

/// Where the event log of a seed goes.
fn log_path(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("sim-seed-{seed}.jsonl"))
}
