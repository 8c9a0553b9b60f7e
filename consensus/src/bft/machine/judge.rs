//! From a proposal and parts to a verdict: what is looked at before the library may vote for a value.
//!
//! Owns: that a proposal comes to the library only with its value, that the value says of itself what is true
//! (its place, what it follows, who made it and for which round), and that a batch is judged by the host. This
//! is `valid(v)` of the Tendermint paper (L22, L28, L36), and half of it is here. Never looks into a batch.
//!
//! How long the turn has lasted, a value of the first round has to admit, as long as the group has not agreed on it; see
//! [`super::super::turn`].
//!
//! A proposal of a new value has one made for its round; one that was made before comes only with the round in
//! which more than two thirds have prevoted it. So nobody proposes in another's name, and whose turn it is
//! follows from what honest members have seen.

use ledger::ballot::{Ballot, BallotKind, SignedBallot};
use ledger::hash::Hash32;
use ledger::ids::NodeId;
use ledger::limits::BATCH_BYTES_MAX;
use malachite::{Input, ProposedValue};
use malachite_types::{Round, Validity, ValueOrigin};

use super::super::api::Output;
use super::super::message::Part;
use super::super::turn::TURN_SLACK_MS;
use super::super::value::{Body, VALUE_VERSION, Value};
use super::Machine;
use super::ballots::Seen;
use super::context::{Address, Height, Id, Said, said};
use super::effects::Desk;
use super::parts::Whole;

/// How far ahead of the running round a proposal is kept; as far as the library keeps votes.
const ROUNDS_AHEAD_MAX: u32 = 10;

/// Whether a value is one that this proposal may propose.
fn pairs(ballot: &Ballot, value: &Value) -> bool {
    match ballot.kind {
        BallotKind::Proposal { valid_round: None } => value.round == ballot.round,
        BallotKind::Proposal { valid_round: Some(valid) } => value.round <= valid,
        BallotKind::Prevote | BallotKind::Precommit => false,
    }
}

impl Desk {
    /// Whether a value says what is true of itself, for the index that is being decided.
    pub fn sound(&self, value: &Value) -> bool {
        let small = match &value.body {
            Body::Blank => true,
            Body::Batch(batch) => batch.len() <= BATCH_BYTES_MAX,
        };
        small
            && value.version == VALUE_VERSION
            && value.index == self.index()
            && value.previous == self.chain.value
            && value.proposer == self.chain.turn.proposer(&self.committee, value.round)
            && value.lasted_ms >= self.chain.turn.lasted_ms
            && value.heir.is_none_or(|heir| heir != value.proposer && self.committee.index_of(heir).is_some())
    }

    /// Whether a value says so much less than was seen here of how long the turn has lasted, or so much more, that it is no
    /// accident. Saying less is borne in later rounds, where the one that leads the turn does not propose.
    fn misstates_time(&self, value: &Value) -> bool {
        let (said, seen) = (value.lasted_ms, self.age.ms(self.now));
        let hides = value.round == 0 && said.saturating_add(TURN_SLACK_MS) < seen;
        hides || said > seen.saturating_add(TURN_SLACK_MS)
    }

    /// Whether somebody with a right to it has named a value.
    pub fn named(&self, id: Hash32) -> bool {
        let mut all = self.proposals.values().flatten();
        all.any(|(signed, seen)| *seen != Seen::Refused && signed.ballot.value == Some(id))
    }
}

impl Machine {
    /// A proposal of the index that is being decided.
    pub(super) fn on_proposal(&mut self, signed: SignedBallot) {
        let desk = &mut self.desk;
        let ballot = &signed.ballot;
        let Some(id) = ballot.value else { return };
        let near = ballot.round <= desk.round.saturating_add(ROUNDS_AHEAD_MAX);
        let known = desk.proposals.get(&ballot.round);
        let known = known.is_some_and(|round| round.iter().any(|(other, _)| other.ballot == *ballot));
        let room = desk.takes_proposal(ballot.round);
        let in_turn = ballot.node == desk.chain.turn.proposer(&desk.committee, ballot.round);
        if near && !known && room && in_turn && desk.verify(&signed) && desk.note_proposal(signed, Seen::Waits) {
            self.advance(id);
        }
    }

    /// A part of the index that is being decided: taken for a value that somebody has proposed, or from the
    /// proposer of the running round or of the next.
    pub(super) fn on_part(&mut self, from: NodeId, part: Part) {
        let id = part.value;
        let desk = &mut self.desk;
        let next = desk.chain.turn.proposer(&desk.committee, desk.round.saturating_add(1));
        if from != desk.proposer && from != next && !desk.named(id) && !self.agreed(id) {
            return;
        }
        let desk = &mut self.desk;
        let Some((id, encoded)) = desk.shelf.take(from, part) else { return };
        let Ok(value) = borsh::from_slice::<Value>(&encoded) else { return };
        // The value of the running round is judged while its proposal is still on the way; only one of them.
        let early = from == desk.proposer && value.proposer == from && value.round == desk.round;
        let only = desk.shelf.all().all(|(_, other)| other.value.round != value.round || other.asked.is_none());
        desk.shelf.keep(id, Whole::new(value, encoded));
        if early && only {
            self.ask(id);
        }
        self.advance(id);
    }

    /// Whether more than two thirds are known to have prevoted a value.
    pub(super) fn agreed(&self, id: Hash32) -> bool {
        self.library.driver.polka_certificates().iter().any(|polka| polka.value_id.0 == id)
    }

    /// Has a value judged that is here: by itself as far as it can, else by the host.
    fn ask(&mut self, id: Hash32) {
        let agreed = self.agreed(id);
        let desk = &mut self.desk;
        let Some(whole) = desk.shelf.get(&id) else { return };
        if whole.asked.is_some() || whole.valid.is_some() {
            return;
        }
        let sound = desk.sound(&whole.value);
        let misstates = sound && !agreed && desk.misstates_time(&whole.value);
        let batch = match &whole.value.body {
            Body::Batch(batch) if sound && !misstates => Some(batch.clone()),
            Body::Batch(_) | Body::Blank => None,
        };
        let Some(whole) = desk.shelf.get_mut(&id) else { return };
        match batch {
            Some(batch) => {
                whole.asked = Some(agreed);
                desk.out.push(Output::Judge { value: id, batch, agreed });
            }
            None => {
                whole.valid = Some(sound && !misstates);
                // What only its time speaks against is asked about again.
                whole.asked = misstates.then_some(false);
            }
        }
    }

    /// Takes a value as far as it can go: its proposals to the library, it to the host, the verdict to the
    /// library.
    pub(super) fn advance(&mut self, id: Hash32) {
        let Some(whole) = self.desk.shelf.get(&id) else { return };
        let value = &whole.value;
        let waiting = self.desk.proposals.values().flatten();
        let waiting = waiting.filter(|(signed, seen)| *seen == Seen::Waits && signed.ballot.value == Some(id));
        let waiting: Vec<(SignedBallot, bool)> =
            waiting.map(|(signed, _)| (*signed, pairs(&signed.ballot, value))).collect();
        for (signed, pairs) in waiting {
            let seen = if pairs { Seen::Taken } else { Seen::Refused };
            let round = self.desk.proposals.entry(signed.ballot.round).or_default();
            round.iter_mut().filter(|(other, _)| *other == signed).for_each(|(_, state)| *state = seen);
            if let (true, Some(Said::Proposal(proposal))) = (pairs, said(&signed)) {
                self.feed(Input::Proposal(proposal));
            }
        }
        if !self.desk.proposed(id) {
            return;
        }
        self.ask(id);
        let index = self.desk.index();
        let Some(whole) = self.desk.shelf.get_mut(&id) else { return };
        let Some(valid) = whole.valid.filter(|valid| whole.told != Some(*valid)) else { return };
        whole.told = Some(valid);
        let proposed = proposed(index, id, &whole.value, whole.value.round, valid);
        self.feed(Input::ProposedValue(proposed, ValueOrigin::Consensus));
    }

    /// The host has judged a value. What it has found to be right stays so.
    pub(super) fn on_judged(&mut self, id: Hash32, valid: bool) {
        let Some(whole) = self.desk.shelf.get_mut(&id).filter(|whole| whole.asked.is_some()) else { return };
        if whole.valid != Some(true) {
            whole.valid = Some(valid);
            self.advance(id);
        }
    }

    /// A value that more than two thirds have prevoted is kept, and what was found wrong with it is asked again: its
    /// time may have been the only thing, and that does not matter any more.
    pub(super) fn ask_again(&mut self) {
        let polkas = self.library.driver.polka_certificates().iter();
        let ids: Vec<Hash32> = polkas.map(|polka| polka.value_id.0).collect();
        for id in ids {
            let desk = &mut self.desk;
            let Some(whole) = desk.shelf.get_mut(&id) else { continue };
            whole.kept = true;
            if (whole.valid, whole.asked) != (Some(false), Some(false)) {
                continue;
            }
            whole.asked = Some(true);
            match whole.value.body.clone() {
                Body::Batch(batch) => desk.out.push(Output::Judge { value: id, batch, agreed: true }),
                // It was sound but for its time.
                Body::Blank => {
                    whole.valid = Some(true);
                    self.advance(id);
                }
            }
        }
    }
}

/// A value with its verdict in the library's words.
pub fn proposed(index: u64, id: Hash32, value: &Value, round: u32, valid: bool) -> ProposedValue<super::context::Bft> {
    ProposedValue {
        height: Height(index),
        round: Round::new(round),
        valid_round: Round::Nil,
        proposer: Address(value.proposer),
        value: Id(id),
        validity: Validity::from_bool(valid),
    }
}
