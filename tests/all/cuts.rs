//! A leader that the network cuts off from all other nodes, and not from its clients: it acknowledges
//! nothing and answers no read, the majority goes on without it, and when the network is whole again
//! everything that was sent to it has one fate.

use bytes::Bytes;
use client::{Client, Consistency, Settled, Wait};
use ledger::{GroupId, Move, SecretKey, SignedTx, TxId};

use crate::support::audit::audit_receipts;
use crate::support::bank::{Bank, Wallet, body, wallets_in_each_shard};
use crate::support::machines::{Machines, leader};
use crate::support::network::{Cut, Medium};
use crate::support::{DEADLINE, eventually, in_time};

const FUNDS: u128 = 1_000;
/// Transactions of each kind that the majority has to acknowledge while the leader is cut off.
const GO_ON: u64 = 10;

/// Signed transactions, each once.
struct Maker {
    bank: Bank,
    number: u64,
}

impl Maker {
    fn sign(&mut self, moves: Vec<Move>, keys: &[&SecretKey]) -> (Bytes, TxId) {
        self.number += 1;
        let cluster = self.bank.client.cluster_id();
        let tx = SignedTx::sign(&body(cluster, self.number, moves), keys);
        (tx.encode().into(), tx.txid(&cluster))
    }

    /// One payer.
    fn payment(&mut self, from: &Wallet, to: &Wallet) -> (Bytes, TxId) {
        let moves = vec![self.bank.pay(from, to.address, 1)];
        self.sign(moves, &[&from.key])
    }

    /// Both pay, so both groups vote.
    fn swap(&mut self, one: &Wallet, two: &Wallet) -> (Bytes, TxId) {
        let moves = vec![self.bank.pay(one, two.address, 1), self.bank.pay(two, one.address, 1)];
        self.sign(moves, &[&one.key, &two.key])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_the_majority_goes_on() {
    let mut machines = Machines::start(Medium::best(), false).await;
    let everybody = machines.client();
    let bank = Bank::open(&everybody).await;
    let homes = wallets_in_each_shard(&machines.genesis.layout, "home", 2);
    bank.fund(homes.iter().flatten(), FUNDS).await;
    let mut maker = Maker { bank: bank.clone(), number: 0 };
    let (mut single, mut several) = (Vec::new(), Vec::new());

    let (zero, one) = (GroupId::shard(0), GroupId::shard(1));
    for (group, cut) in [(zero, Cut::Both), (one, Cut::Unheard), (zero, Cut::Deaf)] {
        let here = usize::from(group == one);
        let (ours, theirs) = (&homes[here], &homes[1 - here]);
        let (cut_off, term) = leader(&everybody, group).await;
        let outside = machines.client_of(&machines.others(cut_off));
        let inside = machines.client_of(&[cut_off]).with_patience(DEADLINE);
        let before = bank.balance(ours[1].address).await;
        println!("{cut_off} leads {group} in term {term} and is cut off: {cut:?}");
        machines.cut_off(cut_off, cut);

        // From this moment on, nothing that it is asked can be answered.
        let (payment, paid) = maker.payment(&ours[0], &theirs[0]);
        let (swap, swapped) = maker.swap(&ours[0], &theirs[0]);
        let submit = |tx: Bytes| {
            let client = inside.clone();
            tokio::spawn(async move { client.submit_and_wait(tx, Wait::Receipt).await })
        };
        let asked = [submit(payment), submit(swap)];
        let reading = {
            let (client, address) = (inside.clone(), ours[1].address);
            tokio::spawn(async move { client.account(address, Consistency::Linearizable, false).await })
        };
        single.push(paid);
        several.push(swapped);

        // The majority goes on, by single payments and by votes, under another leader.
        for _ in 0..GO_ON {
            let (payment, paid) = maker.payment(&ours[1], &theirs[1]);
            let (swap, swapped) = maker.swap(&ours[1], &theirs[1]);
            for tx in [payment, swap] {
                let settled = in_time("the majority acknowledges", submit_until_known(&outside, &tx)).await;
                assert!(settled.committed(), "{settled:?}");
            }
            single.push(paid);
            several.push(swapped);
        }
        eventually("another leader", async || {
            let (node, later) = leader(&outside, group).await;
            if node != cut_off && later > term { Ok(()) } else { Err(format!("node {node} in term {later}")) }
        })
        .await;
        for (what, done) in ["payment", "swap"].iter().zip(asked.iter().map(tokio::task::JoinHandle::is_finished)) {
            assert!(!done, "the leader that is cut off answered a {what}");
        }
        assert!(!reading.is_finished(), "the leader that is cut off answered a read");

        machines.heal(cut_off);
        for answer in asked {
            let settled = in_time("what was sent to it has a fate", answer).await.unwrap().unwrap();
            assert!(settled.committed(), "{settled:?}");
        }
        in_time("the read is answered", reading).await.unwrap().unwrap();
        machines.settled(&everybody).await;
        // It is a follower like any other, also for reads over its router.
        let now = inside.account(ours[1].address, Consistency::Linearizable, false).await.unwrap().value.unwrap();
        let posted = now.balances.iter().find(|(asset, _)| *asset == bank.asset).unwrap().1.posted;
        assert_eq!(posted, before - u128::from(GO_ON));
    }

    let heights = machines.settled(&everybody).await;
    let (supply, receipts) = audit_receipts(&everybody, &heights).await;
    let all = FUNDS * 4;
    assert_eq!(supply[&bank.asset].held, all);
    assert_eq!(bank.total(homes.iter().flatten()).await, all);
    for (txids, groups) in [(&single, 1), (&several, 2)] {
        for txid in txids {
            let found = &receipts[txid];
            let mut at: Vec<GroupId> = found.iter().map(|receipt| receipt.group).collect();
            at.dedup();
            assert_eq!((found.len(), at.len()), (groups, groups), "{found:?}");
            assert!(found.iter().all(ledger::Receipt::committed), "{found:?}");
        }
    }
    for wallet in homes.iter().flatten() {
        let view =
            everybody.account_view(wallet.address, Consistency::Linearizable, None).await.unwrap().value.unwrap();
        let held = view.record.balances.iter().any(|(_, balance)| balance.held > 0);
        assert!(!held && view.claims.is_empty(), "{view:?}");
    }
    machines.assert_run();
}

/// Sends the same bytes until their fate is known.
async fn submit_until_known(client: &Client, tx: &Bytes) -> Settled {
    loop {
        match client.submit(tx.clone()).await {
            Ok(settled) => return settled,
            Err(error) => assert!(error.retryable(), "{error}"),
        }
    }
}
