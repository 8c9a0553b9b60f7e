//! Answers on their way to one submit stream. Whatever is ready leaves in one message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proto::v1;
use tokio::sync::{Notify, mpsc};

/// The queue of one stream. Its length is bounded by the transactions the stream has in flight,
/// which the sender's own limits bound. When the last holder drops it, the stream ends.
pub struct ReplyQueue(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    events: Mutex<Vec<v1::SubmitEvent>>,
    bell: Notify,
    ended: AtomicBool,
}

impl Drop for ReplyQueue {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.bell.notify_one();
    }
}

impl ReplyQueue {
    /// A queue and the task that empties it into `sink` until nobody can fill it any more.
    #[must_use]
    pub fn new(sink: mpsc::Sender<v1::SubmitEvents>) -> Arc<Self> {
        let waiting = Arc::new(Waiting::default());
        let queue = Arc::new(Self(Arc::clone(&waiting)));
        tokio::spawn(async move {
            loop {
                // Read first: what is empty after the end stays empty.
                let ended = waiting.ended.load(Ordering::Acquire);
                let events = std::mem::take(&mut *waiting.events.lock());
                if events.is_empty() {
                    if ended {
                        return;
                    }
                    tokio::select! {
                        () = waiting.bell.notified() => {}
                        () = sink.closed() => return,
                    }
                    continue;
                }
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
        self.0.events.lock().push(event);
        self.0.bell.notify_one();
    }

    /// Adds several answers.
    pub fn extend(&self, events: Vec<v1::SubmitEvent>) {
        if !events.is_empty() {
            self.0.events.lock().extend(events);
            self.0.bell.notify_one();
        }
    }
}
