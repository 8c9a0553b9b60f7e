//! Runs a range of seeds and says how fast: `cargo run --release -p cluster-sim --example seeds -- 0 200`.

use std::time::Instant;

use cluster_sim::{Coverage, SimConfig, run};

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let (first, count) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(100));
    let config = SimConfig::default();
    let (mut total, mut transactions, mut faults, mut failed) = (Coverage::default(), 0, 0, 0);
    let start = Instant::now();
    for seed in first..first + count {
        let report = run(seed, &config);
        total.add(&report.coverage);
        transactions += report.transactions;
        faults += report.faults;
        if !report.passed() {
            failed += 1;
            println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{total:#?}");
    println!(
        "{count} seeds, {failed} with violations, {seconds:.2} s: {:.1} seeds, {:.0} transactions and {:.0} faults a second",
        count as f64 / seconds,
        transactions as f64 / seconds,
        faults as f64 / seconds,
    );
}
