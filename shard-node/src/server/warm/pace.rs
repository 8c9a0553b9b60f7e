//! How fast copies are made: slowly enough that others lose little by it, and in time for the job.
//!
//! Owns the share of a core that making a copy takes. On a machine whose cores are busy, what a copy takes is taken away
//! from payments, however far its thread stands back: caches, memory and the disk are shared. So between two steps it
//! rests, in proportion to the processor time that the step has used. What is done at a seal is not of this kind.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A copy takes one part of so many of a core, at first.
const PARTS: u32 = 16;
/// For how long that is so. A state of a million accounts is done by then.
const FIRST: Duration = Duration::from_secs(120);
/// After each further time of this length it takes twice as much. A job waits for its copies for ten minutes
/// (`beacon::limits::PREPARE_MS_MAX`); for the last half of that nothing rests any more.
const THEN: Duration = Duration::from_secs(45);
/// Processor time for which nothing rests: small states are copied at once.
const FREE: Duration = Duration::from_millis(250);
/// How long one rest lasts at most before whoever rests looks around.
const LOOK: Duration = Duration::from_millis(25);

/// One part of how many a copy takes, so long after its job was first seen.
fn parts(elapsed: Duration) -> u32 {
    let doubled = match elapsed.checked_sub(FIRST) {
        None => 0,
        Some(over) => 1 + u32::try_from(over.as_secs() / THEN.as_secs()).unwrap_or(u32::MAX - 1),
    };
    PARTS.checked_shr(doubled).unwrap_or_default().max(1)
}

/// How long to rest after a step that took `spent` of the processor, with `before` it.
fn rest(before: Duration, spent: Duration, parts: u32) -> Duration {
    let free = FREE.saturating_sub(before);
    spent.saturating_sub(free) * (parts - 1)
}

/// Processor time that this thread has used.
fn used() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), nanos)
}

/// The steps of a copy that is being made, all on one thread.
pub struct Steps<'a> {
    over: &'a dyn Fn() -> bool,
    /// When the job was first seen; none where nothing rests.
    since: Option<Instant>,
    /// Processor time of the thread when the last step ended, and of all steps.
    last: Duration,
    total: Duration,
}

impl<'a> Steps<'a> {
    /// Rests between steps. `over` says whether the work has become worthless.
    #[must_use]
    pub fn paced(since: Instant, over: &'a dyn Fn() -> bool) -> Self {
        Self { over, since: Some(since), last: used(), total: Duration::ZERO }
    }

    /// Never rests.
    #[must_use]
    pub fn in_one_go(over: &'a dyn Fn() -> bool) -> Self {
        Self { over, since: None, last: used(), total: Duration::ZERO }
    }

    /// A step has ended. Returns, after a rest, whether there is any use in the next one.
    pub fn next(&mut self) -> bool {
        let spent = used().saturating_sub(self.last);
        let mut rests = match self.since {
            Some(since) => rest(self.total, spent, parts(since.elapsed())),
            None => Duration::ZERO,
        };
        self.total += spent;
        while !rests.is_zero() && !(self.over)() {
            let now = rests.min(LOOK);
            std::thread::sleep(now);
            rests -= now;
        }
        self.last = used();
        !(self.over)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_a_sixteenth_of_a_core_and_everything_when_its_job_runs_out_of_time() {
        let at = |seconds: u64| parts(Duration::from_secs(seconds));
        assert_eq!([0, 60, 119].map(at), [16; 3]);
        assert_eq!([120, 165, 210, 255, 300, 599, u64::MAX].map(at), [8, 4, 2, 1, 1, 1, 1]);
        assert!(beacon::limits::PREPARE_MS_MAX >= 2 * 300_000);
    }

    #[test]
    fn small_states_are_copied_at_once_and_behind_that_it_rests_in_proportion() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(0), ms(250), 16), ms(0));
        assert_eq!(rest(ms(240), ms(20), 16), ms(150));
        assert_eq!(rest(ms(250), ms(20), 16), ms(300));
        assert_eq!(rest(ms(250), ms(20), 1), ms(0));
    }

    #[test]
    fn whoever_rests_finds_out_that_the_work_is_over() {
        assert!(Steps::paced(Instant::now(), &|| false).next());
        assert!(!Steps::paced(Instant::now(), &|| true).next());
        let mut steps = Steps::paced(Instant::now(), &|| true);
        // As if the last step had taken an hour: nobody rests for fifteen.
        steps.total = Duration::from_secs(3_600);
        steps.last = Duration::ZERO;
        assert!(!steps.next());
        assert!(Steps::in_one_go(&|| false).next());
    }
}
