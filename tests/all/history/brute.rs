//! The same question as [`super::check`], answered by trying every order: the judge of the search, for
//! histories that are small enough.

use std::collections::BTreeMap;

use super::{Effect, History, Misfit, Read, Time, Why, by_account, effects, reads_of, signed};

/// Whether there is an order for each account, and fates that suit all of them.
pub(super) fn possible(history: &History) -> bool {
    let explain = |account, fates: &BTreeMap<usize, bool>| {
        let all: Vec<Item> = effects(history, account, fates)
            .into_iter()
            .map(Item::Effect)
            .chain(reads_of(history, account).into_iter().map(|(_, read)| Item::Read(read)))
            .collect();
        let balance = (signed(history.opening[account]), 0);
        // Only whether there is one counts here.
        let none = Misfit { why: Why::NoSum { read: 0 }, time: 0 };
        if ordered(&all, &mut Vec::new(), balance) { Ok(()) } else { Err(none) }
    };
    by_account(history, explain).is_ok()
}

/// The most that is tried.
pub(super) const ITEMS_MAX: usize = 8;

#[derive(Clone, Copy)]
enum Item {
    Effect(Effect),
    Read(Read),
}

impl Item {
    fn begins(&self) -> Time {
        match self {
            Self::Effect(effect) => effect.from,
            Self::Read(read) => read.invoked,
        }
    }

    fn ends(&self) -> Time {
        match self {
            Self::Effect(effect) => effect.until.unwrap_or(Time::MAX),
            Self::Read(read) => read.completed,
        }
    }
}

/// Whether what is left can follow on `order`.
fn ordered(all: &[Item], order: &mut Vec<usize>, balance: (i128, i128)) -> bool {
    let left: Vec<usize> = (0..all.len()).filter(|item| !order.contains(item)).collect();
    if left.iter().all(|item| may_be_missing(all, order, *item, Time::MAX)) {
        return true;
    }
    left.iter().any(|&next| {
        let begins = all[next].begins();
        let in_time = order.iter().all(|item| all[*item].begins() <= all[next].ends());
        let nothing_owed = left
            .iter()
            .all(|&item| item == next || all[item].ends() >= begins || may_be_missing(all, order, item, begins));
        if !in_time || !nothing_owed {
            return false;
        }
        let Some(balance) = follows(all, order, next, balance) else { return false };
        order.push(next);
        let found = ordered(all, order, balance);
        order.pop();
        found
    })
}

/// Whether an item that has not happened by this time need not have.
fn may_be_missing(all: &[Item], order: &[usize], item: usize, by: Time) -> bool {
    match &all[item] {
        Item::Read(_) => false,
        Item::Effect(effect) if effect.until.is_none_or(|until| until >= by && by != Time::MAX) => true,
        // A release is owed when its hold has happened.
        Item::Effect(effect) => effect.optional && effect.after.is_none_or(|hold| !order.contains(&hold)),
    }
}

/// The balance after an item that comes next, if it can.
fn follows(all: &[Item], order: &[usize], next: usize, balance: (i128, i128)) -> Option<(i128, i128)> {
    match &all[next] {
        Item::Effect(effect) => {
            let after = effect.after.is_none_or(|before| order.contains(&before));
            let foreseen = order.iter().any(|item| match &all[*item] {
                Item::Read(read) => effect.at.is_some_and(|at| read.height >= at && read.height > 0),
                Item::Effect(_) => false,
            });
            (after && !foreseen).then_some((balance.0 + effect.posted, balance.1 + effect.held))
        }
        Item::Read(read) => {
            let mut fits = balance == (signed(read.posted), signed(read.held));
            let mut changed = false;
            for item in order.iter().rev() {
                match &all[*item] {
                    Item::Effect(effect) => {
                        changed = true;
                        fits &= read.height == 0 || effect.at.is_none_or(|at| at <= read.height);
                    }
                    Item::Read(other) if read.height > 0 && other.height > 0 => {
                        fits &= if changed { other.height < read.height } else { other.height <= read.height };
                    }
                    Item::Read(_) => {}
                }
            }
            // What stands in this block or below has happened.
            let missing = |item: &usize| match &all[*item] {
                Item::Effect(effect) => !effect.optional && effect.at.is_some_and(|at| at <= read.height),
                Item::Read(_) => false,
            };
            fits &= (0..all.len()).filter(|item| !order.contains(item)).all(|item| !missing(&item));
            fits.then_some(balance)
        }
    }
}
