//! Runs a range of seeds and says how fast:
//! `cargo run --release --workspace --example seeds -- 0 200 --scenario storm`.

use std::time::Instant;

use cluster_sim::{Coverage, SimConfig, record, run};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<u64>().ok());
    let (first, count) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(100));
    let flags: Vec<String> = arguments.into_iter().skip_while(|argument| !argument.starts_with("--")).collect();
    let (_, config) = SimConfig::parse(&format!("--seed 0 {}", flags.join(" "))).expect("flags of seamark sim");
    let (mut total, mut transactions, mut committed, mut faults, mut failed) = (Coverage::default(), 0, 0, 0, 0);
    let start = Instant::now();
    for seed in first..first + count {
        let report = run(seed, &config);
        total.add(&report.coverage);
        transactions += report.transactions;
        committed += report.committed;
        faults += report.faults;
        if !report.passed() {
            failed += 1;
            println!("seed {seed} ({}, {} shards): {:#?}", report.scenario, report.shards, report.violations);
            if count == 1 {
                let (_, log) = record(seed, &config);
                log.lines.iter().for_each(|line| println!("{}", line.text()));
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    for (what, count) in total.counts() {
        println!("{what}: {count}");
    }
    println!(
        "{count} seeds, {failed} with violations, {committed} of {transactions} committed, {seconds:.2} s: {:.1} seeds, {:.0} transactions and {:.0} faults a second",
        count as f64 / seconds,
        transactions as f64 / seconds,
        faults as f64 / seconds,
    );
}
