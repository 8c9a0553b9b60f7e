//! How nodes get other signing keys: somebody puts the next one beside the one before on a node of its organisation, and has the
//! registry hear of it once it is durable there.
//!
//! Which node is decided when the registry is first asked, among those that do not lie: a liar signs with the key that it began
//! with. Now and then the registry is first shown a key that was some node's before, and has to refuse it. What the registry
//! refuses because a group is changing is asked for again, for a while.

use std::collections::BTreeSet;

use beacon::keys::prove_possession;
use beacon::{BeaconCommand, registry};
use ledger::crypto::{PublicKey, SecretKey};
use ledger::genesis::NodeInfo;
use ledger::ids::{GroupId, NodeId, TimeMs};
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::cluster::{CREATED_MS, KEYS_OF_NODE, later_key};
use crate::ending::Phase;
use crate::event::Event;
use crate::sabotage::Sabotage;
use crate::schedule::Scenario;
use crate::state::KvState;
use crate::world::World;

/// Between two steps.
const ASKED_MS: u64 = 80;
/// Steps after which nobody asks any more.
const TRIES: u32 = 40;

/// A key that a node is to have, and how often something was done about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    node: NodeId,
    number: usize,
    tries: u32,
}

/// The place of a key among those of a node.
fn number_of(node: NodeId, key: &PublicKey) -> Option<usize> {
    (0..KEYS_OF_NODE).find(|number| later_key(node, *number).public() == *key)
}

/// A node that is to have its next key, if there is any.
fn choose(view: &mut View<'_>, rng: &mut ChaCha8Rng, liars: &BTreeSet<NodeId>) -> Option<Renewal> {
    let honest = registry::nodes(view).into_iter().filter(|info| !liars.contains(&info.id));
    let known = honest.filter_map(|info| Some((info.id, number_of(info.id, &info.key)? + 1)));
    let next: Vec<(NodeId, usize)> = known.filter(|(_, number)| *number < KEYS_OF_NODE).collect();
    next.choose(rng).map(|(node, number)| Renewal { node: *node, number: *number, tries: 0 })
}

/// A key that the registry must not take: one that the node had before, or the one that another node began with.
fn taken(rng: &mut ChaCha8Rng, renewal: Renewal, nodes: &[NodeInfo]) -> Option<&'static SecretKey> {
    let before = renewal.number.saturating_sub(1);
    if before > 0 && rng.random() {
        return Some(later_key(renewal.node, rng.random_range(0..before)));
    }
    let others: Vec<NodeId> = nodes.iter().map(|info| info.id).filter(|id| *id != renewal.node).collect();
    others.choose(rng).map(|other| later_key(*other, 0))
}

impl World {
    /// Takes another key for a node a step further, or chooses the node.
    pub(crate) fn renew_key(&mut self, place: Option<usize>) {
        if self.phase != Phase::Faults {
            return;
        }
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let Some(leader) = self.leader_of(GroupId::BEACON) else {
            return self.push(ASKED_MS, Event::RenewKey { place });
        };
        let hasty = self.config.sabotage == Some(Sabotage::KeyUnsynced);
        let liars: BTreeSet<NodeId> = self.liars.iter().map(|(node, _, _)| *node).collect();
        let (renewal, writes, bytes) = {
            let replica = self.nodes.get(&leader).and_then(|node| node.replicas.get(&GroupId::BEACON));
            let Some(replica) = replica else { return self.push(ASKED_MS, Event::RenewKey { place }) };
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            let mut view = View::new(&reader);
            let known = place.and_then(|place| self.renewals.get(place)).copied();
            let Some(renewal) = known.or_else(|| choose(&mut view, &mut self.renewing, &liars)) else { return };
            // It may have been struck off meanwhile.
            let Some(info) = registry::node(&mut view, renewal.node) else { return };
            let next = later_key(renewal.node, renewal.number);
            let (public, host) = (next.public(), self.nodes.get(&renewal.node));
            // It has the key, or one that came behind it.
            if number_of(renewal.node, &info.key).is_none_or(|known| known >= renewal.number) {
                return;
            }
            let has = host.is_some_and(|host| host.keys.has(&public));
            let lacks = host.is_some_and(|host| host.up && !host.keys.has(&public) && !host.keys.writes());
            let writes = lacks && (renewal.tries == 0 || !hasty);
            let refused = if self.renewing.random_range(0..6) == 0 {
                taken(&mut self.renewing, renewal, &registry::nodes(&mut view))
            } else {
                None
            };
            let shown = refused.or_else(|| (has || hasty).then_some(next));
            let bytes = shown.and_then(|key| {
                let cluster = self.genesis.cluster_id();
                let possession = prove_possession(&cluster, renewal.node, &info.key, key);
                let command = BeaconCommand::RotateNodeKey { node: renewal.node, key: key.public(), possession };
                self.council.sign_for(&mut view, info.org, &command, now)
            });
            (renewal, writes, bytes)
        };
        let renewal = Renewal { tries: renewal.tries + 1, ..renewal };
        let place = place.unwrap_or(self.renewals.len());
        match self.renewals.get_mut(place) {
            Some(known) => *known = renewal,
            None => self.renewals.push(renewal),
        }
        if writes {
            self.write_key(renewal);
        }
        if let Some(bytes) = bytes {
            self.submit(leader, GroupId::BEACON, bytes);
        }
        if renewal.tries < TRIES {
            self.push(ASKED_MS, Event::RenewKey { place: Some(place) });
        }
    }

    /// Somebody puts the next key on a node. Where power fails, it may fail there before the key is durable.
    fn write_key(&mut self, Renewal { node, number, .. }: Renewal) {
        if let Some(host) = self.nodes.get_mut(&node) {
            let now = host.ticks;
            host.keys.put_next(later_key(node, number).clone(), now);
        }
        let deadly = matches!(
            self.schedule.scenario,
            Scenario::Crashes | Scenario::Leaders | Scenario::Disks | Scenario::Beacon | Scenario::Storm
        );
        if deadly && self.renewing.random_range(0..3) == 0 {
            let (delay_ms, down_ms) = (self.renewing.random_range(0..120), self.renewing.random_range(60..700));
            self.push(delay_ms, Event::Cut { node, down_ms });
        }
    }
}
