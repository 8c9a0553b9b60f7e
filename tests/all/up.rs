//! `seamark up`, twice on one folder: Ctrl-C stops it cleanly, and the next one goes on where the
//! first was.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use client::{Client, Profile, Wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::bank::{Bank, wallets_in_each_shard};
use crate::support::cluster::base_port;
use crate::support::program::program;
use crate::support::{DEADLINE, eventually};

const NODES: u32 = 3;

/// A running `seamark up`; killed by its handle if a test fails before it has stopped.
struct Up {
    process: Child,
    ready: Value,
    _stdout: BufReader<ChildStdout>,
}

/// The file that what `up` says to people goes to.
fn told(dir: &Path) -> PathBuf {
    dir.with_extension("told")
}

impl Up {
    fn start(dir: &Path, shape: &[String]) -> Self {
        let up = Self::try_start(Command::new(program()), dir, shape);
        assert!(up.ready.get("error").is_none(), "{}", up.ready);
        up
    }

    /// Starts it by this command, whether it comes to run or not; `ready` has what it says first.
    fn try_start(mut command: Command, dir: &Path, shape: &[String]) -> Self {
        let mut process = command
            .args(["up", "--json", "--dir"])
            .arg(dir)
            .args(shape)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(told(dir)).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { process, ready, _stdout: stdout }
    }

    /// Sends what Ctrl-C sends, and returns the exit code.
    fn interrupt(mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < DEADLINE, "it does not stop");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn goes_on_where_it_was(processes: bool) {
    let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let mut shape: Vec<String> = ["--nodes", "3", "--shards", "2"].map(str::to_owned).to_vec();
    if processes {
        shape.push("--processes".to_owned());
    }
    let port = ["--base-port".to_owned(), base_port(NODES).to_string()];
    let (first_dir, first_shape) = (dir.clone(), [&shape[..], &port[..]].concat());
    let first = tokio::task::spawn_blocking(move || Up::start(&first_dir, &first_shape)).await.unwrap();
    assert_eq!(first.ready["resumed"], false);
    let cluster_id = first.ready["cluster_id"].clone();

    let client = Client::connect(&Profile::load_dir(&dir).unwrap()).await.unwrap();
    let bank = Bank::open(&client).await;
    let homes = wallets_in_each_shard(&client.genesis().layout, "home", 1);
    bank.fund(homes.iter().flatten(), 1_000).await;
    let (alice, bob) = (&homes[0][0], &homes[1][0]);
    let receipt = client.pay(&alice.key, bob.address, bank.asset, 250, Wait::Applied).await.unwrap();
    drop(client);
    assert_eq!(tokio::task::spawn_blocking(move || first.interrupt()).await.unwrap(), Some(0));

    let (again_dir, again_shape) = (dir.clone(), shape.clone());
    let again = tokio::task::spawn_blocking(move || Up::start(&again_dir, &again_shape)).await.unwrap();
    assert_eq!((&again.ready["resumed"], &again.ready["cluster_id"]), (&Value::Bool(true), &cluster_id));
    let client = Client::connect(&Profile::load_dir(&dir).unwrap()).await.unwrap();
    let bank = Bank { client: client.clone(), ..bank };
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [750, 1_250]);
    assert_eq!(client.transaction(receipt.txid, None, true).await.unwrap().value, Some(receipt));
    client.pay(&bob.key, alice.address, bank.asset, 50, Wait::Applied).await.unwrap();
    assert_eq!(bank.balances(&[alice.address, bob.address]).await, [800, 1_200]);
    drop((client, bank));
    assert_eq!(tokio::task::spawn_blocking(move || again.interrupt()).await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn up_again_on_the_same_folder_goes_on_and_ctrl_c_is_success() {
    goes_on_where_it_was(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_one_process_a_node() {
    goes_on_where_it_was(true).await;
}

/// `up` on a thread of its own, since it blocks.
async fn up(dir: &Path, shape: &[String]) -> Up {
    let (dir, shape) = (dir.to_owned(), shape.to_vec());
    tokio::task::spawn_blocking(move || Up::start(&dir, &shape)).await.unwrap()
}

async fn stop(up: Up) {
    assert_eq!(tokio::task::spawn_blocking(move || up.interrupt()).await.unwrap(), Some(0));
}

/// Waits until `up` has said all of this to people.
async fn says(dir: &Path, parts: &[&str]) {
    eventually("up says what is wrong", async || {
        let text = std::fs::read_to_string(told(dir)).unwrap();
        let missing: Vec<_> = parts.iter().filter(|part| !text.contains(**part)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} is not in {text}")) }
    })
    .await;
}

/// A node that cannot start is told of and does not keep the others from running; without a quorum of the
/// others nothing runs.
async fn one_that_cannot_start_is_told_of(processes: bool) {
    let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let mut shape: Vec<String> = ["--nodes", "3", "--shards", "1"].map(str::to_owned).to_vec();
    if processes {
        shape.push("--processes".to_owned());
    }
    let port = ["--base-port".to_owned(), base_port(NODES).to_string()];
    let first = up(&dir, &[&shape[..], &port[..]].concat()).await;
    let client = Client::connect(&Profile::load_dir(&dir).unwrap()).await.unwrap();
    let bank = Bank::open(&client).await;
    let homes = wallets_in_each_shard(&client.genesis().layout, "home", 2);
    bank.fund(homes.iter().flatten(), 1_000).await;
    let (alice, bob) = (&homes[0][0], &homes[0][1]);
    let address = client.genesis().nodes[2].client_addr.clone();
    stop(first).await;

    let damage = |node: u32| {
        let mark = dir.join(format!("nodes/node-{node}/data/log/ACKED"));
        let before = std::fs::read(&mark).unwrap();
        std::fs::write(&mark, b"damaged").unwrap();
        (mark, before)
    };
    let third = damage(3);
    let again = up(&dir, &shape).await;
    says(&dir, &["node 3", "storage_corrupt", "ACKED", "the other nodes go on"]).await;
    client.pay(&alice.key, bob.address, bank.asset, 1, Wait::Applied).await.unwrap();
    stop(again).await;

    let second = damage(2);
    let (at, of) = (dir.clone(), shape.clone());
    let mut refused =
        tokio::task::spawn_blocking(move || Up::try_start(Command::new(program()), &at, &of)).await.unwrap();
    let error = &refused.ready["error"];
    let cause = error["cause"].as_str().unwrap();
    assert!(cause.contains("has no quorum") && cause.contains("storage_corrupt") == processes, "{error}");
    says(&dir, &["node 2", "node 3"]).await;
    assert_eq!(error["code"], if processes { "node_ended" } else { "storage_corrupt" });
    assert_eq!(refused.process.wait().unwrap().code(), Some(1));

    for (mark, before) in [second, third] {
        std::fs::write(mark, before).unwrap();
    }
    let taken = TcpListener::bind(&address).unwrap();
    let again = up(&dir, &shape).await;
    says(&dir, &["node 3", "listen", &address, "the other nodes go on"]).await;
    client.pay(&alice.key, bob.address, bank.asset, 1, Wait::Applied).await.unwrap();
    stop(again).await;
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_is_told_of_and_the_others_run() {
    one_that_cannot_start_is_told_of(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_when_it_is_a_process() {
    one_that_cannot_start_is_told_of(true).await;
}

/// The soft limit of open files is raised by the program; where the hard one does not do, the error says
/// so by its own code.
#[tokio::test(flavor = "multi_thread")]
async fn a_low_limit_of_open_files_is_raised_or_named() {
    let folder = tempfile::Builder::new().prefix("seamark-test-").tempdir().unwrap();
    let limited = async |limit: &str, name: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit} && exec \"$@\""), "sh"]).arg(program());
        let shape = ["--nodes", "3", "--shards", "16", "--base-port", &base_port(NODES).to_string()];
        let (dir, shape) = (folder.path().join(name), shape.map(str::to_owned).to_vec());
        tokio::task::spawn_blocking(move || Up::try_start(command, &dir, &shape)).await.unwrap()
    };
    let raised = limited("ulimit -S -n 256", "raised").await;
    assert!(raised.ready.get("error").is_none(), "{}", raised.ready);
    stop(raised).await;
    let mut named = limited("ulimit -n 256", "named").await;
    let error = &named.ready["error"];
    assert_eq!(error["code"], "storage_open_files", "{error}");
    assert!(error["fix"].as_str().unwrap().contains("ulimit -n"), "{error}");
    assert_eq!(named.process.wait().unwrap().code(), Some(1));
}
