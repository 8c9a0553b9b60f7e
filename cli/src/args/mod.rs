//! The grammar of the command line. No logic: what an option means is in its command's file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::history::Order;

mod account;
mod audit;
mod beacon;
mod bench;
mod ca;
mod channel;
mod channel_changes;
mod evidence;
mod group;
mod lock;
mod record;
mod scale;
mod shard;
mod tx;

pub use account::{Account, AccountCommand, AmountOf, DataCommand, Owned};
pub use audit::Audit;
pub use beacon::{
    Admin, Beacon, BeaconEpoch, BeaconPolicy, BeaconWatch, EpochChange, NodeChange, OneNode, OrgChange, PolicyProposal,
    RegisterNode, WatchArg,
};
pub use bench::{Bench, BenchChannels, BenchEngines, BenchJoin, BenchSwitch, BenchTakeover};
pub use ca::{Ca, RoleArg};
pub use channel::{
    Channel, ChannelKey, ConsensusArg, CreateChannel, InChannel, KeyRole, OwnNodes, Proposed, Proposing,
};
pub use channel_changes::{
    AnchorsChange, ChannelAnchors, ChannelAudit, ChannelPolicy, GrantAudit, PolicyChange, RevokeAudit,
};
pub use evidence::Evidence;
pub use group::Group;
pub use lock::{Claim, Lock, LockCommand, Refund};
pub use record::{PartyArg, Record, RecordOwner, RecordsOf};
pub use scale::SimScale;
pub use shard::{How, PlanShard, ScaleArg, Seat, SetScale, Shard, ShardScale};
pub use tx::{TransactionFile, Tx, TxCommand, TxWait};

/// Seamark: a sharded ledger cluster for consortia.
#[derive(Debug, Parser)]
#[command(
    name = "seamark",
    version,
    about = "Seamark: a sharded ledger cluster for consortia",
    after_help = "Example:\n  seamark demo                     a cluster settles a real block of transactions\n  seamark up                       a local cluster in the foreground\n  seamark status                   how it is doing"
)]
pub struct Cli {
    /// Print one JSON object on stdout instead of text
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// What to log on stderr, such as info or info,openraft=warn [default: $RUST_LOG, else warn]
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Everywhere")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster a command talks to.
#[derive(Clone, Debug, Default, Args)]
pub struct Target {
    /// Folder of the cluster [default: $SEAMARK_DIR, else ~/.seamark/dev]
    #[arg(long, value_name = "D")]
    pub dir: Option<PathBuf>,
}

/// The ledger that a command is about, and who asks there.
#[derive(Clone, Debug, Default, Args)]
pub struct InLedger {
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
    /// Inside a channel: a name of 'seamark channel ls', or channel-N [default: on the main ledger]
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// The organisation that asks in the channel, by its admin's certificate in the cluster's folder [default: whose certificate the profile has]
    #[arg(long = "as", value_name = "ORG", requires = "channel")]
    pub asking: Option<String>,
}

/// Where client signatures are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// Once, where a transaction enters
    Ingest,
    /// By every replica before it attests
    Every,
}

impl From<Verify> for ledger::genesis::VerifyMode {
    fn from(verify: Verify) -> Self {
        match verify {
            Verify::Ingest => Self::Ingest,
            Verify::Every => Self::Every,
        }
    }
}

/// The shape of a new cluster.
#[derive(Clone, Debug, Default, Args)]
pub struct Shape {
    /// Nodes [default: 5; with --consensus bft 4]
    #[arg(long, value_name = "N")]
    pub nodes: Option<u32>,
    /// Shards of the main ledger [default: 4]
    #[arg(long, value_name = "N")]
    pub shards: Option<u32>,
    /// Replicas of each shard [default: 3; with --consensus bft 4]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u16>,
    /// Organisations that own the nodes [default: 3; with --consensus bft 4]
    #[arg(long, value_name = "N")]
    pub orgs: Option<u16>,
    /// Where client signatures are checked [default: every with several organisations, else ingest]
    #[arg(long, value_name = "MODE")]
    pub verify: Option<Verify>,
    /// What orders the shards: raft, where nodes may stop, or bft, where some of them may lie [default: raft]
    #[arg(long, value_name = "ENGINE", value_enum)]
    pub consensus: Option<ConsensusArg>,
    /// What orders the beacon [default: as the shards]
    #[arg(long, value_name = "ENGINE", value_enum)]
    pub beacon_consensus: Option<ConsensusArg>,
    /// Who has to approve orgs, policy, engines, quarantine, operation or jobs; may be given several times [default: majority]
    #[arg(long, value_name = "MATTER=POLICY")]
    pub policy_for: Vec<String>,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole local cluster in the foreground; makes it, or resumes it
    Up(Up),
    /// Write a genesis and a folder for each node, for several machines
    Init(Init),
    /// Run one node from its configuration, or check or rebuild its data offline
    Node(Node),
    /// Run a stand-alone router
    Router(Router),
    /// Show the registry, and change it in the name of an organisation
    #[command(
        subcommand,
        after_help = "Example:\n  seamark beacon show\n  seamark beacon rotate-key --as org-a new.key\n  seamark beacon org register org-d --id 4 --ca ca.pem --admin-key 02aa"
    )]
    Beacon(Beacon),
    /// Found channels, govern them, and show how they are doing
    #[command(
        subcommand,
        after_help = "Example:\n  seamark channel create steel --as org-a --members org-a,org-b,org-c\n  seamark channel approve steel --as org-b\n  seamark channel ls\n  seamark channel freeze steel --as org-a"
    )]
    Channel(Channel),
    /// Change what orders a group that runs
    #[command(
        subcommand,
        after_help = "Example:\n  seamark group consensus shard-0 bft --dry-run\n  seamark group consensus shard-0 bft --as org-a"
    )]
    Group(Group),
    /// Show shards, and cut, join and move them while they run
    #[command(
        subcommand,
        after_help = "Example:\n  seamark shard ls\n  seamark shard plan split shard-2\n  seamark shard split shard-2 --as org-a\n  seamark shard status"
    )]
    Shard(Shard),
    /// Show every group: leader, height, root, lag, rate, and what is wrong
    Status(Status),
    /// Make and show keys of accounts; seal the private keys of nodes and organisations
    #[command(
        subcommand,
        after_help = "Example:\n  seamark key new alice\n  seamark key list\n  seamark key seal net/nodes/node-1"
    )]
    Key(Key),
    /// Make certificate authorities and certificates, and show them
    #[command(
        subcommand,
        after_help = "Example:\n  seamark ca new acme --out acme-ca\n  seamark ca issue client shop --ca acme-ca --out shop\n  seamark ca show shop/shop.pem"
    )]
    Ca(Ca),
    /// Issue and show assets
    #[command(
        subcommand,
        after_help = "Example:\n  seamark asset issue EUR --decimals 2 --supply 1000000 --to alice\n  seamark asset show EUR"
    )]
    Asset(Asset),
    /// Pay from an account to another
    Pay(Pay),
    /// Set an amount aside until a secret is shown, or a deadline has passed
    Lock(Lock),
    /// Pay a lock to its payee, by its secret
    Claim(Claim),
    /// Take back what a lock holds, after its deadline
    Refund(Refund),
    /// Record hashes of files, grant and revoke access to them, and look them up
    #[command(
        subcommand,
        after_help = "Example:\n  seamark record put contract.pdf --metadata contract-7\n  seamark record verify contract.pdf\n  seamark record grant contract.pdf --account bob --scope read\n  seamark record access contract.pdf --account bob"
    )]
    Record(Record),
    /// Show an account, or change it
    Account(Account),
    /// Show what became of a transaction; build, sign and submit transactions of many moves
    Tx(Tx),
    /// Show a block
    Block(Block),
    /// Check a proof file offline
    Verify(VerifyFile),
    /// Show what proves that members of Byzantine groups have lied
    #[command(
        subcommand,
        after_help = "Example:\n  seamark evidence ls\n  seamark evidence show 4f0c19 --out node-3.evidence\n  seamark evidence verify node-3.evidence"
    )]
    Evidence(Evidence),
    /// Show and judge what the beacon has found in the chains of all groups
    #[command(
        subcommand,
        after_help = "Example:\n  seamark audit status\n  seamark audit report --out cluster.audit\n  seamark audit release shard-0 --as org-a"
    )]
    Audit(Audit),
    /// Send real history through the router and check the final state
    Replay(Replay),
    /// Start a cluster, settle a real block of transactions on it, and report
    Demo(Demo),
    /// Measure the sustained rate against the verify bound of this machine
    Bench(Bench),
    /// Run the deterministic simulator
    Sim(Sim),
}

/// `up`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark up --nodes 5 --shards 4\n  seamark up --dir /tmp/two --processes --base-port 7800\n  seamark up --consensus bft\n\nThe cluster stays in its folder; the same command resumes it. Ctrl-C stops it."
)]
pub struct Up {
    /// Where the cluster is.
    #[command(flatten)]
    pub target: Target,
    /// What a new cluster is like.
    #[command(flatten)]
    pub shape: Shape,
    /// One process for each node instead of one for all
    #[arg(long)]
    pub processes: bool,
    /// First of two ports for each node [default: ports that are free]
    #[arg(long, value_name = "PORT")]
    pub base_port: Option<u16>,
}

/// `init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark init --dir net --node 1=a.x:7600:7601,1 --node 2=b.x:7600:7601,2 --node 3=c.x:7600:7601,3\n  seamark init --dir net --orgs 2 --ca org-a=/secure/acme-ca\n\nCopy nodes/node-N to its machine and run there: seamark node --config node-N/node.toml"
)]
pub struct Init {
    /// Where the files go.
    #[command(flatten)]
    pub target: Target,
    /// What the cluster is like.
    #[command(flatten)]
    pub shape: Shape,
    /// A node: ID=HOST:PEERPORT:CLIENTPORT,ORG with ids and organisations counted from 1
    #[arg(long = "node", value_name = "NODE", conflicts_with_all = ["nodes", "orgs"])]
    pub node: Vec<String>,
    /// An organisation's own authority, ORG=FOLDER with ca.pem and ca.key; it issues the certificates, and its key is
    /// not copied. Organisations without one get a new authority
    #[arg(long, value_name = "ORG=FOLDER")]
    pub ca: Vec<String>,
    /// File of a passphrase to seal all private keys under; it is not copied [default: a new one for each folder with
    /// keys, in its file 'passphrase']
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Name of the cluster, for people
    #[arg(long, default_value = "seamark")]
    pub name: String,
    /// First of two ports for each node when nodes are on this machine
    #[arg(long, value_name = "PORT", default_value_t = 7600)]
    pub base_port: u16,
}

/// `node`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  seamark node --config net/nodes/node-1/node.toml\n  seamark node check net/nodes/node-1/data\n  seamark node rebuild --config net/nodes/node-1/node.toml shard-0\n  seamark node capacity 4 2"
)]
pub struct Node {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File of the passphrase of the node's keys, in the place of passphrase_file in its configuration
    #[arg(long, value_name = "FILE", requires = "config")]
    pub passphrase_file: Option<PathBuf>,
    /// Stop when stdin closes, as it does when the process that started this one ends
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// Something else than running it.
    #[command(subcommand)]
    pub command: Option<NodeCommand>,
}

/// `node check`, `node rebuild`, and changes of a node's entry in the registry.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Verify the data folder of a stopped node: every file, checksum and log entry
    #[command(after_help = "Example:\n  seamark node check ~/.seamark/dev/nodes/node-1/data")]
    Check {
        /// The data folder, or a folder above it
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Set a damaged replica's files aside, so that the next start builds it anew from the others
    #[command(
        after_help = "Example:\n  seamark node rebuild --config ~/.seamark/dev/nodes/node-2/node.toml shard-0\n\nThe node must be stopped. data/GROUP/state and data/GROUP/snapshots are moved to\ndata/GROUP/aside-N; nothing is removed. The log stays: it holds the votes. Start the node after\nthat: it fetches a snapshot from another member, or executes its log again where that goes back to\nthe beginning."
    )]
    Rebuild {
        /// The node's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The group: beacon or shard-N
        #[arg(value_name = "GROUP")]
        group: String,
    },
    /// Replace the storage key of a stopped node; what it keeps of channels is sealed under the new one
    #[command(
        after_help = "Example:\n  seamark node storage-key --config ~/.seamark/dev/nodes/node-2/node.toml\n\nThe local keys of its channels are sealed anew and stay what they are. Whoever had the old storage\nkey and the folder of a channel has read the local key; a node that leaves a channel and joins anew\ngets another one."
    )]
    StorageKey {
        /// The node's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Change a node's entry in the registry of a running cluster.
    #[command(flatten)]
    Change(NodeChange),
}

/// `router`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark router --dir ~/.seamark/dev --listen 127.0.0.1:7700\n  seamark router --config router.toml"
)]
pub struct Router {
    /// The router's configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "listen"])]
    pub config: Option<PathBuf>,
    /// Folder of the cluster: a certificate is issued, and router.toml is written there
    #[arg(long, value_name = "D")]
    pub dir: Option<PathBuf>,
    /// Where clients are answered
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7700")]
    pub listen: String,
}

/// `status`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  seamark status\n  seamark status --check --json")]
pub struct Status {
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
    /// End with 1 when something is wrong
    #[arg(long)]
    pub check: bool,
    /// How long the rate is measured, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub measure_ms: u64,
}

/// `key`.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key and store it encrypted
    #[command(after_help = "Example:\n  SEAMARK_PASSPHRASE=... seamark key new alice")]
    New {
        /// Which cluster's keystore.
        #[command(flatten)]
        target: Target,
        /// Its name in the keystore
        name: String,
    },
    /// Show the address and public key of a key
    #[command(after_help = "Example:\n  seamark key show alice")]
    Show {
        /// Which cluster's keystore.
        #[command(flatten)]
        target: Target,
        /// Its name in the keystore
        name: String,
    },
    /// List all keys
    #[command(after_help = "Example:\n  seamark key list")]
    List {
        /// Which cluster's keystore.
        #[command(flatten)]
        target: Target,
    },
    /// Seal private keys of nodes, organisations and certificates where they lie
    #[command(
        after_help = "Example:\n  seamark key seal net/nodes/node-1\n  seamark key seal net\n  seamark key seal admin/org-a --passphrase-file /run/secrets/org-a\n\nIn a folder, everything that is a private key in the clear is sealed, in the folders below it, too.\nKeys that are sealed under another passphrase, which is found as always, are sealed under the one\nthat is named here. Doing it again changes nothing."
    )]
    Seal {
        /// Key files, or folders with keys
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        /// File of the passphrase [default: passphrase_file of node.toml, the file 'passphrase' beside the keys,
        /// $SEAMARK_PASSPHRASE, a systemd credential, or a new one in 'passphrase' beside the keys]
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Print a sealed private key in the clear, for a program that cannot open it
    #[command(
        after_help = "Example:\n  seamark key reveal client/client.key\n  seamark key reveal nodes/node-1/node.key --passphrase-file /run/secrets/node-1\n\nA key of a certificate is printed in PEM, others as 64 hex digits."
    )]
    Reveal {
        /// The key file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// File of the passphrase [default: as for 'key seal']
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
}

/// `asset`.
#[derive(Debug, Subcommand)]
pub enum Asset {
    /// Define an asset, and create its first supply
    #[command(after_help = "Example:\n  seamark asset issue EUR --decimals 2 --supply 1000000 --to alice")]
    Issue {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// Short name: 1-16 letters, digits, '-' or '.'
        symbol: String,
        /// Name for people
        #[arg(long, default_value = "")]
        name: String,
        /// Digits after the point when amounts are shown
        #[arg(long, default_value_t = 0)]
        decimals: u8,
        /// Supply to create at once, in the smallest unit
        #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
        supply: Option<String>,
        /// Who gets the supply: an address or a key's name [default: the issuer]
        #[arg(long, value_name = "ACCOUNT", requires = "supply")]
        to: Option<String>,
        /// The issuer's key [default: the cluster's operator, in a folder made by up]
        #[arg(long, value_name = "NAME")]
        key: Option<String>,
    },
    /// Show the definition of an asset
    #[command(
        after_help = "Example:\n  seamark asset show EUR\n  seamark asset show 00112233445566778899aabbccddeeff\n  seamark asset show EUR --channel steel --as org-a\n\nOf a channel, it tells how much of the asset is there in all, to those who may read it:\nits members, and auditors of the asset."
    )]
    Show {
        /// Which cluster, and in which ledger.
        #[command(flatten)]
        on: InLedger,
        /// Its id, ISSUER/SYMBOL, or a symbol of the operator's
        asset: String,
    },
    /// Freeze what an account holds of an asset: debits of it are refused from now on
    #[command(
        after_help = "Example:\n  seamark asset freeze bob --asset EUR\n  seamark asset freeze sm1... --asset alice/USD --key alice\n\nHolds that exist are not touched. What the account is paid meanwhile waits in its suspense."
    )]
    Freeze(FreezeAsset),
    /// Thaw what an account holds of an asset
    #[command(
        after_help = "Example:\n  seamark asset thaw bob --asset EUR\n  seamark asset thaw sm1... --asset alice/USD --key alice"
    )]
    Thaw(FreezeAsset),
}

/// `asset freeze` and `asset thaw`.
#[derive(Debug, Args)]
pub struct FreezeAsset {
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
    /// Whose holdings: an address or a key's name
    pub account: String,
    /// Of what: an asset's id, ISSUER/SYMBOL, or a symbol of the operator's
    #[arg(long)]
    pub asset: String,
    /// The issuer's key [default: the cluster's operator, in a folder made by up]
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
}

/// `pay`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark pay bob 250 --asset EUR --key alice\n  seamark pay sm1... 250 --asset EUR --wait receipt\n  seamark pay bob 250 --asset EUR --key alice --channel steel --as org-b\n\nAmounts are whole numbers of the asset's smallest unit."
)]
pub struct Pay {
    /// Where.
    #[command(flatten)]
    pub on: InLedger,
    /// Who is paid: an address or a key's name
    pub to: String,
    /// How much, in the smallest unit
    #[arg(allow_hyphen_values = true)]
    pub amount: String,
    /// What: an asset's id, ISSUER/SYMBOL, or a symbol of the operator's
    #[arg(long)]
    pub asset: String,
    /// The payer's key [default: the cluster's operator, in a folder made by up]
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// Text that is stored with the payment, at most 256 bytes
    #[arg(long, default_value = "")]
    pub memo: String,
    /// When the command is done
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = WaitFor::Applied)]
    pub wait: WaitFor,
}

/// Takes a moment of the command line: as RFC 3339 has it, or milliseconds since 1970.
pub(crate) fn moment_ms(text: &str) -> Result<u64, String> {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    let ms = parsed.and_then(|moment| u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok());
    ms.ok_or_else(|| format!("'{text}' is no moment: write it as 2026-01-31T12:00:00Z"))
}

/// When a payment counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitFor {
    /// Final in the payer's group
    Receipt,
    /// Credited to the payee
    Applied,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Freshness {
    /// Reflects everything acknowledged before
    Linearizable,
    /// Whatever a replica has
    Stale,
}

/// `block`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  seamark block shard-0 12\n  seamark block beacon 1 --json")]
pub struct Block {
    /// Which cluster.
    #[command(flatten)]
    pub target: Target,
    /// The group: beacon, shard-N or channel-N
    pub group: String,
    /// Height of the block
    pub height: u64,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark verify alice.proof --genesis genesis.json\n  seamark verify steel.receipt\n\nNeeds no network: proof, header, certificate and committee are followed to the genesis."
)]
pub struct VerifyFile {
    /// Whose genesis is trusted when none is named.
    #[command(flatten)]
    pub target: Target,
    /// The proof file, the exclusion receipt, or the evidence
    pub file: PathBuf,
    /// The genesis that is trusted [default: the one in the cluster's folder]
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
}

/// How a load is sent.
#[derive(Clone, Debug, Args)]
pub struct Sending {
    /// Which payments may be in flight at once
    #[arg(long, value_enum, default_value_t = OrderArg::Causal)]
    pub order: OrderArg,
    /// Payments a second at most [default: as fast as they are taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Payments in flight at most
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub in_flight: usize,
}

/// The orders a replay can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OrderArg {
    /// No payment before what funds it is visible to its payer
    Causal,
    /// Everything at once, in the order of the input
    None,
}

impl From<OrderArg> for Order {
    fn from(order: OrderArg) -> Self {
        match order {
            OrderArg::Causal => Self::Causal,
            OrderArg::None => Self::None,
        }
    }
}

/// `replay`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark replay transfers.csv.gz --opening opening.csv.gz --balances final.csv\n  seamark replay transactions.csv --opening auto --shards 16 --json\n\nReads, gzipped or not, by the header: from,to,amount in any order; ethereum-etl transactions.csv;\nthe XBlock layout (blockNumber,...,from,to,toCreate,...,value). Without --dir it runs on a cluster\nof its own that is thrown away."
)]
pub struct Replay {
    /// The history, one file after the other
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Opening balances: a file with account,balance; or auto, the least that avoids overdraft
    #[arg(long, value_name = "FILE|auto", default_value = "auto")]
    pub opening: String,
    /// How it is sent.
    #[command(flatten)]
    pub sending: Sending,
    /// Write the final balances to this file
    #[arg(long, value_name = "OUT.csv")]
    pub balances: Option<PathBuf>,
    /// Compare the result with the right one in this file, and fail when it differs
    #[arg(long, value_name = "ORACLE.json")]
    pub oracle: Option<PathBuf>,
    /// Which entry of the oracle [default: the name of the first file, up to its first dot]
    #[arg(long, value_name = "NAME", requires = "oracle")]
    pub oracle_set: Option<String>,
    /// Derive the accounts' keys from this text instead of a fresh secret
    #[arg(long, value_name = "TEXT")]
    pub key_seed: Option<String>,
    /// Use the running cluster of this folder instead of one of its own
    #[arg(long, value_name = "D", conflicts_with_all = ["nodes", "shards", "replicas", "orgs", "verify", "consensus", "beacon_consensus", "processes"])]
    pub dir: Option<PathBuf>,
    /// What the cluster of its own is like.
    #[command(flatten)]
    pub shape: Shape,
    /// One process for each node of the cluster of its own
    #[arg(long)]
    pub processes: bool,
}

/// `demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark demo\n  seamark demo --shards 16 --json\n\nSettles the transfers of Bitcoin's block 702861 (mainnet) on a new cluster in a temporary folder."
)]
pub struct Demo {
    /// What the cluster is like.
    #[command(flatten)]
    pub shape: Shape,
    /// One process for each node
    #[arg(long)]
    pub processes: bool,
    /// Payments in flight at most
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub in_flight: usize,
}

/// `sim`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark sim --seed 42\n  seamark sim --seeds 200 --json\n  seamark sim --seeds 50 --scenario partitions\n  seamark sim --replay sim-seed-42.jsonl\n  seamark sim --scale --nodes 4096 --shards 512 --cross 10 --zipf 1 --svg scale.svg\n\nA seed decides everything: cluster, load and faults. Every tenth seed, and every single one, is run\ntwice and must give the same event hash. A seed that fails leaves its event log in this folder, for\n--replay.\n\nScenarios: calm, lossy, crashes, leaders, partitions, disks, clocks, routers, anchors, beacon,\nleaps, ghosts, minority, storm.\n\n--scale has no faults: docs/scale.md tells what it models and what it does not."
)]
pub struct Sim {
    /// Run this seed
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub seed: Option<u64>,
    /// Run this many seeds
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    /// The first of them
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub from: u64,
    /// The kind of faults; otherwise the seed chooses
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<cluster_sim::Scenario>,
    /// Step through the event log of a seed that failed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "scenario"])]
    pub replay: Option<PathBuf>,
    /// Folder for event logs of seeds that fail
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub logs: PathBuf,
    /// Shards, 8 at most; otherwise the seed chooses. With --scale 1024 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub shards: Option<u32>,
    /// Replicas of every group, 7 at most; otherwise the seed chooses, 3 or 5 for each. With --scale 64 at most [default there: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub replicas: Option<u16>,
    /// Nodes, 32 at most; otherwise the seed chooses. With --scale 4096 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub nodes: Option<u32>,
    /// Transactions of the load; otherwise the seed chooses
    #[arg(long, value_name = "N")]
    pub transactions: Option<usize>,
    /// Virtual milliseconds with faults; otherwise the seed chooses
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub safety_ms: Option<u64>,
    /// What orders the shards: all of them; otherwise the seed chooses, and one or two may be Byzantine
    #[arg(long, value_name = "ENGINE")]
    pub consensus: Option<ConsensusArg>,
    /// What orders the beacon; otherwise the seed chooses
    #[arg(long, value_name = "ENGINE")]
    pub beacon_consensus: Option<ConsensusArg>,
    /// How often a shard goes over to the other engine while it runs; otherwise the seed chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub switches: Option<u32>,
    /// How often somebody asks for shards to be cut or joined while it runs; otherwise the seed chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub reshapes: Option<u32>,
    /// How often somebody asks for a seat of a shard to be moved where shards are cut and joined; otherwise the seed chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub moves: Option<u32>,
    /// How often an organisation wants a node to come or to go where shards are cut and joined; otherwise the seed chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub comings: Option<u32>,
    /// How many epochs of the beacon the phase with faults has room for; otherwise the seed chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=8))]
    pub epochs: Option<u32>,
    /// How often a node gets a new signing key; otherwise the seed chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub keys: Option<u32>,
    /// How often somebody wants the organisations to decide by another policy; otherwise the seed chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub policies: Option<u32>,
    /// How many transactions there are about a channel that is founded while it runs; otherwise none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=200))]
    pub money: Option<u32>,
    /// How many members of Byzantine shards vote twice and lose all their seats for it; otherwise none do
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=8))]
    pub removals: Option<u32>,
    /// How members of Byzantine shards lie; otherwise the seed chooses
    #[arg(long, value_name = "NAME")]
    pub lie: Option<cluster_sim::Lie>,
    /// Fail unless all of this has happened, in some run: names of `coverage` in the JSON, between commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with_all = ["replay", "scale"])]
    pub met: Vec<String>,
    /// The scale study.
    #[command(flatten)]
    pub study: SimScale,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example:\n  "), "{path} has no example");
            assert!(command.get_about().is_some(), "{path} has no description");
            // Wider lines are broken anywhere.
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{path} has a line over 100 characters");
            command.get_subcommands().for_each(|inner| check(inner, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn the_examples_parse() {
        fn examples(command: &clap::Command, found: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            found.extend(help.lines().filter_map(|line| line.split("seamark ").nth(1)).map(str::to_owned));
            command.get_subcommands().for_each(|inner| examples(inner, found));
        }
        let mut found = Vec::new();
        examples(&Cli::command(), &mut found);
        assert!(found.len() > 20);
        for example in found {
            let example = example.split(" && ").next().unwrap_or_default();
            let example = example.split("  ").next().unwrap_or_default();
            let args = std::iter::once("seamark").chain(example.split_whitespace());
            Cli::try_parse_from(args).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for wrong in [
            "sim --seed 1 --seeds 2",
            "sim --cross 10",
            "sim --beacon-spread-at-most 2",
            "sim --scale --local-every 0",
            "sim --local-every 4",
            "sim --scale --seeds 2",
            "sim --scale --shards 1025",
            "bench --constants --join",
            "replay f --dir d --shards 2",
            "bench --cross 101",
            "bench --channels 2 --voters 2",
            "bench --channels 65",
            "bench --swap-at-most 2.5",
            "bench --join --channels 2",
            "bench --load 5",
            "bench --pause-at-most 2",
            "bench --switch --engines",
            "bench --switch --in-flight 5",
            "bench --takeover --switch",
            "bench --takeover-at-most 60",
            "bench --rounds 2",
            "bench --worst-at-most 1",
            "bench --reshape --switch",
            "bench --reshape --takeover",
            "bench --reshape --shards 4",
            "bench --past 5",
            "node",
            "node --config x check y",
            "pay bob",
            "replay",
            "pay bob 1 --asset EUR --as org-b",
            "record show --as org-b",
        ] {
            let args = std::iter::once("seamark").chain(wrong.split_whitespace());
            let parsed = Cli::try_parse_from(args);
            // `node` alone is refused by its command, which can say what is missing.
            assert!(parsed.is_err() || wrong == "node", "{wrong}");
        }
        let parsed = Cli::try_parse_from(["seamark", "pay", "bob", "-5", "--asset", "X"]).unwrap();
        assert!(matches!(parsed.command, Command::Pay(Pay { amount, .. }) if amount == "-5"));
    }
}
