//! Why each node has its seats: read from what the registry keeps, which is every committee that a group has had, the jobs
//! and deals that are kept, who was named for whom, and what nodes are by now. Nothing is written for it: what is not kept
//! any more is told as what the committees alone show.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::ids::{Epoch, GroupId, JobId, NodeId};
use ledger::lineage::BornShard;
use ledger::schema;
use ledger::view::View;

use crate::arrivals;
use crate::epochs::{self, Deal};
use crate::jobs::{self, Job, JobKind, Phase};
use crate::nodes;
use crate::registry;

/// How a group began.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Began {
    /// With the cluster: its seats follow from the seed of the genesis.
    Genesis = 0,
    /// By a job, with the nodes of what it was cut or joined from.
    Born {
        /// The job.
        job: JobId,
        /// What ended, the left one first.
        parents: Vec<GroupId>,
    } = 1,
    /// As a channel, with the nodes that its members named.
    Founded = 2,
}

/// Why a node has a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Why {
    /// The group began with it.
    First = 0,
    /// A job moved the seat, or brought two shards together that are to be joined.
    Job(JobId) = 1,
    /// The deal of this epoch wanted it.
    Deal(u64) = 2,
    /// It was named for the node whose seat it has.
    Successor = 3,
    /// The node whose seat it has may have none by now: it is drained, gone, has vanished, or is held.
    Need = 4,
    /// It took a seat of a node that may have seats, since it joined; or by a job or a deal that is not kept any more.
    Share = 5,
    /// The group got a seat more: it had too few, or its engine needs it.
    More = 6,
    /// The members of the channel named it.
    Named = 7,
}

/// A seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Seat {
    /// Who has it.
    pub node: NodeId,
    /// The committee with which the node came.
    pub epoch: Epoch,
    /// Whose seat it was in the committee before, where somebody left it: one of its organisation where that can be.
    pub from: Option<NodeId>,
    /// Why.
    pub why: Why,
}

/// The seats of a group.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Seating {
    /// The group.
    pub group: GroupId,
    /// How it began.
    pub began: Began,
    /// Its seats, by node.
    pub seats: Vec<Seat>,
}

/// What is asked about each seat, read once.
struct Kept {
    committees: Vec<Committee>,
    jobs: Vec<Job>,
    deals: Vec<Deal>,
    successors: BTreeMap<NodeId, NodeId>,
    /// Nodes that may have seats.
    sound: Vec<NodeId>,
}

impl Kept {
    fn read(view: &mut View<'_>) -> Self {
        let barred = nodes::barred(view);
        let sound = registry::nodes(view).into_iter().filter(|node| node.capacity > 0 && !barred.contains(&node.id));
        Self {
            committees: registry::committees(view),
            jobs: jobs::jobs(view),
            deals: epochs::deals(view),
            successors: arrivals::successors(view),
            sound: sound.map(|node| node.id).collect(),
        }
    }

    /// Why a node came with a committee, in the place of these.
    fn why(&self, group: GroupId, node: NodeId, left: &[NodeId], from: Option<NodeId>) -> Why {
        let done = |job: &&Job| match job.kind {
            JobKind::Move { group: moved, from, to } => {
                job.phase == Phase::Done && (moved, to) == (group, node) && left.contains(&from)
            }
            // It comes to the nodes of the other half.
            JobKind::Merge { left: one, right: two } if [one, two].contains(&group) => {
                let other = if one == group { two } else { one };
                let like = self.committees.iter().find(|committee| committee.group == other);
                let wants = |node: NodeId| like.is_some_and(|like| like.index_of(node).is_some());
                job.phase.under_way() && wants(node) && !left.iter().any(|gone| wants(*gone))
            }
            JobKind::Merge { .. } | JobKind::Split { .. } => false,
        };
        if let Some(job) = self.jobs.iter().rev().find(done) {
            return Why::Job(job.id);
        }
        if left.iter().any(|gone| self.successors.get(gone) == Some(&node)) {
            return Why::Successor;
        }
        let wants = |deal: &&Deal| deal.moves.iter().any(|(moved, to)| *moved == group && to.contains(&node));
        let had =
            |deal: &&Deal| deal.groups.iter().any(|seated| seated.group == group && seated.members.contains(&node));
        match (self.deals.iter().rev().find(|deal| wants(deal) && !had(deal)), from) {
            (Some(deal), _) => Why::Deal(deal.epoch),
            (None, Some(gone)) if self.sound.contains(&gone) => Why::Share,
            (None, Some(_)) => Why::Need,
            (None, None) => Why::More,
        }
    }
}

/// The seats of every group, by group, as the committees in force have them.
pub fn read(view: &mut View<'_>) -> Vec<Seating> {
    let kept = Kept::read(view);
    kept.committees
        .iter()
        .map(|current| {
            let mut had: Vec<Committee> = registry::kept(view, current.group).collect();
            had.sort_by_key(|committee| committee.epoch);
            let began = began(view, current.group);
            let seat = |node: NodeId| seat(&had, current, node, &began, &kept);
            let seats = current.members.iter().map(|member| seat(member.node)).collect();
            Seating { group: current.group, began, seats }
        })
        .collect()
}

fn began(view: &mut View<'_>, group: GroupId) -> Began {
    if let Some(born) = view.load::<BornShard>(&schema::born(group)) {
        let parents = born.parents.iter().map(|end| end.group).collect();
        return Began::Born { job: born.job, parents };
    }
    if view.get(&schema::founded(group)).is_some() { Began::Founded } else { Began::Genesis }
}

/// When and why a member of the committee in force came, by all that its group has had, the oldest first.
fn seat(had: &[Committee], current: &Committee, node: NodeId, began: &Began, kept: &Kept) -> Seat {
    let seated = |committee: &Committee| committee.index_of(node).is_some();
    let came = had.windows(2).rev().find(|step| !seated(&step[0]) && seated(&step[1]));
    let Some([before, after]) = came else {
        let epoch = had.first().unwrap_or(current).epoch;
        return Seat { node, epoch, from: None, why: Why::First };
    };
    let only = |one: &Committee, other: &Committee| -> Vec<NodeId> {
        one.members.iter().map(|member| member.node).filter(|node| other.index_of(*node).is_none()).collect()
    };
    let (left, joined) = (only(before, after), only(after, before));
    let org = |committee: &Committee, node: NodeId| committee.index_of(node).map(|at| committee.members[at].org);
    let own = org(after, node);
    let same = left.iter().copied().find(|gone| org(before, *gone) == own);
    let from = same.or_else(|| left.get(joined.iter().position(|other| *other == node)?).copied());
    let why = match began {
        Began::Founded => Why::Named,
        Began::Genesis | Began::Born { .. } => kept.why(current.group, node, &left, from),
    };
    Seat { node, epoch: after.epoch, from, why }
}
