//! What becomes of money in the channel that is founded while the cluster runs, whose members and whose committee change
//! meanwhile: counted, so that runs can be shown to have met it. Judges nothing.

use std::collections::BTreeSet;

use channel::Outcome as Done;
use cross_shard::commit::Decision;
use ledger::ids::{GroupId, LedgerId, TxId};
use ledger::rules::{HistoryKind, HistoryLine};

use super::carried_out;
use crate::checkers::{BlockSeen, Facts, own};
use crate::report::Coverage;

/// One channel, as it changes.
pub(crate) struct Changes {
    channel: Option<GroupId>,
    /// How often its members or its committee have changed.
    count: u64,
    /// What it has agreed to and not heard the outcome of.
    undecided: BTreeSet<TxId>,
}

impl Changes {
    pub(super) fn new(channel: Option<GroupId>) -> Self {
        Self { channel, count: 0, undecided: BTreeSet::new() }
    }

    /// Takes a block of which no replica has told before.
    pub(crate) fn see(&mut self, facts: &Facts, block: &BlockSeen, coverage: &mut Coverage) {
        if self.channel != Some(block.group) {
            return;
        }
        let agreed = block.votes.iter().filter(|(_, decision)| *decision == Decision::Yes);
        self.undecided.extend(agreed.map(|(txid, _)| *txid));
        for receipt in &block.receipts {
            self.undecided.remove(&receipt.txid);
            let Some((tx, _)) = facts.tx(&receipt.txid).filter(|_| own::committed(receipt)) else { continue };
            if tx.voters.len() > 1 {
                coverage.swaps_in_changing_channels += 1;
            } else {
                coverage.payments_behind_a_change += u64::from(self.count > 0);
            }
        }
        let counts = |line: &&HistoryLine| line.account == own::pair_address(LedgerId::MAIN, &line.asset);
        for line in block.lines.iter().filter(counts) {
            coverage.brought_in += u64::from(line.kind == HistoryKind::Arrived);
            coverage.taken_home += u64::from(line.kind == HistoryKind::Departed);
        }
        let height = block.header.height;
        // A command that is sent again has its first outcome.
        let turns = carried_out(
            block,
            |_, done| matches!(done, Done::Joined { height: at } | Done::Left { height: at } if *at == height),
        );
        let hands_over = block.header.committee_hash != block.header.next_committee_hash;
        let changes = turns + u64::from(hands_over);
        self.count += changes;
        if changes > 0 {
            coverage.undecided_at_a_change += self.undecided.len() as u64;
        }
    }
}
