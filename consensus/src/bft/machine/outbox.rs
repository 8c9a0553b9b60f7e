//! The gate between what a member says and what it has written down.
//!
//! Owns: the numbers of records, and the messages that wait for them. A message follows from the records that
//! were made before it, so it waits for the last of these. They leave in the order in which they were made.
//!
//! Never decides what is written or said. That a vote is durable before anybody hears of it is what keeps a
//! member honest through a crash: it replays the same records and can only come to the same vote again.

use std::collections::VecDeque;

use ledger::ids::NodeId;

use super::super::message::{Event, Message, Record};

/// Records that are being made durable, and messages that wait for them.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Number of the next record.
    next: u64,
    /// All records below this number are durable.
    durable: u64,
    /// Made in the running step.
    fresh: Vec<Record>,
    /// Each with the number that `durable` has to reach.
    waiting: VecDeque<(u64, NodeId, Message)>,
}

impl Outbox {
    /// Goes on behind records that are durable; `next` is the number of the first new one.
    pub fn new(next: u64) -> Self {
        Self { next, durable: next, ..Self::default() }
    }

    /// Takes a record down.
    pub fn record(&mut self, index: u64, event: Event) {
        self.fresh.push(Record { index, event });
        self.next += 1;
    }

    /// What has to be durable before something may be known that follows from all records so far.
    pub fn gate(&self) -> u64 {
        self.next
    }

    /// Whether a gate is open.
    pub fn passed(&self, gate: u64) -> bool {
        gate <= self.durable
    }

    /// The number of the last record, 0 when there was none.
    pub fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Sends a message as soon as the records so far are durable.
    pub fn send(&mut self, to: NodeId, message: Message) {
        self.waiting.push_back((self.next, to, message));
    }

    /// The records of this step, with the number of the first.
    pub fn fresh(&mut self) -> Option<(u64, Vec<Record>)> {
        let records = std::mem::take(&mut self.fresh);
        let first = self.next - records.len() as u64;
        (!records.is_empty()).then_some((first, records))
    }

    /// All records up to this number are durable.
    pub fn persisted(&mut self, last: u64) {
        self.durable = self.durable.max(last.saturating_add(1).min(self.next));
    }

    /// The next message whose records are durable.
    pub fn pop(&mut self) -> Option<(NodeId, Message)> {
        if self.waiting.front()?.0 > self.durable {
            return None;
        }
        self.waiting.pop_front().map(|(_, to, message)| (to, message))
    }

    /// Messages that wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
