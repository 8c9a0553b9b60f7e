//! What a channel's machine has to be told because it lies outside its own state.
//!
//! All of it has to come from replicated state (what the beacon's mail has brought, the group's own
//! committee, registers and streams), never from what a node happens to know: replicas that answer
//! differently would build different blocks.

use ledger::committee::Committee;
use ledger::crypto::{self, CryptoError, PublicKey, Signature};
use ledger::hash::Hash32;
use ledger::ids::{NodeId, OrgId};

use crate::limits::NODES_PER_MEMBER_MAX;
use crate::reject::ChannelReject;
use crate::state::MemberNode;

/// An organisation as the cluster's registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryOrg {
    /// Name for people.
    pub name: String,
    /// Its admin key.
    pub admin_key: PublicKey,
}

/// A node as the cluster's registry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryNode {
    /// Its organisation.
    pub org: OrgId,
    /// Key that signs headers.
    pub key: PublicKey,
}

/// Look-ups in the cluster's registry.
pub trait Registry {
    /// An organisation, or `None` when there is none.
    fn org(&self, org: OrgId) -> Option<RegistryOrg>;
    /// A node, or `None` when there is none.
    fn node(&self, node: NodeId) -> Option<RegistryNode>;
}

/// Whether anything of the channel is still under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Transactions that other groups vote on, too, and that are not decided or not dropped yet.
    pub registers: u64,
    /// Messages that peers have not acknowledged.
    pub mail: u64,
}

/// What lies outside the governance's own state.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The cluster's registry.
    pub registry: &'a dyn Registry,
    /// The channel's committee in force.
    pub committee: &'a Committee,
    /// What is under way.
    pub under_way: UnderWay,
}

/// An organisation's list of nodes, looked up.
///
/// # Errors
/// [`ChannelReject::NodesForm`] or [`ChannelReject::NodeUnknown`].
pub(crate) fn nodes_of(
    registry: &dyn Registry,
    org: OrgId,
    nodes: &[NodeId],
) -> Result<Vec<MemberNode>, ChannelReject> {
    if !(1..=NODES_PER_MEMBER_MAX).contains(&nodes.len()) || !ascending(nodes) {
        return Err(ChannelReject::NodesForm);
    }
    nodes
        .iter()
        .map(|node| {
            let found = registry.node(*node).filter(|found| found.org == org).ok_or(ChannelReject::NodeUnknown)?;
            Ok(MemberNode { node: *node, key: found.key })
        })
        .collect()
}

/// Whether a list is strictly ascending.
pub(crate) fn ascending<T: Ord>(list: &[T]) -> bool {
    list.windows(2).all(|pair| pair[0] < pair[1])
}

/// Whether a key is a point of the curve: one that is not can never have signed anything.
pub(crate) fn usable_key(key: &PublicKey) -> bool {
    crypto::verify(key, &Hash32([1; 32]), &Signature([1; 64])) != Err(CryptoError::PublicKey)
}
