//! An organisation joins a channel that has long been in use, and leaves it again, while its members pay on.
//!
//! Owns the story and its clocks. The channel is filled first; then payments run at an even rate, and the clock of
//! the join runs from its command until the new node is a voter of the committee in force and has what stood when
//! the command was answered. Leaving is judged by what the organisation was still shown: it reads as fast as it
//! can, and nothing that it reads may stand at the block that excludes it or behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use channel::{Change, Command, Outcome};
use client::{Client, Consistency, PreparedTx};
use ledger::genesis::VerifyMode;
use ledger::{Address, GroupId, Height, LedgerId, NodeId};
use serde::Serialize;

use super::agree::{agree, committees};
use super::bench::OPENING;
use super::channels::{Delegate, ahead, decide, delivered, found, invite, leader, replica};
use super::checked::all_checked;
use super::drive::drive;
use super::latency::Percentiles;
use super::sign::Party;
use super::source::{Source, accounts};
use super::stage::{Stage, fresh_symbol};
use super::steady::{Heard, Steady};
use super::wait::until;
use super::workload::Shape;
use super::{Phase, Phases};
use crate::cluster::verify_name;
use crate::error::CliError;
use crate::output::{Output, grouped, rounded};

/// Organisations that found the channel; one more joins.
pub const FOUNDERS: usize = 3;
/// Transactions signed at once, so that a long history needs no more memory than a short one.
const FILL_CHUNK: usize = 65_536;
/// How long joining may take before it is given up.
const JOINED_WITHIN: Duration = Duration::from_secs(600);
/// How long the node that left may take until it has gone.
const GONE_WITHIN: Duration = Duration::from_secs(120);
/// How long what an organisation proposes that has left would stand.
const TRIED_FOR: Duration = Duration::from_secs(60);
/// What somebody is told who has left. A router knows it from the directory, which hears of it a little later, and
/// then says so itself; a leader says of a transaction only that the channel's rules refuse it.
const LEFT: [&str; 3] = ["channel_removed", "channel_refused", "access_denied"];
/// What stands in the place of a code when somebody was not refused.
const SERVED: &str = "served";

/// What is measured.
pub struct JoinPlan {
    /// Accounts of the channel.
    pub accounts: u32,
    /// Transactions between them before anybody joins.
    pub past: u64,
    /// Payments a second while the organisation joins, and before.
    pub rate: u32,
    /// How long payments are made before it joins.
    pub before: Duration,
    /// Transactions in flight while the channel is filled.
    pub in_flight: usize,
    /// Log entries between two snapshots, as the nodes have been told.
    pub snapshot_every: u64,
    /// How the cluster checks signatures.
    pub verify: VerifyMode,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct JoinReport {
    /// From the command to join until the new node is a voter of the committee in force and has applied the height
    /// at which the command was answered.
    pub join_seconds: f64,
    /// Until it has applied that height.
    pub state_seconds: f64,
    /// It took the past from a snapshot: of all that was executed before, it executed less than half itself.
    pub from_snapshot: bool,
    /// Transactions that the new node had executed itself when it had joined.
    pub replayed_transactions: u64,
    /// Height at which the command was answered.
    pub told_height: u64,
    /// Accounts that exist in the channel.
    pub accounts: u64,
    /// Transactions executed in the channel before the command.
    pub past_transactions: u64,
    /// How fast the channel was filled.
    pub fill_tps: f64,
    /// Payments a second meanwhile.
    pub rate: u64,
    /// Payments before the command, from when each was due to its receipt.
    pub before_ms: Percentiles,
    /// Payments while the organisation joined.
    pub during_ms: Percentiles,
    /// Their numbers.
    pub payments_before: u64,
    /// Their numbers.
    pub payments_during: u64,
    /// Payments that were not executed, by code.
    pub refused: BTreeMap<String, u64>,
    /// Every replica, the new one too, had the same state.
    pub replicas_agree: bool,
    /// How it left again.
    pub leave: Leave,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// `ingest` or `every`.
    pub verify_mode: &'static str,
    /// Cores of this machine.
    pub cores: u64,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

/// How an organisation left, payments going on.
#[derive(Clone, Debug, Serialize)]
pub struct Leave {
    /// The block from which on it is no member.
    pub exclusion_height: u64,
    /// Height at which its command was answered.
    pub told_height: u64,
    /// The last block of which it was shown something.
    pub last_shown_height: u64,
    /// Blocks from the exclusion on of which it was shown something; zero when leaving takes effect in its own block.
    pub blocks_shown_after: u64,
    /// The code that it is told afterwards, by what it tries to do: `read`, `pay`, `command`.
    pub refusals: BTreeMap<&'static str, String>,
    /// From the command until its node has no seat and no replica.
    pub gone_seconds: f64,
}

/// A channel in use.
struct Scene<'a> {
    client: &'a Client,
    founders: Vec<&'a Delegate>,
    joiner: &'a Delegate,
    channel: GroupId,
    /// An account of the channel.
    somebody: Address,
}

/// When and how an organisation became a member.
struct Joined {
    seconds: f64,
    state_seconds: f64,
    told_height: Height,
    replayed: u64,
    past: u64,
}

/// Fills a channel, has an organisation join it and leave it.
///
/// # Errors
/// What the cluster refuses or does not answer; `bench_failed` when a transaction of the past is not executed;
/// `bench_leave` when somebody is served who has left.
pub async fn bench_join(
    client: &Client,
    delegates: &[Delegate],
    issuer: Party,
    plan: &JoinPlan,
    output: Output,
    mut phases: Phases,
) -> Result<JoinReport, CliError> {
    let founders: Vec<&Delegate> = delegates.iter().take(FOUNDERS).collect();
    let joiner = delegates.get(FOUNDERS).filter(|joiner| !joiner.nodes.is_empty()).ok_or_else(|| {
        let cause = "nobody is there who could join: three organisations found the channel";
        CliError::usage("bench_join", cause, "use a cluster of four organisations")
    })?;
    let channel = Box::pin(found(client, "bench-join", &founders)).await?;
    delivered(client).await?;
    phases.end("found the channel");

    let stage = Stage::set(client, issuer, &fresh_symbol("JOIN")?).await?;
    decide(channel, Change::PermitAsset { asset: stage.asset }, &founders).await?;
    let parties = tokio::task::block_in_place(|| accounts(plan.accounts))?;
    let portions: Vec<_> = parties.iter().map(|party| (party.address, OPENING)).collect();
    let scene = Scene { client, founders, joiner, channel, somebody: portions[0].0 };
    let placed = parties.into_iter().map(|party| (party, channel));
    let mut source = Source::new(client.cluster_id(), stage.asset, placed, Shape::default())?;
    Box::pin(stage.endow(channel, &portions, output)).await?;
    phases.end("fund accounts");

    let fill_seconds = Box::pin(scene.fill(&mut source, plan, output)).await?;
    phases.end("fill the channel");
    invite(channel, joiner.id, &scene.founders).await?;

    let spinner = output.spinner("paying, and joining");
    let steady = Steady::start(client, source, plan.rate);
    tokio::time::sleep(plan.before).await;
    phases.end("pay before it joins");
    steady.next_stretch();
    let joined = Box::pin(scene.join()).await?;
    let (heard, source) = steady.stop().await?;
    phases.end("join");
    spinner.finish_and_clear();
    let agreed = Box::pin(agree(client)).await?;
    agreed.problems.iter().for_each(|problem| output.remark(format!("problem: {problem}")));
    phases.end("compare the replicas");

    let spinner = output.spinner("paying, and leaving");
    let steady = Steady::start(client, source, plan.rate);
    // They have no money. What matters is that nobody gets as far as finding that out.
    let strangers = accounts(2)?.into_iter().map(|party| (party, channel));
    let trial = Source::new(client.cluster_id(), stage.asset, strangers, Shape::default())?.next();
    let leave = Box::pin(scene.leave(trial)).await?;
    let (meanwhile, _) = steady.stop().await?;
    spinner.finish_and_clear();
    phases.end("leave");

    let fill_tps = if fill_seconds > 0.0 { plan.past as f64 / fill_seconds } else { 0.0 };
    let mut report = report(plan, fill_tps, &joined, heard, leave);
    for (code, count) in meanwhile.refused {
        *report.refused.entry(code).or_default() += count;
    }
    Ok(JoinReport { replicas_agree: agreed.agree, phases: phases.finish(), ..report })
}

impl Scene<'_> {
    fn ledger(&self) -> LedgerId {
        LedgerId::of_channel(self.channel)
    }

    fn node(&self) -> NodeId {
        self.joiner.nodes[0]
    }

    /// Makes the past. Returns the seconds that paying took.
    async fn fill(&self, source: &mut Source, plan: &JoinPlan, output: Output) -> Result<f64, CliError> {
        let (mut left, mut seconds) = (plan.past, 0.0);
        while left > 0 {
            let count = left.min(FILL_CHUNK as u64);
            let txs = source.sign(usize::try_from(count).unwrap_or(FILL_CHUNK), output);
            let bar = output.bar(count, format!("filling, {} to go", grouped(left.into())));
            let driven = drive(self.client, txs, plan.in_flight, None, &bar).await?;
            bar.finish_and_clear();
            if let Some((code, count)) = driven.rejected.iter().next() {
                let cause = format!("{count} transactions that fill the channel were not executed: {code}");
                return Err(CliError::new(
                    "bench_failed",
                    cause,
                    "report it with the version: nothing was in their way",
                ));
            }
            seconds += driven.seconds;
            left -= count;
        }
        if plan.verify == VerifyMode::Every {
            all_checked(self.client, None).await?;
        }
        Ok(seconds)
    }

    /// Transactions that the channel has executed, as its leader counts them.
    async fn executed(&self) -> Result<u64, CliError> {
        let status = self.client.status().await?;
        Ok(leader(&status, self.channel).map_or(0, |leader| leader.transactions))
    }

    /// The organisation joins with its node; returns when that takes part.
    async fn join(&self) -> Result<Joined, CliError> {
        let (node, channel) = (self.node(), self.channel);
        let past = self.executed().await?;
        let started = Instant::now();
        let fate = self.joiner.act(channel, &Command::Join { nodes: vec![node] }).await?;
        if !matches!(fate.outcome, Outcome::Joined { .. }) {
            let cause = format!("the command to join was answered with {:?}", fate.outcome);
            return Err(CliError::new("protocol", cause, "report it with the version"));
        }
        let mut state_seconds = None;
        let (seconds, replayed) = until("the new node takes part in the channel", JOINED_WITHIN, async || {
            let status = self.client.status().await?;
            let here = replica(&status, node, channel).filter(|one| one.stopped.is_empty());
            let Some(here) = here.filter(|one| one.height >= fate.height.0) else { return Ok(None) };
            state_seconds.get_or_insert_with(|| started.elapsed().as_secs_f64());
            let votes = leader(&status, channel).is_some_and(|leader| leader.voters.contains(&node.0));
            let known = committees(self.client).await?;
            let seat = known.iter().any(|known| known.group == channel && known.index_of(node).is_some());
            Ok((votes && seat).then(|| (started.elapsed().as_secs_f64(), here.transactions)))
        })
        .await?;
        let state_seconds = state_seconds.unwrap_or(seconds);
        Ok(Joined { seconds, state_seconds, told_height: fate.height, replayed, past })
    }

    /// Something of the channel, as the organisation that joined reads it: the height that it is shown.
    async fn read(&self) -> Result<Height, CliError> {
        let client = &self.joiner.client;
        let answer = client.account_of(self.ledger(), self.somebody, Consistency::Linearizable, false).await?;
        Ok(answer.height)
    }

    /// The organisation leaves, reading meanwhile, and tries what it may not do any more.
    async fn leave(&self, trial: PreparedTx) -> Result<Leave, CliError> {
        let first = self.read().await?;
        let started = Instant::now();
        let leaving = async { self.joiner.act(self.channel, &Command::Leave).await };
        let ((last, refusal), fate) = tokio::try_join!(self.read_until_refused(first), leaving)?;
        let Outcome::Left { height } = fate.outcome else {
            let cause = format!("the command to leave was answered with {:?}", fate.outcome);
            return Err(CliError::new("protocol", cause, "report it with the version"));
        };
        let paying = self.joiner.client.submit(trial.bytes).await;
        let freeze = Command::Propose { change: Change::Freeze, until_ms: ahead(TRIED_FOR) };
        let commanding = self.joiner.act(self.channel, &freeze).await;
        let told = [
            ("read", refusal.code),
            ("pay", paying.map_or_else(|error| CliError::from(error).code, |_| SERVED.to_owned())),
            ("command", commanding.map_or_else(|error| error.code, |_| SERVED.to_owned())),
        ];
        if let Some((what, code)) = told.iter().find(|(_, code)| !LEFT.contains(&code.as_str())) {
            let cause = format!("an organisation that had left tried to {what}, and was told '{code}'");
            return Err(CliError::new("bench_leave", cause, "report it with the version: it has to be refused"));
        }
        let gone_seconds = self.gone(started).await?;
        Ok(Leave {
            exclusion_height: height.0,
            told_height: fate.height.0,
            last_shown_height: last.0,
            blocks_shown_after: (last.0 + 1).saturating_sub(height.0),
            refusals: BTreeMap::from(told),
            gone_seconds,
        })
    }

    /// Reads until that is refused: the last height that was shown, and the refusal.
    async fn read_until_refused(&self, first: Height) -> Result<(Height, CliError), CliError> {
        let mut last = first;
        loop {
            match self.read().await {
                Ok(height) => last = last.max(height),
                Err(refusal) => return Ok((last, refusal)),
            }
        }
    }

    /// Waits until the node that left has no seat and no replica.
    async fn gone(&self, started: Instant) -> Result<f64, CliError> {
        let (node, channel) = (self.node(), self.channel);
        until("the node that left is gone", GONE_WITHIN, async || {
            let status = self.client.status().await?;
            let votes = leader(&status, channel).is_none_or(|leader| leader.voters.contains(&node.0));
            let there = replica(&status, node, channel).is_some();
            Ok((!votes && !there).then(|| started.elapsed().as_secs_f64()))
        })
        .await
    }
}

fn report(plan: &JoinPlan, fill_tps: f64, joined: &Joined, heard: Heard, leave: Leave) -> JoinReport {
    let [before, during] = &heard.decided;
    JoinReport {
        join_seconds: rounded(joined.seconds),
        state_seconds: rounded(joined.state_seconds),
        from_snapshot: joined.replayed < joined.past / 2,
        replayed_transactions: joined.replayed,
        told_height: joined.told_height.0,
        accounts: plan.accounts.into(),
        past_transactions: joined.past,
        fill_tps: rounded(fill_tps),
        rate: plan.rate.into(),
        before_ms: before.percentiles(),
        during_ms: during.percentiles(),
        payments_before: before.count(),
        payments_during: during.count(),
        refused: heard.refused,
        replicas_agree: false,
        leave: Leave { gone_seconds: rounded(leave.gone_seconds), ..leave },
        snapshot_every: plan.snapshot_every,
        verify_mode: verify_name(plan.verify),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        phases: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_executes_half_of_the_past_itself_has_not_joined_from_a_snapshot() {
        let plan = JoinPlan {
            accounts: 10,
            past: 1_000,
            rate: 100,
            before: Duration::from_secs(1),
            in_flight: 16,
            snapshot_every: 100,
            verify: VerifyMode::Every,
        };
        let leave = Leave {
            exclusion_height: 9,
            told_height: 9,
            last_shown_height: 8,
            blocks_shown_after: 0,
            refusals: BTreeMap::from([("read", "channel_removed".to_owned())]),
            gone_seconds: 1.0,
        };
        let joined =
            |replayed| Joined { seconds: 2.0, state_seconds: 1.5, told_height: Height(5), replayed, past: 1_100 };
        let mut heard = Heard::default();
        heard.decided[1].record(3_000);
        let made = report(&plan, 400.0, &joined(550), Heard::default(), leave.clone());
        assert!(!made.from_snapshot);
        let made = report(&plan, 400.0, &joined(549), heard, leave);
        assert!(made.from_snapshot);
        assert_eq!((made.payments_before, made.payments_during, made.before_ms.p50), (0, 1, 0.0));
        assert_eq!((made.past_transactions, made.verify_mode), (1_100, "every"));
    }
}
