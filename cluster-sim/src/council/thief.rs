//! Keys that fall into other hands: an organisation that finds one of its admin keys stolen revokes it in
//! the registry, while what it approved under that key still waits in a channel; and the thief goes on
//! signing, before and after the channel hears of it.

use beacon::{BeaconCommand, SignedCommand, extract, registry};
use channel::{ProposalState, Role, state};
use ledger::crypto::PublicKey;
use ledger::hash::sha256;
use ledger::ids::{GroupId, OrgId, TimeMs};
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Council, VALID_MS};
use crate::cluster::{ADMIN_KEYS, CREATED_MS, admin_key, admin_secret};
use crate::event::Event;
use crate::state::KvState;
use crate::world::World;

/// When the thief signs, counted from the moment at which the key is revoked.
const THEFTS_MS: [u64; 7] = [0, 5, 20, 60, 150, 400, 1_000];

impl Council {
    /// An admin key that counts in a channel, and its organisation: one under which something open was
    /// approved, if there is any.
    fn robbed(&mut self, view: &mut View<'_>, now: TimeMs) -> Option<(OrgId, PublicKey)> {
        let mut held = Vec::new();
        for member in state::members(view) {
            let admins = member.keys.iter().filter(|key| key.role == Role::Admin);
            held.extend(admins.map(|key| (member.org, key.key)));
        }
        let mut spoken = Vec::new();
        for proposal in state::proposals(view) {
            if proposal.state_at(now) == ProposalState::Open {
                spoken.extend(proposal.approvals.iter().map(|voice| (voice.elector.org, voice.key)));
            }
        }
        spoken.retain(|line| held.contains(line));
        let first = spoken.choose(&mut self.rng).copied();
        first.or_else(|| held.choose(&mut self.rng).copied())
    }

    /// What the organisation sends to the registry. Its admin key there it replaces, which revokes it.
    fn revocation(&mut self, view: &mut View<'_>, org: OrgId, key: &PublicKey, now: TimeMs) -> Option<SignedCommand> {
        let own = registry::org(view, org)?.admin_key;
        let command = if own == *key {
            let mut new = (0..ADMIN_KEYS).map(|number| admin_key(org, number).public());
            let key = new.find(|new| new != key && !extract::is_revoked(view, org, &sha256(&new.0)))?;
            BeaconCommand::RotateAdminKey { key }
        } else {
            BeaconCommand::RevokeCredential { credential: sha256(&key.0) }
        };
        let until = TimeMs(now.0 + VALID_MS);
        Some(SignedCommand::sign(&self.cluster, &command, org, self.rng.random(), until, admin_secret(&own)?))
    }
}

impl World {
    /// An organisation finds out that one of its keys in a channel was stolen.
    pub(crate) fn rob(&mut self, channel: GroupId) {
        let (Some(leader), Some(registrar)) = (self.leader_of(channel), self.leader_of(GroupId::BEACON)) else {
            return;
        };
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let Some(there) = self.nodes.get(&leader).and_then(|node| node.replicas.get(&channel)) else { return };
        let Some(beacon) = self.nodes.get(&registrar).and_then(|node| node.replicas.get(&GroupId::BEACON)) else {
            return;
        };
        let in_channel = KvState { kv: &there.kv, hide_receipts: false };
        let in_registry = KvState { kv: &beacon.kv, hide_receipts: false };
        let Some((org, key)) = self.council.robbed(&mut View::new(&in_channel), now) else { return };
        let Some(signed) = self.council.revocation(&mut View::new(&in_registry), org, &key, now) else { return };
        for delay_ms in THEFTS_MS {
            self.push(delay_ms, Event::Steal { group: channel, org, key });
        }
        self.submit(registrar, GroupId::BEACON, signed.encode());
    }

    /// Whoever has a stolen key does something with it.
    pub(crate) fn steal(&mut self, channel: GroupId, org: OrgId, key: PublicKey) {
        let Some(leader) = self.leader_of(channel) else { return };
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let Some(replica) = self.nodes.get(&leader).and_then(|node| node.replicas.get(&channel)) else { return };
        let reader = KvState { kv: &replica.kv, hide_receipts: false };
        let council = &mut self.council;
        let act = council.act(&mut View::new(&reader), org, now, false);
        let bytes = council.signed(channel, org, &act, &key, now).encode();
        self.submit(leader, channel, bytes);
    }
}
