//! A disk without room under one node: its groups stop with a code that says what to do, the cluster
//! goes on with its majority, and with room again the node comes back and catches up.

use std::process::Command;

use client::{Client, Wait};
use ledger::NodeId;
use proto::v1;
use serde_json::Value;

use crate::support::audit::{audit, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::program::{Process, as_node, program};
use crate::support::small_disk::SmallDisk;

const VICTIM: NodeId = NodeId(3);
const DISK_BYTES: u64 = 16 << 20;
const FUNDS: u128 = 100_000;

/// The victim in a process that sees the small disk as its data folder.
fn start(cluster: &TestCluster, disk: &SmallDisk) -> Process {
    let command = as_node(disk.command(program()), &cluster.dir.node_config(VICTIM));
    Process::start(command, &cluster.dir.node_dir(VICTIM).join("node.log"))
}

async fn victim(client: &Client) -> Result<v1::NodeStatusReply, String> {
    let status = client.status().await.map_err(|error| error.to_string())?;
    status.nodes.into_iter().find(|node| node.node == VICTIM.0).ok_or_else(|| "it does not answer".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_groups_of_its_node_and_nothing_is_lost() {
    // Snapshots are frequent, so that the disk may be found full by the log or by a checkpoint.
    let mut cluster = TestCluster::prepare(&Wanted { snapshot_every: Some(200), ..Wanted::default() });
    let disk = SmallDisk::mount(&cluster.dir.node_dir(VICTIM).join("data"), DISK_BYTES).await;
    let mut process = start(&cluster, &disk);
    cluster.set_elsewhere(&[VICTIM]);
    for node in cluster.node_ids().into_iter().filter(|node| *node != VICTIM) {
        cluster.start_node(node).await;
    }
    cluster.wait_ready().await;
    let client = cluster.client();
    let bank = Bank::open(&client).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 4);
    let wallets: Vec<Wallet> = homes.iter().flatten().cloned().collect();
    bank.fund(&wallets, FUNDS).await;
    let payer = wallet("payer", 0);
    bank.fund([&payer], 1).await;
    let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
    load.next(300).await;
    let before = victim(&client).await.unwrap();
    assert_eq!(before.replicas.len(), 3);
    assert!(before.replicas.iter().all(|replica| replica.stopped.is_empty() && replica.height > 0), "{before:?}");

    // Everything there is on this disk stops, as soon as it needs room, and says why.
    let stopped = eventually("every group of the node stops", async || {
        disk.fill();
        process.assert_runs();
        let status = victim(&client).await?;
        let goes_on = status.replicas.iter().find(|replica| replica.stopped.is_empty());
        goes_on.map_or(Ok(status.clone()), |replica| Err(format!("{replica:?}")))
    })
    .await;
    for replica in &stopped.replicas {
        for part in ["storage_disk_full", "the disk is full", "Free or add space", "restart the node"] {
            assert!(replica.stopped.contains(part), "{part}: {}", replica.stopped);
        }
    }
    // The cluster goes on, also over the router of the node that cannot.
    load.next(300).await;
    let over = cluster.client_of(VICTIM);
    over.pay(&payer.key, wallet("payee", 0).address, bank.asset, 1, Wait::Applied).await.unwrap();
    assert!(says_what_to_do(&cluster), "'seamark status' does not name the full disk");

    // It stops when asked to, and does not start again before there is room.
    let ended = process.terminate();
    assert!(ended.success(), "{ended}: {}", process.said());
    disk.fill();
    process = start(&cluster, &disk);
    let refused = process.wait().expect("a node without room to start ends by itself");
    assert!(!refused.success());
    assert!(process.said().contains("error[storage_disk_full]"), "{}", process.said());
    disk.free();
    process = start(&cluster, &disk);
    load.next(300).await;
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 900, "{committed}");
    let supply = audit(&cluster).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * 8 + 1);
    process.assert_runs();
}

/// Whether `seamark status --check` fails and tells an operator which node, why, and what to do.
fn says_what_to_do(cluster: &TestCluster) -> bool {
    let output = Command::new(program())
        .args(["status", "--check", "--json", "--dir"])
        .arg(cluster.dir.root())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap();
    let named = problems.iter().filter_map(Value::as_str).any(|problem| {
        problem.contains(&format!("has stopped on node {VICTIM}"))
            && problem.contains("storage_disk_full")
            && problem.contains("Free or add space")
    });
    named && !output.status.success()
}
