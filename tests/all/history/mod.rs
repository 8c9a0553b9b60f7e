//! What clients did and saw, and whether there is an order of it that explains everything.
//!
//! Each account is an object. Whatever a transfer does to an account happens at one moment between two
//! that are known; a read shows what had happened at one moment while it was asked. [`check`] decides,
//! for each account, whether there are such moments. It is pure and knows nothing of the ledger's code:
//! what it demands is what `docs/transactions.md` promises.
//!
//! - A **debit** that one group decides happens while its caller waits for the fate.
//! - A debit that several groups vote on is **held** while its caller waits, and posted later, but not
//!   later than its transfer is known to be applied. When the fate is NO, it may have been held for a
//!   while, or not at all, and it is released before the transfer is known to be over.
//! - A **credit** in the block that decides happens while the caller waits. Any other one comes at some
//!   moment after that, and before the transfer is known to be applied.
//! - A transfer whose fate nobody knows happened for every account, or for none.
//! - Heights are moments, too: what is known to stand in a block is seen by reads of that height and
//!   later ones, and by no others.
//!
//! Accounts are judged one by one: that a credit comes no earlier than its debit, on another account, is
//! not asked. That no balance goes below zero is not, either; audits of the chains do.

mod brute;
mod search;
mod tests;

use std::collections::BTreeMap;

pub use search::{Misfit, Why};

/// A moment by the clock of whoever records, in any unit.
pub type Time = u64;
/// An account, by its place in [`History::opening`].
pub type Account = usize;

/// What a leg does to its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Takes an amount in the block that decides.
    Debit,
    /// Holds an amount with the vote, and takes it when the outcome is applied.
    Held,
    /// Gives an amount in the block that decides.
    Credit,
    /// Gives an amount at some later moment.
    Mailed,
}

/// One account's part in a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    pub account: Account,
    pub kind: Kind,
    pub amount: u128,
    /// The block of the debit, the hold or the credit, where that is known. A hold with a block was
    /// there for certain, also when the fate is NO.
    pub at: Option<u64>,
    /// The block in which what was held is posted or released, where that is known.
    pub over: Option<u64>,
}

/// What its caller knows of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Yes,
    No,
    Unknown,
}

/// A transfer as its caller saw it.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub invoked: Time,
    pub fate: Fate,
    /// When the fate was known.
    pub decided: Option<Time>,
    /// When it was known that nothing of it is still to happen. `None`: never.
    pub applied: Option<Time>,
    pub legs: Vec<Leg>,
}

/// A linearizable read of an account.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub account: Account,
    pub invoked: Time,
    pub completed: Time,
    /// Of the account's group. 0 where it is not known.
    pub height: u64,
    pub posted: u128,
    pub held: u128,
}

/// Everything that happened to some accounts.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What each account had before, with nothing held.
    pub opening: Vec<u128>,
    pub transfers: Vec<Transfer>,
    pub reads: Vec<Read>,
}

/// Why a history cannot have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// One account's reads have no explanation, whatever became of transfers without a known fate.
    Account { account: Account, misfit: Misfit },
    /// Each account has an explanation, but they do not agree on these transfers: for one account they
    /// happened, for another they did not.
    Split { transfers: Vec<usize> },
}

/// Unknown fates that one account can have.
const UNKNOWN_MAX: usize = 16;

/// One thing that happens to an account at one moment.
#[derive(Clone, Copy, Debug)]
struct Effect {
    transfer: usize,
    from: Time,
    until: Option<Time>,
    posted: i128,
    held: i128,
    at: Option<u64>,
    /// The effect that comes before this one, of the same account.
    after: Option<usize>,
    /// Happens together with its partner or not at all: a hold and its release, when the fate is NO.
    optional: bool,
}

fn signed(amount: u128) -> i128 {
    i128::try_from(amount).expect("amounts of a test are small")
}

/// What happens to an account, when transfers without a known fate end as `fates` says.
fn effects(history: &History, account: Account, fates: &BTreeMap<usize, bool>) -> Vec<Effect> {
    let mut all: Vec<Effect> = Vec::new();
    for (transfer, told) in history.transfers.iter().enumerate() {
        for leg in told.legs.iter().filter(|leg| leg.account == account) {
            let yes = match told.fate {
                Fate::Yes => true,
                Fate::No => false,
                Fate::Unknown => fates[&transfer],
            };
            let amount = signed(leg.amount);
            let effect = Effect {
                transfer,
                from: told.invoked,
                until: told.decided,
                posted: 0,
                held: 0,
                at: leg.at,
                after: None,
                optional: false,
            };
            match (leg.kind, yes) {
                (Kind::Debit, true) => all.push(Effect { posted: -amount, ..effect }),
                (Kind::Credit, true) => all.push(Effect { posted: amount, ..effect }),
                (Kind::Mailed, true) => all.push(Effect { posted: amount, until: told.applied, ..effect }),
                (Kind::Held, yes) => {
                    let hold = all.len();
                    let until = if yes { told.decided } else { told.applied };
                    let optional = !yes && leg.at.is_none();
                    all.push(Effect { held: amount, until, optional, ..effect });
                    let posted = if yes { -amount } else { 0 };
                    let rest = Effect { posted, held: -amount, until: told.applied, at: leg.over, ..effect };
                    all.push(Effect { after: Some(hold), optional, ..rest });
                }
                (Kind::Debit | Kind::Credit | Kind::Mailed, false) => {}
            }
        }
    }
    all
}

/// Whether all that was seen can have happened.
pub fn check(history: &History) -> Result<(), Violation> {
    by_account(history, |account, fates| {
        let effects = effects(history, account, fates);
        search::explain(history.opening[account], &effects, &reads_of(history, account))
    })
}

fn reads_of(history: &History, account: Account) -> Vec<(usize, Read)> {
    history.reads.iter().copied().enumerate().filter(|(_, read)| read.account == account).collect()
}

/// Finds fates for the transfers without a known one that suit every account.
fn by_account(
    history: &History,
    explain: impl Fn(Account, &BTreeMap<usize, bool>) -> Result<(), Misfit>,
) -> Result<(), Violation> {
    // For each account with open transfers: which they are, and what they may have come to.
    let mut suits: Vec<Vec<BTreeMap<usize, bool>>> = Vec::new();
    for account in 0..history.opening.len() {
        let touches = |transfer: &Transfer| transfer.legs.iter().any(|leg| leg.account == account);
        let all = history.transfers.iter().enumerate();
        let open = all.filter(|(_, transfer)| transfer.fate == Fate::Unknown && touches(transfer));
        let open: Vec<usize> = open.map(|(number, _)| number).collect();
        assert!(open.len() <= UNKNOWN_MAX, "account {account} has {} transfers without a fate", open.len());
        let (mut possible, mut furthest) = (Vec::new(), None::<Misfit>);
        for choice in 0..1u32 << open.len() {
            let fates = open.iter().enumerate().map(|(bit, transfer)| (*transfer, choice >> bit & 1 == 1)).collect();
            match explain(account, &fates) {
                Ok(()) => possible.push(fates),
                // What explains most tells most.
                Err(misfit) if furthest.is_none_or(|other| misfit.time > other.time) => furthest = Some(misfit),
                Err(_) => {}
            }
        }
        match furthest {
            Some(misfit) if possible.is_empty() => return Err(Violation::Account { account, misfit }),
            _ => suits.push(possible),
        }
    }
    let mut agreed = BTreeMap::new();
    match agree(&suits, &mut agreed) {
        true => Ok(()),
        false => {
            let all = history.transfers.iter().enumerate();
            let open = all.filter(|(_, transfer)| transfer.fate == Fate::Unknown);
            Err(Violation::Split { transfers: open.map(|(number, _)| number).collect() })
        }
    }
}

/// Whether one choice for each account can be made so that no two contradict each other.
fn agree(suits: &[Vec<BTreeMap<usize, bool>>], agreed: &mut BTreeMap<usize, bool>) -> bool {
    let Some((first, others)) = suits.split_first() else { return true };
    first.iter().any(|choice| {
        if choice.iter().any(|(transfer, yes)| agreed.get(transfer).is_some_and(|other| other != yes)) {
            return false;
        }
        let mut more = agreed.clone();
        more.extend(choice);
        agree(others, &mut more)
    })
}
