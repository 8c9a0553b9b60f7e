//! The ports of the gateway: what it needs from the nodes, and what they tell it.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use ledger::NodeId;
use proto::v1;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::view::ClusterView;

/// Why a batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestError {
    /// The node cannot be reached now, or there is no such node.
    Down,
    /// Too many transactions wait for the node.
    Full,
}

/// What the gateway asks of the nodes.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The cluster, always as new as this router knows it.
    fn cluster(&self) -> watch::Receiver<Arc<ClusterView>>;

    /// Says whom to tell. Called once, before the first batch.
    fn attach(&self, sink: Weak<dyn EventSink>);

    /// Queues a batch for a node, without waiting. What was taken is either answered through the
    /// sink or covered by [`EventSink::link_lost`].
    ///
    /// # Errors
    /// [`IngestError`]; nothing was queued then.
    fn ingest(&self, node: NodeId, batch: v1::IngestBatch) -> Result<(), IngestError>;

    /// Reads at a node.
    ///
    /// # Errors
    /// The status of a failed call.
    async fn read(&self, node: NodeId, request: v1::ReadRequest) -> Result<v1::QueryReply, Status>;

    /// Hands a command for the beacon to a node.
    ///
    /// # Errors
    /// The status of a failed call.
    async fn command(&self, node: NodeId, request: v1::CommandRequest) -> Result<v1::CommandReply, Status>;

    /// Asks a node how it is doing.
    ///
    /// # Errors
    /// The status of a failed call.
    async fn node_status(&self, node: NodeId, request: v1::StatusRequest) -> Result<v1::NodeStatusReply, Status>;
}

/// What nodes tell the gateway.
pub trait EventSink: Send + Sync + 'static {
    /// Fates of transactions.
    fn events(&self, node: NodeId, events: Vec<v1::SubmitEvent>);

    /// Nothing more will be heard about batches handed to this node before now.
    fn link_lost(&self, node: NodeId);
}

/// The node that a router is embedded in, reached without a socket.
#[async_trait]
pub trait LocalNode: Send + Sync + 'static {
    /// Its id.
    fn id(&self) -> NodeId;

    /// Takes a batch, as the `Ingest` stream would. Events go to `reply` now and later; waiting
    /// here is the back-pressure.
    async fn ingest(&self, batch: v1::IngestBatch, reply: mpsc::Sender<v1::SubmitEvents>);

    /// Reads, as the `Read` call would.
    ///
    /// # Errors
    /// As that call.
    async fn read(&self, request: v1::ReadRequest) -> Result<v1::QueryReply, Status>;

    /// Takes a command for the beacon, as the `Command` call would.
    ///
    /// # Errors
    /// As that call.
    async fn command(&self, request: v1::CommandRequest) -> Result<v1::CommandReply, Status>;

    /// How this node is doing.
    ///
    /// # Errors
    /// As the `NodeStatus` call.
    async fn node_status(&self, request: v1::StatusRequest) -> Result<v1::NodeStatusReply, Status>;
}
