//! Holds and claims: at any time, on every disk, what is reserved is what undecided transactions
//! with a YES need, and what open hash-locks hold, no more and no less, and never more than there is. Undecided is what has a
//! register and no receipt; what it needs follows from the load.

use std::collections::{BTreeMap, BTreeSet};

use cross_shard::commit::{Decision, Prepared, Register};
use ledger::account::{AccountRecord, Balance};
use ledger::claim::{Claim, ClaimList};
use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, TxId};
use ledger::schema;
use ledger::tx::{Condition, Move};
use storage::kv::Kv;

use super::own::{self, Leg};
use super::{Checker, Facts, Moment, RawReplica, Seen, TxFacts, locks};
use crate::state;

/// Needs no books: the disks say it all.
pub struct Holds;

/// What kinds of claims there are, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    AtLeast,
    AtMost,
    Incoming,
    Version,
    Change,
    Mint,
    Suspense,
}

#[derive(Default)]
struct Reserved {
    held: BTreeMap<([u8; 32], AssetId), u128>,
    claims: BTreeMap<([u8; 32], TxId, Kind), usize>,
}

impl Reserved {
    fn hold(&mut self, partition: [u8; 32], asset: AssetId, amount: u128) {
        *self.held.entry((partition, asset)).or_insert(0) += amount;
    }

    fn claim(&mut self, partition: [u8; 32], txid: TxId, kind: Kind) {
        *self.claims.entry((partition, txid, kind)).or_insert(0) += 1;
    }
}

/// What a leg claims besides an amount.
fn claims_of(mv: &Move, leg: &Leg) -> &'static [Kind] {
    match mv {
        Move::PaySync { .. } if !leg.signs => &[Kind::Incoming],
        Move::Mint { .. } => &[Kind::Mint],
        Move::Rotate { .. }
        | Move::Write { .. }
        | Move::Claim { .. }
        | Move::Refund { .. }
        | Move::Record { .. }
        | Move::Grant { .. }
        | Move::Revoke { .. } => &[Kind::Change],
        Move::Check { condition, .. } => match condition {
            Condition::AtLeast { .. } => &[Kind::AtLeast],
            Condition::AtMost { .. } => &[Kind::AtMost],
            Condition::Version(_) => &[Kind::Version],
            Condition::NotFrozen(_) | Condition::Consent => &[],
        },
        Move::Freeze { .. } if !leg.signs => &[Kind::Change],
        Move::Return { .. } if !leg.signs => &[Kind::Suspense],
        Move::Release { .. } => &[Kind::Suspense, Kind::Incoming],
        Move::Pay { .. }
        | Move::Lock { .. }
        | Move::Transfer { .. }
        | Move::PaySync { .. }
        | Move::Burn { .. }
        | Move::Issue(_)
        | Move::Freeze { .. }
        | Move::Return { .. } => &[],
    }
}

fn kind_of(claim: &Claim) -> Kind {
    match claim {
        Claim::AtLeast { .. } => Kind::AtLeast,
        Claim::AtMost { .. } => Kind::AtMost,
        Claim::Incoming { .. } => Kind::Incoming,
        Claim::Version => Kind::Version,
        Claim::Change(_) => Kind::Change,
        Claim::Mint { .. } => Kind::Mint,
        Claim::Suspense { .. } => Kind::Suspense,
    }
}

/// Transactions of a replica with a YES register and without a receipt.
#[must_use]
pub fn undecided(replica: &RawReplica<'_>) -> Vec<TxId> {
    let mut all: Vec<TxId> = Vec::new();
    for (txid, _) in open(replica) {
        if !all.contains(&txid) {
            all.push(txid);
        }
    }
    all
}

/// YES registers of a replica that nothing has resolved: the transaction, and the partition of the account.
#[must_use]
pub fn open(replica: &RawReplica<'_>) -> BTreeSet<(TxId, [u8; 32])> {
    let born = matches!(replica.kv.get(&schema::origin()), Ok(Some(_)));
    let mut open = BTreeSet::new();
    for (key, value) in state::scan(replica.kv, &[schema::STATE]) {
        if key.get(33) != Some(&schema::KIND_REGISTER) {
            continue;
        }
        let Some(txid) = txid_of(&key) else { continue };
        let yes = borsh::from_slice::<Register>(&value).is_ok_and(|register| register.decision == Decision::Yes);
        let Some(partition) = key.get(1..33).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) else { continue };
        let receipt = || matches!(state::receipt(replica.kv, &txid), Ok(Some(_)));
        // One of two shards that were joined may have had its receipt before.
        let resolved = if born { carried_out(replica, &txid, &partition) } else { receipt() };
        if yes && !resolved {
            open.insert((txid, partition));
        }
    }
    open
}

/// Whether the vote on an account was carried out, by the record of whoever began as others were cut or joined.
fn carried_out(replica: &RawReplica<'_>, txid: &TxId, partition: &[u8; 32]) -> bool {
    let Ok(Some(record)) = state::find::<Prepared>(replica.kv, &schema::prepared(txid)) else { return true };
    let on = |accounts: &[Address]| accounts.iter().any(|account| own::partition(account) == *partition);
    let mut casts =
        record.casts.iter().filter(|cast| on(&cast.accounts) && super::lines::under(&cast.within, partition));
    casts.all(|cast| cast.outcome.is_some())
}

/// Whether a YES by the record is on this very leg, and not only on another one of the same account: a hidden move that
/// names a shard that was cut is for its heir to vote on, also where the account lies with another one, which votes on
/// what is clear. Who speaks for what is worked out here; the record says only who has said something.
fn agreed(facts: &Facts, replica: &RawReplica<'_>, txid: &TxId, tx: &TxFacts, leg: &Leg) -> bool {
    // A register without a record is a fault of its own: nothing says that it is on less than all.
    let Ok(Some(record)) = state::find::<Prepared>(replica.kv, &schema::prepared(txid)) else { return true };
    let mut yes = record.casts.iter().filter(|cast| cast.decision == Decision::Yes);
    yes.any(|cast| {
        let speaks = facts.lies(leg, cast.group) && facts.speaks(tx, leg, cast.group);
        speaks && cast.accounts.contains(&leg.account)
    })
}

fn txid_of(key: &[u8]) -> Option<TxId> {
    Some(TxId(Hash32(key.get(34..)?.try_into().ok()?)))
}

/// What the undecided transactions of a replica need, and its open hash-locks.
fn needed(facts: &Facts, replica: &RawReplica<'_>) -> Reserved {
    let mut needed = Reserved::default();
    for lock in locks::open(facts, replica) {
        needed.hold(own::partition(&lock.from), lock.terms.asset, lock.terms.amount);
    }
    let (born, open) = (facts.lines.changed(), open(replica));
    for txid in undecided(replica) {
        let Some((tx, operation)) = facts.tx(&txid) else { continue };
        for leg in tx.legs.iter().filter(|leg| facts.lies(leg, replica.group)) {
            let voted =
                || open.contains(&(txid, own::partition(&leg.account))) && agreed(facts, replica, &txid, tx, leg);
            if born && !voted() {
                continue;
            }
            let (mv, partition) = (&operation.moves[leg.slot], own::partition(&leg.account));
            if let Some((asset, amount)) = own::debit(mv, leg) {
                needed.hold(partition, asset, amount);
            }
            for kind in claims_of(mv, leg) {
                needed.claim(partition, txid, *kind);
            }
        }
    }
    needed
}

/// What a replica has reserved; finds balances with more held than there is on the way.
fn reserved(replica: &RawReplica<'_>, found: &mut Vec<String>) -> Result<Reserved, String> {
    let mut all = Reserved::default();
    let mut balance = |partition: [u8; 32], asset: AssetId, balance: Balance, all: &mut Reserved| {
        if balance.held > balance.posted {
            found
                .push(format!("on node {} of {} more is held than there is: {balance:?}", replica.node, replica.group));
        }
        if balance.held > 0 {
            all.hold(partition, asset, balance.held);
        }
    };
    for (key, value) in state::scan(replica.kv, &[schema::STATE]) {
        let Some(partition) = key.get(1..33).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) else { continue };
        match key.get(33) {
            Some(&schema::KIND_ACCOUNT) => {
                let record: AccountRecord = borsh::from_slice(&value).map_err(|error| error.to_string())?;
                for (asset, line) in record.balances {
                    balance(partition, asset, line, &mut all);
                }
            }
            Some(&schema::KIND_BALANCE) => {
                let line: Balance = borsh::from_slice(&value).map_err(|error| error.to_string())?;
                let asset = key[34..].try_into().map_err(|_| "a balance has a key of another length")?;
                balance(partition, AssetId(asset), line, &mut all);
            }
            Some(&schema::KIND_CLAIMS) => {
                let list: ClaimList = borsh::from_slice(&value).map_err(|error| error.to_string())?;
                for claimed in list.claims {
                    all.claim(partition, claimed.txid, kind_of(&claimed.claim));
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

fn name(facts: &Facts, partition: &[u8; 32]) -> Option<Address> {
    facts.accounts.get(partition).copied()
}

fn compare(facts: &Facts, replica: &RawReplica<'_>, found: &mut Vec<String>) -> Result<(), String> {
    let (needed, have) = (needed(facts, replica), reserved(replica, found)?);
    let place = format!("node {} of {}", replica.node, replica.group);
    for (key, amount) in &have.held {
        let need = needed.held.get(key).copied().unwrap_or(0);
        if need != *amount {
            found.push(format!("{place} holds {amount} on {:?}; what is undecided needs {need}", name(facts, &key.0)));
        }
    }
    for (key, amount) in needed.held.iter().filter(|(key, _)| !have.held.contains_key(*key)) {
        found.push(format!("{place} holds nothing on {:?}; what is undecided needs {amount}", name(facts, &key.0)));
    }
    if needed.claims != have.claims {
        let differs = |(key, count): &(&([u8; 32], TxId, Kind), &usize)| needed.claims.get(*key) != Some(*count);
        let more: Vec<_> = have.claims.iter().filter(differs).map(|(key, _)| (key.1, key.2)).collect();
        let fewer: Vec<_> =
            needed.claims.keys().filter(|key| !have.claims.contains_key(*key)).map(|key| (key.1, key.2)).collect();
        found.push(format!("{place} has claims that nothing needs, {more:?}, or lacks some, {fewer:?}"));
    }
    Ok(())
}

impl Checker for Holds {
    fn name(&self) -> &'static str {
        "holds"
    }

    fn see(&mut self, _: &Facts, _: &Seen, _: bool, _: &mut Vec<String>) {}

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        for replica in replicas {
            if let Err(error) = compare(facts, replica, found) {
                found.push(error);
            }
            let open = if moment == Moment::End { undecided(replica) } else { Vec::new() };
            if !open.is_empty() {
                found.push(format!("node {} of {} leaves {open:?} undecided", replica.node, replica.group));
            }
        }
    }
}
