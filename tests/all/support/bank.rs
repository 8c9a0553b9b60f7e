//! Accounts, an asset with an issuer, and load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use client::{Client, Consistency, SubmitEvent, SubmitOptions, Wait};
use ledger::{
    Address, AssetId, AssetSpec, Authorisation, ClusterId, GroupId, Layout, LedgerId, Move, Receipt, Reject, SecretKey,
    SignedTx, Slot, TimeMs, TxBody, TxId,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{DEADLINE, in_time};

/// An account with its key.
#[derive(Clone, Debug)]
pub struct Wallet {
    pub key: SecretKey,
    pub address: Address,
}

/// The account of this name and number.
pub fn wallet(name: &str, number: u32) -> Wallet {
    let key = SecretKey::derive(name.as_bytes(), &number.to_be_bytes());
    let address = Authorisation::Single(key.public()).address();
    Wallet { key, address }
}

/// This many accounts in each shard, shard by shard.
pub fn wallets_in_each_shard(layout: &Layout, name: &str, count: usize) -> Vec<Vec<Wallet>> {
    let mut by_shard: BTreeMap<GroupId, Vec<Wallet>> =
        layout.shards.iter().map(|shard| (shard.group, Vec::new())).collect();
    for number in 0.. {
        if by_shard.values().all(|wallets| wallets.len() == count) {
            break;
        }
        let wallet = wallet(name, number);
        let wallets = by_shard.get_mut(&layout.locate(&wallet.address)).unwrap();
        if wallets.len() < count {
            wallets.push(wallet);
        }
    }
    by_shard.into_values().collect()
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A body of these moves on the main ledger, distinct by its number.
pub fn body(cluster: ClusterId, number: u64, moves: impl IntoIterator<Item = Move>) -> TxBody {
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&number.to_be_bytes());
    TxBody {
        version: 1,
        cluster,
        valid_until_ms: TimeMs(now_ms() + 600_000),
        salt,
        slots: moves.into_iter().map(|mv| Slot::Clear { ledger: LedgerId::MAIN, mv }).collect(),
        memo: Vec::new(),
    }
}

/// One issuer, its asset, and a client.
#[derive(Clone)]
pub struct Bank {
    pub client: Client,
    pub issuer: Wallet,
    pub asset: AssetId,
}

impl Bank {
    /// Issues an asset.
    pub async fn open(client: &Client) -> Self {
        let issuer = wallet("issuer", 0);
        let spec = AssetSpec { issuer: issuer.address, symbol: "EUR".into(), name: "Euro".into(), decimals: 2 };
        let asset = spec.id();
        let moves = vec![(LedgerId::BEACON, Move::Issue(spec))];
        client.execute(moves, b"", &[&issuer.key], Wait::Applied).await.unwrap();
        Self { client: client.clone(), issuer, asset }
    }

    /// The move that creates supply for an account.
    pub fn mint(&self, to: Address, amount: u128) -> Move {
        Move::Mint { issuer: self.issuer.address, to, asset: self.asset, amount }
    }

    /// The move that pays.
    pub fn pay(&self, from: &Wallet, to: Address, amount: u128) -> Move {
        Move::Pay { from: from.address, to, asset: self.asset, amount }
    }

    /// Gives every account this much, and waits until it is there.
    pub async fn fund(&self, wallets: impl IntoIterator<Item = &Wallet>, amount: u128) {
        let moves: Vec<_> =
            wallets.into_iter().map(|wallet| (LedgerId::MAIN, self.mint(wallet.address, amount))).collect();
        for part in moves.chunks(ledger::limits::MOVES_MAX) {
            self.client.execute(part.to_vec(), b"", &[&self.issuer.key], Wait::Applied).await.unwrap();
        }
    }

    /// Signs these moves with these keys and waits until all credits are there.
    pub async fn execute(&self, moves: Vec<Move>, keys: &[&SecretKey]) -> Result<Receipt, client::ClientError> {
        let moves = moves.into_iter().map(|mv| (LedgerId::MAIN, mv)).collect();
        self.client.execute(moves, b"", keys, Wait::Applied).await
    }

    /// What an account has.
    pub async fn balance(&self, address: Address) -> u128 {
        self.balances(&[address]).await[0]
    }

    /// What these accounts have.
    pub async fn balances(&self, addresses: &[Address]) -> Vec<u128> {
        let records = self.client.accounts(addresses, Consistency::Linearizable).await.unwrap();
        let of = |record: &ledger::AccountRecord| {
            let line = record.balances.iter().find(|line| line.0 == self.asset);
            line.map_or(0, |line| line.1.posted)
        };
        records.iter().map(|record| record.as_ref().map_or(0, of)).collect()
    }

    /// What these accounts have together.
    pub async fn total<'a>(&self, wallets: impl IntoIterator<Item = &'a Wallet>) -> u128 {
        let addresses: Vec<Address> = wallets.into_iter().map(|wallet| wallet.address).collect();
        self.balances(&addresses).await.into_iter().sum()
    }
}

/// What became of a load.
#[derive(Debug, Default)]
pub struct Fates {
    /// Everything that was sent.
    pub sent: BTreeSet<TxId>,
    /// What was acknowledged.
    pub receipts: BTreeMap<TxId, Receipt>,
    /// What has no known fate, with the reason given.
    pub open: BTreeMap<TxId, String>,
}

/// Payments of 1 from `payers` to `payees` in turn, some in flight at any time, until it is ended.
pub struct Load {
    stop: watch::Sender<bool>,
    acknowledged: watch::Receiver<u64>,
    sending: JoinHandle<BTreeSet<TxId>>,
    receiving: JoinHandle<Fates>,
}

impl Load {
    /// Starts to pay.
    pub fn start(bank: &Bank, payers: &[Wallet], payees: &[Wallet], in_flight: usize) -> Self {
        let options = SubmitOptions { in_flight_max: in_flight, notify_applied: false, give_up_after: DEADLINE };
        let (sender, mut events) = bank.client.submit_stream(options).split();
        let (stop, stopped) = watch::channel(false);
        let (count, acknowledged) = watch::channel(0);
        let (bank, payers, payees) = (bank.clone(), payers.to_vec(), payees.to_vec());
        let sending = tokio::spawn(async move {
            let cluster = bank.client.cluster_id();
            let mut sent = BTreeSet::new();
            for number in 0usize.. {
                if *stopped.borrow() {
                    break;
                }
                let from = &payers[number % payers.len()];
                let to = &payees[(number / payers.len()) % payees.len()];
                let body = body(cluster, number as u64, [bank.pay(from, to.address, 1)]);
                let tx = SignedTx::sign(&body, &[&from.key]);
                sent.insert(tx.txid(&cluster));
                sender.send(vec![Bytes::from(tx.encode())]).await.unwrap();
            }
            sent
        });
        let receiving = tokio::spawn(async move {
            let mut fates = Fates::default();
            while let Some(batch) = events.next_events().await {
                for event in batch {
                    match event {
                        SubmitEvent::Receipt(receipt) => {
                            let twice = fates.receipts.insert(receipt.txid, receipt);
                            assert_eq!(twice, None, "a transaction was answered twice");
                        }
                        SubmitEvent::Refused { txid, code, detail, .. } => {
                            fates.open.insert(txid, format!("{code}: {detail}"));
                        }
                        SubmitEvent::Applied(txid) => panic!("nobody asked when {txid} is applied"),
                    }
                }
                count.send_replace(fates.receipts.len() as u64);
            }
            fates
        });
        Self { stop, acknowledged, sending, receiving }
    }

    /// Waits until this many more payments have been acknowledged, and says how long the first took.
    pub async fn next(&mut self, more: u64) -> std::time::Duration {
        let started = Instant::now();
        let from = *self.acknowledged.borrow_and_update();
        let changed = self.acknowledged.wait_for(|count| *count > from);
        in_time("an acknowledged payment", changed).await.unwrap();
        let first = started.elapsed();
        let enough = self.acknowledged.wait_for(|count| *count >= from + more);
        in_time("acknowledged payments", enough).await.unwrap();
        first
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

/// The reason of a rejection, wherever it was found out.
pub fn reason(error: &client::ClientError) -> Option<Reject> {
    match error {
        client::ClientError::Rejected { reject, .. } | client::ClientError::BadTransaction(reject) => Some(*reject),
        client::ClientError::Refused { reject, .. } => *reject,
        client::ClientError::Unsettled { cause, .. } => reason(cause),
        _ => None,
    }
}
