//! Transactions that one group decides.

use ledger::tx::Move;
use rand::Rng;

use super::Purpose;
use super::maker::{ASSETS, HOT_PAYEE, HOT_PAYER, Maker, Terms};
use crate::cluster::CREATED_MS;

impl Maker<'_> {
    /// One of them.
    pub(super) fn simple(&mut self, at_ms: u64) {
        let (mut payer, mut payee) = (self.any_account(), self.any_account());
        if self.chance(20) {
            payer = HOT_PAYER;
        }
        if self.chance(20) {
            payee = HOT_PAYEE;
        }
        let amount = self.rng.random_range(1..200);
        let one = self.pay(payer, payee, amount);
        let Move::Pay { asset, .. } = one else { return };
        let after = self.funded(payer, asset);
        match self.rng.random_range(0..100) {
            0..=7 => {
                let much = self.pay(payer, payee, 1 << 110);
                let terms = self.terms(Purpose::Overdraft, at_ms, after);
                self.add(vec![much], terms);
            }
            8..=19 => {
                let mut moves = vec![one];
                for _ in 0..self.rng.random_range(1..4) {
                    let next = self.any_account();
                    let amount = self.rng.random_range(1..60);
                    moves.push(self.pay(payer, next, amount));
                }
                let terms = self.terms(Purpose::Pay, at_ms, after);
                self.add(moves, terms);
            }
            20..=25 => {
                // From long past to somewhere within the run.
                let valid_until_ms = CREATED_MS + self.rng.random_range(0..at_ms + 2_000);
                let terms = Terms { valid_until_ms, ..self.terms(Purpose::Expiring, at_ms, after) };
                self.add(vec![one], terms);
            }
            26..=31 => {
                let terms = self.terms(Purpose::Forged, at_ms, after);
                self.add(vec![one], terms);
            }
            32..=37 => {
                let number = self.rng.random_range(0..ASSETS);
                let (issuer, asset) = (self.address(number), self.asset(number));
                let amount = self.rng.random_range(1..100);
                let after = self.funded(number, asset);
                let terms = self.terms(Purpose::Burn, at_ms, after);
                self.add(vec![Move::Burn { issuer, asset, amount }], terms);
            }
            38..=43 => {
                let own = self.pay(payer, payer, amount);
                let terms = self.terms(Purpose::Pay, at_ms, after);
                self.add(vec![own], terms);
            }
            _ => {
                let terms = self.terms(Purpose::Pay, at_ms, after);
                self.add(vec![one], terms);
            }
        }
    }
}
