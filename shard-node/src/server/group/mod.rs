//! One group on this node, as everybody else on it sees the group.
//!
//! Owns what the groups of a node share ([`HostContext`]) and what a running group is reached by
//! ([`GroupHandle`]). `open` opens and starts a group, `task` is the task that owns its driver, `outputs`
//! carries out what the driver asks, `turns` says what may be proposed beside what, `evidence` takes what the
//! engine has caught a member at, `ended` tells of mail to and from shards that have ended. A handle never touches the driver: it sends inputs, and they are lost where the
//! task's queue is full.

mod admit;
mod ended;
mod evidence;
mod open;
mod outputs;
mod task;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use beacon::watch::{Watch, WatchMode, policy_key};
use beacon::{Readiness, epochs};
use consensus::bft::BftTiming;
use consensus::engine::Group;
use consensus::port::{RoleView, SequencerError, Timing};
use consensus::sequencer::Sequencer;
use ledger::Certificate;
use ledger::genesis::{Genesis, VerifyMode};
use ledger::ids::{ClusterId, GroupId, Height, JobId, NodeId, TimeMs};
use ledger::keys::NodeKeys;
use ledger::view::{ReadFault, StateReader, View};
use storage::SharedResources;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::driver::{Input, SystemView};
use crate::core::peer::PeerMessage;
use crate::server::alarms::Alarms;
use crate::server::checks::Known;
use crate::server::clock::{Clock, Readings};
use crate::server::ingest::{Arrivals, Checked, Waiters};
use crate::server::links::{Links, NodeTraffic};
use crate::server::replica::{DbReader, OpenError, ReplicaShare, ViewReader};
use crate::server::trimming::Trimming;
use crate::server::vault::Vault;

pub use admit::{AdmitError, Way};
pub use open::{FIRST_JOIN, Logs, OpenGroup, Seat, first_raft_id};
pub use turns::Turns;

/// Proposals in flight per group.
pub const PIPELINE: usize = 3;

/// What is the same for all groups of a node.
#[derive(Clone)]
pub struct HostContext {
    /// The genesis.
    pub genesis: Arc<Genesis>,
    /// This node.
    pub node: NodeId,
    /// The keys that the node signs with, by the committees that name it.
    pub key: NodeKeys,
    /// How far client signatures are checked.
    pub verify: VerifyMode,
    /// Times of Raft.
    pub timing: Timing,
    /// Times of the Byzantine engine.
    pub bft: BftTiming,
    /// Log entries between two snapshots.
    pub snapshot_every_entries: u64,
    /// What gives back the space of shards that were cut.
    pub trimming: Arc<Trimming>,
    /// Shared caches and threads of all databases.
    pub resources: SharedResources,
    /// Seals what is kept of channels.
    pub vault: Arc<Vault>,
    /// Ways to other nodes.
    pub links: Arc<Links>,
    /// The process's clocks.
    pub clock: Clock,
    /// Clocks of the nodes as of the last exchange; none before the first.
    pub readings: watch::Receiver<Option<Readings>>,
    /// What goes through the node's sockets.
    pub traffic: NodeTraffic,
    /// Rings when a group's leader or the beacon's registry may have changed.
    pub changed: Arc<tokio::sync::Notify>,
    /// Ends everything; in the context of one group, that group.
    pub stop: CancellationToken,
    /// Waits for everything; in the context of one group, for that group's tasks.
    pub tasks: TaskTracker,
}

/// A running group, for everybody else on the node.
pub struct GroupHandle {
    /// The group.
    pub group: GroupId,
    /// Consensus, by whichever engine the committee in force names.
    pub engine: Group,
    /// State and tree.
    pub share: ReplicaShare,
    /// Who waits for what.
    pub waiters: Arc<Waiters>,
    /// What has arrived and is not checked yet.
    pub arrivals: Arrivals,
    /// The highest certificate; tells of every one that is kept.
    pub certified: watch::Receiver<Option<Certificate>>,
    /// The block up to which this replica has checked and signed.
    pub attested: Arc<AtomicU64>,
    /// What an operator must know.
    pub alarms: Arc<Alarms>,
    /// The cluster.
    pub cluster: ClusterId,
    /// Proposals of this leadership were lost, so the log may hold transactions that nobody waits for.
    pub lost_proposals: Arc<AtomicBool>,
    /// Who may propose beside whom.
    pub turns: Turns,
    /// The shard has ended: others own its accounts.
    over: AtomicBool,
    inputs: mpsc::Sender<Input>,
    verify: VerifyMode,
    known: Known,
    /// Ends the group's tasks, and no other group's.
    pub(super) stop: CancellationToken,
    /// The group's tasks.
    pub(super) tasks: TaskTracker,
}

/// Why a group cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Its state.
    #[error("{0}: {1}")]
    Open(GroupId, #[source] OpenError),
    /// Its log.
    #[error("{0}: {1}")]
    Log(GroupId, #[source] storage::StorageError),
    /// Its engine.
    #[error("{0}")]
    Start(#[from] consensus::raft::StartError),
    /// Its first membership.
    #[error("{0}: {1}")]
    Bootstrap(GroupId, #[source] SequencerError),
    /// What the state holds.
    #[error("{0}: {1}")]
    Read(GroupId, #[source] ReadFault),
}

impl GroupError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open(_, error) => error.code(),
            Self::Log(_, error) => error.code(),
            Self::Start(error) => error.code(),
            Self::Bootstrap(..) => "raft_bootstrap",
            Self::Read(..) => "state_unreadable",
        }
    }
}

impl GroupHandle {
    /// Hands over checked transactions; returns them when the group's queue is full.
    ///
    /// # Errors
    /// The transactions that were not taken.
    pub fn submit(&self, txs: Vec<Checked>) -> Result<(), Vec<Checked>> {
        if txs.is_empty() {
            return Ok(());
        }
        // Before it is attested in `every`; or before it is voted for.
        if self.verify == VerifyMode::Every || self.engine.engine().checks_before_vote() {
            self.known.extend(txs.iter().map(|tx| tx.mark));
        }
        let bytes = txs.iter().map(|tx| tx.bytes.clone()).collect();
        self.inputs.try_send(Input::Submit(bytes)).map_err(|_| txs)
    }

    /// Asks the other replicas for the certificate of an earlier block that is missing here. What is
    /// found is kept, and [`GroupHandle::certified`] tells of it.
    pub fn want_certificate(&self, height: Height) {
        let _ = self.inputs.try_send(Input::Want(height));
    }

    /// Asks for a block where the last one is old, so that what the group holds can be proved as of about now. It is made if
    /// this replica leads.
    pub fn refresh(&self) {
        let _ = self.inputs.try_send(Input::Refresh);
    }

    /// Hands over a peer's message; it is lost when the group's queue is full. Nobody need know who is silent while
    /// nobody watches, nor again and again that a committee is ready which waits for its epoch.
    pub fn peer(&self, from: NodeId, message: PeerMessage) {
        let idle = match &message {
            PeerMessage::Silence(_) => !self.watches(),
            PeerMessage::Ready(ready) => self.holds_back(ready),
            _ => false,
        };
        if idle {
            return;
        }
        let _ = self.inputs.try_send(Input::Peer { from, message: Box::new(message) });
    }

    /// The view shows that the shard has ended, by this job if it is known here that far: from now on nothing is taken.
    pub fn end(&self, job: Option<JobId>) {
        self.over.store(true, Ordering::Release);
        if let Some(job) = job {
            let _ = self.inputs.try_send(Input::JobCommitted(job));
        }
    }

    /// Whether the shard has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whether this is the beacon, and does something about nodes that vanish.
    fn watches(&self) -> bool {
        self.group == GroupId::BEACON
            && matches!(
                self.share.state.load::<Watch>(&policy_key()),
                Ok(Some(Watch { mode: WatchMode::DryRun | WatchMode::Replace, .. }))
            )
    }

    /// Whether this is the beacon, and a prepared committee waits for the next epoch.
    fn holds_back(&self, ready: &Readiness) -> bool {
        let held = |reader: &dyn StateReader| epochs::holds_back(&mut View::new(reader), ready.group(), &ready.coming);
        self.group == GroupId::BEACON && with_reader(&self.share, held).unwrap_or(false)
    }

    /// Why the group has stopped on this node, if it has.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        self.share.halt.reason().or_else(|| self.engine.role().borrow().stopped.clone())
    }

    /// The engine's view of this replica. One that has stopped leads nobody.
    #[must_use]
    pub fn role(&self) -> RoleView {
        let role = self.engine.role().borrow().clone();
        match self.share.halt.reason() {
            Some(reason) => RoleView { leads: false, leader: None, stopped: Some(reason), ..role },
            None => role,
        }
    }
}

/// Reads what a driver starts from, as one moment of the state shows it.
fn system_view(share: &ReplicaShare, group: GroupId, context: &HostContext) -> Result<SystemView, ReadFault> {
    let db = share.state.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
    SystemView::read(&ViewReader::of(&*db), group, context.verify)
}

/// The guarded clock as ingest uses it; none before the first exchange.
#[must_use]
pub fn guarded_now(context: &HostContext, members: &[NodeId]) -> Option<TimeMs> {
    let guarded_ms = context.readings.borrow().as_ref()?.guarded_ms(context.node, members)?;
    let now = i64::try_from(context.clock.tick().0).unwrap_or(i64::MAX).saturating_add(guarded_ms);
    Some(TimeMs(u64::try_from(now).unwrap_or(0)))
}

/// A reader of a share, for code that only needs [`StateReader`].
///
/// # Errors
/// [`ReadFault`] while the state is closed.
pub fn with_reader<T>(share: &ReplicaShare, work: impl FnOnce(&dyn StateReader) -> T) -> Result<T, ReadFault> {
    let db = share.state.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
    Ok(work(&DbReader(&*db)))
}

#[cfg(test)]
mod tests;
