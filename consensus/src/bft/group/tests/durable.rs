//! What is decided reaches the log before it reaches the state, so a crash between the two takes nothing that others may
//! need.

use storage::LogStore;

use super::support::*;
use crate::bft::BftGroup;
use crate::sequencer::Sequencer;

const ALL: [u32; 4] = [1, 2, 3, 4];

/// Behind a hundred answers of its task a replica has done whatever it does without being told anything more.
async fn rested(group: &BftGroup) {
    for _ in 0..100 {
        group.purge(0).await.unwrap();
    }
}

fn reached(cluster: &Cluster, node: u32) -> u64 {
    cluster.state(node).applied.position.map_or(0, |position| position.index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_applied_when_the_log_has_it_for_good() {
    let cluster = Cluster::on(4, CALM, |_| Disk::slow(), 0).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let held = cluster.propose(leader, "before").await + 5;
    let (group, log) = (cluster.group(4), cluster.nodes[&4].log());
    log.hold_from(held);
    cluster.applied(&[1, 2, 3], held).await;
    until_so(&group, || log.log.unflushed() > 0).await;
    rested(&group).await;
    let (decided, _) = log.last().unwrap().unwrap();
    assert_eq!(reached(&cluster, 4), decided - 1, "what is decided is not durable yet");
    log.release();
    let last = cluster.propose(leader, "after").await;
    cluster.applied(&ALL, last).await;
    assert_eq!(cluster.batches(4), ["before", "after"]);
}

/// Three decide, the fourth is a liar that has fallen silent. One of the three hears what decides an entry, the others
/// do not, and its power goes before the entry is in its log. They need its precommit, or the entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_log_and_state_beside_a_silent_member_stops_nobody() {
    let mut cluster = Cluster::on(4, CALM, |_| Disk::slow(), 0).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let before = cluster.propose(leader, "before").await;
    cluster.applied(&ALL, before).await;
    cluster.net.cut(4);
    let alone = [1, 2, 3].into_iter().find(|node| *node != leader).unwrap();
    let others: Vec<u32> = [1, 2, 3].into_iter().filter(|node| *node != alone).collect();
    let last = others.iter().map(|node| reached(&cluster, *node)).max().unwrap() + 10;
    let log = cluster.nodes[&alone].log();
    log.hold_from(last);
    cluster.net.deafen(&others, last);
    let group = cluster.group(alone);
    until_so(&group, || log.log.unflushed() > 0).await;
    rested(&group).await;
    drop(group);
    cluster.stop(alone).await;
    log.crash();
    assert!(reached(&cluster, alone) < last, "the state is not ahead of the log");
    cluster.net.deafen(&[], 0);
    cluster.start(alone).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let after = cluster.propose(leader, "after").await;
    assert!(after > last);
    cluster.applied(&[1, 2, 3], after).await;
    for node in [1, 2, 3] {
        assert_eq!(cluster.batches(node), ["before", "after"], "node {node}");
    }
}
