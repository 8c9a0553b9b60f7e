//! Nodes that go and come back: what was acknowledged is still there, once, and service returns.

use std::sync::Arc;

use bytes::Bytes;
use client::Wait;
use ledger::{GroupId, NodeId, SignedTx};
use storage::{LogStore, PlainCipher};

use crate::support::audit::{audit, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, body, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::eventually;
use crate::support::load::Load;

const FUNDS: u128 = 100_000;

async fn funded(wanted: Wanted) -> (TestCluster, Bank, Vec<Wallet>) {
    funded_on(TestCluster::start(wanted).await).await
}

async fn funded_on(cluster: TestCluster) -> (TestCluster, Bank, Vec<Wallet>) {
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 3);
    let wallets: Vec<Wallet> = homes.into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;
    (cluster, bank, wallets)
}

async fn roots(cluster: &TestCluster) -> Vec<(u64, Bytes)> {
    let mut roots = Vec::new();
    for group in cluster.groups() {
        let replica = cluster.replica(cluster.genesis.committee(group).unwrap().members[0].node, group).await;
        roots.push((replica.height, replica.state_root));
    }
    roots
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_stopped_as_a_whole_goes_on_where_it_was() {
    let (mut cluster, bank, wallets) = funded(Wanted::default()).await;
    let (alice, bob) = (&wallets[0], &wallets[5]);
    let mv = bank.pay(alice, bob.address, 250);
    let tx = SignedTx::sign(&body(bank.client.cluster_id(), 1, [mv]), &[&alice.key]).encode();
    let receipt = bank.client.submit_and_wait(tx.clone(), Wait::Applied).await.unwrap();

    for _ in 0..2 {
        cluster.wait_settled().await;
        let before = roots(&cluster).await;
        cluster.stop_all().await;
        cluster.start_all().await;
        cluster.wait_settled().await;
        let after = roots(&cluster).await;
        for ((height, root), (height_after, root_after)) in before.iter().zip(&after) {
            assert!(height_after >= height, "a group went back from {height} to {height_after}");
            if height == height_after {
                assert_eq!(root, root_after);
            }
        }
        // Old outcomes are found, also by sending the same bytes, also when asked whether the credits
        // have been applied.
        let client = cluster.client();
        assert_eq!(client.transaction(receipt.txid(), None, true).await.unwrap().value.as_ref(), receipt.receipt());
        assert_eq!(client.submit(tx.clone()).await.unwrap(), receipt);
        assert_eq!(client.submit_and_wait(tx.clone(), Wait::Applied).await.unwrap(), receipt);
        client.pay(&bob.key, alice.address, bank.asset, 1, Wait::Applied).await.unwrap();
    }
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [FUNDS - 248, FUNDS + 248]);
    let supply = audit(&cluster).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_restart_one_after_another_under_load_and_nothing_is_lost() {
    let (mut cluster, bank, wallets) = funded(Wanted::default()).await;
    let mut load = Load::start(&bank, &wallets, &wallets, 32).await;
    load.next(100).await;
    for node in cluster.node_ids() {
        cluster.stop_node(node).await;
        load.next(100).await;
        cluster.start_node(node).await;
        // The next one goes only when this one carries its groups again.
        caught_up(&cluster, node).await;
        load.next(100).await;
    }
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(committed >= 700, "{committed}");
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    let supply = audit(&cluster).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * 6);
    assert_eq!(bank.total(&wallets).await, FUNDS * 6);
}

/// Waits until a node's replicas have reached what the others had when this was called.
async fn caught_up(cluster: &TestCluster, node: NodeId) {
    let status = cluster.status().await;
    for group in cluster.groups() {
        let all = status.nodes.iter().flat_map(|node| &node.replicas).filter(|replica| replica.group == group.0);
        let target = all.map(|replica| replica.height).max().unwrap();
        eventually("a replica catches up", async || {
            let height = cluster.replica(node, group).await.height;
            if height >= target { Ok(()) } else { Err(format!("{group} on node {node} is at {height} of {target}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_of_a_shard_leaves_payments_go_on_and_none_is_doubled() {
    let (mut cluster, bank, wallets) = funded(Wanted::default()).await;
    let (payers, payees) = wallets.split_at(3);
    let mut load = Load::start(&bank, payers, payees, 32).await;
    load.next(100).await;
    for group in [GroupId::shard(0), GroupId::shard(1), GroupId::BEACON] {
        let leader = cluster.leader(group).await;
        cluster.stop_node(leader).await;
        load.next(100).await;
        cluster.start_node(leader).await;
        caught_up(&cluster, leader).await;
    }
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(committed >= 400, "{committed}");
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    audit(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_that_missed_more_than_the_log_keeps_catches_up_by_snapshot() {
    let wanted = Wanted { shards: 1, snapshot_every: Some(100), ..Wanted::default() };
    let shard = GroupId::shard(0);
    let behind = NodeId(3);
    // The one that falls behind is a process, so that it can be killed: nothing of it is flushed.
    let mut cluster = TestCluster::prepare(&wanted);
    let mut process = cluster.start_process(behind);
    cluster.set_elsewhere(&[behind]);
    for node in [NodeId(1), NodeId(2)] {
        cluster.start_node(node).await;
    }
    cluster.wait_ready().await;
    let (mut cluster, bank, wallets) = funded_on(cluster).await;
    let databases = |cluster: &TestCluster| -> Vec<String> {
        let folder = std::fs::read_dir(cluster.data(behind, shard).join("state")).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("db-")).collect()
    };
    cluster.wait_settled().await;
    process.kill();
    cluster.set_elsewhere(&[]);
    let old = databases(&cluster);
    // The last entry that it can have, by the log of those who stay.
    let log = |cluster: &TestCluster, node| {
        let engine = cluster.node(node).hosted().log.read();
        engine.as_ref().expect("the node runs").group(shard.0, Arc::new(PlainCipher)).unwrap()
    };
    let stay = [NodeId(1), NodeId(2)];
    let known = stay.map(|node| log(&cluster, node).last().unwrap().map_or(0, |(index, _)| index));
    let known = known.into_iter().max().unwrap_or_default();

    // One entry each: the others snapshot and purge several times.
    for number in 0..450usize {
        let (from, to) = (&wallets[number % 3], &wallets[(number + 1) % 3]);
        bank.client.pay(&from.key, to.address, bank.asset, 1, Wait::Receipt).await.unwrap();
    }
    // A purge waits for what a leader is about to send to the absent one.
    eventually("the others' logs begin behind what it has", async || {
        bank.client.pay(&wallets[0].key, wallets[1].address, bank.asset, 1, Wait::Receipt).await.unwrap();
        let first = stay.map(|node| log(&cluster, node).first_index().unwrap());
        let purged = first.iter().all(|first| first.is_none_or(|first| first > known + 1));
        if purged { Ok(()) } else { Err(format!("it has {known}, and they begin at {first:?}")) }
    })
    .await;
    let mut process = cluster.start_process(behind);
    cluster.set_elsewhere(&[behind]);
    caught_up(&cluster, behind).await;
    let heights = cluster.wait_settled().await;
    assert!(heights[&shard] > 450);
    assert_ne!(databases(&cluster), old, "it caught up by the log, which should have been purged");

    // It is a full replica again: with another node gone, it must vote.
    cluster.stop_node(NodeId(1)).await;
    bank.client.pay(&wallets[0].key, wallets[1].address, bank.asset, 1, Wait::Applied).await.unwrap();
    cluster.start_node(NodeId(1)).await;
    // And what it was given as a snapshot survives that it is killed again.
    process.kill();
    let mut process = cluster.start_process(behind);
    cluster.wait_settled().await;
    assert_eq!(bank.total(&wallets).await, FUNDS * 3);
    process.assert_runs();
}

/// A group takes its first step when every member is there, so that a member that comes later with an
/// empty log can only be one that has lost it.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_begins_when_all_its_members_are_there() {
    let mut cluster = TestCluster::prepare(&Wanted { shards: 1, ..Wanted::default() });
    let shard = GroupId::shard(0);
    cluster.start_node(NodeId(1)).await;
    cluster.start_node(NodeId(2)).await;
    let waits = async |cluster: &TestCluster, node: NodeId| {
        eventually("it says whom it waits for", async || {
            let stopped = cluster.replica(node, shard).await.stopped;
            if stopped.contains("group_founding") && stopped.contains("node 3") { Ok(()) } else { Err(stopped) }
        })
        .await;
    };
    waits(&cluster, NodeId(1)).await;
    waits(&cluster, NodeId(2)).await;
    // One that stops meanwhile does no harm.
    cluster.stop_node(NodeId(1)).await;
    cluster.start_node(NodeId(1)).await;
    waits(&cluster, NodeId(1)).await;
    cluster.start_all().await;
    let (mut cluster, bank, wallets) = funded_on(cluster).await;
    // From then on a majority is enough.
    cluster.stop_all().await;
    cluster.start_node(NodeId(3)).await;
    cluster.start_node(NodeId(1)).await;
    cluster.wait_ready().await;
    bank.client.pay(&wallets[0].key, wallets[1].address, bank.asset, 1, Wait::Applied).await.unwrap();
}
