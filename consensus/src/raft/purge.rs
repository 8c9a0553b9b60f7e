//! When a replica forgets the beginning of its log.
//!
//! What a snapshot covers may go, but for the entries that are kept for followers a little behind. openraft would purge
//! by that rule alone, and so take away what a replica needs that is just being sent a snapshot: behind it, it would find
//! the log gone, and be sent the next one, for as long as sending takes longer than the log takes to grow. So openraft's own
//! policy is switched off (see [`super::config`]), and this one looks at what is being sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::types::{LogId, Raft};

/// So long after it has a snapshot, a replica has asked for what comes behind it.
const GRACE: Duration = Duration::from_secs(5);
/// Entries that are kept for a receiver in any case.
const NEEDED_MIN: u64 = 1_000;
/// Snapshots that are made while another one is sent, and whose entries are kept for its receiver. One that takes longer is
/// sent the next snapshot: a slow receiver must not keep the log for ever.
const BEHIND_MAX: u64 = 8;

/// Snapshots that are on their way to other replicas.
#[derive(Debug, Default)]
pub(crate) struct Sending(Mutex<Sent>);

#[derive(Debug, Default)]
struct Sent {
    next: u64,
    /// Index of the last entry in it, and since when it is over.
    snapshots: BTreeMap<u64, (u64, Option<Instant>)>,
}

impl Sending {
    /// Notes a snapshot up to this index until what is returned is dropped, and a little longer.
    pub(crate) fn begin(self: &Arc<Self>, index: u64) -> Pin {
        let mut sent = self.0.lock();
        let number = sent.next;
        sent.next += 1;
        sent.snapshots.insert(number, (index, None));
        Pin { sending: self.clone(), number }
    }

    /// The earliest one that still counts.
    fn first(&self, now: Instant) -> Option<u64> {
        let mut sent = self.0.lock();
        sent.snapshots.retain(|_, (_, over)| over.is_none_or(|over| now < over + GRACE));
        sent.snapshots.values().map(|(index, _)| *index).min()
    }
}

/// A snapshot on its way.
#[derive(Debug)]
pub(crate) struct Pin {
    sending: Arc<Sending>,
    number: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some((_, over)) = self.sending.0.lock().snapshots.get_mut(&self.number) {
            *over = Some(Instant::now());
        }
    }
}

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Entries before the last snapshot.
    pub(crate) entries: u64,
    /// Entries between two snapshots.
    pub(crate) every: u64,
}

impl Keep {
    /// Index up to which the log goes, given the last snapshot and the first one that is being sent.
    fn upto(self, snapshot: u64, sending: Option<u64>) -> Option<u64> {
        let furthest = snapshot.checked_sub(self.entries)?;
        let most = self.every.saturating_mul(BEHIND_MAX).max(NEEDED_MIN);
        let needed = sending.filter(|sent| snapshot.saturating_sub(*sent) <= most);
        Some(needed.map_or(furthest, |sent| furthest.min(sent))).filter(|upto| *upto > 0)
    }
}

/// Purges the log until openraft is gone.
pub(crate) fn drive(raft: &Raft, sending: Arc<Sending>, keep: Keep) {
    let (raft, mut metrics) = (raft.clone(), raft.metrics());
    tokio::spawn(async move {
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let mut asked = 0;
        loop {
            let (snapshot, purged) = {
                let now = metrics.borrow_and_update();
                (index(now.snapshot), index(now.purged))
            };
            let upto = keep.upto(snapshot, sending.first(Instant::now())).unwrap_or(0);
            if upto > purged.max(asked) {
                asked = upto;
                // It fails when openraft has ended, which the metrics tell as well.
                let _ = raft.trigger().purge_log(upto).await;
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_goes_up_to_what_somebody_needs() {
        let keep = Keep { entries: 5, every: 200 };
        assert_eq!(keep.upto(4, None), None, "there is not as much");
        assert_eq!(keep.upto(5, None), None);
        assert_eq!(keep.upto(60, None), Some(55));
        assert_eq!(keep.upto(60, Some(40)), Some(40), "whoever is sent the snapshot of 40 needs 41 next");
        assert_eq!(keep.upto(60, Some(60)), Some(55));
        assert_eq!(keep.upto(40 + 1_600, Some(40)), Some(40));
        assert_eq!(keep.upto(40 + 1_601, Some(40)), Some(1_636), "a receiver that is too slow takes another one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_counts_while_it_is_sent_and_a_little_longer() {
        let sending = Arc::new(Sending::default());
        assert_eq!(sending.first(Instant::now()), None);
        let later = sending.begin(70);
        let earlier = sending.begin(40);
        assert_eq!(sending.first(Instant::now()), Some(40));
        drop(earlier);
        assert_eq!(sending.first(Instant::now()), Some(40), "it has not asked for the next entry yet");
        tokio::time::advance(GRACE).await;
        assert_eq!(sending.first(Instant::now()), Some(70));
        drop(later);
        tokio::time::advance(GRACE).await;
        assert_eq!(sending.first(Instant::now()), None);
    }
}
