//! What organisations decide together: a policy of the cluster is in force only with the approvals of the policy of policies
//! before it; a job that cuts, joins or moves begins only with those of the policy of jobs that is in force at the last one; and
//! as much is needed for another engine of a shard or of the beacon, for what the cluster does by itself (epochs, nodes that
//! vanish, scaling), and for an organisation that comes or goes.
//!
//! Approvals are the commands that the registry has taken, each once, in the order of the log, until the deadline of the first
//! one of the same; who counts, and whether that is enough, is worked out by `electors`. A seat that moves between two nodes of
//! one organisation is its own affair. An engine that was decided and taken back may still come: the group may have gone over
//! before it heard; and what was approved of one under another committee of the group may be counted. Who is let out of
//! quarantine is not judged, nor when the deal of an epoch evens seats out; what a channel decides, its engine among that,
//! `policies` judges.

mod jobs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use beacon::policies::policy_key;
use beacon::{BeaconCommand, EpochPolicy, Job, JobKind, Matter, PolicyChange, Ruled, ScalePolicy, Watch};
use channel::{Policy, Quorum, Role};
use cross_shard::Message;
use ledger::committee::{Committee, Engine};
use ledger::genesis::OrgInfo;
use ledger::ids::{Epoch, GroupId, GroupKind, JobId, NodeId, OrgId, TimeMs};
use ledger::schema;
use shard_node::core::applied::AppliedRecord;
use storage::kv::Kv;

use self::jobs::Jobs;
use super::{BlockSeen, Checker, Facts, Governed, Moment, RawReplica, Seen, electors};
use crate::cluster::node_info;
use crate::state;

/// Key prefixes in the beacon's state: of jobs, and of organisations.
const JOBS: &[u8] = b"Gjob/";
const ORGS: &[u8] = b"Gorg/";

/// What commands ask for that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Policies,
    Admissions,
    Removals,
    Engines,
    Epochs,
    Watch,
    Scale,
}

impl Family {
    /// What the cluster does by itself, and where the policy of that stands.
    fn settings() -> [(Self, Vec<u8>); 3] {
        [
            (Self::Epochs, beacon::epochs::policy_key()),
            (Self::Watch, beacon::watch::policy_key()),
            (Self::Scale, beacon::jobs::scale::policy_key()),
        ]
    }
}

/// Approvals of one thing, and until when they count.
struct Asked {
    until_ms: TimeMs,
    by: BTreeSet<OrgId>,
}

/// Approvals of what waits, by what asks for it.
#[derive(Default)]
struct Ballots(BTreeMap<(Family, Vec<u8>), Asked>);

impl Ballots {
    /// Notes an approval. Returns all that count by then.
    fn approve(
        &mut self,
        (family, name): (Family, Vec<u8>),
        (org, until_ms): (OrgId, TimeMs),
        at: TimeMs,
    ) -> BTreeSet<OrgId> {
        let fresh = || Asked { until_ms, by: BTreeSet::new() };
        let asked = self.0.entry((family, name)).or_insert_with(fresh);
        if asked.until_ms < at {
            *asked = fresh();
        }
        asked.by.insert(org);
        asked.by.clone()
    }

    /// Drops what is settled by a decision.
    fn settle(&mut self, settled: impl Fn(Family, &[u8]) -> bool) {
        self.0.retain(|(family, name), _| !settled(*family, name));
    }
}

/// What was decided.
#[derive(Default)]
pub struct Rules {
    /// The last block of the beacon.
    height: u64,
    /// The organisations of the cluster.
    orgs: BTreeSet<OrgId>,
    /// Commands that the registry has taken: sent again they do nothing.
    commands: BTreeSet<Vec<u8>>,
    /// The policies in force that were changed, and how often.
    policies: BTreeMap<Matter, (u64, Policy)>,
    ballots: Ballots,
    jobs: Jobs,
    /// What the cluster does by itself, as far as anything was decided.
    settings: BTreeMap<Family, Vec<u8>>,
    /// The engine of each group, by the committee in force.
    engines: BTreeMap<GroupId, (Epoch, Engine)>,
    /// Engines that were decided and are not in force.
    switches: Vec<(GroupId, Engine)>,
}

fn bytes<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).unwrap_or_default()
}

impl Rules {
    fn begin(&mut self, facts: &Facts) {
        self.orgs = facts.genesis.orgs.iter().map(|org| org.id).collect();
        let first = facts.genesis.committees.iter();
        self.engines = first.map(|committee| (committee.group, (committee.epoch, committee.engine))).collect();
    }

    fn of(&self, matter: Matter) -> (u64, Policy) {
        let first = || (0, Policy::members(Quorum::Majority, Role::Admin));
        self.policies.get(&matter).cloned().unwrap_or_else(first)
    }

    /// Whether these organisations decide a matter by now.
    fn holds(&self, matter: Matter, approvals: &BTreeSet<OrgId>) -> bool {
        electors::holds(&self.of(matter).1, &self.orgs, approvals)
    }

    fn policy(&mut self, change: PolicyChange, by: (OrgId, TimeMs), at: TimeMs, found: &mut Vec<String>) {
        let matter = change.matter;
        let (revision, policy) = self.of(matter);
        if change.policy == policy {
            return;
        }
        if change.base != revision {
            found.push(format!("another policy of {} is taken, made on one that is not in force", matter.word()));
        }
        let approvals = self.ballots.approve((Family::Policies, bytes(&change)), by, at);
        if self.holds(Matter::Policy, &approvals) {
            let same = |name: &[u8]| borsh::from_slice(name).is_ok_and(|other: PolicyChange| other.matter == matter);
            self.ballots.settle(|family, name| family == Family::Policies && same(name));
            self.policies.insert(matter, (revision + 1, change.policy));
        }
    }

    /// What the cluster is to do by itself; `first` is what it does before anything is decided.
    fn setting(&mut self, (family, value): (Family, Vec<u8>), first: &[u8], by: (OrgId, TimeMs), at: TimeMs) {
        if self.settings.get(&family).map_or(first, Vec::as_slice) == value {
            return;
        }
        let approvals = self.ballots.approve((family, value.clone()), by, at);
        if self.holds(Matter::Operation, &approvals) {
            self.ballots.settle(|other, _| other == family);
            self.settings.insert(family, value);
        }
    }

    /// An organisation that is to come, or to go. Returns whether that is decided.
    fn membership(&mut self, asked: (Family, Vec<u8>), by: (OrgId, TimeMs), at: TimeMs) -> bool {
        let approvals = self.ballots.approve(asked.clone(), by, at);
        let decided = self.holds(Matter::Orgs, &approvals);
        if decided {
            self.ballots.settle(|family, name| (family, name) == (asked.0, &asked.1[..]));
        }
        decided
    }

    fn switch(&mut self, group: GroupId, engine: Engine, by: (OrgId, TimeMs), at: TimeMs) {
        let asked = (group, engine);
        if self.switches.contains(&asked) {
            return;
        }
        let approvals = self.ballots.approve((Family::Engines, bytes(&asked)), by, at);
        if self.holds(Matter::Engines, &approvals) {
            let same = |name: &[u8]| borsh::from_slice(name).is_ok_and(|(other, _): (GroupId, Engine)| other == group);
            self.ballots.settle(|family, name| family == Family::Engines && same(name));
            // The engine in force takes back what was decided before, and brings nothing.
            if self.engines.get(&group).is_none_or(|(_, in_force)| *in_force != engine) {
                self.switches.push(asked);
            }
        }
    }

    fn job(&mut self, (kind, layout, manual): jobs::Asked, by: (OrgId, TimeMs), at: TimeMs) {
        let own = |node: NodeId| node_info(node.0).org == by.0;
        let alone = matches!(kind, JobKind::Move { from, to, .. } if own(from) && own(to));
        let (policy, orgs) = (self.of(Matter::Jobs).1, &self.orgs);
        let decides = |approvals: &BTreeSet<OrgId>| alone || electors::holds(&policy, orgs, approvals);
        self.jobs.ask((kind, layout, manual), by, at, decides);
    }

    fn command(&mut self, command: BeaconCommand, by: (OrgId, TimeMs), at: TimeMs, found: &mut Vec<String>) {
        match command {
            BeaconCommand::SetPolicy(change) => self.policy(change, by, at, found),
            BeaconCommand::SplitShard { group, layout, manual } => {
                self.job((JobKind::Split { group }, layout, manual), by, at);
            }
            BeaconCommand::MergeShards { left, right, layout, manual } => {
                self.job((JobKind::Merge { left, right }, layout, manual), by, at);
            }
            BeaconCommand::MoveShard { group, from, to, layout } => {
                self.job((JobKind::Move { group, from, to }, layout, false), by, at);
            }
            BeaconCommand::CancelJob { job } => self.jobs.cancel(job),
            BeaconCommand::SwitchEngine { group, engine } => self.switch(group, engine, by, at),
            BeaconCommand::SetEpochs(policy) => {
                self.setting((Family::Epochs, bytes(&policy)), &bytes(&EpochPolicy::DEFAULT), by, at);
            }
            BeaconCommand::SetWatch(policy) => {
                self.setting((Family::Watch, bytes(&policy)), &bytes(&Watch::DEFAULT), by, at);
            }
            BeaconCommand::SetScale(policy) => {
                self.setting((Family::Scale, bytes(&policy)), &bytes(&ScalePolicy::DEFAULT), by, at);
            }
            BeaconCommand::RegisterOrg(org) => {
                let comes = self.membership((Family::Admissions, bytes(&org)), by, at);
                if comes {
                    self.orgs.insert(org.id);
                }
            }
            BeaconCommand::RemoveOrg { org } => {
                let goes = self.membership((Family::Removals, bytes(&org)), by, at);
                if goes {
                    self.orgs.remove(&org);
                }
            }
            _ => {}
        }
    }

    /// A committee that is prepared, or in force: whether the group may be ordered by its engine.
    fn goes_by(&mut self, committee: &Committee, in_force: bool, found: &mut Vec<String>) {
        let (group, epoch, engine) = (committee.group, committee.epoch, committee.engine);
        if group.kind() == Some(GroupKind::Channel) {
            return;
        }
        let (known, before) = *self.engines.entry(group).or_insert((epoch, engine));
        if epoch < known {
            return;
        }
        if engine != before && !self.switches.contains(&(group, engine)) {
            let why = "without the approvals of the policy of engines in force";
            found.push(format!("{group} is to go over to {engine} {why}"));
        }
        if in_force {
            self.engines.insert(group, (epoch, engine));
            self.switches.retain(|decided| *decided != (group, engine));
        }
    }

    fn block(&mut self, block: &BlockSeen, found: &mut Vec<String>) {
        self.height = block.header.height.0;
        let mut commands = Vec::new();
        for governed in &block.governed {
            let Governed::Registered(signed) = governed else { continue };
            if self.commands.insert(signed.encode())
                && let Ok(command) = signed.parse()
            {
                commands.push((command, (signed.org, signed.valid_until_ms)));
            }
        }
        // What has lasted too long ends before the commands.
        let by_command =
            |id: JobId| commands.iter().any(|(command, _)| *command == BeaconCommand::CancelJob { job: id });
        for (_, _, message) in &block.mail {
            if let Message::Unseal(id) = message
                && !by_command(*id)
            {
                self.jobs.end(*id);
            }
        }
        for (command, by) in commands {
            self.command(command, by, block.header.time_ms, found);
        }
        // Each group is told of it.
        let mut told: Vec<&Committee> = Vec::new();
        for (_, _, message) in &block.mail {
            let (committee, in_force) = match message {
                Message::CommitteePlan(plan) => (plan, false),
                Message::CommitteeUpdate(seated) => (seated, true),
                _ => continue,
            };
            if in_force && told.contains(&committee) {
                continue;
            }
            self.goes_by(committee, in_force, found);
            if in_force {
                told.push(committee);
                self.jobs.seated(committee);
            }
        }
        for committee in &block.committees {
            self.engines.entry(committee.group).or_insert((committee.epoch, committee.engine));
        }
    }

    /// What a replica of the beacon has in force, and has begun.
    fn stands(&mut self, moment: Moment, beacon: &RawReplica<'_>, found: &mut Vec<String>) -> Result<(), String> {
        let node = beacon.node;
        for matter in Matter::ALL {
            let record: Option<Ruled> = state::find(beacon.kv, &policy_key(matter))?;
            let there = record.map_or((0, None), |record| (record.revision, Some(record.policy)));
            let (revision, policy) = self.of(matter);
            let same = there.0 == revision && there.1.is_none_or(|there| there == policy);
            // One that is behind has an earlier one.
            if !same && (there.0 >= revision || moment == Moment::End) {
                found.push(format!(
                    "on node {node} {} is decided by policy {}, and {revision} is the last that was approved",
                    matter.word(),
                    there.0
                ));
            }
        }
        let applied: Option<AppliedRecord> = state::find(beacon.kv, &schema::applied())?;
        let newest = applied.is_some_and(|applied| applied.height.0 == self.height);
        let jobs = state::scan(beacon.kv, JOBS).into_iter().map(|(_, value)| borsh::from_slice::<Job>(&value));
        let jobs = jobs.collect::<Result<Vec<Job>, _>>().map_err(|error| error.to_string())?;
        self.jobs.audit(&jobs, newest, found);
        if newest {
            self.settled(beacon, found)?;
        }
        Ok(())
    }

    /// What a replica of the beacon that has all blocks has of organisations, and of what the cluster does by itself.
    fn settled(&self, beacon: &RawReplica<'_>, found: &mut Vec<String>) -> Result<(), String> {
        let node = beacon.node;
        for (family, key) in Family::settings() {
            let there = beacon.kv.get(&key).map_err(|error| error.to_string())?;
            if there.as_deref() != self.settings.get(&family).map(Vec::as_slice) {
                found.push(format!("on node {node} the policy of {family:?} is not the one that was approved"));
            }
        }
        let orgs = state::scan(beacon.kv, ORGS).into_iter().map(|(_, value)| borsh::from_slice::<OrgInfo>(&value));
        let orgs = orgs.collect::<Result<Vec<OrgInfo>, _>>().map_err(|error| error.to_string())?;
        let there: BTreeSet<OrgId> = orgs.iter().map(|org| org.id).collect();
        if there != self.orgs {
            let approved = &self.orgs;
            found.push(format!("on node {node} the organisations are {there:?}, and {approved:?} were approved"));
        }
        Ok(())
    }
}

impl Checker for Rules {
    fn name(&self) -> &'static str {
        "rules"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if !facts.policies_change {
            return;
        }
        if self.orgs.is_empty() {
            self.begin(facts);
        }
        match seen {
            Seen::Block(block) if first && block.group == GroupId::BEACON => self.block(block, found),
            _ => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if !facts.policies_change {
            return;
        }
        if self.orgs.is_empty() {
            self.begin(facts);
        }
        for beacon in replicas.iter().filter(|replica| replica.group == GroupId::BEACON) {
            if let Err(why) = self.stands(moment, beacon, found) {
                found.push(why);
            }
        }
    }
}
