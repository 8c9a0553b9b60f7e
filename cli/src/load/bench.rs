//! The benchmark: signs beforehand, then sends as fast as payments are taken, and compares the rate
//! with what this machine could at most verify.
//!
//! The clock runs from the first payment sent until the last credit is applied and, where replicas
//! check signatures off the path, until every replica has made its checks: they are in the bound, so
//! they have to be in the time. Nothing is switched off for it: signatures, mutual TLS, consensus and
//! fsync are those of every other run, and the client runs on the same machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::{Client, PreparedTx};
use ledger::genesis::VerifyMode;
use ledger::tx::ParsedTx;
use ledger::{ClusterId, Engine, Layout, NodeId};
use rayon::prelude::*;
use serde::Serialize;

use super::beside::Beside;
use super::checked::all_checked;
use super::counted::{Counted, counters};
use super::drive::{Driven, drive};
use super::latency::Percentiles;
use super::machine::{Usage, Used};
use super::sign::Party;
use super::source::{Source, accounts};
use super::stage::{Stage, fresh_symbol};
use super::workload::Shape;
use super::{Phase, Phases};
use crate::cluster::verify_name;
use crate::error::CliError;
use crate::output::{Output, rounded};

/// Payments signed to measure the verify bound and to warm up with.
const SAMPLE: usize = 20_000;
/// How long the verify bound is measured.
const VERIFY_FOR: Duration = Duration::from_millis(1500);
/// How long the warm-up sends.
const WARM_UP_FOR: Duration = Duration::from_secs(2);
/// Payments are signed for this many times the rate of the warm-up, which starts slowly.
const HEADROOM: f64 = 2.0;
/// What each account starts with: more than any run spends.
pub(super) const OPENING: u128 = 1_000_000_000_000_000;

/// What is measured.
pub struct Plan {
    /// What the transactions are like.
    pub shape: Shape,
    /// Accounts.
    pub accounts: u32,
    /// Transactions in flight at most.
    pub in_flight: usize,
    /// How long transactions are sent.
    pub send_for: Duration,
    /// Transactions signed at most.
    pub transactions_max: Option<usize>,
    /// How the cluster checks signatures.
    pub verify: VerifyMode,
    /// Replicas of a shard.
    pub replicas: u64,
    /// What orders the shards.
    pub engine: Engine,
    /// A node that has gone for good: nobody waits for its checks.
    pub gone: Option<NodeId>,
    /// A node that has its connections and says nothing. All others are needed for whatever is decided then.
    pub silent: Option<NodeId>,
    /// Other processes of the cluster on this machine.
    pub processes: Vec<u32>,
}

/// What was measured. The first fields have a fixed form for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Transactions a second, every credit applied and every check made.
    pub tps: f64,
    /// Transactions executed and credited.
    pub committed: u64,
    /// Transactions refused, or rejected by the one group that decides.
    pub rejected: u64,
    /// From the first transaction sent to the last credit applied and, in mode `every`, to the last
    /// block checked and signed by every replica, whichever is later.
    pub seconds: f64,
    /// From sending to the fate: the receipt, or the votes of all groups.
    pub latency_ms: Percentiles,
    /// Shards.
    pub shards: u64,
    /// Replicas of a shard.
    pub replicas: u64,
    /// What orders the shards: `raft` or `bft`.
    pub consensus: &'static str,
    /// Payments of a hundred between two shards, as they were.
    pub cross_shard_pct: f64,
    /// `ingest` or `every`.
    pub verify_mode: &'static str,
    /// Signature checks that a transaction needs in this mode: each voter group checks all of its
    /// signatures where it enters, and with `every` or with `bft` at each replica.
    #[serde(serialize_with = "whole")]
    pub verifies_per_tx: f64,
    /// Signatures a second that all cores check, parsing their transactions.
    pub verify_all_cores: f64,
    /// The rate that this would allow: `verify_all_cores / verifies_per_tx`.
    pub bound_tps: f64,
    /// `tps / bound_tps`.
    pub bound_ratio: f64,
    /// Processor time of the cluster and the client during the run.
    pub cpu_seconds: f64,
    /// Bytes written to disks for a payment.
    pub bytes_written_per_tx: f64,
    /// Bytes that went through sockets for a payment, between nodes and between them and clients, TLS
    /// included.
    pub bytes_sent_per_tx: f64,
    /// Every block was made durable on a majority: the nodes' databases counted as many fsyncs as
    /// that takes.
    pub durable: bool,
    /// From the first transaction sent to the last credit applied.
    pub seconds_to_last_credit: f64,
    /// Processor time for a thousand payments.
    pub cpu_seconds_per_1000: f64,
    /// Writes that were made durable during the run, all nodes.
    pub log_fsyncs: u64,
    /// Payments in flight at most.
    pub in_flight: u64,
    /// Accounts.
    pub accounts: u64,
    /// Cores of this machine.
    pub cores: u64,
    /// Refusals by code.
    pub rejections: BTreeMap<String, u64>,
    /// Payers of each transaction, in as many shards.
    pub voters: u64,
    /// Transactions that one of several voter groups said no to.
    pub aborted: u64,
    /// Of all transactions, in percent.
    pub abort_pct: f64,
    /// Aborts by the reason of the NO.
    pub abort_reasons: BTreeMap<String, u64>,
    /// From sending until it was decided: the same as `latency_ms`.
    pub decided_ms: Percentiles,
    /// From sending until every credit was applied.
    pub applied_ms: Percentiles,
    /// Transactions of a hundred that were to be in each other's way.
    pub conflict_pct: u64,
    /// Skew of the payers.
    pub zipf: Option<f64>,
    /// One account paid in every transaction.
    pub hot_payer: bool,
    /// One account received every payment.
    pub hot_payee: bool,
    /// What channels do beside one another, where payments were made in channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Beside>,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

/// As an integer where it is one.
pub(super) fn whole<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 { serializer.serialize_u64(*value as u64) } else { serializer.serialize_f64(*value) }
}

/// Runs the benchmark on a cluster that is ready, in its main ledger.
///
/// # Errors
/// What the cluster refuses or does not answer.
pub async fn bench(
    client: &Client,
    issuer: Party,
    plan: &Plan,
    output: Output,
    phases: Phases,
) -> Result<Report, CliError> {
    let (mut source, layout) = Box::pin(funded(client, issuer, plan, output)).await?;
    let mut run = Run { client, plan, output, phases };
    run.phases.end("fund accounts");
    let warm = run.warm_up(&mut source).await?;
    let paid = run.pay(&mut source, warm.wanted).await?;
    run.phases.end("pay");
    let bound = run.bound_again(warm)?;
    let mut report = run.report(paid, bound, layout.shards.len() as u64, source.crossing_pct());
    report.phases = run.phases.finish();
    Ok(report)
}

/// Accounts of the main ledger with money of an asset of their own, and where they live.
///
/// # Errors
/// What the cluster refuses or does not answer.
pub(super) async fn funded(
    client: &Client,
    issuer: Party,
    plan: &Plan,
    output: Output,
) -> Result<(Source, Layout), CliError> {
    let stage = Stage::set(client, issuer, &fresh_symbol("BENCH")?).await?;
    let parties = tokio::task::block_in_place(|| accounts(plan.accounts))?;
    let portions: Vec<_> = parties.iter().map(|party| (party.address, OPENING)).collect();
    let placed = parties.into_iter().map(|party| {
        let home = stage.home(&party.address);
        (party, home)
    });
    let source = Source::new(client.cluster_id(), stage.asset, placed, plan.shape)?;
    stage.mint(&portions, output).await?;
    Ok((source, stage.layout))
}

/// A benchmark on its way.
pub(super) struct Run<'a> {
    pub(super) client: &'a Client,
    pub(super) plan: &'a Plan,
    pub(super) output: Output,
    pub(super) phases: Phases,
}

/// What is known once it is warm.
pub(super) struct Warm {
    sample: Vec<PreparedTx>,
    bound: Bound,
    /// How many transactions are enough for the time, at the rate of the warm-up.
    pub(super) wanted: usize,
}

/// What was paid, and what that took.
pub(super) struct Paid {
    driven: Driven,
    seconds: f64,
    used: Used,
    counted: Counted,
}

impl Paid {
    /// Transactions executed, and the time until all checks were made.
    pub(super) fn committed(&self) -> (u64, f64) {
        (self.driven.committed, self.seconds)
    }

    #[cfg(test)]
    pub(super) fn of(committed: u64, seconds: f64) -> Self {
        let driven = Driven { committed, ..Driven::default() };
        Self { driven, seconds, used: Used::default(), counted: Counted::default() }
    }
}

impl Run<'_> {
    /// Measures the verify bound, and pays for a while to find out the rate.
    ///
    /// # Errors
    /// What the cluster refuses or does not answer.
    pub(super) async fn warm_up(&mut self, source: &mut Source) -> Result<Warm, CliError> {
        let (client, plan) = (self.client, self.plan);
        let sample = source.sign(SAMPLE.min(plan.transactions_max.unwrap_or(SAMPLE)), self.output);
        let bound = tokio::task::block_in_place(|| measure(&client.cluster_id(), &sample, plan))?;
        self.phases.end("measure the verify bound");
        let bar = self.output.spinner("warming up");
        let driven = drive(client, sample.clone(), plan.in_flight, Some(WARM_UP_FOR), &bar).await?;
        all_checks_made(client, plan).await?;
        bar.finish_and_clear();
        self.phases.end("warm up");
        let wanted = transactions_for(plan, rate(&driven), bound.bound_tps);
        Ok(Warm { sample, bound, wanted })
    }

    /// Signs so many transactions and sends them, for as long as the plan says.
    ///
    /// # Errors
    /// What the cluster does not answer.
    pub(super) async fn pay(&mut self, source: &mut Source, count: usize) -> Result<Paid, CliError> {
        let (client, plan) = (self.client, self.plan);
        let txs = source.sign(count, self.output);
        self.phases.end("sign");
        let (before, usage) = (counters(&client.status().await?), Usage::now(&plan.processes));
        let bar = self.output.bar(count as u64, "paying");
        let driven = drive(client, txs, plan.in_flight, Some(plan.send_for), &bar).await?;
        bar.finish_and_clear();
        let seconds = driven.seconds + all_checks_made(client, plan).await?;
        let used = Usage::now(&plan.processes).since(&usage);
        let counted = counters(&client.status().await?).since(&before);
        Ok(Paid { driven, seconds, used, counted })
    }

    /// Measures the verify bound again and takes the higher one: what else ran beside the first
    /// measurement must not make the bound low and the ratio high.
    ///
    /// # Errors
    /// `bench_signature`.
    pub(super) fn bound_again(&mut self, warm: Warm) -> Result<Bound, CliError> {
        let again = tokio::task::block_in_place(|| measure(&self.client.cluster_id(), &warm.sample, self.plan))?;
        self.phases.end("measure the verify bound again");
        Ok(again.higher(warm.bound))
    }

    /// The report, but for the phases.
    pub(super) fn report(&self, paid: Paid, bound: Bound, shards: u64, crossing_pct: f64) -> Report {
        report(self.plan, shards, paid, crossing_pct, bound)
    }
}

/// Waits for the checks that are made off the path, where there are any. Returns how long. Beside a silent node there are
/// none: Byzantine members, all but that one, have checked before they voted. Asking it would only take until it is given up.
async fn all_checks_made(client: &Client, plan: &Plan) -> Result<f64, CliError> {
    let start = Instant::now();
    if plan.verify == VerifyMode::Every && plan.silent.is_none() {
        all_checked(client, plan.gone).await?;
        return Ok(start.elapsed().as_secs_f64());
    }
    Ok(0.0)
}

/// How many checks a transaction of so many signatures needs. Every group that votes takes it in and
/// checks all of its signatures, also those of other groups' accounts; in mode `every` each of its
/// replicas does, the leader's check at ingest being its own. A Byzantine member does before it votes, in
/// either mode, and what it has checked then it does not check again.
fn checks(plan: &Plan, signatures: usize) -> u64 {
    let replicas = match (plan.engine, plan.verify) {
        (Engine::Raft, VerifyMode::Ingest) => 1,
        (Engine::Bft, _) | (_, VerifyMode::Every) => plan.replicas.max(1),
    };
    u64::from(plan.shape.voters) * replicas * signatures as u64
}

fn rate(driven: &Driven) -> f64 {
    if driven.seconds > 0.0 { driven.committed as f64 / driven.seconds } else { 0.0 }
}

/// Enough for the whole time, but not more than the machine could verify in it.
fn transactions_for(plan: &Plan, warm_rate: f64, bound_tps: f64) -> usize {
    let seconds = plan.send_for.as_secs_f64();
    let wanted = (warm_rate * HEADROOM * seconds).min(bound_tps * seconds) + plan.in_flight as f64;
    // Floats saturate when they are cast.
    (wanted.ceil() as usize).min(plan.transactions_max.unwrap_or(usize::MAX)).max(1)
}

pub(super) struct Bound {
    verify_all_cores: f64,
    verifies_per_tx: f64,
    bound_tps: f64,
}

impl Bound {
    fn higher(self, other: Self) -> Self {
        if other.verify_all_cores > self.verify_all_cores { other } else { self }
    }
}

/// Measures how many signatures a second all cores together check, by the function that the path of
/// a payment calls, and how many of these transactions that allows.
fn measure(cluster: &ClusterId, sample: &[PreparedTx], plan: &Plan) -> Result<Bound, CliError> {
    let signatures: Vec<usize> = sample.par_iter().filter_map(|tx| verified(cluster, tx)).collect();
    if signatures.len() != sample.len() {
        return Err(CliError::new(
            "bench_signature",
            "a signature made here does not verify",
            "report it with the version: this must not happen",
        ));
    }
    let needed: u64 = signatures.iter().map(|count| checks(plan, *count)).sum();
    let verifies_per_tx = needed as f64 / sample.len().max(1) as f64;
    let (start, mut checked) = (Instant::now(), 0usize);
    while start.elapsed() < VERIFY_FOR {
        checked += sample.par_iter().filter_map(|tx| verified(cluster, tx)).sum::<usize>();
    }
    let verify_all_cores = checked as f64 / start.elapsed().as_secs_f64();
    let bound_tps = if verifies_per_tx > 0.0 { verify_all_cores / verifies_per_tx } else { 0.0 };
    Ok(Bound { verify_all_cores, verifies_per_tx, bound_tps })
}

/// The number of its signatures, all of which hold.
fn verified(cluster: &ClusterId, tx: &PreparedTx) -> Option<usize> {
    let parsed = ParsedTx::decode(cluster, &tx.bytes).ok()?;
    parsed.verify_signatures().ok()?;
    Some(parsed.witnesses.iter().map(|witness| witness.signatures.len()).sum())
}

fn report(plan: &Plan, shards: u64, paid: Paid, crossing_pct: f64, bound: Bound) -> Report {
    let Paid { driven, seconds, used, counted } = paid;
    let tps = if seconds > 0.0 { driven.committed as f64 / seconds } else { 0.0 };
    let per_tx = |value: f64| rounded(if driven.committed > 0 { value / driven.committed as f64 } else { 0.0 });
    // Votes do not say where the credits go; with several payers, the plan does.
    let cross_shard_pct = match plan.shape.voters {
        1 => per_tx(driven.crossed as f64 * 100.0),
        _ => rounded(crossing_pct),
    };
    // Memory file systems are not counted by the system; then the nodes' own counters stand in.
    let written = if used.written_bytes > 0 { used.written_bytes } else { counted.written_bytes };
    Report {
        tps: rounded(tps),
        committed: driven.committed,
        rejected: driven.rejections(),
        seconds: rounded(seconds),
        seconds_to_last_credit: rounded(driven.seconds),
        latency_ms: driven.decided.percentiles(),
        shards,
        replicas: plan.replicas,
        consensus: plan.engine.name(),
        cross_shard_pct,
        verify_mode: verify_name(plan.verify),
        verifies_per_tx: rounded(bound.verifies_per_tx),
        verify_all_cores: rounded(bound.verify_all_cores),
        bound_tps: rounded(bound.bound_tps),
        bound_ratio: rounded(if bound.bound_tps > 0.0 { tps / bound.bound_tps } else { 0.0 }),
        cpu_seconds: rounded(used.cpu_seconds),
        bytes_written_per_tx: per_tx(written as f64),
        bytes_sent_per_tx: per_tx(counted.sent_bytes as f64),
        durable: counted.durable(shard_node::server::group::PIPELINE as u64),
        cpu_seconds_per_1000: per_tx(used.cpu_seconds * 1000.0),
        log_fsyncs: counted.fsyncs.values().sum(),
        in_flight: plan.in_flight as u64,
        accounts: u64::from(plan.accounts),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        voters: plan.shape.voters.into(),
        aborted: driven.aborts(),
        abort_pct: rounded(if driven.sent > 0 { driven.aborts() as f64 * 100.0 / driven.sent as f64 } else { 0.0 }),
        decided_ms: driven.decided.percentiles(),
        applied_ms: driven.applied.percentiles(),
        conflict_pct: plan.shape.conflict_pct.into(),
        zipf: plan.shape.zipf,
        hot_payer: plan.shape.hot_payer,
        hot_payee: plan.shape.hot_payee,
        rejections: driven.rejected,
        abort_reasons: driven.aborted,
        channels: None,
        phases: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sign::{Payment, Signer};
    use super::*;

    fn plan(verify: VerifyMode) -> Plan {
        Plan {
            shape: Shape::default(),
            accounts: 10,
            in_flight: 100,
            send_for: Duration::from_secs(10),
            transactions_max: None,
            verify,
            replicas: 3,
            engine: Engine::Raft,
            gone: None,
            silent: None,
            processes: Vec::new(),
        }
    }

    #[test]
    fn the_bound_counts_every_check() {
        assert_eq!(checks(&plan(VerifyMode::Ingest), 1), 1);
        assert_eq!(checks(&plan(VerifyMode::Every), 1), 3);
        let swap = |verify| Plan { shape: Shape { voters: 2, ..Shape::default() }, ..plan(verify) };
        assert_eq!(checks(&swap(VerifyMode::Ingest), 2), 4, "both groups check both signatures");
        assert_eq!(checks(&swap(VerifyMode::Every), 2), 12);
        let bft = |verify| Plan { engine: Engine::Bft, replicas: 4, ..plan(verify) };
        assert_eq!(checks(&bft(VerifyMode::Ingest), 1), 4, "whoever votes has checked");
        assert_eq!(checks(&bft(VerifyMode::Every), 1), 4, "and does not check twice");
    }

    #[test]
    fn enough_is_signed_but_never_more_than_could_be_verified() {
        let plan = plan(VerifyMode::Ingest);
        assert_eq!(transactions_for(&plan, 1000.0, 1e6), 20_100);
        assert_eq!(transactions_for(&plan, 1000.0, 500.0), 5_100);
        assert_eq!(transactions_for(&Plan { transactions_max: Some(7), ..plan }, 1000.0, 1e6), 7);
    }

    #[test]
    fn the_verify_bound_is_of_transactions_that_hold() {
        let cluster = ClusterId(ledger::hash::sha256(b"c"));
        let signer = Signer::new(cluster, ledger::AssetId([1; 16])).unwrap();
        let parties = accounts(2).unwrap();
        let pay = |index| signer.pay(&Payment { index, from: &parties[0], to: parties[1].address, amount: 1 });
        let mut sample: Vec<PreparedTx> = (0..8).map(pay).collect();
        let plan = plan(VerifyMode::Every);
        let measured = measure(&cluster, &sample, &plan).unwrap();
        assert!(measured.bound_tps > 0.0);
        assert_eq!(measured.verifies_per_tx, 3.0);
        assert_eq!(measured.bound_tps, measured.verify_all_cores / 3.0);
        let mut broken = sample[0].bytes.to_vec();
        let last = broken.len() - 1;
        broken[last] ^= 1;
        sample[0].bytes = broken.into();
        assert_eq!(measure(&cluster, &sample, &plan).err().map(|error| error.code).as_deref(), Some("bench_signature"));
    }
}
