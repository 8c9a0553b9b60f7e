//! What accounts may do: votes on the moves of a transaction, their outcome, and credits that come
//! from elsewhere.
//!
//! A group votes on the legs whose accounts it owns ([`reserve`]), and later posts or releases what
//! it reserved. A transaction whose voters all lie in one group does both at once ([`execute`]).
//! Nothing is written until everything has been checked, so a refusal leaves no trace in the view.
//! Credits to accounts of other groups are returned, not sent: `cross-shard` puts them into mail,
//! and decides what to do with a vote.

mod entry;
mod lock;
mod record;
mod transfer;
mod work;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::account::AccountRecord;
use crate::ids::{Address, AssetId, GroupId, GroupKind, LedgerId, TimeMs, TxId};
use crate::layout::Layout;
use crate::limits::{RECEIPT_KEPT_MS, VALID_FOR_MS_MAX, VOTER_GROUPS_MAX};
use crate::pair::Transfer;
use crate::reject::Reject;
use crate::schema;
use crate::tx::{Move, ParsedTx, Slot, TxBody, Voter};
use crate::view::View;

use entry::Entry;
use work::Work;

/// What execution goes by, besides the state.
#[derive(Clone, Copy)]
pub struct RuleContext<'a> {
    /// The executing group.
    pub group: GroupId,
    /// The account space it serves.
    pub ledger: LedgerId,
    /// Who owns which account of the main ledger; `None` where one group owns all of it.
    pub layout: Option<&'a Layout>,
    /// Time of the block.
    pub time_ms: TimeMs,
    /// What has been burned of an asset in this block so far. A mint has to leave room for it, since
    /// the header's value flow adds up all mints of a block before it subtracts burns.
    pub burned: &'a dyn Fn(&AssetId) -> u128,
    /// In a ledger that takes permitted assets only: the key of the leaf that has to be there before
    /// one of an asset's payments is voted for. `None` where every asset circulates.
    pub permission: Option<fn(&AssetId) -> Vec<u8>>,
}

impl RuleContext<'_> {
    /// The group that owns an account of a ledger.
    #[must_use]
    pub fn home(&self, ledger: LedgerId, account: &Address) -> GroupId {
        home(self.layout, self.group, ledger, account)
    }
}

fn home(layout: Option<&Layout>, here: GroupId, ledger: LedgerId, account: &Address) -> GroupId {
    if ledger == LedgerId::MAIN {
        layout.map_or(here, |layout| layout.locate(account))
    } else {
        // Ledgers other than the main one are a single group each and carry its number.
        GroupId(ledger.0)
    }
}

/// Whether the signatures of a transaction were verified before it was sequenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// At ingest; execution only compares keys.
    Checked,
    /// Not by anybody this group answers for: execution verifies those of its own accounts.
    Unchecked,
}

/// One leg of a transaction that this group votes on.
#[derive(Clone, Copy, Debug)]
pub struct OwnLeg<'a> {
    /// Index of the slot.
    pub slot: u16,
    /// Number of the leg: `2 × slot` for the move's first account, `2 × slot + 1` for its second; of a hidden slot
    /// `2 × slot` for both, since it is one leg whatever is behind it.
    pub leg: u16,
    /// Account space.
    pub ledger: LedgerId,
    /// The move.
    pub mv: &'a Move,
    /// The account of this group.
    pub voter: Voter,
}

impl OwnLeg<'_> {
    /// Whether whoever sends the transaction shows, by a signature or a secret, to be a party to this
    /// leg.
    #[must_use]
    pub fn shows_party(&self) -> bool {
        self.voter.authorises || self.mv.opens_lock()
    }
}

/// The groups that vote on a transaction, sorted. A hidden slot that names a retired shard is voted on by its heir.
///
/// # Errors
/// [`Reject::TooManyVoters`], or [`Reject::MultiVoter`] for an asset's issue among others.
pub fn voter_groups(layout: &Layout, body: &TxBody) -> Result<Vec<GroupId>, Reject> {
    // With a layout, what lies here does not matter.
    few(groups_of(Some(layout), GroupId::BEACON, body)?)
}

/// As [`voter_groups`], however many they are: a transaction that was begun within the limit comes to have more voters
/// when shards are cut.
///
/// # Errors
/// [`Reject::MultiVoter`] for an asset's issue among others, [`Reject::UnknownGroup`] for a number that no group can have.
pub fn all_voter_groups(layout: &Layout, body: &TxBody) -> Result<Vec<GroupId>, Reject> {
    groups_of(Some(layout), GroupId::BEACON, body)
}

fn few(groups: Vec<GroupId>) -> Result<Vec<GroupId>, Reject> {
    if groups.len() > VOTER_GROUPS_MAX { Err(Reject::TooManyVoters) } else { Ok(groups) }
}

fn heir(layout: Option<&Layout>, group: GroupId) -> GroupId {
    layout.map_or(group, |layout| layout.heir(group))
}

fn groups_of(layout: Option<&Layout>, here: GroupId, body: &TxBody) -> Result<Vec<GroupId>, Reject> {
    let mut groups = Vec::new();
    for slot in &body.slots {
        match slot {
            Slot::Clear { ledger, mv } => {
                groups.extend(mv.voters().map(|voter| home(layout, here, *ledger, &voter.account)));
            }
            Slot::Hidden { group, .. } => groups.push(heir(layout, *group)),
        }
    }
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > 1 {
        for group in &groups {
            match group.kind() {
                Some(GroupKind::Shard | GroupKind::Channel) => {}
                Some(GroupKind::Beacon) => return Err(Reject::MultiVoter),
                None => return Err(Reject::UnknownGroup),
            }
        }
    }
    Ok(groups)
}

impl RuleContext<'_> {
    /// The groups that vote on a transaction, by what this group knows, sorted.
    ///
    /// # Errors
    /// As [`voter_groups`].
    pub fn voter_groups(&self, body: &TxBody) -> Result<Vec<GroupId>, Reject> {
        few(self.all_voters(body)?)
    }

    /// As [`RuleContext::voter_groups`], however many they are: when shards are cut, a transaction that was begun
    /// within the limit comes to have more voters than one may begin with.
    ///
    /// # Errors
    /// [`Reject::MultiVoter`] for an asset's issue among others, [`Reject::UnknownGroup`] for a number that no group
    /// can have.
    pub fn all_voters(&self, body: &TxBody) -> Result<Vec<GroupId>, Reject> {
        groups_of(self.layout, self.group, body)
    }

    /// The legs that this group votes on, in move order.
    ///
    /// # Errors
    /// [`Reject::HiddenSlot`] while an opening for this group is missing, [`Reject::WrongShard`]
    /// when a hidden slot is this group's to vote on and its move needs another one.
    pub fn own_legs<'t>(&self, tx: &'t ParsedTx) -> Result<Vec<OwnLeg<'t>>, Reject> {
        self.own_legs_among(tx, |_| true)
    }

    /// As [`RuleContext::own_legs`], of the legs for which `wanted` holds; of the others nothing is looked at.
    ///
    /// # Errors
    /// As [`RuleContext::own_legs`].
    pub fn own_legs_among<'t>(
        &self,
        tx: &'t ParsedTx,
        wanted: impl Fn(u16) -> bool,
    ) -> Result<Vec<OwnLeg<'t>>, Reject> {
        for (slot, index) in tx.body.slots.iter().zip(0u16..) {
            if let Slot::Hidden { group, .. } = slot
                && wanted(2 * index)
                && heir(self.layout, *group) == self.group
                && tx.openings.binary_search_by_key(&index, |opening| opening.slot).is_err()
            {
                return Err(Reject::HiddenSlot);
            }
        }
        let mut legs = Vec::new();
        for leg in visible(tx).filter(|leg| wanted(leg.leg)) {
            let hidden_for = match &tx.body.slots[usize::from(leg.slot)] {
                Slot::Hidden { group, .. } => Some(heir(self.layout, *group)),
                Slot::Clear { .. } => None,
            };
            let owner = self.home(leg.ledger, &leg.voter.account);
            if hidden_for.is_some_and(|group| group != owner) {
                return Err(Reject::WrongShard);
            }
            if owner == self.group {
                legs.push(leg);
            }
        }
        Ok(legs)
    }

    /// The legs whose accounts this group owns, as far as they can be seen, in move order, whoever votes on them.
    pub fn legs_here<'t>(&self, tx: &'t ParsedTx) -> impl Iterator<Item = OwnLeg<'t>> {
        visible(tx).filter(move |leg| self.home(leg.ledger, &leg.voter.account) == self.group)
    }
}

/// All legs that can be seen, in move order.
fn visible(tx: &ParsedTx) -> impl Iterator<Item = OwnLeg<'_>> {
    tx.visible().flat_map(move |(slot, ledger, mv)| {
        let hidden = matches!(tx.body.slots[usize::from(slot)], Slot::Hidden { .. });
        mv.voters().zip(0u16..).map(move |(voter, second)| {
            let leg = 2 * slot + if hidden { 0 } else { second };
            OwnLeg { slot, leg, ledger, mv, voter }
        })
    })
}

/// The accounts that a list of legs names, each once, in order of first use.
#[must_use]
pub fn voters_of(legs: &[OwnLeg<'_>]) -> Vec<Address> {
    let mut accounts: Vec<Address> = Vec::with_capacity(legs.len());
    for leg in legs {
        if !accounts.contains(&leg.voter.account) {
            accounts.push(leg.voter.account);
        }
    }
    accounts
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
    /// Synchronous credits that accounts of other groups get in the same transaction.
    pub exported: Vec<(GroupId, AssetId, u128)>,
    /// Synchronous credits that accounts here got from debits in other groups.
    pub imported: Vec<(GroupId, AssetId, u128)>,
    /// Value for other ledgers, and the group that it goes to next, in move order.
    pub transfers: Vec<(GroupId, Transfer)>,
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
    /// The account was paid while it was frozen: the amount waits in its suspense.
    Suspended,
    /// An amount went from suspense into the balance.
    Released,
    /// An amount went from suspense to another account.
    Returned,
    /// Debits were frozen, of one asset or, where none is named, of all.
    Frozen,
    /// Debits were thawed.
    Thawed,
    /// The owner changed data or limits of the account.
    Written,
    /// An amount was set aside in a hash-lock.
    Locked,
    /// A hash-lock was claimed: the account paid.
    Claimed,
    /// A hash-lock was refunded: the amount is the account's own again.
    Refunded,
    /// The account recorded a hash.
    Recorded,
    /// The account granted access to a record.
    Granted,
    /// The account revoked access to a record.
    Revoked,
    /// An amount left for another ledger: told to the payer, and to the pair account.
    Departed,
    /// An amount came from another ledger: told to the pair account; the payee is told as of any
    /// credit.
    Arrived,
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
    let groups = ctx.voter_groups(&tx.body)?;
    if groups != [ctx.group] {
        return Err(if groups.contains(&ctx.group) { Reject::MultiVoter } else { Reject::WrongShard });
    }
    let legs = ctx.own_legs(tx)?;
    let mut work = Work::new(view, tx.txid);
    vote_all(&mut work, ctx, tx, &legs, Signatures::Checked)?;
    Ok(post_all(work, ctx, &legs))
}

fn vote_all(
    work: &mut Work<'_, '_>,
    ctx: &RuleContext<'_>,
    tx: &ParsedTx,
    legs: &[OwnLeg<'_>],
    signatures: Signatures,
) -> Result<(), Reject> {
    // All authorisations come first: a refusal after them leaves a trace, and nobody but the
    // accounts that authorise may cause one.
    for leg in legs.iter().filter(|leg| leg.voter.authorises) {
        work.authorise(&leg.voter.account, &tx.witnesses, signatures)?;
    }
    legs.iter().try_for_each(|leg| work.open(leg.mv))?;
    legs.iter().try_for_each(|leg| work.vote(ctx, leg))
}

fn post_all(mut work: Work<'_, '_>, ctx: &RuleContext<'_>, legs: &[OwnLeg<'_>]) -> Effects {
    for leg in legs {
        work.post(ctx, leg);
    }
    for account in voters_of(legs) {
        work.drop_claims(&account);
    }
    work.store()
}

/// Votes on the legs of this group and, on a YES, reserves what they need until [`post`] or
/// [`release`].
///
/// # Errors
/// [`Reject`] is the reason for a NO; the view is then unchanged.
pub fn reserve(
    view: &mut View<'_>,
    ctx: &RuleContext<'_>,
    tx: &ParsedTx,
    legs: &[OwnLeg<'_>],
    signatures: Signatures,
) -> Result<(), Reject> {
    reserve_behind(view, ctx, tx, (&[], legs), signatures)
}

/// As [`reserve`], behind votes on other legs of the same transaction, for which these accounts have reserved already: what
/// an account lets one transaction take, it lets all of them take together.
///
/// # Errors
/// As [`reserve`].
pub fn reserve_behind(
    view: &mut View<'_>,
    ctx: &RuleContext<'_>,
    tx: &ParsedTx,
    (earlier, legs): (&[OwnLeg<'_>], &[OwnLeg<'_>]),
    signatures: Signatures,
) -> Result<(), Reject> {
    let mut work = Work::new(view, tx.txid);
    earlier.iter().for_each(|leg| work.recall(leg));
    vote_all(&mut work, ctx, tx, legs, signatures)?;
    work.store();
    Ok(())
}

/// Posts what [`reserve`] reserved.
pub fn post(view: &mut View<'_>, ctx: &RuleContext<'_>, txid: TxId, legs: &[OwnLeg<'_>]) -> Effects {
    post_all(Work::new(view, txid), ctx, legs)
}

/// Sets free what [`reserve`] reserved.
pub fn release(view: &mut View<'_>, txid: TxId, legs: &[OwnLeg<'_>]) {
    let mut work = Work::new(view, txid);
    for leg in legs {
        work.release(leg);
    }
    for account in voters_of(legs) {
        work.drop_claims(&account);
    }
    work.store();
}

/// Applies a credit that came by certified mail. Infallible: an unknown account is created, and a
/// frozen one gets it into its suspense.
pub fn apply_credit(view: &mut View<'_>, credit: &Credit) -> HistoryLine {
    let mut entry = Entry::load(view, credit.account);
    let suspended = entry.credit(view, credit.asset, credit.amount);
    entry.store(view);
    HistoryLine {
        account: credit.account,
        kind: if suspended { HistoryKind::Suspended } else { HistoryKind::Received },
        txid: credit.txid,
        asset: credit.asset,
        amount: credit.amount,
        other: None,
    }
}

/// The group that value on its way to another ledger goes to, seen from a group of that ledger or of
/// the one it came from: where the layout puts the pair account.
#[must_use]
pub fn next_of(ctx: &RuleContext<'_>, transfer: &Transfer) -> GroupId {
    ctx.home(ctx.ledger, &transfer.pair(ctx.ledger))
}

pub use transfer::{arrive, depart};

/// Reads an account with its inline balances. Those beyond
/// [`crate::limits::INLINE_BALANCES_MAX`] have entries of their own under
/// [`schema::extra_balance`].
pub fn load_account(view: &mut View<'_>, address: &Address) -> Option<AccountRecord> {
    view.load(&schema::account(address))
}
