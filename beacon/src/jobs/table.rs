//! What happens to a job, by event and phase: the table of docs/elastic.md §4.
//!
//! Owns the way of a job from its first approval to the seal, and what ends it. The commit is [`super::commit`]'s. A job
//! that touches a shard keeps its seats as they are; whatever else had to move there waits, and goes on
//! when the job has ended.

use cross_shard::message::Message;
use cross_shard::stream;
use ledger::genesis::NodeInfo;
use ledger::ids::{GroupId, JobId, LayoutVersion, NodeId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::audit;
use crate::jobs::plan::{self, Standing};
use crate::jobs::{self, Job, JobKind, Phase, commit, needed};
use crate::limits::{ALIGN_MS_MAX, JOBS_PER_ORG_MAX, OPEN_MS_MAX, PREPARE_MS_MAX, SEALING_MS_MAX};
use crate::machine::{CommandOutcome, Executed, refuse_full};
use crate::majority;
use crate::policies::{Jury, Matter};
use crate::registry;
use crate::seats;

/// Messages, and the groups that they go to, in the order to be sent.
pub(crate) type Mail = Vec<(GroupId, Message)>;

/// What an organisation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is to be done.
    pub kind: JobKind,
    /// The layout that its sender has seen.
    pub layout: LayoutVersion,
    /// Whether the cut waits for a command.
    pub manual: bool,
}

fn outcome(job: &Job) -> CommandOutcome {
    CommandOutcome::Job { id: job.id, phase: job.phase }
}

fn executed(job: &Job, mail: Mail) -> Executed {
    Executed { mail, ..outcome(job).into() }
}

/// Takes an organisation's approval of a job; the one with which the policy of [`Matter::Jobs`] holds begins it. A seat
/// moves between two nodes of one organisation by that one's word. One that is under way is not begun again, and asking for
/// it changes nothing.
///
/// # Errors
/// [`Reject`] as [`plan::plan`] has it, for another layout, [`Reject::PolicyNotAsked`], [`Reject::JobsFull`] also when as
/// many jobs as may wait for others have this one's approval, and when mail is full. The view is then unchanged.
pub fn propose(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    asked: Asked,
    until_ms: TimeMs,
) -> Result<Executed, Reject> {
    let all = jobs::jobs(view);
    if let Some(job) = all.iter().find(|job| job.kind == asked.kind && job.phase.under_way()) {
        return Ok(outcome(job).into());
    }
    let standing = Standing::read(view, at.time_ms).ok_or(Reject::Registry)?;
    plan::judge(&standing, &asked.kind, asked.layout)?;
    let (jury, own) = (Jury::of(view, Matter::Jobs), own_seat(&standing.nodes, signer, &asked.kind));
    if !own {
        jury.hear(signer)?;
    }
    let same = |job: &&Job| {
        let waits = job.phase == Phase::Proposed && job.until_ms.is_some_and(|until| at.time_ms <= until);
        waits && job.kind == asked.kind && job.manual == asked.manual && job.on == asked.layout
    };
    let known = all.iter().find(same).cloned();
    // To approve what another one has proposed is always free.
    let orgs = registry::orgs(view);
    let of_signer = |job: &&Job| job.approvals.contains(&signer) && waits_or_lone(job, &standing.nodes);
    let full = orgs.len() > 1 && all.iter().filter(of_signer).count() >= JOBS_PER_ORG_MAX;
    if known.is_none() && full {
        return Err(Reject::JobsFull);
    }
    let mut counters = jobs::counters(view);
    let mut job = known.clone().unwrap_or_else(|| {
        let fresh = Job::new(JobId(counters.next_job), asked.kind, asked.layout, asked.manual, at.time_ms);
        Job { until_ms: Some(until_ms), ..fresh }
    });
    majority::note(&mut job.approvals, signer, &jury);
    let decided = own || jury.decides(&job.approvals);
    if decided {
        refuse_full(view)?;
    }
    if known.is_none() {
        counters.next_job += 1;
        jobs::keep_counters(view, &counters);
    }
    if !decided {
        jobs::keep(view, &job);
        return Ok(outcome(&job).into());
    }
    let mail = begin(view, at, &mut job);
    Ok(executed(&job, mail))
}

/// Whether a job has not been decided by most organisations: it waits for them, or moves a seat between two nodes of one.
fn waits_or_lone(job: &Job, nodes: &[NodeInfo]) -> bool {
    let lone = |job: &Job| job.approvals.iter().any(|org| own_seat(nodes, *org, &job.kind));
    job.phase == Phase::Proposed || job.phase.under_way() && !job.by_scale && job.approvals.len() == 1 && lone(job)
}

/// Whether a seat moves between two nodes of one organisation.
fn own_seat(nodes: &[NodeInfo], org: OrgId, kind: &JobKind) -> bool {
    let own = |id: &NodeId| nodes.iter().any(|node| node.id == *id && node.org == org);
    match kind {
        JobKind::Move { from, to, .. } => own(from) && own(to),
        JobKind::Split { .. } | JobKind::Merge { .. } => false,
    }
}

/// Begins a job by the policy of scaling.
///
/// # Errors
/// As [`propose`]. The view is then unchanged.
pub(crate) fn begin_by_scale(view: &mut View<'_>, at: &BlockContext, kind: JobKind) -> Result<(Job, Mail), Reject> {
    let standing = Standing::read(view, at.time_ms).ok_or(Reject::Registry)?;
    let plan = plan::plan(&standing, &kind)?;
    refuse_full(view)?;
    let mut counters = jobs::counters(view);
    let fresh = Job::new(JobId(counters.next_job), kind, plan.on, false, at.time_ms);
    counters.next_job += 1;
    jobs::keep_counters(view, &counters);
    let mut job = Job { by_scale: true, ..fresh };
    let mail = begin(view, at, &mut job);
    Ok((job, mail))
}

/// A job that was decided.
fn begin(view: &mut View<'_>, at: &BlockContext, job: &mut Job) -> Mail {
    match job.kind {
        JobKind::Split { .. } => prepare(view, at, job),
        JobKind::Merge { .. } if parents_aligned(view, job) => prepare(view, at, job),
        JobKind::Merge { .. } => job.enter(Phase::Aligning, at.time_ms, Some(ALIGN_MS_MAX)),
        // As any other change of seats it takes what it takes, and is taken back by a command.
        JobKind::Move { .. } => job.enter(Phase::Preparing, at.time_ms, None),
    }
    jobs::keep(view, job);
    let mail = seats::go_on(view);
    registry::bump_revision(view);
    mail
}

fn parents_aligned(view: &mut View<'_>, job: &Job) -> bool {
    let committees: Vec<_> =
        job.kind.parents().into_iter().filter_map(|group| registry::committee(view, group)).collect();
    matches!(committees.as_slice(), [left, right] if plan::aligned(left, right))
}

/// Nodes are to make copies: the children get their numbers and their committees before anything is made for them.
fn prepare(view: &mut View<'_>, at: &BlockContext, job: &mut Job) {
    let parents = job.kind.parents();
    let layout = registry::layout(view);
    let prefix = |group: &GroupId| layout.as_ref().and_then(|layout| layout.prefix_of(*group));
    let prefixes = match (job.kind, parents.first().and_then(prefix)) {
        (JobKind::Split { .. }, Some(prefix)) => vec![prefix.child(false), prefix.child(true)],
        (JobKind::Merge { .. }, Some(prefix)) => prefix.parent().into_iter().collect(),
        (JobKind::Move { .. }, _) | (_, None) => Vec::new(),
    };
    let like = parents.first().and_then(|group| registry::committee(view, *group));
    if let Some(like) = like {
        let mut counters = jobs::counters(view);
        job.children = plan::children(counters.next_shard, &prefixes, &like);
        counters.next_shard += u32::try_from(job.children.len()).unwrap_or(u32::MAX);
        jobs::keep_counters(view, &counters);
    }
    job.enter(Phase::Preparing, at.time_ms, Some(PREPARE_MS_MAX));
}

/// A committee that has come into force: the seat has moved, or the parents have the same nodes now. Comes before the
/// next steps of seats are decided.
pub(crate) fn arrived(view: &mut View<'_>, at: &BlockContext, group: GroupId) {
    for mut job in jobs::under_way(view) {
        match (job.kind, job.phase) {
            (JobKind::Move { group: moved, from, to }, Phase::Preparing) if moved == group => {
                let Some(current) = registry::committee(view, group) else { continue };
                if current.index_of(from).is_none() && current.index_of(to).is_some() {
                    end(view, at, &mut job, Phase::Done, None);
                }
            }
            (JobKind::Merge { .. }, Phase::Aligning) if parents_aligned(view, &job) => {
                prepare(view, at, &mut job);
                jobs::keep(view, &job);
            }
            _ => {}
        }
    }
}

/// Whether of every parent as many members have copies as it needs.
fn enough(view: &mut View<'_>, job: &Job) -> bool {
    let parents = job.kind.parents();
    !parents.is_empty()
        && parents.into_iter().all(|group| {
            let Some(committee) = registry::committee(view, group) else { return false };
            let warm = |(of, node): &&(GroupId, NodeId)| *of == group && committee.index_of(*node).is_some();
            job.warm.iter().filter(warm).count() >= needed(&committee)
        })
}

/// Tells the parents of the oldest job that waits for it to stand still, if no other one is being sealed. So the layout
/// that a seal carries is the next one, always.
pub(crate) fn cut_waiting(view: &mut View<'_>, at: &BlockContext) -> Mail {
    let open = jobs::under_way(view);
    if open.iter().any(|job| job.phase == Phase::Sealing) {
        return Vec::new();
    }
    let waiting = open.into_iter().find(|job| job.phase == Phase::Preparing && !job.manual && enough(view, job));
    let (Some(mut job), Some(layout)) = (waiting, registry::layout(view)) else { return Vec::new() };
    let Some(seal) = job.seal(&layout) else { return Vec::new() };
    // Its parents were nobody else's to change, so they live in the layout of today as well.
    job.on = layout.version;
    job.seals = seal.parents.iter().map(|group| (*group, stream::out_stream(view, *group).next_seq)).collect();
    job.enter(Phase::Sealing, at.time_ms, Some(SEALING_MS_MAX));
    jobs::keep(view, &job);
    seal.parents.iter().map(|group| (*group, Message::Seal(seal.clone()))).collect()
}

/// The job, if an organisation may speak for it.
fn for_signer(view: &mut View<'_>, signer: OrgId, id: JobId) -> Result<Job, Reject> {
    let job = jobs::job(view, id).ok_or(Reject::JobUnknown)?;
    if job.by_scale || job.approvals.contains(&signer) { Ok(job) } else { Err(Reject::NotAuthorised) }
}

/// Tells the parents of a job to stand still, by command. While another job is being sealed it waits for that one.
///
/// # Errors
/// [`Reject::JobUnknown`], [`Reject::NotAuthorised`], [`Reject::JobOver`] when there is nothing to cut, or not any more,
/// [`Reject::ShardRisk`] while too few copies are ready, [`Reject::PeerBusy`]. The view is then unchanged.
pub fn cut(view: &mut View<'_>, at: &BlockContext, signer: OrgId, id: JobId) -> Result<Executed, Reject> {
    let mut job = for_signer(view, signer, id)?;
    match job.phase {
        Phase::Proposed | Phase::Aligning | Phase::Done | Phase::Cancelled => return Err(Reject::JobOver),
        Phase::Preparing if job.kind.parents().is_empty() => return Err(Reject::JobOver),
        Phase::Sealing | Phase::Committed => return Ok(outcome(&job).into()),
        Phase::Preparing => {}
    }
    if !enough(view, &job) {
        return Err(Reject::ShardRisk);
    }
    refuse_full(view)?;
    job.manual = false;
    jobs::keep(view, &job);
    let mail = cut_waiting(view, at);
    registry::bump_revision(view);
    Ok(executed(&jobs::job(view, id).unwrap_or(job), mail))
}

/// Takes a job back, up to the commit.
///
/// # Errors
/// [`Reject::JobUnknown`], [`Reject::NotAuthorised`], and [`Reject::JobOver`] from the commit on. The view is then
/// unchanged.
pub fn cancel(view: &mut View<'_>, at: &BlockContext, signer: OrgId, id: JobId) -> Result<Executed, Reject> {
    let mut job = for_signer(view, signer, id)?;
    if matches!(job.phase, Phase::Committed | Phase::Done | Phase::Cancelled) {
        return Err(Reject::JobOver);
    }
    let waited = job.phase.under_way();
    let mut mail = end(view, at, &mut job, Phase::Cancelled, None);
    if waited {
        mail.extend(after_end(view, at));
    }
    Ok(executed(&job, mail))
}

/// Ends a job. What was sealed for it is taken back, unless it has ended well.
fn end(view: &mut View<'_>, at: &BlockContext, job: &mut Job, phase: Phase, reason: Option<Reject>) -> Mail {
    let sealed = job.phase == Phase::Sealing && phase == Phase::Cancelled;
    job.enter(phase, at.time_ms, None);
    job.reason = reason;
    jobs::keep(view, job);
    jobs::forget_old(view);
    if !sealed {
        return Vec::new();
    }
    commit::forget_proofs(view, job);
    job.kind.parents().into_iter().map(|group| (group, Message::Unseal(job.id))).collect()
}

/// What waited for a job that has ended: seats that have to move, and jobs that wait to be cut.
fn after_end(view: &mut View<'_>, at: &BlockContext) -> Mail {
    let mut mail = seats::go_on(view);
    mail.extend(cut_waiting(view, at));
    registry::bump_revision(view);
    mail
}

/// The jobs whose shards are not to end any more: one of them was put into quarantine since, and what it owes would be told
/// of its children no more.
fn held_back(view: &mut View<'_>, open: &[Job]) -> Vec<JobId> {
    let before_commit = |job: &&Job| job.phase.under_way() && job.phase != Phase::Committed;
    let ending: Vec<&Job> = open.iter().filter(before_commit).filter(|job| !job.kind.parents().is_empty()).collect();
    if ending.is_empty() {
        return Vec::new();
    }
    let held = audit::quarantined(view);
    let concerned = |job: &&&Job| job.kind.parents().iter().any(|group| held.binary_search(group).is_ok());
    ending.iter().filter(concerned).map(|job| job.id).collect()
}

/// Ends what has lasted too long, and what would take a shard out of quarantine. Comes at the begin of each of the beacon's
/// blocks. Returns what is to be mailed.
pub fn tick(view: &mut View<'_>, at: &BlockContext) -> Mail {
    let mut over = jobs::jobs(view);
    over.retain(|job| job.phase.is_open());
    let held = held_back(view, &over);
    over.retain(|job| held.contains(&job.id) || job.until_ms.is_some_and(|until| until < at.time_ms));
    let waited = over.iter().any(|job| job.phase.under_way());
    let mut mail = Vec::new();
    for mut job in over {
        let (phase, reason) = match job.phase {
            _ if held.contains(&job.id) => (Phase::Cancelled, Some(Reject::GroupQuarantined)),
            Phase::Proposed => (Phase::Cancelled, Some(Reject::Expired)),
            Phase::Committed => (Phase::Done, None),
            Phase::Aligning | Phase::Preparing | Phase::Sealing | Phase::Done | Phase::Cancelled => {
                (Phase::Cancelled, Some(Reject::Unanswered))
            }
        };
        mail.extend(end(view, at, &mut job, phase, reason));
    }
    if waited {
        mail.extend(after_end(view, at));
    }
    mail
}

/// The block time that the next phase ends by itself behind: the beginning of time where a job is to end at once. `None` when
/// none does.
pub fn next_deadline(view: &mut View<'_>) -> Option<TimeMs> {
    let mut open = jobs::jobs(view);
    open.retain(|job| job.phase.is_open());
    if !held_back(view, &open).is_empty() {
        return Some(TimeMs(0));
    }
    open.into_iter().filter_map(|job| job.until_ms).min()
}

/// Whether a node is a member of a parent of a job.
fn of_parent(view: &mut View<'_>, job: &Job, (group, node): (GroupId, NodeId)) -> bool {
    let committee = job.kind.parents().contains(&group).then(|| registry::committee(view, group)).flatten();
    committee.is_some_and(|committee| committee.index_of(node).is_some())
}

/// A member's copies are ready. `None` when nothing follows from that.
pub(crate) fn warm(
    view: &mut View<'_>,
    at: &BlockContext,
    id: JobId,
    from: (GroupId, NodeId),
) -> Result<Option<Executed>, Reject> {
    let mut job = jobs::job(view, id).ok_or(Reject::ReportForm)?;
    match job.phase {
        Phase::Proposed | Phase::Aligning => return Err(Reject::ReportForm),
        Phase::Committed | Phase::Done | Phase::Cancelled => return Ok(None),
        Phase::Preparing | Phase::Sealing => {}
    }
    if !of_parent(view, &job, from) {
        return Err(Reject::ReportForm);
    }
    let Err(place) = job.warm.binary_search(&from) else { return Ok(Some(outcome(&job).into())) };
    job.warm.insert(place, from);
    jobs::keep(view, &job);
    let mail = cut_waiting(view, at);
    registry::bump_revision(view);
    Ok(Some(executed(&jobs::job(view, id).unwrap_or(job), mail)))
}

/// A member has lost a copy. `None` when nothing follows from that.
pub(crate) fn cold(view: &mut View<'_>, id: JobId, from: (GroupId, NodeId)) -> Result<Option<Executed>, Reject> {
    let mut job = jobs::job(view, id).ok_or(Reject::ReportForm)?;
    match job.phase {
        Phase::Proposed | Phase::Aligning => return Err(Reject::ReportForm),
        Phase::Sealing | Phase::Committed | Phase::Done | Phase::Cancelled => return Ok(None),
        Phase::Preparing => {}
    }
    if !of_parent(view, &job, from) {
        return Err(Reject::ReportForm);
    }
    if let Ok(place) = job.warm.binary_search(&from) {
        job.warm.remove(place);
        jobs::keep(view, &job);
        registry::bump_revision(view);
    }
    Ok(Some(outcome(&job).into()))
}

/// A member of a child has opened it; the last one ends the job. `None` when nothing follows from that.
pub(crate) fn opened(
    view: &mut View<'_>,
    at: &BlockContext,
    id: JobId,
    from: (GroupId, NodeId),
) -> Result<Option<Executed>, Reject> {
    let mut job = jobs::job(view, id).ok_or(Reject::ReportForm)?;
    if job.phase != Phase::Committed {
        return Ok(None);
    }
    let member = |group: GroupId, node: NodeId| {
        let child = job.children.iter().find(|child| child.group == group);
        child.is_some_and(|child| child.committee.index_of(node).is_some())
    };
    if !member(from.0, from.1) {
        return Err(Reject::ReportForm);
    }
    let Err(place) = job.open.binary_search(&from) else { return Ok(Some(outcome(&job).into())) };
    job.open.insert(place, from);
    let all: usize = job.children.iter().map(|child| child.committee.members.len()).sum();
    if job.open.len() < all {
        jobs::keep(view, &job);
        registry::bump_revision(view);
        return Ok(Some(outcome(&job).into()));
    }
    let mut mail = end(view, at, &mut job, Phase::Done, None);
    mail.extend(after_end(view, at));
    Ok(Some(executed(&job, mail)))
}

/// The new layout is in force.
pub(crate) fn committed(view: &mut View<'_>, at: &BlockContext, job: &mut Job) {
    job.enter(Phase::Committed, at.time_ms, Some(OPEN_MS_MAX));
    jobs::keep(view, job);
}
