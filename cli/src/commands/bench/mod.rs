//! `bench`: the sustained rate and its ratio to the verify bound, in the main ledger or inside channels;
//! how long a member takes to join a channel, see [`join`]; how the engines compare, see [`engines`]; what going
//! from one to the other costs, see [`switch`]; how long a node takes to take a replica over, see [`takeover`]; and what
//! cutting and joining a shard costs, see [`reshape`]. [`constants`] measures single pieces of work, without a cluster.

pub(super) mod constants;
mod engines;
mod join;
mod reshape;
mod switch;
mod takeover;

use std::time::Duration;

use client::{Client, Profile};
use ledger::Engine;
use ledger::genesis::{Genesis, VerifyMode};

use super::context::operator;
use super::report::phases as phases_table;
use super::stop::{Stop, interrupted};
use crate::args::{Bench, Verify};
use crate::cluster::{LocalCluster, Mode, Prepared, engine_of, processes_of, replicas_of, verify_name};
use crate::error::CliError;
use crate::load::Phases;
use crate::load::bench::{Plan, Report, bench};
use crate::load::beside::{Beside, MEMBERS, bench_channels};
use crate::load::channels::Delegate;
use crate::load::latency::Percentiles;
use crate::load::workload::Shape;
use crate::output::{Output, facts, grouped};
use crate::setup::{Addresses, ClusterSpec};

/// Accounts that pay each other, unless said otherwise.
const ACCOUNTS: u32 = 1000;
/// Replicas of a shard, unless said otherwise.
const REPLICAS: u16 = 3;
/// Nodes and replicas of a shard where one of them may lie.
const OF_BFT: u16 = 4;
/// Accounts that each channel needs: who is alone pays itself.
const ACCOUNTS_OF_CHANNEL_MIN: u32 = 2;

pub(super) async fn run(args: Bench, output: Output) -> Result<(), CliError> {
    if args.constants {
        return constants::run(output);
    }
    if args.joining.join {
        return Box::pin(join::run(&args, output)).await;
    }
    if args.comparing.engines {
        return Box::pin(engines::run(&args, output)).await;
    }
    if args.switching.switch {
        return Box::pin(switch::run(&args, output)).await;
    }
    if args.taking.takeover {
        return Box::pin(takeover::run(&args, output)).await;
    }
    if args.reshaping.reshape {
        return Box::pin(reshape::run(&args, output)).await;
    }
    check(&args)?;
    let report = match args.dir.clone() {
        Some(dir) => {
            let client = Client::connect(&Profile::load_dir(&dir)?).await?;
            let plan = plan(&args, client.genesis(), processes_of(&dir));
            Box::pin(bench(&client, operator(&dir)?, &plan, output, Phases::start())).await?
        }
        None => Box::pin(on_own_cluster(&args, own_spec(&args), None, output, work)).await?,
    };
    output.result(&report, || text(&report))?;
    floors(&args, &report).into_iter().try_for_each(Floor::judge)
}

/// Refuses what cannot be measured.
fn check(args: &Bench) -> Result<(), CliError> {
    let (shards, cross) = (shards(args), cross(args));
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
    let Some(channels) = args.inside.channels else { return Ok(()) };
    if channels < 2 && (args.inside.swap_at_most.is_some() || args.inside.together_at_least.is_some()) {
        let cause = "there is nothing to compare one channel with, and nobody to swap with";
        return Err(CliError::usage("bench_channels", cause, "use --channels 2 or more"));
    }
    let needed = channels * ACCOUNTS_OF_CHANNEL_MIN;
    if accounts(args) < needed {
        let cause = format!("--channels {channels} needs {needed} accounts, two in each");
        return Err(CliError::usage("bench_accounts", cause, "use more --accounts, or fewer --channels"));
    }
    Ok(())
}

/// What a measurement has to reach, for runs that nobody watches.
struct Floor {
    what: &'static str,
    found: f64,
    asked: Option<f64>,
    /// Whether more is better.
    at_least: bool,
}

impl Floor {
    /// Whether it was reached. What could not be measured was not.
    fn judge(self) -> Result<(), CliError> {
        let Self { what, found, asked, at_least } = self;
        let Some(asked) = asked else { return Ok(()) };
        let missed = found.is_nan() || if at_least { found < asked } else { found > asked };
        if !missed {
            return Ok(());
        }
        let bound = if at_least { "at least" } else { "at most" };
        let cause = format!("{what} is {found}, and {bound} {asked} was asked for");
        let fix = "run it again on a machine that does nothing else; docs/performance.md tells what to expect";
        Err(CliError::new("bench_floor", cause, fix).after_report())
    }
}

fn floors(args: &Bench, report: &Report) -> [Floor; 3] {
    let of = |ratio: fn(&Beside) -> Option<f64>| report.channels.as_ref().and_then(ratio).unwrap_or(f64::NAN);
    let floor = |what, found, asked, at_least| Floor { what, found, asked, at_least };
    let inside = &args.inside;
    [
        floor("the rate over the verify bound", report.bound_ratio, args.at_least, true),
        floor(
            "the rate of all channels over that of one",
            of(|beside| beside.together_ratio),
            inside.together_at_least,
            true,
        ),
        floor("the time of a swap over that of a payment", of(|beside| beside.swap_ratio), inside.swap_at_most, false),
    ]
}

fn accounts(args: &Bench) -> u32 {
    args.accounts.unwrap_or(ACCOUNTS)
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
        accounts: accounts(args),
        in_flight: args.in_flight.max(1),
        send_for: Duration::from_secs(args.seconds),
        transactions_max: args.transactions,
        verify: genesis.verify,
        replicas: if args.inside.channels.is_some() { MEMBERS as u64 } else { replicas_of(genesis) },
        engine: if args.inside.channels.is_some() { Engine::Raft } else { engine_of(genesis) },
        gone: None,
        silent: None,
        processes,
    }
}

/// Signatures are checked once when one organisation runs it all, so that is what it is made of. A channel takes
/// as many organisations as it has members.
fn own_spec(args: &Bench) -> ClusterSpec {
    let engine: Engine = args.consensus.map_or(Engine::Raft, Into::into);
    let (members, replicas) = match engine {
        Engine::Raft => (MEMBERS as u16, REPLICAS),
        Engine::Bft => (OF_BFT, OF_BFT),
    };
    let nodes = args.nodes.unwrap_or(members.into());
    let verify = args.verify.unwrap_or(if args.inside.channels.is_some() { Verify::Every } else { Verify::Ingest });
    let orgs = match (args.inside.channels, verify) {
        (Some(_), _) => MEMBERS as u16,
        (None, Verify::Ingest) => 1,
        (None, Verify::Every) => u16::try_from(nodes).unwrap_or(u16::MAX).clamp(1, members),
    };
    ClusterSpec {
        name: "bench".to_owned(),
        nodes,
        orgs,
        shards: shards(args),
        replicas: args.replicas.unwrap_or(replicas),
        engine,
        verify: Some(verify.into()),
        addresses: Addresses::Free,
        ..ClusterSpec::default()
    }
}

/// Runs work on a cluster of its own, which is thrown away afterwards.
async fn on_own_cluster<T>(
    args: &Bench,
    spec: ClusterSpec,
    snapshot_every: Option<u64>,
    output: Output,
    work: impl AsyncFnOnce(&LocalCluster, &Client, &Bench, Output, Phases) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let mut stop = Stop::listen()?;
    let mut phases = Phases::start();
    let prepared = Prepared::throw_away(spec, output)?;
    if let Some(entries) = snapshot_every {
        prepared.snapshot_every(entries)?;
    }
    phases.end("make the cluster");
    let mut cluster = Box::pin(prepared.start(Mode::of(args.processes))).await?;
    let working = async {
        let spinner = output.spinner("starting the cluster");
        let client = cluster.ready().await?;
        spinner.finish_and_clear();
        phases.end("start the cluster");
        Box::pin(work(&cluster, &client, args, output, phases)).await
    };
    let result = tokio::select! {
        result = Box::pin(working) => result,
        () = stop.asked() => Err(interrupted()),
    };
    cluster.stop().await;
    result
}

async fn work(
    cluster: &LocalCluster,
    client: &Client,
    args: &Bench,
    output: Output,
    phases: Phases,
) -> Result<Report, CliError> {
    let plan = plan(args, cluster.genesis(), processes(cluster));
    let issuer = operator(cluster.dir().root())?;
    match args.inside.channels {
        None => Box::pin(bench(client, issuer, &plan, output, phases)).await,
        Some(count) => {
            let delegates = Delegate::all(cluster.dir(), cluster.genesis(), cluster.profile())?;
            Box::pin(bench_channels(client, &delegates, issuer, count, &plan, output, phases)).await
        }
    }
}

/// Those of its nodes that have a process of their own.
fn processes(cluster: &LocalCluster) -> Vec<u32> {
    cluster.nodes().iter().filter_map(|node| node.pid).collect()
}

/// Where replicas check off the path, the time runs until they are done.
fn verify_line(report: &Report) -> String {
    let by = if report.consensus == Engine::Bft.name() { ", by every member before it votes" } else { "" };
    let line = format!("{}: {} signature checks each{by}", report.verify_mode, report.verifies_per_tx);
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
    let mut rows = vec![
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
                "{} with {} replicas each, ordered by {}, {:.0} % of payments cross",
                report.shards, report.replicas, report.consensus, report.cross_shard_pct
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
    if let Some(beside) = &report.channels {
        rows.extend(channels(beside));
    }
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

fn percentiles(of: &Percentiles) -> String {
    format!("half within {:.1} ms, 99 of 100 within {:.1} ms", of.p50, of.p99)
}

/// What channels do beside one another.
fn channels(beside: &Beside) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("channels", format!("{} of {} organisations each", beside.count, beside.members)),
        ("one payment", format!("{}, one at a time inside a channel", percentiles(&beside.payment_ms))),
    ];
    if let (Some(swap), Some(ratio)) = (&beside.swap_ms, beside.swap_ratio) {
        let text = format!("{}, one at a time between two channels: {ratio:.2} times a payment", percentiles(swap));
        rows.push(("one swap", text));
    }
    if let (Some(one), Some(ratio)) = (beside.one_tps, beside.together_ratio) {
        let text = format!("{} payments a second; all together {ratio:.2} times that", grouped(one.round() as u128));
        rows.push(("one channel alone", text));
    }
    rows
}

fn voters(report: &Report) -> String {
    let mut text = match report.voters {
        1 if report.channels.is_some() => "1: the payer's channel decides alone".to_owned(),
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
    use clap::Parser;

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
            consensus: "raft",
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
            channels: None,
            phases: Vec::new(),
        }
    }

    fn beside() -> Beside {
        Beside {
            count: 8,
            members: 3,
            one_tps: Some(4000.0),
            together_ratio: Some(1.1),
            payment_ms: Percentiles { p50: 2.0, p99: 3.0 },
            swap_ms: Some(Percentiles { p50: 4.0, p99: 6.0 }),
            swap_ratio: Some(2.0),
            payments: 100,
            swaps: 90,
        }
    }

    fn parsed(line: &str) -> Bench {
        let args = std::iter::once("seamark").chain(line.split_whitespace());
        match crate::args::Cli::try_parse_from(args).unwrap().command {
            crate::args::Command::Bench(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn channels_are_told_of_where_there_are_any() {
        let plain = serde_json::to_value(example()).unwrap();
        assert!(plain.get("channels").is_none());
        let report = Report { channels: Some(beside()), ..example() };
        let json = serde_json::to_value(&report).unwrap();
        for field in ["count", "members", "one_tps", "together_ratio", "payment_ms", "swap_ms", "swap_ratio"] {
            assert!(json["channels"].get(field).is_some(), "{field}");
        }
        let text = text(&report);
        for part in ["8 of 3 organisations each", "2.00 times a payment", "4,000 payments a second; all together 1.10"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_floor_that_is_missed_or_was_not_measured_fails() {
        let judged = |line: &str, report: &Report| {
            let floors = floors(&parsed(line), report);
            floors.into_iter().try_for_each(Floor::judge).map_err(|error| (error.code, error.reported))
        };
        let missed = Err(("bench_floor".to_owned(), true));
        let report = Report { channels: Some(beside()), ..example() };
        assert_eq!(judged("bench", &example()), Ok(()));
        assert_eq!(judged("bench --at-least 0.018", &report), Ok(()));
        assert_eq!(judged("bench --at-least 0.019", &report), missed);
        let channels = |rest: &str| format!("bench --channels 8 {rest}");
        assert_eq!(judged(&channels("--swap-at-most 2 --together-at-least 1.1"), &report), Ok(()));
        assert_eq!(judged(&channels("--swap-at-most 1.9"), &report), missed);
        assert_eq!(judged(&channels("--together-at-least 1.2"), &report), missed);
        assert_eq!(judged(&channels("--swap-at-most 9"), &example()), missed, "nobody swapped");
    }

    #[test]
    fn what_cannot_be_measured_in_channels_is_refused() {
        let code = |line: &str| check(&parsed(line)).map_err(|error| error.code);
        assert_eq!(code("bench --channels 2"), Ok(()));
        assert_eq!(code("bench --channels 1 --swap-at-most 2.5"), Err("bench_channels".to_owned()));
        assert_eq!(code("bench --channels 4 --accounts 7"), Err("bench_accounts".to_owned()));
        let spec = own_spec(&parsed("bench --channels 2"));
        assert_eq!((spec.orgs, spec.nodes, spec.verify), (3, 3, Some(VerifyMode::Every)));
        let spec = own_spec(&parsed("bench"));
        assert_eq!((spec.orgs, spec.nodes, spec.verify), (1, 3, Some(VerifyMode::Ingest)));
        let spec = own_spec(&parsed("bench --consensus bft --verify every"));
        assert_eq!((spec.orgs, spec.nodes, spec.replicas, spec.engine), (4, 4, 4, Engine::Bft));
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
            "consensus",
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
