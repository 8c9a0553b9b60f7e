//! The events that wait for one client stream. Whatever is ready leaves in one message.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use proto::v1;
use tokio::sync::Notify;
use tonic::Status;

/// Events in one message: about a megabyte.
const MESSAGE_EVENTS_MAX: usize = 4096;

pub(super) struct Outbox {
    state: Mutex<State>,
    reader: AtomicWaker,
    /// Rings when events have left.
    drained: Notify,
}

struct State {
    events: VecDeque<v1::SubmitEvent>,
    /// Transactions accepted on this stream whose last event has not been queued yet.
    in_flight: usize,
    input_done: bool,
    failed: Option<Status>,
    /// The client is gone; nobody will read.
    closed: bool,
}

impl Outbox {
    pub(super) fn new() -> Arc<Self> {
        let state = State { events: VecDeque::new(), in_flight: 0, input_done: false, failed: None, closed: false };
        Arc::new(Self { state: Mutex::new(state), reader: AtomicWaker::new(), drained: Notify::new() })
    }

    /// Counts one more transaction, unless `max` are in flight or waiting to be read.
    pub(super) fn admit(&self, max: usize) -> bool {
        let mut state = self.state.lock();
        let room = state.in_flight + state.events.len() < max;
        state.in_flight += usize::from(room);
        room
    }

    /// Queues an event. The caller rings with [`Outbox::ring`] when it has queued all it has, so
    /// that they travel together.
    pub(super) fn push(&self, event: v1::SubmitEvent, last: bool) {
        let mut state = self.state.lock();
        if last {
            state.in_flight = state.in_flight.saturating_sub(1);
        }
        if !state.closed {
            state.events.push_back(event);
        }
    }

    /// Queues an event of a transaction that was never counted.
    pub(super) fn push_uncounted(&self, event: v1::SubmitEvent) {
        let mut state = self.state.lock();
        if !state.closed {
            state.events.push_back(event);
        }
    }

    pub(super) fn ring(&self) {
        self.reader.wake();
    }

    /// No more transactions will come; the stream ends after the last fate.
    pub(super) fn finish_input(&self) {
        self.state.lock().input_done = true;
        self.ring();
    }

    /// Ends the stream with an error, after what is queued.
    pub(super) fn fail(&self, status: Status) {
        self.state.lock().failed = Some(status);
        self.ring();
    }

    pub(super) fn closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits until fewer than `max` events are unread: a client that does not read is not read.
    pub(super) async fn room(&self, max: usize) {
        loop {
            let drained = self.drained.notified();
            {
                let state = self.state.lock();
                if state.closed || state.events.len() < max {
                    return;
                }
            }
            drained.await;
        }
    }

    fn take(&self) -> Option<Result<v1::SubmitEvents, Status>> {
        let mut state = self.state.lock();
        if !state.events.is_empty() {
            let count = state.events.len().min(MESSAGE_EVENTS_MAX);
            let events = state.events.drain(..count).collect();
            return Some(Ok(v1::SubmitEvents { events }));
        }
        state.failed.take().map(Err)
    }

    fn ended(&self) -> bool {
        let state = self.state.lock();
        state.input_done && state.in_flight == 0 && state.events.is_empty() && state.failed.is_none()
    }
}

/// The stream of messages to the client.
pub(super) struct OutboxStream {
    outbox: Arc<Outbox>,
    failed: bool,
}

impl OutboxStream {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, failed: false }
    }
}

impl Stream for OutboxStream {
    type Item = Result<v1::SubmitEvents, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        // Registering comes first, so that an event queued after the look is not missed.
        self.outbox.reader.register(cx.waker());
        if let Some(message) = self.outbox.take() {
            self.failed = message.is_err();
            self.outbox.drained.notify_one();
            return Poll::Ready(Some(message));
        }
        if self.outbox.ended() { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Drop for OutboxStream {
    fn drop(&mut self) {
        let mut state = self.outbox.state.lock();
        state.closed = true;
        state.events.clear();
        drop(state);
        self.outbox.drained.notify_one();
    }
}
