//! Groups that more than two thirds of their members order: they pay as all others do, go on without the member
//! that a committee of four tolerates, and have the one right state.

use std::process::{Command, Stdio};

use channel::Change;
use client::{Consistency, Wait};
use ledger::genesis::VerifyMode;
use ledger::{Address, Engine, GroupId, LedgerId, Move, NodeId, OrgId};
use serde_json::{Value, json};

use crate::bft_switch::all_under;
use crate::support::audit::audit;
use crate::support::bank::{Bank, Wallet, wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted, agreed, leader_of};
use crate::support::consortium::Consortium;
use crate::support::customers::Customers;
use crate::support::eventually;
use crate::support::program::program;
use crate::support::shell::Shell;
use crate::support::up::Up;

const NODES: u32 = 4;
const FUNDS: u128 = 100_000;

/// Shards of four members each, one of which may lie.
fn four() -> Wanted {
    Wanted { nodes: NODES, orgs: Some(4), replicas: 4, engine: Engine::Bft, ..Wanted::default() }
}

/// The beacon is Byzantine, too, as `--consensus` has it: issuing and funding go through it.
#[test]
fn real_data_has_the_state_that_every_other_cluster_has() {
    let demo = ["demo", "--json", "--consensus", "bft", "--shards", "2"];
    let output = Command::new(program()).args(demo).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["transfers"], &report["committed"]), (&Value::from(5992), &Value::from(5992)));
    assert_eq!((&report["conserved"], &report["replicas_agree"]), (&Value::from(true), &Value::from(true)));
    // As in `readme`, where Raft orders.
    assert_eq!(report["state_sha256"], "3b87f6f57c8c1bcb0ade37206b440ab351a4497e657ccc198741f53976abe715");
}

/// What an operator is shown and told of a Byzantine cluster.
#[test]
fn engine_tolerance_and_evidence_are_shown_and_a_switch_is_looked_at_before_it_is_sent() {
    let shell = Shell::start(&["--consensus", "bft", "--beacon-consensus", "raft", "--shards", "1"]);
    let status = shell.told("status");
    let group = |name: &str| status["groups"].as_array().unwrap().iter().find(|line| line["group"] == name).unwrap();
    assert_eq!((&group("shard-0")["engine"], &group("shard-0")["tolerates"]), (&json!("bft"), &json!(1)));
    assert_eq!((&group("beacon")["engine"], &group("beacon")["round"]), (&json!("raft"), &Value::Null));
    assert!(group("shard-0")["round"].is_u64(), "{status}");
    assert_eq!(status["accused"], json!([]));
    for keeper in ["", "shard-0"] {
        let listed = shell.told(&format!("evidence ls {keeper}"));
        assert_eq!((&listed["evidence"], &listed["accused"]), (&json!([]), &json!([])), "nobody has lied");
    }
    assert_eq!(shell.refused("evidence show 4f0c19")["error"]["code"], "evidence_unknown");

    let looked = shell.told("group consensus shard-0 raft --dry-run");
    assert_eq!((&looked["state"], &looked["now"]["engine"]), (&json!("dry_run"), &json!("bft")));
    assert_eq!((&looked["then"]["engine"], &looked["then"]["tolerated"]), (&json!("raft"), &json!(1)));
    let refused = shell.refused("group consensus shard-0 bft --dry-run");
    assert_eq!((&refused["state"], &refused["refusal"]), (&json!("refused"), &json!("engine_same")));
    let looked = shell.told("group consensus beacon bft --dry-run");
    assert_eq!((&looked["state"], &looked["then"]["engine"]), (&json!("dry_run"), &json!("bft")), "the beacon's, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_inside_a_shard_and_across_outlive_a_stop_of_everybody() {
    let mut cluster = TestCluster::start(Wanted { verify: VerifyMode::Every, ..four() }).await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 2);
    bank.fund(homes.iter().flatten(), FUNDS).await;
    let (alice, bob, carol) = (&homes[0][0], &homes[0][1], &homes[1][0]);
    let pay = async |from: &Wallet, to: Address, amount| {
        bank.client.pay(&from.key, to, bank.asset, amount, Wait::Applied).await.unwrap()
    };
    pay(alice, bob.address, 30).await;
    let across = pay(alice, carol.address, 70).await;
    // Two payers in two shards: both groups have to agree.
    let swap = [bank.pay(bob, carol.address, 5), bank.pay(carol, bob.address, 9)];
    bank.execute(swap.to_vec(), &[&bob.key, &carol.key]).await.unwrap();
    for node in cluster.node_ids() {
        let replica = cluster.replica(node, GroupId::shard(1)).await;
        assert_eq!((replica.engine.as_str(), replica.voters.len()), ("bft", 4));
    }

    cluster.wait_settled().await;
    cluster.stop_all().await;
    cluster.start_all().await;
    let again = cluster.client();
    assert_eq!(again.transaction(across.txid, None, true).await.unwrap().value, Some(across));
    pay(carol, alice.address, 1).await;
    let expected = [FUNDS - 99, FUNDS + 34, FUNDS + 65];
    assert_eq!(bank.balances(&[alice.address, bob.address, carol.address]).await, expected);
    assert_eq!(audit(&cluster).await[&bank.asset].held, FUNDS * 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_when_the_leader_is_killed_and_nothing_is_lost_when_all_are() {
    let mut up = Up::start_with(NODES, 2, &["--consensus", "bft", "--beacon-consensus", "raft"]).await;
    let customers = Customers::of(&up, 8, FUNDS).await;
    let (client, groups) = (&customers.client, &customers.groups);
    let mut load = customers.pay(64).await;
    load.next(200).await;
    let status = client.status().await.unwrap();
    let leader = leader_of(&status, GroupId::shard(0)).expect("the cluster is whole");
    up.kill(leader).await;
    // Three of four go on, for as long as it takes.
    load.next(300).await;
    up.restart(leader);
    up.whole(client, groups).await;
    load.next(200).await;

    // All at once, with payments in flight, which the client sends again.
    up.kill_all().await;
    for node in &client.genesis().nodes {
        up.restart(node.id);
    }
    load.next(200).await;
    up.whole(client, groups).await;
    customers.end(&mut up, load, 900).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_four_organisations_goes_on_without_any_one_of_them() {
    let wanted = Wanted { nodes: NODES, orgs: Some(4), shards: 1, ..Wanted::default() };
    let mut cluster = TestCluster::start(wanted).await;
    let bank = Bank::open(&cluster.client()).await;
    let seats: Vec<(OrgId, [NodeId; 1])> = cluster.genesis.nodes.iter().map(|node| (node.org, [node.id])).collect();
    let hosts: Vec<(OrgId, &[NodeId])> = seats.iter().map(|(org, nodes)| (*org, nodes.as_slice())).collect();
    let orgs: Vec<OrgId> = hosts.iter().map(|(org, _)| *org).collect();
    let channel = {
        let consortium = Consortium::of(&cluster);
        let channel = consortium.found_by(Engine::Bft, "steel", &hosts).await;
        consortium.permit(channel, bank.asset, &orgs[..3]).await;
        channel
    };
    let (payer, payee) = (wallet("payer", 0), wallet("payee", 0));
    bank.fund([&payer], 1_000).await;
    let ledger = LedgerId::of_channel(channel);
    let bring = Move::Transfer { from: payer.address, to: payer.address, asset: bank.asset, amount: 1_000, ledger };
    bank.execute(vec![bring], &[&payer.key]).await.unwrap();
    let client = cluster.client();
    let has = async |who: Address, wanted: u128| {
        eventually("the balance in the channel", async || {
            let answer = client.account_of(ledger, who, Consistency::Linearizable, false).await;
            let found = answer.map_err(|error| error.to_string())?.value;
            let line = found.iter().flat_map(|record| &record.balances).find(|line| line.0 == bank.asset);
            let found = line.map_or(0, |line| line.1.posted);
            if found == wanted { Ok(()) } else { Err(format!("{found}, not {wanted}")) }
        })
        .await;
    };
    has(payer.address, 1_000).await;

    let pay = async |amount| {
        let moves = vec![(ledger, bank.pay(&payer, payee.address, amount))];
        client.execute(moves, b"", &[&payer.key], Wait::Receipt).await.unwrap();
    };
    pay(10).await;
    let leader = cluster.leader(channel).await;
    assert_eq!(cluster.replica(leader, channel).await.engine, "bft");
    cluster.stop_node(leader).await;
    pay(20).await;
    pay(30).await;
    has(payee.address, 60).await;
    cluster.start_node(leader).await;
    eventually("it has what was decided without it", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        let there = |reply: &&proto::v1::NodeStatusReply| reply.replicas.iter().any(|one| one.group == channel.0);
        match status.nodes.iter().filter(there).count() {
            4 => agreed(&status, channel).map(drop),
            found => Err(format!("{found} of its nodes host it")),
        }
    })
    .await;
}

/// Whoever leads has never heard the node that is gone, since it has come back itself meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_shuts_out_an_organisation_whose_node_is_gone_for_good() {
    let wanted = Wanted { nodes: 5, orgs: Some(5), shards: 1, ..Wanted::default() };
    let mut cluster = TestCluster::start(wanted).await;
    let bank = Bank::open(&cluster.client()).await;
    let seats: Vec<(OrgId, [NodeId; 1])> = cluster.genesis.nodes.iter().map(|node| (node.org, [node.id])).collect();
    let hosts: Vec<(OrgId, &[NodeId])> = seats.iter().map(|(org, nodes)| (*org, nodes.as_slice())).collect();
    let orgs: Vec<OrgId> = hosts.iter().map(|(org, _)| *org).collect();
    let channel = Consortium::of(&cluster).found_by(Engine::Bft, "steel", &hosts).await;
    all_under(&cluster.client(), channel, Engine::Bft, 5).await;

    let (gone, [lost]) = seats[4];
    cluster.stop_all().await;
    for (_, [node]) in &seats[..4] {
        cluster.start_node(*node).await;
    }
    let consortium = Consortium::of(&cluster);
    let member = consortium.client(orgs[0]);
    eventually("the four others go on", async || member.governance(channel).await).await;
    consortium.decide(channel, Change::Remove { org: gone }, &orgs[..3]).await;
    let committee = all_under(&member, channel, Engine::Bft, 4).await;
    assert_eq!(committee.index_of(lost), None);
    consortium.permit(channel, bank.asset, &orgs[1..4]).await;
}
