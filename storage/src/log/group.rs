//! One group's handle on the shared log.
//!
//! Owns: encoding (seal, then frame) and the merge of memory and disk for readers. Never does:
//! write by itself; every change goes through the one queue, in the order in which it became visible.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes};
use parking_lot::Mutex;
use rocksdb::{DB, ReadOptions};

use super::engine::Shared;
use super::keys::{self, LogKey, Record};
use super::port::{Completion, LogStore};
use super::queue::{Change, Command};
use super::tail::Tail;
use crate::cipher::{PlainCipher, ValueCipher};
use crate::rocks::map_error;
use crate::{StorageError, frame};

/// A group inside the engine; one per group, whatever the number of handles.
pub(super) struct GroupState {
    pub(super) id: u64,
    pub(super) tail: Mutex<Tail>,
    cipher: Arc<dyn ValueCipher>,
    dropped: AtomicBool,
}

impl GroupState {
    /// A group that has nothing; for removing a group nobody has opened.
    pub(super) fn empty(id: u64) -> Self {
        Self { id, tail: Mutex::default(), cipher: Arc::new(PlainCipher), dropped: AtomicBool::new(false) }
    }

    /// What the database has of a group.
    pub(super) fn load(id: u64, cipher: Arc<dyn ValueCipher>, db: &DB, folder: &Path) -> Result<Self, StorageError> {
        let group = Self { cipher, ..Self::empty(id) };
        let single = |record| -> Result<Option<Bytes>, StorageError> {
            let key = keys::single(id, record);
            let value = db.get(key).map_err(|error| map_error(folder, &error))?;
            value.map(|value| group.decode(folder, &key, Bytes::from(value))).transpose()
        };
        let vote = single(Record::Vote)?;
        let committed = single(Record::Committed)?;
        let purged = single(Record::Purged)?.map(|value| decode_purged(folder, value)).transpose()?;
        let start = purged.as_ref().map_or(0, |(index, _)| index + 1);
        let first = group.load_edge(db, folder, start, false)?;
        let last = group.load_edge(db, folder, start, true)?;
        if let (Some((purged, _)), Some((first, _))) = (&purged, &first)
            && *first != purged + 1
        {
            let detail = format!("{}: entry {} is missing behind the purged part", keys::name(id), purged + 1);
            return Err(StorageError::corrupt(folder, detail));
        }
        let first = first.map_or(0, |(index, _)| index);
        let tail = Mutex::new(Tail::loaded(vote, committed, purged, first, last));
        Ok(Self { tail, ..group })
    }

    /// The first or last entry from `start` on.
    fn load_edge(&self, db: &DB, folder: &Path, start: u64, last: bool) -> Result<Option<(u64, Bytes)>, StorageError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(keys::entry(self.id, start));
        options.set_iterate_upper_bound(keys::entries_end(self.id));
        let mut iterator = db.raw_iterator_opt(options);
        if last {
            iterator.seek_to_last()
        } else {
            iterator.seek_to_first()
        }
        let found = iterator.item().map(|(key, value)| self.decode_entry(folder, key, value)).transpose()?;
        iterator.status().map_err(|error| map_error(folder, &error))?;
        Ok(found)
    }

    fn encode(&self, key: &LogKey, plain: &[u8]) -> Vec<u8> {
        frame::seal(key, &self.cipher.seal(key, plain))
    }

    fn decode(&self, folder: &Path, key: &[u8], framed: Bytes) -> Result<Bytes, StorageError> {
        frame::open(key, framed).and_then(|sealed| self.cipher.open(key, sealed)).map_err(|damaged| {
            StorageError::corrupt(folder, format!("{}, key {}: {damaged}", keys::name(self.id), describe(key)))
        })
    }

    fn decode_entry(&self, folder: &Path, key: &[u8], framed: &[u8]) -> Result<(u64, Bytes), StorageError> {
        let index = match keys::parse(key) {
            Some((group, Record::Entry, index)) if group == self.id && index != u64::MAX => index,
            _ => {
                return Err(StorageError::corrupt(folder, format!("unknown key {}", describe(key))));
            }
        };
        Ok((index, self.decode(folder, key, Bytes::copy_from_slice(framed))?))
    }
}

/// A key for people.
pub(super) fn describe(key: &[u8]) -> String {
    match keys::parse(key) {
        Some((_, Record::Entry, index)) => format!("entry {index}"),
        Some((_, record, _)) => format!("{record:?}").to_lowercase(),
        None => format!("{key:02x?}"),
    }
}

fn encode_purged(index: u64, marker: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(8 + marker.len());
    value.put_u64(index);
    value.extend_from_slice(marker);
    value
}

fn decode_purged(folder: &Path, mut value: Bytes) -> Result<(u64, Bytes), StorageError> {
    match value.try_get_u64() {
        Ok(index) if index != u64::MAX => Ok((index, value)),
        _ => Err(StorageError::corrupt(folder, "a purge record is malformed")),
    }
}

/// A group's log in the shared engine; clones are cheap and share the group's state.
#[derive(Clone)]
pub struct GroupLog {
    shared: Arc<Shared>,
    group: Arc<GroupState>,
}

impl GroupLog {
    pub(super) fn new(shared: Arc<Shared>, group: Arc<GroupState>) -> Self {
        Self { shared, group }
    }

    /// The group's id.
    pub fn group_id(&self) -> u64 {
        self.group.id
    }

    fn usable(&self) -> Result<Arc<DB>, StorageError> {
        if self.group.dropped.load(Ordering::Acquire) {
            return Err(self.shared.closed(&format!("{} was dropped", keys::name(self.group.id))));
        }
        self.shared.db()
    }

    fn refused(&self, detail: String) -> StorageError {
        let detail = format!("{}: {detail}", keys::name(self.group.id));
        StorageError::Refused { path: self.shared.root.clone(), detail }
    }

    /// Makes a change visible and queues it, both under the group's lock, so that the queue's order
    /// is the order in which readers saw the changes.
    fn submit(
        &self,
        entries: u64,
        done: Completion,
        change: impl FnOnce(&mut Tail, u64) -> Result<Vec<Change>, String>,
    ) {
        if let Err(error) = self.usable() {
            return done(Err(error));
        }
        self.shared.queue.wait_for_room();
        let mut tail = self.group.tail.lock();
        // Checked again under the lock: nothing may be queued behind a removal of the group.
        if self.group.dropped.load(Ordering::Acquire) {
            drop(tail);
            return done(Err(self.shared.closed(&format!("{} was dropped", keys::name(self.group.id)))));
        }
        let sequence = tail.issue();
        match change(&mut tail, sequence) {
            Ok(changes) => {
                let command = Command { group: self.group.clone(), sequence, changes, entries, done };
                let pushed = self.shared.queue.push(command);
                drop(tail);
                if let Err(command) = pushed {
                    (command.done)(Err(self.shared.closed("the log engine was shut down")));
                }
            }
            Err(detail) => {
                drop(tail);
                done(Err(self.refused(detail)));
            }
        }
    }

    /// The group's last change; everything after it is refused.
    pub(super) fn submit_last(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(Result<(), StorageError>) + Send + 'static,
    ) {
        self.submit(0, Box::new(done), |_, _| {
            self.group.dropped.store(true, Ordering::Release);
            Ok(changes)
        });
    }

    /// Entries `from..to` from the database; all of them, or damage (the bounds say they exist).
    fn read_disk(&self, db: &DB, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageError> {
        let folder = &self.shared.folder;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(keys::entry(self.group.id, range.end));
        let mut iterator = db.raw_iterator_opt(options);
        iterator.seek(keys::entry(self.group.id, range.start));
        let (mut out, mut bytes) = (Vec::new(), 0_usize);
        for expected in range {
            let Some((key, value)) = iterator.item() else {
                iterator.status().map_err(|error| map_error(folder, &error))?;
                return Err(self.missing(expected));
            };
            let (index, entry) = self.group.decode_entry(folder, key, value)?;
            if index != expected {
                return Err(self.missing(expected));
            }
            bytes = bytes.saturating_add(entry.len());
            if !out.is_empty() && bytes > bytes_max {
                break;
            }
            out.push((index, entry));
            iterator.next();
        }
        Ok(out)
    }

    fn missing(&self, index: u64) -> StorageError {
        let detail = format!("{}: entry {index} is missing", keys::name(self.group.id));
        StorageError::corrupt(&self.shared.folder, detail)
    }

    fn with_tail<T>(&self, read: impl FnOnce(&Tail) -> T) -> Result<T, StorageError> {
        self.usable()?;
        Ok(read(&self.group.tail.lock()))
    }
}

impl LogStore for GroupLog {
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Completion) {
        // Encoding is the expensive part and needs no lock; the writer only copies.
        let changes: Vec<Change> = entries
            .iter()
            .map(|(index, entry)| {
                let key = keys::entry(self.group.id, *index);
                Change::Put { key, value: self.group.encode(&key, entry) }
            })
            .collect();
        self.submit(entries.len() as u64, done, |tail, sequence| {
            tail.check_append(&entries)?;
            tail.append(sequence, entries);
            Ok(changes)
        });
    }

    fn save_vote(&self, vote: Bytes, done: Completion) {
        let key = keys::single(self.group.id, Record::Vote);
        let value = self.group.encode(&key, &vote);
        self.submit(0, done, |tail, _| {
            tail.vote = Some(vote);
            Ok(vec![Change::Put { key, value }])
        });
    }

    fn save_committed(&self, committed: Bytes) -> Result<(), StorageError> {
        self.usable()?;
        let key = keys::single(self.group.id, Record::Committed);
        let value = self.group.encode(&key, &committed);
        let mut tail = self.group.tail.lock();
        if self.group.dropped.load(Ordering::Acquire) {
            return Err(self.shared.closed(&format!("{} was dropped", keys::name(self.group.id))));
        }
        tail.committed = Some(committed);
        match self.shared.queue.mark(key, value) {
            true => Ok(()),
            false => Err(self.shared.closed("the log engine was shut down")),
        }
    }

    fn read_vote(&self) -> Result<Option<Bytes>, StorageError> {
        self.with_tail(|tail| tail.vote.clone())
    }

    fn read_committed(&self) -> Result<Option<Bytes>, StorageError> {
        self.with_tail(|tail| tail.committed.clone())
    }

    fn truncate_after(&self, last_kept: Option<u64>, done: Completion) {
        self.submit(0, done, |tail, _| {
            let removed = tail.truncate(last_kept);
            let to = keys::entries_end(self.group.id);
            Ok(removed
                .map(|from| Change::DeleteRange { from: keys::entry(self.group.id, from), to })
                .into_iter()
                .collect())
        });
    }

    fn purge_upto(&self, index: u64, marker: Bytes, done: Completion) {
        let id = self.group.id;
        let key = keys::single(id, Record::Purged);
        let value = self.group.encode(&key, &encode_purged(index, &marker));
        self.submit(0, done, |tail, _| {
            tail.check_purge(index)?;
            let mut changes = vec![Change::Put { key, value }];
            if let Some((from, to)) = tail.purge(index, marker) {
                changes.push(Change::DeleteRange { from: keys::entry(id, from), to: keys::entry(id, to) });
            }
            Ok(changes)
        });
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageError> {
        'again: loop {
            let db = self.usable()?;
            let (wanted, on_disk, epoch) = {
                let tail = self.group.tail.lock();
                let Some(first) = tail.first() else {
                    return Ok(Vec::new());
                };
                let wanted = range.start.max(first)..range.end.min(tail.next());
                let on_disk = wanted.start..wanted.end.min(tail.cached_from());
                (wanted, on_disk, tail.epoch)
            };
            if wanted.is_empty() {
                return Ok(Vec::new());
            }
            let from_disk = match on_disk.is_empty() {
                true => Ok(Vec::new()),
                false => self.read_disk(&db, on_disk.clone(), bytes_max),
            };
            let tail = self.group.tail.lock();
            if tail.epoch != epoch {
                continue 'again; // truncated or purged meanwhile: what was read may be a mixture
            }
            let mut out = from_disk?;
            let mut bytes: usize = out.iter().map(|(_, entry)| entry.len()).sum();
            let reached = out.last().map_or(wanted.start, |(index, _)| index + 1);
            if reached < on_disk.end {
                return Ok(out); // `bytes_max` ended it
            }
            for index in reached..wanted.end {
                // What was in memory a moment ago may have been evicted, but then it is on disk.
                let Some(entry) = tail.cached(index) else {
                    continue 'again;
                };
                bytes = bytes.saturating_add(entry.len());
                if !out.is_empty() && bytes > bytes_max {
                    break;
                }
                out.push((index, entry.clone()));
            }
            return Ok(out);
        }
    }

    fn first_index(&self) -> Result<Option<u64>, StorageError> {
        self.with_tail(Tail::first)
    }

    fn last(&self) -> Result<Option<(u64, Bytes)>, StorageError> {
        loop {
            let next = {
                self.usable()?;
                let tail = self.group.tail.lock();
                if tail.is_empty() {
                    return Ok(None);
                }
                if let Some(entry) = tail.cached(tail.next() - 1) {
                    return Ok(Some((tail.next() - 1, entry.clone())));
                }
                tail.next()
            };
            // A truncation went below the cache; the entry is on disk.
            if let Some(last) = self.read(next - 1..next, usize::MAX)?.pop() {
                return Ok(Some(last));
            }
        }
    }

    fn purged(&self) -> Result<Option<Bytes>, StorageError> {
        self.with_tail(|tail| tail.purged.as_ref().map(|(_, marker)| marker.clone()))
    }

    fn purged_index(&self) -> Result<Option<u64>, StorageError> {
        self.with_tail(|tail| tail.purged.as_ref().map(|(index, _)| *index))
    }
}
