//! Files of exclusion receipts: that an organisation left a channel or was removed from it, with everything
//! needed to check it offline.
//!
//! Owns the format and the one function that judges it. What a receipt says, and what of it the channel's
//! committee vouches for, is for [`channel::exclusion`]; whose committee that is, for [`crate::descent`]. Pure.

use borsh::{BorshDeserialize, BorshSerialize};
use channel::{Exclusion, ExclusionReceipt, ExclusionReceiptError};
use ledger::genesis::Genesis;
use ledger::{ClusterId, Committee, Hash32, Height, NodeId, TimeMs};

use crate::descent::{Descent, FoundedProof, Handover};
use crate::proof::{PROOF_BYTES_MAX, ProofError};

/// First bytes of such a file.
pub const EXCLUSION_MAGIC: &[u8; 8] = b"SEAMEXCL";
/// Version written into new files.
pub const EXCLUSION_FORMAT: u8 = 1;

/// A receipt and what its committee follows from.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ExclusionFile {
    /// Format version, [`EXCLUSION_FORMAT`].
    pub version: u8,
    /// What is proved, by the channel's committee.
    pub receipt: ExclusionReceipt,
    /// The committee that certified it.
    pub committee: Committee,
    /// From the channel's first committee to the last one before `committee`.
    pub handovers: Vec<Handover>,
    /// What proves the channel's first committee. Nodes of the channel leave it out: it is the beacon's to tell.
    pub founded: Option<FoundedProof>,
}

/// What a receipt has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedExclusion {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who was excluded, when and how.
    pub exclusion: Exclusion,
    /// The block that proves it, the exclusion's or a later one.
    pub height: Height,
    /// Time of that block.
    pub time_ms: TimeMs,
    /// Hash of its header.
    pub header_hash: Hash32,
    /// The nodes that certified it.
    pub signers: Vec<NodeId>,
}

/// Why a file proves no exclusion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExclusionFileError {
    /// The receipt itself does not hold.
    #[error(transparent)]
    Receipt(#[from] ExclusionReceiptError),
    /// Whoever signed it is not the channel's committee.
    #[error("who signed it does not follow from the genesis: {0}")]
    Committee(ProofError),
}

impl ExclusionFileError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Receipt(error) => error.code(),
            Self::Committee(_) => "exclusion_committee",
        }
    }
}

impl ExclusionFile {
    /// A receipt with the channel's committees, as a node of the channel has them.
    #[must_use]
    pub fn new(receipt: ExclusionReceipt, committee: Committee, handovers: Vec<Handover>) -> Self {
        Self { version: EXCLUSION_FORMAT, receipt, committee, handovers, founded: None }
    }

    /// The bytes of a file: magic, then the encoding.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let mut bytes = EXCLUSION_MAGIC.to_vec();
        bytes.extend(borsh::to_vec(self).expect("writing to memory does not fail"));
        bytes
    }

    /// Reads the bytes of a file. Says nothing about whether the receipt holds.
    ///
    /// # Errors
    /// `exclusion_malformed`.
    pub fn from_file(bytes: &[u8]) -> Result<Self, ExclusionFileError> {
        let malformed = |cause: String| ExclusionFileError::from(ExclusionReceiptError::Malformed(cause));
        if bytes.len() > PROOF_BYTES_MAX + EXCLUSION_MAGIC.len() {
            return Err(malformed("it is too large".to_owned()));
        }
        let body = bytes.strip_prefix(EXCLUSION_MAGIC);
        let body = body.ok_or_else(|| malformed("it does not start as one".to_owned()))?;
        borsh::from_slice(body).map_err(|error| malformed(error.to_string()))
    }
}

/// Judges a receipt by a genesis that the caller trusts.
///
/// # Errors
/// [`ExclusionFileError`] names the first thing that does not hold.
pub fn verify(file: &ExclusionFile, genesis: &Genesis) -> Result<VerifiedExclusion, ExclusionFileError> {
    if file.version != EXCLUSION_FORMAT {
        return Err(ExclusionReceiptError::Malformed("unknown version".to_owned()).into());
    }
    let ExclusionFile { receipt, committee, handovers, founded, .. } = file;
    let (cluster, header) = (genesis.cluster_id(), &receipt.certificate.header);
    if header.cluster != cluster {
        return Err(ExclusionReceiptError::OtherChain.into());
    }
    let descent = Descent { committee, handovers, founded: founded.as_ref(), born: None };
    descent.check(header, genesis).map_err(ExclusionFileError::Committee)?;
    let exclusion = receipt.verify(&cluster, committee)?;
    Ok(VerifiedExclusion {
        cluster,
        exclusion,
        height: header.height,
        time_ms: header.time_ms,
        header_hash: header.hash(),
        signers: receipt.certificate.signatures.iter().map(|(node, _)| *node).collect(),
    })
}
