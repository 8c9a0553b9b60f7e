//! What a replica has on disk, and a disk that may lose what was not synced.

use std::collections::VecDeque;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::ids::NodeId;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LocalEntry {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// This leader.
    pub leader: NodeId,
    /// The batch; nothing for the entry with which a leader begins its term.
    pub batch: Option<Bytes>,
    /// Who votes from this entry on, sorted; nothing for an entry that leaves it as it is.
    pub voters: Option<Vec<NodeId>>,
}

/// What stands in front of a log: the last entry that is not in it, and what is known of all before.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Base {
    /// Index of the last entry that is not in the log; 0 if the log has all.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Who votes behind it, sorted; empty where that is as in the beginning.
    pub voters: Vec<NodeId>,
}

/// A replica's persistent state. The entry with index `i` is `entries[i - 1 - base.index]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LocalLog {
    /// The last term seen.
    pub term: u64,
    /// Who got this replica's vote in it.
    pub voted_for: Option<NodeId>,
    /// What is not in the log. The host's state contains it.
    pub base: Base,
    /// The log.
    pub entries: Vec<LocalEntry>,
}

/// A change of the persistent state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Change {
    /// A new term or vote.
    HardState {
        /// The term.
        term: u64,
        /// The vote given in it.
        voted_for: Option<NodeId>,
    },
    /// Keeps the entries up to an index and appends these.
    Append {
        /// The last index that stays.
        keep: u64,
        /// What follows them.
        entries: Vec<LocalEntry>,
    },
    /// Begins anew behind this, which the host's state contains: no entry stays, and what was promised does, up to the
    /// term of this one.
    Begin(Base),
}

/// A numbered change; numbers are contiguous from 1 for each created replica.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Persist {
    /// Its number, named by [`super::Input::Synced`].
    pub sequence: u64,
    /// What to write.
    pub change: Change,
}

impl LocalLog {
    /// Makes a change part of the state.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::HardState { term, voted_for } => {
                self.term = *term;
                self.voted_for = *voted_for;
            }
            Change::Append { keep, entries } => {
                let keep = keep.saturating_sub(self.base.index);
                self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
                self.entries.extend(entries.iter().cloned());
            }
            Change::Begin(base) => *self = Self { entries: Vec::new(), ..self.behind(base.clone()) },
        }
    }

    /// Index of the last entry; that of the base if there is none behind it.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    /// The entry with this index, if the log has it.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<&LocalEntry> {
        self.entries.get(usize::try_from(index.checked_sub(self.base.index + 1)?).ok()?)
    }

    /// The term of the entry with this index; 0 for one that is neither here nor the base.
    #[must_use]
    pub fn term_at(&self, index: u64) -> u64 {
        if index == self.base.index { self.base.term } else { self.entry(index).map_or(0, |entry| entry.term) }
    }

    /// The log of a replica whose host has taken over the state of another one up to `base`. What it has
    /// promised it keeps: its vote, and the entries behind `base` if they follow that very entry.
    #[must_use]
    pub fn behind(&self, base: Base) -> Self {
        let voted_for = if base.term > self.term { None } else { self.voted_for };
        let follows = self.entry(base.index).is_some_and(|entry| entry.term == base.term);
        let count =
            if follows { usize::try_from(base.index - self.base.index).unwrap_or(usize::MAX) } else { usize::MAX };
        let entries = self.entries.get(count..).map_or_else(Vec::new, <[LocalEntry]>::to_vec);
        Self { term: self.term.max(base.term), voted_for, base, entries }
    }

    /// Drops the entries up to `index`, which the host's state contains. Does nothing for an index that
    /// the log does not have.
    pub fn purge(&mut self, index: u64) {
        if self.entry(index).is_none() {
            return;
        }
        let term = self.term_at(index);
        let count = usize::try_from(index - self.base.index).unwrap_or(usize::MAX);
        for entry in self.entries.drain(..count) {
            if let Some(voters) = entry.voters {
                self.base.voters = voters;
            }
        }
        (self.base.index, self.base.term) = (index, term);
    }
}

/// A disk of the simulator: durable state and the writes that a crash may lose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalDisk {
    durable: LocalLog,
    pending: VecDeque<Persist>,
}

impl LocalDisk {
    /// A disk with this content.
    #[must_use]
    pub fn new(durable: LocalLog) -> Self {
        Self { durable, pending: VecDeque::new() }
    }

    /// Queues a write.
    pub fn write(&mut self, persist: Persist) {
        self.pending.push_back(persist);
    }

    /// How many writes are not durable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Makes the first `count` pending writes durable. Returns what to report by
    /// [`super::Input::Synced`], if anything was written.
    pub fn sync(&mut self, count: usize) -> Option<u64> {
        let mut last = None;
        for persist in self.pending.drain(..count.min(self.pending.len())) {
            self.durable.apply(&persist.change);
            last = Some(persist.sequence);
        }
        last
    }

    /// Loses power: of the pending writes only the first `keep` are found afterwards. The returned
    /// log is what the replica is created with again.
    pub fn crash(&mut self, keep: usize) -> LocalLog {
        self.sync(keep);
        self.pending.clear();
        self.durable.clone()
    }

    /// As [`LocalDisk::crash`], in the middle of a write: of the entries that the first lost write
    /// appends, the first `part` are found, too. A change of the hard state is found whole or not at
    /// all.
    pub fn crash_torn(&mut self, keep: usize, part: usize) -> LocalLog {
        self.sync(keep);
        if let Some(Persist { change: Change::Append { keep, entries }, .. }) = self.pending.front() {
            let entries = entries.iter().take(part).cloned().collect();
            self.durable.apply(&Change::Append { keep: *keep, entries });
        }
        self.crash(0)
    }

    /// What a crash cannot take away.
    #[must_use]
    pub fn durable(&self) -> &LocalLog {
        &self.durable
    }
}
