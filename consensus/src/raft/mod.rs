//! The raft engine: many groups of a node, each one openraft instance behind [`RaftGroup`].
//!
//! Owns: what openraft needs around it (log, state machine, snapshots on disk, messages) and the
//! translation of its types. No openraft type leaves this module. Never does: connections (the host
//! gives a [`RaftTransport`]), fsync policy (the storage crate's log engine), or the meaning of a
//! batch (the [`crate::port::Applier`]). What no engine does differently is here too, for both: log, snapshots,
//! founding, transport.
//!
//! Code map: `types` and `codec` (entries, votes and memberships as bytes), `log` (openraft's log
//! over the log port), `machine` and `snapshot` (applier and snapshot folders), `wire` and `network`
//! (what is sent), `serve`, `receive` and `streams` (what arrives), `fetch` (a snapshot for a replica that has
//! lost its state), `loans` (for how long), `vouch` (what others say of it) and `meet` and `meetings` (behind which entry they can), `found` (what a replica with an empty log does first), `stint` (taking turns with another engine), `follower` (one without a vote), `failure` (why it stopped), `purge` (what of the log goes), `inspect` (a log for auditors), `config`, `prepare`, `group`, `role` and `running` (the handle).

pub(crate) mod codec;
mod config;
pub(crate) mod failure;
pub(crate) mod fetch;
#[cfg(feature = "bft")]
mod follower;
pub(crate) mod found;
mod group;
mod inspect;
mod loans;
pub(crate) mod log;
pub(crate) mod machine;
mod meet;
#[cfg(feature = "bft")]
pub(crate) mod meetings;
pub(crate) mod network;
mod prepare;
pub(crate) mod purge;
mod receive;
mod role;
#[cfg(feature = "bft")]
pub(crate) mod running;
pub(crate) mod serve;
pub(crate) mod snapshot;
pub(crate) mod stint;
mod streams;
pub(crate) mod types;
pub(crate) mod vouch;
pub(crate) mod wire;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use codec::first_note;
pub use config::{RaftGroupConfig, StartError};
pub use fetch::FetchError;
pub(crate) use fetch::{Borrowed, Lookout};
#[cfg(feature = "bft")]
pub(crate) use follower::Follower;
pub use found::{FoundError, Founding, Standing};
pub use group::{HandleError, RaftGroup, Replica};
pub use inspect::read_log;
pub use network::{RaftTransport, TransportError};
pub(crate) use prepare::Opening;
pub use prepare::Prepared;
#[cfg(feature = "bft")]
pub(crate) use prepare::Started;
pub use wire::{CALL_BYTES_MAX, CALL_KINDS, asks_for_values, brings_values, carries_snapshot};
