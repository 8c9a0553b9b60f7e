//! The gateway: the `Router` service of the wire, over the nodes of a cluster.
//!
//! Owns what is in flight and nothing else, so any number of gateways may run and die. The path of
//! a payment: `desk` decodes and plans it, `flights` remembers who waits for it, as far as `shares` leaves room, `link` hands it to
//! the leader of its group by the one ingest stream of that node; events come back in batches and
//! leave in batches. There is no task, channel or call for a single transaction. One that several
//! groups vote on goes to all of them at once, and `ballot` tells when it is decided.

mod ask;
mod backend;
mod ballot;
mod caller;
mod command;
mod desk;
mod flight;
mod flights;
mod follow;
mod link;
mod nodes;
mod outbox;
mod peers;
mod query;
mod route;
mod shares;
mod standard;
mod view;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use ledger::GroupId;
use ledger::limits::{BATCH_BYTES_MAX, GRPC_BYTES_MAX, SUBMISSION_BYTES_MAX};
use proto::v1;
use proto::v1::router_server::{Router, RouterServer};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

pub use backend::{Backend, EventSink, IngestError, LocalNode};
pub use follow::follow;
pub use nodes::NodeBackend;
pub use peers::Peers;
pub use standard::{Health, with_standard_services};
pub use view::ClusterView;

use caller::Caller;
use client::net::Role;
use desk::Desk;
use outbox::{Outbox, OutboxStream};

/// Bytes of transactions that a gateway keeps, if nothing else is said: a payment has some 300, so
/// the number of transactions is the bound of usual ones and the bytes that of large ones.
const IN_FLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;

const _: () = assert!(2 * SUBMISSION_BYTES_MAX < IN_FLIGHT_BYTES_MAX, "any transaction of anybody can be in flight");
const _: () = assert!(
    link::QUEUE_BYTES_MAX >= BATCH_BYTES_MAX + SUBMISSION_BYTES_MAX && link::QUEUE_BYTES_MAX <= IN_FLIGHT_BYTES_MAX,
    "the link to one node takes any batch, and not more than there may be for all"
);

/// Bounds of a gateway.
#[derive(Clone, Debug)]
pub struct GatewayLimits {
    /// Transactions in flight, all clients together. Those of one organisation are bounded by what is free, too:
    /// [`ledger::limits::ORG_FLIGHTS_PER_FREE`].
    pub in_flight_max: usize,
    /// Their bytes, all clients together; those of one organisation likewise.
    pub in_flight_bytes_max: usize,
    /// Transactions in flight, or answered and not yet read, on one client stream.
    pub stream_in_flight_max: usize,
    /// Hint given with `busy`.
    pub busy_retry_ms: u32,
    /// How long a transaction is sent again until it is reported as `timeout`.
    pub receipt_within: Duration,
    /// How long `applied` is waited for after the receipt.
    pub applied_within: Duration,
    /// How long a leader may be silent about a transaction before it is asked again.
    pub resend_after: Duration,
    /// How long a read is retried.
    pub read_within: Duration,
    /// Reads at a time.
    pub reads_max: usize,
    /// How long a command to the beacon is sent again until it is reported as `timeout`.
    pub command_within: Duration,
    /// How long `status` waits for a node.
    pub status_within: Duration,
    /// How long a channel is waited for that the router has not heard of: it may just have been founded.
    pub heard_within: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            in_flight_max: 262_144,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            stream_in_flight_max: 65_536,
            busy_retry_ms: 50,
            receipt_within: Duration::from_secs(15),
            applied_within: Duration::from_secs(60),
            resend_after: Duration::from_secs(5),
            read_within: Duration::from_secs(5),
            reads_max: 1024,
            command_within: Duration::from_secs(5),
            status_within: Duration::from_secs(2),
            heard_within: Duration::from_secs(2),
        }
    }
}

/// The front door. Clones share everything.
#[derive(Clone)]
pub struct Gateway {
    desk: Arc<Desk>,
    reads: Arc<tokio::sync::Semaphore>,
    _clockwork: Arc<AbortOnDropHandle<()>>,
}

/// A gateway over this backend as a service to mount, with the cluster's message limits.
#[must_use]
pub fn gateway_service(backend: Arc<dyn Backend>, limits: GatewayLimits) -> RouterServer<Gateway> {
    Gateway::new(backend, limits).into_service()
}

impl Gateway {
    /// A gateway over this backend. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, limits: GatewayLimits) -> Self {
        let reads = Arc::new(tokio::sync::Semaphore::new(limits.reads_max));
        let desk = Desk::new(backend, limits);
        let clockwork = tokio::spawn(desk::clockwork(Arc::downgrade(&desk)));
        Self { desk, reads, _clockwork: Arc::new(AbortOnDropHandle::new(clockwork)) }
    }

    /// The service to mount.
    #[must_use]
    pub fn into_service(self) -> RouterServer<Self> {
        RouterServer::new(self).max_decoding_message_size(GRPC_BYTES_MAX).max_encoding_message_size(GRPC_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Router for Gateway {
    type SubmitStream = Pin<Box<dyn Stream<Item = Result<v1::SubmitEvents, Status>> + Send>>;

    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitBatch>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let view = self.desk.view();
        caller::role(&view, &request, None, &[Role::Client, Role::Admin])?;
        let caller = Caller::of(&view, &request)?;
        let outbox = Outbox::new();
        tokio::spawn(desk::serve_stream(self.desk.clone(), caller, request.into_inner(), outbox.clone()));
        Ok(Response::new(Box::pin(OutboxStream::new(outbox))))
    }

    async fn query(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryReply>, Status> {
        caller::role(&self.desk.view(), &request, caller::group_asked(request.get_ref()), &Role::ALL)?;
        let Ok(_turn) = self.reads.try_acquire() else {
            let refusal = v1::Refusal::of(ledger::Reject::Busy).retry_after_ms(self.desk.limits.busy_retry_ms);
            let refusal = refusal.detail("the router answers as many reads as it can");
            return Ok(Response::new(v1::QueryReply::refused(refusal)));
        };
        let caller = match caller::asks_channel(request.get_ref()) {
            true => Caller::of(&self.desk.view(), &request)?.to_wire(),
            false => None,
        };
        let request = v1::QueryRequest { caller, ..request.into_inner() };
        Ok(Response::new(query::answer(&self.desk, request).await))
    }

    async fn cluster(&self, request: Request<v1::ClusterRequest>) -> Result<Response<v1::ClusterReply>, Status> {
        let view = self.desk.view();
        caller::role(&view, &request, None, &Role::ALL)?;
        Ok(Response::new(view.to_reply()))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        // Whatever a client says of itself is not looked at.
        let caller = Caller::of(&self.desk.view(), &request)?.to_wire();
        Ok(Response::new(query::status(&self.desk, v1::StatusRequest { caller }).await))
    }

    async fn command(&self, request: Request<v1::CommandRequest>) -> Result<Response<v1::CommandReply>, Status> {
        let Ok(_turn) = self.reads.try_acquire() else {
            let refusal = v1::Refusal::of(ledger::Reject::Busy).retry_after_ms(self.desk.limits.busy_retry_ms);
            return Ok(Response::new(v1::CommandReply { refusal: Some(refusal), ..v1::CommandReply::default() }));
        };
        let (view, group) = (self.desk.view(), Some(GroupId(request.get_ref().group)));
        caller::role(
            &view,
            &request,
            group.filter(|group| group.kind().is_some()),
            caller::commanders(request.get_ref()),
        )?;
        let caller = Caller::of(&view, &request)?.to_wire();
        let request = v1::CommandRequest { caller, ..request.into_inner() };
        Ok(Response::new(command::execute(&self.desk, request).await))
    }
}
