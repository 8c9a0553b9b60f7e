//! The simulated disk of a member's records, beside that of its log: what was not synced may be gone after a
//! crash, and of the write that the power cut through the first records are found.

use std::collections::VecDeque;

use consensus::bft::Record;

enum Write {
    Append(Vec<Record>),
    /// Records up to this number go.
    Forget(u64),
    /// All records go.
    Begin,
    /// From now on the replica takes part in the stint with this name.
    Stint(u64),
}

/// The records of a member, and whether it may rely on them.
pub struct Wal {
    /// Number of the first record that is kept.
    first: u64,
    records: VecDeque<Record>,
    pending: VecDeque<Write>,
    /// Number of the next record that is written.
    next: u64,
    votes: bool,
    /// The stint that the replica takes part in, under whichever engine: production's slot of the vote.
    stint: u64,
}

impl Default for Wal {
    /// That of a member which is in its group from the beginning.
    fn default() -> Self {
        Self { first: 1, records: VecDeque::new(), pending: VecDeque::new(), next: 1, votes: true, stint: 0 }
    }
}

impl Wal {
    /// Whether the member has all that it ever wrote down.
    pub(super) fn votes(&self) -> bool {
        self.votes
    }

    /// The stint that the replica takes part in, as far as that is durable.
    pub(in crate::replica) fn stint(&self) -> u64 {
        self.stint
    }

    /// Queues that the records begin anew, and then that the replica takes part in a stint.
    pub(in crate::replica) fn enter(&mut self, stint: u64) {
        self.pending.extend([Write::Begin, Write::Stint(stint)]);
    }

    /// What is durable, with the number of the first.
    pub(super) fn read(&self) -> (u64, Vec<Record>) {
        (self.first, self.records.iter().cloned().collect())
    }

    /// What no crash can take, for an auditor.
    pub fn durable(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// Writes that are not durable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Queues records. They are numbered without a gap.
    pub(super) fn append(&mut self, first: u64, records: Vec<Record>) -> Result<(), String> {
        if first != self.next {
            return Err(format!("record {first} is to be written behind {}", self.next - 1));
        }
        self.next += records.len() as u64;
        self.pending.push_back(Write::Append(records));
        Ok(())
    }

    /// Queues that records up to this number go.
    pub(super) fn forget(&mut self, upto: u64) {
        self.pending.push_back(Write::Forget(upto));
    }

    /// Makes the first `count` writes durable. Returns the number of the last record, if records were written.
    pub(super) fn sync(&mut self, count: usize) -> Option<u64> {
        let mut written = false;
        for write in self.pending.drain(..count.min(self.pending.len())) {
            match write {
                Write::Append(records) => {
                    self.records.extend(records);
                    written = true;
                }
                Write::Forget(upto) => {
                    while self.first <= upto && self.records.pop_front().is_some() {
                        self.first += 1;
                    }
                }
                Write::Begin => {
                    self.first += self.records.len() as u64;
                    self.records.clear();
                }
                Write::Stint(stint) => self.stint = stint,
            }
        }
        written.then(|| self.last())
    }

    fn last(&self) -> u64 {
        (self.first + self.records.len() as u64).saturating_sub(1)
    }

    /// Loses power: of the writes the first `keep` are found, and of the one behind them the first `part` records.
    pub(super) fn crash(&mut self, keep: usize, part: usize) {
        self.sync(keep);
        if let Some(Write::Append(records)) = self.pending.pop_front() {
            self.records.extend(records.into_iter().take(part));
        }
        self.pending.clear();
        self.next = self.last() + 1;
    }

    /// Everything is gone, also that there was something.
    pub(super) fn lose(&mut self) {
        *self = Self { votes: false, stint: self.stint, ..Self::default() };
    }

    /// The records are gone, and nobody notices: a bug.
    pub(super) fn lose_unnoticed(&mut self) {
        self.records.clear();
        self.first = self.next;
    }

    /// The member votes from now on. Returns the number of its first record.
    pub(super) fn begin(&mut self) -> u64 {
        self.votes = true;
        self.next
    }
}
