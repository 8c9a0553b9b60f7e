//! How organisations have epochs: more than half of them sign the policy in the registry, one after the other, until it is in
//! force.

use beacon::epochs::{self, EPOCH_VERSION, EpochPolicy};
use beacon::{BeaconCommand, SignedCommand, registry};
use ledger::ids::{GroupId, OrgId, TimeMs};
use ledger::view::View;
use rand::Rng;

use super::{Council, VALID_MS};
use crate::cluster::{CREATED_MS, ORGS, admin_secret};
use crate::ending::Phase;
use crate::event::Event;
use crate::state::KvState;
use crate::world::World;

/// When epochs are first asked for.
pub(super) const ASK_MS: u64 = 450;
/// Between two times.
const ASKED_MS: u64 = 110;
/// The length of an epoch that is asked for, milliseconds of block time: the shortest that the registry takes.
pub(crate) const LENGTH_MS: u64 = beacon::limits::EPOCH_MS_MIN;

/// What is asked for.
const POLICY: EpochPolicy = EpochPolicy { version: EPOCH_VERSION, length_ms: LENGTH_MS, bad_nodes: 0, risk_max_ppb: 0 };

impl Council {
    /// Somebody signs the policy; nothing once it is in force.
    fn for_epochs(&mut self, view: &mut View<'_>, now: TimeMs) -> Option<SignedCommand> {
        if epochs::policy(view) == POLICY {
            return None;
        }
        let org = OrgId(self.rng.random_range(0..ORGS));
        let secret = admin_secret(&registry::org(view, org)?.admin_key)?;
        let (command, until_ms) = (BeaconCommand::SetEpochs(POLICY), TimeMs(now.0 + VALID_MS));
        Some(SignedCommand::sign(&self.cluster, &command, org, self.rng.random(), until_ms, secret))
    }
}

impl World {
    /// Takes the policy of epochs a step further.
    pub(crate) fn ask_for_epochs(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let Some(leader) = self.leader_of(GroupId::BEACON) else { return self.push(ASKED_MS, Event::Epochs) };
        let replica = self.nodes.get(&leader).and_then(|node| node.replicas.get(&GroupId::BEACON));
        let Some(replica) = replica else { return self.push(ASKED_MS, Event::Epochs) };
        let reader = KvState { kv: &replica.kv, hide_receipts: false };
        let signed = self.council.for_epochs(&mut View::new(&reader), now);
        if let Some(signed) = signed {
            self.submit(leader, GroupId::BEACON, signed.encode());
            self.push(ASKED_MS, Event::Epochs);
        }
    }
}
