//! Scaling: by what the members of shards report of their load, the beacon begins jobs that a majority would have to ask for
//! otherwise, or writes down that it would.
//!
//! Owns the last load of each shard, since when it is too much or too little, what is begun, and the log. The limits are
//! [`mod@policy`]'s, what members say and what of it counts `heard`'s, seats and leads that move by load [`balance`]'s. Off until more than half
//! of the organisations want it. What is begun here is a job as any other, and can be taken back by any organisation.
//!
//! Nothing is begun while any job is under way, nor in a cool-down after the last one. Whatever was passed for long enough
//! by then is begun right behind that. What came to nothing since nodes did not answer waits for longer, each time.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{GroupId, JobId, NodeId, TimeMs};
use ledger::layout::Layout;
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::jobs::plan::{self, Standing};
use crate::jobs::table::{self, Mail};
use crate::jobs::{self, Job, JobKind, Phase};
use crate::limits::{PREPARE_MS_MAX, SCALE_DOUBLINGS_MAX, SCALE_NOTES_MAX};
use crate::machine::{CommandOutcome, Executed};
use crate::registry;

pub mod balance;
mod heard;
pub mod policy;

pub use balance::{LeadHint, best_lead, best_move, hint};
pub(crate) use policy::load_every_ms;
pub use policy::{ScalePolicy, policy, policy_key, set};

/// Version written into everything here. Version 1 moved neither seats nor leads.
pub const SCALE_VERSION: u8 = 2;

/// What a shard has and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Load {
    /// Accounts.
    pub accounts: u64,
    /// Bytes of its database.
    pub bytes: u64,
    /// Transactions a second.
    pub tps: u32,
}

impl Load {
    /// Nothing.
    pub(crate) const NONE: Self = Self { accounts: 0, bytes: 0, tps: 0 };

    /// What two shards have together.
    fn with(self, other: Self) -> Self {
        Self {
            accounts: self.accounts.saturating_add(other.accounts),
            bytes: self.bytes.saturating_add(other.bytes),
            tps: self.tps.saturating_add(other.tps),
        }
    }
}

/// The last load of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GroupLoad {
    /// Format version, [`SCALE_VERSION`].
    pub version: u8,
    /// The shard.
    pub group: GroupId,
    /// Who leads it, by its own word.
    pub node: NodeId,
    /// The load, in the middle of what its members say.
    pub load: Load,
    /// When, by block time.
    pub taken_ms: TimeMs,
    /// Since when all reports have shown more than it should have.
    pub split_since_ms: Option<TimeMs>,
    /// Of a left half: since when all reports have shown less than both should have.
    pub merge_since_ms: Option<TimeMs>,
}

/// What a limit speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ScaleAction {
    /// A job.
    Job(JobKind),
    /// That another member leads a shard.
    Lead {
        /// The shard.
        group: GroupId,
        /// Who leads it.
        from: NodeId,
        /// Who is to.
        to: NodeId,
    },
}

impl ScaleAction {
    /// Its name in answers.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Job(kind) => kind.name(),
            Self::Lead { .. } => "lead",
        }
    }

    /// The shards that it is about, the left one first.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        match self {
            Self::Job(kind) => kind.groups(),
            Self::Lead { group, .. } => vec![*group],
        }
    }

    /// From which node to which one, if a seat or a lead moves.
    #[must_use]
    pub const fn nodes(&self) -> Option<(NodeId, NodeId)> {
        match self {
            Self::Job(JobKind::Move { from, to, .. }) | Self::Lead { from, to, .. } => Some((*from, *to)),
            Self::Job(JobKind::Split { .. } | JobKind::Merge { .. }) => None,
        }
    }
}

/// What became of it when a limit was passed for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ScaleEvent {
    /// A job was begun.
    Began(JobId),
    /// It would have been begun, or asked for, if the policy said so.
    WouldBegin,
    /// Something spoke against it.
    Refused(Reject),
    /// A node was asked to give a lead away.
    Asked,
}

/// A line of what was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ScaleNote {
    /// Format version, [`SCALE_VERSION`].
    pub version: u8,
    /// Counts the lines.
    pub number: u64,
    /// What a limit speaks for.
    pub action: ScaleAction,
    /// What was done.
    pub event: ScaleEvent,
    /// The load that it follows from: of two shards that of both, of a seat or a lead that of its shard.
    pub load: Load,
    /// Time of the beacon's block.
    pub time_ms: TimeMs,
}

const LOAD: &[u8] = b"load/";
const NOTE: &[u8] = b"scalelog/";

fn load_key(group: GroupId) -> Vec<u8> {
    registry::key(LOAD, &[&group.0.to_be_bytes()])
}

/// The last loads, by group.
pub fn loads(view: &mut View<'_>) -> Vec<GroupLoad> {
    registry::family(view, &registry::key(LOAD, &[])).into_iter().map(|(_, load)| load).collect()
}

/// What was decided, the latest last; so many lines are kept.
pub fn notes(view: &mut View<'_>) -> Vec<ScaleNote> {
    registry::family(view, &registry::key(NOTE, &[])).into_iter().map(|(_, note)| note).collect()
}

/// Forgets what was reported of a shard that has ended. The caller tells followers.
pub(crate) fn forget_group(view: &mut View<'_>, group: GroupId) {
    let key = load_key(group);
    if view.get(&key).is_some() {
        registry::remove(view, key);
    }
    heard::forget_group(view, group);
    balance::forget_group(view, group);
}

/// A member has reported what its replica of a shard has and does, and whether it leads. The load of the shard follows from
/// what all of them say.
///
/// # Errors
/// [`Reject::ReportForm`] while the policy is off, and for no member of the shard. The view is then unchanged.
pub(crate) fn observe(
    view: &mut View<'_>,
    at: &BlockContext,
    (group, node): (GroupId, NodeId),
    (said, leads): (Load, bool),
) -> Result<Option<Executed>, Reject> {
    let policy = policy(view);
    let layout = registry::layout(view).ok_or(Reject::Registry)?;
    let committee = registry::committee(view, group).filter(|_| policy.on && layout.prefix_of(group).is_some());
    let committee = committee.filter(|committee| committee.index_of(node).is_some()).ok_or(Reject::ReportForm)?;
    if leads {
        balance::led_by(view, group, node);
    }
    let Some((node, load)) = heard::hear(view, at, &policy, &committee, (node, said, leads)) else {
        return Ok(Some(CommandOutcome::Applied.into()));
    };
    let before: Option<GroupLoad> = view.load(&load_key(group));
    let before = before.filter(|before| policy.is_fresh(before.taken_ms, at.time_ms));
    let since = |holds: bool, since: Option<TimeMs>| holds.then(|| since.unwrap_or(at.time_ms));
    let split_since_ms = since(policy.too_much(&load), before.and_then(|before| before.split_since_ms));
    let merge_since_ms = before.and_then(|before| before.merge_since_ms);
    let taken_ms = at.time_ms;
    let now = GroupLoad { version: SCALE_VERSION, group, node, load, taken_ms, split_since_ms, merge_since_ms };
    registry::put(view, load_key(group), &now);
    let halves = halves(view, at, &policy, (&layout, group, before.is_none()));
    let mut mail = None;
    if policy.is_long(split_since_ms, at.time_ms) {
        mail = act(view, at, &policy, JobKind::Split { group }, load);
    } else if let Some((kind, both, since)) = halves
        && policy.is_long(Some(since), at.time_ms)
    {
        mail = act(view, at, &policy, kind, both);
    }
    let mail = mail.unwrap_or_else(|| balance::look(view, at, &policy));
    Ok(Some(Executed { mail, ..CommandOutcome::Applied.into() }))
}

/// The shard with its other half, left first, what both have together, and since when, where that is too little. The left
/// half remembers it. Behind a pause in the reports of either one time runs anew.
fn halves(
    view: &mut View<'_>,
    at: &BlockContext,
    policy: &ScalePolicy,
    (layout, group, paused): (&Layout, GroupId, bool),
) -> Option<(JobKind, Load, TimeMs)> {
    let whole = layout.prefix_of(group)?.parent()?;
    let half = |right: bool| layout.shards.iter().find(|shard| shard.prefix == whole.child(right));
    let (left, right) = (half(false)?.group, half(true)?.group);
    let one: GroupLoad = view.load(&load_key(left))?;
    let other: Option<GroupLoad> = view.load(&load_key(right));
    let fresh = |load: &GroupLoad| policy.is_fresh(load.taken_ms, at.time_ms);
    let both = other.filter(|other| fresh(&one) && fresh(other)).map(|other| one.load.with(other.load));
    let little = both.filter(|both| policy.too_little(both));
    let since = little.map(|_| one.merge_since_ms.filter(|_| !paused).unwrap_or(at.time_ms));
    if since != one.merge_since_ms {
        registry::put(view, load_key(left), &GroupLoad { merge_since_ms: since, ..one });
    }
    Some((JobKind::Merge { left, right }, little?, since?))
}

/// Whether nothing may be begun now: a job is under way, whoever asked for it, or what was done last is not long ago. In a
/// dry run what would have been begun counts, so that its log shows as much as there would have been.
fn rests(view: &mut View<'_>, at: &BlockContext, policy: &ScalePolicy) -> bool {
    let all = jobs::jobs(view);
    let own = all.iter().filter(|job| job.by_scale).map(|job| job.since_ms).max();
    let would = |note: &ScaleNote| {
        policy.dry_run && note.event == ScaleEvent::WouldBegin && matches!(note.action, ScaleAction::Job(_))
    };
    let would = notes(view).into_iter().filter(would).map(|note| note.time_ms).max();
    let last = [jobs::counters(view).reshaped_ms, own, would].into_iter().flatten().max();
    let cools = last.is_some_and(|then| at.time_ms.0.saturating_sub(then.0) < policy.cooldown_ms);
    cools || all.iter().any(|job| job.phase.under_way())
}

/// Whether a job is not begun again yet: the last ones like it that the policy has begun came to nothing since nodes did
/// not answer. Each of them doubles the pause behind the last one, which is a cool-down, but no less than a job has to be
/// answered in.
fn came_to_nothing(view: &mut View<'_>, at: &BlockContext, policy: &ScalePolicy, kind: &JobKind) -> bool {
    let like = |job: &Job| job.by_scale && job.kind == *kind && !job.phase.is_open();
    let vain = |job: &Job| job.phase == Phase::Cancelled && job.reason == Some(Reject::Unanswered);
    let latest = jobs::jobs(view).into_iter().rev().filter(like).take_while(vain).map(|job| job.since_ms);
    let latest: Vec<TimeMs> = latest.collect();
    let Some(last) = latest.first() else { return false };
    let doublings = u32::try_from(latest.len()).unwrap_or(u32::MAX).min(SCALE_DOUBLINGS_MAX);
    let pause = policy.cooldown_ms.max(PREPARE_MS_MAX).saturating_mul(1 << doublings);
    at.time_ms.0.saturating_sub(last.0) < pause
}

/// Does what a limit speaks for, if nothing else that the policy says speaks against it; then time runs anew. `None` when
/// it waits.
fn act(view: &mut View<'_>, at: &BlockContext, policy: &ScalePolicy, kind: JobKind, load: Load) -> Option<Mail> {
    let shards = registry::layout(view).map_or(0, |layout| layout.shards.len());
    let capped = match kind {
        JobKind::Split { .. } => shards >= usize::from(policy.shards_max),
        JobKind::Merge { .. } => shards <= usize::from(policy.shards_min),
        JobKind::Move { .. } => false,
    };
    if capped || rests(view, at, policy) {
        return None;
    }
    let (event, mail) = if came_to_nothing(view, at, policy, &kind) {
        (ScaleEvent::Refused(Reject::Unanswered), Mail::new())
    } else if !kind.parents().into_iter().all(|group| heard::enough(view, at, policy, group)) {
        // Where nobody watches nodes, this is all that is known of who is away.
        (ScaleEvent::Refused(Reject::ShardRisk), Mail::new())
    } else if policy.dry_run {
        let standing = Standing::read(view, at.time_ms);
        let found = standing.ok_or(Reject::Registry).and_then(|standing| plan::plan(&standing, &kind));
        (found.map_or_else(ScaleEvent::Refused, |_| ScaleEvent::WouldBegin), Mail::new())
    } else {
        match table::begin_by_scale(view, at, kind) {
            Ok((job, mail)) => (ScaleEvent::Began(job.id), mail),
            Err(reject) => (ScaleEvent::Refused(reject), Mail::new()),
        }
    };
    for group in kind.parents() {
        if let Some(known) = view.load::<GroupLoad>(&load_key(group)) {
            let anew = GroupLoad { split_since_ms: None, merge_since_ms: None, ..known };
            registry::put(view, load_key(group), &anew);
        }
    }
    write_note(view, at, ScaleAction::Job(kind), event, load);
    Some(mail)
}

/// Writes a line; the oldest goes when there are too many.
fn write_note(view: &mut View<'_>, at: &BlockContext, action: ScaleAction, event: ScaleEvent, load: Load) {
    let known: Vec<(Vec<u8>, ScaleNote)> = registry::family(view, &registry::key(NOTE, &[]));
    let number = known.last().map_or(0, |(_, note)| note.number + 1);
    let note = ScaleNote { version: SCALE_VERSION, number, action, event, load, time_ms: at.time_ms };
    registry::put(view, registry::key(NOTE, &[&number.to_be_bytes()]), &note);
    let surplus = (known.len() + 1).saturating_sub(SCALE_NOTES_MAX);
    known.into_iter().take(surplus).for_each(|(key, _)| registry::remove(view, key));
}
