//! The raft engine: many groups of a node, each one openraft instance behind [`RaftGroup`].
//!
//! Owns: what openraft needs around it (log, state machine, snapshots on disk, messages) and the
//! translation of its types. No openraft type leaves this module. Never does: connections (the host
//! gives a [`RaftTransport`]), fsync policy (the storage crate's log engine), or the meaning of a
//! batch (the [`crate::port::Applier`]).
//!
//! Code map: `types` and `codec` (entries, votes and memberships as bytes), `log` (openraft's log
//! over the log port), `machine` and `snapshot` (applier and snapshot folders), `wire` and `network`
//! (what is sent), `receive` and `streams` (what arrives), `fetch` (a snapshot for a replica that has
//! lost its state), `found` (what a replica with an empty log does first), `failure` (why it stopped), `purge` (what of the log goes), `inspect` (a log for auditors), `config`, `prepare`, `group` and `role` (the handle).

mod codec;
mod config;
mod failure;
mod fetch;
mod found;
mod group;
mod inspect;
mod log;
mod machine;
mod network;
mod prepare;
mod purge;
mod receive;
mod role;
mod snapshot;
mod streams;
mod types;
mod wire;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use config::{RaftGroupConfig, StartError};
pub use fetch::FetchError;
pub use found::{FoundError, Founding, Standing};
pub use group::{HandleError, RaftGroup, Replica};
pub use inspect::read_log;
pub use network::{RaftTransport, TransportError};
pub use prepare::Prepared;
pub use wire::{CALL_BYTES_MAX, carries_snapshot};
