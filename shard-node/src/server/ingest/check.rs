//! Signatures are checked here, in parallel, before anything is sequenced.
//!
//! Owns the verdict on a transaction that has arrived. It reads what it is given and never the state.

use bytes::Bytes;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, TimeMs, TxId};
use ledger::reject::Reject;
use ledger::rules;
use ledger::tx::ParsedTx;
use rayon::prelude::*;

use crate::core::records::ReceiptPlace;
use crate::server::ingest::Waiters;
use crate::server::intake::Finding;

/// Batches below this are checked on one thread.
const PARALLEL_FROM: usize = 8;

/// A transaction that may be sequenced.
pub struct Checked {
    /// Its id.
    pub txid: TxId,
    /// As received.
    pub bytes: Bytes,
    /// What was verified: names the body and the witnesses.
    pub mark: Hash32,
}

/// A transaction that may not be sequenced.
pub struct Unfit {
    /// Its id, unless its body does not decode.
    pub txid: Option<TxId>,
    /// As received.
    pub bytes: Bytes,
    /// Why.
    pub reject: Reject,
}

/// Names a body together with its witnesses, for those who remember what they verified: the txid
/// alone does not cover the witnesses.
#[must_use]
pub fn verification_mark(tx: &ParsedTx) -> Hash32 {
    let witnesses = borsh::to_vec(&tx.witnesses).expect("writing to memory does not fail");
    ledger::hash::tagged(b"seamark/verified/v1", &[&tx.txid.0.0, &witnesses])
}

/// What became of one transaction of a round.
pub enum Judged {
    /// Verified now; it may be sequenced.
    Fresh(Checked),
    /// The very bytes are on their way and were verified when they came first. They were not verified
    /// now and must not be sequenced on their own.
    Riding(Checked),
    /// It has its receipt.
    Known(Checked, ReceiptPlace),
    /// Verified now, and probably refused by the machine without a trace.
    Doubtful(Checked),
    /// Refused.
    Refused(Unfit),
}

/// Decodes, looks up and verifies a batch on all cores. `now` is the leader's guarded clock, to refuse
/// what no block would accept; without one that is left to the machine.
///
/// What `waiters` know byte for byte is on its way and was checked when it came first, and what has
/// its receipt was checked long ago: a router that repeats itself in an overload must not cost as much
/// again; `look` says what the applied state knows. The waiters are asked before the state is: who is
/// not among them any more is in it.
#[must_use]
pub fn check(
    cluster: &ClusterId,
    now: Option<TimeMs>,
    txs: Vec<Bytes>,
    waiters: &Waiters,
    look: impl Fn(&ParsedTx) -> Finding + Sync,
) -> Vec<Judged> {
    let one = |bytes: Bytes| {
        let tx = match ParsedTx::decode(cluster, &bytes) {
            Ok(tx) => tx,
            Err(reject) => return Judged::Refused(Unfit { txid: None, bytes, reject }),
        };
        let (txid, waiting) = (tx.txid, waiters.has(&tx.txid));
        if waiting && waiters.knows(&txid, &bytes) {
            return Judged::Riding(Checked { txid, mark: Hash32::ZERO, bytes });
        }
        let found = look(&tx);
        match found {
            Finding::Receipt(place) => return Judged::Known(Checked { txid, mark: Hash32::ZERO, bytes }, place),
            Finding::Over(reject) => return Judged::Refused(Unfit { txid: Some(txid), bytes, reject }),
            Finding::Doubtful | Finding::Nothing => {}
        }
        if let Err(reject) = tx.verify_signatures() {
            return Judged::Refused(Unfit { txid: Some(txid), bytes, reject });
        }
        match now.map_or(Ok(()), |now| rules::check_time(&tx, now)) {
            // Past its deadline it may still have a receipt, which only the machine can tell.
            Ok(()) | Err(Reject::Expired | Reject::OutcomePruned) => {}
            Err(reject) => return Judged::Refused(Unfit { txid: Some(txid), bytes, reject }),
        }
        let checked = Checked { txid, mark: verification_mark(&tx), bytes };
        // Beside a copy with other witnesses that has no fate yet, only the machine can judge.
        if matches!(found, Finding::Doubtful) && !waiting { Judged::Doubtful(checked) } else { Judged::Fresh(checked) }
    };
    if txs.len() < PARALLEL_FROM {
        txs.into_iter().map(one).collect()
    } else {
        txs.into_par_iter().with_min_len(PARALLEL_FROM / 2).map(one).collect()
    }
}
