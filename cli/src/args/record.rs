//! The grammar of `record`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{InLedger, WaitFor, moment_ms};

/// Whose records are changed, and when that counts as done.
#[derive(Clone, Debug, Args)]
pub struct RecordOwner {
    /// Where.
    #[command(flatten)]
    pub on: InLedger,
    /// The owner's key [default: the cluster's operator, in a folder made by up]
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// When the command is done
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = WaitFor::Applied)]
    pub wait: WaitFor,
}

/// Whose records are looked at.
#[derive(Clone, Debug, Args)]
pub struct RecordsOf {
    /// Where.
    #[command(flatten)]
    pub on: InLedger,
    /// Whose records: an address or a key's name
    #[arg(long, value_name = "ACCOUNT", default_value = "operator")]
    pub owner: String,
}

/// A party that can be granted access.
#[derive(Clone, Debug, Args)]
pub struct PartyArg {
    /// An account: an address or a key's name
    #[arg(long, value_name = "ACCOUNT", required_unless_present = "org", conflicts_with = "org")]
    pub account: Option<String>,
    /// An organisation, by name or number
    #[arg(long, value_name = "ORG")]
    pub org: Option<String>,
}

/// `record`.
#[derive(Debug, Subcommand)]
pub enum Record {
    /// Record the SHA-256 of files under an account: all of them in one transaction, or none
    #[command(
        after_help = "Example:\n  seamark record put contract.pdf --metadata contract-7 --key alice\n  seamark record put a.pdf b.pdf\n  seamark record put contract.pdf --key alice --channel steel --as org-b\n\nThe files stay here; only their hashes are sent. A file whose name is 64 hex digits is named with\nits folder, such as ./NAME."
    )]
    Put {
        /// Whose record it becomes.
        #[command(flatten)]
        owner: RecordOwner,
        /// Files, or hashes of 64 hex digits
        #[arg(value_name = "HASH|FILE", required = true)]
        what: Vec<String>,
        /// Text that is stored with each, at most 1024 bytes
        #[arg(long, default_value = "")]
        metadata: String,
    },
    /// Show the records of an account, and who may do what with them
    #[command(
        after_help = "Example:\n  seamark record show --owner alice\n  seamark record show contract.pdf --owner alice --json"
    )]
    Show {
        /// Whose.
        #[command(flatten)]
        of: RecordsOf,
        /// One of them, by its hash or its file [default: all of them]
        #[arg(value_name = "HASH|FILE")]
        what: Option<String>,
    },
    /// Tell whether an account has recorded a file as it is here, since when, and as what
    #[command(
        after_help = "Example:\n  seamark record verify contract.pdf --owner alice\n  seamark record verify contract.pdf --owner alice --proof contract.proof\n  seamark record verify contract.pdf --owner alice --channel steel --as org-b\n\nThe answer is proved. Ends with 1 where there is no such record."
    )]
    Verify {
        /// Whose.
        #[command(flatten)]
        of: RecordsOf,
        /// The file, or its hash
        #[arg(value_name = "FILE|HASH")]
        what: String,
        /// Write the proof to this file, for 'seamark verify'
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
    },
    /// Grant a party access to a record, in place of what it was granted before
    #[command(
        after_help = "Example:\n  seamark record grant contract.pdf --account bob --scope read --key alice\n  seamark record grant contract.pdf --org org-b --scope audit --until 2030-01-31T12:00:00Z"
    )]
    Grant {
        /// Whose record it is.
        #[command(flatten)]
        owner: RecordOwner,
        /// The record, by its hash or its file
        #[arg(value_name = "HASH|FILE")]
        what: String,
        /// To whom.
        #[command(flatten)]
        party: PartyArg,
        /// To do what: a word that owner and keeper agree on, 1-64 of a-z, 0-9 and -.:/_
        #[arg(long)]
        scope: String,
        /// When it ends, as 2030-01-31T12:00:00Z or milliseconds since 1970 [default: when it is revoked]
        #[arg(long, value_name = "TIME", value_parser = moment_ms)]
        until: Option<u64>,
    },
    /// Revoke what a party was granted of a record
    #[command(after_help = "Example:\n  seamark record revoke contract.pdf --account bob --key alice")]
    Revoke {
        /// Whose record it is.
        #[command(flatten)]
        owner: RecordOwner,
        /// The record, by its hash or its file
        #[arg(value_name = "HASH|FILE")]
        what: String,
        /// Whose access ends.
        #[command(flatten)]
        party: PartyArg,
    },
    /// Tell what a party may do with a record, now or at another time
    #[command(
        after_help = "Example:\n  seamark record access contract.pdf --owner alice --account bob\n  seamark record access contract.pdf --org org-b --at 2026-01-31T12:00:00Z --check"
    )]
    Access {
        /// Whose.
        #[command(flatten)]
        of: RecordsOf,
        /// The record, by its hash or its file
        #[arg(value_name = "HASH|FILE")]
        what: String,
        /// Who asks for access.
        #[command(flatten)]
        party: PartyArg,
        /// When, as 2026-01-31T12:00:00Z or milliseconds since 1970 [default: now]
        #[arg(long, value_name = "TIME", value_parser = moment_ms)]
        at: Option<u64>,
        /// End with 1 when there is no access
        #[arg(long)]
        check: bool,
        /// Write the proof of all that the party was ever granted to this file, for 'seamark verify'
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
    },
    /// Show all that was ever recorded, granted and revoked of a record, oldest first
    #[command(after_help = "Example:\n  seamark record history contract.pdf --owner alice")]
    History {
        /// Whose.
        #[command(flatten)]
        of: RecordsOf,
        /// The record, by its hash or its file
        #[arg(value_name = "HASH|FILE")]
        what: String,
    },
}
