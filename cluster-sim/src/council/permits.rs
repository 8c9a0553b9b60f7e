//! How assets come to be permitted in the channel that is founded while the cluster runs, where it has money: one member after the
//! other proposes and approves, by whatever policy is in force by then and whoever is a member, until they are.

use channel::{Change, Command as Act, ProposalState, Role, state};
use ledger::crypto::PublicKey;
use ledger::ids::{AssetId, GroupId, OrgId, TimeMs};
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::acts::OPEN_MS;
use crate::cluster::{CREATED_MS, admin_secret};
use crate::ending::Phase;
use crate::event::Event;
use crate::state::KvState;
use crate::world::World;

/// When somebody first asks for an asset.
pub(super) const PERMIT_MS: u64 = 600;
/// How long each step waits for the one before.
const PERMIT_AGAIN_MS: u64 = 110;

/// What follows.
enum Next {
    /// All assets are permitted.
    Over,
    /// Nobody can do anything now.
    Wait,
    Sign(OrgId, PublicKey, Box<Act>),
}

/// The next step towards the first asset that is not permitted.
fn next(view: &mut View<'_>, assets: &[AssetId], now: TimeMs, rng: &mut ChaCha8Rng) -> Next {
    let Some(asset) = assets.iter().find(|asset| !state::asset_permitted(view, asset)).copied() else {
        return Next::Over;
    };
    let wanted = |change: &Change| matches!(change, Change::PermitAsset { asset: other } if *other == asset);
    let open = state::proposals(view)
        .into_iter()
        .find(|found| wanted(&found.change) && found.state_at(now) == ProposalState::Open);
    let mut members = Vec::new();
    for member in state::members(view) {
        let admin = |key: &&channel::state::RoleKey| key.role == Role::Admin && admin_secret(&key.key).is_some();
        members.extend(member.keys.iter().find(admin).map(|key| (member.org, key.key)));
    }
    let spoken =
        |org: OrgId| open.as_ref().is_some_and(|open| open.approvals.iter().any(|voice| voice.elector.org == org));
    let silent: Vec<(OrgId, PublicKey)> = members.iter().copied().filter(|(org, _)| !spoken(*org)).collect();
    // Where all have spoken, some of it counts no more.
    let one = silent.choose(rng).or_else(|| members.choose(rng)).copied();
    let Some((org, key)) = one else { return Next::Wait };
    let act = match open {
        Some(open) => Act::Approve { proposal: open.id },
        None => Act::Propose { change: Change::PermitAsset { asset }, until_ms: TimeMs(now.0 + OPEN_MS) },
    };
    Next::Sign(org, key, Box::new(act))
}

impl World {
    /// The next step towards assets in the channel that was founded.
    pub(crate) fn permit(&mut self, group: GroupId) {
        if self.phase != Phase::Faults {
            return;
        }
        let again_ms = PERMIT_AGAIN_MS + self.money.random_range(0..40);
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let leader = self.leader_of(group);
        let replica = leader.and_then(|leader| self.nodes.get(&leader)?.replicas.get(&group));
        let step = replica.map_or(Next::Wait, |replica| {
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            next(&mut View::new(&reader), &self.council.assets, now, &mut self.money)
        });
        match (step, leader) {
            (Next::Over, _) => return,
            (Next::Sign(org, key, act), Some(leader)) => {
                let signed = self.council.signed(group, org, &act, &key, now);
                self.submit(leader, group, signed.encode());
            }
            (Next::Sign(..) | Next::Wait, _) => {}
        }
        self.push(again_ms, Event::Permit { group });
    }
}
