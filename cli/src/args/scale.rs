//! Of `sim`: the scale study.

use std::path::PathBuf;

use clap::Args;

use super::Verify;

/// Of `sim`: clusters of more and more shards, in modelled time.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scale study")]
pub struct SimScale {
    /// Run the machines of 1, 2, 4, … shards, up to --shards [default: 512] on --nodes [default: 4096], over modelled
    /// processors, network and order
    #[arg(long, conflicts_with_all = ["seeds", "scenario", "replay", "transactions", "safety_ms", "consensus", "lie"])]
    pub scale: bool,
    /// Payments of a hundred that go to another shard
    #[arg(long, value_name = "PCT", requires = "scale", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub cross: u8,
    /// Skew of the accounts within each shard: exponent of a Zipf distribution; 0 is none
    #[arg(long, value_name = "S", requires = "scale", default_value_t = 1.0)]
    pub zipf: f64,
    /// Of so many payments within a shard one is executed, and the others cost as much: faster, and the same study
    #[arg(long, value_name = "N", requires = "scale", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub local_every: u32,
    /// Clients of each shard, each with one payment under way
    #[arg(long, value_name = "N", requires = "scale", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub clients: u32,
    /// Accounts of each shard
    #[arg(long, value_name = "N", requires = "scale", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub accounts: u32,
    /// Cores of each node, like those of this machine; a part of one is possible
    #[arg(long, value_name = "C", requires = "scale", default_value_t = 1.0)]
    pub cores: f64,
    /// Where client signatures are checked
    #[arg(long, value_name = "MODE", value_enum, requires = "scale", default_value = "every")]
    pub verify: Verify,
    /// One way between two nodes, at least; drawn up to half as much longer
    #[arg(long, value_name = "US", requires = "scale", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub hop_us: u64,
    /// Until a log entry is on a disk, at least; drawn up to half as much longer
    #[arg(long, value_name = "US", requires = "scale", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub fsync_us: u64,
    /// Modelled milliseconds under load before the measurement; among many shards, where mail waits, so long more
    #[arg(long, value_name = "MS", requires = "scale", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub warm_up_ms: u64,
    /// Modelled milliseconds that are measured; where mail waits, so long at least
    #[arg(long, value_name = "MS", requires = "scale", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub measure_ms: u64,
    /// What work costs, as `seamark bench --constants --json` wrote it [default: measured now]
    #[arg(long, value_name = "FILE", requires = "scale")]
    pub constants: Option<PathBuf>,
    /// Draw efficiency and latencies into this file
    #[arg(long, value_name = "FILE", requires = "scale")]
    pub svg: Option<PathBuf>,
    /// Fail when the efficiency of the largest cluster is less than this
    #[arg(long, value_name = "RATIO", requires = "scale")]
    pub efficiency_at_least: Option<f64>,
    /// Fail when, of clusters with at least 8 shards, the one in which the beacon works most for each shard has more than so
    /// many times the processor time of the one in which it works least, or when the beacon does not keep up with the audit in
    /// one of them. With fewer shards, what each of its blocks costs falls on few
    #[arg(long, value_name = "RATIO", requires = "scale")]
    pub beacon_spread_at_most: Option<f64>,
}
