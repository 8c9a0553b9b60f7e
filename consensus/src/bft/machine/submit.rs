//! What the host wants ordered: a bounded queue, one value each, and what became of them.
//!
//! Owns: the order in which submissions are proposed, and that each gets exactly one fate. Never proposes.

use std::collections::VecDeque;

use ledger::hash::Hash32;
use ledger::ids::NodeId;
use ledger::limits::BATCH_BYTES_MAX;

use super::super::api::{Fate, Output};
use super::super::value::Body;

/// Submissions that wait at most.
pub const WAITING_MAX: usize = 64;
/// Bytes of the batches that wait at most.
pub const WAITING_BYTES_MAX: usize = 4 * BATCH_BYTES_MAX;

/// A submission that was proposed.
#[derive(Clone, Copy, Debug)]
struct Flight {
    ticket: u64,
    index: u64,
    value: Hash32,
    /// Whether its value is what was decided.
    decided: bool,
}

/// Submissions and their fates.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<(u64, Body)>,
    bytes: usize,
    flight: Option<Flight>,
}

fn size(body: &Body) -> usize {
    match body {
        Body::Blank => 0,
        Body::Batch(batch) => batch.len(),
    }
}

fn fate(ticket: u64, fate: Fate, out: &mut Vec<Output>) {
    out.push(Output::Fate { ticket, fate });
}

impl Queue {
    /// Takes a submission of the member that leads. A batch that nobody would vote for is refused as well.
    pub fn submit(&mut self, ticket: u64, body: Body, out: &mut Vec<Output>) {
        let bytes = size(&body);
        let full = self.waiting.len() >= WAITING_MAX || self.bytes + bytes > WAITING_BYTES_MAX;
        if full || bytes > BATCH_BYTES_MAX {
            return fate(ticket, Fate::Full, out);
        }
        self.bytes += bytes;
        self.waiting.push_back((ticket, body));
    }

    /// Whether something waits.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next submission, to be proposed.
    pub fn pull(&mut self) -> Option<(u64, Body)> {
        let (ticket, body) = self.waiting.pop_front()?;
        self.bytes -= size(&body);
        Some((ticket, body))
    }

    /// A submission was made a value of this index. One that was proposed in an earlier round, and that no
    /// round of another member came behind, is given up: two thirds may have it or not.
    pub fn proposed(&mut self, ticket: u64, index: u64, value: Hash32, out: &mut Vec<Output>) {
        self.unknown(out);
        self.flight = Some(Flight { ticket, index, value, decided: false });
    }

    /// An entry was decided. What was proposed for it and is not it, may be ordered later by somebody else.
    pub fn decided(&mut self, index: u64, value: Hash32, out: &mut Vec<Output>) {
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.index == index && flight.value == value) {
            flight.decided = true;
        } else {
            self.unknown(out);
        }
    }

    /// The state has an entry.
    pub fn applied(&mut self, index: u64, out: &mut Vec<Output>) {
        if let Some(flight) = self.flight.take_if(|flight| flight.index <= index) {
            let became = if flight.decided { Fate::Applied(flight.index) } else { Fate::Unknown };
            fate(flight.ticket, became, out);
        }
    }

    /// Another member leads from here on.
    pub fn lost(&mut self, leader: Option<NodeId>, out: &mut Vec<Output>) {
        if self.flight.is_some_and(|flight| !flight.decided) {
            self.unknown(out);
        }
        self.bytes = 0;
        for (ticket, _) in self.waiting.drain(..) {
            fate(ticket, Fate::NotLeader(leader), out);
        }
    }

    /// What is proposed may be ordered, or not.
    pub fn unknown(&mut self, out: &mut Vec<Output>) {
        if let Some(flight) = self.flight.take() {
            fate(flight.ticket, Fate::Unknown, out);
        }
    }

    /// Submissions and bytes that wait.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }
}
