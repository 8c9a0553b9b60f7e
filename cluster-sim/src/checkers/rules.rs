//! What organisations decide together: a policy of the cluster is in force only with the approvals of the policy of policies
//! before it, and a job that cuts, joins or moves begins only with those of the policy of jobs that is in force at the last one.
//!
//! Approvals are the commands that the registry has taken, each once, in the order of the log; who counts, and how many it
//! takes, is worked out here. What has lapsed may be counted for a job, never for a policy. A seat that moves between two nodes
//! of one organisation is its own affair.

use std::collections::{BTreeMap, BTreeSet};

use beacon::policies::policy_key;
use beacon::{BeaconCommand, Job, JobKind, Matter, Phase, PolicyChange, Ruled};
use channel::{Policy, Quorum, Role};
use ledger::ids::{GroupId, JobId, NodeId, OrgId, TimeMs};

use super::{BlockSeen, Checker, Facts, Governed, Moment, RawReplica, Seen};
use crate::cluster::node_info;
use crate::state;

/// Key prefix of jobs in the beacon's state.
const JOBS: &[u8] = b"Gjob/";

/// Approvals of one thing, and until when they count.
struct Asked {
    until_ms: TimeMs,
    by: BTreeSet<OrgId>,
}

/// What was decided.
#[derive(Default)]
pub struct Rules {
    /// Commands that the registry has taken: sent again they do nothing.
    commands: BTreeSet<Vec<u8>>,
    /// The policies in force that were changed, and how often.
    policies: BTreeMap<Matter, (u64, Policy)>,
    /// Policies that wait, by the bytes that ask for them.
    waiting: BTreeMap<Vec<u8>, (Matter, Asked)>,
    /// Jobs that wait: what they are to do, on which layout, and whether by command.
    proposed: BTreeMap<Vec<u8>, BTreeSet<OrgId>>,
    /// How often a job of a kind was decided.
    decided: BTreeMap<Vec<u8>, usize>,
    /// The jobs of a kind that have begun.
    begun: BTreeMap<Vec<u8>, BTreeSet<JobId>>,
}

fn bytes<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).unwrap_or_default()
}

/// How many of so many organisations a policy needs; those that are asked for in a run are all of this form.
fn needed(policy: &Policy, all: usize) -> Option<usize> {
    let known = [(Quorum::Any, 1), (Quorum::Majority, all / 2 + 1), (Quorum::All, all)];
    known.into_iter().find(|(quorum, _)| *policy == Policy::members(*quorum, Role::Admin)).map(|(_, count)| count)
}

impl Rules {
    fn of(&self, matter: Matter) -> (u64, Policy) {
        let first = || (0, Policy::members(Quorum::Majority, Role::Admin));
        self.policies.get(&matter).cloned().unwrap_or_else(first)
    }

    /// Whether so many organisations decide a matter by now. Nobody joins the cluster in a run, or leaves it.
    fn holds(&self, facts: &Facts, matter: Matter, approvals: usize) -> bool {
        needed(&self.of(matter).1, facts.genesis.orgs.len()).is_some_and(|needed| approvals >= needed)
    }

    fn policy(
        &mut self,
        facts: &Facts,
        change: PolicyChange,
        by: (OrgId, TimeMs),
        at: TimeMs,
        found: &mut Vec<String>,
    ) {
        let matter = change.matter;
        let (revision, policy) = self.of(matter);
        if change.policy == policy {
            return;
        }
        if change.base != revision {
            found.push(format!("another policy of {} is taken, made on one that is not in force", matter.word()));
        }
        let name = bytes(&change);
        let fresh = || (matter, Asked { until_ms: by.1, by: BTreeSet::new() });
        let (_, asked) = self.waiting.entry(name).or_insert_with(fresh);
        if asked.until_ms < at {
            *asked = fresh().1;
        }
        asked.by.insert(by.0);
        let approvals = asked.by.len();
        if self.holds(facts, Matter::Policy, approvals) {
            self.waiting.retain(|_, (of, _)| *of != matter);
            self.policies.insert(matter, (revision + 1, change.policy));
        }
    }

    fn job(&mut self, facts: &Facts, kind: JobKind, asked: Vec<u8>, by: OrgId) {
        let own = |node: NodeId| node_info(node.0).org == by;
        let alone = matches!(kind, JobKind::Move { from, to, .. } if own(from) && own(to));
        let approvals = self.proposed.entry(asked.clone()).or_default();
        approvals.insert(by);
        let approvals = approvals.len();
        if alone || self.holds(facts, Matter::Jobs, approvals) {
            self.proposed.remove(&asked);
            *self.decided.entry(bytes(&kind)).or_insert(0) += 1;
        }
    }

    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        for governed in &block.governed {
            let Governed::Registered(signed) = governed else { continue };
            if !self.commands.insert(signed.encode()) {
                continue;
            }
            let Ok(command) = signed.parse() else { continue };
            match command {
                BeaconCommand::SetPolicy(change) => {
                    self.policy(facts, change, (signed.org, signed.valid_until_ms), block.header.time_ms, found);
                }
                BeaconCommand::SplitShard { group, layout, manual } => {
                    let kind = JobKind::Split { group };
                    self.job(facts, kind, bytes(&(kind, layout, manual)), signed.org);
                }
                BeaconCommand::MergeShards { left, right, layout, manual } => {
                    let kind = JobKind::Merge { left, right };
                    self.job(facts, kind, bytes(&(kind, layout, manual)), signed.org);
                }
                BeaconCommand::MoveShard { group, from, to, layout } => {
                    let kind = JobKind::Move { group, from, to };
                    self.job(facts, kind, bytes(&(kind, layout, false)), signed.org);
                }
                _ => {}
            }
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
        for (_, value) in state::scan(beacon.kv, JOBS) {
            let job: Job = borsh::from_slice(&value).map_err(|error| error.to_string())?;
            if job.by_scale || matches!(job.phase, Phase::Proposed | Phase::Cancelled) {
                continue;
            }
            let kind = bytes(&job.kind);
            let begun = self.begun.entry(kind.clone()).or_default();
            let decided = self.decided.get(&kind).copied().unwrap_or(0);
            if begun.insert(job.id) && begun.len() > decided {
                found.push(format!("{} has begun without the approvals of the policy of jobs in force", job.id));
            }
        }
        Ok(())
    }
}

impl Checker for Rules {
    fn name(&self) -> &'static str {
        "rules"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        if let Seen::Block(block) = seen
            && first
            && facts.policies_change
            && block.group == GroupId::BEACON
        {
            self.block(facts, block, found);
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if !facts.policies_change {
            return;
        }
        for beacon in replicas.iter().filter(|replica| replica.group == GroupId::BEACON) {
            if let Err(why) = self.stands(moment, beacon, found) {
                found.push(why);
            }
        }
    }
}
