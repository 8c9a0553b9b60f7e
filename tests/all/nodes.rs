//! Nodes that come and go while customers pay: processes with fsync, and the commands that operators give. Nodes join and
//! take their share, one leaves, one is lost for good and replaced, by command and by policy. No payment fails, and in the
//! end every group has all its members.

use std::collections::BTreeMap;

use beacon::NodeLives;
use client::Client;
use ledger::{Committee, GroupId, NodeId, OrgId};

use crate::support::audit::{audit_chains, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::up::Up;

const NODES: u32 = 5;
const SHARDS: u32 = 3;
const FUNDS: u128 = 1_000_000;
/// What is executed between two changes at least.
pub const MEANWHILE: usize = 300;

/// The committees in force, as the beacon has them.
pub async fn committees(client: &Client) -> BTreeMap<GroupId, Committee> {
    let lives = eventually("the committees in force", async || client.node_lives::<NodeLives>().await).await;
    lives.committees.into_iter().map(|committee| (committee.group, committee)).collect()
}

/// The groups in which a node has a seat.
pub fn seats(committees: &BTreeMap<GroupId, Committee>, node: NodeId) -> Vec<GroupId> {
    committees.values().filter(|one| one.index_of(node).is_some()).map(|one| one.group).collect()
}

/// The nodes without a seat in the beacon, and their organisations.
pub fn outsiders(client: &Client) -> Vec<(NodeId, String)> {
    let genesis = client.genesis();
    let beacon = genesis.committee(GroupId::BEACON).unwrap();
    let outside = genesis.nodes.iter().filter(|node| beacon.index_of(node.id).is_none());
    let name = |org: OrgId| genesis.orgs.iter().find(|known| known.id == org).unwrap().name.clone();
    outside.map(|node| (node.id, name(node.org))).collect()
}

/// A cluster under load.
pub struct Scene {
    pub up: Up,
    pub client: Client,
    bank: Bank,
    pub wallets: Vec<Wallet>,
    pub load: Load,
    pub groups: Vec<GroupId>,
}

impl Scene {
    pub async fn begin() -> Self {
        let up = Up::start(NODES, SHARDS).await;
        let client = Client::connect(&up.profile()).await.unwrap();
        let genesis = client.genesis().clone();
        let groups = genesis.committees.iter().map(|committee| committee.group).collect();
        let bank = Bank::open(&client).await;
        let wallets: Vec<Wallet> = wallets_in_each_shard(&genesis.layout, "home", 12).into_iter().flatten().collect();
        bank.fund(&wallets, FUNDS).await;
        let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
        load.next(MEANWHILE).await;
        Self { up, client, bank, wallets, load, groups }
    }

    /// Everything was executed, nothing twice, every group has three members that run, and none of them is one of these.
    pub async fn end(mut self, gone: &[NodeId]) {
        self.load.next(MEANWHILE).await;
        let (committed, fates) = end_and_reconcile(self.load, &self.bank).await;
        assert!(fates.open.is_empty(), "{:?}", fates.open);
        assert!(committed >= MEANWHILE as u64, "{committed}");
        let heights = self.up.settled(&self.client, &self.groups).await;
        let supply = audit_chains(&self.client, &heights).await[&self.bank.asset];
        assert_eq!(supply.held, FUNDS * self.wallets.len() as u128);
        let status = self.client.status().await.unwrap();
        for (group, committee) in committees(&self.client).await {
            assert_eq!(committee.members.len(), 3, "{group}");
            for member in &committee.members {
                assert!(!gone.contains(&member.node), "{group} has a seat on node {}", member.node);
                let node = status.nodes.iter().find(|node| node.node == member.node.0);
                let replica = node.and_then(|node| node.replicas.iter().find(|replica| replica.group == group.0));
                assert!(replica.is_some_and(|replica| replica.stopped.is_empty()), "{group} on node {}", member.node);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_leave_and_are_replaced_under_payments() {
    let mut scene = Scene::begin().await;
    let [(leaves, one), (dies, other)] = &outsiders(&scene.client)[..] else { panic!("two are outside the beacon") };
    let (leaves, dies) = (*leaves, *dies);

    // A sixth and a seventh node take their share.
    for (node, org) in [(NodeId(6), one), (NodeId(7), other)] {
        scene.up.add_node(node, org).await;
        let joined = scene.up.told(&format!("node join {node} --wait 120"));
        assert_eq!((&joined["state"], &joined["missing"]), (&"done".into(), &serde_json::json!([])), "{joined}");
        assert!(!joined["seats"].as_array().unwrap().is_empty(), "{joined}");
        let again = scene.up.told(&format!("node join {node} --wait 120"));
        assert_eq!(
            (&again["state"], &again["seats"]),
            (&"done".into(), &joined["seats"]),
            "there is no more to even out"
        );
        scene.load.next(MEANWHILE).await;
    }

    // One drains and leaves. Nobody gets its number.
    let left = scene.up.told(&format!("node leave {leaves} --wait 120"));
    assert_eq!((&left["state"], &left["seats"]), (&"done".into(), &serde_json::json!([])), "{left}");
    scene.up.kill(leaves).await;
    assert_eq!(scene.up.told(&format!("node leave {leaves}"))["state"], "done", "given again, it has left");
    let config = scene.up.dir.join(format!("nodes/node-{leaves}/node.toml"));
    let anew =
        format!("node register --config {} --as {one} --peer 127.0.0.1:1 --client 127.0.0.1:2", config.display());
    assert_eq!(scene.up.refused(&anew), "node_gone");
    scene.load.next(MEANWHILE).await;

    // One is lost with its disk, and a new one takes its replicas, no more and no less.
    let before = committees(&scene.client).await;
    let lost = seats(&before, dies);
    assert!(!lost.is_empty());
    scene.up.kill(dies).await;
    std::fs::remove_dir_all(scene.up.dir.join(format!("nodes/node-{dies}"))).unwrap();
    scene.load.next(MEANWHILE).await;
    let successor = NodeId(8);
    scene.up.add_node(successor, other).await;
    // Every group that it was in has two members left: none of them may give its seat away now.
    let mate = before[&lost[0]].members.iter().map(|member| member.node).find(|node| *node != dies).unwrap();
    assert_eq!(scene.up.refused(&format!("node drain {mate}")), "members_silent");
    let replaced = scene.up.told(&format!("node replace {dies} {successor} --wait 120"));
    assert_eq!((&replaced["state"], &replaced["missing"]), (&"done".into(), &serde_json::json!([])), "{replaced}");
    let after = committees(&scene.client).await;
    for group in &lost {
        let with = |committee: &Committee, from: NodeId, to: NodeId| {
            let nodes = committee.members.iter().map(|member| if member.node == from { to } else { member.node });
            let mut nodes: Vec<NodeId> = nodes.collect();
            nodes.sort_unstable();
            nodes
        };
        assert_eq!(with(&after[group], dies, dies), with(&before[group], dies, successor), "{group}");
    }
    assert_eq!(scene.up.told(&format!("node leave {dies} --wait 120"))["state"], "done");
    let expected: Vec<u64> = (1..=8).filter(|node| ![leaves.0, dies.0].contains(node)).map(u64::from).collect();
    eventually("the routers know who is there", async || {
        let shown = scene.up.told("beacon show");
        let numbers = shown["nodes"].as_array().unwrap().iter().map(|line| line["node"].as_u64().unwrap());
        if numbers.eq(expected.iter().copied()) { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    scene.end(&[leaves, dies]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanishes_is_replaced_by_policy() {
    let mut scene = Scene::begin().await;
    let (gone, org) = outsiders(&scene.client)[0].clone();
    let spare = NodeId(6);
    scene.up.add_node(spare, &org).await;
    let set = |by: &str| format!("beacon watch set replace --after 10 --as {by}");
    assert_eq!(scene.up.told(&set("org-a"))["in_force"], false);
    assert_eq!(scene.up.told(&set("org-b"))["in_force"], true);
    assert_eq!(scene.up.told("beacon watch show")["mode"], "replace");
    let lost = seats(&committees(&scene.client).await, gone);
    assert!(!lost.is_empty());

    scene.up.kill(gone).await;
    eventually("its seats have moved, and nobody gave a command", async || {
        let now = committees(&scene.client).await;
        match seats(&now, gone)[..] {
            [] => Ok(()),
            ref left => Err(format!("it has seats in {left:?}; {}", scene.up.told("beacon watch show"))),
        }
    })
    .await;
    let shown = scene.up.told("beacon watch show");
    let decided = shown["decided"].as_array().unwrap();
    assert_eq!(decided.len(), 1, "{shown}");
    assert_eq!((&decided[0]["node"], &decided[0]["event"]), (&gone.0.into(), &"replaced".into()));
    scene.load.next(MEANWHILE).await;

    // It comes back, and is one like any other: it has no seats, and gets some when it joins.
    scene.up.restart(gone);
    eventually("it is heard of again", async || {
        let shown = scene.up.told("beacon watch show");
        let back = shown["decided"].as_array().unwrap().last().unwrap()["event"] == "back";
        if back && shown["vanished"] == serde_json::json!([]) { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    scene.end(&[gone]).await;
}
