//! The way in for transactions of one group: what has arrived (`arrivals`), what it is worth (`check`), who waits for
//! its fate (`waiters`, with `books` and `withdrawn`), and whether those may still be told (`gate`).
//!
//! Owns a transaction from its arrival to the answer. Nothing unchecked is sequenced, and nothing here
//! changes state: `intake` moves transactions from one part to the next, the group's task sequences them.

mod arrivals;
mod books;
mod check;
mod gate;
mod waiters;
mod withdrawn;

use bytes::Bytes;
use cross_shard::commit::Decision;
use ledger::ids::{ClusterId, NodeId, TxId};
use ledger::reject::Reject;
use ledger::tx::{SignedTx, Submission};
use proto::v1;

pub use arrivals::{Arrivals, Arrived};
pub use check::{Checked, Judged, Unfit, check, verification_mark};
pub use gate::{Gate, Sender};
pub use waiters::{MailFate, Waiters, Waits};

/// Retry hint for a full queue.
const BUSY_RETRY_MS: u32 = 50;

/// A transaction's id as the wire carries it.
#[must_use]
pub fn id_bytes(txid: &TxId) -> Bytes {
    Bytes::copy_from_slice(&txid.0.0)
}

/// A refusal event; of these bytes only, or of whatever has this id.
#[must_use]
pub fn refused(txid: &TxId, bytes: Option<&Bytes>, reject: Reject, leader: Option<NodeId>) -> v1::SubmitEvent {
    let mut refusal = v1::Refusal::of(reject);
    if let Some(bytes) = bytes {
        refusal = refusal.of_bytes(bytes);
    }
    refusal.leader_node = leader.map_or(0, |node| node.0);
    if matches!(reject, Reject::Busy | Reject::PeerBusy) {
        refusal.retry_after_ms = BUSY_RETRY_MS;
    }
    v1::SubmitEvent::refused(id_bytes(txid), refusal)
}

/// The reason of a NO.
#[must_use]
pub fn decision_reason(decision: Decision) -> Option<Reject> {
    match decision {
        Decision::Yes => None,
        Decision::No(reason) => Some(reason),
    }
}

/// The id of a transaction that was taken as bytes, with or without openings.
#[must_use]
pub fn id_of(cluster: &ClusterId, bytes: &[u8]) -> Option<TxId> {
    let (signed, _) = Submission::split(bytes).ok()?;
    borsh::from_slice::<SignedTx>(&signed).ok().map(|tx| tx.txid(cluster))
}

#[cfg(test)]
mod several_tests;
#[cfg(test)]
mod testing;
