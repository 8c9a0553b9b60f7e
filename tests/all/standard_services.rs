//! What common gRPC tools find at the client port: reflection and health, at a node and at a router
//! of its own, and for nobody without a certificate.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use client::net;
use futures::StreamExt;
use ledger::NodeId;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use seamark_cli::setup::{Authority, Subject};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::cluster::{TestCluster, Wanted, base_port};
use crate::support::in_time;
use crate::support::program::program;

const ROUTER: &str = "seamark.v1.Router";
const NODE: NodeId = NodeId(1);

async fn reflect(channel: &Channel, what: MessageRequest) -> MessageResponse {
    let mut client = ServerReflectionClient::new(channel.clone());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(what) };
    let asked = async {
        let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    };
    in_time("an answer of reflection", asked).await
}

/// What `grpcurl list` and `grpcurl describe` do.
async fn describes_itself(channel: &Channel) {
    let listed = match reflect(channel, MessageRequest::ListServices(String::new())).await {
        MessageResponse::ListServicesResponse(list) => list.service.into_iter().map(|service| service.name),
        other => panic!("{other:?}"),
    };
    let listed: Vec<String> = listed.collect();
    let both = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    assert_eq!(listed, [&[ROUTER, "grpc.health.v1.Health"], &both[..]].concat());
    for service in listed {
        let files = match reflect(channel, MessageRequest::FileContainingSymbol(service.clone())).await {
            MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto,
            other => panic!("{service}: {other:?}"),
        };
        let methods = files
            .iter()
            .map(|file| prost_types::FileDescriptorProto::decode(&file[..]).unwrap())
            .flat_map(|file| {
                let package = file.package().to_owned();
                file.service.into_iter().map(move |found| (format!("{package}.{}", found.name()), found.method.len()))
            })
            .find(|(name, _)| *name == service);
        assert!(methods.is_some_and(|(_, count)| count > 0), "{service} is listed and not described");
    }
}

async fn health(channel: &Channel, service: &str) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut client = HealthClient::new(channel.clone());
    let answer = in_time("an answer of health", client.check(request)).await?;
    Ok(answer.into_inner().status())
}

async fn is_serving(channel: &Channel) {
    assert_eq!(health(channel, ROUTER).await.unwrap(), ServingStatus::Serving);
    assert_eq!(health(channel, "").await.unwrap(), ServingStatus::Serving);
    assert_eq!(health(channel, "seamark.v1.Node").await.unwrap_err().code(), Code::NotFound);
}

/// Watches the router's health; resolves with everything that was said when the stream ends.
async fn watch(channel: &Channel) -> impl Future<Output = Vec<ServingStatus>> + use<> {
    let request = HealthCheckRequest { service: ROUTER.to_owned() };
    let mut client = HealthClient::new(channel.clone());
    let mut said = in_time("a watch", client.watch(request)).await.unwrap().into_inner();
    let first = in_time("the first status", said.next()).await.unwrap().unwrap().status();
    async move {
        let mut all = vec![first];
        while let Some(Ok(next)) = said.next().await {
            all.push(next.status());
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_describes_its_client_port_and_says_when_it_leaves() {
    let mut cluster = TestCluster::start(Wanted { nodes: 1, shards: 1, replicas: 1, ..Wanted::default() }).await;
    let (roots, name) = (cluster.roots(), net::node_server_name(NODE));
    let (client_addr, peer_addr) = (cluster.info(NODE).client_addr.clone(), cluster.info(NODE).peer_addr.clone());
    let identity = cluster.profile().identity().unwrap();
    let channel = net::connect(&client_addr, &identity, &roots, &name).unwrap();
    describes_itself(&channel).await;
    is_serving(&channel).await;

    let stranger = Authority::make("org-a").unwrap().issue(&Subject::client("client", "org-a")).unwrap().identity();
    let closed = net::connect(&client_addr, &stranger, &roots, &name).unwrap();
    let error = health(&closed, ROUTER).await.unwrap_err();
    assert!(std::error::Error::source(&error).is_some(), "the handshake must fail: {error:?}");
    let between_nodes = net::connect(&peer_addr, &cluster.node_identity(NODE), &roots, &name).unwrap();
    assert_eq!(health(&between_nodes, ROUTER).await.unwrap_err().code(), Code::Unimplemented);

    let said = watch(&channel).await;
    cluster.stop_node(NODE).await;
    let said = in_time("the end of the watch", said).await;
    assert_eq!(said, [ServingStatus::Serving, ServingStatus::NotServing]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_of_its_own_does_the_same_and_ends_although_somebody_watches() {
    let cluster = TestCluster::start(Wanted { nodes: 1, shards: 1, replicas: 1, ..Wanted::default() }).await;
    let addr = format!("127.0.0.1:{}", base_port(1));
    let mut process = Command::new(program())
        .args(["router", "--json", "--listen", &addr, "--dir"])
        .arg(cluster.dir.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.contains(&addr), "{ready}");

    let identity = cluster.profile().identity().unwrap();
    let name = format!("router-{}.seamark", addr.rsplit(':').next().unwrap());
    let channel = net::connect(&addr, &identity, &cluster.roots(), &name).unwrap();
    describes_itself(&channel).await;
    is_serving(&channel).await;
    let said = watch(&channel).await;
    kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
    let said = in_time("the end of the watch", said).await;
    assert_eq!(said, [ServingStatus::Serving, ServingStatus::NotServing]);
    let ended = tokio::task::spawn_blocking(move || process.wait());
    assert!(in_time("the router ends", ended).await.unwrap().unwrap().success());
}
