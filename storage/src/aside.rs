//! Work that takes its time: a thread that gets of the processor what others leave.
//!
//! Owns how a thread stands back, and not who does nor how far: compactions say so in [`crate::rocks`], and whoever copies a
//! state says so where it copies.

use std::panic::resume_unwind;
use std::thread;

/// Runs something on a thread of its own that stands back by so many steps of niceness, each of which is about a fifth less of
/// the processor while others want it, and waits for it. A thread that has stood back may not come forward again, so it ends
/// with the work; threads that the work makes stand back as far. On Linux niceness is a thread's own; elsewhere it is the whole
/// process's, and nobody stands back.
///
/// # Panics
/// Where the work does.
pub fn aside<R: Send>(steps: i32, work: impl FnOnce() -> R + Send) -> R {
    let run = || {
        stand_back(steps);
        work()
    };
    let ended = thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(target_os = "linux")]
fn stand_back(steps: i32) {
    let own = Some(rustix::thread::gettid());
    let niceness = rustix::process::getpriority_process(own);
    let set = niceness.and_then(|now| rustix::process::setpriority_process(own, now.max(steps)));
    if let Err(error) = set {
        tracing::debug!(%error, steps, "a thread does not stand back");
    }
}

#[cfg(not(target_os = "linux"))]
fn stand_back(_steps: i32) {}
