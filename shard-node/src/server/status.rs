//! What a node says about itself and its replicas.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use cross_shard::stream::{self, OutStream};
use ledger::ids::NodeId;
use ledger::view::View;
use proto::v1;

use crate::server::group::{GroupHandle, HostContext};
use crate::server::local::Hosted;
use crate::server::replica::DbReader;

/// Everything an operator sees of a node.
#[must_use]
pub fn of_node(hosted: &Hosted) -> v1::NodeStatusReply {
    let context = &hosted.context;
    let groups = hosted.groups.read().clone();
    let all: Vec<_> = context.genesis.nodes.iter().map(|node| node.id).collect();
    let log = hosted.log_stats();
    let mut alarms: Vec<String> = groups.values().flat_map(|handle| handle.alarms.current()).collect();
    alarms.extend(hosted.failed.read().iter().map(|(group, reason)| format!("{group} does not run here: {reason}")));
    alarms.extend(hosted.log_failure().map(|error| format!("{}: {error}", error.code())));
    let mut replicas: Vec<v1::ReplicaStatus> = groups.values().map(|handle| of_replica(handle)).collect();
    replicas.extend(hosted.failed.read().iter().map(|(group, reason)| v1::ReplicaStatus {
        group: group.0,
        stopped: reason.clone(),
        ..v1::ReplicaStatus::default()
    }));
    v1::NodeStatusReply {
        node: context.node.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: context.clock.tick().0,
        clock_offset_ms: clock_offset_ms(context, &all),
        replicas,
        log_fsyncs: log.fsyncs,
        log_appends: log.appends,
        log_bytes: log.bytes,
        bytes_sent: context.traffic.sent_bytes(),
        client_bytes_received: context.traffic.clients.received_bytes(),
        state_bytes_written: groups.values().map(|handle| handle.share.written_bytes.load(Ordering::Relaxed)).sum(),
        alarms,
    }
}

/// How far the median of all nodes' clocks is ahead of ours; zero while it is not known.
fn clock_offset_ms(context: &HostContext, all: &[NodeId]) -> i64 {
    let readings = context.readings.borrow();
    let guarded_ms = readings.as_ref().and_then(|readings| readings.guarded_ms(context.node, all));
    guarded_ms.map_or(0, |guarded_ms| guarded_ms - context.clock.wall_offset_ms())
}

fn of_replica(handle: &GroupHandle) -> v1::ReplicaStatus {
    let role = handle.role();
    let applied = handle.share.stand.lock().applied.clone();
    let certified = handle.certified.borrow().as_ref().map_or(0, |certificate| certificate.header.height.0);
    v1::ReplicaStatus {
        group: handle.group.0,
        leads: role.leads,
        leader_node: role.leader.map_or(0, |node| node.0),
        term: role.term,
        height: applied.height.0,
        state_root: Bytes::copy_from_slice(&applied.state_root.0),
        header_hash: Bytes::copy_from_slice(&applied.header_hash.0),
        certified_height: certified,
        log_last: role.last_log_index,
        log_applied: role.applied_index,
        transactions: handle.share.transactions.load(Ordering::Relaxed),
        mail_pending: mail_pending(handle),
        stopped: handle.stopped().unwrap_or_default(),
        voters: role.voters.iter().map(|node| node.0).collect(),
        learners: role.learners.iter().map(|node| node.0).collect(),
        attested_height: handle.attested.load(Ordering::Relaxed),
    }
}

fn mail_pending(handle: &GroupHandle) -> u64 {
    let Some(db) = handle.share.state.db() else { return 0 };
    let reader = DbReader(&*db);
    let mut view = View::new(&reader);
    let leaves = stream::outbox_leaves(&mut view);
    leaves
        .iter()
        .map(|leaf| {
            let head: OutStream = stream::out_stream(&mut view, leaf.peer);
            head.pending()
        })
        .sum()
}
