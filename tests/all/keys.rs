//! Private keys on the disk: what lies there shows none of them, a node runs with its passphrase and says what is wrong
//! without it, and everything that renews a key or replaces one works on sealed files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use channel::Change;
use client::net::certificate_key_hash;
use client::secrets::{Keyring, PASSPHRASE_FILE, Passphrase, SecretKind};
use client::{Client, Identity};
use hashbrown::HashMap;
use ledger::{GroupId, NodeId, OrgId};
use rcgen::KeyPair;
use seamark_cli::setup::ClusterDir;
use serde_json::Value;
use shard_node::server::{NodeConfig, vault};
use tempfile::TempDir;

use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::program::{Process, node_command, program};
use crate::support::up::Up;

const NODE: NodeId = NodeId(2);
const A: OrgId = OrgId(1);
const B: OrgId = OrgId(2);

/// Secrets by their first eight bytes, each with what it is.
#[derive(Default)]
struct Secrets(HashMap<[u8; 8], Vec<(String, Vec<u8>)>>);

impl Secrets {
    fn add(&mut self, what: &str, bytes: &[u8]) {
        let start = bytes[..8].try_into().unwrap();
        self.0.entry(start).or_default().push((what.to_owned(), bytes.to_vec()));
    }

    /// The bytes of a key, and as hex.
    fn add_key(&mut self, what: &str, key: &[u8; 32]) {
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.add(what, key);
        self.add(what, digits.as_bytes());
        self.add(what, digits.to_uppercase().as_bytes());
    }

    /// The key of a certificate: the lines of its PEM that hold some of it, and the key itself. What follows there is the
    /// public key, which is in the certificate, too.
    fn add_pem(&mut self, what: &str, pem: &str) {
        for line in pem.lines().filter(|line| !line.starts_with('-')).take(2) {
            self.add(what, line.as_bytes());
        }
        let der = KeyPair::from_pem(pem).unwrap().serialize_der();
        // An octet string of 32 bytes (RFC 5915).
        let at = der.windows(2).position(|tag| tag == [0x04, 0x20]).unwrap() + 2;
        self.add_key(what, der[at..at + 32].try_into().unwrap());
    }

    /// All keys of a cluster, and all passphrases.
    fn of(cluster: &TestCluster) -> Self {
        let mut all = Self::default();
        let mut owner = |folder: &Path, keys: &[(&str, SecretKind)]| {
            let mut ring = Keyring::finding(None);
            for (name, kind) in keys {
                let path = folder.join(name);
                let what = path.display().to_string();
                match kind {
                    SecretKind::Tls => all.add_pem(&what, &ring.pem(&path).unwrap()),
                    SecretKind::Signing | SecretKind::Storage => all.add_key(&what, &ring.key(&path, *kind).unwrap()),
                }
            }
            let passphrase = Passphrase::read(&folder.join(PASSPHRASE_FILE)).unwrap();
            all.add(&format!("the passphrase of {}", folder.display()), passphrase.text().as_bytes());
        };
        let (signing, storage) = (("signing.key", SecretKind::Signing), ("storage.key", SecretKind::Storage));
        for node in cluster.node_ids() {
            owner(&cluster.dir.node_dir(node), &[("node.key", SecretKind::Tls), signing, storage]);
        }
        for org in &cluster.genesis.orgs {
            owner(&cluster.dir.admin_dir(&org.name), &[("admin.key", SecretKind::Tls), signing]);
            owner(&cluster.dir.ca_dir(&org.name), &[]);
        }
        owner(&cluster.dir.root().join("client"), &[("client.key", SecretKind::Tls)]);
        for org in &cluster.genesis.orgs {
            all.add_pem(&format!("the authority of {}", org.name), &cluster.authority(&org.name).key_pem());
        }
        all
    }

    /// What of all this is in a file.
    fn found_in(&self, path: &Path) -> Vec<String> {
        let bytes = std::fs::read(path).unwrap();
        let mut found = Vec::new();
        for (at, start) in bytes.windows(8).enumerate() {
            let start: [u8; 8] = start.try_into().unwrap();
            let here = self.0.get(&start).into_iter().flatten();
            found.extend(here.filter(|(_, secret)| bytes[at..].starts_with(secret)).map(|(what, _)| what.clone()));
        }
        found
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_private_key_lies_in_the_clear() {
    let mut cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let channel = Consortium::of(&cluster).found("steel", &[(A, &[NodeId(1)]), (B, &[NODE])]).await;
    let local = cluster.data(NODE, channel).join("local.key");
    eventually("the channel has its local key", async || local.exists().then_some(()).ok_or("not yet")).await;
    cluster.stop_all().await;

    let secrets = Secrets::of(&cluster);
    let (mut searched, mut passphrases) = (0, 0);
    for path in files(cluster.dir.root()) {
        let found = secrets.found_in(&path);
        if path.ends_with(PASSPHRASE_FILE) {
            // The search finds what is there.
            assert_eq!(found.len(), 1, "{}: {found:?}", path.display());
            passphrases += 1;
        } else {
            assert!(found.is_empty(), "{} shows {found:?}", path.display());
            searched += 1;
        }
    }
    assert_eq!(passphrases, 3 + 2 * 3 + 1, "of each node, authority and admin, and of the client");
    assert!(searched > 60, "{searched} files");
}

/// Starts a node in a process of its own, and waits until it runs.
async fn runs(cluster: &TestCluster, change: impl FnOnce(&mut Command)) {
    let mut command = node_command(&cluster.dir.node_config(NODE));
    change(&mut command);
    let mut process = Process::start(command, &cluster.dir.node_dir(NODE).join("node.log"));
    process.says(&format!("node {NODE} runs")).await;
    process.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_runs_with_its_passphrase_wherever_it_is_kept_and_says_what_is_wrong_with_it() {
    let mut cluster = TestCluster::prepare(&Wanted { shards: 1, ..Wanted::default() });
    let (config, folder) = (cluster.dir.node_config(NODE), cluster.dir.node_dir(NODE));
    let elsewhere = TempDir::new().unwrap();
    let kept = elsewhere.path().join("seamark-passphrase");
    let beside = folder.join(PASSPHRASE_FILE);
    let text = std::fs::read_to_string(&beside).unwrap();
    runs(&cluster, |_| {}).await;

    // What lies on the disk of the node is of no use without it.
    std::fs::copy(&beside, &kept).unwrap();
    std::fs::remove_file(&beside).unwrap();
    let mut process = Process::start(node_command(&config), &folder.join("node.log"));
    let ended = process.wait().expect("it does not run without a passphrase");
    assert_eq!(ended.code(), Some(1));
    let said = process.said();
    assert!(said.contains("error[passphrase_file]") && said.contains("SEAMARK_PASSPHRASE"), "{said}");
    std::fs::write(&beside, Passphrase::generate().unwrap().text()).unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = |mode: u32| std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    assert_eq!(cluster.try_start(NODE).await.unwrap_err().code(), "passphrase_readable");
    mode(0o600);
    assert_eq!(cluster.try_start(NODE).await.unwrap_err().code(), "wrong_passphrase");
    std::fs::remove_file(&beside).unwrap();

    runs(&cluster, |command| {
        command.arg("--passphrase-file").arg(&kept);
    })
    .await;
    let toml = std::fs::read_to_string(&config).unwrap();
    let without = toml.replace("passphrase_file = \"passphrase\"\n", "");
    assert_ne!(without, toml);
    std::fs::write(&config, without).unwrap();
    runs(&cluster, |command| {
        command.env("SEAMARK_PASSPHRASE", text.trim());
    })
    .await;
    runs(&cluster, |command| {
        command.env("CREDENTIALS_DIRECTORY", elsewhere.path());
    })
    .await;
    let mut process = Process::start(node_command(&config), &folder.join("node.log"));
    assert_eq!(process.wait().expect("it does not run without a passphrase").code(), Some(1));
    assert!(process.said().contains("error[passphrase_missing]"), "{}", process.said());
    assert_eq!(files(&folder).iter().filter(|path| path.ends_with(PASSPHRASE_FILE)).count(), 0, "none was made");
}

/// Runs one command on the cluster of a folder; it must succeed.
fn told(dir: &Path, line: &str) -> Value {
    let mut command = Command::new(program());
    command.args(line.split_whitespace()).arg("--json").env("SEAMARK_DIR", dir).env_remove("SEAMARK_PASSPHRASE");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_admin_keys_are_renewed_on_sealed_files() {
    let mut up = Up::start(3, 1).await;
    let dir = ClusterDir::at(&up.dir);
    let client = Client::connect(&up.profile()).await.unwrap();
    let (admin, node) = (dir.admin_dir("org-b"), dir.node_dir(NODE));
    let shown = |path: PathBuf| path.display().to_string();

    // An admin's next key: made elsewhere, sealed beside the one that is to go, announced, and put in its place.
    let next = admin.join("next.key");
    let digits = "17".repeat(32);
    std::fs::write(&next, &digits).unwrap();
    let sealed = told(&up.dir, &format!("key seal {}", shown(admin.clone())));
    let of_next = |line: &&Value| line["file"].as_str().unwrap().ends_with("next.key");
    assert_eq!(sealed["keys"].as_array().unwrap().iter().find(of_next).unwrap()["done"], "sealed");
    assert!(!std::fs::read(&next).unwrap().windows(16).any(|part| part == &digits.as_bytes()[..16]));
    let rotated = told(&up.dir, &format!("beacon rotate-key {} --as org-b", shown(next.clone())));
    assert_eq!(rotated["in_force"], true);
    std::fs::rename(&next, admin.join("signing.key")).unwrap();
    assert_eq!(told(&up.dir, "node capacity 2 3")["in_force"], true, "signed with the new key");

    // A node's next certificate, its key under the passphrase that its other keys have.
    let ca = shown(dir.ca_dir("org-b"));
    told(&up.dir, &format!("ca issue node node-2 --ca {ca} --out {}", shown(node.clone())));
    let (cert, key) = (node.join("node-2.pem"), node.join("node-2.key"));
    let hash = certificate_key_hash(&std::fs::read_to_string(&cert).unwrap()).unwrap();
    assert_eq!(told(&up.dir, &format!("node tls 2 {}", shown(cert.clone())))["in_force"], true);
    let registry = node.join("data").join("registry");
    eventually("the node has heard of it", async || {
        let kept = std::fs::read(&registry).unwrap_or_default();
        kept.windows(32).any(|part| part == hash.0).then_some(()).ok_or("not yet")
    })
    .await;
    up.kill(NODE).await;
    std::fs::rename(&cert, node.join("node.pem")).unwrap();
    std::fs::rename(&key, node.join("node.key")).unwrap();
    up.restart(NODE);
    up.whole(&client, &[GroupId::BEACON, GroupId::shard(0)]).await;

    let revealed = told(&up.dir, &format!("key reveal {}", shown(node.join("node.key"))));
    let pem = revealed["key"].as_str().unwrap();
    let identity = Identity::load(&node.join("node.pem"), &node.join("node.key")).unwrap();
    assert_eq!(pem, identity.key_pem.trim_end(), "what a program is given that cannot open it");
    assert_eq!(identity.key_hash().unwrap(), hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_on_in_its_channels_with_another_storage_key() {
    let mut cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let channel = Consortium::of(&cluster).found("steel", &[(A, &[NodeId(1)]), (B, &[NODE])]).await;
    Consortium::of(&cluster).decide(channel, Change::Freeze, &[A, B]).await;
    let config = NodeConfig::load(&cluster.dir.node_config(NODE)).unwrap();
    let key = || *config.keyring().key(&config.storage_key, SecretKind::Storage).unwrap();
    let before = key();
    assert_eq!(vault::rotate(&config).unwrap_err().code(), "storage_in_use");
    assert_eq!(key(), before);

    cluster.stop_node(NODE).await;
    assert_eq!(vault::rotate(&config).unwrap(), 1, "one local key");
    assert_ne!(key(), before);
    cluster.start_node(NODE).await;
    assert_eq!(cluster.replica(NODE, channel).await.stopped, "");
    cluster.leader(channel).await;
    Consortium::of(&cluster).decide(channel, Change::Thaw, &[A, B]).await;
}
