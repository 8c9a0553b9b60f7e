//! Who pays whom in a benchmark: payers alike or skewed, payees in the payer's shard or in another.

use std::collections::BTreeMap;

use ledger::{GroupId, Layout};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};

use super::sign::Party;
use crate::error::CliError;

/// The same pairs in every run, so that runs compare.
const SEED: u64 = 0x5ea_a11;

/// Positions of a payer and a payee among the accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) index: u64,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Draws pairs without end.
pub(super) struct Pairs {
    random: ChaCha8Rng,
    homes: Vec<GroupId>,
    by_home: BTreeMap<GroupId, Vec<usize>>,
    zipf: Option<Zipf<f64>>,
    cross_pct: u64,
    next: u64,
}

impl Pairs {
    /// Over these accounts.
    ///
    /// # Errors
    /// When payments cannot cross as asked, or the skew is no number.
    pub(super) fn new(parties: &[Party], layout: &Layout, cross_pct: u8, zipf: Option<f64>) -> Result<Self, CliError> {
        let homes: Vec<GroupId> = parties.iter().map(|party| layout.locate(&party.address)).collect();
        let mut by_home: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        for (at, home) in homes.iter().enumerate() {
            by_home.entry(*home).or_default().push(at);
        }
        if cross_pct > 0 && by_home.len() < 2 {
            let cause = format!("--cross {cross_pct} needs accounts in two shards, and all are in one");
            return Err(CliError::usage("bench_cross", cause, "use --shards 2 or more, and more --accounts"));
        }
        let zipf = zipf.map(|skew| Zipf::new(parties.len() as f64, skew)).transpose().map_err(|error| {
            CliError::usage("bench_zipf", format!("--zipf: {error}"), "use a number from 0 to about 2")
        })?;
        Ok(Self { random: ChaCha8Rng::seed_from_u64(SEED), homes, by_home, zipf, cross_pct: cross_pct.into(), next: 0 })
    }

    pub(super) fn next(&mut self) -> Pair {
        let index = self.next;
        self.next += 1;
        let from = self.payer();
        let home = self.homes[from];
        // Spread evenly, so that any stretch of payments has the asked share.
        let crosses = (index + 1) * self.cross_pct / 100 > index * self.cross_pct / 100;
        let to = if crosses { self.elsewhere(home) } else { self.same(from, home) };
        Pair { index, from, to }
    }

    fn payer(&mut self) -> usize {
        match &self.zipf {
            // Ranks count from 1.
            Some(zipf) => (zipf.sample(&mut self.random) as usize).clamp(1, self.homes.len()) - 1,
            None => self.random.random_range(0..self.homes.len()),
        }
    }

    /// Another account of the same shard; the payer itself when it is alone there.
    fn same(&mut self, from: usize, home: GroupId) -> usize {
        let there = &self.by_home[&home];
        let drawn = self.random.random_range(0..there.len());
        if there[drawn] == from { there[(drawn + 1) % there.len()] } else { there[drawn] }
    }

    /// An account of another shard; there is one, or crossing was refused at the start.
    fn elsewhere(&mut self, home: GroupId) -> usize {
        loop {
            let drawn = self.random.random_range(0..self.homes.len());
            if self.homes[drawn] != home {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::sign::parties;

    fn some(count: usize) -> Vec<Party> {
        let names: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        parties(b"pairs", &names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn as_many_cross_as_asked() {
        let (parties, layout) = (some(100), Layout::even(4));
        for pct in [0u8, 1, 25, 100] {
            let mut pairs = Pairs::new(&parties, &layout, pct, None).unwrap();
            let home = |at: usize| layout.locate(&parties[at].address);
            let drawn: Vec<Pair> = (0..1000).map(|_| pairs.next()).collect();
            let crossing = drawn.iter().filter(|pair| home(pair.from) != home(pair.to)).count();
            assert_eq!(crossing, usize::from(pct) * 10);
            assert!(drawn.iter().all(|pair| pair.from != pair.to));
        }
    }

    #[test]
    fn skew_prefers_the_first_accounts() {
        let parties = some(100);
        let mut pairs = Pairs::new(&parties, &Layout::even(1), 0, Some(1.2)).unwrap();
        let first = (0..1000).filter(|_| pairs.next().from < 5).count();
        assert!(first > 400, "{first}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let code = |error: CliError| (error.code, error.exit);
        let one = Pairs::new(&some(10), &Layout::even(1), 50, None).err().map(code);
        assert_eq!(one, Some(("bench_cross".to_owned(), 2)));
        let negative = Pairs::new(&some(10), &Layout::even(1), 0, Some(-1.0)).err().map(code);
        assert_eq!(negative, Some(("bench_zipf".to_owned(), 2)));
        let alone = some(1);
        let mut pairs = Pairs::new(&alone, &Layout::even(1), 0, None).unwrap();
        assert_eq!(pairs.next(), Pair { index: 0, from: 0, to: 0 });
    }
}
