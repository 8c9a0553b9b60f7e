//! Isolation: what happens in a channel alone, and what it hides of what others vote on, too, stands in
//! no other group: not in its state, its entries, its history, nor in the mail that waits there.

use std::collections::{BTreeMap, BTreeSet};

use ledger::ids::{GroupId, GroupKind};
use ledger::tx::Move;

use super::{Checker, Facts, Moment, RawReplica, Seen};
use crate::state;

/// Needs no books.
pub struct Isolation;

/// Strings of 32 bytes that may stand in one group only, and what they are of.
struct Needles {
    /// By their first two bytes, so that most of a state is passed over.
    starts: Vec<bool>,
    all: BTreeMap<[u8; 32], (GroupId, String)>,
}

impl Needles {
    fn of(facts: &Facts) -> Self {
        let mut needles = Self { starts: vec![false; 1 << 16], all: BTreeMap::new() };
        for (txid, tx) in &facts.txs {
            let Some(operation) = facts.operation(tx.operation) else { continue };
            let leaves = operation.moves.iter().any(|mv| matches!(mv, Move::Transfer { .. }));
            if let [group] = tx.voters[..]
                && group.kind() == Some(GroupKind::Channel)
                && !leaves
            {
                needles.add(txid.0.0, group, format!("the transaction {txid}"));
            }
            for (group, salt) in operation.hidden.iter().flatten() {
                needles.add(salt.0, *group, format!("a hidden move of {txid}"));
            }
        }
        needles
    }

    fn add(&mut self, bytes: [u8; 32], group: GroupId, what: String) {
        self.starts[usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))] = true;
        self.all.insert(bytes, (group, what));
    }

    fn search(&self, facts: &Facts, there: GroupId, bytes: &[u8], found: &mut Vec<String>) {
        for window in bytes.windows(32) {
            if self.starts[usize::from(u16::from_be_bytes([window[0], window[1]]))]
                && let Ok(window) = <[u8; 32]>::try_from(window)
                && let Some((group, what)) = self.all.get(&window)
                && !facts.lines.descends(there, *group)
            {
                found.push(format!("{there} has {what}, which is of {group} alone"));
            }
        }
    }
}

impl Checker for Isolation {
    fn name(&self) -> &'static str {
        "isolation"
    }

    fn see(&mut self, _: &Facts, _: &Seen, _: bool, _: &mut Vec<String>) {}

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        let needles = Needles::of(facts);
        let mut seen = BTreeSet::new();
        for replica in replicas {
            // All of a group hold the same; that is for another checker.
            if !seen.insert(replica.group) {
                continue;
            }
            for (key, value) in state::scan(replica.kv, &[]) {
                needles.search(facts, replica.group, &key, found);
                needles.search(facts, replica.group, &value, found);
            }
        }
    }
}
