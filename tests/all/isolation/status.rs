//! What everybody may know of a channel, and over whom its members reach it: status, and routers.

use bytes::Bytes;
use client::net::Identity;
use client::{Client, Wait};
use consensus::sequencer::Sequencer;
use ledger::{LedgerId, NodeId};
use prost::Message;
use proto::v1;
use seamark_cli::setup::Subject;

use super::{A, B, C, HOSTED_BY, HOSTS, INSIDE, OUTSIDE, Scene, balance};
use crate::support::eventually;
use crate::support::rpc::call;

/// Everybody sees that a channel is there, who leads it, and whether it is well. How far it has come and how much
/// happens in it is for those whom it admits.
#[tokio::test(flavor = "multi_thread")]
async fn status_shows_a_channel_to_those_whom_it_admits() {
    let scene = Scene::set(&HOSTED_BY, &[A, B]).await;
    replicas_are_shown_to_those_whom_they_admit(&scene).await;
    totals_of_a_node_are_for_those_whom_its_channels_admit(&scene).await;
}

async fn replicas_are_shown_to_those_whom_they_admit(scene: &Scene) {
    let seen = async |node: NodeId, identity: Identity| {
        // What a client says of itself is not believed here either.
        let request = v1::StatusRequest { caller: Some(scene.pretence()) }.encode_to_vec();
        let answer = call(&scene.door(node, &identity), "/seamark.v1.Router/Status", request.into()).await;
        let status = v1::StatusReply::decode(answer.unwrap().unwrap()).unwrap();
        let all = status.nodes.into_iter().flat_map(|node| node.replicas);
        let replicas: Vec<v1::ReplicaStatus> = all.filter(|replica| replica.group == scene.channel.0).collect();
        assert_eq!(replicas.len(), 3, "it is known where it runs");
        replicas
    };
    for identity in [scene.issue("org-b", Subject::client), scene.issue("org-a", Subject::auditor)] {
        for replica in seen(INSIDE, identity).await {
            assert!(!replica.hidden && replica.height > 0 && !replica.state_root.is_empty(), "{replica:?}");
        }
    }
    for (node, identity) in [
        (INSIDE, scene.issue("org-c", Subject::client)),
        (INSIDE, scene.issue("org-c", Subject::auditor)),
        (OUTSIDE, scene.issue("org-c", Subject::admin)),
        // An outsider's router would see it, too.
        (OUTSIDE, scene.issue("org-b", Subject::client)),
    ] {
        for replica in seen(node, identity).await {
            let public = v1::ReplicaStatus {
                group: scene.channel.0,
                leads: replica.leads,
                leader_node: replica.leader_node,
                voters: vec![1, 2, 4],
                hidden: true,
                unwell: replica.unwell,
                // It has not handed over yet.
                handovers_certified: replica.leads,
                ..v1::ReplicaStatus::default()
            };
            assert_eq!(replica, public);
        }
    }
}

/// What a node counts for all its groups together tells how busy a channel of it is. Whoever is not shown the channel
/// is told it of other nodes alone.
async fn totals_of_a_node_are_for_those_whom_its_channels_admit(scene: &Scene) {
    for (at, org, admitted) in [
        (NodeId(2), "org-b", true),
        (OUTSIDE, "org-c", false),
        (INSIDE, "org-c", false),
        // An outsider's router would see it, too.
        (OUTSIDE, "org-b", false),
    ] {
        let door = scene.door(at, &scene.issue(org, Subject::client));
        let request = v1::StatusRequest::default().encode_to_vec();
        let answer = call(&door, "/seamark.v1.Router/Status", request.into()).await;
        let nodes = v1::StatusReply::decode(answer.unwrap().unwrap()).unwrap().nodes;
        assert_eq!(nodes.len(), 5, "all nodes answer");
        for node in nodes {
            let hosts = HOSTS.contains(&NodeId(node.node));
            assert_eq!(
                node.replicas.iter().any(|replica| replica.hidden),
                hosts && !admitted,
                "{org} at {at}: {node:?}"
            );
            let of_log = [node.log_fsyncs, node.log_appends, node.log_bytes];
            match (hosts, admitted) {
                (true, false) => {
                    let all = (of_log, node.bytes_sent, node.client_bytes_received);
                    assert_eq!(all, ([0; 3], 0, 0), "{org} at {at} of node {}", node.node);
                }
                (true, true) => assert!(node.bytes_sent > 0 && !of_log.contains(&0), "{org} at {at}: {node:?}"),
                (false, _) => assert!(node.bytes_sent > 0, "{org} at {at}: {node:?}"),
            }
        }
    }
}

/// Why a replica has stopped is for those whom the channel admits. Others hear that it does not answer, which `status`
/// shows everybody. The cluster is in this process: no call and no fault of a disk stops one replica of a node at a
/// place and with a reason that a test chooses.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_stopped_says_why_to_those_whom_the_channel_admits() {
    const WHY: &str = "block 77 cannot be written: the disk is full";
    let scene = Scene::set_in_this_process(&HOSTED_BY, &[A, B]).await;
    let stopped = eventually("the node hosts the channel", async || {
        scene.cluster.node(INSIDE).hosted().group(scene.channel.0).ok_or("not yet")
    })
    .await;
    stopped.share.halt.stop(WHY);
    // Its engine ends then, and has a reason of its own.
    stopped.engine.shutdown().await;
    for (name, org) in [("org-b", B), ("org-c", C)] {
        let subject = Subject::router("r", name, vec!["127.0.0.1".to_owned()]);
        let router = scene.back_door(INSIDE, &scene.cluster.authority(name).issue(&subject).unwrap().identity());
        for consistency in [v1::Consistency::Stale, v1::Consistency::Linearizable] {
            let credential = Bytes::copy_from_slice(&[7; 32]);
            let caller = v1::Caller { org: org.0.into(), role: "client".to_owned(), credential };
            let consistency = consistency.into();
            let query = v1::QueryRequest { consistency, caller: Some(caller), ..scene.question("block") };
            let read = v1::ReadRequest { group: scene.channel.0, query: Some(query) }.encode_to_vec();
            let answer = call(&router, "/seamark.v1.Node/Read", read.into()).await.unwrap().unwrap();
            let reply = v1::QueryReply::decode(answer).unwrap();
            let refusal = reply.refusal.clone().unwrap_or_else(|| panic!("it has stopped: {reply:?}"));
            assert!(reply.values.is_empty() && reply.proof.is_empty() && reply.height == 0, "{reply:?}");
            let bare = v1::Refusal::of(ledger::Reject::GroupStopped);
            if org == B {
                assert_eq!((refusal.code, refusal.detail.is_empty()), (bare.code, false), "{org} at {consistency}");
            } else {
                assert_eq!(refusal, bare, "{org} at {consistency}");
            }
        }
    }
    // The others go on without it.
    assert_eq!(balance(&scene.cluster.client_of(NodeId(4)), &scene, scene.payee.address).await, 77);
}

/// A member's client is served whichever router of its profile comes first; those of outsiders hand nothing over.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_pays_over_the_next_router_when_the_first_is_an_outsiders() {
    let scene = Scene::set(&HOSTED_BY, &[A, B]).await;
    let ledger = LedgerId::of_channel(scene.channel);
    let pay = |amount| vec![(ledger, scene.bank.pay(&scene.payer, scene.payee.address, amount))];
    let mut profile = scene.cluster.profile();
    profile.routers.retain(|router| [Some(OUTSIDE), Some(INSIDE)].contains(&router.node));
    profile.routers.sort_by_key(|router| router.node != Some(OUTSIDE));
    let client = Client::lazy(&profile).unwrap();
    profile.routers.truncate(1);
    let outside_alone = Client::lazy(&profile).unwrap();
    eventually("the router outside has heard of the channel", async || {
        let reply = outside_alone.cluster().await.map_err(|error| error.to_string())?;
        let all = reply.committees.iter().map(|bytes| borsh::from_slice::<ledger::Committee>(bytes).unwrap());
        all.into_iter().find(|known| known.group == scene.channel).map(drop).ok_or("not yet".to_owned())
    })
    .await;

    assert_eq!(client.router().node, Some(OUTSIDE));
    let settled = client.execute(pay(3), b"", &[&scene.payer.key], Wait::Receipt).await.unwrap();
    assert!(settled.committed(), "{settled:?}");
    assert_eq!(client.router().node, Some(INSIDE));
    assert_eq!(balance(&client, &scene, scene.payee.address).await, 80);

    // Where there is no other, it is refused, and is told why.
    let error = outside_alone.execute(pay(5), b"", &[&scene.payer.key], Wait::Receipt).await.unwrap_err();
    assert_eq!(error.code(), "access_denied", "{error}");
    assert!(error.to_string().contains("use a member's router"), "{error}");
    assert_eq!(balance(&client, &scene, scene.payee.address).await, 80);
}
