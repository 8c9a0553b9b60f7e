//! The first state of a group: block 0, whose header every replica computes from the genesis, and for
//! a group that was founded at run time from its foundation, too.

use channel::Charter;
use ledger::committee::Committee;
use ledger::foundation::Foundation;
use ledger::genesis::Genesis;
use ledger::hash::{Hash32, sha256};
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{GroupId, Height, Incarnation, TimeMs};
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

/// Why a group has no block 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Neither the genesis nor a foundation names it.
    #[error("neither the genesis nor the registry says how {0} began")]
    NoSuchGroup(GroupId),
    /// The charter of its foundation is none, or is one of something else.
    #[error("the charter that {group} was founded with cannot be used: {cause}")]
    Charter {
        /// The group.
        group: GroupId,
        /// What is wrong.
        cause: String,
    },
}

/// How a group began, beside the genesis: groups of the genesis have no foundation.
pub type Founded<'a> = Option<&'a Foundation>;

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

/// Where a group begins.
struct Beginning<'a> {
    committee: &'a Committee,
    /// Committees that the group knows from the start, its own among them.
    committees: Vec<&'a Committee>,
    parent: Hash32,
    time_ms: TimeMs,
    layout: &'a Layout,
}

impl<'a> Beginning<'a> {
    fn of(genesis: &'a Genesis, founded: Founded<'a>, group: GroupId) -> Result<Self, GenesisError> {
        if let Some(committee) = genesis.committee(group) {
            return Ok(Self {
                committee,
                committees: genesis.committees.iter().collect(),
                parent: Hash32::ZERO,
                time_ms: genesis.created_ms,
                layout: &genesis.layout,
            });
        }
        let founded = founded.filter(|founded| founded.group == group).ok_or(GenesisError::NoSuchGroup(group))?;
        Ok(Self {
            committee: &founded.committee,
            committees: vec![&founded.beacon_committee, &founded.committee],
            parent: founded.hash(),
            time_ms: founded.founded_ms,
            layout: &founded.layout,
        })
    }
}

/// Computes block 0 of a group: of one that the genesis names from the genesis alone, of any other
/// from its foundation, which its header names as the parent. That of a founded channel commits to what
/// its charter says.
///
/// # Errors
/// [`GenesisError`] when neither names it, or its charter is of no use.
pub fn genesis_state(genesis: &Genesis, founded: Founded<'_>, group: GroupId) -> Result<GenesisState, GenesisError> {
    let Beginning { committee, committees, parent, time_ms, layout } = Beginning::of(genesis, founded, group)?;
    let committee_hash = committee.hash();
    let header = Header {
        version: HEADER_VERSION,
        cluster: genesis.cluster_id(),
        group,
        incarnation: Incarnation(0),
        height: Height(0),
        parents: vec![parent],
        time_ms,
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
        time_ms,
        state_root: header.state_root,
    };
    let mut writes = vec![
        (schema::layout(), encoded(layout)),
        (schema::header(Height(0)), encoded(&header)),
        (schema::block(Height(0)), encoded(&BlockRecord::default())),
        (schema::applied(), encoded(&applied)),
    ];
    for committee in committees {
        writes.push((schema::committee(committee.group, &committee.hash()), encoded(committee)));
        writes.push((schema::current_committee(committee.group), encoded(committee)));
    }
    if group == GroupId::BEACON {
        writes.extend(beacon::registry::genesis_writes(genesis));
    }
    writes.sort();
    let base = GenesisState { writes, header, applied };
    let Some(founded) = founded.filter(|_| genesis.committee(group).is_none()) else { return Ok(base) };
    let useless = |cause: String| GenesisError::Charter { group, cause };
    let charter: Charter = borsh::from_slice(&founded.charter).map_err(|error| useless(error.to_string()))?;
    if charter.group != group {
        return Err(useless(format!("it is that of {}", charter.group)));
    }
    with_charter(base, &charter).map_err(|error| useless(error.to_string()))
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
