//! Sends transactions that do not depend on each other as fast as they are taken, and waits until
//! the last credit has been applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::{Client, PreparedTx, SubmitEvent, SubmitOptions, SubmitSender};
use hashbrown::HashMap;
use indicatif::ProgressBar;
use ledger::{Outcome, TxId};

use super::latency::Latencies;
use crate::error::CliError;

/// Transactions handed to the stream at once.
const CHUNK: usize = 256;
/// How long a transaction is sent again after lost connections and refusals that pass.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// What became of a load.
#[derive(Debug, Default)]
pub(super) struct Driven {
    /// Handed to the stream.
    pub(super) sent: u64,
    /// Executed, every credit applied.
    pub(super) committed: u64,
    /// Those with credits in another group.
    pub(super) crossed: u64,
    /// Refused, by code.
    pub(super) rejected: BTreeMap<String, u64>,
    /// From handing it over to the receipt.
    pub(super) latencies: Latencies,
    /// From the first hand-over to the last credit.
    pub(super) seconds: f64,
}

impl Driven {
    pub(super) fn rejections(&self) -> u64 {
        self.rejected.values().sum()
    }
}

/// Sends until all is sent or the time is over, then waits for what is in flight.
///
/// # Errors
/// When the fate of a transaction stays unknown.
pub(super) async fn drive(
    client: &Client,
    txs: Vec<PreparedTx>,
    in_flight: usize,
    stop_after: Option<Duration>,
    bar: &ProgressBar,
) -> Result<Driven, CliError> {
    let index: HashMap<TxId, u32> = (0u32..).zip(&txs).map(|(at, tx)| (tx.txid, at)).collect();
    let sent_at: Arc<Vec<AtomicU64>> = Arc::new(txs.iter().map(|_| AtomicU64::new(0)).collect());
    let options = SubmitOptions { in_flight_max: in_flight, notify_applied: true, give_up_after: GIVE_UP_AFTER };
    let (sender, mut events) = client.submit_stream(options).split();
    let start = Instant::now();
    let sending = tokio::spawn(send(sender, txs, sent_at.clone(), start, stop_after, in_flight));
    let mut driven = Driven::default();
    let mut end = start;
    while let Some(batch) = events.next_events().await {
        end = Instant::now();
        for event in batch {
            take(event, &index, &sent_at, end.duration_since(start), &mut driven)?;
        }
        bar.set_position(driven.committed + driven.rejections());
    }
    driven.sent = sending
        .await
        .map_err(|error| CliError::new("sender", error, "report this with the command that was run"))??;
    driven.seconds = end.duration_since(start).as_secs_f64();
    let fates = driven.committed + driven.rejections();
    if fates != driven.sent {
        let cause = format!("{} transactions were sent and only {fates} fates are known", driven.sent);
        return Err(CliError::new("stream_ended", cause, "see 'seamark status' and the logs of the nodes"));
    }
    Ok(driven)
}

async fn send(
    sender: SubmitSender,
    txs: Vec<PreparedTx>,
    sent_at: Arc<Vec<AtomicU64>>,
    start: Instant,
    stop_after: Option<Duration>,
    in_flight: usize,
) -> Result<u64, CliError> {
    let chunk = CHUNK.min(in_flight.max(1));
    let (mut rest, mut sent) = (txs.into_iter(), 0usize);
    loop {
        let now = start.elapsed();
        let part: Vec<PreparedTx> = rest.by_ref().take(chunk).collect();
        if part.is_empty() || stop_after.is_some_and(|stop| now >= stop) {
            return Ok(sent as u64);
        }
        let micros = micros(now);
        sent_at[sent..sent + part.len()].iter().for_each(|at| at.store(micros, Ordering::Relaxed));
        sent += part.len();
        sender.send_prepared(part).await?;
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn take(
    event: SubmitEvent,
    index: &HashMap<TxId, u32>,
    sent_at: &[AtomicU64],
    now: Duration,
    driven: &mut Driven,
) -> Result<(), CliError> {
    match event {
        SubmitEvent::Receipt(receipt) => {
            if let Some(at) = index.get(&receipt.txid) {
                let sent = sent_at[*at as usize].load(Ordering::Relaxed);
                driven.latencies.record(micros(now).saturating_sub(sent));
            }
            match receipt.outcome {
                Outcome::Committed { mail } => driven.crossed += u64::from(!mail.is_empty()),
                Outcome::Rejected(reject) | Outcome::Aborted { reason: reject, .. } => {
                    *driven.rejected.entry(reject.code().to_owned()).or_default() += 1
                }
            }
        }
        SubmitEvent::Decided { txid, votes } => {
            if let Some(at) = index.get(&txid) {
                let sent = sent_at[*at as usize].load(Ordering::Relaxed);
                driven.latencies.record(micros(now).saturating_sub(sent));
            }
            match client::submit::no_of(&votes) {
                None => driven.crossed += 1,
                Some((_, reject)) => *driven.rejected.entry(reject.code().to_owned()).or_default() += 1,
            }
        }
        SubmitEvent::Applied(_) => driven.committed += 1,
        SubmitEvent::Refused { txid, reject: Some(ledger::Reject::TooLate), detail, .. } => {
            return Err(unknown_fate(txid, &detail));
        }
        SubmitEvent::Refused { code, .. } => *driven.rejected.entry(code).or_default() += 1,
    }
    Ok(())
}

/// The error of a transaction that may or may not have executed.
pub(super) fn unknown_fate(txid: TxId, detail: &str) -> CliError {
    let cause = format!("the fate of transaction {txid} is not known: {detail}");
    CliError::new("timeout", cause, "see 'seamark status'; 'seamark tx' tells the fate once the cluster is well again")
}
