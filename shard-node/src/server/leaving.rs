//! When a node may stop a replica that the registry gives no seat any more.
//!
//! The registry says that it has to go; the group's engine may still count on it. So it goes once a
//! member that leads the group says that its voters are others. That word costs, at worst, one replica
//! that the group has given up anyway.

use std::time::Duration;

use client::net;
use ledger::ids::{GroupId, NodeId};
use proto::v1;
use router::gateway::{ClusterView, Peers};

/// How long a member may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Whether the group goes on without this node.
pub async fn may_leave(peers: &Peers, view: &ClusterView, group: GroupId, node: NodeId) -> bool {
    let members = view.members(group).into_iter().filter(|member| *member != node);
    let asked = members.map(|member| goes_on_without(peers, member, group, node));
    futures::future::join_all(asked).await.contains(&true)
}

/// Whether a member leads the group, and this node is neither voter nor learner there.
async fn goes_on_without(peers: &Peers, member: NodeId, group: GroupId, node: NodeId) -> bool {
    let Ok(channel) = peers.channel(member) else { return false };
    let mut client = net::node_client(channel);
    let asked = client.node_status(v1::StatusRequest::default());
    let Ok(Ok(reply)) = tokio::time::timeout(ANSWER_WITHIN, asked).await else { return false };
    let replicas = reply.into_inner().replicas;
    replicas.iter().any(|replica| {
        replica.group == group.0
            && replica.leads
            && replica.stopped.is_empty()
            && !replica.voters.is_empty()
            && !replica.voters.contains(&node.0)
            && !replica.learners.contains(&node.0)
    })
}
