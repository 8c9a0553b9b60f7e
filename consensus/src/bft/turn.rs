//! Turns: who proposes, as a pure function of what was decided.
//!
//! One member proposes as long as it does so in time, as a leader of Raft does: whoever holds a client's
//! transaction knows whom to give it to, and a member that is dead or silent costs its time-out once, not in
//! every cycle. What keeps a leader honest is that its turn ends: after [`TURN_ENTRIES`] entries the next
//! member leads, so that nobody can hold a transaction back for longer.
//!
//! A member whose turn passed without a value from it is left out of the next turns, of twice as many each
//! time up to [`SKIPS_MAX`]; one that has led for a whole turn is forgiven. Everything here follows from
//! decided values alone, so all members agree on it.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::ids::NodeId;

use super::value::Value;

/// Entries of one turn.
pub const TURN_ENTRIES: u64 = 1024;
/// Turns that a member is left out of at most, in a row.
pub const SKIPS_MAX: u16 = 64;

/// A member that has missed a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Missed {
    /// The member.
    pub node: NodeId,
    /// How many of its turns it is left out of from here on.
    pub skips: u16,
    /// How many it is left out of when it misses the next one.
    pub next: u16,
}

/// Who proposes next.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Turn {
    /// Proposes in round 0.
    pub leader: NodeId,
    /// The entry that its turn ends with.
    pub until: u64,
    /// Members that have missed a turn, sorted by node.
    pub missed: Vec<Missed>,
}

impl Turn {
    /// The first turn, behind entry `index`.
    #[must_use]
    pub fn first(index: u64, committee: &Committee) -> Self {
        let nodes = committee.members.len() as u64;
        let at = usize::try_from(index % nodes.max(1)).unwrap_or(0);
        let leader = committee.members.get(at).map_or(NodeId(0), |member| member.node);
        Self { leader, until: index + TURN_ENTRIES, missed: Vec::new() }
    }

    /// The proposer of a round: the leader, and then the members behind it, one after the other.
    #[must_use]
    pub fn proposer(&self, committee: &Committee, round: u32) -> NodeId {
        let members = &committee.members;
        let at = members.partition_point(|member| member.node < self.leader);
        let nth = (at + round as usize % members.len().max(1)) % members.len().max(1);
        members.get(nth).map_or(self.leader, |member| member.node)
    }

    /// The turn behind a value that was decided by `committee`. The leader is who made the value; the members
    /// of the rounds before have missed their turn.
    #[must_use]
    pub fn after(&self, value: &Value, committee: &Committee) -> Self {
        let mut next = self.clone();
        next.missed.retain(|missed| committee.index_of(missed.node).is_some());
        for round in 0..value.round.min(committee.members.len() as u32) {
            next.miss(self.proposer(committee, round));
        }
        if value.proposer != self.leader {
            next.leader = value.proposer;
            next.until = value.index + TURN_ENTRIES;
        }
        let heir = value.heir.filter(|heir| committee.index_of(*heir).is_some());
        if let Some(heir) = heir {
            next.leader = heir;
            next.until = value.index + TURN_ENTRIES;
        } else if value.index >= next.until {
            next.forgive(next.leader);
            next.rotate(committee);
            next.until = value.index + TURN_ENTRIES;
        }
        next
    }

    fn miss(&mut self, node: NodeId) {
        match self.missed.binary_search_by_key(&node, |missed| missed.node) {
            Ok(at) => {
                let missed = &mut self.missed[at];
                missed.skips = missed.next;
                missed.next = (missed.next * 2).min(SKIPS_MAX);
            }
            Err(at) => self.missed.insert(at, Missed { node, skips: 1, next: 2 }),
        }
    }

    fn forgive(&mut self, node: NodeId) {
        self.missed.retain(|missed| missed.node != node);
    }

    /// The next member that is not left out; the next one when all are.
    fn rotate(&mut self, committee: &Committee) {
        let members = &committee.members;
        let behind = members.partition_point(|member| member.node <= self.leader);
        let order = (0..members.len()).map(|step| members[(behind + step) % members.len()].node);
        let order: Vec<NodeId> = order.collect();
        for node in &order {
            match self.missed.iter_mut().find(|missed| missed.node == *node && missed.skips > 0) {
                Some(missed) => missed.skips -= 1,
                None => {
                    self.leader = *node;
                    return;
                }
            }
        }
        if let Some(node) = order.first() {
            self.leader = *node;
        }
    }
}
