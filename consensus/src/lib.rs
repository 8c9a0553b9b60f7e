//! Consensus behind one port: the sequencer of a group and its engines.
//!
//! Owns the port ([`port`]), `raft` on openraft, `bft` on malachite's core, and [`local`], the deterministic
//! engine of the simulator. `engine` holds a replica of whichever engine its group has. Never looks into a batch:
//! entries are bytes here. Committed entries go to the [`port::Applier`], which is the commit loop of the group's
//! host (`shard-node`).

#[cfg(feature = "bft-core")]
pub mod bft;
#[cfg(feature = "bft")]
pub mod engine;
pub mod local;
pub mod port;

#[cfg(feature = "raft")]
pub mod raft;
#[cfg(feature = "raft")]
pub mod sequencer;
