//! The IO host: one process of one organisation, running the replicas of many groups.
//!
//! Owns sockets, threads, databases and clocks, and carries out what the pure core decides:
//! [`replica`] is the commit loop of a group, [`group`] the task around its driver, [`intake`] and
//! [`ingest`] the way in for transactions, [`links`] the way to other nodes, [`service`] the gRPC surface, [`warm`] how
//! shards begin here that others are cut or joined into. It decides nothing about money: that happened in `core`.

pub mod admission;
pub mod alarms;
pub mod begun;
pub mod checks;
pub mod clock;
pub mod command;
pub mod config;
pub mod crowd;
pub mod denials;
pub mod doorkeeper;
pub mod epochs;
pub mod followers;
pub mod gather;
pub mod group;
pub mod halt;
pub mod hosting;
pub mod ingest;
pub mod intake;
pub mod judge;
pub mod kept;
pub mod leads;
pub mod leaving;
mod lend;
pub mod links;
pub mod local;
pub mod membership;
pub mod node;
pub mod origin;
pub mod rates;
pub mod reads;
pub mod rebuild;
pub mod registry;
pub mod replica;
pub mod replies;
pub mod rotation;
pub mod seat;
pub mod service;
pub mod silence;
pub mod snapshot;
pub mod socket;
pub mod status;
#[cfg(test)]
mod testing;
pub mod trimming;
pub mod vault;
pub mod warm;

pub use config::NodeConfig;
pub use node::{Machine, Node, NodeError};
