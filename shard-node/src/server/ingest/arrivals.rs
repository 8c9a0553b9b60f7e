//! What has arrived for one group and is not checked yet.
//!
//! Owns the queue and its bounds in number and bytes. It looks into nothing.

use std::sync::Arc;

use bytes::Bytes;
use ledger::limits::{ARRIVALS_BYTES_MAX, INGEST_QUEUE_TXS};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::server::ingest::Sender;
use crate::server::replies::ReplyQueue;

/// Transactions checked in one round.
const ROUND_TXS: usize = 4096;

/// A batch that waits to be checked.
pub struct Arrived {
    /// As received.
    pub txs: Vec<Bytes>,
    /// Where fates go.
    pub reply: Arc<ReplyQueue>,
    /// Whether the sender wants to know when credits are applied.
    pub wants_applied: bool,
    /// Who that is.
    pub sender: Arc<Sender>,
}

/// What has arrived for one group and is not checked yet. It is checked in as large parts as the
/// load brings, so that the cost of a round does not depend on how callers cut their batches.
#[derive(Default)]
pub struct Arrivals {
    queue: Mutex<Queue>,
    bell: Notify,
}

#[derive(Default)]
struct Queue {
    batches: Vec<Arrived>,
    txs: usize,
    bytes: usize,
}

impl Arrived {
    fn bytes(&self) -> usize {
        self.txs.iter().map(Bytes::len).sum()
    }
}

impl Arrivals {
    /// Queues a batch, or returns it when too much waits already.
    ///
    /// # Errors
    /// The batch, which was not taken.
    pub fn push(&self, batch: Arrived) -> Result<(), Arrived> {
        let bytes = batch.bytes();
        let mut queue = self.queue.lock();
        if queue.txs + batch.txs.len() > INGEST_QUEUE_TXS || queue.bytes + bytes > ARRIVALS_BYTES_MAX {
            return Err(batch);
        }
        queue.txs += batch.txs.len();
        queue.bytes += bytes;
        queue.batches.push(batch);
        drop(queue);
        self.bell.notify_one();
        Ok(())
    }

    /// Everything that waits, at most about [`ROUND_TXS`] transactions; waits for the first.
    pub async fn take(&self) -> Vec<Arrived> {
        loop {
            {
                let mut queue = self.queue.lock();
                let mut txs = 0;
                let upto = queue.batches.iter().take_while(|batch| {
                    let within = txs < ROUND_TXS;
                    txs += batch.txs.len();
                    within
                });
                let upto = upto.count();
                if upto > 0 {
                    let taken: Vec<Arrived> = queue.batches.drain(..upto).collect();
                    queue.txs -= taken.iter().map(|batch| batch.txs.len()).sum::<usize>();
                    queue.bytes -= taken.iter().map(Arrived::bytes).sum::<usize>();
                    if !queue.batches.is_empty() {
                        self.bell.notify_one();
                    }
                    return taken;
                }
            }
            self.bell.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn arrivals_are_bounded_in_number_and_in_bytes() {
        let (sink, _events) = tokio::sync::mpsc::channel(1);
        let reply = ReplyQueue::new(sink);
        let arrivals = Arrivals::default();
        let batch = |count: usize, tx: &Bytes| Arrived {
            txs: vec![tx.clone(); count],
            reply: Arc::clone(&reply),
            wants_applied: false,
            sender: Arc::default(),
        };
        let (small, large) = (Bytes::from_static(b"x"), Bytes::from(vec![7; 1 << 20]));
        for (full, tx) in [(INGEST_QUEUE_TXS, small), (ARRIVALS_BYTES_MAX >> 20, large)] {
            assert!(arrivals.push(batch(full, &tx)).is_ok());
            assert!(arrivals.push(batch(1, &tx)).is_err());
            assert_eq!(arrivals.take().await.len(), 1);
            assert!(arrivals.push(batch(1, &tx)).is_ok());
            assert_eq!(arrivals.take().await.len(), 1);
        }
    }
}
