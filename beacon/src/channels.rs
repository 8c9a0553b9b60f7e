//! Channels in the beacon: foundings until they are decided, and afterwards a directory of what each
//! channel shows of itself.
//!
//! Keeps [`channel::Founding`]s, carries out what organisations say about them, and hands the charter
//! of one that is decided to [`settle`], the one place in which a group comes into being. Never learns
//! what happens in a channel: the directory has what a [`ChannelUpdate`] brings, and nothing else. Of what a channel
//! is to go by, a founding has a hash alone. Channels that are not closed count, for the cluster and for who proposed
//! them; a closed one is kept and counts no more.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use channel::{
    ChannelReject, Charter, Founding, FoundingAct, Hosting, Phase, Promise, Refusal, Registry, RegistryNode,
    RegistryOrg, Terms,
};
use cross_shard::message::Message;
use cross_shard::notice::{
    ANCHORS_UPDATE_VERSION, AnchorsUpdate, CHANNEL_UPDATE_VERSION, ChannelStatus, ChannelUpdate,
};
use cross_shard::stream;
use ledger::committee::{Committee, Engine};
use ledger::foundation::{FOUNDATION_VERSION, Foundation};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, NodeId, OrgId, TimeMs};
use ledger::limits::COMMITTEE_MAX;
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::View;

use crate::extract;
use crate::limits::{
    CHANNELS_EVER_MAX, CHANNELS_MAX, CHANNELS_PER_ORG_MAX, CLOSED_MAIL_MAX, FOUNDINGS_PER_ORG_MAX, ORGS_MAX,
};
use crate::machine::{CommandOutcome, Executed, Refused, refuse_full};
use crate::registry;
use crate::seats;

const FOUNDING: &[u8] = b"channel-founding/";
const CHANNEL: &[u8] = b"channel/";
const PROPOSER: &[u8] = b"channel-proposer/";

/// A channel's entry in the directory.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChannelEntry {
    /// Format version, 1.
    pub version: u8,
    /// The channel's group.
    pub group: GroupId,
    /// Name for people, given once.
    pub name: String,
    /// The founding that it was started by.
    pub founding: Hash32,
    /// What it showed of itself last.
    pub shown: ChannelUpdate,
}

impl ChannelEntry {
    /// Whether it is read only, for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shown.status == ChannelStatus::Closed
    }
}

/// Key of a founding.
#[must_use]
pub fn founding_key(id: &Hash32) -> Vec<u8> {
    registry::key(FOUNDING, &[&id.0])
}

/// Key of a [`ChannelEntry`].
#[must_use]
pub fn channel_key(group: GroupId) -> Vec<u8> {
    registry::key(CHANNEL, &[&group.0.to_be_bytes()])
}

/// Key of the organisation that proposed a channel, an [`OrgId`]: it counts to that one's share.
#[must_use]
pub fn proposer_key(group: GroupId) -> Vec<u8> {
    registry::key(PROPOSER, &[&group.0.to_be_bytes()])
}

/// The foundings that are kept: open ones, and decided ones until their deadline.
pub fn foundings(view: &mut View<'_>) -> Vec<Founding> {
    registry::family(view, &registry::key(FOUNDING, &[])).into_iter().map(|(_, founding)| founding).collect()
}

/// The directory, by group.
pub fn directory(view: &mut View<'_>) -> Vec<ChannelEntry> {
    registry::family(view, &registry::key(CHANNEL, &[])).into_iter().map(|(_, entry)| entry).collect()
}

/// Whether a group is a channel that is closed.
pub(crate) fn is_closed(view: &mut View<'_>, group: GroupId) -> bool {
    view.load::<ChannelEntry>(&channel_key(group)).is_some_and(|entry| entry.is_closed())
}

/// Whether a group is a closed channel that takes no mail: whose nodes have gone, it may be. It is told nothing more.
fn is_left(view: &mut View<'_>, group: GroupId) -> bool {
    is_closed(view, group) && stream::out_stream(view, group).pending() >= CLOSED_MAIL_MAX
}

/// How many channels are not closed that an organisation has proposed.
fn proposed_by(view: &mut View<'_>, org: OrgId) -> usize {
    let mut entries = directory(view);
    entries.retain(|entry| !entry.is_closed());
    let mut by = |group: GroupId| view.load::<OrgId>(&proposer_key(group));
    entries.into_iter().filter(|entry| by(entry.group) == Some(org)).count()
}

/// The charter that a channel started from.
pub fn charter(view: &mut View<'_>, group: GroupId) -> Option<Charter> {
    let foundation: Foundation = view.load(&registry::foundation_key(group))?;
    borsh::from_slice(&foundation.charter).ok()
}

/// Organisations and nodes as foundings look them up.
struct Known {
    orgs: BTreeMap<OrgId, RegistryOrg>,
    nodes: BTreeMap<NodeId, RegistryNode>,
}

impl Known {
    fn read(view: &mut View<'_>) -> Self {
        let org = |org: ledger::genesis::OrgInfo| (org.id, RegistryOrg { name: org.name, admin_key: org.admin_key });
        let node = |node: ledger::genesis::NodeInfo| (node.id, RegistryNode { org: node.org, key: node.key });
        Self {
            orgs: registry::orgs(view).into_iter().map(org).collect(),
            nodes: registry::nodes(view).into_iter().map(node).collect(),
        }
    }
}

impl Registry for Known {
    fn org(&self, org: OrgId) -> Option<RegistryOrg> {
        self.orgs.get(&org).cloned()
    }

    fn node(&self, node: NodeId) -> Option<RegistryNode> {
        self.nodes.get(&node).copied()
    }
}

/// What a proposer states.
pub(crate) struct Proposed {
    pub terms: Terms,
    /// In place of policies of its own.
    pub promise: Promise,
    pub hosting: Hosting,
    pub until_ms: TimeMs,
    pub salt: [u8; 16],
}

/// Proposes a channel. Foundings past their deadline are forgotten on this occasion.
pub(crate) fn propose(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    proposed: Proposed,
) -> Result<Executed, Refused> {
    let Proposed { terms, promise, hosting, until_ms, salt } = proposed;
    let (past, kept): (Vec<Founding>, Vec<Founding>) =
        foundings(view).into_iter().partition(|founding| founding.until_ms < at.time_ms);
    // Those that founded a channel are counted with the channels.
    let counts = |founding: &&Founding| founding.proposer == signer && founding.phase != Phase::Running;
    if kept.iter().filter(counts).count() >= FOUNDINGS_PER_ORG_MAX {
        return Err(Refusal::from(ChannelReject::ProposalsFull).into());
    }
    let waits = |founding: &&Founding| founding.proposer == signer && founding.phase_at(at.time_ms) == Phase::Proposed;
    if kept.iter().filter(waits).count() + proposed_by(view, signer) >= CHANNELS_PER_ORG_MAX {
        return Err(Reject::ChannelShare.into());
    }
    let open = kept.iter().filter(|founding| founding.phase_at(at.time_ms) == Phase::Proposed);
    let mut names = open.map(|founding| founding.terms.name.clone()).collect::<Vec<_>>();
    names.extend(directory(view).into_iter().map(|entry| entry.name));
    if names.contains(&terms.name) {
        return Err(Refusal::because(ChannelReject::FoundingForm, "another channel has this name").into());
    }
    let known = Known::read(view);
    let (cluster, now) = (&at.cluster, at.time_ms);
    let founding = Founding::propose_sealed(cluster, terms, promise, signer, hosting, until_ms, &salt, &known, now)?;
    if kept.iter().any(|other| other.id == founding.id) {
        return Err(Refusal::from(ChannelReject::NoChange).into());
    }
    let executed = conclude(view, at, founding, &known)?;
    past.iter().for_each(|founding| registry::remove(view, founding_key(&founding.id)));
    Ok(executed)
}

/// An organisation's word on a founding.
pub(crate) fn act(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    id: &Hash32,
    act: &FoundingAct,
) -> Result<Executed, Refused> {
    let founding: Founding = view.load(&founding_key(id)).ok_or(Refusal::from(ChannelReject::ProposalUnknown))?;
    let known = Known::read(view);
    let founding = founding.act(signer, act, &known, at.time_ms)?;
    conclude(view, at, founding, &known)
}

/// Keeps a founding as it is now, and starts the channel if it is decided. Whatever may refuse comes
/// before the first write.
fn conclude(view: &mut View<'_>, at: &BlockContext, founding: Founding, known: &Known) -> Result<Executed, Refused> {
    let id = founding.id;
    if founding.phase != Phase::Approved {
        registry::put(view, founding_key(&id), &founding);
        return Ok(CommandOutcome::Founding { id, phase: founding.phase }.into());
    }
    let ordinal = registry::channels(view);
    if ordinal as usize >= CHANNELS_EVER_MAX {
        return Err(Reject::ChannelsSpent.into());
    }
    if directory(view).iter().filter(|entry| !entry.is_closed()).count() >= CHANNELS_MAX {
        return Err(Reject::ChannelsFull.into());
    }
    refuse_full(view)?;
    let group = GroupId::channel(ordinal);
    let (founding, charter) = founding.start(&at.cluster, group, known, at.time_ms)?;
    let foundation = Foundation {
        version: FOUNDATION_VERSION,
        group,
        charter: borsh::to_vec(&charter).expect("writing to memory does not fail"),
        members: charter.members.iter().map(|member| member.org).collect(),
        committee: charter.committee(),
        beacon_committee: registry::certifying(view, at.height).ok_or(Reject::Registry)?,
        layout: registry::layout(view).ok_or(Reject::Registry)?,
        founded_ms: at.time_ms,
        beacon_height: at.height,
    };
    if !foundation.well_formed() {
        return Err(Refusal::because(ChannelReject::FoundingForm, "the charter").into());
    }
    let committees = vec![foundation.committee.clone()];
    registry::put(view, founding_key(&id), &founding);
    registry::put(view, channel_key(group), &entry_of(&charter));
    registry::put(view, proposer_key(group), &founding.proposer);
    let mail = settle(view, &foundation);
    registry::bump_revision(view);
    Ok(Executed { outcome: CommandOutcome::Founded { id, group }, mail, committees })
}

/// What the directory says of a channel that starts.
fn entry_of(charter: &Charter) -> ChannelEntry {
    let mut nodes: Vec<NodeId> =
        charter.members.iter().flat_map(|member| member.nodes.iter().map(|node| node.node)).collect();
    let mut anchors: Vec<NodeId> = charter.members.iter().flat_map(|member| member.anchors.clone()).collect();
    nodes.sort_unstable();
    anchors.sort_unstable();
    ChannelEntry {
        version: 1,
        group: charter.group,
        name: charter.name.clone(),
        founding: charter.founding,
        shown: ChannelUpdate {
            version: CHANNEL_UPDATE_VERSION,
            members: charter.members.iter().map(|member| member.org).collect(),
            nodes,
            anchors,
            status: ChannelStatus::Running,
            engine: charter.engine,
        },
    }
}

/// Writes the group into the registry. Everybody hears of its committee; the group itself hears of all
/// committees in force, the layout, every asset and the registry, which is its first mail.
fn settle(view: &mut View<'_>, foundation: &Foundation) -> Vec<(GroupId, Message)> {
    let (group, committee) = (foundation.group, &foundation.committee);
    let others: Vec<Committee> = registry::committees(view);
    let mut told: Vec<GroupId> = others.iter().map(|known| known.group).collect();
    told.retain(|known| *known != GroupId::BEACON && !is_left(view, *known));
    let mut mail: Vec<_> = told.into_iter().map(|known| (known, Message::CommitteeUpdate(committee.clone()))).collect();
    let hash = committee.hash();
    registry::put(view, registry::channels_key(), &(group.ordinal() + 1));
    registry::put(view, registry::committee_key(group, &hash), committee);
    registry::put(view, registry::current_key(group), &hash);
    registry::put(view, registry::foundation_key(group), foundation);
    // Whoever verifies what the group certifies finds its first committee here, under the beacon's headers.
    view.store(schema::founded(group), &foundation.leaf());
    mail.extend(others.into_iter().map(|known| (group, Message::CommitteeUpdate(known))));
    mail.push((group, Message::CommitteeUpdate(committee.clone())));
    mail.extend(registry::layout(view).map(|layout| (group, Message::LayoutUpdate(layout))));
    mail.extend(registry::assets(view).into_iter().map(|asset| (group, Message::AssetUpdate(asset))));
    // Everybody hears who carries its mail, and it hears who carries that of the others.
    for ChannelEntry { group: channel, shown, .. } in directory(view) {
        if shown.anchors_in_use().is_empty() {
            continue;
        }
        if channel == group {
            mail.extend(tell_anchors(view, group, &shown));
        } else {
            mail.push((group, anchors_of(channel, &shown)));
        }
    }
    mail.push((group, Message::RegistryUpdate(extract::of(view).first())));
    mail
}

fn anchors_of(channel: GroupId, shown: &ChannelUpdate) -> Message {
    let anchors = shown.anchors_in_use().to_vec();
    Message::AnchorsUpdate(AnchorsUpdate { version: ANCHORS_UPDATE_VERSION, channel, anchors })
}

/// Tells all groups, the channel among them, who carries its mail. The beacon needs no telling: what it and a channel
/// say to each other, every replica carries.
fn tell_anchors(view: &mut View<'_>, channel: GroupId, shown: &ChannelUpdate) -> Vec<(GroupId, Message)> {
    let told = crate::machine::ledgers(view).unwrap_or_default();
    told.into_iter().map(|group| (group, anchors_of(channel, shown))).collect()
}

/// The channels that are told what changes, in order: all but closed ones that take no mail.
pub(crate) fn groups(view: &mut View<'_>) -> Vec<GroupId> {
    let mut groups: Vec<GroupId> = registry::committees(view).into_iter().map(|committee| committee.group).collect();
    groups.retain(|group| group.kind() == Some(GroupKind::Channel) && !is_left(view, *group));
    groups
}

/// All channels of the directory, in order, the closed ones too.
pub(crate) fn groups_ever(view: &mut View<'_>) -> Vec<GroupId> {
    directory(view).into_iter().map(|entry| entry.group).collect()
}

/// Takes what a channel shows of itself, and prepares its committee for the nodes and the engine that it names. A channel
/// speaks for itself only; whatever else it sends is not taken, since only a committee that breaks the
/// rules sends it, nor anything from one that is closed, whose members and nodes do not change any more. Returns what is
/// to be mailed.
pub fn apply_update(view: &mut View<'_>, source: GroupId, shown: ChannelUpdate) -> Vec<(GroupId, Message)> {
    let Some(entry) = view.load::<ChannelEntry>(&channel_key(source)) else { return Vec::new() };
    if entry.is_closed() || !shown.well_formed(ORGS_MAX, COMMITTEE_MAX) || shown == entry.shown {
        return Vec::new();
    }
    let mut mail = match shown.anchors_in_use() == entry.shown.anchors_in_use() {
        true => Vec::new(),
        false => tell_anchors(view, source, &shown),
    };
    registry::put(view, channel_key(source), &ChannelEntry { shown, ..entry });
    mail.extend(seats::go_on(view));
    registry::bump_revision(view);
    mail
}

/// Ends a channel whose only member leaves the cluster: nobody is left who could close it. Returns what is to be mailed.
pub(crate) fn end(view: &mut View<'_>, mut entry: ChannelEntry) -> Vec<(GroupId, Message)> {
    let anchored = !entry.shown.anchors_in_use().is_empty();
    entry.shown.status = ChannelStatus::Closed;
    let mail = if anchored { tell_anchors(view, entry.group, &entry.shown) } else { Vec::new() };
    registry::put(view, channel_key(entry.group), &entry);
    mail
}

/// The engine that a channel wants to have, in force or not: its members decide.
pub(crate) fn engine(view: &mut View<'_>, group: GroupId) -> Option<Engine> {
    view.load::<ChannelEntry>(&channel_key(group)).map(|entry| entry.shown.engine)
}

/// The nodes that a channel wants to run on, ascending: those of its members, whatever it says. In a channel an
/// organisation alone names its nodes, when it approves the founding, when it joins, and later.
pub(crate) fn hosts(view: &mut View<'_>, group: GroupId) -> Vec<NodeId> {
    let Some(ChannelEntry { shown, .. }) = view.load(&channel_key(group)) else { return Vec::new() };
    let of_member = |node: &NodeId| registry::node(view, *node).is_some_and(|info| shown.members.contains(&info.org));
    shown.nodes.iter().copied().filter(of_member).collect()
}

/// The nodes that a closed channel is to stay on, of those that it has named: nobody in it can name others any more, so
/// one whose organisation drains it is let go, as long as another one stays that keeps the history.
#[must_use]
pub fn keepers(named: Vec<NodeId>, drained: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
    let stay: Vec<NodeId> = named.iter().copied().filter(|node| !drained(node)).collect();
    if stay.is_empty() { named } else { stay }
}

/// What the registry holds of a channel from its founding on, beside its committee; for a cluster that
/// begins with channels, as a simulated one does.
#[must_use]
pub fn genesis_writes(charter: &Charter) -> Vec<(Vec<u8>, Vec<u8>)> {
    let encode = |bytes: borsh::io::Result<Vec<u8>>| bytes.expect("writing to memory does not fail");
    vec![
        (channel_key(charter.group), encode(borsh::to_vec(&entry_of(charter)))),
        (registry::channels_key(), encode(borsh::to_vec(&(charter.group.ordinal() + 1)))),
    ]
}
