//! What happens in channels, and between them and the main ledger: value that is brought in and taken
//! home, payments inside, swaps with hidden moves. Made after everything else, so that the rest of a
//! seed's load is what it would be without channels.

use ledger::ids::LedgerId;
use ledger::tx::{Condition, Move};
use rand::Rng;

use super::maker::{ASSETS, HOT_PAYER, Maker, Terms};
use super::{Handing, Purpose};
use crate::cluster::CHANNEL_ACCOUNTS;

impl Maker<'_> {
    /// So many transactions for each channel, besides those that bring value into it.
    pub(super) fn channels(&mut self, count: usize) {
        let channels = self.inside.len() / CHANNEL_ACCOUNTS;
        for channel in 0..channels {
            for number in 0..ASSETS {
                self.bring(channel, number);
            }
        }
        for channel in 0..channels {
            for at_ms in self.moments(count) {
                match self.rng.random_range(0..100) {
                    0..=39 => self.inside(channel, at_ms),
                    40..=74 => self.across(channel, at_ms),
                    _ => self.take_home(channel, at_ms),
                }
            }
        }
    }

    fn account_in(&mut self, channel: usize) -> ledger::Address {
        let at = channel * CHANNEL_ACCOUNTS + self.rng.random_range(0..CHANNEL_ACCOUNTS);
        self.inside[at].address
    }

    /// Somebody of the main ledger pays accounts of the channel: who has much of the asset.
    pub(super) fn bring(&mut self, channel: usize, number: usize) {
        let payer = if number == 0 { HOT_PAYER } else { number };
        let (from, asset) = (self.address(payer), self.asset(number));
        let ledger = LedgerId::of_channel(self.inside[channel * CHANNEL_ACCOUNTS].home);
        for place in 0..CHANNEL_ACCOUNTS {
            let to = self.inside[channel * CHANNEL_ACCOUNTS + place].address;
            let mv = Move::Transfer { from, to, asset, amount: self.rng.random_range(20..60), ledger };
            let at_ms = self.rng.random_range(200..1_500);
            let after = self.funded(payer, asset);
            let terms = Terms { handing: Handing::default(), ..self.terms(Purpose::Pay, at_ms, after) };
            self.add(vec![mv], terms);
        }
    }

    /// A payment within a channel: now and then of more than there is, or to be checked, or refused as
    /// often as the channel is frozen.
    pub(super) fn inside(&mut self, channel: usize, at_ms: u64) {
        let (from, to, asset) = (self.account_in(channel), self.account_in(channel), self.some_asset());
        let huge = self.chance(10);
        let amount = if huge { 1 << 110 } else { self.rng.random_range(1..40) };
        let mut moves = vec![if self.chance(30) {
            Move::PaySync { from, to, asset, amount }
        } else {
            Move::Pay { from, to, asset, amount }
        }];
        if self.chance(20) {
            let amount = self.rng.random_range(1..100);
            moves.push(Move::Check { account: from, condition: Condition::AtLeast { asset, amount } });
        }
        let terms = self.terms(if huge { Purpose::Overdraft } else { Purpose::Pay }, at_ms, None);
        self.add(moves, terms);
    }

    /// A swap with another channel, or with the main ledger. What is in a channel is hidden.
    pub(super) fn across(&mut self, channel: usize, at_ms: u64) {
        let channels = self.inside.len() / CHANNEL_ACCOUNTS;
        let (one, two, asset) = (self.account_in(channel), self.account_in(channel), self.some_asset());
        let amount = self.rng.random_range(1..40);
        let mut moves = vec![Move::Pay { from: one, to: two, asset, amount }];
        let other = (channel + 1) % channels;
        let price = self.small();
        if other != channel && self.chance(60) {
            let (three, four, asset) = (self.account_in(other), self.account_in(other), self.some_asset());
            moves.push(Move::Pay { from: three, to: four, asset, amount: price.min(40) });
        } else {
            let (payer, payee) = (self.any_account(), self.any_account());
            moves.push(self.pay(payer, payee, price));
        }
        let groups = self.groups_of(&moves);
        let handing = self.handing(&groups);
        let after = self.chance(80).then(|| self.funded(HOT_PAYER, self.asset(0))).flatten();
        let mut terms = Terms { handing, ..self.terms(Purpose::Several, at_ms, after) };
        terms.hidden = vec![true; moves.len()];
        if self.chance(30) {
            self.vary_openings(&moves, &mut terms);
        }
        if self.chance(10) {
            terms.unsigned = Some(one);
            terms.purpose = Purpose::Unsigned;
        }
        self.add(moves, terms);
    }

    /// A transfer out of the channel, now and then of more than ever came.
    pub(super) fn take_home(&mut self, channel: usize, at_ms: u64) {
        let (from, asset, payee) = (self.account_in(channel), self.some_asset(), self.any_account());
        let amount = if self.chance(10) { 1 << 110 } else { self.rng.random_range(1..30) };
        let mv = Move::Transfer { from, to: self.address(payee), asset, amount, ledger: LedgerId::MAIN };
        let terms = self.terms(Purpose::Pay, at_ms, None);
        self.add(vec![mv], terms);
    }
}
