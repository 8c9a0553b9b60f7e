//! `bench`: the sustained rate and its ratio to the verify bound.

use std::time::Duration;

use client::{Client, Profile};
use ledger::genesis::Genesis;

use super::context::operator;
use super::report::phases as phases_table;
use super::stop::{Stop, interrupted};
use crate::args::{Bench, Verify};
use crate::cluster::{LocalCluster, Mode, Prepared, processes_of, replicas_of};
use crate::error::CliError;
use crate::load::Phases;
use crate::load::bench::{Plan, Report, bench};
use crate::output::{Output, facts, grouped};
use crate::setup::{Addresses, ClusterSpec};

pub(super) async fn run(args: Bench, output: Output) -> Result<(), CliError> {
    if args.cross > 0 && args.shards < 2 && args.dir.is_none() {
        let cause = format!("--cross {} needs two shards, and there is one", args.cross);
        return Err(CliError::usage("bench_cross", cause, "add --shards 2 or more"));
    }
    let report = match args.dir.clone() {
        Some(dir) => {
            let client = Client::connect(&Profile::load_dir(&dir)?).await?;
            let plan = plan(&args, client.genesis(), processes_of(&dir));
            Box::pin(bench(&client, operator(&dir)?, &plan, output, Phases::start())).await?
        }
        None => Box::pin(on_own_cluster(&args, output)).await?,
    };
    output.result(&report, || text(&report))
}

fn plan(args: &Bench, genesis: &Genesis, processes: Vec<u32>) -> Plan {
    Plan {
        cross_pct: args.cross,
        accounts: args.accounts,
        zipf: args.zipf,
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
        shards: args.shards,
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
    let line = format!("{}: {} checks a payment", report.verify_mode, report.verifies_per_tx);
    if report.verifies_per_tx == 1 {
        return line;
    }
    format!(
        "{line}; the last credit after {:.2} s, the last check after {:.2} s",
        report.seconds_to_last_credit, report.seconds
    )
}

fn text(report: &Report) -> String {
    let whole = |value: f64| grouped(value.round() as u128);
    let rows = [
        ("rate", format!("{} payments a second", whole(report.tps))),
        (
            "payments",
            format!(
                "{} committed, {} rejected in {:.2} s",
                grouped(report.committed.into()),
                grouped(report.rejected.into()),
                report.seconds
            ),
        ),
        (
            "latency",
            format!(
                "half within {:.1} ms, 99 of 100 within {:.1} ms, {} in flight",
                report.latency_ms.p50,
                report.latency_ms.p99,
                grouped(report.in_flight.into())
            ),
        ),
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
                "{} checks a second on {} cores, so at most {} payments",
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
        text.push_str(&format!("\n{} payments were refused: {code}", grouped((*count).into())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latency::Percentiles;

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
            verifies_per_tx: 1,
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
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        let text = text(&example());
        for part in ["1,235 payments", "0.018", "70,000 checks", "2 payments were refused: busy"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
