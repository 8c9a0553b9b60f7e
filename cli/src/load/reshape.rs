//! A shard with many accounts is cut and joined again, time after time, while customers pay in it and in another one.
//!
//! Owns the story and what is measured of each job: the longest time in which nobody of one half of the shard had a receipt,
//! how long each phase took by the beacon's clock, and what the other shard did meanwhile. At the end it compares the
//! replicas and adds up all money. It starts no cluster.
//!
//! The two halves are told apart throughout, also while they are one shard: a half that stands still would not be seen
//! beside one that goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use beacon::{BeaconCommand, Job, JobKind, Phase as JobPhase, Shards};
use client::Client;
use ledger::{Address, GroupId, Layout, TimeMs};
use serde::Serialize;
use tokio::time::Instant;

use super::agree::agree;
use super::bench::{OPENING, Plan};
use super::channels::{Delegate, delivered};
use super::engines::add;
use super::latency::{Latencies, Percentiles};
use super::sign::{Party, parties};
use super::source::Source;
use super::stage::{Stage, fresh_symbol};
use super::steady::{Heard, Steady};
use super::switch::longest;
use super::wait::until;
use super::workload::Shape;
use super::{Phase, Phases};
use crate::cluster::verify_name;
use crate::error::CliError;
use crate::output::{Output, rounded};
use crate::setup::pki::random;

/// Keys derived at once.
const DRAWN: u64 = 8_192;
/// Accounts of the other shard, at most.
const OTHERS_MAX: usize = 1_000;
/// Payments of a hundred that cross between the halves of the shard: as many as if payees were drawn from both alike.
const CROSS_PCT: u8 = 50;
/// How long is paid before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long is paid after each job, so that what comes late of it is its own.
const REST: Duration = Duration::from_secs(1);
/// How long a job may take.
const DONE_WITHIN: Duration = Duration::from_secs(1_200);
/// Accounts whose balances are read at once.
const READ: usize = 8_192;

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
    /// Payments a second in the other shard before the first job, with as many in flight as there may be.
    pub others_before: f64,
    /// From the command until the end of each job, over all of them.
    pub others_during: f64,
    /// The second over the first.
    pub others_ratio: f64,
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
    /// From then until all replicas of all new shards had taken their first block.
    pub opening_seconds: Option<f64>,
    /// From the command until the job was seen to be done.
    pub seconds: f64,
    /// The rate of the other shard from the command until then over that before the first job.
    pub others_ratio: f64,
}

/// How it is measured.
pub struct ReshapePlan {
    /// Payments a second in the shard.
    pub rate: u32,
    /// How often it is cut and joined again.
    pub rounds: u32,
    /// How long payments are made before the first cut.
    pub pay_for: Duration,
}

/// One job as it was seen.
struct Seen {
    job: Job,
    asked: Instant,
    done: Instant,
    /// The last look that saw copies being made.
    copying: Instant,
    /// When each phase began by the beacon's clock.
    began: BTreeMap<JobPhase, TimeMs>,
}

/// Accounts of the first shard, of which each half has as many, and some of another shard.
struct Placed {
    /// With the half that each is in, by the number that it would have if the shard were cut.
    shard: Vec<(Party, GroupId)>,
    others: Vec<(Party, GroupId)>,
}

impl Placed {
    /// Derives keys until there are enough.
    fn draw(layout: &Layout, group: GroupId, wanted: u32) -> Result<Self, CliError> {
        let few =
            || CliError::usage("bench_accounts", "each half of the shard needs an account", "use more --accounts");
        let one = || CliError::usage("bench_reshape", "there is no other shard", "use a cluster with two");
        let seed: [u8; 32] = random()?;
        let half = usize::try_from(wanted / 2).unwrap_or(usize::MAX);
        if half == 0 {
            return Err(few());
        }
        let halves = halves(layout, group)?;
        if halves.shards.len() < 3 {
            return Err(one());
        }
        let mut held: BTreeMap<GroupId, usize> = BTreeMap::new();
        let mut placed = Self { shard: Vec::with_capacity(half * 2), others: Vec::new() };
        let others = half.min(OTHERS_MAX);
        let mut next = 0u64;
        while placed.shard.len() < half * 2 || placed.others.len() < others {
            let names: Vec<String> = (next..next + DRAWN).map(|number| number.to_string()).collect();
            next += DRAWN;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for party in parties(&seed, &names) {
                let home = halves.locate(&party.address);
                if layout.locate(&party.address) == group {
                    let count = held.entry(home).or_default();
                    if *count < half {
                        *count += 1;
                        placed.shard.push((party, home));
                    }
                } else if placed.others.len() < others {
                    placed.others.push((party, home));
                }
            }
        }
        // All of them in one shard: there may be more than two.
        let other = placed.others.first().map(|(_, home)| *home);
        placed.others.retain(|(_, home)| Some(*home) == other);
        Ok(placed)
    }

    fn addresses(&self) -> Vec<Address> {
        self.shard.iter().chain(&self.others).map(|(party, _)| party.address).collect()
    }
}

/// The layout if the shard were cut.
fn halves(layout: &Layout, group: GroupId) -> Result<Layout, CliError> {
    let left = layout.next_shard();
    let right = GroupId::shard(left.ordinal().saturating_add(1));
    let cannot = || CliError::new("protocol", format!("{group} cannot be cut"), "report it with the version");
    layout.split(group, [left, right]).ok_or_else(cannot)
}

/// Fills the first shard with accounts, and has it cut and joined again while payments are made.
///
/// # Errors
/// What the cluster refuses or does not answer; `bench_accounts` and `bench_reshape` when there is nothing to cut or to
/// compare with; `not_in_time` when a job does not end; the reason of one that comes to nothing.
pub async fn bench_reshape(
    client: &Client,
    delegates: &[Delegate],
    issuer: Party,
    (plan, reshape): (&Plan, &ReshapePlan),
    output: Output,
    mut phases: Phases,
) -> Result<Reshaping, CliError> {
    let stage = Stage::set(client, issuer, &fresh_symbol("BENCH")?).await?;
    let nowhere = || CliError::new("protocol", "the layout has no shard", "report it with the version");
    let group = stage.layout.shards.first().map(|shard| shard.group).ok_or_else(nowhere)?;
    let placed = tokio::task::block_in_place(|| Placed::draw(&stage.layout, group, plan.accounts))?;
    let (accounts, addresses) = (placed.shard.len() as u64, placed.addresses());
    phases.end("derive keys");
    let portions: Vec<_> = addresses.iter().map(|address| (*address, OPENING)).collect();
    stage.mint(&portions, output).await?;
    drop(portions);
    phases.end("fund accounts");

    let spinner = output.spinner("paying, and cutting and joining a shard");
    let shape = Shape { cross_pct: CROSS_PCT, ..plan.shape };
    let in_shard = Source::new(client.cluster_id(), stage.asset, placed.shard, shape)?;
    let in_other = Source::new(client.cluster_id(), stage.asset, placed.others, plan.shape)?;
    let shard = Steady::start(client, in_shard, reshape.rate);
    let other = Steady::start_free(client, in_other, plan.in_flight);
    tokio::time::sleep(WARM_UP).await;
    let began = Instant::now();
    tokio::time::sleep(reshape.pay_for).await;
    phases.end("pay before it");
    shard.next_stretch();
    let (mut seen, mut kind) = (Vec::new(), JobKind::Split { group });
    for _ in 0..reshape.rounds.saturating_mul(2) {
        let one = Box::pin(run(client, delegates, kind)).await?;
        kind = next_kind(&one.job)?;
        seen.push(one);
        tokio::time::sleep(REST).await;
    }
    let end = Instant::now();
    let (in_shard, _source) = shard.stop().await?;
    let (in_other, _source) = other.stop().await?;
    spinner.finish_and_clear();
    phases.end("cut and join");

    let spinner = output.spinner("comparing the replicas, and adding up the money");
    if let Err(error) = delivered(client).await {
        output.remark(format!("problem: {error}"));
    }
    let agreed = Box::pin(agree(client)).await?;
    agreed.problems.iter().for_each(|problem| output.remark(format!("problem: {problem}")));
    phases.end("compare the replicas");
    let (found, given) = (total(&stage, &addresses).await?, OPENING.saturating_mul(addresses.len() as u128));
    if found != given {
        output.remark(format!("problem: all accounts have {found} together, and were given {given}"));
    }
    spinner.finish_and_clear();
    phases.end("add up the money");

    let report = report((plan, reshape), accounts, (&in_shard, &in_other), &seen, (began, end));
    let money_conserved = found == given;
    Ok(Reshaping { replicas_agree: agreed.agree, money_conserved, phases: phases.finish(), ..report })
}

/// What these accounts have together.
async fn total(stage: &Stage, accounts: &[Address]) -> Result<u128, CliError> {
    let mut total = 0u128;
    for part in accounts.chunks(READ) {
        total = stage.balances(part).await?.into_iter().fold(total, u128::saturating_add);
    }
    Ok(total)
}

/// What undoes a job that is done: its halves are joined, or what it joined is cut.
fn next_kind(job: &Job) -> Result<JobKind, CliError> {
    match &job.children[..] {
        [left, right] => Ok(JobKind::Merge { left: left.group, right: right.group }),
        [one] => Ok(JobKind::Split { group: one.group }),
        _ => Err(CliError::new("protocol", format!("{} has no shards", job.id), "report it with the version")),
    }
}

/// Has a job decided, and looks at it until it is done.
async fn run(client: &Client, delegates: &[Delegate], kind: JobKind) -> Result<Seen, CliError> {
    let shards: Shards = client.shards().await?;
    let layout = shards.standing.layout.version;
    let command = match kind {
        JobKind::Split { group } => BeaconCommand::SplitShard { group, layout, manual: false },
        JobKind::Merge { left, right } => BeaconCommand::MergeShards { left, right, layout, manual: false },
        JobKind::Move { group, from, to } => BeaconCommand::MoveShard { group, from, to, layout },
    };
    let asked = Instant::now();
    let mut decided = None;
    for delegate in delegates {
        let (id, phase) = delegate.job(&command).await?;
        if phase != JobPhase::Proposed {
            decided = Some(id);
            break;
        }
    }
    let undecided = || {
        let cause = format!("all organisations have asked for a {}, and it is not decided", kind.name());
        CliError::new("job_pending", cause, "report it with the version")
    };
    let id = decided.ok_or_else(undecided)?;
    let (mut copying, mut began) = (asked, BTreeMap::new());
    let job = until(&format!("{id} is done"), DONE_WITHIN, async || {
        let Some(job) = client.job::<Job>(id).await? else { return Ok(None) };
        began.entry(job.phase).or_insert(job.since_ms);
        match job.phase {
            JobPhase::Proposed | JobPhase::Aligning | JobPhase::Sealing | JobPhase::Committed => Ok(None),
            JobPhase::Preparing => {
                copying = Instant::now();
                Ok(None)
            }
            JobPhase::Done => Ok(Some(job)),
            JobPhase::Cancelled => Err(came_to_nothing(&job)),
        }
    })
    .await?;
    Ok(Seen { job, asked, done: Instant::now(), copying, began })
}

fn came_to_nothing(job: &Job) -> CliError {
    let fix = "see 'seamark status' and the logs of the nodes (--log info); the machine may be too busy";
    match job.reason {
        Some(reason) => CliError::new(reason.code(), format!("{} came to nothing: {}", job.id, reason.cause()), fix),
        None => CliError::new("job_cancelled", format!("{} was taken back", job.id), fix),
    }
}

/// What was heard in the shard and in the other one, around these jobs, since `began`.
fn report(
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
    let before = Window::of(&others, began, first);
    let mut during = Window::default();
    let mut jobs = Vec::with_capacity(seen.len());
    for (at, one) in seen.iter().enumerate() {
        let until = seen.get(at + 1).map_or(end, |next| next.asked);
        let others = Window::of(&others, one.asked, one.done);
        during.add(&others);
        jobs.push(reshaped(&halves, one, until, others.over(&before)));
    }
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
        others_ratio: during.over(&before),
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
fn reshaped(halves: &[Vec<Instant>], seen: &Seen, until: Instant, others_ratio: f64) -> Reshape {
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
        others_ratio,
    }
}

/// The longest time without a receipt that counts, of the half that has the longer one; none when one has none.
fn gap(halves: &[Vec<Instant>], counts: impl Fn(Instant, Instant) -> bool) -> Option<f64> {
    let gaps: Option<Vec<f64>> = halves.iter().map(|half| longest(half, &counts)).collect();
    gaps.filter(|gaps| gaps.len() == 2)?.into_iter().reduce(f64::max)
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
    use super::*;
    use beacon::jobs::JOB_VERSION;
    use ledger::genesis::VerifyMode;
    use ledger::{Engine, JobId, LayoutVersion};

    fn job(kind: JobKind) -> Job {
        Job {
            version: JOB_VERSION,
            id: JobId(3),
            kind,
            phase: JobPhase::Done,
            manual: false,
            on: LayoutVersion(1),
            approvals: Vec::new(),
            by_scale: false,
            children: Vec::new(),
            since_ms: TimeMs(0),
            until_ms: None,
            warm: Vec::new(),
            open: Vec::new(),
            ends: Vec::new(),
            reason: None,
            seals: Vec::new(),
        }
    }

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
        in_other.by_home.insert(other, vec![(at(50), 100), (at(250), 80), (at(1_050), 500), (at(1_250), 90)]);
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
            processes: Vec::new(),
        };
        let reshape = ReshapePlan { rate: 500, rounds: 1, pay_for: Duration::ZERO };
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
        // A hundred in 0.2 s before, 80 and 90 in 0.2 s each during both; what was paid between them counts in neither.
        assert_eq!((told.others_before, told.others_during, told.others_ratio), (500.0, 425.0, 0.85));
        assert_eq!((split.others_ratio, merge.others_ratio), (0.8, 0.9));
        assert_eq!((told.executed, told.failed), (1, 1));

        let silent = Heard { by_home: BTreeMap::from([(left, one_each(&[0, 2_100]))]), ..Heard::default() };
        let only = seen(JobKind::Split { group: other }, 200, 400, 250);
        let told = report((&plan, &reshape), 10, (&silent, &in_other), &[only], (at(0), at(2_200)));
        assert_eq!(told.split, Pauses { median_seconds: None, worst_seconds: None }, "one half had no receipt");
    }

    #[test]
    fn both_halves_have_as_many_accounts_and_others_are_all_in_one_shard() {
        let (layout, first) = (Layout::even(3), Layout::even(3).shards[0].group);
        let placed = Placed::draw(&layout, first, 21).unwrap();
        let mut halves: BTreeMap<GroupId, usize> = BTreeMap::new();
        placed.shard.iter().for_each(|(_, home)| *halves.entry(*home).or_default() += 1);
        assert_eq!(halves.into_values().collect::<Vec<_>>(), [10, 10]);
        assert!(placed.shard.iter().all(|(party, _)| layout.locate(&party.address) == first));
        let other = placed.others[0].1;
        assert!(other != first && placed.others.iter().all(|(party, _)| layout.locate(&party.address) == other));
        let code = |layout: &Layout, wanted| Placed::draw(layout, first, wanted).err().map(|error| error.code);
        assert_eq!(code(&layout, 1), Some("bench_accounts".to_owned()));
        assert_eq!(code(&Layout::even(1), 4), Some("bench_reshape".to_owned()));
    }

    #[test]
    fn a_job_is_followed_by_what_undoes_it() {
        assert_eq!(next_kind(&job(JobKind::Split { group: GroupId::shard(0) })).unwrap_err().code, "protocol");
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
                others_ratio: 1.0,
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
