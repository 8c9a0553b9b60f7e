//! `shard`: what shards there are, what cutting, joining and moving them would come to, and the jobs that do it. A job is
//! the beacon's: these commands ask for it, watch it, and can be given again.

mod answers;
mod far;
mod job;
mod lines;
mod ls;
pub(super) mod plan;
mod room;
mod scale;

use std::time::Duration;

use beacon::jobs::JobKind;
use beacon::{BeaconCommand, Shards};
use ledger::{GroupId, GroupKind, JobId, NodeId};

use self::far::Far;
use self::job::{Asked, Change};
use self::lines::JobLine;
use super::context::{Context, id};
use super::signer::now;
use crate::args::{PlanShard, Seat, Shard};
use crate::error::CliError;
use crate::output::Output;

pub(super) async fn run(args: Shard, output: Output) -> Result<(), CliError> {
    match args {
        Shard::Ls { target } => ls::run(&Context::new(&target)?, output).await,
        Shard::Plan(PlanShard::Split { target, shard }) => {
            plan::run(&Context::new(&target)?, split(&shard)?, output).await
        }
        Shard::Plan(PlanShard::Merge { target, left, right }) => {
            plan::run(&Context::new(&target)?, merge(&left, &right)?, output).await
        }
        Shard::Plan(PlanShard::Move { target, shard, seat }) => {
            plan::run(&Context::new(&target)?, moving(&shard, seat)?, output).await
        }
        Shard::Split { admin, shard, how } => {
            let wait = Duration::from_secs(how.wait);
            let asked = Asked { kind: split(&shard)?, on: how.on, manual: how.manual, wait, within: how.within };
            job::begin(&admin, &asked, output).await
        }
        Shard::Merge { admin, left, right, how } => {
            let wait = Duration::from_secs(how.wait);
            let asked = Asked { kind: merge(&left, &right)?, on: how.on, manual: how.manual, wait, within: how.within };
            job::begin(&admin, &asked, output).await
        }
        Shard::Move { admin, shard, seat, on, wait, within } => {
            let wait = Duration::from_secs(wait);
            let asked = Asked { kind: moving(&shard, seat)?, on, manual: false, wait, within };
            job::begin(&admin, &asked, output).await
        }
        Shard::Status { target, job } => status(&Context::new(&target)?, job.as_deref(), output).await,
        Shard::Cancel { admin, job } => job::change(&admin, Change::Cancel, named(&job)?, Duration::ZERO, output).await,
        Shard::Cut { admin, job, wait } => {
            job::change(&admin, Change::Cut, named(&job)?, Duration::from_secs(wait), output).await
        }
        Shard::Scale(args) => scale::run(args, output).await,
    }
}

/// The shard that a text of the command line names.
fn shard_of(text: &str) -> Result<GroupId, CliError> {
    let group: GroupId = id("group", text)?;
    if group.kind() == Some(GroupKind::Shard) {
        return Ok(group);
    }
    Err(CliError::usage("group", format!("'{text}' is no shard"), "name one of 'seamark shard ls', such as shard-2"))
}

fn named(text: &str) -> Result<JobId, CliError> {
    id("job", text)
}

fn split(shard: &str) -> Result<JobKind, CliError> {
    Ok(JobKind::Split { group: shard_of(shard)? })
}

fn merge(left: &str, right: &str) -> Result<JobKind, CliError> {
    Ok(JobKind::Merge { left: shard_of(left)?, right: shard_of(right)? })
}

fn moving(shard: &str, seat: Seat) -> Result<JobKind, CliError> {
    Ok(JobKind::Move { group: shard_of(shard)?, from: NodeId(seat.from), to: NodeId(seat.to) })
}

/// The command by which an organisation asks for a job, with the layout that it was planned on.
fn command_of(kind: &JobKind, layout: ledger::LayoutVersion, manual: bool) -> BeaconCommand {
    match *kind {
        JobKind::Split { group } => BeaconCommand::SplitShard { group, layout, manual },
        JobKind::Merge { left, right } => BeaconCommand::MergeShards { left, right, layout, manual },
        JobKind::Move { group, from, to } => BeaconCommand::MoveShard { group, from, to, layout },
    }
}

/// There is no such job, or it ended so long ago that it is forgotten.
fn unknown(job: JobId) -> CliError {
    let reject = ledger::Reject::JobUnknown;
    CliError::new(reject.code(), format!("{job}: {}", reject.cause()), reject.fix())
}

async fn status(context: &Context, job: Option<&str>, output: Output) -> Result<(), CliError> {
    let wanted = job.map(named).transpose()?;
    let client = context.client().await?;
    let shards: Shards = client.shards().await?;
    let (status, committees) = (client.status().await?, &shards.standing.committees);
    let chosen = shards.jobs().filter(|job| wanted.is_none_or(|wanted| job.id == wanted));
    let line = |job| JobLine::of(job, committees, Far::of(job, committees, &status, now()));
    let jobs: Vec<JobLine> = chosen.map(line).collect();
    match (wanted, &jobs[..]) {
        (Some(wanted), []) => Err(unknown(wanted)),
        (Some(_), [one, ..]) => output.result(one, || one.in_full()),
        (None, _) => output.result(&lines::Jobs { jobs: &jobs }, || lines::table_of(&jobs)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_and_jobs_are_named_as_they_are_shown() {
        assert_eq!(shard_of("shard-2"), Ok(GroupId::shard(2)));
        assert_eq!(named("job-7"), Ok(JobId(7)));
        for (wrong, code) in [("beacon", "group"), ("channel-1", "group"), ("2", "group"), ("shards", "group")] {
            let error = shard_of(wrong).unwrap_err();
            assert_eq!((error.code.as_str(), error.exit), (code, 2), "{wrong}");
        }
        assert_eq!(named("7").unwrap_err().code, "job");
    }

    #[test]
    fn each_kind_has_its_command_with_the_layout_of_its_plan() {
        let layout = ledger::LayoutVersion(4);
        let [two, three] = [2, 3].map(GroupId::shard);
        let (from, to) = (NodeId(1), NodeId(6));
        let rows = [
            (split("shard-2"), BeaconCommand::SplitShard { group: two, layout, manual: true }),
            (merge("shard-2", "shard-3"), BeaconCommand::MergeShards { left: two, right: three, layout, manual: true }),
            (moving("shard-2", Seat { from: 1, to: 6 }), BeaconCommand::MoveShard { group: two, from, to, layout }),
        ];
        for (kind, command) in rows {
            assert_eq!(command_of(&kind.unwrap(), layout, true), command);
        }
    }
}
