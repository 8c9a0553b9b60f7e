//! Damaged files: the group they belong to does not run on that node, `status` says why, everything
//! else goes on, and nothing wrong is ever served.

use std::path::{Path, PathBuf};

use client::{Consistency, Wait};
use ledger::{GroupId, NodeId};
use proto::v1;
use storage::LogStore;

use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::{eventually, in_time};

const VICTIM: NodeId = NodeId(2);
const HURT: GroupId = GroupId::shard(0);

struct Scene {
    cluster: TestCluster,
    bank: Bank,
    homes: Vec<Vec<Wallet>>,
}

async fn scene() -> Scene {
    scene_of(Wanted::default(), 50).await
}

async fn scene_of(wanted: Wanted, payments: usize) -> Scene {
    let mut cluster = TestCluster::start(wanted).await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 20);
    bank.fund(homes.iter().flatten(), 1_000).await;
    for number in 0..payments {
        let (from, to) = (&homes[0][number % 20], &homes[0][(number + 1) % 20]);
        bank.client.pay(&from.key, to.address, bank.asset, 1, Wait::Receipt).await.unwrap();
    }
    cluster.wait_settled().await;
    cluster.stop_node(VICTIM).await;
    Scene { cluster, bank, homes }
}

/// All files below a folder with this ending, sorted.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Turns some bits over the whole length of a file.
fn scribble(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let step = (bytes.len() / 16).max(1);
    for at in (step / 2..bytes.len()).step_by(step) {
        bytes[at] ^= 0x55;
    }
    std::fs::write(path, bytes).unwrap();
}

impl Scene {
    async fn victim(&self) -> v1::NodeStatusReply {
        let client = self.cluster.client();
        eventually("the damaged node's status", async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            status.nodes.into_iter().find(|node| node.node == VICTIM.0).ok_or_else(|| "it does not answer".to_owned())
        })
        .await
    }

    /// The node runs without the damaged group, says so with this code, and carries its others.
    async fn says(&self, code: &str) {
        let status = eventually("the damage is found", async || {
            let status = self.victim().await;
            let hurt = status.replicas.iter().find(|replica| replica.group == HURT.0).cloned();
            match hurt {
                Some(hurt) if !hurt.stopped.is_empty() => Ok((status, hurt.stopped)),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let (status, stopped) = status;
        assert!(stopped.contains(code), "{stopped}");
        assert!(status.alarms.iter().any(|alarm| alarm.contains(&HURT.to_string())), "{:?}", status.alarms);
        for replica in status.replicas.iter().filter(|replica| replica.group != HURT.0) {
            assert!(replica.stopped.is_empty(), "{replica:?}");
        }
    }

    /// Both shards serve, through every router, and what the damaged one reads is right.
    async fn others_go_on(&self) {
        let (alice, bob, far) = (&self.homes[0][0], &self.homes[0][1], &self.homes[1][0]);
        for to in [bob, far] {
            self.bank.client.pay(&alice.key, to.address, self.bank.asset, 1, Wait::Applied).await.unwrap();
        }
        let client = self.cluster.client_of(VICTIM);
        let through = client.account(alice.address, Consistency::Linearizable, true).await.unwrap().value.unwrap();
        let expected = self.bank.balance(alice.address).await;
        assert_eq!(through.balances[0].1.posted, expected);
        let stale = client.account(alice.address, Consistency::Stale, false).await.unwrap().value.unwrap();
        assert!(stale.balances[0].1.posted >= expected);
        assert_eq!(self.bank.total(self.homes.iter().flatten()).await, 40_000);
    }

    /// What the message says to do: the group's state goes away, and the replica builds it again from
    /// its own snapshot and log.
    async fn mend(&mut self) {
        self.cluster.stop_node(VICTIM).await;
        let state = self.cluster.data(VICTIM, HURT).join("state");
        std::fs::rename(&state, state.with_file_name("damaged")).unwrap();
        self.cluster.start_node(VICTIM).await;
        self.cluster.wait_settled().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_stops_its_group_on_its_node_and_nothing_else() {
    let mut scene = scene().await;
    let tables = files(&scene.cluster.data(VICTIM, HURT), ".sst");
    assert!(!tables.is_empty(), "a stopped node has flushed its state");
    tables.iter().for_each(|table| scribble(table));
    scene.cluster.start_node(VICTIM).await;
    scene.says("storage_corrupt").await;
    scene.others_go_on().await;
    scene.mend().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_cut_table_is_found() {
    let mut scene = scene().await;
    let tables = files(&scene.cluster.data(VICTIM, HURT), ".sst");
    let last = tables.last().unwrap();
    let bytes = std::fs::read(last).unwrap();
    std::fs::write(last, &bytes[..bytes.len() / 2]).unwrap();
    scene.cluster.start_node(VICTIM).await;
    scene.says("storage_corrupt").await;
    scene.others_go_on().await;
    scene.cluster.stop_node(VICTIM).await;
    std::fs::remove_file(last).unwrap();
    scene.cluster.start_node(VICTIM).await;
    scene.says("storage_").await;
    scene.others_go_on().await;
    // With the file back as it was, the group runs again and catches up.
    scene.cluster.stop_node(VICTIM).await;
    std::fs::write(last, bytes).unwrap();
    scene.cluster.start_node(VICTIM).await;
    scene.cluster.wait_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pointer_file_is_not_guessed_at() {
    let mut scene = scene().await;
    let pointer = scene.cluster.data(VICTIM, HURT).join("state").join("LIVE");
    let bytes = std::fs::read(&pointer).unwrap();
    for bad in [&bytes[..bytes.len() - 1], b"", &[0; 24]] {
        std::fs::write(&pointer, bad).unwrap();
        scene.cluster.start_node(VICTIM).await;
        scene.says("storage_corrupt").await;
        scene.cluster.stop_node(VICTIM).await;
    }
    std::fs::remove_file(&pointer).unwrap();
    scene.cluster.start_node(VICTIM).await;
    scene.says("storage_corrupt").await;
    scene.others_go_on().await;
    scene.cluster.stop_node(VICTIM).await;
    std::fs::write(&pointer, bytes).unwrap();
    scene.cluster.start_node(VICTIM).await;
    scene.cluster.wait_settled().await;
}

/// A replica whose state is gone builds it again from its own snapshot: a damaged one is not taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_not_installed() {
    let mut scene = scene_of(Wanted { snapshot_every: Some(100), ..Wanted::default() }, 150).await;
    let folder = scene.cluster.data(VICTIM, HURT);
    let (state, snapshots) = (folder.join("state"), folder.join("snapshots"));
    let label = files(&snapshots, "APPLIED").pop().expect("150 entries are worth a snapshot");
    let snapshot = label.parent().unwrap();
    let tables = files(snapshot, ".sst");
    assert!(!tables.is_empty());
    std::fs::remove_dir_all(&state).unwrap();
    let table = std::fs::read(&tables[0]).unwrap();
    scribble(&tables[0]);
    scene.cluster.start_node(VICTIM).await;
    scene.says("storage_corrupt").await;
    scene.others_go_on().await;

    // A snapshot whose label is cut is none, and the log alone does not reach back far enough: another
    // replica lends what is missing.
    scene.cluster.stop_node(VICTIM).await;
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::write(&tables[0], table).unwrap();
    let bytes = std::fs::read(&label).unwrap();
    std::fs::write(&label, &bytes[..bytes.len() - 1]).unwrap();
    scene.cluster.start_node(VICTIM).await;
    scene.cluster.wait_settled().await;
    scene.others_go_on().await;
}

/// The log is one database for all groups of a node. Damage there is found when it is read: the node
/// does not start, or the groups whose entries are damaged do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_found_and_never_replayed() {
    let mut scene = scene().await;
    let log = scene.cluster.dir.node_dir(VICTIM).join("data").join("log");
    let mut parts = files(&log, ".sst");
    parts.extend(files(&log, ".log").into_iter().filter(|file| std::fs::metadata(file).unwrap().len() > 0));
    assert!(!parts.is_empty(), "{:?}", files(&log, ""));
    parts.iter().for_each(|part| scribble(part));
    match scene.cluster.try_start(VICTIM).await {
        Err(error) => {
            assert_eq!(error.code(), "storage_corrupt", "{error}");
            assert!(error.to_string().contains("log"), "{error}");
            let (alice, bob) = (&scene.homes[0][0], &scene.homes[1][1]);
            scene.bank.client.pay(&alice.key, bob.address, scene.bank.asset, 1, Wait::Applied).await.unwrap();
            assert_eq!(scene.bank.total(scene.homes.iter().flatten()).await, 40_000);
        }
        Ok(()) => {
            let status = scene.victim().await;
            let stopped: Vec<&str> =
                status.replicas.iter().map(|replica| replica.stopped.as_str()).filter(|why| !why.is_empty()).collect();
            assert!(!stopped.is_empty(), "a damaged log was taken: {status:?}");
            assert!(stopped.iter().all(|why| why.contains("storage_corrupt")), "{stopped:?}");
            scene.others_go_on().await;
        }
    }
}

/// State and snapshots both damaged, and a log that no longer goes back to the beginning: the replica
/// comes back under its own name, with its votes, by the command that the message names.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_nothing_left_but_its_log_is_rebuilt_from_the_others() {
    let wanted = Wanted { shards: 1, snapshot_every: Some(100), ..Wanted::default() };
    let mut cluster = TestCluster::start(wanted).await;
    let bank = Bank::open(&cluster.client()).await;
    let wallets = wallets_in_each_shard(&cluster.genesis.layout, "home", 3).remove(0);
    bank.fund(&wallets, 1_000).await;
    let pay = async |number: usize| {
        let (from, to) = (&wallets[number % 3], &wallets[(number + 1) % 3]);
        bank.client.pay(&from.key, to.address, bank.asset, 1, Wait::Receipt).await.unwrap();
    };
    // One entry each: every replica takes several snapshots and purges its log.
    for number in 0..450 {
        pay(number).await;
    }
    cluster.wait_settled().await;
    cluster.stop_node(VICTIM).await;
    let log_of_victim = |cluster: &TestCluster| {
        let resources = storage::SharedResources::new(storage::ResourceLimits::default()).unwrap();
        let identity = storage::LogIdentity { cluster: cluster.genesis.cluster_id().0.0, node: VICTIM.0 };
        let folder = cluster.dir.node_dir(VICTIM).join("data").join("log");
        let engine = storage::LogEngine::open(&folder, &resources, identity).unwrap();
        let log = engine.group(HURT.0, std::sync::Arc::new(storage::PlainCipher)).unwrap();
        (log.read_vote().unwrap(), log.purged_index().unwrap(), log.last().unwrap())
    };
    let promised = log_of_victim(&cluster);
    assert!(promised.0.is_some() && promised.1.is_some(), "{promised:?}");
    for part in ["state", "snapshots"] {
        let found = files(&cluster.data(VICTIM, HURT).join(part), "");
        assert!(!found.is_empty(), "there is no {part} to damage");
        found.iter().for_each(|file| scribble(file));
    }
    let mut scene = Scene { cluster, bank: bank.clone(), homes: Vec::new() };
    scene.cluster.start_node(VICTIM).await;
    scene.says("storage_corrupt").await;

    let config = scene.cluster.dir.node_config(VICTIM);
    let rebuild = |group: &str| -> serde_json::Value {
        let mut command = std::process::Command::new(crate::support::program::program());
        let output = command.args(["node", "rebuild", "--json", "--config"]).arg(&config).arg(group).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(rebuild(&HURT.to_string())["error"]["code"], "rebuild_running");
    scene.cluster.stop_node(VICTIM).await;
    assert_eq!(rebuild("shard-7")["error"]["code"], "rebuild_group");
    let done = rebuild(&HURT.to_string());
    assert_eq!((&done["from"], done["moved"].as_array().unwrap().len()), (&"snapshot".into(), 2), "{done}");
    assert_eq!(log_of_victim(&scene.cluster), promised, "votes and log are not touched");
    assert!(scene.cluster.data(VICTIM, HURT).join("aside-1").join("state").is_dir(), "nothing is removed");

    for number in 450..500 {
        pay(number).await;
    }
    scene.cluster.start_node(VICTIM).await;
    scene.cluster.wait_settled().await;
    let status = scene.cluster.status().await;
    let alarms: Vec<_> = status.nodes.iter().flat_map(|node| &node.alarms).collect();
    assert!(alarms.is_empty(), "{alarms:?}");
    // It votes and acknowledges again, and serves what is right: with another one gone it has to.
    scene.cluster.stop_node(NodeId(1)).await;
    pay(500).await;
    assert_eq!(bank.total(&wallets).await, 3_000);
    // And it signs: without its signature there would be no certificate, and so no proof.
    let asked = bank.client.account(wallets[0].address, Consistency::Linearizable, true);
    let proof = in_time("a proof", asked).await.unwrap().proof.unwrap();
    client::proof::verify(&proof, &scene.cluster.genesis).unwrap();
    scene.cluster.start_node(NodeId(1)).await;
    scene.cluster.stop_node(VICTIM).await;
    scene.cluster.start_node(VICTIM).await;
    scene.cluster.wait_settled().await;
}

/// A log that was cut is no torn write: what the node acknowledged is missing, so it does not take
/// part again as if it had promised nothing. With the file back as it was, it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_what_was_acknowledged_is_not_started_from() {
    let mut scene = scene().await;
    let log = scene.cluster.dir.node_dir(VICTIM).join("data").join("log");
    let mut written = files(&log, ".log").into_iter().filter(|file| std::fs::metadata(file).unwrap().len() > 0);
    let last = written.next_back().expect("a write-ahead log");
    // Opening a log rewrites its folder, so all of it has to be put back.
    let whole: Vec<(PathBuf, Vec<u8>)> =
        files(&log, "").into_iter().map(|file| (file.clone(), std::fs::read(&file).unwrap())).collect();
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    let error = scene.cluster.try_start(VICTIM).await.unwrap_err();
    assert_eq!(error.code(), "storage_truncated", "{error}");
    assert!(error.to_string().contains(".log") && error.to_string().contains("acknowledged"), "{error}");
    let (alice, bob) = (&scene.homes[0][0], &scene.homes[1][1]);
    scene.bank.client.pay(&alice.key, bob.address, scene.bank.asset, 1, Wait::Applied).await.unwrap();
    assert_eq!(scene.bank.total(scene.homes.iter().flatten()).await, 40_000);

    std::fs::remove_dir_all(&log).unwrap();
    for (file, bytes) in whole {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    scene.cluster.start_node(VICTIM).await;
    scene.cluster.wait_settled().await;
}

/// Three members, and payment after payment that only the second and third have: then these two stop.
async fn second_and_third_alone() -> (TestCluster, Bank, Vec<Wallet>) {
    let mut cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let bank = Bank::open(&cluster.client()).await;
    let wallets = wallets_in_each_shard(&cluster.genesis.layout, "home", 2).remove(0);
    bank.fund(&wallets, 1_000).await;
    cluster.wait_settled().await;
    cluster.stop_node(NodeId(1)).await;
    let paid = bank.client.pay(&wallets[0].key, wallets[1].address, bank.asset, 250, Wait::Receipt).await.unwrap();
    assert!(paid.height.0 > 0);
    cluster.stop_node(NodeId(2)).await;
    cluster.stop_node(NodeId(3)).await;
    (cluster, bank, wallets)
}

/// A data folder that is not there, as when its disk is not mounted, is not that of a new node: the
/// node would vote for a member without the payment, and the payment would be gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_data_does_not_come_back_as_a_new_one() {
    let (mut cluster, bank, wallets) = second_and_third_alone().await;
    let folder = cluster.dir.node_dir(VICTIM);
    let (data, away) = (folder.join("data"), folder.join("not-mounted"));
    std::fs::rename(&data, &away).unwrap();
    for made in [false, true] {
        if made {
            // As a mount point is there without what is mounted.
            std::fs::create_dir(&data).unwrap();
        }
        let error = cluster.try_start(VICTIM).await.unwrap_err();
        assert_eq!(error.code(), "storage_log_missing", "{error}");
        assert!(error.to_string().contains("signing.key.started"), "{error}");
        assert!(!data.exists() || files(&data, "").is_empty(), "nothing is made");
    }
    std::fs::remove_dir(&data).unwrap();

    // The log alone is gone, and so is the mark: the states say that there has been one.
    std::fs::rename(&away, &data).unwrap();
    let (log, mark) = (data.join("log"), folder.join("signing.key.started"));
    std::fs::rename(&log, folder.join("log-away")).unwrap();
    std::fs::rename(&mark, folder.join("mark-away")).unwrap();
    let error = cluster.try_start(VICTIM).await.unwrap_err();
    assert_eq!(error.code(), "storage_log_missing", "{error}");
    assert!(error.to_string().contains("state"), "{error}");
    assert!(!log.exists());

    // With everything back, the node does its part, and the payment is there.
    std::fs::rename(folder.join("log-away"), &log).unwrap();
    std::fs::rename(folder.join("mark-away"), &mark).unwrap();
    cluster.start_all().await;
    cluster.wait_settled().await;
    assert_eq!(bank.balances(&[wallets[0].address, wallets[1].address]).await, [750, 1_250]);
}

/// A node that has nothing but its keys cannot know that it has run. The others do, and it takes no part.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_nothing_but_its_keys_does_not_vote_where_it_has_promised() {
    let (mut cluster, bank, wallets) = second_and_third_alone().await;
    let folder = cluster.dir.node_dir(VICTIM);
    let (data, mark) = (folder.join("data"), folder.join("signing.key.started"));
    std::fs::rename(&data, folder.join("data-away")).unwrap();
    std::fs::remove_file(&mark).unwrap();
    cluster.start_node(NodeId(1)).await;
    cluster.start_node(VICTIM).await;
    let lost = async |cluster: &TestCluster, group: GroupId| {
        eventually("the loss is found", async || {
            let stopped = cluster.replica(VICTIM, group).await.stopped;
            if stopped.contains("replica_log_lost") { Ok(()) } else { Err(stopped) }
        })
        .await;
    };
    for group in cluster.groups() {
        lost(&cluster, group).await;
        let first = cluster.replica(NodeId(1), group).await;
        assert!(!first.leads, "a member without the payment was elected");
    }
    // The member that has the payment makes a majority with the first one.
    cluster.start_node(NodeId(3)).await;
    cluster.wait_ready().await;
    assert_eq!(bank.balances(&[wallets[0].address, wallets[1].address]).await, [750, 1_250]);
    lost(&cluster, HURT).await;

    // With its data back it is a member again.
    cluster.stop_node(VICTIM).await;
    std::fs::rename(&data, folder.join("data-of-nobody")).unwrap();
    std::fs::rename(folder.join("data-away"), &data).unwrap();
    cluster.start_node(VICTIM).await;
    cluster.wait_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_folders_that_were_swapped_between_nodes_are_refused() {
    let mut cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    cluster.wait_settled().await;
    cluster.stop_all().await;
    let swap = |one: &Path, other: &Path| {
        let aside = one.with_file_name("aside");
        std::fs::rename(one, &aside).unwrap();
        std::fs::rename(other, one).unwrap();
        std::fs::rename(&aside, other).unwrap();
    };
    let data = |node: u32| cluster.dir.node_dir(NodeId(node)).join("data");
    let (first, second) = (data(1), data(2));
    swap(&first, &second);
    for node in [1, 2] {
        let error = cluster.try_start(NodeId(node)).await.unwrap_err();
        assert_eq!(error.code(), "storage_wrong_node", "{error}");
    }
    swap(&first, &second);
    let state = |node: u32| cluster.data(NodeId(node), HURT).join("state");
    let (first, second) = (state(1), state(2));
    swap(&first, &second);
    cluster.start_node(VICTIM).await;
    let stopped = eventually("the foreign state is found", async || {
        let stopped = cluster.replica(VICTIM, HURT).await.stopped;
        if stopped.is_empty() { Err("it runs") } else { Ok(stopped) }
    })
    .await;
    assert!(stopped.contains("storage_wrong_node"), "{stopped}");
    cluster.stop_node(VICTIM).await;
    swap(&first, &second);
    cluster.start_all().await;
    cluster.wait_settled().await;
}
