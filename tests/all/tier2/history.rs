//! What the groups have agreed on, entry by entry, collected while it happens: snapshots let the logs
//! forget it. What one replica has applied, no replica may ever apply differently.

use std::collections::BTreeMap;
use std::sync::Arc;

use consensus::port::Committed;
use consensus::raft::read_log;
use ledger::{GroupId, NodeId};
use shard_node::server::local::Hosted;
use storage::{LogStore, PlainCipher};

/// Applied entries by group and index.
#[derive(Clone, Default)]
pub struct History {
    entries: BTreeMap<GroupId, BTreeMap<u64, Committed>>,
    /// The last applied entry and the last entry of the log, of every replica, when last looked at.
    replicas: BTreeMap<(NodeId, GroupId), (u64, u64)>,
    /// Snapshots that replicas have taken over from others.
    pub installed: usize,
    /// What must never happen, and did.
    pub violations: Vec<String>,
}

impl History {
    /// Adds what the replicas of a node have applied since they were last looked at.
    pub fn collect(&mut self, hosted: &Hosted) {
        let engine = hosted.log.read();
        let Some(engine) = engine.as_ref() else { return };
        for (group, handle) in hosted.groups.read().iter() {
            let position = handle.share.stand.lock().applied.consensus.position;
            let Some(applied) = position.map(|position| position.index) else { continue };
            let key = (hosted.context.node, *group);
            let (before, log_end) = self.replicas.get(&key).copied().unwrap_or_default();
            if before == applied {
                continue;
            }
            let log = engine.group(group.0, Arc::new(PlainCipher)).unwrap();
            let first = log.first_index().unwrap().unwrap_or(applied + 1);
            // A log that begins behind its own end was replaced.
            self.installed += usize::from(log_end > 0 && first > log_end + 1);
            // One that was started again may have to apply anew what it had applied.
            for entry in read_log(&log, before.min(applied)..applied + 1).unwrap() {
                self.add(key, entry);
            }
            let end = log.last().unwrap().map_or(applied, |(index, _)| index);
            self.replicas.insert(key, (applied, end));
        }
    }

    fn add(&mut self, (node, group): (NodeId, GroupId), entry: Committed) {
        let index = entry.position.index;
        let kept = self.entries.entry(group).or_default().entry(index).or_insert_with(|| entry.clone());
        if *kept != entry {
            let (position, other) = (&entry.position, &kept.position);
            self.violations.push(format!("log: node {node} applied {position:?} of {group}, another one {other:?}"));
        }
    }

    /// All entries of a group up to an index.
    ///
    /// # Errors
    /// When one is missing: it was purged everywhere before it was seen here.
    pub fn upto(&self, group: GroupId, index: u64) -> Result<Vec<Committed>, String> {
        let found: Vec<Committed> = self
            .entries
            .get(&group)
            .into_iter()
            .flat_map(|all| all.range(..=index))
            .map(|(_, entry)| entry.clone())
            .collect();
        let whole = found.windows(2).all(|pair| pair[1].position.index == pair[0].position.index + 1);
        if whole { Ok(found) } else { Err(format!("entries of {group} were never seen")) }
    }

    /// Forgets one entry, for those who want to see that it is missed.
    pub fn forget(&mut self, group: GroupId, forget: impl Fn(&Committed) -> bool) {
        let all = self.entries.get_mut(&group).expect("the group has entries");
        let last = all.values().rfind(|entry| forget(entry)).map(|entry| entry.position.index);
        all.remove(&last.expect("there is such an entry"));
    }
}
