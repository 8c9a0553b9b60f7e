//! Signing keys of nodes: no key is ever given to two nodes, nor again after it was replaced; whoever is given one has shown
//! that it has it; every committee names each of its nodes by a key that is its own, and never again by one that was replaced
//! there; no node drops a key by which a group still names it; and in the end every committee names everybody by the key that
//! the registry has.
//!
//! Who was given which keys is read from the commands that the registry has carried out, each once; committees from the
//! beacon's mail and layouts, and by what the last block of a group hands over to. That a certificate has no signature of a key
//! that the committee of its height does not name, `certificates` says.

use std::collections::{BTreeMap, BTreeSet};

use beacon::{BeaconCommand, Job, Phase};
use cross_shard::Message;
use ledger::committee::Committee;
use ledger::crypto::{self, PublicKey};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId};
use sha2::{Digest, Sha256};

use super::{BlockSeen, Checker, Facts, Governed, Moment, RawReplica, Seen};
use crate::state;

/// Key prefix of jobs in the beacon's state.
const JOBS: &[u8] = b"Gjob/";

/// The keys of a run.
#[derive(Default)]
pub struct Keys {
    /// The keys that each node was given, the oldest first.
    given: BTreeMap<NodeId, Vec<PublicKey>>,
    /// Commands that the registry has carried out: sent again they do nothing.
    commands: BTreeSet<Vec<u8>>,
    /// The committees that the beacon has put into force.
    in_force: BTreeMap<GroupId, Committee>,
    /// The committee that each group's last block hands over to.
    last: BTreeMap<GroupId, Hash32>,
}

/// What a new key has to sign.
fn possession(facts: &Facts, node: NodeId, before: &PublicKey, new: &PublicKey) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(b"seamark/node-key/v1");
    hasher.update(facts.genesis.cluster_id().0.0);
    hasher.update(node.0.to_be_bytes());
    hasher.update(before.0);
    hasher.update(new.0);
    Hash32(hasher.finalize().into())
}

fn names(committee: &Committee, node: NodeId, key: &PublicKey) -> bool {
    committee.members.iter().any(|member| member.node == node && member.key == *key)
}

impl Keys {
    fn begin(&mut self, facts: &Facts) {
        self.given = facts.genesis.nodes.iter().map(|node| (node.id, vec![node.key])).collect();
        let first = facts.genesis.committees.iter();
        self.in_force = first.map(|committee| (committee.group, committee.clone())).collect();
    }

    /// Which of a node's keys this is, by the order in which it was given them.
    fn place(&self, node: NodeId, key: &PublicKey) -> Option<usize> {
        self.given.get(&node)?.iter().position(|given| given == key)
    }

    fn owner(&self, key: &PublicKey) -> Option<NodeId> {
        self.given.iter().find(|(_, keys)| keys.contains(key)).map(|(node, _)| *node)
    }

    fn command(&mut self, facts: &Facts, command: &BeaconCommand, found: &mut Vec<String>) {
        let (node, key) = match command {
            BeaconCommand::RegisterNode(info) => (info.id, info.key),
            BeaconCommand::RotateNodeKey { node, key, possession: signature } => {
                let before = self.given.get(node).and_then(|keys| keys.last());
                let shown = before.map(|before| possession(facts, *node, before, key));
                if shown.is_none_or(|digest| crypto::verify(key, &digest, signature).is_err()) {
                    found.push(format!("node {node} is given a key that has not signed for it"));
                }
                (*node, *key)
            }
            _ => return,
        };
        if let Some(owner) = self.owner(&key) {
            found.push(format!("node {node} is given a key that was node {owner}'s before"));
        }
        self.given.entry(node).or_default().push(key);
    }

    /// A committee that is prepared or in force; `before` has how many keys each node had before this block, where those who
    /// join are named by their newest one.
    fn judge(&self, committee: &Committee, before: Option<&BTreeMap<NodeId, usize>>, found: &mut Vec<String>) {
        let (group, known) = (committee.group, self.in_force.get(&committee.group));
        for member in &committee.members {
            let node = member.node;
            let Some(place) = self.place(node, &member.key) else {
                found.push(format!("{group} names node {node} by a key that was never its own"));
                continue;
            };
            let had = known.and_then(|known| known.members.iter().find(|had| had.node == node));
            let least = match had {
                Some(had) => self.place(node, &had.key),
                // Within a block it may have had a seat planned before it was given another key.
                None => before.and_then(|before| before.get(&node)).and_then(|count| count.checked_sub(1)),
            };
            if least.is_some_and(|least| place < least) {
                found.push(format!("{group} names node {node} by a key that was replaced there"));
            }
        }
    }

    fn beacon(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let before: BTreeMap<NodeId, usize> = self.given.iter().map(|(node, keys)| (*node, keys.len())).collect();
        for governed in &block.governed {
            let Governed::Registered(signed) = governed else { continue };
            if self.commands.insert(signed.encode())
                && let Ok(command) = signed.parse()
            {
                self.command(facts, &command, found);
            }
        }
        let mut told: BTreeSet<GroupId> = BTreeSet::new();
        for (dest, _, message) in &block.mail {
            match message {
                Message::CommitteePlan(plan) if *dest == plan.group => self.judge(plan, Some(&before), found),
                Message::CommitteeUpdate(seated) if told.insert(seated.group) => {
                    self.judge(seated, Some(&before), found);
                    self.in_force.insert(seated.group, seated.clone());
                }
                _ => {}
            }
        }
        if let Some(layout) = &block.layout {
            self.in_force.retain(|group, _| !facts.lines.retired(*group));
            let lives = |group: GroupId| layout.shards.iter().any(|shard| shard.group == group);
            for committee in block.committees.iter().filter(|committee| lives(committee.group)) {
                // A child begins with the keys that its parents' members had when the job began.
                self.judge(committee, None, found);
                self.in_force.entry(committee.group).or_insert_with(|| committee.clone());
            }
        }
    }

    /// A node has dropped a key.
    fn gone(&self, facts: &Facts, node: NodeId, key: &PublicKey, found: &mut Vec<String>) {
        if self.given.get(&node).and_then(|keys| keys.last()) == Some(key) {
            found.push(format!("node {node} has dropped the key that the registry has of it"));
        }
        let last = self.last.iter().filter(|(group, _)| !facts.lines.retired(**group));
        let last = last.filter_map(|(group, hash)| facts.committee(*group, hash));
        let naming = last.chain(self.in_force.values()).find(|committee| names(committee, node, key));
        if let Some(committee) = naming {
            found.push(format!("node {node} has dropped a key, and {} still names it by that one", committee.group));
        }
    }

    /// At the end everybody has the key that the registry has, unless a job that waits for somebody keeps groups from it.
    fn end(&self, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        let Some(beacon) = replicas.iter().find(|replica| replica.group == GroupId::BEACON) else { return };
        let jobs = state::scan(beacon.kv, JOBS);
        let mut jobs = jobs.iter().filter_map(|(_, value)| borsh::from_slice::<Job>(value).ok());
        if jobs.any(|job| !matches!(job.phase, Phase::Proposed | Phase::Done | Phase::Cancelled)) {
            return;
        }
        for committee in self.in_force.values() {
            for member in &committee.members {
                let newest = self.given.get(&member.node).and_then(|keys| keys.last());
                if newest != Some(&member.key) {
                    found.push(format!("{} still names node {} by a key before", committee.group, member.node));
                }
            }
        }
    }
}

impl Checker for Keys {
    fn name(&self) -> &'static str {
        "keys"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if !facts.keys_change {
            return;
        }
        if self.given.is_empty() {
            self.begin(facts);
        }
        match seen {
            Seen::Block(block) if first => {
                if block.group == GroupId::BEACON {
                    self.beacon(facts, block, found);
                }
                self.last.insert(block.group, block.header.next_committee_hash);
            }
            Seen::Born(born) => {
                self.last.entry(born.header.group).or_insert(born.header.next_committee_hash);
            }
            Seen::Founded(foundation) => {
                let first = &foundation.committee;
                self.in_force.entry(first.group).or_insert_with(|| first.clone());
            }
            Seen::KeyGone { node, key } => self.gone(facts, *node, key, found),
            _ => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if facts.keys_change && moment == Moment::End {
            self.end(replicas, found);
        }
    }
}
