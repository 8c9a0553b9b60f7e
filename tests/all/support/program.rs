//! The real program, in processes of its own.
//!
//! The program is the one built into the same target folder as this binary. `make test` builds it
//! before; `SEAMARK_BIN` names another one. A process ends with the value that stands for it, and is
//! only ever signalled by its own handle.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ledger::NodeId;
use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, eventually};

/// Lines of a log that a failure shows.
const LOG_LINES_SHOWN: usize = 12;

/// The program to test.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("SEAMARK_BIN") {
        return path.into();
    }
    // target/release/deps/all-… → target/release/seamark
    let this = std::env::current_exe().unwrap();
    let program = this.parent().and_then(Path::parent).unwrap().join("seamark");
    assert!(
        program.is_file(),
        "{} is not there: build it with 'cargo build --release --bin seamark' ('make test' does)",
        program.display()
    );
    program
}

/// A process that a test started.
pub struct Process {
    child: Child,
    /// Open as long as the test lives: what watches its stdin ends with the test, however that ends.
    _stdin: ChildStdin,
    log: PathBuf,
    /// Bytes in its log that are of those before it.
    log_from: usize,
}

impl Process {
    /// Starts a command. What it says goes to `log`, behind what an earlier one said there.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let log_from = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take().unwrap();
        Self { child, _stdin: stdin, log: log.to_owned(), log_from }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Fails the test, with the end of its log, when the process has ended by itself.
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the process ended ({status}):\n{}", self.last_lines());
        }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()[self.log_from..]).into_owned()
    }

    fn last_lines(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// Waits until it has said this.
    pub async fn says(&mut self, text: &str) {
        eventually(text, async || {
            self.assert_runs();
            if self.said().contains(text) { Ok(()) } else { Err(self.last_lines()) }
        })
        .await;
    }

    /// `kill -9`, and waits until it is gone: its ports and locks are free.
    pub fn kill(&mut self) {
        self.assert_runs();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.assert_runs();
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.wait().unwrap_or_else(|| panic!("it does not stop:\n{}", self.last_lines()))
    }

    /// Waits for its end; `None` when it does not come in time.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(self.pid(), Signal::TERM);
            if self.wait().is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// The processes of a cluster's nodes, which end with this value.
#[derive(Default)]
pub struct Processes(BTreeMap<NodeId, Process>);

impl Processes {
    /// Adds that of a node.
    pub fn insert(&mut self, node: NodeId, process: Process) {
        assert!(self.0.insert(node, process).is_none(), "node {node} runs already");
    }

    /// Whether a node has one.
    pub fn has(&self, node: NodeId) -> bool {
        self.0.contains_key(&node)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Takes out that of a node, if it has one.
    pub fn remove(&mut self, node: NodeId) -> Option<Process> {
        self.0.remove(&node)
    }

    /// Fails the test when one of them has ended by itself.
    pub fn assert_run(&mut self) {
        self.0.values_mut().for_each(Process::assert_runs);
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // All at once, before each is waited for. What they would do on their way out, nobody looks at any more.
        for process in self.0.values_mut() {
            let _ = process.child.kill();
        }
    }
}

/// The command of a node, as an operator runs it; it stops when its stdin is closed.
pub fn node_command(config: &Path) -> Command {
    as_node(Command::new(program()), config)
}

/// As [`node_command`], with the program named already.
pub fn as_node(mut command: Command, config: &Path) -> Command {
    command.args(["node", "--with-parent", "--config"]).arg(config);
    command
}
