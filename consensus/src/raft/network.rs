//! Sending: openraft's network over the host's [`RaftTransport`].
//!
//! Appends of one replication stream are pipelined: several calls are on the way at a time, each
//! with its place in the stream, and the receiver restores the order (see `streams`).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use borsh::BorshDeserialize;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt};
use ledger::ids::{GroupId, NodeId};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;

use super::codec::CodecError;
use super::purge::Sending;
use super::snapshot::Folder;
use super::types::{TypeConfig, Vote, log_id};
use super::wire;

/// Appends on the way to one replica at a time.
pub(crate) const APPENDS_IN_FLIGHT_MAX: usize = 8;

/// Why a call got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection to the node.
    #[error("node unreachable: {0}")]
    Unreachable(String),
    /// The node did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The node answered with an error.
    #[error("refused by the node: {0}")]
    Refused(String),
}

/// How a host's groups reach each other: one request, one reply, over connections that it shares
/// among its groups. Calls that are started in some order should be sent in that order.
#[async_trait]
pub trait RaftTransport: Send + Sync + 'static {
    /// Sends `payload` to the group's replica on node `to`, which hands it to
    /// [`super::RaftGroup::handle`] with the same `kind` and the node that it knows for certain to
    /// have sent it, and returns its reply.
    async fn call(&self, to: NodeId, group: GroupId, kind: u8, payload: Bytes) -> Result<Bytes, TransportError>;
}

/// What all senders of a group share.
pub(crate) struct Sender {
    pub(crate) sending: Arc<Sending>,
    pub(crate) transport: Arc<dyn RaftTransport>,
    pub(crate) group: GroupId,
    pub(crate) own_id: u64,
    pub(crate) call_timeout: Duration,
    pub(crate) vote_timeout: Duration,
    /// Names of append streams; starts at the time so that a restarted node does not repeat them.
    pub(crate) streams: AtomicU64,
}

/// Makes a [`Peer`] for each replica that openraft wants to reach.
pub(crate) struct Factory(pub(crate) Arc<Sender>);

/// One other replica.
#[derive(Clone)]
pub(crate) struct Peer {
    sender: Arc<Sender>,
    id: u64,
    node: NodeId,
    ordered: bool,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &NodeId) -> Peer {
        Peer { sender: self.0.clone(), id: target, node: *node, ordered: true }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeId) -> Peer {
        // A heartbeat stands alone and must not wait behind appends.
        Peer { ordered: false, ..self.new_client(target, node).await }
    }
}

impl From<TransportError> for RPCError<TypeConfig> {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Unreachable(_) | TransportError::Refused(_) => Self::Unreachable(Unreachable::new(&error)),
            TransportError::Timeout => Self::Network(NetworkError::new(&error)),
        }
    }
}

impl From<CodecError> for TransportError {
    fn from(error: CodecError) -> Self {
        Self::Refused(format!("its reply is {error}"))
    }
}

impl Peer {
    /// A replica that openraft need not know of yet.
    pub(crate) fn to(sender: Arc<Sender>, id: u64, node: NodeId) -> Self {
        Self { sender, id, node, ordered: false }
    }

    pub(crate) async fn call<R: BorshDeserialize>(
        &self,
        kind: u8,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<R, TransportError> {
        let sender = &self.sender;
        let call = sender.transport.call(self.node, sender.group, kind, payload);
        match tokio::time::timeout(timeout, call).await {
            Ok(reply) => Ok(wire::open_reply(&reply?)?),
            Err(_) => Err(TransportError::Timeout),
        }
    }

    pub(crate) fn request<T: borsh::BorshSerialize>(&self, body: &T) -> Bytes {
        wire::request(self.id, self.sender.own_id, body)
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        self.sender.call_timeout
    }

    async fn append(self, append: wire::Append) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let payload = wire::append(self.id, self.sender.own_id, &append);
        let reply = self.call(wire::APPEND, payload, self.sender.call_timeout).await?;
        Ok(match reply {
            wire::AppendReply::Matched(upto) => Ok(upto.as_ref().map(log_id)),
            wire::AppendReply::Conflict(at) => Err(StreamAppendError::Conflict(log_id(&at))),
            wire::AppendReply::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        })
    }

    fn stream_name(&self) -> u64 {
        if self.ordered { self.sender.streams.fetch_add(1, Ordering::Relaxed).max(1) } else { 0 }
    }

    async fn vote_call(
        &self,
        kind: u8,
        request: &VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = self.request(&wire::VoteCall::from(request));
        let reply: wire::VoteReply = self.call(kind, payload, self.sender.vote_timeout).await?;
        Ok(reply.into())
    }
}

type AppendResults<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Arc<Folder>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let end = wire::append_end(&request);
        let append = wire::Append { stream: 0, sequence: 0, request };
        Ok(match self.clone().append(append).await? {
            Ok(upto) if upto == end => AppendEntriesResponse::Success,
            Ok(upto) => AppendEntriesResponse::PartialSuccess(upto),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let peer = self.clone();
        let stream = self.stream_name();
        let replies = input
            .enumerate()
            .map(move |(sequence, request)| {
                peer.clone().append(wire::Append { stream, sequence: sequence as u64, request })
            })
            .buffered(APPENDS_IN_FLIGHT_MAX);
        // What was sent behind a failed append cannot succeed: the first failure ends the stream.
        let until_failure = replies.scan(false, |failed, reply| {
            let over = *failed;
            *failed = !matches!(reply, Ok(Ok(_)));
            std::future::ready((!over).then_some(reply))
        });
        Box::pin(async move { Ok(until_failure.boxed()) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_call(wire::VOTE, &request).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_call(wire::PRE_VOTE, &request).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<super::types::LeaderId, u64, NodeId, Arc<Folder>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let index = snapshot.meta.last_log_id.map_or(0, |last| last.index);
        let _needed = self.sender.sending.begin(index);
        let sending = super::snapshot::send(self, &vote, &snapshot.snapshot);
        tokio::select! {
            sent = sending => Ok(SnapshotResponse::new(sent?)),
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = self.request(&wire::TransferCall::from(&request));
        let reply: wire::TransferReply = self.call(wire::TRANSFER, payload, self.sender.vote_timeout).await?;
        Ok(reply.into())
    }
}
