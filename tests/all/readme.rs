//! README's own commands, run as they stand there: the two make targets exist and do what they say,
//! and the tour works line by line.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::eventually;
use crate::support::program::program;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The lines of each `sh` block of README.md, comments left out.
fn blocks() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Vec<String>> = None;
    for line in text.lines() {
        match (line.trim(), &mut open) {
            ("```sh", None) => open = Some(Vec::new()),
            ("```", Some(_)) => blocks.extend(open.take()),
            (line, Some(block)) if !line.is_empty() && !line.starts_with('#') => block.push(line.to_owned()),
            _ => {}
        }
    }
    blocks
}

#[test]
fn the_two_commands_are_make_demo_and_make_test() {
    assert_eq!(blocks()[0], ["make demo", "make test"]);
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    for target in ["demo", "test", "build"] {
        assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "no target {target}");
    }
    let gate = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(gate.contains("make test"), "the gate runs what README names");
}

/// What `make demo` runs once everything is built.
#[test]
fn the_demo_settles_a_real_block_and_every_replica_agrees() {
    let output = Command::new(program()).args(["demo", "--json"]).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for field in [
        "transfers",
        "skipped",
        "committed",
        "rejected",
        "accounts",
        "shards",
        "replicas",
        "cross_shard",
        "seconds",
        "tps",
        "latency_ms",
        "supply_before",
        "supply_after",
        "conserved",
        "state_sha256",
        "replicas_agree",
    ] {
        assert!(report.get(field).is_some(), "the report has no {field}");
    }
    assert_eq!(report["transfers"], 5992);
    assert_eq!(report["committed"], report["transfers"]);
    assert_eq!(report["rejected"], 0);
    assert_eq!(report["conserved"], true);
    assert_eq!(report["replicas_agree"], true);
    assert_eq!(report["state_sha256"], "3b87f6f57c8c1bcb0ade37206b440ab351a4497e657ccc198741f53976abe715");
}

/// Stops the cluster when the test ends, however it ends.
struct Cluster(Child);

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.0);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn the_tour_works_line_by_line() {
    let all = blocks();
    let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let here = |line: &str| line.replace("/tmp/seamark", dir.to_str().unwrap());

    let up = here(&all[1][0]);
    let words: Vec<&str> = up.split_whitespace().collect();
    assert_eq!(words[..2], ["seamark", "up"]);
    let ready = folder.path().join("ready");
    let process = Command::new(program())
        .args(&words[1..])
        .arg("--json")
        .stdout(std::fs::File::create(&ready).unwrap())
        .spawn()
        .unwrap();
    let mut cluster = Cluster(process);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(eventually("the cluster is ready", async || {
        let ended = cluster.0.try_wait().unwrap();
        assert!(ended.is_none(), "seamark up ended: {ended:?}");
        let said = std::fs::read_to_string(&ready).unwrap();
        if said.contains("\"groups\"") { Ok(()) } else { Err("not ready yet") }
    }));

    // One shell for all of it, so that exports last as they do for a reader.
    let mut script = String::from("set -eu\n");
    for line in &all[2] {
        script.push_str(&here(line));
        script.push('\n');
    }
    let bin = program();
    let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output =
        Command::new("sh").args(["-c", &script]).env("PATH", path).current_dir(folder.path()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1250") || said.contains("1,250"), "bob's balance is shown: {said}");
}
