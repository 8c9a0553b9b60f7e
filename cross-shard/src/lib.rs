//! Mail between groups, and the commit protocol that rides on it.
//!
//! Owns the outgoing streams, the incoming cursors, bundles and their proofs, and acknowledgements
//! (DESIGN §7). Never does IO and never decides what a message means for an account: `shard-node`
//! composes this with the account rules of `ledger`. Vote registers and holds join it with the
//! two-phase protocol.

pub mod bundle;
pub mod message;
pub mod stream;

pub use bundle::{AckProof, Bundle, CommitteeSource};
pub use message::Message;
pub use stream::{InCursor, OutStream, StreamLeaf};
