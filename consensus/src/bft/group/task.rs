//! The task that owns the machine of a replica: what happens becomes an input, and what the machine wants is
//! carried out (see `carry`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ledger::committee::{Committee, Engine};
use ledger::hash::Hash32;
use ledger::ids::{NodeId, Tick};
use ledger::keys::NodeKeys;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::arrivals::Taker;
use super::catchup::{self, Answer, Found, Progress};
use super::others::Others;
use super::outbox::Outbox;
use super::start::{self, Reached, Ready};
use super::wal::Wal;
use super::{BftParts, Ground, chain_of};
use crate::bft::{Admission, Begin, Body, Chain, Decided, Fate, Input, Machine, Output, Settings, Standing};
use crate::port::{Committed, Position, RoleView, SequencerError};
use crate::raft::codec::Stint;
use crate::raft::fetch::{self, Asked};
use crate::raft::purge::Keep;
use crate::raft::types::log_id;

/// Something that the task has waited for.
pub(super) enum Event {
    /// Records are durable up to this number, of this life of the machine.
    Persisted { life: u64, last: u64 },
    /// The host has judged a value.
    Judged { life: u64, value: Hash32, valid: bool },
    /// The log is durable up to this entry.
    Logged(u64),
    /// An entry is applied; the order behind it, the committee in force, and the place of the state.
    Applied(Chain, Option<Committee>, Option<Hash32>),
    /// A member has answered a question for decided values, or has not.
    Answered { from: NodeId, answer: Result<Answer, String> },
    /// A snapshot was fetched and has become the state, or not.
    Installed(Result<Reached, String>),
    /// A snapshot of the own state was made that reaches this entry.
    Snapshot(u64),
    /// It is noted that this replica votes; the number of its next record.
    Admitted(u64),
    /// Something failed that the replica cannot do without.
    Failed(String),
}

/// What the host asks for.
pub(super) enum Command {
    /// Order a batch.
    Submit { batch: Bytes, answer: oneshot::Sender<Outcome>, room: OwnedSemaphorePermit },
    /// Wait for everything that was acknowledged.
    Barrier(oneshot::Sender<Outcome>),
    /// Let another member lead.
    HandOver(NodeId),
    /// A snapshot was made that reaches this entry.
    Snapshot(u64),
    /// Forget the log up to this entry, as far as a snapshot reaches.
    Purge(u64, oneshot::Sender<()>),
    /// A member runs the engine that follows this one.
    Ahead(NodeId),
}

/// What becomes of a submission.
pub(super) type Outcome = Result<u64, SequencerError>;

/// Who waits for the fate of a submission.
pub(super) enum Ticket {
    /// A proposal, and the room that it takes.
    Proposal(oneshot::Sender<Outcome>, OwnedSemaphorePermit),
    /// Readers that share a blank.
    Barrier(Vec<oneshot::Sender<Outcome>>),
}

/// Where inputs come from.
pub(super) struct Inputs {
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) arrivals: Taker,
    pub(super) stop: watch::Receiver<bool>,
}

/// What the task shares with the handle.
pub(super) struct Shared {
    pub(super) progress: Arc<Progress>,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

/// The owner of a replica's machine.
pub(super) struct Task {
    pub(super) ground: Ground,
    pub(super) parts: BftParts,
    pub(super) wal: Wal,
    pub(super) outbox: Outbox,
    pub(super) shared: Shared,
    pub(super) role: watch::Sender<RoleView>,
    /// Everything that was begun; ends with the task.
    pub(super) work: JoinSet<()>,
    started: Instant,
    machine: Machine,
    /// Counts the machines: what was begun for an earlier one is not told to a later one.
    pub(super) life: u64,
    pub(super) out: Vec<Output>,
    pub(super) standing: Standing,
    pub(super) votes: bool,

    /// The order behind what is applied, and the committee that decides what comes next.
    pub(super) chain: Chain,
    pub(super) committee: Arc<Committee>,
    /// Last entry of the log.
    pub(super) last_index: u64,
    /// An entry is being applied, or is on its way to that.
    pub(super) applying: bool,
    /// It waits until the log has it for good, with the order behind it.
    pub(super) logging: Option<(Committed, Chain)>,
    /// A snapshot is on its way into the state; what is decided meanwhile waits.
    pub(super) installing: bool,
    pub(super) held: Option<(Box<Decided>, Chain)>,

    /// Records that may be forgotten when the log is durable up to an entry.
    pub(super) forgets: VecDeque<(u64, u64)>,
    pub(super) forgotten: u64,

    pub(super) tickets: BTreeMap<u64, Ticket>,
    next_ticket: u64,
    /// Readers that wait for the next blank, and whether one is on its way.
    waiting: Vec<oneshot::Sender<Outcome>>,
    pub(super) blank: bool,

    /// Whom it may ask.
    others: Others,
    /// Nodes that a question is on its way to: one for each, so that who is silent only keeps its own.
    asking: BTreeSet<NodeId>,
    /// Which member is asked next by one that follows.
    turn: usize,
    /// Values that were answered and are not given to the machine yet, by who has answered.
    arrived: BTreeMap<NodeId, VecDeque<Decided>>,
    /// Who has said that its log begins behind what is missing here.
    beyond: BTreeSet<NodeId>,
    admission: Admission,
    admitting: bool,
    /// The number of the first record of one that votes from now on.
    admitted: Option<u64>,

    /// Where the last snapshot stands, and whether one is being made.
    snapshot: u64,
    snapshotting: bool,
}

/// A machine that may not vote does not have the keys, so it can sign nothing, whatever committees come into force.
fn settings(ground: &Ground, parts: &BftParts, votes: bool) -> Settings {
    let key = if votes { parts.key.clone() } else { NodeKeys::none() };
    Settings { cluster: parts.cluster, node: ground.config.node, key, timing: parts.timing }
}

impl Task {
    pub(super) fn new(
        ground: Ground,
        parts: BftParts,
        ready: Ready,
        outbox: Outbox,
        shared: Shared,
    ) -> (Self, watch::Receiver<RoleView>) {
        let Ready { chain, committee, records, votes, wal, .. } = ready;
        let forgotten = records.0.saturating_sub(1);
        let mut out = Vec::new();
        let begin = Begin { chain: chain.clone(), committee: committee.clone(), decided: Vec::new(), records, votes };
        let machine = Machine::new(settings(&ground, &parts, votes), begin, Tick(0), &mut out);
        let (role, following) = watch::channel(RoleView::default());
        let snapshot = ground.snapshots.kept().map_or(parts.start.index, |kept| kept.index);
        let task = Self {
            admission: Admission::new(ground.config.node, committee.clone()),
            started: Instant::now(),
            life: 0,
            standing: machine.standing().clone(),
            machine,
            out,
            last_index: chain.index,
            chain,
            committee,
            votes,
            wal,
            outbox,
            shared,
            role,
            work: JoinSet::new(),
            applying: false,
            logging: None,
            installing: false,
            held: None,
            forgets: VecDeque::new(),
            forgotten,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            waiting: Vec::new(),
            blank: false,
            others: Others::new(ground.config.node, parts.others.clone(), parts.timing.repeat_ms, Instant::now()),
            asking: BTreeSet::new(),
            turn: 0,
            arrived: BTreeMap::new(),
            beyond: BTreeSet::new(),
            admitting: false,
            admitted: None,
            snapshot,
            snapshotting: false,
            ground,
            parts,
        };
        task.publish();
        (task, following)
    }

    /// Runs until the replica is stopped or fails.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        self.carry_out();
        loop {
            self.settle();
            if self.failed() {
                break;
            }
            let deadline = self.machine.deadline().filter(|_| !self.over());
            let wake = deadline.and_then(|at| self.started.checked_add(Duration::from_millis(at.0)));
            tokio::select! {
                biased;
                _ = inputs.stop.changed() => break,
                Some(event) = inputs.events.recv() => self.event(event),
                () = tokio::time::sleep_until(wake.unwrap_or(self.started)), if wake.is_some() => {
                    self.step(Input::Tick);
                }
                Some(command) = inputs.commands.recv() => self.command(command),
                (from, messages) = inputs.arrivals.next() => {
                    for message in messages {
                        self.step(Input::Peer { from, message });
                    }
                }
            }
        }
        self.outbox.close();
        self.work.shutdown().await;
        let stopped = self.ground.failure.get();
        if let Some(reason) = &stopped {
            tracing::error!(group = %self.ground.config.group, %reason, "the replica has stopped");
        }
        self.role.send_modify(|role| {
            role.leads = false;
            role.leader = None;
            role.stopped = stopped;
        });
    }

    pub(super) fn failed(&self) -> bool {
        self.ground.failure.get().is_some()
    }

    /// Whether another engine orders what comes next: the machine has seen its last entry.
    pub(super) fn over(&self) -> bool {
        self.committee.engine != Engine::Bft
    }

    pub(super) fn step(&mut self, input: Input) {
        if self.failed() || self.over() {
            return;
        }
        let now = Tick(self.started.elapsed().as_millis() as u64);
        self.machine.step(now, input, &mut self.out);
        self.carry_out();
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Persisted { life, last } if life == self.life => self.step(Input::Persisted(last)),
            Event::Judged { life, value, valid } if life == self.life => self.step(Input::Judged { value, valid }),
            Event::Persisted { .. } | Event::Judged { .. } => {}
            Event::Logged(index) => {
                self.apply(index);
                self.forget(index);
            }
            Event::Applied(chain, committee, place) => self.applied(chain, committee, place),
            Event::Answered { from, answer } => self.answered(from, answer),
            Event::Installed(result) => self.installed(result),
            Event::Snapshot(index) => {
                self.snapshotting = false;
                self.purge_behind(index);
            }
            Event::Admitted(first) => self.admitted = Some(first),
            Event::Failed(cause) => self.ground.failure.note(&cause),
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Submit { batch, answer, room } => {
                let ticket = self.ticket(Ticket::Proposal(answer, room));
                self.step(Input::Submit { ticket, body: Body::Batch(batch) });
            }
            Command::Barrier(answer) => self.waiting.push(answer),
            Command::HandOver(node) => self.step(Input::HandOver(node)),
            Command::Snapshot(index) => self.purge_behind(index),
            Command::Purge(index, done) => {
                self.purge(index.min(self.snapshot));
                // Whoever does not wait any more does not care.
                let _ = done.send(());
            }
            // It has what was decided last, or a snapshot with it.
            Command::Ahead(node) => self.ask(node, self.missing()),
        }
    }

    fn ticket(&mut self, waits: Ticket) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, waits);
        ticket
    }

    /// What follows from where things stand, whatever has happened.
    fn settle(&mut self) {
        while let Some(ended) = self.work.try_join_next() {
            // Somebody waits for what it would have said.
            if let Err(error) = ended {
                self.ground.failure.note(&format!("a task of the replica ended early: {error}"));
            }
        }
        if self.over() {
            return;
        }
        self.others.look(Instant::now(), self.chain.index);
        self.admit();
        self.feed();
        self.install();
        self.follow();
        self.read();
        self.make_snapshot();
        self.publish();
    }

    /// Nothing is on its way into the state.
    fn idle(&self) -> bool {
        !self.applying && !self.installing && self.held.is_none()
    }

    fn applied(&mut self, chain: Chain, committee: Option<Committee>, place: Option<Hash32>) {
        self.applying = false;
        let Some(committee) = committee else {
            return self.ground.failure.note("the state has no committee");
        };
        self.moved(chain, committee, place);
        self.step(Input::Applied { index: self.chain.index, committee: self.committee.clone() });
    }

    /// The state stands here now.
    fn moved(&mut self, chain: Chain, committee: Committee, place: Option<Hash32>) {
        self.chain = chain;
        self.committee = Arc::new(committee);
        self.shared.progress.reached(self.chain.index);
        self.shared.progress.places.note(self.chain.index, place);
        self.admission.in_force(&self.committee);
        self.beyond.clear();
    }

    /// Gives the machine what was answered, each value when the one before is applied: only then is it known who
    /// decides it.
    fn feed(&mut self) {
        while self.idle() && !self.failed() {
            let Some((from, decided)) = self.next_arrived() else { return };
            let index = decided.value.index;
            self.step(Input::Decided { from, decided: Box::new(decided) });
            if self.idle() {
                tracing::debug!(%from, index, "a value was not taken");
                // What others have answered may be good.
                self.arrived.remove(&from);
            }
        }
    }

    /// Takes out a value for the entry behind the one that is applied. Answers that do not go on from there are
    /// dropped.
    fn next_arrived(&mut self) -> Option<(NodeId, Decided)> {
        let next = self.chain.index + 1;
        self.arrived.retain(|_, values| {
            values.retain(|decided| decided.value.index >= next);
            values.front().is_some_and(|first| first.value.index == next)
        });
        let mut answer = self.arrived.first_entry()?;
        let (from, decided) = (*answer.key(), answer.get_mut().pop_front()?);
        if answer.get().is_empty() {
            answer.remove();
        }
        Some((from, decided))
    }

    /// Whether this replica only follows.
    fn follows(&self) -> bool {
        let seat = self.committee.index_of(self.ground.config.node);
        !self.votes || seat.is_none_or(|seat| !self.parts.key.holds(&self.committee.members[seat].key))
    }

    /// One that has no vote asks the others in turn, all the time: as many at a time as have an honest one among
    /// them. One that has a vote hears from the members that it knows, and asks those that it does not know when it hears
    /// nothing more.
    fn follow(&mut self) {
        if self.installing || !self.arrived.is_empty() {
            return;
        }
        let in_force = &self.committee;
        let others = if self.follows() { self.others.all(in_force) } else { self.others.strangers(in_force) };
        let tolerated = self.others.tolerated(in_force);
        for _ in 0..others.len() {
            if others.iter().filter(|node| self.asking.contains(*node)).count() > tolerated {
                return;
            }
            self.turn = (self.turn + 1) % others.len();
            self.ask(others[self.turn], self.missing());
        }
    }

    /// The first entry that is neither in the log nor in the state.
    fn missing(&self) -> u64 {
        self.last_index.max(self.chain.index) + 1
    }

    /// Asks a node for decided values, unless it is being asked already. Nothing is asked for while a snapshot is
    /// on its way.
    pub(super) fn ask(&mut self, node: NodeId, index: u64) {
        if self.installing || !self.asking.insert(node) {
            return;
        }
        let (sender, events) = (self.ground.sender.clone(), self.shared.events.clone());
        let pause = Duration::from_millis(self.parts.timing.step_ms);
        self.work.spawn(async move {
            let answer = catchup::ask(sender, node, index).await;
            if answer.is_err() {
                // A node that is away answers at once that it is.
                tokio::time::sleep(pause).await;
            }
            // The task is gone with everything that waits for it.
            drop(events.send(Event::Answered { from: node, answer }));
        });
    }

    fn answered(&mut self, from: NodeId, answer: Result<Answer, String>) {
        self.asking.remove(&from);
        match answer {
            Err(error) => tracing::debug!(%from, %error, "no decided values"),
            Ok(answer) => {
                if answer.votes && !self.votes {
                    self.admission.heard(from, answer.reached, self.chain.index);
                }
                match answer.found {
                    Found::Values(values) => {
                        self.arrived.insert(from, values.into());
                    }
                    Found::Purged => self.begins_later(from),
                }
            }
        }
    }

    /// A node has said that its log begins behind what is missing here. One may lie, so all the others are asked as well:
    /// most may never speak to this replica by themselves, as when the group has gone over to raft, where its leader alone
    /// does.
    fn begins_later(&mut self, from: NodeId) {
        if !self.others.all(&self.committee).contains(&from) {
            return;
        }
        self.beyond.insert(from);
        if self.beyond.len() > self.others.tolerated(&self.committee) {
            return;
        }
        for node in self.others.at_once(Instant::now(), &self.committee) {
            if !self.beyond.contains(&node) {
                self.ask(node, self.missing());
            }
        }
    }

    /// Fetches a snapshot when an honest member has said that what is missing here is not in its log. It takes an
    /// honest member's word, too, to go by one, of the committee that the snapshot itself leads to (`crate::raft::vouch`):
    /// so it does not matter who lends it, nor who has a seat by the registry. Nothing is applied until it is the state, or
    /// has failed.
    fn install(&mut self) {
        let tolerated = self.others.tolerated(&self.committee);
        if !self.idle() || self.beyond.len() <= tolerated {
            return;
        }
        let first = std::mem::take(&mut self.beyond);
        self.installing = true;
        self.arrived.clear();
        let needed = start::position(&self.parts.start, self.chain.index + 1);
        let others = self.others.all(&self.committee).into_iter().filter(|node| !first.contains(node));
        let lenders: Vec<NodeId> = first.iter().copied().chain(others).collect();
        let (sender, snapshots) = (self.ground.sender.clone(), self.ground.snapshots.clone());
        let (applier, log) = (self.ground.applier.clone(), self.ground.log.clone());
        let events = self.shared.events.clone();
        let pause = Duration::from_millis(self.parts.timing.step_ms);
        self.work.spawn(async move {
            let asked = Asked { nodes: &lenders, tolerated, doubts: true };
            let fetched = fetch::fetch(&sender, &snapshots, &applier, &log, needed, asked).await;
            let state = match fetched {
                Ok(()) => start::state(&applier).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if state.is_err() {
                tokio::time::sleep(pause).await;
            }
            drop(events.send(Event::Installed(state)));
        });
    }

    fn installed(&mut self, result: Result<Reached, String>) {
        self.installing = false;
        let (applied, committee, place) = match result {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(group = %self.ground.config.group, %error, "no snapshot");
                if let Some((decided, note)) = self.held.take() {
                    self.commit(*decided, note);
                }
                return;
            }
        };
        self.held = None;
        if let Some(next) = committee.as_ref().filter(|committee| committee.engine != Engine::Bft) {
            self.committee = Arc::new(next.clone());
            return;
        }
        let Some(at) = applied.position else { return self.ground.failure.note("the snapshot has no position") };
        let note = applied.membership.as_ref().and_then(|(_, note)| chain_of(note));
        let (Some(chain), Some(committee)) =
            (note.filter(|chain| chain.index == at.index && chain.well_formed()), committee)
        else {
            return self.ground.failure.note("the snapshot does not say where it stands in the order");
        };
        // The log begins anew behind it: what the state has was decided.
        if let Err(error) = self.ground.log.purge_upto(&log_id(&at)) {
            return self.ground.failure.note(&error.to_string());
        }
        self.logged(at.index);
        self.moved(chain, committee, place);
        let (chain, committee) = (Box::new(self.chain.clone()), self.committee.clone());
        self.step(Input::Installed { chain, committee });
    }

    /// The log ends with this entry now.
    pub(super) fn logged(&mut self, index: u64) {
        self.last_index = index;
        self.shared.progress.tail.send_replace(index);
    }

    /// Lets this replica vote when nobody can rely on what it may have forgotten.
    fn admit(&mut self) {
        if self.votes || !self.idle() {
            return;
        }
        if let Some(first) = self.admitted {
            return self.begin_to_vote(first);
        }
        if self.admitting || !self.admission.may_vote(self.chain.index) {
            return;
        }
        self.admitting = true;
        let (wal, start) = (self.wal.clone(), self.parts.start.index);
        let (log, own_id) = (self.ground.log.clone(), self.ground.config.raft_id);
        let events = self.shared.events.clone();
        self.work.spawn(async move {
            // In this order: a replica that has noted that it votes has had its mark.
            let admitted = match wal.begin(start).await {
                Ok(first) => {
                    let noted = start::note(&log, own_id, Stint { start, votes: true }).await;
                    noted.map(|()| first).map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            drop(events.send(admitted.map_or_else(Event::Failed, Event::Admitted)));
        });
    }

    /// A machine that votes takes the place of the one that did not, which has promised nothing. Nobody waits for
    /// anything of it: it did not lead.
    fn begin_to_vote(&mut self, first: u64) {
        let (group, index) = (self.ground.config.group, self.chain.index + 1);
        tracing::info!(%group, index, "this replica votes from now on");
        self.votes = true;
        self.shared.progress.votes.store(true, Ordering::Release);
        self.life += 1;
        self.forgotten = first.saturating_sub(1);
        self.forgets.clear();
        let begin = Begin {
            chain: self.chain.clone(),
            committee: self.committee.clone(),
            decided: Vec::new(),
            records: (first, Vec::new()),
            votes: true,
        };
        let now = Tick(self.started.elapsed().as_millis() as u64);
        self.machine = Machine::new(settings(&self.ground, &self.parts, true), begin, now, &mut self.out);
        self.standing = self.machine.standing().clone();
        let lost = std::mem::take(&mut self.tickets);
        self.blank = false;
        for (_, ticket) in lost {
            self.answer(ticket, Fate::NotLeader(self.standing.leader));
        }
        self.carry_out();
    }

    /// Submits a blank for the readers that wait, when none is on its way: one that is may stand before what they
    /// have to see.
    fn read(&mut self) {
        if self.blank || self.waiting.is_empty() {
            return;
        }
        self.blank = true;
        let readers = std::mem::take(&mut self.waiting);
        let ticket = self.ticket(Ticket::Barrier(readers));
        self.step(Input::Submit { ticket, body: Body::Blank });
    }

    fn make_snapshot(&mut self) {
        let every = self.ground.config.snapshot_every_entries;
        if every == 0 || self.snapshotting || self.installing || self.chain.index < self.snapshot + every {
            return;
        }
        self.snapshotting = true;
        let (applier, snapshots) = (self.ground.applier.clone(), self.ground.snapshots.clone());
        let events = self.shared.events.clone();
        self.work.spawn(async move {
            let built = applier.run(move |applier| snapshots.build(applier)).await;
            let reached = built.map(|folder| folder.applied.position.map_or(0, |position| position.index));
            let event = reached.map_or_else(|error| Event::Failed(error.to_string()), Event::Snapshot);
            drop(events.send(event));
        });
    }

    /// A snapshot reaches this entry: what others do not need any more goes.
    fn purge_behind(&mut self, snapshot: u64) {
        self.snapshot = self.snapshot.max(snapshot);
        let config = &self.ground.config;
        let keep = Keep { entries: config.snapshot_keep_entries, every: config.snapshot_every_entries };
        let sending = self.ground.sender.sending.first(Instant::now());
        if let Some(upto) = keep.upto(self.snapshot, sending) {
            self.purge(upto);
        }
    }

    fn purge(&mut self, upto: u64) {
        let log = &self.ground.log;
        // An entry that is not there any more was purged before.
        let purged = log.entry_id(upto).and_then(|id| id.map_or(Ok(()), |id| log.purge_upto(&id)));
        if let Err(error) = purged {
            self.ground.failure.note(&error.to_string());
        }
    }

    fn publish(&self) {
        self.shared.progress.round.store(self.standing.round, Ordering::Release);
        let leads = self.standing.leads && !self.installing && self.votes;
        let next = RoleView {
            leads,
            leader: self.standing.leader,
            term: start::position(&self.parts.start, 0).term,
            stint: self.ground.sender.stint.load(Ordering::Relaxed),
            last_log_index: self.last_index.max(self.chain.index),
            applied_index: self.chain.index,
            voters: self.committee.members.iter().map(|member| member.node).collect(),
            // One that may have forgotten what it promised has no vote, whether it has a seat or is about to get one.
            learners: if self.votes { Vec::new() } else { vec![self.ground.config.node] },
            replicated: if leads { self.standing.heard.clone() } else { Vec::new() },
            stopped: None,
        };
        self.role.send_if_modified(|last| {
            let changed = *last != next;
            *last = next;
            changed
        });
    }

    /// Where an entry of this engine stands.
    pub(super) fn position(&self, index: u64) -> Position {
        start::position(&self.parts.start, index)
    }
}
