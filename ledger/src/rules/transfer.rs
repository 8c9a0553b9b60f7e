//! Transfers to other ledgers: what may leave, what may arrive, and what pair accounts count.
//!
//! Leaving is voted on where the payer is. An asset that is away from home may only go home, and no
//! more of it than came from there; that much is held on the pair account until the outcome is known.
//! Arriving cannot be voted on any more. So what would break the rule is not taken at all: it is
//! counted as refused, and nobody is credited, since only a ledger that broke the rule itself can
//! have sent it.

use crate::ids::{Address, AssetId, GroupId, LedgerId};
use crate::pair::{self, Pair, Transfer};
use crate::reject::Reject;
use crate::schema;
use crate::tx::Move;
use crate::view::View;

use super::work::Work;
use super::{Credit, HistoryKind, HistoryLine, OwnLeg, RuleContext};

impl Work<'_, '_> {
    pub(super) fn vote_transfer(
        &mut self,
        ctx: &RuleContext<'_>,
        from: &Address,
        asset: AssetId,
        amount: u128,
        to: LedgerId,
    ) -> Result<(), Reject> {
        let home = pair::home_of(&asset);
        if to == ctx.ledger || (home != ctx.ledger && home != to) {
            return Err(Reject::TransferLedger);
        }
        let there = ctx.home(to, &pair::address(ctx.ledger, &asset));
        if there.ledger() != Some(to) || self.view.get(&schema::current_committee(there)).is_none() {
            return Err(Reject::UnknownGroup);
        }
        self.debit(from, asset, amount)?;
        if home == ctx.ledger {
            return Ok(());
        }
        // A ledger away from an asset's home is a channel, one group, so its pair accounts lie here.
        if ctx.home(ctx.ledger, &pair::address(to, &asset)) != ctx.group {
            return Err(Reject::TransferLedger);
        }
        let mut pair = self.pair(to, asset);
        if pair.amount.available() < amount {
            return Err(Reject::PairExceeded);
        }
        pair.amount.held += amount;
        self.put(schema::pair(to, &asset), &pair);
        Ok(())
    }

    fn pair(&mut self, peer: LedgerId, asset: AssetId) -> Pair {
        self.read(&schema::pair(peer, &asset)).unwrap_or_else(|| Pair::new(peer, asset))
    }

    /// Sets free what a vote has held on a pair account, if it has held anything there.
    pub(super) fn release_pair(&mut self, peer: LedgerId, asset: AssetId, amount: u128) {
        // Only an asset that would go home is held.
        if pair::home_of(&asset) == peer {
            let mut pair = self.pair(peer, asset);
            pair.amount.held -= amount;
            self.put(schema::pair(peer, &asset), &pair);
        }
    }

    pub(super) fn post_transfer(&mut self, ctx: &RuleContext<'_>, leg: &OwnLeg<'_>) {
        let Move::Transfer { from, to, asset, amount, ledger } = leg.mv else { return };
        let at = self.entry(from);
        self.accounts[at].post_hold(self.view, *asset, *amount);
        self.line(*from, HistoryKind::Departed, *asset, *amount, Some(*to));
        let transfer = Transfer {
            txid: self.txid,
            move_index: leg.slot,
            from: ctx.ledger,
            to: *ledger,
            account: *to,
            asset: *asset,
            amount: *amount,
        };
        let counts = super::next_of(ctx, &transfer);
        if counts != ctx.group {
            self.effects.transfers.push((counts, transfer));
            return;
        }
        if pair::home_of(asset) == *ledger {
            self.release_pair(*ledger, *asset, *amount);
        }
        let mut pair = self.pair(*ledger, *asset);
        let (next, line) = leave(ctx, &mut pair, &transfer, Some(*from));
        self.put(schema::pair(*ledger, asset), &pair);
        self.effects.lines.push(line);
        self.effects.transfers.push((next, transfer));
    }
}

/// Counts what leaves on a pair account, and says where it goes.
fn leave(
    ctx: &RuleContext<'_>,
    pair: &mut Pair,
    transfer: &Transfer,
    other: Option<Address>,
) -> (GroupId, HistoryLine) {
    let amount = &mut pair.amount.posted;
    let changed = if pair::home_of(&transfer.asset) == transfer.from {
        amount.checked_add(transfer.amount)
    } else {
        amount.checked_sub(transfer.amount)
    };
    *amount = changed.expect("no more leaves than there is, and no more goes back than was held for it");
    let next = ctx.home(transfer.to, &pair::address(transfer.from, &transfer.asset));
    (next, line(transfer, HistoryKind::Departed, ctx.ledger, other))
}

fn line(transfer: &Transfer, kind: HistoryKind, here: LedgerId, other: Option<Address>) -> HistoryLine {
    HistoryLine {
        account: transfer.pair(here),
        kind,
        txid: transfer.txid,
        asset: transfer.asset,
        amount: transfer.amount,
        other,
    }
}

/// Counts what another group of this ledger sends to another ledger, in the group that has the pair
/// account: where it goes next, and a line for the pair account's history.
pub fn depart(view: &mut View<'_>, ctx: &RuleContext<'_>, transfer: &Transfer) -> (GroupId, HistoryLine) {
    let key = schema::pair(transfer.to, &transfer.asset);
    let mut pair = view.load(&key).unwrap_or_else(|| Pair::new(transfer.to, transfer.asset));
    let left = leave(ctx, &mut pair, transfer, None);
    view.store(key, &pair);
    left
}

/// Counts what came from another ledger, in the group that has the pair account. Returns the payee's
/// credit, for whichever group owns the account, and a line for the pair account's history.
///
/// # Errors
/// [`Reject`] when it would break the rule of pairs. It is then not taken; what exceeds the pair
/// account is counted there.
pub fn arrive(
    view: &mut View<'_>,
    ctx: &RuleContext<'_>,
    transfer: &Transfer,
) -> Result<(Credit, HistoryLine), Reject> {
    let home = pair::home_of(&transfer.asset);
    if transfer.amount == 0 || transfer.to != ctx.ledger || (home != transfer.from && home != transfer.to) {
        return Err(Reject::TransferLedger);
    }
    let key = schema::pair(transfer.from, &transfer.asset);
    let mut pair: Pair = view.load(&key).unwrap_or_else(|| Pair::new(transfer.from, transfer.asset));
    let amount = pair.amount.posted;
    let changed =
        if home == ctx.ledger { amount.checked_sub(transfer.amount) } else { amount.checked_add(transfer.amount) };
    let arrival = match changed {
        Some(amount) => {
            pair.amount.posted = amount;
            let Transfer { txid, move_index, account, asset, amount, .. } = *transfer;
            let credit = Credit { txid, move_index, account, asset, amount };
            Ok((credit, line(transfer, HistoryKind::Arrived, ctx.ledger, Some(account))))
        }
        None => {
            pair.refused = pair.refused.saturating_add(transfer.amount);
            Err(Reject::PairExceeded)
        }
    };
    view.store(key, &pair);
    arrival
}
