//! What a node says about itself and its replicas, and to whom.
//!
//! A channel's height, roots and counts tell how busy its members are with each other, so they are shown to
//! those whom the channel itself admits. Everybody else sees that it is there, who leads it, and whether it is
//! well, and nothing that the node counts for all its groups together. Whoever runs the node may know that, and why something
//! of it does not run.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use beacon::audit::status as audit_status;
use bytes::Bytes;
use cross_shard::stream::{self, OutStream};
use ledger::ids::{GroupId, GroupKind, JobId, NodeId, OrgId};
use ledger::limits::{LAG_BLOCKS_MAX, MAIL_WAITS_MAX, UNCERTIFIED_BLOCKS_MAX};
use ledger::lineage::SealedBy;
use ledger::schema;
use ledger::view::View;
use proto::v1;
use storage::KeyRange;

use crate::server::admission::{self, Forwarder};
use crate::server::group::{GroupHandle, HostContext, with_reader};
use crate::server::local::Hosted;
use crate::server::membership;
use crate::server::replica::DbReader;

/// Days before the end of its certificate from which on a node raises an alarm.
const CERTIFICATE_ALARM_DAYS: i64 = 28;

/// In the place of a reason that has no code.
const NOT_SHOWN: &str = "why is not shown to you";

/// Who wants to know.
pub struct Asker {
    /// The node's own organisation.
    pub own: Option<OrgId>,
    /// The router that asks, if the registry knows its organisation.
    pub router: Option<Forwarder>,
    /// For whom it asks.
    pub caller: Option<v1::Caller>,
}

impl Asker {
    /// Whether it is the node's own organisation, by a router of its own.
    fn runs_the_node(&self) -> bool {
        let org = self.caller.as_ref().and_then(|caller| u16::try_from(caller.org).ok()).map(OrgId);
        org.is_some() && org == self.own && self.router.map(|router| router.org) == self.own
    }

    fn is_shown(&self, handle: &GroupHandle) -> bool {
        admission::shows(handle, self.router, self.caller.as_ref())
    }

    /// Why a group that has no state to judge by does not run here, as far as the asker may know.
    fn reason<'a>(&self, group: GroupId, reason: &'a str) -> &'a str {
        match group.kind() == Some(GroupKind::Channel) && !self.runs_the_node() {
            true => code_of(reason),
            false => reason,
        }
    }
}

/// The code at the beginning of a reason.
fn code_of(reason: &str) -> &str {
    let code = reason.split_once(':').map_or("", |(code, _)| code);
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_code { code } else { NOT_SHOWN }
}

/// Everything that an asker may see of a node.
#[must_use]
pub fn of_node(hosted: &Hosted, asker: &Asker) -> v1::NodeStatusReply {
    let context = &hosted.context;
    let groups = hosted.groups.read().clone();
    let all: Vec<_> = context.genesis.nodes.iter().map(|node| node.id).collect();
    let log = hosted.log_stats();
    let (mut alarms, mut replicas, mut state_bytes_written) = (Vec::new(), Vec::new(), 0u64);
    for handle in groups.values() {
        let warm = hosted.warm.read().get(&handle.group).copied();
        let transactions = handle.share.transactions.load(Ordering::Relaxed);
        let tps = hosted.rates.lock().look(handle.group, Instant::now(), transactions);
        let (copied_bytes, copying_bytes) = hosted.copied.read().get(&handle.group).copied().unwrap_or_default();
        let replica = v1::ReplicaStatus { tps, copied_bytes, copying_bytes, ..of_replica(handle, warm) };
        if asker.is_shown(handle) {
            alarms.extend(handle.alarms.current());
            state_bytes_written += handle.share.written_bytes.load(Ordering::Relaxed);
            replicas.push(replica);
            continue;
        }
        let raised = handle.alarms.current();
        replicas.push(hidden(replica, !raised.is_empty(), asker));
        if asker.runs_the_node() {
            alarms.extend(raised);
        }
    }
    for (group, reason) in hosted.failed.read().iter() {
        let reason = asker.reason(*group, reason);
        alarms.push(format!("{group} does not run here: {reason}"));
        // There is nothing here to judge by; the channel's other replicas may show it.
        let hidden = group.kind() == Some(GroupKind::Channel);
        let (group, stopped) = (group.0, reason.to_owned());
        replicas.push(v1::ReplicaStatus { group, stopped, hidden, unwell: hidden, ..v1::ReplicaStatus::default() });
    }
    if let Some(beacon) = groups.get(&GroupId::BEACON) {
        let found = with_reader(&beacon.share, |reader| audit_status::alarms(&mut View::new(reader)));
        alarms.extend(found.unwrap_or_default());
    }
    alarms.extend(certificate_alarm(hosted.certificate_until_ms, context.clock.wall_ms()));
    alarms.extend(hosted.log_failure().map(|error| format!("{}: {error}", error.code())));
    // What the node counts for all its groups together tells of those, too, that the asker is not shown.
    let told = asker.runs_the_node() || replicas.iter().all(|replica| !replica.hidden);
    let total = |count: u64| if told { count } else { 0 };
    let (free, disk_size_bytes) = disk(&hosted.data_dir);
    // So, too, does how fast the disk fills.
    let disk_free_bytes = if told { free } else { coarse(free, disk_size_bytes) };
    v1::NodeStatusReply {
        node: context.node.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: context.clock.tick().0,
        clock_offset_ms: clock_offset_ms(context, &all),
        replicas,
        log_fsyncs: total(log.fsyncs),
        log_appends: total(log.appends),
        log_bytes: total(log.bytes),
        bytes_sent: total(context.traffic.sent_bytes()),
        client_bytes_received: total(context.traffic.clients.received_bytes()),
        state_bytes_written,
        alarms,
        disk_free_bytes,
        disk_size_bytes,
    }
}

/// Of the file system that a folder is on: what this process may still write, and the size; nothing where it does not say.
fn disk(folder: &Path) -> (u64, u64) {
    let Ok(found) = rustix::fs::statvfs(folder) else { return (0, 0) };
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    (bytes(found.f_bavail), bytes(found.f_blocks))
}

/// Free bytes in steps of a 64th of the disk: enough to see whether there is room, and not who writes.
fn coarse(free: u64, size: u64) -> u64 {
    let step = (size / 64).max(1);
    free / step * step
}

/// What everybody may know of a channel's replica.
fn hidden(replica: v1::ReplicaStatus, has_alarm: bool, asker: &Asker) -> v1::ReplicaStatus {
    let unwell = has_alarm
        || !replica.stopped.is_empty()
        || replica.log_last.saturating_sub(replica.log_applied) > LAG_BLOCKS_MAX
        || replica.height.saturating_sub(replica.certified_height) > UNCERTIFIED_BLOCKS_MAX
        || replica.mail_pending > MAIL_WAITS_MAX;
    let stopped = asker.reason(GroupId(replica.group), &replica.stopped).to_owned();
    v1::ReplicaStatus {
        group: replica.group,
        leads: replica.leads,
        leader_node: replica.leader_node,
        stopped: if replica.stopped.is_empty() { String::new() } else { stopped },
        voters: replica.voters,
        learners: replica.learners,
        hidden: true,
        unwell,
        handovers_certified: replica.handovers_certified,
        ..v1::ReplicaStatus::default()
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

fn of_replica(handle: &GroupHandle, warm: Option<JobId>) -> v1::ReplicaStatus {
    let role = handle.role();
    let (applied, accounts) = {
        let stand = handle.share.stand.lock();
        (stand.applied.clone(), stand.accounts)
    };
    let sealed: Option<SealedBy> = handle.share.state.load(&schema::sealed()).ok().flatten();
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
        hidden: false,
        unwell: false,
        engine: handle.engine.engine().name().to_owned(),
        round: handle.engine.round(),
        handovers_certified: role.leads && matches!(membership::uncertified_handover(handle), Ok(None)),
        sealed_by_job: sealed.map_or(0, |sealed| sealed.seal.job.0),
        accounts,
        trimming_bytes: handle.share.trimming_bytes.load(Ordering::Relaxed),
        warm: warm.is_some(),
        state_bytes: handle.share.state.db().and_then(|db| db.disk_bytes(&KeyRange::all()).ok()).unwrap_or(0),
        // What the node knows beside.
        tps: 0,
        copied_bytes: 0,
        copying_bytes: 0,
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
    use super::*;

    #[test]
    fn how_fast_a_disk_fills_is_told_in_steps_alone() {
        let size = 64 << 30;
        assert_eq!(coarse((5 << 30) + 1, size), 5 << 30);
        assert_eq!(coarse((6 << 30) - 1, size), 5 << 30);
        // Where the file system says nothing there is nothing to tell.
        assert_eq!(coarse(0, 0), 0);
    }

    fn replica() -> v1::ReplicaStatus {
        v1::ReplicaStatus {
            group: GroupId::channel(0).0,
            leads: true,
            leader_node: 1,
            term: 3,
            height: 70,
            certified_height: 70,
            state_root: vec![1; 32].into(),
            header_hash: vec![2; 32].into(),
            log_last: 90,
            log_applied: 90,
            transactions: 5,
            mail_pending: 4,
            attested_height: 70,
            voters: vec![1, 2],
            engine: "bft".to_owned(),
            round: 2,
            handovers_certified: true,
            accounts: 9,
            state_bytes: 8,
            tps: 7,
            ..v1::ReplicaStatus::default()
        }
    }

    fn asker(own: u16, router: u16, caller: u16) -> Asker {
        let caller = v1::Caller { org: caller.into(), role: "client".to_owned(), credential: Bytes::new() };
        let router = Forwarder { org: OrgId(router), credential: ledger::Hash32::ZERO };
        Asker { own: Some(OrgId(own)), router: Some(router), caller: Some(caller) }
    }

    #[test]
    fn of_a_channel_others_see_leader_voters_and_health() {
        let outsider = asker(1, 2, 2);
        let expected = v1::ReplicaStatus {
            group: GroupId::channel(0).0,
            leads: true,
            leader_node: 1,
            voters: vec![1, 2],
            hidden: true,
            handovers_certified: true,
            ..v1::ReplicaStatus::default()
        };
        assert_eq!(hidden(replica(), false, &outsider), expected);
        let ill = v1::ReplicaStatus { unwell: true, ..expected.clone() };
        assert_eq!(hidden(replica(), true, &outsider), ill, "an alarm");
        let uncertified = v1::ReplicaStatus { certified_height: 5, ..replica() };
        let late = v1::ReplicaStatus { log_applied: 25, ..replica() };
        let full = v1::ReplicaStatus { mail_pending: MAIL_WAITS_MAX + 1, ..replica() };
        for bad in [uncertified, late, full] {
            assert_eq!(hidden(bad, false, &outsider), ill);
        }
        // Why it has stopped is for those who run the node, by a router of their own.
        let stopped = |text: &str| v1::ReplicaStatus { stopped: text.to_owned(), ..replica() };
        let why = |asker: &Asker, text: &str| hidden(stopped(text), false, asker).stopped;
        let text = "storage_io: block 71 cannot be written";
        assert_eq!(why(&asker(1, 1, 1), text), text);
        for asker in [outsider, asker(1, 2, 1), asker(1, 1, 2)] {
            assert_eq!(why(&asker, text), "storage_io");
            assert_eq!(why(&asker, "a majority certified another header at height 71: its state is wrong"), NOT_SHOWN);
            assert_eq!(why(&asker, "Height 71 is wrong"), NOT_SHOWN);
        }
    }

    #[test]
    fn a_disk_is_as_large_as_its_file_system() {
        let folder = tempfile::tempdir().expect("a folder");
        let (free, size) = disk(folder.path());
        assert!(size > 0 && free <= size, "{free} of {size}");
        assert_eq!(disk(&folder.path().join("nowhere")), (0, 0));
    }

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
