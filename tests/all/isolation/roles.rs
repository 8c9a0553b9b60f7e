//! Whose a certificate is, and what its role may do: authorities below those of the registry, revoked routers,
//! auditors.

use bytes::Bytes;
use channel::Command;
use ledger::NodeId;
use prost::Message;
use proto::v1;
use seamark_cli::setup::Subject;

use super::{A, B, HOSTED_BY, HOSTS, INSIDE, Scene, balance};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::rpc::call;

/// Certificates of an authority below the one that the registry has are their organisation's like any other.
#[tokio::test(flavor = "multi_thread")]
async fn behind_an_intermediate_authority_a_certificate_is_its_organisations() {
    let scene = Scene::set(&HOSTED_BY, &[A, B]).await;
    let member = scene.issue_below("org-b", &Subject::client("till", "org-b"));
    let outsider = scene.issue_below("org-c", &Subject::client("till", "org-b"));
    for node in [INSIDE, NodeId(2)] {
        let ask = scene.question("block").encode_to_vec();
        let seen = call(&scene.door(node, &member), "/seamark.v1.Router/Query", ask.into()).await.unwrap().unwrap();
        assert!(seen.windows(32).any(|part| part == scene.txid.0.0), "a member reads the block");
        scene.knocks(&format!("a client of another's at node {node}"), &scene.door(node, &outsider)).await;
    }
    // A router of a member asks for any member.
    let subject = Subject::router("r", "org-b", vec!["127.0.0.1".to_owned()]);
    let certificate = scene.issue_below("org-b", &subject);
    let router = scene.back_door(INSIDE, &certificate);
    let credential = Bytes::copy_from_slice(&[7; 32]);
    let caller = v1::Caller { org: B.0.into(), role: "client".to_owned(), credential };
    let consistency = v1::Consistency::Stale.into();
    let query = v1::QueryRequest { consistency, caller: Some(caller), ..scene.question("block") };
    let read = v1::ReadRequest { group: scene.channel.0, query: Some(query) }.encode_to_vec();
    eventually("its replica has the block", async || {
        let seen = call(&router, "/seamark.v1.Node/Read", read.clone().into()).await.unwrap().unwrap();
        let reply = v1::QueryReply::decode(seen).unwrap();
        assert_eq!(reply.refusal, None);
        if reply.found { Ok(()) } else { Err("not yet") }
    })
    .await;
    let before = scene.noted(&[INSIDE], B);
    // Until its organisation revokes it in the channel: then it speaks for nobody there any more, whomever it names.
    let act = Command::RevokeCertificate { credential: certificate.key_hash().unwrap() };
    Consortium::of(&scene.cluster).act(scene.channel, B, &act).await.unwrap();
    eventually("it is refused", async || {
        let seen = call(&router, "/seamark.v1.Node/Read", read.clone().into()).await.unwrap().unwrap();
        let refusal = v1::QueryReply::decode(seen).unwrap().refusal.ok_or("it is answered")?;
        assert!(refusal.code == "access_denied" && refusal.detail.contains("revoked"), "{refusal:?}");
        Ok::<_, &str>(())
    })
    .await;
    scene.is_noted("a revoked router", &[INSIDE], B, before + 1).await;
    let batch = v1::IngestBatch {
        group: scene.channel.0,
        txs: vec![Bytes::from(scene.transaction().encode())],
        notify_applied: true,
        caller: Some(scene.pretence()),
    };
    let leader = scene.cluster.leader(scene.channel).await;
    let (door, before) = (scene.back_door(leader, &certificate), scene.noted(&[leader], B));
    let answer = call(&door, "/seamark.v1.Node/Ingest", batch.encode_to_vec().into()).await.unwrap().unwrap();
    let event = v1::SubmitEvents::decode(answer).unwrap().events.remove(0).event;
    assert!(
        matches!(&event, Some(v1::submit_event::Event::Refusal(refusal)) if refusal.code == "access_denied"),
        "{event:?}"
    );
    scene.is_noted("a revoked router", &[leader], B, before + 1).await;
    // Another one of the same organisation speaks for all.
    let other = scene.cluster.authority("org-b").issue(&subject).unwrap().identity();
    let seen = call(&scene.back_door(INSIDE, &other), "/seamark.v1.Node/Read", read.into()).await.unwrap().unwrap();
    assert!(v1::QueryReply::decode(seen).unwrap().found);
}

/// An auditor of a member reads and does nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn auditors_read_and_do_nothing_else() {
    let scene = Scene::set(&HOSTED_BY, &[A, B]).await;
    let auditor = scene.door(INSIDE, &scene.issue("org-a", Subject::auditor));
    let ask = scene.question("block").encode_to_vec();
    let seen = call(&auditor, "/seamark.v1.Router/Query", ask.into()).await.unwrap().unwrap();
    assert!(seen.windows(32).any(|part| part == scene.txid.0.0));
    let (nodes, before) = (scene.cluster.node_ids(), scene.noted(&scene.cluster.node_ids(), A));
    for (method, message) in [
        ("Submit", {
            let txs = vec![Bytes::from(scene.transaction().encode())];
            v1::SubmitBatch { txs, ..v1::SubmitBatch::default() }.encode_to_vec()
        }),
        ("Command", {
            let (command, group) = (scene.command(), scene.channel.0);
            v1::CommandRequest { command, group, caller: None }.encode_to_vec()
        }),
    ] {
        let denied = call(&auditor, &format!("/seamark.v1.Router/{method}"), message.into()).await.unwrap_err();
        assert_eq!(denied.code(), tonic::Code::PermissionDenied, "{method}");
    }
    scene.is_noted("an auditor at a router", &nodes, A, before + 2).await;
    // A router of the member that lets its auditor through all the same: whoever leads the channel denies it.
    let router = scene.router_of("org-a");
    let before = scene.noted(&HOSTS, A);
    let doors = HOSTS.map(|node| scene.back_door(node, &router));
    let (group, credential) = (scene.channel.0, Bytes::copy_from_slice(&[7; 32]));
    let caller = Some(v1::Caller { org: A.0.into(), role: "auditor".to_owned(), credential });
    let txs = vec![Bytes::from(scene.transaction().encode())];
    let ingest = v1::IngestBatch { group, txs, notify_applied: true, caller: caller.clone() }.encode_to_vec();
    let command = v1::CommandRequest { command: scene.command(), group, caller }.encode_to_vec();
    for (method, message) in [("Ingest", Bytes::from(ingest)), ("Command", Bytes::from(command))] {
        let refusal = eventually("a leader is asked", async || {
            for door in &doors {
                let answer = call(door, &format!("/seamark.v1.Node/{method}"), message.clone()).await;
                let refusal = refusal_in(method, answer.unwrap().expect(method));
                if refusal.code != "not_leader" {
                    return Ok(refusal);
                }
            }
            Err("nobody of them leads")
        })
        .await;
        assert_eq!(refusal.code, "channel_refused", "{method}: {refusal:?}");
        assert!(refusal.detail.contains("channel_auditor_reads_only"), "{method}: {refusal:?}");
    }
    scene.is_noted("an auditor behind a router", &HOSTS, A, before + 2).await;
    assert_eq!(balance(&Scene::member(&scene.cluster), &scene, scene.payee.address).await, 77);
}

/// Why a node refuses a transaction or a command.
fn refusal_in(method: &str, answer: Bytes) -> v1::Refusal {
    match method {
        "Ingest" => {
            let event = v1::SubmitEvents::decode(answer).unwrap().events.remove(0).event;
            let Some(v1::submit_event::Event::Refusal(refusal)) = event else { panic!("{event:?}") };
            refusal
        }
        "Command" => v1::CommandReply::decode(answer).unwrap().refusal.expect("it is refused"),
        other => panic!("{other}"),
    }
}
