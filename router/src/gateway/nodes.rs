//! The backend over real nodes: one channel and one ingest link for each.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use client::net;
use hashbrown::HashMap;
use ledger::NodeId;
use parking_lot::Mutex;
use proto::v1;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::backend::{Backend, EventSink, IngestError, LocalNode};
use super::link::{self, LinkQueue};
use super::peers::Peers;
use super::view::ClusterView;

const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// A command is sequenced before it is answered.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Reaches nodes over mutual TLS, and the one in this process directly.
pub struct NodeBackend {
    peers: Arc<Peers>,
    local: Option<Arc<dyn LocalNode>>,
    sink: OnceLock<Weak<dyn EventSink>>,
    links: Mutex<HashMap<NodeId, Link>>,
}

struct Link {
    queue: Arc<LinkQueue>,
    _task: AbortOnDropHandle<()>,
}

impl NodeBackend {
    /// A backend over these channels; `local` is the node this router is embedded in.
    #[must_use]
    pub fn new(peers: Arc<Peers>, local: Option<Arc<dyn LocalNode>>) -> Arc<Self> {
        Arc::new(Self { peers, local, sink: OnceLock::new(), links: Mutex::new(HashMap::new()) })
    }

    /// The channels.
    #[must_use]
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    fn local(&self, node: NodeId) -> Option<&Arc<dyn LocalNode>> {
        self.local.as_ref().filter(|local| local.id() == node)
    }

    fn link(&self, node: NodeId) -> Result<Arc<LinkQueue>, IngestError> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(&node) {
            return Ok(link.queue.clone());
        }
        let sink = self.sink.get().cloned().ok_or(IngestError::Down)?;
        let queue = Arc::new(LinkQueue::new());
        let task = match self.local(node) {
            Some(local) => tokio::spawn(link::run_local(local.clone(), queue.clone(), sink)),
            None if !self.peers.view().borrow().nodes.contains_key(&node) => {
                return Err(IngestError::Down);
            }
            None => tokio::spawn(link::run(node, queue.clone(), self.peers.clone(), sink)),
        };
        links.insert(node, Link { queue: queue.clone(), _task: AbortOnDropHandle::new(task) });
        Ok(queue)
    }
}

#[async_trait]
impl Backend for NodeBackend {
    fn cluster(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.peers.view()
    }

    fn attach(&self, sink: Weak<dyn EventSink>) {
        // A second gateway over the same backend would get no answers; the first one stays.
        let _ = self.sink.set(sink);
    }

    fn ingest(&self, node: NodeId, batch: v1::IngestBatch) -> Result<(), IngestError> {
        self.link(node)?.push(batch)
    }

    async fn read(&self, node: NodeId, request: v1::ReadRequest) -> Result<v1::QueryReply, Status> {
        if let Some(local) = self.local(node) {
            return local.read(request).await;
        }
        let mut client = net::node_client(self.peers.channel(node)?);
        within(READ_TIMEOUT, client.read(request)).await
    }

    async fn command(&self, node: NodeId, request: v1::CommandRequest) -> Result<v1::CommandReply, Status> {
        if let Some(local) = self.local(node) {
            return local.command(request).await;
        }
        let mut client = net::node_client(self.peers.channel(node)?);
        within(COMMAND_TIMEOUT, client.command(request)).await
    }

    async fn node_status(&self, node: NodeId, request: v1::StatusRequest) -> Result<v1::NodeStatusReply, Status> {
        if let Some(local) = self.local(node) {
            return local.node_status(request).await;
        }
        let mut client = net::node_client(self.peers.channel(node)?);
        within(READ_TIMEOUT, client.node_status(request)).await
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the node did not answer in time")),
    }
}
