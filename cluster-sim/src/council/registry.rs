//! What an admin does in the cluster's registry: it replaces its key, and revokes keys and
//! certificates, which takes effect in each channel at the block that delivers the beacon's mail.

use beacon::{BeaconCommand, SignedCommand, registry};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{OrgId, TimeMs};
use ledger::view::View;
use rand::Rng;

use super::{Council, VALID_MS};
use crate::cluster::{ORGS, admin_key, admin_secret};

impl Council {
    /// The next command to the registry.
    pub(super) fn in_registry(&mut self, view: &mut View<'_>, now: TimeMs) -> SignedCommand {
        let org = OrgId(self.rng.random_range(0..ORGS));
        let command = match self.rng.random_range(0..6) {
            0..=2 => BeaconCommand::RotateAdminKey { key: self.some_key(org) },
            // A key that may be one in a channel.
            3 | 4 => BeaconCommand::RevokeCredential { credential: sha256(&self.some_key(org).0) },
            _ => BeaconCommand::RevokeCredential { credential: Hash32([self.rng.random_range(0..4); 32]) },
        };
        let signer = if self.rng.random_range(0..12) == 0 { OrgId((org.0 + 1) % ORGS) } else { org };
        let known = registry::org(view, signer).and_then(|info| admin_secret(&info.admin_key));
        let secret = known.unwrap_or_else(|| admin_key(org, 0));
        SignedCommand::sign(&self.cluster, &command, org, self.rng.random(), TimeMs(now.0 + VALID_MS), secret)
    }
}
