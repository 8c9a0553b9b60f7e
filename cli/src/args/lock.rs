//! The grammar of `lock`, `claim` and `refund`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{InLedger, WaitFor};

/// How far ahead a deadline may lie, minutes: 366 days, as the ledger has it.
const FOR_MINUTES_MAX: u64 = ledger::limits::LOCK_FOR_MS_MAX / 60_000;

/// `lock`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  seamark lock new-secret swap.secret\n  seamark lock bob 250 --asset EUR --secret-file swap.secret --until 120 --key alice\n  seamark lock bob 250 --asset EUR --hash 9f86... --until 60\n  seamark lock show 6f1e... --from alice\n  seamark lock bob 250 --asset EUR --hash 9f86... --until 60 --channel steel\n\nWhoever has the secret answers the other side's lock with a longer deadline than that one has."
)]
pub struct Lock {
    /// Where.
    #[command(flatten)]
    pub on: InLedger,
    /// Whom a claim pays: an address or a key's name
    #[arg(value_name = "PAYEE", required = true)]
    pub to: Option<String>,
    /// How much, in the smallest unit
    #[arg(required = true, allow_hyphen_values = true)]
    pub amount: Option<String>,
    /// What: an asset's id, ISSUER/SYMBOL, or a symbol of the operator's
    #[arg(long, required = true)]
    pub asset: Option<String>,
    /// The SHA-256 of the secret: 64 hex digits
    #[arg(long, value_name = "HEX", required_unless_present = "secret_file", conflicts_with = "secret_file")]
    pub hash: Option<String>,
    /// A file with the secret, of which only the hash is sent
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Minutes from now until it can no longer be claimed, only refunded
    #[arg(long, value_name = "MINUTES", required = true, value_parser = clap::value_parser!(u64).range(1..=FOR_MINUTES_MAX))]
    pub until: Option<u64>,
    /// The payer's key [default: the cluster's operator, in a folder made by up]
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// Text that is stored with the transaction, at most 256 bytes
    #[arg(long, default_value = "")]
    pub memo: String,
    /// When the command is done
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = WaitFor::Applied)]
    pub wait: WaitFor,
    /// Something else than locking.
    #[command(subcommand)]
    pub command: Option<LockCommand>,
}

/// `lock new-secret` and `lock show`.
#[derive(Debug, Subcommand)]
pub enum LockCommand {
    /// Draw a secret of 32 bytes into a new file, and print its SHA-256
    #[command(
        after_help = "Example:\n  seamark lock new-secret swap.secret\n\nWhoever reads the file can claim what is locked against the hash."
    )]
    NewSecret {
        /// The file that is made, as 64 hex digits, readable by its owner alone
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show a lock: its terms, and what became of it; of a claimed one the secret
    #[command(
        after_help = "Example:\n  seamark lock show 6f1e... --from alice\n  seamark lock show 6f1e... --from alice --proof swap.proof\n\nThe answer is proved."
    )]
    Show {
        /// Where.
        #[command(flatten)]
        on: InLedger,
        /// Id of the lock: 64 hex digits
        lock: String,
        /// The payer: an address or a key's name
        #[arg(long, value_name = "ACCOUNT", default_value = "operator")]
        from: String,
        /// Write the proof to this file, for 'seamark verify'
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
    },
}

/// `claim`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark claim 6f1e... --from alice --secret-file swap.secret\n  seamark claim 6f1e... --from alice --secret 2c26...\n  seamark claim 6f1e... --from alice --secret-file swap.secret --channel steel --as org-b\n\nNo key is needed: the secret authorises, and a claim pays nobody but the payee. On the command line\na secret may be seen by other users of this machine before it is sent."
)]
pub struct Claim {
    /// Where.
    #[command(flatten)]
    pub on: InLedger,
    /// Id of the lock: 64 hex digits
    pub lock: String,
    /// The payer: an address or a key's name
    #[arg(long, value_name = "ACCOUNT", default_value = "operator")]
    pub from: String,
    /// The secret: 64 hex digits
    #[arg(long, value_name = "HEX", required_unless_present = "secret_file", conflicts_with = "secret_file")]
    pub secret: Option<String>,
    /// A file with the secret, as 'lock new-secret' makes it
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// When the command is done
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = WaitFor::Applied)]
    pub wait: WaitFor,
}

/// `refund`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark refund 6f1e... --key alice\n\nAt or after the deadline, by the payer alone."
)]
pub struct Refund {
    /// Where.
    #[command(flatten)]
    pub on: InLedger,
    /// Id of the lock: 64 hex digits
    pub lock: String,
    /// The payer's key [default: the cluster's operator, in a folder made by up]
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// When the command is done
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = WaitFor::Applied)]
    pub wait: WaitFor,
}
