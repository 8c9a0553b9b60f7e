//! The applied position: the last block and where the consensus log stands, written in the same
//! batch as the block's effects; and which entries count, when a group goes over to another engine.
//!
//! The engine is a property of the committee. The block that puts a committee with another engine into force is the
//! last that the engine before it orders. What stands behind it in that engine's log is void: the rule is [`counts`],
//! and every replica finds the same by its state alone.

use borsh::{BorshDeserialize, BorshSerialize};
use consensus::port::{AppliedState, Position};
use ledger::committee::{Committee, Engine};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, TimeMs};
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

/// Whether an entry counts that the engine `by` delivers with this index, when `in_force` is the engine of the committee
/// in force and `start` is where it took over.
///
/// One that does not is void. It makes no block, and leaves no trace at all: the position does not move either, since
/// the engine in force begins at the index behind `start`, and this index is one of its own. So an entry is void when
///
/// - another engine than that of the committee in force delivers it: it stands behind the entry that handed over, in the
///   log of the engine that has handed over; or
/// - it does not stand behind the hand-over: it is what an earlier run of the same engine has left in its log, void since
///   then, or an entry of before, which is in state.
///
/// Entries that are delivered together are judged one by one, each by the state behind the one before.
#[must_use]
pub fn counts(in_force: Engine, start: Option<&EngineStart>, by: Engine, index: u64) -> bool {
    by == in_force && start.is_none_or(|start| index > start.after.index)
}

/// [`counts`] by the state of a group.
///
/// # Errors
/// [`ReadFault`] when the state cannot be read, or holds no committee.
pub fn counts_now(reader: &dyn StateReader, group: GroupId, by: Engine, index: u64) -> Result<bool, ReadFault> {
    let mut view = View::new(reader);
    let committee: Option<Committee> = view.load(&schema::current_committee(group));
    let start: Option<EngineStart> = view.load(&schema::engine_start());
    if let Some(fault) = view.fault() {
        return Err(fault.clone());
    }
    let committee = committee.ok_or_else(|| ReadFault("the state holds no committee".to_owned()))?;
    Ok(counts(committee.engine, start.as_ref(), by, index))
}

#[cfg(test)]
#[path = "applied_tests.rs"]
mod tests;
