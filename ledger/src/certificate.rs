//! Certificates: a header and enough signatures of its committee. One verifier for every engine,
//! usable offline.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::committee::Committee;
use crate::crypto::{self, Signature};
use crate::hash::Hash32;
use crate::header::{HEADER_VERSION, Header};
use crate::ids::{GroupId, Height, NodeId};
use crate::limits::COMMITTEE_MAX;

/// One replica's signature over a header hash.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Attestation {
    /// Whose chain.
    pub group: GroupId,
    /// Which block.
    pub height: Height,
    /// The header's hash; the signed digest.
    pub header_hash: Hash32,
    /// Who signed.
    pub node: NodeId,
    /// Over `header_hash`, which is a tagged hash of the header's bytes.
    pub signature: Signature,
}

/// A header with signatures of at least the committee's threshold.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// Format version, 1.
    pub version: u8,
    /// What is certified.
    pub header: Header,
    /// Sorted by node, without repetition.
    pub signatures: Vec<(NodeId, Signature)>,
}

/// Why a certificate does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Certificate or header are of a version that this verifier does not know.
    #[error("the certificate or its header is of an unknown version")]
    Version,
    /// The header names another committee than the one it is judged by.
    #[error("the header names another committee")]
    Committee,
    /// Group or incarnation differ.
    #[error("the header is of another group or incarnation")]
    Group,
    /// Fewer signatures than the threshold.
    #[error("too few signatures")]
    TooFew,
    /// Not sorted, repeated, too many, or by a node that is no member.
    #[error("a signature by a node that is no member, repeated, or out of order")]
    Signer,
    /// A signature does not verify.
    #[error("a signature does not verify")]
    Signature,
}

impl Certificate {
    /// Judges the certificate by a committee that the caller trusts. Which cluster the header names
    /// is for the caller to compare: a committee is not bound to one.
    ///
    /// # Errors
    /// [`CertificateError`] names the first thing that does not hold.
    pub fn verify(&self, committee: &Committee) -> Result<(), CertificateError> {
        if self.version != 1 || self.header.version != HEADER_VERSION {
            return Err(CertificateError::Version);
        }
        if self.header.group != committee.group || self.header.incarnation != committee.incarnation {
            return Err(CertificateError::Group);
        }
        if self.header.committee_hash != committee.hash() {
            return Err(CertificateError::Committee);
        }
        if self.signatures.len() < usize::from(committee.threshold) {
            return Err(CertificateError::TooFew);
        }
        if self.signatures.len() > COMMITTEE_MAX || self.signatures.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(CertificateError::Signer);
        }
        let digest = self.header.hash();
        for (node, signature) in &self.signatures {
            let index = committee.index_of(*node).ok_or(CertificateError::Signer)?;
            crypto::verify(&committee.members[index].key, &digest, signature)
                .map_err(|_| CertificateError::Signature)?;
        }
        Ok(())
    }
}
