//! Organisations that found channels and govern them: what their admins would send, with the keys and
//! certificates in the folder of a local cluster.
//!
//! Owns the way of a channel from its proposal until every member's node runs it and it goes by what its founders
//! agree on, and the counting of approvals up to the last. Knows nothing of load.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use beacon::{BeaconCommand, CommandOutcome, Phase};
use channel::opening::first_policies;
use channel::{
    Change, ChannelReject, Command, Engine, FoundingAct, Hosting, Opening, Outcome, Policy, Promise, ProposalState,
    Quorum, Role, Subject, Terms,
};
use client::{ChannelFate, Client, CommandFate, Profile};
use ledger::genesis::Genesis;
use ledger::{GroupId, JobId, NodeId, OrgId, PublicKey, Reject, SecretKey, TimeMs};
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
/// and what it does later takes a majority of their admins. The beacon has a hash of that alone; the channel is given
/// it as soon as every member's node runs it, and goes by it when this returns.
///
/// # Errors
/// What the beacon or the channel refuses; `channel_not_founded` when all have approved and it is not there;
/// `not_in_time`; what a router says.
pub async fn found(client: &Client, name: &str, members: &[&Delegate]) -> Result<GroupId, CliError> {
    let nobody = || CliError::usage("org", "a channel needs an organisation", "name one");
    let (proposer, others) = members.split_first().ok_or_else(nobody)?;
    let majority = Policy::members(Quorum::Majority, Role::Admin);
    let opening = Opening::new(random()?, Subject::ALL.map(|subject| (subject, majority.clone())).to_vec());
    let promise = promise(proposer, members, &opening).await?;
    let mut invited: Vec<OrgId> = others.iter().map(|other| other.id).collect();
    invited.sort_unstable();
    let terms = Terms {
        name: name.to_owned(),
        invited,
        engine: Engine::Raft,
        founding: Policy::members(Quorum::All, Role::Admin),
        policies: first_policies(),
    };
    let (hosting, until_ms) = (proposer.hosting(), ahead(DECIDED_WITHIN));
    let propose = BeaconCommand::ProposeSealedChannel { terms, promise, hosting, until_ms };
    let mut fate = proposer.beacon(&propose).await?.founding;
    for other in others {
        let Some(founding) = fate else { break };
        let act = FoundingAct::Approve(other.hosting());
        fate = other.beacon(&BeaconCommand::ActOnChannel { founding: founding.id, act }).await?.founding;
    }
    let channel = fate.and_then(|founding| founding.channel).ok_or_else(|| {
        let cause = format!("all have approved the channel {name}, and it is not founded");
        CliError::new("channel_not_founded", cause, "see 'seamark channel ls'")
    })?;
    Box::pin(running(client, channel)).await?;
    Box::pin(open(proposer, channel, &opening)).await?;
    Ok(channel)
}

/// What the proposer promises in place of policies: a hash of the opening, and copies of it that the admins of these
/// members can read.
///
/// # Errors
/// `channel_org_unknown` where the registry has no key for one of them; what a router says.
async fn promise(proposer: &Delegate, members: &[&Delegate], opening: &Opening) -> Result<Promise, CliError> {
    let known = proposer.client.admins().await?;
    let reader = |member: &&Delegate| match known.get(&member.id) {
        Some(key) => Ok((member.id, *key)),
        None => {
            let cause = format!("the registry has no organisation {}", member.name);
            Err(CliError::new(ChannelReject::OrgUnknown.code(), cause, ChannelReject::OrgUnknown.fix()))
        }
    };
    let readers = members.iter().map(reader).collect::<Result<BTreeMap<OrgId, PublicKey>, CliError>>()?;
    Ok(client::opening::seal(&proposer.client.cluster_id(), proposer.id, opening, &readers)?)
}

/// Gives a channel what its founders have agreed on. The organisation's router may hear of the channel later than others.
///
/// # Errors
/// `not_in_time`; what the channel refuses; what a router says.
async fn open(by: &Delegate, channel: GroupId, opening: &Opening) -> Result<(), CliError> {
    let command = Command::Open { opening: opening.clone() };
    until(&format!("{channel} goes by what its founders agree on"), RUNS_WITHIN, async || {
        match by.act(channel, &command).await {
            Ok(_) => Ok(Some(())),
            // An answer got lost, and it was taken.
            Err(error) if error.code == ChannelReject::PromiseKept.code() => Ok(Some(())),
            Err(error) if error.code == Reject::UnknownGroup.code() => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Waits until every seat of a channel runs it, one of them leads, and all have taken its first mail.
///
/// # Errors
/// `not_in_time`; what a router says.
async fn running(client: &Client, channel: GroupId) -> Result<(), CliError> {
    until(&format!("every member's node runs {channel}"), RUNS_WITHIN, async || {
        let known = committees(client).await?.into_iter().find(|committee| committee.group == channel);
        let Some(committee) = known else { return Ok(None) };
        let status = client.status().await?;
        let lines = groups(&status, std::slice::from_ref(&committee));
        let runs = lines.iter().all(|line| {
            let begun = line.replicas.iter().all(|one| one.height > Some(0) && one.stopped.is_empty());
            line.leader.is_some() && begun
        });
        Ok(runs.then_some(()))
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
