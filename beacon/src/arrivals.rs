//! Nodes that take seats of others: one that joins takes its share of the load, one that replaces another takes the seats
//! of that one.
//!
//! Owns the marks that say so, and the rules by which a seat goes to such a node. Nobody moves without need otherwise: the
//! mark of a node that joins goes when nothing is left that it could even out. Nobody gives a seat where that would cost a
//! quorum, as far as the watch knows who is silent. What is under way, and what comes first, is
//! [`crate::seats`]'.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::{Committee, Member};
use ledger::genesis::NodeInfo;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{GroupId, GroupKind, NodeId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;

use crate::limits::ARRIVALS_AT_ONCE;
use crate::nodes;
use crate::registry;
use crate::risk;
use crate::seats;
use crate::watch;

/// Version written into new [`Arrival`]s.
pub const ARRIVAL_VERSION: u8 = 1;

/// A node that takes seats of others until the load is even.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Arrival {
    /// Format version, [`ARRIVAL_VERSION`].
    pub version: u8,
    /// The node.
    pub node: NodeId,
    /// Time of the block that had it join.
    pub since_ms: TimeMs,
}

const ARRIVING: &[u8] = b"arriving/";
const SUCCESSOR: &[u8] = b"successor/";

/// Key of an [`Arrival`].
#[must_use]
pub fn arriving_key(node: NodeId) -> Vec<u8> {
    registry::key(ARRIVING, &[&node.0.to_be_bytes()])
}

/// Key of the node that takes the seats of another one.
#[must_use]
pub fn successor_key(node: NodeId) -> Vec<u8> {
    registry::key(SUCCESSOR, &[&node.0.to_be_bytes()])
}

/// The nodes that are taking seats of others, ascending.
pub fn arriving(view: &mut View<'_>) -> Vec<NodeId> {
    let marks: Vec<(Vec<u8>, Arrival)> = registry::family(view, &registry::key(ARRIVING, &[]));
    marks.into_iter().map(|(_, mark)| mark.node).collect()
}

/// Nodes that are replaced, and by whom.
pub fn successors(view: &mut View<'_>) -> BTreeMap<NodeId, NodeId> {
    let prefix = registry::key(SUCCESSOR, &[]);
    let named: Vec<(Vec<u8>, NodeId)> = registry::family(view, &prefix);
    let node = |key: &[u8]| Some(NodeId(u32::from_be_bytes(key.get(prefix.len()..)?.try_into().ok()?)));
    named.into_iter().filter_map(|(key, successor)| Some((node(&key)?, successor))).collect()
}

/// Has a node take seats of others, from now on.
pub(crate) fn begin(view: &mut View<'_>, node: NodeId, now: TimeMs) {
    registry::put(view, arriving_key(node), &Arrival { version: ARRIVAL_VERSION, node, since_ms: now });
}

/// Has a node take the seats of another one as they become free.
pub(crate) fn name_successor(view: &mut View<'_>, node: NodeId, successor: NodeId) {
    registry::put(view, successor_key(node), &successor);
}

/// Forgets who was to take the seats of a node.
pub(crate) fn forget_successor(view: &mut View<'_>, node: NodeId) {
    let key = successor_key(node);
    if view.get(&key).is_some() {
        registry::remove(view, key);
    }
}

/// Forgets what a node was to do that is struck off.
pub(crate) fn forget(view: &mut View<'_>, node: NodeId) {
    let mut stale = vec![arriving_key(node)];
    let named = successors(view).into_iter().filter(|(from, to)| *from == node || *to == node);
    stale.extend(named.map(|(from, _)| successor_key(from)));
    for key in stale {
        if view.get(&key).is_some() {
            registry::remove(view, key);
        }
    }
}

/// Forgets the nodes that have nothing to take any more, or may not.
pub(crate) fn settle(view: &mut View<'_>) {
    let marked = arriving(view);
    if marked.is_empty() {
        return;
    }
    // What waits for members that are silent is still to be taken.
    let open = open(view, &marked, &[]);
    for node in marked.into_iter().filter(|node| !open.contains(node)) {
        registry::remove(view, arriving_key(node));
    }
}

/// Those of the nodes that join which would take a seat somewhere, while these are silent.
fn open(view: &mut View<'_>, joining: &[NodeId], silent: &[NodeId]) -> Vec<NodeId> {
    let (Some(seed), Some(layout)) = (registry::seed(view), registry::layout(view)) else { return joining.to_vec() };
    let barred = nodes::barred(view);
    let known = seats::seatable(&registry::nodes(view), &barred);
    let (committees, coming) = (registry::committees(view), registry::coming(view));
    let missing: BTreeMap<GroupId, usize> =
        committees.iter().map(|current| (current.group, missing_seats(view, current))).collect();
    let shares = Shares::new(&seed, &known, &committees, &coming, joining).while_silent(silent);
    let is_open = |node: &NodeId| {
        let mut seated = layout.shards.iter().map(|shard| shard.group).chain([GroupId::BEACON]);
        seated.any(|group| {
            let current = committees.iter().find(|committee| committee.group == group);
            let missing = missing.get(&group).copied().unwrap_or(0);
            current.is_some_and(|current| shares.is_open(current, *node, missing))
        })
    };
    joining.iter().copied().filter(is_open).collect()
}

/// Refuses to have a node join for which there are seats, but at present none: whoever would give it one is where too few
/// others are heard of. Where it may take some, the rest waits.
///
/// # Errors
/// [`Reject::NodeSilence`].
pub(crate) fn refuse_at_risk(view: &mut View<'_>, now: TimeMs, node: NodeId) -> Result<(), Reject> {
    let silent = watch::silent_now(view, now);
    let waits = !silent.is_empty() && open(view, &[node], &silent).is_empty() && !open(view, &[node], &[]).is_empty();
    if waits { Err(Reject::NodeSilence) } else { Ok(()) }
}

/// Seats that a group has fewer than the genesis gives it.
pub(crate) fn missing_seats(view: &mut View<'_>, current: &Committee) -> usize {
    registry::configured(view, current.group).map_or(0, |seats| seats.saturating_sub(current.members.len()))
}

/// A seat that a node would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taking {
    node: NodeId,
    /// Whose it is; of nobody where the group has too few.
    from: Option<NodeId>,
}

/// Who has how many seats, and who takes some.
pub struct Shares<'a> {
    seed: &'a Hash32,
    nodes: BTreeMap<NodeId, &'a NodeInfo>,
    coming: BTreeMap<GroupId, &'a Committee>,
    /// Seats in all groups, as they will be when what is being prepared is in force.
    held: BTreeMap<NodeId, u64>,
    arriving: Vec<NodeId>,
    /// Nodes that others do not hear of, ascending.
    silent: Vec<NodeId>,
    /// Groups in which each of these is being prepared.
    preparing: BTreeMap<NodeId, usize>,
}

impl<'a> Shares<'a> {
    /// As the committees in force and those that are being prepared have it. Nodes without capacity take no seats, and
    /// theirs are not evened out: they are moved.
    #[must_use]
    pub fn new(
        seed: &'a Hash32,
        nodes: &'a [NodeInfo],
        committees: &[Committee],
        coming: &'a [Committee],
        arriving: &[NodeId],
    ) -> Self {
        let coming: BTreeMap<GroupId, &Committee> = coming.iter().map(|plan| (plan.group, plan)).collect();
        let (mut held, mut preparing): (BTreeMap<NodeId, u64>, BTreeMap<NodeId, usize>) = Default::default();
        for current in committees {
            let then = coming.get(&current.group).copied().unwrap_or(current);
            for member in &then.members {
                *held.entry(member.node).or_default() += 1;
                if current.index_of(member.node).is_none() {
                    *preparing.entry(member.node).or_default() += 1;
                }
            }
        }
        let nodes: BTreeMap<NodeId, &NodeInfo> = nodes.iter().map(|node| (node.id, node)).collect();
        let takes = |node: &&NodeId| nodes.get(*node).is_some_and(|info| info.capacity > 0);
        let arriving = arriving.iter().filter(takes).copied().collect();
        Self { seed, nodes, coming, held, arriving, silent: Vec::new(), preparing }
    }

    /// The same while these nodes, ascending, are silent: nobody gives a seat where too few of the others are heard of
    /// ([`risk::of_leaving`]).
    #[must_use]
    pub fn while_silent(self, silent: &[NodeId]) -> Self {
        Self { silent: silent.to_vec(), ..self }
    }

    fn usable(&self, node: NodeId) -> Option<&'a NodeInfo> {
        self.nodes.get(&node).copied().filter(|info| info.capacity > 0)
    }

    fn seats(&self, node: NodeId) -> u64 {
        self.held.get(&node).copied().unwrap_or(0)
    }

    /// The next members of a committee that needs no other change: a node that joins has taken a seat. What is being
    /// prepared with that result goes on. `missing` is how many seats the group has too few. `None` when nobody takes one.
    pub fn next(&mut self, current: &Committee, missing: usize) -> Option<Vec<Member>> {
        if let Some(coming) = self.coming.get(&current.group)
            && self.is_ours(current, coming)
        {
            return Some(coming.members.clone());
        }
        let rests = |node: &&NodeId| self.preparing.get(*node).is_none_or(|groups| *groups < ARRIVALS_AT_ONCE);
        let takings = self.arriving.iter().filter(rests).filter_map(|node| self.taking(current, *node, missing));
        let Taking { node, from } = takings.min_by_key(|taking| (self.load(taking.node, 1), taking.node))?;
        let info = self.usable(node)?;
        let mut members: Vec<Member> =
            current.members.iter().filter(|member| Some(member.node) != from).cloned().collect();
        members.push(Member { node, org: info.org, key: info.key });
        members.sort_by_key(|member| member.node);
        *self.held.entry(node).or_default() += 1;
        *self.preparing.entry(node).or_default() += 1;
        if let Some(from) = from {
            self.held.entry(from).and_modify(|seats| *seats = seats.saturating_sub(1));
        }
        Some(members)
    }

    /// Whether a node takes a seat in a group: it is being prepared there, or would be.
    #[must_use]
    pub fn is_open(&self, current: &Committee, node: NodeId, missing: usize) -> bool {
        let joins = |coming: &&Committee| coming.index_of(node).is_some() && current.index_of(node).is_none();
        let prepared = self.coming.get(&current.group).is_some_and(joins);
        self.arriving.contains(&node) && (prepared || self.taking(current, node, missing).is_some())
    }

    /// Whether what is being prepared brings nodes that join, and nothing has come in between.
    fn is_ours(&self, current: &Committee, coming: &Committee) -> bool {
        let joining = seats::joining(current, coming);
        let stays = |member: &&Member| coming.index_of(member.node).is_some();
        let leaving = current.members.iter().filter(|member| !stays(member)).count();
        coming.engine == current.engine
            && !joining.is_empty()
            && leaving <= joining.len()
            && joining.iter().all(|node| self.arriving.contains(node))
            && current.members.iter().filter(stays).all(|member| self.usable(member.node).is_some())
    }

    /// Millionths of a seat for a unit of capacity, with so many seats more.
    fn load(&self, node: NodeId, more: u64) -> u64 {
        let capacity = self.usable(node).map_or(1, |info| u64::from(info.capacity));
        (self.seats(node) + more) * 1_000_000 / capacity
    }

    /// The seat that a node would take in a group: one that nobody has, else that of the member with most load for its
    /// capacity, if the one that comes has less load even with it, and does not spread the committee worse over
    /// organisations, then zones. As the sum of the squares of the loads falls with each, it ends. Nobody takes a seat of
    /// the beacon from another one only to even something out: each change of its committee is a step that everybody who
    /// begins with the genesis has to follow.
    fn taking(&self, current: &Committee, node: NodeId, missing: usize) -> Option<Taking> {
        let info = self.usable(node).filter(|_| current.index_of(node).is_none())?;
        if missing > 0 {
            return Some(Taking { node, from: None });
        }
        if current.group == GroupId::BEACON {
            return None;
        }
        let heard = |other: NodeId| self.silent.binary_search(&other).is_err();
        let givers = self.givers(current, info);
        let givers = givers.filter(|other| risk::of_leaving(current, other.id, heard).is_none());
        let chance = |other: NodeId| {
            let parts: [&[u8]; 3] = [&self.seed.0, &current.group.0.to_be_bytes(), &other.0.to_be_bytes()];
            tagged(b"seamark/even/v1", &parts)
        };
        let giver = givers.max_by_key(|other| (self.load(other.id, 0), chance(other.id)))?;
        Some(Taking { node, from: Some(giver.id) })
    }

    /// The members of a committee whose seat a node could take, whoever is silent.
    fn givers(&self, current: &Committee, info: &NodeInfo) -> impl Iterator<Item = &'a NodeInfo> {
        let gains = move |other: &NodeInfo| {
            (self.seats(info.id) + 1) * u64::from(other.capacity) < self.seats(other.id) * u64::from(info.capacity)
        };
        let members = current.members.iter().filter_map(move |member| self.usable(member.node));
        members
            .filter(move |other| gains(other))
            .filter(move |other| self.spread(current, other.id, info) <= self.spread(current, other.id, other))
    }

    /// The members of a shard's committee whose seat a node that joins could take, whoever is silent; none in another
    /// group, and none where it has a seat or may take none.
    #[must_use]
    pub fn givers_to(&self, current: &Committee, node: NodeId) -> Vec<NodeId> {
        let taker = self.usable(node).filter(|_| current.index_of(node).is_none());
        match taker.filter(|_| current.group.kind() == Some(GroupKind::Shard)) {
            Some(info) => self.givers(current, info).map(|giver| giver.id).collect(),
            None => Vec::new(),
        }
    }

    /// Seats of a node's organisation, then of its zone, among the others of a committee.
    fn spread(&self, current: &Committee, without: NodeId, node: &NodeInfo) -> (usize, usize) {
        let others = || current.members.iter().filter(|member| member.node != without);
        let zone = |member: &&Member| self.nodes.get(&member.node).is_some_and(|other| other.zone == node.zone);
        (others().filter(|member| member.org == node.org).count(), others().filter(zone).count())
    }
}

/// The members of a committee in which those who leave are followed by the nodes that were named for it, as many as may
/// move in one step. `None` when nobody was named who could come.
#[must_use]
pub fn succeeded(
    current: &Committee,
    nodes: &[NodeInfo],
    successors: &BTreeMap<NodeId, NodeId>,
) -> Option<Vec<Member>> {
    let usable = |node: NodeId| nodes.iter().find(|info| info.id == node && info.capacity > 0);
    let mut members = current.members.clone();
    let leaving = current.members.iter().map(|member| member.node).filter(|node| usable(*node).is_none());
    let mut moved = 0;
    for node in leaving {
        let successor = successors.get(&node).and_then(|successor| usable(*successor));
        let Some(successor) = successor.filter(|info| members.iter().all(|member| member.node != info.id)) else {
            continue;
        };
        if moved == seats::step(current) {
            break;
        }
        members.retain(|member| member.node != node);
        members.push(Member { node: successor.id, org: successor.org, key: successor.key });
        moved += 1;
    }
    members.sort_by_key(|member| member.node);
    (moved > 0).then_some(members)
}
