//! The registry as nodes follow it: a change that the beacon certified reaches every node, also those
//! that host no replica of the beacon, and is found again after a restart.

use beacon::{BeaconCommand, SignedCommand};
use bytes::Bytes;
use client::Wait;
use consensus::sequencer::Sequencer;
use ledger::genesis::NodeInfo;
use ledger::{GroupId, NodeId, TimeMs};
use shard_node::core::entry::{Command, ENTRY_VERSION, Entry};

use crate::support::bank::{Bank, now_ms, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::eventually;

const CHANGED: NodeId = NodeId(4);

/// Sequences a command in the beacon, signed by the admin of the changed node's organisation. No
/// call takes such commands in yet, so it goes to the engine of the replica that leads.
async fn change(cluster: &TestCluster, capacity: u16) {
    let org = cluster.info(CHANGED).org;
    let name = &cluster.genesis.orgs.iter().find(|known| known.id == org).unwrap().name;
    let admin = cluster.dir.admin_key(name).unwrap();
    let command = BeaconCommand::SetNodeCapacity { node: CHANGED, capacity };
    let (salt, until) = ([capacity as u8; 16], TimeMs(now_ms() + 60_000));
    let signed = SignedCommand::sign(&cluster.genesis.cluster_id(), &command, org, salt, until, &admin);
    let commands = vec![Command::Registry(signed.encode())];
    let entry = Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(now_ms()), commands };
    let leader = cluster.leader(GroupId::BEACON).await;
    let beacon = cluster.node(leader).hosted().group(GroupId::BEACON.0).unwrap();
    beacon.raft.submit(Bytes::from(entry.encode())).await.unwrap().await.unwrap();
}

/// Waits until every node's router knows this capacity of the changed node.
async fn known_everywhere(cluster: &TestCluster, capacity: u16) {
    for node in cluster.node_ids() {
        let client = cluster.client_of(node);
        eventually("a node knows the change", async || {
            let reply = client.cluster().await.map_err(|error| error.to_string())?;
            let nodes: Vec<NodeInfo> = reply.nodes.iter().map(|bytes| borsh::from_slice(bytes).unwrap()).collect();
            let found = nodes.iter().find(|info| info.id == CHANGED).unwrap().capacity;
            if found == capacity { Ok(()) } else { Err(format!("node {node} still says {found}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certified_change_reaches_every_node_and_outlives_a_restart() {
    let mut cluster = TestCluster::start(Wanted { nodes: 5, ..Wanted::default() }).await;
    let beacon = cluster.genesis.committee(GroupId::BEACON).unwrap();
    assert!(cluster.node_ids().iter().any(|node| beacon.index_of(*node).is_none()), "some node has to follow");
    change(&cluster, 77).await;
    known_everywhere(&cluster, 77).await;
    change(&cluster, 78).await;
    known_everywhere(&cluster, 78).await;

    cluster.wait_settled().await;
    cluster.stop_all().await;
    cluster.start_all().await;
    known_everywhere(&cluster, 78).await;

    // And whom the nodes let in by it is still right: they work together.
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 1);
    bank.fund(homes.iter().flatten(), 10).await;
    let (alice, bob) = (&homes[0][0], &homes[1][0]);
    bank.client.pay(&alice.key, bob.address, bank.asset, 1, Wait::Applied).await.unwrap();
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [9, 11]);
}
