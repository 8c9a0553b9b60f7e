//! What the beacon holds about shards and jobs, for whoever asks: enough to plan a job, to watch one, and to see what
//! scaling would do. Read from state and never written.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::TimeMs;
use ledger::lineage::BornShard;
use ledger::view::View;

use crate::jobs::plan::Standing;
use crate::jobs::scale::{self, GroupLoad, LeadHint, ScaleNote, ScalePolicy};
use crate::jobs::{self, Job};

/// Version written into new [`Shards`].
pub const SHARDS_VERSION: u8 = 1;

/// The shards and the jobs of a cluster, as of one block of the beacon.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Shards {
    /// Format version, [`SHARDS_VERSION`].
    pub version: u8,
    /// Time of that block.
    pub time_ms: TimeMs,
    /// What a job is judged by: layout, nodes, committees, and the jobs that are open.
    pub standing: Standing,
    /// The last jobs that have ended, by number.
    pub ended: Vec<Job>,
    /// How living shards began that others were cut or joined into, by group.
    pub born: Vec<BornShard>,
    /// What the beacon does by itself about load.
    pub policy: ScalePolicy,
    /// The last loads of shards, by group. None while the policy is off.
    pub loads: Vec<GroupLoad>,
    /// What was decided about scaling, the latest last.
    pub notes: Vec<ScaleNote>,
    /// The lead that is to move because of load.
    pub lead: Option<LeadHint>,
}

impl Shards {
    /// As the beacon's state has it at the time of its last block. `None` where there is no registry.
    pub fn read(view: &mut View<'_>, now: TimeMs) -> Option<Self> {
        Some(Self {
            version: SHARDS_VERSION,
            time_ms: now,
            standing: Standing::read(view, now)?,
            ended: jobs::jobs(view).into_iter().filter(|job| !job.phase.is_open()).collect(),
            born: jobs::born(view),
            policy: scale::policy(view),
            loads: scale::loads(view),
            notes: scale::notes(view),
            lead: scale::hint(view),
        })
    }

    /// All jobs that are kept, by number.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        let mut all: Vec<&Job> = self.standing.jobs.iter().chain(&self.ended).collect();
        all.sort_by_key(|job| job.id);
        all.into_iter()
    }
}
