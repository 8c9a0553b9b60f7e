//! `group consensus`: another engine for a group that runs. What it changes is shown first, by what the beacon and the
//! members themselves say ([`look`]); the beacon judges again. Then the command is signed and sent, and the switch watched
//! until every replica runs the new engine.

use std::time::{Duration, Instant};

use beacon::engine::Side;
use beacon::rate::{SOURCE, expected_percent};
use beacon::{BeaconCommand, Preflight};
use client::Client;
use ledger::genesis::VerifyMode;
use ledger::{Committee, Engine, GroupId, GroupKind, NodeId, Reject};
use proto::v1;
use serde::Serialize;

use super::channel;
use super::signer::{Signer, salt};
use crate::args::{Admin, Group};
use crate::error::CliError;
use crate::load::agree::committees;
use crate::output::{Output, facts, rounded, table};

mod look;

/// Between two looks at a switch that is under way.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A committee before or behind the switch.
#[derive(Serialize)]
struct SideLine {
    engine: &'static str,
    members: usize,
    threshold: usize,
    tolerated: usize,
    messages: usize,
    signatures: usize,
}

impl From<&Side> for SideLine {
    fn from(side: &Side) -> Self {
        let Side { engine, members, threshold, tolerated, messages, signatures } = *side;
        Self { engine: engine.name(), members, threshold, tolerated, messages, signatures }
    }
}

#[derive(Serialize)]
struct Report {
    group: String,
    now: SideLine,
    then: SideLine,
    /// Nodes that take seats first.
    joining: Vec<u32>,
    /// Nodes that give seats up at the end.
    leaving: Vec<u32>,
    /// Changes of committee until it is done.
    steps: usize,
    /// Members that go over with a vote.
    voting: usize,
    /// The engine that the group is on its way to already, when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    under_way: Option<&'static str>,
    /// What to expect of rate and latency.
    rate: &'static str,
    /// The rate behind the switch over the present one, as measured elsewhere: under full load, with all members on one
    /// machine.
    expected_rate_ratio: f64,
    /// Where that was measured.
    expected_rate_source: &'static str,
    notes: Vec<String>,
    /// The code of why it cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
    /// `dry_run`, `refused`, `pending`, `under_way` or `in_force`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// Organisations that have approved, of those that have to, while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    approvals: Option<(u32, u32)>,
    /// From the command until every replica ran the new engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

impl Report {
    fn of(found: &Preflight, verify: VerifyMode, state: &'static str) -> Self {
        Self {
            group: found.group.to_string(),
            now: (&found.now).into(),
            then: (&found.then).into(),
            joining: found.joining.iter().map(|node| node.0).collect(),
            leaving: found.leaving.iter().map(|node| node.0).collect(),
            steps: found.steps,
            voting: found.voting,
            under_way: found.under_way.map(Engine::name),
            rate: found.rate,
            expected_rate_ratio: expected_percent(&found.now, &found.then, verify) as f64 / 100.0,
            expected_rate_source: SOURCE,
            notes: found.notes.clone(),
            refusal: found.refusal.map(Reject::code),
            state,
            command: None,
            approvals: None,
            seconds: None,
        }
    }
}

pub(super) async fn run(args: Group, output: Output) -> Result<(), CliError> {
    let Group::Consensus { admin, group, engine, dry_run, within, wait } = args;
    let switch = Switch { admin: &admin, engine: engine.into(), within, wait: Duration::from_secs(wait) };
    switch.run(&group, dry_run, output).await
}

/// What was asked for.
struct Switch<'a> {
    admin: &'a Admin,
    engine: Engine,
    within: u64,
    wait: Duration,
}

impl Switch<'_> {
    async fn run(&self, group: &str, dry_run: bool, output: Output) -> Result<(), CliError> {
        let signer = Signer::of(self.admin)?;
        let client = signer.reader().await?;
        let group = named(&client, group).await?;
        let found = Box::pin(look::look(&client, group, self.engine)).await?;
        let verify = client.genesis().verify;
        if let Some(reject) = found.refusal {
            let report = Report::of(&found, verify, "refused");
            output.result(&report, || text(&report))?;
            return Err(CliError::new(reject.code(), reject.cause(), reject.fix()).after_report());
        }
        if dry_run {
            let report = Report::of(&found, verify, "dry_run");
            return output.result(&report, || text(&report));
        }
        if group.kind() == Some(GroupKind::Channel) {
            output.remark(table_of(&Report::of(&found, verify, "pending")));
            return channel::propose_engine(self.admin, &group.to_string(), self.engine, self.within, output).await;
        }
        self.send(&signer, &client, &found, output).await
    }

    /// Signs and sends the command, and watches what comes of it.
    async fn send(
        &self,
        signer: &Signer<'_>,
        reader: &Client,
        found: &Preflight,
        output: Output,
    ) -> Result<(), CliError> {
        let org = signer.org(None)?;
        let client = signer.client_of(&org.name).await?;
        let command = BeaconCommand::SwitchEngine { group: found.group, engine: self.engine };
        let since = Instant::now();
        let fate = signer.command(&client, &org, &command, salt()?, self.within).await?;
        let mut report =
            Report { command: Some(fate.digest.to_string()), ..Report::of(found, reader.genesis().verify, "pending") };
        if let Some(approvals) = fate.pending {
            report.approvals = Some(approvals);
            return output.result(&report, || text(&report));
        }
        report.state = "under_way";
        if self.watch(reader, found, since, output).await? {
            report.state = "in_force";
            report.seconds = Some(rounded(since.elapsed().as_secs_f64()));
        }
        output.result(&report, || text(&report))
    }

    /// Waits until the committee under the new engine is in force with as many members as it is to have, and all of them
    /// run it. Says whether they do in time.
    async fn watch(
        &self,
        client: &Client,
        found: &Preflight,
        since: Instant,
        output: Output,
    ) -> Result<bool, CliError> {
        let mut told = String::new();
        loop {
            let in_force = committees(client).await?.into_iter().find(|committee| committee.group == found.group);
            let progress = match in_force {
                Some(committee) => Progress::of(&committee, &client.status().await?, &found.then),
                None => Progress::default(),
            };
            let line = progress.text(self.engine);
            if line != told {
                output.remark(format!("{:.1} s: {line}", since.elapsed().as_secs_f64()));
                told = line;
            }
            if progress.done() {
                return Ok(true);
            }
            if since.elapsed() >= self.wait {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// How far a switch is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Members of the committee in force.
    members: usize,
    /// Members that are to be left at the end.
    wanted: usize,
    /// Whether that committee is one of the new engine.
    in_force: bool,
    /// Members that run the new engine.
    running: Vec<NodeId>,
    /// The member that leads under it.
    leader: Option<NodeId>,
}

impl Progress {
    fn of(committee: &Committee, status: &v1::StatusReply, then: &Side) -> Self {
        let engine = then.engine;
        let replica = |node: NodeId| {
            let reply = status.nodes.iter().find(|reply| reply.node == node.0)?;
            reply.replicas.iter().find(|replica| replica.group == committee.group.0)
        };
        let runs = |replica: &&v1::ReplicaStatus| replica.engine == engine.name() && replica.stopped.is_empty();
        let members = committee.members.iter().map(|member| member.node);
        let running: Vec<(NodeId, bool)> =
            members.filter_map(|node| Some((node, replica(node).filter(runs)?.leads))).collect();
        Self {
            members: committee.members.len(),
            wanted: then.members,
            in_force: committee.engine == engine,
            leader: running.iter().find(|(_, leads)| *leads).map(|(node, _)| *node),
            running: running.into_iter().map(|(node, _)| node).collect(),
        }
    }

    fn done(&self) -> bool {
        self.in_force && self.members == self.wanted && self.running.len() == self.members && self.leader.is_some()
    }

    fn text(&self, engine: Engine) -> String {
        if !self.in_force {
            return format!("the committee for {engine} is being prepared; {} members are in force", self.members);
        }
        let leader = self.leader.map_or_else(|| "nobody leads yet".to_owned(), |node| format!("node {node} leads"));
        let left = match self.members.saturating_sub(self.wanted) {
            0 => String::new(),
            many => format!("; seats to give up: {many}"),
        };
        let running = self.running.len();
        format!("the committee for {engine} is in force; {running} of {} run it, {leader}{left}", self.members)
    }
}

/// The group that a text names.
async fn named(client: &Client, text: &str) -> Result<GroupId, CliError> {
    match text.parse() {
        Ok(group) => Ok(group),
        Err(_) => channel::named(client, text).await,
    }
}

fn table_of(report: &Report) -> String {
    let row = |what: &str, of: fn(&SideLine) -> String| [what.to_owned(), of(&report.now), of(&report.then)];
    let rows = [
        row("engine", |side| side.engine.to_owned()),
        row("members", |side| side.members.to_string()),
        row("of them decide", |side| side.threshold.to_string()),
        row("may fail", |side| match side.engine == Engine::Bft.name() {
            true => format!("{}, and may lie", side.tolerated),
            false => format!("{}, and may stop", side.tolerated),
        }),
        row("messages for an entry", |side| side.messages.to_string()),
        row("signatures for an entry", |side| side.signatures.to_string()),
    ];
    table([report.group.as_str(), "now", "then"], rows)
}

fn text(report: &Report) -> String {
    let nodes = |nodes: &[u32]| nodes.iter().map(|node| format!("node-{node}")).collect::<Vec<_>>().join(", ");
    let expected = format!(
        "about {} of the present one under full load, as measured with all members on one machine ({}); less is lost, or won, \
         where each has its own",
        report.expected_rate_ratio, report.expected_rate_source
    );
    let mut rows = vec![("rate", report.rate.to_owned()), ("expected rate", expected)];
    rows.push(("go over with a vote", report.voting.to_string()));
    if !report.joining.is_empty() {
        rows.push(("join first", nodes(&report.joining)));
    }
    if !report.leaving.is_empty() {
        rows.push(("leave at the end", nodes(&report.leaving)));
    }
    rows.extend(report.under_way.map(|engine| ("on its way to", engine.to_owned())));
    rows.push(("changes of committee", report.steps.to_string()));
    rows.extend(report.notes.iter().map(|note| ("note", note.clone())));
    let state = match (report.state, report.approvals, report.seconds) {
        ("dry_run", ..) => "nothing was sent".to_owned(),
        ("refused", ..) => format!("refused: {}", report.refusal.unwrap_or("")),
        (_, Some((approvals, needed)), _) => {
            format!("{approvals} of {needed} organisations have approved; the others send the same command")
        }
        (_, _, Some(seconds)) => format!("{} runs on all members, after {seconds:.1} s", report.then.engine),
        _ => "it is under way, and comes by itself; 'seamark status' shows it".to_owned(),
    };
    format!("{}\n{}\n{state}", table_of(report), facts(rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use beacon::{Standing, preflight};
    use ledger::genesis::NodeInfo;
    use ledger::{Epoch, Incarnation, Member, OrgId, PublicKey};

    const SHARD: GroupId = GroupId::shard(0);

    fn committee(engine: Engine) -> Committee {
        let member = |node: u8| Member { node: NodeId(node.into()), org: OrgId(1), key: PublicKey([node; 33]) };
        Committee::of(engine, SHARD, Incarnation(0), Epoch(1), (1..=4).map(member).collect())
    }

    fn status(engines: [&str; 4], leader: u32) -> v1::StatusReply {
        let node = |(node, engine): (u32, &str)| {
            let replica = v1::ReplicaStatus {
                group: SHARD.0,
                leads: node == leader,
                engine: engine.to_owned(),
                ..v1::ReplicaStatus::default()
            };
            v1::NodeStatusReply { node, replicas: vec![replica], ..v1::NodeStatusReply::default() }
        };
        v1::StatusReply { nodes: (1..).zip(engines).map(node).collect(), unreachable: Vec::new() }
    }

    #[test]
    fn a_switch_is_there_when_the_committee_is_in_force_and_all_of_it_runs_the_engine() {
        let side = |members| Side::of(Engine::Bft, members);
        let of = |in_force, engines, leader| Progress::of(&committee(in_force), &status(engines, leader), &side(4));
        let before = of(Engine::Raft, ["raft"; 4], 1);
        assert!(!before.done() && before.text(Engine::Bft).contains("is being prepared"), "{before:?}");
        let some = of(Engine::Bft, ["bft", "raft", "bft", "raft"], 3);
        assert!(!some.done() && some.text(Engine::Bft).contains("2 of 4 run it, node 3 leads"), "{some:?}");
        assert!(!of(Engine::Bft, ["bft"; 4], 9).done(), "nobody leads");
        assert!(of(Engine::Bft, ["bft"; 4], 2).done());
        let too_many = Progress::of(&committee(Engine::Raft), &status(["raft"; 4], 2), &Side::of(Engine::Raft, 3));
        assert!(!too_many.done() && too_many.text(Engine::Raft).contains("seats to give up: 1"), "{too_many:?}");
    }

    #[test]
    fn what_would_change_is_told_to_people_and_to_programs() {
        let standing = Standing { committees: vec![committee(Engine::Raft)], ..Standing::default() };
        let mut found = preflight(&standing, SHARD, Engine::Bft).unwrap();
        assert_eq!((found.now.tolerated, found.then.threshold), (1, 3));
        found.refusal = None;
        let report = Report::of(&found, VerifyMode::Every, "dry_run");
        let text = text(&report);
        let parts = ["shard-0", "1, and may stop", "1, and may lie", "changes of committee", "nothing was sent"];
        for part in
            parts.into_iter().chain(["about 1.01 of the present one", "docs/performance.md", "go over with a vote"])
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["then"]["engine"], &json["state"]), (&"bft".into(), &"dry_run".into()));
        assert_eq!(json["expected_rate_ratio"], 1.01);
        let refused = preflight(&standing, SHARD, Engine::Raft).unwrap();
        let refused = Report::of(&refused, VerifyMode::Every, "refused");
        assert_eq!(refused.refusal, Some("engine_same"));
    }

    #[test]
    fn the_way_back_says_who_gives_its_seat_up() {
        let info = |member: &Member| NodeInfo {
            id: member.node,
            org: member.org,
            zone: "a".to_owned(),
            capacity: 1,
            key: member.key,
            tls_key_hash: ledger::Hash32::ZERO,
            peer_addr: String::new(),
            client_addr: String::new(),
        };
        let four = committee(Engine::Bft);
        let standing = Standing {
            nodes: four.members.iter().map(info).collect(),
            committees: vec![four],
            configured: vec![(SHARD, 3)],
            ..Standing::default()
        };
        let found = preflight(&standing, SHARD, Engine::Raft).unwrap();
        assert_eq!((found.refusal, found.then.members, found.leaving.len(), found.steps), (None, 3, 1, 2));
        let text = text(&Report::of(&found, VerifyMode::Every, "dry_run"));
        for part in ["leave at the end", "the genesis gives the group 3 members, and 4 are in force"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
