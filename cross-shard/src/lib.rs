//! Mail between groups, and the commit protocol that rides on it.
//!
//! Owns the outgoing streams, the incoming cursors, bundles and their proofs, acknowledgements, and
//! the two-phase commit over them: vote registers, the outcome rule and recovery (DESIGN §7). Never
//! does IO and never decides what a move means for an account: that is `ledger::rules`.
//! `shard-node` composes both into the machine of a group.

pub mod bundle;
pub mod closed;
pub mod commit;
pub mod estate;
pub mod message;
pub mod notice;
pub mod range;
pub mod route;
pub mod stream;

pub use bundle::{AckProof, Bundle, CommitteeSource};
pub use closed::{Closed, ClosedStream, Ended, Passed, Reshaped};
pub use message::{Message, Vote};
pub use notice::{AnchorsUpdate, ChannelStatus, ChannelUpdate, NodeEntry, OrgEntry, RegistryUpdate};
pub use stream::{InCursor, OutStream, StreamLeaf};
