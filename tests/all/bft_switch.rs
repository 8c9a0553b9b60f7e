//! A shard of three that a majority orders becomes one of four that bears a member that lies, and one of three again, while
//! customers pay. Nodes are processes, and whoever goes over first is killed at once.

use std::process::{Command, Stdio};

use client::Client;
use ledger::{Committee, Engine, GroupId, NodeId};
use seamark_cli::history::bitcoin_block;
use serde_json::Value;

use crate::support::audit::{audit_chains, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::program::program;
use crate::support::up::Up;

const NODES: u32 = 4;
const SHARD: GroupId = GroupId::shard(0);
const FUNDS: u128 = 100_000;

/// Four nodes of four organisations. The fourth has no seat in the shard before the engine needs one more.
async fn three_of_four() -> Up {
    Up::start_with(NODES, 1, &["--replicas", "3", "--orgs", "4"]).await
}

/// Asks for another engine in the name of an organisation, with these further arguments; what the program says.
fn consensus(up: &Up, engine: Engine, more: &[&str]) -> Value {
    let output = Command::new(program())
        .args(["group", "consensus", "shard-0", engine.name(), "--json"])
        .args(more)
        .env("SEAMARK_DIR", &up.dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{more:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Has more than half of the organisations ask for another engine. Returns when the last of them has.
fn switch(up: &Up, engine: Engine) {
    for org in ["org-a", "org-b", "org-c"] {
        consensus(up, engine, &["--as", org, "--wait", "0"]);
    }
}

/// The nodes with a replica of the shard, ascending, and whether each runs this engine.
async fn replicas(client: &Client, engine: Engine) -> Result<Vec<(NodeId, bool)>, String> {
    let status = client.status().await.map_err(|error| error.to_string())?;
    let replicas = status.nodes.iter().filter_map(|node| {
        let replica = node.replicas.iter().find(|replica| replica.group == SHARD.0)?;
        Some((NodeId(node.node), replica.engine == engine.name() && replica.stopped.is_empty()))
    });
    let mut replicas: Vec<(NodeId, bool)> = replicas.collect();
    replicas.sort_unstable();
    Ok(replicas)
}

/// Waits until a replica of the shard runs this engine.
async fn first_under(client: &Client, engine: Engine) -> NodeId {
    eventually("a replica runs the engine", async || {
        let replicas = replicas(client, engine).await?;
        let first = replicas.iter().find(|(_, runs)| *runs).map(|(node, _)| *node);
        first.ok_or_else(|| format!("{engine} runs on none of {replicas:?}"))
    })
    .await
}

/// Waits until the committee in force has so many members under this engine, all of them run it, and nobody else has a
/// replica of the shard any more. Returns the members.
async fn all_under(client: &Client, engine: Engine, members: usize) -> Vec<NodeId> {
    eventually("the members, and they alone, run the engine", async || {
        let cluster = client.cluster().await.map_err(|error| error.to_string())?;
        let known = cluster.committees.iter().map(|bytes| borsh::from_slice::<Committee>(bytes).unwrap());
        let current = known.into_iter().find(|committee| committee.group == SHARD).ok_or("no committee")?;
        let seats: Vec<NodeId> = current.members.iter().map(|member| member.node).collect();
        let wanted: Vec<(NodeId, bool)> = seats.iter().map(|node| (*node, true)).collect();
        let replicas = replicas(client, engine).await?;
        if (current.engine, seats.len()) == (engine, members) && replicas == wanted {
            return Ok(seats);
        }
        Err(format!("{seats:?} have seats under {}, and {engine} runs as {replicas:?} says", current.engine))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_payment_fails_when_the_engine_changes_and_whoever_changes_first_is_killed() {
    let mut up = three_of_four().await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let genesis = client.genesis().clone();
    let groups: Vec<GroupId> = genesis.committees.iter().map(|committee| committee.group).collect();
    assert_eq!(genesis.committee(SHARD).unwrap().members.len(), 3);
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> = wallets_in_each_shard(&genesis.layout, "home", 8).into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;

    let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
    load.next(100).await;
    let mut seats = Vec::new();
    for (engine, members) in [(Engine::Bft, 4), (Engine::Raft, 3)] {
        let said = consensus(&up, engine, &["--dry-run"]);
        let before = std::mem::take(&mut seats);
        switch(&up, engine);
        let first = first_under(&client, engine).await;
        up.kill(first).await;
        // Those who are left go over without it, and go on.
        load.next(200).await;
        up.restart(first);
        seats = all_under(&client, engine, members).await;
        load.next(100).await;
        // As it was said beforehand.
        assert_eq!((&said["then"]["members"], &said["steps"]), (&Value::from(members), &Value::from(2)));
        let gone: Vec<u32> = before.iter().filter(|node| !seats.contains(node)).map(|node| node.0).collect();
        assert_eq!(said["leaving"], Value::from(gone));
    }
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 700, "{committed}");
    let heights = up.settled(&client, &groups).await;
    let supply = audit_chains(&client, &heights).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * wallets.len() as u128);
    assert_eq!(bank.total(&wallets).await, supply.held);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_data_has_the_one_right_state_although_the_engine_changes_twice_meanwhile() {
    let up = three_of_four().await;
    let client = Client::connect(&up.profile()).await.unwrap();
    // The transfers of `demo`.
    let history = bitcoin_block::mainnet_702861().unwrap();
    let name = |account| history.accounts.name(account);
    let rows = history.transfers.iter().map(|one| format!("{},{},{}\n", name(one.from), name(one.to), one.amount));
    let file = up.dir.join("block-702861.csv");
    std::fs::write(&file, format!("from,to,amount\n{}", rows.collect::<String>())).unwrap();

    // Slow enough that both changes come while it runs.
    let replay = Command::new(program())
        .args(["replay", "--json", "--rate", "150", "--dir"])
        .args([&up.dir, &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let replaying = tokio::task::spawn_blocking(move || replay.wait_with_output().unwrap());
    switch(&up, Engine::Bft);
    all_under(&client, Engine::Bft, 4).await;
    switch(&up, Engine::Raft);
    let three = all_under(&client, Engine::Raft, 3).await;
    assert!(!replaying.is_finished(), "the history has ended before the engines changed");
    let output = replaying.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["committed"], &report["rejected"]), (&Value::from(5992), &Value::from(0)));
    assert_eq!((&report["conserved"], &report["replicas_agree"]), (&Value::from(true), &Value::from(true)));
    // As on a cluster of its own that never changes its engine, at full speed.
    let alone = Command::new(program()).args(["replay", "--json"]).arg(&file).output().unwrap();
    let plain: Value = serde_json::from_slice(&alone.stdout).unwrap();
    assert_eq!(plain["committed"], 5992);
    assert_eq!(report["state_sha256"], plain["state_sha256"]);
    assert_eq!(all_under(&client, Engine::Raft, 3).await, three, "and nothing has changed since");
}
