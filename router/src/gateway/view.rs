//! The cluster as a router sees it: who exists, who owns which accounts, who probably leads.
//!
//! A view routes; it never decides. A wrong or old one costs a redirect, not money.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ledger::genesis::{Genesis, NodeInfo};
use ledger::tx::ParsedTx;
use ledger::{ClusterId, Committee, GroupId, Layout, NodeId, Reject};
use proto::{EdgeError, edge, v1};

use crate::plan::Plan;

/// One state of the cluster's registry.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its genesis, encoded, as clients ask for it.
    pub genesis: Bytes,
    /// The layout in force.
    pub layout: Arc<Layout>,
    /// The committee in force of every group.
    pub committees: BTreeMap<GroupId, Committee>,
    /// Every node.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// Who leads which group, as far as somebody said.
    pub leaders: BTreeMap<GroupId, NodeId>,
    /// Height of the beacon this stands at.
    pub beacon_height: u64,
}

impl ClusterView {
    /// The view that a genesis gives: enough to find everybody for the first time.
    #[must_use]
    pub fn of_genesis(genesis: &Genesis) -> Self {
        let encoded = borsh::to_vec(genesis).expect("writing to memory does not fail");
        Self {
            cluster: genesis.cluster_id(),
            genesis: encoded.into(),
            layout: Arc::new(genesis.layout.clone()),
            committees: genesis.committees.iter().map(|committee| (committee.group, committee.clone())).collect(),
            nodes: genesis.nodes.iter().map(|node| (node.id, node.clone())).collect(),
            leaders: BTreeMap::new(),
            beacon_height: 0,
        }
    }

    /// Takes what a node says about this cluster.
    ///
    /// # Errors
    /// [`EdgeError`] when it does not decode, is of another cluster, or is not well formed.
    pub fn from_reply(cluster: ClusterId, reply: &v1::ClusterReply) -> Result<Self, EdgeError> {
        let genesis: Genesis = edge::value("genesis", &reply.genesis)?;
        if genesis.cluster_id() != cluster {
            return Err(bad("genesis", "it is of another cluster"));
        }
        let layout: Layout = edge::value("layout", &reply.layout)?;
        if !layout.well_formed() || layout.shards.is_empty() {
            return Err(bad("layout", "it does not cover every account once"));
        }
        let mut committees = BTreeMap::new();
        for bytes in &reply.committees {
            let committee: Committee = edge::value("committee", bytes)?;
            if !committee.well_formed() {
                return Err(bad("committee", "it is not well formed"));
            }
            committees.insert(committee.group, committee);
        }
        let mut nodes = BTreeMap::new();
        for bytes in &reply.nodes {
            let node: NodeInfo = edge::value("node", bytes)?;
            nodes.insert(node.id, node);
        }
        let leaders = reply
            .leaders
            .iter()
            .filter(|hint| hint.node != 0)
            .map(|hint| (GroupId(hint.group), NodeId(hint.node)))
            .collect();
        Ok(Self {
            cluster,
            genesis: reply.genesis.clone(),
            layout: Arc::new(layout),
            committees,
            nodes,
            leaders,
            beacon_height: reply.beacon_height,
        })
    }

    /// As clients and other routers are told.
    #[must_use]
    pub fn to_reply(&self) -> v1::ClusterReply {
        fn encode<T: borsh::BorshSerialize>(value: &T) -> Bytes {
            borsh::to_vec(value).expect("writing to memory does not fail").into()
        }
        v1::ClusterReply {
            genesis: self.genesis.clone(),
            layout: encode(&*self.layout),
            committees: self.committees.values().map(encode).collect(),
            nodes: self.nodes.values().map(encode).collect(),
            leaders: self.leaders.iter().map(|(group, node)| v1::LeaderHint { group: group.0, node: node.0 }).collect(),
            beacon_height: self.beacon_height,
        }
    }

    /// Where a transaction goes, as far as all its groups exist.
    ///
    /// # Errors
    /// As [`crate::plan()`], and [`Reject::UnknownGroup`].
    pub fn plan(&self, tx: &ParsedTx) -> Result<Plan, Reject> {
        let plan = crate::plan(&self.layout, tx)?;
        let exist = plan.groups().all(|group| self.committees.contains_key(&group));
        if exist { Ok(plan) } else { Err(Reject::UnknownGroup) }
    }

    /// The nodes that host a group, the probable leader first.
    #[must_use]
    pub fn members(&self, group: GroupId) -> Vec<NodeId> {
        let mut members: Vec<NodeId> = self
            .committees
            .get(&group)
            .map(|committee| committee.members.iter().map(|member| member.node).collect())
            .unwrap_or_default();
        if let Some(at) = self.leaders.get(&group).and_then(|leader| members.iter().position(|node| node == leader)) {
            members.swap(0, at);
        }
        members
    }
}

fn bad(field: &'static str, cause: &str) -> EdgeError {
    EdgeError::Decode { field, cause: cause.to_owned() }
}
