//! A shard with many accounts is cut and joined again, time after time, while customers pay in it and in another one.
//!
//! Owns the story. Who pays is [`placed`]'s, and what is told of it [`figures`]'s. At the end it compares the replicas and
//! adds up all money. It starts no cluster.

mod figures;
mod placed;

use std::collections::BTreeMap;
use std::time::Duration;

use beacon::{BeaconCommand, Job, JobKind, Phase as JobPhase, Shards};
use client::Client;
use ledger::Address;
use tokio::time::Instant;

pub use self::figures::{Pauses, Reshape, Reshaping};
use self::figures::{Seen, report};
use self::placed::Placed;
use super::Phases;
use super::agree::agree;
use super::bench::{OPENING, Plan};
use super::channels::{Delegate, delivered};
use super::sign::Party;
use super::source::Source;
use super::stage::{Stage, fresh_symbol};
use super::steady::Steady;
use super::wait::until;
use super::workload::Shape;
use crate::error::CliError;
use crate::output::Output;

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

/// How it is measured.
pub struct ReshapePlan {
    /// Payments a second in the shard.
    pub rate: u32,
    /// How often it is cut and joined again.
    pub rounds: u32,
    /// How long payments are made before the first cut.
    pub pay_for: Duration,
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
    let jobs = reshape.rounds.saturating_mul(2);
    for number in 1..=jobs {
        let one = Box::pin(run(client, delegates, kind)).await?;
        kind = next_kind(&one.job)?;
        seen.push(one);
        // What it leaves to be done, and then what the next one is compared with.
        tokio::time::sleep(reshape.pay_for.max(REST)).await;
        if number < jobs {
            tokio::time::sleep(reshape.pay_for).await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use beacon::jobs::JOB_VERSION;
    use ledger::{GroupId, JobId, LayoutVersion, TimeMs};

    /// One that is done.
    pub(super) fn job(kind: JobKind) -> Job {
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
    fn a_job_without_shards_is_followed_by_none() {
        assert_eq!(next_kind(&job(JobKind::Split { group: GroupId::shard(0) })).unwrap_err().code, "protocol");
    }
}
