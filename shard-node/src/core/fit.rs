//! Whether a batch is one that an honest leader may have proposed, as far as its bytes and a clock say.
//!
//! Pure, so that the host's judge and the simulator's ask the same. Never looks at a signature: how these are
//! checked, side by side or remembered, is the caller's.

use ledger::ids::{ClusterId, TimeMs};
use ledger::limits::{BATCH_TXS_MAX, CLOCK_SKEW_MS_MAX, STAMP_AGE_MS_MAX};
use ledger::reject::Reject;
use ledger::tx::ParsedTx;

use crate::core::entry::{Command, Entry};

/// Why a batch gets no vote of this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not an entry.
    #[error("it is no entry of this version, or exceeds the limits of one")]
    Form,
    /// More transactions than an entry may have.
    #[error("it has {0} transactions; the limit is {BATCH_TXS_MAX}")]
    Transactions(usize),
    /// A transaction that nobody may sequence.
    #[error("its command {command} is a transaction that is refused without a look at the state: {reject}")]
    Transaction {
        /// Its place in the entry.
        command: usize,
        /// Why.
        reject: Reject,
    },
    /// Stamped in the future.
    #[error("its stamp is {0} ms ahead of this node's guarded clock; the limit is {CLOCK_SKEW_MS_MAX} ms")]
    Ahead(u64),
    /// Stamped long ago.
    #[error("its stamp is {0} ms behind this node's guarded clock; the limit is {STAMP_AGE_MS_MAX} ms")]
    Old(u64),
    /// The clocks of the other members are not known yet.
    #[error("this node has not heard the clocks of most members yet")]
    NoClock,
}

/// The entry of a batch. Its stamp is looked at by this clock, unless there is none to look at.
///
/// # Errors
/// [`Unfit::Form`], [`Unfit::Ahead`] and [`Unfit::Old`].
pub fn entry(batch: &[u8], now: Option<TimeMs>) -> Result<Entry, Unfit> {
    let entry = Entry::read(batch).ok_or(Unfit::Form)?;
    if let Some(now) = now {
        check_stamp(entry.stamp_ms, now)?;
    }
    Ok(entry)
}

/// The transactions of an entry, each with its place among the commands.
///
/// # Errors
/// [`Unfit::Transactions`].
pub fn transactions(entry: &Entry) -> Result<Vec<(usize, &[u8])>, Unfit> {
    let found: Vec<(usize, &[u8])> = (0..).zip(&entry.commands).filter_map(transaction).collect();
    if found.len() > BATCH_TXS_MAX { Err(Unfit::Transactions(found.len())) } else { Ok(found) }
}

/// Decodes the transaction of a command.
///
/// # Errors
/// [`Unfit::Transaction`].
pub fn decode(cluster: &ClusterId, command: usize, bytes: &[u8]) -> Result<ParsedTx, Unfit> {
    ParsedTx::decode(cluster, bytes).map_err(|reject| Unfit::Transaction { command, reject })
}

fn transaction((place, command): (usize, &Command)) -> Option<(usize, &[u8])> {
    let Command::Tx(bytes) = command else { return None };
    Some((place, bytes.as_slice()))
}

fn check_stamp(stamp: TimeMs, now: TimeMs) -> Result<(), Unfit> {
    let (ahead, behind) = (stamp.0.saturating_sub(now.0), now.0.saturating_sub(stamp.0));
    if ahead > CLOCK_SKEW_MS_MAX {
        return Err(Unfit::Ahead(ahead));
    }
    if behind > STAMP_AGE_MS_MAX { Err(Unfit::Old(behind)) } else { Ok(()) }
}
