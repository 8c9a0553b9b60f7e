//! Real data on shards that are cut and joined meanwhile: the final state is the one right state, whatever the layout was in
//! between. Nodes are processes with fsync, and the history is the one of `demo`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::Client;
use ledger::{GroupId, Layout};
use seamark_cli::history::bitcoin_block;
use serde_json::Value;

use crate::elastic::{NODES, asked, children, done, in_the_end, run};
use crate::support::eventually;
use crate::support::program::program;
use crate::support::up::Up;

/// Transfers of the block that are replayed, from its first on: a few seconds each time.
const TRANSFERS: usize = 1_200;
/// How often something is asked for that comes to nothing since a busy machine does not answer in time.
const ASKED_MAX: u32 = 3;

/// Replays a file on the cluster in a folder. Returns what the program reports.
fn replay(dir: &Path, file: &Path) -> Value {
    let mut command = Command::new(program());
    command.args(["replay", "--json", "--rate", "300", "--dir"]).arg(dir).arg(file);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Replays again and again, until it has begun behind the moment when `stop` was set. Returns all reports.
fn replay_until(stop: &AtomicBool, dir: &Path, file: &Path) -> Vec<Value> {
    let mut reports = Vec::new();
    loop {
        let last = stop.load(Ordering::Acquire);
        reports.push(replay(dir, file));
        if last {
            return reports;
        }
    }
}

/// Carries several jobs out at once: all copies are made, then all are cut. Returns the shards that begin, in
/// the order of the jobs.
async fn step(up: &Up, client: &Client, lines: &[(String, Vec<GroupId>)]) -> Vec<String> {
    let mut jobs = Vec::new();
    for (line, _) in lines {
        // None of them changes the layout that the next one is planned on.
        jobs.push(asked(up, &format!("{line} --manual")).await);
    }
    // One is sealed at a time; the next one waits for it, and is told right behind it.
    for name in &jobs {
        cut(up, name).await;
    }
    let mut begun = Vec::new();
    for (first, (line, ended)) in jobs.into_iter().zip(lines) {
        let mut name = first;
        let mut tries = 1;
        while in_the_end(up, &name).await != "done" {
            tries += 1;
            assert!(tries <= ASKED_MAX, "{line} comes to nothing");
            name = asked(up, line).await;
        }
        done(up, client, &name, ended).await;
        begun.extend(children(up, &name));
    }
    begun
}

/// Has a job go on to the cut, once enough of its copies are ready.
pub async fn cut(up: &Up, name: &str) {
    eventually("the job is told to go on", async || run(up, &format!("shard cut {name} --as org-a --wait 0"))).await;
}

fn group(name: &str) -> GroupId {
    name.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_data_has_the_one_right_state_while_one_shard_becomes_eight_and_four_again() {
    let mut up = Up::start_with(NODES, 1, &["--replicas", "3", "--orgs", "3"]).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let history = bitcoin_block::mainnet_702861().unwrap();
    let name = |account| history.accounts.name(account);
    let rows = history.transfers.iter().take(TRANSFERS);
    let rows: String = rows.map(|one| format!("{},{},{}\n", name(one.from), name(one.to), one.amount)).collect();
    let file = up.dir.join("block-702861.csv");
    std::fs::write(&file, format!("from,to,amount\n{rows}")).unwrap();
    // While nothing changes yet; the program compares what it finds with what one after the other comes to.
    let plain = tokio::task::block_in_place(|| replay(&up.dir, &file));
    assert_eq!((&plain["committed"], &plain["shards"]), (&TRANSFERS.into(), &1.into()), "{plain}");

    let stop = Arc::new(AtomicBool::new(false));
    let replaying = {
        let (stop, dir, file) = (Arc::clone(&stop), up.dir.clone(), file.clone());
        tokio::task::spawn_blocking(move || replay_until(&stop, &dir, &file))
    };
    let mut shards = vec!["shard-0".to_owned()];
    for expected in [2, 4, 8] {
        let splits = shards.iter().map(|shard| (format!("shard split {shard}"), vec![group(shard)]));
        shards = step(&up, &client, &splits.collect::<Vec<_>>()).await;
        assert_eq!(shards.len(), expected);
    }
    // The halves of one prefix stand beside each other.
    let pairs = shards.chunks(2).map(|pair| {
        let line = format!("shard merge {} {}", pair[0], pair[1]);
        (line, pair.iter().map(|shard| group(shard)).collect::<Vec<GroupId>>())
    });
    shards = step(&up, &client, &pairs.collect::<Vec<_>>()).await;
    stop.store(true, Ordering::Release);
    let reports = replaying.await.unwrap();

    for report in &reports {
        assert_eq!((&report["committed"], &report["rejected"]), (&TRANSFERS.into(), &0.into()), "{report}");
        assert_eq!((&report["conserved"], &report["replicas_agree"]), (&true.into(), &true.into()), "{report}");
        assert_eq!((&report["matches_sequential"], &report["state_sha256"]), (&true.into(), &plain["state_sha256"]));
    }
    let last = reports.last().unwrap();
    assert_eq!(last["shards"], 4, "{last}");
    assert!(last["cross_shard"].as_u64().unwrap() > 0, "{last}");
    let cluster = client.cluster().await.unwrap();
    let layout: Layout = borsh::from_slice(&cluster.layout).unwrap();
    let owners: Vec<String> = layout.shards.iter().map(|shard| shard.group.to_string()).collect();
    assert_eq!(owners, shards, "in the order of their prefixes");
    assert_eq!(layout.lineage.len(), 1 + 2 + 4 + 8, "and all that have ended are known");
    let mut groups = vec![GroupId::BEACON];
    groups.extend(shards.iter().map(|shard| group(shard)));
    up.settled(&client, &groups).await;
}
