//! Balance: which seat of a shard, or which lead, moves from the node with most load to one with less.
//!
//! Owns what is chosen ([`best_move`], [`best_lead`]: pure functions of the standing and the loads), since when there is
//! something to choose, and the one wish that a node gives a lead away ([`LeadHint`]), which all are shown. A seat moves by
//! a job as any other. A lead is not state: the node that has it hands it over by its engine, and the next report of
//! whoever leads then ends the wish.
//!
//! The load of a node are the transactions a second of all shards that it has a seat in, for each replica executes them
//! all; of leads, those of the shards that it leads. Both count by the capacity of the node. Of nodes with seats in the
//! beacon or in channels no more is asked: what these cost is not reported.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::genesis::NodeInfo;
use ledger::ids::{GroupId, GroupKind, NodeId, TimeMs};
use ledger::machine::BlockContext;
use ledger::view::View;

use super::{GroupLoad, Load, SCALE_VERSION, ScaleAction, ScaleEvent, ScalePolicy, act, loads, write_note};
use crate::jobs::plan::{self, Standing};
use crate::jobs::table::Mail;
use crate::jobs::{self, JobKind};
use crate::limits::{CAPACITY_MAX, LEAD_HINT_MS};
use crate::registry;

/// A node is to give the lead of a shard to another one. One at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LeadHint {
    /// Format version, [`SCALE_VERSION`].
    pub version: u8,
    /// Counts them.
    pub number: u64,
    /// The shard.
    pub group: GroupId,
    /// Who leads it.
    pub from: NodeId,
    /// Who is to.
    pub to: NodeId,
    /// The last block time at which it is wanted.
    pub until_ms: TimeMs,
}

/// What is remembered from one look at all loads to the next.
#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
struct Balance {
    version: u8,
    /// When it was looked last.
    looked_ms: TimeMs,
    /// Since when each look has found a seat that is worth moving.
    move_since_ms: Option<TimeMs>,
    /// Since when each look has found a lead that is worth moving.
    lead_since_ms: Option<TimeMs>,
    /// When a node was asked last to give a lead away, or would have been.
    lead_ms: Option<TimeMs>,
    /// The number of the next wish.
    next: u64,
}

fn balance_key() -> Vec<u8> {
    registry::key(b"balance", &[])
}

fn hint_key() -> Vec<u8> {
    registry::key(b"lead", &[])
}

/// The lead that is to move.
pub fn hint(view: &mut View<'_>) -> Option<LeadHint> {
    view.load(&hint_key())
}

/// Forgets since when there is something to move, and the lead that was to. The caller tells followers.
pub(super) fn begin_anew(view: &mut View<'_>) {
    let known: Option<Balance> = view.load(&balance_key());
    if let Some(known) = known {
        // Numbers go on. What a dry run would have asked for holds nothing back.
        let anew = Balance { move_since_ms: None, lead_since_ms: None, lead_ms: None, ..known };
        registry::put(view, balance_key(), &anew);
    }
    drop_hint(view, |_| true);
}

/// Forgets the lead of a shard that has ended. The caller tells followers.
pub(super) fn forget_group(view: &mut View<'_>, group: GroupId) {
    drop_hint(view, |hint| hint.group == group);
}

/// Somebody leads a shard. If it was to be somebody else than before, that is done.
pub(super) fn led_by(view: &mut View<'_>, group: GroupId, node: NodeId) {
    if drop_hint(view, |hint| hint.group == group && hint.from != node) {
        registry::bump_revision(view);
    }
}

fn drop_hint(view: &mut View<'_>, over: impl FnOnce(&LeadHint) -> bool) -> bool {
    let over = hint(view).is_some_and(|hint| over(&hint));
    if over {
        registry::remove(view, hint_key());
    }
    over
}

/// Looks at all loads, once in the time between two reports, and does what has been worth it for long enough.
pub(super) fn look(view: &mut View<'_>, at: &BlockContext, policy: &ScalePolicy) -> Mail {
    let known: Option<Balance> = view.load(&balance_key());
    let soon = |known: &Balance| at.time_ms.0.saturating_sub(known.looked_ms.0) < policy.report_every_ms();
    if (policy.move_tps == 0 && policy.lead_tps == 0) || known.as_ref().is_some_and(soon) {
        return Mail::new();
    }
    if drop_hint(view, |hint| hint.until_ms < at.time_ms) {
        registry::bump_revision(view);
    }
    let fresh = known.filter(|known| policy.is_fresh(known.looked_ms, at.time_ms));
    let Some((found, standing)) = whole_loads(view, at, policy).zip(Standing::read(view, at.time_ms)) else {
        // Of a shard that nobody reports nobody knows what moving would come to.
        let known = known.unwrap_or(Balance::first(at.time_ms));
        let blind = Balance { looked_ms: at.time_ms, move_since_ms: None, lead_since_ms: None, ..known };
        registry::put(view, balance_key(), &blind);
        return Mail::new();
    };
    let seat = best_move(&standing, &found, policy);
    let lead = best_lead(&standing, &found, policy);
    let since = |holds: bool, since: Option<TimeMs>| holds.then(|| since.unwrap_or(at.time_ms));
    let mut now = Balance {
        looked_ms: at.time_ms,
        move_since_ms: since(seat.is_some(), fresh.and_then(|known| known.move_since_ms)),
        lead_since_ms: since(lead.is_some(), fresh.and_then(|known| known.lead_since_ms)),
        ..known.unwrap_or(Balance::first(at.time_ms))
    };
    let of = |group: GroupId| found.iter().find(|load| load.group == group).map_or(Load::NONE, |load| load.load);
    let mut mail = None;
    if let Some(kind) = seat
        && policy.is_long(now.move_since_ms, at.time_ms)
    {
        let load = kind.groups().first().map_or(Load::NONE, |group| of(*group));
        mail = act(view, at, policy, kind, load);
        now.move_since_ms = now.move_since_ms.filter(|_| mail.is_none());
    }
    if let Some((group, from, to)) = lead
        && mail.is_none()
        && policy.is_long(now.lead_since_ms, at.time_ms)
        && !rests(view, at, policy, &now)
    {
        (now.lead_since_ms, now.lead_ms) = (None, Some(at.time_ms));
        let event = if policy.dry_run { ScaleEvent::WouldBegin } else { ScaleEvent::Asked };
        write_note(view, at, ScaleAction::Lead { group, from, to }, event, of(group));
        if !policy.dry_run {
            let until_ms = TimeMs(at.time_ms.0.saturating_add(LEAD_HINT_MS));
            let hint = LeadHint { version: SCALE_VERSION, number: now.next, group, from, to, until_ms };
            now.next += 1;
            registry::put(view, hint_key(), &hint);
            registry::bump_revision(view);
        }
    }
    registry::put(view, balance_key(), &now);
    mail.unwrap_or_default()
}

impl Balance {
    const fn first(now: TimeMs) -> Self {
        let version = SCALE_VERSION;
        Self { version, looked_ms: now, move_since_ms: None, lead_since_ms: None, lead_ms: None, next: 1 }
    }
}

/// Whether no lead is to move now: one is on its way, was just now, or a job is under way.
fn rests(view: &mut View<'_>, at: &BlockContext, policy: &ScalePolicy, known: &Balance) -> bool {
    let cools = |then: TimeMs| at.time_ms.0.saturating_sub(then.0) < policy.lead_cooldown_ms;
    known.lead_ms.is_some_and(cools) || hint(view).is_some() || !jobs::under_way(view).is_empty()
}

/// The loads of all living shards, if each of them was reported lately.
fn whole_loads(view: &mut View<'_>, at: &BlockContext, policy: &ScalePolicy) -> Option<Vec<GroupLoad>> {
    let layout = registry::layout(view)?;
    let mut found = loads(view);
    found.retain(|load| policy.is_fresh(load.taken_ms, at.time_ms) && layout.prefix_of(load.group).is_some());
    (found.len() == layout.shards.len()).then_some(found)
}

/// Transactions a second by node.
type Rates = BTreeMap<NodeId, u64>;

fn rate(rates: &Rates, node: NodeId) -> u64 {
    rates.get(&node).copied().unwrap_or(0)
}

/// A rate as a node with the greatest capacity would feel it.
fn felt(node: &NodeInfo, rate: u64) -> u64 {
    rate.saturating_mul(CAPACITY_MAX.into()) / u64::from(node.capacity.max(1))
}

/// Nodes that may take a seat or a lead, by id.
fn usable(standing: &Standing) -> Vec<&NodeInfo> {
    standing.nodes.iter().filter(|node| standing.sound(node.id) && standing.heard(node.id)).collect()
}

/// The node with most load; of several the one with the lowest number.
fn fullest<'a>(nodes: &[&'a NodeInfo], rates: &Rates) -> Option<&'a NodeInfo> {
    // Of several that are greatest, `max_by_key` names the last one.
    nodes.iter().rev().copied().max_by_key(|node| felt(node, rate(rates, node.id)))
}

fn worth(policy: &ScalePolicy, before: u64, after: u64) -> bool {
    let left = u64::from(100_u8.saturating_sub(policy.margin_percent));
    before > 0 && after.saturating_mul(100) <= before.saturating_mul(left)
}

/// Whether a node may have a seat in the place of another one, and neither its organisation nor its zone has more seats
/// than the committee outlives the loss of, as where seats are dealt. Where they have already, they get no more.
fn spreads(nodes: &BTreeMap<NodeId, &NodeInfo>, committee: &Committee, from: &NodeInfo, to: &NodeInfo) -> bool {
    let most = committee.engine.tolerated(committee.members.len()).max(1);
    let others = || committee.members.iter().filter(|member| member.node != from.id);
    let of_org = others().filter(|member| member.org == to.org).count();
    let zone = |id: &NodeId| nodes.get(id).is_some_and(|node| node.zone == to.zone);
    let of_zone = others().filter(|member| zone(&member.node)).count();
    (to.org == from.org || of_org < most) && (to.zone == from.zone || of_zone < most)
}

/// The seat that the node with most load gives to another one, if that is worth it: what the fuller of the two has then is
/// least, and by the margin less than before. Only where the same move by command would be taken, and no organisation or
/// zone gets more than its share.
#[must_use]
pub fn best_move(standing: &Standing, loads: &[GroupLoad], policy: &ScalePolicy) -> Option<JobKind> {
    let tps: BTreeMap<GroupId, u64> = loads.iter().map(|load| (load.group, load.load.tps.into())).collect();
    let shards = || standing.committees.iter().filter(|current| current.group.kind() == Some(GroupKind::Shard));
    let mut rates = Rates::new();
    for committee in shards() {
        for member in &committee.members {
            *rates.entry(member.node).or_default() += tps.get(&committee.group).copied().unwrap_or(0);
        }
    }
    let nodes = usable(standing);
    let from = fullest(&nodes, &rates)?;
    let most = rate(&rates, from.id);
    if policy.move_tps == 0 || most <= policy.move_tps.into() {
        return None;
    }
    let known: BTreeMap<NodeId, &NodeInfo> = standing.nodes.iter().map(|node| (node.id, node)).collect();
    let mut options = Vec::new();
    for committee in shards().filter(|current| current.index_of(from.id).is_some() && !standing.busy(current.group)) {
        let load = tps.get(&committee.group).copied().unwrap_or(0);
        let left = felt(from, most.saturating_sub(load));
        let takes = |to: &&&NodeInfo| committee.index_of(to.id).is_none() && spreads(&known, committee, from, to);
        for to in nodes.iter().filter(takes) {
            let there = felt(to, rate(&rates, to.id).saturating_add(load));
            if worth(policy, felt(from, most), there.max(left)) {
                options.push((there.max(left), there, committee.group, to.id));
            }
        }
    }
    options.sort_unstable();
    let mut kinds = options.into_iter().map(|(_, _, group, to)| JobKind::Move { group, from: from.id, to });
    kinds.find(|kind| plan::plan(standing, kind).is_ok())
}

/// The lead that the node which leads most gives to another member, if that is worth it: the shard, who leads it and who is
/// to. As [`best_move`]. Who leads is who has reported the load.
#[must_use]
pub fn best_lead(standing: &Standing, loads: &[GroupLoad], policy: &ScalePolicy) -> Option<(GroupId, NodeId, NodeId)> {
    let mut rates = Rates::new();
    for load in loads {
        *rates.entry(load.node).or_default() += u64::from(load.load.tps);
    }
    let nodes = usable(standing);
    let from = fullest(&nodes, &rates)?;
    let most = rate(&rates, from.id);
    if policy.lead_tps == 0 || most <= policy.lead_tps.into() {
        return None;
    }
    let mut best: Option<(u64, u64, GroupId, NodeId)> = None;
    for led in loads.iter().filter(|load| load.node == from.id && !standing.busy(load.group)) {
        let Some(committee) = standing.committees.iter().find(|current| current.group == led.group) else { continue };
        let load = u64::from(led.load.tps);
        let left = felt(from, most.saturating_sub(load));
        for to in nodes.iter().filter(|to| to.id != from.id && committee.index_of(to.id).is_some()) {
            let there = felt(to, rate(&rates, to.id).saturating_add(load));
            let option = (there.max(left), there, led.group, to.id);
            if worth(policy, felt(from, most), there.max(left)) && best.is_none_or(|best| option < best) {
                best = Some(option);
            }
        }
    }
    best.map(|(_, _, group, to)| (group, from.id, to))
}
