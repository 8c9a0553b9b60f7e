//! Organisations that found channels and govern them: what their admins would send, with the keys and
//! certificates in the folder of a local cluster.
//!
//! Owns the way of a channel from its proposal until every member's node runs it, and the counting of
//! approvals up to the last. Knows nothing of load.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use beacon::{BeaconCommand, CommandOutcome, Phase};
use channel::{
    Change, Command, Engine, FoundingAct, Hosting, Outcome, Policy, ProposalState, Quorum, Role, Subject, Terms,
};
use client::{ChannelFate, Client, CommandFate, Profile};
use ledger::genesis::Genesis;
use ledger::{Committee, GroupId, JobId, NodeId, OrgId, SecretKey, TimeMs};
use proto::v1;

use super::agree::committees;
use super::wait::until;
use crate::error::CliError;
use crate::health::groups;
use crate::setup::ClusterDir;
use crate::setup::pki::random;

/// How long a command may wait for its turn.
const COMMAND_FOR: Duration = Duration::from_secs(5 * 60);
/// How long others have to approve, or an invited organisation to join.
const DECIDED_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it may take until a channel runs everywhere, or mail has been taken.
const RUNS_WITHIN: Duration = Duration::from_secs(60);

/// An organisation, as its admin acts for it.
pub struct Delegate {
    /// The organisation.
    pub id: OrgId,
    /// Its name.
    pub name: String,
    /// Its nodes in the genesis, ascending.
    pub nodes: Vec<NodeId>,
    /// A client with the admin's certificate.
    pub client: Client,
    key: SecretKey,
}

impl Delegate {
    /// Those of all organisations of a cluster, by id, from its folder.
    ///
    /// # Errors
    /// When keys or certificates cannot be read.
    pub fn all(dir: &ClusterDir, genesis: &Genesis, profile: &Profile) -> Result<Vec<Self>, CliError> {
        let mut all = Vec::with_capacity(genesis.orgs.len());
        for org in &genesis.orgs {
            let folder = dir.admin_dir(&org.name);
            // A profile's own paths start from its folder, these from where this process runs.
            let folder = std::path::absolute(&folder).map_err(|error| CliError::file(&folder, &error))?;
            let own = Profile { cert: folder.join("admin.pem"), key: folder.join("admin.key"), ..profile.clone() };
            let mut nodes: Vec<NodeId> =
                genesis.nodes.iter().filter(|node| node.org == org.id).map(|node| node.id).collect();
            nodes.sort_unstable();
            all.push(Self {
                id: org.id,
                name: org.name.clone(),
                nodes,
                client: Client::lazy(&own)?,
                key: dir.admin_key(&org.name)?,
            });
        }
        all.sort_by_key(|delegate| delegate.id);
        Ok(all)
    }

    /// Has the beacon execute a command.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn beacon(&self, command: &BeaconCommand) -> Result<CommandFate, CliError> {
        let (cluster, until) = (self.client.cluster_id(), ahead(COMMAND_FOR));
        let signed = beacon::SignedCommand::sign(&cluster, command, self.id, random()?, until, &self.key);
        Ok(self.client.command(signed.encode()).await?)
    }

    /// Has the beacon execute a command about a job of shards. Says which job, and how far that has come.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn job(&self, command: &BeaconCommand) -> Result<(JobId, Phase), CliError> {
        let (cluster, until) = (self.client.cluster_id(), ahead(COMMAND_FOR));
        let signed = beacon::SignedCommand::sign(&cluster, command, self.id, random()?, until, &self.key);
        let (_, outcome) = self.client.job_command::<CommandOutcome>(signed.encode()).await?;
        match outcome {
            CommandOutcome::Job { id, phase } => Ok((id, phase)),
            CommandOutcome::Applied
            | CommandOutcome::Pending { .. }
            | CommandOutcome::Founding { .. }
            | CommandOutcome::Founded { .. } => {
                let cause = format!("the beacon answers with {outcome:?}, which is about no job");
                Err(CliError::new("protocol", cause, "report it with both versions"))
            }
        }
    }

    /// Has a channel execute a command.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn act(&self, channel: GroupId, command: &Command) -> Result<ChannelFate, CliError> {
        let (cluster, until) = (self.client.cluster_id(), ahead(COMMAND_FOR));
        let signed = channel::SignedCommand::sign(&cluster, channel, self.id, command, random()?, until, &self.key);
        Ok(self.client.channel_command(channel, signed.encode()).await?)
    }

    /// What it brings to a channel: its first node, which is its anchor, too.
    fn hosting(&self) -> Hosting {
        let nodes: Vec<NodeId> = self.nodes.iter().take(1).copied().collect();
        Hosting { anchors: nodes.clone(), nodes }
    }
}

/// So far from now, by this machine's clock.
pub(super) fn ahead(within: Duration) -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimeMs(u64::try_from((since + within).as_millis()).unwrap_or(u64::MAX))
}

/// Founds a channel of these organisations, each with its first node: the first one proposes, all approve,
/// and what it does later takes a majority of their admins. Returns when the beacon has founded it;
/// [`running`] waits until it runs.
///
/// # Errors
/// What the beacon refuses; `channel_not_founded` when all have approved and it is not there.
pub async fn found(name: &str, members: &[&Delegate]) -> Result<GroupId, CliError> {
    let nobody = || CliError::usage("org", "a channel needs an organisation", "name one");
    let (proposer, others) = members.split_first().ok_or_else(nobody)?;
    let majority = Policy::members(Quorum::Majority, Role::Admin);
    let mut invited: Vec<OrgId> = others.iter().map(|other| other.id).collect();
    invited.sort_unstable();
    let terms = Terms {
        name: name.to_owned(),
        invited,
        engine: Engine::Raft,
        founding: Policy::members(Quorum::All, Role::Admin),
        policies: Subject::ALL.map(|subject| (subject, majority.clone())).to_vec(),
    };
    let until_ms = ahead(DECIDED_WITHIN);
    let propose = BeaconCommand::ProposeChannel { terms, hosting: proposer.hosting(), until_ms };
    let mut fate = proposer.beacon(&propose).await?.founding;
    for other in others {
        let Some(founding) = fate else { break };
        let act = FoundingAct::Approve(other.hosting());
        fate = other.beacon(&BeaconCommand::ActOnChannel { founding: founding.id, act }).await?.founding;
    }
    fate.and_then(|founding| founding.channel).ok_or_else(|| {
        let cause = format!("all have approved the channel {name}, and it is not founded");
        CliError::new("channel_not_founded", cause, "see 'seamark channel ls'")
    })
}

/// Waits until every seat of a channel runs it, one of them leads, and all have taken its first mail.
///
/// # Errors
/// `not_in_time`; what a router says.
pub async fn running(client: &Client, channel: GroupId) -> Result<Committee, CliError> {
    until(&format!("every member's node runs {channel}"), RUNS_WITHIN, async || {
        let known = committees(client).await?.into_iter().find(|committee| committee.group == channel);
        let Some(committee) = known else { return Ok(None) };
        let status = client.status().await?;
        let lines = groups(&status, std::slice::from_ref(&committee));
        let runs = lines.iter().all(|line| {
            let begun = line.replicas.iter().all(|one| one.height > Some(0) && one.stopped.is_empty());
            line.leader.is_some() && begun
        });
        Ok(runs.then_some(committee))
    })
    .await
}

/// Waits until no group has mail that nobody has acknowledged: what was founded, permitted or issued before is
/// known everywhere.
///
/// # Errors
/// `not_in_time`; what a router says.
pub async fn delivered(client: &Client) -> Result<(), CliError> {
    until("all mail is taken", RUNS_WITHIN, async || {
        let status = client.status().await?;
        let mut replicas = status.nodes.iter().flat_map(|node| &node.replicas);
        Ok(replicas.all(|replica| replica.mail_pending == 0).then_some(()))
    })
    .await
}

/// Brings a change into force: the first organisation proposes it, the others approve until it is.
///
/// # Errors
/// What the channel refuses; `proposal_open` when all of them are not enough.
pub async fn decide(channel: GroupId, change: Change, members: &[&Delegate]) -> Result<(), CliError> {
    let nobody = || CliError::usage("org", "a change needs an organisation that proposes it", "name one");
    let (proposer, others) = members.split_first().ok_or_else(nobody)?;
    let propose = Command::Propose { change, until_ms: ahead(DECIDED_WITHIN) };
    let mut outcome = proposer.act(channel, &propose).await?.outcome;
    for other in others {
        let Outcome::Proposal { id, state: ProposalState::Open } = outcome else { break };
        outcome = other.act(channel, &Command::Approve { proposal: id }).await?.outcome;
    }
    match outcome {
        Outcome::Proposal { state: ProposalState::Applied, .. } => Ok(()),
        other => {
            let cause = format!("a proposal in {channel} did not come into force: {other:?}");
            Err(CliError::new("proposal_open", cause, "see 'seamark channel proposals'"))
        }
    }
}

/// Lets an organisation join.
///
/// # Errors
/// As [`decide`].
pub async fn invite(channel: GroupId, org: OrgId, members: &[&Delegate]) -> Result<(), CliError> {
    decide(channel, Change::Invite { org, until_ms: ahead(DECIDED_WITHIN) }, members).await
}

/// What the node says of its replica of a group, if it has one.
#[must_use]
pub fn replica(status: &v1::StatusReply, node: NodeId, group: GroupId) -> Option<&v1::ReplicaStatus> {
    let reply = status.nodes.iter().find(|reply| reply.node == node.0)?;
    reply.replicas.iter().find(|replica| replica.group == group.0)
}

/// What the replica that leads a group says. One that was deposed may not know it yet: the latest term counts,
/// and in one term, as a Byzantine engine has it, the latest entry.
#[must_use]
pub fn leader(status: &v1::StatusReply, group: GroupId) -> Option<&v1::ReplicaStatus> {
    let replicas = status.nodes.iter().flat_map(|node| &node.replicas);
    let leading = replicas.filter(|one| one.group == group.0 && one.leads && one.stopped.is_empty());
    leading.max_by_key(|one| (one.term, one.log_last, one.round))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_of_the_latest_term_counts() {
        let channel = GroupId::channel(3);
        let one = |group: GroupId, leads, term, stopped: &str| v1::ReplicaStatus {
            group: group.0,
            leads,
            term,
            stopped: stopped.to_owned(),
            ..v1::ReplicaStatus::default()
        };
        let node = |node, replicas| v1::NodeStatusReply { node, replicas, ..v1::NodeStatusReply::default() };
        let status = v1::StatusReply {
            nodes: vec![
                node(1, vec![one(channel, true, 4, ""), one(GroupId::BEACON, true, 9, "")]),
                node(2, vec![one(channel, true, 5, "")]),
                node(3, vec![one(channel, true, 6, "disk full")]),
            ],
            unreachable: Vec::new(),
        };
        assert_eq!(leader(&status, channel).map(|one| one.term), Some(5));
        assert_eq!(replica(&status, NodeId(1), channel).map(|one| one.term), Some(4));
        assert!(replica(&status, NodeId(2), GroupId::BEACON).is_none());
        assert!(replica(&status, NodeId(9), channel).is_none() && leader(&status, GroupId::channel(4)).is_none());
    }
}
