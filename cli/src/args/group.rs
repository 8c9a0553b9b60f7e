//! The grammar of `group`.

use clap::Subcommand;

use super::{Admin, ConsensusArg};

/// `group`.
#[derive(Debug, Subcommand)]
pub enum Group {
    /// Have another engine order a group while it runs; shows first what that changes
    #[command(
        after_help = "Example:\n  seamark group consensus shard-0 bft --dry-run\n  seamark group consensus shard-0 bft --as org-a\n  seamark group consensus channel-2 raft --as org-b\n\nOf a shard and of the beacon, those have to send the same whom 'beacon policy' asks for 'engines',\nby default more than half of the organisations; of a channel, its members approve a proposal. The\nengine in force takes back a switch that is not there yet. Payments go on meanwhile."
    )]
    Consensus {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The group: beacon, shard-N, or a channel by its name or as channel-N
        #[arg(value_name = "GROUP")]
        group: String,
        /// The engine
        #[arg(value_name = "ENGINE", value_enum)]
        engine: ConsensusArg,
        /// Only show what it would change
        #[arg(long)]
        dry_run: bool,
        /// How long the others may take to approve, minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
        within: u64,
        /// How long to wait until the new engine runs, seconds; it comes in any case
        #[arg(long, value_name = "S", default_value_t = 120)]
        wait: u64,
    },
}
