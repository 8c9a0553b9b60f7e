//! A shard of three that a majority orders becomes one of four that bears a member that lies, and one of three again, while
//! customers pay; and so does the beacon, which everybody follows who has the genesis alone. Nodes are processes. Whoever
//! goes over first is killed at once, and before that whoever leads, or joins for the engine to come.

use std::process::{Command, Stdio};

use client::proof::verify;
use client::{Client, Settled, Wait};
use ledger::limits::MOVES_MAX;
use ledger::{AssetSpec, Committee, Engine, GroupId, LedgerId, Move, NodeId, TxId};
use seamark_cli::history::bitcoin_block;
use serde_json::Value;

use crate::elastic_faults::leader;
use crate::support::audit::{audit_chains, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, wallet, wallets_in_each_shard};
use crate::support::cluster::base_port;
use crate::support::customers::Customers;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::program::program;
use crate::support::router::Router;
use crate::support::swaps::Swaps;
use crate::support::up::Up;

const NODES: u32 = 4;
const SHARD: GroupId = GroupId::shard(0);
const BEACON: GroupId = GroupId::BEACON;
/// More than half of four, and of five.
const ORGS: [&str; 3] = ["org-a", "org-b", "org-c"];
const FUNDS: u128 = 100_000;
/// Couples of payers who swap, one of each in either shard.
const COUPLES: usize = 2;
/// Transfers of real data that are executed between two changes at least.
const TRANSFERS: u64 = 100;

/// Four nodes of four organisations. One of them has no seat in a shard before its engine needs one more.
async fn three_of_four(shards: u32) -> Up {
    Up::start_with(NODES, shards, &["--replicas", "3", "--orgs", "4"]).await
}

/// Asks for another engine in the name of an organisation, with these further arguments; what the program says.
fn consensus(up: &Up, group: GroupId, engine: Engine, more: &[&str]) -> Value {
    let output = Command::new(program())
        .args(["group", "consensus", &group.to_string(), engine.name(), "--json"])
        .args(more)
        .env("SEAMARK_DIR", &up.dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{more:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Has more than half of the organisations ask for another engine. Returns when the last of them has.
fn switch(up: &Up, group: GroupId, engine: Engine) {
    ask(up, group, engine, &ORGS);
}

/// Has these organisations ask for another engine. What the program says to the last of them.
fn ask(up: &Up, group: GroupId, engine: Engine, orgs: &[&str]) -> Value {
    let mut said = Value::Null;
    for org in orgs {
        said = consensus(up, group, engine, &["--as", org, "--wait", "0"]);
    }
    said
}

/// The nodes with a replica of a group, ascending, and whether each runs this engine.
async fn replicas(client: &Client, group: GroupId, engine: Engine) -> Result<Vec<(NodeId, bool)>, String> {
    let status = client.status().await.map_err(|error| error.to_string())?;
    let replicas = status.nodes.iter().filter_map(|node| {
        let replica = node.replicas.iter().find(|replica| replica.group == group.0)?;
        Some((NodeId(node.node), replica.engine == engine.name() && replica.stopped.is_empty()))
    });
    let mut replicas: Vec<(NodeId, bool)> = replicas.collect();
    replicas.sort_unstable();
    Ok(replicas)
}

/// What the nodes say of their replicas of a group, for whoever wonders why one of them is not what it should be.
async fn said(client: &Client, group: GroupId) -> String {
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => return error.to_string(),
    };
    let replicas = status.nodes.iter().flat_map(|node| node.replicas.iter().map(move |replica| (node.node, replica)));
    let said = replicas.filter(|(_, replica)| replica.group == group.0).map(|(node, replica)| {
        format!(
            "node {node} runs {:?} in term {}, at block {}, with {} of {} entries applied, under node {}, without a vote {:?}, \
             stopped by {:?}",
            replica.engine,
            replica.term,
            replica.height,
            replica.log_applied,
            replica.log_last,
            replica.leader_node,
            replica.learners,
            replica.stopped
        )
    });
    said.collect::<Vec<String>>().join("; ")
}

/// The nodes with a seat, ascending.
pub fn seats(committee: &Committee) -> Vec<NodeId> {
    committee.members.iter().map(|member| member.node).collect()
}

/// Waits until a replica of a group runs this engine.
async fn first_under(client: &Client, group: GroupId, engine: Engine) -> NodeId {
    eventually("a replica runs the engine", async || {
        let replicas = replicas(client, group, engine).await?;
        let first = replicas.iter().find(|(_, runs)| *runs).map(|(node, _)| *node);
        first.ok_or_else(|| format!("{engine} runs on none of {replicas:?}"))
    })
    .await
}

/// Waits until the committee in force has so many members under this engine, all of them run it, and nobody else has a
/// replica of the group any more. Returns the committee.
pub async fn all_under(client: &Client, group: GroupId, engine: Engine, members: usize) -> Committee {
    eventually("the members, and they alone, run the engine", async || {
        let cluster = client.cluster().await.map_err(|error| error.to_string())?;
        let known = cluster.committees.iter().map(|bytes| borsh::from_slice::<Committee>(bytes).unwrap());
        let current = known.into_iter().find(|committee| committee.group == group).ok_or("no committee")?;
        let seats = seats(&current);
        let wanted: Vec<(NodeId, bool)> = seats.iter().map(|node| (*node, true)).collect();
        let replicas = replicas(client, group, engine).await?;
        if (current.engine, seats.len()) == (engine, members) && replicas == wanted {
            return Ok(current);
        }
        let said = said(client, group).await;
        Err(format!("{seats:?} have seats under {}, and {engine} runs as {replicas:?} says: {said}", current.engine))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_payment_fails_when_the_engine_changes_and_whoever_changes_first_is_killed() {
    // The other shard stays as it is: half of the payments go from one to the other, and swaps are voted on by both.
    let mut up = three_of_four(2).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let genesis = client.genesis().clone();
    let groups: Vec<GroupId> = genesis.committees.iter().map(|committee| committee.group).collect();
    assert_eq!(genesis.committee(SHARD).unwrap().members.len(), 3);
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> = wallets_in_each_shard(&genesis.layout, "home", 4).into_iter().flatten().collect();
    let couples = wallets_in_each_shard(&genesis.layout, "swap", COUPLES);
    let everybody: Vec<Wallet> = wallets.iter().chain(couples.iter().flatten()).cloned().collect();
    bank.fund(&everybody, FUNDS).await;

    let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
    let mut swaps = Swaps::start(&bank, &couples[0], &couples[1]).await;
    load.next(100).await;
    swaps.next().await;
    let mut seated = Vec::new();
    for (engine, members) in [(Engine::Bft, 4), (Engine::Raft, 3)] {
        let said = consensus(&up, SHARD, engine, &["--dry-run"]);
        let before = std::mem::take(&mut seated);
        switch(&up, SHARD, engine);
        let first = first_under(&client, SHARD, engine).await;
        up.kill(first).await;
        // Those who are left go over without it, and go on.
        load.next(200).await;
        swaps.next().await;
        up.restart(first);
        seated = seats(&all_under(&client, SHARD, engine, members).await);
        // The other shard, too, can do without the next one that is killed.
        up.whole(&client, &groups).await;
        load.next(100).await;
        swaps.next().await;
        // As it was said beforehand.
        assert_eq!((&said["then"]["members"], &said["steps"]), (&Value::from(members), &Value::from(2)));
        let gone: Vec<u32> = before.iter().filter(|node| !seated.contains(node)).map(|node| node.0).collect();
        assert_eq!(said["leaving"], Value::from(gone));
    }
    swaps.end().await;
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 700, "{committed}");
    let heights = up.settled(&client, &groups).await;
    let supply = audit_chains(&client, &heights).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * everybody.len() as u128);
    assert_eq!(bank.total(&everybody).await, supply.held);
}

/// Waits until the shard knows a node that is to join it: as a learner, or as the voter that it is a moment later.
async fn joins(client: &Client, node: NodeId) {
    eventually("the shard knows who joins", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let mut replicas = status.nodes.iter().flat_map(|node| &node.replicas).filter(|one| one.group == SHARD.0);
        let known = replicas.any(|one| one.learners.contains(&node.0) || one.voters.contains(&node.0));
        if known { Ok(()) } else { Err(format!("nobody names node {node}")) }
    })
    .await;
}

/// Whom to kill before a switch is there.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The node that takes the seat which the engine needs, as soon as the shard knows it.
    Joiner,
    /// The leader, as soon as the organisation that decides has its answer.
    Leader,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_goes_on_when_whoever_joins_or_leads_is_killed_before_it_is_there() {
    let mut up = three_of_four(1).await;
    let customers = Customers::of(&up, 8, FUNDS).await;
    let (client, groups) = (&customers.client, &customers.groups);
    let mut load = customers.pay(32).await;
    load.next(100).await;
    let rounds =
        [(Engine::Bft, 4, Victim::Joiner), (Engine::Raft, 3, Victim::Leader), (Engine::Bft, 4, Victim::Leader)];
    for (engine, members, victim) in rounds {
        let said = consensus(&up, SHARD, engine, &["--dry-run"]);
        let (last, others) = ORGS.split_last().expect("somebody decides");
        assert_eq!(ask(&up, SHARD, engine, others)["state"], "pending");
        let leads = leader(client, SHARD).await;
        assert_eq!(ask(&up, SHARD, engine, &[*last])["state"], "under_way");
        let victim = match victim {
            Victim::Leader => leads,
            Victim::Joiner => {
                let node: u32 = serde_json::from_value(said["joining"][0].clone()).unwrap();
                joins(client, NodeId(node)).await;
                NodeId(node)
            }
        };
        up.kill(victim).await;
        // Whoever is left goes on, with the change or without it.
        load.next(100).await;
        up.restart(victim);
        let committee = all_under(client, SHARD, engine, members).await;
        assert_eq!(said["then"]["members"], committee.members.len());
        up.whole(client, groups).await;
        load.next(100).await;
    }
    customers.end(&mut up, load, 700).await;
}

/// Waits until the shard has executed more transactions than these. How many it has.
async fn executed(client: &Client, than: u64) -> u64 {
    eventually("the shard executes", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let replicas = status.nodes.iter().flat_map(|node| &node.replicas).filter(|replica| replica.group == SHARD.0);
        let executed = replicas.map(|replica| replica.transactions).max().unwrap_or_default();
        if executed > than { Ok(executed) } else { Err(format!("{executed} transactions, and not more than {than}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_waits_for_its_fourth_node_is_shown_and_is_taken_back_by_asking_for_the_engine_in_force() {
    let mut up = three_of_four(1).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let three = client.genesis().committee(SHARD).unwrap().clone();
    let fourth =
        client.genesis().nodes.iter().map(|node| node.id).find(|node| three.index_of(*node).is_none()).unwrap();
    // It is to take a seat, and cannot show that it is ready.
    up.kill(fourth).await;
    eventually("the beacon has a leader", async || {
        client.evidence(BEACON).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let before = consensus(&up, SHARD, Engine::Bft, &["--dry-run"]);
    assert_eq!((&before["state"], &before["under_way"]), (&"dry_run".into(), &Value::Null));
    switch(&up, SHARD, Engine::Bft);
    let waits = consensus(&up, SHARD, Engine::Bft, &["--dry-run"]);
    assert_eq!((&waits["now"]["engine"], &waits["under_way"]), (&"raft".into(), &"bft".into()), "{waits}");

    let back = consensus(&up, SHARD, Engine::Raft, &["--dry-run"]);
    assert_eq!((&back["state"], &back["under_way"], &back["steps"]), (&"dry_run".into(), &"bft".into(), &0.into()));
    let said = ["org-a", "org-b", "org-c"]
        .map(|org| consensus(&up, SHARD, Engine::Raft, &["--as", org, "--wait", "120"])["state"].clone());
    assert_eq!(said, ["pending", "pending", "in_force"], "as many as wanted the switch take it back");
    let after = consensus(&up, SHARD, Engine::Bft, &["--dry-run"]);
    assert_eq!((&after["state"], &after["under_way"]), (&"dry_run".into(), &Value::Null), "nothing is under way");
    up.restart(fourth);
    assert_eq!(all_under(&client, SHARD, Engine::Raft, 3).await, three, "no committee has come meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_data_has_the_one_right_state_although_the_engine_changes_twice_meanwhile() {
    let up = three_of_four(1).await;
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
    // What is executed first are mints for so many accounts at a time: more than all of them are transfers.
    let mints = history.accounts.len().div_ceil(MOVES_MAX) as u64;
    let begun = executed(&client, mints).await;
    executed(&client, begun + TRANSFERS).await;
    switch(&up, SHARD, Engine::Bft);
    all_under(&client, SHARD, Engine::Bft, 4).await;
    let under_bft = executed(&client, begun + TRANSFERS).await;
    executed(&client, under_bft + TRANSFERS).await;
    switch(&up, SHARD, Engine::Raft);
    let three = all_under(&client, SHARD, Engine::Raft, 3).await;
    let under_raft = executed(&client, under_bft + TRANSFERS).await;
    executed(&client, under_raft + TRANSFERS).await;
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
    assert_eq!(all_under(&client, SHARD, Engine::Raft, 3).await, three, "and nothing has changed since");
}

/// Has the beacon issue a further asset, and waits until all shards know it. The transaction that did it.
async fn issue(client: &Client, number: u32) -> TxId {
    let issuer = wallet("issuer of the beacon", number);
    let spec = AssetSpec { issuer: issuer.address, symbol: "XAU".into(), name: "Gold".into(), decimals: 3 };
    let moves = vec![(LedgerId::BEACON, Move::Issue(spec))];
    match client.execute(moves, b"", &[&issuer.key], Wait::Applied).await.unwrap() {
        Settled::Receipt(receipt) => receipt.txid,
        votes @ Settled::Votes { .. } => panic!("the beacon alone issues: {votes:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beacon_changes_its_engine_and_whoever_has_the_genesis_alone_follows_it_there() {
    // The fifth has no seat in the beacon under either engine.
    let mut up = Up::start_with(5, 1, &["--replicas", "3", "--orgs", "5"]).await;
    let customers = Customers::of(&up, 8, FUNDS).await;
    let (client, groups, genesis) = (&customers.client, &customers.groups, customers.client.genesis());
    let nodes: Vec<NodeId> = genesis.nodes.iter().map(|node| node.id).collect();
    assert_eq!(genesis.committee(BEACON).unwrap().members.len(), 3);

    let mut load = customers.pay(32).await;
    load.next(100).await;
    for (round, (engine, members)) in (0..).zip([(Engine::Bft, 4), (Engine::Raft, 3)]) {
        let said = consensus(&up, BEACON, engine, &["--dry-run"]);
        assert_eq!((&said["then"]["members"], &said["steps"]), (&Value::from(members), &Value::from(2)));
        switch(&up, BEACON, engine);
        let first = first_under(client, BEACON, engine).await;
        up.kill(first).await;
        // Those who are left go over without it, and the shard takes what they issue.
        issue(client, 2 * round).await;
        load.next(100).await;
        up.restart(first);
        let committee = all_under(client, BEACON, engine, members).await;

        // A router that has the genesis alone finds the committee of today, and a customer of it is shown what that
        // committee has certified.
        let router = Router::start(&up.dir, base_port(1)).await;
        let mut profile = up.profile();
        profile.routers = vec![router.endpoint.clone()];
        let customer = Client::connect(&profile).await.unwrap();
        let txid = issue(&customer, 2 * round + 1).await;
        let answer = eventually("the proof", async || customer.transaction(txid, Some(BEACON), true).await).await;
        let proof = answer.proof.unwrap();
        assert_eq!(proof.committee, committee);
        assert_eq!(proof.handovers.len() as u64, committee.epoch.0, "a step for each committee since the genesis");
        verify(&proof, genesis).unwrap();
        drop(router);

        // All stop at once, and one without a seat there forgets what it has followed.
        let forgets = *nodes.iter().rfind(|node| committee.index_of(**node).is_none()).unwrap();
        let kept = |file: &str| up.dir.join(format!("nodes/node-{forgets}/data/{file}"));
        let files = [kept("registry"), kept("beacon-handovers")];
        let followed = async |what: &str| {
            eventually(what, async || if files.iter().all(|file| file.exists()) { Ok(()) } else { Err("not yet") })
                .await;
        };
        followed("the node has kept what it follows").await;
        for node in &nodes {
            up.kill(*node).await;
        }
        for file in &files {
            std::fs::remove_file(file).unwrap();
        }
        for node in &nodes {
            up.restart(*node);
        }
        up.whole(client, groups).await;
        followed("it has followed the beacon again").await;
        load.next(100).await;
        assert_eq!(all_under(client, BEACON, engine, members).await, committee, "nothing has changed since");
    }
    customers.end(&mut up, load, 500).await;
}
