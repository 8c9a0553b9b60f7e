//! What an organisation does with what is its own, without anybody's approval: joining, leaving,
//! keys, certificates and nodes. And the last step of closing.

use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::ids::{NodeId, OrgId};
use ledger::limits::COMMITTEE_MAX;

use crate::change::Target;
use crate::exclusion::Departure;
use crate::lifecycle::Step;
use crate::limits::{KEYS_PER_MEMBER_MAX, MEMBERS_MAX};
use crate::policy::Role;
use crate::reject::{ChannelReject, Refusal};
use crate::scene::Scene;
use crate::state::{self, Batch, Invitation, MemberRecord, RoleKey};
use crate::surroundings::{nodes_of, usable_key};

impl Scene<'_, '_> {
    /// An invitation that has not ended.
    pub fn invitation(&mut self, org: OrgId) -> Option<Invitation> {
        let now = self.at.time_ms;
        state::invitation(self.view, org).filter(|invitation| invitation.until_ms >= now)
    }

    /// Makes an invited organisation a member, under the admin key that the registry has for it.
    pub fn join(&mut self, org: OrgId, key: &PublicKey, nodes: &[NodeId]) -> Result<Batch, Refusal> {
        self.invitation(org).ok_or(ChannelReject::NotInvited)?;
        let entry = self.around.registry.org(org).ok_or(ChannelReject::OrgUnknown)?;
        if entry.admin_key != *key {
            return Err(ChannelReject::KeyUnknown.into());
        }
        if self.key_in_use(key) {
            return Err(ChannelReject::KeyInUse.into());
        }
        let nodes = nodes_of(self.around.registry, org, nodes)?;
        let seats: usize = self.members.iter().map(|member| member.nodes.len()).sum();
        if self.members.len() >= MEMBERS_MAX || seats + nodes.len() > COMMITTEE_MAX {
            return Err(ChannelReject::MembersFull.into());
        }
        let member = MemberRecord {
            version: 1,
            org,
            name: entry.name,
            joined: self.at.height,
            keys: vec![RoleKey { key: *key, role: Role::Admin }],
            nodes,
            anchors: Vec::new(),
        };
        let with_it: Vec<MemberRecord> = self.members.iter().cloned().chain([member.clone()]).collect();
        self.stays_governable(&with_it)?;
        let mut batch = Batch::default();
        batch.put(state::member_key(org), &member);
        batch.delete(state::invitation_key(org));
        self.supersede(&mut batch, &[Target::Member(org), Target::Nodes(org), Target::Keys(org)], None, None);
        Ok(batch)
    }

    /// Declines an invitation.
    pub fn decline(&mut self, org: OrgId) -> Result<Batch, Refusal> {
        self.invitation(org).ok_or(ChannelReject::NotInvited)?;
        let mut batch = Batch::default();
        batch.delete(state::invitation_key(org));
        self.supersede(&mut batch, &[Target::Member(org)], None, None);
        Ok(batch)
    }

    /// Ends the organisation's own membership.
    pub fn leave(&mut self, org: OrgId) -> Result<Batch, Refusal> {
        let mut batch = Batch::default();
        let targets = self.exclude(&mut batch, org, Departure::Left)?;
        self.supersede(&mut batch, &targets, None, Some(org));
        Ok(batch)
    }

    fn new_key(&mut self, org: OrgId, key: &PublicKey) -> Result<(), ChannelReject> {
        if !usable_key(key) {
            return Err(ChannelReject::KeyForm);
        }
        if self.key_in_use(key) {
            return Err(ChannelReject::KeyInUse);
        }
        if state::revocation(self.view, org, &state::credential_of(key)).is_some() {
            return Err(ChannelReject::KeyRevoked);
        }
        Ok(())
    }

    fn put_keys(&mut self, mut member: MemberRecord) -> Batch {
        let mut batch = Batch::default();
        member.keys.sort_by_key(|found| found.key);
        batch.put(state::member_key(member.org), &member);
        self.supersede(&mut batch, &[Target::Keys(member.org)], None, None);
        batch
    }

    /// Adds a key.
    pub fn add_key(&mut self, org: OrgId, key: &PublicKey, role: Role) -> Result<Batch, Refusal> {
        let mut member = self.expect_member(org)?;
        if !matches!(role, Role::Admin | Role::Member) || member.keys.len() >= KEYS_PER_MEMBER_MAX {
            return Err(ChannelReject::KeyForm.into());
        }
        self.new_key(org, key)?;
        member.keys.push(RoleKey { key: *key, role });
        Ok(self.put_keys(member))
    }

    /// Puts a key in place of another.
    pub fn rotate_key(&mut self, org: OrgId, old: &PublicKey, new: &PublicKey) -> Result<Batch, Refusal> {
        let mut member = self.expect_member(org)?;
        self.new_key(org, new)?;
        let place = member.keys.iter_mut().find(|found| found.key == *old).ok_or(ChannelReject::KeyUnknown)?;
        place.key = *new;
        Ok(self.put_keys(member))
    }

    /// Revokes one of the organisation's own keys.
    pub fn revoke_own_key(&mut self, org: OrgId, key: &PublicKey) -> Result<Batch, Refusal> {
        let member = self.expect_member(org)?;
        let mut batch = Batch::default();
        self.revoke_key(&mut batch, member, key)?;
        self.supersede(&mut batch, &[Target::Keys(org)], None, None);
        Ok(batch)
    }

    /// Revokes one of the organisation's own certificates.
    pub fn revoke_certificate(&mut self, org: OrgId, credential: &Hash32) -> Result<Batch, Refusal> {
        let member = self.expect_member(org)?;
        // A key is revoked as a key, which looks after the last admin.
        if member.keys.iter().any(|found| state::credential_of(&found.key) == *credential) {
            return Err(ChannelReject::KeyForm.into());
        }
        let mut batch = Batch::default();
        self.note_revocation(&mut batch, org, credential)?;
        Ok(batch)
    }

    /// Sets the organisation's nodes.
    pub fn set_nodes(&mut self, org: OrgId, nodes: &[NodeId]) -> Result<Batch, Refusal> {
        let mut member = self.expect_member(org)?;
        let found = nodes_of(self.around.registry, org, nodes)?;
        if found == member.nodes {
            return Err(ChannelReject::NoChange.into());
        }
        if !member.anchors.iter().all(|anchor| nodes.contains(anchor)) {
            return Err(ChannelReject::AnchorsForm.into());
        }
        let others: usize = self.members.iter().filter(|other| other.org != org).map(|other| other.nodes.len()).sum();
        if others + found.len() > COMMITTEE_MAX {
            return Err(ChannelReject::MembersFull.into());
        }
        let seated = self.around.committee.members.iter().filter(|seat| seat.org == org);
        let lost = seated.filter(|seat| !nodes.contains(&seat.node)).count();
        self.seats().may_lose(org, lost, self.channel.engine)?;
        member.nodes = found;
        let mut batch = Batch::default();
        batch.put(state::member_key(org), &member);
        self.supersede(&mut batch, &[Target::Nodes(org)], None, None);
        Ok(batch)
    }

    /// Closes a channel that is closing and has nothing under way.
    pub fn finish_close(&mut self) -> Result<Batch, Refusal> {
        let mut batch = Batch::default();
        self.step(&mut batch, Step::Drain)?;
        let under_way = self.around.under_way;
        if under_way.registers > 0 {
            return Err(Refusal::because(ChannelReject::CloseRegisters, format!("{} of them", under_way.registers)));
        }
        if under_way.mail > 0 {
            return Err(Refusal::because(ChannelReject::CloseMail, format!("{} messages", under_way.mail)));
        }
        self.supersede(&mut batch, &[Target::Phase], None, None);
        Ok(batch)
    }
}
