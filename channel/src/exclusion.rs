//! The exclusion receipt: proof for anybody, offline, that an organisation left a channel or was
//! removed from it at a height.
//!
//! The leaf is written in the block of the exclusion and never removed, so the receipt is an ordinary
//! inclusion proof of it against any certified header from that block on. It proves that the
//! channel's members agreed; it cannot prove that anybody erased a copy.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::certificate::{Certificate, CertificateError};
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, Height, OrgId, TimeMs};
use ledger::schema;
use ledger::tree::{self, BitPrefix, TreeProof, value_hash};

use crate::state::exclusion_key;

/// Version written into new receipts.
pub const EXCLUSION_VERSION: u8 = 1;

/// How an organisation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Departure {
    /// By its own act.
    Left,
    /// By this proposal.
    Removed(Hash32),
}

/// The end of a membership, as a leaf of the channel's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Exclusion {
    /// Format version, [`EXCLUSION_VERSION`].
    pub version: u8,
    /// The channel.
    pub group: GroupId,
    /// Who is no member any more.
    pub org: OrgId,
    /// Block in which it had become one.
    pub joined: Height,
    /// Block in which it ceased to be one: the last that it may have received.
    pub height: Height,
    /// Time of that block.
    pub time_ms: TimeMs,
    /// How.
    pub how: Departure,
}

/// An exclusion and what proves it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ExclusionReceipt {
    /// Format version, [`EXCLUSION_VERSION`].
    pub version: u8,
    /// What is proved.
    pub exclusion: Exclusion,
    /// From the state root of the header to the exclusion.
    pub path: TreeProof,
    /// A header of the channel at or after the exclusion's height.
    pub certificate: Certificate,
}

/// Why a receipt proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExclusionReceiptError {
    /// The bytes are no receipt of this version.
    #[error("it does not decode: {0}")]
    Malformed(String),
    /// Of another cluster, or of another channel than its header.
    #[error("it is of another cluster or channel")]
    OtherChain,
    /// The header is older than the exclusion.
    #[error("its header is of height {header}, before the exclusion at {exclusion}")]
    Early {
        /// Height of the header.
        header: Height,
        /// Height that the exclusion names.
        exclusion: Height,
    },
    /// The header is not certified by the committee.
    #[error("its certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
    /// The certified state does not hold the exclusion.
    #[error("the channel's certified state does not hold it: {0}")]
    Tree(#[from] tree::ProofError),
}

impl ExclusionReceiptError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "exclusion_malformed",
            Self::OtherChain => "exclusion_other_chain",
            Self::Early { .. } => "exclusion_early",
            Self::Certificate(_) => "exclusion_certificate",
            Self::Tree(_) => "exclusion_not_in_state",
        }
    }
}

impl ExclusionReceipt {
    /// A receipt over what the host has read and proved.
    #[must_use]
    pub fn new(exclusion: Exclusion, path: TreeProof, certificate: Certificate) -> Self {
        Self { version: EXCLUSION_VERSION, exclusion, path, certificate }
    }

    /// Encodes for a file or the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes a receipt. Says nothing about whether it holds.
    ///
    /// # Errors
    /// [`ExclusionReceiptError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ExclusionReceiptError> {
        let receipt: Self = borsh::from_slice(bytes).map_err(malformed)?;
        if receipt.version != EXCLUSION_VERSION || receipt.exclusion.version != EXCLUSION_VERSION {
            return Err(malformed("unknown version"));
        }
        Ok(receipt)
    }

    /// Judges the receipt by a committee of the channel that the caller trusts.
    ///
    /// # Errors
    /// [`ExclusionReceiptError`] names the first thing that does not hold.
    pub fn verify(&self, cluster: &ClusterId, committee: &Committee) -> Result<Exclusion, ExclusionReceiptError> {
        let header = &self.certificate.header;
        if self.version != EXCLUSION_VERSION || self.exclusion.version != EXCLUSION_VERSION {
            return Err(malformed("unknown version"));
        }
        if header.cluster != *cluster || header.group != self.exclusion.group {
            return Err(ExclusionReceiptError::OtherChain);
        }
        if header.height < self.exclusion.height {
            return Err(ExclusionReceiptError::Early { header: header.height, exclusion: self.exclusion.height });
        }
        self.certificate.verify(committee)?;
        let leaf = borsh::to_vec(&self.exclusion).expect("writing to memory does not fail");
        let key = exclusion_key(self.exclusion.org, self.exclusion.height);
        let position = schema::tree_position(&key).expect("an exclusion is a leaf of the state tree");
        self.path.verify_inclusion(&header.state_root.0, &BitPrefix::ROOT, &position, &value_hash(&leaf))?;
        Ok(self.exclusion)
    }
}

fn malformed(cause: impl ToString) -> ExclusionReceiptError {
    ExclusionReceiptError::Malformed(cause.to_string())
}
