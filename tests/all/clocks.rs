//! Wrong clocks: one node whose clock is set does not move the time of a block, says so, and hands
//! over what it leads.

use std::time::Duration;

use bytes::Bytes;
use client::Wait;
use consensus::sequencer::Sequencer;
use ledger::limits::BLOCK_AHEAD_MS_MAX;
use ledger::{GroupId, Height, NodeId, TimeMs};
use shard_node::core::entry::{ENTRY_VERSION, Entry};

use crate::support::bank::{Bank, Wallet, now_ms, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::eventually;
use crate::support::load::Load;

/// Times of the blocks of a group from a height on, up to its last.
async fn times(cluster: &TestCluster, group: GroupId, from: u64) -> Vec<u64> {
    let client = cluster.client();
    let mut times = Vec::new();
    for height in from.. {
        match client.block(group, Height(height)).await.unwrap().value {
            Some(block) => times.push(block.header.time_ms.0),
            None => break,
        }
    }
    times
}

async fn alarms(cluster: &TestCluster, node: NodeId) -> Vec<String> {
    let status = cluster.status().await;
    status.nodes.into_iter().find(|reply| reply.node == node.0).map(|reply| reply.alarms).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_is_set_stamps_nothing_ahead_and_hands_over() {
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let bank = Bank::open(&cluster.client()).await;
    let shard = GroupId::shard(0);
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 4);
    let wallets: Vec<Wallet> = homes.into_iter().flatten().collect();
    bank.fund(&wallets, 1_000_000).await;
    let mut load = Load::start(&bank, &wallets, &wallets, 16).await;
    load.next(200).await;

    let wrong = cluster.leader(shard).await;
    let before = cluster.replica(wrong, shard).await.height;
    cluster.node(wrong).hosted().context.clock.shift_wall(60_000);
    load.next(200).await;
    let said = eventually("the node says that its clock is wrong", async || {
        let alarms = alarms(&cluster, wrong).await;
        alarms.iter().find(|alarm| alarm.contains("clock")).cloned().ok_or_else(|| format!("{alarms:?}"))
    })
    .await;
    assert!(said.contains("set it right"), "{said}");
    for group in cluster.groups() {
        eventually("somebody else leads", async || {
            let leader = cluster.leader(group).await;
            if leader == wrong { Err(format!("{group} is still led by node {wrong}")) } else { Ok(()) }
        })
        .await;
    }
    load.next(200).await;
    let fates = load.end().await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);

    let now = now_ms();
    let times = times(&cluster, shard, before).await;
    assert!(times.len() > 3, "{times:?}");
    assert!(times.is_sorted_by(|a, b| a < b));
    let ahead = times.last().unwrap().saturating_sub(now);
    assert!(ahead <= BLOCK_AHEAD_MS_MAX, "a block is {ahead} ms ahead");
    // The others are right, and say nothing.
    for node in cluster.node_ids().into_iter().filter(|node| *node != wrong) {
        assert!(alarms(&cluster, node).await.iter().all(|alarm| !alarm.contains("clock")), "node {node}");
    }
}

/// A node whose clock is behind is in nobody's way either, and its own stamps, should it lead, are
/// those of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_behind_leads_with_the_time_of_the_others() {
    let mut cluster = TestCluster::prepare(&Wanted { shards: 1, ..Wanted::default() });
    for node in cluster.node_ids() {
        cluster.start_node(node).await;
        if node == NodeId(1) {
            cluster.node(node).hosted().context.clock.shift_wall(-3_600_000);
        }
    }
    cluster.wait_ready().await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 2);
    bank.fund(homes.iter().flatten(), 1_000).await;
    let (alice, bob) = (&homes[0][0], &homes[0][1]);
    let receipt = bank.client.pay(&alice.key, bob.address, bank.asset, 1, Wait::Applied).await.unwrap();
    let off = Duration::from_millis(receipt.time_ms.0.abs_diff(now_ms()));
    assert!(off < Duration::from_secs(30), "stamped {off:?} off");
    eventually("the node says that its clock is wrong", async || {
        let alarms = alarms(&cluster, NodeId(1)).await;
        alarms.iter().any(|alarm| alarm.contains("clock")).then_some(()).ok_or_else(|| format!("{alarms:?}"))
    })
    .await;
}

/// A leader that stamps what it likes: its followers cannot refuse the block, and every one says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_ahead_of_the_clocks_does_not_go_unseen() {
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let shard = GroupId::shard(0);
    // Whoever leads when it is proposed: on a loaded machine that may be another one the next time.
    let propose = async |ahead_ms: u64| {
        eventually("a leader takes the entry", async || {
            let leader = cluster.leader(shard).await;
            let raft = cluster.node(leader).hosted().group(shard.0).unwrap().engine.clone();
            let entry = Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(now_ms() + ahead_ms), commands: Vec::new() };
            let submitted = raft.submit(Bytes::from(entry.encode())).await.map_err(|error| error.to_string())?;
            submitted.await.map_err(|error| format!("{error:?}"))
        })
        .await
    };
    propose(0).await;
    cluster.wait_settled().await;
    for node in cluster.node_ids() {
        assert!(alarms(&cluster, node).await.iter().all(|alarm| !alarm.contains("ahead")), "node {node}");
    }
    propose(30_000).await;
    for node in cluster.node_ids() {
        eventually("a replica sees the stamp", async || {
            let alarms = alarms(&cluster, node).await;
            alarms.iter().any(|alarm| alarm.contains("ahead of the clocks")).then_some(()).ok_or(format!("{alarms:?}"))
        })
        .await;
    }
}
