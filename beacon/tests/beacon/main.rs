//! Tests of the beacon's machine: assignment laws, execution, and the bytes it signs and stores.
#![allow(clippy::unwrap_used)] // a test that meets an error has failed

mod accused;
mod assignment;
mod audit;
mod audit_lines;
mod beacon_seats;
mod channels;
mod commands;
mod engine;
mod epochs;
mod golden;
mod jobs;
mod jobs_balance;
mod jobs_commit;
mod jobs_laws;
mod jobs_plan;
mod jobs_quarantine;
mod jobs_rules;
mod jobs_scale;
mod keys;
mod majority;
mod nodes;
mod orgs;
mod policies;
mod policies_laws;
mod proof;
mod sealed;
mod seats;
mod state;
mod support;
mod watch;
