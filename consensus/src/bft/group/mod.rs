//! The shell of a member: one replica of one Byzantine group, with its log, its transport, its timers and its
//! applier.
//!
//! One task owns the [`super::Machine`]: it turns what happens into inputs, and carries out what the machine wants,
//! in order. It never waits for a disk, a peer or the applier; their answers come back to it as events. A write that
//! fails stops the replica, and nothing leaves it any more.
//!
//! Two stores: the group's log has what was decided, as any engine's log has it, with the proof beside each entry, and
//! has it for good before the state has it at all; `wal` has what the member wrote down before it voted. A replica votes
//! only with the records of its votes: see `start` and [`super::Admission`].
//!
//! Code map: `start` (before the machine runs), `task` (the loop), `carry` (what the machine wants done), `wal` and
//! `decided` (bytes on disk), `caught` (proofs of double votes), `arrivals` (what comes), `outbox` (what leaves), `catchup`
//! (a member that is behind), `others` (whom it asks), `places` (what others are told of a snapshot), `sequencer` (what the
//! host asks for).
//!
//! When the committee in force has another engine, the entry that brought it was the last: the task does nothing more
//! (`task::Task::over`) and waits to be taken down by whoever starts the other engine.

mod arrivals;
mod carry;
mod catchup;
mod caught;
mod decided;
mod others;
mod outbox;
mod places;
mod sequencer;
mod start;
mod task;
mod wal;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use borsh::BorshDeserialize;
use bytes::Bytes;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, NodeId};
use ledger::keys::NodeKeys;
use ledger::limits::{PEER_MESSAGE_CALLS_MAX, PEER_QUESTIONS_MAX};
use parking_lot::Mutex;
use storage::LogStore;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use self::arrivals::{Arrivals, Calls};
use self::catchup::Progress;
use self::outbox::{CALL_MESSAGES_BYTES_MAX, Counters, Outbox};
use self::places::Places;
use self::task::{Command, Inputs, Task};
use super::api::BftTiming;
use super::{CHAIN_VERSION, Chain, Message};
use crate::port::{Applier, Position, RoleView, join_of};
use crate::raft::failure::Failure;
use crate::raft::fetch::Lender;
use crate::raft::log::Log;
use crate::raft::machine::ApplierCell;
use crate::raft::meetings;
use crate::raft::network::Sender;
use crate::raft::running::Running;
use crate::raft::snapshot::Snapshots;
use crate::raft::{Founding, HandleError, RaftGroupConfig, Replica, Standing, StartError, serve, vouch, wire};

pub(crate) use self::catchup::decided_before;
pub use self::caught::Caught;
pub use self::outbox::Traffic;

/// Room for submissions that wait for their fate, in units; whoever submits more waits. Each takes one, and one more
/// for every [`ROOM_UNIT_BYTES`] of its batch. Less than the machine takes, so that it has room for readers' blanks.
const ROOM: usize = 48;
const ROOM_UNIT_BYTES: usize = 256 * 1024;
/// Commands that wait to be taken up.
const COMMANDS_MAX: usize = 64;
const _: () = assert!(ledger::limits::BATCH_BYTES_MAX / ROOM_UNIT_BYTES < ROOM, "the largest batch has room");

/// Around the messages of a call.
const FRAMING_BYTES_MAX: usize = 64;

/// The host's checks of a batch before this replica votes for it: form, limits, signatures and the time stamp.
#[async_trait]
pub trait Judge: Send + Sync + 'static {
    /// Judges a batch. `agreed` says that more than two thirds of the members have found its time good already, so
    /// that it need not be near this node's clock. The error is for people.
    async fn judge(&self, batch: Bytes, agreed: bool) -> Result<(), String>;
}

/// What a replica of a Byzantine group needs beside what any replica does.
pub struct BftParts {
    /// The cluster, which ballots name.
    pub cluster: ClusterId,
    /// The keys that this node signs ballots with: each as the committee of the entry names it.
    pub key: NodeKeys,
    /// Times.
    pub timing: BftTiming,
    /// The records of this replica's votes. No other replica's, and no other use.
    pub wal: Arc<dyn LogStore>,
    /// The proofs of double votes that the replica has and its state has not, from the same log.
    pub caught: Caught,
    /// The host's checks before a vote.
    pub judge: Arc<dyn Judge>,
    /// What the first value of this engine follows, the same for all members: the hash of the header that it begins
    /// behind.
    pub anchor: Hash32,
    /// The last entry before the engine; index 0 at the very beginning.
    pub start: Position,
    /// The other nodes that have a seat in the group, as the host knows them now; none where it does not know. A replica
    /// asks them beside the members that its own state has in force, which may all have left.
    pub others: Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>,
}

/// What was opened before the engine starts.
pub(crate) struct Ground {
    pub(crate) config: RaftGroupConfig,
    pub(crate) log: Log,
    pub(crate) applier: Arc<ApplierCell>,
    pub(crate) failure: Failure,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) sender: Arc<Sender>,
    pub(crate) founding: Founding,
}

/// The place in the order that an entry's note tells; `None` for bytes that are no such note.
pub(crate) fn chain_of(note: &[u8]) -> Option<Chain> {
    Chain::try_from_slice(note).ok().filter(|chain| chain.version == CHAIN_VERSION)
}

/// One replica of one Byzantine group. Clones are the same replica; it stops when the last one is dropped.
#[derive(Clone)]
pub struct BftGroup {
    inner: Arc<Inner>,
}

struct Inner {
    config: RaftGroupConfig,
    timing: BftTiming,
    /// The stint that this replica is in.
    stint: u64,
    log: Log,
    applier: Arc<ApplierCell>,
    snapshots: Arc<Snapshots>,
    failure: Failure,
    lender: Lender,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
    role: watch::Receiver<RoleView>,
    commands: mpsc::Sender<Command>,
    arrivals: Arrivals,
    /// Calls that bring messages, and all others.
    bringing: Calls,
    asking: Calls,
    room: Arc<Semaphore>,
    /// Replicas that have sent messages, by node.
    seen: Mutex<BTreeMap<NodeId, u64>>,
    /// When each node was last taken at its word that it is in a later stint.
    ahead: Mutex<BTreeMap<NodeId, Instant>>,
    running: Running,
}

impl BftGroup {
    /// Starts what was prepared: brings the state up to the log, then takes part.
    pub(crate) async fn run(ground: Ground, parts: BftParts) -> Result<Self, StartError> {
        let ready = start::ready(&ground, &parts).await?;
        let unusable =
            |error: std::io::Error| StartError::Storage { group: ground.config.group, detail: error.to_string() };
        let (_, last) = ground.log.extent().map_err(unusable)?;
        let progress = Arc::new(Progress {
            tail: watch::Sender::new(last.unwrap_or(0)),
            reached: AtomicU64::new(ready.reached()),
            votes: AtomicBool::new(ready.votes),
            round: AtomicU32::new(0),
            places: Places::at(ready.place.0, ready.place.1),
        });
        let counters = Arc::<Counters>::default();
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (arrivals, arrived) = Arrivals::new();
        let (events, happened) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(false);
        let (lender, timing) = (
            Lender::new(ground.snapshots.clone(), ground.applier.clone(), ground.sender.sending.clone()),
            parts.timing,
        );
        let (config, log, applier) = (ground.config.clone(), ground.log.clone(), ground.applier.clone());
        let (snapshots, failure) = (ground.snapshots.clone(), ground.failure.clone());
        let stint = ground.sender.stint.load(Ordering::Relaxed);
        let outbox = Outbox::new(ground.sender.clone(), failure.clone(), counters.clone());
        let shared = task::Shared { progress: progress.clone(), events };
        let (task, role) = Task::new(ground, parts, ready, outbox, shared);
        let inputs = Inputs { events: happened, commands: received, arrivals: arrived, stop: stopping };
        let running = tokio::spawn(task.run(inputs));
        let inner = Inner {
            config,
            timing,
            stint,
            log,
            applier,
            snapshots,
            failure,
            lender,
            progress,
            counters,
            role,
            commands,
            arrivals,
            bringing: Calls::new(PEER_MESSAGE_CALLS_MAX),
            asking: Calls::new(PEER_QUESTIONS_MAX),
            room: Arc::new(Semaphore::new(ROOM)),
            seen: Mutex::default(),
            ahead: Mutex::default(),
            running: Running::new(stop, running),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.inner.config.group
    }

    /// This replica's id, by [`crate::port::replica_id`].
    #[must_use]
    pub fn replica_id(&self) -> u64 {
        self.inner.config.raft_id
    }

    /// Whether this replica may vote where a committee names it. One that may not follows: see
    /// [`crate::raft::Prepared::start_bft`].
    #[must_use]
    pub fn votes(&self) -> bool {
        self.inner.progress.votes.load(Ordering::Acquire)
    }

    /// The running round of the entry that is being decided: 0 unless attempts have failed.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.inner.progress.round.load(Ordering::Acquire)
    }

    /// Messages to other members so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.inner.counters.read()
    }

    /// The replicas of the group that vote. The committee tells their nodes, and their messages which replica of the
    /// node it is; none before all were heard.
    #[must_use]
    pub fn replicas(&self) -> Option<Vec<Replica>> {
        let voters = self.inner.role.borrow().voters.clone();
        let seen = self.inner.seen.lock();
        let id = |node: NodeId| {
            if node == self.inner.config.node { Some(self.replica_id()) } else { seen.get(&node).copied() }
        };
        voters.into_iter().map(|node| Some(Replica { id: id(node)?, node, votes: true })).collect()
    }

    /// Answers a request that the replica on node `from` sent through its [`crate::raft::RaftTransport`]. The
    /// transport answers for `from`; that node may speak for no other replica.
    ///
    /// # Errors
    /// [`HandleError`]; the caller tries again in its own time.
    pub async fn handle(&self, from: NodeId, kind: u8, payload: Bytes) -> Result<Bytes, HandleError> {
        let inner = &self.inner;
        let request = serve::open((inner.config.raft_id, inner.config.node), from, kind, payload)?;
        let own = self.stint();
        serve::of_stint(own, kind, &request).inspect_err(|_| {
            if request.stint > own {
                self.ahead(from);
            }
        })?;
        let calls = if kind == wire::BFT_MESSAGES { &inner.bringing } else { &inner.asking };
        let _open = calls.open(from).ok_or(HandleError::Busy(from))?;
        let body = &request.body;
        match kind {
            wire::BFT_MESSAGES => {
                if body.len() > CALL_MESSAGES_BYTES_MAX + FRAMING_BYTES_MAX {
                    return Err(HandleError::Malformed(format!("messages of {} bytes", body.len())));
                }
                let messages = wire::body::<Vec<Message>>(body).map_err(serve::malformed)?;
                inner.seen.lock().insert(from, request.from);
                let put = inner.arrivals.put(from, messages).await;
                put.map_err(|_| HandleError::Stopped(self.reason()))?;
                Ok(wire::reply(&()))
            }
            wire::BFT_DECIDED => {
                let ask = wire::body(body).map_err(serve::malformed)?;
                Ok(wire::reply(&catchup::answer(&inner.log, &inner.progress, ask).await?))
            }
            wire::BFT_PLACE => {
                let ask = wire::body::<vouch::Ask>(body).map_err(serve::malformed)?;
                Ok(wire::reply(&inner.progress.places.answer(ask).await))
            }
            wire::SNAPSHOT_MEET => {
                let meet = wire::body(body).map_err(serve::malformed)?;
                Ok(wire::reply(&meetings::answer(&inner.snapshots, &inner.applier, from, meet).await?))
            }
            // One that may have forgotten what it promised says nothing that others could rely on.
            wire::STANDING => Ok(wire::reply(&if self.votes() { Standing::Begun } else { Standing::Unsure })),
            wire::LATEST_JOIN => Ok(wire::reply(&self.latest_join())),
            wire::STINT => Ok(wire::reply(&own)),
            kind => serve::lend(&inner.lender, from, kind, body).await,
        }
    }

    /// A node says that it is in a later stint, with every request, and whatever is true: it is asked for what was
    /// decided before, once in the time that a question has. It says so again when there is no room for it now.
    fn ahead(&self, from: NodeId) {
        let inner = &self.inner;
        let (now, rest) = (Instant::now(), Duration::from_millis(inner.timing.repeat_ms));
        let mut ahead = inner.ahead.lock();
        let due = ahead.get(&from).is_none_or(|last| now.duration_since(*last) >= rest);
        if due && inner.commands.try_send(Command::Ahead(from)).is_ok() {
            ahead.insert(from, now);
        }
    }

    /// The stint that this replica is in.
    fn stint(&self) -> u64 {
        self.inner.stint
    }

    /// Stops, and gives the applier back for another engine; none when it was shut down before.
    pub(crate) async fn retire(&self) -> Option<Box<dyn Applier>> {
        self.end().await;
        let applier = self.inner.applier.take().await;
        self.inner.log.close();
        applier
    }

    /// Ends the task, and with it everything that it has begun.
    async fn end(&self) {
        self.inner.running.end(self.inner.config.group).await;
    }

    /// The latest join among this replica and those that it has heard.
    fn latest_join(&self) -> u16 {
        let own = join_of(self.replica_id());
        let seen = self.inner.seen.lock();
        seen.values().map(|id| join_of(*id)).fold(own, u16::max)
    }

    /// Why the replica has stopped.
    fn reason(&self) -> String {
        self.inner.failure.get().unwrap_or_else(|| "the replica was shut down".to_owned())
    }
}
