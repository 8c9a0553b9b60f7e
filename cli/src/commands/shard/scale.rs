//! `shard scale`: the limits by which the beacon cuts and joins shards and moves seats and leads by itself, what it knows of
//! their load, and what it has decided.

use beacon::jobs::scale::{GroupLoad, ScaleEvent, ScaleNote};
use beacon::{BeaconCommand, LeadHint, ScalePolicy, Shards};
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
        move_tps: args.move_tps.unwrap_or(now.move_tps),
        lead_tps: args.lead_tps.unwrap_or(now.lead_tps),
        margin_percent: args.margin.unwrap_or(now.margin_percent),
        lead_cooldown_ms: seconds(args.lead_cooldown, now.lead_cooldown_ms),
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
    move_tps: u32,
    lead_tps: u32,
    margin_percent: u8,
    lead_cooldown_seconds: u64,
    /// How often each member of a shard reports its load, while the mode is not `off`.
    report_every_seconds: u64,
    loads: Vec<LoadLine>,
    /// The lead that a node is asked to give away at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    lead: Option<LeadLine>,
}

#[derive(Serialize)]
struct LeadLine {
    shard: String,
    from: u32,
    to: u32,
    until_ms: u64,
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
        let lead = |hint: LeadHint| LeadLine {
            shard: hint.group.to_string(),
            from: hint.from.0,
            to: hint.to.0,
            until_ms: hint.until_ms.0,
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
            move_tps: policy.move_tps,
            lead_tps: policy.lead_tps,
            margin_percent: policy.margin_percent,
            lead_cooldown_seconds: policy.lead_cooldown_ms / 1_000,
            report_every_seconds: policy.report_every_ms() / 1_000,
            lead: shards.lead.map(lead),
            loads: shards.loads.iter().map(line).collect(),
        }
    }
}

/// What a limit speaks for, from its parts. One that is not set is left out; without any nothing is done.
fn limits(parts: [(u64, &str); 2], between: &str) -> String {
    let set = parts.into_iter().filter(|(limit, _)| *limit > 0);
    let parts: Vec<String> = set.map(|(limit, unit)| format!("{} {unit}", grouped(limit.into()))).collect();
    if parts.is_empty() { "never: no limit is set".to_owned() } else { parts.join(between) }
}

fn text(shown: &Shown) -> String {
    let rates = "transactions a second";
    let split = limits([(shown.split_accounts, "accounts"), (shown.split_tps.into(), rates)], ", or ");
    let merge = limits([(shown.merge_accounts, "accounts"), (shown.merge_tps.into(), rates)], ", and ");
    let moved = |limit: u32| match limit {
        0 => "never: no limit is set".to_owned(),
        limit => {
            let limit = grouped(limit.into());
            format!("{limit} {rates}, where the greater load of two nodes falls by {} %", shown.margin_percent)
        }
    };
    let does = match shown.mode {
        "off" => "off: no shard is cut or joined, and no seat moves, but by a command",
        "dry-run" => "dry-run: what would be done is written down",
        _ => "on: shards are cut and joined, seats and leads move",
    };
    let rows = [
        ("mode", does.to_owned()),
        ("cut beyond", split),
        ("joined below", merge),
        ("seats move beyond", moved(shown.move_tps)),
        ("leads move beyond", moved(shown.lead_tps)),
        (
            "for",
            format!("{} s without a pause, by reports every {} s", shown.sustained_seconds, shown.report_every_seconds),
        ),
        ("then nothing for", format!("{} s, and for leads {} s", shown.cooldown_seconds, shown.lead_cooldown_seconds)),
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
    if let Some(LeadLine { shard, from, to, until_ms }) = &shown.lead {
        let until = moment(*until_ms);
        text.push_str(&format!("\nnode {from} is asked to hand the lead of {shard} over to node {to}, until {until}"));
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
    /// `split`, `merge`, `move` or `lead`.
    kind: &'static str,
    shards: Vec<String>,
    /// From which node a seat or a lead moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u32>,
    /// To which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u32>,
    /// `began`, `asked`, `would_begin` or `refused`.
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
            ScaleEvent::Asked => ("asked", None, None),
        };
        let nodes = note.action.nodes();
        Self {
            number: note.number,
            kind: note.action.name(),
            shards: note.action.groups().iter().map(ToString::to_string).collect(),
            from: nodes.map(|(from, _)| from.0),
            to: nodes.map(|(_, to)| to.0),
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
            (None, None) if self.event == "asked" => "the node was asked to hand it over".to_owned(),
            (None, None) if self.kind == "lead" => "the node would have been asked to hand it over".to_owned(),
            (None, None) => "would have been begun".to_owned(),
        };
        let (mut shards, accounts) = (self.shards.join(" "), grouped(self.accounts.into()));
        if let (Some(from), Some(to)) = (self.from, self.to) {
            shards.push_str(&format!(" from node {from} to node {to}"));
        }
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
    use beacon::jobs::scale::{Load, SCALE_VERSION};
    use beacon::jobs::{JobKind, ScaleAction};
    use clap::Parser;
    use ledger::{GroupId, JobId, NodeId, Reject, TimeMs};

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
        let moves = policy(&then, &asked("on --move-tps 4000 --lead-tps 2000 --margin 30 --lead-cooldown 60"));
        let expected =
            ScalePolicy { move_tps: 4_000, lead_tps: 2_000, margin_percent: 30, lead_cooldown_ms: 60_000, ..then };
        assert_eq!(moves, expected);
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
            move_tps: 4_000,
            lead_tps: 0,
            margin_percent: limits.margin_percent,
            lead_cooldown_seconds: limits.lead_cooldown_ms / 1_000,
            report_every_seconds: limits.report_every_ms() / 1_000,
            loads: Vec::new(),
            lead: Some(LeadLine { shard: "shard-0".to_owned(), from: 1, to: 2, until_ms: 1_000 }),
        };
        let text = text(&shown);
        for part in [
            "dry-run: what would",
            "1,000 accounts",
            "never: no limit is set",
            "4,000 transactions a second, where the greater load of two nodes falls by 25 %",
            "600 s without a pause, by reports every 60 s",
            "node 1 is asked to hand the lead of shard-0 over to node 2",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let load = Load { accounts: 2_000, bytes: 9, tps: 3 };
        let note = |(action, event)| ScaleNote {
            version: SCALE_VERSION,
            number: 4,
            action,
            event,
            load,
            time_ms: TimeMs(1_000),
        };
        let group = GroupId::shard(2);
        let (from, to) = (NodeId(1), NodeId(6));
        let split = ScaleAction::Job(JobKind::Split { group });
        let seat = ScaleAction::Job(JobKind::Move { group, from, to });
        let lead = ScaleAction::Lead { group, from, to };
        let lines = [
            (split, ScaleEvent::WouldBegin),
            (split, ScaleEvent::Began(JobId(3))),
            (split, ScaleEvent::Refused(Reject::ShardBusy)),
            (seat, ScaleEvent::Began(JobId(4))),
            (lead, ScaleEvent::Asked),
            (lead, ScaleEvent::WouldBegin),
        ];
        let log = Log { decided: lines.map(note).iter().map(Decided::of).collect() };
        let text = log.text();
        for part in [
            "split shard-2: would have been begun (2,000 accounts",
            "job-3 was begun",
            "refused: shard_busy",
            "move shard-2 from node 1 to node 6: job-4 was begun",
            "lead shard-2 from node 1 to node 6: the node was asked to hand it over",
            "the node would have been asked",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json = serde_json::to_value(&log).unwrap();
        assert_eq!((&json["decided"][4]["event"], &json["decided"][4]["to"]), (&"asked".into(), &6_u32.into()));
        assert_eq!((&json["decided"][1]["event"], &json["decided"][1]["job"]), (&"began".into(), &"job-3".into()));
        assert_eq!(Log { decided: Vec::new() }.text(), "nothing was decided");
    }
}
