//! Answers on their way to one submit stream. Whatever is ready leaves in one message.

use std::sync::Arc;

use ledger::limits::{REPLIES_BYTES_MAX, REPLY_EVENTS_MAX};
use parking_lot::Mutex;
use proto::v1;
use proto::v1::submit_event::Event;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// What an answer costs beside its texts.
const EVENT_BYTES: usize = 128;
/// What one vote of a decision costs.
const VOTE_BYTES: usize = 32;

/// The queue of one stream. When the last holder drops it, the stream ends. It also ends when its
/// reader leaves more unread than it may: nothing is then kept for it any more.
pub struct ReplyQueue(Arc<Waiting>);

struct Waiting {
    queue: Mutex<Queue>,
    bytes_max: usize,
    bell: Notify,
    /// Nobody will read: cut off, or gone.
    closed: CancellationToken,
}

#[derive(Default)]
struct Queue {
    events: Vec<v1::SubmitEvent>,
    /// Of all events, those that the stream's task has taken and not sent included.
    bytes: usize,
    ended: bool,
}

impl Drop for ReplyQueue {
    fn drop(&mut self) {
        self.0.queue.lock().ended = true;
        self.0.bell.notify_one();
    }
}

fn bytes_of(event: &v1::SubmitEvent) -> usize {
    EVENT_BYTES
        + match &event.event {
            Some(Event::Receipt(receipt)) => receipt.len(),
            Some(Event::Refusal(refusal)) => refusal.code.len() + refusal.detail.len(),
            Some(Event::Decided(votes)) => votes.votes.len() * VOTE_BYTES,
            Some(Event::Applied(_) | Event::Vote(_) | Event::Waits(_)) | None => 0,
        }
}

impl ReplyQueue {
    /// A queue and the task that empties it into `sink` until nobody can fill it any more.
    #[must_use]
    pub fn new(sink: mpsc::Sender<v1::SubmitEvents>) -> Arc<Self> {
        Self::bounded(sink, REPLIES_BYTES_MAX)
    }

    fn bounded(sink: mpsc::Sender<v1::SubmitEvents>, bytes_max: usize) -> Arc<Self> {
        let waiting = Arc::new(Waiting {
            queue: Mutex::default(),
            bytes_max,
            bell: Notify::new(),
            closed: CancellationToken::new(),
        });
        tokio::spawn(send(Arc::clone(&waiting), sink));
        Arc::new(Self(waiting))
    }

    /// Adds an answer.
    pub fn push(&self, event: v1::SubmitEvent) {
        self.extend(vec![event]);
    }

    /// Adds several answers.
    pub fn extend(&self, events: Vec<v1::SubmitEvent>) {
        if events.is_empty() || self.0.closed.is_cancelled() {
            return;
        }
        let bytes: usize = events.iter().map(bytes_of).sum();
        let mut queue = self.0.queue.lock();
        if queue.bytes + bytes > self.0.bytes_max {
            queue.events = Vec::new();
            drop(queue);
            tracing::warn!(bytes_max = self.0.bytes_max, "a caller that does not read its answers is cut off");
            self.0.closed.cancel();
            return;
        }
        queue.bytes += bytes;
        queue.events.extend(events);
        drop(queue);
        self.0.bell.notify_one();
    }

    /// Whether nobody will read what is added.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    /// Resolves when nobody will read any more.
    pub async fn closed(&self) {
        self.0.closed.cancelled().await;
    }
}

async fn send(waiting: Arc<Waiting>, sink: mpsc::Sender<v1::SubmitEvents>) {
    let _nobody_reads = waiting.closed.clone().drop_guard();
    loop {
        let (events, ended) = {
            let mut queue = waiting.queue.lock();
            (std::mem::take(&mut queue.events), queue.ended)
        };
        if events.is_empty() {
            if ended {
                return;
            }
            tokio::select! {
                () = waiting.bell.notified() => {}
                () = waiting.closed.cancelled() => return,
                () = sink.closed() => return,
            }
            continue;
        }
        let mut events = events.into_iter();
        loop {
            let part: Vec<v1::SubmitEvent> = events.by_ref().take(REPLY_EVENTS_MAX).collect();
            if part.is_empty() {
                break;
            }
            let bytes: usize = part.iter().map(bytes_of).sum();
            let sent = tokio::select! {
                sent = sink.send(v1::SubmitEvents { events: part }) => sent.is_ok(),
                () = waiting.closed.cancelled() => false,
            };
            if !sent {
                return;
            }
            waiting.queue.lock().bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn receipt(bytes: usize) -> v1::SubmitEvent {
        v1::SubmitEvent::receipt(Bytes::from_static(b"txid"), Bytes::from(vec![7; bytes]))
    }

    #[tokio::test]
    async fn a_caller_that_never_reads_is_cut_off_and_costs_no_more() {
        let (sink, mut events) = mpsc::channel(1);
        let replies = ReplyQueue::bounded(sink, 20 * (EVENT_BYTES + 1000));
        for _ in 0..20 {
            replies.push(receipt(1000));
        }
        assert!(!replies.is_closed(), "up to the bound it is a slow one");
        replies.push(receipt(1000));
        replies.closed().await;
        replies.push(receipt(1000));
        assert_eq!(replies.0.queue.lock().events.len(), 0);
        // What had left comes, and then the end of the stream.
        while let Some(message) = events.recv().await {
            assert!(message.events.len() <= 20);
        }
    }

    #[tokio::test]
    async fn a_caller_that_reads_is_never_cut_off() {
        let (sink, mut events) = mpsc::channel(1);
        let replies = ReplyQueue::bounded(sink, 4 * (EVENT_BYTES + 1000));
        for round in 0..100 {
            replies.extend(vec![receipt(1000), receipt(1000)]);
            let mut got = 0;
            while got < 2 {
                got += events.recv().await.unwrap_or_else(|| panic!("cut off in round {round}")).events.len();
            }
        }
        drop(replies);
        assert!(events.recv().await.is_none(), "the stream ends with its last holder");
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_closes_the_queue() {
        let (sink, events) = mpsc::channel(1);
        let replies = ReplyQueue::new(sink);
        drop(events);
        replies.closed().await;
        replies.push(receipt(1));
        assert!(replies.is_closed());
    }
}
