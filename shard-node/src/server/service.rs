//! The gRPC surface that other nodes and routers use. Every call is authorised by the caller's
//! certificate: nodes by the key the registry binds to them, routers by their role.

use std::pin::Pin;
use std::sync::Arc;

use beacon::limits::FOUNDATIONS_ASKED_MAX;
use client::net::{self, Role};
use consensus::raft::{asks_for_values, carries_snapshot};
use futures::{Stream, StreamExt};
use ledger::ids::{Epoch, GroupId, GroupKind, NodeId, OrgId};
use ledger::limits::GRPC_BYTES_MAX;
use proto::v1;
use proto::v1::node_server::{Node as NodeService, NodeServer};
use router::gateway::ClusterView;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::{Request, Response, Status, Streaming};

use crate::core::peer::PeerMessage;
use crate::server::admission::{self, Forwarder};
use crate::server::begun::Who;
use crate::server::command;
use crate::server::denials::{Asked, Denied};
use crate::server::lend;
use crate::server::local::Hosted;
use crate::server::replies::ReplyQueue;
use crate::server::status::{self, Asker};

/// Messages of answers between a caller's queue and its connection.
const REPLIES_MAX: usize = 4;

/// Serves a node's groups.
pub struct Service {
    hosted: Arc<Hosted>,
    view: watch::Receiver<Arc<ClusterView>>,
    /// Who reads headers of a shard that is gone.
    lending: Arc<Semaphore>,
}

impl Service {
    /// A service for these groups.
    #[must_use]
    pub fn new(hosted: Arc<Hosted>, view: watch::Receiver<Arc<ClusterView>>) -> Self {
        Self { hosted, view, lending: Arc::new(Semaphore::new(1)) }
    }

    /// Mounts it.
    #[must_use]
    pub fn into_service(self) -> NodeServer<Self> {
        NodeServer::new(self).max_decoding_message_size(GRPC_BYTES_MAX).max_encoding_message_size(GRPC_BYTES_MAX)
    }

    /// The calling node, by the key of its certificate; `None` when it is none.
    fn caller<T>(&self, request: &Request<T>) -> Option<NodeId> {
        match request.extensions().get::<Who>() {
            Some(Who::Node(node)) => return Some(*node),
            Some(Who::Org(_) | Who::Other) => return None,
            // Nobody has looked yet.
            None => {}
        }
        let hash = net::peer_key_hash(request)?;
        let view = self.view.borrow();
        view.nodes.values().find(|node| node.tls_key_hash == hash).map(|node| node.id)
    }

    /// The calling node; nobody else is let in.
    fn node<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        self.caller(request)
            .ok_or_else(|| self.denied(None, self.org(request), None, "the caller's certificate is no node's"))
    }

    /// The organisation that vouches for whoever calls and is no node.
    fn org<T>(&self, request: &Request<T>) -> Option<OrgId> {
        net::peer_org(request, &self.view.borrow().orgs)
    }

    /// Notes in the log who is denied a call: which node, or a caller of which organisation that is none.
    fn denied(&self, node: Option<NodeId>, org: Option<OrgId>, group: Option<GroupId>, why: &str) -> Status {
        let of_node = node.and_then(|node| self.view.borrow().nodes.get(&node).map(|node| node.org));
        let (node, org) = (node.map(|node| node.0), org.or(of_node).map(|org| org.0));
        let group = group.map(|group| group.to_string());
        tracing::warn!(?node, ?org, group, "a call was denied: {why}");
        Status::permission_denied(ledger::Reject::AccessDenied.to_string())
    }

    /// Whether a node has a seat in a group: nobody else takes part in its consensus.
    fn is_member(&self, group: GroupId, node: NodeId) -> bool {
        if self.view.borrow().takes_part(group, node) {
            return true;
        }
        // One that is about to leave takes part until the engine goes on without it.
        self.hosted.group(group.0).is_some_and(|handle| {
            let role = handle.role();
            role.voters.contains(&node) || role.learners.contains(&node)
        })
    }

    /// Whether the newest state here of a channel excludes a node's organisation. Consensus counts the node until the next
    /// committee is in force; a snapshot it gets no more, nor what a Byzantine group has decided. What else is kept from
    /// it, `links` says: here it only asks. Its votes are taken.
    fn has_excluded(&self, group: GroupId, node: NodeId) -> bool {
        let org = self.view.borrow().nodes.get(&node).map(|node| node.org);
        let handle = self.hosted.group(group.0).filter(|_| group.kind() == Some(GroupKind::Channel));
        handle.is_some_and(|handle| org.is_none_or(|org| admission::has_excluded(&handle.share, org)))
    }

    /// Notes in the log who asks how groups began that it has no seat in: it is told nothing of them. Of a group that is not
    /// known here yet nobody can say who has.
    fn note_unlent(&self, node: Option<NodeId>, from: Option<Forwarder>, lacking: &[u64]) {
        let view = Arc::clone(&self.view.borrow());
        let known = lacking.iter().take(FOUNDATIONS_ASKED_MAX).map(|group| GroupId(*group));
        let known = known.filter(|group| view.committees.contains_key(group));
        for group in known.filter(|group| node.is_none_or(|node| !view.takes_part(*group, node))) {
            let org = from.map(|from| from.org);
            self.hosted.context.links.denials.note(Denied { group, node, org, asked: Asked::Foundation });
        }
    }

    /// A node, or a router of one of the cluster's organisations. Returns which one, if the registry knows its
    /// organisation.
    fn node_or_router<T>(&self, request: &Request<T>) -> Result<Option<Forwarder>, Status> {
        let org = match self.caller(request) {
            Some(node) => self.view.borrow().nodes.get(&node).map(|node| node.org),
            None => match net::peer_identity(request) {
                Ok(peer) if peer.role == Role::Router => self.org(request),
                _ => {
                    let why = "the caller's certificate is neither a node's nor a router's";
                    return Err(self.denied(None, self.org(request), None, why));
                }
            },
        };
        let forwarder = |(org, credential)| Forwarder { org, credential };
        Ok(org.zip(net::peer_key_hash(request)).map(forwarder))
    }
}

#[tonic::async_trait]
impl NodeService for Service {
    type IngestStream = Pin<Box<dyn Stream<Item = Result<v1::SubmitEvents, Status>> + Send>>;
    type FollowStream = Pin<Box<dyn Stream<Item = Result<v1::FollowReply, Status>> + Send>>;

    async fn raft(&self, request: Request<v1::RaftRequest>) -> Result<Response<v1::RaftReply>, Status> {
        let from = self.node(&request)?;
        let request = request.into_inner();
        let group = GroupId(request.group);
        if !self.is_member(group, from) {
            return Err(self.denied(Some(from), None, Some(group), "the calling node has no seat in the group"));
        }
        let kind = u8::try_from(request.kind).map_err(|_| Status::invalid_argument("unknown kind"))?;
        if (carries_snapshot(kind) || asks_for_values(kind)) && self.has_excluded(group, from) {
            let why = "the channel has excluded the calling node's organisation";
            return Err(self.denied(Some(from), None, Some(group), why));
        }
        // A group is put among those that run before it is taken from those that are being founded.
        let founding = self.hosted.founding.read().get(&group).cloned();
        let answer = match (self.hosted.group(request.group), founding) {
            (Some(handle), _) => handle.engine.handle(from, kind, request.payload).await,
            (None, Some(founding)) => founding.handle(from, kind, request.payload),
            (None, None) => return Err(Status::not_found(ledger::Reject::UnknownGroup.to_string())),
        };
        match answer {
            Ok(payload) => Ok(Response::new(v1::RaftReply { payload })),
            Err(error) => Err(Status::failed_precondition(format!("{}: {error}", error.code()))),
        }
    }

    async fn link(&self, request: Request<Streaming<v1::LinkBatch>>) -> Result<Response<v1::LinkEnd>, Status> {
        let from = self.node(&request)?;
        let mut batches = request.into_inner();
        let stop = self.hosted.context.stop.clone();
        loop {
            // A stream that outlives the node keeps its connection open, and what peers send goes to
            // a node that is no more.
            let batch = tokio::select! {
                () = stop.cancelled() => return Err(Status::unavailable("the node stops")),
                batch = batches.message() => batch?,
            };
            let Some(batch) = batch else { return Ok(Response::new(v1::LinkEnd {})) };
            for frame in batch.frames {
                let group = GroupId(frame.group);
                let handle = self.hosted.groups.read().get(&group).cloned();
                if handle.is_none() && !self.hosted.context.links.retired(group) {
                    continue;
                }
                match borsh::from_slice::<PeerMessage>(&frame.payload) {
                    Ok(message) => match (handle, message) {
                        (Some(handle), message) => handle.peer(from, message),
                        // Of a shard that is gone, what came of it answers the audit, and nothing else.
                        (None, message) => {
                            let wanted = message.wanted().filter(|_| self.is_member(GroupId::BEACON, from));
                            if let Some(wanted) = wanted {
                                lend::lend(&self.hosted, &self.lending, from, group, wanted);
                            }
                        }
                    },
                    Err(error) => {
                        tracing::warn!(%from, %error, "a peer sent garbage");
                        return Err(Status::invalid_argument(ledger::Reject::Malformed.to_string()));
                    }
                }
            }
        }
    }

    async fn ingest(
        &self,
        request: Request<Streaming<v1::IngestBatch>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        let from = self.node_or_router(&request)?;
        let mut batches = request.into_inner();
        let (sink, events) = mpsc::channel(REPLIES_MAX);
        let reply = ReplyQueue::new(sink);
        let hosted = Arc::clone(&self.hosted);
        let stop = hosted.context.stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    // Who does not read any more is not read either.
                    () = reply.closed() => return,
                    batch = batches.message() => match batch {
                        Ok(Some(batch)) => hosted.take(from, batch, &reply),
                        Ok(None) | Err(_) => return,
                    }
                }
            }
        });
        let events = ReceiverStream::new(events).map(Ok);
        Ok(Response::new(Box::pin(events)))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::QueryReply>, Status> {
        let from = self.node_or_router(&request)?;
        Ok(Response::new(self.hosted.read_here(from, request.into_inner()).await))
    }

    async fn clock(&self, request: Request<v1::ClockRequest>) -> Result<Response<v1::ClockReply>, Status> {
        self.node(&request)?;
        let unix_ms = u64::try_from(self.hosted.context.clock.wall_ms()).unwrap_or(0);
        Ok(Response::new(v1::ClockReply { unix_ms }))
    }

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let from = self.node_or_router(&request)?;
        let node = self.caller(&request);
        let request = request.into_inner();
        self.note_unlent(node, from, &request.lacking);
        let (known, mut lacking) = (Epoch(request.beacon_epoch), request.lacking);
        let stop = self.hosted.context.stop.clone();
        let told = move |view: Arc<ClusterView>| {
            // Once: who lacks something still asks again.
            let asked = std::mem::take(&mut lacking);
            let foundations = node.map(|node| view.lent(node, &asked)).unwrap_or_default();
            futures::stream::iter(view.to_follow_replies(known, foundations).into_iter().map(Ok::<_, Status>))
        };
        let views = WatchStream::new(self.view.clone()).flat_map(told);
        Ok(Response::new(Box::pin(views.take_until(stop.cancelled_owned()))))
    }

    async fn node_status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::NodeStatusReply>, Status> {
        let router = self.node_or_router(&request)?;
        let own = self.view.borrow().nodes.get(&self.hosted.context.node).map(|node| node.org);
        let asker = Asker { own, router, caller: request.into_inner().caller };
        Ok(Response::new(status::of_node(&self.hosted, &asker)))
    }

    async fn command(&self, request: Request<v1::CommandRequest>) -> Result<Response<v1::CommandReply>, Status> {
        let from = self.node_or_router(&request)?;
        Ok(Response::new(command::execute(&self.hosted, from, request.into_inner()).await))
    }
}
