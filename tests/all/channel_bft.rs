//! Channels whose members do not trust one another's nodes, by command and with a process for each node: organisations
//! found one under the Byzantine engine, let another one in, one goes and one is shut out, and what orders the channel
//! changes by its own policy, while customers pay inside it all the time.

use std::path::{Path, PathBuf};
use std::process::Command;

use client::{Client, Consistency, proof};
use ledger::{Engine, GroupId, Height, LedgerId, NodeId};
use proto::v1::ReplicaStatus;
use seamark_cli::setup::ClusterDir;
use serde_json::{Value, json};

use crate::bft_switch::{all_under, seats};
use crate::elastic::run;
use crate::support::audit::end_and_reconcile;
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::program::program;
use crate::support::up::Up;

const STEEL: GroupId = GroupId::channel(0);
const FUNDS: u128 = 1_000_000;
/// What is executed between two events at least.
const MEANWHILE: usize = 100;
/// Entries between two snapshots: as few as a node takes.
const SNAPSHOT_EVERY: u64 = 100;
/// In flight at a time.
const IN_FLIGHT: usize = 16;
/// What an organisation is told that is no member any more: by the channel, by a router that has heard of it, and at a
/// door that is closed.
const GONE: [&str; 3] = ["channel_removed", "channel_refused", "access_denied"];

/// A cluster with a node for each organisation, and a channel of the first of them.
struct Scene {
    up: Up,
    /// A member's client, over the router of that member.
    client: Client,
    /// In the channel.
    bank: Bank,
    wallets: Vec<Wallet>,
}

impl Scene {
    /// Founds the channel by command, permits an asset there, and has customers bring what they have of it.
    async fn set(nodes: u32, founders: &[&str]) -> Self {
        let orgs = nodes.to_string();
        let up = Up::start_with_snapshots(nodes, 1, &["--replicas", "3", "--orgs", &orgs], SNAPSHOT_EVERY).await;
        let client = Client::connect(&up.profile_of(&[NodeId(1)])).await.unwrap();
        let main = Bank::open(&client).await;
        let wallets = wallets_in_each_shard(&client.genesis().layout, "home", 4).remove(0);
        main.fund(&wallets, FUNDS).await;

        let (first, members) = (founders[0], founders.join(","));
        let mut told = up.told(&format!("channel create steel --consensus bft --as {first} --members {members}"));
        eventually("the founding is listed", async || {
            let listed = run(&up, "channel ls")?;
            if listed["foundings"][0].is_null() { Err(listed.to_string()) } else { Ok(()) }
        })
        .await;
        for org in &founders[1..] {
            assert_eq!(told["state"], "open");
            told = up.told(&format!("channel approve steel --as {org}"));
        }
        assert_eq!((&told["state"], &told["channel"]), (&json!("founded"), &json!(STEEL.to_string())));
        let committee = all_under(&client, STEEL, Engine::Bft, founders.len()).await;
        assert_eq!(usize::from(committee.threshold), Engine::Bft.threshold(founders.len()));
        eventually("the channel answers its members", async || client.governance(STEEL).await).await;

        let majority = &founders[..founders.len() / 2 + 1];
        let mut scene = Self { up, client, bank: main, wallets };
        scene.decided(&format!("channel permit steel {}", scene.bank.asset), majority);
        scene.bank = scene.bank.cross_to(STEEL, &scene.wallets, FUNDS).await;
        scene
    }

    /// Has an organisation propose a change, and others approve it, the last one of them so that it is in force.
    fn decided(&self, line: &str, orgs: &[&str]) {
        let mut told = self.up.told(&format!("{line} --as {}", orgs[0]));
        let id = told["proposal"].as_str().unwrap_or_else(|| panic!("{line}: {told}")).to_owned();
        for org in &orgs[1..] {
            assert_eq!(told["state"], "open", "{line}");
            told = self.up.told(&format!("channel approve steel {id} --as {org}"));
        }
        assert_eq!(told["state"], "applied", "{line}");
    }

    /// Waits until exactly these nodes run the channel under an engine.
    async fn run_by(&self, engine: Engine, nodes: &[u32]) {
        let committee = all_under(&self.client, STEEL, engine, nodes.len()).await;
        let wanted: Vec<NodeId> = nodes.iter().copied().map(NodeId).collect();
        assert_eq!(seats(&committee), wanted);
    }

    /// Each of these nodes' replica of the channel.
    async fn replicas(&self, nodes: &[u32]) -> Result<Vec<ReplicaStatus>, String> {
        let status = self.client.status().await.map_err(|error| error.to_string())?;
        let of = |node: &u32| {
            let reply = status.nodes.iter().find(|reply| reply.node == *node);
            let found = reply.and_then(|reply| reply.replicas.iter().find(|replica| replica.group == STEEL.0));
            found.cloned().ok_or_else(|| format!("node {node} says nothing of the channel"))
        };
        nodes.iter().map(of).collect()
    }

    async fn load(&self) -> Load {
        Load::start(&self.bank, &self.wallets, &self.wallets, IN_FLIGHT).await
    }

    /// Ends a load: everything was executed once, all replicas of the channel have the same, and no money has come or gone.
    async fn end(&mut self, load: Load, at_least: usize) {
        let (committed, fates) = end_and_reconcile(load, &self.bank).await;
        assert!(fates.open.is_empty(), "{:?}", fates.open);
        assert_eq!(committed, fates.sent.len() as u64, "no payment fails");
        assert!(committed >= at_least as u64, "{committed}");
        let genesis = self.client.genesis().clone();
        let groups: Vec<GroupId> = genesis.committees.iter().map(|committee| committee.group).chain([STEEL]).collect();
        self.up.settled(&self.client, &groups).await;
        assert_eq!(self.bank.total(&self.wallets).await, FUNDS * self.wallets.len() as u128);
        let main = Bank { ledger: LedgerId::MAIN, ..self.bank.clone() };
        assert_eq!(main.total(&self.wallets).await, 0, "all of it is in the channel");
    }

    /// A file beside the cluster.
    fn file(&self, name: &str) -> PathBuf {
        self.up.dir.join(name)
    }

    /// Where a node keeps the channel.
    fn folder(&self, node: u32) -> PathBuf {
        ClusterDir::at(&self.up.dir).node_dir(NodeId(node)).join("data").join(STEEL.to_string())
    }

    /// An organisation that was a member, with a node of its own, learns nothing any more: by command, and over the router
    /// of its own node, once that has let its copy go.
    async fn is_shown_nothing(&self, org: &str, node: u32) {
        for what in ["channel show steel", "channel proposals steel", "channel freeze steel", "channel leave steel"] {
            let code = self.up.refused(&format!("{what} --as {org}"));
            assert!(GONE.contains(&code.as_str()), "{what} by {org}: {code}");
        }
        let folder = self.folder(node);
        eventually("its copy is gone", async || if folder.exists() { Err("it is there") } else { Ok(()) }).await;
        let mut profile = self.up.profile_of(&[NodeId(node)]);
        let admin = ClusterDir::at(&self.up.dir).admin_dir(org);
        (profile.cert, profile.key) = (admin.join("admin.pem"), admin.join("admin.key"));
        let own = Client::connect(&profile).await.unwrap();
        let (ledger, account) = (self.bank.ledger, self.wallets[0].address);
        let answers = [
            ("an account", own.account_of(ledger, account, Consistency::Linearizable, false).await.map(drop)),
            ("an account, old", own.account_of(ledger, account, Consistency::Stale, false).await.map(drop)),
            ("a block", own.block(STEEL, Height(1)).await.map(drop)),
            ("how it is governed", own.governance(STEEL).await.map(drop)),
        ];
        for (what, answer) in answers {
            let error = answer.expect_err(what);
            assert!(GONE.contains(&error.code()), "{org} asks for {what}: {error}");
        }
    }
}

/// What proves that an organisation went, as whoever has the genesis and nothing else judges it.
fn judged(receipt: &Path, genesis: &Path) -> Value {
    let output = Command::new(program())
        .args(["verify", "--json", "--genesis"])
        .args([genesis, receipt])
        .env("SEAMARK_DIR", "/nowhere")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["valid"], &said["fact"]["kind"]), (&json!(true), &json!("exclusion")), "{said}");
    said["fact"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byzantine_channel_takes_one_in_lets_one_go_and_shuts_one_out_under_payments() {
    let founders = ["org-a", "org-b", "org-c", "org-d", "org-e"];
    let mut scene = Scene::set(6, &founders).await;
    scene.run_by(Engine::Bft, &[1, 2, 3, 4, 5]).await;

    // Long enough that nobody's log goes back to the beginning.
    let mut load = scene.load().await;
    load.next(MEANWHILE).await;
    eventually("all have made snapshots", async || {
        let replicas = scene.replicas(&[1, 2, 3, 4, 5]).await?;
        let ends: Vec<u64> = replicas.iter().map(|replica| replica.log_last).collect();
        if ends.iter().all(|end| *end >= 3 * SNAPSHOT_EVERY) { Ok(()) } else { Err(format!("{ends:?}")) }
    })
    .await;
    assert_eq!(scene.up.refused("channel join steel --as org-f"), "channel_not_invited");
    scene.decided("channel invite steel org-f", &founders[..3]);
    let joined = scene.up.told("channel join steel --as org-f");
    assert!(joined["done"].as_str().unwrap().starts_with("org-f is a member from block "), "{joined}");
    scene.run_by(Engine::Bft, &[1, 2, 3, 4, 5, 6]).await;
    load.next(MEANWHILE).await;
    scene.end(load, 2 * MEANWHILE).await;
    // What was executed before its snapshot, it has not executed.
    let counts: Vec<u64> = scene.replicas(&[1, 6]).await.unwrap().iter().map(|replica| replica.transactions).collect();
    assert!(counts[1] < counts[0], "it has replayed the whole log: {counts:?}");

    let mut load = scene.load().await;
    load.next(MEANWHILE).await;
    let left = scene.file("left.receipt");
    let told = scene.up.told(&format!("channel leave steel --as org-d --out {}", left.display()));
    assert_eq!(told["receipt"], json!(left.display().to_string()));
    scene.run_by(Engine::Bft, &[1, 2, 3, 5, 6]).await;
    scene.is_shown_nothing("org-d", 4).await;
    load.next(MEANWHILE).await;

    // Those who stay are four: one of them may lie. With less they would not let anybody go.
    scene.decided("channel remove steel org-e", &["org-a", "org-b", "org-f"]);
    scene.run_by(Engine::Bft, &[1, 2, 3, 6]).await;
    scene.is_shown_nothing("org-e", 5).await;
    load.next(MEANWHILE).await;
    assert_eq!(scene.up.refused("channel leave steel --as org-f"), "channel_quorum_at_risk");
    let mut files = Vec::new();
    for org in ["org-a", "org-e"] {
        let file = scene.file(&format!("removed-by-{org}.receipt"));
        scene.up.told(&format!("channel receipt steel org-e --as {org} --out {}", file.display()));
        files.push(file);
    }
    scene.end(load, 3 * MEANWHILE).await;

    // Offline: the cluster is gone when the receipts are judged.
    let apart = tempfile::tempdir().unwrap();
    let genesis = apart.path().join("genesis.json");
    std::fs::copy(ClusterDir::at(&scene.up.dir).genesis_path(), &genesis).unwrap();
    let carried: Vec<PathBuf> = [left]
        .into_iter()
        .chain(files)
        .map(|file| {
            let to = apart.path().join(file.file_name().unwrap());
            std::fs::copy(&file, &to).unwrap();
            to
        })
        .collect();
    drop(scene);
    let facts: Vec<Value> = carried.iter().map(|file| judged(file, &genesis)).collect();
    for (fact, (org, how)) in facts.iter().zip([("org-d", "left"), ("org-e", "removed"), ("org-e", "removed")]) {
        assert_eq!((&fact["org"], &fact["how"], &fact["channel"]), (&json!(org), &json!(how), &json!("channel-0")));
    }
    assert_eq!(facts[1], facts[2], "members and the one that was removed are given the same");
    assert!(facts[0]["excluded"].as_u64() < facts[1]["excluded"].as_u64(), "{facts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_goes_over_to_raft_and_back_by_its_own_policy_under_payments() {
    let founders = ["org-a", "org-b", "org-c", "org-d"];
    let mut scene = Scene::set(4, &founders).await;
    let nodes = [1, 2, 3, 4];
    scene.run_by(Engine::Bft, &nodes).await;
    let mut load = scene.load().await;
    load.next(MEANWHILE).await;
    for engine in [Engine::Raft, Engine::Bft] {
        let line = format!("group consensus steel {}", engine.name());
        let said = scene.up.told(&format!("{line} --dry-run --as org-d"));
        assert_eq!((&said["state"], &said["then"]["engine"]), (&json!("dry_run"), &json!(engine.name())));
        assert_eq!((&said["then"]["members"], &said["then"]["tolerated"]), (&json!(4), &json!(1)));
        scene.decided(&line, &founders[..3]);
        scene.run_by(engine, &nodes).await;
        load.next(MEANWHILE).await;
    }
    let committee = all_under(&scene.client, STEEL, Engine::Bft, nodes.len()).await;
    scene.end(load, 3 * MEANWHILE).await;

    // Whoever has the genesis alone follows the channel over both changes.
    let (ledger, account) = (scene.bank.ledger, scene.wallets[0].address);
    let proved = scene.client.account_of(ledger, account, Consistency::Linearizable, true).await.unwrap();
    let file = proved.proof.unwrap();
    let verified = proof::verify(&file, scene.client.genesis()).unwrap();
    assert_eq!((verified.group, &file.committee), (STEEL, &committee));
    assert_eq!((committee.epoch.0, file.handovers.len()), (2, 2), "a committee for each engine, with the same members");
}
