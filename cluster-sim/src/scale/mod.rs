//! Scale studies: clusters of thousands of nodes and hundreds of shards, in modelled time.
//!
//! What runs is the production code of every group: the executor and the driver of the replica that leads, mail between
//! all groups, the beacon's machine, the router's plan, the assignment of seats. What is modelled: the time until an
//! engine has ordered an entry, the network, and the processors, by constants that are measured beforehand. A group is
//! one logical replica, since its members would all compute the same. `docs/scale.md` says what follows from that.
//!
//! [`model`] has the constants, [`measure`] measures them by a clock that it is given, `cluster` is what a study starts
//! from, `group` is one group, `load` its clients, `world` lets all groups go on side by side, [`report`] is what comes
//! out. Nothing here reads a clock; a study is repeated by its seed and its constants.

mod cluster;
mod group;
mod load;
pub mod measure;
pub mod model;
pub mod report;
mod world;

use std::sync::Arc;
use std::thread;

use cross_shard::Message;
use ledger::AccountRecord;
use ledger::genesis::VerifyMode;
use ledger::ids::GroupId;
use ledger::schema;
use shard_node::core::driver::credits_wait_ms;

use cluster::{BALANCE, Directory, Shape, posted};
use group::{CYCLE, Group, Setting};
use load::Clients;
use model::MS;
use report::{Run, Stats};

pub use model::{Constants, Latencies, Ns};
pub use report::{Row, SPREAD_SHARDS_MIN, beacon_spread, keeps_up};

/// What is studied.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// The most shards.
    pub shards: u32,
    /// Nodes with that many shards; with fewer, as many less.
    pub nodes: u32,
    /// Replicas of every group.
    pub replicas: u16,
    /// Payments of a hundred that go to another shard, where there is one.
    pub cross_pct: u8,
    /// Skew of the accounts within a shard: exponent of a Zipf distribution.
    pub zipf: f64,
    /// Of so many payments within a shard one is executed; the others have their place and their costs, and change no
    /// balance. Those to other shards are all executed. What a study says of its time does not depend on it.
    pub local_every: u32,
    /// Accounts of each shard.
    pub accounts: u32,
    /// Clients of each shard: each has one payment under way.
    pub clients: u32,
    /// Thousandths of a core that each node has.
    pub cores_milli: u64,
    /// How far client signatures are checked.
    pub verify: VerifyMode,
    /// Network and disks.
    pub latencies: Latencies,
    /// Under load before the measurement begins, in modelled milliseconds; where mail waits, so long more.
    pub warm_up_ms: u64,
    /// Measured, in modelled milliseconds; where mail waits, so long at least.
    pub measure_ms: u64,
    /// After that, without new payments, in modelled milliseconds.
    pub drain_ms: u64,
    /// Decides everything that is drawn.
    pub seed: u64,
    /// Threads; the outcome does not depend on them.
    pub threads: usize,
}

impl Default for Study {
    /// What `seamark sim --scale` runs when nothing else is said.
    fn default() -> Self {
        Self {
            shards: 512,
            nodes: 4096,
            replicas: 5,
            cross_pct: 10,
            zipf: 1.0,
            local_every: 1,
            accounts: 256,
            clients: 256,
            cores_milli: 1_000,
            verify: VerifyMode::Every,
            latencies: Latencies::default(),
            warm_up_ms: 600,
            measure_ms: 1_000,
            drain_ms: 0,
            seed: 1,
            threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Modelled milliseconds that are over.
    pub modelled_ms: u64,
    /// Modelled milliseconds that the run takes.
    pub whole_ms: u64,
    /// Payments with a receipt so far, those before the measurement included.
    pub payments: u64,
}

/// When what happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    /// Groups have begun one after the other until now, and are asking each other for mail; clients begin.
    load_from: Ns,
    measure_from: Ns,
    measure_to: Ns,
    clients_until: Ns,
    end: Ns,
}

impl Study {
    /// The numbers of shards that are compared: doubled from one on, and the greatest.
    #[must_use]
    pub fn steps(&self) -> Vec<u32> {
        let mut steps: Vec<u32> = std::iter::successors(Some(1u32), |shards| shards.checked_mul(2))
            .take_while(|s| *s < self.shards)
            .collect();
        steps.push(self.shards);
        steps
    }

    /// Nodes of a cluster with so many shards: the same part of all, and enough for one group.
    #[must_use]
    pub fn nodes_for(&self, shards: u32) -> u32 {
        let part = u64::from(self.nodes) * u64::from(shards) / u64::from(self.shards.max(1));
        u32::try_from(part).unwrap_or(u32::MAX).max(u32::from(self.replicas))
    }

    /// Among many groups mail waits. So long more are clients given before the measurement, which then takes as long at
    /// least: it sees as much mail taken as sent.
    fn times(&self, shards: u32) -> Times {
        let wait_ms = credits_wait_ms(shards as usize + 1);
        let load_from = CYCLE;
        let measure_from = load_from + (self.warm_up_ms + wait_ms) * MS;
        let measure_to = measure_from + self.measure_ms.max(wait_ms) * MS;
        Times { load_from, measure_from, measure_to, clients_until: measure_to, end: measure_to + self.drain_ms * MS }
    }

    /// Runs one cluster of so many shards. No value may have been lost or made.
    ///
    /// # Errors
    /// A text when there is no such cluster, when a driver raises an alarm, or when value is missing.
    pub fn run(&self, shards: u32, constants: &Constants) -> Result<Row, String> {
        self.run_watched(shards, constants, &mut |_| ())
    }

    /// As [`Study::run`]; `watch` is told of each step of modelled time.
    ///
    /// # Errors
    /// As [`Study::run`].
    pub fn run_watched(
        &self,
        shards: u32,
        constants: &Constants,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Row, String> {
        self.play(shards, constants, false, watch).map(|(row, _)| row)
    }

    /// As [`Study::run_watched`]; with `record`, groups keep what they have executed.
    fn play(
        &self,
        shards: u32,
        constants: &Constants,
        record: bool,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(Row, Finished), String> {
        let shape = Shape {
            shards,
            nodes: self.nodes_for(shards),
            replicas: self.replicas,
            accounts: self.accounts,
            verify: self.verify,
            seed: self.seed,
        };
        if self.cores_milli == 0 || self.measure_ms == 0 || shards == 0 || self.local_every == 0 {
            return Err("a study needs processors, a shard, time, and payments that are executed".to_owned());
        }
        let times = self.times(shards);
        let directory = Arc::new(Directory::new(&shape)?);
        let setting = Arc::new(Setting {
            directory: Arc::clone(&directory),
            constants: *constants,
            latencies: self.latencies,
            cores_milli: self.cores_milli,
            clients: self.clients,
            times,
            record,
        });
        let groups = self.groups(&setting)?;
        let step = self.latencies.shortest();
        let mut outcome = world::run(groups, shape.nodes as usize, step, times, self.threads, watch)?;
        let (mut sum, mut beacon, mut heads) = (Stats::default(), Stats::default(), Vec::new());
        for group in &mut outcome.groups {
            heads.push(group.root().1);
            let stats = std::mem::take(&mut group.stats);
            if group.id == GroupId::BEACON { beacon.add(stats) } else { sum.add(stats) }
        }
        let finished = Finished { directory, groups: outcome.groups };
        finished.check_value()?;
        let behind_blocks = finished.behind_blocks()?;
        let measured = times.measure_to - times.measure_from;
        let busiest = outcome.used.iter().copied().max().unwrap_or(0) as f64 / measured as f64;
        let run = Run { shards, nodes: shape.nodes, measured, busiest_node: busiest, behind_blocks, heads };
        Ok((Row::new(&run, sum, &beacon), finished))
    }

    /// All groups at block 0, made on several threads: each of them knows all committees.
    fn groups(&self, setting: &Arc<Setting>) -> Result<Vec<Group>, String> {
        let directory = &setting.directory;
        let (shared, ids) = (directory.shared()?, directory.groups().collect::<Vec<GroupId>>());
        let one = |id: GroupId| -> Result<Group, String> {
            let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ id.0;
            let clients = match id {
                GroupId::BEACON => None,
                _ => {
                    let directory = Arc::clone(directory);
                    Some(Clients::new(directory, id, self.cross_pct, self.local_every, self.zipf, !seed)?)
                }
            };
            Group::new(id, Arc::clone(setting), directory.beginning(id, &shared)?, clients, seed)
        };
        let (one, chunk) = (&one, ids.len().div_ceil(self.threads.max(1)).max(1));
        thread::scope(|scope| {
            let makers: Vec<_> = ids
                .chunks(chunk)
                .map(|ids| scope.spawn(move || ids.iter().map(|id| one(*id)).collect::<Result<Vec<Group>, String>>()))
                .collect();
            let mut groups = Vec::with_capacity(ids.len());
            for maker in makers {
                groups.extend(maker.join().map_err(|_| "a thread of the study has panicked".to_owned())??);
            }
            Ok(groups)
        })
    }
}

/// A cluster after a run.
struct Finished {
    directory: Arc<Directory>,
    groups: Vec<Group>,
}

impl Finished {
    /// What accounts have and what mail carries that nobody has taken yet is what accounts had at first; and each group
    /// has what it says it has.
    fn check_value(&self) -> Result<(), String> {
        let asset = &self.directory.asset.id;
        let mut all = 0u128;
        for group in self.groups.iter().filter(|group| group.id != GroupId::BEACON) {
            let held = self.held(group)?;
            let total: u128 = value(group, &schema::total(asset))?.unwrap_or(0);
            if held != total {
                return Err(format!("accounts of {} have {held}, and it counts {total}", group.id));
            }
            all += held + self.under_way(group)?;
        }
        let accounts: usize = self.directory.accounts.iter().map(Vec::len).sum();
        let begun = BALANCE * accounts as u128;
        if all == begun { Ok(()) } else { Err(format!("there are {all} of {begun} units")) }
    }

    /// Blocks of a shard that the beacon has not audited, of the one that has most of them.
    fn behind_blocks(&self) -> Result<u64, String> {
        let beacon = self.groups.iter().find(|group| group.id == GroupId::BEACON).ok_or("there is no beacon")?;
        let mut most = 0;
        for group in self.groups.iter().filter(|group| group.id != GroupId::BEACON) {
            let (done, audited) = (group.root().0.0, beacon.audited(group.id)?);
            most = most.max(audited.map_or(done + 1, |audited| done - audited.0));
        }
        Ok(most)
    }

    /// What the accounts of a group have.
    fn held(&self, group: &Group) -> Result<u128, String> {
        let mut held = 0;
        for account in self.directory.accounts_of(group.id) {
            let record: Option<AccountRecord> = value(group, &schema::account(&account.address))?;
            held += record.map_or(0, |record| posted(&record, &self.directory.asset.id));
        }
        Ok(held)
    }

    /// What a group has mailed that its destination has not taken.
    fn under_way(&self, group: &Group) -> Result<u128, String> {
        let mut sum = 0;
        for dest in self.groups.iter().filter(|dest| dest.id != group.id) {
            let next = value::<cross_shard::OutStream>(group, &schema::outbox(dest.id))?.unwrap_or_default().next_seq;
            let taken = value::<cross_shard::InCursor>(dest, &schema::inbox(group.id))?.unwrap_or_default().next_seq;
            for seq in taken..next {
                match value(group, &schema::mail(dest.id, seq))? {
                    Some(Message::Credit(credit)) => sum += credit.amount,
                    other => return Err(format!("{} has mailed {other:?} to {}", group.id, dest.id)),
                }
            }
        }
        Ok(sum)
    }
}

/// A value of a group's state.
fn value<T: borsh::BorshDeserialize>(group: &Group, key: &[u8]) -> Result<Option<T>, String> {
    let Some(bytes) = group.state.get(key) else { return Ok(None) };
    borsh::from_slice(bytes).map(Some).map_err(|error| format!("a value of {} does not decode: {error}", group.id))
}

#[cfg(test)]
mod tests;
