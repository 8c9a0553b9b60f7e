//! Hosts the replicas of many groups: the pure [`core`] and, with the feature `server`, the one IO
//! host around it.
//!
//! `core` is what the deterministic simulator runs; it never touches a socket, a disk or a clock.
//! `server` owns those: it runs the groups, persists blocks, streams mail and serves clients.

pub mod core;

#[cfg(feature = "server")]
pub mod server;
