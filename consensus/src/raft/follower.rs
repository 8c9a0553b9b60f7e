//! Following without a vote, under raft: a replica that may have forgotten what it promised in this stint.
//!
//! Raft counts on every promise of a voter, so such a replica makes none: it answers no append, no vote and no snapshot
//! that a leader sends, and nothing is ever decided with it. It asks the others in turn for what they have applied, which is
//! committed, and applies it as well; where their logs begin later, it takes a snapshot. So its state is there to be read, to
//! be signed and to be lent, until its seat goes to another replica or another engine takes over, under which it may come to
//! vote (see [`crate::bft::Admission`]). It writes nothing into its log: what was not durable is asked for again.
//!
//! Others are believed what they say is committed, as with a snapshot: under raft, members do not lie.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::ids::{GroupId, NodeId};
use openraft::entry::RaftEntry;
use tokio::sync::watch;

use super::codec;
use super::config::{APPEND_ENTRIES_MAX, RaftGroupConfig};
use super::failure::Failure;
use super::fetch::{self, Lender, Lookout};
use super::found::Standing;
use super::group::{HandleError, Replica};
use super::log::Log;
use super::machine::ApplierCell;
use super::network::{Peer, Sender};
use super::prepare::Prepared;
use super::role::nodes;
use super::running::Running;
use super::serve::{self, malformed};
use super::snapshot::Snapshots;
use super::types::position;
use super::vouch;
use super::wire::{self, APPEND_BYTES_MAX};
use crate::port::{AppliedState, Applier, Committed, Position, RoleView, SequencerError, any_replica, join_of};
use crate::sequencer::{Proposal, Sequencer};

/// So long a question waits for what is not committed yet.
const WAIT: Duration = Duration::from_millis(500);

/// Who else has a seat in the group.
pub(crate) type Others = Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>;

/// A question for what a replica has applied.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) struct Ask {
    /// Index of the first entry.
    from: u64,
}

/// Its answer.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) struct Answer {
    /// Who leads, as far as it knows.
    leader: Option<NodeId>,
    found: Found,
}

/// What a log has of what was asked for.
#[derive(BorshSerialize, BorshDeserialize)]
enum Found {
    /// These, with their indexes, in order and without a gap, from the first that was asked for on, in the bytes of the
    /// log. None when none is committed yet.
    Entries(Vec<(u64, Bytes)>),
    /// The log begins later: only a snapshot helps.
    Purged,
}

/// Answers a question out of the log of a replica that takes part.
pub(super) async fn answer(log: &Log, mut role: watch::Receiver<RoleView>, body: &[u8]) -> Result<Bytes, HandleError> {
    let ask = wire::body::<Ask>(body).map_err(malformed)?;
    // Whether it came or not is looked up.
    drop(tokio::time::timeout(WAIT, role.wait_for(|role| role.applied_index >= ask.from)).await);
    let (applied, leader) = {
        let now = role.borrow();
        (now.applied_index, now.leader)
    };
    let found = if applied < ask.from {
        Found::Entries(Vec::new())
    } else {
        let end = applied.min(ask.from.saturating_add(APPEND_ENTRIES_MAX - 1)).saturating_add(1);
        let entries = log.read_stored(ask.from..end, APPEND_BYTES_MAX);
        let entries = entries.map_err(|error| HandleError::Stopped(error.to_string()))?;
        match entries.first() {
            Some((index, _)) if *index == ask.from => Found::Entries(entries),
            _ => Found::Purged,
        }
    };
    Ok(wire::reply(&Answer { leader, found }))
}

/// One replica that follows. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Follower {
    inner: Arc<Inner>,
}

struct Inner {
    config: RaftGroupConfig,
    stint: u64,
    log: Log,
    applier: Arc<ApplierCell>,
    snapshots: Arc<Snapshots>,
    failure: Failure,
    lender: Lender,
    sender: Arc<Sender>,
    role: watch::Receiver<RoleView>,
    /// Who has last sent something of a later stint, and of which.
    ahead: watch::Sender<Option<(NodeId, u64)>>,
    running: Running,
}

impl Follower {
    /// Starts what was prepared.
    pub(super) async fn run(prepared: Prepared, others: Others) -> std::io::Result<Self> {
        let Prepared { config, log, applier, failure, snapshots, sender, .. } = prepared;
        let state = applier.run(|applier| Ok(applier.applied())).await?;
        let stint = sender.stint.load(Ordering::Relaxed);
        let (stop, stopping) = watch::channel(false);
        let (publish, role) = watch::channel(RoleView::default());
        let task = Task {
            node: config.node,
            group: config.group,
            pause: Duration::from_millis(config.timing.election_min_ms),
            stint,
            log: log.clone(),
            applier: applier.clone(),
            snapshots: snapshots.clone(),
            failure: failure.clone(),
            sender: sender.clone(),
            others,
            role: publish,
            state,
            turn: 0,
            silent: 0,
        };
        task.publish(None);
        let group = config.group;
        tracing::warn!(%group, "this replica may have forgotten what it promised: it follows without a vote");
        let running = tokio::spawn(task.run(stopping));
        let lender = Lender::new(snapshots.clone(), applier.clone(), sender.sending.clone());
        let inner = Inner {
            config,
            stint,
            log,
            applier,
            snapshots,
            failure,
            lender,
            sender,
            role,
            ahead: watch::Sender::new(None),
            running: Running::new(stop, running),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The replicas of the group are those who decide to know.
    pub(crate) fn replicas(&self) -> Option<Vec<Replica>> {
        None
    }

    /// Answers a request that the replica on node `from` sent: what is final, and where this one stands. It promises
    /// nothing.
    pub(crate) async fn handle(&self, from: NodeId, kind: u8, payload: Bytes) -> Result<Bytes, HandleError> {
        let inner = &self.inner;
        let request = serve::open((inner.config.raft_id, inner.config.node), from, kind, payload)?;
        serve::of_stint(inner.stint, kind, &request).inspect_err(|_| {
            if request.stint > inner.stint {
                inner.ahead.send_replace(Some((from, request.stint)));
            }
        })?;
        match kind {
            wire::STANDING => Ok(wire::reply(&Standing::Unsure)),
            wire::STINT => Ok(wire::reply(&inner.stint)),
            wire::BFT_PLACE => {
                let ask = wire::body::<vouch::Ask>(&request.body).map_err(malformed)?;
                Ok(wire::reply(&vouch::told_under_raft(*inner.applier.orders().borrow(), ask)))
            }
            wire::LATEST_JOIN => Ok(wire::reply(&self.latest_join().await?)),
            wire::BFT_DECIDED => crate::bft::decided_before(&inner.log, inner.stint, &request.body),
            wire::SNAPSHOT_ASK | wire::SNAPSHOT_READ => serve::lend(&inner.lender, from, kind, &request.body).await,
            _ => Err(HandleError::Follows),
        }
    }

    /// The latest join among this replica and the voters of its state.
    async fn latest_join(&self) -> Result<u16, HandleError> {
        let state = self.inner.applier.run(|applier| Ok(applier.applied())).await;
        let state = state.map_err(|error| HandleError::Stopped(error.to_string()))?;
        let known = codec::stored_membership(&state).map_err(malformed)?;
        let latest = known.membership().voter_ids().map(join_of).max().unwrap_or_default();
        Ok(latest.max(join_of(self.inner.config.raft_id)))
    }

    /// Who has last sent something of a later stint than this replica's, and of which, as that changes.
    pub(crate) fn ahead(&self) -> watch::Receiver<Option<(NodeId, u64)>> {
        self.inner.ahead.subscribe()
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

    async fn end(&self) {
        self.inner.running.end(self.inner.config.group).await;
    }

    /// Others decide.
    fn elsewhere(&self) -> SequencerError {
        match self.inner.failure.get() {
            Some(failure) => SequencerError::Stopped(failure),
            None => SequencerError::NotLeader(self.inner.role.borrow().leader),
        }
    }
}

#[async_trait]
impl Sequencer for Follower {
    async fn submit(&self, _batch: Bytes) -> Result<Proposal, SequencerError> {
        Err(self.elsewhere())
    }

    fn role(&self) -> watch::Receiver<RoleView> {
        self.inner.role.clone()
    }

    async fn read_barrier(&self) -> Result<u64, SequencerError> {
        Err(self.elsewhere())
    }

    async fn add_learner(&self, _replica: u64, _node: NodeId) -> Result<(), SequencerError> {
        Err(self.elsewhere())
    }

    async fn remove_learners(&self, _replicas: Vec<u64>) -> Result<(), SequencerError> {
        Err(self.elsewhere())
    }

    async fn change_voters(&self, _replicas: Vec<u64>) -> Result<(), SequencerError> {
        Err(self.elsewhere())
    }

    async fn transfer_leader(&self, _to: NodeId) -> Result<(), SequencerError> {
        Err(self.elsewhere())
    }

    async fn step_down(&self) -> Result<(), SequencerError> {
        Ok(())
    }

    async fn snapshot_now(&self) -> Result<u64, SequencerError> {
        let snapshots = self.inner.snapshots.clone();
        let made = self.inner.applier.run(move |applier| snapshots.build(applier)).await;
        let folder = made.map_err(|error| SequencerError::Stopped(error.to_string()))?;
        Ok(folder.applied.position.map_or(0, |position| position.index))
    }

    /// Does nothing: nothing is written into the log of one that only follows.
    async fn purge(&self, _index: u64) -> Result<(), SequencerError> {
        Ok(())
    }

    async fn shutdown(&self) {
        self.end().await;
        self.inner.applier.close().await;
        self.inner.log.close();
    }
}

/// What asks and applies.
struct Task {
    node: NodeId,
    group: GroupId,
    /// Between two questions, where the one before came to nothing.
    pause: Duration,
    stint: u64,
    log: Log,
    applier: Arc<ApplierCell>,
    snapshots: Arc<Snapshots>,
    failure: Failure,
    sender: Arc<Sender>,
    others: Others,
    role: watch::Sender<RoleView>,
    state: AppliedState,
    /// Whose turn it is to be asked.
    turn: usize,
    /// So many in a row have not answered.
    silent: usize,
}

impl Task {
    /// Runs until the replica is stopped.
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.changed() => {}
            () = self.follow() => {}
        }
        self.role.send_modify(|role| {
            role.leader = None;
            role.stopped = self.failure.get();
        });
    }

    /// Ends when nothing more is to be had here: another engine orders, or something has failed.
    async fn follow(&mut self) {
        let orders = self.applier.orders();
        while orders.borrow().is_some_and(|order| order.stint() == self.stint) {
            let nodes = (self.others)();
            self.turn = self.turn.wrapping_add(1);
            let Some(node) = nodes.get(self.turn % nodes.len().max(1)).copied() else {
                tokio::time::sleep(self.pause).await;
                continue;
            };
            match self.ask(node).await {
                Ok(leader) => {
                    self.silent = 0;
                    self.publish(leader);
                }
                Err(error) => {
                    tracing::debug!(group = %self.group, %node, %error, "nothing to apply");
                    self.silent += 1;
                    if self.silent >= nodes.len() {
                        self.publish(None);
                    }
                    tokio::time::sleep(self.pause).await;
                }
            }
            if self.failure.get().is_some() {
                return;
            }
        }
    }

    fn next(&self) -> u64 {
        self.state.position.map_or(0, |position| position.index).saturating_add(1)
    }

    /// Asks a node, and applies what it says. Returns who leads; the error is for people.
    async fn ask(&mut self, node: NodeId) -> Result<Option<NodeId>, String> {
        let peer = Peer::to(self.sender.clone(), any_replica(node), node);
        let request = peer.request(&Ask { from: self.next() });
        let asked = peer.call::<Answer>(wire::ENTRIES, request, peer.call_timeout() + WAIT).await;
        let Answer { leader, found } = asked.map_err(|error| error.to_string())?;
        match found {
            Found::Entries(entries) => self.apply(entries).await?,
            Found::Purged => self.install(node).await?,
        }
        Ok(leader)
    }

    async fn apply(&mut self, entries: Vec<(u64, Bytes)>) -> Result<(), String> {
        let mut committed = Vec::with_capacity(entries.len());
        for (expected, (index, bytes)) in (self.next()..).zip(&entries) {
            if *index != expected {
                return Err("it sent other entries than it was asked for".to_owned());
            }
            let entry = codec::decode_entry(*index, bytes).map_err(|error| error.to_string())?;
            let (position, payload) = (position(&entry.log_id()), codec::payload(&entry));
            committed.push(Committed { position, payload, note: None });
        }
        if committed.is_empty() {
            return Ok(());
        }
        let applied = self.applier.run(move |applier| {
            applier.apply(committed)?;
            Ok(applier.applied())
        });
        self.state = applied.await.map_err(|error| error.to_string())?;
        Ok(())
    }

    async fn install(&mut self, node: NodeId) -> Result<(), String> {
        let needed = Position { index: self.next(), ..Position::default() };
        let borrowed = fetch::borrow(&self.sender, &self.snapshots, needed, &[node]).await;
        let borrowed = borrowed.map_err(|error| error.to_string())?;
        borrowed.install(&self.snapshots, &self.applier, &self.log).await?;
        let applied = self.applier.run(|applier| Ok(applier.applied())).await;
        self.state = applied.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Tells what this replica is: as it sees itself, a learner.
    fn publish(&self, leader: Option<NodeId>) {
        let known = codec::stored_membership(&self.state).unwrap_or_default();
        let (membership, position) = (known.membership(), self.state.position.unwrap_or_default());
        let voters = nodes(membership.voter_ids().filter_map(|id| membership.get_node(&id).copied()));
        let next = RoleView {
            leads: false,
            leader,
            term: position.term,
            stint: self.stint,
            last_log_index: position.index,
            applied_index: position.index,
            voters: voters.into_iter().filter(|node| *node != self.node).collect(),
            learners: vec![self.node],
            replicated: Vec::new(),
            stopped: self.failure.get(),
        };
        self.role.send_if_modified(|last| {
            let changed = *last != next;
            *last = next;
            changed
        });
    }
}
