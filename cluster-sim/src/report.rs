//! What a run tells.

use serde::{Deserialize, Serialize};

/// What happened in a run, so that a set of runs can be shown to have tested something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Blocks of all groups, each counted once.
    pub blocks: u64,
    /// Terms that got a leader, beyond the first of each group.
    pub leader_changes: u64,
    /// Nodes that lost power.
    pub crashes: u64,
    /// Log writes that crashes took.
    pub lost_log_writes: u64,
    /// Batches of state that crashes took.
    pub lost_state_batches: u64,
    /// Blocks that a replica applied again after a crash.
    pub replayed_blocks: u64,
    /// Messages that never arrived.
    pub lost_messages: u64,
    /// Messages that arrived twice.
    pub duplicated_messages: u64,
    /// Messages that were held back so that later ones overtook them.
    pub reordered_messages: u64,
    /// Times a client sent a transaction again.
    pub retries: u64,
    /// Transactions that were answered with an earlier receipt.
    pub known: u64,
    /// Committed transactions with a payee in another group.
    pub cross_shard: u64,
    /// Transactions refused for lack of funds, with a receipt.
    pub overdrafts: u64,
    /// Transactions refused as expired.
    pub expired: u64,
    /// Certificates gathered, counted on each replica.
    pub certificates: u64,
    /// Checkpoints that the beacon took, counted at the end.
    pub checkpoints: u64,
}

impl Coverage {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.leader_changes += other.leader_changes;
        self.crashes += other.crashes;
        self.lost_log_writes += other.lost_log_writes;
        self.lost_state_batches += other.lost_state_batches;
        self.replayed_blocks += other.replayed_blocks;
        self.lost_messages += other.lost_messages;
        self.duplicated_messages += other.duplicated_messages;
        self.reordered_messages += other.reordered_messages;
        self.retries += other.retries;
        self.known += other.known;
        self.cross_shard += other.cross_shard;
        self.overdrafts += other.overdrafts;
        self.expired += other.expired;
        self.certificates += other.certificates;
        self.checkpoints += other.checkpoints;
    }
}

/// The result of one seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimReport {
    /// The seed.
    pub seed: u64,
    /// The kind of faults.
    pub scenario: String,
    /// Distinct transactions that clients sent.
    pub transactions: u64,
    /// How many were executed.
    pub committed: u64,
    /// How many were refused, with or without a receipt.
    pub rejected: u64,
    /// Faults that were injected: crashes, cuts, stalls, clock jumps, slow disks, bad weather. Single
    /// lost or repeated messages are counted in `coverage`.
    pub faults: u64,
    /// What must never happen and did; empty for a good run.
    pub violations: Vec<String>,
    /// SHA-256 over all delivered events, in hex.
    pub event_hash: String,
    /// Virtual time of the whole run.
    pub seconds: f64,
    /// Delivered events.
    pub events: u64,
    /// What was tested.
    pub coverage: Coverage,
    /// The last events before the first violation.
    pub tail: Vec<String>,
    /// The command that repeats the run, when something was violated.
    pub reproduce: Option<String>,
}

impl SimReport {
    /// Whether nothing was violated.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}
