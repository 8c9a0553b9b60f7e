//! Members of a Byzantine shard that come and go while customers pay: one joins by a snapshot, since the others' logs begin
//! too late, and all of the first committee are replaced, one after the other, in processes. And two that are drained at once
//! while nobody pays.

use std::sync::Arc;

use beacon::BeaconCommand;
use client::{Client, Wait};
use ledger::{Committee, Engine, GroupId, NodeId, OrgId};
use shard_node::core::marks;
use storage::{LogStore, PlainCipher};

use crate::support::audit::{audit_chains, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::up::Up;

const SHARD: GroupId = GroupId::shard(0);
const FUNDS: u128 = 1_000_000;
/// What is executed between two changes at least.
const MEANWHILE: usize = 200;

/// The members of the shard's committee in force, as a router knows it.
async fn members(client: &Client) -> Result<Vec<NodeId>, String> {
    let reply = client.cluster().await.map_err(|error| error.to_string())?;
    let all = reply.committees.iter().map(|bytes| borsh::from_slice::<Committee>(bytes).unwrap());
    let now = all.into_iter().find(|committee| committee.group == SHARD).ok_or("no committee")?;
    assert_eq!(now.engine, Engine::Bft);
    Ok(now.members.iter().map(|member| member.node).collect())
}

/// Waits until exactly these are the members, and each of them runs the shard and has what the others have.
async fn until_members(client: &Client, wanted: &[NodeId]) {
    eventually("the members run the shard", async || {
        let found = members(client).await?;
        if found != wanted {
            return Err(format!("the members are {found:?}"));
        }
        let status = client.status().await.map_err(|error| error.to_string())?;
        for node in wanted {
            let reply = status.nodes.iter().find(|reply| reply.node == node.0).ok_or("a node does not answer")?;
            let replica = reply.replicas.iter().find(|replica| replica.group == SHARD.0);
            let replica = replica.ok_or_else(|| format!("node {node} does not host the shard"))?;
            if !replica.stopped.is_empty() || replica.engine != "bft" || replica.learners.contains(&node.0) {
                return Err(format!("node {node}: {replica:?}"));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_joins_by_a_snapshot_under_payments_and_then_votes() {
    let wanted = Wanted {
        nodes: 5,
        orgs: Some(5),
        shards: 1,
        replicas: 4,
        engine: Engine::Bft,
        snapshot_every: Some(100),
        ..Wanted::default()
    };
    let mut cluster = TestCluster::start(wanted).await;
    let client = cluster.client();
    let bank = Bank::open(&client).await;
    let wallets = wallets_in_each_shard(&cluster.genesis.layout, "home", 6).remove(0);
    bank.fund(&wallets, FUNDS).await;
    let first: Vec<NodeId> = members(&client).await.unwrap();
    let joins = cluster.node_ids().into_iter().find(|node| !first.contains(node)).unwrap();

    let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
    eventually("nobody's log goes back to the beginning", async || {
        let begins = first.iter().map(|node| {
            let engine = cluster.node(*node).hosted().log.read();
            let log = engine.as_ref().expect("the node runs").group(SHARD.0, Arc::new(PlainCipher)).unwrap();
            log.first_index().unwrap().unwrap_or_default()
        });
        let begins: Vec<u64> = begins.collect();
        if begins.iter().all(|begins| *begins > 1) { Ok(()) } else { Err(format!("they begin at {begins:?}")) }
    })
    .await;
    let leaves = first[0];
    let stays: Vec<NodeId> = first.iter().copied().filter(|node| *node != leaves).collect();
    {
        let org: OrgId = cluster.info(leaves).org;
        let drain = BeaconCommand::SetNodeCapacity { node: leaves, capacity: 0 };
        Consortium::of(&cluster).beacon(org, &drain).await.unwrap();
    }
    let mut now: Vec<NodeId> = stays.iter().copied().chain([joins]).collect();
    now.sort_unstable();
    until_members(&client, &now).await;
    load.next(MEANWHILE).await;
    let replica = cluster.node(joins).hosted().group(SHARD.0).unwrap();
    let installed: Option<ledger::Height> = replica.share.state.load(&marks::installed()).unwrap();
    assert!(installed.is_some(), "node {joins} joined without a snapshot");

    // Without one of the others it is needed for every entry.
    cluster.stop_node(stays[0]).await;
    load.next(MEANWHILE).await;
    cluster.start_node(stays[0]).await;
    until_members(&client, &now).await;
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 2 * MEANWHILE as u64, "{committed}");
    let supply = audit_chains(&client, &cluster.wait_settled().await).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * wallets.len() as u128);
}

/// Nothing is executed while the seats move, and both changes are ordered before the first is done.
#[tokio::test(flavor = "multi_thread")]
async fn two_members_that_are_drained_at_once_leave_an_idle_shard_that_works() {
    let wanted = Wanted { nodes: 6, orgs: Some(6), shards: 1, replicas: 4, engine: Engine::Bft, ..Wanted::default() };
    let mut cluster = TestCluster::start(wanted).await;
    let client = cluster.client();
    let bank = Bank::open(&client).await;
    let wallets = wallets_in_each_shard(&cluster.genesis.layout, "home", 2).remove(0);
    bank.fund(&wallets, FUNDS).await;
    let first: Vec<NodeId> = members(&client).await.unwrap();
    let (leave, stay) = first.split_at(2);
    for node in leave.iter().copied() {
        let drain = BeaconCommand::SetNodeCapacity { node, capacity: 0 };
        Consortium::of(&cluster).beacon(cluster.info(node).org, &drain).await.unwrap();
    }
    let now: Vec<NodeId> = cluster.node_ids().into_iter().filter(|node| !leave.contains(node)).collect();
    until_members(&client, &now).await;

    let mut load = Load::start(&bank, &wallets[..1], &wallets[1..], 4).await;
    load.next(1).await;
    // Without one of the others, nothing is decided without both that have joined.
    cluster.stop_node(stay[0]).await;
    load.next(1).await;
    cluster.start_node(stay[0]).await;
    until_members(&client, &now).await;
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 2, "{committed}");
    let supply = audit_chains(&client, &cluster.wait_settled().await).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * wallets.len() as u128);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_the_first_committee_is_replaced_under_payments() {
    let options = ["--consensus", "bft", "--beacon-consensus", "raft", "--replicas", "4", "--orgs", "4"];
    let mut up = Up::start_with(4, 1, &options).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let genesis = client.genesis().clone();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> = wallets_in_each_shard(&genesis.layout, "home", 8).into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;
    let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
    load.next(MEANWHILE).await;

    let mut now = members(&client).await.unwrap();
    let first = now.clone();
    for old in first.iter().copied() {
        let new = NodeId(old.0 + 4);
        let org = genesis.node(old).unwrap().org;
        let org = &genesis.orgs.iter().find(|known| known.id == org).unwrap().name;
        up.add_node(new, org).await;
        let replaced = up.told(&format!("node replace {old} {new} --wait 120"));
        assert_eq!((&replaced["state"], &replaced["missing"]), (&"done".into(), &serde_json::json!([])), "{replaced}");
        now.retain(|node| *node != old);
        now.push(new);
        now.sort_unstable();
        until_members(&client, &now).await;
        load.next(MEANWHILE).await;
    }
    assert!(first.iter().all(|node| !now.contains(node)), "{now:?}");

    // None of the first is needed any more, and one of the others may be missing.
    up.kill(now[0]).await;
    load.next(MEANWHILE).await;
    up.restart(now[0]);
    until_members(&client, &now).await;
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 6 * MEANWHILE as u64, "{committed}");
    let heights = up.settled(&client, &[GroupId::BEACON, SHARD]).await;
    let supply = audit_chains(&client, &heights).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * wallets.len() as u128);
    // A client that knows the genesis alone believes what the last committee signs.
    client.pay(&wallets[0].key, wallets[1].address, bank.asset, 1, Wait::Applied).await.unwrap();
    let proved = client.account(wallets[1].address, client::Consistency::Linearizable, true).await.unwrap();
    let file = proved.proof.unwrap();
    client::proof::verify(&file, &genesis).unwrap();
    assert!(file.handovers.len() >= first.len(), "{} hand-overs", file.handovers.len());
}
