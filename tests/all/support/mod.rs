//! What every test of a whole cluster stands on.
//!
//! [`cluster`] starts and stops nodes in this process or in others, [`program`] the real program, [`up`] a cluster
//! of processes, [`machines`] one whose nodes have a network and disks that fail, [`router`] routers
//! beside nodes, [`shell`] runs commands beside a cluster; [`consortium`] founds channels and governs them; [`bank`] makes accounts and money, [`load`]
//! pays without end, [`swaps`] has payers of two shards pay each other, [`customers`] is all of them at once, [`audit`] reads the chains and judges them without asking production code for its
//! opinion; [`network`] can be cut, [`small_disk`] filled; [`random`] repeats itself; [`rpc`] calls any method with any bytes,
//! [`decoy`] listens in a node's place, and [`wire`] to all that goes over the network.

pub mod audit;
pub mod bank;
pub mod cluster;
pub mod consortium;
pub mod customers;
pub mod decoy;
pub mod load;
pub mod machines;
pub mod network;
pub mod program;
pub mod random;
pub mod router;
pub mod rpc;
pub mod shell;
pub mod small_disk;
pub mod swaps;
pub mod up;
pub mod wire;

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long anything may take that a test waits for. Generous: machines that run tests are busy.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Shows what the nodes log, when `RUST_LOG` asks for it.
pub fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // The second cluster of a process finds it done.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Looks until it is there, and fails the test with the last reason when it does not come.
pub async fn eventually<T, E: Display>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(reason) if started.elapsed() > DEADLINE => panic!("{what}: not within {DEADLINE:?}: {reason}"),
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Fails the test when this takes longer than anything may.
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}
