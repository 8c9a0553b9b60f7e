//! The grammar of `evidence`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Target, VerifyFile};

/// `evidence`.
#[derive(Debug, Subcommand)]
pub enum Evidence {
    /// List what a group keeps of members that have voted twice
    #[command(
        after_help = "Example:\n  seamark evidence ls\n  seamark evidence ls shard-0 --json\n\nThe beacon keeps that of every group, and takes the seats of whoever it is about."
    )]
    Ls {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// Who keeps it: beacon, shard-N or channel-N
        #[arg(value_name = "GROUP", default_value = "beacon")]
        group: String,
    },
    /// Show one, proved, and write it to a file that anybody can judge offline
    #[command(
        after_help = "Example:\n  seamark evidence show 4f0c19\n  seamark evidence show 4f0c19 --out node-3.evidence"
    )]
    Show {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// Its id, or as much of it as is clear, four digits at least
        id: String,
        /// Who keeps it: beacon, shard-N or channel-N
        #[arg(long, value_name = "GROUP", default_value = "beacon")]
        group: String,
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Judge a file of evidence offline, by the genesis alone, as 'seamark verify' does
    #[command(after_help = "Example:\n  seamark evidence verify node-3.evidence --genesis genesis.json")]
    Verify(VerifyFile),
}
