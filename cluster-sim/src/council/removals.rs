//! How members that have voted twice lose what they have: the beacon hears of a proof, accuses the node and prepares
//! committees without it, all by itself, as production has it (ADR 22): no organisation is asked whether a proof that
//! holds shall count. What is left to them is here: a node that is accused is struck off by its organisation once it
//! has no seat, and where nobody can take a seat somebody registers another node.
//!
//! Here are, too, what liars make up against those who vote once, and what the key of a node signs that has no seat any
//! more.

use beacon::accused::{self, Hindrance};
use beacon::{BeaconCommand, nodes, registry};
use consensus::bft::Message;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, Equivocation};
use ledger::committee::{Committee, Engine};
use ledger::evidence::Evidence;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, NodeId, OrgId, TimeMs};
use ledger::schema;
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;
use shard_node::core::entry::Command;
use shard_node::core::peer::PeerMessage;

use super::nodes::seated;
use crate::checkers::RawReplica;
use crate::cluster::{CREATED_MS, node_info, node_key};
use crate::ending::Phase;
use crate::event::Event;
use crate::state::{self, KvState};
use crate::wire::bft::BftWire;
use crate::wire::{Endpoint, Wire};
use crate::world::World;

/// When organisations first look at who is accused, and between two looks.
pub(super) const ASK_MS: u64 = 500;
const ASKED_MS: u64 = 90;
/// Ballots that are made up are of entries up to this one.
const ENTRIES: u64 = 60;

/// What follows for an accused node.
enum Next {
    /// It is struck off.
    Over,
    /// Others are about to take its seats.
    Wait,
    /// Nobody can take its seats, and this node is not registered yet.
    Register(NodeId),
    /// Nobody can take its seats, nor will anybody.
    Stuck,
    /// It has none, and is this organisation's.
    StrikeOff(OrgId),
}

/// The next step; `last` is the highest number of a node that there may be.
fn next(view: &mut View<'_>, node: NodeId, last: u32) -> Next {
    let Some(info) = registry::node(view, node) else { return Next::Over };
    let mut seats = accused::removals(view);
    seats.retain(|seat| seat.node == node);
    if seats.iter().any(|seat| seat.hindrance == Some(Hindrance::NoNode)) {
        return fresh(view, last).map_or(Next::Stuck, Next::Register);
    }
    if !seats.is_empty() || seated(view, node) { Next::Wait } else { Next::StrikeOff(info.org) }
}

/// A node that was never registered.
fn fresh(view: &mut View<'_>, last: u32) -> Option<NodeId> {
    let (known, gone) = (registry::nodes(view), nodes::removed(view));
    let new = |id: &NodeId| known.iter().all(|node| node.id != *id) && gone.iter().all(|node| node.node != *id);
    (0..=last).map(NodeId).find(new)
}

/// Members of its group that the state of a replica has proofs against.
fn proved(replica: &RawReplica<'_>) -> Vec<NodeId> {
    let leaves = state::scan(replica.kv, &[schema::STATE]).into_iter();
    let kept = leaves.filter(|(key, _)| key.get(33) == Some(&schema::KIND_EVIDENCE));
    let kept = kept.filter_map(|(_, value)| borsh::from_slice::<Evidence>(&value).ok());
    let ballots = kept.map(|evidence| evidence.proof.first.ballot);
    ballots.filter(|ballot| ballot.group == replica.group).map(|ballot| ballot.node).collect()
}

impl World {
    /// The highest number of a node that there may be.
    fn last_node(&self) -> u32 {
        self.shape.nodes + self.shape.newcomers - 1
    }

    /// Organisations look at who is accused, until the run is over.
    pub(crate) fn strike_off(&mut self) {
        self.push(ASKED_MS, Event::StrikeOff);
        for group in self.silent_since_change() {
            self.rush(group);
        }
        let (now, last) = (TimeMs(CREATED_MS + self.clock_ms()), self.last_node());
        let Some(leader) = self.leader_of(GroupId::BEACON) else { return };
        let (mut signed, mut free) = (Vec::new(), Vec::new());
        {
            let replica = self.nodes.get(&leader).and_then(|node| node.replicas.get(&GroupId::BEACON));
            let Some(replica) = replica else { return };
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            let mut view = View::new(&reader);
            for accusation in accused::accusations(&mut view) {
                let node = accusation.node;
                let (org, command) = match next(&mut view, node, last) {
                    Next::Over | Next::Wait | Next::Stuck => continue,
                    Next::Register(new) => (node_info(new.0).org, BeaconCommand::RegisterNode(node_info(new.0))),
                    Next::StrikeOff(org) => {
                        free.push(node);
                        (org, BeaconCommand::RemoveNode { node })
                    }
                };
                signed.extend(self.council.sign_for(&mut view, org, &command, now));
            }
        }
        for node in free {
            self.sign_on(node);
        }
        for bytes in signed {
            self.submit(leader, GroupId::BEACON, bytes);
        }
    }

    /// Living groups that have made no block since their members changed: somebody has an entry for them.
    fn silent_since_change(&self) -> Vec<GroupId> {
        let facts = self.checkers.facts();
        let living = self.turned.iter().filter(|(group, _)| !facts.lines.retired(**group));
        let silent = living.filter(|(group, height)| self.heights.get(*group).is_none_or(|last| last <= *height));
        silent.map(|(group, _)| *group).collect()
    }

    /// The Byzantine shards as the beacon has them in force, if anybody has its state.
    fn byzantine_shards(&self) -> Vec<Committee> {
        let Some(beacon) = self.newest_of(GroupId::BEACON) else { return Vec::new() };
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        let mut all = registry::committees(&mut View::new(&reader));
        all.retain(|committee| committee.engine == Engine::Bft && committee.group.kind() == Some(GroupKind::Shard));
        all
    }

    /// What is signed in the name of a member, about a value that there is not.
    fn ballot(&mut self, of: &Committee, named: Hash32, index: u64, node: NodeId) -> Ballot {
        let kind = if self.removing.random() { BallotKind::Prevote } else { BallotKind::Precommit };
        Ballot {
            version: BALLOT_VERSION,
            cluster: self.genesis.cluster_id(),
            group: of.group,
            incarnation: of.incarnation,
            committee: named,
            index,
            round: 0,
            kind,
            value: Some(Hash32(self.removing.random())),
            node,
        }
    }

    /// The key of a node that has no seat any more signs on, as if it had one in the committees in force. Not in the name of those
    /// where it had one: it may have voted there as an honest member does, and would be found to vote twice.
    fn sign_on(&mut self, node: NodeId) {
        let without = |committee: &Committee| committee.index_of(node).is_none();
        for committee in self.byzantine_shards().into_iter().filter(without) {
            let group = committee.group;
            let index = self.decided.get(&group).map_or(1, |last| last + 1);
            let signed = self.ballot(&committee, committee.hash(), index, node).sign(node_key(node));
            self.coverage.late_ballots += 1;
            for member in &committee.members {
                let message = Box::new(BftWire::Machine(Message::Ballot(signed)));
                let wire = Wire::Bft { group, stint: 0, message };
                self.send(Endpoint::Node(node), Endpoint::Node(member.node), wire);
            }
        }
    }

    /// A liar brings the beacon two ballots of a member that votes once, under its own signature: by the network, and
    /// with the help of a leader there that sequences anything.
    pub(crate) fn slander(&mut self) {
        let liars: Vec<NodeId> = self.liars.iter().map(|(node, ..)| *node).collect();
        let Some(leader) = self.leader_of(GroupId::BEACON) else { return };
        let Some(committee) = self.byzantine_shards().choose(&mut self.removing).cloned() else { return };
        let members = committee.members.iter().map(|member| member.node);
        let honest: Vec<NodeId> = members.filter(|node| !liars.contains(node)).collect();
        let (by, about) = (liars.choose(&mut self.removing).copied(), honest.choose(&mut self.removing).copied());
        let (Some(by), Some(about)) = (by, about) else { return };
        let index = self.removing.random_range(1..=ENTRIES);
        let one = self.ballot(&committee, committee.hash(), index, about);
        let other = Ballot { value: Some(Hash32(self.removing.random())), ..one };
        let [one, other] = [one, other].map(|ballot| ballot.sign(node_key(by)));
        let Some(proof) = Equivocation::of(one, other) else { return };
        let Ok(bytes) = borsh::to_vec(&proof) else { return };
        self.coverage.slanders += 1;
        let wire = Wire::Peer { group: GroupId::BEACON, message: Box::new(PeerMessage::Evidence(proof)) };
        self.send(Endpoint::Node(by), Endpoint::Node(leader), wire);
        let commands = vec![Command::Evidence(bytes)];
        self.on_node(leader, None, |node, now_ms, out| {
            node.with(now_ms, GroupId::BEACON, out, |replica, now, out| replica.inject(now, commands, out));
        });
    }

    /// A proof that the beacon has not heard of though the node has a seat, an accused node that is not struck off, or
    /// a group that has not gone on.
    pub(crate) fn removals_unfinished(&self) -> Option<String> {
        if self.shape.removals == 0 || self.phase != Phase::Late {
            return None;
        }
        if let Some(group) = self.silent_since_change().first() {
            return Some(format!("{group} has made no block since its members changed"));
        }
        let beacon = self.newest_of(GroupId::BEACON)?;
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        let accused: Vec<NodeId> = accused::accusations(&mut view).iter().map(|accusation| accusation.node).collect();
        for replica in self.newest() {
            let group = replica.group;
            let Some(committee) = registry::committee(&mut view, group) else { continue };
            let mut known = proved(&replica).into_iter();
            let untold = known.find(|node| committee.index_of(*node).is_some() && !accused.contains(node));
            if let Some(node) = untold {
                return Some(format!("the beacon has not heard that node {node} has voted twice in {group}"));
            }
        }
        let last = self.last_node();
        let open =
            accused.into_iter().find(|node| !matches!(next(&mut view, *node, last), Next::Over | Next::Stuck))?;
        Some(format!("node {open} is accused of having voted twice, and is not struck off"))
    }

    /// Accused nodes that are struck off.
    pub(crate) fn struck_off(&self) -> u64 {
        let Some(beacon) = self.newest_of(GroupId::BEACON) else { return 0 };
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        let accused = accused::accusations(&mut view);
        accused.iter().filter(|accusation| registry::node(&mut view, accusation.node).is_none()).count() as u64
    }
}
