//! Snapshots that one member lends, and what the others say of them: a liar among the lenders costs an attempt.

use ledger::ids::NodeId;

use super::returning::without_the_fourth;
use super::support::*;
use crate::sequencer::Sequencer;

const ALL: [u32; 4] = [1, 2, 3, 4];
const LIAR: u32 = 2;

/// Has these nodes make a snapshot, and keep nothing of their logs up to this entry.
async fn keep_only_snapshots(cluster: &Cluster, nodes: &[u32], last: u64) {
    for node in nodes {
        cluster.group(*node).snapshot_now().await.unwrap();
        cluster.group(*node).purge(last).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_far_behind_follows_the_honest_ones_although_a_liar_lends_first() {
    let (mut cluster, leader, last) = without_the_fourth().await;
    cluster.nodes[&LIAR].applier.0.lock().shifted = 3;
    keep_only_snapshots(&cluster, &[1, 2, 3], last).await;
    cluster.net.lends_first(LIAR, &cluster.nodes[&4].applier);
    cluster.start(4).await;
    cluster.applied(&[4], last).await;
    let state = cluster.state(4);
    assert!(state.installed >= 1);
    assert!(!state.lies.is_empty(), "the liar was asked, and people hear of it");
    assert!(state.lies.iter().all(|node| *node == NodeId(LIAR)), "{:?}", state.lies);
    let last = cluster.propose(leader, "behind it").await;
    cluster.applied(&[3, 4], last).await;
    assert_eq!(cluster.batches(4), cluster.batches(3));
    // It takes part: with the liar away, all three that are left are needed.
    cluster.stop(LIAR).await;
    let left = [1, 3, 4];
    let leader = cluster.leader(&left).await;
    let last = cluster.propose(leader, "with it").await;
    cluster.applied(&left, last).await;
    assert_eq!(cluster.batches(4), cluster.batches(3));
}

/// No header shows what this one has altered, and its place is the true one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lender_that_alters_what_no_header_covers_is_refused_and_named_and_the_next_one_is_asked() {
    let (mut cluster, leader, last) = without_the_fourth().await;
    cluster.nodes[&LIAR].applier.0.lock().altered = true;
    keep_only_snapshots(&cluster, &[1, 2, 3], last).await;
    cluster.net.lends_first(LIAR, &cluster.nodes[&4].applier);
    cluster.start(4).await;
    cluster.applied(&[4], last).await;
    let state = cluster.state(4);
    assert!(state.installed >= 1);
    assert!(!state.lies.is_empty(), "the liar was asked, and people hear of it");
    assert!(state.lies.iter().all(|node| *node == NodeId(LIAR)), "{:?}", state.lies);
    let last = cluster.propose(leader, "behind it").await;
    cluster.applied(&ALL, last).await;
    assert_eq!(cluster.batches(4), cluster.batches(3));
    assert_eq!(cluster.state(4).history, cluster.state(3).history);
}

/// Members that go on all the time stand behind other entries whenever somebody asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_go_on_meanwhile_meet_behind_one_entry() {
    let (mut cluster, leader, last) = without_the_fourth().await;
    keep_only_snapshots(&cluster, &[1, 2, 3], last).await;
    cluster.start(4).await;
    let busy = async {
        for number in 0.. {
            cluster.propose(leader, &format!("meanwhile {number}")).await;
        }
    };
    tokio::select! {
        () = cluster.applied(&[4], last) => {}
        () = busy => {}
    }
    let state = cluster.state(4);
    assert!(state.installed >= 1 && state.lies.is_empty(), "{:?}", state.lies);
    let last = cluster.propose(leader, "behind it").await;
    cluster.applied(&ALL, last).await;
    assert_eq!(cluster.batches(4), cluster.batches(3));
    assert_eq!(cluster.state(4).history, cluster.state(3).history);
}

/// A replica whose state is gone takes a snapshot before it runs at all, of whomever its host names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_lost_its_state_takes_none_on_one_lenders_word() {
    let mut cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let mut purged = 0;
    for number in 0..10 {
        purged = cluster.propose(leader, &number.to_string()).await;
    }
    cluster.applied(&[4], purged).await;
    keep_only_snapshots(&cluster, &[4], purged).await;
    cluster.stop(4).await;
    std::fs::remove_dir_all(cluster.nodes[&4].dir.path().join("snapshots")).unwrap();
    *cluster.nodes[&4].applier.0.lock() = State::new(committee(4));
    let mut last = purged;
    for number in 10..20 {
        last = cluster.propose(leader, &number.to_string()).await;
    }
    let others = [1, 2, 3];
    cluster.applied(&others, last).await;
    cluster.nodes[&LIAR].applier.0.lock().shifted = 3;
    keep_only_snapshots(&cluster, &others, last).await;

    let (mut prepared, parts) = cluster.prepare(4, GROUP).await.unwrap();
    assert!(prepared.missing() >= Some(purged));
    // The members that the snapshot itself names are asked, too, also when the host named the liar alone.
    let error = prepared.fetch(&[NodeId(LIAR)]).await.unwrap_err();
    assert!(error.to_string().contains("node 2: snapshot_contradicted: of its committee 2 say"), "{error}");
    let state = cluster.state(4);
    assert_eq!((state.installed, state.lies), (0, vec![NodeId(LIAR)]));
    // From then on it is asked last. Of its place it may tell the truth, as here, or not: two others are enough.
    prepared.fetch(&[LIAR, 1, 3].map(NodeId)).await.unwrap();
    let state = cluster.state(4);
    assert_eq!((state.installed, state.lies), (1, vec![NodeId(LIAR)]), "the liar was not asked again");

    cluster.begin(4, prepared, parts).await.unwrap();
    let leader = cluster.leader(&others).await;
    let last = cluster.propose(leader, "behind it").await;
    cluster.applied(&ALL, last).await;
    assert_eq!(cluster.batches(4), cluster.batches(3));
}
