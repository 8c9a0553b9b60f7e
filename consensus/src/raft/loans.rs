//! Who borrows which snapshot, and for how long: one for each node, and not for ever.
//!
//! Owns what a borrower may hold on to and how slow a transfer may be, for both sides of it. Never reads files. A
//! snapshot is on the disk of its lender for as long as somebody borrows it, so a borrower that stops reading, or reads too
//! slowly, loses what it has; it may ask again.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::ids::NodeId;
use ledger::limits::{LENT_BYTES_PER_S_MIN, LENT_GRACE_MS};
use tokio::time::Instant;

/// So long a borrower may read nothing.
const IDLE: Duration = Duration::from_secs(60);

/// The time that so many bytes may take.
pub(crate) fn allowed(bytes: u64) -> Duration {
    let ms = bytes.saturating_mul(1000) / LENT_BYTES_PER_S_MIN;
    Duration::from_millis(LENT_GRACE_MS.saturating_add(ms))
}

struct Loan<T> {
    what: T,
    /// When it has to be over.
    until: Instant,
    /// When something of it was last read.
    read: Instant,
}

/// What is lent, by borrower.
pub(crate) struct Loans<T>(BTreeMap<NodeId, Loan<T>>);

impl<T> Default for Loans<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Loans<T> {
    /// Lends something of so many bytes to a node, in the place of what it has borrowed before. The same again is no new
    /// loan: asking does not make it last longer.
    pub(crate) fn give(&mut self, node: NodeId, what: T, bytes: u64, now: Instant)
    where
        T: PartialEq,
    {
        match self.0.get_mut(&node).filter(|loan| loan.what == what) {
            Some(loan) => loan.read = now,
            None => {
                self.0.insert(node, Loan { what, until: now + allowed(bytes), read: now });
            }
        }
    }

    /// What a node has borrowed, to read something of it.
    pub(crate) fn read(&mut self, node: NodeId, now: Instant) -> Option<&T> {
        self.end(now);
        let loan = self.0.get_mut(&node)?;
        loan.read = now;
        Some(&loan.what)
    }

    /// What is lent to others than this node.
    pub(crate) fn others(&mut self, node: NodeId, now: Instant) -> impl Iterator<Item = &T> {
        self.end(now);
        self.0.iter().filter(move |(other, _)| **other != node).map(|(_, loan)| &loan.what)
    }

    /// Ends the loans whose time is over.
    fn end(&mut self, now: Instant) {
        self.0.retain(|_, loan| now < loan.until && now < loan.read + IDLE);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);

    #[test]
    fn a_node_has_one_loan_and_each_its_own() {
        let (mut loans, now) = (Loans::default(), Instant::now());
        loans.give(ONE, 7, 100, now);
        loans.give(TWO, 8, 100, now);
        assert_eq!(loans.read(ONE, now), Some(&7));
        assert_eq!(loans.read(TWO, now), Some(&8));
        assert_eq!(loans.others(TWO, now).collect::<Vec<_>>(), [&7]);
        loans.give(ONE, 9, 100, now);
        assert_eq!(loans.read(ONE, now), Some(&9));
        assert_eq!(loans.read(NodeId(3), now), None);
        assert_eq!(loans.others(NodeId(3), now).collect::<Vec<_>>(), [&9, &8]);
    }

    #[test]
    fn who_stops_reading_or_is_too_slow_loses_it_and_asking_again_gives_no_more_time() {
        let (mut loans, begin) = (Loans::default(), Instant::now());
        let long = 100 * LENT_BYTES_PER_S_MIN;
        assert_eq!(allowed(long), Duration::from_millis(LENT_GRACE_MS) + Duration::from_secs(100));
        loans.give(ONE, 7, long, begin);
        loans.give(TWO, 8, long, begin);
        let mut now = begin;
        while now + IDLE / 2 < begin + allowed(long) {
            now += IDLE / 2;
            loans.give(ONE, 7, long, now);
            assert_eq!(loans.read(ONE, now), Some(&7));
        }
        assert!(now > begin + IDLE);
        assert_eq!(loans.read(TWO, now), None, "it has read nothing");
        assert_eq!(loans.read(ONE, begin + allowed(long)), None);
        loans.give(ONE, 7, long, now);
        assert_eq!(loans.read(ONE, now), Some(&7), "anew");
    }
}
