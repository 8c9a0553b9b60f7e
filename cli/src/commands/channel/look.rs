//! Looking at channels: the directory that everybody may read, how a channel's group is doing, and what
//! its members alone are shown.

use channel::{Founding, Phase, PromiseStanding, Subject};
use ledger::{Committee, OrgId};
use proto::v1::StatusReply;
use proto::views::ChannelLine;
use serde::Serialize;

use super::govern::ProposalLine;
use super::names;
use super::words::{self, Standing};
use crate::args::InChannel;
use crate::commands::context::Context;
use crate::commands::show::groups_table;
use crate::commands::signer::{Orgs, Signer, now};
use crate::draft::words::and;
use crate::error::CliError;
use crate::health::{GroupLine, groups, problems};
use crate::load::agree::committees;
use crate::output::{Output, foreign, moment, table};

/// Digits of an id that people are shown in a table; enough to name it by.
const SHORT_ID: usize = 12;

/// A channel as the directory has it.
#[derive(Serialize)]
struct DirectoryLine {
    channel: String,
    name: String,
    status: String,
    members: Vec<String>,
    nodes: Vec<u32>,
    anchors: Vec<u32>,
    founding: String,
}

impl DirectoryLine {
    fn of(line: &ChannelLine, orgs: &Orgs) -> Self {
        Self {
            channel: line.group.to_string(),
            name: line.name.clone(),
            status: line.status.clone(),
            members: line.members.iter().map(|org| orgs.name(*org)).collect(),
            nodes: line.nodes.iter().map(|node| node.0).collect(),
            anchors: line.anchors.iter().map(|node| node.0).collect(),
            founding: line.founding.to_string(),
        }
    }
}

/// A founding, as far as it has come.
#[derive(Serialize)]
struct FoundingLine {
    founding: String,
    name: String,
    state: &'static str,
    proposer: String,
    organisations: Vec<String>,
    until_ms: u64,
    #[serde(flatten)]
    standing: Standing,
}

impl FoundingLine {
    fn of(founding: &Founding, orgs: &Orgs) -> Self {
        Self {
            founding: founding.id.to_string(),
            name: founding.terms.name.clone(),
            state: words::phase_word(founding.phase_at(now())),
            proposer: orgs.name(founding.proposer),
            organisations: founding.named().into_iter().map(|org| orgs.name(org)).collect(),
            until_ms: founding.until_ms.0,
            standing: Standing::of_founding(founding, orgs),
        }
    }
}

#[derive(Serialize)]
struct Listed {
    channels: Vec<DirectoryLine>,
    /// Those that wait for somebody.
    foundings: Vec<FoundingLine>,
}

fn orgs_of(context: &Context) -> Result<Orgs, CliError> {
    Ok(Orgs::of(&context.profile()?.genesis()?))
}

/// `channel ls`.
pub(super) async fn ls(context: &Context, output: Output) -> Result<(), CliError> {
    let orgs = orgs_of(context)?;
    let client = context.client().await?;
    let channels = client.channels().await?;
    let foundings = client.foundings().await?;
    let open = foundings.iter().filter(|founding| founding.phase_at(now()) == Phase::Proposed);
    let listed = Listed {
        channels: channels.iter().map(|line| DirectoryLine::of(line, &orgs)).collect(),
        foundings: open.map(|founding| FoundingLine::of(founding, &orgs)).collect(),
    };
    output.result(&listed, || listed_text(&listed))
}

fn listed_text(listed: &Listed) -> String {
    let rows = listed.channels.iter().map(|line| {
        [
            line.channel.clone(),
            foreign(&line.name),
            line.status.clone(),
            line.members.join(" "),
            numbers(&line.nodes),
            numbers(&line.anchors),
        ]
    });
    let channels = match listed.channels.is_empty() {
        true => "there is no channel".to_owned(),
        false => table(["channel", "name", "status", "members", "nodes", "anchors"], rows),
    };
    if listed.foundings.is_empty() {
        return channels;
    }
    let rows = listed.foundings.iter().map(|line| {
        [
            foreign(&line.name),
            short(&line.founding),
            line.organisations.join(" "),
            line.standing.needs.clone(),
            moment(line.until_ms),
        ]
    });
    format!("{channels}\n{}", table(["being founded", "id", "organisations", "what is missing", "until"], rows))
}

fn short(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

fn numbers(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[derive(Serialize)]
struct Seat {
    node: u32,
    org: String,
}

/// How a channel is doing.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    line: DirectoryLine,
    /// Whether its group runs, and nothing is wrong with it.
    healthy: bool,
    problems: Vec<String>,
    /// The nodes that decide; empty until the router has heard of them.
    committee: Vec<Seat>,
    /// How many of them a block takes.
    threshold: u16,
    epoch: u64,
    /// Leader and heights; none until the router has heard of the committee.
    group: Option<GroupLine>,
}

/// `channel status`.
pub(super) async fn status(context: &Context, channel: &str, output: Output) -> Result<(), CliError> {
    let orgs = orgs_of(context)?;
    let client = context.client().await?;
    let line = names::channel(&client, channel).await?;
    let committees = committees(&client).await?;
    let committee = committees.iter().find(|committee| committee.group == line.group);
    let said = client.status().await?;
    let status = judge(DirectoryLine::of(&line, &orgs), committee, &said, &orgs);
    output.result(&status, || status_text(&status))
}

fn judge(line: DirectoryLine, committee: Option<&Committee>, said: &StatusReply, orgs: &Orgs) -> Status {
    let Some(committee) = committee else {
        let problem = "the router has not heard of the channel's committee yet".to_owned();
        return Status {
            line,
            healthy: false,
            problems: vec![problem],
            committee: Vec::new(),
            threshold: 0,
            epoch: 0,
            group: None,
        };
    };
    // What is wrong with nodes that have no seat here is for 'seamark status' to say.
    let seated = |node: u32| committee.members.iter().any(|member| member.node.0 == node);
    let own = StatusReply {
        nodes: said.nodes.iter().filter(|node| seated(node.node)).cloned().collect(),
        unreachable: said.unreachable.iter().filter(|node| seated(node.node)).cloned().collect(),
    };
    let only = std::slice::from_ref(committee);
    let problems = problems(&own, only);
    Status {
        line,
        healthy: problems.is_empty(),
        problems,
        committee: committee
            .members
            .iter()
            .map(|member| Seat { node: member.node.0, org: orgs.name(member.org) })
            .collect(),
        threshold: committee.threshold,
        epoch: committee.epoch.0,
        group: groups(&own, only).into_iter().next(),
    }
}

fn status_text(status: &Status) -> String {
    let line = &status.line;
    let seats: Vec<String> = status.committee.iter().map(|seat| format!("{} ({})", seat.node, seat.org)).collect();
    let mut text = format!("{} ({}): {}", foreign(&line.name), line.channel, line.status);
    text.push_str(&format!("\n  members    {}", line.members.join(" ")));
    text.push_str(&format!("\n  anchors    {}", numbers(&line.anchors)));
    text.push_str(&format!("\n  committee  {}; {} of them decide", seats.join(", "), status.threshold));
    if let Some(group) = &status.group {
        text.push_str(&format!("\n{}", groups_table(&[group], None)));
    }
    match status.problems.as_slice() {
        [] => text.push_str("\neverything is well"),
        problems => text.push_str(&format!("\nwhat is wrong:\n  - {}", problems.join("\n  - "))),
    }
    text
}

#[derive(Serialize)]
struct MemberLine {
    org: String,
    joined: u64,
    keys: Vec<KeyLine>,
    nodes: Vec<u32>,
    anchors: Vec<u32>,
}

#[derive(Serialize)]
struct KeyLine {
    key: String,
    role: &'static str,
}

/// Who has to approve what.
#[derive(Serialize)]
pub(super) struct PolicyLine {
    pub(super) subject: &'static str,
    pub(super) policy: String,
}

impl PolicyLine {
    pub(super) fn of(subject: Subject, policy: &channel::Policy, orgs: &Orgs) -> Self {
        Self { subject: subject.word(), policy: policy.text(&|org| orgs.known(org)) }
    }
}

#[derive(Serialize)]
struct InvitationLine {
    org: String,
    until_ms: u64,
}

#[derive(Serialize)]
struct GrantLine {
    grant: String,
    org: String,
    until_ms: u64,
    what: String,
}

/// A channel as its members see it.
#[derive(Serialize)]
struct Shown {
    channel: String,
    name: String,
    status: &'static str,
    height: u64,
    time_ms: u64,
    started_ms: u64,
    founding: String,
    members: Vec<MemberLine>,
    policies: Vec<PolicyLine>,
    /// Those that have not ended.
    invitations: Vec<InvitationLine>,
    /// Those that have not ended.
    grants: Vec<GrantLine>,
    open_proposals: usize,
    /// What the founding promised, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    promise: Option<PromiseLine>,
}

/// What a founding promised, and how far the channel is with it.
#[derive(Serialize)]
struct PromiseLine {
    hash: String,
    state: &'static str,
}

/// `channel show`.
pub(super) async fn show(on: &InChannel, output: Output) -> Result<(), CliError> {
    let signer = Signer::of(&on.admin)?;
    let orgs = signer.orgs();
    let client = signer.reader().await?;
    let line = names::channel(&client, &on.channel).await?;
    let governance = client.governance(line.group).await?;
    let (at, height) = (governance.time_ms, governance.height);
    let name = |org: OrgId| orgs.name(org);
    let members = governance.members.iter().map(|member| MemberLine {
        org: name(member.org),
        joined: member.joined.0,
        keys: member.keys.iter().map(|key| KeyLine { key: key.key.to_string(), role: key.role.word() }).collect(),
        nodes: member.nodes.iter().map(|node| node.node.0).collect(),
        anchors: member.anchors.iter().map(|node| node.0).collect(),
    });
    let policy = |(subject, policy): &(Subject, channel::Policy)| PolicyLine::of(*subject, policy, &orgs);
    let promise = governance
        .promise
        .map(|promise| PromiseLine { hash: promise.hash.to_string(), state: words::promise_word(promise.standing) });
    let invitations = governance.invitations.iter().filter(|invitation| invitation.until_ms >= at);
    let grants = governance
        .grants
        .iter()
        .filter(|found| found.grant.until_ms >= at && found.grant.until_height.is_none_or(|until| until >= height));
    let open = governance.proposals.iter().filter(|proposal| proposal.state_at(at) == channel::ProposalState::Open);
    let shown = Shown {
        channel: line.group.to_string(),
        name: governance.record.name.clone(),
        status: words::phase_word(governance.record.phase),
        height: height.0,
        time_ms: at.0,
        started_ms: governance.record.started_ms.0,
        founding: governance.record.founding.to_string(),
        members: members.collect(),
        policies: governance.policies.iter().map(policy).collect(),
        invitations: invitations
            .map(|invitation| InvitationLine { org: name(invitation.org), until_ms: invitation.until_ms.0 })
            .collect(),
        grants: grants
            .map(|found| GrantLine {
                grant: found.id.to_string(),
                org: name(found.grant.org),
                until_ms: found.grant.until_ms.0,
                what: words::audit(&found.grant, &orgs),
            })
            .collect(),
        open_proposals: open.count(),
        promise,
    };
    output.result(&shown, || shown_text(&shown))
}

fn shown_text(shown: &Shown) -> String {
    let mut text = format!(
        "{} ({}): {}, at block {}, running since {}\n",
        foreign(&shown.name),
        shown.channel,
        shown.status,
        shown.height,
        moment(shown.started_ms)
    );
    let members = shown.members.iter().map(|member| {
        let keys: Vec<String> = member.keys.iter().map(|key| format!("{} {}", key.role, key.key)).collect();
        [member.org.clone(), numbers(&member.nodes), numbers(&member.anchors), keys.join("\n")]
    });
    text.push_str(&table(["member", "nodes", "anchors", "keys"], members));
    let policies = shown.policies.iter().map(|line| [line.subject.to_owned(), line.policy.clone()]);
    text.push_str(&format!("\n{}", table(["subject", "who has to approve"], policies)));
    if shown.promise.as_ref().is_some_and(|promise| promise.state == words::promise_word(PromiseStanding::Waits)) {
        text.push_str(&format!("\nwhat the founders agreed on waits: see 'seamark channel open {}'", shown.channel));
    }
    for invitation in &shown.invitations {
        text.push_str(&format!("\n{} is invited until {}", invitation.org, moment(invitation.until_ms)));
    }
    for grant in &shown.grants {
        text.push_str(&format!("\n{} (grant {})", grant.what, grant.grant));
    }
    match shown.open_proposals {
        0 => {}
        count => text.push_str(&format!("\n{count} open: see 'seamark channel proposals {}'", shown.channel)),
    }
    text
}

#[derive(Serialize)]
struct Proposals {
    channel: String,
    name: String,
    height: u64,
    /// The newest first.
    proposals: Vec<ProposalLine>,
}

/// `channel proposals`.
pub(super) async fn proposals(on: &InChannel, output: Output) -> Result<(), CliError> {
    let signer = Signer::of(&on.admin)?;
    let orgs = signer.orgs();
    let client = signer.reader().await?;
    let line = names::channel(&client, &on.channel).await?;
    let governance = client.governance(line.group).await?;
    let mut kept: Vec<&channel::Proposal> = governance.proposals.iter().collect();
    kept.sort_by_key(|proposal| (std::cmp::Reverse(proposal.height), proposal.id));
    let report = Proposals {
        channel: line.group.to_string(),
        name: line.name,
        height: governance.height.0,
        proposals: kept.into_iter().map(|proposal| ProposalLine::of(&governance, proposal, &orgs)).collect(),
    };
    output.result(&report, || {
        if report.proposals.is_empty() {
            return format!("{} has no proposals", foreign(&report.name));
        }
        let rows = report.proposals.iter().map(|line| {
            let open = line.state == words::state_word(channel::ProposalState::Open);
            let needs = if open { line.standing.needs.clone() } else { and(&line.standing.approved) };
            [short(&line.proposal), line.state.to_owned(), line.proposer.clone(), line.change.clone(), needs]
        });
        table(["proposal", "state", "by", "change", "who has approved, and who is missing"], rows)
    })
}
