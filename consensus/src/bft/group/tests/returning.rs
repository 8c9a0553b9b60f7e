//! Members that were away: by decided values, by a snapshot, all at once, and those that have no vote.

use ledger::ids::NodeId;
use storage::{LogStore, MemLog};

use super::support::*;
use crate::bft::{BftTiming, Message};
use crate::port::replica_id;
use crate::raft::{FoundError, wire};
use crate::sequencer::Sequencer;

const ALL: [u32; 4] = [1, 2, 3, 4];

/// A group whose fourth member is away, and the last entry of the others.
pub(super) async fn without_the_fourth() -> (Cluster, u32, u64) {
    let mut cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let first = cluster.propose(leader, "with it").await;
    cluster.applied(&ALL, first).await;
    cluster.stop(4).await;
    let mut last = first;
    for number in 0..20 {
        last = cluster.propose(leader, &number.to_string()).await;
    }
    cluster.applied(&[1, 2, 3], last).await;
    (cluster, leader, last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_catches_up_by_decided_values() {
    let (mut cluster, leader, last) = without_the_fourth().await;
    cluster.start(4).await;
    assert!(cluster.group(4).votes(), "it has the records of its votes");
    cluster.applied(&[1, 4], last).await;
    assert_eq!(cluster.batches(4), cluster.batches(1));
    assert_eq!(cluster.state(4).installed, 0);
    // It takes part again: without another one, all three that are left are needed.
    let other = [1, 2, 3].into_iter().find(|node| *node != leader).unwrap();
    cluster.stop(other).await;
    let last = cluster.propose(leader, "with it again").await;
    cluster.applied(&[4], last).await;
}

/// The leader says to one that is behind that it is far ahead, and freezes: the others cannot go on without the one
/// that is behind, and that one cannot without them. A question to the frozen one takes longer than two more need
/// to become due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_behind_catches_up_though_a_frozen_one_is_asked_first() {
    let cluster = Cluster::new(4, BftTiming { repeat_ms: 700, ..QUICK }).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let first = cluster.propose(leader, "with it").await;
    cluster.applied(&ALL, first).await;
    cluster.net.cut(4);
    let mut last = first;
    for number in 0..5 {
        last = cluster.propose(leader, &number.to_string()).await;
    }
    cluster.applied(&[1, 2, 3], last).await;
    cluster.net.freeze(leader);
    for node in [1, 2, 3] {
        let index = if node == leader { u64::MAX } else { last + 1 };
        let says = vec![Message::Want { index, value: ledger::Hash32([5; 32]) }];
        let (to, from) = (replica_id(NodeId(4), 1), replica_id(NodeId(node), 1));
        let says = wire::request(wire::Head { to, from, stint: 0 }, &says);
        cluster.group(4).handle(NodeId(node), wire::BFT_MESSAGES, says).await.unwrap();
    }
    cluster.net.stuck(4).await;
    cluster.net.join(4);
    cluster.applied(&[4], last).await;
    // With it, the three that are left decide again.
    let left: Vec<u32> = ALL.into_iter().filter(|node| *node != leader).collect();
    let last = left.iter().map(|node| cluster.group(*node).role().borrow().applied_index).max().unwrap();
    cluster.applied(&left, last + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_for_long_takes_a_snapshot() {
    let (mut cluster, leader, last) = without_the_fourth().await;
    for node in [1, 2, 3] {
        let upto = cluster.group(node).snapshot_now().await.unwrap();
        assert!(upto >= last);
        cluster.group(node).purge(upto).await.unwrap();
        assert!(cluster.nodes[&node].log().first_index().unwrap().is_none_or(|first| first > last));
    }
    cluster.start(4).await;
    cluster.applied(&[4], last).await;
    // More than one, when the logs of others begin behind the first.
    assert!(cluster.state(4).installed >= 1);
    let last = cluster.propose(leader, "behind it").await;
    cluster.applied(&[1, 4], last).await;
    assert_eq!(cluster.batches(4), cluster.batches(1));
    // Its own log goes on behind the snapshot, for a start that finds its state.
    cluster.stop(4).await;
    cluster.start(4).await;
    let last = cluster.propose(leader, "after another start").await;
    cluster.applied(&[1, 4], last).await;
    assert_eq!(cluster.batches(4), cluster.batches(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_stopped_goes_on_from_its_disks() {
    let mut cluster = Cluster::on(4, CALM, |_| Disk::Engine(None), 0).await;
    let leader = cluster.leader(&ALL).await;
    let mut last = 0;
    for number in 0..20 {
        last = cluster.propose(leader, &number.to_string()).await;
    }
    cluster.applied(&ALL, last).await;
    for node in ALL {
        cluster.stop(node).await;
    }
    // One has lost its state, which its log has whole.
    *cluster.nodes[&2].applier.0.lock() = State::new(committee(4));
    for node in ALL {
        cluster.start(node).await;
        assert!(cluster.group(node).votes());
        let role = cluster.group(node).role().borrow().clone();
        assert!(role.applied_index >= last, "what was decided is there before it takes part: {role:?}");
    }
    let leader = cluster.leader(&ALL).await;
    let last = cluster.propose(leader, "again").await;
    cluster.applied(&ALL, last).await;
    let mut expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    expected.push("again".to_owned());
    for node in ALL {
        assert_eq!(cluster.batches(node), expected, "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_ahead_of_its_log_begins_the_log_anew() {
    let (mut cluster, leader, _) = without_the_fourth().await;
    cluster.start(4).await;
    let last = cluster.propose(leader, "before").await;
    cluster.applied(&[4], last).await;
    cluster.stop(4).await;
    // As when a snapshot has become the state, and the log did not begin anew before the power went.
    let log = cluster.nodes[&4].log();
    log.truncate_after(Some(last - 3), Box::new(|done| done.unwrap()));
    cluster.start(4).await;
    assert!(log.purged_index().unwrap() >= Some(last));
    let last = cluster.propose(leader, "after").await;
    cluster.applied(&ALL, last).await;
    assert_eq!(cluster.batches(4), cluster.batches(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_come_by_themselves_and_log_and_records_stay_short() {
    let cluster = Cluster::on(4, CALM, |_| Disk::memory(), 20).await;
    let leader = cluster.leader(&ALL).await;
    let (log, wal) = (cluster.nodes[&leader].log(), cluster.nodes[&leader].wal());
    // Bounded: a log that is never purged fails the test.
    for number in 0..500 {
        cluster.propose(leader, &number.to_string()).await;
        if log.first_index().unwrap() > Some(20) && wal.purged_index().unwrap() > Some(0) {
            return;
        }
    }
    panic!("log up to {:?}, records up to {:?}", log.purged_index(), wal.purged_index());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_records_votes_when_the_others_have_moved_on() {
    let mut cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let last = cluster.propose(leader, "before").await;
    cluster.applied(&ALL, last).await;
    // Also one that was a little behind votes on some sign of life.
    let group = cluster.group(4);
    until_so(&group, || !cluster.net.ballots(4).is_empty()).await;
    drop(group);
    cluster.stop(4).await;
    let promised = cluster.net.ballots(4).iter().map(|signed| signed.ballot.index).max().unwrap();
    cluster.net.forget();
    let log = cluster.nodes[&4].log();
    cluster.nodes.get_mut(&4).unwrap().disk = Disk::Memory(log, Watched::of(MemLog::immediate("another wal")));
    cluster.start(4).await;
    let group = cluster.group(4);
    // The others go on without it, by signs of life, and it hears of that.
    until_so(&group, || group.votes()).await;
    let other = [1, 2, 3].into_iter().find(|node| *node != leader).unwrap();
    cluster.stop(other).await;
    let last = cluster.propose(leader, "with its vote").await;
    cluster.applied(&[4], last).await;
    let votes = cluster.net.ballots(4);
    assert!(!votes.is_empty());
    assert!(votes.iter().all(|signed| signed.ballot.index > promised + 1), "it has not voted on what it may have");
    // And it knows that it has: with these records it votes at once.
    cluster.stop(4).await;
    cluster.start(4).await;
    assert!(cluster.group(4).votes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_loses_everything_follows_and_does_not_pass_for_a_new_member() {
    let mut cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let last = cluster.propose(leader, "before").await;
    cluster.applied(&ALL, last).await;
    cluster.stop(4).await;
    cluster.nodes.insert(4, Node::new(Disk::memory(), 4));
    // The others are away, so that it gets nowhere.
    for node in [1, 2, 3] {
        cluster.net.cut(node);
    }
    let (prepared, parts) = cluster.prepare(4, GROUP).await.unwrap();
    cluster.begin(4, prepared, parts).await.unwrap();
    assert!(!cluster.group(4).votes());
    until(&cluster.group(4), |role| role.learners == [NodeId(4)]).await;
    cluster.stop(4).await;
    for node in [1, 2, 3] {
        cluster.net.join(node);
    }
    let (prepared, parts) = cluster.prepare(4, GROUP).await.unwrap();
    let others: Vec<_> = [1, 2, 3].map(|node| (replica_id(NodeId(node), 1), NodeId(node))).to_vec();
    assert!(matches!(prepared.found(&others).await, Err(FoundError::Lost(_))));
    cluster.begin(4, prepared, parts).await.unwrap();
    assert!(!cluster.group(4).votes());
    let last = cluster.propose(leader, "after").await;
    cluster.applied(&[1, 4], last).await;
    assert_eq!(cluster.batches(4), cluster.batches(1));
    let group = cluster.group(4);
    until_so(&group, || group.votes()).await;
    until(&group, |role| role.learners.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_seat_follows() {
    let mut cluster = Cluster::new(4, CALM).await;
    let leader = cluster.leader(&ALL).await;
    let mut fifth = Node::new(Disk::memory(), 4);
    fifth.join = 2;
    cluster.nodes.insert(5, fifth);
    cluster.start(5).await;
    let last = cluster.propose(leader, "one").await;
    cluster.applied(&[5], last).await;
    assert_eq!(cluster.batches(5), ["one"]);
    let group = cluster.group(5);
    assert!(!group.role().borrow().leads);
    assert!(group.step_down().await.is_ok());
    // It asks whoever has it, and votes as soon as a committee names it.
    until_so(&group, || group.votes()).await;
    assert!(cluster.net.ballots(5).is_empty());
    // What it was let do it does not forget, though it has done nothing yet.
    drop(group);
    cluster.stop(5).await;
    cluster.start(5).await;
    assert!(cluster.group(5).votes());
    assert!(cluster.group(5).role().borrow().learners.is_empty());
}

/// Whoever leaves is away already, and nothing is ordered but signs of life and the changes: each that joins is let vote by
/// the three that are left, the second one by the first one, too. In the end three are left that decide nothing without
/// both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_goes_on_behind_two_changes_of_seats_in_a_row() {
    let mut cluster = Cluster::new(4, QUICK).await;
    let mut members = ALL.to_vec();
    cluster.leader(&members).await;
    for (leaves, joins) in [(4, 5), (3, 6)] {
        cluster.stop(leaves).await;
        let mut joining = Node::new(Disk::memory(), 4);
        joining.join = 2;
        cluster.nodes.insert(joins, joining);
        cluster.net.cut(joins);
        cluster.start(joins).await;
        let group = cluster.group(joins);
        until(&group, |role| role.learners == [NodeId(joins)]).await;
        assert!(!group.votes(), "nobody has let it");
        cluster.net.join(joins);
        until(&group, |role| role.learners.is_empty()).await;
        assert!(group.votes());
        assert!(cluster.net.ballots(joins).is_empty(), "it has no seat");
        members.retain(|node| *node != leaves);
        members.push(joins);
        let last = cluster.propose(2, &seats(&members)).await;
        cluster.applied(&members, last).await;
        assert!(group.votes(), "what it was let do does not end with the committee that has let it");
    }
    assert_eq!(members, [1, 2, 5, 6]);
    cluster.stop(1).await;
    let last = cluster.propose(2, "paid").await;
    cluster.applied(&members[1..], last).await;
    for node in [5, 6] {
        assert_eq!(cluster.batches(node), [seats(&[1, 2, 3, 5]), seats(&[1, 2, 5, 6]), "paid".to_owned()]);
        assert!(!cluster.net.ballots(node).is_empty());
    }
}
