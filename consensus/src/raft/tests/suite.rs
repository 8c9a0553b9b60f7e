//! openraft's own storage suite over our log and state machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use storage::{LogEngine, LogStore, MemLog, PlainCipher};
use tempfile::TempDir;

use super::support::{TestApplier, open_engine};
use crate::raft::failure::Failure;
use crate::raft::log::Log;
use crate::raft::machine::{ApplierCell, Machine};
use crate::raft::snapshot::Snapshots;
use crate::raft::types::TypeConfig;

struct Builder<F> {
    next: AtomicU64,
    log: F,
}

impl<F: Fn(u64) -> Arc<dyn LogStore> + Send + Sync> StoreBuilder<TypeConfig, Log, Machine, TempDir> for Builder<F> {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let applier = TestApplier::default();
        let snapshots = Snapshots::open(&dir.path().join("snapshots"), &applier).unwrap();
        let machine = Machine {
            applier: Arc::new(ApplierCell::new(Box::new(applier), Failure::default())),
            snapshots: Arc::new(snapshots),
        };
        let log = Log::new((self.log)(self.next.fetch_add(1, Ordering::Relaxed)), Failure::default());
        Ok((dir, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite_over_the_log_engine() {
    let dir = TempDir::new().unwrap();
    let engine: LogEngine = open_engine(dir.path());
    let log = |group| Arc::new(engine.group(group, Arc::new(PlainCipher)).unwrap()) as Arc<dyn LogStore>;
    Suite::test_all(Builder { next: AtomicU64::new(1), log }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite_over_the_memory_log() {
    let log = |_| Arc::new(MemLog::immediate("suite")) as Arc<dyn LogStore>;
    Suite::test_all(Builder { next: AtomicU64::new(1), log }).await.unwrap();
}
