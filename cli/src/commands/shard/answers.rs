//! Which members of the shards of a job answer. The beacon goes by its watch, which may be off; so whoever asks for a job
//! asks the nodes as well, as `node …` does, and has the plan judged by both. Pure: the answers are given.

use beacon::Shards;
use beacon::jobs::JobKind;
use ledger::{NodeId, Reject};
use proto::v1;

use super::job::refusal;
use crate::error::CliError;

/// Members of the shards that a job is about of whose replica there nothing is heard, or that it has stopped; ascending.
pub(super) fn unheard(kind: &JobKind, shards: &Shards, status: &v1::StatusReply) -> Vec<NodeId> {
    let groups = kind.groups();
    let mut unheard = Vec::new();
    for committee in shards.standing.committees.iter().filter(|committee| groups.contains(&committee.group)) {
        let runs = |node: NodeId| {
            let replies = status.nodes.iter().filter(|reply| reply.node == node.0);
            let mut replicas = replies.flat_map(|reply| &reply.replicas);
            replicas.any(|replica| replica.group == committee.group.0 && replica.stopped.is_empty())
        };
        unheard.extend(committee.members.iter().map(|member| member.node).filter(|node| !runs(*node)));
    }
    unheard.sort_unstable();
    unheard.dedup();
    unheard
}

/// Has those count as silent, beside those that the beacon's watch found.
pub(super) fn silence(shards: &mut Shards, unheard: &[NodeId]) {
    let silent = &mut shards.standing.silent;
    silent.extend(unheard);
    silent.sort_unstable();
    silent.dedup();
}

/// Why a job cannot be; where too few members answer, which ones do not.
pub(super) fn refused(kind: &JobKind, reject: Reject, unheard: &[NodeId]) -> CliError {
    let error = refusal(kind, reject);
    if reject != Reject::ShardRisk || unheard.is_empty() {
        return error;
    }
    let nodes: Vec<String> = unheard.iter().map(ToString::to_string).collect();
    CliError { cause: format!("{}: nothing is heard of it from node {}", error.cause, nodes.join(", ")), ..error }
}

#[cfg(test)]
mod tests {
    use beacon::jobs::plan;
    use ledger::GroupId;

    use super::super::lines::tests::committee;
    use super::super::plan::tests::scene;
    use super::*;

    const ZERO: GroupId = GroupId::shard(0);
    const ONE: GroupId = GroupId::shard(1);

    /// What nodes say that have replicas of both shards, of which the second one has stopped on some.
    fn said(nodes: &[u32], stopped: &[u32]) -> v1::StatusReply {
        let replica = |group: GroupId, stopped: bool| v1::ReplicaStatus {
            group: group.0,
            stopped: if stopped { "state_missing".to_owned() } else { String::new() },
            ..v1::ReplicaStatus::default()
        };
        let reply = |node: &u32| v1::NodeStatusReply {
            node: *node,
            replicas: vec![replica(ZERO, false), replica(ONE, stopped.contains(node))],
            ..v1::NodeStatusReply::default()
        };
        v1::StatusReply { nodes: nodes.iter().map(reply).collect(), unreachable: Vec::new() }
    }

    #[test]
    fn a_job_is_refused_where_too_few_members_answer_though_nobody_watches() {
        let split = JobKind::Split { group: ZERO };
        let merge = JobKind::Merge { left: ZERO, right: ONE };
        let moves = |from: u32| JobKind::Move { group: ZERO, from: NodeId(from), to: NodeId(4) };
        let rows: [(&str, JobKind, &[u32], &[u32], &[u32], Option<Reject>); 7] = [
            ("all answer", split, &[1, 2, 3], &[], &[], None),
            ("one of three does not", split, &[1, 3], &[], &[2], Some(Reject::ShardRisk)),
            ("it has stopped elsewhere", split, &[1, 2, 3], &[2], &[], None),
            ("it has stopped in one of two", merge, &[1, 2, 3], &[2], &[2], Some(Reject::ShardRisk)),
            ("nobody answers", merge, &[], &[], &[1, 2, 3], Some(Reject::ShardRisk)),
            ("who stays does not answer", moves(1), &[1, 3], &[], &[2], Some(Reject::ShardRisk)),
            ("who leaves does not answer", moves(2), &[1, 3], &[], &[2], None),
        ];
        for (what, kind, nodes, stopped, expected, reject) in rows {
            let (mut shards, _) = scene();
            let found = unheard(&kind, &shards, &said(nodes, stopped));
            assert_eq!(found.iter().map(|node| node.0).collect::<Vec<_>>(), expected, "{what}");
            assert!(plan(&shards.standing, &kind).is_ok(), "the beacon hears of all");
            silence(&mut shards, &found);
            assert_eq!(plan(&shards.standing, &kind).err(), reject, "{what}");
        }
        // Of five, one may be down.
        let (mut shards, _) = scene();
        shards.standing.committees[0] = committee(ZERO, &[1, 2, 3, 4, 5]);
        let found = unheard(&split, &shards, &said(&[1, 2, 3, 4], &[]));
        silence(&mut shards, &found);
        assert!(found == [NodeId(5)] && plan(&shards.standing, &split).is_ok());
    }

    #[test]
    fn a_refusal_names_who_does_not_answer() {
        let split = JobKind::Split { group: ZERO };
        let error = refused(&split, Reject::ShardRisk, &[NodeId(2), NodeId(5)]);
        assert!(error.code == "shard_risk" && error.cause.ends_with("from node 2, 5"), "{}", error.cause);
        assert_eq!(refused(&split, Reject::ShardBusy, &[NodeId(2)]), refusal(&split, Reject::ShardBusy));
    }
}
