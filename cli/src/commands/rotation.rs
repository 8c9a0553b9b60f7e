//! `node rotate-key`: the next key is made in the node's folder, the beacon takes it, and every group follows. One command
//! that can be given again: it looks how far it is, does what is missing, watches, and says what is not done yet.
//!
//! Never removes a key: the node does, when no group needs it ([`shard_node::server::rotation`]).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beacon::{BeaconCommand, NodeLives, keys};
use client::Client;
use client::secrets::SecretKind;
use ledger::genesis::NodeInfo;
use ledger::{GroupId, NodeId, PublicKey, SecretKey};
use serde::Serialize;
use shard_node::server::NodeConfig;
use shard_node::server::rotation::{NEXT_KEYS_MAX, free_file, next_file, next_files};
use zeroize::Zeroizing;

use super::beacon::nodes;
use super::signer::{Signer, WITHIN_MINUTES, salt};
use crate::args::Admin;
use crate::error::CliError;
use crate::output::{Output, rounded};
use crate::setup::ClusterDir;
use crate::setup::genesis::new_key;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Report {
    node: u32,
    /// `done`, or `under_way`.
    state: &'static str,
    key: String,
    /// What happened, in order.
    happened: Vec<String>,
    /// What is not done yet.
    missing: Vec<String>,
    seconds: f64,
}

fn text(report: &Report) -> String {
    let mut lines: Vec<String> = report.happened.iter().map(|line| format!("  {line}")).collect();
    lines.extend(report.missing.iter().map(|line| format!("  not yet: {line}")));
    lines.push(format!("  key {}", report.key));
    let state = match report.state {
        "done" => format!("node {}: rotate-key is done, after {:.1} s", report.node, report.seconds),
        _ => format!("node {}: rotate-key is under way, and comes by itself while the node runs", report.node),
    };
    format!("{state}\n{}", lines.join("\n"))
}

pub(super) async fn run(
    admin: &Admin,
    node: NodeId,
    config: Option<&Path>,
    (wait_s, anew): (u64, bool),
    output: Output,
) -> Result<(), CliError> {
    let since = Instant::now();
    let signer = Signer::of(admin)?;
    let reader = signer.context().client().await?;
    let info = entry_of(&reader, node).await?;
    let org = signer.org(Some(info.org))?;
    let file = config.map_or_else(|| ClusterDir::at(signer.context().dir()).node_config(node), Path::to_owned);
    let config = NodeConfig::load(&file)?;
    if config.node != node {
        let cause = format!("{} is the configuration of node {}", file.display(), config.node);
        return Err(CliError::usage("node", cause, "name that of the node with --config"));
    }
    let mut happened = Vec::new();
    let key = match prepared(&config, &info, anew)? {
        Prepared::Sent(key) => {
            happened.push("the registry has the key since before".to_owned());
            key
        }
        Prepared::Next { key, file, made } => {
            let what = if made { "made" } else { "there" };
            happened.push(format!("the next key is {what}: {}", file.display()));
            let client = signer.client_of(&org.name).await?;
            let possession = keys::prove_possession(&client.cluster_id(), node, &info.key, &key);
            let command = BeaconCommand::RotateNodeKey { node, key: key.public(), possession };
            let fate = signer.command(&client, &org, &command, salt()?, WITHIN_MINUTES).await?;
            happened.push(format!("command {}, signed by {}", fate.digest, org.name));
            key.public()
        }
    };
    let mut told: Vec<String> = Vec::new();
    let missing = loop {
        let missing = missing(&reader, &config, node, &key).await?;
        if missing != told {
            let line = missing.first().map_or("nothing is missing", String::as_str);
            output.remark(format!("{:.1} s: {line}", since.elapsed().as_secs_f64()));
            told.clone_from(&missing);
        }
        if missing.is_empty() || since.elapsed() >= Duration::from_secs(wait_s) {
            break missing;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let state = if missing.is_empty() { "done" } else { "under_way" };
    let seconds = rounded(since.elapsed().as_secs_f64());
    let report = Report { node: node.0, state, key: key.to_string(), happened, missing, seconds };
    output.result(&report, || text(&report))
}

async fn entry_of(reader: &Client, node: NodeId) -> Result<NodeInfo, CliError> {
    nodes(reader).await?.into_iter().find(|info| info.id == node).ok_or_else(|| {
        let fix = "see them with 'seamark beacon show'";
        CliError::new("not_found", format!("the registry has no node {node}"), fix)
    })
}

/// What the node's folder has for the registry.
enum Prepared {
    /// The registry has the next key already.
    Sent(PublicKey),
    /// The next key, which may have been made just now.
    Next { key: SecretKey, file: PathBuf, made: bool },
}

/// Looks into the folder of a node, and makes its next key where there is none, or, `anew`, where the registry has it.
fn prepared(config: &NodeConfig, info: &NodeInfo, anew: bool) -> Result<Prepared, CliError> {
    let mut keyring = config.keyring();
    let mut held = vec![(config.signing_key.clone(), keyring.signing_key(&config.signing_key)?)];
    for file in next_files(&config.signing_key) {
        let key = keyring.signing_key(&file)?;
        held.push((file, key));
    }
    let Some(at) = held.iter().position(|(_, key)| key.public() == info.key) else {
        let next = next_file(&config.signing_key);
        let cause = format!("the registry has the key {} of node {}, which is not in its folder", info.key, info.id);
        let fix = format!("name the configuration of the node that runs with --config; {} is not it", next.display());
        return Err(CliError::new("node_key_file", cause, fix));
    };
    if let Some((file, key)) = held.into_iter().nth(at + 1) {
        return Ok(Prepared::Next { key, file, made: false });
    }
    if at > 0 && !anew {
        return Ok(Prepared::Sent(info.key));
    }
    let file = free_file(&config.signing_key).ok_or_else(|| {
        let cause = format!("node {} has {NEXT_KEYS_MAX} keys that follow one another", info.id);
        CliError::new("node_key_file", cause, "give the groups that need the first of them their quorum, or close them")
    })?;
    let key = new_key()?;
    let secret = Zeroizing::new(key.to_bytes());
    // It is on the disk before anybody hears of it.
    keyring.write(&file, SecretKind::Signing, secret.as_slice())?;
    Ok(Prepared::Next { key, file, made: true })
}

/// What is not done yet.
async fn missing(reader: &Client, config: &NodeConfig, node: NodeId, key: &PublicKey) -> Result<Vec<String>, CliError> {
    let lives: NodeLives = reader.node_lives().await?;
    let closed: Vec<GroupId> =
        reader.channels().await?.iter().filter(|line| line.status == "closed").map(|line| line.group).collect();
    let others = lives
        .committees
        .iter()
        .filter(|committee| committee.index_of(node).is_some_and(|at| committee.members[at].key != *key));
    let (closed, open): (Vec<GroupId>, Vec<GroupId>) =
        others.map(|committee| committee.group).partition(|group| closed.contains(group));
    let mut missing: Vec<String> = open.iter().map(|group| format!("{group}: it still names a key before")).collect();
    // The registry waits for none of them; the node does for a while.
    if let Some(what) = lingering(config) {
        missing.extend(closed.iter().map(|group| format!("{group}: it is closed, and the node waits an hour for it")));
        missing.push(what);
    }
    Ok(missing)
}

/// Keys before that the node has not put away.
fn lingering(config: &NodeConfig) -> Option<String> {
    let last = next_files(&config.signing_key).pop()?;
    Some(format!("the node has not put {} in the place of the key before", last.display()))
}

#[cfg(test)]
mod tests {
    use client::secrets::{Keyring, PASSPHRASE_FILE, Passphrase};
    use ledger::{Hash32, OrgId};

    use super::*;

    fn info(key: &SecretKey) -> NodeInfo {
        NodeInfo {
            id: NodeId(4),
            org: OrgId(1),
            zone: String::new(),
            capacity: 1,
            key: key.public(),
            tls_key_hash: Hash32::ZERO,
            peer_addr: "a:1".to_owned(),
            client_addr: "a:2".to_owned(),
        }
    }

    #[test]
    fn the_next_key_is_made_once_and_sent_until_the_registry_has_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let passphrase = folder.path().join(PASSPHRASE_FILE);
        std::fs::write(&passphrase, "a passphrase for a test\n").unwrap();
        std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600)).unwrap();
        let any = "127.0.0.1:1".parse().unwrap();
        let config = NodeConfig {
            signing_key: folder.path().join("signing.key"),
            passphrase_file: Some(passphrase.clone()),
            ..NodeConfig::in_folder(NodeId(4), any, any)
        };
        let (old, other) = (SecretKey::derive(b"node", b"4"), SecretKey::derive(b"node", b"5"));
        let mut ring = Keyring::holding(Passphrase::read(&passphrase).unwrap());
        ring.write(&config.signing_key, SecretKind::Signing, &old.to_bytes()).unwrap();

        // The folder is of another node: nothing is made.
        let refused = prepared(&config, &info(&other), false).map(|_| ()).unwrap_err();
        assert_eq!(refused.code, "node_key_file");
        assert!(!next_file(&config.signing_key).exists());

        let Prepared::Next { key, made: true, .. } = prepared(&config, &info(&old), false).unwrap() else {
            panic!("it is made")
        };
        let Prepared::Next { key: again, made: false, .. } = prepared(&config, &info(&old), true).unwrap() else {
            panic!("it is there")
        };
        assert_eq!(key.public(), again.public());
        assert_ne!(key.public(), old.public());
        let Prepared::Sent(sent) = prepared(&config, &info(&key), false).unwrap() else {
            panic!("the registry has it")
        };
        assert_eq!(sent, key.public());
        assert!(lingering(&config).is_some_and(|what| what.contains("signing.key.next")));

        // A group does not take it: the one that follows is made once, too, and is the one to send.
        let Prepared::Next { key: third, file, made: true } = prepared(&config, &info(&key), true).unwrap() else {
            panic!("it is made")
        };
        assert_eq!(next_files(&config.signing_key), [next_file(&config.signing_key), file]);
        for anew in [false, true] {
            let Prepared::Next { key: again, made: false, .. } = prepared(&config, &info(&key), anew).unwrap() else {
                panic!("it is there")
            };
            assert_eq!(again.public(), third.public());
        }
        let Prepared::Sent(sent) = prepared(&config, &info(&third), false).unwrap() else { panic!("it has that one") };
        assert_eq!(sent, third.public());
    }

    #[test]
    fn what_is_missing_stands_one_a_line() {
        let report = Report {
            node: 4,
            state: "under_way",
            key: "02aa".to_owned(),
            happened: vec!["command ab, signed by org-a".to_owned()],
            missing: vec!["shard-0: it still names the key before".to_owned()],
            seconds: 0.5,
        };
        let said = text(&report);
        for part in ["node 4: rotate-key is under way", "  command ab", "  not yet: shard-0", "  key 02aa"] {
            assert!(said.contains(part), "{part} in\n{said}");
        }
        let done = text(&Report { state: "done", missing: Vec::new(), ..report });
        assert!(done.contains("is done") && !done.contains("not yet"), "{done}");
    }
}
