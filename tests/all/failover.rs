//! How long the payers of a shard wait when its leader is killed.
//!
//! Two payers of that shard pay one payment after the other over routers that survive: one beside a
//! replica of the shard, which hears of the new leader first, and one beside none, which has to find
//! it. Counted is the time from the kill to the first acknowledgement of a payment that was sent
//! after it. Nothing is asserted about times here: machines that run tests are busy. `make soak`
//! kills often enough for a median.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, Wait};
use ledger::{GroupId, NodeId};
use parking_lot::Mutex;

use crate::support::audit::end_and_reconcile;
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::cluster::leader_of;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::up::Up;

/// How many leaders are killed, one after the other.
const KILLS: &str = "SEAMARK_LEADER_KILLS";
const NODES: u32 = 5;
const SHARDS: u32 = 2;
const FUNDS: u128 = 1_000_000;
/// Payments of a payer before the kill: its router knows the leader then.
const WARM: usize = 20;

/// Pays one payment after the other and notes when each was sent and acknowledged.
struct Payer {
    paid: Arc<Mutex<Vec<(Instant, Instant)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Payer {
    fn start(bank: &Bank, client: Client, from: &Wallet, to: &Wallet) -> Self {
        let paid = Arc::new(Mutex::new(Vec::new()));
        let (noted, from, to, asset) = (Arc::clone(&paid), from.clone(), to.address, bank.asset);
        let task = tokio::spawn(async move {
            loop {
                let sent = Instant::now();
                client.pay(&from.key, to, asset, 1, Wait::Receipt).await.unwrap();
                noted.lock().push((sent, Instant::now()));
            }
        });
        Self { paid, task }
    }

    /// Waits until it has paid this often.
    async fn warm(&self) {
        eventually("payments before the kill", async || {
            let paid = self.paid.lock().len();
            if paid >= WARM { Ok(()) } else { Err(format!("{paid} payments")) }
        })
        .await;
    }

    /// How long after this moment the first payment sent after it was acknowledged.
    async fn served_again(self, killed: Instant) -> Duration {
        let back = eventually("a payment after the kill", async || {
            assert!(!self.task.is_finished(), "a payment failed");
            let paid = self.paid.lock();
            let first = paid.iter().find(|(sent, _)| *sent >= killed);
            first.map(|(_, acknowledged)| acknowledged.duration_since(killed)).ok_or("none so far")
        })
        .await;
        self.task.abort();
        back
    }
}

/// Least, middle and most, in milliseconds.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |at: usize| times[at].as_millis();
    format!("min {} ms, median {} ms, max {} ms", ms(0), ms(times.len() / 2), ms(times.len() - 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn payers_of_a_shard_are_served_again_after_its_leader_was_killed() {
    let kills: usize = std::env::var(KILLS).map_or(1, |text| text.parse().expect(KILLS));
    let mut up = Up::start(NODES, SHARDS).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let genesis = client.genesis().clone();
    let groups: Vec<GroupId> = genesis.committees.iter().map(|committee| committee.group).collect();
    let bank = Bank::open(&client).await;
    let shard = GroupId::shard(0);
    let members: Vec<NodeId> = genesis.committee(shard).unwrap().members.iter().map(|member| member.node).collect();
    let outsider = genesis.nodes.iter().map(|node| node.id).find(|node| !members.contains(node)).unwrap();
    let homes = wallets_in_each_shard(&genesis.layout, "home", 20);
    let (payers, others) = homes[0].split_at(4);
    let wallets: Vec<Wallet> = others.iter().chain(&homes[1]).cloned().collect();
    bank.fund(homes.iter().flatten(), FUNDS).await;

    let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
    let (mut beside, mut apart) = (Vec::new(), Vec::new());
    for kill in 1..=kills {
        load.next(100).await;
        let status = client.status().await.unwrap();
        let leader = leader_of(&status, shard).expect("the cluster is whole");
        let follower = *members.iter().find(|node| **node != leader).unwrap();
        let pay_over = |node: NodeId, payer: usize| {
            let client = Client::lazy(&up.profile_of(&[node])).unwrap();
            Payer::start(&bank, client, &payers[payer], &payers[payer + 1])
        };
        let (near, far) = (pay_over(follower, 0), pay_over(outsider, 2));
        near.warm().await;
        far.warm().await;
        let killed = Instant::now();
        up.kill(leader).await;
        let (near, far) = (near.served_again(killed).await, far.served_again(killed).await);
        println!(
            "kill {kill} of {kills}: node {leader}; served again after {} ms over node {follower}, a member, and {} ms over node {outsider}, none",
            near.as_millis(),
            far.as_millis()
        );
        beside.push(near);
        apart.push(far);
        load.next(100).await;
        up.restart(leader);
        up.whole(&client, &groups).await;
    }
    println!("service return over {kills} kills of the leader: router beside a replica: {}", summary(beside));
    println!("service return over {kills} kills of the leader: router elsewhere: {}", summary(apart));
    let (_, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert_eq!(bank.total(homes.iter().flatten()).await, FUNDS * 40);
}
