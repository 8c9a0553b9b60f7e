//! `bench --join`: how long an organisation takes to join a channel that has long been in use, and how soon it is
//! out again when it leaves.

use std::time::Duration;

use client::Client;

use super::{Floor, REPLICAS, on_own_cluster};
use crate::args::{Bench, Verify};
use crate::cluster::LocalCluster;
use crate::commands::context::operator;
use crate::commands::report::{phases as phases_table, refusals};
use crate::error::CliError;
use crate::load::Phases;
use crate::load::channels::Delegate;
use crate::load::join::{FOUNDERS, JoinPlan, JoinReport, bench_join};
use crate::load::latency::Percentiles;
use crate::output::{Output, facts, grouped};
use crate::setup::{Addresses, ClusterSpec};

/// Accounts of the channel, unless said otherwise.
const ACCOUNTS: u32 = 100_000;

pub(super) async fn run(args: &Bench, output: Output) -> Result<(), CliError> {
    let every = Some(args.joining.snapshot_every);
    let report = Box::pin(on_own_cluster(args, own_spec(args), every, output, work)).await?;
    output.result(&report, || text(&report))?;
    judged(&report, args.joining.join_at_most)
}

/// One organisation more than found the channel, each with a node at least.
fn own_spec(args: &Bench) -> ClusterSpec {
    let orgs = FOUNDERS + 1;
    ClusterSpec {
        name: "bench".to_owned(),
        nodes: args.nodes.unwrap_or(orgs as u32),
        orgs: orgs as u16,
        shards: args.shards.unwrap_or(1),
        replicas: args.replicas.unwrap_or(REPLICAS),
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
) -> Result<JoinReport, CliError> {
    let plan = JoinPlan {
        accounts: args.accounts.unwrap_or(ACCOUNTS),
        past: args.joining.past,
        rate: args.joining.rate,
        before: Duration::from_secs(args.seconds),
        in_flight: args.in_flight.max(1),
        snapshot_every: args.joining.snapshot_every,
        verify: cluster.genesis().verify,
    };
    let issuer = operator(cluster.dir().root())?;
    let delegates = Delegate::all(cluster.dir(), cluster.genesis(), cluster.profile())?;
    Box::pin(bench_join(client, &delegates, issuer, &plan, output, phases)).await
}

/// What must be so whatever is asked for, and what was asked for.
fn judged(report: &JoinReport, at_most: Option<f64>) -> Result<(), CliError> {
    let wrong = |code: &str, cause: String| {
        let fix = "report it with the version and this result: it must not happen";
        Err(CliError::new(code, cause, fix).after_report())
    };
    if report.leave.blocks_shown_after > 0 {
        let blocks = report.leave.blocks_shown_after;
        return wrong("bench_leave", format!("an organisation was shown {blocks} blocks from its exclusion on"));
    }
    if !report.replicas_agree {
        return wrong("replicas_disagree", "not every replica reached the same height with the same state".to_owned());
    }
    if at_most.is_none() {
        return Ok(());
    }
    let refused: u64 = report.refused.values().sum();
    let floor = |what, found, asked| Floor { what, found, asked: Some(asked), at_least: false };
    let part = report.replayed_transactions as f64 / report.past_transactions.max(1) as f64;
    [
        Floor { what: "joining, in seconds,", found: report.join_seconds, asked: at_most, at_least: false },
        floor("the part of the past that the new node executed itself", part, 0.5),
        floor("the number of payments that were not executed", refused as f64, 0.0),
    ]
    .into_iter()
    .try_for_each(Floor::judge)
}

fn text(report: &JoinReport) -> String {
    let count = |number: u64| grouped(number.into());
    let paid = |payments: u64, of: &Percentiles| {
        let (p50, p99) = (of.p50, of.p99);
        format!("{} payments: half within {p50:.1} ms, 99 of 100 within {p99:.1} ms", count(payments))
    };
    let leave = &report.leave;
    let codes: Vec<String> = leave.refusals.iter().map(|(what, code)| format!("{what} {code}")).collect();
    let rows = [
        (
            "channel",
            format!(
                "{} accounts, {} past transactions, filled with {} a second",
                count(report.accounts),
                count(report.past_transactions),
                grouped(report.fill_tps.round() as u128)
            ),
        ),
        (
            "joined",
            format!(
                "in {:.2} s: has the state after {:.2} s, then votes in the committee in force",
                report.join_seconds, report.state_seconds
            ),
        ),
        (
            "from a snapshot",
            format!(
                "{}: it executed {} transactions itself; a snapshot every {} entries",
                if report.from_snapshot { "yes" } else { "NO" },
                count(report.replayed_transactions),
                count(report.snapshot_every)
            ),
        ),
        ("paid before", paid(report.payments_before, &report.before_ms)),
        ("paid meanwhile", paid(report.payments_during, &report.during_ms)),
        (
            "replicas",
            if report.replicas_agree { "all agree, the new one too".to_owned() } else { "DO NOT AGREE".to_owned() },
        ),
        (
            "left",
            format!(
                "from block {} on, shown nothing after block {}; the command was answered at block {}",
                leave.exclusion_height, leave.last_shown_height, leave.told_height
            ),
        ),
        ("is told", codes.join(", ")),
        ("its node", format!("had no seat and no replica any more after {:.2} s", leave.gone_seconds)),
        ("verify", format!("{} at {} payments a second, on {} cores", report.verify_mode, report.rate, report.cores)),
    ];
    let mut text = facts(rows);
    text.push_str(&format!("\n{}", phases_table(&report.phases)));
    text.push_str(&refusals(&report.refused));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::join::Leave;

    fn example() -> JoinReport {
        JoinReport {
            join_seconds: 12.5,
            state_seconds: 11.25,
            from_snapshot: true,
            replayed_transactions: 40,
            told_height: 2_000,
            accounts: 100_000,
            past_transactions: 1_001_600,
            fill_tps: 8_000.0,
            rate: 100,
            before_ms: Percentiles { p50: 3.0, p99: 9.0 },
            during_ms: Percentiles { p50: 4.0, p99: 60.0 },
            payments_before: 1_000,
            payments_during: 1_250,
            refused: BTreeMap::new(),
            replicas_agree: true,
            leave: Leave {
                exclusion_height: 2_500,
                told_height: 2_501,
                last_shown_height: 2_499,
                blocks_shown_after: 0,
                refusals: BTreeMap::from([("read", "channel_removed".to_owned())]),
                gone_seconds: 0.9,
            },
            snapshot_every: 500,
            verify_mode: "every",
            cores: 2,
            phases: Vec::new(),
        }
    }

    #[test]
    fn the_text_says_how_it_joined_and_left() {
        let text = text(&example());
        for part in [
            "100,000 accounts, 1,001,600 past transactions",
            "in 12.50 s: has the state after 11.25 s",
            "yes: it executed 40 transactions itself",
            "1,250 payments: half within 4.0 ms, 99 of 100 within 60.0 ms",
            "from block 2500 on, shown nothing after block 2499",
            "read channel_removed",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn what_is_not_as_it_has_to_be_fails() {
        let code = |report: &JoinReport, at_most| judged(report, at_most).map_err(|error| error.code);
        let floor = || Err("bench_floor".to_owned());
        assert_eq!(code(&example(), None), Ok(()));
        assert_eq!(code(&example(), Some(12.5)), Ok(()));
        assert_eq!(code(&example(), Some(12.0)), floor());
        let replayed = JoinReport { replayed_transactions: 600_000, ..example() };
        assert_eq!((code(&replayed, None), code(&replayed, Some(30.0))), (Ok(()), floor()));
        let refused = JoinReport { refused: BTreeMap::from([("busy".to_owned(), 1)]), ..example() };
        assert_eq!((code(&refused, None), code(&refused, Some(30.0))), (Ok(()), floor()));
        let differ = JoinReport { replicas_agree: false, ..example() };
        assert_eq!(code(&differ, None), Err("replicas_disagree".to_owned()));
        let mut shown = example();
        shown.leave.blocks_shown_after = 1;
        assert_eq!(code(&shown, None), Err("bench_leave".to_owned()));
    }
}
