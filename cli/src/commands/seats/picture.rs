//! Where the seats are at one moment: the registry, what the nodes say, and what is missing until a change is done. Pure
//! but for the asking.

use beacon::arrivals::Shares;
use beacon::seats::{changes_keys_alone, joining, new_signers};
use beacon::{NodeLives, Risk, risk};
use client::Client;
use ledger::genesis::NodeInfo;
use ledger::limits::LAG_BLOCKS_MAX;
use ledger::{Committee, Engine, GroupId, GroupKind, Hash32, NodeId};
use proto::v1;

use crate::error::CliError;

/// One moment of a cluster.
pub(super) struct Picture {
    /// What the beacon holds about nodes, and the committees.
    pub(super) lives: NodeLives,
    /// What the nodes say.
    pub(super) status: v1::StatusReply,
}

impl Picture {
    /// Asks for it.
    pub(super) async fn take(client: &Client) -> Result<Self, CliError> {
        // In this order: what the nodes say is then as new as what they are asked about.
        let lives = client.node_lives().await?;
        Ok(Self { lives, status: client.status().await? })
    }

    /// The groups that a node has a seat in.
    pub(super) fn seats(&self, node: NodeId) -> Vec<GroupId> {
        let seated = self.lives.committees.iter().filter(|committee| committee.index_of(node).is_some());
        seated.map(|committee| committee.group).collect()
    }

    /// Channels among them.
    pub(super) fn channels(&self, node: NodeId) -> Vec<GroupId> {
        self.seats(node).into_iter().filter(|group| group.kind() == Some(GroupKind::Channel)).collect()
    }

    fn replicas(&self) -> impl Iterator<Item = (NodeId, &v1::ReplicaStatus)> {
        let nodes = self.status.nodes.iter();
        nodes.flat_map(|reply| reply.replicas.iter().map(|replica| (NodeId(reply.node), replica)))
    }

    fn replica(&self, node: NodeId, group: GroupId) -> Option<&v1::ReplicaStatus> {
        self.replicas().find(|(other, replica)| *other == node && replica.group == group.0).map(|(_, replica)| replica)
    }

    /// The replica that leads a group.
    fn leader(&self, group: GroupId) -> Option<&v1::ReplicaStatus> {
        let leading = self.replicas().map(|(_, replica)| replica).filter(|replica| replica.group == group.0);
        let leading = leading.filter(|replica| replica.leads && replica.stopped.is_empty());
        leading.max_by_key(|replica| (replica.term, replica.log_last, replica.round))
    }

    fn answers(&self, node: NodeId) -> bool {
        self.status.nodes.iter().any(|reply| reply.node == node.0)
    }

    /// Why the seats of a node may not move: a group in which too few members answer.
    pub(super) fn risk(&self, node: NodeId) -> Option<(GroupId, Risk)> {
        let mut concerned = self.lives.committees.iter().filter(|committee| committee.index_of(node).is_some());
        concerned.find_map(|committee| Some((committee.group, self.risk_in(committee, node)?)))
    }

    /// Why the seat of a node in a committee may not move.
    fn risk_in(&self, committee: &Committee, node: NodeId) -> Option<Risk> {
        let leader = self.leader(committee.group);
        let runs = |member: NodeId| {
            let replica = self.replica(member, committee.group).filter(|replica| replica.stopped.is_empty());
            replica.is_some_and(|replica| !is_voteless(member, replica, leader))
        };
        risk::of_leaving(committee, node, runs)
    }

    /// Why a node may not begin to take seats of others: one of those who could give it one may not. None where it has
    /// begun. The beacon chooses among them, and may know less about who answers.
    pub(super) fn risk_of_joining(&self, node: NodeId, nodes: &[NodeInfo]) -> Option<(NodeId, GroupId, Risk)> {
        let NodeLives { committees, coming, arriving, accused, vanished, .. } = &self.lives;
        if arriving.contains(&node) {
            return None;
        }
        let out = |id: NodeId| accused.contains(&id) || vanished.iter().any(|found| found.acts && found.node == id);
        let mut nodes = nodes.to_vec();
        nodes.iter_mut().filter(|info| out(info.id)).for_each(|info| info.capacity = 0);
        let shares = Shares::new(&Hash32::ZERO, &nodes, committees, coming, &[node]);
        committees.iter().find_map(|committee| {
            let mut givers = shares.givers_to(committee, node).into_iter();
            givers.find_map(|giver| Some((giver, committee.group, self.risk_in(committee, giver)?)))
        })
    }

    /// Why no seats may be dealt that nobody has to give up: a member of a shard that may not give its own.
    pub(super) fn risk_of_dealing(&self) -> Option<(NodeId, GroupId, Risk)> {
        let shards = self.lives.committees.iter().filter(|committee| committee.group.kind() == Some(GroupKind::Shard));
        let mut seats =
            shards.flat_map(|committee| committee.members.iter().map(move |member| (committee, member.node)));
        seats.find_map(|(committee, node)| Some((node, committee.group, self.risk_in(committee, node)?)))
    }

    /// What is missing until a node takes part wherever it has a seat, and has all that it is to have.
    pub(super) fn until_joined(&self, node: NodeId) -> Vec<String> {
        let mut missing = Vec::new();
        for committee in &self.lives.committees {
            let (group, leader) = (committee.group, self.leader(committee.group));
            let seated = committee.index_of(node).is_some();
            if !seated && self.is_coming(node, group) {
                missing.push(self.until_ready(node, committee, leader));
            } else if seated {
                missing.extend(self.until_seated(node, group, leader).map(|what| format!("{group}: {what}")));
            }
        }
        if self.lives.arriving.contains(&node) {
            missing.push("the beacon has more seats for it".to_owned());
            missing.extend(self.keys_awaited());
        }
        missing
    }

    /// Groups in which nobody takes a seat before a node has signed with its next key.
    fn keys_awaited(&self) -> impl Iterator<Item = String> {
        let plans = self.lives.coming.iter().filter_map(|plan| {
            let current = self.lives.committees.iter().find(|current| current.group == plan.group)?;
            changes_keys_alone(current, plan).then(|| (plan.group, new_signers(current, plan)))
        });
        plans.map(|(group, nodes)| {
            let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            format!("{group}: node {} comes first, and has not signed with its next key yet", nodes.join(", "))
        })
    }

    fn is_coming(&self, node: NodeId, group: GroupId) -> bool {
        self.lives.coming.iter().any(|plan| plan.group == group && plan.index_of(node).is_some())
    }

    /// What is missing until the committee that a node is named in can come into force.
    fn until_ready(&self, node: NodeId, committee: &Committee, leader: Option<&v1::ReplicaStatus>) -> String {
        let (group, replica) = (committee.group, self.replica(node, committee.group));
        let height = replica.map_or(0, |replica| replica.height);
        let of = leader.map_or(0, |leader| leader.height);
        let waits =
            committee.engine == Engine::Bft && replica.is_some_and(|replica| replica.learners.contains(&node.0));
        if waits && leader.is_some() && of <= height.saturating_add(LAG_BLOCKS_MAX) {
            return format!("{group}: it has the state, and follows until others let it vote");
        }
        format!("{group}: it fetches the state, and is at block {height} of {of}")
    }

    fn until_seated(&self, node: NodeId, group: GroupId, leader: Option<&v1::ReplicaStatus>) -> Option<String> {
        let Some(replica) = self.replica(node, group) else {
            let what = if self.answers(node) { "the node has not begun with it" } else { "the node does not answer" };
            return Some(what.to_owned());
        };
        if !replica.stopped.is_empty() {
            return Some(format!("its replica does not run: {}", replica.stopped));
        }
        let Some(leader) = leader else { return Some("nobody leads it".to_owned()) };
        if !leader.voters.contains(&node.0) {
            return Some("it is no voter yet".to_owned());
        }
        if is_voteless(node, replica, Some(leader)) {
            return Some("it follows without a vote".to_owned());
        }
        let behind = leader.height.saturating_sub(replica.height);
        (behind > LAG_BLOCKS_MAX).then(|| format!("it is {behind} blocks behind"))
    }

    /// What is missing until a node has no seat, no group counts on it, and it keeps nothing.
    pub(super) fn until_left(&self, node: NodeId) -> Vec<String> {
        let mut missing = Vec::new();
        for committee in &self.lives.committees {
            let (group, leader) = (committee.group, self.leader(committee.group));
            let counts =
                leader.is_some_and(|leader| leader.voters.contains(&node.0) || leader.learners.contains(&node.0));
            let keeps = self.replica(node, group).is_some();
            if committee.index_of(node).is_some() {
                let plan = self.lives.coming.iter().find(|plan| plan.group == group);
                let joins: Vec<String> = plan
                    .map(|plan| joining(committee, plan))
                    .into_iter()
                    .flatten()
                    .map(|node| node.to_string())
                    .collect();
                missing.push(match joins.is_empty() {
                    true => format!("{group}: its seat has not moved"),
                    false => format!("{group}: its seat has not moved; node {} fetches the state", joins.join(", ")),
                });
            } else if counts {
                missing.push(format!("{group}: the voters have not followed"));
            } else if keeps {
                missing.push(format!("{group}: the node has not removed its replica"));
            }
        }
        missing
    }
}

/// Whether a replica with a seat follows without a vote, though its group counts on one: by its own word it is a learner,
/// and whoever leads has it among the voters. Of one that the voters have not followed yet nobody expects a vote.
fn is_voteless(node: NodeId, replica: &v1::ReplicaStatus, leader: Option<&v1::ReplicaStatus>) -> bool {
    replica.learners.contains(&node.0) && leader.is_none_or(|leader| leader.voters.contains(&node.0))
}

#[cfg(test)]
pub(super) mod tests {
    use beacon::Watch;
    use ledger::{Epoch, Incarnation, Member, OrgId, PublicKey};

    use super::*;

    const SHARD: GroupId = GroupId::shard(0);

    fn of(engine: Engine, group: GroupId, nodes: &[u8]) -> Committee {
        let member = |node: &u8| Member { node: NodeId((*node).into()), org: OrgId(1), key: PublicKey([*node; 33]) };
        Committee::of(engine, group, Incarnation(0), Epoch(0), nodes.iter().map(member).collect())
    }

    fn committee(group: GroupId, nodes: &[u8]) -> Committee {
        of(Engine::Raft, group, nodes)
    }

    /// The shard on these nodes, of which the first that runs leads with these voters and learners.
    pub(in crate::commands::seats) fn picture(
        members: &[u8],
        running: &[u32],
        voters: &[u32],
        learners: &[u32],
    ) -> Picture {
        beside(&[1, 2], (members, running, voters, learners))
    }

    /// The same, beside a beacon on these nodes, which are its voters.
    fn beside(beacon: &[u8], (members, running, voters, learners): (&[u8], &[u32], &[u32], &[u32])) -> Picture {
        let of_beacon = |node: &u32| v1::ReplicaStatus {
            group: GroupId::BEACON.0,
            leads: *node == u32::from(beacon[0]),
            height: 70,
            voters: beacon.iter().copied().map(u32::from).collect(),
            ..v1::ReplicaStatus::default()
        };
        let of_shard = |node: &u32| v1::ReplicaStatus {
            group: SHARD.0,
            leads: running.first() == Some(node),
            height: if learners.contains(node) { 40 } else { 900 },
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            ..v1::ReplicaStatus::default()
        };
        let replica = |node: &u32| {
            let mut replicas = vec![of_shard(node)];
            replicas.extend(beacon.iter().any(|seated| u32::from(*seated) == *node).then(|| of_beacon(node)));
            v1::NodeStatusReply { node: *node, replicas, ..v1::NodeStatusReply::default() }
        };
        let lives = NodeLives {
            version: 2,
            committees: vec![committee(GroupId::BEACON, beacon), committee(SHARD, members)],
            coming: Vec::new(),
            arriving: Vec::new(),
            successors: Vec::new(),
            accused: Vec::new(),
            removed: Vec::new(),
            watch: Watch::DEFAULT,
            silent: Vec::new(),
            vanished: Vec::new(),
            notes: Vec::new(),
            seats: Vec::new(),
        };
        let status = v1::StatusReply { nodes: running.iter().map(replica).collect(), unreachable: Vec::new() };
        Picture { lives, status }
    }

    #[test]
    fn a_node_has_joined_when_it_votes_wherever_it_has_a_seat_and_nothing_more_is_for_it() {
        let said = |picture: &Picture| picture.until_joined(NodeId(4)).join("; ");
        let mut fetching = picture(&[1, 2, 3], &[1, 2, 3, 4], &[1, 2, 3], &[4]);
        fetching.lives.arriving.push(NodeId(4));
        fetching.lives.coming.push(committee(SHARD, &[1, 2, 4]));
        let text = said(&fetching);
        assert!(text.contains("shard-0: it fetches the state, and is at block 40 of 900"), "{text}");
        assert!(text.ends_with("the beacon has more seats for it"), "{text}");
        assert!(said(&picture(&[1, 2, 4], &[1, 2, 3], &[1, 2, 3], &[4])).contains("the node does not answer"));
        assert!(said(&picture(&[1, 2, 4], &[1, 2, 4], &[1, 2, 3], &[])).contains("no voter yet"));
        assert_eq!(said(&picture(&[1, 2, 4], &[1, 2, 4], &[1, 2, 4], &[])), "");
    }

    /// A Byzantine shard has all that its committee names as voters, also one that has no vote yet: that one alone says so.
    #[test]
    fn a_seat_without_a_vote_is_not_enough_to_have_joined_nor_to_be_counted_on() {
        let with = |members: &[u8], voteless: Option<u32>| {
            let voters: Vec<u32> = members.iter().copied().map(u32::from).collect();
            let mut picture = picture(members, &[1, 2, 3, 4, 5], &voters, &[]);
            picture.lives.committees[1] = of(Engine::Bft, SHARD, members);
            let replicas = picture.status.nodes.iter_mut().filter(|reply| Some(reply.node) == voteless);
            replicas.flat_map(|reply| reply.replicas.iter_mut()).for_each(|replica| replica.learners.extend(voteless));
            picture
        };
        let said = |picture: &Picture| picture.until_joined(NodeId(5)).join("; ");
        let seated: [u8; 4] = [2, 3, 4, 5];
        assert_eq!(said(&with(&seated, Some(5))), "shard-0: it follows without a vote");
        assert_eq!(said(&with(&seated, None)), "");
        assert_eq!(with(&seated, None).risk(NodeId(2)), None);
        assert_eq!(with(&seated, Some(5)).risk(NodeId(2)), Some((SHARD, Risk::NextFailure { heard: 3, needed: 3 })));
        assert_eq!(with(&seated, Some(5)).risk(NodeId(5)), None, "the one that leaves may be without one");

        let mut follows = with(&[1, 2, 3, 4], Some(5));
        follows.lives.coming.push(of(Engine::Bft, SHARD, &seated));
        assert_eq!(said(&follows), "shard-0: it has the state, and follows until others let it vote");
        let mut votes = with(&[1, 2, 3, 4], None);
        votes.lives.coming.push(of(Engine::Bft, SHARD, &seated));
        assert_eq!(said(&votes), "shard-0: it fetches the state, and is at block 900 of 900");
    }

    #[test]
    fn a_node_that_waits_behind_the_key_of_another_one_is_told_so() {
        let mut waits = picture(&[1, 2, 3], &[1, 2, 3, 4], &[1, 2, 3], &[]);
        waits.lives.arriving.push(NodeId(4));
        let mut plan = committee(SHARD, &[1, 2, 3]);
        plan.members[2].key = PublicKey([9; 33]);
        waits.lives.coming.push(plan);
        let said = waits.until_joined(NodeId(4));
        assert_eq!(
            said,
            [
                "the beacon has more seats for it",
                "shard-0: node 3 comes first, and has not signed with its next key yet"
            ]
        );
        // A seat that moves ends by itself.
        waits.lives.coming[0] = committee(SHARD, &[1, 2, 5]);
        assert_eq!(waits.until_joined(NodeId(4)).len(), 1);
    }

    #[test]
    fn a_node_has_left_when_nobody_counts_on_it_and_it_keeps_nothing() {
        let said = |picture: &Picture| picture.until_left(NodeId(3)).join("; ");
        let mut moving = picture(&[1, 2, 3], &[1, 2, 3, 4], &[1, 2, 3], &[4]);
        assert_eq!(said(&moving), "shard-0: its seat has not moved");
        moving.lives.coming.push(committee(SHARD, &[1, 2, 4]));
        assert_eq!(said(&moving), "shard-0: its seat has not moved; node 4 fetches the state");
        assert!(said(&picture(&[1, 2, 4], &[1, 2, 3, 4], &[1, 2, 3], &[4])).contains("voters have not followed"));
        assert!(said(&picture(&[1, 2, 4], &[1, 2, 3, 4], &[1, 2, 4], &[])).contains("not removed its replica"));
        assert_eq!(said(&picture(&[1, 2, 4], &[1, 2, 4], &[1, 2, 4], &[])), "");
        let seated = beside(&[1, 2, 3], (&[1, 2, 4], &[1, 2, 4], &[1, 2, 4], &[]));
        assert_eq!(said(&seated), "beacon: its seat has not moved");
    }

    #[test]
    fn seats_do_not_move_where_others_do_not_answer() {
        let risk = |running: &[u32], node| picture(&[1, 2, 3], running, &[1, 2, 3], &[]).risk(NodeId(node));
        assert_eq!(risk(&[1, 2, 3], 3), None);
        assert_eq!(risk(&[1, 2], 3), None, "the one that leaves may be gone");
        assert_eq!(risk(&[1, 2], 2), Some((SHARD, Risk::NextFailure { heard: 2, needed: 2 })));
        assert_eq!(risk(&[1], 3), Some((SHARD, Risk::Now { heard: 1, needed: 2 })));
        assert_eq!(risk(&[1], 9), None, "it has no seat");
    }
}
