//! Scaling: by what the leaders of shards report of their load, the beacon begins jobs that a majority would have to ask for
//! otherwise, or writes down that it would.
//!
//! Owns the policy, the last load of each shard, since when it is too much or too little, and the log. Off until more than half
//! of the organisations want it. What is begun here is a job as any other, and can be taken back by any organisation.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{GroupId, JobId, NodeId, OrgId, TimeMs};
use ledger::layout::Layout;
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::jobs::plan::{self, Standing};
use crate::jobs::table::{self, Mail};
use crate::jobs::{self, JobKind};
use crate::limits::{
    LOAD_FRESH_MS, SCALE_COOLDOWN_MS_MAX, SCALE_NOTES_MAX, SCALE_SUSTAINED_MS_MAX, SCALE_SUSTAINED_MS_MIN, SHARDS_MAX,
};
use crate::machine::{CommandOutcome, Executed};
use crate::majority::{self, Verdict};
use crate::registry;

/// Version written into everything here.
pub const SCALE_VERSION: u8 = 1;

/// When the beacon cuts and joins shards by itself. A limit of zero is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ScalePolicy {
    /// Format version, [`SCALE_VERSION`].
    pub version: u8,
    /// Whether it does anything at all. While it does not, no loads are taken.
    pub on: bool,
    /// Whether it only writes down what it would do.
    pub dry_run: bool,
    /// A shard with more accounts is cut.
    pub split_accounts: u64,
    /// A shard with more transactions a second is cut.
    pub split_tps: u32,
    /// Two halves with fewer accounts together, and fewer transactions, are joined.
    pub merge_accounts: u64,
    /// Two halves with fewer transactions a second together, and fewer accounts, are joined.
    pub merge_tps: u32,
    /// How long that has to hold without a pause, milliseconds.
    pub sustained_ms: u64,
    /// How long after a change of the layout nothing is begun, milliseconds.
    pub cooldown_ms: u64,
    /// Shards that are left, at least.
    pub shards_min: u16,
    /// Shards that there are, at most.
    pub shards_max: u16,
}

impl ScalePolicy {
    /// The policy of a cluster that has decided on none.
    pub const DEFAULT: Self = Self {
        version: SCALE_VERSION,
        on: false,
        dry_run: true,
        split_accounts: 0,
        split_tps: 0,
        merge_accounts: 0,
        merge_tps: 0,
        sustained_ms: 10 * 60 * 1000,
        cooldown_ms: 60 * 60 * 1000,
        shards_min: 1,
        shards_max: 1024,
    };

    /// Whether it is within limits, and what it joins it would not cut again: half as much is the most that is joined.
    fn well_formed(&self) -> bool {
        let apart = |merge: u64, split: u64| split == 0 || merge.saturating_mul(2) <= split;
        self.version == SCALE_VERSION
            && (SCALE_SUSTAINED_MS_MIN..=SCALE_SUSTAINED_MS_MAX).contains(&self.sustained_ms)
            && self.cooldown_ms <= SCALE_COOLDOWN_MS_MAX
            && self.shards_min >= 1
            && self.shards_min <= self.shards_max
            && usize::from(self.shards_max) <= SHARDS_MAX
            && apart(self.merge_accounts, self.split_accounts)
            && apart(self.merge_tps.into(), self.split_tps.into())
    }

    fn too_much(&self, load: &Load) -> bool {
        let over = |limit: u64, found: u64| limit > 0 && found > limit;
        over(self.split_accounts, load.accounts) || over(self.split_tps.into(), load.tps.into())
    }

    fn too_little(&self, one: &Load, other: &Load) -> bool {
        one.accounts.saturating_add(other.accounts) < self.merge_accounts
            && one.tps.saturating_add(other.tps) < self.merge_tps
    }
}

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

/// The last load of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GroupLoad {
    /// Format version, [`SCALE_VERSION`].
    pub version: u8,
    /// The shard.
    pub group: GroupId,
    /// The member that reported it.
    pub node: NodeId,
    /// The load.
    pub load: Load,
    /// When, by block time.
    pub taken_ms: TimeMs,
    /// Since when all reports have shown more than it should have.
    pub split_since_ms: Option<TimeMs>,
    /// Of a left half: since when all reports have shown less than both should have.
    pub merge_since_ms: Option<TimeMs>,
}

/// What became of it when a limit was passed for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ScaleEvent {
    /// A job was begun.
    Began(JobId),
    /// One would have been, if the policy said so.
    WouldBegin,
    /// Something spoke against it.
    Refused(Reject),
}

/// A line of what was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ScaleNote {
    /// Format version, [`SCALE_VERSION`].
    pub version: u8,
    /// Counts the lines.
    pub number: u64,
    /// What a limit speaks for.
    pub kind: JobKind,
    /// What was done.
    pub event: ScaleEvent,
    /// The load that it follows from: of two shards that of both.
    pub load: Load,
    /// Time of the beacon's block.
    pub time_ms: TimeMs,
}

const PROPOSAL: &[u8] = b"scale-proposal/";
const LOAD: &[u8] = b"load/";
const NOTE: &[u8] = b"scalelog/";

/// Key of the [`ScalePolicy`] in force.
#[must_use]
pub fn policy_key() -> Vec<u8> {
    registry::key(b"scale", &[])
}

fn load_key(group: GroupId) -> Vec<u8> {
    registry::key(LOAD, &[&group.0.to_be_bytes()])
}

/// The policy in force.
pub fn policy(view: &mut View<'_>) -> ScalePolicy {
    view.load(&policy_key()).unwrap_or(ScalePolicy::DEFAULT)
}

/// The last loads, by group.
pub fn loads(view: &mut View<'_>) -> Vec<GroupLoad> {
    registry::family(view, &registry::key(LOAD, &[])).into_iter().map(|(_, load)| load).collect()
}

/// What was decided, the latest last; so many lines are kept.
pub fn notes(view: &mut View<'_>) -> Vec<ScaleNote> {
    registry::family(view, &registry::key(NOTE, &[])).into_iter().map(|(_, note)| note).collect()
}

/// Forgets the load of a shard that has ended.
pub(crate) fn forget_group(view: &mut View<'_>, group: GroupId) {
    let key = load_key(group);
    if view.get(&key).is_some() {
        registry::remove(view, key);
    }
}

/// Takes an organisation's approval of a policy; the one that makes a majority puts it in force. What was reported before
/// counts no more: time runs anew.
///
/// # Errors
/// [`Reject::ScaleForm`], and [`Reject::Busy`] when too many proposals wait. The view is then unchanged.
pub fn set(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    wanted: ScalePolicy,
    until_ms: TimeMs,
) -> Result<Executed, Reject> {
    if !wanted.well_formed() {
        return Err(Reject::ScaleForm);
    }
    if wanted == policy(view) {
        return Ok(CommandOutcome::Applied.into());
    }
    let proposal = (PROPOSAL, registry::key(PROPOSAL, &[&registry::encode(&wanted)]));
    match majority::approve(view, at, proposal, wanted, (signer, until_ms))? {
        Verdict::Waits(pending) => return Ok(pending.into()),
        // What was approved beside it was about another policy in force.
        Verdict::Decided(decided) => decided.close(view, |_| true),
    }
    registry::put(view, policy_key(), &wanted);
    for load in loads(view) {
        registry::remove(view, load_key(load.group));
    }
    Ok(CommandOutcome::Applied.into())
}

/// A leader has reported what its shard has and does.
///
/// # Errors
/// [`Reject::ReportForm`] while the policy is off, and for no member of the shard. The view is then unchanged.
pub(crate) fn observe(
    view: &mut View<'_>,
    at: &BlockContext,
    (group, node): (GroupId, NodeId),
    load: Load,
) -> Result<Option<Executed>, Reject> {
    let policy = policy(view);
    let layout = registry::layout(view).ok_or(Reject::Registry)?;
    let committee = registry::committee(view, group).filter(|_| layout.prefix_of(group).is_some());
    if !policy.on || committee.is_none_or(|committee| committee.index_of(node).is_none()) {
        return Err(Reject::ReportForm);
    }
    let before: Option<GroupLoad> = view.load(&load_key(group));
    let before = before.filter(|before| is_fresh(before.taken_ms, at.time_ms));
    let since = |holds: bool, since: Option<TimeMs>| holds.then(|| since.unwrap_or(at.time_ms));
    let split_since_ms = since(policy.too_much(&load), before.and_then(|before| before.split_since_ms));
    let merge_since_ms = before.and_then(|before| before.merge_since_ms);
    let taken_ms = at.time_ms;
    let now = GroupLoad { version: SCALE_VERSION, group, node, load, taken_ms, split_since_ms, merge_since_ms };
    registry::put(view, load_key(group), &now);
    let long =
        |since: Option<TimeMs>| since.is_some_and(|since| at.time_ms.0.saturating_sub(since.0) >= policy.sustained_ms);
    let mail = if long(split_since_ms) {
        act(view, at, &policy, JobKind::Split { group }, load)
    } else if let Some((kind, both)) = halves(view, at, &policy, &layout, group)
        && long(merge_since(view, kind))
    {
        act(view, at, &policy, kind, both)
    } else {
        Mail::new()
    };
    Ok(Some(Executed { mail, ..CommandOutcome::Applied.into() }))
}

fn is_fresh(then: TimeMs, now: TimeMs) -> bool {
    now.0.saturating_sub(then.0) <= LOAD_FRESH_MS
}

/// The shard with its other half, left first, and what both have together, where that is too little. Notes since when.
fn halves(
    view: &mut View<'_>,
    at: &BlockContext,
    policy: &ScalePolicy,
    layout: &Layout,
    group: GroupId,
) -> Option<(JobKind, Load)> {
    let whole = layout.prefix_of(group)?.parent()?;
    let half = |right: bool| layout.shards.iter().find(|shard| shard.prefix == whole.child(right));
    let (left, right) = (half(false)?.group, half(true)?.group);
    let one: GroupLoad = view.load(&load_key(left))?;
    let other: Option<GroupLoad> = view.load(&load_key(right));
    let other = other.filter(|other| is_fresh(other.taken_ms, at.time_ms) && is_fresh(one.taken_ms, at.time_ms));
    let little = other.filter(|other| policy.too_little(&one.load, &other.load));
    let since = little.map(|_| one.merge_since_ms.unwrap_or(at.time_ms));
    if since != one.merge_since_ms {
        registry::put(view, load_key(left), &GroupLoad { merge_since_ms: since, ..one });
    }
    let other = little?.load;
    let both = Load {
        accounts: one.load.accounts.saturating_add(other.accounts),
        bytes: one.load.bytes.saturating_add(other.bytes),
        tps: one.load.tps.saturating_add(other.tps),
    };
    Some((JobKind::Merge { left, right }, both))
}

/// Since when two halves have had too little.
fn merge_since(view: &mut View<'_>, kind: JobKind) -> Option<TimeMs> {
    let left = *kind.groups().first()?;
    view.load::<GroupLoad>(&load_key(left))?.merge_since_ms
}

/// Does what a limit speaks for, if nothing else that the policy says speaks against it; then time runs anew.
fn act(view: &mut View<'_>, at: &BlockContext, policy: &ScalePolicy, kind: JobKind, load: Load) -> Mail {
    let shards = registry::layout(view).map_or(0, |layout| layout.shards.len());
    let capped = match kind {
        JobKind::Split { .. } => shards >= usize::from(policy.shards_max),
        JobKind::Merge { .. } => shards <= usize::from(policy.shards_min),
        JobKind::Move { .. } => true,
    };
    let reshaped = jobs::counters(view).reshaped_ms;
    let cools = reshaped.is_some_and(|then| at.time_ms.0.saturating_sub(then.0) < policy.cooldown_ms);
    let open = |job: &jobs::Job| job.by_scale && job.phase.is_open();
    if capped || cools || jobs::jobs(view).iter().any(open) {
        return Mail::new();
    }
    let (event, mail) = if policy.dry_run {
        let standing = Standing::read(view, at.time_ms);
        let found = standing.ok_or(Reject::Registry).and_then(|standing| plan::plan(&standing, &kind));
        (found.map_or_else(ScaleEvent::Refused, |_| ScaleEvent::WouldBegin), Mail::new())
    } else {
        match table::begin_by_scale(view, at, kind) {
            Ok((job, mail)) => (ScaleEvent::Began(job.id), mail),
            Err(reject) => (ScaleEvent::Refused(reject), Mail::new()),
        }
    };
    for group in kind.groups() {
        if let Some(known) = view.load::<GroupLoad>(&load_key(group)) {
            let anew = GroupLoad { split_since_ms: None, merge_since_ms: None, ..known };
            registry::put(view, load_key(group), &anew);
        }
    }
    write_note(view, at, kind, event, load);
    mail
}

/// Writes a line; the oldest goes when there are too many.
fn write_note(view: &mut View<'_>, at: &BlockContext, kind: JobKind, event: ScaleEvent, load: Load) {
    let known: Vec<(Vec<u8>, ScaleNote)> = registry::family(view, &registry::key(NOTE, &[]));
    let number = known.last().map_or(0, |(_, note)| note.number + 1);
    let note = ScaleNote { version: SCALE_VERSION, number, kind, event, load, time_ms: at.time_ms };
    registry::put(view, registry::key(NOTE, &[&number.to_be_bytes()]), &note);
    let surplus = (known.len() + 1).saturating_sub(SCALE_NOTES_MAX);
    known.into_iter().take(surplus).for_each(|(key, _)| registry::remove(view, key));
}
