//! Who pays whom in a benchmark: payers alike, skewed, or one for all; payees in the payer's group
//! or in another, or one for all; one payer to a transaction, or several in different groups; and
//! some transactions that are in each other's way. The groups are shards of the main ledger, between
//! which payments may cross, or channels, between which only transactions of several payers do.

use std::collections::BTreeMap;

use ledger::GroupId;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};

use crate::error::CliError;

/// The same transactions in every run, so that runs compare.
const SEED: u64 = 0x5ea_a11;
/// The account that makes or receives all payments where one does.
const HOT: usize = 0;

/// What the transactions of a benchmark are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Payments of a hundred between two shards.
    pub cross_pct: u8,
    /// Payers of each transaction, in as many shards.
    pub voters: u8,
    /// Skew of the payers.
    pub zipf: Option<f64>,
    /// One account pays in every transaction.
    pub hot_payer: bool,
    /// One account receives every payment.
    pub hot_payee: bool,
    /// Transactions of a hundred that also write one entry of one account's data.
    pub conflict_pct: u8,
}

impl Default for Shape {
    fn default() -> Self {
        Self { cross_pct: 0, voters: 1, zipf: None, hot_payer: false, hot_payee: false, conflict_pct: 0 }
    }
}

/// One transaction: positions of its payers and payees among the accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) index: u64,
    pub(super) payments: Vec<(usize, usize)>,
    /// The account whose entry is written, too.
    pub(super) writes: Option<usize>,
}

/// The accounts of one shard.
struct Home {
    accounts: Vec<usize>,
    zipf: Option<Zipf<f64>>,
}

/// Draws transactions without end.
pub(super) struct Workload {
    random: ChaCha8Rng,
    shape: Shape,
    homes: Vec<GroupId>,
    by_home: BTreeMap<GroupId, Home>,
    zipf: Option<Zipf<f64>>,
    next: u64,
    payments: u64,
    crossing: u64,
}

impl Workload {
    /// Over accounts in these groups.
    ///
    /// # Errors
    /// When there are too few groups with accounts for what is asked, or the skew is no number.
    pub(super) fn new(homes: Vec<GroupId>, shape: Shape) -> Result<Self, CliError> {
        let mut by_home: BTreeMap<GroupId, Home> = BTreeMap::new();
        for (at, home) in homes.iter().enumerate() {
            by_home.entry(*home).or_insert(Home { accounts: Vec::new(), zipf: None }).accounts.push(at);
        }
        let (shards, voters) = (by_home.len(), usize::from(shape.voters));
        let more = "use more --shards, and more --accounts so that each shard has some";
        if shape.cross_pct > 0 && shards < 2 {
            let cause = format!("--cross {} needs accounts in two shards, and all are in one", shape.cross_pct);
            return Err(CliError::usage("bench_cross", cause, more));
        }
        if voters > shards {
            let cause = format!("--voters {voters} needs accounts in {voters} shards, and there are {shards}");
            return Err(CliError::usage("bench_voters", cause, more));
        }
        if shape.conflict_pct > 0 && voters < 2 {
            let cause = "--conflict needs --voters 2 or more: one group executes its transactions one after the other, so they are never in each other's way";
            return Err(CliError::usage("bench_conflict", cause, "add --voters 2"));
        }
        let skewed = |count: usize| {
            shape.zipf.map(|skew| Zipf::new(count as f64, skew)).transpose().map_err(|error| {
                CliError::usage("bench_zipf", format!("--zipf: {error}"), "use a number from 0 to about 2")
            })
        };
        for home in by_home.values_mut() {
            home.zipf = skewed(home.accounts.len())?;
        }
        let zipf = skewed(homes.len())?;
        let random = ChaCha8Rng::seed_from_u64(SEED);
        Ok(Self { random, shape, homes, by_home, zipf, next: 0, payments: 0, crossing: 0 })
    }

    pub(super) fn next(&mut self) -> Job {
        let index = self.next;
        self.next += 1;
        let writes = share(index, self.shape.conflict_pct).then_some(self.written());
        let payers = self.payers(writes);
        let payments = (0..payers.len()).map(|turn| self.payment(&payers, turn)).collect();
        Job { index, payments, writes }
    }

    /// The account that conflicting transactions write to: not one that is busy for another reason.
    fn written(&self) -> usize {
        self.homes.len() - 1
    }

    /// One payer in each of as many shards as there are voters. Where a transaction writes, too, the
    /// first lives where the written account does, so that no further group votes.
    fn payers(&mut self, writes: Option<usize>) -> Vec<usize> {
        let first = match writes {
            _ if self.shape.hot_payer => HOT,
            Some(written) => self.payer_at(self.homes[written]),
            None => self.payer(),
        };
        let mut payers = vec![first];
        if self.shape.voters > 1 {
            let mut others: Vec<GroupId> =
                self.by_home.keys().copied().filter(|home| *home != self.homes[first]).collect();
            others.shuffle(&mut self.random);
            // With a hot payer, the written account may live elsewhere: that group comes first.
            let written = writes.map(|at| self.homes[at]);
            others.sort_by_key(|home| Some(*home) != written);
            for home in others.into_iter().take(usize::from(self.shape.voters) - 1) {
                let payer = self.payer_at(home);
                payers.push(payer);
            }
        }
        payers
    }

    fn payment(&mut self, payers: &[usize], turn: usize) -> (usize, usize) {
        let (index, from) = (self.payments, payers[turn]);
        self.payments += 1;
        let home = self.homes[from];
        let to = if self.shape.hot_payee {
            if from == HOT { self.same(from, home) } else { HOT }
        } else if !share(index, self.shape.cross_pct) {
            self.same(from, home)
        } else if payers.len() > 1 {
            payers[(turn + 1) % payers.len()]
        } else {
            self.elsewhere(home)
        };
        self.crossing += u64::from(self.homes[to] != home);
        (from, to)
    }

    /// Payments of a hundred so far whose payee lives in another shard than the payer.
    pub(super) fn crossing_pct(&self) -> f64 {
        if self.payments > 0 { self.crossing as f64 * 100.0 / self.payments as f64 } else { 0.0 }
    }

    fn payer(&mut self) -> usize {
        match &self.zipf {
            // Ranks count from 1.
            Some(zipf) => (zipf.sample(&mut self.random) as usize).clamp(1, self.homes.len()) - 1,
            None => self.random.random_range(0..self.homes.len()),
        }
    }

    fn payer_at(&mut self, home: GroupId) -> usize {
        let Home { accounts, zipf } = &self.by_home[&home];
        let rank = match zipf {
            Some(zipf) => (zipf.sample(&mut self.random) as usize).clamp(1, accounts.len()) - 1,
            None => self.random.random_range(0..accounts.len()),
        };
        accounts[rank]
    }

    /// Another account of the same shard; the payer itself when it is alone there.
    fn same(&mut self, from: usize, home: GroupId) -> usize {
        let there = &self.by_home[&home].accounts;
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

/// Whether number `index` is among this many of a hundred. Spread evenly, so that any stretch has
/// the share that was asked for.
fn share(index: u64, pct: u8) -> bool {
    let pct = u64::from(pct);
    (index + 1) * pct / 100 > index * pct / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::sign::parties;
    use ledger::Layout;

    fn homes(accounts: usize, shards: u32) -> Vec<GroupId> {
        let names: Vec<String> = (0..accounts).map(|n| n.to_string()).collect();
        let parties = parties(b"pairs", &names.iter().map(String::as_str).collect::<Vec<_>>());
        let layout = Layout::even(shards);
        parties.iter().map(|party| layout.locate(&party.address)).collect()
    }

    fn workload(accounts: usize, shards: u32, shape: Shape) -> (Workload, Vec<GroupId>) {
        let homes = homes(accounts, shards);
        (Workload::new(homes.clone(), shape).unwrap(), homes)
    }

    #[test]
    fn as_many_cross_as_asked() {
        for (pct, voters) in [(0u8, 1u8), (1, 1), (25, 1), (100, 1), (0, 2), (50, 3), (100, 4)] {
            let (mut load, homes) = workload(100, 4, Shape { cross_pct: pct, voters, ..Shape::default() });
            let jobs: Vec<Job> = (0..1000).map(|_| load.next()).collect();
            let payments = || jobs.iter().flat_map(|job| &job.payments);
            let crossing = payments().filter(|(from, to)| homes[*from] != homes[*to]).count();
            assert_eq!(crossing, usize::from(pct) * 10 * usize::from(voters));
            assert_eq!(load.crossing_pct(), f64::from(pct));
            assert!(payments().all(|(from, to)| from != to));
        }
    }

    #[test]
    fn every_payer_of_a_transaction_lives_in_another_shard() {
        let shape = Shape { voters: 5, zipf: Some(1.1), conflict_pct: 20, ..Shape::default() };
        let (mut load, homes) = workload(200, 8, shape);
        let mut writing = 0;
        for _ in 0..1000 {
            let job = load.next();
            let mut groups: Vec<GroupId> = job.payments.iter().map(|(from, _)| homes[*from]).collect();
            if let Some(written) = job.writes {
                writing += 1;
                assert_eq!(written, 199, "always the same account");
                groups.push(homes[written]);
            }
            groups.sort_unstable();
            groups.dedup();
            assert_eq!(groups.len(), 5);
        }
        assert_eq!(writing, 200);
    }

    #[test]
    fn one_account_is_hot() {
        let (mut load, _) = workload(100, 4, Shape { hot_payee: true, ..Shape::default() });
        let received =
            (0..1000).flat_map(|_| load.next().payments).filter(|(from, to)| *to == HOT || *from == HOT).count();
        assert_eq!(received, 1000);
        let (mut load, _) =
            workload(100, 4, Shape { hot_payer: true, voters: 2, conflict_pct: 10, ..Shape::default() });
        assert!((0..1000).all(|_| load.next().payments[0].0 == HOT));
    }

    #[test]
    fn skew_prefers_the_first_accounts() {
        let (mut load, _) = workload(100, 1, Shape { zipf: Some(1.2), ..Shape::default() });
        let first = (0..1000).filter(|_| load.next().payments[0].0 < 5).count();
        assert!(first > 400, "{first}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |shards, shape| {
            let error = Workload::new(homes(10, shards), shape).err().unwrap();
            (error.code, error.exit)
        };
        let plain = Shape::default();
        for (code, shards, shape) in [
            ("bench_cross", 1, Shape { cross_pct: 50, ..plain }),
            ("bench_voters", 2, Shape { voters: 3, ..plain }),
            ("bench_conflict", 2, Shape { conflict_pct: 5, ..plain }),
            ("bench_zipf", 1, Shape { zipf: Some(-1.0), ..plain }),
        ] {
            assert_eq!(refused(shards, shape), (code.to_owned(), 2));
        }
        let (mut alone, _) = workload(1, 1, plain);
        assert_eq!(alone.next(), Job { index: 0, payments: vec![(0, 0)], writes: None });
    }
}
