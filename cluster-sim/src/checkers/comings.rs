//! Nodes that come and go: who is struck off has no seat from then on, and neither its number nor its key is given
//! again; who is drained, or accused of having voted twice, gets no seat, and in the end has none that others can take;
//! seats change a few at a time, and no committee becomes smaller by it than it began, unless it goes on without one
//! that is accused.
//!
//! What organisations have asked for is read from the commands that the registry has carried out, each once; who has which
//! seats from the beacon's mail.

use std::collections::{BTreeMap, BTreeSet};

use beacon::BeaconCommand;
use cross_shard::Message;
use ledger::committee::{Committee, Engine};
use ledger::crypto::PublicKey;
use ledger::ids::{GroupId, GroupKind, NodeId};

use super::{BlockSeen, Checker, Facts, Governed, Moment, RawReplica, Seen};

/// A node that the registry has, or had.
#[derive(Clone)]
struct Known {
    /// The keys that it was given, the oldest first. Which of them a committee may name `keys` says.
    keys: Vec<PublicKey>,
    drained: bool,
    gone: bool,
    accused: bool,
}

impl Known {
    /// Why it takes no seat, if it does not.
    const fn out(&self) -> Option<&'static str> {
        match self {
            Self { gone: true, .. } => Some("gone"),
            Self { accused: true, .. } => Some("accused"),
            Self { drained: true, .. } => Some("drained"),
            Self { .. } => None,
        }
    }
}

/// The nodes of a run.
#[derive(Default)]
pub struct Comings {
    nodes: BTreeMap<NodeId, Known>,
    /// Commands that the registry has carried out: sent again they do nothing.
    commands: BTreeSet<Vec<u8>>,
    /// The committees in force of shards and of the beacon.
    seats: BTreeMap<GroupId, Committee>,
    /// How many members each had first: so many it may come back to, when it was brought to the nodes of a larger one that
    /// it was to be joined with, and was not joined.
    first: BTreeMap<GroupId, usize>,
}

/// Seats that may change at a time.
fn tolerated(committee: &Committee) -> usize {
    let members = committee.members.len();
    let tolerated = match committee.engine {
        Engine::Raft => members.saturating_sub(1) / 2,
        Engine::Bft => members.saturating_sub(1) / 3,
    };
    tolerated.max(1)
}

fn judged(group: GroupId) -> bool {
    matches!(group.kind(), Some(GroupKind::Shard | GroupKind::Beacon))
}

impl Comings {
    fn begin(&mut self, facts: &Facts) {
        let known = |key| Known { keys: vec![key], drained: false, gone: false, accused: false };
        self.nodes = facts.genesis.nodes.iter().map(|node| (node.id, known(node.key))).collect();
        let first = facts.genesis.committees.iter().filter(|committee| judged(committee.group));
        self.seats = first.map(|committee| (committee.group, committee.clone())).collect();
    }

    fn command(&mut self, command: BeaconCommand, found: &mut Vec<String>) {
        match command {
            BeaconCommand::RegisterNode(info) => {
                if self.nodes.iter().any(|(id, node)| *id == info.id || node.keys.contains(&info.key)) {
                    found.push(format!("node {} is registered, and its number or its key was another one's", info.id));
                }
                let (keys, drained) = (vec![info.key], info.capacity == 0);
                self.nodes.insert(info.id, Known { keys, drained, gone: false, accused: false });
            }
            BeaconCommand::SetNodeCapacity { node, capacity } => {
                if let Some(known) = self.nodes.get_mut(&node) {
                    known.drained = capacity == 0;
                }
            }
            BeaconCommand::RotateNodeKey { node, key, .. } => {
                if let Some(known) = self.nodes.get_mut(&node) {
                    known.keys.push(key);
                }
            }
            BeaconCommand::ReplaceNode { node, .. } => {
                if let Some(known) = self.nodes.get_mut(&node) {
                    known.drained = true;
                }
            }
            BeaconCommand::RemoveNode { node } => {
                let seated = self.seats.values().find(|committee| committee.index_of(node).is_some());
                if let Some(committee) = seated {
                    found.push(format!("node {node} is struck off, and has a seat in {}", committee.group));
                }
                if let Some(known) = self.nodes.get_mut(&node) {
                    known.gone = true;
                }
            }
            _ => {}
        }
    }

    /// A committee that is planned, or comes into force: who is new in it.
    fn joins(&self, committee: &Committee, out: &BTreeSet<NodeId>, found: &mut Vec<String>) {
        let before = self.seats.get(&committee.group);
        for member in &committee.members {
            let known = self.nodes.get(&member.node);
            // Within a block it may have had a seat planned before it was drained.
            let is_out = out.contains(&member.node);
            let group = committee.group;
            if known.is_none_or(|known| !known.keys.contains(&member.key))
                || known.is_some_and(|known| known.gone && is_out)
            {
                found.push(format!("node {} is to have a seat in {group}, and there is none of it", member.node));
            }
            let new = before.is_some_and(|before| before.index_of(member.node).is_none());
            let why = known.filter(|known| !known.gone && new && is_out).and_then(Known::out);
            if let Some(why) = why {
                found.push(format!("node {} gets a seat in {group}, and is {why}", member.node));
            }
        }
    }

    fn seated(&mut self, committee: &Committee, found: &mut Vec<String>) {
        let group = committee.group;
        let Some(before) = self.seats.get(&group).cloned() else { return };
        if before == *committee {
            return;
        }
        let leaving = before.members.iter().filter(|member| committee.index_of(member.node).is_none()).count();
        let joining = committee.members.iter().filter(|member| before.index_of(member.node).is_none()).count();
        let most = tolerated(&before);
        if leaving > most || joining > most {
            found.push(format!("{leaving} members of {group} leave at once and {joining} join; {most} may"));
        }
        let first = *self.first.entry(group).or_insert(before.members.len());
        let gone = before.members.iter().filter(|member| committee.index_of(member.node).is_none());
        // A committee goes on without who is accused, one seat fewer for each and no more.
        let without = gone.filter_map(|member| self.nodes.get(&member.node)).filter(|known| known.accused).count();
        let stay = committee.members.len().saturating_add(without);
        let fewer = stay < before.members.len() && committee.members.len() < first;
        if fewer && committee.engine == before.engine {
            let nodes = |of: &Committee| of.members.iter().map(|member| member.node.0).collect::<Vec<_>>();
            found.push(format!(
                "{group} goes on with fewer members than before: {:?} in the place of {:?}, and began with {first}",
                nodes(committee),
                nodes(&before)
            ));
        }
        self.seats.insert(group, committee.clone());
    }

    fn block(&mut self, block: &BlockSeen, found: &mut Vec<String>) {
        let out = self.nodes.iter().filter(|(_, known)| known.out().is_some()).map(|(id, _)| *id);
        let out: BTreeSet<NodeId> = out.collect();
        for accusation in &block.accused.accusations {
            if let Some(known) = self.nodes.get_mut(&accusation.node) {
                known.accused = true;
            }
        }
        for governed in &block.governed {
            let Governed::Registered(signed) = governed else { continue };
            if self.commands.insert(signed.encode())
                && let Ok(command) = signed.parse()
            {
                self.command(command, found);
            }
        }
        let mut told: BTreeSet<GroupId> = BTreeSet::new();
        for (dest, _, message) in &block.mail {
            match message {
                // The committee in force in the place of a plan says that there is none.
                Message::CommitteePlan(plan)
                    if *dest == plan.group && judged(plan.group) && self.seats.get(&plan.group) != Some(plan) =>
                {
                    self.joins(plan, &out, found);
                }
                Message::CommitteeUpdate(seated) if judged(seated.group) && told.insert(seated.group) => {
                    self.seated(seated, found);
                }
                _ => {}
            }
        }
        if let Some(layout) = &block.layout {
            let lives =
                |group: GroupId| group == GroupId::BEACON || layout.shards.iter().any(|shard| shard.group == group);
            self.seats.retain(|group, _| lives(*group));
            for committee in block.committees.iter().filter(|committee| lives(committee.group)) {
                self.seats.entry(committee.group).or_insert_with(|| committee.clone());
            }
        }
    }

    /// At the end: who takes no seat has none that somebody else could have.
    fn end(&self, found: &mut Vec<String>) {
        let usable = self.nodes.values().filter(|node| node.out().is_none()).count();
        for committee in self.seats.values().filter(|committee| committee.members.len() <= usable) {
            for member in &committee.members {
                if let Some(why) = self.nodes.get(&member.node).map_or(Some("unknown"), Known::out) {
                    let group = committee.group;
                    found.push(format!("node {} is {why}, and still has a seat in {group}", member.node));
                }
            }
        }
    }
}

impl Checker for Comings {
    fn name(&self) -> &'static str {
        "comings"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if !facts.nodes_come_and_go {
            return;
        }
        if self.nodes.is_empty() {
            self.begin(facts);
        }
        if let Seen::Block(block) = seen
            && first
            && block.group == GroupId::BEACON
        {
            self.block(block, found);
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, _: &[RawReplica<'_>], found: &mut Vec<String>) {
        if facts.nodes_come_and_go && moment == Moment::End {
            self.end(found);
        }
    }
}
