//! What each change does once it is approved, and why it may not be done.
//!
//! The same checks run when a change is proposed, so that what cannot be is refused before anybody
//! is asked, and again when it is approved, because members, seats and policies move meanwhile.

use std::collections::BTreeSet;

use ledger::committee::Engine;
use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::ids::{NodeId, OrgId, TimeMs};

use crate::change::Target;
use crate::change::{AuditGrant, Change, Subject};
use crate::exclusion::{Departure, EXCLUSION_VERSION, Exclusion};
use crate::lifecycle::Step;
use crate::limits::{ASSETS_MAX, GRANT_MS_MAX, GRANTS_MAX, MEMBERS_MAX, PROPOSAL_MS_MAX, REVOCATIONS_PER_MEMBER_MAX};
use crate::policy::{Policy, Role};
use crate::proposal::Proposal;
use crate::reject::{ChannelReject, Refusal};
use crate::scene::Scene;
use crate::state::{self, Batch, ChannelRecord, GrantRecord, Invitation, MemberRecord, Revocation};
use crate::surroundings::ascending;

impl Scene<'_, '_> {
    /// The writes of a proposal's change, besides the proposal itself.
    ///
    /// # Errors
    /// Why it cannot come into force as things are.
    pub fn enact(&mut self, proposal: &Proposal) -> Result<Batch, Refusal> {
        let mut batch = Batch::default();
        let mut targets = vec![proposal.change.target()];
        let mut gone = None;
        match &proposal.change {
            Change::Invite { org, until_ms } => self.invite(&mut batch, proposal, *org, *until_ms)?,
            Change::Remove { org } => {
                if *org == proposal.proposer {
                    return Err(ChannelReject::RemoveSelf.into());
                }
                targets = self.exclude(&mut batch, *org, Departure::Removed(proposal.id))?;
                gone = Some(*org);
            }
            Change::Anchors { org, nodes } => self.set_anchors(&mut batch, proposal.proposer, *org, nodes)?,
            Change::Policy { subject, policy } => {
                self.set_policy(&mut batch, *subject, policy)?;
                self.supersede_promise(&mut batch);
            }
            Change::Freeze => self.step(&mut batch, Step::Freeze)?,
            Change::Thaw => self.step(&mut batch, Step::Thaw)?,
            Change::Close => self.step(&mut batch, Step::Close)?,
            Change::PermitAsset { asset } => {
                if state::asset_permitted(self.view, asset) {
                    return Err(ChannelReject::AssetPermitted.into());
                }
                if state::assets(self.view) >= ASSETS_MAX {
                    return Err(ChannelReject::AssetsFull.into());
                }
                batch.put(state::asset_key(asset), &proposal.id);
            }
            Change::GrantAudit(grant) => self.grant(&mut batch, proposal, grant)?,
            Change::RevokeAudit { org, grant } => {
                if !state::grants_of(self.view, *org).iter().any(|found| found.id == *grant) {
                    return Err(ChannelReject::GrantUnknown.into());
                }
                batch.delete(state::grant_key(*org, grant));
            }
            Change::Engine { engine } => self.switch(&mut batch, *engine)?,
            Change::RevokeKey { org, key } => {
                let member = self.expect_member(*org)?;
                self.revoke_key(&mut batch, member, key)?;
            }
        }
        self.supersede(&mut batch, &targets, Some(proposal.id), gone);
        Ok(batch)
    }

    fn invite(
        &mut self,
        batch: &mut Batch,
        proposal: &Proposal,
        org: OrgId,
        until_ms: TimeMs,
    ) -> Result<(), ChannelReject> {
        if org == proposal.proposer {
            return Err(ChannelReject::InviteSelf);
        }
        if self.around.registry.org(org).is_none() {
            return Err(ChannelReject::OrgUnknown);
        }
        if self.member(org).is_some() {
            return Err(ChannelReject::AlreadyMember);
        }
        let now = self.at.time_ms;
        if until_ms <= now || until_ms.0 > now.0.saturating_add(PROPOSAL_MS_MAX) {
            return Err(ChannelReject::ProposalDeadline);
        }
        let (open, ended): (Vec<_>, Vec<_>) =
            state::invitations(self.view).into_iter().partition(|invitation| invitation.until_ms >= now);
        if open.iter().any(|invitation| invitation.org == org) {
            return Err(ChannelReject::AlreadyInvited);
        }
        if self.members.len() + open.len() >= MEMBERS_MAX {
            return Err(ChannelReject::MembersFull);
        }
        ended.iter().for_each(|invitation| batch.delete(state::invitation_key(invitation.org)));
        batch.put(state::invitation_key(org), &Invitation { version: 1, org, by: proposal.id, until_ms });
        Ok(())
    }

    /// Ends a membership: by removal or by the member's own act. Returns what has changed by it.
    ///
    /// # Errors
    /// When nobody would be left, seats would be missing, or a policy could never hold again.
    pub fn exclude(&mut self, batch: &mut Batch, org: OrgId, how: Departure) -> Result<Vec<Target>, Refusal> {
        let member = self.expect_member(org)?;
        let others: Vec<MemberRecord> = self.members.iter().filter(|other| other.org != org).cloned().collect();
        if others.is_empty() {
            return Err(ChannelReject::LastMember.into());
        }
        self.seats().may_lose_org(org, self.channel.engine)?;
        self.stays_governable(&others)?;
        let exclusion = Exclusion {
            version: EXCLUSION_VERSION,
            group: self.at.group,
            org,
            joined: member.joined,
            height: self.at.height,
            time_ms: self.at.time_ms,
            how,
        };
        batch.delete(state::member_key(org));
        batch.put(state::exclusion_key(org, self.at.height), &exclusion);
        for found in state::grants_of(self.view, org) {
            batch.delete(state::grant_key(org, &found.id));
        }
        Ok(vec![Target::Member(org), Target::Nodes(org), Target::Keys(org), Target::Audit(org)])
    }

    fn set_anchors(
        &mut self,
        batch: &mut Batch,
        proposer: OrgId,
        org: OrgId,
        nodes: &[NodeId],
    ) -> Result<(), ChannelReject> {
        if org != proposer {
            return Err(ChannelReject::AnchorsNotYours);
        }
        let mut member = self.expect_member(org)?;
        if !ascending(nodes) || !nodes.iter().all(|node| member.hosts(*node)) {
            return Err(ChannelReject::AnchorsForm);
        }
        if member.anchors == nodes {
            return Err(ChannelReject::NoChange);
        }
        member.anchors = nodes.to_vec();
        batch.put(state::member_key(org), &member);
        Ok(())
    }

    fn set_policy(&mut self, batch: &mut Batch, subject: Subject, policy: &Policy) -> Result<(), Refusal> {
        policy.check(&state::roster(&self.members)).map_err(|fault| {
            let form = fault.code() == ChannelReject::PolicyForm.code();
            Refusal::because(if form { ChannelReject::PolicyForm } else { ChannelReject::PolicyUnsatisfiable }, fault)
        })?;
        if self.policy(subject)? == *policy {
            return Err(ChannelReject::NoChange.into());
        }
        batch.put(state::policy_key(subject), policy);
        Ok(())
    }

    /// Moves the channel to another phase.
    ///
    /// # Errors
    /// When its phase does not allow the step.
    pub fn step(&mut self, batch: &mut Batch, step: Step) -> Result<(), ChannelReject> {
        let mut channel = self.channel.clone();
        channel.phase = channel.phase.after(step)?;
        batch.put(state::channel_key(), &channel);
        Ok(())
    }

    /// Says which engine the channel is to have. The committee that has it comes from the beacon, which hears of this by
    /// mail; until then a change back takes it back. It begins on a committee that consists of the members' nodes, so
    /// that it is judged by the nodes that go on under it.
    fn switch(&mut self, batch: &mut Batch, engine: Engine) -> Result<(), Refusal> {
        if engine == self.channel.engine {
            return Err(ChannelReject::NoChange.into());
        }
        let committee = self.around.committee;
        if engine != committee.engine {
            let named: BTreeSet<NodeId> =
                self.members.iter().flat_map(|member| member.nodes.iter().map(|node| node.node)).collect();
            if !named.iter().copied().eq(committee.members.iter().map(|member| member.node)) {
                return Err(Refusal::because(ChannelReject::EngineChanging, "seats are moving"));
            }
            let (nodes, least) = (named.len(), engine.least_members());
            if nodes < least {
                let detail = format!("{nodes} nodes, and {engine} needs {least}");
                return Err(Refusal::because(ChannelReject::EngineNodes, detail));
            }
            if engine.tolerated(nodes) == 0 {
                let detail = format!("{nodes} nodes under {engine}, of which none may fail");
                return Err(Refusal::because(ChannelReject::QuorumLostNext, detail));
            }
        }
        batch.put(state::channel_key(), &ChannelRecord { engine, ..self.channel.clone() });
        Ok(())
    }

    fn grant(&mut self, batch: &mut Batch, proposal: &Proposal, grant: &AuditGrant) -> Result<(), ChannelReject> {
        if self.around.registry.org(grant.org).is_none() {
            return Err(ChannelReject::OrgUnknown);
        }
        let now = self.at.time_ms;
        let over = |until: TimeMs| until < now;
        let in_time = !over(grant.until_ms)
            && grant.until_ms.0 <= now.0.saturating_add(GRANT_MS_MAX)
            && grant.until_height.is_none_or(|until| until >= self.at.height);
        if !grant.scope.well_formed() || !in_time {
            return Err(ChannelReject::GrantForm);
        }
        let (ended, open): (Vec<_>, Vec<_>) = state::grants(self.view).into_iter().partition(|found| {
            over(found.grant.until_ms) || found.grant.until_height.is_some_and(|until| until < self.at.height)
        });
        if open.len() >= GRANTS_MAX {
            return Err(ChannelReject::GrantsFull);
        }
        ended.iter().for_each(|found| batch.delete(state::grant_key(found.grant.org, &found.id)));
        let record = GrantRecord { version: 1, id: proposal.id, grant: grant.clone() };
        batch.put(state::grant_key(grant.org, &proposal.id), &record);
        Ok(())
    }

    /// Revokes a key of a member, by proposal or by the member's own act.
    ///
    /// # Errors
    /// When it is the last admin key, is not there, or a policy could never hold again.
    pub fn revoke_key(&mut self, batch: &mut Batch, member: MemberRecord, key: &PublicKey) -> Result<(), Refusal> {
        let mut member = member;
        let place = member.keys.iter().position(|found| found.key == *key).ok_or(ChannelReject::KeyUnknown)?;
        let removed = member.keys.remove(place);
        if removed.role == Role::Admin && member.count(Role::Admin) == 0 {
            return Err(ChannelReject::LastAdmin.into());
        }
        self.stays_governable(&self.members_with(&member))?;
        self.note_revocation(batch, member.org, &state::credential_of(key))?;
        batch.put(state::member_key(member.org), &member);
        Ok(())
    }

    /// Notes that a key or certificate counts no more.
    ///
    /// # Errors
    /// When it was revoked before, or the organisation has revoked too many.
    pub fn note_revocation(&mut self, batch: &mut Batch, org: OrgId, credential: &Hash32) -> Result<(), ChannelReject> {
        if state::revocation(self.view, org, credential).is_some() {
            return Err(ChannelReject::NoChange);
        }
        if state::revocations(self.view, org) >= REVOCATIONS_PER_MEMBER_MAX {
            return Err(ChannelReject::RevocationsFull);
        }
        let revocation = Revocation { version: 1, height: self.at.height, time_ms: self.at.time_ms };
        batch.put(state::revocation_key(org, credential), &revocation);
        Ok(())
    }
}
