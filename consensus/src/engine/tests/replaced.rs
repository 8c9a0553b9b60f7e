//! Members of a Byzantine group that are replaced one by one, each log beginning later than the others' states: whoever
//! comes, or comes back, knows members that are not there any more.

use ledger::Engine;
use ledger::ids::NodeId;

use super::support::*;
use super::{ALL, assert_alike};
use crate::port::replica_id;
use crate::raft::{Standing, wire};
use crate::sequencer::Sequencer;

/// Waits until a node that has joined votes.
async fn votes(cluster: &Cluster, node: u32) {
    let (group, mut role) = (cluster.group(node), cluster.group(node).role());
    let [to, from] = [(node, JOIN), (1, 1)].map(|(node, join)| replica_id(NodeId(node), join));
    let request = wire::request(wire::Head { to, from, stint: 0 }, &());
    let admitted = async {
        loop {
            let answer = group.handle(NodeId(1), wire::STANDING, request.clone()).await.unwrap();
            if wire::open_reply::<Standing>(&answer).unwrap() == Standing::Begun {
                return;
            }
            // It votes some entries later.
            role.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.unwrap_or_else(|_| panic!("node {node} does not vote"));
}

/// A new node takes the seat of each of these, in turn. Whoever has left is gone, and of what was before no log is left.
/// Returns who has a seat then; `seated` has before, and `away` is away.
async fn replace(cluster: &mut Cluster, (first, mut seated): (u32, Vec<u32>), gone: &[u32], away: &[u32]) -> Vec<u32> {
    for old in gone {
        let new = seated.iter().max().unwrap() + 1;
        cluster.net.seat(&seated);
        cluster.join(new, Engine::Bft, first).await;
        let there =
            |seated: &[u32]| -> Vec<u32> { seated.iter().copied().filter(|node| !away.contains(node)).collect() };
        let batch = format!("seat {new} for {old}");
        cluster.order(&there(&seated), &batch).await;
        seated.retain(|node| node != old);
        seated.push(new);
        cluster.net.seat(&seated);
        cluster.reached(&there(&seated), Engine::Bft, &batch).await;
        votes(cluster, new).await;
        cluster.stop(*old).await;
        for node in there(&seated) {
            cluster.purge(node).await;
        }
    }
    seated
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_none_of_its_first_members_is_left_of_takes_in_another_one() {
    let mut cluster = Cluster::new(Engine::Bft, 4, Disk::memory).await;
    cluster.order(&ALL, "first").await;
    cluster.reached(&ALL, Engine::Bft, "first").await;
    // Of those who come behind the third, an honest member's word is not to be had of the first members alone.
    let seated = replace(&mut cluster, (4, ALL.to_vec()), &ALL, &[]).await;
    assert_eq!(seated, [5, 6, 7, 8]);
    let seated = replace(&mut cluster, (4, seated), &[5], &[]).await;
    assert_eq!(seated, [6, 7, 8, 9]);
    assert_alike(&cluster, &seated);
    // The last one takes part: without one of the others it is needed.
    cluster.stop(6).await;
    let left = [7, 8, 9];
    cluster.order(&left, "with it").await;
    cluster.reached(&left, Engine::Bft, "with it").await;
    assert_alike(&cluster, &left);
}

/// It votes, so it only asks those of its members who speak to it, and they are two of seven, who may both lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_while_most_others_left_asks_those_who_have_their_seats() {
    let first = [1, 2, 3, 4, 5, 6, 7];
    let mut cluster = Cluster::new(Engine::Bft, 7, Disk::memory).await;
    cluster.order(&first, "first").await;
    cluster.reached(&first, Engine::Bft, "first").await;
    cluster.stop(7).await;
    let seated = replace(&mut cluster, (7, first.to_vec()), &[1, 2, 3, 4], &[7]).await;
    assert_eq!(seated, [5, 6, 7, 8, 9, 10, 11]);
    cluster.start(7).await;
    cluster.reached(&seated, Engine::Bft, "seat 11 for 4").await;
    assert_alike(&cluster, &seated);
    // It takes part: without two of the others it is needed.
    cluster.stop(10).await;
    cluster.stop(11).await;
    let left = [5, 6, 7, 8, 9];
    cluster.order(&left, "with it").await;
    cluster.reached(&left, Engine::Bft, "with it").await;
    assert_alike(&cluster, &left);
}
