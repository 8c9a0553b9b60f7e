//! Nodes that a proof has shown to vote twice, and what keeps them from losing their seats.
//!
//! A node is accused once and for good: its key has signed what an honest member never signs. From then on it takes no
//! seat, and those that it has go to others by the rules of [`crate::seats`], as those of a node without capacity do,
//! without anybody's command. Where nobody can take a seat, a committee that outlives a failure also without it gives it
//! up; else the seat stays, and [`removals`] says why, which [`Accused`] has for whoever asks. Its organisation registers another node, with another key.

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::ballot::Equivocation;
use ledger::committee::{Committee, Member};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::view::View;

use crate::audit;
use crate::jobs;
use crate::keys;
use crate::registry;
use crate::seats;

/// Version written into new accusations.
pub const ACCUSATION_VERSION: u8 = 1;
/// Version written into [`Accused`].
pub const ACCUSED_VERSION: u8 = 1;

/// What the registry holds against a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Accusation {
    /// Format version, [`ACCUSATION_VERSION`].
    pub version: u8,
    /// The node.
    pub node: NodeId,
    /// Its organisation.
    pub org: OrgId,
    /// The group that it voted twice in.
    pub group: GroupId,
    /// Name of the first proof that the beacon has taken ([`Equivocation::id`]); it stands in the beacon's state.
    pub evidence: Hash32,
    /// The beacon's block that took it.
    pub height: Height,
    /// Its time.
    pub time_ms: TimeMs,
}

const ACCUSED: &[u8] = b"accused/";

/// Key of an [`Accusation`].
#[must_use]
pub fn accused_key(node: NodeId) -> Vec<u8> {
    registry::key(ACCUSED, &[&node.0.to_be_bytes()])
}

/// All accusations, by node.
pub fn accusations(view: &mut View<'_>) -> Vec<Accusation> {
    registry::family(view, &registry::key(ACCUSED, &[])).into_iter().map(|(_, accusation)| accusation).collect()
}

/// The nodes that are accused, and those whose state went wrong and that nobody has released, ascending.
pub(crate) fn nodes(view: &mut View<'_>) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = accusations(view).into_iter().map(|accusation| accusation.node).collect();
    nodes.extend(audit::divergent_nodes(view));
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Accuses the member that a proof, which has been judged, is about, and prepares the committees that it has a seat in
/// to go on without it. Returns what is to be mailed; nothing when the node is accused already, or when the proof is by a key
/// that it has had long ago.
pub fn accuse(view: &mut View<'_>, at: &BlockContext, proof: &Equivocation) -> Vec<(GroupId, Message)> {
    let Some(node) = registry::node(view, proof.node()) else { return Vec::new() };
    let key = accused_key(node.id);
    if view.get(&key).is_some() {
        return Vec::new();
    }
    let ballot = &proof.first.ballot;
    let committee = registry::committee_by_hash(view, ballot.group, &ballot.committee);
    let signer = committee.and_then(|named| named.index_of(node.id).map(|seat| named.members[seat].key));
    if signer.is_some_and(|signer| keys::is_past(view, at, &signer)) {
        return Vec::new();
    }
    let accusation = Accusation {
        version: ACCUSATION_VERSION,
        node: node.id,
        org: node.org,
        group: proof.first.ballot.group,
        evidence: proof.id(),
        height: at.height,
        time_ms: at.time_ms,
    };
    registry::put(view, key, &accusation);
    let mail = seats::go_on(view);
    registry::bump_revision(view);
    mail
}

/// A committee that gives up the seat of an accused member, where nobody takes it: only as long as those who stay are
/// enough for the engine, and outlive one more failure.
#[must_use]
pub fn without_one(current: &Committee, accused: &[NodeId]) -> Option<Vec<Member>> {
    let gone = current.members.iter().find(|member| accused.contains(&member.node))?.node;
    let left = current.members.len() - 1;
    let stands = left >= current.engine.least_members() && current.engine.tolerated(left) >= 1;
    stands.then(|| current.members.iter().filter(|member| member.node != gone).cloned().collect())
}

/// What keeps an accused node in its seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Hindrance {
    /// Another change of the committee comes first.
    Change,
    /// No node can take the seat, and the others would not outlive a failure.
    NoNode,
}

impl Hindrance {
    /// For programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::NoNode => "no_node",
        }
    }

    /// For people: why, and what ends it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Change => "another change of the committee or the shard comes first; the seat moves behind it",
            Self::NoNode => {
                "no other node can take the seat, and the members that stay would not bear a failure; register a node, or \
                 let a member of the channel bring one"
            }
        }
    }
}

/// A seat that an accused node is to lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Removal {
    /// The node.
    pub node: NodeId,
    /// The group that it has the seat in.
    pub group: GroupId,
    /// What stands in the way; nothing when the committee without the node is being prepared.
    pub hindrance: Option<Hindrance>,
}

/// The seats that accused nodes still have, by node and group.
pub fn removals(view: &mut View<'_>) -> Vec<Removal> {
    let mut removals = Vec::new();
    let committees = registry::committees(view);
    for node in nodes(view) {
        for current in committees.iter().filter(|committee| committee.index_of(node).is_some()) {
            let hindrance = match registry::coming_of(view, current.group) {
                Some(coming) if coming.index_of(node).is_none() => None,
                Some(_) => Some(Hindrance::Change),
                None if jobs::holds(view, current.group) => Some(Hindrance::Change),
                None => Some(Hindrance::NoNode),
            };
            removals.push(Removal { node, group: current.group, hindrance });
        }
    }
    removals
}

/// What the registry holds against nodes, and which seats they still have, as of one block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Accused {
    /// Format version, [`ACCUSED_VERSION`].
    pub version: u8,
    /// The accusations, by node.
    pub accusations: Vec<Accusation>,
    /// The seats that the accused still have, by node and group.
    pub removals: Vec<Removal>,
}

impl Accused {
    /// As the beacon's state has it.
    pub fn read(view: &mut View<'_>) -> Self {
        Self { version: ACCUSED_VERSION, accusations: accusations(view), removals: removals(view) }
    }
}
