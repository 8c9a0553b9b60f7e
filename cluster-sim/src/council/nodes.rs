//! How nodes come and go: organisations drain nodes of theirs and take them back, have them take their share, give the seats of
//! one to another one, register new ones and strike off those that have none.
//!
//! What is wanted is drawn by what the registry says when it is first asked; what follows from it, step by step, by what it
//! says then. What the registry refuses, a wish is given up over after a while.

use beacon::{BeaconCommand, jobs, nodes, registry};
use ledger::committee::{Committee, Engine};
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::cluster::{CREATED_MS, node_info};
use crate::ending::Phase;
use crate::event::Event;
use crate::seating::Moving;
use crate::state::KvState;
use crate::world::World;

/// Between two steps of a wish.
const ASKED_MS: u64 = 90;
/// Steps after which it is given up.
const TRIES: u32 = 30;

/// What an organisation wants of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// It is to have no seats.
    Drain(NodeId),
    /// It is to have seats again, and its share of them.
    Return(NodeId),
    /// Another one of the organisation is to have its seats.
    Replace(NodeId, NodeId),
    /// It is to be gone.
    Leave(NodeId),
    /// It is new, or was gone before: then the registry has to refuse it.
    Register(NodeId),
}

/// A wish, and how often something was done about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    want: Want,
    tries: u32,
}

/// What follows.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, which is taken apart at once")]
enum Next {
    Over,
    Wait,
    Sign(NodeId, BeaconCommand),
}

pub(super) fn seated(view: &mut View<'_>, node: NodeId) -> bool {
    let has = |committee: &Committee| committee.index_of(node).is_some();
    registry::committees(view).iter().any(has) || registry::coming(view).iter().any(has)
}

/// Whether a node has a seat in the beacon that stays: where the beacon goes over between engines, nobody asks for a change of
/// its members while the Byzantine one orders it. One that was asked for before may come into force then all the same.
fn stays_in_beacon(view: &mut View<'_>, node: NodeId, moving: Moving) -> bool {
    let beacon = registry::committee(view, GroupId::BEACON).filter(|committee| committee.index_of(node).is_some());
    let stays = |committee: Committee| committee.engine == Engine::Bft && !moving.byzantine;
    beacon.is_some_and(|committee| stays(committee) || !moving.covers(GroupId::BEACON))
}

/// Something to want, if there is anything; `last` is the highest number of a node that there may be.
fn choose(view: &mut View<'_>, rng: &mut ChaCha8Rng, moving: Moving, last: u32) -> Option<Want> {
    let known = registry::nodes(view);
    let gone: Vec<NodeId> = nodes::removed(view).into_iter().map(|gone| gone.node).collect();
    let fresh: Vec<NodeId> = (0..=last).map(NodeId).filter(|id| known.iter().all(|node| node.id != *id)).collect();
    let new: Vec<NodeId> = fresh.iter().copied().filter(|id| !gone.contains(id)).collect();
    let drained: Vec<NodeId> = known.iter().filter(|node| node.capacity == 0).map(|node| node.id).collect();
    match rng.random_range(0..8) {
        0 | 1 if !new.is_empty() => return new.choose(rng).copied().map(Want::Register),
        2 if !gone.is_empty() => return gone.choose(rng).copied().map(Want::Register),
        3 | 4 if !drained.is_empty() => return drained.choose(rng).copied().map(Want::Return),
        5 if !drained.is_empty() => return drained.choose(rng).copied().map(Want::Leave),
        _ => {}
    }
    let usable = known.iter().filter(|node| node.capacity > 0).map(|node| (node.id, node.org));
    let usable: Vec<(NodeId, OrgId)> = usable.filter(|(id, _)| !stays_in_beacon(view, *id, moving)).collect();
    let (node, org) = usable.choose(rng).copied()?;
    let others = known.iter().filter(|other| other.org == org && other.id != node && other.capacity > 0);
    let others: Vec<NodeId> = others.map(|other| other.id).collect();
    match (rng.random_range(0..4), others.choose(rng)) {
        (0 | 1, Some(other)) => Some(Want::Replace(node, *other)),
        (2, _) => Some(Want::Leave(node)),
        _ => Some(Want::Drain(node)),
    }
}

/// The next step towards what is wanted.
fn next(view: &mut View<'_>, want: Want) -> Next {
    let capacity = |node: NodeId, capacity: u16| Next::Sign(node, BeaconCommand::SetNodeCapacity { node, capacity });
    let now = |view: &mut View<'_>, node: NodeId| registry::node(view, node).map(|info| info.capacity);
    match want {
        Want::Drain(node) => match now(view, node) {
            Some(1..) => capacity(node, 0),
            Some(0) | None => Next::Over,
        },
        Want::Return(node) => match now(view, node) {
            Some(0) => capacity(node, 1),
            Some(_) if !beacon::arrivals::arriving(view).contains(&node) && !seated(view, node) => {
                Next::Sign(node, BeaconCommand::JoinNode { node })
            }
            Some(_) | None => Next::Over,
        },
        Want::Replace(node, successor) => match now(view, node) {
            Some(1..) => Next::Sign(node, BeaconCommand::ReplaceNode { node, successor }),
            Some(0) | None => Next::Over,
        },
        Want::Leave(node) => match now(view, node) {
            Some(1..) => capacity(node, 0),
            Some(0) if seated(view, node) => Next::Wait,
            Some(0) => Next::Sign(node, BeaconCommand::RemoveNode { node }),
            None => Next::Over,
        },
        Want::Register(node) => match now(view, node) {
            None => Next::Sign(node, BeaconCommand::RegisterNode(node_info(node.0))),
            Some(_) if !beacon::arrivals::arriving(view).contains(&node) && !seated(view, node) => {
                Next::Sign(node, BeaconCommand::JoinNode { node })
            }
            Some(_) => Next::Over,
        },
    }
}

impl World {
    /// Takes what is wanted of a node a step further, or chooses something.
    pub(crate) fn come_and_go(&mut self, place: Option<usize>) {
        if self.phase != Phase::Faults {
            return;
        }
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let Some(leader) = self.leader_of(GroupId::BEACON) else {
            return self.push(ASKED_MS, Event::ComeAndGo { place });
        };
        let (wish, bytes) = {
            let replica = self.nodes.get(&leader).and_then(|node| node.replicas.get(&GroupId::BEACON));
            let Some(replica) = replica else { return self.push(ASKED_MS, Event::ComeAndGo { place }) };
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            let mut view = View::new(&reader);
            let (moving, last) = (self.shape.movable(), self.shape.nodes + self.shape.newcomers - 1);
            let known = place.and_then(|place| self.wishes.get(place)).copied();
            let wish = known.or_else(|| {
                let want = choose(&mut view, &mut self.comings, moving, last)?;
                Some(Wish { want, tries: 0 })
            });
            let Some(wish) = wish else { return self.push(ASKED_MS, Event::ComeAndGo { place }) };
            let bytes = match next(&mut view, wish.want) {
                Next::Over => return,
                Next::Wait => None,
                Next::Sign(node, command) => {
                    let org = registry::node(&mut view, node).map_or(node_info(node.0).org, |info| info.org);
                    self.council.sign_for(&mut view, org, &command, now)
                }
            };
            (wish, bytes)
        };
        let wish = Wish { tries: wish.tries + 1, ..wish };
        let place = place.unwrap_or(self.wishes.len());
        match self.wishes.get_mut(place) {
            Some(known) => *known = wish,
            None => self.wishes.push(wish),
        }
        if let Some(bytes) = bytes {
            self.submit(leader, GroupId::BEACON, bytes);
        }
        if wish.tries < TRIES {
            self.push(ASKED_MS, Event::ComeAndGo { place: Some(place) });
        }
    }

    /// A job that only waits for nodes that have lost their seats in the children before they opened them: it ends by its
    /// time-out.
    pub(crate) fn waits_for_gone(&self, view: &mut View<'_>, job: &beacon::Job) -> bool {
        let mut waits = false;
        for child in &job.children {
            let current = registry::committee(view, child.group);
            for member in &child.committee.members {
                if job.open.contains(&(child.group, member.node)) {
                    continue;
                }
                waits = true;
                if current.as_ref().is_none_or(|current| current.index_of(member.node).is_some()) {
                    return false;
                }
            }
        }
        waits && self.shape.moving && job.phase == jobs::Phase::Committed
    }
}
