//! The deterministic simulator, tier 1 (DESIGN §15): whole clusters in one thread, and the checkers
//! that judge them.
//!
//! What runs is the production code: the machine and driver of `shard-node::core`, mail, commit,
//! beacon, the `local` engine, and in Byzantine groups the machine of `consensus::bft`. Simulated are network, disks, clocks, crashes, hosts, routers and
//! clients. One seed decides everything, so a run is repeated by its seed alone. [`world`] is the
//! event loop; [`node`], [`replica`], [`host`], `hosting` and, where shards are cut and joined, `opening` and `copies`, where seats move `seating`, where there are epochs `secrets`, and of a node's keys `keyring`, mirror the host's duties; `council` governs channels;
//! [`schedule`] makes the faults, `trouble` and `forgery` carry them out; [`workload`] makes the transactions and [`client`]
//! hands them over; [`liars`] are members of Byzantine groups that lie; [`checkers`] say what must never happen; `ending` ends a run; [`eventlog`] keeps
//! what happened; [`chain`] lets the checkers judge the logs that another host leaves. [`scale`] is something else: studies
//! of clusters of hundreds of shards, without faults, in modelled time.
//!
//! A run has a safety phase with faults and a liveness phase without them, in which every
//! transaction must get its fate, all mail must drain, nothing may stay undecided and every register
//! must go. `docs/simulator.md` is the guide, and `docs/scale.md` that to studies.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod chain;
pub mod checkers;
pub mod client;
pub mod cluster;
pub mod config;
mod copies;
mod council;
mod ending;
mod event;
pub mod eventlog;
mod forgery;
pub mod host;
mod hosting;
mod keyring;
pub mod liars;
pub mod network;
pub mod node;
mod opening;
pub mod replica;
pub mod report;
pub mod sabotage;
pub mod scale;
pub mod scenario;
pub mod schedule;
pub mod seat;
mod seating;
mod secrets;
pub mod state;
mod trouble;
pub mod wire;
pub mod workload;
pub mod world;

pub use config::SimConfig;
pub use eventlog::EventLog;
pub use liars::{Lie, Ruse};
pub use report::{Coverage, Proved, SimReport};
pub use sabotage::Sabotage;
pub use scenario::Scenario;
pub use world::{record, run, run_twice};
