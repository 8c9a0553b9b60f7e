//! `bench`: what is measured.

use std::path::PathBuf;

use clap::Args;

use super::Verify;

/// `bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark bench --shards 1 --verify ingest\n  seamark bench --shards 2 --cross 100 --seconds 20 --json\n  seamark bench --shards 2 --voters 2 --in-flight 1\n  seamark bench --shards 4 --hot-payee\n  seamark bench --shards 2 --voters 2 --conflict 10 --in-flight 64\n\nEverything counts: signatures, mTLS, consensus, fsync on every replica, and the client itself.\nThe clock stops when the last credit is applied; with --verify every, where the replicas check off\nthe path of a payment, not before every replica has checked and signed the last block."
)]
pub struct Bench {
    /// Shards of the cluster of its own [default: 1, or as many as there are voters]
    #[arg(long, value_name = "N")]
    pub shards: Option<u32>,
    /// Nodes of the cluster of its own
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub nodes: u32,
    /// Replicas of each shard
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub replicas: u16,
    /// Payments of a hundred that cross between two shards [default: 0; with several voters 100]
    #[arg(long, value_name = "PCT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub cross: Option<u8>,
    /// Payers of each transaction, in as many shards: each pays, and all of them have to agree
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub voters: u8,
    /// One account makes all payments, with as many in flight as there may be
    #[arg(long, conflicts_with = "zipf")]
    pub hot_payer: bool,
    /// One account receives all payments
    #[arg(long, conflicts_with = "cross")]
    pub hot_payee: bool,
    /// Transactions of a hundred that also write the same entry of one account's data, so that they are in each other's way
    #[arg(long, value_name = "PCT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub conflict: u8,
    /// Where client signatures are checked
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Verify::Ingest)]
    pub verify: Verify,
    /// Accounts that pay each other
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub accounts: u32,
    /// Skew of the payers: exponent of a Zipf distribution [default: all alike]
    #[arg(long, value_name = "S")]
    pub zipf: Option<f64>,
    /// Transactions in flight at most; 1 measures the latency without load
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub in_flight: usize,
    /// Fail when the rate is less than this part of the verify bound
    #[arg(long, value_name = "RATIO")]
    pub at_least: Option<f64>,

    /// How long transactions are sent
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Transactions to sign beforehand at most [default: enough for the time at the rate of the warm-up]
    #[arg(long, value_name = "N")]
    pub transactions: Option<usize>,
    /// Use the running cluster of this folder instead of one of its own
    #[arg(long, value_name = "D", conflicts_with_all = ["shards", "nodes", "replicas", "verify", "processes"])]
    pub dir: Option<PathBuf>,
    /// One process for each node of the cluster of its own
    #[arg(long)]
    pub processes: bool,
}
