//! Members that run: one order, one leader after the other, reads that miss nothing, and messages that are refused.

use bytes::Bytes;
use futures::future::join_all;
use ledger::ids::NodeId;

use super::support::*;
use crate::bft::Message;
use crate::port::{Payload, SequencerError, any_replica, replica_id};
use crate::raft::{Replica, read_log, wire};
use crate::sequencer::Sequencer;

const ALL: [u32; 4] = [1, 2, 3, 4];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_members_order_the_same_batches() {
    let cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&ALL).await;
    let group = cluster.group(leader);
    let mut waiting = Vec::new();
    for number in 0..100 {
        waiting.push(group.submit(Bytes::from(number.to_string())).await.unwrap());
    }
    let indexes: Vec<u64> = join_all(waiting).await.into_iter().map(Result::unwrap).collect();
    assert!(indexes.windows(2).all(|pair| pair[0] < pair[1]), "calls in order are entries in order");
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    cluster.applied(&ALL, indexes[99]).await;
    for node in ALL {
        assert_eq!(cluster.batches(node), expected, "node {node}");
        let log = read_log(&*cluster.nodes[&node].log(), 0..indexes[99] + 1).unwrap();
        let batches = log.into_iter().filter_map(|entry| match entry.payload {
            Payload::Batch(batch) => Some(String::from_utf8(batch.to_vec()).unwrap()),
            Payload::Blank | Payload::Membership(_) => None,
        });
        assert_eq!(batches.collect::<Vec<_>>(), expected, "an auditor reads the log of node {node} as any other");
    }
    let role = until(&cluster.group(leader), |role| role.replicated.iter().all(|one| one.1 >= indexes[99])).await;
    assert_eq!(role.voters, ALL.map(NodeId));
    assert_eq!(role.replicated.len(), 3);
    let others: Vec<Replica> = ALL
        .into_iter()
        .map(|node| Replica { id: replica_id(NodeId(node), 1), node: NodeId(node), votes: true })
        .collect();
    assert_eq!(group.replicas(), Some(others));

    let follower = cluster.group(1 + leader % 4);
    let refused = follower.propose(Bytes::from_static(b"no")).await;
    assert_eq!(refused, Err(SequencerError::NotLeader(Some(NodeId(leader)))));
    let large = Bytes::from(vec![0; ledger::limits::BATCH_BYTES_MAX + 1]);
    assert!(matches!(group.submit(large).await.err(), Some(SequencerError::Refused(_))));
    // Members follow from the state: there is nothing to order.
    group.change_voters(vec![]).await.unwrap();
    assert!(group.transfer_leader(NodeId(9)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_as_large_as_may_be_travels_in_parts() {
    let cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&ALL).await;
    let batch = Bytes::from(vec![b'x'; ledger::limits::BATCH_BYTES_MAX]);
    let index = cluster.group(leader).propose(batch.clone()).await.unwrap();
    cluster.applied(&ALL, index).await;
    for node in ALL {
        assert_eq!(cluster.state(node).batches, [batch.to_vec()], "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_gone_is_replaced_and_submissions_go_on() {
    let mut cluster = Cluster::new(4, QUICK).await;
    let leader = cluster.leader(&ALL).await;
    let first = cluster.propose(leader, "one").await;
    cluster.applied(&ALL, first).await;
    cluster.stop(leader).await;
    let rest: Vec<u32> = ALL.into_iter().filter(|node| *node != leader).collect();
    let next = cluster.leader(&rest).await;
    let second = cluster.propose(next, "two").await;
    cluster.applied(&rest, second).await;
    for node in rest {
        assert_eq!(cluster.batches(node), ["one", "two"], "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request() {
    let cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&ALL).await;
    let heir = 1 + leader % 4;
    cluster.group(leader).transfer_leader(NodeId(heir)).await.unwrap();
    until(&cluster.group(heir), |role| role.leads).await;
    cluster.propose(heir, "one").await;
    cluster.group(heir).step_down().await.unwrap();
    let rest: Vec<u32> = ALL.into_iter().filter(|node| *node != heir).collect();
    let next = cluster.leader(&rest).await;
    let last = cluster.propose(next, "two").await;
    cluster.applied(&ALL, last).await;
    assert_eq!(cluster.batches(heir), ["one", "two"]);
    cluster.group(heir).step_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_all_that_was_acknowledged_and_readers_share_blanks() {
    // A busy machine is not to take the lead from who is asked: only the cut below does.
    let cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&ALL).await;
    let group = cluster.group(leader);
    let one = cluster.propose(leader, "one").await;
    assert!(group.read_barrier().await.unwrap() > one, "it stands behind what was acknowledged");
    let follower = cluster.group(1 + leader % 4);
    let refused = follower.read_barrier().await;
    assert!(matches!(refused, Err(SequencerError::NotLeader(Some(_)))), "{refused:?}");
    let readers = join_all((0..50).map(|_| group.read_barrier())).await;
    let mut blanks: Vec<u64> = readers.into_iter().map(Result::unwrap).collect();
    blanks.dedup();
    assert!(blanks.len() < 25, "{} blanks for 50 readers", blanks.len());

    // One that is cut off, while others go on, never tells a reader that it has everything.
    cluster.net.cut(leader);
    let rest: Vec<u32> = ALL.into_iter().filter(|node| *node != leader).collect();
    let next = cluster.leader(&rest).await;
    let two = cluster.propose(next, "two").await;
    let reader = group.clone();
    let read = tokio::spawn(async move { reader.read_barrier().await });
    cluster.net.join(leader);
    if let Ok(index) = tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap() {
        assert!(index > two);
        assert_eq!(cluster.batches(leader), ["one", "two"]);
    }
    cluster.applied(&[leader], two).await;
    assert_eq!(cluster.batches(leader), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_speaks_for_no_other_and_garbage_is_refused() {
    let cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&ALL).await;
    let group = cluster.group(leader);
    let want = vec![Message::Want { index: 1, value: ledger::Hash32([5; 32]) }];
    let (own, other) = (replica_id(NodeId(leader), 1), 1 + leader % 4);
    let from = replica_id(NodeId(other), 1);
    let call = |to: u64, from: u64| wire::request(wire::Head { to, from, stint: 0 }, &want);
    let refused = async |sender: u32, kind: u8, payload: Bytes| {
        group.handle(NodeId(sender), kind, payload).await.unwrap_err().code()
    };
    let thief = 1 + other % 4;
    assert_eq!(refused(thief, wire::BFT_MESSAGES, call(own, from)).await, "raft_wrong_sender");
    let elsewhere = call(replica_id(NodeId(other), 1), from);
    assert_eq!(refused(other, wire::BFT_MESSAGES, elsewhere).await, "raft_wrong_replica");
    assert_eq!(refused(other, wire::BFT_MESSAGES, Bytes::from_static(b"x")).await, "raft_malformed");
    let tail = Bytes::from([call(own, from).to_vec(), vec![0]].concat());
    assert_eq!(refused(other, wire::BFT_MESSAGES, tail).await, "raft_malformed");
    let large = wire::request(wire::Head { to: own, from, stint: 0 }, &vec![0_u8; 2 << 20]);
    assert_eq!(refused(other, wire::BFT_MESSAGES, large).await, "raft_malformed");
    assert_eq!(refused(other, wire::APPEND, call(own, from)).await, "raft_malformed");
    for to in [own, any_replica(NodeId(leader))] {
        group.handle(NodeId(other), wire::BFT_MESSAGES, call(to, from)).await.unwrap();
    }
    let last = cluster.propose(leader, "it goes on").await;
    cluster.applied(&ALL, last).await;
}
