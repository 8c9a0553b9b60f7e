//! What a committee is left with while a seat of it moves: whether it has a quorum of members that are heard of, now and
//! after one more failure. A pure rule, for the beacon and for whoever asks before a command is given.

use std::fmt;

use ledger::committee::Committee;
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
