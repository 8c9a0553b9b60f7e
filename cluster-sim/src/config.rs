//! What a simulation is asked to do, besides its seed, and the shape that a seed gives to the rest.

use ledger::committee::Engine;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::council::LENGTH_MS;
use crate::liars::Lie;
use crate::sabotage::Sabotage;
use crate::schedule::Scenario;
use crate::seating::Moving;

/// What is fixed for a run; everything else is drawn from its seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimConfig {
    /// The kind of faults.
    pub scenario: Option<Scenario>,
    /// Shards, from 1 to [`SHARDS_MAX`].
    pub shards: Option<u32>,
    /// Replicas of every group. By itself each group has 3 or 5.
    pub replicas: Option<u16>,
    /// Nodes of the cluster.
    pub nodes: Option<u32>,
    /// Transactions of the load, besides what sets the ledger up.
    pub transactions: Option<usize>,
    /// Length of the phase with faults, in virtual milliseconds.
    pub safety_ms: Option<u64>,
    /// Whether shards are Byzantine: all, or none. By itself one or two are in every fifth run.
    pub consensus: Option<Engine>,
    /// What orders the beacon. By itself it is Byzantine in some runs.
    pub beacon: Option<Engine>,
    /// How often a shard goes over to the other engine. By itself one does in some runs, some times.
    pub switches: Option<u32>,
    /// How often somebody asks for shards to be cut or joined. By itself some do in some runs.
    pub reshapes: Option<u32>,
    /// How often somebody asks for a seat of a shard to be moved, in runs in which shards are cut and joined. By itself some do
    /// in half of these.
    pub moves: Option<u32>,
    /// How often an organisation wants a node to come or to go, in runs in which shards are cut and joined. By itself some do in
    /// some of these.
    pub comings: Option<u32>,
    /// How many epochs of the beacon the phase with faults has room for. By itself there are some in some runs.
    pub epochs: Option<u32>,
    /// How often a node is to have another signing key. By itself some do in some runs.
    pub keys: Option<u32>,
    /// How often somebody wants the organisations to decide by another policy. By itself somebody does in some runs.
    pub policies: Option<u32>,
    /// How many transactions there are about the channel that is founded while the cluster runs, besides those that bring value
    /// into it; with any there is such a channel. By itself there are none.
    pub money: Option<u32>,
    /// How many members of Byzantine shards vote twice and lose all their seats for it. By itself none do. Shards are
    /// Byzantine in such a run unless [`SimConfig::consensus`] says otherwise; none is cut or joined, no seat is moved
    /// by command and no other node comes or goes but where that is asked for, too.
    pub removals: Option<u32>,
    /// The way in which members of Byzantine groups lie.
    pub lie: Option<Lie>,
    /// More members lie, and together, than a Byzantine group outlives. The run goes on whatever is found, and its
    /// violations are what was found.
    pub too_many: bool,
    /// A bug to put into the shell.
    pub sabotage: Option<Sabotage>,
}

/// The most shards of a simulated cluster.
pub const SHARDS_MAX: u32 = 8;
/// The most channels of a simulated cluster.
pub const CHANNELS_MAX: u32 = 2;
/// Nodes that it takes to found a channel.
const FOUNDING_NODES_MIN: u32 = 5;
/// By so much a run in which shards are cut and joined is longer, unless its length is fixed.
const RESHAPING_MS: u64 = 4_000;
/// Nodes that may be registered in a run in which nodes come and go.
const NEWCOMERS: u32 = 2;
/// Epochs that a run has room for that has some.
const EPOCHS: u32 = 2;
/// By so much such a run is longer for each, unless its length is fixed: an epoch, and what it may be late by.
const EPOCH_MS: u64 = LENGTH_MS + 200;
/// A run with more events than this goes in circles.
pub const EVENTS_MAX: u64 = 3_000_000;
/// How long each part of the phase without faults may take, in virtual milliseconds.
pub const LIVENESS_MS_MAX: u64 = 60_000;
/// Lines of the event log that a report with a violation carries.
pub const TAIL_LINES: usize = 60;

/// The shape of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The kind of faults.
    pub scenario: Scenario,
    /// Nodes of the cluster.
    pub nodes: u32,
    /// Replicas of the beacon.
    pub beacon_replicas: u16,
    /// What orders it.
    pub beacon: Engine,
    /// Replicas of each shard.
    pub shard_replicas: Vec<u16>,
    /// Which of them are Byzantine, by number.
    pub byzantine: Vec<u32>,
    /// The one that goes over from one engine to the other, if any, by number.
    pub switching: Option<u32>,
    /// Whether the beacon goes over from one engine to the other.
    pub beacon_goes_over: bool,
    /// Whether shards are cut and joined while the cluster runs.
    pub reshaping: bool,
    /// Whether seats of shards move meanwhile, and shards of different nodes are joined.
    pub moving: bool,
    /// Whether nodes come and go meanwhile. Seats move then.
    pub coming_and_going: bool,
    /// Nodes that are there and not registered.
    pub newcomers: u32,
    /// Whether signing keys of nodes are replaced while the cluster runs.
    pub renewing: bool,
    /// Whether the cluster comes to decide by other policies while it runs.
    pub ruling: bool,
    /// Members of Byzantine shards whose nodes are to lose all their seats, because they vote twice.
    pub removals: u32,
    /// Epochs of the beacon that the phase with faults has room for; with none there are no epochs.
    pub epochs: u32,
    /// Channels, from 0 to [`CHANNELS_MAX`].
    pub channels: u32,
    /// What orders those that there are from the beginning.
    pub channel_engine: Engine,
    /// Whether one more is founded while the cluster runs, whose committee follows its members.
    pub founding: bool,
    /// Transactions about that one, besides those that bring value into it; with none it has no money.
    pub money: u32,
    /// Whether channels have anchors from the beginning, the first node of each organisation.
    pub anchors: bool,
    /// Whether hosts keep from nodes of organisations that a founded channel has excluded what comes after, and clients
    /// show certificates, which are revoked while they are in use.
    pub guarded: bool,
    /// Transactions of the load.
    pub transactions: usize,
    /// Length of the phase with faults, in virtual milliseconds.
    pub safety_ms: u64,
}

impl Shape {
    /// Whose seats move. Those of the beacon do when nodes come and go; of one that is Byzantine from the beginning only where
    /// shards are, too, and their seats move.
    pub(crate) fn movable(&self) -> Moving {
        let byzantine = self.moving && !self.byzantine.is_empty() && !self.beacon_goes_over;
        let beacon = self.coming_and_going && (byzantine || self.beacon == Engine::Raft);
        Moving { shards: self.moving, beacon, byzantine }
    }
}

impl SimConfig {
    /// The shape that a run has, as far as it is not fixed drawn.
    #[must_use]
    pub fn shape(&self, rng: &mut ChaCha8Rng) -> Shape {
        // Everything is drawn, whether it is used or not: to fix one thing changes nothing else.
        let drawn = Scenario::ALL[rng.random_range(0..Scenario::ALL.len())];
        let shards = [1, 2, 2, 3, 3, 4, 5, 6, 8][rng.random_range(0..9)];
        let mixed: u32 = rng.random_range(0..3);
        let count = self.shards.unwrap_or(shards).clamp(1, SHARDS_MAX);
        let mut replicas = || {
            let any = if rng.random() { 3 } else { 5 };
            // Most clusters are of one kind, some are mixed.
            let usual = [3, 3, any][mixed as usize];
            self.replicas.unwrap_or(usual)
        };
        let beacon_replicas = replicas();
        let mut shard_replicas: Vec<u16> = (0..SHARDS_MAX).map(|_| replicas()).take(count as usize).collect();
        let spare = rng.random_range(0..4);
        let transactions = rng.random_range(60..120);
        let safety_ms = rng.random_range(3_000..6_000);
        let channels = rng.random_range(0..=CHANNELS_MAX);
        let founding = rng.random_range(0..3) > 0;
        let (shards, wide) = (self.byzantine_shards(rng, count), rng.random_range(0..6) == 0);
        let byzantine = if self.holds_byzantine() { shards } else { Vec::new() };
        for shard in &byzantine {
            let drawn = if wide && *shard == 0 && self.nodes.is_none_or(|nodes| nodes >= 7) { 7 } else { 4 };
            shard_replicas[*shard as usize] = self.replicas.unwrap_or(drawn);
        }
        let widest = u32::from(shard_replicas.iter().copied().max().unwrap_or(3).max(beacon_replicas));
        let nodes = self.nodes.unwrap_or((widest + spare).max(5));
        Shape {
            scenario: self.scenario.unwrap_or(drawn),
            nodes,
            beacon_replicas,
            beacon: Engine::Raft,
            shard_replicas,
            byzantine,
            switching: None,
            beacon_goes_over: false,
            reshaping: false,
            moving: false,
            coming_and_going: false,
            newcomers: 0,
            renewing: false,
            ruling: false,
            removals: 0,
            epochs: 0,
            channels,
            channel_engine: Engine::Raft,
            // With fewer nodes its two founders would have no seat to spare.
            founding: founding && nodes >= FOUNDING_NODES_MIN,
            money: 0,
            anchors: false,
            guarded: false,
            transactions: self.transactions.unwrap_or(transactions),
            safety_ms: self.safety_ms.unwrap_or(safety_ms),
        }
    }

    /// The shape of a seed's run.
    #[must_use]
    pub(crate) fn shape_of(&self, seed: u64, rng: &mut ChaCha8Rng) -> Shape {
        let mut shape = self.shape(rng);
        self.add_later(seed, &mut shape);
        shape
    }

    /// What runs did not have from the beginning. It goes by the seed's number, and nothing is drawn for it, so that the
    /// runs of other seeds stay what they were.
    fn add_later(&self, seed: u64, shape: &mut Shape) {
        let least = Engine::Bft.least_members();
        let consensus = self.ordered_by();
        let reshapes = self.reshapes.is_some_and(|count| count > 0) && consensus.is_none();
        if reshapes && self.switches.is_none() {
            // Those that are cut and joined are ordered by Raft, unless somebody asks for the other engine.
            shape.byzantine.clear();
        }
        let switches = self.switches.map_or(seed % 7 < 2 && consensus.is_none() && !reshapes, |count| count > 0);
        if switches && !self.too_many {
            let wide = |seats: &u16| usize::from(*seats) >= least;
            if self.switches.is_some() && !shape.shard_replicas.iter().any(wide) && shape.nodes as usize >= least {
                shape.shard_replicas[0] = u16::try_from(least).unwrap_or(u16::MAX);
            }
            let place = shape.shard_replicas.iter().position(wide);
            shape.switching = place.and_then(|place| u32::try_from(place).ok());
        }
        shape.anchors = seed % 5 == 1;
        shape.guarded = seed % 11 == 2;
        let some = seed % 7 == 6 && consensus.is_none();
        let beacon = self.beacon.unwrap_or(if some { Engine::Bft } else { Engine::Raft });
        if beacon == Engine::Bft && self.holds_byzantine() {
            shape.beacon = Engine::Bft;
            shape.beacon_replicas = shape.beacon_replicas.max(u16::try_from(least).unwrap_or(u16::MAX));
        }
        if some && seed.is_multiple_of(2) && shape.nodes as usize >= least {
            shape.channel_engine = Engine::Bft;
        }
        // In runs in which no shard does, and where nothing is said of engines.
        let free = consensus.is_none() && self.beacon.is_none() && self.switches.is_none();
        // A bug that was put back meets the runs that it has met before.
        let usual = self.sabotage.is_none() && !self.too_many;
        if seed % 14 == 9 && free && usual && self.holds_byzantine() {
            shape.beacon_goes_over = true;
            shape.beacon_replicas = shape.beacon_replicas.max(u16::try_from(least).unwrap_or(u16::MAX));
        }
        let own = matches!(seed % 20, 6 | 11 | 15 | 16) && consensus.is_none();
        let reshapes = self.reshapes.map_or(own, |count| count > 0);
        // Not while a shard changes its engine; the beacon may. Byzantine ones are cut and joined where all are, or where a seed
        // has them by itself, which no bug that was put back has met before.
        let own = usual && self.reshapes.is_none();
        let orders = shape.byzantine.is_empty() || consensus == Some(Engine::Bft) || own;
        let removes = self.removes() && !shape.byzantine.is_empty();
        if (reshapes || removes) && shape.switching.is_none() && orders && !self.too_many {
            shape.reshaping = true;
            if self.safety_ms.is_none() {
                shape.safety_ms += RESHAPING_MS;
            }
            let own = usual && matches!(seed % 20, 6 | 15);
            shape.moving = self.moves.map_or(own, |count| count > 0);
            let own = usual && self.moves.is_none() && seed % 20 == 16;
            if self.comings.map_or(own, |count| count > 0) {
                (shape.moving, shape.coming_and_going, shape.newcomers) = (true, true, NEWCOMERS);
            }
            if removes {
                self.add_removals(shape);
            }
        }
        let own = if seed % 8 == 3 && usual && self.safety_ms.is_none() { EPOCHS } else { 0 };
        if !self.too_many {
            shape.epochs = self.epochs.unwrap_or(own);
        }
        if self.safety_ms.is_none() {
            shape.safety_ms += u64::from(shape.epochs) * EPOCH_MS;
        }
        self.add_keys(seed, usual, shape);
        self.add_money(shape);
    }

    /// What there is to do with money in the channel that is founded meanwhile. Where somebody asks for it such a channel is
    /// founded, if there are the nodes for it.
    fn add_money(&self, shape: &mut Shape) {
        shape.founding |= self.money.is_some_and(|count| count > 0) && shape.nodes >= FOUNDING_NODES_MIN;
        if shape.founding && !self.too_many {
            shape.money = self.money.unwrap_or(0);
        }
    }

    /// Whoever votes twice loses its seats, those of the beacon among them. A channel keeps its nodes until its members
    /// name others, which nobody does here, so there are none.
    fn add_removals(&self, shape: &mut Shape) {
        shape.removals = self.removals.unwrap_or(0);
        (shape.moving, shape.coming_and_going, shape.newcomers) = (true, true, NEWCOMERS);
        (shape.channels, shape.founding) = (0, false);
    }

    /// Whether somebody asks for members that lose their seats because they vote twice.
    fn removes(&self) -> bool {
        self.removals.is_some_and(|count| count > 0) && !self.too_many
    }

    /// What orders all shards, where that is said: where members are to vote twice, the engine under which they can.
    fn ordered_by(&self) -> Option<Engine> {
        self.consensus.or(self.removes().then_some(Engine::Bft))
    }

    /// Whether keys of nodes are replaced, and policies of the cluster; by itself both in the same runs. A channel of the
    /// genesis keeps the committee that it began with, and so do its nodes their keys: by itself a run with such channels has
    /// no keys replaced, and one that is asked to has no such channels.
    fn add_keys(&self, seed: u64, usual: bool, shape: &mut Shape) {
        let free =
            self.ordered_by().is_none() && self.beacon.is_none() && self.switches.is_none() && self.reshapes.is_none();
        let stays = shape.channels == 0 && shape.switching.is_none() && !shape.beacon_goes_over;
        let own = usual && free && stays && matches!(seed % 6, 0 | 2);
        shape.ruling = self.policies.map_or(own, |count| count > 0) && !self.too_many;
        shape.renewing = self.keys.map_or(own, |count| count > 0) && !self.too_many;
        if shape.renewing {
            shape.channels = 0;
        }
    }

    /// Which shards are Byzantine. Everything is drawn, whether it is used or not.
    fn byzantine_shards(&self, rng: &mut ChaCha8Rng, count: u32) -> Vec<u32> {
        let (some, both) = (rng.random_range(0..5) == 0, rng.random_range(0..3) == 0);
        match self.ordered_by() {
            Some(Engine::Raft) => Vec::new(),
            Some(Engine::Bft) => (0..count).collect(),
            None if some => (0..count).take(if both { 2 } else { 1 }).collect(),
            None => Vec::new(),
        }
    }

    /// Whether what is fixed leaves a Byzantine group the members that it needs.
    fn holds_byzantine(&self) -> bool {
        let least = Engine::Bft.least_members();
        self.replicas.is_none_or(|replicas| usize::from(replicas) >= least)
            && self.nodes.is_none_or(|nodes| nodes as usize >= least)
    }

    /// The flags of `seamark sim` that give this configuration.
    #[must_use]
    pub fn flags(&self) -> String {
        let mut flags = String::new();
        if let Some(scenario) = self.scenario {
            flags.push_str(&format!(" --scenario {scenario}"));
        }
        if let Some(engine) = self.consensus {
            flags.push_str(&format!(" --consensus {engine}"));
        }
        if let Some(engine) = self.beacon {
            flags.push_str(&format!(" --beacon-consensus {engine}"));
        }
        if let Some(lie) = self.lie {
            flags.push_str(&format!(" --lie {lie}"));
        }
        for (flag, value) in [
            ("--shards", self.shards.map(u64::from)),
            ("--replicas", self.replicas.map(u64::from)),
            ("--nodes", self.nodes.map(u64::from)),
            ("--transactions", self.transactions.map(|count| count as u64)),
            ("--safety-ms", self.safety_ms),
            ("--switches", self.switches.map(u64::from)),
            ("--reshapes", self.reshapes.map(u64::from)),
            ("--moves", self.moves.map(u64::from)),
            ("--comings", self.comings.map(u64::from)),
            ("--epochs", self.epochs.map(u64::from)),
            ("--keys", self.keys.map(u64::from)),
            ("--policies", self.policies.map(u64::from)),
            ("--money", self.money.map(u64::from)),
            ("--removals", self.removals.map(u64::from)),
        ] {
            if let Some(value) = value {
                flags.push_str(&format!(" {flag} {value}"));
            }
        }
        flags
    }

    /// The command that repeats a run of this configuration.
    #[must_use]
    pub fn command(&self, seed: u64) -> String {
        format!("seamark sim --seed {seed}{}", self.flags())
    }

    /// Reads a line of flags, `--seed` among them, as [`SimConfig::command`] writes them.
    ///
    /// # Errors
    /// A text that names the flag.
    pub fn parse(line: &str) -> Result<(u64, Self), String> {
        let (mut config, mut seed) = (Self::default(), None);
        let mut words = line.split_whitespace().skip_while(|word| !word.starts_with("--"));
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
            let wrong = || format!("{flag} cannot be '{value}'");
            match flag {
                "--seed" => seed = Some(value.parse().map_err(|_| wrong())?),
                "--scenario" => config.scenario = Some(value.parse().map_err(|_| wrong())?),
                "--consensus" => config.consensus = Some(engine(value).ok_or_else(wrong)?),
                "--beacon-consensus" => config.beacon = Some(engine(value).ok_or_else(wrong)?),
                "--lie" => config.lie = Some(value.parse().map_err(|_| wrong())?),
                "--switches" => config.switches = Some(value.parse().map_err(|_| wrong())?),
                "--reshapes" => config.reshapes = Some(value.parse().map_err(|_| wrong())?),
                "--moves" => config.moves = Some(value.parse().map_err(|_| wrong())?),
                "--comings" => config.comings = Some(value.parse().map_err(|_| wrong())?),
                "--epochs" => config.epochs = Some(value.parse().map_err(|_| wrong())?),
                "--keys" => config.keys = Some(value.parse().map_err(|_| wrong())?),
                "--policies" => config.policies = Some(value.parse().map_err(|_| wrong())?),
                "--money" => config.money = Some(value.parse().map_err(|_| wrong())?),
                "--removals" => config.removals = Some(value.parse().map_err(|_| wrong())?),
                "--shards" => config.shards = Some(value.parse().map_err(|_| wrong())?),
                "--replicas" => config.replicas = Some(value.parse().map_err(|_| wrong())?),
                "--nodes" => config.nodes = Some(value.parse().map_err(|_| wrong())?),
                "--transactions" => config.transactions = Some(value.parse().map_err(|_| wrong())?),
                "--safety-ms" => config.safety_ms = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(format!("there is no flag {flag}")),
            }
        }
        Ok((seed.ok_or("a run needs a --seed")?, config))
    }
}

/// The engine of a name.
fn engine(name: &str) -> Option<Engine> {
    [Engine::Raft, Engine::Bft].into_iter().find(|engine| engine.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_command_says_all_there_is_to_say() {
        let config = SimConfig {
            scenario: Some(Scenario::Storm),
            shards: Some(4),
            replicas: Some(5),
            nodes: Some(7),
            transactions: Some(10),
            safety_ms: Some(2_000),
            consensus: Some(Engine::Bft),
            beacon: Some(Engine::Raft),
            switches: Some(2),
            reshapes: Some(3),
            moves: Some(2),
            comings: Some(4),
            epochs: Some(1),
            keys: Some(6),
            policies: Some(5),
            money: Some(9),
            removals: Some(1),
            lie: Some(Lie::Twins),
            too_many: false,
            sabotage: None,
        };
        assert_eq!(SimConfig::parse(&config.command(17)), Ok((17, config)));
        assert_eq!(SimConfig::parse(&SimConfig::default().command(3)), Ok((3, SimConfig::default())));
        for wrong in ["--seed", "--seed x", "--scenario calm", "--seed 1 --colour 3"] {
            assert!(SimConfig::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn to_fix_one_thing_changes_nothing_else() {
        let draw = |config: &SimConfig| config.shape(&mut ChaCha8Rng::seed_from_u64(5));
        let (free, fixed) =
            (draw(&SimConfig::default()), draw(&SimConfig { scenario: Some(Scenario::Calm), ..SimConfig::default() }));
        assert_eq!(fixed, Shape { scenario: Scenario::Calm, ..free });
    }

    #[test]
    fn some_runs_have_anchors_and_nothing_else_of_them_is_another() {
        for seed in 0..20 {
            let config = SimConfig { switches: Some(0), ..SimConfig::default() };
            let shape = config.shape_of(seed, &mut ChaCha8Rng::seed_from_u64(seed));
            assert_eq!(shape.anchors, seed % 5 == 1);
        }
    }

    #[test]
    fn hosts_guard_in_some_runs_and_in_none_that_is_kept() {
        let guarded = |config: &SimConfig, seed| config.shape_of(seed, &mut ChaCha8Rng::seed_from_u64(seed)).guarded;
        let kept =
            include_str!("../tests/regressions/seeds.txt").lines().map(|line| line.split('#').next().unwrap_or(""));
        for line in kept.filter(|flags| flags.contains("--seed")) {
            let (seed, config) = SimConfig::parse(line).expect("flags of seamark sim");
            assert!(!guarded(&config, seed), "{line}: the run is another one than what was kept");
        }
        assert!((0..200).filter(|seed| guarded(&SimConfig::default(), *seed)).count() > 10);
    }

    #[test]
    fn in_some_runs_the_beacon_goes_over_and_nothing_else_of_them_is_another() {
        let least = Engine::Bft.least_members();
        for seed in 0..200 {
            let stream = || ChaCha8Rng::seed_from_u64(seed);
            let shape = SimConfig::default().shape_of(seed, &mut stream());
            assert_eq!(shape.beacon_goes_over, seed % 14 == 9, "{seed}");
            if shape.beacon_goes_over {
                assert!(usize::from(shape.beacon_replicas) >= least);
                let before = SimConfig::default().shape(&mut stream());
                let (beacon_replicas, anchors, guarded) = (before.beacon_replicas, before.anchors, before.guarded);
                // Shards may be cut and joined meanwhile, and seeds drawn.
                let (reshaping, moving, epochs) = (before.reshaping, before.moving, before.epochs);
                let (coming_and_going, newcomers) = (before.coming_and_going, before.newcomers);
                let (safety_ms, money) = (before.safety_ms, before.money);
                assert_eq!(
                    Shape {
                        beacon_goes_over: false,
                        beacon_replicas,
                        anchors,
                        guarded,
                        reshaping,
                        moving,
                        coming_and_going,
                        newcomers,
                        epochs,
                        money,
                        safety_ms,
                        ..shape
                    },
                    before,
                    "{seed}"
                );
            }
            let asked = SimConfig { switches: Some(2), ..SimConfig::default() };
            assert!(!asked.shape_of(seed, &mut stream()).beacon_goes_over);
        }
    }

    #[test]
    fn a_shard_that_goes_over_has_the_members_for_it() {
        let draw = |config: &SimConfig, seed| config.shape_of(seed, &mut ChaCha8Rng::seed_from_u64(seed));
        let least = Engine::Bft.least_members();
        let switching = |shape: &Shape| shape.switching.map(|shard| usize::from(shape.shard_replicas[shard as usize]));
        let free: Vec<Shape> = (0..200).map(|seed| draw(&SimConfig::default(), seed)).collect();
        assert!(free.iter().filter(|shape| shape.switching.is_some()).count() > 10);
        assert!(free.iter().filter_map(switching).all(|members| members >= least));
        let asked = SimConfig { switches: Some(2), nodes: Some(5), replicas: Some(3), ..SimConfig::default() };
        assert!((0..20).all(|seed| switching(&draw(&asked, seed)) == Some(least)));
        let never = SimConfig { switches: Some(0), ..SimConfig::default() };
        assert!((0..20).all(|seed| draw(&never, seed).switching.is_none()));
    }

    #[test]
    fn there_are_epochs_in_some_runs_and_in_none_that_is_kept() {
        let epochs = |config: &SimConfig, seed| config.shape_of(seed, &mut ChaCha8Rng::seed_from_u64(seed)).epochs;
        let kept =
            include_str!("../tests/regressions/seeds.txt").lines().map(|line| line.split('#').next().unwrap_or(""));
        for line in kept.filter(|flags| flags.contains("--seed")) {
            let (seed, config) = SimConfig::parse(line).expect("flags of seamark sim");
            assert_eq!(epochs(&config, seed), 0, "{line}: the run is another one than what was kept");
        }
        assert!((0..200).filter(|seed| epochs(&SimConfig::default(), *seed) > 0).count() > 10);
        let asked = SimConfig { epochs: Some(3), ..SimConfig::default() };
        assert!((0..20).all(|seed| epochs(&asked, seed) == 3));
    }

    #[test]
    fn a_channel_that_is_founded_has_money_where_somebody_asks_for_it() {
        let draw = |config: &SimConfig, seed| config.shape_of(seed, &mut ChaCha8Rng::seed_from_u64(seed));
        let asked = SimConfig { money: Some(5), ..SimConfig::default() };
        for seed in 0..200 {
            let shape = draw(&SimConfig::default(), seed);
            assert_eq!(shape.money, 0, "{seed}");
            assert_eq!(draw(&asked, seed), Shape { money: 5, founding: true, ..shape }, "{seed}");
        }
        let small = SimConfig { money: Some(5), nodes: Some(3), ..SimConfig::default() };
        assert!((0..20).all(|seed| !draw(&small, seed).founding));
    }

    #[test]
    fn keys_are_replaced_in_some_runs_and_in_none_that_is_kept() {
        let draw = |config: &SimConfig, seed| config.shape_of(seed, &mut ChaCha8Rng::seed_from_u64(seed));
        let kept =
            include_str!("../tests/regressions/seeds.txt").lines().map(|line| line.split('#').next().unwrap_or(""));
        for line in kept.filter(|flags| flags.contains("--seed")) {
            let (seed, config) = SimConfig::parse(line).expect("flags of seamark sim");
            let shape = draw(&config, seed);
            let unasked = shape.renewing && config.keys.is_none() || shape.ruling && config.policies.is_none();
            assert!(!unasked, "{line}: the run is another one than what was kept");
        }
        let free = SimConfig::default();
        let never = SimConfig { keys: Some(0), ..SimConfig::default() };
        let asked = SimConfig { keys: Some(3), ..SimConfig::default() };
        for seed in 0..200 {
            let shape = draw(&free, seed);
            assert_eq!(shape.renewing, shape.ruling, "{seed}");
            let before = draw(&never, seed);
            assert_eq!(before, Shape { renewing: false, ..shape }, "{seed}: something else of the run is another");
            assert_eq!(draw(&asked, seed), Shape { renewing: true, channels: 0, ..before }, "{seed}");
        }
        let own: Vec<Shape> = (0..200).map(|seed| draw(&free, seed)).filter(|shape| shape.renewing).collect();
        assert!((8..40).contains(&own.len()), "{}", own.len());
    }

    #[test]
    fn members_lose_their_seats_where_somebody_asks_for_it_and_nowhere_else() {
        let draw = |config: &SimConfig, seed| config.shape_of(seed, &mut ChaCha8Rng::seed_from_u64(seed));
        let free = SimConfig::default();
        let never = SimConfig { removals: Some(0), ..free.clone() };
        let asked = SimConfig { removals: Some(2), ..free.clone() };
        let raft = SimConfig { consensus: Some(Engine::Raft), ..asked.clone() };
        for seed in 0..200 {
            let shape = draw(&free, seed);
            assert_eq!(shape.removals, 0, "{seed}");
            assert_eq!(draw(&never, seed), shape, "{seed}");
            let with = draw(&asked, seed);
            assert_eq!((with.removals, with.byzantine.len()), (2, with.shard_replicas.len()), "{seed}");
            assert_eq!((with.channels, with.founding, with.newcomers), (0, false, NEWCOMERS), "{seed}");
            assert_eq!(with.movable(), Moving { shards: true, beacon: true, byzantine: true }, "{seed}");
            assert_eq!(draw(&raft, seed).removals, 0, "{seed}: nobody votes twice under Raft");
        }
    }

    #[test]
    fn shards_are_cut_and_joined_where_they_are_asked_to_be_and_in_some_runs_by_themselves() {
        let draw = |config: &SimConfig, seed| config.shape_of(seed, &mut ChaCha8Rng::seed_from_u64(seed));
        let free: Vec<Shape> = (0..200).map(|seed| draw(&SimConfig::default(), seed)).collect();
        let free: Vec<&Shape> = free.iter().filter(|shape| shape.reshaping).collect();
        assert!((20..60).contains(&free.len()), "{}", free.len());
        assert!(free.iter().any(|shape| !shape.byzantine.is_empty()), "none of the shards that are cut are Byzantine");
        let asked = SimConfig { reshapes: Some(2), ..SimConfig::default() };
        let fits = |shape: Shape| shape.reshaping && shape.byzantine.is_empty() && shape.switching.is_none();
        assert!((0..40).all(|seed| fits(draw(&asked, seed))));
        let never = SimConfig { reshapes: Some(0), ..SimConfig::default() };
        assert!((0..40).all(|seed| !draw(&never, seed).reshaping));
        // And seats move in some of these, and in no others.
        let moving = |config: &SimConfig| (0..200).map(|seed| draw(config, seed)).filter(|shape| shape.moving).count();
        assert!((5..40).contains(&moving(&SimConfig::default())));
        assert_eq!(moving(&SimConfig { reshapes: Some(0), moves: Some(3), ..SimConfig::default() }), 0);
        assert_eq!(moving(&SimConfig { reshapes: Some(2), moves: Some(3), ..SimConfig::default() }), 200);
        let going = |config: &SimConfig, seed| draw(config, seed).movable();
        let asked = SimConfig { reshapes: Some(2), comings: Some(3), ..SimConfig::default() };
        assert!((0..40).all(|seed| going(&asked, seed).shards));
        assert!((0..40).any(|seed| going(&asked, seed).beacon) && !(0..40).all(|seed| going(&asked, seed).beacon));
        assert!((0..200).any(|seed| draw(&SimConfig::default(), seed).coming_and_going));
        // Byzantine ones, too, where somebody asks for both; then the seats of a Byzantine beacon move as well.
        let bft = |beacon| SimConfig {
            consensus: Some(Engine::Bft),
            beacon: Some(beacon),
            reshapes: Some(2),
            comings: Some(3),
            shards: Some(2),
            ..SimConfig::default()
        };
        for seed in 0..40 {
            let shape = draw(&bft(Engine::Bft), seed);
            assert!(shape.reshaping && shape.byzantine == [0, 1] && shape.beacon == Engine::Bft, "{seed}");
            assert_eq!(shape.movable(), Moving { shards: true, beacon: true, byzantine: true });
            assert!(draw(&bft(Engine::Raft), seed).movable().beacon);
            assert!(!draw(&asked, seed).movable().byzantine);
        }
        // Also beside a beacon that goes over to the other engine.
        let both = |seed| draw(&SimConfig::default(), seed);
        assert!((0..200).map(both).any(|shape| shape.reshaping && shape.beacon_goes_over));
    }
}
