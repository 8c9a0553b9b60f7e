//! A chain executed once more, from the entries of its log, for the checkers.
//!
//! A host that runs elsewhere, with its own disks and engine, leaves logs behind. [`retell`] executes
//! them in memory and tells the checkers every block, as tier 1 does while it happens: of several
//! groups in an order that mail allows, each block after all that it took and all that it knows to be
//! taken. What comes out must be what the host's databases hold, byte for byte. Never judges anything
//! itself, except that such an order exists.

use std::collections::BTreeMap;

use consensus::port::{AppliedState, Committed, Payload};
use ledger::genesis::Genesis;
use ledger::ids::{GroupId, NodeId};
use ledger::schema;
use ledger::tree::StateTree;
use shard_node::core::applied::AppliedRecord;
use shard_node::core::executor::{GroupConstants, execute};
use shard_node::core::genesis::genesis_state;
use storage::kv::{Kv, WriteBatch};
use storage::mem::MemKv;

use crate::checkers::{BlockSeen, Checkers, Seen};
use crate::replica::commit::seen;
use crate::state::{self, KvState};

/// One group's state, block by block.
pub struct Chain {
    group: GroupId,
    constants: GroupConstants,
    kv: MemKv,
    tree: StateTree,
    applied: AppliedRecord,
}

impl Chain {
    /// Block 0.
    ///
    /// # Errors
    /// A text when the genesis has no such group.
    pub fn new(genesis: &Genesis, group: GroupId) -> Result<Self, String> {
        let first = genesis_state(genesis, None, group).map_err(|error| error.to_string())?;
        let kv = MemKv::new();
        let mut batch = WriteBatch::with_capacity(first.writes.len());
        first.writes.into_iter().for_each(|(key, value)| batch.put(key, value));
        kv.write(batch).map_err(|error| error.to_string())?;
        let (tree, applied) = (state::rebuild_tree(&kv, group)?, state::load(&kv, &schema::applied())?);
        let constants = GroupConstants { cluster: genesis.cluster_id(), group, verify: genesis.verify };
        Ok(Self { group, constants, kv, tree, applied })
    }

    /// The state so far.
    #[must_use]
    pub fn kv(&self) -> &MemKv {
        &self.kv
    }

    /// Executes the next entry of the log, which `node` had. Entries of the engine make no block.
    ///
    /// # Errors
    /// A text when the state cannot be what a replica had.
    pub fn apply(&mut self, node: NodeId, entry: Committed) -> Result<Option<BlockSeen>, String> {
        let mut consensus: AppliedState = self.applied.consensus.clone();
        consensus.position = Some(entry.position);
        let payload = match entry.payload {
            Payload::Batch(payload) => payload,
            Payload::Blank => return self.note(consensus).map(|()| None),
            Payload::Membership(members) => {
                consensus.membership = Some((Some(entry.position), members.to_vec()));
                return self.note(consensus).map(|()| None);
            }
        };
        let base = KvState { kv: &self.kv, hide_receipts: false };
        let at = consensus.clone();
        let executed = execute(&base, &mut self.tree, &self.constants, &self.applied, at, &payload)
            .map_err(|error| error.to_string())?;
        let Some(mut block) = executed.block() else { return self.note(consensus).map(|()| None) };
        let writes = std::mem::take(&mut block.writes);
        let shown = seen(node, self.group, entry.position, &block, &writes, &payload);
        let mut batch = WriteBatch::with_capacity(writes.len());
        for (key, value) in writes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        self.kv.write(batch).map_err(|error| error.to_string())?;
        self.applied = block.applied;
        Ok(Some(shown))
    }

    fn note(&mut self, consensus: AppliedState) -> Result<(), String> {
        self.applied.consensus = consensus;
        let bytes = borsh::to_vec(&self.applied).map_err(|error| error.to_string())?;
        let mut batch = WriteBatch::with_capacity(1);
        batch.put(schema::applied(), bytes);
        self.kv.write(batch).map_err(|error| error.to_string())
    }
}

/// What the blocks told so far have emitted and taken.
#[derive(Default)]
struct Mail {
    /// Next sequence number by source and destination.
    emitted: BTreeMap<(GroupId, GroupId), u64>,
    taken: BTreeMap<(GroupId, GroupId), u64>,
}

impl Mail {
    /// Whether everything that a block of `group` rests on has been told.
    fn allows(&self, group: GroupId, block: &BlockSeen, acked: &[(GroupId, u64)]) -> bool {
        let at = |book: &BTreeMap<_, u64>, key: (GroupId, GroupId)| book.get(&key).copied().unwrap_or(0);
        block.inbox.iter().all(|leaf| at(&self.emitted, (leaf.peer, group)) >= leaf.next_seq)
            && acked.iter().all(|(dest, upto)| at(&self.taken, (group, *dest)) >= *upto)
    }

    fn told(&mut self, group: GroupId, block: &BlockSeen) {
        for leaf in &block.outbox {
            self.emitted.insert((group, leaf.peer), leaf.next_seq);
        }
        for leaf in &block.inbox {
            self.taken.insert((leaf.peer, group), leaf.next_seq);
        }
    }
}

/// The log of a group as far as it is applied, and the node that had it.
pub type GroupLog = (NodeId, std::vec::IntoIter<Committed>);

/// Executes the logs of all groups and tells the checkers every block. Returns the groups' states.
///
/// # Errors
/// A text when an entry cannot be executed, or when a group has taken mail, or knows mail to be taken,
/// for which no block accounts.
pub fn retell(
    genesis: &Genesis,
    mut logs: BTreeMap<GroupId, GroupLog>,
    checkers: &mut Checkers,
) -> Result<BTreeMap<GroupId, Chain>, String> {
    let mut chains = BTreeMap::new();
    for group in logs.keys() {
        chains.insert(*group, Chain::new(genesis, *group)?);
    }
    let mut mail = Mail::default();
    let mut waiting: BTreeMap<GroupId, (BlockSeen, Vec<(GroupId, u64)>)> = BTreeMap::new();
    loop {
        let mut told = false;
        for (group, chain) in &mut chains {
            loop {
                if !waiting.contains_key(group)
                    && let Some((node, log)) = logs.get_mut(group)
                    && let Some(block) = next_block(chain, *node, log)?
                {
                    let streams = state::out_streams(&chain.kv);
                    let acked = streams.into_iter().map(|(dest, stream)| (dest, stream.acked)).collect();
                    waiting.insert(*group, (block, acked));
                }
                let Some((block, acked)) = waiting.get(group) else { break };
                if !mail.allows(*group, block, acked) {
                    break;
                }
                mail.told(*group, block);
                told = true;
                if let Some((block, _)) = waiting.remove(group) {
                    checkers.see(&Seen::Block(Box::new(block)));
                }
            }
        }
        if !told {
            break;
        }
    }
    match waiting.first_key_value() {
        None => Ok(chains),
        Some((group, (block, _))) => {
            Err(format!("height {} of {group} rests on mail for which no block accounts", block.header.height))
        }
    }
}

fn next_block(
    chain: &mut Chain,
    node: NodeId,
    log: &mut std::vec::IntoIter<Committed>,
) -> Result<Option<BlockSeen>, String> {
    for entry in log {
        if let Some(block) = chain.apply(node, entry)? {
            return Ok(Some(block));
        }
    }
    Ok(None)
}
