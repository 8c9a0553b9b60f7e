//! The deterministic simulator, tier 1 (DESIGN §15): whole clusters in one thread, and the checkers
//! that judge them.
//!
//! What runs is the production code: the machine and driver of `shard-node::core`, mail, beacon, the
//! router's planner and the `local` engine. Simulated are network, disks, clocks, crashes and
//! clients. One seed decides everything, so a run is repeated by its seed alone. [`world`] is the
//! event loop, [`node`] and [`replica`] mirror the host's duties, [`schedule`] makes the faults,
//! [`workload`] and [`client`] the transactions, and [`checkers`] say what must never happen. `trouble` makes faults happen, `ending`
//! ends a run.
//!
//! A run has a safety phase with faults and a liveness phase without them, in which every
//! transaction must get its fate and all mail must drain.

pub mod checkers;
pub mod client;
pub mod cluster;
pub mod config;
mod ending;
mod event;
pub mod network;
pub mod node;
pub mod replica;
pub mod report;
pub mod schedule;
pub mod state;
mod trouble;
pub mod wire;
pub mod workload;
pub mod world;

pub use config::{Sabotage, SimConfig};
pub use report::{Coverage, SimReport};
pub use schedule::Scenario;
pub use world::{run, run_twice};
