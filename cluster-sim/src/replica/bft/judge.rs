//! What a simulated member asks of a batch before it votes for it: what production's judge asks.

use ledger::ids::Tick;
use shard_node::core::fit;

use crate::replica::Replica;
use crate::sabotage::Sabotage;

impl Replica {
    /// Whether a batch may be voted for: its form, its signatures, and its stamp unless the group has agreed.
    pub(super) fn fit(&self, now: Tick, batch: &[u8], agreed: bool) -> bool {
        let clock = self.guarded_clock(now);
        let unchecked = agreed || self.sabotage == Some(Sabotage::TimeUnchecked);
        let Ok(entry) = fit::entry(batch, (!unchecked).then_some(clock)) else { return false };
        let Ok(found) = fit::transactions(&entry) else { return false };
        let cluster = &self.constants.cluster;
        found.into_iter().all(|(place, bytes)| match fit::decode(cluster, place, bytes) {
            Ok(tx) => self.sabotage == Some(Sabotage::JudgeSkipsSignatures) || tx.verify_signatures().is_ok(),
            Err(_) => false,
        })
    }
}
