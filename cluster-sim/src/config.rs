//! What a simulation is asked to do, besides its seed.

use crate::schedule::Scenario;

/// A bug put back into the shell, to prove that the checkers find it. Never set outside tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Clients get their receipt when the batch is proposed, not when it is committed and persisted.
    ReplyOnPropose,
    /// The cursors of a block are written in a batch of their own, so that a crash can part them
    /// from the credits.
    SplitBatch,
    /// Replicas take one signature for a certificate.
    LoneSignature,
    /// Execution does not see earlier receipts, so a transaction that is sent again runs again.
    ForgetReceipts,
    /// The log engine reports writes as durable before they are.
    EarlySync,
    /// A restarted replica applies its last block once more.
    ApplyTwice,
}

impl Sabotage {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::ReplyOnPropose,
        Self::SplitBatch,
        Self::LoneSignature,
        Self::ForgetReceipts,
        Self::EarlySync,
        Self::ApplyTwice,
    ];
}

/// Size of the simulated cluster and of its load.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The kind of faults; drawn from the seed when not given.
    pub scenario: Option<Scenario>,
    /// Nodes of the cluster.
    pub nodes: u32,
    /// Shards.
    pub shards: u32,
    /// Replicas of every group.
    pub replicas: u16,
    /// Payments of the load, besides what sets the ledger up.
    pub payments: usize,
    /// Length of the phase with faults, in virtual milliseconds.
    pub safety_ms: u64,
    /// How long the phase without faults may take.
    pub liveness_ms_max: u64,
    /// A run with more events than this goes in circles.
    pub events_max: u64,
    /// A bug to put into the shell.
    pub sabotage: Option<Sabotage>,
    /// Lines of the event log that a report with a violation carries.
    pub tail_lines: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            scenario: None,
            nodes: 5,
            shards: 2,
            replicas: 3,
            payments: 60,
            safety_ms: 5_000,
            liveness_ms_max: 60_000,
            events_max: 500_000,
            sabotage: None,
            tail_lines: 60,
        }
    }
}

impl SimConfig {
    /// The command that repeats a run of this configuration.
    #[must_use]
    pub fn command(&self, seed: u64) -> String {
        let usual = Self::default();
        let mut command = format!("seamark sim --seed {seed}");
        if let Some(scenario) = self.scenario {
            command.push_str(&format!(" --scenario {scenario}"));
        }
        for (flag, value, usual) in [
            ("--nodes", u64::from(self.nodes), u64::from(usual.nodes)),
            ("--shards", u64::from(self.shards), u64::from(usual.shards)),
            ("--replicas", u64::from(self.replicas), u64::from(usual.replicas)),
            ("--payments", self.payments as u64, usual.payments as u64),
            ("--safety-ms", self.safety_ms, usual.safety_ms),
        ] {
            if value != usual {
                command.push_str(&format!(" {flag} {value}"));
            }
        }
        command
    }
}
