//! The search behind [`super::assign`]: nodes that can be seated, caps, and the moves that balance.

use std::collections::{BTreeMap, VecDeque};

use ledger::hash::{Hash32, tagged};
use ledger::ids::{GroupId, NodeId};
use ledger::limits::COMMITTEE_MAX;

use super::{AssignError, Candidate, GroupSeats};

/// A node, with organisation and zone as small numbers.
struct Seatable {
    id: NodeId,
    org: usize,
    zone: usize,
    capacity: u64,
}

/// All nodes that can take seats, sorted by id.
pub(super) struct Pool {
    nodes: Vec<Seatable>,
    orgs: usize,
    zones: usize,
    pub(super) held: Vec<u64>,
}

/// How many seats one organisation and one zone may take in a group.
#[derive(Clone, Copy)]
pub(super) struct Caps {
    seats: usize,
    org: usize,
    zone: usize,
}

/// Swaps one after the other: committee, node that leaves, node that takes the seat.
type Chain = Vec<(usize, usize, usize)>;

/// One committee while it is worked on.
pub(super) struct Table {
    caps: Caps,
    taken: Vec<bool>,
    per_org: Vec<usize>,
    per_zone: Vec<usize>,
}

impl Table {
    fn new(pool: &Pool, caps: Caps) -> Self {
        let taken = vec![false; pool.nodes.len()];
        Self { caps, taken, per_org: vec![0; pool.orgs], per_zone: vec![0; pool.zones] }
    }

    fn take(&mut self, pool: &Pool, node: usize) {
        self.taken[node] = true;
        self.per_org[pool.nodes[node].org] += 1;
        self.per_zone[pool.nodes[node].zone] += 1;
    }

    fn leave(&mut self, pool: &Pool, node: usize) {
        self.taken[node] = false;
        self.per_org[pool.nodes[node].org] -= 1;
        self.per_zone[pool.nodes[node].zone] -= 1;
    }

    fn seated(&self) -> usize {
        self.per_org.iter().sum()
    }

    /// Whether `from` may give its seat to `to` within the caps.
    fn may_swap(&self, pool: &Pool, from: usize, to: usize) -> bool {
        let (a, b) = (&pool.nodes[from], &pool.nodes[to]);
        self.taken[from]
            && !self.taken[to]
            && (a.org == b.org || self.per_org[b.org] < self.caps.org)
            && (a.zone == b.zone || self.per_zone[b.zone] < self.caps.zone)
    }
}

impl Pool {
    pub(super) fn new(nodes: &[Candidate], held: &BTreeMap<NodeId, u32>) -> Result<Self, AssignError> {
        let mut sorted: Vec<&Candidate> = nodes.iter().collect();
        sorted.sort_by_key(|node| node.node);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].node == pair[1].node) {
            return Err(AssignError::DuplicateNode(pair[0].node));
        }
        sorted.retain(|node| node.capacity > 0);
        let (mut orgs, mut zones) = (BTreeMap::new(), BTreeMap::new());
        let mut seatable = Vec::with_capacity(sorted.len());
        for node in &sorted {
            let (next_org, next_zone) = (orgs.len(), zones.len());
            seatable.push(Seatable {
                id: node.node,
                org: *orgs.entry(node.org).or_insert(next_org),
                zone: *zones.entry(node.zone.as_str()).or_insert(next_zone),
                capacity: u64::from(node.capacity),
            });
        }
        let held = sorted.iter().map(|node| u64::from(held.get(&node.node).copied().unwrap_or(0)));
        Ok(Self { held: held.collect(), orgs: orgs.len(), zones: zones.len(), nodes: seatable })
    }

    /// The caps of a group: the faults it tolerates, raised as little as it takes to fill the
    /// seats, for organisations first and then for zones.
    pub(super) fn caps(&self, wanted: &GroupSeats, strict: bool) -> Result<Caps, AssignError> {
        let (group, seats, nodes) = (wanted.group, usize::from(wanted.seats), self.nodes.len());
        if !(1..=COMMITTEE_MAX).contains(&seats) {
            return Err(AssignError::Seats { group, seats });
        }
        if seats < wanted.engine.least_members() {
            return Err(AssignError::Engine { group, seats, engine: wanted.engine });
        }
        if nodes < seats {
            return Err(AssignError::TooFewNodes { group, seats, nodes });
        }
        let tolerated = wanted.engine.tolerated(seats);
        let least = tolerated.max(1);
        let fits = |org: usize, zone: usize| self.fillable(&Table::new(self, Caps { seats, org, zone }));
        // A cap of `seats` is none at all, so the search always ends there.
        let org = (least..seats).find(|cap| fits(*cap, seats)).unwrap_or(seats);
        let zone = (least..seats).find(|cap| fits(org, *cap)).unwrap_or(seats);
        // One replica tolerates nothing and needs no second organisation.
        if strict && seats > 1 && org > tolerated {
            return Err(AssignError::Stratification { group, seats, needed: org, tolerated });
        }
        Ok(Caps { seats, org, zone })
    }

    /// Nodes in the order that chance gives them for a group.
    pub(super) fn ranked(&self, seed: &Hash32, group: GroupId) -> Vec<usize> {
        let mut order: Vec<(Hash32, usize)> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(at, node)| {
                let parts: [&[u8]; 3] = [&seed.0, &group.0.to_be_bytes(), &node.id.0.to_be_bytes()];
                (tagged(b"seamark/assign/v1", &parts), at)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, at)| at).collect()
    }

    /// Fills one committee with its least loaded nodes within the caps; chance breaks ties.
    pub(super) fn seat(&self, caps: Caps, order: &[usize], load: &mut [u64]) -> Table {
        let mut table = Table::new(self, caps);
        self.fill(&mut table, order, load);
        table
    }

    /// Gives the free seats of a committee to the least loaded nodes within the caps; chance breaks ties.
    fn fill(&self, table: &mut Table, order: &[usize], load: &mut [u64]) {
        let mut by_load = order.to_vec();
        by_load.sort_by(|a, b| {
            let (a_node, b_node) = (&self.nodes[*a], &self.nodes[*b]);
            ((load[*a] + 1) * b_node.capacity).cmp(&((load[*b] + 1) * a_node.capacity))
        });
        let mut open = table.caps.seats - table.seated();
        for node in by_load {
            if open == 0 {
                break;
            }
            if !table.taken[node] && self.takes(table, node) {
                load[node] += 1;
                open -= 1;
            }
        }
    }

    /// Gives a node a seat, if the caps allow it and the seats that are then still free can be filled: organisations and
    /// zones overlap, so a choice within both caps may leave seats that nobody can fill.
    fn takes(&self, table: &mut Table, node: usize) -> bool {
        let at = &self.nodes[node];
        if table.per_org[at.org] >= table.caps.org || table.per_zone[at.zone] >= table.caps.zone {
            return false;
        }
        table.take(self, node);
        let fits = self.fillable(table);
        if !fits {
            table.leave(self, node);
        }
        fits
    }

    /// One committee again, where these have seats: as many of them stay as the caps allow, in the order that chance gives
    /// them, and the seats of the others go on as [`Pool::seat`] gives seats. `load` counts all of them as seated.
    pub(super) fn reseat(&self, caps: Caps, order: &[usize], seated: &[NodeId], load: &mut [u64]) -> Table {
        let mut table = Table::new(self, caps);
        for node in order.iter().copied().filter(|node| seated.contains(&self.nodes[*node].id)) {
            if !self.takes(&mut table, node) {
                load[node] -= 1;
            }
        }
        self.fill(&mut table, order, load);
        table
    }

    /// The place of a node in the pool; `None` when it can take no seat.
    pub(super) fn place(&self, node: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&node, |known| known.id).ok()
    }

    /// Whether the free seats can be filled within the caps: a flow from organisations to zones,
    /// one unit a node, found by augmenting paths.
    fn fillable(&self, table: &Table) -> bool {
        if table.caps.zone >= table.caps.seats && table.caps.org >= table.caps.seats {
            return true;
        }
        let seated = table.seated();
        let mut flow = Flow {
            pool: self,
            used: vec![false; self.nodes.len()],
            org_room: table.per_org.iter().map(|taken| table.caps.org.saturating_sub(*taken)).collect(),
            zone_room: table.per_zone.iter().map(|taken| table.caps.zone.saturating_sub(*taken)).collect(),
            blocked: table.taken.clone(),
        };
        (seated..table.caps.seats).all(|_| flow.augment())
    }

    /// Moves seats from more to less loaded nodes until nothing improves. Each round lowers the
    /// sorted list of loads, so it ends.
    pub(super) fn balance(&self, tables: &mut [Table], load: &mut [u64]) {
        while let Some(chain) = self.improving_chain(tables, load) {
            for (table, from, to) in &chain {
                tables[*table].leave(self, *from);
                tables[*table].take(self, *to);
            }
            let (first, last) = (chain[0].1, chain[chain.len() - 1].2);
            load[first] -= 1;
            load[last] += 1;
        }
    }

    /// A chain of swaps that takes a seat from a loaded node and gives one to a less loaded node.
    fn improving_chain(&self, tables: &mut [Table], load: &[u64]) -> Option<Chain> {
        let mut sources: Vec<usize> = (0..self.nodes.len()).collect();
        sources.sort_by(|a, b| (load[*b] * self.nodes[*a].capacity).cmp(&(load[*a] * self.nodes[*b].capacity)));
        // What a failed search reached reaches no more than it did, and has no more to gain, since
        // loads come in descending order.
        let mut hopeless = vec![false; self.nodes.len()];
        for source in sources {
            if load[source] <= self.held[source] || hopeless[source] {
                continue;
            }
            let gains = |target: usize| {
                (load[target] + 1) * self.nodes[source].capacity < load[source] * self.nodes[target].capacity
            };
            if !(0..self.nodes.len()).any(gains) {
                continue;
            }
            match self.chain_from(source, &gains, tables) {
                Ok(chain) => return Some(chain),
                Err(reached) => reached.into_iter().for_each(|node| hopeless[node] = true),
            }
        }
        None
    }

    /// Breadth first over single swaps, from `source` to the nearest node that `gains`; otherwise
    /// the nodes it reached.
    fn chain_from(
        &self,
        source: usize,
        gains: &dyn Fn(usize) -> bool,
        tables: &mut [Table],
    ) -> Result<Chain, Vec<usize>> {
        let mut reached: Vec<Option<(usize, usize)>> = vec![None; self.nodes.len()];
        let mut queue = VecDeque::from([source]);
        while let Some(from) = queue.pop_front() {
            for to in 0..self.nodes.len() {
                if to == source || reached[to].is_some() {
                    continue;
                }
                let Some(table) = tables.iter().position(|table| table.may_swap(self, from, to)) else {
                    continue;
                };
                reached[to] = Some((table, from));
                if gains(to) && self.holds(&Self::trace(&reached, source, to), tables) {
                    return Ok(Self::trace(&reached, source, to));
                }
                queue.push_back(to);
            }
        }
        Err((0..self.nodes.len()).filter(|node| reached[*node].is_some()).collect())
    }

    fn trace(reached: &[Option<(usize, usize)>], source: usize, target: usize) -> Chain {
        let mut chain = Vec::new();
        let mut to = target;
        while to != source {
            let Some((table, from)) = reached[to] else {
                break;
            };
            chain.push((table, from, to));
            to = from;
        }
        chain.reverse();
        chain
    }

    /// Whether the swaps of a chain are possible one after the other: two of them may use the room
    /// of one committee.
    fn holds(&self, chain: &[(usize, usize, usize)], tables: &mut [Table]) -> bool {
        let mut done = 0;
        for (table, from, to) in chain {
            if !tables[*table].may_swap(self, *from, *to) {
                break;
            }
            tables[*table].leave(self, *from);
            tables[*table].take(self, *to);
            done += 1;
        }
        for (table, from, to) in chain[..done].iter().rev() {
            tables[*table].leave(self, *to);
            tables[*table].take(self, *from);
        }
        done == chain.len()
    }

    pub(super) fn members(&self, table: &Table) -> Vec<NodeId> {
        self.nodes.iter().zip(&table.taken).filter(|(_, taken)| **taken).map(|(node, _)| node.id).collect()
    }
}

/// Search state of [`Pool::fillable`].
struct Flow<'p> {
    pool: &'p Pool,
    used: Vec<bool>,
    org_room: Vec<usize>,
    zone_room: Vec<usize>,
    blocked: Vec<bool>,
}

impl Flow<'_> {
    /// Adds one unit, if any organisation with room can reach a zone with room.
    fn augment(&mut self) -> bool {
        let mut seen = vec![false; self.pool.orgs];
        for org in 0..self.pool.orgs {
            if self.org_room[org] > 0 && !seen[org] && self.push(org, &mut seen) {
                self.org_room[org] -= 1;
                return true;
            }
        }
        false
    }

    /// Finds a node of `org` for one more unit: in a zone with room, or in a zone where another
    /// organisation can give up a unit and place it elsewhere.
    fn push(&mut self, org: usize, seen: &mut [bool]) -> bool {
        seen[org] = true;
        for node in 0..self.pool.nodes.len() {
            let at = &self.pool.nodes[node];
            if at.org != org || self.used[node] || self.blocked[node] {
                continue;
            }
            if self.zone_room[at.zone] > 0 {
                self.zone_room[at.zone] -= 1;
                self.used[node] = true;
                return true;
            }
            for other in 0..self.pool.nodes.len() {
                let rival = &self.pool.nodes[other];
                if !self.used[other] || rival.zone != at.zone || seen[rival.org] {
                    continue;
                }
                self.used[other] = false;
                self.blocked[other] = true;
                let moved = self.push(rival.org, seen);
                self.blocked[other] = false;
                if moved {
                    self.used[node] = true;
                    return true;
                }
                self.used[other] = true;
            }
        }
        false
    }
}
