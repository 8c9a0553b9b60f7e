//! A replica that may have forgotten what it promised, in a group that raft orders: it follows without a vote, and votes
//! again under the other engine.

use ledger::Engine;
use ledger::ids::NodeId;

use super::support::*;
use super::{ALL, assert_alike};
use crate::port::replica_id;
use crate::raft::{HandleError, Standing, wire};

const REST: [u32; 3] = [1, 2, 3];

/// A request of the first node for a replica of another one, with nothing in it.
fn request(cluster: &Cluster, node: u32) -> bytes::Bytes {
    let [to, from] = [node, 1].map(|node| replica_id(NodeId(node), 1));
    wire::request(wire::Head { to, from, stint: cluster.state(1).order.stint() }, &())
}

/// Nobody can have a promise of this replica, and it says so.
pub(super) async fn promises_nothing(cluster: &Cluster, node: u32) {
    let group = cluster.group(node);
    let role = until(&group, |role| role.leader.is_some()).await;
    assert!(!role.leads && role.stopped.is_none(), "{role:?}");
    assert_eq!(role.learners, [NodeId(node)]);
    assert!(!role.voters.is_empty() && !role.voters.contains(&NodeId(node)), "{role:?}");
    for kind in [wire::APPEND, wire::VOTE, wire::PRE_VOTE, wire::SNAPSHOT_OFFER, wire::SNAPSHOT_DONE, wire::TRANSFER] {
        let answer = group.handle(NodeId(1), kind, request(cluster, node)).await;
        assert_eq!(answer, Err(HandleError::Follows), "kind {kind}");
    }
    assert_eq!(standing(cluster, node).await, Standing::Unsure);
}

/// Where a replica says that it stands.
async fn standing(cluster: &Cluster, node: u32) -> Standing {
    let answer = cluster.group(node).handle(NodeId(1), wire::STANDING, request(cluster, node)).await;
    wire::open_reply(&answer.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_without_a_vote_goes_on_under_raft_and_votes_again_under_the_other_engine() {
    let mut cluster = Cluster::new(Engine::Bft, 4, Disk::memory).await;
    cluster.order(&ALL, "first").await;
    cluster.reached(&ALL, Engine::Bft, "first").await;
    cluster.stop(4).await;
    cluster.order(&REST, "to raft").await;
    cluster.reached(&REST, Engine::Raft, "to raft").await;
    // As one that joins: its log is empty, and it follows what the engine before has decided.
    cluster.lose_log(4);
    cluster.lose(4, State::new(Engine::Bft, 4));
    cluster.start(4).await;
    cluster.order(&REST, "as a learner").await;
    cluster.reached(&ALL, Engine::Raft, "as a learner").await;
    assert_alike(&cluster, &ALL);
    promises_nothing(&cluster, 4).await;

    // It is started again as what it is, and takes a snapshot where the logs of the others begin later.
    cluster.stop(4).await;
    cluster.order(&REST, "meanwhile").await;
    cluster.reached(&REST, Engine::Raft, "meanwhile").await;
    let leader = cluster.leader(&REST).await;
    for node in REST.into_iter().filter(|node| *node != leader) {
        cluster.purge(node).await;
    }
    cluster.net.cut(leader);
    let (prepared, means) = cluster.prepare(4).await.unwrap();
    assert!(prepared.follows());
    assert_eq!(prepared.founding().standing(), Standing::Unsure);
    cluster.begin(4, prepared, means).await.unwrap();
    cluster.reached(&[4], Engine::Raft, "meanwhile").await;
    cluster.net.join(leader);

    // The other engine lets it vote when it has followed for a while.
    cluster.order(&REST, "to bft").await;
    cluster.reached(&ALL, Engine::Bft, "to bft").await;
    for number in 0..20 {
        let batch = format!("on the way {number}");
        cluster.order(&ALL, &batch).await;
        cluster.reached(&ALL, Engine::Bft, &batch).await;
    }
    assert_eq!(standing(&cluster, 4).await, Standing::Begun);
    assert_alike(&cluster, &ALL);
    let leader = cluster.leader(&ALL).await;
    let other = REST.into_iter().find(|node| *node != leader).unwrap();
    cluster.stop(other).await;
    let left: Vec<u32> = ALL.into_iter().filter(|node| *node != other).collect();
    cluster.order(&left, "with it").await;
    cluster.reached(&left, Engine::Bft, "with it").await;
    assert_alike(&cluster, &left);
}
