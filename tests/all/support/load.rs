//! Payments without end, and what became of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use client::{SubmitEvent, SubmitOptions};
use hashbrown::HashMap;
use ledger::{Address, GroupId, Receipt, SignedTx, TxId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::bank::{Bank, Wallet, body_on};
use super::{DEADLINE, in_time};

/// A payment of 1.
#[derive(Clone, Copy, Debug)]
pub struct Payment {
    pub from: Address,
    pub to: Address,
}

/// What became of a load.
#[derive(Debug, Default)]
pub struct Fates {
    /// Everything that was sent.
    pub sent: BTreeMap<TxId, Payment>,
    /// What was acknowledged.
    pub receipts: BTreeMap<TxId, Receipt>,
    /// What has no known fate, with the reason given.
    pub open: BTreeMap<TxId, String>,
    /// What each account had before the first payment.
    pub before: BTreeMap<Address, u128>,
}

/// What was sent and what was answered, in order.
#[derive(Default)]
struct Journal {
    /// The place of each payment among all that were sent.
    places: HashMap<TxId, usize>,
    /// The place and the group of each payment that was acknowledged.
    acknowledged: Vec<(usize, GroupId)>,
}

/// Payments of 1 from `payers` to `payees` in turn, some in flight at any time, until it is ended.
pub struct Load {
    journal: Arc<Mutex<Journal>>,
    /// Where the payers are.
    groups: BTreeSet<GroupId>,
    stop: watch::Sender<bool>,
    news: watch::Receiver<()>,
    sending: JoinHandle<BTreeMap<TxId, Payment>>,
    receiving: JoinHandle<Fates>,
}

impl Load {
    /// Starts to pay. Nobody else may pay to or from these accounts until the load is reconciled.
    pub async fn start(bank: &Bank, payers: &[Wallet], payees: &[Wallet], in_flight: usize) -> Self {
        let accounts: BTreeSet<Address> = payers.iter().chain(payees).map(|wallet| wallet.address).collect();
        let accounts: Vec<Address> = accounts.into_iter().collect();
        let before = accounts.iter().copied().zip(bank.balances(&accounts).await).collect();
        let groups = payers.iter().map(|payer| bank.home(&payer.address)).collect();

        let options = SubmitOptions { in_flight_max: in_flight, notify_applied: false, give_up_after: DEADLINE };
        let (sender, mut events) = bank.client.submit_stream(options).split();
        let (stop, stopped) = watch::channel(false);
        let (tell, news) = watch::channel(());
        let journal = Arc::new(Mutex::new(Journal::default()));
        let (bank, payers, payees, noted) = (bank.clone(), payers.to_vec(), payees.to_vec(), Arc::clone(&journal));
        let sending = tokio::spawn(async move {
            let cluster = bank.client.cluster_id();
            let mut sent = BTreeMap::new();
            for number in 0usize.. {
                if *stopped.borrow() {
                    break;
                }
                let from = &payers[number % payers.len()];
                let to = &payees[(number / payers.len()) % payees.len()];
                let body = body_on(bank.ledger, cluster, number as u64, [bank.pay(from, to.address, 1)]);
                let tx = SignedTx::sign(&body, &[&from.key]);
                let txid = tx.txid(&cluster);
                sent.insert(txid, Payment { from: from.address, to: to.address });
                noted.lock().places.insert(txid, number);
                sender.send(vec![Bytes::from(tx.encode())]).await.unwrap();
            }
            sent
        });
        let noted = Arc::clone(&journal);
        let receiving = tokio::spawn(async move {
            let mut fates = Fates { before, ..Fates::default() };
            while let Some(batch) = events.next_events().await {
                for event in batch {
                    match event {
                        SubmitEvent::Receipt(receipt) => {
                            let mut journal = noted.lock();
                            let place = journal.places[&receipt.txid];
                            journal.acknowledged.push((place, receipt.group));
                            let twice = fates.receipts.insert(receipt.txid, receipt);
                            assert_eq!(twice, None, "a transaction was answered twice");
                        }
                        SubmitEvent::Refused { txid, code, detail, .. } => {
                            fates.open.insert(txid, format!("{code}: {detail}"));
                        }
                        SubmitEvent::Decided { txid, .. } => panic!("{txid} has one payer, and several groups voted"),
                        SubmitEvent::Applied(txid) => panic!("nobody asked when {txid} is applied"),
                    }
                }
                tell.send_replace(());
            }
            fates
        });
        Self { journal, groups, stop, news, sending, receiving }
    }

    /// Waits until this many payments that are sent from now on have been acknowledged, some of them
    /// by each group that has payers. What is in flight now does not count: it may have been executed
    /// before whatever the caller has just done to the cluster.
    pub async fn next(&mut self, more: usize) {
        let groups = self.groups.clone();
        self.acknowledged(more, groups).await;
    }

    /// As [`Load::next`], by whichever groups there are by now.
    pub async fn next_by_any(&mut self, more: usize) {
        self.acknowledged(more, BTreeSet::new()).await;
    }

    async fn acknowledged(&mut self, more: usize, mut missing: BTreeSet<GroupId>) {
        let (from_place, mut seen) = {
            let journal = self.journal.lock();
            (journal.places.len(), journal.acknowledged.len())
        };
        let mut count = 0;
        let acknowledged = async {
            loop {
                self.news.borrow_and_update();
                {
                    let journal = self.journal.lock();
                    for (_, group) in journal.acknowledged[seen..].iter().filter(|(place, _)| *place >= from_place) {
                        count += 1;
                        missing.remove(group);
                    }
                    seen = journal.acknowledged.len();
                }
                if count >= more && missing.is_empty() {
                    return;
                }
                self.news.changed().await.unwrap();
            }
        };
        in_time("acknowledged payments of every group", acknowledged).await;
    }

    /// Stops sending and waits for the fate of everything that was sent.
    pub async fn end(self) -> Fates {
        self.stop.send_replace(true);
        let sent = in_time("the load stops", self.sending).await.unwrap();
        let mut fates = in_time("every payment has its fate", self.receiving).await.unwrap();
        fates.sent = sent;
        fates
    }
}
