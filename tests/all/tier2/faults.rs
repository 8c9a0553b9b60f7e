//! What goes wrong in a run, and when: drawn from its seed before it starts.

use std::time::Duration;

use ledger::{GroupId, NodeId};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::network::host_of;

/// Latency of a message when nothing is wrong; the seed draws the most there may be.
pub const LATENCY_MIN: Duration = Duration::from_millis(1);
const SLOW: Duration = Duration::from_millis(250);

/// Something that goes wrong for a while.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing passes between a node and everybody else; what is under way is lost.
    Isolated(NodeId),
    /// Nothing passes between two nodes.
    Split(NodeId, NodeId),
    /// Nothing passes from one node to another.
    OneWay(NodeId, NodeId),
    /// Everything between two nodes is late, and then comes at once.
    Held(NodeId, NodeId),
    /// Messages of a node take long.
    Slow(NodeId),
    /// The process of a node is gone.
    Down(NodeId),
    /// The process that leads a group is gone.
    LeaderDown(GroupId),
}

/// A fault with its times, in milliseconds from the start of the load.
#[derive(Clone, Debug)]
pub struct Planned {
    pub fault: Fault,
    pub from_ms: u64,
    pub until_ms: u64,
}

/// Draws what happens within `safety_ms`: one fault of the network after the other, and beside them
/// processes that die and come back, now and then two at a time.
pub fn plan(rng: &mut ChaCha8Rng, nodes: &[NodeId], groups: &[GroupId], safety_ms: u64) -> Vec<Planned> {
    let mut all = Vec::new();
    let mut at = rng.random_range(0..800);
    while at < safety_ms {
        let from_ms = at;
        at += rng.random_range(200..2_500);
        let pair: Vec<NodeId> = nodes.choose_multiple(rng, 2).copied().collect();
        let fault = match rng.random_range(0..5) {
            0 => Fault::Isolated(pair[0]),
            1 => Fault::Split(pair[0], pair[1]),
            2 => Fault::OneWay(pair[0], pair[1]),
            3 => Fault::Held(pair[0], pair[1]),
            _ => Fault::Slow(pair[0]),
        };
        all.push(Planned { fault, from_ms, until_ms: at.min(safety_ms) });
        at += rng.random_range(0..400);
    }
    let mut at = rng.random_range(0..1_500);
    while at < safety_ms {
        let until_ms = at + rng.random_range(50..2_000);
        let fault = if rng.random() {
            Fault::LeaderDown(*groups.choose(rng).expect("there are groups"))
        } else {
            Fault::Down(*nodes.choose(rng).expect("there are nodes"))
        };
        all.push(Planned { fault, from_ms: at, until_ms: until_ms.min(safety_ms) });
        // Less than nothing: the next one dies while this one is still gone.
        at = until_ms.saturating_sub(300) + rng.random_range(0..1_200);
    }
    all.sort_by_key(|planned| planned.from_ms);
    all
}

/// Lets a fault of the network begin, or end. `others` are all hosts, the clients among them.
pub fn set(sim: &turmoil::Sim<'_>, fault: &Fault, others: &[String], usual: Duration, begins: bool) {
    let between = |one: &NodeId, other: &NodeId| (host_of(*one), host_of(*other));
    let rest = |node: NodeId| {
        let own = host_of(node);
        others.iter().filter(move |other| **other != own).cloned()
    };
    match (fault, begins) {
        (Fault::Isolated(node), true) => rest(*node).for_each(|other| sim.partition(host_of(*node), other)),
        (Fault::Isolated(node), false) => rest(*node).for_each(|other| sim.repair(host_of(*node), other)),
        (Fault::Slow(node), slow) => {
            let most = if slow { SLOW } else { usual };
            rest(*node).for_each(|other| sim.set_link_max_message_latency(host_of(*node), other, most));
        }
        (Fault::Split(one, other), begins) => {
            let (one, other) = between(one, other);
            if begins { sim.partition(one, other) } else { sim.repair(one, other) }
        }
        (Fault::OneWay(from, to), begins) => {
            let (from, to) = between(from, to);
            if begins { sim.partition_oneway(from, to) } else { sim.repair_oneway(from, to) }
        }
        (Fault::Held(one, other), begins) => {
            let (one, other) = between(one, other);
            if begins { sim.hold(one, other) } else { sim.release(one, other) }
        }
        (Fault::Down(_) | Fault::LeaderDown(_), _) => {}
    }
}
