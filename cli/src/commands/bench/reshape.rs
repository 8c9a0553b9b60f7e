//! `bench --reshape`: what clients notice when a shard with many accounts is cut and joined again while they pay, and what
//! the other shard notices.

use std::time::Duration;

use client::Client;
use ledger::Engine;

use super::{Floor, REPLICAS, on_own_cluster, percentiles, plan, processes};
use crate::args::{Bench, Verify};
use crate::cluster::LocalCluster;
use crate::commands::context::operator;
use crate::commands::report::{phases as phases_table, refusals};
use crate::error::CliError;
use crate::load::Phases;
use crate::load::bench::Plan;
use crate::load::channels::Delegate;
use crate::load::reshape::{Pauses, Reshape, ReshapePlan, Reshaping, bench_reshape};
use crate::output::{Output, facts, grouped, table};
use crate::setup::{Addresses, ClusterSpec};

/// Accounts of the shard, unless said otherwise.
const ACCOUNTS: u32 = 1_000_000;
/// Shards: the one that is cut, and another one.
const SHARDS: u32 = 2;
/// How often it is cut and joined again, unless said otherwise.
const ROUNDS: u32 = 10;

pub(super) async fn run(args: &Bench, output: Output) -> Result<(), CliError> {
    if rounds(args) == 0 {
        return Err(CliError::usage("bench_reshape", "--rounds is 0", "use at least 1"));
    }
    let report = Box::pin(on_own_cluster(args, own_spec(args), None, output, work)).await?;
    output.result(&report, || text(&report))?;
    judged(&report, args)
}

fn rounds(args: &Bench) -> u32 {
    args.comparing.rounds.unwrap_or(ROUNDS)
}

/// As many nodes as a shard has replicas, so that each has a seat in every shard that comes.
fn own_spec(args: &Bench) -> ClusterSpec {
    ClusterSpec {
        name: "bench".to_owned(),
        nodes: REPLICAS.into(),
        orgs: REPLICAS,
        shards: SHARDS,
        replicas: REPLICAS,
        engine: Engine::Raft,
        verify: Some(args.verify.unwrap_or(Verify::Ingest).into()),
        addresses: Addresses::Free,
        ..ClusterSpec::default()
    }
}

async fn work(
    cluster: &LocalCluster,
    client: &Client,
    args: &Bench,
    output: Output,
    phases: Phases,
) -> Result<Reshaping, CliError> {
    let issuer = operator(cluster.dir().root())?;
    let delegates = Delegate::all(cluster.dir(), cluster.genesis(), cluster.profile())?;
    let accounts = args.accounts.unwrap_or(ACCOUNTS);
    let plan = Plan { accounts, ..plan(args, cluster.genesis(), processes(cluster)) };
    let pay_for = Duration::from_secs(args.seconds);
    let reshape = ReshapePlan { rate: args.comparing.load, rounds: rounds(args), pay_for };
    Box::pin(bench_reshape(client, &delegates, issuer, (&plan, &reshape), output, phases)).await
}

/// What was asked for; with a pause, also that no payment failed. What could not be measured has not been reached. Replicas
/// that do not agree, and money that is gone or too much, fail in any case.
fn judged(report: &Reshaping, args: &Bench) -> Result<(), CliError> {
    if !report.replicas_agree || !report.money_conserved {
        let what = if report.money_conserved { "the replicas do not agree" } else { "the money is not what it was" };
        return Err(CliError::new("bench_failed", what, "run it again with --log info, and report what the nodes say")
            .after_report());
    }
    let (median, asked) = (args.switching.pause_at_most, &args.reshaping);
    let floor = |what, found, asked, at_least| Floor { what, found, asked, at_least };
    let pause = |what, found: Option<f64>, asked| floor(what, found.unwrap_or(f64::NAN), asked, false);
    [
        pause("the pause of a cut at the median, in seconds,", report.split.median_seconds, median),
        pause("the pause of a join at the median, in seconds,", report.merge.median_seconds, median),
        pause("the longest pause of a cut, in seconds,", report.split.worst_seconds, asked.worst_at_most),
        pause("the longest pause of a join, in seconds,", report.merge.worst_seconds, asked.worst_at_most),
        floor("the rate of the other shard over that before", report.others_ratio, asked.others_at_least, true),
        floor(
            "the number of payments that were not executed",
            report.failed as f64,
            median.or(asked.worst_at_most).map(|_| 0.0),
            false,
        ),
    ]
    .into_iter()
    .try_for_each(Floor::judge)
}

fn seconds(found: Option<f64>) -> String {
    found.map_or_else(|| "not known".to_owned(), |seconds| format!("{seconds:.3} s"))
}

fn text(report: &Reshaping) -> String {
    let whole = |value: f64| grouped(value.round() as u128);
    let yes = |so: bool| if so { "yes" } else { "NO" };
    let pauses = |of: &Pauses| {
        let (median, worst) = (seconds(of.median_seconds), seconds(of.worst_seconds));
        format!("a half of the shard has no receipt for {median} at the median, {worst} at worst")
    };
    let rows = [
        ("cut", pauses(&report.split)),
        ("joined", pauses(&report.merge)),
        ("before", format!("never longer than {} without a receipt", seconds(report.gap_before_seconds))),
        (
            "paid meanwhile",
            format!(
                "{} a second: {}; before it {}",
                grouped(report.rate.into()),
                percentiles(&report.meanwhile_ms),
                percentiles(&report.before_ms)
            ),
        ),
        (
            "other shard",
            format!(
                "{} a second meanwhile, {:.3} of the {} before; {:.3} of it in the seconds afterwards",
                whole(report.others_during),
                report.others_ratio,
                whole(report.others_before),
                report.others_afterwards_ratio
            ),
        ),
        ("executed", format!("{} payments", grouped(report.executed.into()))),
        ("failed", format!("{} payments", grouped(report.failed.into()))),
        ("replicas agree", yes(report.replicas_agree).to_owned()),
        ("money conserved", yes(report.money_conserved).to_owned()),
        (
            "cluster",
            format!(
                "two shards, {} accounts in the one that is cut, verify {}, {} cores",
                grouped(report.accounts.into()),
                report.verify_mode,
                report.cores
            ),
        ),
    ];
    let mut text = format!("{}\n{}\n{}", facts(rows), jobs(&report.jobs), phases_table(&report.phases));
    text.push_str(&refusals(&report.refused));
    text
}

fn jobs(jobs: &[Reshape]) -> String {
    let header =
        ["job", "kind", "pause", "while copying", "preparing", "sealing", "opening", "all", "other shard", "and after"];
    let row = |job: &Reshape| {
        [
            job.job.clone(),
            job.kind.to_owned(),
            seconds(job.pause_seconds),
            seconds(job.copying_gap_seconds),
            seconds(job.preparing_seconds),
            seconds(job.sealing_seconds),
            seconds(job.opening_seconds),
            format!("{:.1} s", job.seconds),
            format!("{:.3}", job.others_ratio),
            format!("{:.3}", job.others_afterwards_ratio),
        ]
    };
    table(header, jobs.iter().map(row))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;
    use crate::load::latency::Percentiles;

    fn example() -> Reshaping {
        let job = |job: &str, kind, pause, sealing| Reshape {
            job: job.to_owned(),
            kind,
            pause_seconds: Some(pause),
            copying_gap_seconds: Some(0.04),
            preparing_seconds: Some(12.5),
            sealing_seconds: sealing,
            opening_seconds: Some(0.31),
            seconds: 13.2,
            others_before: 4_100.0,
            others_ratio: 0.953,
            others_afterwards_ratio: 0.981,
        };
        let pauses = |median, worst| Pauses { median_seconds: Some(median), worst_seconds: Some(worst) };
        Reshaping {
            split: pauses(0.25, 0.4),
            merge: pauses(0.28, 0.8),
            jobs: vec![job("job-1", "split", 0.25, Some(0.12)), job("job-2", "merge", 0.28, None)],
            accounts: 1_000_000,
            rate: 500,
            gap_before_seconds: Some(0.03),
            before_ms: Percentiles { p50: 4.0, p99: 20.0 },
            meanwhile_ms: Percentiles { p50: 6.0, p99: 300.0 },
            others_before: 4_000.0,
            others_during: 3_800.0,
            others_ratio: 0.95,
            others_afterwards_ratio: 0.98,
            executed: 900_000,
            failed: 0,
            refused: BTreeMap::new(),
            replicas_agree: true,
            money_conserved: true,
            verify_mode: "ingest",
            cores: 2,
            phases: Vec::new(),
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
    fn the_text_tells_the_pauses_and_each_job() {
        let report = Reshaping { failed: 2, refused: BTreeMap::from([("busy".to_owned(), 2)]), ..example() };
        let text = text(&report);
        for part in [
            "no receipt for 0.250 s at the median, 0.400 s at worst",
            "no receipt for 0.280 s at the median, 0.800 s at worst",
            "3,800 a second meanwhile, 0.950 of the 4,000 before",
            "1,000,000 accounts in the one that is cut",
            "job-2",
            "12.500 s",
            "not known",
            "0.953",
            "2 payments were refused: busy",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn each_figure_that_is_asked_for_has_to_be_reached_and_nothing_may_be_lost() {
        let judged = |rest: &str, report: &Reshaping| {
            judged(report, &parsed(&format!("bench --reshape {rest}"))).map_err(|error| (error.code, error.reported))
        };
        let missed = Err(("bench_floor".to_owned(), true));
        assert_eq!(judged("", &example()), Ok(()));
        assert_eq!(judged("--pause-at-most 0.3 --worst-at-most 1 --others-at-least 0.9", &example()), Ok(()));
        assert_eq!(judged("--pause-at-most 0.26", &example()), missed, "a join");
        assert_eq!(judged("--worst-at-most 0.5", &example()), missed);
        assert_eq!(judged("--others-at-least 0.96", &example()), missed);
        let nothing = Pauses { median_seconds: None, worst_seconds: None };
        let silent = Reshaping { split: nothing, ..example() };
        assert_eq!((judged("", &silent), judged("--worst-at-most 9", &silent)), (Ok(()), missed.clone()));
        let failed = Reshaping { failed: 1, ..example() };
        assert_eq!((judged("", &failed), judged("--pause-at-most 9", &failed)), (Ok(()), missed));
        let lost = Err(("bench_failed".to_owned(), true));
        assert_eq!(judged("", &Reshaping { replicas_agree: false, ..example() }), lost);
        assert_eq!(judged("", &Reshaping { money_conserved: false, ..example() }), lost);
    }

    #[test]
    fn every_node_has_a_seat_in_both_shards() {
        let args = parsed("bench --reshape");
        let spec = own_spec(&args);
        assert_eq!((spec.nodes, spec.orgs, spec.replicas, spec.shards), (3, 3, 3, 2));
        assert_eq!((rounds(&args), rounds(&parsed("bench --reshape --rounds 3"))), (10, 3));
    }
}
