//! `shard split`, `merge`, `move`, `cut` and `cancel`: what asks for a job or changes one, and watches it. Given again it
//! looks how far the job is and goes on watching; what is decided goes on without it.

use std::time::{Duration, Instant};

use beacon::jobs::{Job, JobKind, Phase, plan};
use beacon::{BeaconCommand, Shards};
use client::Client;
use ledger::{Committee, JobId, LayoutVersion, Reject};
use serde::Serialize;

use super::far::Far;
use super::lines::{JobLine, progress, waits_for_cut};
use super::room::Room;
use super::{answers, command_of, unknown};
use crate::args::Admin;
use crate::commands::signer::{Signer, WITHIN_MINUTES, now, salt};
use crate::error::CliError;
use crate::load::agree::committees;
use crate::output::{Output, rounded};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is asked for.
pub(super) struct Asked {
    pub(super) kind: JobKind,
    /// The layout that a plan was seen on, where one is named: the beacon refuses any other one.
    pub(super) on: Option<u64>,
    pub(super) manual: bool,
    /// How long it is watched.
    pub(super) wait: Duration,
    /// Minutes that others have to approve.
    pub(super) within: u64,
}

impl Asked {
    /// The layout that the command names: the one that was seen, or the one of now. Whether they are the same is for the
    /// beacon, which may know a newer one.
    fn layout(&self, now: LayoutVersion) -> LayoutVersion {
        self.on.map_or(now, LayoutVersion)
    }
}

/// What becomes of a job that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Cut,
    Cancel,
}

#[derive(Serialize)]
struct Report {
    /// `done`, `under_way`, `waits_for_cut`, `pending` or `cancelled`.
    state: &'static str,
    #[serde(flatten)]
    job: JobLine,
    /// What happened, in order.
    happened: Vec<String>,
    seconds: f64,
}

impl Report {
    fn of(job: &Job, committees: &[Committee], far: Far, happened: Vec<String>, since: Instant) -> Self {
        let state = match job.phase {
            Phase::Done => "done",
            Phase::Cancelled => "cancelled",
            Phase::Proposed => "pending",
            Phase::Preparing if waits_for_cut(job, committees) => "waits_for_cut",
            Phase::Aligning | Phase::Preparing | Phase::Sealing | Phase::Committed => "under_way",
        };
        let seconds = rounded(since.elapsed().as_secs_f64());
        Self { state, job: JobLine::of(job, committees, far), happened, seconds }
    }

    fn text(&self) -> String {
        let state = match self.state {
            "done" => format!("{} is done, after {:.1} s", self.job.what(), self.seconds),
            "cancelled" => format!("{} has come to nothing", self.job.what()),
            "pending" => format!("{} waits for other organisations, which send the same", self.job.what()),
            "waits_for_cut" => format!("{} waits for 'seamark shard cut {}'", self.job.what(), self.job.job),
            _ => format!("{} is under way, and goes on by itself", self.job.what()),
        };
        let mut lines = vec![format!("{}: {state}", self.job.job)];
        lines.extend(self.happened.iter().map(|line| format!("  {line}")));
        lines.push(format!("  {}: {}", self.job.phase, self.job.told()));
        lines.join("\n")
    }
}

/// Asks for a job, and watches it.
pub(super) async fn begin(admin: &Admin, asked: &Asked, output: Output) -> Result<(), CliError> {
    let since = Instant::now();
    let signer = Signer::of(admin)?;
    let reader = signer.reader().await?;
    let mut shards: Shards = reader.shards().await?;
    let known = shards.standing.jobs.iter().find(|job| job.kind == asked.kind && job.phase.under_way());
    if let Some(job) = known {
        let happened = vec!["it was decided before".to_owned()];
        return watch(&reader, job.id, (happened, since), asked.wait, output).await;
    }
    let status = reader.status().await?;
    let unheard = answers::unheard(&asked.kind, &shards, &status);
    answers::silence(&mut shards, &unheard);
    let plan = match plan(&shards.standing, &asked.kind) {
        Ok(plan) => plan,
        Err(reject) => {
            let refused = || answers::refused(&asked.kind, reject, &unheard);
            let job = done_before(&shards, &asked.kind, reject).ok_or_else(refused)?;
            let happened = vec!["it was done before".to_owned()];
            let far = Far::of(job, &shards.standing.committees, &status, now());
            let report = Report::of(job, &shards.standing.committees, far, happened, since);
            return output.result(&report, || report.text());
        }
    };
    if let Some(full) = Room::of(&asked.kind, &shards, &status).and_then(|room| room.refused()) {
        return Err(full);
    }
    let org = signer.org(None)?;
    let client = signer.client_of(&org.name).await?;
    let command = command_of(&asked.kind, asked.layout(plan.on), asked.manual);
    let (fate, id, phase) = signer.job_command(&client, &org, &command, salt()?, asked.within).await?;
    let happened = vec![format!("command {}, signed by {}", fate.digest, org.name)];
    // Others have to approve: there is nothing to watch.
    let wait = if phase == Phase::Proposed { Duration::ZERO } else { asked.wait };
    watch(&reader, id, (happened, since), wait, output).await
}

/// Cuts a job that waits for it, or takes one back.
pub(super) async fn change(
    admin: &Admin,
    change: Change,
    job: JobId,
    wait: Duration,
    output: Output,
) -> Result<(), CliError> {
    let since = Instant::now();
    let signer = Signer::of(admin)?;
    let reader = signer.reader().await?;
    let org = signer.org(None)?;
    let client = signer.client_of(&org.name).await?;
    let command = match change {
        Change::Cut => BeaconCommand::CutShard { job },
        Change::Cancel => BeaconCommand::CancelJob { job },
    };
    let (fate, id, _) = signer.job_command(&client, &org, &command, salt()?, WITHIN_MINUTES).await?;
    let happened = vec![format!("command {}, signed by {}", fate.digest, org.name)];
    if change == Change::Cancel {
        let (job, committees, far) = look(&reader, id).await?;
        let report = Report::of(&job, &committees, far, happened, since);
        return output.result(&report, || report.text());
    }
    watch(&reader, id, (happened, since), wait, output).await
}

/// A job of this kind that has ended well, where that is why another one is refused.
fn done_before<'a>(shards: &'a Shards, kind: &JobKind, reject: Reject) -> Option<&'a Job> {
    let follows = matches!(reject, Reject::ShardUnknown | Reject::MoveSource | Reject::MoveTarget);
    let done = |job: &&Job| follows && job.kind == *kind && job.phase == Phase::Done;
    shards.ended.iter().rev().find(done)
}

/// Why a job cannot be.
pub(super) fn refusal(kind: &JobKind, reject: Reject) -> CliError {
    let shards: Vec<String> = kind.groups().iter().map(ToString::to_string).collect();
    CliError::new(reject.code(), format!("{} {}: {}", kind.name(), shards.join(" "), reject.cause()), reject.fix())
}

/// A job, the committees in force, and how far it is.
async fn look(client: &Client, id: JobId) -> Result<(Job, Vec<Committee>, Far), CliError> {
    let job = client.job::<Job>(id).await?.ok_or_else(|| unknown(id))?;
    let committees = committees(client).await?;
    let far = Far::of(&job, &committees, &client.status().await?, now());
    Ok((job, committees, far))
}

/// Watches a job until it has ended, waits for a command, or the time is over; and says what became of it.
async fn watch(
    client: &Client,
    id: JobId,
    (happened, since): (Vec<String>, Instant),
    wait: Duration,
    output: Output,
) -> Result<(), CliError> {
    let mut told = String::new();
    let (job, committees, far) = loop {
        let (job, committees, far) = look(client, id).await?;
        let percent = far.percent().map_or_else(String::new, |percent| format!(", {percent} %"));
        let line = format!("{}{percent}", progress(&job, &committees));
        if line != told {
            output.remark(format!("{:.1} s: {}: {line}", since.elapsed().as_secs_f64(), job.phase.name()));
            told = line;
        }
        if !job.phase.is_open() || waits_for_cut(&job, &committees) || since.elapsed() >= wait {
            break (job, committees, far);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let report = Report::of(&job, &committees, far, happened, since);
    output.result(&report, || report.text())?;
    match job.phase {
        Phase::Cancelled => Err(came_to_nothing(&job).after_report()),
        Phase::Proposed | Phase::Aligning | Phase::Preparing | Phase::Sealing | Phase::Committed | Phase::Done => {
            Ok(())
        }
    }
}

fn came_to_nothing(job: &Job) -> CliError {
    let again = "see 'seamark shard status', and give the command again if it is still wanted";
    match job.reason {
        Some(reason) => {
            CliError::new(reason.code(), format!("{} has come to nothing: {}", job.id, reason.cause()), again)
        }
        None => CliError::new("job_cancelled", format!("{} was taken back", job.id), again),
    }
}

#[cfg(test)]
mod tests {
    use beacon::jobs::Standing;
    use beacon::jobs::scale::ScalePolicy;
    use ledger::{GroupId, Layout, NodeId, TimeMs};

    use super::super::lines::tests::{SPLIT, committee, job};
    use super::*;

    const SHARD: GroupId = GroupId::shard(2);

    fn shards(ended: Vec<Job>) -> Shards {
        let standing = Standing {
            layout: Layout::even(2),
            nodes: Vec::new(),
            committees: Vec::new(),
            coming: Vec::new(),
            switching: Vec::new(),
            barred: Vec::new(),
            silent: Vec::new(),
            quarantined: Vec::new(),
            jobs: Vec::new(),
            next_shard: 2,
            view_bytes: 0,
        };
        Shards {
            version: beacon::jobs::shards::SHARDS_VERSION,
            time_ms: TimeMs(1),
            standing,
            ended,
            born: Vec::new(),
            policy: ScalePolicy::DEFAULT,
            loads: Vec::new(),
            notes: Vec::new(),
            lead: None,
        }
    }

    #[test]
    fn a_command_names_the_layout_that_was_seen() {
        let asked = |on| Asked { kind: SPLIT, on, manual: false, wait: Duration::ZERO, within: 1 };
        let now = LayoutVersion(4);
        assert_eq!([None, Some(3), Some(4)].map(|on| asked(on).layout(now).0), [4, 3, 4]);
    }

    #[test]
    fn what_was_done_before_is_not_asked_for_again() {
        let moves = JobKind::Move { group: SHARD, from: NodeId(1), to: NodeId(6) };
        let known = shards(vec![job(SPLIT, Phase::Cancelled), job(SPLIT, Phase::Done), job(moves, Phase::Done)]);
        assert!(done_before(&known, &SPLIT, Reject::ShardUnknown).is_some());
        assert!(done_before(&known, &moves, Reject::MoveSource).is_some());
        assert!(
            done_before(&known, &SPLIT, Reject::ShardBusy).is_none(),
            "it is something else that speaks against it"
        );
        let other = JobKind::Split { group: GroupId::shard(9) };
        assert!(done_before(&known, &other, Reject::ShardUnknown).is_none());
        assert!(done_before(&shards(vec![job(SPLIT, Phase::Cancelled)]), &SPLIT, Reject::ShardUnknown).is_none());
    }

    #[test]
    fn a_report_says_in_which_state_the_job_is_and_what_to_do() {
        let committees = [committee(SHARD, &[1, 2, 3])];
        let warm = [1, 2, 3].map(|node| (SHARD, NodeId(node))).to_vec();
        let rows = [
            (job(SPLIT, Phase::Proposed), "pending", "which send the same"),
            (job(SPLIT, Phase::Preparing), "under_way", "goes on by itself"),
            (Job { manual: true, warm, ..job(SPLIT, Phase::Preparing) }, "waits_for_cut", "'seamark shard cut job-3'"),
            (job(SPLIT, Phase::Committed), "under_way", "the new layout is in force"),
            (job(SPLIT, Phase::Done), "done", "into shard-4 and shard-5 is done"),
            (job(SPLIT, Phase::Cancelled), "cancelled", "taken back"),
        ];
        for (job, state, part) in rows {
            let report = Report::of(
                &job,
                &committees,
                Far::default(),
                vec!["command ab, signed by org-a".to_owned()],
                Instant::now(),
            );
            let text = report.text();
            assert_eq!(report.state, state);
            assert!(text.contains(part) && text.contains("  command ab"), "{part} in\n{text}");
            assert_eq!(serde_json::to_value(&report).unwrap()["job"], "job-3");
        }
        let unanswered = Job { reason: Some(Reject::Unanswered), ..job(SPLIT, Phase::Cancelled) };
        assert_eq!(came_to_nothing(&unanswered).code, Reject::Unanswered.code());
        assert_eq!(came_to_nothing(&job(SPLIT, Phase::Cancelled)).code, "job_cancelled");
    }
}
