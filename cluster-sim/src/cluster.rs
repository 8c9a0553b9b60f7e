//! The simulated cluster's genesis and its keys. Keys come from a fixed pool, since deriving them is
//! the slowest part of a small run; the seed decides which of them a run uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use beacon::assign::{Constraints, GroupSeats, assign};
use beacon::genesis::check;
use channel::charter::CHARTER_VERSION;
use channel::state::{MemberNode, MemberRecord, RoleKey};
use channel::{Charter, Engine, Policy, Quorum, Role, Subject};
use cross_shard::notice::{ANCHORS_UPDATE_VERSION, AnchorsUpdate, NOTICE_VERSION, NodeEntry, OrgEntry, RegistryUpdate};
use ledger::auth::Authorisation;
use ledger::committee::{Committee, Member};
use ledger::crypto::{PublicKey, SecretKey};
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::{Hash32, sha256, tagged};
use ledger::ids::{Address, Epoch, GroupId, GroupKind, Height, Incarnation, NodeId, OrgId, TimeMs};
use ledger::layout::Layout;

use crate::config::{CHANNELS_MAX, Shape};

/// When every simulated cluster was made.
pub const CREATED_MS: u64 = 1_750_000_000_000;
/// Account keys in the pool.
pub const ACCOUNT_KEYS: usize = 96;

/// Accounts of each channel.
pub const CHANNEL_ACCOUNTS: usize = 4;
/// Organisations of every simulated cluster.
pub const ORGS: u16 = 3;
/// Keys that each of them has as its admin, one after the other.
pub const ADMIN_KEYS: usize = 12;

const NODE_KEYS: usize = 32;
/// Keys that each node has, one after the other.
pub const KEYS_OF_NODE: usize = 5;
/// Names of clusters whose channels begin without anchors, and with them.
const NAMES: [&str; 2] = ["simulated", "simulated with anchors"];
/// Seats of a channel: with one less it still bears a failure, so that a member may go.
const CHANNEL_SEATS: u32 = 5;

/// Keys of one kind, derived once per process.
fn pool(cell: &'static OnceLock<Vec<SecretKey>>, secret: &[u8], count: usize) -> &'static [SecretKey] {
    cell.get_or_init(|| (0..count).map(|index| SecretKey::derive(secret, &index.to_be_bytes())).collect())
}

/// Keys for accounts.
#[must_use]
pub fn account_keys() -> &'static [SecretKey] {
    static POOL: OnceLock<Vec<SecretKey>> = OnceLock::new();
    pool(&POOL, b"simulated accounts", ACCOUNT_KEYS)
}

/// Keys for the accounts of channels.
#[must_use]
pub fn channel_keys() -> &'static [SecretKey] {
    static POOL: OnceLock<Vec<SecretKey>> = OnceLock::new();
    pool(&POOL, b"simulated accounts of channels", CHANNEL_ACCOUNTS * CHANNELS_MAX as usize)
}

/// Keys for the accounts of a channel that is founded while the cluster runs. No liar knows them.
#[must_use]
pub fn founded_keys() -> &'static [SecretKey] {
    static POOL: OnceLock<Vec<SecretKey>> = OnceLock::new();
    pool(&POOL, b"simulated accounts of a channel that is founded", CHANNEL_ACCOUNTS)
}

/// The secrets of accounts that one key signs for, by address.
#[must_use]
pub fn account_secrets() -> &'static BTreeMap<Address, &'static SecretKey> {
    static BY_ADDRESS: OnceLock<BTreeMap<Address, &'static SecretKey>> = OnceLock::new();
    BY_ADDRESS.get_or_init(|| {
        let all = account_keys().iter().chain(channel_keys());
        all.map(|secret| (Authorisation::Single(secret.public()).address(), secret)).collect()
    })
}

fn admin_keys() -> &'static [SecretKey] {
    static POOL: OnceLock<Vec<SecretKey>> = OnceLock::new();
    pool(&POOL, b"simulated organisations", usize::from(ORGS) * ADMIN_KEYS)
}

/// The admin keys of an organisation: the one that it begins with, number 0, and those it may come to.
#[must_use]
pub fn admin_key(org: OrgId, number: usize) -> &'static SecretKey {
    &admin_keys()[number % ADMIN_KEYS * usize::from(ORGS) + usize::from(org.0 % ORGS)]
}

/// The secret of a key that is some organisation's.
#[must_use]
pub fn admin_secret(key: &PublicKey) -> Option<&'static SecretKey> {
    static BY_KEY: OnceLock<BTreeMap<PublicKey, &'static SecretKey>> = OnceLock::new();
    BY_KEY.get_or_init(|| admin_keys().iter().map(|secret| (secret.public(), secret)).collect()).get(key).copied()
}

/// The key of a node.
#[must_use]
pub fn node_key(node: NodeId) -> &'static SecretKey {
    static POOL: OnceLock<Vec<SecretKey>> = OnceLock::new();
    &pool(&POOL, b"simulated nodes", NODE_KEYS)[node.0 as usize % NODE_KEYS]
}

/// The keys that a node may have, one after the other: number 0 is the one that it begins with.
#[must_use]
pub fn later_key(node: NodeId, number: usize) -> &'static SecretKey {
    static POOL: OnceLock<Vec<SecretKey>> = OnceLock::new();
    let place = node.0 as usize % NODE_KEYS;
    match number % KEYS_OF_NODE {
        0 => node_key(node),
        later => &pool(&POOL, b"simulated later keys of nodes", NODE_KEYS * (KEYS_OF_NODE - 1))
            [place + NODE_KEYS * (later - 1)],
    }
}

fn org(id: u16) -> OrgInfo {
    OrgInfo {
        id: OrgId(id),
        name: format!("org-{id}"),
        ca_pem: "-----BEGIN CERTIFICATE-----\nc2ltdWxhdGVk\n-----END CERTIFICATE-----".to_owned(),
        admin_key: admin_key(OrgId(id), 0).public(),
    }
}

/// A node as it stands in the genesis, or as it is registered later.
pub(crate) fn node_info(id: u32) -> NodeInfo {
    let node = NodeId(id);
    NodeInfo {
        id: node,
        org: OrgId(u16::try_from(id % u32::from(ORGS)).unwrap_or(0)),
        zone: format!("zone-{}", id % 2),
        capacity: 1,
        key: node_key(node).public(),
        tls_key_hash: tagged(b"simulated tls key", &[&id.to_be_bytes()]),
        peer_addr: format!("node-{id}:1"),
        client_addr: format!("node-{id}:2"),
    }
}

/// The committee of the first incarnation of every shard, which has ended: simulated shards were
/// rebuilt once. What it signed is judged by it, and refused.
#[must_use]
pub fn ended(committee: &Committee) -> Committee {
    Committee { incarnation: Incarnation(0), ..committee.clone() }
}

/// The genesis of a seed's cluster.
///
/// # Errors
/// A text that says why `shape` cannot make a cluster.
pub fn genesis(seed: u64, shape: &Shape) -> Result<Genesis, String> {
    let all = shape.nodes + shape.newcomers;
    if all as usize > NODE_KEYS {
        return Err(format!("the simulator has keys for {NODE_KEYS} nodes, not for {all}"));
    }
    let seed_hash: Hash32 = tagged(b"simulated genesis", &[&seed.to_be_bytes()]);
    let nodes: Vec<NodeInfo> = (0..shape.nodes).map(node_info).collect();
    let constraints = Constraints::default();
    let mut seats = vec![GroupSeats { group: GroupId::BEACON, seats: shape.beacon_replicas, engine: shape.beacon }];
    let engine = |ordinal: u32| if shape.byzantine.contains(&ordinal) { Engine::Bft } else { Engine::Raft };
    seats.extend((0..).zip(&shape.shard_replicas).map(|(ordinal, seats)| GroupSeats {
        group: GroupId::shard(ordinal),
        seats: *seats,
        engine: engine(ordinal),
    }));
    let seated = assign(&seed_hash, &nodes, &seats, &constraints).map_err(|error| error.to_string())?;
    let committees = seated
        .into_iter()
        .map(|(group, members)| {
            let members = members.into_iter().filter_map(|id| {
                let node = nodes.iter().find(|node| node.id == id)?;
                Some(Member { node: node.id, org: node.org, key: node.key })
            });
            let incarnation = Incarnation(u32::from(group != GroupId::BEACON));
            let wanted = seats.iter().find(|wanted| wanted.group == group);
            let engine = wanted.map_or(Engine::Raft, |wanted| wanted.engine);
            Committee::of(engine, group, incarnation, Epoch(0), members.collect())
        })
        .collect();
    let shards = u32::try_from(shape.shard_replicas.len()).unwrap_or(u32::MAX);
    let genesis = Genesis {
        version: 1,
        name: NAMES[usize::from(shape.anchors)].to_owned(),
        created_ms: TimeMs(CREATED_MS),
        seed: seed_hash,
        orgs: (0..ORGS).map(org).collect(),
        nodes,
        committees,
        layout: Layout::even(shards),
        verify: if seed % 4 == 3 { VerifyMode::Every } else { VerifyMode::Ingest },
        policies: Default::default(),
    };
    check(&genesis).map_err(|fault| fault.to_string())?;
    // Channels are founded while a cluster runs. A simulated one begins as if some had been: what
    // their foundings would have written and mailed is there from the start.
    let mut genesis = genesis;
    for ordinal in 0..shape.channels {
        let seats = genesis.nodes.iter().take(CHANNEL_SEATS as usize);
        let seats = seats.map(|node| Member { node: node.id, org: node.org, key: node.key }).collect();
        let (engine, group) = (shape.channel_engine, GroupId::channel(ordinal));
        genesis.committees.push(Committee::of(engine, group, Incarnation(0), Epoch(0), seats));
    }
    Ok(genesis)
}

/// The anchors that channels begin with, as the beacon would have told everybody; none where they begin without.
#[must_use]
pub fn anchors(genesis: &Genesis) -> Vec<AnchorsUpdate> {
    if genesis.name != NAMES[1] {
        return Vec::new();
    }
    let of = |channel: GroupId| {
        let named = charter(genesis, channel).members.into_iter().flat_map(|member| member.anchors);
        let anchors = named.collect::<BTreeSet<NodeId>>().into_iter().collect();
        AnchorsUpdate { version: ANCHORS_UPDATE_VERSION, channel, anchors }
    };
    channels(genesis).into_iter().map(of).collect()
}

/// The channels of a simulated cluster.
#[must_use]
pub fn channels(genesis: &Genesis) -> Vec<GroupId> {
    let groups = genesis.committees.iter().map(|committee| committee.group);
    groups.filter(|group| group.kind() == Some(GroupKind::Channel)).collect()
}

/// What a channel starts from: all organisations are members, and a majority of their admins decides.
#[must_use]
pub fn charter(genesis: &Genesis, group: GroupId) -> Charter {
    let committee = genesis.committee(group);
    let seats = committee.map_or(&[][..], |committee| &committee.members[..]);
    let member = |org: &OrgInfo| {
        let own = seats.iter().filter(|seat| seat.org == org.id);
        let nodes: Vec<MemberNode> = own.map(|seat| MemberNode { node: seat.node, key: seat.key }).collect();
        MemberRecord {
            version: 1,
            org: org.id,
            name: org.name.clone(),
            joined: Height(0),
            keys: vec![RoleKey { key: org.admin_key, role: Role::Admin }],
            anchors: nodes.iter().take(1).map(|node| node.node).collect(),
            nodes,
        }
    };
    let policy = Policy::members(Quorum::Majority, Role::Admin);
    Charter {
        version: CHARTER_VERSION,
        cluster: genesis.cluster_id(),
        group,
        name: format!("channel-{}", group.ordinal()),
        engine: committee.map_or(Engine::Raft, |committee| committee.engine),
        founding: tagged(b"simulated founding", &[&group.0.to_be_bytes()]),
        started_ms: genesis.created_ms,
        members: genesis.orgs.iter().map(member).collect(),
        invited: Vec::new(),
        policies: Subject::ALL.map(|subject| (subject, policy.clone())).to_vec(),
        promise: None,
    }
}

/// What every channel knows of the registry from the start.
#[must_use]
pub fn extract(genesis: &Genesis) -> RegistryUpdate {
    let org = |org: &OrgInfo| OrgEntry {
        org: org.id,
        name: org.name.clone(),
        ca_hash: sha256(org.ca_pem.as_bytes()),
        admin_key: org.admin_key,
    };
    let node = |node: &NodeInfo| NodeEntry { node: node.id, org: node.org, key: node.key };
    RegistryUpdate {
        version: NOTICE_VERSION,
        orgs: genesis.orgs.iter().map(org).collect(),
        nodes: genesis.nodes.iter().map(node).collect(),
        revoked: Vec::new(),
    }
}
