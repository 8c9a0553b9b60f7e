//! The first state of a group: block 0, whose header every replica computes from the genesis.

use channel::Charter;
use ledger::committee::Committee;
use ledger::genesis::Genesis;
use ledger::hash::{Hash32, sha256};
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{ClusterId, GroupId, Height, Incarnation, TimeMs};
use ledger::layout::Layout;
use ledger::merkle;
use ledger::schema;
use ledger::tree::{BitPrefix, PLACEHOLDER, StateTree, TreeError, value_hash};

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

/// Where a group begins.
struct Beginning<'a> {
    cluster: ClusterId,
    parent: Hash32,
    time_ms: TimeMs,
    committee: &'a Committee,
    /// Committees that the group knows from the start, its own among them.
    known: Vec<&'a Committee>,
    layout: &'a Layout,
}

fn block_zero(beginning: &Beginning<'_>) -> GenesisState {
    let Beginning { cluster, parent, time_ms, committee, known, layout } = beginning;
    let committee_hash = committee.hash();
    let header = Header {
        version: HEADER_VERSION,
        cluster: *cluster,
        group: committee.group,
        incarnation: Incarnation(0),
        height: Height(0),
        parents: vec![*parent],
        time_ms: *time_ms,
        layout_version: layout.version,
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
        time_ms: *time_ms,
        state_root: header.state_root,
    };
    let mut writes = vec![
        (schema::layout(), encoded(*layout)),
        (schema::header(Height(0)), encoded(&header)),
        (schema::block(Height(0)), encoded(&BlockRecord::default())),
        (schema::applied(), encoded(&applied)),
    ];
    for committee in known {
        writes.push((schema::committee(committee.group, &committee.hash()), encoded(*committee)));
        writes.push((schema::current_committee(committee.group), encoded(*committee)));
    }
    GenesisState { writes, header, applied }
}

/// Computes block 0 of a group.
///
/// # Errors
/// [`NoSuchGroup`] when the genesis has no committee for it.
pub fn genesis_state(genesis: &Genesis, group: GroupId) -> Result<GenesisState, NoSuchGroup> {
    let mut state = block_zero(&Beginning {
        cluster: genesis.cluster_id(),
        parent: Hash32::ZERO,
        time_ms: genesis.created_ms,
        committee: genesis.committee(group).ok_or(NoSuchGroup(group))?,
        known: genesis.committees.iter().collect(),
        layout: &genesis.layout,
    });
    if group == GroupId::BEACON {
        state.writes.extend(beacon::registry::genesis_writes(genesis));
    }
    state.writes.sort();
    Ok(state)
}

/// What block 0 of a channel follows from, beside its charter: all of it stands in the record of its
/// founding.
pub struct ChannelStart<'a> {
    /// The cluster.
    pub cluster: ClusterId,
    /// What the header of block 0 names as its parent.
    pub parent: Hash32,
    /// Time of block 0: that of the beacon's block that founded the channel.
    pub time_ms: TimeMs,
    /// The channel's own committee.
    pub committee: &'a Committee,
    /// The beacon's, by which the channel judges its first mail.
    pub beacon_committee: &'a Committee,
    /// The layout in force.
    pub layout: &'a Layout,
}

/// Computes block 0 of a channel.
///
/// # Errors
/// As [`with_charter`].
pub fn genesis_state_of_channel(start: &ChannelStart<'_>, charter: &Charter) -> Result<GenesisState, TreeError> {
    let base = block_zero(&Beginning {
        cluster: start.cluster,
        parent: start.parent,
        time_ms: start.time_ms,
        committee: start.committee,
        known: vec![start.beacon_committee, start.committee],
        layout: start.layout,
    });
    with_charter(base, charter)
}

/// Puts what a charter says of members, policies and invitations into a block 0 that has no leaves
/// yet, which then commits to it.
///
/// # Errors
/// [`TreeError`] when the charter's leaves do not make a state; those of no charter do that.
pub fn with_charter(base: GenesisState, charter: &Charter) -> Result<GenesisState, TreeError> {
    let GenesisState { mut writes, mut header, mut applied } = base;
    let governance = charter.genesis_writes();
    let mut tree = StateTree::new(BitPrefix::ROOT);
    let leaves = governance.iter().filter_map(|(key, value)| Some((schema::tree_position(key)?, value)));
    tree.apply(leaves.map(|(position, value)| (position, Some(value_hash(value)))))?;
    header.state_root = Hash32(tree.root());
    applied.header_hash = header.hash();
    applied.state_root = header.state_root;
    for (key, value) in &mut writes {
        if *key == schema::header(Height(0)) {
            *value = encoded(&header);
        } else if *key == schema::applied() {
            *value = encoded(&applied);
        }
    }
    writes.extend(governance);
    writes.sort();
    Ok(GenesisState { writes, header, applied })
}

/// Hash of everything block 0 writes, for tests that pin it.
#[must_use]
pub fn writes_hash(writes: &[(Vec<u8>, Vec<u8>)]) -> Hash32 {
    sha256(&encoded(&writes.to_vec()))
}
