//! A replica that counts and that the hosts of the others give no entries to.

use std::sync::mpsc::Receiver;

use bytes::Bytes;
use ledger::ids::NodeId;

use super::support::*;
use crate::raft::wire;
use crate::sequencer::Sequencer;

/// Heartbeats after which a replica has not been forgotten.
const HEARTBEATS: usize = 5;

type Heard = Receiver<(NodeId, NodeId, u8, Bytes)>;

fn listen(cluster: &Cluster) -> Heard {
    let (sender, heard) = std::sync::mpsc::channel();
    *cluster.net.heard.lock() = Some(sender);
    heard
}

/// Waits for some appends to a node, and returns how many entries each has.
async fn appends_to(node: u32, heard: Heard) -> Vec<usize> {
    let listening = tokio::task::spawn_blocking(move || {
        let mut entries = Vec::new();
        while entries.len() < HEARTBEATS {
            let (_, to, kind, payload) = heard.recv_timeout(PATIENCE).expect("heartbeats go on");
            if to == NodeId(node) && kind == wire::APPEND {
                let request = wire::open_request(payload).unwrap();
                entries.push(wire::open_append(&request.body).unwrap().request.entries.len());
            }
        }
        entries
    });
    listening.await.unwrap()
}

fn others(nodes: u32, but: u32) -> Vec<u32> {
    (1..=nodes).filter(|node| *node != but).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_gets_no_entries_costs_the_others_nothing_and_leaves_the_group() {
    let cluster = Cluster::new(4).await;
    let leader = cluster.leader(&[1, 2, 3, 4]).await;
    let excluded = 1 + leader % 4;
    let rest = others(4, excluded);
    let known = propose(&cluster, leader, "known").await;
    cluster.applied(&[1, 2, 3, 4], known).await;

    cluster.net.withhold(NodeId(excluded));
    let heard = listen(&cluster);
    let mut last = known;
    for number in 0..20 {
        last = propose(&cluster, leader, &format!("secret {number}")).await;
    }
    cluster.applied(&rest, last).await;
    // It is still led, and is told that there is more: nothing of what.
    assert_eq!(appends_to(excluded, heard).await, [0; HEARTBEATS]);
    let role = cluster.group(excluded).role().borrow().clone();
    assert_eq!((role.last_log_index, role.leader), (known, Some(NodeId(leader))));
    assert_eq!(cluster.state(excluded).batches, [b"known".to_vec()]);

    // Three of four are a majority, so that the change commits which makes three of it.
    cluster.group(leader).change_voters(rest.iter().copied().map(raft_id).collect()).await.unwrap();
    let role = until(&cluster.group(leader), |role| role.voters.len() == 3).await;
    assert!(!role.voters.contains(&NodeId(excluded)) && role.learners.is_empty());
    let last = propose(&cluster, leader, "three").await;
    cluster.applied(&rest, last).await;
    assert_eq!(cluster.group(excluded).role().borrow().last_log_index, known, "also not of the change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_is_given_entries_again_gets_all_that_it_missed() {
    let cluster = Cluster::new(4).await;
    let leader = cluster.leader(&[1, 2, 3, 4]).await;
    let excluded = 1 + leader % 4;
    cluster.net.withhold(NodeId(excluded));
    let heard = listen(&cluster);
    let mut expected = Vec::new();
    for number in 0..20 {
        propose(&cluster, leader, &format!("missed {number}")).await;
        expected.push(format!("missed {number}").into_bytes());
    }
    assert_eq!(appends_to(excluded, heard).await, [0; HEARTBEATS]);
    cluster.net.give_again(NodeId(excluded));
    let last = propose(&cluster, leader, "with all").await;
    expected.push(b"with all".to_vec());
    cluster.applied(&[1, 2, 3, 4], last).await;
    assert_eq!(cluster.state(excluded).batches, expected);
}

/// The leader itself is the one that the others keep entries from: it hands over, and gets nothing of what its heir
/// writes, the entry that its heir begins with included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_to_get_no_entries_hands_over_and_gets_none() {
    let cluster = Cluster::new(4).await;
    let excluded = cluster.leader(&[1, 2, 3, 4]).await;
    let rest = others(4, excluded);
    let known = propose(&cluster, excluded, "its last").await;
    cluster.applied(&rest, known).await;

    cluster.net.withhold(NodeId(excluded));
    let heir = rest[0];
    cluster.group(excluded).transfer_leader(NodeId(heir)).await.unwrap();
    until(&cluster.group(heir), |role| role.leads).await;
    let heard = listen(&cluster);
    let last = propose(&cluster, heir, "not for it").await;
    cluster.applied(&rest, last).await;
    assert_eq!(appends_to(excluded, heard).await, [0; HEARTBEATS]);
    let role = until(&cluster.group(excluded), |role| role.leader == Some(NodeId(heir))).await;
    assert_eq!((role.last_log_index, role.leads), (known, false));
    assert_eq!(cluster.state(excluded).batches, [b"its last".to_vec()]);
}
