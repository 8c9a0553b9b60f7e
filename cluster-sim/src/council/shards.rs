//! How organisations have shards cut and joined: more than half of them sign it in the registry, one after the other; some
//! jobs wait for a word to be cut, and some are taken back, also while the shards stand still.
//!
//! Which shards, is drawn by what the registry says when it is first asked. Where seats do not move, shards are joined only
//! if both have the same nodes already. Where they do, one takes the nodes of the other first, and seats are moved by jobs of their
//! own.

use beacon::{BeaconCommand, Job, JobKind, Phase as Stage, SignedCommand, jobs, registry};
use ledger::committee::Committee;
use ledger::ids::{GroupId, LayoutVersion, NodeId, OrgId, TimeMs};
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::{Council, VALID_MS};
use crate::cluster::{CREATED_MS, ORGS, admin_secret};
use crate::ending::Phase;
use crate::event::Event;
use crate::state::KvState;
use crate::world::World;

/// Between two looks at a job.
const ASKED_MS: u64 = 50;
/// With so many shards none is cut any more.
const SHARDS_MOST: usize = 10;
/// How long after the registry has a layout routers hear of it, at least and at most.
const HEARD_MS: std::ops::Range<u64> = 10..700;
/// One layout in so many is heard of by so much later: long enough for a job to end, and for its parents to be removed.
const KEPT_EVERY: u64 = 4;
const KEPT_MS: u64 = 2_500;
/// More than two clocks differ at the end.
const LEAP_MS: u64 = 1_000;

/// What follows for whoever wants a job.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, which is taken apart at once")]
enum Next {
    /// It has come to its end, good or bad.
    Over,
    /// Nothing can be done at the moment.
    Wait,
    /// Somebody signs something.
    Sign(OrgId, BeaconCommand),
}

fn command(kind: JobKind, layout: LayoutVersion, manual: bool) -> BeaconCommand {
    match kind {
        JobKind::Split { group } => BeaconCommand::SplitShard { group, layout, manual },
        JobKind::Merge { left, right } => BeaconCommand::MergeShards { left, right, layout, manual },
        JobKind::Move { group, from, to } => BeaconCommand::MoveShard { group, from, to, layout },
    }
}

fn nodes(committee: &Committee) -> Vec<NodeId> {
    committee.members.iter().map(|member| member.node).collect()
}

/// A shard to cut, or two of one engine to join; also two of different nodes where seats move.
fn choose(view: &mut View<'_>, rng: &mut ChaCha8Rng, moving: bool) -> Option<JobKind> {
    let layout = registry::layout(view)?;
    let busy: Vec<GroupId> = jobs::under_way(view).iter().flat_map(|job| job.kind.groups()).collect();
    let mut pairs = Vec::new();
    for pair in layout.shards.windows(2) {
        let [left, right] = pair else { continue };
        let halves = left.prefix.length > 0 && left.prefix.parent() == right.prefix.parent();
        let (one, other) = (registry::committee(view, left.group), registry::committee(view, right.group));
        let (Some(one), Some(other)) = (one, other) else { continue };
        let (halves, alike) = (halves && one.engine == other.engine, nodes(&one) == nodes(&other));
        if halves && (alike || moving) && !busy.contains(&left.group) && !busy.contains(&right.group) {
            pairs.push(JobKind::Merge { left: left.group, right: right.group });
        }
    }
    let few = layout.shards.len() < SHARDS_MOST;
    let joins = !pairs.is_empty() && (!few || rng.random_range(0..4) > 0);
    if joins {
        return pairs.choose(rng).copied();
    }
    let mut cut: Vec<GroupId> = layout.shards.iter().map(|shard| shard.group).collect();
    cut.retain(|group| !busy.contains(group));
    cut.choose(rng).filter(|_| few).map(|group| JobKind::Split { group: *group })
}

/// A seat to move: from a member of a shard that nothing else is about, to a node that has none there.
fn choose_seat(view: &mut View<'_>, rng: &mut ChaCha8Rng) -> Option<JobKind> {
    let layout = registry::layout(view)?;
    let all: Vec<NodeId> =
        registry::nodes(view).into_iter().filter(|node| node.capacity > 0).map(|node| node.id).collect();
    let busy: Vec<GroupId> = jobs::under_way(view).iter().flat_map(|job| job.kind.groups()).collect();
    let mut moves = Vec::new();
    for shard in layout.shards.iter().filter(|shard| !busy.contains(&shard.group)) {
        let Some(committee) = registry::committee(view, shard.group) else { continue };
        let seated = nodes(&committee);
        let free: Vec<NodeId> = all.iter().copied().filter(|node| !seated.contains(node)).collect();
        if let (Some(from), Some(to)) = (seated.choose(rng), free.choose(rng)) {
            moves.push(JobKind::Move { group: shard.group, from: *from, to: *to });
        }
    }
    moves.choose(rng).copied()
}

/// Whether a seat is where it was to be, or is not where it was.
fn has_moved(view: &mut View<'_>, kind: JobKind) -> bool {
    let JobKind::Move { group, from, to } = kind else { return false };
    let current = registry::committee(view, group);
    current.is_none_or(|current| current.index_of(from).is_none() || current.index_of(to).is_some())
}

/// What somebody does next about a job of this kind; `asked` says whether anything has been done before.
fn next(view: &mut View<'_>, rng: &mut ChaCha8Rng, kind: JobKind, (asked, moving): (bool, bool)) -> Next {
    let Some(layout) = registry::layout(view) else { return Next::Wait };
    if kind.groups().iter().any(|group| layout.prefix_of(*group).is_none()) || has_moved(view, kind) {
        return Next::Over;
    }
    let known: Option<Job> = jobs::jobs(view).into_iter().rfind(|job| job.kind == kind);
    let signer = |rng: &mut ChaCha8Rng, but: &[OrgId]| {
        let left: Vec<OrgId> = (0..ORGS).map(OrgId).filter(|org| !but.contains(org)).collect();
        left.choose(rng).copied()
    };
    let approver = |rng: &mut ChaCha8Rng, job: &Job| job.approvals.choose(rng).copied();
    let fresh = |rng: &mut ChaCha8Rng| {
        let manual = rng.random_range(0..4) == 0;
        signer(rng, &[]).map_or(Next::Wait, |org| Next::Sign(org, command(kind, layout.version, manual)))
    };
    let Some(job) = known else { return fresh(rng) };
    let sign = |org: Option<OrgId>, command| org.map_or(Next::Wait, |org| Next::Sign(org, command));
    match job.phase {
        Stage::Done | Stage::Cancelled if asked => Next::Over,
        Stage::Done | Stage::Cancelled => fresh(rng),
        Stage::Proposed if job.on != layout.version => fresh(rng),
        Stage::Proposed => sign(signer(rng, &job.approvals), command(kind, job.on, job.manual)),
        Stage::Aligning if moving && rng.random_range(0..100) > 0 => Next::Wait,
        Stage::Aligning => sign(approver(rng, &job), BeaconCommand::CancelJob { job: job.id }),
        Stage::Preparing => match rng.random_range(0..160) {
            0 => sign(approver(rng, &job), BeaconCommand::CancelJob { job: job.id }),
            1..=50 if job.manual => sign(approver(rng, &job), BeaconCommand::CutShard { job: job.id }),
            _ => Next::Wait,
        },
        Stage::Sealing if rng.random_range(0..16) == 0 => {
            sign(approver(rng, &job), BeaconCommand::CancelJob { job: job.id })
        }
        Stage::Sealing => Next::Wait,
        Stage::Committed => Next::Over,
    }
}

impl Council {
    /// A command under the admin key that the registry has of an organisation.
    pub(super) fn sign_for(
        &mut self,
        view: &mut View<'_>,
        org: OrgId,
        command: &BeaconCommand,
        now: TimeMs,
    ) -> Option<Vec<u8>> {
        let secret = admin_secret(&registry::org(view, org)?.admin_key)?;
        let until_ms = TimeMs(now.0 + VALID_MS);
        Some(SignedCommand::sign(&self.cluster, command, org, self.rng.random(), until_ms, secret).encode())
    }
}

impl World {
    /// Takes a job a step further, or chooses one.
    pub(crate) fn reshape(&mut self, kind: Option<JobKind>) {
        if self.phase != Phase::Faults {
            return;
        }
        let (chosen, bytes, leader) = {
            let now = TimeMs(CREATED_MS + self.clock_ms());
            let Some(leader) = self.leader_of(GroupId::BEACON) else {
                return self.push(ASKED_MS, Event::Reshape { kind });
            };
            let replica = self.nodes.get(&leader).and_then(|node| node.replicas.get(&GroupId::BEACON));
            let Some(replica) = replica else { return self.push(ASKED_MS, Event::Reshape { kind }) };
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            let mut view = View::new(&reader);
            let moving = self.shape.moving;
            let Some(chosen) = kind.or_else(|| choose(&mut view, &mut self.elastic, moving)) else {
                return self.push(ASKED_MS, Event::Reshape { kind });
            };
            let bytes = match next(&mut view, &mut self.elastic, chosen, (kind.is_some(), moving)) {
                Next::Over => return,
                Next::Wait => None,
                Next::Sign(org, command) => self.council.sign_for(&mut view, org, &command, now),
            };
            (chosen, bytes, leader)
        };
        if let Some(bytes) = bytes {
            self.submit(leader, GroupId::BEACON, bytes);
        }
        self.push(ASKED_MS, Event::Reshape { kind: Some(chosen) });
    }

    /// Chooses a seat to move, and goes on with it as with any other job.
    pub(crate) fn move_seat(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let chosen = self.leader_of(GroupId::BEACON).and_then(|leader| {
            let replica = self.nodes.get(&leader)?.replicas.get(&GroupId::BEACON)?;
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            choose_seat(&mut View::new(&reader), &mut self.elastic)
        });
        let next = chosen.map_or(Event::MoveSeat, |kind| Event::Reshape { kind: Some(kind) });
        self.push(ASKED_MS, next);
    }

    /// Faults are over: what has not come to its commit is taken back, since whoever is gone may be needed for it. At the very
    /// end time passes for jobs that nobody can end any more but by it.
    pub(crate) fn call_off(&mut self) {
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let Some(leader) = self.leader_of(GroupId::BEACON) else { return };
        let (signed, until) = {
            let replica = self.nodes.get(&leader).and_then(|node| node.replicas.get(&GroupId::BEACON));
            let Some(replica) = replica else { return };
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            let mut view = View::new(&reader);
            let open = jobs::under_way(&mut view);
            let waits = open.iter().filter(|job| self.waits_for_gone(&mut view, job));
            let until = waits.filter_map(|job| job.until_ms).max();
            let stuck = open.iter().filter(|job| matches!(job.phase, Stage::Aligning | Stage::Preparing));
            let asked: Vec<(OrgId, BeaconCommand)> = stuck
                .filter_map(|job| Some((*job.approvals.first()?, BeaconCommand::CancelJob { job: job.id })))
                .collect();
            let council = &mut self.council;
            let signed = asked.iter().filter_map(|(org, command)| council.sign_for(&mut view, *org, command, now));
            (signed.collect::<Vec<_>>(), until)
        };
        for bytes in signed {
            self.submit(leader, GroupId::BEACON, bytes);
        }
        if let Some(ahead) = until.filter(|_| self.phase == Phase::Late).and_then(|until| until.0.checked_sub(now.0)) {
            self.leap(ahead + LEAP_MS);
        }
    }

    /// The registry has a layout: routers hear of it some time later, and of some layouts much later. Which ones goes by
    /// numbers, and nothing is drawn for it.
    pub(crate) fn announce(&mut self, version: u64) {
        let kept_ms = if (self.seed + version).is_multiple_of(KEPT_EVERY) { KEPT_MS } else { 0 };
        let delay_ms = self.elastic.random_range(HEARD_MS);
        self.push(delay_ms + kept_ms, Event::Adopt { version });
    }

    /// Routers hear of a layout.
    pub(crate) fn adopt(&mut self, version: u64) {
        let mut acts = Vec::new();
        if let Some((layout, committees)) = self.layouts.get(&version) {
            self.clients.adopt(self.now_ms, layout, committees, &mut acts);
        }
        self.act(acts);
    }
}
