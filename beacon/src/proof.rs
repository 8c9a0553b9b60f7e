//! The registry as nodes and routers are given it, with what proves it: a certified header of the
//! beacon and the path from its state root to the hash of the registry.
//!
//! Whoever follows needs the genesis and nothing else: the first beacon committee stands there, and
//! every later one in a registry that was proved before. One member of the beacon alone can
//! therefore show an old registry, and never a false one.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::certificate::{Certificate, CertificateError};
use ledger::committee::Committee;
use ledger::ids::{ClusterId, GroupId, Height};
use ledger::schema;
use ledger::tree::{self, BitPrefix, TreeProof, value_hash};

use crate::registry::{RegistryHead, head_key};
use crate::view::ClusterView;

/// Version written into new proofs.
pub const REGISTRY_PROOF_FORMAT: u8 = 1;

/// A registry and all that proves it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RegistryProof {
    /// Format version, [`REGISTRY_PROOF_FORMAT`].
    pub version: u8,
    /// The encoded [`ClusterView`].
    pub registry: Vec<u8>,
    /// From the state root of the header to the [`RegistryHead`].
    pub path: TreeProof,
    /// A header of the beacon under which the registry stands.
    pub certificate: Certificate,
}

/// Why a registry is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryProofError {
    /// The bytes are no proof of this version, or no registry.
    #[error("it does not decode: {0}")]
    Malformed(String),
    /// Registry or header are of another cluster.
    #[error("it is of another cluster")]
    OtherCluster,
    /// Lists out of order, a layout with holes, or a committee that is none.
    #[error("it is not well formed")]
    Form,
    /// The header is not certified by the beacon's committee.
    #[error("its certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
    /// The certified state holds another registry, or none.
    #[error("the beacon's certified state does not hold it: {0}")]
    Tree(#[from] tree::ProofError),
}

impl RegistryProofError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "registry_malformed",
            Self::OtherCluster => "registry_other_cluster",
            Self::Form => "registry_form",
            Self::Certificate(_) => "registry_certificate",
            Self::Tree(_) => "registry_not_in_state",
        }
    }
}

impl RegistryProof {
    /// A proof of this registry.
    #[must_use]
    pub fn new(registry: &ClusterView, path: TreeProof, certificate: Certificate) -> Self {
        Self { version: REGISTRY_PROOF_FORMAT, registry: registry.encode(), path, certificate }
    }

    /// Encodes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes from the wire. Says nothing about whether the proof holds.
    ///
    /// # Errors
    /// [`RegistryProofError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RegistryProofError> {
        let proof: Self = borsh::from_slice(bytes).map_err(malformed)?;
        if proof.version == REGISTRY_PROOF_FORMAT { Ok(proof) } else { Err(malformed("unknown version")) }
    }

    /// Judges the proof by a committee of the beacon that the caller trusts. Returns the registry
    /// and the height of the header that proves it.
    ///
    /// # Errors
    /// [`RegistryProofError`] names the first thing that does not hold.
    pub fn verify(&self, cluster: &ClusterId, beacon: &Committee) -> Result<(ClusterView, Height), RegistryProofError> {
        let registry: ClusterView = borsh::from_slice(&self.registry).map_err(malformed)?;
        let header = &self.certificate.header;
        if registry.cluster != *cluster || header.cluster != *cluster {
            return Err(RegistryProofError::OtherCluster);
        }
        if beacon.group != GroupId::BEACON || !registry.well_formed() {
            return Err(RegistryProofError::Form);
        }
        self.certificate.verify(beacon)?;
        let head = RegistryHead::of(registry.revision, &self.registry);
        let leaf = borsh::to_vec(&head).expect("writing to memory does not fail");
        let position = schema::tree_position(&head_key()).expect("the head is a leaf of the state tree");
        self.path.verify_inclusion(&header.state_root.0, &BitPrefix::ROOT, &position, &value_hash(&leaf))?;
        Ok((registry, header.height))
    }
}

fn malformed(cause: impl ToString) -> RegistryProofError {
    RegistryProofError::Malformed(cause.to_string())
}
