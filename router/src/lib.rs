//! The stateless front door.
//!
//! [`plan`](mod@plan) is pure: it says which groups a transaction goes to, and the simulator uses it as
//! it is.
//! `gateway` (feature `gateway`) is the IO around it: it takes transactions and reads from clients,
//! hands them to the leaders of their groups (crate `shard-node`, service `Node`), and carries the
//! answers back. Neither keeps anything that a restart would miss.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod plan;

#[cfg(feature = "gateway")]
pub mod gateway;

pub use plan::{Plan, plan};
