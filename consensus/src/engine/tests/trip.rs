//! A replica that ends between two steps of going over to another engine: whatever it was about to write next does not
//! reach its disk, and nothing after that.
//!
//! The steps are counted as the code takes them, in the stores and in the applier, from when the engine that begins
//! speaks until the first thing that it writes as one that takes part. So there is a place to end before every step that
//! there is, and a list of them to compare with.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use storage::{Completion, LogStore, MemLog, StorageError};
use tokio::sync::watch;

use super::support::PATIENCE;

/// The step with which a replica is in the stint.
pub(super) const SLOT: &str = "the slot";
/// Whatever the replica writes first in the stint.
pub(super) const TAKES_PART: &str = "what it does then";

/// Where a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is counted.
    Off,
    /// It is counted from the next change of engines on.
    Set,
    Entering,
    Entered,
    /// It has taken all steps.
    Over,
    /// Nothing reaches its disk any more.
    Ended,
}

struct Now {
    phase: Phase,
    /// The number of the step that is not taken.
    at: Option<usize>,
    steps: Vec<&'static str>,
}

/// Counts the steps of one replica, and ends it before one of them.
pub(super) struct Trip {
    now: Mutex<Now>,
    news: watch::Sender<Phase>,
}

impl Default for Trip {
    fn default() -> Self {
        let now = Now { phase: Phase::Off, at: None, steps: Vec::new() };
        Self { now: Mutex::new(now), news: watch::Sender::new(Phase::Off) }
    }
}

impl Trip {
    fn turn(&self, now: &mut Now, phase: Phase) {
        now.phase = phase;
        self.news.send_replace(phase);
    }

    /// The next change of engines ends before the step of this number, from 0; before none without one.
    pub(super) fn set(&self, at: Option<usize>) {
        let mut now = self.now.lock();
        (now.at, now.steps) = (at, Vec::new());
        self.turn(&mut now, Phase::Set);
    }

    /// What is written reaches the disk from now on.
    pub(super) fn clear(&self) {
        self.turn(&mut self.now.lock(), Phase::Off);
    }

    /// Another engine begins to speak.
    pub(super) fn begins(&self) {
        let mut now = self.now.lock();
        if now.phase == Phase::Set {
            self.turn(&mut now, Phase::Entering);
        }
    }

    /// Something is about to be written. Says whether it is.
    pub(super) fn step(&self, what: &'static str) -> bool {
        let mut now = self.now.lock();
        let what = match now.phase {
            Phase::Off | Phase::Set | Phase::Over => return true,
            Phase::Ended => return false,
            Phase::Entering => what,
            Phase::Entered => TAKES_PART,
        };
        let next = match what {
            _ if now.at == Some(now.steps.len()) => Phase::Ended,
            TAKES_PART => Phase::Over,
            SLOT => Phase::Entered,
            _ => Phase::Entering,
        };
        now.steps.push(what);
        self.turn(&mut now, next);
        next != Phase::Ended
    }

    /// Waits until the replica has ended, or has taken all steps; these, and whether it has ended.
    pub(super) async fn settled(&self) -> (Vec<&'static str>, bool) {
        let mut news = self.news.subscribe();
        let settled = news.wait_for(|phase| matches!(phase, Phase::Over | Phase::Ended));
        let phase = *tokio::time::timeout(PATIENCE, settled).await.expect("it goes over").expect("the trip is here");
        (self.now.lock().steps.clone(), phase == Phase::Ended)
    }
}

/// What the steps of a store are called.
struct Names {
    append: &'static str,
    vote: &'static str,
    committed: &'static str,
    cut: &'static str,
    purge: &'static str,
}

const LOG: Names = Names {
    append: "entries",
    vote: SLOT,
    committed: "how far is committed",
    cut: "the end of the log is cut off",
    purge: "the log begins later",
};

const RECORDS: Names = Names {
    append: "records",
    vote: "a vote among the records",
    committed: "a mark among the records",
    cut: "records are cut off",
    purge: "the records begin anew",
};

/// A store that asks a [`Trip`] before each change.
pub(super) struct Watched {
    store: MemLog,
    trip: Arc<Trip>,
    names: &'static Names,
}

impl Watched {
    /// A group's log.
    pub(super) fn log(store: &MemLog, trip: &Arc<Trip>) -> Arc<dyn LogStore> {
        Arc::new(Self { store: store.clone(), trip: trip.clone(), names: &LOG })
    }

    /// The records of a member's votes.
    pub(super) fn records(store: &MemLog, trip: &Arc<Trip>) -> Arc<dyn LogStore> {
        Arc::new(Self { store: store.clone(), trip: trip.clone(), names: &RECORDS })
    }

    fn change(&self, what: &'static str, done: Completion, change: impl FnOnce(&MemLog, Completion)) {
        if self.trip.step(what) { change(&self.store, done) } else { done(Err(ended())) }
    }
}

fn ended() -> StorageError {
    StorageError::Closed { path: PathBuf::new(), detail: "the replica has ended".to_owned() }
}

impl LogStore for Watched {
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Completion) {
        self.change(self.names.append, done, |store, done| store.append(entries, done));
    }

    fn save_vote(&self, vote: Bytes, done: Completion) {
        self.change(self.names.vote, done, |store, done| store.save_vote(vote, done));
    }

    fn save_committed(&self, committed: Bytes) -> Result<(), StorageError> {
        if self.trip.step(self.names.committed) { self.store.save_committed(committed) } else { Err(ended()) }
    }

    fn read_vote(&self) -> Result<Option<Bytes>, StorageError> {
        self.store.read_vote()
    }

    fn read_committed(&self) -> Result<Option<Bytes>, StorageError> {
        self.store.read_committed()
    }

    fn truncate_after(&self, last_kept: Option<u64>, done: Completion) {
        self.change(self.names.cut, done, |store, done| store.truncate_after(last_kept, done));
    }

    fn purge_upto(&self, index: u64, marker: Bytes, done: Completion) {
        self.change(self.names.purge, done, |store, done| store.purge_upto(index, marker, done));
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageError> {
        self.store.read(range, bytes_max)
    }

    fn first_index(&self) -> Result<Option<u64>, StorageError> {
        self.store.first_index()
    }

    fn last(&self) -> Result<Option<(u64, Bytes)>, StorageError> {
        self.store.last()
    }

    fn purged(&self) -> Result<Option<Bytes>, StorageError> {
        self.store.purged()
    }

    fn purged_index(&self) -> Result<Option<u64>, StorageError> {
        self.store.purged_index()
    }
}
