//! A new node takes a seat of a shard over that has many accounts, while customers pay as fast as they can.
//!
//! Owns the story and its clocks. Payments are signed and sent in rounds, each as fast as the cluster takes them, so that
//! the rate before the command and the rate after it are measured in the same way. The clock of the takeover runs from the
//! command until the new node votes, its committee is in force, and it has what stood when the command was given. It
//! starts no cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use beacon::BeaconCommand;
use client::Client;
use ledger::{GroupId, NodeId};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::agree::{agree, committees};
use super::bench::{Plan, funded};
use super::channels::{Delegate, leader, replica};
use super::drive::{Driven, drive};
use super::latency::{Latencies, Percentiles};
use super::sign::Party;
use super::source::Source;
use super::wait::until;
use super::{Phase, Phases};
use crate::cluster::verify_name;
use crate::error::CliError;
use crate::output::{Output, rounded};

/// How long a round of payments is.
const ROUND_FOR: Duration = Duration::from_secs(1);
/// Payments of the first round; later ones go by the rate of the one before.
const ROUND_FIRST: usize = 4_096;
/// Signed for a round beyond what the rate of the one before would take.
const HEADROOM: f64 = 1.5;
/// How long the takeover may take until it is given up.
const WITHIN: Duration = Duration::from_secs(600);
/// Parts of the run that are told apart.
const STRETCHES: usize = 2;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Takeover {
    /// From the command until the new node votes, its committee is in force, and it has applied the height at which the
    /// command was given.
    pub takeover_seconds: f64,
    /// Until it has applied that height.
    pub state_seconds: f64,
    /// Accounts of the shard.
    pub accounts: u64,
    /// Height at which the command was given.
    pub told_height: u64,
    /// Transactions executed in the shard before.
    pub past_transactions: u64,
    /// Transactions that the new node had executed itself when it had taken over; the others came with the state.
    pub replayed_transactions: u64,
    /// The node that gave its seat.
    pub from: u32,
    /// The node that took it.
    pub to: u32,
    /// Payments a second before the command.
    pub rate_before: f64,
    /// Payments a second from then on until it was done.
    pub rate_during: f64,
    /// The second over the first.
    pub rate_ratio: f64,
    /// Payments before the command, from hand-over to receipt.
    pub before_ms: Percentiles,
    /// Payments after it.
    pub during_ms: Percentiles,
    /// Payments that were executed.
    pub executed: u64,
    /// Payments that were not.
    pub failed: u64,
    /// The same by code.
    pub refused: BTreeMap<String, u64>,
    /// Every replica, the new one too, had the same state.
    pub replicas_agree: bool,
    /// `ingest` or `every`.
    pub verify_mode: &'static str,
    /// Cores of this machine.
    pub cores: u64,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

/// What was paid in one part of the run.
#[derive(Debug, Default)]
struct Stretch {
    committed: u64,
    seconds: f64,
    decided: Latencies,
}

impl Stretch {
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.committed as f64 / self.seconds } else { 0.0 }
    }
}

/// What became of all rounds.
#[derive(Debug, Default)]
struct Paid {
    stretches: [Stretch; STRETCHES],
    refused: BTreeMap<String, u64>,
}

impl Paid {
    /// Takes a round, which counts where it began.
    fn take(&mut self, stretch: usize, driven: Driven) {
        let part = &mut self.stretches[stretch.min(STRETCHES - 1)];
        part.committed += driven.committed;
        part.seconds += driven.seconds;
        part.decided.extend(&driven.decided);
        for (code, count) in driven.rejected.into_iter().chain(driven.aborted) {
            *self.refused.entry(code).or_default() += count;
        }
    }
}

/// Somebody who pays, round after round, until this is stopped.
struct Payer {
    stretch: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
    paying: JoinHandle<Result<Paid, CliError>>,
}

impl Payer {
    fn start(client: &Client, source: Source, in_flight: usize, output: Output) -> Self {
        let (stretch, stop) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicBool::new(false)));
        let paying = tokio::spawn(pay(client.clone(), source, in_flight, output, stretch.clone(), stop.clone()));
        Self { stretch, stop, paying }
    }

    /// What begins from now on counts in the next part.
    fn next_stretch(&self) {
        self.stretch.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends it with the round that is under way.
    ///
    /// # Errors
    /// When the fate of a payment stays unknown.
    async fn stop(self) -> Result<Paid, CliError> {
        self.stop.store(true, Ordering::Relaxed);
        let crashed = |error| CliError::new("sender", error, "report this with the command that was run");
        self.paying.await.map_err(crashed)?
    }
}

async fn pay(
    client: Client,
    mut source: Source,
    in_flight: usize,
    output: Output,
    stretch: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
) -> Result<Paid, CliError> {
    let (mut paid, mut count) = (Paid::default(), ROUND_FIRST.max(in_flight));
    while !stop.load(Ordering::Relaxed) {
        let txs = source.sign(count, output);
        let here = stretch.load(Ordering::Relaxed);
        let bar = indicatif::ProgressBar::hidden();
        let driven = drive(&client, txs, in_flight, Some(ROUND_FOR), &bar).await?;
        if driven.seconds > 0.0 {
            let rate = driven.committed as f64 / driven.seconds;
            // Floats saturate when they are cast.
            count = (rate * ROUND_FOR.as_secs_f64() * HEADROOM).ceil() as usize + in_flight;
        }
        paid.take(here.into(), driven);
    }
    Ok(paid)
}

/// Who gives a seat to whom: two nodes of one organisation, of which one is in the shard.
struct Pair<'a> {
    by: &'a Delegate,
    from: NodeId,
    to: NodeId,
}

/// When and how the seat was taken.
struct Taken {
    seconds: f64,
    state_seconds: f64,
    told_height: u64,
    past: u64,
    replayed: u64,
}

/// Fills the first shard with accounts, and has a node take the seat of another one while payments are made.
///
/// # Errors
/// What the cluster refuses or does not answer; `bench_takeover` when no organisation has a node in the shard and one
/// outside; `not_in_time` when the seat is not taken.
pub async fn bench_takeover(
    client: &Client,
    delegates: &[Delegate],
    issuer: Party,
    plan: &Plan,
    output: Output,
    mut phases: Phases,
) -> Result<Takeover, CliError> {
    let (source, layout) = Box::pin(funded(client, issuer, plan, output)).await?;
    let nowhere = || CliError::new("protocol", "the layout has no shard", "report it with the version");
    let group = layout.shards.first().map(|shard| shard.group).ok_or_else(nowhere)?;
    let pair = pair(client, delegates, group).await?;
    phases.end("fund accounts");

    let spinner = output.spinner("paying, and taking over");
    let payer = Payer::start(client, source, plan.in_flight, output);
    tokio::time::sleep(plan.send_for).await;
    phases.end("pay before it");
    payer.next_stretch();
    let taken = Box::pin(take_over(client, &pair, group)).await?;
    phases.end("take over");
    let paid = payer.stop().await?;
    spinner.finish_and_clear();
    let agreed = Box::pin(agree(client)).await?;
    agreed.problems.iter().for_each(|problem| output.remark(format!("problem: {problem}")));
    phases.end("compare the replicas");
    let report = report(plan, &pair, &taken, paid);
    Ok(Takeover { replicas_agree: agreed.agree, phases: phases.finish(), ..report })
}

async fn pair<'a>(client: &Client, delegates: &'a [Delegate], group: GroupId) -> Result<Pair<'a>, CliError> {
    let known = committees(client).await?;
    let seated = |node: &NodeId| known.iter().any(|found| found.group == group && found.index_of(*node).is_some());
    let pair = delegates.iter().find_map(|by| {
        let from = by.nodes.iter().copied().find(seated)?;
        let to = by.nodes.iter().copied().find(|node| !seated(node))?;
        Some(Pair { by, from, to })
    });
    pair.ok_or_else(|| {
        let cause = "no organisation has a node with a seat in the shard, and one without";
        CliError::usage("bench_takeover", cause, "use a cluster with more nodes than replicas")
    })
}

async fn take_over(client: &Client, pair: &Pair<'_>, group: GroupId) -> Result<Taken, CliError> {
    let status = client.status().await?;
    let (told_height, past) = leader(&status, group).map_or((0, 0), |leader| (leader.height, leader.transactions));
    let started = Instant::now();
    pair.by.beacon(&BeaconCommand::ReplaceNode { node: pair.from, successor: pair.to }).await?;
    let mut state_seconds = None;
    let (seconds, replayed) = until("the new node takes part in the shard", WITHIN, async || {
        let status = client.status().await?;
        let here = replica(&status, pair.to, group).filter(|one| one.stopped.is_empty());
        let Some(here) = here.filter(|one| one.height >= told_height) else { return Ok(None) };
        state_seconds.get_or_insert_with(|| started.elapsed().as_secs_f64());
        let votes = leader(&status, group).is_some_and(|leader| leader.voters.contains(&pair.to.0));
        let known = committees(client).await?;
        let seat = known.iter().any(|known| known.group == group && known.index_of(pair.to).is_some());
        Ok((votes && seat).then(|| (started.elapsed().as_secs_f64(), here.transactions)))
    })
    .await?;
    Ok(Taken { seconds, state_seconds: state_seconds.unwrap_or(seconds), told_height, past, replayed })
}

fn report(plan: &Plan, pair: &Pair<'_>, taken: &Taken, paid: Paid) -> Takeover {
    let [before, during] = &paid.stretches;
    let ratio = if before.rate() > 0.0 { during.rate() / before.rate() } else { 0.0 };
    Takeover {
        takeover_seconds: rounded(taken.seconds),
        state_seconds: rounded(taken.state_seconds),
        accounts: plan.accounts.into(),
        told_height: taken.told_height,
        past_transactions: taken.past,
        replayed_transactions: taken.replayed,
        from: pair.from.0,
        to: pair.to.0,
        rate_before: rounded(before.rate()),
        rate_during: rounded(during.rate()),
        rate_ratio: rounded(ratio),
        before_ms: before.decided.percentiles(),
        during_ms: during.decided.percentiles(),
        executed: before.committed + during.committed,
        failed: paid.refused.values().sum(),
        refused: paid.refused,
        replicas_agree: false,
        verify_mode: verify_name(plan.verify),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        phases: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_count_where_they_began_and_rates_are_those_of_the_time_that_they_took() {
        let round = |committed, seconds| {
            let mut driven = Driven { committed, seconds, ..Driven::default() };
            driven.decided.record(2_000);
            driven
        };
        let mut paid = Paid::default();
        paid.take(0, round(1_000, 1.0));
        paid.take(0, round(3_000, 1.0));
        paid.take(1, round(1_500, 1.0));
        // There are no more parts than two.
        let failed = BTreeMap::from([("busy".to_owned(), 3)]);
        paid.take(2, Driven { rejected: failed, ..round(1_500, 1.0) });
        let [before, during] = &paid.stretches;
        assert_eq!((before.rate(), during.rate()), (2_000.0, 1_500.0));
        assert_eq!((before.decided.count(), during.decided.count()), (2, 2));
        assert_eq!(paid.refused, BTreeMap::from([("busy".to_owned(), 3)]));
        assert_eq!(Stretch::default().rate(), 0.0, "nothing was paid");
    }
}
