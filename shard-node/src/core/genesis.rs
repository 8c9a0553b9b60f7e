//! The first state of a group: block 0, whose header every replica computes from the genesis.

use ledger::genesis::Genesis;
use ledger::hash::{Hash32, sha256};
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{GroupId, Height, Incarnation};
use ledger::merkle;
use ledger::schema;
use ledger::tree::PLACEHOLDER;

use crate::core::applied::AppliedRecord;
use crate::core::records::BlockRecord;

/// Writes of block 0.
pub struct GenesisState {
    /// Keys and values, sorted by key.
    pub writes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The header of block 0.
    pub header: Header,
    /// What the first real block continues from.
    pub applied: AppliedRecord,
}

/// A group that the genesis does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the genesis names no committee for {0}")]
pub struct NoSuchGroup(pub GroupId);

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

/// Computes block 0 of a group.
///
/// # Errors
/// [`NoSuchGroup`] when the genesis has no committee for it.
pub fn genesis_state(genesis: &Genesis, group: GroupId) -> Result<GenesisState, NoSuchGroup> {
    let committee = genesis.committee(group).ok_or(NoSuchGroup(group))?;
    let committee_hash = committee.hash();
    let header = Header {
        version: HEADER_VERSION,
        cluster: genesis.cluster_id(),
        group,
        incarnation: Incarnation(0),
        height: Height(0),
        parents: vec![Hash32::ZERO],
        time_ms: genesis.created_ms,
        layout_version: genesis.layout.version,
        batch_root: merkle::root(&[]),
        receipts_root: merkle::root(&[]),
        state_root: Hash32(PLACEHOLDER),
        outbox_root: cross_shard::stream::root(&[]),
        inbox_cursors_root: cross_shard::stream::root(&[]),
        value_flow: Vec::new(),
        congestion: Vec::new(),
        committee_hash,
        next_committee_hash: committee_hash,
        flags: 0,
    };
    let applied = AppliedRecord {
        version: 1,
        consensus: consensus::port::AppliedState::default(),
        height: Height(0),
        header_hash: header.hash(),
        time_ms: genesis.created_ms,
        state_root: header.state_root,
    };
    let mut writes = vec![
        (schema::layout(), encoded(&genesis.layout)),
        (schema::header(Height(0)), encoded(&header)),
        (schema::block(Height(0)), encoded(&BlockRecord::default())),
        (schema::applied(), encoded(&applied)),
    ];
    for committee in &genesis.committees {
        writes.push((schema::committee(committee.group, &committee.hash()), encoded(committee)));
        writes.push((schema::current_committee(committee.group), encoded(committee)));
    }
    if group == GroupId::BEACON {
        writes.extend(beacon::registry::genesis_writes(genesis));
    }
    writes.sort();
    Ok(GenesisState { writes, header, applied })
}

/// Hash of everything block 0 writes, for tests that pin it.
#[must_use]
pub fn writes_hash(writes: &[(Vec<u8>, Vec<u8>)]) -> Hash32 {
    sha256(&encoded(&writes.to_vec()))
}
