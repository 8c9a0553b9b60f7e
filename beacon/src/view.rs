//! What nodes and routers follow: a picture of the cluster, taken from the registry.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::foundation::FoundedGroup;
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::Hash32;
use ledger::ids::{Address, ClusterId, GroupId, NodeId, OrgId};
use ledger::layout::Layout;
use ledger::lineage::BornShard;
use ledger::schema;
use ledger::view::{ReadFault, StateReader, View};

use crate::audit;
use crate::channels;
use crate::extract;
use crate::jobs::{self, Job, LeadHint};
use crate::registry;

/// Version written into new views. Version 1 had neither foundations nor committees
/// that are being prepared; version 2 did not say what was revoked; version 3 had foundations with their charters,
/// which are for the nodes of members alone, and neither said who is in quarantine nor had jobs.
pub const CLUSTER_VIEW_VERSION: u8 = 4;

/// The cluster as of one revision of the registry.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClusterView {
    /// Format version, [`CLUSTER_VIEW_VERSION`].
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// Name for people.
    pub name: String,
    /// Checking of client signatures.
    pub verify: VerifyMode,
    /// Rises with every change of what follows: the newer view has the higher number.
    pub revision: u64,
    /// The layout in force.
    pub layout: Layout,
    /// The committees in force, by group.
    pub committees: Vec<Committee>,
    /// Committees that are being prepared, by group: their new members are to fetch the state.
    pub coming: Vec<Committee>,
    /// All nodes, by id.
    pub nodes: Vec<NodeInfo>,
    /// All organisations, by id; their CAs are those that callers may come from.
    pub orgs: Vec<OrgInfo>,
    /// Of every group that the genesis does not name: with which committee it began, and the hash of its foundation, by
    /// group. The foundation itself, with the charter, is given to nodes with a seat, who judge it by this.
    pub founded: Vec<FoundedGroup>,
    /// The members of every channel as it shows them, by group.
    pub channels: Vec<(GroupId, Vec<OrgId>)>,
    /// Keys and certificates that were revoked, ascending: whose, and `sha256` of the key or of the
    /// certificate's subject public key info. They count for that organisation's alone.
    pub revoked: Vec<(OrgId, Hash32)>,
    /// Groups in quarantine, ascending: routers give them nothing new.
    pub quarantined: Vec<GroupId>,
    /// The jobs that were decided and have not ended, by number: nodes have something to do about them.
    pub jobs: Vec<Job>,
    /// How every living shard began that others were cut or joined into, by group.
    pub born: Vec<BornShard>,
    /// How often each member of a shard reports its load, milliseconds; `None` while nobody asks for loads.
    pub load_every_ms: Option<u64>,
    /// The lead of a shard that its leader is to hand over, because of load.
    pub lead: Option<LeadHint>,
}

impl ClusterView {
    /// Reads the picture from the beacon's state.
    ///
    /// # Errors
    /// [`ReadFault`] when the medium fails or holds no complete registry.
    pub fn read(reader: &dyn StateReader) -> Result<Self, ReadFault> {
        let mut view = View::new(reader);
        let found = Self::collect(&mut view);
        if let Some(fault) = view.fault() {
            return Err(fault.clone());
        }
        found.ok_or_else(|| ReadFault("the state holds no registry; only the beacon group has one".to_owned()))
    }

    /// The revision alone, to see whether a follower has to be told.
    ///
    /// # Errors
    /// [`ReadFault`] when the medium fails.
    pub fn revision_of(reader: &dyn StateReader) -> Result<u64, ReadFault> {
        let mut view = View::new(reader);
        let revision = registry::revision(&mut view);
        view.fault().cloned().map_or(Ok(revision), Err)
    }

    /// The bytes that the [`registry::RegistryHead`] hashes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Whether layout and committees are well formed and all lists sorted, as look-ups rely on.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        fn ascending<T, K: Ord>(list: &[T], key: impl Fn(&T) -> K) -> bool {
            list.windows(2).all(|pair| key(&pair[0]) < key(&pair[1]))
        }
        self.version == CLUSTER_VIEW_VERSION
            && !self.layout.shards.is_empty()
            && self.layout.well_formed()
            && self.committees.iter().all(Committee::well_formed)
            && ascending(&self.committees, |committee| committee.group)
            && self.coming.iter().all(Committee::well_formed)
            && ascending(&self.coming, |committee| committee.group)
            && ascending(&self.nodes, |node| node.id)
            && ascending(&self.orgs, |org| org.id)
            && ascending(&self.founded, |leaf| leaf.group)
            && ascending(&self.channels, |(group, _)| *group)
            && ascending(&self.revoked, |line| *line)
            && ascending(&self.quarantined, |group| *group)
            && ascending(&self.jobs, |job| job.id)
            && self.jobs.iter().flat_map(|job| &job.children).all(|child| child.committee.well_formed())
            && ascending(&self.born, |born| born.group)
    }

    pub(crate) fn collect(view: &mut View<'_>) -> Option<Self> {
        let meta = registry::meta(view)?;
        let directory = channels::directory(view);
        let founded = directory.iter().filter_map(|entry| view.load(&schema::founded(entry.group))).collect();
        Some(Self {
            version: CLUSTER_VIEW_VERSION,
            cluster: meta.cluster,
            name: meta.name,
            verify: meta.verify,
            revision: registry::revision(view),
            layout: registry::layout(view)?,
            committees: registry::committees(view),
            coming: registry::coming(view),
            nodes: registry::nodes(view),
            orgs: registry::orgs(view),
            founded,
            channels: directory.into_iter().map(|entry| (entry.group, entry.shown.members)).collect(),
            revoked: extract::revoked(view),
            quarantined: audit::quarantined(view),
            jobs: jobs::under_way(view),
            born: jobs::born(view),
            load_every_ms: jobs::scale::load_every_ms(view),
            lead: jobs::scale::hint(view),
        })
    }

    /// The picture a node or router starts with, before it has heard from the beacon.
    #[must_use]
    pub fn from_genesis(genesis: &Genesis) -> Self {
        let mut committees = genesis.committees.clone();
        committees.sort_by_key(|committee| committee.group);
        let mut nodes = genesis.nodes.clone();
        nodes.sort_by_key(|node| node.id);
        let mut orgs = genesis.orgs.clone();
        orgs.sort_by_key(|org| org.id);
        Self {
            version: CLUSTER_VIEW_VERSION,
            cluster: genesis.cluster_id(),
            name: genesis.name.clone(),
            verify: genesis.verify,
            revision: 1,
            layout: genesis.layout.clone(),
            committees,
            coming: Vec::new(),
            nodes,
            orgs,
            channels: Vec::new(),
            founded: Vec::new(),
            revoked: Vec::new(),
            quarantined: Vec::new(),
            jobs: Vec::new(),
            born: Vec::new(),
            load_every_ms: None,
            lead: None,
        }
    }

    /// The committee in force of a group.
    #[must_use]
    pub fn committee(&self, group: GroupId) -> Option<&Committee> {
        let at = self.committees.binary_search_by_key(&group, |committee| committee.group).ok()?;
        Some(&self.committees[at])
    }

    /// A node by id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        let at = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        Some(&self.nodes[at])
    }

    /// The node that a TLS key belongs to, by the hash of its subject public key info.
    #[must_use]
    pub fn node_by_tls_key(&self, hash: &Hash32) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.tls_key_hash == *hash)
    }

    /// An organisation by id.
    #[must_use]
    pub fn org(&self, id: OrgId) -> Option<&OrgInfo> {
        let at = self.orgs.binary_search_by_key(&id, |org| org.id).ok()?;
        Some(&self.orgs[at])
    }

    /// What the beacon's state says of how a group began that the genesis does not name.
    #[must_use]
    pub fn founded(&self, group: GroupId) -> Option<&FoundedGroup> {
        let at = self.founded.binary_search_by_key(&group, |leaf| leaf.group).ok()?;
        Some(&self.founded[at])
    }

    /// The shard that owns an account.
    #[must_use]
    pub fn locate(&self, account: &Address) -> GroupId {
        self.layout.locate(account)
    }

    /// The groups that a node has a seat in, in order.
    pub fn groups_of(&self, node: NodeId) -> impl Iterator<Item = GroupId> + '_ {
        self.committees.iter().filter(move |c| c.index_of(node).is_some()).map(|c| c.group)
    }
}
