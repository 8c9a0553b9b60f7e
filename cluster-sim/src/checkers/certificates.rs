//! Certificates: each carries enough valid signatures of its group's committee over the block that
//! replicas have, no height has two, and what the beacon keeps as checkpoints agrees with them.

use std::collections::{BTreeMap, BTreeSet};

use beacon::registry::{self, Checkpoint};
use ledger::certificate::Certificate;
use ledger::committee::Engine;
use ledger::crypto::{self, PublicKey};
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
    good: BTreeSet<(NodeId, PublicKey, Hash32, [u8; 64])>,
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
            let line = (*node, member.key, hash, signature.0);
            if !self.good.contains(&line) {
                crypto::verify(&member.key, &hash, signature).map_err(|_| {
                    format!("the signature of node {node} over height {height} of {group} does not hold")
                })?;
                self.good.insert(line);
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
        let hash = *self.blocks.entry((group, height)).or_insert_with(|| header_hash(header));
        // The certificate may have come before any replica has told of its block.
        if self.certified.get(&(group, height)).is_some_and(|certified| *certified != hash) {
            found.push(format!("height {height} of {group} is another block than the one that was certified"));
        }
        self.next.insert((group, height), header.next_committee_hash);
        let before = height.0.checked_sub(1).and_then(|before| self.next.get(&(group, Height(before))));
        if before.is_some_and(|next| *next != header.committee_hash) {
            found.push(format!(
                "height {height} of {group} is not of the committee that the block before hands over to"
            ));
        }
    }

    fn checkpoints(&self, beacon: &RawReplica<'_>, found: &mut Vec<String>) {
        match state::find::<u64>(beacon.kv, &beacon::audit::findings_key()) {
            Ok(None | Some(0)) => {}
            Ok(Some(count)) => found.push(format!("the beacon's audit has found {count} flaws")),
            Err(error) => found.push(error),
        }
        // Those that began later, too, and channels.
        let groups: BTreeSet<GroupId> = self.blocks.keys().map(|(group, _)| *group).collect();
        for group in groups {
            let key = registry::checkpoint_key(group);
            match state::find::<Checkpoint>(beacon.kv, &key) {
                Ok(Some(kept)) if self.certified.get(&(group, kept.height)) != Some(&kept.header_hash) => {
                    found.push(format!("the beacon keeps a checkpoint of {group} that was not certified"));
                }
                Ok(_) => {}
                Err(error) => found.push(error),
            }
            if !state::scan(beacon.kv, &registry::divergence_prefix(group)).is_empty() {
                found.push(format!("the beacon has recorded that {group} signed two headers at one height"));
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

    fn audit(&mut self, _: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
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
            self.checkpoints(beacon, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use ledger::committee::Committee;
    use ledger::header::Header;
    use storage::kv::{Kv, WriteBatch};
    use storage::mem::MemKv;

    use super::super::testing::{Bench, expect};
    use super::*;
    use crate::cluster::node_key;

    const SHARD: GroupId = GroupId::shard(0);

    /// These members sign a header, each with its own key but for the one that takes another one's.
    fn certificate(header: &Header, committee: &Committee, signers: usize, wrong: bool) -> Certificate {
        let hash = header_hash(header);
        let sign = |(at, node): (usize, NodeId)| {
            let key = if wrong && at == 0 { committee.members[1].node } else { node };
            (node, node_key(key).sign(&hash))
        };
        let members = committee.members.iter().map(|member| member.node).take(signers);
        Certificate { version: 1, header: header.clone(), signatures: members.enumerate().map(sign).collect() }
    }

    fn certified(certificate: &Certificate) -> Seen {
        Seen::Certified { node: NodeId(0), group: SHARD, certificate: Box::new(certificate.clone()) }
    }

    #[test]
    fn a_certificate_has_signatures_of_most_of_its_committee() {
        for (what, signers, wrong, expected) in [
            ("all", 3, false, None),
            ("most", 2, false, None),
            ("one", 1, false, Some("is certified by 1 of 3")),
            ("under another key", 3, true, Some("does not hold")),
        ] {
            let mut bench = Bench::new(Certificates::default());
            let by = bench.committee(SHARD);
            let header = bench.header(SHARD, 1, &by, &by);
            // What did not hold does not hold the next time.
            for _ in 0..2 {
                bench.see(&certified(&certificate(&header, &by, signers, wrong)));
                expect(what, &bench.found(), expected);
            }
        }
    }

    #[test]
    fn the_block_at_a_height_is_the_one_that_was_certified_whichever_came_first() {
        for early in [false, true] {
            for same in [false, true] {
                let mut bench = Bench::new(Certificates::default());
                let by = bench.committee(SHARD);
                let header = bench.header(SHARD, 1, &by, &by);
                let other = Header { flags: header.flags | u16::from(!same), ..header.clone() };
                let seen = certified(&certificate(&other, &by, 3, false));
                if early {
                    bench.see(&seen);
                    bench.block(header, Vec::new(), Vec::new());
                } else {
                    bench.block(header, Vec::new(), Vec::new());
                    bench.see(&seen);
                }
                assert_eq!(bench.found().len(), usize::from(!same), "early: {early}, the same: {same}");
            }
        }
    }

    #[test]
    fn a_checkpoint_of_any_group_is_of_what_was_certified() {
        // One shard that the genesis has, one that began later, and a channel.
        for group in [SHARD, GroupId::shard(7), GroupId::channel(0)] {
            for fits in [false, true] {
                let mut bench = Bench::new(Certificates::default());
                let by = Committee { group, ..bench.committee(SHARD) };
                let header = bench.header(group, 1, &by, &by);
                let (height, hash) = (header.height, header_hash(&header));
                bench.block(header, Vec::new(), Vec::new());
                bench.checker.certified.insert((group, height), hash);
                let header_hash = if fits { hash } else { Hash32([9; 32]) };
                let (state_root, time_ms) = (Hash32([0; 32]), ledger::ids::TimeMs(1));
                let kept = Checkpoint { height, header_hash, state_root, time_ms };
                let (kv, mut batch) = (MemKv::new(), WriteBatch::new());
                let bytes = borsh::to_vec(&kept).expect("writing to memory does not fail");
                batch.put(registry::checkpoint_key(group), bytes);
                kv.write(batch).expect("memory takes it");
                bench.audit(GroupId::BEACON, Moment::End, &kv);
                expect("a checkpoint", &bench.found(), if fits { None } else { Some("that was not certified") });
            }
        }
    }
}
