//! Amounts as people read them: with the asset's symbol and its decimals, as the beacon defines them.
//! Programs get whole numbers of the smallest unit and ids, which need no definition.

use std::collections::BTreeMap;
use std::time::Duration;

use client::Client;
use ledger::{AssetDef, AssetId};

use crate::output::{grouped, with_decimals};

/// Definitions that are looked up for one screen.
const LOOKED_UP_MAX: usize = 256;
/// How long a screen waits for the beacon; without it, ids and whole numbers are shown.
const WITHIN: Duration = Duration::from_secs(2);

/// Definitions of the assets on a screen.
#[derive(Default)]
pub(super) struct Assets(BTreeMap<AssetId, AssetDef>);

impl Assets {
    pub(super) fn add(&mut self, definition: AssetDef) {
        self.0.insert(definition.id, definition);
    }

    /// The symbol, or the id where it is not known.
    pub(super) fn name(&self, id: &AssetId) -> String {
        self.0.get(id).map_or_else(|| id.to_string(), |found| found.spec.symbol.clone())
    }

    /// The number with the asset's decimals; in the smallest unit where they are not known.
    pub(super) fn number(&self, id: &AssetId, amount: u128) -> String {
        with_decimals(amount, self.0.get(id).map_or(0, |found| found.spec.decimals))
    }

    /// Number and symbol.
    pub(super) fn amount(&self, id: &AssetId, amount: u128) -> String {
        match self.0.contains_key(id) {
            true => format!("{} {}", self.number(id, amount), self.name(id)),
            false => format!("{} of asset {id}, in its smallest unit", grouped(amount)),
        }
    }
}

/// Looks these assets up; those that the beacon does not know or tell in time are left out.
pub(super) async fn definitions(client: &Client, ids: impl IntoIterator<Item = AssetId>) -> Vec<AssetDef> {
    let client = client.clone().with_patience(WITHIN);
    let mut ids: Vec<AssetId> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(LOOKED_UP_MAX);
    let look_up = |id: AssetId| {
        let client = client.clone();
        async move { client.asset(id, None).await.ok().and_then(|answer| answer.value) }
    };
    futures::future::join_all(ids.into_iter().map(look_up)).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Address, AssetSpec};

    #[test]
    fn amounts_have_the_decimals_of_their_asset() {
        let spec = AssetSpec { issuer: Address([1; 20]), symbol: "EUR".into(), name: String::new(), decimals: 2 };
        let id = spec.id();
        let mut assets = Assets::default();
        assert_eq!(assets.amount(&id, 1250), format!("1,250 of asset {id}, in its smallest unit"));
        assets.add(AssetDef { version: 1, id, spec, frozen: false });
        for (amount, shown) in
            [(0, "0.00 EUR"), (5, "0.05 EUR"), (1250, "12.50 EUR"), (123_456_789, "1,234,567.89 EUR")]
        {
            assert_eq!(assets.amount(&id, amount), shown);
        }
        assert_eq!(with_decimals(u128::MAX, 36), "340.282366920938463463374607431768211455");
        assert_eq!(with_decimals(7, 0), "7");
    }
}
