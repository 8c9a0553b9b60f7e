//! `seamark up --processes`: one process a node, any of which can be killed and started again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use client::{Client, Profile};
use ledger::{GroupId, NodeId};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use seamark_cli::setup::ClusterDir;
use serde_json::Value;

use super::cluster::{base_port, settled, snapshot_every, whole};
use super::eventually;
use super::program::{Process, node_command, program};

/// A node's process.
enum Runs {
    /// The one that `up` started, and reaps.
    OfUp(Pid),
    /// The one that this test started in its place.
    Again(Process),
}

/// Waits until a process that somebody else reaps is gone.
async fn gone(pid: Pid) {
    eventually("a process is gone", async || match test_kill_process(pid) {
        Ok(()) => Err("it is still there"),
        Err(_) => Ok(()),
    })
    .await;
}

/// A cluster of processes, stopped with what it started when this is dropped.
pub struct Up {
    nodes: BTreeMap<NodeId, Runs>,
    pub dir: PathBuf,
    up: Process,
    // Last, so that it outlives everything that is in it.
    _folder: tempfile::TempDir,
}

impl Up {
    /// Starts a cluster. Returns when every group has a leader.
    pub async fn start(nodes: u32, shards: u32) -> Self {
        Self::start_with(nodes, shards, &[]).await
    }

    /// As [`Up::start`], with further options of `up`.
    pub async fn start_with(nodes: u32, shards: u32, options: &[&str]) -> Self {
        Self::begin(nodes, shards, options, None).await
    }

    /// As [`Up::start_with`], with a snapshot of each group after so many entries of its log.
    pub async fn start_with_snapshots(nodes: u32, shards: u32, options: &[&str], every: u64) -> Self {
        Self::begin(nodes, shards, options, Some(every)).await
    }

    async fn begin(nodes: u32, shards: u32, options: &[&str], snapshots: Option<u64>) -> Self {
        let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
        let dir = folder.path().join("cluster");
        let base = base_port(nodes).to_string();
        let command_of = |what: &[&str]| {
            let mut command = Command::new(program());
            command
                .args(what)
                .args(["--json", "--nodes", &nodes.to_string(), "--shards", &shards.to_string()])
                .args(options)
                .args(["--base-port", &base, "--dir"])
                .arg(&dir);
            command
        };
        if let Some(entries) = snapshots {
            // `up` goes on with what it finds there.
            let made = command_of(&["init"]).output().unwrap();
            assert!(made.status.success(), "{made:?}");
            let made = ClusterDir::at(&dir);
            snapshot_every(&made, &made.genesis().unwrap(), entries);
        }
        let mut up = Process::start(command_of(&["up", "--processes"]), &folder.path().join("up.log"));
        up.says("\"groups\"").await;
        let said = up.said();
        let ready = said.lines().find(|line| line.contains("\"groups\"")).unwrap();
        let ready: Value = serde_json::from_str(ready).unwrap_or_else(|error| panic!("{error}: {ready:?}"));
        let nodes = ready["nodes"].as_array().unwrap().iter().map(|line| {
            let number = |key: &str| u32::try_from(line[key].as_u64().unwrap()).unwrap();
            let pid = Pid::from_raw(number("pid").cast_signed()).unwrap();
            (NodeId(number("id")), Runs::OfUp(pid))
        });
        Self { nodes: nodes.collect(), dir, up, _folder: folder }
    }

    /// The profile that `up` left.
    pub fn profile(&self) -> Profile {
        Profile::load_dir(&self.dir).unwrap()
    }

    /// The profile with the routers of these nodes alone.
    pub fn profile_of(&self, nodes: &[NodeId]) -> Profile {
        let mut profile = self.profile();
        profile.routers.retain(|router| router.node.is_some_and(|node| nodes.contains(&node)));
        profile
    }

    /// `kill -9`, whatever process the node has now, and waits until it is gone.
    pub async fn kill(&mut self, node: NodeId) {
        match self.nodes.remove(&node).expect("the node runs") {
            Runs::Again(mut process) => process.kill(),
            Runs::OfUp(pid) => self.end(pid, Signal::KILL).await,
        }
    }

    /// SIGTERM, as an operator stops a node, and waits until it is gone: all of its state is on the disk.
    pub async fn stop(&mut self, node: NodeId) {
        match self.nodes.remove(&node).expect("the node runs") {
            Runs::Again(mut process) => {
                let status = tokio::task::block_in_place(|| process.terminate());
                assert!(status.success(), "node {node}: {status}");
            }
            Runs::OfUp(pid) => self.end(pid, Signal::TERM).await,
        }
    }

    /// Ends a process that `up` has started.
    async fn end(&mut self, pid: Pid, signal: Signal) {
        // It ends with the last node that it has started itself.
        self.up.assert_runs();
        kill_process(pid, signal).unwrap();
        gone(pid).await;
    }

    /// `kill -9` to every node that runs, and only then waits until they are gone: nobody has time to notice that another one
    /// is missing.
    pub async fn kill_all(&mut self) {
        let all = std::mem::take(&mut self.nodes);
        if all.values().any(|runs| matches!(runs, Runs::OfUp(_))) {
            // It ends with the last node that it has started itself.
            self.up.assert_runs();
        }
        for runs in all.values() {
            let pid = match runs {
                Runs::Again(process) => process.pid(),
                Runs::OfUp(pid) => *pid,
            };
            kill_process(pid, Signal::KILL).unwrap();
        }
        for (node, runs) in all {
            match runs {
                Runs::Again(mut process) => {
                    let status = tokio::task::block_in_place(|| process.wait());
                    assert!(status.is_some(), "node {node} is still there");
                }
                Runs::OfUp(pid) => gone(pid).await,
            }
        }
    }

    /// Runs one command of the program beside the cluster, which must succeed, and takes its JSON.
    pub fn told(&self, line: &str) -> Value {
        let mut command = Command::new(program());
        command.args(line.split_whitespace()).arg("--json").env("SEAMARK_DIR", &self.dir);
        // The rest of the test goes on meanwhile.
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"))
    }

    /// Runs one command that must fail, and takes its code.
    pub fn refused(&self, line: &str) -> String {
        let mut command = Command::new(program());
        command.args(line.split_whitespace()).arg("--json").env("SEAMARK_DIR", &self.dir);
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        assert!(!output.status.success(), "{line}: {output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        said["error"]["code"].as_str().unwrap_or_else(|| panic!("{line}: {said}")).to_owned()
    }

    /// Makes and registers a new node of an organisation, and runs it.
    pub async fn add_node(&mut self, node: NodeId, org: &str) {
        let port = base_port(1);
        let line = format!(
            "node register --make --id {node} --as {org} --peer 127.0.0.1:{port} --client 127.0.0.1:{}",
            port + 1
        );
        let registered = self.told(&line);
        assert_eq!((&registered["state"], &registered["node"]), (&"done".into(), &node.0.into()));
        assert_eq!(self.told(&line)["state"], "done", "given again, it finds everything done");
        self.restart(node);
    }

    /// Runs a killed node again as an operator would, from its configuration; or a new one.
    pub fn restart(&mut self, node: NodeId) {
        let folder = self.dir.join("nodes").join(format!("node-{node}"));
        let process = Process::start(node_command(&folder.join("node.toml")), &folder.join("again.log"));
        assert!(self.nodes.insert(node, Runs::Again(process)).is_none(), "node {node} runs already");
    }

    /// Waits until every node answers, every group is led, and every replica has caught up: see [`whole`].
    pub async fn whole(&mut self, client: &Client, groups: &[GroupId]) {
        let still_run = || {
            for runs in self.nodes.values_mut() {
                if let Runs::Again(process) = runs {
                    process.assert_runs();
                }
            }
        };
        whole(client, groups, still_run).await;
    }

    /// Waits until all mail has been taken and all replicas stand at the same block, certified;
    /// returns the height of each group.
    pub async fn settled(&mut self, client: &Client, groups: &[GroupId]) -> BTreeMap<GroupId, u64> {
        self.whole(client, groups).await;
        settled(client, groups).await
    }
}
