//! Conformance suites of both ports over every implementation, and what is special about each.

mod kv_suite;
mod log_suite;
mod memory;
mod model;

#[cfg(feature = "rocksdb")]
mod engine;
#[cfg(feature = "rocksdb")]
mod folders;
#[cfg(feature = "rocksdb")]
mod log_model;
#[cfg(feature = "rocksdb")]
mod secrecy;
#[cfg(feature = "rocksdb")]
mod state;
#[cfg(feature = "rocksdb")]
mod support;
