//! A member that was removed.

use channel::Change;
use channel::exclusion::Departure;
use client::{ExclusionFile, Wait};
use ledger::{LedgerId, NodeId};
use prost::Message;
use proto::v1;
use seamark_cli::setup::Subject;

use super::attackers::Burglar;
use super::calls::raft_calls;
use super::{A, B, C, HOSTS, INSIDE, OUTSIDE, Scene, balance};
use crate::support::cluster::leader_of;
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::rpc::call;

/// A removed member gets nothing any more: not over the connections it has, not with its certificates, not
/// with its node, whose copy of the channel is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_gets_nothing_any_more() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)]), (C, &[OUTSIDE])], &[A, B]).await;
    let identity = scene.issue("org-c", Subject::client);
    let doors = [INSIDE, NodeId(2), OUTSIDE].map(|node| scene.door(node, &identity));
    for door in &doors {
        let ask = scene.question("block").encode_to_vec();
        let seen = call(door, "/seamark.v1.Router/Query", ask.into()).await.unwrap().unwrap();
        assert!(seen.windows(32).any(|part| part == scene.txid.0.0), "a member reads the block");
    }
    assert!(scene.cluster.data(OUTSIDE, scene.channel).exists());
    Consortium::of(&scene.cluster).decide(scene.channel, Change::Remove { org: C }, &[A, B]).await;
    // Its node gets no snapshot any more of whoever knows, although consensus still counts it.
    let as_node = scene.cluster.node_identity(OUTSIDE);
    let leader = leader_of(&scene.cluster.status().await, scene.channel);
    if let Some(leader) = leader.filter(|leader| *leader != OUTSIDE) {
        let before = scene.noted(&[leader], C);
        let (kind, payload) = raft_calls(OUTSIDE, leader).swap_remove(7);
        let request = v1::RaftRequest { group: scene.channel.0, kind, payload }.encode_to_vec();
        let answer = call(&scene.back_door(leader, &as_node), "/seamark.v1.Node/Raft", request.into()).await;
        assert_eq!(answer.unwrap_err().code(), tonic::Code::PermissionDenied);
        scene.is_noted("its node", &[leader], C, before + 1).await;
    }
    // From the block on that removed it, whoever is asked.
    for (door, node) in doors.iter().zip([INSIDE, NodeId(2), OUTSIDE]) {
        scene.knocks(&format!("a removed member at node {node}"), door).await;
    }
    for (who, identity) in [
        ("an admin", scene.issue("org-c", Subject::admin)),
        ("an auditor", scene.issue("org-c", Subject::auditor)),
        ("a router, as a client,", scene.router_of("org-c")),
    ] {
        for node in [INSIDE, NodeId(2), OUTSIDE] {
            let who = format!("{who} of a removed member at node {node}");
            scene.knocks(&who, &scene.door(node, &identity)).await;
        }
    }
    eventually("its copy is gone", async || {
        if scene.cluster.data(OUTSIDE, scene.channel).exists() { Err("it is there") } else { Ok(()) }
    })
    .await;
    for node in HOSTS {
        let door = scene.back_door(node, &as_node);
        // It takes part in consensus until the beacon's next committee is in force there.
        eventually("its seat is gone", async || {
            let (kind, payload) = raft_calls(OUTSIDE, node).swap_remove(9);
            let request = v1::RaftRequest { group: scene.channel.0, kind, payload }.encode_to_vec();
            match call(&door, "/seamark.v1.Node/Raft", request.into()).await {
                Err(status) if status.code() == tonic::Code::PermissionDenied => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    scene.breaks_in_everywhere(Burglar::Node, &as_node, &HOSTS).await;
    scene.breaks_in_everywhere(Burglar::Router, &scene.router_of("org-c"), &HOSTS).await;
    // Of all that the channel holds, it gets what proves that it was removed; from its own router, too, which
    // has nothing of the channel any more.
    let consortium = Consortium::of(&scene.cluster);
    let genesis = &scene.cluster.genesis;
    for node in [INSIDE, OUTSIDE] {
        let removed = consortium.client_over(C, |own| own == node);
        let receipt = removed.exclusion(scene.channel, C).await.unwrap().expect("it was removed");
        let file = ExclusionFile::from_file(&receipt.to_file()).unwrap();
        let verified = client::exclusion::verify(&file, genesis).unwrap();
        assert_eq!((verified.exclusion.org, verified.exclusion.group), (C, scene.channel));
        assert!(matches!(verified.exclusion.how, Departure::Removed(_)));
        for of in [A, B] {
            let error = removed.exclusion(scene.channel, of).await.unwrap_err();
            assert!(error.to_string().contains("channel_removed"), "{error}");
        }
    }
    // Members are given it as well, and are told that nobody else went. Nobody else may fetch it for them.
    let member = consortium.client(A);
    assert!(member.exclusion(scene.channel, C).await.unwrap().is_some());
    assert_eq!(member.exclusion(scene.channel, B).await.unwrap(), None);
    let past_its_router = consortium.client_over(A, |own| own == OUTSIDE);
    assert_eq!(past_its_router.exclusion(scene.channel, C).await.unwrap_err().code(), "access_denied");
    // The others go on.
    let ledger = LedgerId::of_channel(scene.channel);
    let pay = scene.bank.pay(&scene.payer, scene.payee.address, 3);
    let member = Scene::member(&scene.cluster);
    member.execute(vec![(ledger, pay)], b"", &[&scene.payer.key], Wait::Receipt).await.unwrap();
    assert_eq!(balance(&member, &scene, scene.payee.address).await, 80);
}
