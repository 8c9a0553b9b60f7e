//! Accounts, and an asset with an issuer.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use client::{Client, Consistency, Settled, Wait};
use ledger::{
    Address, AssetId, AssetSpec, Authorisation, ClusterId, GroupId, Layout, LedgerId, Move, Reject, SecretKey, Slot,
    TimeMs, TxBody,
};

use super::eventually;

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
    body_on(LedgerId::MAIN, cluster, number, moves)
}

/// As [`body`], on any ledger.
pub fn body_on(ledger: LedgerId, cluster: ClusterId, number: u64, moves: impl IntoIterator<Item = Move>) -> TxBody {
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&number.to_be_bytes());
    TxBody {
        version: 1,
        cluster,
        valid_until_ms: TimeMs(now_ms() + 600_000),
        salt,
        slots: moves.into_iter().map(|mv| Slot::Clear { ledger, mv }).collect(),
        memo: Vec::new(),
    }
}

/// One issuer, its asset, and a client.
#[derive(Clone)]
pub struct Bank {
    pub client: Client,
    pub issuer: Wallet,
    pub asset: AssetId,
    /// Where customers have what they have: the main ledger, or a channel.
    pub ledger: LedgerId,
}

impl Bank {
    /// Issues an asset.
    pub async fn open(client: &Client) -> Self {
        let issuer = wallet("issuer", 0);
        let spec = AssetSpec { issuer: issuer.address, symbol: "EUR".into(), name: "Euro".into(), decimals: 2 };
        let asset = spec.id();
        let moves = vec![(LedgerId::BEACON, Move::Issue(spec))];
        client.execute(moves, b"", &[&issuer.key], Wait::Applied).await.unwrap();
        Self { client: client.clone(), issuer, asset, ledger: LedgerId::MAIN }
    }

    /// The channel in which customers have what they have.
    pub fn channel(&self) -> Option<GroupId> {
        (self.ledger != LedgerId::MAIN).then_some(GroupId(self.ledger.0))
    }

    /// The group in which an account pays.
    pub fn home(&self, account: &Address) -> GroupId {
        self.channel().unwrap_or_else(|| self.client.genesis().layout.locate(account))
    }

    /// Has customers take this much each into a channel, in which the asset is permitted, and waits until it is there. The
    /// bank of that channel.
    pub async fn cross_to(&self, channel: GroupId, wallets: &[Wallet], amount: u128) -> Self {
        let (ledger, asset) = (LedgerId::of_channel(channel), self.asset);
        for wallet in wallets {
            let cross = Move::Transfer { from: wallet.address, to: wallet.address, asset, amount, ledger };
            self.execute(vec![cross], &[&wallet.key]).await.unwrap();
        }
        let inside = Self { ledger, ..self.clone() };
        let addresses: Vec<Address> = wallets.iter().map(|wallet| wallet.address).collect();
        eventually("the money is in the channel", async || {
            let found = inside.balances(&addresses).await;
            if found.iter().all(|has| *has == amount) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        inside
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
    pub async fn execute(&self, moves: Vec<Move>, keys: &[&SecretKey]) -> Result<Settled, client::ClientError> {
        let moves = moves.into_iter().map(|mv| (self.ledger, mv)).collect();
        self.client.execute(moves, b"", keys, Wait::Applied).await
    }

    /// What an account has.
    pub async fn balance(&self, address: Address) -> u128 {
        self.balances(&[address]).await[0]
    }

    /// What these accounts have.
    pub async fn balances(&self, addresses: &[Address]) -> Vec<u128> {
        let records = match self.channel() {
            None => self.client.accounts(addresses, Consistency::Linearizable).await.unwrap(),
            Some(_) => {
                let one =
                    |address: &Address| self.client.account_of(self.ledger, *address, Consistency::Linearizable, false);
                let answers = futures::future::join_all(addresses.iter().map(one)).await;
                answers.into_iter().map(|answer| answer.unwrap().value).collect()
            }
        };
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

/// The reason of a rejection, wherever it was found out.
pub fn reason(error: &client::ClientError) -> Option<Reject> {
    match error {
        client::ClientError::Rejected { reject, .. } | client::ClientError::BadTransaction(reject) => Some(*reject),
        client::ClientError::Refused { reject, .. } => *reject,
        client::ClientError::Unsettled { cause, .. } => reason(cause),
        _ => None,
    }
}
