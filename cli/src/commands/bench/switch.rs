//! `bench --switch`: what clients notice when a shard goes over to another engine and back while they pay.

use std::time::Duration;

use client::Client;
use ledger::Engine;

use super::{Floor, OF_BFT, REPLICAS, on_own_cluster, percentiles, plan, processes};
use crate::args::{Bench, Verify};
use crate::cluster::{LocalCluster, verify_name};
use crate::commands::context::operator;
use crate::commands::report::{phases as phases_table, refusals};
use crate::error::CliError;
use crate::load::Phases;
use crate::load::channels::Delegate;
use crate::load::switch::{Direction, SwitchPlan, Switching, bench_switch};
use crate::output::{Output, facts, grouped};
use crate::setup::{Addresses, ClusterSpec};

pub(super) async fn run(args: &Bench, output: Output) -> Result<(), CliError> {
    let report = Box::pin(on_own_cluster(args, own_spec(args), None, output, work)).await?;
    output.result(&report, || text(&report))?;
    judged(&report, args.switching.pause_at_most)
}

/// A shard of three, and a fourth node that has no seat in it before the engine needs one more.
fn own_spec(args: &Bench) -> ClusterSpec {
    ClusterSpec {
        name: "bench".to_owned(),
        nodes: OF_BFT.into(),
        orgs: OF_BFT,
        shards: 1,
        replicas: REPLICAS,
        engine: Engine::Raft,
        verify: Some(args.verify.unwrap_or(Verify::Every).into()),
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
) -> Result<Switching, CliError> {
    let issuer = operator(cluster.dir().root())?;
    let delegates = Delegate::all(cluster.dir(), cluster.genesis(), cluster.profile())?;
    let plan = plan(args, cluster.genesis(), processes(cluster));
    let switch = SwitchPlan {
        rate: args.comparing.load,
        pay_for: Duration::from_secs(args.seconds),
        verify_mode: verify_name(cluster.genesis().verify),
    };
    Box::pin(bench_switch(client, &delegates, issuer, (&plan, &switch), output, phases)).await
}

/// What was asked for. What could not be measured has not been reached.
fn judged(report: &Switching, at_most: Option<f64>) -> Result<(), CliError> {
    let pause = |what, direction: &Direction| {
        let found = direction.longest_gap_seconds.unwrap_or(f64::NAN);
        Floor { what, found, asked: at_most, at_least: false }
    };
    [
        pause("the longest gap around the switch to bft, in seconds,", &report.to_bft),
        pause("the longest gap around the switch to raft, in seconds,", &report.to_raft),
        Floor {
            what: "the number of payments that were not executed",
            found: report.failed as f64,
            asked: at_most.map(|_| 0.0),
            at_least: false,
        },
    ]
    .into_iter()
    .try_for_each(Floor::judge)
}

fn text(report: &Switching) -> String {
    let seconds = |gap: Option<f64>| gap.map_or("not known".to_owned(), |gap| format!("{gap:.3} s"));
    let switched = |direction: &Direction| {
        format!(
            "never longer than {} without a receipt; {} members run {} {:.1} s after the command; {} payments failed",
            seconds(direction.longest_gap_seconds),
            direction.members,
            direction.engine,
            direction.switch_seconds,
            grouped(direction.failed.into())
        )
    };
    let rows = [
        ("to bft", switched(&report.to_bft)),
        ("to raft", switched(&report.to_raft)),
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
        ("executed", format!("{} payments", grouped(report.executed.into()))),
        ("failed", format!("{} payments", grouped(report.failed.into()))),
        ("cluster", format!("one shard, verify {}, {} cores", report.verify_mode, report.cores)),
    ];
    let mut text = format!("{}\n{}", facts(rows), phases_table(&report.phases));
    text.push_str(&refusals(&report.refused));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::latency::Percentiles;

    fn example() -> Switching {
        let direction = |engine, members, gap| Direction {
            engine,
            members,
            longest_gap_seconds: Some(gap),
            switch_seconds: 4.5,
            failed: 0,
        };
        Switching {
            to_bft: direction("bft", 4, 1.25),
            to_raft: direction("raft", 3, 0.75),
            rate: 500,
            gap_before_seconds: Some(0.05),
            before_ms: Percentiles { p50: 5.0, p99: 20.0 },
            meanwhile_ms: Percentiles { p50: 8.0, p99: 900.0 },
            executed: 20_000,
            failed: 0,
            refused: BTreeMap::new(),
            verify_mode: "every",
            cores: 2,
            phases: Vec::new(),
        }
    }

    #[test]
    fn the_text_tells_the_pauses_of_both_directions() {
        let report = Switching { failed: 2, refused: BTreeMap::from([("busy".to_owned(), 2)]), ..example() };
        let text = text(&report);
        for part in [
            "never longer than 1.250 s without a receipt; 4 members run bft 4.5 s after the command",
            "never longer than 0.750 s without a receipt; 3 members run raft",
            "never longer than 0.050 s",
            "20,000 payments",
            "2 payments were refused: busy",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_pause_that_is_too_long_or_was_not_measured_and_a_payment_that_failed_miss() {
        let judged = |report: &Switching, at_most| judged(report, at_most).map_err(|error| error.code);
        let missed = Err("bench_floor".to_owned());
        assert_eq!((judged(&example(), None), judged(&example(), Some(2.0))), (Ok(()), Ok(())));
        assert_eq!(judged(&example(), Some(1.0)), missed, "to bft");
        let mut slow = example();
        slow.to_raft.longest_gap_seconds = Some(2.5);
        assert_eq!(judged(&slow, Some(2.0)), missed, "to raft");
        slow.to_raft.longest_gap_seconds = None;
        assert_eq!(judged(&slow, Some(2.0)), missed, "nobody was served any more");
        let failed = Switching { failed: 1, ..example() };
        assert_eq!((judged(&failed, None), judged(&failed, Some(2.0))), (Ok(()), missed));
    }
}
