//! The end of a run: whether everything has come to one, and what is reported.

use std::collections::BTreeSet;

use ledger::ids::GroupId;
use ledger::receipt::Outcome;
use ledger::reject::Reject;
use sha2::Digest;

use crate::checkers::Moment;
use crate::client::Fate;
use crate::event::Event;
use crate::report::SimReport;
use crate::state;
use crate::world::{POLL_MS, World};

const VIOLATIONS_MAX: usize = 20;

impl World {
    pub(crate) fn poll(&mut self) {
        match self.unfinished() {
            None => {
                self.audit(Moment::End);
                self.finished = true;
            }
            Some(why) if self.now_ms > self.config.safety_ms + self.config.liveness_ms_max => {
                self.checkers.violations.push(format!("liveness: {why}"));
            }
            Some(_) => self.push(POLL_MS, Event::Poll),
        }
    }

    /// What is still to come to an end.
    pub(crate) fn unfinished(&self) -> Option<String> {
        if self.clients.open() > 0 {
            return Some(format!("operations {:?} have no fate", self.clients.stuck()));
        }
        self.genesis.committees.iter().find_map(|committee| self.group_unfinished(committee.group))
    }

    pub(crate) fn group_unfinished(&self, group: GroupId) -> Option<String> {
        let replicas: Vec<_> =
            self.nodes.values().filter_map(|node| Some((node.id, node.replicas.get(&group)?))).collect();
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
        for (dest, head) in state::out_streams(&source.kv) {
            let there = self.nodes.values().find_map(|node| node.replicas.get(&dest))?;
            let cursor =
                state::in_cursors(&there.kv).iter().find(|(peer, _)| *peer == group).map_or(0, |(_, c)| c.next_seq);
            if cursor != head.next_seq || head.acked != head.next_seq {
                return Some(format!(
                    "of the mail from {group} to {dest} {cursor} of {} are taken and {} acknowledged",
                    head.next_seq, head.acked
                ));
            }
        }
        None
    }

    pub(crate) fn count(&mut self) {
        let coverage = &mut self.coverage;
        coverage.blocks = self.heights.values().sum();
        let groups: BTreeSet<GroupId> = self.terms.iter().map(|(group, _)| *group).collect();
        coverage.leader_changes = (self.terms.len() - groups.len()) as u64;
        coverage.lost_messages = self.network.counts.lost;
        coverage.duplicated_messages = self.network.counts.duplicated;
        coverage.reordered_messages = self.network.counts.reordered;
        coverage.retries = self.clients.retries;
        for operation in self.operations.iter() {
            match self.clients.fate(operation.index) {
                Some(Fate::Acknowledged(receipt)) => match &receipt.outcome {
                    Outcome::Committed { mail } => {
                        coverage.cross_shard += u64::from(!mail.is_empty() && receipt.group != GroupId::BEACON);
                    }
                    Outcome::Rejected(reject) | Outcome::Aborted { reason: reject, .. } => {
                        coverage.overdrafts += u64::from(*reject == Reject::InsufficientFunds);
                    }
                },
                Some(Fate::Refused(Reject::Expired)) => coverage.expired += 1,
                Some(Fate::Refused(_)) | None => {}
            }
        }
        let beacon = self.nodes.values().find_map(|node| node.replicas.get(&GroupId::BEACON));
        if let Some(beacon) = beacon {
            let kept = |group| state::find::<beacon::Checkpoint>(&beacon.kv, &beacon::registry::checkpoint_key(group));
            let shards = self.genesis.layout.shards.iter();
            coverage.checkpoints = shards.filter(|shard| matches!(kept(shard.group), Ok(Some(_)))).count() as u64;
        }
    }

    pub(crate) fn report(mut self) -> SimReport {
        self.count();
        let (transactions, committed, rejected) = self.clients.totals();
        let mut violations = std::mem::take(&mut self.checkers.violations);
        violations.truncate(VIOLATIONS_MAX);
        let reproduce = (!violations.is_empty()).then(|| self.config.command(self.seed));
        SimReport {
            seed: self.seed,
            scenario: self.schedule.scenario.name().to_owned(),
            transactions,
            committed,
            rejected,
            faults: self.faults,
            violations,
            event_hash: self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            seconds: self.now_ms as f64 / 1000.0,
            events: self.events,
            coverage: self.coverage,
            tail: self.log.map(|log| log.lines.into()).unwrap_or_default(),
            reproduce,
        }
    }
}
