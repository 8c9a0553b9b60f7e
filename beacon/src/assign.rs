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

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Engine;
use ledger::genesis::NodeInfo;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId};
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
    let pool = Pool::new(nodes, constraints)?;
    let mut groups = groups.to_vec();
    groups.sort_by_key(|wanted| wanted.group);
    if let Some(pair) = groups.windows(2).find(|pair| pair[0].group == pair[1].group) {
        return Err(AssignError::DuplicateGroup(pair[0].group));
    }
    if nodes.len() > ASSIGNED_NODES_MAX || groups.len() > SHARDS_MAX + 1 {
        return Err(AssignError::TooMany { nodes: nodes.len(), groups: groups.len() });
    }
    let mut load = pool.held.clone();
    let mut tables = Vec::with_capacity(groups.len());
    let mut known: BTreeMap<(u16, Engine), Caps> = BTreeMap::new();
    for wanted in &groups {
        // Caps depend on the number of seats and on the engine alone.
        let kind = (wanted.seats, wanted.engine);
        let caps = match known.get(&kind) {
            Some(caps) => *caps,
            None => *known.entry(kind).or_insert(pool.caps(wanted, constraints)?),
        };
        let order = pool.ranked(seed, wanted.group);
        tables.push(pool.seat(caps, &order, &mut load));
    }
    pool.balance(&mut tables, &mut load);
    let members = tables.into_iter().map(|table| pool.members(&table));
    Ok(groups.iter().map(|wanted| wanted.group).zip(members).collect())
}
