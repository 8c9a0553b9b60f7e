//! Limits of a channel's governance. Those that other crates share stand in `ledger::limits`.

use ledger::limits::{BATCH_BYTES_MAX, COMMITTEE_MAX};

/// Member organisations of a channel, open invitations included.
pub const MEMBERS_MAX: usize = 64;
/// Nodes of one member.
pub const NODES_PER_MEMBER_MAX: usize = 16;
/// Keys that one member may hold at once.
pub const KEYS_PER_MEMBER_MAX: usize = 16;
/// Keys and certificates that one member may have revoked.
pub const REVOCATIONS_PER_MEMBER_MAX: usize = 256;
/// Bytes of a channel's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Encoded terms of a founding: with its members, at their limits, they make a charter that the registry can keep.
pub const TERMS_BYTES_MAX: usize = 4096;
/// Encoded opening of a founding: what its terms could say of policies in the clear.
pub const OPENING_BYTES_MAX: usize = TERMS_BYTES_MAX;
/// To a multiple of so many bytes an opening is padded before it is sealed, its length (4 bytes) included: sizes of policies
/// tell of their form.
pub const OPENING_PAD_BYTES: usize = 512;
/// Encoded promise of a founding: the sealed opening, and a key for each member that may be.
pub const PROMISE_BYTES_MAX: usize = 9 * 1024;
/// Encoded signed command.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024;
/// How far in the future a command's deadline may lie.
pub const COMMAND_VALID_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Commands of one member that are remembered because they could still be sent again.
pub const COMMANDS_OPEN_PER_ORG_MAX: usize = 256;
/// How far in the future the deadline of a proposal, an invitation or a founding may lie.
pub const PROPOSAL_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;
/// Proposals of one member that wait for a decision. Each member has its own share, so that nobody can
/// keep the others from proposing, least of all its own removal.
pub const PROPOSALS_OPEN_PER_ORG_MAX: usize = 8;
/// Proposals kept in all; those that have ended go first, by deadline.
pub const PROPOSALS_KEPT_MAX: usize = 576;
/// How long after its deadline a proposal that has ended is kept for people to look at.
pub const PROPOSAL_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Audit grants in force at once.
pub const GRANTS_MAX: usize = 64;
/// Accounts or assets that one audit grant may name.
pub const GRANT_SCOPE_MAX: usize = 64;
/// How far in the future an audit grant may end.
pub const GRANT_MS_MAX: u64 = 5 * 365 * 24 * 60 * 60 * 1000;
/// Assets that a channel may have permitted.
pub const ASSETS_MAX: usize = 4096;
/// Rules nested in one another in a policy.
pub const POLICY_DEPTH_MAX: usize = 8;
/// Electors, rules and member lists in one policy.
pub const POLICY_ITEMS_MAX: usize = 128;
/// Bytes of a policy as text.
pub const POLICY_TEXT_BYTES_MAX: usize = 8 * 1024;

/// One encoded item of a policy: tags, count, organisation and role, rounded up.
const POLICY_ITEM_BYTES_MAX: usize = 16;
/// Policies that a founding states: one for each subject, and that of the founding itself.
const FOUNDING_POLICIES: usize = 8;

const _: () = assert!(COMMAND_BYTES_MAX < BATCH_BYTES_MAX, "a command fits into a batch");
const _: () = assert!(OPENING_BYTES_MAX + 512 < COMMAND_BYTES_MAX, "an opening fits into a command");
const _: () = assert!(
    OPENING_BYTES_MAX + 2 * OPENING_PAD_BYTES + MEMBERS_MAX * 50 + 128 <= PROMISE_BYTES_MAX,
    "an opening can be sealed for as many organisations as a founding may name"
);
const _: () = assert!(MEMBERS_MAX <= COMMITTEE_MAX, "each member can have a seat");
const _: () = assert!(
    MEMBERS_MAX * PROPOSALS_OPEN_PER_ORG_MAX < PROPOSALS_KEPT_MAX,
    "open proposals are never dropped for want of room"
);
const _: () = assert!(POLICY_ITEMS_MAX * POLICY_ITEM_BYTES_MAX * 4 < COMMAND_BYTES_MAX, "a policy fits into a command");
const _: () = assert!(
    POLICY_ITEMS_MAX * POLICY_ITEM_BYTES_MAX * FOUNDING_POLICIES <= COMMAND_BYTES_MAX,
    "all policies of a founding together are of the size of a command"
);
const _: () = assert!(GRANT_SCOPE_MAX * 20 < COMMAND_BYTES_MAX / 2, "an audit grant fits into a command");
