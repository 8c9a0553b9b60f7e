//! The real program, one process a node, and `kill -9`: nothing acknowledged is lost, nothing is
//! doubled, service returns, and the process that is started again catches up.
//!
//! The program is the one built into the same target folder as this binary. `make test` builds it
//! before; `SEAMARK_BIN` names another one.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use client::{Client, Profile};
use ledger::{GroupId, NodeId};
use proto::v1;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::audit::end_and_reconcile;
use crate::support::bank::{Bank, Load, Wallet, wallets_in_each_shard};
use crate::support::cluster::{agreed, base_port, leader_of};
use crate::support::{DEADLINE, eventually};

const NODES: u32 = 5;
const SHARDS: u32 = 2;
const FUNDS: u128 = 1_000_000;

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

/// `seamark up --processes`, stopped with what it started when this is dropped.
struct Up {
    process: Child,
    dir: PathBuf,
    ready: Value,
    /// Processes that this test started in the place of killed ones. Each ends when its stdin does.
    restarted: Vec<(Child, ChildStdin)>,
    _folder: tempfile::TempDir,
}

impl Up {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
        let dir = folder.path().join("cluster");
        let mut process = Command::new(program())
            .args(["up", "--processes", "--json", "--nodes", &NODES.to_string(), "--shards", &SHARDS.to_string()])
            .args(["--base-port", &base_port(NODES).to_string(), "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // One line when every group has a leader; the end of the stream when that fails.
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(ready.get("error").is_none(), "{ready}");
        Self { process, dir, ready, restarted: Vec::new(), _folder: folder }
    }

    fn pid(&self, node: NodeId) -> Pid {
        let nodes = self.ready["nodes"].as_array().unwrap();
        let line = nodes.iter().find(|line| line["id"] == node.0).unwrap();
        Pid::from_raw(i32::try_from(line["pid"].as_i64().unwrap()).unwrap()).unwrap()
    }

    fn kill(&self, node: NodeId) {
        kill_process(self.pid(node), Signal::KILL).unwrap();
    }

    /// Runs a node again as an operator would, from its configuration.
    fn restart(&mut self, node: NodeId) {
        let config = self.dir.join("nodes").join(format!("node-{node}")).join("node.toml");
        let mut child = Command::new(program())
            .args(["node", "--with-parent", "--config"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        self.restarted.push((child, stdin));
    }

    fn profile(&self) -> Profile {
        Profile::load_dir(&self.dir).unwrap()
    }
}

/// Waits for a child as long as anything may take, then kills it: this one process, by its handle.
fn end(child: &mut Child) {
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        match child.try_wait() {
            Ok(Some(_)) => return,
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Up {
    fn drop(&mut self) {
        for (mut child, stdin) in std::mem::take(&mut self.restarted) {
            drop(stdin);
            end(&mut child);
        }
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        end(&mut self.process);
    }
}

/// Whom to kill, told when it is their turn.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Leader(GroupId),
    Follower(GroupId),
}

fn pick(victim: Victim, status: &v1::StatusReply, members: &[NodeId]) -> Option<NodeId> {
    match victim {
        Victim::Leader(group) => leader_of(status, group),
        Victim::Follower(group) => {
            let leader = leader_of(status, group)?;
            members.iter().copied().find(|node| *node != leader)
        }
    }
}

async fn settled(client: &Client, groups: &[GroupId]) {
    eventually("all replicas agree", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        if status.nodes.len() != NODES as usize {
            return Err(format!("{} of {NODES} nodes answer", status.nodes.len()));
        }
        groups.iter().try_for_each(|group| agreed(&status, *group).map(|_| ()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_nodes_lose_no_acknowledged_payment_and_double_none() {
    let mut up = tokio::task::spawn_blocking(Up::start).await.unwrap();
    let client = Client::connect(&up.profile()).await.unwrap();
    let genesis = client.genesis().clone();
    let groups: Vec<GroupId> = genesis.committees.iter().map(|committee| committee.group).collect();
    let bank = Bank::open(&client).await;
    let homes = wallets_in_each_shard(&genesis.layout, "home", 20);
    let wallets: Vec<Wallet> = homes.into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;

    let mut load = Load::start(&bank, &wallets, &wallets, 64);
    load.next(500).await;
    let shard = GroupId::shard(0);
    let mut killed = Vec::new();
    for victim in [Victim::Leader(shard), Victim::Follower(shard), Victim::Leader(GroupId::BEACON)] {
        let node = eventually("somebody to kill", async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            let group = match victim {
                Victim::Leader(group) | Victim::Follower(group) => group,
            };
            let members: Vec<NodeId> =
                genesis.committee(group).unwrap().members.iter().map(|member| member.node).collect();
            // A process is killed once: its successor is ours, not one that `up` told us of.
            pick(victim, &status, &members)
                .filter(|node| !killed.contains(node))
                .ok_or_else(|| format!("{victim:?} was killed before, or is not known"))
        })
        .await;
        up.kill(node);
        let back = load.next(500).await;
        println!("{victim:?} on node {node} killed: the next payment was acknowledged after {} ms", back.as_millis());
        killed.push(node);
        up.restart(node);
        eventually("the node answers again", async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            let all_led = groups.iter().all(|group| leader_of(&status, *group).is_some());
            let missing = status.unreachable.len();
            if missing == 0 && all_led {
                Ok(())
            } else {
                Err(format!("{missing} nodes do not answer, or a group has no leader"))
            }
        })
        .await;
        load.next(500).await;
    }
    let (committed, fates) = end_and_reconcile(load, &client).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert!(committed >= 3_500, "{committed}");
    settled(&client, &groups).await;
    assert_eq!(bank.total(&wallets).await, FUNDS * wallets.len() as u128);
    tokio::task::spawn_blocking(move || drop(up)).await.unwrap();
}
