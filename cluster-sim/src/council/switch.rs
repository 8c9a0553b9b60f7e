//! How organisations have a shard, or the beacon, go over to the other engine: more than half of them sign it in the registry, one after
//! the other and now and then twice, and the beacon carries it out.
//!
//! Meanwhile somebody always has an entry under way in that group, so that there are entries behind the one that hands over.

use beacon::{BeaconCommand, SignedCommand, engine, registry};
use channel::Engine;
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Council, VALID_MS};
use crate::cluster::{CREATED_MS, ORGS, admin_secret};
use crate::ending::Phase;
use crate::event::Event;
use crate::replica::Replica;
use crate::schedule::Scenario;
use crate::state::KvState;
use crate::world::World;

/// Between two looks at a switch that is asked for, and at one that is prepared.
const ASKED_MS: u64 = 50;
const PREPARED_MS: u64 = 15;

/// What the beacon says of a group.
struct Outlook {
    /// Where a switch leads to.
    to: Engine,
    /// Whether it is prepared, or in force.
    prepared: bool,
    /// What an organisation signs next.
    signed: Option<SignedCommand>,
}

impl Council {
    /// Signs that a group goes over to an engine, for somebody who has not; nothing once that is decided.
    fn towards(&mut self, view: &mut View<'_>, group: GroupId, to: Engine, now: TimeMs) -> Option<SignedCommand> {
        let current = registry::committee(view, group)?;
        if engine::wanted(view, &current) == to {
            return None;
        }
        let of_this = |found: &engine::SwitchProposal| {
            let asked = found.asked;
            asked.group == group && asked.engine == to && asked.committee == current.hash()
        };
        let known = engine::proposals(view).into_iter().find(of_this);
        let approved = known.map_or_else(Vec::new, |found| found.approvals);
        let missing: Vec<OrgId> = (0..ORGS).map(OrgId).filter(|org| !approved.contains(org)).collect();
        let org = missing.choose(&mut self.rng).copied()?;
        let secret = admin_secret(&registry::org(view, org)?.admin_key)?;
        let command = BeaconCommand::SwitchEngine { group, engine: to };
        let until_ms = TimeMs(now.0 + VALID_MS);
        Some(SignedCommand::sign(&self.cluster, &command, org, self.rng.random(), until_ms, secret))
    }
}

const fn other(engine: Engine) -> Engine {
    match engine {
        Engine::Raft => Engine::Bft,
        Engine::Bft => Engine::Raft,
    }
}

impl World {
    /// Takes a switch of a group a step further. Where it leads to is decided when the beacon is first asked: away from
    /// the engine that the group is to have by then, so one that is under way may be taken back.
    pub(crate) fn switch(&mut self, group: GroupId, to: Option<Engine>) {
        if self.phase != Phase::Faults {
            return;
        }
        let leader = self.leader_of(GroupId::BEACON);
        let outlook = leader.and_then(|leader| Some((leader, self.outlook(leader, group, to)?)));
        let Some((leader, Outlook { to, prepared, signed })) = outlook else {
            return self.push(ASKED_MS, Event::Switch { group, to });
        };
        if let Some(signed) = signed {
            self.submit(leader, GroupId::BEACON, signed.encode());
        }
        if prepared {
            self.rush(group);
        }
        let up = self.nodes.values().filter(|node| node.up);
        let mut engines = up.filter_map(|node| node.replicas.get(&group)).filter_map(Replica::ordered_by);
        if engines.any(|engine| engine != to) {
            self.push(if prepared { PREPARED_MS } else { ASKED_MS }, Event::Switch { group, to: Some(to) });
        }
    }

    fn outlook(&mut self, leader: NodeId, group: GroupId, to: Option<Engine>) -> Option<Outlook> {
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let replica = self.nodes.get(&leader)?.replicas.get(&GroupId::BEACON)?;
        let reader = KvState { kv: &replica.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        let current = registry::committee(&mut view, group)?;
        let to = to.unwrap_or_else(|| other(engine::wanted(&mut view, &current)));
        let prepared = registry::coming_of(&mut view, group).is_some() || current.engine == to;
        let signed = self.council.towards(&mut view, group, to, now);
        Some(Outlook { to, prepared, signed })
    }

    /// Has whoever leads a group sequence an entry without a command.
    pub(super) fn rush(&mut self, group: GroupId) {
        if let Some(leader) = self.leader_of(group) {
            self.on_node(leader, None, |node, now_ms, out| {
                node.with(now_ms, group, out, |replica, now, out| replica.inject(now, Vec::new(), out));
            });
        }
    }

    /// A node begins to go over to another engine: where power fails, it may fail there now.
    pub(crate) fn ambush_going_over(&mut self, node: NodeId) {
        let deadly = matches!(
            self.schedule.scenario,
            Scenario::Crashes | Scenario::Leaders | Scenario::Disks | Scenario::Beacon | Scenario::Storm
        );
        if deadly && self.phase == Phase::Faults && self.rng.random_range(0..3) == 0 {
            let (delay_ms, down_ms) = (self.rng.random_range(0..30), self.rng.random_range(60..900));
            self.push(delay_ms, Event::Cut { node, down_ms });
        }
    }
}
