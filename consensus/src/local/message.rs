//! What goes into and comes out of a replica.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::ids::NodeId;

use super::disk::{LocalEntry, Persist};
use crate::port::{Committed, RoleView};

/// A message between replicas. May be lost, repeated and reordered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Msg {
    /// A candidate asks for a vote.
    VoteRequest {
        /// The candidate's term.
        term: u64,
        /// Index of its last entry.
        last_index: u64,
        /// Term of its last entry.
        last_term: u64,
    },
    /// Answer to a vote request.
    VoteReply {
        /// The voter's term.
        term: u64,
        /// Whether the vote was given in this term.
        granted: bool,
    },
    /// A leader sends entries, or none as a heartbeat.
    Append {
        /// The leader's term.
        term: u64,
        /// Index of the entry before the first one sent.
        previous_index: u64,
        /// Its term.
        previous_term: u64,
        /// Entries that follow it.
        entries: Vec<LocalEntry>,
        /// The leader's commit index.
        commit: u64,
        /// Index behind which the leader's log begins: it can send nothing before.
        base: u64,
    },
    /// Answer to an append.
    AppendReply {
        /// The follower's term.
        term: u64,
        /// Whether the previous entry matched.
        matched: bool,
        /// If it matched: the last index that is known to equal the leader's and is durable.
        /// Otherwise: the last index that may match.
        index: u64,
    },
}

/// What happens to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A message of another replica arrived.
    Message(NodeId, Msg),
    /// The host proposes a batch.
    Propose(Bytes),
    /// The host wants these to vote. A leader takes it up if all earlier changes are committed and this
    /// one adds or removes one replica; otherwise nothing happens, and the host asks again.
    Voters(Vec<NodeId>),
    /// The host wants these to get the log, beside those who vote, while this replica leads. Kept until
    /// the next such input.
    Learners(Vec<NodeId>),
    /// Everything up to the [`Persist`] with this number is durable.
    Synced(u64),
}

/// What a replica wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message.
    Send(NodeId, Msg),
    /// Write this; say [`Input::Synced`] when it is durable. Writes are durable in their order.
    Persist(Persist),
    /// The next committed entry. Once per position since the replica was created.
    Committed(Committed),
    /// Leadership, the known leader or the term changed.
    Role(RoleView),
    /// A proposal was not accepted, since this replica does not lead.
    Rejected(Bytes),
    /// This leader's log begins behind what this replica has: the host has to get the state of a replica,
    /// and to create this one again on top of it.
    Lacking(NodeId),
}
