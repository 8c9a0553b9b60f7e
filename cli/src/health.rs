//! What the nodes say about themselves, turned into groups, problems in plain words, and whether
//! all replicas agree. Pure: somebody else asks.

use std::collections::{BTreeMap, BTreeSet};

use ledger::limits::{LAG_BLOCKS_MAX, MAIL_WAITS_MAX, UNCERTIFIED_BLOCKS_MAX};
use ledger::{Committee, Engine, GroupId};
use proto::v1;
use serde::Serialize;

/// A replica of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaLine {
    /// The node.
    pub node: u32,
    /// The node answered, and hosts the group.
    pub answers: bool,
    /// Its height; `None` when it does not answer, or what it has is not shown.
    pub height: Option<u64>,
    /// Blocks behind the highest replica; `None` where the height is.
    pub lag: Option<u64>,
    /// Something is wrong with it that is not shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unwell: bool,
    /// Why it stopped, if it did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stopped: String,
}

/// A group as its replicas describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupLine {
    /// `beacon`, `shard-0` and so on.
    pub group: String,
    /// Whether it shows itself to whoever asks. Of a channel that does not, only leader and replicas are told; term,
    /// heights, roots and counts are zero or empty.
    pub shown: bool,
    /// What orders it, by the committee in force: `raft` or `bft`.
    pub engine: &'static str,
    /// Of its replicas so many may fail: stop where it is raft, lie where it is bft.
    pub tolerates: usize,
    /// With bft, the attempt at the next entry that its leader is in, from 0; more where proposers have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<u32>,
    /// The node that leads it.
    pub leader: Option<u32>,
    /// Term of the leader.
    pub term: u64,
    /// Height of the highest replica.
    pub height: u64,
    /// Height up to which there are certificates.
    pub certified_height: u64,
    /// State root of the highest replica.
    pub state_root: String,
    /// Hash of its header.
    pub header_hash: String,
    /// Transactions executed.
    pub transactions: u64,
    /// Mail that waits for acknowledgement.
    pub mail_pending: u64,
    /// All replicas, by node.
    pub replicas: Vec<ReplicaLine>,
}

/// The groups of these committees, in their order.
#[must_use]
pub fn groups(status: &v1::StatusReply, committees: &[Committee]) -> Vec<GroupLine> {
    committees.iter().map(|committee| group(status, committee)).collect()
}

fn replica_of(status: &v1::StatusReply, node: u32, group: GroupId) -> Option<&v1::ReplicaStatus> {
    let node = status.nodes.iter().find(|reply| reply.node == node)?;
    node.replicas.iter().find(|replica| replica.group == group.0)
}

fn group(status: &v1::StatusReply, committee: &Committee) -> GroupLine {
    let of = |node: u32| replica_of(status, node, committee.group);
    let nodes: Vec<u32> = committee.members.iter().map(|member| member.node.0).collect();
    let known: Vec<&v1::ReplicaStatus> = nodes.iter().filter_map(|node| of(*node)).collect();
    // One that shows itself is enough: others may not know yet that whoever asks is admitted.
    let visible = || known.iter().filter(|replica| !replica.hidden);
    let shown = known.is_empty() || visible().next().is_some();
    let highest = visible().max_by_key(|replica| replica.height);
    let height = highest.map_or(0, |replica| replica.height);
    // A deposed leader may not know it yet: the latest term counts, and in one term the latest entry.
    let leading = nodes.iter().filter_map(|node| of(*node).map(|replica| (*node, replica)));
    let leading = leading.filter(|(_, replica)| replica.leads && replica.stopped.is_empty());
    let leader = leading.max_by_key(|(_, replica)| (replica.term, replica.log_last, replica.round));
    let replicas = nodes.iter().map(|node| {
        let replica = of(*node);
        let seen = replica.filter(|replica| !replica.hidden);
        ReplicaLine {
            node: *node,
            answers: replica.is_some(),
            height: seen.map(|replica| replica.height),
            lag: seen.map(|replica| height - replica.height),
            unwell: replica.is_some_and(|replica| replica.hidden && replica.unwell),
            stopped: replica.map(|replica| replica.stopped.clone()).unwrap_or_default(),
        }
    });
    GroupLine {
        group: committee.group.to_string(),
        shown,
        engine: committee.engine.name(),
        tolerates: committee.engine.tolerated(committee.members.len()),
        round: leader.filter(|(_, replica)| replica.engine == Engine::Bft.name()).map(|(_, replica)| replica.round),
        leader: leader.map(|(node, _)| node),
        term: leader.map_or(0, |(_, replica)| replica.term),
        height,
        certified_height: known.iter().map(|replica| replica.certified_height).max().unwrap_or(0),
        state_root: highest.map(|replica| hex::encode(&replica.state_root)).unwrap_or_default(),
        header_hash: highest.map(|replica| hex::encode(&replica.header_hash)).unwrap_or_default(),
        transactions: known.iter().map(|replica| replica.transactions).max().unwrap_or(0),
        mail_pending: leader.map_or(0, |(_, replica)| replica.mail_pending),
        replicas: replicas.collect(),
    }
}

/// What is wrong, in plain words; empty when nothing is.
#[must_use]
pub fn problems(status: &v1::StatusReply, committees: &[Committee]) -> Vec<String> {
    let mut problems = Vec::new();
    for gone in &status.unreachable {
        problems.push(format!("node {} at {} does not answer: {}", gone.node, gone.addr, gone.error));
    }
    for node in &status.nodes {
        // Why a replica stopped is said once, with its group.
        let told = |alarm: &&String| {
            let mut stopped = node.replicas.iter().filter(|replica| !replica.stopped.is_empty());
            !stopped.any(|replica| alarm.contains(&replica.stopped))
        };
        problems.extend(node.alarms.iter().filter(told).map(|alarm| format!("node {}: {alarm}", node.node)));
    }
    for (line, committee) in groups(status, committees).iter().zip(committees) {
        group_problems(status, line, committee, &mut problems);
    }
    let mut agreement = Agreement::default();
    agreement.observe(status);
    problems.extend(agreement.conflicts());
    problems
}

/// Replicas that were ahead of who leads their group now: `earlier` was asked before `now`, so a leader
/// that has all that is committed has long come as far. It has not when replicas lost their log and
/// elected one that does not have it either.
#[must_use]
pub fn ahead(earlier: &v1::StatusReply, now: &v1::StatusReply, committees: &[Committee]) -> Vec<String> {
    let mut found = Vec::new();
    for (before, line) in groups(earlier, committees).iter().zip(groups(now, committees)) {
        let leads = |replica: &&ReplicaLine| Some(replica.node) == line.leader;
        let Some(leader) = line.replicas.iter().find(leads) else { continue };
        // One that is not shown is neither ahead nor behind.
        let Some(at) = leader.height else { continue };
        for replica in before.replicas.iter().filter(|replica| replica.stopped.is_empty()) {
            let height = replica.height.unwrap_or(0);
            if height > at {
                found.push(format!(
                    "{} on node {} had block {height} before its leader, node {}, which is at {at}: a replica has lost its log, and with it payments that were final; stop the nodes of this group and keep their data folders",
                    line.group, replica.node, leader.node
                ));
            }
        }
    }
    found
}

fn group_problems(status: &v1::StatusReply, line: &GroupLine, committee: &Committee, problems: &mut Vec<String>) {
    // That a node is silent has been said once; it need not be said again for each of its groups.
    let silent = |node: u32| status.unreachable.iter().any(|gone| gone.node == node);
    let group = &line.group;
    let answering = line.replicas.iter().filter(|replica| replica.answers && replica.stopped.is_empty()).count();
    let needed = usize::from(committee.threshold);
    if answering < needed {
        problems.push(format!(
            "{group} has lost its quorum: {answering} of {} replicas run and {needed} are needed; its accounts cannot pay or be read until a node is back",
            line.replicas.len()
        ));
    } else if line.leader.is_none() {
        problems.push(format!("{group} has no leader; one is usually elected within a second"));
    }
    for replica in &line.replicas {
        let node = replica.node;
        match (replica.answers, replica.lag) {
            _ if !replica.stopped.is_empty() => {
                problems.push(format!("{group} has stopped on node {node}: {}", replica.stopped))
            }
            (false, _) if silent(node) => {}
            (false, _) => problems.push(format!("{group} does not run on node {node}")),
            (true, Some(lag)) if lag > LAG_BLOCKS_MAX => {
                problems.push(format!("{group} on node {node} is {lag} blocks behind"))
            }
            _ if replica.unwell => {
                problems.push(format!("{group} is not well on node {node}; why is shown to its members"))
            }
            _ => {}
        }
    }
    let uncertified = line.height.saturating_sub(line.certified_height);
    if uncertified > UNCERTIFIED_BLOCKS_MAX {
        problems.push(format!(
            "{group} has {uncertified} blocks without certificate, so other groups cannot take its mail"
        ));
    }
    if line.mail_pending > MAIL_WAITS_MAX {
        problems.push(format!("{group} has {} messages that other groups have not taken", line.mail_pending));
    }
}

/// Whether replicas that were at the same height had the same header and state.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    seen: BTreeMap<(u64, u64), BTreeMap<u32, Mark>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    header_hash: Vec<u8>,
    state_root: Vec<u8>,
}

impl Agreement {
    /// Takes note of where every replica is.
    pub fn observe(&mut self, status: &v1::StatusReply) {
        for node in &status.nodes {
            for replica in node.replicas.iter().filter(|replica| !replica.header_hash.is_empty()) {
                let mark = Mark { header_hash: replica.header_hash.to_vec(), state_root: replica.state_root.to_vec() };
                self.seen.entry((replica.group, replica.height)).or_default().insert(node.node, mark);
            }
        }
    }

    /// Replicas that contradicted each other, in words.
    #[must_use]
    pub fn conflicts(&self) -> Vec<String> {
        let differing = self.seen.iter().filter(|(_, marks)| marks.values().collect::<BTreeSet<_>>().len() > 1);
        differing
            .map(|((group, height), marks)| {
                let nodes: Vec<String> = marks.keys().map(ToString::to_string).collect();
                format!(
                    "{} has different states at height {height} on nodes {}; stop it and run 'seamark node check' on each",
                    GroupId(*group),
                    nodes.join(", ")
                )
            })
            .collect()
    }

    /// The groups of which not all replicas were seen at one height, at or above `from`.
    #[must_use]
    pub fn missing(&self, committees: &[Committee], from: &BTreeMap<GroupId, u64>) -> Vec<GroupId> {
        let complete = |committee: &Committee| {
            let least = from.get(&committee.group).copied().unwrap_or(0);
            let group = committee.group.0;
            self.seen
                .range((group, least)..=(group, u64::MAX))
                .any(|(_, marks)| committee.members.iter().all(|member| marks.contains_key(&member.node.0)))
        };
        committees.iter().filter(|committee| !complete(committee)).map(|committee| committee.group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Epoch, Incarnation, Member, NodeId, OrgId, PublicKey};

    const SHARD: GroupId = GroupId::shard(0);

    fn committee() -> Committee {
        let member = |node: u8| Member { node: NodeId(node.into()), org: OrgId(1), key: PublicKey([node; 33]) };
        Committee::majority(SHARD, Incarnation(0), Epoch(0), (1..=3).map(member).collect())
    }

    fn node(node: u32, height: u64, leads: bool, hash: u8) -> v1::NodeStatusReply {
        let replica = v1::ReplicaStatus {
            group: SHARD.0,
            leads,
            term: 2,
            height,
            certified_height: height,
            header_hash: vec![hash; 32].into(),
            state_root: vec![9; 32].into(),
            ..v1::ReplicaStatus::default()
        };
        v1::NodeStatusReply { node, replicas: vec![replica], ..v1::NodeStatusReply::default() }
    }

    fn status(nodes: Vec<v1::NodeStatusReply>) -> v1::StatusReply {
        v1::StatusReply { nodes, unreachable: Vec::new() }
    }

    #[test]
    fn a_healthy_group_has_no_problem() {
        let status = status(vec![node(1, 7, true, 1), node(2, 7, false, 1), node(3, 6, false, 2)]);
        let lines = groups(&status, &[committee()]);
        assert_eq!((lines[0].leader, lines[0].height, lines[0].term), (Some(1), 7, 2));
        assert_eq!(lines[0].replicas[2].lag, Some(1));
        assert_eq!(problems(&status, &[committee()]), Vec::<String>::new());
    }

    #[test]
    fn of_a_byzantine_group_tolerance_and_round_are_told_and_the_latest_entry_has_the_leader() {
        let members =
            (1..=4).map(|node: u8| Member { node: NodeId(node.into()), org: OrgId(1), key: PublicKey([node; 33]) });
        let committee = Committee::of(Engine::Bft, SHARD, Incarnation(0), Epoch(0), members.collect());
        let of = |id: u32, leads: bool, log_last: u64, round: u32| {
            let mut reply = node(id, 7, leads, 1);
            let replica = &mut reply.replicas[0];
            (replica.engine, replica.log_last, replica.round) = ("bft".to_owned(), log_last, round);
            reply
        };
        // Node 1 was cut off when it led, and does not know better.
        let status = status(vec![of(1, true, 8, 0), of(2, true, 12, 1), of(3, false, 12, 1), of(4, false, 12, 1)]);
        let line = groups(&status, &[committee]).remove(0);
        assert_eq!((line.engine, line.tolerates, line.leader, line.round), ("bft", 1, Some(2), Some(1)));
        let raft = groups(&self::status(vec![node(1, 7, true, 1)]), &[self::committee()]).remove(0);
        assert_eq!((raft.engine, raft.tolerates, raft.round), ("raft", 1, None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut lonely = status(vec![node(1, 7, true, 1)]);
        lonely.unreachable.push(v1::UnreachableNode { node: 2, addr: "h:1".into(), error: "refused".into() });
        let text = problems(&lonely, &[committee()]).join("\n");
        for part in [
            "node 2 at h:1 does not answer: refused",
            "shard-0 has lost its quorum: 1 of 3",
            "shard-0 does not run on node 3",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let mut stopped = node(2, 7, false, 1);
        stopped.replicas[0].stopped = "the disk is full".into();
        stopped.alarms.push("clock is 900 ms off".into());
        let bad = status(vec![node(1, 107, false, 1), stopped, node(3, 107, false, 2)]);
        let text = problems(&bad, &[committee()]).join("\n");
        for part in [
            "no leader",
            "stopped on node 2: the disk is full",
            "node 2: clock",
            "different states at height 107 on nodes 1, 3",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn of_a_channel_that_is_not_shown_there_is_its_health_and_nothing_else() {
        let hidden = |node: u32, leads: bool, unwell: bool| {
            let replica =
                v1::ReplicaStatus { group: SHARD.0, leads, hidden: true, unwell, ..v1::ReplicaStatus::default() };
            v1::NodeStatusReply { node, replicas: vec![replica], ..v1::NodeStatusReply::default() }
        };
        let well = status(vec![hidden(1, true, false), hidden(2, false, false), hidden(3, false, false)]);
        let line = groups(&well, &[committee()]).remove(0);
        assert_eq!((line.shown, line.leader, line.height, line.replicas[1].height), (false, Some(1), 0, None));
        assert_eq!(problems(&well, &[committee()]), Vec::<String>::new());
        assert_eq!(ahead(&well, &well, &[committee()]), Vec::<String>::new());
        let ill = status(vec![hidden(1, true, false), hidden(2, false, true)]);
        let text = problems(&ill, &[committee()]).join("\n");
        assert!(text.contains("shard-0 is not well on node 2") && text.contains("does not run on node 3"), "{text}");
        // A node that has not heard yet that whoever asks is admitted does not hide what the others show.
        let mixed = status(vec![hidden(1, true, false), node(2, 7, false, 1), node(3, 6, false, 2)]);
        let line = groups(&mixed, &[committee()]).remove(0);
        assert_eq!((line.shown, line.height, line.leader), (true, 7, Some(1)));
        assert_eq!(ahead(&mixed, &mixed, &[committee()]), Vec::<String>::new());
    }

    #[test]
    fn a_replica_ahead_of_its_leader_is_a_problem_unless_the_leader_was_only_asked_too_early() {
        let lost = status(vec![node(1, 6, true, 2), node(2, 6, false, 2), node(3, 7, false, 1)]);
        let found = ahead(&lost, &lost, &[committee()]);
        assert_eq!(found.len(), 1);
        for part in ["shard-0 on node 3 had block 7", "node 1, which is at 6"] {
            assert!(found[0].contains(part), "{found:?}");
        }
        let later = status(vec![node(1, 9, true, 3), node(2, 9, false, 3), node(3, 10, false, 4)]);
        assert_eq!(ahead(&lost, &later, &[committee()]), Vec::<String>::new());
    }

    #[test]
    fn agreement_needs_every_replica_at_one_height() {
        let mut agreement = Agreement::default();
        let from = BTreeMap::from([(SHARD, 7)]);
        agreement.observe(&status(vec![node(1, 7, true, 1), node(2, 6, false, 2), node(3, 6, false, 2)]));
        assert_eq!(agreement.missing(&[committee()], &from), [SHARD]);
        // The others come to height 7 while the first has moved on: that is enough.
        agreement.observe(&status(vec![node(1, 8, true, 3), node(2, 7, false, 1), node(3, 7, false, 1)]));
        assert!(agreement.missing(&[committee()], &from).is_empty());
        assert!(agreement.conflicts().is_empty());
        agreement.observe(&status(vec![node(2, 8, false, 4)]));
        assert_eq!(agreement.conflicts().len(), 1);
    }
}
