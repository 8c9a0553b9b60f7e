//! A bank under trouble: customers pay, swap and read without end, over routers of their own, while
//! leaders, the beacon's leader and routers are killed, leaders are cut off, and a disk fills up, one
//! after the other. Afterwards every acknowledged transaction is there once, all groups agree, the
//! supply is what it was, nothing is held, no hold has outlived its transaction by more than
//! [`OUTLIVES_MAX_MS`], and there is an order of everything the customers did and saw.
//!
//! `SEAMARK_BANK_SEED` chooses another run, `SEAMARK_BANK_ROUNDS` a longer one: each round has every
//! trouble once, in an order of its own.

mod customer;
mod trouble;
mod verdict;

use std::sync::Arc;
use std::time::Instant;

use client::{Client, Profile};
use ledger::GroupId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::history::Time;
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::eventually;
use crate::support::machines::Machines;
use crate::support::network::Medium;
use crate::support::random::Random;
use crate::support::router::Router;
use customer::{Customer, Seen};
use trouble::Trouble;

const SEED: &str = "SEAMARK_BANK_SEED";
const ROUNDS: &str = "SEAMARK_BANK_ROUNDS";
const CUSTOMERS: usize = 5;
/// In each shard. Few, so that transactions meet.
const ACCOUNTS: usize = 3;
const FUNDS: u128 = 1_000;
/// How long a hold may last after the time of its transaction is up, by its group's block time, while
/// every group has a majority: and here every group always has one. Asked of long runs, which have the
/// machine to themselves; beside other work, a machine may take this long to elect.
const OUTLIVES_MAX_MS: u64 = 5_000;
/// The same of short runs: what is held is let go without anybody's help.
const OUTLIVES_ANYWHERE_MS: u64 = 60_000;
/// Transactions of each shard that have to be executed with a trouble, and again after it.
const GO_ON: usize = 15;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")))
}

/// What customers share.
struct Town {
    bank: Bank,
    wallets: Vec<Wallet>,
    /// The shard of each wallet.
    homes: Vec<GroupId>,
    started: Instant,
    /// When each executed transaction was sent, and by which groups it was executed.
    executed: Mutex<Vec<(Time, Vec<GroupId>)>>,
}

impl Town {
    fn now(&self) -> Time {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap()
    }

    /// Waits until each shard has executed this many transactions that are sent from now on.
    async fn goes_on(&self) {
        let now = self.now();
        eventually("transactions of every shard", async || {
            let executed = self.executed.lock();
            let of = |shard: GroupId| {
                executed.iter().filter(|(sent, groups)| *sent >= now && groups.contains(&shard)).count()
            };
            let least = self.homes.iter().map(|shard| of(*shard)).min().unwrap();
            if least >= GO_ON { Ok(()) } else { Err(format!("{least} of {GO_ON}")) }
        })
        .await;
    }
}

/// The routers in an order of its own for each customer, the one outside of nodes among them.
fn routers_of(machines: &Machines, router: &Router, customer: usize) -> Profile {
    let mut profile = machines.profile();
    profile.routers.insert(0, router.endpoint.clone());
    let count = profile.routers.len();
    profile.routers.rotate_left(customer % count);
    profile
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_survive_whatever_happens_to_nodes_routers_disks_and_the_network() {
    let (seed, rounds) = (number(SEED, 1), number(ROUNDS, 1));
    println!("{SEED}={seed} {ROUNDS}={rounds}");
    let mut random = Random::new(seed);
    let mut machines = Machines::start(Medium::best(), true).await;
    let port = crate::support::cluster::base_port(1);
    let mut router = Router::start(machines.dir.root(), port).await;
    let client = machines.client();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> =
        wallets_in_each_shard(&machines.genesis.layout, "home", ACCOUNTS).into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;
    let homes = wallets.iter().map(|wallet| machines.genesis.layout.locate(&wallet.address)).collect();
    let executed = Mutex::default();
    let town = Arc::new(Town { bank, wallets, homes, started: Instant::now(), executed });

    let (stop, stopped) = watch::channel(false);
    let clients: Vec<Client> =
        (0..CUSTOMERS).map(|number| Client::lazy(&routers_of(&machines, &router, number)).unwrap()).collect();
    let customers: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(number, client)| {
            let customer = Customer::new(Arc::clone(&town), client.clone(), number, random.next());
            tokio::spawn(customer.live(stopped.clone()))
        })
        .collect();
    town.goes_on().await;
    for _ in 0..rounds {
        for trouble in Trouble::all(&mut random) {
            let started = Instant::now();
            assert!(!customers.iter().any(|customer| customer.is_finished()), "a customer has given up");
            trouble.strike(&town, &mut machines, &mut router, &client, &clients).await;
            machines.whole(&client).await;
            town.goes_on().await;
            println!("  {} ms until everything was whole and went on", started.elapsed().as_millis());
        }
    }
    stop.send_replace(true);
    let mut seen = Seen::default();
    for customer in customers {
        seen.add(crate::support::in_time("a customer ends", customer).await.unwrap());
    }
    verdict::judge(&town, &mut machines, &client, seen).await;
    machines.assert_run();
    router.process.assert_runs();
}
