//! The event loop of a run: virtual time, the queue, and who does what when.
//!
//! Everything that happens is an [`Event`] with a time and a sequence number; what is drawn is drawn
//! from streams of the seed. The hash over all delivered events tells whether two runs were the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use ledger::certificate::Certificate;
use ledger::committee::{Committee, Engine};
use ledger::genesis::Genesis;
use ledger::ids::{GroupId, Height, NodeId, TxId};
use ledger::layout::Layout;
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use shard_node::core::peer::PeerMessage;

use crate::checkers::{BftSeen, BlockSeen, Checkers, Facts, Given, Moment, RawReplica, Seen, own};
use crate::client::{Act, Clients};
use crate::cluster::{self, CREATED_MS};
use crate::config::{EVENTS_MAX, Shape, SimConfig, TAIL_LINES};
use crate::council::{Council, Renewal, Ruling, Wish};
use crate::ending::Phase;
use crate::event::{Due, Event};
use crate::eventlog::{EventLog, FORMAT, LogHead, LogLine};
use crate::liars::{self, Cast, Liar, Ruse};
use crate::network::Network;
use crate::node::Node;
use crate::replica::Effect;
use crate::report::{Coverage, Proved, SimReport};
use crate::sabotage::Sabotage;
use crate::schedule::{AnchorFault, Scenario, Schedule};
use crate::wire::{Endpoint, Wire};
use crate::workload::{self, Operation};

const TICK_MS: u64 = 10;
pub(crate) const POLL_MS: u64 = 50;
const AUDIT_MS: u64 = 500;
pub(crate) const FLUSH_MS_MIN: u64 = 40;
pub(crate) const FLUSH_MS_MAX: u64 = 1_500;
const CHECK_MS_MAX: u64 = 8;
/// How long a run with too many liars goes on after its faults.
const TOO_MANY_MS: u64 = 4_000;

/// A run under way.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) config: SimConfig,
    pub(crate) shape: Shape,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) now_ms: u64,
    /// How far clocks have leapt ahead of the events.
    pub(crate) leapt_ms: u64,
    pub(crate) queue: BinaryHeap<Reverse<Due>>,
    pub(crate) sequence: u64,
    pub(crate) hasher: Sha256,
    pub(crate) events: u64,
    pub(crate) genesis: Rc<Genesis>,
    pub(crate) operations: Rc<Vec<Operation>>,
    pub(crate) schedule: Schedule,
    pub(crate) network: Network,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) clients: Clients,
    pub(crate) checkers: Checkers,
    pub(crate) coverage: Coverage,
    pub(crate) faults: u64,
    pub(crate) stalled: BTreeMap<NodeId, u64>,
    pub(crate) slow_disks: BTreeMap<NodeId, u64>,
    pub(crate) anchors: BTreeMap<NodeId, AnchorFault>,
    /// What the beacon sends is late by so much, or lost.
    pub(crate) beacon_lag: Option<Option<u64>>,
    pub(crate) terms: BTreeSet<(GroupId, u64)>,
    pub(crate) tops: BTreeMap<(NodeId, GroupId), u64>,
    pub(crate) heights: BTreeMap<GroupId, u64>,
    /// Whether some group is Byzantine.
    pub(crate) byzantine: bool,
    /// With too many liars: the first certificate of each height, and who has it.
    certified: BTreeMap<(GroupId, Height), (NodeId, Certificate)>,
    /// With too many liars: what honest members have proofs about.
    pub(crate) proofs: BTreeSet<Proved>,
    /// The highest entry that Byzantine groups have decided.
    pub(crate) decided: BTreeMap<GroupId, u64>,
    /// Who lies.
    pub(crate) liars: Cast,
    /// What they have done that has a name, and how often.
    pub(crate) ruses: BTreeMap<Ruse, u64>,
    /// Payments of more than there is that liars have made, and that were executed and rejected for that.
    pub(crate) overdrafts_refused: u64,
    /// What became of transactions, by the blocks.
    pub(crate) outcomes: BTreeMap<TxId, bool>,
    /// Groups that were founded while the cluster ran.
    pub(crate) foundations: BTreeSet<GroupId>,
    /// Shards that have begun while the cluster ran, and the height of each one's first block.
    pub(crate) born: BTreeMap<GroupId, u64>,
    /// The group of the channel that is founded while the cluster runs.
    pub(crate) founding: Option<GroupId>,
    /// The admins of organisations.
    pub(crate) council: Council,
    /// What is drawn about shards that are cut and joined.
    pub(crate) elastic: ChaCha8Rng,
    /// What is drawn about nodes that come and go.
    pub(crate) comings: ChaCha8Rng,
    /// What was wanted of nodes.
    pub(crate) wishes: Vec<Wish>,
    /// What is drawn about keys of nodes.
    pub(crate) renewing: ChaCha8Rng,
    /// Keys that nodes were to have.
    pub(crate) renewals: Vec<Renewal>,
    /// What is drawn about policies of the cluster.
    pub(crate) ruling: ChaCha8Rng,
    /// Policies that were wanted.
    pub(crate) rulings: Vec<Ruling>,
    /// What is drawn about the channel that is founded while the cluster runs, where it has money.
    pub(crate) money: ChaCha8Rng,
    /// What is drawn about proofs that are made up, and about who signs on without a seat.
    pub(crate) removing: ChaCha8Rng,
    /// Where members lose their seats because they vote twice: the last block of each group that changed its committee.
    pub(crate) turned: BTreeMap<GroupId, u64>,
    /// Committees that the registry has put in force, of groups whose seats move, as routers hear of them: also of the channel
    /// that is founded meanwhile, where it has money.
    pub(crate) seatings: Vec<Committee>,
    /// Layouts that the registry has put in force, by version, and the committees that came with each.
    pub(crate) layouts: BTreeMap<u64, (Layout, Vec<Committee>)>,
    pub(crate) phase: Phase,
    /// When the phase began, in events' time.
    pub(crate) phase_since_ms: u64,
    /// Since when, on the clocks, majorities are up for good.
    pub(crate) up_since_ms: u64,
    /// The node that is gone while everything drains.
    pub(crate) gone: Option<NodeId>,
    pub(crate) log: Option<Vec<LogLine>>,
}

/// An independent stream of the seed.
fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

impl World {
    fn new(seed: u64, config: &SimConfig, with_log: bool) -> Result<Self, String> {
        let mut shape = config.shape_of(seed, &mut stream(seed, 0));
        let genesis = Rc::new(cluster::genesis(seed, &shape)?);
        let founding = shape.founding.then(|| GroupId::channel(shape.channels));
        let load = workload::make_with(&genesis, &shape, &mut stream(seed, 1), founding, &mut stream(seed, 25));
        let operations = Rc::new(load.operations);
        let places = Rc::new(own::Places { genesis: Rc::clone(&genesis), channels: load.channels });
        let mut schedule = Schedule::draw(&shape, &mut stream(seed, 2));
        let mut nodes = BTreeMap::new();
        for info in &genesis.nodes {
            nodes.insert(info.id, Node::new(info.id, &genesis, config.sabotage)?);
        }
        let newcomers = (shape.nodes..shape.nodes + shape.newcomers).map(NodeId);
        for id in newcomers.clone() {
            nodes.insert(id, Node::new(id, &genesis, config.sabotage)?);
        }
        let skews = schedule.skews_ms.iter().copied().chain(std::iter::repeat(0));
        for (node, skew) in nodes.values_mut().zip(skews) {
            node.skew_ms = skew;
            node.meet(newcomers.clone());
            node.follows = shape.founding || shape.reshaping || shape.renewing;
            node.renews_keys(shape.renewing);
            node.reshapes(shape.reshaping);
            node.epochs = shape.epochs > 0;
            node.seats_move(shape.movable());
            node.accuse(shape.removals > 0);
        }
        // Where members lose their seats nothing else moves but what is asked for.
        let none = (shape.removals > 0).then_some(0);
        if shape.reshaping {
            schedule.reshape(config.reshapes.or(none), &shape, &mut stream(seed, 11));
        }
        if shape.moving {
            schedule.move_seats(config.moves.or(none), &shape, &mut stream(seed, 12));
        }
        if shape.coming_and_going {
            schedule.come_and_go(config.comings.or(none), &shape, &mut stream(seed, 13));
        }
        if shape.renewing {
            schedule.renew_keys(config.keys, &shape, &mut stream(seed, 15));
        }
        if shape.ruling {
            schedule.rule(config.policies, &shape, &mut stream(seed, 17));
        }
        if let Some(shard) = shape.switching {
            schedule.switch(GroupId::shard(shard), config.switches, &shape, &mut stream(seed, 8));
        }
        if shape.beacon_goes_over {
            schedule.switch(GroupId::BEACON, None, &shape, &mut stream(seed, 9));
        }
        let anchors = shape.anchors;
        let switching = shape.switching.map(GroupId::shard);
        let bft = genesis.committees.iter().any(|committee| committee.engine == Engine::Bft);
        let byzantine = bft || switching.is_some() || shape.beacon_goes_over;
        let liars = if shape.removals > 0 {
            schedule.slander(&shape, &mut stream(seed, 29));
            liars::accusable(&genesis, shape.removals, config.lie, &mut stream(seed, 27))
        } else if byzantine && shape.scenario != Scenario::Minority {
            liars::cast(&genesis, switching, config.lie, config.too_many, &mut stream(seed, 7))
        } else {
            Vec::new()
        };
        if !liars.is_empty() {
            // Whoever lies is one of those that a group outlives, so nobody else is gone for good.
            schedule.absent = None;
        }
        if shape.coming_and_going && shape.beacon_goes_over {
            // Nor where one that joins a Byzantine group counts for nothing for a while.
            schedule.absent = None;
        }
        // Who stays has to decide without those who go, and no seat of it may be gone for good (docs/channels.md).
        shape.guarded &= schedule.absent.is_none();
        nodes.values_mut().filter(|_| shape.guarded).for_each(Node::guard);
        if config.too_many && seed.is_multiple_of(2) {
            schedule.faults.extend(liars::parting(&genesis, &liars, shape.safety_ms));
        }
        for ((node, group, lie), number) in liars.iter().zip(0..) {
            let fellows = liars.iter().filter(|(other, of, _)| of == group && other != node);
            let fellows = fellows.map(|(other, _, _)| *other).collect();
            let sought = config.sabotage.and_then(Sabotage::sought);
            let liar = Liar::new(*lie, seed ^ (number << 32), fellows).seeking(sought);
            if let Some(replica) = nodes.get_mut(node).and_then(|node| node.replicas.get_mut(group)) {
                replica.lie(liar);
            }
        }
        let mut clients = Clients::new(stream(seed, 5), Rc::clone(&places), Rc::clone(&operations));
        clients.hasty = config.sabotage == Some(Sabotage::HastyRouter);
        clients.certified = shape.guarded;
        clients.reshaping = shape.reshaping;
        clients.moving = shape.moving;
        let mut facts = Facts::new(places, Rc::clone(&operations));
        facts.seats_move = shape.moving;
        facts.nodes_come_and_go = shape.coming_and_going;
        facts.keys_change = shape.renewing;
        facts.policies_change = shape.ruling;
        facts.accused_lose_seats = shape.removals > 0;
        Ok(Self {
            seed,
            config: config.clone(),
            shape,
            rng: stream(seed, 3),
            now_ms: 0,
            leapt_ms: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            hasher: Sha256::new(),
            events: 0,
            network: Network::new(stream(seed, 4), schedule.weather),
            clients,
            checkers: Checkers::new(facts),
            council: Council::new(stream(seed, 6), genesis.cluster_id(), founding, anchors),
            elastic: stream(seed, 10),
            comings: stream(seed, 14),
            wishes: Vec::new(),
            renewing: stream(seed, 16),
            renewals: Vec::new(),
            ruling: stream(seed, 18),
            rulings: Vec::new(),
            money: stream(seed, 26),
            removing: stream(seed, 28),
            turned: BTreeMap::new(),
            seatings: Vec::new(),
            layouts: BTreeMap::new(),
            genesis,
            operations,
            schedule,
            nodes,
            coverage: Coverage::default(),
            faults: 0,
            stalled: BTreeMap::new(),
            slow_disks: BTreeMap::new(),
            anchors: BTreeMap::new(),
            beacon_lag: None,
            terms: BTreeSet::new(),
            tops: BTreeMap::new(),
            heights: BTreeMap::new(),
            byzantine,
            certified: BTreeMap::new(),
            proofs: BTreeSet::new(),
            decided: BTreeMap::new(),
            liars,
            ruses: BTreeMap::new(),
            overdrafts_refused: 0,
            outcomes: BTreeMap::new(),
            founding,
            foundations: BTreeSet::new(),
            born: BTreeMap::new(),
            phase: Phase::Faults,
            phase_since_ms: 0,
            up_since_ms: 0,
            gone: None,
            log: with_log.then(Vec::new),
        })
    }

    /// What the machines' clocks show, but for their errors: time since the cluster was made.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.now_ms + self.leapt_ms
    }

    pub(crate) fn push(&mut self, delay_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at_ms: self.now_ms + delay_ms, sequence: self.sequence, event }));
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let at_ms = self.clock_ms();
        if let Some(log) = &mut self.log {
            log.push(LogLine { at_ms, event: text() });
        }
    }

    fn run(&mut self) {
        for (node, group, lie) in self.liars.clone() {
            self.note(|| format!("n{node} lies in {group}: {lie}"));
            self.saw(&Seen::Bft(BftSeen::Liar { node, group, signs_twice: lie.signs_twice() }));
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for (node, phase) in ids.iter().zip(0..) {
            self.restart(*node);
            self.push(phase % TICK_MS, Event::Tick { node: *node });
        }
        for index in 0..self.schedule.faults.len() {
            self.push(self.schedule.faults[index].0, Event::Fault { index, tries: 0 });
        }
        self.convene();
        self.push(self.shape.safety_ms, Event::Heal);
        self.push(AUDIT_MS, Event::Audit);
        let mut acts = Vec::new();
        self.clients.start(&mut acts);
        self.act(acts);
        while self.phase != Phase::Done && self.goes_on() {
            let Some(Reverse(due)) = self.queue.pop() else { return };
            self.now_ms = due.at_ms;
            self.happen(due.event);
            if self.events > EVENTS_MAX {
                self.checkers.violations.push(format!("liveness: {} events, and no end", self.events));
            }
        }
        if self.config.too_many {
            self.audit(Moment::End);
        }
    }

    /// Whether there is more to see. With too many liars everything is, for a while: what is found first need not be
    /// what somebody without the simulator would find.
    fn goes_on(&self) -> bool {
        if self.config.too_many {
            return self.now_ms < self.shape.safety_ms + TOO_MANY_MS;
        }
        self.checkers.violations.is_empty()
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
            Event::Wake { request, group, token } => {
                let mut acts = Vec::new();
                self.clients.wake(self.now_ms, request, group, token, &mut acts);
                self.act(acts);
            }
            Event::Fault { index, tries } => self.fault(index, tries),
            Event::Over { index } => self.over(index),
            Event::Restart { node } => self.restart(node),
            Event::Audit => {
                self.audit(Moment::Passing);
                self.judge_ages();
                self.push(AUDIT_MS, Event::Audit);
            }
            Event::Govern { group } => self.govern(group),
            Event::Rob { group } => self.rob(group),
            Event::Steal { group, org, key } => self.steal(group, org, key),
            Event::Expel { group } => self.expel(group),
            Event::Found { group } => self.found(group),
            Event::Permit { group } => self.permit(group),
            Event::Switch { group, to } => self.switch(group, to),
            Event::Reshape { kind } => self.reshape(kind),
            Event::Adopt { version } => self.adopt(version),
            Event::MoveSeat => self.move_seat(),
            Event::ComeAndGo { place } => self.come_and_go(place),
            Event::RenewKey { place } => self.renew_key(place),
            Event::Rule { place } => self.rule(place),
            Event::StrikeOff => self.strike_off(),
            Event::Seats { place } => self.hear_seats(place),
            Event::Epochs => self.ask_for_epochs(),
            Event::Cut { node, down_ms } => self.cut(node, down_ms),
            Event::Die { node, down_ms } => self.die(node, down_ms),
            Event::Heal => self.heal(),
            Event::Poll => self.poll(),
        }
    }

    /// Runs a node that is up (and, for timers, has not restarted since) and carries out its effects.
    pub(crate) fn on_node(
        &mut self,
        id: NodeId,
        boot: Option<u64>,
        step: impl FnOnce(&mut Node, u64, &mut Vec<Effect>),
    ) {
        let clock_ms = self.clock_ms();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if !node.up || boot.is_some_and(|boot| boot != node.boot) {
            return;
        }
        let mut effects = Vec::new();
        step(node, clock_ms, &mut effects);
        let boot = node.boot;
        self.carry_out(id, boot, effects);
    }

    pub(crate) fn carry_out(&mut self, node: NodeId, boot: u64, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(to, wire) => {
                    if self.shape.guarded
                        && let Some((group, what)) = Given::of(&wire)
                    {
                        self.saw(&Seen::Given { node, to, group, what });
                    }
                    self.send(Endpoint::Node(node), Endpoint::Node(to), wire);
                }
                Effect::Answer(request, group, reply) => {
                    self.send(Endpoint::Node(node), Endpoint::Client, Wire::Answer { request, group, reply });
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
                Effect::Opened(group) => {
                    let delay = self.rng.random_range(FLUSH_MS_MIN..FLUSH_MS_MAX);
                    self.push(delay, Event::Flush { node, group, boot });
                }
                Effect::Fetching(source) => self.endanger(node, source),
                Effect::FetchCut => self.coverage.fetches_cut += 1,
                Effect::PassedOn => self.coverage.passed_on += 1,
                Effect::GoingOver => self.ambush_going_over(node),
                Effect::Broken(why) => self.checkers.violations.push(format!("host: {why}")),
            }
        }
    }

    pub(crate) fn send(&mut self, from: Endpoint, to: Endpoint, wire: Wire) {
        let (wire, late_ms) = match self.hinder(from, wire) {
            Ok(passed) => passed,
            Err(lost) => return self.note(|| format!("{from} → {to} withheld: {}", lost.describe())),
        };
        let delays = self.network.route(from, to);
        if delays.is_empty() {
            self.note(|| format!("{from} → {to} lost: {}", wire.describe()));
            return;
        }
        let bytes: Rc<[u8]> = wire.encode().into();
        for delay in delays {
            self.push(delay + late_ms, Event::Deliver { from, to, bytes: Rc::clone(&bytes) });
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
            (Endpoint::Node(from), Endpoint::Client, Wire::Answer { request, group, reply }) => {
                let mut acts = Vec::new();
                self.clients.answer(self.now_ms, from, request, group, reply, &mut acts);
                self.act(acts);
            }
            (_, Endpoint::Client, _) => {}
            (from, Endpoint::Node(to), wire) => {
                let from = if let Endpoint::Node(from) = from { Some(from) } else { None };
                self.on_node(to, None, |node, now_ms, out| node.receive(now_ms, from, wire, out));
            }
        }
    }

    pub(crate) fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Send(node, wire) => {
                    if let Wire::Submit { group, .. } = &wire {
                        let ended = self.checkers.facts().lines.retired(*group);
                        self.coverage.stale_routes += u64::from(ended);
                    }
                    self.send(Endpoint::Client, Endpoint::Node(node), wire);
                }
                Act::Wake { request, group, token, delay_ms } => {
                    self.push(delay_ms, Event::Wake { request, group, token });
                }
                Act::Tell(seen) => self.saw(&seen),
            }
        }
    }

    pub(crate) fn saw(&mut self, seen: &Seen) {
        match seen {
            Seen::Block(block) => {
                let height = block.header.height.0;
                self.note(|| describe(block));
                let top = self.tops.entry((block.node, block.group)).or_insert(0);
                self.coverage.replayed_blocks += u64::from(height <= *top);
                *top = height.max(*top);
                let highest = self.heights.entry(block.group).or_insert(0);
                if height > *highest {
                    *highest = height;
                    self.coverage.of_block(block);
                    self.council.lapses.see(block, &mut self.coverage);
                    self.council.changes.see(self.checkers.facts(), block, &mut self.coverage);
                    self.resolved(block);
                    if let (GroupId::BEACON, Some(layout)) = (block.group, &block.layout) {
                        let version = layout.version.0;
                        self.layouts.insert(version, (layout.clone(), block.committees.clone()));
                        self.announce(version);
                    }
                    if self.shape.removals > 0 && block.header.committee_hash != block.header.next_committee_hash {
                        self.turned.insert(block.group, height);
                    }
                    if block.group == GroupId::BEACON && (self.shape.moving || self.shape.money > 0) {
                        self.announce_seats(block);
                    }
                }
            }
            Seen::Role { node, group, leads, term, .. } => {
                if *leads {
                    self.terms.insert((*group, *term));
                }
                self.note(|| format!("n{node} {group} leads: {leads}, term {term}"));
            }
            Seen::Certified { node, group, certificate } => {
                self.coverage.certificates += 1;
                if self.config.too_many {
                    self.denounce(*node, *group, certificate);
                }
            }
            Seen::Known { .. } => self.coverage.known += 1,
            Seen::Decided { operation, committed } => {
                self.note(|| format!("client decides #{operation}: committed {committed}"));
            }
            Seen::Applied { .. } => self.coverage.applied += 1,
            Seen::Refused { reject: Reject::Expired, .. } => self.coverage.expired += 1,
            Seen::Bft(seen) => self.saw_bft(seen),
            Seen::Stint { node, group, engine, stint } => {
                self.coverage.stints += 1;
                self.note(|| format!("n{node} {group} goes on under {engine} behind entry {stint}"));
            }
            Seen::Fetched { node, group, height, .. } => {
                self.coverage.fetched += 1;
                self.note(|| format!("n{node} {group} has the state of height {height}"));
            }
            Seen::Left { node, group, rejoins, .. } => {
                self.coverage.departed += u64::from(!rejoins);
                self.note(|| format!("n{node} leaves {group} (to join anew: {rejoins})"));
                // What it has there next it has not had before.
                self.tops.remove(&(*node, *group));
            }
            Seen::Voters { node, group, voters, .. } => {
                self.note(|| format!("n{node} {group} is voted for by {voters:?}"))
            }
            Seen::Born(born) => {
                let (node, group, height) = (born.node, born.header.group, born.header.height.0);
                let highest = self.heights.entry(group).or_insert(height);
                *highest = height.max(*highest);
                self.tops.insert((node, group), height);
                let parents = born.header.parents.len();
                if self.born.insert(group, height).is_none() {
                    // Two begin with each cut.
                    self.coverage.halves += u64::from(parents == 1);
                    self.coverage.joined += u64::from(parents == 2);
                }
                self.note(|| format!("n{node} {group} begins at height {height}"));
            }
            Seen::KeyGone { node, key } => {
                self.coverage.keys_gone += 1;
                self.note(|| format!("n{node} has no key {key} any more"));
            }
            Seen::Founded(foundation) => {
                let first = self.foundations.insert(foundation.group);
                self.coverage.founded += u64::from(first);
            }
            Seen::Started { .. }
            | Seen::Given { .. }
            | Seen::Admitted { .. }
            | Seen::Flushed { .. }
            | Seen::PeerTook { .. }
            | Seen::Acknowledged { .. }
            | Seen::Told { .. }
            | Seen::Refused { .. } => {}
        }
        if self.byzantine && matches!(seen, Seen::Block(_) | Seen::Bft(BftSeen::Decided { .. })) {
            let now = CREATED_MS + self.clock_ms();
            self.checkers.see(&Seen::Bft(BftSeen::Clock(now)));
        }
        self.checkers.see(seen);
    }

    /// What became of transactions, of the load and of liars.
    fn resolved(&mut self, block: &BlockSeen) {
        let overdrafts = &self.checkers.facts().overdrafts;
        let made = |line: &&Receipt| overdrafts.contains(&line.txid);
        let refused = |line: &&Receipt| matches!(line.outcome, Outcome::Rejected(Reject::InsufficientFunds));
        self.overdrafts_refused += block.receipts.iter().filter(made).filter(refused).count() as u64;
        let sent = block.receipts.iter().filter(|line| !made(line));
        self.outcomes.extend(sent.map(|line| (line.txid, own::committed(line))));
    }

    /// Where two headers of a height are certified, those who hold the certificates bring them to the beacon.
    fn denounce(&mut self, node: NodeId, group: GroupId, certificate: &Certificate) {
        let key = (group, certificate.header.height);
        let Some((holder, first)) = self.certified.get(&key).cloned() else {
            self.certified.insert(key, (node, certificate.clone()));
            return;
        };
        if first.header == certificate.header {
            return;
        }
        let members = self.genesis.committee(GroupId::BEACON).map_or(&[][..], |committee| &committee.members[..]);
        let members: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        for (from, certificate) in [(holder, first), (node, certificate.clone())] {
            for to in &members {
                let message = Box::new(PeerMessage::Checkpoint(certificate.clone()));
                let wire = Wire::Peer { group: GroupId::BEACON, message };
                self.send(Endpoint::Node(from), Endpoint::Node(*to), wire);
            }
        }
    }

    fn saw_bft(&mut self, seen: &BftSeen) {
        match seen {
            BftSeen::Decided { group, decided, .. } => {
                let index = decided.value.index;
                let highest = self.decided.entry(*group).or_insert(0);
                if index > *highest {
                    *highest = index;
                    self.coverage.decided += 1;
                    self.coverage.later_rounds += u64::from(decided.round > 0);
                }
            }
            BftSeen::Lied { deeds, .. } => {
                self.coverage.lies += deeds.lies;
                for ruse in &deeds.ruses {
                    *self.ruses.entry(*ruse).or_default() += 1;
                }
            }
            BftSeen::Evidence { group, proof, .. } => {
                self.coverage.evidence += 1;
                if self.config.too_many {
                    let (entry, node) = (proof.first.ballot.index, proof.first.ballot.node.0);
                    self.proofs.insert(Proved { group: group.to_string(), entry, node });
                }
            }
            BftSeen::Turn { node, group, leads, index, round } => {
                self.note(|| format!("n{node} {group} leads: {leads}, entry {index}, round {round}"));
            }
            BftSeen::Admitted { node, group } => self.note(|| format!("n{node} {group} votes again")),
            BftSeen::Installed { node, group, height, .. } => {
                self.note(|| format!("n{node} {group} has the state of height {height}"));
            }
            BftSeen::Liar { .. } | BftSeen::Cast { .. } | BftSeen::Clock(_) => {}
        }
    }

    fn synced(&mut self, node: NodeId, group: GroupId, boot: u64) {
        let all = self.rng.random_range(0..4) != 0;
        let part = self.rng.random_range(1..=8);
        self.on_node(node, Some(boot), |node, now_ms, out| {
            node.with(now_ms, group, out, |replica, now, out| {
                let count = if all { replica.pending() } else { part };
                replica.synced(now, count, out);
            });
        });
    }

    fn flush(&mut self, node: NodeId, group: GroupId, boot: u64) {
        self.on_node(node, Some(boot), |node, now_ms, out| {
            node.with(now_ms, group, out, |replica, _, out| replica.flush(out));
        });
        let here = |node: &Node| node.up && node.boot == boot && node.replicas.contains_key(&group);
        if self.nodes.get(&node).is_some_and(here) {
            let delay = self.rng.random_range(FLUSH_MS_MIN..FLUSH_MS_MAX);
            self.push(delay, Event::Flush { node, group, boot });
        }
    }

    pub(crate) fn audit(&mut self, moment: Moment) {
        let replicas: Vec<RawReplica<'_>> = self
            .nodes
            .values()
            .flat_map(|node| {
                let here = node.replicas.iter().filter(|(_, replica)| !replica.vacant());
                here.map(|(group, replica)| replica.raw(node.id, *group))
            })
            .collect();
        self.checkers.audit(moment, &replicas);
    }
}

/// One line about a block, for the event log.
fn describe(block: &BlockSeen) -> String {
    let mut text = format!("n{} {} height {}", block.node, block.group, block.header.height);
    for (txid, decision) in &block.votes {
        text.push_str(&format!(", votes {decision:?} on {txid}"));
    }
    for receipt in &block.receipts {
        text.push_str(&format!(", resolves {} {:?}", receipt.txid, receipt.outcome));
    }
    for write in block.registers.iter().filter(|write| write.value.is_none()) {
        text.push_str(&format!(", drops a register of {}", write.txid));
    }
    text
}

fn attempt(seed: u64, config: &SimConfig, with_log: bool) -> (SimReport, Option<Vec<LogLine>>) {
    let mut world = match World::new(seed, config, with_log) {
        Ok(world) => world,
        Err(why) => {
            let violations = vec![format!("configuration: {why}")];
            return (SimReport { seed, violations, ..SimReport::default() }, None);
        }
    };
    // A broken invariant stops a production group by a panic; here it is a finding like any other.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        world.checkers.violations.push(format!("panic: {}", text.unwrap_or("without a text")));
    }
    world.report()
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, config: &SimConfig) -> SimReport {
    attempt(seed, config, false).0
}

/// Runs one seed twice; that the two runs differ is a violation, too.
#[must_use]
pub fn run_twice(seed: u64, config: &SimConfig) -> SimReport {
    let (mut first, second) = (run(seed, config), run(seed, config));
    if first.event_hash != second.event_hash {
        first.violations.push(format!(
            "determinism: the same seed gave the event hashes {} and {}",
            first.event_hash, second.event_hash
        ));
        first.reproduce = Some(config.command(seed));
    }
    first
}

/// Runs one seed and keeps everything that happens; the report carries the end of it.
#[must_use]
pub fn record(seed: u64, config: &SimConfig) -> (SimReport, EventLog) {
    let (mut report, lines) = attempt(seed, config, true);
    let lines = lines.unwrap_or_default();
    report.tail = lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(LogLine::text).collect();
    let head = LogHead {
        seamark_sim: FORMAT,
        seed,
        scenario: report.scenario.clone(),
        reproduce: config.command(seed),
        event_hash: report.event_hash.clone(),
        violations: report.violations.clone(),
    };
    (report, EventLog { head, lines })
}
