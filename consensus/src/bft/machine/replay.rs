//! Coming back: what was written down of the entry that is being decided, given to the library again.
//!
//! Owns: the records of the run before. The library comes to the same votes from them, and compares each with
//! the one that was written down; one that differs stops the member, since it would be a second vote. Records
//! of entries that were decided are passed over. A record that is not of this committee, or has no meaning,
//! stops the member too: its log is another's, or was altered.

use ledger::ballot::SignedBallot;
use malachite::Input;
use malachite_types::{
    PolkaCertificate, PolkaSignature, Round, RoundCertificate, RoundCertificateType, Timeout, ValueOrigin,
};

use super::super::message::{Event, Quorum};
use super::super::value::Value;
use super::Machine;
use super::context::{Bft, Height, Id, Said, said};
use super::effects::name;
use super::judge::proposed;
use super::parts::Whole;

impl Machine {
    /// Replays the records of the index that has just begun. Those of later ones wait: their entries' order was
    /// lost with the end of the log, and comes again.
    pub(super) fn replay(&mut self) {
        let index = self.desk.index();
        let behind = self.past.partition_point(|record| record.index < index);
        let later = self.past.partition_point(|record| record.index <= index);
        let events: Vec<Event> = self.past.drain(..later).skip(behind).map(|record| record.event).collect();
        if events.is_empty() || !self.desk.votes {
            return;
        }
        let mut inputs = Vec::with_capacity(events.len());
        for event in &events {
            let Some(input) = self.input_of(index, event) else {
                return self.desk.fail(format!("a record of entry {index} is not this member's, or was altered"));
            };
            inputs.push(input);
        }
        self.desk.replaying = events.iter().map(name).collect();
        self.library.index_wal_entries(&inputs);
        for input in inputs {
            if let Input::TimeoutElapsed(timeout) = &input {
                self.desk.timers.retain(|(other, _)| other != timeout);
            }
            self.feed(input);
        }
        self.library.reset_entries_index();
        self.desk.replaying.clear();
        let named = self.desk.proposals.values().flatten().filter_map(|(signed, _)| signed.ballot.value);
        for id in named.collect::<Vec<_>>() {
            self.advance(id);
        }
    }

    fn input_of(&mut self, index: u64, event: &Event) -> Option<Input<Bft>> {
        match event {
            Event::Ballot(signed) => {
                self.of_here(index, signed).then(|| said(signed)).flatten().map(|said| match said {
                    Said::Vote(vote) => Input::Vote(vote),
                    Said::Proposal(proposal) => Input::Proposal(proposal),
                })
            }
            Event::Polka(ballots) => {
                let of_here = ballots.iter().all(|signed| self.of_here(index, signed));
                certificate(Quorum::Polka, ballots).filter(|_| of_here)
            }
            Event::Value { encoded, round, valid } => {
                // What was refused may say that it is of another entry: a liar has proposed it for this one.
                let of_here = |value: &Value| value.index == index || !valid;
                let value: Value = borsh::from_slice(encoded).ok().filter(of_here)?;
                let id = value.id();
                let proposed = proposed(index, id, &value, *round, *valid);
                let kept = value.proposer == self.desk.node();
                let mut whole = Whole::new(value, encoded.clone());
                (whole.valid, whole.told, whole.kept) = (Some(*valid), Some(*valid), kept);
                // What was found wrong may have been the time alone.
                whole.asked = (!valid && self.desk.sound(&whole.value)).then_some(false);
                match self.desk.shelf.get_mut(&id) {
                    Some(known) if *valid => *known = whole,
                    Some(_) => {}
                    None => self.desk.shelf.keep(id, whole),
                }
                Some(Input::ProposedValue(proposed, ValueOrigin::Consensus))
            }
            Event::Timeout { step, round } => {
                let round = Round::new(*round);
                Some(Input::TimeoutElapsed(match step {
                    0 => Timeout::propose(round),
                    1 => Timeout::prevote(round),
                    2 => Timeout::precommit(round),
                    _ => return None,
                }))
            }
        }
    }

    fn of_here(&self, index: u64, signed: &SignedBallot) -> bool {
        self.desk.frame.holds(&signed.ballot) && signed.ballot.index == index
    }
}

/// Ballots that prove something, in the library's words: `None` when they are not of one kind and round, or
/// there are none. How many there are, by whom, and whether they verify, is the library's to ask.
pub fn certificate(quorum: Quorum, ballots: &[SignedBallot]) -> Option<Input<Bft>> {
    let first = &ballots.first()?.ballot;
    let (height, round) = (Height(first.index), Round::new(first.round));
    let mut votes = Vec::with_capacity(ballots.len());
    for signed in ballots {
        match said(signed)? {
            Said::Vote(vote) if signed.ballot.index == first.index && signed.ballot.round == first.round => {
                votes.push(vote);
            }
            Said::Vote(_) | Said::Proposal(_) => return None,
        }
    }
    let alike = |signed: &SignedBallot| (signed.ballot.kind, signed.ballot.value) == (first.kind, first.value);
    match quorum {
        Quorum::Polka => {
            let value = first.value?;
            if first.kind != ledger::ballot::BallotKind::Prevote || !ballots.iter().all(alike) {
                return None;
            }
            let by = votes.iter().map(|vote| PolkaSignature::<Bft>::new(vote.message.address, vote.signature));
            let polka_signatures = by.collect();
            let value_id = Id(value);
            Some(Input::PolkaCertificate(PolkaCertificate { height, round, value_id, polka_signatures }))
        }
        Quorum::Precommits | Quorum::Skip => {
            let kind = match quorum {
                Quorum::Precommits => RoundCertificateType::Precommit,
                Quorum::Polka | Quorum::Skip => RoundCertificateType::Skip,
            };
            Some(Input::RoundCertificate(RoundCertificate::new_from_votes(height, round, kind, votes)))
        }
    }
}
