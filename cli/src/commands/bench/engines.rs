//! `bench --engines`: a cluster that Raft orders and one that a Byzantine engine does, beside each other in one run,
//! with a process for each node so that one can be stopped for a while, and one be killed.
//!
//! Both clusters are there while latencies are compared and while Raft's rate is measured; then that of Raft is
//! killed, so that the Byzantine one has the machine for itself.

use std::time::Duration;

use ledger::Engine;

use super::{Floor, OF_BFT, percentiles, plan, processes};
use crate::args::{Bench, Verify};
use crate::cluster::{LocalCluster, Mode, Prepared, verify_name};
use crate::commands::context::operator;
use crate::commands::report::{phases as phases_table, refusals};
use crate::commands::stop::{Stop, interrupted};
use crate::error::CliError;
use crate::load::Phases;
use crate::load::engines::{Comparison, Contender, Figures, Losing, Rate, add, in_turns, ratio};
use crate::load::latency::Latencies;
use crate::output::{Output, facts, grouped, table};
use crate::setup::{Addresses, ClusterSpec};

/// Shards of each cluster.
const SHARDS: u32 = 1;
/// How often leadership goes round without the member that was killed, unless said otherwise.
const ROUNDS: u32 = 2;

pub(super) async fn run(args: &Bench, output: Output) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let mut raft = Box::pin(start(args, Engine::Raft, output)).await?;
    let result = match Box::pin(start(args, Engine::Bft, output)).await {
        Ok(mut bft) => {
            let result = tokio::select! {
                result = Box::pin(measure(&mut raft, &mut bft, args, output)) => result,
                () = stop.asked() => Err(interrupted()),
            };
            bft.stop().await;
            result
        }
        Err(error) => Err(error),
    };
    raft.stop().await;
    let report = result?;
    output.result(&report, || text(&report))?;
    judged(&report, args)
}

async fn start(args: &Bench, engine: Engine, output: Output) -> Result<LocalCluster, CliError> {
    let prepared = Prepared::throw_away(spec(args, engine), output)?;
    Box::pin(prepared.start(Mode::Children)).await
}

/// The same for both: as many nodes, organisations and replicas as one that may lie needs.
fn spec(args: &Bench, engine: Engine) -> ClusterSpec {
    ClusterSpec {
        name: "bench".to_owned(),
        nodes: OF_BFT.into(),
        orgs: OF_BFT,
        shards: SHARDS,
        replicas: OF_BFT,
        engine,
        verify: Some(args.verify.unwrap_or(Verify::Every).into()),
        addresses: Addresses::Free,
        ..ClusterSpec::default()
    }
}

async fn measure(
    raft: &mut LocalCluster,
    bft: &mut LocalCluster,
    args: &Bench,
    output: Output,
) -> Result<Comparison, CliError> {
    let mut phases = Phases::start();
    let mut of_raft = Box::pin(contender(raft, args, output)).await?;
    let mut of_bft = Box::pin(contender(bft, args, output)).await?;
    phases.end("start the clusters and fund accounts");
    let [raft_alone, bft_alone] = Box::pin(in_turns([&mut of_raft, &mut of_bft], output)).await?;
    phases.end("pay one at a time, in turns");

    let raft_rate = Box::pin(of_raft.rate(output)).await?;
    for node in raft.nodes() {
        raft.kill(node.id).await?;
    }
    phases.end("pay where Raft orders");
    let bft_rate = Box::pin(of_bft.rate(output)).await?;
    phases.end("pay where the Byzantine engine orders");

    let (silenced, silent) = {
        let (bft, profile) = (&*bft, bft.profile().clone());
        let (silence, wake) = (|node| bft.silence(node), |node| bft.wake(node));
        Box::pin(of_bft.rate_beside_silent(&profile, silence, wake, output)).await?
    };
    phases.end("pay while a member is silent");

    let losing = Losing {
        rate: args.comparing.load,
        pay_for: Duration::from_secs(args.seconds),
        rounds: args.comparing.rounds.unwrap_or(ROUNDS),
    };
    let (mut of_bft, outage) = Box::pin(of_bft.lose_leader(&losing, async |node| bft.kill(node).await, output)).await?;
    phases.end("kill the leader and pay on");
    let without_one = Box::pin(of_bft.rate(output)).await?;
    phases.end("pay without one");

    let mut refused = of_raft.refused().clone();
    add(&mut refused, of_bft.refused());
    let (raft, bft) = (figures(raft_rate, &raft_alone), figures(bft_rate, &bft_alone));
    Ok(Comparison {
        latency_ratio: ratio(bft.alone_ms.p50, raft.alone_ms.p50),
        silent_ratio: ratio(silent.tps, bft.rate.tps),
        without_one_ratio: ratio(without_one.tps, bft.rate.tps),
        raft,
        bft,
        silenced,
        silent,
        outage,
        without_one,
        failed: refused.values().sum(),
        refused,
        members: OF_BFT.into(),
        verify_mode: verify_name(args.verify.unwrap_or(Verify::Every).into()),
        in_flight: args.in_flight.max(1) as u64,
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        phases: phases.finish(),
    })
}

async fn contender(cluster: &mut LocalCluster, args: &Bench, output: Output) -> Result<Contender, CliError> {
    let spinner = output.spinner("starting a cluster");
    let client = cluster.ready().await?;
    spinner.finish_and_clear();
    let plan = plan(args, cluster.genesis(), processes(cluster));
    let issuer = operator(cluster.dir().root())?;
    Box::pin(Contender::set(client, issuer, plan, output)).await
}

fn figures(rate: Rate, alone: &Latencies) -> Figures {
    Figures { rate, alone_ms: alone.percentiles(), alone: alone.count() }
}

/// What was asked for. What could not be measured has not been reached.
fn judged(report: &Comparison, args: &Bench) -> Result<(), CliError> {
    let asked = &args.comparing;
    let floor = |what, found: Option<f64>, asked, at_least| {
        let found = found.unwrap_or(f64::NAN);
        Floor { what, found, asked, at_least }
    };
    let outage = &report.outage;
    [
        floor("the rate of bft over the verify bound", Some(report.bft.rate.bound_ratio), args.at_least, true),
        floor("the time of a lone payment over that of raft", report.latency_ratio, asked.latency_at_most, false),
        floor(
            "the rate beside a silent member over the full rate",
            report.silent_ratio,
            asked.without_one_at_least,
            true,
        ),
        floor(
            "the rate without a member over the full rate",
            report.without_one_ratio,
            asked.without_one_at_least,
            true,
        ),
        floor("the longest gap after the kill, in seconds,", outage.longest_gap_seconds, asked.gap_at_most, false),
        floor("the next gap after the kill, in seconds,", outage.later_gap_seconds, asked.later_gap_at_most, false),
        floor(
            "the number of payments that were not executed",
            Some(report.failed as f64),
            asked.gap_at_most.map(|_| 0.0),
            false,
        ),
    ]
    .into_iter()
    .try_for_each(Floor::judge)
}

/// A line of the table, of both engines.
fn row(report: &Comparison, what: &str, of: impl Fn(&Figures) -> String) -> [String; 3] {
    [what.to_owned(), of(&report.raft), of(&report.bft)]
}

fn text(report: &Comparison) -> String {
    let whole = |value: f64| grouped(value.round() as u128);
    let yes = |so: bool| if so { "yes" } else { "NO" };
    let compared = table(
        ["", "raft", "bft"],
        [
            row(report, "payments a second", |of| whole(of.rate.tps)),
            row(report, "checks a payment", |of| of.rate.verifies_per_tx.to_string()),
            row(report, "verify bound", |of| whole(of.rate.bound_tps)),
            row(report, "ratio to the bound", |of| format!("{:.3}", of.rate.bound_ratio)),
            row(report, "one at a time", |of| percentiles(&of.alone_ms)),
            row(report, "under full load", |of| percentiles(&of.rate.loaded_ms)),
            row(report, "processor", |of| format!("{:.3} s for a thousand", of.rate.cpu_seconds_per_1000)),
            row(report, "durable", |of| yes(of.rate.durable).to_owned()),
        ],
    );
    let times = |ratio: Option<f64>| ratio.map_or("not known".to_owned(), |ratio| format!("{ratio:.2}"));
    let seconds = |gap: Option<f64>| gap.map_or("not known".to_owned(), |gap| format!("{gap:.3} s"));
    let outage = &report.outage;
    let leaders: Vec<String> = outage.leaders.iter().map(ToString::to_string).collect();
    let rows = [
        ("lone payments", format!("take {} times as long as with raft at the median", times(report.latency_ratio))),
        (
            "one silent",
            format!(
                "node {}: {} payments a second meanwhile, {} times the full rate",
                report.silenced,
                whole(report.silent.tps),
                times(report.silent_ratio)
            ),
        ),
        (
            "without one",
            format!(
                "{} payments a second, {} times the full rate",
                whole(report.without_one.tps),
                times(report.without_one_ratio)
            ),
        ),
        (
            "leader killed",
            format!(
                "node {}: {} without a receipt, then never longer than {}; before it {}",
                outage.killed,
                seconds(outage.longest_gap_seconds),
                seconds(outage.later_gap_seconds),
                seconds(outage.gap_before_seconds)
            ),
        ),
        (
            "paid meanwhile",
            format!(
                "{} a second, for {:.1} s after the kill: {}; before it {}",
                grouped(outage.rate.into()),
                outage.watched_seconds,
                percentiles(&outage.after_ms),
                percentiles(&outage.before_ms)
            ),
        ),
        ("led since", format!("nodes {}: {} times round", leaders.join(", "), outage.rounds)),
        ("failed", format!("{} payments", grouped(report.failed.into()))),
        (
            "clusters",
            format!(
                "{} members in one shard each, verify {}, {} in flight at most, {} cores",
                report.members,
                report.verify_mode,
                grouped(report.in_flight.into()),
                report.cores
            ),
        ),
    ];
    let mut text = format!("{compared}\n{}\n{}", facts(rows), phases_table(&report.phases));
    text.push_str(&refusals(&report.refused));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;
    use ledger::NodeId;
    use ledger::genesis::VerifyMode;

    use super::*;
    use crate::load::engines::Outage;
    use crate::load::latency::Percentiles;

    fn rate(tps: f64) -> Rate {
        Rate {
            tps,
            committed: 50_000,
            seconds: 10.0,
            verifies_per_tx: 4.0,
            bound_tps: 17_000.0,
            bound_ratio: 0.31,
            loaded_ms: Percentiles { p50: 2_000.0, p99: 3_000.0 },
            cpu_seconds_per_1000: 0.4,
            durable: true,
        }
    }

    fn example() -> Comparison {
        let figures = |tps, p50| Figures { rate: rate(tps), alone_ms: Percentiles { p50, p99: 20.0 }, alone: 900 };
        Comparison {
            raft: figures(9_000.0, 2.0),
            bft: figures(5_300.0, 7.0),
            latency_ratio: Some(3.5),
            silenced: NodeId(2),
            silent: rate(4_500.0),
            silent_ratio: Some(0.85),
            outage: Outage {
                killed: NodeId(3),
                rate: 500,
                gap_before_seconds: Some(0.1),
                longest_gap_seconds: Some(1.5),
                later_gap_seconds: Some(0.75),
                before_ms: Percentiles { p50: 8.0, p99: 30.0 },
                after_ms: Percentiles { p50: 9.0, p99: 700.0 },
                payments_after: 20_000,
                watched_seconds: 40.0,
                leaders: [4, 1, 2, 4].map(NodeId).to_vec(),
                rounds: 1,
            },
            without_one: rate(4_000.0),
            without_one_ratio: Some(0.76),
            failed: 0,
            refused: BTreeMap::new(),
            members: 4,
            verify_mode: "every",
            in_flight: 16_384,
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
    fn the_text_compares_the_engines_and_tells_what_a_silent_member_and_a_dead_leader_cost() {
        let text = text(&example());
        for part in [
            "9,000",
            "5,300",
            "17,000",
            "0.310",
            "take 3.50 times as long",
            "node 2: 4,500 payments a second meanwhile, 0.85 times",
            "4,000 payments a second, 0.76 times",
            "node 3: 1.500 s without a receipt, then never longer than 0.750 s; before it 0.100 s",
            "500 a second, for 40.0 s",
            "nodes 4, 1, 2, 4: 1 times round",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn each_figure_that_is_asked_for_has_to_be_reached() {
        let judged = |rest: &str, report: &Comparison| {
            judged(report, &parsed(&format!("bench --engines {rest}"))).map_err(|error| error.code)
        };
        let missed = Err("bench_floor".to_owned());
        assert_eq!(judged("", &example()), Ok(()));
        let all = "--at-least 0.3 --latency-at-most 4 --without-one-at-least 0.5 --gap-at-most 3 --later-gap-at-most 1";
        assert_eq!(judged(all, &example()), Ok(()));
        for one in [
            "--at-least 0.32",
            "--latency-at-most 3",
            "--without-one-at-least 0.8",
            "--gap-at-most 1",
            "--later-gap-at-most 0.5",
        ] {
            assert_eq!(judged(one, &example()), missed, "{one}");
        }
        let failed = Comparison { failed: 1, ..example() };
        assert_eq!((judged("", &failed), judged("--gap-at-most 3", &failed)), (Ok(()), missed.clone()));
        let slow = Comparison { silent_ratio: Some(0.4), ..example() };
        let unmeasured = Comparison { silent_ratio: None, ..example() };
        for report in [slow, unmeasured] {
            assert_eq!(judged("--without-one-at-least 0.5", &report), missed, "beside a silent member");
        }
        let mut silent = example();
        silent.outage.longest_gap_seconds = None;
        assert_eq!(judged("--gap-at-most 3", &silent), missed, "nobody was served any more");
    }

    #[test]
    fn both_clusters_are_alike_but_for_the_engine() {
        let args = parsed("bench --engines");
        for engine in [Engine::Raft, Engine::Bft] {
            let spec = spec(&args, engine);
            assert_eq!((spec.nodes, spec.orgs, spec.replicas, spec.shards, spec.engine), (4, 4, 4, 1, engine));
            assert_eq!(spec.verify, Some(VerifyMode::Every));
        }
        let args = std::iter::once("seamark").chain("bench --engines --consensus bft".split_whitespace());
        assert!(crate::args::Cli::try_parse_from(args).is_err(), "it takes both");
    }
}
