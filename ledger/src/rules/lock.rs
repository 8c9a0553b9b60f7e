//! Hash-locks: who may lock, claim and refund, and when.
//!
//! The amount is held like that of an undecided payment, from the vote on the lock until it is
//! settled, and so everything that is said of holds is true of it: no debit and no check counts on
//! it, and a freeze that comes later does not stop it, or a payer could break a promise by freezing
//! itself. A claim is authorised by its secret. It pays nobody but the payee, whom the payer has
//! named, so anybody who knows the secret may send it: the payee, somebody it trusts to watch, or
//! the payer. A refund is the payer's to ask for. Of two that are undecided at once, the second is
//! refused as a conflict; nothing waits.

use crate::claim::Item;
use crate::hash::Hash32;
use crate::ids::{Address, AssetId, LockId, TimeMs};
use crate::limits::LOCK_FOR_MS_MAX;
use crate::lock::{Lock, LockState, LockTerms, Secret, hash_of};
use crate::reject::Reject;
use crate::schema;
use crate::tx::Move;

use super::work::Work;
use super::{HistoryKind, OwnLeg, RuleContext};

impl Work<'_, '_> {
    /// What authorises a claim: that the account has this lock, and the secret is its secret.
    pub(super) fn open(&mut self, mv: &Move) -> Result<(), Reject> {
        let Move::Claim { from, lock, terms, secret } = mv else { return Ok(()) };
        let found = self.find_lock(from, *lock, terms)?;
        if hash_of(secret) == found.hash { Ok(()) } else { Err(Reject::WrongSecret) }
    }

    fn find_lock(&mut self, from: &Address, id: LockId, terms: &LockTerms) -> Result<Lock, Reject> {
        let lock: Lock = self.read(&schema::lock(from, &id)).ok_or(Reject::LockUnknown)?;
        if lock.terms == *terms { Ok(lock) } else { Err(Reject::LockTerms) }
    }

    pub(super) fn vote_lock(
        &mut self,
        ctx: &RuleContext<'_>,
        from: &Address,
        asset: AssetId,
        amount: u128,
        deadline: TimeMs,
    ) -> Result<(), Reject> {
        let now = ctx.time_ms.0;
        if deadline.0 <= now || deadline.0 > now.saturating_add(LOCK_FOR_MS_MAX) {
            return Err(Reject::LockDeadline);
        }
        self.debit(from, asset, amount)
    }

    pub(super) fn vote_claim(&mut self, ctx: &RuleContext<'_>, from: &Address, id: LockId) -> Result<(), Reject> {
        let lock: Lock = self.read(&schema::lock(from, &id)).ok_or(Reject::LockUnknown)?;
        if lock.state != LockState::Open {
            return Err(Reject::LockSettled);
        }
        if ctx.time_ms >= lock.deadline_ms {
            return Err(Reject::LockExpired);
        }
        self.change(from, Item::Lock(id))
    }

    pub(super) fn vote_refund(
        &mut self,
        ctx: &RuleContext<'_>,
        from: &Address,
        id: LockId,
        terms: &LockTerms,
    ) -> Result<(), Reject> {
        let lock = self.find_lock(from, id, terms)?;
        if lock.state != LockState::Open {
            return Err(Reject::LockSettled);
        }
        if ctx.time_ms < lock.deadline_ms {
            return Err(Reject::LockEarly);
        }
        self.change(from, Item::Lock(id))
    }

    /// The hold of the vote stays; from now on it is the lock's.
    pub(super) fn post_lock(&mut self, leg: &OwnLeg<'_>, terms: LockTerms, hash: Hash32, deadline_ms: TimeMs) {
        let from = leg.voter.account;
        let id = LockId::derive(&self.txid, leg.slot);
        let lock = Lock { version: 1, terms, hash, deadline_ms, state: LockState::Open };
        self.put(schema::lock(&from, &id), &lock);
        self.line(from, HistoryKind::Locked, terms.asset, terms.amount, Some(terms.to));
    }

    pub(super) fn post_claim(&mut self, ctx: &RuleContext<'_>, leg: &OwnLeg<'_>, id: LockId, secret: Secret) {
        let from = leg.voter.account;
        let state = LockState::Claimed { secret, txid: self.txid, at_ms: ctx.time_ms };
        let LockTerms { to, asset, amount } = self.settle(&from, id, state);
        let at = self.entry(&from);
        self.accounts[at].post_hold(self.view, asset, amount);
        self.line(from, HistoryKind::Claimed, asset, amount, Some(to));
        self.give(ctx, leg, (&from, &to), asset, amount);
    }

    pub(super) fn post_refund(&mut self, ctx: &RuleContext<'_>, leg: &OwnLeg<'_>, id: LockId) {
        let from = leg.voter.account;
        let state = LockState::Refunded { txid: self.txid, at_ms: ctx.time_ms };
        let LockTerms { to, asset, amount } = self.settle(&from, id, state);
        let at = self.entry(&from);
        self.accounts[at].release_hold(self.view, asset, amount);
        self.line(from, HistoryKind::Refunded, asset, amount, Some(to));
    }

    fn settle(&mut self, from: &Address, id: LockId, state: LockState) -> LockTerms {
        let key = schema::lock(from, &id);
        let mut lock: Lock = self.read(&key).expect("the vote found the lock, and locks are never removed");
        assert_eq!(lock.state, LockState::Open, "the vote claimed the lock for itself");
        lock.state = state;
        self.put(key, &lock);
        lock.terms
    }
}
