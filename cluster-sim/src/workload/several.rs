//! Transactions that several groups vote on, as far as there are several.

use std::collections::BTreeMap;

use ledger::auth::Authorisation;
use ledger::ids::GroupId;
use ledger::tx::{AccountWrite, Condition, Move};
use rand::Rng;
use rand::seq::SliceRandom;

use super::maker::{ASSETS, HOT_PAYEE, HOT_PAYER, Maker, Terms};
use super::{Handing, Purpose};

/// Groups that vote on one transaction at most.
const GROUPS_MAX: usize = 8;

impl Maker<'_> {
    /// One of them, or a chain of them.
    pub(super) fn several(&mut self, at_ms: u64) {
        let moves = match self.rng.random_range(0..100) {
            0..=24 => self.payers(),
            25..=34 => self.swap(),
            35..=49 => self.synchronous(),
            50..=64 => self.checked(),
            65..=74 => self.written(),
            75..=82 => return self.frozen_payee(at_ms),
            83..=87 => return self.frozen_owner(at_ms),
            88..=92 => self.supply(),
            93..=95 => self.rotated(),
            _ => self.all_to_one(),
        };
        self.vary(moves, at_ms);
    }

    /// An account of each of two to `most` groups, in any order; one of them may be the hot payer.
    fn one_in_each(&mut self, most: usize) -> Vec<usize> {
        let mut by_group: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        for (index, account) in self.accounts.iter().enumerate() {
            by_group.entry(account.home).or_default().push(index);
        }
        let mut chosen: Vec<usize> = by_group.into_values().map(|members| self.pick(&members)).collect();
        if self.chance(30) {
            let home = self.accounts[HOT_PAYER].home;
            chosen.retain(|account| self.accounts[*account].home != home);
            chosen.push(HOT_PAYER);
        }
        chosen.shuffle(self.rng);
        // Two voters are the usual case.
        let wanted = if self.chance(50) { 2 } else { self.rng.random_range(2..=most.clamp(2, GROUPS_MAX)) };
        chosen.truncate(wanted);
        if chosen.len() == 1 {
            chosen.push(self.any_account());
        }
        chosen
    }

    fn small(&mut self) -> u128 {
        self.rng.random_range(1..100)
    }

    fn payers(&mut self) -> Vec<Move> {
        let payers = self.one_in_each(GROUPS_MAX);
        payers
            .into_iter()
            .map(|payer| {
                let (payee, amount) = (self.any_account(), self.small());
                self.pay(payer, payee, amount)
            })
            .collect()
    }

    fn all_to_one(&mut self) -> Vec<Move> {
        let payers = self.one_in_each(4);
        payers
            .into_iter()
            .map(|payer| {
                let amount = self.small();
                self.pay(payer, HOT_PAYEE, amount)
            })
            .collect()
    }

    fn swap(&mut self) -> Vec<Move> {
        let pair = self.one_in_each(2);
        let (one, other) = (self.address(pair[0]), self.address(pair[1]));
        let (amount, price) = (self.small(), self.small());
        vec![
            Move::Pay { from: one, to: other, asset: self.asset(0), amount },
            Move::Pay { from: other, to: one, asset: self.asset(1), amount: price },
        ]
    }

    fn synchronous(&mut self) -> Vec<Move> {
        let parties = self.one_in_each(4);
        let (from, to, amount, asset) =
            (self.address(parties[0]), self.address(parties[1]), self.small(), self.some_asset());
        let mut moves = vec![Move::PaySync { from, to, asset, amount }];
        for payer in &parties[2..] {
            let (payee, amount) = (self.any_account(), self.small());
            moves.push(self.pay(*payer, payee, amount));
        }
        moves
    }

    fn condition(&mut self) -> Condition {
        let asset = self.some_asset();
        match self.rng.random_range(0..8) {
            0 | 1 => Condition::AtLeast { asset, amount: self.rng.random_range(1..3_000) },
            2 | 3 => Condition::AtMost { asset, amount: self.rng.random_range(500..8_000) },
            4 => Condition::Version(self.rng.random_range(0..4)),
            5 => Condition::Version(0),
            6 => Condition::NotFrozen(asset),
            _ => Condition::Consent,
        }
    }

    fn checked(&mut self) -> Vec<Move> {
        let parties = self.one_in_each(4);
        let (payee, amount) = (self.any_account(), self.small());
        let mut moves = vec![self.pay(parties[0], payee, amount)];
        for party in &parties[1..] {
            let condition = self.condition();
            moves.push(Move::Check { account: self.address(*party), condition });
        }
        if self.chance(20) {
            let condition = self.condition();
            moves.push(Move::Check { account: self.address(parties[0]), condition });
        }
        moves
    }

    /// Writes of a few keys, so that many of them conflict.
    fn written(&mut self) -> Vec<Move> {
        let parties = self.one_in_each(4);
        let key = vec![b'a' + self.rng.random_range(0..2u8)];
        let mut moves: Vec<Move> = parties
            .iter()
            .map(|party| {
                let value = if self.chance(85) { Some(self.rng.random::<[u8; 4]>().to_vec()) } else { None };
                let write = AccountWrite::Data { key: key.clone(), value };
                Move::Write { account: self.address(*party), write }
            })
            .collect();
        if self.chance(30) {
            let per_tx = if self.chance(70) { Some(self.rng.random_range(10..300)) } else { None };
            let write = AccountWrite::Limit { asset: self.asset(0), per_tx };
            moves.push(Move::Write { account: self.address(parties[0]), write });
        }
        if self.chance(30) {
            let condition = Condition::Version(self.rng.random_range(0..3));
            moves.push(Move::Check { account: self.address(parties[1]), condition });
        }
        moves
    }

    /// Supply is created or destroyed together with something elsewhere.
    fn supply(&mut self) -> Vec<Move> {
        let number = self.rng.random_range(0..ASSETS);
        let (issuer, asset, to) = (self.address(number), self.asset(number), self.any_account());
        let amount = self.small();
        let first = if self.chance(50) {
            Move::Mint { issuer, to: self.address(to), asset, amount }
        } else {
            Move::Burn { issuer, asset, amount }
        };
        let mut moves = vec![first];
        for payer in self.one_in_each(3) {
            let (payee, amount) = (self.any_account(), self.small());
            moves.push(self.pay(payer, payee, amount));
        }
        moves
    }

    fn rotated(&mut self) -> Vec<Move> {
        let parties = self.one_in_each(3);
        let auth = Authorisation::Single(self.unused_key().public());
        let (payee, amount) = (self.any_account(), self.small());
        vec![Move::Rotate { account: self.address(parties[0]), auth }, self.pay(parties[1], payee, amount)]
    }

    /// An issuer freezes what an account has of its asset; payments then go into suspense, from
    /// where they are released after a thaw, or returned.
    fn frozen_payee(&mut self, at_ms: u64) {
        let number = self.rng.random_range(0..ASSETS);
        let (issuer, asset) = (self.address(number), self.asset(number));
        let parties = self.one_in_each(2);
        let account = self.address(parties[0]);
        let freeze = |frozen| Move::Freeze { issuer, account, asset, frozen };
        let start = self.alone(vec![freeze(true)], at_ms, None);
        let amount = self.small();
        let paid = Move::Pay { from: self.address(HOT_PAYER), to: account, asset: self.asset(0), amount };
        let paid = self.alone(vec![paid], at_ms, Some(start));
        let part = self.rng.random_range(1..=amount);
        if self.chance(50) {
            let by = if self.chance(50) { issuer } else { account };
            let to = self.any_account();
            let back = Move::Return { by, account, to: self.address(to), asset, amount: part };
            self.alone(vec![back], at_ms, Some(paid));
        }
        let thaw = self.alone(vec![freeze(false)], at_ms, Some(paid));
        let release = Move::Release { account, asset, amount: part };
        let mut moves = vec![release];
        if self.chance(50) {
            let (payee, amount) = (self.any_account(), self.small());
            moves.push(self.pay(parties[1], payee, amount));
        }
        self.alone(moves, at_ms, Some(thaw));
    }

    /// An account freezes itself and thaws itself, each together with somebody else's payment.
    fn frozen_owner(&mut self, at_ms: u64) {
        let parties = self.one_in_each(2);
        let account = self.address(parties[0]);
        let mut after = None;
        for frozen in [true, false] {
            let (payee, amount) = (self.any_account(), self.small());
            let other = self.pay(parties[1], payee, amount);
            let moves = vec![Move::Write { account, write: AccountWrite::Frozen(frozen) }, other];
            after = Some(self.alone(moves, at_ms, after));
        }
    }

    /// A transaction without variations, by a router that lives.
    pub(super) fn alone(&mut self, moves: Vec<Move>, at_ms: u64, after: Option<u32>) -> u32 {
        let terms = self.terms(Purpose::Several, at_ms, after);
        self.add(moves, terms)
    }

    /// Adds the transaction with whatever can be wrong with it.
    fn vary(&mut self, mut moves: Vec<Move>, at_ms: u64) {
        let groups = self.groups_of(&moves);
        let handing = self.handing(&groups);
        let after = self.chance(80).then(|| self.funded(HOT_PAYER, self.asset(0))).flatten();
        let mut terms = Terms { handing, ..self.terms(Purpose::Several, at_ms, after) };
        match self.rng.random_range(0..100) {
            0..=5 => terms.purpose = Purpose::Forged,
            6..=12 => {
                let signers: Vec<_> = moves.iter().filter_map(|mv| Some(mv.voters().next()?.account)).collect();
                terms.unsigned = Some(self.pick(&signers));
                terms.purpose = Purpose::Unsigned;
            }
            13..=19 => self.overdraw(&mut moves),
            20..=24 => terms.valid_until_ms = crate::cluster::CREATED_MS + self.rng.random_range(0..at_ms + 2_000),
            25..=44 => {
                terms.hidden = moves.iter().map(|_| self.rng.random()).collect();
                self.vary_openings(&moves, &mut terms);
            }
            _ => {}
        }
        self.add(moves, terms);
    }

    fn overdraw(&mut self, moves: &mut [Move]) {
        let at = self.rng.random_range(0..moves.len());
        if let Move::Pay { amount, .. } | Move::PaySync { amount, .. } | Move::Burn { amount, .. } = &mut moves[at] {
            *amount = 1 << 110;
        }
    }

    /// Openings come at once, late, or not at all.
    fn vary_openings(&mut self, moves: &[Move], terms: &mut Terms) {
        // Withheld or late openings are only worth waiting for when the deadline is near.
        let near = self.rng.random_range(500..4_000);
        match self.rng.random_range(0..3) {
            0 => {}
            1 => {
                terms.handing.openings_at_ms = terms.at_ms + self.rng.random_range(100..3_000);
                terms.valid_until_ms = crate::cluster::CREATED_MS + terms.at_ms + near;
            }
            _ => {
                let hidden = moves.iter().zip(&terms.hidden).filter(|(_, hidden)| **hidden);
                let owners: Vec<GroupId> = hidden
                    .filter_map(|(mv, _)| {
                        let homes = self.groups_of(std::slice::from_ref(mv));
                        if let [one] = homes.as_slice() { Some(*one) } else { None }
                    })
                    .collect();
                if owners.is_empty() {
                    return;
                }
                let withheld = vec![self.pick(&owners)];
                terms.handing = Handing { withheld, ..std::mem::take(&mut terms.handing) };
                terms.purpose = Purpose::Withheld;
                terms.valid_until_ms = crate::cluster::CREATED_MS + terms.at_ms + near;
            }
        }
    }

    fn groups_of(&self, moves: &[Move]) -> Vec<GroupId> {
        let voters = moves.iter().flat_map(Move::voters);
        let mut groups: Vec<GroupId> = voters.filter_map(|voter| self.home_of(&voter.account)).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}
