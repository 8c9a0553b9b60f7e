//! What accounts may do: the execution of one transaction whose voters all lie in this group, and
//! of credits that come from elsewhere.
//!
//! Nothing is written until everything has been checked, so a refusal leaves no trace in the view.
//! Credits to accounts of other groups are returned, not sent: `cross-shard` puts them into mail.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::account::{AccountRecord, Balance, FLAG_FROZEN};
use crate::asset::AssetDef;
use crate::auth::Witness;
use crate::ids::{Address, AssetId, GroupId, LedgerId, TimeMs, TxId};
use crate::layout::Layout;
use crate::limits::{INLINE_BALANCES_MAX, RECEIPT_KEPT_MS, VALID_FOR_MS_MAX};
use crate::reject::Reject;
use crate::schema;
use crate::tx::{Leg, Move, ParsedTx, Slot};
use crate::view::View;

/// What execution goes by, besides the state.
#[derive(Clone, Copy)]
pub struct RuleContext<'a> {
    /// The executing group.
    pub group: GroupId,
    /// The account space it serves.
    pub ledger: LedgerId,
    /// Who owns which account; `None` for a channel, which owns all of its own.
    pub layout: Option<&'a Layout>,
    /// Time of the block.
    pub time_ms: TimeMs,
}

impl RuleContext<'_> {
    fn locate(&self, account: &Address) -> GroupId {
        self.layout.map_or(self.group, |layout| layout.locate(account))
    }
}

/// A credit that follows a committed debit. Keyed by `(txid, move)`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Credit {
    /// The transaction that debited.
    pub txid: TxId,
    /// Index of the move in it.
    pub move_index: u16,
    /// Who receives.
    pub account: Address,
    /// What.
    pub asset: AssetId,
    /// How much.
    pub amount: u128,
}

/// What a committed transaction did beyond the accounts of this group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Credits for other groups, in move order.
    pub credits: Vec<(GroupId, Credit)>,
    /// Supply created.
    pub minted: Vec<(AssetId, u128)>,
    /// Supply destroyed.
    pub burned: Vec<(AssetId, u128)>,
    /// Lines for the history of this group's accounts, in move order.
    pub lines: Vec<HistoryLine>,
}

/// How a move changed an account, as its history tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum HistoryKind {
    /// The account paid.
    Sent,
    /// The account was paid.
    Received,
    /// The account, an issuer, created supply.
    Minted,
    /// The account, an issuer, destroyed supply.
    Burned,
    /// The account's authorisation was replaced.
    Rotated,
}

/// One line of an account's history.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HistoryLine {
    /// Whose history.
    pub account: Address,
    /// What happened.
    pub kind: HistoryKind,
    /// By which transaction.
    pub txid: TxId,
    /// The asset; all zero for a rotation.
    pub asset: AssetId,
    /// The amount; zero for a rotation.
    pub amount: u128,
    /// The account on the other side, where this group knows it.
    pub other: Option<Address>,
}

/// Whether the block's time allows the transaction at all.
///
/// # Errors
/// [`Reject::Expired`] or [`Reject::OutcomePruned`] past its deadline, [`Reject::ValidTooLong`]
/// when the deadline is too far ahead.
pub fn check_time(tx: &ParsedTx, now: TimeMs) -> Result<(), Reject> {
    let until = tx.body.valid_until_ms.0;
    if now.0 > until.saturating_add(RECEIPT_KEPT_MS) {
        Err(Reject::OutcomePruned)
    } else if now.0 > until {
        Err(Reject::Expired)
    } else if until > now.0.saturating_add(VALID_FOR_MS_MAX) {
        Err(Reject::ValidTooLong)
    } else {
        Ok(())
    }
}

/// Executes a transaction of one voter group. Signatures have been verified before.
///
/// # Errors
/// [`Reject`] when it is refused; the view is then unchanged.
pub fn execute(view: &mut View<'_>, ctx: &RuleContext<'_>, tx: &ParsedTx) -> Result<Effects, Reject> {
    check_time(tx, ctx.time_ms)?;
    check_voters(ctx, tx)?;
    let mut work = Work { view, accounts: Vec::new(), supplies: Vec::new(), effects: Effects::default() };
    // All authorisations come first: a refusal after them leaves a receipt, and nobody but the
    // debited accounts may cause one.
    for (_, mv) in tx.body.moves() {
        work.authorise(&mv.voter(), &tx.witnesses)?;
    }
    for (index, (_, mv)) in tx.body.moves().enumerate() {
        let index = u16::try_from(index).expect("moves are limited to 64");
        work.apply_move(ctx, tx.txid, index, mv)?;
    }
    Ok(work.commit())
}

/// Whether all voters are here, in the clear.
fn check_voters(ctx: &RuleContext<'_>, tx: &ParsedTx) -> Result<(), Reject> {
    let (mut here, mut elsewhere) = (0, 0);
    for slot in &tx.body.slots {
        match slot {
            Slot::Hidden { .. } => return Err(Reject::HiddenSlot),
            Slot::Clear { ledger, .. } if *ledger != ctx.ledger => elsewhere += 1,
            Slot::Clear { mv, .. } => {
                for leg in mv.legs() {
                    if let Leg::Voter(account) = leg {
                        if ctx.locate(&account) == ctx.group { here += 1 } else { elsewhere += 1 }
                    }
                }
            }
        }
    }
    match (here, elsewhere) {
        (_, 0) => Ok(()),
        (0, _) => Err(Reject::WrongShard),
        _ => Err(Reject::MultiVoter),
    }
}

/// Applies a credit that came by certified mail. Infallible: an unknown account is created.
pub fn apply_credit(view: &mut View<'_>, credit: &Credit) -> HistoryLine {
    let record = view.load(&schema::account(&credit.account)).unwrap_or_default();
    let mut entry = Entry { address: credit.account, dirty: false, extra: Vec::new(), record };
    entry.credit(view, credit.asset, credit.amount);
    entry.store(view);
    HistoryLine {
        account: credit.account,
        kind: HistoryKind::Received,
        txid: credit.txid,
        asset: credit.asset,
        amount: credit.amount,
        other: None,
    }
}

/// Reads an account with its inline balances. Those beyond [`INLINE_BALANCES_MAX`] have entries of
/// their own under [`schema::extra_balance`].
pub fn load_account(view: &mut View<'_>, address: &Address) -> Option<AccountRecord> {
    view.load(&schema::account(address))
}

/// One account while a transaction works on it.
struct Entry {
    address: Address,
    record: AccountRecord,
    extra: Vec<(AssetId, Balance)>,
    dirty: bool,
}

impl Entry {
    fn balance(&mut self, view: &mut View<'_>, asset: AssetId) -> Balance {
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

    fn credit(&mut self, view: &mut View<'_>, asset: AssetId, amount: u128) {
        let mut balance = self.balance(view, asset);
        balance.posted = balance
            .posted
            .checked_add(amount)
            .expect("supply is limited to 128 bits when it is minted, so no balance exceeds them");
        self.set_balance(asset, balance);
    }

    fn debit(&mut self, view: &mut View<'_>, asset: AssetId, amount: u128) -> Result<(), Reject> {
        let mut balance = self.balance(view, asset);
        if balance.available() < amount {
            return Err(Reject::InsufficientFunds);
        }
        balance.posted -= amount;
        self.set_balance(asset, balance);
        Ok(())
    }

    fn store(self, view: &mut View<'_>) {
        view.store(schema::account(&self.address), &self.record);
        for (asset, balance) in self.extra {
            view.store(schema::extra_balance(&self.address, &asset), &balance);
        }
    }
}

/// The uncommitted work of one transaction.
struct Work<'v, 'b> {
    view: &'v mut View<'b>,
    accounts: Vec<Entry>,
    supplies: Vec<(Address, AssetId, u128)>,
    effects: Effects,
}

impl Work<'_, '_> {
    fn entry(&mut self, address: &Address) -> usize {
        if let Some(at) = self.accounts.iter().position(|entry| entry.address == *address) {
            return at;
        }
        let record = self.view.load(&schema::account(address)).unwrap_or_default();
        self.accounts.push(Entry { address: *address, record, extra: Vec::new(), dirty: false });
        self.accounts.len() - 1
    }

    /// The account must have authorised: by the authorisation it has, or, before its first spend,
    /// by the one its address commits to, which is then recorded.
    fn authorise(&mut self, address: &Address, witnesses: &[Witness]) -> Result<(), Reject> {
        let at = self.entry(address);
        let entry = &mut self.accounts[at];
        let found = match &entry.record.auth {
            Some(auth) => witnesses.iter().any(|witness| witness.auth == *auth),
            None => match witnesses.iter().find(|witness| witness.auth.address() == *address) {
                Some(witness) => {
                    entry.record.auth = Some(witness.auth.clone());
                    entry.dirty = true;
                    true
                }
                None => false,
            },
        };
        if !found {
            return Err(Reject::NotAuthorised);
        }
        if entry.record.flags & FLAG_FROZEN != 0 {
            return Err(Reject::Frozen);
        }
        Ok(())
    }

    fn apply_move(&mut self, ctx: &RuleContext<'_>, txid: TxId, index: u16, mv: &Move) -> Result<(), Reject> {
        match mv {
            Move::Pay { from, to, asset, amount } => {
                self.check_not_frozen(asset)?;
                let at = self.entry(from);
                self.accounts[at].debit(self.view, *asset, *amount)?;
                self.line(*from, HistoryKind::Sent, txid, *asset, *amount, Some(*to));
                self.give(ctx, txid, index, (from, to), *asset, *amount);
                Ok(())
            }
            Move::Mint { issuer, to, asset, amount } => {
                self.issued_by(asset, issuer)?;
                let supply = self.supply(issuer, asset);
                let raised = supply.checked_add(*amount).ok_or(Reject::Overflow)?;
                self.set_supply(issuer, asset, raised);
                self.effects.minted.push((*asset, *amount));
                self.line(*issuer, HistoryKind::Minted, txid, *asset, *amount, Some(*to));
                self.give(ctx, txid, index, (issuer, to), *asset, *amount);
                Ok(())
            }
            Move::Burn { issuer, asset, amount } => {
                self.issued_by(asset, issuer)?;
                let at = self.entry(issuer);
                self.accounts[at].debit(self.view, *asset, *amount)?;
                let supply = self.supply(issuer, asset);
                self.set_supply(issuer, asset, supply - *amount);
                self.effects.burned.push((*asset, *amount));
                self.line(*issuer, HistoryKind::Burned, txid, *asset, *amount, None);
                Ok(())
            }
            Move::Rotate { account, auth } => {
                let at = self.entry(account);
                let entry = &mut self.accounts[at];
                entry.record.auth = Some(auth.clone());
                entry.record.sequence += 1;
                entry.dirty = true;
                self.line(*account, HistoryKind::Rotated, txid, AssetId::default(), 0, None);
                Ok(())
            }
            Move::Issue(_) => Err(Reject::WrongShard),
        }
    }

    fn check_not_frozen(&mut self, asset: &AssetId) -> Result<(), Reject> {
        // An asset whose definition has not arrived yet can still be spent: a balance of it exists
        // only because a certified credit brought it.
        match self.view.load::<AssetDef>(&schema::asset(asset)) {
            Some(def) if def.frozen => Err(Reject::Frozen),
            _ => Ok(()),
        }
    }

    fn issued_by(&mut self, asset: &AssetId, issuer: &Address) -> Result<(), Reject> {
        let def: AssetDef = self.view.load(&schema::asset(asset)).ok_or(Reject::UnknownAsset)?;
        if def.spec.issuer != *issuer {
            return Err(Reject::NotIssuer);
        }
        if def.frozen { Err(Reject::Frozen) } else { Ok(()) }
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

    fn line(
        &mut self,
        account: Address,
        kind: HistoryKind,
        txid: TxId,
        asset: AssetId,
        amount: u128,
        other: Option<Address>,
    ) {
        self.effects.lines.push(HistoryLine { account, kind, txid, asset, amount, other });
    }

    fn give(
        &mut self,
        ctx: &RuleContext<'_>,
        txid: TxId,
        move_index: u16,
        (from, to): (&Address, &Address),
        asset: AssetId,
        amount: u128,
    ) {
        let owner = ctx.locate(to);
        if owner == ctx.group {
            let at = self.entry(to);
            self.accounts[at].credit(self.view, asset, amount);
            self.line(*to, HistoryKind::Received, txid, asset, amount, Some(*from));
        } else {
            let credit = Credit { txid, move_index, account: *to, asset, amount };
            self.effects.credits.push((owner, credit));
        }
    }

    fn commit(self) -> Effects {
        for entry in self.accounts {
            if entry.dirty {
                entry.store(self.view);
            }
        }
        for (issuer, asset, supply) in self.supplies {
            self.view.store(schema::supply(&issuer, &asset), &supply);
        }
        self.effects
    }
}
