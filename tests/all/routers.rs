//! Stand-alone routers: the same front door as the one in every node, in a process of its own.

use client::{Client, Wait};
use ledger::SignedTx;

use crate::support::audit::{audit, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, body, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted, base_port};
use crate::support::load::Load;
use crate::support::router::Router;

const FUNDS: u128 = 100_000;

#[tokio::test(flavor = "multi_thread")]
async fn payments_over_stand_alone_routers_survive_the_loss_of_one() {
    let cluster = TestCluster::start(Wanted::default()).await;
    let port = base_port(1);
    let mut routers =
        [Router::start(cluster.dir.root(), port).await, Router::start(cluster.dir.root(), port + 1).await];
    // This client knows no node: whatever it does goes over these two.
    let mut profile = cluster.profile();
    profile.routers = routers.iter().map(|router| router.endpoint.clone()).collect();
    let client = Client::connect(&profile).await.unwrap();
    let bank = Bank::open(&client).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 4);
    let wallets: Vec<Wallet> = homes.iter().flatten().cloned().collect();
    bank.fund(&wallets, FUNDS).await;
    let (payer, payee) = (crate::support::bank::wallet("payer", 0), &wallets[0]);
    bank.fund([&payer], 1).await;

    let tx =
        SignedTx::sign(&body(client.cluster_id(), 1, [bank.pay(&payer, payee.address, 1)]), &[&payer.key]).encode();
    assert_eq!(client.router(), &routers[0].endpoint);
    let receipt = client.submit_and_wait(tx.clone(), Wait::Applied).await.unwrap();
    assert!(receipt.committed());

    let mut load = Load::start(&bank, &wallets, &wallets, 64).await;
    load.next(300).await;
    // What was in flight goes on over the other one, with the same txids.
    routers[0].process.kill();
    load.next(300).await;
    assert_eq!(client.router(), &routers[1].endpoint);
    assert_eq!(client.submit_and_wait(tx, Wait::Applied).await.unwrap(), receipt, "one fate, whoever is asked");
    // The first one comes back where it was, and the second one is asked to stop, in the middle of it.
    routers[0] = Router::start(cluster.dir.root(), port).await;
    let stopped = routers[1].process.terminate();
    assert!(stopped.success(), "{stopped}: {}", routers[1].process.said());
    load.next(300).await;
    assert_eq!(client.router(), &routers[0].endpoint);

    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 900, "{committed}");
    let supply = audit(&cluster).await[&bank.asset];
    assert_eq!(supply.held, FUNDS * 8 + 1);
}
