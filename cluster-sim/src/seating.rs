//! Seats of shards, and of the beacon, that move while the cluster runs: nodes that the registry names for one begin a replica without anything
//! and fetch the state, and nodes that a shard goes on without remove theirs. Routers hear of new members some time later.
//!
//! Mirrors production's `server/hosting.rs` and `leaving.rs`, as `hosting` does for channels that are founded meanwhile; here
//! the first members of a group are those of the genesis, or of the shards that it came from, and have their replicas
//! already, or open them (`opening`).

use std::collections::BTreeSet;

use beacon::ClusterView;
use cross_shard::Message;
use ledger::committee::{Committee, Engine};
use ledger::ids::{GroupId, GroupKind, NodeId};
use rand::Rng;

use crate::checkers::BlockSeen;
use crate::event::Event;
use crate::node::Node;
use crate::replica::{Effect, Replica};
use crate::sabotage::Sabotage;
use crate::seat::join_at;
use crate::wire::Wire;
use crate::world::World;

/// How long after the registry has a committee in force routers hear of it, at least and at most.
const HEARD_MS: std::ops::Range<u64> = 10..500;

/// Ticks after which a replica without anything asks the next member of a Byzantine group.
const SEEK_EVERY_TICKS: usize = 15;

/// Which groups' seats move in a run, besides those of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moving {
    /// Those of shards.
    pub(crate) shards: bool,
    /// Those of the beacon.
    pub(crate) beacon: bool,
    /// Also while the Byzantine engine orders these groups.
    pub(crate) byzantine: bool,
}

impl Moving {
    /// Whether those of a group do.
    pub(crate) fn covers(self, group: GroupId) -> bool {
        match group.kind() {
            Some(GroupKind::Shard) => self.shards,
            Some(GroupKind::Beacon) => self.beacon,
            Some(GroupKind::Channel) | None => false,
        }
    }
}

fn nodes(committee: &Committee) -> Vec<NodeId> {
    committee.members.iter().map(|member| member.node).collect()
}

/// What the registry says of the seats of a group, as far as a node has heard.
struct Seating<'a> {
    current: &'a Committee,
    coming: Option<&'a Committee>,
}

impl<'a> Seating<'a> {
    fn of(view: &'a ClusterView, group: GroupId) -> Option<Self> {
        let coming = view.coming.iter().find(|committee| committee.group == group);
        Some(Self { current: view.committee(group)?, coming })
    }

    fn seated(&self, node: NodeId) -> bool {
        self.current.index_of(node).is_some()
    }

    /// The join with which a node is to begin, if it is.
    fn joins(&self, node: NodeId) -> Option<u16> {
        let coming = self.coming.filter(|coming| !self.seated(node) && coming.index_of(node).is_some());
        coming.map(join_at)
    }

    /// The highest epoch that is known.
    fn epoch(&self) -> u64 {
        self.coming.map_or(self.current.epoch.0, |coming| coming.epoch.0.max(self.current.epoch.0))
    }
}

impl Node {
    /// Seats of these groups move in this run.
    pub(crate) fn seats_move(&mut self, moving: Moving) {
        self.moves = moving;
        self.replicas.iter_mut().filter(|(group, _)| moving.covers(**group)).for_each(|(_, replica)| replica.moves());
    }

    /// Nodes that are registered later tell their clocks, too.
    pub(crate) fn meet(&mut self, others: impl Iterator<Item = NodeId>) {
        let own = self.id;
        self.peers.extend(others.filter(|other| *other != own));
    }

    /// Begins replicas that the registry names this node for, and asks whether it may leave those that it does not any more.
    pub(crate) fn adapt_seats(&mut self, now_ms: u64, view: &ClusterView, out: &mut Vec<Effect>) {
        let moving = self.moves;
        let known = view.committees.iter().map(|committee| committee.group);
        let groups: Vec<GroupId> = known.filter(|group| moving.covers(*group)).collect();
        for group in groups {
            let Some(seating) = Seating::of(view, group) else { continue };
            let here = self.replicas.get(&group).map(Replica::join);
            match (here, seating.joins(self.id)) {
                (_, Some(join)) if here != Some(join) => {
                    if here.is_some() {
                        self.remove(group, seating.epoch(), true, out);
                    }
                    let mut replica =
                        Replica::seated(group, join, self.reshaping, self.id, &self.genesis, self.sabotage);
                    if seating.current.engine == Engine::Bft {
                        replica.follows_first();
                    }
                    self.open(now_ms, group, replica, nodes(seating.current), out);
                }
                (Some(_), None) if !seating.seated(self.id) => {
                    let members = nodes(seating.current).into_iter();
                    out.extend(members.map(|member| Effect::Send(member, Wire::Leaving { group })));
                }
                (Some(_), _) => {
                    self.members.insert(group, nodes(seating.current));
                }
                (None, _) => {}
            }
            if let Some(replica) = self.replicas.get_mut(&group) {
                replica.hear_registered(nodes(seating.current));
            }
            self.seek_state(seating.current, out);
        }
    }

    /// A replica without anything asks one member of a Byzantine group after the other for the state.
    pub(crate) fn seek_state(&mut self, current: &Committee, out: &mut Vec<Effect>) {
        let members = &current.members;
        let turn = usize::try_from(self.ticks).unwrap_or(0) / SEEK_EVERY_TICKS % members.len().max(1);
        let source = members.get(turn).map(|member| member.node).filter(|node| *node != self.id);
        if current.engine == Engine::Bft
            && let (Some(replica), Some(source)) = (self.replicas.get_mut(&current.group), source)
        {
            replica.seek(source, out);
        }
    }

    /// A member says that a shard goes on without this node.
    pub(crate) fn leave_seat(&mut self, group: GroupId, out: &mut Vec<Effect>) {
        let Some(view) = self.registry.clone() else { return };
        let Some(seating) = Seating::of(&view, group) else { return };
        // The answer may be to a question of long ago.
        let goes = !seating.seated(self.id) && seating.joins(self.id).is_none();
        if goes && self.replicas.contains_key(&group) && self.sabotage != Some(Sabotage::SeatKept) {
            self.remove(group, seating.epoch(), false, out);
        } else if goes && self.replicas.contains_key(&group) {
            let (node, epoch) = (self.id, seating.epoch());
            out.push(Effect::Saw(crate::checkers::Seen::Left { node, group, epoch, rejoins: false }));
        }
    }
}

impl World {
    /// Whether the members of a group are those of the channel that is founded meanwhile, which routers have to do with.
    fn trades(&self, group: GroupId) -> bool {
        self.shape.money > 0 && self.founding == Some(group)
    }

    /// The registry has put committees in force: routers hear of them some time later.
    pub(crate) fn announce_seats(&mut self, block: &BlockSeen) {
        let moving = self.shape.movable();
        let mut known: BTreeSet<GroupId> = BTreeSet::new();
        for (_, _, message) in &block.mail {
            if let Message::CommitteeUpdate(seated) = message
                && self.trades(seated.group)
                && known.insert(seated.group)
            {
                let place = self.seatings.len();
                self.seatings.push(seated.clone());
                let delay_ms = self.money.random_range(HEARD_MS);
                self.push(delay_ms, Event::Seats { place });
            } else if let Message::CommitteeUpdate(seated) = message
                && moving.covers(seated.group)
                && known.insert(seated.group)
            {
                let before = self.seatings.iter().rfind(|known| known.group == seated.group);
                let before = before.or_else(|| self.genesis.committee(seated.group));
                let others = before.is_none_or(|before| nodes(before) != nodes(seated));
                self.coverage.reseated += u64::from(others);
                let place = self.seatings.len();
                self.seatings.push(seated.clone());
                let delay_ms = self.elastic.random_range(HEARD_MS);
                self.push(delay_ms, Event::Seats { place });
            }
        }
    }

    /// Whether the channel that is founded meanwhile is there, and routers have not heard of it.
    pub(crate) fn is_news(&self) -> bool {
        let there = self.seatings.iter().any(|seated| self.trades(seated.group));
        there && self.founding.is_some_and(|group| self.clients.awaits(group))
    }

    /// Routers hear of the members of a group.
    pub(crate) fn hear_seats(&mut self, place: usize) {
        let mut acts = Vec::new();
        if let Some(seated) = self.seatings.get(place) {
            self.clients.hear(self.now_ms, seated, &mut acts);
        }
        self.act(acts);
    }
}
