//! Epochs as anybody is given them: the records, the deals, and what proves them.
//!
//! Whoever checks needs the genesis and nothing else. From the committee there hand-overs lead to the one that certified
//! the header. The beacon's state tree commits to the records that are kept, a record to its deal. From there on everything is recomputed: commitments, seeds, assignments.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::certificate::{Certificate, CertificateError};
use ledger::committee::Committee;
use ledger::handover::{self, Handover, HandoverError};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{ClusterId, GroupId, Height, NodeId};
use ledger::schema;
use ledger::tree::{self, BitPrefix, TreeProof, value_hash};
use ledger::view::View;

use super::{
    Deal, EPOCH_VERSION, EpochFault, EpochHead, EpochPolicy, EpochRecord, Round, Tally, Target, check_records,
};
use crate::registry;

/// What the beacon holds about epochs, as of one block; unproved.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochBook {
    /// Format version, [`EPOCH_VERSION`].
    pub version: u8,
    /// The policy in force.
    pub policy: EpochPolicy,
    /// The epoch that runs.
    pub round: Option<Round>,
    /// The seed by which chance is decided at present.
    pub seed: Hash32,
    /// Whether the next deal evens seats out.
    pub rebalance: bool,
    /// The epochs that are kept, the latest last.
    pub records: Vec<EpochRecord>,
    /// Their deals.
    pub deals: Vec<Deal>,
    /// What deals want and is not so yet, by group.
    pub targets: Vec<Target>,
    /// What each member has done so far, by node.
    pub tallies: Vec<Tally>,
    /// Nodes that take no seat, whatever their capacity, ascending.
    pub barred: Vec<NodeId>,
}

impl EpochBook {
    /// As the beacon's state has it.
    pub fn read(view: &mut View<'_>) -> Self {
        Self {
            version: EPOCH_VERSION,
            policy: super::policy(view),
            round: super::round(view),
            seed: registry::seed(view).unwrap_or_default(),
            rebalance: super::rebalances(view),
            records: super::records(view),
            deals: super::deals(view),
            targets: super::targets(view),
            tallies: super::tallies(view),
            barred: crate::nodes::barred(view),
        }
    }
}

/// Version written into new proofs.
pub const EPOCH_PROOF_FORMAT: u8 = 1;
/// What a file with a proof begins with.
pub const EPOCH_FILE_MAGIC: &[u8; 8] = b"SEAMEPFL";

/// The epochs that are kept, with what proves them.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochProof {
    /// Format version, [`EPOCH_PROOF_FORMAT`].
    pub version: u8,
    /// The records, the latest last.
    pub records: Vec<EpochRecord>,
    /// Their deals, ascending.
    pub deals: Vec<Deal>,
    /// From the state root of the header to the [`EpochHead`].
    pub path: TreeProof,
    /// A header of the beacon under which they stand.
    pub certificate: Certificate,
    /// The committee of the beacon that certified it.
    pub committee: Committee,
    /// From the beacon's first committee to the last one before `committee`.
    pub handovers: Vec<Handover>,
}

/// Why epochs are not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochProofError {
    /// The bytes are no proof of this version.
    #[error("it does not decode: {0}")]
    Malformed(String),
    /// The header is of another cluster.
    #[error("it is of another cluster")]
    OtherCluster,
    /// The header is not certified by the beacon's committee.
    #[error("its certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
    /// The certified state holds other records, or none.
    #[error("the beacon's certified state does not hold these epochs: {0}")]
    Tree(#[from] tree::ProofError),
    /// What is to lead from the beacon's first committee to the one of the header does not.
    #[error("the hand-overs of the beacon's committee do not hold: {0}")]
    Handover(#[from] HandoverError),
    /// What is in it does not follow.
    #[error(transparent)]
    Fault(#[from] EpochFault),
}

impl EpochProofError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "epoch_malformed",
            Self::OtherCluster => "epoch_other_cluster",
            Self::Certificate(_) => "epoch_certificate",
            Self::Tree(_) => "epoch_not_in_state",
            Self::Handover(_) => "epoch_handover",
            Self::Fault(fault) => fault.code(),
        }
    }
}

impl EpochProof {
    /// Encodes for the wire and for files.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes. Says nothing about whether the proof holds.
    ///
    /// # Errors
    /// [`EpochProofError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EpochProofError> {
        let proof: Self = borsh::from_slice(bytes).map_err(|error| EpochProofError::Malformed(error.to_string()))?;
        match proof.version {
            EPOCH_PROOF_FORMAT => Ok(proof),
            other => Err(EpochProofError::Malformed(format!("version {other}"))),
        }
    }

    /// The bytes of a file: [`EPOCH_FILE_MAGIC`], the proof, and `sha256` of both.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let mut bytes = EPOCH_FILE_MAGIC.to_vec();
        bytes.extend(self.encode());
        let check = sha256(&bytes);
        bytes.extend_from_slice(&check.0);
        bytes
    }

    /// Reads what [`EpochProof::to_file`] wrote. Says nothing about whether the proof holds.
    ///
    /// # Errors
    /// [`EpochProofError::Malformed`].
    pub fn of_file(bytes: &[u8]) -> Result<Self, EpochProofError> {
        let malformed = |cause: &str| EpochProofError::Malformed(cause.to_owned());
        let (content, check) =
            bytes.len().checked_sub(32).map(|at| bytes.split_at(at)).ok_or_else(|| malformed("it is cut off"))?;
        let proof = content.strip_prefix(EPOCH_FILE_MAGIC).ok_or_else(|| malformed("it is no file of epochs"))?;
        if sha256(content).0 != *check {
            return Err(malformed("it is damaged"));
        }
        Self::decode(proof)
    }

    /// Judges the proof by the first committee of the beacon, that of the genesis, and recomputes everything. Returns the
    /// height of the header that proves it.
    ///
    /// # Errors
    /// [`EpochProofError`] names the first thing that does not hold.
    pub fn verify(&self, cluster: &ClusterId, first: &Committee) -> Result<Height, EpochProofError> {
        self.check(cluster)?;
        let header = &self.certificate.header;
        if header.cluster != *cluster || first.group != GroupId::BEACON {
            return Err(EpochProofError::OtherCluster);
        }
        let followed = handover::follow(cluster, GroupId::BEACON, first.hash(), &self.handovers)?;
        if self.committee.hash() != followed.committee || !self.committee.well_formed() {
            return Err(HandoverError::Unnamed.into());
        }
        if followed.after.is_some_and(|height| header.height <= height) {
            return Err(HandoverError::Order.into());
        }
        self.certificate.verify(&self.committee)?;
        let leaf = borsh::to_vec(&EpochHead::of(&self.records)).expect("writing to memory does not fail");
        let position = schema::tree_position(&registry::epochs_key()).expect("the head is a leaf of the state tree");
        self.path.verify_inclusion(&header.state_root.0, &BitPrefix::ROOT, &position, &value_hash(&leaf))?;
        Ok(header.height)
    }

    /// Recomputes all that is in it, whatever proves it: each secret against its commitment, each seed, each deal.
    ///
    /// # Errors
    /// [`EpochFault`] names the first thing that does not hold.
    pub fn check(&self, cluster: &ClusterId) -> Result<(), EpochFault> {
        check_records(&self.records, cluster)?;
        for record in &self.records {
            let mut found = self.deals.iter().filter(|deal| deal.epoch == record.epoch);
            let deal = found.next();
            let named = deal.map(Deal::hash) == record.deal && found.next().is_none();
            if !named || deal.is_some_and(|deal| deal.seed != record.seed) {
                return Err(EpochFault::Deal(record.epoch));
            }
            deal.map_or(Ok(()), Deal::check)?;
        }
        let kept = |deal: &&Deal| self.records.iter().any(|record| record.epoch == deal.epoch);
        match self.deals.iter().find(|deal| !kept(deal)) {
            Some(stray) => Err(EpochFault::Deal(stray.epoch)),
            None => Ok(()),
        }
    }
}
