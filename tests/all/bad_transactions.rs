//! Transactions that must not pass: each has its code, costs its sender, and changes nothing.

use std::time::Duration;

use borsh::BorshDeserialize;
use bytes::Bytes;
use client::net;
use client::{ClientError, Consistency, SubmitEvent, SubmitOptions, Wait};
use ledger::limits::{MOVES_MAX, SIGNED_TX_BYTES_MAX};
use ledger::tx::{Condition, Opening};
use ledger::{
    AssetId, AssetSpec, Authorisation, ClusterId, GroupId, Hash32, LedgerId, Move, NodeId, Reject, SignedTx, Slot,
    TimeMs, TxBody,
};
use proto::v1;
use proto::v1::submit_event::Event;

use crate::support::audit::audit;
use crate::support::bank::{Bank, Wallet, body, now_ms, reason, wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::{eventually, in_time};

/// Order of secp256k1, big endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc,
    0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

/// `order − s`: the other signature that plain ECDSA would take.
fn with_high_s(signature: [u8; 64]) -> [u8; 64] {
    let mut high = signature;
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let digit = i16::from(ORDER[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        high[32 + at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    high
}

struct Counter {
    bank: Bank,
    alice: Wallet,
    bob: Wallet,
    number: u64,
}

impl Counter {
    fn body(&mut self, moves: Vec<Move>) -> TxBody {
        self.number += 1;
        body(self.bank.client.cluster_id(), self.number, moves)
    }

    fn pay(&self, amount: u128) -> Move {
        self.bank.pay(&self.alice, self.bob.address, amount)
    }

    async fn refused(&self, body: &TxBody, signers: &[&Wallet], expected: Reject) {
        let keys: Vec<_> = signers.iter().map(|wallet| &wallet.key).collect();
        self.refused_tx(&SignedTx::sign(body, &keys), expected).await;
    }

    /// It is refused for this reason, twice; and only the reasons that say so leave a receipt.
    async fn refused_tx(&self, tx: &SignedTx, expected: Reject) {
        for _ in 0..2 {
            let answer = in_time("a refusal", self.bank.client.submit(tx.encode())).await;
            let (found, has_receipt) = match &answer {
                Ok(settled) => (settled.no().map(|(_, reject)| reject), true),
                Err(error) => {
                    assert!(!error.code().is_empty() && !error.to_string().is_empty());
                    (reason(error), false)
                }
            };
            assert_eq!(found, Some(expected), "{answer:?}");
            assert_eq!(has_receipt, expected.leaves_receipt(), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_transaction_gets_its_own_code() {
    let cluster = TestCluster::start(Wanted::default()).await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 2);
    bank.fund(homes.iter().flatten(), 1_000).await;
    let (alice, bob) = (homes[0][0].clone(), homes[0][1].clone());
    let mut counter = Counter { bank: bank.clone(), alice: alice.clone(), bob: bob.clone(), number: 0 };
    signatures(&mut counter).await;
    times_and_places(&mut counter).await;
    amounts(&mut counter).await;
    shapes(&mut counter).await;
    across_groups(&mut counter, &homes).await;
    // Nothing of all this changed anything.
    assert_eq!(bank.total(homes.iter().flatten()).await, 4_000);
    bank.client.pay(&alice.key, bob.address, bank.asset, 1, Wait::Applied).await.unwrap();
    assert_eq!(audit(&cluster).await[&bank.asset].held, 4_000 + bank.balance(bank.issuer.address).await);
}

async fn signatures(counter: &mut Counter) {
    let (alice, bob) = (counter.alice.clone(), counter.bob.clone());
    let moves = vec![counter.pay(1)];
    let body = counter.body(moves);
    let good = SignedTx::sign(&body, &[&alice.key]);

    let mut flipped = good.clone();
    flipped.witnesses[0].signatures[0].1.0[10] ^= 1;
    counter.refused_tx(&flipped, Reject::BadSignature).await;
    let mut high = good.clone();
    let signature = &mut high.witnesses[0].signatures[0].1;
    signature.0 = with_high_s(signature.0);
    counter.refused_tx(&high, Reject::BadSignature).await;
    // Of another transaction.
    let moves = vec![counter.pay(2)];
    let mut moved = good.clone();
    moved.witnesses = SignedTx::sign(&counter.body(moves), &[&alice.key]).witnesses;
    counter.refused_tx(&moved, Reject::BadSignature).await;
    // Of somebody else, of nobody, and of more than could be needed.
    counter.refused(&body, &[&bob], Reject::NotAuthorised).await;
    counter.refused(&body, &[], Reject::BadSignature).await;
    counter.refused(&body, &[&alice, &bob], Reject::AuthForm).await;
    // And the good one, which nobody has burned by all that.
    assert!(counter.bank.client.submit(good.encode()).await.unwrap().committed());
    let back = counter.bank.pay(&bob, alice.address, 1);
    counter.bank.execute(vec![back], &[&bob.key]).await.unwrap();
}

async fn times_and_places(counter: &mut Counter) {
    let alice = counter.alice.clone();
    let moves = vec![counter.pay(1)];
    let mut elsewhere = counter.body(moves.clone());
    elsewhere.cluster = ClusterId(Hash32([7; 32]));
    counter.refused(&elsewhere, &[&alice], Reject::WrongCluster).await;
    let mut late = counter.body(moves.clone());
    late.valid_until_ms = TimeMs(now_ms() - 1_000);
    counter.refused(&late, &[&alice], Reject::Expired).await;
    late.valid_until_ms = TimeMs(1);
    counter.refused(&late, &[&alice], Reject::OutcomePruned).await;
    let mut early = counter.body(moves.clone());
    early.valid_until_ms = TimeMs(now_ms() + 48 * 3_600_000);
    counter.refused(&early, &[&alice], Reject::ValidTooLong).await;
    early.valid_until_ms = TimeMs(u64::MAX);
    counter.refused(&early, &[&alice], Reject::ValidTooLong).await;

    let mut nowhere = counter.body(moves);
    nowhere.slots = nowhere.moves().map(|(_, mv)| Slot::Clear { ledger: LedgerId(77), mv: mv.clone() }).collect();
    counter.refused(&nowhere, &[&alice], Reject::UnknownGroup).await;
    let spec = AssetSpec { issuer: alice.address, symbol: "MIX".into(), name: String::new(), decimals: 0 };
    let moves = vec![counter.pay(1)];
    let mut mixed = counter.body(moves);
    mixed.slots.push(Slot::Clear { ledger: LedgerId::BEACON, mv: Move::Issue(spec) });
    counter.refused(&mixed, &[&alice], Reject::MultiVoter).await;
    let mut hidden = counter.body(Vec::new());
    hidden.slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group: GroupId::shard(0), hash: Hash32::ZERO });
    counter.refused(&hidden, &[&alice], Reject::HiddenSlot).await;
}

async fn amounts(counter: &mut Counter) {
    let (alice, issuer) = (counter.alice.clone(), counter.bank.issuer.clone());
    let (asset, bob) = (counter.bank.asset, counter.bob.address);
    let unknown = AssetId([9; 16]);
    let cases = [
        (counter.pay(0), &alice, Reject::ZeroAmount),
        (counter.pay(1_001), &alice, Reject::InsufficientFunds),
        (counter.pay(u128::MAX), &alice, Reject::InsufficientFunds),
        (Move::Pay { from: alice.address, to: bob, asset: unknown, amount: 1 }, &alice, Reject::NoSuchAsset),
        (Move::Mint { issuer: alice.address, to: bob, asset: unknown, amount: 1 }, &alice, Reject::UnknownAsset),
        (Move::Burn { issuer: alice.address, asset: unknown, amount: 1 }, &alice, Reject::UnknownAsset),
        (Move::Mint { issuer: alice.address, to: bob, asset, amount: 1 }, &alice, Reject::NotIssuer),
        (Move::Burn { issuer: alice.address, asset, amount: 1 }, &alice, Reject::NotIssuer),
        (Move::Mint { issuer: issuer.address, to: bob, asset, amount: u128::MAX }, &issuer, Reject::Overflow),
        (Move::Mint { issuer: issuer.address, to: bob, asset, amount: 0 }, &issuer, Reject::ZeroAmount),
        (Move::Burn { issuer: issuer.address, asset, amount: 1 }, &issuer, Reject::InsufficientFunds),
    ];
    for (mv, signer, expected) in cases {
        let body = counter.body(vec![mv]);
        counter.refused(&body, &[signer], expected).await;
    }
    // All moves or none: the second one fails, so the first one did not happen.
    let moves = vec![counter.pay(600), counter.pay(601)];
    let both = counter.body(moves);
    counter.refused(&both, &[&alice], Reject::InsufficientFunds).await;
    assert_eq!(counter.bank.balance(alice.address).await, 1_000);
}

/// What several groups would have to vote on: refused, or decided with NO, and nothing is held after.
async fn across_groups(counter: &mut Counter, homes: &[Vec<Wallet>]) {
    let (alice, carol) = (&homes[0][0], &homes[1][0]);
    let there_and_back = |counter: &Counter, amount: u128| {
        let bank = &counter.bank;
        [bank.pay(alice, carol.address, amount), bank.pay(carol, alice.address, amount)]
    };
    // Duplicate and contradictory moves.
    let [to, back] = there_and_back(counter, 1);
    let twice = counter.body(vec![to.clone(), back.clone(), to.clone()]);
    counter.refused(&twice, &[alice, carol], Reject::DuplicateMove).await;
    let asset = counter.bank.asset;
    let check = |condition| Move::Check { account: alice.address, condition };
    let contradiction = vec![
        check(Condition::AtLeast { asset, amount: 10 }),
        check(Condition::AtMost { asset, amount: 9 }),
        back.clone(),
    ];
    let contradiction = counter.body(contradiction);
    counter.refused(&contradiction, &[alice, carol], Reject::DuplicateMove).await;

    // A co-signature is missing: the party that signed votes, the other group says no for both.
    for signer in [alice, carol] {
        let [to, back] = there_and_back(counter, 7);
        let tx = SignedTx::sign(&counter.body(vec![to, back]), &[&signer.key]);
        let settled = in_time("an outcome", counter.bank.client.submit(tx.encode())).await.unwrap();
        assert_eq!(settled.no().map(|(_, reject)| reject), Some(Reject::NotAuthorised));
    }
    // Neither party has signed, but somebody has.
    let [to, back] = there_and_back(counter, 8);
    let strangers = counter.body(vec![to, back]);
    let stranger = wallet("stranger", 0);
    counter.refused(&strangers, &[&stranger], Reject::NotAuthorised).await;

    // A slot for a group that does not exist, or that does not own the account, and an opening that is
    // not the one that was signed.
    let hide = |counter: &mut Counter, group: GroupId, opening: &Opening| {
        let [to, _] = there_and_back(counter, 3);
        let mut body = counter.body(vec![to]);
        body.slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group, hash: opening.hash() });
        SignedTx::sign(&body, &[&alice.key, &carol.key])
    };
    let [_, back] = there_and_back(counter, 4);
    let opening = Opening { slot: 1, salt: Hash32([5; 32]), mv: back };
    let nowhere = hide(counter, GroupId::shard(9), &opening);
    counter.refused_tx(&nowhere, Reject::UnknownGroup).await;
    let elsewhere = hide(counter, GroupId::shard(0), &opening);
    let fitting = hide(counter, GroupId::shard(1), &opening);
    let other = Opening { salt: Hash32([6; 32]), ..opening.clone() };
    // A shard that does not own the account may own it once the layout is refreshed: the SDK asks again for a while.
    let hasty = counter.bank.client.clone().with_patience(Duration::from_secs(1));
    for (tx, opening, expected) in
        [(&elsewhere, &opening, Reject::WrongShard), (&fitting, &other, Reject::OpeningMismatch)]
    {
        let sent = hasty.submit_tx(tx.encode(), vec![opening.clone()], Wait::Applied);
        let error = in_time("a refusal", sent).await.unwrap_err();
        assert_eq!(reason(&error), Some(expected), "{error}");
    }
    // Nothing is held for any of it: everything can be spent.
    for owner in [alice, carol] {
        eventually("nothing is held", async || {
            let view = counter.bank.client.account_view(owner.address, Consistency::Linearizable, None).await;
            let view = view.map_err(|error| error.to_string())?.value.ok_or("no account")?;
            let balance = view.record.balances[0].1;
            if (balance.posted, balance.held) == (1_000, 0) && view.claims.is_empty() {
                Ok(())
            } else {
                Err(format!("{balance:?}"))
            }
        })
        .await;
    }
}

async fn shapes(counter: &mut Counter) {
    let alice = counter.alice.clone();
    let none = counter.body(Vec::new());
    counter.refused(&none, &[], Reject::MoveCount).await;
    let many = vec![counter.pay(1); MOVES_MAX + 1];
    let many = counter.body(many);
    counter.refused(&many, &[&alice], Reject::MoveCount).await;
    let moves = vec![counter.pay(1)];
    let mut memo = counter.body(moves.clone());
    memo.memo = vec![b'x'; 257];
    counter.refused(&memo, &[&alice], Reject::MemoTooLarge).await;
    memo.memo = vec![b'x'; 70_000];
    counter.refused(&memo, &[&alice], Reject::BodyTooLarge).await;
    // One that another ledger could read, too: the SDK sends it to nobody, and a router hands it to nobody.
    let mut across = counter.body(moves.clone());
    let inside = Slot::Clear { ledger: LedgerId::of_channel(GroupId::channel(5)), mv: counter.pay(2) };
    across.slots.push(inside);
    across.memo = b"back to back".to_vec();
    counter.refused(&across, &[&alice], Reject::MemoAcrossLedgers).await;
    let mut stream = counter.bank.client.submit_stream(SubmitOptions::default());
    stream.send(vec![Bytes::from(SignedTx::sign(&across, &[&alice.key]).encode())]).await.unwrap();
    let events = in_time("a refusal", stream.next_events()).await.unwrap();
    let refused = matches!(events[..], [SubmitEvent::Refused { reject: Some(Reject::MemoAcrossLedgers), .. }]);
    assert!(refused, "{events:?}");
    let mut version = counter.body(moves.clone());
    version.version = 2;
    counter.refused(&version, &[&alice], Reject::Malformed).await;
    let mut longer = SignedTx::sign(&counter.body(moves.clone()), &[]);
    longer.body.push(0);
    let txid = longer.txid(&counter.bank.client.cluster_id());
    longer.witnesses.push(ledger::Witness {
        auth: Authorisation::Single(alice.key.public()),
        signatures: vec![(0, alice.key.sign(&txid.0))],
    });
    counter.refused_tx(&longer, Reject::Malformed).await;

    let keys = vec![alice.key.public(), alice.key.public()];
    let auth = Authorisation::Multi { threshold: 2, keys };
    let twice = counter.body(vec![Move::Rotate { account: alice.address, auth }]);
    counter.refused(&twice, &[&alice], Reject::AuthForm).await;
    let empty = Authorisation::Multi { threshold: 0, keys: Vec::new() };
    let nobody = counter.body(vec![Move::Rotate { account: alice.address, auth: empty }]);
    counter.refused(&nobody, &[&alice], Reject::AuthForm).await;
    for (symbol, decimals) in [("", 2), ("SEVENTEEN-LETTERS", 2), ("EU R", 2), ("EUR", 37)] {
        let spec = AssetSpec { issuer: alice.address, symbol: symbol.into(), name: String::new(), decimals };
        let mut issue = counter.body(Vec::new());
        issue.slots.push(Slot::Clear { ledger: LedgerId::BEACON, mv: Move::Issue(spec) });
        counter.refused(&issue, &[&alice], Reject::AssetForm).await;
    }
    // The SDK does not even send what is no transaction.
    let bytes = SignedTx::sign(&counter.body(moves), &[&alice.key]).encode();
    for bad in
        [Vec::new(), bytes[..bytes.len() - 1].to_vec(), [&bytes[..], &[0]].concat(), b"not a transaction".to_vec()]
    {
        let error = counter.bank.client.submit(bad).await.unwrap_err();
        assert!(matches!(error, ClientError::BadTransaction(Reject::Malformed)), "{error}");
    }
}

/// A block costs every replica an fsync and room for ever. What cannot change anything, and is known
/// not to from what is applied, gets its answer without one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_or_can_never_be_is_answered_without_a_block() {
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let bank = Bank::open(&cluster.client()).await;
    let (alice, bob, newcomer) = (wallet("home", 0), wallet("home", 1), wallet("home", 2));
    bank.fund([&alice, &bob, &newcomer], 100).await;
    let sign = |number, mv, key| SignedTx::sign(&body(bank.client.cluster_id(), number, [mv]), &[key]);
    let paid = sign(1, bank.pay(&alice, bob.address, 7), &alice.key).encode();
    let settled = bank.client.submit_and_wait(paid.clone(), Wait::Applied).await.unwrap();
    let mut late = body(bank.client.cluster_id(), 2, [bank.pay(&alice, bob.address, 1)]);
    late.valid_until_ms = TimeMs(settled.receipt().unwrap().time_ms.0 - 1);
    let late = SignedTx::sign(&late, &[&alice.key]);
    let unknown = Move::Mint { issuer: alice.address, to: bob.address, asset: AssetId([9; 16]), amount: 1 };
    let never = [
        (late, Reject::Expired),
        // An account that has shown its authorisation, and one that has not.
        (sign(3, bank.pay(&alice, bob.address, 1), &bob.key), Reject::NotAuthorised),
        (sign(4, bank.pay(&newcomer, bob.address, 1), &bob.key), Reject::NotAuthorised),
        (sign(5, unknown, &alice.key), Reject::UnknownAsset),
    ];
    let before = cluster.wait_settled().await;
    for _ in 0..3 {
        for (tx, expected) in &never {
            let error = in_time("a refusal", bank.client.submit(tx.encode())).await.unwrap_err();
            assert_eq!(reason(&error), Some(*expected), "{error}");
        }
        assert_eq!(bank.client.submit(paid.clone()).await.unwrap(), settled);
        assert_eq!(bank.client.submit_and_wait(paid.clone(), Wait::Applied).await.unwrap(), settled);
    }
    assert_eq!(cluster.wait_settled().await, before, "something of it was sequenced");

    // What may still happen is not judged beforehand: too little money is an outcome with a receipt.
    let poor = sign(6, bank.pay(&alice, bob.address, 1_000), &alice.key).encode();
    let rejected = bank.client.submit(poor).await.unwrap();
    assert_eq!(rejected.no(), Some((ledger::GroupId::shard(0), Reject::InsufficientFunds)));
    // And a refusal for the keys of today says nothing about tomorrow.
    let (early, _) = &never[1];
    let auth = Authorisation::Single(bob.key.public());
    bank.execute(vec![Move::Rotate { account: alice.address, auth }], &[&alice.key]).await.unwrap();
    assert!(bank.client.submit(early.encode()).await.unwrap().committed());
}

/// What the SDK would not send, sent past it: the router answers every one of them with its code.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_transaction_are_refused_by_the_router_itself() {
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let bank = Bank::open(&cluster.client()).await;
    let (alice, bob) = (wallet("home", 0), wallet("home", 1));
    bank.fund([&alice, &bob], 100).await;
    let good =
        SignedTx::sign(&body(bank.client.cluster_id(), 1, [bank.pay(&alice, bob.address, 1)]), &[&alice.key]).encode();
    let oversized = vec![0; SIGNED_TX_BYTES_MAX + 1];
    let bad: Vec<(Vec<u8>, Reject)> = vec![
        (Vec::new(), Reject::Malformed),
        (vec![0xff; 40], Reject::Malformed),
        (good[..good.len() - 1].to_vec(), Reject::Malformed),
        ([&good[..], &[0]].concat(), Reject::Malformed),
        // A length that promises four gigabytes.
        (vec![1, 0xff, 0xff, 0xff, 0xff, 1, 2, 3], Reject::Malformed),
        (oversized, Reject::BodyTooLarge),
    ];
    let profile = cluster.profile();
    let info = cluster.info(NodeId(1));
    let name = net::node_server_name(info.id);
    let channel = net::connect(&info.client_addr, &profile.identity().unwrap(), &cluster.roots(), &name).unwrap();
    let mut router = net::router_client(channel.clone());
    let mut txs: Vec<Bytes> = bad.iter().map(|(bytes, _)| Bytes::from(bytes.clone())).collect();
    txs.push(Bytes::from(good));
    let batch = v1::SubmitBatch { txs, notify_applied: false };
    let mut events = router.submit(tokio_stream::iter([batch])).await.unwrap().into_inner();
    let (mut refusals, mut receipts) = (Vec::new(), 0);
    while let Some(batch) = in_time("events", events.message()).await.unwrap() {
        for event in batch.events {
            match event.event.unwrap() {
                Event::Refusal(refusal) => {
                    refusals.push(Reject::from_number(u16::try_from(refusal.number).unwrap()).unwrap())
                }
                Event::Receipt(bytes) => {
                    assert!(ledger::Receipt::try_from_slice(&bytes).unwrap().committed());
                    receipts += 1;
                }
                Event::Applied(_) | Event::Vote(_) | Event::Waits(_) | Event::Decided(_) => panic!("nobody asked"),
            }
        }
    }
    assert_eq!(refusals, bad.iter().map(|(_, reject)| *reject).collect::<Vec<_>>());
    assert_eq!(receipts, 1, "the good one among them was executed");

    // More in one message than is taken ends the stream with a reason, and only the stream.
    let flood = v1::SubmitBatch { txs: vec![Bytes::new(); 8193], notify_applied: false };
    let mut events = router.submit(tokio_stream::iter([flood])).await.unwrap().into_inner();
    let error = in_time("the end", events.message()).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    // Questions that make no sense.
    let nonsense = [
        v1::QueryRequest::default(),
        v1::QueryRequest { consistency: 99, ..account_query(vec![1; 20]) },
        account_query(vec![1; 19]),
        account_query(Vec::new()),
    ];
    for question in nonsense {
        let reply = router.query(question.clone()).await.unwrap().into_inner();
        assert_eq!(reply.refusal.map(|refusal| refusal.code), Some("malformed".to_owned()), "{question:?}");
    }
    let block = v1::BlockQuery { group: GroupId::shard(9).0, height: 1 };
    let unknown = v1::QueryRequest { query: Some(v1::query_request::Query::Block(block)), ..Default::default() };
    let reply = router.query(unknown).await.unwrap().into_inner();
    assert_eq!(reply.refusal.map(|refusal| refusal.code), Some("unknown_group".to_owned()));
    bank.client.pay(&alice.key, bob.address, bank.asset, 1, Wait::Applied).await.unwrap();
}

fn account_query(address: Vec<u8>) -> v1::QueryRequest {
    let query = v1::query_request::Query::Account(v1::AccountQuery { address: address.into(), group: 0 });
    v1::QueryRequest { query: Some(query), ..Default::default() }
}
