//! A stored log as auditors read it: what the applier was given, or would be, in the port's terms.

use std::io;
use std::ops::Range;

use storage::LogStore;

use super::codec;
use super::types::position;
use crate::port::Committed;

/// The entries of a range of indexes that the log still has, in order, whether they are committed or not:
/// the reader knows how far its state has applied.
///
/// # Errors
/// When the log cannot be read or holds bytes that are no entry.
pub fn read_log(store: &dyn LogStore, range: Range<u64>) -> io::Result<Vec<Committed>> {
    let found = store.read(range, usize::MAX).map_err(|error| io::Error::other(error.to_string()))?;
    let entries = found.iter().map(|(index, bytes)| {
        let entry = codec::decode_entry(*index, bytes)?;
        let id = openraft::entry::RaftEntry::log_id(&entry);
        Ok(Committed { position: position(&id), payload: codec::payload(&entry), note: None })
    });
    entries.collect()
}
