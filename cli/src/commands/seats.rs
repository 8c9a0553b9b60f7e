//! `node register`, `join`, `drain`, `leave` and `replace`: what takes its time. Each is one command that can be given
//! again: it looks how far it is, gives the beacon what is missing, watches, and says what happened and what is not done
//! yet. What is decided goes on without it.

pub(super) mod judge;
mod picture;

use std::time::{Duration, Instant};

use beacon::BeaconCommand;
use client::profile::RouterEndpoint;
use client::{Client, Identity, Profile};
use ledger::NodeId;
use ledger::genesis::NodeInfo;
use serde::Serialize;
use shard_node::server::NodeConfig;

use self::picture::Picture;
use super::beacon::{nodes, org_of};
use super::ca;
use super::signer::{Signer, Signing, WITHIN_MINUTES, salt};
use crate::args::{OneNode, RegisterNode};
use crate::error::CliError;
use crate::output::{Output, rounded};
use crate::setup::{ClusterDir, NodeAddrs, make_node_of, write_joining_node};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How far behind the beacon a router may be before what it shows is taken for the truth.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// What a node is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Take its share of the seats.
    Join,
    /// Give its seats to others.
    Drain,
    /// The same, and be struck off.
    Leave,
    /// Give its seats to this one.
    Replace(NodeId),
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Drain => "drain",
            Self::Leave => "leave",
            Self::Replace(_) => "replace",
        }
    }
}

#[derive(Serialize)]
struct Report {
    action: &'static str,
    node: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    successor: Option<u32>,
    /// `done`, or `under_way`.
    state: &'static str,
    /// What happened, in order.
    happened: Vec<String>,
    /// What is not done yet.
    missing: Vec<String>,
    /// Groups that the node, or the one that replaces it, has a seat in.
    seats: Vec<String>,
    seconds: f64,
    /// The node's configuration, when it is registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<String>,
}

fn text(report: &Report) -> String {
    let whose = report.successor.unwrap_or(report.node);
    let mut lines: Vec<String> = report.happened.iter().map(|line| format!("  {line}")).collect();
    lines.extend(report.missing.iter().map(|line| format!("  not yet: {line}")));
    let seats = if report.seats.is_empty() { "no seat".to_owned() } else { report.seats.join(" ") };
    lines.push(format!("  seats of node {whose}: {seats}"));
    let state = match (report.state, report.action) {
        ("done", _) => format!("node {}: {} is done, after {:.1} s", report.node, report.action, report.seconds),
        (_, "leave") => {
            format!("node {}: leave is under way; give the command again to go on with it", report.node)
        }
        (_, action) => format!("node {}: {action} is under way, and comes by itself", report.node),
    };
    format!("{state}\n{}", lines.join("\n"))
}

/// Has a node do what is asked, and watches it.
pub(super) async fn run(asked: Asked, args: &OneNode, output: Output) -> Result<(), CliError> {
    let signer = Signer::of(&args.admin)?;
    let reader = signer.context().client().await?;
    let node = NodeId(args.node);
    let since = Instant::now();
    let picture = Picture::take(&reader).await?;
    if asked == Asked::Leave && picture.lives.removed.iter().any(|gone| gone.node == node) {
        // A command that was killed behind its last step has not come to this.
        forget_router(signer.context().dir(), node)?;
        let report = Report {
            state: "done",
            happened: vec!["it has left before; its number is not given again".to_owned()],
            ..report(asked, node, since)
        };
        return output.result(&report, || text(&report));
    }
    let org = signer.org(Some(org_of(&reader, node).await?))?;
    let client = signer.client_of(&org.name).await?;
    let work = Work { signer: &signer, org: &org, client, reader, asked, node, since, output };
    let report = work.run(picture, Duration::from_secs(args.wait)).await?;
    if report.state == "done" && asked == Asked::Leave {
        forget_router(signer.context().dir(), node)?;
    }
    output.result(&report, || text(&report))
}

fn report(asked: Asked, node: NodeId, since: Instant) -> Report {
    let successor = match asked {
        Asked::Replace(successor) => Some(successor.0),
        Asked::Join | Asked::Drain | Asked::Leave => None,
    };
    Report {
        action: asked.name(),
        node: node.0,
        successor,
        state: "under_way",
        happened: Vec::new(),
        missing: Vec::new(),
        seats: Vec::new(),
        seconds: rounded(since.elapsed().as_secs_f64()),
        config: None,
    }
}

/// A change that is under way.
struct Work<'a> {
    signer: &'a Signer<'a>,
    org: &'a Signing,
    /// Gives commands.
    client: Client,
    reader: Client,
    asked: Asked,
    node: NodeId,
    since: Instant,
    output: Output,
}

impl Work<'_> {
    async fn command(&self, command: &BeaconCommand) -> Result<String, CliError> {
        let fate = self.signer.command(&self.client, self.org, command, salt()?, WITHIN_MINUTES).await?;
        Ok(format!("command {}, signed by {}", fate.digest, self.org.name))
    }

    /// The command that is missing, if one is.
    async fn begin(&self, picture: &Picture) -> Result<Option<BeaconCommand>, CliError> {
        let node = self.node;
        let drained = || async {
            let known = nodes(&self.reader).await?;
            Ok::<_, CliError>(known.iter().any(|info| info.id == node && info.capacity == 0))
        };
        Ok(match self.asked {
            Asked::Join => Some(BeaconCommand::JoinNode { node }),
            Asked::Drain | Asked::Leave => {
                (!drained().await?).then_some(BeaconCommand::SetNodeCapacity { node, capacity: 0 })
            }
            Asked::Replace(successor) => {
                let named = picture.lives.successors.contains(&(node, successor)) && drained().await?;
                (!named).then_some(BeaconCommand::ReplaceNode { node, successor })
            }
        })
    }

    fn missing(&self, picture: &Picture) -> Vec<String> {
        match self.asked {
            Asked::Join => picture.until_joined(self.node),
            Asked::Drain | Asked::Leave => picture.until_left(self.node),
            Asked::Replace(successor) => {
                let mut missing = picture.until_left(self.node);
                missing.extend(picture.until_joined(successor));
                missing
            }
        }
    }

    async fn run(&self, picture: Picture, wait: Duration) -> Result<Report, CliError> {
        let mut happened = Vec::new();
        let begin = self.begin(&picture).await?;
        if begin.is_some() {
            judge::judge(self.asked, self.node, &picture, &nodes(&self.reader).await?)?;
        }
        if let Some(command) = begin {
            happened.push(self.command(&command).await?);
        } else {
            happened.push("it was decided before".to_owned());
        }
        let mut told: Vec<String> = Vec::new();
        let (picture, missing) = loop {
            let picture = Picture::take(&self.reader).await?;
            let missing = self.missing(&picture);
            if missing != told {
                self.progress(&missing);
                told.clone_from(&missing);
            }
            if missing.is_empty() || self.since.elapsed() >= wait {
                break (picture, missing);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let state = if missing.is_empty() { "done" } else { "under_way" };
        if state == "done" {
            happened.push(match self.asked {
                Asked::Join => "it takes part wherever it has a seat, and the load is even".to_owned(),
                Asked::Drain | Asked::Leave => "its seats have moved, and no group counts on it".to_owned(),
                Asked::Replace(successor) => format!("node {successor} takes part wherever it has a seat"),
            });
        }
        if state == "done" && self.asked == Asked::Leave {
            let line = self.command(&BeaconCommand::RemoveNode { node: self.node }).await?;
            happened.push(format!("it is struck off: {line}"));
        }
        let whose = match self.asked {
            Asked::Replace(successor) => successor,
            Asked::Join | Asked::Drain | Asked::Leave => self.node,
        };
        let seats = picture.seats(whose).iter().map(ToString::to_string).collect();
        Ok(Report { state, happened, missing, seats, ..report(self.asked, self.node, self.since) })
    }

    fn progress(&self, missing: &[String]) {
        let line = match missing {
            [] => "nothing is missing".to_owned(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first}, and {} more", rest.len()),
        };
        self.output.remark(format!("{:.1} s: {line}", self.since.elapsed().as_secs_f64()));
    }
}

/// Registers a node, after its folder is made where that is asked for.
pub(super) async fn register(args: &RegisterNode, output: Output) -> Result<(), CliError> {
    let since = Instant::now();
    let signer = Signer::of(&args.admin)?;
    let org = signer.org(None)?;
    let reader = signer.context().client().await?;
    let (known, picture) = (nodes(&reader).await?, Picture::take(&reader).await?);
    let mut happened = Vec::new();
    let dir = ClusterDir::at(signer.context().dir());
    let file = match &args.config {
        Some(file) => file.clone(),
        None => {
            let id = args.id.map_or_else(|| next_number(&signer, &known, &picture), |id| Ok(NodeId(id)))?;
            let file = dir.node_config(id);
            if file.exists() {
                happened.push(format!("its folder is there: {}", dir.node_dir(id).display()));
            } else {
                make_folder(&dir, &org, id, args)?;
                happened.push(format!("its folder is made: {}", dir.node_dir(id).display()));
            }
            file
        }
    };
    let info = info_of(&file, &org, args)?;
    let there = known.iter().find(|other| other.id == info.id);
    match there {
        Some(same) if same.key == info.key && same.tls_key_hash == info.tls_key_hash && same.org == info.org => {
            happened.push("it is registered".to_owned());
            if (&same.peer_addr, &same.client_addr) != (&info.peer_addr, &info.client_addr) {
                happened.push("with other addresses: change them with 'seamark node address'".to_owned());
            }
        }
        _ => {
            let client = signer.client_of(&org.name).await?;
            let command = BeaconCommand::RegisterNode(info.clone());
            match signer.command(&client, &org, &command, salt()?, WITHIN_MINUTES).await {
                Ok(fate) => {
                    happened.push(format!("it is registered: command {}, signed by {}", fate.digest, org.name));
                }
                // The router that was asked may have shown the registry of before.
                Err(error) => match is_shown(&reader, &info).await? {
                    true => happened.push("it is registered".to_owned()),
                    false => return Err(error),
                },
            }
        }
    }
    if args.make {
        note_router(signer.context().dir(), &info)?;
    }
    let node = info.id;
    let mut missing = Vec::new();
    if !picture.status.nodes.iter().any(|reply| reply.node == node.0) {
        missing.push(format!("it does not run: seamark node --config {}", file.display()));
    }
    if picture.seats(node).is_empty() {
        missing.push(format!("it has no seat: seamark node join {node}"));
    }
    let report = Report {
        action: "register",
        state: "done",
        happened,
        missing,
        seats: picture.seats(node).iter().map(ToString::to_string).collect(),
        config: Some(file.display().to_string()),
        ..report(Asked::Join, node, since)
    };
    output.result(&report, || text(&report))
}

/// Whether routers show this very node soon: one that follows the registry may be a moment behind.
async fn is_shown(reader: &Client, info: &NodeInfo) -> Result<bool, CliError> {
    let since = Instant::now();
    loop {
        if nodes(reader).await?.contains(info) {
            return Ok(true);
        }
        if since.elapsed() >= SHOWN_WITHIN {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The lowest number above all that were ever given.
fn next_number(signer: &Signer<'_>, known: &[NodeInfo], picture: &Picture) -> Result<NodeId, CliError> {
    let genesis = signer.context().profile()?.genesis()?;
    let given = known.iter().chain(&genesis.nodes).map(|node| node.id.0);
    let given = given.chain(picture.lives.removed.iter().map(|gone| gone.node.0));
    Ok(NodeId(given.max().unwrap_or(0).saturating_add(1)))
}

fn make_folder(dir: &ClusterDir, org: &Signing, id: NodeId, args: &RegisterNode) -> Result<(), CliError> {
    let authority = ca::open(&dir.ca_dir(&org.name), &org.name)?;
    let addrs = NodeAddrs { peer: args.peer.clone(), client: args.client.clone() };
    let (node, info) = make_node_of(id, (org.id, &org.name), &authority, addrs)?;
    Ok(write_joining_node(dir, &dir.genesis()?, &node, &info)?)
}

/// The entry of a node, from its configuration.
fn info_of(file: &std::path::Path, org: &Signing, args: &RegisterNode) -> Result<NodeInfo, CliError> {
    let config = NodeConfig::load(file)?;
    let mut keyring = config.keyring();
    let identity = Identity::load_with(&config.cert, &config.key, &mut keyring)?;
    let own_zone = || match args.make {
        true => format!("zone-{}", org.name.trim_start_matches("org-")),
        false => String::new(),
    };
    Ok(NodeInfo {
        id: config.node,
        org: org.id,
        zone: args.zone.clone().unwrap_or_else(own_zone),
        capacity: args.capacity,
        key: keyring.signing_key(&config.signing_key)?.public(),
        tls_key_hash: identity.key_hash()?,
        peer_addr: args.peer.clone(),
        client_addr: args.client.clone(),
    })
}

/// Lets the clients of a folder know the router of a node.
fn note_router(dir: &std::path::Path, node: &NodeInfo) -> Result<(), CliError> {
    let mut profile = Profile::load_dir(dir)?;
    if profile.routers.iter().any(|router| router.node == Some(node.id)) {
        return Ok(());
    }
    profile.routers.push(RouterEndpoint {
        node: Some(node.id),
        addr: node.client_addr.clone(),
        server_name: client::net::node_server_name(node.id),
    });
    Ok(profile.save(&ClusterDir::at(dir).profile_path())?)
}

/// Takes the router of a node that has left out of the profile of a folder, unless there is no other one.
fn forget_router(dir: &std::path::Path, node: NodeId) -> Result<(), CliError> {
    let mut profile = Profile::load_dir(dir)?;
    let before = profile.routers.len();
    profile.routers.retain(|router| router.node != Some(node));
    if profile.routers.len() == before || profile.routers.is_empty() {
        return Ok(());
    }
    Ok(profile.save(&ClusterDir::at(dir).profile_path())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_and_what_is_missing_stands_one_a_line() {
        let begun = Report {
            happened: vec!["command ab, signed by org-a".to_owned()],
            missing: vec!["shard-0: its seat has not moved".to_owned()],
            ..report(Asked::Replace(NodeId(6)), NodeId(4), Instant::now())
        };
        let said = text(&begun);
        for part in ["node 4: replace is under way", "  not yet: shard-0: its seat", "  seats of node 6: no seat"] {
            assert!(said.contains(part), "{part} in\n{said}");
        }
        let ended = Report { state: "done", missing: Vec::new(), seats: vec!["shard-0".to_owned()], ..begun };
        let said = text(&ended);
        assert!(said.contains("replace is done") && !said.contains("not yet") && said.ends_with("shard-0"), "{said}");
        let leaving = report(Asked::Leave, NodeId(4), Instant::now());
        assert!(text(&leaving).contains("give the command again"), "what comes after draining does not come by itself");
    }

    #[test]
    fn a_profile_knows_the_routers_of_the_nodes_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile {
            cluster: "test".to_owned(),
            cluster_id: ledger::ClusterId::default(),
            genesis: "genesis.json".into(),
            ca: "ca.pem".into(),
            cert: "client.pem".into(),
            key: "client.key".into(),
            routers: vec![RouterEndpoint { node: Some(NodeId(1)), addr: "a:1".into(), server_name: "n".into() }],
            base: Default::default(),
        };
        let file = ClusterDir::at(folder.path()).profile_path();
        profile.save(&file).unwrap();
        let node = NodeInfo {
            id: NodeId(6),
            org: ledger::OrgId(1),
            zone: String::new(),
            capacity: 1,
            key: ledger::PublicKey([2; 33]),
            tls_key_hash: ledger::Hash32::ZERO,
            peer_addr: "b:1".to_owned(),
            client_addr: "b:2".to_owned(),
        };
        let routers = || {
            let known = Profile::load_dir(folder.path()).unwrap().routers;
            known.into_iter().map(|router| router.addr).collect::<Vec<_>>()
        };
        note_router(folder.path(), &node).unwrap();
        note_router(folder.path(), &node).unwrap();
        assert_eq!(routers(), ["a:1", "b:2"]);
        forget_router(folder.path(), NodeId(1)).unwrap();
        forget_router(folder.path(), NodeId(6)).unwrap();
        assert_eq!(routers(), ["b:2"], "somebody has to be asked");
    }
}
