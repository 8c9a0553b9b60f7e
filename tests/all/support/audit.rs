//! Judges the chains of a cluster from what it serves: hashes, certificates and value flow, added up
//! here with arithmetic of its own.

use std::collections::BTreeMap;

use client::Client;
use futures::StreamExt;
use ledger::genesis::Genesis;
use ledger::{Address, AssetId, Committee, GroupId, Header, Height, Receipt, TxId};
use proto::views::BlockView;

use super::bank::Bank;
use super::cluster::TestCluster;
use super::eventually;
use super::load::{Fates, Load};

/// Questions to the cluster at a time.
const QUESTIONS_MAX: usize = 32;

/// What all chains say about one asset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    pub minted: u128,
    pub burned: u128,
    /// What all groups hold together after their last block.
    pub held: u128,
}

/// Waits until a cluster has come to rest and audits its chains.
pub async fn audit(cluster: &TestCluster) -> BTreeMap<AssetId, Supply> {
    let heights = cluster.wait_settled().await;
    audit_chains(&cluster.client(), &heights).await
}

/// Every receipt of some transactions, by the transaction, in order of group and block.
pub type Receipts = BTreeMap<TxId, Vec<Receipt>>;

/// Audits the chains up to these heights: see [`audit_receipts`].
pub async fn audit_chains(client: &Client, heights: &BTreeMap<GroupId, u64>) -> BTreeMap<AssetId, Supply> {
    audit_receipts(client, heights).await.0
}

/// Reads every block of every group up to these heights. Each must follow from the one before, be
/// certified by its committee (the first of the group, or the one in force now; others are named by the chain alone),
/// and balance; what one group sent another must have received. Returns
/// the supply of each asset, and every receipt that stands in a block.
pub async fn audit_receipts(
    client: &Client,
    heights: &BTreeMap<GroupId, u64>,
) -> (BTreeMap<AssetId, Supply>, Receipts) {
    let mut books = Books::default();
    let mut receipts = Receipts::new();
    let now = eventually("the committees in force", async || client.cluster().await).await;
    let now = now.committees.iter().map(|bytes| borsh::from_slice::<Committee>(bytes).unwrap());
    let committees: Vec<Committee> = client.genesis().committees.iter().cloned().chain(now).collect();
    for (group, height) in heights {
        let ask = |height| async move { (height, client.block(*group, Height(height)).await.unwrap().value) };
        let mut blocks = futures::stream::iter(1..=*height).map(ask).buffered(QUESTIONS_MAX);
        let mut parent: Option<Header> = None;
        while let Some((height, block)) = blocks.next().await {
            let block = block.unwrap_or_else(|| panic!("{group} has no block {height}"));
            check_chain((client.genesis(), &committees), *group, height, &block, parent.as_ref());
            books.add(*group, &block);
            parent = Some(block.header.clone());
            for receipt in block.receipts {
                assert_eq!((receipt.group, receipt.height), (*group, Height(height)));
                receipts.entry(receipt.txid).or_default().push(receipt);
            }
        }
    }
    (books.close(), receipts)
}

fn check_chain(
    (genesis, committees): (&Genesis, &[Committee]),
    group: GroupId,
    height: u64,
    block: &BlockView,
    parent: Option<&Header>,
) {
    let header = &block.header;
    assert_eq!((header.group, header.height), (group, Height(height)));
    assert_eq!(header.cluster, genesis.cluster_id());
    if let Some(parent) = parent {
        assert_eq!(header.parents, [parent.hash()], "{group} {height} follows from another block");
    }
    let first = genesis.committee(group).unwrap().hash();
    let named = parent.map_or(first, |parent| parent.next_committee_hash);
    assert_eq!(header.committee_hash, named, "{group} {height} is by another committee");
    // Old certificates may be missing: any later one proves the chain. One that is there must hold.
    if let Some(certificate) = &block.certificate {
        assert_eq!(certificate.header, *header);
        if let Some(committee) = committees.iter().find(|one| one.hash() == header.committee_hash) {
            certificate.verify(committee).unwrap();
        }
    }
}

#[derive(Default)]
struct Books {
    supply: BTreeMap<AssetId, Supply>,
    held: BTreeMap<(GroupId, AssetId), u128>,
    sent: BTreeMap<(GroupId, GroupId, AssetId), u128>,
    received: BTreeMap<(GroupId, GroupId, AssetId), u128>,
}

impl Books {
    fn add(&mut self, group: GroupId, block: &BlockView) {
        for line in &block.header.value_flow {
            let (asset, height) = (line.asset, block.header.height);
            let imported: u128 = line.imported.iter().map(|(_, amount)| amount).sum();
            let exported: u128 = line.exported.iter().map(|(_, amount)| amount).sum();
            assert_eq!(
                line.opening + imported + line.minted,
                line.closing + exported + line.burned,
                "{group} {height} does not balance for {asset}"
            );
            let held = self.held.insert((group, asset), line.closing).unwrap_or(0);
            assert_eq!(held, line.opening, "{group} {height} opens with another amount of {asset}");
            let supply = self.supply.entry(asset).or_default();
            supply.minted += line.minted;
            supply.burned += line.burned;
            for (peer, amount) in &line.exported {
                *self.sent.entry((group, *peer, asset)).or_default() += amount;
            }
            for (peer, amount) in &line.imported {
                *self.received.entry((*peer, group, asset)).or_default() += amount;
            }
        }
    }

    fn close(mut self) -> BTreeMap<AssetId, Supply> {
        assert_eq!(self.sent, self.received, "what groups sent is not what others received");
        for ((_, asset), held) in self.held {
            self.supply.entry(asset).or_default().held += held;
        }
        for (asset, supply) in &self.supply {
            assert_eq!(supply.minted, supply.held + supply.burned, "the supply of {asset} is not conserved");
        }
        self.supply
    }
}

/// Ends a load and checks that each payment was executed once or not at all: everything
/// acknowledged has the same receipt still, what had no known fate gets one by asking, and every
/// account has exactly what it had before, and what was committed to and from it. Returns the number
/// of committed payments.
pub async fn end_and_reconcile(load: Load, bank: &Bank) -> (u64, Fates) {
    let mut fates = load.end().await;
    let mut expected = fates.before.clone();
    let mut committed = 0;
    for (txid, found) in receipts_of(bank, &fates).await {
        if let Some(acknowledged) = fates.receipts.get(&txid) {
            assert_eq!(found.as_ref(), Some(acknowledged), "an acknowledged payment was lost or changed");
        }
        let Some(receipt) = found else { continue };
        fates.open.remove(&txid);
        if receipt.committed() {
            committed += 1;
            let payment = fates.sent[&txid];
            *expected.get_mut(&payment.from).unwrap() -= 1;
            *expected.get_mut(&payment.to).unwrap() += 1;
        }
    }
    let accounts: Vec<Address> = expected.keys().copied().collect();
    let expected: Vec<u128> = expected.into_values().collect();
    // Credits in other shards come a moment after the receipt. Too much would never go away.
    eventually("every account has what was committed", async || {
        let found = bank.balances(&accounts).await;
        let differs = found.iter().zip(&expected).zip(&accounts).find(|((found, expected), _)| found != expected);
        match differs {
            None => Ok(()),
            Some(((found, expected), account)) => Err(format!("{account} has {found}, not {expected}")),
        }
    })
    .await;
    (committed, fates)
}

/// What the cluster says of every payment of a load.
async fn receipts_of(bank: &Bank, fates: &Fates) -> Vec<(TxId, Option<Receipt>)> {
    let client = &bank.client;
    let asked = fates.sent.keys().map(|txid| {
        let group = fates.receipts.get(txid).map(|receipt| receipt.group).or(bank.channel());
        async move {
            let found =
                eventually("a transaction's fate", async || client.transaction(*txid, group, false).await).await;
            (*txid, found.value)
        }
    });
    futures::stream::iter(asked).buffer_unordered(QUESTIONS_MAX).collect().await
}
