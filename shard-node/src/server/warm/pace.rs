//! How fast copies are made: slowly enough that others lose little by it, and in time for the job.
//!
//! Owns the share of a core that making a copy takes. On a machine whose cores are busy, what a copy takes is taken away
//! from payments, however far its thread stands back: caches, memory and the disk are shared. So between two steps it
//! rests, in proportion to the processor time that the step has used. What is done at a seal is not of this kind: there payers
//! wait, and whoever rests goes on.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::progress::Copied;

/// A copy takes one part of so many of a core, at first.
const PARTS: u32 = 32;
/// For how long that is so. A state of a million accounts is done by then.
const FIRST: Duration = Duration::from_secs(180);
/// After each further time of this length it takes twice as much. A job waits for its copies for ten minutes
/// (`beacon::limits::PREPARE_MS_MAX`); for the last half of that nothing rests any more.
const THEN: Duration = Duration::from_secs(30);
/// Processor time for which nothing rests: small states are copied at once.
const FREE: Duration = Duration::from_millis(250);
/// One part of so many of a core that all other threads of the process use at most while it counts as idle: nobody loses
/// anything then, and nothing rests.
const IDLE: u32 = 5;
/// How often whoever takes what is written meanwhile looks whether it gains.
const GAINS_EVERY: Duration = Duration::from_secs(3);
/// So much shorter are its rests at most: there are none, for what a step takes.
const FASTER_MAX: u32 = 1 << 10;
/// How long one rest lasts at most before whoever rests looks around.
const LOOK: Duration = Duration::from_millis(25);

/// One part of how many a copy takes, so long after its job has begun to wait for it.
fn parts(elapsed: Duration) -> u32 {
    let doubled = match elapsed.checked_sub(FIRST) {
        None => 0,
        Some(over) => 1 + u32::try_from(over.as_secs() / THEN.as_secs()).unwrap_or(u32::MAX - 1),
    };
    PARTS.checked_shr(doubled).unwrap_or_default().max(1)
}

/// The same, when so much of the room for what parents write meanwhile is taken, in percent: the copy has to be there before
/// that is full.
fn parts_where(filled: u32) -> u32 {
    PARTS.checked_shr(filled.saturating_sub(10) / 15).unwrap_or_default().max(1)
}

/// Whether others have used so little of the processor in so much time.
fn is_idle(others: Duration, time: Duration) -> bool {
    others * IDLE <= time
}

/// How long to rest after a step that took `spent` of the processor, with `before` it.
fn rest(before: Duration, spent: Duration, parts: u32) -> Duration {
    let free = FREE.saturating_sub(before);
    spent.saturating_sub(free) * (parts - 1)
}

/// How much longer whoever has `rested` behind that step rests, when the copy may take one part of so many: time or room that runs
/// out also shortens a rest that was begun.
fn left(before: Duration, spent: Duration, parts: u32, rested: Duration) -> Duration {
    rest(before, spent, parts).saturating_sub(rested)
}

/// What a copy goes by.
#[derive(Clone, Copy)]
pub struct Pace<'a> {
    /// Since when the job waits for it.
    pub since: Instant,
    /// Whether payers wait by now: then nothing rests.
    pub late: &'a dyn Fn() -> bool,
    /// How much of the room for what parents write meanwhile is taken, in percent.
    pub filled: &'a dyn Fn() -> u32,
}

impl Pace<'_> {
    fn parts(&self) -> u32 {
        parts(self.since.elapsed()).min(parts_where((self.filled)()))
    }
}

/// Processor time that this thread has used, and that the process has.
fn used() -> [Duration; 2] {
    [ClockId::ThreadCPUTime, ClockId::ProcessCPUTime].map(time_of)
}

fn time_of(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), nanos)
}

/// The steps of a copy that is being made, all on one thread.
pub struct Steps<'a> {
    over: &'a dyn Fn() -> bool,
    /// None where nothing rests.
    pace: Option<Pace<'a>>,
    /// When the last step began to rest, and what the thread and the process had used then.
    looked: (Instant, [Duration; 2]),
    /// What the thread had used when the last rest ended.
    last: Duration,
    /// What all steps have used.
    total: Duration,
    gains: Gains,
    /// Where it is noted how far they are.
    copied: Option<&'a Copied>,
}

/// Whether whoever takes what is written meanwhile comes nearer to its end, and how much less it rests until it does. At a
/// fixed pace one that writes faster than that is never caught up with.
struct Gains {
    /// A rest is shorter by this.
    faster: u32,
    /// When it was looked at last, and how many blocks were missing then.
    looked: Option<(Instant, u64)>,
}

impl Gains {
    const FIRST: Self = Self { faster: 2, looked: None };

    fn faster(&mut self, now: Instant, behind: u64) -> u32 {
        let Some((then, missed)) = self.looked else {
            self.looked = Some((now, behind));
            return self.faster;
        };
        if now.saturating_duration_since(then) >= GAINS_EVERY {
            // Too little to be through within some ten looks.
            if behind.saturating_add(missed / 10) > missed {
                self.faster = self.faster.saturating_mul(2).min(FASTER_MAX);
            }
            self.looked = Some((now, behind));
        }
        self.faster
    }
}

impl<'a> Steps<'a> {
    /// Rests between steps. `over` says whether the work has become worthless.
    #[must_use]
    pub fn paced(pace: Pace<'a>, over: &'a dyn Fn() -> bool) -> Self {
        Self { pace: Some(pace), ..Self::in_one_go(over) }
    }

    /// Never rests.
    #[must_use]
    pub fn in_one_go(over: &'a dyn Fn() -> bool) -> Self {
        let used = used();
        Self {
            over,
            pace: None,
            looked: (Instant::now(), used),
            last: used[0],
            total: Duration::ZERO,
            gains: Gains::FIRST,
            copied: None,
        }
    }

    /// The same, noting how far they are.
    #[must_use]
    pub fn noting(self, copied: &'a Copied) -> Self {
        Self { copied: Some(copied), ..self }
    }

    /// There are about so many bytes to read.
    pub fn begin(&self, bytes: u64) {
        if let Some(copied) = self.copied {
            copied.begin(bytes);
        }
    }

    /// So many of them are read.
    pub fn read(&self, bytes: u64) {
        if let Some(copied) = self.copied {
            copied.read(bytes);
        }
    }

    /// A step has ended. Returns, after a rest, whether there is any use in the next one.
    pub fn next(&mut self) -> bool {
        self.step(1)
    }

    /// As [`Steps::next`], of a step that takes what the parents have written meanwhile, with so many blocks `behind` them: they
    /// write more while it rests, so that it rests half as long, and half of that again whenever it has gained too little.
    pub fn keep_up(&mut self, behind: u64) -> bool {
        let faster = self.gains.faster(Instant::now(), behind);
        self.step(faster)
    }

    fn step(&mut self, faster: u32) -> bool {
        let (now, [own, all]) = (Instant::now(), used());
        let (then, [own_then, all_then]) = self.looked;
        let others = all.saturating_sub(all_then).saturating_sub(own.saturating_sub(own_then));
        let spent = own.saturating_sub(self.last);
        self.looked = (now, [own, all]);
        if !is_idle(others, now.saturating_duration_since(then)) {
            self.pause(spent / faster);
        }
        self.total += spent;
        self.last = time_of(ClockId::ThreadCPUTime);
        !(self.over)()
    }

    /// Waits before the first step, so that the members of a shard do not all begin at once.
    pub fn wait(&self, time: Duration) {
        let Some(Pace { late, .. }) = self.pace else { return };
        let begun = Instant::now();
        while begun.elapsed() < time && !(self.over)() && !late() {
            std::thread::sleep(LOOK.min(time));
        }
    }

    /// Rests behind a step that took `spent`, for as long as anybody has something of it.
    fn pause(&self, spent: Duration) {
        let Some(pace) = self.pace else { return };
        let mut rested = Duration::ZERO;
        loop {
            let one = left(self.total, spent, pace.parts(), rested).min(LOOK);
            if one.is_zero() || (self.over)() || (pace.late)() {
                return;
            }
            std::thread::sleep(one);
            rested += one;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_little_of_a_core_and_everything_when_its_job_runs_out_of_time() {
        let at = |seconds: u64| parts(Duration::from_secs(seconds));
        assert_eq!([0, 60, 179].map(at), [32; 3]);
        assert_eq!([180, 210, 240, 270, 300, 599, u64::MAX].map(at), [16, 8, 4, 2, 1, 1, 1]);
        const { assert!(beacon::limits::PREPARE_MS_MAX >= 2 * 300_000) }
        // And when what waits for it runs out of room.
        assert_eq!([0, 24, 25, 40, 55, 70, 85, 100, u32::MAX].map(parts_where), [32, 32, 16, 8, 4, 2, 1, 1, 1]);
        let filled = |percent| Pace { since: Instant::now(), late: &|| false, filled: percent }.parts();
        assert_eq!([filled(&|| 0), filled(&|| 60)], [32, 4]);
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
    fn who_does_not_gain_on_what_is_written_rests_less_until_it_does() {
        let (begun, mut gains) = (Instant::now(), Gains::FIRST);
        let mut at = |seconds, behind| gains.faster(begun + Duration::from_secs(seconds), behind);
        assert_eq!([at(0, 1_000), at(1, 2_000), at(2, 500)], [2; 3], "it is looked at every three seconds");
        assert_eq!(at(3, 900), 2, "a tenth was gained");
        assert_eq!([at(6, 899), at(9, 899), at(12, 950)], [4, 8, 16]);
        assert_eq!([at(15, 800), at(18, 700), at(21, 600)], [16; 3], "as fast as it has to be, and no faster");
        assert_eq!((1..10).map(|look| at(21 + 3 * look, 600)).last(), Some(FASTER_MAX));
    }

    #[test]
    fn nothing_rests_where_nobody_else_has_anything_to_do() {
        let ms = Duration::from_millis;
        assert!(is_idle(ms(0), ms(0)) && is_idle(ms(20), ms(100)) && !is_idle(ms(21), ms(100)));
    }

    #[test]
    fn whoever_rests_finds_out_that_the_work_is_over() {
        let pace = || Pace { since: Instant::now(), late: &|| false, filled: &|| 0 };
        assert!(Steps::paced(pace(), &|| false).next());
        assert!(!Steps::paced(pace(), &|| true).next());
        let mut steps = Steps::paced(pace(), &|| true);
        // As if it had taken an hour of the processor: nobody rests for half of a day.
        steps.total = Duration::from_secs(3_600);
        steps.last = Duration::ZERO;
        assert!(!steps.next());
        assert!(Steps::in_one_go(&|| false).next());
    }

    #[test]
    fn a_rest_that_was_begun_is_over_when_the_job_runs_out_of_time() {
        let seconds = Duration::from_secs;
        // A step of twenty seconds of the processor: the tree of a large state is hashed in one go.
        let left_at = |elapsed, rested| left(FREE, seconds(20), parts(seconds(elapsed)), seconds(rested));
        assert_eq!(left_at(120, 0), seconds(620), "longer than the job has time");
        assert_eq!(left_at(180, 60), seconds(240));
        assert_eq!(left_at(300, 180), seconds(0));
    }

    #[test]
    fn nobody_rests_while_payers_wait_nor_for_what_is_over() {
        // As if the step had taken an hour of the processor: either rest would last for more than a day.
        let hour = Duration::from_secs(3_600);
        let pace = |late: &'static dyn Fn() -> bool| Pace { since: Instant::now(), late, filled: &|| 0 };
        Steps::paced(pace(&|| true), &|| false).pause(hour);
        Steps::paced(pace(&|| false), &|| true).pause(hour);
        Steps::in_one_go(&|| false).pause(hour);
        Steps::paced(pace(&|| true), &|| false).wait(hour);
        Steps::paced(pace(&|| false), &|| true).wait(hour);
        Steps::in_one_go(&|| false).wait(hour);
    }
}
