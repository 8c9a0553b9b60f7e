//! Event logs: written for seeds that fail, one JSON object a line, and stepped through by people.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use cluster_sim::EventLog;
use cluster_sim::eventlog::{FORMAT, LogHead, LogLine};
use serde::Serialize;

use crate::error::CliError;
use crate::output::Output;

const HELP: &str =
    "Enter: next event · N: next N events · /TEXT: up to the next event with TEXT · @MS: up to that time · q: quit";

/// Writes a log into a folder.
///
/// # Errors
/// `file` when that does not work.
pub(super) fn write(folder: &Path, log: &EventLog) -> Result<PathBuf, CliError> {
    let path = super::log_path(folder, log.head.seed);
    let written = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(&path)?);
        serde_json::to_writer(&mut file, &log.head)?;
        file.write_all(b"\n")?;
        for line in &log.lines {
            serde_json::to_writer(&mut file, line)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    written().map_err(|error| CliError::file(&path, &error))?;
    Ok(path)
}

/// Reads a log.
///
/// # Errors
/// `file`, or `sim_log` for a file that is none.
fn read(path: &Path) -> Result<EventLog, CliError> {
    let file = File::open(path).map_err(|error| CliError::file(path, &error))?;
    let no_log = |why: String| {
        let cause = format!("{} is no event log: {why}", path.display());
        CliError::new("sim_log", cause, "give a file that 'seamark sim' wrote for a seed that failed")
    };
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().ok_or_else(|| no_log("it is empty".to_owned()))?;
    let first = first.map_err(|error| CliError::file(path, &error))?;
    let head: LogHead = serde_json::from_str(&first).map_err(|error| no_log(format!("line 1: {error}")))?;
    if head.seamark_sim != FORMAT {
        return Err(no_log(format!("it has format {}, this program reads {FORMAT}", head.seamark_sim)));
    }
    let mut events: Vec<LogLine> = Vec::new();
    for (number, line) in (2..).zip(lines) {
        let line = line.map_err(|error| CliError::file(path, &error))?;
        events.push(serde_json::from_str(&line).map_err(|error| no_log(format!("line {number}: {error}")))?);
    }
    Ok(EventLog { head, lines: events })
}

/// What `--replay` prints with `--json`.
#[derive(Serialize)]
struct Replay {
    log: LogHead,
    events: Vec<LogLine>,
}

/// Prints a log: event by event on a terminal, all of it elsewhere.
///
/// # Errors
/// As [`read`].
pub(super) fn run(path: &Path, output: Output) -> Result<(), CliError> {
    let log = read(path)?;
    if output.is_json() {
        return output.result(&Replay { log: log.head, events: log.lines }, String::new);
    }
    let mut out = std::io::stdout().lock();
    // A reader that has seen enough closes the pipe; that is no error.
    let _ = writeln!(out, "{}", head(&log.head));
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        let _ = step(&log, &mut std::io::stdin().lock(), &mut out);
    } else {
        for line in &log.lines {
            if writeln!(out, "{}", line.text()).is_err() {
                break;
            }
        }
    }
    Ok(())
}

fn head(head: &LogHead) -> String {
    format!(
        "seed {} ({}), event hash {}\n  - {}\nrepeat it with: {}",
        head.seed,
        head.scenario,
        head.event_hash,
        head.violations.join("\n  - "),
        head.reproduce
    )
}

/// How far to go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Go {
    Events(usize),
    Text(String),
    Time(u64),
    Quit,
}

fn command(line: &str) -> Option<Go> {
    let line = line.trim();
    match line.split_at_checked(1) {
        None => Some(Go::Events(1)),
        Some(("q", "")) => Some(Go::Quit),
        Some(("/", text)) => Some(Go::Text(text.to_owned())),
        Some(("@", time)) => time.parse().ok().map(Go::Time),
        Some(_) => line.parse().ok().map(Go::Events),
    }
}

/// The events of one step: from `at` to the end of what was asked for.
fn upto(log: &EventLog, at: usize, go: &Go) -> usize {
    let rest = &log.lines[at..];
    let count = match go {
        Go::Events(count) => *count,
        Go::Text(text) => rest.iter().position(|line| line.event.contains(text)).map_or(rest.len(), |found| found + 1),
        Go::Time(at_ms) => rest.iter().take_while(|line| line.at_ms <= *at_ms).count(),
        Go::Quit => 0,
    };
    at + count.min(rest.len())
}

fn step(log: &EventLog, keys: &mut impl BufRead, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{} events. {HELP}", log.lines.len())?;
    let mut at = 0;
    while at < log.lines.len() {
        out.flush()?;
        let mut line = String::new();
        if keys.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let Some(go) = command(&line) else {
            writeln!(out, "{HELP}")?;
            continue;
        };
        if go == Go::Quit {
            return Ok(());
        }
        let end = upto(log, at, &go);
        for line in &log.lines[at..end] {
            writeln!(out, "{}", line.text())?;
        }
        at = end;
    }
    writeln!(out, "the end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> EventLog {
        let head = LogHead {
            seamark_sim: FORMAT,
            seed: 7,
            scenario: "calm".to_owned(),
            reproduce: "seamark sim --seed 7".to_owned(),
            event_hash: "00".to_owned(),
            violations: vec!["atomicity: split".to_owned()],
        };
        let lines = [(1, "one"), (5, "two"), (5, "three"), (9, "four")];
        let lines = lines.map(|(at_ms, event)| LogLine { at_ms, event: event.to_owned() });
        EventLog { head, lines: lines.to_vec() }
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = write(folder.path(), &log()).expect("it is written");
        assert_eq!(read(&path).expect("it is read"), log());
        for (content, why) in [("", "empty"), ("{}", "line 1"), ("no json", "line 1")] {
            std::fs::write(&path, content).expect("it is written");
            let error = read(&path).expect_err(why);
            assert_eq!(error.code, "sim_log");
            assert!(error.cause.contains(why), "{}", error.cause);
        }
    }

    #[test]
    fn steps_go_as_far_as_they_are_told() {
        let mut out = Vec::new();
        step(&log(), &mut &b"\n/three\nwhat?\n@9\n"[..], &mut out).expect("memory takes it");
        let text = String::from_utf8(out).expect("text");
        let shown: Vec<&str> = text.lines().filter_map(|line| line.split(" ms  ").nth(1)).collect();
        assert_eq!(shown, ["one", "two", "three", "four"]);
        assert_eq!(text.matches(HELP).count(), 2);
        assert!(text.ends_with("the end\n"));
        assert_eq!(upto(&log(), 1, &Go::Time(5)), 3);
        assert_eq!(upto(&log(), 1, &Go::Events(9)), 4);
        assert_eq!(upto(&log(), 0, &Go::Text("absent".to_owned())), 4);
    }
}
