//! Shards that are cut and joined because of load: a cluster of processes whose customers all have their accounts in one of
//! two shards. First it only says what it would do, then that shard is cut, and once nobody pays any more its halves are
//! joined again. No payment fails.

use std::process::Command;

use client::Client;
use serde_json::Value;

use crate::support::audit::end_and_reconcile;
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::program::program;
use crate::support::up::Up;

const FUNDS: u128 = 1_000_000;
/// The shortest times there are. Any machine pays more often than this, and none does so while nobody sends anything.
const LIMITS: &str = "--split-tps 20 --merge-tps 10 --sustained 10 --cooldown 0 --at-least 2 --at-most 3";

/// Two of three organisations want this policy.
fn set(up: &Up, mode: &str) {
    for org in ["org-a", "org-b"] {
        up.told(&format!("shard scale set {mode} {LIMITS} --as {org}"));
    }
}

/// Asks once: what the program says, or why it does not.
fn ask(up: &Up, line: &str) -> Result<Value, String> {
    let mut command = Command::new(program());
    command.args(line.split_whitespace()).arg("--json").env("SEAMARK_DIR", &up.dir);
    let output = tokio::task::block_in_place(|| command.output()).map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => serde_json::from_str(&said).map_err(|error| format!("{line}: {error}: {said}")),
        false => Err(format!("{line}: {said}")),
    }
}

/// Waits until the log of scaling has such a decision about these shards.
async fn decided(up: &Up, event: &str, kind: &str, shards: &[&str]) -> Value {
    let shards = Value::from(shards.to_vec());
    eventually("scaling decides", async || {
        let log = ask(up, "shard scale log")?;
        let lines = log["decided"].as_array().ok_or("a log has lines")?;
        let fits = |line: &&Value| line["event"] == event && line["kind"] == kind && line["shards"] == shards;
        lines.iter().find(fits).cloned().ok_or_else(|| log.to_string())
    })
    .await
}

/// Waits until the job of a decision is done.
async fn done(up: &Up, decision: &Value) {
    let name = decision["job"].as_str().unwrap();
    eventually("the job is done", async || {
        let job = ask(up, &format!("shard status {name}"))?;
        assert_ne!(job["phase"], "cancelled", "{job}");
        if job["phase"] == "done" { Ok(()) } else { Err(job.to_string()) }
    })
    .await;
}

/// The shards, in the order of their prefixes.
async fn shards(up: &Up) -> Vec<String> {
    let listed = eventually("the shards are listed", async || ask(up, "shard ls")).await;
    let lines = listed["shards"].as_array().unwrap();
    lines.iter().map(|line| line["shard"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_all_customers_use_is_cut_by_itself_and_joined_again_when_they_have_gone() {
    let up = Up::start_with(3, 2, &["--replicas", "3", "--orgs", "3"]).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> = wallets_in_each_shard(&client.genesis().layout, "skewed", 40).swap_remove(0);
    bank.fund(&wallets, FUNDS).await;
    assert_eq!(ask(&up, "shard scale show").unwrap()["mode"], "off", "nobody has asked for it");

    let mut load = Load::start(&bank, &wallets, &wallets, 48).await;
    load.next_by_any(200).await;
    set(&up, "dry-run");
    decided(&up, "would_begin", "split", &["shard-0"]).await;
    assert_eq!(shards(&up).await, ["shard-0", "shard-1"], "it was only written down");

    set(&up, "on");
    let split = decided(&up, "began", "split", &["shard-0"]).await;
    done(&up, &split).await;
    assert_eq!(shards(&up).await, ["shard-2", "shard-3", "shard-1"]);
    load.next_by_any(200).await;

    let (committed, fates) = end_and_reconcile(load, &bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert_eq!(committed, fates.sent.len() as u64, "no payment fails");
    assert_eq!(fates.receipts.len(), fates.sent.len(), "each is answered");

    let merge = decided(&up, "began", "merge", &["shard-2", "shard-3"]).await;
    done(&up, &merge).await;
    assert_eq!(shards(&up).await, ["shard-4", "shard-1"], "as many as there are to be at least");
    bank.execute(vec![bank.pay(&wallets[0], wallets[1].address, 1)], &[&wallets[0].key]).await.unwrap();
    assert_eq!(bank.total(&wallets).await, FUNDS * wallets.len() as u128);
}
