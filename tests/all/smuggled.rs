//! Shards are open and channels are not: nothing is done in a channel by handing what concerns both to a shard alone,
//! whatever account has signed it. The channel hears of it by the shard's vote, waits for a member that hands it over,
//! and says no once its time is up, whatever it would have said of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use channel::Change;
use client::{Identity, Wait, net};
use ledger::hash::sha256;
use ledger::lock::hash_of;
use ledger::{Condition, GroupId, LedgerId, Move, NodeId, Outcome, Receipt, Reject, SignedTx, Slot, TimeMs, TxId};
use proto::v1;
use proto::v1::submit_event::Event;
use seamark_cli::setup::Subject;

use crate::isolation::{A, B, C, OUTSIDE, Scene, balance};
use crate::support::bank::{Wallet, body, now_ms, wallet};
use crate::support::consortium::Consortium;
use crate::support::{eventually, in_time};

const SHARD: GroupId = GroupId::shard(0);
/// How long what is smuggled is valid: the channel has to hear of it meanwhile, and says no after it.
const VALID_MS: u64 = 15_000;

/// What an account would do in the channel, each time with its own consent on the main ledger.
fn of_both(scene: &Scene, by: &Wallet) -> Vec<SignedTx> {
    let (from, to, asset) = (by.address, scene.payee.address, scene.bank.asset);
    let until = now_ms() + VALID_MS;
    let deadline_ms = TimeMs(until + 60_000);
    let inside = [
        Move::Pay { from, to, asset, amount: 1 },
        // Whether there is so much, and of that asset, is not told either.
        Move::Pay { from, to, asset, amount: u128::from(u64::MAX) },
        Move::Pay { from, to, asset: ledger::AssetId([7; 16]), amount: 1 },
        Move::Lock { from, to, asset, amount: 1, hash: hash_of(&[1; 32]), deadline_ms },
        Move::Transfer { from, to: from, asset, amount: 1, ledger: LedgerId::MAIN },
        Move::Record { owner: from, hash: sha256(b"a bill of lading"), metadata: b"smuggled".to_vec() },
    ];
    let sign = |(number, mv): (u64, Move)| {
        let consent = Move::Check { account: from, condition: Condition::Consent };
        let mut body = body(scene.cluster.genesis.cluster_id(), number, [consent]);
        body.valid_until_ms = TimeMs(until);
        body.slots.push(Slot::Clear { ledger: LedgerId::of_channel(scene.channel), mv });
        SignedTx::sign(&body, &[&by.key])
    };
    (100..).zip(inside).map(sign).collect()
}

/// Hands all of it to the leader of the shard, as a router of this identity does. Nothing comes of it, and nobody is
/// told why not.
async fn comes_to_nothing(scene: &Scene, identity: &Identity, by: &Wallet) {
    let (cluster, channel, member) = (&scene.cluster, scene.channel, Scene::member(&scene.cluster));
    let (txs, id) = (of_both(scene, by), cluster.genesis.cluster_id());
    let funds =
        async || [balance(&member, scene, by.address).await, balance(&member, scene, scene.payee.address).await];
    let before = funds().await;
    let txids: Vec<TxId> = txs.iter().map(|tx| tx.txid(&id)).collect();
    let txs: Vec<Bytes> = txs.iter().map(|tx| tx.encode().into()).collect();
    let batch = v1::IngestBatch { group: SHARD.0, txs, notify_applied: false, caller: None };
    // The stream stays open: closing it would end the answers.
    let batches = futures::StreamExt::chain(tokio_stream::iter([batch]), futures::stream::pending());
    let leader = cluster.leader(SHARD).await;
    let mut router = net::node_client(scene.back_door(leader, identity));
    let mut events = in_time("a hand-over", router.ingest(batches)).await.unwrap().into_inner();

    let mut told: BTreeMap<TxId, Outcome> = BTreeMap::new();
    while told.len() < txids.len() {
        for event in in_time("an event", events.message()).await.unwrap().unwrap().events {
            match event.event {
                Some(Event::Vote(vote)) => assert!(vote.yes && vote.group == SHARD.0, "{vote:?}"),
                Some(Event::Receipt(receipt)) => {
                    let receipt: Receipt = borsh::from_slice(&receipt).unwrap();
                    told.insert(receipt.txid, receipt.outcome);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let refused = Outcome::Aborted { group: channel, reason: Reject::RefusedElsewhere };
    for txid in &txids {
        assert_eq!(told[txid], refused, "whatever would have been wrong with it");
        // It was not too late when the channel heard of it.
        let known = member.explain(*txid).await.unwrap();
        let inside = known.into_iter().find(|answer| answer.group == channel).and_then(|answer| answer.prepared);
        let inside = inside.expect("the channel has heard of it");
        assert!(inside.seen.time_ms <= inside.valid_until_ms && !inside.handed_over, "{inside:?}");
        let own = inside.own.as_ref().expect("it has voted");
        assert!(own.no == Some(Reject::Expired) && own.at.time_ms > inside.valid_until_ms, "{inside:?}");
        assert!(inside.resolved.is_some_and(|(_, posted)| !posted), "{inside:?}");
    }
    assert_eq!(funds().await, before);
}

/// A router's certificate of an organisation.
fn router_of(scene: &Scene, org: &str) -> Identity {
    scene.cluster.authority(org).issue(&Subject::router("router-x", org, Vec::new())).unwrap().identity()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outsider_writes_nothing_in_a_channel_by_way_of_a_shard() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    // Its own router takes it for neither, once it has heard of the channel.
    let outside = Consortium::of(&scene.cluster).client_over(C, |node| node == OUTSIDE);
    let tx = of_both(&scene, &scene.payer).remove(0).encode();
    eventually("its own router refuses it", async || {
        match outside.submit_tx(tx.clone(), Vec::new(), Wait::Receipt).await {
            Err(error) if error.code() == "access_denied" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // One that is less scrupulous goes to the shard. It has got hold of the key of an account inside.
    comes_to_nothing(&scene, &router_of(&scene, "org-c"), &scene.payer).await;

    // In the hands of a member the same is done at once.
    let tx = of_both(&scene, &scene.payer).remove(0).encode();
    let settled = Scene::member(&scene.cluster).submit_tx(tx, Vec::new(), Wait::Applied).await.unwrap();
    assert!(settled.committed(), "{settled:?}");
    assert_eq!(balance(&Scene::member(&scene.cluster), &scene, scene.payee.address).await, 78);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_moves_nothing_of_what_it_left_in_a_channel() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)]), (C, &[OUTSIDE])], &[A, B]).await;
    let left = wallet("left", 0);
    scene.bank.fund([&left], 10).await;
    let give = vec![(LedgerId::of_channel(scene.channel), scene.bank.pay(&scene.payer, left.address, 50))];
    let member = Scene::member(&scene.cluster);
    member.execute(give, b"", &[&scene.payer.key], Wait::Receipt).await.unwrap();
    Consortium::of(&scene.cluster).decide(scene.channel, Change::Remove { org: C }, &[A, B]).await;
    comes_to_nothing(&scene, &router_of(&scene, "org-c"), &left).await;
    assert_eq!(balance(&member, &scene, left.address).await, 50);
}
