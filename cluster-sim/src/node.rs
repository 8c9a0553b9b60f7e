//! A node: replicas of several groups, a clock, and the exchange of clocks. Which groups it has replicas of
//! is decided in `hosting`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use beacon::ClusterView;
use ledger::foundation::Foundation;
use ledger::genesis::Genesis;
use ledger::ids::{GroupId, JobId, NodeId, Tick};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use storage::kv::Crash;

use crate::cluster::CREATED_MS;
use crate::copies::Copies;
use crate::keyring::KeyRing;
use crate::replica::{Effect, Replica};
use crate::sabotage::Sabotage;
use crate::seat;
use crate::seating::Moving;
use crate::wire::{Reply, Wire};

/// Ticks between two steps of the driver's timer.
const DRIVER_EVERY_TICKS: u64 = 2;
/// Ticks between two readings of the clock that a node sends around.
const CLOCK_EVERY_TICKS: u64 = 40;

/// One simulated node.
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Counts starts; timers of an earlier life are ignored.
    pub boot: u64,
    /// Whether it has power.
    pub up: bool,
    /// How far its wall clock is off.
    pub skew_ms: i64,
    /// Its replicas.
    pub replicas: BTreeMap<GroupId, Replica>,
    pub(crate) genesis: Rc<Genesis>,
    pub(crate) sabotage: Option<Sabotage>,
    /// Whether it follows the beacon's registry. Where nothing is founded there is nothing to follow.
    pub(crate) follows: bool,
    /// Whether its host keeps things back: see `replica::guard`.
    pub(crate) guards: bool,
    /// Whether the beacon hears from here who has voted twice.
    pub(crate) accuses: bool,
    /// Whether shards are cut and joined meanwhile.
    pub(crate) reshaping: bool,
    /// Whose seats move.
    pub(crate) moves: Moving,
    /// Whether members of the beacon give secrets to its seeds.
    pub(crate) epochs: bool,
    /// Whether keys of nodes are replaced.
    pub(crate) renews: bool,
    /// Its keys.
    pub(crate) keys: KeyRing,
    /// Copies of shards that are to be cut or joined, by job.
    pub(crate) copies: BTreeMap<JobId, Copies>,
    /// What it has heard of the registry.
    pub(crate) registry: Option<Rc<ClusterView>>,
    /// How groups began that it has, or had, a seat in.
    pub(crate) foundations: BTreeMap<GroupId, Rc<Foundation>>,
    /// Groups that it has left before.
    pub(crate) left: BTreeSet<GroupId>,
    pub(crate) peers: Vec<NodeId>,
    pub(crate) members: BTreeMap<GroupId, Vec<NodeId>>,
    /// Offsets of the other nodes' clocks against our tick.
    readings: BTreeMap<NodeId, i64>,
    /// The monotonic clock starts anywhere, and anew after a crash.
    tick_base: u64,
    pub(crate) ticks: u64,
}

impl Node {
    /// A node without power, with the first state of its groups.
    ///
    /// # Errors
    /// A text when a group cannot be made.
    pub fn new(id: NodeId, genesis: &Rc<Genesis>, sabotage: Option<Sabotage>) -> Result<Self, String> {
        let (mut replicas, mut members) = (BTreeMap::new(), BTreeMap::new());
        let keys = KeyRing::new(id);
        for committee in &genesis.committees {
            if committee.members.iter().any(|member| member.node == id) {
                let group = committee.group;
                let mut replica = Replica::new(group, id, genesis, sabotage)?;
                replica.keys = keys.held().clone();
                replicas.insert(group, replica);
                members.insert(group, committee.members.iter().map(|member| member.node).collect());
            }
        }
        let peers = genesis.nodes.iter().map(|node| node.id).filter(|peer| *peer != id).collect();
        Ok(Self {
            id,
            boot: 0,
            up: false,
            skew_ms: 0,
            replicas,
            genesis: Rc::clone(genesis),
            sabotage,
            follows: false,
            guards: false,
            accuses: false,
            reshaping: false,
            moves: Moving::default(),
            epochs: false,
            renews: false,
            keys,
            copies: BTreeMap::new(),
            registry: None,
            foundations: BTreeMap::new(),
            left: BTreeSet::new(),
            peers,
            members,
            readings: BTreeMap::new(),
            tick_base: 0,
            ticks: 0,
        })
    }

    /// Its host keeps things back from now on.
    pub(crate) fn guard(&mut self) {
        self.guards = true;
        self.replicas.values_mut().for_each(|replica| replica.guards = true);
    }

    /// Whether the beacon hears from here who has voted twice.
    pub(crate) fn accuse(&mut self, accuses: bool) {
        self.accuses = accuses;
        self.replicas.values_mut().for_each(|replica| replica.accuses = accuses);
    }

    pub(crate) fn tick_at(&self, now_ms: u64) -> Tick {
        Tick(self.tick_base + now_ms)
    }

    fn wall_ms(&self, now_ms: u64) -> i64 {
        i64::try_from(CREATED_MS + now_ms).unwrap_or(i64::MAX).saturating_add(self.skew_ms)
    }

    /// Median offset of the clocks of a group's nodes, as far as known, our own among them.
    pub(crate) fn guarded_offset(&self, now_ms: u64, group: GroupId) -> i64 {
        let own = self.wall_ms(now_ms) - i64::try_from(self.tick_at(now_ms).0).unwrap_or(0);
        let members = self.members.get(&group).map_or(&[][..], Vec::as_slice);
        let others = members.iter().filter_map(|member| self.readings.get(member)).copied();
        let mut offsets: Vec<i64> = others.chain([own]).collect();
        offsets.sort_unstable();
        offsets[(offsets.len() - 1) / 2]
    }

    /// Power is on.
    pub fn start(&mut self, now_ms: u64, rng: &mut ChaCha8Rng, out: &mut Vec<Effect>) {
        self.up = true;
        self.boot += 1;
        self.readings.clear();
        self.keys.start();
        for replica in self.replicas.values_mut() {
            replica.keys = self.keys.held().clone();
        }
        self.tick_base = rng.random_range(0..1_000_000);
        let now = self.tick_at(now_ms);
        let offsets: Vec<i64> = self.replicas.keys().map(|group| self.guarded_offset(now_ms, *group)).collect();
        for ((group, replica), offset) in self.replicas.iter_mut().zip(offsets) {
            if let Err(why) = replica.start(now, offset, rng.random(), out) {
                out.push(Effect::Broken(format!("{group} cannot start on node {}: {why}", self.id)));
            }
        }
        self.send_clock(now_ms, out);
    }

    /// Power is off; returns lost log writes and lost batches of state.
    pub fn crash(&mut self, rng: &mut ChaCha8Rng) -> (usize, usize) {
        self.up = false;
        self.copies.clear();
        if self.keys.writes() {
            self.keys.crash(rng.random());
        }
        let mut lost = (0, 0);
        for replica in self.replicas.values_mut() {
            let log_keep = rng.random_range(0..=replica.pending());
            let torn = rng.random_range(0..4);
            let state_keep = rng.random_range(0..=replica.kv.unflushed());
            let (log, state) = replica.crash(log_keep, torn, state_keep);
            lost = (lost.0 + log, lost.1 + state);
        }
        lost
    }

    fn send_clock(&self, now_ms: u64, out: &mut Vec<Effect>) {
        let wall_ms = u64::try_from(self.wall_ms(now_ms)).unwrap_or(0);
        out.extend(self.peers.iter().map(|peer| Effect::Send(*peer, Wire::Clock { wall_ms })));
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        self.ticks += 1;
        let now = self.tick_at(now_ms);
        let driver_too = self.ticks.is_multiple_of(DRIVER_EVERY_TICKS);
        for replica in self.replicas.values_mut() {
            replica.tick(now, driver_too, out);
        }
        self.follow_registry(now_ms, out);
        self.follow_jobs(now_ms, out);
        self.contribute(out);
        self.follow_keys(out);
        if self.ticks.is_multiple_of(CLOCK_EVERY_TICKS) {
            self.send_clock(now_ms, out);
            self.adjust(now_ms, out);
        }
    }

    fn adjust(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let now = self.tick_at(now_ms);
        let groups: Vec<GroupId> = self.replicas.keys().copied().collect();
        for group in groups {
            let offset = self.guarded_offset(now_ms, group);
            if let Some(replica) = self.replicas.get_mut(&group) {
                replica.clock(now, offset, out);
            }
        }
    }

    /// Runs one replica, if it is here.
    pub fn with(
        &mut self,
        now_ms: u64,
        group: GroupId,
        out: &mut Vec<Effect>,
        step: impl FnOnce(&mut Replica, Tick, &mut Vec<Effect>),
    ) {
        let now = self.tick_at(now_ms);
        if let Some(replica) = self.replicas.get_mut(&group) {
            step(replica, now, out);
        }
    }

    /// A message arrived.
    pub fn receive(&mut self, now_ms: u64, from: Option<NodeId>, wire: Wire, out: &mut Vec<Effect>) {
        match (wire, from) {
            (Wire::Engine { group, stint, from: sender, to, message }, Some(from)) if seat::node_of(sender) == from => {
                self.with(now_ms, group, out, |replica, now, out| {
                    replica.engine(now, (sender, to), stint, message, out);
                });
            }
            (Wire::Bft { group, stint, message }, Some(from)) => {
                self.with(now_ms, group, out, |replica, now, out| replica.bft(now, from, stint, *message, out));
            }
            (Wire::Ahead { group, stint }, Some(from)) => {
                self.with(now_ms, group, out, |replica, now, _| replica.ahead(now, from, stint));
            }
            (Wire::Fetch { group, of, part }, Some(from)) => {
                self.with(now_ms, group, out, |replica, _, out| replica.serve(from, of, part, out));
            }
            (Wire::Part { group, of, part, parts, bytes }, Some(from)) => {
                self.with(now_ms, group, out, |replica, now, out| {
                    replica.part(now, from, of, part, parts, bytes, out);
                });
            }
            (Wire::Follow { revision }, Some(from)) => self.tell_registry(from, revision, out),
            (Wire::Registry { view, foundations }, Some(_)) => self.hear_registry(now_ms, &view, &foundations, out),
            (Wire::Leaving { group }, Some(from)) => self.answer_leaving(from, group, out),
            (Wire::MayLeave { group }, Some(_)) => self.leave(group, out),
            (Wire::Peer { group, message }, Some(from)) => {
                self.with(now_ms, group, out, |replica, now, out| replica.peer(now, from, message, out));
            }
            (Wire::Clock { wall_ms }, Some(from)) => {
                let tick = i64::try_from(self.tick_at(now_ms).0).unwrap_or(0);
                self.readings.insert(from, i64::try_from(wall_ms).unwrap_or(i64::MAX) - tick);
                self.adjust(now_ms, out);
            }
            (Wire::Submit { request, group, tx, wants_applied, caller }, None) => {
                if self.replicas.contains_key(&group) {
                    self.with(now_ms, group, out, |replica, now, out| {
                        if replica.admits(request, caller, out) {
                            replica.submit(now, request, tx, wants_applied, out);
                        }
                    });
                } else {
                    out.push(Effect::Answer(request, group, Reply::Refused(ledger::Reject::UnknownGroup)));
                }
            }
            (_, None) | (Wire::Engine { .. } | Wire::Submit { .. } | Wire::Answer { .. }, Some(_)) => {}
        }
    }
}
