//! Lending: what borrowers can have a lender do, and how long a lender can keep a borrower.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId};
use ledger::limits::LENT_MAX;
use tempfile::TempDir;
use tokio::time::{Instant, advance};

use super::support::{GROUP, TestApplier, raft_id};
use crate::port::{Position, SnapshotSecret, Timing};
use crate::raft::config::sender;
use crate::raft::failure::Failure;
use crate::raft::fetch::{self, Lender};
use crate::raft::machine::ApplierCell;
use crate::raft::network::Sender;
use crate::raft::snapshot::{Snapshots, snapshot_name};
use crate::raft::vouch::Told;
use crate::raft::wire::{self, Ask, AskReply, FileInfo, Manifest, ReadReply};
use crate::raft::{RaftGroupConfig, RaftTransport, TransportError, serve};

/// Longer than the rest behind a snapshot that was made in no time.
const REST: Duration = Duration::from_secs(2);

fn at(index: u64) -> Position {
    Position { term: 1, leader: 1, index }
}

fn reach(applier: &TestApplier, index: u64) {
    applier.0.lock().applied.position = Some(at(index));
}

fn lender(dir: &Path, applier: &TestApplier) -> Lender {
    let snapshots = Arc::new(Snapshots::open(dir, applier).unwrap());
    let cell = ApplierCell::new(Box::new(applier.clone()), Failure::default());
    Lender::new(snapshots, Arc::new(cell), Arc::default())
}

/// The name of what a node is lent, or why it is not.
async fn ask(lender: &Lender, node: u32, at_least: u64) -> Result<[u8; 32], &'static str> {
    match lender.ask(NodeId(node), Ask { at_least }).await {
        Ok(AskReply::Lent(manifest, _)) => Ok(snapshot_name(&manifest).unwrap()),
        Ok(AskReply::Behind) => Err("behind"),
        Err(error) => Err(error.code()),
    }
}

async fn reads(lender: &Lender, node: u32, snapshot: [u8; 32]) -> bool {
    let read = wire::Read { snapshot, file: 0, offset_bytes: 0 };
    matches!(lender.read(NodeId(node), read).await, Ok(ReadReply::Data(_)))
}

/// Snapshots on the disk of a lender.
fn kept(dir: &TempDir) -> usize {
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("at-")).count()
}

#[tokio::test(start_paused = true)]
async fn borrowers_share_what_is_there_and_nobody_has_one_snapshot_made_after_the_other() {
    let (dir, applier) = (TempDir::new().unwrap(), TestApplier::default());
    let lender = lender(dir.path(), &applier);
    reach(&applier, 10);
    assert_eq!(ask(&lender, 1, 11).await, Err("behind"));
    let first = ask(&lender, 1, 10).await.unwrap();
    reach(&applier, 12);
    assert_eq!(ask(&lender, 2, 9).await, Ok(first));
    for _ in 0..100 {
        assert_eq!(ask(&lender, 1, 11).await, Err("snapshot_busy"));
        assert_eq!(ask(&lender, 1, u64::MAX).await, Err("snapshot_busy"));
    }
    assert_eq!(kept(&dir), 1);
    advance(REST).await;
    assert_eq!(ask(&lender, 1, u64::MAX).await, Err("behind"), "which takes no rest");
    let second = ask(&lender, 1, 11).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(ask(&lender, 3, 9).await, Ok(second), "the last one");
    assert_eq!(ask(&lender, 2, 9).await, Ok(first), "one that has begun goes on");
    assert!(reads(&lender, 2, first).await && reads(&lender, 1, second).await);
    assert!(!reads(&lender, 1, first).await, "it has given it up for the other one");
}

#[tokio::test(start_paused = true)]
async fn a_slow_borrower_keeps_nobody_from_theirs_and_nothing_for_ever() {
    let (dir, applier) = (TempDir::new().unwrap(), TestApplier::default());
    let lender = lender(dir.path(), &applier);
    reach(&applier, 10);
    let first = ask(&lender, 1, 10).await.unwrap();
    advance(REST).await;
    reach(&applier, 20);
    let second = ask(&lender, 2, 20).await.unwrap();
    assert!(reads(&lender, 1, first).await && reads(&lender, 2, second).await);
    assert!(!reads(&lender, 1, second).await && !reads(&lender, 3, first).await, "each reads its own");
    assert_eq!(kept(&dir), 2);
    advance(Duration::from_secs(30)).await;
    assert!(!reads(&lender, 1, first).await);
    assert_eq!(kept(&dir), 1);
    assert_eq!(ask(&lender, 1, 10).await, Ok(second));
}

#[tokio::test(start_paused = true)]
async fn so_many_snapshots_are_lent_at_a_time() {
    let (dir, applier) = (TempDir::new().unwrap(), TestApplier::default());
    let lender = lender(dir.path(), &applier);
    let last = LENT_MAX as u32;
    for node in 1..=last {
        reach(&applier, 10 * u64::from(node));
        ask(&lender, node, 10 * u64::from(node)).await.unwrap();
        advance(REST).await;
    }
    reach(&applier, 1000);
    assert_eq!(ask(&lender, last + 1, 1000).await, Err("snapshot_busy"));
    assert_eq!(kept(&dir), LENT_MAX);
    let newest = ask(&lender, last, 1000).await.unwrap();
    assert_eq!(kept(&dir), LENT_MAX, "in the place of its own");
    assert_eq!(ask(&lender, last + 1, 1000).await, Ok(newest), "which others share");
    advance(Duration::from_secs(31)).await;
    assert!(!reads(&lender, 1, newest).await);
    assert_eq!(kept(&dir), 1);
}

const LIAR: NodeId = NodeId(1);
const HONEST: NodeId = NodeId(2);
const BORROWER: NodeId = NodeId(3);

#[derive(Clone, Copy)]
enum Trickle {
    /// A byte at a time.
    Bytes,
    /// Whole pieces, each just before the borrower gives up waiting for it.
    Late,
}

/// A lender that trickles, beside one that does not.
struct Lenders {
    honest: Lender,
    trickle: Trickle,
    /// What the liar says that its snapshot weighs, and the engine's note in it.
    large_bytes: u64,
    note: Vec<u8>,
    /// The place that all but the honest one tell.
    told: Option<Hash32>,
    /// Answers of the liar.
    reads: AtomicU64,
}

impl Lenders {
    fn new(dir: &Path, applier: &TestApplier, trickle: Trickle) -> Self {
        let (honest, reads) = (lender(dir, applier), AtomicU64::new(0));
        Self { honest, trickle, large_bytes: 64 << 20, note: Vec::new(), told: None, reads }
    }
}

#[async_trait]
impl RaftTransport for Lenders {
    async fn call(&self, to: NodeId, _group: GroupId, kind: u8, payload: Bytes) -> Result<Bytes, TransportError> {
        let request = wire::open_request(payload).unwrap();
        if to == HONEST {
            let lent = serve::lend(&self.honest, BORROWER, kind, &request.body).await;
            return lent.map_err(|error| TransportError::Refused(error.to_string()));
        }
        if kind == wire::SNAPSHOT_ASK {
            let large = FileInfo { path: "large".to_owned(), length_bytes: self.large_bytes, sha256: [7; 32] };
            let (position, membership) = (Some(at(10)), self.note.clone());
            let manifest = Manifest { position, membership_at: None, membership, files: vec![large] };
            return Ok(wire::reply(&AskReply::Lent(manifest, SnapshotSecret::default())));
        }
        if let Some(place) = self.told.filter(|_| kind == wire::BFT_PLACE) {
            return Ok(wire::reply(&Told { from: 0, upto: 10, place: Some(place) }));
        }
        if kind != wire::SNAPSHOT_READ {
            return Err(TransportError::Refused("it lends, and says nothing else".to_owned()));
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        let data = match self.trickle {
            Trickle::Bytes => vec![0],
            Trickle::Late => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                vec![0; wire::PART_BYTES_MAX]
            }
        };
        Ok(wire::reply(&ReadReply::Data(data.into())))
    }
}

/// A borrower's way to both.
fn way(dir: &Path, lenders: &Arc<Lenders>) -> Arc<Sender> {
    let config = RaftGroupConfig {
        group: GROUP,
        raft_id: raft_id(BORROWER.0),
        node: BORROWER,
        timing: Timing { heartbeat_ms: 1_000, election_min_ms: 3_000, election_max_ms: 5_000 },
        snapshot_dir: dir.to_path_buf(),
        snapshot_every_entries: 0,
        snapshot_keep_entries: 5,
    };
    Arc::new(sender(&config, lenders.clone()))
}

#[tokio::test(start_paused = true)]
async fn a_lender_that_trickles_is_left_for_the_next_one() {
    for (trickle, answers, seconds, reason) in
        [(Trickle::Bytes, 1, 0, "1 bytes where 1048576 were asked for"), (Trickle::Late, 8, 40, "too slow")]
    {
        let (there, here, applier) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TestApplier::default());
        reach(&applier, 10);
        let lenders = Arc::new(Lenders::new(there.path(), &applier, trickle));
        let sender = way(here.path(), &lenders);
        let snapshots = Arc::new(Snapshots::open(here.path(), &TestApplier::default()).unwrap());
        let begun = Instant::now();
        let refused = fetch::borrow(&sender, &snapshots, at(10), &[LIAR]).await.err().unwrap();
        assert!(refused.to_string().contains(reason), "{refused}");
        assert_eq!(lenders.reads.load(Ordering::Relaxed), answers);
        assert_eq!(begun.elapsed().as_secs(), seconds);
        assert!(fetch::borrow(&sender, &snapshots, at(10), &[LIAR, HONEST]).await.is_ok());
        assert_eq!(lenders.reads.load(Ordering::Relaxed), answers, "who gave nothing the last time is asked last");
        let elsewhere = TempDir::new().unwrap();
        let others = Arc::new(Snapshots::open(elsewhere.path(), &TestApplier::default()).unwrap());
        assert!(fetch::borrow(&sender, &others, at(10), &[LIAR, HONEST]).await.is_ok());
        assert_eq!(lenders.reads.load(Ordering::Relaxed), 2 * answers, "it was asked first, and no longer");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lender_whose_snapshot_would_fill_the_disk_is_left_before_it_is_read() {
    let (there, here, applier) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TestApplier::default());
    reach(&applier, 10);
    let liar = Lenders::new(there.path(), &applier, Trickle::Bytes);
    let lenders = Arc::new(Lenders { large_bytes: u64::MAX, ..liar });
    let sender = way(here.path(), &lenders);
    let snapshots = Arc::new(Snapshots::open(here.path(), &TestApplier::default()).unwrap());
    let refused = fetch::borrow(&sender, &snapshots, at(10), &[LIAR]).await.err().unwrap();
    assert!(refused.to_string().contains("node 1: snapshot_too_large: "), "{refused}");
    assert!(fetch::borrow(&sender, &snapshots, at(10), &[LIAR, HONEST]).await.is_ok());
    assert_eq!(lenders.reads.load(Ordering::Relaxed), 0);
}

#[cfg(feature = "bft")]
#[tokio::test(start_paused = true)]
async fn nothing_is_read_that_nobody_could_vouch_for() {
    use ledger::committee::{Committee, Engine};
    use ledger::ids::{Epoch, Incarnation};

    let (there, applier) = (TempDir::new().unwrap(), TestApplier::default());
    let committee = Committee::of(Engine::Bft, GROUP, Incarnation::default(), Epoch::default(), Vec::new());
    let note = crate::bft::Chain::start(10, Hash32([1; 32]), &committee).encode().to_vec();
    let place = Some(Hash32([7; 32]));
    // One of four may lie, so beside a lender another one has to tell.
    let four = [LIAR, NodeId(4), NodeId(5)];
    for (note, told, reads, reason) in [
        (note.clone(), None, 0, "snapshot_unconfirmed: 0 others say alike where it stands, and 1 have to"),
        (note, place, 3, "1 bytes where 1048576 were asked for"),
        // Under raft the lender's word is enough.
        (Vec::new(), None, 3, "1 bytes where 1048576 were asked for"),
    ] {
        let here = TempDir::new().unwrap();
        let liar = Lenders::new(there.path(), &applier, Trickle::Bytes);
        let lenders = Arc::new(Lenders { note, told, ..liar });
        let snapshots = Arc::new(Snapshots::open(here.path(), &TestApplier::default()).unwrap());
        let refused = fetch::borrow(&way(here.path(), &lenders), &snapshots, at(10), &four).await.err().unwrap();
        assert_eq!(refused.0.len(), four.len());
        assert!(refused.0.iter().all(|(_, what)| what.contains(reason)), "{refused}");
        assert_eq!(lenders.reads.load(Ordering::Relaxed), reads);
    }
}
