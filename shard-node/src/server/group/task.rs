//! The task of one group: feeds its driver, and tells clients what became of their transactions.
//!
//! One task owns the driver; everybody else sends it inputs. It never waits for consensus or for
//! peers: proposals go through a task of their own, messages into bounded queues.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use consensus::engine::Group;
use consensus::port::RoleView;
use consensus::sequencer::Sequencer;
use ledger::Certificate;
use ledger::ballot::Equivocation;
use ledger::committee::Committee;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, NodeId, TxId};
use ledger::limits::{BLOCK_AHEAD_MS_MAX, CLOCK_SKEW_MS_MAX};
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::view::View;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::core::driver::{GroupDriver, Input, SystemView, committees, streams};
use crate::core::executor::RefusedTx;
use crate::core::machine::CommandOutcome;
use crate::core::records::ReceiptPlace;
use crate::server::alarms::{Alarms, Cause};
use crate::server::checks::Known;
use crate::server::group::{HostContext, PIPELINE, Turns, evidence, system_view};
use crate::server::ingest::Waiters;
use crate::server::replica::{Committing, DbReader, ReplicaShare, ViewReader};

/// Between two timer inputs.
const TIMER: Duration = Duration::from_millis(25);
/// Between two looks for people who wait no more.
pub(super) const FORGET_EVERY: Duration = Duration::from_secs(10);

/// The one owner of a group's driver.
pub(super) struct GroupTask {
    pub(super) context: HostContext,
    pub(super) group: GroupId,
    pub(super) share: ReplicaShare,
    pub(super) waiters: Arc<Waiters>,
    pub(super) alarms: Arc<Alarms>,
    pub(super) lost_proposals: Arc<AtomicBool>,
    pub(super) turns: Turns,
    pub(super) known: Known,
    pub(super) certified: watch::Sender<Option<Certificate>>,
    pub(super) attested: Arc<AtomicU64>,
    pub(super) inputs: mpsc::WeakSender<Input>,
    pub(super) proposals: mpsc::Sender<(u64, Bytes)>,
    pub(super) driver: GroupDriver,
    pub(super) leader: Option<NodeId>,
    pub(super) leads: bool,
    /// Whether the engine votes as soon as a committee names this replica, as the driver was told last.
    pub(super) votes: bool,
    /// The stint of the engine that the driver was last told of.
    pub(super) stint: u64,
    /// The channel has excluded this node's own organisation, which then proposes nothing.
    pub(super) excluded: bool,
    pub(super) members: Vec<NodeId>,
    /// The guarded clock against the tick; none until a majority of the members has been asked.
    pub(super) guarded_ms: Option<i64>,
    pub(super) engine: Option<Group>,
    pub(super) stepping_down: Option<tokio::task::JoinHandle<()>>,
    /// Proofs of double votes that the state has, for an engine that is not there yet.
    pub(super) witnessed: Vec<Equivocation>,
    /// Inputs of our own making that must not be lost; taken with the next timer.
    pub(super) deferred: Vec<Input>,
    /// The nodes with a seat in the beacon that the driver was told last.
    pub(super) beacon: Vec<NodeId>,
    /// Whose turn it is to read headers for the audit.
    pub(super) trails: Arc<Semaphore>,
    /// The block at which mail of streams that are written no more was judged last.
    pub(super) judged: Height,
    /// When to look for people who wait no more.
    pub(super) forget_at: tokio::time::Instant,
}

impl GroupTask {
    pub(super) async fn run(
        mut self,
        system: SystemView,
        mut inputs: mpsc::Receiver<Input>,
        mut committing: mpsc::Receiver<Committing>,
        engine: tokio::sync::oneshot::Receiver<Group>,
    ) {
        self.system(system);
        let mut engine = Some(engine);
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
                started = async { engine.as_mut().expect("guarded").await }, if engine.is_some() => {
                    engine = None;
                    let Ok(started) = started else { break };
                    roles = Some(started.role());
                    self.proposals = self.proposer(started.clone());
                    self.engine = Some(started.clone());
                    started.settled(&std::mem::take(&mut self.witnessed));
                    let role = started.role().borrow().clone();
                    self.engine_says(&role, &mut committing);
                }
                changed = async { roles.as_mut().expect("guarded").changed().await }, if roles.is_some() => {
                    if changed.is_err() {
                        roles = None;
                        continue;
                    }
                    let role = roles.as_mut().map(|roles| roles.borrow_and_update().clone()).unwrap_or_default();
                    self.engine_says(&role, &mut committing);
                }
                _ = timer.tick() => {
                    for input in std::mem::take(&mut self.deferred) {
                        self.step(input);
                    }
                    self.clock();
                    self.follow_beacon();
                    self.step(Input::Timer);
                    self.hand_over_if_excluded();
                    self.judge_ended();
                    self.forget_silent();
                }
            }
        }
        self.waiters.leadership_lost(None);
        // The commit loop may still be announcing blocks while the engine shuts down.
        committing.close();
    }

    /// Proposals go to the engine in order, from a task of their own; their fates come back as
    /// inputs. The pipeline bounds both. Behind an exclusion of this node's organisation none goes, and none has in it what
    /// those alone have sent who were shut out while it waited.
    fn proposer(&self, engine: Group) -> mpsc::Sender<(u64, Bytes)> {
        let (sender, mut proposals) = mpsc::channel::<(u64, Bytes)>(PIPELINE * 4);
        let inputs = self.inputs.clone();
        let (tasks, turns, share) = (self.context.tasks.clone(), self.turns.clone(), self.share.clone());
        let (links, group, node) = (Arc::clone(&self.context.links), self.group, self.context.node);
        let waiters = Arc::clone(&self.waiters);
        self.context.tasks.spawn(async move {
            while let Some((id, entry)) = proposals.recv().await {
                let at_once = turns.beside_others_now();
                let waited = at_once.is_none();
                let turn = if let Some(turn) = at_once { turn } else { turns.beside_others().await };
                if waited {
                    // The act of governance may have shut somebody out who has something in this entry.
                    waiters.turn_away();
                }
                let entry = waiters.without_withdrawn(entry);
                let submitted = match links.excluded_since(&share, group, node) {
                    Some(_) => None,
                    None => engine.submit(entry).await.ok(),
                };
                let inputs = inputs.clone();
                tasks.spawn(async move {
                    let accepted = match submitted {
                        Some(proposal) => proposal.await.is_ok(),
                        None => false,
                    };
                    drop(turn);
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
        if let Some(engine) = self.engine.take() {
            self.context.tasks.spawn(async move { engine.shutdown().await });
        }
    }

    /// An engine begins behind a block that was announced before, and the driver has to know that block first.
    fn engine_says(&mut self, role: &RoleView, committing: &mut mpsc::Receiver<Committing>) {
        if role.stint != self.stint {
            while let Ok(what) = committing.try_recv() {
                self.committing(what);
            }
        }
        self.role(role);
    }

    fn role(&mut self, role: &RoleView) {
        self.excluded = self.excludes(self.context.node);
        // Without a guarded clock there is no stamp, so this replica proposes nothing yet.
        let leads = role.leads && self.guarded_ms.is_some() && !self.excluded;
        let lost = self.leads && !leads;
        // Another engine tells who leads it, also where that is who led before: the driver waits to hear it.
        let begins = std::mem::replace(&mut self.stint, role.stint) != role.stint;
        let moved = begins || self.leads != leads || self.leader != role.leader;
        self.leads = leads;
        self.leader = role.leader;
        // What the engine before has said of its vote, the driver has forgotten.
        let votes = !role.learners.contains(&self.context.node);
        let told = std::mem::replace(&mut self.votes, votes) == votes && !begins;
        if let Some(reason) = &role.stopped {
            self.share.halt.stop(reason);
        }
        if moved {
            // A new leadership starts behind everything that was in the log.
            self.lost_proposals.store(false, Ordering::Release);
            self.context.changed.notify_one();
            self.step(Input::Role { leads, leader: role.leader });
        }
        if !told {
            self.step(Input::Votes(votes));
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
        if first {
            self.same_role();
        }
    }

    /// What the engine says is as it was, and may mean something else by now.
    fn same_role(&mut self) {
        if let Some(engine) = self.engine.clone() {
            let role = engine.role().borrow().clone();
            // That of an engine that has just begun comes by itself, behind the block that it begins behind.
            if role.stint == self.stint {
                self.role(&role);
            }
        }
    }

    /// Whether the newest state here excludes a node's organisation from the channel.
    fn excludes(&self, node: NodeId) -> bool {
        self.context.links.excluded_since(&self.share, self.group, node).is_some()
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
        let Some(engine) = self.engine.clone().filter(|_| self.leads) else { return };
        if self.stepping_down.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let group = self.group;
        self.stepping_down = Some(self.context.tasks.spawn(async move {
            if let Err(error) = engine.step_down().await {
                tracing::warn!(%group, %error, "nobody takes the leadership over");
            }
        }));
    }

    /// The node of an excluded organisation does not go on leading the channel: it hands over to one that stays; asked
    /// again while it leads. Whoever stays has the log: of those whom the exclusion needed to be committed, some do.
    fn hand_over_if_excluded(&mut self) {
        let Some(raft) = self.engine.clone().filter(|_| self.excluded) else { return };
        let role = raft.role().borrow().clone();
        if !role.leads || self.stepping_down.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let Some(heir) = role.heir(|node| !self.excludes(node)) else { return };
        let group = self.group;
        tracing::info!(%group, node = %heir, "the channel has excluded this node's organisation; it hands over");
        self.stepping_down = Some(self.context.tasks.spawn(async move {
            if let Err(error) = raft.transfer_leader(heir).await {
                tracing::warn!(%group, %error, "nobody takes the leadership over");
            }
        }));
    }

    /// Tells the driver where the beacon is by the registry. The beacon itself knows.
    fn follow_beacon(&mut self) {
        if self.group == GroupId::BEACON {
            return;
        }
        let mut nodes = self.context.links.members(GroupId::BEACON);
        nodes.sort_unstable();
        if nodes != self.beacon {
            self.beacon.clone_from(&nodes);
            self.step(Input::Beacon(nodes));
        }
    }

    /// Looks now and then for people who wait no more.
    fn forget_silent(&mut self) {
        let now = tokio::time::Instant::now();
        if now >= self.forget_at {
            self.forget_at = now + FORGET_EVERY;
            self.waiters.turn_away();
            self.waiters.forget_silent(now);
        }
    }

    pub(super) fn alarm(&self, text: String) {
        self.alarms.pass(text);
    }

    fn committing(&mut self, what: Committing) {
        match what {
            Committing::Block { block, receipts, refused, votes, system_changed } => {
                self.check_time(&block.header);
                let outcomes = block.outcomes.clone();
                let height = block.header.height;
                let governed = outcomes.iter().any(|outcome| matches!(outcome, CommandOutcome::Governed { .. }));
                let of_beacon =
                    |outcome: &CommandOutcome| matches!(outcome, CommandOutcome::Delivered(GroupId::BEACON, _));
                if governed || outcomes.iter().any(of_beacon) {
                    // Members and certificates may have gone: those hear of that before anything of this block is told.
                    self.waiters.turn_away();
                }
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
                        CommandOutcome::Evidence(proof) => self.settled(&[*proof]),
                        CommandOutcome::Receipt(..)
                        | CommandOutcome::Refused(..)
                        | CommandOutcome::Delivered(..)
                        | CommandOutcome::Checkpointed(_)
                        | CommandOutcome::Registered
                        | CommandOutcome::Governed { .. }
                        | CommandOutcome::Ignored(_) => {}
                    }
                }
                if governed {
                    // Before anything is proposed behind it.
                    self.same_role();
                    self.hand_over_if_excluded();
                }
                let reshaped = block.reshaped;
                if let Some(sealed) = &block.sealed {
                    tracing::info!(group = %self.group, job = %sealed.seal.job, %height, "the shard stands still");
                }
                self.step(Input::Committed(block));
                if self.group == GroupId::BEACON {
                    self.context.changed.notify_one();
                }
                if system_changed {
                    self.reread_committees();
                }
                if reshaped {
                    self.reread_streams();
                }
            }
            Committing::Refused(text) => self.alarms.last(Cause::Snapshot, text),
            Committing::Installed => match system_view(&self.share, self.group, &self.context) {
                Ok(system) => {
                    // Whoever has lied before is named for a while yet.
                    self.alarms.lapse(Cause::Snapshot);
                    self.system(system);
                    self.same_role();
                }
                Err(error) => self.share.halt.stop(format!("after a snapshot: {error}")),
            },
        }
    }

    /// The state has these proofs, so the engine need not keep them any more, and everybody can tell of them.
    fn settled(&mut self, proofs: &[Equivocation]) {
        evidence::in_state(&self.alarms, proofs, &self.members);
        match &self.engine {
            Some(engine) => engine.settled(proofs),
            None => self.witnessed.extend(proofs),
        }
    }

    /// The driver starts from a state, and whoever asks about its old transactions must hear that
    /// credits which were acknowledged long ago have been applied.
    fn system(&mut self, system: SystemView) {
        self.members = members(&system.committees.current, self.group);
        self.settled(&system.evidence);
        self.follow_lineage();
        for line in &system.outbox {
            self.waiters.taken(line.leaf.peer, line.acked);
        }
        self.step(Input::System(system));
    }

    fn reread_committees(&mut self) {
        let Some(db) = self.share.state.db() else { return };
        let reader = DbReader(&*db);
        let all = committees(&mut View::new(&reader));
        self.members = members(&all.current, self.group);
        evidence::in_state(&self.alarms, &[], &self.members);
        self.context.changed.notify_one();
        self.step(Input::Committees(all));
    }

    /// The layout has changed, and with it streams have ended and others have begun.
    fn reread_streams(&mut self) {
        self.follow_lineage();
        let Some(db) = self.share.state.db() else { return };
        let reader = ViewReader::of(&*db);
        let mut view = View::new(&reader);
        let read = streams(&mut view);
        let fault = view.fault().cloned();
        match fault.map_or(read, Err) {
            Ok((outbox, inbox)) => self.step(Input::Streams { outbox, inbox }),
            Err(error) => self.share.halt.stop(format!("after a change of the layout: {error}")),
        }
    }

    /// A transaction that had its receipt already. `blocks` keeps the receipts of blocks that were
    /// read: decoding a block for each of its transactions would cost its square.
    fn known(&self, txid: TxId, place: ReceiptPlace, blocks: &mut BTreeMap<(GroupId, Height), Vec<Receipt>>) {
        let receipts = match blocks.entry((place.chain, place.height)) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => match self.share.receipts_at(self.group, &place) {
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
}

fn members(committees: &[Committee], group: GroupId) -> Vec<NodeId> {
    committees
        .iter()
        .find(|committee| committee.group == group)
        .map(|committee| committee.members.iter().map(|member| member.node).collect())
        .unwrap_or_default()
}
