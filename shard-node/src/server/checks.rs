//! Checks of client signatures, off the commit path and on all cores.
//!
//! A check that could not be made says nothing about the signatures: it is neither passed nor a
//! forgery. When the process ends it is dropped; when it fails by itself the group stops here.

use std::sync::Arc;

use hashbrown::HashSet;
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

/// Transactions that this node has checked itself and does not check again before it attests.
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
        let marks: Vec<Hash32> = txs.par_iter().map(verification_mark).collect();
        let known: HashSet<Hash32> = {
            let known = self.0.lock();
            marks.iter().filter(|mark| known.contains(*mark)).copied().collect()
        };
        txs.par_iter().zip(&marks).all(|(tx, mark)| known.contains(mark) || tx.verify_signatures().is_ok())
    }
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
    use super::*;

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
