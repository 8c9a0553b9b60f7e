//! A member that floods: it waits for itself, and the others decide.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind};
use ledger::hash::Hash32;
use ledger::ids::NodeId;
use ledger::limits::PEER_QUESTIONS_MAX;
use tokio::sync::Barrier;

use super::super::catchup::Ask;
use super::support::*;
use crate::bft::{BftGroup, Message};
use crate::port::replica_id;
use crate::raft::wire;

const REST: [u32; 3] = [1, 2, 3];
const LIAR: u32 = 4;
/// Calls that the liar opens at once.
const CALLS: usize = 64;

/// Two votes of the liar for each of the first entries, and as many that it has not signed.
fn junk() -> Vec<Message> {
    let committee = committee(4);
    let ballots = (1..=50).flat_map(|index| [None, Some(Hash32([7; 32]))].map(|value| (index, value)));
    let messages = ballots.flat_map(|(index, value)| {
        let ballot = Ballot {
            version: BALLOT_VERSION,
            cluster: CLUSTER,
            group: GROUP,
            incarnation: committee.incarnation,
            committee: committee.hash(),
            index,
            round: 0,
            kind: BallotKind::Prevote,
            value,
            node: NodeId(LIAR),
        };
        let signed = ballot.sign(&key(LIAR));
        let mut forged = signed;
        forged.signature.0[9] ^= 1;
        [Message::Ballot(signed), Message::Ballot(forged)]
    });
    messages.collect()
}

/// Opens calls at a node, and returns how many were answered; all others were refused because there were too many.
async fn open(group: &BftGroup, kind: u8, call: &Bytes) -> usize {
    let answers = join_all((0..CALLS).map(|_| group.handle(NodeId(LIAR), kind, call.clone()))).await;
    let refused: Vec<&str> =
        answers.iter().filter_map(|answer| answer.as_ref().err().map(|error| error.code())).collect();
    assert!(refused.iter().all(|code| *code == "peer_busy"), "{refused:?}");
    answers.len() - refused.len()
}

async fn flood(group: BftGroup, node: u32, begun: Arc<Barrier>, stop: Arc<AtomicBool>) -> usize {
    let head = wire::Head { to: replica_id(NodeId(node), 1), from: replica_id(NodeId(LIAR), 1), stint: 0 };
    let call = wire::request(head, &junk());
    let mut answered = open(&group, wire::BFT_MESSAGES, &call).await;
    begun.wait().await;
    while !stop.load(Ordering::Relaxed) {
        answered += open(&group, wire::BFT_MESSAGES, &call).await;
        tokio::task::yield_now().await;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_decide_while_the_fourth_floods_them() {
    let mut cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&REST).await;
    cluster.stop(LIAR).await;
    // In its place is somebody with its key.
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(Barrier::new(1 + REST.len()));
    let floods = REST.map(|node| tokio::spawn(flood(cluster.group(node), node, begun.clone(), stop.clone())));
    begun.wait().await;
    let mut last = 0;
    for number in 0..10 {
        last = cluster.propose(leader, &number.to_string()).await;
    }
    cluster.applied(&REST, last).await;
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        assert!(flood.await.unwrap() > 0);
    }
    // What it has sent counts as long as it is open, and no longer.
    cluster.start(LIAR).await;
    let last = cluster.propose(leader, "with it").await;
    cluster.applied(&[1, 2, 3, 4], last).await;
    assert_eq!(cluster.batches(LIAR), cluster.batches(leader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_questions_of_a_member_wait_and_all_others_are_refused() {
    let mut cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&REST).await;
    cluster.stop(LIAR).await;
    let head = wire::Head { to: replica_id(NodeId(leader), 1), from: replica_id(NodeId(LIAR), 1), stint: 0 };
    // Nobody has decided this yet, so each of them waits for a while.
    let call = wire::request(head, &Ask { from: u64::MAX });
    for _ in 0..2 {
        assert_eq!(open(&cluster.group(leader), wire::BFT_DECIDED, &call).await, PEER_QUESTIONS_MAX);
    }
    let last = cluster.propose(leader, "it goes on").await;
    cluster.applied(&REST, last).await;
}
