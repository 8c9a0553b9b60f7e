//! What a shard has of each asset, counted leaf by leaf.
//!
//! A group's totals move with its blocks and are never counted again. A shard that begins with a part of another one's
//! accounts has to count them: once, when its copy is made ([`Tally::of`]), and from then on change by change
//! ([`Tally::change`]), so that at the seal nothing is left to count. Never reads a database: whoever has the pairs at
//! hand gives them.

use std::collections::BTreeMap;

use borsh::BorshDeserialize;
use cross_shard::commit::{Cast, Decision, Prepared};
use ledger::account::{AccountRecord, Balance};
use ledger::claim::Restriction;
use ledger::ids::{AssetId, ClusterId, LedgerId};
use ledger::layout::BitPrefix;
use ledger::schema;
use ledger::tx::{Move, ParsedTx};

/// What a shard begins with: see [`Tally::counted`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChildTally {
    /// Of each asset, what its accounts have, in balances and in suspense; ascending, none of nothing.
    pub totals: Vec<(AssetId, u128)>,
    /// Of each asset, its undecided synchronous debits; ascending, none of nothing.
    pub sync_debits: Vec<(AssetId, u128)>,
    /// Leaves of its state tree.
    pub leaves: u64,
}

/// Why something cannot be counted: the state is damaged, or a change does not fit what was counted before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TallyError {
    /// A value does not decode.
    #[error("the value of key {key:02x?} cannot be counted: {cause}")]
    Value {
        /// The key.
        key: Vec<u8>,
        /// Why.
        cause: String,
    },
    /// More is taken away than was counted, or more comes than an amount can be.
    #[error("of asset {asset} more is taken away than was counted, or more than an amount can be was added")]
    Amount {
        /// The asset.
        asset: AssetId,
    },
    /// More leaves are taken away than were counted.
    #[error("more leaves are taken away than were counted")]
    Leaves,
}

/// Values by asset.
type Amounts = Vec<(AssetId, u128)>;

/// A running count of what lies under one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    cluster: ClusterId,
    prefix: BitPrefix,
    totals: BTreeMap<AssetId, u128>,
    sync_debits: BTreeMap<AssetId, u128>,
    leaves: u64,
}

impl Tally {
    /// A count of nothing yet. Only what lies under the prefix will count.
    #[must_use]
    pub fn new(cluster: ClusterId, prefix: BitPrefix) -> Self {
        Self { cluster, prefix, totals: BTreeMap::new(), sync_debits: BTreeMap::new(), leaves: 0 }
    }

    /// Counts the pairs of a database that count, those of [`schema::STATE`] and of [`schema::PREPARED`]; others may be
    /// among them.
    ///
    /// # Errors
    /// [`TallyError`] when a value does not decode.
    pub fn of<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        cluster: ClusterId,
        prefix: BitPrefix,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, TallyError> {
        let mut tally = Self::new(cluster, prefix);
        for (key, value) in pairs {
            tally.change(key.as_ref(), None, Some(value.as_ref()))?;
        }
        Ok(tally)
    }

    /// Counts a change of one key. What does not count may come along.
    ///
    /// # Errors
    /// [`TallyError`] when a value does not decode, or `old` is not what was counted under this key.
    pub fn change(&mut self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), TallyError> {
        match key.first() {
            Some(&schema::STATE) if covers(&self.prefix, key) => {
                let (old_amount, new_amount) = (in_leaf(key, old)?, in_leaf(key, new)?);
                shift(&mut self.totals, &old_amount, &new_amount)?;
                let after = self.leaves + u64::from(new.is_some());
                self.leaves = after.checked_sub(u64::from(old.is_some())).ok_or(TallyError::Leaves)?;
                Ok(())
            }
            Some(&schema::PREPARED) => {
                let (old_amount, new_amount) = (self.open_debits(key, old)?, self.open_debits(key, new)?);
                shift(&mut self.sync_debits, &old_amount, &new_amount)
            }
            _ => Ok(()),
        }
    }

    /// What was counted.
    #[must_use]
    pub fn counted(&self) -> ChildTally {
        let listed = |amounts: &BTreeMap<AssetId, u128>| amounts.iter().map(|(asset, sum)| (*asset, *sum)).collect();
        ChildTally { totals: listed(&self.totals), sync_debits: listed(&self.sync_debits), leaves: self.leaves }
    }

    /// The synchronous debits that a record of a transaction still holds open under the prefix: those that were voted
    /// for, and neither posted nor set free.
    fn open_debits(&self, key: &[u8], value: Option<&[u8]>) -> Result<Amounts, TallyError> {
        let Some(record) = decoded::<Prepared>(key, value)? else { return Ok(Vec::new()) };
        let undecided = |cast: &&Cast| cast.decision == Decision::Yes && cast.outcome.is_none();
        let open: Vec<&Cast> = record.casts.iter().filter(undecided).collect();
        if open.is_empty() || record.tx.is_empty() {
            return Ok(Vec::new());
        }
        let damaged = |cause: String| TallyError::Value { key: key.to_vec(), cause };
        let mut tx = ParsedTx::decode(&self.cluster, &record.tx).map_err(|reject| damaged(reject.to_string()))?;
        tx.open(record.openings.clone()).map_err(|reject| damaged(reject.to_string()))?;
        let mut amounts = Amounts::new();
        for (slot, ledger, mv) in tx.visible() {
            let Move::PaySync { from, asset, amount, .. } = mv else { continue };
            // The payer's is the first leg of its slot, and of a hidden slot the only one.
            let (leg, at) = (2 * slot, from.partition().0);
            let voted = open.iter().any(|cast| cast.legs.contains(&leg) && cast.within.covers(&at));
            if ledger == LedgerId::MAIN && self.prefix.covers(&at) && voted {
                amounts.push((*asset, *amount));
            }
        }
        Ok(amounts)
    }
}

/// Whether a key of the state tree lies under a prefix.
pub(super) fn covers(prefix: &BitPrefix, key: &[u8]) -> bool {
    key.get(1..33).and_then(|partition| partition.try_into().ok()).is_some_and(|partition| prefix.covers(partition))
}

fn decoded<T: BorshDeserialize>(key: &[u8], value: Option<&[u8]>) -> Result<Option<T>, TallyError> {
    let decode = |bytes| {
        borsh::from_slice(bytes).map_err(|error| TallyError::Value { key: key.to_vec(), cause: error.to_string() })
    };
    value.map(decode).transpose()
}

/// The value that stands in a leaf: balances, in an account's record and beside it, and what lies in suspense. What a
/// lock or an undecided transaction holds is part of a balance, and a pair account only counts.
fn in_leaf(key: &[u8], value: Option<&[u8]>) -> Result<Amounts, TallyError> {
    let asset = || {
        let id = key.get(34..).and_then(|id| id.try_into().ok()).map(AssetId);
        id.ok_or_else(|| TallyError::Value { key: key.to_vec(), cause: "it names no asset".to_owned() })
    };
    match key.get(33) {
        Some(&schema::KIND_ACCOUNT) => {
            let record: Option<AccountRecord> = decoded(key, value)?;
            let lines = record.into_iter().flat_map(|record| record.balances);
            Ok(lines.map(|(asset, balance)| (asset, balance.posted)).collect())
        }
        Some(&schema::KIND_BALANCE) => match decoded::<Balance>(key, value)? {
            Some(balance) => Ok(vec![(asset()?, balance.posted)]),
            None => Ok(Vec::new()),
        },
        Some(&schema::KIND_RESTRICTION) => match decoded::<Restriction>(key, value)? {
            Some(restriction) => Ok(vec![(asset()?, restriction.suspense)]),
            None => Ok(Vec::new()),
        },
        _ => Ok(Vec::new()),
    }
}

/// Takes the old amounts away and adds the new ones.
fn shift(sums: &mut BTreeMap<AssetId, u128>, old: &Amounts, new: &Amounts) -> Result<(), TallyError> {
    for (asset, amount) in old {
        let sum = sums.entry(*asset).or_default();
        *sum = sum.checked_sub(*amount).ok_or(TallyError::Amount { asset: *asset })?;
    }
    for (asset, amount) in new {
        let sum = sums.entry(*asset).or_default();
        *sum = sum.checked_add(*amount).ok_or(TallyError::Amount { asset: *asset })?;
    }
    for (asset, _) in old.iter().chain(new) {
        if sums.get(asset) == Some(&0) {
            sums.remove(asset);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
