//! Entering a stint, step by step: what is cut off, and what is remembered.

use std::sync::Arc;

use storage::{LogStore, MemLog};

use super::support::TestApplier;
use crate::port::Position;
use crate::raft::codec::{self, Stint};
use crate::raft::failure::Failure;
use crate::raft::found::no_vote;
use crate::raft::log::Log;
use crate::raft::machine::ApplierCell;
use crate::raft::snapshot::Snapshots;
use crate::raft::stint::{cut, enter};
use crate::raft::types::{LeaderId, Vote, log_id};

fn at(term: u64, index: u64) -> Position {
    Position { term, leader: 1, index }
}

/// A log with entries of these terms from index 1 on, and the rest of a replica whose state stands at `applied`.
struct Replica {
    store: MemLog,
    log: Log,
    applier: TestApplier,
    cell: Arc<ApplierCell>,
    snapshots: Arc<Snapshots>,
    _dir: tempfile::TempDir,
}

impl Replica {
    fn new(terms: &[u64], applied: Position) -> Self {
        let store = MemLog::immediate("stints");
        let entry = |(index, term): (u64, &u64)| (index, codec::encode_sealed(&at(*term, index), b"", None));
        store.append((1..).zip(terms).map(entry).collect(), Box::new(|done| done.unwrap()));
        let applier = TestApplier::default();
        applier.0.lock().applied.position = Some(applied);
        let dir = tempfile::TempDir::new().unwrap();
        let snapshots = Arc::new(Snapshots::open(&dir.path().join("snapshots"), &applier).unwrap());
        let cell = Arc::new(ApplierCell::new(Box::new(applier.clone()), Failure::default()));
        let log = Log::new(Arc::new(store.clone()), Failure::default());
        Self { store, log, applier, cell, snapshots, _dir: dir }
    }

    async fn enter(&self, begun: bool, after: Position) -> bool {
        enter(&self.log, &self.cell, &self.snapshots, (9, begun), &after).await.unwrap()
    }

    fn entries(&self) -> Vec<u64> {
        let found = self.store.read(0..u64::MAX, usize::MAX).unwrap();
        found.into_iter().map(|(index, _)| index).collect()
    }
}

#[tokio::test]
async fn what_stands_behind_the_hand_over_goes_and_the_slot_names_the_stint() {
    // Raft has gone on in a later term: openraft would take that for newer than anything of the next stint.
    let replica = Replica::new(&[3, 3, 4, 6, 6], at(4, 3));
    replica.store.save_committed(codec::encode_log_id(Some(&log_id(&at(6, 5))))).unwrap();
    assert!(replica.enter(true, at(4, 3)).await);
    assert_eq!(replica.entries(), [1, 2, 3]);
    assert_eq!(replica.store.purged_index().unwrap(), Some(0), "for openraft a log begins at 0");
    assert_eq!(replica.log.stint().unwrap(), Some(Stint { start: 3, votes: true }));
    let vote = replica.log.vote().unwrap().unwrap();
    assert_eq!((vote.leader_id, vote.committed), (LeaderId { term: 4, node_id: 9 }, false));
    let committed = replica.store.read_committed().unwrap().unwrap();
    assert_eq!(codec::decode_log_id(&committed), Ok(Some(log_id(&at(4, 3)))));
    assert_eq!(replica.snapshots.kept(), Some(at(4, 3)), "the state outlives a loss of power");
}

#[tokio::test]
async fn raft_never_looks_for_what_it_had_committed_behind_the_end() {
    // Another engine takes over: the slot is still that of raft, which may have to start once more.
    let replica = Replica::new(&[3, 3, 4, 6, 6], at(4, 3));
    replica.store.save_committed(codec::encode_log_id(Some(&log_id(&at(6, 5))))).unwrap();
    cut(&replica.log, &at(4, 3)).await.unwrap();
    assert_eq!(replica.entries(), [1, 2, 3]);
    let committed = replica.store.read_committed().unwrap().unwrap();
    assert_eq!(codec::decode_log_id(&committed), Ok(Some(log_id(&at(4, 3)))));
}

#[tokio::test]
async fn whoever_is_in_the_stint_keeps_what_it_has_promised_there() {
    let replica = Replica::new(&[3, 3, 4], at(4, 3));
    assert!(replica.enter(true, at(4, 3)).await);
    let vote = Vote { leader_id: LeaderId { term: 8, node_id: 2 }, committed: true };
    openraft::storage::RaftLogStorage::save_vote(&mut replica.log.clone(), &vote).await.unwrap();
    let entry = codec::encode_sealed(&at(8, 4), b"", None);
    replica.store.append(vec![(4, entry)], Box::new(|done| done.unwrap()));
    assert!(replica.enter(true, at(4, 3)).await);
    assert_eq!((replica.entries(), replica.log.vote().unwrap()), (vec![1, 2, 3, 4], Some(vote)));
    assert_eq!(replica.log.stint().unwrap(), Some(Stint { start: 3, votes: true }));
    // The next stint is another one: a vote of this one says nothing there, and its term is not gone below.
    replica.applier.0.lock().applied.position = Some(at(8, 4));
    assert!(replica.enter(true, at(8, 4)).await);
    assert_eq!(replica.log.stint().unwrap(), Some(Stint { start: 4, votes: true }));
    assert_eq!(replica.log.vote().unwrap().unwrap().leader_id, LeaderId { term: 8, node_id: 9 });
}

#[tokio::test]
async fn an_entry_in_the_place_of_the_hand_over_and_a_log_that_ends_before_it_make_room() {
    let replica = Replica::new(&[3, 3, 9, 9], at(4, 3));
    assert!(replica.enter(true, at(4, 3)).await);
    assert_eq!((replica.entries(), replica.store.purged_index().unwrap()), (Vec::new(), Some(3)));
    let replica = Replica::new(&[3], at(4, 3));
    assert!(replica.enter(true, at(4, 3)).await);
    assert_eq!((replica.entries(), replica.store.purged_index().unwrap()), (Vec::new(), Some(3)));
    // Another start, before anything was written: nothing changes.
    assert!(replica.enter(true, at(4, 3)).await);
    assert_eq!(replica.store.purged_index().unwrap(), Some(3));
}

#[tokio::test]
async fn whoever_may_have_forgotten_does_not_vote() {
    let replica = Replica::new(&[], at(4, 3));
    assert!(!replica.enter(false, at(4, 3)).await, "its log was lost");
    assert_eq!(replica.store.read_vote().unwrap(), None);
    let follower = codec::encode_stint(&no_vote(9), Stint { start: 1, votes: false });
    replica.store.save_vote(follower.clone(), Box::new(|done| done.unwrap()));
    assert!(!replica.enter(true, at(4, 3)).await, "it only followed");
    assert_eq!(replica.store.read_vote().unwrap(), Some(follower));
}
