//! Checks of client signatures, off the commit path and on all cores.
//!
//! A check that could not be made says nothing about the signatures: it is neither passed nor a
//! forgery. When the process ends it is dropped; when it fails by itself the group stops here.

use std::sync::Arc;

use ledger::hash::Hash32;
use ledger::ids::Height;
use ledger::tx::ParsedTx;
use ledger::view::{ReadFault, View};
use parking_lot::Mutex;
use rayon::prelude::*;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::core::recheck;
use crate::server::halt::Halt;
use crate::server::ingest::verification_mark;
use crate::server::replica::{DbReader, StateHandle};

/// Transactions that this node has checked itself and does not check again before it votes or attests.
const KNOWN_MAX: usize = 65_536;

/// What this node has verified already, by [`verification_mark`].
#[derive(Clone)]
pub struct Known(Arc<Mutex<lru::LruCache<Hash32, ()>>>);

impl Default for Known {
    fn default() -> Self {
        let bound = std::num::NonZeroUsize::new(KNOWN_MAX).expect("the bound is not zero");
        Self(Arc::new(Mutex::new(lru::LruCache::new(bound))))
    }
}

impl Known {
    /// Remembers what was verified.
    pub fn extend(&self, marks: impl IntoIterator<Item = Hash32>) {
        let mut known = self.0.lock();
        for mark in marks {
            known.put(mark, ());
        }
    }

    /// Whether every signature of these transactions holds.
    #[must_use]
    pub fn all_hold(&self, txs: &[ParsedTx]) -> bool {
        self.unknown(&marks(txs)).into_par_iter().all(|at| txs[at].verify_signatures().is_ok())
    }

    /// The place of the first of these transactions with a signature that does not hold. Where there is none,
    /// all of them are remembered.
    #[must_use]
    pub fn first_forged(&self, txs: &[ParsedTx]) -> Option<usize> {
        let marks = marks(txs);
        let unknown = self.unknown(&marks);
        let forged = unknown.par_iter().copied().find_first(|at| txs[*at].verify_signatures().is_err());
        if forged.is_none() {
            self.extend(unknown.iter().map(|at| marks[*at]));
        }
        forged
    }

    /// The places of those that this node has not verified.
    fn unknown(&self, marks: &[Hash32]) -> Vec<usize> {
        let known = self.0.lock();
        (0..marks.len()).filter(|at| !known.contains(&marks[*at])).collect()
    }
}

fn marks(txs: &[ParsedTx]) -> Vec<Hash32> {
    txs.par_iter().map(verification_mark).collect()
}

/// Checks the blocks of the database from one height to another, in order. Returns the lowest that
/// does not hold; `None` when it was interrupted, by `stop` or because the state was replaced.
///
/// # Errors
/// [`ReadFault`] when the database fails.
pub fn recheck(
    state: &StateHandle,
    known: &Known,
    from: Height,
    upto: Height,
    stop: &CancellationToken,
) -> Result<Option<Option<Height>>, ReadFault> {
    for height in (from.0..=upto.0).map(Height) {
        let Some(db) = state.db().filter(|_| !stop.is_cancelled()) else { return Ok(None) };
        let reader = DbReader(&*db);
        let txs = recheck::transactions(&mut View::new(&reader), height)?;
        if !txs.is_some_and(|txs| known.all_hold(&txs)) {
            return Ok(Some(Some(height)));
        }
    }
    Ok(Some(None))
}

/// Waits for a check. One that panicked stops the group: what it was to find out is not known.
pub async fn finished<T>(halt: &Halt, what: &str, task: JoinHandle<T>) -> Option<T> {
    match task.await {
        Ok(result) => Some(result),
        Err(error) => {
            if error.is_panic() {
                halt.stop(format!("{what} could not be checked: {error}"));
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use ledger::genesis::VerifyMode;
    use ledger::ids::Address;

    use super::*;
    use crate::server::testing::{forged, lone_genesis, mint};

    #[test]
    fn what_was_verified_once_is_not_verified_again_and_a_forgery_is_found_by_its_place() {
        let genesis = lone_genesis(VerifyMode::Every);
        let parse = |bytes: &[u8]| ParsedTx::decode(&genesis.cluster_id(), bytes).expect("a transaction");
        let good: Vec<ParsedTx> = (1..4).map(|salt| parse(&mint(&genesis, salt, Address([4; 20]), 1_000).1)).collect();
        let bad = parse(&forged(&genesis, 2));
        let known = Known::default();
        let mixed = [good[0].clone(), bad.clone(), good[2].clone(), bad];
        assert_eq!((known.first_forged(&mixed), known.all_hold(&mixed)), (Some(1), false));
        assert_eq!(known.unknown(&marks(&mixed)), [0, 1, 2, 3], "of a refused batch nothing is remembered");
        assert_eq!(known.first_forged(&good), None);
        assert!(known.unknown(&marks(&good)).is_empty() && known.all_hold(&good));
        // The same body with other witnesses is not what was verified.
        assert_eq!(known.unknown(&marks(&mixed)), [1, 3]);
        assert_eq!(known.first_forged(&mixed), Some(1));
    }

    #[tokio::test]
    async fn a_check_that_fails_is_no_verdict() {
        let halt = Halt::default();
        assert_eq!(finished(&halt, "block 7", tokio::task::spawn_blocking(|| true)).await, Some(true));
        assert_eq!(finished(&halt, "block 7", tokio::task::spawn_blocking(|| false)).await, Some(false));
        // Dropped at the end of the process.
        let never = tokio::spawn(std::future::pending::<bool>());
        never.abort();
        assert_eq!(finished(&halt, "block 8", never).await, None);
        assert_eq!(halt.reason(), None);
        let broken = tokio::task::spawn_blocking(|| -> bool { panic!("a broken check") });
        assert_eq!(finished(&halt, "block 9", broken).await, None);
        let reason = halt.reason().unwrap_or_default();
        assert!(reason.contains("block 9") && reason.contains("a broken check"), "{reason}");
    }
}
