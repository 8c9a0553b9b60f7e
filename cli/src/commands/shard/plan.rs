//! `shard plan`: what a job would come to, and what speaks against it. Judged here by the same function as the beacon judges
//! by, so nothing is sent; sizes and pauses are estimates, and said to be.

use std::time::{Duration, Instant};

use beacon::Shards;
use beacon::jobs::{JobKind, Plan, plan};
use client::Client;
use ledger::{Committee, GroupId, Height, Layout, OrgId, Reject};
use proto::v1;
use serde::Serialize;

use super::answers;
use super::room::{MOVE_FULL, Room, least_free};
use crate::commands::context::Context;
use crate::commands::signer::Orgs;
use crate::error::CliError;
use crate::output::{Output, facts, grouped, table};

/// What a cut stands still for beside its rounds: the last block is made durable, hashed and certified, the beacon commits,
/// and the copies become first states, made durable. What was measured with 1,000,000 accounts on two cores that carry all
/// nodes and payers (`bench --reshape`, docs/performance.md): 0.26 and 0.43 s in the middle, 0.51 s at worst. A machine that
/// carries less is quicker.
const CUT: Duration = Duration::from_millis(320);
/// The same of a join, of which two last blocks are waited for, and twice as much is made durable: 0.40 and 0.51 s.
const JOIN: Duration = Duration::from_millis(420);
/// Rounds between nodes from the seal to the first block of a child.
const ROUNDS: u32 = 3;
/// How often a round is measured; the shortest counts.
const TRIES: u32 = 3;

/// What is known of the size of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::commands) struct Size {
    /// Accounts, as its replicas count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands) accounts: Option<u64>,
    /// Bytes of its database, by the replica that has most; where none says, as its leader reports them while scaling is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands) bytes: Option<u64>,
    /// Transactions a second, the middle of what its replicas say of lately; where none answers, as the beacon has it while
    /// scaling is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands) tps: Option<u32>,
}

impl Size {
    pub(in crate::commands) fn of(group: GroupId, shards: &Shards, status: &v1::StatusReply) -> Self {
        let replicas = || status.nodes.iter().flat_map(|node| &node.replicas).filter(move |one| one.group == group.0);
        let counted = replicas().map(|replica| replica.accounts).max().filter(|accounts| *accounts > 0);
        let stored = replicas().map(|replica| replica.state_bytes).max().filter(|bytes| *bytes > 0);
        let mut rates: Vec<u32> =
            replicas().filter(|replica| replica.stopped.is_empty()).map(|replica| replica.tps).collect();
        rates.sort_unstable();
        let middle = rates.get(rates.len() / 2).copied();
        let load = shards.loads.iter().find(|load| load.group == group).map(|found| found.load);
        Self {
            accounts: counted.or(load.map(|load| load.accounts)),
            bytes: stored.or(load.map(|load| load.bytes)),
            tps: middle.or(load.map(|load| load.tps)),
        }
    }

    pub(super) fn cells(&self) -> [String; 3] {
        let shown =
            |number: Option<u64>| number.map_or_else(|| "not known".to_owned(), |number| grouped(number.into()));
        [shown(self.accounts), shown(self.bytes), shown(self.tps.map(u64::from))]
    }
}

#[derive(Serialize)]
struct ShardLine {
    shard: String,
    prefix: String,
    #[serde(flatten)]
    size: Size,
}

#[derive(Serialize)]
struct ChildLine {
    shard: String,
    prefix: String,
    /// About: a half is taken for half.
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<u64>,
}

/// What an organisation has of a shard.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct OrgLine {
    org: String,
    seats: usize,
    /// The shard goes on without all of its nodes.
    may_be_lost: bool,
}

#[derive(Serialize)]
struct Report {
    kind: &'static str,
    layout: u64,
    /// The shards that end, or the one in which a seat moves.
    shards: Vec<ShardLine>,
    /// The shards that begin; the numbers are those that the next job gets.
    children: Vec<ChildLine>,
    /// Nodes of each shard behind it.
    members: Vec<u32>,
    decide: usize,
    tolerates: usize,
    orgs: Vec<OrgLine>,
    /// The smaller half, or the right of two alike, takes the nodes of the other one first.
    aligns: bool,
    /// How long nothing is taken, about; none where a seat moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_ms: Option<u64>,
    /// Bytes that it takes of each disk at most, until what both have is given back; none where they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bytes: Option<u64>,
    /// What the node that takes the seat may still write, else the one of those behind it that may write least; none where
    /// they do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    /// The code of why it cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
}

/// What a plan is told with.
struct Facts<'a> {
    shards: &'a Shards,
    status: &'a v1::StatusReply,
    orgs: &'a Orgs,
    /// The longest round of the shards that it is about, if they answer.
    round: Option<Duration>,
}

impl Report {
    fn of(kind: &JobKind, found: &Result<Plan, Reject>, facts: &Facts<'_>) -> Self {
        let standing = &facts.shards.standing;
        let line = |group: GroupId| ShardLine {
            shard: group.to_string(),
            prefix: prefix(&standing.layout, group),
            size: Size::of(group, facts.shards, facts.status),
        };
        let shards: Vec<ShardLine> = kind.groups().into_iter().map(line).collect();
        let first = kind.groups().first().copied();
        let now = standing.committees.iter().find(|committee| Some(committee.group) == first);
        let plan = found.as_ref().ok();
        let committee = plan.map(|plan| &plan.committee).or(now);
        let members: Vec<u32> =
            committee.map_or_else(Vec::new, |found| found.members.iter().map(|member| member.node.0).collect());
        let takes = match kind {
            JobKind::Move { to, .. } => vec![to.0],
            JobKind::Split { .. } | JobKind::Merge { .. } => members.clone(),
        };
        let full = Room::of(kind, facts.shards, facts.status).filter(Room::lacks).map(|_| MOVE_FULL);
        let pause = facts.round.zip(least_pause(kind)).map(|(round, least)| least + round * ROUNDS);
        Self {
            kind: kind.name(),
            layout: standing.layout.version.0,
            children: plan.map_or_else(Vec::new, |plan| children(plan, &shards)),
            members,
            decide: committee.map_or(0, |found| usize::from(found.threshold)),
            tolerates: committee.map_or(0, |found| found.engine.tolerated(found.members.len())),
            orgs: committee.map_or_else(Vec::new, |found| by_org(found, facts.orgs)),
            aligns: plan.is_some_and(|plan| plan.aligns),
            pause_ms: pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            disk_bytes: disk_bytes(kind, &shards),
            free_bytes: least_free(&takes, facts.status),
            refusal: found.as_ref().err().map(|reject| reject.code()).or(full),
            shards,
        }
    }
}

fn prefix(layout: &Layout, group: GroupId) -> String {
    layout.prefix_of(group).map_or_else(|| "none".to_owned(), |prefix| prefix.to_string())
}

fn children(plan: &Plan, parents: &[ShardLine]) -> Vec<ChildLine> {
    let all: Option<u64> = parents.iter().map(|parent| parent.size.accounts).sum();
    let many = plan.children.len().max(1) as u64;
    let child = |child: &ledger::ChildShard| ChildLine {
        shard: child.group.to_string(),
        prefix: child.prefix.to_string(),
        accounts: all.map(|all| all / many),
    };
    plan.children.iter().map(child).collect()
}

/// What stands still for at least; nothing does where a seat moves.
fn least_pause(kind: &JobKind) -> Option<Duration> {
    match kind {
        JobKind::Split { .. } => Some(CUT),
        JobKind::Merge { .. } => Some(JOIN),
        JobKind::Move { .. } => None,
    }
}

/// Copies share the table files of their parent by links. Each half of a cut writes those anew in which the other half lies,
/// its own part of them, and the shared ones go when both have: until then that is once what the shard has. What is brought
/// in from the right half is written anew.
fn disk_bytes(kind: &JobKind, shards: &[ShardLine]) -> Option<u64> {
    match kind {
        JobKind::Merge { .. } => shards.get(1).and_then(|right| right.size.bytes),
        JobKind::Split { .. } | JobKind::Move { .. } => shards.first().and_then(|shard| shard.size.bytes),
    }
}

fn by_org(committee: &Committee, names: &Orgs) -> Vec<OrgLine> {
    let mut orgs: Vec<OrgId> = committee.members.iter().map(|member| member.org).collect();
    orgs.sort_unstable();
    orgs.dedup();
    let tolerated = committee.engine.tolerated(committee.members.len());
    let line = |org: OrgId| {
        let seats = committee.members.iter().filter(|member| member.org == org).count();
        OrgLine { org: names.name(org), seats, may_be_lost: seats <= tolerated }
    };
    orgs.into_iter().map(line).collect()
}

pub(super) async fn run(context: &Context, kind: JobKind, output: Output) -> Result<(), CliError> {
    let client = context.client().await?;
    let mut shards: Shards = client.shards().await?;
    let status = client.status().await?;
    let unheard = answers::unheard(&kind, &shards, &status);
    answers::silence(&mut shards, &unheard);
    let found = plan(&shards.standing, &kind);
    let round = match found.is_ok() {
        true => round(&client, &kind.parents()).await,
        false => None,
    };
    let orgs = Orgs::of(client.genesis());
    let report = Report::of(&kind, &found, &Facts { shards: &shards, status: &status, orgs: &orgs, round });
    output.result(&report, || text(&report))?;
    found.map_err(|reject| answers::refused(&kind, reject, &unheard).after_report())?;
    let full = Room::of(&kind, &shards, &status).and_then(|room| room.refused());
    full.map_or(Ok(()), |full| Err(full.after_report()))
}

/// What a question takes that a leader answers for most of its shard: the longest of these shards, each at its best.
async fn round(client: &Client, groups: &[GroupId]) -> Option<Duration> {
    let mut longest = None;
    for group in groups {
        let mut best = None;
        for _ in 0..TRIES {
            let since = Instant::now();
            client.block(*group, Height(0)).await.ok()?;
            let took = since.elapsed();
            best = Some(best.map_or(took, |best: Duration| best.min(took)));
        }
        longest = longest.max(best);
    }
    longest
}

fn text(report: &Report) -> String {
    let rows = report.shards.iter().map(|shard| {
        let [accounts, bytes, tps] = shard.size.cells();
        [shard.shard.clone(), shard.prefix.clone(), accounts, bytes, tps]
    });
    let mut text = table([report.kind, "prefix", "accounts", "bytes", "tx/s"], rows);
    if !report.children.is_empty() {
        let about = |accounts: Option<u64>| {
            accounts.map_or_else(|| "not known".to_owned(), |all| format!("about {}", grouped(all.into())))
        };
        let rows =
            report.children.iter().map(|child| [child.shard.clone(), child.prefix.clone(), about(child.accounts)]);
        text.push_str(&format!("\n{}", table(["then", "prefix", "accounts"], rows)));
    }
    let nodes: Vec<String> = report.members.iter().map(ToString::to_string).collect();
    let mut rows = vec![
        ("layout", format!("{0}; a command with '--on {0}' is refused on any other one", report.layout)),
        ("nodes", nodes.join(" ")),
        ("may fail", format!("{} of {}; {} decide", report.tolerates, report.members.len(), report.decide)),
    ];
    rows.extend(report.orgs.iter().map(|org| {
        let lost = if org.may_be_lost { "goes on without them" } else { "stands still without them" };
        ("organisation", format!("{} has {} of the nodes; the shard {lost}", org.org, org.seats))
    }));
    if report.aligns {
        rows.push((
            "first",
            "the smaller half, or the right of two alike, takes the nodes of the other one".to_owned(),
        ));
    }
    if let Some(pause) = report.pause_ms {
        let pause = format!("about {pause} ms, an estimate by what was measured with a million accounts");
        rows.push(("nothing is taken for", pause));
    }
    rows.push(("disk", disk(report)));
    rows.extend(report.free_bytes.map(|free| {
        let whose = if report.kind == "move" { "the node that takes the seat" } else { "the fullest of these nodes" };
        ("free", format!("{} bytes on {whose}", grouped(free.into())))
    }));
    let end = match report.refusal {
        Some(code) => format!("refused: {code}"),
        None => "nothing was sent".to_owned(),
    };
    format!("{text}\n{}\n{end}", facts(rows))
}

fn disk(report: &Report) -> String {
    match (report.kind, report.disk_bytes) {
        ("split", Some(bytes)) => {
            let bytes = grouped(bytes.into());
            format!("little at first, then up to {bytes} bytes on each node until both halves have files of their own")
        }
        ("split", None) => {
            "as much as the shard has on each node, until both halves have files of their own".to_owned()
        }
        ("merge", Some(bytes)) => {
            format!("about {} bytes on each node: the right half is written anew", grouped(bytes.into()))
        }
        ("merge", None) => "as much as the right half has on each node, since it is written anew".to_owned(),
        (_, Some(bytes)) => format!("about {} bytes on the node that takes the seat", grouped(bytes.into())),
        (_, None) => "as much as the shard has, on the node that takes the seat".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use beacon::jobs::scale::{GroupLoad, Load, SCALE_VERSION, ScalePolicy};
    use beacon::jobs::{Phase, Standing};
    use ledger::genesis::NodeInfo;
    use ledger::{NodeId, TimeMs};

    use super::super::job::refusal;
    use super::super::lines::tests::{committee, job};
    use super::*;

    const ZERO: GroupId = GroupId::shard(0);
    const ONE: GroupId = GroupId::shard(1);
    const SPLIT: JobKind = JobKind::Split { group: ZERO };
    const MERGE: JobKind = JobKind::Merge { left: ZERO, right: ONE };

    /// Two shards on nodes 1 to 3, of which the first has 1,000 accounts and reports its load.
    pub(in super::super) fn scene() -> (Shards, v1::StatusReply) {
        let committees = vec![committee(ZERO, &[1, 2, 3]), committee(ONE, &[1, 2, 3])];
        let info = |node: u8| NodeInfo {
            id: NodeId(node.into()),
            org: OrgId(1),
            zone: String::new(),
            capacity: 1,
            key: ledger::PublicKey([node; 33]),
            tls_key_hash: ledger::Hash32::ZERO,
            peer_addr: String::new(),
            client_addr: String::new(),
        };
        let standing = Standing {
            layout: Layout::even(2),
            nodes: (1..=4).map(info).collect(),
            committees,
            coming: Vec::new(),
            switching: Vec::new(),
            barred: Vec::new(),
            silent: Vec::new(),
            quarantined: Vec::new(),
            jobs: Vec::new(),
            next_shard: 2,
            view_bytes: 1_000,
        };
        let load = Load { accounts: 990, bytes: 5_000, tps: 7 };
        let taken_ms = TimeMs(1);
        let load = GroupLoad {
            version: SCALE_VERSION,
            group: ONE,
            node: NodeId(1),
            load,
            taken_ms,
            split_since_ms: None,
            merge_since_ms: None,
        };
        let shards = Shards {
            version: beacon::jobs::shards::SHARDS_VERSION,
            time_ms: taken_ms,
            standing,
            ended: Vec::new(),
            born: Vec::new(),
            policy: ScalePolicy::DEFAULT,
            loads: vec![load],
            notes: Vec::new(),
            lead: None,
        };
        let replica = |accounts| v1::ReplicaStatus { group: ZERO.0, accounts, ..v1::ReplicaStatus::default() };
        let node =
            |accounts| v1::NodeStatusReply { replicas: vec![replica(accounts)], ..v1::NodeStatusReply::default() };
        let status = v1::StatusReply { nodes: [0, 1_000, 999].map(node).to_vec(), unreachable: Vec::new() };
        (shards, status)
    }

    fn report(kind: JobKind, change: impl FnOnce(&mut Shards)) -> Report {
        let (mut shards, status) = scene();
        change(&mut shards);
        let found = plan(&shards.standing, &kind);
        let (orgs, round) = (Orgs::named(&["org-a", "org-b", "org-c"]), Some(Duration::from_millis(4)));
        Report::of(&kind, &found, &Facts { shards: &shards, status: &status, orgs: &orgs, round })
    }

    #[test]
    fn a_plan_says_what_begins_how_long_it_takes_and_who_may_fail() {
        let split = report(SPLIT, |_| {});
        assert_eq!((split.refusal, split.pause_ms, split.tolerates), (None, Some(332), 1));
        let text = text(&split);
        for part in [
            "1,000",
            "shard-2",
            "about 500",
            "1 of 3; 2 decide",
            "org-b has 1 of the nodes; the shard goes on without them",
            "about 332 ms, an estimate",
            "as much as the shard has on each node",
            "'--on 1' is refused on any other one",
            "nothing was sent",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json = serde_json::to_value(&split).unwrap();
        assert_eq!((&json["shards"][0]["accounts"], &json["children"][1]["prefix"]), (&1_000.into(), &"01".into()));
        assert_eq!(json["shards"][0].get("bytes"), None, "what nobody reports is not known");
    }

    #[test]
    fn a_merge_counts_both_and_writes_the_right_one_anew() {
        let merge = report(MERGE, |_| {});
        assert_eq!((merge.children[0].accounts, merge.disk_bytes), (Some(1_990), Some(5_000)));
        assert_eq!(merge.pause_ms, Some(432));
        assert!(text(&merge).contains("about 5,000 bytes on each node"));
        // An organisation with too many nodes is named.
        let alone = report(MERGE, |shards| {
            let members = shards.standing.committees.iter_mut().flat_map(|committee| &mut committee.members);
            members.for_each(|member| member.org = OrgId(1));
        });
        assert_eq!(alone.orgs, [OrgLine { org: "org-a".to_owned(), seats: 3, may_be_lost: false }]);
        assert!(text(&alone).contains("stands still without them"));
        // The larger half keeps its nodes, and who may fail follows from them.
        let larger = report(MERGE, |shards| shards.standing.committees[1] = committee(ONE, &[1, 2, 3, 4]));
        assert_eq!((larger.refusal, larger.members, larger.decide, larger.aligns), (None, vec![1, 2, 3, 4], 3, true));
        let moving = JobKind::Move { group: ONE, from: NodeId(1), to: NodeId(4) };
        let moving = report(moving, |_| {});
        assert_eq!((moving.pause_ms, moving.members), (None, vec![2, 3, 4]));
    }

    #[test]
    fn the_size_of_a_shard_is_known_without_scaling() {
        let (mut shards, mut status) = scene();
        shards.loads.clear();
        let nodes = status.nodes.iter_mut().flat_map(|node| &mut node.replicas);
        nodes.zip([(6_000, 7), (7_000, 900), (0, 8)]).for_each(|(replica, (bytes, tps))| {
            (replica.state_bytes, replica.tps) = (bytes, tps);
        });
        let size = Size::of(ZERO, &shards, &status);
        assert_eq!(size, Size { accounts: Some(1_000), bytes: Some(7_000), tps: Some(8) }, "the middle of the rates");
        let found = plan(&shards.standing, &SPLIT);
        let (orgs, round) = (Orgs::named(&["org-a", "org-b", "org-c"]), Some(Duration::from_millis(10)));
        let split = Report::of(&SPLIT, &found, &Facts { shards: &shards, status: &status, orgs: &orgs, round });
        assert_eq!((split.pause_ms, split.disk_bytes), (Some(350), Some(7_000)));
        assert!(text(&split).contains("up to 7,000 bytes on each node until both halves"));
        assert_eq!(Size::of(ONE, &shards, &status), Size::default(), "none of its replicas answers");
    }

    #[test]
    fn a_plan_tells_what_is_free_and_refuses_a_node_without_room() {
        let (shards, mut status) = scene();
        status.nodes[0].replicas[0].state_bytes = 7_000;
        let disk = |node, disk_free_bytes| v1::NodeStatusReply {
            node,
            disk_free_bytes,
            disk_size_bytes: 32_000,
            ..v1::NodeStatusReply::default()
        };
        status.nodes.extend([disk(2, 900), disk(3, 800), disk(4, 14_000)]);
        let orgs = Orgs::named(&["org-a", "org-b", "org-c"]);
        let report = |kind: JobKind| {
            let found = plan(&shards.standing, &kind);
            Report::of(&kind, &found, &Facts { shards: &shards, status: &status, orgs: &orgs, round: None })
        };
        let split = report(SPLIT);
        assert_eq!((split.free_bytes, split.refusal), (Some(800), None));
        assert!(text(&split).contains("800 bytes on the fullest of these nodes"));
        let moves = report(JobKind::Move { group: ZERO, from: NodeId(1), to: NodeId(4) });
        assert_eq!((moves.free_bytes, moves.refusal), (Some(14_000), Some(MOVE_FULL)));
        let text = text(&moves);
        assert!(text.contains("14,000 bytes on the node that takes the seat") && text.contains("refused: move_full"));
    }

    /// Each by its code, as the beacon would refuse it.
    #[test]
    fn what_speaks_against_it_is_told() {
        let rows: [(&str, JobKind, fn(&mut Shards)); 6] = [
            ("shard_unknown", JobKind::Split { group: GroupId::shard(9) }, |_| {}),
            ("not_siblings", JobKind::Merge { left: ONE, right: ZERO }, |_| {}),
            ("shard_busy", SPLIT, |shards| {
                shards.standing.jobs.push(job(SPLIT, Phase::Preparing));
            }),
            ("shard_risk", SPLIT, |shards| shards.standing.silent.push(NodeId(3))),
            ("move_target", JobKind::Move { group: ZERO, from: NodeId(1), to: NodeId(2) }, |_| {}),
            ("move_source", JobKind::Move { group: ZERO, from: NodeId(4), to: NodeId(2) }, |_| {}),
        ];
        for (code, kind, change) in rows {
            let report = report(kind, change);
            assert_eq!(report.refusal, Some(code));
            assert!(text(&report).contains(&format!("refused: {code}")));
            assert!(report.children.is_empty());
            let error = refusal(&kind, Reject::ALL.iter().copied().find(|reject| reject.code() == code).unwrap());
            assert_eq!((error.code.as_str(), error.fix.is_empty()), (code, false));
        }
    }
}
