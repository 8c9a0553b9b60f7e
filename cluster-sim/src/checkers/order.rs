//! Order: what owners and issuers change about accounts ends up as if the committed transactions of
//! each group had been executed one after the other, in the order of their receipts; and a check of
//! an account's version held at its place in that order.

use std::collections::{BTreeMap, BTreeSet};

use ledger::account::{AccountRecord, FLAG_FROZEN};
use ledger::auth::Authorisation;
use ledger::claim::Restriction;
use ledger::ids::{Address, AssetId, TxId};
use ledger::schema;
use ledger::tx::{AccountWrite, Condition, Move};

use super::own::{self, Leg};
use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen};
use crate::state;

#[derive(Clone, Debug, Default)]
struct Account {
    sequence: u64,
    frozen: bool,
    auth: Option<Authorisation>,
    data: BTreeMap<Vec<u8>, Vec<u8>>,
    limits: BTreeMap<AssetId, u128>,
    restricted: BTreeMap<AssetId, bool>,
}

/// Accounts as the committed transactions so far have made them.
#[derive(Default)]
pub struct Order {
    accounts: BTreeMap<Address, Account>,
    /// Legs that were carried out: of shards that are joined, one may have done so and the other one not.
    done: BTreeSet<(TxId, usize, Address)>,
}

impl Order {
    fn commit(&mut self, facts: &Facts, block: &BlockSeen, txid: &TxId, found: &mut Vec<String>) {
        let Some((tx, operation)) = facts.tx(txid) else { return };
        let new = |leg: &&Leg| !self.done.contains(&(*txid, leg.slot, leg.account));
        let own: Vec<Leg> = tx.legs.iter().filter(|leg| facts.lies(leg, block.group)).filter(new).copied().collect();
        self.done.extend(own.iter().map(|leg| (*txid, leg.slot, leg.account)));
        for leg in &own {
            if let Move::Check { account, condition: Condition::Version(version) } = &operation.moves[leg.slot] {
                let there = self.accounts.get(account).map_or(0, |account| account.sequence);
                if there != *version {
                    found.push(format!("{txid} committed with version {version} of {account}, which has {there}"));
                }
            }
        }
        for leg in &own {
            self.change(&operation.moves[leg.slot], leg);
        }
    }

    fn change(&mut self, mv: &Move, leg: &Leg) {
        let account = self.accounts.entry(leg.account).or_default();
        match mv {
            Move::Rotate { auth, .. } => account.auth = Some(auth.clone()),
            Move::Write { write: AccountWrite::Data { key, value: Some(value) }, .. } => {
                account.data.insert(key.clone(), value.clone());
            }
            Move::Write { write: AccountWrite::Data { key, value: None }, .. } => {
                account.data.remove(key);
            }
            Move::Write { write: AccountWrite::Limit { asset, per_tx }, .. } => {
                match per_tx {
                    Some(limit) => account.limits.insert(*asset, *limit),
                    None => account.limits.remove(asset),
                };
            }
            Move::Write { write: AccountWrite::Frozen(frozen), .. } => account.frozen = *frozen,
            Move::Freeze { asset, frozen, .. } => {
                if !leg.signs {
                    account.restricted.insert(*asset, *frozen);
                }
                return;
            }
            Move::Record { .. } | Move::Grant { .. } | Move::Revoke { .. } => {}
            Move::Pay { .. }
            | Move::Lock { .. }
            | Move::Claim { .. }
            | Move::Refund { .. }
            | Move::Transfer { .. }
            | Move::PaySync { .. }
            | Move::Mint { .. }
            | Move::Burn { .. }
            | Move::Issue(_)
            | Move::Check { .. }
            | Move::Release { .. }
            | Move::Return { .. } => return,
        }
        account.sequence += 1;
    }
}

/// Compares an account with what the order makes of it.
fn compare(
    replica: &RawReplica<'_>,
    address: &Address,
    expected: &Account,
    found: &mut Vec<String>,
) -> Result<(), String> {
    let record: AccountRecord = state::find(replica.kv, &schema::account(address))?.unwrap_or_default();
    let mut differs = |what: &str, there: String, should: String| {
        found.push(format!("{address} has {what} {there} on node {}, and should have {should}", replica.node));
    };
    if record.sequence != expected.sequence {
        differs("version", record.sequence.to_string(), expected.sequence.to_string());
    }
    let frozen = record.flags & FLAG_FROZEN != 0;
    if frozen != expected.frozen {
        differs("frozen", frozen.to_string(), expected.frozen.to_string());
    }
    if expected.auth.is_some() && record.auth != expected.auth {
        differs("authorisation", format!("{:?}", record.auth), format!("{:?}", expected.auth));
    }
    let prefix = [&[schema::STATE][..], &own::partition(address)].concat();
    let (mut data, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in state::scan(replica.kv, &prefix) {
        match key.get(33) {
            Some(&schema::KIND_DATA) => {
                data.insert(key[34..].to_vec(), value.to_vec());
            }
            Some(&schema::KIND_LIMIT) => {
                let asset = key[34..].try_into().map_err(|_| "a limit has a key of another length")?;
                let limit: u128 = borsh::from_slice(&value).map_err(|error| error.to_string())?;
                limits.insert(AssetId(asset), limit);
            }
            _ => {}
        }
    }
    if data != expected.data {
        differs("data", format!("{data:?}"), format!("{:?}", expected.data));
    }
    if limits != expected.limits {
        differs("limits", format!("{limits:?}"), format!("{:?}", expected.limits));
    }
    for (asset, frozen) in &expected.restricted {
        let there: Option<Restriction> = state::find(replica.kv, &schema::restriction(address, asset))?;
        let there = there.is_some_and(|restriction| restriction.frozen);
        if there != *frozen {
            differs("frozen holdings", there.to_string(), frozen.to_string());
        }
    }
    Ok(())
}

impl Checker for Order {
    fn name(&self) -> &'static str {
        "order"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        let (Seen::Block(block), true) = (seen, first) else { return };
        for receipt in block.receipts.iter().filter(|receipt| own::committed(receipt)) {
            self.commit(facts, block, &receipt.txid, found);
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        for address in facts.accounts.values() {
            let expected = self.accounts.get(address).cloned().unwrap_or_default();
            let home = facts.home(address);
            for replica in replicas.iter().filter(|replica| replica.group == home) {
                if let Err(error) = compare(replica, address, &expected, found) {
                    found.push(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use consensus::local::LocalLog;
    use ledger::hash::Hash32;
    use ledger::ids::{GroupId, Height, NodeId, TimeMs};
    use ledger::layout::Layout;
    use ledger::receipt::{Outcome, Receipt};
    use storage::kv::{Kv, WriteBatch};
    use storage::mem::MemKv;

    use super::super::trial::{self, block, operation};
    use super::*;

    const ACCOUNT: Address = Address([5; 20]);

    /// An account is frozen by the first transaction; the second one needs its first version, the third one another.
    fn facts() -> Facts {
        let check = |version| Move::Check { account: ACCOUNT, condition: Condition::Version(version) };
        let freeze = Move::Write { account: ACCOUNT, write: AccountWrite::Frozen(true) };
        let load = vec![operation(0, vec![freeze]), operation(1, vec![check(1)]), operation(2, vec![check(4)])];
        trial::facts_with(Layout::even(1), load)
    }

    /// A block commits these, in order.
    fn commit(order: &mut Order, facts: &Facts, ids: &[u8]) -> Vec<String> {
        let receipt = |id: &u8| Receipt {
            version: 1,
            txid: TxId(Hash32([*id; 32])),
            group: GroupId::shard(0),
            height: Height(1),
            index: 0,
            time_ms: TimeMs(1),
            outcome: Outcome::Committed { mail: Vec::new() },
        };
        let seen = BlockSeen { receipts: ids.iter().map(receipt).collect(), ..block(GroupId::shard(0), 1) };
        let mut found = Vec::new();
        order.see(facts, &Seen::Block(Box::new(seen)), true, &mut found);
        found
    }

    #[test]
    fn a_check_of_a_version_that_does_not_hold_at_its_place_is_found() {
        let facts = facts();
        assert_eq!(commit(&mut Order::default(), &facts, &[0, 1]), Vec::<String>::new());
        for ids in [&[1, 0][..], &[0, 2]] {
            let found = commit(&mut Order::default(), &facts, ids);
            assert!(matches!(&found[..], [one] if one.contains("committed with version")), "{ids:?}: {found:?}");
        }
    }

    #[test]
    fn an_account_that_is_not_as_the_order_makes_it_is_found() {
        let facts = facts();
        for (sequence, flags, what) in
            [(1, FLAG_FROZEN, None), (2, FLAG_FROZEN, Some("has version 2")), (1, 0, Some("has frozen false"))]
        {
            let mut order = Order::default();
            assert_eq!(commit(&mut order, &facts, &[0]), Vec::<String>::new());
            let record = AccountRecord { sequence, flags, ..AccountRecord::default() };
            let (kv, mut batch) = (MemKv::new(), WriteBatch::new());
            batch.put(schema::account(&ACCOUNT), borsh::to_vec(&record).expect("it is plain data"));
            kv.write(batch).expect("memory takes it");
            let log = LocalLog::default();
            let replica = RawReplica { node: NodeId(0), group: GroupId::shard(0), kv: &kv, log: &log, wal: None };
            let mut found = Vec::new();
            order.audit(&facts, Moment::End, &[replica], &mut found);
            match what {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(what) => assert!(matches!(&found[..], [one] if one.contains(what)), "{what}: {found:?}"),
            }
        }
    }
}
