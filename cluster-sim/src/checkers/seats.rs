//! Seats of groups that were founded while the cluster ran, and of shards where these move: who is no member holds no state
//! of the group, and removal is final.
//!
//! A node has a replica only if a committee of the group, in force or planned, has ever named it; none any
//! more once it has been told by the group's leader that it may go, unless a later plan names it; and in
//! the end exactly those in the committee in force have one. A node applies a block only if it is in the
//! committee in force before that block or before one that the group has made since, or in the one that the
//! group is being prepared for there, or if it votes by the log before the block's entry: so whoever is out
//! by all three gets nothing that comes later, also no state by another way. Whoever is to join gets all
//! that there was before, be it as a state or as the log behind an older one. What a node that is on its
//! way out got before, it got. Under the Byzantine engine the log says nothing of voters: there those in the
//! committee vote, from the entry on behind the one that puts it into force.
//!
//! A committee comes into force only when each node that joins by it has got a state with the replica that it began
//! for that committee: what it has left of an earlier time does not count. The replica begins when the registry plans
//! the committee, which the group may hear later: a member that knows only an earlier plan with the node lends it a
//! state, too, and from there on it gets what comes, the block with the new plan among that.

use std::collections::{BTreeMap, BTreeSet};

use cross_shard::Message;
use ledger::committee::{Committee, Engine};
use ledger::foundation::Foundation;
use ledger::ids::{GroupId, GroupKind, NodeId};

use super::{BftSeen, BlockSeen, Checker, Facts, Governed, Moment, RawReplica, Seen};
use crate::seat::join_at;

/// One group.
struct Group {
    current: Committee,
    plan: Option<Committee>,
    /// Who has got a state, and the joins of the replicas that did, while they are there.
    fetched: BTreeSet<(NodeId, u16)>,
    /// What comes next in the beacon's stream.
    told: u64,
    /// Who is in the committee or the plan behind it.
    after: BTreeMap<u64, BTreeSet<NodeId>>,
    /// Who votes behind an entry of the log, by its index.
    voters: BTreeMap<u64, BTreeSet<NodeId>>,
    /// The committee that the beacon has put into force last.
    in_force: Committee,
}

/// The seats of all groups.
#[derive(Default)]
pub struct Seats {
    groups: BTreeMap<GroupId, Group>,
    /// The highest epoch of a committee that names a node, in force or planned.
    named: BTreeMap<(GroupId, NodeId), u64>,
    /// Nodes that had to leave, and the highest epoch that they had heard of.
    left: BTreeMap<(GroupId, NodeId), u64>,
    /// Whether the shards of the genesis are among the groups.
    knows_genesis: bool,
}

fn nodes(committee: &Committee) -> impl Iterator<Item = NodeId> {
    committee.members.iter().map(|member| member.node)
}

impl Group {
    fn new(first: &Committee) -> Self {
        Self {
            current: first.clone(),
            plan: None,
            fetched: BTreeSet::new(),
            told: 0,
            after: BTreeMap::from([(0, nodes(first).collect())]),
            voters: BTreeMap::from([(0, nodes(first).collect())]),
            in_force: first.clone(),
        }
    }

    fn entitled(&self) -> BTreeSet<NodeId> {
        nodes(&self.current).chain(self.plan.iter().flat_map(nodes)).collect()
    }

    /// Who votes by the log before an index.
    fn votes_before(&self, index: u64, node: NodeId) -> bool {
        self.voters.range(..index).next_back().is_some_and(|(_, voters)| voters.contains(&node))
    }

    /// A block of which no replica has told before.
    fn first(&mut self, block: &BlockSeen, found: &mut Vec<String>) {
        for governed in &block.governed {
            let (Governed::Planned(seq, committee) | Governed::Seated(seq, committee)) = governed else { continue };
            if *seq < self.told {
                continue;
            }
            self.told = *seq + 1;
            if matches!(governed, Governed::Seated(..)) {
                let join = join_at(committee);
                let lacks =
                    |node: &NodeId| self.current.index_of(*node).is_none() && !self.fetched.contains(&(*node, join));
                for node in nodes(committee).filter(lacks) {
                    let (epoch, group) = (committee.epoch, block.group);
                    found.push(format!("epoch {epoch} of {group} is in force, and node {node} has not got its state"));
                }
                if committee.engine == Engine::Bft {
                    self.voters.insert(block.position.index, nodes(committee).collect());
                }
                self.current = committee.clone();
                self.plan = self.plan.take().filter(|plan| plan.epoch > committee.epoch);
            } else {
                self.plan = (*committee != self.current).then(|| committee.clone());
            }
        }
        self.after.insert(block.header.height.0, self.entitled());
    }

    /// Whether a node is in the committee or the plan behind a block, or behind one that was made since.
    fn entitles(&self, height: u64, node: NodeId) -> bool {
        self.after.range(height..).any(|(_, nodes)| nodes.contains(&node))
    }
}

impl Seats {
    fn founded(&mut self, foundation: &Foundation) {
        let (group, first) = (foundation.group, &foundation.committee);
        self.groups.entry(group).or_insert_with(|| Group::new(first));
        self.note(first);
    }

    /// A shard whose seats may move.
    fn shard(&mut self, first: &Committee) {
        self.groups.entry(first.group).or_insert_with(|| Group::new(first));
        self.note(first);
    }

    fn note(&mut self, committee: &Committee) {
        for node in nodes(committee) {
            let known = self.named.entry((committee.group, node)).or_insert(0);
            *known = committee.epoch.0.max(*known);
        }
    }

    fn beacon(&mut self, block: &BlockSeen) {
        for (dest, _, message) in &block.mail {
            match message {
                Message::CommitteePlan(plan) => self.note(plan),
                Message::CommitteeUpdate(seated) if seated.group == *dest => {
                    self.note(seated);
                    if let Some(group) = self.groups.get_mut(dest) {
                        group.in_force = seated.clone();
                    }
                }
                _ => {}
            }
        }
    }

    fn applied(&mut self, block: &BlockSeen, first: bool, found: &mut Vec<String>) {
        let (node, height) = (block.node, block.header.height.0);
        let Some(group) = self.groups.get_mut(&block.group) else { return };
        if first {
            group.first(block, found);
        }
        if !group.entitles(height - 1, node) && !group.votes_before(block.position.index, node) {
            found.push(format!("node {node} applied height {height} of {}, where it has nothing to say", block.group));
        }
    }

    fn fetched(
        &mut self,
        (node, join): (NodeId, u16),
        group: GroupId,
        height: u64,
        index: u64,
        found: &mut Vec<String>,
    ) {
        let Some(known) = self.groups.get_mut(&group) else { return };
        known.fetched.insert((node, join));
        let votes = known.votes_before(index + 1, node)
            || known.voters.range(index + 1..).any(|(_, voters)| voters.contains(&node));
        if !known.entitles(height, node) && !votes {
            found.push(format!("node {node} got the state of {group} at height {height}, and had no right to it"));
        }
    }
}

impl Checker for Seats {
    fn name(&self) -> &'static str {
        "seats"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if facts.seats_move && !self.knows_genesis {
            self.knows_genesis = true;
            let shards = facts.genesis.committees.iter();
            shards
                .filter(|committee| committee.group.kind() == Some(GroupKind::Shard))
                .for_each(|committee| self.shard(committee));
        }
        match seen {
            Seen::Born(born) if facts.seats_move => {
                let (group, hash) = (born.header.group, &born.header.committee_hash);
                match facts.committee(group, hash) {
                    Some(begins) => self.shard(begins),
                    None => found.push(format!("{group} begins with a committee that nobody has put into force")),
                }
            }
            Seen::Founded(foundation) => self.founded(foundation),
            Seen::Block(block) if block.group == GroupId::BEACON && first => self.beacon(block),
            Seen::Block(block) if block.group == GroupId::BEACON => {}
            Seen::Block(block) => self.applied(block, first, found),
            Seen::Fetched { node, join, group, height, index }
            | Seen::Bft(BftSeen::Installed { node, join, group, height, index }) => {
                self.fetched((*node, *join), *group, height.0, *index, found);
            }
            Seen::Voters { group, index, voters, .. } => {
                if let Some(known) = self.groups.get_mut(group) {
                    known.voters.insert(*index, voters.iter().copied().collect());
                }
            }
            Seen::Left { node, group, epoch, rejoins } => {
                // What it had goes with the replica.
                if let Some(known) = self.groups.get_mut(group) {
                    known.fetched.retain(|(other, _)| other != node);
                }
                if !rejoins {
                    self.left.insert((*group, *node), *epoch);
                }
            }
            _ => {}
        }
    }

    fn audit(&mut self, _: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        for replica in replicas {
            let Some(group) = self.groups.get(&replica.group) else { continue };
            let key = (replica.group, replica.node);
            let (named, left) = (self.named.get(&key), self.left.get(&key));
            let (node, of) = (replica.node, replica.group);
            match (named, left) {
                (None, _) => found.push(format!("node {node} holds state of {of} and never had a seat there")),
                (Some(named), Some(left)) if named <= left => {
                    found.push(format!("node {node} holds state of {of}, which goes on without it"));
                }
                _ => {}
            }
            if moment == Moment::End && nodes(&group.in_force).all(|seated| seated != node) {
                found.push(format!("node {node} holds state of {of} and is not in its committee"));
            }
        }
    }
}
