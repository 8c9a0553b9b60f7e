//! The keys that nodes sign with, and how one is replaced.
//!
//! The registry has one key for each node: the one that it has, or is about to have. Committees name the key that counts,
//! and change by the road of [`crate::seats`]: each group takes the new key, in the node's seat, at the block that delivers the
//! beacon's update, and what it has certified before is judged by the committee of then. So the two keys are in force beside
//! each other, each in some groups, until the last group has the new one.
//!
//! | | nothing under way | a group still names a key before, for less than an hour | for longer |
//! |---|---|---|---|
//! | a new key, signed for by itself | taken | refused: pending | taken |
//! | a key that some node or organisation has or a node had | refused: used | refused: used | refused: used |
//! | a key that has not signed for itself | refused: proof | refused: proof | refused: proof |
//!
//! A group without a quorum cannot take a key. It keeps the one that it knows, for what it certifies alone, and is to take the
//! newest one, whatever came in between. A closed channel is waited for by nobody: what closed it is certified, or the beacon
//! would not know of it, and a key by which it alone names a node counts for nothing else.
//!
//! Owns who may replace a key and by which, and which keys are never taken again. Moves no seat.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::crypto::{self, PublicKey, SecretKey, Signature};
use ledger::genesis::NodeInfo;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, GroupId, GroupKind, NodeId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::View;

use crate::accused;
use crate::channels;
use crate::engine;
use crate::jobs;
use crate::limits::{NODE_KEY_STANDS_MS, REPLACED_KEY_ACCUSES_MS, REPLACED_KEYS_MAX, REPLACED_KEYS_OF_ORG};
use crate::machine::{CommandOutcome, Executed, refuse_full};
use crate::nodes;
use crate::registry;
use crate::seats;

/// Version written into new [`ReplacedKey`]s.
pub const REPLACED_KEY_VERSION: u8 = 1;

/// What is left of a key that was replaced, or that is gone with its node's organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReplacedKey {
    /// Format version, [`REPLACED_KEY_VERSION`].
    pub version: u8,
    /// Whose it was.
    pub node: NodeId,
    /// The node's organisation.
    pub org: OrgId,
    /// Time of the block that replaced it.
    pub replaced_ms: TimeMs,
}

const REPLACED: &[u8] = b"replaced-key/";

/// Key of a [`ReplacedKey`].
#[must_use]
pub fn replaced_key(key: &PublicKey) -> Vec<u8> {
    registry::key(REPLACED, &[&key.0])
}

/// Whether a node has had this key, and has another one since, or is gone with its organisation.
pub fn was_replaced(view: &mut View<'_>, key: &PublicKey) -> bool {
    view.get(&replaced_key(key)).is_some()
}

/// Notes that the key of a node is never taken again.
pub(crate) fn retire(view: &mut View<'_>, at: &BlockContext, node: &NodeInfo) {
    let line = ReplacedKey { version: REPLACED_KEY_VERSION, node: node.id, org: node.org, replaced_ms: at.time_ms };
    registry::put(view, replaced_key(&node.key), &line);
}

/// What a new key signs to show that somebody has it: `sha256("seamark/node-key/v1" ‖ cluster ‖ node ‖ key before ‖ new
/// key)`, the node's number in big-endian. No key is ever taken twice, so the key before makes it good for one occasion.
#[must_use]
pub fn possession(cluster: &ClusterId, node: NodeId, before: &PublicKey, new: &PublicKey) -> Hash32 {
    tagged(b"seamark/node-key/v1", &[&cluster.0.0, &node.0.to_be_bytes(), &before.0, &new.0])
}

/// Signs [`possession`] with the new key.
#[must_use]
pub fn prove_possession(cluster: &ClusterId, node: NodeId, before: &PublicKey, new: &SecretKey) -> Signature {
    new.sign(&possession(cluster, node, before, &new.public()))
}

/// The keys that a node speaks to the beacon with: the one that the registry has, and any by which a committee in force still
/// names it, unless its group is a closed channel. Each counts until no such committee names it any more.
pub(crate) fn speaks_with(view: &mut View<'_>, node: &NodeInfo) -> Vec<PublicKey> {
    let mut keys = vec![node.key];
    for committee in registry::committees(view) {
        if let Some(at) = committee.index_of(node.id)
            && !channels::is_closed(view, committee.group)
        {
            keys.push(committee.members[at].key);
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The groups that name a node by another key than the registry, in force or prepared. A closed channel may never take the
/// new one, as its members' nodes need not run any more; nobody waits for it.
fn behind(view: &mut View<'_>, node: &NodeInfo) -> Vec<GroupId> {
    let committees = registry::committees(view).into_iter().chain(registry::coming(view));
    let old = committees
        .filter(|committee| committee.index_of(node.id).is_some_and(|at| committee.members[at].key != node.key));
    let mut groups: Vec<GroupId> = old.map(|committee| committee.group).collect();
    groups.retain(|group| !channels::is_closed(view, *group));
    groups
}

/// Whether the key that the registry has of a node took the place of another one just now: whoever can still takes it.
fn is_fresh(view: &mut View<'_>, at: &BlockContext, node: NodeId) -> bool {
    let replaced: Vec<(Vec<u8>, ReplacedKey)> = registry::family(view, &registry::key(REPLACED, &[]));
    let last = replaced.iter().filter(|(_, line)| line.node == node).map(|(_, line)| line.replaced_ms).max();
    last.is_some_and(|last| at.time_ms.0 < last.0.saturating_add(NODE_KEY_STANDS_MS))
}

/// Whether a key was replaced so long ago that two votes by it say nothing of its node, and no committee names it any more. Who
/// comes by it later can sign for any entry of the committees of then.
pub(crate) fn is_past(view: &mut View<'_>, at: &BlockContext, key: &PublicKey) -> bool {
    let Some(line) = view.load::<ReplacedKey>(&replaced_key(key)) else { return false };
    if at.time_ms.0 < line.replaced_ms.0.saturating_add(REPLACED_KEY_ACCUSES_MS) {
        return false;
    }
    let names = |committee: &Committee| committee.members.iter().any(|member| member.key == *key);
    let committees = registry::committees(view).into_iter().chain(registry::coming(view));
    let groups: Vec<GroupId> = committees.filter(names).map(|committee| committee.group).collect();
    groups.into_iter().all(|group| channels::is_closed(view, group))
}

/// Whether somebody has a key, or had it as a node.
fn is_taken(view: &mut View<'_>, key: &PublicKey) -> bool {
    was_replaced(view, key)
        || registry::nodes(view).iter().any(|node| node.key == *key)
        || registry::orgs(view).iter().any(|org| org.admin_key == *key)
        || nodes::removed(view).iter().any(|gone| gone.key == *key)
}

/// Whether every group that a node has a seat in may take a committee now. A closed channel is waited for by nobody, and one
/// that is `behind` is to take a key in any case: which one does not matter to what is prepared there.
fn refuse_changing(view: &mut View<'_>, node: NodeId, behind: &[GroupId]) -> Result<(), Reject> {
    for coming in registry::coming(view).into_iter().filter(|coming| !behind.contains(&coming.group)) {
        let seated = registry::committee(view, coming.group).is_some_and(|current| current.index_of(node).is_some());
        if (seated || coming.index_of(node).is_some()) && !channels::is_closed(view, coming.group) {
            return Err(Reject::NodeKeyBusy);
        }
    }
    for current in registry::committees(view) {
        if current.index_of(node).is_none() || channels::is_closed(view, current.group) {
            continue;
        }
        let switches = !behind.contains(&current.group) && engine::wanted(view, &current) != current.engine;
        if switches || jobs::holds(view, current.group) {
            return Err(Reject::NodeKeyBusy);
        }
        // One of the genesis keeps the committee that it began with.
        let channel = current.group.kind() == Some(GroupKind::Channel);
        if channel && view.get(&schema::founded(current.group)).is_none() {
            return Err(Reject::NodeInChannel);
        }
    }
    Ok(())
}

/// Whether one more key of an organisation may be replaced.
fn refuse_many(view: &mut View<'_>, org: OrgId) -> Result<(), Reject> {
    let replaced: Vec<(Vec<u8>, ReplacedKey)> = registry::family(view, &registry::key(REPLACED, &[]));
    let own = replaced.iter().filter(|(_, line)| line.org == org).count();
    let first_come = replaced.len() < REPLACED_KEYS_MAX / 2;
    if first_come || (own < REPLACED_KEYS_OF_ORG && replaced.len() < REPLACED_KEYS_MAX) {
        return Ok(());
    }
    Err(Reject::Registry)
}

/// Replaces the key of a node, and prepares committees that name it by the new one.
///
/// # Errors
/// [`Reject`]: there is no such node of the signer's, the key is taken or has not signed for itself, the one before was
/// replaced less than [`NODE_KEY_STANDS_MS`] ago and a group still names it, something is held against the node, or a group of
/// it is being changed. The view is then unchanged.
pub(crate) fn rotate(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    id: NodeId,
    (key, signature): (PublicKey, Signature),
) -> Result<Executed, Reject> {
    if nodes::removed(view).iter().any(|gone| gone.node == id) {
        return Err(Reject::NodeGone);
    }
    let node = nodes::own(view, signer, id)?;
    if is_taken(view, &key) {
        return Err(Reject::NodeKeyUsed);
    }
    // What is no point of the curve has signed nothing.
    crypto::verify(&key, &possession(&at.cluster, id, &node.key, &key), &signature)
        .map_err(|_| Reject::NodeKeyProof)?;
    let behind = behind(view, &node);
    if !behind.is_empty() && is_fresh(view, at, id) {
        return Err(Reject::NodeKeyPending);
    }
    if accused::nodes(view).contains(&id) {
        return Err(Reject::NodeKeyHeld);
    }
    refuse_changing(view, id, &behind)?;
    refuse_many(view, signer)?;
    refuse_full(view)?;
    retire(view, at, &node);
    registry::put(view, registry::node_key(id), &NodeInfo { key, ..node });
    let mail = seats::go_on(view);
    registry::bump_revision(view);
    Ok(Executed { mail, ..CommandOutcome::Applied.into() })
}
