//! Assignment: which nodes take the seats of which group.
//!
//! A pure function of a seed, the registry and the wanted seats, so that anyone can recompute it.
//! Random sampling alone is unsafe at consortium size (DESIGN §9), so committees are stratified: an
//! organisation, and a zone, gets no more seats than the committee tolerates faults: a minority under
//! Raft, less than a third where a Byzantine engine orders. Within that, seats follow capacity and load.
//! Chance comes only from
//! `sha256("seamark/assign/v1" ‖ seed ‖ group ‖ node)` and breaks ties.
//!
//! Each group first takes its least loaded nodes within the caps. Chains of swaps then move seats
//! from the most to the least loaded nodes, each swap within the caps, until none helps. With
//! organisations alone these chains are the augmenting paths of a flow, so the balance is the best
//! there is; zones on top make it a heuristic.
//!
//! [`redeal`] is the same where seats are held already: nobody moves without need.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Engine;
use ledger::genesis::NodeInfo;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId, OrgId};
use ledger::limits::COMMITTEE_MAX;

use crate::limits::{ASSIGNED_NODES_MAX, SHARDS_MAX};

mod pool;

use pool::{Caps, Pool};

/// A group, how many seats its committee has, and what orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GroupSeats {
    /// The group.
    pub group: GroupId,
    /// Replicas wanted, from 1 to the limit of committees.
    pub seats: u16,
    /// Which faults the committee is to outlive, and so how many seats an organisation and a zone may have.
    pub engine: Engine,
}

/// What assignment knows of a node.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its organisation.
    pub org: OrgId,
    /// Its failure zone.
    pub zone: String,
    /// Its weight; with zero it takes no seat.
    pub capacity: u16,
}

impl From<&NodeInfo> for Candidate {
    fn from(info: &NodeInfo) -> Self {
        Self { node: info.id, org: info.org, zone: info.zone.clone(), capacity: info.capacity }
    }
}

/// A group whose seats are held.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Seated {
    /// The group.
    pub group: GroupId,
    /// What orders it.
    pub engine: Engine,
    /// Who has a seat, ascending.
    pub members: Vec<NodeId>,
}

/// What an assignment has to respect besides the seats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Refuse, instead of spreading as evenly as possible, when there are too few organisations.
    pub strict: bool,
    /// Seats that nodes hold in groups that are not part of this assignment.
    pub held: BTreeMap<NodeId, u32>,
}

/// Why no assignment exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// Fewer usable nodes than seats.
    #[error(
        "{group} needs {seats} replicas, but only {nodes} nodes have capacity; add nodes or ask for fewer replicas"
    )]
    TooFewNodes {
        /// The group.
        group: GroupId,
        /// Seats asked for.
        seats: usize,
        /// Nodes with a capacity above zero.
        nodes: usize,
    },
    /// No seat, or more than a committee may have.
    #[error("{group} asks for {seats} replicas; a committee has 1 to {COMMITTEE_MAX}")]
    Seats {
        /// The group.
        group: GroupId,
        /// Seats asked for.
        seats: usize,
    },
    /// Fewer seats than the engine makes sense with.
    #[error(
        "{group} asks for {seats} replicas and for {engine}, which needs at least {}: of 3f + 1 replicas f may lie; ask for more replicas, or for raft",
        .engine.least_members()
    )]
    Engine {
        /// The group.
        group: GroupId,
        /// Seats asked for.
        seats: usize,
        /// The engine.
        engine: Engine,
    },
    /// A node is listed twice.
    #[error("node {0} is listed twice")]
    DuplicateNode(NodeId),
    /// A group is listed twice.
    #[error("{0} is listed twice")]
    DuplicateGroup(GroupId),
    /// More nodes or groups than assignment takes.
    #[error(
        "{nodes} nodes and {groups} groups are over the limits of {ASSIGNED_NODES_MAX} nodes and {SHARDS_MAX} shards with the beacon"
    )]
    TooMany {
        /// Nodes given.
        nodes: usize,
        /// Groups given.
        groups: usize,
    },
    /// Strict, and one organisation would get more seats than the committee tolerates faults.
    #[error(
        "{group} with {seats} replicas would give one organisation {needed} seats, and it tolerates {tolerated} faults; add nodes of other organisations"
    )]
    Stratification {
        /// The group.
        group: GroupId,
        /// Seats asked for.
        seats: usize,
        /// Seats one organisation would need to take.
        needed: usize,
        /// Faults the committee tolerates.
        tolerated: usize,
    },
}

impl AssignError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooFewNodes { .. } => "assign_too_few_nodes",
            Self::Seats { .. } => "assign_seats",
            Self::Engine { .. } => "assign_engine",
            Self::DuplicateNode(_) => "assign_duplicate_node",
            Self::DuplicateGroup(_) => "assign_duplicate_group",
            Self::TooMany { .. } => "assign_too_many",
            Self::Stratification { .. } => "assign_stratification",
        }
    }
}

/// The members of every group, both sorted. The order of `nodes` and `groups` has no influence;
/// nodes with capacity zero get no seat.
///
/// # Errors
/// [`AssignError`] names the group or node that makes it impossible.
pub fn assign(
    seed: &Hash32,
    nodes: &[NodeInfo],
    groups: &[GroupSeats],
    constraints: &Constraints,
) -> Result<Vec<(GroupId, Vec<NodeId>)>, AssignError> {
    let candidates: Vec<Candidate> = nodes.iter().map(Candidate::from).collect();
    let pool = Pool::new(&candidates, &constraints.held)?;
    let mut groups = groups.to_vec();
    groups.sort_by_key(|wanted| wanted.group);
    let ids: Vec<GroupId> = groups.iter().map(|wanted| wanted.group).collect();
    check_counts(nodes.len(), &ids)?;
    let mut load = pool.held.clone();
    let mut tables = Vec::with_capacity(groups.len());
    let mut known: BTreeMap<(u16, Engine), Caps> = BTreeMap::new();
    for wanted in &groups {
        let caps = caps_of(&pool, wanted, constraints.strict, &mut known)?;
        let order = pool.ranked(seed, wanted.group);
        tables.push(pool.seat(caps, &order, &mut load));
    }
    pool.balance(&mut tables, &mut load);
    let members = tables.into_iter().map(|table| pool.members(&table));
    Ok(ids.into_iter().zip(members).collect())
}

/// The members of every group whose seats are held, both sorted, after a deal: a member stays unless it can take no seat
/// any more, or its organisation or zone has more than its share. With `even`, seats also move from loaded to less loaded
/// nodes until nothing improves. `held` are the seats that nodes have in groups that are not dealt. A committee that
/// cannot be filled stays as it is. The order of `nodes` and `groups` has no influence.
///
/// # Errors
/// [`AssignError`] when a node or a group is listed twice, or there are too many of them.
pub fn redeal(
    seed: &Hash32,
    nodes: &[Candidate],
    groups: &[Seated],
    held: &BTreeMap<NodeId, u32>,
    even: bool,
) -> Result<Vec<(GroupId, Vec<NodeId>)>, AssignError> {
    let pool = Pool::new(nodes, held)?;
    let mut groups = groups.to_vec();
    groups.sort_by_key(|seated| seated.group);
    let ids: Vec<GroupId> = groups.iter().map(|seated| seated.group).collect();
    check_counts(nodes.len(), &ids)?;
    let mut load = pool.held.clone();
    for node in groups.iter().flat_map(|seated| &seated.members).filter_map(|node| pool.place(*node)) {
        load[node] += 1;
    }
    let mut known: BTreeMap<(u16, Engine), Caps> = BTreeMap::new();
    let (mut dealt, mut tables) = (Vec::new(), Vec::new());
    for seated in &groups {
        // More seats than a committee may have are refused with the caps.
        let seats = u16::try_from(seated.members.len()).unwrap_or(u16::MAX);
        let wanted = GroupSeats { group: seated.group, seats, engine: seated.engine };
        let Ok(caps) = caps_of(&pool, &wanted, false, &mut known) else { continue };
        let order = pool.ranked(seed, seated.group);
        tables.push(pool.reseat(caps, &order, &seated.members, &mut load));
        dealt.push(seated.group);
    }
    if even {
        pool.balance(&mut tables, &mut load);
    }
    let mut members: BTreeMap<GroupId, Vec<NodeId>> =
        groups.into_iter().map(|seated| (seated.group, seated.members)).collect();
    members.extend(dealt.into_iter().zip(tables).map(|(group, table)| (group, pool.members(&table))));
    Ok(members.into_iter().collect())
}

/// Caps depend on the number of seats and on the engine alone.
fn caps_of(
    pool: &Pool,
    wanted: &GroupSeats,
    strict: bool,
    known: &mut BTreeMap<(u16, Engine), Caps>,
) -> Result<Caps, AssignError> {
    let kind = (wanted.seats, wanted.engine);
    if let Some(caps) = known.get(&kind) {
        return Ok(*caps);
    }
    let caps = pool.caps(wanted, strict)?;
    known.insert(kind, caps);
    Ok(caps)
}

fn check_counts(nodes: usize, sorted: &[GroupId]) -> Result<(), AssignError> {
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(AssignError::DuplicateGroup(pair[0]));
    }
    if nodes > ASSIGNED_NODES_MAX || sorted.len() > SHARDS_MAX + 1 {
        return Err(AssignError::TooMany { nodes, groups: sorted.len() });
    }
    Ok(())
}
