//! What a switch of a group's engine is judged by: the beacon's own state, or what a reader was told of it.
//!
//! Owns the picture and how it is read. Never judges: [`super::preflight`] does. A reader has it whole by asking the beacon
//! ([`EngineBook`]); the registry that everybody follows shows less ([`Standing::of`]).

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::{Committee, Engine};
use ledger::genesis::{Genesis, NodeInfo};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, NodeId};
use ledger::view::View;

use super::wanted;
use crate::accused;
use crate::jobs::{self, Job};
use crate::registry;
use crate::view::ClusterView;

/// Version written into [`EngineBook`].
pub const ENGINE_BOOK_VERSION: u8 = 1;

/// The answer to a question about engines: what the beacon would judge a switch by in this moment.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EngineBook {
    /// Format version, [`ENGINE_BOOK_VERSION`].
    pub version: u8,
    /// The picture; nobody is voteless in it.
    pub standing: Standing,
}

impl EngineBook {
    /// As the beacon's state has it. `None` where there is no registry.
    pub fn read(view: &mut View<'_>) -> Option<Self> {
        Some(Self { version: ENGINE_BOOK_VERSION, standing: Standing::read(view)? })
    }
}

/// What a switch is judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Standing {
    /// Breaks ties between nodes.
    pub seed: Hash32,
    /// All nodes, by id.
    pub nodes: Vec<NodeInfo>,
    /// The committees in force.
    pub committees: Vec<Committee>,
    /// Those that are being prepared.
    pub coming: Vec<Committee>,
    /// Engines that groups are on their way to.
    pub switching: Vec<(GroupId, Engine)>,
    /// Nodes that are accused, ascending.
    pub accused: Vec<NodeId>,
    /// Groups that a job is about.
    pub busy: Vec<GroupId>,
    /// How many members the beacon and each shard have by the genesis.
    pub configured: Vec<(GroupId, usize)>,
    /// Members of the group in question that have no vote now, as its replicas say: one that lost its records follows without
    /// one, and one that has stopped gives none. The beacon does not see that.
    pub voteless: Vec<NodeId>,
}

/// How many members the beacon and each shard have by the genesis.
#[must_use]
pub fn configured(genesis: &Genesis) -> Vec<(GroupId, usize)> {
    let seated = genesis.committees.iter().filter(|committee| committee.group.kind() != Some(GroupKind::Channel));
    seated.map(|committee| (committee.group, committee.members.len())).collect()
}

/// Those of these committees' groups that one of these jobs is about.
fn held(committees: &[Committee], jobs: &[Job]) -> Vec<GroupId> {
    let groups = committees.iter().map(|committee| committee.group);
    groups.filter(|group| jobs.iter().any(|job| job.holds(*group))).collect()
}

impl Standing {
    /// As the beacon's state has it. `None` where there is no registry.
    pub fn read(view: &mut View<'_>) -> Option<Self> {
        let committees = registry::committees(view);
        let (mut switching, mut configured) = (Vec::new(), Vec::new());
        for current in &committees {
            let to = wanted(view, current);
            switching.extend((to != current.engine).then_some((current.group, to)));
            configured.extend(registry::configured(view, current.group).map(|seats| (current.group, seats)));
        }
        Some(Self {
            seed: registry::seed(view)?,
            nodes: registry::nodes(view),
            coming: registry::coming(view),
            accused: accused::nodes(view),
            busy: held(&committees, &jobs::under_way(view)),
            committees,
            switching,
            configured,
            voteless: Vec::new(),
        })
    }

    /// As a follower of the registry sees it, who is not shown who is accused, nor what is wanted and not prepared yet:
    /// the beacon judges again. Ties are broken by the seed of the genesis, in whose place epochs may have put another one.
    #[must_use]
    pub fn of(cluster: &ClusterView, genesis: &Genesis) -> Self {
        let engine = |group| cluster.committee(group).map(|current| current.engine);
        let switching = cluster.coming.iter().filter(|coming| engine(coming.group) != Some(coming.engine));
        Self {
            seed: genesis.seed,
            nodes: cluster.nodes.clone(),
            committees: cluster.committees.clone(),
            coming: cluster.coming.clone(),
            switching: switching.map(|coming| (coming.group, coming.engine)).collect(),
            accused: Vec::new(),
            busy: held(&cluster.committees, &cluster.jobs),
            configured: configured(genesis),
            voteless: Vec::new(),
        }
    }

    /// Whether a node may have a seat.
    pub(super) fn sound(&self, id: NodeId) -> bool {
        let capacity = self.nodes.iter().any(|node| node.id == id && node.capacity > 0);
        capacity && self.accused.binary_search(&id).is_err()
    }

    /// Whether it may have a seat, and has a vote.
    pub(super) fn votes(&self, id: NodeId) -> bool {
        self.sound(id) && !self.voteless.contains(&id)
    }
}
