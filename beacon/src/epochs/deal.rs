//! The deal of an epoch: which seats are to move once its seed is known, and how they do.
//!
//! A deal is a pure function of what it names: seed, nodes, committees, and whether seats are to be evened out. It is kept
//! with all of that, so that anyone recomputes it. What it wants is carried out a step at a time by [`crate::seats`], behind
//! whatever needs to change first; nobody moves without need.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::{Committee, Member};
use ledger::genesis::NodeInfo;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{GroupId, GroupKind, NodeId};
use ledger::view::View;

use super::{EPOCH_VERSION, EpochFault, EpochPolicy};
use crate::assign::{AssignError, Candidate, Seated, redeal};
use crate::nodes;
use crate::registry;
use crate::risk;
use crate::seats;

/// What a deal was made of, and what it came to.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Deal {
    /// Format version, [`EPOCH_VERSION`].
    pub version: u8,
    /// The epoch behind which it was decided.
    pub epoch: u64,
    /// Its seed.
    pub seed: Hash32,
    /// Whether seats are evened out, as 'rebalance' asks for; else only what breaks a rule moves.
    pub even: bool,
    /// Bad nodes that the target of risk counts with.
    pub bad_nodes: u16,
    /// The target of risk, in parts of a thousand million; zero is none.
    pub risk_max_ppb: u64,
    /// All nodes, ascending; one that may take no seat has no capacity.
    pub nodes: Vec<Candidate>,
    /// Seats in groups that are not dealt: the beacon and channels.
    pub held: Vec<(NodeId, u32)>,
    /// The shards and their seats as they were, ascending.
    pub groups: Vec<Seated>,
    /// The largest risk of one of these committees, in parts of a thousand million; zero where no target is set.
    pub risk_ppb: u64,
    /// The groups whose seats are to move, and who is to have a seat there, both ascending. None when the risk is above the
    /// target.
    pub moves: Vec<(GroupId, Vec<NodeId>)>,
}

impl Deal {
    /// Decides by the registry as it stands.
    pub(super) fn decide(view: &mut View<'_>, epoch: u64, policy: &EpochPolicy, even: bool) -> Self {
        let barred = nodes::barred(view);
        let known = seats::seatable(&registry::nodes(view), &barred);
        let committees = registry::committees(view);
        let seed = registry::seed(view).unwrap_or_default();
        Self::of((epoch, seed), &known, &committees, policy, even)
    }

    /// As it would be decided with this seed by these nodes and committees, for whoever looks ahead. Nodes that may take
    /// no seat have no capacity.
    #[must_use]
    pub fn of(
        (epoch, seed): (u64, Hash32),
        nodes: &[NodeInfo],
        committees: &[Committee],
        policy: &EpochPolicy,
        even: bool,
    ) -> Self {
        let mut nodes: Vec<Candidate> = nodes.iter().map(Candidate::from).collect();
        nodes.sort_by_key(|node| node.node);
        let is_dealt = |committee: &&Committee| committee.group.kind() == Some(GroupKind::Shard);
        let (dealt, others): (Vec<&Committee>, Vec<&Committee>) = committees.iter().partition(is_dealt);
        let mut held: BTreeMap<NodeId, u32> = BTreeMap::new();
        for member in others.iter().flat_map(|committee| &committee.members) {
            *held.entry(member.node).or_default() += 1;
        }
        let seated = |committee: &&Committee| Seated {
            group: committee.group,
            engine: committee.engine,
            members: committee.members.iter().map(|member| member.node).collect(),
        };
        let mut groups: Vec<Seated> = dealt.iter().map(seated).collect();
        groups.sort_by_key(|seated| seated.group);
        let mut deal = Self {
            version: EPOCH_VERSION,
            epoch,
            seed,
            even,
            bad_nodes: policy.bad_nodes,
            risk_max_ppb: policy.risk_max_ppb,
            nodes,
            held: held.into_iter().collect(),
            groups,
            risk_ppb: 0,
            moves: Vec::new(),
        };
        deal.risk_ppb = deal.risk();
        // A registry lists no node and no group twice, and no more than assignment takes.
        deal.moves = deal.dealt().unwrap_or_default();
        deal
    }

    /// `sha256("seamark/deal/v1" ‖ borsh)`.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        tagged(b"seamark/deal/v1", &[&bytes])
    }

    /// Whether the risk is above the target, so that nothing is dealt.
    #[must_use]
    pub fn above_target(&self) -> bool {
        self.risk_max_ppb > 0 && self.risk_ppb > self.risk_max_ppb
    }

    /// The largest risk of one of the committees, where a target is set.
    fn risk(&self) -> u64 {
        if self.risk_max_ppb == 0 {
            return 0;
        }
        let usable = self.nodes.iter().filter(|node| node.capacity > 0).count();
        let sizes = self.groups.iter().map(|group| (group.members.len(), group.engine));
        worst_risk(usable, usize::from(self.bad_nodes), sizes)
    }

    fn dealt(&self) -> Result<Vec<(GroupId, Vec<NodeId>)>, AssignError> {
        if self.above_target() {
            return Ok(Vec::new());
        }
        let held = self.held.iter().copied().collect();
        let members = redeal(&self.seed, &self.nodes, &self.groups, &held, self.even)?;
        let stays = |group: GroupId, members: &[NodeId]| {
            self.groups.iter().any(|seated| seated.group == group && seated.members == members)
        };
        Ok(members.into_iter().filter(|(group, members)| !stays(*group, members)).collect())
    }

    /// Recomputes it from what it names.
    ///
    /// # Errors
    /// [`EpochFault`] names the group whose seats do not follow.
    pub fn check(&self) -> Result<(), EpochFault> {
        let epoch = self.epoch;
        let form = self.version == EPOCH_VERSION
            && self.nodes.windows(2).all(|pair| pair[0].node < pair[1].node)
            && self.groups.windows(2).all(|pair| pair[0].group < pair[1].group)
            && self.risk_ppb == self.risk();
        let moves = self.dealt().map_err(|_| EpochFault::Form(epoch))?;
        if !form {
            return Err(EpochFault::Form(epoch));
        }
        let differs = |(group, _): &&(GroupId, Vec<NodeId>)| {
            let of = |moves: &[(GroupId, Vec<NodeId>)]| moves.iter().find(|(found, _)| found == group).cloned();
            of(&moves) != of(&self.moves)
        };
        match moves.iter().chain(&self.moves).find(differs) {
            Some((group, _)) => Err(EpochFault::Assignment { epoch, group: *group }),
            None if moves == self.moves => Ok(()),
            None => Err(EpochFault::Form(epoch)),
        }
    }

    /// Whom the deal wants in a group: after its moves, or as it was.
    #[must_use]
    pub fn seats_of(&self, group: GroupId) -> Option<&[NodeId]> {
        let moved = self.moves.iter().find(|(found, _)| *found == group).map(|(_, members)| members.as_slice());
        moved.or_else(|| self.groups.iter().find(|found| found.group == group).map(|found| found.members.as_slice()))
    }
}

/// The largest risk of committees of these sizes, drawn from so many nodes, of which some are bad ([`risk::of_lot`]).
#[must_use]
pub fn worst_risk(nodes: usize, bad: usize, sizes: impl Iterator<Item = (usize, ledger::committee::Engine)>) -> u64 {
    let mut kinds: Vec<(usize, usize)> = sizes.map(|(seats, engine)| (seats, engine.tolerated(seats))).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.into_iter().map(|(seats, tolerated)| risk::of_lot(nodes, bad, seats, tolerated)).max().unwrap_or(0)
}

/// Whom a deal wants in a group, until it is so.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Target {
    /// The group.
    pub group: GroupId,
    /// The epoch whose deal wants it.
    pub epoch: u64,
    /// Who is to have a seat, ascending.
    pub members: Vec<NodeId>,
}

/// The next members of a committee on its way to these, as many as may move in one step: the seat of a node goes to one
/// of its organisation where it can, then to one of its zone, so that the committee is not spread worse on the way.
/// `None` when nobody moves, or nobody who is wanted may take a seat.
#[must_use]
pub fn step_towards(current: &Committee, target: &[NodeId], nodes: &[NodeInfo]) -> Option<Vec<Member>> {
    let known: BTreeMap<NodeId, &NodeInfo> = nodes.iter().map(|node| (node.id, node)).collect();
    let mut members = current.members.clone();
    let mut leaving: Vec<&NodeInfo> = current
        .members
        .iter()
        .filter(|member| !target.contains(&member.node))
        .filter_map(|member| known.get(&member.node).copied())
        .collect();
    let mut joining: Vec<&NodeInfo> = target
        .iter()
        .filter(|node| current.index_of(**node).is_none())
        .filter_map(|node| known.get(node).copied())
        .filter(|node| node.capacity > 0)
        .collect();
    for _ in 0..seats::step(current) {
        let pairs = leaving.iter().flat_map(|from| joining.iter().map(move |to| (*from, *to)));
        let best = pairs.min_by_key(|(from, to)| (from.org != to.org, from.zone != to.zone, from.id, to.id));
        let Some((from, to)) = best else { break };
        members.retain(|member| member.node != from.id);
        members.push(Member { node: to.id, org: to.org, key: to.key });
        leaving.retain(|node| node.id != from.id);
        joining.retain(|node| node.id != to.id);
    }
    members.sort_by_key(|member| member.node);
    (members != current.members).then_some(members)
}
