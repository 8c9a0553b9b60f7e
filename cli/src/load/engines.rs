//! One engine beside the other: payments through a group that Raft orders and through one that a Byzantine engine
//! does, on the same machine in the same run, and what the second does beside a member that is silent for a while, and when one
//! is killed for good.
//!
//! Owns what is measured of each and the ratios. The latencies take turns, one payment in flight, so that what else
//! the machine does meets both. The outage is watched with payments at an even rate, until leadership has gone round
//! so often that the turn of the dead member has come again. It starts no cluster, and has nodes silenced and killed by
//! whoever calls it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::{Client, Profile};
use ledger::{Committee, Layout, NodeId};
use serde::Serialize;
use tokio::time::Instant;

use super::agree::committees;
use super::bench::{Plan, Report, Run, funded};
use super::beside::{TURNS, alone};
use super::checked::caught_up;
use super::latency::{Latencies, Percentiles};
use super::sign::Party;
use super::source::Source;
use super::steady::{Heard, Steady};
use super::wait::until;
use super::{Phase, Phases};
use crate::error::CliError;
use crate::health::groups;
use crate::output::{Output, rounded};

/// How long it may take until a member leads that can be killed.
const LED_WITHIN: Duration = Duration::from_secs(60);
/// How long it is looked whether leadership has gone round, after the time that is paid anyway.
const WATCHED_WITHIN: Duration = Duration::from_secs(900);
/// Between two looks at who leads: a turn lasts many times longer, and looking is work for every node.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What both engines did.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Where Raft orders.
    pub raft: Figures,
    /// Where the Byzantine engine does.
    pub bft: Figures,
    /// Half of the lone payments are decided within this many times what half of Raft's take; absent without any.
    pub latency_ratio: Option<f64>,
    /// A member of the Byzantine group that did not lead, and was silent for a while: it kept its connections, answered
    /// nothing and closed nothing.
    pub silenced: NodeId,
    /// The Byzantine group meanwhile. The checks of the silent member still count in the bound.
    pub silent: Rate,
    /// Its rate over that of the whole group; absent when that is zero.
    pub silent_ratio: Option<f64>,
    /// When the leader of the Byzantine group was killed, the one that was silent having all that the others have.
    pub outage: Outage,
    /// The Byzantine group without that member, whose checks still count in the bound.
    pub without_one: Rate,
    /// Its rate over that of the whole group; absent when that is zero.
    pub without_one_ratio: Option<f64>,
    /// Payments of all these measurements that were not executed.
    pub failed: u64,
    /// The same by code.
    pub refused: BTreeMap<String, u64>,
    /// Members of each group, each with a node of its own.
    pub members: u64,
    /// `ingest` or `every`, of both clusters.
    pub verify_mode: &'static str,
    /// Payments in flight at most, where a rate is measured.
    pub in_flight: u64,
    /// Cores of this machine.
    pub cores: u64,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

/// What was measured of one engine.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Under full load.
    pub rate: Rate,
    /// One payment at a time, from sending to the receipt.
    pub alone_ms: Percentiles,
    /// How many were made one at a time.
    pub alone: u64,
}

/// A rate under full load. The fields are those of the ordinary benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Payments a second.
    pub tps: f64,
    /// Payments executed.
    pub committed: u64,
    /// From the first one sent until all were executed and checked.
    pub seconds: f64,
    /// Signature checks that a payment needs.
    #[serde(serialize_with = "super::bench::whole")]
    pub verifies_per_tx: f64,
    /// The rate that the machine could check.
    pub bound_tps: f64,
    /// `tps / bound_tps`.
    pub bound_ratio: f64,
    /// From sending to the receipt, with as many in flight as there may be.
    pub loaded_ms: Percentiles,
    /// Processor time for a thousand payments, of the cluster and the client.
    pub cpu_seconds_per_1000: f64,
    /// The nodes counted as many fsyncs as the blocks need.
    pub durable: bool,
}

impl Rate {
    fn of(report: &Report) -> Self {
        Self {
            tps: report.tps,
            committed: report.committed,
            seconds: report.seconds,
            verifies_per_tx: report.verifies_per_tx,
            bound_tps: report.bound_tps,
            bound_ratio: report.bound_ratio,
            loaded_ms: report.latency_ms,
            cpu_seconds_per_1000: report.cpu_seconds_per_1000,
            durable: report.durable,
        }
    }
}

/// What a client saw when the leader was killed for good.
#[derive(Clone, Debug, Serialize)]
pub struct Outage {
    /// The node that led.
    pub killed: NodeId,
    /// Payments a second meanwhile, each sent when it was due.
    pub rate: u64,
    /// The longest time without a receipt before the kill; absent when there was at most one.
    pub gap_before_seconds: Option<f64>,
    /// The longest time without a receipt that ended after the kill; absent when there was no receipt any more.
    pub longest_gap_seconds: Option<f64>,
    /// The second longest: what the dead member costs when its turn to lead comes again is in here.
    pub later_gap_seconds: Option<f64>,
    /// Payments that were due before the kill, from when each was due to its receipt.
    pub before_ms: Percentiles,
    /// Those that were due after it.
    pub after_ms: Percentiles,
    /// How many of these were executed.
    pub payments_after: u64,
    /// How long it was paid after the kill.
    pub watched_seconds: f64,
    /// Who was seen leading after the kill, one after the other.
    pub leaders: Vec<NodeId>,
    /// How often leadership came back to the first of them, after everybody else who was left. One that was silent before
    /// does not count: it may have missed a turn, and is left out of the next ones then.
    pub rounds: u32,
}

/// How the loss of a leader is measured.
pub struct Losing {
    /// Payments a second.
    pub rate: u32,
    /// How long payments are made before the kill, and at least after it.
    pub pay_for: Duration,
    /// How often leadership has to go round before the watch ends.
    pub rounds: u32,
}

/// A cluster that is measured: its client, and accounts with money.
pub struct Contender {
    client: Client,
    plan: Plan,
    source: Source,
    layout: Layout,
    refused: BTreeMap<String, u64>,
    /// A member that was silent for a while.
    silenced: Option<NodeId>,
}

impl Contender {
    /// Funds accounts on a cluster that is ready.
    ///
    /// # Errors
    /// What the cluster refuses or does not answer.
    pub async fn set(client: Client, issuer: Party, plan: Plan, output: Output) -> Result<Self, CliError> {
        let (source, layout) = Box::pin(funded(&client, issuer, &plan, output)).await?;
        Ok(Self { client, plan, source, layout, refused: BTreeMap::new(), silenced: None })
    }

    /// The rate under full load, as the ordinary benchmark measures it.
    ///
    /// # Errors
    /// As [`super::bench::bench`].
    pub async fn rate(&mut self, output: Output) -> Result<Rate, CliError> {
        let mut run = Run { client: &self.client, plan: &self.plan, output, phases: Phases::start() };
        let warm = Box::pin(run.warm_up(&mut self.source)).await?;
        let paid = Box::pin(run.pay(&mut self.source, warm.wanted)).await?;
        let bound = run.bound_again(warm)?;
        let report = run.report(paid, bound, self.layout.shards.len() as u64, self.source.crossing_pct());
        add(&mut self.refused, &report.rejections);
        add(&mut self.refused, &report.abort_reasons);
        Ok(Rate::of(&report))
    }

    /// The rate under full load while a member of the first shard that does not lead is there and says nothing, and which
    /// member that was. Payments go over the routers of the others. Returns when it has caught up.
    ///
    /// # Errors
    /// As [`Contender::rate`], and what silencing and waking say; `not_in_time` when nobody leads, or the member does not catch
    /// up. It stays silent where anything else fails.
    pub async fn rate_beside_silent(
        &mut self,
        profile: &Profile,
        silence: impl FnOnce(NodeId) -> Result<(), CliError>,
        wake: impl FnOnce(NodeId) -> Result<(), CliError>,
        output: Output,
    ) -> Result<(NodeId, Rate), CliError> {
        let committee = first_shard(&self.client, &self.layout).await?;
        let router = self.client.router().node;
        let silenced = until("a member leads", LED_WITHIN, async || {
            let leader = leader(&self.client, &committee).await?;
            Ok(leader.and_then(|leader| follower(&committee, leader, router)))
        })
        .await?;
        let mut others = profile.clone();
        others.routers.retain(|router| router.node != Some(silenced));
        let beside = Client::connect(&others).await?;
        let whole = std::mem::replace(&mut self.client, beside);
        (self.plan.silent, self.silenced) = (Some(silenced), Some(silenced));
        silence(silenced)?;
        let rate = Box::pin(self.rate(output)).await?;
        wake(silenced)?;
        self.plan.silent = None;
        self.client = whole;
        let spinner = output.spinner("waiting for the member that was silent");
        caught_up(&self.client, silenced).await?;
        spinner.finish_and_clear();
        Ok((silenced, rate))
    }

    /// Pays one at a time for a turn.
    async fn alone(&mut self, output: Output) -> Result<Latencies, CliError> {
        let run = Run { client: &self.client, plan: &self.plan, output, phases: Phases::start() };
        alone(&run, &mut self.source).await
    }

    /// Has the leader of the first shard killed while payments are made, and pays on. From then on nobody waits for
    /// what the dead node would check.
    ///
    /// # Errors
    /// What the killing says; `not_in_time` when nobody leads, or leadership does not go round; what the cluster does
    /// not answer.
    pub async fn lose_leader(
        self,
        losing: &Losing,
        kill: impl AsyncFnOnce(NodeId) -> Result<(), CliError>,
        output: Output,
    ) -> Result<(Self, Outage), CliError> {
        let Self { client, mut plan, source, layout, mut refused, silenced } = self;
        let committee = first_shard(&client, &layout).await?;
        let spinner = output.spinner("paying, and killing the leader");
        let steady = Steady::start(&client, source, losing.rate);
        tokio::time::sleep(losing.pay_for).await;
        let killed = until("a member leads", LED_WITHIN, async || leader(&client, &committee).await).await?;
        steady.next_stretch();
        let lost = Instant::now();
        kill(killed).await?;

        let members = committee.members.iter().map(|member| member.node);
        let counted: Vec<NodeId> = members.filter(|node| *node != killed && Some(*node) != silenced).collect();
        let mut leaders: Vec<NodeId> = Vec::new();
        let within = losing.pay_for + WATCHED_WITHIN;
        until("leadership goes round without the member that was killed", within, async || {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = leader(&client, &committee).await?;
            if now.is_some() && now.as_ref() != leaders.last() {
                leaders.extend(now);
            }
            let enough = lost.elapsed() >= losing.pay_for && rounds(&leaders, &counted) >= losing.rounds;
            Ok(enough.then_some(()))
        })
        .await?;
        let watched = lost.elapsed();
        let (heard, source) = steady.stop().await?;
        spinner.finish_and_clear();

        add(&mut refused, &heard.refused);
        let rounds = rounds(&leaders, &counted);
        let outage = outage(&heard, lost, Outage { rounds, leaders, ..Outage::nothing(killed, losing.rate, watched) });
        plan.gone = Some(killed);
        Ok((Self { client, plan, source, layout, refused, silenced }, outage))
    }

    /// Payments so far that were not executed, by code.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<String, u64> {
        &self.refused
    }
}

impl Outage {
    /// Before anything has been heard.
    fn nothing(killed: NodeId, rate: u32, watched: Duration) -> Self {
        let none = Latencies::default().percentiles();
        Self {
            killed,
            rate: rate.into(),
            gap_before_seconds: None,
            longest_gap_seconds: None,
            later_gap_seconds: None,
            before_ms: none,
            after_ms: none,
            payments_after: 0,
            watched_seconds: rounded(watched.as_secs_f64()),
            leaders: Vec::new(),
            rounds: 0,
        }
    }
}

/// Pays one at a time over both, in turns.
///
/// # Errors
/// `bench_failed` when a payment is not executed; what a cluster does not answer.
pub async fn in_turns(both: [&mut Contender; 2], output: Output) -> Result<[Latencies; 2], CliError> {
    let [one, other] = both;
    let (mut of_one, mut of_other) = (Latencies::default(), Latencies::default());
    for _ in 0..TURNS {
        of_one.extend(&Box::pin(one.alone(output)).await?);
        of_other.extend(&Box::pin(other.alone(output)).await?);
    }
    Ok([of_one, of_other])
}

/// One over the other, where that says something.
#[must_use]
pub fn ratio(one: f64, other: f64) -> Option<f64> {
    (one > 0.0 && other > 0.0).then(|| rounded(one / other))
}

/// Adds what was refused, by code.
pub fn add(to: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (code, count) in more {
        *to.entry(code.clone()).or_default() += count;
    }
}

async fn first_shard(client: &Client, layout: &Layout) -> Result<Committee, CliError> {
    let group = layout.shards.first().map(|shard| shard.group);
    let known = committees(client).await?.into_iter().find(|committee| Some(committee.group) == group);
    known.ok_or_else(|| {
        CliError::new("protocol", "a router knows no committee of the shard", "report it with the version")
    })
}

/// Who leads, as the nodes that answer see it.
async fn leader(client: &Client, committee: &Committee) -> Result<Option<NodeId>, CliError> {
    let lines = groups(&client.status().await?, std::slice::from_ref(committee));
    Ok(lines.iter().find_map(|line| line.leader).map(NodeId))
}

/// A member that does not lead, and whose router the client does not use.
fn follower(committee: &Committee, leader: NodeId, router: Option<NodeId>) -> Option<NodeId> {
    let mut members = committee.members.iter().map(|member| member.node);
    members.find(|node| *node != leader && Some(*node) != router)
}

/// How often leadership came back to who led first of these members, when each of them has led in between. Others that led
/// meanwhile change nothing.
fn rounds(leaders: &[NodeId], members: &[NodeId]) -> u32 {
    let mut leaders = leaders.iter().filter(|leader| members.contains(leader));
    let Some(first) = leaders.next() else { return 0 };
    let (mut between, mut rounds) = (BTreeSet::new(), 0);
    for leader in leaders {
        if leader != first {
            between.insert(leader);
        } else if between.len() + 1 >= members.len() {
            between.clear();
            rounds += 1;
        }
    }
    rounds
}

/// What was heard of payments around the moment when the leader was lost.
fn outage(heard: &Heard, lost: Instant, known: Outage) -> Outage {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for two in heard.moments.windows(2) {
        let gap = two[1].duration_since(two[0]);
        if two[1] <= lost { before.push(gap) } else { after.push(gap) }
    }
    before.sort_unstable();
    after.sort_unstable();
    let nth = |gaps: &[Duration], place: usize| gaps.iter().rev().nth(place).map(|gap| rounded(gap.as_secs_f64()));
    let [due_before, due_after] = &heard.decided;
    Outage {
        gap_before_seconds: nth(&before, 0),
        longest_gap_seconds: nth(&after, 0),
        later_gap_seconds: nth(&after, 1),
        before_ms: due_before.percentiles(),
        after_ms: due_after.percentiles(),
        payments_after: due_after.count(),
        ..known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_has_gone_round_when_all_that_are_left_have_led() {
        let nodes = |nodes: &[u32]| -> Vec<NodeId> { nodes.iter().copied().map(NodeId).collect() };
        let rounds = |leaders: &[u32]| super::rounds(&nodes(leaders), &nodes(&[2, 3, 4]));
        assert_eq!((rounds(&[]), rounds(&[2]), rounds(&[2, 3, 4])), (0, 0, 0));
        assert_eq!((rounds(&[2, 3, 4, 2]), rounds(&[2, 3, 4, 2, 3, 4]), rounds(&[2, 3, 4, 2, 3, 4, 2])), (1, 1, 2));
        assert_eq!(rounds(&[2, 3, 2, 3, 2]), 0, "two that are seen in turns are no round");
        assert_eq!(rounds(&[2, 3, 2, 4, 2]), 1);
        // Without the one that was silent, whether it leads or not.
        let rounds = |leaders: &[u32]| super::rounds(&nodes(leaders), &nodes(&[2, 4]));
        assert_eq!((rounds(&[2, 4, 2]), rounds(&[3, 2, 3, 4, 2, 3, 4]), rounds(&[2, 3, 2])), (1, 1, 0));
    }

    #[test]
    fn whoever_is_silenced_neither_leads_nor_is_the_router_that_payments_go_over() {
        let key = ledger::SecretKey::derive(b"k", b"1").public();
        let member = |node| ledger::Member { node: NodeId(node), org: ledger::OrgId(1), key };
        let (group, members) = (ledger::GroupId::shard(0), (1..=4).map(member).collect());
        let four = Committee::of(ledger::Engine::Bft, group, ledger::Incarnation(0), ledger::Epoch(0), members);
        let silenced = |leader, router: Option<u32>| follower(&four, NodeId(leader), router.map(NodeId));
        assert_eq!([silenced(1, Some(2)), silenced(2, Some(1)), silenced(1, None)], [3, 3, 2].map(NodeId).map(Some));
    }

    #[test]
    fn the_longest_silence_after_the_kill_and_the_next_one_are_told_apart_from_those_before() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut heard =
            Heard { moments: [0, 10, 60, 70, 1_570, 1_580, 2_080, 2_090].map(at).to_vec(), ..Heard::default() };
        heard.decided[0].record(3_000);
        (0..2).for_each(|_| heard.decided[1].record(9_000));
        let known = || Outage::nothing(NodeId(3), 500, Duration::from_secs(4));
        let seen = outage(&heard, at(75), known());
        assert_eq!(seen.gap_before_seconds, Some(0.05));
        // From the last receipt before the kill: that is how long nobody was served.
        assert_eq!((seen.longest_gap_seconds, seen.later_gap_seconds), (Some(1.5), Some(0.5)));
        assert_eq!((seen.killed, seen.rate, seen.payments_after, seen.watched_seconds), (NodeId(3), 500, 2, 4.0));

        let silent = outage(&heard, at(3_000), known());
        assert_eq!((silent.gap_before_seconds, silent.longest_gap_seconds), (Some(1.5), None));
        let nobody = outage(&Heard::default(), start, known());
        assert_eq!((nobody.gap_before_seconds, nobody.later_gap_seconds, nobody.payments_after), (None, None, 0));
    }

    #[test]
    fn a_ratio_with_nothing_is_none() {
        assert_eq!((ratio(1.0, 4.0), ratio(0.0, 4.0), ratio(1.0, 0.0)), (Some(0.25), None, None));
        let mut all = BTreeMap::from([("busy".to_owned(), 2)]);
        add(&mut all, &BTreeMap::from([("busy".to_owned(), 1), ("conflict".to_owned(), 1)]));
        assert_eq!(all, BTreeMap::from([("busy".to_owned(), 3), ("conflict".to_owned(), 1)]));
    }
}
