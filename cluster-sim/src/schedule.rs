//! The faults of a run, drawn from its seed before it starts.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::config::SimConfig;
use crate::network::Weather;

/// What kind of trouble a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Nothing goes wrong.
    Calm,
    /// Loss, repetition and reordering.
    Lossy,
    /// Nodes lose power, one by one or all together.
    Crashes,
    /// Leaders are cut off, stopped and killed.
    Leaders,
    /// The network falls apart, in one direction or both.
    Partitions,
    /// Disks are slow, and power goes while they are.
    Disks,
    /// Clocks are wrong and jump.
    Clocks,
    /// All of it.
    Storm,
}

impl Scenario {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Calm,
        Self::Lossy,
        Self::Crashes,
        Self::Leaders,
        Self::Partitions,
        Self::Disks,
        Self::Clocks,
        Self::Storm,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Lossy => "lossy",
            Self::Crashes => "crashes",
            Self::Leaders => "leaders",
            Self::Partitions => "partitions",
            Self::Disks => "disks",
            Self::Clocks => "clocks",
            Self::Storm => "storm",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchScenario(pub String);

impl fmt::Display for NoSuchScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        write!(f, "there is no scenario '{}'; use one of: {}", self.0, names.join(", "))
    }
}

impl std::error::Error for NoSuchScenario {}

impl FromStr for Scenario {
    type Err = NoSuchScenario;

    fn from_str(text: &str) -> Result<Self, NoSuchScenario> {
        Self::ALL
            .iter()
            .find(|scenario| scenario.name() == text)
            .copied()
            .ok_or_else(|| NoSuchScenario(text.to_owned()))
    }
}

/// Whom a fault hits. Indices are taken modulo what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A node.
    Node(u32),
    /// The leader of a group at that time, or the node with the group's index if there is none.
    LeaderOf(u32),
}

/// Directions of a cut around a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing passes.
    Both,
    /// The node hears nothing.
    In,
    /// The node is not heard.
    Out,
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

impl Schedule {
    /// Draws the faults of a run.
    #[must_use]
    pub fn draw(config: &SimConfig, rng: &mut ChaCha8Rng) -> Self {
        let drawn = Scenario::ALL[rng.random_range(0..Scenario::ALL.len())];
        let scenario = config.scenario.unwrap_or(drawn);
        let weather = match scenario {
            Scenario::Calm => Weather::FAIR,
            Scenario::Lossy | Scenario::Storm => bad_weather(rng),
            Scenario::Crashes | Scenario::Leaders | Scenario::Partitions | Scenario::Disks | Scenario::Clocks => {
                Weather {
                    loss_permille: 10,
                    duplicate_permille: 20,
                    reorder_permille: 20,
                    reorder_ms_max: 60,
                    ..Weather::FAIR
                }
            }
        };
        let skew_max = if matches!(scenario, Scenario::Clocks | Scenario::Storm) { 400 } else { 20 };
        let skews_ms = (0..config.nodes).map(|_| rng.random_range(-skew_max..=skew_max)).collect();
        let sync_ms_max = if scenario == Scenario::Disks { rng.random_range(10..60) } else { rng.random_range(2..12) };
        let count = match scenario {
            Scenario::Calm => 0,
            Scenario::Storm => rng.random_range(6..16),
            _ => rng.random_range(2..9),
        };
        let mut faults: Vec<(u64, Fault)> = (0..count)
            .map(|_| (rng.random_range(200..config.safety_ms.max(201)), fault(scenario, config, rng)))
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        Self { scenario, weather, skews_ms, sync_ms_max, faults }
    }
}

fn fault(scenario: Scenario, config: &SimConfig, rng: &mut ChaCha8Rng) -> Fault {
    let lasts = rng.random_range(60..1_500);
    let kind = match scenario {
        Scenario::Calm | Scenario::Lossy => [6, 7][rng.random_range(0..2)],
        Scenario::Crashes => [0, 12, 12, 1][rng.random_range(0..4)],
        Scenario::Leaders => [8, 9, 10, 13][rng.random_range(0..4)],
        Scenario::Partitions => [2, 3, 3, 7][rng.random_range(0..4)],
        Scenario::Disks => [12, 1, 11, 11][rng.random_range(0..4)],
        Scenario::Clocks => [0, 4, 5, 5][rng.random_range(0..4)],
        Scenario::Storm => rng.random_range(0..14),
    };
    let leader = Victim::LeaderOf(rng.random_range(0..64));
    match kind {
        0 => Fault::Crash(victim(rng), lasts),
        1 => Fault::PowerCut(lasts / 2),
        2 => Fault::Isolate(victim(rng), direction(rng), lasts),
        3 => Fault::Split(rng.random_range(1..1 << config.nodes.min(31)), lasts),
        4 => Fault::Stall(victim(rng), lasts),
        5 => Fault::ClockJump(victim(rng), rng.random_range(-3_000..3_000)),
        6 => Fault::Weather(bad_weather(rng), lasts),
        7 => Fault::SlowLink(rng.random_range(0..64), rng.random_range(0..64), rng.random_range(20..200)),
        8 => Fault::Crash(leader, lasts),
        9 => Fault::Isolate(leader, direction(rng), lasts),
        10 => Fault::Stall(leader, lasts),
        12 => Fault::CrashWriting(victim(rng), lasts),
        13 => Fault::CrashWriting(leader, lasts),
        _ => Fault::SlowDisk(victim(rng), rng.random_range(50..400), lasts),
    }
}
