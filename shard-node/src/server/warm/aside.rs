//! Work that takes its time: a thread that gets of the processor what others leave.
//!
//! A copy of a large state takes seconds of a core, and nobody waits for it; beside it there are shards whose payers do.
//! Owns how far such work stands back. What is done at a seal is not of this kind.

use std::panic::resume_unwind;
use std::thread;

/// Steps of niceness by which the thread stands back. Each is about a fifth less of the processor while others want it, so
/// that it gets a tenth of what one of them does, and never nothing.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Runs something on a thread of its own that stands back behind all others, and waits for it. A thread that has stood back
/// may not come forward again, so it ends with the work.
pub fn aside<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let run = || {
        stand_back();
        work()
    };
    let ended = thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

/// On Linux niceness is a thread's own; elsewhere it is the whole process's, and nothing is done.
#[cfg(target_os = "linux")]
fn stand_back() {
    let own = Some(rustix::thread::gettid());
    let niceness = rustix::process::getpriority_process(own);
    let set = niceness.and_then(|now| rustix::process::setpriority_process(own, now.max(NICE)));
    if let Err(error) = set {
        tracing::debug!(%error, "a thread that makes copies does not stand back");
    }
}

#[cfg(not(target_os = "linux"))]
fn stand_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_work_stands_back_and_whoever_waits_for_it_does_not() {
        let niceness = || {
            let own = Some(rustix::thread::gettid());
            rustix::process::getpriority_process(own).expect("every thread has one")
        };
        let before = niceness();
        let numbers = [1, 2, 3];
        let (sum, inside) = aside(|| (numbers.iter().sum::<i32>(), niceness()));
        assert_eq!((sum, inside), (6, before.max(NICE)));
        assert_eq!(niceness(), before);
    }

    #[test]
    #[should_panic(expected = "the work has failed")]
    fn what_goes_wrong_in_it_goes_wrong_outside() {
        aside::<()>(|| panic!("the work has failed"));
    }
}
