//! `seamark up`, twice on one folder: Ctrl-C stops it cleanly, and the next one goes on where the
//! first was.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use client::{Client, Profile, Wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::DEADLINE;
use crate::support::bank::{Bank, wallets_in_each_shard};
use crate::support::cluster::base_port;
use crate::support::program::program;

const NODES: u32 = 3;

/// A running `seamark up`; killed by its handle if a test fails before it has stopped.
struct Up {
    process: Child,
    ready: Value,
    _stdout: BufReader<ChildStdout>,
}

impl Up {
    fn start(dir: &Path, shape: &[String]) -> Self {
        let mut process = Command::new(program())
            .args(["up", "--json", "--dir"])
            .arg(dir)
            .args(shape)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(ready.get("error").is_none(), "{ready}");
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
