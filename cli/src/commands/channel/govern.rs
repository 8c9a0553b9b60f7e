//! Governing a channel that runs: a command signed in the name of an organisation, and what it came to.

use std::collections::BTreeSet;

use channel::{Change, Command, Governance, Outcome, Proposal, ProposalState, Role, SignedCommand};
use client::{ChannelFate, Client};
use ledger::{GroupId, Hash32, OrgId, TimeMs};
use proto::views::ChannelLine;
use serde::Serialize;

use super::missing::Behind;
use super::names;
use super::words::{self, Standing};
use crate::args::{Admin, InChannel, KeyRole, Proposing};
use crate::commands::context::Context;
use crate::commands::signer::{Orgs, Signer, Signing, WITHIN_MINUTES, ahead, salt};
use crate::error::CliError;
use crate::output::{Output, moment};

/// An organisation that acts in a channel.
pub(super) struct Desk<'a> {
    signer: Signer<'a>,
    pub(super) org: Signing,
    pub(super) orgs: Orgs,
    pub(super) client: Client,
    line: ChannelLine,
}

/// A proposal as it stands.
#[derive(Debug, Serialize)]
pub(super) struct ProposalLine {
    pub(super) proposal: String,
    pub(super) change: String,
    pub(super) subject: &'static str,
    pub(super) proposer: String,
    pub(super) state: &'static str,
    pub(super) until_ms: u64,
    #[serde(flatten)]
    pub(super) standing: Standing,
}

impl ProposalLine {
    pub(super) fn of(governance: &Governance, proposal: &Proposal, orgs: &Orgs) -> Self {
        Self {
            proposal: proposal.id.to_string(),
            change: words::change(&proposal.change, orgs),
            subject: proposal.change.subject().word(),
            proposer: orgs.name(proposal.proposer),
            state: words::state_word(proposal.state_at(governance.time_ms)),
            until_ms: proposal.until_ms.0,
            standing: Standing::of_proposal(governance, proposal, orgs),
        }
    }
}

/// What a command came to.
#[derive(Serialize)]
struct Report {
    channel: String,
    name: String,
    org: String,
    command: String,
    height: u64,
    /// What is so now.
    done: String,
    /// What is not so yet: what comes by itself, and what somebody has to do. Nothing where all of it is.
    missing: Vec<String>,
    /// The id of the proposal that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<String>,
    /// Where that proposal stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// All that members are shown of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<ProposalLine>,
    /// The file with what proves it, where that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

impl<'a> Desk<'a> {
    pub(super) async fn open(admin: &'a Admin, channel: &str) -> Result<Self, CliError> {
        let signer = Signer::of(admin)?;
        let (org, orgs) = (signer.org(None)?, signer.orgs());
        let client = signer.client_of(&org.name).await?;
        let line = names::channel(&client, channel).await?;
        Ok(Self { signer, org, orgs, client, line })
    }

    pub(super) async fn at(on: &'a InChannel) -> Result<Self, CliError> {
        Self::open(&on.admin, &on.channel).await
    }

    /// Keys, accounts and assets by their names.
    pub(super) fn context(&self) -> &Context {
        self.signer.context()
    }

    /// The channel.
    pub(super) fn channel(&self) -> GroupId {
        self.line.group
    }

    /// The founding that it was started by.
    pub(super) fn founding(&self) -> Hash32 {
        self.line.founding
    }

    /// From now on speaks over no router that is known to be of another organisation than these.
    pub(super) async fn only_over(&mut self, orgs: &BTreeSet<OrgId>) -> Result<(), CliError> {
        self.client = self.signer.client_among(&self.org.name, orgs).await?;
        Ok(())
    }

    /// Has the channel execute a command.
    pub(super) async fn send(&self, command: &Command) -> Result<ChannelFate, CliError> {
        let (cluster, group, until) = (self.client.cluster_id(), self.line.group, ahead(WITHIN_MINUTES));
        let signed = SignedCommand::sign(&cluster, group, self.org.id, command, salt()?, until, &self.org.key);
        Ok(self.client.channel_command(group, signed.encode()).await?)
    }

    /// Has the channel execute a command, and prints what it came to.
    pub(super) async fn act(&self, command: &Command, output: Output) -> Result<(), CliError> {
        let fate = self.send(command).await?;
        self.tell(command, &fate, None, output).await
    }

    /// Prints what a command came to, and where what proves it is kept.
    pub(super) async fn tell(
        &self,
        command: &Command,
        fate: &ChannelFate,
        receipt: Option<String>,
        output: Output,
    ) -> Result<(), CliError> {
        let (details, change) = match fate.outcome {
            Outcome::Proposal { id, .. } => self.details(&id, fate).await.unzip(),
            Outcome::Done | Outcome::Joined { .. } | Outcome::Left { .. } | Outcome::Phase(_) => (None, None),
        };
        let needs = |details: &ProposalLine| format!("{}, until {}", details.standing.needs, moment(details.until_ms));
        let behind = Behind {
            name: &self.line.name,
            org: &self.org.name,
            command,
            change: change.as_ref(),
            needs: details.as_ref().map(needs),
        };
        let (proposal, state) = match fate.outcome {
            Outcome::Proposal { id, state } => (Some(id.to_string()), Some(words::state_word(state))),
            Outcome::Done | Outcome::Joined { .. } | Outcome::Left { .. } | Outcome::Phase(_) => (None, None),
        };
        let report = Report {
            channel: self.line.group.to_string(),
            name: self.line.name.clone(),
            org: self.org.name.clone(),
            command: fate.digest.to_string(),
            height: fate.height.0,
            done: self.done(&fate.outcome),
            missing: behind.missing(&fate.outcome, &self.orgs),
            proposal,
            state,
            details,
            receipt,
        };
        output.result(&report, || text(&report))
    }

    /// Proposes a change.
    pub(super) async fn propose(&self, change: Change, within: u64, output: Output) -> Result<(), CliError> {
        self.propose_until(change, ahead(within), output).await
    }

    /// Proposes a change that has the deadline of the proposal in it.
    pub(super) async fn propose_until(&self, change: Change, until: TimeMs, output: Output) -> Result<(), CliError> {
        self.act(&Command::Propose { change, until_ms: until }, output).await
    }

    /// The proposal that was named. A whole id is taken as it is: the channel says whether it has it.
    pub(super) async fn proposal(&self, text: &str) -> Result<Hash32, CliError> {
        if let Some(id) = names::whole_id(text) {
            return Ok(id);
        }
        let governance = self.client.governance(self.line.group).await?;
        Ok(names::proposal(&governance, text)?.id)
    }

    /// What members see of a proposal. The command has been executed whether this can be read or not, so
    /// nothing fails here; and a state from before the command would say something else than it did.
    async fn details(&self, id: &Hash32, fate: &ChannelFate) -> Option<(ProposalLine, Change)> {
        let read = self.client.governance(self.line.group).await;
        let read = read.inspect_err(|error| tracing::warn!(%error, "the proposal cannot be read"));
        let governance = read.ok().filter(|governance| governance.height >= fate.height)?;
        let proposal = governance.proposals.iter().find(|known| known.id == *id)?;
        Some((ProposalLine::of(&governance, proposal, &self.orgs), proposal.change.clone()))
    }

    fn done(&self, outcome: &Outcome) -> String {
        let org = &self.org.name;
        match outcome {
            Outcome::Done => "it is in force".to_owned(),
            Outcome::Proposal { state: ProposalState::Applied, .. } => {
                "the proposal is approved, and its change in force".to_owned()
            }
            Outcome::Proposal { state, .. } => format!("the proposal is {}", words::state_word(*state)),
            Outcome::Joined { height } => format!("{org} is a member from block {height} on"),
            Outcome::Left { height } => format!("{org} is no member from block {height} on"),
            Outcome::Phase(phase) => format!("the channel is {}", words::phase_word(*phase)),
        }
    }
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!("{} ({}): {}", report.name, report.channel, report.done)];
    if let Some(id) = &report.proposal {
        lines.push(format!("  proposal {id}"));
    }
    if let Some(details) = &report.details {
        lines.push(format!("  {}", details.change));
    }
    lines.extend(report.missing.iter().map(|line| format!("  {line}")));
    lines.push(format!("  command {}, signed by {}", report.command, report.org));
    if let Some(file) = &report.receipt {
        lines.push(format!("  what proves it is in {file}; 'seamark verify' judges it offline"));
    }
    lines.join("\n")
}

/// Executes a command that needs nothing else than the channel's name.
pub(super) async fn plain(on: &InChannel, command: Command, output: Output) -> Result<(), CliError> {
    Desk::at(on).await?.act(&command, output).await
}

/// Proposes a change that needs nothing else than the channel's name.
pub(super) async fn propose(proposing: &Proposing, change: Change, output: Output) -> Result<(), CliError> {
    Desk::at(&proposing.on).await?.propose(change, proposing.within, output).await
}

/// What an organisation says about a proposal.
#[derive(Clone, Copy)]
pub(super) enum Word {
    /// Yes.
    Approve,
    /// No.
    Reject,
    /// It proposed it, and takes it back.
    Withdraw,
    /// It needs no further approval.
    Settle,
}

/// `channel approve`, `reject`, `withdraw` and `settle` of a proposal.
pub(super) async fn speak(
    admin: &Admin,
    channel: &str,
    proposal: &str,
    word: Word,
    output: Output,
) -> Result<(), CliError> {
    let desk = Desk::open(admin, channel).await?;
    let proposal = desk.proposal(proposal).await?;
    let command = match word {
        Word::Approve => Command::Approve { proposal },
        Word::Reject => Command::Reject { proposal },
        Word::Withdraw => Command::Withdraw { proposal },
        Word::Settle => Command::Settle { proposal },
    };
    desk.act(&command, output).await
}

/// The role of a key.
pub(super) fn role(role: KeyRole) -> Role {
    match role {
        KeyRole::Admin => Role::Admin,
        KeyRole::Member => Role::Member,
    }
}
