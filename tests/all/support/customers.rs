//! Customers of a cluster of processes that has just started, who pay one another for as long as a test needs it.

use client::Client;
use ledger::GroupId;

use super::audit::{audit_chains, end_and_reconcile};
use super::bank::{Bank, Wallet, wallets_in_each_shard};
use super::load::Load;
use super::up::Up;

/// Wallets in each shard, all with the same funds of one asset.
pub struct Customers {
    pub client: Client,
    /// The groups that the cluster has begun with.
    pub groups: Vec<GroupId>,
    pub bank: Bank,
    pub wallets: Vec<Wallet>,
    funds: u128,
}

impl Customers {
    /// So many in each shard, with so much each.
    pub async fn of(up: &Up, each: usize, funds: u128) -> Self {
        let client = Client::connect(&up.profile()).await.unwrap();
        let genesis = client.genesis().clone();
        let groups = genesis.committees.iter().map(|committee| committee.group).collect();
        let bank = Bank::open(&client).await;
        let wallets: Vec<Wallet> = wallets_in_each_shard(&genesis.layout, "home", each).into_iter().flatten().collect();
        bank.fund(&wallets, funds).await;
        Self { client, groups, bank, wallets, funds }
    }

    /// They begin to pay, with so many payments in flight.
    pub async fn pay(&self, in_flight: usize) -> Load {
        Load::start(&self.bank, &self.wallets, &self.wallets, in_flight).await
    }

    /// They stop. Each payment has its one fate, so many at least are committed, and by what the chains prove nothing was lost
    /// or made.
    pub async fn end(&self, up: &mut Up, load: Load, committed_min: u64) {
        let (committed, fates) = end_and_reconcile(load, &self.bank).await;
        assert!(fates.open.is_empty(), "{:?}", fates.open);
        assert!(committed >= committed_min, "{committed}");
        let heights = up.settled(&self.client, &self.groups).await;
        let supply = audit_chains(&self.client, &heights).await[&self.bank.asset];
        assert_eq!(supply.held, self.funds * self.wallets.len() as u128);
        assert_eq!(self.bank.total(&self.wallets).await, supply.held);
    }
}
