//! Whole clusters, from outside: real sockets on loopback, mutual TLS, RocksDB with fsync, and, in
//! [`processes`], [`nodes`], [`epochs`], [`beacon_seats`], [`bft`], [`bft_members`], [`bft_switch`], [`elastic`], [`elastic_bft`], [`elastic_history`], [`elastic_faults`], [`elastic_kills`], [`elastic_refusals`], [`elastic_sealing`], [`node_kills`], [`divergence`], [`autoscale`], [`failover`], [`routers`], [`full_disk`], [`cuts`], [`wires`], [`isolation`], [`link_answers`], [`smuggled`], [`asset_auditors`], [`charters`], [`clerks`], [`bft_seven`], [`channel_bft`], [`node_key`] and [`bank`], the real
//! program and `kill -9`.
//!
//! [`support`] starts clusters, makes payments and waits for events; [`history`] judges what clients
//! saw; the other files are one topic each. What a test waits for always has a deadline and is never a fixed time.

#![allow(clippy::unwrap_used)]

mod anchors;
mod asset_auditors;
mod audit;
mod autoscale;
mod bad_transactions;
mod bank;
mod beacon_seats;
mod begun_calls;
mod benchmarks;
mod bft;
mod bft_lender;
mod bft_liar;
mod bft_members;
mod bft_seven;
mod bft_switch;
mod channel_bft;
mod channel_life;
mod channel_quorum;
mod channel_swaps;
mod channels;
mod charters;
mod clerks;
mod clocks;
mod commit;
mod configuration;
mod cuts;
mod damage;
mod divergence;
mod elastic;
mod elastic_bft;
mod elastic_faults;
mod elastic_history;
mod elastic_kills;
mod elastic_refusals;
mod elastic_sealing;
mod epochs;
mod excluded_voter;
mod excluded_waiter;
mod failover;
mod front_door;
mod full_disk;
mod history;
mod holdings;
mod idle_channels;
mod isolation;
mod keys;
mod link_answers;
mod node_key;
mod node_kills;
mod nodes;
mod one_log;
mod open_fate;
mod payments;
mod processes;
mod purity;
mod readme;
mod reads;
mod records;
mod registry;
mod restarts;
mod revoked;
mod routers;
mod runtime_groups;
mod scale;
mod smuggled;
mod spoiling;
mod standard_services;
mod support;
mod tier2;
mod tour;
mod transactions;
mod trimming;
mod up;
mod wires;
