//! Meetings: what another node can have a member do that is asked to make a snapshot behind a certain entry.

use std::sync::Arc;
use std::time::Duration;

use ledger::hash::Hash32;
use ledger::ids::NodeId;
use ledger::limits::{MEETING_AHEAD_MAX, MEETING_SNAPSHOTS_MAX, MEETINGS_MAX};
use tempfile::TempDir;
use tokio::time::advance;

use super::support::TestApplier;
use crate::port::Position;
use crate::raft::failure::Failure;
use crate::raft::machine::ApplierCell;
use crate::raft::meetings;
use crate::raft::snapshot::{Folder, Snapshots};
use crate::raft::wire::{Meet, Met};

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
