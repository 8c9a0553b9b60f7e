//! Equal roots: replicas that have a block at a height have the same one, blocks form one chain, and
//! in the end all replicas of a group hold the same bytes.

use std::collections::BTreeMap;

use ledger::foundation::Foundation;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height};
use sha2::{Digest, Sha256};

use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen};
use crate::state;

/// The first header seen at each height.
#[derive(Default)]
pub struct EqualRoots {
    headers: BTreeMap<(GroupId, Height), (Hash32, u64)>,
}

/// A header's hash, computed here.
pub(super) fn header_hash(header: &ledger::Header) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(b"seamark/header/v1");
    hasher.update(borsh::to_vec(header).unwrap_or_default());
    Hash32(hasher.finalize().into())
}

impl EqualRoots {
    /// A founded group begins with what its foundation makes.
    fn founded(&mut self, facts: &Facts, foundation: &Foundation, found: &mut Vec<String>) {
        match crate::replica::founded_state(&facts.genesis, foundation) {
            Ok(first) => {
                let line = (header_hash(&first.header), first.header.time_ms.0);
                self.headers.entry((foundation.group, Height(0))).or_insert(line);
            }
            Err(why) => found.push(format!("the foundation of {} makes no state: {why}", foundation.group)),
        }
    }

    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let (group, height) = (block.group, block.header.height);
        let hash = header_hash(&block.header);
        if hash != block.header_hash || block.header.group != group {
            found.push(format!("node {} goes by a wrong hash for height {height} of {group}", block.node));
        }
        match self.headers.get(&(group, height)) {
            Some((first, _)) if *first != hash => found.push(format!(
                "node {} has another block than the first seen at height {height} of {group}: {hash} and {first}",
                block.node
            )),
            Some(_) => {}
            None => {
                self.chain(facts, block, found);
                self.headers.insert((group, height), (hash, block.header.time_ms.0));
            }
        }
    }

    /// A new height continues the one below it.
    fn chain(&self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let (group, height) = (block.group, block.header.height);
        if block.header.parents.len() != 1 || height.0 == 0 {
            found.push(format!("height {height} of {group} has {} parents", block.header.parents.len()));
            return;
        }
        let before = match self.headers.get(&(group, Height(height.0 - 1))) {
            Some(before) => Some(*before),
            None if height.0 == 1 => crate::replica::first_state(&facts.genesis, group)
                .ok()
                .map(|first| (header_hash(&first.header), first.header.time_ms.0)),
            None => None,
        };
        match before {
            None => found.push(format!("height {height} of {group} appeared before the one below it")),
            Some((parent, _)) if block.header.parents.first() != Some(&parent) => {
                found.push(format!("height {height} of {group} does not name its parent"));
            }
            Some((_, time)) if block.header.time_ms.0 <= time => {
                found.push(format!("time stands still at height {height} of {group}"));
            }
            Some(_) => {}
        }
    }
}

impl Checker for EqualRoots {
    fn name(&self) -> &'static str {
        "equal_roots"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, _: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) => self.block(facts, block, found),
            Seen::Founded(foundation) => self.founded(facts, foundation, found),
            Seen::Born(born) => {
                let (group, height) = (born.header.group, born.header.height);
                let line = (header_hash(&born.header), born.header.time_ms.0);
                let first = *self.headers.entry((group, height)).or_insert(line);
                if first != line {
                    found.push(format!("node {} begins {group} with another block than others", born.node));
                }
            }
            _ => {}
        }
    }

    fn audit(&mut self, _: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        let mut digests: BTreeMap<GroupId, Hash32> = BTreeMap::new();
        for replica in replicas {
            let digest = state::digest(replica.kv);
            let first = *digests.entry(replica.group).or_insert(digest);
            if first != digest {
                found.push(format!("the state of {} on node {} is not that of its peers", replica.group, replica.node));
            }
        }
    }
}
