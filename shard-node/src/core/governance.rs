//! A channel's governance within the composed machine: what of the group's state it goes by, what it
//! takes from the beacon, and what it shows of itself.
//!
//! Owns no rule: those of members and policies are the crate `channel`'s. Everything handed to them
//! comes from replicated state.

use channel::lifecycle::Deed;
use channel::state::{self, MemberRecord};
use channel::{
    ChannelReject, CheckedCommand, Explanation, Phase, Refusal, Registry, RegistryNode, RegistryOrg, Surroundings,
    UnderWay, follow,
};
use cross_shard::notice::{CHANNEL_UPDATE_VERSION, ChannelStatus, ChannelUpdate, RegistryUpdate};
use cross_shard::stream;
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId, OrgId, TimeMs};
use ledger::limits::SWEEP_MAX;
use ledger::machine::{BlockContext, ReadSet};
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::View;

/// The registry as the beacon's mail has brought it to this channel.
struct Followed(RegistryUpdate);

impl Registry for Followed {
    fn org(&self, org: OrgId) -> Option<RegistryOrg> {
        let entry = self.0.org(org)?;
        Some(RegistryOrg { name: entry.name.clone(), admin_key: entry.admin_key })
    }

    fn node(&self, node: NodeId) -> Option<RegistryNode> {
        let entry = self.0.node(node)?;
        Some(RegistryNode { org: entry.org, key: entry.key })
    }
}

/// What became of a command: what names it, and the channel's verdict.
pub(crate) type Verdict = (Hash32, Result<channel::Outcome, Refusal>);

/// Executes a command on the governance of this channel.
///
/// # Errors
/// [`Reject`] when the bytes name no command, or nothing that a channel could judge is there.
pub(crate) fn execute(view: &mut View<'_>, at: &BlockContext, bytes: &[u8]) -> Result<Verdict, Reject> {
    let command = match CheckedCommand::check(bytes, &at.cluster, at.group) {
        Ok(command) => command,
        Err(ChannelReject::TooLarge) => return Err(Reject::BodyTooLarge),
        Err(ChannelReject::WrongCluster) => return Err(Reject::WrongCluster),
        Err(ChannelReject::WrongChannel) => return Err(Reject::UnknownGroup),
        Err(ChannelReject::BadSignature) => return Err(Reject::BadSignature),
        Err(_) => return Err(Reject::Malformed),
    };
    let committee: Committee = view.load(&schema::current_committee(at.group)).ok_or(Reject::UnknownGroup)?;
    let registry = Followed(view.load(&schema::registry_extract()).unwrap_or_default());
    let under_way = under_way(view);
    let around = Surroundings { registry: &registry, committee: &committee, under_way };
    Ok((command.digest(), channel::execute_checked(view, at, &around, &command)))
}

/// Keys that a command will probably read.
pub(super) fn read_set(bytes: &[u8], group: GroupId) -> ReadSet {
    let Ok(signed) = borsh::from_slice::<channel::SignedCommand>(bytes) else { return Vec::new() };
    let Ok(command) = CheckedCommand::check(bytes, &signed.cluster, group) else { return Vec::new() };
    let mut keys = channel::read_set(&command);
    keys.push(schema::registry_extract());
    keys.push(schema::current_committee(group));
    keys
}

/// What a proposal waits for, by the state after this block; `None` where there is no such proposal, or no channel.
pub(crate) fn explain(
    view: &mut View<'_>,
    group: GroupId,
    (height, time_ms): (Height, TimeMs),
    id: &Hash32,
) -> Option<Explanation> {
    let cluster = state::channel(view)?.cluster;
    let committee: Committee = view.load(&schema::current_committee(group))?;
    let registry = Followed(view.load(&schema::registry_extract()).unwrap_or_default());
    let under_way = under_way(view);
    let around = Surroundings { registry: &registry, committee: &committee, under_way };
    channel::explain(view, &BlockContext { cluster, group, height, time_ms }, &around, id)
}

/// What keeps a channel from being closed. More than a block looks after at once is not counted on.
fn under_way(view: &mut View<'_>) -> UnderWay {
    // Whatever is prepared and not dropped has one deadline at which it is looked at again.
    let registers = view.first_keys(&[schema::DEADLINE], &[schema::DEADLINE], SWEEP_MAX).len() as u64;
    let streams = stream::outbox_leaves(view);
    let mail = streams.iter().map(|leaf| stream::out_stream(view, leaf.peer).pending()).sum();
    UnderWay { registers, mail }
}

/// Why the channel takes no new transactions at present, if it does not.
pub(super) fn barred(view: &mut View<'_>) -> Option<Reject> {
    let phase = state::channel(view).map(|channel| channel.phase);
    match phase.map_or(Err(ChannelReject::NotRunning), |phase| phase.allows(Deed::Write)) {
        Ok(()) => None,
        Err(ChannelReject::Frozen) => Some(Reject::ChannelFrozen),
        Err(ChannelReject::Closing) => Some(Reject::ChannelClosing),
        Err(ChannelReject::Closed) => Some(Reject::ChannelClosed),
        Err(_) => Some(Reject::UnknownGroup),
    }
}

/// Takes over what the beacon says of the registry. New admin keys come first: of an organisation
/// that has replaced its key, one is always there. One whose last admin key in the channel was revoked has that of the
/// registry. A key that is not new changes nothing, since its
/// organisation may have replaced it in the channel; the first update is of the block that founded the
/// channel, so it has none that the charter has not.
pub(super) fn follow(view: &mut View<'_>, at: &BlockContext, update: RegistryUpdate) {
    if let Some(known) = view.load::<RegistryUpdate>(&schema::registry_extract()) {
        for entry in &update.orgs {
            if known.org(entry.org).is_none_or(|before| before.admin_key != entry.admin_key) {
                follow::apply_admin_key(view, entry.org, &entry.admin_key);
            }
        }
        for entry in &update.nodes {
            if known.node(entry.node).is_some_and(|before| before.key != entry.key) {
                follow::apply_node_key(view, entry.org, entry.node, &entry.key);
            }
        }
    }
    for (org, credential) in &update.revoked {
        follow::apply_revocation(view, at, *org, credential);
    }
    for (org, _) in &update.revoked {
        if let Some(entry) = update.org(*org) {
            follow::keep_an_admin(view, *org, &entry.admin_key);
        }
    }
    // What was revoked is in the channel's own leaves now.
    view.store(schema::registry_extract(), &RegistryUpdate { revoked: Vec::new(), ..update });
}

/// What the channel shows of itself to the beacon; nothing in a group that is no channel.
pub(super) fn shown(view: &mut View<'_>) -> Option<ChannelUpdate> {
    let channel = state::channel(view)?;
    let status = match channel.phase {
        Phase::Running => ChannelStatus::Running,
        Phase::Frozen => ChannelStatus::Frozen,
        Phase::Closing => ChannelStatus::Closing,
        Phase::Closed => ChannelStatus::Closed,
        // A group starts when its channel runs.
        Phase::Proposed | Phase::Approved | Phase::Abandoned => return None,
    };
    let members = state::members(view);
    let sorted = |of: &dyn Fn(&MemberRecord) -> Vec<NodeId>| {
        let mut nodes: Vec<NodeId> = members.iter().flat_map(of).collect();
        nodes.sort_unstable();
        nodes
    };
    Some(ChannelUpdate {
        version: CHANNEL_UPDATE_VERSION,
        members: members.iter().map(|member| member.org).collect(),
        nodes: sorted(&|member| member.nodes.iter().map(|node| node.node).collect()),
        anchors: sorted(&|member| member.anchors.clone()),
        status,
        engine: channel.engine,
    })
}

/// Does something that may change what the channel shows, and tells the beacon if it did.
pub(super) fn and_tell<T>(view: &mut View<'_>, work: impl FnOnce(&mut View<'_>) -> T) -> T {
    let before = shown(view);
    let result = work(view);
    if let Some(after) = shown(view).filter(|after| before.as_ref() != Some(after)) {
        stream::emit(view, GroupId::BEACON, cross_shard::Message::ChannelUpdate(after).encode());
    }
    result
}

#[cfg(test)]
#[path = "governance_tests.rs"]
mod tests;
