//! Hash-locks: each is settled at most once, by its secret before its deadline or by a refund after,
//! and what stands under its payer says which.

use std::collections::{BTreeMap, BTreeSet};

use ledger::hash::Hash32;
use ledger::ids::{Address, GroupId, LockId, TimeMs, TxId};
use ledger::lock::{Lock, LockState, LockTerms};
use ledger::schema;
use ledger::tx::Move;
use sha2::{Digest, Sha256};

use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen, own};
use crate::state;

/// A lock as the load has it.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Its id.
    pub id: LockId,
    /// Whose amount it holds.
    pub from: Address,
    /// What it pays.
    pub terms: LockTerms,
    hash: Hash32,
    deadline: TimeMs,
}

/// How a lock was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settled {
    by: TxId,
    /// The secret of a claim.
    secret: Option<[u8; 32]>,
}

/// Locks that were made and settled, by the blocks seen so far.
#[derive(Default)]
pub struct Locks {
    made: BTreeMap<LockId, Made>,
    settled: BTreeMap<LockId, Settled>,
    /// When each group voted on a transaction of several.
    voted: BTreeMap<(TxId, GroupId), TimeMs>,
}

/// The locks that a transaction makes.
fn made(txid: TxId, moves: &[Move]) -> impl Iterator<Item = Made> {
    moves.iter().enumerate().filter_map(move |(slot, mv)| {
        let Move::Lock { from, to, asset, amount, hash, deadline_ms } = mv else { return None };
        let terms = LockTerms { to: *to, asset: *asset, amount: *amount };
        Some(Made { id: own::lock_id(&txid, slot), from: *from, terms, hash: *hash, deadline: *deadline_ms })
    })
}

/// The lock that a move settles, what it says of it, and the secret it shows.
fn settles(mv: &Move) -> Option<(LockId, LockTerms, Option<[u8; 32]>)> {
    match mv {
        Move::Claim { lock, terms, secret, .. } => Some((*lock, *terms, Some(*secret))),
        Move::Refund { lock, terms, .. } => Some((*lock, *terms, None)),
        _ => None,
    }
}

/// The locks of a replica that are made and not settled, by the receipts on its disk.
#[must_use]
pub fn open(facts: &Facts, replica: &RawReplica<'_>) -> Vec<Made> {
    let done = |txid: &TxId| matches!(state::receipt(replica.kv, txid), Ok(Some(receipt)) if own::committed(&receipt));
    // Where two shards were joined, the receipt may be of the other one.
    let undone = if facts.lines.changed() { super::holds::open(replica) } else { BTreeSet::new() };
    let mut open = BTreeMap::new();
    let mut settled = Vec::new();
    for txid in facts.txs.keys() {
        let Some((_, operation)) = facts.tx(txid) else { continue };
        let undone = |account: &Address| undone.contains(&(*txid, own::partition(account)));
        let here = |made: &Made| facts.lives(&made.from, replica.group) && !undone(&made.from);
        let settled_here = |mv: &&Move| mv.accounts().next().is_none_or(|from| !undone(&from));
        let (new, old): (Vec<Made>, Vec<LockId>) = (
            made(*txid, &operation.moves).filter(here).collect(),
            operation.moves.iter().filter(settled_here).filter_map(|mv| settles(mv).map(|(id, ..)| id)).collect(),
        );
        if (new.is_empty() && old.is_empty()) || !done(txid) {
            continue;
        }
        open.extend(new.into_iter().map(|made| (made.id, made)));
        settled.extend(old);
    }
    open.retain(|id, _| !settled.contains(id));
    open.into_values().collect()
}

impl Locks {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        for (txid, _) in &block.votes {
            self.voted.entry((*txid, block.group)).or_insert(block.header.time_ms);
        }
        for receipt in block.receipts.iter().filter(|receipt| own::committed(receipt)) {
            let Some((_, operation)) = facts.tx(&receipt.txid) else { continue };
            let votes = self.voted.range((receipt.txid, GroupId(0))..=(receipt.txid, GroupId(u64::MAX)));
            let own = votes.filter(|((_, by), _)| facts.lines.descends(block.group, *by)).map(|(_, at)| *at);
            // Of those that it came from the first one: it may have voted on a part.
            let at = own.min().unwrap_or(block.header.time_ms);
            for new in made(receipt.txid, &operation.moves) {
                if self.made.contains_key(&new.id) {
                    continue;
                }
                if facts.lives(&new.from, block.group) {
                    if new.deadline <= at {
                        found
                            .push(format!("the lock {} was made at {at}, after its deadline {}", new.id, new.deadline));
                    }
                    self.made.insert(new.id, new);
                }
            }
            for mv in &operation.moves {
                self.settle(facts, block.group, receipt.txid, mv, at, found);
            }
        }
    }

    fn settle(&mut self, facts: &Facts, group: GroupId, by: TxId, mv: &Move, at: TimeMs, found: &mut Vec<String>) {
        let Some((id, terms, secret)) = settles(mv) else { return };
        let from = mv.accounts().next();
        if from.is_none_or(|from| !facts.lives(&from, group)) {
            return;
        }
        if facts.lines.changed() && self.settled.get(&id).is_some_and(|settled| settled.by == by) {
            // One of two shards that were joined had done so.
            return;
        }
        let Some(lock) = self.made.get(&id) else {
            return found.push(format!("{by} settled the lock {id}, which nobody made"));
        };
        let opens = secret.is_none_or(|secret| Hash32(Sha256::digest(secret).into()) == lock.hash);
        let in_time = if secret.is_some() { at < lock.deadline } else { at >= lock.deadline };
        if !opens || !in_time || terms != lock.terms || from != Some(lock.from) {
            found.push(format!("{by} settled {lock:?} at {at} with {mv:?}"));
        }
        if let Some(earlier) = self.settled.insert(id, Settled { by, secret }) {
            found.push(format!("{by} settled the lock {id}, which {} had settled", earlier.by));
        }
    }

    /// The leaf of a lock, against the books.
    fn compare(&self, replica: &RawReplica<'_>, made: &Made, found: &mut Vec<String>) -> Result<(), String> {
        let leaf: Option<Lock> = state::find(replica.kv, &schema::lock(&made.from, &made.id))?;
        let settled = self.settled.get(&made.id);
        let state_fits = |state: LockState| match (state, settled) {
            (LockState::Open, None) => true,
            (LockState::Claimed { secret, txid, .. }, Some(settled)) => {
                settled.secret == Some(secret) && settled.by == txid
            }
            (LockState::Refunded { txid, .. }, Some(settled)) => settled.secret.is_none() && settled.by == txid,
            _ => false,
        };
        let fits = leaf.is_some_and(|lock| {
            lock.terms == made.terms
                && (lock.hash, lock.deadline_ms) == (made.hash, made.deadline)
                && state_fits(lock.state)
        });
        if !fits {
            found.push(format!("node {} has {leaf:?} of {made:?}, which {settled:?} settled", replica.node));
        }
        Ok(())
    }
}

impl Checker for Locks {
    fn name(&self) -> &'static str {
        "locks"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if let (Seen::Block(block), true) = (seen, first) {
            self.block(facts, block, found);
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        for replica in replicas {
            let here = self.made.values().filter(|made| facts.lives(&made.from, replica.group));
            let expected = here.clone().count();
            for made in here {
                if let Err(error) = self.compare(replica, made, found) {
                    found.push(error);
                }
            }
            let entries = state::scan(replica.kv, &[schema::STATE]);
            let leaves = entries.iter().filter(|(key, _)| key.get(33) == Some(&schema::KIND_LOCK)).count();
            if leaves != expected {
                found.push(format!("{} has {leaves} locks on node {}, not {expected}", replica.group, replica.node));
            }
        }
    }
}
