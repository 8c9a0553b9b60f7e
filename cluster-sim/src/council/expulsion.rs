//! Certificates of clients that are revoked in the registry while transactions under them are on their way to a
//! channel: what has not been handed over when the channel hears of it is handed over in vain.

use beacon::{BeaconCommand, SignedCommand, registry};
use ledger::ids::{GroupId, TimeMs};
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Council, VALID_MS};
use crate::cluster::{CREATED_MS, admin_secret};
use crate::state::KvState;
use crate::world::World;

/// Certificates that are revoked in each channel.
const EXPULSIONS: usize = 3;

impl Council {
    /// When a client of which channel is shut out.
    pub(super) fn expulsions(&mut self, channels: &[GroupId], safety_ms: u64) -> Vec<(u64, GroupId)> {
        let end = safety_ms.max(1_001);
        let all = channels.iter().flat_map(|channel| [*channel; EXPULSIONS]);
        all.map(|channel| (self.rng.random_range(600..end), channel)).collect()
    }
}

impl World {
    /// An organisation revokes the certificate of a client that has something under way in a channel.
    pub(crate) fn expel(&mut self, channel: GroupId) {
        let Some(registrar) = self.leader_of(GroupId::BEACON) else { return };
        let until = TimeMs(CREATED_MS + self.clock_ms() + VALID_MS);
        let Some(beacon) = self.nodes.get(&registrar).and_then(|node| node.replicas.get(&GroupId::BEACON)) else {
            return;
        };
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        let council = &mut self.council;
        let Some((org, credential)) = self.clients.shown(channel).choose(&mut council.rng).copied() else { return };
        let own = registry::org(&mut View::new(&reader), org);
        let Some(secret) = own.and_then(|own| admin_secret(&own.admin_key)) else { return };
        let command = BeaconCommand::RevokeCredential { credential };
        let signed = SignedCommand::sign(&council.cluster, &command, org, council.rng.random(), until, secret);
        self.submit(registrar, GroupId::BEACON, signed.encode());
    }
}
