//! Atomicity: a transaction commits in all groups that vote on it or in none. A commit is preceded
//! by a YES of every voter, an abort by a NO of one; each group votes once and says so once; in the
//! end every group that had to has voted and knows the outcome.

use std::collections::BTreeMap;

use cross_shard::commit::Decision;
use ledger::ids::{GroupId, TxId};
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;

use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen, own};
use crate::workload::Purpose;

/// Votes and outcomes so far.
#[derive(Default)]
pub struct Atomicity {
    votes: BTreeMap<(TxId, GroupId), Decision>,
    outcomes: BTreeMap<(TxId, GroupId), bool>,
    decided: BTreeMap<TxId, bool>,
}

impl Atomicity {
    fn vote(&mut self, facts: &Facts, group: GroupId, txid: TxId, decision: Decision, found: &mut Vec<String>) {
        let Some((tx, operation)) = facts.tx(&txid) else {
            return found.push(format!("{group} voted on {txid}, which nobody sent"));
        };
        if tx.voters.len() < 2 || !tx.voters.contains(&group) {
            found.push(format!("{group} voted on {txid}, on which {:?} vote", tx.voters));
        }
        if operation.purpose == Purpose::Forged {
            found.push(format!("{group} voted on {txid}, whose signatures do not hold"));
        }
        if let Some(first) = self.votes.insert((txid, group), decision) {
            found.push(format!("{group} voted on {txid} twice: {first:?}, then {decision:?}"));
        }
    }

    fn receipt(&mut self, facts: &Facts, group: GroupId, receipt: &Receipt, found: &mut Vec<String>) {
        let txid = receipt.txid;
        let committed = own::committed(receipt);
        let Some((tx, operation)) = facts.tx(&txid) else {
            return found.push(format!("{group} has a receipt of {txid}, which nobody sent"));
        };
        if !tx.voters.contains(&group) {
            found.push(format!("{group} has a receipt of {txid}, on which {:?} vote", tx.voters));
        }
        let never = matches!(operation.purpose, Purpose::Forged | Purpose::Unsigned | Purpose::Withheld);
        if committed && never {
            found.push(format!("{group} committed {txid}, which is {:?}", operation.purpose));
        }
        if self.outcomes.insert((txid, group), committed).is_some() {
            found.push(format!("{group} resolved {txid} twice"));
        }
        let first = *self.decided.entry(txid).or_insert(committed);
        if first != committed {
            found.push(format!("{txid} is split: {group} says {:?}, another group otherwise", receipt.outcome));
        }
        if tx.voters.len() > 1 {
            self.justified(&tx.voters, group, receipt, found);
        }
    }

    /// Whether the votes that an outcome follows from have been written.
    fn justified(&self, voters: &[GroupId], group: GroupId, receipt: &Receipt, found: &mut Vec<String>) {
        let txid = receipt.txid;
        let vote = |of: &GroupId| self.votes.get(&(txid, *of));
        match &receipt.outcome {
            Outcome::Committed { .. } => {
                for other in voters.iter().filter(|other| vote(other) != Some(&Decision::Yes)) {
                    found.push(format!("{group} committed {txid}; the vote of {other} is {:?}", vote(other)));
                }
            }
            Outcome::Rejected(reason) => {
                if vote(&group) != Some(&Decision::No(*reason)) {
                    found.push(format!("{group} rejected {txid} for {reason:?} and voted {:?}", vote(&group)));
                }
            }
            // Another ledger is told of a NO, and never why.
            Outcome::Aborted { group: other, reason } if other.ledger() != group.ledger() => {
                let veiled = *reason == Reject::RefusedElsewhere;
                if !veiled || !matches!(vote(other), Some(Decision::No(_))) {
                    found.push(format!(
                        "{group} aborted {txid} for {reason:?} of {other}, in another ledger, whose vote is {:?}",
                        vote(other)
                    ));
                }
            }
            Outcome::Aborted { group: other, reason } => {
                if *other == group || vote(other) != Some(&Decision::No(*reason)) {
                    found.push(format!(
                        "{group} aborted {txid} for {reason:?} of {other}, whose vote is {:?}",
                        vote(other)
                    ));
                }
            }
        }
    }

    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        for (txid, decision) in &block.votes {
            self.vote(facts, block.group, *txid, *decision, found);
        }
        for receipt in &block.receipts {
            self.receipt(facts, block.group, receipt, found);
        }
    }

    fn complete(&self, facts: &Facts, found: &mut Vec<String>) {
        let touched = self.votes.keys().chain(self.outcomes.keys()).map(|(txid, _)| *txid);
        let mut touched: Vec<TxId> = touched.collect();
        touched.sort_unstable();
        touched.dedup();
        for txid in touched {
            let Some((tx, _)) = facts.tx(&txid) else { continue };
            for group in tx.voters.iter().filter(|_| tx.voters.len() > 1) {
                if !self.votes.contains_key(&(txid, *group)) {
                    found.push(format!("{group} never voted on {txid}"));
                }
                if !self.outcomes.contains_key(&(txid, *group)) {
                    found.push(format!("{group} never resolved {txid}"));
                }
            }
        }
    }
}

impl Checker for Atomicity {
    fn name(&self) -> &'static str {
        "atomicity"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if let (Seen::Block(block), true) = (seen, first) {
            self.block(facts, block, found);
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, _: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment == Moment::End {
            self.complete(facts, found);
        }
    }
}
