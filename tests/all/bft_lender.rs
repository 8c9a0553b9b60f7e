//! A member of a Byzantine shard whose state is wrong where no root of a header covers it lends it: the others say so, people
//! hear whose it was, and the borrower takes that of another member.

use std::sync::Arc;

use client::Wait;
use ledger::{Engine, GroupId, NodeId, schema};
use shard_node::server::replica::STATE_FORMAT;
use storage::{KeyRange, Kv, PlainCipher, ResourceLimits, SharedResources, StateDb, StateIdentity, WriteBatch};

use crate::support::bank::{Bank, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::eventually;

const SHARD: GroupId = GroupId::shard(0);
const BORROWER: NodeId = NodeId(4);
/// So often the borrower loses its state: one that knows who leads asks that one first.
const LOSSES: usize = 5;

/// The state of a node that does not run.
fn state(cluster: &TestCluster, node: NodeId) -> StateDb {
    let resources = SharedResources::new(ResourceLimits::default()).unwrap();
    let cluster_id = cluster.genesis.cluster_id().0.0;
    let identity = StateIdentity { cluster: cluster_id, node: node.0, group: SHARD.0, format_version: STATE_FORMAT };
    let folder = cluster.data(node, SHARD).join("state");
    StateDb::open(&folder, &resources, identity, Arc::new(PlainCipher)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lender_that_alters_an_accounts_history_is_found_out_and_another_one_lends() {
    let (engine, snapshot_every) = (Engine::Bft, Some(100));
    let wanted =
        Wanted { nodes: 4, orgs: Some(4), shards: 1, replicas: 4, engine, snapshot_every, ..Wanted::default() };
    let mut cluster = TestCluster::start(wanted).await;
    let bank = Bank::open(&cluster.client()).await;
    let wallets = wallets_in_each_shard(&cluster.genesis.layout, "home", 2).remove(0);
    bank.fund(&wallets, 10_000).await;
    let pay = async || {
        let (from, to) = (&wallets[0], &wallets[1]);
        bank.client.pay(&from.key, to.address, bank.asset, 1, Wait::Receipt).await.unwrap();
    };
    // An entry each: the logs do not go back to the beginning any more.
    for _ in 0..250 {
        pay().await;
    }
    cluster.wait_settled().await;

    // The first that is asked for its snapshot, by a node that does not know who leads.
    let members = &cluster.genesis.committee(SHARD).unwrap().members;
    let liar = members.iter().map(|member| member.node).find(|node| *node != BORROWER).unwrap();
    cluster.stop_node(liar).await;
    let (line, honest) = {
        let db = state(&cluster, liar);
        let lines = db.scan(KeyRange::prefix(&schema::history_prefix(&wallets[0].address)), 1).unwrap();
        let (line, honest) = lines.into_iter().next().expect("it has paid");
        let mut altered = honest.to_vec();
        *altered.last_mut().unwrap() ^= 1;
        let mut batch = WriteBatch::new();
        batch.put(line.clone(), altered);
        db.write(batch).unwrap();
        db.flush().unwrap();
        (line, honest)
    };
    cluster.start_node(liar).await;
    cluster.wait_settled().await;

    let mut named = None;
    for _ in 0..LOSSES {
        cluster.stop_node(BORROWER).await;
        for part in ["state", "snapshots"] {
            std::fs::remove_dir_all(cluster.data(BORROWER, SHARD).join(part)).unwrap();
        }
        cluster.start_node(BORROWER).await;
        cluster.wait_settled().await;
        let client = cluster.client();
        let alarms = eventually("what the borrower has to say", async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            let borrower = status.nodes.into_iter().find(|reply| reply.node == BORROWER.0);
            borrower.map(|reply| reply.alarms).ok_or_else(|| "it does not answer".to_owned())
        })
        .await;
        let about_snapshots = |alarm: &String| alarm.starts_with("snapshot_refused: ");
        named = alarms.into_iter().find(about_snapshots);
        if named.is_some() {
            break;
        }
    }
    let named = named.expect("the liar was asked");
    let expected = format!("a snapshot that node {liar} sent does not hold: snapshot_altered: of its committee 2 say");
    assert!(named.contains(&expected), "{named}");
    // It takes part: with the liar away, all three that are left are needed.
    cluster.stop_node(liar).await;
    pay().await;
    cluster.wait_settled().await;
    cluster.stop_node(BORROWER).await;
    let taken = state(&cluster, BORROWER).get(&line).unwrap();
    assert_eq!(taken, Some(honest), "nothing of the liar's");
}
