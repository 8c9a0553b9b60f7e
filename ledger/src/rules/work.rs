//! The uncommitted work of one transaction on the accounts of one group.
//!
//! A vote is taken leg by leg ([`Work::vote`]): it checks, and reserves what the leg needs. Then
//! either everything is posted ([`Work::post`]) or everything is set free ([`Work::release`]). A
//! transaction of one group does both in one go; one of several groups keeps its reservations in
//! state until the outcome is known. Both follow the same rules, so that it does not matter to a
//! client how accounts are spread over shards.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::account::{FLAG_FROZEN, FLAG_LIMITED};
use crate::asset::AssetDef;
use crate::auth::Witness;
use crate::claim::{Claim, Item};
use crate::ids::{Address, AssetId, TxId};
use crate::limits::{SUPPLY_MAX, SYNC_DEBITS_MAX};
use crate::lock::LockTerms;
use crate::pair;
use crate::reject::Reject;
use crate::schema;
use crate::tx::{AccountWrite, Condition, Move};
use crate::view::View;

use super::entry::Entry;
use super::{Credit, Effects, HistoryKind, HistoryLine, OwnLeg, RuleContext, Signatures};

pub(super) struct Work<'v, 'b> {
    pub(super) view: &'v mut View<'b>,
    pub(super) txid: TxId,
    pub(super) accounts: Vec<Entry>,
    supplies: Vec<(Address, AssetId, u128)>,
    /// Undecided synchronous debits of this group: asset, as they were, as they are.
    sync_debits: Vec<(AssetId, u128, u128)>,
    /// Entries of their own, the last one of a key counts.
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Credits for accounts of this group: posted after all debits, so that no debit can depend on
    /// a credit of its own transaction, wherever the accounts lie.
    local: Vec<(Address, Address, AssetId, u128)>,
    pub(super) effects: Effects,
}

impl<'v, 'b> Work<'v, 'b> {
    pub(super) fn new(view: &'v mut View<'b>, txid: TxId) -> Self {
        Self {
            view,
            txid,
            accounts: Vec::new(),
            supplies: Vec::new(),
            sync_debits: Vec::new(),
            writes: Vec::new(),
            local: Vec::new(),
            effects: Effects::default(),
        }
    }

    pub(super) fn entry(&mut self, address: &Address) -> usize {
        if let Some(at) = self.accounts.iter().position(|entry| entry.address == *address) {
            return at;
        }
        self.accounts.push(Entry::load(self.view, *address));
        self.accounts.len() - 1
    }

    /// The account must have authorised: by the authorisation it has, or, before its first spend,
    /// by the one its address commits to, which is then recorded.
    pub(super) fn authorise(
        &mut self,
        address: &Address,
        witnesses: &[Witness],
        signatures: Signatures,
    ) -> Result<(), Reject> {
        let at = self.entry(address);
        let entry = &mut self.accounts[at];
        let found = match &entry.record.auth {
            Some(auth) => witnesses.iter().find(|witness| witness.auth == *auth),
            None => witnesses.iter().find(|witness| witness.auth.address() == *address),
        };
        let witness = found.ok_or(Reject::NotAuthorised)?;
        if signatures == Signatures::Unchecked && !witness.verifies(&self.txid.0) {
            return Err(Reject::NotAuthorised);
        }
        if entry.record.auth.is_none() {
            entry.record.auth = Some(witness.auth.clone());
            entry.dirty = true;
        }
        Ok(())
    }

    /// Counts what an earlier vote on this transaction has reserved of an account.
    pub(super) fn recall(&mut self, leg: &OwnLeg<'_>) {
        if let Some((asset, amount)) = debit_of(leg) {
            let at = self.entry(&leg.voter.account);
            self.accounts[at].debited(asset, amount);
        }
    }

    /// Whether the leg can be carried out, whatever becomes of everything that is undecided; and
    /// reserves what it needs.
    pub(super) fn vote(&mut self, ctx: &RuleContext<'_>, leg: &OwnLeg<'_>) -> Result<(), Reject> {
        let account = leg.voter.account;
        let first = leg.voter.authorises;
        match leg.mv {
            Move::Pay { asset, amount, .. } => {
                self.circulates(ctx, asset)?;
                self.debit(&account, *asset, *amount)
            }
            Move::PaySync { asset, amount, .. } if first => {
                self.circulates(ctx, asset)?;
                self.debit(&account, *asset, *amount)?;
                let open = self.sync_debits(asset);
                *open = open.checked_add(*amount).filter(|sum| *sum <= SYNC_DEBITS_MAX).ok_or(Reject::Overflow)?;
                Ok(())
            }
            Move::PaySync { asset, amount, .. } => {
                self.circulates(ctx, asset)?;
                self.expect_credit(&account, *asset, *amount)
            }
            Move::Mint { asset, amount, .. } => {
                at_home(ctx, asset)?;
                self.reserve_supply(ctx, &account, *asset, *amount)
            }
            Move::Burn { asset, amount, .. } => {
                at_home(ctx, asset)?;
                self.issued_by(asset, &account)?;
                self.debit(&account, *asset, *amount)
            }
            Move::Issue(_) => Err(Reject::WrongShard),
            Move::Rotate { .. } => self.change(&account, Item::Auth),
            Move::Write { write, .. } => self.change(&account, item_of(write)),
            Move::Check { condition, .. } => self.check(&account, condition),
            Move::Freeze { asset, .. } if first => self.definition(asset, &account).map(|_| ()),
            Move::Freeze { asset, .. } => self.change(&account, Item::Restriction(*asset)),
            Move::Release { asset, amount, .. } => {
                self.expect_credit(&account, *asset, *amount)?;
                self.reserve_suspense(&account, *asset, *amount)
            }
            Move::Return { account: of, asset, .. } if first => {
                if account == *of {
                    Ok(())
                } else {
                    self.definition(asset, &account).map(|_| ())
                }
            }
            Move::Return { asset, amount, .. } => self.reserve_suspense(&account, *asset, *amount),
            Move::Lock { asset, amount, deadline_ms, .. } => {
                self.circulates(ctx, asset)?;
                self.vote_lock(ctx, &account, *asset, *amount, *deadline_ms)
            }
            Move::Claim { lock, .. } => self.vote_claim(ctx, &account, *lock),
            Move::Refund { lock, terms, .. } => self.vote_refund(ctx, &account, *lock, terms),
            Move::Record { hash, .. } => self.vote_record(&account, *hash),
            Move::Grant { record, to, terms, .. } => self.vote_grant(ctx, &account, *record, *to, terms),
            Move::Revoke { record, from, .. } => self.vote_revoke(&account, *record, *from),
            Move::Transfer { asset, amount, ledger, .. } => self.vote_transfer(ctx, &account, *asset, *amount, *ledger),
        }
    }

    /// An asset that the ledger has not permitted is not paid with. It can be transferred out, as it may
    /// have come in: a certified transfer cannot be refused. What was locked is still claimed.
    fn circulates(&mut self, ctx: &RuleContext<'_>, asset: &AssetId) -> Result<(), Reject> {
        match ctx.permission {
            Some(leaf) if self.view.get(&leaf(asset)).is_none() => Err(Reject::AssetNotPermitted),
            _ => Ok(()),
        }
    }

    /// The decoded value of an entry as this work leaves it.
    pub(super) fn read<T: BorshDeserialize>(&mut self, key: &[u8]) -> Option<T> {
        match self.writes.iter().rev().find(|(written, _)| written == key) {
            Some((_, value)) => {
                value.as_deref().map(|bytes| borsh::from_slice(bytes).expect("it was encoded when it was written"))
            }
            None => self.view.load(key),
        }
    }

    pub(super) fn put<T: BorshSerialize>(&mut self, key: Vec<u8>, value: &T) {
        let bytes = borsh::to_vec(value).expect("writing to memory does not fail");
        self.writes.push((key, Some(bytes)));
    }

    pub(super) fn debit(&mut self, account: &Address, asset: AssetId, amount: u128) -> Result<(), Reject> {
        // An asset whose definition has not arrived yet can still be spent: a balance of it exists
        // only because a certified credit brought it.
        let known = self.view.load::<AssetDef>(&schema::asset(&asset));
        let at = self.entry(account);
        let entry = &mut self.accounts[at];
        if known.as_ref().is_some_and(|def| def.frozen) || entry.frozen(self.view, asset) {
            return Err(Reject::Frozen);
        }
        let nothing = known.is_none() && entry.balance(self.view, asset).posted == 0;
        entry.hold(self.view, self.txid, asset, amount).map_err(|reject| match reject {
            // The advice to fund the account would be wrong.
            Reject::InsufficientFunds if nothing => Reject::NoSuchAsset,
            other => other,
        })
    }

    fn expect_credit(&mut self, account: &Address, asset: AssetId, amount: u128) -> Result<(), Reject> {
        let at = self.entry(account);
        let entry = &mut self.accounts[at];
        if entry.frozen(self.view, asset) {
            return Err(Reject::Frozen);
        }
        let (mut expected, mut most) = (entry.balance(self.view, asset).posted, u128::MAX);
        let txid = self.txid;
        for claim in entry.claims(self.view, Some(txid)) {
            match claim {
                Claim::Incoming { asset: of, amount } if *of == asset => expected = expected.saturating_add(*amount),
                Claim::AtMost { asset: of, amount } if *of == asset => most = most.min(*amount),
                _ => {}
            }
        }
        if expected.saturating_add(amount) > most {
            return Err(Reject::Conflict);
        }
        entry.claim(self.view, txid, Claim::Incoming { asset, amount })
    }

    /// What is known of the asset, if this account issued it.
    fn definition(&mut self, asset: &AssetId, issuer: &Address) -> Result<AssetDef, Reject> {
        let def: AssetDef = self.view.load(&schema::asset(asset)).ok_or(Reject::UnknownAsset)?;
        if def.spec.issuer == *issuer { Ok(def) } else { Err(Reject::NotIssuer) }
    }

    fn issued_by(&mut self, asset: &AssetId, issuer: &Address) -> Result<(), Reject> {
        let frozen = self.definition(asset, issuer)?.frozen;
        let at = self.entry(issuer);
        if frozen || self.accounts[at].record.flags & FLAG_FROZEN != 0 { Err(Reject::Frozen) } else { Ok(()) }
    }

    fn reserve_supply(
        &mut self,
        ctx: &RuleContext<'_>,
        issuer: &Address,
        asset: AssetId,
        amount: u128,
    ) -> Result<(), Reject> {
        self.issued_by(&asset, issuer)?;
        let before = self.supply(issuer, &asset);
        let mut supply = before.checked_add((ctx.burned)(&asset)).ok_or(Reject::Overflow)?;
        let (at, txid) = (self.entry(issuer), self.txid);
        let entry = &mut self.accounts[at];
        for claim in entry.claims(self.view, None) {
            if let Claim::Mint { asset: of, amount } = claim
                && *of == asset
            {
                supply = supply.checked_add(*amount).ok_or(Reject::Overflow)?;
            }
        }
        supply.checked_add(amount).filter(|sum| *sum <= SUPPLY_MAX).ok_or(Reject::Overflow)?;
        entry.claim(self.view, txid, Claim::Mint { asset, amount })
    }

    fn reserve_suspense(&mut self, account: &Address, asset: AssetId, amount: u128) -> Result<(), Reject> {
        let (at, txid) = (self.entry(account), self.txid);
        let entry = &mut self.accounts[at];
        let mut free = entry.restriction(self.view, asset).suspense;
        for claim in entry.claims(self.view, None) {
            if let Claim::Suspense { asset: of, amount } = claim
                && *of == asset
            {
                free -= *amount;
            }
        }
        if free < amount {
            return Err(Reject::InsufficientFunds);
        }
        entry.claim(self.view, txid, Claim::Suspense { asset, amount })
    }

    pub(super) fn change(&mut self, account: &Address, item: Item) -> Result<(), Reject> {
        let (at, txid) = (self.entry(account), self.txid);
        let entry = &mut self.accounts[at];
        let taken = entry.claims(self.view, Some(txid)).any(|claim| match claim {
            Claim::Change(other) => *other == item,
            Claim::Version => item.is_owners(),
            _ => false,
        });
        if taken {
            return Err(Reject::Conflict);
        }
        entry.claim(self.view, txid, Claim::Change(item))
    }

    fn check(&mut self, account: &Address, condition: &Condition) -> Result<(), Reject> {
        let (at, txid) = (self.entry(account), self.txid);
        let entry = &mut self.accounts[at];
        let claim = match condition {
            Condition::Consent => return Ok(()),
            Condition::NotFrozen(asset) => {
                let freezing = |claim: &Claim| match claim {
                    Claim::Change(Item::Restriction(of)) => of == asset,
                    Claim::Change(item) => *item == Item::Frozen,
                    _ => false,
                };
                if entry.claims(self.view, Some(txid)).any(freezing) {
                    return Err(Reject::Conflict);
                }
                return if entry.frozen(self.view, *asset) { Err(Reject::CheckFailed) } else { Ok(()) };
            }
            Condition::AtLeast { asset, amount } => {
                if entry.balance(self.view, *asset).available() < *amount {
                    return Err(Reject::CheckFailed);
                }
                Claim::AtLeast { asset: *asset, amount: *amount }
            }
            Condition::AtMost { asset, amount } => {
                let mut worst = entry.balance(self.view, *asset).posted;
                for claim in entry.claims(self.view, Some(txid)) {
                    if let Claim::Incoming { asset: of, amount } = claim
                        && of == asset
                    {
                        worst = worst.saturating_add(*amount);
                    }
                }
                if worst > *amount {
                    return Err(Reject::CheckFailed);
                }
                Claim::AtMost { asset: *asset, amount: *amount }
            }
            Condition::Version(sequence) => {
                let changing = |claim: &Claim| matches!(claim, Claim::Change(item) if item.is_owners());
                if entry.claims(self.view, Some(txid)).any(changing) {
                    return Err(Reject::Conflict);
                }
                if entry.record.sequence != *sequence {
                    return Err(Reject::CheckFailed);
                }
                Claim::Version
            }
        };
        entry.claim(self.view, txid, claim)
    }

    fn sync_debits(&mut self, asset: &AssetId) -> &mut u128 {
        let at = match self.sync_debits.iter().position(|line| line.0 == *asset) {
            Some(at) => at,
            None => {
                let open = self.view.load(&schema::sync_debits(asset)).unwrap_or(0);
                self.sync_debits.push((*asset, open, open));
                self.sync_debits.len() - 1
            }
        };
        &mut self.sync_debits[at].2
    }

    fn supply(&mut self, issuer: &Address, asset: &AssetId) -> u128 {
        match self.supplies.iter().find(|line| line.0 == *issuer && line.1 == *asset) {
            Some(line) => line.2,
            None => self.view.load(&schema::supply(issuer, asset)).unwrap_or(0),
        }
    }

    fn set_supply(&mut self, issuer: &Address, asset: &AssetId, supply: u128) {
        self.supplies.retain(|line| line.0 != *issuer || line.1 != *asset);
        self.supplies.push((*issuer, *asset, supply));
    }

    /// Carries out a leg that was voted for.
    pub(super) fn post(&mut self, ctx: &RuleContext<'_>, leg: &OwnLeg<'_>) {
        let account = leg.voter.account;
        let first = leg.voter.authorises;
        let at = self.entry(&account);
        match leg.mv {
            Move::Pay { from, to, asset, amount } => {
                self.accounts[at].post_hold(self.view, *asset, *amount);
                self.line(*from, HistoryKind::Sent, *asset, *amount, Some(*to));
                self.give(ctx, leg, (from, to), *asset, *amount);
            }
            Move::PaySync { from, to, asset, amount } => {
                let (kind, peer) = if first { (HistoryKind::Sent, *to) } else { (HistoryKind::Received, *from) };
                if first {
                    self.accounts[at].post_hold(self.view, *asset, *amount);
                    *self.sync_debits(asset) -= *amount;
                } else {
                    self.accounts[at].post(self.view, *asset, *amount);
                }
                self.line(account, kind, *asset, *amount, Some(peer));
                let other = ctx.home(leg.ledger, &peer);
                if other != ctx.group {
                    let side = if first { &mut self.effects.exported } else { &mut self.effects.imported };
                    side.push((other, *asset, *amount));
                }
            }
            Move::Mint { issuer, to, asset, amount } => {
                let raised = self.supply(issuer, asset) + *amount;
                self.set_supply(issuer, asset, raised);
                self.effects.minted.push((*asset, *amount));
                self.line(*issuer, HistoryKind::Minted, *asset, *amount, Some(*to));
                self.give(ctx, leg, (issuer, to), *asset, *amount);
            }
            Move::Burn { issuer, asset, amount } => {
                self.accounts[at].post_hold(self.view, *asset, *amount);
                let supply = self.supply(issuer, asset);
                self.set_supply(issuer, asset, supply - *amount);
                self.effects.burned.push((*asset, *amount));
                self.line(*issuer, HistoryKind::Burned, *asset, *amount, None);
            }
            Move::Rotate { auth, .. } => {
                self.accounts[at].record.auth = Some(auth.clone());
                self.owner_changed(at, HistoryKind::Rotated);
            }
            Move::Write { write, .. } => self.write(at, write),
            Move::Check { .. } | Move::Issue(_) => {}
            Move::Freeze { asset, frozen, issuer, .. } => {
                if !first {
                    let mut restriction = self.accounts[at].restriction(self.view, *asset);
                    restriction.frozen = *frozen;
                    self.accounts[at].set_restriction(*asset, restriction);
                    let kind = if *frozen { HistoryKind::Frozen } else { HistoryKind::Thawed };
                    self.line(account, kind, *asset, 0, Some(*issuer));
                }
            }
            Move::Release { asset, amount, .. } => {
                self.take_suspense(at, *asset, *amount);
                // Straight into the balance, also if the account was frozen again after the vote: an
                // amount that went back into suspense would have been released for nothing.
                self.accounts[at].post(self.view, *asset, *amount);
                self.line(account, HistoryKind::Released, *asset, *amount, None);
            }
            Move::Return { account: of, to, asset, amount, .. } => {
                if !first {
                    self.take_suspense(at, *asset, *amount);
                    self.line(account, HistoryKind::Returned, *asset, *amount, Some(*to));
                    self.give(ctx, leg, (of, to), *asset, *amount);
                }
            }
            Move::Lock { to, asset, amount, hash, deadline_ms, .. } => {
                let terms = LockTerms { to: *to, asset: *asset, amount: *amount };
                self.post_lock(leg, terms, *hash, *deadline_ms);
            }
            Move::Claim { lock, secret, .. } => self.post_claim(ctx, leg, *lock, *secret),
            Move::Refund { lock, .. } => self.post_refund(ctx, leg, *lock),
            Move::Record { hash, metadata, .. } => self.post_record(ctx, at, *hash, metadata),
            Move::Grant { record, to, terms, .. } => {
                self.post_grant(ctx, at, *record, *to, Some(terms.clone()));
            }
            Move::Revoke { record, from, .. } => self.post_grant(ctx, at, *record, *from, None),
            Move::Transfer { .. } => self.post_transfer(ctx, leg),
        }
    }

    fn take_suspense(&mut self, at: usize, asset: AssetId, amount: u128) {
        let mut restriction = self.accounts[at].restriction(self.view, asset);
        restriction.suspense -= amount;
        self.accounts[at].set_restriction(asset, restriction);
    }

    fn write(&mut self, at: usize, write: &AccountWrite) {
        let address = self.accounts[at].address;
        match write {
            AccountWrite::Data { key, value } => self.writes.push((schema::data(&address, key), value.clone())),
            AccountWrite::Limit { asset, per_tx } => {
                let encoded = per_tx.map(|limit| limit.to_le_bytes().to_vec());
                self.writes.push((schema::limit(&address, asset), encoded));
                self.accounts[at].record.flags |= FLAG_LIMITED;
            }
            AccountWrite::Frozen(true) => self.accounts[at].record.flags |= FLAG_FROZEN,
            AccountWrite::Frozen(false) => self.accounts[at].record.flags &= !FLAG_FROZEN,
        }
        let kind = match write {
            AccountWrite::Data { .. } | AccountWrite::Limit { .. } => HistoryKind::Written,
            AccountWrite::Frozen(true) => HistoryKind::Frozen,
            AccountWrite::Frozen(false) => HistoryKind::Thawed,
        };
        self.owner_changed(at, kind);
    }

    pub(super) fn owner_changed(&mut self, at: usize, kind: HistoryKind) {
        self.count_change(at);
        let address = self.accounts[at].address;
        self.line(address, kind, AssetId::default(), 0, None);
    }

    pub(super) fn count_change(&mut self, at: usize) {
        self.accounts[at].record.sequence += 1;
        self.accounts[at].dirty = true;
    }

    /// Sets free what a vote for this leg has held; claims go with [`Work::drop_claims`].
    pub(super) fn release(&mut self, leg: &OwnLeg<'_>) {
        let (asset, amount) = match leg.mv {
            Move::Pay { asset, amount, .. } | Move::Burn { asset, amount, .. } | Move::Lock { asset, amount, .. } => {
                (*asset, *amount)
            }
            Move::Transfer { asset, amount, ledger, .. } => {
                self.release_pair(*ledger, *asset, *amount);
                (*asset, *amount)
            }
            Move::PaySync { asset, amount, .. } if leg.voter.authorises => {
                *self.sync_debits(asset) -= *amount;
                (*asset, *amount)
            }
            Move::PaySync { .. }
            | Move::Mint { .. }
            | Move::Issue(_)
            | Move::Rotate { .. }
            | Move::Check { .. }
            | Move::Write { .. }
            | Move::Freeze { .. }
            | Move::Release { .. }
            | Move::Return { .. }
            | Move::Claim { .. }
            | Move::Refund { .. }
            | Move::Record { .. }
            | Move::Grant { .. }
            | Move::Revoke { .. } => return,
        };
        let at = self.entry(&leg.voter.account);
        self.accounts[at].release_hold(self.view, asset, amount);
    }

    /// Removes this transaction's claims from an account.
    pub(super) fn drop_claims(&mut self, account: &Address) {
        let (at, txid) = (self.entry(account), self.txid);
        self.accounts[at].drop_claims(self.view, txid);
    }

    pub(super) fn line(
        &mut self,
        account: Address,
        kind: HistoryKind,
        asset: AssetId,
        amount: u128,
        other: Option<Address>,
    ) {
        self.effects.lines.push(HistoryLine { account, kind, txid: self.txid, asset, amount, other });
    }

    pub(super) fn give(
        &mut self,
        ctx: &RuleContext<'_>,
        leg: &OwnLeg<'_>,
        (from, to): (&Address, &Address),
        asset: AssetId,
        amount: u128,
    ) {
        let owner = ctx.home(leg.ledger, to);
        if owner == ctx.group {
            self.local.push((*from, *to, asset, amount));
        } else {
            let credit = Credit { txid: self.txid, move_index: leg.slot, account: *to, asset, amount };
            self.effects.credits.push((owner, credit));
        }
    }

    /// Posts the credits of this group and writes everything to the view.
    pub(super) fn store(mut self) -> Effects {
        for (from, to, asset, amount) in std::mem::take(&mut self.local) {
            let at = self.entry(&to);
            let suspended = self.accounts[at].credit(self.view, asset, amount);
            let kind = if suspended { HistoryKind::Suspended } else { HistoryKind::Received };
            self.line(to, kind, asset, amount, Some(from));
        }
        for entry in self.accounts {
            entry.store(self.view);
        }
        for (issuer, asset, supply) in self.supplies {
            self.view.store(schema::supply(&issuer, &asset), &supply);
        }
        for (asset, before, now) in self.sync_debits {
            let key = schema::sync_debits(&asset);
            match now {
                same if same == before => {}
                0 => self.view.delete(key),
                more => self.view.store(key, &more),
            }
        }
        for (key, value) in self.writes {
            match value {
                Some(value) => self.view.put(key, value),
                None => self.view.delete(key),
            }
        }
        self.effects
    }
}

/// Supply is made and destroyed in an asset's home ledger alone.
fn at_home(ctx: &RuleContext<'_>, asset: &AssetId) -> Result<(), Reject> {
    if pair::home_of(asset) == ctx.ledger { Ok(()) } else { Err(Reject::ForeignAsset) }
}

/// What a leg takes from its account, if it does.
fn debit_of(leg: &OwnLeg<'_>) -> Option<(AssetId, u128)> {
    match leg.mv {
        Move::Pay { asset, amount, .. }
        | Move::PaySync { asset, amount, .. }
        | Move::Burn { asset, amount, .. }
        | Move::Lock { asset, amount, .. }
        | Move::Transfer { asset, amount, .. } => leg.voter.authorises.then_some((*asset, *amount)),
        // What is claimed or refunded was taken when it was locked.
        Move::Claim { .. } | Move::Refund { .. } => None,
        Move::Mint { .. }
        | Move::Issue(_)
        | Move::Rotate { .. }
        | Move::Write { .. }
        | Move::Check { .. }
        | Move::Freeze { .. }
        | Move::Release { .. }
        | Move::Return { .. }
        | Move::Record { .. }
        | Move::Grant { .. }
        | Move::Revoke { .. } => None,
    }
}

fn item_of(write: &AccountWrite) -> Item {
    match write {
        AccountWrite::Data { key, .. } => Item::Data(key.clone()),
        AccountWrite::Limit { asset, .. } => Item::Limit(*asset),
        AccountWrite::Frozen(_) => Item::Frozen,
    }
}
