//! What the parts of the machine work on: the view, the block, the surroundings, and the channel and
//! its members as they are before the command.

use std::collections::BTreeSet;

use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::ids::OrgId;
use ledger::machine::BlockContext;
use ledger::view::View;

use crate::change::{Subject, Target};
use crate::policy::{Elector, Policy, Residual, Roster};
use crate::proposal::{Proposal, ProposalEvent, ProposalState};
use crate::quorum::Seats;
use crate::reject::{ChannelReject, Refusal};
use crate::state::{self, Batch, ChannelRecord, MemberRecord};
use crate::surroundings::Surroundings;

/// One command's working place. Nothing here writes to the view; what is to be written is gathered
/// in a [`Batch`].
pub(crate) struct Scene<'s, 'v> {
    pub view: &'s mut View<'v>,
    pub at: BlockContext,
    pub around: Surroundings<'s>,
    pub channel: ChannelRecord,
    pub members: Vec<MemberRecord>,
}

impl<'s, 'v> Scene<'s, 'v> {
    /// Reads the channel and its members.
    pub fn open(view: &'s mut View<'v>, at: &BlockContext, around: &Surroundings<'s>) -> Result<Self, ChannelReject> {
        let channel = state::channel(view).ok_or(ChannelReject::Unknown)?;
        let members = state::members(view);
        Ok(Self { view, at: *at, around: *around, channel, members })
    }

    pub fn member(&self, org: OrgId) -> Option<&MemberRecord> {
        self.members.iter().find(|member| member.org == org)
    }

    /// A member, or the reason why it is none.
    pub fn expect_member(&mut self, org: OrgId) -> Result<MemberRecord, ChannelReject> {
        match self.member(org).cloned() {
            Some(member) => Ok(member),
            None if state::exclusions(self.view, org).is_empty() => Err(ChannelReject::NotMember),
            None => Err(ChannelReject::Removed),
        }
    }

    /// The seats of the committee in force that decide.
    pub fn seats(&self) -> Seats {
        Seats::of(self.around.committee).of_members(|org| self.member(org).is_some())
    }

    pub fn policy(&mut self, subject: Subject) -> Result<Policy, ChannelReject> {
        state::policy(self.view, subject).ok_or(ChannelReject::Unknown)
    }

    pub fn key_in_use(&self, key: &PublicKey) -> bool {
        self.members.iter().any(|member| member.role_of(key).is_some())
    }

    /// Those who have approved and who have rejected, as far as it counts.
    pub fn heard(&mut self, proposal: &Proposal) -> (BTreeSet<Elector>, BTreeSet<Elector>) {
        let (view, members) = (&mut *self.view, &self.members);
        proposal.heard(&mut |voice| state::counts(view, members, voice))
    }

    /// What is left to be approved.
    pub fn weigh(&mut self, proposal: &Proposal) -> Result<Residual, ChannelReject> {
        let policy = self.policy(proposal.change.subject())?;
        let Roster { members, electors } = state::roster(&self.members);
        let (approved, rejected) = self.heard(proposal);
        let open = electors.difference(&rejected).copied().collect();
        Ok(policy.residual(&members, &approved, &open))
    }

    /// Whether every policy could still be satisfied if these were the members.
    pub fn stays_governable(&mut self, members: &[MemberRecord]) -> Result<(), Refusal> {
        let roster = state::roster(members);
        for subject in Subject::ALL {
            let policy = self.policy(subject)?;
            if let Err(fault) = policy.check_satisfiable(&roster) {
                let detail = format!("the policy of {}, {policy}: {fault}", subject.word());
                return Err(Refusal::because(ChannelReject::PolicyUnsatisfiable, detail));
            }
        }
        Ok(())
    }

    /// The members with one replaced.
    pub fn members_with(&self, changed: &MemberRecord) -> Vec<MemberRecord> {
        self.members.iter().map(|old| if old.org == changed.org { changed } else { old }).cloned().collect()
    }

    /// Raises the revision of targets, and ends the open proposals that were made for the old one.
    /// `applied` is the proposal that brings this about; `gone` an organisation that is excluded,
    /// whose voices are forgotten and whose proposals are taken back.
    pub fn supersede(&mut self, batch: &mut Batch, targets: &[Target], applied: Option<Hash32>, gone: Option<OrgId>) {
        for target in targets {
            let next = state::revision(self.view, *target) + 1;
            batch.put(state::revision_key(*target), &next);
        }
        for mut proposal in state::proposals(self.view) {
            if proposal.state_at(self.at.time_ms) != ProposalState::Open || applied == Some(proposal.id) {
                continue;
            }
            let event = if targets.contains(&proposal.change.target()) {
                Some(ProposalEvent::Supersede)
            } else if gone == Some(proposal.proposer) {
                Some(ProposalEvent::Withdraw)
            } else {
                None
            };
            let silenced = gone.is_some_and(|org| proposal.silence(org));
            let ended = event.and_then(|event| proposal.state.after(event).ok());
            proposal.state = ended.unwrap_or(proposal.state);
            if silenced || ended.is_some() {
                batch.put(state::proposal_key(&proposal.id), &proposal);
            }
        }
    }
}
