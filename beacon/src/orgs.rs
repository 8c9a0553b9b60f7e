//! Organisations that join the cluster and that leave it: proposals which more than half of the organisations have
//! to send, or those whom the policy of [`Matter::Orgs`] asks.
//!
//! Owns whose approval counts, what may hang on an organisation that is to go, and what is left of it: its number
//! and those of its nodes, which nobody gets again. Moves no seat: whoever goes has none, but for those in channels that are
//! closed, which go on with their other members' nodes, and in channels that have nobody else, which end with it.

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::committee::Committee;
use ledger::genesis::{NodeInfo, OrgInfo};
use ledger::hash::{Hash32, sha256, tagged};
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::arrivals;
use crate::channels::{self, ChannelEntry};
use crate::extract;
use crate::genesis::org_form;
use crate::jobs;
use crate::keys;
use crate::limits::{ORGS_MAX, REMOVED_ORGS_MAX};
use crate::machine::{CommandOutcome, Executed, refuse_full};
use crate::majority::{self, Proposal, Verdict};
use crate::policies::book::Asked;
use crate::policies::{self, Matter};
use crate::registry;
use crate::seats;
use crate::watch;

/// What is left of an organisation that is gone.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Removed {
    /// Format version, 1.
    pub version: u8,
    /// What it was called.
    pub name: String,
    /// The nodes that it had, ascending.
    pub nodes: Vec<NodeId>,
    /// Time of the block that removed it.
    pub removed_ms: TimeMs,
}

const PROPOSAL: &[u8] = b"proposal/";
const REMOVAL: &[u8] = b"removal/";
const REMOVED: &[u8] = b"gone/";

/// Key of a [`Removed`].
#[must_use]
pub fn removed_key(org: OrgId) -> Vec<u8> {
    registry::key(REMOVED, &[&org.0.to_be_bytes()])
}

/// An organisation that is gone.
pub fn removed(view: &mut View<'_>, org: OrgId) -> Option<Removed> {
    view.load(&removed_key(org))
}

fn all_removed(view: &mut View<'_>) -> Vec<(Vec<u8>, Removed)> {
    registry::family(view, &registry::key(REMOVED, &[]))
}

/// Whether a node was one of an organisation that is gone.
pub(crate) fn was_removed(view: &mut View<'_>, node: NodeId) -> bool {
    all_removed(view).iter().any(|(_, removed)| removed.nodes.binary_search(&node).is_ok())
}

/// What waits about organisations: what is asked for, until when, and who has approved.
pub(crate) fn waiting(view: &mut View<'_>) -> Vec<(Asked, TimeMs, Vec<OrgId>)> {
    let (admissions, removals) = (registry::key(PROPOSAL, &[]), registry::key(REMOVAL, &[]));
    let admitted: Vec<(Vec<u8>, Proposal<OrgInfo>)> = registry::family(view, &admissions);
    let removed: Vec<(Vec<u8>, Proposal<()>)> = registry::family(view, &removals);
    let admitted = admitted.into_iter().map(|(_, found)| {
        let asked = Asked::Admit { org: found.asked.id, name: found.asked.name };
        (asked, found.until_ms, found.approvals)
    });
    let removed = removed.into_iter().filter_map(|(key, found)| {
        let id: [u8; 2] = key.get(removals.len()..)?.try_into().ok()?;
        Some((Asked::Remove(OrgId(u16::from_be_bytes(id))), found.until_ms, found.approvals))
    });
    admitted.chain(removed).collect()
}

/// Counts the signer's approval of a new organisation; the one with which the policy holds admits it.
///
/// # Errors
/// [`Reject::Registry`] when its number or name is taken, or was, or something in it cannot be used;
/// [`Reject::PolicyBlocks`] when a policy could not be satisfied with it; [`Reject::PolicyNotAsked`] when the policy does
/// not ask the signer; [`Reject::Busy`] when too many proposals wait.
pub(crate) fn register(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: &OrgInfo,
    org: OrgInfo,
    until_ms: TimeMs,
) -> Result<CommandOutcome, Reject> {
    let orgs = registry::orgs(view);
    let clash = orgs.iter().any(|known| known.id == org.id || known.name == org.name);
    if clash || removed(view, org.id).is_some() || orgs.len() >= ORGS_MAX || !org_form(&org) {
        return Err(Reject::Registry);
    }
    policies::bear(view, orgs.iter().map(|known| known.id).chain([org.id]).collect())?;
    let name: Hash32 = tagged(b"seamark/proposal/v1", &[&registry::encode(&org)]);
    let proposal = (Matter::Orgs, PROPOSAL, registry::key(PROPOSAL, &[&name.0]));
    match majority::approve(view, at, proposal, org.clone(), (signer.id, until_ms))? {
        Verdict::Waits(pending) => return Ok(pending),
        Verdict::Decided(decided) => decided.close(view, |_| false),
    }
    registry::put(view, registry::org_key(org.id), &org);
    registry::bump_revision(view);
    Ok(CommandOutcome::Applied)
}

/// Counts the signer's approval that an organisation goes; the one with which the policy holds takes it out, with all its
/// nodes. The organisation is one of those that are counted, and may approve like any other.
///
/// # Errors
/// [`Reject::Registry`] when there is no such organisation or no other one, or too many are gone already;
/// [`Reject::OrgInChannels`], [`Reject::OrgAlone`] and [`Reject::OrgSeated`] while something hangs on it;
/// [`Reject::PolicyBlocks`] when a policy could not be satisfied without it; [`Reject::PolicyNotAsked`] when the policy does
/// not ask the signer; [`Reject::Busy`] when too many proposals wait; [`Reject::PeerBusy`] while a group does not take its
/// mail.
pub(crate) fn remove(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: &OrgInfo,
    id: OrgId,
    until_ms: TimeMs,
) -> Result<Executed, Reject> {
    let orgs = registry::orgs(view);
    let org = orgs.iter().find(|org| org.id == id).filter(|_| orgs.len() > 1).ok_or(Reject::Registry)?;
    if all_removed(view).len() >= REMOVED_ORGS_MAX {
        return Err(Reject::Registry);
    }
    policies::bear(view, orgs.iter().map(|known| known.id).filter(|known| *known != id).collect())?;
    let ends = may_go(view, signer.id, id)?;
    let removal = (Matter::Orgs, REMOVAL, registry::key(REMOVAL, &[&id.0.to_be_bytes()]));
    let decided = match majority::approve(view, at, removal, (), (signer.id, until_ms))? {
        Verdict::Waits(pending) => return Ok(pending.into()),
        Verdict::Decided(decided) => decided,
    };
    refuse_full(view)?;
    decided.close(view, |_| false);
    let mail = take_out(view, at, org, ends);
    Ok(Executed { mail, ..CommandOutcome::Applied.into() })
}

/// Whether nothing hangs on an organisation. A group in which it has no seat loses nothing with it, neither now nor
/// with one failure more; taking its seats is draining it, which is refused where a group would. A closed channel keeps
/// nobody, since nobody can leave it, and one of which it is the only member keeps it from going of its own accord alone:
/// it can close that one, the others cannot, and nobody may hold its removal up by not doing so. Returns the channels that end
/// with it.
fn may_go(view: &mut View<'_>, signer: OrgId, id: OrgId) -> Result<Vec<ChannelEntry>, Reject> {
    let (closed, open): (Vec<ChannelEntry>, Vec<ChannelEntry>) =
        channels::directory(view).into_iter().partition(ChannelEntry::is_closed);
    let (ends, shared): (Vec<ChannelEntry>, Vec<ChannelEntry>) =
        open.into_iter().filter(|entry| entry.shown.members.contains(&id)).partition(|one| one.shown.members == [id]);
    if !shared.is_empty() {
        return Err(Reject::OrgInChannels);
    }
    if signer == id && !ends.is_empty() {
        return Err(Reject::OrgAlone);
    }
    let free: Vec<GroupId> = closed.iter().chain(&ends).map(|entry| entry.group).collect();
    let seated = |committee: &Committee| {
        !free.contains(&committee.group) && committee.members.iter().any(|member| member.org == id)
    };
    let in_force = registry::committees(view).iter().any(seated);
    if in_force || registry::coming(view).iter().any(seated) {
        return Err(Reject::OrgSeated);
    }
    Ok(ends)
}

/// Takes an organisation out of the registry, with its nodes. From this block on nobody vouches for its certificates,
/// and no door that follows the registry lets them in. Its admin key is revoked besides, for a channel that had taken
/// it in and that the beacon has not heard of yet. Returns what is to be mailed: closed channels go on without its nodes.
fn take_out(view: &mut View<'_>, at: &BlockContext, org: &OrgInfo, ends: Vec<ChannelEntry>) -> Vec<(GroupId, Message)> {
    let nodes: Vec<NodeInfo> = registry::nodes(view).into_iter().filter(|node| node.org == org.id).collect();
    for node in &nodes {
        registry::remove(view, registry::node_key(node.id));
        keys::retire(view, at, node);
        arrivals::forget(view, node.id);
        watch::forget(view, node.id);
        jobs::report::forget_node(view, node.id);
    }
    registry::remove(view, registry::org_key(org.id));
    extract::forget(view, org.id);
    extract::revoke(view, org.id, &sha256(&org.admin_key.0));
    let removed = Removed {
        version: 1,
        name: org.name.clone(),
        nodes: nodes.iter().map(|node| node.id).collect(),
        removed_ms: at.time_ms,
    };
    registry::put(view, removed_key(org.id), &removed);
    let mut mail = Vec::new();
    for entry in ends {
        mail.extend(channels::end(view, entry));
    }
    mail.extend(seats::go_on(view));
    registry::bump_revision(view);
    mail
}
