//! Consensus behind one port: the sequencer of a group and its engines.
//!
//! Owns the port ([`port`]), `raft` on openraft, and [`local`], the deterministic engine of the
//! simulator. Never looks into a batch: entries are bytes here. Committed entries go to the
//! [`port::Applier`], which is the commit loop of the group's host (`shard-node`).

pub mod local;
pub mod port;

#[cfg(feature = "raft")]
pub mod raft;
#[cfg(feature = "raft")]
pub mod sequencer;
