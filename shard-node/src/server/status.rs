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

/// Days before the end of its certificate from which on a node raises an alarm.
const CERTIFICATE_ALARM_DAYS: i64 = 28;

/// Everything an operator sees of a node.
#[must_use]
pub fn of_node(hosted: &Hosted) -> v1::NodeStatusReply {
    let context = &hosted.context;
    let groups = hosted.groups.read().clone();
    let all: Vec<_> = context.genesis.nodes.iter().map(|node| node.id).collect();
    let log = hosted.log_stats();
    let mut alarms: Vec<String> = groups.values().flat_map(|handle| handle.alarms.current()).collect();
    alarms.extend(hosted.failed.read().iter().map(|(group, reason)| format!("{group} does not run here: {reason}")));
    alarms.extend(certificate_alarm(hosted.certificate_until_ms, context.clock.wall_ms()));
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

/// A certificate that runs out is told of while there is time to renew it. Consensus goes on without: the
/// registry's key vouches for the node. Clients do not let themselves be served by it.
fn certificate_alarm(until_ms: i64, now_ms: i64) -> Option<String> {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let left = until_ms - now_ms;
    let renew =
        "issue another one with 'seamark ca issue node', announce it with 'seamark node tls', and restart the node";
    match left {
        _ if left > CERTIFICATE_ALARM_DAYS * DAY_MS => None,
        _ if left < 0 => Some(format!("certificate_expired: this node's certificate has run out; {renew}")),
        _ => Some(format!("certificate_expires: this node's certificate runs out in {} days; {renew}", left / DAY_MS)),
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

#[cfg(test)]
mod tests {
    use super::certificate_alarm;

    #[test]
    fn a_certificate_is_told_of_weeks_before_it_runs_out() {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        let now = 1_800_000_000_000;
        assert_eq!(certificate_alarm(now + 29 * DAY, now), None);
        let soon = certificate_alarm(now + 27 * DAY + 1, now).expect("an alarm");
        assert!(soon.starts_with("certificate_expires") && soon.contains("in 27 days"), "{soon}");
        assert!(certificate_alarm(now - 1, now).is_some_and(|text| text.starts_with("certificate_expired")));
    }
}
