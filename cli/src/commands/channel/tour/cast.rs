//! Who plays, and who tells: the organisations, each with its admin's key and certificate and the routers
//! of its own nodes alone; an auditor of the first one; and what is said to people while it happens.

use std::path::Path;

use beacon::{BeaconCommand, SignedCommand};
use channel::{Command, Founding, Hosting, Opening};
use client::secrets::SecretKind;
use client::{ChannelFate, Client, CommandFate, RouterEndpoint, Settled, Wait};
use ledger::genesis::OrgInfo;
use ledger::{GroupId, LedgerId, Move, NodeId, OrgId, SecretKey};
use serde::Serialize;

use super::stage::astray;
use crate::cluster::LocalCluster;
use crate::commands::ca;
use crate::commands::channel::charter;
use crate::commands::context::ADMIN_FILES;
use crate::commands::signer::{Orgs, WITHIN_MINUTES, ahead, salt};
use crate::error::CliError;
use crate::load::sign::Party;
use crate::output::Output;
use crate::setup::Subject;

/// Keys of accounts; the cluster is thrown away with them.
pub(super) const SEED: &[u8] = b"seamark channel tour";
/// What the auditor is called.
pub(super) const AUDITOR: &str = "auditor";
/// The auditor's certificate and key.
const AUDITOR_FILES: [&str; 2] = ["auditor.pem", "auditor.key"];

/// An organisation.
pub(super) struct Actor {
    pub(super) id: OrgId,
    pub(super) name: String,
    /// Its nodes, in order.
    pub(super) nodes: Vec<NodeId>,
    /// Its account, the same one on every ledger.
    pub(super) party: Party,
    /// Its admin, over the routers of its own nodes.
    pub(super) client: Client,
    key: SecretKey,
}

impl Actor {
    fn of(cluster: &LocalCluster, org: &OrgInfo) -> Result<Self, CliError> {
        let folder = cluster.dir().admin_dir(&org.name);
        let own = cluster.genesis().nodes.iter().filter(|node| node.org == org.id);
        let mut nodes: Vec<NodeId> = own.map(|node| node.id).collect();
        nodes.sort_unstable();
        let [cert, key] = ADMIN_FILES.map(|name| folder.join(name));
        Ok(Self {
            id: org.id,
            name: org.name.clone(),
            nodes,
            party: Party::derive(SEED, &org.name),
            client: client_of(cluster, org.id, &cert, &key)?,
            key: cluster.dir().admin_key(&org.name)?,
        })
    }

    /// What it brings to a founding: all its nodes, the first one to carry mail.
    pub(super) fn hosting(&self) -> Hosting {
        Hosting { nodes: self.nodes.clone(), anchors: self.nodes.iter().take(1).copied().collect() }
    }

    /// What a founding promises, as its admin reads it.
    pub(super) fn read(&self, founding: &Founding) -> Result<Opening, CliError> {
        let read = charter::read(&self.client, founding, self.id, &self.key)?;
        read.ok_or_else(|| astray(format!("{} promises nothing", founding.terms.name)))
    }

    /// Has the beacon execute its command.
    pub(super) async fn beacon(&self, command: &BeaconCommand) -> Result<CommandFate, CliError> {
        let (cluster, until) = (self.client.cluster_id(), ahead(WITHIN_MINUTES));
        let signed = SignedCommand::sign(&cluster, command, self.id, salt()?, until, &self.key);
        Ok(self.client.command(signed.encode()).await?)
    }

    /// Has a channel execute its command.
    pub(super) async fn act(&self, channel: GroupId, command: &Command) -> Result<ChannelFate, CliError> {
        let (cluster, until) = (self.client.cluster_id(), ahead(WITHIN_MINUTES));
        let signed = channel::SignedCommand::sign(&cluster, channel, self.id, command, salt()?, until, &self.key);
        Ok(self.client.channel_command(channel, signed.encode()).await?)
    }

    /// Signs moves with the key of its account and waits until they are applied.
    pub(super) async fn execute(&self, moves: Vec<(LedgerId, Move)>) -> Result<Settled, CliError> {
        Ok(self.client.execute(moves, b"", &[&self.party.key], Wait::Applied).await?)
    }
}

/// A client with this certificate, over the routers of one organisation's nodes.
fn client_of(cluster: &LocalCluster, org: OrgId, cert: &Path, key: &Path) -> Result<Client, CliError> {
    let mut profile = cluster.profile().clone();
    let own = |router: &RouterEndpoint| {
        let node = router.node.and_then(|node| cluster.genesis().node(node));
        node.is_some_and(|node| node.org == org)
    };
    profile.routers.retain(own);
    // A profile's own paths start from its folder, these from where the command was called.
    profile.cert = std::path::absolute(cert).map_err(|error| CliError::file(cert, &error))?;
    profile.key = std::path::absolute(key).map_err(|error| CliError::file(key, &error))?;
    Ok(Client::lazy(&profile)?)
}

/// An auditor of an organisation: a certificate of its authority that reads and does nothing else.
fn auditor_of(cluster: &LocalCluster, org: &OrgInfo) -> Result<Client, CliError> {
    let authority = ca::open(&cluster.dir().ca_dir(&org.name), &org.name)?;
    let leaf = authority.issue(&Subject::auditor(AUDITOR, &org.name))?;
    let [cert, key] = AUDITOR_FILES.map(|name| cluster.dir().root().join(name));
    ca::keyring_of(&key, None)?.write(&key, SecretKind::Tls, leaf.key_pem.as_bytes())?;
    std::fs::write(&cert, &leaf.cert_pem).map_err(|error| CliError::file(&cert, &error))?;
    client_of(cluster, org.id, &cert, &key)
}

/// Everybody.
pub(super) struct Cast {
    /// Is in the first channel from its founding on.
    pub(super) a: Actor,
    /// Is in both, and leaves the first one.
    pub(super) b: Actor,
    /// Is in the second one, and joins the first one.
    pub(super) c: Actor,
    /// Of the first organisation, with a grant in the channel that it is no member of.
    pub(super) auditor: Client,
    pub(super) orgs: Orgs,
}

impl Cast {
    /// From the folder of a cluster that runs.
    pub(super) fn gather(cluster: &LocalCluster) -> Result<Self, CliError> {
        let genesis = cluster.genesis();
        let actors =
            genesis.orgs.iter().map(|org| Actor::of(cluster, org)).collect::<Result<Vec<Actor>, CliError>>()?;
        let [a, b, c]: [Actor; 3] = actors
            .try_into()
            .map_err(|found: Vec<Actor>| astray(format!("the cluster has {} organisations, not 3", found.len())))?;
        let audited = genesis.orgs.iter().find(|org| org.id == a.id);
        let audited = audited.ok_or_else(|| astray("the cluster has no first organisation"))?;
        let auditor = auditor_of(cluster, audited)?;
        Ok(Self { a, b, c, auditor, orgs: Orgs::of(genesis) })
    }

    /// The organisations.
    pub(super) fn actors(&self) -> [&Actor; 3] {
        [&self.a, &self.b, &self.c]
    }
}

/// Nodes of several organisations, in order.
pub(super) fn nodes_of(actors: &[&Actor]) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = actors.iter().flat_map(|actor| actor.nodes.iter().copied()).collect();
    nodes.sort_unstable();
    nodes
}

/// Something that an organisation did, and what was so then.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    /// `beacon`, or the name of a channel.
    pub(super) place: &'static str,
    /// Who.
    pub(super) org: String,
    /// What it did.
    pub(super) did: String,
    /// What was so then; of what takes others' approval, who is missing.
    pub(super) then: String,
    /// Whose approval can still help.
    pub(super) missing: Vec<String>,
    /// Height of the beacon or the channel at which this was known.
    pub(super) height: u64,
}

/// Tells people what happens, and remembers the steps.
pub(super) struct Teller {
    output: Output,
    steps: Vec<Step>,
}

impl Teller {
    pub(super) fn new(output: Output) -> Self {
        Self { output, steps: Vec::new() }
    }

    /// A part of the story begins.
    pub(super) fn part(&self, title: &str) {
        self.output.remark(title);
    }

    /// Something that is no step of anybody.
    pub(super) fn line(&self, text: impl AsRef<str>) {
        self.output.remark(format!("  {}", text.as_ref()));
    }

    /// Somebody did something.
    pub(super) fn step(&mut self, step: Step) {
        self.line(format!("{} {}: {}", step.org, step.did, step.then));
        self.steps.push(step);
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}
