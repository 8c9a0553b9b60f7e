//! Jobs: shards that are cut, joined and moved while they run (docs/elastic.md).
//!
//! Owns the records of jobs, the table of what happens to a job in which phase ([`table`]), what is refused from the start
//! ([`mod@plan`]), the commit of a new layout ([`commit`]), and the policy by which the beacon begins jobs by itself
//! ([`scale`]). Never copies, opens or removes anything: nodes do, by the jobs that the
//! [`ClusterView`](crate::ClusterView) shows them, and say how far they are by a [`report`].
//!
//! A job is one record in state, and each event changes it in one apply. So `commit` and `cancel` of a job exclude each
//! other, and whoever leads the beacon next goes on where the one before was.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::genesis::NodeInfo;
use ledger::ids::{GroupId, JobId, LayoutVersion, NodeId, OrgId, TimeMs};
use ledger::layout::Layout;
use ledger::lineage::{BornShard, ChildShard, ParentEnd, SEAL_VERSION, Seal};
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::View;

use crate::limits::JOBS_KEPT_MAX;
use crate::registry;

pub mod commit;
pub mod plan;
pub mod report;
pub mod scale;
pub mod shards;
pub mod table;

pub use commit::{RootShape, SealedProof, apply_sealed};
pub use plan::{Plan, Standing, plan};
pub use report::{JobReport, Said, apply_report};
pub use scale::{LeadHint, ScaleAction, ScaleEvent, ScaleNote, ScalePolicy};
pub use shards::Shards;
pub use table::{Asked, cancel, cut, next_deadline, propose, tick};

/// Version written into new [`Job`]s.
pub const JOB_VERSION: u8 = 1;

/// What a job is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum JobKind {
    /// Cuts a shard into the halves of its prefix.
    Split {
        /// The shard.
        group: GroupId,
    },
    /// Joins the two halves of a prefix.
    Merge {
        /// The left half.
        left: GroupId,
        /// The right half.
        right: GroupId,
    },
    /// Gives the seat of a node in a shard to another node.
    Move {
        /// The shard.
        group: GroupId,
        /// Who has the seat.
        from: NodeId,
        /// Who is to have it.
        to: NodeId,
    },
}

impl JobKind {
    /// The shards that it is about: those that end, the left one first, or the one in which a seat moves.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        match self {
            Self::Split { group } | Self::Move { group, .. } => vec![*group],
            Self::Merge { left, right } => vec![*left, *right],
        }
    }

    /// The shards that end with it, the left one first; none where a seat moves.
    #[must_use]
    pub fn parents(&self) -> Vec<GroupId> {
        match self {
            Self::Split { .. } | Self::Merge { .. } => self.groups(),
            Self::Move { .. } => Vec::new(),
        }
    }

    /// Its name in commands and answers.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Split { .. } => "split",
            Self::Merge { .. } => "merge",
            Self::Move { .. } => "move",
        }
    }
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Phase {
    /// It waits for organisations.
    Proposed,
    /// The smaller half, or the right of two alike, takes the nodes of the other one.
    Aligning,
    /// Nodes make copies; or the node that a seat moves to fetches the state.
    Preparing,
    /// The parents are told to stand still. It can still be taken back.
    Sealing,
    /// The new layout is in force; the nodes open the children.
    Committed,
    /// It has ended well.
    Done,
    /// It has come to nothing.
    Cancelled,
}

impl Phase {
    /// Whether anything can still happen to the job.
    #[must_use]
    pub const fn is_open(self) -> bool {
        !matches!(self, Self::Done | Self::Cancelled)
    }

    /// Whether it was decided and has not ended: nodes have something to do about it, or may have.
    #[must_use]
    pub const fn under_way(self) -> bool {
        self.is_open() && !matches!(self, Self::Proposed)
    }

    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Aligning => "aligning",
            Self::Preparing => "preparing",
            Self::Sealing => "sealing",
            Self::Committed => "committed",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A change of the layout, or of a seat, from its first approval to its end.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Job {
    /// Format version, [`JOB_VERSION`].
    pub version: u8,
    /// Its number, never given twice.
    pub id: JobId,
    /// What it is to do.
    pub kind: JobKind,
    /// How far it has come.
    pub phase: Phase,
    /// Whether it waits for a command before the parents are told to stand still.
    pub manual: bool,
    /// The layout that it was planned on; from the cut on, the one that it changes.
    pub on: LayoutVersion,
    /// Who has approved it, ascending.
    pub approvals: Vec<OrgId>,
    /// Whether the policy of scaling has begun it.
    pub by_scale: bool,
    /// The shards that begin, the left one first. Empty until copies are made, and of a move.
    pub children: Vec<ChildShard>,
    /// Since when it is in this phase, by block time.
    pub since_ms: TimeMs,
    /// The last block time of this phase, if it has one; then the phase ends by itself.
    pub until_ms: Option<TimeMs>,
    /// Members of parents whose copies are ready, ascending: the parent, and the node.
    pub warm: Vec<(GroupId, NodeId)>,
    /// Members of children that have opened theirs, ascending: the child, and the node.
    pub open: Vec<(GroupId, NodeId)>,
    /// Where parents ended, as far as it is proved, the left one first.
    pub ends: Vec<ParentEnd>,
    /// Why it has come to nothing; nothing when somebody took it back.
    pub reason: Option<Reject>,
    /// For each parent how long the beacon's stream to it was when its seal was written: who has taken no more than that
    /// has not taken this seal, whatever else it is sealed by.
    pub seals: Vec<(GroupId, u64)>,
}

impl Job {
    pub(crate) fn new(id: JobId, kind: JobKind, on: LayoutVersion, manual: bool, now: TimeMs) -> Self {
        Self {
            version: JOB_VERSION,
            id,
            kind,
            phase: Phase::Proposed,
            manual,
            on,
            approvals: Vec::new(),
            by_scale: false,
            children: Vec::new(),
            since_ms: now,
            until_ms: None,
            warm: Vec::new(),
            open: Vec::new(),
            ends: Vec::new(),
            reason: None,
            seals: Vec::new(),
        }
    }

    /// Puts it into a phase that ends by itself after some time, if at all.
    pub(crate) fn enter(&mut self, phase: Phase, now: TimeMs, for_ms: Option<u64>) {
        self.phase = phase;
        self.since_ms = now;
        self.until_ms = for_ms.map(|for_ms| TimeMs(now.0.saturating_add(for_ms)));
    }

    /// Whether it keeps everything else from changing a shard: one that ends or has begun with it, or has a seat that it
    /// moves.
    #[must_use]
    pub fn holds(&self, group: GroupId) -> bool {
        let begins = self.children.iter().any(|child| child.group == group);
        self.phase.under_way() && (begins || self.kind.groups().contains(&group))
    }

    /// What its parents are told, by the layout in force; `None` when that layout has not the shards for it.
    #[must_use]
    pub fn seal(&self, layout: &Layout) -> Option<Seal> {
        let children: Vec<GroupId> = self.children.iter().map(|child| child.group).collect();
        let next = match (self.kind, children.as_slice()) {
            (JobKind::Split { group }, [left, right]) => layout.split(group, [*left, *right])?,
            (JobKind::Merge { left, right }, [child]) => layout.merge([left, right], *child)?,
            _ => return None,
        };
        Some(Seal {
            version: SEAL_VERSION,
            job: self.id,
            parents: self.kind.parents(),
            children: self.children.clone(),
            layout: next,
        })
    }
}

/// Members that have to be ready, or to be heard of: those that decide, and one more if the committee has one to spare, so
/// that one failure does not stop it.
#[must_use]
pub fn needed(committee: &Committee) -> usize {
    let threshold = usize::from(committee.threshold);
    if committee.members.len() > threshold { threshold + 1 } else { threshold }
}

/// Numbers that only rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Counters {
    version: u8,
    /// The number of the next job.
    pub next_job: u64,
    /// The ordinal of the next shard: none that was given is given again, also if its job came to nothing.
    pub next_shard: u32,
    /// When the layout has changed last.
    pub reshaped_ms: Option<TimeMs>,
}

const JOB: &[u8] = b"job/";

/// Key of a [`Job`].
#[must_use]
pub fn job_key(id: JobId) -> Vec<u8> {
    registry::key(JOB, &[&id.0.to_be_bytes()])
}

/// Key of the counters of jobs and shards.
#[must_use]
pub fn counters_key() -> Vec<u8> {
    registry::key(b"jobs", &[])
}

pub(crate) fn counters(view: &mut View<'_>) -> Counters {
    let known = view.load(&counters_key());
    let mut counters: Counters =
        known.unwrap_or(Counters { version: 1, next_job: 1, next_shard: 0, reshaped_ms: None });
    let by_layout = registry::layout(view).map_or(0, |layout| layout.next_shard().ordinal());
    counters.next_shard = counters.next_shard.max(by_layout);
    counters
}

pub(crate) fn keep_counters(view: &mut View<'_>, counters: &Counters) {
    registry::put(view, counters_key(), counters);
}

/// All jobs that are kept, by number: those that are open, and the last that have ended.
pub fn jobs(view: &mut View<'_>) -> Vec<Job> {
    registry::family(view, &registry::key(JOB, &[])).into_iter().map(|(_, job)| job).collect()
}

/// One job.
pub fn job(view: &mut View<'_>, id: JobId) -> Option<Job> {
    view.load(&job_key(id))
}

/// The jobs that nodes have something to do about, by number.
pub fn under_way(view: &mut View<'_>) -> Vec<Job> {
    jobs(view).into_iter().filter(|job| job.phase.under_way()).collect()
}

/// Whether shards stand still for a job.
pub(crate) fn seals(view: &mut View<'_>) -> bool {
    jobs(view).iter().any(|job| job.phase == Phase::Sealing)
}

/// Whether a job keeps everything else from changing a shard.
pub(crate) fn holds(view: &mut View<'_>, group: GroupId) -> bool {
    under_way(view).iter().any(|job| job.holds(group))
}

pub(crate) fn keep(view: &mut View<'_>, job: &Job) {
    registry::put(view, job_key(job.id), job);
}

/// Forgets the oldest of the jobs that have ended, when they are too many.
pub(crate) fn forget_old(view: &mut View<'_>) {
    let ended: Vec<JobId> = jobs(view).into_iter().filter(|job| !job.phase.is_open()).map(|job| job.id).collect();
    let surplus = ended.len().saturating_sub(JOBS_KEPT_MAX);
    ended.into_iter().take(surplus).for_each(|id| registry::remove(view, job_key(id)));
}

/// The living shards that others were cut or joined into, by group.
pub fn born(view: &mut View<'_>) -> Vec<BornShard> {
    let mut prefix = schema::born(GroupId(0));
    prefix.truncate(prefix.len() - size_of::<GroupId>());
    let Some(layout) = registry::layout(view) else { return Vec::new() };
    let all: Vec<(Vec<u8>, BornShard)> = registry::family(view, &prefix);
    all.into_iter().map(|(_, born)| born).filter(|born| layout.prefix_of(born.group).is_some()).collect()
}

/// What the seats of a shard are to be while a job is about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// As they are.
    Stays,
    /// Those of these nodes, by the ordinary steps.
    Nodes(Vec<NodeId>),
}

/// The shards whose seats jobs decide about. All others change by the ordinary rules: among them those that a job would
/// give to a node that takes none any more, as `nodes` have it. A move waits then until it is taken back, and parents are
/// brought together once no seat of the one that stays is such a node's.
pub(crate) fn aims(view: &mut View<'_>, nodes: &[NodeInfo]) -> BTreeMap<GroupId, Aim> {
    let takes = |id: NodeId| nodes.iter().any(|node| node.id == id && node.capacity > 0);
    let mut aims = BTreeMap::new();
    for job in under_way(view) {
        match (job.kind, job.phase) {
            (JobKind::Move { to, .. }, _) if !takes(to) => {}
            (JobKind::Move { group, from, to }, _) => {
                let Some(current) = registry::committee(view, group) else { continue };
                let others =
                    current.members.iter().map(|member| member.node).filter(|node| *node != from && *node != to);
                let mut nodes: Vec<NodeId> = others.collect();
                nodes.push(to);
                aims.insert(group, Aim::Nodes(nodes));
            }
            (JobKind::Merge { left, right }, Phase::Aligning) => {
                let (Some(left), Some(right)) = (registry::committee(view, left), registry::committee(view, right))
                else {
                    continue;
                };
                let (like, follows) = plan::like(&left, &right);
                if !like.members.iter().all(|member| takes(member.node)) {
                    continue;
                }
                aims.insert(like.group, Aim::Stays);
                aims.insert(follows.group, Aim::Nodes(like.members.iter().map(|member| member.node).collect()));
            }
            (JobKind::Split { .. } | JobKind::Merge { .. }, _) => {
                aims.extend(job.kind.groups().into_iter().map(|group| (group, Aim::Stays)));
            }
        }
    }
    aims
}
