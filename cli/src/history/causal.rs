//! Causal order: as much in flight as can be without changing the outcome.
//!
//! The debits of one payer are sent in their order. The next one is sent as soon
//! as it is covered by what its payer surely has:
//!
//! ```text
//! opening balance + credits visible at the payer − debits already sent
//! ```
//!
//! Whatever is in flight is thus covered all together, in any order of arrival,
//! so nothing overdraws; since every payment then commits, and credits and
//! debits add up in any order, the final balances are those of sequential
//! execution. Nothing waits for ever: of all payments that are not visible, the
//! first in the history has every earlier one behind it, and sequential
//! execution covers it.
//!
//! Opening balances may be too low on purpose. A payment that sequential
//! execution rejects (an *unfunded* one) must be rejected by the cluster too, so
//! it is sent once the earlier debits of its payer are committed, and payments
//! *to* that payer that come later in the history wait behind this *gate* until
//! the rejection is known. Both wait only for earlier payments, so the argument
//! above still holds.
//!
//! Pure bookkeeping, O(n log n) over a whole history. Never talks to a cluster;
//! the replay driver does, and reports back.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use super::{AccountIx, Balances, History, OutOfTurn, Transfer, balances, flight::Flight};

/// The unfunded debits of one account that are not decided yet.
#[derive(Clone, Debug, Default)]
struct Gate {
    undecided: BTreeSet<u32>,
    /// Payments to the account that come after the first undecided debit and
    /// are otherwise the next of their payer.
    waiting: BinaryHeap<Reverse<u32>>,
}

/// One payer's side of the books.
#[derive(Clone, Debug, Default)]
struct Payer {
    /// Next debit to send: a position in `debits`, and where this payer's end.
    next: usize,
    end: usize,
    /// What is surely there for the next debit.
    available: u128,
    /// Debits released and not committed, unfunded ones aside.
    uncommitted: usize,
    /// The next debit stands in a gate's `waiting`.
    at_gate: bool,
}

/// The causal order over one history. See [`super::Schedule`] for how it is
/// driven.
#[derive(Clone, Debug)]
pub struct Causal {
    transfers: Vec<Transfer>,
    unfunded: Vec<u32>,
    /// Transfer indices grouped by payer, ascending within each.
    debits: Vec<u32>,
    payers: Vec<Payer>,
    gates: BTreeMap<AccountIx, Gate>,
    released: BinaryHeap<Reverse<u32>>,
    pub(super) flight: Flight,
}

impl Causal {
    /// Prepares the order. Transfers past 2^32 are left out; a history read by
    /// this module never has so many.
    #[must_use]
    pub fn new(history: &History, opening: &Balances) -> Self {
        let many = history.transfers.len().min(u32::MAX as usize);
        let transfers = history.transfers[..many].to_vec();
        let unfunded = balances::execute(history, opening).rejected;
        let mut gates: BTreeMap<AccountIx, Gate> = BTreeMap::new();
        for &transfer in &unfunded {
            let gate = gates.entry(transfers[transfer as usize].from).or_default();
            gate.undecided.insert(transfer);
        }
        let (debits, payers) = by_payer(&transfers, opening);
        let mut order =
            Self { transfers, unfunded, debits, payers, gates, released: BinaryHeap::new(), flight: Flight::new(many) };
        (0..order.payers.len()).for_each(|payer| order.release(payer));
        order
    }

    /// The transfers that sequential execution rejects, ascending.
    #[must_use]
    pub fn unfunded(&self) -> &[u32] {
        &self.unfunded
    }

    /// Up to `max` transfers to send now, the earliest in the history first.
    /// Each is handed out once.
    pub fn ready(&mut self, max: usize) -> Vec<u32> {
        let mut handed = Vec::with_capacity(max.min(self.released.len()));
        while handed.len() < max {
            let Some(Reverse(transfer)) = self.released.pop() else {
                break;
            };
            self.flight.send(transfer);
            handed.push(transfer);
        }
        handed
    }

    /// The debit of a sent transfer was applied.
    ///
    /// # Errors
    /// When that was reported before, or the transfer is not in flight.
    pub fn committed(&mut self, transfer: u32) -> Result<(), OutOfTurn> {
        self.flight.commit(transfer)?;
        self.debited(transfer);
        Ok(())
    }

    /// The credit of a sent transfer was applied at its payee. Says also that
    /// it was committed, where that was not reported.
    ///
    /// # Errors
    /// As [`Causal::committed`].
    pub fn visible(&mut self, transfer: u32) -> Result<(), OutOfTurn> {
        if self.flight.show(transfer)? {
            self.debited(transfer);
        }
        let Transfer { to, amount, .. } = self.transfers[transfer as usize];
        self.fund(to.at(), amount);
        Ok(())
    }

    /// The ledger refused a sent transfer for good; nothing moved. Expected of
    /// [`Causal::unfunded`] transfers; of another one, those that waited for its
    /// credit may never become ready.
    ///
    /// # Errors
    /// As [`Causal::committed`].
    pub fn rejected(&mut self, transfer: u32) -> Result<(), OutOfTurn> {
        self.flight.reject(transfer)?;
        if self.is_unfunded(transfer) {
            self.decide(transfer);
        } else {
            let Transfer { from, amount, .. } = self.transfers[transfer as usize];
            self.payers[from.at()].uncommitted -= 1;
            self.fund(from.at(), amount);
        }
        Ok(())
    }

    pub(super) fn nothing_ready(&self) -> bool {
        self.released.is_empty()
    }

    fn is_unfunded(&self, transfer: u32) -> bool {
        self.unfunded.binary_search(&transfer).is_ok()
    }

    fn debited(&mut self, transfer: u32) {
        let Transfer { from, amount, .. } = self.transfers[transfer as usize];
        let is_unfunded = self.is_unfunded(transfer);
        let payer = &mut self.payers[from.at()];
        if is_unfunded {
            // Against expectation: the account had more than its opening.
            payer.available = payer.available.saturating_sub(amount);
            self.decide(transfer);
        } else {
            payer.uncommitted -= 1;
            if payer.uncommitted == 0 {
                self.release(from.at());
            }
        }
    }

    fn fund(&mut self, account: usize, amount: u128) {
        let available = &mut self.payers[account].available;
        // Bounded by the supply, unless an unfunded payment went through.
        *available = available.saturating_add(amount);
        self.release(account);
    }

    /// The outcome of an unfunded debit is known: opens the gate as far as the
    /// next undecided one.
    fn decide(&mut self, transfer: u32) {
        let payee = self.transfers[transfer as usize].from;
        let Some(gate) = self.gates.get_mut(&payee) else {
            return;
        };
        gate.undecided.remove(&transfer);
        let open_below = gate.undecided.first().copied().unwrap_or(u32::MAX);
        let mut passing = Vec::new();
        while let Some(&Reverse(waiting)) = gate.waiting.peek()
            && waiting < open_below
        {
            gate.waiting.pop();
            passing.push(self.transfers[waiting as usize].from.at());
        }
        for payer in passing {
            self.payers[payer].at_gate = false;
            self.release(payer);
        }
    }

    /// Releases the next debits of a payer as long as nothing holds them.
    fn release(&mut self, payer: usize) {
        while self.payers[payer].next < self.payers[payer].end {
            if self.payers[payer].at_gate {
                return;
            }
            let transfer = self.debits[self.payers[payer].next];
            let Transfer { to, amount, .. } = self.transfers[transfer as usize];
            if self.is_unfunded(transfer) {
                if self.payers[payer].uncommitted > 0 {
                    return;
                }
            } else {
                let Some(left) = self.payers[payer].available.checked_sub(amount) else {
                    return;
                };
                if !self.passes_gate(transfer, to) {
                    self.payers[payer].at_gate = true;
                    return;
                }
                self.payers[payer].available = left;
                self.payers[payer].uncommitted += 1;
            }
            self.payers[payer].next += 1;
            self.released.push(Reverse(transfer));
        }
    }

    fn passes_gate(&mut self, transfer: u32, payee: AccountIx) -> bool {
        let Some(gate) = self.gates.get_mut(&payee) else {
            return true;
        };
        if gate.undecided.first().is_none_or(|&first| transfer < first) {
            return true;
        }
        gate.waiting.push(Reverse(transfer));
        false
    }
}

/// Groups the debits by payer; payees that never pay are there as well.
fn by_payer(transfers: &[Transfer], opening: &Balances) -> (Vec<u32>, Vec<Payer>) {
    let accounts = transfers.iter().map(|t| t.from.at().max(t.to.at()) + 1).max().unwrap_or(0);
    let mut payers = vec![Payer::default(); accounts];
    for transfer in transfers {
        payers[transfer.from.at()].end += 1;
    }
    let mut start = 0;
    for (ix, payer) in (0u32..).zip(&mut payers) {
        payer.next = start;
        start += payer.end;
        payer.end = payer.next;
        payer.available = opening.get(AccountIx(ix));
    }
    let mut debits = vec![0; transfers.len()];
    for (ix, transfer) in (0u32..).zip(transfers) {
        let payer = &mut payers[transfer.from.at()];
        debits[payer.end] = ix;
        payer.end += 1;
    }
    (debits, payers)
}

#[cfg(test)]
#[path = "causal_tests.rs"]
mod tests;
