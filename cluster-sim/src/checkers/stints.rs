//! A group that goes over to another engine goes on with one chain: each height is made by one entry, at one place of the
//! order on all replicas; the block that hands over is the last that the engine before has ordered; a replica takes part
//! under an engine only behind the block that puts it into force, once, and in the order of these blocks; and in the end
//! every replica goes by the committee that the beacon has put into force last, and by where its engine began.

use std::collections::BTreeMap;

use consensus::port::Position;
use cross_shard::Message;
use ledger::committee::{Committee, Engine};
use ledger::ids::{GroupId, Height, NodeId};
use ledger::schema;
use shard_node::core::applied::EngineStart;

use super::equal_roots::header_hash;
use super::{BlockSeen, Checker, Facts, Moment, RawReplica, Seen, committee_hash};
use crate::state;

/// A block that hands over to another engine.
#[derive(Clone, Copy)]
struct HandOver {
    engine: Engine,
    height: Height,
}

/// What one group has gone through.
#[derive(Default)]
struct Group {
    /// Where the entry of each height stands.
    places: BTreeMap<Height, Position>,
    /// Blocks that hand over, by the index of their entry.
    over: BTreeMap<u64, HandOver>,
}

/// All groups.
#[derive(Default)]
pub struct Stints {
    groups: BTreeMap<GroupId, Group>,
    /// The stint that a replica has begun last.
    begun: BTreeMap<(NodeId, GroupId), u64>,
    /// What the beacon has put into force last, where it has put anything.
    in_force: BTreeMap<GroupId, Committee>,
}

impl Stints {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, first: bool, found: &mut Vec<String>) {
        let (group, header, position) = (block.group, &block.header, block.position);
        let known = self.groups.entry(group).or_default();
        let place = *known.places.entry(header.height).or_insert(position);
        if place != position {
            found.push(format!(
                "height {} of {group} is made by entry {} on node {}, and by entry {} elsewhere",
                header.height, position.index, block.node, place.index
            ));
        }
        let engine = |hash| facts.committee(group, hash).map(|committee| committee.engine);
        let (before, behind) = (engine(&header.committee_hash), engine(&header.next_committee_hash));
        if let Some((at, last)) = known.over.iter().next_back()
            && first
            && (position.index <= *at || before != Some(last.engine))
        {
            found.push(format!(
                "height {} of {group}, entry {}, is not ordered by the engine that height {} has handed over to",
                header.height, position.index, last.height
            ));
        }
        if let Some(engine) = behind
            && before != behind
        {
            known.over.entry(position.index).or_insert(HandOver { engine, height: header.height });
        }
    }

    fn beacon(&mut self, block: &BlockSeen) {
        for (dest, _, message) in &block.mail {
            // What it would mail to itself it takes at once; others are told of it.
            if let Message::CommitteeUpdate(committee) = message
                && (committee.group == *dest || committee.group == GroupId::BEACON)
            {
                self.in_force.insert(committee.group, committee.clone());
            }
        }
    }

    fn begins(&mut self, node: NodeId, group: GroupId, engine: Engine, stint: u64, found: &mut Vec<String>) {
        let handed_over = self.groups.get(&group).and_then(|known| known.over.get(&stint));
        if handed_over.is_none_or(|over| over.engine != engine) {
            found
                .push(format!("node {node} begins {group} under {engine} behind entry {stint}, which does not say so"));
        }
        let last = self.begun.insert((node, group), stint).unwrap_or(0);
        if stint <= last {
            found.push(format!("node {node} begins {group} behind entry {stint}, and has begun behind {last} before"));
        }
    }

    fn stands(&self, replica: &RawReplica<'_>, committee: &Committee) -> Result<(), String> {
        let (node, group) = (replica.node, replica.group);
        let current: Committee = state::load(replica.kv, &schema::current_committee(group))?;
        if committee_hash(&current) != committee_hash(committee) {
            return Err(format!("on node {node} {group} goes by another committee than the one in force"));
        }
        let over = self.groups.get(&group).and_then(|known| known.over.iter().next_back());
        let start: Option<EngineStart> = state::find(replica.kv, &schema::engine_start())?;
        let noted = start.map(|start| (start.after.index, start.engine, start.height));
        if noted != over.map(|(index, over)| (*index, over.engine, over.height)) {
            return Err(format!("on node {node} {group} does not say where its engine began"));
        }
        let Some(start) = start else { return Ok(()) };
        let block: ledger::Header = state::load(replica.kv, &schema::header(start.height))?;
        if start.anchor != header_hash(&block) {
            return Err(format!("on node {node} {group} does not go on from the block that has handed over"));
        }
        Ok(())
    }
}

impl Checker for Stints {
    fn name(&self) -> &'static str {
        "stints"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) => {
                if first && block.group == GroupId::BEACON {
                    self.beacon(block);
                }
                self.block(facts, block, first, found);
            }
            Seen::Stint { node, group, engine, stint } => self.begins(*node, *group, *engine, *stint, found),
            // It comes back as one that never was here.
            Seen::Left { node, group, .. } => {
                self.begun.remove(&(*node, *group));
            }
            _ => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        for replica in replicas.iter().filter(|replica| !facts.lines.retired(replica.group)) {
            if let Some(committee) = self.in_force.get(&replica.group)
                && let Err(why) = self.stands(replica, committee)
            {
                found.push(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ledger::ids::{Epoch, Incarnation};
    use ledger::layout::Layout;

    use super::super::trial::{self, block};
    use super::*;

    const GROUP: GroupId = GroupId::shard(0);

    /// The committee under either engine.
    fn committees() -> (Committee, Committee) {
        let raft = Committee::majority(GROUP, Incarnation(0), Epoch(0), Vec::new());
        let bft = Committee { epoch: Epoch(1), engine: Engine::Bft, ..raft.clone() };
        (raft, bft)
    }

    /// A block at an entry, that one committee has signed and the next one goes on from.
    fn at(height: u64, index: u64, by: &Committee, next: &Committee) -> Seen {
        let mut seen = block(GROUP, height);
        seen.position.index = index;
        seen.header.committee_hash = committee_hash(by);
        seen.header.next_committee_hash = committee_hash(next);
        Seen::Block(Box::new(seen))
    }

    fn begins(engine: Engine, stint: u64) -> Seen {
        Seen::Stint { node: NodeId(0), group: GROUP, engine, stint }
    }

    #[test]
    fn a_group_that_does_not_go_on_as_the_block_says_that_hands_over_is_found() {
        let (raft, bft) = committees();
        let mut facts = trial::facts(Layout::even(1));
        facts.know(&raft);
        facts.know(&bft);
        let over = || vec![at(1, 1, &raft, &raft), at(2, 4, &raft, &bft)];
        for (more, what) in [
            (vec![begins(Engine::Bft, 4), at(3, 5, &bft, &bft)], None),
            (vec![at(2, 5, &raft, &bft)], Some("and by entry 4 elsewhere")),
            (vec![at(3, 5, &raft, &raft)], Some("is not ordered by the engine")),
            (vec![at(3, 4, &bft, &bft)], Some("is not ordered by the engine")),
            (vec![begins(Engine::Raft, 4)], Some("which does not say so")),
            (vec![begins(Engine::Bft, 3)], Some("which does not say so")),
            (vec![begins(Engine::Bft, 4), begins(Engine::Bft, 4)], Some("has begun behind 4 before")),
        ] {
            let (mut stints, mut found) = (Stints::default(), Vec::new());
            for seen in over().iter().chain(&more) {
                let first =
                    !matches!(seen, Seen::Block(block) if block.header.height.0 == 2 && block.position.index > 4);
                stints.see(&facts, seen, first, &mut found);
            }
            match what {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(what) => assert!(matches!(&found[..], [one] if one.contains(what)), "{what}: {found:?}"),
            }
        }
    }
}
