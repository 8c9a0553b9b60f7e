//! Vote registers: written once, all of a group in one block and with one mailed vote to every other
//! voter, never a YES past the deadline, and removed only when every vote has been received, the own
//! one was taken everywhere, the outcome is applied and the time is past. Where shards were joined, an account's is written
//! once more for a hidden move of it that nobody had voted on.

use std::collections::{BTreeMap, BTreeSet};

use cross_shard::Message;
use cross_shard::commit::Decision;
use ledger::ids::{Address, GroupId, TxId};
use ledger::reject::Reject;
use ledger::schema;

use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen};
use crate::state;

/// How long after the deadline a register is kept at least.
const GRACE_MS: u64 = 60_000;

/// A vote in the mail: where it stands in its stream.
#[derive(Clone, Copy)]
struct Mailed {
    seq: u64,
}

/// Registers and votes so far.
#[derive(Default)]
pub struct Registers {
    written: BTreeSet<(TxId, [u8; 32])>,
    removed: BTreeSet<(TxId, [u8; 32])>,
    /// Legs that were voted on.
    spoken: BTreeSet<(TxId, usize)>,
    /// By transaction, source, destination.
    mailed: BTreeMap<(TxId, GroupId, GroupId), Mailed>,
    resolved: BTreeSet<(TxId, GroupId)>,
    /// What a destination has taken of a source's stream: destination, source.
    taken: BTreeMap<(GroupId, GroupId), u64>,
}

/// What a block says about one transaction.
#[derive(Default)]
struct Said {
    voted: Vec<Decision>,
    accounts: BTreeMap<[u8; 32], Decision>,
    mailed: BTreeMap<GroupId, Vec<Decision>>,
}

fn said(block: &BlockSeen) -> BTreeMap<TxId, Said> {
    let mut all: BTreeMap<TxId, Said> = BTreeMap::new();
    for (txid, decision) in &block.votes {
        all.entry(*txid).or_default().voted.push(*decision);
    }
    for write in &block.registers {
        if let Some(register) = &write.value {
            all.entry(write.txid).or_default().accounts.insert(write.partition, register.decision);
        }
    }
    for (dest, _, message) in &block.mail {
        if let Message::Vote(vote) = message {
            all.entry(vote.txid).or_default().mailed.entry(*dest).or_default().push(vote.decision);
        }
    }
    all
}

impl Registers {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let group = block.group;
        for leaf in &block.inbox {
            self.taken.insert((group, leaf.peer), leaf.next_seq);
        }
        for receipt in &block.receipts {
            self.resolved.insert((receipt.txid, group));
        }
        for (dest, seq, message) in &block.mail {
            if let Message::Vote(vote) = message {
                self.mailed.insert((vote.txid, group, *dest), Mailed { seq: *seq });
            }
        }
        let mut voted = BTreeSet::new();
        for (txid, said) in said(block) {
            let accounts = self.vote(facts, block, txid, &said, found);
            voted.extend(accounts.into_iter().map(|partition| (txid, partition)));
        }
        for write in &block.registers {
            let key = (write.txid, write.partition);
            if write.value.is_none() {
                self.removal(facts, block, key, found);
                continue;
            }
            let again = !self.written.insert(key);
            // Where shards were joined, one vote may have been on a clear move of an account and another one is on a hidden one.
            let other_leg = facts.lines.changed() && voted.contains(&key);
            if again && !other_leg {
                found.push(format!("{group} wrote a register of {} again", write.txid));
            }
        }
    }

    /// Registers, mail and what the host is told of a vote agree. Returns the accounts of legs that nobody had voted on.
    fn vote(
        &mut self,
        facts: &Facts,
        block: &BlockSeen,
        txid: TxId,
        said: &Said,
        found: &mut Vec<String>,
    ) -> BTreeSet<[u8; 32]> {
        let group = block.group;
        let Some((tx, operation)) = facts.tx(&txid) else { return BTreeSet::new() };
        let changed = facts.lines.changed();
        if changed && said.voted.is_empty() && said.accounts.is_empty() {
            // A vote that was given before goes on to others.
            return BTreeSet::new();
        }
        let [decision] = said.voted[..] else {
            found.push(format!("{group} wrote registers of {txid} and voted {:?}", said.voted));
            return BTreeSet::new();
        };
        if said.accounts.values().any(|other| *other != decision) {
            found.push(format!("{group} voted {decision:?} on {txid}; its registers differ: {:?}", said.accounts));
        }
        // Another ledger is told of a NO without its reason.
        let told = |dest: &GroupId| match decision {
            Decision::No(_) if dest.ledger() != group.ledger() => Decision::No(Reject::RefusedElsewhere),
            Decision::Yes | Decision::No(_) => decision,
        };
        let fresh = |at: &usize| facts.speaks(tx, &tx.legs[*at], group) && !self.spoken.contains(&(txid, *at));
        let fresh: Vec<usize> = (0..tx.legs.len()).filter(fresh).collect();
        for at in (0..tx.legs.len()).filter(|at| changed && !fresh.contains(at)) {
            let leg = &tx.legs[at];
            let own = facts.concerns(tx, leg, group) || self.spoken.contains(&(txid, at));
            let heard = |dest: &GroupId| facts.concerns(tx, leg, *dest);
            if !own && !said.mailed.iter().any(|(dest, mailed)| heard(dest) && mailed.contains(&told(dest))) {
                found.push(format!("{group} voted {decision:?} on {txid} and told nobody who votes on {leg:?}"));
            }
        }
        for other in tx.voters.iter().filter(|other| !changed && **other != group) {
            if said.mailed.get(other).map(Vec::as_slice) != Some(&[told(other)]) {
                found.push(format!(
                    "{group} voted {decision:?} on {txid} and mailed {:?} to {other}",
                    said.mailed.get(other)
                ));
            }
        }
        if !changed && said.mailed.keys().any(|dest| *dest == group || !tx.voters.contains(dest)) {
            found.push(format!("{group} mailed its vote on {txid} to somebody who does not vote"));
        }
        let own = fresh.iter().map(|at| &tx.legs[*at]).filter(|leg| facts.lies(leg, group));
        let own: BTreeSet<Address> = own.map(|leg| leg.account).collect();
        self.spoken.extend(fresh.into_iter().map(|at| (txid, at)));
        let own: BTreeSet<[u8; 32]> = own.iter().map(super::own::partition).collect();
        let have: BTreeSet<[u8; 32]> = said.accounts.keys().copied().collect();
        let complete = if decision == Decision::Yes { own == have } else { have.is_subset(&own) };
        if !complete {
            found.push(format!("{group} voted {decision:?} on {txid} under {} of {} accounts", have.len(), own.len()));
        }
        if decision == Decision::Yes && block.header.time_ms > operation.valid_until {
            found.push(format!("{group} voted YES on {txid} after its deadline"));
        }
        own
    }

    /// The four conditions, each from what other blocks have shown.
    fn removal(&mut self, facts: &Facts, block: &BlockSeen, key: (TxId, [u8; 32]), found: &mut Vec<String>) {
        let (txid, group) = (key.0, block.group);
        if !self.written.contains(&key) || !self.removed.insert(key) {
            return found.push(format!("{group} removed a register of {txid} that is not there"));
        }
        let Some((tx, operation)) = facts.tx(&txid) else { return };
        let mut early = |why: String| found.push(format!("{group} removed a register of {txid}, but {why}"));
        let taken = |dest: GroupId, source: GroupId| self.taken.get(&(dest, source)).copied().unwrap_or(0);
        // Where shards were cut and joined, votes have gone on from stream to stream: what counts is that all have voted.
        let changed = facts.lines.changed();
        for (at, leg) in tx.legs.iter().enumerate().filter(|_| changed) {
            if !self.spoken.contains(&(txid, at)) {
                early(format!("nobody has voted on {leg:?}"));
            }
        }
        for other in tx.voters.iter().copied().filter(|other| !changed && *other != group) {
            match self.mailed.get(&(txid, other, group)) {
                Some(mailed) if taken(group, other) > mailed.seq => {}
                _ => early(format!("has not received the vote of {other}")),
            }
            match self.mailed.get(&(txid, group, other)) {
                Some(mailed) if taken(other, group) > mailed.seq => {}
                _ => early(format!("{other} has not taken its vote")),
            }
        }
        let resolved = self.resolved.range((txid, GroupId(0))..=(txid, GroupId(u64::MAX)));
        if !resolved.map(|(_, by)| *by).any(|by| facts.lines.descends(group, by)) {
            early("it has not resolved it".to_owned());
        }
        if block.header.time_ms.0 <= operation.valid_until.0 + GRACE_MS {
            early("its time is not past".to_owned());
        }
    }
}

impl Checker for Registers {
    fn name(&self) -> &'static str {
        "registers"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if let (Seen::Block(block), true) = (seen, first) {
            self.block(facts, block, found);
        }
    }

    fn audit(&mut self, _: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        for (txid, _) in self.written.difference(&self.removed) {
            found.push(format!("a register of {txid} is never removed"));
        }
        for replica in replicas {
            let open = state::scan(replica.kv, &[schema::DEADLINE]).len();
            if open > 0 {
                found.push(format!("{} has {open} open deadlines on node {}", replica.group, replica.node));
            }
        }
    }
}
