//! Lineage: every account belongs to exactly one shard at any time, and a shard that others were cut or joined into begins with
//! what they had under its prefix, no more and no less: leaves, vote registers among them, amounts, and a chain that goes on
//! from theirs. What the beacon says of it for good says the same. No number is given to two shards, one job at a time has
//! shards stand still, and nothing comes behind the last block of a shard that has ended.
//!
//! Roots are computed here from the leaves, by SHA-256, and compared with those in headers: that of a shard that was cut, or
//! into which two were joined, is the inner node over the roots of its halves.

use std::collections::BTreeMap;

use beacon::{Job, Phase};
use ledger::account::{AccountRecord, Balance};
use ledger::claim::Restriction;
use ledger::hash::Hash32;
use ledger::header::{FLAG_BORN, FLAG_SEALED};
use ledger::ids::{AssetId, GroupId, GroupKind, Height, JobId, TimeMs};
use ledger::layout::{BitPrefix, Layout};
use ledger::lineage::{BornShard, Origin};
use ledger::schema;

use super::equal_roots::header_hash;
use super::lines::under;
use super::roots::{hash_of, over, root};
use super::{BlockSeen, BornSeen, Checker, Facts, Moment, RawReplica, Seen};
use crate::state;

/// Key prefix of jobs in the beacon's state.
const JOBS: &[u8] = b"Gjob/";
const TOTALS: &[u8] = b"Xtotal/";

/// The highest block of a group that anybody has shown.
#[derive(Clone, Copy)]
struct Last {
    height: Height,
    hash: Hash32,
    time_ms: TimeMs,
    state_root: Hash32,
    sealed: bool,
}

/// How a shard has begun.
struct Begun {
    hash: Hash32,
    state_root: Hash32,
    /// How many leaves this is the root of.
    leaves: usize,
    parents: Vec<Hash32>,
}

/// What was seen of shards that begin and end.
#[derive(Default)]
pub struct Lineage {
    last: BTreeMap<GroupId, Last>,
    begun: BTreeMap<GroupId, Begun>,
    /// The job that has given a shard its number.
    numbers: BTreeMap<GroupId, JobId>,
}

type Leaves<'a> = BTreeMap<&'a [u8], &'a [u8]>;

fn partition(key: &[u8]) -> Option<[u8; 32]> {
    key.get(1..33)?.try_into().ok()
}

/// What accounts have of each asset, by their leaves.
fn amounts(leaves: &Leaves<'_>) -> Result<BTreeMap<AssetId, u128>, String> {
    let mut sums: BTreeMap<AssetId, u128> = BTreeMap::new();
    let decode = |error: std::io::Error| error.to_string();
    for (key, value) in leaves {
        let asset = || key.get(34..).and_then(|id| id.try_into().ok()).map(AssetId).ok_or("a leaf names no asset");
        match key.get(33) {
            Some(&schema::KIND_ACCOUNT) => {
                let record: AccountRecord = borsh::from_slice(value).map_err(decode)?;
                for (asset, balance) in record.balances {
                    *sums.entry(asset).or_insert(0) += balance.posted;
                }
            }
            Some(&schema::KIND_BALANCE) => {
                let balance: Balance = borsh::from_slice(value).map_err(decode)?;
                *sums.entry(asset()?).or_insert(0) += balance.posted;
            }
            Some(&schema::KIND_RESTRICTION) => {
                let restriction: Restriction = borsh::from_slice(value).map_err(decode)?;
                *sums.entry(asset()?).or_insert(0) += restriction.suspense;
            }
            _ => {}
        }
    }
    sums.retain(|_, amount| *amount > 0);
    Ok(sums)
}

/// Whether a layout covers everything once.
fn covers(layout: &Layout) -> bool {
    let mut shards: Vec<BitPrefix> = layout.shards.iter().map(|shard| shard.prefix).collect();
    shards.sort_unstable_by_key(|prefix| prefix.bits);
    let mut next: u128 = 0;
    for prefix in shards {
        if prefix.length > 64 || u128::from(prefix.bits) != next {
            return false;
        }
        next += 1 << (64 - prefix.length);
    }
    next == 1 << 64
}

impl Lineage {
    fn layout(&self, facts: &Facts, layout: &Layout, found: &mut Vec<String>) {
        let version = layout.version.0;
        if !covers(layout) {
            found.push(format!("layout {version} does not give every account to one shard"));
        }
        let Some(before) = version.checked_sub(1).and_then(|before| facts.lines.layouts().get(&before)) else {
            return found.push(format!("nobody knows the layout before {version}"));
        };
        if !layout.lineage.starts_with(&before.lineage) {
            found.push(format!("layout {version} does not know what had ended before"));
        }
        let known = |group: GroupId| {
            let lived = before.shards.iter().any(|shard| shard.group == group);
            lived || before.lineage.iter().any(|ended| ended.group == group)
        };
        let lives = |group: GroupId| layout.shards.iter().any(|shard| shard.group == group);
        for ended in layout.lineage.iter().skip(before.lineage.len()) {
            if lives(ended.group) || !before.shards.iter().any(|shard| shard.group == ended.group) {
                found.push(format!("layout {version} ends {}, which did not live, or lives on", ended.group));
            }
            for child in &ended.successors {
                if known(*child) {
                    found.push(format!("layout {version} gives the number of {child} to another shard"));
                }
            }
        }
        for shard in &layout.shards {
            let prefix = before.shards.iter().find(|old| old.group == shard.group).map(|old| old.prefix);
            if prefix.is_some_and(|prefix| prefix != shard.prefix) {
                found.push(format!("layout {version} changes what {} owns", shard.group));
            }
        }
    }

    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let (group, header) = (block.group, &block.header);
        if let (GroupId::BEACON, Some(layout)) = (group, &block.layout) {
            self.layout(facts, layout, found);
        }
        if group.kind() != Some(GroupKind::Shard) {
            return;
        }
        if facts.lines.retired(group) {
            found.push(format!("{group} has ended, and makes height {}", header.height));
        }
        for write in &block.registers {
            if !facts.lines.owns(group, &write.partition) {
                found.push(format!("{group} writes a register of {} under an account of another shard", write.txid));
            }
        }
        let sealed = header.flags & FLAG_SEALED != 0;
        let (height, time_ms, state_root) = (header.height, header.time_ms, header.state_root);
        self.last.insert(group, Last { height, hash: header_hash(header), time_ms, state_root, sealed });
    }

    /// Whether the root with which a shard begins and those in the last headers of its parents are of one tree. Of a shard
    /// that was cut this is known when both halves have begun.
    fn of_one_tree(&self, facts: &Facts, born: &BornSeen) -> Option<String> {
        let group = born.header.group;
        let (whole, over_halves) = match &born.parents[..] {
            [(parent, _)] => {
                let begun = |group: &GroupId| self.begun.get(group).map(|begun| (begun.state_root, begun.leaves));
                let [left, right] = facts.lines.successors(*parent) else { return None };
                (self.last.get(parent)?.state_root, over(begun(left)?, begun(right)?))
            }
            [left, right] => {
                let ended =
                    |(parent, leaves): &(GroupId, Vec<_>)| Some((self.last.get(parent)?.state_root, leaves.len()));
                (born.header.state_root, over(ended(left)?, ended(right)?))
            }
            _ => return None,
        };
        (whole != over_halves).then(|| {
            let parents: Vec<GroupId> = born.parents.iter().map(|(parent, _)| *parent).collect();
            format!("the roots of {group} and of {parents:?}, out of which it begins, are not of one tree")
        })
    }

    fn born(&mut self, facts: &Facts, born: &BornSeen, found: &mut Vec<String>) -> Result<(), String> {
        let header = &born.header;
        let (group, node, hash) = (header.group, born.node, header_hash(header));
        let Some(prefix) = facts.lines.prefix(group).copied() else {
            return Err(format!("{group} begins on node {node}, and no layout has it"));
        };
        let first = !self.last.contains_key(&group);
        let mut wrong = |what: &str| found.push(format!("{group} begins on node {node} {what}"));
        let known = facts.lines.layouts().values().flat_map(|layout| &layout.lineage);
        let mut parents: Vec<GroupId> =
            known.filter(|ended| ended.successors.contains(&group)).map(|ended| ended.group).collect();
        parents.dedup();
        parents.truncate(born.parents.len().max(1));
        if !parents.iter().eq(born.parents.iter().map(|(parent, _)| parent)) {
            wrong("out of other shards than the layout says");
        }
        let ends: Vec<Last> = born.parents.iter().filter_map(|(parent, _)| self.last.get(parent)).copied().collect();
        let height = ends.iter().map(|end| end.height.0).max().map_or(0, |height| height + 1);
        let time = ends.iter().map(|end| end.time_ms.0).max().map_or(0, |time| time + 1);
        if ends.len() != born.parents.len() || !ends.iter().all(|end| end.sealed) {
            wrong("though not all that it came from stand still");
        }
        let chained = header.parents.iter().eq(ends.iter().map(|end| &end.hash));
        if !chained || header.height.0 != height || header.time_ms.0 != time || header.flags != FLAG_BORN {
            wrong("with a block that does not go on from theirs");
        }
        let own = born.pairs.iter().filter(|(key, _)| key.first() == Some(&schema::STATE));
        let leaves: Leaves<'_> = own.map(|(key, value)| (&key[..], &value[..])).collect();
        let theirs = born.parents.iter().flat_map(|(_, leaves)| leaves.iter());
        let theirs = theirs.filter(|(key, _)| partition(key).is_some_and(|partition| under(&prefix, &partition)));
        let expected: Leaves<'_> = theirs.map(|(key, value)| (&key[..], &value[..])).collect();
        if leaves != expected {
            let register = |key: &&&[u8]| key.get(33) == Some(&schema::KIND_REGISTER);
            let (have, should) = (leaves.keys().filter(register).count(), expected.keys().filter(register).count());
            wrong(&format!(
                "with {} leaves, {have} of them registers, where it should have {} and {should}",
                leaves.len(),
                expected.len()
            ));
        }
        let mut hashed: Vec<([u8; 32], [u8; 32])> = Vec::with_capacity(leaves.len());
        for (key, value) in &leaves {
            let position = schema::tree_position(key).ok_or("a leaf has no place in the tree")?;
            hashed.push((position, hash_of(&[*value])));
        }
        hashed.sort_unstable();
        if root(&hashed, usize::from(prefix.length)) != header.state_root.0 {
            wrong("with a root that is not of its leaves");
        }
        let mut totals: BTreeMap<AssetId, u128> = BTreeMap::new();
        for (key, value) in &born.pairs {
            let asset = key.strip_prefix(TOTALS).and_then(|id| <[u8; 16]>::try_from(id).ok());
            if let Some(asset) = asset {
                let total: u128 = borsh::from_slice(value).map_err(|error| error.to_string())?;
                totals.extend((total > 0).then_some((AssetId(asset), total)));
            }
        }
        let held = amounts(&leaves)?;
        if totals != held {
            wrong(&format!("with totals of {totals:?}, and its accounts have {held:?}"));
        }
        let value = |key: &[u8]| born.pairs.iter().find(|(known, _)| known[..] == *key).map(|(_, value)| value);
        let layout = value(&schema::layout()).and_then(|bytes| borsh::from_slice::<Layout>(bytes).ok());
        let known = layout.as_ref().and_then(|layout| facts.lines.layouts().get(&layout.version.0));
        if layout.is_none() || layout.as_ref() != known {
            wrong("with a layout that was never in force");
        }
        let origin = value(&schema::origin()).and_then(|bytes| borsh::from_slice::<Origin>(bytes).ok());
        let told = origin.is_some_and(|origin| {
            let hashes = origin.parents.iter().map(|end| &end.header_hash);
            origin.first == header.height && origin.header_hash == hash && hashes.eq(header.parents.iter())
        });
        if !told {
            wrong("and does not say so of itself");
        }
        if first {
            let (height, time_ms, state_root) = (header.height, header.time_ms, header.state_root);
            self.last.insert(group, Last { height, hash, time_ms, state_root, sealed: false });
        }
        let (state_root, parents) = (header.state_root, header.parents.clone());
        let begun = Begun { hash, state_root, leaves: hashed.len(), parents };
        if self.begun.entry(group).or_insert(begun).hash != hash {
            found.push(format!("{group} begins on node {node} with another block than elsewhere"));
        }
        found.extend(self.of_one_tree(facts, born));
        Ok(())
    }

    /// What the beacon keeps of jobs.
    fn jobs(&mut self, beacon: &RawReplica<'_>, found: &mut Vec<String>) {
        let jobs = state::scan(beacon.kv, JOBS);
        let jobs: Vec<Job> = jobs.iter().filter_map(|(_, value)| borsh::from_slice(value).ok()).collect();
        let sealing = jobs.iter().filter(|job| job.phase == Phase::Sealing).count();
        if sealing > 1 {
            found.push(format!("on node {} of the beacon {sealing} jobs have shards stand still at once", beacon.node));
        }
        for job in &jobs {
            for child in &job.children {
                let first = *self.numbers.entry(child.group).or_insert(job.id);
                if first != job.id {
                    found.push(format!("{} is given to {first} and to {}", child.group, job.id));
                }
            }
        }
    }

    /// What the beacon says of a shard for good.
    fn leaf(&self, facts: &Facts, beacon: &RawReplica<'_>, group: GroupId, begun: &Begun) -> Result<(), String> {
        let leaf: BornShard = state::load(beacon.kv, &schema::born(group))?;
        let parents = leaf.parents.iter().map(|end| &end.header_hash);
        let roots: Vec<[u8; 32]> = leaf.roots.iter().map(|root| root.hash).collect();
        let fits = leaf.group == group
            && facts.lines.prefix(group) == Some(&leaf.prefix)
            && parents.eq(begun.parents.iter())
            && roots == [begun.state_root.0];
        if fits { Ok(()) } else { Err(format!("the beacon says something else of {group} than how it has begun")) }
    }
}

impl Checker for Lineage {
    fn name(&self) -> &'static str {
        "lineage"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) if first => self.block(facts, block, found),
            Seen::Born(born) => {
                if let Err(why) = self.born(facts, born, found) {
                    found.push(why);
                }
            }
            _ => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        for replica in replicas {
            let (node, group) = (replica.node, replica.group);
            if group == GroupId::BEACON {
                self.jobs(replica, found);
                for (born, begun) in self.begun.iter().filter(|_| moment == Moment::End) {
                    found.extend(self.leaf(facts, replica, *born, begun).err());
                }
            }
            if !facts.lines.changed() || group.kind() != Some(GroupKind::Shard) {
                continue;
            }
            let leaves = state::scan(replica.kv, &[schema::STATE]);
            let owned = |key: &[u8]| partition(key).is_some_and(|partition| facts.lines.owns(group, &partition));
            if !leaves.iter().all(|(key, _)| owned(key)) {
                found.push(format!("{group} has a leaf on node {node} of an account that is another shard's"));
            }
            if moment == Moment::End && facts.lines.retired(group) {
                found.push(format!("node {node} still has {group}, which has ended"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::roots::bit;
    use super::super::roots::tests::leaves;
    use super::super::trial::{facts, header};
    use super::*;
    use bytes::Bytes;
    use ledger::header::Header;
    use ledger::ids::NodeId;

    /// A shard that was cut, by the leaves in its halves, and the one that these were joined into.
    #[test]
    fn roots_that_are_not_of_one_tree_are_found() {
        let shard = GroupId::shard;
        let cut = Layout::even(1).split(shard(0), [shard(1), shard(2)]).expect("it can be cut");
        let joined = cut.merge([shard(1), shard(2)], shard(3)).expect("they are halves");
        let mut facts = facts(Layout::even(1));
        facts.lines.learn(&cut);
        facts.lines.learn(&joined);
        let all = leaves(9);
        let (left, right) = all.split_at(all.partition_point(|(place, _)| !bit(place, 0)));
        let roots = [(shard(0), root(&all, 0)), (shard(1), root(left, 1)), (shard(2), root(right, 1))];
        let nothing = |count: usize| vec![(Bytes::new(), Bytes::new()); count];
        let born = |group: u32, root: [u8; 32], parents| {
            let header = Header { state_root: Hash32(root), ..header(shard(group), 6) };
            BornSeen { node: NodeId(0), header, pairs: Vec::new(), parents }
        };
        let half = |group: u32| born(group, roots[group as usize].1, vec![(shard(0), nothing(9))]);
        let whole = |root| born(3, root, vec![(shard(1), nothing(left.len())), (shard(2), nothing(right.len()))]);
        let mut lineage = Lineage::default();
        for (group, root) in roots {
            let (height, time_ms, state_root) = (Height(5), TimeMs(5), Hash32(root));
            lineage.last.insert(group, Last { height, hash: Hash32::ZERO, time_ms, state_root, sealed: true });
        }
        let begins = |lineage: &mut Lineage, group: u32, leaves: usize| {
            let (hash, state_root) = (Hash32::ZERO, Hash32(roots[group as usize].1));
            lineage.begun.insert(shard(group), Begun { hash, state_root, leaves, parents: Vec::new() });
        };
        begins(&mut lineage, 1, left.len());
        assert_eq!(lineage.of_one_tree(&facts, &half(1)), None, "the other half is not known");
        begins(&mut lineage, 2, right.len());
        assert_eq!(lineage.of_one_tree(&facts, &half(2)), None);
        assert_eq!(lineage.of_one_tree(&facts, &whole(roots[0].1)), None);
        assert!(lineage.of_one_tree(&facts, &whole([7; 32])).is_some(), "the joined one has another root");
        lineage.last.get_mut(&shard(0)).expect("it is known").state_root = Hash32([7; 32]);
        for group in [1, 2] {
            assert!(lineage.of_one_tree(&facts, &half(group)).is_some(), "the one that was cut had another root");
        }
        lineage.last.get_mut(&shard(1)).expect("it is known").state_root = Hash32([7; 32]);
        assert!(lineage.of_one_tree(&facts, &whole(roots[0].1)).is_some(), "the left one had another root");
    }

    #[test]
    fn a_layout_with_a_gap_or_an_overlap_covers_nothing_once() {
        let shard = GroupId::shard;
        let cut = Layout::even(2).split(shard(1), [shard(2), shard(3)]).expect("it can be cut");
        assert!(covers(&cut));
        let mut gap = cut.clone();
        gap.shards.pop();
        assert!(!covers(&gap));
        let mut twice = cut;
        twice.shards.push(twice.shards[0].clone());
        assert!(!covers(&twice));
    }
}
