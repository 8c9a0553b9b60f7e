//! The threads that compact, which get of the processor what others leave.
//!
//! Nobody waits for a compaction, and one rewrites most of a state; beside it there are shards whose payers wait. Flushes have
//! threads of their own, which stand back behind nobody: at a seal payers wait for them.
//!
//! How far they stand back is bounded, since whoever writes is held back where too little is compacted (`stall`), and logs are
//! compacted by the same threads. Beside four threads that never rest on two cores, one of them gets 0.15 of a core and three get
//! 0.39, by the weights of the kernel's scheduler (335 against 1,024); without niceness these were 0.4 and 0.86. RocksDB itself
//! would make them the very last (`Env::lower_thread_pool_cpu_priority`, niceness 19, a weight of 15): 0.01 and 0.02 of a core.

use rocksdb::Env;

use crate::aside::aside;

/// Steps of niceness by which they stand back: one of them gets a third of what any other thread does, and never nothing.
const NICE: i32 = 5;

/// Makes so many of them, or fewer than there are. RocksDB makes them in this call, and they have the niceness of the thread that
/// calls.
pub(super) fn make(env: &mut Env, threads: i32) {
    aside(NICE, || env.set_low_priority_background_threads(threads));
}
