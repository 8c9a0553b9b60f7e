//! The node's groups as routers use them: transactions in, reads, status. The embedded router calls
//! this directly, others through [`super::service`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use channel::access::Action;
use consensus::raft::Founding;
use ledger::ids::{GroupId, JobId, NodeId};
use ledger::reject::Reject;
use parking_lot::{Mutex, RwLock};
use proto::{edge, v1};
use router::gateway::{ClusterView, LocalNode};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::server::admission::{self, Forwarder};
use crate::server::command;
use crate::server::group::{GroupHandle, HostContext};
use crate::server::ingest::{self, Arrived, Sender, refused};
use crate::server::rates::Rates;
use crate::server::reads;
use crate::server::replies::ReplyQueue;
use crate::server::status::{self, Asker};

/// The groups a node runs.
pub struct Hosted {
    /// What they share.
    pub context: HostContext,
    /// By id.
    pub groups: RwLock<BTreeMap<GroupId, Arc<GroupHandle>>>,
    /// Groups that did not start or have stopped, with the reason.
    pub failed: RwLock<BTreeMap<GroupId, String>>,
    /// Groups that do not run here yet because they are being founded.
    pub founding: RwLock<BTreeMap<GroupId, Founding>>,
    /// For which job this node keeps copies of a shard that have caught up.
    pub warm: RwLock<BTreeMap<GroupId, JobId>>,
    /// Of a shard that copies are made of, the bytes that are read, and those that have to be.
    pub copied: RwLock<BTreeMap<GroupId, (u64, u64)>>,
    /// How many transactions a second its replicas execute.
    pub rates: Mutex<Rates>,
    /// Where its groups lie.
    pub data_dir: PathBuf,
    /// When this node's certificate runs out, milliseconds since 1970.
    pub certificate_until_ms: i64,
    /// The shared log; gone once the node has stopped.
    pub log: RwLock<Option<storage::LogEngine>>,
}

impl Hosted {
    /// A group, if it runs here.
    #[must_use]
    pub fn group(&self, group: u64) -> Option<Arc<GroupHandle>> {
        self.groups.read().get(&GroupId(group)).cloned()
    }

    /// Takes transactions for a group from a router; their fates go to `reply`, at once or later.
    pub fn take(&self, from: Option<Forwarder>, batch: v1::IngestBatch, reply: &Arc<ReplyQueue>) {
        let Some(handle) = self.group(batch.group) else {
            let reject = if self.failed.read().contains_key(&GroupId(batch.group)) {
                Reject::GroupStopped
            } else if self.context.links.retired(GroupId(batch.group)) {
                Reject::Moved
            } else {
                Reject::UnknownGroup
            };
            return self.refuse_all(&batch, reject, None, reply);
        };
        let role = handle.role();
        if handle.is_over() {
            return self.refuse_all(&batch, Reject::Moved, None, reply);
        }
        if handle.stopped().is_some() {
            return self.refuse_all(&batch, Reject::GroupStopped, role.leader, reply);
        }
        if !role.leads {
            return self.refuse_all(&batch, Reject::NotLeader, role.leader, reply);
        }
        // It hands over, and what the channel does from now on is not for it: whoever sends goes to another member.
        if self.context.links.excluded_since(&handle.share, handle.group, self.context.node).is_some() {
            return self.refuse_all(&batch, Reject::NotLeader, None, reply);
        }
        if let Err(denial) = admission::judge(&handle, from, batch.caller.as_ref(), Action::Write) {
            return self.deny_all(&batch, &denial.refusal(), reply);
        }
        let v1::IngestBatch { group, txs, notify_applied, caller } = batch;
        let sender = Arc::new(Sender { from, caller });
        let arrived = Arrived { txs, reply: Arc::clone(reply), wants_applied: notify_applied, sender };
        if let Err(Arrived { txs, .. }) = handle.arrivals.push(arrived) {
            let batch = v1::IngestBatch { group, txs, notify_applied, caller: None };
            self.refuse_all(&batch, Reject::Busy, role.leader, reply);
        }
    }

    fn refuse_all(&self, batch: &v1::IngestBatch, reject: Reject, leader: Option<NodeId>, reply: &Arc<ReplyQueue>) {
        let cluster = self.context.genesis.cluster_id();
        let ids = batch.txs.iter().filter_map(|bytes| ingest::id_of(&cluster, bytes));
        reply.extend(ids.map(|txid| refused(&txid, None, reject, leader).by(GroupId(batch.group))).collect());
    }

    fn deny_all(&self, batch: &v1::IngestBatch, refusal: &v1::Refusal, reply: &Arc<ReplyQueue>) {
        let cluster = self.context.genesis.cluster_id();
        let ids = batch.txs.iter().filter_map(|bytes| ingest::id_of(&cluster, bytes));
        let denied = |txid| v1::SubmitEvent::refused(edge::bytes_of(&txid), refusal.clone()).by(GroupId(batch.group));
        reply.extend(ids.map(denied).collect());
    }

    /// Reads at this node's replica, for a router.
    pub async fn read_here(&self, from: Option<Forwarder>, request: v1::ReadRequest) -> v1::QueryReply {
        let Some(handle) = self.group(request.group) else {
            let retired = self.context.links.retired(GroupId(request.group));
            let reject = if retired { Reject::Moved } else { Reject::UnknownGroup };
            return v1::QueryReply::refused(v1::Refusal::of(reject));
        };
        match request.query {
            Some(query) => reads::answer(&handle, from, query).await,
            None => v1::QueryReply::refused(v1::Refusal::of(Reject::Malformed)),
        }
    }
}

/// The short cut of the embedded router.
pub struct LocalHost {
    hosted: Arc<Hosted>,
    view: watch::Receiver<Arc<ClusterView>>,
    replies: parking_lot::Mutex<Option<(mpsc::Sender<v1::SubmitEvents>, Arc<ReplyQueue>)>>,
}

impl LocalHost {
    /// A short cut to these groups.
    #[must_use]
    pub fn new(hosted: Arc<Hosted>, view: watch::Receiver<Arc<ClusterView>>) -> Self {
        Self { hosted, view, replies: parking_lot::Mutex::new(None) }
    }

    /// This node, whose router it is.
    fn own(&self) -> Option<Forwarder> {
        let view = self.view.borrow();
        let node = view.nodes.get(&self.hosted.context.node)?;
        Some(Forwarder { org: node.org, credential: node.tls_key_hash })
    }

    fn queue(&self, reply: &mpsc::Sender<v1::SubmitEvents>) -> Arc<ReplyQueue> {
        let mut known = self.replies.lock();
        if let Some((sender, queue)) = &*known
            && sender.same_channel(reply)
            && !queue.is_closed()
        {
            return Arc::clone(queue);
        }
        let queue = ReplyQueue::new(reply.clone());
        *known = Some((reply.clone(), Arc::clone(&queue)));
        queue
    }
}

#[async_trait]
impl LocalNode for LocalHost {
    fn id(&self) -> NodeId {
        self.hosted.context.node
    }

    async fn ingest(&self, batch: v1::IngestBatch, reply: mpsc::Sender<v1::SubmitEvents>) {
        let queue = self.queue(&reply);
        self.hosted.take(self.own(), batch, &queue);
    }

    async fn read(&self, request: v1::ReadRequest) -> Result<v1::QueryReply, Status> {
        Ok(self.hosted.read_here(self.own(), request).await)
    }

    async fn command(&self, request: v1::CommandRequest) -> Result<v1::CommandReply, Status> {
        Ok(command::execute(&self.hosted, self.own(), request).await)
    }

    async fn node_status(&self, request: v1::StatusRequest) -> Result<v1::NodeStatusReply, Status> {
        let router = self.own();
        let own = router.map(|router| router.org);
        Ok(status::of_node(&self.hosted, &Asker { own, router, caller: request.caller }))
    }
}
