//! Whoever carries a change of the layout is killed while it is under way, and nodes come and go meanwhile: the change ends,
//! no payment fails, and nothing is lost. What happens to the nodes of the shard itself is in [`crate::elastic`]; here it is
//! the beacon's leader, the router, the command line, and nodes that join, leave, and are lost for good.

use std::process::{Child, Command, Stdio};

use client::Client;
use ledger::{GroupId, NodeId};

use crate::elastic::{FUNDS, NODES, all_committed, asked, children, done, in_the_end, job, one_shard, reaches, run};
use crate::elastic_history::cut;
use crate::nodes::committees;
use crate::support::bank::{Bank, Wallet, wallets_in_each_shard};
use crate::support::cluster::{base_port, leader_of};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::program::program;
use crate::support::router::Router;
use crate::support::up::Up;

/// What is executed between two events at least.
const MEANWHILE: usize = 100;

pub async fn leader(client: &Client, group: GroupId) -> NodeId {
    eventually("a leader is known", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        leader_of(&status, group).ok_or_else(|| format!("{group} has no leader"))
    })
    .await
}

/// Waits until all copies of a job are ready on so many nodes.
pub async fn warm(up: &Up, name: &str, nodes: usize) {
    eventually("the copies are ready", async || {
        let job = job(up, name)?;
        let warm = job["warm"].as_array().map_or(0, Vec::len);
        if warm >= nodes { Ok(()) } else { Err(job.to_string()) }
    })
    .await;
}

/// Has a job that was interrupted come to its end: it is carried through, or was taken back by its time-out and is asked for
/// again. Returns the job that was carried through.
async fn carried(up: &Up, name: String, line: &str) -> String {
    match in_the_end(up, &name).await.as_str() {
        "done" => name,
        _ => {
            let again = asked(up, line).await;
            reaches(up, &again, &["done"]).await;
            again
        }
    }
}

fn group(name: &str) -> GroupId {
    name.parse().unwrap()
}

/// The phases are the beacon's, and whoever leads it next goes on with them.
#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_the_beacon_is_killed_in_every_phase_of_a_job() {
    let (mut up, client, bank, wallets) = one_shard().await;
    let mut load = Load::start(&bank, &wallets, &wallets, 32).await;
    load.next_by_any(MEANWHILE).await;

    // One organisation has asked, and the next one is heard by another leader.
    let split = "shard split shard-0 --manual";
    let proposed = run(&up, &format!("{split} --as org-a --wait 0")).unwrap();
    assert_eq!(proposed["phase"], "proposed", "{proposed}");
    let first = leader(&client, GroupId::BEACON).await;
    up.kill(first).await;
    // One of three is away: with one more the shard could decide nothing, so nobody begins.
    eventually("the job is refused", async || match run(&up, &format!("{split} --as org-b --wait 0 --within 30")) {
        Err(refused) if refused.contains("shard_risk") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    up.restart(first);
    let name = asked(&up, split).await;
    assert_eq!(proposed["job"], name.as_str(), "what was approved stays so");
    warm(&up, &name, NODES as usize).await;

    // While copies are kept.
    up.whole(&client, &[GroupId::BEACON, GroupId::shard(0)]).await;
    let second = leader(&client, GroupId::BEACON).await;
    up.kill(second).await;
    load.next_by_any(MEANWHILE).await;
    up.restart(second);
    up.whole(&client, &[GroupId::BEACON, GroupId::shard(0)]).await;

    // While the shard stands still, or just behind that.
    let third = leader(&client, GroupId::BEACON).await;
    cut(&up, &name).await;
    up.kill(third).await;
    up.restart(third);
    let name = carried(&up, name, "shard split shard-0").await;
    done(&up, &client, &name, &[GroupId::shard(0)]).await;
    load.next_by_any(MEANWHILE).await;

    // As soon as the layout is in force, and the nodes say that they have opened what begins.
    let halves = children(&up, &name);
    let merge = format!("shard merge {} {}", halves[0], halves[1]);
    let joins = asked(&up, &merge).await;
    reaches(&up, &joins, &["committed", "done"]).await;
    let fourth = leader(&client, GroupId::BEACON).await;
    up.kill(fourth).await;
    load.next_by_any(MEANWHILE).await;
    up.restart(fourth);
    done(&up, &client, &joins, &[group(&halves[0]), group(&halves[1])]).await;
    load.next_by_any(MEANWHILE).await;
    all_committed(load, &bank, &wallets).await;
    let whole = children(&up, &joins);
    up.settled(&client, &[GroupId::BEACON, group(&whole[0])]).await;
}

/// A command that runs beside the test, and is killed.
pub fn begun(up: &Up, line: &str) -> Child {
    let mut command = Command::new(program());
    command.args(line.split_whitespace()).arg("--json").env("SEAMARK_DIR", &up.dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub fn kill(mut command: Child) {
    // It may have ended by itself.
    let _ = command.kill();
    command.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_killed_is_given_again_and_a_router_that_is_killed_costs_nobody_a_payment() {
    let (mut up, client, bank, wallets) = one_shard().await;
    // This customer goes over two routers of its own.
    let port = base_port(2);
    let mut routers = [Router::start(&up.dir, port).await, Router::start(&up.dir, port + 1).await];
    let mut profile = up.profile();
    profile.routers = routers.iter().map(|router| router.endpoint.clone()).collect();
    let customer = Bank { client: Client::connect(&profile).await.unwrap(), ..bank.clone() };
    let mut load = Load::start(&customer, &wallets, &wallets, 32).await;
    load.next_by_any(MEANWHILE).await;

    // The one that asks first, the one whose approval begins it, and the one that watches: each is killed at once.
    let split = "shard split shard-0 --manual";
    for org in ["org-a", "org-b"] {
        kill(begun(&up, &format!("{split} --as {org} --wait 600")));
    }
    // Given again they find what is there, or do what was not done.
    let name = asked(&up, split).await;
    let all = run(&up, "shard status").unwrap();
    assert_eq!(all["jobs"].as_array().unwrap().len(), 1, "{all}");
    assert_eq!(asked(&up, split).await, name, "and again");
    warm(&up, &name, NODES as usize).await;
    kill(begun(&up, &format!("shard cut {name} --as org-a --wait 600")));
    let phase = job(&up, &name).unwrap()["phase"].as_str().unwrap().to_owned();
    if phase == "preparing" {
        cut(&up, &name).await;
    }
    // The router dies with what it keeps for the shard that stands still, or with what it has just sent on.
    routers[0].process.kill();
    let name = carried(&up, name, "shard split shard-0").await;
    done(&up, &client, &name, &[GroupId::shard(0)]).await;
    load.next_by_any(MEANWHILE).await;
    // What is done is not done again.
    let again = up.told(&format!("{split} --as org-a --wait 0"));
    assert_eq!((&again["state"], &again["job"]), (&"done".into(), &name.as_str().into()), "{again}");

    // The other one, which has been there all the time, knows the layout; one that begins now has it from the beacon.
    routers[0] = Router::start(&up.dir, port).await;
    routers[1].process.kill();
    load.next_by_any(MEANWHILE).await;
    all_committed(load, &customer, &wallets).await;
    let mut groups = vec![GroupId::BEACON];
    groups.extend(children(&up, &name).iter().map(|child| group(child)));
    up.settled(&client, &groups).await;
}

/// The nodes without a seat in the beacon, each with its organisation.
fn outsiders(client: &Client) -> Vec<(NodeId, String)> {
    let genesis = client.genesis();
    let beacon = genesis.committee(GroupId::BEACON).unwrap();
    let outside = genesis.nodes.iter().filter(|node| beacon.index_of(node.id).is_none());
    let name = |node: NodeId| {
        let org = genesis.node(node).unwrap().org;
        genesis.orgs.iter().find(|known| known.id == org).unwrap().name.clone()
    };
    outside.map(|node| (node.id, name(node.id))).collect()
}

/// The groups in which a node has a seat.
async fn seats(client: &Client, node: NodeId) -> Vec<GroupId> {
    let all = committees(client).await;
    all.values().filter(|committee| committee.index_of(node).is_some()).map(|committee| committee.group).collect()
}

/// What sits where says why, without an epoch that has ended: the halves of a shard that a job has cut, and a node that
/// took its share.
fn seats_say_why(up: &Up, split: &str, joined: u32) {
    let told = up.told("beacon verify-assignment");
    assert_eq!(told["epochs"], serde_json::json!([]), "{told}");
    let groups = told["in_force"].as_array().unwrap();
    let of = |group: &str| groups.iter().find(|line| line["group"] == group);
    assert_eq!(of("shard-0"), None, "{told}");
    let halves: Vec<_> = groups.iter().filter(|line| line["began"] == split).collect();
    assert_eq!(halves.len(), 2, "{told}");
    assert!(halves.iter().all(|line| line["parents"] == serde_json::json!(["shard-0"])), "{told}");
    let mut seats = groups.iter().flat_map(|line| line["seats"].as_array().unwrap());
    assert!(seats.any(|seat| seat["node"] == joined && seat["why"] == "share" && !seat["from"].is_null()), "{told}");
}

/// Seats of a shard that is being cut wait until it is; all others move meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_leave_and_are_replaced_while_shards_are_cut() {
    let mut up = Up::start(5, 3).await;
    let client = Client::connect(&up.profile()).await.unwrap();
    let bank = Bank::open(&client).await;
    let wallets: Vec<Wallet> =
        wallets_in_each_shard(&client.genesis().layout, "home", 8).into_iter().flatten().collect();
    bank.fund(&wallets, FUNDS).await;
    let mut load = Load::start(&bank, &wallets, &wallets, 32).await;
    load.next_by_any(MEANWHILE).await;
    let [(leaves, one), (dies, other)] = &outsiders(&client)[..] else { panic!("two are outside the beacon") };
    let (leaves, dies) = (*leaves, *dies);

    // A sixth node takes its share while a shard is cut: of that shard it gets nothing before.
    let split = asked(&up, "shard split shard-0 --manual").await;
    up.add_node(NodeId(6), one).await;
    let joining = up.told("node join 6 --wait 0");
    assert!(["done", "under_way"].contains(&joining["state"].as_str().unwrap()), "{joining}");
    warm(&up, &split, NODES as usize).await;
    assert!(!seats(&client, NodeId(6)).await.contains(&GroupId::shard(0)), "its seats stay while it is cut");
    cut(&up, &split).await;
    let split = carried(&up, split, "shard split shard-0").await;
    done(&up, &client, &split, &[GroupId::shard(0)]).await;
    let joined = up.told("node join 6 --wait 60");
    assert_eq!((&joined["state"], &joined["missing"]), (&"done".into(), &serde_json::json!([])), "{joined}");
    seats_say_why(&up, &split, 6);
    load.next_by_any(MEANWHILE).await;

    // A seventh joins, and one drains and leaves while another shard is cut.
    up.add_node(NodeId(7), other).await;
    assert_eq!(up.told("node join 7 --wait 60")["state"], "done");
    let split = asked(&up, "shard split shard-1 --manual").await;
    let leaving = up.told(&format!("node drain {leaves} --wait 0"));
    assert!(["done", "under_way"].contains(&leaving["state"].as_str().unwrap()), "{leaving}");
    warm(&up, &split, NODES as usize).await;
    cut(&up, &split).await;
    let split = carried(&up, split, "shard split shard-1").await;
    done(&up, &client, &split, &[GroupId::shard(1)]).await;
    let left = up.told(&format!("node leave {leaves} --wait 60"));
    assert_eq!((&left["state"], &left["seats"]), (&"done".into(), &serde_json::json!([])), "{left}");
    up.kill(leaves).await;
    load.next_by_any(MEANWHILE).await;

    // One is lost with its disk. What it has a seat in is not cut before another one has that seat; the rest is.
    for org in ["org-a", "org-b"] {
        up.told(&format!("beacon watch set dry-run --after 60 --as {org}"));
    }
    let lost = seats(&client, dies).await;
    up.kill(dies).await;
    std::fs::remove_dir_all(up.dir.join(format!("nodes/node-{dies}"))).unwrap();
    up.add_node(NodeId(8), other).await;
    if let Some(shard) = lost.iter().find(|group| group.kind() == Some(ledger::GroupKind::Shard)) {
        eventually("it is known to be silent", async || {
            let said = run(&up, &format!("shard plan split {shard}"));
            match said {
                Err(text) if text.contains("shard_risk") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    let replaced = up.told(&format!("node replace {dies} 8 --wait 60"));
    assert_eq!((&replaced["state"], &replaced["missing"]), (&"done".into(), &serde_json::json!([])), "{replaced}");
    assert_eq!(up.told(&format!("node leave {dies} --wait 60"))["state"], "done");
    let taken = seats(&client, NodeId(8)).await;
    assert!(lost.iter().all(|group| taken.contains(group)), "{lost:?} {taken:?}");
    let shard = taken.iter().find(|group| group.kind() == Some(ledger::GroupKind::Shard)).copied();
    let shard = shard.unwrap_or(GroupId::shard(2));
    let split = asked(&up, &format!("shard split {shard}")).await;
    let split = carried(&up, split, &format!("shard split {shard}")).await;
    done(&up, &client, &split, &[shard]).await;
    load.next_by_any(MEANWHILE).await;

    all_committed(load, &bank, &wallets).await;
    let after = committees(&client).await;
    for committee in after.values() {
        assert_eq!(committee.members.len(), 3, "{}", committee.group);
        let gone = committee.members.iter().any(|member| [leaves, dies].contains(&member.node));
        assert!(!gone, "{} has a seat on a node that is gone", committee.group);
    }
    up.settled(&client, &after.into_keys().collect::<Vec<_>>()).await;
}
