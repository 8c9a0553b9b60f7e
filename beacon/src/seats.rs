//! Changes of committees: which seats move, and when a prepared committee comes into force.
//!
//! Two steps. A committee is first prepared: the group is told of it by mail, its new members fetch the
//! state, and sign headers as its members will. It comes into force once the beacon holds a header that
//! the committee in force has certified and that every new member has signed, too: then no member of the
//! new committee lacks the state. At most as many seats as the committee tolerates faults, by its engine, change
//! in one step, and nobody moves without need.
//!
//! A shard that a switch of its engine has given more seats than the genesis gives up again what it has too many, once a
//! majority orders it: the last step of going back ([`surplus`]).
//!
//! A member whose node has got another key ([`crate::keys`]) takes the same road with it, in its seat: only the key changes,
//! and the member signs with the new one, too, before the committee comes into force.
//!
//! What a deal of seats wants ([`crate::epochs`]) comes behind all that, and waits for the epoch after the one that prepared it.
//!
//! Who has a seat in a shard or in the beacon is decided here, unless a job is about the shard ([`crate::jobs`]). Who has
//! one in a channel, its members decide; here it is only carried out. What the beacon is told of its own committee it takes
//! at once, in the place of mail; it judges its own proof, and the block that takes it is the last that its former
//! committee certifies.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::certificate::Certificate;
use ledger::committee::{Committee, Engine, Member};
use ledger::crypto::{self, Signature};
use ledger::genesis::NodeInfo;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{Epoch, GroupId, GroupKind, NodeId};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::View;

use crate::accused;
use crate::arrivals::{self, Shares};
use crate::channels;
use crate::engine;
use crate::epochs::{self, step_towards};
use crate::jobs::{self, Aim};
use crate::machine::{CommandOutcome, Executed};
use crate::nodes;
use crate::registry;
use crate::risk;
use crate::watch;

/// Version written into new [`Readiness`].
pub const READINESS_VERSION: u8 = 1;
/// Epochs end below this: a replica's raft id has two bytes for the epoch it joined with.
const EPOCHS_MAX: u64 = u16::MAX as u64 - 1;

/// Proof that a prepared committee can take over.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Readiness {
    /// Format version, [`READINESS_VERSION`].
    pub version: u8,
    /// Hash of the prepared committee.
    pub coming: Hash32,
    /// A header that the committee in force has certified.
    pub certificate: Certificate,
    /// Signatures over the same header by all whom the prepared committee names anew: members that join, and members with
    /// another key. Ascending by node.
    pub signatures: Vec<(NodeId, Signature)>,
}

impl Readiness {
    /// The group it is about.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.certificate.header.group
    }

    /// Whether it shows that `coming` can follow `current`.
    #[must_use]
    pub fn holds(&self, current: &Committee, coming: &Committee) -> bool {
        let signed = |(node, signature): &(NodeId, Signature)| {
            let digest = self.certificate.header.hash();
            coming.index_of(*node).is_some_and(|at| crypto::verify(&coming.members[at].key, &digest, signature).is_ok())
        };
        let new = new_signers(current, coming);
        let nodes: Vec<NodeId> = self.signatures.iter().map(|(node, _)| *node).collect();
        self.version == READINESS_VERSION
            && self.coming == coming.hash()
            && self.certificate.verify(current).is_ok()
            && nodes == new
            && self.signatures.iter().all(signed)
    }
}

/// The members of `coming` that are not in `current`, ascending.
#[must_use]
pub fn joining(current: &Committee, coming: &Committee) -> Vec<NodeId> {
    let members = coming.members.iter().map(|member| member.node);
    members.filter(|node| current.index_of(*node).is_none()).collect()
}

/// The members of `coming` that `current` does not have with the same key, ascending: those that join, and those whose key
/// is replaced.
#[must_use]
pub fn new_signers(current: &Committee, coming: &Committee) -> Vec<NodeId> {
    coming.members.iter().filter(|member| !current.members.contains(member)).map(|member| member.node).collect()
}

/// Whether a prepared committee changes nothing but keys: it waits for those who have another one to sign with it.
#[must_use]
pub fn changes_keys_alone(current: &Committee, prepared: &Committee) -> bool {
    let nodes = current.members.iter().map(|member| member.node);
    let same = nodes.eq(prepared.members.iter().map(|member| member.node));
    same && prepared.engine == current.engine && prepared.members != current.members
}

/// The members of a committee that needs no other change, with the keys that their nodes have by now: of as many members
/// as may change in one step. `None` when it names everybody by the right key.
#[must_use]
pub fn rekeyed(current: &Committee, nodes: &[NodeInfo]) -> Option<Vec<Member>> {
    let key = |id: NodeId| nodes.iter().find(|node| node.id == id).map(|node| node.key);
    let (mut members, mut changed) = (current.members.clone(), 0);
    for member in &mut members {
        if let Some(key) = key(member.node).filter(|key| *key != member.key && changed < step(current)) {
            member.key = key;
            changed += 1;
        }
    }
    (changed > 0).then_some(members)
}

/// The join of those who come with a committee: one more than its epoch, so that it is above that of the
/// group's first members, which is 1, and never given twice. No epoch is given for which there is none.
#[must_use]
pub fn join_at(committee: &Committee) -> Option<u16> {
    u16::try_from(committee.epoch.0).ok()?.checked_add(1)
}

/// What decides about the seats of one group.
pub struct Wanted<'a> {
    /// Breaks ties.
    pub seed: &'a Hash32,
    /// All nodes.
    pub nodes: &'a [NodeInfo],
    /// Seats that each node has, in all groups.
    pub held: &'a BTreeMap<NodeId, u32>,
}

impl Wanted<'_> {
    fn allows(&self, node: &NodeInfo) -> bool {
        node.capacity > 0
    }
}

/// Seats that change in one step.
pub(crate) fn step(current: &Committee) -> usize {
    current.engine.tolerated(current.members.len()).max(1)
}

/// The next members of a channel's committee, one step towards the nodes that it names. `None` when it has
/// them, or when fewer would be left than its engine needs.
#[must_use]
pub fn next_hosts(current: &Committee, hosts: &[NodeId], nodes: &[NodeInfo]) -> Option<Vec<Member>> {
    let hosts: Vec<&NodeInfo> = nodes.iter().filter(|node| hosts.contains(&node.id)).collect();
    if hosts.is_empty() {
        return None;
    }
    let named = |node: NodeId| hosts.iter().any(|host| host.id == node);
    let step = step(current);
    let leaving: Vec<NodeId> =
        current.members.iter().map(|member| member.node).filter(|node| !named(*node)).take(step).collect();
    let mut members: Vec<Member> =
        current.members.iter().filter(|member| !leaving.contains(&member.node)).cloned().collect();
    let new = hosts.iter().filter(|host| current.index_of(host.id).is_none()).take(step);
    members.extend(new.map(|host| Member { node: host.id, org: host.org, key: host.key }));
    members.sort_by_key(|member| member.node);
    (members.len() >= current.engine.least_members() && members != current.members).then_some(members)
}

/// The next members of a committee, as one step away from what it is: seats of nodes that have no
/// capacity go to others. `None` when nothing has to change.
///
/// # Errors
/// [`Reject::Quorum`] when there is nobody to take a seat that has to move: with fewer members the group
/// would tolerate fewer failures.
pub fn next_members(current: &Committee, wanted: &Wanted<'_>) -> Result<Option<Vec<Member>>, Reject> {
    let known: BTreeMap<NodeId, &NodeInfo> = wanted.nodes.iter().map(|node| (node.id, node)).collect();
    let stays = |member: &&Member| known.get(&member.node).is_some_and(|node| wanted.allows(node));
    let step = step(current);
    let leaving: Vec<NodeId> =
        current.members.iter().filter(|member| !stays(member)).map(|member| member.node).take(step).collect();
    if leaving.is_empty() {
        return Ok(None);
    }
    // Also a first step that somebody could take is none when it cannot be gone on with.
    if wanted.nodes.iter().filter(|node| wanted.allows(node)).count() < current.members.len() {
        return Err(Reject::Quorum);
    }
    let mut members: Vec<Member> =
        current.members.iter().filter(|member| !leaving.contains(&member.node)).cloned().collect();
    take_seats(&mut members, leaving.len(), current, wanted)?;
    members.sort_by_key(|member| member.node);
    Ok(Some(members))
}

/// Seats that a shard has too many: more than the genesis gives it (`configured`), while nothing needs them. A Byzantine
/// engine has only ever been given what it needs, so none while one orders.
#[must_use]
pub fn surplus(current: &Committee, configured: Option<usize>) -> usize {
    match current.engine {
        Engine::Raft => configured.map_or(0, |seats| current.members.len().saturating_sub(seats)),
        Engine::Bft => 0,
    }
}

/// The members of a committee without as many of them as leave in one step, where it has this many too many. Nodes
/// that may keep no seat leave first, then those whom it costs least: the reverse of who takes a seat. `None` when it
/// has none too many, and when there are fewer nodes than it is to have seats.
#[must_use]
pub fn give_up(current: &Committee, surplus: usize, wanted: &Wanted<'_>) -> Option<Vec<Member>> {
    let known: BTreeMap<NodeId, &NodeInfo> = wanted.nodes.iter().map(|node| (node.id, node)).collect();
    let stays = |node: NodeId| known.get(&node).copied().filter(|info| wanted.allows(info));
    let usable = wanted.nodes.iter().filter(|node| wanted.allows(node)).count();
    if surplus == 0 || usable + surplus < current.members.len() {
        return None;
    }
    // Each is weighed as if it had no seat here and was to get it.
    let mut held = wanted.held.clone();
    for member in &current.members {
        held.entry(member.node).and_modify(|seats| *seats = seats.saturating_sub(1));
    }
    let without = Wanted { seed: wanted.seed, nodes: wanted.nodes, held: &held };
    let mut members = current.members.clone();
    for _ in 0..surplus.min(step(current)) {
        let cost = |member: &Member| {
            let others: Vec<Member> = members.iter().filter(|other| other.node != member.node).cloned().collect();
            let rank = stays(member.node).map(|node| rank(node, &others, &known, current.group, &without));
            (rank.is_none(), rank)
        };
        let gone = members.iter().max_by_key(|member| cost(member))?.node;
        members.retain(|member| member.node != gone);
    }
    Some(members)
}

/// Gives seats to so many nodes that have none in the committee in force, the best first.
///
/// # Errors
/// [`Reject::Quorum`] when there are not as many.
pub(crate) fn take_seats(
    members: &mut Vec<Member>,
    count: usize,
    current: &Committee,
    wanted: &Wanted<'_>,
) -> Result<(), Reject> {
    let known: BTreeMap<NodeId, &NodeInfo> = wanted.nodes.iter().map(|node| (node.id, node)).collect();
    for _ in 0..count {
        let free = wanted.nodes.iter().filter(|node| wanted.allows(node) && current.index_of(node.id).is_none());
        let free = free.filter(|node| members.iter().all(|member| member.node != node.id));
        let best = free.min_by_key(|node| rank(node, members, &known, current.group, wanted));
        let node = best.ok_or(Reject::Quorum)?;
        members.push(Member { node: node.id, org: node.org, key: node.key });
    }
    Ok(())
}

/// Who takes a seat first: the organisation, then the zone, with the fewest seats in the committee, then
/// the node with the least load for its capacity; chance breaks ties.
fn rank(
    node: &NodeInfo,
    members: &[Member],
    known: &BTreeMap<NodeId, &NodeInfo>,
    group: GroupId,
    wanted: &Wanted<'_>,
) -> (usize, usize, u64, Hash32) {
    let of_org = members.iter().filter(|member| member.org == node.org).count();
    let zone = |member: &&Member| known.get(&member.node).is_some_and(|other| other.zone == node.zone);
    let of_zone = members.iter().filter(zone).count();
    let held = u64::from(wanted.held.get(&node.id).copied().unwrap_or(0));
    // Millionths of a seat for a unit of capacity.
    let load = (held + 1) * 1_000_000 / u64::from(node.capacity);
    let parts: [&[u8]; 3] = [&wanted.seed.0, &group.0.to_be_bytes(), &node.id.0.to_be_bytes()];
    (of_org, of_zone, load, tagged(b"seamark/assign/v1", &parts))
}

/// The nodes, as far as they may have seats: one that is barred has no capacity.
pub(crate) fn seatable(nodes: &[NodeInfo], barred: &[NodeId]) -> Vec<NodeInfo> {
    let mut nodes = nodes.to_vec();
    nodes.iter_mut().filter(|node| barred.contains(&node.id)).for_each(|node| node.capacity = 0);
    nodes
}

/// The nodes that a channel names without those that are accused, as long as the others outlive a failure. Until then
/// all of them stay: a channel that stands still would help nobody.
fn honest(current: &Committee, mut hosts: Vec<NodeId>, accused: &[NodeId]) -> Vec<NodeId> {
    let others = hosts.iter().filter(|host| !accused.contains(host)).count();
    if others >= current.engine.least_members() && current.engine.tolerated(others) >= 1 {
        hosts.retain(|host| !accused.contains(host));
    }
    hosts
}

/// What preparing one group comes to.
enum Step {
    /// A new committee is prepared; whether a deal wants it, so that it waits for the next epoch.
    Prepare(Committee, bool),
    /// What was being prepared is not needed any more.
    Cancel(Committee),
    /// What a deal has prepared is needed by now, and waits no longer.
    Release(GroupId),
}

/// Decides the next step of every group whose committee may change, for a list of nodes that is about to hold.
///
/// A group that nobody can be found for stays as it is, unless the node `about` has a seat there.
fn steps(
    view: &mut View<'_>,
    nodes: &[NodeInfo],
    committees: &[Committee],
    about: Option<NodeId>,
) -> Result<Vec<Step>, Reject> {
    let seed = registry::seed(view).ok_or(Reject::Registry)?;
    let accused = accused::nodes(view);
    let nodes = &seatable(nodes, &nodes::barred(view));
    let (arriving, successors) = (arrivals::arriving(view), arrivals::successors(view));
    let planned = registry::coming(view);
    let silent = watch::silent_lately(view);
    let heard = |node: NodeId| silent.binary_search(&node).is_err();
    let mut shares = Shares::new(&seed, nodes, committees, &planned, &arriving).while_silent(&silent);
    let mut held: BTreeMap<NodeId, u32> = BTreeMap::new();
    for member in committees.iter().flat_map(|committee| &committee.members) {
        *held.entry(member.node).or_default() += 1;
    }
    let targets = epochs::targets(view);
    let mut steps = Vec::new();
    let known = channels::groups_ever(view);
    let founded: Vec<GroupId> =
        known.into_iter().filter(|group| view.get(&schema::founded(*group)).is_some()).collect();
    let changes = |group: GroupId| group.kind() != Some(GroupKind::Channel) || founded.contains(&group);
    let aims = jobs::aims(view, nodes);
    for current in committees.iter().filter(|committee| changes(committee.group)) {
        let drained = |node: &NodeId| nodes.iter().any(|known| known.id == *node && known.capacity == 0);
        let aim = aims.get(&current.group);
        let hosts = match (aim, current.group.kind()) {
            // What would have to move here moves when the job has ended. A plan from before, of a time in which no job
            // decided here, would give its parents other members than their children begin with.
            (Some(Aim::Stays), _) => {
                let prepared = registry::coming_of(view, current.group);
                steps.extend(prepared.map(|_| Step::Cancel(current.clone())));
                continue;
            }
            (Some(Aim::Nodes(nodes)), _) => Some(nodes.clone()),
            (None, Some(GroupKind::Channel)) => {
                let named = channels::hosts(view, current.group);
                let closed = channels::is_closed(view, current.group);
                let hosts = if closed { channels::keepers(named, drained) } else { named };
                Some(honest(current, hosts, &accused))
            }
            (None, _) => None,
        };
        let to = engine::wanted(view, current);
        // What it has too many may be what the engine needs that it is on its way to.
        let gives_up = to == current.engine && aim.is_none();
        let too_many = if gives_up { surplus(current, registry::configured(view, current.group)) } else { 0 };
        let (mut stuck, mut dealt) = (false, false);
        let prepared = registry::coming_of(view, current.group);
        let seats = match &hosts {
            Some(hosts) => {
                if aim.is_none() && about.is_some_and(|node| hosts.contains(&node) && drained(&node)) {
                    return Err(Reject::Quorum);
                }
                next_hosts(current, hosts, nodes)
            }
            None => {
                let wanted = Wanted { seed: &seed, nodes, held: &held };
                let named = |members| arrivals::succeeded(current, nodes, &successors).unwrap_or(members);
                let next = match give_up(current, too_many, &wanted) {
                    Some(fewer) => Ok(Some(fewer)),
                    None => next_members(current, &wanted).map(|next| next.map(named)),
                };
                match next {
                    // Only where nothing else has to change. A key comes before seats that nobody has to give up.
                    Ok(None) if to == current.engine && rekeyed(current, nodes).is_none() => {
                        let share = shares.next(current, arrivals::missing_seats(view, current));
                        share.or_else(|| {
                            let target = targets.iter().find(|target| target.group == current.group)?;
                            let next = step_towards(current, &target.members, nodes)?;
                            // What nobody needs waits until enough are heard of; what is prepared goes on.
                            let begun = prepared.as_ref().is_some_and(|prepared| prepared.members == next);
                            dealt = begun || risk::of_change(current, &next, heard).is_none();
                            dealt.then_some(next)
                        })
                    }
                    Ok(next) => next,
                    Err(reject) => match accused::without_one(current, &accused) {
                        Some(fewer) => Some(fewer),
                        None if about.is_some_and(|node| current.index_of(node).is_some()) => return Err(reject),
                        None => {
                            stuck = true;
                            None
                        }
                    },
                }
            }
        };
        // Seats move first, under the engine in force; a switch moves none.
        let next = match seats {
            Some(members) => Some((members, current.engine)),
            None if to == current.engine => rekeyed(current, nodes).map(|members| (members, current.engine)),
            None => {
                let wanted = Wanted { seed: &seed, nodes, held: &held };
                engine::next(current, to, hosts.is_none().then_some(&wanted))
            }
        };
        let usable = |id: NodeId| match &hosts {
            Some(hosts) => hosts.contains(&id),
            None => nodes.iter().any(|node| node.id == id && node.capacity > 0),
        };
        if next.is_some() && !dealt && epochs::is_dealt(view, current.group) {
            steps.push(Step::Release(current.group));
        }
        match (next, prepared) {
            (None, None) => {}
            // It is what is wanted.
            (Some((members, engine)), Some(prepared)) if prepared.members == members && prepared.engine == engine => {}
            // What was begun while somebody could be found goes on, if it is still good.
            (None, Some(prepared)) if stuck && still_good(current, &prepared, (to, too_many), usable) => {}
            (None, Some(_)) => steps.push(Step::Cancel(current.clone())),
            // Nobody who has begun to fetch the state is sent away for another one as good.
            (Some(_), Some(prepared)) if still_good(current, &prepared, (to, too_many), usable) => {}
            (Some((members, engine)), _) => {
                let epoch = Epoch(registry::epoch_of(view, current).0 + 1);
                // A group that has changed that often stays as it is, and keeps nobody else from changing.
                if epoch.0 > EPOCHS_MAX {
                    match about.is_some_and(|node| current.index_of(node).is_some()) {
                        true => return Err(Reject::Quorum),
                        false => continue,
                    }
                }
                for member in members.iter().filter(|member| current.index_of(member.node).is_none()) {
                    *held.entry(member.node).or_default() += 1;
                }
                let next = Committee::of(engine, current.group, current.incarnation, epoch, members);
                steps.push(Step::Prepare(next, dealt));
            }
        }
    }
    Ok(steps)
}

/// Whether a prepared committee still takes a step in the right direction; `to` is the engine that the group is to have,
/// and `too_many` how many seats it is to give up.
fn still_good(
    current: &Committee,
    prepared: &Committee,
    (to, too_many): (Engine, usize),
    usable: impl Fn(NodeId) -> bool,
) -> bool {
    let engine = prepared.engine == current.engine || prepared.engine == to;
    let joins = joining(current, prepared);
    let members = current.members.iter().map(|member| member.node);
    let (staying, leaving): (Vec<NodeId>, Vec<NodeId>) = members.partition(|node| prepared.index_of(*node).is_some());
    // It changes keys alone, and whatever else has to change comes first: the node with the key may be the one that is down.
    if joins.is_empty() && leaving.is_empty() && prepared.engine == current.engine {
        return false;
    }
    // Nobody who may stay leaves while another one who may not keeps a seat.
    let gives_up = joins.is_empty() && leaving.len() <= too_many && staying.into_iter().all(&usable);
    engine && joins.into_iter().all(&usable) && (gives_up || !leaving.into_iter().any(&usable))
}

fn take(view: &mut View<'_>, steps: Vec<Step>) -> Vec<(GroupId, Message)> {
    let mut mail = Vec::with_capacity(steps.len());
    for step in steps {
        match step {
            Step::Prepare(committee, dealt) => {
                if dealt {
                    epochs::note_dealt(view, committee.group, committee.hash());
                } else {
                    epochs::forget_dealt(view, committee.group);
                }
                registry::put(view, registry::epoch_key(committee.group), &committee.epoch);
                registry::put(view, registry::coming_key(committee.group), &committee);
                mail.push((committee.group, Message::CommitteePlan(committee)));
            }
            Step::Release(group) => epochs::forget_dealt(view, group),
            // The committee in force in the place of a plan: there is none.
            Step::Cancel(current) => {
                epochs::forget_dealt(view, current.group);
                registry::remove(view, registry::coming_key(current.group));
                mail.push((current.group, Message::CommitteePlan(current)));
            }
        }
    }
    arrivals::settle(view);
    mail
}

/// What there is to prepare when a node is as it is here.
fn steps_with(view: &mut View<'_>, changed: &NodeInfo) -> Result<Vec<Step>, Reject> {
    let mut nodes = registry::nodes(view);
    if let Some(node) = nodes.iter_mut().find(|node| node.id == changed.id) {
        *node = changed.clone();
    }
    let committees = registry::committees(view);
    steps(view, &nodes, &committees, Some(changed.id))
}

/// Whether every seat can be taken that would have to move when a node is as it is here. Changes nothing.
///
/// # Errors
/// [`Reject::Quorum`] when one cannot.
pub(crate) fn check_capacity(view: &mut View<'_>, changed: &NodeInfo) -> Result<(), Reject> {
    steps_with(view, changed).map(drop)
}

/// Changes a node, and prepares every group whose seats have to move because of it.
///
/// # Errors
/// [`Reject::Quorum`] when a seat would have to move and nobody can take it. The view is then unchanged.
pub(crate) fn change_capacity(view: &mut View<'_>, changed: NodeInfo) -> Result<Vec<(GroupId, Message)>, Reject> {
    let steps = steps_with(view, &changed)?;
    registry::put(view, registry::node_key(changed.id), &changed);
    Ok(take(view, steps))
}

/// Prepares what there is to prepare: the committees of channels for the nodes that they name by now, seats of nodes
/// that may keep none. Channels that stand in the genesis keep the committee that they began with.
pub(crate) fn go_on(view: &mut View<'_>) -> Vec<(GroupId, Message)> {
    let (nodes, committees) = (registry::nodes(view), registry::committees(view));
    steps(view, &nodes, &committees, None).map(|steps| take(view, steps)).unwrap_or_default()
}

/// Puts a prepared committee into force.
///
/// # Errors
/// [`Reject::CommitteeUnknown`] when no such committee is being prepared, [`Reject::WrongCluster`],
/// [`Reject::MailForged`] when the proof does not hold, [`Reject::EpochEarly`] when a deal has prepared it in the epoch
/// that still runs, and [`Reject::ShardBusy`] for the beacon's own while shards stand still. The view is then unchanged.
pub fn apply_ready(view: &mut View<'_>, at: &BlockContext, ready: &Readiness) -> Result<Executed, Reject> {
    let group = ready.group();
    if ready.certificate.header.cluster != at.cluster {
        return Err(Reject::WrongCluster);
    }
    let current = registry::committee(view, group).ok_or(Reject::CommitteeUnknown)?;
    let coming = registry::coming_of(view, group).ok_or(Reject::CommitteeUnknown)?;
    if !ready.holds(&current, &coming) {
        return Err(Reject::MailForged);
    }
    let hash = coming.hash();
    if epochs::holds_back(view, group, &hash) {
        return Err(Reject::EpochEarly);
    }
    // A shard that stands still hears of no hand-over before its children begin, and these start from what it knew: they
    // could judge nothing that another committee of the beacon certifies.
    if group == GroupId::BEACON && jobs::seals(view) {
        return Err(Reject::ShardBusy);
    }
    epochs::forget_dealt(view, group);
    registry::remove(view, registry::coming_key(group));
    registry::put(view, registry::committee_key(group, &hash), &coming);
    registry::put(view, registry::current_key(group), &hash);
    engine::arrived(view, &coming);
    if group == GroupId::BEACON {
        epochs::members_changed(view, &coming);
    }
    jobs::table::arrived(view, at, group);
    let told = crate::machine::ledgers(view).unwrap_or_default();
    let mut mail: Vec<_> = told.into_iter().map(|other| (other, Message::CommitteeUpdate(coming.clone()))).collect();
    // The next step, if this was not the last one. What nobody can take now waits for another node.
    let (nodes, committees) = (registry::nodes(view), registry::committees(view));
    if let Ok(steps) = steps(view, &nodes, &committees, None) {
        mail.extend(take(view, steps));
    }
    registry::bump_revision(view);
    Ok(Executed { outcome: CommandOutcome::Applied, mail, committees: vec![coming] })
}
