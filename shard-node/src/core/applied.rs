//! The applied position: the last block and where the consensus log stands, written in the same
//! batch as the block's effects; and which entries count, when a group goes over to another engine.
//!
//! The engine is a property of the committee. The block that puts a committee with another engine into force is the
//! last that the engine before it orders. What stands behind it in that engine's log is void: the rule is [`counts`],
//! and every replica finds the same by its state alone.

use beacon::seats::join_at;
use borsh::{BorshDeserialize, BorshSerialize};
use consensus::port::{AppliedState, Order, Position, replica_id};
use ledger::committee::{Committee, Engine};
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, NodeId, TimeMs};
use ledger::lineage::Origin;
use ledger::schema;
use ledger::view::{ReadFault, StateReader, View};

/// What a restarted replica continues from.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AppliedRecord {
    /// Format version, 1.
    pub version: u8,
    /// Where the log stands.
    pub consensus: AppliedState,
    /// The last block.
    pub height: Height,
    /// Its header's hash, the next block's parent.
    pub header_hash: Hash32,
    /// Its time.
    pub time_ms: TimeMs,
    /// Its state root, so that a rebuilt tree can be checked.
    pub state_root: Hash32,
}

/// Version written into new [`EngineStart`]s.
pub const ENGINE_START_VERSION: u8 = 1;

/// Where the engine in force took over from another one. Written with the block that put its committee into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EngineStart {
    /// Format version, [`ENGINE_START_VERSION`].
    pub version: u8,
    /// The engine that orders from the next entry on.
    pub engine: Engine,
    /// The last entry of the engine before it. The first entry of this one has the next index.
    pub after: Position,
    /// The block that this entry made.
    pub height: Height,
    /// Hash of its header: what the first entry of this engine builds on.
    pub anchor: Hash32,
}

impl EngineStart {
    /// The order that begins here.
    #[must_use]
    pub fn order(&self) -> Order {
        Order { engine: self.engine, after: Some(self.after), anchor: self.anchor }
    }
}

/// Whether an entry counts that the engine `by` delivers with this index, when the state is in this order.
///
/// One that does not is void. It makes no block, and leaves no trace at all: the position does not move either, since
/// the engine in force begins at the index behind the hand-over, and this index is one of its own. So an entry is void when
///
/// - another engine than that of the committee in force delivers it: it stands behind the entry that handed over, in the
///   log of the engine that has handed over; or
/// - it does not stand behind the hand-over: it is what an earlier run of the same engine has left in its log, void since
///   then, or an entry of before, which is in state.
///
/// Entries that are delivered together are judged one by one, each by the state behind the one before.
#[must_use]
pub fn counts(order: &Order, by: Engine, index: u64) -> bool {
    by == order.engine && order.after.is_none_or(|after| index > after.index)
}

/// What orders the entries of a group, by its state. The first entry builds on block 0, or on the block that a shard
/// began with when others were cut or joined into it.
///
/// # Errors
/// [`ReadFault`] when the state cannot be read, or holds no committee or no first block.
pub fn order(reader: &dyn StateReader, group: GroupId) -> Result<Order, ReadFault> {
    let mut view = View::new(reader);
    let committee: Option<Committee> = view.load(&schema::current_committee(group));
    let start: Option<EngineStart> = view.load(&schema::engine_start());
    let origin: Option<Origin> = view.load(&schema::origin());
    let born = origin.map_or(Height(0), |origin| origin.first);
    let first: Option<Header> = view.load(&schema::header(born));
    if let Some(fault) = view.fault() {
        return Err(fault.clone());
    }
    let missing = |what: &str| ReadFault(format!("the state holds no {what}"));
    let engine = committee.ok_or_else(|| missing("committee"))?.engine;
    match start {
        Some(start) => Ok(Order { engine, ..start.order() }),
        None => {
            Ok(Order { engine, after: None, anchor: first.ok_or_else(|| missing("header of its first block"))?.hash() })
        }
    }
}

/// The replicas of a committee's members, by engine id and node: each has joined with the first committee since which
/// its node has had a seat without a break. What an engine that keeps its own list of members begins with, when it takes
/// over from one that has none.
///
/// # Errors
/// [`ReadFault`] when the state cannot be read, or an epoch is too high to be a join.
pub fn replicas(reader: &dyn StateReader, committee: &Committee) -> Result<Vec<(u64, NodeId)>, ReadFault> {
    let prefix = [schema::COMMITTEES_PREFIX, &committee.group.0.to_be_bytes()].concat();
    let mut earlier = Vec::new();
    for (_, bytes) in reader.scan_prefix(&prefix)? {
        let one: Committee = borsh::from_slice(&bytes).map_err(|error| ReadFault(error.to_string()))?;
        if one.epoch < committee.epoch {
            earlier.push(one);
        }
    }
    earlier.sort_unstable_by_key(|one| std::cmp::Reverse(one.epoch));
    let replica = |node: NodeId| -> Result<(u64, NodeId), ReadFault> {
        let since = earlier.iter().take_while(|one| one.index_of(node).is_some()).last().unwrap_or(committee);
        let join = join_at(since).ok_or_else(|| ReadFault(format!("epoch {} is too high", since.epoch)))?;
        Ok((replica_id(node, join), node))
    };
    committee.members.iter().map(|member| replica(member.node)).collect()
}

#[cfg(test)]
#[path = "applied_tests.rs"]
mod tests;
