//! Files that an operator can get wrong: each is refused before anything runs, with a code and a
//! text that names the file and what to do.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use client::{Client, Keyring, Profile, SecretKind, Wait};
use ledger::{GroupId, NodeId};
use shard_node::server::NodeConfig;

use crate::support::bank::{Bank, wallet};
use crate::support::cluster::{TestCluster, Wanted};

const NODE: NodeId = NodeId(1);

fn one_node() -> TestCluster {
    TestCluster::prepare(&Wanted { nodes: 1, shards: 1, replicas: 1, ..Wanted::default() })
}

/// Changes a file for the time of a check.
fn with_changed<T>(path: &Path, change: impl FnOnce(String) -> String, check: impl FnOnce() -> T) -> T {
    let before = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, change(before.clone())).unwrap();
    let result = check();
    std::fs::write(path, before).unwrap();
    result
}

#[test]
fn a_node_does_not_guess_what_its_configuration_means() {
    let cluster = one_node();
    let file = cluster.dir.node_config(NODE);
    let load = || NodeConfig::load(&file).map_err(|error| (error.code(), error.to_string()));
    load().unwrap();
    let edit = |from: &'static str, to: &'static str| {
        move |text: String| {
            assert!(text.contains(from), "{from} is not in {text}");
            text.replacen(from, to, 1)
        }
    };
    let cases: Vec<(Box<dyn FnOnce(String) -> String>, &str, &str)> = vec![
        (Box::new(|text| format!("surprise = 1\n{text}")), "config_form", "surprise"),
        (Box::new(|text| format!("{text}\nextra_ms = 1\n")), "config_form", "extra_ms"),
        (Box::new(|text| text[..text.len() / 2].to_owned()), "config_form", "node.toml"),
        (Box::new(|_| String::new()), "config_form", "node"),
        (Box::new(|_| "\u{0}\u{1}".to_owned()), "config_form", "node.toml"),
        (Box::new(edit("node = 1", "node = -1")), "config_form", "node"),
        (Box::new(edit("node = 1", "node = 0")), "config_value", "node"),
        (Box::new(edit("snapshot_every = 20000", "snapshot_every = 0")), "config_value", "snapshot_every"),
        (Box::new(edit("genesis.json", "missing.json")), "config_path", "missing.json"),
    ];
    for (change, code, named) in cases {
        let error = with_changed(&file, change, load).unwrap_err();
        assert_eq!(error.0, code, "{}", error.1);
        assert!(error.1.contains(named) && error.1.contains("node.toml"), "{}", error.1);
    }
    let missing = NodeConfig::load(Path::new("/nowhere/node.toml")).unwrap_err();
    assert_eq!(missing.code(), "config_missing");
    // A private key that everybody can read is none.
    use std::os::unix::fs::PermissionsExt;
    let key = cluster.dir.node_dir(NODE).join("signing.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = load().unwrap_err();
    assert_eq!(error.0, "config_path");
    assert!(error.1.contains("chmod 600"), "{}", error.1);
}

#[tokio::test]
async fn a_profile_is_refused_for_unknown_keys_and_another_genesis() {
    let (cluster, other) = (one_node(), one_node());
    let path = cluster.dir.profile_path();
    let error = with_changed(&path, |text| format!("surprise = true\n{text}"), || Profile::load(&path)).unwrap_err();
    assert_eq!(error.code(), "profile_form");
    assert!(error.to_string().contains("surprise"), "{error}");
    let genesis = cluster.dir.genesis_path();
    let theirs = std::fs::read_to_string(other.dir.genesis_path()).unwrap();
    let profile = Profile::load(&path).unwrap();
    let unknown = |text: String| text.replacen('{', "{\"surprise\":1,", 1);
    for (change, code) in [
        (Box::new(move |_| theirs) as Box<dyn FnOnce(String) -> String>, "profile_other_cluster"),
        (Box::new(|text: String| text[..text.len() / 2].to_owned()), "profile_form"),
        (Box::new(unknown), "profile_form"),
    ] {
        let error = with_changed(&genesis, change, || Client::lazy(&profile).map(|_| ())).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

/// What a file of a node holds; keys in the clear, as other programs make them and as a node reads them, too.
fn content(path: &Path) -> Vec<u8> {
    let mut keyring = Keyring::finding(None);
    match path.file_name().and_then(|name| name.to_str()) {
        Some("node.key") => keyring.pem(path).unwrap().as_bytes().to_vec(),
        Some("signing.key") => {
            let key = keyring.key(path, SecretKind::Signing).unwrap();
            key.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
        }
        _ => std::fs::read(path).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_fit_its_cluster_does_not_start() {
    let (mut cluster, other) = (one_node(), one_node());
    let folder = cluster.dir.node_dir(NODE);
    let theirs = other.dir.node_dir(NODE);
    let swapped: [(&[&str], &str); 4] = [
        (&["signing.key"], "node_identity"),
        (&["node.pem", "node.key"], "node_identity"),
        (&["genesis.json"], "node_identity"),
        (&["node.key"], "tls_identity"),
    ];
    for (names, code) in swapped {
        let kept: Vec<(PathBuf, Vec<u8>)> =
            names.iter().map(|name| (folder.join(name), std::fs::read(folder.join(name)).unwrap())).collect();
        for name in names {
            std::fs::write(folder.join(name), content(&theirs.join(name))).unwrap();
        }
        let error = cluster.try_start(NODE).await.unwrap_err();
        assert_eq!(error.code(), code, "{names:?}: {error}");
        for (path, bytes) in kept {
            std::fs::write(path, bytes).unwrap();
        }
    }
    // As it lies there, another node's key does not even open.
    let own = std::fs::read(folder.join("signing.key")).unwrap();
    std::fs::copy(theirs.join("signing.key"), folder.join("signing.key")).unwrap();
    let error = cluster.try_start(NODE).await.unwrap_err();
    assert_eq!(error.code(), "wrong_passphrase", "{error}");
    std::fs::write(folder.join("signing.key"), own).unwrap();
    let genesis = folder.join("genesis.json");
    let text = std::fs::read_to_string(&genesis).unwrap();
    for bad in [&text[..text.len() / 2], "", "{}", &text.replacen("\"threshold\": 1", "\"threshold\": 0", 1)] {
        assert_ne!(bad, text);
        std::fs::write(&genesis, bad).unwrap();
        let error = cluster.try_start(NODE).await.unwrap_err();
        assert_eq!(error.code(), "genesis_invalid", "{error}");
        assert!(error.to_string().contains("genesis.json"), "{error}");
    }
    std::fs::write(&genesis, text).unwrap();
    cluster.start_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_and_a_second_node_on_one_folder_refused() {
    let mut cluster = one_node();
    for addr in [cluster.info(NODE).peer_addr.clone(), cluster.info(NODE).client_addr.clone()] {
        let held = TcpListener::bind(&addr).unwrap();
        let error = cluster.try_start(NODE).await.unwrap_err();
        assert_eq!(error.code(), "listen");
        assert!(error.to_string().contains(&addr), "{error}");
        drop(held);
    }
    cluster.start_all().await;
    // The same node once more, on other ports, over the same data.
    let file = cluster.dir.node_config(NODE);
    let text = std::fs::read_to_string(&file).unwrap();
    let base = crate::support::cluster::base_port(1);
    let info = cluster.info(NODE).clone();
    let other = text
        .replace(&info.peer_addr, &format!("127.0.0.1:{base}"))
        .replace(&info.client_addr, &format!("127.0.0.1:{}", base + 1));
    assert_ne!(other, text);
    std::fs::write(&file, other).unwrap();
    let error = cluster.try_start(NODE).await.unwrap_err();
    assert_eq!(error.code(), "storage_in_use", "{error}");
    std::fs::write(&file, text).unwrap();
    // The first one did not notice.
    let bank = Bank::open(&cluster.client()).await;
    bank.fund([&wallet("alice", 0)], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_another_cluster_is_left_alone() {
    let (mut ours, mut theirs) = (one_node(), one_node());
    theirs.start_all().await;
    let bank = Bank::open(&theirs.client()).await;
    let alice = wallet("alice", 0);
    bank.fund([&alice], 100).await;
    theirs.stop_all().await;
    let (data, foreign) = (ours.dir.node_dir(NODE).join("data"), theirs.dir.node_dir(NODE).join("data"));
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&foreign, &data).unwrap();
    let error = ours.try_start(NODE).await.unwrap_err();
    assert_eq!(error.code(), "storage_wrong_cluster", "{error}");
    // Given back it is what it was.
    std::fs::rename(&data, &foreign).unwrap();
    theirs.start_all().await;
    assert_eq!(bank.balance(alice.address).await, 100);
    bank.client.pay(&alice.key, wallet("bob", 0).address, bank.asset, 1, Wait::Applied).await.unwrap();
}

/// Writes another format version into the identity of the one database below a folder.
fn set_format(root: &Path, change: impl FnOnce(u32) -> u32) {
    let live = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let file = live.join("SEAMARK");
    let mut bytes = std::fs::read(&file).unwrap();
    // docs/formats.md: the format version, the node, and a checksum of everything before it come last.
    let (at, sum_at) = (bytes.len() - 12, bytes.len() - 4);
    let format = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    bytes[at..at + 4].copy_from_slice(&change(format).to_be_bytes());
    let checksum = crc32fast::hash(&bytes[..sum_at]).to_be_bytes();
    bytes[sum_at..].copy_from_slice(&checksum);
    std::fs::write(&file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_newer_software_is_left_alone() {
    let mut cluster = one_node();
    cluster.start_all().await;
    let bank = Bank::open(&cluster.client()).await;
    let alice = wallet("alice", 0);
    bank.fund([&alice], 100).await;
    cluster.stop_all().await;

    // The log is of all groups: without it the node does not start.
    let log = cluster.dir.node_dir(NODE).join("data").join("log");
    set_format(&log, |format| format + 1);
    let error = cluster.try_start(NODE).await.unwrap_err();
    assert_eq!(error.code(), "storage_newer_version", "{error}");
    assert!(error.to_string().contains("Upgrade the program"), "{error}");
    set_format(&log, |format| format - 1);

    // A state is of one group: that one does not run, and the node says so.
    let shard = GroupId::shard(0);
    let state = cluster.data(NODE, shard).join("state");
    set_format(&state, |format| format + 1);
    cluster.start_node(NODE).await;
    let stopped = cluster.replica(NODE, shard).await.stopped;
    assert!(stopped.contains("storage_newer_version") && stopped.contains("Upgrade the program"), "{stopped}");
    assert_eq!(cluster.replica(NODE, GroupId::BEACON).await.stopped, "");
    cluster.stop_all().await;

    set_format(&state, |format| format - 1);
    cluster.start_all().await;
    assert_eq!(bank.balance(alice.address).await, 100);
}
