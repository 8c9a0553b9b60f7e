//! A member of a Byzantine group, without tasks, clock and IO: inputs in, outputs out.
//!
//! Owns: the library's state of the entry that is being decided, and what goes around it. One entry is decided
//! at a time, and the next begins when the host's state has it, since the state says who decides the next one.
//! While an entry waits to be applied, the library is not touched; what comes meanwhile waits, bounded.
//!
//! The same inputs give the same outputs. The library reads a clock once per height, into a field
//! (`height_start_time`) that is only looked at when a height has a target time; it is never given one.
//!
//! Nothing here believes a peer. Senders without a seat are not heard; ballots count when they verify; what is
//! too far ahead, too large or too much is dropped, and comes again by itself when it was needed.
//!
//! When a member may vote: when its key has a seat, and [`Begin::votes`] said that it remembers what it has
//! signed. One that may not (it has lost its records, ADR 17) only follows, whatever committees come into force:
//! which ballots it has cast under the one that names it again, it cannot know. When its promises cannot matter
//! any more is [`super::Admission`]'s to say; then another machine takes its place.
//!
//! Code map: `context` (the library's types), `effects` (what the library asks for), `ballots` (signed, verified,
//! counted), `answers` (what second answers are compared with), `outbox` (nothing is said before it is durable), `judge` (what may be voted for), `parts` (values' bytes), `submit` (the host's wishes),
//! `peer` (what members send), `follow` (members that are ahead), `replay` (coming back).

mod answers;
mod ballots;
mod context;
mod effects;
mod follow;
mod judge;
mod outbox;
mod parts;
mod peer;
mod replay;
mod submit;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ledger::committee::Committee;
use ledger::crypto::Signature;
use ledger::hash::Hash32;
use ledger::ids::{NodeId, Tick};
use malachite::{
    Input as Ask, LocallyProposedValue, MisbehaviorEvidence, Params, State, ThresholdParams, ValuePayload,
};
use malachite_types::{CommitCertificate, Round, Timeout, VoteExtensionPolicy};

use super::api::{Begin, Fate, Input, Output, Settings, Standing};
use super::message::Record;
use super::value::{Body, Chain, Decided, VALUE_VERSION, Value};
use context::{Address, Bft, Height, Id, Seats, fits};
use effects::Desk;
use follow::Follow;
use outbox::Outbox;
use parts::Whole;

/// An entry that is decided and not applied yet.
struct Committing {
    decided: Box<Decided>,
    /// The chain behind it.
    next: Chain,
    /// The records that it follows from.
    gate: u64,
    /// Whether the host has it.
    sent: bool,
}

/// A member of a group. See [`super::api`] for what goes in and comes out.
pub struct Machine {
    library: State<Bft>,
    desk: Desk,
    follow: Follow,
    committing: Option<Committing>,
    /// Records of the run before, that were not replayed yet.
    past: VecDeque<Record>,
    /// The number up to which records are not needed.
    forgotten: u64,
    /// Whether it may vote where its key has a seat.
    allowed: bool,
    /// When what may have been lost is sent and asked for again.
    repeat_at: Tick,
    repeats: usize,
    standing: Standing,
    stopped: bool,
}

impl Machine {
    /// Starts a member: commits again what the log has and the state has not, replays what was written down of
    /// the entry that is being decided, and goes on from there.
    pub fn new(settings: Settings, begin: Begin, now: Tick, out: &mut Vec<Output>) -> Self {
        let Begin { chain, committee, decided, records: (first, past), votes } = begin;
        let address = Address(settings.node);
        let repeat_at = Tick(now.0.saturating_add(settings.timing.repeat_ms));
        let params = Params {
            address,
            threshold_params: ThresholdParams::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: false,
        };
        let seats = Seats::new(&committee, &chain.turn);
        // The library only gets inputs of the height that it is at, so its own queue stays empty.
        let library = State::new(Bft, Height(chain.index.saturating_add(1)), seats, params, 1, 1);
        let outbox = Outbox::new(first.max(1).saturating_add(past.len() as u64));
        let mut machine = Self {
            library,
            desk: Desk::new(settings, Arc::clone(&committee), chain, outbox, now),
            follow: Follow::new(decided),
            committing: None,
            past: past.into(),
            forgotten: 0,
            allowed: votes,
            repeat_at,
            repeats: 0,
            standing: Standing::default(),
            stopped: false,
        };
        machine.follow.own.retain(|decided| decided.value.index > machine.desk.chain.index);
        if !machine.desk.chain.well_formed() {
            machine.desk.fail("the state does not say where it stands in the order");
        }
        machine.take_committee(committee);
        machine.start();
        machine.settle();
        machine.finish(out);
        machine
    }

    /// What the member is at the moment.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// When it wants [`Input::Tick`].
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        if self.stopped {
            return None;
        }
        let timers = self.desk.timers.iter().map(|(_, at)| *at);
        timers.chain(self.desk.idle_at).chain(self.follow.at).chain([self.repeat_at]).min()
    }

    /// Takes an input.
    pub fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        if self.stopped {
            return;
        }
        self.desk.now = self.desk.now.max(now);
        match input {
            Input::Tick => self.tick(),
            Input::Peer { from, message } => self.on_peer(from, message),
            Input::Submit { ticket, body } => self.submit(ticket, body),
            Input::HandOver(node) => {
                if self.leads() && node != self.desk.node() && self.desk.committee.index_of(node).is_some() {
                    self.desk.heir = Some(node);
                }
            }
            Input::Persisted(last) => self.desk.outbox.persisted(last),
            Input::Judged { value, valid } => {
                if self.committing.is_none() {
                    self.on_judged(value, valid);
                }
            }
            Input::Applied { index, committee } => self.on_applied(index, committee),
            Input::Decided { from, decided } => self.on_decided(from, *decided),
            Input::Installed { chain, committee } => self.on_installed(*chain, committee),
        }
        self.settle();
        self.finish(out);
    }

    /// Gives the library an input, and does at once what it asks for.
    fn feed(&mut self, input: Ask<Bft>) {
        if self.committing.is_some() || self.desk.finalized.is_some() || self.desk.fault.is_some() {
            return;
        }
        let (library, desk) = (&mut self.library, &mut self.desk);
        let result: Result<(), malachite::Error<Bft>> = malachite::process!(
            input: input,
            state: library,
            metrics: &(),
            with: effect => Ok::<_, String>(desk.effect(effect))
        );
        if let Err(error) = result {
            desk.fail(format!("the library cannot go on: {error}"));
        }
    }

    /// Does what follows from the last input: a decision, a question, the end of a wait for nothing, a proposal.
    fn settle(&mut self) {
        while self.committing.is_none() && self.desk.fault.is_none() {
            if let Some(certificate) = self.desk.finalized.take() {
                self.on_finalized(certificate);
                return;
            }
            self.ask_again();
            if self.desk.finalized.is_some() {
                continue;
            }
            if let Some(timeout) = self.desk.take_hopeless() {
                self.feed(Ask::TimeoutElapsed(timeout));
                continue;
            }
            let Some(round) = self.due() else { return };
            self.propose(round);
        }
    }

    /// The round that a value is to be proposed in now, if any.
    fn due(&self) -> Option<u32> {
        let desk = &self.desk;
        let idle = desk.idle_at.is_some_and(|at| at <= desk.now);
        // A later round makes good what an earlier one has missed: nobody waits for work in it.
        let now = |round: u32| round > 0 || idle || desk.heir.is_some() || desk.queue.waits();
        desk.wanted.filter(|round| desk.votes && now(*round))
    }

    /// Proposes a value (L15-L19): the one that was made for this round before a crash, or a new one.
    fn propose(&mut self, round: u32) {
        let desk = &mut self.desk;
        desk.wanted = None;
        desk.idle_at = None;
        let node = desk.node();
        let mine =
            |whole: &Whole| whole.value.proposer == node && whole.value.round == round && whole.valid == Some(true);
        let made = desk.shelf.all().find(|(_, whole)| mine(whole)).map(|(id, _)| *id);
        let id = made.unwrap_or_else(|| self.make(round));
        // Parts say nothing that binds this member, so they need not wait for the record of the value.
        self.desk.send_value(id, None);
        let height = Height(self.desk.index());
        self.feed(Ask::Propose(LocallyProposedValue::new(height, Round::new(round), Id(id))));
    }

    fn make(&mut self, round: u32) -> Hash32 {
        let desk = &mut self.desk;
        let index = desk.index();
        let next = desk.queue.pull();
        let (ticket, body) = next.map_or((None, Body::Blank), |(ticket, body)| (Some(ticket), body));
        let (previous, proposer, heir) = (desk.chain.value, desk.node(), desk.heir);
        let lasted_ms = desk.age.ms(desk.now);
        let value = Value { version: VALUE_VERSION, index, previous, proposer, round, heir, lasted_ms, body };
        let encoded = value.encode();
        let id = Value::id_of(&encoded);
        if let Some(ticket) = ticket {
            desk.queue.proposed(ticket, index, id, &mut desk.out);
        }
        let whole = Whole::new(value, encoded);
        desk.shelf.keep(id, Whole { valid: Some(true), told: Some(true), kept: true, ..whole });
        id
    }

    /// The library has decided (L49).
    fn on_finalized(&mut self, certificate: CommitCertificate<Bft>) {
        let desk = &mut self.desk;
        let id = certificate.value_id.0;
        let Some(whole) = desk.shelf.get(&id) else {
            // Its bytes were dropped for others. Whoever has decided it gives them.
            desk.finalized = Some(certificate);
            desk.rest();
            self.follow.ask_at(self.desk.now);
            return;
        };
        let by = certificate.commit_signatures.iter().map(|by| (by.address.0, by.signature));
        let signatures: BTreeMap<NodeId, Signature> = by.collect();
        // What this member's own vote decides is not to be known before that vote is durable.
        let others = signatures.keys().filter(|node| **node != desk.settings.node).count();
        let gate = if others >= usize::from(desk.committee.threshold) { 0 } else { desk.outbox.gate() };
        let round = certificate.round.as_u32().unwrap_or(0);
        let decided = Decided { value: whole.value.clone(), round, signatures: signatures.into_iter().collect() };
        self.commit(decided, id, gate);
    }

    /// An entry is decided.
    fn commit(&mut self, decided: Decided, id: Hash32, gate: u64) {
        self.take_evidence();
        let desk = &mut self.desk;
        let next = desk.chain.after(&decided.value, id, &desk.committee);
        let index = desk.index();
        desk.queue.decided(index, id, &mut desk.out);
        desk.rest();
        // The last value of a turn hands over to nobody: when the next turn is its maker's own, it has to ask again.
        if decided.value.heir.is_some() && next.turn.leader != desk.node() {
            desk.heir = None;
        }
        self.committing = Some(Committing { decided: Box::new(decided), next, gate, sent: false });
    }

    /// Reports what the library has found, before it goes to another entry.
    fn take_evidence(&mut self) {
        let proposals = self.library.driver.take_proposal_evidence();
        let votes = self.library.driver.take_vote_evidence();
        self.desk.evidence(MisbehaviorEvidence { proposals, votes });
    }

    fn on_applied(&mut self, index: u64, committee: Arc<Committee>) {
        let Some(done) = self.committing.take_if(|done| done.sent && done.next.index == index) else { return };
        self.go_on(done.next, committee);
    }

    /// The state stands behind another entry: everything up to there is over.
    fn go_on(&mut self, chain: Chain, committee: Arc<Committee>) {
        let desk = &mut self.desk;
        desk.chain = chain;
        desk.age.applied(&desk.chain.turn, desk.now);
        desk.queue.applied(desk.chain.index, &mut desk.out);
        desk.outbox.let_go();
        let last = desk.outbox.last();
        if last > self.forgotten && self.past.back().is_none_or(|record| record.index <= desk.chain.index) {
            self.forgotten = last;
            desk.out.push(Output::Forget(last));
        }
        self.take_committee(committee);
        self.start();
    }

    /// A snapshot has replaced the state. What was on the way is void; what was proposed may be in it.
    fn on_installed(&mut self, chain: Chain, committee: Arc<Committee>) {
        if chain.index <= self.desk.chain.index {
            return;
        }
        if !chain.well_formed() {
            return self.desk.fail("the snapshot does not say where it stands in the order");
        }
        self.take_evidence();
        self.committing = None;
        self.desk.rest();
        self.follow.own.retain(|decided| decided.value.index > chain.index);
        self.go_on(chain, committee);
    }

    /// A committee is in force.
    fn take_committee(&mut self, committee: Arc<Committee>) {
        let desk = &mut self.desk;
        if !fits(&committee) {
            return desk.fail("the committee in force is not one of this engine, or does not decide by two thirds");
        }
        let seat = committee.index_of(desk.settings.node);
        let named = seat.is_some_and(|seat| desk.settings.key.holds(&committee.members[seat].key));
        desk.votes = named && self.allowed;
        if *desk.committee != *committee {
            self.follow.heard.retain(|node, _| committee.index_of(*node).is_some());
            // Nobody would vote for a value that names one who has no seat.
            desk.heir = desk.heir.filter(|heir| committee.index_of(*heir).is_some());
            desk.frame = context::Frame::new(desk.settings.cluster, &committee);
            desk.committee = committee;
        }
    }

    /// Begins the entry behind the chain: with a value that was decided already, or by deciding it.
    fn start(&mut self) {
        self.desk.clear();
        self.follow.clear();
        if self.desk.fault.is_some() {
            return;
        }
        let index = self.desk.index();
        if let Some(decided) = self.follow.own.pop_front() {
            if !self.take_decided(decided) {
                self.desk.fail(format!("entry {index} of the log was not decided by its committee"));
            }
            return;
        }
        if self.follow.take_ahead(index).into_iter().any(|decided| self.take_decided(decided)) {
            return;
        }
        let seats = Seats::new(&self.desk.committee, &self.desk.chain.turn);
        self.library.params.enabled = self.desk.votes;
        self.feed(Ask::StartHeight(Height(index), seats, false, None, VoteExtensionPolicy::Disabled));
        self.replay();
        for (from, message) in self.follow.take_early(index) {
            self.on_peer(from, message);
        }
        self.look_ahead();
    }

    /// Whether this member proposes next, and may.
    fn leads(&self) -> bool {
        self.desk.votes && self.leader() == self.desk.node()
    }

    /// Who proposes in the running round; in the next entry's first one, while one is being applied.
    fn leader(&self) -> NodeId {
        let desk = &self.desk;
        self.committing.as_ref().map_or(desk.proposer, |done| done.next.turn.proposer(&desk.committee, 0))
    }

    fn submit(&mut self, ticket: u64, body: Body) {
        if self.leads() {
            let desk = &mut self.desk;
            desk.queue.submit(ticket, body, &mut desk.out);
        } else {
            let leader = self.leader();
            let fate = Fate::NotLeader((leader != self.desk.node()).then_some(leader));
            self.desk.out.push(Output::Fate { ticket, fate });
        }
    }

    /// Time has passed.
    fn tick(&mut self) {
        let now = self.desk.now;
        while let Some(timeout) = self.take_due(now) {
            self.feed(Ask::TimeoutElapsed(timeout));
        }
        if self.repeat_at <= now {
            self.repeat_at = self.desk.later(self.desk.settings.timing.repeat_ms);
            self.repeat();
        }
        if self.follow.at.is_some_and(|at| at <= now) {
            self.fetch();
        }
    }

    fn take_due(&mut self, now: Tick) -> Option<Timeout> {
        let timers = &mut self.desk.timers;
        let due = (0..timers.len()).filter(|at| timers[*at].1 <= now).min_by_key(|at| timers[*at].1)?;
        Some(timers.remove(due).0)
    }

    fn stand(&self) -> Standing {
        let desk = &self.desk;
        let node = desk.node();
        let members: Vec<NodeId> = desk.committee.members.iter().map(|member| member.node).collect();
        let heard = members.iter().filter(|member| **member != node);
        // More than what is decided here is only a claim, and nobody is to stand out by one.
        let upto = |member: &NodeId| self.follow.heard.get(member).copied().unwrap_or(0).min(desk.chain.index);
        let heard = heard.map(|member| (*member, upto(member)));
        Standing {
            leads: self.leads(),
            leader: members.contains(&self.leader()).then(|| self.leader()),
            index: desk.index(),
            round: desk.round,
            heard: heard.collect(),
            members,
        }
    }

    /// Hands the outputs over: first what has to be written now, then what was waiting for earlier writes.
    fn finish(&mut self, out: &mut Vec<Output>) {
        if let Some(why) = self.desk.fault.take() {
            // What was made in this step may follow from what is wrong. Nothing of it leaves.
            self.stopped = true;
            out.push(Output::Stop(why));
            return;
        }
        let standing = self.stand();
        let same = Standing { heard: self.standing.heard.clone(), ..standing.clone() } == self.standing;
        if !same {
            self.standing = standing;
            self.desk.out.push(Output::Standing(self.standing.clone()));
        }
        if let Some((first, records)) = self.desk.outbox.fresh() {
            out.push(Output::Persist { first, records });
        }
        while let Some((to, message)) = self.desk.outbox.pop() {
            out.push(Output::Send { to, message });
        }
        out.append(&mut self.desk.out);
        let open = |done: &&mut Committing| !done.sent && self.desk.outbox.passed(done.gate);
        if let Some(done) = self.committing.as_mut().filter(open) {
            done.sent = true;
            out.push(Output::Commit { decided: done.decided.clone(), note: done.next.clone() });
        }
    }
}
