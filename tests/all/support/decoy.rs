//! A node's port for other nodes, with its certificate and nothing behind it: what somebody has who got hold of a
//! node's key, and none of its memory.
//!
//! Keeps what other nodes tell it of their own accord or because it was asked for, and answers no call.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use client::net;
use futures::Stream;
use ledger::limits::GRPC_BYTES_MAX;
use ledger::{GroupId, Hash32, NodeId};
use parking_lot::Mutex;
use proto::v1;
use proto::v1::node_server::{Node, NodeServer};
use shard_node::core::peer::PeerMessage;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::cluster::TestCluster;

/// A message to the replica of a group that the node would have.
#[derive(Clone, Debug)]
pub struct Heard {
    pub from: NodeId,
    pub group: GroupId,
    /// As it came.
    pub payload: bytes::Bytes,
}

impl Heard {
    pub fn message(&self) -> PeerMessage {
        borsh::from_slice(&self.payload).unwrap()
    }
}

/// What listens in a node's place until this is dropped.
pub struct Decoy {
    heard: Arc<Mutex<Vec<Heard>>>,
    _serving: JoinSet<()>,
}

impl Decoy {
    /// Stops a node of a cluster and takes its place.
    pub async fn instead_of(node: NodeId, cluster: &mut TestCluster) -> Self {
        cluster.stop_node(node).await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let nodes = cluster.genesis.nodes.iter().map(|info| (info.tls_key_hash, info.id)).collect();
        let port = Port { nodes, heard: Arc::clone(&heard) };
        let listener = TcpListener::bind(&cluster.info(node).peer_addr).await.unwrap();
        let service = NodeServer::new(port).max_decoding_message_size(GRPC_BYTES_MAX);
        let server = net::server(&cluster.node_identity(node), &cluster.roots()).unwrap().add_service(service);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { heard, _serving: serving }
    }

    /// How much was heard so far.
    pub fn count(&self) -> usize {
        self.heard.lock().len()
    }

    /// What was heard behind the first so many.
    pub fn since(&self, count: usize) -> Vec<Heard> {
        self.heard.lock()[count..].to_vec()
    }
}

struct Port {
    /// By the key of their certificates.
    nodes: BTreeMap<Hash32, NodeId>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

fn nobody<T>() -> Result<Response<T>, Status> {
    Err(Status::unavailable("nobody is there"))
}

#[tonic::async_trait]
impl Node for Port {
    type IngestStream = Pin<Box<dyn Stream<Item = Result<v1::SubmitEvents, Status>> + Send>>;
    type FollowStream = Pin<Box<dyn Stream<Item = Result<v1::FollowReply, Status>> + Send>>;

    async fn link(&self, request: Request<Streaming<v1::LinkBatch>>) -> Result<Response<v1::LinkEnd>, Status> {
        let from = net::peer_key_hash(&request).and_then(|hash| self.nodes.get(&hash)).copied();
        let from = from.ok_or_else(|| Status::permission_denied("the caller is no node"))?;
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            let frames = batch.frames.into_iter();
            let heard = frames.map(|frame| Heard { from, group: GroupId(frame.group), payload: frame.payload });
            self.heard.lock().extend(heard);
        }
        Ok(Response::new(v1::LinkEnd {}))
    }

    async fn raft(&self, _: Request<v1::RaftRequest>) -> Result<Response<v1::RaftReply>, Status> {
        nobody()
    }

    async fn ingest(&self, _: Request<Streaming<v1::IngestBatch>>) -> Result<Response<Self::IngestStream>, Status> {
        nobody()
    }

    async fn read(&self, _: Request<v1::ReadRequest>) -> Result<Response<v1::QueryReply>, Status> {
        nobody()
    }

    async fn clock(&self, _: Request<v1::ClockRequest>) -> Result<Response<v1::ClockReply>, Status> {
        nobody()
    }

    async fn follow(&self, _: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        nobody()
    }

    async fn node_status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::NodeStatusReply>, Status> {
        nobody()
    }

    async fn command(&self, _: Request<v1::CommandRequest>) -> Result<Response<v1::CommandReply>, Status> {
        nobody()
    }
}
