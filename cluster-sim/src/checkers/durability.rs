//! Durability: what a client was told stays true. The entry behind every acknowledged receipt and
//! behind every vote that a client decided by is on the disks of a majority at any time, after every
//! crash above all: of which nodes, [`super::quorums`] works out; the same receipt is found again
//! wherever its block is; a decision is what every group comes to; what is applied has been taken by
//! every group it went to.

use std::collections::BTreeMap;

use consensus::port::Position;
use cross_shard::commit::Decision;
use ledger::ids::{GroupId, TxId};
use ledger::receipt::{Outcome, Receipt};

use super::quorums::Quorums;
use super::{BftSeen, BlockSeen, Checker, Facts, Moment, RawReplica, Seen, own};
use crate::state;

/// What clients were told and where its entries stand.
#[derive(Default)]
pub struct Durability {
    /// Where the entry stands that made a receipt.
    receipts: BTreeMap<(TxId, GroupId), (Position, Receipt)>,
    /// Where the entry stands that made a vote.
    votes: BTreeMap<(TxId, GroupId), (Position, Decision)>,
    acknowledged: BTreeMap<(TxId, GroupId), Receipt>,
    told: BTreeMap<(TxId, GroupId), Decision>,
    decided: BTreeMap<TxId, bool>,
    /// What a destination has taken of a source's stream: destination, source.
    taken: BTreeMap<(GroupId, GroupId), u64>,
    quorums: Quorums,
}

impl Durability {
    fn block(&mut self, facts: &Facts, block: &BlockSeen) {
        let committee = |hash| facts.committee(block.group, hash);
        if let Some(by) = committee(&block.header.committee_hash) {
            let next = committee(&block.header.next_committee_hash);
            self.quorums.ordered(block.group, block.position.index, by, next);
        }
        for receipt in &block.receipts {
            let line = (block.position, receipt.clone());
            self.receipts.entry((receipt.txid, block.group)).or_insert(line);
        }
        for (txid, decision) in &block.votes {
            self.votes.entry((*txid, block.group)).or_insert((block.position, *decision));
        }
        for leaf in &block.inbox {
            self.taken.insert((block.group, leaf.peer), leaf.next_seq);
        }
    }

    fn acknowledge(&mut self, receipt: &Receipt, found: &mut Vec<String>) {
        let key = (receipt.txid, receipt.group);
        match self.receipts.get(&key) {
            None => found.push(format!("{} was acknowledged before any replica had persisted it", receipt.txid)),
            Some((_, kept)) if kept != receipt => {
                found.push(format!("{} was acknowledged as {receipt:?} and persisted as {kept:?}", receipt.txid));
            }
            Some(_) => {}
        }
        self.acknowledged.insert(key, receipt.clone());
    }

    fn tell(&mut self, facts: &Facts, txid: TxId, group: GroupId, decision: Decision, found: &mut Vec<String>) {
        // Or it has what a group has said that it came from.
        let votes = self.votes.range((txid, GroupId(0))..=(txid, GroupId(u64::MAX)));
        let mut of_line = votes.filter(|((_, by), _)| facts.lines.descends(group, *by));
        if !of_line.any(|(_, vote)| vote.1 == decision) {
            found.push(format!("a client was told of {decision:?} on {txid}, which {group} has not persisted"));
        }
        self.told.insert((txid, group), decision);
    }

    fn decide(&mut self, facts: &Facts, txid: TxId, committed: bool, found: &mut Vec<String>) {
        if self.decided.insert(txid, committed).is_some_and(|before| before != committed) {
            found.push(format!("clients were told that {txid} commits and that it does not"));
        }
        let Some((tx, _)) = facts.tx(&txid) else { return };
        let votes = self.votes.range((txid, GroupId(0))..=(txid, GroupId(u64::MAX)));
        let agreed: Vec<GroupId> =
            votes.filter(|(_, vote)| vote.1 == Decision::Yes).map(|((_, group), _)| *group).collect();
        let yes = |leg: &own::Leg| agreed.iter().any(|group| facts.speaks(tx, leg, *group));
        // Where shards were joined, one of them may have decided it alone.
        let alone = facts.lines.changed() && agreed.is_empty();
        if committed && tx.voters.len() > 1 && !alone && !tx.legs.iter().all(yes) {
            found.push(format!("a client was told that {txid} commits before every group had voted yes"));
        }
    }

    fn applied(&self, facts: &Facts, txid: TxId, group: GroupId, found: &mut Vec<String>) {
        let all = self.receipts.range((txid, GroupId(0))..=(txid, GroupId(u64::MAX)));
        let mut of_line = all.filter(|((_, by), _)| facts.lines.descends(group, *by)).map(|(_, line)| line);
        let own = self.receipts.get(&(txid, group));
        let Some((_, receipt)) = own.or_else(|| of_line.next()) else {
            return found.push(format!("{txid} was said to be applied in {group}, which has not resolved it"));
        };
        let Outcome::Committed { mail } = &receipt.outcome else { return };
        // What had not been taken when a shard ended has gone on in other streams.
        let ended = |dest: &GroupId| facts.lines.retired(*dest) || facts.lines.retired(receipt.group);
        for (dest, seq) in mail.iter().filter(|(dest, _)| !ended(dest)) {
            if self.taken.get(&(*dest, group)).copied().unwrap_or(0) <= *seq {
                found.push(format!("{txid} was said to be applied; {dest} has not taken its credit from {group}"));
            }
        }
    }

    /// Who has what, and who counts.
    fn disks(&mut self, seen: &Seen) {
        match seen {
            Seen::Block(block) => self.quorums.applied(block.group, block.node, block.position.index),
            Seen::Voters { group, index, voters, .. } => self.quorums.voters(*group, *index, voters),
            Seen::Fetched { node, group, index, .. } | Seen::Bft(BftSeen::Installed { node, group, index, .. }) => {
                self.quorums.fetched(*group, *node, *index);
            }
            Seen::Left { node, group, rejoins, .. } => self.quorums.left(*group, *node, *rejoins),
            _ => {}
        }
    }

    fn on_disks(&self, facts: &Facts, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        let receipts = self.acknowledged.keys().filter_map(|key| Some((*key, "receipt", self.receipts.get(key)?.0)));
        let votes = self.told.keys().filter_map(|key| Some((*key, "vote", self.votes.get(key)?.0)));
        for ((txid, group), what, position) in receipts.chain(votes) {
            if facts.lines.retired(group) {
                // Its log goes with it; what it had is in the states of those that came from it.
                continue;
            }
            if let Some(holding) = self.quorums.lacks(replicas, group, position) {
                found
                    .push(format!("a client knows the {what} of {txid}, whose entry is on {holding} disks of {group}"));
            }
        }
    }

    fn in_state(&self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        for replica in replicas {
            for ((txid, group), receipt) in &self.acknowledged {
                let own = *group == replica.group;
                if !own && !facts.lines.descends(replica.group, *group) {
                    continue;
                }
                match state::receipt(replica.kv, txid) {
                    Ok(Some(kept)) if kept == *receipt => {}
                    // Of two that were joined each had its own, and one of them is kept.
                    Ok(Some(kept)) if !own && own::committed(&kept) == own::committed(receipt) => {}
                    Ok(Some(kept)) => found
                        .push(format!("{txid} was acknowledged as {receipt:?}; node {} has {kept:?}", replica.node)),
                    Ok(None) if moment == Moment::End => {
                        found.push(format!("{txid} was acknowledged; node {} has no receipt of it", replica.node));
                    }
                    Ok(None) => {}
                    Err(error) => found.push(format!("node {}: {error}", replica.node)),
                }
            }
        }
    }

    /// Every group came to what clients were told.
    fn outcomes(&self, facts: &Facts, found: &mut Vec<String>) {
        for (txid, committed) in &self.decided {
            let Some((tx, _)) = facts.tx(txid) else { continue };
            let receipts = self.receipts.range((*txid, GroupId(0))..=(*txid, GroupId(u64::MAX)));
            let receipts: Vec<(GroupId, bool)> =
                receipts.map(|((_, group), line)| (*group, own::committed(&line.1))).collect();
            for leg in &tx.legs {
                let said = receipts.iter().filter(|(group, _)| facts.concerns(tx, leg, *group));
                let there: Vec<bool> = said.map(|(_, committed)| *committed).collect();
                if there.is_empty() || there.iter().any(|there| there != committed) {
                    let group = leg.group;
                    found.push(format!("a client was told {committed} about {txid}; {group} says {there:?}"));
                }
            }
        }
    }
}

impl Checker for Durability {
    fn name(&self) -> &'static str {
        "durability"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        self.disks(seen);
        let txid = |operation: &u32| facts.operation(*operation).map(|operation| operation.txid);
        match seen {
            Seen::Block(block) if first => self.block(facts, block),
            Seen::Acknowledged { receipt, .. } => self.acknowledge(receipt, found),
            Seen::Told { operation, group, decision } => {
                if let Some(txid) = txid(operation) {
                    self.tell(facts, txid, *group, *decision, found);
                }
            }
            Seen::Decided { operation, committed } => {
                if let Some(txid) = txid(operation) {
                    self.decide(facts, txid, *committed, found);
                }
            }
            Seen::Applied { operation, group } => {
                if let Some(txid) = txid(operation) {
                    self.applied(facts, txid, *group, found);
                }
            }
            Seen::Block(_)
            | Seen::Bft(_)
            | Seen::Stint { .. }
            | Seen::Started { .. }
            | Seen::Born(_)
            | Seen::Founded(_)
            | Seen::Fetched { .. }
            | Seen::Left { .. }
            | Seen::Voters { .. }
            | Seen::KeyGone { .. }
            | Seen::Given { .. }
            | Seen::Admitted { .. }
            | Seen::Role { .. }
            | Seen::Flushed { .. }
            | Seen::Certified { .. }
            | Seen::PeerTook { .. }
            | Seen::Known { .. }
            | Seen::Refused { .. } => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        self.on_disks(facts, replicas, found);
        match moment {
            Moment::Crash | Moment::End => self.in_state(facts, moment, replicas, found),
            Moment::Passing => {}
        }
        if moment == Moment::End {
            self.outcomes(facts, found);
        }
    }
}
