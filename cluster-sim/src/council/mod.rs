//! The admins of organisations: they govern channels and change their keys, at once and against each
//! other, sometimes with a command that was sent before or a key that is not theirs.
//!
//! An admin looks at the state of whoever leads and signs what seems right then; when its command is
//! executed, things may have changed. What it does is in `acts` for channels and in `registry` for the
//! cluster's registry, `founders` founds a channel, `switch` changes the engine of a shard or of the beacon, `shards` has
//! shards cut and joined, `epochs` has seeds drawn, `nodes` has nodes come and go, `keys` gives them other signing keys, `rules` has other policies of the cluster, `removals` strikes off who has voted twice; `thief` is about keys that are revoked while they are in use, `expulsion` about certificates of
//! clients, `lapses` counts what became of them, `permits` has assets permitted in the channel that is founded, `changes` counts what money does there.

mod acts;
mod changes;
mod epochs;
mod expulsion;
mod founders;
mod keys;
mod lapses;
mod nodes;
mod permits;
mod registry;
mod removals;
mod rules;
mod shards;
mod switch;
mod thief;

use std::collections::{BTreeMap, BTreeSet};

use channel::state;
use channel::{Command as Act, Outcome, Role, SignedCommand};
use cross_shard::RegistryUpdate;
use ledger::asset::AssetSpec;
use ledger::crypto::PublicKey;
use ledger::ids::{AssetId, ClusterId, GroupId, NodeId, OrgId, TimeMs};
use ledger::schema;
use ledger::tx::Move;
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use shard_node::core::entry::Command;

use crate::checkers::{BlockSeen, Governed};
use crate::cluster::{ADMIN_KEYS, CREATED_MS, ORGS, admin_key, admin_secret, channels};
use crate::ending::Phase;
use crate::event::Event;
use crate::schedule::Scenario;
use crate::state::KvState;
use crate::world::World;

use self::changes::Changes;
pub(crate) use self::epochs::LENGTH_MS;
pub(crate) use self::keys::Renewal;
use self::lapses::Lapses;
pub(crate) use self::nodes::Wish;
pub(crate) use self::rules::Ruling;

/// Times at which somebody acts in a channel in the phase with faults, one organisation or several.
const MOMENTS: usize = 20;
/// Changes of the registry that are asked for.
const REGISTRY_ACTS: usize = 8;
/// Keys that are stolen in each channel.
const ROBBERIES: usize = 2;
/// Times at which somebody acts in the channel that is founded meanwhile.
const FOUNDED_MOMENTS: usize = 30;
/// How long a command is good for.
const VALID_MS: u64 = 30_000;

/// What the admins remember.
pub(crate) struct Council {
    rng: ChaCha8Rng,
    cluster: ClusterId,
    /// The channel that is founded while the cluster runs.
    founding: Option<GroupId>,
    /// Whether its founders name anchors.
    anchors: bool,
    sent: BTreeMap<GroupId, Vec<Vec<u8>>>,
    /// Who wants which nodes back in the channel that is founded.
    regret: Option<(OrgId, Vec<NodeId>)>,
    /// What a leader had that lost power with it: it is sent again before anything else.
    unsure: BTreeMap<GroupId, Vec<u8>>,
    /// Channels that somebody wants closed before the end.
    closing: BTreeSet<GroupId>,
    /// From then on.
    closing_ms: u64,
    /// The assets that the load issues.
    assets: Vec<AssetId>,
    /// What became of keys that were revoked in use.
    pub(crate) lapses: Lapses,
    /// What money did in the channel that is founded.
    pub(crate) changes: Changes,
}

impl Council {
    pub(crate) fn new(rng: ChaCha8Rng, cluster: ClusterId, founding: Option<GroupId>, anchors: bool) -> Self {
        Self {
            rng,
            cluster,
            founding,
            anchors,
            sent: BTreeMap::new(),
            unsure: BTreeMap::new(),
            regret: None,
            closing: BTreeSet::new(),
            closing_ms: 0,
            assets: Vec::new(),
            lapses: Lapses::default(),
            changes: Changes::new(founding),
        }
    }

    /// When somebody acts in which group: a channel, or the beacon.
    fn moments(&mut self, channels: &[GroupId], safety_ms: u64) -> Vec<(u64, GroupId)> {
        let end = safety_ms.max(1_001);
        self.closing_ms = end * 2 / 3;
        let mut all = Vec::new();
        for channel in channels {
            if self.rng.random_range(0..3) == 0 {
                self.closing.insert(*channel);
            }
            for moment in 0..MOMENTS {
                // Assets are permitted early, or little would happen.
                let early = moment < MOMENTS / 3;
                let at_ms = if early { self.rng.random_range(400..1_200) } else { self.rng.random_range(800..end) };
                // Those who act at once have seen the same.
                for _ in 0..self.rng.random_range(1..=3) {
                    all.push((at_ms + self.rng.random_range(0..4), *channel));
                }
            }
        }
        if !channels.is_empty() {
            all.extend((0..REGISTRY_ACTS).map(|_| (self.rng.random_range(500..end), GroupId::BEACON)));
        }
        if let Some(founding) = self.founding {
            all.extend((0..FOUNDED_MOMENTS).map(|_| (self.rng.random_range(1_000..end), founding)));
        }
        all
    }

    /// When a key in which channel is found to be stolen.
    fn robberies(&mut self, channels: &[GroupId], safety_ms: u64) -> Vec<(u64, GroupId)> {
        let end = safety_ms.max(1_001);
        let all = channels.iter().copied().chain(self.founding).flat_map(|channel| [channel; ROBBERIES]);
        all.map(|channel| (self.rng.random_range(900..end), channel)).collect()
    }

    /// A key that an organisation may come to.
    fn some_key(&mut self, org: OrgId) -> PublicKey {
        admin_key(org, self.rng.random_range(0..ADMIN_KEYS)).public()
    }

    /// The key that an organisation signs with in a channel, mostly one that counts there.
    fn signing_key(&mut self, view: &mut View<'_>, org: OrgId) -> PublicKey {
        let keys: Vec<PublicKey> = match state::member(view, org) {
            Some(member) => {
                let admins =
                    member.keys.iter().filter(|key| key.role == Role::Admin || self.rng.random_range(0..8) == 0);
                admins.map(|key| key.key).collect()
            }
            None => {
                let known: Option<RegistryUpdate> = view.load(&schema::registry_extract());
                known.and_then(|known| Some(known.org(org)?.admin_key)).into_iter().collect()
            }
        };
        match keys.choose(&mut self.rng) {
            Some(key) if self.rng.random_range(0..12) > 0 => *key,
            _ => self.some_key(org),
        }
    }

    /// The next command in a channel.
    fn in_channel(&mut self, view: &mut View<'_>, channel: GroupId, now: TimeMs, clock_ms: u64) -> SignedCommand {
        let regret = self.regret.take_if(|_| self.founding == Some(channel));
        let by = regret.as_ref().map_or_else(|| OrgId(self.rng.random_range(0..ORGS)), |(org, _)| *org);
        let may_close = self.closing.contains(&channel) && clock_ms >= self.closing_ms;
        let opens = if self.founding == Some(channel) { self.opening(view) } else { None };
        let act = if let Some((_, nodes)) = regret {
            Act::SetNodes { nodes }
        } else if let Some(opens) = opens {
            opens
        } else if self.founding == Some(channel) && self.rng.random_range(0..3) > 0 {
            self.come_or_go(view, by, now)
        } else {
            self.act(view, by, now, may_close)
        };
        // With the key of another organisation it is nobody's command.
        let signer = if self.rng.random_range(0..12) == 0 { OrgId((by.0 + 1) % ORGS) } else { by };
        let key = self.signing_key(view, signer);
        self.signed(channel, by, &act, &key, now)
    }

    fn signed(&mut self, channel: GroupId, by: OrgId, act: &Act, key: &PublicKey, now: TimeMs) -> SignedCommand {
        let secret = admin_secret(key).unwrap_or_else(|| admin_key(by, 0));
        let until = TimeMs(now.0 + VALID_MS);
        SignedCommand::sign(&self.cluster, channel, by, act, self.rng.random(), until, secret)
    }
}

impl World {
    /// When admins act.
    pub(crate) fn convene(&mut self) {
        let moves = self.operations.iter().flat_map(|operation| &operation.moves);
        let issued = moves.filter_map(|mv| if let Move::Issue(spec) = mv { Some(AssetSpec::id(spec)) } else { None });
        self.council.assets = issued.collect();
        let channels = channels(&self.genesis);
        for (at_ms, group) in self.council.moments(&channels, self.shape.safety_ms) {
            self.push(at_ms, Event::Govern { group });
        }
        for (at_ms, group) in self.council.robberies(&channels, self.shape.safety_ms) {
            self.push(at_ms, Event::Rob { group });
        }
        // Where clients show certificates.
        let guarded = channels.iter().copied().filter(|_| self.shape.guarded);
        let looked_at: Vec<GroupId> = guarded.chain(self.founding.filter(|_| self.shape.money > 0)).collect();
        for (at_ms, group) in self.council.expulsions(&looked_at, self.shape.safety_ms) {
            self.push(at_ms, Event::Expel { group });
        }
        if let Some(group) = self.founding {
            self.push(founders::FOUND_MS, Event::Found { group });
            if self.shape.money > 0 {
                self.push(permits::PERMIT_MS, Event::Permit { group });
            }
        }
        if self.shape.epochs > 0 {
            self.push(epochs::ASK_MS, Event::Epochs);
        }
        if self.shape.removals > 0 {
            self.push(removals::ASK_MS, Event::StrikeOff);
        }
    }

    /// An admin acts in the governance of a channel, or in the registry.
    pub(crate) fn govern(&mut self, group: GroupId) {
        let Some(leader) = self.leader_of(group) else { return };
        let clock_ms = self.clock_ms();
        let now = TimeMs(CREATED_MS + clock_ms);
        let Some(replica) = self.nodes.get(&leader).and_then(|node| node.replicas.get(&group)) else { return };
        let reader = KvState { kv: &replica.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        let council = &mut self.council;
        let unsure = council.unsure.remove(&group);
        let earlier = council.sent.get(&group).and_then(|sent| sent.choose(&mut council.rng)).cloned();
        let again = unsure.or_else(|| earlier.filter(|_| council.rng.random_range(0..12) == 0));
        let bytes = match again {
            Some(again) => again,
            None if group == GroupId::BEACON => council.in_registry(&mut view, now).encode(),
            None => council.in_channel(&mut view, group, now, clock_ms).encode(),
        };
        self.submit(leader, group, bytes);
        if self.council.regret.is_some() && self.council.founding == Some(group) {
            self.regret(group);
        }
    }

    /// Hands a command to a leader, which may lose power over it.
    fn submit(&mut self, leader: NodeId, group: GroupId, bytes: Vec<u8>) {
        let council = &mut self.council;
        council.sent.entry(group).or_default().push(bytes.clone());
        self.coverage.acts += 1;
        let deadly = matches!(
            self.schedule.scenario,
            Scenario::Crashes | Scenario::Leaders | Scenario::Disks | Scenario::Beacon | Scenario::Storm
        );
        if deadly && self.phase == Phase::Faults && council.rng.random_range(0..10) == 0 {
            // At once, or when it has told some of the others.
            let delay_ms = [0, 1, 3, 8, 20].choose(&mut council.rng).copied().unwrap_or(0);
            let down_ms = council.rng.random_range(60..700);
            council.unsure.insert(group, bytes.clone());
            self.push(delay_ms, Event::Die { node: leader, down_ms });
        }
        let command = if group == GroupId::BEACON { Command::Registry(bytes) } else { Command::Channel(bytes) };
        self.on_node(leader, None, |node, now_ms, out| {
            node.with(now_ms, group, out, |replica, now, out| replica.inject(now, vec![command], out));
        });
    }

    /// A leader dies with an act under way.
    pub(crate) fn die(&mut self, node: NodeId, down_ms: u64) {
        if self.phase == Phase::Faults && self.nodes.get(&node).is_some_and(|node| node.up) {
            self.faults += 1;
            self.coverage.acts_cut += 1;
            self.crash(node, down_ms);
        }
    }

    /// Nothing is under way any more: channels that are closing can be closed.
    pub(crate) fn close_channels(&mut self) {
        for group in channels(&self.genesis) {
            let Some(leader) = self.leader_of(group) else { continue };
            let now = TimeMs(CREATED_MS + self.clock_ms());
            let Some(replica) = self.nodes.get(&leader).and_then(|node| node.replicas.get(&group)) else { continue };
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            let mut view = View::new(&reader);
            let Some(member) = state::members(&mut view).into_iter().next() else { continue };
            let Some(key) = member.keys.iter().find(|key| key.role == Role::Admin) else { continue };
            let signed = self.council.signed(group, member.org, &Act::FinishClose, &key.key, now);
            self.submit(leader, group, signed.encode());
        }
    }
}

/// How often acts of one kind were carried out in a block.
pub(crate) fn carried_out(block: &BlockSeen, kind: impl Fn(&Act, &Outcome) -> bool) -> u64 {
    let acts = block.governed.iter().filter_map(|governed| match governed {
        Governed::Act(signed, Some(outcome)) => Some((borsh::from_slice::<Act>(&signed.body).ok()?, *outcome)),
        Governed::Act(_, None)
        | Governed::Told(..)
        | Governed::Planned(..)
        | Governed::Seated(..)
        | Governed::Registered(_) => None,
    });
    acts.filter(|(act, outcome)| kind(act, outcome)).count() as u64
}
