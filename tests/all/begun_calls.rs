//! A node that begins calls to another one and ends none of them: beyond what a caller may have begun it is refused, and
//! everybody else is served.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use client::{Wait, net};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body::{Body, Frame};
use ledger::NodeId;
use ledger::limits::{GRPC_BYTES_MAX, PEER_BEGUN_BYTES_MAX, PEER_CONNECTIONS_MAX};
use tonic::codegen::{Service, http};
use tonic::transport::Channel;

use crate::support::bank::{Bank, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::rpc::call;
use crate::support::{eventually, in_time};

const VICTIM: NodeId = NodeId(1);
const FLOODER: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const CLOCK: &str = "/seamark.v1.Node/Clock";

/// The beginning of a message, and never the rest of it.
struct Unended(Option<Bytes>);

impl Body for Unended {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
    }
}

/// A connection to the victim with the certificate of a node.
fn door(cluster: &TestCluster, node: NodeId) -> Channel {
    let (addr, name) = (&cluster.info(VICTIM).peer_addr, net::node_server_name(VICTIM));
    net::connect(addr, &cluster.node_identity(node), &cluster.roots(), &name).unwrap()
}

/// Begins a call with the largest message that there may be, and waits for what the node says to that: the status and its
/// text.
async fn begin(mut channel: Channel) -> (String, String) {
    let length = u32::try_from(GRPC_BYTES_MAX).unwrap();
    let prefix = [&[0][..], &length.to_be_bytes()].concat();
    let request = http::Request::builder()
        .method(http::Method::POST)
        .version(http::Version::HTTP_2)
        .uri("/seamark.v1.Node/Raft")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Unended(Some(prefix.into()))))
        .unwrap();
    poll_fn(|context| Service::<http::Request<tonic::body::Body>>::poll_ready(&mut channel, context)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    let header = |name: &str| {
        let value = response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        value.unwrap_or_default()
    };
    (header("grpc-status"), header("grpc-message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_begins_calls_and_ends_none_is_refused_and_others_are_served() {
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let bank = Bank::open(&cluster.client_of(OTHER)).await;
    let wallets = wallets_in_each_shard(&cluster.genesis.layout, "home", 2).remove(0);
    bank.fund(&wallets, 1_000).await;
    let flooding = door(&cluster, FLOODER);
    let most = PEER_BEGUN_BYTES_MAX / GRPC_BYTES_MAX;
    let mut calls: FuturesUnordered<_> = (0..=most).map(|_| begin(flooding.clone())).collect();
    let (status, text) = in_time("one is refused", calls.next()).await.unwrap();
    assert_eq!(status, (tonic::Code::ResourceExhausted as i32).to_string(), "{text}");
    assert!(text.starts_with("peer_begun_bytes"), "{text}");
    // Those that have begun stay open, and others are served meanwhile.
    in_time("another node's call", call(&door(&cluster, OTHER), CLOCK, Bytes::new())).await.unwrap();
    let paid = bank.client.pay(&wallets[0].key, wallets[1].address, bank.asset, 1, Wait::Receipt);
    in_time("a payment", paid).await.unwrap();
    assert_eq!(calls.len(), most);
    // What is given up is given back.
    drop(calls);
    cluster.wait_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_so_many_connections_and_gets_in_again_when_some_have_ended() {
    let cluster = TestCluster::start(Wanted { shards: 1, ..Wanted::default() }).await;
    let doors: Vec<Channel> = (0..PEER_CONNECTIONS_MAX).map(|_| door(&cluster, FLOODER)).collect();
    let mut answered = 0;
    for door in &doors {
        answered += usize::from(in_time("an answer", call(door, CLOCK, Bytes::new())).await.is_ok());
    }
    // The node itself has one, too.
    assert!(answered > 0 && answered < PEER_CONNECTIONS_MAX, "{answered}");
    in_time("another node's call", call(&door(&cluster, OTHER), CLOCK, Bytes::new())).await.unwrap();
    drop(doors);
    let again = door(&cluster, FLOODER);
    eventually("it gets in again", async || call(&again, CLOCK, Bytes::new()).await.map_err(|error| error.to_string()))
        .await;
    cluster.wait_settled().await;
}
