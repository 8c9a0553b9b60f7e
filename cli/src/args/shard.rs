//! The grammar of `shard`.

use clap::{Args, Subcommand, ValueEnum};

use super::{Admin, Target};

/// `shard`.
#[derive(Debug, Subcommand)]
pub enum Shard {
    /// Show every shard: its prefix, its accounts, its nodes, and what is under way
    #[command(after_help = "Example:\n  seamark shard ls\n  seamark shard ls --json")]
    Ls {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
    },
    /// Show what cutting, joining or moving would come to, and what speaks against it; changes nothing
    #[command(
        subcommand,
        after_help = "Example:\n  seamark shard plan split shard-2\n  seamark shard plan merge shard-4 shard-5\n  seamark shard plan move shard-2 --from 1 --to 6"
    )]
    Plan(PlanShard),
    /// Cut a shard into the halves of its prefix while it runs
    #[command(
        after_help = "Example:\n  seamark shard split shard-2 --as org-a\n  seamark shard split shard-2 --manual --as org-a\n\nThose have to send the same whom 'beacon policy' asks for 'jobs', by default more than half of the\norganisations. The nodes of the shard make copies, the shard stands still for a moment, and two\nothers go on. Payments wait meanwhile, and none fails. Given again, it goes on watching."
    )]
    Split {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The shard, as shard-N
        #[arg(value_name = "SHARD")]
        shard: String,
        /// How it is done.
        #[command(flatten)]
        how: How,
    },
    /// Join the two halves of a prefix into one shard while they run
    #[command(
        after_help = "Example:\n  seamark shard merge shard-4 shard-5 --as org-a\n\nThose have to send the same whom 'beacon policy' asks for 'jobs', by default more than half of the\norganisations. The smaller half, or the right of two alike, takes the nodes of the other one before,\nwhere they differ. Given again, it goes on watching."
    )]
    Merge {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The left half, as shard-N
        #[arg(value_name = "LEFT")]
        left: String,
        /// The right half, as shard-N
        #[arg(value_name = "RIGHT")]
        right: String,
        /// How it is done.
        #[command(flatten)]
        how: How,
    },
    /// Give the seat of a node in a shard to another node
    #[command(
        after_help = "Example:\n  seamark shard move shard-2 --from 1 --to 6 --as org-a\n\nBetween two nodes of one organisation its own command is enough, else those have to send the same\nwhom 'beacon policy' asks for 'jobs', by default more than half. Node 6 fetches the state first;\npayments go on."
    )]
    Move {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The shard, as shard-N
        #[arg(value_name = "SHARD")]
        shard: String,
        /// From whom to whom.
        #[command(flatten)]
        seat: Seat,
        /// The layout that 'seamark shard plan' printed; refused on any other one [default: the layout of now]
        #[arg(long, value_name = "LAYOUT")]
        on: Option<u64>,
        /// How long to wait until it is done, seconds; it comes in any case
        #[arg(long, value_name = "S", default_value_t = 600)]
        wait: u64,
        /// How long the others may take to approve, minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
        within: u64,
    },
    /// Show the jobs that are under way and the last that have ended, or one of them
    #[command(after_help = "Example:\n  seamark shard status\n  seamark shard status job-3 --json")]
    Status {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The job, as job-N [default: all]
        #[arg(value_name = "JOB")]
        job: Option<String>,
    },
    /// Take a job back, until its layout is in force
    #[command(
        after_help = "Example:\n  seamark shard cancel job-3 --as org-a\n\nAny organisation may that has approved it, and each one a job that scaling has begun. A shard that\nstands still goes on."
    )]
    Cancel {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The job, as job-N
        #[arg(value_name = "JOB")]
        job: String,
    },
    /// Let a job that waits for it go on to the cut, once enough copies are ready
    #[command(after_help = "Example:\n  seamark shard cut job-3 --as org-a")]
    Cut {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The job, as job-N
        #[arg(value_name = "JOB")]
        job: String,
        /// How long to wait until it is done, seconds; it comes in any case
        #[arg(long, value_name = "S", default_value_t = 600)]
        wait: u64,
    },
    /// Have the beacon cut and join shards by itself
    #[command(
        subcommand,
        after_help = "Example:\n  seamark shard scale show\n  seamark shard scale set dry-run --split-accounts 1000000 --as org-a\n  seamark shard scale log"
    )]
    Scale(ShardScale),
}

/// `shard plan`.
#[derive(Debug, Subcommand)]
pub enum PlanShard {
    /// Of a shard that is cut
    #[command(after_help = "Example:\n  seamark shard plan split shard-2")]
    Split {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The shard, as shard-N
        #[arg(value_name = "SHARD")]
        shard: String,
    },
    /// Of two halves that are joined
    #[command(after_help = "Example:\n  seamark shard plan merge shard-4 shard-5")]
    Merge {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The left half, as shard-N
        #[arg(value_name = "LEFT")]
        left: String,
        /// The right half, as shard-N
        #[arg(value_name = "RIGHT")]
        right: String,
    },
    /// Of a seat that goes to another node
    #[command(after_help = "Example:\n  seamark shard plan move shard-2 --from 1 --to 6")]
    Move {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The shard, as shard-N
        #[arg(value_name = "SHARD")]
        shard: String,
        /// From whom to whom.
        #[command(flatten)]
        seat: Seat,
    },
}

/// From which node to which one.
#[derive(Clone, Copy, Debug, Args)]
pub struct Seat {
    /// The node that has the seat
    #[arg(long, value_name = "NODE")]
    pub from: u32,
    /// The node that is to have it
    #[arg(long, value_name = "NODE")]
    pub to: u32,
}

/// How shards are cut or joined.
#[derive(Clone, Copy, Debug, Args)]
pub struct How {
    /// The layout that 'seamark shard plan' printed; refused on any other one [default: the layout of now]
    #[arg(long, value_name = "LAYOUT")]
    pub on: Option<u64>,
    /// Make the copies, and wait for 'seamark shard cut' before anything stands still
    #[arg(long)]
    pub manual: bool,
    /// How long to wait until it is done, seconds; it comes in any case
    #[arg(long, value_name = "S", default_value_t = 600)]
    pub wait: u64,
    /// How long the others may take to approve, minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub within: u64,
}

/// `shard scale`.
#[derive(Debug, Subcommand)]
pub enum ShardScale {
    /// Show the limits in force, and the last load of each shard
    #[command(after_help = "Example:\n  seamark shard scale show\n  seamark shard scale show --json")]
    Show {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
    },
    /// Propose other limits, or approve the same proposal of another organisation
    #[command(
        after_help = "Example:\n  seamark shard scale set dry-run --split-accounts 1000000 --as org-a\n  seamark shard scale set on --split-tps 2000 --merge-tps 200 --as org-a\n  seamark shard scale set on --move-tps 4000 --lead-tps 2000 --margin 25 --as org-a\n  seamark shard scale set off --as org-a\n\nThey are in force once those have sent exactly these whom 'beacon policy' asks for 'operation', by\ndefault more than half of the organisations. What is not named stays as it is. A limit of 0 is none."
    )]
    Set(SetScale),
    /// Show what was decided by the limits, the latest last
    #[command(after_help = "Example:\n  seamark shard scale log")]
    Log {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
    },
}

/// `shard scale set`.
#[derive(Clone, Debug, Args)]
pub struct SetScale {
    /// Who signs.
    #[command(flatten)]
    pub admin: Admin,
    /// What is done when a limit is passed
    #[arg(value_name = "MODE", value_enum)]
    pub mode: ScaleArg,
    /// Cut a shard with more accounts
    #[arg(long, value_name = "N")]
    pub split_accounts: Option<u64>,
    /// Cut a shard with more transactions a second
    #[arg(long, value_name = "N")]
    pub split_tps: Option<u32>,
    /// Join two halves with fewer accounts together, where they are below the other limit, too
    #[arg(long, value_name = "N")]
    pub merge_accounts: Option<u64>,
    /// Join two halves with fewer transactions a second together, where they are below the other limit, too
    #[arg(long, value_name = "N")]
    pub merge_tps: Option<u32>,
    /// Move a seat away from a node whose seats have more transactions a second together
    #[arg(long, value_name = "N")]
    pub move_tps: Option<u32>,
    /// Move a lead away from a node that leads shards with more transactions a second together
    #[arg(long, value_name = "N")]
    pub lead_tps: Option<u32>,
    /// By how much the greater load of the two nodes has to fall for a seat or a lead to move, percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(10..=90))]
    pub margin: Option<u8>,
    /// How long that has to hold, seconds
    #[arg(long, value_name = "S")]
    pub sustained: Option<u64>,
    /// How long no other lead moves after one did, seconds
    #[arg(long, value_name = "S")]
    pub lead_cooldown: Option<u64>,
    /// How long nothing is begun after a change of the layout or a job of scaling, seconds
    #[arg(long, value_name = "S")]
    pub cooldown: Option<u64>,
    /// Shards that are left, at least
    #[arg(long, value_name = "N")]
    pub at_least: Option<u16>,
    /// Shards that there are, at most
    #[arg(long, value_name = "N")]
    pub at_most: Option<u16>,
    /// How long the others may take to approve, minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub within: u64,
}

/// What is done when a limit of scaling is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScaleArg {
    /// Nothing
    Off,
    /// Write down what would be done
    DryRun,
    /// Cut and join shards, move seats and leads
    On,
}
