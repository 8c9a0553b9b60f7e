//! Meetings: what another node can have a member do that is asked to make a snapshot behind a certain entry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId};
use ledger::limits::{MEETING_AHEAD_MAX, MEETING_SNAPSHOTS_MAX, MEETINGS_MAX};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::{Instant, advance};

use super::support::{GROUP, TestApplier, raft_id};
use crate::port::{Position, Timing};
use crate::raft::config::sender;
use crate::raft::failure::Failure;
use crate::raft::fetch::Asked;
use crate::raft::machine::ApplierCell;
use crate::raft::meet::{self, Meeting};
use crate::raft::meetings;
use crate::raft::network::Sender;
use crate::raft::snapshot::{Folder, Snapshots};
use crate::raft::vouch::Told;
use crate::raft::wire::{self, Meet, Met};
use crate::raft::{RaftGroupConfig, RaftTransport, TransportError};

/// A member with its snapshots on disk.
struct Member {
    applier: TestApplier,
    cell: Arc<ApplierCell>,
    snapshots: Arc<Snapshots>,
    dir: TempDir,
}

impl Member {
    fn new() -> Self {
        let (dir, applier) = (TempDir::new().unwrap(), TestApplier::default());
        let snapshots = Arc::new(Snapshots::open(dir.path(), &applier).unwrap());
        let cell = Arc::new(ApplierCell::new(Box::new(applier.clone()), Failure::default()));
        Self { applier, cell, snapshots, dir }
    }

    /// Applies an entry as the group's task does.
    async fn apply(&self, index: u64) {
        self.applier.0.lock().applied.position = Some(Position { term: 1, leader: 1, index });
        let snapshots = self.snapshots.clone();
        self.cell.run(move |applier| snapshots.meetings.reached(applier, &snapshots)).await.unwrap();
    }

    async fn ask(&self, node: u32, index: u64) -> Result<Met, &'static str> {
        let met = meetings::answer(&self.snapshots, &self.cell, NodeId(node), Meet { index }).await;
        met.map_err(|error| error.code())
    }

    /// Asks until it has counted.
    async fn counted(&self, node: u32, index: u64) -> Met {
        loop {
            match self.ask(node, index).await.unwrap() {
                Met::Counting => tokio::task::yield_now().await,
                met => return met,
            }
        }
    }

    /// Makes a snapshot of its own accord.
    async fn build(&self) -> Arc<Folder> {
        let snapshots = self.snapshots.clone();
        self.cell.run(move |applier| snapshots.build(applier)).await.unwrap()
    }

    fn folder(&self, node: u32) -> Option<u64> {
        let folder = self.snapshots.meetings.folder(NodeId(node))?;
        folder.applied.position.map(|position| position.index)
    }

    fn kept(&self) -> usize {
        let names = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().is_some_and(|name| name.starts_with("at-"))).count()
    }
}

#[tokio::test]
async fn a_snapshot_is_made_exactly_where_others_were_asked_for_theirs() {
    let member = Member::new();
    member.apply(10).await;
    assert_eq!(member.ask(1, 9).await, Ok(Met::Passed(10)));
    assert_eq!(member.ask(1, 12).await, Ok(Met::Waits));
    assert_eq!(member.ask(2, 10).await, Ok(Met::Counting), "it stands there now");
    member.apply(11).await;
    assert_eq!((member.ask(1, 12).await, member.folder(1)), (Ok(Met::Waits), None));
    member.apply(12).await;
    member.apply(13).await;
    assert_eq!((member.folder(1), member.folder(2)), (Some(12), Some(10)));
    for (node, index) in [(1, 12), (2, 10)] {
        assert_eq!(member.counted(node, index).await, Met::Counted(Hash32::ZERO));
    }
    // Nobody is told of another one's, and each node has one at a time.
    assert_eq!(member.ask(3, 12).await, Ok(Met::Passed(13)));
    assert_eq!(member.ask(1, 14).await, Ok(Met::Waits));
    assert_eq!((member.ask(1, 12).await, member.folder(1)), (Ok(Met::Passed(13)), None));
}

/// One that says that it stands elsewhere is that of a liar, and whoever asks has to be lent it to find that out.
#[tokio::test]
async fn the_snapshot_that_was_made_at_an_entry_before_is_the_one_of_the_meeting_whatever_it_says_of_itself() {
    let member = Member::new();
    member.applier.0.lock().claims = Some(Position { term: 1, leader: 1, index: 7 });
    member.apply(10).await;
    let made = member.build().await;
    assert_eq!(member.ask(1, 10).await, Ok(Met::Counting));
    let met = member.snapshots.meetings.folder(NodeId(1)).unwrap();
    assert!(Arc::ptr_eq(&made, &met));
    drop(made);
    assert_eq!((member.folder(1), member.kept()), (Some(7), 1));
    assert!(!met.sent().unwrap().manifest.files.is_empty(), "its files are there");
    assert_eq!(member.counted(1, 10).await, Met::Counted(Hash32::ZERO));
}

/// A state in which nothing is applied is not the one behind the first entry, whose position is all zeros.
#[tokio::test]
async fn a_snapshot_of_nothing_does_not_stand_in_the_place_of_the_first_one() {
    let member = Member::new();
    let empty = member.build().await;
    member.applier.0.lock().applied.position = Some(Position::default());
    let first = member.build().await;
    assert_eq!((empty.applied.position, first.applied.position), (None, Some(Position::default())));
    drop(empty);
    assert!(!first.sent().unwrap().manifest.files.is_empty(), "its files are there");
    assert_eq!((member.kept(), std::fs::read_dir(member.dir.path()).unwrap().count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn no_node_has_snapshots_made_all_the_time_or_keeps_them() {
    let member = Member::new();
    member.apply(1).await;
    assert_eq!(member.ask(1, 2 + MEETING_AHEAD_MAX).await, Err("snapshot_busy"), "nobody waits for that");
    let last = 1 + u64::from(MEETING_SNAPSHOTS_MAX);
    for index in 2..=last {
        assert_eq!(member.ask(1, index).await, Ok(Met::Waits));
        member.apply(index).await;
        assert_eq!(member.folder(1), Some(index));
    }
    assert_eq!(member.ask(1, last).await, Ok(Met::Counting), "what there is, is told");
    assert_eq!(member.ask(1, last + 1).await, Ok(Met::Waits));
    member.apply(last + 1).await;
    assert_eq!(member.folder(1), None, "it has had as many as it may");
    assert_eq!(member.ask(1, last + 1).await, Err("snapshot_busy"));
    assert_eq!(member.ask(2, last + 1).await, Ok(Met::Counting), "another one has not");
    assert_eq!(member.counted(2, last + 1).await, Met::Counted(Hash32::ZERO));
    assert_eq!(member.kept(), 1);
    advance(Duration::from_secs(30)).await;
    assert_eq!(member.ask(1, last + 1).await, Ok(Met::Counting));
    advance(Duration::from_secs(61)).await;
    member.apply(last + 2).await;
    assert_eq!((member.folder(1), member.folder(2)), (None, None), "nobody wants them any more");
    assert_eq!(member.ask(2, last + 1).await, Ok(Met::Counted(Hash32::ZERO)), "what it has counted it still tells");
}

#[tokio::test(start_paused = true)]
async fn so_many_nodes_are_remembered() {
    let member = Member::new();
    member.apply(1).await;
    let nodes = u32::try_from(MEETINGS_MAX).unwrap();
    for node in 1..=nodes {
        assert_eq!(member.ask(node, 5).await, Ok(Met::Waits));
        advance(Duration::from_millis(1)).await;
    }
    assert_eq!(member.ask(nodes + 1, 5).await, Ok(Met::Waits));
    member.apply(5).await;
    assert_eq!(member.folder(1), None, "who has not asked for the longest time");
    assert_eq!((member.folder(2), member.folder(nodes + 1)), (Some(5), Some(5)));
}

/// Whoever asks for one after the other and waits for none would fill the queue that all wait in, and the disk.
#[tokio::test]
async fn one_node_has_one_snapshot_counted_at_a_time_and_none_that_it_asks_for_no_more() {
    let member = Member::new();
    let turn = member.snapshots.meetings.counting.clone().lock_owned().await;
    let last = u64::from(MEETING_SNAPSHOTS_MAX);
    for index in 1..=last {
        member.apply(index).await;
        assert_eq!(member.ask(1, index).await, Ok(Met::Counting), "{index}");
    }
    assert_eq!(member.kept(), 2, "the one that waits for its turn, and the last one");
    assert_eq!(member.ask(2, last).await, Ok(Met::Counting));
    drop(turn);
    assert_eq!(member.counted(2, last).await, Met::Counted(Hash32::ZERO));
    assert_eq!(member.kept(), 1, "nobody wants the first one any more");
    assert_eq!(member.counted(1, last).await, Met::Counted(Hash32::ZERO), "and no rest follows what was not read");
}

/// Two members of a group that orders a hundred entries a second, and a third one that holds back whatever it is asked for,
/// nearly as long as it is waited for.
struct Busy {
    begun: Instant,
    /// The entries that snapshots are made behind, by the member.
    agreed: Mutex<BTreeMap<NodeId, u64>>,
}

const SLOW: NodeId = NodeId(3);

impl Busy {
    fn at(&self) -> u64 {
        1_000 + u64::try_from(self.begun.elapsed().as_millis() / 10).unwrap()
    }

    fn met(&self, member: NodeId, index: u64) -> Met {
        let (at, mut agreed) = (self.at(), self.agreed.lock());
        if at <= index {
            agreed.insert(member, index);
        }
        match agreed.get(&member) == Some(&index) {
            true if at < index => Met::Waits,
            true => Met::Counting,
            false => Met::Passed(at),
        }
    }
}

#[async_trait]
impl RaftTransport for Busy {
    async fn call(&self, to: NodeId, _group: GroupId, kind: u8, payload: Bytes) -> Result<Bytes, TransportError> {
        if to == SLOW {
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
        match kind {
            wire::BFT_PLACE => Ok(wire::reply(&Told { from: 0, upto: self.at(), place: None })),
            wire::SNAPSHOT_MEET => {
                let request = wire::open_request(payload).unwrap();
                let Meet { index } = wire::body(&request.body).unwrap();
                Ok(wire::reply(&self.met(to, index)))
            }
            _ => Err(TransportError::Refused("it meets, and nothing else".to_owned())),
        }
    }
}

/// The way of node 4 to the others.
fn way(dir: &TempDir, others: Arc<dyn RaftTransport>) -> Arc<Sender> {
    let config = RaftGroupConfig {
        group: GROUP,
        raft_id: raft_id(4),
        node: NodeId(4),
        timing: Timing { heartbeat_ms: 1_000, election_min_ms: 3_000, election_max_ms: 5_000 },
        snapshot_dir: dir.path().to_path_buf(),
        snapshot_every_entries: 0,
        snapshot_keep_entries: 5,
    };
    Arc::new(sender(&config, others))
}

#[tokio::test(start_paused = true)]
async fn one_that_is_slow_to_say_where_it_is_keeps_nobody_from_meeting_the_others() {
    let dir = TempDir::new().unwrap();
    let way = way(&dir, Arc::new(Busy { begun: Instant::now(), agreed: Mutex::default() }));
    let others = [NodeId(1), NodeId(2), SLOW];
    let met = meet::meet(&way, Asked::all(&others, true)).await;
    assert!(matches!(&met, Some(Meeting { nodes, .. }) if *nodes == [NodeId(1), NodeId(2)]), "{met:?}");
}

/// Two members of a group that stands still, since it needs the borrower, and a third one that votes for nothing and says that it has
/// passed whatever it is asked for.
struct Still;

const AT: u64 = 50;
const LIAR: NodeId = NodeId(3);

#[async_trait]
impl RaftTransport for Still {
    async fn call(&self, to: NodeId, _group: GroupId, kind: u8, payload: Bytes) -> Result<Bytes, TransportError> {
        match kind {
            wire::BFT_PLACE => {
                let upto = if to == LIAR { u64::MAX } else { AT };
                Ok(wire::reply(&Told { from: 0, upto, place: None }))
            }
            wire::SNAPSHOT_MEET => {
                let request = wire::open_request(payload).unwrap();
                let Meet { index } = wire::body(&request.body).unwrap();
                Ok(wire::reply(&match index {
                    _ if to == LIAR => Met::Passed(index + 1),
                    ..AT => Met::Passed(AT),
                    AT => Met::Counting,
                    _ => Met::Waits,
                }))
            }
            _ => Err(TransportError::Refused("it meets, and nothing else".to_owned())),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_says_that_it_has_gone_on_keeps_nobody_from_a_group_that_stands_still() {
    let dir = TempDir::new().unwrap();
    let way = way(&dir, Arc::new(Still));
    let others = [NodeId(1), NodeId(2), LIAR];
    let begun = Instant::now();
    let met = meet::meet(&way, Asked::all(&others, true)).await;
    assert_eq!(met, Some(Meeting { index: AT, nodes: vec![NodeId(1), NodeId(2)] }));
    // Entries are waited for that come only when the borrower is there.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
