//! The raft engine under openraft's own suite, and whole groups in one process.

mod cluster;
mod fetch;
mod formats;
mod found;
mod lending;
#[cfg(feature = "bft")]
mod meetings;
mod snapshots;
mod stints;
mod suite;
mod support;
mod withheld;
