//! `shard scale`: the limits by which the beacon cuts and joins shards by itself, what it knows of their load, and what it
//! has decided.

use beacon::jobs::scale::{GroupLoad, ScaleEvent, ScaleNote};
use beacon::{BeaconCommand, ScalePolicy, Shards};
use serde::Serialize;

use crate::args::{ScaleArg, SetScale, ShardScale};
use crate::commands::beacon::send;
use crate::commands::context::Context;
use crate::commands::signer::Signer;
use crate::error::CliError;
use crate::output::{Output, facts, grouped, moment, table};

pub(super) async fn run(args: ShardScale, output: Output) -> Result<(), CliError> {
    match args {
        ShardScale::Show { target } => {
            let shards: Shards = Context::new(&target)?.client().await?.shards().await?;
            let shown = Shown::of(&shards);
            output.result(&shown, || text(&shown))
        }
        ShardScale::Log { target } => {
            let shards: Shards = Context::new(&target)?.client().await?.shards().await?;
            let log = Log { decided: shards.notes.iter().map(Decided::of).collect() };
            output.result(&log, || log.text())
        }
        ShardScale::Set(args) => {
            let signer = Signer::of(&args.admin)?;
            let shards: Shards = signer.reader().await?.shards().await?;
            let command = BeaconCommand::SetScale(policy(&shards.policy, &args));
            send(&signer, None, command, args.within, output).await
        }
    }
}

/// The limits that a command line asks for, where others are in force.
fn policy(now: &ScalePolicy, args: &SetScale) -> ScalePolicy {
    let seconds = |seconds: Option<u64>, now: u64| seconds.map_or(now, |seconds| seconds.saturating_mul(1_000));
    ScalePolicy {
        version: now.version,
        on: args.mode != ScaleArg::Off,
        dry_run: args.mode != ScaleArg::On,
        split_accounts: args.split_accounts.unwrap_or(now.split_accounts),
        split_tps: args.split_tps.unwrap_or(now.split_tps),
        merge_accounts: args.merge_accounts.unwrap_or(now.merge_accounts),
        merge_tps: args.merge_tps.unwrap_or(now.merge_tps),
        sustained_ms: seconds(args.sustained, now.sustained_ms),
        cooldown_ms: seconds(args.cooldown, now.cooldown_ms),
        shards_min: args.at_least.unwrap_or(now.shards_min),
        shards_max: args.at_most.unwrap_or(now.shards_max),
    }
}

fn mode(policy: &ScalePolicy) -> &'static str {
    match (policy.on, policy.dry_run) {
        (false, _) => "off",
        (true, true) => "dry-run",
        (true, false) => "on",
    }
}

#[derive(Serialize)]
struct Shown {
    /// `off`, `dry-run` or `on`.
    mode: &'static str,
    split_accounts: u64,
    split_tps: u32,
    merge_accounts: u64,
    merge_tps: u32,
    sustained_seconds: u64,
    cooldown_seconds: u64,
    at_least: u16,
    at_most: u16,
    loads: Vec<LoadLine>,
}

#[derive(Serialize)]
struct LoadLine {
    shard: String,
    node: u32,
    accounts: u64,
    bytes: u64,
    tps: u32,
    taken_ms: u64,
    /// Since when it has been too much.
    #[serde(skip_serializing_if = "Option::is_none")]
    split_since_ms: Option<u64>,
    /// Of a left half: since when both have had too little.
    #[serde(skip_serializing_if = "Option::is_none")]
    merge_since_ms: Option<u64>,
}

impl Shown {
    fn of(shards: &Shards) -> Self {
        let policy = &shards.policy;
        let line = |found: &GroupLoad| LoadLine {
            shard: found.group.to_string(),
            node: found.node.0,
            accounts: found.load.accounts,
            bytes: found.load.bytes,
            tps: found.load.tps,
            taken_ms: found.taken_ms.0,
            split_since_ms: found.split_since_ms.map(|since| since.0),
            merge_since_ms: found.merge_since_ms.map(|since| since.0),
        };
        Self {
            mode: mode(policy),
            split_accounts: policy.split_accounts,
            split_tps: policy.split_tps,
            merge_accounts: policy.merge_accounts,
            merge_tps: policy.merge_tps,
            sustained_seconds: policy.sustained_ms / 1_000,
            cooldown_seconds: policy.cooldown_ms / 1_000,
            at_least: policy.shards_min,
            at_most: policy.shards_max,
            loads: shards.loads.iter().map(line).collect(),
        }
    }
}

fn text(shown: &Shown) -> String {
    let limit = |number: u64, unit: &str| match number {
        0 => format!("no limit of {unit}"),
        number => format!("{} {unit}", grouped(number.into())),
    };
    let split = [limit(shown.split_accounts, "accounts"), limit(shown.split_tps.into(), "transactions a second")];
    let merge = [limit(shown.merge_accounts, "accounts"), limit(shown.merge_tps.into(), "transactions a second")];
    let does = match shown.mode {
        "off" => "off: no shard is cut or joined but by a command",
        "dry-run" => "dry-run: what would be done is written down",
        _ => "on: shards are cut and joined",
    };
    let rows = [
        ("mode", does.to_owned()),
        ("cut beyond", split.join(", or ")),
        ("joined below", merge.join(", and ")),
        ("for", format!("{} s without a pause", shown.sustained_seconds)),
        ("then nothing for", format!("{} s", shown.cooldown_seconds)),
        ("shards", format!("{} to {}", shown.at_least, shown.at_most)),
    ];
    let mut text = facts(rows);
    if !shown.loads.is_empty() {
        let since = |since: Option<u64>| since.map_or_else(String::new, moment);
        let rows = shown.loads.iter().map(|load| {
            [
                load.shard.clone(),
                grouped(load.accounts.into()),
                grouped(load.bytes.into()),
                grouped(load.tps.into()),
                moment(load.taken_ms),
                since(load.split_since_ms),
                since(load.merge_since_ms),
            ]
        });
        let header = ["shard", "accounts", "bytes", "tx/s", "reported", "too much since", "too little since"];
        text.push_str(&format!("\n{}", table(header, rows)));
    }
    text
}

#[derive(Serialize)]
struct Log {
    /// The latest last.
    decided: Vec<Decided>,
}

#[derive(Serialize)]
struct Decided {
    number: u64,
    /// `split` or `merge`.
    kind: &'static str,
    shards: Vec<String>,
    /// `began`, `would_begin` or `refused`.
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// The code of what spoke against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
    accounts: u64,
    tps: u32,
    time_ms: u64,
}

impl Decided {
    fn of(note: &ScaleNote) -> Self {
        let (event, job, refusal) = match note.event {
            ScaleEvent::Began(job) => ("began", Some(job.to_string()), None),
            ScaleEvent::WouldBegin => ("would_begin", None, None),
            ScaleEvent::Refused(reject) => ("refused", None, Some(reject.code())),
        };
        Self {
            number: note.number,
            kind: note.kind.name(),
            shards: note.kind.groups().iter().map(ToString::to_string).collect(),
            event,
            job,
            refusal,
            accounts: note.load.accounts,
            tps: note.load.tps,
            time_ms: note.time_ms.0,
        }
    }

    fn text(&self) -> String {
        let what = match (&self.job, self.refusal) {
            (Some(job), _) => format!("{job} was begun"),
            (None, Some(code)) => format!("refused: {code}"),
            (None, None) => "would have been begun".to_owned(),
        };
        let (shards, accounts) = (self.shards.join(" "), grouped(self.accounts.into()));
        let load = format!("{accounts} accounts, {} transactions a second", grouped(self.tps.into()));
        format!("{}  {} {shards}: {what} ({load})", moment(self.time_ms), self.kind)
    }
}

impl Log {
    fn text(&self) -> String {
        if self.decided.is_empty() {
            return "nothing was decided".to_owned();
        }
        self.decided.iter().map(Decided::text).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use beacon::jobs::JobKind;
    use beacon::jobs::scale::{Load, SCALE_VERSION};
    use clap::Parser;
    use ledger::{GroupId, JobId, Reject, TimeMs};

    use super::*;
    use crate::args::{Cli, Command, Shard};

    fn asked(line: &str) -> SetScale {
        let args = ["seamark", "shard", "scale", "set"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(args).unwrap().command {
            Command::Shard(Shard::Scale(ShardScale::Set(args))) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_named_stays_as_it_is_in_force() {
        let first = policy(&ScalePolicy::DEFAULT, &asked("dry-run --split-accounts 1000 --merge-accounts 200"));
        let expected =
            ScalePolicy { on: true, dry_run: true, split_accounts: 1_000, merge_accounts: 200, ..ScalePolicy::DEFAULT };
        assert_eq!((first, mode(&first)), (expected, "dry-run"));
        let then = policy(&first, &asked("on --sustained 120 --at-least 2 --at-most 8"));
        let expected = ScalePolicy { dry_run: false, sustained_ms: 120_000, shards_min: 2, shards_max: 8, ..first };
        assert_eq!((then, mode(&then)), (expected, "on"));
        assert_eq!(mode(&policy(&then, &asked("off"))), "off");
    }

    #[test]
    fn limits_and_decisions_are_told_to_people_and_to_programs() {
        let limits = ScalePolicy { on: true, split_accounts: 1_000, ..ScalePolicy::DEFAULT };
        let shown = Shown {
            mode: mode(&limits),
            split_accounts: limits.split_accounts,
            split_tps: limits.split_tps,
            merge_accounts: limits.merge_accounts,
            merge_tps: limits.merge_tps,
            sustained_seconds: limits.sustained_ms / 1_000,
            cooldown_seconds: limits.cooldown_ms / 1_000,
            at_least: limits.shards_min,
            at_most: limits.shards_max,
            loads: Vec::new(),
        };
        let text = text(&shown);
        for part in ["dry-run: what would", "1,000 accounts, or no limit of transactions a second", "600 s without"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let load = Load { accounts: 2_000, bytes: 9, tps: 3 };
        let note = |event| ScaleNote {
            version: SCALE_VERSION,
            number: 4,
            kind: JobKind::Split { group: GroupId::shard(2) },
            event,
            load,
            time_ms: TimeMs(1_000),
        };
        let events = [ScaleEvent::WouldBegin, ScaleEvent::Began(JobId(3)), ScaleEvent::Refused(Reject::ShardBusy)];
        let log = Log { decided: events.map(note).iter().map(Decided::of).collect() };
        let text = log.text();
        for part in ["split shard-2: would have been begun (2,000 accounts", "job-3 was begun", "refused: shard_busy"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json = serde_json::to_value(&log).unwrap();
        assert_eq!((&json["decided"][1]["event"], &json["decided"][1]["job"]), (&"began".into(), &"job-3".into()));
        assert_eq!(Log { decided: Vec::new() }.text(), "nothing was decided");
    }
}
