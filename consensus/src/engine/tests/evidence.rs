//! What a member was caught at outlives engines and processes until the state has it, and is shown to whoever asks late.

use std::collections::BTreeMap;

use ledger::Engine;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, Equivocation, SignedBallot};
use ledger::hash::Hash32;
use ledger::ids::NodeId;

use super::support::*;
use crate::bft::Message;
use crate::port::replica_id;
use crate::raft::wire;
use crate::sequencer::Sequencer;

const ALL: [u32; 4] = [1, 2, 3, 4];

/// A precommit of the fourth member, of the first round.
fn precommit(cluster: &Cluster, index: u64, value: Option<Hash32>) -> SignedBallot {
    let committee = cluster.state(1).committee;
    let ballot = Ballot {
        version: BALLOT_VERSION,
        cluster: CLUSTER,
        group: GROUP,
        incarnation: committee.incarnation,
        committee: committee.hash(),
        index,
        round: 0,
        kind: BallotKind::Precommit,
        value,
        node: NodeId(4),
    };
    ballot.sign(&key(4))
}

/// The fourth member tells the first one two things, of whichever entry is being decided.
async fn lie(cluster: &Cluster) {
    let applied = cluster.group(1).role().borrow().applied_index;
    let twice = |index: u64| {
        let values = [Some(Hash32([1; 32])), Some(Hash32([2; 32]))];
        values.map(|value| Message::Ballot(precommit(cluster, index, value)))
    };
    // It may be about to begin the next one, and not to end that.
    let messages: Vec<Message> = (applied + 1..=applied + 3).flat_map(twice).collect();
    let head = wire::Head { to: replica_id(NodeId(1), 1), from: replica_id(NodeId(4), 1), stint: 0 };
    let request = wire::request(head, &messages);
    cluster.group(1).handle(NodeId(4), wire::BFT_MESSAGES, request).await.unwrap();
}

/// What the first member shows.
fn shown(cluster: &Cluster) -> BTreeMap<Hash32, Equivocation> {
    cluster.group(1).evidence().borrow().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_shown_until_the_state_has_it_over_stops_and_changes_of_the_engine() {
    let mut cluster = Cluster::new(Engine::Bft, 4, Disk::memory).await;
    cluster.order(&ALL, "first").await;
    cluster.reached(&ALL, Engine::Bft, "first").await;
    let committee = cluster.state(1).committee;
    cluster.net.cut(1);
    lie(&cluster).await;
    let mut open = cluster.group(1).evidence();
    let found = tokio::time::timeout(PATIENCE, open.wait_for(|open| !open.is_empty())).await;
    let (id, proof) = found.unwrap().unwrap().first_key_value().map(|(id, proof)| (*id, *proof)).unwrap();
    assert_eq!(proof.verify(&CLUSTER, &committee), Ok(NodeId(4)));
    assert!(shown(&cluster).contains_key(&id), "whoever asks late is shown it, too");
    drop(open);

    cluster.stop(1).await;
    cluster.start(1).await;
    assert_eq!(shown(&cluster).get(&id), Some(&proof), "the process is another one");

    cluster.net.join(1);
    cluster.order(&ALL, "to raft").await;
    cluster.reached(&ALL, Engine::Raft, "to raft").await;
    assert_eq!(shown(&cluster).get(&id), Some(&proof), "the engine that has found it is gone");
    cluster.stop(1).await;
    cluster.start(1).await;
    assert_eq!(shown(&cluster).get(&id), Some(&proof));

    let all: Vec<Equivocation> = shown(&cluster).into_values().collect();
    cluster.group(1).settled(&all);
    assert!(shown(&cluster).is_empty());
    cluster.stop(1).await;
    cluster.start(1).await;
    assert!(shown(&cluster).is_empty(), "the state has it");
}
