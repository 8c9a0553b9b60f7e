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
use tokio::sync::Semaphore;

use super::latency::Latencies;
use crate::error::CliError;

/// Transactions handed to the stream at once, at most.
const CHUNK_MAX: usize = 256;
/// How long a transaction is sent again after lost connections and refusals that pass.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// What became of a load.
#[derive(Debug, Default)]
pub(super) struct Driven {
    /// Handed to the stream.
    pub(super) sent: u64,
    /// Executed, every credit applied.
    pub(super) committed: u64,
    /// Those of one group with credits in another one.
    pub(super) crossed: u64,
    /// Refused, or rejected by the one group that decides, by code.
    pub(super) rejected: BTreeMap<String, u64>,
    /// Aborted by the vote of one of several groups, by its reason.
    pub(super) aborted: BTreeMap<String, u64>,
    /// From handing it over to its fate.
    pub(super) decided: Latencies,
    /// From handing it over until every credit is applied.
    pub(super) applied: Latencies,
    /// From the first hand-over to the last credit.
    pub(super) seconds: f64,
}

impl Driven {
    pub(super) fn rejections(&self) -> u64 {
        self.rejected.values().sum()
    }

    pub(super) fn aborts(&self) -> u64 {
        self.aborted.values().sum()
    }

    fn fates(&self) -> u64 {
        self.committed + self.rejections() + self.aborts()
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
    // Of our own: the time in flight must not count the wait for a place.
    let room = Arc::new(Semaphore::new(in_flight));
    let start = Instant::now();
    let sending = tokio::spawn(send(
        Sending { sender, sent_at: sent_at.clone(), room: room.clone(), start, stop_after, in_flight },
        txs,
    ));
    let mut driven = Driven::default();
    let mut end = start;
    while let Some(batch) = events.next_events().await {
        end = Instant::now();
        let before = driven.fates();
        for event in batch {
            let sent = index.get(&event.txid()).map(|at| sent_at[*at as usize].load(Ordering::Relaxed));
            let after = sent.map(|sent| micros(end.duration_since(start)).saturating_sub(sent));
            take(event, after, &mut driven)?;
        }
        let fates = driven.fates();
        room.add_permits(usize::try_from(fates - before).unwrap_or(0));
        bar.set_position(fates);
    }
    driven.sent = sending
        .await
        .map_err(|error| CliError::new("sender", error, "report this with the command that was run"))??;
    driven.seconds = end.duration_since(start).as_secs_f64();
    let fates = driven.fates();
    if fates != driven.sent {
        let cause = format!("{} transactions were sent and only {fates} fates are known", driven.sent);
        return Err(CliError::new("stream_ended", cause, "see 'seamark status' and the logs of the nodes"));
    }
    Ok(driven)
}

struct Sending {
    sender: SubmitSender,
    sent_at: Arc<Vec<AtomicU64>>,
    room: Arc<Semaphore>,
    start: Instant,
    stop_after: Option<Duration>,
    in_flight: usize,
}

async fn send(to: Sending, txs: Vec<PreparedTx>) -> Result<u64, CliError> {
    let chunk = (to.in_flight / 4).clamp(1, CHUNK_MAX);
    let (mut rest, mut sent) = (txs.into_iter(), 0usize);
    loop {
        let part: Vec<PreparedTx> = rest.by_ref().take(chunk).collect();
        let count = u32::try_from(part.len()).unwrap_or(u32::MAX);
        if part.is_empty() {
            return Ok(sent as u64);
        }
        match to.room.acquire_many(count).await {
            Ok(permits) => permits.forget(),
            Err(_) => return Ok(sent as u64),
        }
        let now = to.start.elapsed();
        if to.stop_after.is_some_and(|stop| now >= stop) {
            return Ok(sent as u64);
        }
        to.sent_at[sent..sent + part.len()].iter().for_each(|at| at.store(micros(now), Ordering::Relaxed));
        sent += part.len();
        to.sender.send_prepared(part).await?;
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Counts one event; `after` is how many microseconds after the transaction was sent it came.
fn take(event: SubmitEvent, after: Option<u64>, driven: &mut Driven) -> Result<(), CliError> {
    match event {
        SubmitEvent::Receipt(receipt) => {
            after.into_iter().for_each(|micros| driven.decided.record(micros));
            match &receipt.outcome {
                Outcome::Committed { mail } => driven.crossed += u64::from(!mail.is_empty()),
                Outcome::Rejected(reason) | Outcome::Aborted { reason, .. } => {
                    *driven.rejected.entry(reason.code().to_owned()).or_default() += 1;
                }
            }
        }
        SubmitEvent::Decided { votes, .. } => {
            after.into_iter().for_each(|micros| driven.decided.record(micros));
            if let Some((_, reject)) = client::submit::no_of(&votes) {
                *driven.aborted.entry(reject.code().to_owned()).or_default() += 1;
            }
        }
        SubmitEvent::Applied(_) => {
            after.into_iter().for_each(|micros| driven.applied.record(micros));
            driven.committed += 1;
        }
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
