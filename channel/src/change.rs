//! What members can propose to change, and which policy decides on it.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Engine;
use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, Height, NodeId, OrgId, TimeMs};

use crate::limits::GRANT_SCOPE_MAX;
use crate::policy::Policy;

/// What a policy is about. A channel has one policy for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Subject {
    /// Invitations, removals, revoking another organisation's key, and the engine: who has a say in the order.
    Membership,
    /// The policies themselves.
    Policy,
    /// Which assets may be paid with and locked in the channel. None is issued there, whatever its word says.
    AssetIssue,
    /// Freezing and thawing.
    Freeze,
    /// Anchors.
    Anchors,
    /// Audit grants.
    Audit,
    /// Closing.
    Close,
}

impl Subject {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::Membership, Self::Policy, Self::AssetIssue, Self::Freeze, Self::Anchors, Self::Audit, Self::Close];

    /// The word for it on command lines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Membership => "membership",
            Self::Policy => "policy",
            Self::AssetIssue => "asset-issue",
            Self::Freeze => "freeze",
            Self::Anchors => "anchors",
            Self::Audit => "audit",
            Self::Close => "close",
        }
    }

    /// The subject of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subject| subject.word() == word)
    }
}

/// What an auditor may read.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Scope {
    /// Everything in the channel.
    Everything,
    /// These accounts, strictly ascending.
    Accounts(Vec<Address>),
    /// These assets, strictly ascending.
    Assets(Vec<AssetId>),
}

impl Scope {
    /// Whether the list is canonical, not empty and within limits.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        fn ascending<T: Ord>(list: &[T]) -> bool {
            (1..=GRANT_SCOPE_MAX).contains(&list.len()) && list.windows(2).all(|pair| pair[0] < pair[1])
        }
        match self {
            Self::Everything => true,
            Self::Accounts(accounts) => ascending(accounts),
            Self::Assets(assets) => ascending(assets),
        }
    }
}

/// Leave to read, for an organisation's auditor.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AuditGrant {
    /// The auditor's organisation; it need not be a member.
    pub org: OrgId,
    /// One certificate alone, by the hash of its subject public key info; or any of that
    /// organisation with the role of an auditor.
    pub credential: Option<Hash32>,
    /// What may be read.
    pub scope: Scope,
    /// Last time at which it holds.
    pub until_ms: TimeMs,
    /// Last height at which it holds, if it ends by height, too.
    pub until_height: Option<Height>,
}

/// One change of a channel that takes approvals. Variants are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Change {
    /// Invites an organisation, which joins by an act of its own.
    Invite {
        /// Whom.
        org: OrgId,
        /// Last time at which it may join.
        until_ms: TimeMs,
    },
    /// Removes a member.
    Remove {
        /// Whom.
        org: OrgId,
    },
    /// Sets the nodes that carry mail for the proposing organisation.
    Anchors {
        /// Whose: that of the proposer.
        org: OrgId,
        /// Among its nodes in the channel, strictly ascending; none is allowed.
        nodes: Vec<NodeId>,
    },
    /// Sets the policy of a subject.
    Policy {
        /// Of what.
        subject: Subject,
        /// The new policy.
        policy: Policy,
    },
    /// Stops all writing.
    Freeze,
    /// Ends a freeze.
    Thaw,
    /// Begins to close the channel.
    Close,
    /// Allows an asset to be paid with and locked in the channel.
    PermitAsset {
        /// The asset, as derived from issuer and symbol.
        asset: AssetId,
    },
    /// Lets an auditor read.
    GrantAudit(AuditGrant),
    /// Ends an audit grant before its time.
    RevokeAudit {
        /// The auditor's organisation.
        org: OrgId,
        /// The proposal that granted it.
        grant: Hash32,
    },
    /// Revokes a key of another member, such as one that is known to be stolen.
    RevokeKey {
        /// Whose.
        org: OrgId,
        /// Which.
        key: PublicKey,
    },
    /// Has another engine order the channel: the beacon prepares its committee for it.
    Engine {
        /// Which.
        engine: Engine,
    },
}

/// What a change is a change of. Each has a revision; a proposal names the one it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Target {
    /// Whether an organisation is a member.
    Member(OrgId),
    /// The nodes and anchors of an organisation.
    Nodes(OrgId),
    /// The keys of an organisation.
    Keys(OrgId),
    /// A policy.
    Policy(Subject),
    /// The phase of the channel.
    Phase,
    /// The permission of an asset.
    Asset(AssetId),
    /// The audit grants of an organisation.
    Audit(OrgId),
    /// The engine.
    Engine,
}

impl Change {
    /// Which policy decides.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::Invite { .. } | Self::Remove { .. } | Self::RevokeKey { .. } | Self::Engine { .. } => {
                Subject::Membership
            }
            Self::Anchors { .. } => Subject::Anchors,
            Self::Policy { .. } => Subject::Policy,
            Self::Freeze | Self::Thaw => Subject::Freeze,
            Self::Close => Subject::Close,
            Self::PermitAsset { .. } => Subject::AssetIssue,
            Self::GrantAudit(_) | Self::RevokeAudit { .. } => Subject::Audit,
        }
    }

    /// What it changes.
    #[must_use]
    pub fn target(&self) -> Target {
        match self {
            Self::Invite { org, .. } | Self::Remove { org } => Target::Member(*org),
            Self::Anchors { org, .. } => Target::Nodes(*org),
            Self::Policy { subject, .. } => Target::Policy(*subject),
            Self::Freeze | Self::Thaw | Self::Close => Target::Phase,
            Self::PermitAsset { asset } => Target::Asset(*asset),
            Self::GrantAudit(grant) => Target::Audit(grant.org),
            Self::RevokeAudit { org, .. } => Target::Audit(*org),
            Self::RevokeKey { org, .. } => Target::Keys(*org),
            Self::Engine { .. } => Target::Engine,
        }
    }
}
