//! Keeps the view of the cluster fresh by the `Follow` stream of whichever node answers.

use std::sync::Arc;
use std::time::Duration;

use client::net;
use ledger::{GroupId, NodeId};
use proto::v1;
use tokio::sync::watch;

use super::peers::Peers;
use super::view::ClusterView;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Follows the cluster until nobody holds the view any more. The view starts as the caller seeded
/// it, usually from the genesis; every newer state a node tells replaces it. When a node is lost
/// the next one is followed.
pub async fn follow(peers: Arc<Peers>, view: Arc<watch::Sender<Arc<ClusterView>>>) {
    let (mut backoff, mut after) = (BACKOFF_FIRST, None);
    loop {
        let Some(node) = next_node(&view.borrow(), after) else {
            return;
        };
        after = Some(node);
        let mut heard = false;
        let ended = follow_node(node, &peers, &view, &mut heard).await;
        tracing::debug!(%node, cause = %ended, "follow stream lost");
        if heard {
            backoff = BACKOFF_FIRST;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = view.closed() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// The next node to follow: members of the beacon know first, so they come in turn. Without a
/// beacon committee any node will do.
fn next_node(view: &ClusterView, after: Option<NodeId>) -> Option<NodeId> {
    let mut candidates: Vec<NodeId> = view
        .committees
        .get(&GroupId::BEACON)
        .map(|committee| committee.members.iter().map(|member| member.node).collect())
        .unwrap_or_default();
    if candidates.is_empty() {
        candidates = view.nodes.keys().copied().collect();
    }
    candidates.sort_unstable();
    let next = after.and_then(|node| candidates.iter().find(|candidate| **candidate > node));
    next.or(candidates.first()).copied()
}

async fn follow_node(
    node: NodeId,
    peers: &Peers,
    view: &watch::Sender<Arc<ClusterView>>,
    heard: &mut bool,
) -> tonic::Status {
    let channel = match peers.channel(node) {
        Ok(channel) => channel,
        Err(status) => return status,
    };
    let mut stream = match net::node_client(channel).follow(v1::FollowRequest {}).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = view.closed() => return tonic::Status::cancelled("nobody looks at the view"),
        };
        match message {
            Ok(Some(reply)) => {
                *heard = true;
                if let Err(status) = take(&reply, view) {
                    return status;
                }
            }
            Ok(None) => return tonic::Status::unavailable("the node closed the stream"),
            Err(status) => return status,
        }
    }
}

/// Takes a state that is not older than the one known.
fn take(reply: &v1::ClusterReply, view: &watch::Sender<Arc<ClusterView>>) -> Result<(), tonic::Status> {
    let cluster = view.borrow().cluster;
    let new = ClusterView::from_reply(cluster, reply)
        .map_err(|error| tonic::Status::internal(format!("the node's view of the cluster is unusable: {error}")))?;
    view.send_if_modified(|current| {
        // Strictly newer: nodes follow each other, and an equal view must not go round for ever.
        let newer = new.beacon_height > current.beacon_height && new.layout.version >= current.layout.version;
        if newer {
            *current = Arc::new(new);
        }
        newer
    });
    Ok(())
}
