//! `bench`: the sustained rate and its ratio to the verify bound.

use std::time::Duration;

use client::{Client, Profile};
use ledger::genesis::{Genesis, VerifyMode};

use super::context::operator;
use super::report::phases as phases_table;
use super::stop::{Stop, interrupted};
use crate::args::{Bench, Verify};
use crate::cluster::{LocalCluster, Mode, Prepared, processes_of, replicas_of, verify_name};
use crate::error::CliError;
use crate::load::Phases;
use crate::load::bench::{Plan, Report, bench};
use crate::load::latency::Percentiles;
use crate::load::workload::Shape;
use crate::output::{Output, facts, grouped};
use crate::setup::{Addresses, ClusterSpec};

pub(super) async fn run(args: Bench, output: Output) -> Result<(), CliError> {
    let (shards, cross) = (shards(&args), cross(&args));
    if args.dir.is_none() {
        if cross > 0 && shards < 2 {
            let cause = format!("--cross {cross} needs two shards, and there is one");
            return Err(CliError::usage("bench_cross", cause, "add --shards 2 or more"));
        }
        if u32::from(args.voters) > shards {
            let cause = format!("--voters {0} needs {0} shards, and there are {shards}", args.voters);
            return Err(CliError::usage("bench_voters", cause, "add as many --shards, or leave the option out"));
        }
    }
    let report = match args.dir.clone() {
        Some(dir) => {
            let client = Client::connect(&Profile::load_dir(&dir)?).await?;
            let plan = plan(&args, client.genesis(), processes_of(&dir));
            Box::pin(bench(&client, operator(&dir)?, &plan, output, Phases::start())).await?
        }
        None => Box::pin(on_own_cluster(&args, output)).await?,
    };
    output.result(&report, || text(&report))?;
    judged(report.bound_ratio, args.at_least)
}

/// Whether the rate is what was asked for, for runs that nobody watches.
fn judged(ratio: f64, at_least: Option<f64>) -> Result<(), CliError> {
    match at_least {
        Some(floor) if ratio.is_nan() || ratio < floor => {
            let cause = format!("the rate is {ratio} of the verify bound, and at least {floor} was asked for");
            let fix = "run it again on a machine that does nothing else; docs/performance.md tells what to expect";
            Err(CliError::new("bench_floor", cause, fix).after_report())
        }
        _ => Ok(()),
    }
}

/// As many as the voters of a transaction need, unless said otherwise.
fn shards(args: &Bench) -> u32 {
    args.shards.unwrap_or_else(|| args.voters.into())
}

/// Several payers pay each other, unless said otherwise.
fn cross(args: &Bench) -> u8 {
    let several = if args.voters > 1 && !args.hot_payee { 100 } else { 0 };
    args.cross.unwrap_or(several)
}

fn plan(args: &Bench, genesis: &Genesis, processes: Vec<u32>) -> Plan {
    Plan {
        shape: Shape {
            cross_pct: cross(args),
            voters: args.voters,
            zipf: args.zipf,
            hot_payer: args.hot_payer,
            hot_payee: args.hot_payee,
            conflict_pct: args.conflict,
        },
        accounts: args.accounts,
        in_flight: args.in_flight.max(1),
        send_for: Duration::from_secs(args.seconds),
        transactions_max: args.transactions,
        verify: genesis.verify,
        replicas: replicas_of(genesis),
        processes,
    }
}

/// Signatures are checked once when one organisation runs it all, so that is what it is made of.
fn own_spec(args: &Bench) -> ClusterSpec {
    let orgs = match args.verify {
        Verify::Ingest => 1,
        Verify::Every => u16::try_from(args.nodes).unwrap_or(u16::MAX).clamp(1, 3),
    };
    ClusterSpec {
        name: "bench".to_owned(),
        nodes: args.nodes,
        orgs,
        shards: shards(args),
        replicas: args.replicas,
        verify: Some(args.verify.into()),
        addresses: Addresses::Free,
        ..ClusterSpec::default()
    }
}

async fn on_own_cluster(args: &Bench, output: Output) -> Result<Report, CliError> {
    let mut stop = Stop::listen()?;
    let mut phases = Phases::start();
    let prepared = Prepared::throw_away(own_spec(args), output)?;
    phases.end("make the cluster");
    let mut cluster = Box::pin(prepared.start(Mode::of(args.processes))).await?;
    let result = tokio::select! {
        result = work(&mut cluster, args, output, phases) => result,
        () = stop.asked() => Err(interrupted()),
    };
    cluster.stop().await;
    result
}

async fn work(
    cluster: &mut LocalCluster,
    args: &Bench,
    output: Output,
    mut phases: Phases,
) -> Result<Report, CliError> {
    let spinner = output.spinner("starting the cluster");
    let client = cluster.ready().await?;
    spinner.finish_and_clear();
    phases.end("start the cluster");
    let processes = cluster.nodes().iter().filter_map(|node| node.pid).collect();
    let plan = plan(args, cluster.genesis(), processes);
    let issuer = operator(cluster.dir().root())?;
    Box::pin(bench(&client, issuer, &plan, output, phases)).await
}

/// Where replicas check off the path, the time runs until they are done.
fn verify_line(report: &Report) -> String {
    let line = format!("{}: {} signature checks each", report.verify_mode, report.verifies_per_tx);
    if report.verify_mode != verify_name(VerifyMode::Every) {
        return line;
    }
    format!(
        "{line}; the last credit after {:.2} s, the last check after {:.2} s",
        report.seconds_to_last_credit, report.seconds
    )
}

fn text(report: &Report) -> String {
    let whole = |value: f64| grouped(value.round() as u128);
    let what = if report.voters > 1 { "transactions" } else { "payments" };
    let percentiles = |of: &Percentiles| format!("half within {:.1} ms, 99 of 100 within {:.1} ms", of.p50, of.p99);
    let rows = [
        ("rate", format!("{} {what} a second", whole(report.tps))),
        (
            what,
            format!(
                "{} committed, {} rejected, {} aborted in {:.2} s",
                grouped(report.committed.into()),
                grouped(report.rejected.into()),
                grouped(report.aborted.into()),
                report.seconds
            ),
        ),
        ("decided", format!("{}, {} in flight", percentiles(&report.decided_ms), grouped(report.in_flight.into()))),
        ("applied", percentiles(&report.applied_ms)),
        ("voters", voters(report)),
        (
            "shards",
            format!(
                "{} with {} replicas each, {:.0} % of payments cross",
                report.shards, report.replicas, report.cross_shard_pct
            ),
        ),
        ("verify", verify_line(report)),
        (
            "verify bound",
            format!(
                "{} checks a second on {} cores, so at most {} {what}",
                whole(report.verify_all_cores),
                report.cores,
                whole(report.bound_tps)
            ),
        ),
        ("ratio to the bound", format!("{:.3}", report.bound_ratio)),
        (
            "processor",
            format!("{:.2} s, {:.3} s for a thousand payments", report.cpu_seconds, report.cpu_seconds_per_1000),
        ),
        (
            "written",
            format!(
                "{} bytes a payment, {} fsyncs",
                whole(report.bytes_written_per_tx),
                grouped(report.log_fsyncs.into())
            ),
        ),
        ("sent", format!("{} bytes a payment", whole(report.bytes_sent_per_tx))),
        (
            "durable",
            if report.durable {
                "yes: on the disks of a majority before it is acknowledged".to_owned()
            } else {
                "NO: the nodes counted fewer fsyncs than these blocks need on a majority".to_owned()
            },
        ),
    ];
    let mut text = facts(rows);
    text.push_str(&format!("\n{}", phases_table(&report.phases)));
    for (code, count) in &report.rejections {
        text.push_str(&format!("\n{} {what} were refused: {code}", grouped((*count).into())));
    }
    for (code, count) in &report.abort_reasons {
        text.push_str(&format!("\n{} {what} were aborted: {code}", grouped((*count).into())));
    }
    text
}

fn voters(report: &Report) -> String {
    let mut text = match report.voters {
        1 => "1: the payer's shard decides alone".to_owned(),
        count => format!("{count}: as many payers in as many shards"),
    };
    for (on, what) in [(report.hot_payer, "one account pays"), (report.hot_payee, "one account is paid")] {
        if on {
            text.push_str(&format!("; {what} in all of them"));
        }
    }
    if report.conflict_pct > 0 {
        text.push_str(&format!(
            "; {} % also write one and the same entry, {:.2} % of all were aborted",
            report.conflict_pct, report.abort_pct
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Report {
        Report {
            tps: 1234.5,
            committed: 10,
            rejected: 0,
            seconds: 1.0,
            seconds_to_last_credit: 0.9,
            latency_ms: Percentiles { p50: 1.0, p99: 2.0 },
            shards: 1,
            replicas: 3,
            cross_shard_pct: 0.0,
            verify_mode: "ingest",
            verifies_per_tx: 1.0,
            verify_all_cores: 70_000.0,
            bound_tps: 70_000.0,
            bound_ratio: 0.018,
            cpu_seconds: 1.5,
            bytes_written_per_tx: 900.0,
            bytes_sent_per_tx: 800.0,
            durable: true,
            cpu_seconds_per_1000: 150.0,
            log_fsyncs: 5,
            in_flight: 16,
            accounts: 10,
            cores: 2,
            rejections: std::collections::BTreeMap::from([("busy".to_owned(), 2)]),
            voters: 2,
            aborted: 3,
            abort_pct: 20.0,
            abort_reasons: std::collections::BTreeMap::from([("conflict".to_owned(), 3)]),
            decided_ms: Percentiles { p50: 1.0, p99: 2.0 },
            applied_ms: Percentiles { p50: 3.0, p99: 4.0 },
            conflict_pct: 10,
            zipf: None,
            hot_payer: false,
            hot_payee: true,
            phases: Vec::new(),
        }
    }

    #[test]
    fn the_json_has_the_promised_fields() {
        let json = serde_json::to_value(example()).unwrap();
        for field in [
            "tps",
            "committed",
            "rejected",
            "seconds",
            "latency_ms",
            "shards",
            "replicas",
            "cross_shard_pct",
            "verify_mode",
            "verifies_per_tx",
            "verify_all_cores",
            "bound_tps",
            "bound_ratio",
            "cpu_seconds",
            "bytes_written_per_tx",
            "bytes_sent_per_tx",
            "durable",
            "voters",
            "aborted",
            "abort_reasons",
            "decided_ms",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert!(json["verifies_per_tx"].is_u64(), "whole numbers stay whole");
        let text = text(&example());
        for part in [
            "1,235 transactions",
            "0.018",
            "70,000 checks",
            "2 transactions were refused: busy",
            "3 transactions were aborted: conflict",
            "one account is paid in all of them",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
