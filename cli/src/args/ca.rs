//! `ca`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// A node; its name is node-N
    Node,
    /// A stand-alone router
    Router,
    /// A program or person that submits and reads
    Client,
    /// An administrator of the organisation
    Admin,
    /// One that reads what it was granted
    Auditor,
}

/// `ca new`, `ca issue` and `ca show`.
#[derive(Debug, Subcommand)]
pub enum Ca {
    /// Make an organisation's certificate authority, its key under a passphrase
    #[command(
        after_help = "Example:\n  seamark ca new acme --out acme-ca\n\nacme-ca/ca.pem goes to the others; acme-ca/ca.key stays where certificates are issued. Whoever has\nboth the file and its passphrase can make members of the organisation."
    )]
    New {
        /// The organisation's name
        org: String,
        /// Folder for ca.pem and ca.key
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Issue a certificate with a new key
    #[command(
        after_help = "Example:\n  seamark ca issue node node-7 --ca acme-ca --host n7.acme.example --out node-7\n  seamark ca issue admin carol --ca acme-ca --out carol --days 90"
    )]
    Issue {
        /// What it is for
        role: RoleArg,
        /// Whose it is: 1 to 64 letters, digits, '.', '-' or '_'
        name: String,
        /// Folder of the authority
        #[arg(long, value_name = "FOLDER")]
        ca: PathBuf,
        /// A host name or address that a node or router also answers under
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// Days that it is valid
        #[arg(long, value_name = "N", default_value_t = 397, value_parser = clap::value_parser!(i64).range(1..=397))]
        days: i64,
        /// Folder for NAME.pem and NAME.key
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
        /// File of a passphrase to seal the key under [default: the file 'passphrase' in the folder, which is made if
        /// it is not there]
        #[arg(long, value_name = "FILE", conflicts_with = "plain")]
        passphrase_file: Option<PathBuf>,
        /// Leave the key in the clear, for a program that cannot open a sealed one
        #[arg(long)]
        plain: bool,
    },
    /// Show a certificate: whose, by whom, and how long it is valid
    #[command(after_help = "Example:\n  seamark ca show node-7/node-7.pem")]
    Show {
        /// A PEM file
        file: PathBuf,
    },
}
