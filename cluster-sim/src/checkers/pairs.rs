//! Pairs of ledgers: never does a channel send home more of an asset than came from there, nor does
//! the home take back more than is out; and the accounts that count it say what the books say.

use std::collections::{BTreeMap, BTreeSet};

use ledger::ids::{Address, AssetId, GroupId, GroupKind, LedgerId};
use ledger::pair::Pair;
use ledger::rules::{HistoryKind, HistoryLine};
use ledger::schema;
use ledger::tx::Move;

use super::{Checker, Facts, Moment, RawReplica, Seen, own};
use crate::state;
use crate::workload::Operation;

/// What each side of a pair counts, by the history of the pair accounts.
#[derive(Default)]
pub struct Pairs {
    /// What is in a channel, by its own account.
    inside: BTreeMap<(GroupId, AssetId), i128>,
    /// What is out in it, by the home's account.
    out: BTreeMap<(GroupId, AssetId), i128>,
}

/// Whether an account is a pair account that a transaction counts on.
#[must_use]
pub fn is_pair(operation: &Operation, account: &Address) -> bool {
    operation.moves.iter().zip(&operation.ledgers).any(|(mv, here)| match mv {
        Move::Transfer { asset, ledger, .. } => {
            [*ledger, *here].iter().any(|peer| own::pair_address(*peer, asset) == *account)
        }
        _ => false,
    })
}

impl Pairs {
    fn line(&mut self, facts: &Facts, group: GroupId, line: &HistoryLine, found: &mut Vec<String>) {
        let sign: i128 = match line.kind {
            HistoryKind::Arrived => 1,
            HistoryKind::Departed => -1,
            _ => return,
        };
        let amount = sign * i128::try_from(line.amount).unwrap_or(i128::MAX);
        let key = if group.kind() == Some(GroupKind::Channel) {
            (line.account == own::pair_address(LedgerId::MAIN, &line.asset)).then_some((group, line.asset))
        } else {
            let of = |channel: &GroupId| line.account == own::pair_address(LedgerId::of_channel(*channel), &line.asset);
            let peer = facts.channels().find(of);
            peer.map(|channel| (channel, line.asset))
        };
        // The payer is told of what departs, too.
        let Some(key) = key else { return };
        let count = if group == key.0 {
            let count = self.inside.entry(key).or_insert(0);
            *count += amount;
            *count
        } else {
            if !facts.lives(&line.account, group) {
                found.push(format!("{group} counts for {}, which lies elsewhere", key.0));
            }
            let count = self.out.entry(key).or_insert(0);
            *count -= amount;
            *count
        };
        if count < 0 {
            found.push(format!("by what {group} counts, {count} of {} are in {}", line.asset, key.0));
        }
    }

    /// The pair account of a replica, against the books.
    fn compare(
        replica: &RawReplica<'_>,
        peer: LedgerId,
        asset: &AssetId,
        expected: i128,
        found: &mut Vec<String>,
    ) -> Result<(), String> {
        let pair: Option<Pair> = state::find(replica.kv, &schema::pair(peer, asset))?;
        let fits = pair.is_some_and(|pair| {
            i128::try_from(pair.amount.posted) == Ok(expected) && pair.amount.held == 0 && pair.refused == 0
        });
        if !fits {
            found.push(format!("{} has {pair:?} of {asset}, and {expected} were exchanged", replica.group));
        }
        Ok(())
    }
}

impl Checker for Pairs {
    fn name(&self) -> &'static str {
        "pairs"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if let (Seen::Block(block), true) = (seen, first) {
            for line in &block.lines {
                self.line(facts, block.group, line, found);
            }
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        // Also what one side alone has ever counted.
        let both: BTreeSet<(GroupId, AssetId)> = self.inside.keys().chain(self.out.keys()).copied().collect();
        for (channel, asset) in &both {
            let of = |book: &BTreeMap<(GroupId, AssetId), i128>| book.get(&(*channel, *asset)).copied().unwrap_or(0);
            let (inside, out) = (of(&self.inside), of(&self.out));
            if out != inside {
                found.push(format!("{inside} of {asset} are in {channel}, and {out} out there"));
            }
            if !self.inside.contains_key(&(*channel, *asset)) {
                // Nothing ever arrived there: it keeps no account of it.
                continue;
            }
            let peer = LedgerId::of_channel(*channel);
            let home = facts.home(&own::pair_address(peer, asset));
            for replica in replicas {
                let of = if replica.group == *channel {
                    LedgerId::MAIN
                } else if replica.group == home {
                    peer
                } else {
                    continue;
                };
                if let Err(error) = Self::compare(replica, of, asset, inside, found) {
                    found.push(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cross_shard::Message;
    use ledger::committee::Committee;
    use ledger::ids::{Epoch, Incarnation, TxId};

    use super::super::testing::Bench;
    use super::*;

    #[test]
    fn what_a_channel_has_that_was_founded_meanwhile_is_counted() {
        let (channel, asset) = (GroupId::channel(0), AssetId([1; 16]));
        let account = own::pair_address(LedgerId::of_channel(channel), &asset);
        let (kind, txid) = (HistoryKind::Arrived, TxId::default());
        // More comes back than ever went there.
        let line = HistoryLine { account, kind, txid, asset, amount: 5, other: None };
        for founded in [false, true] {
            let mut bench = Bench::new(Pairs::default());
            let home = bench.facts.home(&account);
            if founded {
                let committee = Committee::majority(channel, Incarnation(0), Epoch(0), Vec::new());
                bench.beacon(1, &[], vec![(home, Message::CommitteeUpdate(committee))]);
            }
            let mut found = Vec::new();
            bench.checker.line(&bench.facts, home, &line, &mut found);
            assert_eq!(found.len(), usize::from(founded), "{found:?}");
        }
    }

    #[test]
    fn what_one_side_alone_has_counted_is_missed_on_the_other() {
        let key = (GroupId::channel(0), AssetId([1; 16]));
        let count = |amount: i128| BTreeMap::from([(key, amount)]);
        for (inside, out, missed) in [
            (count(5), count(5), false),
            (count(5), count(4), true),
            (count(5), BTreeMap::new(), true),
            (BTreeMap::new(), count(5), true),
            (BTreeMap::new(), BTreeMap::new(), false),
        ] {
            let facts = Bench::new(Pairs::default()).facts;
            let (mut pairs, mut found) = (Pairs { inside, out }, Vec::new());
            pairs.audit(&facts, Moment::End, &[], &mut found);
            assert_eq!(!found.is_empty(), missed, "{found:?}");
        }
    }
}
