//! Exactly once: every acknowledged payment was debited once and credited once, what was refused
//! left nothing, and nothing executed that nobody may sign. Judged by a model of accounts that knows
//! only the load and what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use ledger::account::{AccountRecord, Balance};
use ledger::ids::{Address, AssetId, GroupId, TxId};
use ledger::schema;
use ledger::tx::Move;

use super::{Checker, Facts, Moment, RawReplica, Seen};
use crate::state;
use crate::workload::Purpose;

/// What clients were told and what blocks showed.
#[derive(Default)]
pub struct ExactlyOnce {
    committed: BTreeSet<TxId>,
    rejected: BTreeSet<TxId>,
    refused: BTreeSet<TxId>,
    /// Where a transaction was executed.
    places: BTreeMap<TxId, (GroupId, u64, u32)>,
}

/// Balances per account and asset; signed, since debits may be met before credits.
type Model = BTreeMap<(Address, AssetId), i128>;

fn signed(amount: u128) -> i128 {
    i128::try_from(amount).unwrap_or(i128::MAX)
}

fn apply(model: &mut Model, mv: &Move) {
    let mut change = |account: &Address, asset: &AssetId, by: i128| {
        *model.entry((*account, *asset)).or_insert(0) += by;
    };
    match mv {
        Move::Pay { from, to, asset, amount } | Move::PaySync { from, to, asset, amount } => {
            change(from, asset, -signed(*amount));
            change(to, asset, signed(*amount));
        }
        Move::Mint { to, asset, amount, .. } => change(to, asset, signed(*amount)),
        Move::Burn { issuer, asset, amount } => change(issuer, asset, -signed(*amount)),
        Move::Return { to, asset, amount, .. } | Move::Release { account: to, asset, amount } => {
            change(to, asset, signed(*amount));
        }
        Move::Issue(_) | Move::Rotate { .. } | Move::Check { .. } | Move::Write { .. } | Move::Freeze { .. } => {}
    }
}

/// The balance of an account as its owner's shard holds it.
fn balance(replica: &RawReplica<'_>, account: &Address, asset: &AssetId) -> Result<u128, String> {
    let record: Option<AccountRecord> = state::find(replica.kv, &schema::account(account))?;
    let inline = record.and_then(|record| record.balances.into_iter().find(|line| line.0 == *asset));
    if let Some((_, balance)) = inline {
        return Ok(balance.posted);
    }
    let extra: Option<Balance> = state::find(replica.kv, &schema::extra_balance(account, asset))?;
    Ok(extra.map_or(0, |balance| balance.posted))
}

impl ExactlyOnce {
    fn settle(&mut self, facts: &Facts, seen: &Seen, found: &mut Vec<String>) {
        match seen {
            Seen::Acknowledged { operation, receipt } => {
                let Some(operation) = facts.operation(*operation) else { return };
                if receipt.txid != operation.txid {
                    found.push(format!("{} was answered with the receipt of {}", operation.txid, receipt.txid));
                }
                let own = facts.by_txid.get(&operation.txid).and_then(|index| facts.operation(*index));
                let never = own.is_some_and(|own| matches!(own.purpose, Purpose::Forged | Purpose::MultiVoter));
                if never {
                    found.push(format!("{} must never have a receipt: {receipt:?}", operation.txid));
                }
                if receipt.committed() {
                    self.committed.insert(operation.txid);
                } else {
                    self.rejected.insert(operation.txid);
                }
            }
            Seen::Refused { operation, .. } => {
                self.refused.extend(facts.operation(*operation).map(|operation| operation.txid));
            }
            Seen::Block(block) => {
                for receipt in &block.receipts {
                    let place = (block.group, receipt.height.0, receipt.index);
                    let first = *self.places.entry(receipt.txid).or_insert(place);
                    if first != place {
                        found.push(format!("{} was executed at {first:?} and at {place:?}", receipt.txid));
                    }
                }
            }
            Seen::Started { .. }
            | Seen::Role { .. }
            | Seen::Flushed { .. }
            | Seen::Certified { .. }
            | Seen::PeerTook { .. }
            | Seen::Known { .. } => {}
        }
    }

    fn fates(&self, found: &mut Vec<String>) {
        for txid in self.committed.intersection(&self.rejected) {
            found.push(format!("{txid} was both committed and rejected"));
        }
        for txid in self.places.keys() {
            if self.refused.contains(txid) {
                found.push(format!("{txid} was refused for good and has a receipt"));
            } else if !self.committed.contains(txid) && !self.rejected.contains(txid) {
                found.push(format!("{txid} has a receipt that no client was told of"));
            }
        }
    }

    fn balances(&self, facts: &Facts, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        let mut model = Model::new();
        for txid in &self.committed {
            let Some(operation) = facts.by_txid.get(txid).and_then(|index| facts.operation(*index)) else { continue };
            operation.moves.iter().for_each(|mv| apply(&mut model, mv));
        }
        for ((account, asset), expected) in &model {
            for replica in replicas.iter().filter(|replica| replica.group == facts.genesis.layout.locate(account)) {
                match balance(replica, account, asset) {
                    Ok(kept) if signed(kept) == *expected => {}
                    Ok(kept) => found.push(format!(
                        "{account} should have {expected} of {asset:02x?} and has {kept} on node {}",
                        replica.node,
                        asset = asset.0
                    )),
                    Err(error) => found.push(error),
                }
            }
        }
    }
}

impl Checker for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly_once"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, found: &mut Vec<String>) {
        self.settle(facts, seen, found);
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment == Moment::End {
            self.fates(found);
            self.balances(facts, replicas, found);
        }
    }
}
