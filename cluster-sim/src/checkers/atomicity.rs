//! Atomicity: a transaction commits in all groups that vote on it or in none. A commit is preceded
//! by a YES of every voter, an abort by a NO of one; each group votes once and says so once; in the
//! end every group that had to has voted and knows the outcome. Where shards are cut and joined meanwhile, all of this holds
//! for each leg, by whoever spoke for it when somebody did.

use std::collections::BTreeMap;

use cross_shard::commit::Decision;
use ledger::ids::{GroupId, TxId};
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;

use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen, TxFacts, own};
use crate::workload::Purpose;

/// Votes and outcomes so far.
#[derive(Default)]
pub struct Atomicity {
    /// By leg, as the transaction has them: who spoke for it.
    votes: BTreeMap<(TxId, usize), (GroupId, Decision)>,
    outcomes: BTreeMap<(TxId, GroupId), bool>,
    decided: BTreeMap<TxId, bool>,
}

impl Atomicity {
    fn vote(&mut self, facts: &Facts, group: GroupId, txid: TxId, decision: Decision, found: &mut Vec<String>) {
        let Some((tx, operation)) = facts.tx(&txid) else {
            return found.push(format!("{group} voted on {txid}, which nobody sent"));
        };
        let own: Vec<usize> = (0..tx.legs.len()).filter(|at| facts.speaks(tx, &tx.legs[*at], group)).collect();
        if own.is_empty() || tx.voters.len() < 2 && !facts.lines.changed() {
            found.push(format!("{group} voted on {txid}, on which {:?} vote", tx.voters));
        }
        if operation.purpose == Purpose::Forged {
            found.push(format!("{group} voted on {txid}, whose signatures do not hold"));
        }
        // Of what it speaks for, a group that it came from may have voted on a part.
        let fresh: Vec<usize> = own.into_iter().filter(|at| !self.votes.contains_key(&(txid, *at))).collect();
        if fresh.is_empty() {
            let first = self.said(tx, &txid).next();
            found.push(format!("{group} voted on {txid} twice: {first:?}, then {decision:?}"));
        }
        self.votes.extend(fresh.into_iter().map(|at| ((txid, at), (group, decision))));
    }

    /// The votes on a transaction, by leg.
    fn said<'s>(&'s self, tx: &'s TxFacts, txid: &'s TxId) -> impl Iterator<Item = &'s (GroupId, Decision)> + 's {
        (0..tx.legs.len()).filter_map(move |at| self.votes.get(&(*txid, at)))
    }

    fn receipt(&mut self, facts: &Facts, group: GroupId, receipt: &Receipt, found: &mut Vec<String>) {
        let txid = receipt.txid;
        let committed = own::committed(receipt);
        let Some((tx, operation)) = facts.tx(&txid) else {
            if !facts.overdrafts.contains(&txid) {
                found.push(format!("{group} has a receipt of {txid}, which nobody sent"));
            } else if !matches!(receipt.outcome, Outcome::Rejected(_)) {
                found.push(format!("{group} let {txid} pass, which a liar has made: {:?}", receipt.outcome));
            }
            return;
        };
        if !tx.legs.iter().any(|leg| facts.concerns(tx, leg, group)) {
            found.push(format!("{group} has a receipt of {txid}, on which {:?} vote", tx.voters));
        }
        let never = matches!(operation.purpose, Purpose::Forged | Purpose::Unsigned | Purpose::Withheld);
        if committed && never {
            found.push(format!("{group} committed {txid}, which is {:?}", operation.purpose));
        }
        if self.outcomes.insert((txid, group), committed).is_some() && !facts.lines.changed() {
            found.push(format!("{group} resolved {txid} twice"));
        }
        let first = *self.decided.entry(txid).or_insert(committed);
        if first != committed {
            found.push(format!("{txid} is split: {group} says {:?}, another group otherwise", receipt.outcome));
        }
        let voted = self.said(tx, &txid).next().is_some();
        if voted || tx.voters.len() > 1 && !facts.lines.changed() {
            self.justified(facts, tx, group, receipt, found);
        } else if committed && !tx.legs.iter().all(|leg| facts.lies(leg, group)) {
            found.push(format!("{group} committed {txid} alone, and others have accounts of it"));
        }
    }

    /// Whether the votes that an outcome follows from have been written.
    fn justified(&self, facts: &Facts, tx: &TxFacts, group: GroupId, receipt: &Receipt, found: &mut Vec<String>) {
        let txid = receipt.txid;
        // A vote of a group that has ended comes from one that came from it.
        let said_no = |of: GroupId, reason| {
            let no = |vote: &(GroupId, Decision)| facts.lines.descends(of, vote.0) && vote.1 == Decision::No(reason);
            self.said(tx, &txid).any(no)
        };
        match &receipt.outcome {
            Outcome::Committed { .. } => {
                for (at, leg) in tx.legs.iter().enumerate() {
                    let vote = self.votes.get(&(txid, at));
                    if vote.is_none_or(|(_, decision)| *decision != Decision::Yes) {
                        found.push(format!("{group} committed {txid}; the vote on {leg:?} is {vote:?}"));
                    }
                }
            }
            Outcome::Rejected(reason) => {
                if !said_no(group, *reason) {
                    found.push(format!("{group} rejected {txid} for {reason:?} and did not vote so"));
                }
            }
            // Another ledger is told of a NO, and never why.
            Outcome::Aborted { group: other, reason } if other.ledger() != group.ledger() => {
                let no = |vote: &(GroupId, Decision)| {
                    facts.lines.descends(*other, vote.0) && matches!(vote.1, Decision::No(_))
                };
                if *reason != Reject::RefusedElsewhere || !self.said(tx, &txid).any(no) {
                    found.push(format!(
                        "{group} aborted {txid} for {reason:?} of {other}, in another ledger: it did not say no, or said why"
                    ));
                }
            }
            Outcome::Aborted { group: other, reason } => {
                // It may be one that this group came from, and no other.
                let same = *other == group || facts.lines.descends(*other, group);
                if same || !said_no(*other, *reason) {
                    found.push(format!("{group} aborted {txid} for {reason:?} of {other}, which did not vote so"));
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
        let voted = self.votes.keys().map(|(txid, _)| *txid);
        let mut touched: Vec<TxId> = voted.chain(self.outcomes.keys().map(|(txid, _)| *txid)).collect();
        touched.sort_unstable();
        touched.dedup();
        for txid in touched {
            let Some((tx, _)) = facts.tx(&txid) else { continue };
            if self.said(tx, &txid).next().is_none() && (tx.voters.len() < 2 || facts.lines.changed()) {
                // One group has decided it alone.
                continue;
            }
            let outcomes = self.outcomes.range((txid, GroupId(0))..=(txid, GroupId(u64::MAX)));
            let resolved: Vec<GroupId> = outcomes.map(|((_, group), _)| *group).collect();
            for (at, leg) in tx.legs.iter().enumerate() {
                let group = leg.group;
                if !self.votes.contains_key(&(txid, at)) {
                    found.push(format!("{group}, or who came from it, never voted on {leg:?} of {txid}"));
                }
                if !resolved.iter().any(|group| facts.concerns(tx, leg, *group)) {
                    found.push(format!("{group}, or who came from it, never resolved {leg:?} of {txid}"));
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
