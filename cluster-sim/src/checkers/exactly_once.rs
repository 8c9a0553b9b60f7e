//! Exactly once: every move of a committed transaction is carried out once on every account it
//! touches, in whichever group that lies, and nothing is of any other. Judged by the history that
//! blocks add to accounts, by a model of balances that knows only the load and which transactions
//! committed, and by what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use ledger::account::{AccountRecord, Balance};
use ledger::claim::Restriction;
use ledger::ids::{Address, AssetId, GroupId, TxId};
use ledger::reject::Reject;
use ledger::rules::HistoryLine;
use ledger::schema;
use ledger::tx::Move;

use super::own::{self, Kind, Trace};
use super::pairs;
use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen};
use crate::state;
use crate::workload::Purpose;

/// What clients were told and what blocks showed.
#[derive(Default)]
pub struct ExactlyOnce {
    committed: BTreeSet<TxId>,
    /// Groups that have a receipt.
    resolved: BTreeSet<(TxId, GroupId)>,
    /// Groups that voted yes.
    agreed: BTreeSet<(TxId, GroupId)>,
    /// Where a transaction was executed.
    places: BTreeMap<(TxId, GroupId), (u64, u32)>,
    traces: BTreeMap<TxId, Vec<Trace>>,
    refused: BTreeMap<(TxId, GroupId), Reject>,
}

/// Balances per account and asset, suspense included; signed, since debits may be met before credits.
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
        Move::Return { account, to, asset, amount, .. } => {
            change(account, asset, -signed(*amount));
            change(to, asset, signed(*amount));
        }
        Move::Claim { from, terms, .. } => {
            change(from, &terms.asset, -signed(terms.amount));
            change(&terms.to, &terms.asset, signed(terms.amount));
        }
        Move::Transfer { from, to, asset, amount, .. } => {
            change(from, asset, -signed(*amount));
            change(to, asset, signed(*amount));
        }
        Move::Issue(_)
        | Move::Lock { .. }
        | Move::Refund { .. }
        | Move::Record { .. }
        | Move::Grant { .. }
        | Move::Revoke { .. }
        | Move::Rotate { .. }
        | Move::Check { .. }
        | Move::Write { .. }
        | Move::Freeze { .. }
        | Move::Release { .. } => {}
    }
}

/// What a replica keeps of an account's asset, in its balance and in suspense.
fn kept(replica: &RawReplica<'_>, account: &Address, asset: &AssetId) -> Result<u128, String> {
    let record: Option<AccountRecord> = state::find(replica.kv, &schema::account(account))?;
    let inline = record.and_then(|record| record.balances.into_iter().find(|line| line.0 == *asset));
    let extra: Option<Balance> = state::find(replica.kv, &schema::extra_balance(account, asset))?;
    let balance = inline.map(|line| line.1).or(extra).unwrap_or_default();
    let restriction: Option<Restriction> = state::find(replica.kv, &schema::restriction(account, asset))?;
    Ok(balance.posted + restriction.unwrap_or_default().suspense)
}

/// Traces in one list that are not in another; both are sorted.
fn beyond(have: &[Trace], expected: &[Trace]) -> Vec<Trace> {
    let mut rest = expected.to_vec();
    let mut more = Vec::new();
    for trace in have {
        match rest.iter().position(|other| other == trace) {
            Some(at) => {
                rest.remove(at);
            }
            None => more.push(*trace),
        }
    }
    more
}

impl ExactlyOnce {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        for (txid, decision) in &block.votes {
            if *decision == cross_shard::commit::Decision::Yes {
                self.agreed.insert((*txid, block.group));
            }
        }
        for receipt in &block.receipts {
            let place = (receipt.height.0, receipt.index);
            let first = *self.places.entry((receipt.txid, block.group)).or_insert(place);
            if first != place && !facts.lines.changed() {
                found.push(format!("{} was executed at {first:?} and at {place:?}", receipt.txid));
            }
            self.resolved.insert((receipt.txid, block.group));
            if own::committed(receipt) {
                self.committed.insert(receipt.txid);
            }
        }
        for line in &block.lines {
            self.line(facts, block.group, line, found);
        }
    }

    /// A line of history: one of those that a committed transaction leaves, and not left before.
    fn line(&mut self, facts: &Facts, group: GroupId, line: &HistoryLine, found: &mut Vec<String>) {
        let trace = Trace { account: line.account, kind: Kind::of(line.kind), asset: line.asset, amount: line.amount };
        let Some((_, operation)) = facts.tx(&line.txid) else {
            return found.push(format!("{group} carried out {trace:?} of {}, which nobody sent", line.txid));
        };
        let traces = self.traces.entry(line.txid).or_default();
        traces.push(trace);
        if !beyond(traces, &own::traces(operation)).is_empty() {
            found.push(format!("{group} carried out {trace:?} of {} once too often", line.txid));
        }
        // Two channels have the same name for their pair accounts with the main ledger; those are
        // judged by `pairs`.
        let counts = matches!(trace.kind, Kind::Departed | Kind::Arrived) && pairs::is_pair(operation, &line.account);
        if !counts && !facts.lives(&line.account, group) {
            found.push(format!("{group} carried out {trace:?}, whose account lies elsewhere"));
        }
    }

    /// A deadline passes once: what a group refused as expired it never agrees to.
    fn fates(&self, facts: &Facts, found: &mut Vec<String>) {
        for ((txid, group), reject) in &self.refused {
            let agreed = self.agreed.contains(&(*txid, *group));
            let single = facts.tx(txid).is_some_and(|(tx, _)| tx.voters.len() == 1);
            let executed = single && self.committed.contains(txid);
            if *reject == Reject::Expired && (agreed || executed) {
                found.push(format!("{group} refused {txid} as expired and agreed to it"));
            }
        }
        for (txid, tx) in &facts.txs {
            let Some(operation) = facts.operation(tx.operation) else { continue };
            let traces = self.traces.get(txid).map_or(&[][..], Vec::as_slice);
            let expected = if self.committed.contains(txid) { own::traces(operation) } else { Vec::new() };
            let (more, fewer) = (beyond(traces, &expected), beyond(&expected, traces));
            if !more.is_empty() || !fewer.is_empty() {
                found.push(format!("{txid} was carried out too often, {more:?}, or not at all, {fewer:?}"));
            }
            if operation.purpose == Purpose::Forged && self.resolved.iter().any(|(resolved, _)| resolved == txid) {
                found.push(format!("{txid} is forged and has a receipt"));
            }
        }
    }

    fn balances(&self, facts: &Facts, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        let mut model = Model::new();
        for txid in &self.committed {
            let Some((_, operation)) = facts.tx(txid) else { continue };
            operation.moves.iter().for_each(|mv| apply(&mut model, mv));
        }
        for ((account, asset), expected) in &model {
            let home = facts.home(account);
            for replica in replicas.iter().filter(|replica| replica.group == home) {
                match kept(replica, account, asset) {
                    Ok(kept) if signed(kept) == *expected => {}
                    Ok(kept) => found.push(format!(
                        "{account} should have {expected} of {asset} and has {kept} on node {}",
                        replica.node,
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

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) if first => self.block(facts, block, found),
            Seen::Acknowledged { operation, receipt } => {
                let Some(operation) = facts.operation(*operation) else { return };
                if receipt.txid != operation.txid {
                    found.push(format!("{} was answered with the receipt of {}", operation.txid, receipt.txid));
                }
            }
            Seen::Refused { operation, group, reject } => {
                if let Some(operation) = facts.operation(*operation) {
                    self.refused.insert((operation.txid, *group), *reject);
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
            | Seen::Told { .. }
            | Seen::Decided { .. }
            | Seen::Applied { .. } => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment == Moment::End {
            self.fates(facts, found);
            self.balances(facts, replicas, found);
        }
    }
}
