//! What a run has found out: counted by groups while it goes on, and summed up into one row of a study.

use beacon::limits::AUDIT_TRAIL_BLOCKS_MAX;
use ledger::hash::{Hash32, tagged};
use serde::Serialize;

use crate::scale::model::{Ns, Work};

/// What a group counts in the time that is measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Stats {
    pub(super) payments: u64,
    /// Those of them whose payee is in another shard.
    pub(super) crossing: u64,
    pub(super) refused: u64,
    /// From a client's sending to its hearing of the receipt.
    pub(super) receipt_us: Vec<u32>,
    /// Of payments to other shards, until it hears that the payee has the amount.
    pub(super) applied_us: Vec<u32>,
    pub(super) blocks: u64,
    pub(super) commands: u64,
    pub(super) command_bytes: u64,
    /// That the beacon has audited.
    pub(super) headers: u64,
    /// Commands without effect.
    pub(super) ignored: u64,
    pub(super) messages: Counted,
    /// Of the leader's processor, by what it was used for.
    pub(super) leader_ns: [Ns; Work::COUNT],
}

/// Messages between nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) order: u64,
    pub(super) certify: u64,
    pub(super) mail: u64,
    pub(super) checkpoints: u64,
}

impl Stats {
    /// Takes all of another group's.
    pub(super) fn add(&mut self, other: Self) {
        let sums = [
            (&mut self.payments, other.payments),
            (&mut self.crossing, other.crossing),
            (&mut self.refused, other.refused),
            (&mut self.blocks, other.blocks),
            (&mut self.commands, other.commands),
            (&mut self.command_bytes, other.command_bytes),
            (&mut self.headers, other.headers),
            (&mut self.ignored, other.ignored),
            (&mut self.messages.order, other.messages.order),
            (&mut self.messages.certify, other.messages.certify),
            (&mut self.messages.mail, other.messages.mail),
            (&mut self.messages.checkpoints, other.messages.checkpoints),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
        for (sum, more) in self.leader_ns.iter_mut().zip(other.leader_ns) {
            *sum += more;
        }
        self.receipt_us.extend(other.receipt_us);
        self.applied_us.extend(other.applied_us);
    }

    fn leader(&self) -> Ns {
        self.leader_ns.iter().sum()
    }
}

/// Latencies in milliseconds; zero where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half were faster.
    pub p50: f64,
    /// Nine of ten were faster.
    pub p90: f64,
    /// One of a hundred was slower.
    pub p99: f64,
}

impl Quantiles {
    /// The exact quantiles of these microseconds.
    fn of(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        let at = |percent: usize| {
            let rank = (micros.len() * percent).div_ceil(100).max(1) - 1;
            micros.get(rank).map_or(0.0, |us| rounded(f64::from(*us) / 1_000.0))
        };
        Self { p50: at(50), p90: at(90), p99: at(99) }
    }
}

/// What the beacon had to do. Nothing of it is on the way of a payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct BeaconLoad {
    /// Commands that it executed in a second: checkpoints and trails.
    pub commands_per_s: f64,
    /// Bytes that it ordered in a second.
    pub bytes_per_s: f64,
    /// Milliseconds of its leader's processor in a second, the audit and requests for mail included.
    pub cpu_ms_per_s: f64,
    /// The part of them that is the audit.
    pub audit_cpu_ms_per_s: f64,
    /// `commands_per_s` over the number of shards.
    pub commands_per_shard_s: f64,
    /// `bytes_per_s` over the number of shards.
    pub bytes_per_shard_s: f64,
    /// `cpu_ms_per_s` over the number of shards.
    pub cpu_ms_per_shard_s: f64,
    /// Headers of each shard that it has audited in a second. Where it keeps up, as many as there are blocks.
    pub headers_per_shard_s: f64,
    /// When the run ended: blocks that it had not audited, of the shard that had most of them.
    pub behind_blocks: u64,
}

/// Messages between nodes for each payment. Clients come on top, with two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Messages {
    /// All of them.
    pub all: f64,
    /// The engine's: entries and answers.
    pub order: f64,
    /// Signatures over headers.
    pub certify: f64,
    /// Between groups: mail, proofs, and questions for mail, answered or not.
    pub mail: f64,
    /// To the beacon: checkpoints, and headers for the audit with what asks for them.
    pub checkpoints: f64,
}

/// Microseconds of a leader's processor for each payment of its shard, by what they were used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LeaderCpu {
    /// All of them.
    pub all: f64,
    /// Routing payments and checking signatures.
    pub ingest: f64,
    /// Executing them, with what a block costs.
    pub execute: f64,
    /// What each stream costs in each block.
    pub streams: f64,
    /// Mail, coming and going.
    pub mail: f64,
    /// Proofs of what others have taken.
    pub acks: f64,
    /// Asking for mail, and being asked.
    pub pulls: f64,
    /// Signatures over headers.
    pub certify: f64,
    /// The engine's messages, and checkpoints.
    pub order: f64,
    /// Headers for the audit.
    pub audit: f64,
}

/// One cluster of a study.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Shards.
    pub shards: u32,
    /// Nodes.
    pub nodes: u32,
    /// Modelled seconds that were measured.
    pub seconds: f64,
    /// Payments with a receipt in that time.
    pub payments: u64,
    /// Those of them whose payee is in another shard.
    pub crossing: u64,
    /// Payments that came to nothing; there is no reason why one should.
    pub refused: u64,
    /// Commands that were ordered and had no effect.
    pub ignored: u64,
    /// Payments in a modelled second.
    pub per_s: f64,
    /// `per_s` over the number of shards and what one shard does alone; zero until it is compared.
    pub efficiency: f64,
    /// From a client to its shard and back with the receipt: the payment is final.
    pub receipt_ms: Quantiles,
    /// For payments to another shard, until the client hears that the payee has the amount.
    pub applied_ms: Quantiles,
    /// What the beacon had to do.
    pub beacon: BeaconLoad,
    /// Messages between nodes for each payment.
    pub messages_per_payment: Messages,
    /// What leaders' processors were used for.
    pub leader_cpu_us: LeaderCpu,
    /// How much of its processor the busiest node used, of 1.
    pub busiest_node: f64,
    /// Blocks of a shard in a second.
    pub blocks_per_shard_s: f64,
    /// Names the outcome: equal for equal seeds and constants.
    pub digest: String,
}

/// What the whole run was like.
pub(super) struct Run {
    pub(super) shards: u32,
    pub(super) nodes: u32,
    pub(super) measured: Ns,
    pub(super) busiest_node: f64,
    /// See [`BeaconLoad::behind_blocks`].
    pub(super) behind_blocks: u64,
    /// Heads of all chains, in order.
    pub(super) heads: Vec<Hash32>,
}

impl Row {
    pub(super) fn new(run: &Run, shards: Stats, beacon: &Stats) -> Self {
        let seconds = run.measured as f64 / 1e9;
        let each = |sum: f64, count: f64| if count > 0.0 { rounded(sum / count) } else { 0.0 };
        let payments = shards.payments as f64;
        let per_payment = |sum: u64| each(sum as f64, payments);
        let messages = Counted {
            order: shards.messages.order + beacon.messages.order,
            certify: shards.messages.certify + beacon.messages.certify,
            mail: shards.messages.mail + beacon.messages.mail,
            checkpoints: shards.messages.checkpoints + beacon.messages.checkpoints,
        };
        let us = |work: Work| each(shards.leader_ns[work as usize] as f64 / 1_000.0, payments);
        let count = f64::from(run.shards);
        let load = |sum: f64| (each(sum, seconds), each(sum, seconds * count));
        let (commands_per_s, commands_per_shard_s) = load(beacon.commands as f64);
        let (bytes_per_s, bytes_per_shard_s) = load(beacon.command_bytes as f64);
        let (cpu_ms_per_s, cpu_ms_per_shard_s) = load(beacon.leader() as f64 / 1e6);
        let (audit_cpu_ms_per_s, _) = load(beacon.leader_ns[Work::Audit as usize] as f64 / 1e6);
        let (_, headers_per_shard_s) = load(beacon.headers as f64);
        let heads: Vec<u8> = run.heads.iter().flat_map(|head| head.0).collect();
        Self {
            shards: run.shards,
            nodes: run.nodes,
            seconds: rounded(seconds),
            payments: shards.payments,
            crossing: shards.crossing,
            refused: shards.refused,
            ignored: shards.ignored + beacon.ignored,
            per_s: each(payments, seconds),
            efficiency: 0.0,
            beacon: BeaconLoad {
                commands_per_s,
                bytes_per_s,
                cpu_ms_per_s,
                audit_cpu_ms_per_s,
                commands_per_shard_s,
                bytes_per_shard_s,
                cpu_ms_per_shard_s,
                headers_per_shard_s,
                behind_blocks: run.behind_blocks,
            },
            messages_per_payment: Messages {
                all: per_payment(messages.order + messages.certify + messages.mail + messages.checkpoints),
                order: per_payment(messages.order),
                certify: per_payment(messages.certify),
                mail: per_payment(messages.mail),
                checkpoints: per_payment(messages.checkpoints),
            },
            leader_cpu_us: LeaderCpu {
                all: each(shards.leader() as f64 / 1_000.0, payments),
                ingest: us(Work::Ingest),
                execute: us(Work::Execute),
                streams: us(Work::Streams),
                mail: us(Work::Mail),
                acks: us(Work::Acks),
                pulls: us(Work::Pulls),
                certify: us(Work::Certify),
                order: us(Work::Order),
                audit: us(Work::Audit),
            },
            busiest_node: rounded(run.busiest_node),
            blocks_per_shard_s: each(shards.blocks as f64, seconds * count),
            digest: tagged(b"scale study", &[&heads]).to_string(),
            receipt_ms: Quantiles::of(shards.receipt_us),
            applied_ms: Quantiles::of(shards.applied_us),
        }
    }

    /// Compares with what one shard does alone.
    pub fn compare(&mut self, one: &Self) {
        let ideal = one.per_s * f64::from(self.shards) / f64::from(one.shards);
        self.efficiency = if ideal > 0.0 { rounded(self.per_s / ideal) } else { 0.0 };
    }
}

/// Clusters with fewer shards are not compared by [`beacon_spread`]: what a block of the beacon costs whatever is in it
/// falls on few shards there, and with it their part of its load.
pub const SPREAD_SHARDS_MIN: u32 = 8;

/// How constant the beacon's load for each shard is: the largest `cpu_ms_per_shard_s` over the smallest, of clusters with at
/// least [`SPREAD_SHARDS_MIN`] shards. Nothing where there are not two of them, or one has no load at all. A beacon that does
/// not keep up ([`keeps_up`]) does less than it should, so that this says nothing of it.
#[must_use]
pub fn beacon_spread(rows: &[Row]) -> Option<f64> {
    let compared = rows.iter().filter(|row| row.shards >= SPREAD_SHARDS_MIN);
    let loads: Vec<f64> = compared.map(|row| row.beacon.cpu_ms_per_shard_s).collect();
    let least = loads.iter().copied().fold(f64::INFINITY, f64::min);
    let most = loads.iter().copied().fold(0.0, f64::max);
    (loads.len() > 1 && least > 0.0).then(|| rounded(most / least))
}

/// Whether the beacon audits as much as is done: no shard is further ahead of it than one trail can bring.
#[must_use]
pub fn keeps_up(row: &Row) -> bool {
    row.beacon.behind_blocks <= AUDIT_TRAIL_BLOCKS_MAX as u64
}

/// Three digits after the point.
fn rounded(value: f64) -> f64 {
    if value.is_finite() { (value * 1_000.0).round() / 1_000.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact() {
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
        let of_hundred = Quantiles::of((1..=100).rev().map(|ms| ms * 1_000).collect());
        assert_eq!(of_hundred, Quantiles { p50: 50.0, p90: 90.0, p99: 99.0 });
        assert_eq!(Quantiles::of(vec![2_500]), Quantiles { p50: 2.5, p90: 2.5, p99: 2.5 });
    }

    #[test]
    fn a_row_divides_by_payments_seconds_and_shards() {
        let (measured, heads) = (500_000_000, vec![Hash32::ZERO]);
        let run = Run { shards: 4, nodes: 12, measured, busiest_node: 0.5, behind_blocks: 70, heads };
        let mut shards = Stats { payments: 1_000, crossing: 100, blocks: 40, ..Stats::default() };
        shards.leader_ns[Work::Execute as usize] = 30_000_000;
        shards.leader_ns[Work::Acks as usize] = 10_000_000;
        shards.messages = Counted { order: 2_000, certify: 500, mail: 1_500, checkpoints: 10 };
        let mut beacon = Stats { commands: 10, command_bytes: 10_000, headers: 40, ..Stats::default() };
        beacon.leader_ns[Work::Order as usize] = 500_000;
        beacon.leader_ns[Work::Audit as usize] = 1_500_000;
        beacon.messages.checkpoints = 5;
        let mut row = Row::new(&run, shards.clone(), &beacon);
        assert_eq!((row.per_s, row.seconds, row.blocks_per_shard_s), (2_000.0, 0.5, 20.0));
        assert_eq!((row.leader_cpu_us.all, row.leader_cpu_us.execute, row.leader_cpu_us.acks), (40.0, 30.0, 10.0));
        assert_eq!((row.messages_per_payment.all, row.messages_per_payment.mail), (4.015, 1.5));
        let BeaconLoad { commands_per_s, commands_per_shard_s, bytes_per_shard_s, cpu_ms_per_s, .. } = row.beacon;
        assert_eq!((commands_per_s, commands_per_shard_s, bytes_per_shard_s, cpu_ms_per_s), (20.0, 5.0, 5_000.0, 4.0));
        let BeaconLoad { audit_cpu_ms_per_s, headers_per_shard_s, behind_blocks, .. } = row.beacon;
        assert_eq!((audit_cpu_ms_per_s, headers_per_shard_s, behind_blocks), (3.0, 20.0, 70));
        let one = Row { shards: 1, per_s: 625.0, ..Row::default() };
        row.compare(&one);
        assert_eq!(row.efficiency, 0.8);
        let nothing = Row::new(&run, Stats::default(), &Stats::default());
        assert_eq!((nothing.per_s, nothing.messages_per_payment.all), (0.0, 0.0));
    }

    #[test]
    fn the_load_of_the_beacon_is_compared_from_eight_shards_on() {
        let row = |shards: u32, cpu_ms_per_shard_s: f64| Row {
            shards,
            beacon: BeaconLoad { cpu_ms_per_shard_s, ..BeaconLoad::default() },
            ..Row::default()
        };
        assert_eq!(beacon_spread(&[row(1, 0.9), row(4, 0.7), row(8, 0.4)]), None, "there is one");
        assert_eq!(beacon_spread(&[row(1, 0.9), row(8, 0.4), row(16, 0.3), row(32, 0.45)]), Some(1.5));
        assert_eq!(beacon_spread(&[row(8, 0.4), row(16, 0.4)]), Some(1.0));
        assert_eq!(beacon_spread(&[row(8, 0.4), row(16, 0.0)]), None, "one that does nothing is no measure");
        let behind =
            |behind_blocks| Row { beacon: BeaconLoad { behind_blocks, ..BeaconLoad::default() }, ..row(8, 0.4) };
        assert_eq!([0, 256, 257].map(|blocks| keeps_up(&behind(blocks))), [true, true, false]);
    }
}
