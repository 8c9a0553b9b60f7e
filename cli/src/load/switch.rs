//! Switching engines under load: a shard of three that Raft orders goes over to the Byzantine engine, with a fourth member,
//! and comes back, while payments are made at an even rate.
//!
//! Owns what is measured of each direction: the longest time in which nobody had a receipt, how long it took until every
//! member ran the engine, and what was not executed. It starts no cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use beacon::BeaconCommand;
use client::Client;
use ledger::{Engine, GroupId};
use serde::Serialize;
use tokio::time::Instant;

use super::agree::committees;
use super::bench::{Plan, funded};
use super::channels::Delegate;
use super::latency::Percentiles;
use super::sign::Party;
use super::steady::Steady;
use super::wait::until;
use super::{Phase, Phases};
use crate::error::CliError;
use crate::output::{Output, rounded};

/// How long it may take until all members run an engine.
const RUNS_WITHIN: Duration = Duration::from_secs(300);

/// What the switches cost.
#[derive(Clone, Debug, Serialize)]
pub struct Switching {
    /// From Raft to the Byzantine engine, which needs one member more.
    pub to_bft: Direction,
    /// And back, to as many members as before.
    pub to_raft: Direction,
    /// Payments a second, each sent when it was due.
    pub rate: u64,
    /// The longest time without a receipt before the first switch; absent when there was at most one.
    pub gap_before_seconds: Option<f64>,
    /// Payments that were due before the first switch, from when each was due to its receipt.
    pub before_ms: Percentiles,
    /// Those that were due after it.
    pub meanwhile_ms: Percentiles,
    /// Payments that were executed.
    pub executed: u64,
    /// Payments that were not.
    pub failed: u64,
    /// The same by code.
    pub refused: BTreeMap<String, u64>,
    /// `ingest` or `every`.
    pub verify_mode: &'static str,
    /// Cores of this machine.
    pub cores: u64,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

/// What one switch cost.
#[derive(Clone, Debug, Serialize)]
pub struct Direction {
    /// The engine that took over.
    pub engine: &'static str,
    /// Members of the committee in the end.
    pub members: u64,
    /// The longest time without a receipt from the command until the next one, or the end; absent when there was no
    /// receipt any more.
    pub longest_gap_seconds: Option<f64>,
    /// From the command until all of these members ran the engine, and nobody else had a seat.
    pub switch_seconds: f64,
    /// Payments that were due from the command until the next one, or the end, and were not executed.
    pub failed: u64,
}

/// How the switches are measured.
pub struct SwitchPlan {
    /// Payments a second.
    pub rate: u32,
    /// How long payments are made before the first switch, and at least after each.
    pub pay_for: Duration,
    /// `ingest` or `every`.
    pub verify_mode: &'static str,
}

/// When a switch was asked for, and when it was there.
struct Moment {
    engine: Engine,
    members: usize,
    asked: Instant,
    there: Instant,
}

/// Pays at an even rate, and has the first shard go over and back.
///
/// # Errors
/// What the cluster refuses or does not answer; `not_in_time` when an engine does not run everywhere; `switch_pending` when
/// all organisations have approved and it is not decided.
pub async fn bench_switch(
    client: &Client,
    delegates: &[Delegate],
    issuer: Party,
    (plan, switch): (&Plan, &SwitchPlan),
    output: Output,
    mut phases: Phases,
) -> Result<Switching, CliError> {
    let (source, layout) = Box::pin(funded(client, issuer, plan, output)).await?;
    let nowhere = || CliError::new("protocol", "the layout has no shard", "report it with the version");
    let group = layout.shards.first().map(|shard| shard.group).ok_or_else(nowhere)?;
    let before = members(client, group).await?;
    phases.end("fund accounts");

    let spinner = output.spinner("paying, and switching engines");
    let steady = Steady::start(client, source, switch.rate);
    tokio::time::sleep(switch.pay_for).await;
    phases.end("pay");
    let mut moments = Vec::new();
    for (engine, members, phase) in [
        (Engine::Bft, before.max(Engine::Bft.least_members()), "go over to bft and pay on"),
        (Engine::Raft, before, "go back to raft and pay on"),
    ] {
        steady.next_stretch();
        let asked = Instant::now();
        approve(delegates, group, engine).await?;
        let what = format!("all members run {engine}");
        until(&what, RUNS_WITHIN, async || runs(client, group, engine, members).await).await?;
        moments.push(Moment { engine, members, asked, there: Instant::now() });
        tokio::time::sleep(switch.pay_for).await;
        phases.end(phase);
    }
    let (heard, _source) = steady.stop().await?;
    spinner.finish_and_clear();

    let end = Instant::now();
    let [bft, raft] = &moments[..] else {
        return Err(CliError::new("protocol", "there were not two switches", "report it with the version"));
    };
    let [due_before, due_meanwhile] = &heard.decided;
    // Before the first command is the first stretch.
    let failed = |stretch| heard.failed.get(&stretch).copied().unwrap_or_default();
    Ok(Switching {
        to_bft: direction(&heard.moments, bft, raft.asked, failed(1)),
        to_raft: direction(&heard.moments, raft, end, failed(2)),
        rate: switch.rate.into(),
        gap_before_seconds: longest(&heard.moments, |_, second| second <= bft.asked),
        before_ms: due_before.percentiles(),
        meanwhile_ms: due_meanwhile.percentiles(),
        executed: due_before.count() + due_meanwhile.count(),
        failed: heard.refused.values().sum(),
        refused: heard.refused,
        verify_mode: switch.verify_mode,
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        phases: phases.finish(),
    })
}

/// Has as many organisations ask for an engine as decide.
async fn approve(delegates: &[Delegate], group: GroupId, engine: Engine) -> Result<(), CliError> {
    let command = BeaconCommand::SwitchEngine { group, engine };
    for delegate in delegates {
        if delegate.beacon(&command).await?.pending.is_none() {
            return Ok(());
        }
    }
    let cause = format!("all organisations have asked for {engine}, and it is not decided");
    Err(CliError::new("switch_pending", cause, "report it with the version"))
}

/// Members of a group.
async fn members(client: &Client, group: GroupId) -> Result<usize, CliError> {
    let known = committees(client).await?;
    let unknown =
        || CliError::new("protocol", "a router knows no committee of the shard", "report it with the version");
    known.iter().find(|committee| committee.group == group).map(|found| found.members.len()).ok_or_else(unknown)
}

/// Whether the committee in force has so many members under this engine, and all of them run it.
async fn runs(client: &Client, group: GroupId, engine: Engine, members: usize) -> Result<Option<()>, CliError> {
    let known = committees(client).await?;
    let wanted = |found: &&ledger::Committee| found.group == group && found.engine == engine;
    let Some(current) = known.iter().find(wanted).filter(|current| current.members.len() == members) else {
        return Ok(None);
    };
    let status = client.status().await?;
    let running = status.nodes.iter().filter(|node| current.index_of(ledger::NodeId(node.node)).is_some());
    let running = running.filter(|node| {
        let replica = node.replicas.iter().find(|replica| replica.group == group.0);
        replica.is_some_and(|replica| replica.engine == engine.name() && replica.stopped.is_empty())
    });
    Ok((running.count() == members).then_some(()))
}

fn direction(moments: &[Instant], switch: &Moment, end: Instant, failed: u64) -> Direction {
    Direction {
        engine: switch.engine.name(),
        members: switch.members as u64,
        longest_gap_seconds: longest(moments, |first, second| second >= switch.asked && first < end),
        switch_seconds: rounded(switch.there.duration_since(switch.asked).as_secs_f64()),
        failed,
    }
}

/// The longest time between two receipts, of those that count.
pub(super) fn longest(moments: &[Instant], counts: impl Fn(Instant, Instant) -> bool) -> Option<f64> {
    let gaps = moments.windows(2).filter(|two| counts(two[0], two[1])).map(|two| two[1].duration_since(two[0]));
    gaps.max().map(|gap| rounded(gap.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_where_it_was_and_across_a_command_in_both() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let moments = [0, 10, 60, 1_060, 1_070, 1_570, 1_580].map(at);
        let around = |asked, end| {
            let switch = Moment { engine: Engine::Bft, members: 4, asked: at(asked), there: at(asked) };
            direction(&moments, &switch, at(end), 0).longest_gap_seconds
        };
        // From the last receipt before the command: that is how long nobody was served.
        assert_eq!((around(70, 1_075), around(1_075, 2_000)), (Some(1.0), Some(0.5)));
        assert_eq!(around(1_590, 2_000), None, "nobody was served any more");
        assert_eq!(longest(&moments, |_, second| second <= at(1_059)), Some(0.05), "before it");
        let raft = Moment { engine: Engine::Raft, members: 3, asked: at(1_065), there: at(3_315) };
        let told = direction(&moments, &raft, at(4_000), 5);
        assert_eq!((told.engine, told.members, told.switch_seconds, told.failed), ("raft", 3, 2.25, 5));
        assert_eq!(told.longest_gap_seconds, Some(0.5));
    }
}
