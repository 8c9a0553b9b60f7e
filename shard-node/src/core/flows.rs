//! The book of a block's value flow, per asset and peer.

use std::collections::BTreeMap;

use ledger::flow::FlowLine;
use ledger::ids::{AssetId, GroupId};
use ledger::schema;
use ledger::view::View;

#[derive(Default)]
struct Sums {
    minted: u128,
    burned: u128,
    imported: BTreeMap<GroupId, u128>,
    exported: BTreeMap<GroupId, u128>,
}

/// Collects what enters and leaves a group during one block.
#[derive(Default)]
pub struct FlowBook {
    assets: BTreeMap<AssetId, Sums>,
}

const FITS: &str = "supply and synchronous debits of an asset are limited, so what a group has fits into 128 bits";

impl FlowBook {
    /// Supply created here.
    pub fn minted(&mut self, asset: AssetId, amount: u128) {
        let sum = &mut self.assets.entry(asset).or_default().minted;
        *sum = sum.checked_add(amount).expect(FITS);
    }

    /// Supply destroyed here.
    pub fn burned(&mut self, asset: AssetId, amount: u128) {
        let sum = &mut self.assets.entry(asset).or_default().burned;
        *sum = sum.checked_add(amount).expect(FITS);
    }

    /// What was burned of an asset in this block so far.
    #[must_use]
    pub fn burned_of(&self, asset: &AssetId) -> u128 {
        self.assets.get(asset).map_or(0, |sums| sums.burned)
    }

    /// A credit that came by mail.
    pub fn imported(&mut self, asset: AssetId, source: GroupId, amount: u128) {
        let sum = self.assets.entry(asset).or_default().imported.entry(source).or_default();
        *sum = sum.checked_add(amount).expect(FITS);
    }

    /// Whether so much more of an asset can come in and all that this group has still be counted.
    pub fn has_room(&self, view: &mut View<'_>, asset: &AssetId, amount: u128) -> bool {
        let total: u128 = view.load(&schema::total(asset)).unwrap_or(0);
        let Some(sums) = self.assets.get(asset) else { return total.checked_add(amount).is_some() };
        let incoming = sums.imported.values().chain([&sums.minted, &amount]);
        incoming.copied().try_fold(total, u128::checked_add).is_some()
    }

    /// A credit that left by mail.
    pub fn exported(&mut self, asset: AssetId, dest: GroupId, amount: u128) {
        let sum = self.assets.entry(asset).or_default().exported.entry(dest).or_default();
        *sum = sum.checked_add(amount).expect(FITS);
    }

    /// Closes the book: moves the group's totals and returns the header's lines.
    pub fn close(self, view: &mut View<'_>) -> Vec<FlowLine> {
        self.assets
            .into_iter()
            .map(|(asset, sums)| {
                let key = schema::total(&asset);
                let opening: u128 = view.load(&key).unwrap_or(0);
                let incoming: u128 = sums.imported.values().sum::<u128>() + sums.minted;
                let outgoing: u128 = sums.exported.values().sum::<u128>() + sums.burned;
                let closing = opening
                    .checked_add(incoming)
                    .and_then(|total| total.checked_sub(outgoing))
                    .expect("a group never gives away more of an asset than it has");
                view.store(key, &closing);
                FlowLine {
                    asset,
                    opening,
                    closing,
                    minted: sums.minted,
                    burned: sums.burned,
                    imported: sums.imported.into_iter().collect(),
                    exported: sums.exported.into_iter().collect(),
                }
            })
            .collect()
    }
}
