//! The raft log: what consensus must find again after a crash.
//!
//! Owns: the port ([`LogStore`]), its memory implementation, and, with the feature `rocksdb`, the
//! shared engine of DESIGN §12: all groups of a node in one database, one writer, one fsync per batch.
//! Never does: look inside an entry, a vote or a marker. Next: `consensus::raft` adapts openraft to it.

mod mem;
mod port;

#[cfg(feature = "rocksdb")]
mod engine;
#[cfg(feature = "rocksdb")]
mod group;
#[cfg(feature = "rocksdb")]
mod keys;
#[cfg(feature = "rocksdb")]
mod mark;
#[cfg(feature = "rocksdb")]
mod queue;
#[cfg(feature = "rocksdb")]
mod tail;
#[cfg(feature = "rocksdb")]
mod verify;
#[cfg(feature = "rocksdb")]
mod writer;

pub use mem::MemLog;
pub use port::{Completion, LogStore};

#[cfg(feature = "rocksdb")]
pub use engine::{LogEngine, LogIdentity, LogOptions, LogStats};
#[cfg(feature = "rocksdb")]
pub use group::GroupLog;
#[cfg(feature = "rocksdb")]
pub use verify::verify_offline;
