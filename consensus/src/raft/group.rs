//! The handle of one replica of one group.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::ids::{GroupId, NodeId};
use ledger::limits::BATCH_BYTES_MAX;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader, InitializeError, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::metrics::WaitError;
use openraft::raft::ClientWriteResult;
use openraft::{ChangeMembers, RaftMetrics, ReadPolicy, ServerState};
use parking_lot::Mutex;
use storage::LogStore;
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::{RaftGroupConfig, StartError};
use super::failure::Failure;
use super::fetch::{Lender, Lookout};
use super::found::Standing;
use super::log::Log;
use super::machine::{ApplierCell, Machine};
use super::network::{Factory, RaftTransport, Sender};
use super::prepare::Prepared;
use super::purge::{self, Keep};
use super::receive::Receiver;
use super::role;
use super::serve::{self, malformed};
use super::snapshot::Snapshots;
use super::streams::Streams;
use super::types::{Batch, Raft, TypeConfig, log_id};
use super::{vouch, wire};
use crate::port::{Applier, RoleView, SequencerError, join_of};
use crate::sequencer::{Proposal, Sequencer};

/// Why an arriving request got no reply. The transport hands it to the caller as
/// [`super::TransportError::Refused`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Not a request of this protocol.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// For another replica than this one.
    #[error("this replica is {own}, the request is for {to}")]
    WrongReplica {
        /// This replica's raft id.
        own: u64,
        /// The id in the request.
        to: u64,
    },
    /// The request claims to be of another replica than the node that sent it has.
    #[error("node {node} sent a request of replica {claimed}")]
    WrongSender {
        /// Who sent it, as the transport has authenticated it.
        node: NodeId,
        /// The raft id in the request.
        claimed: u64,
    },
    /// An append whose stream was given up or has a gap.
    #[error("append out of order")]
    OutOfOrder,
    /// The snapshot could not be written or read.
    #[error("snapshot transfer: {0}")]
    Snapshot(String),
    /// The files of a snapshot are larger together than any may be.
    #[error("a snapshot of {bytes} bytes, and no more than {most} may be")]
    SnapshotTooLarge {
        /// What its sender says, or as much as can be counted.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// A snapshot does not fit on the disk beside everything else.
    #[error(
        "the snapshot needs {needed} bytes with its copy, and of {free} free ones {reserve} have to stay: free or add space"
    )]
    NoRoom {
        /// What is still to be written.
        needed: u64,
        /// What the file system has left.
        free: u64,
        /// What is left for everything else.
        reserve: u64,
    },
    /// The request is of another stint of the group's engines than the one this replica is in.
    #[error(
        "the request is of the engine that began behind entry {of}, and this replica runs the one that began behind entry {own}"
    )]
    OtherStint {
        /// The stint of this replica.
        own: u64,
        /// That of the request.
        of: u64,
    },
    /// The node that sends the request has as many open here as it may have.
    #[error("node {0} has too many calls open here already")]
    Busy(NodeId),
    /// A snapshot that reaches as far as is asked for would have to be made, and cannot be now.
    #[error("no snapshot is made for another replica now: {0}")]
    LendsNone(&'static str),
    /// The replica is just going over to another engine.
    #[error("this replica goes over to another engine")]
    Changing,
    /// The replica does not take part before it knows that it has not done so before.
    #[error("this replica does not take part yet: its log is empty, and it asks the others first")]
    Founding,
    /// The replica follows, and promises nothing.
    #[error("this replica may have forgotten what it promised, and follows without a vote")]
    Follows,
    /// The replica has stopped.
    #[error("the group stopped on this node: {0}")]
    Stopped(String),
}

impl HandleError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "raft_malformed",
            Self::WrongReplica { .. } => "raft_wrong_replica",
            Self::WrongSender { .. } => "raft_wrong_sender",
            Self::OutOfOrder => "raft_out_of_order",
            Self::Snapshot(_) => "raft_snapshot",
            Self::SnapshotTooLarge { .. } => "snapshot_too_large",
            Self::NoRoom { .. } => "snapshot_no_room",
            Self::OtherStint { .. } => "engine_other_stint",
            Self::Busy(_) => "peer_busy",
            Self::LendsNone(_) => "snapshot_busy",
            Self::Changing => "engine_changing",
            Self::Founding => "raft_founding",
            Self::Follows => "raft_follows",
            Self::Stopped(_) => "raft_stopped",
        }
    }
}

/// A replica as the engine lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its raft id.
    pub id: u64,
    /// Its node.
    pub node: NodeId,
    /// Whether it votes; a learner does not.
    pub votes: bool,
}

/// One replica of one group, on openraft. Clones are the same replica.
#[derive(Clone)]
pub struct RaftGroup {
    inner: Arc<Inner>,
}

struct Inner {
    config: RaftGroupConfig,
    raft: Raft,
    log: Log,
    applier: Arc<ApplierCell>,
    failure: Failure,
    receiver: Receiver,
    lender: Lender,
    streams: Streams,
    role: watch::Receiver<RoleView>,
    snapshots: Arc<Snapshots>,
    sender: Arc<Sender>,
    /// The stint that this replica is in.
    stint: u64,
    /// Who has last sent something of a later stint, and of which.
    ahead: watch::Sender<Option<(NodeId, u64)>>,
    /// When a leader was last heard; at first, when the replica was started.
    led: Mutex<Instant>,
}

impl RaftGroup {
    /// Starts a replica: brings the state up to what is known to be committed, then takes part.
    ///
    /// # Errors
    /// [`StartError`] when the settings, the log, the state or a snapshot are not usable.
    pub async fn start(
        config: RaftGroupConfig,
        log: Arc<dyn LogStore>,
        applier: Box<dyn Applier>,
        transport: Arc<dyn RaftTransport>,
    ) -> Result<Self, StartError> {
        Prepared::open(config, log, applier, transport).await?.start().await
    }

    /// Starts what was prepared.
    pub(super) async fn run(prepared: Prepared) -> Result<Self, StartError> {
        let Prepared { config, settings, log, applier, failure, snapshots, sender, .. } = prepared;
        let group = config.group;
        let storage_error = |detail: String| StartError::Storage { group, detail };
        let machine = Machine { applier: applier.clone(), snapshots: snapshots.clone() };
        let (sending, network) = (sender.sending.clone(), Factory(sender.clone()));
        let started = Raft::new(config.raft_id, settings, network, log.clone(), machine).await;
        let raft = match started {
            Ok(raft) => raft,
            Err(fatal) => {
                applier.close().await;
                log.close();
                return Err(storage_error(failure.get().unwrap_or_else(|| fatal.to_string())));
            }
        };
        // Set once; a receiver alone, since the engine holds the sender.
        let _ = sender.metrics.set(raft.metrics());
        await_first_metrics(&raft, &applier).await.map_err(|error| storage_error(error.to_string()))?;
        let stint = sender.stint.load(Ordering::Relaxed);
        let role = role::follow(&raft, failure.clone(), config.timing, stint);
        let keep = Keep { entries: config.snapshot_keep_entries, every: config.snapshot_every_entries };
        purge::drive(&raft, sending.clone(), keep);
        let lender = Lender::new(snapshots.clone(), applier.clone(), sending);
        let receiver = Receiver::new(snapshots.clone(), applier.clone());
        let inner = Inner {
            config,
            raft,
            log,
            applier,
            failure,
            receiver,
            lender,
            streams: Streams::default(),
            role,
            snapshots,
            sender,
            stint,
            ahead: watch::Sender::new(None),
            led: Mutex::new(Instant::now()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Gives the group its first members, all voters. Called on one of them (or on each with the
    /// same members); does nothing when the group has a log already.
    ///
    /// # Errors
    /// [`SequencerError::Refused`] when this replica is not among the members.
    pub async fn bootstrap(&self, members: Vec<(u64, NodeId)>) -> Result<(), SequencerError> {
        let members: BTreeMap<u64, NodeId> = members.into_iter().collect();
        match self.inner.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(SequencerError::Refused(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(self.stopped(&fatal)),
        }
    }

    /// Stands for election now and not when its time-out is over, if a majority would vote for it; does nothing where
    /// somebody leads.
    ///
    /// # Errors
    /// [`SequencerError::Stopped`].
    pub async fn campaign(&self) -> Result<(), SequencerError> {
        self.inner.raft.trigger().elect(true).await.map_err(|fatal| self.stopped(&fatal))
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.inner.config.group
    }

    /// This replica's raft id.
    #[must_use]
    pub fn raft_id(&self) -> u64 {
        self.inner.config.raft_id
    }

    /// The replicas of the group: their raft ids, nodes, and whether they vote. None before the last
    /// change of them is applied here: a state that is read afterwards is not older than the one that
    /// somebody decided that change by.
    #[must_use]
    pub fn replicas(&self) -> Option<Vec<Replica>> {
        let metrics = self.metrics();
        if metrics.last_applied < *metrics.membership_config.log_id() {
            return None;
        }
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let node = |id: &u64| membership.get_node(id).copied();
        let learners = membership.learner_ids().filter(|id| !voters.contains(id));
        let all = voters.iter().copied().map(|id| (id, true)).chain(learners.map(|id| (id, false)));
        let replica = |(id, votes)| Some(Replica { id, node: node(&id)?, votes });
        Some(all.filter_map(replica).collect())
    }

    /// Answers a request that the replica on node `from` sent through its [`RaftTransport`]. The
    /// transport answers for `from`; that node may speak for no other replica.
    ///
    /// # Errors
    /// [`HandleError`]; the caller tries again in its own time.
    pub async fn handle(&self, from: NodeId, kind: u8, payload: Bytes) -> Result<Bytes, HandleError> {
        let inner = &self.inner;
        let raft = &inner.raft;
        let request = serve::open((inner.config.raft_id, inner.config.node), from, kind, payload)?;
        serve::of_stint(inner.stint, kind, &request).inspect_err(|_| {
            if request.stint > inner.stint {
                inner.ahead.send_replace(Some((from, request.stint)));
            }
        })?;
        // The head names the sender, and so does every vote in a body.
        let speaks_for = |claimed: u64| {
            if claimed == request.from { Ok(()) } else { Err(HandleError::WrongSender { node: from, claimed }) }
        };
        let body = &request.body;
        Ok(match kind {
            wire::APPEND => {
                let append = wire::open_append(body).map_err(malformed)?;
                speaks_for(append.request.vote.leader_id.node_id)?;
                *inner.led.lock() = Instant::now();
                wire::reply(&inner.streams.append(raft, from, append).await?)
            }
            wire::VOTE | wire::PRE_VOTE => {
                let call = wire::body::<wire::VoteCall>(body).map_err(malformed)?;
                speaks_for(call.candidate())?;
                let call = call.into();
                let voted = if kind == wire::VOTE { raft.vote(call).await } else { raft.pre_vote(call).await };
                wire::reply(&wire::VoteReply::from(&voted.map_err(|error| HandleError::Stopped(error.to_string()))?))
            }
            wire::SNAPSHOT_OFFER => {
                let offer = wire::body::<wire::Offer>(body).map_err(malformed)?;
                speaks_for(offer.vote.leader())?;
                wire::reply(&inner.receiver.offer(raft, offer).await?)
            }
            wire::SNAPSHOT_PART => wire::reply(&inner.receiver.part(wire::body(body).map_err(malformed)?).await?),
            wire::SNAPSHOT_DONE => {
                let done = wire::body::<wire::Done>(body).map_err(malformed)?;
                speaks_for(done.vote.leader())?;
                wire::reply(&inner.receiver.done(raft, from, done).await?)
            }
            wire::STANDING => wire::reply(&Standing::Begun),
            wire::STINT => wire::reply(&inner.stint),
            wire::BFT_PLACE => {
                let ask = wire::body::<vouch::Ask>(body).map_err(malformed)?;
                let order = *inner.applier.orders().borrow();
                wire::reply(&vouch::told_under_raft(order, ask))
            }
            #[cfg(feature = "bft")]
            wire::BFT_DECIDED => crate::bft::decided_before(&inner.log, inner.stint, body)?,
            #[cfg(feature = "bft")]
            wire::ENTRIES => super::follower::answer(&inner.log, inner.role.clone(), body).await?,
            wire::LATEST_JOIN => {
                let latest = self.latest_join().await;
                wire::reply(&latest.map_err(|error| HandleError::Stopped(error.to_string()))?)
            }
            wire::SNAPSHOT_ASK | wire::SNAPSHOT_READ => serve::lend(&inner.lender, from, kind, body).await?,
            wire::TRANSFER => {
                let call = wire::body::<wire::TransferCall>(body).map_err(malformed)?;
                speaks_for(call.leader())?;
                let result = raft.handle_transfer_leader(call.into()).await;
                wire::reply(&wire::TransferReply::from(
                    result.map_err(|error| HandleError::Stopped(error.to_string()))?,
                ))
            }
            kind => return Err(HandleError::Malformed(format!("unknown kind {kind}"))),
        })
    }

    /// Who has last sent something of a later stint than this replica's, and of which, as that changes.
    pub(crate) fn ahead(&self) -> watch::Receiver<Option<(NodeId, u64)>> {
        self.inner.ahead.subscribe()
    }

    /// Whether no leader was heard for so long. The role goes on naming the last one until another one is elected, for which
    /// a majority has to be there.
    pub(crate) fn hears_nobody(&self, patience: Duration) -> bool {
        self.inner.led.lock().elapsed() >= patience
    }

    /// Looks for what the group has gone on to.
    pub(crate) fn lookout(&self) -> Lookout {
        Lookout { sender: self.inner.sender.clone(), snapshots: self.inner.snapshots.clone() }
    }

    /// Stops, and gives the applier back for another engine; none when it was shut down before.
    pub(crate) async fn retire(&self) -> Option<Box<dyn Applier>> {
        self.end().await;
        let applier = self.inner.applier.take().await;
        self.inner.log.close();
        applier
    }

    /// Ends openraft and what arrives for it.
    async fn end(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(group = %self.inner.config.group, %error, "the replica did not stop cleanly");
        }
        self.inner.streams.clear();
    }

    /// The latest join among this replica and the voters that its log names, be they committed or not.
    async fn latest_join(&self) -> Result<u16, Fatal<TypeConfig>> {
        let own = join_of(self.raft_id());
        // Not what the metrics show, which come a little later than what was acknowledged.
        let latest = self.inner.raft.with_raft_state(|state| {
            let voters = state.membership_state.effective().membership().voter_ids();
            voters.map(join_of).max()
        });
        Ok(latest.await?.unwrap_or_default().max(own))
    }

    fn stopped(&self, fatal: &Fatal<TypeConfig>) -> SequencerError {
        SequencerError::Stopped(self.inner.failure.get().unwrap_or_else(|| fatal.to_string()))
    }

    fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.inner.raft.metrics().borrow_watched().clone()
    }

    /// The raft id of a voter on a node.
    fn voter_on(&self, node: NodeId) -> Option<u64> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        membership.voter_ids().find(|id| membership.get_node(id) == Some(&node))
    }

    async fn change(&self, change: ChangeMembers<u64, NodeId>) -> Result<(), SequencerError> {
        match self.inner.raft.change_membership(change, false).await {
            Ok(_) => Ok(()),
            Err(error) => Err(write_error(error, |fatal| self.stopped(fatal))),
        }
    }

    async fn transfer_to(&self, id: u64, node: NodeId) -> Result<(), SequencerError> {
        let raft = &self.inner.raft;
        let before = self.metrics();
        if before.current_leader == Some(id) {
            return Ok(());
        }
        if before.state != ServerState::Leader {
            return Err(SequencerError::NotLeader(self.inner.role.borrow().leader));
        }
        raft.trigger().transfer_leader(id).await.map_err(|fatal| self.stopped(&fatal))?;
        let patience = Duration::from_millis(2 * self.inner.config.timing.election_max_ms);
        let own = self.inner.config.raft_id;
        let wait = raft.wait(Some(patience));
        let moved = wait.metrics(
            |metrics| metrics.vote > before.vote && metrics.current_leader.is_some_and(|leader| leader != own),
            "another leader",
        );
        match moved.await {
            Ok(_) => Ok(()),
            Err(error) => Err(SequencerError::Refused(format!("node {node} did not take over: {error}"))),
        }
    }
}

/// openraft's metrics start empty; the role must not tell that nothing is applied when something is.
async fn await_first_metrics(raft: &Raft, applier: &Arc<ApplierCell>) -> std::io::Result<()> {
    let applied = applier.run(|applier| Ok(applier.applied().position)).await?;
    let applied = applied.as_ref().map(log_id);
    let wait = raft.wait(None);
    // An error means that it stopped already, which the role tells.
    drop(wait.metrics(|metrics| metrics.last_applied >= applied, "first metrics").await);
    Ok(())
}

fn not_leader(forward: &ForwardToLeader<TypeConfig>) -> SequencerError {
    SequencerError::NotLeader(forward.leader_node)
}

fn write_failure(error: ClientWriteError<TypeConfig>) -> SequencerError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => not_leader(&forward),
        ClientWriteError::LogEntryDiscarded(_) => SequencerError::Unknown(error.to_string()),
        ClientWriteError::ChangeMembershipError(error) => SequencerError::Refused(error.to_string()),
        ClientWriteError::PreconditionFailed(error) => SequencerError::Refused(error.to_string()),
    }
}

fn write_error(
    error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    stopped: impl Fn(&Fatal<TypeConfig>) -> SequencerError,
) -> SequencerError {
    match error {
        RaftError::APIError(error) => write_failure(error),
        RaftError::Fatal(fatal) => stopped(&fatal),
    }
}

/// The outcome of a queued proposal.
async fn outcome<E>(
    group: RaftGroup,
    answer: impl Future<Output = Result<ClientWriteResult<TypeConfig>, E>>,
) -> Result<u64, SequencerError> {
    match answer.await {
        Ok(Ok(written)) => Ok(written.log_id.index),
        Ok(Err(error)) => Err(write_failure(error)),
        Err(_) => {
            let reason = group.inner.failure.get().unwrap_or_else(|| "the replica stopped meanwhile".into());
            Err(SequencerError::Unknown(reason))
        }
    }
}

#[async_trait]
impl Sequencer for RaftGroup {
    async fn submit(&self, batch: Bytes) -> Result<Proposal, SequencerError> {
        if batch.len() > BATCH_BYTES_MAX {
            let found = batch.len();
            return Err(SequencerError::Refused(format!("a batch of {found} bytes; the limit is {BATCH_BYTES_MAX}")));
        }
        // openraft takes proposals until it has noticed; their fate would be unknown for nothing.
        if let Some(failure) = self.inner.failure.get() {
            return Err(SequencerError::Stopped(failure));
        }
        let (responder, answer) = ProgressResponder::complete_only();
        let queued = self.inner.raft.client_write_ff(Batch(batch), Some(responder)).await;
        queued.map_err(|fatal| self.stopped(&fatal))?;
        Ok(Proposal::new(outcome(self.clone(), answer)))
    }

    fn role(&self) -> watch::Receiver<RoleView> {
        self.inner.role.clone()
    }

    async fn read_barrier(&self) -> Result<u64, SequencerError> {
        match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => Ok(read.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => Err(not_leader(&forward)),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error))) => {
                Err(SequencerError::Unknown(error.to_string()))
            }
            Err(RaftError::Fatal(fatal)) => Err(self.stopped(&fatal)),
        }
    }

    async fn add_learner(&self, replica: u64, node: NodeId) -> Result<(), SequencerError> {
        let known = self.metrics().membership_config.membership().get_node(&replica).copied();
        if let Some(other) = known.filter(|known| *known != node) {
            return Err(SequencerError::Refused(format!("raft id {replica} belongs to node {other}")));
        }
        match self.inner.raft.add_learner(replica, node, false).await {
            Ok(_) => Ok(()),
            Err(error) => Err(write_error(error, |fatal| self.stopped(fatal))),
        }
    }

    async fn remove_learners(&self, replicas: Vec<u64>) -> Result<(), SequencerError> {
        self.change(ChangeMembers::RemoveNodes(replicas.into_iter().collect())).await
    }

    async fn change_voters(&self, replicas: Vec<u64>) -> Result<(), SequencerError> {
        let replicas: BTreeSet<u64> = replicas.into_iter().collect();
        if replicas.is_empty() {
            return Err(SequencerError::Refused("a group needs a voter".into()));
        }
        self.change(ChangeMembers::ReplaceAllVoters(replicas)).await
    }

    async fn transfer_leader(&self, to: NodeId) -> Result<(), SequencerError> {
        match self.voter_on(to) {
            Some(id) => self.transfer_to(id, to).await,
            None => Err(SequencerError::Refused(format!("node {to} is not a voter"))),
        }
    }

    async fn step_down(&self) -> Result<(), SequencerError> {
        let metrics = self.metrics();
        if metrics.state != ServerState::Leader {
            return Ok(());
        }
        let membership = metrics.membership_config.membership();
        let others = membership.voter_ids().filter(|id| *id != self.inner.config.raft_id);
        let reached = |id: &u64| metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
        let Some(best) = others.max_by_key(|id| reached(id)) else {
            return Err(SequencerError::Refused("there is no other voter".into()));
        };
        self.transfer_to(best, membership.get_node(&best).copied().unwrap_or_default()).await
    }

    async fn snapshot_now(&self) -> Result<u64, SequencerError> {
        let inner = &self.inner;
        let stopped = |error: String| SequencerError::Stopped(inner.failure.get().unwrap_or(error));
        let applied = inner.applier.run(|applier| Ok(applier.applied().position)).await;
        let applied = applied.map_err(|error| stopped(error.to_string()))?;
        let Some(wanted) = applied.as_ref().map(log_id) else {
            return Err(SequencerError::Refused("nothing is applied yet".into()));
        };
        // openraft ignores the request while another snapshot is being made: ask again then.
        let patience = Duration::from_millis(inner.config.timing.election_max_ms);
        loop {
            inner.raft.trigger().snapshot().await.map_err(|fatal| self.stopped(&fatal))?;
            let wait = inner.raft.wait(Some(patience));
            match wait.metrics(|metrics| metrics.snapshot >= Some(wanted), "a snapshot").await {
                Ok(made) => return Ok(made.snapshot.map_or(0, |upto| upto.index)),
                Err(WaitError::Timeout(..)) => {}
                Err(error @ WaitError::ShuttingDown) => return Err(stopped(error.to_string())),
            }
        }
    }

    async fn purge(&self, index: u64) -> Result<(), SequencerError> {
        self.inner.raft.trigger().purge_log(index).await.map_err(|fatal| self.stopped(&fatal))
    }

    async fn shutdown(&self) {
        self.end().await;
        self.inner.applier.close().await;
        self.inner.log.close();
    }
}
