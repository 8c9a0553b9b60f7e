//! A member ends between any two steps of going over, and loses its process or its power with them; it starts again, takes
//! up the change where it was, and takes part. The rows of the table in `raft::stint`, each reached by the code itself.

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use ledger::Engine;

use super::support::*;
use super::trip::{SLOT, TAKES_PART};
use super::{ALL, assert_alike};
use crate::sequencer::Sequencer;

/// The others than the member that ends.
const REST: [u32; 3] = [1, 2, 3];
/// Groups that run at the same time: each has timers, which need a little of the machine.
const AT_ONCE: usize = 4;

/// What is lost of what the disk was not waited for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Nothing.
    Nothing,
    /// The state, which has no log of its own: the process was killed.
    State,
    /// All of it: the power is gone.
    All,
}

/// How the fourth member comes to the change.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// With all others, and with an entry behind the one that hands over, which is void.
    Raft,
    /// With all others.
    Bft,
    /// By a snapshot: it was cut off meanwhile.
    Away,
}

impl Way {
    fn engines(self) -> (Engine, Engine) {
        match self {
            Self::Raft | Self::Away => (Engine::Raft, Engine::Bft),
            Self::Bft => (Engine::Bft, Engine::Raft),
        }
    }

    /// What it may lose. How far raft has committed is all that its log may lose, so only there it matters which.
    fn losses(self) -> &'static [Loss] {
        match self {
            Self::Raft => &[Loss::Nothing, Loss::State, Loss::All],
            Self::Bft | Self::Away => &[Loss::Nothing, Loss::All],
        }
    }

    /// Everything that it writes, in this order. Whoever adds a step adds it here, and it is ended before that one, too.
    fn steps(self) -> Vec<&'static str> {
        let begin: &[&str] = &["a snapshot is written", "it is put in place"];
        let entering: &[&str] = match self {
            Self::Raft => &["how far is committed", "the end of the log is cut off", "the records begin anew"],
            Self::Bft => &["the log begins later", "how far is committed"],
            Self::Away => &["the log begins later", "the records begin anew"],
        };
        [begin, entering, &[SLOT, TAKES_PART]].concat()
    }
}

/// Orders what hands over, and something behind it, before any of it is committed: all members have both in their logs.
async fn with_something_behind(cluster: &Cluster, switch: &str) {
    let leader = cluster.leader(&ALL).await;
    let group = cluster.group(leader);
    let others: Vec<u32> = ALL.into_iter().filter(|node| *node != leader).collect();
    others.iter().for_each(|node| cluster.net.cut(*node));
    // Whoever leads has applied all that it has.
    let before = cluster.state(leader).applied.position.unwrap().index;
    for batch in [switch.to_owned(), "void".to_owned()] {
        drop(group.submit(Bytes::from(batch)).await.unwrap());
    }
    until(&group, |role| role.last_log_index >= before + 2).await;
    // Two of four decide nothing.
    cluster.net.join(4);
    until(&cluster.group(4), |role| role.last_log_index >= before + 2).await;
    others.iter().for_each(|node| cluster.net.join(*node));
}

/// Takes a group to another engine, and ends the fourth member before this step, which has this loss. Returns the steps that it
/// was about to take.
async fn end_before(way: Way, at: Option<usize>, loss: Loss) -> Vec<&'static str> {
    let (from, to) = way.engines();
    let mut cluster = Cluster::new(from, 4, Disk::memory).await;
    cluster.order(&ALL, "first").await;
    cluster.reached(&ALL, from, "first").await;
    let early = cluster.state(4);
    let (trip, switch) = (cluster.trip(4), format!("to {to}"));
    trip.set(at);
    match way {
        Way::Raft => with_something_behind(&cluster, &switch).await,
        Way::Bft => {
            cluster.order(&ALL, &switch).await;
        }
        Way::Away => {
            cluster.net.cut(4);
            cluster.order(&REST, &switch).await;
            // Until then the leader of the engine before would still send it the entry.
            cluster.reached(&REST, to, &switch).await;
            cluster.net.join(4);
        }
    }
    // The others go over and on without it.
    cluster.reached(&REST, to, &switch).await;
    cluster.order(&ALL, "meanwhile").await;
    let (steps, ended) = trip.settled().await;
    assert_eq!(ended, at.is_some(), "{way:?} before step {at:?}, of {steps:?}");
    if !ended {
        return steps;
    }

    cluster.stop(4).await;
    trip.clear();
    match loss {
        Loss::Nothing => {}
        Loss::State => cluster.lose(4, early),
        Loss::All => cluster.lose_power(4, early),
    }
    cluster.start(4).await;
    cluster.bootstrap(4).await;
    cluster.order(&ALL, "after").await;
    cluster.reached(&ALL, to, "after").await;
    assert_alike(&cluster, &ALL);
    // It takes part: with another one away, it is needed.
    let leader = cluster.leader(&ALL).await;
    let other = REST.into_iter().find(|node| *node != leader).unwrap();
    cluster.stop(other).await;
    let left: Vec<u32> = ALL.into_iter().filter(|node| *node != other).collect();
    cluster.order(&left, "with it").await;
    cluster.reached(&left, to, "with it").await;
    assert_alike(&cluster, &left);
    steps
}

async fn end_before_each_step(way: Way) {
    let all = Box::pin(end_before(way, None, Loss::Nothing)).await;
    assert_eq!(all, way.steps(), "{way:?}");
    let losses = way.losses();
    let ends = (0..all.len()).flat_map(|at| losses.iter().map(move |loss| (at, *loss)));
    let ending = ends.map(|(at, loss)| Box::pin(end_before(way, Some(at), loss)));
    let ended: Vec<Vec<&str>> = stream::iter(ending).buffered(AT_ONCE).collect().await;
    for (number, steps) in ended.iter().enumerate() {
        assert_eq!(steps[..], all[..=number / losses.len()], "{way:?}");
    }
}

/// Its own log says that what hands over is committed, so it applies that as soon as it is started, and goes over at once: what
/// its host asks of the engine that it has started comes too late. All tasks share a thread, so the host comes in between.
#[tokio::test]
async fn a_member_that_was_killed_and_goes_over_while_its_host_starts_it_goes_on() {
    let mut cluster = Cluster::new(Engine::Raft, 4, Disk::memory).await;
    cluster.order(&ALL, "first").await;
    cluster.reached(&ALL, Engine::Raft, "first").await;
    // Whoever leads knows what is committed.
    let one = cluster.leader(&ALL).await;
    let (early, trip) = (cluster.state(one), cluster.trip(one));
    trip.set(Some(0));
    cluster.order(&ALL, "to bft").await;
    assert!(trip.settled().await.1);
    cluster.stop(one).await;
    trip.clear();
    cluster.lose(one, early);
    cluster.start(one).await;
    cluster.bootstrap(one).await;
    cluster.order(&ALL, "after").await;
    cluster.reached(&ALL, Engine::Bft, "after").await;
    assert_alike(&cluster, &ALL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_ends_at_any_step_on_the_way_from_raft_goes_on() {
    end_before_each_step(Way::Raft).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_ends_at_any_step_on_the_way_to_raft_goes_on() {
    end_before_each_step(Way::Bft).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_by_a_snapshot_and_ends_at_any_step_goes_on() {
    end_before_each_step(Way::Away).await;
}
