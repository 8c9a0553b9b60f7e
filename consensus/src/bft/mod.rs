//! The Byzantine engine: Tendermint, as `arc-malachitebft-core-consensus` implements it, for one group.
//!
//! Owns: values and turns, the translation between the library's inputs and effects and the [`Machine`] of a
//! member, what a member writes down before it sends, and how a value travels in parts. Never does, in this
//! part: IO, clocks, tasks. No type of the library leaves this module. The shell that connects a machine with
//! a log, a transport, timers and an applier is `group`, behind the feature `bft`; the simulator drives the
//! same machine by itself.
//!
//! Index and height: an entry's index in the group's log is Tendermint's height. A block's height is another
//! number, which the engine does not know.
//!
//! Code map: `value` (what is voted on, and how values follow each other), `turn` (who proposes, and for how long), `message`
//! (what is sent and written down), `admission` (when a member may vote that has forgotten what it promised), `api`
//! (inputs and outputs), `machine` (a member), `group` (the shell).

mod admission;
mod api;
#[cfg(feature = "bft")]
mod group;
mod machine;
mod message;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod turn;
mod value;

#[cfg(feature = "bft")]
pub use group::{BftGroup, BftParts, Caught, Judge, Traffic};
#[cfg(feature = "bft")]
pub(crate) use group::{Ground, chain_of, decided_before};

pub use admission::Admission;
pub use api::{Begin, BftTiming, Fate, Input, Output, Settings, Standing};
pub use machine::Machine;
pub use message::{Event, Message, PART_BYTES_MAX, Part, Quorum, Record};
pub use turn::{Missed, SKIPS_MAX, TURN_ENTRIES, TURN_MS, TURN_SLACK_MS, Turn};
pub use value::{Body, CHAIN_VERSION, Chain, Decided, DecidedError, VALUE_VERSION, Value};
