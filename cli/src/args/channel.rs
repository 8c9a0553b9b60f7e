//! The grammar of `channel`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::channel_changes::{ChannelAnchors, ChannelAudit, ChannelPolicy, GrantAudit, RevokeAudit};
use super::{Admin, Target};

/// How long others may take to answer unless it is said, minutes: a week.
pub(super) const WEEK: u64 = 7 * 24 * 60;
/// How long they may take at most, minutes: 30 days.
pub(super) const MONTH: u64 = 30 * 24 * 60;
/// How long an audit grant may last at most, minutes: five years.
pub(super) const FIVE_YEARS: u64 = 5 * 365 * 24 * 60;

/// A channel, and who acts in it.
#[derive(Clone, Debug, Args)]
pub struct InChannel {
    /// Who signs.
    #[command(flatten)]
    pub admin: Admin,
    /// The channel: a name of 'seamark channel ls', or channel-N
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
}

/// A channel in which something is proposed.
#[derive(Clone, Debug, Args)]
pub struct Proposing {
    /// Where, and who proposes.
    #[command(flatten)]
    pub on: InChannel,
    /// How long the others may take to approve, minutes
    #[arg(long, value_name = "MINUTES", default_value_t = WEEK, value_parser = clap::value_parser!(u64).range(1..=MONTH))]
    pub within: u64,
}

/// The nodes that an organisation brings to a channel.
#[derive(Clone, Debug, Args)]
pub struct OwnNodes {
    /// The organisation's nodes that host the channel [default: its first one that takes seats]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub nodes: Vec<u32>,
}

/// What is approved, rejected or withdrawn.
#[derive(Clone, Debug, Args)]
pub struct Proposed {
    /// Who signs.
    #[command(flatten)]
    pub admin: Admin,
    /// A channel that is being founded, by its name or the founding's id; or the channel of the proposal
    #[arg(value_name = "FOUNDING|CHANNEL")]
    pub place: String,
    /// The proposal in that channel: its id, or as much of it as is clear
    #[arg(value_name = "PROPOSAL")]
    pub proposal: Option<String>,
}

/// What orders the entries of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConsensusArg {
    /// A majority decides; nodes may stop
    Raft,
    /// More than two thirds decide; nodes may lie
    Bft,
}

impl From<ConsensusArg> for ledger::Engine {
    fn from(engine: ConsensusArg) -> Self {
        match engine {
            ConsensusArg::Raft => Self::Raft,
            ConsensusArg::Bft => Self::Bft,
        }
    }
}

/// What a key of a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyRole {
    /// Governs for its organisation
    Admin,
    /// Approves where a policy asks members
    Member,
}

/// `channel create`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Example:\n  seamark channel create steel --as org-a --members org-a,org-b,org-c\n  seamark channel create coal --as org-a --members org-b --policy-for close=all --nodes 1,4\n\nThe others approve it by its name, with nodes of their own. The policies are sealed for them, and\nthe beacon has the hash alone. A policy is written as in docs/channels.md; any, all and majority\nalone are meant over the admins of the members."
)]
pub struct CreateChannel {
    /// Who proposes.
    #[command(flatten)]
    pub admin: Admin,
    /// Name of the channel: 1-64 letters, digits, '-', '_' or '.'
    pub name: String,
    /// The organisations, by name or number; whoever proposes is one of them, named or not
    #[arg(long, value_name = "ORG,ORG", value_delimiter = ',', required = true)]
    pub members: Vec<String>,
    /// Who has to approve changes
    #[arg(long, value_name = "POLICY", default_value = "majority")]
    pub policy: String,
    /// Another policy for one subject: membership, policy, asset-issue, freeze, anchors, audit or close; may be given several times
    #[arg(long, value_name = "SUBJECT=POLICY")]
    pub policy_for: Vec<String>,
    /// Who has to approve the founding
    #[arg(long, value_name = "POLICY", default_value = "all")]
    pub founding: String,
    /// The proposer's nodes.
    #[command(flatten)]
    pub own: OwnNodes,
    /// Those of the nodes that carry mail [default: the first]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub anchors: Vec<u32>,
    /// What orders the channel; bft needs 4 nodes in all
    #[arg(long, value_name = "ENGINE", value_enum, default_value_t = ConsensusArg::Raft)]
    pub consensus: ConsensusArg,
    /// How long the others may take to approve, minutes
    #[arg(long, value_name = "MINUTES", default_value_t = WEEK, value_parser = clap::value_parser!(u64).range(1..=MONTH))]
    pub within: u64,
}

/// `channel`.
#[derive(Debug, Subcommand)]
pub enum Channel {
    /// Propose a channel to other organisations
    Create(CreateChannel),
    /// Approve a channel that is being founded, or a proposal in a channel
    #[command(
        after_help = "Example:\n  seamark channel approve steel --as org-b\n  seamark channel approve steel --as org-b --nodes 2,5 --anchors 2\n  seamark channel approve steel 4f0c19 --as org-b"
    )]
    Approve {
        /// What.
        #[command(flatten)]
        proposed: Proposed,
        /// The nodes that come with the approval of a founding.
        #[command(flatten)]
        own: OwnNodes,
        /// Those of the nodes that carry mail [default: the first]
        #[arg(long, value_name = "N,N", value_delimiter = ',')]
        anchors: Vec<u32>,
    },
    /// Reject a channel that is being founded, or a proposal in a channel
    #[command(
        after_help = "Example:\n  seamark channel reject steel --as org-b\n  seamark channel reject steel 4f0c19 --as org-b"
    )]
    Reject(Proposed),
    /// Take back what one's own organisation has proposed
    #[command(
        after_help = "Example:\n  seamark channel withdraw steel --as org-a\n  seamark channel withdraw steel 4f0c19 --as org-a"
    )]
    Withdraw(Proposed),
    /// Bring a proposal into force that needs no further approval, since members have gone
    #[command(after_help = "Example:\n  seamark channel settle steel 4f0c19 --as org-a")]
    Settle {
        /// Where.
        #[command(flatten)]
        on: InChannel,
        /// The proposal: its id, or as much of it as is clear
        proposal: String,
    },
    /// Show what the founders of a channel agree on, as the founding promises it to those whom it names
    #[command(
        after_help = "Example:\n  seamark channel charter steel --as org-b\n\nThe beacon has the hash of it alone."
    )]
    Charter {
        /// Whose admin reads it.
        #[command(flatten)]
        admin: Admin,
        /// A channel that is or was founded, by its name or the founding's id
        #[arg(value_name = "FOUNDING")]
        place: String,
    },
    /// Put in force what the founders agreed on, where 'channel approve' ended before the channel ran
    #[command(after_help = "Example:\n  seamark channel open steel --as org-b")]
    Open(InChannel),
    /// List all channels, and those that are being founded with who is missing
    #[command(after_help = "Example:\n  seamark channel ls\n  seamark channel ls --json")]
    Ls {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
    },
    /// Show members, keys, nodes, policies, invitations and grants of a channel; for its members
    #[command(after_help = "Example:\n  seamark channel show steel --as org-b")]
    Show(InChannel),
    /// Show how a channel is doing: its committee, leader and heights
    #[command(after_help = "Example:\n  seamark channel status steel\n  seamark channel status channel-0 --json")]
    Status {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The channel: a name of 'seamark channel ls', or channel-N
        channel: String,
    },
    /// List the proposals of a channel, and what each still needs; for its members
    #[command(after_help = "Example:\n  seamark channel proposals steel --as org-b")]
    Proposals(InChannel),
    /// Explain a proposal: what is left of its policy, who would decide it, and what stands in its way; for members
    #[command(
        after_help = "Example:\n  seamark channel explain steel 4f0c19 --as org-b\n  seamark channel explain steel 4f0c19 --as org-b --json"
    )]
    Explain {
        /// Where.
        #[command(flatten)]
        on: InChannel,
        /// The proposal: its id, or as much of it as is clear
        proposal: String,
    },
    /// Propose to invite an organisation
    #[command(
        after_help = "Example:\n  seamark channel invite steel org-d --as org-a\n\nWithin this time the others have to approve and the organisation has to join."
    )]
    Invite {
        /// Where.
        #[command(flatten)]
        proposing: Proposing,
        /// Whom, by name or number
        #[arg(value_name = "ORG")]
        invited: String,
    },
    /// Accept an invitation
    #[command(
        after_help = "Example:\n  seamark channel join steel --as org-d\n  seamark channel join steel --as org-d --nodes 4,8"
    )]
    Join {
        /// Where.
        #[command(flatten)]
        on: InChannel,
        /// The nodes it brings.
        #[command(flatten)]
        own: OwnNodes,
    },
    /// Decline an invitation
    #[command(after_help = "Example:\n  seamark channel decline steel --as org-d")]
    Decline(InChannel),
    /// End the own membership, and keep the receipt of it
    #[command(
        after_help = "Example:\n  seamark channel leave steel --as org-c\n  seamark channel leave steel --as org-c --out steel.receipt"
    )]
    Leave {
        /// Where.
        #[command(flatten)]
        on: InChannel,
        /// The file that the receipt is written to [default: exclusion-CHANNEL-org-N-at-BLOCK.receipt]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Fetch what proves that an organisation left or was removed: for members, and for that organisation
    #[command(
        after_help = "Example:\n  seamark channel receipt steel org-c --as org-a\n  seamark channel receipt steel org-c --out steel.receipt --as org-c\n  seamark verify steel.receipt\n\nOf several exclusions it is the newest. Anybody who has the genesis can verify the file, offline."
    )]
    Receipt {
        /// Where, and who asks.
        #[command(flatten)]
        on: InChannel,
        /// Whose exclusion, by name or number
        #[arg(value_name = "ORG")]
        excluded: String,
        /// The file that it is written to [default: exclusion-CHANNEL-org-N-at-BLOCK.receipt]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Propose to remove a member
    #[command(after_help = "Example:\n  seamark channel remove steel org-c --as org-a")]
    Remove {
        /// Where.
        #[command(flatten)]
        proposing: Proposing,
        /// Whom, by name or number
        #[arg(value_name = "ORG")]
        removed: String,
    },
    /// Set the own nodes that host a channel
    #[command(after_help = "Example:\n  seamark channel nodes steel --set 1,4 --as org-a")]
    Nodes {
        /// Where.
        #[command(flatten)]
        on: InChannel,
        /// All of the organisation's nodes in the channel
        #[arg(long, value_name = "N,N", value_delimiter = ',', required = true)]
        set: Vec<u32>,
    },
    /// Change which of the own nodes carry mail
    Anchors(ChannelAnchors),
    /// Change who has to approve what
    Policy(ChannelPolicy),
    /// Propose to stop all writing
    #[command(after_help = "Example:\n  seamark channel freeze steel --as org-a")]
    Freeze(Proposing),
    /// Propose to end a freeze
    #[command(after_help = "Example:\n  seamark channel thaw steel --as org-a")]
    Thaw(Proposing),
    /// Propose to close a channel for good
    #[command(
        after_help = "Example:\n  seamark channel close steel --as org-a\n\nValue that is still in it then stays there: take it home first."
    )]
    Close(Proposing),
    /// Finish closing, once nothing is under way
    #[command(after_help = "Example:\n  seamark channel finish-close steel --as org-a")]
    FinishClose(InChannel),
    /// Propose that an asset may be paid with and locked in a channel
    #[command(
        after_help = "Example:\n  seamark channel permit steel EUR --as org-a\n\nNothing is issued in a channel: assets are issued on the main ledger, and brought in by transfers."
    )]
    Permit {
        /// Where.
        #[command(flatten)]
        proposing: Proposing,
        /// Its id, ISSUER/SYMBOL, or a symbol of the operator's
        asset: String,
    },
    /// Let auditors of an organisation read, or end that
    #[command(
        subcommand,
        after_help = "Example:\n  seamark channel audit grant steel org-d --assets EUR --as org-a\n  seamark channel audit revoke steel org-d 4f0c...19 --as org-a"
    )]
    Audit(ChannelAudit),
    /// As 'audit grant'
    #[command(hide = true)]
    AuditGrant(GrantAudit),
    /// As 'audit revoke'
    #[command(hide = true)]
    AuditRevoke(RevokeAudit),
    /// Change the keys of an organisation in a channel
    #[command(
        subcommand,
        after_help = "Example:\n  seamark channel key add steel 02aa... --role member --as org-a\n  seamark channel key rotate steel 02aa... 03bb... --as org-a\n  seamark channel key revoke steel 03bb... --as org-a"
    )]
    Key(ChannelKey),
    /// Play the story of two channels on a cluster of its own, and show what each organisation is answered
    #[command(
        after_help = "Example:\n  seamark channel tour\n  seamark channel tour --json\n\nThree organisations found two channels, trade between them in one transaction, take in a member from\na snapshot, and let one go. After each of these, everybody is asked the same questions over its own\nrouter. It takes less than a minute; the cluster is in a temporary folder that is removed.\n\nThe JSON object has: channels, asked, steps, trade, too_early, join, leave, views, problems, phases;\ndocs/channels.md describes them. The command ends with 1 when anybody is shown what is not its own."
    )]
    Tour,
}

/// `channel key`.
#[derive(Debug, Subcommand)]
pub enum ChannelKey {
    /// Add a key
    #[command(after_help = "Example:\n  seamark channel key add steel 02aa... --role member --as org-a")]
    Add {
        /// Where.
        #[command(flatten)]
        on: InChannel,
        /// The public key: 66 hex digits, or the name of one in the keystore
        #[arg(value_name = "KEY")]
        public: String,
        /// What it is for
        #[arg(long, value_name = "ROLE", value_enum, default_value_t = KeyRole::Member)]
        role: KeyRole,
    },
    /// Put a key in the place of another one; what the old one approved still counts
    #[command(after_help = "Example:\n  seamark channel key rotate steel 02aa... 03bb... --as org-a")]
    Rotate {
        /// Where.
        #[command(flatten)]
        on: InChannel,
        /// The old key
        #[arg(value_name = "OLD")]
        old: String,
        /// The new key
        #[arg(value_name = "NEW")]
        new: String,
    },
    /// Revoke a key for good; that of another organisation takes a proposal
    #[command(
        after_help = "Example:\n  seamark channel key revoke steel 02aa... --as org-a\n  seamark channel key revoke steel 02aa... --of org-c --as org-a"
    )]
    Revoke {
        /// Where.
        #[command(flatten)]
        proposing: Proposing,
        /// The key
        #[arg(value_name = "KEY")]
        public: String,
        /// Whose [default: that of the organisation that signs]
        #[arg(long, value_name = "ORG")]
        of: Option<String>,
    },
    /// Revoke a certificate of the own organisation for good
    #[command(after_help = "Example:\n  seamark channel key revoke-certificate steel shop.pem --as org-a")]
    RevokeCertificate {
        /// Where.
        #[command(flatten)]
        on: InChannel,
        /// The certificate in PEM
        #[arg(value_name = "FILE")]
        certificate: PathBuf,
    },
}
