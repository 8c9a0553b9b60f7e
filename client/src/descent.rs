//! How the committee that signed a header follows from the genesis, which is all that a verifier trusts.
//!
//! A group of the genesis has its first committee there. A channel is founded later: its first committee
//! stands in the state of the beacon, under a header that the beacon's committee certified. From the first
//! committee of a group to any later one leads a chain of headers, each certified by the committee before
//! and naming the next. Pure.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::genesis::Genesis;
pub use ledger::handover::Handover;
use ledger::handover::{self, HandoverError};
use ledger::tree::{BitPrefix, TreeProof, value_hash};
use ledger::{Certificate, Committee, FoundedGroup, GroupId, Hash32, Header, schema};

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

impl FoundedProof {
    /// The hash of the group's first committee.
    fn first(&self, group: GroupId, genesis: &Genesis) -> Result<Hash32, ProofError> {
        let header = &self.certificate.header;
        if header.group != GroupId::BEACON || self.leaf.version != 1 || self.leaf.group != group {
            return Err(ProofError::Committee("what is to prove the founding is of another group"));
        }
        Descent { committee: &self.committee, handovers: &self.handovers, founded: None }.check(header, genesis)?;
        self.certificate.verify(&self.committee)?;
        let position = schema::tree_position(&schema::founded(group)).expect("it is a leaf of the state tree");
        let leaf = borsh::to_vec(&self.leaf).expect("writing to memory does not fail");
        let held = self.path.verify_inclusion(&header.state_root.0, &BitPrefix::ROOT, &position, &value_hash(&leaf));
        held.map_err(|_| ProofError::Committee("the beacon's state does not hold the founding"))?;
        Ok(self.leaf.committee)
    }
}

/// What a committee follows from.
pub(crate) struct Descent<'a> {
    /// The committee.
    pub(crate) committee: &'a Committee,
    /// From the group's first committee to the last one before it.
    pub(crate) handovers: &'a [Handover],
    /// For a group that the genesis does not name.
    pub(crate) founded: Option<&'a FoundedProof>,
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
        let first = match (genesis.committee(group), self.founded) {
            (Some(first), None) => first.hash(),
            (None, Some(founded)) => founded.first(group, genesis)?,
            (None, None) => {
                return Err(ProofError::Committee("the genesis has no such group, and nothing proves its founding"));
            }
            (Some(_), Some(_)) => return Err(ProofError::Committee("a group of the genesis was not founded later")),
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
