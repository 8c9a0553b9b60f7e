//! What a payment does, wherever its accounts live: balances, receipts, idempotence, authority, and
//! the supply in every header.

use std::collections::BTreeSet;

use bytes::Bytes;
use client::Wait;
use ledger::genesis::VerifyMode;
use ledger::{
    AssetSpec, Authorisation, GroupId, LedgerId, Move, Outcome, PublicKey, Reject, SecretKey, SignedTx, Witness,
};

use crate::support::audit::{audit, end_and_reconcile};
use crate::support::bank::{Bank, Wallet, body, reason, wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::in_time;
use crate::support::load::Load;

struct Town {
    cluster: TestCluster,
    bank: Bank,
    /// Funded accounts, by shard.
    homes: Vec<Vec<Wallet>>,
}

const FUNDS: u128 = 1_000;

async fn town(wanted: Wanted) -> Town {
    let cluster = TestCluster::start(wanted).await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 4);
    bank.fund(homes.iter().flatten(), FUNDS).await;
    Town { cluster, bank, homes }
}

impl Town {
    fn everybody(&self) -> Vec<&Wallet> {
        self.homes.iter().flatten().collect()
    }

    /// All chains are sound, and the asset's supply is what the accounts have.
    async fn check(&self, minted: u128, burned: u128, others: &[&Wallet]) {
        let supply = audit(&self.cluster).await[&self.bank.asset];
        assert_eq!((supply.minted, supply.burned), (minted, burned));
        let mut all = self.everybody();
        all.extend(others);
        all.push(&self.bank.issuer);
        assert_eq!(self.bank.total(all).await, minted - burned);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_reach_accounts_of_every_shard_and_the_supply_stays() {
    let town = town(Wanted { shards: 3, ..Wanted::default() }).await;
    let (bank, homes) = (&town.bank, &town.homes);
    let minted = FUNDS * 12;

    // Inside a shard: nothing is mailed. Across: one credit is.
    let (alice, bob, carol) = (&homes[0][0], &homes[0][1], &homes[1][0]);
    let inside = bank.client.pay(&alice.key, bob.address, bank.asset, 10, Wait::Receipt).await.unwrap();
    assert_eq!(inside.outcome, Outcome::Committed { mail: Vec::new() });
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [990, 1_010]);
    let across = bank.client.pay(&bob.key, carol.address, bank.asset, 30, Wait::Applied).await.unwrap();
    let Outcome::Committed { mail } = &across.outcome else { panic!("{across:?}") };
    assert_eq!(mail.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [GroupId::shard(1)]);
    assert_eq!(bank.balances(&[bob.address, carol.address]).await, [980, 1_030]);

    // One payer, payees in every shard, the payer itself among them.
    let to_all: Vec<Move> = town.everybody().into_iter().map(|to| bank.pay(alice, to.address, 5)).collect();
    bank.execute(to_all, &[&alice.key]).await.unwrap();
    let after = bank.balances(&town.everybody().iter().map(|wallet| wallet.address).collect::<Vec<_>>()).await;
    assert_eq!(after, [990 - 55, 985, 1_005, 1_005, 1_035, 1_005, 1_005, 1_005, 1_005, 1_005, 1_005, 1_005]);

    // To oneself: committed, and nothing changes.
    let myself = bank.client.pay(&alice.key, alice.address, bank.asset, 935, Wait::Applied).await.unwrap();
    assert!(myself.committed());
    assert_eq!(bank.balance(alice.address).await, 935);

    // Several payers of one shard in one transaction, each with its signature.
    let both = vec![bank.pay(alice, carol.address, 35), bank.pay(bob, carol.address, 85)];
    bank.execute(both, &[&alice.key, &bob.key]).await.unwrap();
    assert_eq!(bank.balances(&[alice.address, bob.address, carol.address]).await, [900, 900, 1_155]);

    // The issuer mints for itself and burns a part of it.
    bank.execute(vec![bank.mint(bank.issuer.address, 500)], &[&bank.issuer.key]).await.unwrap();
    let burn = Move::Burn { issuer: bank.issuer.address, asset: bank.asset, amount: 200 };
    bank.execute(vec![burn], &[&bank.issuer.key]).await.unwrap();
    assert_eq!(bank.balance(bank.issuer.address).await, 300);

    // A payment to an account that nobody has seen makes it.
    let stranger = wallet("stranger", 7);
    bank.client.pay(&alice.key, stranger.address, bank.asset, 1, Wait::Applied).await.unwrap();
    assert_eq!(bank.balance(stranger.address).await, 1);
    town.check(minted + 500, 200, &[&stranger]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_spend_is_what_the_account_says_now() {
    let town = town(Wanted::default()).await;
    let (bank, homes) = (&town.bank, &town.homes);

    // Two of three keys. The signatures may be of any two of them.
    let mut keys: Vec<SecretKey> = (0..3).map(|number| wallet("member", number).key).collect();
    keys.sort_by_key(SecretKey::public);
    let publics: Vec<PublicKey> = keys.iter().map(SecretKey::public).collect();
    let auth = Authorisation::Multi { threshold: 2, keys: publics };
    let joint = auth.address();
    bank.execute(vec![bank.mint(joint, 100)], &[&bank.issuer.key]).await.unwrap();
    let joint_tx = |number: u64, signers: &[u8]| {
        let mv = Move::Pay { from: joint, to: homes[0][0].address, asset: bank.asset, amount: 10 };
        let mut tx = SignedTx::sign(&body(bank.client.cluster_id(), number, [mv]), &[]);
        let txid = tx.txid(&bank.client.cluster_id());
        let signatures = signers.iter().map(|at| (*at, keys[usize::from(*at)].sign(&txid.0))).collect();
        tx.witnesses = vec![Witness { auth: auth.clone(), signatures }];
        tx.encode()
    };
    for (number, signers) in [(1, [0, 1]), (2, [0, 2]), (3, [1, 2])] {
        let receipt = bank.client.submit_and_wait(joint_tx(number, &signers), Wait::Applied).await.unwrap();
        assert!(receipt.committed(), "{receipt:?}");
    }
    let alone = bank.client.submit(joint_tx(4, &[1])).await.unwrap_err();
    assert_eq!(reason(&alone), Some(Reject::AuthForm));
    assert_eq!(bank.balance(joint).await, 70);

    // After a rotation the new key spends and the old one does not, the address stays.
    let (old, new) = (&homes[0][1], wallet("rotated", 1));
    let rotate = |to: &Wallet| Move::Rotate { account: old.address, auth: Authorisation::Single(to.key.public()) };
    bank.execute(vec![rotate(&new)], &[&old.key]).await.unwrap();
    let with = |key: &SecretKey, number| {
        let mv = bank.pay(old, homes[1][0].address, 1);
        SignedTx::sign(&body(bank.client.cluster_id(), number, [mv]), &[key]).encode()
    };
    let refused = bank.client.submit(with(&old.key, 10)).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reject::NotAuthorised));
    assert!(bank.client.submit_and_wait(with(&new.key, 10), Wait::Applied).await.unwrap().committed());
    // And back again: what counts is the account, not history.
    bank.execute(vec![rotate(old)], &[&new.key]).await.unwrap();
    assert!(bank.client.submit_and_wait(with(&old.key, 11), Wait::Applied).await.unwrap().committed());
    let issuer = &bank.issuer;
    let joint_left = Wallet { key: issuer.key.clone(), address: joint };
    town.check(FUNDS * 8 + 100, 0, &[&joint_left]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_has_one_receipt_however_often_it_is_sent() {
    let town = town(Wanted::default()).await;
    let (bank, homes) = (&town.bank, &town.homes);
    let (alice, bob) = (&homes[0][0], &homes[1][0]);
    let cluster = bank.client.cluster_id();
    let payment = |number, amount| {
        let body = body(cluster, number, [bank.pay(alice, bob.address, amount)]);
        Bytes::from(SignedTx::sign(&body, &[&alice.key]).encode())
    };

    // Twenty at once, over every router, all the same bytes.
    let tx = payment(1, 10);
    let mut sending = Vec::new();
    for turn in 0..20 {
        let nodes = town.cluster.node_ids();
        let client = town.cluster.client_of(nodes[turn % nodes.len()]);
        let (tx, wait) = (tx.clone(), if turn % 2 == 0 { Wait::Receipt } else { Wait::Applied });
        sending.push(tokio::spawn(async move { client.submit_and_wait(tx, wait).await.unwrap() }));
    }
    let mut receipts = Vec::new();
    for sent in sending {
        receipts.push(in_time("a duplicate's receipt", sent).await.unwrap());
    }
    receipts.dedup();
    assert_eq!(receipts.len(), 1, "{receipts:?}");
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [990, 1_010]);

    // Later again: the same receipt, and a rejection stays a rejection when it could succeed now.
    assert_eq!(bank.client.submit(tx.clone()).await.unwrap(), receipts[0]);
    let too_much = payment(2, 5_000);
    let rejected = bank.client.submit(too_much.clone()).await.unwrap();
    assert_eq!(rejected.no(), Some((GroupId::shard(0), Reject::InsufficientFunds)));
    bank.fund([alice], 10_000).await;
    assert_eq!(bank.client.submit(too_much).await.unwrap(), rejected);
    let found = bank.client.transaction(rejected.txid(), None, false).await.unwrap().value;
    assert_eq!(found.as_ref(), rejected.receipt());
    town.check(FUNDS * 8 + 10_000, 0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_in_every_direction_settles_to_equal_replicas() {
    let town = town(Wanted { nodes: 4, shards: 4, ..Wanted::default() }).await;
    let everybody: Vec<Wallet> = town.homes.iter().flatten().cloned().collect();
    let mut load = Load::start(&town.bank, &everybody, &everybody, 256).await;
    load.next(3_000).await;
    let (committed, fates) = end_and_reconcile(load, &town.bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 3_000);
    assert_eq!(committed, fates.sent.len() as u64);
    let places: BTreeSet<_> =
        fates.receipts.values().map(|receipt| (receipt.group, receipt.height, receipt.index)).collect();
    assert_eq!(places.len(), fates.receipts.len(), "two receipts at one place");
    town.check(FUNDS * 16, 0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_replica_checking_signatures_certificates_still_form() {
    let town = town(Wanted { verify: VerifyMode::Every, ..Wanted::default() }).await;
    let everybody: Vec<Wallet> = town.homes.iter().flatten().cloned().collect();
    let mut load = Load::start(&town.bank, &everybody, &everybody, 64).await;
    load.next(500).await;
    let (_, fates) = end_and_reconcile(load, &town.bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    // Settled means certified to the last block, on every replica.
    town.check(FUNDS * 8, 0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn assets_are_defined_once_and_known_everywhere() {
    let cluster = TestCluster::start(Wanted { shards: 3, ..Wanted::default() }).await;
    let bank = Bank::open(&cluster.client()).await;
    for group in cluster.groups() {
        let found = bank.client.asset(bank.asset, Some(group)).await.unwrap().value;
        let found = found.unwrap_or_else(|| panic!("{group} does not know the asset"));
        assert_eq!((found.spec.symbol.as_str(), found.frozen), ("EUR", false));
    }
    let again = AssetSpec { issuer: bank.issuer.address, symbol: "EUR".into(), name: "Another".into(), decimals: 0 };
    let moves = vec![(LedgerId::BEACON, Move::Issue(again))];
    let error = bank.client.execute(moves, b"", &[&bank.issuer.key], Wait::Receipt).await.unwrap_err();
    assert_eq!(reason(&error), Some(Reject::AssetExists));
    // Another issuer may use the symbol: it is another asset.
    let other = wallet("other issuer", 0);
    let spec = AssetSpec { issuer: other.address, symbol: "EUR".into(), name: String::new(), decimals: 2 };
    assert_ne!(spec.id(), bank.asset);
    bank.client.execute(vec![(LedgerId::BEACON, Move::Issue(spec))], b"", &[&other.key], Wait::Applied).await.unwrap();
}
