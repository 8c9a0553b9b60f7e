//! The openraft type configuration and conversions from and to the port's types.

// The runtime's own crate is not a dependency of ours; openraft's re-export of it is deprecated.
#![allow(deprecated)]

use std::fmt;

use bytes::Bytes;
use ledger::ids::NodeId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::port::Position;

openraft::declare_raft_types!(
    /// Raft ids are `u64`, allocated per (node, group, join); the member's data is its node.
    pub(crate) TypeConfig:
        D = Batch,
        R = (),
        NodeId = u64,
        Node = NodeId,
);

/// A batch as proposed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Batch(pub(crate) Bytes);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// openraft's trait bounds ask for serde; our own formats never go through it.
impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Vec::<u8>::deserialize(deserializer)?.into()))
    }
}

pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type EntryPayload = openraft::type_config::alias::PayloadOf<TypeConfig>;
pub(crate) type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, NodeId>;
pub(crate) type Raft = openraft::Raft<TypeConfig, super::machine::Machine>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;

/// The port's form of a log id.
pub(crate) fn position(id: &LogId) -> Position {
    Position { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

/// openraft's form of a position.
pub(crate) fn log_id(position: &Position) -> LogId {
    LogId::new(LeaderId { term: position.term, node_id: position.leader }, position.index)
}
