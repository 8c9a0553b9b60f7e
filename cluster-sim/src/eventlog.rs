//! The event log of a run: what happened, in words, with its virtual time, behind a first line that
//! says which run it was. Written for a seed that violated something, so that it can be stepped
//! through.

use serde::{Deserialize, Serialize};

/// Version of the log's format.
pub const FORMAT: u32 = 1;

/// The first line of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHead {
    /// Format version, [`FORMAT`].
    pub seamark_sim: u32,
    /// The seed.
    pub seed: u64,
    /// The kind of faults.
    pub scenario: String,
    /// The command that repeats the run.
    pub reproduce: String,
    /// SHA-256 over all delivered events, in hex.
    pub event_hash: String,
    /// What was violated.
    pub violations: Vec<String>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// Virtual time in milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub event: String,
}

impl LogLine {
    /// One line for people.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:>8} ms  {}", self.at_ms, self.event)
    }
}

/// A whole log.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLog {
    /// Which run it was.
    pub head: LogHead,
    /// What happened.
    pub lines: Vec<LogLine>,
}
