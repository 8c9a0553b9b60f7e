//! Limits of the IO host: how much memory waits for somebody else. Those that other crates share
//! stand in `ledger::limits`.

use ledger::limits::{BATCH_BYTES_MAX, GRPC_BYTES_MAX, INGEST_QUEUE_TXS, SUBMISSION_BYTES_MAX};

/// Bytes of transactions that have arrived for one group and are not checked yet.
pub const ARRIVALS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of transactions that one group's leader has taken and that have no fate yet: they wait for a
/// place in an entry, or are in one.
pub const WAITING_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes of answers that wait for one caller. Beyond it the caller is cut off: it does not read, and
/// finds its fates by sending the same bytes again.
pub const REPLIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Answers in one message: with the largest receipt each they fit.
pub const REPLY_EVENTS_MAX: usize = 2048;
/// The largest answer: a receipt with mail for every move, or a refusal with its texts.
pub const REPLY_EVENT_BYTES_MAX: usize = 2048;

const _: () = assert!(BATCH_BYTES_MAX + SUBMISSION_BYTES_MAX <= ARRIVALS_BYTES_MAX, "any batch of a router is taken");
const _: () = assert!(ARRIVALS_BYTES_MAX <= WAITING_BYTES_MAX, "what has arrived can be taken");
const _: () = assert!(ARRIVALS_BYTES_MAX / INGEST_QUEUE_TXS >= 1024, "of usual transactions the number is the bound");
const _: () = assert!(REPLY_EVENTS_MAX * REPLY_EVENT_BYTES_MAX < GRPC_BYTES_MAX, "a message of answers fits");
