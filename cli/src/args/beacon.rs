//! The grammar of `beacon`, and of what `node` changes in the registry.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Target;

/// Whose command it is: it is signed with the organisation's admin key.
#[derive(Clone, Debug, Args)]
pub struct Admin {
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
    /// The organisation by its name [default: the node's, or the only one whose key is in the folder]
    #[arg(long = "as", value_name = "ORG")]
    pub org: Option<String>,
    /// Its admin's signing key, sealed or 64 hex digits [default: admin/ORG/signing.key in the cluster's folder]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// `beacon`.
#[derive(Debug, Subcommand)]
pub enum Beacon {
    /// Show nodes and committees as the registry has them
    #[command(after_help = "Example:\n  seamark beacon show\n  seamark beacon show --json")]
    Show {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
    },
    /// Admit an organisation, let one go, or change one's own entry
    #[command(
        subcommand,
        after_help = "Example:\n  seamark beacon org register org-d --id 4 --ca ca.pem --admin-key 02aa\n  seamark beacon org remove org-d --as org-a\n  seamark beacon org ca --as org-a new-ca.pem"
    )]
    Org(OrgChange),
    /// Replace an organisation's admin key; the old one signs this, and nothing after it
    #[command(
        after_help = "Example:\n  seamark beacon rotate-key --as org-a new.key\n\nThe file holds the new signing key, 64 hex digits, or sealed by 'key seal'. Put it in the place of\nthe old one afterwards."
    )]
    RotateKey {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// File of the new signing key
        #[arg(value_name = "FILE")]
        new: PathBuf,
    },
    /// Revoke a certificate or a key of an organisation, for good and everywhere
    #[command(
        after_help = "Example:\n  seamark beacon revoke --as org-a client-7.pem\n\nNodes, routers and channels refuse it from then on, also on connections that stand. The\ncertificate of a node is replaced first, with 'node tls'."
    )]
    Revoke {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The certificate in PEM, or the SHA-256 of its public key info, or of a key, as 64 hex digits
        #[arg(value_name = "FILE|HASH")]
        what: String,
    },
}

/// `beacon org`.
#[derive(Debug, Subcommand)]
pub enum OrgChange {
    /// Propose a new organisation, or approve the same proposal of another one
    #[command(
        after_help = "Example:\n  seamark beacon org register org-d --id 4 --ca ca.pem --admin-key 02aa --as org-a\n\nIt joins once more than half of the organisations have sent exactly this. A proposal lapses with\nits first approval, after --within."
    )]
    Register {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// Its name
        name: String,
        /// Its number, which no other organisation has
        #[arg(long, value_name = "N")]
        id: u16,
        /// Its CA certificate in PEM
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
        /// Its admin's public key, 66 hex digits
        #[arg(long, value_name = "HEX")]
        admin_key: String,
        /// How long the others may take to approve, minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
        within: u64,
    },
    /// Propose that an organisation leaves the cluster, or approve the same proposal of another one
    #[command(
        after_help = "Example:\n  seamark beacon org remove org-c --as org-a\n\nIt is gone once more than half of the organisations have sent this, of which it is one itself. By\nthen it has left its channels, and its nodes have no seats: see 'node drain'. They are struck off,\nand nobody who has a certificate of its authority is let in. Its number is not given again."
    )]
    Remove {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The organisation, by name or number
        #[arg(value_name = "ORG")]
        removed: String,
        /// How long the others may take to approve, minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
        within: u64,
    },
    /// Replace the organisation's CA certificate
    #[command(after_help = "Example:\n  seamark beacon org ca --as org-a new-ca.pem")]
    Ca {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The new certificate in PEM
        #[arg(value_name = "FILE")]
        ca: PathBuf,
    },
}

/// `node register` and what changes a node that is registered.
#[derive(Debug, Subcommand)]
pub enum NodeChange {
    /// Add a node to the registry; its configuration says which, with which keys
    #[command(
        after_help = "Example:\n  seamark node register --config node-6/node.toml --peer f.x:7600 --client f.x:7601\n\nIts certificate must be issued by the organisation's authority. It gets seats that others\nleave, and in groups that are founded later."
    )]
    Register {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The node's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where other nodes reach it
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// Where clients reach its router
        #[arg(long, value_name = "HOST:PORT")]
        client: String,
        /// Its failure zone
        #[arg(long, default_value = "")]
        zone: String,
        /// Its weight when seats are given
        #[arg(long, value_name = "N", default_value_t = 1)]
        capacity: u16,
    },
    /// Change a node's weight when seats are given; 0 is the same as draining it
    #[command(after_help = "Example:\n  seamark node capacity 4 2")]
    Capacity {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The node
        node: u32,
        /// Its weight, at most 1000
        capacity: u16,
    },
    /// Move all seats of a node to others, but for one in the beacon
    #[command(
        after_help = "Example:\n  seamark node drain 4\n\nIt is decided when the command returns; 'beacon show' tells how many seats are left. Other nodes\nfetch the state, and node 4 removes its own as it leaves each group."
    )]
    Drain {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The node
        node: u32,
    },
    /// Change where a node is reached
    #[command(after_help = "Example:\n  seamark node address 4 --peer d.x:7600 --client d.x:7601")]
    Address {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The node
        node: u32,
        /// Where other nodes reach it
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// Where clients reach its router
        #[arg(long, value_name = "HOST:PORT")]
        client: String,
    },
    /// Announce a node's new TLS certificate, before the node is started with it
    #[command(after_help = "Example:\n  seamark node tls 4 node-4/new.pem")]
    Tls {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The node
        node: u32,
        /// The new certificate in PEM
        #[arg(value_name = "FILE")]
        cert: PathBuf,
    },
}
