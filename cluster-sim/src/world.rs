//! The event loop of a run: virtual time, the queue, and who does what when.
//!
//! Everything that happens is an [`Event`] with a time and a sequence number; what is drawn is drawn
//! from streams of the seed. The hash over all delivered events tells whether two runs were the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use ledger::genesis::Genesis;
use ledger::ids::{GroupId, Height, NodeId};
use ledger::receipt::Outcome;
use ledger::reject::Reject;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::checkers::{Checkers, Facts, Moment, RawReplica, Seen};
use crate::client::{Act, Clients, Fate};
use crate::cluster;
use crate::config::SimConfig;
use crate::network::{Cut, Network};
use crate::node::Node;
use crate::replica::Effect;
use crate::report::{Coverage, SimReport};
use crate::schedule::{Direction, Fault, Schedule, Victim};
use crate::state;
use crate::wire::{Endpoint, Wire};
use crate::workload::{self, Operation};

const TICK_MS: u64 = 10;
const POLL_MS: u64 = 50;
const AUDIT_MS: u64 = 500;
const FLUSH_MS_MIN: u64 = 40;
const FLUSH_MS_MAX: u64 = 1_500;
const CHECK_MS_MAX: u64 = 8;
/// How long a crash that wants to meet a write waits for one.
const AMBUSH_MS_MAX: u32 = 300;
const VIOLATIONS_MAX: usize = 20;

/// Something that happens at a time.
enum Event {
    Deliver { from: Endpoint, to: Endpoint, bytes: Rc<[u8]> },
    Tick { node: NodeId },
    Synced { node: NodeId, group: GroupId, boot: u64 },
    Flush { node: NodeId, group: GroupId, boot: u64 },
    Checked { node: NodeId, group: GroupId, boot: u64, height: Height, valid: bool },
    Wake { request: u32, token: u64 },
    Fault { index: usize, tries: u32 },
    /// A fault that lasts is over.
    Over { index: usize },
    Restart { node: NodeId },
    Audit,
    Heal,
    Poll,
}

impl Event {
    /// The node that has to be awake for it.
    fn node(&self) -> Option<NodeId> {
        match self {
            Self::Deliver { to: Endpoint::Node(node), .. }
            | Self::Tick { node }
            | Self::Synced { node, .. }
            | Self::Flush { node, .. }
            | Self::Checked { node, .. } => Some(*node),
            Self::Deliver { to: Endpoint::Client, .. }
            | Self::Wake { .. }
            | Self::Fault { .. }
            | Self::Over { .. }
            | Self::Restart { .. }
            | Self::Audit
            | Self::Heal
            | Self::Poll => None,
        }
    }

    /// What the event hash takes of it.
    fn digest(&self, hasher: &mut Sha256) {
        let mut put = |kind: u8, numbers: &[u64], bytes: &[u8]| {
            hasher.update([kind]);
            numbers.iter().for_each(|number| hasher.update(number.to_be_bytes()));
            hasher.update(bytes);
        };
        let end = |endpoint: &Endpoint| match endpoint {
            Endpoint::Node(node) => u64::from(node.0),
            Endpoint::Client => u64::MAX,
        };
        match self {
            Self::Deliver { from, to, bytes } => put(0, &[end(from), end(to), bytes.len() as u64], bytes),
            Self::Tick { node } => put(1, &[u64::from(node.0)], &[]),
            Self::Synced { node, group, boot } => put(2, &[u64::from(node.0), group.0, *boot], &[]),
            Self::Flush { node, group, boot } => put(3, &[u64::from(node.0), group.0, *boot], &[]),
            Self::Checked { node, group, boot, height, valid } => {
                put(4, &[u64::from(node.0), group.0, *boot, height.0, u64::from(*valid)], &[]);
            }
            Self::Wake { request, token } => put(5, &[u64::from(*request), *token], &[]),
            Self::Fault { index, tries } => put(6, &[*index as u64, u64::from(*tries)], &[]),
            Self::Over { index } => put(7, &[*index as u64], &[]),
            Self::Restart { node } => put(8, &[u64::from(node.0)], &[]),
            Self::Audit => put(9, &[], &[]),
            Self::Heal => put(10, &[], &[]),
            Self::Poll => put(11, &[], &[]),
        }
    }
}

struct Due {
    at_ms: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.sequence) == (other.at_ms, other.sequence)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.sequence).cmp(&(other.at_ms, other.sequence))
    }
}

/// The last lines of the event log, when it is wanted.
struct Log {
    lines: VecDeque<String>,
    max: usize,
}

impl Log {
    fn line(&mut self, now_ms: u64, text: String) {
        if self.lines.len() >= self.max {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{now_ms:>6} ms  {text}"));
    }
}

struct World {
    seed: u64,
    config: SimConfig,
    rng: ChaCha8Rng,
    now_ms: u64,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    hasher: Sha256,
    events: u64,
    genesis: Rc<Genesis>,
    operations: Rc<Vec<Operation>>,
    schedule: Schedule,
    network: Network,
    nodes: BTreeMap<NodeId, Node>,
    clients: Clients,
    checkers: Checkers,
    coverage: Coverage,
    faults: u64,
    stalled: BTreeMap<NodeId, u64>,
    slow_disks: BTreeMap<NodeId, u64>,
    terms: BTreeSet<(GroupId, u64)>,
    tops: BTreeMap<(NodeId, GroupId), u64>,
    heights: BTreeMap<GroupId, u64>,
    healed: bool,
    finished: bool,
    log: Option<Log>,
}

/// An independent stream of the seed.
fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

impl World {
    fn new(seed: u64, config: &SimConfig, with_log: bool) -> Result<Self, String> {
        let genesis = Rc::new(cluster::genesis(seed, config)?);
        let operations = Rc::new(workload::make(&genesis, config, &mut stream(seed, 1)));
        let schedule = Schedule::draw(config, &mut stream(seed, 2));
        let mut nodes = BTreeMap::new();
        for info in &genesis.nodes {
            nodes.insert(info.id, Node::new(info.id, &genesis, config.sabotage)?);
        }
        for (node, skew) in nodes.values_mut().zip(&schedule.skews_ms) {
            node.skew_ms = *skew;
        }
        Ok(Self {
            seed,
            config: config.clone(),
            rng: stream(seed, 3),
            now_ms: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            hasher: Sha256::new(),
            events: 0,
            network: Network::new(stream(seed, 4), schedule.weather),
            clients: Clients::new(stream(seed, 5), Rc::clone(&genesis), Rc::clone(&operations)),
            checkers: Checkers::new(Facts::new(Rc::clone(&genesis), Rc::clone(&operations))),
            genesis,
            operations,
            schedule,
            nodes,
            coverage: Coverage::default(),
            faults: 0,
            stalled: BTreeMap::new(),
            slow_disks: BTreeMap::new(),
            terms: BTreeSet::new(),
            tops: BTreeMap::new(),
            heights: BTreeMap::new(),
            healed: false,
            finished: false,
            log: with_log.then(|| Log { lines: VecDeque::new(), max: config.tail_lines }),
        })
    }

    fn push(&mut self, delay_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at_ms: self.now_ms + delay_ms, sequence: self.sequence, event }));
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        let now_ms = self.now_ms;
        if let Some(log) = &mut self.log {
            log.line(now_ms, text());
        }
    }

    fn run(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for (node, phase) in ids.iter().zip(0..) {
            self.restart(*node);
            self.push(phase % TICK_MS, Event::Tick { node: *node });
        }
        for index in 0..self.schedule.faults.len() {
            self.push(self.schedule.faults[index].0, Event::Fault { index, tries: 0 });
        }
        self.push(self.config.safety_ms, Event::Heal);
        self.push(AUDIT_MS, Event::Audit);
        let mut acts = Vec::new();
        self.clients.start(&mut acts);
        self.act(acts);
        while !self.finished && self.checkers.violations.is_empty() {
            let Some(Reverse(due)) = self.queue.pop() else { return };
            self.now_ms = due.at_ms;
            self.happen(due.event);
        }
    }

    fn happen(&mut self, event: Event) {
        let stalled = event.node().and_then(|node| self.stalled.get(&node)).copied();
        if let Some(until) = stalled.filter(|until| *until > self.now_ms) {
            return self.push(until - self.now_ms, event);
        }
        self.events += 1;
        self.hasher.update(self.now_ms.to_be_bytes());
        event.digest(&mut self.hasher);
        match event {
            Event::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
            Event::Tick { node } => {
                self.push(TICK_MS, Event::Tick { node });
                self.on_node(node, None, |node, now_ms, out| node.tick(now_ms, out));
            }
            Event::Synced { node, group, boot } => self.synced(node, group, boot),
            Event::Flush { node, group, boot } => self.flush(node, group, boot),
            Event::Checked { node, group, boot, height, valid } => {
                self.on_node(node, Some(boot), |node, now_ms, out| {
                    node.with(now_ms, group, out, |replica, now, out| replica.checked(now, height, valid, out));
                });
            }
            Event::Wake { request, token } => {
                let mut acts = Vec::new();
                self.clients.wake(self.now_ms, request, token, &mut acts);
                self.act(acts);
            }
            Event::Fault { index, tries } => self.fault(index, tries),
            Event::Over { index } => self.over(index),
            Event::Restart { node } => self.restart(node),
            Event::Audit => {
                self.audit(Moment::Passing);
                self.push(AUDIT_MS, Event::Audit);
            }
            Event::Heal => self.heal(),
            Event::Poll => self.poll(),
        }
    }

    /// Runs a node that is up (and, for timers, has not restarted since) and carries out its effects.
    fn on_node(&mut self, id: NodeId, boot: Option<u64>, step: impl FnOnce(&mut Node, u64, &mut Vec<Effect>)) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if !node.up || boot.is_some_and(|boot| boot != node.boot) {
            return;
        }
        let mut effects = Vec::new();
        step(node, self.now_ms, &mut effects);
        let boot = node.boot;
        self.carry_out(id, boot, effects);
    }

    fn carry_out(&mut self, node: NodeId, boot: u64, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(to, wire) => self.send(Endpoint::Node(node), Endpoint::Node(to), &wire),
                Effect::Answer(request, reply) => {
                    self.send(Endpoint::Node(node), Endpoint::Client, &Wire::Answer { request, reply });
                }
                Effect::SyncLater(group) => {
                    let slow = self.slow_disks.get(&node).copied().unwrap_or(0);
                    let delay = slow + self.rng.random_range(0..=self.schedule.sync_ms_max);
                    self.push(delay, Event::Synced { node, group, boot });
                }
                Effect::CheckLater(group, height, valid) => {
                    let delay = self.rng.random_range(0..=CHECK_MS_MAX);
                    self.push(delay, Event::Checked { node, group, boot, height, valid });
                }
                Effect::Saw(seen) => self.saw(&seen),
                Effect::Broken(why) => self.checkers.violations.push(format!("host: {why}")),
            }
        }
    }

    fn send(&mut self, from: Endpoint, to: Endpoint, wire: &Wire) {
        let delays = self.network.route(from, to);
        if delays.is_empty() {
            self.note(|| format!("{from} → {to} lost: {}", wire.describe()));
            return;
        }
        let bytes: Rc<[u8]> = wire.encode().into();
        for delay in delays {
            self.push(delay, Event::Deliver { from, to, bytes: Rc::clone(&bytes) });
        }
    }

    fn deliver(&mut self, from: Endpoint, to: Endpoint, bytes: &[u8]) {
        if self.network.cut(from, to) {
            self.network.counts.lost += 1;
            return;
        }
        let wire: Wire = match borsh::from_slice(bytes) {
            Ok(wire) => wire,
            Err(error) => {
                self.checkers.violations.push(format!("host: a message does not decode: {error}"));
                return;
            }
        };
        self.note(|| format!("{from} → {to} {}", wire.describe()));
        match (from, to, wire) {
            (Endpoint::Node(from), Endpoint::Client, Wire::Answer { request, reply }) => {
                let mut acts = Vec::new();
                self.clients.answer(self.now_ms, from, request, reply, &mut acts);
                self.act(acts);
            }
            (_, Endpoint::Client, _) => {}
            (from, Endpoint::Node(to), wire) => {
                let from = if let Endpoint::Node(from) = from { Some(from) } else { None };
                self.on_node(to, None, |node, now_ms, out| node.receive(now_ms, from, wire, out));
            }
        }
    }

    fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Send(node, wire) => self.send(Endpoint::Client, Endpoint::Node(node), &wire),
                Act::Wake(request, token, delay_ms) => self.push(delay_ms, Event::Wake { request, token }),
                Act::Settled(operation, Fate::Acknowledged(receipt)) => {
                    self.saw(&Seen::Acknowledged { operation, receipt });
                }
                Act::Settled(operation, Fate::Refused(reject)) => self.saw(&Seen::Refused { operation, reject }),
            }
        }
    }

    fn saw(&mut self, seen: &Seen) {
        match seen {
            Seen::Block(block) => {
                let height = block.header.height.0;
                self.note(|| format!("n{} {} height {height}: {} receipts", block.node, block.group, block.receipts.len()));
                let top = self.tops.entry((block.node, block.group)).or_insert(0);
                self.coverage.replayed_blocks += u64::from(height <= *top);
                *top = height.max(*top);
                let highest = self.heights.entry(block.group).or_insert(0);
                *highest = height.max(*highest);
            }
            Seen::Role { node, group, leads, term } => {
                if *leads {
                    self.terms.insert((*group, *term));
                }
                self.note(|| format!("n{node} {group} leads: {leads}, term {term}"));
            }
            Seen::Certified { .. } => self.coverage.certificates += 1,
            Seen::Known { .. } => self.coverage.known += 1,
            Seen::Started { .. }
            | Seen::Flushed { .. }
            | Seen::PeerTook { .. }
            | Seen::Acknowledged { .. }
            | Seen::Refused { .. } => {}
        }
        self.checkers.see(seen);
    }

    fn synced(&mut self, node: NodeId, group: GroupId, boot: u64) {
        let all = self.rng.random_range(0..4) != 0;
        let part = self.rng.random_range(1..=8);
        self.on_node(node, Some(boot), |node, now_ms, out| {
            node.with(now_ms, group, out, |replica, now, out| {
                let count = if all { replica.disk.pending() } else { part };
                replica.synced(now, count, out);
            });
        });
    }

    fn flush(&mut self, node: NodeId, group: GroupId, boot: u64) {
        self.on_node(node, Some(boot), |node, now_ms, out| {
            node.with(now_ms, group, out, |replica, _, out| replica.flush(out));
        });
        if self.nodes.get(&node).is_some_and(|node| node.up && node.boot == boot) {
            let delay = self.rng.random_range(FLUSH_MS_MIN..FLUSH_MS_MAX);
            self.push(delay, Event::Flush { node, group, boot });
        }
    }

    fn restart(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.up) else { return };
        let mut effects = Vec::new();
        node.start(self.now_ms, &mut self.rng, &mut effects);
        let (boot, groups): (u64, Vec<GroupId>) = (node.boot, node.replicas.keys().copied().collect());
        self.note(|| format!("n{id} starts"));
        for group in groups {
            let delay = self.rng.random_range(FLUSH_MS_MIN..FLUSH_MS_MAX);
            self.push(delay, Event::Flush { node: id, group, boot });
        }
        self.carry_out(id, boot, effects);
    }

    fn crash(&mut self, id: NodeId, down_ms: u64) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up) else { return };
        let (log, state) = node.crash(&mut self.rng);
        self.stalled.remove(&id);
        self.coverage.crashes += 1;
        self.coverage.lost_log_writes += log as u64;
        self.coverage.lost_state_batches += state as u64;
        self.note(|| format!("n{id} loses power, {log} log writes and {state} batches"));
        self.push(down_ms, Event::Restart { node: id });
        self.audit(Moment::Crash);
    }

    fn audit(&mut self, moment: Moment) {
        let replicas: Vec<RawReplica<'_>> = self
            .nodes
            .values()
            .flat_map(|node| {
                node.replicas.iter().map(|(group, replica)| RawReplica {
                    node: node.id,
                    group: *group,
                    kv: &replica.kv,
                    log: replica.disk.durable(),
                })
            })
            .collect();
        self.checkers.audit(moment, &replicas);
    }

    fn resolve(&self, victim: Victim) -> NodeId {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let at = |number: u32| nodes[number as usize % nodes.len()];
        match victim {
            Victim::Node(number) => at(number),
            Victim::LeaderOf(number) => {
                let groups = &self.genesis.committees;
                let group = groups[number as usize % groups.len()].group;
                let leads = |node: &&Node| node.replicas.get(&group).is_some_and(crate::replica::Replica::leads);
                self.nodes.values().find(leads).map_or_else(|| at(number), |node| node.id)
            }
        }
    }

    /// Whether a fault that waits for its moment has to wait on.
    fn ambush(&self, fault: &Fault, tries: u32) -> bool {
        let Fault::CrashWriting(victim, _) = fault else { return false };
        let Some(node) = self.nodes.get(&self.resolve(*victim)) else { return false };
        let writing = node.replicas.values().any(|replica| replica.disk.pending() > 0);
        !writing && tries < AMBUSH_MS_MAX
    }

    fn fault(&mut self, index: usize, tries: u32) {
        if self.healed {
            return;
        }
        let fault = self.schedule.faults[index].1.clone();
        if self.ambush(&fault, tries) {
            return self.push(1, Event::Fault { index, tries: tries + 1 });
        }
        self.faults += 1;
        self.note(|| format!("fault: {fault:?}"));
        match fault {
            Fault::Crash(victim, ms) | Fault::CrashWriting(victim, ms) => self.crash(self.resolve(victim), ms),
            Fault::PowerCut(ms) => {
                let all: Vec<NodeId> = self.nodes.keys().copied().collect();
                for node in all {
                    let up_after = ms + self.rng.random_range(0..200);
                    self.crash(node, up_after);
                }
            }
            Fault::Isolate(victim, direction, ms) => {
                let one = BTreeSet::from([self.resolve(victim)]);
                let others = self.nodes.keys().copied().filter(|node| !one.contains(node)).collect();
                let cut = match direction {
                    Direction::Both => Cut { from: one, to: others, both_ways: true },
                    Direction::Out => Cut { from: one, to: others, both_ways: false },
                    Direction::In => Cut { from: others, to: one, both_ways: false },
                };
                self.network.cuts.insert(index, cut);
                self.push(ms, Event::Over { index });
            }
            Fault::Split(mask, ms) => {
                let (from, to) = self.nodes.keys().copied().partition(|node| mask >> (node.0 % 32) & 1 == 1);
                self.network.cuts.insert(index, Cut { from, to, both_ways: true });
                self.push(ms, Event::Over { index });
            }
            Fault::Stall(victim, ms) => {
                let node = self.resolve(victim);
                self.stalled.insert(node, self.now_ms + ms);
            }
            Fault::ClockJump(victim, by_ms) => {
                let node = self.resolve(victim);
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.skew_ms += by_ms;
                }
            }
            Fault::Weather(weather, ms) => {
                self.network.weather = weather;
                self.push(ms, Event::Over { index });
            }
            Fault::SlowLink(from, to, extra_ms) => {
                let (from, to) = (self.resolve(Victim::Node(from)), self.resolve(Victim::Node(to)));
                self.network.slow.insert((from, to), extra_ms);
            }
            Fault::SlowDisk(victim, extra_ms, ms) => {
                let node = self.resolve(victim);
                self.slow_disks.insert(node, extra_ms);
                self.push(ms, Event::Over { index });
            }
        }
    }

    fn over(&mut self, index: usize) {
        match &self.schedule.faults[index].1 {
            _ if self.healed => {}
            Fault::Isolate(..) | Fault::Split(..) => {
                self.network.cuts.remove(&index);
            }
            Fault::Weather(..) => self.network.weather = self.schedule.weather,
            Fault::SlowDisk(..) => self.slow_disks.clear(),
            Fault::Crash(..)
            | Fault::CrashWriting(..)
            | Fault::PowerCut(_)
            | Fault::Stall(..)
            | Fault::ClockJump(..)
            | Fault::SlowLink(..) => {}
        }
    }

    /// The liveness phase begins: nothing fails any more, and everything has to come to an end.
    fn heal(&mut self) {
        self.note(|| "everything heals".to_owned());
        self.healed = true;
        self.network.heal();
        self.slow_disks.clear();
        self.stalled.clear();
        self.schedule.sync_ms_max = self.schedule.sync_ms_max.min(4);
        let down: Vec<NodeId> = self.nodes.values().filter(|node| !node.up).map(|node| node.id).collect();
        down.into_iter().for_each(|node| self.restart(node));
        self.push(POLL_MS, Event::Poll);
    }

    fn poll(&mut self) {
        match self.unfinished() {
            None => {
                self.audit(Moment::End);
                self.finished = true;
            }
            Some(why) if self.now_ms > self.config.safety_ms + self.config.liveness_ms_max => {
                self.checkers.violations.push(format!("liveness: {why}"));
            }
            Some(_) => self.push(POLL_MS, Event::Poll),
        }
    }

    /// What is still to come to an end.
    fn unfinished(&self) -> Option<String> {
        if self.clients.open() > 0 {
            return Some(format!("operations {:?} have no fate", self.clients.stuck()));
        }
        self.genesis.committees.iter().find_map(|committee| self.group_unfinished(committee.group))
    }

    fn group_unfinished(&self, group: GroupId) -> Option<String> {
        let replicas: Vec<_> = self.nodes.values().filter_map(|node| Some((node.id, node.replicas.get(&group)?))).collect();
        let top = replicas.iter().filter_map(|(_, replica)| replica.height()).max()?;
        let roles = replicas.iter().filter_map(|(_, replica)| replica.role());
        let last_index = roles.map(|role| role.last_log_index).max()?;
        for (node, replica) in &replicas {
            let role = replica.role()?;
            if replica.height() != Some(top) || role.applied_index != last_index {
                return Some(format!("node {node} has not applied all of {group}"));
            }
            if replica.certified() != Some(top) {
                return Some(format!(
                    "node {node} has no certificate of the last block of {group}, height {top}; it has {:?}",
                    replica.certified()
                ));
            }
        }
        let (_, source) = replicas.first()?;
        for (dest, head) in state::out_streams(&source.kv) {
            let there = self.nodes.values().find_map(|node| node.replicas.get(&dest))?;
            let cursor = state::in_cursors(&there.kv).iter().find(|(peer, _)| *peer == group).map_or(0, |(_, c)| c.next_seq);
            if cursor != head.next_seq || head.acked != head.next_seq {
                return Some(format!(
                    "of the mail from {group} to {dest} {cursor} of {} are taken and {} acknowledged",
                    head.next_seq, head.acked
                ));
            }
        }
        None
    }

    fn count(&mut self) {
        let coverage = &mut self.coverage;
        coverage.blocks = self.heights.values().sum();
        let groups: BTreeSet<GroupId> = self.terms.iter().map(|(group, _)| *group).collect();
        coverage.leader_changes = (self.terms.len() - groups.len()) as u64;
        coverage.lost_messages = self.network.counts.lost;
        coverage.duplicated_messages = self.network.counts.duplicated;
        coverage.reordered_messages = self.network.counts.reordered;
        coverage.retries = self.clients.retries;
        for operation in self.operations.iter() {
            match self.clients.fate(operation.index) {
                Some(Fate::Acknowledged(receipt)) => match &receipt.outcome {
                    Outcome::Committed { mail } => {
                        coverage.cross_shard += u64::from(!mail.is_empty() && receipt.group != GroupId::BEACON);
                    }
                    Outcome::Rejected(reject) => {
                        coverage.overdrafts += u64::from(*reject == Reject::InsufficientFunds);
                    }
                },
                Some(Fate::Refused(Reject::Expired)) => coverage.expired += 1,
                Some(Fate::Refused(_)) | None => {}
            }
        }
        let beacon = self.nodes.values().find_map(|node| node.replicas.get(&GroupId::BEACON));
        if let Some(beacon) = beacon {
            let kept = |group| state::find::<beacon::Checkpoint>(&beacon.kv, &beacon::registry::checkpoint_key(group));
            let shards = self.genesis.layout.shards.iter();
            coverage.checkpoints = shards.filter(|shard| matches!(kept(shard.group), Ok(Some(_)))).count() as u64;
        }
    }

    fn report(mut self) -> SimReport {
        self.count();
        let (transactions, committed, rejected) = self.clients.totals();
        let mut violations = std::mem::take(&mut self.checkers.violations);
        violations.truncate(VIOLATIONS_MAX);
        let reproduce = (!violations.is_empty()).then(|| self.config.command(self.seed));
        SimReport {
            seed: self.seed,
            scenario: self.schedule.scenario.name().to_owned(),
            transactions,
            committed,
            rejected,
            faults: self.faults,
            violations,
            event_hash: self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            seconds: self.now_ms as f64 / 1000.0,
            events: self.events,
            coverage: self.coverage,
            tail: self.log.map(|log| log.lines.into()).unwrap_or_default(),
            reproduce,
        }
    }
}

fn attempt(seed: u64, config: &SimConfig, with_log: bool) -> SimReport {
    let mut world = match World::new(seed, config, with_log) {
        Ok(world) => world,
        Err(why) => {
            return SimReport {
                seed,
                scenario: String::new(),
                transactions: 0,
                committed: 0,
                rejected: 0,
                faults: 0,
                violations: vec![format!("configuration: {why}")],
                event_hash: String::new(),
                seconds: 0.0,
                events: 0,
                coverage: Coverage::default(),
                tail: Vec::new(),
                reproduce: None,
            };
        }
    };
    // A broken invariant stops a production group by a panic; here it is a finding like any other.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        world.checkers.violations.push(format!("panic: {}", text.unwrap_or("without a text")));
    }
    world.report()
}

/// Runs one seed. When something is violated, the run is repeated with its event log, whose tail
/// the report then carries.
#[must_use]
pub fn run(seed: u64, config: &SimConfig) -> SimReport {
    let report = attempt(seed, config, false);
    if report.passed() || config.tail_lines == 0 { report } else { attempt(seed, config, true) }
}

/// Runs one seed twice; that the two runs differ is a violation, too.
#[must_use]
pub fn run_twice(seed: u64, config: &SimConfig) -> SimReport {
    let (mut first, second) = (run(seed, config), attempt(seed, config, false));
    if first.event_hash != second.event_hash {
        first.violations.push(format!(
            "determinism: the same seed gave the event hashes {} and {}",
            first.event_hash, second.event_hash
        ));
        first.reproduce = Some(config.command(seed));
    }
    first
}
