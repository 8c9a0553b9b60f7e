//! Routers that refuse because of whose they are: the others of the profile are asked, also those that cannot be
//! reached yet, and the refusal is told once every router has refused.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use client::net;
use client::{Client, ClientError, Consistency, PreparedTx, Wait};
use futures::{Stream, StreamExt};
use ledger::{Address, ClusterId, GroupId, Reject};
use proto::v1::router_server::{Router, RouterServer};
use proto::{edge, v1};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::soon;
use super::support::{Cluster, calm};

/// Connections that are hung up on before a router is up.
const HUNG_UP: usize = 3;

/// A router of an organisation that takes no part in what it is asked about.
#[derive(Clone)]
struct Outsider {
    cluster: ClusterId,
    asked: Arc<AtomicUsize>,
}

fn refusal() -> v1::Refusal {
    v1::Refusal::of(Reject::AccessDenied).detail("use a member's router")
}

#[tonic::async_trait]
impl Router for Outsider {
    type SubmitStream = Pin<Box<dyn Stream<Item = Result<v1::SubmitEvents, Status>> + Send>>;

    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitBatch>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let outsider = self.clone();
        let refuse = move |bytes: &Bytes| {
            outsider.asked.fetch_add(1, Ordering::Relaxed);
            let txid = PreparedTx::from_bytes(&outsider.cluster, bytes.clone()).unwrap().txid;
            v1::SubmitEvent::refused(edge::bytes_of(&txid), refusal()).by(GroupId::channel(0))
        };
        let events = request.into_inner().map(move |batch| {
            let events = batch?.txs.iter().map(&refuse).collect();
            Ok::<_, Status>(v1::SubmitEvents { events })
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn query(&self, _: Request<v1::QueryRequest>) -> Result<Response<v1::QueryReply>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(v1::QueryReply { group: GroupId::channel(0).0, ..v1::QueryReply::refused(refusal()) }))
    }

    async fn cluster(&self, _: Request<v1::ClusterRequest>) -> Result<Response<v1::ClusterReply>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn command(&self, _: Request<v1::CommandRequest>) -> Result<Response<v1::CommandReply>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }
}

/// An outsider's router that runs.
struct Running {
    addr: String,
    asked: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

async fn outsider(cluster: &Cluster) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let service = RouterServer::new(Outsider { cluster: cluster.cluster_id(), asked: Arc::clone(&asked) });
    let identity = cluster.ca.identity("router-1", "router");
    let server = net::server(&identity, &cluster.ca.roots()).unwrap().add_service(service);
    let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
    let task = AbortOnDropHandle::new(tokio::spawn(async move { serving.await.unwrap() }));
    Running { addr, asked, _task: task }
}

/// Hangs up on whoever connects, a few times, while the call goes on.
async fn hang_up<T: std::fmt::Debug>(listener: &TcpListener, call: &mut JoinHandle<T>) {
    for _ in 0..HUNG_UP {
        tokio::select! {
            ended = &mut *call => panic!("it is not over while a router was not reached: {ended:?}"),
            accepted = soon(listener.accept()) => drop(accepted.unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_cannot_be_reached_has_not_refused() {
    let cluster = Cluster::start().await;
    let outside = outsider(&cluster).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let client = Client::lazy(&cluster.profile(&[&outside.addr, &addr])).unwrap();
    let client = client.with_patience(super::support::NEVER);
    let tx = Bytes::from(cluster.payment(1).encode());
    let mut paying = tokio::spawn({
        let client = client.clone();
        async move { client.settle(tx, Wait::Receipt).await }
    });
    hang_up(&listener, &mut paying).await;
    let _router = cluster.router_on(listener, calm());
    let settled = soon(paying).await.unwrap().unwrap();
    assert!(settled.committed());
    assert_eq!(cluster.world.executed.lock()[&settled.txid()], 1);
    assert_eq!(outside.asked.load(Ordering::Relaxed), 1, "it is known to refuse");

    // A question in the same way.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let client = Client::lazy(&cluster.profile(&[&outside.addr, &addr])).unwrap();
    let client = client.with_patience(super::support::NEVER);
    let mut asking =
        tokio::spawn(async move { client.account(Address([1; 20]), Consistency::Linearizable, false).await });
    hang_up(&listener, &mut asking).await;
    let _router = cluster.router_on(listener, calm());
    assert!(soon(asking).await.unwrap().unwrap().value.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_router_refuses_is_refused() {
    let cluster = Cluster::start().await;
    let outside = [outsider(&cluster).await, outsider(&cluster).await];
    let client = Client::lazy(&cluster.profile(&[&outside[0].addr, &outside[1].addr])).unwrap();
    let client = client.with_patience(super::support::NEVER);
    let tx = Bytes::from(cluster.payment(1).encode());
    let error = soon(client.settle(tx, Wait::Receipt)).await.unwrap_err();
    assert!(matches!(&error, ClientError::Unsettled { .. }) && error.code() == "access_denied", "{error:?}");
    let asked = || outside.each_ref().map(|router| router.asked.load(Ordering::Relaxed));
    assert_eq!(asked(), [1, 1]);
    let read = client.account(Address([1; 20]), Consistency::Linearizable, false);
    assert_eq!(soon(read).await.unwrap_err().code(), "access_denied");
    assert_eq!(asked(), [2, 2]);
}
