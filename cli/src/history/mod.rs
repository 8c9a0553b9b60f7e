//! Real payment history, offline: everything `replay` and `demo` know before
//! they talk to a cluster.
//!
//! Owns reading files ([`HistoryReader`], three layouts) and blocks
//! ([`bitcoin_block`]), the opening balances ([`opening`]), the expected final
//! state ([`execute`], [`state_sha256`]) and the order in which payments may be
//! sent ([`Schedule`]). It never opens a connection, derives a key or signs.
//! The transfers go on to the replay driver, which signs them and sends them
//! through the router as the schedule releases them.

// A test that cannot unwrap has failed, which is what a test is for.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod balances;
pub mod bitcoin_block;
mod causal;
mod digest;
mod etl;
mod flight;
mod layout;
pub mod opening;
mod plain;
mod read;
mod rows;
mod schedule;
mod xblock;

pub use accounts::{AccountIx, Accounts, TooManyAccounts};
pub use balances::{Balances, Execution, SupplyTooLarge, execute};
pub use causal::Causal;
pub use digest::{save_balances, state_digest, state_sha256, write_balances};
pub use flight::OutOfTurn;
pub use layout::{Layout, MalformedReason};
pub use read::{HistoryError, HistoryReader};
pub use schedule::{AllAtOnce, Order, Schedule};

/// How many malformed lines are kept one by one; the rest are only counted.
pub const MALFORMED_KEPT_MAX: usize = 1_000;

/// One payment of the history, in the order of execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The line of the input it came from, counted from 1 (for a block: the
    /// output, counted from 1 over the whole block).
    pub line: u64,
    /// Who pays.
    pub from: AccountIx,
    /// Who is paid; may be the payer itself.
    pub to: AccountIx,
    /// How much, in the smallest unit of the asset; never zero.
    pub amount: u128,
}

/// Rows that are well-formed but no payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Rows without a receiver: contract creations.
    pub no_receiver: u64,
    /// Rows with a receiver and amount zero. They still name their accounts.
    pub zero_amount: u64,
}

impl Skipped {
    /// All skipped rows.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.no_receiver + self.zero_amount
    }
}

/// A row that could not be understood and was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedLine {
    /// Index into [`History::files`].
    pub file: usize,
    /// The line in that file, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: MalformedReason,
}

/// The malformed rows: all counted, the first [`MALFORMED_KEPT_MAX`] kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Malformed {
    /// How many there were.
    pub total: u64,
    /// The first of them, in the order of reading.
    pub first: Vec<MalformedLine>,
}

impl Malformed {
    fn add(&mut self, line: MalformedLine) {
        self.total += 1;
        if self.first.len() < MALFORMED_KEPT_MAX {
            self.first.push(line);
        }
    }
}

/// A history as read: payments in order, and an account of everything that is
/// not one. `rows = transfers + skipped + malformed` always holds.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The payments, in the order of sequential execution.
    pub transfers: Vec<Transfer>,
    /// Every account named by a row with a receiver, and by the opening file
    /// once that was read with [`opening::read_file`].
    pub accounts: Accounts,
    /// Rows that are no payment.
    pub skipped: Skipped,
    /// Rows that were not understood.
    pub malformed: Malformed,
    /// Data rows read: header and blank lines are not counted.
    pub rows: u64,
    /// Where the rows came from, in the order of reading.
    pub files: Vec<String>,
}
