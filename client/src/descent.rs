//! How the committee that signed a header follows from the genesis, which is all that a verifier trusts.
//!
//! A group of the genesis has its first committee there. A channel is founded later, and shards are cut and joined into
//! others: their first committees stand in the state of the beacon, under a header that the beacon's committee
//! certified. From the first
//! committee of a group to any later one leads a chain of headers, each certified by the committee before
//! and naming the next. Pure.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::genesis::Genesis;
pub use ledger::handover::Handover;
use ledger::handover::{self, HandoverError};
use ledger::lineage::BORN_VERSION;
use ledger::tree::{BitPrefix, TreeProof, value_hash};
use ledger::{BornShard, Certificate, Committee, FoundedGroup, GroupId, Hash32, Header, schema};

use crate::proof::ProofError;

/// With which committee a group began that the genesis does not name, and what proves it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FoundedProof {
    /// What the beacon's state says of the group.
    pub leaf: FoundedGroup,
    /// The path to it in the beacon's state tree.
    pub path: TreeProof,
    /// A header of the beacon, certified, from the founding on.
    pub certificate: Certificate,
    /// The beacon's committee that certified it.
    pub committee: Committee,
    /// From the beacon's first committee to the last one before `committee`.
    pub handovers: Vec<Handover>,
}

/// With which committee a shard began that others were cut or joined into, what it owns, and what proves it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BornProof {
    /// What the beacon's state says of the shard.
    pub leaf: BornShard,
    /// The path to it in the beacon's state tree.
    pub path: TreeProof,
    /// A header of the beacon, certified, from the birth on.
    pub certificate: Certificate,
    /// The beacon's committee that certified it.
    pub committee: Committee,
    /// From the beacon's first committee to the last one before `committee`.
    pub handovers: Vec<Handover>,
}

impl FoundedProof {
    /// The hash of the group's first committee.
    fn first(&self, group: GroupId, genesis: &Genesis) -> Result<Hash32, ProofError> {
        if self.leaf.version != 1 || self.leaf.group != group {
            return Err(OTHER_GROUP);
        }
        let leaf = borsh::to_vec(&self.leaf).expect("writing to memory does not fail");
        let Self { path, certificate, committee, handovers, .. } = self;
        held(&schema::founded(group), &leaf, path, certificate, committee, handovers, genesis)?;
        Ok(self.leaf.committee)
    }
}

impl BornProof {
    /// The hash of the shard's first committee.
    fn first(&self, group: GroupId, genesis: &Genesis) -> Result<Hash32, ProofError> {
        if self.leaf.version != BORN_VERSION || self.leaf.group != group {
            return Err(OTHER_GROUP);
        }
        let leaf = borsh::to_vec(&self.leaf).expect("writing to memory does not fail");
        let Self { path, certificate, committee, handovers, .. } = self;
        held(&schema::born(group), &leaf, path, certificate, committee, handovers, genesis)?;
        Ok(self.leaf.committee)
    }
}

const OTHER_GROUP: ProofError = ProofError::Committee("what is to prove the group's beginning is of another group");

/// Checks that the beacon's certified state holds a leaf.
fn held(
    key: &[u8],
    leaf: &[u8],
    path: &TreeProof,
    certificate: &Certificate,
    committee: &Committee,
    handovers: &[Handover],
    genesis: &Genesis,
) -> Result<(), ProofError> {
    let header = &certificate.header;
    if header.group != GroupId::BEACON {
        return Err(OTHER_GROUP);
    }
    Descent { committee, handovers, founded: None, born: None }.check(header, genesis)?;
    certificate.verify(committee)?;
    let position = schema::tree_position(key).expect("it is a leaf of the state tree");
    path.verify_inclusion(&header.state_root.0, &BitPrefix::ROOT, &position, &value_hash(leaf))
        .map_err(|_| ProofError::Committee("the beacon's state does not hold the group's beginning"))
}

/// What a committee follows from.
pub(crate) struct Descent<'a> {
    /// The committee.
    pub(crate) committee: &'a Committee,
    /// From the group's first committee to the last one before it.
    pub(crate) handovers: &'a [Handover],
    /// For a channel, which the genesis does not name.
    pub(crate) founded: Option<&'a FoundedProof>,
    /// For a shard that the genesis does not name.
    pub(crate) born: Option<&'a BornProof>,
}

impl Descent<'_> {
    /// Checks that the committee is that of the group of `header` at its height. The certificate over the
    /// header itself is for the caller to verify by that committee.
    ///
    /// # Errors
    /// [`ProofError`] names the first thing that does not hold.
    pub(crate) fn check(&self, header: &Header, genesis: &Genesis) -> Result<(), ProofError> {
        let (cluster, group) = (genesis.cluster_id(), header.group);
        if header.cluster != cluster {
            return Err(ProofError::OtherCluster { found: header.cluster, expected: cluster });
        }
        let first = match (genesis.committee(group), self.founded, self.born) {
            (Some(first), None, None) => first.hash(),
            (None, Some(founded), None) => founded.first(group, genesis)?,
            (None, None, Some(born)) => born.first(group, genesis)?,
            (None, None, None) => {
                return Err(ProofError::Committee("the genesis has no such group, and nothing proves its beginning"));
            }
            (Some(_), ..) => return Err(ProofError::Committee("a group of the genesis did not begin later")),
            (None, Some(_), Some(_)) => return Err(ProofError::Committee("a group begins once")),
        };
        let followed = handover::follow(&cluster, group, first, self.handovers).map_err(failed)?;
        if followed.after.is_some_and(|height| header.height <= height) {
            return Err(ProofError::Committee("the steps go beyond the proof"));
        }
        if self.committee.hash() != followed.committee || !self.committee.well_formed() {
            return Err(ProofError::Committee("it is not the one that the genesis or the last step names"));
        }
        Ok(())
    }
}

fn failed(error: HandoverError) -> ProofError {
    match error {
        HandoverError::OtherChain => ProofError::Committee("a step is of another chain"),
        HandoverError::Unnamed => ProofError::Committee("a step is signed by a committee that nobody named"),
        HandoverError::Order => ProofError::Committee("the steps are out of order"),
        HandoverError::Certificate(error) => error.into(),
    }
}
