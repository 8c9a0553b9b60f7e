//! `account`: showing an account and changing it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use proto::views::HistoryPlace;

use super::{Freshness, InLedger, Target};

/// `account`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  seamark account alice --history\n  seamark account alice --history --before 1200 --limit 20\n  seamark account sm1... --proof alice.proof && seamark verify alice.proof\n  seamark account alice --channel steel --as org-b\n  seamark account data set alice iban DE02...\n\nA key whose name is that of a subcommand is shown by its address."
)]
pub struct Account {
    /// Where.
    #[command(flatten)]
    pub on: InLedger,
    /// An address or a key's name
    #[arg(required = true)]
    pub address: Option<String>,
    /// Show what happened to it, newest first
    #[arg(long)]
    pub history: bool,
    /// How many lines of history
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Only what is older: lines before this block, or before this line of it
    #[arg(long, value_name = "HEIGHT[:INDEX]", requires = "history")]
    pub before: Option<HistoryPlace>,
    /// Write a proof of the account and all its balances to this file
    #[arg(long, value_name = "FILE")]
    pub proof: Option<PathBuf>,
    /// How fresh the answer must be
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Freshness::Linearizable)]
    pub consistency: Freshness,
    /// Something else than showing it.
    #[command(subcommand)]
    pub command: Option<AccountCommand>,
}

/// An account that is changed, and the key that does it.
#[derive(Debug, Args)]
pub struct Owned {
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
    /// The account: an address or a key's name
    pub account: String,
    /// The key that signs [default: the key of that name]
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
}

/// An amount of an asset.
#[derive(Debug, Args)]
pub struct AmountOf {
    /// How much, in the smallest unit
    #[arg(allow_hyphen_values = true)]
    pub amount: String,
    /// What: an asset's id, ISSUER/SYMBOL, or a symbol of the operator's
    #[arg(long)]
    pub asset: String,
}

/// `account freeze` and so on.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Freeze an account: nothing can be debited until it is thawed
    #[command(
        after_help = "Example:\n  seamark account freeze alice\n\nWhat it is paid meanwhile waits in its suspense."
    )]
    Freeze(Owned),
    /// Thaw an account
    #[command(after_help = "Example:\n  seamark account thaw alice")]
    Thaw(Owned),
    /// Take an amount that arrived while the account was frozen out of its suspense
    #[command(after_help = "Example:\n  seamark account release alice 250 --asset EUR")]
    Release {
        /// Whose.
        #[command(flatten)]
        owned: Owned,
        /// How much.
        #[command(flatten)]
        of: AmountOf,
    },
    /// Send an amount in an account's suspense somewhere else, usually back
    #[command(
        after_help = "Example:\n  seamark account return alice 250 --asset EUR --to bob\n  seamark account return alice 250 --asset EUR --to bob --key operator\n\nThe account itself or the issuer of the asset may do that."
    )]
    Return {
        /// Whose.
        #[command(flatten)]
        owned: Owned,
        /// How much.
        #[command(flatten)]
        of: AmountOf,
        /// Who gets it: an address or a key's name
        #[arg(long, value_name = "ACCOUNT")]
        to: String,
    },
    /// Limit what one transaction may take from an account
    #[command(
        after_help = "Example:\n  seamark account limit alice --asset EUR --per-tx 5000\n  seamark account limit alice --asset EUR --lift"
    )]
    Limit {
        /// Whose.
        #[command(flatten)]
        owned: Owned,
        /// Of what: an asset's id, ISSUER/SYMBOL, or a symbol of the operator's
        #[arg(long)]
        asset: String,
        /// The most that one transaction may take, in the smallest unit
        #[arg(long, value_name = "AMOUNT", required_unless_present = "lift", conflicts_with = "lift")]
        per_tx: Option<String>,
        /// Lift the limit
        #[arg(long)]
        lift: bool,
    },
    /// Read and change what an account says about itself
    #[command(
        subcommand,
        after_help = "Example:\n  seamark account data set alice iban DE02120300000000202051\n  seamark account data get alice"
    )]
    Data(DataCommand),
}

/// `account data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Set an entry
    #[command(after_help = "Example:\n  seamark account data set alice iban DE02120300000000202051")]
    Set {
        /// Whose.
        #[command(flatten)]
        owned: Owned,
        /// Its name: 1 to 64 bytes
        entry: String,
        /// Its value: at most 1024 bytes
        value: String,
    },
    /// Remove an entry
    #[command(after_help = "Example:\n  seamark account data remove alice iban")]
    Remove {
        /// Whose.
        #[command(flatten)]
        owned: Owned,
        /// Its name
        entry: String,
    },
    /// Show one entry, or all
    #[command(after_help = "Example:\n  seamark account data get alice iban\n  seamark account data get alice --json")]
    Get {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The account: an address or a key's name
        account: String,
        /// Its name [default: all entries]
        entry: Option<String>,
    },
}
