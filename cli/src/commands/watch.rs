//! `beacon watch`: what is done about nodes that vanish, who is silent at present, and what was decided.

use std::collections::BTreeMap;

use beacon::NodeLives;
use beacon::watch::{Vanished, Watch, WatchMode};
use ledger::NodeId;
use serde::Serialize;

use super::context::Context;
use crate::args::WatchArg;
use crate::error::CliError;
use crate::output::{Output, facts, moment, table};

/// The policy that a command line asks for.
pub(super) fn policy(mode: WatchArg, after_seconds: u64, at_most: u16) -> Watch {
    let mode = match mode {
        WatchArg::Off => WatchMode::Off,
        WatchArg::DryRun => WatchMode::DryRun,
        WatchArg::Replace => WatchMode::Replace,
    };
    Watch { mode, after_ms: after_seconds.saturating_mul(1_000), at_most, ..Watch::DEFAULT }
}

#[derive(Serialize)]
struct Shown {
    /// `off`, `dry-run` or `replace`.
    mode: &'static str,
    after_seconds: u64,
    at_most: u16,
    silent: Vec<SilentLine>,
    vanished: Vec<VanishedLine>,
    /// What was decided, the latest last.
    decided: Vec<DecidedLine>,
}

#[derive(Serialize)]
struct SilentLine {
    node: u32,
    /// Who has said so last, which may be some time ago.
    reporters: Vec<u32>,
    /// The latest of the moments since which they have.
    since_ms: u64,
    last_ms: u64,
}

#[derive(Serialize)]
struct VanishedLine {
    node: u32,
    since_ms: u64,
    found_ms: u64,
    reporters: Vec<u32>,
    /// Whether its seats go to others.
    acts: bool,
}

#[derive(Serialize)]
struct DecidedLine {
    node: u32,
    event: &'static str,
    text: &'static str,
    height: u64,
    time_ms: u64,
}

impl Shown {
    fn of(lives: &NodeLives) -> Self {
        let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
        let mut silent: BTreeMap<u32, SilentLine> = BTreeMap::new();
        for line in &lives.silent {
            let known = silent.entry(line.node.0).or_insert_with(|| SilentLine {
                node: line.node.0,
                reporters: Vec::new(),
                since_ms: 0,
                last_ms: 0,
            });
            known.reporters.push(line.reporter.0);
            known.since_ms = known.since_ms.max(line.since_ms.0);
            known.last_ms = known.last_ms.max(line.last_ms.0);
        }
        let vanished = |found: &Vanished| VanishedLine {
            node: found.node.0,
            since_ms: found.since_ms.0,
            found_ms: found.time_ms.0,
            reporters: numbers(&found.reporters),
            acts: found.acts,
        };
        let decided = lives.notes.iter().map(|note| DecidedLine {
            node: note.node.0,
            event: note.event.name(),
            text: note.event.text(),
            height: note.height.0,
            time_ms: note.time_ms.0,
        });
        Self {
            mode: lives.watch.mode.name(),
            after_seconds: lives.watch.after_ms / 1_000,
            at_most: lives.watch.at_most,
            silent: silent.into_values().collect(),
            vanished: lives.vanished.iter().map(vanished).collect(),
            decided: decided.collect(),
        }
    }
}

pub(super) async fn show(context: &Context, output: Output) -> Result<(), CliError> {
    let lives: NodeLives = context.client().await?.node_lives().await?;
    let shown = Shown::of(&lives);
    output.result(&shown, || text(&shown))
}

fn text(shown: &Shown) -> String {
    let numbers = |nodes: &[u32]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let does = match shown.mode {
        "off" => "nothing is done about nodes that vanish".to_owned(),
        mode => format!(
            "{mode}: a node that most have not heard of for {} s, {} at a time at most",
            shown.after_seconds, shown.at_most
        ),
    };
    let mut text = facts([("policy", does)]);
    if !shown.silent.is_empty() {
        let rows = shown
            .silent
            .iter()
            .map(|line| [line.node.to_string(), numbers(&line.reporters), moment(line.since_ms), moment(line.last_ms)]);
        text.push_str(&format!("\n{}", table(["silent node", "said by", "all of them since", "last said"], rows)));
    }
    if !shown.vanished.is_empty() {
        let rows = shown.vanished.iter().map(|line| {
            let does = if line.acts { "its seats go to others" } else { "only written down" };
            [line.node.to_string(), numbers(&line.reporters), moment(line.found_ms), does.to_owned()]
        });
        text.push_str(&format!("\n{}", table(["vanished node", "said by", "found", "what is done"], rows)));
    }
    for line in &shown.decided {
        text.push_str(&format!("\n{}  block {}  node {} {}", moment(line.time_ms), line.height, line.node, line.text));
    }
    text
}

#[cfg(test)]
mod tests {
    use beacon::watch::{Silent, WATCH_VERSION, WatchEvent, WatchNote};
    use ledger::{Height, OrgId, TimeMs};

    use super::*;

    #[test]
    fn the_policy_who_is_silent_and_what_was_decided_are_told() {
        let silent = |reporter, since| Silent {
            node: NodeId(4),
            reporter: NodeId(reporter),
            since_ms: TimeMs(since),
            last_ms: TimeMs(9_000),
        };
        let lives = NodeLives {
            version: 2,
            committees: Vec::new(),
            coming: Vec::new(),
            arriving: Vec::new(),
            successors: Vec::new(),
            accused: Vec::new(),
            removed: Vec::new(),
            watch: policy(WatchArg::DryRun, 600, 2),
            silent: vec![silent(1, 3_000), silent(2, 5_000)],
            vanished: vec![Vanished {
                version: WATCH_VERSION,
                node: NodeId(4),
                org: OrgId(1),
                since_ms: TimeMs(5_000),
                height: Height(7),
                time_ms: TimeMs(9_000),
                reporters: vec![NodeId(1), NodeId(2)],
                acts: false,
            }],
            notes: vec![WatchNote {
                version: WATCH_VERSION,
                number: 0,
                node: NodeId(4),
                event: WatchEvent::WouldReplace,
                height: Height(7),
                time_ms: TimeMs(9_000),
            }],
            seats: Vec::new(),
        };
        let shown = Shown::of(&lives);
        assert_eq!((shown.mode, shown.after_seconds, shown.at_most), ("dry-run", 600, 2));
        let [line] = &shown.silent[..] else { panic!("one node is silent") };
        assert_eq!((line.reporters.as_slice(), line.since_ms), (&[1, 2][..], 5_000));
        let text = text(&shown);
        for part in
            ["dry-run: a node", "600 s", "only written down", "block 7  node 4 has vanished: its seats would go"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
