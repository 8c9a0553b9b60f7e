//! Shards that are cut and joined while customers pay: no payment fails, nothing is lost or doubled, and what was proved
//! before is proved afterwards. Nodes are processes, with mutual TLS and disks that are synced, and one of them is killed
//! in every phase of a job.

use std::path::PathBuf;
use std::process::Command;

use client::{Client, Consistency, proof};
use ledger::{GroupId, NodeId};
use serde_json::Value;

use crate::support::audit::end_and_reconcile;
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::cluster::leader_of;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::program::program;
use crate::support::up::Up;

pub const NODES: u32 = 3;
pub const FUNDS: u128 = 1_000_000;

/// Three nodes of three organisations, and one shard.
pub async fn one_shard() -> (Up, Client, Bank, Vec<Wallet>) {
    let up = Up::start_with(NODES, 1, &["--replicas", "3", "--orgs", "3"]).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> =
        wallets_in_each_shard(&client.genesis().layout, "home", 40).into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;
    (up, client, bank, wallets)
}

/// Runs one command of the program beside the cluster: what it says, or why it is refused.
pub fn run(up: &Up, line: &str) -> Result<Value, String> {
    let mut command = Command::new(program());
    command.args(line.split_whitespace()).arg("--json").env("SEAMARK_DIR", &up.dir);
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => serde_json::from_str(&said).map_err(|error| format!("{line}: {error}: {said}")),
        false => Err(format!("{line}: {said}")),
    }
}

/// Has more than half of the organisations ask for a job, where there are three. Returns its name.
pub async fn asked(up: &Up, line: &str) -> String {
    asked_by(up, line, &["org-a", "org-b"]).await
}

/// Has these organisations ask for a job. Returns its name.
pub async fn asked_by(up: &Up, line: &str, orgs: &[&str]) -> String {
    let mut job = Value::Null;
    for org in orgs {
        // A node that was just killed has to be heard of again first.
        let said =
            eventually("a job is asked for", async || run(up, &format!("{line} --as {org} --wait 0 --within 30")))
                .await;
        assert!(job.is_null() || job == said["job"], "all ask for the same: {said}");
        job = said["job"].clone();
    }
    job.as_str().unwrap().to_owned()
}

/// How far a job is.
pub fn job(up: &Up, name: &str) -> Result<Value, String> {
    let job = run(up, &format!("shard status {name}"))?;
    assert_ne!(job["phase"], "cancelled", "{job}");
    Ok(job)
}

/// Waits until a job is in one of these phases.
pub async fn reaches(up: &Up, name: &str, phases: &[&str]) -> Value {
    eventually("the job goes on", async || {
        let job = job(up, name)?;
        let phase = job["phase"].as_str().unwrap();
        if phases.contains(&phase) { Ok(job) } else { Err(job.to_string()) }
    })
    .await
}

/// Waits until a job is done, and no replica of these shards is left.
pub async fn done(up: &Up, client: &Client, name: &str, ended: &[GroupId]) {
    reaches(up, name, &["done"]).await;
    eventually("the shards that have ended are gone", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let replicas = status.nodes.iter().flat_map(|node| &node.replicas);
        let left: Vec<u64> =
            replicas.map(|replica| replica.group).filter(|group| ended.contains(&GroupId(*group))).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are still there")) }
    })
    .await;
}

/// The folders of copies in the data of all nodes, whether or not they run.
pub fn copies(up: &Up) -> Vec<PathBuf> {
    let nodes = std::fs::read_dir(up.dir.join("nodes")).unwrap();
    // One that has never run has no data.
    let data = nodes.flat_map(|node| std::fs::read_dir(node.unwrap().path().join("data")).into_iter().flatten());
    let is_copy = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("warm-"));
    data.map(|entry| entry.unwrap().path()).filter(is_copy).collect()
}

/// Waits until no node keeps a copy of a shard.
pub async fn copies_are_gone(up: &Up) {
    eventually("copies that nobody wants are removed", async || match &copies(up)[..] {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
}

/// Ends a load of which every payment must have been committed, and every account have what follows from that.
pub async fn all_committed(load: Load, bank: &Bank, wallets: &[Wallet]) {
    let (committed, fates) = end_and_reconcile(load, bank).await;
    assert!(fates.open.is_empty(), "{:?}", fates.open);
    assert_eq!(committed, fates.sent.len() as u64, "no payment fails");
    assert_eq!(fates.receipts.len(), fates.sent.len(), "each is answered");
    assert_eq!(bank.total(wallets).await, FUNDS * wallets.len() as u128);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_cut_and_joined_again_under_load_and_no_payment_fails() {
    let (mut up, client, bank, wallets) = one_shard().await;
    let genesis = client.genesis().clone();
    let [zero, left, right, joined] = [0, 1, 2, 3].map(GroupId::shard);
    let old = bank.execute(vec![bank.pay(&wallets[0], wallets[1].address, 1)], &[&wallets[0].key]).await.unwrap();
    let of_account = client.account(wallets[0].address, Consistency::Linearizable, true).await.unwrap().proof.unwrap();
    let of_receipt = client.transaction(old.txid(), Some(zero), true).await.unwrap();
    let receipt = of_receipt.value.clone().unwrap();
    let kept = [of_account.encode(), of_receipt.proof.unwrap().encode()];
    let facts =
        kept.clone().map(|file| proof::verify(&proof::ProofFile::decode(&file).unwrap(), &genesis).unwrap().fact);

    let mut load = Load::start(&bank, &wallets[2..], &wallets[2..], 48).await;
    load.next_by_any(300).await;
    let split = asked(&up, "shard split shard-0").await;
    done(&up, &client, &split, &[zero]).await;
    load.next_by_any(300).await;
    // A plan knows size, load, pause and disk though nothing scales.
    let plan = up.told("shard plan split shard-1");
    for known in ["accounts", "bytes", "tps"] {
        assert!(plan["shards"][0][known].as_u64().is_some_and(|number| number > 0), "{known} in {plan}");
    }
    assert!(plan["pause_ms"].as_u64() >= Some(320) && plan["disk_bytes"] == plan["shards"][0]["bytes"], "{plan}");
    // Both go on, and each has what is its own.
    let mut groups = Vec::new();
    for wallet in &wallets {
        let answer = client.account(wallet.address, Consistency::Linearizable, true).await.unwrap();
        assert!(answer.value.is_some() && answer.proof.is_some(), "{}", wallet.address);
        groups.push(answer.group);
    }
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups, [left, right]);
    let again = client.transaction(old.txid(), Some(zero), true).await.unwrap();
    assert_eq!(
        (again.value.as_ref(), again.proof.is_some()),
        (Some(&receipt), true),
        "by what the parent has certified"
    );

    let merge = asked(&up, "shard merge shard-1 shard-2").await;
    done(&up, &client, &merge, &[zero, left, right]).await;
    load.next_by_any(300).await;
    all_committed(load, &bank, &wallets).await;
    let again = client.transaction(old.txid(), Some(zero), true).await.unwrap();
    assert_eq!((again.value.as_ref(), again.proof.is_some()), (Some(&receipt), true));
    let account = client.account(wallets[0].address, Consistency::Linearizable, true).await.unwrap();
    assert_eq!((account.group, account.proof.is_some()), (joined, true));
    for (file, fact) in kept.iter().zip(facts) {
        let verified = proof::verify(&proof::ProofFile::decode(file).unwrap(), &genesis).unwrap();
        assert_eq!(verified.fact, fact, "what was proved before is proved for good");
    }
    // What came of it is a cluster like any other: one that was stopped comes back.
    let groups = [GroupId::BEACON, joined];
    up.kill(NodeId(2)).await;
    up.restart(NodeId(2));
    up.settled(&client, &groups).await;
}

/// The first and the last of the jobs take a follower, the one between them the leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_in_any_phase_of_a_job_comes_back_into_what_came_of_it() {
    let (mut up, client, bank, wallets) = one_shard().await;
    let mut load = Load::start(&bank, &wallets, &wallets, 48).await;
    load.next_by_any(200).await;

    // While copies are made and kept: what it had is lost, and made anew.
    let first = asked(&up, "shard split shard-0 --manual").await;
    reaches(&up, &first, &["preparing"]).await;
    eventually("all copies are ready", async || {
        let job = job(&up, &first)?;
        let warm = job["warm"].as_array().map_or(0, Vec::len);
        if warm == NODES as usize { Ok(()) } else { Err(job.to_string()) }
    })
    .await;
    let victim = follower(&client, GroupId::shard(0)).await;
    up.kill(victim).await;
    load.next_by_any(100).await;
    up.restart(victim);
    up.whole(&client, &[GroupId::BEACON, GroupId::shard(0)]).await;
    eventually("the job is cut", async || {
        let job = job(&up, &first)?;
        if job["phase"] != "preparing" {
            return Ok(());
        }
        run(&up, &format!("shard cut {first} --as org-a --wait 0")).and_then(|said| match said["phase"].as_str() {
            Some("preparing") | None => Err(said.to_string()),
            Some(_) => Ok(()),
        })
    })
    .await;
    done(&up, &client, &first, &[GroupId::shard(0)]).await;
    load.next_by_any(100).await;

    // While the parents stand still, or just behind that.
    let second = asked(&up, "shard merge shard-1 shard-2 --manual").await;
    eventually("the job is told to go on", async || {
        run(&up, &format!("shard cut {second} --as org-b --wait 0")).and_then(|said| match said["phase"].as_str() {
            Some("preparing") | None => Err(said.to_string()),
            Some(_) => Ok(()),
        })
    })
    .await;
    let victim = eventually("somebody leads", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let led = [1, 3].map(GroupId::shard).into_iter().find_map(|group| leader_of(&status, group));
        led.ok_or_else(|| "nobody leads".to_owned())
    })
    .await;
    up.kill(victim).await;
    up.restart(victim);
    // A majority of what is left carries it through, or it is taken back and asked for again.
    let second = match in_the_end(&up, &second).await.as_str() {
        "done" => second,
        _ => asked(&up, "shard merge shard-1 shard-2").await,
    };
    done(&up, &client, &second, &[GroupId::shard(1), GroupId::shard(2)]).await;
    load.next_by_any(100).await;

    // As soon as the new layout is in force.
    let parent = joined(&up, &second);
    let third = asked(&up, &format!("shard split {parent}")).await;
    reaches(&up, &third, &["committed", "done"]).await;
    let victim = NodeId(3);
    up.kill(victim).await;
    load.next_by_any(100).await;
    up.restart(victim);
    done(&up, &client, &third, &[parent.parse().unwrap()]).await;
    load.next_by_any(100).await;
    all_committed(load, &bank, &wallets).await;
    let mut groups = vec![GroupId::BEACON];
    groups.extend(children(&up, &third).iter().map(|child| child.parse::<GroupId>().unwrap()));
    up.settled(&client, &groups).await;
    copies_are_gone(&up).await;
}

/// A member of a shard that does not lead it.
pub async fn follower(client: &Client, group: GroupId) -> NodeId {
    eventually("a leader is known", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let leader = leader_of(&status, group).ok_or_else(|| format!("{group} has no leader"))?;
        (1..=NODES).map(NodeId).find(|node| *node != leader).ok_or_else(|| "nobody follows".to_owned())
    })
    .await
}

/// How a job ends.
pub async fn in_the_end(up: &Up, name: &str) -> String {
    eventually("the job ends", async || {
        let job = run(up, &format!("shard status {name}"))?;
        let phase = job["phase"].as_str().unwrap();
        if ["done", "cancelled"].contains(&phase) { Ok(phase.to_owned()) } else { Err(job.to_string()) }
    })
    .await
}

/// The shards that begin with a job.
pub fn children(up: &Up, name: &str) -> Vec<String> {
    let job = job(up, name).unwrap();
    job["children"].as_array().unwrap().iter().map(|child| child["shard"].as_str().unwrap().to_owned()).collect()
}

/// The one shard that a job has joined others into.
fn joined(up: &Up, name: &str) -> String {
    let children = children(up, name);
    assert_eq!(children.len(), 1);
    children[0].clone()
}
