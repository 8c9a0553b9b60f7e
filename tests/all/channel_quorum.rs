//! A channel that has lost its quorum says so, by codes that programs know, and goes on when it has one again. Nothing is lost.

use std::time::Duration;

use bytes::Bytes;
use channel::{Change, Command};
use client::{ClientError, Consistency, Wait, net};
use ledger::{LedgerId, OrgId, TimeMs};
use prost::Message;
use proto::v1;

use crate::excluded_voter::Scene;
use crate::support::bank::now_ms;
use crate::support::consortium::Consortium;
use crate::support::rpc::call;

/// What somebody is told of a group that nobody can decide for. Each of them may be asked again.
const CODES: [&str; 5] = ["not_leader", "unanswered", "timeout", "busy", "unreachable"];
/// How long a client goes on asking: longer than a router asks the nodes of a group, so that it hears what that has found.
const PATIENCE: Duration = Duration::from_secs(8);

fn said(what: &str, error: &ClientError) {
    assert!(CODES.contains(&error.code()), "{what}: {}: {error}", error.code());
}

/// What a router says that has found out why.
fn names_the_quorum(what: &str, text: &str) {
    assert!(text.contains("no quorum: 2 of the 4 nodes of channel-0 answer, and 3 have to"), "{what}: {text}");
}

/// A question to a router itself, which asks the nodes of the channel for as long as it does: a client may have given up.
async fn told_by_the_router(scene: &Scene) -> v1::Refusal {
    let (cluster, node) = (&scene.cluster, scene.stay[0]);
    let identity = cluster.profile().identity().unwrap();
    let name = net::node_server_name(node);
    let door = net::connect(&cluster.info(node).client_addr, &identity, &cluster.roots(), &name).unwrap();
    let (group, address) = (scene.channel.0, Bytes::copy_from_slice(&scene.payee.address.0));
    let query = Some(v1::query_request::Query::Account(v1::AccountQuery { address, group }));
    let request = v1::QueryRequest { query, ..v1::QueryRequest::default() }.encode_to_vec();
    let answer = call(&door, "/seamark.v1.Router/Query", request.into()).await.unwrap().expect("an answer");
    v1::QueryReply::decode(answer).unwrap().refusal.expect("nobody can answer for the channel")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_without_a_quorum_says_so_and_loses_nothing() {
    let mut scene = Scene::set().await;
    scene.pay(1).await;
    // Two of four: the nodes of two organisations.
    let down = [scene.stay[2], scene.goes];
    for node in down {
        scene.cluster.stop_node(node).await;
    }
    let (ledger, payee) = (LedgerId::of_channel(scene.channel), scene.payee.address);
    let client = scene.member().with_patience(PATIENCE);
    let read = client.account_of(ledger, payee, Consistency::Linearizable, false).await;
    let unread = read.map(drop).expect_err("nobody can answer for the channel");
    said("a read", &unread);
    // Where the client has heard of it in time, it hands that on.
    if unread.code() != "unreachable" {
        names_the_quorum("a read", &unread.to_string());
    }
    names_the_quorum("the router", &told_by_the_router(&scene).await.detail);
    let stale = client.account_of(ledger, payee, Consistency::Stale, false).await.expect("what is known is shown");
    assert!(stale.value.is_some());
    let pay = scene.bank.pay(&scene.payer, payee, 1);
    let paid = client.execute(vec![(ledger, pay)], b"", &[&scene.payer.key], Wait::Receipt).await;
    let unsettled = paid.expect_err("nobody can order it");
    said("a payment", &unsettled);
    let ClientError::Unsettled { tx, .. } = unsettled else { panic!("its bytes are given back: {unsettled}") };
    let consortium = Consortium::of(&scene.cluster);
    let admin = consortium.client(OrgId(1)).with_patience(PATIENCE);
    let (id, until) = (scene.cluster.genesis.cluster_id(), TimeMs(now_ms() + 60_000));
    let freeze = Command::Propose { change: Change::Freeze, until_ms: until };
    let key = consortium.key(OrgId(1));
    let signed = channel::SignedCommand::sign(&id, scene.channel, OrgId(1), &freeze, [200; 16], until, &key).encode();
    let proposed = admin.channel_command(scene.channel, signed.clone()).await;
    said("a command", &proposed.map(drop).expect_err("nobody can order it"));
    drop((consortium, admin));

    for node in down {
        scene.cluster.start_node(node).await;
    }
    // The same bytes again: whether they were in somebody's log or not, they count once.
    let settled = scene.member().settle(tx, Wait::Receipt).await.expect("the channel orders again");
    assert!(settled.committed(), "{settled:?}");
    let told = Consortium::of(&scene.cluster).client(OrgId(1)).channel_command(scene.channel, signed).await;
    assert!(matches!(told.expect("it is proposed").outcome, channel::Outcome::Proposal { .. }));
    scene.pay(1).await;
    assert_eq!(scene.paid().await, 3);
    assert_eq!(scene.has(&scene.payer).await, 1_000 - 3);
}
