//! When a node may stop a replica that the registry gives no seat any more.
//!
//! The registry says that it has to go; the group's engine may still count on it. So it goes once a
//! member that leads the group says that its voters are others, and that it has the certificates of all
//! blocks that hand over: the signatures of those who left go with them. That word costs, at worst, one
//! replica that the group has given up anyway.
//!
//! A node that is to join a group again gives up its former replica in the same way, and no sooner: until the
//! voters are others that one votes and signs, and the group bears fewer failures without it. What the leader
//! makes a learner meanwhile is the replica that is to come, or one of a plan that was given up. Nobody counts
//! on either.

use std::time::Duration;

use client::net;
use ledger::ids::{GroupId, NodeId};
use proto::v1;
use router::gateway::{ClusterView, Peers};

/// How long a member may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a leader may still have of a node whose replica goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing: the node has no seat any more, and gets none.
    Nothing,
    /// A learner: the node has another seat before it.
    Learner,
}

/// Whether the group goes on without this node.
pub async fn may_leave(peers: &Peers, view: &ClusterView, group: GroupId, node: NodeId) -> bool {
    asked(peers, view, group, node, Left::Nothing).await
}

/// Whether the group goes on without the replica that this node has of it, so that the one which a plan asks for may take
/// its place.
pub async fn may_begin_anew(peers: &Peers, view: &ClusterView, group: GroupId, node: NodeId) -> bool {
    asked(peers, view, group, node, Left::Learner).await
}

async fn asked(peers: &Peers, view: &ClusterView, group: GroupId, node: NodeId, left: Left) -> bool {
    let members = view.members(group).into_iter().filter(|member| *member != node);
    let asked = members.map(|member| goes_on_without(peers, member, group, node, left));
    futures::future::join_all(asked).await.contains(&true)
}

/// Whether a member says so.
async fn goes_on_without(peers: &Peers, member: NodeId, group: GroupId, node: NodeId, left: Left) -> bool {
    let Ok(channel) = peers.channel(member) else { return false };
    let mut client = net::node_client(channel);
    let asked = client.node_status(v1::StatusRequest::default());
    let Ok(Ok(reply)) = tokio::time::timeout(ANSWER_WITHIN, asked).await else { return false };
    reply.into_inner().replicas.iter().any(|replica| replica.group == group.0 && is_without(replica, node, left))
}

/// Whether a replica leads its group, the node is no voter there, and learner at most if it may be one, and no certificate is
/// missing that may need it.
fn is_without(replica: &v1::ReplicaStatus, node: NodeId, left: Left) -> bool {
    replica.leads
        && replica.stopped.is_empty()
        && replica.handovers_certified
        && !replica.voters.is_empty()
        && !replica.voters.contains(&node.0)
        && (left == Left::Learner || !replica.learners.contains(&node.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_leaves_when_a_leader_counts_on_it_for_nothing() {
        for left in [Left::Nothing, Left::Learner] {
            let replica = |change: fn(&mut v1::ReplicaStatus)| {
                let mut changed = v1::ReplicaStatus {
                    leads: true,
                    voters: vec![1, 2],
                    handovers_certified: true,
                    ..v1::ReplicaStatus::default()
                };
                change(&mut changed);
                is_without(&changed, NodeId(3), left)
            };
            assert!(replica(|_| {}));
            assert!(!replica(|replica| replica.leads = false));
            assert!(!replica(|replica| replica.stopped = "storage_io".to_owned()));
            assert!(!replica(|replica| replica.voters.push(3)), "also one that is to begin anew");
            let learner = replica(|replica| replica.learners.push(3));
            assert_eq!(learner, left == Left::Learner, "nobody counts on it");
            assert!(!replica(|replica| replica.voters.clear()), "it does not know who votes");
            assert!(!replica(|replica| replica.handovers_certified = false), "its signature may be needed");
        }
    }
}
