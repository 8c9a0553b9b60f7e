//! Proposals: what one changes, who has spoken on it, and the states it goes through.
//!
//! An approval counts while its organisation is a member and its key has not been revoked, so a
//! proposal is always judged by the members of the moment.

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::crypto::PublicKey;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, GroupId, Height, OrgId, TimeMs};

use crate::change::Change;
use crate::policy::{Elector, Role};
use crate::reject::ChannelReject;

/// Where a proposal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum ProposalState {
    /// Waits for approvals.
    Open,
    /// Approved and in force.
    Applied,
    /// So many have rejected it that its policy cannot be satisfied.
    Rejected,
    /// Taken back by its proposer.
    Withdrawn,
    /// Its deadline has passed.
    Expired,
    /// What it would change has changed meanwhile.
    Superseded,
}

/// What happens to a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProposalEvent {
    /// An approval that does not decide.
    Approve,
    /// The policy is satisfied.
    Decide,
    /// A rejection after which the policy can still be satisfied.
    Reject,
    /// A rejection after which it cannot.
    Fail,
    /// The proposer takes it back.
    Withdraw,
    /// The deadline passes.
    Expire,
    /// What it would change changes.
    Supersede,
}

impl ProposalState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Open, Self::Applied, Self::Rejected, Self::Withdrawn, Self::Expired, Self::Superseded];

    /// The state after an event. What has ended takes no further act, and time does not change it.
    ///
    /// # Errors
    /// [`ChannelReject`] says how it has ended.
    pub fn after(self, event: ProposalEvent) -> Result<Self, ChannelReject> {
        match (self, event) {
            (Self::Open, ProposalEvent::Approve | ProposalEvent::Reject) => Ok(Self::Open),
            (Self::Open, ProposalEvent::Decide) => Ok(Self::Applied),
            (Self::Open, ProposalEvent::Fail) => Ok(Self::Rejected),
            (Self::Open, ProposalEvent::Withdraw) => Ok(Self::Withdrawn),
            (Self::Open, ProposalEvent::Expire) => Ok(Self::Expired),
            (Self::Open, ProposalEvent::Supersede) => Ok(Self::Superseded),
            (
                Self::Applied | Self::Rejected | Self::Withdrawn | Self::Expired | Self::Superseded,
                ProposalEvent::Expire | ProposalEvent::Supersede,
            ) => Ok(self),
            (Self::Applied, _) => Err(ChannelReject::ProposalApplied),
            (Self::Rejected, _) => Err(ChannelReject::ProposalRejected),
            (Self::Withdrawn, _) => Err(ChannelReject::ProposalWithdrawn),
            (Self::Expired, _) => Err(ChannelReject::ProposalExpired),
            (Self::Superseded, _) => Err(ChannelReject::ProposalStale),
        }
    }
}

/// What one organisation said in one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Voice {
    /// Who, in which role.
    pub elector: Elector,
    /// By which key.
    pub key: PublicKey,
    /// In which block.
    pub height: Height,
}

/// A proposal as it stands in state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// Format version, 1.
    pub version: u8,
    /// See [`proposal_id`].
    pub id: Hash32,
    /// What it changes.
    pub change: Change,
    /// Revision of the change's target that it was made for.
    pub base: u64,
    /// Who proposed.
    pub proposer: OrgId,
    /// When, by height.
    pub height: Height,
    /// When, by time.
    pub time_ms: TimeMs,
    /// Last block time at which it can be decided.
    pub until_ms: TimeMs,
    /// Who has approved, in order of time.
    pub approvals: Vec<Voice>,
    /// Who has rejected, in order of time.
    pub rejections: Vec<Voice>,
    /// Where it stands, but for the deadline: see [`Proposal::state_at`].
    pub state: ProposalState,
}

/// The id of a proposal:
/// `sha256("seamark/channel-proposal/v1" ‖ cluster ‖ group ‖ base ‖ proposer ‖ until ‖ salt ‖ change)`,
/// numbers big-endian, the salt that of the command that proposes it. Whoever approves an id approves
/// exactly this change of exactly this state.
#[must_use]
pub fn proposal_id(
    cluster: &ClusterId,
    group: GroupId,
    base: u64,
    proposer: OrgId,
    until_ms: TimeMs,
    salt: &[u8; 16],
    change: &Change,
) -> Hash32 {
    let change = borsh::to_vec(change).expect("writing to memory does not fail");
    let parts: [&[u8]; 7] = [
        &cluster.0.0,
        &group.0.to_be_bytes(),
        &base.to_be_bytes(),
        &proposer.0.to_be_bytes(),
        &until_ms.0.to_be_bytes(),
        salt,
        &change,
    ];
    tagged(b"seamark/channel-proposal/v1", &parts)
}

impl Proposal {
    /// Where it stands at a time.
    #[must_use]
    pub fn state_at(&self, now: TimeMs) -> ProposalState {
        let event = if now > self.until_ms { ProposalEvent::Expire } else { return self.state };
        self.state.after(event).unwrap_or(self.state)
    }

    /// Electors who have approved and who have rejected, by a rule on which voices count.
    pub(crate) fn heard(&self, counts: &mut dyn FnMut(&Voice) -> bool) -> (BTreeSet<Elector>, BTreeSet<Elector>) {
        let approved = self.approvals.iter().filter(|voice| counts(voice)).map(|voice| voice.elector).collect();
        let rejected = self.rejections.iter().filter(|voice| counts(voice)).map(|voice| voice.elector).collect();
        (approved, rejected)
    }

    /// Forgets what an organisation said. Returns whether it had said anything.
    pub(crate) fn silence(&mut self, org: OrgId) -> bool {
        let before = self.approvals.len() + self.rejections.len();
        self.approvals.retain(|voice| voice.elector.org != org);
        self.rejections.retain(|voice| voice.elector.org != org);
        before != self.approvals.len() + self.rejections.len()
    }

    /// Adds a voice, in place of what the same elector said before and does not count any more.
    pub(crate) fn speak(&mut self, voice: Voice, approves: bool) {
        self.approvals.retain(|old| old.elector != voice.elector);
        self.rejections.retain(|old| old.elector != voice.elector);
        if approves { &mut self.approvals } else { &mut self.rejections }.push(voice);
    }
}

/// Whether a role speaks on proposals at all.
#[must_use]
pub fn may_speak(role: Role) -> bool {
    role != Role::Auditor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_transition_table() {
        use ProposalEvent as E;
        use ProposalState as S;
        let events = [E::Approve, E::Decide, E::Reject, E::Fail, E::Withdraw, E::Expire, E::Supersede];
        let ended = |code, state| [Err(code), Err(code), Err(code), Err(code), Err(code), Ok(state), Ok(state)];
        let table: [[Result<S, ChannelReject>; 7]; 6] = [
            [
                Ok(S::Open),
                Ok(S::Applied),
                Ok(S::Open),
                Ok(S::Rejected),
                Ok(S::Withdrawn),
                Ok(S::Expired),
                Ok(S::Superseded),
            ],
            ended(ChannelReject::ProposalApplied, S::Applied),
            ended(ChannelReject::ProposalRejected, S::Rejected),
            ended(ChannelReject::ProposalWithdrawn, S::Withdrawn),
            ended(ChannelReject::ProposalExpired, S::Expired),
            ended(ChannelReject::ProposalStale, S::Superseded),
        ];
        for (state, row) in S::ALL.into_iter().zip(table) {
            for (event, cell) in events.into_iter().zip(row) {
                assert_eq!(state.after(event), cell, "{state:?} × {event:?}");
            }
        }
    }
}
