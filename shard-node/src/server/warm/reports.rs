//! What this node tells the beacon of jobs and of its load, under its signature, until the view shows its effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use beacon::{Job, JobReport, Phase, Said};
use bytes::Bytes;
use ledger::Committee;
use ledger::ids::{GroupId, GroupKind, NodeId, TimeMs};
use router::gateway::ClusterView;
use storage::KeyRange;
use tokio::time::Instant;

use crate::core::peer::PeerMessage;
use crate::server::group::{GroupHandle, HostContext, guarded_now};
use crate::server::rotation::voice;

/// Between two times that the same is told.
const AGAIN: Duration = Duration::from_secs(1);
/// A shard runs here for so long before it is told to be open. Payers wait until it is led and has made its first blocks, and
/// each report is a block of the beacon and a view that every node judges, keeps and goes by. For the end of a job nobody waits.
const OPEN_AFTER: Duration = Duration::from_secs(1);

/// What was told, and when.
#[derive(Default)]
pub struct Reports {
    told: BTreeMap<GroupId, (Instant, Said)>,
    /// Of the last report on each shard, which the next one has to be later than.
    last: BTreeMap<GroupId, TimeMs>,
    /// Since when groups are seen to run here.
    running: BTreeMap<GroupId, Instant>,
    /// When a shard's load was looked at last, and how many transactions it had had by then.
    loads: BTreeMap<GroupId, (Instant, u64)>,
}

/// What a node has to say of one job, by the view and by what is here: of its copies, whether they are ready, and of which
/// children it has run for a while.
#[must_use]
pub fn due(job: &Job, node: NodeId, ready: bool, runs: impl Fn(GroupId) -> bool) -> Vec<(GroupId, Said)> {
    let warm = |group: &GroupId| job.warm.contains(&(*group, node));
    let parents = job.kind.parents();
    match job.phase {
        Phase::Preparing | Phase::Sealing if ready => {
            parents.into_iter().filter(|group| !warm(group)).map(|group| (group, Said::Warm(job.id))).collect()
        }
        Phase::Preparing => parents.into_iter().filter(warm).map(|group| (group, Said::Cold(job.id))).collect(),
        Phase::Committed => {
            let children = job.children.iter().map(|child| child.group);
            let untold = children.filter(|child| runs(*child) && !job.open.contains(&(*child, node)));
            untold.map(|child| (child, Said::Open(job.id))).collect()
        }
        Phase::Proposed | Phase::Aligning | Phase::Sealing | Phase::Done | Phase::Cancelled => Vec::new(),
    }
}

impl Reports {
    /// Of the groups that run here by now, those that have done so for a while.
    pub fn settled(&mut self, running: impl Iterator<Item = GroupId>, now: Instant) -> BTreeSet<GroupId> {
        let running: BTreeSet<GroupId> = running.collect();
        self.running.retain(|group, _| running.contains(group));
        for group in running {
            self.running.entry(group).or_insert(now);
        }
        let settled = self.running.iter().filter(|(_, since)| now >= **since + OPEN_AFTER);
        settled.map(|(group, _)| *group).collect()
    }

    /// Tells the beacon something about a shard, unless it was told just now.
    pub fn say(&mut self, context: &HostContext, view: &ClusterView, group: GroupId, said: Said) {
        let now = Instant::now();
        if self.told.get(&group).is_some_and(|(at, before)| *before == said && now < *at + AGAIN) {
            return;
        }
        // Without a time that most nodes agree on nothing is believed.
        let all: Vec<NodeId> = view.nodes.keys().copied().collect();
        let Some(clock_ms) = guarded_now(context, &all) else { return };
        let Some(key) = voice(context, view) else { return };
        let last = self.last.get(&group).map_or(TimeMs(0), |last| TimeMs(last.0 + 1));
        let at_ms = clock_ms.max(last);
        self.last.insert(group, at_ms);
        self.told.insert(group, (now, said));
        let report = JobReport::sign(context.genesis.cluster_id(), context.node, group, at_ms, said, &key);
        let payload = Bytes::from(PeerMessage::Report(report).encode());
        for node in context.links.members(GroupId::BEACON) {
            context.links.send(node, GroupId::BEACON, payload.clone());
        }
    }

    /// Tells the load of a shard, as this node's replica of it has it, when it is time to: as often as the registry asks for
    /// it, each time over the time since the one before. Only of a replica that runs, of a member.
    pub fn load(&mut self, context: &HostContext, view: &ClusterView, handle: &GroupHandle) {
        let group = handle.group;
        if group.kind() != Some(GroupKind::Shard) || view.layout.retired(group) {
            return;
        }
        let Some(every_ms) = view.load_every_ms else {
            self.loads.clear();
            return;
        };
        let transactions = handle.share.transactions.load(Ordering::Relaxed);
        let now = Instant::now();
        let (since, before) = *self.loads.entry(group).or_insert((now, transactions));
        if now < since + Duration::from_millis(every_ms) {
            return;
        }
        self.loads.insert(group, (now, transactions));
        let seated = |committee: &Committee| committee.index_of(context.node).is_some();
        if handle.stopped().is_some() || !view.committees.get(&group).is_some_and(seated) {
            return;
        }
        let Some(bytes) = handle.share.state.db().and_then(|db| db.disk_bytes(&KeyRange::all()).ok()) else { return };
        let tps = transactions.saturating_sub(before) / now.duration_since(since).as_secs().max(1);
        let accounts = handle.share.stand.lock().accounts;
        let said = own_load(handle.role().leads, accounts, bytes, u32::try_from(tps).unwrap_or(u32::MAX));
        self.say(context, view, group, said);
    }
}

/// What a member says that its replica has and does.
fn own_load(leads: bool, accounts: u64, bytes: u64, tps: u32) -> Said {
    match leads {
        true => Said::Load { accounts, bytes, tps },
        false => Said::Follows { accounts, bytes, tps },
    }
}

#[cfg(test)]
mod tests {
    use beacon::JobKind;
    use ledger::ids::{Epoch, Incarnation, JobId, LayoutVersion, OrgId};
    use ledger::lineage::ChildShard;
    use ledger::{Layout, Member, SecretKey};

    use super::*;

    const NODE: NodeId = NodeId(3);

    fn job(phase: Phase) -> Job {
        let [parent, left, right] = [0, 1, 2].map(GroupId::shard);
        let layout = Layout::even(1).split(parent, [left, right]).expect("it can be cut");
        let child = |group: GroupId| {
            let key = SecretKey::derive(b"node", &NODE.0.to_be_bytes()).public();
            let member = Member { node: NODE, org: OrgId(1), key };
            let prefix = layout.prefix_of(group).expect("it is in the layout");
            ChildShard { group, prefix, committee: Committee::majority(group, Incarnation(0), Epoch(0), vec![member]) }
        };
        Job {
            version: 1,
            id: JobId(5),
            kind: JobKind::Split { group: parent },
            phase,
            manual: false,
            on: LayoutVersion(1),
            approvals: Vec::new(),
            by_scale: false,
            children: vec![child(left), child(right)],
            since_ms: TimeMs(1),
            until_ms: None,
            warm: Vec::new(),
            open: Vec::new(),
            ends: Vec::new(),
            reason: None,
            seals: Vec::new(),
        }
    }

    #[test]
    fn a_node_says_what_the_view_does_not_show_yet() {
        let [parent, left, right] = [0, 1, 2].map(GroupId::shard);
        let preparing = job(Phase::Preparing);
        let (warm, cold) = (Said::Warm(JobId(5)), Said::Cold(JobId(5)));
        assert_eq!(due(&preparing, NODE, false, |_| false), []);
        assert_eq!(due(&preparing, NODE, true, |_| false), [(parent, warm)]);
        let known = Job { warm: vec![(parent, NodeId(2)), (parent, NODE)], ..preparing };
        assert_eq!(due(&known, NODE, true, |_| false), []);
        assert_eq!(due(&known, NODE, false, |_| false), [(parent, cold)], "it was lost");
        let sealing = Job { phase: Phase::Sealing, ..known };
        assert_eq!(due(&sealing, NODE, false, |_| false), [], "it is too late to take it back");
        let committed = job(Phase::Committed);
        assert_eq!(due(&committed, NODE, true, |_| false), []);
        let open = Said::Open(JobId(5));
        assert_eq!(due(&committed, NODE, true, |_| true), [(left, open), (right, open)]);
        let half = Job { open: vec![(left, NODE)], ..committed };
        assert_eq!(due(&half, NODE, true, |_| true), [(right, open)]);
        assert_eq!(due(&half, NODE, true, |child| child == left), []);
        assert_eq!(due(&job(Phase::Aligning), NODE, true, |_| true), []);
    }

    #[test]
    fn a_shard_is_told_to_be_open_when_payers_wait_for_it_no_more() {
        let (mut reports, start) = (Reports::default(), Instant::now());
        let (one, other) = (GroupId::shard(1), GroupId::shard(2));
        let mut settled = |ms: u64, running: &[GroupId]| -> Vec<GroupId> {
            reports.settled(running.iter().copied(), start + Duration::from_millis(ms)).into_iter().collect()
        };
        assert_eq!(settled(0, &[one]), []);
        assert_eq!(settled(999, &[one, other]), []);
        assert_eq!(settled(1_000, &[one, other]), [one]);
        assert_eq!(settled(1_999, &[one, other]), [one, other]);
        // One that has stopped begins anew.
        assert_eq!(settled(2_000, &[other]), [other]);
        assert_eq!(settled(2_001, &[one, other]), [other]);
        assert_eq!(settled(3_001, &[one, other]), [one, other]);
    }

    #[test]
    fn each_member_says_what_its_replica_has_and_whether_it_leads() {
        assert_eq!(own_load(true, 1, 2, 3), Said::Load { accounts: 1, bytes: 2, tps: 3 });
        assert_eq!(own_load(false, 1, 2, 3), Said::Follows { accounts: 1, bytes: 2, tps: 3 });
    }
}
