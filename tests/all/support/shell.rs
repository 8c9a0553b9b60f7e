//! The program as its users run it: a cluster in a folder, and commands in a shell beside it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::eventually;
use super::program::program;

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The lines of each code block of a language in a page, without comments and empty lines.
pub fn blocks(page: &str, language: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let start = format!("```{language}");
    let mut blocks = Vec::new();
    let mut open: Option<Vec<String>> = None;
    for line in text.lines() {
        match (line.trim(), &mut open) {
            (line, None) if line == start => open = Some(Vec::new()),
            ("```", Some(_)) => blocks.extend(open.take()),
            (line, Some(block)) if !line.is_empty() && !line.starts_with('#') => block.push(line.to_owned()),
            _ => {}
        }
    }
    blocks
}

/// `seamark up` in a folder of its own, stopped when this is dropped, however a test ends.
pub struct Shell {
    cluster: Child,
    folder: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub success: bool,
    pub stdout: String,
    /// Shown when a test fails.
    #[allow(dead_code, reason = "it is read by people, in what a failed test prints")]
    pub stderr: String,
}

impl Said {
    fn of(output: &std::process::Output) -> Self {
        Self {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.cluster), Signal::TERM);
        let _ = self.cluster.wait();
    }
}

impl Shell {
    /// Starts a cluster with these options of `up` and waits until it is ready.
    pub fn start(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
        let ready = folder.path().join("ready");
        let cluster = Command::new(program())
            .args(["up", "--json", "--dir"])
            .arg(folder.path().join("cluster"))
            .args(options)
            .stdout(std::fs::File::create(&ready).unwrap())
            .spawn()
            .unwrap();
        let mut shell = Self { cluster, folder };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(eventually("the cluster is ready", async || {
            let ended = shell.cluster.try_wait().unwrap();
            assert!(ended.is_none(), "seamark up ended: {ended:?}");
            let said = std::fs::read_to_string(&ready).unwrap();
            if said.contains("\"groups\"") { Ok(()) } else { Err("not ready yet") }
        }));
        shell
    }

    /// The cluster's folder.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// Writes a file where commands run.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let bin = super::program::program();
        let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(program);
        command
            .env("PATH", path)
            .env("SEAMARK_DIR", self.dir())
            .env("SEAMARK_PASSPHRASE", "correct-horse")
            .current_dir(self.folder.path());
        command
    }

    /// Runs lines in one shell, so that exports last as they do for a reader. All must succeed.
    pub fn script(&self, lines: &[String]) -> Said {
        let script = format!("set -eu\n{}\n", lines.join("\n"));
        let said = Said::of(&self.command("sh").args(["-c", &script]).output().unwrap());
        assert!(said.success, "{said:?}");
        said
    }

    /// Runs one command of the program.
    pub fn seamark(&self, line: &str) -> Said {
        Said::of(&self.command(program()).args(line.split_whitespace()).output().unwrap())
    }

    /// Runs one command that must succeed, and takes its JSON.
    pub fn told(&self, line: &str) -> Value {
        let said = self.seamark(&format!("{line} --json"));
        assert!(said.success, "{line}: {said:?}");
        said.json()
    }

    /// Runs one command that must fail, and takes its JSON.
    pub fn refused(&self, line: &str) -> Value {
        let said = self.seamark(&format!("{line} --json"));
        assert!(!said.success, "{line}: {said:?}");
        said.json()
    }

    /// Starts one command in the background.
    pub fn begin(&self, line: &str) -> Child {
        let mut command = self.command(program());
        command.args(line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}
