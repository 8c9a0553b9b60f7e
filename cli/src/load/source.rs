//! Transactions of a benchmark without end: accounts that this process holds the keys of, the groups they live
//! in, who of them pays whom, and the signatures.

use client::PreparedTx;
use ledger::{AssetId, ClusterId, GroupId};
use rayon::prelude::*;

use super::sign::{Leg, Party, Signer, parties};
use super::workload::{Job, Shape, Workload};
use crate::error::CliError;
use crate::output::Output;

/// Transactions drawn and signed at once.
const CHUNK: usize = 8192;

/// Accounts that pay each other.
pub(super) struct Source {
    parties: Vec<Party>,
    homes: Vec<GroupId>,
    workload: Workload,
    signer: Signer,
}

impl Source {
    /// Of accounts in these groups. What two sources sign is never the same transaction.
    ///
    /// # Errors
    /// When there are too few groups for the shape, or the system gives no randomness.
    pub(super) fn new(
        cluster: ClusterId,
        asset: AssetId,
        placed: impl IntoIterator<Item = (Party, GroupId)>,
        shape: Shape,
    ) -> Result<Self, CliError> {
        let (parties, homes): (Vec<Party>, Vec<GroupId>) = placed.into_iter().unzip();
        let workload = Workload::new(homes.clone(), shape)?;
        Ok(Self { parties, homes, workload, signer: Signer::new(cluster, asset)? })
    }

    /// Draws and signs one transaction.
    pub(super) fn next(&mut self) -> PreparedTx {
        self.next_at().1
    }

    /// Draws and signs one transaction, and tells the group of its first payer.
    pub(super) fn next_at(&mut self) -> (GroupId, PreparedTx) {
        let job = self.workload.next();
        let (payer, _) = job.payments[0];
        (self.homes[payer], self.prepare(&job))
    }

    /// Draws and signs that many transactions, on all cores.
    pub(super) fn sign(&mut self, count: usize, output: Output) -> Vec<PreparedTx> {
        let bar = output.bar(count as u64, "signing");
        let mut txs = Vec::with_capacity(count);
        while txs.len() < count {
            let chunk: Vec<Job> = (0..CHUNK.min(count - txs.len())).map(|_| self.workload.next()).collect();
            let source = &*self;
            let signed: Vec<PreparedTx> =
                tokio::task::block_in_place(|| chunk.par_iter().map(|job| source.prepare(job)).collect());
            txs.extend(signed);
            bar.set_position(txs.len() as u64);
        }
        bar.finish_and_clear();
        txs
    }

    /// Payments of a hundred so far whose payee lives in another group than the payer.
    pub(super) fn crossing_pct(&self) -> f64 {
        self.workload.crossing_pct()
    }

    fn prepare(&self, job: &Job) -> PreparedTx {
        let leg = |(from, to): &(usize, usize)| Leg {
            home: self.homes[*from],
            from: &self.parties[*from],
            to: self.parties[*to].address,
        };
        let legs: Vec<Leg<'_>> = job.payments.iter().map(leg).collect();
        self.signer.together(job.index, &legs, job.writes.map(|at| &self.parties[at]))
    }
}

/// Accounts that no run before had.
///
/// # Errors
/// `bench_accounts` when there would be none; that the system gives no randomness.
pub(super) fn accounts(count: u32) -> Result<Vec<Party>, CliError> {
    if count == 0 {
        return Err(CliError::usage("bench_accounts", "--accounts is 0", "use at least 1"));
    }
    let seed: [u8; 32] = crate::setup::pki::random()?;
    let names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(parties(&seed, &names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::tx::ParsedTx;

    #[test]
    fn transactions_are_distinct_and_stay_in_the_ledger_of_their_payer() {
        let cluster = ClusterId(ledger::hash::sha256(b"c"));
        let channels = [GroupId::channel(0), GroupId::channel(1)];
        let placed: Vec<(Party, GroupId)> =
            accounts(10).unwrap().into_iter().zip(channels.into_iter().cycle()).collect();
        let source = |shape| Source::new(cluster, AssetId([1; 16]), placed.clone(), shape).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for mut source in [source(Shape::default()), source(Shape::default())] {
            for tx in (0..50).map(|_| source.next()) {
                let parsed = ParsedTx::decode(&cluster, &tx.bytes).unwrap();
                assert_eq!(parsed.verify_signatures(), Ok(()));
                let plan = router::plan(&ledger::Layout::even(1), &parsed).unwrap();
                assert_eq!(plan.groups().filter(|group| channels.contains(group)).count(), 1);
                assert!(ids.insert(tx.txid), "another source has signed it");
            }
        }
        let mut swaps = source(Shape { voters: 2, ..Shape::default() });
        let parsed = ParsedTx::decode(&cluster, &swaps.next().bytes).unwrap();
        let plan = router::plan(&ledger::Layout::even(1), &parsed).unwrap();
        assert_eq!(plan.groups().collect::<Vec<_>>(), channels);
        assert!(accounts(0).is_err());
    }
}
