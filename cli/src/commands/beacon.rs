//! `beacon`, and what `node` changes in the registry: a command signed in the name of an organisation,
//! handed to any router, and what it came to. What moves seats, and takes its time, is in `seats`.

use std::path::Path;

use beacon::BeaconCommand;
use client::Client;
use client::net::certificate_key_hash;
use ledger::genesis::{NodeInfo, OrgInfo};
use ledger::{Committee, Hash32, NodeId, OrgId, PublicKey};
use serde::Serialize;

use super::context::Context;
use super::epochs;
use super::policy;
use super::rotation;
use super::seats::{self, Asked};
use super::signer::{Signer, WITHIN_MINUTES, salt};
use super::watch;
use crate::args::{
    Beacon, BeaconEpoch, BeaconPolicy, BeaconWatch, EpochChange, NodeChange, OneNode, OrgChange, PolicyProposal,
};
use crate::error::CliError;
use crate::output::{Output, table};
use crate::setup::files::read_signing_key;

pub(super) async fn run(args: Beacon, output: Output) -> Result<(), CliError> {
    match args {
        Beacon::Show { target } => show(&Context::new(&target)?, output).await,
        Beacon::Watch(BeaconWatch::Show { target }) => watch::show(&Context::new(&target)?, output).await,
        Beacon::Watch(BeaconWatch::Set { admin, mode, after, at_most, within }) => {
            let command = BeaconCommand::SetWatch(watch::policy(mode, after, at_most));
            send(&Signer::of(&admin)?, None, command, within, output).await
        }
        Beacon::Epoch(BeaconEpoch { change: None, target }) => epochs::show(&Context::new(&target)?, output).await,
        Beacon::Epoch(BeaconEpoch {
            change: Some(EpochChange::Set { admin, length, bad, risk_max_ppb, within }),
            ..
        }) => {
            let command = BeaconCommand::SetEpochs(epochs::policy(length, bad, risk_max_ppb));
            send(&Signer::of(&admin)?, None, command, within, output).await
        }
        Beacon::Policy(BeaconPolicy { change: None, target }) => policy::show(&Context::new(&target)?, output).await,
        Beacon::Policy(BeaconPolicy {
            change: Some(PolicyProposal::Propose { admin, matter, policy, on, within }),
            ..
        }) => {
            let signer = Signer::of(&admin)?;
            let command = policy::change(signer.context(), &matter, &policy, on).await?;
            send(&signer, None, command, within, output).await
        }
        Beacon::Seed { target, epoch, out } => {
            epochs::seed(&Context::new(&target)?, epoch, out.as_deref(), output).await
        }
        Beacon::VerifyAssignment { target, file, genesis } => {
            epochs::verify::run(&Context::new(&target)?, file.as_deref(), genesis.as_deref(), output).await
        }
        Beacon::Plan { target, bad, risk_max_ppb } => {
            epochs::plan::run(&Context::new(&target)?, bad, risk_max_ppb, output).await
        }
        Beacon::Rebalance { admin, within } => {
            let signer = Signer::of(&admin)?;
            Box::pin(seats::judge::rebalance(&signer)).await?;
            send(&signer, None, BeaconCommand::Rebalance, within, output).await
        }
        Beacon::RotateKey { admin, new } => {
            let key = read_signing_key(&new)?.public();
            send(&Signer::of(&admin)?, None, BeaconCommand::RotateAdminKey { key }, WITHIN_MINUTES, output).await
        }
        Beacon::Revoke { admin, what } => {
            let credential = match what.parse::<Hash32>() {
                Ok(credential) => credential,
                Err(_) => certificate_key_hash(&read(Path::new(&what))?)?,
            };
            let command = BeaconCommand::RevokeCredential { credential };
            send(&Signer::of(&admin)?, None, command, WITHIN_MINUTES, output).await
        }
        Beacon::Org(OrgChange::Ca { admin, ca }) => {
            let ca_pem = read(&ca)?;
            send(&Signer::of(&admin)?, None, BeaconCommand::UpdateOrgCa { ca_pem }, WITHIN_MINUTES, output).await
        }
        Beacon::Org(OrgChange::Remove { admin, removed, within }) => {
            let signer = Signer::of(&admin)?;
            let command = BeaconCommand::RemoveOrg { org: signer.orgs().id(&removed)? };
            send(&signer, None, command, within, output).await
        }
        Beacon::Org(OrgChange::Register { admin, name, id, ca, admin_key, within }) => {
            let info = OrgInfo { id: OrgId(id), name, ca_pem: read(&ca)?, admin_key: public_key(&admin_key)? };
            send(&Signer::of(&admin)?, None, BeaconCommand::RegisterOrg(info), within, output).await
        }
    }
}

/// Changes a node's entry.
pub(super) async fn change_node(change: NodeChange, output: Output) -> Result<(), CliError> {
    let (admin, node, command) = match change {
        NodeChange::Register(args) => return Box::pin(seats::register(&args, output)).await,
        NodeChange::Join(args) => return Box::pin(seats::run(Asked::Join, &args, output)).await,
        NodeChange::Drain(args) => return Box::pin(seats::run(Asked::Drain, &args, output)).await,
        NodeChange::Leave(args) => return Box::pin(seats::run(Asked::Leave, &args, output)).await,
        NodeChange::Replace { admin, node, successor, wait } => {
            let args = OneNode { admin, node, wait };
            return Box::pin(seats::run(Asked::Replace(NodeId(successor)), &args, output)).await;
        }
        NodeChange::RotateKey { admin, node, config, wait, anew } => {
            return Box::pin(rotation::run(&admin, NodeId(node), config.as_deref(), (wait, anew), output)).await;
        }
        NodeChange::Capacity { admin, node, capacity } => {
            let signer = Signer::of(&admin)?;
            Box::pin(seats::judge::capacity(&signer, NodeId(node), capacity)).await?;
            let command = BeaconCommand::SetNodeCapacity { node: NodeId(node), capacity };
            return send(&signer, Some(NodeId(node)), command, WITHIN_MINUTES, output).await;
        }
        NodeChange::Address { admin, node, peer, client } => {
            let command = BeaconCommand::UpdateNodeAddrs { node: NodeId(node), peer_addr: peer, client_addr: client };
            (admin, node, command)
        }
        NodeChange::Tls { admin, node, cert } => {
            let tls_key_hash = certificate_key_hash(&read(&cert)?)?;
            (admin, node, BeaconCommand::UpdateNodeTls { node: NodeId(node), tls_key_hash })
        }
    };
    send(&Signer::of(&admin)?, Some(NodeId(node)), command, WITHIN_MINUTES, output).await
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::file(path, &error))
}

fn public_key(text: &str) -> Result<PublicKey, CliError> {
    let mut key = [0; 33];
    hex::decode_to_slice(text, &mut key).map_err(|_| {
        let fix = "give the compressed public key as 66 hex digits";
        CliError::usage("public_key", format!("'{text}' is no public key"), fix)
    })?;
    Ok(PublicKey(key))
}

/// What a command came to.
#[derive(Serialize)]
struct Report {
    command: String,
    org: String,
    in_force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    approvals: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    needed: Option<u32>,
    beacon_height: u64,
}

/// Has the registry execute a command, in the name of an organisation that was named, of that of the
/// node, or of the only one whose key is here; and prints what it came to.
pub(super) async fn send(
    signer: &Signer<'_>,
    node: Option<NodeId>,
    command: BeaconCommand,
    within_minutes: u64,
    output: Output,
) -> Result<(), CliError> {
    let client = signer.context().client().await?;
    let of_node = match node {
        Some(node) => Some(org_of(&client, node).await?),
        None => None,
    };
    let org = signer.org(of_node)?;
    // Commands are taken from admins alone.
    let client = signer.client_of(&org.name).await?;
    let fate = signer.command(&client, &org, &command, salt()?, within_minutes).await?;
    let report = Report {
        command: fate.digest.to_string(),
        org: org.name,
        in_force: fate.pending.is_none(),
        approvals: fate.pending.map(|(approvals, _)| approvals),
        needed: fate.pending.map(|(_, needed)| needed),
        beacon_height: fate.height.0,
    };
    output.result(&report, || match fate.pending {
        None => format!("the registry has changed\n  command {}, signed by {}", report.command, report.org),
        Some((approvals, needed)) => format!(
            "{approvals} of {needed} organisations have approved; the others send the same command\n  command {}, signed by {}",
            report.command, report.org
        ),
    })
}

/// Whose node it is, as the registry says.
pub(super) async fn org_of(client: &Client, node: NodeId) -> Result<OrgId, CliError> {
    let nodes = nodes(client).await?;
    nodes.iter().find(|info| info.id == node).map(|info| info.org).ok_or_else(|| {
        let fix = "see them with 'seamark beacon show'";
        CliError::new("not_found", format!("the registry has no node {node}"), fix)
    })
}

/// Every node as the registry has it.
pub(super) async fn nodes(client: &Client) -> Result<Vec<NodeInfo>, CliError> {
    let reply = client.cluster().await?;
    Ok(reply.nodes.iter().map(|bytes| proto::edge::value("node", bytes)).collect::<Result<_, _>>()?)
}

#[derive(Serialize)]
struct Shown {
    beacon_height: u64,
    nodes: Vec<ShownNode>,
    groups: Vec<ShownGroup>,
}

#[derive(Serialize)]
struct ShownNode {
    node: u32,
    org: u16,
    zone: String,
    capacity: u16,
    seats: usize,
    peer_addr: String,
    client_addr: String,
}

#[derive(Serialize)]
struct ShownGroup {
    group: String,
    epoch: u64,
    members: Vec<u32>,
    threshold: u16,
}

async fn show(context: &Context, output: Output) -> Result<(), CliError> {
    let client = context.client().await?;
    let reply = client.cluster().await?;
    let decoded = reply.committees.iter().map(|bytes| proto::edge::value("committee", bytes));
    let committees: Vec<Committee> = decoded.collect::<Result<_, _>>()?;
    let seats = |node: NodeId| committees.iter().filter(|committee| committee.index_of(node).is_some()).count();
    let nodes = nodes(&client).await?.into_iter().map(|info| ShownNode {
        node: info.id.0,
        org: info.org.0,
        seats: seats(info.id),
        zone: info.zone,
        capacity: info.capacity,
        peer_addr: info.peer_addr,
        client_addr: info.client_addr,
    });
    let groups = committees.iter().map(|committee| ShownGroup {
        group: committee.group.to_string(),
        epoch: committee.epoch.0,
        members: committee.members.iter().map(|member| member.node.0).collect(),
        threshold: committee.threshold,
    });
    let shown = Shown { beacon_height: reply.beacon_height, nodes: nodes.collect(), groups: groups.collect() };
    output.result(&shown, || text(&shown))
}

fn text(shown: &Shown) -> String {
    let nodes = shown.nodes.iter().map(|node| {
        [
            node.node.to_string(),
            node.org.to_string(),
            node.zone.clone(),
            node.capacity.to_string(),
            node.seats.to_string(),
            node.peer_addr.clone(),
            node.client_addr.clone(),
        ]
    });
    let groups = shown.groups.iter().map(|group| {
        let members: Vec<String> = group.members.iter().map(ToString::to_string).collect();
        [group.group.clone(), group.epoch.to_string(), members.join(" "), group.threshold.to_string()]
    });
    format!(
        "{}\n{}",
        table(["node", "org", "zone", "capacity", "seats", "nodes reach it at", "clients reach it at"], nodes),
        table(["group", "epoch", "nodes", "signatures needed"], groups)
    )
}
