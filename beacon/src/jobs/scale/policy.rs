//! The policy of scaling: its limits, who may set it, and what it says of one load alone.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use super::{Load, SCALE_VERSION, balance, heard, load_key, loads};
use crate::limits::{
    LOAD_EVERY_MS_MAX, LOAD_REPORTS_FRESH, SCALE_COOLDOWN_MS_MAX, SCALE_MARGIN_PERCENT_MAX, SCALE_MARGIN_PERCENT_MIN,
    SCALE_SUSTAINED_MS_MAX, SCALE_SUSTAINED_MS_MIN, SHARDS_MAX,
};
use crate::machine::{CommandOutcome, Executed};
use crate::majority::{self, Verdict};
use crate::policies::Matter;
use crate::registry;

/// What the beacon does by itself about load. A limit of zero is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ScalePolicy {
    /// Format version, [`SCALE_VERSION`].
    pub version: u8,
    /// Whether it does anything at all. While it does not, no loads are reported or taken.
    pub on: bool,
    /// Whether it only writes down what it would do.
    pub dry_run: bool,
    /// A shard with more accounts is cut.
    pub split_accounts: u64,
    /// A shard with more transactions a second is cut.
    pub split_tps: u32,
    /// Two halves that have fewer accounts together are joined, where they are below the other limit, too. With no limit
    /// at all nothing is joined.
    pub merge_accounts: u64,
    /// Two halves that have fewer transactions a second together are joined, where they are below the other limit, too.
    pub merge_tps: u32,
    /// How long what a limit speaks for has to hold without a pause, milliseconds.
    pub sustained_ms: u64,
    /// How long after a change of the layout, and after a job of this policy, nothing is begun, milliseconds.
    pub cooldown_ms: u64,
    /// Shards that are left, at least.
    pub shards_min: u16,
    /// Shards that there are, at most.
    pub shards_max: u16,
    /// A node that executes more transactions a second, over all its seats in shards, gives a seat away.
    pub move_tps: u32,
    /// A node that leads shards with more transactions a second together gives a lead away.
    pub lead_tps: u32,
    /// By how much the greater load of the two nodes has to fall for a seat or a lead to move, percent.
    pub margin_percent: u8,
    /// How long after a node was asked to give a lead away no other one is, milliseconds.
    pub lead_cooldown_ms: u64,
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
        move_tps: 0,
        lead_tps: 0,
        margin_percent: 25,
        lead_cooldown_ms: 10 * 60 * 1000,
    };

    /// Whether it is within limits, and what it joins it would not cut again: half as much is the most that is joined.
    fn well_formed(&self) -> bool {
        let apart = |merge: u64, split: u64| split == 0 || merge.saturating_mul(2) <= split;
        self.version == SCALE_VERSION
            && (SCALE_SUSTAINED_MS_MIN..=SCALE_SUSTAINED_MS_MAX).contains(&self.sustained_ms)
            && self.cooldown_ms <= SCALE_COOLDOWN_MS_MAX
            && self.lead_cooldown_ms <= SCALE_COOLDOWN_MS_MAX
            && (SCALE_MARGIN_PERCENT_MIN..=SCALE_MARGIN_PERCENT_MAX).contains(&self.margin_percent)
            && self.shards_min >= 1
            && self.shards_min <= self.shards_max
            && usize::from(self.shards_max) <= SHARDS_MAX
            && apart(self.merge_accounts, self.split_accounts)
            && apart(self.merge_tps.into(), self.split_tps.into())
    }

    /// How often the members of a shard report its load, milliseconds: twice in the time that a limit has to be passed for.
    #[must_use]
    pub fn report_every_ms(&self) -> u64 {
        (self.sustained_ms / 2).min(LOAD_EVERY_MS_MAX)
    }

    /// Whether a load counts that was reported so long ago: a report may be lost.
    pub(super) fn is_fresh(&self, then: TimeMs, now: TimeMs) -> bool {
        now.0.saturating_sub(then.0) <= self.report_every_ms().saturating_mul(LOAD_REPORTS_FRESH)
    }

    /// Whether something has held for long enough.
    pub(super) fn is_long(&self, since: Option<TimeMs>, now: TimeMs) -> bool {
        since.is_some_and(|since| now.0.saturating_sub(since.0) >= self.sustained_ms)
    }

    pub(super) fn too_much(&self, load: &Load) -> bool {
        let over = |limit: u64, found: u64| limit > 0 && found > limit;
        over(self.split_accounts, load.accounts) || over(self.split_tps.into(), load.tps.into())
    }

    /// Whether two halves with so much together are joined: there is a limit, they are below each that there is, and what
    /// comes of them is at most half of what is cut, also where only one of the two numbers has a limit for joining.
    pub(super) fn too_little(&self, both: &Load) -> bool {
        let below = |merge: u64, split: u64, found: u64| {
            (merge == 0 || found < merge) && (split == 0 || found.saturating_mul(2) <= split)
        };
        (self.merge_accounts > 0 || self.merge_tps > 0)
            && below(self.merge_accounts, self.split_accounts, both.accounts)
            && below(self.merge_tps.into(), self.split_tps.into(), both.tps.into())
    }
}

const PROPOSAL: &[u8] = b"scale-proposal/";

/// Key of the [`ScalePolicy`] in force.
#[must_use]
pub fn policy_key() -> Vec<u8> {
    registry::key(b"scale", &[])
}

/// The policy in force.
pub fn policy(view: &mut View<'_>) -> ScalePolicy {
    view.load(&policy_key()).unwrap_or(ScalePolicy::DEFAULT)
}

/// How often members are to report the load of their shards, milliseconds; `None` while the policy is off.
pub(crate) fn load_every_ms(view: &mut View<'_>) -> Option<u64> {
    let policy = policy(view);
    policy.on.then(|| policy.report_every_ms())
}

/// Takes an organisation's approval of a policy; the one with which the policy holds puts it in force. What was reported before
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
    let proposal = (Matter::Operation, PROPOSAL, registry::key(PROPOSAL, &[&registry::encode(&wanted)]));
    match majority::approve(view, at, proposal, wanted, (signer, until_ms))? {
        Verdict::Waits(pending) => return Ok(pending.into()),
        // What was approved beside it was about another policy in force.
        Verdict::Decided(decided) => decided.close(view, |_| true),
    }
    registry::put(view, policy_key(), &wanted);
    for load in loads(view) {
        registry::remove(view, load_key(load.group));
    }
    heard::forget_all(view);
    balance::begin_anew(view);
    // Nodes are told whether to report, and how often.
    registry::bump_revision(view);
    Ok(CommandOutcome::Applied.into())
}
