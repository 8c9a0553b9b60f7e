//! The grammar of `audit`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Admin, Target, VerifyFile};

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Show how far the beacon has audited every group, what is on its way between shards, and what was found
    #[command(
        after_help = "Example:\n  seamark audit status\n  seamark audit status --json\n\nEvery group shows the beacon its headers. It checks that each continues the one before it, that\nwhat enters and leaves a shard balances, and that what one shard has given to another is what that\none got. Exits with 1 when something was found or somebody is held."
    )]
    Status {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
    },
    /// Write what the audit says, and its proofs, to a file that anybody can judge offline
    #[command(after_help = "Example:\n  seamark audit report --out cluster.audit")]
    Report {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Judge the proofs in a report offline, by the genesis alone
    #[command(after_help = "Example:\n  seamark audit verify cluster.audit --genesis genesis.json")]
    Verify(VerifyFile),
    /// Let a group, or a node with a replica that diverged, out of quarantine, or approve that another organisation does
    #[command(
        after_help = "Example:\n  seamark audit release shard-0 --as org-a\n  seamark audit release shard-0 --node 3 --as org-a\n\nIt is out once those have sent this whom 'beacon policy' asks for 'quarantine', by default more than\nhalf of the organisations. Look into the report first: what is said of blocks up to now counts no\nmore afterwards."
    )]
    Release {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The group, or that of the replica: shard-N or channel-N
        #[arg(value_name = "GROUP")]
        group: String,
        /// The node of the replica that diverged
        #[arg(long, value_name = "N")]
        node: Option<u32>,
        /// How long the others may take to approve, minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
        within: u64,
    },
}
