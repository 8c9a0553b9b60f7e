//! Jobs as they are shown, to programs and to people. Pure.

use beacon::jobs::{Job, JobKind, Phase, needed};
use ledger::{Committee, GroupId, NodeId};
use serde::Serialize;

use super::far::Far;
use crate::output::{facts, moment, table};

/// A shard and what it owns.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    pub(super) shard: String,
    pub(super) prefix: String,
}

/// A node's word for a shard.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Word {
    shard: String,
    node: u32,
}

/// Where a shard ended.
#[derive(Clone, Debug, Serialize)]
struct End {
    shard: String,
    height: u64,
    time_ms: u64,
}

/// A job.
#[derive(Clone, Debug, Serialize)]
pub(super) struct JobLine {
    pub(super) job: String,
    /// `split`, `merge` or `move`.
    pub(super) kind: &'static str,
    /// The shards that it is about.
    pub(super) shards: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u32>,
    pub(super) phase: &'static str,
    /// How far it is, in words.
    pub(super) progress: String,
    /// And in numbers.
    #[serde(flatten)]
    far: Far,
    manual: bool,
    by_scale: bool,
    /// The layout that it was planned on, or has changed.
    layout: u64,
    /// The shards that begin.
    children: Vec<Place>,
    /// Numbers of organisations that have approved.
    approvals: Vec<u16>,
    since_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    /// Copies that are ready.
    warm: Vec<Word>,
    /// Children that are open.
    open: Vec<Word>,
    ends: Vec<End>,
    /// The code of why it came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
}

/// Several of them.
#[derive(Serialize)]
pub(super) struct Jobs<'a> {
    pub(super) jobs: &'a [JobLine],
}

impl JobLine {
    /// A job, the committees in force, and how far it is by what nodes say.
    pub(super) fn of(job: &Job, committees: &[Committee], far: Far) -> Self {
        let words = |words: &[(GroupId, NodeId)]| {
            let word = |(group, node): &(GroupId, NodeId)| Word { shard: group.to_string(), node: node.0 };
            words.iter().map(word).collect::<Vec<_>>()
        };
        let (from, to) = match job.kind {
            JobKind::Move { from, to, .. } => (Some(from.0), Some(to.0)),
            JobKind::Split { .. } | JobKind::Merge { .. } => (None, None),
        };
        let child =
            |child: &ledger::ChildShard| Place { shard: child.group.to_string(), prefix: child.prefix.to_string() };
        let end = |end: &ledger::ParentEnd| End {
            shard: end.group.to_string(),
            height: end.height.0,
            time_ms: end.time_ms.0,
        };
        Self {
            job: job.id.to_string(),
            kind: job.kind.name(),
            shards: job.kind.groups().iter().map(ToString::to_string).collect(),
            from,
            to,
            phase: job.phase.name(),
            progress: progress(job, committees),
            far,
            manual: job.manual,
            by_scale: job.by_scale,
            layout: job.on.0,
            children: job.children.iter().map(child).collect(),
            approvals: job.approvals.iter().map(|org| org.0).collect(),
            since_ms: job.since_ms.0,
            until_ms: job.until_ms.map(|until| until.0),
            warm: words(&job.warm),
            open: words(&job.open),
            ends: job.ends.iter().map(end).collect(),
            reason: job.reason.map(ledger::Reject::code),
        }
    }

    /// What it is to do.
    pub(super) fn what(&self) -> String {
        let shards = self.shards.join(" and ");
        if let (Some(from), Some(to)) = (self.from, self.to) {
            return format!("move {shards} from node {from} to node {to}");
        }
        let children: Vec<&str> = self.children.iter().map(|child| child.shard.as_str()).collect();
        match children.is_empty() {
            true => format!("{} {shards}", self.kind),
            false => format!("{} {shards} into {}", self.kind, children.join(" and ")),
        }
    }

    /// How far it is, for people: in words and in numbers.
    pub(super) fn told(&self) -> String {
        match self.far.text() {
            Some(far) if self.phase != Phase::Done.name() => format!("{} ({far})", self.progress),
            _ => self.progress.clone(),
        }
    }

    /// All of it, for people.
    pub(super) fn in_full(&self) -> String {
        let mut rows = vec![("what", self.what()), ("phase", self.phase.to_owned()), ("progress", self.told())];
        rows.extend(self.far.copies().map(|copy| ("copy", copy)));
        rows.push(("since", moment(self.since_ms)));
        if let Some(until) = self.until_ms {
            rows.push(("ends by itself", moment(until)));
        }
        let begun =
            if self.by_scale { "scaling".to_owned() } else { format!("organisations {}", numbers(&self.approvals)) };
        rows.push(("asked for by", begun));
        rows.push(("layout", self.layout.to_string()));
        rows.extend(
            self.children.iter().map(|child| ("begins", format!("{} with prefix {}", child.shard, child.prefix))),
        );
        rows.extend(self.ends.iter().map(|end| ("ended", format!("{} with block {}", end.shard, end.height))));
        rows.extend(who(&self.warm).map(|word| ("copy ready", word)));
        rows.extend(who(&self.open).map(|word| ("open", word)));
        rows.extend(self.reason.map(|reason| ("reason", reason.to_owned())));
        format!("{}\n{}", self.job, facts(rows))
    }
}

fn who(words: &[Word]) -> impl Iterator<Item = String> + '_ {
    words.iter().map(|word| format!("{} on node {}", word.shard, word.node))
}

fn numbers(orgs: &[u16]) -> String {
    orgs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Jobs for people.
pub(super) fn table_of(jobs: &[JobLine]) -> String {
    if jobs.is_empty() {
        return "no job is kept: none is under way, and none has ended lately".to_owned();
    }
    let rows =
        jobs.iter().map(|job| [job.job.clone(), job.what(), job.phase.to_owned(), job.told(), moment(job.since_ms)]);
    table(["job", "what", "phase", "progress", "since"], rows)
}

/// Of each parent how many members have copies, and how many have to.
fn copies(job: &Job, committees: &[Committee]) -> Vec<(GroupId, usize, usize)> {
    let of = |group: GroupId| {
        let committee = committees.iter().find(|committee| committee.group == group)?;
        let ready = |(parent, node): &&(GroupId, NodeId)| *parent == group && committee.index_of(*node).is_some();
        Some((group, job.warm.iter().filter(ready).count(), needed(committee)))
    };
    job.kind.parents().into_iter().filter_map(of).collect()
}

/// Whether a job could be cut and waits for the command.
pub(super) fn waits_for_cut(job: &Job, committees: &[Committee]) -> bool {
    let copies = copies(job, committees);
    job.manual
        && job.phase == Phase::Preparing
        && !copies.is_empty()
        && copies.iter().all(|(_, ready, all)| ready >= all)
}

/// How far a job is, in words.
pub(super) fn progress(job: &Job, committees: &[Committee]) -> String {
    match (job.phase, job.kind) {
        (Phase::Proposed, _) => {
            format!("organisations that have approved: {}; the policy of jobs says which have to", job.approvals.len())
        }
        (Phase::Aligning, _) => {
            "the smaller half, or the right of two alike, takes the nodes of the other one".to_owned()
        }
        (Phase::Preparing, JobKind::Move { to, .. }) => format!("node {to} fetches the state"),
        (Phase::Preparing, _) if waits_for_cut(job, committees) => {
            format!("copies are ready; it waits for 'seamark shard cut {}'", job.id)
        }
        (Phase::Preparing, _) => {
            let of = |(group, ready, all): &(GroupId, usize, usize)| format!("{group} {ready} of {all}");
            let copies: Vec<String> = copies(job, committees).iter().map(of).collect();
            match copies.is_empty() {
                true => "nodes make copies".to_owned(),
                false => format!("nodes make copies; ready: {}", copies.join(", ")),
            }
        }
        (Phase::Sealing, _) => "nothing is taken for a moment, and the last block is certified".to_owned(),
        (Phase::Committed, _) => {
            let all: usize = job.children.iter().map(|child| child.committee.members.len()).sum();
            format!("the new layout is in force; nodes that have opened: {} of {all}", job.open.len())
        }
        (Phase::Done, _) => "done".to_owned(),
        (Phase::Cancelled, _) => job.reason.map_or_else(|| "taken back".to_owned(), |reason| reason.cause().to_owned()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use beacon::jobs::JOB_VERSION;
    use ledger::{
        BitPrefix, ChildShard, Engine, Epoch, Incarnation, JobId, LayoutVersion, Member, OrgId, PublicKey, Reject,
        TimeMs,
    };
    use proto::v1;

    use super::*;

    pub(in super::super) fn committee(group: GroupId, nodes: &[u8]) -> Committee {
        let member = |node: &u8| {
            let org = OrgId(u16::from((*node - 1) % 3 + 1));
            Member { node: NodeId((*node).into()), org, key: PublicKey([*node; 33]) }
        };
        Committee::of(Engine::Raft, group, Incarnation(0), Epoch(0), nodes.iter().map(member).collect())
    }

    pub(in super::super) fn job(kind: JobKind, phase: Phase) -> Job {
        let child = |(ordinal, right): (u32, bool)| {
            let group = GroupId::shard(ordinal);
            ChildShard {
                group,
                prefix: BitPrefix::ALL.child(true).child(right),
                committee: committee(group, &[1, 2, 3]),
            }
        };
        let children = match kind {
            JobKind::Split { .. } => [(4, false), (5, true)].map(child).to_vec(),
            JobKind::Merge { .. } | JobKind::Move { .. } => Vec::new(),
        };
        Job {
            version: JOB_VERSION,
            id: JobId(3),
            kind,
            phase,
            manual: false,
            on: LayoutVersion(2),
            approvals: vec![OrgId(1), OrgId(2)],
            by_scale: false,
            children,
            since_ms: TimeMs(1_000),
            until_ms: None,
            warm: Vec::new(),
            open: Vec::new(),
            ends: Vec::new(),
            reason: None,
            seals: Vec::new(),
        }
    }

    const SHARD: GroupId = GroupId::shard(2);
    pub(in super::super) const SPLIT: JobKind = JobKind::Split { group: SHARD };

    #[test]
    fn each_phase_says_how_far_the_job_is() {
        let committees = [committee(SHARD, &[1, 2, 3])];
        let warm = |nodes: &[u32]| nodes.iter().map(|node| (SHARD, NodeId(*node))).collect::<Vec<_>>();
        let moves = JobKind::Move { group: SHARD, from: NodeId(1), to: NodeId(6) };
        let rows = [
            (job(SPLIT, Phase::Proposed), "approved: 2"),
            (job(SPLIT, Phase::Aligning), "takes the nodes"),
            (Job { warm: warm(&[1, 9]), ..job(SPLIT, Phase::Preparing) }, "ready: shard-2 1 of 3"),
            (Job { manual: true, warm: warm(&[1, 2]), ..job(SPLIT, Phase::Preparing) }, "ready: shard-2 2 of 3"),
            (Job { manual: true, warm: warm(&[1, 2, 3]), ..job(SPLIT, Phase::Preparing) }, "'seamark shard cut job-3'"),
            (job(moves, Phase::Preparing), "node 6 fetches the state"),
            (job(SPLIT, Phase::Sealing), "nothing is taken"),
            (Job { open: warm(&[1]), ..job(SPLIT, Phase::Committed) }, "1 of 6"),
            (job(SPLIT, Phase::Done), "done"),
            (job(SPLIT, Phase::Cancelled), "taken back"),
            (Job { reason: Some(Reject::Expired), ..job(SPLIT, Phase::Cancelled) }, Reject::Expired.cause()),
        ];
        for (job, part) in rows {
            let text = progress(&job, &committees);
            assert!(text.contains(part), "{part} in '{text}'");
        }
    }

    #[test]
    fn a_job_is_told_to_people_and_to_programs() {
        let committees = [committee(SHARD, &[1, 2, 3])];
        let warm = vec![(SHARD, NodeId(2))];
        let preparing = Job { warm, ..job(SPLIT, Phase::Preparing) };
        let replica = v1::ReplicaStatus {
            group: SHARD.0,
            copied_bytes: 1_500,
            copying_bytes: 3_000,
            ..v1::ReplicaStatus::default()
        };
        let reply = |node| v1::NodeStatusReply { node, replicas: vec![replica.clone()], ..Default::default() };
        let status = v1::StatusReply { nodes: [1, 3].map(reply).to_vec(), unreachable: Vec::new() };
        let line = JobLine::of(&preparing, &committees, Far::of(&preparing, &committees, &status, TimeMs(31_000)));
        let text = line.in_full();
        for part in [
            "job-3",
            "split shard-2 into shard-4 and shard-5",
            "shard-5 with prefix 11",
            "shard-2 on node 2",
            "ready: shard-2 1 of 3 (50 %, about 30 s to go)",
            "shard-2 on node 3: 1,500 of about 3,000 bytes",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!((&json["job"], &json["phase"]), (&"job-3".into(), &"preparing".into()));
        assert_eq!((&json["warm"][0]["node"], &json["children"][1]["prefix"]), (&2.into(), &"11".into()));
        assert!(json.get("reason").is_none());
        assert_eq!((&json["percent"], &json["eta_seconds"]), (&50.into(), &30.into()));
        let moves = JobKind::Move { group: SHARD, from: NodeId(1), to: NodeId(6) };
        let other = JobLine::of(&job(moves, Phase::Done), &committees, Far::default());
        assert_eq!(other.what(), "move shard-2 from node 1 to node 6");
        let table = table_of(&[line, other]);
        assert!(table.contains("preparing") && table.contains("done"), "{table}");
        assert!(table_of(&[]).contains("no job"));
    }
}
