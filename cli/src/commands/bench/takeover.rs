//! `bench --takeover`: how long a new node takes to have its replica of a shard with many accounts, and what is left of
//! the rate meanwhile.

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
use crate::load::takeover::{Takeover, bench_takeover};
use crate::output::{Output, facts, grouped};
use crate::setup::{Addresses, ClusterSpec};

/// Accounts of the shard, unless said otherwise.
const ACCOUNTS: u32 = 1_000_000;
/// Nodes: one more than the shard has replicas, of as many organisations as those.
const NODES: u32 = REPLICAS as u32 + 1;
/// Log entries between two snapshots. A shard at full load has large entries, and few of them; a new node is to take the
/// state from a snapshot, as one does that joins a shard long in use.
const SNAPSHOT_EVERY: u64 = 500;

pub(super) async fn run(args: &Bench, output: Output) -> Result<(), CliError> {
    let report = Box::pin(on_own_cluster(args, own_spec(args), Some(SNAPSHOT_EVERY), output, work)).await?;
    output.result(&report, || text(&report))?;
    judged(&report, args)
}

fn own_spec(args: &Bench) -> ClusterSpec {
    ClusterSpec {
        name: "bench".to_owned(),
        nodes: NODES,
        orgs: REPLICAS,
        shards: 1,
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
) -> Result<Takeover, CliError> {
    let issuer = operator(cluster.dir().root())?;
    let delegates = Delegate::all(cluster.dir(), cluster.genesis(), cluster.profile())?;
    let accounts = args.accounts.unwrap_or(ACCOUNTS);
    let plan = Plan { accounts, ..plan(args, cluster.genesis(), processes(cluster)) };
    Box::pin(bench_takeover(client, &delegates, issuer, &plan, output, phases)).await
}

/// What was asked for; with the time, also that no payment failed.
fn judged(report: &Takeover, args: &Bench) -> Result<(), CliError> {
    let asked = &args.taking;
    let floor = |what, found, asked, at_least| Floor { what, found, asked, at_least };
    [
        floor("the time of the takeover, in seconds,", report.takeover_seconds, asked.takeover_at_most, false),
        floor("the rate meanwhile over that before", report.rate_ratio, asked.rate_at_least, true),
        floor(
            "the number of payments that were not executed",
            report.failed as f64,
            asked.takeover_at_most.map(|_| 0.0),
            false,
        ),
    ]
    .into_iter()
    .try_for_each(Floor::judge)
}

fn text(report: &Takeover) -> String {
    let whole = |value: f64| grouped(value.round() as u128);
    let yes = |so: bool| if so { "yes" } else { "NO" };
    let rows = [
        (
            "taken over",
            format!(
                "after {:.1} s, of which {:.1} s until it had the state; node {} from node {}",
                report.takeover_seconds, report.state_seconds, report.to, report.from
            ),
        ),
        (
            "rate",
            format!(
                "{} a second meanwhile, {:.3} of the {} before",
                whole(report.rate_during),
                report.rate_ratio,
                whole(report.rate_before)
            ),
        ),
        ("payments", format!("{}; before {}", percentiles(&report.during_ms), percentiles(&report.before_ms))),
        (
            "shard",
            format!(
                "{} accounts, {} transactions before it, of which the node executed {} itself",
                grouped(report.accounts.into()),
                grouped(report.past_transactions.into()),
                grouped(report.replayed_transactions.into())
            ),
        ),
        ("executed", format!("{} payments", grouped(report.executed.into()))),
        ("failed", format!("{} payments", grouped(report.failed.into()))),
        ("replicas agree", yes(report.replicas_agree).to_owned()),
        ("cluster", format!("one shard, verify {}, {} cores", report.verify_mode, report.cores)),
    ];
    let mut text = format!("{}\n{}", facts(rows), phases_table(&report.phases));
    text.push_str(&refusals(&report.refused));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;
    use crate::load::latency::Percentiles;

    fn example() -> Takeover {
        Takeover {
            takeover_seconds: 41.3,
            state_seconds: 38.5,
            accounts: 1_000_000,
            told_height: 900,
            past_transactions: 500_000,
            replayed_transactions: 20_000,
            from: 1,
            to: 4,
            rate_before: 10_000.0,
            rate_during: 8_000.0,
            rate_ratio: 0.8,
            before_ms: Percentiles { p50: 800.0, p99: 1_500.0 },
            during_ms: Percentiles { p50: 1_000.0, p99: 2_500.0 },
            executed: 900_000,
            failed: 0,
            refused: BTreeMap::new(),
            replicas_agree: true,
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
    fn the_text_tells_the_time_and_what_is_left_of_the_rate() {
        let report = Takeover { failed: 2, refused: BTreeMap::from([("busy".to_owned(), 2)]), ..example() };
        let text = text(&report);
        for part in [
            "after 41.3 s, of which 38.5 s until it had the state; node 4 from node 1",
            "8,000 a second meanwhile, 0.800 of the 10,000 before",
            "1,000,000 accounts, 500,000 transactions",
            "2 payments were refused: busy",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn each_figure_that_is_asked_for_has_to_be_reached() {
        let judged = |rest: &str, report: &Takeover| {
            judged(report, &parsed(&format!("bench --takeover {rest}"))).map_err(|error| error.code)
        };
        let missed = Err("bench_floor".to_owned());
        assert_eq!(judged("", &example()), Ok(()));
        assert_eq!(judged("--takeover-at-most 60 --rate-at-least 0.7", &example()), Ok(()));
        assert_eq!(judged("--takeover-at-most 40", &example()), missed);
        assert_eq!(judged("--rate-at-least 0.9", &example()), missed);
        let failed = Takeover { failed: 1, ..example() };
        assert_eq!((judged("", &failed), judged("--takeover-at-most 60", &failed)), (Ok(()), missed));
    }

    #[test]
    fn one_organisation_has_a_node_in_the_shard_and_one_outside() {
        let spec = own_spec(&parsed("bench --takeover"));
        assert_eq!((spec.nodes, spec.orgs, spec.replicas, spec.shards), (4, 3, 3, 1));
    }
}
