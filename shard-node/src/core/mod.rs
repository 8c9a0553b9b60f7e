//! The pure core of a group: its composed machine, the block executor and the driver.
//!
//! Owns what happens between a committed entry and a block's effects ([`executor`]), and the
//! node-local decisions of a replica ([`driver`]): batching, attesting, gathering certificates,
//! pulling mail and acknowledging it. And how a shard begins that others were cut or joined into ([`birth`]).
//! Never does IO, reads a clock or draws randomness; the IO host in `server` and the simulator in `cluster-sim`
//! drive the same code.

pub mod applied;
pub mod birth;
pub mod driver;
pub mod entry;
pub mod executor;
pub mod fit;
pub mod flows;
pub mod follow;
pub mod genesis;
pub(crate) mod governance;
pub mod heads;
pub mod late;
pub mod machine;
pub mod marks;
pub mod peer;
pub mod recheck;
pub mod records;
mod sealing;
pub mod tally;
pub mod trail;

#[cfg(test)]
mod beacon_tests;
#[cfg(test)]
pub(crate) mod consortium;
#[cfg(test)]
pub(crate) mod elastic;
#[cfg(test)]
mod epochs_tests;
#[cfg(test)]
#[path = "../../tests/support/mod.rs"]
pub(crate) mod support;
#[cfg(test)]
mod swap_tests;
#[cfg(test)]
mod veil_tests;
