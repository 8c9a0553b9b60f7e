//! Who waits for what at a replica that leads, as the production host keeps it: gone with the
//! leadership, and rebuilt by clients that ask again.

use std::collections::BTreeMap;

use cross_shard::commit::Decision;
use ledger::ids::{GroupId, NodeId, TxId};
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;

use crate::wire::Reply;

/// A request and its answer.
pub type Answer = (u32, Reply);

#[derive(Clone, Copy)]
struct Waiter {
    request: u32,
    wants_applied: bool,
}

struct Unapplied {
    request: u32,
    /// Streams and what has to be taken of them.
    mail: Vec<(GroupId, u64)>,
}

/// The waiters of one replica.
#[derive(Default)]
pub struct Waiters {
    waiting: BTreeMap<TxId, Vec<Waiter>>,
    unapplied: Vec<Unapplied>,
    /// Everything below has been taken by the destination.
    taken: BTreeMap<GroupId, u64>,
}

impl Waiters {
    /// Somebody waits for a transaction.
    pub fn wait(&mut self, txid: TxId, request: u32, wants_applied: bool) {
        let waiters = self.waiting.entry(txid).or_default();
        match waiters.iter_mut().find(|waiter| waiter.request == request) {
            Some(waiter) => waiter.wants_applied |= wants_applied,
            None => waiters.push(Waiter { request, wants_applied }),
        }
    }

    /// The group voted. Whoever waits goes on waiting for the outcome.
    #[must_use]
    pub fn vote(&self, txid: &TxId, decision: Decision) -> Vec<Answer> {
        let waiters = self.waiting.get(txid).map_or(&[][..], Vec::as_slice);
        waiters.iter().map(|waiter| (waiter.request, Reply::Voted(decision))).collect()
    }

    /// The transaction has its receipt.
    pub fn receipt(&mut self, receipt: &Receipt) -> Vec<Answer> {
        let mut answers = Vec::new();
        for waiter in self.waiting.remove(&receipt.txid).unwrap_or_default() {
            answers.extend(self.known(waiter.request, waiter.wants_applied, receipt));
        }
        answers
    }

    /// Answers with a receipt, and with its being applied when it is.
    pub fn known(&mut self, request: u32, wants_applied: bool, receipt: &Receipt) -> Vec<Answer> {
        let mut answers = vec![(request, Reply::Receipt(receipt.clone()))];
        if let (Outcome::Committed { mail }, true) = (&receipt.outcome, wants_applied) {
            let missing = |line: &&(GroupId, u64)| self.taken.get(&line.0).copied().unwrap_or(0) <= line.1;
            let mail: Vec<(GroupId, u64)> = mail.iter().filter(missing).copied().collect();
            if mail.is_empty() {
                answers.push((request, Reply::Applied));
            } else {
                self.unapplied.push(Unapplied { request, mail });
            }
        }
        answers
    }

    /// A transaction was refused without a receipt.
    pub fn refuse(&mut self, txid: &TxId, reply: &Reply) -> Vec<Answer> {
        let waiters = self.waiting.remove(txid).unwrap_or_default();
        waiters.into_iter().map(|waiter| (waiter.request, reply.clone())).collect()
    }

    /// A destination has taken everything below `next_seq`.
    pub fn taken(&mut self, dest: GroupId, next_seq: u64) -> Vec<Answer> {
        let known = self.taken.entry(dest).or_insert(0);
        *known = next_seq.max(*known);
        for unapplied in &mut self.unapplied {
            unapplied.mail.retain(|(to, seq)| *to != dest || *seq >= next_seq);
        }
        let mut answers = Vec::new();
        self.unapplied.retain(|unapplied| {
            if unapplied.mail.is_empty() {
                answers.push((unapplied.request, Reply::Applied));
            }
            !unapplied.mail.is_empty()
        });
        answers
    }

    /// The leadership is gone: everybody is sent elsewhere.
    pub fn leadership_lost(&mut self, leader: Option<NodeId>) -> Vec<Answer> {
        self.unapplied.clear();
        let waiting = std::mem::take(&mut self.waiting);
        let waiters = waiting.into_values().flatten();
        waiters.map(|waiter| (waiter.request, Reply::NotLeader(leader))).collect()
    }

    /// The reply to a refusal.
    #[must_use]
    pub fn refusal(reject: Reject, leader: Option<NodeId>) -> Reply {
        match reject {
            Reject::NotLeader => Reply::NotLeader(leader),
            other => Reply::Refused(other),
        }
    }
}
