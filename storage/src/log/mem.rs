//! The memory log: deterministic, without threads, with a power switch.
//!
//! Owns: the visible log, the durable log, and the changes between them. In `immediate` mode every
//! change is durable at once; in `manual` mode the simulator decides when, by [`MemLog::flush`], and
//! what is lost, by [`MemLog::crash`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::port::{Completion, LogStore};
use crate::StorageError;

/// A [`LogStore`] in memory; clones share the log.
#[derive(Clone)]
pub struct MemLog {
    name: PathBuf,
    immediate: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    visible: Content,
    durable: Content,
    pending: Vec<(Change, Option<Completion>)>,
    failing: Option<StorageError>,
    poison: Option<StorageError>,
}

#[derive(Clone, Default)]
struct Content {
    entries: BTreeMap<u64, Bytes>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
}

#[derive(Clone)]
enum Change {
    Append(Vec<(u64, Bytes)>),
    Vote(Bytes),
    Committed(Bytes),
    Truncate(Option<u64>),
    Purge(u64, Bytes),
}

impl Content {
    /// Refuses a change that would leave a hole or move a purge backwards.
    fn check(&self, change: &Change) -> Result<(), String> {
        match change {
            Change::Append(entries) => {
                let last = self.entries.last_key_value().map(|(&index, _)| index);
                check_append(entries, last, self.purged.as_ref().map(|(index, _)| *index))
            }
            Change::Purge(index, _) => {
                let first = self.entries.first_key_value().map(|(&index, _)| index);
                check_purge(*index, first, self.purged.as_ref().map(|(index, _)| *index))
            }
            Change::Vote(_) | Change::Committed(_) | Change::Truncate(_) => Ok(()),
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Append(entries) => self.entries.extend(entries.iter().cloned()),
            Change::Vote(vote) => self.vote = Some(vote.clone()),
            Change::Committed(committed) => self.committed = Some(committed.clone()),
            Change::Truncate(None) => self.entries.clear(),
            Change::Truncate(Some(last_kept)) => self.entries.retain(|index, _| index <= last_kept),
            Change::Purge(upto, marker) => {
                self.entries.retain(|index, _| index > upto);
                self.purged = Some((*upto, marker.clone()));
            }
        }
    }
}

/// The rule for appends, shared by all implementations.
pub(super) fn check_append(entries: &[(u64, Bytes)], last: Option<u64>, purged: Option<u64>) -> Result<(), String> {
    let Some(&(first, _)) = entries.first() else {
        return Ok(());
    };
    if let Some(last) = last
        && last.checked_add(1) != Some(first)
    {
        return Err(format!("append at {first} does not follow the last entry {last}"));
    }
    if let (None, Some(purged)) = (last, purged)
        && purged.checked_add(1) != Some(first)
    {
        return Err(format!("append at {first} does not follow the purged part (up to {purged})"));
    }
    match entries.windows(2).find(|pair| pair[0].0.checked_add(1) != Some(pair[1].0)) {
        Some(pair) => Err(format!("append has a hole between {} and {}", pair[0].0, pair[1].0)),
        None if entries.last().is_some_and(|(index, _)| *index == u64::MAX) => Err("the index space is used up".into()),
        None => Ok(()),
    }
}

/// The rule for purges, shared by all implementations.
pub(super) fn check_purge(index: u64, first: Option<u64>, purged: Option<u64>) -> Result<(), String> {
    match (first, purged) {
        _ if index == u64::MAX => Err("the index space is used up".into()),
        (_, Some(purged)) if index < purged => Err(format!("purge up to {index} after a purge up to {purged}")),
        (Some(first), _) if index + 1 < first => {
            Err(format!("purge up to {index} leaves a hole before the first entry {first}"))
        }
        _ => Ok(()),
    }
}

impl MemLog {
    /// A log whose changes are durable at once; `name` is shown in errors.
    pub fn immediate(name: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), immediate: true, state: Arc::default() }
    }

    /// A log whose changes become durable by [`MemLog::flush`].
    pub fn manual(name: impl Into<PathBuf>) -> Self {
        Self { immediate: false, ..Self::immediate(name) }
    }

    /// Changes that are not durable yet.
    pub fn unflushed(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Makes the first `count` pending changes durable and runs their completions.
    pub fn flush(&self, count: usize) {
        let mut run = Vec::new();
        {
            let state = &mut *self.state.lock();
            let count = count.min(state.pending.len());
            if let Some(error) = state.failing.take() {
                state.poison = Some(StorageError::Poisoned { path: self.name.clone(), detail: error.to_string() });
                run.extend(state.pending.drain(..).map(|(_, done)| (done, Err(error.clone()))));
            }
            for (change, done) in state.pending.drain(..count.min(state.pending.len())) {
                state.durable.apply(&change);
                run.push((done, Ok(())));
            }
        }
        for (done, result) in run {
            if let Some(done) = done {
                done(result);
            }
        }
    }

    /// Loses power: only the first `keep` pending changes survive; no completion runs.
    pub fn crash(&self, keep: usize) {
        let state = &mut *self.state.lock();
        for (change, _) in state.pending.drain(..).take(keep) {
            state.durable.apply(&change);
        }
        state.visible = state.durable.clone();
        state.failing = None;
        state.poison = None;
    }

    /// Makes the next flush fail with `error` and everything after it with `storage_poisoned`.
    pub fn fail_next_flush(&self, error: StorageError) {
        self.state.lock().failing = Some(error);
    }

    fn submit(&self, change: Change, done: Option<Completion>) -> Result<(), StorageError> {
        let (refused, lazy) = {
            let state = &mut *self.state.lock();
            let refused = state.poison.clone().or_else(|| {
                let detail = state.visible.check(&change).err()?;
                Some(StorageError::Refused { path: self.name.clone(), detail })
            });
            let lazy = matches!(change, Change::Committed(_));
            match refused {
                Some(error) => (Some((error, done)), lazy),
                None => {
                    state.visible.apply(&change);
                    state.pending.push((change, done));
                    (None, lazy)
                }
            }
        };
        if let Some((error, done)) = refused {
            if let Some(done) = done {
                done(Err(error.clone()));
            }
            return Err(error);
        }
        if self.immediate && !lazy {
            self.flush(usize::MAX);
        }
        Ok(())
    }

    /// For changes whose error goes to the completion alone.
    fn submit_done(&self, change: Change, done: Completion) {
        // The error, if any, was handed to `done`.
        let _ = self.submit(change, Some(done));
    }

    fn visible<T>(&self, read: impl FnOnce(&Content) -> T) -> Result<T, StorageError> {
        let state = self.state.lock();
        match &state.poison {
            Some(error) => Err(error.clone()),
            None => Ok(read(&state.visible)),
        }
    }
}

impl LogStore for MemLog {
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Completion) {
        self.submit_done(Change::Append(entries), done);
    }

    fn save_vote(&self, vote: Bytes, done: Completion) {
        self.submit_done(Change::Vote(vote), done);
    }

    fn save_committed(&self, committed: Bytes) -> Result<(), StorageError> {
        self.submit(Change::Committed(committed), None)
    }

    fn read_vote(&self) -> Result<Option<Bytes>, StorageError> {
        self.visible(|log| log.vote.clone())
    }

    fn read_committed(&self) -> Result<Option<Bytes>, StorageError> {
        self.visible(|log| log.committed.clone())
    }

    fn truncate_after(&self, last_kept: Option<u64>, done: Completion) {
        self.submit_done(Change::Truncate(last_kept), done);
    }

    fn purge_upto(&self, index: u64, marker: Bytes, done: Completion) {
        self.submit_done(Change::Purge(index, marker), done);
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageError> {
        self.visible(|log| {
            let mut out: Vec<(u64, Bytes)> = Vec::new();
            let mut bytes = 0_usize;
            if range.is_empty() {
                return out;
            }
            for (&index, entry) in log.entries.range(range) {
                bytes = bytes.saturating_add(entry.len());
                if !out.is_empty() && bytes > bytes_max {
                    break;
                }
                out.push((index, entry.clone()));
            }
            out
        })
    }

    fn first_index(&self) -> Result<Option<u64>, StorageError> {
        self.visible(|log| log.entries.first_key_value().map(|(&index, _)| index))
    }

    fn last(&self) -> Result<Option<(u64, Bytes)>, StorageError> {
        self.visible(|log| log.entries.last_key_value().map(|(&index, entry)| (index, entry.clone())))
    }

    fn purged(&self) -> Result<Option<Bytes>, StorageError> {
        self.visible(|log| log.purged.as_ref().map(|(_, marker)| marker.clone()))
    }

    fn purged_index(&self) -> Result<Option<u64>, StorageError> {
        self.visible(|log| log.purged.as_ref().map(|(index, _)| *index))
    }
}
