//! Nodes as processes of their own: `seamark node --config FILE`, started from this very program.
//!
//! A child's stdin is a pipe that this process holds: when this process ends, however it ends, the
//! pipe closes and the child stops. Nothing is ever killed by name.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ledger::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, ChildStdin, Command};

use crate::error::CliError;

/// How long a child may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Lines of a log that an error shows.
const LOG_LINES_SHOWN: usize = 6;

/// A node in a process of its own.
pub(super) struct Child {
    id: NodeId,
    process: Process,
    /// Held open: when it closes, the child stops. Taken out of the process, because waiting for
    /// that would close it.
    _pipe: Option<ChildStdin>,
    log: PathBuf,
    ended: bool,
}

impl Child {
    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    /// Its process id, until its end was seen.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// The same, to be signalled.
    fn signalled(&self) -> Option<Pid> {
        self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
    }

    pub(super) fn runs(&self) -> bool {
        !self.ended
    }

    fn ended(&mut self, status: Result<ExitStatus, std::io::Error>) -> CliError {
        self.ended = true;
        let how = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let cause = format!("node {} ended ({how}){}", self.id, last_lines(&self.log));
        CliError::new(
            "node_ended",
            cause,
            format!(
                "see {}; start it again with: seamark node --config {}",
                self.log.display(),
                self.log.with_file_name("node.toml").display()
            ),
        )
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
    if lines.is_empty() { String::new() } else { format!("; its log ends with:\n  {}", lines[from..].join("\n  ")) }
}

/// Starts all nodes.
pub(super) async fn start(configs: &[(NodeId, PathBuf)]) -> Result<Vec<Child>, CliError> {
    let program = std::env::current_exe().map_err(|error| {
        CliError::new("program", format!("this program's file is not known: {error}"), "run seamark by its full path")
    })?;
    let mut children = Vec::new();
    for (id, config) in configs {
        match spawn(&program, *id, config) {
            Ok(child) => children.push(child),
            Err(error) => {
                stop(children).await;
                return Err(error);
            }
        }
    }
    Ok(children)
}

fn spawn(program: &Path, id: NodeId, config: &Path) -> Result<Child, CliError> {
    let log = config.with_file_name("node.log");
    let file = OpenOptions::new().create(true).append(true).open(&log).map_err(|error| CliError::file(&log, &error))?;
    let copy = file.try_clone().map_err(|error| CliError::file(&log, &error))?;
    let mut process = Command::new(program)
        .args(["node", "--with-parent", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(file)
        .stderr(copy)
        // A Ctrl-C in the terminal is for this process alone, which then stops its children.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            CliError::new(
                "node_start",
                format!("node {id} cannot be started: {error}"),
                "check the limits of processes and memory of this user",
            )
        })?;
    let pipe = process.stdin.take();
    Ok(Child { id, process, _pipe: pipe, log, ended: false })
}

/// Waits until one of those that run has ended.
pub(super) async fn one_ended(children: &mut [Child]) -> (NodeId, CliError) {
    let waiting: Vec<_> = children
        .iter_mut()
        .enumerate()
        .filter(|(_, child)| child.runs())
        .map(|(at, child)| Box::pin(async move { (at, child.process.wait().await) }))
        .collect();
    if waiting.is_empty() {
        return std::future::pending().await;
    }
    let ((at, status), _, rest) = futures::future::select_all(waiting).await;
    drop(rest);
    (children[at].id, children[at].ended(status))
}

/// Kills one at once and waits until it is gone. Returns whether it ran.
pub(super) async fn kill(children: &mut [Child], id: NodeId) -> Result<bool, CliError> {
    let Some(child) = children.iter_mut().find(|child| child.id == id && child.runs()) else {
        return Ok(false);
    };
    child.process.kill().await.map_err(|error| {
        CliError::new(
            "node_kill",
            format!("node {id} cannot be killed: {error}"),
            "see its log, node.log in its folder",
        )
    })?;
    child.ended = true;
    Ok(true)
}

/// Sends one a signal that does not end it. Returns whether it ran.
pub(super) fn signal(children: &[Child], id: NodeId, signal: Signal) -> Result<bool, CliError> {
    let child = children.iter().find(|child| child.id == id && child.runs());
    let Some(pid) = child.and_then(Child::signalled) else { return Ok(false) };
    kill_process(pid, signal).map_err(|error| {
        CliError::new(
            "node_signal",
            format!("node {id} cannot be signalled: {error}"),
            "see its log, node.log in its folder",
        )
    })?;
    Ok(true)
}

/// Asks all to stop, waits, and kills what does not.
pub(super) async fn stop(mut children: Vec<Child>) {
    for child in &children {
        if let Some(pid) = child.signalled() {
            // It may have ended by itself in this moment, which is what is wanted. One that was silenced hears it when it goes
            // on.
            let _ = kill_process(pid, Signal::TERM);
            let _ = kill_process(pid, Signal::CONT);
        }
    }
    let stopping = children.iter_mut().map(|child| async move {
        if tokio::time::timeout(STOP_WITHIN, child.process.wait()).await.is_err() {
            tracing::warn!(node = %child.id, "did not stop in time and is killed");
            let _ = child.process.kill().await;
        }
    });
    futures::future::join_all(stopping).await;
}
