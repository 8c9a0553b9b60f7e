//! Sets the stage for a load: an asset of its own, known to every shard, and opening balances, in the main
//! ledger and in channels.

use std::time::{Duration, Instant};

use client::{Client, Consistency, PreparedTx, Wait};
use ledger::limits::MOVES_MAX;
use ledger::{AccountRecord, Address, AssetId, AssetSpec, GroupId, Layout, LedgerId, Move};
use proto::edge;

use super::drive::drive;
use super::sign::{Party, Signer};
use super::wait::until;
use crate::error::CliError;
use crate::output::Output;
use crate::setup::pki::random;

const POLL: Duration = Duration::from_millis(20);
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// Transactions that create supply in flight at most; each has up to 64 portions.
const MINTS_IN_FLIGHT: usize = 256;

/// An asset to pay with, and who issued it.
pub struct Stage {
    /// The cluster.
    pub client: Client,
    /// The asset.
    pub asset: AssetId,
    /// Which shard owns which account.
    pub layout: Layout,
    /// Signs payments of the asset.
    pub signer: Signer,
    issuer: Party,
}

/// A symbol that no run before had; the prefix has at most seven letters.
///
/// # Errors
/// When the system gives no randomness.
pub fn fresh_symbol(prefix: &str) -> Result<String, CliError> {
    let bytes: [u8; 4] = random()?;
    Ok(format!("{prefix}-{}", hex::encode_upper(bytes)))
}

impl Stage {
    /// Issues an asset and waits until every shard knows it.
    ///
    /// # Errors
    /// What the cluster refuses, or that it does not answer.
    pub async fn set(client: &Client, issuer: Party, symbol: &str) -> Result<Self, CliError> {
        let reply = client.cluster().await?;
        let layout: Layout = edge::value("layout", &reply.layout)?;
        let spec =
            AssetSpec { issuer: issuer.address, symbol: symbol.to_owned(), name: "load".to_owned(), decimals: 0 };
        let asset = spec.id();
        client.execute(vec![(LedgerId::BEACON, Move::Issue(spec))], b"", &[&issuer.key], Wait::Receipt).await?;
        for shard in &layout.shards {
            wait_known(client, asset, shard.group).await?;
        }
        let signer = Signer::new(client.cluster_id(), asset)?;
        Ok(Self { client: client.clone(), asset, layout, signer, issuer })
    }

    /// Creates supply and gives it to these accounts. Returns when all of it has been credited.
    ///
    /// # Errors
    /// `mint_refused` with what the ledger said.
    pub async fn mint(&self, portions: &[(Address, u128)], output: Output) -> Result<(), CliError> {
        let portions: Vec<(Address, u128)> = portions.iter().copied().filter(|(_, amount)| *amount > 0).collect();
        let first = u64::MAX / 2;
        let chunks = (first..).zip(portions.chunks(MOVES_MAX));
        let txs: Vec<_> = chunks.map(|(index, chunk)| self.signer.mint(index, &self.issuer, chunk)).collect();
        self.fund(txs, output).await
    }

    async fn fund(&self, txs: Vec<PreparedTx>, output: Output) -> Result<(), CliError> {
        let bar = output.bar(txs.len() as u64, "funding accounts");
        let driven = drive(&self.client, txs, MINTS_IN_FLIGHT, None, &bar).await?;
        bar.finish_and_clear();
        match driven.rejected.iter().next() {
            None => Ok(()),
            Some((code, count)) => Err(CliError::new(
                "mint_refused",
                format!("the ledger refused {count} transactions that fund the accounts: {code}"),
                "lower the opening balances if they are too large; see 'seamark status' otherwise",
            )),
        }
    }

    /// Gives accounts of a channel this much: supply is made in the main ledger and crosses to one account,
    /// which pays the others. The channel has to have permitted the asset. Returns when all of it has been
    /// credited.
    ///
    /// # Errors
    /// As [`Stage::mint`]; `not_in_time` when what crosses does not arrive.
    pub async fn endow(&self, channel: GroupId, portions: &[(Address, u128)], output: Output) -> Result<(), CliError> {
        wait_known(&self.client, self.asset, channel).await?;
        let total: u128 = portions.iter().map(|(_, amount)| *amount).sum();
        let (ledger, treasury) = (LedgerId::of_channel(channel), Party::derive(&random::<32>()?, "treasury"));
        self.mint(&[(treasury.address, total)], output).await?;
        let (from, asset) = (treasury.address, self.asset);
        let cross = Move::Transfer { from, to: from, asset, amount: total, ledger };
        self.client.execute(vec![(LedgerId::MAIN, cross)], b"", &[&treasury.key], Wait::Applied).await?;
        until("the money has come to the channel", KNOWN_WITHIN, async || {
            let answer = self.client.account_of(ledger, from, Consistency::Linearizable, false).await?;
            Ok(answer.value.filter(|record| posted(record, asset) == total).map(drop))
        })
        .await?;
        let chunks = (0..).zip(portions.chunks(MOVES_MAX));
        let txs = chunks.map(|(index, chunk)| self.signer.deal(index, ledger, &treasury, chunk)).collect();
        self.fund(txs, output).await
    }

    /// The balances of these accounts as the ledger has them, in their order.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn balances(&self, accounts: &[Address]) -> Result<Vec<u128>, CliError> {
        let records = self.client.accounts(accounts, Consistency::Linearizable).await?;
        let balance = |record: &Option<AccountRecord>| record.as_ref().map_or(0, |record| posted(record, self.asset));
        Ok(records.iter().map(balance).collect())
    }

    /// Which shard owns an account.
    #[must_use]
    pub fn home(&self, account: &Address) -> GroupId {
        self.layout.locate(account)
    }
}

/// What an account has of an asset.
fn posted(record: &AccountRecord, asset: AssetId) -> u128 {
    let line = record.balances.iter().find(|(known, _)| *known == asset);
    line.map_or(0, |(_, balance)| balance.posted)
}

/// Waits until a group knows an asset.
///
/// # Errors
/// `asset_not_spread` when it takes too long.
pub async fn wait_known(client: &Client, asset: AssetId, group: GroupId) -> Result<(), CliError> {
    let until = Instant::now() + KNOWN_WITHIN;
    while client.asset(asset, Some(group)).await?.value.is_none() {
        if Instant::now() >= until {
            let cause = format!("{group} did not learn of asset {asset} within {} seconds", KNOWN_WITHIN.as_secs());
            return Err(CliError::new(
                "asset_not_spread",
                cause,
                "see 'seamark status': mail from the beacon may be stuck",
            ));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_fresh_and_within_limits() {
        let (one, two) = (fresh_symbol("REPLAY").unwrap(), fresh_symbol("REPLAY").unwrap());
        assert_ne!(one, two);
        let issuer = Party::derive(b"s", "issuer").address;
        let spec = AssetSpec { issuer, symbol: one, name: String::new(), decimals: 0 };
        assert!(spec.well_formed());
    }
}
