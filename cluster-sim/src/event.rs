//! Events, their order, and what the event hash takes of them.

use std::rc::Rc;

use beacon::JobKind;
use ledger::committee::Engine;
use ledger::crypto::PublicKey;
use ledger::ids::{GroupId, Height, NodeId, OrgId};
use sha2::{Digest, Sha256};

use crate::wire::Endpoint;

/// Something that happens at a time.
pub(crate) enum Event {
    Deliver {
        from: Endpoint,
        to: Endpoint,
        bytes: Rc<[u8]>,
    },
    Tick {
        node: NodeId,
    },
    Synced {
        node: NodeId,
        group: GroupId,
        boot: u64,
    },
    Flush {
        node: NodeId,
        group: GroupId,
        boot: u64,
    },
    Checked {
        node: NodeId,
        group: GroupId,
        boot: u64,
        height: Height,
        valid: bool,
    },
    Wake {
        request: u32,
        group: GroupId,
        token: u64,
    },
    Fault {
        index: usize,
        tries: u32,
    },
    /// A fault that lasts is over.
    Over {
        index: usize,
    },
    Restart {
        node: NodeId,
    },
    /// An organisation acts in the governance of a channel, or in the beacon's registry.
    Govern {
        group: GroupId,
    },
    /// An organisation finds one of its keys in a channel stolen, and revokes it in the registry.
    Rob {
        group: GroupId,
    },
    /// Whoever has the key signs something in the channel.
    Steal {
        group: GroupId,
        org: OrgId,
        key: PublicKey,
    },
    /// An organisation revokes in the registry the certificate of a client with transactions under way in a channel.
    Expel {
        group: GroupId,
    },
    /// An organisation takes the next step towards founding a channel.
    Found {
        group: GroupId,
    },
    /// An organisation takes the next step towards assets in the channel that was founded.
    Permit {
        group: GroupId,
    },
    /// A shard, or the beacon, is taken a step further to an engine; to the one that it is not to have, to begin with.
    Switch {
        group: GroupId,
        to: Option<Engine>,
    },
    /// A job that cuts or joins shards is taken a step further; one that is to be chosen, to begin with.
    Reshape {
        kind: Option<JobKind>,
    },
    /// Routers hear of a layout.
    Adopt {
        version: u64,
    },
    /// Somebody wants a seat of a shard moved: which, is decided when the registry is first asked.
    MoveSeat,
    /// What an organisation wants of a node is taken a step further; it is to be chosen, to begin with.
    ComeAndGo {
        place: Option<usize>,
    },
    /// Another key for a node is taken a step further; the node is to be chosen, to begin with.
    RenewKey {
        place: Option<usize>,
    },
    /// Another policy of the cluster is taken a step further; it is to be chosen, to begin with.
    Rule {
        place: Option<usize>,
    },
    /// Organisations look at their nodes that are accused of having voted twice.
    StrikeOff,
    /// Routers hear of the members of a group.
    Seats {
        place: usize,
    },
    /// An organisation takes the next step towards epochs.
    Epochs,
    /// A node that fetches a state, gives one, or goes over to another engine loses power.
    Cut {
        node: NodeId,
        down_ms: u64,
    },
    /// A node that has an act under way loses power.
    Die {
        node: NodeId,
        down_ms: u64,
    },
    Audit,
    Heal,
    Poll,
}

impl Event {
    /// The node that has to be awake for it.
    pub(crate) fn node(&self) -> Option<NodeId> {
        match self {
            Self::Deliver { to: Endpoint::Node(node), .. }
            | Self::Tick { node }
            | Self::Synced { node, .. }
            | Self::Flush { node, .. }
            | Self::Checked { node, .. } => Some(*node),
            Self::Deliver { to: Endpoint::Client, .. }
            | Self::Wake { .. }
            | Self::Fault { .. }
            | Self::Over { .. }
            | Self::Restart { .. }
            | Self::Govern { .. }
            | Self::Rob { .. }
            | Self::Steal { .. }
            | Self::Expel { .. }
            | Self::Found { .. }
            | Self::Permit { .. }
            | Self::Switch { .. }
            | Self::Reshape { .. }
            | Self::Adopt { .. }
            | Self::MoveSeat
            | Self::ComeAndGo { .. }
            | Self::RenewKey { .. }
            | Self::Rule { .. }
            | Self::StrikeOff
            | Self::Seats { .. }
            | Self::Epochs
            | Self::Cut { .. }
            | Self::Die { .. }
            | Self::Audit
            | Self::Heal
            | Self::Poll => None,
        }
    }

    /// What the event hash takes of it.
    pub(crate) fn digest(&self, hasher: &mut Sha256) {
        let mut put = |kind: u8, numbers: &[u64], bytes: &[u8]| {
            hasher.update([kind]);
            numbers.iter().for_each(|number| hasher.update(number.to_be_bytes()));
            hasher.update(bytes);
        };
        let end = |endpoint: &Endpoint| match endpoint {
            Endpoint::Node(node) => u64::from(node.0),
            Endpoint::Client => u64::MAX,
        };
        match self {
            Self::Deliver { from, to, bytes } => put(0, &[end(from), end(to), bytes.len() as u64], bytes),
            Self::Tick { node } => put(1, &[u64::from(node.0)], &[]),
            Self::Synced { node, group, boot } => put(2, &[u64::from(node.0), group.0, *boot], &[]),
            Self::Flush { node, group, boot } => put(3, &[u64::from(node.0), group.0, *boot], &[]),
            Self::Checked { node, group, boot, height, valid } => {
                put(4, &[u64::from(node.0), group.0, *boot, height.0, u64::from(*valid)], &[]);
            }
            Self::Wake { request, group, token } => put(5, &[u64::from(*request), group.0, *token], &[]),
            Self::Fault { index, tries } => put(6, &[*index as u64, u64::from(*tries)], &[]),
            Self::Over { index } => put(7, &[*index as u64], &[]),
            Self::Restart { node } => put(8, &[u64::from(node.0)], &[]),
            Self::Audit => put(9, &[], &[]),
            Self::Heal => put(10, &[], &[]),
            Self::Poll => put(11, &[], &[]),
            Self::Govern { group } => put(12, &[group.0], &[]),
            Self::Die { node, down_ms } => put(13, &[u64::from(node.0), *down_ms], &[]),
            Self::Rob { group } => put(14, &[group.0], &[]),
            Self::Steal { group, org, key } => put(15, &[group.0, u64::from(org.0)], &key.0),
            Self::Found { group } => put(16, &[group.0], &[]),
            Self::Cut { node, down_ms } => put(17, &[u64::from(node.0), *down_ms], &[]),
            Self::Expel { group } => put(19, &[group.0], &[]),
            Self::Switch { group, to } => put(18, &[group.0], to.map_or("", Engine::name).as_bytes()),
            Self::Reshape { kind } => put(20, &[], &borsh::to_vec(kind).unwrap_or_default()),
            Self::Adopt { version } => put(21, &[*version], &[]),
            Self::Epochs => put(22, &[], &[]),
            Self::MoveSeat => put(23, &[], &[]),
            Self::ComeAndGo { place } => put(25, &[place.map_or(u64::MAX, |place| place as u64)], &[]),
            Self::RenewKey { place } => put(26, &[place.map_or(u64::MAX, |place| place as u64)], &[]),
            Self::Rule { place } => put(27, &[place.map_or(u64::MAX, |place| place as u64)], &[]),
            Self::StrikeOff => put(28, &[], &[]),
            Self::Seats { place } => put(24, &[*place as u64], &[]),
            Self::Permit { group } => put(28, &[group.0], &[]),
        }
    }
}

/// An event in the queue; those of one time happen in the order in which they were queued.
pub(crate) struct Due {
    pub(crate) at_ms: u64,
    pub(crate) sequence: u64,
    pub(crate) event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.sequence) == (other.at_ms, other.sequence)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.sequence).cmp(&(other.at_ms, other.sequence))
    }
}
