//! What a replica is started with, and what openraft makes of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use ledger::ids::{GroupId, NodeId};
use openraft::{Config, SnapshotPolicy};

use super::network::{RaftTransport, Sender};
use crate::port::Timing;

/// Entries in one append or one log write; bytes are the limit that matters.
pub(crate) const APPEND_ENTRIES_MAX: u64 = 4096;
/// Proposals that may wait to be taken up.
const QUEUE_MAX: u64 = 4096;

/// What a replica needs to know to start.
#[derive(Clone, Debug)]
pub struct RaftGroupConfig {
    /// The group.
    pub group: GroupId,
    /// This replica's raft id, by [`crate::port::replica_id`]: never used again.
    pub raft_id: u64,
    /// This node.
    pub node: NodeId,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Folder of this group's snapshots; created if missing. Nothing else may live in it. It must be
    /// on the file system of the applier's state, so that a snapshot can be moved into place.
    pub snapshot_dir: PathBuf,
    /// A snapshot is made after this many entries; 0 means only when asked for.
    pub snapshot_every_entries: u64,
    /// So many entries before a snapshot stay in the log, for followers a little behind.
    pub snapshot_keep_entries: u64,
}

/// Why a replica did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The settings make no sense.
    #[error("{group}: the timing or limits are not usable: {detail}")]
    Config {
        /// The group.
        group: GroupId,
        /// What is wrong.
        detail: String,
    },
    /// The state is gone, and the log no longer goes back to the beginning.
    #[error(
        "{group}: the log begins behind entry {purged}, and neither the state nor a kept snapshot reaches that; another replica's snapshot is needed"
    )]
    StateMissing {
        /// The group.
        group: GroupId,
        /// Index of the last entry that was purged.
        purged: u64,
    },
    /// There is a state, or a snapshot of it, and no log that it can have come from.
    #[error(
        "{group}: the state of this replica is here, and nothing of its log and its votes: the log was lost, and the replica would vote against what it promised. Bring the node's data folder back as it was when it ran last, or drain the node, so that another one takes its seat"
    )]
    LogLost {
        /// The group.
        group: GroupId,
    },
    /// The log, the state or the snapshots could not be read or brought up to date.
    #[error("{group}: {detail}")]
    Storage {
        /// The group.
        group: GroupId,
        /// The failure, with the file.
        detail: String,
    },
}

impl StartError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "raft_config",
            Self::StateMissing { .. } => "state_missing",
            Self::LogLost { .. } => "replica_log_lost",
            Self::Storage { .. } => "raft_storage",
        }
    }
}

pub(super) fn openraft_config(config: &RaftGroupConfig) -> Result<Arc<Config>, StartError> {
    let timing = config.timing;
    let settings = Config {
        cluster_name: config.group.to_string(),
        heartbeat_interval: timing.heartbeat_ms,
        // A follower of openraft waits for the leader's lease (its upper bound) and a random
        // time-out on top. Halved, an election begins between the middle and the upper bound of ours.
        election_timeout_min: timing.election_min_ms / 2,
        election_timeout_max: timing.election_max_ms / 2,
        enable_pre_vote: Some(true),
        // A restarted leader is elected anew: nothing is served from a term it may have lost.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        max_payload_entries: APPEND_ENTRIES_MAX,
        max_append_entries: Some(APPEND_ENTRIES_MAX),
        api_channel_size: Some(QUEUE_MAX),
        // Appends leave for the followers while the leader's own write is on its way to the disk.
        broadcast_submitted_on_append: Some(true),
        snapshot_policy: match config.snapshot_every_entries {
            0 => SnapshotPolicy::Never,
            entries => SnapshotPolicy::LogsSinceLast(entries),
        },
        // Nothing is purged by openraft itself: see `purge`.
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: config.snapshot_every_entries.saturating_add(config.snapshot_keep_entries).max(1000),
        backoff: "20ms 40ms 80ms ...500ms".into(),
        ..Config::default()
    };
    let validated = settings.validate();
    validated.map(Arc::new).map_err(|error| StartError::Config { group: config.group, detail: error.to_string() })
}

pub(super) fn sender(config: &RaftGroupConfig, transport: Arc<dyn RaftTransport>) -> Sender {
    // Only makes names differ from those of an earlier run; a wrong clock does no harm.
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Sender {
        sending: Arc::default(),
        transport,
        group: config.group,
        own_id: config.raft_id,
        call_timeout: Duration::from_millis(2 * config.timing.election_max_ms),
        vote_timeout: Duration::from_millis(config.timing.election_min_ms),
        streams: AtomicU64::new(since_epoch.as_nanos() as u64),
    }
}
