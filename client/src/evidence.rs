//! Files of evidence: that a member of a group has signed two ballots that exclude each other, with everything
//! needed to check it offline.
//!
//! Owns the format and the one function that judges it. What the ballots prove is for [`ledger::ballot`]; that their
//! committee was the group's is the word of a group that keeps the proof, under a header that its own committee
//! certified; whose committee that is, for [`crate::descent`]. Pure.

use std::io::{Read, Result as IoResult, Write};

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ballot::BallotError;
use ledger::evidence::EVIDENCE_VERSION;
use ledger::genesis::Genesis;
use ledger::layout;
use ledger::tree::{TreeProof, value_hash};
use ledger::{
    Certificate, ClusterId, Committee, Evidence, GroupId, GroupKind, Hash32, Header, Height, NodeId, TimeMs, schema,
};

use crate::descent::{BornProof, Descent, FoundedProof, Handover};
use crate::proof::{PROOF_BYTES_MAX, ProofError, tree_prefix};

/// First bytes of such a file.
pub const EVIDENCE_MAGIC: &[u8; 8] = b"SEAMEVID";
/// Version of files of a group that the genesis names or the beacon has founded.
pub const EVIDENCE_FORMAT: u8 = 1;
/// Version of files of a shard that others were cut or joined into: with the proof of its birth.
pub const EVIDENCE_OF_BORN: u8 = 2;

/// A proof that a member has voted twice, and what it follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceFile {
    /// Format version, [`EVIDENCE_OF_BORN`] with a proof of a birth, [`EVIDENCE_FORMAT`] without.
    pub version: u8,
    /// The two ballots, as a group keeps them.
    pub evidence: Evidence,
    /// The committee that the ballots name.
    pub accused: Committee,
    /// The path to the record in the state tree of the group that keeps it.
    pub path: TreeProof,
    /// A header of that group, certified, from the record on.
    pub certificate: Certificate,
    /// The committee that certified it.
    pub committee: Committee,
    /// From the group's first committee to the last one before `committee`.
    pub handovers: Vec<Handover>,
    /// What proves the first committee of a group that the genesis does not name. Its nodes leave it out.
    pub founded: Option<FoundedProof>,
    /// What proves the first committee and the prefix of a shard that the genesis does not name. Its nodes leave it out.
    pub born: Option<BornProof>,
}

impl BorshSerialize for EvidenceFile {
    fn serialize<W: Write>(&self, writer: &mut W) -> IoResult<()> {
        let Self { version, evidence, accused, path, certificate, committee, handovers, founded, born } = self;
        version.serialize(writer)?;
        evidence.serialize(writer)?;
        accused.serialize(writer)?;
        path.serialize(writer)?;
        certificate.serialize(writer)?;
        committee.serialize(writer)?;
        handovers.serialize(writer)?;
        founded.serialize(writer)?;
        if *version >= EVIDENCE_OF_BORN { born.serialize(writer) } else { Ok(()) }
    }
}

impl BorshDeserialize for EvidenceFile {
    fn deserialize_reader<R: Read>(reader: &mut R) -> IoResult<Self> {
        let version = u8::deserialize_reader(reader)?;
        Ok(Self {
            version,
            evidence: Evidence::deserialize_reader(reader)?,
            accused: Committee::deserialize_reader(reader)?,
            path: TreeProof::deserialize_reader(reader)?,
            certificate: Certificate::deserialize_reader(reader)?,
            committee: Committee::deserialize_reader(reader)?,
            handovers: Vec::deserialize_reader(reader)?,
            founded: Option::deserialize_reader(reader)?,
            born: match version >= EVIDENCE_OF_BORN {
                true => Option::deserialize_reader(reader)?,
                false => None,
            },
        })
    }
}

/// What a file has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedEvidence {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who has signed both.
    pub node: NodeId,
    /// What was signed.
    pub evidence: Evidence,
    /// The group that keeps it.
    pub kept_by: GroupId,
    /// The block that proves it.
    pub height: Height,
    /// Time of that block.
    pub time_ms: TimeMs,
    /// Hash of its header.
    pub header_hash: Hash32,
    /// The nodes that certified it.
    pub signers: Vec<NodeId>,
}

/// Why a file proves nothing against anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceFileError {
    /// Not such a file.
    #[error("this is no evidence: {0}; ask for it again")]
    Malformed(String),
    /// Of another cluster than the genesis.
    #[error("the evidence is of cluster {found}, the genesis is of {expected}; use the genesis of its cluster")]
    OtherCluster {
        /// That of the file.
        found: ClusterId,
        /// That of the genesis.
        expected: ClusterId,
    },
    /// The ballots prove nothing.
    #[error("the ballots prove nothing: {0}")]
    Ballots(#[from] BallotError),
    /// Whoever signed the header is not the group's committee.
    #[error("who signed it does not follow from the genesis: {0}")]
    Committee(ProofError),
    /// The state under the header does not hold it.
    #[error("it is not proved by the block's state: {0}")]
    NotInState(String),
}

impl EvidenceFileError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "evidence_malformed",
            Self::OtherCluster { .. } => "evidence_other_cluster",
            Self::Ballots(error) => error.code(),
            Self::Committee(_) => "evidence_committee",
            Self::NotInState(_) => "evidence_not_in_state",
        }
    }
}

impl EvidenceFile {
    /// The same file with what proves the birth of the shard that keeps the evidence.
    #[must_use]
    pub fn with_born(self, born: BornProof) -> Self {
        Self { version: EVIDENCE_OF_BORN, born: Some(born), ..self }
    }

    /// The version that knows what is in it.
    const fn own_version(&self) -> u8 {
        if self.born.is_some() { EVIDENCE_OF_BORN } else { EVIDENCE_FORMAT }
    }

    /// The bytes of a file: magic, then the encoding.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let mut bytes = EVIDENCE_MAGIC.to_vec();
        bytes.extend(borsh::to_vec(self).expect("writing to memory does not fail"));
        bytes
    }

    /// Reads the bytes of a file. Says nothing about whether the proof holds.
    ///
    /// # Errors
    /// `evidence_malformed`.
    pub fn from_file(bytes: &[u8]) -> Result<Self, EvidenceFileError> {
        if bytes.len() > PROOF_BYTES_MAX + EVIDENCE_MAGIC.len() {
            return Err(EvidenceFileError::Malformed("it is too large".to_owned()));
        }
        let body = bytes.strip_prefix(EVIDENCE_MAGIC);
        let body = body.ok_or_else(|| EvidenceFileError::Malformed("it does not start as it".to_owned()))?;
        borsh::from_slice(body).map_err(|error| EvidenceFileError::Malformed(error.to_string()))
    }
}

/// Judges evidence by a genesis that the caller trusts.
///
/// # Errors
/// [`EvidenceFileError`] names the first thing that does not hold.
pub fn verify(file: &EvidenceFile, genesis: &Genesis) -> Result<VerifiedEvidence, EvidenceFileError> {
    let EvidenceFile { evidence, accused, path, certificate, committee, handovers, founded, born, .. } = file;
    if file.version != file.own_version() || evidence.version != EVIDENCE_VERSION {
        return Err(EvidenceFileError::Malformed("unknown version".to_owned()));
    }
    let (cluster, header) = (genesis.cluster_id(), &certificate.header);
    if header.cluster != cluster {
        return Err(EvidenceFileError::OtherCluster { found: header.cluster, expected: cluster });
    }
    let node = evidence.proof.verify(&cluster, accused)?;
    let descent = Descent { committee, handovers, founded: founded.as_ref(), born: born.as_ref() };
    descent.check(header, genesis).map_err(EvidenceFileError::Committee)?;
    certificate.verify(committee).map_err(|error| EvidenceFileError::Committee(error.into()))?;
    check_path(header, genesis, born.as_ref(), evidence, path)?;
    Ok(VerifiedEvidence {
        cluster,
        node,
        evidence: evidence.clone(),
        kept_by: header.group,
        height: header.height,
        time_ms: header.time_ms,
        header_hash: header.hash(),
        signers: certificate.signatures.iter().map(|(node, _)| *node).collect(),
    })
}

/// Checks that the state under a header holds the record, in the part of the tree that the header's group owns.
fn check_path(
    header: &Header,
    genesis: &Genesis,
    born: Option<&BornProof>,
    evidence: &Evidence,
    path: &TreeProof,
) -> Result<(), EvidenceFileError> {
    let failed = |cause: &str| EvidenceFileError::NotInState(cause.to_owned());
    let ballot = &evidence.proof.first.ballot;
    let owned = match header.group.kind() {
        // What a shard owns it owns for all its life, in whatever layout: by the genesis, or by the proof of its birth.
        Some(GroupKind::Shard) => genesis.layout.prefix_of(header.group).or_else(|| born.map(|born| born.leaf.prefix)),
        Some(GroupKind::Beacon | GroupKind::Channel) => Some(layout::BitPrefix::ALL),
        None => None,
    };
    let owned = owned.ok_or_else(|| failed("there is no such group"))?;
    let prefix = tree_prefix(owned).ok_or_else(|| failed("its prefix is too long"))?;
    let position = schema::tree_position(&state_key(owned, evidence)).ok_or_else(|| failed("it is no leaf"))?;
    if header.group != GroupId::BEACON && header.group != ballot.group {
        return Err(failed("a group keeps what its own members have signed"));
    }
    let record = borsh::to_vec(evidence).expect("writing to memory does not fail");
    path.verify_inclusion(&header.state_root.0, &prefix, &position, &value_hash(&record))
        .map_err(|error| EvidenceFileError::NotInState(error.to_string()))
}

/// Key of a record in the state of a group that owns this part of the tree.
#[must_use]
pub fn state_key(owned: layout::BitPrefix, evidence: &Evidence) -> Vec<u8> {
    let ballot = &evidence.proof.first.ballot;
    let member = schema::evidence_of(owned, ballot.group, &ballot.committee, ballot.node);
    [&member[..], &evidence.proof.id().0].concat()
}
