//! `init`: the genesis and a folder for each node, for several machines.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use zeroize::Zeroizing;

use super::context::Context;
use crate::args::{Init, Shape};
use crate::cluster::{Prepared, spec};
use crate::error::CliError;
use crate::output::{Output, table};
use crate::setup::genesis::{KnownAuthority, org_name};
use crate::setup::{Addresses, ClusterDir, ClusterSpec, NodeAddrs};

#[derive(Serialize)]
struct Made {
    dir: String,
    cluster_id: String,
    genesis: String,
    profile: String,
    nodes: Vec<MadeNode>,
}

#[derive(Serialize)]
struct MadeNode {
    id: u32,
    org: String,
    config: String,
    peer_addr: String,
    client_addr: String,
}

pub(super) fn run(args: &Init, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.target)?;
    let spec = wanted(args)?;
    let dir = ClusterDir::at(context.dir());
    if dir.exists() {
        return Err(crate::setup::SetupError::Exists { path: context.dir().to_owned() }.into());
    }
    let prepared = Prepared::open(context.dir(), || spec, output)?;
    let genesis = prepared.genesis();
    let org = |id| genesis.orgs.iter().find(|org| org.id == id).map(|org| org.name.clone()).unwrap_or_default();
    let node = |node: &ledger::genesis::NodeInfo| MadeNode {
        id: node.id.0,
        org: org(node.org),
        config: dir.node_config(node.id).display().to_string(),
        peer_addr: node.peer_addr.clone(),
        client_addr: node.client_addr.clone(),
    };
    let made = Made {
        dir: context.dir().display().to_string(),
        cluster_id: genesis.cluster_id().to_string(),
        genesis: dir.genesis_path().display().to_string(),
        profile: dir.profile_path().display().to_string(),
        nodes: genesis.nodes.iter().map(node).collect(),
    };
    output.result(&made, || text(&made))
}

fn text(made: &Made) -> String {
    let rows = made.nodes.iter().map(|node| {
        [
            format!("node-{}", node.id),
            node.org.clone(),
            node.peer_addr.clone(),
            node.client_addr.clone(),
            node.config.clone(),
        ]
    });
    format!(
        "cluster {} made in {}\n{}\nCopy each node's folder to its machine, keep ca/ and admin/ safe, and run on each:\n  seamark node --config node.toml",
        made.cluster_id,
        made.dir,
        table(["node", "organisation", "nodes", "clients", "configuration"], rows)
    )
}

fn wanted(args: &Init) -> Result<ClusterSpec, CliError> {
    let spec = if args.node.is_empty() {
        spec(&args.shape, Addresses::Loopback { base_port: args.base_port })
    } else {
        let nodes = nodes(&args.node)?;
        let count = u32::try_from(nodes.addrs.len()).unwrap_or(u32::MAX);
        let shape = Shape { nodes: Some(count), orgs: nodes.orgs, ..args.shape.clone() };
        spec(&shape, Addresses::Hosts(nodes.addrs))
    };
    let authorities = authorities(&args.ca, spec.orgs)?;
    Ok(ClusterSpec { name: args.name.clone(), authorities, ..spec })
}

/// `ORG=FOLDER` each, of organisations that there are.
fn authorities(texts: &[String], orgs: u16) -> Result<BTreeMap<String, KnownAuthority>, CliError> {
    let mut known = BTreeMap::new();
    for text in texts {
        let form = "name organisation and folder, such as --ca org-a=/secure/acme-ca, each organisation once";
        let wrong = |cause: String| CliError::usage("init_ca", cause, form);
        let (org, folder) = text.split_once('=').ok_or_else(|| wrong(format!("--ca '{text}' is not ORG=FOLDER")))?;
        if !(0..orgs).any(|index| org_name(index) == org) {
            return Err(wrong(format!("there is no organisation '{org}' in this cluster")));
        }
        let authority = super::ca::open(Path::new(folder), org)?;
        let (cert_pem, key_pem) = (authority.cert_pem().to_owned(), Zeroizing::new(authority.key_pem()));
        if known.insert(org.to_owned(), KnownAuthority { cert_pem, key_pem }).is_some() {
            return Err(wrong(format!("'{org}' is there twice")));
        }
    }
    Ok(known)
}

/// The nodes of the command line, by id.
#[derive(Debug, PartialEq, Eq)]
struct Nodes {
    addrs: Vec<NodeAddrs>,
    orgs: Option<u16>,
}

struct NodeText {
    id: usize,
    addrs: NodeAddrs,
    org: Option<u16>,
}

fn nodes(texts: &[String]) -> Result<Nodes, CliError> {
    let mut parsed = texts.iter().map(|text| node(text)).collect::<Result<Vec<_>, _>>()?;
    parsed.sort_by_key(|node| node.id);
    if let Some((at, node)) = parsed.iter().enumerate().find(|(at, node)| node.id != at + 1) {
        let cause =
            format!("nodes are numbered from 1 without gaps, and number {} is where {} should be", node.id, at + 1);
        return Err(CliError::usage("init_node_ids", cause, "give each node an id of its own, from 1 on"));
    }
    let orgs = organisations(&parsed)?;
    Ok(Nodes { addrs: parsed.into_iter().map(|node| node.addrs).collect(), orgs })
}

/// Nodes are dealt to organisations in turn, so the numbers given must be that; without any, every
/// node is dealt to the default number of organisations.
fn organisations(nodes: &[NodeText]) -> Result<Option<u16>, CliError> {
    let Some(orgs) = nodes.iter().filter_map(|node| node.org).max() else {
        return Ok(None);
    };
    for node in nodes {
        let dealt = u16::try_from((node.id - 1) % usize::from(orgs)).unwrap_or(u16::MAX) + 1;
        if node.org != Some(dealt) {
            let cause = format!(
                "node {} has to belong to organisation {dealt}: nodes are dealt to the {orgs} organisations in turn",
                node.id
            );
            return Err(CliError::usage(
                "init_node_orgs",
                cause,
                "number the nodes so that organisations take turns: 1, 2, 3, 1, 2, 3",
            ));
        }
    }
    Ok(Some(orgs))
}

/// `ID=HOST:PEERPORT:CLIENTPORT[,ORG]`.
fn node(text: &str) -> Result<NodeText, CliError> {
    let wrong = || {
        let cause = format!("--node '{text}' is not ID=HOST:PEERPORT:CLIENTPORT,ORG");
        CliError::usage("init_node_form", cause, "write it as 1=10.0.0.1:7600:7601,1")
    };
    let (id, rest) = text.split_once('=').ok_or_else(wrong)?;
    let id: usize = id.parse().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
    let (addr, org) = match rest.split_once(',') {
        Some((addr, org)) => (addr, Some(org.parse().ok().filter(|org: &u16| *org > 0).ok_or_else(wrong)?)),
        None => (rest, None),
    };
    let (addr, client) = addr.rsplit_once(':').ok_or_else(wrong)?;
    let (host, peer) = addr.rsplit_once(':').ok_or_else(wrong)?;
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let (peer, client) = (port(peer)?, port(client)?);
    if host.is_empty() {
        return Err(wrong());
    }
    let addrs = NodeAddrs { peer: format!("{host}:{peer}"), client: format!("{host}:{client}") };
    Ok(NodeText { id, addrs, org })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Nodes, String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        nodes(&texts).map_err(|error| error.code)
    }

    #[test]
    fn nodes_of_several_machines() {
        let parsed = parse(&["2=b.example:7600:7601,2", "1=10.0.0.1:7600:7601,1", "3=[::1]:1:2,1"]).unwrap();
        let clients: Vec<&str> = parsed.addrs.iter().map(|addrs| addrs.client.as_str()).collect();
        assert_eq!(clients, ["10.0.0.1:7601", "b.example:7601", "[::1]:2"]);
        assert_eq!(parsed.orgs, Some(2));
        assert_eq!(parse(&["1=h:1:2"]).unwrap().orgs, None);
    }

    #[test]
    fn what_is_no_node_is_refused() {
        for wrong in ["h:1:2", "1=h:1", "1=:1:2", "1=h:0:2", "1=h:1:99999", "0=h:1:2", "1=h:1:2,0", "1=h:1:2,x"] {
            assert_eq!(parse(&[wrong]), Err("init_node_form".to_owned()), "{wrong}");
        }
        assert_eq!(parse(&["1=h:1:2", "3=h:3:4"]), Err("init_node_ids".to_owned()));
        assert_eq!(parse(&["1=h:1:2", "1=h:3:4"]), Err("init_node_ids".to_owned()));
        assert_eq!(parse(&["1=h:1:2,1", "2=h:3:4,1", "3=h:5:6,2"]), Err("init_node_orgs".to_owned()));
        assert_eq!(parse(&["1=h:1:2,1", "2=h:3:4"]), Err("init_node_orgs".to_owned()));
    }
}
