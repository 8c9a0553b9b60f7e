//! What is read from the hosts of a run, and tier 1's checkers on it.
//!
//! Every group's log is executed once more in memory, so that the checkers see each block and what it
//! wrote; the databases of all hosts are compared with what comes out.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use client::SubmitEvent;
use cluster_sim::chain::retell;
use cluster_sim::checkers::own::Places;
use cluster_sim::checkers::{Checkers, Facts, Moment, RawReplica, Seen};
use cluster_sim::state;
use consensus::local::{LocalEntry, LocalLog};
use consensus::port::Payload;
use consensus::raft::read_log;
use cross_shard::commit::Decision;
use ledger::genesis::Genesis;
use ledger::{GroupId, NodeId, Reject, schema};
use shard_node::core::applied::AppliedRecord;
use shard_node::server::local::Hosted;
use storage::{KeyRange, Kv, MemKv, PlainCipher, WriteBatch};

use super::history::History;
use super::load::Load;

/// One replica as it lies on its host: everything it has applied, and its log, with what is in its
/// snapshot in front.
pub struct Copied {
    pub node: NodeId,
    pub group: GroupId,
    pub kv: MemKv,
    log: LocalLog,
}

impl Copied {
    pub fn raw(&self) -> RawReplica<'_> {
        RawReplica { node: self.node, group: self.group, kv: &self.kv, log: &self.log, wal: None }
    }

    /// The same once more, in memory of its own.
    pub fn again(&self) -> Self {
        let kv = filled(state::scan(&self.kv, &[]));
        Self { node: self.node, group: self.group, kv, log: self.log.clone() }
    }

    /// Forgets what the log has.
    pub fn lose_log(&mut self) {
        self.log.entries.clear();
    }
}

fn filled(pairs: Vec<(Bytes, Bytes)>) -> MemKv {
    let (kv, mut batch) = (MemKv::new(), WriteBatch::new());
    pairs.into_iter().for_each(|(key, value)| batch.put(key, value));
    kv.write(batch).unwrap();
    kv
}

/// The index of the last entry that a state has applied.
fn applied(kv: &MemKv) -> u64 {
    let applied: AppliedRecord = state::load(kv, &schema::applied()).unwrap();
    applied.consensus.position.map_or(0, |position| position.index)
}

/// Copies every replica that runs on a node.
pub fn copy(hosted: &Hosted, history: &History) -> Vec<Copied> {
    let node = hosted.context.node;
    let engine = hosted.log.read();
    let Some(engine) = engine.as_ref() else { return Vec::new() };
    let groups = hosted.groups.read();
    let copies = groups.iter().filter_map(|(group, handle)| {
        let kv = filled(handle.share.state.db()?.scan(KeyRange::prefix(&[]), usize::MAX).unwrap());
        let stored = engine.group(group.0, Arc::new(PlainCipher)).unwrap();
        let own = read_log(&stored, 0..u64::MAX).unwrap();
        let first = own.first().map_or(applied(&kv) + 1, |entry| entry.position.index);
        let purged = first.checked_sub(1).map_or(Vec::new(), |last| history.upto(*group, last).unwrap());
        // The entry with index 0 is the first membership, which is nobody's block.
        let all = purged.iter().chain(&own).filter(|entry| entry.position.index > 0);
        let entries = all.map(|entry| LocalEntry {
            term: entry.position.term,
            leader: NodeId(0),
            batch: if let Payload::Batch(batch) = &entry.payload { Some(batch.clone()) } else { None },
            voters: None,
        });
        let log = LocalLog { entries: entries.collect(), ..LocalLog::default() };
        Some(Copied { node, group: *group, kv, log })
    });
    copies.collect()
}

/// What the checkers know of a run from the start.
pub fn facts(genesis: &Genesis, load: &Load) -> Facts {
    let places = Places { genesis: Rc::new(genesis.clone()), channels: BTreeMap::new() };
    Facts::new(Rc::new(places), Rc::clone(&load.operations))
}

/// Judges a run that has ended, by what its hosts hold and its clients were told.
pub fn judge(genesis: &Genesis, load: &Load, copies: &[Copied], history: &History) -> Vec<String> {
    let mut checkers = Checkers::new(facts(genesis, load));
    checkers.violations.extend(history.violations.iter().cloned());
    let mut ends: BTreeMap<GroupId, (u64, NodeId)> = BTreeMap::new();
    for copied in copies {
        let end = ends.entry(copied.group).or_default();
        *end = (applied(&copied.kv), copied.node).max(*end);
    }
    let log = |(group, (end, node))| Ok((group, (node, history.upto(group, end)?.into_iter())));
    let logs = ends.into_iter().map(log).collect::<Result<_, String>>();
    let chains = match logs.and_then(|logs| retell(genesis, logs, &mut checkers)) {
        Ok(chains) => chains,
        Err(why) => {
            checkers.violations.push(format!("chain: {why}"));
            return checkers.violations;
        }
    };
    for copied in copies {
        let chain = &chains[&copied.group];
        if state::digest(chain.kv()) != state::digest(&copied.kv) {
            let place = format!("node {} of {}", copied.node, copied.group);
            let (here, end) = (applied(&copied.kv), applied(chain.kv()));
            checkers.violations.push(format!(
                "chain: the state on {place} is not what the log executes to (it stands at entry {here}, the log at {end})"
            ));
        }
        for (_, bytes) in state::scan(&copied.kv, &[schema::CERTIFICATE]) {
            let certificate = Box::new(borsh::from_slice(&bytes).unwrap());
            checkers.see(&Seen::Certified { node: copied.node, group: copied.group, certificate });
        }
    }
    for (operation, event) in load.told.borrow().iter() {
        for seen in told(&checkers, *operation, event) {
            checkers.see(&seen);
        }
    }
    let raw: Vec<RawReplica<'_>> = copies.iter().map(Copied::raw).collect();
    checkers.audit(Moment::End, &raw);
    checkers.violations
}

/// What a client was told, as the checkers hear it.
fn told(checkers: &Checkers, operation: u32, event: &SubmitEvent) -> Vec<Seen> {
    match event {
        SubmitEvent::Receipt(receipt) => vec![Seen::Acknowledged { operation, receipt: receipt.clone() }],
        SubmitEvent::Decided { votes, .. } => {
            let decision = |no: Option<Reject>| no.map_or(Decision::Yes, Decision::No);
            let committed = votes.iter().all(|vote| vote.no.is_none());
            let votes =
                votes.iter().map(|vote| Seen::Told { operation, group: vote.group, decision: decision(vote.no) });
            votes.chain([Seen::Decided { operation, committed }]).collect()
        }
        SubmitEvent::Applied(txid) => {
            let voters = checkers.facts().txs.get(txid).map(|tx| tx.voters.clone()).unwrap_or_default();
            voters.into_iter().map(|group| Seen::Applied { operation, group }).collect()
        }
        SubmitEvent::Refused { reject: Some(reject), group: Some(group), .. } => {
            vec![Seen::Refused { operation, group: *group, reject: *reject }]
        }
        SubmitEvent::Refused { .. } => Vec::new(),
    }
}
