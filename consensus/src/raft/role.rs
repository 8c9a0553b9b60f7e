//! What a replica is at the moment, out of openraft's metrics.

use std::time::Duration;

use ledger::ids::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant, RaftMetrics, ServerState};
use tokio::sync::watch;

use super::failure::Failure;
use super::types::{Raft, TypeConfig};
use crate::port::{RoleView, Timing};

/// A replica leads when its own first entry is applied: then everything that earlier leaders
/// committed is in its state, and a batch built on that state is not built on an old one. A leader
/// that no quorum has answered for long is one in name only: others have elected another by then.
fn view(metrics: &RaftMetrics<TypeConfig>, failure: &Failure, quorum_patience: Duration, stint: u64) -> RoleView {
    let membership = metrics.membership_config.membership();
    let node = |id: u64| membership.get_node(&id).copied();
    let vote = &metrics.vote;
    let elected = metrics.state == ServerState::Leader && vote.committed && vote.leader_id.node_id == metrics.id;
    let current = metrics.last_applied.is_some_and(|applied| applied.leader_id == vote.leader_id);
    let stopped = metrics.running_state.as_ref().err().and_then(|fatal| match fatal {
        openraft::errors::Fatal::Stopped => failure.get(),
        fatal => Some(failure.get().unwrap_or_else(|| fatal.to_string())),
    });
    let replicated = metrics.replication.iter().flatten();
    let alone = membership.voter_ids().nth(1).is_none();
    let heard = metrics.last_quorum_acked.as_ref().is_none_or(|at| at.elapsed() < quorum_patience);
    let cut_off = metrics.state == ServerState::Leader && !alone && !heard;
    let trusted = metrics.running_state.is_ok() && !cut_off;
    // Whoever has given the group its first members passes for the leader of term 0, in which nobody leads. Others would
    // send to it before it is elected.
    let named = trusted && metrics.current_term > 0;
    RoleView {
        leads: elected && current && trusted,
        leader: metrics.current_leader.and_then(node).filter(|_| named),
        term: metrics.current_term,
        stint,
        last_log_index: metrics.last_log_index.unwrap_or(0),
        applied_index: metrics.last_applied.map_or(0, |applied| applied.index),
        voters: nodes(membership.voter_ids().filter_map(node)),
        learners: nodes(membership.learner_ids().filter_map(node)),
        replicated: replicated
            .filter(|(id, _)| **id != metrics.id)
            .filter_map(|(id, upto)| Some((node(*id)?, upto.map_or(0, |upto| upto.index))))
            .collect(),
        stopped,
    }
}

pub(super) fn nodes(found: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut nodes: Vec<_> = found.collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Follows the metrics until openraft is gone. The channel closes then.
pub(crate) fn follow(raft: &Raft, failure: Failure, timing: Timing, stint: u64) -> watch::Receiver<RoleView> {
    let patience = Duration::from_millis(2 * timing.election_max_ms);
    // Without news nothing tells a leader that it is cut off but the time.
    let look_again = Duration::from_millis(timing.election_max_ms);
    let mut metrics = raft.metrics();
    let first = view(&metrics.borrow_and_update(), &failure, patience, stint);
    let (publish, role) = watch::channel(first);
    tokio::spawn(async move {
        loop {
            let over = matches!(tokio::time::timeout(look_again, metrics.changed()).await, Ok(Err(_)));
            let mut next = view(&metrics.borrow_and_update(), &failure, patience, stint);
            if over {
                next.leads = false;
                next.leader = None;
            }
            publish.send_if_modified(|last| {
                let changed = *last != next;
                *last = next;
                changed
            });
            if over {
                return;
            }
        }
    });
    role
}
