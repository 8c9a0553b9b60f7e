//! A replica of whichever engine its group has, so that a host need not know which, nor when that changes.
//!
//! Owns the one handle of a replica over all stints of its group, what members were caught at in any of them and the
//! state does not have yet ([`Caught`]), and the task that takes it from one engine to the other (`keeper`). What such a
//! change leaves on the disk, and how a start goes on from there, is `raft::stint`'s.
//! Never does: decide that the engine changes. The state says which one is in force ([`crate::port::Applier::order`]).

mod keeper;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use ledger::Engine;
use ledger::ballot::Equivocation;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, NodeId};
use ledger::keys::NodeKeys;
use parking_lot::RwLock;
use storage::LogStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::keeper::Keeper;
use crate::bft::{BftGroup, BftParts, BftTiming, Caught, Chain, Judge};
use crate::port::{Order, Position, RoleView, SequencerError};
use crate::raft::{Follower, HandleError, Prepared, RaftGroup, Replica, StartError};
use crate::sequencer::{Proposal, Sequencer};

/// What a host gives a replica beside what was opened, for whichever engine it runs.
#[derive(Clone)]
pub struct Means {
    /// The cluster, which ballots name.
    pub cluster: ClusterId,
    /// The keys that this node signs ballots with: each as the committee of the entry names it.
    pub key: NodeKeys,
    /// Times of the Byzantine engine.
    pub timing: BftTiming,
    /// The records of this replica's votes under the Byzantine engine. No other replica's, and no other use.
    pub wal: Arc<dyn LogStore>,
    /// The host's checks before a vote.
    pub judge: Arc<dyn Judge>,
    /// The other nodes that have a seat in the group, as the host knows them now: whom a replica asks where the group is
    /// that nobody leads, or whose own state knows members of long ago.
    pub others: Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>,
}

impl Means {
    fn parts(&self, order: &Order, caught: Caught) -> BftParts {
        BftParts {
            cluster: self.cluster,
            key: self.key.clone(),
            timing: self.timing,
            wal: self.wal.clone(),
            caught,
            judge: self.judge.clone(),
            anchor: order.anchor,
            // Where a group begins with this engine, no leader has had a term before.
            start: order.after.unwrap_or(Position { term: 1, leader: 0, index: 0 }),
            others: self.others.clone(),
        }
    }
}

/// The note beside the state at the entry that hands over: what the engine that begins behind it finds there. `members`
/// are the replicas that the committee in force names, by id and node.
///
/// # Errors
/// [`SequencerError::Refused`] when nobody or somebody twice is among them.
pub fn first_note(
    order: &Order,
    committee: &ledger::Committee,
    members: &[(u64, NodeId)],
) -> Result<Vec<u8>, SequencerError> {
    match order.engine {
        Engine::Raft => crate::raft::first_note(members),
        Engine::Bft => Ok(Chain::start(order.stint(), order.anchor, committee).encode().to_vec()),
    }
}

/// The engine that a replica runs.
#[derive(Clone)]
enum Running {
    /// Of a group whose members trust one another.
    Raft(RaftGroup),
    /// Of such a group as well, without a vote: it may have forgotten what it promised.
    Follower(Follower),
    /// Of a group that bears members that lie.
    Bft(BftGroup),
    /// None: this one is about to start.
    Between(Engine),
    /// None: it could not go over, and why.
    Ended(Engine, String),
}

/// One replica of one group. Clones are the same replica; it stops when the last one is dropped.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    group: GroupId,
    raft_id: u64,
    shared: Arc<Shared>,
    role: watch::Receiver<RoleView>,
    caught: Caught,
    stop: watch::Sender<bool>,
    keeper: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What the handle and the keeper share.
struct Shared {
    running: RwLock<Running>,
    /// How often what runs has changed.
    changes: AtomicU64,
}

impl Shared {
    fn new(running: Running) -> Self {
        Self { running: RwLock::new(running), changes: AtomicU64::new(0) }
    }

    fn set(&self, running: Running) {
        // Before the engine stops that was there: whoever is told that it has can see why.
        *self.running.write() = running;
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

/// Calls the same function of whichever engine runs. Where none does, `$why` is the reason if there will be none any
/// more.
macro_rules! either {
    ($group:expr, $one:ident => $call:expr, $why:ident => $other:expr) => {
        match $group.running() {
            Running::Raft($one) => $call,
            Running::Follower($one) => $call,
            Running::Bft($one) => $call,
            none => {
                let $why = none.reason();
                $other
            }
        }
    };
}

impl Running {
    /// Why there is no engine any more.
    fn reason(self) -> Option<String> {
        match self {
            Self::Ended(_, why) => Some(why),
            Self::Raft(_) | Self::Follower(_) | Self::Bft(_) | Self::Between(_) => None,
        }
    }
}

/// As `either`, for what a host asks of an engine.
macro_rules! ask {
    ($group:expr, $one:ident => $call:expr) => {{
        let changes = $group.changes();
        let result = either!($group, $one => $call, why => Err(absent(why)));
        $group.told(changes, result)
    }};
}

/// Why a request to the engine does not go through while none runs: as far as this replica knows, nobody leads.
fn absent(why: Option<String>) -> SequencerError {
    why.map_or(SequencerError::NotLeader(None), SequencerError::Stopped)
}

impl Group {
    /// Starts the engine that the state has in force, and from then on always the one that it has.
    ///
    /// # Errors
    /// [`StartError`] when the state does not say which one that is, and whatever keeps that engine from starting.
    pub async fn start(prepared: Prepared, means: Means) -> Result<Self, StartError> {
        let (group, raft_id) = prepared.identity();
        let caught = Caught::open(means.wal.clone(), means.cluster, (group, raft_id))?;
        let (stop, stopping) = watch::channel(false);
        let (keeper, shared, role) = Keeper::start(prepared, means, caught.clone()).await?;
        let keeper = tokio::sync::Mutex::new(Some(tokio::spawn(keeper.run(stopping))));
        Ok(Self { inner: Arc::new(Inner { group, raft_id, shared, role, caught, stop, keeper }) })
    }

    fn running(&self) -> Running {
        self.inner.shared.running.read().clone()
    }

    fn changes(&self) -> u64 {
        self.inner.shared.changes.load(Ordering::Acquire)
    }

    /// What an engine has told that has run since so many changes. One that was stopped meanwhile to make room for
    /// another one has not failed: only the fate of what it was asked is not known.
    fn told<T>(&self, changes: u64, result: Result<T, SequencerError>) -> Result<T, SequencerError> {
        match result {
            Err(SequencerError::Stopped(why)) if self.changes() != changes => Err(SequencerError::Unknown(why)),
            result => result,
        }
    }

    /// Which engine it is.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match &*self.inner.shared.running.read() {
            Running::Raft(_) | Running::Follower(_) => Engine::Raft,
            Running::Bft(_) => Engine::Bft,
            Running::Between(engine) | Running::Ended(engine, _) => *engine,
        }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.inner.group
    }

    /// This replica's id, by [`crate::port::replica_id`].
    #[must_use]
    pub fn raft_id(&self) -> u64 {
        self.inner.raft_id
    }

    /// The running round of the entry that is being decided; 0 where attempts do not fail.
    #[must_use]
    pub fn round(&self) -> u32 {
        match &*self.inner.shared.running.read() {
            Running::Bft(one) => one.round(),
            Running::Raft(_) | Running::Follower(_) | Running::Between(_) | Running::Ended(..) => 0,
        }
    }

    /// Proofs that a member has signed two ballots that exclude each other, by name: those that this replica has found,
    /// now or before it was started, and that its state does not have yet. They outlive the process, and are shown
    /// until [`Group::settled`].
    #[must_use]
    pub fn evidence(&self) -> watch::Receiver<BTreeMap<Hash32, Equivocation>> {
        self.inner.caught.follow()
    }

    /// The state has these proofs, whoever has found them: to be told of every one, also of those that it had before.
    pub fn settled(&self, proofs: &[Equivocation]) {
        self.inner.caught.settle(proofs);
    }

    /// The replicas of the group, as far as the engine knows them.
    #[must_use]
    pub fn replicas(&self) -> Option<Vec<Replica>> {
        either!(self, one => one.replicas(), _why => None)
    }

    /// The nodes whose replicas decide the next entry; `None` while the engine does not know them. Members of a Byzantine group
    /// follow the committee in force, whether they have ever been heard here or not: who is gone for good can be shut out.
    #[must_use]
    pub fn voters(&self) -> Option<BTreeSet<NodeId>> {
        match self.engine() {
            Engine::Bft => Some(self.inner.role.borrow().voters.iter().copied().collect()),
            Engine::Raft => {
                let replicas = self.replicas()?;
                Some(replicas.iter().filter(|one| one.votes).map(|one| one.node).collect())
            }
        }
    }

    /// Gives a Raft group its first members; the members of a Byzantine group follow from its state. Does nothing
    /// where the group has begun.
    ///
    /// # Errors
    /// [`SequencerError::Refused`] when this replica is not among the members.
    pub async fn bootstrap(&self, members: Vec<(u64, NodeId)>) -> Result<(), SequencerError> {
        let changes = self.changes();
        let result = match self.running() {
            Running::Raft(one) => one.bootstrap(members).await,
            Running::Follower(_) | Running::Bft(_) | Running::Between(_) => Ok(()),
            Running::Ended(_, why) => Err(SequencerError::Stopped(why)),
        };
        self.needed(changes, result)
    }

    /// Has a replica that Raft orders stand for election now, if a majority would vote for it. Does nothing where somebody
    /// leads, and under any other engine.
    ///
    /// # Errors
    /// [`SequencerError::Stopped`].
    pub async fn campaign(&self) -> Result<(), SequencerError> {
        let changes = self.changes();
        let result = match self.running() {
            Running::Raft(one) => one.campaign().await,
            Running::Follower(_) | Running::Bft(_) | Running::Between(_) => Ok(()),
            Running::Ended(_, why) => Err(SequencerError::Stopped(why)),
        };
        self.needed(changes, result)
    }

    /// As [`Group::told`], of what the engine that runs now may need. One that was stopped meanwhile to make room for another
    /// one needs nothing: a group that goes over has begun. So it is with a replica that finds what hands over in its own log
    /// when it is started, and goes over while its host is still starting it.
    fn needed(&self, changes: u64, result: Result<(), SequencerError>) -> Result<(), SequencerError> {
        match self.told(changes, result) {
            Err(SequencerError::Unknown(_)) => Ok(()),
            result => result,
        }
    }

    /// Answers a request that the replica on node `from` sent.
    ///
    /// # Errors
    /// [`HandleError`]; the caller tries again in its own time.
    pub async fn handle(&self, from: NodeId, kind: u8, payload: Bytes) -> Result<Bytes, HandleError> {
        either!(
            self,
            one => one.handle(from, kind, payload).await,
            why => Err(why.map_or(HandleError::Changing, HandleError::Stopped))
        )
    }
}

#[async_trait]
impl Sequencer for Group {
    async fn submit(&self, batch: Bytes) -> Result<Proposal, SequencerError> {
        ask!(self, one => one.submit(batch).await)
    }

    fn role(&self) -> watch::Receiver<RoleView> {
        self.inner.role.clone()
    }

    async fn read_barrier(&self) -> Result<u64, SequencerError> {
        ask!(self, one => one.read_barrier().await)
    }

    async fn add_learner(&self, replica: u64, node: NodeId) -> Result<(), SequencerError> {
        ask!(self, one => one.add_learner(replica, node).await)
    }

    async fn remove_learners(&self, replicas: Vec<u64>) -> Result<(), SequencerError> {
        ask!(self, one => one.remove_learners(replicas).await)
    }

    async fn change_voters(&self, replicas: Vec<u64>) -> Result<(), SequencerError> {
        ask!(self, one => one.change_voters(replicas).await)
    }

    async fn transfer_leader(&self, to: NodeId) -> Result<(), SequencerError> {
        ask!(self, one => one.transfer_leader(to).await)
    }

    async fn step_down(&self) -> Result<(), SequencerError> {
        // Whoever runs no engine does not lead.
        either!(self, one => one.step_down().await, _why => Ok(()))
    }

    async fn snapshot_now(&self) -> Result<u64, SequencerError> {
        ask!(self, one => one.snapshot_now().await)
    }

    async fn purge(&self, index: u64) -> Result<(), SequencerError> {
        ask!(self, one => one.purge(index).await)
    }

    async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        // Whoever comes second waits here until the replica has ended.
        let mut keeper = self.inner.keeper.lock().await;
        if let Some(running) = keeper.take()
            && let Err(error) = running.await
        {
            tracing::error!(group = %self.inner.group, %error, "the replica did not stop cleanly");
        }
    }
}
