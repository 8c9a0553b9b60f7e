//! `bench`: what is measured.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::{ConsensusArg, Verify};

/// `bench`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("steady").args(["engines", "switch", "reshape"])),
    group(ArgGroup::new("turns").args(["engines", "reshape"])),
    group(ArgGroup::new("pausing").args(["switch", "reshape"])),
    after_help = "Example:\n  seamark bench --shards 1 --verify ingest\n  seamark bench --shards 2 --cross 100 --seconds 20 --json\n  seamark bench --shards 2 --voters 2 --in-flight 1\n  seamark bench --shards 4 --hot-payee\n  seamark bench --consensus bft --verify every --at-least 0.3\n  seamark bench --shards 2 --voters 2 --conflict 10 --in-flight 64\n  seamark bench --channels 8 --together-at-least 1 --swap-at-most 2.5\n  seamark bench --join --join-at-most 30\n  seamark bench --engines --latency-at-most 4\n  seamark bench --switch --pause-at-most 2\n  seamark bench --takeover --takeover-at-most 60 --rate-at-least 0.7\n  seamark bench --reshape --in-flight 64 --pause-at-most 0.3 --worst-at-most 1\n  seamark bench --constants --json\n\nEverything counts: signatures, mTLS, consensus, fsync on every replica, and the client itself.\nThe clock stops when the last credit is applied; with --verify every, where the replicas check off\nthe path of a payment, not before every replica has checked and signed the last block."
)]
pub struct Bench {
    /// Shards of the cluster of its own [default: 1, or as many as there are voters]
    #[arg(long, value_name = "N")]
    pub shards: Option<u32>,
    /// Nodes of the cluster of its own [default: 3; with --join or --consensus bft 4]
    #[arg(long, value_name = "N")]
    pub nodes: Option<u32>,
    /// Replicas of each shard [default: 3; with --consensus bft 4]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u16>,
    /// What orders the shards and the beacon of the cluster of its own [default: raft]
    #[arg(long, value_name = "ENGINE", value_enum, conflicts_with_all = ["channels", "join"])]
    pub consensus: Option<ConsensusArg>,
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
    /// Where client signatures are checked [default: ingest; every in channels, whose members need not trust each other, with --engines and with --switch]
    #[arg(long, value_name = "MODE", value_enum)]
    pub verify: Option<Verify>,
    /// Accounts that pay each other [default: 1000; with --join 100000; with --takeover and --reshape 1000000]
    #[arg(long, value_name = "N")]
    pub accounts: Option<u32>,
    /// Skew of the payers: exponent of a Zipf distribution [default: all alike]
    #[arg(long, value_name = "S")]
    pub zipf: Option<f64>,
    /// Transactions in flight at most; 1 measures the latency without load
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub in_flight: usize,
    /// Fail when the rate is less than this part of the verify bound; with --engines, the rate of the Byzantine one
    #[arg(long, value_name = "RATIO")]
    pub at_least: Option<f64>,

    /// How long transactions are sent; with --join, how long before the organisation joins; with --engines, also how long before the kill and at least after it; with --switch, before the first switch and after each; with --takeover and --reshape, before the command
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Transactions to sign beforehand at most [default: enough for the time at the rate of the warm-up]
    #[arg(long, value_name = "N")]
    pub transactions: Option<usize>,
    /// Use the running cluster of this folder instead of one of its own
    #[arg(long, value_name = "D", conflicts_with_all = ["shards", "nodes", "replicas", "consensus", "verify", "processes"])]
    pub dir: Option<PathBuf>,
    /// One process for each node of the cluster of its own
    #[arg(long)]
    pub processes: bool,
    /// What is measured in channels.
    #[command(flatten)]
    pub inside: BenchChannels,
    /// What is measured of a member that joins.
    #[command(flatten)]
    pub joining: BenchJoin,
    /// What is measured of one engine beside the other.
    #[command(flatten)]
    pub comparing: BenchEngines,
    /// What is measured of going from one engine to the other.
    #[command(flatten)]
    pub switching: BenchSwitch,
    /// What is measured of a node that takes a replica over.
    #[command(flatten)]
    pub taking: BenchTakeover,
    /// What is measured of a shard that is cut and joined.
    #[command(flatten)]
    pub reshaping: BenchReshape,
    /// Measure what single pieces of work cost on this machine, within seconds: what `sim --scale` goes by
    #[arg(long, help_heading = "For scale studies",
        conflicts_with_all = ["channels", "join", "engines", "switch", "takeover", "reshape", "consensus", "shards", "nodes", "replicas", "cross",
            "voters", "conflict", "hot_payer", "hot_payee", "zipf", "dir", "processes", "transactions", "at_least", "verify", "accounts"])]
    pub constants: bool,
}

/// Of `bench`: payments inside channels.
#[derive(Debug, Args)]
#[command(next_help_heading = "In channels")]
pub struct BenchChannels {
    /// Pay inside this many channels that three organisations found; compares with one of them, and swaps between two
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64),
        conflicts_with_all = ["cross", "voters", "conflict", "hot_payer", "hot_payee", "dir"])]
    pub channels: Option<u32>,
    /// Fail when all channels together take less than this many times what one takes alone
    #[arg(long, value_name = "RATIO", requires = "channels")]
    pub together_at_least: Option<f64>,
    /// Fail when a swap between two channels takes more than this many times what a payment inside one takes
    #[arg(long, value_name = "RATIO", requires = "channels")]
    pub swap_at_most: Option<f64>,
}

/// Of `bench`: an organisation that joins a channel in use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Joining a channel")]
pub struct BenchJoin {
    /// Fill a channel of three organisations, have a fourth one join it while payments go on, and leave it again
    #[arg(long,
        conflicts_with_all = ["channels", "cross", "voters", "conflict", "hot_payer", "hot_payee", "zipf", "dir", "transactions", "at_least"])]
    pub join: bool,
    /// Transactions in the channel before the organisation joins
    #[arg(long, value_name = "N", requires = "join", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub past: u64,
    /// Payments a second meanwhile
    #[arg(long, value_name = "N", requires = "join", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// Log entries of a group between two snapshots, as in node.toml; smaller than there, since a channel that is
    /// filled has large entries, and few of them
    #[arg(long, value_name = "N", requires = "join", default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    pub snapshot_every: u64,
    /// Fail when joining takes more than this many seconds, is not from a snapshot, or keeps payments from being executed
    #[arg(long, value_name = "S", requires = "join")]
    pub join_at_most: Option<f64>,
}

/// Of `bench`: Raft and the Byzantine engine in one run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparing the engines")]
pub struct BenchEngines {
    /// Pay on a cluster of each engine, with four nodes and one shard: rates, latencies in turns, and bft beside a member that
    /// is silent, and without a leader that is killed for good. One process for each node
    #[arg(long,
        conflicts_with_all = ["channels", "join", "consensus", "shards", "nodes", "replicas", "cross", "voters", "conflict",
            "hot_payer", "hot_payee", "zipf", "dir", "processes"])]
    pub engines: bool,
    /// Payments a second while the leader is killed, the engine switched, or in the shard that is cut and joined
    #[arg(long, value_name = "N", requires = "steady", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub load: u32,
    /// How often leadership has to go round after that before the measurement ends: the turn of a dead member is left
    /// out the first time [default: 2]; with --reshape, how often the shard is cut and joined again [default: 10]
    #[arg(long, value_name = "N", requires = "turns", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub rounds: Option<u32>,
    /// Fail when half of the lone payments take more than this many times what they take with raft
    #[arg(long, value_name = "RATIO", requires = "engines")]
    pub latency_at_most: Option<f64>,
    /// Fail when the rate beside a silent member, or without a dead one, is less than this part of the full rate
    #[arg(long, value_name = "RATIO", requires = "engines")]
    pub without_one_at_least: Option<f64>,
    /// Fail when nobody has a receipt for more than this many seconds after the kill, or a payment is not executed
    #[arg(long, value_name = "S", requires = "engines")]
    pub gap_at_most: Option<f64>,
    /// Fail when that happens once more after the kill for more than this many seconds
    #[arg(long, value_name = "S", requires = "engines")]
    pub later_gap_at_most: Option<f64>,
}

/// Of `bench`: switching engines under load.
#[derive(Debug, Args)]
#[command(next_help_heading = "Switching engines")]
pub struct BenchSwitch {
    /// Pay at an even rate (--load) on a cluster of four nodes while its shard of three goes over to bft, with a fourth
    /// member, and comes back
    #[arg(long,
        conflicts_with_all = ["channels", "join", "consensus", "shards", "nodes", "replicas", "cross", "voters", "conflict",
            "hot_payer", "hot_payee", "zipf", "dir", "in_flight", "transactions", "at_least"])]
    pub switch: bool,
    /// Fail when nobody has a receipt for more than this many seconds around a switch, or a payment is not executed; with
    /// --reshape, when half of the cuts or half of the joins keep a half of the shard waiting for longer
    #[arg(long, value_name = "S", requires = "pausing")]
    pub pause_at_most: Option<f64>,
}

/// Of `bench`: a node that takes a replica over under load.
#[derive(Debug, Args)]
#[command(next_help_heading = "Taking a replica over")]
pub struct BenchTakeover {
    /// Fill a shard of three replicas with accounts, and have a fourth node take one of them over while payments are made
    /// as fast as they are taken
    #[arg(long,
        conflicts_with_all = ["channels", "join", "engines", "switch", "consensus", "shards", "nodes", "replicas", "cross",
            "voters", "conflict", "hot_payer", "hot_payee", "dir", "transactions", "at_least"])]
    pub takeover: bool,
    /// Fail when the new node takes part more than this many seconds after the command, or a payment is not executed
    #[arg(long, value_name = "S", requires = "takeover")]
    pub takeover_at_most: Option<f64>,
    /// Fail when the rate meanwhile is less than this part of the rate before
    #[arg(long, value_name = "RATIO", requires = "takeover")]
    pub rate_at_least: Option<f64>,
}

/// Of `bench`: a shard that is cut and joined under load.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cutting and joining a shard")]
pub struct BenchReshape {
    /// Fill one of two shards with accounts, pay in it at an even rate (--load), and in the other one with --in-flight payments
    /// in flight, while the first is cut and joined again, --rounds times
    #[arg(long,
        conflicts_with_all = ["channels", "join", "takeover", "consensus", "shards", "nodes", "replicas", "cross",
            "voters", "conflict", "hot_payer", "hot_payee", "dir", "transactions", "at_least"])]
    pub reshape: bool,
    /// Fail when one cut or join keeps a half of the shard waiting for more than this many seconds, or a payment is not
    /// executed
    #[arg(long, value_name = "S", requires = "reshape")]
    pub worst_at_most: Option<f64>,
    /// Fail when the rate of the other shard meanwhile is less than this part of the rate before
    #[arg(long, value_name = "RATIO", requires = "reshape")]
    pub others_at_least: Option<f64>,
}
