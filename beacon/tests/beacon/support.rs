//! A small consortium for the tests.

use std::collections::BTreeMap;

use beacon::genesis::first_committees;
use beacon::{Constraints, registry};
use bytes::Bytes;
use ledger::certificate::Certificate;
use ledger::crypto::SecretKey;
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::{Hash32, sha256};
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{GroupId, Height, NodeId, OrgId, TimeMs};
use ledger::layout::Layout;
use ledger::machine::BlockContext;
use ledger::view::View;

pub type State = BTreeMap<Vec<u8>, Bytes>;

pub const NOW: u64 = 1_700_000_000_000;
pub const CA: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

pub fn admin(org: u16) -> SecretKey {
    SecretKey::derive(b"admin", &org.to_be_bytes())
}

pub fn node_key(node: u32) -> SecretKey {
    SecretKey::derive(b"node", &node.to_be_bytes())
}

pub fn org(id: u16) -> OrgInfo {
    OrgInfo { id: OrgId(id), name: format!("org-{id}"), ca_pem: CA.to_owned(), admin_key: admin(id).public() }
}

pub fn node(id: u32, org: u16, zone: &str) -> NodeInfo {
    NodeInfo {
        id: NodeId(id),
        org: OrgId(org),
        zone: zone.to_owned(),
        capacity: 1,
        key: node_key(id).public(),
        tls_key_hash: sha256(&id.to_be_bytes()),
        peer_addr: format!("127.0.0.1:{}", 7000 + id),
        client_addr: format!("127.0.0.1:{}", 8000 + id),
    }
}

/// Nodes 1 to `count`, dealt to organisations (and zones) in turn.
pub fn dealt(count: u32, orgs: u16) -> Vec<NodeInfo> {
    (0..count)
        .map(|index| {
            let org = u16::try_from(index % u32::from(orgs)).unwrap() + 1;
            node(index + 1, org, &format!("zone-{org}"))
        })
        .collect()
}

pub fn genesis() -> Genesis {
    let nodes = dealt(5, 3);
    let seed = Hash32([7; 32]);
    Genesis {
        version: 1,
        name: "test".to_owned(),
        created_ms: TimeMs(NOW),
        seed,
        orgs: (1..=3).map(org).collect(),
        committees: first_committees(&seed, &nodes, 4, 3, 3, &Constraints::default()).unwrap(),
        nodes,
        layout: Layout::even(4),
        verify: VerifyMode::Every,
        policies: Default::default(),
    }
}

pub fn state_of(genesis: &Genesis) -> State {
    registry::genesis_writes(genesis).into_iter().map(|(key, value)| (key, Bytes::from(value))).collect()
}

pub fn at(genesis: &Genesis, time_ms: u64) -> BlockContext {
    BlockContext { cluster: genesis.cluster_id(), group: GroupId::BEACON, height: Height(1), time_ms: TimeMs(time_ms) }
}

/// Applies the writes of one block.
pub fn settle(state: &State, block: impl FnOnce(&mut View<'_>)) -> State {
    let mut view = View::new(state);
    block(&mut view);
    let mut next = state.clone();
    for (key, value) in view.into_writes().unwrap() {
        match value {
            Some(value) => next.insert(key, value),
            None => next.remove(&key),
        };
    }
    next
}

/// A header of a group, signed by all of its committee.
pub fn certified(genesis: &Genesis, group: GroupId, height: u64, root: u8) -> Certificate {
    let committee = genesis.committee(group).unwrap();
    let header = Header {
        version: HEADER_VERSION,
        cluster: genesis.cluster_id(),
        group,
        incarnation: committee.incarnation,
        height: Height(height),
        parents: vec![Hash32::ZERO],
        time_ms: TimeMs(NOW + height),
        layout_version: genesis.layout.version,
        batch_root: Hash32::ZERO,
        receipts_root: Hash32::ZERO,
        state_root: Hash32([root; 32]),
        outbox_root: Hash32::ZERO,
        inbox_cursors_root: Hash32::ZERO,
        value_flow: Vec::new(),
        congestion: Vec::new(),
        committee_hash: committee.hash(),
        next_committee_hash: committee.hash(),
        flags: 0,
    };
    let digest = header.hash();
    let signatures =
        committee.members.iter().map(|member| (member.node, node_key(member.node.0).sign(&digest))).collect();
    Certificate { version: 1, header, signatures }
}
