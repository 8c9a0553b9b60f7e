//! The ways to other nodes: consensus calls and the one-way stream of driver messages, all groups
//! over one mTLS connection per pair of nodes.
//!
//! Owns what of a channel goes to nobody whom it has excluded: from the block of the exclusion on, no snapshot, no
//! entry of the log ([`Transport`]), and no message about a later block ([`Links::withholds`]). Heartbeats and votes
//! go on: they say how many entries there are, and nothing of what is in them. Mail is not meant here: it goes to
//! another group, whoever leads that one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use client::{Traffic, net};
use consensus::raft::{RaftTransport, TransportError, brings_values, carries_snapshot};
use hashbrown::HashMap;
use ledger::ids::{GroupId, GroupKind, Height, NodeId, OrgId};
use parking_lot::Mutex;
use proto::v1;
use router::gateway::Peers;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::peer::PeerMessage;
use crate::server::admission;
use crate::server::denials::{Asked, Denials, Denied};
use crate::server::replica::ReplicaShare;

/// Bytes of driver messages that wait for one peer; what comes on top is dropped, since the
/// drivers repeat what matters.
const LINK_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of one batch of frames.
const LINK_BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Wait before a lost stream is opened again.
const RECONNECT: Duration = Duration::from_millis(50);

/// What goes through this node's sockets.
#[derive(Clone)]
pub struct NodeTraffic {
    /// Connections to other nodes.
    pub calls: Arc<Traffic>,
    /// Connections of other nodes and of routers.
    pub peers: Arc<Traffic>,
    /// Connections of clients.
    pub clients: Arc<Traffic>,
}

impl NodeTraffic {
    /// Everything that this node sent to anybody.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        [&self.calls, &self.peers, &self.clients].map(|traffic| traffic.sent_bytes()).into_iter().sum()
    }
}

#[derive(Default)]
struct Queue {
    frames: Mutex<(VecDeque<v1::LinkFrame>, usize)>,
    bell: Notify,
}

impl Queue {
    fn push(&self, frame: v1::LinkFrame) -> bool {
        let mut state = self.frames.lock();
        if state.1 + frame.payload.len() > LINK_QUEUE_BYTES_MAX {
            return false;
        }
        state.1 += frame.payload.len();
        state.0.push_back(frame);
        drop(state);
        self.bell.notify_one();
        true
    }

    async fn batch(&self) -> v1::LinkBatch {
        loop {
            {
                let mut state = self.frames.lock();
                let (mut frames, mut bytes) = (Vec::new(), 0);
                while let Some(frame) = state.0.front() {
                    if bytes > 0 && bytes + frame.payload.len() > LINK_BATCH_BYTES_MAX {
                        break;
                    }
                    bytes += frame.payload.len();
                    frames.extend(state.0.pop_front());
                }
                state.1 -= bytes;
                if !frames.is_empty() {
                    return v1::LinkBatch { frames };
                }
            }
            self.bell.notified().await;
        }
    }
}

/// All outgoing traffic of a node.
pub struct Links {
    peers: Arc<Peers>,
    queues: Mutex<HashMap<NodeId, Arc<Queue>>>,
    stop: CancellationToken,
    /// Messages dropped because a peer's queue was full.
    pub dropped: AtomicU64,
    /// Who asked for what it has no part in.
    pub denials: Denials,
}

impl Links {
    /// Links over these connections, until `stop`.
    #[must_use]
    pub fn new(peers: Arc<Peers>, stop: CancellationToken) -> Arc<Self> {
        let (queues, dropped) = (Mutex::new(HashMap::new()), AtomicU64::new(0));
        Arc::new(Self { peers, queues, stop, dropped, denials: Denials::default() })
    }

    /// The nodes that have a seat in a group, by the newest registry.
    #[must_use]
    pub fn members(&self, group: GroupId) -> Vec<NodeId> {
        let view = Arc::clone(&self.peers.view().borrow());
        view.members(group)
    }

    /// Whether a shard has ended, by the newest layout.
    #[must_use]
    pub fn retired(&self, group: GroupId) -> bool {
        self.peers.view().borrow().layout.retired(group)
    }

    /// Queues a driver message. It may be lost; drivers repeat.
    pub fn send(self: &Arc<Self>, node: NodeId, group: GroupId, payload: Bytes) {
        let queue = self.queue(node);
        if !queue.push(v1::LinkFrame { group: group.0, payload }) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The block in which a channel has excluded a node's organisation, by the newest state of this replica; see
    /// [`admission::excluded_since`]. Of a node that nobody knows it counts as if it had.
    #[must_use]
    pub fn excluded_since(&self, share: &ReplicaShare, group: GroupId, node: NodeId) -> Option<Height> {
        if group.kind() != Some(GroupKind::Channel) {
            return None;
        }
        self.org_of(node).map_or(Some(Height(0)), |org| admission::excluded_since(share, org))
    }

    /// Whose a node is, by the newest registry.
    fn org_of(&self, node: NodeId) -> Option<OrgId> {
        self.peers.view().borrow().nodes.get(&node).map(|node| node.org)
    }

    /// Notes in the log that a node asked a group over its link, and was not answered since it has no seat.
    pub fn unanswered(&self, group: GroupId, node: NodeId) {
        self.denials.note(Denied { group, node: Some(node), org: self.org_of(node), asked: Asked::ByLink });
    }

    /// Whether a message of a replica to another one of its own group is kept back: it is for a node whose
    /// organisation was excluded before the block that it tells of.
    #[must_use]
    pub fn withholds(&self, share: &ReplicaShare, group: GroupId, node: NodeId, message: &PeerMessage) -> bool {
        let since = self.excluded_since(share, group, node);
        since.is_some_and(|since| message.tells_of().is_none_or(|height| height > since))
    }

    fn queue(self: &Arc<Self>, node: NodeId) -> Arc<Queue> {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get(&node) {
            return Arc::clone(queue);
        }
        let queue = Arc::new(Queue::default());
        queues.insert(node, Arc::clone(&queue));
        let links = Arc::clone(self);
        let served = Arc::clone(&queue);
        tokio::spawn(async move {
            let stop = links.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = links.run(node, served) => {}
            }
        });
        queue
    }

    async fn run(self: Arc<Self>, node: NodeId, queue: Arc<Queue>) {
        loop {
            if let Ok(channel) = self.peers.channel(node) {
                let outgoing = futures::stream::unfold(Arc::clone(&queue), |source| async move {
                    let batch = source.batch().await;
                    Some((batch, source))
                });
                if let Err(status) = net::node_client(channel).link(outgoing).await {
                    tracing::debug!(%node, %status, "link lost");
                }
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }
}

/// Consensus calls of one group over the shared connections.
pub struct Transport {
    /// The connections.
    pub links: Arc<Links>,
    /// The replica that calls.
    pub share: ReplicaShare,
}

impl Transport {
    /// Whether this replica may hand its state, or what a Byzantine group is voting on, to a node: a channel's goes to
    /// nobody whom it has excluded, also while consensus still counts that node.
    ///
    /// An organisation that was excluded and has joined again is a member by the block in which it did. A replica that
    /// has not applied that block refuses it until it has. A leader has soon: it leads only once everything before is
    /// applied. Of others a replica only asks for snapshots, and it asks all of them in turn.
    fn gives(&self, to: NodeId, group: GroupId) -> bool {
        self.links.excluded_since(&self.share, group, to).is_none()
    }
}

#[async_trait]
impl RaftTransport for Transport {
    async fn call(&self, to: NodeId, group: GroupId, kind: u8, payload: Bytes) -> Result<Bytes, TransportError> {
        if (carries_snapshot(kind) || brings_values(kind)) && !self.gives(to, group) {
            return Err(TransportError::Refused("the channel has excluded the node's organisation".to_owned()));
        }
        let unreachable = |status: tonic::Status| TransportError::Unreachable(status.message().to_owned());
        let channel = self.links.peers.channel(to).map_err(unreachable)?;
        let request = v1::RaftRequest { group: group.0, kind: u32::from(kind), payload };
        match net::node_client(channel).raft(request).await {
            Ok(reply) => Ok(reply.into_inner().payload),
            Err(status) => Err(match status.code() {
                tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Cancelled => {
                    unreachable(status)
                }
                tonic::Code::DeadlineExceeded => TransportError::Timeout,
                _ => TransportError::Refused(status.message().to_owned()),
            }),
        }
    }

    /// The others commit without a node that is excluded: a channel lets nobody go whose seats the rest needs to
    /// decide (`channel::quorum`), and that is asked for while the voters are the committee in force
    /// (`server::command`).
    ///
    /// No entry is behind that of an exclusion unless its leader had applied that one: acts of governance are alone in
    /// flight ([`super::group::Turns`]). With that, the state here excludes by whatever comes before an entry that
    /// goes out, if it has caught up. What an append carries beyond was proposed before.
    fn gives_entries(&self, to: NodeId, group: GroupId, caught_up: bool) -> bool {
        group.kind() != Some(GroupKind::Channel) || (caught_up && self.gives(to, group))
    }
}
