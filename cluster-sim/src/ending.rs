//! The end of a run, in parts: everything drains; deadlines pass and nothing is left undecided; the
//! grace passes and no register is left; old transactions come once more and change nothing.
//!
//! Time between the parts is leapt over by all clocks at once. A node that is gone stays so until
//! the last part: the majority has to manage without it.

use std::collections::{BTreeMap, BTreeSet};

use beacon::{Phase as Stage, jobs, registry};
use cross_shard::commit::Prepared;
use ledger::committee::Committee;
use ledger::ids::{GroupId, NodeId, TxId};
use ledger::schema;
use ledger::view::View;
use sha2::Digest;
use storage::kv::Kv;

use crate::checkers::holds::undecided;
use crate::checkers::{Moment, RawReplica};
use crate::cluster::CREATED_MS;
use crate::config::LIVENESS_MS_MAX;
use crate::eventlog::LogLine;
use crate::replica::Replica;
use crate::report::SimReport;
use crate::state::{self, KvState};
use crate::world::{POLL_MS, World};

const VIOLATIONS_MAX: usize = 20;
/// How long after its deadline, and after a majority is up, a transaction may be undecided.
const UNDECIDED_MS_MAX: u64 = 5_000;
/// How long after the deadline a register is kept.
const GRACE_MS: u64 = 60_000;

/// More than two clocks differ at the end.
const CLOCKS_DIFFER_MS: u64 = 1_000;

/// What part a run is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Faults happen.
    Faults,
    /// Clients get their answers, mail is taken and acknowledged.
    Drain,
    /// All deadlines are past: nothing may be undecided.
    Deadlines,
    /// Registers go.
    Grace,
    /// Everybody is up, and old transactions are sent again.
    Late,
    /// All over.
    Done,
}

impl World {
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.note(|| format!("phase: {phase:?}"));
        self.phase = phase;
        self.phase_since_ms = self.now_ms;
        self.up_since_ms = self.clock_ms();
    }

    pub(crate) fn poll(&mut self) {
        let unfinished = self.unfinished();
        match (&unfinished, self.phase) {
            (Some(why), phase) if self.now_ms > self.phase_since_ms + LIVENESS_MS_MAX => {
                self.checkers.violations.push(format!("liveness: {phase:?}: {why}"));
            }
            (Some(_), _) => {
                if self.shape.reshaping {
                    self.call_off();
                }
                self.push(POLL_MS, crate::event::Event::Poll);
            }
            (None, phase) => {
                self.next_phase(phase);
                self.push(POLL_MS, crate::event::Event::Poll);
            }
        }
    }

    fn next_phase(&mut self, phase: Phase) {
        match phase {
            Phase::Faults | Phase::Done => {}
            Phase::Drain => {
                let open = self.open_until();
                self.leap_to(open);
                self.enter(Phase::Deadlines);
            }
            Phase::Deadlines => {
                let kept = self.registers_until();
                self.leap_to(kept.map(|until| until + GRACE_MS + 1_000));
                self.enter(Phase::Grace);
            }
            Phase::Grace => {
                // One of them may never have reached a group, and must not begin now.
                let old = self.operations.iter().filter(|operation| operation.late);
                let until = old.map(|operation| operation.valid_until.0).max();
                // Some group's clock may be behind by as much as clocks differ.
                self.leap_to(until.map(|until| until + CLOCKS_DIFFER_MS));
                self.enter(Phase::Late);
                if let Some(gone) = self.gone {
                    self.restart(gone);
                }
                self.close_channels();
                let mut acts = Vec::new();
                self.clients.start_late(self.now_ms, &mut acts);
                self.act(acts);
            }
            Phase::Late => {
                self.audit(Moment::End);
                self.enter(Phase::Done);
            }
        }
    }

    /// Leaps to just after a time of the cluster, unless it is past.
    fn leap_to(&mut self, time_ms: Option<u64>) {
        let now = CREATED_MS + self.clock_ms();
        if let Some(ahead) = time_ms.and_then(|time| (time + 1).checked_sub(now)).filter(|ahead| *ahead > 0) {
            self.leap(ahead);
        }
    }

    /// Whether a group has ended: what its replicas still have is of no use to anybody but those who are behind.
    fn ended(&self, group: GroupId) -> bool {
        self.checkers.facts().lines.retired(group)
    }

    /// The replica of each living group that is up and has applied most.
    pub(crate) fn newest(&self) -> Vec<RawReplica<'_>> {
        let mut newest: BTreeMap<GroupId, (NodeId, &Replica)> = BTreeMap::new();
        for node in self.nodes.values().filter(|node| node.up) {
            for (group, replica) in
                node.replicas.iter().filter(|(group, replica)| !replica.vacant() && !self.ended(**group))
            {
                let better = newest.get(group).is_none_or(|(_, known)| known.height() < replica.height());
                if better {
                    newest.insert(*group, (node.id, replica));
                }
            }
        }
        newest.into_iter().map(|(group, (node, replica))| replica.raw(node, group)).collect()
    }

    /// Nothing may stay undecided for long once its deadline is past and majorities are up.
    pub(crate) fn judge_ages(&mut self) {
        if self.phase == Phase::Faults {
            return;
        }
        let now = CREATED_MS + self.clock_ms();
        let mut found = Vec::new();
        for replica in self.newest() {
            for txid in undecided(&replica) {
                let until = self.checkers.facts().tx(&txid).map_or(0, |(_, operation)| operation.valid_until.0);
                let since = until.max(CREATED_MS + self.up_since_ms);
                if now > since + UNDECIDED_MS_MAX {
                    let group = replica.group;
                    found.push(format!("liveness: {group} holds {txid} {} ms after it could be decided", now - since));
                }
            }
        }
        self.checkers.violations.extend(found);
    }

    /// The last deadline of what is undecided or waits for its openings.
    fn open_until(&self) -> Option<u64> {
        let mut open: BTreeSet<TxId> = BTreeSet::new();
        for replica in self.newest() {
            open.extend(undecided(&replica));
            open.extend(waiting(&replica));
        }
        let until = |txid: &TxId| Some(self.checkers.facts().tx(txid)?.1.valid_until.0);
        let stuck = self.clients.stuck();
        let astray = stuck.iter().filter(|index| self.clients.astray(**index));
        let astray = astray.filter_map(|index| Some(self.operations.get(*index as usize)?.valid_until.0));
        open.iter().filter_map(until).chain(astray).max()
    }

    /// The last deadline of what still has a register.
    fn registers_until(&self) -> Option<u64> {
        let registers: Vec<TxId> = self.newest().iter().flat_map(registered).collect();
        let until = |txid: &TxId| Some(self.checkers.facts().tx(txid)?.1.valid_until.0);
        registers.iter().filter_map(until).max()
    }

    /// What is still to come to an end.
    fn unfinished(&self) -> Option<String> {
        if self.clients.open() > 0 && !(self.phase == Phase::Drain && self.clients_wait()) {
            return Some(format!("operations {:?} have no fate", self.clients.stuck()));
        }
        if self.is_news() {
            return Some("routers have not heard of the channel that was founded".to_owned());
        }
        let reshaping = if self.shape.reshaping { self.reshape_unfinished() } else { None };
        if reshaping.is_some() {
            return reshaping;
        }
        let first = self.genesis.committees.iter().map(|committee| committee.group);
        let moving = self.shape.movable();
        let reseats = |group: &GroupId| moving.covers(*group);
        let mut groups = first.chain(self.born.keys().copied()).filter(|group| !self.ended(*group) && !reseats(group));
        let behind = groups.find_map(|group| self.group_unfinished(group));
        let behind = behind.or_else(|| self.moved_unfinished());
        let behind = behind.or_else(|| self.founded_unfinished()).or_else(|| self.switch_unfinished());
        let behind = behind.or_else(|| self.keys_unfinished()).or_else(|| self.removals_unfinished());
        if behind.is_some() {
            return behind;
        }
        let newest = self.newest();
        match self.phase {
            Phase::Faults | Phase::Done => None,
            Phase::Drain => newest.iter().find_map(|replica| self.stuck(replica)),
            Phase::Deadlines => newest.iter().find_map(|replica| {
                let open: Vec<TxId> = undecided(replica).into_iter().chain(waiting(replica)).collect();
                (!open.is_empty()).then(|| format!("{} has {open:?} undecided", replica.group))
            }),
            Phase::Grace | Phase::Late => newest.iter().find_map(|replica| {
                let open = registered(replica);
                let deadlines = state::scan(replica.kv, &[schema::DEADLINE]).len();
                let any = !open.is_empty() || deadlines > 0;
                any.then(|| format!("{} keeps registers of {open:?} and {deadlines} deadlines", replica.group))
            }),
        }
    }

    /// Whether all clients that are left wait for a deadline: a group that has no opening votes then, and what nobody can
    /// vote on expires.
    fn clients_wait(&self) -> bool {
        let waiting: Vec<TxId> = self.newest().iter().flat_map(waiting).collect();
        let stuck = self.clients.stuck();
        let waits = |index: &u32| {
            let operation = self.operations.get(*index as usize);
            self.clients.astray(*index) || operation.is_some_and(|operation| waiting.contains(&operation.txid))
        };
        stuck.iter().all(waits)
    }

    /// What is undecided although nobody waits for openings.
    fn stuck(&self, replica: &RawReplica<'_>) -> Option<String> {
        let waits = |txid: &TxId| self.newest().iter().any(|other| waiting(other).contains(txid));
        let open: Vec<TxId> = undecided(replica).into_iter().filter(|txid| !waits(txid)).collect();
        (!open.is_empty()).then(|| format!("{} has {open:?} undecided, and nobody waits", replica.group))
    }

    fn group_unfinished(&self, group: GroupId) -> Option<String> {
        let replicas: Vec<_> = self
            .nodes
            .values()
            .filter(|node| node.up)
            .filter_map(|node| Some((node.id, node.replicas.get(&group)?)))
            .collect();
        let top = replicas.iter().filter_map(|(_, replica)| replica.height()).max()?;
        let roles = replicas.iter().filter_map(|(_, replica)| replica.role());
        let last_index = roles.map(|role| role.last_log_index).max()?;
        for (node, replica) in &replicas {
            let role = replica.role()?;
            if replica.height() != Some(top) || role.applied_index != last_index {
                return Some(format!("node {node} has not applied all of {group}"));
            }
            if replica.certified() != Some(top) {
                return Some(format!(
                    "node {node} has no certificate of the last block of {group}, height {top}; it has {:?}",
                    replica.certified()
                ));
            }
        }
        let (_, source) = replicas.first()?;
        self.mail_unfinished(group, source)
    }

    /// The replica of a group that is up and has applied most.
    pub(crate) fn newest_of(&self, group: GroupId) -> Option<&Replica> {
        let up = self.nodes.values().filter(|node| node.up);
        let running = up.filter_map(|node| node.replicas.get(&group)).filter(|replica| replica.height().is_some());
        running.max_by_key(|replica| replica.height())
    }

    /// What is still to come to an end in channels that were founded meanwhile.
    fn founded_unfinished(&self) -> Option<String> {
        let beacon = self.newest_of(GroupId::BEACON)?;
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        for foundation in registry::foundations(&mut view) {
            let Some(committee) = registry::committee(&mut view, foundation.group) else { continue };
            let changing = registry::coming_of(&mut view, foundation.group).is_some();
            if let Some(why) = self.seats_unfinished(&committee, changing) {
                return Some(why);
            }
        }
        None
    }

    /// What is still to come to an end in groups whose seats move.
    fn moved_unfinished(&self) -> Option<String> {
        if !self.shape.moving {
            return None;
        }
        let beacon = self.newest_of(GroupId::BEACON)?;
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        let committees = registry::committees(&mut view).into_iter();
        let moving = self.shape.movable();
        for committee in committees.filter(|committee| moving.covers(committee.group)) {
            let changing = registry::coming_of(&mut view, committee.group).is_some();
            if let Some(why) = self.seats_unfinished(&committee, changing) {
                return Some(why);
            }
        }
        None
    }

    /// A job that is under way, or a change of the layout that somebody has not carried out.
    fn reshape_unfinished(&self) -> Option<String> {
        let beacon = self.newest_of(GroupId::BEACON)?;
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        for job in jobs::under_way(&mut view) {
            if self.waits_for_gone(&mut view, &job) {
                continue;
            }
            // Whoever is gone cannot open its children; the others have to.
            if job.phase != Stage::Committed || self.gone.is_none() || self.phase == Phase::Late {
                return Some(format!("{} is under way, {}", job.id, job.phase.name()));
            }
        }
        let facts = self.checkers.facts();
        for group in facts.lines.living() {
            // Where seats move, who has one by now is judged with everything else of it.
            let first = facts.first_committee(group).filter(|_| !self.shape.moving);
            for member in first.map_or(&[][..], |committee| &committee.members[..]) {
                let node = self.nodes.get(&member.node).filter(|node| node.up);
                let runs = |node: &crate::node::Node| node.replicas.get(&group).and_then(Replica::height).is_some();
                if node.is_some_and(|node| !runs(node)) {
                    return Some(format!("node {} has not opened {group}", member.node));
                }
            }
        }
        let version = facts.lines.layouts().keys().next_back().copied()?;
        if version > self.clients.layout_version() {
            return Some(format!("routers have not heard of layout {version}"));
        }
        for node in self.nodes.values().filter(|_| self.phase == Phase::Late) {
            if let Some(group) = node.replicas.keys().find(|group| self.ended(**group)) {
                return Some(format!("node {} still has {group}, which has ended", node.id));
            }
        }
        None
    }

    /// A shard, or the beacon, that is on its way to another engine, or has been prepared for one.
    fn switch_unfinished(&self) -> Option<String> {
        let shard = self.shape.switching.map(GroupId::shard);
        let beacon = self.newest_of(GroupId::BEACON)?;
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        for group in shard.into_iter().chain(self.shape.beacon_goes_over.then_some(GroupId::BEACON)) {
            // Seats move first, and who is to have one may be gone.
            if self.shape.movable().covers(group) && self.phase != Phase::Late {
                continue;
            }
            let current = registry::committee(&mut view, group)?;
            let wanted = beacon::engine::wanted(&mut view, &current);
            if wanted != current.engine || registry::coming_of(&mut view, group).is_some() {
                return Some(format!("{group} is on its way from {} to {wanted}", current.engine));
            }
        }
        None
    }

    /// A committee that still names somebody by a key before. Where a node is gone, or a job waits for one that is, groups keep
    /// theirs until then.
    fn keys_unfinished(&self) -> Option<String> {
        if !self.shape.renewing || self.gone.is_some() && self.phase != Phase::Late {
            return None;
        }
        let beacon = self.newest_of(GroupId::BEACON)?;
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        let jobs = jobs::under_way(&mut view);
        if jobs.iter().any(|job| self.waits_for_gone(&mut view, job)) {
            return None;
        }
        for committee in registry::committees(&mut view) {
            for member in &committee.members {
                let known = registry::node(&mut view, member.node);
                if known.is_some_and(|info| info.key != member.key) {
                    return Some(format!("{} names node {} by a key before", committee.group, member.node));
                }
            }
        }
        None
    }

    fn seats_unfinished(&self, committee: &Committee, changing: bool) -> Option<String> {
        let group = committee.group;
        let Some(newest) = self.newest_of(group) else { return Some(format!("nobody has the state of {group}")) };
        let top = newest.height();
        let seats: Vec<NodeId> = committee.members.iter().map(|member| member.node).collect();
        let up = self.nodes.values().filter(|node| node.up);
        let hosts: Vec<(NodeId, &Replica)> =
            up.filter_map(|node| Some((node.id, node.replicas.get(&group)?))).collect();
        // Whoever is on its way out may have entries that never come to anything.
        let seated = hosts.iter().filter(|(node, _)| seats.contains(node));
        let last = seated.filter_map(|(_, replica)| Some(replica.role()?.last_log_index)).max();
        for node in seats.iter().filter(|seat| self.nodes.get(*seat).is_some_and(|node| node.up)) {
            let here = hosts.iter().find(|(host, _)| host == node).map(|(_, replica)| {
                let applied = replica.role().map(|role| role.applied_index);
                (replica.height(), replica.certified(), applied)
            });
            let whole = (top, top, last);
            if here != Some(whole) {
                return Some(format!(
                    "node {node} is behind in {group}: of height, certificate and log {whole:?} it has {here:?}"
                ));
            }
        }
        // With a node gone, a committee that it joins or leaves may have to wait for it.
        if self.phase == Phase::Late {
            let there: Vec<NodeId> = hosts.iter().map(|(node, _)| *node).collect();
            if changing || there != seats {
                return Some(format!("{there:?} have replicas of {group}, {seats:?} have seats, changing: {changing}"));
            }
        }
        self.mail_unfinished(group, newest)
    }

    fn mail_unfinished(&self, group: GroupId, source: &Replica) -> Option<String> {
        for (dest, head) in state::out_streams(&source.kv) {
            let Some(there) = self.newest_of(dest) else { return Some(format!("nobody has the state of {dest}")) };
            let cursor =
                state::in_cursors(&there.kv).iter().find(|(peer, _)| *peer == group).map_or(0, |(_, c)| c.next_seq);
            if cursor != head.next_seq || head.acked != head.next_seq {
                return Some(format!(
                    "of the mail from {group} to {dest} {cursor} of {} are taken and {} acknowledged",
                    head.next_seq, head.acked
                ));
            }
        }
        let waits = state::scan(&source.kv, &[schema::CLOSED_MAIL]).len();
        (waits > 0).then(|| format!("{group} has {waits} messages of streams that have ended"))
    }

    fn count(&mut self) {
        let struck_off = if self.shape.removals > 0 { self.struck_off() } else { 0 };
        let coverage = &mut self.coverage;
        // A shard that has begun out of others goes on with their heights.
        coverage.blocks = self.heights.values().sum::<u64>() - self.born.values().sum::<u64>();
        let groups: BTreeSet<GroupId> = self.terms.iter().map(|(group, _)| *group).collect();
        coverage.leader_changes = (self.terms.len() - groups.len()) as u64;
        coverage.struck_off = struck_off;
        coverage.lost_messages = self.network.counts.lost;
        coverage.duplicated_messages = self.network.counts.duplicated;
        coverage.reordered_messages = self.network.counts.reordered;
        coverage.retries = self.clients.retries;
        coverage.dead_routers = self.clients.deaths;
        coverage.handed_on = self.clients.handed_on;
        let beacon = self.nodes.values().find_map(|node| node.replicas.get(&GroupId::BEACON));
        if let Some(beacon) = beacon {
            let kept = |group| state::find::<beacon::Checkpoint>(&beacon.kv, &beacon::registry::checkpoint_key(group));
            let shards = self.genesis.layout.shards.iter();
            coverage.checkpoints = shards.filter(|shard| matches!(kept(shard.group), Ok(Some(_)))).count() as u64;
        }
        self.checkers.tally(&mut self.coverage);
    }

    pub(crate) fn report(mut self) -> (SimReport, Option<Vec<LogLine>>) {
        self.count();
        let committed = self.outcomes.values().filter(|committed| **committed).count() as u64;
        let mut violations = std::mem::take(&mut self.checkers.violations);
        if self.config.too_many {
            violations.sort();
            violations.dedup();
        } else {
            violations.truncate(VIOLATIONS_MAX);
        }
        let reproduce = (!violations.is_empty()).then(|| self.config.command(self.seed));
        let report = SimReport {
            seed: self.seed,
            scenario: self.shape.scenario.name().to_owned(),
            shards: self.shape.shard_replicas.len() as u64,
            nodes: u64::from(self.shape.nodes),
            transactions: self.checkers.facts().txs.len() as u64,
            committed,
            aborted: self.outcomes.len() as u64 - committed,
            faults: self.faults,
            violations,
            event_hash: self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            virtual_seconds: (self.now_ms + self.leapt_ms) as f64 / 1000.0,
            events: self.events,
            coverage: self.coverage,
            ruses: self.ruses.iter().map(|(ruse, count)| (ruse.name().to_owned(), *count)).collect(),
            overdrafts_refused: self.overdrafts_refused,
            proofs: self.proofs,
            tail: Vec::new(),
            reproduce,
        };
        (report, self.log)
    }
}

/// Transactions of a replica on which it has not voted for want of openings, or not for all of its accounts: of two shards
/// that were joined one may have voted.
fn waiting(replica: &RawReplica<'_>) -> Vec<TxId> {
    let records = state::scan(replica.kv, &[schema::PREPARED]);
    let records = records.iter().filter_map(|(_, value)| borsh::from_slice::<Prepared>(value).ok());
    let to_vote = |record: &Prepared| {
        let deadline = schema::deadline(record.valid_until_ms, &record.txid);
        record.decision().is_none() || replica.kv.get(&deadline).is_ok_and(|found| found.is_some())
    };
    // One whose accounts are all a sibling's is dropped without a vote.
    let waits = |record: &Prepared| record.dropped.is_none() && to_vote(record);
    records.filter(waits).map(|record| record.txid).collect()
}

/// Transactions of which a replica still has a register.
fn registered(replica: &RawReplica<'_>) -> Vec<TxId> {
    let mut all = Vec::new();
    for (key, _) in state::scan(replica.kv, &[schema::STATE]) {
        if key.get(33) == Some(&schema::KIND_REGISTER)
            && let Ok(txid) = key[34..].try_into()
        {
            all.push(TxId(ledger::hash::Hash32(txid)));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}
