//! A shard of seven members, two of which may lie, loses two at once while customers pay: whoever leads, and another one.
//! The five that are left go on, and so does the shard when the two that were gone are needed again. Nodes are processes.

use client::Client;
use ledger::{Engine, GroupId, NodeId};

use crate::bft_switch::all_under;
use crate::support::cluster::leader_of;
use crate::support::customers::Customers;
use crate::support::up::Up;

const SHARD: GroupId = GroupId::shard(0);
const MEMBERS: usize = 7;
const FUNDS: u128 = 1_000_000;
/// What is executed between two events at least.
const MEANWHILE: usize = 100;

/// The nodes that have no seat in the beacon, which a majority of three orders: without some of them it goes on.
fn outside_the_beacon(client: &Client, nodes: &[NodeId]) -> Vec<NodeId> {
    let beacon = client.genesis().committee(GroupId::BEACON).unwrap();
    nodes.iter().copied().filter(|node| beacon.index_of(*node).is_none()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_seven_are_killed_under_load_and_are_needed_again_when_they_have_come_back() {
    let options = ["--consensus", "bft", "--beacon-consensus", "raft", "--replicas", "7", "--orgs", "7"];
    let mut up = Up::start_with(7, 1, &options).await;
    let customers = Customers::of(&up, 8, FUNDS).await;
    let (client, groups) = (&customers.client, &customers.groups);
    let committee = client.genesis().committee(SHARD).unwrap().clone();
    assert_eq!((committee.members.len(), committee.threshold), (MEMBERS, 5));
    let all: Vec<NodeId> = committee.members.iter().map(|member| member.node).collect();

    let mut load = customers.pay(32).await;
    load.next(MEANWHILE).await;
    let status = client.status().await.unwrap();
    let leader = leader_of(&status, SHARD).expect("the cluster is whole");
    let others: Vec<NodeId> = all.iter().copied().filter(|node| *node != leader).collect();
    let first = [leader, outside_the_beacon(client, &others)[0]];
    for node in first {
        up.kill(node).await;
    }
    // Nothing is decided without any one of the five.
    load.next(MEANWHILE).await;
    for node in first {
        up.restart(node);
    }
    up.whole(client, groups).await;
    load.next(MEANWHILE).await;

    // Two others are gone: now nothing is decided without both that have come back.
    let stayed: Vec<NodeId> = all.iter().copied().filter(|node| !first.contains(node)).collect();
    let second = outside_the_beacon(client, &stayed)[..2].to_vec();
    for node in &second {
        up.kill(*node).await;
    }
    load.next(MEANWHILE).await;
    for node in &second {
        up.restart(*node);
    }
    up.whole(client, groups).await;
    all_under(client, SHARD, Engine::Bft, MEMBERS).await;
    customers.end(&mut up, load, 4 * MEANWHILE as u64).await;
}
