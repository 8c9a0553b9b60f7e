//! Making a cluster: certificates, genesis, and the folder that `up`, `init`, `node` and every
//! client command read.
//!
//! Owns the form of that folder and nothing that runs. [`genesis`] decides who belongs where,
//! [`policies`] reads who is to approve what, [`pki`] makes certificates, [`files`] writes it all down; `shard-node` takes over from a node's
//! `node.toml`, the clients from the profile.

pub mod error;
pub mod files;
pub mod genesis;
pub mod pki;
pub mod policies;

#[cfg(test)]
mod tests;

pub use error::SetupError;
pub use files::{ClusterDir, ClusterLock, KEYS_DIR, TRANSACTIONS_DIR, write_cluster, write_joining_node};
pub use genesis::{
    Addresses, ClusterSpec, MadeCluster, MadeNode, MadeOrg, NodeAddrs, SpecError, make_cluster, make_node_of,
};
pub use pki::{Authority, Leaf, PkiError, Subject};
