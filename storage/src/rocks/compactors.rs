//! The threads that compact, which get of the processor what others leave.
//!
//! Nobody waits for a compaction, and one rewrites most of a state; beside it there are shards whose payers wait. Flushes have
//! threads of their own, which stand back behind nobody: at a seal payers wait for them.
//!
//! How far they stand back is bounded, since whoever writes is held back where too little is compacted (`stall`), and logs are
//! compacted by the same threads. Beside four threads that never rest on two cores, one of them gets 0.15 of a core and three get
//! 0.39, by the weights of the kernel's scheduler (335 against 1,024); without niceness these were 0.4 and 0.86. RocksDB itself
//! would make them the very last (`Env::lower_thread_pool_cpu_priority`, niceness 19, a weight of 15): 0.01 and 0.02 of a core.

use std::panic::resume_unwind;
use std::thread;

use rocksdb::Env;

/// Steps of niceness by which they stand back. Each is about a fifth less of the processor while others want it, so that one of
/// them gets a third of what any other thread does, and never nothing.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Makes so many of them, or fewer than there are. RocksDB makes them in this call, and they have the niceness of the thread that
/// calls: one of its own, since a thread that has stood back may not come forward again.
pub(super) fn make(env: &mut Env, threads: i32) {
    let run = || {
        stand_back();
        env.set_low_priority_background_threads(threads);
    };
    let made = thread::scope(|scope| scope.spawn(run).join());
    made.unwrap_or_else(|panic| resume_unwind(panic));
}

/// On Linux niceness is a thread's own; elsewhere it is the whole process's, and nothing is done.
#[cfg(target_os = "linux")]
fn stand_back() {
    let own = Some(rustix::thread::gettid());
    let niceness = rustix::process::getpriority_process(own);
    let set = niceness.and_then(|now| rustix::process::setpriority_process(own, now.max(NICE)));
    if let Err(error) = set {
        tracing::debug!(%error, "threads that compact do not stand back");
    }
}

#[cfg(not(target_os = "linux"))]
fn stand_back() {}
