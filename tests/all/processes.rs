//! The real program, one process a node, and `kill -9`: nothing acknowledged is lost, nothing is
//! doubled, service returns, and the process that is started again catches up.

use client::Client;
use ledger::{GroupId, NodeId};
use proto::v1;

use crate::support::audit::{audit_chains, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::cluster::leader_of;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::up::Up;

const NODES: u32 = 5;
const SHARDS: u32 = 2;
const FUNDS: u128 = 1_000_000;

/// Whom to kill: a role, whose bearer is looked up when it is its turn. Whoever bears it can be
/// killed, also a node that was killed before and runs again.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Leader(GroupId),
    Follower(GroupId),
    /// The router that the client talks to, and the node around it.
    Router,
}

impl Victim {
    fn find(self, client: &Client, status: &v1::StatusReply) -> Option<NodeId> {
        match self {
            Self::Leader(group) => leader_of(status, group),
            Self::Follower(group) => {
                let leader = leader_of(status, group)?;
                let committee = client.genesis().committee(group).unwrap();
                committee.members.iter().map(|member| member.node).find(|node| *node != leader)
            }
            Self::Router => client.router().node,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_nodes_lose_no_acknowledged_payment_and_double_none() {
    let mut up = Up::start(NODES, SHARDS).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let genesis = client.genesis().clone();
    let groups: Vec<GroupId> = genesis.committees.iter().map(|committee| committee.group).collect();
    let bank = Bank::open(&client).await;
    let homes = wallets_in_each_shard(&genesis.layout, "home", 20);
    let wallets: Vec<Wallet> = homes.into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;

    let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
    load.next(500).await;
    let shard = GroupId::shard(0);
    let victims = [Victim::Leader(shard), Victim::Follower(shard), Victim::Leader(GroupId::BEACON), Victim::Router];
    for victim in victims {
        let node = eventually("somebody to kill", async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            victim.find(&client, &status).ok_or_else(|| format!("{victim:?} is nobody"))
        })
        .await;
        println!("{victim:?} is node {node} and is killed");
        up.kill(node).await;
        load.next(500).await;
        up.restart(node);
        up.whole(&client, &groups).await;
        load.next(500).await;
    }
    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 4_500, "{committed}");
    let heights = up.settled(&client, &groups).await;
    let supply = audit_chains(&client, &heights).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * wallets.len() as u128);
    assert_eq!(bank.total(&wallets).await, supply.held);
}
