//! Hash-locks with their claims and refunds, and records with their grants. Made after everything
//! else, so that the rest of a seed's load is what it would be without them.

use ledger::hash::Hash32;
use ledger::ids::{LockId, OrgId, TimeMs};
use ledger::lock::{LockTerms, Secret, hash_of};
use ledger::record::{GrantTerms, Grantee};
use ledger::tx::Move;
use rand::Rng;

use super::maker::{HOT_PAYER, Maker};
use crate::cluster::CREATED_MS;

impl Maker<'_> {
    /// So many stories of either kind.
    pub(super) fn promised(&mut self, count: usize) {
        for at_ms in self.moments(count) {
            if self.chance(75) { self.locked(at_ms) } else { self.recorded(at_ms) }
        }
    }

    /// A lock, and attempts to settle it: with the secret or another one, in time or too late, alone
    /// or together with a payment of another group, once or twice.
    fn locked(&mut self, at_ms: u64) {
        let payer = if self.chance(30) { HOT_PAYER } else { self.any_account() };
        let payee = (payer + self.rng.random_range(1..self.accounts.len())) % self.accounts.len();
        let secret: Secret = self.rng.random();
        let deadline = at_ms + self.rng.random_range(500..9_000);
        let amount = self.rng.random_range(1..300);
        let terms = LockTerms { to: self.address(payee), asset: self.some_asset(), amount };
        let from = self.address(payer);
        let lock = Move::Lock {
            from,
            to: terms.to,
            asset: terms.asset,
            amount,
            hash: hash_of(&secret),
            deadline_ms: TimeMs(CREATED_MS + deadline),
        };
        let after = self.funded(payer, terms.asset);
        let made = self.with_company(lock, at_ms, after);
        let lock = LockId::derive(&self.txid(made), 0);
        for _ in 0..self.rng.random_range(1..4) {
            let at_ms = self.rng.random_range(at_ms..deadline + 2_000);
            let mv = match self.rng.random_range(0..10) {
                0..=5 => Move::Claim { from, lock, terms, secret },
                6 => Move::Claim { from, lock, terms, secret: self.rng.random() },
                7 => Move::Claim { from, lock, terms: LockTerms { amount: amount + 1, ..terms }, secret },
                _ => Move::Refund { from, lock, terms },
            };
            self.with_company(mv, at_ms, Some(made));
        }
        // In the end somebody takes it back, if nobody has claimed it.
        if self.chance(60) {
            self.with_company(Move::Refund { from, lock, terms }, deadline + 1_500, Some(made));
        }
    }

    /// Alone, or with a payment that somebody else decides; the move is the first one.
    fn with_company(&mut self, mv: Move, at_ms: u64, after: Option<u32>) -> u32 {
        let mut moves = vec![mv];
        if self.chance(40) {
            let (payer, payee, amount) = (self.any_account(), self.any_account(), self.rng.random_range(1..50));
            moves.push(self.pay(payer, payee, amount));
        }
        self.alone(moves, at_ms, after)
    }

    /// A hash that is recorded, granted and revoked; of so few hashes that some are recorded twice.
    fn recorded(&mut self, at_ms: u64) {
        let owner = self.any_account();
        let (owner, other) = (self.address(owner), self.address((owner + 1) % self.accounts.len()));
        let hash = Hash32([self.rng.random_range(0..3); 32]);
        let put = Move::Record { owner, hash, metadata: b"simulated".to_vec() };
        let mut after = self.with_company(put, at_ms, None);
        for _ in 0..self.rng.random_range(1..5) {
            let who = if self.chance(70) { Grantee::Account(other) } else { Grantee::Org(OrgId(1)) };
            let mv = if self.chance(60) {
                let until_ms = self.chance(50).then(|| TimeMs(CREATED_MS + at_ms + self.rng.random_range(0..9_000)));
                Move::Grant { owner, record: hash, to: who, terms: GrantTerms { scope: "read".to_owned(), until_ms } }
            } else {
                Move::Revoke { owner, record: hash, from: who }
            };
            after = self.with_company(mv, at_ms, Some(after));
        }
    }
}
