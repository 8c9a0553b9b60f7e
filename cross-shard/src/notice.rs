//! What the beacon and the channels tell each other about who takes part.
//!
//! Owns the notices and nothing that follows from them. A channel's notice holds all that the
//! beacon ever learns of it by mail: nothing of what happens inside. What others need of that, who carries
//! its mail, the beacon tells them in a notice of its own.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Engine;
use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, NodeId, OrgId};
use ledger::limits::COMMITTEE_MAX;

/// Version written into new notices about the registry.
pub const NOTICE_VERSION: u8 = 1;
/// Version written into new notices of channels. Version 1 had no engine.
pub const CHANNEL_UPDATE_VERSION: u8 = 2;
/// Version written into new notices about anchors.
pub const ANCHORS_UPDATE_VERSION: u8 = 1;

/// An organisation, as far as channels go by it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OrgEntry {
    /// The organisation.
    pub org: OrgId,
    /// Name for people.
    pub name: String,
    /// `sha256` of its CA certificate as the registry has it, in PEM.
    pub ca_hash: Hash32,
    /// Its admin key.
    pub admin_key: PublicKey,
}

/// A node, as far as channels go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NodeEntry {
    /// The node.
    pub node: NodeId,
    /// Its organisation.
    pub org: OrgId,
    /// Key that signs headers.
    pub key: PublicKey,
}

/// The registry, as far as channels go by it. It is the same for every channel, and names all
/// organisations and nodes: the beacon does not know whom a channel has invited.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RegistryUpdate {
    /// Format version, [`NOTICE_VERSION`].
    pub version: u8,
    /// All organisations, by id.
    pub orgs: Vec<OrgEntry>,
    /// All nodes, by id.
    pub nodes: Vec<NodeEntry>,
    /// Keys and certificates that were revoked since the last update, in the first one all that ever
    /// were: whose, and `sha256` of the key or of the certificate's subject public key info.
    pub revoked: Vec<(OrgId, Hash32)>,
}

impl RegistryUpdate {
    /// An organisation.
    #[must_use]
    pub fn org(&self, org: OrgId) -> Option<&OrgEntry> {
        let at = self.orgs.binary_search_by_key(&org, |entry| entry.org).ok()?;
        Some(&self.orgs[at])
    }

    /// A node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&NodeEntry> {
        let at = self.nodes.binary_search_by_key(&node, |entry| entry.node).ok()?;
        Some(&self.nodes[at])
    }

    /// Whether everything is in order, so that look-ups find what is there.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        self.version == NOTICE_VERSION
            && self.orgs.windows(2).all(|pair| pair[0].org < pair[1].org)
            && self.nodes.windows(2).all(|pair| pair[0].node < pair[1].node)
    }
}

/// How far a channel has come, as its directory entry shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum ChannelStatus {
    /// In use.
    Running,
    /// Read and governed, not written.
    Frozen,
    /// Finishing what is under way.
    Closing,
    /// Read only, for good.
    Closed,
}

impl ChannelStatus {
    /// For people and programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

/// Who carries the mail of a channel across its border, for everybody.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AnchorsUpdate {
    /// Format version, [`ANCHORS_UPDATE_VERSION`].
    pub version: u8,
    /// The channel.
    pub channel: GroupId,
    /// Its anchors, ascending. Without any, every replica carries its mail.
    pub anchors: Vec<NodeId>,
}

impl AnchorsUpdate {
    /// Whether it is of a channel, in order, and names no more nodes than a committee has.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        self.version == ANCHORS_UPDATE_VERSION
            && self.channel.kind() == Some(GroupKind::Channel)
            && self.anchors.len() <= COMMITTEE_MAX
            && self.anchors.windows(2).all(|pair| pair[0] < pair[1])
    }
}

/// What a channel shows of itself.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChannelUpdate {
    /// Format version, [`CHANNEL_UPDATE_VERSION`].
    pub version: u8,
    /// Its members, ascending.
    pub members: Vec<OrgId>,
    /// The nodes that its members host it on, ascending: those that its committee is to consist of.
    pub nodes: Vec<NodeId>,
    /// Those of them that carry its mail, ascending.
    pub anchors: Vec<NodeId>,
    /// How far it has come.
    pub status: ChannelStatus,
    /// What its committee is to be ordered by.
    pub engine: Engine,
}

impl ChannelUpdate {
    /// The anchors that others are told of. A channel that is ending cannot set others any more, so that every replica
    /// of it carries mail.
    #[must_use]
    pub fn anchors_in_use(&self) -> &[NodeId] {
        match self.status {
            ChannelStatus::Running | ChannelStatus::Frozen => &self.anchors,
            ChannelStatus::Closing | ChannelStatus::Closed => &[],
        }
    }

    /// Whether everything is in order and within `orgs` organisations and `nodes` nodes.
    #[must_use]
    pub fn well_formed(&self, orgs: usize, nodes: usize) -> bool {
        fn ascending<T: Ord>(list: &[T]) -> bool {
            list.windows(2).all(|pair| pair[0] < pair[1])
        }
        self.version == CHANNEL_UPDATE_VERSION
            && self.members.len() <= orgs
            && self.nodes.len() <= nodes
            && ascending(&self.members)
            && ascending(&self.nodes)
            && ascending(&self.anchors)
            && self.anchors.iter().all(|anchor| self.nodes.binary_search(anchor).is_ok())
    }
}
