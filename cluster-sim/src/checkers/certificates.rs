//! Certificates: each carries enough valid signatures of its group's committee over the block that
//! replicas have, no height has two, and what the beacon keeps as checkpoints agrees with them.

use std::collections::{BTreeMap, BTreeSet};

use beacon::registry::{self, Checkpoint};
use ledger::certificate::Certificate;
use ledger::committee::Engine;
use ledger::crypto;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId};

use super::equal_roots::header_hash;
use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen};
use crate::state;

/// What was certified so far.
#[derive(Default)]
pub struct Certificates {
    certified: BTreeMap<(GroupId, Height), Hash32>,
    blocks: BTreeMap<(GroupId, Height), Hash32>,
    /// Which committee each of their blocks hands over to.
    next: BTreeMap<(GroupId, Height), Hash32>,
    /// Signatures that were found to hold; replicas certify with the same ones.
    good: BTreeSet<(NodeId, Hash32, [u8; 64])>,
}

impl Certificates {
    fn judge(&mut self, facts: &Facts, group: GroupId, certificate: &Certificate) -> Result<(), String> {
        let (height, hash) = (certificate.header.height, header_hash(&certificate.header));
        if certificate.header.group != group {
            return Err(format!("a certificate of {} was gathered in {group}", certificate.header.group));
        }
        let Some(members) = facts.committee(group, &certificate.header.committee_hash) else {
            return Err(format!("nobody knows the committee of height {height} of {group}"));
        };
        let mut signers = BTreeSet::new();
        for (node, signature) in &certificate.signatures {
            let Some(member) = members.members.iter().find(|member| member.node == *node) else {
                return Err(format!("node {node} signed height {height} of {group} and is no member"));
            };
            if !signers.insert(*node) {
                return Err(format!("node {node} signed height {height} of {group} twice in one certificate"));
            }
            if self.good.insert((*node, hash, signature.0)) {
                crypto::verify(&member.key, &hash, signature).map_err(|_| {
                    format!("the signature of node {node} over height {height} of {group} does not hold")
                })?;
            }
        }
        let (signed, all) = (signers.len(), members.members.len());
        let enough = match members.engine {
            Engine::Raft => 2 * signed > all,
            Engine::Bft => 3 * signed > 2 * all,
        };
        if !enough {
            return Err(format!(
                "height {height} of {group} is certified by {} of {}",
                signers.len(),
                members.members.len()
            ));
        }
        if self.certified.insert((group, height), hash).is_some_and(|other| other != hash) {
            return Err(format!("two headers are certified at height {height} of {group}"));
        }
        if self.blocks.get(&(group, height)).is_some_and(|block| *block != hash) {
            return Err(format!("the certified header of height {height} of {group} is not the block there"));
        }
        Ok(())
    }

    fn block(&mut self, block: &BlockSeen, found: &mut Vec<String>) {
        let (group, height, header) = (block.group, block.header.height, &block.header);
        self.blocks.entry((group, height)).or_insert_with(|| header_hash(header));
        self.next.insert((group, height), header.next_committee_hash);
        let before = height.0.checked_sub(1).and_then(|before| self.next.get(&(group, Height(before))));
        if before.is_some_and(|next| *next != header.committee_hash) {
            found.push(format!(
                "height {height} of {group} is not of the committee that the block before hands over to"
            ));
        }
    }

    fn checkpoints(&self, facts: &Facts, beacon: &RawReplica<'_>, found: &mut Vec<String>) {
        match state::find::<u64>(beacon.kv, &beacon::audit::findings_key()) {
            Ok(None | Some(0)) => {}
            Ok(Some(count)) => found.push(format!("the beacon's audit has found {count} flaws")),
            Err(error) => found.push(error),
        }
        for shard in &facts.genesis.layout.shards {
            let key = registry::checkpoint_key(shard.group);
            match state::find::<Checkpoint>(beacon.kv, &key) {
                Ok(Some(kept)) if self.certified.get(&(shard.group, kept.height)) != Some(&kept.header_hash) => {
                    found.push(format!("the beacon keeps a checkpoint of {} that was not certified", shard.group));
                }
                Ok(_) => {}
                Err(error) => found.push(error),
            }
            if !state::scan(beacon.kv, &registry::divergence_prefix(shard.group)).is_empty() {
                found.push(format!("the beacon has recorded that {} signed two headers at one height", shard.group));
            }
        }
    }
}

impl Checker for Certificates {
    fn name(&self) -> &'static str {
        "certificates"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, _: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) => self.block(block, found),
            Seen::Certified { group, certificate, .. } => {
                found.extend(self.judge(facts, *group, certificate).err());
            }
            Seen::Bft(_)
            | Seen::Born(_)
            | Seen::Founded(_)
            | Seen::Stint { .. }
            | Seen::Started { .. }
            | Seen::Fetched { .. }
            | Seen::Left { .. }
            | Seen::Voters { .. }
            | Seen::KeyGone { .. }
            | Seen::Given { .. }
            | Seen::Admitted { .. }
            | Seen::Role { .. }
            | Seen::Flushed { .. }
            | Seen::PeerTook { .. }
            | Seen::Known { .. }
            | Seen::Acknowledged { .. }
            | Seen::Told { .. }
            | Seen::Decided { .. }
            | Seen::Applied { .. }
            | Seen::Refused { .. } => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        let mut last: BTreeMap<GroupId, (Height, Hash32)> = BTreeMap::new();
        for ((group, height), hash) in &self.blocks {
            last.insert(*group, (*height, *hash));
        }
        for (group, (height, hash)) in last {
            if self.certified.get(&(group, height)) != Some(&hash) {
                found.push(format!("the last block of {group}, height {height}, is not certified"));
            }
        }
        for beacon in replicas.iter().filter(|replica| replica.group == GroupId::BEACON) {
            self.checkpoints(facts, beacon, found);
        }
    }
}
