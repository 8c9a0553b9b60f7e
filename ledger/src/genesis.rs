//! The genesis of a cluster: organisations, nodes, committees and the first layout. Its hash is the
//! cluster id, so it is the one thing an offline verifier has to trust.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::committee::Committee;
use crate::crypto::PublicKey;
use crate::hash::{Hash32, tagged};
use crate::ids::{ClusterId, GroupId, NodeId, OrgId, TimeMs};
use crate::layout::Layout;

/// An organisation and the certificate authority that vouches for its processes and clients.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrgInfo {
    /// Id.
    pub id: OrgId,
    /// Name for people.
    pub name: String,
    /// PEM of the CA certificate.
    pub ca_pem: String,
    /// Key that signs the organisation's commands to the beacon.
    pub admin_key: PublicKey,
}

/// A node as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeInfo {
    /// Id.
    pub id: NodeId,
    /// Its organisation.
    pub org: OrgId,
    /// Failure zone.
    pub zone: String,
    /// Relative weight in assignment; 1 is usual.
    pub capacity: u16,
    /// Key that signs headers.
    pub key: PublicKey,
    /// `sha256` of the subject public key info of its TLS certificate.
    pub tls_key_hash: Hash32,
    /// `host:port` where other nodes reach it.
    pub peer_addr: String,
    /// `host:port` where clients reach its router.
    pub client_addr: String,
}

/// How far client signatures are checked (DESIGN §16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyMode {
    /// Once, where a transaction enters.
    Ingest,
    /// By every replica before it attests.
    Every,
}

/// The first state of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Format version, 1.
    pub version: u8,
    /// Name for people.
    pub name: String,
    /// When it was made.
    pub created_ms: TimeMs,
    /// Seed of the first assignment.
    pub seed: Hash32,
    /// Members.
    pub orgs: Vec<OrgInfo>,
    /// Nodes.
    pub nodes: Vec<NodeInfo>,
    /// First committee of every group, the beacon's first.
    pub committees: Vec<Committee>,
    /// First layout.
    pub layout: Layout,
    /// Checking of client signatures.
    pub verify: VerifyMode,
}

impl Genesis {
    /// `sha256("seamark/genesis/v1" ‖ borsh)`.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        ClusterId(tagged(b"seamark/genesis/v1", &[&bytes]))
    }

    /// The first committee of a group.
    #[must_use]
    pub fn committee(&self, group: GroupId) -> Option<&Committee> {
        self.committees.iter().find(|committee| committee.group == group)
    }

    /// The registry entry of a node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.id == id)
    }
}
