//! What a committee is left with while a seat of it moves: whether it has a quorum of members that are heard of, now and
//! after one more failure. And what a committee whose members are drawn by lot is left with at best: the probability that
//! it holds more bad nodes than it tolerates. Pure rules, for the beacon and for whoever asks before a command is given.

use std::fmt;

use ledger::committee::{Committee, Member};
use ledger::ids::NodeId;

/// Why a seat may not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// Fewer members would be heard of than decide.
    Now {
        /// Members that would be heard of.
        heard: usize,
        /// Members that decide.
        needed: usize,
    },
    /// As many as decide would be heard of, and one more failure would be one too many.
    NextFailure {
        /// Members that would be heard of.
        heard: usize,
        /// Members that decide.
        needed: usize,
    },
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now { heard, needed } => {
                write!(f, "{heard} members are heard of, and {needed} have to be, or nothing is decided")
            }
            Self::NextFailure { heard, needed } => {
                write!(f, "{heard} members would be heard of, and {needed} have to be, also after one more failure")
            }
        }
    }
}

/// What speaks against a member giving its seat to a node that is heard of. Until the hand-over the committee as it is has
/// to decide and to certify, the member that leaves included if it is heard of; behind it, the others and the one that
/// comes. A committee that bears no failure at all is held to the first half alone.
#[must_use]
pub fn of_leaving(current: &Committee, leaves: NodeId, heard: impl Fn(NodeId) -> bool) -> Option<Risk> {
    let (members, needed) = (current.members.len(), usize::from(current.threshold));
    let count = |node: &NodeId| heard(*node);
    let now = current.members.iter().map(|member| member.node).filter(count).count();
    if now < needed {
        return Some(Risk::Now { heard: now, needed });
    }
    let others = current.members.iter().map(|member| member.node).filter(|node| *node != leaves).filter(count).count();
    let then = others + 1;
    if then < needed {
        Some(Risk::Now { heard: then, needed })
    } else if current.engine.tolerated(members) > 0 && then == needed {
        Some(Risk::NextFailure { heard: then, needed })
    } else {
        None
    }
}

/// What speaks against a committee going over to these members: the first risk of one that leaves, by [`of_leaving`].
#[must_use]
pub fn of_change(current: &Committee, next: &[Member], heard: impl Fn(NodeId) -> bool) -> Option<Risk> {
    let leaves = |node: &NodeId| next.iter().all(|member| member.node != *node);
    let mut leaving = current.members.iter().map(|member| member.node).filter(leaves);
    leaving.find_map(|node| of_leaving(current, node, &heard))
}

/// One, in the fixed point of [`of_lot`]: 62 binary places, so that a sum of two and a product with a number of nodes fit.
const ONE: u128 = 1 << 62;
/// Parts of one that [`of_lot`] tells.
pub const PARTS: u64 = 1_000_000_000;

/// The probability that a committee of `seats` members, drawn by lot from `nodes` nodes of which `bad` are bad, has more
/// than `tolerated` bad ones: the tail of the hypergeometric distribution, in parts of a thousand million, rounded to the
/// nearest. Without floats, so that it is the same everywhere; a step of each draw is off by less than 2^-62.
///
/// Where seats are stratified this is what is left of the risk when the bad nodes are anywhere. An organisation that is
/// bad as a whole has no more seats than are tolerated, and so no such probability.
#[must_use]
pub fn of_lot(nodes: usize, bad: usize, seats: usize, tolerated: usize) -> u64 {
    let (bad, seats) = (bad.min(nodes), seats.min(nodes));
    // How probable so many bad ones are after each draw.
    let mut chances: Vec<u128> = vec![0; seats + 1];
    chances[0] = ONE;
    for drawn in 0..seats {
        let left = (nodes - drawn) as u128;
        for had in (0..=drawn).rev() {
            let chance = chances[had];
            let bad_left = bad.saturating_sub(had) as u128;
            let one_more = chance * bad_left / left;
            chances[had + 1] += one_more;
            chances[had] = chance - one_more;
        }
    }
    let tail: u128 = chances.iter().skip(tolerated + 1).sum();
    let parts = (tail * u128::from(PARTS) + ONE / 2) / ONE;
    u64::try_from(parts).unwrap_or(PARTS)
}
