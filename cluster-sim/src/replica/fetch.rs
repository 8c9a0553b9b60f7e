//! Getting the state of another replica, part by part, over a network that loses parts and from a node that
//! may lose power meanwhile; and giving it to those who may have it.
//!
//! What has come is in memory until it is complete, and gone with the power. A state that is complete is
//! judged and put in the place of the replica's own in one step. Mirrors what production has in its engine
//! and in `server/snapshot.rs`; of the checks there it makes those of the tree, the last header and block
//! 0, and leaves out that every hand-over is certified.

use std::path::Path;

use bytes::Bytes;
use consensus::local::{Base, LocalDisk};
use ledger::committee::{Committee, Engine};
use ledger::hash;
use ledger::header::Header;
use ledger::ids::{Height, NodeId, Tick};
use ledger::schema;
use shard_node::core::applied::{self, AppliedRecord};
use shard_node::core::marks;
use storage::kv::{Kv, WriteBatch};
use storage::mem::MemKv;

use crate::checkers::Seen;
use crate::replica::{Effect, Replica, encoded, founded_state};
use crate::seat;
use crate::state::{self, KvState};
use crate::wire::{CopyName, Wire};

const PART_BYTES: usize = 8 * 1024;
/// Ticks after which a part is asked for again.
const AGAIN_TICKS: u64 = 25;
/// So often, before it is given up.
const TRIES: u32 = 4;
/// A state that is so many blocks old is still given to whoever begins.
const KEPT_BLOCKS: u64 = 16;

/// What has come of a state.
pub(super) struct Fetch {
    source: NodeId,
    /// Of this copy, as the first part said.
    of: Option<CopyName>,
    parts: Vec<Vec<u8>>,
    /// When the next part was asked for, by the replica's ticks, and how often.
    asked: u64,
    tries: u32,
}

/// A state as it was, for those who fetch it.
pub(super) struct Kept {
    of: CopyName,
    bytes: Bytes,
}

impl Replica {
    /// Whether a state is on its way.
    #[must_use]
    pub fn fetches(&self) -> bool {
        self.fetch.is_some()
    }

    /// This replica lacks what its leader's log has not: it needs the leader's state.
    pub(super) fn lack(&mut self, source: NodeId, out: &mut Vec<Effect>) {
        if self.fetch.is_none() {
            self.fetch = Some(Fetch { source, of: None, parts: Vec::new(), asked: self.ticks, tries: 0 });
            out.push(Effect::Fetching(source));
            self.ask(out);
        }
    }

    /// A replica that has nothing yet asks a member of a Byzantine group by itself: nobody sends such a one entries.
    pub(crate) fn seek(&mut self, source: NodeId, out: &mut Vec<Effect>) {
        if self.live.is_none() && self.vacant() {
            self.lack(source, out);
        }
    }

    fn ask(&mut self, out: &mut Vec<Effect>) {
        let Some(fetch) = &mut self.fetch else { return };
        fetch.asked = self.ticks;
        let part = u32::try_from(fetch.parts.len()).unwrap_or(u32::MAX);
        let wire = Wire::Fetch { group: self.group, of: fetch.of, part };
        out.push(Effect::Send(fetch.source, wire));
    }

    /// Asks again for what has not come, and gives up in the end: the next leader that finds this replica
    /// lacking is asked from the beginning.
    pub(super) fn await_part(&mut self, out: &mut Vec<Effect>) {
        let Some(fetch) = &mut self.fetch else { return };
        if self.ticks < fetch.asked + AGAIN_TICKS {
            return;
        }
        fetch.tries += 1;
        if fetch.tries > TRIES {
            self.fetch = None;
            out.push(Effect::FetchCut);
        } else {
            self.ask(out);
        }
    }

    /// Whether a node may have this group's state: it votes or gets the log, has a seat, or is about to.
    pub(super) fn may_have(&self, node: NodeId) -> bool {
        if self.excluded_since(node).is_some() {
            return false;
        }
        let role = self.role().unwrap_or_default();
        let coming = state::find::<Committee>(&self.kv, &schema::coming_committee()).ok().flatten();
        role.voters.iter().chain(&role.learners).any(|other| seat::node_of(*other) == node)
            || seat::seats(&self.kv, self.group).contains_key(&node)
            || coming.is_some_and(|coming| coming.index_of(node).is_some())
    }

    /// A node asks for a part of the state, of this copy or, to begin with, of any.
    pub fn serve(&mut self, to: NodeId, of: Option<CopyName>, part: u32, out: &mut Vec<Effect>) {
        // A shard that has just begun, and in which nothing was ordered yet, has no place to go on from.
        let begun = self.live.as_ref().is_some_and(|live| live.applied.consensus.position.is_some());
        let Some(current) = self.height().filter(|_| begun && self.may_have(to)) else { return };
        let fits = self.kept.as_ref().is_some_and(|kept| match of {
            Some(of) => kept.of == of,
            None => kept.of.height.0 + KEPT_BLOCKS >= current.0,
        });
        if !fits {
            if of.is_some() {
                return;
            }
            let bytes = self.kv.export();
            self.kept = Some(Kept { of: CopyName { height: current, hash: hash::sha256(&bytes) }, bytes });
        }
        let Some(kept) = &self.kept else { return };
        let parts = u32::try_from(kept.bytes.chunks(PART_BYTES).count()).unwrap_or(u32::MAX);
        let Some(bytes) = kept.bytes.chunks(PART_BYTES).nth(part as usize) else { return };
        let wire = Wire::Part { group: self.group, of: kept.of, part, parts, bytes: bytes.to_vec() };
        out.push(Effect::Send(to, wire));
    }

    /// A part has come.
    pub fn part(
        &mut self,
        now: Tick,
        from: NodeId,
        of: CopyName,
        part: u32,
        parts: u32,
        bytes: Vec<u8>,
        out: &mut Vec<Effect>,
    ) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.source == from) else { return };
        if fetch.of.is_some_and(|known| known != of) || part as usize != fetch.parts.len() {
            return;
        }
        fetch.of = Some(of);
        fetch.parts.push(bytes);
        fetch.tries = 0;
        if fetch.parts.len() < parts as usize {
            return self.ask(out);
        }
        let whole = fetch.parts.concat();
        self.fetch = None;
        if let Err(why) = self.install(now, &whole, out) {
            let (group, node) = (self.group, self.node);
            out.push(Effect::Broken(format!("node {node} cannot use the state of {group} from node {from}: {why}")));
        }
    }

    fn install(&mut self, now: Tick, whole: &[u8], out: &mut Vec<Effect>) -> Result<(), String> {
        let kv = MemKv::import(whole, Path::new("a fetched state")).map_err(|error| error.to_string())?;
        let applied: AppliedRecord = state::load(&kv, &schema::applied())?;
        let position = applied.consensus.position.ok_or("it has no position in the log")?;
        // What has come by the log in the meantime may be more.
        let own: Option<AppliedRecord> = state::find(&self.kv, &schema::applied())?;
        let own = own.and_then(|own| own.consensus.position).map_or(0, |position| position.index);
        if own >= position.index {
            return Ok(());
        }
        self.judge(&kv, &applied)?;
        let mut batch = WriteBatch::new();
        for (key, _) in state::scan(&kv, &[schema::NODE]) {
            batch.delete(key);
        }
        // What this node has found out by itself stays.
        for (key, value) in state::scan(&self.kv, &[schema::NODE]) {
            batch.put(key, value);
        }
        batch.put(marks::installed(), encoded(&applied.height));
        kv.write(batch).and_then(|()| kv.flush()).map_err(|error| error.to_string())?;
        let order = applied::order(&KvState { kv: &kv, hide_receipts: false }, self.group);
        let order = order.map_err(|fault| fault.0)?;
        let voters = match &applied.consensus.membership {
            Some((_, voters)) if order.engine == Engine::Raft => {
                borsh::from_slice(voters).map_err(|error| error.to_string())?
            }
            Some(_) | None => Vec::new(),
        };
        self.disk.sync(usize::MAX);
        let base = Base { index: position.index, term: position.term, voters };
        self.disk = LocalDisk::new(self.disk.durable().behind(base));
        self.kv = kv;
        (self.live, self.kept) = (None, None);
        let (node, join, group, height) = (self.node, self.join, self.group, applied.height);
        out.push(Effect::Saw(Seen::Fetched { node, join, group, height, index: position.index }));
        self.start(now, self.offset_ms, self.seed, out)
    }

    fn judge(&self, kv: &MemKv, applied: &AppliedRecord) -> Result<(), String> {
        let last: Header = state::load(kv, &schema::header(applied.height))?;
        let mut tree = state::rebuild_tree(kv, self.group)?;
        let own = last.group == self.group && last.cluster == self.constants.cluster;
        if !own || last.hash() != applied.header_hash || tree.root() != last.state_root.0 {
            return Err("its last header is not of its content".to_owned());
        }
        if let Some(founded) = &self.founded {
            let first: Header = state::load(kv, &schema::header(Height(0)))?;
            if first != founded_state(&self.genesis, founded)?.header {
                return Err("it did not begin with the group's foundation".to_owned());
            }
        }
        Ok(())
    }
}
