//! Who has heard that an entry hands over when its leader goes, and who finds out by itself.

use ledger::Engine;

use super::support::*;
use super::{ALL, assert_alike};

/// Some node of a group that has begun under Raft, and all others.
async fn one_that_follows(cluster: &Cluster) -> (u32, Vec<u32>) {
    cluster.order(&ALL, "first").await;
    cluster.reached(&ALL, Engine::Raft, "first").await;
    let leader = cluster.leader(&ALL).await;
    let one = ALL.into_iter().find(|node| *node != leader).unwrap();
    (one, ALL.into_iter().filter(|node| *node != one).collect())
}

/// One is away, and two have the entry and do not hear that it is committed. Behind the leader these two could not decide it
/// again, and would not believe the leader alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_goes_on_until_so_many_have_what_hands_over_that_the_group_can_go_on() {
    let mut cluster = Cluster::new(Engine::Raft, 4, Disk::memory).await;
    let (away, rest) = one_that_follows(&cluster).await;
    cluster.stop(away).await;
    let leader = cluster.leader(&rest).await;
    let others: Vec<u32> = rest.iter().copied().filter(|node| *node != leader).collect();
    cluster.net.keep_from(&others);
    cluster.order(&rest, "to bft").await;
    // Far more often than in the time that a leader goes on for in any case.
    cluster.net.spoken(24).await;
    cluster.net.keep_from(&[]);
    cluster.order(&rest, "after").await;
    cluster.reached(&rest, Engine::Bft, "after").await;
    assert_alike(&cluster, &rest);
}

/// Its role names the last leader as long as nobody else is elected, and those who have gone on do not reach it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_nobody_reaches_finds_out_that_the_group_has_gone_on() {
    let cluster = Cluster::new(Engine::Raft, 4, Disk::memory).await;
    cluster.net.seat(&ALL);
    let (one, rest) = one_that_follows(&cluster).await;
    cluster.net.deafen(one);
    cluster.order(&rest, "to bft").await;
    cluster.reached(&ALL, Engine::Bft, "to bft").await;
    cluster.net.join(one);
    cluster.order(&ALL, "after").await;
    cluster.reached(&ALL, Engine::Bft, "after").await;
    assert_alike(&cluster, &ALL);
}
