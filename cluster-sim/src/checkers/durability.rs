//! Durability: what a client was told stays true. The entry behind every acknowledged receipt is on
//! the disks of a majority at any time, after every crash above all, and the same receipt is found again wherever its block
//! is.

use std::collections::BTreeMap;

use consensus::port::Position;
use ledger::ids::{GroupId, TxId};
use ledger::receipt::Receipt;

use super::{Checker, Facts, Moment, RawReplica, Seen};
use crate::state;

/// Acknowledged receipts and where their entries stand.
#[derive(Default)]
pub struct Durability {
    positions: BTreeMap<TxId, (GroupId, Position)>,
    acknowledged: BTreeMap<TxId, Receipt>,
}

impl Durability {
    fn acknowledge(&mut self, receipt: &Receipt, found: &mut Vec<String>) {
        let txid = receipt.txid;
        if !self.positions.contains_key(&txid) {
            found.push(format!("{txid} was acknowledged before any replica had persisted it"));
        }
        match self.acknowledged.get(&txid) {
            Some(first) if first != receipt => {
                found.push(format!("{txid} was acknowledged with two receipts: {first:?} and {receipt:?}"));
            }
            Some(_) => {}
            None => {
                self.acknowledged.insert(txid, receipt.clone());
            }
        }
    }

    fn on_disks(&self, facts: &Facts, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        for txid in self.acknowledged.keys() {
            let Some((group, position)) = self.positions.get(txid) else { continue };
            let index = usize::try_from(position.index.saturating_sub(1)).unwrap_or(usize::MAX);
            let holding = replicas
                .iter()
                .filter(|replica| replica.group == *group)
                .filter(|replica| replica.log.entries.get(index).is_some_and(|entry| entry.term == position.term))
                .count();
            if 2 * holding <= facts.replicas(*group) {
                found.push(format!("{txid} is acknowledged, but its entry is on {holding} disks of {group} only"));
            }
        }
    }

    fn in_state(&self, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        for replica in replicas {
            for (txid, receipt) in &self.acknowledged {
                if receipt.group != replica.group {
                    continue;
                }
                match state::receipt(replica.kv, txid) {
                    Ok(Some(kept)) if kept == *receipt => {}
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
}

impl Checker for Durability {
    fn name(&self) -> &'static str {
        "durability"
    }

    fn see(&mut self, _: &Facts, seen: &Seen, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) => {
                for receipt in &block.receipts {
                    self.positions.entry(receipt.txid).or_insert((block.group, block.position));
                }
            }
            Seen::Acknowledged { receipt, .. } => self.acknowledge(receipt, found),
            Seen::Started { .. }
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
            Moment::Crash | Moment::End => self.in_state(moment, replicas, found),
            Moment::Passing => {}
        }
    }
}
