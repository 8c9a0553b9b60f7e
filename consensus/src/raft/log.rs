//! openraft's log over the log port of the storage crate.
//!
//! The port keeps votes, appends, truncations and purges of a group in one order and is fail-stop,
//! so only a vote and a truncation are waited for; an append reports back by openraft's callback.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

#[cfg(feature = "bft")]
use bytes::Bytes;
use futures::stream::{self, Stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use parking_lot::RwLock;
use storage::{Completion, LogStore, StorageError};
use tokio::sync::oneshot;

use super::codec::{self, Stint};
use super::failure::Failure;
use super::types::{Entry, LogId, TypeConfig, Vote, log_id};
use super::wire::APPEND_BYTES_MAX;
use crate::port::Position;

/// Read at a time when entries are applied.
const READ_BYTES_MAX: usize = 8 << 20;

/// One group's log. Clones share it; [`Log::close`] takes the store from all of them, so that the
/// host can close its engine although a task of openraft still holds a reader.
#[derive(Clone)]
pub(crate) struct Log {
    store: Arc<RwLock<Option<Arc<dyn LogStore>>>>,
    failure: Failure,
}

/// The error for openraft, which stops the group; a log that was closed under it is no failure.
fn io_error(failure: &Failure, error: &StorageError) -> io::Error {
    let cause = format!("{}: {error}", error.code());
    if !matches!(error, StorageError::Closed { .. }) {
        failure.note(&cause);
    }
    io::Error::other(cause)
}

impl Log {
    pub(crate) fn new(store: Arc<dyn LogStore>, failure: Failure) -> Self {
        Self { store: Arc::new(RwLock::new(Some(store))), failure }
    }

    fn failed(&self, error: &StorageError) -> io::Error {
        io_error(&self.failure, error)
    }

    pub(crate) fn close(&self) {
        *self.store.write() = None;
    }

    fn store(&self) -> io::Result<Arc<dyn LogStore>> {
        self.store.read().clone().ok_or_else(|| io::Error::other("the group is shut down"))
    }

    /// The marker of the last purge.
    pub(crate) fn purged(&self) -> io::Result<Option<bytes::Bytes>> {
        self.store()?.purged().map_err(|error| self.failed(&error))
    }

    /// Whether there is no entry, and none was purged.
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        let store = self.store()?;
        let last = store.last().map_err(|error| self.failed(&error))?;
        Ok(last.is_none() && store.purged_index().map_err(|error| self.failed(&error))?.is_none())
    }

    /// The vote that stands in the log.
    pub(crate) fn vote(&self) -> io::Result<Option<Vote>> {
        let vote = self.store()?.read_vote().map_err(|error| self.failed(&error))?;
        Ok(vote.map(|vote| codec::decode_vote(&vote)).transpose()?)
    }

    /// The stint of another engine that stands beside the vote.
    pub(crate) fn stint(&self) -> io::Result<Option<Stint>> {
        let vote = self.store()?.read_vote().map_err(|error| self.failed(&error))?;
        Ok(vote.map(|vote| codec::decode_stint(&vote)).transpose()?.flatten())
    }

    /// The first and the last index: entries from the first up to the last are there. The last one may be purged.
    pub(crate) fn extent(&self) -> io::Result<(Option<u64>, Option<u64>)> {
        let store = self.store()?;
        let first = store.first_index().map_err(|error| self.failed(&error))?;
        let last = store.last().map_err(|error| self.failed(&error))?.map(|(index, _)| index);
        let purged = store.purged_index().map_err(|error| self.failed(&error))?;
        Ok((first, last.or(purged)))
    }

    /// Notes that everything up to this entry is committed, and nothing else. Durable with the next change.
    pub(crate) fn note_committed(&self, at: &Position) -> io::Result<()> {
        let marker = codec::encode_log_id(Some(&log_id(at)));
        self.store()?.save_committed(marker).map_err(|error| self.failed(&error))
    }

    /// Replaces the vote, durably.
    pub(crate) async fn save_vote_durably(&self, vote: bytes::Bytes) -> io::Result<()> {
        self.durable(|store, done| store.save_vote(vote, done)).await
    }

    /// Replaces the vote without waiting: it is durable before whatever is written behind it. Where it cannot be written, nothing
    /// behind it can.
    pub(crate) fn note_vote(&self, vote: bytes::Bytes) -> io::Result<()> {
        let failure = self.failure.clone();
        let done = Box::new(move |result: Result<(), StorageError>| {
            drop(result.map_err(|error| io_error(&failure, &error)));
        });
        self.store()?.save_vote(vote, done);
        Ok(())
    }

    /// The id of the entry at an index, if it is there.
    pub(crate) fn entry_id(&self, index: u64) -> io::Result<Option<LogId>> {
        let found = self.store()?.read(index..index.saturating_add(1), 1).map_err(|error| self.failed(&error))?;
        found.first().map(|(index, bytes)| Ok(codec::decode_entry_id(*index, bytes)?)).transpose()
    }

    /// Takes off all entries behind `last_kept`, durably.
    pub(crate) async fn truncate_behind(&self, last_kept: Option<u64>) -> io::Result<()> {
        self.durable(|store, done| store.truncate_after(last_kept, done)).await
    }

    /// Forgets all entries up to this one, some time later.
    pub(crate) fn purge_upto(&self, at: &LogId) -> io::Result<()> {
        let (index, marker) = (at.index, codec::encode_log_id(Some(at)));
        self.store()?.purge_upto(
            index,
            marker,
            Box::new(move |result| {
                if let Err(error) = result {
                    tracing::error!(%error, index, "the log could not be purged");
                }
            }),
        );
        Ok(())
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let found = self.store()?.read(range, bytes_max).map_err(|error| self.failed(&error))?;
        found.iter().map(|(index, bytes)| Ok(codec::decode_entry(*index, bytes)?)).collect()
    }

    async fn durable(&self, change: impl FnOnce(&dyn LogStore, Completion)) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        let store = self.store()?;
        // A receiver that is gone does not care any more.
        change(store.as_ref(), Box::new(move |result| drop(done.send(result))));
        drop(store);
        match wait.await {
            Ok(result) => result.map_err(|error| self.failed(&error)),
            Err(_) => Err(io::Error::other("the log was closed before the change was durable")),
        }
    }
}

/// What an engine needs that frames its entries itself.
#[cfg(feature = "bft")]
impl Log {
    /// Entries as they are stored.
    pub(crate) fn read_stored(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        self.store()?.read(range, bytes_max).map_err(|error| self.failed(&error))
    }

    /// Appends an entry; `done` runs when it is durable, or can no longer become so.
    pub(crate) fn append_stored(
        &self,
        index: u64,
        entry: Bytes,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let failure = self.failure.clone();
        let done = Box::new(move |result: Result<(), StorageError>| {
            done(result.map_err(|error| io_error(&failure, &error)));
        });
        self.store()?.append(vec![(index, entry)], done);
        Ok(())
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end.max(start)
}

impl RaftLogReader<TypeConfig> for Log {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.clone();
        // Piecewise, so that a long catch-up does not hold the whole log in memory.
        let pieces = stream::unfold(Some(bounds(&range)), move |rest| {
            let log = log.clone();
            async move {
                let rest = rest.filter(|rest| !rest.is_empty())?;
                match log.read(rest.clone(), READ_BYTES_MAX) {
                    Err(error) => Some((vec![Err(error)], None)),
                    Ok(found) => {
                        let next = found.last()?.index() + 1;
                        Some((found.into_iter().map(Ok).collect(), Some(next..rest.end)))
                    }
                }
            }
        });
        Box::pin(futures::StreamExt::flat_map(pieces, |piece: Vec<io::Result<Entry>>| stream::iter(piece)))
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(bounds(&range), usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.vote()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, APPEND_BYTES_MAX)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let store = self.store()?;
        let purged = store.purged().map_err(|error| self.failed(&error))?;
        let last_purged_log_id = purged.map(|marker| codec::decode_log_id(&marker)).transpose()?.flatten();
        let last = store.last().map_err(|error| self.failed(&error))?;
        let last_log_id = match last {
            Some((index, bytes)) => Some(codec::decode_entry_id(index, &bytes)?),
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        // A vote is of the stint that it is cast in.
        let slot = match self.stint()? {
            Some(stint) => codec::encode_stint(vote, stint),
            None => codec::encode_vote(vote),
        };
        self.save_vote_durably(slot).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.store()?.save_committed(codec::encode_log_id(committed.as_ref())).map_err(|error| self.failed(&error))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.store()?.read_committed().map_err(|error| self.failed(&error))?;
        Ok(committed.map(|committed| codec::decode_log_id(&committed)).transpose()?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = <TypeConfig as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| (entry.index(), codec::encode_entry(&entry))).collect();
        let failure = self.failure.clone();
        let done = Box::new(move |result: Result<(), StorageError>| {
            callback.io_completed(result.map_err(|error| io_error(&failure, &error)));
        });
        self.store()?.append(entries, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.truncate_behind(last_log_id.map(|id| id.index)).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.purge_upto(&log_id)
    }
}
