//! The gate between what a member says and what it has written down.
//!
//! Owns: the numbers of records, and the messages that wait for them. A message follows from the records that
//! were made before it, so it waits for the last of these. They leave in the order in which they were made.
//!
//! What nothing follows from yet is not written yet: votes of others are held until this member says something, and
//! go into one write with its own vote then. To lose them in a crash is, for what is decided, as if they had come a moment later; a proof that
//! another member voted twice may be lost with the first of its two votes, at this member. What is
//! still held when the entry is over, such as the votes that decide it, is never written: the log has the entry with its
//! proof. So a member writes twice for an entry that nothing goes wrong with, once for each of its votes, however many
//! others vote.
//!
//! Never decides what is said, nor what a record is. That a vote is durable before anybody hears of it, and all that it
//! follows from with it, is what keeps a member honest through a crash: it replays the same records and can only come to
//! the same vote again.

use std::collections::VecDeque;

use ledger::ids::NodeId;

use super::super::message::{Event, Message, Record};

/// Records that are held at most: as many as a member makes of others' votes in a few rounds.
pub const HELD_MAX: usize = 128;

/// Records that are being made durable, and messages that wait for them.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Number of the next record.
    next: u64,
    /// All records below this number are durable.
    durable: u64,
    /// All records below this number are to be written now, whether anything is said or not.
    due: u64,
    /// The last records, which were not written yet.
    held: Vec<Record>,
    /// Each with the number that `durable` has to reach.
    waiting: VecDeque<(u64, NodeId, Message)>,
}

impl Outbox {
    /// Goes on behind records that are durable; `next` is the number of the first new one.
    pub fn new(next: u64) -> Self {
        Self { next, durable: next, due: next, ..Self::default() }
    }

    /// Takes a record down. A ballot of this member's `own` is written with the running step, and so is a value, which may
    /// be too large to be held beside the others.
    pub fn record(&mut self, index: u64, event: Event, own: bool) {
        let large = matches!(event, Event::Value { .. });
        self.held.push(Record { index, event });
        self.next += 1;
        if own || large || self.held.len() >= HELD_MAX {
            self.due = self.next;
        }
    }

    /// What has to be durable before something may be known that this member's own ballots have decided.
    pub fn gate(&self) -> u64 {
        self.due
    }

    /// Whether a gate is open.
    pub fn passed(&self, gate: u64) -> bool {
        gate <= self.durable
    }

    /// The number of the first record that is held; of the next one when none is.
    fn first_held(&self) -> u64 {
        self.next - self.held.len() as u64
    }

    /// Whether something waits for records that are held.
    fn needed(&self) -> bool {
        let said = self.waiting.back().map_or(0, |(gate, ..)| *gate);
        self.due.max(said) > self.first_held()
    }

    /// The number of the last record, 0 when there was none.
    pub fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Sends a message as soon as the records so far are durable.
    pub fn send(&mut self, to: NodeId, message: Message) {
        self.waiting.push_back((self.next, to, message));
    }

    /// The records to be written now, with the number of the first: all that are held, when something waits for one of
    /// them.
    pub fn fresh(&mut self) -> Option<(u64, Vec<Record>)> {
        if !self.needed() {
            return None;
        }
        let first = self.first_held();
        Some((first, std::mem::take(&mut self.held)))
    }

    /// Another entry begins: what is held of the one before and nothing waits for is not needed any more.
    pub fn let_go(&mut self) {
        if !self.needed() {
            self.next = self.first_held();
            self.held.clear();
        }
    }

    /// Records that are held.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.held.len()
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

#[cfg(test)]
mod tests {
    use ledger::hash::Hash32;

    use super::*;

    fn of_another(round: u32) -> Event {
        Event::Timeout { step: 0, round }
    }

    #[test]
    fn what_nothing_follows_from_is_held_within_bounds_and_its_numbers_are_given_again() {
        let mut outbox = Outbox::new(5);
        outbox.record(1, of_another(0), false);
        assert_eq!((outbox.fresh(), outbox.held(), outbox.last()), (None, 1, 5));
        outbox.let_go();
        assert_eq!((outbox.held(), outbox.last()), (0, 4));
        for round in 0..HELD_MAX as u32 {
            assert_eq!(outbox.fresh(), None, "{round} are held");
            outbox.record(2, of_another(round), false);
        }
        let written = outbox.fresh().map(|(first, records)| (first, records.len()));
        assert_eq!((written, outbox.held()), (Some((5, HELD_MAX)), 0));
        assert_eq!(outbox.fresh(), None, "once");
    }

    #[test]
    fn a_ballot_of_its_own_and_a_message_take_what_is_held_with_them_and_wait_for_it() {
        let count = |outbox: &mut Outbox| outbox.fresh().map(|(first, records)| (first, records.len()));
        let mut outbox = Outbox::new(1);
        outbox.record(1, of_another(0), false);
        outbox.record(1, of_another(1), true);
        assert_eq!((count(&mut outbox), outbox.gate(), outbox.passed(outbox.gate())), (Some((1, 2)), 3, false));
        outbox.record(1, of_another(2), false);
        assert_eq!((count(&mut outbox), outbox.gate()), (None, 3), "its own ballots follow from none behind them");
        outbox.send(NodeId(2), Message::Want { index: 1, value: Hash32::ZERO });
        outbox.let_go();
        assert_eq!(outbox.held(), 1, "something waits for it");
        assert_eq!(count(&mut outbox), Some((3, 1)));
        outbox.persisted(2);
        assert!(outbox.passed(outbox.gate()) && outbox.pop().is_none());
        outbox.persisted(3);
        assert!(outbox.pop().is_some() && outbox.pop().is_none());
    }
}
