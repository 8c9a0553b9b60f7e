//! Tests of a channel's governance: the laws of policies, every flow of the machine, access,
//! founding, receipts, and the bytes that are signed and stored.
#![allow(clippy::unwrap_used)] // a test that meets an error has failed

mod access;
mod commands;
mod exclusion;
mod founding;
mod golden;
mod lifecycle;
mod members;
mod opening;
mod policy_laws;
mod proposals;
mod races;
mod random;
mod support;
mod table;
