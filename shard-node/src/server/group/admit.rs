//! Whom a replica asks before it takes part when its log is empty.
//!
//! Decides from the registry alone, and decides nothing about time: a registry that lags makes it wait,
//! and what a registry cannot know is asked of the other replicas (`consensus::raft`, ADR 17).

use consensus::raft::FoundError;
use ledger::ids::{Epoch, GroupId, NodeId};
use router::gateway::ClusterView;

use super::FIRST_JOIN;
use crate::server::seat::coming_join;

/// How a replica with an empty log may come to take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It begins: it has not lost what it wrote, and the others do not wait for it.
    Begin,
    /// It founds the group, together with all others that the group begins with.
    Found,
    /// It joins these voters.
    Join(Vec<NodeId>),
    /// Not at all: a committee of this epoch came into force, which takes the log that is gone.
    Lost(Epoch),
    /// It waits for another registry: this one does not name it as one that is about to join.
    Wait,
}

/// Why a replica does not take part yet, or never will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// What the others say.
    #[error(transparent)]
    Asked(#[from] FoundError),
    /// The registry shows that the log is lost.
    #[error(
        "this replica's log is empty, and the committee of epoch {0} that is in force did not come about without it: its log was lost, and it would vote against what it promised. Bring the node's data folder back as it was when it ran last, or drain the node, so that another one takes its seat"
    )]
    Lost(Epoch),
    /// Nobody asks for this replica.
    #[error(
        "no committee that is being prepared names this replica, whose log is empty; it waits until the registry does, or gives its seat to another one"
    )]
    Unplanned,
}

impl AdmitError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Asked(error) => error.code(),
            Self::Lost(_) => "replica_log_lost",
            Self::Unplanned => "group_joining",
        }
    }

    /// Whether asking again can help.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Asked(FoundError::Waiting(_) | FoundError::Joining { .. }) | Self::Unplanned)
    }
}

/// The way of the replica that `node` has of a group since this join, by a registry. `sure` is one that has
/// noted in its log that it has promised nothing.
#[must_use]
pub fn way(view: &ClusterView, group: GroupId, node: NodeId, join: u16, sure: bool) -> Way {
    let current = view.committees.get(&group);
    let begun = current.is_some_and(|current| current.epoch.0 > 0);
    if sure && (begun || join != FIRST_JOIN) {
        return Way::Begin;
    }
    if join == FIRST_JOIN {
        // The first committee has certified a header before another one comes into force.
        return match current {
            Some(current) if current.epoch.0 > 0 => Way::Lost(current.epoch),
            _ => Way::Found,
        };
    }
    match current {
        // It has signed a header before its committee came into force.
        Some(current) if current.index_of(node).is_some() => Way::Lost(current.epoch),
        Some(current) if coming_join(view, group, node) == Some(join) => {
            Way::Join(current.members.iter().map(|member| member.node).collect())
        }
        _ => Way::Wait,
    }
}

#[cfg(test)]
mod tests {
    use ledger::crypto::SecretKey;
    use ledger::ids::{Incarnation, OrgId};
    use ledger::{Committee, Member};

    use super::*;

    const GROUP: GroupId = GroupId::channel(2);

    fn committee(epoch: u64, nodes: &[u32]) -> Committee {
        let member = |node: &u32| Member {
            node: NodeId(*node),
            org: OrgId(1),
            key: SecretKey::derive(b"node", &node.to_be_bytes()).public(),
        };
        Committee::majority(GROUP, Incarnation(0), Epoch(epoch), nodes.iter().map(member).collect())
    }

    fn of(current: Option<Committee>, coming: Option<Committee>, node: u32, join: u16) -> Way {
        by(current, coming, node, join, false)
    }

    fn by(current: Option<Committee>, coming: Option<Committee>, node: u32, join: u16, sure: bool) -> Way {
        let genesis = crate::server::testing::lone_genesis(ledger::genesis::VerifyMode::Ingest);
        let mut view = ClusterView::of_genesis(&genesis);
        view.committees.extend(current.map(|committee| (GROUP, committee)));
        view.coming.extend(coming.map(|committee| (GROUP, committee)));
        way(&view, GROUP, NodeId(node), join, sure)
    }

    #[test]
    fn whoever_has_its_log_is_not_taken_for_one_that_lost_it() {
        let (first, second) = (committee(0, &[1, 2, 3]), committee(4, &[1, 2, 5]));
        assert_eq!(by(Some(first.clone()), None, 1, FIRST_JOIN, true), Way::Found, "the others may wait for it");
        assert_eq!(by(Some(second.clone()), None, 1, FIRST_JOIN, true), Way::Begin);
        assert_eq!(by(Some(first), Some(second.clone()), 5, 5, true), Way::Begin);
        assert_eq!(by(Some(second), None, 5, 5, true), Way::Begin);
        assert_eq!(by(None, None, 5, 5, true), Way::Begin);
    }

    #[test]
    fn a_group_is_founded_while_its_first_committee_is_in_force() {
        let (first, second) = (committee(0, &[1, 2, 3]), committee(4, &[1, 2, 5]));
        assert_eq!(of(None, None, 1, FIRST_JOIN), Way::Found);
        assert_eq!(of(Some(first.clone()), None, 1, FIRST_JOIN), Way::Found);
        assert_eq!(of(Some(first), Some(second.clone()), 1, FIRST_JOIN), Way::Found, "it may not have begun yet");
        assert_eq!(of(Some(second.clone()), None, 1, FIRST_JOIN), Way::Lost(Epoch(4)));
        assert_eq!(of(Some(second), None, 3, FIRST_JOIN), Way::Lost(Epoch(4)), "also when it has no seat any more");
    }

    #[test]
    fn whoever_joins_asks_those_before_it_while_its_committee_is_prepared() {
        let (first, second) = (committee(0, &[1, 2, 3]), committee(4, &[1, 2, 5]));
        let voters = Way::Join([1, 2, 3].map(NodeId).to_vec());
        assert_eq!(of(Some(first.clone()), Some(second.clone()), 5, 5), voters);
        assert_eq!(of(Some(first.clone()), Some(second.clone()), 5, 4), Way::Wait, "of a plan that was given up");
        assert_eq!(of(Some(first), None, 5, 5), Way::Wait);
        assert_eq!(of(Some(second.clone()), None, 5, 5), Way::Lost(Epoch(4)));
        assert_eq!(of(Some(second), Some(committee(6, &[1, 2, 6])), 5, 5), Way::Lost(Epoch(4)));
        assert_eq!(of(None, None, 5, 5), Way::Wait);
    }
}
