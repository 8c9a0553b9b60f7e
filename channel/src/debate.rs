//! How a proposal is made, spoken on and decided.

use ledger::hash::Hash32;
use ledger::ids::{OrgId, TimeMs};

use crate::change::Change;
use crate::limits::{PROPOSAL_KEPT_MS, PROPOSAL_MS_MAX, PROPOSALS_KEPT_MAX, PROPOSALS_OPEN_PER_ORG_MAX};
use crate::machine::{Outcome, Signer};
use crate::policy::Residual;
use crate::proposal::{Proposal, ProposalEvent, ProposalState, Voice, may_speak, proposal_id};
use crate::reject::{ChannelReject, Refusal};
use crate::scene::Scene;
use crate::state::{self, Batch};

impl Scene<'_, '_> {
    /// Makes a proposal, with the proposer's approval where the policy asks for it.
    pub fn propose(&mut self, by: &Signer, change: &Change, until_ms: TimeMs) -> Result<(Outcome, Batch), Refusal> {
        let now = self.at.time_ms;
        if until_ms <= now || until_ms.0 > now.0.saturating_add(PROPOSAL_MS_MAX) {
            return Err(ChannelReject::ProposalDeadline.into());
        }
        let base = state::revision(self.view, change.target());
        let id = proposal_id(&self.at.cluster, self.at.group, base, by.org, until_ms, &by.salt, change);
        let mut proposal = Proposal {
            version: 1,
            id,
            change: change.clone(),
            base,
            proposer: by.org,
            height: self.at.height,
            time_ms: now,
            until_ms,
            approvals: Vec::new(),
            rejections: Vec::new(),
            state: ProposalState::Open,
        };
        if state::proposal(self.view, &id).is_some() {
            return Err(ChannelReject::NoChange.into());
        }
        // What cannot be is refused before anybody is asked.
        self.enact(&proposal)?;
        let dropped = self.room_for_proposal(by.org)?;
        let members = state::roster(&self.members).members;
        if self.policy(change.subject())?.names(&members, &by.elector()) {
            proposal.speak(Voice { elector: by.elector(), key: by.key, height: self.at.height }, true);
        }
        let met = self.weigh(&proposal)? == Residual::Met;
        let event = if met { ProposalEvent::Decide } else { ProposalEvent::Approve };
        let (outcome, mut batch) = self.conclude(proposal, event)?;
        dropped.into_iter().for_each(|id| batch.delete(state::proposal_key(&id)));
        Ok((outcome, batch))
    }

    /// Counts an approval or a rejection.
    pub fn speak(&mut self, by: &Signer, id: &Hash32, approves: bool) -> Result<(Outcome, Batch), Refusal> {
        let mut proposal = self.open_proposal(id)?;
        let members = state::roster(&self.members).members;
        let asked = self.policy(proposal.change.subject())?.names(&members, &by.elector());
        if !asked || !may_speak(by.role) {
            return Err(ChannelReject::NotElector.into());
        }
        let (approved, rejected) = self.heard(&proposal);
        if approved.contains(&by.elector()) || rejected.contains(&by.elector()) {
            return Err(ChannelReject::ProposalActed.into());
        }
        proposal.speak(Voice { elector: by.elector(), key: by.key, height: self.at.height }, approves);
        let event = match (self.weigh(&proposal)?, approves) {
            (Residual::Met, _) => ProposalEvent::Decide,
            (Residual::Open(_) | Residual::Impossible, true) => ProposalEvent::Approve,
            (Residual::Open(_), false) => ProposalEvent::Reject,
            (Residual::Impossible, false) => ProposalEvent::Fail,
        };
        self.conclude(proposal, event)
    }

    /// Takes back a proposal.
    pub fn withdraw(&mut self, org: OrgId, id: &Hash32) -> Result<(Outcome, Batch), Refusal> {
        let proposal = state::proposal(self.view, id).ok_or(ChannelReject::ProposalUnknown)?;
        if proposal.proposer != org {
            return Err(ChannelReject::NotProposer.into());
        }
        self.conclude(proposal, ProposalEvent::Withdraw)
    }

    /// Brings a proposal into force whose policy holds already.
    pub fn settle(&mut self, id: &Hash32) -> Result<(Outcome, Batch), Refusal> {
        let proposal = self.open_proposal(id)?;
        match self.weigh(&proposal)? {
            Residual::Met => self.conclude(proposal, ProposalEvent::Decide),
            Residual::Open(_) | Residual::Impossible => Err(ChannelReject::Undecided.into()),
        }
    }

    /// A proposal that is open and whose target has not changed.
    fn open_proposal(&mut self, id: &Hash32) -> Result<Proposal, ChannelReject> {
        let proposal = state::proposal(self.view, id).ok_or(ChannelReject::ProposalUnknown)?;
        proposal.state_at(self.at.time_ms).after(ProposalEvent::Approve)?;
        // Whatever changes a target ends its open proposals, so this only guards that rule.
        if state::revision(self.view, proposal.change.target()) != proposal.base {
            return Err(ChannelReject::ProposalStale);
        }
        Ok(proposal)
    }

    fn conclude(&mut self, mut proposal: Proposal, event: ProposalEvent) -> Result<(Outcome, Batch), Refusal> {
        proposal.state = proposal.state_at(self.at.time_ms).after(event)?;
        let mut batch = match event {
            ProposalEvent::Decide => self.enact(&proposal)?,
            ProposalEvent::Approve
            | ProposalEvent::Reject
            | ProposalEvent::Fail
            | ProposalEvent::Withdraw
            | ProposalEvent::Expire
            | ProposalEvent::Supersede => Batch::default(),
        };
        batch.put(state::proposal_key(&proposal.id), &proposal);
        Ok((Outcome::Proposal { id: proposal.id, state: proposal.state }, batch))
    }

    /// Proposals to drop so that there is room for another one: those that ended long ago, and if
    /// there are still too many, the ended ones with the earliest deadline.
    fn room_for_proposal(&mut self, org: OrgId) -> Result<Vec<Hash32>, ChannelReject> {
        let now = self.at.time_ms;
        let all = state::proposals(self.view);
        let (open, mut ended): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|proposal| proposal.state_at(now) == ProposalState::Open);
        if open.iter().filter(|proposal| proposal.proposer == org).count() >= PROPOSALS_OPEN_PER_ORG_MAX {
            return Err(ChannelReject::ProposalsFull);
        }
        ended.sort_by_key(|proposal| (proposal.until_ms, proposal.id));
        let surplus = (open.len() + ended.len() + 1).saturating_sub(PROPOSALS_KEPT_MAX);
        let old = |proposal: &Proposal| proposal.until_ms.0.saturating_add(PROPOSAL_KEPT_MS) < now.0;
        let drop = ended.iter().enumerate().filter(|(place, proposal)| *place < surplus || old(proposal));
        Ok(drop.map(|(_, proposal)| proposal.id).collect())
    }
}
