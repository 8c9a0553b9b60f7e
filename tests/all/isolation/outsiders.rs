//! Those who have no part in a channel, and a channel of their own: every call, over wires that are recorded.

use bytes::Bytes;
use client::Wait;
use ledger::{Engine, GroupId, LedgerId, NodeId, OrgId};
use prost::Message;
use proto::v1;
use proto::v1::query_request::Query;
use seamark_cli::setup::Subject;

use super::attackers::{Burglar, a_member_answers, is_denied_at_the_door};
use super::calls::{BFT_MESSAGES, SNAPSHOT_MEET, raft_calls};
use super::scene::MEMO;
use super::{A, B, C, HOSTED_BY, HOSTS, INSIDE, OUTSIDE, Scene, balance, found_in};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::rpc::{call, services};
use crate::support::wire::Wires;

/// Stands in a transaction of the main ledger.
const OPEN_MEMO: &[u8] = b"three crates of mountain apples";

/// A channel whose members vote on every entry is as closed as one with a leader: its members answer each other, and
/// nobody else.
async fn a_byzantine_channel_answers_its_members_alone(scene: &Scene) {
    const HOSTS: [(OrgId, &[NodeId]); 2] = [(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2), NodeId(5)])];
    let tin = Consortium::of(&scene.cluster).found_by(Engine::Bft, "tin", &HOSTS).await;
    let request = |kind, payload| Bytes::from(v1::RaftRequest { group: tin.0, kind, payload }.encode_to_vec());
    // What this engine answers, from one member to the other: the messages, what was decided, the stint, the place, and
    // where to make a snapshot.
    let member = scene.back_door(INSIDE, &scene.cluster.node_identity(NodeId(5)));
    let of_the_engine = |kind: u32| (BFT_MESSAGES..16).contains(&kind) || kind == SNAPSHOT_MEET;
    for (kind, payload) in raft_calls(NodeId(5), INSIDE).into_iter().filter(|(kind, _)| of_the_engine(*kind)) {
        let request = request(kind, payload);
        eventually("a member is answered", async || {
            match call(&member, "/seamark.v1.Node/Raft", request.clone()).await {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("raft {kind}: {other:?}")),
            }
        })
        .await;
    }
    let as_node = scene.cluster.node_identity(OUTSIDE);
    for node in HOSTS.iter().flat_map(|(_, nodes)| nodes.iter().copied()) {
        let door = scene.back_door(node, &as_node);
        for (kind, payload) in raft_calls(OUTSIDE, node) {
            let answer = call(&door, "/seamark.v1.Node/Raft", request(kind, payload)).await;
            is_denied_at_the_door(&format!("a node outside at node {node}, raft {kind} of {tin}"), answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outsiders_get_nothing_of_a_channel() {
    assert_eq!(services(), ["Router", "Node"], "a service is new: try its calls here");
    let (mut scene, wires) = Scene::set_behind_wires(&HOSTED_BY, &[A, B]).await;
    // C has a channel of its own: it is clients and a node of another channel that come.
    let other = Consortium::of(&scene.cluster).found("coal", &[(C, &[OUTSIDE]), (B, &[NodeId(5)])]).await;
    let query = Some(Query::Governance(v1::GovernanceQuery { group: other.0, ..Default::default() }));
    let own = v1::QueryRequest { query, ..v1::QueryRequest::default() }.encode_to_vec();
    let door = scene.door(OUTSIDE, &scene.issue("org-c", Subject::client));
    eventually("it reads its own channel", async || {
        let told = call(&door, "/seamark.v1.Router/Query", own.clone().into()).await;
        let told = told.map_err(|status| status.to_string())?.ok_or_else(|| "no answer".to_owned())?;
        let reply = v1::QueryReply::decode(told).unwrap();
        if reply.found { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    // The search finds what is there: a member is shown all of it, over any member's router.
    let member = scene.issue("org-b", Subject::client);
    for node in [INSIDE, NodeId(2)] {
        let ask = scene.question("block").encode_to_vec();
        let seen = call(&scene.door(node, &member), "/seamark.v1.Router/Query", ask.into()).await.unwrap().unwrap();
        assert!(seen.windows(32).any(|part| part == scene.txid.0.0), "a member reads the block");
    }
    let as_node = scene.cluster.node_identity(OUTSIDE);
    for (who, identity) in [
        ("a client outside", scene.issue("org-c", Subject::client)),
        ("an admin outside", scene.issue("org-c", Subject::admin)),
        ("an auditor outside", scene.issue("org-c", Subject::auditor)),
        ("a node outside, as a client,", as_node.clone()),
    ] {
        for node in [INSIDE, NodeId(2), OUTSIDE] {
            scene.knocks(&format!("{who} at node {node}"), &scene.door(node, &identity)).await;
        }
    }
    // How high the channel is, nobody finds out by asking for a height.
    let client = scene.issue("org-c", Subject::client);
    let mut told = Vec::new();
    for height in [1, u64::MAX / 2] {
        let consistency = v1::Consistency::AtLeast.into();
        let ask = v1::QueryRequest { consistency, height, ..scene.question("block") }.encode_to_vec();
        let answer = call(&scene.door(OUTSIDE, &client), "/seamark.v1.Router/Query", ask.into()).await.unwrap();
        told.push(v1::QueryReply::decode(answer.unwrap()).unwrap());
    }
    assert!(told[0].refusal.is_some());
    assert_eq!(told[0], told[1]);
    scene.breaks_in_everywhere(Burglar::Node, &as_node, &HOSTS).await;
    scene.breaks_in_everywhere(Burglar::Router, &scene.router_of("org-c"), &HOSTS).await;
    // It is about the group, and not about the calls.
    let shard = scene.cluster.genesis.committee(GroupId::shard(0)).unwrap();
    let neighbour = shard.members.iter().map(|member| member.node).find(|node| *node != OUTSIDE).unwrap();
    a_member_answers(&scene.cluster, &scene.back_door(neighbour, &as_node), shard.group, neighbour).await;
    a_byzantine_channel_answers_its_members_alone(&scene).await;
    nothing_is_on_disks_or_wires(&scene, &wires).await;
    assert!(scene.cluster.data(INSIDE, scene.channel).join("local.key").exists());
    assert!(!scene.cluster.data(OUTSIDE, scene.channel).exists());
    assert_eq!(balance(&Scene::member(&scene.cluster), &scene, scene.payee.address).await, 77);
    scene.cluster.assert_run();
}

/// Nothing of it has ever been on the disk of a node outside, or in its log, and on that of a member values, log
/// entries and snapshots are sealed. Nor can it be read from the wires, over which all of this went. The search finds
/// what is not secret: what a shard keeps, what nodes log.
async fn nothing_is_on_disks_or_wires(scene: &Scene, wires: &Wires) {
    let pay = scene.bank.pay(&scene.payer, scene.payer.address, 1);
    let main = vec![(LedgerId::MAIN, pay)];
    scene.bank.fund([&scene.payer], 1).await;
    let client = scene.cluster.client();
    client.execute(main, OPEN_MEMO, &[&scene.payer.key], Wait::Applied).await.unwrap();
    scene.cluster.wait_settled().await;
    let folders = [INSIDE, NodeId(2), NodeId(4), OUTSIDE].map(|node| scene.cluster.dir.node_dir(node));
    assert!(folders.iter().any(|folder| found_in(folder, OPEN_MEMO)));
    assert!(found_in(&folders[3], format!("node {OUTSIDE} runs").as_bytes()), "its log is searched, too");
    for folder in &folders {
        assert!(!found_in(folder, MEMO), "{}", folder.display());
    }
    let (address, txid) = (scene.payee.address, scene.txid);
    for secret in [&address.0[..], &txid.0.0, address.to_string().as_bytes(), txid.to_string().as_bytes()] {
        assert!(
            !found_in(&folders[3], secret),
            "a node outside has something of the channel on its disk or in its log"
        );
    }
    let ways = wires.sealed();
    assert!(HOSTS.iter().all(|node| ways.iter().any(|way| way.node == *node)), "nobody called a host over the wires");
    for way in &ways {
        scene.is_clean(&way.place(), &way.bytes);
    }
}
