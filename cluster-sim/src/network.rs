//! The network: delay, loss, repetition, reordering, and cuts in one or both directions.

use std::collections::{BTreeMap, BTreeSet};

use ledger::ids::NodeId;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::wire::Endpoint;

/// How the network behaves where nothing is cut. Rates are per thousand messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Least delay.
    pub delay_ms_min: u64,
    /// Usual greatest delay.
    pub delay_ms_max: u64,
    /// Messages that never arrive.
    pub loss_permille: u32,
    /// Messages that arrive twice.
    pub duplicate_permille: u32,
    /// Messages that are held back.
    pub reorder_permille: u32,
    /// For at most this long.
    pub reorder_ms_max: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub const FAIR: Self = Self {
        delay_ms_min: 1,
        delay_ms_max: 6,
        loss_permille: 0,
        duplicate_permille: 0,
        reorder_permille: 0,
        reorder_ms_max: 1,
    };
}

/// Links that carry nothing.
#[derive(Clone, Debug)]
pub struct Cut {
    /// One side.
    pub from: BTreeSet<NodeId>,
    /// The other side.
    pub to: BTreeSet<NodeId>,
    /// Whether nothing passes from `to` to `from` either.
    pub both_ways: bool,
}

impl Cut {
    fn blocks(&self, from: NodeId, to: NodeId) -> bool {
        (self.from.contains(&from) && self.to.contains(&to))
            || (self.both_ways && self.from.contains(&to) && self.to.contains(&from))
    }
}

/// What the network did.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkCounts {
    /// Messages that never arrived.
    pub lost: u64,
    /// Messages that arrived twice.
    pub duplicated: u64,
    /// Messages that were held back.
    pub reordered: u64,
}

/// The network of a cluster and its clients.
pub struct Network {
    rng: ChaCha8Rng,
    /// How it behaves now.
    pub weather: Weather,
    /// Cuts by the number of their fault.
    pub cuts: BTreeMap<usize, Cut>,
    /// Extra delay of single links.
    pub slow: BTreeMap<(NodeId, NodeId), u64>,
    /// What it did so far.
    pub counts: NetworkCounts,
}

impl Network {
    /// A network without cuts.
    #[must_use]
    pub fn new(rng: ChaCha8Rng, weather: Weather) -> Self {
        Self { rng, weather, cuts: BTreeMap::new(), slow: BTreeMap::new(), counts: NetworkCounts::default() }
    }

    /// Whether a link carries nothing now. Clients reach every node.
    #[must_use]
    pub fn cut(&self, from: Endpoint, to: Endpoint) -> bool {
        match (from, to) {
            (Endpoint::Node(from), Endpoint::Node(to)) => self.cuts.values().any(|cut| cut.blocks(from, to)),
            (Endpoint::Client, _) | (_, Endpoint::Client) => false,
        }
    }

    /// Delays after which copies of a message arrive; none if it is lost.
    pub fn route(&mut self, from: Endpoint, to: Endpoint) -> Vec<u64> {
        if from == to {
            return vec![0];
        }
        if self.cut(from, to) || self.happens(self.weather.loss_permille) {
            self.counts.lost += 1;
            return Vec::new();
        }
        let mut delays = vec![self.delay(from, to)];
        if self.happens(self.weather.duplicate_permille) {
            self.counts.duplicated += 1;
            delays.push(self.delay(from, to) + self.rng.random_range(0..50));
        }
        delays
    }

    fn happens(&mut self, permille: u32) -> bool {
        self.rng.random_range(0..1000) < permille
    }

    fn delay(&mut self, from: Endpoint, to: Endpoint) -> u64 {
        let mut delay = self.rng.random_range(self.weather.delay_ms_min..=self.weather.delay_ms_max);
        if self.happens(self.weather.reorder_permille) {
            self.counts.reordered += 1;
            delay += self.rng.random_range(0..=self.weather.reorder_ms_max);
        }
        if let (Endpoint::Node(from), Endpoint::Node(to)) = (from, to) {
            delay += self.slow.get(&(from, to)).copied().unwrap_or(0);
        }
        delay
    }

    /// Ends everything that is wrong.
    pub fn heal(&mut self) {
        self.weather = Weather::FAIR;
        self.cuts.clear();
        self.slow.clear();
    }
}
