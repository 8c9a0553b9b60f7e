//! What a job would come to, and why it cannot be, if so: one pure function for whoever asks before a command is given and
//! for the beacon, which refuses what this refuses.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::{Committee, Engine, Member};
use ledger::genesis::NodeInfo;
use ledger::ids::{Epoch, GroupId, Incarnation, LayoutVersion, NodeId, TimeMs};
use ledger::layout::{BitPrefix, Layout};
use ledger::lineage::ChildShard;
use ledger::reject::Reject;
use ledger::view::View;

use crate::audit;
use crate::engine;
use crate::jobs::{self, Job, JobKind, Phase, needed};
use crate::limits::{JOBS_OPEN_MAX, LINEAGE_MAX, PREFIX_MAX, SHARDS_MAX, VIEW_BYTES_MAX};
use crate::nodes;
use crate::registry;
use crate::risk;
use crate::seats;
use crate::view::ClusterView;
use crate::watch;

/// What a job is judged by.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Standing {
    /// The layout in force.
    pub layout: Layout,
    /// All nodes, by id.
    pub nodes: Vec<NodeInfo>,
    /// The committees in force.
    pub committees: Vec<Committee>,
    /// Those that are being prepared.
    pub coming: Vec<Committee>,
    /// Engines that groups are on their way to.
    pub switching: Vec<(GroupId, Engine)>,
    /// Nodes that may have no seat, whatever their capacity, ascending.
    pub barred: Vec<NodeId>,
    /// Nodes that enough others do not hear of, ascending.
    pub silent: Vec<NodeId>,
    /// Groups in quarantine, ascending.
    pub quarantined: Vec<GroupId>,
    /// Jobs that are open.
    pub jobs: Vec<Job>,
    /// The ordinal of the next shard.
    pub next_shard: u32,
    /// Bytes of all that followers of the registry are shown.
    pub view_bytes: u64,
}

impl Standing {
    /// As the beacon's state has it at a time. `None` where there is no registry.
    pub fn read(view: &mut View<'_>, now: TimeMs) -> Option<Self> {
        let committees = registry::committees(view);
        let mut switching = Vec::new();
        for current in &committees {
            let to = engine::wanted(view, current);
            switching.extend((to != current.engine).then_some((current.group, to)));
        }
        Some(Self {
            layout: registry::layout(view)?,
            nodes: registry::nodes(view),
            coming: registry::coming(view),
            barred: nodes::barred(view),
            silent: watch::silent_now(view, now),
            quarantined: audit::quarantined(view),
            jobs: jobs::jobs(view).into_iter().filter(|job| job.phase.is_open()).collect(),
            next_shard: jobs::counters(view).next_shard,
            view_bytes: ClusterView::collect(view)?.encode().len() as u64,
            committees,
            switching,
        })
    }

    /// As a follower of the registry sees it, who is not shown who is accused or silent, nor what is wanted and not
    /// prepared yet, nor what waits for approvals: the beacon judges again.
    #[must_use]
    pub fn of(cluster: &ClusterView) -> Self {
        let engine = |group| cluster.committee(group).map(|current| current.engine);
        let switching = cluster.coming.iter().filter(|coming| engine(coming.group) != Some(coming.engine));
        let given = cluster.jobs.iter().flat_map(|job| &job.children).map(|child| child.group.ordinal() + 1);
        Self {
            layout: cluster.layout.clone(),
            nodes: cluster.nodes.clone(),
            committees: cluster.committees.clone(),
            coming: cluster.coming.clone(),
            switching: switching.map(|coming| (coming.group, coming.engine)).collect(),
            barred: Vec::new(),
            silent: Vec::new(),
            quarantined: cluster.quarantined.clone(),
            jobs: cluster.jobs.clone(),
            next_shard: given.fold(cluster.layout.next_shard().ordinal(), u32::max),
            view_bytes: cluster.encode().len() as u64,
        }
    }

    fn committee(&self, group: GroupId) -> Option<&Committee> {
        self.committees.iter().find(|committee| committee.group == group)
    }

    /// Whether a node may take a seat.
    pub(crate) fn sound(&self, id: NodeId) -> bool {
        let capacity = self.nodes.iter().any(|node| node.id == id && node.capacity > 0);
        capacity && self.barred.binary_search(&id).is_err()
    }

    /// Whether no majority misses a node.
    pub(crate) fn heard(&self, id: NodeId) -> bool {
        self.silent.binary_search(&id).is_err()
    }

    /// Whether something is under way in a shard that a job would get in the way of.
    pub(crate) fn busy(&self, group: GroupId) -> bool {
        self.under_way(group).is_some()
    }

    /// What is under way there. A key that a node does not come with waits for its organisation, and not for time.
    fn under_way(&self, group: GroupId) -> Option<Reject> {
        let switches = self.switching.iter().any(|(switching, _)| *switching == group);
        if switches || self.jobs.iter().any(|job| job.holds(group)) {
            return Some(Reject::ShardBusy);
        }
        let coming = self.coming.iter().find(|coming| coming.group == group)?;
        let keys = self.committee(group).is_some_and(|current| seats::changes_keys_alone(current, coming));
        Some(if keys { Reject::NodeKeyAwaited } else { Reject::ShardBusy })
    }

    /// Whether as many members of a committee are heard of as a job needs.
    fn at_risk(&self, committee: &Committee) -> bool {
        committee.members.iter().filter(|member| self.heard(member.node)).count() < needed(committee)
    }

    /// Shards that there are when every split that is under way has ended.
    fn shards_then(&self) -> usize {
        let splits = |job: &&Job| job.phase.under_way() && job.phase != Phase::Committed;
        let splits = self.jobs.iter().filter(splits).filter(|job| matches!(job.kind, JobKind::Split { .. })).count();
        self.layout.shards.len() + splits
    }

    /// Shards that will have ended when every job that is under way has.
    fn ended_then(&self) -> usize {
        let coming = self.jobs.iter().filter(|job| job.phase.under_way() && job.phase != Phase::Committed);
        self.layout.lineage.len() + coming.map(|job| job.kind.parents().len()).sum::<usize>()
    }

    /// Whether neither the layout nor what followers are shown would become too large by so many shards that end.
    fn has_room(&self, ending: usize) -> bool {
        self.ended_then() + ending <= LINEAGE_MAX && self.view_bytes <= VIEW_BYTES_MAX as u64
    }
}

/// What a job would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it is to do.
    pub kind: JobKind,
    /// The layout that it is planned on.
    pub on: LayoutVersion,
    /// The shards that end, the left one first; none where a seat moves.
    pub parents: Vec<(GroupId, BitPrefix)>,
    /// The shards that begin, the left one first, with their first committees. The ordinals are those that the next job
    /// gets: another job may come first.
    pub children: Vec<ChildShard>,
    /// Whether one half takes the nodes of the other one first: the smaller, or the right of two alike.
    pub aligns: bool,
    /// The committee of the first shard, as it would be in the end where a seat moves, and of the one whose nodes both take
    /// where two are joined: who may fail follows from it.
    pub committee: Committee,
}

/// Says what a job would come to.
///
/// # Errors
/// [`Reject`] names the first thing that speaks against it: an unknown or retired shard ([`Reject::ShardUnknown`]), what is
/// under way there ([`Reject::ShardBusy`], [`Reject::NodeKeyAwaited`]), a quarantine of what is to end
/// ([`Reject::GroupQuarantined`]), no halves of one prefix ([`Reject::NotSiblings`]), engines or seats that
/// differ for good ([`Reject::MergeApart`]), too deep or too many ([`Reject::SplitDepth`]), too many jobs
/// ([`Reject::JobsFull`]), too few that are heard of ([`Reject::ShardRisk`]), and for a move [`Reject::MoveSource`] and
/// [`Reject::MoveTarget`].
pub fn plan(standing: &Standing, kind: &JobKind) -> Result<Plan, Reject> {
    judge(standing, kind, standing.layout.version)
}

/// As [`plan`], for a command that names the layout which its sender has seen.
///
/// # Errors
/// As [`plan`], and [`Reject::LayoutOld`] for another layout than the one in force.
pub(crate) fn judge(standing: &Standing, kind: &JobKind, on: LayoutVersion) -> Result<Plan, Reject> {
    let layout = &standing.layout;
    let groups = kind.groups();
    let shard = |group: &GroupId| Some((*group, layout.prefix_of(*group)?, standing.committee(*group)?));
    let shards: Vec<(GroupId, BitPrefix, &Committee)> = groups.iter().filter_map(shard).collect();
    let [(_, prefix, first), ..] = shards[..] else { return Err(Reject::ShardUnknown) };
    if shards.len() != groups.len() {
        return Err(Reject::ShardUnknown);
    }
    if on != layout.version {
        return Err(Reject::LayoutOld);
    }
    if let Some(reject) = groups.iter().find_map(|group| standing.under_way(*group)) {
        return Err(reject);
    }
    // What a shard owes would be told of its children no more.
    let held = |group: &GroupId| standing.quarantined.binary_search(group).is_ok();
    if !matches!(kind, JobKind::Move { .. }) && groups.iter().any(held) {
        return Err(Reject::GroupQuarantined);
    }
    let mut plan =
        Plan { kind: *kind, on, parents: Vec::new(), children: Vec::new(), aligns: false, committee: first.clone() };
    match kind {
        JobKind::Split { .. } => {
            if u32::from(prefix.length) >= PREFIX_MAX || standing.shards_then() >= SHARDS_MAX || !standing.has_room(1) {
                return Err(Reject::SplitDepth);
            }
            plan.children = children(standing.next_shard, &[prefix.child(false), prefix.child(true)], first);
        }
        JobKind::Merge { .. } => {
            let [_, (_, other, second)] = shards[..] else { return Err(Reject::NotSiblings) };
            let whole = prefix.parent().ok_or(Reject::NotSiblings)?;
            if [prefix, other] != [whole.child(false), whole.child(true)] {
                return Err(Reject::NotSiblings);
            }
            let (like, follows) = like(first, second);
            let lacks = |node: &NodeId| follows.index_of(*node).is_none();
            let mut comes = like.members.iter().map(|member| member.node).filter(lacks);
            // A seat of a node that takes none any more goes to another one first, before the halves are brought together.
            let other = standing.nodes.iter().any(|node| standing.sound(node.id) && like.index_of(node.id).is_none());
            let stands =
                aligned(first, second) || other || like.members.iter().all(|member| standing.sound(member.node));
            if first.engine != second.engine || !stands || !comes.all(|node| standing.sound(node)) {
                return Err(Reject::MergeApart);
            }
            if !standing.has_room(2) {
                return Err(Reject::SplitDepth);
            }
            plan.aligns = !aligned(first, second);
            plan.children = children(standing.next_shard, &[whole], like);
            plan.committee = like.clone();
        }
        JobKind::Move { .. } => {}
    }
    // Those that wait for approvals take nobody's place: each organisation has a few of them (`table::propose`).
    if standing.jobs.iter().filter(|job| job.phase.under_way()).count() >= JOBS_OPEN_MAX {
        return Err(Reject::JobsFull);
    }
    if let JobKind::Move { from, to, .. } = kind {
        plan.committee = moved(standing, first, *from, *to)?;
    } else {
        plan.parents = shards.iter().map(|(group, prefix, _)| (*group, *prefix)).collect();
        if shards.iter().any(|(_, _, committee)| standing.at_risk(committee)) {
            return Err(Reject::ShardRisk);
        }
    }
    Ok(plan)
}

/// Whether two committees are of the same nodes.
pub(crate) fn aligned(left: &Committee, right: &Committee) -> bool {
    let nodes = |committee: &Committee| committee.members.iter().map(|member| member.node).collect::<Vec<_>>();
    nodes(left) == nodes(right)
}

/// Of two shards that are joined, the one whose nodes both are to have, and the one that is brought to them. The larger one
/// stays, and the left one of two that are equal: joining takes from no account what its shard outlives.
pub(crate) fn like<'a>(left: &'a Committee, right: &'a Committee) -> (&'a Committee, &'a Committee) {
    if right.members.len() > left.members.len() { (right, left) } else { (left, right) }
}

/// Shards from an ordinal on, with the members and the engine of the committee that they begin with.
pub(crate) fn children(from: u32, prefixes: &[BitPrefix], like: &Committee) -> Vec<ChildShard> {
    let child = |(prefix, ordinal): (&BitPrefix, u32)| {
        let group = GroupId::shard(ordinal);
        let committee = Committee::of(like.engine, group, Incarnation(0), Epoch(0), like.members.clone());
        ChildShard { group, prefix: *prefix, committee }
    };
    prefixes.iter().zip(from..).map(child).collect()
}

fn moved(standing: &Standing, current: &Committee, from: NodeId, to: NodeId) -> Result<Committee, Reject> {
    if current.index_of(from).is_none() {
        return Err(Reject::MoveSource);
    }
    let target = standing.nodes.iter().find(|node| node.id == to).filter(|node| standing.sound(node.id));
    let target = target.filter(|node| current.index_of(node.id).is_none()).ok_or(Reject::MoveTarget)?;
    if risk::of_leaving(current, from, |node| standing.heard(node)).is_some() {
        return Err(Reject::ShardRisk);
    }
    let mut members: Vec<Member> = current.members.iter().filter(|member| member.node != from).cloned().collect();
    members.push(Member { node: target.id, org: target.org, key: target.key });
    Ok(Committee::of(current.engine, current.group, current.incarnation, current.epoch, members))
}
