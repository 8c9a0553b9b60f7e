//! The txid does not cover the witnesses, so whoever sees a body can send it with others. That must
//! not cost its sender anything, through whichever routers the two arrive.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::{Client, SubmitEvent, SubmitOptions};
use ledger::{NodeId, Reject, SignedTx, TxId};

use crate::support::bank::{Bank, body, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::in_time;

const BODIES: u64 = 600;

/// Sends everything over one stream and returns the one fate of each.
async fn fates(client: Client, txs: Vec<Bytes>) -> BTreeMap<TxId, SubmitEvent> {
    let (sender, mut events) = client.submit_stream(SubmitOptions::default()).split();
    let sending = tokio::spawn(async move {
        for part in txs.chunks(20) {
            sender.send(part.to_vec()).await.unwrap();
        }
    });
    let mut fates = BTreeMap::new();
    while let Some(batch) = events.next_events().await {
        for event in batch {
            let twice = fates.insert(event.txid(), event);
            assert!(twice.is_none(), "a transaction was answered twice: {twice:?}");
        }
    }
    sending.await.unwrap();
    fates
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_witnesses_never_spoil_a_transaction() {
    let cluster = TestCluster::start(Wanted::default()).await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 2);
    bank.fund(homes.iter().flatten(), 1_000_000).await;
    let (alice, eve, bob) = (&homes[0][0], &homes[0][1], &homes[1][0]);
    let bodies = || (0..BODIES).map(|number| body(bank.client.cluster_id(), number, [bank.pay(alice, bob.address, 1)]));
    // Eve's signature holds, over the same body, by her own key: only the ledger can tell that it is not
    // hers to pay. Three of her for one of Alice, through every router.
    let signed =
        |key| bodies().map(move |body| Bytes::from(SignedTx::sign(&body, &[key]).encode())).collect::<Vec<_>>();
    let (good, bad) = (signed(&alice.key), signed(&eve.key));
    let spoilers = cluster.node_ids().into_iter().map(|node| tokio::spawn(fates(cluster.client_of(node), bad.clone())));
    let spoilers: Vec<_> = spoilers.collect();
    let paid = in_time("Alice's payments", fates(cluster.client_of(NodeId(2)), good)).await;
    assert_eq!(paid.len() as u64, BODIES);
    for fate in paid.values() {
        assert!(matches!(fate, SubmitEvent::Receipt(receipt) if receipt.committed()), "{fate:?}");
    }
    for spoiler in spoilers {
        let heard = in_time("Eve's answers", spoiler).await.unwrap();
        assert_eq!(heard.len() as u64, BODIES);
        for fate in heard.values() {
            match fate {
                SubmitEvent::Refused { reject: Some(Reject::NotAuthorised), .. } => {}
                SubmitEvent::Receipt(receipt) if receipt.committed() => {}
                other => panic!("{other:?}"),
            }
        }
    }
    cluster.wait_settled().await;
    assert_eq!(bank.balance(alice.address).await, 1_000_000 - u128::from(BODIES));
    assert_eq!(bank.total(homes.iter().flatten()).await, 4_000_000);
}
