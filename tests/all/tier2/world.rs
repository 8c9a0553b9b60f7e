//! A cluster of real hosts in one thread: turmoil's network and clocks under them, RocksDB in a
//! folder, and time that stands still while a disk works.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use beacon::assign::Constraints;
use beacon::genesis::first_committees;
use client::{Client, Profile, Sockets};
use cluster_sim::Scenario;
use cluster_sim::checkers::{Checker, Checkers, Moment, RawReplica, Seen, holds};
use cluster_sim::cluster::CREATED_MS;
use cluster_sim::config::Shape;
use cluster_sim::state;
use cluster_sim::workload;
use ledger::genesis::{Genesis, VerifyMode};
use ledger::{Engine, GroupId, Hash32, NodeId, TimeMs, schema};
use proto::v1;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use seamark_cli::setup::{Addresses, ClusterDir, ClusterLock, ClusterSpec, make_cluster, write_cluster};
use shard_node::server::local::Hosted;
use shard_node::server::{Machine, Node, NodeConfig, status};
use storage::{ResourceLimits, SharedResources};
use tempfile::TempDir;

use super::faults::{self, Fault, LATENCY_MIN, Planned};
use super::history::History;
use super::judge::{self, Copied};
use super::load::{self, Load};
use super::network::{BASE_PORT, SimSockets, SimWall, host_of};
use crate::support::cluster::{agreed, leader_of};

/// What passes between two looks at the simulation.
const TICK: Duration = Duration::from_millis(1);
/// The cluster has this long to start before the load begins.
const START_MS: u64 = 3_000;
/// How long each part of the phase without faults may take.
const LIVENESS_MS_MAX: u64 = 60_000;
/// Between two looks at whether a part is over, which copies no disk, and one that does.
const LOOK_MS: u64 = 20;
const LOOK_CLOSER_MS: u64 = 500;
/// Between two looks at what was applied. Replicas purge their logs behind snapshots.
const COLLECT_MS: u64 = 2;
/// Entries between two snapshots where a seed has them: often enough that who was gone needs one.
const SNAPSHOT_EVERY: u64 = 24;
/// How long after its deadline a register is kept.
const GRACE_MS: u64 = 60_000;
const CLIENTS: usize = 2;
const SHARDS: u32 = 2;
const TRANSACTIONS: std::ops::Range<usize> = 60..110;
const SAFETY_MS: std::ops::Range<u64> = 6_000..10_000;

/// Who runs, for the one who drives the simulation; nothing is kept alive by it.
type Running = Rc<RefCell<BTreeMap<NodeId, Weak<Hosted>>>>;

/// What a run was.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub nodes: usize,
    pub transactions: usize,
    /// What clients were told: commits of one group, commits of several, and the rest.
    pub fates: [usize; 3],
    pub faults: usize,
    pub crashes: usize,
    pub snapshots: usize,
    pub blocks: u64,
    pub terms: u64,
    pub virtual_ms: u64,
    pub seconds: f64,
}

/// How a run ended.
pub struct Ended {
    pub summary: Summary,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    pub genesis: Genesis,
    pub load: Rc<Load>,
    /// What all hosts had at the end.
    pub copies: Vec<Copied>,
    pub history: History,
}

pub struct World {
    sim: turmoil::Sim<'static>,
    genesis: Genesis,
    running: Running,
    load: Rc<Load>,
    wall: SimWall,
    /// What all wall clocks have been set forward by.
    leapt_ms: u64,
    hosts: Vec<String>,
    latency_max: Duration,
    plan: Vec<Planned>,
    safety_ms: u64,
    roles: Checkers,
    history: History,
    down: BTreeMap<NodeId, u64>,
    summary: Summary,
    started: Instant,
    root: PathBuf,
    _folder: TempDir,
}

fn make(rng: &mut ChaCha8Rng, seed: u64, nodes: u32, folder: &TempDir) -> (ClusterDir, Genesis) {
    let dir = ClusterDir::at(folder.path().join("cluster"));
    let lock = ClusterLock::acquire(&dir).unwrap();
    let verify = if seed % 4 == 3 { VerifyMode::Every } else { VerifyMode::Ingest };
    let spec = ClusterSpec {
        nodes,
        orgs: 3,
        shards: SHARDS,
        replicas: 3,
        verify: Some(verify),
        addresses: Addresses::Loopback { base_port: BASE_PORT },
        ..ClusterSpec::default()
    };
    let mut made = make_cluster(&spec).unwrap();
    // Keys are new in every run; who sits where follows from the seed, and so does the time.
    let drawn = Hash32(rng.random());
    let genesis = &mut made.genesis;
    genesis.seed = drawn;
    genesis.committees = first_committees(&drawn, &genesis.nodes, SHARDS, 3, 3, &Constraints::default()).unwrap();
    genesis.created_ms = TimeMs(CREATED_MS - 2 * START_MS);
    beacon::genesis::check(genesis).unwrap();
    write_cluster(&dir, &lock, &made).unwrap();
    (dir, made.genesis)
}

async fn host(config: NodeConfig, machine: Machine, running: Running) -> turmoil::Result {
    let node = config.node;
    let started = Box::pin(Node::start_on(config, machine)).await?;
    running.borrow_mut().insert(node, Arc::downgrade(started.hosted()));
    started.wait_stopped().await;
    Err("the node stopped by itself".into())
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (source, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if source.is_dir() {
            copy_folder(&source, &target);
        } else {
            std::fs::copy(&source, &target).unwrap();
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, several, none] = self.fates;
        write!(
            form,
            "{} nodes, {} operations: {one} committed by one group, {several} by several, {none} not; {} faults, \
             {} crashes, {} snapshots, {} blocks, term {}, {:.1} s virtual, {:.1} s",
            self.nodes,
            self.transactions,
            self.faults,
            self.crashes,
            self.snapshots,
            self.blocks,
            self.terms,
            std::time::Duration::from_millis(self.virtual_ms).as_secs_f64(),
            self.seconds
        )
    }
}

impl World {
    /// A cluster of a seed, that has not begun to start.
    pub fn new(seed: u64) -> Self {
        let started = Instant::now();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = rng.random_range(3..=5);
        let folder = tempfile::Builder::new().prefix("seamark-tier2-").tempdir().unwrap();
        let (dir, genesis) = make(&mut rng, seed, nodes, &folder);
        let latency_max = Duration::from_millis([2, 10, 40][rng.random_range(0..3)]);
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(rng.random())
            .epoch(std::time::UNIX_EPOCH + Duration::from_millis(CREATED_MS))
            .simulation_duration(Duration::from_secs(3_600))
            .tick_duration(TICK)
            .min_message_latency(LATENCY_MIN)
            .max_message_latency(latency_max)
            .tcp_capacity(4_096)
            .enable_random_order();
        let mut sim = builder.build();

        let resources = SharedResources::new(ResourceLimits::default()).unwrap();
        let (wall, running) = (SimWall::default(), Running::default());
        let sockets: Arc<dyn Sockets> = Arc::new(SimSockets);
        let ids: Vec<NodeId> = genesis.nodes.iter().map(|node| node.id).collect();
        for node in &ids {
            let machine =
                Machine { resources: resources.clone(), sockets: Arc::clone(&sockets), wall: Arc::new(wall.clone()) };
            let mut config = NodeConfig::load(&dir.node_config(*node)).unwrap();
            if seed.is_multiple_of(2) {
                config.snapshot_every = SNAPSHOT_EVERY;
            }
            let running = Rc::clone(&running);
            sim.host(host_of(*node), move || host(config.clone(), machine.clone(), Rc::clone(&running)));
        }
        let safety_ms = rng.random_range(SAFETY_MS);
        let shape = Shape {
            scenario: Scenario::Calm,
            nodes,
            beacon_replicas: 3,
            beacon: Engine::Raft,
            shard_replicas: vec![3; SHARDS as usize],
            byzantine: Vec::new(),
            switching: None,
            beacon_goes_over: false,
            reshaping: false,
            moving: false,
            coming_and_going: false,
            newcomers: 0,
            epochs: 0,
            renewing: false,
            ruling: false,
            // No host starts one.
            channels: 0,
            channel_engine: Engine::Raft,
            founding: false,
            money: 0,
            removals: 0,
            anchors: false,
            guarded: false,
            transactions: rng.random_range(TRANSACTIONS),
            safety_ms,
        };
        let load = Load::new(workload::make(&genesis, &shape, &mut rng).operations);
        let mut hosts: Vec<String> = ids.iter().map(|node| host_of(*node)).collect();
        for place in 0..CLIENTS {
            let mut profile = Profile::load(&dir.profile_path()).unwrap();
            let turns = place % profile.routers.len();
            profile.routers.rotate_left(turns);
            let (name, load, sockets) = (format!("client-{place}"), Rc::clone(&load), Arc::clone(&sockets));
            sim.client(name.as_str(), async move {
                load::run(load, Client::lazy_over(&profile, &sockets)?, place, CLIENTS).await
            });
            hosts.push(name);
        }
        let groups: Vec<GroupId> = genesis.committees.iter().map(|committee| committee.group).collect();
        let plan = faults::plan(&mut rng, &ids, &groups, safety_ms);
        let facts = judge::facts(&genesis, &load);
        let summary = Summary { nodes: ids.len(), transactions: load.operations.len(), ..Summary::default() };
        Self {
            sim,
            genesis,
            running,
            load,
            wall,
            leapt_ms: 0,
            hosts,
            latency_max,
            plan,
            safety_ms,
            roles: Checkers::new(facts),
            history: History::default(),
            root: dir.root().to_owned(),
            down: BTreeMap::new(),
            summary,
            started,
            _folder: folder,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).unwrap()
    }

    fn hosted(&self) -> Vec<Arc<Hosted>> {
        self.running.borrow().values().filter_map(Weak::upgrade).collect()
    }

    /// One tick of everything. No time passes while a log is being written: what was asked for in one
    /// tick is durable before the next.
    fn step(&mut self) {
        let nodes = self.hosted();
        for hosted in &nodes {
            if let Some(engine) = hosted.log.read().as_ref() {
                engine.wait_idle();
            }
        }
        drop(nodes);
        let now = self.now_ms();
        self.wall.set(i64::try_from(CREATED_MS - START_MS + now + self.leapt_ms).unwrap());
        if now >= START_MS {
            self.load.now_ms.set(Some(now - START_MS));
        }
        self.sim.step().unwrap_or_else(|error| panic!("at {now} ms: {error}"));
        if self.now_ms().is_multiple_of(COLLECT_MS) {
            self.hosted().iter().for_each(|hosted| self.history.collect(hosted));
        }
        if self.now_ms().is_multiple_of(LOOK_MS) {
            self.see_roles();
        }
    }

    fn see_roles(&mut self) {
        for hosted in self.hosted() {
            for (group, handle) in hosted.groups.read().iter() {
                let (node, role) = (hosted.context.node, handle.role());
                self.summary.terms = self.summary.terms.max(role.term);
                let (leads, stint, term) = (role.leads, role.stint, role.term);
                self.roles.see(&Seen::Role { node, group: *group, leads, stint, term });
                if let Some(why) = handle.stopped() {
                    panic!("{group} stopped on node {node}: {why}");
                }
            }
        }
    }

    fn status(&self) -> v1::StatusReply {
        // There are shards and a beacon, which are shown to anybody.
        let anybody = status::Asker { own: None, router: None, caller: None };
        v1::StatusReply {
            nodes: self.hosted().iter().map(|hosted| status::of_node(hosted, &anybody)).collect(),
            ..Default::default()
        }
    }

    fn copies(&self) -> Vec<Copied> {
        self.hosted().iter().flat_map(|hosted| judge::copy(hosted, &self.history)).collect()
    }

    /// What is held is what undecided transactions need, on every disk.
    fn audit(&mut self) {
        let copies = self.copies();
        let raw: Vec<RawReplica<'_>> = copies.iter().map(Copied::raw).collect();
        let mut found = Vec::new();
        holds::Holds.audit(self.roles.facts(), Moment::Passing, &raw, &mut found);
        assert!(found.is_empty(), "holds, at {} ms: {found:#?}", self.now_ms());
    }

    fn crash(&mut self, node: NodeId, until_ms: u64) {
        if self.down.contains_key(&node) {
            return;
        }
        self.sim.crash(host_of(node));
        let gone = self.running.borrow_mut().remove(&node);
        let left = gone.and_then(|hosted| hosted.upgrade());
        assert!(left.is_none(), "something of node {node} outlives its process");
        self.down.insert(node, until_ms);
        self.summary.crashes += 1;
    }

    fn return_those_due(&mut self, now_ms: u64) {
        let due: Vec<NodeId> = self.down.iter().filter(|(_, until)| **until <= now_ms).map(|(node, _)| *node).collect();
        for node in due {
            self.down.remove(&node);
            self.sim.bounce(host_of(node));
        }
    }

    /// The phase with faults.
    fn safety(&mut self) {
        let (mut plan, mut active) = (std::mem::take(&mut self.plan).into_iter().peekable(), Vec::<Planned>::new());
        loop {
            self.step();
            let Some(now) = self.now_ms().checked_sub(START_MS) else { continue };
            active.retain(|planned| {
                let over = planned.until_ms <= now;
                if over {
                    faults::set(&self.sim, &planned.fault, &self.hosts, self.latency_max, false);
                }
                !over
            });
            self.return_those_due(now);
            if now >= self.safety_ms {
                break;
            }
            while let Some(planned) = plan.next_if(|planned| planned.from_ms <= now) {
                tracing::info!(now, ?planned, "fault");
                self.summary.faults += 1;
                match planned.fault {
                    Fault::Down(node) => self.crash(node, planned.until_ms),
                    Fault::LeaderDown(group) => {
                        if let Some(node) = leader_of(&self.status(), group) {
                            self.crash(node, planned.until_ms);
                        }
                    }
                    ref fault => {
                        faults::set(&self.sim, fault, &self.hosts, self.latency_max, true);
                        active.push(planned);
                    }
                }
            }
            if now.is_multiple_of(LOOK_CLOSER_MS) {
                self.audit();
            }
        }
        assert!(active.is_empty() && self.down.is_empty(), "everything has healed: {active:?} {:?}", self.down);
    }

    /// Runs until there is nothing left of what has to come to an end.
    fn until(&mut self, what: &str, every_ms: u64, look: impl Fn(&Self) -> Result<(), String>) {
        let began = self.now_ms();
        loop {
            self.step();
            let now = self.now_ms();
            if !now.is_multiple_of(every_ms) {
                continue;
            }
            match look(self) {
                Ok(()) => return,
                Err(why) => assert!(now < began + LIVENESS_MS_MAX, "liveness: {what}: {why}"),
            }
        }
    }

    /// All clients know, all mail is acknowledged, all replicas stand at one certified block.
    fn drain(&mut self, what: &str) {
        self.until(what, LOOK_MS, |world| {
            let open = world.load.open();
            if !open.is_empty() {
                let first = world.load.story(open[0]);
                return Err(format!("operations {open:?} have no fate; {first}"));
            }
            let status = world.status();
            if status.nodes.len() != world.summary.nodes {
                return Err(format!("{} of {} nodes run", status.nodes.len(), world.summary.nodes));
            }
            world.genesis.committees.iter().try_for_each(|committee| agreed(&status, committee.group).map(drop))?;
            world.same_place()
        });
    }

    /// Whether all replicas of each group have applied the same entries: one that makes no block, as the first of a
    /// new leader, moves no height, and is in the state all the same.
    fn same_place(&self) -> Result<(), String> {
        let mut places = BTreeMap::new();
        for hosted in self.hosted() {
            for (group, handle) in hosted.groups.read().iter() {
                let here = handle.share.stand.lock().applied.consensus.position;
                let first = *places.entry(*group).or_insert(here);
                if first != here {
                    return Err(format!("replicas of {group} stand at {first:?} and at {here:?}"));
                }
            }
        }
        Ok(())
    }

    fn none_left(&mut self, what: &str, left: impl Fn(&Copied) -> usize) {
        self.until(what, LOOK_CLOSER_MS, |world| {
            let copies = world.copies();
            let rest = copies.iter().find_map(|copied| Some((copied, left(copied))).filter(|(_, left)| *left > 0));
            rest.map_or(Ok(()), |(copied, left)| Err(format!("{left} on node {} of {}", copied.node, copied.group)))
        });
    }

    /// Sets all wall clocks to just after this time.
    fn leap_to(&mut self, unix_ms: u64) {
        let now = CREATED_MS - START_MS + self.now_ms() + self.leapt_ms;
        self.leapt_ms += (unix_ms + 1).saturating_sub(now);
    }

    /// Runs the seed to its end.
    pub fn run(mut self) -> Ended {
        self.safety();
        self.finish()
    }

    /// Without its faults; instead, all processes die twice and have the second time what their disks
    /// held the first time. No cluster can stand that, and the checkers have to see it.
    pub fn run_with_disks_that_go_back(mut self) -> Ended {
        let kept = tempfile::tempdir().unwrap();
        let ids: Vec<NodeId> = self.genesis.nodes.iter().map(|node| node.id).collect();
        for (round, until) in [self.safety_ms / 2, self.safety_ms].into_iter().enumerate() {
            while self.now_ms() < START_MS + until {
                self.step();
            }
            ids.iter().for_each(|node| self.crash(*node, 0));
            let (root, copy) = (self.root.clone(), kept.path().join("disks"));
            if round == 0 {
                copy_folder(&root, &copy);
            } else {
                std::fs::remove_dir_all(&root).unwrap();
                copy_folder(&copy, &root);
            }
            self.return_those_due(0);
        }
        self.finish()
    }

    fn finish(mut self) -> Ended {
        self.drain("clients, mail and replicas after the faults");
        let in_time = self.load.operations.iter().filter(|operation| !operation.late);
        let deadline = in_time.map(|operation| operation.valid_until.0).max().unwrap_or(CREATED_MS);
        self.leap_to(deadline);
        self.none_left("undecided transactions after their deadlines", |copied| holds::undecided(&copied.raw()).len());
        self.leap_to(deadline + GRACE_MS);
        self.none_left("registers after the grace", |copied| {
            let register = |key: &[u8]| key.get(33) == Some(&schema::KIND_REGISTER);
            let registers = state::scan(&copied.kv, &[schema::STATE]).iter().filter(|(key, _)| register(key)).count();
            registers + state::scan(&copied.kv, &[schema::DEADLINE]).len()
        });
        self.load.late.set(true);
        self.drain("old transactions that come once more");
        let copies = self.copies();
        let mut violations = std::mem::take(&mut self.roles.violations);
        violations.extend(judge::judge(&self.genesis, &self.load, &copies, &self.history));
        for committee in &self.genesis.committees {
            self.summary.blocks += agreed(&self.status(), committee.group).unwrap_or(0);
        }
        self.summary.fates = self.load.fates();
        self.summary.snapshots = self.history.installed;
        self.summary.virtual_ms = self.now_ms();
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        let Self { summary, genesis, load, history, .. } = self;
        Ended { summary, violations, genesis, load, copies, history }
    }
}
