//! What the registry has revoked opens no door any more, and closes those that it had opened.

use beacon::BeaconCommand;
use bytes::Bytes;
use client::net;
use client::{Client, Identity, Wait};
use ledger::{Hash32, NodeId, OrgId, SignedTx, TimeMs};
use proto::v1;
use seamark_cli::setup::Subject;
use tonic::Status;
use tonic::transport::Channel;

use crate::support::bank::{Bank, body, now_ms, wallet};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::rpc::call;
use crate::support::{eventually, in_time};

const A: OrgId = OrgId(1);
const C: OrgId = OrgId(3);
const FIRST: NodeId = NodeId(1);
/// Organisation C's only node.
const LATE: NodeId = NodeId(3);

fn client_door(cluster: &TestCluster, node: NodeId, identity: &Identity) -> Channel {
    let addr = &cluster.info(node).client_addr;
    net::connect(addr, identity, &cluster.roots(), &net::node_server_name(node)).unwrap()
}

fn peer_door(cluster: &TestCluster, node: NodeId, identity: &Identity) -> Channel {
    let addr = &cluster.info(node).peer_addr;
    net::connect(addr, identity, &cluster.roots(), &net::node_server_name(node)).unwrap()
}

async fn answers(door: &Channel, method: &str) {
    call(door, method, Bytes::new()).await.unwrap_or_else(|status| panic!("{method}: {status:?}"));
}

/// Waits until a door does not let the caller in any more, and says why.
async fn refuses(door: &Channel, method: &str) {
    eventually("the certificate is refused", async || match call(door, method, Bytes::new()).await {
        Ok(_) => Err("it is answered".to_owned()),
        Err(status) if cause(&status).contains("CertificateRevoked") => Ok(()),
        Err(status) => Err(format!("{status:?}")),
    })
    .await;
}

/// The innermost cause.
fn cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

/// Has the beacon execute a command of an organisation, over the first node's router.
async fn command(cluster: &TestCluster, org: OrgId, salt: u8, command: &BeaconCommand) -> Result<(), String> {
    let consortium = Consortium::of(cluster);
    let (id, until) = (cluster.genesis.cluster_id(), TimeMs(now_ms() + 60_000));
    let signed = beacon::SignedCommand::sign(&id, command, org, [salt; 16], until, &consortium.key(org));
    let client = consortium.client_over(org, |node| node == FIRST);
    client.command(signed.encode()).await.map(drop).map_err(|error| error.code().to_owned())
}

fn revoke(identity: &Identity) -> BeaconCommand {
    BeaconCommand::RevokeCredential { credential: identity.key_hash().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_opens_no_door_and_closes_those_that_it_opened() {
    const CLUSTER: &str = "/seamark.v1.Router/Cluster";
    const STATUS: &str = "/seamark.v1.Node/NodeStatus";
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let bank = Bank::open(&cluster.client()).await;
    let alice = wallet("alice", 0);
    bank.fund([&alice], 100).await;
    let issue = |org: &str, subject: Subject| cluster.authority(org).issue(&subject).unwrap().identity();
    let stolen = issue("org-a", Subject::client("stolen", "org-a"));
    let lost = issue("org-a", Subject::router("lost", "org-a", vec!["127.0.0.1".to_owned()]));
    let other = issue("org-b", Subject::client("other", "org-b"));

    // Connections that stand, at both ports of every node, and a call on each that has not ended.
    let (mut clients, mut routers, mut others, mut streams) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for node in cluster.node_ids() {
        clients.push(client_door(&cluster, node, &stolen));
        routers.push(peer_door(&cluster, node, &lost));
        others.push(client_door(&cluster, node, &other));
        answers(clients.last().unwrap(), CLUSTER).await;
        answers(others.last().unwrap(), CLUSTER).await;
        let followed = net::node_client(routers.last().unwrap().clone()).follow(v1::FollowRequest::default()).await;
        let mut stream = followed.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
        streams.push(stream);
    }

    // What an organisation revokes of another one counts nowhere.
    command(&cluster, A, 1, &revoke(&other)).await.unwrap();
    command(&cluster, A, 2, &revoke(&stolen)).await.unwrap();
    command(&cluster, A, 3, &revoke(&lost)).await.unwrap();
    for stream in &mut streams {
        let ends = async { while let Ok(Some(_)) = stream.message().await {} };
        in_time("a call that has not ended is cut off", ends).await;
    }
    for door in &clients {
        refuses(door, CLUSTER).await;
    }
    for door in &routers {
        refuses(door, STATUS).await;
    }
    for door in &others {
        answers(door, CLUSTER).await;
    }

    // The SDK says so with a code, of a read and of a transaction.
    let mut profile = cluster.profile();
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("client.pem"), folder.path().join("client.key")];
    std::fs::write(&paths[0], &stolen.cert_pem).unwrap();
    std::fs::write(&paths[1], stolen.key_pem.as_bytes()).unwrap();
    [profile.cert, profile.key] = paths;
    let client = Client::lazy(&profile).unwrap().with_patience(10 * crate::support::DEADLINE);
    let error = in_time("a read is refused at once", client.status()).await.unwrap_err();
    assert_eq!(error.code(), "certificate_revoked", "{error}");
    let pay = bank.pay(&alice, wallet("bob", 0).address, 1);
    let tx = SignedTx::sign(&body(client.cluster_id(), 1, [pay]), &[&alice.key]).encode();
    let error = in_time("a transaction is refused at once", client.submit(tx)).await.unwrap_err();
    assert_eq!(error.code(), "access_denied", "{error}");
    assert!(error.to_string().contains("this client's certificate was revoked"), "{error}");

    // Nobody else is hindered.
    bank.client.pay(&alice.key, wallet("bob", 0).address, bank.asset, 1, Wait::Applied).await.unwrap();
    let status = cluster.status().await;
    assert_eq!((status.nodes.len(), status.unreachable.len()), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_that_a_node_had_opens_nothing_once_it_is_revoked() {
    const CLOCK: &str = "/seamark.v1.Node/Clock";
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let bank = Bank::open(&cluster.client()).await;
    let alice = wallet("alice", 0);
    bank.fund([&alice], 100).await;
    let old = cluster.node_identity(LATE);
    let doors = [FIRST, NodeId(2)].map(|node| peer_door(&cluster, node, &old));
    for door in &doors {
        answers(door, CLOCK).await;
    }
    assert_eq!(command(&cluster, C, 1, &revoke(&old)).await, Err("registry".to_owned()), "it is in use");
    let next = BeaconCommand::UpdateNodeTls { node: LATE, tls_key_hash: Hash32([9; 32]) };
    command(&cluster, C, 2, &next).await.unwrap();
    command(&cluster, C, 3, &revoke(&old)).await.unwrap();
    for door in &doors {
        refuses(door, CLOCK).await;
    }
    // The others go on without it, until it comes with the key that was announced.
    let routers = [FIRST, NodeId(2)];
    let client = Consortium::of(&cluster).client_over(A, |node| routers.contains(&node));
    let paid = client.pay(&alice.key, wallet("bob", 0).address, bank.asset, 1, Wait::Applied);
    in_time("a payment with two nodes of three", paid).await.unwrap();
}
