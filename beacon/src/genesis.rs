//! The first state of a cluster: its committees by assignment, and whether a genesis is sound.

use std::collections::BTreeMap;

use ledger::committee::{Committee, Engine, Member};
use ledger::crypto::{self, CryptoError, PublicKey, Signature};
use ledger::genesis::{Genesis, NodeInfo, OrgInfo};
use ledger::hash::Hash32;
use ledger::ids::{Epoch, GroupId, Incarnation, NodeId, OrgId};

use crate::assign::{AssignError, Constraints, GroupSeats, assign};
use crate::limits::{ADDR_BYTES_MAX, CA_PEM_BYTES_MAX, CAPACITY_MAX, NAME_BYTES_MAX, NODES_MAX, ORGS_MAX, SHARDS_MAX};
use crate::policies;

/// Why a genesis cannot start a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisFault {
    /// Written by another version.
    #[error("the genesis has format version {0}; this program reads version 1, and version 2 where it states policies")]
    Version(u8),
    /// Too few or too many of something.
    #[error("the genesis has {found} {what}; it needs 1 to {max}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// The name of the cluster is empty or too long.
    #[error("the cluster's name must have 1 to {NAME_BYTES_MAX} bytes")]
    Name,
    /// An organisation is listed twice or has a name, key or certificate out of form.
    #[error("organisation {0} is listed twice, or its name, admin key or CA certificate is out of form")]
    Org(OrgId),
    /// A node is listed twice or has a field out of form.
    #[error(
        "node {0} is listed twice, names an unknown organisation, shares a key, or has an address, zone or capacity out of form"
    )]
    Node(NodeId),
    /// The shards do not cover everything exactly once.
    #[error("the layout does not give every account to exactly one shard")]
    Layout,
    /// A committee is missing, repeated, out of form, or names a node otherwise than the node list.
    #[error("the committee of {0} is missing, listed twice, out of form, or does not agree with the list of nodes")]
    Committee(GroupId),
    /// A policy cannot be in force with these organisations.
    #[error(
        "the policy of '{matter}' cannot be: {cause}; docs/operations.md names the matters, and docs/channels.md says how policies are written"
    )]
    Policy {
        /// What it is about.
        matter: String,
        /// Why not.
        cause: String,
    },
    /// A committee is too small for its engine.
    #[error(
        "the committee of {group} has {members} members and is ordered by {engine}, which needs at least {}; give the group more replicas, or raft",
        .engine.least_members()
    )]
    Engine {
        /// The group.
        group: GroupId,
        /// Its members.
        members: usize,
        /// Its engine.
        engine: Engine,
    },
}

impl GenesisFault {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Version(_) => "genesis_version",
            Self::Count { .. } => "genesis_count",
            Self::Name => "genesis_name",
            Self::Org(_) => "genesis_org",
            Self::Node(_) => "genesis_node",
            Self::Layout => "genesis_layout",
            Self::Committee(_) => "genesis_committee",
            Self::Engine { .. } => "genesis_engine",
            Self::Policy { .. } => "genesis_policy",
        }
    }
}

/// The groups of a genesis, the beacon first, each under the engine that `engine` names for it.
#[must_use]
pub fn first_groups(
    shards: u32,
    replicas: u16,
    beacon_replicas: u16,
    engine: impl Fn(GroupId) -> Engine,
) -> Vec<GroupSeats> {
    let beacon = std::iter::once((GroupId::BEACON, beacon_replicas));
    let shards = (0..shards).map(|ordinal| (GroupId::shard(ordinal), replicas));
    beacon.chain(shards).map(|(group, seats)| GroupSeats { group, seats, engine: engine(group) }).collect()
}

/// The first committees of groups, each with the threshold of its engine. Anyone with the genesis can
/// recompute them.
///
/// # Errors
/// [`AssignError`] when the nodes cannot take the seats, or the seats are too few for an engine.
pub fn committees_of(
    seed: &Hash32,
    nodes: &[NodeInfo],
    groups: &[GroupSeats],
    constraints: &Constraints,
) -> Result<Vec<Committee>, AssignError> {
    let engines: BTreeMap<GroupId, Engine> = groups.iter().map(|wanted| (wanted.group, wanted.engine)).collect();
    let seated = assign(seed, nodes, groups, constraints)?;
    Ok(seated
        .into_iter()
        .map(|(group, members)| {
            let members = members.into_iter().filter_map(|id| {
                let node = nodes.iter().find(|node| node.id == id)?;
                Some(Member { node: node.id, org: node.org, key: node.key })
            });
            let engine = engines.get(&group).copied().unwrap_or_default();
            Committee::of(engine, group, Incarnation(0), Epoch(0), members.collect())
        })
        .collect())
}

/// The first committees of a cluster whose groups are all ordered by Raft: the beacon's, then the shards'.
///
/// # Errors
/// [`AssignError`] when the nodes cannot take the seats.
pub fn first_committees(
    seed: &Hash32,
    nodes: &[NodeInfo],
    shards: u32,
    replicas: u16,
    beacon_replicas: u16,
    constraints: &Constraints,
) -> Result<Vec<Committee>, AssignError> {
    committees_of(seed, nodes, &first_groups(shards, replicas, beacon_replicas, |_| Engine::Raft), constraints)
}

/// The first group of a genesis whose committee is not the one that its seed gives it; `None` when all are.
#[must_use]
pub fn misassigned(genesis: &Genesis) -> Option<GroupId> {
    let wanted = |committee: &Committee| GroupSeats {
        group: committee.group,
        // More than a committee may have are refused below.
        seats: u16::try_from(committee.members.len()).unwrap_or(u16::MAX),
        engine: committee.engine,
    };
    let groups: Vec<GroupSeats> = genesis.committees.iter().map(wanted).collect();
    match committees_of(&genesis.seed, &genesis.nodes, &groups, &Constraints::default()) {
        Ok(dealt) => {
            let differs = |committee: &&Committee| !dealt.contains(committee);
            genesis.committees.iter().find(differs).map(|committee| committee.group)
        }
        Err(_) => genesis.committees.first().map(|committee| committee.group),
    }
}

/// Checks that a genesis can start a cluster: counts, forms, a complete layout, and a committee of
/// known nodes for the beacon and every shard.
///
/// # Errors
/// [`GenesisFault`] names the first thing that does not hold.
pub fn check(genesis: &Genesis) -> Result<(), GenesisFault> {
    if !genesis.version_fits() {
        return Err(GenesisFault::Version(genesis.version));
    }
    if !usable_name(&genesis.name) {
        return Err(GenesisFault::Name);
    }
    for (what, found, max) in [
        ("organisations", genesis.orgs.len(), ORGS_MAX),
        ("nodes", genesis.nodes.len(), NODES_MAX),
        ("shards", genesis.layout.shards.len(), SHARDS_MAX),
    ] {
        if !(1..=max).contains(&found) {
            return Err(GenesisFault::Count { what, found, max });
        }
    }
    check_members(genesis)?;
    check_groups(genesis)?;
    policies::stated(genesis).map(drop)
}

fn check_members(genesis: &Genesis) -> Result<(), GenesisFault> {
    for (at, org) in genesis.orgs.iter().enumerate() {
        let clash = genesis.orgs[..at].iter().any(|other| other.id == org.id || other.name == org.name);
        if clash || !org_form(org) {
            return Err(GenesisFault::Org(org.id));
        }
    }
    for (at, node) in genesis.nodes.iter().enumerate() {
        let clash = genesis.nodes[..at]
            .iter()
            .any(|other| other.id == node.id || other.key == node.key || other.tls_key_hash == node.tls_key_hash);
        let known_org = genesis.orgs.iter().any(|org| org.id == node.org);
        if clash || !known_org || !node_form(node) {
            return Err(GenesisFault::Node(node.id));
        }
    }
    Ok(())
}

fn check_groups(genesis: &Genesis) -> Result<(), GenesisFault> {
    let layout = &genesis.layout;
    let mut groups: Vec<GroupId> = layout.shards.iter().map(|shard| shard.group).collect();
    groups.sort_unstable();
    let unique = groups.windows(2).all(|pair| pair[0] != pair[1]);
    let shards_only = groups.iter().all(|group| group.kind() == Some(ledger::ids::GroupKind::Shard));
    if layout.format != 1 || !layout.well_formed() || !unique || !shards_only {
        return Err(GenesisFault::Layout);
    }
    for group in std::iter::once(GroupId::BEACON).chain(groups.iter().copied()) {
        let mut found = genesis.committees.iter().filter(|committee| committee.group == group);
        match (found.next(), found.next()) {
            (Some(committee), None) if committee_form(committee, genesis) => {
                let (engine, members) = (committee.engine, committee.members.len());
                if members < engine.least_members() {
                    return Err(GenesisFault::Engine { group, members, engine });
                }
            }
            _ => return Err(GenesisFault::Committee(group)),
        }
    }
    match genesis.committees.iter().find(|c| c.group != GroupId::BEACON && groups.binary_search(&c.group).is_err()) {
        Some(stray) => Err(GenesisFault::Committee(stray.group)),
        None => Ok(()),
    }
}

fn committee_form(committee: &Committee, genesis: &Genesis) -> bool {
    committee.version == ledger::committee::COMMITTEE_VERSION
        && committee.well_formed()
        && committee.members.iter().all(|member| {
            genesis.node(member.node).is_some_and(|node| node.org == member.org && node.key == member.key)
        })
}

/// Whether an organisation's fields are within limits.
pub(crate) fn org_form(org: &OrgInfo) -> bool {
    usable_name(&org.name) && usable_ca(&org.ca_pem) && usable_key(&org.admin_key)
}

/// Whether a node's fields are within limits.
pub(crate) fn node_form(node: &NodeInfo) -> bool {
    node.zone.len() <= NAME_BYTES_MAX
        && node.capacity <= CAPACITY_MAX
        && usable_key(&node.key)
        && usable_addr(&node.peer_addr)
        && usable_addr(&node.client_addr)
}

fn usable_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Whether a text has the frame of one PEM certificate. What is inside is judged by the TLS library
/// of the node that uses it.
pub(crate) fn usable_ca(pem: &str) -> bool {
    let text = pem.trim();
    pem.len() <= CA_PEM_BYTES_MAX
        && text.starts_with("-----BEGIN CERTIFICATE-----")
        && text.ends_with("-----END CERTIFICATE-----")
        // One that brought another organisation's along would pass for that one, too.
        && text.matches("-----BEGIN ").count() == 1
}

/// Whether a text is `host:port` with a port above zero.
pub(crate) fn usable_addr(addr: &str) -> bool {
    addr.len() <= ADDR_BYTES_MAX
        && addr.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.chars().any(|c| c.is_whitespace() || c.is_control())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
}

/// Whether a key is a point of the curve: one that is not can never have signed anything.
pub(crate) fn usable_key(key: &PublicKey) -> bool {
    crypto::verify(key, &Hash32([1; 32]), &Signature([1; 64])) != Err(CryptoError::PublicKey)
}
