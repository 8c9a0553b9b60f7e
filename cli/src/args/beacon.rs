//! The grammar of `beacon`, and of what `node` changes in the registry.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
    /// Show who has to approve what, and what waits for approvals about organisations and policies; or propose another policy
    #[command(
        after_help = "Example:\n  seamark beacon policy\n  seamark beacon policy propose orgs 'all(members.admin)' --as org-a\n  seamark beacon policy propose policy 'majority(members.admin)' --as org-a"
    )]
    Policy(BeaconPolicy),
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
    /// Nodes that vanish: what is done about them, and what was decided
    #[command(
        subcommand,
        after_help = "Example:\n  seamark beacon watch show\n  seamark beacon watch set replace --after 3600 --as org-a"
    )]
    Watch(BeaconWatch),
    /// Show epochs: the policy, the one that runs, and who contributed to the last ones; or change the policy
    #[command(
        after_help = "Example:\n  seamark beacon epoch\n  seamark beacon epoch set --length 86400 --as org-a\n  seamark beacon epoch set --length 0 --as org-a"
    )]
    Epoch(BeaconEpoch),
    /// Show the seed of an epoch with all that went into it, proved and recomputed here
    #[command(after_help = "Example:\n  seamark beacon seed\n  seamark beacon seed 12 --out epochs.proof")]
    Seed {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The epoch [default: the last one that has ended]
        epoch: Option<u64>,
        /// Write the proof of all epochs that are kept into this file
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Recompute why each node has its seats: from the genesis, and from the deals of the epochs that are kept
    #[command(
        after_help = "Example:\n  seamark beacon verify-assignment\n  seamark beacon verify-assignment --file epochs.proof --genesis genesis.json\n\nWith --file it needs no network: 'beacon seed --out' writes the file. Without, the committees in\nforce are told as well, and by which job, deal, drain, join or replacement each node came."
    )]
    VerifyAssignment {
        /// Which cluster, or whose genesis is trusted.
        #[command(flatten)]
        target: Target,
        /// What 'beacon seed --out' wrote [default: the cluster is asked]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The genesis that is trusted [default: the one in the cluster's folder]
        #[arg(long, value_name = "FILE", requires = "file")]
        genesis: Option<PathBuf>,
    },
    /// Show what committees bear, the risk that is left, and what a deal of seats would move; changes nothing
    #[command(
        after_help = "Example:\n  seamark beacon plan\n  seamark beacon plan --bad 8 --risk-max-ppb 1000000\n\nThe risk is the probability that a committee drawn by lot has more bad nodes than it tolerates.\nRefused where it is above the target: that of --risk-max-ppb, or of the policy. Moves are those of\nthe seed of now; the one of the next epoch, which nobody knows, may choose other nodes."
    )]
    Plan {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// Bad nodes, anywhere, to count with [default: those of the policy, else an eighth of the nodes]
        #[arg(long, value_name = "N")]
        bad: Option<u16>,
        /// The largest risk, parts of a thousand million [default: that of the policy]
        #[arg(long, value_name = "PPB")]
        risk_max_ppb: Option<u64>,
    },
    /// Propose that the next epoch evens seats out, or approve that
    #[command(
        after_help = "Example:\n  seamark beacon rebalance --as org-a\n\nDecided with the seed of the epoch that runs, prepared in the next one, in force in the one after,\na few seats at a time; nobody moves without need. Refused while a member of a shard could not give\nits seat, since too few of the others answer. See 'beacon plan' first."
    )]
    Rebalance {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// How long the others may take to approve, minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
        within: u64,
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

/// `beacon policy`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BeaconPolicy {
    /// Changes a policy.
    #[command(subcommand)]
    pub change: Option<PolicyProposal>,
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
}

/// What `beacon policy` changes.
#[derive(Debug, Subcommand)]
pub enum PolicyProposal {
    /// Propose who has to approve a matter, or approve the same proposal of another organisation
    #[command(
        after_help = "Example:\n  seamark beacon policy propose orgs 'all(members.admin)' --as org-a\n  seamark beacon policy propose quarantine 'any(org-a.admin,org-b.admin)' --on 2 --as org-b\n\nMatters: orgs, policy, engines, quarantine, operation, jobs. A policy is written as in\ndocs/channels.md, over the organisations of the cluster as admins; any, all and majority alone are\nmeant over all of them. It is in force once the policy of 'policy' holds."
    )]
    Propose {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// What is decided by it
        #[arg(value_name = "MATTER")]
        matter: String,
        /// The policy
        #[arg(value_name = "POLICY")]
        policy: String,
        /// The revision that it replaces: refused when another one is in force [default: the one in force]
        #[arg(long, value_name = "REVISION")]
        on: Option<u64>,
        /// How long the others may take to approve, minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
        within: u64,
    },
}

/// `beacon epoch`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BeaconEpoch {
    /// Changes the policy.
    #[command(subcommand)]
    pub change: Option<EpochChange>,
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
}

/// What `beacon epoch` changes.
#[derive(Debug, Subcommand)]
pub enum EpochChange {
    /// Propose how long epochs are and what is asked of their deals, or approve the same proposal of another organisation
    #[command(
        after_help = "Example:\n  seamark beacon epoch set --length 86400 --as org-a\n  seamark beacon epoch set --length 86400 --bad 8 --risk-max-ppb 1000000 --as org-a\n\nIt is in force once those have sent exactly this whom 'beacon policy' asks for 'operation', by\ndefault more than half of the organisations. Epochs are off before that. Members of the beacon\ncommit themselves in the first half of an epoch and reveal in the second."
    )]
    Set {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// Length of an epoch, seconds, from 4 seconds to 30 days; 0 switches epochs off
        #[arg(long, value_name = "S")]
        length: u64,
        /// Bad nodes, anywhere, that the target of risk counts with
        #[arg(long, value_name = "N", default_value_t = 0, requires = "risk_max_ppb")]
        bad: u16,
        /// The largest risk of a committee drawn by lot, parts of a thousand million; nothing is dealt above it
        #[arg(long, value_name = "PPB", default_value_t = 0, requires = "bad")]
        risk_max_ppb: u64,
        /// How long the others may take to approve, minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
        within: u64,
    },
}

/// `beacon org`.
#[derive(Debug, Subcommand)]
pub enum OrgChange {
    /// Propose a new organisation, or approve the same proposal of another one
    #[command(
        after_help = "Example:\n  seamark beacon org register org-d --id 4 --ca ca.pem --admin-key 02aa --as org-a\n\nIt joins once those have sent exactly this whom 'beacon policy' asks for 'orgs', by default more\nthan half of the organisations. A proposal lapses with its first approval, after --within."
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
        after_help = "Example:\n  seamark beacon org remove org-c --as org-a\n\nIt is gone once those have sent this whom 'beacon policy' asks for 'orgs', by default more than half\nof the organisations, of which it is one itself. By then it has left its channels, and its nodes\nhave no seats: see 'node drain'. They are struck off, and nobody who has a certificate of its\nauthority is let in. Its number is not given again."
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
    /// Add a node to the registry: one that has a configuration, or a new one whose folder is made here
    #[command(
        after_help = "Example:\n  seamark node register --config node-6/node.toml --peer f.x:7600 --client f.x:7601\n  seamark node register --make --as org-a --peer 127.0.0.1:7650 --client 127.0.0.1:7651\n\nIts certificate must be issued by the organisation's authority; --make issues it, with the authority\nin the cluster's folder, and writes nodes/node-N there. The node gets seats that others leave; with\n'node join' it takes its share. Given again, it goes on where it was."
    )]
    Register(RegisterNode),
    /// Have a registered node take its share of the seats, from those with most, a few at a time
    #[command(
        after_help = "Example:\n  seamark node join 6\n\nThe node has to run. It fetches the state of each group first; payments go on. Prints what is still\nmissing when --wait is over, and goes on where it was when it is given again. Refused while a node\nthat could give it a seat is in a group in which another member does not answer."
    )]
    Join(OneNode),
    /// Change a node's weight when seats are given; 0 is the same as draining it
    #[command(after_help = "Example:\n  seamark node capacity 4 2\n\nWith 0 it is refused where 'node drain' is.")]
    Capacity {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The node
        node: u32,
        /// Its weight, at most 1000
        capacity: u16,
    },
    /// Move all seats of a node to others
    #[command(
        after_help = "Example:\n  seamark node drain 4\n  seamark node drain 4 --wait 0\n\nOther nodes fetch the state, and node 4 removes its own as it leaves each group. Whether it runs or\nnot, it is decided at once, and goes on when --wait is over. Refused where a group would have no\nquorum of members that answer, or none after one more failure."
    )]
    Drain(OneNode),
    /// Drain a node, and strike it off when it has no seat; its number and its key are not given again
    #[command(
        after_help = "Example:\n  seamark node leave 4\n\nOne that a channel names cannot leave. Stop the node afterwards."
    )]
    Leave(OneNode),
    /// Give all seats of a node that is gone for good to another one of its organisation
    #[command(
        after_help = "Example:\n  seamark node replace 4 6\n\nNode 6 is registered and runs. All groups are planned at once; node 4 need not answer, and must not\ncome back. Strike it off afterwards: seamark node leave 4"
    )]
    Replace {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The node that is gone
        #[arg(value_name = "OLD")]
        node: u32,
        /// The one that takes its seats
        #[arg(value_name = "NEW")]
        successor: u32,
        /// How long to wait until it is done, seconds; it comes in any case
        #[arg(long, value_name = "S", default_value_t = 600)]
        wait: u64,
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
    /// Replace the key that a node signs headers and votes with, while it runs
    #[command(
        after_help = "Example:\n  seamark node rotate-key 4\n  seamark node rotate-key 4 --config /srv/node-4/node.toml --as org-a\n\nMakes the next key beside the one in force, sealed under the node's passphrase, and has the beacon\ntake it; nothing is restarted. Each group takes it at a block of its own, and what was certified\nbefore stays provable. The key before is removed when no group needs it. Given again, it goes on\nwhere it was; with --anew it begins with a key that follows the one under way, which is taken an\nhour behind that one where a group without a quorum does not take it. Refused while a group of the\nnode is being changed."
    )]
    RotateKey {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// The node
        node: u32,
        /// The node's configuration [default: that in the cluster's folder]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How long to wait until it is done, seconds; it comes in any case
        #[arg(long, value_name = "S", default_value_t = 600)]
        wait: u64,
        /// Begin with another key, though a group still has to take the one under way
        #[arg(long)]
        anew: bool,
    },
}

/// A node that is to do something, and how long that is watched.
#[derive(Clone, Debug, Args)]
pub struct OneNode {
    /// Who signs.
    #[command(flatten)]
    pub admin: Admin,
    /// The node
    pub node: u32,
    /// How long to wait until it is done, seconds; it comes in any case
    #[arg(long, value_name = "S", default_value_t = 600)]
    pub wait: u64,
}

/// `node register`.
#[derive(Clone, Debug, Args)]
pub struct RegisterNode {
    /// Who signs.
    #[command(flatten)]
    pub admin: Admin,
    /// The configuration of a node that has its folder
    #[arg(long, value_name = "FILE", required_unless_present = "make")]
    pub config: Option<PathBuf>,
    /// Make the folder of a new node of the organisation, with keys, certificate and configuration
    #[arg(long, conflicts_with = "config")]
    pub make: bool,
    /// The number of the new node [default: the lowest above all that were ever given]
    #[arg(long, value_name = "N", requires = "make", value_parser = clap::value_parser!(u32).range(1..))]
    pub id: Option<u32>,
    /// Where other nodes reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: String,
    /// Where clients reach its router
    #[arg(long, value_name = "HOST:PORT")]
    pub client: String,
    /// Its failure zone [default: none; with --make its organisation's]
    #[arg(long)]
    pub zone: Option<String>,
    /// Its weight when seats are given
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub capacity: u16,
}

/// `beacon watch`.
#[derive(Debug, Subcommand)]
pub enum BeaconWatch {
    /// Show the policy, who is silent, and what was decided
    #[command(after_help = "Example:\n  seamark beacon watch show\n  seamark beacon watch show --json")]
    Show {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
    },
    /// Propose what is done about nodes that vanish, or approve the same proposal of another organisation
    #[command(
        after_help = "Example:\n  seamark beacon watch set dry-run --after 600 --as org-a\n  seamark beacon watch set replace --after 3600 --at-most 2 --as org-a\n  seamark beacon watch set off --as org-a\n\nIt is in force once those have sent exactly this whom 'beacon policy' asks for 'operation', by\ndefault more than half of the organisations. A node has vanished when most nodes, of most\norganisations, have not heard of it for that long."
    )]
    Set {
        /// Who signs.
        #[command(flatten)]
        admin: Admin,
        /// What is done
        #[arg(value_name = "MODE", value_enum)]
        mode: WatchArg,
        /// How long a node has to be silent, seconds
        #[arg(long, value_name = "S", default_value_t = 3600)]
        after: u64,
        /// Nodes that may be out by this policy at a time
        #[arg(long, value_name = "N", default_value_t = 1)]
        at_most: u16,
        /// How long the others may take to approve, minutes
        #[arg(long, value_name = "MINUTES", default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=1440))]
        within: u64,
    },
}

/// What is done about a node that has vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchArg {
    /// Nothing
    Off,
    /// Write down what would be done
    DryRun,
    /// Give its seats to other nodes
    Replace,
}
