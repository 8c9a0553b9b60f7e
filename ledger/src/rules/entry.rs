//! One account while a transaction works on it: read once, changed in memory, stored at the end.
//!
//! Never writes to the view before [`Entry::store`], so that a refusal leaves no trace.

use crate::account::{AccountRecord, Balance, FLAG_CLAIMED, FLAG_FROZEN, FLAG_LIMITED, FLAG_RESTRICTED};
use crate::claim::{Claim, ClaimList, Claimed, Restriction};
use crate::ids::{Address, AssetId, TxId};
use crate::limits::{CLAIMS_MAX, INLINE_BALANCES_MAX};
use crate::reject::Reject;
use crate::schema;
use crate::view::View;

pub(super) struct Entry {
    pub(super) address: Address,
    pub(super) record: AccountRecord,
    pub(super) dirty: bool,
    extra: Vec<(AssetId, Balance)>,
    claims: Option<Vec<Claimed>>,
    claims_dirty: bool,
    restrictions: Vec<(AssetId, Restriction)>,
    /// Debits of this transaction, for the account's limits.
    debited: Vec<(AssetId, u128)>,
}

impl Entry {
    pub(super) fn load(view: &mut View<'_>, address: Address) -> Self {
        let record = view.load(&schema::account(&address)).unwrap_or_default();
        Self {
            address,
            record,
            dirty: false,
            extra: Vec::new(),
            claims: None,
            claims_dirty: false,
            restrictions: Vec::new(),
            debited: Vec::new(),
        }
    }

    pub(super) fn balance(&mut self, view: &mut View<'_>, asset: AssetId) -> Balance {
        if let Ok(at) = self.record.balances.binary_search_by_key(&asset, |line| line.0) {
            return self.record.balances[at].1;
        }
        if let Some(line) = self.extra.iter().find(|line| line.0 == asset) {
            return line.1;
        }
        // Without a full record there has never been an overflow entry to look for.
        if self.record.balances.len() < INLINE_BALANCES_MAX {
            return Balance::default();
        }
        view.load(&schema::extra_balance(&self.address, &asset)).unwrap_or_default()
    }

    fn set_balance(&mut self, asset: AssetId, balance: Balance) {
        self.dirty = true;
        match self.record.balances.binary_search_by_key(&asset, |line| line.0) {
            Ok(at) => self.record.balances[at].1 = balance,
            Err(at) if self.record.balances.len() < INLINE_BALANCES_MAX => {
                self.record.balances.insert(at, (asset, balance));
            }
            // The smallest ids stand in the record, so that the bytes follow from the balances
            // alone and not from the order in which they came. A smaller id pushes the largest out.
            Err(at) if at < INLINE_BALANCES_MAX => {
                self.record.balances.insert(at, (asset, balance));
                let pushed_out = self.record.balances.pop().expect("one was just inserted");
                self.extra.push(pushed_out);
            }
            Err(_) => match self.extra.iter_mut().find(|line| line.0 == asset) {
                Some(line) => line.1 = balance,
                None => self.extra.push((asset, balance)),
            },
        }
    }

    /// Whether debits of the asset are frozen, by the account's owner or by the asset's issuer.
    pub(super) fn frozen(&mut self, view: &mut View<'_>, asset: AssetId) -> bool {
        self.record.flags & FLAG_FROZEN != 0 || self.restriction(view, asset).frozen
    }

    pub(super) fn restriction(&mut self, view: &mut View<'_>, asset: AssetId) -> Restriction {
        if let Some(line) = self.restrictions.iter().find(|line| line.0 == asset) {
            return line.1;
        }
        if self.record.flags & FLAG_RESTRICTED == 0 {
            return Restriction::default();
        }
        view.load(&schema::restriction(&self.address, &asset)).unwrap_or_default()
    }

    pub(super) fn set_restriction(&mut self, asset: AssetId, restriction: Restriction) {
        self.record.flags |= FLAG_RESTRICTED;
        self.dirty = true;
        match self.restrictions.iter_mut().find(|line| line.0 == asset) {
            Some(line) => line.1 = restriction,
            None => self.restrictions.push((asset, restriction)),
        }
    }

    fn claims_mut(&mut self, view: &mut View<'_>) -> &mut Vec<Claimed> {
        let there = self.record.flags & FLAG_CLAIMED != 0;
        let address = self.address;
        self.claims.get_or_insert_with(|| {
            if there {
                view.load::<ClaimList>(&schema::claims(&address)).unwrap_or_default().claims
            } else {
                Vec::new()
            }
        })
    }

    /// Claims of all undecided transactions; `except` leaves one out.
    pub(super) fn claims(&mut self, view: &mut View<'_>, except: Option<TxId>) -> impl Iterator<Item = &Claim> {
        self.claims_mut(view).iter().filter(move |claimed| Some(claimed.txid) != except).map(|claimed| &claimed.claim)
    }

    pub(super) fn claim(&mut self, view: &mut View<'_>, txid: TxId, claim: Claim) -> Result<(), Reject> {
        let claims = self.claims_mut(view);
        if claims.len() >= CLAIMS_MAX {
            return Err(Reject::Conflict);
        }
        claims.push(Claimed { txid, claim });
        self.claims_dirty = true;
        Ok(())
    }

    pub(super) fn drop_claims(&mut self, view: &mut View<'_>, txid: TxId) {
        let claims = self.claims_mut(view);
        let before = claims.len();
        claims.retain(|claimed| claimed.txid != txid);
        let changed = claims.len() != before;
        self.claims_dirty |= changed;
    }

    /// Reserves an amount for a debit, within what other transactions rely on and the limit that
    /// the account has set.
    pub(super) fn hold(&mut self, view: &mut View<'_>, txid: TxId, asset: AssetId, amount: u128) -> Result<(), Reject> {
        let mut balance = self.balance(view, asset);
        let left = balance.available().checked_sub(amount).ok_or(Reject::InsufficientFunds)?;
        if self.record.flags & FLAG_CLAIMED != 0 {
            let pinned = self.claims(view, Some(txid)).any(
                |claim| matches!(claim, Claim::AtLeast { asset: of, amount: least } if *of == asset && left < *least),
            );
            if pinned {
                return Err(Reject::Conflict);
            }
        }
        self.count_debit(view, asset, amount)?;
        // Holds never exceed what is posted, so the sum fits.
        balance.held += amount;
        self.set_balance(asset, balance);
        Ok(())
    }

    fn count_debit(&mut self, view: &mut View<'_>, asset: AssetId, amount: u128) -> Result<(), Reject> {
        if self.record.flags & FLAG_LIMITED == 0 {
            return Ok(());
        }
        let sum = self.debited(asset, amount);
        match view.load::<u128>(&schema::limit(&self.address, &asset)) {
            Some(limit) if sum > limit => Err(Reject::LimitExceeded),
            _ => Ok(()),
        }
    }

    /// Counts a debit of this transaction. Returns all that it has debited of the asset by now.
    pub(super) fn debited(&mut self, asset: AssetId, amount: u128) -> u128 {
        let at = match self.debited.iter().position(|line| line.0 == asset) {
            Some(at) => at,
            None => {
                self.debited.push((asset, 0));
                self.debited.len() - 1
            }
        };
        let sum = self.debited[at].1.saturating_add(amount);
        self.debited[at].1 = sum;
        sum
    }

    /// Takes away what was held.
    pub(super) fn post_hold(&mut self, view: &mut View<'_>, asset: AssetId, amount: u128) {
        let mut balance = self.balance(view, asset);
        balance.held -= amount;
        balance.posted -= amount;
        self.set_balance(asset, balance);
    }

    /// Sets free what was held.
    pub(super) fn release_hold(&mut self, view: &mut View<'_>, asset: AssetId, amount: u128) {
        let mut balance = self.balance(view, asset);
        balance.held -= amount;
        self.set_balance(asset, balance);
    }

    /// Adds to the posted balance.
    pub(super) fn post(&mut self, view: &mut View<'_>, asset: AssetId, amount: u128) {
        let mut balance = self.balance(view, asset);
        balance.posted = balance
            .posted
            .checked_add(amount)
            .expect("supply and synchronous debits are limited, so no balance exceeds 128 bits");
        self.set_balance(asset, balance);
    }

    /// Takes a credit. It cannot fail: what a frozen account gets waits in its suspense. Returns
    /// whether it does.
    pub(super) fn credit(&mut self, view: &mut View<'_>, asset: AssetId, amount: u128) -> bool {
        if !self.frozen(view, asset) {
            self.post(view, asset, amount);
            return false;
        }
        let mut restriction = self.restriction(view, asset);
        restriction.suspense = restriction
            .suspense
            .checked_add(amount)
            .expect("supply and synchronous debits are limited, so no suspense exceeds 128 bits");
        self.set_restriction(asset, restriction);
        true
    }

    pub(super) fn store(mut self, view: &mut View<'_>) {
        if self.claims_dirty {
            let claims = self.claims.take().unwrap_or_default();
            let there = self.record.flags & FLAG_CLAIMED != 0;
            match (claims.is_empty(), there) {
                (true, false) => {}
                (true, true) => {
                    self.record.flags &= !FLAG_CLAIMED;
                    self.dirty = true;
                    view.delete(schema::claims(&self.address));
                }
                (false, _) => {
                    self.dirty |= !there;
                    self.record.flags |= FLAG_CLAIMED;
                    view.store(schema::claims(&self.address), &ClaimList { version: 1, claims });
                }
            }
        }
        if !self.dirty {
            return;
        }
        view.store(schema::account(&self.address), &self.record);
        for (asset, balance) in self.extra {
            view.store(schema::extra_balance(&self.address, &asset), &balance);
        }
        for (asset, restriction) in self.restrictions {
            view.store(schema::restriction(&self.address, &asset), &restriction);
        }
    }
}
