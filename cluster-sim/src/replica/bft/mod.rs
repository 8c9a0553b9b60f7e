//! A replica of a Byzantine group: the production machine between a simulated disk, clock and network.
//!
//! Owns what production's shell (`consensus/src/bft/group`) does around a machine: what it writes down and what it
//! keeps of the order, that it applies what is decided, whether it votes, and how it catches up (`behind`). The
//! records are in [`Wal`]; what was decided is in the replica's log, a decided value in each entry. `judge` asks what
//! production's judge asks. What a replica says passes its liar, if it is one (`crate::liars`), and `spoil` puts bugs
//! back. An entry is applied in the step in which the log has it for good, where production's applier takes a moment.

mod behind;
mod judge;
mod spoil;
mod wal;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use consensus::bft::{
    Admission, Begin, BftTiming, Body, Chain, Decided, Fate, Input, Machine, Message, Output, Settings, Standing,
};
use consensus::local::{Change, LocalEntry, Persist};
use consensus::port::{Committed, Order, Position, RoleView};
use ledger::certificate::Attestation;
use ledger::committee::Committee;
use ledger::ids::{NodeId, Tick};
use ledger::keys::NodeKeys;
use ledger::schema;
use shard_node::core::applied::AppliedRecord;
use shard_node::core::driver;
use shard_node::core::peer::PeerMessage;

use crate::checkers::{BftSeen, Seen};
use crate::cluster::node_key;
use crate::liars::{Liar, Scene};
use crate::replica::{Effect, Job, Replica};
use crate::sabotage::Sabotage;
use crate::seat;
use crate::state;
use crate::wire::Wire;
use crate::wire::bft::BftWire;

pub(super) use behind::KEPT_ENTRIES;
pub use wal::Wal;

/// Times, quicker than in production so that a short run sees many rounds.
const TIMING: BftTiming = BftTiming { idle_ms: 400, propose_ms: 300, vote_ms: 120, step_ms: 80, repeat_ms: 300 };
/// Names what no driver has proposed.
pub(super) const INJECTED: u64 = u64::MAX;

/// What survives a restart beside log and state.
#[derive(Default)]
pub struct Beside {
    /// The records of the machine.
    pub wal: Wal,
    /// What the replica lies about, if it does.
    pub(crate) liar: Option<Box<Liar>>,
    /// Decided values that the log had last before it began anew, by index.
    pub(super) earlier: BTreeMap<u64, Decided>,
    /// What a quorum that is off by one has counted.
    count: spoil::Count,
}

impl Beside {
    /// One that joins may have forgotten what its node has promised in an earlier time: it begins without a vote.
    pub(super) fn follow_first(&mut self) {
        self.wal.lose();
    }

    /// Loses power: of the writes of records the first `keep` survive, and of the next one the first `torn` records.
    pub(super) fn crash(&mut self, keep: usize, torn: usize, sabotage: Option<Sabotage>) {
        self.wal.crash(keep, torn);
        if let Some(liar) = &mut self.liar {
            liar.crash();
            if liar.forgets() {
                self.wal.lose();
            }
        }
        if sabotage == Some(Sabotage::LockForgotten) {
            self.wal.lose_unnoticed();
        }
    }
}

/// The machine of a running replica, and what its shell remembers.
pub(super) struct Member {
    machine: Machine,
    /// The entry that the engine begins behind: positions only grow.
    start: Position,
    /// The order behind what is applied.
    chain: Chain,
    /// Decides what comes next.
    committee: Arc<Committee>,
    votes: bool,
    standing: Standing,
    /// Last entry of the log, durable or not.
    last_index: u64,
    /// What is decided and waits for the log to have it for good.
    pending: Option<(Decided, Chain)>,
    /// The last entry that is applied, or that this replica has begun the next one of.
    reached: u64,
    /// Records that may go when the log is durable up to an entry.
    forgets: VecDeque<(u64, u64)>,
    admission: Admission,
    /// Members who have said that their logs begin behind what is missing here.
    beyond: BTreeSet<NodeId>,
    /// Whom a replica without a vote asks next, and when; one with a vote, when it looks whether it stands still.
    turn: usize,
    ask_at: Tick,
    /// What was applied at that last look.
    looked: Option<u64>,
}

/// Something that happens to the machine or its shell.
#[allow(clippy::large_enum_variant, reason = "as for the driver's inputs")]
pub(super) enum Event {
    /// For the machine.
    Input(Input),
    /// What the machine wants, made outside of a step.
    Carry(Vec<Output>),
    /// More of the log is durable.
    Logged,
    /// Time has passed.
    Tick,
    /// The machine has done what there was to do at this time.
    Rest,
}

/// What a log keeps of a decided value.
fn entry(term: u64, decided: &Decided) -> LocalEntry {
    let batch = borsh::to_vec(decided).expect("writing to memory does not fail");
    LocalEntry { term, leader: NodeId(0), batch: Some(Bytes::from(batch)), voters: None }
}

/// What stands in a log for an entry that is in state and whose value is gone.
fn hole() -> LocalEntry {
    LocalEntry { term: 0, leader: NodeId(0), batch: None, voters: None }
}

/// The decided value of an entry; none for a hole.
pub(crate) fn decided(entry: &LocalEntry) -> Option<Decided> {
    borsh::from_slice(entry.batch.as_ref()?).ok()
}

/// As in production: a machine that may not vote does not have the key.
fn settings(replica: &Replica, votes: bool) -> Settings {
    let key = if votes { replica.keys.clone() } else { NodeKeys::none() };
    Settings { cluster: replica.constants.cluster, node: replica.node, key, timing: TIMING }
}

impl Member {
    /// What the engine of a group would say of itself.
    pub(super) fn role(&self) -> RoleView {
        RoleView {
            leads: self.leads(),
            leader: self.standing.leader,
            term: self.start.term,
            stint: self.start.index,
            last_log_index: self.last_index.max(self.chain.index),
            applied_index: self.chain.index,
            voters: self.committee.members.iter().map(|member| member.node).collect(),
            ..RoleView::default()
        }
    }

    fn leads(&self) -> bool {
        self.standing.leads && self.votes
    }

    /// Whether the committee that a replica has joined with was in force, and the one in force does not name its node.
    pub(super) fn goes_on_without(&self, node: NodeId, join: u16) -> bool {
        seat::is_over(&self.committee, node, join)
    }

    /// Where an entry stands: term and leader are those of the entry that the engine begins behind.
    const fn position(&self, index: u64) -> Position {
        Position { index, ..self.start }
    }
}

impl Replica {
    /// The committee that the state has in force.
    pub(super) fn in_force(&self) -> Result<Arc<Committee>, String> {
        state::load(&self.kv, &schema::current_committee(self.group)).map(Arc::new)
    }

    /// A member that starts from what the disks hold, and what it wants done first.
    pub(super) fn member(
        &self,
        now: Tick,
        applied: &AppliedRecord,
        order: &Order,
    ) -> Result<(Member, Vec<Output>), String> {
        let committee = self.in_force()?;
        let chain: Chain = match &applied.consensus.membership {
            Some((_, note)) => borsh::from_slice(note).map_err(|error| format!("no note of the order: {error}"))?,
            None => Chain::start(0, applied.header_hash, &committee),
        };
        if chain.index != applied.consensus.position.map_or(0, |position| position.index) {
            return Err("the note of the order is of another entry than the position".to_owned());
        }
        let values = self.decided_behind(chain.index);
        let last_index = self.disk.durable().last_index();
        // Where a group begins with this engine, no leader has had a term before.
        let first = Position { term: 1, leader: 0, index: 0 };
        let start = order.after.map_or(first, |after| Position { term: after.term.max(1), ..after });
        let votes = self.beside.wal.votes();
        let records = self.beside.wal.read();
        let begun = records.1.iter().map(|record| record.index.saturating_sub(1)).max();
        let (mut out, settings) = (Vec::new(), settings(self, votes));
        let begin = Begin { chain: chain.clone(), committee: Arc::clone(&committee), decided: values, records, votes };
        let machine = Machine::new(settings, begin, now, &mut out);
        let member = Member {
            standing: machine.standing().clone(),
            machine,
            start,
            votes,
            last_index,
            pending: None,
            reached: begun.unwrap_or(0).max(chain.index),
            forgets: VecDeque::new(),
            admission: Admission::new(self.node, Arc::clone(&committee)),
            beyond: BTreeSet::new(),
            turn: 0,
            ask_at: now,
            looked: None,
            chain,
            committee,
        };
        Ok((member, out))
    }

    /// What the log has of decided values behind an entry.
    fn decided_behind(&self, index: u64) -> Vec<Decided> {
        let log = self.disk.durable();
        (index + 1..).map_while(|index| decided(log.entry(index)?)).collect()
    }

    /// What a restarted replica does by mistake, if a bug is put back; its driver hears whether it votes; and its liar
    /// begins.
    pub(super) fn bft_started(&mut self, now: Tick, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) {
        self.run_again(jobs, out);
        let Some(member) = self.live.as_ref().and_then(|live| live.engine.member()) else { return };
        jobs.push_back(Job::Driver(driver::Input::Votes(member.votes)));
        let (chain, committee) = (member.chain.clone(), Arc::clone(&member.committee));
        let begin = Begin {
            decided: self.decided_behind(chain.index),
            records: (1, Vec::new()),
            votes: true,
            chain,
            committee,
        };
        let settings = settings(self, true);
        if let Some(liar) = &mut self.beside.liar {
            liar.begin(settings, begin, now);
        }
    }

    pub(super) fn bft_event(
        &mut self,
        now: Tick,
        event: Event,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let mut outputs = Vec::new();
        match event {
            Event::Carry(wanted) => outputs = wanted,
            Event::Logged => self.bft_apply(jobs, out)?,
            Event::Input(input) => {
                for input in self.spoil_input(input) {
                    let Some(member) = self.member_mut() else { return Ok(()) };
                    member.machine.step(now, input, &mut outputs);
                }
            }
            Event::Tick => {
                let Some(member) = self.member_mut() else { return Ok(()) };
                if member.machine.deadline().is_some_and(|deadline| deadline <= now) {
                    member.machine.step(now, Input::Tick, &mut outputs);
                }
                // Behind what the machine wants: another one may take its place.
                jobs.push_back(Job::Bft(Event::Rest));
            }
            Event::Rest => {
                self.follow(now, jobs, out);
                self.liar_ticks(now, out);
            }
        }
        for output in outputs {
            self.bft_output(now, output, jobs, out)?;
        }
        Ok(())
    }

    fn member_mut(&mut self) -> Option<&mut Member> {
        self.live.as_mut()?.engine.member_mut()
    }

    fn bft_output(
        &mut self,
        now: Tick,
        output: Output,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        match output {
            Output::Persist { first, records } => {
                let last = (first + records.len() as u64).saturating_sub(1);
                self.beside.wal.append(first, records)?;
                self.sync_later(out);
                if self.sabotage == Some(Sabotage::VoteBeforePersist) {
                    jobs.push_back(Job::Bft(Event::Input(Input::Persisted(last))));
                }
            }
            Output::Send { to, message } => self.say(now, to, message, out),
            Output::Judge { value, batch, agreed } => {
                let valid = self.fit(now, &batch, agreed);
                jobs.push_back(Job::Bft(Event::Input(Input::Judged { value, valid })));
            }
            Output::Commit { decided, note } => self.bft_commit(*decided, note, jobs, out)?,
            Output::Forget(upto) => {
                if let Some(member) = self.member_mut() {
                    member.forgets.push_back((upto, member.last_index));
                }
                self.forget();
                if self.beside.wal.pending() > 0 {
                    self.sync_later(out);
                }
            }
            Output::Fetch { node, index } if !self.is_out() => self.bft_send(node, BftWire::Ask { from: index }, out),
            Output::Fetch { .. } => {}
            Output::Fate { ticket, fate } => self.fate(ticket, fate, jobs),
            Output::Standing(standing) => self.stand(standing, jobs, out),
            Output::Evidence(proof) => {
                let (node, group) = (self.node, self.group);
                if self.beside.liar.is_none() {
                    out.push(Effect::Saw(Seen::Bft(BftSeen::Evidence { node, group, proof: proof.clone() })));
                }
                if self.sabotage != Some(Sabotage::EvidenceDropped) {
                    jobs.push_back(Job::Driver(driver::Input::Evidence(proof)));
                }
            }
            // Liars of the simulator sign no such number of ballots of an entry; a host only logs it.
            Output::Unremembered(_) => {}
            Output::Stop(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Keeps an entry in the log, and applies it when it is durable there.
    fn bft_commit(
        &mut self,
        decided: Decided,
        note: Chain,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let index = decided.value.index;
        if self.is_out() {
            // What the others go on to is not for this replica.
            return Ok(());
        }
        let Some(member) = self.member_mut() else { return Ok(()) };
        if index != member.chain.index + 1 {
            return Err(format!("entry {index} was decided behind entry {}", member.chain.index));
        }
        // What is behind the state in the log is committed once more after a restart.
        let new = index > member.last_index;
        member.last_index = index.max(member.last_index);
        if new {
            let entries = vec![entry(member.start.term, &decided)];
            let change = Change::Append { keep: index - 1, entries };
            self.disk.write(Persist { sequence: index, change });
            self.sync_later(out);
        }
        let (node, group, value) = (self.node, self.group, note.value);
        let by = BftSeen::Decided { node, group, value, decided: Box::new(decided.clone()) };
        out.push(Effect::Saw(Seen::Bft(by)));
        if let Some(member) = self.member_mut() {
            member.pending = Some((decided, note));
        }
        self.bft_apply(jobs, out)
    }

    fn bft_apply(&mut self, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) -> Result<(), String> {
        let durable = self.disk.durable().last_index();
        let Some(member) = self.member_mut() else { return Ok(()) };
        let logged = member.pending.take_if(|(decided, _)| decided.value.index <= durable);
        let Some((decided, note)) = logged else { return Ok(()) };
        let (index, payload) = (decided.value.index, decided.value.body.payload());
        let committed = Committed { position: member.position(index), payload, note: Some(note.encode()) };
        self.commit(committed, jobs, out)?;
        if self.live.as_ref().is_none_or(|live| live.order.stint() != live.stint) {
            // The machine has seen its last entry.
            return Ok(());
        }
        let committee = self.in_force()?;
        if let Some(member) = self.member_mut() {
            member.chain = note;
            member.committee = Arc::clone(&committee);
            member.reached = member.reached.max(index);
            member.admission.in_force(&committee);
            member.beyond.clear();
        }
        jobs.push_back(Job::Bft(Event::Input(Input::Applied { index, committee })));
        Ok(())
    }

    /// The first `count` writes of records are durable, and so may be more of the log.
    pub(super) fn synced_records(&mut self, count: usize, out: &mut Vec<Effect>) -> Option<Job> {
        let last = self.beside.wal.sync(count);
        self.forget();
        if self.beside.wal.pending() > 0 {
            self.sync_later(out);
        }
        last.map(|last| Job::Bft(Event::Input(Input::Persisted(last))))
    }

    /// Records go that the log has made superfluous.
    fn forget(&mut self) {
        let durable = self.disk.durable().last_index();
        let mut upto = None;
        if let Some(member) = self.member_mut() {
            while let Some((record, _)) = member.forgets.front().copied().filter(|(_, entry)| *entry <= durable) {
                member.forgets.pop_front();
                upto = Some(record);
            }
        }
        if let Some(upto) = upto {
            self.beside.wal.forget(upto);
        }
    }

    pub(super) fn sync_later(&mut self, out: &mut Vec<Effect>) {
        let group = self.group;
        if let Some(live) = &mut self.live
            && !live.sync_due
        {
            live.sync_due = true;
            out.push(Effect::SyncLater(group));
        }
    }

    /// What became of a proposal of the driver. One that is applied has been told as such with its block.
    fn fate(&mut self, ticket: u64, fate: Fate, jobs: &mut VecDeque<Job>) {
        let Some(live) = &mut self.live else { return };
        if let Some(at) = live.proposals.iter().position(|(id, _)| *id == ticket) {
            live.proposals.remove(at);
            let accepted = matches!(fate, Fate::Applied(_));
            jobs.push_back(Job::Driver(driver::Input::Proposed { id: ticket, accepted }));
        }
    }

    fn stand(&mut self, standing: Standing, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) {
        let (node, group) = (self.node, self.group);
        let Some(live) = &mut self.live else { return };
        let Some(member) = live.engine.member_mut() else { return };
        member.standing = standing;
        let (leads, leader) = (member.leads(), member.standing.leader);
        let (index, round) = (member.standing.index, member.standing.round);
        if (leads, leader) == (live.leads, live.leader) {
            return;
        }
        let lost = live.leads && !leads;
        (live.leads, live.leader) = (leads, leader);
        let sent_away = if lost { live.waiters.leadership_lost(leader) } else { Vec::new() };
        self.answer(sent_away, out);
        out.push(Effect::Saw(Seen::Bft(BftSeen::Turn { node, group, leads, index, round })));
        jobs.push_back(Job::Driver(driver::Input::Role { leads, leader }));
    }

    pub(super) fn bft_send(&self, to: NodeId, message: BftWire, out: &mut Vec<Effect>) {
        let (group, stint) = (self.group, self.stint());
        out.push(Effect::Send(to, Wire::Bft { group, stint, message: Box::new(message) }));
    }

    /// The machine says something. Whoever lies says something else.
    fn say(&mut self, now: Tick, to: NodeId, message: Message, out: &mut Vec<Effect>) {
        if self.beside.liar.is_none() {
            if let Message::Ballot(signed) = &message
                && signed.ballot.node == self.node
            {
                let (node, group, ballot) = (self.node, self.group, signed.ballot);
                out.push(Effect::Saw(Seen::Bft(BftSeen::Cast { node, group, ballot })));
            }
            return self.bft_send(to, BftWire::Machine(message), out);
        }
        self.with_liar(now, out, |liar, scene, said| liar.speak(scene, to, message, said));
    }

    fn liar_ticks(&mut self, now: Tick, out: &mut Vec<Effect>) {
        self.with_liar(now, out, |liar, scene, said| liar.tick(scene, said));
    }

    /// Lets the liar of this replica do something, and sends what it says.
    fn with_liar(
        &mut self,
        now: Tick,
        out: &mut Vec<Effect>,
        step: impl FnOnce(&mut Liar, &Scene<'_>, &mut Vec<(NodeId, Wire)>),
    ) {
        let Some(mut liar) = self.beside.liar.take() else { return };
        let mut said = Vec::new();
        if let Some(live) = &self.live
            && let Some(member) = live.engine.member()
        {
            let fit = |batch: &[u8], agreed: bool| self.fit(now, batch, agreed);
            let scene = Scene {
                now,
                time: live.applied.time_ms,
                node: self.node,
                cluster: self.constants.cluster,
                committee: &member.committee,
                stint: live.stint,
                chain: &member.chain,
                round: member.standing.round,
                log: &self.disk.durable().entries,
                kv: &self.kv,
                fit: &fit,
            };
            step(&mut liar, &scene, &mut said);
            if let Some(deeds) = liar.confess() {
                out.push(Effect::Saw(Seen::Bft(BftSeen::Lied { node: self.node, group: self.group, deeds })));
            }
        }
        self.beside.liar = Some(liar);
        out.extend(said.into_iter().map(|(to, wire)| Effect::Send(to, wire)));
    }

    /// A message of another replica of the group.
    pub fn bft(&mut self, now: Tick, from: NodeId, stint: u64, message: BftWire, out: &mut Vec<Effect>) {
        let mut jobs = VecDeque::new();
        // Decided values help whoever has missed them, whatever runs by now.
        let asks = matches!(message, BftWire::Ask { .. } | BftWire::Answer { .. });
        if !asks && self.strays(now, from, stint, out) {
            return;
        }
        match message {
            BftWire::Machine(message) => {
                self.with_liar(now, out, |liar, scene, said| liar.hear(scene, from, &message, said));
                jobs.push_back(Job::Bft(Event::Input(Input::Peer { from, message })));
            }
            BftWire::Ask { from: index } => self.asked(now, from, index, out),
            BftWire::Answer { reached, votes, values } => {
                self.answered(now, (from, stint), (reached, votes), values, &mut jobs, out);
            }
            BftWire::Aside(message) => {
                self.with_liar(now, out, |liar, scene, said| liar.hear(scene, from, &message, said));
            }
            BftWire::WantState => self.give_state(from, out),
            BftWire::State(bytes) => self.take_state(&bytes, &mut jobs, out),
        }
        self.work(now, jobs, out);
    }

    /// Whether this replica is a liar: what it stops over is its own affair.
    pub(super) fn lies(&self) -> bool {
        self.beside.liar.is_some()
    }

    /// Whether this replica conspires, and a member is of the half of the others that sees another order.
    pub(super) fn keeps_apart(&self, node: NodeId) -> bool {
        let (Some(liar), Some(live)) = (&self.beside.liar, &self.live) else { return false };
        live.engine.member().is_some_and(|member| liar.keeps_apart(&member.committee, self.node, node))
    }

    /// A conspirator signs whatever header a member of that half has made.
    pub(super) fn countersign(&self, from: NodeId, message: &PeerMessage, out: &mut Vec<Effect>) {
        let PeerMessage::Attest { attestation, .. } = message else { return };
        if attestation.node != from || attestation.group != self.group || !self.keeps_apart(from) {
            return;
        }
        let (node, signature) = (self.node, node_key(self.node).sign(&attestation.header_hash));
        let attestation = Attestation { node, signature, ..attestation.clone() };
        let message = Box::new(PeerMessage::Attest { attestation, wants_certificate: false });
        out.push(Effect::Send(from, Wire::Peer { group: self.group, message }));
    }

    /// A batch that the driver, or somebody else, wants ordered.
    pub(super) fn bft_submit(ticket: u64, batch: Bytes) -> Job {
        Job::Bft(Event::Input(Input::Submit { ticket, body: Body::Batch(batch) }))
    }
}
