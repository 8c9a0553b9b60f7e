//! What a member of the beacon gives to the seed of an epoch: first the hash of a secret, then the secret.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::crypto::{self, PublicKey, SecretKey, Signature};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, NodeId};

/// Version written into new [`Contribution`]s.
pub const CONTRIBUTION_VERSION: u8 = 1;

/// One of the two parts. The number of the variant is signed and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Part {
    /// [`commitment_of`] the secret.
    Commitment(Hash32) = 0,
    /// The secret.
    Secret(Hash32) = 1,
}

/// A part under the signature of the member's node.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Contribution {
    /// Format version, [`CONTRIBUTION_VERSION`].
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// The epoch that it is for.
    pub epoch: u64,
    /// Whose it is.
    pub node: NodeId,
    /// What it brings.
    pub part: Part,
    /// By the key that the node signs headers with, over [`Contribution::digest`].
    pub signature: Signature,
}

impl Contribution {
    /// Signs a part.
    #[must_use]
    pub fn sign(cluster: ClusterId, epoch: u64, node: NodeId, part: Part, key: &SecretKey) -> Self {
        let signature = key.sign(&digest(&cluster, epoch, node, part));
        Self { version: CONTRIBUTION_VERSION, cluster, epoch, node, part, signature }
    }

    /// What is signed: `sha256("seamark/contribution/v1" ‖ cluster ‖ epoch ‖ node ‖ variant ‖ value)`, numbers in
    /// big-endian.
    #[must_use]
    pub fn digest(&self) -> Hash32 {
        digest(&self.cluster, self.epoch, self.node, self.part)
    }

    /// Whether it is in form and signed with this key.
    #[must_use]
    pub fn holds(&self, key: &PublicKey) -> bool {
        self.version == CONTRIBUTION_VERSION && crypto::verify(key, &self.digest(), &self.signature).is_ok()
    }
}

/// The hash that a member commits itself to its secret with: `sha256("seamark/epoch-commitment/v1" ‖ cluster ‖ epoch ‖
/// node ‖ secret)`, numbers in big-endian. It names epoch and node, so that nobody can repeat that of another one.
#[must_use]
pub fn commitment_of(cluster: &ClusterId, epoch: u64, node: NodeId, secret: &Hash32) -> Hash32 {
    let parts: [&[u8]; 4] = [&cluster.0.0, &epoch.to_be_bytes(), &node.0.to_be_bytes(), &secret.0];
    tagged(b"seamark/epoch-commitment/v1", &parts)
}

fn digest(cluster: &ClusterId, epoch: u64, node: NodeId, part: Part) -> Hash32 {
    let (variant, value) = match part {
        Part::Commitment(value) => (0u8, value),
        Part::Secret(value) => (1, value),
    };
    let parts: [&[u8]; 5] = [&cluster.0.0, &epoch.to_be_bytes(), &node.0.to_be_bytes(), &[variant], &value.0];
    tagged(b"seamark/contribution/v1", &parts)
}
