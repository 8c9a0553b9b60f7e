//! How far a job is in numbers: what nodes have read of what their copies need, the part of it that is done, and how long
//! the rest takes about. Pure: what nodes say is given.

use beacon::jobs::{Job, JobKind, Phase, needed};
use ledger::{Committee, GroupId, NodeId, TimeMs};
use proto::v1;
use serde::Serialize;

use crate::output::grouped;

/// Nothing is said of the rest before so much is done, of a hundred: a copy begins with a rest, and at its own pace.
const TOLD_FROM: u64 = 5;

/// The copy that a node makes of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CopyLine {
    shard: String,
    node: u32,
    /// Bytes of tables that are read.
    copied_bytes: u64,
    /// Of about how many.
    of_bytes: u64,
    /// It is made, and follows.
    ready: bool,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Far {
    /// Of a hundred, of what is being done in this phase; none where there is no measure of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u64>,
    /// Seconds until that is done, about, as fast as it went so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<CopyLine>,
}

impl Far {
    /// A job by the committees in force and what nodes say, at a time.
    pub(super) fn of(job: &Job, committees: &[Committee], status: &v1::StatusReply, now: TimeMs) -> Self {
        match (job.phase, job.kind) {
            (Phase::Preparing, JobKind::Move { group, to, .. }) => {
                Self { percent: followed(group, to, committees, status), ..Self::default() }
            }
            (Phase::Preparing, JobKind::Split { .. } | JobKind::Merge { .. }) => copying(job, committees, status, now),
            (Phase::Committed, _) => {
                let all: usize = job.children.iter().map(|child| child.committee.members.len()).sum();
                Self { percent: part(job.open.len() as u64, all as u64), ..Self::default() }
            }
            (Phase::Done, _) => Self { percent: Some(100), ..Self::default() },
            (Phase::Proposed | Phase::Aligning | Phase::Sealing | Phase::Cancelled, _) => Self::default(),
        }
    }

    /// For people: the part that is done, and the rest.
    pub(super) fn text(&self) -> Option<String> {
        let percent = self.percent?;
        Some(match self.eta_seconds {
            Some(seconds) => format!("{percent} %, about {} s to go", grouped(seconds.into())),
            None => format!("{percent} %"),
        })
    }

    /// The part that is done alone, which does not change with every look.
    pub(super) fn percent(&self) -> Option<u64> {
        self.percent
    }

    /// For people: each copy that is being made.
    pub(super) fn copies(&self) -> impl Iterator<Item = String> + '_ {
        let making = self.copies.iter().filter(|copy| !copy.ready && copy.of_bytes > 0);
        making.map(|copy| {
            let [read, of] = [copy.copied_bytes, copy.of_bytes].map(|bytes| grouped(bytes.into()));
            format!("{} on node {}: {read} of about {of} bytes", copy.shard, copy.node)
        })
    }
}

/// So many of so many, of a hundred.
fn part(done: u64, all: u64) -> Option<u64> {
    let percent = (u128::from(done.min(all)) * 100).checked_div(u128::from(all))?;
    u64::try_from(percent).ok()
}

fn replica(status: &v1::StatusReply, group: GroupId, node: NodeId) -> Option<&v1::ReplicaStatus> {
    let mut replies = status.nodes.iter().filter(|reply| reply.node == node.0);
    replies.find_map(|reply| reply.replicas.iter().find(|replica| replica.group == group.0))
}

/// A node that is to have a seat, by blocks: how far its replica is behind those of the members. It is there only when it
/// votes.
fn followed(group: GroupId, to: NodeId, committees: &[Committee], status: &v1::StatusReply) -> Option<u64> {
    let current = committees.iter().find(|committee| committee.group == group)?;
    let members = current.members.iter().filter_map(|member| replica(status, group, member.node));
    let last = members.map(|replica| replica.height).max()?;
    let own = replica(status, group, to).map_or(0, |replica| replica.height);
    part(own, last).map(|percent| percent.min(99))
}

/// The job waits until of every parent as many copies follow as it needs: the last one of these says how far it is.
fn copying(job: &Job, committees: &[Committee], status: &v1::StatusReply, now: TimeMs) -> Far {
    let (mut copies, mut slowest) = (Vec::new(), None);
    for group in job.kind.parents() {
        let Some(committee) = committees.iter().find(|committee| committee.group == group) else { continue };
        let mut parts = Vec::new();
        for member in &committee.members {
            let replica = replica(status, group, member.node);
            let ready = job.warm.contains(&(group, member.node));
            let (read, of) = replica.map_or((0, 0), |replica| (replica.copied_bytes, replica.copying_bytes));
            // What was written meanwhile is still to be taken when all is read.
            parts.push(if ready { 100 } else { part(read, of).unwrap_or(0).min(99) });
            let shard = group.to_string();
            copies.push(CopyLine { shard, node: member.node.0, copied_bytes: read, of_bytes: of, ready });
        }
        parts.sort_unstable();
        let last = parts.len().checked_sub(needed(committee)).and_then(|at| parts.get(at).copied()).unwrap_or(0);
        slowest = Some(slowest.map_or(last, |slowest: u64| slowest.min(last)));
    }
    let elapsed_ms = now.0.saturating_sub(job.since_ms.0);
    let told = slowest.filter(|percent| (TOLD_FROM..100).contains(percent));
    let eta_seconds = told.map(|percent| elapsed_ms.saturating_mul(100 - percent) / percent / 1_000);
    Far { percent: slowest, eta_seconds, copies }
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::{SPLIT, committee, job};
    use super::*;

    const SHARD: GroupId = GroupId::shard(2);
    const BEGUN: u64 = 1_000;

    /// What nodes say of the copies that they make: read, of how many bytes; and the height of their replicas.
    fn said(copies: &[(u32, u64, u64)]) -> v1::StatusReply {
        let reply = |(node, copied_bytes, copying_bytes): &(u32, u64, u64)| {
            let (copied_bytes, copying_bytes) = (*copied_bytes, *copying_bytes);
            let height = copied_bytes;
            let group = SHARD.0;
            let replica = v1::ReplicaStatus { group, height, copied_bytes, copying_bytes, ..Default::default() };
            v1::NodeStatusReply { node: *node, replicas: vec![replica], ..Default::default() }
        };
        v1::StatusReply { nodes: copies.iter().map(reply).collect(), unreachable: Vec::new() }
    }

    #[test]
    fn a_job_is_as_far_as_the_last_copy_that_it_needs() {
        let committees = [committee(SHARD, &[1, 2, 3])];
        let far = |warm: &[u32], copies: &[(u32, u64, u64)], after_ms: u64| {
            let warm = warm.iter().map(|node| (SHARD, NodeId(*node))).collect();
            let job = Job { warm, ..job(SPLIT, Phase::Preparing) };
            assert_eq!(job.since_ms, TimeMs(BEGUN));
            let far = Far::of(&job, &committees, &said(copies), TimeMs(BEGUN + after_ms));
            (far.percent, far.eta_seconds)
        };
        // Of three all three are needed.
        assert_eq!(far(&[], &[(1, 50, 100), (2, 80, 100), (3, 25, 100)], 20_000), (Some(25), Some(60)));
        assert_eq!(far(&[1, 2], &[(3, 100, 100)], 99_000), (Some(99), Some(1)), "it follows when it says so");
        assert_eq!(far(&[1, 2, 3], &[], 9_000), (Some(100), None));
        assert_eq!(far(&[], &[(1, 4, 100), (2, 4, 100), (3, 4, 100)], 9_000), (Some(4), None), "too early to say");
        assert_eq!(far(&[1], &[(2, 50, 100)], 9_000), (Some(0), None), "nothing is heard of the third");
        // Of five one may be missing.
        let five = [committee(SHARD, &[1, 2, 3, 4, 5])];
        let copies = [(1, 9, 10), (2, 8, 10), (3, 7, 10), (4, 6, 10)];
        let far = Far::of(&job(SPLIT, Phase::Preparing), &five, &said(&copies), TimeMs(BEGUN));
        assert_eq!((needed(&five[0]), far.percent), (4, Some(60)));
    }

    #[test]
    fn what_other_phases_say_and_how_it_is_told() {
        let committees = [committee(SHARD, &[1, 2, 3])];
        let of = |job: &Job, copies: &[(u32, u64, u64)]| Far::of(job, &committees, &said(copies), TimeMs(11_000));
        let open = vec![(GroupId::shard(4), NodeId(1)), (GroupId::shard(4), NodeId(2))];
        let moves = JobKind::Move { group: SHARD, from: NodeId(1), to: NodeId(6) };
        for (job, percent) in [
            (Job { open, ..job(SPLIT, Phase::Committed) }, Some(33)),
            (job(SPLIT, Phase::Done), Some(100)),
            (job(SPLIT, Phase::Sealing), None),
            (job(SPLIT, Phase::Proposed), None),
            (job(moves, Phase::Preparing), Some(45)),
        ] {
            let far = of(&job, &[(1, 200, 0), (6, 90, 0)]);
            assert_eq!((far.percent, far.eta_seconds), (percent, None), "{:?}", job.phase);
        }
        let far = of(&job(SPLIT, Phase::Preparing), &[(1, 500, 1_000), (2, 500, 1_000), (3, 2_000, 4_000)]);
        assert_eq!(far.text().as_deref(), Some("50 %, about 10 s to go"));
        assert!(far.copies().any(|line| line == "shard-2 on node 3: 2,000 of about 4,000 bytes"));
        let json = serde_json::to_value(&far).unwrap();
        assert_eq!((&json["percent"], &json["eta_seconds"]), (&50.into(), &10.into()));
        assert_eq!((&json["copies"][2]["copied_bytes"], &json["copies"][2]["ready"]), (&2_000.into(), &false.into()));
        assert_eq!(of(&job(SPLIT, Phase::Cancelled), &[]).text(), None);
    }
}
