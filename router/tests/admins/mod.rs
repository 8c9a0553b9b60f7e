//! A router that lies about the organisations' admin keys: the client hands out none that the beacon's certified state does not
//! prove, nor one of an earlier time.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use beacon::RegistryProof;
use client::admins::ADMINS_FORMAT;
use client::net;
use client::{AdminsProof, Client};
use futures::Stream;
use ledger::{GroupId, Height, SecretKey, TimeMs};
use parking_lot::Mutex;
use proto::v1;
use proto::v1::query_request::Query;
use proto::v1::router_server::{Router, RouterServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::soon;
use super::support::Cluster;

/// A router that says what it was told to.
#[derive(Clone)]
struct Liar {
    says: Arc<Mutex<AdminsProof>>,
}

#[tonic::async_trait]
impl Router for Liar {
    type SubmitStream = Pin<Box<dyn Stream<Item = Result<v1::SubmitEvents, Status>> + Send>>;

    async fn submit(&self, _: Request<Streaming<v1::SubmitBatch>>) -> Result<Response<Self::SubmitStream>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn query(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryReply>, Status> {
        let Some(Query::Admins(_)) = request.into_inner().query else {
            return Err(Status::unimplemented("not part of this test"));
        };
        let said = self.says.lock().clone();
        Ok(Response::new(v1::QueryReply {
            group: GroupId::BEACON.0,
            height: said.certificate.header.height.0,
            found: true,
            values: vec![borsh::to_vec(&said).unwrap().into()],
            ..v1::QueryReply::default()
        }))
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

/// What the beacon says at a block of this time, with one organisation's key as it is in the genesis.
fn truth(cluster: &Cluster, height: u64, time_ms: u64) -> AdminsProof {
    let shown = cluster.registry(&[1, 2], |registry| registry.revision = 2);
    let RegistryProof { registry, path, mut certificate, .. } = RegistryProof::decode(&shown).unwrap();
    certificate.header.height = Height(height);
    certificate.header.time_ms = TimeMs(time_ms);
    let digest = certificate.header.hash();
    for (node, signature) in &mut certificate.signatures {
        *signature = SecretKey::derive(b"node", &node.0.to_le_bytes()).sign(&digest);
    }
    AdminsProof {
        version: ADMINS_FORMAT,
        registry: Some(registry),
        path,
        certificate,
        committee: cluster.beacon(),
        handovers: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_hands_out_no_admin_key_that_a_router_makes_up() {
    let cluster = Cluster::start().await;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = u64::try_from(since.as_millis()).unwrap();
    let liar = Liar { says: Arc::new(Mutex::new(truth(&cluster, 10, now))) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let identity = cluster.ca.identity("router-1", "router");
    let server = net::server(&identity, &cluster.ca.roots()).unwrap().add_service(RouterServer::new(liar.clone()));
    let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
    let _task = AbortOnDropHandle::new(tokio::spawn(async move { serving.await.unwrap() }));
    let client = Client::lazy(&cluster.profile(&[&addr])).unwrap();

    let org = cluster.genesis.orgs[0].clone();
    let known = soon(client.admins()).await.unwrap();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [(org.id, org.admin_key)]);

    let mut own_key = truth(&cluster, 11, now);
    let mut registry: beacon::ClusterView = borsh::from_slice(own_key.registry.as_ref().unwrap()).unwrap();
    registry.orgs[0].admin_key = SecretKey::derive(b"the router's own", b"").public();
    own_key.registry = Some(registry.encode());
    let unchanged = AdminsProof { registry: None, ..truth(&cluster, 11, now) };
    // A day before and a day ahead, far beyond both bounds, however long the test takes.
    let day = 24 * 60 * 60 * 1_000;
    for (lie, code) in [
        (own_key, "admins_not_in_state"),
        (unchanged, "admins_not_in_state"),
        (truth(&cluster, 9, now), "admins_older"),
        (truth(&cluster, 11, now - day), "admins_stale"),
        (truth(&cluster, 11, now + day), "admins_ahead"),
    ] {
        *liar.says.lock() = lie;
        assert_eq!(soon(client.admins()).await.unwrap_err().code(), code);
    }
    // What was not believed counts for nothing, so what was true still is.
    *liar.says.lock() = truth(&cluster, 10, now);
    assert!(soon(client.admins()).await.is_ok());
}
