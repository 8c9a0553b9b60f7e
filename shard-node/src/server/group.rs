//! The task of one group: feeds its driver and carries out what the driver asks.
//!
//! One task owns the driver; everybody else sends it inputs. It never waits for consensus or for
//! peers: proposals go through a task of their own, messages into bounded queues.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use consensus::port::{RoleView, SequencerError, Timing, replica_id};
use consensus::raft::{FetchError, Prepared, RaftGroup, RaftGroupConfig};
use consensus::sequencer::Sequencer;
use ledger::Certificate;
use ledger::committee::Committee;
use ledger::crypto::SecretKey;
use ledger::genesis::{Genesis, VerifyMode};
use ledger::header::Header;
use ledger::ids::{ClusterId, GroupId, Height, NodeId, TimeMs, TxId};
use ledger::limits::{BLOCK_AHEAD_MS_MAX, CLOCK_SKEW_MS_MAX};
use ledger::machine::Driver;
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::schema;
use ledger::tx::ParsedTx;
use ledger::view::{ReadFault, StateReader, View};
use storage::{LogStore, PlainCipher, SharedResources, WriteBatch};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::driver::{DriverConfig, GroupDriver, Input, Output, SystemView, committees, contradiction};
use crate::core::executor::RefusedTx;
use crate::core::machine::CommandOutcome;
use crate::core::marks;
use crate::core::peer::PeerMessage;
use crate::core::records::{BlockRecord, ReceiptPlace};
use crate::server::alarms::{Alarms, Cause};
use crate::server::checks::{self, Known};
use crate::server::clock::{Clock, Readings};
use crate::server::ingest::{Arrivals, Checked, Waiters, id_of};
use crate::server::links::{Links, NodeTraffic, Transport};
use crate::server::replica::{Committing, DbReader, OpenError, Replica, ReplicaShare, ViewReader};

/// Inputs that wait for a group's task.
const INPUTS_MAX: usize = 4096;
/// Blocks that wait for a group's task; the commit loop waits beyond it.
const BLOCKS_MAX: usize = 64;
/// Between two timer inputs.
const TIMER: Duration = Duration::from_millis(25);
/// Between two looks for people who wait no more.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// Proposals in flight per group.
pub const PIPELINE: usize = 3;
/// Blocks between two checkpoints in the beacon.
const CHECKPOINT_EVERY: u64 = 64;

/// What is the same for all groups of a node.
#[derive(Clone)]
pub struct HostContext {
    /// The genesis.
    pub genesis: Arc<Genesis>,
    /// This node.
    pub node: NodeId,
    /// The key headers are signed with.
    pub key: SecretKey,
    /// How far client signatures are checked.
    pub verify: VerifyMode,
    /// Engine times.
    pub timing: Timing,
    /// Log entries between two snapshots.
    pub snapshot_every_entries: u64,
    /// Shared caches and threads of all databases.
    pub resources: SharedResources,
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
    /// Ends everything.
    pub stop: CancellationToken,
    /// Waits for everything.
    pub tasks: TaskTracker,
}

/// A running group, for everybody else on the node.
pub struct GroupHandle {
    /// The group.
    pub group: GroupId,
    /// Consensus.
    pub raft: RaftGroup,
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
    inputs: mpsc::Sender<Input>,
    verify: VerifyMode,
    known: Known,
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

/// The engine's id of a node that is in a group since the genesis. Later joins count up, so that no
/// id is ever used again.
#[must_use]
pub fn first_raft_id(node: NodeId) -> u64 {
    replica_id(node, 1)
}

/// A group whose files are open and that does not run yet.
pub struct OpenGroup {
    context: HostContext,
    group: GroupId,
    share: ReplicaShare,
    committing: mpsc::Receiver<Committing>,
    prepared: Prepared,
}

impl OpenGroup {
    /// Opens the files of a group.
    ///
    /// # Errors
    /// [`GroupError`] names the group and what is wrong.
    pub async fn open(
        context: &HostContext,
        group: GroupId,
        folder: &Path,
        log: Arc<dyn LogStore>,
    ) -> Result<Self, GroupError> {
        let (effects, committing) = mpsc::channel(BLOCKS_MAX);
        let opened = {
            let (root, resources) = (folder.join("state"), context.resources.clone());
            let (genesis, verify) = (Arc::clone(&context.genesis), context.verify);
            tokio::task::spawn_blocking(move || Replica::open(&root, &resources, &genesis, group, verify, effects))
                .await
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        };
        let (replica, share) = opened.map_err(|error| GroupError::Open(group, error))?;
        let config = RaftGroupConfig {
            group,
            raft_id: first_raft_id(context.node),
            node: context.node,
            timing: context.timing,
            snapshot_dir: folder.join("snapshots"),
            snapshot_every_entries: context.snapshot_every_entries,
            snapshot_keep_entries: context.snapshot_every_entries / 4,
        };
        let transport = Arc::new(Transport(Arc::clone(&context.links)));
        let prepared = Prepared::open(config, log, Box::new(replica), transport).await?;
        Ok(Self { context: context.clone(), group, share, committing, prepared })
    }

    /// The log index that a snapshot of another replica has to reach before this one can run: its own
    /// state is gone, and its log has been purged so far.
    #[must_use]
    pub fn missing(&self) -> Option<u64> {
        self.prepared.missing()
    }

    /// Fetches the snapshot that is missing from whichever member lends one.
    ///
    /// # Errors
    /// [`FetchError`] says what each of them answered.
    pub async fn fetch(&mut self) -> Result<(), FetchError> {
        let own = self.context.node;
        let others: Vec<_> = first_members(&self.context.genesis, self.group);
        let others: Vec<_> = others.into_iter().filter(|(_, node)| *node != own).collect();
        let fetched = self.prepared.fetch(&others).await;
        // Nobody reads yet, and the start looks at the state itself; what was refused is in the error.
        while self.committing.try_recv().is_ok() {}
        fetched
    }

    /// Starts the group.
    ///
    /// # Errors
    /// [`GroupError`] names the group and what is wrong.
    pub async fn start(self) -> Result<Arc<GroupHandle>, GroupError> {
        let Self { context, group, share, committing, prepared } = self;
        let (inputs, received) = mpsc::channel(INPUTS_MAX);
        let system = system_view(&share, group, &context).map_err(|error| GroupError::Read(group, error))?;
        let (certified_out, certified) =
            watch::channel(system.certified.as_ref().map(|certified| certified.certificate.clone()));
        let waiters = Arc::new(Waiters::of(group));
        let attested = Arc::new(AtomicU64::new(0));
        let alarms = Arc::new(Alarms::new(group));
        let lost_proposals = Arc::new(AtomicBool::new(false));
        let known = Known::default();
        let (raft_out, raft_in) = tokio::sync::oneshot::channel();
        let task = GroupTask {
            context: context.clone(),
            group,
            share: share.clone(),
            waiters: Arc::clone(&waiters),
            alarms: Arc::clone(&alarms),
            lost_proposals: Arc::clone(&lost_proposals),
            known: known.clone(),
            certified: certified_out,
            attested: Arc::clone(&attested),
            inputs: inputs.downgrade(),
            proposals: mpsc::channel(1).0,
            driver: GroupDriver::new(DriverConfig {
                group,
                node: context.node,
                key: context.key.clone(),
                pipeline: PIPELINE,
                checkpoint_every: CHECKPOINT_EVERY,
                verify: context.verify,
            }),
            leader: None,
            leads: false,
            members: Vec::new(),
            guarded_ms: None,
            raft: None,
            stepping_down: None,
            deferred: Vec::new(),
            forget_at: std::time::Instant::now() + FORGET_EVERY,
        };
        // The task runs before the engine starts: replayed blocks are announced to it at once.
        context.tasks.spawn(task.run(system, received, committing, raft_in));
        let raft = prepared.start().await?;
        let bootstrapped = raft.bootstrap(first_members(&context.genesis, group)).await;
        bootstrapped.map_err(|error| GroupError::Bootstrap(group, error))?;
        let _ = raft_out.send(raft.clone());
        let arrivals = Arrivals::default();
        Ok(Arc::new(GroupHandle {
            group,
            raft,
            share,
            waiters,
            arrivals,
            certified,
            attested,
            alarms,
            cluster: context.genesis.cluster_id(),
            lost_proposals,
            inputs,
            verify: context.verify,
            known,
        }))
    }
}

/// The members that a group begins with, by their raft ids.
fn first_members(genesis: &Genesis, group: GroupId) -> Vec<(u64, NodeId)> {
    let committee = genesis.committee(group);
    let members = committee.into_iter().flat_map(|committee| &committee.members);
    members.map(|member| (first_raft_id(member.node), member.node)).collect()
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
        if self.verify == VerifyMode::Every {
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

    /// Hands over a peer's message; it is lost when the group's queue is full.
    pub fn peer(&self, from: NodeId, message: PeerMessage) {
        let _ = self.inputs.try_send(Input::Peer { from, message: Box::new(message) });
    }

    /// Why the group has stopped on this node, if it has.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        self.share.halt.reason().or_else(|| self.raft.role().borrow().stopped.clone())
    }

    /// The engine's view of this replica. One that has stopped leads nobody.
    #[must_use]
    pub fn role(&self) -> RoleView {
        let role = self.raft.role().borrow().clone();
        match self.share.halt.reason() {
            Some(reason) => RoleView { leads: false, leader: None, stopped: Some(reason), ..role },
            None => role,
        }
    }
}

/// Reads what a driver starts from, as one moment of the state shows it.
fn system_view(share: &ReplicaShare, group: GroupId, context: &HostContext) -> Result<SystemView, ReadFault> {
    let db = share.state.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
    SystemView::read(&ViewReader::of(&*db), &context.genesis, group, context.verify)
}

struct GroupTask {
    context: HostContext,
    group: GroupId,
    share: ReplicaShare,
    waiters: Arc<Waiters>,
    alarms: Arc<Alarms>,
    lost_proposals: Arc<AtomicBool>,
    known: Known,
    certified: watch::Sender<Option<Certificate>>,
    attested: Arc<AtomicU64>,
    inputs: mpsc::WeakSender<Input>,
    proposals: mpsc::Sender<(u64, Bytes)>,
    driver: GroupDriver,
    leader: Option<NodeId>,
    leads: bool,
    members: Vec<NodeId>,
    /// The guarded clock against the tick; none until a majority of the members has been asked.
    guarded_ms: Option<i64>,
    raft: Option<RaftGroup>,
    stepping_down: Option<tokio::task::JoinHandle<()>>,
    /// Inputs of our own making that must not be lost; taken with the next timer.
    deferred: Vec<Input>,
    /// When to look for people who wait no more.
    forget_at: std::time::Instant,
}

impl GroupTask {
    async fn run(
        mut self,
        system: SystemView,
        mut inputs: mpsc::Receiver<Input>,
        mut committing: mpsc::Receiver<Committing>,
        raft: tokio::sync::oneshot::Receiver<RaftGroup>,
    ) {
        self.system(system);
        let mut raft = Some(raft);
        let mut roles: Option<watch::Receiver<RoleView>> = None;
        let mut timer = tokio::time::interval(TIMER);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (stop, halt) = (self.context.stop.clone(), self.share.halt.clone());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = halt.stopped() => break self.halted(),
                Some(what) = committing.recv() => self.committing(what),
                Some(input) = inputs.recv() => self.step(input),
                started = async { raft.as_mut().expect("guarded").await }, if raft.is_some() => {
                    raft = None;
                    let Ok(started) = started else { break };
                    roles = Some(started.role());
                    self.proposals = self.proposer(started.clone());
                    self.raft = Some(started.clone());
                    let role = started.role().borrow().clone();
                    self.role(&role);
                }
                changed = async { roles.as_mut().expect("guarded").changed().await }, if roles.is_some() => {
                    if changed.is_err() {
                        roles = None;
                        continue;
                    }
                    let role = roles.as_mut().map(|roles| roles.borrow_and_update().clone()).unwrap_or_default();
                    self.role(&role);
                }
                _ = timer.tick() => {
                    for input in std::mem::take(&mut self.deferred) {
                        self.step(input);
                    }
                    self.clock();
                    self.step(Input::Timer);
                    self.forget_silent();
                }
            }
        }
        self.waiters.leadership_lost(None);
        // The commit loop may still be announcing blocks while the engine shuts down.
        committing.close();
    }

    /// Proposals go to the engine in order, from a task of their own; their fates come back as
    /// inputs. The pipeline bounds both.
    fn proposer(&self, raft: RaftGroup) -> mpsc::Sender<(u64, Bytes)> {
        let (sender, mut proposals) = mpsc::channel::<(u64, Bytes)>(PIPELINE * 4);
        let inputs = self.inputs.clone();
        let tasks = self.context.tasks.clone();
        self.context.tasks.spawn(async move {
            while let Some((id, entry)) = proposals.recv().await {
                let submitted = raft.submit(entry).await;
                let inputs = inputs.clone();
                tasks.spawn(async move {
                    let accepted = match submitted {
                        Ok(proposal) => proposal.await.is_ok(),
                        Err(_) => false,
                    };
                    if let Some(inputs) = inputs.upgrade() {
                        let _ = inputs.send(Input::Proposed { id, accepted }).await;
                    }
                });
            }
        });
        sender
    }

    /// The group has stopped here: from now on nobody is answered, and the engine ends, so that it
    /// neither leads nor votes with a state that is not to be trusted.
    fn halted(&mut self) {
        let reason = self.share.halt.reason().unwrap_or_default();
        self.alarms.last(Cause::Stopped, format!("{} stopped on this node: {reason}", self.group));
        self.context.changed.notify_one();
        if let Some(raft) = self.raft.take() {
            self.context.tasks.spawn(async move { raft.shutdown().await });
        }
    }

    fn role(&mut self, role: &RoleView) {
        // Without a guarded clock there is no stamp, so this replica proposes nothing yet.
        let leads = role.leads && self.guarded_ms.is_some();
        let lost = self.leads && !leads;
        let moved = self.leads != leads || self.leader != role.leader;
        self.leads = leads;
        self.leader = role.leader;
        if let Some(reason) = &role.stopped {
            self.share.halt.stop(reason);
        }
        if moved {
            // A new leadership starts behind everything that was in the log.
            self.lost_proposals.store(false, Ordering::Release);
            self.context.changed.notify_one();
            self.step(Input::Role { leads, leader: role.leader });
        }
        if lost {
            self.waiters.leadership_lost(self.leader);
        }
    }

    fn clock(&mut self) {
        let readings = self.context.readings.borrow().clone();
        let read = readings.and_then(|readings| readings.guarded_ms(self.context.node, &self.members));
        // Without news the last one goes on: only the monotonic clock has moved it since.
        let Some(guarded_ms) = read.or(self.guarded_ms) else { return };
        let first = self.guarded_ms.replace(guarded_ms).is_none();
        if self.context.clock.wall_offset_ms().abs_diff(guarded_ms) > CLOCK_SKEW_MS_MAX {
            self.alarm(format!(
                "this node's clock is more than {CLOCK_SKEW_MS_MAX} ms from the median of {}'s nodes; set it right",
                self.group
            ));
            self.give_up_leadership();
        }
        self.step(Input::ClockOffset(guarded_ms));
        if first && let Some(raft) = self.raft.clone() {
            let role = raft.role().borrow().clone();
            self.role(&role);
        }
    }

    /// Nobody can refuse a block for its time once it is committed; that it was stamped ahead of the
    /// clocks of most nodes must at least not go unseen.
    fn check_time(&self, header: &Header) {
        let Some(guarded_ms) = self.guarded_ms else { return };
        let now = i64::try_from(self.context.clock.tick().0).unwrap_or(i64::MAX).saturating_add(guarded_ms);
        let ahead = header.time_ms.0.saturating_sub(u64::try_from(now).unwrap_or(0));
        if ahead > BLOCK_AHEAD_MS_MAX {
            self.alarm(format!(
                "a block of {} is more than {BLOCK_AHEAD_MS_MAX} ms ahead of the clocks of its nodes; whoever led it \
                 has no guarded clock",
                self.group
            ));
        }
    }

    /// A leader whose clock nobody shares hands over; asked again while it goes on leading.
    fn give_up_leadership(&mut self) {
        let Some(raft) = self.raft.clone().filter(|_| self.leads) else { return };
        if self.stepping_down.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let group = self.group;
        self.stepping_down = Some(self.context.tasks.spawn(async move {
            if let Err(error) = raft.step_down().await {
                tracing::warn!(%group, %error, "nobody takes the leadership over");
            }
        }));
    }

    /// Looks now and then for people who wait no more.
    fn forget_silent(&mut self) {
        let now = std::time::Instant::now();
        if now >= self.forget_at {
            self.forget_at = now + FORGET_EVERY;
            self.waiters.forget_silent(now);
        }
    }

    fn alarm(&self, text: String) {
        self.alarms.pass(text);
    }

    fn committing(&mut self, what: Committing) {
        match what {
            Committing::Block { block, receipts, refused, votes, system_changed } => {
                self.check_time(&block.header);
                let outcomes = block.outcomes.clone();
                let height = block.header.height;
                for (txid, decision) in votes {
                    self.waiters.vote(&txid, decision, Some(height));
                }
                for receipt in &receipts {
                    self.waiters.receipt(receipt);
                }
                for RefusedTx { txid, bytes, reject } in refused {
                    self.waiters.refuse(&txid, &bytes, reject, self.leader);
                }
                // Repetitions come in crowds, and those of one crowd stand in a few blocks.
                let mut blocks = BTreeMap::new();
                for outcome in outcomes {
                    match outcome {
                        CommandOutcome::Known(txid, place) => self.known(txid, place, &mut blocks),
                        CommandOutcome::Acked(dest, upto) => self.waiters.taken(dest, upto),
                        CommandOutcome::Voted(txid, decision) => {
                            self.waiters.vote(&txid, decision, None);
                        }
                        CommandOutcome::Waits(txid) => self.waiters.waits(&txid),
                        CommandOutcome::Receipt(..)
                        | CommandOutcome::Refused(..)
                        | CommandOutcome::Delivered(..)
                        | CommandOutcome::Checkpointed(_)
                        | CommandOutcome::Registered
                        | CommandOutcome::Ignored(_) => {}
                    }
                }
                self.step(Input::Committed(block));
                if self.group == GroupId::BEACON {
                    self.context.changed.notify_one();
                }
                if system_changed {
                    self.reread_committees();
                }
            }
            Committing::Refused(text) => self.alarms.last(Cause::Snapshot, text),
            Committing::Installed => match system_view(&self.share, self.group, &self.context) {
                Ok(system) => {
                    self.alarms.end(Cause::Snapshot);
                    self.system(system);
                }
                Err(error) => self.share.halt.stop(format!("after a snapshot: {error}")),
            },
        }
    }

    /// The driver starts from a state, and whoever asks about its old transactions must hear that
    /// credits which were acknowledged long ago have been applied.
    fn system(&mut self, system: SystemView) {
        self.members = members(&system.committees, self.group);
        for line in &system.outbox {
            self.waiters.taken(line.leaf.peer, line.acked);
        }
        self.step(Input::System(system));
    }

    fn reread_committees(&mut self) {
        let Some(db) = self.share.state.db() else { return };
        let reader = DbReader(&*db);
        let all = committees(&mut View::new(&reader), &self.context.genesis);
        self.members = members(&all, self.group);
        self.context.changed.notify_one();
        self.step(Input::Committees(all));
    }

    /// A transaction that had its receipt already. `blocks` keeps the receipts of blocks that were
    /// read: decoding a block for each of its transactions would cost its square.
    fn known(&self, txid: TxId, place: ReceiptPlace, blocks: &mut BTreeMap<Height, Vec<Receipt>>) {
        let receipts = match blocks.entry(place.height) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => match receipts_of(&self.share, place.height) {
                Ok(receipts) => unread.insert(receipts),
                Err(error) => {
                    self.alarm(format!("{}: {error}", self.group));
                    self.waiters.refuse_all(&txid, Reject::Storage, self.leader);
                    return;
                }
            },
        };
        match receipts.get(place.index as usize) {
            Some(receipt) => self.waiters.receipt(receipt),
            None => self.waiters.refuse_all(&txid, Reject::OutcomePruned, self.leader),
        }
    }

    fn step(&mut self, input: Input) {
        if self.share.halt.is_stopped() {
            return;
        }
        let mut out = Vec::new();
        self.driver.step(self.context.clock.tick(), input, &mut out);
        self.attested.store(self.driver.attested().0, Ordering::Relaxed);
        for output in out {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Propose { id, entry } => {
                if self.proposals.try_send((id, entry)).is_err() {
                    self.deferred.push(Input::Proposed { id, accepted: false });
                }
            }
            Output::Send { node, group, message } => {
                if node == self.context.node && group == self.group {
                    self.feed(Input::Peer { from: node, message: Box::new(message) });
                } else {
                    self.context.links.send(node, group, Bytes::from(message.encode()));
                }
            }
            Output::Verify { height, txs } => self.verify(height, txs),
            Output::Recheck { from, upto } => self.recheck(from, upto),
            Output::Checked(height) => {
                if self.context.verify == VerifyMode::Every {
                    self.mark(marks::checked(), &height);
                }
            }
            Output::Forged(height) => self.mark(marks::forged(), &height),
            Output::Late(certificate) => self.late(certificate),
            Output::Lookup { height, node } => self.lookup(height, node),
            Output::Certified(certificate) => self.keep(certificate),
            Output::PeerTook { dest, next_seq } => self.waiters.taken(dest, next_seq),
            Output::Refuse { txs, reject } => {
                if reject == Reject::NotLeader && self.leads {
                    self.lost_proposals.store(true, Ordering::Release);
                }
                for bytes in txs {
                    if let Some(txid) = id_of(&self.context.genesis.cluster_id(), &bytes) {
                        self.waiters.refuse(&txid, &bytes, reject, self.leader);
                    }
                }
            }
            Output::Alarm { cause, text } => self.alarms.last(Cause::Driver(cause), text),
            Output::Stop(reason) => self.wrong(reason),
        }
    }

    /// Gives the driver an input of our own making, after what is being done.
    fn feed(&self, input: Input) {
        if let Some(inputs) = self.inputs.upgrade() {
            let _ = inputs.try_send(input);
        }
    }

    /// Checks a block's signatures on other threads, leaving out what this node checked itself.
    fn verify(&self, height: Height, txs: Arc<Vec<ParsedTx>>) {
        let (inputs, known, halt) = (self.inputs.clone(), self.known.clone(), self.share.halt.clone());
        self.context.tasks.spawn(async move {
            let checking = tokio::task::spawn_blocking(move || known.all_hold(&txs));
            let Some(valid) = checks::finished(&halt, &format!("block {height}"), checking).await else { return };
            if let Some(inputs) = inputs.upgrade() {
                let _ = inputs.send(Input::Verified { height, valid }).await;
            }
        });
    }

    /// Checks blocks of the database again, on other threads.
    fn recheck(&self, from: Height, upto: Height) {
        tracing::info!(group = %self.group, %from, %upto, "checking the client signatures of earlier blocks");
        let (inputs, known, halt) = (self.inputs.clone(), self.known.clone(), self.share.halt.clone());
        let (state, stop) = (self.share.state.clone(), self.context.stop.clone());
        self.context.tasks.spawn(async move {
            let what = format!("blocks {from} to {upto}");
            let checking = tokio::task::spawn_blocking(move || checks::recheck(&state, &known, from, upto, &stop));
            match checks::finished(&halt, &what, checking).await {
                Some(Ok(Some(forged))) => {
                    if let Some(inputs) = inputs.upgrade() {
                        let _ = inputs.send(Input::Rechecked { upto, forged }).await;
                    }
                }
                Some(Ok(None)) | None => {}
                Some(Err(fault)) => halt.stop(format!("{what} could not be checked: {fault}")),
            }
        });
    }

    /// Keeps a mark of this node beside the state.
    fn mark<T: borsh::BorshSerialize>(&self, key: Vec<u8>, value: &T) {
        let Some(db) = self.share.state.db() else { return };
        let mut batch = WriteBatch::new();
        batch.put(key, borsh::to_vec(value).expect("writing to memory does not fail"));
        if let Err(error) = db.write(batch) {
            self.alarm(format!("{}: a mark could not be kept: {error}", self.group));
        }
    }

    /// The state is wrong. That must be known after a restart too, before anything is served.
    fn wrong(&self, reason: String) {
        self.mark(marks::wrong(), &reason);
        if let Some(db) = self.share.state.db() {
            let group = self.group;
            let flushing = tokio::task::spawn_blocking(move || db.flush());
            self.context.tasks.spawn(async move {
                if !matches!(flushing.await, Ok(Ok(()))) {
                    tracing::error!(%group, "that the state is wrong may not be remembered: it was not flushed");
                }
            });
        }
        self.share.halt.stop(reason);
    }

    /// A certificate of an earlier block, which only the database can judge.
    fn late(&self, certificate: Certificate) {
        let height = certificate.header.height;
        match judge_late(&self.share, self.group, &certificate) {
            Ok(Late::Holds) => self.keep(certificate),
            Ok(Late::Contradicts) => self.wrong(contradiction(self.group, height)),
            Ok(Late::Nothing) => {}
            Err(fault) => self.alarm(format!("{}: {fault}", self.group)),
        }
    }

    /// Sends a kept certificate to a replica that misses it.
    fn lookup(&self, height: Height, node: NodeId) {
        match self.share.state.load::<Certificate>(&schema::certificate(height)) {
            Ok(Some(certificate)) => {
                let message = PeerMessage::Certified(certificate);
                self.context.links.send(node, self.group, Bytes::from(message.encode()));
            }
            Ok(None) => {}
            Err(fault) => self.alarm(format!("{}: {fault}", self.group)),
        }
    }

    /// Keeps a certificate beside the block. It is node-local: losing it costs a question to a peer.
    fn keep(&self, certificate: Certificate) {
        if let Some(db) = self.share.state.db() {
            let mut batch = WriteBatch::new();
            let bytes = borsh::to_vec(&certificate).expect("writing to memory does not fail");
            batch.put(schema::certificate(certificate.header.height), bytes);
            if let Err(error) = db.write(batch) {
                self.alarm(format!("{}: a certificate could not be kept: {error}", self.group));
            }
        }
        // Also an earlier one is news to whoever waits for it.
        self.certified.send_modify(|latest| {
            if latest.as_ref().is_none_or(|known| known.header.height < certificate.header.height) {
                *latest = Some(certificate);
            }
        });
    }
}

/// What a certificate of an earlier block is worth.
enum Late {
    /// It certifies the block that this replica has.
    Holds,
    /// It certifies another one.
    Contradicts,
    /// Nothing.
    Nothing,
}

fn judge_late(share: &ReplicaShare, group: GroupId, certificate: &Certificate) -> Result<Late, ReadFault> {
    let header = &certificate.header;
    let own: Option<Header> = share.state.load(&schema::header(header.height))?;
    let committee: Option<Committee> = share.state.load(&schema::committee(group, &header.committee_hash))?;
    let (Some(own), Some(committee)) = (own, committee) else { return Ok(Late::Nothing) };
    Ok(match certificate.verify(&committee) {
        Ok(()) if own == *header => Late::Holds,
        Ok(()) => Late::Contradicts,
        Err(_) => Late::Nothing,
    })
}

fn members(committees: &[Committee], group: GroupId) -> Vec<NodeId> {
    committees
        .iter()
        .find(|committee| committee.group == group)
        .map(|committee| committee.members.iter().map(|member| member.node).collect())
        .unwrap_or_default()
}

/// The receipts of a block; none where the block is gone.
fn receipts_of(share: &ReplicaShare, height: Height) -> Result<Vec<Receipt>, ReadFault> {
    let record: Option<BlockRecord> = share.state.load(&schema::block(height))?;
    Ok(record.map(|record| record.receipts).unwrap_or_default())
}

/// The cipher of groups whose data need no encryption at rest: shards and the beacon.
#[must_use]
pub fn open_cipher() -> Arc<PlainCipher> {
    Arc::new(PlainCipher)
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
#[path = "group_tests.rs"]
mod tests;
