//! Balances by account, and the state that sequential execution leads to.
//!
//! This is the expectation a cluster is held to; it shares no code with the
//! ledger on purpose.

use ledger::limits::SUPPLY_MAX;

use super::{AccountIx, History};

/// The balances add up to more than a supply may be, `SUPPLY_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the balances add up to more than {SUPPLY_MAX}, the largest supply of an asset")]
pub struct SupplyTooLarge;

/// One balance an account. The sum is a supply that an asset may have, hence so does everything
/// that payments between these accounts can make of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balances {
    by_account: Vec<u128>,
    total: u128,
}

impl Balances {
    /// Balances by [`AccountIx`]; accounts past the end have zero.
    ///
    /// # Errors
    /// When the sum does not fit.
    pub fn new(by_account: Vec<u128>) -> Result<Self, SupplyTooLarge> {
        let total = by_account.iter().try_fold(0u128, |sum, balance| sum.checked_add(*balance));
        let total = total.filter(|total| *total <= SUPPLY_MAX).ok_or(SupplyTooLarge)?;
        Ok(Self { by_account, total })
    }

    /// The balance of one account.
    #[must_use]
    pub fn get(&self, account: AccountIx) -> u128 {
        self.by_account.get(account.at()).copied().unwrap_or(0)
    }

    /// The sum of all balances.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.total
    }

    /// Moves `amount`; false, and nothing changed, when the payer lacks it.
    fn pay(&mut self, from: AccountIx, to: AccountIx, amount: u128) -> bool {
        let Some(left) = self.get(from).checked_sub(amount) else {
            return false;
        };
        let needed = from.at().max(to.at()) + 1;
        if self.by_account.len() < needed {
            self.by_account.resize(needed, 0);
        }
        self.by_account[from.at()] = left;
        // No overflow: the amount was part of `total` a line ago.
        self.by_account[to.at()] += amount;
        true
    }
}

/// What sequential execution of a history gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The final balances.
    pub balances: Balances,
    /// Indices of the transfers that would overdraw and therefore changed
    /// nothing, ascending. Empty when the opening balances suffice.
    pub rejected: Vec<u32>,
}

/// Executes the transfers one after the other in memory. A payment its payer
/// cannot cover at its turn is rejected and changes nothing.
#[must_use]
pub fn execute(history: &History, opening: &Balances) -> Execution {
    let mut balances = opening.clone();
    let mut rejected = Vec::new();
    for (ix, transfer) in (0u32..).zip(&history.transfers) {
        if !balances.pay(transfer.from, transfer.to, transfer.amount) {
            rejected.push(ix);
        }
    }
    Execution { balances, rejected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Transfer;

    fn transfer(from: u32, to: u32, amount: u128) -> Transfer {
        Transfer { line: 1, from: AccountIx(from), to: AccountIx(to), amount }
    }

    #[test]
    fn the_largest_supply_is_accepted_and_one_more_is_not() {
        assert_eq!(Balances::new(vec![SUPPLY_MAX, 0]).unwrap().total(), SUPPLY_MAX);
        assert_eq!(Balances::new(vec![SUPPLY_MAX, 1]), Err(SupplyTooLarge));
        assert_eq!(Balances::new(vec![u128::MAX, 1]), Err(SupplyTooLarge));
    }

    #[test]
    fn overdrafts_change_nothing_and_payments_to_oneself_need_cover() {
        let history = History {
            transfers: vec![
                transfer(0, 0, 10),
                transfer(0, 0, 11),
                transfer(0, 5, 4),
                transfer(0, 5, 7),
                transfer(5, 0, 4),
                transfer(9, 0, 1),
            ],
            ..History::default()
        };
        let end = execute(&history, &Balances::new(vec![10]).unwrap());
        assert_eq!(end.rejected, [1, 3, 5]);
        assert_eq!(end.balances.get(AccountIx(0)), 10);
        assert_eq!(end.balances.get(AccountIx(5)), 0);
        assert_eq!(end.balances.total(), 10);
    }

    #[test]
    fn the_whole_supply_can_move() {
        let history = History { transfers: vec![transfer(0, 1, SUPPLY_MAX)], ..History::default() };
        let end = execute(&history, &Balances::new(vec![SUPPLY_MAX]).unwrap());
        assert_eq!(end.balances.get(AccountIx(1)), SUPPLY_MAX);
        assert!(end.rejected.is_empty());
    }
}
