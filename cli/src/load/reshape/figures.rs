//! What is told of a shard that was cut and joined: out of what was heard of payments, and of what was seen of the jobs.
//!
//! Asks nobody and has no clock of its own. The two halves of the shard are told apart throughout, also while they are one:
//! a half that stands still would not be seen beside one that goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use beacon::{Job, Phase as JobPhase};
use ledger::TimeMs;
use serde::Serialize;
use tokio::time::Instant;

use super::ReshapePlan;
use crate::cluster::verify_name;
use crate::load::Phase;
use crate::load::bench::Plan;
use crate::load::engines::add;
use crate::load::latency::{Latencies, Percentiles};
use crate::load::steady::Heard;
use crate::load::switch::longest;
use crate::output::rounded;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Reshaping {
    /// All cuts.
    pub split: Pauses,
    /// All joins.
    pub merge: Pauses,
    /// Each job, in order.
    pub jobs: Vec<Reshape>,
    /// Accounts of the shard.
    pub accounts: u64,
    /// Payments a second in it, each sent when it was due.
    pub rate: u64,
    /// The longest time without a receipt of one half before the first job; absent when there was at most one.
    pub gap_before_seconds: Option<f64>,
    /// Payments of that shard that were due before the first job, from when each was due to its receipt.
    pub before_ms: Percentiles,
    /// Those that were due after it.
    pub meanwhile_ms: Percentiles,
    /// Payments a second in the other shard in the seconds before each command, with as many in flight as there may be.
    pub others_before: f64,
    /// From the command until the end of each job, over all of them.
    pub others_during: f64,
    /// The second over the first.
    pub others_ratio: f64,
    /// In the seconds behind the end of each job, over the first: what a job leaves to be done is seen there.
    pub others_afterwards_ratio: f64,
    /// Payments that were executed, in both shards.
    pub executed: u64,
    /// Payments that were not.
    pub failed: u64,
    /// The same by code.
    pub refused: BTreeMap<String, u64>,
    /// Every replica of every group had the same state in the end.
    pub replicas_agree: bool,
    /// All accounts together had what they were given at first.
    pub money_conserved: bool,
    /// `ingest` or `every`.
    pub verify_mode: &'static str,
    /// Cores of this machine.
    pub cores: u64,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

/// The pauses of several jobs. Absent when a half had no receipt any more in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pauses {
    /// Half were shorter; of an even number the longer one of the two in the middle.
    pub median_seconds: Option<f64>,
    /// The longest.
    pub worst_seconds: Option<f64>,
}

impl Pauses {
    fn of<'a>(jobs: impl Iterator<Item = &'a Reshape>) -> Self {
        let pauses: Option<Vec<f64>> = jobs.map(|job| job.pause_seconds).collect();
        let mut pauses = pauses.unwrap_or_default();
        pauses.sort_by(f64::total_cmp);
        Self { median_seconds: pauses.get(pauses.len() / 2).copied(), worst_seconds: pauses.last().copied() }
    }
}

/// What one job cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reshape {
    /// Its name, such as `job-3`.
    pub job: String,
    /// `split` or `merge`.
    pub kind: &'static str,
    /// The longest time without a receipt of one half, from the command until the next one, or the end; the longer one of
    /// both halves. Absent when one had no receipt any more.
    pub pause_seconds: Option<f64>,
    /// The same while copies were made only, before anything stood still; absent when there was at most one receipt.
    pub copying_gap_seconds: Option<f64>,
    /// From the decision until enough nodes had their copies, by the time of the beacon's blocks. Of these three each is absent
    /// when it went by between two looks.
    pub preparing_seconds: Option<f64>,
    /// From then until every parent was proved to stand still, and the new layout was in force.
    pub sealing_seconds: Option<f64>,
    /// From then until all replicas of all new shards had run for a second, which is no part of the pause.
    pub opening_seconds: Option<f64>,
    /// From the command until the job was seen to be done.
    pub seconds: f64,
    /// Payments a second in the other shard in the seconds before the command. Of the next job it shows what is left of this one for
    /// good: two halves cost more than a whole.
    pub others_before: f64,
    /// The rate of the other shard from the command until then over that in the seconds before the command.
    pub others_ratio: f64,
    /// That in the seconds from then on, over the same.
    pub others_afterwards_ratio: f64,
}

/// One job as it was seen.
pub(super) struct Seen {
    pub(super) job: Job,
    pub(super) asked: Instant,
    pub(super) done: Instant,
    /// The last look that saw copies being made.
    pub(super) copying: Instant,
    /// When each phase began by the beacon's clock.
    pub(super) began: BTreeMap<JobPhase, TimeMs>,
}

/// What was heard in the shard and in the other one, around these jobs, since `began`.
pub(super) fn report(
    (plan, reshape): (&Plan, &ReshapePlan),
    accounts: u64,
    (in_shard, in_other): (&Heard, &Heard),
    seen: &[Seen],
    (began, end): (Instant, Instant),
) -> Reshaping {
    let halves: Vec<Vec<Instant>> =
        in_shard.by_home.values().map(|heard| heard.iter().map(|(at, _)| *at).collect()).collect();
    let others: Vec<(Instant, u64)> = in_other.by_home.values().flatten().copied().collect();
    let first = seen.first().map_or(end, |one| one.asked);
    let mut beside = Beside::default();
    let mut jobs = Vec::with_capacity(seen.len());
    for (at, one) in seen.iter().enumerate() {
        let until = seen.get(at + 1).map_or(end, |next| next.asked);
        let others = Beside::of(&others, one, reshape.pay_for);
        beside.add(&others);
        jobs.push(reshaped(&halves, one, until, &others));
    }
    let Beside { before, during, .. } = &beside;
    let [due_before, due_meanwhile] = &in_shard.decided;
    let executed = in_shard.decided.iter().chain(&in_other.decided).map(Latencies::count).sum();
    let mut refused = in_shard.refused.clone();
    add(&mut refused, &in_other.refused);
    Reshaping {
        split: Pauses::of(jobs.iter().filter(|job| job.kind == "split")),
        merge: Pauses::of(jobs.iter().filter(|job| job.kind == "merge")),
        accounts,
        rate: reshape.rate.into(),
        gap_before_seconds: gap(&halves, |from, to| from >= began && to <= first),
        before_ms: due_before.percentiles(),
        meanwhile_ms: due_meanwhile.percentiles(),
        others_before: rounded(before.rate()),
        others_during: rounded(during.rate()),
        others_ratio: beside.ratio(),
        others_afterwards_ratio: beside.afterwards_ratio(),
        executed,
        failed: refused.values().sum(),
        refused,
        replicas_agree: false,
        money_conserved: false,
        verify_mode: verify_name(plan.verify),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        phases: Vec::new(),
        jobs,
    }
}

/// One job, up to the next one.
fn reshaped(halves: &[Vec<Instant>], seen: &Seen, until: Instant, others: &Beside) -> Reshape {
    let since = |from: JobPhase, to: JobPhase| {
        let (from, to) = (seen.began.get(&from)?, seen.began.get(&to)?);
        Some(rounded(to.0.saturating_sub(from.0) as f64 / 1_000.0))
    };
    let (asked, copying) = (seen.asked, seen.copying);
    Reshape {
        job: seen.job.id.to_string(),
        kind: seen.job.kind.name(),
        pause_seconds: gap(halves, |from, to| to >= asked && from < until),
        copying_gap_seconds: gap(halves, |_, to| to >= asked && to <= copying),
        preparing_seconds: since(JobPhase::Preparing, JobPhase::Sealing),
        sealing_seconds: since(JobPhase::Sealing, JobPhase::Committed),
        opening_seconds: since(JobPhase::Committed, JobPhase::Done),
        seconds: rounded(seen.done.duration_since(asked).as_secs_f64()),
        others_before: rounded(others.before.rate()),
        others_ratio: others.ratio(),
        others_afterwards_ratio: others.afterwards_ratio(),
    }
}

/// The longest time without a receipt that counts, of the half that has the longer one; none when one has none.
fn gap(halves: &[Vec<Instant>], counts: impl Fn(Instant, Instant) -> bool) -> Option<f64> {
    let gaps: Option<Vec<f64>> = halves.iter().map(|half| longest(half, &counts)).collect();
    gaps.filter(|gaps| gaps.len() == 2)?.into_iter().reduce(f64::max)
}

/// The other shard around a job, or around several.
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    before: Window,
    during: Window,
    afterwards: Window,
}

impl Beside {
    /// `around` is how long before the command and behind the end is looked at.
    fn of(heard: &[(Instant, u64)], seen: &Seen, around: Duration) -> Self {
        let Seen { asked, done, .. } = *seen;
        let earlier = asked.checked_sub(around).unwrap_or(asked);
        Self {
            before: Window::of(heard, earlier, asked),
            during: Window::of(heard, asked, done),
            afterwards: Window::of(heard, done, done + around),
        }
    }

    fn add(&mut self, other: &Self) {
        self.before.add(&other.before);
        self.during.add(&other.during);
        self.afterwards.add(&other.afterwards);
    }

    fn ratio(&self) -> f64 {
        self.during.over(&self.before)
    }

    fn afterwards_ratio(&self) -> f64 {
        self.afterwards.over(&self.before)
    }
}

/// What was executed in a part of the time.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    executed: u64,
    seconds: f64,
}

impl Window {
    fn of(heard: &[(Instant, u64)], from: Instant, to: Instant) -> Self {
        let within = heard.iter().filter(|(at, _)| *at >= from && *at < to);
        let executed = within.map(|(_, count)| count).sum();
        Self { executed, seconds: to.saturating_duration_since(from).as_secs_f64() }
    }

    fn add(&mut self, other: &Self) {
        self.executed += other.executed;
        self.seconds += other.seconds;
    }

    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.executed as f64 / self.seconds } else { 0.0 }
    }

    /// This rate over another one; zero where nothing was executed in that.
    fn over(&self, other: &Self) -> f64 {
        if other.rate() > 0.0 { rounded(self.rate() / other.rate()) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use beacon::JobKind;
    use ledger::genesis::VerifyMode;
    use ledger::{Engine, GroupId};

    use super::super::tests::job;
    use super::*;
    use crate::load::workload::Shape;

    #[test]
    fn a_half_that_stands_still_beside_one_that_goes_on_is_seen_and_the_other_shard_is_measured_during_jobs_alone() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let [left, right, other] = [2, 3, 1].map(GroupId::shard);
        let one_each = |moments: &[u64]| moments.iter().map(|ms| (at(*ms), 1)).collect::<Vec<_>>();
        let mut in_shard = Heard::default();
        in_shard.by_home.insert(left, one_each(&[0, 100, 500, 900, 1_000, 1_100, 1_200, 1_900, 2_100]));
        in_shard.by_home.insert(right, one_each(&[0, 150, 850, 1_000, 1_100, 1_200, 1_300, 2_150]));
        in_shard.refused.insert("busy".to_owned(), 1);
        let mut in_other = Heard::default();
        in_other.by_home.insert(
            other,
            vec![
                (at(50), 100),
                (at(250), 80),
                (at(450), 95),
                (at(700), 900),
                (at(1_050), 100),
                (at(1_250), 90),
                (at(1_450), 99),
            ],
        );
        in_other.decided[1].record(5_000);
        let seen = |kind, asked, done, copying| {
            let began = [(JobPhase::Preparing, 10), (JobPhase::Sealing, 260), (JobPhase::Committed, 300)];
            let began = began.map(|(phase, ms)| (phase, TimeMs(ms))).into_iter().collect();
            Seen { job: job(kind), asked: at(asked), done: at(done), copying: at(copying), began }
        };
        let split = seen(JobKind::Split { group: other }, 200, 400, 950);
        let merge = seen(JobKind::Merge { left, right }, 1_200, 1_400, 1_250);
        let plan = Plan {
            shape: Shape::default(),
            accounts: 10,
            in_flight: 4,
            send_for: Duration::ZERO,
            transactions_max: None,
            verify: VerifyMode::Ingest,
            replicas: 3,
            engine: Engine::Raft,
            gone: None,
            silent: None,
            processes: Vec::new(),
        };
        let reshape = ReshapePlan { rate: 500, rounds: 1, pay_for: Duration::from_millis(200) };
        let told = report((&plan, &reshape), 10, (&in_shard, &in_other), &[split, merge], (at(0), at(2_200)));
        // The left half was never without a receipt for longer than 0.4 s.
        assert_eq!(told.split, Pauses { median_seconds: Some(0.7), worst_seconds: Some(0.7) });
        assert_eq!(told.merge.worst_seconds, Some(0.85));
        assert_eq!(told.gap_before_seconds, Some(0.15));
        let [split, merge] = &told.jobs[..] else { panic!("{told:?}") };
        assert_eq!((split.copying_gap_seconds, merge.copying_gap_seconds), (Some(0.7), Some(0.1)));
        let phases = (split.preparing_seconds, split.sealing_seconds, split.opening_seconds);
        assert_eq!(phases, (Some(0.25), Some(0.04), None), "nobody saw it done");
        assert_eq!((split.kind, merge.kind, split.seconds), ("split", "merge", 0.2));
        // A hundred in the 0.2 s before each, 80 and 90 in 0.2 s each during both, 95 and 99 in the 0.2 s behind them; what was
        // paid between them counts in none.
        assert_eq!((told.others_before, told.others_during, told.others_ratio), (500.0, 425.0, 0.85));
        assert_eq!([split.others_before, merge.others_before], [500.0; 2]);
        assert_eq!((split.others_ratio, merge.others_ratio), (0.8, 0.9));
        assert_eq!((split.others_afterwards_ratio, merge.others_afterwards_ratio), (0.95, 0.99));
        assert_eq!(told.others_afterwards_ratio, 0.97);
        assert_eq!((told.executed, told.failed), (1, 1));

        let silent = Heard { by_home: BTreeMap::from([(left, one_each(&[0, 2_100]))]), ..Heard::default() };
        let only = seen(JobKind::Split { group: other }, 200, 400, 250);
        let told = report((&plan, &reshape), 10, (&silent, &in_other), &[only], (at(0), at(2_200)));
        assert_eq!(told.split, Pauses { median_seconds: None, worst_seconds: None }, "one half had no receipt");
    }

    #[test]
    fn the_pauses_of_jobs_are_told_by_median_and_worst() {
        let pauses = |seconds: &[f64]| {
            let one = |pause: &f64| Reshape {
                job: "job-1".to_owned(),
                kind: "split",
                pause_seconds: Some(*pause),
                copying_gap_seconds: None,
                preparing_seconds: None,
                sealing_seconds: None,
                opening_seconds: None,
                seconds: 1.0,
                others_before: 100.0,
                others_ratio: 1.0,
                others_afterwards_ratio: 1.0,
            };
            let jobs: Vec<Reshape> = seconds.iter().map(one).collect();
            let pauses = Pauses::of(jobs.iter());
            (pauses.median_seconds, pauses.worst_seconds)
        };
        assert_eq!(pauses(&[0.5, 0.1, 0.3]), (Some(0.3), Some(0.5)));
        assert_eq!(pauses(&[0.1, 0.4]), (Some(0.4), Some(0.4)), "the longer one of two in the middle");
        assert_eq!(pauses(&[]), (None, None));
    }
}
