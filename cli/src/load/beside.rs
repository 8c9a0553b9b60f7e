//! The benchmark of channels: payments inside channels that three organisations found, as the ordinary
//! benchmark makes them in the main ledger, and what channels do beside one another.
//!
//! Rates of one channel and of all are measured in one run, the one channel before and after, so that a
//! machine that becomes slower meanwhile favours neither. The latencies of payments and of swaps take turns for
//! the same reason, with one transaction in flight, so that nothing waits for anything else.

use std::time::Duration;

use channel::Change;
use client::Client;
use ledger::GroupId;
use serde::Serialize;

use super::Phases;
use super::bench::{OPENING, Paid, Plan, Report, Run};
use super::channels::{Delegate, decide, delivered, found};
use super::drive::{Driven, drive};
use super::latency::{Latencies, Percentiles};
use super::sign::Party;
use super::source::{Source, accounts};
use super::stage::{Stage, fresh_symbol};
use super::workload::Shape;
use crate::error::CliError;
use crate::output::{Output, rounded};

/// Organisations of each channel, each with one node.
pub const MEMBERS: usize = 3;
/// Turns that payments and swaps take, or whatever else is compared.
pub(super) const TURNS: u32 = 4;
/// How long payments are made one at a time, at most, and swaps.
const ALONE_FOR_MAX: Duration = Duration::from_secs(10);
/// More than this many a second nobody makes one at a time.
const ALONE_RATE_MAX: f64 = 2000.0;

/// What channels do beside one another.
#[derive(Clone, Debug, Serialize)]
pub struct Beside {
    /// Channels.
    pub count: u64,
    /// Organisations of each, and replicas.
    pub members: u64,
    /// Payments a second in the first channel alone; absent when it is the only one.
    pub one_tps: Option<f64>,
    /// The rate of all channels together over that of the one.
    pub together_ratio: Option<f64>,
    /// One payment at a time inside the first channel, from sending to the receipt.
    pub payment_ms: Percentiles,
    /// One swap at a time between the first two channels, from sending until the router holds the YES of both;
    /// absent when there is one channel.
    pub swap_ms: Option<Percentiles>,
    /// Half of the swaps are decided within this many times what half of the payments take.
    pub swap_ratio: Option<f64>,
    /// Payments that were made one at a time.
    pub payments: u64,
    /// Swaps that were.
    pub swaps: u64,
}

/// Founds channels and runs the benchmark inside them.
///
/// # Errors
/// What the cluster refuses or does not answer; `bench_failed` when one of the transactions that are made one at
/// a time is not executed.
pub async fn bench_channels(
    client: &Client,
    delegates: &[Delegate],
    issuer: Party,
    count: u32,
    plan: &Plan,
    output: Output,
    mut phases: Phases,
) -> Result<Report, CliError> {
    let members: Vec<&Delegate> = delegates.iter().take(MEMBERS).collect();
    let channels = Box::pin(found_all(client, &members, count, output)).await?;
    phases.end("found the channels");

    let stage = Stage::set(client, issuer, &fresh_symbol("BENCH")?).await?;
    let asset = stage.asset;
    for channel in &channels {
        decide(*channel, Change::PermitAsset { asset }, &members).await?;
    }
    let parties = tokio::task::block_in_place(|| accounts(plan.accounts))?;
    let placed: Vec<(Party, GroupId)> = parties.into_iter().zip(channels.iter().copied().cycle()).collect();
    let of = |wanted: &[GroupId]| -> Vec<(Party, GroupId)> {
        placed.iter().filter(|(_, home)| wanted.contains(home)).cloned().collect()
    };
    let source = |wanted: &[GroupId], shape| Source::new(client.cluster_id(), asset, of(wanted), shape);
    let (mut all, first) = (source(&channels, plan.shape)?, &channels[..1]);
    for channel in &channels {
        let own = of(std::slice::from_ref(channel));
        let portions: Vec<_> = own.iter().map(|(party, _)| (party.address, OPENING)).collect();
        Box::pin(stage.endow(*channel, &portions, output)).await?;
    }

    let mut run = Run { client, plan, output, phases };
    run.phases.end("fund accounts");
    let warm = run.warm_up(&mut all).await?;
    let mut one = source(first, plan.shape)?;
    let mut alone = Vec::new();
    if count > 1 {
        alone.push(Box::pin(run.pay(&mut one, warm.wanted)).await?);
        run.phases.end("pay in one channel");
    }
    let paid = Box::pin(run.pay(&mut all, warm.wanted)).await?;
    run.phases.end("pay");
    if count > 1 {
        alone.push(Box::pin(run.pay(&mut one, warm.wanted)).await?);
        run.phases.end("pay in one channel again");
    }
    let swaps = match channels.get(..2) {
        Some(two) => Some(source(two, Shape { voters: 2, ..Shape::default() })?),
        None => None,
    };
    let latencies = Box::pin(take_turns(&run, source(first, Shape::default())?, swaps)).await?;
    run.phases.end("pay and swap one at a time");

    let bound = run.bound_again(warm)?;
    let mut report = run.report(paid, bound, stage.layout.shards.len() as u64, all.crossing_pct());
    report.channels = Some(beside(count, report.tps, &alone, &latencies));
    report.phases = run.phases.finish();
    Ok(report)
}

/// Founds so many channels of these organisations. All of them run and know each other then.
async fn found_all(
    client: &Client,
    members: &[&Delegate],
    count: u32,
    output: Output,
) -> Result<Vec<GroupId>, CliError> {
    let bar = output.bar(count.into(), "founding channels");
    let mut channels = Vec::new();
    for number in 1..=count {
        channels.push(Box::pin(found(client, &format!("bench-{number}"), members)).await?);
        bar.inc(1);
    }
    delivered(client).await?;
    bar.finish_and_clear();
    Ok(channels)
}

/// Latencies without load.
#[derive(Default)]
struct Turns {
    payments: Latencies,
    swaps: Latencies,
}

/// Makes payments and swaps in turns, one at a time.
async fn take_turns(run: &Run<'_>, mut payments: Source, mut swaps: Option<Source>) -> Result<Turns, CliError> {
    let mut turns = Turns::default();
    for _ in 0..TURNS {
        turns.payments.extend(&alone(run, &mut payments).await?);
        if let Some(swaps) = &mut swaps {
            turns.swaps.extend(&alone(run, swaps).await?);
        }
    }
    Ok(turns)
}

/// Sends one transaction after the other for a turn. All have to be executed, or their latencies say nothing.
///
/// # Errors
/// `bench_failed` when one is not; what the cluster does not answer.
pub(super) async fn alone(run: &Run<'_>, source: &mut Source) -> Result<Latencies, CliError> {
    let turn = run.plan.send_for.min(ALONE_FOR_MAX) / TURNS;
    let most = (ALONE_RATE_MAX * turn.as_secs_f64()).ceil() as usize;
    let most = most.min(run.plan.transactions_max.unwrap_or(usize::MAX)).max(1);
    let txs = source.sign(most, run.output);
    let bar = run.output.spinner("one at a time");
    let Driven { rejected, aborted, decided, .. } = drive(run.client, txs, 1, Some(turn), &bar).await?;
    bar.finish_and_clear();
    match rejected.iter().chain(&aborted).next() {
        None => Ok(decided),
        Some((code, count)) => {
            let cause = format!("{count} transactions that were made one at a time were not executed: {code}");
            Err(CliError::new("bench_failed", cause, "report it with the version: nothing was in their way"))
        }
    }
}

fn beside(count: u32, tps: f64, alone: &[Paid], turns: &Turns) -> Beside {
    let (committed, seconds) = alone
        .iter()
        .map(Paid::committed)
        .fold((0u64, 0.0f64), |(payments, time), (more, longer)| (payments + more, time + longer));
    let one_tps = (seconds > 0.0).then(|| rounded(committed as f64 / seconds));
    let (payment_ms, swap_ms) = (turns.payments.percentiles(), turns.swaps.percentiles());
    let swapped = turns.swaps.count() > 0;
    Beside {
        count: count.into(),
        members: MEMBERS as u64,
        one_tps,
        together_ratio: one_tps.filter(|one| *one > 0.0).map(|one| rounded(tps / one)),
        payment_ms,
        swap_ms: swapped.then_some(swap_ms),
        swap_ratio: (swapped && payment_ms.p50 > 0.0).then(|| rounded(swap_ms.p50 / payment_ms.p50)),
        payments: turns.payments.count(),
        swaps: turns.swaps.count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_compare_with_one_channel_and_with_payments() {
        let mut turns = Turns::default();
        (0..100).for_each(|_| turns.payments.record(2_000));
        let alone = beside(1, 500.0, &[], &turns);
        assert_eq!((alone.one_tps, alone.together_ratio, alone.swap_ms, alone.swap_ratio), (None, None, None, None));
        assert_eq!(alone.payments, 100);

        (0..50).for_each(|_| turns.swaps.record(4_000));
        // 1,000 in two seconds, then 2,000 in three: 600 a second.
        let paid = [Paid::of(1_000, 2.0), Paid::of(2_000, 3.0)];
        let both = beside(8, 900.0, &paid, &turns);
        assert_eq!((both.one_tps, both.together_ratio, both.swaps), (Some(600.0), Some(1.5), 50));
        let ratio = both.swap_ratio.unwrap();
        assert!((1.99..2.01).contains(&ratio), "{ratio}");
    }
}
