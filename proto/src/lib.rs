//! The wire: generated protobuf types and services, and the edge where they become ledger types.
//!
//! Owns the `.proto` files, the `TryFrom` conversions with their errors, and the encoded answers to
//! reads. Never does IO by itself and holds no logic: what passes the edge is well formed, nothing
//! more. `router` and `shard-node` serve these services, `client` calls them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod edge;
pub mod views;

pub use edge::EdgeError;

/// Generated types and services of `seamark.v1`.
#[allow(missing_docs, clippy::all, rust_2018_idioms)]
pub mod v1 {
    tonic::include_proto!("seamark.v1");

    /// Encoded descriptors, for reflection and for tests that enumerate every method.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("seamark_descriptor");
}
