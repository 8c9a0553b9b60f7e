//! Who has approved jobs that cut, join and move: which of them wait, which have been decided, and which have begun.
//!
//! A job is one from its first approval to its end. What is asked for while it is under way is no approval of another one, and
//! what had been approved of one that was taken back, or has lapsed, counts for no later one. Jobs get their numbers in the order
//! of their first approvals, so that whoever takes one back is known to mean it. That a job has ended by itself, without having
//! stood still, no event tells: its kind is not judged any more from there on.

use std::collections::{BTreeMap, BTreeSet};

use beacon::{Job, JobKind, Phase};
use ledger::committee::Committee;
use ledger::ids::{JobId, LayoutVersion, NodeId, OrgId, TimeMs};

use super::bytes;

/// A job that waits for approvals.
struct Waiting {
    id: JobId,
    until_ms: TimeMs,
    by: BTreeSet<OrgId>,
}

/// What an organisation asks for: what is to be done, on which layout, and whether it is cut by command.
pub(super) type Asked = (JobKind, LayoutVersion, bool);

/// The jobs of a run.
#[derive(Default)]
pub(super) struct Jobs {
    /// The number of the last one.
    last: u64,
    /// Those that wait, by what is asked for.
    waiting: BTreeMap<Vec<u8>, Waiting>,
    /// Those that were decided and have not ended. One that has changed the layout stays: nobody can ask for the same again.
    under_way: BTreeMap<Vec<u8>, (JobId, JobKind)>,
    /// How often a job of a kind was decided.
    decided: BTreeMap<Vec<u8>, usize>,
    /// The jobs of a kind that have begun, or were decided and have ended.
    begun: BTreeMap<Vec<u8>, BTreeSet<JobId>>,
    /// Kinds of which a job has ended by itself.
    untold: BTreeSet<Vec<u8>>,
}

impl Jobs {
    /// An organisation approves a job, or asks for it; `decides` says whether these approvals are enough.
    pub(super) fn ask(
        &mut self,
        asked: Asked,
        (org, until_ms): (OrgId, TimeMs),
        at: TimeMs,
        decides: impl FnOnce(&BTreeSet<OrgId>) -> bool,
    ) {
        let (kind, name) = (bytes(&asked.0), bytes(&asked));
        if self.under_way.contains_key(&kind) {
            return;
        }
        if self.waiting.get(&name).is_none_or(|waiting| waiting.until_ms < at) {
            self.last += 1;
            self.waiting.insert(name.clone(), Waiting { id: JobId(self.last), until_ms, by: BTreeSet::new() });
        }
        let Some(waiting) = self.waiting.get_mut(&name) else { return };
        waiting.by.insert(org);
        if decides(&waiting.by) {
            let id = waiting.id;
            self.waiting.remove(&name);
            self.under_way.insert(kind.clone(), (id, asked.0));
            *self.decided.entry(kind).or_insert(0) += 1;
        }
    }

    /// A job was taken back. Of one that is not known any may be meant.
    pub(super) fn cancel(&mut self, id: JobId) {
        let before = self.waiting.len() + self.under_way.len();
        self.waiting.retain(|_, waiting| waiting.id != id);
        self.end(id);
        if self.waiting.len() + self.under_way.len() == before {
            self.untold.extend(self.under_way.keys().cloned());
        }
    }

    /// A job that was decided has ended, or what stood still for it goes on: it is asked for anew, by others.
    pub(super) fn end(&mut self, id: JobId) {
        let Some(kind) = self.under_way.iter().find(|(_, (known, _))| *known == id).map(|(kind, _)| kind.clone())
        else {
            return;
        };
        self.under_way.remove(&kind);
        self.begun.entry(kind).or_default().insert(id);
    }

    /// A committee is in force: a seat may be where it was to be.
    pub(super) fn seated(&mut self, committee: &Committee) {
        let has = |node: NodeId| committee.index_of(node).is_some();
        let moved = |kind: JobKind| matches!(kind, JobKind::Move { group, from, to } if group == committee.group && !has(from) && has(to));
        let over = self.under_way.values().filter(|(_, kind)| moved(*kind)).map(|(id, _)| *id);
        for id in over.collect::<Vec<_>>() {
            self.end(id);
        }
    }

    /// The jobs that a replica of the beacon keeps; `newest` says whether it has all blocks.
    pub(super) fn audit(&mut self, jobs: &[Job], newest: bool, found: &mut Vec<String>) {
        for job in jobs {
            self.meet(job, newest);
        }
        for job in jobs.iter().filter(|job| !job.by_scale) {
            let began = match job.phase {
                Phase::Proposed => false,
                Phase::Aligning | Phase::Preparing | Phase::Sealing | Phase::Committed | Phase::Done => true,
                // It had got that far.
                Phase::Cancelled => !job.children.is_empty(),
            };
            let kind = bytes(&job.kind);
            if !began || self.untold.contains(&kind) {
                continue;
            }
            let decided = self.decided.get(&kind).copied().unwrap_or(0);
            let begun = self.begun.entry(kind).or_default();
            if begun.insert(job.id) && begun.len() > decided {
                found.push(format!("{} has begun without the approvals of the policy of jobs in force", job.id));
            }
        }
    }

    /// Takes over the number of a job, and that it has ended where nothing else tells.
    fn meet(&mut self, job: &Job, newest: bool) {
        let kind = bytes(&job.kind);
        if newest {
            self.last = self.last.max(job.id.0);
        }
        match job.phase {
            Phase::Proposed if newest => {
                if let Some(waiting) = self.waiting.get_mut(&bytes(&(job.kind, job.on, job.manual))) {
                    waiting.id = job.id;
                }
            }
            Phase::Aligning | Phase::Preparing | Phase::Sealing if newest => {
                if let Some((id, _)) = self.under_way.get_mut(&kind) {
                    *id = job.id;
                }
            }
            Phase::Done | Phase::Cancelled => {
                let moves = matches!(job.kind, JobKind::Move { .. });
                let by_itself = job.reason.is_some() || job.phase == Phase::Done && moves;
                if by_itself && self.under_way.get(&kind).is_some_and(|(id, _)| *id == job.id) {
                    self.end(job.id);
                    self.untold.insert(kind);
                }
            }
            Phase::Proposed | Phase::Aligning | Phase::Preparing | Phase::Sealing | Phase::Committed => {}
        }
    }
}
