//! What leaves a member: one queue and one task for each of the others, one call on the way at a time, so that
//! messages arrive in the order in which they were sent.
//!
//! A member that does not take what it is sent costs bounded memory: the oldest messages are dropped, and so is a
//! call that fails. The machine repeats its last votes, and asks for what it lacks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ledger::ids::NodeId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::bft::Message;
use crate::port::any_replica;
use crate::raft::failure::Failure;
use crate::raft::network::{Peer, Sender};
use crate::raft::wire;

/// Messages of one call, encoded; a call has one message at least.
pub(super) const CALL_MESSAGES_BYTES_MAX: usize = 1 << 20;
/// Bytes that wait for one member: two of the largest values in parts.
const WAITING_BYTES_MAX: usize = 10 << 20;

const _: () = assert!(2 * ledger::limits::BATCH_BYTES_MAX < WAITING_BYTES_MAX);
const _: () = assert!(crate::bft::PART_BYTES_MAX < CALL_MESSAGES_BYTES_MAX);

/// Messages of a replica so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Taken by their receivers.
    pub sent: u64,
    /// Part of a call that got no answer.
    pub lost: u64,
    /// Dropped because too much waited already.
    pub dropped: u64,
}

/// Counts [`Traffic`].
#[derive(Default)]
pub(super) struct Counters {
    sent: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic { sent: read(&self.sent), lost: read(&self.lost), dropped: read(&self.dropped) }
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<(usize, Message)>,
    bytes: usize,
}

impl Waiting {
    /// Adds a message, and returns how many had to go for it.
    fn push(&mut self, bytes: usize, message: Message) -> u64 {
        self.messages.push_back((bytes, message));
        self.bytes += bytes;
        let mut dropped = 0;
        while self.bytes > WAITING_BYTES_MAX && self.messages.len() > 1 {
            self.pop();
            dropped += 1;
        }
        dropped
    }

    fn pop(&mut self) -> Option<Message> {
        let (bytes, message) = self.messages.pop_front()?;
        self.bytes -= bytes;
        Some(message)
    }

    /// What fits into one call.
    fn take(&mut self) -> Vec<Message> {
        let mut taken = Vec::new();
        let mut room = CALL_MESSAGES_BYTES_MAX;
        while let Some((bytes, _)) = self.messages.front() {
            if *bytes > room && !taken.is_empty() {
                break;
            }
            room = room.saturating_sub(*bytes);
            taken.extend(self.pop());
        }
        taken
    }
}

struct Line {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

/// The queues of one replica. Dropping it ends their tasks.
pub(super) struct Outbox {
    sender: Arc<Sender>,
    failure: Failure,
    counters: Arc<Counters>,
    lines: BTreeMap<NodeId, Line>,
}

impl Outbox {
    pub(super) fn new(sender: Arc<Sender>, failure: Failure, counters: Arc<Counters>) -> Self {
        Self { sender, failure, counters, lines: BTreeMap::new() }
    }

    /// Queues a message for a node.
    pub(super) fn push(&mut self, to: NodeId, message: Message) {
        let bytes = borsh::object_length(&message).expect("messages have a length");
        let line = self.lines.entry(to).or_insert_with(|| {
            let queue = Arc::<Queue>::default();
            let peer = Peer::to(self.sender.clone(), any_replica(to), to);
            let task = tokio::spawn(run(peer, to, queue.clone(), self.failure.clone(), self.counters.clone()));
            Line { queue, task }
        });
        let dropped = line.queue.waiting.lock().push(bytes, message);
        self.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
        line.queue.news.notify_one();
    }

    /// Nothing is sent any more.
    pub(super) fn close(&mut self) {
        for (_, line) in std::mem::take(&mut self.lines) {
            line.task.abort();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

async fn run(peer: Peer, to: NodeId, queue: Arc<Queue>, failure: Failure, counters: Arc<Counters>) {
    loop {
        let messages = queue.waiting.lock().take();
        if messages.is_empty() {
            queue.news.notified().await;
            continue;
        }
        // A replica that has failed says nothing more, whatever it had to say before.
        if failure.get().is_some() {
            return;
        }
        let (count, request) = (messages.len() as u64, peer.request(&messages));
        drop(messages);
        match peer.call::<()>(wire::BFT_MESSAGES, request, peer.call_timeout()).await {
            Ok(()) => counters.sent.fetch_add(count, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(%to, %error, count, "messages were not taken");
                counters.lost.fetch_add(count, Ordering::Relaxed)
            }
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use ledger::hash::Hash32;

    use super::*;
    use crate::bft::{PART_BYTES_MAX, Part};

    fn part(number: u16, length: usize) -> Message {
        let data = Bytes::from(vec![7; length]);
        Message::Part(Part { index: 1, value: Hash32::ZERO, total_bytes: 0, part: number, data })
    }

    fn numbers(messages: &[Message]) -> Vec<u16> {
        let number = |message: &Message| match message {
            Message::Part(part) => part.part,
            other => panic!("{other:?}"),
        };
        messages.iter().map(number).collect()
    }

    #[test]
    fn a_call_takes_what_fits_in_order_and_one_message_at_least() {
        let mut waiting = Waiting::default();
        for number in 0..7 {
            let message = part(number, PART_BYTES_MAX);
            assert_eq!(waiting.push(borsh::object_length(&message).unwrap(), message), 0);
        }
        assert_eq!(numbers(&waiting.take()), [0, 1, 2], "four and what stands around them are above the limit");
        assert_eq!(numbers(&waiting.take()), [3, 4, 5]);
        assert_eq!(numbers(&waiting.take()), [6]);
        assert_eq!((waiting.take().len(), waiting.bytes), (0, 0));
        waiting.push(2 * CALL_MESSAGES_BYTES_MAX, part(9, 1));
        assert_eq!(numbers(&waiting.take()), [9]);
    }

    #[test]
    fn the_oldest_go_when_too_much_waits() {
        let mut waiting = Waiting::default();
        let dropped: u64 = (0..100).map(|number| waiting.push(PART_BYTES_MAX, part(number, 1))).sum();
        let kept = WAITING_BYTES_MAX / PART_BYTES_MAX;
        assert_eq!(dropped, 100 - kept as u64);
        assert_eq!(waiting.messages.len(), kept);
        assert_eq!(numbers(&waiting.take())[0], 100 - kept as u16, "the latest are kept");
        assert!(waiting.bytes <= WAITING_BYTES_MAX);
    }
}
