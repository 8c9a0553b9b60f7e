//! Shards that are cut while clients pay and ask: nobody hears of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{Client, Consistency, SubmitEvent};
use ledger::{Address, Committee, GroupId, Height, NodeId, Reject};

use super::support::{Cluster, Mood, World, calm};
use super::{pay_all, soon};

const ZERO: GroupId = GroupId::shard(0);
const ONE: GroupId = GroupId::shard(1);
const LEFT: GroupId = GroupId::shard(2);
const RIGHT: GroupId = GroupId::shard(3);

/// The first shard is cut into two, of which another node leads each; and everybody knows.
fn cut(cluster: &Cluster) {
    cluster.world.lead(LEFT, 2);
    cluster.world.lead(RIGHT, 3);
    cluster.view.send_modify(|view| {
        let mut new = (**view).clone();
        new.layout = Arc::new(new.layout.split(ZERO, [LEFT, RIGHT]).unwrap());
        let parent = new.committees.remove(&ZERO).unwrap();
        for group in [LEFT, RIGHT] {
            new.committees.insert(group, Committee { group, ..parent.clone() });
        }
        *view = Arc::new(new);
    });
}

fn asked(world: &World, group: GroupId) -> usize {
    world.batches.lock().iter().filter(|batch| batch.1 == group).count()
}

/// Pays while the shards say what they say in this mood, and has `change` happen after each has said it twice.
async fn pay_through(mood: Mood, change: impl FnOnce(&Cluster)) -> (Cluster, BTreeSet<GroupId>) {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    cluster.world.set(mood);
    let txs = cluster.payments(0..500);
    let paying = tokio::spawn(async move { pay_all(&client, txs, true).await });
    cluster.world.until("refusals", |world| asked(world, ZERO) > 1 && asked(world, ONE) > 1).await;
    change(&cluster);
    cluster.world.set(Mood::Work);
    let fates = soon(paying).await.unwrap();
    assert_eq!(fates.len(), 500);
    let mut groups = BTreeSet::new();
    for events in fates.values() {
        let [SubmitEvent::Receipt(receipt), SubmitEvent::Applied(_)] = &events[..] else { panic!("{events:?}") };
        assert!(receipt.committed());
        groups.insert(receipt.group);
    }
    assert!(cluster.world.executed.lock().values().all(|times| *times == 1));
    (cluster, groups)
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_pass_a_seal_and_a_commit_without_an_error() {
    for mood in [Mood::Sealing, Mood::Moved] {
        let (_, groups) = pay_through(mood, cut).await;
        assert_eq!(groups.into_iter().collect::<Vec<_>>(), [ONE, LEFT, RIGHT], "{mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_pass_a_seal_that_is_taken_back_without_an_error() {
    let (_, groups) = pay_through(Mood::Sealing, |_| {}).await;
    assert_eq!(groups.into_iter().collect::<Vec<_>>(), [ZERO, ONE]);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_pass_a_cut_and_what_has_ended_is_asked_for_by_its_name() {
    let cluster = Cluster::start().await;
    let router = cluster.router(calm()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    let address =
        (0..=255).map(|byte| Address([byte; 20])).find(|it| cluster.genesis.layout.locate(it) == ZERO).unwrap();
    for (reject, consistency) in
        [(Reject::Sealing, Consistency::Linearizable), (Reject::Moved, Consistency::AtLeast(Height(5)))]
    {
        cluster.world.refusing.lock().insert(ZERO, reject);
        cluster.world.reads.lock().clear();
        let asking = tokio::spawn({
            let client = client.clone();
            async move { client.account(address, consistency, false).await }
        });
        let refused = |world: &World| world.reads.lock().iter().filter(|read| read.1 == ZERO).count();
        cluster.world.until("questions", |world| refused(world) > 1).await;
        if reject == Reject::Sealing {
            cluster.world.refusing.lock().clear();
            let answer = soon(asking).await.unwrap().unwrap();
            assert_eq!(answer.group, ZERO, "the seal was taken back");
            continue;
        }
        cut(&cluster);
        let answer = soon(asking).await.unwrap().unwrap();
        assert_eq!(answer.group, cluster.view.borrow().layout.locate(&address));
    }
    // Its heir answers for it, at the heights that it had.
    cluster.world.reads.lock().clear();
    assert_eq!(soon(client.block(ZERO, Height(3))).await.unwrap().value, None);
    assert_eq!(*cluster.world.reads.lock().last().unwrap(), (NodeId(2), LEFT));
}
