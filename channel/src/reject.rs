//! Why a channel refuses something: stable numbers and codes, each with a cause and a fix.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

ledger::rejections! {
    /// Why a command, a proposal or an access was refused. Numbers and codes never change meaning.
    pub enum ChannelReject {
        /// Undecodable bytes.
        Malformed = 1, "channel_malformed", "the bytes are no canonical command: wrong version, truncated, trailing bytes or a value out of range", "build and sign it with the client library";
        /// Command too large.
        TooLarge = 2, "channel_command_too_large", "the command is over 16 KiB", "name fewer organisations, accounts or assets at once";
        /// Signed for another cluster.
        WrongCluster = 3, "channel_wrong_cluster", "the command is for another cluster", "use the profile of this cluster and sign again";
        /// Signed for another channel.
        WrongChannel = 4, "channel_wrong_channel", "the command is for another channel", "name the channel it is meant for and sign again";
        /// Past its deadline.
        Expired = 5, "channel_command_expired", "the command's deadline has passed and it was not executed", "sign it again with a later deadline; the old one can never execute";
        /// Deadline too far ahead.
        ValidTooLong = 6, "channel_command_valid_too_long", "the command's deadline lies more than 24 hours ahead", "use a nearer deadline and check this machine's clock";
        /// A signature is wrong.
        BadSignature = 7, "channel_bad_signature", "the signature is malformed, has a high S, or is not over this command by the named key", "sign again with the key that the command names";
        /// No channel in this state.
        Unknown = 8, "channel_unknown", "this group keeps no channel", "see the channels with 'seamark channel ls'";
        /// Not a member.
        NotMember = 9, "channel_not_member", "the organisation is no member of the channel", "ask a member to invite it";
        /// Was a member.
        Removed = 10, "channel_removed", "the organisation left the channel or was removed from it", "ask a member to invite it again";
        /// Certificate or key revoked.
        CredentialRevoked = 11, "channel_credential_revoked", "the certificate or key was revoked", "use another one of the organisation";
        /// Role not enough.
        Role = 12, "channel_role", "the caller's role does not allow this in the channel", "use a certificate or key of a role that may";
        /// Auditors only read.
        AuditorReads = 13, "channel_auditor_reads_only", "an auditor reads and does nothing else", "use a certificate that is not an auditor's";
        /// No grant.
        NoGrant = 14, "channel_no_grant", "no audit grant of the channel covers this", "ask a member to propose a grant that does";
        /// Grant over.
        GrantExpired = 15, "channel_grant_expired", "the audit grant has ended", "ask a member to propose a new one";
        /// Not started, or abandoned.
        NotRunning = 16, "channel_not_running", "the channel has not started, or was never approved", "see what is missing with 'seamark channel show'";
        /// Frozen.
        Frozen = 17, "channel_frozen", "the channel is frozen: it is read and governed, but nothing is written", "propose to thaw it";
        /// Closing.
        Closing = 18, "channel_closing", "the channel is closing and takes nothing new", "none; what is under way is being finished";
        /// Closed.
        Closed = 19, "channel_closed", "the channel is closed for good", "found another channel";
        /// Step not possible from this phase.
        Transition = 20, "channel_transition", "the channel's phase does not allow this step", "see the phase with 'seamark channel status'";
        /// Too many commands of one member.
        Busy = 21, "channel_busy", "the member has too many commands whose deadlines have not passed", "wait, and sign with nearer deadlines";
        /// Too many open proposals.
        ProposalsFull = 22, "channel_proposals_full", "the organisation has 8 proposals that wait for a decision", "wait for the others, or withdraw one";
        /// No such proposal.
        ProposalUnknown = 23, "proposal_unknown", "there is no such proposal, or it ended long ago", "see the proposals with 'seamark channel show'";
        /// In force already.
        ProposalApplied = 24, "proposal_applied", "the proposal was approved and is in force", "none; propose the opposite to undo it";
        /// Rejected.
        ProposalRejected = 25, "proposal_rejected", "the proposal was rejected: the policy cannot be satisfied any more", "propose it again once the others agree";
        /// Withdrawn.
        ProposalWithdrawn = 26, "proposal_withdrawn", "the proposal was withdrawn by its proposer", "propose it again";
        /// Expired.
        ProposalExpired = 27, "proposal_expired", "the proposal's deadline has passed", "propose it again with a later deadline";
        /// Superseded.
        ProposalStale = 28, "proposal_stale", "what the proposal would change has changed meanwhile", "look at the present state and propose again";
        /// Acted twice.
        ProposalActed = 29, "proposal_acted", "this member has approved or rejected the proposal already in this role", "none; wait for the others";
        /// Not the proposer.
        NotProposer = 30, "proposal_not_proposer", "only the organisation that proposed may withdraw", "reject the proposal instead";
        /// Not named by the policy.
        NotElector = 31, "proposal_not_elector", "the policy asks nothing of this organisation in this role", "see who is asked with 'seamark channel show'";
        /// Nothing to settle.
        Undecided = 32, "proposal_undecided", "the policy is not satisfied yet", "see what is missing with 'seamark channel show'";
        /// Deadline of a proposal.
        ProposalDeadline = 33, "proposal_deadline", "the deadline has passed already or lies more than 30 days ahead", "choose a deadline within 30 days";
        /// Inviting oneself.
        InviteSelf = 34, "channel_invite_self", "an organisation cannot invite itself", "leave it out; whoever proposes is a member";
        /// Not in the registry.
        OrgUnknown = 35, "channel_org_unknown", "the registry knows no such organisation", "check the name with 'seamark status'";
        /// Member already.
        AlreadyMember = 36, "channel_already_member", "the organisation is a member already", "none";
        /// Invited already.
        AlreadyInvited = 37, "channel_already_invited", "the organisation has an open invitation or is named twice", "let it join, or wait until the invitation ends";
        /// No invitation.
        NotInvited = 38, "channel_not_invited", "the organisation has no invitation, or it has ended", "ask a member to invite it";
        /// Too many members.
        MembersFull = 39, "channel_members_full", "the channel would have more than 64 members and invitations, or more seats than a committee has", "join with fewer nodes, or remove somebody first";
        /// Removing oneself.
        RemoveSelf = 40, "channel_remove_self", "an organisation does not propose its own removal", "use 'seamark channel leave'";
        /// Last member.
        LastMember = 41, "channel_last_member", "the channel would have no member left", "close the channel instead";
        /// Last admin.
        LastAdmin = 42, "channel_last_admin", "the organisation would have no admin key left", "add or rotate to another admin key first";
        /// Quorum lost at once.
        QuorumLostNow = 43, "channel_quorum_lost", "without these seats the committee has no quorum", "add nodes of other members first";
        /// Quorum lost with the next failure.
        QuorumLostNext = 44, "channel_quorum_at_risk", "after this change one failed node would cost the quorum", "add nodes of other members first";
        /// Policy out of form.
        PolicyForm = 45, "policy_form", "the policy is empty, too large, too deep, names something twice or asks for more than it lists", "see the grammar in docs/channels.md";
        /// Policy cannot be satisfied.
        PolicyUnsatisfiable = 46, "policy_unsatisfiable", "a policy could not be satisfied by the members and the keys they would have", "name members only and ask for no more than there are, or change that policy first";
        /// Node not of this organisation.
        NodeUnknown = 47, "channel_node_unknown", "the registry knows no such node of the organisation", "check the node with 'seamark status'";
        /// List of nodes out of form.
        NodesForm = 48, "channel_nodes_form", "a member has 1 to 16 nodes, each named once, in order", "correct the list";
        /// Anchors out of form.
        AnchorsForm = 49, "channel_anchors_form", "an anchor is not among the member's nodes, or the list is out of order", "name nodes of the member in the channel, each once, in order";
        /// Anchors of another.
        AnchorsNotYours = 50, "channel_anchors_not_yours", "an organisation proposes its own anchors only", "let the other organisation propose them";
        /// Key out of form.
        KeyForm = 51, "channel_key_form", "the key is no point of the curve, its role takes no keys, or there would be too many", "use a key made by 'seamark key', for an admin or a member";
        /// Key in use.
        KeyInUse = 52, "channel_key_in_use", "a member of the channel uses this key already", "make a new key";
        /// Key unknown.
        KeyUnknown = 53, "channel_key_unknown", "the organisation holds no such key in the channel", "check the key with 'seamark channel show'";
        /// Key was revoked.
        KeyRevoked = 54, "channel_key_revoked", "the key was revoked and cannot come back", "make a new key";
        /// Too many revocations.
        RevocationsFull = 55, "channel_revocations_full", "the organisation has revoked as many keys and certificates as are kept", "leave and join again with a new certificate authority";
        /// Grant out of form.
        GrantForm = 56, "channel_grant_form", "the grant's scope is empty, out of order or too large, or its end has passed or lies too far ahead", "name accounts or assets once and in order, and an end within five years";
        /// Grant unknown.
        GrantUnknown = 57, "channel_grant_unknown", "there is no such audit grant", "see the grants with 'seamark channel show'";
        /// Too many grants.
        GrantsFull = 58, "channel_grants_full", "the channel has as many audit grants as it may", "revoke one first";
        /// Asset permitted already.
        AssetPermitted = 59, "channel_asset_permitted", "the channel has permitted the asset already", "none";
        /// Too many assets.
        AssetsFull = 60, "channel_assets_full", "the channel has permitted as many assets as it may", "found another channel for more";
        /// Registers open.
        CloseRegisters = 61, "channel_close_registers", "transactions of several groups are undecided in the channel", "wait until they are decided";
        /// Mail waits.
        CloseMail = 62, "channel_close_mail", "mail of the channel is not acknowledged by its peers yet", "wait until it has been taken";
        /// Founding out of form.
        FoundingForm = 63, "founding_form", "name, members or policies of the founding are out of form", "use 1-64 letters, digits, '-', '_' or '.' for the name, and one policy for each subject";
        /// Restated without change.
        NoChange = 66, "channel_no_change", "everything is already as the command asks", "none";
        /// Too few nodes for the engine.
        EngineNodes = 67, "channel_engine_nodes", "the channel would have fewer nodes than its engine needs", "let members bring more nodes, 4 or more in all for bft, or choose raft";
        /// Another engine is about to come into force.
        EngineChanging = 68, "channel_engine_changing", "the channel is on its way to another engine, or its committee is being changed", "wait until the change is in force: see it with 'seamark channel status'";
        /// Promise of a founding out of form.
        PromiseForm = 180, "founding_promise", "what the founding promises in place of its policies is out of form, or it states policies of its own beside it", "found it with 'seamark channel create'";
        /// Nothing was promised.
        PromiseNone = 181, "channel_promise_none", "the founding of the channel promised nothing: its policies were known from the start", "none; propose other ones with 'seamark channel policy propose'";
        /// Promise kept already.
        PromiseKept = 182, "channel_promise_kept", "the policies that the founding promised are in force already", "none";
        /// Promise superseded.
        PromiseSuperseded = 183, "channel_promise_superseded", "the members have set a policy before the channel was given what its founding promised, which counts no more", "propose the policies that are wanted with 'seamark channel policy propose'";
        /// Not what was promised.
        OpeningWrong = 184, "channel_opening_wrong", "the policies are not those that the founding promised: their hash is another one", "see what was promised with 'seamark channel charter'";
    }
}

/// A rejection, with what is particular about this case.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Refusal {
    /// The rejection.
    pub reject: ChannelReject,
    /// For people: which seats, which policy. Computed from state, so equal on every replica.
    pub detail: Option<String>,
}

impl Refusal {
    /// A rejection with a detail.
    #[must_use]
    pub fn because(reject: ChannelReject, detail: impl fmt::Display) -> Self {
        Self { reject, detail: Some(detail.to_string()) }
    }
}

impl From<ChannelReject> for Refusal {
    fn from(reject: ChannelReject) -> Self {
        Self { reject, detail: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => {
                write!(f, "{}: {} ({detail}); {}", self.reject.code(), self.reject.cause(), self.reject.fix())
            }
            None => self.reject.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_are_unique_and_survive_borsh() {
        let mut codes: Vec<_> = ChannelReject::ALL.iter().map(|reject| reject.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ChannelReject::ALL.len());
        for reject in ChannelReject::ALL {
            assert_eq!(ChannelReject::from_number(reject.number()), Some(*reject));
            let bytes = borsh::to_vec(reject).expect("writing to memory does not fail");
            assert_eq!(borsh::from_slice::<ChannelReject>(&bytes).ok(), Some(*reject));
            assert!(!reject.cause().is_empty() && !reject.fix().is_empty());
        }
        assert!(borsh::from_slice::<ChannelReject>(&[0, 0]).is_err());
    }

    #[test]
    fn the_page_of_errors_lists_each_as_it_is() {
        let page = include_str!("../../docs/errors.md");
        for reject in ChannelReject::ALL {
            let (number, code) = (reject.number(), reject.code());
            let row = format!("| {number} | `{code}` | {} | {} |\n", reject.cause(), reject.fix());
            assert!(page.contains(&row), "docs/errors.md has no row {row}");
        }
    }
}
