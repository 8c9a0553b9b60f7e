//! Nodes that come and go: one that joins takes seats of others, one that is replaced gives its seats to its successor, and
//! one that leaves is struck off once it has none.
//!
//! Owns who may ask for that, and what is left of a node that is gone: its number and its key, which nobody gets again.
//! Who takes which seat is for [`crate::seats`] and [`crate::arrivals`].

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::committee::Committee;
use ledger::crypto::PublicKey;
use ledger::genesis::NodeInfo;
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::accused;
use crate::arrivals;
use crate::channels;
use crate::jobs;
use crate::limits::REMOVED_NODES_MAX;
use crate::machine::{CommandOutcome, Executed, refuse_full};
use crate::orgs;
use crate::registry;
use crate::seating::{self, Seating};
use crate::seats;
use crate::watch::{self, Silent, Vanished, Watch, WatchNote};

/// Version written into new [`RemovedNode`]s.
pub const REMOVED_NODE_VERSION: u8 = 1;
/// Version written into [`NodeLives`].
pub const NODE_LIVES_VERSION: u8 = 2;

/// What is left of a node that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RemovedNode {
    /// Format version, [`REMOVED_NODE_VERSION`].
    pub version: u8,
    /// Its number.
    pub node: NodeId,
    /// Whose it was.
    pub org: OrgId,
    /// The key that it signed headers with.
    pub key: PublicKey,
    /// Time of the block that struck it off.
    pub removed_ms: TimeMs,
}

const REMOVED: &[u8] = b"gone-node/";

/// Key of a [`RemovedNode`].
#[must_use]
pub fn removed_key(node: NodeId) -> Vec<u8> {
    registry::key(REMOVED, &[&node.0.to_be_bytes()])
}

/// The nodes that were struck off one by one, by number. Those of an organisation that is gone are in its
/// [`orgs::Removed`].
pub fn removed(view: &mut View<'_>) -> Vec<RemovedNode> {
    registry::family(view, &registry::key(REMOVED, &[])).into_iter().map(|(_, removed)| removed).collect()
}

/// Whether a node has the number or the key of one that is gone.
pub(crate) fn was_removed(view: &mut View<'_>, node: &NodeInfo) -> bool {
    let same = |gone: &RemovedNode| gone.node == node.id || gone.key == node.key;
    orgs::was_removed(view, node.id) || removed(view).iter().any(same)
}

/// Nodes that take no seat, whatever their capacity, and lose those that they have: they were shown to have voted twice, or
/// have vanished.
pub(crate) fn barred(view: &mut View<'_>) -> Vec<NodeId> {
    let mut barred = accused::nodes(view);
    barred.extend(watch::replaced(view));
    barred.sort_unstable();
    barred.dedup();
    barred
}

/// A node of the organisation that signs.
pub(crate) fn own(view: &mut View<'_>, signer: OrgId, id: NodeId) -> Result<NodeInfo, Reject> {
    let node = registry::node(view, id).ok_or(Reject::NodeUnknown)?;
    if node.org == signer { Ok(node) } else { Err(Reject::NotAuthorised) }
}

fn takes_seats(view: &mut View<'_>, node: &NodeInfo) -> bool {
    node.capacity > 0 && !barred(view).contains(&node.id)
}

/// Has a node take its share of the seats, a few at a time.
///
/// # Errors
/// [`Reject`]: there is no such node of the signer's, it takes no seats, or whoever would give it one is in a group that
/// would come to stand on too few. The view is then unchanged.
pub(crate) fn join(view: &mut View<'_>, at: &BlockContext, signer: OrgId, id: NodeId) -> Result<Executed, Reject> {
    let node = own(view, signer, id)?;
    if !takes_seats(view, &node) {
        return Err(Reject::NodeDrained);
    }
    arrivals::refuse_at_risk(view, at.time_ms, id)?;
    refuse_full(view)?;
    arrivals::begin(view, id, at.time_ms);
    let mail = seats::go_on(view);
    registry::bump_revision(view);
    Ok(Executed { mail, ..CommandOutcome::Applied.into() })
}

/// Gives the seats of a node to another one of its organisation, in one plan for all groups.
///
/// # Errors
/// [`Reject`]: one of them is not the signer's, the other one may not take the seats, a channel names the first, or a group
/// would come to stand on too few. The view is then unchanged.
pub(crate) fn replace(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    (old, new): (NodeId, NodeId),
) -> Result<Executed, Reject> {
    let gone = own(view, signer, old)?;
    let successor = own(view, signer, new)?;
    if old == new || !takes_seats(view, &successor) {
        return Err(Reject::NodeSuccessor);
    }
    if named_by_channel(view, old) {
        return Err(Reject::NodeInChannel);
    }
    watch::refuse_at_risk(view, at.time_ms, old)?;
    refuse_full(view)?;
    let drained = NodeInfo { capacity: 0, ..gone };
    // Whether all seats can be taken does not depend on by whom.
    seats::check_capacity(view, &drained)?;
    arrivals::name_successor(view, old, new);
    let mail = seats::change_capacity(view, drained)?;
    registry::bump_revision(view);
    Ok(Executed { mail, ..CommandOutcome::Applied.into() })
}

/// A node that has capacity again: nobody takes its seats in its place, and it has not vanished. Returns what is to be
/// mailed.
pub(crate) fn stays(view: &mut View<'_>, node: NodeId) -> Vec<(GroupId, Message)> {
    let out = arrivals::successors(view).contains_key(&node) || watch::replaced(view).contains(&node);
    arrivals::forget_successor(view, node);
    watch::forget(view, node);
    if out { seats::go_on(view) } else { Vec::new() }
}

/// Whether a channel names the node whose members can name another one.
fn named_by_channel(view: &mut View<'_>, node: NodeId) -> bool {
    channels::directory(view).iter().any(|entry| !entry.is_closed() && entry.shown.nodes.contains(&node))
}

/// Strikes a node off that has no seat. From this block on no other node lets it in, and neither its number nor its key is
/// given again.
///
/// # Errors
/// [`Reject`]: there is no such node of the signer's, or it is not free to go. The view is then unchanged.
pub(crate) fn remove(view: &mut View<'_>, at: &BlockContext, signer: OrgId, id: NodeId) -> Result<(), Reject> {
    let removed = removed(view);
    if removed.iter().any(|gone| gone.node == id) {
        return Err(Reject::NodeGone);
    }
    let node = own(view, signer, id)?;
    let seated = |committee: &Committee| committee.index_of(id).is_some();
    if registry::committees(view).iter().any(seated) || registry::coming(view).iter().any(seated) {
        return Err(Reject::NodeSeated);
    }
    if named_by_channel(view, id) {
        return Err(Reject::NodeInChannel);
    }
    if removed.len() >= REMOVED_NODES_MAX {
        return Err(Reject::Registry);
    }
    registry::remove(view, registry::node_key(id));
    let gone =
        RemovedNode { version: REMOVED_NODE_VERSION, node: id, org: node.org, key: node.key, removed_ms: at.time_ms };
    registry::put(view, removed_key(id), &gone);
    arrivals::forget(view, id);
    watch::forget(view, id);
    jobs::report::forget_node(view, id);
    registry::bump_revision(view);
    Ok(())
}

/// What the registry holds about the coming and going of nodes, beside their entries, as of one block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NodeLives {
    /// Format version, [`NODE_LIVES_VERSION`].
    pub version: u8,
    /// The committees in force, by group.
    pub committees: Vec<Committee>,
    /// Those that are being prepared, by group.
    pub coming: Vec<Committee>,
    /// Nodes that are taking seats of others, ascending.
    pub arriving: Vec<NodeId>,
    /// Nodes that are replaced, and by whom.
    pub successors: Vec<(NodeId, NodeId)>,
    /// Nodes that were shown to have voted twice, ascending.
    pub accused: Vec<NodeId>,
    /// Nodes that were struck off one by one, by number.
    pub removed: Vec<RemovedNode>,
    /// What is done about nodes that vanish.
    pub watch: Watch,
    /// Who has not heard of whom.
    pub silent: Vec<Silent>,
    /// Nodes that have vanished, ascending.
    pub vanished: Vec<Vanished>,
    /// What was decided about such nodes, the latest last.
    pub notes: Vec<WatchNote>,
    /// Why each node has its seats, by group.
    pub seats: Vec<Seating>,
}

impl NodeLives {
    /// As the beacon's state has it.
    pub fn read(view: &mut View<'_>) -> Self {
        let successors: BTreeMap<NodeId, NodeId> = arrivals::successors(view);
        Self {
            version: NODE_LIVES_VERSION,
            committees: registry::committees(view),
            coming: registry::coming(view),
            arriving: arrivals::arriving(view),
            successors: successors.into_iter().collect(),
            accused: accused::nodes(view),
            removed: removed(view),
            watch: watch::policy(view),
            silent: watch::silences(view),
            vanished: watch::vanished(view),
            notes: watch::notes(view),
            seats: seating::read(view),
        }
    }
}
