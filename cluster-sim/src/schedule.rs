//! The faults of a run, drawn from its seed before it starts.

use ledger::ids::{GroupId, NodeId};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::config::Shape;
use crate::network::Weather;

pub use crate::scenario::{NoSuchScenario, Scenario};

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The node with this number, modulo how many there are.
    Node(u32),
    /// The node that leads the group with this number at the time, modulo how many there are.
    LeaderOf(u32),
}

/// Which traffic a cut takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing passes.
    Both,
    /// The node hears nothing.
    In,
    /// The node is not heard.
    Out,
}

/// How a node fails as an anchor. Consensus of its groups goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorFault {
    /// It asks nobody for mail.
    PullsNothing,
    /// It answers nobody who asks.
    ServesNothing,
    /// It says that it serves, and sends nothing.
    OnlyPromises,
    /// It alters what it serves.
    Alters,
    /// It serves late.
    Slow(u64),
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node loses power for a while.
    Crash(Victim, u64),
    /// A node loses power for a while, in the middle of a write of its log.
    CrashWriting(Victim, u64),
    /// All nodes lose power for a while.
    PowerCut(u64),
    /// A node is cut off for a while.
    Isolate(Victim, Direction, u64),
    /// The network falls into two parts for a while; a bit for each node.
    Split(u32, u64),
    /// A node stands still for a while and then goes on as if nothing was.
    Stall(Victim, u64),
    /// A node's wall clock jumps.
    ClockJump(Victim, i64),
    /// The network behaves otherwise for a while.
    Weather(Weather, u64),
    /// One link is slow until the end of the phase: nodes, extra delay.
    SlowLink(u32, u32, u64),
    /// A node's log takes this long to write, for a while.
    SlowDisk(Victim, u64, u64),
    /// A node is no use as an anchor, for a while.
    Anchor(Victim, AnchorFault, u64),
    /// What the beacon sends is late by this much, or lost where there is no delay, for a while.
    BeaconLag(Option<u64>, u64),
    /// All machines are suspended at once and go on with clocks that are this far ahead.
    Leap(u64),
    /// An ended incarnation of one shard sends forged mail to another; both by number.
    Ghost(u32, u32),
    /// Two nodes do not hear each other for a while.
    Apart(NodeId, NodeId, u64),
    /// A group goes over to the other engine.
    Switch(GroupId),
    /// Somebody wants a shard cut, or two of them joined: which, is decided when the registry is first asked.
    Reshape,
    /// Somebody wants a seat of a shard moved.
    MoveSeat,
    /// Somebody wants a node to come or to go.
    ComeAndGo,
    /// A node is to have another signing key: which one, is decided when the registry is first asked.
    RenewKey,
    /// Somebody wants the organisations to decide something by another policy: what, is decided when the registry is first asked.
    Rule,
    /// A liar makes up a proof that an honest member has voted twice: of whom, is decided when the registry is asked.
    Slander,
}

/// Everything that is drawn before a run starts.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// What it is about.
    pub scenario: Scenario,
    /// The network where no fault changes it.
    pub weather: Weather,
    /// First clock error of each node.
    pub skews_ms: Vec<i64>,
    /// Greatest usual delay of a log write.
    pub sync_ms_max: u64,
    /// Times and faults.
    pub faults: Vec<(u64, Fault)>,
    /// A node that has no power from the end of the faults until everything has drained without it.
    pub absent: Option<Victim>,
    /// A node that stays as bad an anchor as this to the end of the run.
    pub bad_anchor: Option<(Victim, AnchorFault)>,
}

fn victim(rng: &mut ChaCha8Rng) -> Victim {
    let any = rng.random_range(0..64);
    if rng.random() { Victim::LeaderOf(any) } else { Victim::Node(any) }
}

fn bad_weather(rng: &mut ChaCha8Rng) -> Weather {
    Weather {
        delay_ms_min: 1,
        delay_ms_max: rng.random_range(4..40),
        loss_permille: rng.random_range(10..250),
        duplicate_permille: rng.random_range(10..200),
        reorder_permille: rng.random_range(10..300),
        reorder_ms_max: rng.random_range(10..400),
    }
}

fn direction(rng: &mut ChaCha8Rng) -> Direction {
    match rng.random_range(0..3) {
        0 => Direction::In,
        1 => Direction::Out,
        _ => Direction::Both,
    }
}

fn anchor_fault(rng: &mut ChaCha8Rng) -> AnchorFault {
    match rng.random_range(0..5) {
        0 => AnchorFault::PullsNothing,
        1 => AnchorFault::ServesNothing,
        2 => AnchorFault::OnlyPromises,
        3 => AnchorFault::Alters,
        _ => AnchorFault::Slow(rng.random_range(100..1_500)),
    }
}

impl Schedule {
    /// Draws the faults of a run.
    #[must_use]
    pub fn draw(shape: &Shape, rng: &mut ChaCha8Rng) -> Self {
        let scenario = shape.scenario;
        let weather = match scenario {
            Scenario::Calm | Scenario::Routers | Scenario::Minority => Weather::FAIR,
            Scenario::Lossy | Scenario::Storm => bad_weather(rng),
            Scenario::Crashes
            | Scenario::Leaders
            | Scenario::Partitions
            | Scenario::Disks
            | Scenario::Clocks
            | Scenario::Anchors
            | Scenario::Beacon
            | Scenario::Leaps
            | Scenario::Ghosts => Weather {
                loss_permille: 10,
                duplicate_permille: 20,
                reorder_permille: 20,
                reorder_ms_max: 60,
                ..Weather::FAIR
            },
        };
        let skew_max = if matches!(scenario, Scenario::Clocks | Scenario::Storm) { 400 } else { 20 };
        let skews_ms = (0..shape.nodes).map(|_| rng.random_range(-skew_max..=skew_max)).collect();
        let sync_ms_max = if scenario == Scenario::Disks { rng.random_range(10..60) } else { rng.random_range(2..12) };
        let count = match scenario {
            Scenario::Calm => 0,
            Scenario::Routers => rng.random_range(0..3),
            Scenario::Storm => rng.random_range(6..16),
            Scenario::Ghosts => rng.random_range(4..12),
            _ => rng.random_range(2..9),
        };
        let mut faults: Vec<(u64, Fault)> =
            (0..count).map(|_| (rng.random_range(200..shape.safety_ms.max(201)), fault(shape, rng))).collect();
        faults.sort_by_key(|(at, _)| *at);
        let absent = rng.random_range(0..8) == 0 || scenario == Scenario::Minority;
        let bad = rng.random_range(0..8) == 0 || scenario == Scenario::Anchors;
        let (absentee, anchor) = (victim(rng), Victim::Node(rng.random_range(0..64)));
        let kind = [AnchorFault::ServesNothing, AnchorFault::OnlyPromises, AnchorFault::Alters][rng.random_range(0..3)];
        // One bad node is what a group of three outlives, so it is one or the other.
        let bad_anchor = (bad && !absent && scenario != Scenario::Calm).then_some((anchor, kind));
        let absent = (absent && scenario != Scenario::Calm).then_some(absentee);
        Self { scenario, weather, skews_ms, sync_ms_max, faults, absent, bad_anchor }
    }
}

impl Schedule {
    /// Adds switches of a group's engine: so many, or as many as are drawn.
    pub(crate) fn switch(&mut self, group: GroupId, count: Option<u32>, shape: &Shape, rng: &mut ChaCha8Rng) {
        let drawn = rng.random_range(2..=4);
        let end = shape.safety_ms.max(401);
        for _ in 0..count.unwrap_or(drawn) {
            self.faults.push((rng.random_range(400..end), Fault::Switch(group)));
        }
    }
}

impl Schedule {
    /// Adds wishes to cut and join shards: so many, or as many as are drawn.
    pub(crate) fn reshape(&mut self, count: Option<u32>, shape: &Shape, rng: &mut ChaCha8Rng) {
        let drawn = rng.random_range(3..=6);
        // One that comes too late does not get to its end while faults happen.
        let end = (shape.safety_ms * 4 / 5).max(401);
        for _ in 0..count.unwrap_or(drawn) {
            self.faults.push((rng.random_range(400..end), Fault::Reshape));
        }
    }
}

impl Schedule {
    /// Adds wishes to move seats of shards: so many, or as many as are drawn.
    pub(crate) fn move_seats(&mut self, count: Option<u32>, shape: &Shape, rng: &mut ChaCha8Rng) {
        let drawn = rng.random_range(3..=6);
        let end = (shape.safety_ms * 4 / 5).max(401);
        for _ in 0..count.unwrap_or(drawn) {
            self.faults.push((rng.random_range(400..end), Fault::MoveSeat));
        }
    }
}

impl Schedule {
    /// Adds wishes about nodes that come and go: so many, or as many as are drawn.
    pub(crate) fn come_and_go(&mut self, count: Option<u32>, shape: &Shape, rng: &mut ChaCha8Rng) {
        let drawn = rng.random_range(5..=9);
        let end = (shape.safety_ms * 4 / 5).max(401);
        for _ in 0..count.unwrap_or(drawn) {
            self.faults.push((rng.random_range(400..end), Fault::ComeAndGo));
        }
    }
}

impl Schedule {
    /// Adds wishes to replace signing keys of nodes: so many, or as many as are drawn.
    pub(crate) fn renew_keys(&mut self, count: Option<u32>, shape: &Shape, rng: &mut ChaCha8Rng) {
        let drawn = rng.random_range(5..=9);
        let end = (shape.safety_ms * 4 / 5).max(401);
        for _ in 0..count.unwrap_or(drawn) {
            self.faults.push((rng.random_range(400..end), Fault::RenewKey));
        }
    }
}

impl Schedule {
    /// Adds wishes for other policies of the cluster: so many, or as many as are drawn.
    pub(crate) fn rule(&mut self, count: Option<u32>, shape: &Shape, rng: &mut ChaCha8Rng) {
        let drawn = rng.random_range(3..=6);
        let end = (shape.safety_ms * 4 / 5).max(401);
        for _ in 0..count.unwrap_or(drawn) {
            self.faults.push((rng.random_range(400..end), Fault::Rule));
        }
    }
}

impl Schedule {
    /// Adds proofs that liars make up, where the beacon takes seats for a proof.
    pub(crate) fn slander(&mut self, shape: &Shape, rng: &mut ChaCha8Rng) {
        let end = shape.safety_ms.max(401);
        for _ in 0..rng.random_range(2..=5) {
            self.faults.push((rng.random_range(400..end), Fault::Slander));
        }
    }
}

fn fault(shape: &Shape, rng: &mut ChaCha8Rng) -> Fault {
    let lasts = rng.random_range(60..1_500);
    let kind = match shape.scenario {
        Scenario::Calm | Scenario::Lossy | Scenario::Routers => [6, 7][rng.random_range(0..2)],
        Scenario::Crashes => [0, 12, 12, 1][rng.random_range(0..4)],
        Scenario::Leaders => [8, 9, 10, 13][rng.random_range(0..4)],
        Scenario::Partitions => [2, 3, 3, 7][rng.random_range(0..4)],
        Scenario::Disks => [12, 1, 11, 11][rng.random_range(0..4)],
        Scenario::Clocks => [0, 4, 5, 5][rng.random_range(0..4)],
        Scenario::Anchors => [14, 14, 14, 2][rng.random_range(0..4)],
        Scenario::Beacon => [15, 15, 0][rng.random_range(0..3)],
        Scenario::Leaps => [16, 16, 3, 2][rng.random_range(0..4)],
        Scenario::Ghosts => [17, 17, 17, 8][rng.random_range(0..4)],
        Scenario::Minority => [0, 4, 2][rng.random_range(0..3)],
        Scenario::Storm => rng.random_range(0..18),
    };
    let leader = Victim::LeaderOf(rng.random_range(0..64));
    match kind {
        0 => Fault::Crash(victim(rng), lasts),
        1 => Fault::PowerCut(lasts / 2),
        2 => Fault::Isolate(victim(rng), direction(rng), lasts),
        3 => Fault::Split(rng.random_range(1..1 << shape.nodes.min(31)), lasts),
        4 => Fault::Stall(victim(rng), lasts),
        5 => Fault::ClockJump(victim(rng), rng.random_range(-3_000..3_000)),
        6 => Fault::Weather(bad_weather(rng), lasts),
        7 => Fault::SlowLink(rng.random_range(0..64), rng.random_range(0..64), rng.random_range(20..200)),
        8 => Fault::Crash(leader, lasts),
        9 => Fault::Isolate(leader, direction(rng), lasts),
        10 => Fault::Stall(leader, lasts),
        12 => Fault::CrashWriting(victim(rng), lasts),
        13 => Fault::CrashWriting(leader, lasts),
        14 => Fault::Anchor(victim(rng), anchor_fault(rng), lasts),
        15 => Fault::BeaconLag(rng.random::<bool>().then(|| rng.random_range(50..600)), 2 * lasts),
        16 => Fault::Leap([400, 3_000, 20_000, 90_000, 200_000][rng.random_range(0..5)]),
        17 => Fault::Ghost(rng.random_range(0..64), rng.random_range(0..64)),
        _ => Fault::SlowDisk(victim(rng), rng.random_range(50..400), lasts),
    }
}
