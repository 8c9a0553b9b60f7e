//! What other members send: sorted by entry, and given to whom it concerns.
//!
//! Owns: which messages are looked at. A sender without a seat is not heard, nor for a while one that has sent too much
//! that does not verify: how many signatures are looked at for nothing follows from time, and not from how fast entries
//! are decided. Nothing that arrives can reach an assertion of the library:
//! only ballots of this committee, of this index and of a round below [`ROUND_MAX`] come to it.

use std::collections::BTreeMap;

use ledger::ballot::{BallotKind, SignedBallot};
use ledger::hash::Hash32;
use ledger::ids::NodeId;
use malachite::Input;

use super::super::api::Output;
use super::super::message::{Message, Quorum};
use super::Machine;
use super::ballots::Seen;
use super::context::{Said, said};
use super::follow::EARLY_INDEXES;
use super::replay::certificate;

/// Rounds that are ever looked at: decades of time-outs. The library counts rounds in 32 bits.
pub const ROUND_MAX: u32 = 1 << 30;
/// Ballots of one peer that do not verify, before it is not heard until the next repetition. An honest one has none: it
/// passes on only what it has verified.
pub const STRIKES_MAX: u32 = 64;
/// Values that are asked for at a time.
pub const WANTED_MAX: usize = 4;

impl Machine {
    /// A member has sent something.
    pub(super) fn on_peer(&mut self, from: NodeId, message: Message) {
        if from == self.desk.node() || self.desk.committee.index_of(from).is_none() {
            return;
        }
        let at = match &message {
            Message::Ballot(signed) => signed.ballot.index,
            Message::Ballots(_, ballots) => match ballots.first() {
                Some(first) if ballots.len() <= self.desk.committee.members.len() => first.ballot.index,
                Some(_) | None => return,
            },
            Message::Part(part) => part.index,
            Message::Want { index, .. } => *index,
        };
        self.follow.hear(from, at);
        let index = self.desk.index();
        if at > index {
            if at - index <= EARLY_INDEXES {
                self.follow.keep_early(from, at, message);
            }
            return self.look_ahead();
        }
        let struck = self.desk.strikes.get(&from).is_some_and(|strikes| *strikes >= STRIKES_MAX);
        if at < index || self.committing.is_some() || struck {
            return;
        }
        self.desk.sender = Some(from);
        match message {
            Message::Ballot(signed) => self.on_ballot(signed),
            Message::Ballots(quorum, ballots) => self.on_ballots(quorum, &ballots),
            Message::Part(part) => self.on_part(from, part),
            Message::Want { value, .. } => {
                let (now, ms) = (self.desk.now, self.desk.settings.timing.repeat_ms / 2);
                if self.desk.shelf.get(&value).is_some() && self.follow.may_answer(from, value, now, ms) {
                    self.desk.send_value(value, Some(from));
                }
            }
        }
        self.desk.sender = None;
    }

    /// Sends again what may have been lost, beside the votes that the library repeats: this member's proposal,
    /// and questions for values that were proposed and are not here.
    pub(super) fn repeat(&mut self) {
        self.repeats = self.repeats.wrapping_add(1);
        self.desk.strikes.clear();
        if self.committing.is_none() {
            let desk = &mut self.desk;
            let round = desk.proposals.get(&desk.round).into_iter().flatten();
            let mine = round.filter(|(signed, seen)| signed.ballot.node == desk.settings.node && *seen == Seen::Taken);
            for message in mine.map(|(signed, _)| Message::Ballot(*signed)).collect::<Vec<_>>() {
                desk.broadcast(&message);
            }
            self.want();
        }
        self.look_ahead();
        self.standing = self.stand();
        self.desk.out.push(Output::Standing(self.standing.clone()));
    }

    /// Asks for values that were named and are not here: their proposer first, then one member after the other.
    pub(super) fn want(&mut self) {
        let desk = &self.desk;
        let proposals = desk.proposals.values().flatten().filter(|(_, seen)| *seen != Seen::Refused);
        let named = proposals.filter_map(|(signed, _)| Some((signed.ballot.value?, signed.ballot.node)));
        let polkas = self.library.driver.polka_certificates().iter();
        let polkas = polkas.filter_map(|polka| Some((polka.value_id.0, polka.polka_signatures.first()?.address.0)));
        let mut missing: BTreeMap<Hash32, NodeId> = named.chain(polkas).collect();
        missing.retain(|id, _| desk.shelf.get(id).is_none());
        let (index, members) = (desk.index(), desk.committee.members.len());
        for (value, proposer) in missing.into_iter().take(WANTED_MAX) {
            let other = self.desk.committee.members[self.repeats % members].node;
            for node in [proposer, other] {
                if node != self.desk.node() {
                    self.desk.outbox.send(node, Message::Want { index, value });
                }
            }
        }
    }

    fn on_ballot(&mut self, signed: SignedBallot) {
        if !self.counts(&signed) {
            return;
        }
        match signed.ballot.kind {
            BallotKind::Proposal { .. } => self.on_proposal(signed),
            BallotKind::Prevote | BallotKind::Precommit => {
                if let Some(Said::Vote(vote)) = said(&signed) {
                    self.feed(Input::Vote(vote));
                }
            }
        }
    }

    fn on_ballots(&mut self, quorum: Quorum, ballots: &[SignedBallot]) {
        if ballots.iter().all(|signed| self.counts(signed))
            && let Some(input) = certificate(quorum, ballots)
        {
            self.feed(input);
        }
    }

    /// Whether a ballot is one of this committee and index, by a member, of a round that may come.
    fn counts(&self, signed: &SignedBallot) -> bool {
        let ballot = &signed.ballot;
        self.desk.frame.holds(ballot)
            && ballot.index == self.desk.index()
            && ballot.round < ROUND_MAX
            && self.desk.committee.index_of(ballot.node).is_some()
    }
}
