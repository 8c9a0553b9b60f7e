//! Conservation: what accounts have, in balances and in suspense, plus what is on its way equals
//! what was minted less what was burned, and the value flow of every block balances, by itself and
//! across groups.
//!
//! What a hash-lock holds stays in the payer's balance, and so it is counted there.
//!
//! So it is at the newest heights of all groups, by their disks, and over any vector of heights, by the books of
//! `heights`; every disk holds what the books of its height say.
//!
//! A synchronous credit is posted by two groups, each when it learns the outcome: between the two
//! its amount is there twice, or not at all. Which of them have posted is known from receipts.

use std::collections::{BTreeMap, BTreeSet};

use cross_shard::{ClosedStream, Message};
use ledger::account::{AccountRecord, Balance};
use ledger::claim::Restriction;
use ledger::flow::FlowLine;
use ledger::ids::{AssetId, GroupId, GroupKind, Height, TxId};
use ledger::schema;
use ledger::tx::Move;
use shard_node::core::applied::AppliedRecord;

use super::heights::{Heights, Sums};
use super::{BlockSeen, BornSeen, Checker, Facts, Moment, RawReplica, Seen, own};
use crate::report::Coverage;
use crate::state;

/// Vectors of heights that are drawn whenever the disks lie open.
const VECTORS: usize = 2;

/// The books of all groups, kept from the first sight of each block.
#[derive(Default)]
pub struct Conservation {
    heights: BTreeMap<GroupId, Height>,
    closing: BTreeMap<(GroupId, AssetId), u128>,
    minted: BTreeMap<AssetId, u128>,
    burned: BTreeMap<AssetId, u128>,
    /// Source, destination, asset.
    exported: BTreeMap<(GroupId, GroupId, AssetId), u128>,
    imported: BTreeMap<(GroupId, GroupId, AssetId), u128>,
    /// Synchronous credits posted on the payer's side, by the same.
    paid: BTreeMap<(GroupId, GroupId, AssetId), u128>,
    /// And on the payee's side.
    received: BTreeMap<(GroupId, GroupId, AssetId), u128>,
    /// Halves of synchronous credits that were posted: of shards that are joined, one may have done so and the other not.
    posted: BTreeSet<(TxId, usize, bool)>,
    /// What a group has taken of a stream, also of one that has ended: destination, source.
    taken: BTreeMap<(GroupId, GroupId), u64>,
    /// Of each asset, of all groups: what was exported and received, and what was imported and paid. Where shards have ended,
    /// the second must not be more than the first.
    passed: BTreeMap<AssetId, [u128; 2]>,
    /// The same by height.
    heights_of: Heights,
    /// How often all disks were compared at the newest heights, and single ones with the books of theirs.
    sums: u64,
    disks: u64,
}

fn total(start: [u128; 2], peers: &[(GroupId, u128)]) -> Option<u128> {
    let mut sum = start[0].checked_add(start[1])?;
    for (_, amount) in peers {
        sum = sum.checked_add(*amount)?;
    }
    Some(sum)
}

impl Conservation {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let (group, height) = (block.group, block.header.height);
        self.heights.insert(group, height);
        for leaf in &block.inbox {
            self.taken.insert((group, leaf.peer), leaf.next_seq);
        }
        // The block that takes the last of a stream may be the one that closes it; then only what it tells others shows it.
        for (_, _, message) in &block.mail {
            if let Message::Closed(told) = message {
                let taken = self.taken.entry((told.dest, told.source)).or_insert(0);
                *taken = (*taken).max(told.taken);
            }
        }
        for receipt in block.receipts.iter().filter(|receipt| own::committed(receipt)) {
            self.synchronous(facts, group, &receipt.txid);
        }
        for line in &block.flow {
            self.line(facts, group, height, line, found);
        }
        for line in block.flow.iter().filter(|_| facts.lines.changed()) {
            let [left, came] = self.passed.get(&line.asset).copied().unwrap_or_default();
            if came > left {
                let asset = line.asset;
                found.push(format!(
                    "with height {height} of {group} {came} of {asset} have come to all groups, and {left} have left them"
                ));
            }
        }
        self.heights_of.block(block);
    }

    /// What a committed transaction posts in a group on one side of a synchronous credit.
    fn synchronous(&mut self, facts: &Facts, group: GroupId, txid: &TxId) {
        let Some((_, operation)) = facts.tx(txid) else { return };
        for (slot, mv) in operation.moves.iter().enumerate() {
            let Move::PaySync { from, to, asset, amount } = mv else { continue };
            // By the first layout. Where that has changed only the sums over all groups are looked at.
            let key = (own::home(&facts.places, from), own::home(&facts.places, to), *asset);
            if key.0 == key.1 && !facts.lines.changed() {
                continue;
            }
            if facts.lives(from, group) && self.posted.insert((*txid, slot, true)) {
                *self.paid.entry(key).or_insert(0) += amount;
                self.passed.entry(*asset).or_default()[1] += amount;
                self.heights_of.paid(group, key.1, *asset, *amount);
            }
            if facts.lives(to, group) && self.posted.insert((*txid, slot, false)) {
                *self.received.entry(key).or_insert(0) += amount;
                self.passed.entry(*asset).or_default()[0] += amount;
                self.heights_of.received(group, key.0, *asset, *amount);
            }
        }
    }

    /// A shard begins with what its parents had, or with a part of it.
    fn born(&mut self, born: &BornSeen) {
        let group = born.header.group;
        self.heights.entry(group).or_insert(born.header.height);
        let mut held = Sums::new();
        for (key, value) in &born.pairs {
            let asset = key.strip_prefix(b"Xtotal/").and_then(|id| <[u8; 16]>::try_from(id).ok());
            if let (Some(asset), Ok(total)) = (asset, borsh::from_slice::<u128>(value)) {
                self.closing.entry((group, AssetId(asset))).or_insert(total);
                held.insert(AssetId(asset), total);
            }
        }
        self.heights_of.begun(group, born.header.height, held);
    }

    fn line(&mut self, facts: &Facts, group: GroupId, height: Height, line: &FlowLine, found: &mut Vec<String>) {
        let opening = self.closing.insert((group, line.asset), line.closing).unwrap_or(0);
        if opening != line.opening {
            found.push(format!(
                "height {height} of {group} opens with {}, the last one closed with {opening}",
                line.opening
            ));
        }
        let left = total([line.opening, line.minted], &line.imported);
        let right = total([line.closing, line.burned], &line.exported);
        if left.is_none() || left != right {
            found.push(format!("the value flow of height {height} of {group} does not balance: {line:?}"));
        }
        let [left, came] = self.passed.entry(line.asset).or_default();
        *left += line.exported.iter().map(|(_, amount)| amount).sum::<u128>();
        *came += line.imported.iter().map(|(_, amount)| amount).sum::<u128>();
        *self.minted.entry(line.asset).or_insert(0) += line.minted;
        *self.burned.entry(line.asset).or_insert(0) += line.burned;
        for (dest, amount) in &line.exported {
            *self.exported.entry((group, *dest, line.asset)).or_insert(0) += amount;
        }
        for (source, amount) in &line.imported {
            let imported = self.imported.entry((*source, group, line.asset)).or_insert(0);
            *imported += amount;
            let key = (*source, group, line.asset);
            let of = |book: &BTreeMap<_, u128>| book.get(&key).copied().unwrap_or(0);
            // Mail comes after its debit; of a synchronous credit either side may be first.
            let (came, left) =
                (imported.checked_sub(of(&self.received)), of(&self.exported).checked_sub(of(&self.paid)));
            let wrong = came.is_none() || left.is_none() || came > left;
            if wrong && !facts.lines.changed() {
                found.push(format!("{group} imported {came:?} by mail from {source}, which exported {left:?}"));
            }
        }
    }

    /// Compares what the disks hold with the books, if for every group there is a replica that has
    /// all blocks seen so far.
    fn sums(&mut self, facts: &Facts, replicas: &[RawReplica<'_>], found: &mut Vec<String>) -> Result<(), String> {
        let mut newest = Vec::new();
        let first = facts.genesis.committees.iter().map(|committee| committee.group);
        let beacon = first.filter(|group| group.kind() == Some(GroupKind::Beacon));
        for group in beacon.chain(facts.channels()).chain(facts.lines.living()) {
            let height = self.heights.get(&group).copied().unwrap_or(Height(0));
            let mut with_height = None;
            for replica in replicas.iter().filter(|replica| replica.group == group) {
                let applied: AppliedRecord = state::load(replica.kv, &schema::applied())?;
                if applied.height == height {
                    with_height = Some(replica);
                }
            }
            let Some(replica) = with_height else {
                // A channel that the registry names and that has no block yet holds nothing.
                if group.kind() == Some(GroupKind::Channel) && !self.heights.contains_key(&group) {
                    continue;
                }
                return Ok(());
            };
            newest.push(replica);
        }
        let mut held: BTreeMap<AssetId, u128> = BTreeMap::new();
        for replica in &newest {
            accounts(replica, &mut held)?;
            in_flight(facts, &self.taken, replica, &newest, &mut held)?;
            waiting(&self.taken, replica, &mut held)?;
        }
        for (asset, minted) in &self.minted {
            let sum = |book: &BTreeMap<(GroupId, GroupId, AssetId), u128>| -> u128 {
                book.iter().filter(|(key, _)| key.2 == *asset).map(|(_, amount)| amount).sum()
            };
            let expected = minted - self.burned.get(asset).copied().unwrap_or(0) + sum(&self.received);
            let there = held.get(asset).copied().unwrap_or(0) + sum(&self.paid);
            if there != expected {
                found.push(format!("of {asset} there are {there}, minted less burned are {expected}"));
            }
        }
        self.sums += 1;
        Ok(())
    }

    /// Compares what the accounts on a disk have with what its group held at the height that it stands at.
    fn disk(&mut self, replica: &RawReplica<'_>, found: &mut Vec<String>) -> Result<(), String> {
        let applied: Option<AppliedRecord> = state::find(replica.kv, &schema::applied())?;
        let (node, group) = (replica.node, replica.group);
        let known = applied.and_then(|applied| Some((applied.height, self.heights_of.held(group, applied.height)?)));
        let Some((height, expected)) = known else { return Ok(()) };
        let mut held = Sums::new();
        accounts(replica, &mut held)?;
        held.retain(|_, amount| *amount > 0);
        if held != expected {
            found.push(format!(
                "at height {height} of {group} node {node} has {held:?}, and the group held {expected:?}"
            ));
        }
        self.disks += 1;
        Ok(())
    }

    /// In the end everything has arrived. Where shards have ended, what they had sent has been sent on by those that came
    /// from them: of each shard with all of its kin, what it has sent to shards; and of any other group what was sent to it.
    fn arrived(&self, facts: &Facts, found: &mut Vec<String>) {
        let kin = kin(facts);
        let of = |(source, dest, asset): &(GroupId, GroupId, AssetId)| {
            let to_shards = dest.kind() == Some(GroupKind::Shard);
            let source = kin.get(source).copied().unwrap_or(*source);
            (if to_shards { ("from", source) } else { ("to", *dest) }, *asset)
        };
        let sums = |book: &BTreeMap<(GroupId, GroupId, AssetId), u128>| {
            let mut sums: BTreeMap<((&'static str, GroupId), AssetId), u128> = BTreeMap::new();
            for (key, amount) in book.iter().filter(|(_, amount)| **amount > 0) {
                *sums.entry(of(key)).or_insert(0) += amount;
            }
            sums
        };
        let (exported, imported) = (sums(&self.exported), sums(&self.imported));
        for key in exported.keys().chain(imported.keys()).collect::<BTreeSet<_>>() {
            let at = |book: &BTreeMap<_, u128>| book.get(key).copied().unwrap_or(0);
            let (left, came) = (at(&exported), at(&imported));
            if left != came {
                let ((way, group), asset) = key;
                found.push(format!("{way} {group} and its kin {left} of {asset} have left, and {came} have come"));
            }
        }
    }
}

/// Of each shard that has ended, or came from another one, the first of all that are related to it.
fn kin(facts: &Facts) -> BTreeMap<GroupId, GroupId> {
    let mut kin: BTreeMap<GroupId, GroupId> = BTreeMap::new();
    let lineage = facts.lines.layouts().values().next_back().map_or(&[][..], |layout| &layout.lineage[..]);
    for entry in lineage {
        let all = entry.successors.iter().chain([&entry.group]);
        let names: BTreeSet<GroupId> = all.map(|group| kin.get(group).copied().unwrap_or(*group)).collect();
        let Some(name) = names.first().copied() else { continue };
        kin.values_mut().filter(|other| names.contains(&**other)).for_each(|other| *other = name);
        kin.extend(entry.successors.iter().chain([&entry.group]).map(|group| (*group, name)));
    }
    kin
}

fn accounts(replica: &RawReplica<'_>, held: &mut BTreeMap<AssetId, u128>) -> Result<(), String> {
    for (key, value) in state::scan(replica.kv, &[schema::STATE]) {
        let kind = key.get(33).copied();
        if kind == Some(schema::KIND_ACCOUNT) {
            let record: AccountRecord = borsh::from_slice(&value).map_err(|error| error.to_string())?;
            for (asset, balance) in record.balances {
                *held.entry(asset).or_insert(0) += balance.posted;
            }
        } else if kind == Some(schema::KIND_BALANCE) {
            let balance: Balance = borsh::from_slice(&value).map_err(|error| error.to_string())?;
            let asset: [u8; 16] = key[34..].try_into().map_err(|_| "a balance has a key of another length")?;
            *held.entry(AssetId(asset)).or_insert(0) += balance.posted;
        } else if kind == Some(schema::KIND_RESTRICTION) {
            let restriction: Restriction = borsh::from_slice(&value).map_err(|error| error.to_string())?;
            let asset: [u8; 16] = key[34..].try_into().map_err(|_| "a restriction has a key of another length")?;
            *held.entry(AssetId(asset)).or_insert(0) += restriction.suspense;
        }
    }
    Ok(())
}

/// Credits that the destination's cursor has not passed.
fn in_flight(
    facts: &Facts,
    taken: &BTreeMap<(GroupId, GroupId), u64>,
    source: &RawReplica<'_>,
    newest: &[&RawReplica<'_>],
    held: &mut BTreeMap<AssetId, u128>,
) -> Result<(), String> {
    for (dest, stream) in state::out_streams(source.kv) {
        let cursor = match newest.iter().find(|replica| replica.group == dest) {
            Some(there) => {
                let cursors = state::in_cursors(there.kv);
                cursors.iter().find(|(peer, _)| *peer == source.group).map_or(0, |(_, cursor)| cursor.next_seq)
            }
            // It has ended, and this group has not heard of that yet.
            None if facts.lines.retired(dest) => taken.get(&(dest, source.group)).copied().unwrap_or(0),
            None => continue,
        };
        for seq in cursor.max(stream.acked)..stream.next_seq {
            let message: Message = state::load(source.kv, &schema::mail(dest, seq))?;
            add(&message, held);
        }
    }
    Ok(())
}

/// The value that a message carries.
pub(super) fn value(message: &Message) -> Option<(AssetId, u128)> {
    match message {
        Message::Credit(credit) => Some((credit.asset, credit.amount)),
        Message::Transfer(transfer) => Some((transfer.asset, transfer.amount)),
        _ => None,
    }
}

fn add(message: &Message, held: &mut BTreeMap<AssetId, u128>) {
    if let Some((asset, amount)) = value(message) {
        *held.entry(asset).or_insert(0) += amount;
    }
}

/// Credits in streams that have ended which nobody has taken and which have not gone on yet. Both children of a shard have
/// them, and one of the two has them whole.
fn waiting(
    taken: &BTreeMap<(GroupId, GroupId), u64>,
    replica: &RawReplica<'_>,
    held: &mut BTreeMap<AssetId, u128>,
) -> Result<(), String> {
    for (key, value) in state::scan(replica.kv, schema::CLOSED_PREFIX) {
        let ends = key.get(schema::CLOSED_PREFIX.len()..).and_then(|ends| <[u8; 16]>::try_from(ends).ok());
        let Some(ends) = ends.map(u128::from_be_bytes) else { continue };
        let half = |ends: u128| GroupId(u64::try_from(ends & u128::from(u64::MAX)).unwrap_or(0));
        let (source, dest) = (half(ends >> 64), half(ends));
        let closed: ClosedStream = borsh::from_slice(&value).map_err(|error| error.to_string())?;
        if !closed.whole {
            continue;
        }
        let cursor = match closed.taken {
            // Only what two shards that were joined had sent each other waits then.
            Some(_) => closed.kept,
            None => taken.get(&(dest, source)).copied().unwrap_or(0).max(closed.kept),
        };
        for seq in cursor..closed.next_seq {
            if let Some(message) = state::find::<Message>(replica.kv, &schema::closed_mail(source, dest, seq))? {
                add(&message, held);
            }
        }
    }
    Ok(())
}

impl Checker for Conservation {
    fn name(&self) -> &'static str {
        "conservation"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) if first => self.block(facts, block, found),
            Seen::Born(born) => self.born(born),
            _ => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if let Err(error) = self.sums(facts, replicas, found) {
            found.push(error);
        }
        for replica in replicas {
            if let Err(error) = self.disk(replica, found) {
                found.push(error);
            }
        }
        for _ in 0..VECTORS {
            found.extend(self.heights_of.compare(facts).err());
        }
        if moment == Moment::End && facts.lines.changed() {
            self.arrived(facts, found);
        } else if moment == Moment::End {
            for (stream, exported) in &self.exported {
                let imported = self.imported.get(stream).copied().unwrap_or(0);
                if imported != *exported {
                    found.push(format!("{} exported {exported} to {}, which imported {imported}", stream.0, stream.1));
                }
            }
        }
    }

    fn tally(&self, coverage: &mut Coverage) {
        coverage.sums += self.sums;
        coverage.vectors += self.heights_of.vectors;
        coverage.vectors_across += self.heights_of.across;
        coverage.disks_compared += self.disks;
    }
}

#[cfg(test)]
#[path = "conservation_tests.rs"]
mod tests;
