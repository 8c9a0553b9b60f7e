//! What each organisation has in flight over a router, and how much it may have.
//!
//! Owns the counts. A transaction counts for the organisation whose client has sent it first, for as long as its bytes are
//! held. An organisation may have as much as is left free behind that ([`ORG_FLIGHTS_PER_FREE`]): one alone half of all, two a
//! third each, and so on. So whoever comes finds room, however many others take what they can get, and nobody has to be
//! told how many there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ledger::OrgId;
use ledger::limits::ORG_FLIGHTS_PER_FREE;

/// Transactions and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) txs: usize,
    pub(super) bytes: usize,
}

/// What is held at present.
#[derive(Default)]
struct Count {
    txs: AtomicUsize,
    bytes: AtomicUsize,
}

impl Count {
    fn amount(&self) -> Amount {
        Amount { txs: self.txs.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn add(&self, bytes: usize) {
        self.txs.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.txs.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// All transactions that flights hold, those of each organisation, and how much there may be. The bytes are the flights' own:
/// what a message brought shares its buffer, and one transaction would keep all of it.
#[derive(Default)]
pub(super) struct Shares {
    all: Arc<Count>,
    orgs: BTreeMap<Option<OrgId>, Arc<Count>>,
}

impl Shares {
    /// Everything that is held.
    pub(super) fn total(&self) -> Amount {
        self.all.amount()
    }

    /// Whether an organisation may have one more transaction of so many bytes, where all may have `max`. One that has
    /// nothing there is never told to wait for itself. Clients of organisations that the registry does not know share.
    pub(super) fn allows(&self, org: Option<OrgId>, bytes: usize, max: Amount) -> bool {
        let own = self.orgs.get(&org).map_or(Amount::default(), |count| count.amount());
        let total = self.total();
        let first = own.txs == 0 && total.txs < max.txs && total.bytes.saturating_add(bytes) < max.bytes;
        let fits = |own: usize, all: usize, more: usize, max: usize| {
            let free = max.saturating_sub(all.saturating_add(more));
            own.saturating_add(more) <= free.saturating_mul(ORG_FLIGHTS_PER_FREE)
        };
        first || fits(own.txs, total.txs, 1, max.txs) && fits(own.bytes, total.bytes, bytes, max.bytes)
    }

    /// Holds a transaction for an organisation.
    pub(super) fn hold(&mut self, org: Option<OrgId>, bytes: &Bytes) -> HeldTx {
        let own = Arc::clone(self.orgs.entry(org).or_default());
        let counts = [Arc::clone(&self.all), own];
        counts.iter().for_each(|count| count.add(bytes.len()));
        HeldTx { bytes: Bytes::copy_from_slice(bytes), counts }
    }
}

/// A transaction that counts for as long as it is held.
pub(super) struct HeldTx {
    bytes: Bytes,
    counts: [Arc<Count>; 2],
}

impl HeldTx {
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Holds other bytes instead, which nothing else shares.
    pub(super) fn replace(&mut self, bytes: Bytes) {
        for count in &self.counts {
            count.add(bytes.len());
            count.remove(self.bytes.len());
        }
        self.bytes = bytes;
    }
}

impl Drop for HeldTx {
    fn drop(&mut self) {
        self.counts.iter().for_each(|count| count.remove(self.bytes.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORGS: [Option<OrgId>; 4] = [Some(OrgId(1)), Some(OrgId(2)), Some(OrgId(3)), None];

    /// As many as this organisation may have, each of so many bytes.
    fn fill(shares: &mut Shares, org: Option<OrgId>, bytes: usize, max: Amount) -> Vec<HeldTx> {
        let (tx, mut held) = (Bytes::from(vec![7; bytes]), Vec::new());
        while shares.allows(org, bytes, max) {
            held.push(shares.hold(org, &tx));
        }
        held
    }

    #[test]
    fn one_organisation_leaves_as_much_as_it_has_and_so_does_the_next_one() {
        // By number, and by bytes.
        for (bytes, max) in [(1, Amount { txs: 1_000, bytes: 1 << 30 }), (10, Amount { txs: 1 << 20, bytes: 10_000 })] {
            let mut shares = Shares::default();
            let held = ORGS.map(|org| fill(&mut shares, org, bytes, max));
            assert_eq!(held.each_ref().map(Vec::len), [500, 250, 125, 62]);
            assert_eq!(shares.total(), Amount { txs: 937, bytes: 937 * bytes });
            let [first, ..] = held;
            drop(first);
            assert!(shares.allows(ORGS[2], bytes, max), "what is answered makes room for all");
            assert_eq!(shares.total().txs, 437);
        }
    }

    #[test]
    fn what_is_held_instead_counts_for_the_same_organisation() {
        let mut shares = Shares::default();
        let max = Amount { txs: 100, bytes: 100 };
        let mut held = shares.hold(ORGS[0], &Bytes::from_static(b"short"));
        held.replace(Bytes::from(vec![7; 48]));
        assert_eq!((shares.total(), held.bytes().len()), (Amount { txs: 1, bytes: 48 }, 48));
        assert!(!shares.allows(ORGS[0], 3, max) && shares.allows(ORGS[0], 2, max));
        assert!(shares.allows(ORGS[1], 51, max) && !shares.allows(ORGS[1], 52, max), "its first takes what is left");
        drop(held);
        assert_eq!(shares.total(), Amount::default());
    }

    #[test]
    fn one_that_has_nothing_there_finds_room_as_long_as_there_is_any() {
        let mut shares = Shares::default();
        let max = Amount { txs: 8, bytes: 1 << 20 };
        let held: Vec<HeldTx> = (1..=8)
            .map(|org| {
                assert!(shares.allows(Some(OrgId(org)), 1, max), "{org}");
                shares.hold(Some(OrgId(org)), &Bytes::from_static(b"7"))
            })
            .collect();
        assert!(!shares.allows(Some(OrgId(9)), 1, max));
        assert!(shares.orgs.len() == held.len() && Shares::default().allows(None, 1, Amount { txs: 1, bytes: 9 }));
    }

    #[test]
    fn bounds_that_nothing_fits_into_let_nothing_in() {
        let shares = Shares::default();
        assert!(!shares.allows(None, 1, Amount { txs: 0, bytes: 100 }));
        assert!(!shares.allows(None, usize::MAX, Amount { txs: 100, bytes: usize::MAX }));
    }
}
