//! What was on its way when all who had sent it were turned away: it is proposed no more.
//!
//! Owns a mark for each, by the hash of its bytes. The bytes themselves count only while they wait for a place in an entry, or
//! are in one: from the first word on what became of them, nobody holds them any more, and what is left is the mark.

use std::time::Duration;

use hashbrown::HashMap;
use ledger::hash::{Hash32, sha256};
use ledger::ids::TxId;
use tokio::time::Instant;

use crate::server::ingest::books::Held;

/// The marks, and the bytes of those that are on their way still.
#[derive(Default)]
pub(super) struct Withdrawn {
    /// By the hash of the bytes: of which transaction they are, and since when nobody waits for them.
    marks: HashMap<Hash32, (TxId, Instant)>,
    held: HashMap<TxId, Vec<(Hash32, Held)>>,
}

impl Withdrawn {
    /// Nobody waits for these bytes any more, as of `now`.
    pub(super) fn add(&mut self, txid: TxId, held: Held, now: Instant) {
        let hash = sha256(&held.bytes);
        self.marks.insert(hash, (txid, now));
        self.held.entry(txid).or_default().push((hash, held));
    }

    /// Whether nothing is withdrawn.
    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Somebody waits for these bytes again: they are like any others.
    pub(super) fn renew(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            return;
        }
        let hash = sha256(bytes);
        if let Some((txid, _)) = self.marks.remove(&hash) {
            self.release(txid, hash);
        }
    }

    /// Whether these bytes, which have left the queue, are withdrawn.
    pub(super) fn takes_out(&mut self, bytes: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        let hash = sha256(bytes);
        let Some(txid) = self.marks.get(&hash).map(|(txid, _)| *txid) else { return false };
        self.release(txid, hash);
        true
    }

    /// The group has said something of a transaction: its bytes have left the queue.
    pub(super) fn said(&mut self, txid: &TxId) {
        self.held.remove(txid);
    }

    /// Forgets what was withdrawn so long ago that it was proposed, or was lost.
    pub(super) fn forget(&mut self, now: Instant, kept: Duration) {
        self.marks.retain(|_, (_, since)| now <= *since + kept);
        let marks = &self.marks;
        self.held.retain(|_, held| {
            held.retain(|(hash, _)| marks.contains_key(hash));
            !held.is_empty()
        });
    }

    fn release(&mut self, txid: TxId, hash: Hash32) {
        let Some(held) = self.held.get_mut(&txid) else { return };
        held.retain(|(other, _)| *other != hash);
        if held.is_empty() {
            self.held.remove(&txid);
        }
    }
}
