//! Payments at an even rate, beside something else that is measured: each one is sent when it is due, whatever
//! became of those before it, and its latency counts from then. Who waits for answers before paying again would
//! not notice that nobody was served for a while. Where it is the rate that is measured, payments follow each other as
//! fast as they are answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::submit::no_of;
use client::{Client, SubmitEvent, SubmitEvents, SubmitOptions, SubmitSender};
use hashbrown::HashMap;
use ledger::{GroupId, TxId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::drive::{GIVE_UP_AFTER, micros, unknown_fate};
use super::latency::Latencies;
use super::source::Source;
use crate::error::CliError;

/// Parts of the time that latencies are told apart by; what is due later counts in the last.
pub(super) const STRETCHES: usize = 2;

/// Somebody who pays, until this is stopped or dropped.
pub(super) struct Steady {
    stretch: Arc<AtomicUsize>,
    stop: DropGuard,
    sending: JoinHandle<Result<Source, CliError>>,
    hearing: JoinHandle<Result<Heard, CliError>>,
}

/// What became of the payments.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// From when a payment was due to its receipt, by the stretch in which it was due.
    pub(super) decided: [Latencies; STRETCHES],
    /// Payments that were not executed, by code.
    pub(super) refused: BTreeMap<String, u64>,
    /// The same by the stretch in which they were due, however many there were.
    pub(super) failed: BTreeMap<usize, u64>,
    /// When there were receipts of executed payments, one moment for all that came at once.
    pub(super) moments: Vec<Instant>,
    /// The same by the group that the payer was drawn from, with how many came at once.
    pub(super) by_home: BTreeMap<GroupId, Vec<(Instant, u64)>>,
}

/// How payments follow each other.
#[derive(Clone, Copy)]
enum Pace {
    /// One each time that so long has passed.
    Every(Duration),
    /// The next one as soon as fewer are in flight than there may be.
    Free,
}

/// A payment that is on its way.
struct Sent {
    txid: TxId,
    home: GroupId,
    due: Instant,
    stretch: usize,
}

impl Steady {
    /// Begins to pay so many times a second.
    pub(super) fn start(client: &Client, source: Source, rate: u32) -> Self {
        let every = Duration::from_secs(1) / rate.max(1);
        Self::begin(client, source, Pace::Every(every), SubmitOptions::default())
    }

    /// Begins to pay as fast as payments are answered, with so many in flight at most. Latencies count the wait for a place.
    pub(super) fn start_free(client: &Client, source: Source, in_flight_max: usize) -> Self {
        Self::begin(client, source, Pace::Free, SubmitOptions { in_flight_max, ..SubmitOptions::default() })
    }

    fn begin(client: &Client, source: Source, pace: Pace, options: SubmitOptions) -> Self {
        let options = SubmitOptions { give_up_after: GIVE_UP_AFTER, ..options };
        let (sender, events) = client.submit_stream(options).split();
        let (note, noted) = mpsc::unbounded_channel();
        let (stretch, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let sending = tokio::spawn(send(source, sender, note, pace, stretch.clone(), stop.clone()));
        let hearing = tokio::spawn(hear(events, noted));
        Self { stretch, stop: stop.drop_guard(), sending, hearing }
    }

    /// What is due from now on counts in the next stretch.
    pub(super) fn next_stretch(&self) {
        self.stretch.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends it, and waits for the fate of every payment.
    ///
    /// # Errors
    /// When a fate stays unknown.
    pub(super) async fn stop(self) -> Result<(Heard, Source), CliError> {
        drop(self.stop);
        let crashed = |error| CliError::new("sender", error, "report this with the command that was run");
        // Why nobody heard any more is the cause of why nobody could send.
        let heard = self.hearing.await.map_err(crashed)??;
        let source = self.sending.await.map_err(crashed)??;
        Ok((heard, source))
    }
}

async fn send(
    mut source: Source,
    sender: SubmitSender,
    note: mpsc::UnboundedSender<Sent>,
    pace: Pace,
    stretch: Arc<AtomicUsize>,
    stop: CancellationToken,
) -> Result<Source, CliError> {
    // One that comes late is made up for, so that the rate holds.
    let mut ticks = match pace {
        Pace::Every(every) => Some(tokio::time::interval(every)),
        Pace::Free => None,
    };
    loop {
        let due = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(source),
            due = next_due(ticks.as_mut()) => due,
        };
        let (home, tx) = source.next_at();
        let sent = Sent { txid: tx.txid, home, due, stretch: stretch.load(Ordering::Relaxed) };
        // Noted first, so that its fate is never news. Nobody notes any more when nobody hears, and then this
        // fails, too.
        let _ = note.send(sent);
        sender.send_prepared(vec![tx]).await?;
    }
}

/// When the next payment is due; now where none waits for its time.
async fn next_due(ticks: Option<&mut Interval>) -> Instant {
    match ticks {
        Some(ticks) => ticks.tick().await,
        None => Instant::now(),
    }
}

async fn hear(mut events: SubmitEvents, mut noted: mpsc::UnboundedReceiver<Sent>) -> Result<Heard, CliError> {
    let mut open: HashMap<TxId, Sent> = HashMap::new();
    let mut heard = Heard::default();
    while let Some(batch) = events.next_events().await {
        let now = Instant::now();
        while let Ok(sent) = noted.try_recv() {
            open.insert(sent.txid, sent);
        }
        let mut executed: BTreeMap<GroupId, u64> = BTreeMap::new();
        for event in batch {
            let sent = open.remove(&event.txid());
            let home = sent.as_ref().map(|sent| sent.home);
            let decided = sent.map(|sent| (sent.stretch, now.duration_since(sent.due)));
            if take(event, decided, &mut heard)?
                && let Some(home) = home
            {
                *executed.entry(home).or_default() += 1;
            }
        }
        if !executed.is_empty() {
            heard.moments.push(now);
        }
        for (home, count) in executed {
            heard.by_home.entry(home).or_default().push((now, count));
        }
    }
    Ok(heard)
}

/// Counts one event; `decided` is in which stretch the payment was due, and how long ago. Says whether it was executed.
fn take(event: SubmitEvent, decided: Option<(usize, Duration)>, heard: &mut Heard) -> Result<bool, CliError> {
    let code = match event {
        SubmitEvent::Receipt(receipt) => receipt.reason().map(|reason| reason.code().to_owned()),
        SubmitEvent::Decided { votes, .. } => no_of(&votes).map(|(_, reason)| reason.code().to_owned()),
        SubmitEvent::Applied(_) => return Ok(false),
        SubmitEvent::Refused { txid, reject: Some(ledger::Reject::TooLate), detail, .. } => {
            return Err(unknown_fate(txid, &detail));
        }
        SubmitEvent::Refused { code, .. } => Some(code),
    };
    match (code, decided) {
        (Some(code), due) => {
            *heard.refused.entry(code).or_default() += 1;
            if let Some((stretch, _)) = due {
                *heard.failed.entry(stretch).or_default() += 1;
            }
            Ok(false)
        }
        (None, Some((stretch, after))) => {
            heard.decided[stretch.min(STRETCHES - 1)].record(micros(after));
            Ok(true)
        }
        (None, None) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{GroupId, Hash32, Height, Outcome, Receipt, Reject, TimeMs};

    #[test]
    fn each_payment_counts_where_it_was_due() {
        let txid = TxId(Hash32([1; 32]));
        let receipt = |outcome| {
            let (group, height) = (GroupId::channel(0), Height(5));
            SubmitEvent::Receipt(Receipt { version: 1, txid, group, height, index: 0, time_ms: TimeMs(9), outcome })
        };
        let mut heard = Heard::default();
        let long = Duration::from_millis(7);
        assert!(take(receipt(Outcome::Committed { mail: Vec::new() }), Some((1, long)), &mut heard).unwrap());
        let rejected = receipt(Outcome::Rejected(Reject::InsufficientFunds));
        assert!(!take(rejected, Some((0, long)), &mut heard).unwrap(), "it was not executed");
        assert_eq!([heard.decided[0].count(), heard.decided[1].count()], [0, 1]);
        assert_eq!(heard.refused, BTreeMap::from([(Reject::InsufficientFunds.code().to_owned(), 1)]));
        let refused = |reject: Reject| SubmitEvent::Refused {
            txid,
            reject: Some(reject),
            group: None,
            code: reject.code().to_owned(),
            detail: String::new(),
        };
        take(refused(Reject::Busy), Some((2, long)), &mut heard).unwrap();
        assert_eq!((heard.refused.len(), &heard.failed), (2, &BTreeMap::from([(0, 1), (2, 1)])));
        take(receipt(Outcome::Committed { mail: Vec::new() }), Some((2, long)), &mut heard).unwrap();
        assert_eq!(heard.decided[1].count(), 2, "what is due later counts in the last stretch");
        assert_eq!(take(refused(Reject::TooLate), None, &mut heard).unwrap_err().code, "timeout");
    }
}
