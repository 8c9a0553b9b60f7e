//! Transactions whose accounts lie in several shards, over real clusters: all of it happens or
//! nothing does, whoever dies meanwhile, and nothing stays held.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::{ClientError, Consistency, Settled, SubmitEvent, SubmitOptions, Wait, net};
use ledger::genesis::VerifyMode;
use ledger::{
    AccountWrite, Address, Condition, GroupId, Hash32, LedgerId, Move, NodeId, Opening, Receipt, Reject, SecretKey,
    SignedTx, Slot, TxId,
};
use proto::v1;
use proto::v1::submit_event::Event;
use proto::views::{AccountView, Explain, HistoryChange};
use seamark_cli::setup::Subject;

use crate::support::audit::audit;
use crate::support::bank::{Bank, Wallet, body, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::{DEADLINE, eventually, in_time};

const ZERO: GroupId = GroupId::shard(0);
const ONE: GroupId = GroupId::shard(1);
const FUNDS: u128 = 1_000;

/// Two shards with funded accounts in each.
struct Town {
    cluster: TestCluster,
    bank: Bank,
    homes: Vec<Vec<Wallet>>,
}

impl Town {
    async fn open(verify: VerifyMode) -> Self {
        let cluster = TestCluster::start(Wanted { verify, ..Wanted::default() }).await;
        let bank = Bank::open(&cluster.client()).await;
        let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 4);
        bank.fund(homes.iter().flatten(), FUNDS).await;
        Self { cluster, bank, homes }
    }

    /// Two accounts of different shards.
    fn couple(&self) -> (&Wallet, &Wallet) {
        (&self.homes[0][0], &self.homes[1][0])
    }

    /// An account of the shard in which the issuer does not live.
    fn far_from_issuer(&self) -> &Wallet {
        let layout = &self.cluster.genesis.layout;
        let here = layout.locate(&self.bank.issuer.address);
        self.homes.iter().flatten().find(|wallet| layout.locate(&wallet.address) != here).unwrap()
    }

    fn home(&self, address: Address) -> GroupId {
        self.cluster.genesis.layout.locate(&address)
    }

    async fn view(&self, address: Address) -> AccountView {
        let answer = self.bank.client.account_view(address, Consistency::Linearizable, None).await.unwrap();
        answer.value.unwrap()
    }

    /// Waits until nothing is held or claimed on any account, which takes no longer than the outcome
    /// needs to reach every group.
    async fn until_nothing_is_held(&self) {
        for wallet in self.homes.iter().flatten() {
            eventually("nothing is held", async || {
                let view = self.view(wallet.address).await;
                let held: u128 = view.record.balances.iter().map(|(_, balance)| balance.held).sum();
                if held == 0 && view.claims.is_empty() { Ok(()) } else { Err(format!("{held} and {:?}", view.claims)) }
            })
            .await;
        }
    }

    /// What each group knows of a transaction, once both have applied its outcome.
    async fn resolved(&self, txid: TxId) -> Vec<Explain> {
        eventually("both groups have applied the outcome", async || {
            let known = self.bank.client.explain(txid).await.map_err(|error| error.to_string())?;
            let done = |explain: &Explain| explain.prepared.as_ref().is_some_and(|record| record.resolved.is_some());
            let done = known.iter().filter(|explain| done(explain)).count();
            if done == 2 { Ok(known) } else { Err(format!("{done} of 2")) }
        })
        .await
    }

    /// All chains are sound, nothing is held, and the supply is what the accounts have.
    async fn check(&self, in_suspense: u128) {
        self.until_nothing_is_held().await;
        let supply = audit(&self.cluster).await[&self.bank.asset];
        let minted = FUNDS * 8;
        assert_eq!((supply.minted, supply.burned, supply.held), (minted, 0, minted));
        let mut all: Vec<&Wallet> = self.homes.iter().flatten().collect();
        all.push(&self.bank.issuer);
        assert_eq!(self.bank.total(all).await + in_suspense, minted);
    }
}

/// Who said no, and why.
fn rejection(result: Result<Settled, ClientError>) -> (GroupId, Reject) {
    match result.unwrap_err() {
        ClientError::Rejected { group, reject, .. } => (group, reject),
        other => panic!("{other:?}"),
    }
}

fn signed(bank: &Bank, number: u64, moves: Vec<Move>, keys: &[&SecretKey]) -> (Bytes, TxId) {
    let cluster = bank.client.cluster_id();
    let tx = SignedTx::sign(&body(cluster, number, moves), keys);
    (tx.encode().into(), tx.txid(&cluster))
}

#[tokio::test(flavor = "multi_thread")]
async fn payers_of_two_shards_pay_together_or_not_at_all() {
    let town = Town::open(VerifyMode::Ingest).await;
    let bank = &town.bank;
    let (alice, bob) = town.couple();
    let (carol, dave) = (&town.homes[1][1], &town.homes[0][1]);

    // Each pays into the other's shard, so both credits are mailed.
    let both = vec![bank.pay(alice, carol.address, 100), bank.pay(bob, dave.address, 7)];
    let (tx, txid) = signed(bank, 1, both, &[&alice.key, &bob.key]);
    let settled = bank.client.submit_and_wait(tx.clone(), Wait::Applied).await.unwrap();
    let Settled::Votes { votes, .. } = &settled else { panic!("{settled:?}") };
    assert_eq!(votes.iter().map(|vote| (vote.group, vote.no)).collect::<Vec<_>>(), [(ZERO, None), (ONE, None)]);
    let of = [alice, bob, carol, dave].map(|wallet| wallet.address);
    assert_eq!(bank.balances(&of).await, [900, 993, 1_100, 1_007]);

    // Both groups tell the same story, each from its side.
    let known = town.resolved(txid).await;
    for (explain, group) in known.iter().zip([ZERO, ONE]) {
        assert_eq!((explain.group, explain.stale, &explain.unanswered), (group, false, &None));
        let record = explain.prepared.as_ref().unwrap();
        assert_eq!((record.voters.as_slice(), record.tx.as_slice()), (&[ZERO, ONE][..], &tx[..]));
        assert_eq!(record.resolved.map(|(_, committed)| committed), Some(true));
        let own = record.own.as_ref().unwrap();
        assert_eq!((own.no, own.sent.len(), record.received.len()), (None, 1, 1));
        assert_eq!(own.accounts, [if group == ZERO { alice.address } else { bob.address }]);
        assert!(explain.receipt.as_ref().is_some_and(Receipt::committed));
        assert_eq!(explain.credits.len(), 1);
        let found = bank.client.transaction(txid, Some(group), true).await.unwrap();
        assert_eq!(found.value, explain.receipt, "and the receipt is proved");
    }

    // One cannot pay: the other does not, either, and gets back what it had reserved.
    let too_much = vec![bank.pay(alice, carol.address, 100), bank.pay(bob, dave.address, 994)];
    let (poor, poor_txid) = signed(bank, 2, too_much, &[&alice.key, &bob.key]);
    let aborted = bank.client.submit_and_wait(poor.clone(), Wait::Applied).await.unwrap();
    assert_eq!(aborted.no(), Some((ONE, Reject::InsufficientFunds)));
    town.until_nothing_is_held().await;
    assert_eq!(bank.balances(&of).await, [900, 993, 1_100, 1_007]);
    let known = town.resolved(poor_txid).await;
    let outcomes = known.iter().map(|explain| explain.receipt.as_ref().unwrap().reason()).collect::<Vec<_>>();
    assert!(outcomes.iter().all(|reason| reason.is_some()), "{outcomes:?}");

    // The same bytes again, over every router: the same fate, and nothing happens twice; also when it
    // could succeed by now.
    bank.client.pay(&dave.key, bob.address, bank.asset, 7, Wait::Applied).await.unwrap();
    for node in town.cluster.node_ids() {
        let client = town.cluster.client_of(node);
        for wait in [Wait::Receipt, Wait::Applied] {
            let again = client.submit_and_wait(tx.clone(), wait).await.unwrap();
            assert_eq!((again.txid(), again.no()), (txid, None));
            let again = client.submit_and_wait(poor.clone(), wait).await.unwrap();
            assert_eq!((again.txid(), again.no()), (poor_txid, Some((ONE, Reject::InsufficientFunds))));
        }
    }
    assert_eq!(bank.balances(&of).await, [900, 1_000, 1_100, 1_000]);

    // A signature that is missing refuses without a trace, wherever it is missing, and with it the
    // same body goes through.
    for (signer, group) in [(alice, ONE), (bob, ZERO)] {
        let moves = vec![bank.pay(alice, carol.address, 1), bank.pay(bob, dave.address, 1)];
        let number = 10 + group.0;
        let (half, _) = signed(bank, number, moves, &[&signer.key]);
        let error = bank.client.submit(half).await;
        // The group whose account has signed votes yes, so the other one has to vote, and says no.
        assert_eq!(error.unwrap().no(), Some((group, Reject::NotAuthorised)));
    }
    let stranger = crate::support::bank::wallet("stranger", 0);
    let moves = [bank.pay(alice, carol.address, 1), bank.pay(bob, dave.address, 1)];
    let same_body = body(bank.client.cluster_id(), 20, moves);
    let forged = SignedTx::sign(&same_body, &[&stranger.key]);
    let error = bank.client.submit(forged.encode()).await.unwrap_err();
    assert_eq!(error.code(), "not_authorised", "nobody who must sign has signed, so nobody votes");
    let txid = forged.txid(&bank.client.cluster_id());
    assert!(bank.client.explain(txid).await.unwrap().is_empty());
    let good = SignedTx::sign(&same_body, &[&alice.key, &bob.key]);
    let settled = bank.client.submit_and_wait(good.encode(), Wait::Applied).await.unwrap();
    assert_eq!((settled.txid(), settled.no()), (txid, None));
    town.check(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_account_gets_waits_and_is_released_or_returned() {
    let town = Town::open(VerifyMode::Ingest).await;
    let (bank, issuer, asset) = (&town.bank, &town.bank.issuer, town.bank.asset);
    let payee = town.far_from_issuer();
    let payer = town.homes.iter().flatten().find(|wallet| town.home(wallet.address) != town.home(payee.address));
    let payer = payer.unwrap();
    let freeze = |frozen| Move::Freeze { issuer: issuer.address, account: payee.address, asset, frozen };
    let sync = |amount| Move::PaySync { from: payer.address, to: payee.address, asset, amount };

    // A synchronous payment is posted on both sides in one transaction.
    bank.execute(vec![sync(10)], &[&payer.key]).await.unwrap();
    assert_eq!(bank.balances(&[payer.address, payee.address]).await, [990, 1_010]);

    bank.execute(vec![freeze(true)], &[&issuer.key]).await.unwrap();
    let own = Move::Pay { from: payee.address, to: payer.address, asset, amount: 1 };
    assert_eq!(rejection(bank.execute(vec![own], &[&payee.key]).await), (town.home(payee.address), Reject::Frozen));
    assert_eq!(
        rejection(bank.execute(vec![sync(10)], &[&payer.key]).await),
        (town.home(payee.address), Reject::Frozen)
    );
    town.until_nothing_is_held().await;
    // An ordinary credit cannot fail: it waits beside the balance.
    bank.execute(vec![bank.pay(payer, payee.address, 50)], &[&payer.key]).await.unwrap();
    let view = town.view(payee.address).await;
    let lines: Vec<_> = view.restrictions.iter().map(|line| (line.asset, line.frozen, line.suspense)).collect();
    assert_eq!(lines, [(asset, true, 50)]);
    assert_eq!(bank.balances(&[payer.address, payee.address]).await, [940, 1_010]);
    let history = bank.client.history(payee.address, None, 1).await.unwrap().value;
    assert_eq!(history.lines[0].change, HistoryChange::Suspended { asset, amount: 50, from: None });

    // The issuer sends a part back; it is nobody else's to send.
    let back =
        |by: &Wallet, amount| Move::Return { by: by.address, account: payee.address, to: payer.address, asset, amount };
    let error = rejection(bank.execute(vec![back(payer, 20)], &[&payer.key]).await);
    assert_eq!(error, (town.home(payer.address), Reject::NotIssuer));
    bank.execute(vec![back(issuer, 20)], &[&issuer.key]).await.unwrap();
    assert_eq!(rejection(bank.execute(vec![back(issuer, 31)], &[&issuer.key]).await).1, Reject::InsufficientFunds);
    assert_eq!(bank.balances(&[payer.address, payee.address]).await, [960, 1_010]);

    // The owner gets the rest once the account is thawed.
    let release = Move::Release { account: payee.address, asset, amount: 30 };
    assert_eq!(rejection(bank.execute(vec![release.clone()], &[&payee.key]).await).1, Reject::Frozen);
    town.check(30).await;
    bank.execute(vec![freeze(false)], &[&issuer.key]).await.unwrap();
    bank.execute(vec![release], &[&payee.key]).await.unwrap();
    assert_eq!(bank.balances(&[payer.address, payee.address]).await, [960, 1_040]);
    let view = town.view(payee.address).await;
    assert_eq!(view.restrictions.iter().map(|line| (line.frozen, line.suspense)).collect::<Vec<_>>(), [(false, 0)]);
    town.check(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_writes_and_limits_hold_across_shards() {
    let town = Town::open(VerifyMode::Ingest).await;
    let (bank, asset) = (&town.bank, town.bank.asset);
    let (alice, bob) = town.couple();
    let check = |wallet: &Wallet, condition| Move::Check { account: wallet.address, condition };
    let write = |wallet: &Wallet, write| Move::Write { account: wallet.address, write };
    let data = |key: &str, value: &str| AccountWrite::Data { key: key.into(), value: Some(value.into()) };
    let keys = [&alice.key, &bob.key];

    // A record on one side, a payment on the other, and a condition on both.
    let moves = vec![
        write(alice, data("deed", "of bob")),
        write(alice, AccountWrite::Limit { asset, per_tx: Some(400) }),
        check(alice, Condition::Version(0)),
        bank.pay(bob, alice.address, 40),
        check(bob, Condition::AtLeast { asset, amount: 960 }),
    ];
    bank.execute(moves.clone(), &keys).await.unwrap();
    let view = town.view(alice.address).await;
    assert_eq!(view.data, [(b"deed".to_vec(), b"of bob".to_vec())]);
    assert_eq!((view.limits.as_slice(), view.record.sequence, view.more_data), (&[(asset, 400)][..], 2, false));
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [1_040, 960]);

    // The account has changed since, and then the condition of the other side fails: nothing changes.
    assert_eq!(rejection(bank.execute(moves, &keys).await).1, Reject::CheckFailed);
    let moves = vec![write(alice, data("deed", "of nobody")), check(bob, Condition::AtMost { asset, amount: 959 })];
    assert_eq!(rejection(bank.execute(moves, &keys).await), (ONE, Reject::CheckFailed));
    let moves = vec![bank.pay(alice, bob.address, 401), check(bob, Condition::Consent)];
    assert_eq!(rejection(bank.execute(moves, &keys).await), (ZERO, Reject::LimitExceeded));
    let moves = vec![bank.pay(alice, bob.address, 400), check(bob, Condition::NotFrozen(asset))];
    bank.execute(moves, &keys).await.unwrap();
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [640, 1_360]);

    // Entries of account data come page by page; what is removed is gone.
    let entries: Vec<Move> = (0..40).map(|number| write(alice, data(&format!("entry {number:02}"), "x"))).collect();
    bank.execute(entries, &[&alice.key]).await.unwrap();
    let removed = AccountWrite::Data { key: b"deed".to_vec(), value: None };
    bank.execute(vec![write(alice, removed), check(bob, Condition::Consent)], &keys).await.unwrap();
    let all: Vec<_> = town.view(alice.address).await.data.into_iter().map(|(key, _)| key).collect();
    assert_eq!(all.len(), 40);
    let after = bank.client.account_view(alice.address, Consistency::Linearizable, Some(&all[36])).await.unwrap();
    assert_eq!(after.value.unwrap().data.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), all[37..]);
    town.check(0).await;
}

/// A payment of each side to the other, hidden from the other side.
fn hidden_swap(bank: &Bank, number: u64, one: &Wallet, two: &Wallet, amount: u128) -> (Bytes, TxId, [Opening; 2]) {
    let opening = |slot, from: &Wallet, to: &Wallet| {
        let mv = bank.pay(from, to.address, amount);
        Opening { slot, salt: Hash32([u8::try_from(number).unwrap(); 32]), mv }
    };
    let openings = [opening(0, one, two), opening(1, two, one)];
    let mut body = body(bank.client.cluster_id(), number, []);
    body.slots = [ZERO, ONE]
        .into_iter()
        .zip(&openings)
        .map(|(group, opening)| Slot::Hidden { ledger: LedgerId::MAIN, group, hash: opening.hash() })
        .collect();
    let tx = SignedTx::sign(&body, &[&one.key, &two.key]);
    (tx.encode().into(), tx.txid(&body.cluster), openings)
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_moves_are_opened_for_their_own_group_alone() {
    let town = Town::open(VerifyMode::Every).await;
    let bank = &town.bank;
    let (alice, bob) = town.couple();
    let (tx, txid, openings) = hidden_swap(bank, 1, alice, bob, 5);
    let settled = bank.client.submit_tx(tx, openings.to_vec(), Wait::Applied).await.unwrap();
    assert!(settled.committed());
    let known = town.resolved(txid).await;
    for (explain, slot) in known.iter().zip(0u16..) {
        let record = explain.prepared.as_ref().unwrap();
        assert_eq!(record.opened, [slot]);
        assert!(record.own.as_ref().unwrap().accounts.is_empty(), "accounts that only an opening names are not shown");
    }

    // A transaction that lacks an opening is undecided: everybody can see what it waits for and what
    // it holds, and whatever is in its way is told at once.
    let (tx, txid, [first, second]) = hidden_swap(bank, 2, alice, bob, 300);
    let client = bank.client.clone();
    let waiting = tokio::spawn({
        let tx = tx.clone();
        async move { client.submit_tx(tx, vec![first], Wait::Applied).await }
    });
    let known = eventually("both groups know of it", async || {
        let known = bank.client.explain(txid).await.map_err(|error| error.to_string())?;
        if known.len() == 2 { Ok(known) } else { Err(format!("{} groups know it", known.len())) }
    })
    .await;
    let mut records = known.into_iter().map(|explain| explain.prepared.unwrap());
    let (here, there) = (records.next().unwrap(), records.next().unwrap());
    assert_eq!((here.handed_over, here.own.map(|own| own.no)), (true, Some(None)), "one has voted yes");
    assert_eq!((there.own, there.opened, there.received.len()), (None, vec![], 1), "the other one waits");
    assert_eq!((here.resolved, there.resolved), (None, None));
    let balance = |view: &AccountView| (view.record.balances[0].1.posted, view.record.balances[0].1.held);
    assert_eq!(balance(&town.view(alice.address).await), (1_000, 300));
    let pay = bank.pay(alice, bob.address, 701);
    assert_eq!(rejection(bank.execute(vec![pay], &[&alice.key]).await), (ZERO, Reject::InsufficientFunds));
    assert_eq!(bank.client.transaction(txid, None, false).await.unwrap().value, None);

    // Whoever has the other opening brings it, over whatever router, and both hear the outcome.
    let settled = bank.client.submit_tx(tx, vec![second], Wait::Applied).await.unwrap();
    assert!(settled.committed());
    assert!(in_time("the first one's answer", waiting).await.unwrap().unwrap().committed());
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [1_000, 1_000]);
    // Every replica checks signatures here before it attests; certificates form all the same.
    town.check(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_undecided_stands_in_the_way_until_it_is_decided() {
    let town = Town::open(VerifyMode::Ingest).await;
    let bank = &town.bank;
    let (alice, bob) = town.couple();
    let write = |value: &str| {
        let write = AccountWrite::Data { key: b"owner".to_vec(), value: Some(value.into()) };
        Move::Write { account: alice.address, write }
    };
    // The second slot is hidden, and its opening comes late.
    let opening = Opening { slot: 1, salt: Hash32([1; 32]), mv: bank.pay(bob, alice.address, 1) };
    let mut body = body(bank.client.cluster_id(), 1, [write("bob")]);
    body.slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group: ONE, hash: opening.hash() });
    let tx = Bytes::from(SignedTx::sign(&body, &[&alice.key, &bob.key]).encode());
    let client = bank.client.clone();
    let waiting = tokio::spawn({
        let tx = tx.clone();
        async move { client.submit(tx).await }
    });
    eventually("the write is claimed", async || {
        let claims = town.view(alice.address).await.claims;
        if claims.is_empty() { Err("no claim") } else { Ok(()) }
    })
    .await;
    let other = vec![write("carol"), bank.pay(bob, alice.address, 2)];
    let keys = [&alice.key, &bob.key];
    assert_eq!(rejection(bank.execute(other.clone(), &keys).await), (ZERO, Reject::Conflict));
    assert!(bank.client.submit_tx(tx, vec![opening], Wait::Applied).await.unwrap().committed());
    assert!(in_time("the first one's answer", waiting).await.unwrap().unwrap().committed());
    // Signed anew, the other one succeeds.
    bank.execute(other, &keys).await.unwrap();
    assert_eq!(town.view(alice.address).await.data, [(b"owner".to_vec(), b"carol".to_vec())]);
    town.check(0).await;
}

/// Hands a transaction to one group's leader, as a router does.
async fn hand_over(cluster: &TestCluster, group: GroupId, tx: Bytes) -> tonic::Streaming<v1::SubmitEvents> {
    let router =
        cluster.authority("org-a").issue(&Subject::router("router-x", "org-a", Vec::new())).unwrap().identity();
    let leader = cluster.leader(group).await;
    let info = cluster.info(leader);
    let name = net::node_server_name(NodeId(leader.0));
    let channel = net::connect(&info.peer_addr, &router, &cluster.roots(), &name).unwrap();
    let batch = v1::IngestBatch { group: group.0, txs: vec![tx], notify_applied: true, caller: None };
    // The stream stays open: closing it would end the answers.
    let batches = futures::StreamExt::chain(tokio_stream::iter([batch]), futures::stream::pending());
    in_time("a hand-over", net::node_client(channel).ingest(batches)).await.unwrap().into_inner()
}

async fn next_event(events: &mut tonic::Streaming<v1::SubmitEvents>) -> Vec<Event> {
    let batch = in_time("an event", events.message()).await.unwrap().unwrap();
    batch.events.into_iter().filter_map(|event| event.event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_group_that_was_reached_is_enough() {
    let town = Town::open(VerifyMode::Ingest).await;
    let bank = &town.bank;
    let (alice, bob) = town.couple();
    let moves = || vec![bank.pay(alice, bob.address, 10), bank.pay(bob, alice.address, 3)];
    let keys = [&alice.key, &bob.key];

    // A router that knows only one group hears its vote, its receipt, and that its credit was taken.
    let (tx, txid) = signed(bank, 1, moves(), &keys);
    let mut events = hand_over(&town.cluster, ZERO, tx).await;
    let mut heard = Vec::new();
    while !heard.iter().any(|event| matches!(event, Event::Applied(_))) {
        heard.extend(next_event(&mut events).await);
    }
    let [Event::Vote(vote), Event::Receipt(receipt), Event::Applied(_)] = &heard[..] else { panic!("{heard:?}") };
    assert!(vote.yes && vote.group == ZERO.0 && vote.height > 0);
    assert!(borsh::from_slice::<Receipt>(receipt).unwrap().committed());
    let known = town.resolved(txid).await;
    let handed: Vec<bool> = known.iter().map(|explain| explain.prepared.as_ref().unwrap().handed_over).collect();
    assert_eq!(handed, [true, false], "the second group voted on mail");

    // One that dies as soon as it has handed it over owes nothing.
    let (tx, txid) = signed(bank, 2, moves(), &keys);
    let mut events = hand_over(&town.cluster, ONE, tx.clone()).await;
    assert!(matches!(next_event(&mut events).await[..], [Event::Vote(_), ..]));
    drop(events);
    town.resolved(txid).await;
    let late = bank.client.submit_and_wait(tx, Wait::Applied).await.unwrap();
    assert_eq!((late.txid(), late.no()), (txid, None));

    // The group of a payee that votes waits for the payer's: whoever hands over has shown nothing yet.
    let sync = Move::PaySync { from: alice.address, to: bob.address, asset: bank.asset, amount: 5 };
    let (tx, txid) = signed(bank, 3, vec![sync], &[&alice.key]);
    let mut events = hand_over(&town.cluster, ONE, tx.clone()).await;
    assert!(matches!(next_event(&mut events).await[..], [Event::Waits(true)]));
    assert!(bank.client.explain(txid).await.unwrap().is_empty(), "and keeps nothing");
    let _payers = hand_over(&town.cluster, ZERO, tx).await;
    let mut heard = Vec::new();
    while !heard.iter().any(|event| matches!(event, Event::Receipt(_))) {
        heard.extend(next_event(&mut events).await);
    }
    assert!(matches!(&heard[0], Event::Vote(vote) if vote.yes), "{heard:?}");
    town.resolved(txid).await;
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [981, 1_019]);
    town.check(0).await;
}

/// Transactions in flight and behind while a node dies.
const SWAPS: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_die_under_load_leave_nothing_half_done() {
    let mut town = Town::open(VerifyMode::Ingest).await;
    let bank = town.bank.clone();
    let (left, right) = (town.homes[0].clone(), town.homes[1].clone());
    let cluster = bank.client.cluster_id();
    for (round, node) in town.cluster.node_ids().into_iter().enumerate() {
        let round = u64::try_from(round).unwrap();
        let options = SubmitOptions { in_flight_max: 64, notify_applied: true, give_up_after: DEADLINE };
        let (sender, mut events) = town.cluster.client().submit_stream(options).split();
        let txs: Vec<Bytes> = (0..SWAPS)
            .map(|number| {
                let at = usize::try_from(number).unwrap();
                let (one, two) = (&left[at % left.len()], &right[(at / left.len()) % right.len()]);
                let moves = vec![bank.pay(one, two.address, 1), bank.pay(two, one.address, 1)];
                let body = body(cluster, 1_000 * (round + 1) + number, moves);
                Bytes::from(SignedTx::sign(&body, &[&one.key, &two.key]).encode())
            })
            .collect();
        let sending = tokio::spawn(async move { sender.send(txs).await });
        // A router and some leaders die in the middle of it.
        let first = in_time("the first event", events.next_events()).await.unwrap();
        town.cluster.stop_node(node).await;
        let mut fates: BTreeMap<TxId, Vec<SubmitEvent>> = BTreeMap::new();
        let mut take = |batch: Vec<SubmitEvent>| {
            batch.into_iter().for_each(|event| fates.entry(event.txid()).or_default().push(event));
        };
        take(first);
        while let Some(batch) = in_time("every fate", events.next_events()).await {
            take(batch);
        }
        in_time("everything is sent", sending).await.unwrap().unwrap();
        assert_eq!(fates.len(), usize::try_from(SWAPS).unwrap());
        for (txid, events) in fates {
            let [SubmitEvent::Decided { votes, .. }, SubmitEvent::Applied(_)] = &events[..] else {
                panic!("{txid}: {events:?}");
            };
            assert!(votes.iter().all(|vote| vote.no.is_none()), "{txid}: {votes:?}");
        }
        town.cluster.start_node(node).await;
        town.cluster.wait_ready().await;
    }
    let everybody: Vec<Address> = town.homes.iter().flatten().map(|wallet| wallet.address).collect();
    assert_eq!(bank.balances(&everybody).await, vec![FUNDS; 8]);
    town.check(0).await;
}
