//! The registry as nodes and routers are given it, with what proves it: a certified header of the
//! beacon and the path from its state root to the hash of the registry.
//!
//! Whoever follows needs the genesis and nothing else: the first beacon committee stands there, and to
//! every later one leads a chain of hand-overs, each certified by the committee before ([`Succession`]). One
//! member of the beacon alone can therefore show an old registry, and never a false one.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::certificate::{Certificate, CertificateError};
use ledger::committee::Committee;
use ledger::handover::{self, Handover, HandoverError};
use ledger::header::Header;
use ledger::ids::{ClusterId, Epoch, GroupId, Height};
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
    /// What is to lead from a committee of the beacon to a later one does not.
    #[error("the hand-overs of the beacon's committee do not hold: {0}")]
    Handover(#[from] HandoverError),
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
            Self::Handover(_) => "registry_handover",
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

/// The committees of the beacon from that of the genesis on, as far as somebody has seen them proved. Each but the last
/// stands with the header by which it has named the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    steps: Vec<Handover>,
    last: Committee,
}

/// A registry that is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The registry.
    pub registry: ClusterView,
    /// The height of the header that proves it.
    pub height: Height,
    /// The committees that are known with it.
    pub succession: Succession,
}

impl Succession {
    /// One that knows the committee of the genesis alone.
    #[must_use]
    pub fn new(first: Committee) -> Self {
        Self { steps: Vec::new(), last: first }
    }

    /// As a replica of the beacon has it: the steps that are certified, in order, and the committee behind them.
    #[must_use]
    pub fn of(steps: Vec<Handover>, last: Committee) -> Self {
        Self { steps, last }
    }

    /// The last committee that is known.
    #[must_use]
    pub fn last(&self) -> &Committee {
        &self.last
    }

    /// All steps, from the committee of the genesis on.
    #[must_use]
    pub fn steps(&self) -> &[Handover] {
        &self.steps
    }

    /// What somebody lacks who knows the committee of an epoch.
    #[must_use]
    pub fn since(&self, epoch: Epoch) -> &[Handover] {
        &self.steps[self.steps.partition_point(|step| step.committee.epoch < epoch)..]
    }

    /// The committee that a header names, if it was that of the beacon at this height: one that has handed over certifies
    /// nothing behind that.
    #[must_use]
    pub fn judges(&self, header: &Header) -> Option<&Committee> {
        if self.last.hash() == header.committee_hash {
            return Some(&self.last);
        }
        let step = self.steps.iter().rev().find(|step| step.committee.hash() == header.committee_hash)?;
        (header.height <= step.certificate.header.height).then_some(&step.committee)
    }

    /// Follows steps, those that are known already being passed over. The committee behind the last one is known when
    /// it is `then`; otherwise that step is left for the next time.
    ///
    /// # Errors
    /// [`HandoverError`] names the first thing that does not hold.
    pub fn extended(
        &self,
        cluster: &ClusterId,
        steps: &[Handover],
        then: Option<&Committee>,
    ) -> Result<Self, HandoverError> {
        let known = self.last.hash();
        let fresh = steps.iter().position(|step| step.committee.hash() == known);
        let fresh = fresh.map_or(&[][..], |from| &steps[from..]);
        handover::follow(cluster, GroupId::BEACON, known, fresh)?;
        let mut succession = self.clone();
        for (at, step) in fresh.iter().enumerate() {
            let named = step.certificate.header.next_committee_hash;
            let next = fresh.get(at + 1).map(|next| &next.committee).or(then);
            let Some(next) = next.filter(|next| next.hash() == named) else { break };
            succession.steps.push(step.clone());
            succession.last = next.clone();
        }
        Ok(succession)
    }

    /// Judges a registry, with the steps that came with it. Those that are known already are passed over.
    ///
    /// # Errors
    /// [`RegistryProofError`] names the first thing that does not hold.
    pub fn judge(
        &self,
        cluster: &ClusterId,
        proof: &RegistryProof,
        steps: &[Handover],
    ) -> Result<Judged, RegistryProofError> {
        // The committee behind the last step stands in the registry; the step says whether it is that one.
        let claimed: ClusterView = borsh::from_slice(&proof.registry).map_err(malformed)?;
        if claimed.cluster != *cluster {
            return Err(RegistryProofError::OtherCluster);
        }
        let succession = self.extended(cluster, steps, claimed.committee(GroupId::BEACON))?;
        let judge = succession.judges(&proof.certificate.header).ok_or(CertificateError::Committee)?;
        let (registry, height) = proof.verify(cluster, judge)?;
        Ok(Judged { registry, height, succession })
    }
}

fn malformed(cause: impl ToString) -> RegistryProofError {
    RegistryProofError::Malformed(cause.to_string())
}
