//! The deterministic engine: a leader-based replicated log as a pure state machine.
//!
//! Owns the core of raft (terms, votes, log matching, the commit rule of the current term) for the
//! simulator, which delivers messages as it likes and decides what a disk has kept at a crash. Never
//! reads a clock, draws randomness, starts a thread or does IO: time and a seed come in, effects go
//! out. Voters change one at a time, by entries of the log, each in force from where it stands. Snapshots
//! are the host's: a log may begin behind a [`Base`] that the host's state contains, and whoever lacks
//! more than a leader's log can give is told so by [`Output::Lacking`].
//!
//! The order of effects is the point: a [`LocalReplica`] emits [`Output::Persist`] and acknowledges
//! nothing of it before [`Input::Synced`], so a simulator that loses an unsynced tail loses nothing
//! that anyone relies on.

mod disk;
mod message;
mod replica;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use disk::{Base, Change, LocalDisk, LocalEntry, LocalLog, Persist};
pub use message::{Input, Msg, Output};
pub use replica::{LocalReplica, LocalSettings};
