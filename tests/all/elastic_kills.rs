//! Phases of a job that last only as long as nodes need for them, held until somebody was killed in them: what all nodes have
//! to do waits for one that is down. The phase is read before and behind the kill. No payment fails, and nothing is lost.

use beacon::BeaconCommand;
use client::Client;
use ledger::{Committee, GroupId, LayoutVersion, NodeId};

use crate::elastic::{NODES, all_committed, asked, children, done, job, one_shard, reaches, run};
use crate::elastic_faults::{leader, warm};
use crate::elastic_history::cut;
use crate::elastic_refusals::{Admin, four_nodes};
use crate::node_kills::{begins_with, learns_in};
use crate::nodes::committees;
use crate::support::bank::now_ms;
use crate::support::cluster::leader_of;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::up::Up;

const ZERO: GroupId = GroupId::shard(0);
const ONE: GroupId = GroupId::shard(1);
/// What is executed between two events at least.
const MEANWHILE: usize = 100;
/// How often a cut is asked for that comes to nothing since a busy machine does not answer in time.
const ASKED_MAX: u32 = 3;

/// The node of three that leads neither the beacon nor the shard.
async fn leads_nothing(client: &Client) -> NodeId {
    eventually("both are led", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let led = [GroupId::BEACON, ZERO].map(|group| leader_of(&status, group));
        let free = (1..=NODES).map(NodeId).find(|node| !led.contains(&Some(*node)));
        free.filter(|_| !led.contains(&None)).ok_or_else(|| format!("{led:?} lead"))
    })
    .await
}

/// Has the shard of three nodes cut while one of them is down: the halves are in force, and not all members can have opened
/// theirs. Returns the job, and the node.
async fn cut_without_one(up: &mut Up, client: &Client) -> (String, NodeId) {
    for _ in 0..ASKED_MAX {
        let name = asked(up, "shard split shard-0 --manual").await;
        warm(up, &name, NODES as usize).await;
        let down = leads_nothing(client).await;
        up.kill(down).await;
        // Each node is of its own organisation, and these two have asked for it.
        let by = if down == NodeId(1) { "org-b" } else { "org-a" };
        let phase = eventually("the halves are in force, or the job is taken back", async || {
            let said = run(up, &format!("shard status {name}"))?;
            match said["phase"].as_str() {
                Some("preparing") => {
                    run(up, &format!("shard cut {name} --as {by} --wait 0")).and(Err("it was told to go on".to_owned()))
                }
                Some(phase @ ("committed" | "cancelled")) => Ok(phase.to_owned()),
                _ => Err(said.to_string()),
            }
        })
        .await;
        if phase == "committed" {
            return (name, down);
        }
        up.restart(down);
        up.whole(client, &[GroupId::BEACON, ZERO]).await;
    }
    panic!("no cut is in force after {ASKED_MAX}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_killed_while_what_begins_is_in_force_and_not_open_everywhere() {
    let (mut up, client, bank, wallets) = one_shard().await;
    let mut load = Load::start(&bank, &wallets, &wallets, 32).await;
    load.next_by_any(MEANWHILE).await;
    let (name, down) = cut_without_one(&mut up, &client).await;
    let halves: Vec<GroupId> = children(&up, &name).iter().map(|child| child.parse().unwrap()).collect();
    // Two of three go on. One of them leads what has just begun, and is killed as well.
    load.next_by_any(MEANWHILE).await;
    let leads = leader(&client, halves[0]).await;
    let held = reaches(&up, &name, &["committed", "done"]).await;
    assert_eq!(held["phase"], "committed", "{held}");
    let open = held["open"].as_array().unwrap();
    assert!(open.iter().all(|word| word["node"] != down.0), "one that is down has opened nothing: {held}");
    let killed_ms = now_ms();
    up.kill(leads).await;

    up.restart(down);
    up.restart(leads);
    done(&up, &client, &name, &[ZERO]).await;
    let ended = job(&up, &name).unwrap();
    assert!(ended["since_ms"].as_u64().unwrap() >= killed_ms, "the phase was over before: {ended}, {killed_ms}");
    load.next_by_any(MEANWHILE).await;
    all_committed(load, &bank, &wallets).await;
    let groups: Vec<GroupId> = [GroupId::BEACON].into_iter().chain(halves).collect();
    up.settled(&client, &groups).await;
}

/// Sees to it that both halves are on different nodes. Returns the node that has a seat in the left one alone, and the one
/// that has it in the right one.
async fn apart(up: &Up, client: &Client) -> (NodeId, NodeId) {
    let alone = |of: &Committee, other: &Committee| {
        of.members.iter().map(|member| member.node).find(|node| other.index_of(*node).is_none())
    };
    let now = committees(client).await;
    if let (Some(left), Some(right)) = (alone(&now[&ZERO], &now[&ONE]), alone(&now[&ONE], &now[&ZERO])) {
        return (left, right);
    }
    // By chance they are on the same ones, and one of four has no seat in either.
    let genesis = client.genesis();
    let spare = genesis.nodes.iter().find(|node| now[&ONE].index_of(node.id).is_none()).unwrap();
    let mate = now[&ONE].members.iter().find(|member| member.org == spare.org).unwrap().node;
    let moves = asked(up, &format!("shard move shard-1 --from {mate} --to {}", spare.id)).await;
    reaches(up, &moves, &["done"]).await;
    let left = up.dir.join(format!("nodes/node-{mate}/data/{ONE}"));
    eventually("the former replica is removed", async || if left.exists() { Err("not yet") } else { Ok(()) }).await;
    (mate, spare.id)
}

/// The right half takes the nodes of the left one: it waits for the one that comes, which is down when it begins.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_killed_while_one_half_takes_the_nodes_of_the_other_one() {
    let (mut up, client, bank, wallets) = four_nodes(2).await;
    let (comes, goes) = apart(&up, &client).await;
    let mut load = Load::start(&bank, &wallets, &wallets, 32).await;
    load.next_by_any(MEANWHILE).await;

    // The command line asks all members first, so the last word is given without it.
    let admin = Admin::of(&up, &client, "org-b").await;
    let line = "shard merge shard-0 shard-1 --manual --as org-a --wait 0 --within 30";
    let proposed = eventually("the job is asked for", async || run(&up, line)).await;
    assert_eq!(proposed["phase"], "proposed", "{proposed}");
    let name = proposed["job"].as_str().unwrap();
    up.kill(comes).await;
    admin
        .gives(&BeaconCommand::MergeShards { left: ZERO, right: ONE, layout: LayoutVersion(1), manual: true }, 3)
        .await;
    reaches(&up, name, &["aligning"]).await;
    learns_in(&client, ONE, comes).await;

    // The one whose seat goes dies in that phase; the one that gets it does so in it, or just behind.
    up.kill(goes).await;
    let killed_ms = now_ms();
    let held = reaches(&up, name, &["aligning", "preparing"]).await;
    assert_eq!(held["phase"], "aligning", "{held}");
    load.next_by_any(MEANWHILE).await;
    up.restart(comes);
    begins_with(&up, comes, ONE).await;
    up.kill(comes).await;
    load.next_by_any(MEANWHILE).await;
    up.restart(comes);
    up.restart(goes);

    let aligned = reaches(&up, name, &["preparing"]).await;
    assert!(aligned["since_ms"].as_u64().unwrap() >= killed_ms, "the phase was over before: {aligned}, {killed_ms}");
    let now = committees(&client).await;
    let nodes = |group: &GroupId| now[group].members.iter().map(|member| member.node).collect::<Vec<_>>();
    assert_eq!(nodes(&ZERO), nodes(&ONE));
    // Copies of both, on all three.
    warm(&up, name, 6).await;
    cut(&up, name).await;
    done(&up, &client, name, &[ZERO, ONE]).await;
    load.next_by_any(MEANWHILE).await;
    all_committed(load, &bank, &wallets).await;
    let whole: GroupId = children(&up, name)[0].parse().unwrap();
    up.settled(&client, &[GroupId::BEACON, whole]).await;
}
