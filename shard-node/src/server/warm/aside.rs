//! Work on copies, on a thread that gets of the processor what others leave.
//!
//! A copy of a large state takes seconds of a core, and nobody waits for it; beside it there are shards whose payers do.
//! Owns how far such work stands back. What is done at a seal is not of this kind.

/// Steps of niceness by which the thread stands back: it gets a tenth of what any other thread does, and never nothing.
const NICE: i32 = 10;

/// Runs something on a thread of its own that stands back behind all others, and waits for it.
pub fn aside<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    storage::aside::aside(NICE, work)
}

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
