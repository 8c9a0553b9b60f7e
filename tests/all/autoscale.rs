//! Shards that are cut and joined because of load: a cluster of processes whose customers all have their accounts in one of
//! two shards. First it only says what it would do, then that shard is cut, and once nobody pays any more its halves are
//! joined again. And a lead that goes to the node that can bear it. No payment fails.

use std::process::Command;

use client::Client;
use ledger::{GroupId, NodeId};
use serde_json::Value;

use crate::support::audit::end_and_reconcile;
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::cluster::leader_of;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::program::program;
use crate::support::up::Up;

const FUNDS: u128 = 1_000_000;
/// The shortest times there are. Any machine pays more often than this, and none does so while nobody sends anything.
const LIMITS: &str = "--split-tps 20 --merge-tps 10 --sustained 10 --cooldown 0 --at-least 2 --at-most 3";

/// Two of three organisations want this policy.
fn set(up: &Up, mode: &str, limits: &str) {
    for org in ["org-a", "org-b"] {
        up.told(&format!("shard scale set {mode} {limits} --as {org}"));
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

/// Who leads the first shard.
async fn leader(client: &Client) -> Result<NodeId, String> {
    let status = client.status().await.map_err(|error| error.to_string())?;
    leader_of(&status, GroupId::shard(0)).ok_or_else(|| "nobody leads".to_owned())
}

/// Ends a load of which every payment must have been committed.
async fn all_committed(load: Load, bank: &Bank) {
    let (committed, fates) = end_and_reconcile(load, bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert_eq!(committed, fates.sent.len() as u64, "no payment fails");
    assert_eq!(fates.receipts.len(), fates.sent.len(), "each is answered");
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
    set(&up, "dry-run", LIMITS);
    decided(&up, "would_begin", "split", &["shard-0"]).await;
    assert_eq!(shards(&up).await, ["shard-0", "shard-1"], "it was only written down");

    set(&up, "on", LIMITS);
    let split = decided(&up, "began", "split", &["shard-0"]).await;
    done(&up, &split).await;
    assert_eq!(shards(&up).await, ["shard-2", "shard-3", "shard-1"]);
    load.next_by_any(200).await;

    all_committed(load, &bank).await;

    let merge = decided(&up, "began", "merge", &["shard-2", "shard-3"]).await;
    done(&up, &merge).await;
    assert_eq!(shards(&up).await, ["shard-4", "shard-1"], "as many as there are to be at least");
    bank.execute(vec![bank.pay(&wallets[0], wallets[1].address, 1)], &[&wallets[0].key]).await.unwrap();
    assert_eq!(bank.total(&wallets).await, FUNDS * wallets.len() as u128);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_of_a_busy_shard_goes_to_the_node_with_most_capacity() {
    let up = Up::start_with(3, 1, &["--replicas", "3", "--orgs", "3"]).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> = wallets_in_each_shard(&client.genesis().layout, "led", 40).swap_remove(0);
    bank.fund(&wallets, FUNDS).await;
    let before = eventually("the shard is led", async || leader(&client).await).await;
    let strong = [1, 2, 3].map(NodeId).into_iter().find(|node| *node != before).unwrap();
    up.told(&format!("node capacity {strong} 100"));

    let mut load = Load::start(&bank, &wallets, &wallets, 48).await;
    load.next_by_any(200).await;
    set(&up, "on", "--lead-tps 20 --margin 10 --sustained 10 --lead-cooldown 0");
    eventually("the lead moves", async || match leader(&client).await {
        Ok(found) if found == strong => Ok(()),
        Ok(found) => Err(format!("node {found} leads")),
        Err(error) => Err(error),
    })
    .await;
    eventually("nobody is asked for it any more", async || {
        let shown = ask(&up, "shard scale show")?;
        if shown.get("lead").is_none() { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    load.next_by_any(200).await;
    all_committed(load, &bank).await;
    assert_eq!(bank.total(&wallets).await, FUNDS * wallets.len() as u128);
}
