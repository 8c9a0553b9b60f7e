//! The task of one group: feeds its driver and carries out what the driver asks.
//!
//! One task owns the driver; everybody else sends it inputs. It never waits for consensus or for
//! peers: proposals go through a task of their own, messages into bounded queues.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use consensus::port::{RoleView, SequencerError, Timing, replica_id};
use consensus::raft::{FetchError, Prepared, RaftGroup, RaftGroupConfig};
use consensus::sequencer::Sequencer;
use cross_shard::stream::{self, OutStream};
use ledger::Certificate;
use ledger::committee::Committee;
use ledger::crypto::SecretKey;
use ledger::genesis::{Genesis, VerifyMode};
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{ClusterId, GroupId, Height, NodeId, TimeMs, TxId};
use ledger::limits::{BLOCK_AHEAD_MS_MAX, CLOCK_SKEW_MS_MAX};
use ledger::machine::Driver;
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::schema;
use ledger::tx::ParsedTx;
use ledger::view::{ReadFault, StateReader, View};
use parking_lot::Mutex;
use rayon::prelude::*;
use storage::{LogStore, PlainCipher, SharedResources, WriteBatch};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::driver::{DriverConfig, GroupDriver, Input, OutboxView, Output, SystemView};
use crate::core::entry::{Command, Entry};
use crate::core::executor::RefusedTx;
use crate::core::machine::CommandOutcome;
use crate::core::peer::PeerMessage;
use crate::core::records::{BlockRecord, ReceiptPlace};
use crate::server::alarms::{Alarms, Cause};
use crate::server::clock::{Clock, Readings};
use crate::server::ingest::{Arrivals, Checked, Waiters, id_of, verification_mark};
use crate::server::links::{Links, NodeTraffic, Transport};
use crate::server::replica::{Committing, DbReader, OpenError, Replica, ReplicaShare};

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
/// Transactions that this node has checked itself and does not check again before it attests.
const CHECKED_MAX: usize = 65_536;

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
    /// The highest certificate.
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
    checked: Arc<Mutex<lru::LruCache<Hash32, ()>>>,
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
        self.prepared.fetch(&others).await
    }

    /// Starts the group.
    ///
    /// # Errors
    /// [`GroupError`] names the group and what is wrong.
    pub async fn start(self) -> Result<Arc<GroupHandle>, GroupError> {
        let Self { context, group, share, committing, prepared } = self;
        let (inputs, received) = mpsc::channel(INPUTS_MAX);
        let system = system_view(&share, group, &context).map_err(|error| GroupError::Read(group, error))?;
        let (certified_out, certified) = watch::channel(None);
        let waiters = Arc::new(Waiters::of(group));
        let attested = Arc::new(AtomicU64::new(0));
        let alarms = Arc::new(Alarms::new(group));
        let lost_proposals = Arc::new(AtomicBool::new(false));
        let checked = Arc::new(Mutex::new(lru::LruCache::new(
            std::num::NonZeroUsize::new(CHECKED_MAX).expect("the bound is not zero"),
        )));
        let (raft_out, raft_in) = tokio::sync::oneshot::channel();
        let task = GroupTask {
            context: context.clone(),
            group,
            share: share.clone(),
            waiters: Arc::clone(&waiters),
            alarms: Arc::clone(&alarms),
            lost_proposals: Arc::clone(&lost_proposals),
            checked: Arc::clone(&checked),
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
            checked,
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
            let mut checked = self.checked.lock();
            for tx in &txs {
                checked.put(tx.mark, ());
            }
        }
        let bytes = txs.iter().map(|tx| tx.bytes.clone()).collect();
        self.inputs.try_send(Input::Submit(bytes)).map_err(|_| txs)
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

/// Reads what a driver starts from.
fn system_view(share: &ReplicaShare, group: GroupId, context: &HostContext) -> Result<SystemView, ReadFault> {
    let db = share.state.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
    let reader = DbReader(&*db);
    // The position and the rest come from one moment only while nothing is applied; a later block
    // announces itself anyway.
    let applied = share.stand.lock().applied.clone();
    let mut view = View::new(&reader);
    let header: Header =
        view.load(&schema::header(applied.height)).ok_or_else(|| ReadFault("no last header".into()))?;
    let mut outbox = Vec::new();
    for leaf in stream::outbox_leaves(&mut view) {
        let head: OutStream = stream::out_stream(&mut view, leaf.peer);
        let messages = (head.acked..head.next_seq).filter_map(|seq| view.get(&schema::mail(leaf.peer, seq))).collect();
        outbox.push(OutboxView { leaf, acked: head.acked, messages });
    }
    let to_verify = match context.verify {
        VerifyMode::Ingest => Vec::new(),
        VerifyMode::Every => transactions_of(&mut view, applied.height, &header),
    };
    let inbox = stream::inbox_leaves(&mut view);
    let next_deadline = cross_shard::commit::next_deadline(&mut view);
    let committees = committees(&mut view, context.genesis.as_ref());
    if let Some(fault) = view.fault() {
        return Err(fault.clone());
    }
    tracing::debug!(%group, height = %applied.height, "state read");
    Ok(SystemView {
        committees,
        header_hash: applied.header_hash,
        header: Arc::new(header),
        outbox,
        inbox,
        to_verify: Arc::new(to_verify),
        next_deadline,
    })
}

fn transactions_of(view: &mut View<'_>, height: Height, header: &Header) -> Vec<ParsedTx> {
    let Some(payload) = view.get(&schema::entry(height)) else { return Vec::new() };
    let parse = |command: &Command| match command {
        Command::Tx(bytes) => ParsedTx::decode(&header.cluster, bytes).ok(),
        Command::Deliver(_) | Command::Ack(_) | Command::Checkpoint(_) | Command::Registry(_) => None,
    };
    Entry::decode(&payload).commands.iter().filter_map(parse).collect()
}

fn committees(view: &mut View<'_>, genesis: &Genesis) -> Vec<Committee> {
    genesis
        .committees
        .iter()
        .map(|first| view.load(&schema::current_committee(first.group)).unwrap_or_else(|| first.clone()))
        .collect()
}

struct GroupTask {
    context: HostContext,
    group: GroupId,
    share: ReplicaShare,
    waiters: Arc<Waiters>,
    alarms: Arc<Alarms>,
    lost_proposals: Arc<AtomicBool>,
    checked: Arc<Mutex<lru::LruCache<Hash32, ()>>>,
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
        self.members = members(&system.committees, self.group);
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
            Committing::Installed => match system_view(&self.share, self.group, &self.context) {
                Ok(system) => self.system(system),
                Err(error) => self.alarm(format!("{}: after a snapshot: {error}", self.group)),
            },
        }
    }

    /// The driver starts from a state, and whoever asks about its old transactions must hear that
    /// credits which were acknowledged long ago have been applied.
    fn system(&mut self, system: SystemView) {
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
        if !blocks.contains_key(&place.height) {
            match receipts_of(&self.share, place.height) {
                Ok(receipts) => drop(blocks.insert(place.height, receipts)),
                Err(error) => {
                    self.alarm(format!("{}: {error}", self.group));
                    self.waiters.refuse_all(&txid, Reject::Storage, self.leader);
                    return;
                }
            }
        }
        match blocks.get(&place.height).and_then(|receipts| receipts.get(place.index as usize)) {
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
            Output::Stop(reason) => self.share.halt.stop(reason),
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
        let inputs = self.inputs.clone();
        let checked = Arc::clone(&self.checked);
        self.context.tasks.spawn(async move {
            let judged = tokio::task::spawn_blocking(move || {
                let open: Vec<&ParsedTx> = {
                    let checked = checked.lock();
                    txs.iter().filter(|tx| !checked.contains(&verification_mark(tx))).collect()
                };
                open.par_iter().all(|tx| tx.verify_signatures().is_ok())
            });
            let valid = judged.await.unwrap_or(false);
            if let Some(inputs) = inputs.upgrade() {
                let _ = inputs.send(Input::Verified { height, valid }).await;
            }
        });
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
        self.certified.send_if_modified(|latest| {
            let newer = latest.as_ref().is_none_or(|known| known.header.height < certificate.header.height);
            if newer {
                *latest = Some(certificate);
            }
            newer
        });
    }
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
