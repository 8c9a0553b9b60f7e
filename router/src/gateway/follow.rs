//! Keeps the view of the cluster fresh by the `Follow` stream of whichever node answers.
//!
//! What a node says is not believed but judged: a registry comes with a certified header of the
//! beacon and a path from its state, checked by a committee of the beacon that is known already or that
//! hand-overs lead to. A node of the beacon that lies is left for the next one; one that keeps silent is
//! left after a while. Where none of the members that are known answers, every node is asked in turn: the
//! beacon may have gone to others since.
//!
//! How a channel began is not in the registry, only its hash. A node that has a seat there asks for it with the next stream.

use std::sync::Arc;
use std::time::Duration;

use beacon::proof::Judged;
use beacon::{RegistryProof, RegistryProofError};
use client::net;
use ledger::{Foundation, GroupId, Handover, NodeId};
use proto::v1;
use tokio::sync::watch;

use super::peers::Peers;
use super::view::ClusterView;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// After this long another node is followed, so that none can hide what the others know.
const FOLLOW_FOR: Duration = Duration::from_secs(30);

/// Follows the cluster until nobody holds the view any more. The view starts as the caller seeded
/// it, usually from the genesis; every later registry that a node proves replaces it. `own` is the node that follows, if it
/// is one: it is given the foundations of the groups that it has a seat in.
pub async fn follow(peers: Arc<Peers>, view: Arc<watch::Sender<Arc<ClusterView>>>, own: Option<NodeId>) {
    let (mut backoff, mut after, mut missed) = (BACKOFF_FIRST, None, 0);
    loop {
        let Some(node) = next_node(&view.borrow(), own, after, missed) else {
            return;
        };
        after = Some(node);
        missed += 1;
        let mut heard = false;
        match tokio::time::timeout(FOLLOW_FOR, follow_node(node, own, &peers, &view, &mut heard)).await {
            Ok(ended) => tracing::debug!(%node, cause = %ended, "follow stream lost"),
            Err(_) => {
                if heard {
                    missed = 0;
                }
                continue;
            }
        }
        if heard {
            (backoff, missed) = (BACKOFF_FIRST, 0);
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = view.closed() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// The next node to follow: members of the beacon know first, so they come in turn. Without a
/// beacon committee any node will do, and where as many as there are members have been `missed`. A node follows itself
/// only where there is no other: once it has left the beacon it would hear of nothing.
fn next_node(view: &ClusterView, own: Option<NodeId>, after: Option<NodeId>, missed: usize) -> Option<NodeId> {
    let committee = view.committees.get(&GroupId::BEACON);
    let members = committee.map_or(0, |committee| committee.members.len());
    let seated = committee.into_iter().flat_map(|committee| committee.members.iter().map(|member| member.node));
    let mut candidates: Vec<NodeId> = seated.filter(|node| Some(*node) != own).collect();
    if candidates.is_empty() || missed >= members {
        candidates = view.nodes.keys().copied().filter(|node| Some(*node) != own).collect();
    }
    if candidates.is_empty() {
        candidates = view.nodes.keys().copied().collect();
    }
    candidates.sort_unstable();
    let next = after.and_then(|node| candidates.iter().find(|candidate| **candidate > node));
    next.or(candidates.first()).copied()
}

async fn follow_node(
    node: NodeId,
    own: Option<NodeId>,
    peers: &Peers,
    view: &watch::Sender<Arc<ClusterView>>,
    heard: &mut bool,
) -> tonic::Status {
    let channel = match peers.channel(node) {
        Ok(channel) => channel,
        Err(status) => return status,
    };
    let known = view.borrow().beacon.as_ref().map(|beacon| beacon.last().epoch);
    let lacking = || own.map(|own| view.borrow().lacking(own)).unwrap_or_default();
    let asked = lacking();
    let request = v1::FollowRequest {
        beacon_epoch: known.unwrap_or_default().0,
        lacking: asked.iter().map(|group| group.0).collect(),
    };
    let mut stream = match net::node_client(channel).follow(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = view.closed() => return tonic::Status::cancelled("nobody looks at the view"),
        };
        match message {
            Ok(Some(reply)) => match take(&reply, view) {
                // The registry comes behind these hand-overs, and foundations with it.
                Ok(()) if reply.registry.is_empty() && !reply.handovers.is_empty() => *heard = true,
                Ok(()) => {
                    let lacks = lacking();
                    // A node that does not have what it was asked for is left like one that is silent.
                    *heard = lacks.is_empty() || lacks != asked;
                    if !lacks.is_empty() {
                        return tonic::Status::aborted("foundations of groups are asked for");
                    }
                }
                Err(error) => {
                    tracing::warn!(%node, code = error.code(), %error, "a node showed a registry that is not proved");
                    return tonic::Status::invalid_argument(error.to_string());
                }
            },
            Ok(None) => return tonic::Status::unavailable("the node closed the stream"),
            Err(status) => return status,
        }
    }
}

/// Takes a registry that is proved and later than the one known, and foundations that it has the hashes of.
fn take(reply: &v1::FollowReply, view: &watch::Sender<Arc<ClusterView>>) -> Result<(), RegistryProofError> {
    take_registry(reply, view)?;
    for bytes in &reply.foundations {
        let foundation: Foundation =
            borsh::from_slice(bytes).map_err(|error| RegistryProofError::Malformed(error.to_string()))?;
        let foundation = Arc::new(foundation);
        view.send_if_modified(|current| {
            let mut next = (**current).clone();
            let news = next.adopt_foundation(foundation);
            if news {
                *current = Arc::new(next);
            }
            news
        });
    }
    Ok(())
}

/// Takes a registry that is proved and later than the one known.
fn take_registry(reply: &v1::FollowReply, view: &watch::Sender<Arc<ClusterView>>) -> Result<(), RegistryProofError> {
    let known = Arc::clone(&view.borrow());
    let steps: Result<Vec<Handover>, _> = reply.handovers.iter().map(|step| borsh::from_slice(step)).collect();
    let steps = steps.map_err(|error| RegistryProofError::Malformed(error.to_string()))?;
    let beacon = known.beacon.as_ref().ok_or(RegistryProofError::Form)?;
    if reply.registry.is_empty() {
        let succession = Arc::new(beacon.extended(&known.cluster, &steps, None)?);
        if succession.steps().len() > beacon.steps().len() {
            view.send_modify(|current| Arc::make_mut(current).adopt_beacon(succession));
        }
        return Ok(());
    }
    // That of the genesis needs no proof, and the one taken last has been judged.
    if reply.registry == known.proof {
        return Ok(());
    }
    let proof = RegistryProof::decode(&reply.registry)?;
    let Judged { registry, height, succession } = beacon.judge(&known.cluster, &proof, &steps)?;
    let succession = Arc::new(succession);
    view.send_if_modified(|current| {
        let mut next = (**current).clone();
        // A later registry stands at a later block. One that does not is of a committee that is no more.
        if height.0 <= next.beacon_height || !next.adopt(&registry, height) {
            return false;
        }
        next.proof = reply.registry.clone();
        next.adopt_beacon(Arc::clone(&succession));
        let hints = reply.leaders.iter().filter(|hint| hint.node != 0);
        next.leaders.extend(hints.map(|hint| (GroupId(hint.group), NodeId(hint.node))));
        *current = Arc::new(next);
        true
    });
    Ok(())
}
