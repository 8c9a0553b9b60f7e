//! Groups that go over from one engine to the other and back: under load, with stops at any time, and with members that
//! were away meanwhile.

mod crashes;
mod evidence;
mod farewell;
mod followers;
mod replaced;
mod support;
mod trip;

use ledger::Engine;

use self::support::*;
use crate::raft::StartError;

const ALL: [u32; 4] = [1, 2, 3, 4];

/// Orders batches of this name while other things happen.
async fn load(cluster: &Cluster, among: &[u32], name: &str, count: u32) {
    for number in 0..count {
        cluster.order(among, &format!("{name} {number}")).await;
    }
}

/// All of these have the same, in the same order.
fn assert_alike(cluster: &Cluster, among: &[u32]) {
    let first = cluster.state(among[0]);
    for node in among {
        let other = cluster.state(*node);
        assert_eq!((&other.batches, other.order), (&first.batches, first.order), "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_over_and_back_under_load_and_loses_nothing() {
    let cluster = Cluster::new(Engine::Raft, 4, Disk::memory).await;
    for (turn, engine) in [Engine::Bft, Engine::Raft, Engine::Bft, Engine::Raft].into_iter().enumerate() {
        let names: Vec<String> = (0..4).map(|task| format!("{turn}.{task}")).collect();
        let loads = futures::future::join_all(names.iter().map(|name| load(&cluster, &ALL, name, 20)));
        let switch = format!("to {engine} {turn}");
        let switching = async {
            cluster.order(&ALL, &format!("before {turn}")).await;
            cluster.order(&ALL, &switch).await
        };
        futures::future::join(loads, switching).await;
        let last = format!("after {turn}");
        cluster.order(&ALL, &last).await;
        cluster.reached(&ALL, engine, &last).await;
    }
    assert_alike(&cluster, &ALL);
    let state = cluster.state(1);
    // 4 turns of 4 loads of 20, and what stands around them.
    assert_eq!(state.batches.len(), 4 * (4 * 20 + 3));
    assert_eq!(state.committee.epoch.0, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_has_in_flight_behind_the_hand_over_is_void_and_told_as_lost() {
    use bytes::Bytes;

    use crate::sequencer::Sequencer;

    let cluster = Cluster::new(Engine::Raft, 4, Disk::memory).await;
    let leader = cluster.leader(&ALL).await;
    let (group, rest) = (cluster.group(leader), ALL.into_iter().filter(|node| *node != leader));
    // All are in the leader's log before any of them is ordered.
    rest.clone().for_each(|node| cluster.net.cut(node));
    let mut waiting = Vec::new();
    for batch in ["one", "to bft", "two", "three"] {
        waiting.push((batch, group.submit(Bytes::from_static(batch.as_bytes())).await.unwrap()));
    }
    rest.for_each(|node| cluster.net.join(node));
    let mut ordered = Vec::new();
    for (batch, proposal) in waiting {
        if proposal.await.is_ok() {
            ordered.push(batch);
        }
    }
    // On a busy machine the others may have elected another leader meanwhile, which has fewer of them or none.
    assert!(["one", "to bft"].starts_with(&ordered), "nobody hears that a void entry was ordered: {ordered:?}");
    for batch in ["one", "to bft"] {
        cluster.order(&ALL, batch).await;
    }
    cluster.reached(&ALL, Engine::Bft, "to bft").await;
    assert_eq!(cluster.state(leader).batches, ["one", "to bft"]);
    cluster.order(&ALL, "two").await;
    cluster.reached(&ALL, Engine::Bft, "two").await;
    assert_alike(&cluster, &ALL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_stops_behind_each_change_and_goes_on_from_the_disks() {
    let mut cluster = Cluster::new(Engine::Raft, 4, || Disk::Engine(None)).await;
    cluster.order(&ALL, "first").await;
    cluster.reached(&ALL, Engine::Raft, "first").await;
    for (turn, engine) in [Engine::Bft, Engine::Raft].into_iter().enumerate() {
        let early = cluster.state(4);
        let switch = format!("to {engine} {turn}");
        cluster.order(&ALL, &switch).await;
        // Whoever is stopped before it has gone over does so at its start.
        for node in ALL {
            cluster.stop(node).await;
        }
        // The state of one did not reach its disk: its own snapshot of when it went over, or the others, have it.
        cluster.lose(4, early);
        for node in ALL {
            cluster.start(node).await;
        }
        let last = format!("after {turn}");
        cluster.order(&ALL, &last).await;
        cluster.reached(&ALL, engine, &last).await;
        assert_alike(&cluster, &ALL);
    }
    assert_eq!(cluster.state(1).batches, ["first", "to bft 0", "after 0", "to raft 1", "after 1"]);
}

/// Takes what was until now off the logs of all of these.
async fn purge(cluster: &Cluster, among: &[u32], engine: Engine) {
    use ledger::ids::NodeId;

    use crate::sequencer::Sequencer;

    let leader = cluster.leader(among).await;
    let others: Vec<u32> = among.iter().copied().filter(|node| *node != leader).collect();
    for node in &others {
        cluster.purge(*node).await;
    }
    if engine == Engine::Raft {
        // A leader keeps what it may yet send to one that is away.
        cluster.group(leader).transfer_leader(NodeId(others[0])).await.unwrap();
        until(&cluster.group(leader), |role| role.leader == Some(NodeId(others[0]))).await;
    }
    cluster.purge(leader).await;
}

/// Stops the fourth replica, lets the others go through these engines, and starts it again; `purged` says that their logs
/// begin behind all that it has missed.
async fn away_during(from: Engine, changes: &[Engine], purged: bool) {
    let mut cluster = Cluster::new(from, 4, Disk::memory).await;
    cluster.order(&ALL, "first").await;
    cluster.reached(&ALL, from, "first").await;
    cluster.stop(4).await;
    let rest = [1, 2, 3];
    let mut last = (from, "first".to_owned());
    for (turn, engine) in changes.iter().enumerate() {
        cluster.order(&rest, &format!("to {engine} {turn}")).await;
        last = (*engine, format!("after {turn}"));
        cluster.order(&rest, &last.1).await;
        cluster.reached(&rest, *engine, &last.1).await;
    }
    if purged {
        purge(&cluster, &rest, last.0).await;
    }
    cluster.start(4).await;
    cluster.reached(&ALL, last.0, &last.1).await;
    assert_alike(&cluster, &ALL);
    // It takes part: with another one away, it is needed.
    let leader = cluster.leader(&rest).await;
    let other = rest.into_iter().find(|node| *node != leader).unwrap();
    cluster.stop(other).await;
    let left: Vec<u32> = ALL.into_iter().filter(|node| *node != other).collect();
    cluster.order(&left, "with it").await;
    cluster.reached(&left, last.0, "with it").await;
    assert_alike(&cluster, &left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raft_replica_that_was_away_goes_on_as_a_byzantine_member() {
    away_during(Engine::Raft, &[Engine::Bft], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raft_replica_that_was_away_for_long_goes_on_as_a_byzantine_member() {
    away_during(Engine::Raft, &[Engine::Bft], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byzantine_member_that_was_away_goes_on_under_raft() {
    away_during(Engine::Bft, &[Engine::Raft], false).await;
}

/// The leader alone speaks to it, and of one that lies it would have nothing: the others have to be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byzantine_member_that_was_away_for_long_goes_on_under_raft() {
    away_during(Engine::Bft, &[Engine::Raft], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_for_two_changes_finds_the_engine_that_it_left_in_another_stint() {
    away_during(Engine::Raft, &[Engine::Bft, Engine::Raft], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_cut_off_hears_of_the_change_without_being_started_anew() {
    for (from, to) in [(Engine::Raft, Engine::Bft), (Engine::Bft, Engine::Raft)] {
        let cluster = Cluster::new(from, 4, Disk::memory).await;
        cluster.order(&ALL, "first").await;
        cluster.reached(&ALL, from, "first").await;
        let rest = [1, 2, 3];
        cluster.net.cut(4);
        cluster.order(&rest, &format!("to {to}")).await;
        cluster.order(&rest, "after").await;
        cluster.reached(&rest, to, "after").await;
        assert_eq!(cluster.group(4).engine(), from);
        cluster.net.join(4);
        cluster.reached(&ALL, to, "after").await;
        assert_alike(&cluster, &ALL);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_an_earlier_stint_is_not_brought_up_by_the_log_of_a_later_one() {
    let mut cluster = Cluster::new(Engine::Raft, 4, Disk::memory).await;
    // All are followed by the leader by now: it does not leave one behind that it has not reached yet.
    cluster.order(&ALL, "first").await;
    cluster.reached(&ALL, Engine::Raft, "first").await;
    let first = cluster.state(4);
    cluster.order(&ALL, "to bft").await;
    cluster.reached(&ALL, Engine::Bft, "to bft").await;
    cluster.stop(4).await;
    cluster.lose(4, first);
    cluster.lose_snapshots(4);
    // All the others have gone over, so that one can lend and another one vouch.
    cluster.order(&[1, 2, 3], "without it").await;
    // Its promises are of a stint that the state knows nothing of. On a busy machine it may have been left behind all
    // the same, and have gone over with a snapshot that it was lent: then its log begins where the lenders have met.
    let begins = cluster.purged(4);
    let (mut prepared, means) = cluster.prepare(4).await.unwrap();
    let after = cluster.state(1).order.stint();
    assert!(begins.is_none_or(|begins| begins >= after), "{begins:?}");
    assert_eq!(prepared.missing(), Some(after).max(begins));
    prepared.fetch(&[1, 2, 3].map(ledger::ids::NodeId)).await.unwrap();
    cluster.begin(4, prepared, means).await.unwrap();
    cluster.order(&ALL, "after").await;
    cluster.reached(&ALL, Engine::Bft, "after").await;
    assert_alike(&cluster, &ALL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_lost_its_log_does_not_vote_in_a_later_stint_as_if_it_were_new() {
    let mut cluster = Cluster::new(Engine::Bft, 4, Disk::memory).await;
    cluster.order(&ALL, "to raft").await;
    cluster.reached(&ALL, Engine::Raft, "to raft").await;
    cluster.stop(4).await;
    cluster.lose_log(4);
    cluster.lose_snapshots(4);
    let error = cluster.prepare(4).await.err().unwrap();
    assert!(matches!(error, StartError::LogLost { .. }), "{error}");
    // Nor when its state is gone, too: it follows what was decided, also where raft would let it vote.
    cluster.lose(4, State::new(Engine::Bft, 4));
    cluster.start(4).await;
    cluster.order(&[1, 2, 3], "without it").await;
    cluster.reached(&ALL, Engine::Raft, "without it").await;
    assert_alike(&cluster, &ALL);
    followers::promises_nothing(&cluster, 4).await;
}
