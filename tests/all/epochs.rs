//! Epochs of a cluster of processes: seeds that anybody recomputes offline, a member that starts again between commitment
//! and secret, and one that does not.

use std::time::{SystemTime, UNIX_EPOCH};

use client::Client;
use ledger::{GroupId, NodeId};
use serde_json::Value;

use crate::support::eventually;
use crate::support::up::Up;

const NODES: u32 = 5;
const SHARDS: u32 = 2;
/// Long enough for a process to start again while commitments are taken.
const LENGTH_S: u32 = 30;
/// What is left of the time of commitments at least when a member is killed.
const TIME_TO_KILL_MS: u128 = 3_000;

fn nodes(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|node| node.as_u64().unwrap()).collect()
}

/// Waits until an epoch has ended, and shows it.
async fn ended(up: &Up, epoch: u64) -> Value {
    eventually("the epoch ends", async || {
        let shown = up.told("beacon epoch");
        let line = shown["ended"].as_array().unwrap().iter().find(|line| line["epoch"] == epoch).cloned();
        line.ok_or_else(|| shown.to_string())
    })
    .await
}

/// Waits until a member has committed itself in an epoch in which nobody may reveal for a while yet; returns the epoch.
async fn committed(up: &Up, node: NodeId) -> u64 {
    eventually("the member commits itself", async || {
        let shown = up.told("beacon epoch");
        let running = &shown["running"];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let early = u128::from(running["reveal_ms"].as_u64().unwrap()) > now.as_millis() + TIME_TO_KILL_MS;
        let there = nodes(&running["committed"]).contains(&u64::from(node.0));
        if early && there { Ok(running["epoch"].as_u64().unwrap()) } else { Err(shown.to_string()) }
    })
    .await
}

/// An epoch has a seed of its own if two of the beacon's three members have revealed what they committed themselves to,
/// which a busy machine may keep the others from, and only then.
fn seeds_by_majority(ended: &Value) {
    assert_eq!(ended["fresh"], nodes(&ended["revealed"]).len() >= 2, "{ended}");
}

/// A member of the beacon that does not lead it.
async fn follower(client: &Client) -> NodeId {
    let members = client.genesis().committee(GroupId::BEACON).unwrap().members.clone();
    eventually("the beacon has a leader", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let replicas =
            status.nodes.iter().flat_map(|node| node.replicas.iter().map(move |replica| (node.node, replica)));
        let leads = replicas.filter(|(_, replica)| replica.group == GroupId::BEACON.0 && replica.leads);
        let leader = leads.map(|(node, _)| NodeId(node)).next().ok_or("nobody leads")?;
        members.iter().map(|member| member.node).find(|node| *node != leader).ok_or_else(|| "one member".to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_and_seats_are_recomputed_offline_and_one_that_withholds_is_named() {
    let mut up = Up::start(NODES, SHARDS).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    assert_eq!(up.refused("beacon seed"), "not_found", "no epoch has ended");
    assert_eq!(up.refused("beacon rebalance --as org-a"), "epochs_off");
    assert_eq!(up.refused("beacon epoch set --length 1 --as org-a"), "epoch_form");
    assert_eq!(up.refused("beacon plan --bad 2 --risk-max-ppb 1"), "layout_risk");
    let plan = up.told("beacon plan --bad 2");
    assert_eq!((&plan["risk_ppb"], &plan["nodes"]), (&300_000_000.into(), &NODES.into()), "{plan}");
    let set = |by: &str| format!("beacon epoch set --length {LENGTH_S} --as {by}");
    assert_eq!(up.told(&set("org-a"))["in_force"], false);
    assert_eq!(up.told(&set("org-b"))["in_force"], true);
    seeds_by_majority(&ended(&up, 1).await);

    // One starts again between its commitment and its secret, and reveals what it has committed itself to.
    let again = follower(&client).await;
    let epoch = committed(&up, again).await;
    let secret_file = up.dir.join(format!("nodes/node-{again}/data/epoch.secret"));
    let kept = std::fs::read(&secret_file).unwrap();
    up.kill(again).await;
    assert_eq!(std::fs::read(&secret_file).unwrap(), kept, "it was on disk before anybody heard of it");
    up.restart(again);
    let second = ended(&up, epoch).await;
    assert!(nodes(&second["revealed"]).contains(&u64::from(again.0)), "{second}");
    assert_eq!(second["fresh"], true, "{second}");

    // Anybody recomputes seeds and seats, without the cluster.
    let file = up.dir.join("epochs.proof");
    let told = up.told(&format!("beacon seed {epoch} --out {}", file.display()));
    assert_eq!((&told["verified"], &told["seed"]), (&true.into(), &second["seed"]));
    let before = ended(&up, epoch - 1).await;
    assert_eq!(told["previous"], before["seed"]);
    assert_ne!(told["previous"], told["seed"]);
    let verified = up.told(&format!("beacon verify-assignment --file {}", file.display()));
    assert_eq!(verified["genesis"], true, "{verified}");
    let epochs = nodes(&verified["epochs"]);
    assert!(epochs.contains(&epoch) && epochs[0] == 1, "{verified}");
    let last = epochs[epochs.len() - 1];
    for group in client.genesis().committees.iter().filter(|committee| committee.group != GroupId::BEACON) {
        let lines = verified["groups"].as_array().unwrap();
        let line = lines.iter().find(|line| line["group"] == group.group.to_string()).unwrap();
        let seated: Vec<u64> = group.members.iter().map(|member| u64::from(member.node.0)).collect();
        assert_eq!((nodes(&line["members"]), &line["epoch"]), (seated, &last.into()), "nobody moves without need");
        assert!(nodes(&line["moved_by_need"]).is_empty(), "{line}");
    }
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let altered = up.dir.join("altered.proof");
    std::fs::write(&altered, bytes).unwrap();
    let code = up.refused(&format!("beacon verify-assignment --file {}", altered.display()));
    assert_eq!(code, "epoch_malformed");

    // One is killed between commitment and secret, and stays away: it is named, and sits the next epoch out.
    let gone = follower(&client).await;
    let epoch = committed(&up, gone).await;
    up.kill(gone).await;
    let third = ended(&up, epoch).await;
    assert!(nodes(&third["withheld"]).contains(&u64::from(gone.0)), "{third}");
    assert!(!nodes(&third["revealed"]).contains(&u64::from(gone.0)), "{third}");
    seeds_by_majority(&third);
    let shown = up.told("beacon epoch");
    assert!(nodes(&shown["running"]["barred"]).contains(&u64::from(gone.0)), "{shown}");
    let line = shown["members"].as_array().unwrap().iter().find(|line| line["node"] == gone.0).unwrap();
    assert_eq!((&line["withheld"], &line["withheld_last"]), (&1.into(), &epoch.into()), "{shown}");
    assert_eq!(up.told(&format!("beacon seed {epoch}"))["verified"], true);
}
