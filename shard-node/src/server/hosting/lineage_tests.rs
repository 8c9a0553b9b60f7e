use std::sync::mpsc;

use bytes::Bytes;
use ledger::genesis::VerifyMode;
use ledger::hash::Hash32;
use ledger::ids::{LayoutVersion, TimeMs};
use ledger::lineage::{BORN_VERSION, BornShard, ORIGIN_VERSION, ParentEnd, Segment};
use ledger::tree::SubtreeRoot;

use super::*;
use crate::core::elastic::{JOB, LEFT, merge_seal, split_seal};
use crate::core::support::{PEER, SHARD};
use crate::server::testing::{Lone, LoneNode, lone_genesis};

/// The view of a cluster in which [`LEFT`] is what these shards were cut or joined into.
fn born_of(node: &LoneNode, parents: &[GroupId]) -> ClusterView {
    let mut view = ClusterView::of_genesis(&node.hosted.context.genesis);
    let seal = if parents.len() == 1 { split_seal() } else { merge_seal() };
    let end = |group: &GroupId| ParentEnd {
        group: *group,
        height: Height(9),
        header_hash: Hash32([9; 32]),
        time_ms: TimeMs(9),
        root: SubtreeRoot::EMPTY,
    };
    view.born = Arc::new(vec![BornShard {
        version: BORN_VERSION,
        group: LEFT,
        prefix: seal.children[0].prefix,
        committee: seal.children[0].committee.hash(),
        job: JOB,
        layout: LayoutVersion(2),
        parents: parents.iter().map(end).collect(),
        roots: vec![SubtreeRoot::EMPTY],
    }]);
    view
}

/// Something in a log, durably.
fn write(node: &LoneNode, group: GroupId, beside: bool) {
    let engine = node.hosted.log.read();
    let engine = engine.as_ref().expect("the log is open");
    let cipher = LocalSeal::open().cipher();
    let log = if beside { engine.beside(group.0, cipher) } else { engine.group(group.0, cipher) };
    let (written, done) = mpsc::channel();
    let entry = (1, Bytes::from_static(b"an entry"));
    log.expect("a log").append(vec![entry], Box::new(move |outcome| written.send(outcome).expect("the test waits")));
    done.recv().expect("it is answered").expect("it is written");
}

/// What there is on the disk of a node that starts.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// The log of a shard.
    Log(GroupId),
    /// What a Byzantine member of a shard has signed.
    Ballots(GroupId),
    /// The state of the child.
    State,
}

#[test]
fn a_certificate_that_is_passed_on_is_not_looked_at_again() {
    let heights = |of: std::ops::RangeInclusive<u64>| of.map(Height).collect::<Vec<_>>();
    let mut ending = Ending::default();
    assert_eq!(ending.open(Height(0), Height(9)), heights(0..=9));
    assert_eq!(ending.open(Height(0), Height(200)), heights(136..=200), "the last ones only");
    assert_eq!(ending.open(Height(190), Height(200)), heights(190..=200), "and none of others");
    ending.lent.extend(heights(190..=199));
    assert_eq!(ending.open(Height(190), Height(200)), [Height(200)], "that of the last one comes late");
    ending.lent.insert(Height(200));
    assert!(ending.open(Height(190), Height(200)).is_empty());
}

#[tokio::test]
async fn whoever_has_the_logs_of_the_parents_and_nothing_of_the_child_has_missed_its_birth() {
    use Found::{Ballots, Log, State};
    let cases: [(&[GroupId], &[Found], bool); 9] = [
        (&[SHARD], &[Log(SHARD)], true),
        (&[SHARD], &[Ballots(SHARD)], true),
        // It has joined later, or has lost everything: nothing says which.
        (&[SHARD], &[], false),
        (&[SHARD], &[Log(PEER)], false),
        // It has promised something there.
        (&[SHARD], &[Log(SHARD), Log(LEFT)], false),
        (&[SHARD], &[Log(SHARD), Ballots(LEFT)], false),
        (&[SHARD], &[Log(SHARD), State], false),
        // It was a member of one of those that were joined.
        (&[SHARD, PEER], &[Log(SHARD)], false),
        (&[SHARD, PEER], &[Log(SHARD), Log(PEER)], true),
    ];
    for (parents, found, missed) in cases {
        let node = LoneNode::new(Arc::new(lone_genesis(VerifyMode::Ingest)));
        let hosting = node.hosting();
        for found in found {
            match found {
                Log(group) => write(&node, *group, false),
                Ballots(group) => write(&node, *group, true),
                State => std::fs::create_dir_all(hosting.folder(LEFT).join("state")).expect("a folder"),
            }
        }
        let view = born_of(&node, parents);
        assert_eq!(hosting.missed_birth(&view, LEFT), missed, "of {parents:?}, with {found:?}");
        // No group of the genesis was born, whatever is in whichever log.
        assert!(!hosting.missed_birth(&view, SHARD), "with {found:?}");
        // Without a log that can be read nothing is known, and the seat is not taken.
        let log = node.hosted.log.write().take();
        assert!(!hosting.missed_birth(&view, LEFT), "with {found:?}");
        *node.hosted.log.write() = log;
        node.end().await;
    }
}

/// Writes to the state of a replica, beside its blocks.
fn put(handle: &GroupHandle, key: Vec<u8>, value: Vec<u8>) {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    handle.share.state.db().expect("the state is open").write(batch).expect("a write");
}

/// A shard that came of [`SHARD`], whose blocks stand under the plain keys or not.
fn origin(on_spine: bool) -> Vec<u8> {
    let before = Segment { group: SHARD, from: Height(0), to: Height(900) };
    let (spine, archived) = if on_spine { (vec![before], Vec::new()) } else { (Vec::new(), vec![before]) };
    let (first, header_hash) = (Height(901), Hash32([9; 32]));
    let origin = Origin { version: ORIGIN_VERSION, job: JOB, first, header_hash, parents: Vec::new(), spine, archived };
    borsh::to_vec(&origin).expect("writing to memory does not fail")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_passed_on_to_those_that_can_take_it_and_counts_once_all_have_it() {
    let [parent, left, right] = [
        Lone::start(VerifyMode::Ingest).await,
        Lone::start(VerifyMode::Ingest).await,
        Lone::start(VerifyMode::Ingest).await,
    ];
    let (height, key) = (Height(900), schema::certificate(Height(900)));
    let children = [&left, &right].map(|child| Arc::clone(&child.handle));
    let lend = || lend_certificate(&parent.handle, height, &children).expect("the states can be read");
    let has = |child: &Lone, key: &[u8]| {
        child.handle.share.state.db().expect("it is open").get(key).expect("it can be read").is_some()
    };
    assert_eq!(lend(), None, "there is none");
    put(&parent.handle, key.clone(), b"a certificate".to_vec());
    // The second one does not know yet what it came of.
    put(&left.handle, schema::origin(), origin(true));
    assert_eq!(lend(), Some(false));
    let archived = schema::archived(SHARD, &key);
    assert!(has(&left, &key) && !has(&right, &key) && !has(&right, &archived));
    put(&right.handle, schema::origin(), origin(false));
    assert_eq!(lend(), Some(true));
    assert!(has(&right, &archived) && !has(&right, &key) && !has(&left, &archived));
    drop(children);
    for lone in [parent, left, right] {
        lone.stop().await;
    }
}
