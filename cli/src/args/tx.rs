//! `tx`: what became of a transaction, and transactions as files.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Target, WaitFor};

/// `tx`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  seamark tx 6f1e... --proof payment.proof\n  seamark tx 6f1e... --wait applied\n  seamark tx explain 6f1e...\n  seamark tx resubmit 6f1e...\n  seamark tx submit trade.toml --key alice --key bob\n\nSeveral moves of several payers, in one transaction: write a form (see tx build --help), then\nsubmit it with all keys at hand, or build it into a file that each signer signs.\ndocs/transactions.md is the manual."
)]
pub struct Tx {
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
    /// Id of the transaction: 64 hex digits
    #[arg(required = true)]
    pub id: Option<String>,
    /// Write a proof of the receipt to this file
    #[arg(long, value_name = "FILE")]
    pub proof: Option<PathBuf>,
    /// Wait until this is so
    #[arg(long, value_name = "WHEN", value_enum)]
    pub wait: Option<TxWait>,
    /// Something else than showing one.
    #[command(subcommand)]
    pub command: Option<TxCommand>,
}

/// When a transaction counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TxWait {
    /// Its fate is final: every voter group said yes, or one said no
    Decided,
    /// It is applied in every group, all credits included
    Applied,
}

/// `tx build`, `tx sign` and so on.
#[derive(Debug, Subcommand)]
pub enum TxCommand {
    /// Build a transaction file from a form
    #[command(
        after_help = "Example:\n  seamark tx build trade.toml -o trade.tx\n\nA form, in which names are those of keys, and assets are symbols, ISSUER/SYMBOL or ids:\n\n  valid_for = \"10m\"\n  memo = \"trade 7\"\n\n  [[pay]]\n  from = \"alice\"\n  to = \"bob\"\n  asset = \"EUR\"\n  amount = 500\n\n  [[pay]]\n  from = \"bob\"\n  to = \"alice\"\n  asset = \"BOND\"\n  amount = 5\n\nOther moves: check, write, rotate, freeze, release, return, mint, burn.\ndocs/transactions.md has them all."
    )]
    Build {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The form, in TOML
        #[arg(value_name = "FILE.toml")]
        form: PathBuf,
        /// Where the transaction file goes
        #[arg(short, long, value_name = "OUT")]
        out: PathBuf,
        /// Ask no cluster: take the layout of the genesis, and the keys that accounts started with
        #[arg(long)]
        offline: bool,
    },
    /// Show what a transaction file does, who has to sign it, and what is missing
    #[command(after_help = "Example:\n  seamark tx show trade.tx")]
    Show(TransactionFile),
    /// Sign a transaction file
    #[command(
        after_help = "Example:\n  seamark tx sign trade.tx --key alice\n  seamark tx sign trade.tx --key alice --key bob -o signed.tx"
    )]
    Sign {
        /// The file.
        #[command(flatten)]
        file: TransactionFile,
        /// A key that signs; may be given several times
        #[arg(long, value_name = "NAME", required = true)]
        key: Vec<String>,
        /// Where the signed file goes [default: it replaces the file]
        #[arg(short, long, value_name = "OUT")]
        out: Option<PathBuf>,
    },
    /// Add a signature to a file that others sign, too; shows what is signed first
    #[command(
        after_help = "Example:\n  seamark tx cosign trade.tx --key bob\n  seamark tx cosign trade.tx --with from-carol.tx\n\nFor k-of-n accounts any k of the keys do. Copies that were signed apart are put together\nwith --with."
    )]
    Cosign {
        /// The file.
        #[command(flatten)]
        file: TransactionFile,
        /// A key that signs; may be given several times
        #[arg(long, value_name = "NAME", required_unless_present = "with")]
        key: Vec<String>,
        /// Another copy of the same transaction, whose signatures and openings are taken over
        #[arg(long, value_name = "COPY")]
        with: Vec<PathBuf>,
        /// Where the signed file goes [default: it replaces the file]
        #[arg(short, long, value_name = "OUT")]
        out: Option<PathBuf>,
    },
    /// Write a copy without the openings of hidden moves, but for those of some groups
    #[command(
        after_help = "Example:\n  seamark tx redact trade.tx -o for-bob.tx --keep shard-1\n\nWhoever gets the copy can sign it, and cannot see the hidden moves of other groups."
    )]
    Redact {
        /// The file.
        #[command(flatten)]
        file: TransactionFile,
        /// A group whose openings stay
        #[arg(long, value_name = "GROUP")]
        keep: Vec<String>,
        /// Where the copy goes
        #[arg(short, long, value_name = "OUT")]
        out: PathBuf,
    },
    /// Send a transaction file, or build, sign and send a form at once
    #[command(
        after_help = "Example:\n  seamark tx submit trade.tx\n  seamark tx submit trade.toml --key alice --key bob --wait applied\n\nA file may be sent any number of times and executes once. Each submit of a form makes a new\ntransaction; with --save the transaction is kept as a file before it is sent."
    )]
    Submit {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// A transaction file, or a form that ends in .toml
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// A key that signs; may be given several times
        #[arg(long, value_name = "NAME")]
        key: Vec<String>,
        /// When the command is done
        #[arg(long, value_name = "WHEN", value_enum, default_value_t = TxWait::Applied)]
        wait: TxWait,
        /// Keep the signed transaction in this file
        #[arg(long, value_name = "OUT")]
        save: Option<PathBuf>,
    },
    /// Send a signed transaction again, byte for byte: it executes once, however often it is sent
    #[command(after_help = "Example:\n  seamark tx resubmit 6f1e...\n  seamark tx resubmit payment.tx --wait receipt")]
    Resubmit {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The file with the signed transaction, or the txid of one that is kept in the cluster's folder
        #[arg(value_name = "FILE|TXID")]
        transaction: String,
        /// When the command is done
        #[arg(long, value_name = "WHEN", value_enum, default_value_t = WaitFor::Applied)]
        wait: WaitFor,
    },
    /// Show every group's prepare, vote, hold, mail and resolve, as one tree
    #[command(
        after_help = "Example:\n  seamark tx explain 6f1e...\n  seamark tx explain trade.tx --json\n\nWith a transaction file, hidden moves are shown whose openings it holds."
    )]
    Explain {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// Id of the transaction, or a transaction file
        #[arg(value_name = "ID|FILE")]
        what: String,
    },
}

/// A transaction file, and how it is shown.
#[derive(Debug, Args)]
pub struct TransactionFile {
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
    /// The transaction file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Ask no cluster: assets are shown by their ids
    #[arg(long)]
    pub offline: bool,
}
