//! Copies of shards that are to be cut or joined, kept while these go on, and the first states that come out of them.
//!
//! What production's host keeps beside a parent's commit loop. What of a parent belongs to a copy, how its value is counted
//! and what a child's first block is, are the production core's (`follow`, `tally`, `birth`); here bytes are moved. A
//! copy that is made at the last moment comes from the same functions. All of it is in memory and gone with the power.

use bytes::Bytes;
use ledger::header::Header;
use ledger::ids::{ClusterId, GroupId, Height};
use ledger::layout::BitPrefix;
use ledger::lineage::{ChildShard, Origin};
use ledger::schema;
use ledger::tree::{StateTree, SubtreeRoot, value_hash};
use ledger::view::StateReader;
use shard_node::core::birth::birth;
use shard_node::core::follow::{Right, Side, Writes, follow};
use shard_node::core::tally::{ChildTally, Tally};
use storage::kv::{Kv, WriteBatch};
use storage::mem::MemKv;

use crate::sabotage::{self, Sabotage};
use crate::state::{self, KvState};

/// What a block of a parent has written.
pub(crate) struct Tapped {
    height: Height,
    writes: Writes,
    /// What stood under each key before, where that counts.
    before: Vec<Option<Bytes>>,
}

impl Tapped {
    /// Takes what a block is about to write.
    pub(crate) fn of(kv: &MemKv, height: Height, writes: &[(Vec<u8>, Option<Bytes>)]) -> Result<Self, String> {
        let mut before = Vec::with_capacity(writes.len());
        for (key, _) in writes {
            let counts = matches!(key.first(), Some(&(schema::STATE | schema::PREPARED)));
            before.push(if counts { kv.get(key).map_err(|error| error.to_string())? } else { None });
        }
        Ok(Self { height, writes: writes.to_vec(), before })
    }
}

/// A shard that is to end, as its replica on a node stands.
#[derive(Clone, Copy)]
pub(crate) struct Parent<'a> {
    pub(crate) group: GroupId,
    pub(crate) prefix: BitPrefix,
    pub(crate) kv: &'a MemKv,
    pub(crate) height: Height,
}

/// A child as it begins: its state, durable, and its first header.
pub(crate) struct Born {
    pub(crate) child: ChildShard,
    pub(crate) kv: MemKv,
    pub(crate) header: Header,
}

/// The copies that a node keeps for one job.
pub(crate) struct Copies {
    children: Vec<ChildShard>,
    /// The parents, the left one first, and up to which block of each the copies are.
    parents: Vec<(GroupId, BitPrefix)>,
    heights: Vec<Height>,
    /// One for each child.
    kvs: Vec<MemKv>,
    /// Of a shard that is cut one for each half, else one for each parent.
    tallies: Vec<Tally>,
    /// When they were made, by the node's ticks.
    pub(crate) since: u64,
}

impl Copies {
    /// Copies of parents as they stand.
    pub(crate) fn make(
        cluster: ClusterId,
        children: &[ChildShard],
        parents: &[Parent<'_>],
        since: u64,
    ) -> Result<Self, String> {
        let cut = parents.len() == 1;
        let of_children = children.iter().map(|child| child.prefix);
        let counted: Vec<BitPrefix> =
            if cut { of_children.collect() } else { parents.iter().map(|parent| parent.prefix).collect() };
        let mut copies = Self {
            children: children.to_vec(),
            parents: parents.iter().map(|parent| (parent.group, parent.prefix)).collect(),
            heights: parents.iter().map(|parent| parent.height).collect(),
            kvs: children.iter().map(|_| MemKv::new()).collect(),
            tallies: counted.into_iter().map(|prefix| Tally::new(cluster, prefix)).collect(),
            since,
        };
        for place in 0..parents.len() {
            copies.take_all(parents, place, &[])?;
        }
        Ok(copies)
    }

    /// The parents, the left one first.
    pub(crate) fn parents(&self) -> &[(GroupId, BitPrefix)] {
        &self.parents
    }

    /// Whether they are as far as the parents.
    pub(crate) fn stand_with(&self, parents: &[Parent<'_>]) -> bool {
        parents.iter().map(|parent| parent.height).eq(self.heights.iter().copied())
    }

    /// Takes what a parent has under a prefix of keys.
    fn take_all(&mut self, parents: &[Parent<'_>], place: usize, prefix: &[u8]) -> Result<(), String> {
        let pairs = state::scan(parents[place].kv, prefix).into_iter();
        let writes: Writes = pairs.map(|(key, value)| (key.to_vec(), Some(value))).collect();
        let before = vec![None; writes.len()];
        self.take(parents, place, &writes, &before)
    }

    fn take(
        &mut self,
        parents: &[Parent<'_>],
        place: usize,
        writes: &Writes,
        before: &[Option<Bytes>],
    ) -> Result<(), String> {
        if let [left, right] = parents {
            let reader = KvState { kv: left.kv, hide_receipts: false };
            let origin: Option<Origin> = state::find(right.kv, &schema::origin())?;
            let left_origin: Option<Origin> = state::find(left.kv, &schema::origin())?;
            let (origin, left_origin) = (origin.as_ref(), left_origin.as_ref());
            let right = Right { group: right.group, origin, left_origin, left: &reader };
            let side = if place == 0 { Side::Left } else { Side::Right(right) };
            copy(&side, writes, &self.kvs[0])?;
            return count(&mut self.tallies[place], writes, before);
        }
        for (child, kv) in self.children.iter().zip(&self.kvs) {
            copy(&Side::Half(child.prefix), writes, kv)?;
        }
        self.tallies.iter_mut().try_for_each(|tally| count(tally, writes, before))
    }

    /// Takes a parent's next blocks. Returns whether they follow on what the copies have.
    pub(crate) fn advance(&mut self, parents: &[Parent<'_>], place: usize, blocks: &[Tapped]) -> Result<bool, String> {
        for block in blocks.iter().filter(|block| block.height > self.heights[place]).collect::<Vec<_>>() {
            if block.height != self.heights[place].next() {
                return Ok(false);
            }
            self.take(parents, place, &block.writes, &block.before)?;
            self.heights[place] = block.height;
        }
        Ok(true)
    }

    /// The children, out of parents that stand still.
    pub(crate) fn born(mut self, parents: &[Parent<'_>], wrong: Option<Sabotage>) -> Result<Vec<Born>, String> {
        for place in 0..parents.len() {
            // What a replica has written beside its blocks.
            self.take_all(parents, place, &[schema::CERTIFICATE])?;
            self.take_all(parents, place, &[schema::NODE])?;
        }
        let cut = parents.len() == 1;
        let mut roots = Vec::with_capacity(2);
        if cut {
            for (child, kv) in self.children.iter().zip(&self.kvs) {
                roots.push(root_of(kv, child.prefix)?);
            }
        } else {
            for parent in parents {
                roots.push(root_of(parent.kv, parent.prefix)?);
            }
        }
        let mut tallies: Vec<ChildTally> = self.tallies.iter().map(Tally::counted).collect();
        if wrong == Some(Sabotage::TallyOfWrongHalf) && cut {
            tallies.reverse();
        }
        let states: Vec<KvState<'_>> =
            parents.iter().map(|parent| KvState { kv: parent.kv, hide_receipts: false }).collect();
        let readers: Vec<&dyn StateReader> = states.iter().map(|state| state as &dyn StateReader).collect();
        let mut all = Vec::with_capacity(self.children.len());
        for (place, (child, kv)) in self.children.into_iter().zip(self.kvs).enumerate() {
            let born = birth(&readers, child.group, &roots, &tallies).map_err(|error| error.to_string())?;
            let mut batch = WriteBatch::new();
            for range in born.cut {
                if let Some(end) = range.end {
                    batch.delete_range(range.start, end);
                }
            }
            for (key, value) in born.writes {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                }
            }
            kv.write(batch).map_err(|error| error.to_string())?;
            if cut && place == 1 {
                sabotage::spoil_right_half(wrong, &kv)?;
            }
            kv.flush().map_err(|error| error.to_string())?;
            all.push(Born { child, kv, header: born.header });
        }
        Ok(all)
    }
}

fn copy(side: &Side<'_>, writes: &Writes, kv: &MemKv) -> Result<(), String> {
    let mut batch = WriteBatch::new();
    for (key, value) in follow(side, writes).map_err(|fault| fault.0)? {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    kv.write(batch).map_err(|error| error.to_string())
}

fn count(tally: &mut Tally, writes: &Writes, before: &[Option<Bytes>]) -> Result<(), String> {
    for ((key, new), old) in writes.iter().zip(before) {
        tally.change(key, old.as_deref(), new.as_deref()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The root of what a database has under a prefix.
fn root_of(kv: &MemKv, prefix: BitPrefix) -> Result<SubtreeRoot, String> {
    let mut tree = StateTree::new(prefix.in_tree());
    let leaves = state::scan(kv, &[schema::STATE]);
    let leaves = leaves.iter().filter_map(|(key, value)| Some((schema::tree_position(key)?, Some(value_hash(value)))));
    tree.apply(leaves).map_err(|error| error.to_string())?;
    Ok(tree.subtree_root())
}
