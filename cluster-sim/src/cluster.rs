//! The simulated cluster's genesis and its keys. Keys come from a fixed pool, since deriving them is
//! the slowest part of a small run; the seed decides which of them a run uses.

use std::sync::OnceLock;

use beacon::assign::{Constraints, FaultModel, GroupSeats, assign};
use beacon::genesis::check;
use ledger::committee::{Committee, Member};
use ledger::crypto::SecretKey;
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{Epoch, GroupId, Incarnation, NodeId, OrgId, TimeMs};
use ledger::layout::Layout;

use crate::config::Shape;

/// When every simulated cluster was made.
pub const CREATED_MS: u64 = 1_750_000_000_000;
/// Account keys in the pool.
pub const ACCOUNT_KEYS: usize = 96;

const NODE_KEYS: usize = 32;
const ORGS: u16 = 3;

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

/// The key of a node.
#[must_use]
pub fn node_key(node: NodeId) -> &'static SecretKey {
    static POOL: OnceLock<Vec<SecretKey>> = OnceLock::new();
    &pool(&POOL, b"simulated nodes", NODE_KEYS)[node.0 as usize % NODE_KEYS]
}

fn org(id: u16) -> OrgInfo {
    static POOL: OnceLock<Vec<SecretKey>> = OnceLock::new();
    OrgInfo {
        id: OrgId(id),
        name: format!("org-{id}"),
        ca_pem: "-----BEGIN CERTIFICATE-----\nc2ltdWxhdGVk\n-----END CERTIFICATE-----".to_owned(),
        admin_key: pool(&POOL, b"simulated organisations", usize::from(ORGS))[usize::from(id)].public(),
    }
}

fn node(id: u32) -> NodeInfo {
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
    if shape.nodes as usize > NODE_KEYS {
        return Err(format!("the simulator has keys for {NODE_KEYS} nodes, not for {}", shape.nodes));
    }
    let seed_hash: Hash32 = tagged(b"simulated genesis", &[&seed.to_be_bytes()]);
    let nodes: Vec<NodeInfo> = (0..shape.nodes).map(node).collect();
    let constraints = Constraints { faults: FaultModel::default(), strict: false, held: Default::default() };
    let mut seats = vec![GroupSeats { group: GroupId::BEACON, seats: shape.beacon_replicas }];
    seats.extend(
        (0..)
            .zip(&shape.shard_replicas)
            .map(|(ordinal, seats)| GroupSeats { group: GroupId::shard(ordinal), seats: *seats }),
    );
    let seated = assign(&seed_hash, &nodes, &seats, &constraints).map_err(|error| error.to_string())?;
    let committees = seated
        .into_iter()
        .map(|(group, members)| {
            let members = members.into_iter().filter_map(|id| {
                let node = nodes.iter().find(|node| node.id == id)?;
                Some(Member { node: node.id, org: node.org, key: node.key })
            });
            let incarnation = Incarnation(u32::from(group != GroupId::BEACON));
            Committee::majority(group, incarnation, Epoch(0), members.collect())
        })
        .collect();
    let shards = u32::try_from(shape.shard_replicas.len()).unwrap_or(u32::MAX);
    let genesis = Genesis {
        version: 1,
        name: "simulated".to_owned(),
        created_ms: TimeMs(CREATED_MS),
        seed: seed_hash,
        orgs: (0..ORGS).map(org).collect(),
        nodes,
        committees,
        layout: Layout::even(shards),
        verify: if seed % 4 == 3 { VerifyMode::Every } else { VerifyMode::Ingest },
    };
    check(&genesis).map_err(|fault| fault.to_string())?;
    Ok(genesis)
}
