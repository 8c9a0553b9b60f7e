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
}

/// A replica's persistent state. The entry with index `i` is `entries[i - 1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LocalLog {
    /// The last term seen.
    pub term: u64,
    /// Who got this replica's vote in it.
    pub voted_for: Option<NodeId>,
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
    /// Keeps the first `keep` entries and appends these.
    Append {
        /// How many entries stay.
        keep: u64,
        /// What follows them.
        entries: Vec<LocalEntry>,
    },
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
                self.entries.truncate(usize::try_from(*keep).unwrap_or(usize::MAX));
                self.entries.extend(entries.iter().cloned());
            }
        }
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
