//! The genesis of a cluster: organisations, nodes, committees and the first layout. Its hash is the
//! cluster id, so it is the one thing an offline verifier has to trust.

use std::collections::BTreeMap;

use borsh::io::{Read, Result as IoResult, Write};
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

/// Version of a genesis that states no policy.
pub const GENESIS_VERSION: u8 = 1;
/// Version of a genesis that states policies of the cluster.
pub const GENESIS_WITH_POLICIES_VERSION: u8 = 2;

/// The first state of a cluster.
///
/// Its bytes end after `verify` in [`GENESIS_VERSION`], so that a cluster that keeps the rules that always were has the id
/// that it always had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Format version, see [`Genesis::version_with`].
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
    /// Who has to approve what in the beacon, as text: by the word for the matter, in the policy language. What is not
    /// stated follows the default. The language, and what may stand here, are known to the beacon alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, String>,
}

impl BorshSerialize for Genesis {
    fn serialize<W: Write>(&self, writer: &mut W) -> IoResult<()> {
        BorshSerialize::serialize(&self.version, writer)?;
        BorshSerialize::serialize(&self.name, writer)?;
        BorshSerialize::serialize(&self.created_ms, writer)?;
        BorshSerialize::serialize(&self.seed, writer)?;
        BorshSerialize::serialize(&self.orgs, writer)?;
        BorshSerialize::serialize(&self.nodes, writer)?;
        BorshSerialize::serialize(&self.committees, writer)?;
        BorshSerialize::serialize(&self.layout, writer)?;
        BorshSerialize::serialize(&self.verify, writer)?;
        if self.version >= GENESIS_WITH_POLICIES_VERSION {
            BorshSerialize::serialize(&self.policies, writer)
        } else {
            Ok(())
        }
    }
}

impl BorshDeserialize for Genesis {
    fn deserialize_reader<R: Read>(reader: &mut R) -> IoResult<Self> {
        let version = u8::deserialize_reader(reader)?;
        Ok(Self {
            version,
            name: String::deserialize_reader(reader)?,
            created_ms: TimeMs::deserialize_reader(reader)?,
            seed: Hash32::deserialize_reader(reader)?,
            orgs: Vec::deserialize_reader(reader)?,
            nodes: Vec::deserialize_reader(reader)?,
            committees: Vec::deserialize_reader(reader)?,
            layout: Layout::deserialize_reader(reader)?,
            verify: VerifyMode::deserialize_reader(reader)?,
            policies: match version >= GENESIS_WITH_POLICIES_VERSION {
                true => BTreeMap::deserialize_reader(reader)?,
                false => BTreeMap::new(),
            },
        })
    }
}

impl Genesis {
    /// The version of a genesis with these policies.
    #[must_use]
    pub fn version_with(policies: &BTreeMap<String, String>) -> u8 {
        if policies.is_empty() { GENESIS_VERSION } else { GENESIS_WITH_POLICIES_VERSION }
    }

    /// Whether the version is known and the one for what it states: in any other the cluster id would not cover all of it.
    #[must_use]
    pub fn version_fits(&self) -> bool {
        self.version == Self::version_with(&self.policies)
    }

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
