//! Answers on their way to one submit stream. Whatever is ready leaves in one message.

use std::sync::Arc;

use parking_lot::Mutex;
use proto::v1;
use tokio::sync::{Notify, mpsc};

/// The queue of one stream. Its length is bounded by the transactions the stream has in flight,
/// which the sender's own limits bound.
#[derive(Default)]
pub struct ReplyQueue {
    events: Mutex<Vec<v1::SubmitEvent>>,
    bell: Notify,
}

impl ReplyQueue {
    /// A queue and the task that empties it into `sink` until nobody can fill it any more.
    #[must_use]
    pub fn new(sink: mpsc::Sender<v1::SubmitEvents>) -> Arc<Self> {
        let queue = Arc::new(Self::default());
        let weak = Arc::downgrade(&queue);
        tokio::spawn(async move {
            loop {
                let Some(queue) = weak.upgrade() else { return };
                let events = std::mem::take(&mut *queue.events.lock());
                if events.is_empty() {
                    // Woken at the latest by the sender's end: `closed` covers a client that left.
                    tokio::select! {
                        () = queue.bell.notified() => {}
                        () = sink.closed() => return,
                    }
                    continue;
                }
                drop(queue);
                for part in events.chunks(4096) {
                    if sink.send(v1::SubmitEvents { events: part.to_vec() }).await.is_err() {
                        return;
                    }
                }
            }
        });
        queue
    }

    /// Adds an answer.
    pub fn push(&self, event: v1::SubmitEvent) {
        self.events.lock().push(event);
        self.bell.notify_one();
    }

    /// Adds several answers.
    pub fn extend(&self, events: Vec<v1::SubmitEvent>) {
        if !events.is_empty() {
            self.events.lock().extend(events);
            self.bell.notify_one();
        }
    }
}
