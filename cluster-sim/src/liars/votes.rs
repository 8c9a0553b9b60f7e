//! Voters that lie: two answers to one question.

use consensus::bft::Message;
use ledger::ballot::{Ballot, BallotKind, SignedBallot};
use ledger::hash::Hash32;
use ledger::ids::NodeId;

use super::{Liar, Scene};
use crate::wire::Wire;

/// Rounds whose proposals are remembered.
const ROUNDS: usize = 16;

/// Whether a ballot is a vote of this node.
fn vote(scene: &Scene<'_>, signed: &SignedBallot) -> bool {
    signed.ballot.node == scene.node && !matches!(signed.ballot.kind, BallotKind::Proposal { .. })
}

impl Liar {
    /// One half of the members gets another vote, some get both.
    pub(super) fn vote_twice(
        &mut self,
        scene: &Scene<'_>,
        to: NodeId,
        message: Message,
        said: &mut Vec<(NodeId, Wire)>,
    ) {
        let both = self.draw(4) == 0;
        match &message {
            // Of some entries only: it is not to be found out by every one of its ballots.
            Message::Ballot(signed)
                if vote(scene, signed) && signed.ballot.index.is_multiple_of(3) && (both || scene.odd(to)) =>
            {
                self.lies += 1;
                let value = match signed.ballot.value {
                    Some(_) => None,
                    None => Some(self.known(&signed.ballot).unwrap_or(Hash32([9; 32]))),
                };
                let other = scene.sign(Ballot { value, ..signed.ballot });
                if both {
                    said.push((to, scene.wire(message)));
                }
                said.push((to, scene.wire(Message::Ballot(other))));
            }
            _ => said.push((to, scene.wire(message))),
        }
    }

    fn known(&self, ballot: &Ballot) -> Option<Hash32> {
        self.proposed.get(&(ballot.index, ballot.round))?.first().copied()
    }

    /// Remembers what was proposed.
    pub(super) fn note_proposal(&mut self, message: &Message) {
        let Message::Ballot(SignedBallot { ballot, .. }) = message else { return };
        if let (BallotKind::Proposal { .. }, Some(value)) = (ballot.kind, ballot.value) {
            self.proposed.entry((ballot.index, ballot.round)).or_default().insert(value);
            while self.proposed.len() > ROUNDS {
                self.proposed.pop_first();
            }
        }
    }

    /// Each half of the honest members gets a proposal and votes of its own; the fellows get everything.
    pub(super) fn conspire(&mut self, scene: &Scene<'_>, to: NodeId, message: Message, said: &mut Vec<(NodeId, Wire)>) {
        if let Some(instead) = self.instead_of(scene, &message) {
            self.lies += 1;
            self.note_proposal(&message);
            instead.iter().for_each(|message| self.note_proposal(message));
            let fellow = self.fellows.contains(&to);
            if fellow || !scene.odd(to) {
                said.push((to, scene.wire(message)));
            }
            if fellow || scene.odd(to) {
                said.extend(instead.into_iter().map(|message| (to, scene.wire(message))));
            }
            return;
        }
        let other = match &message {
            Message::Ballot(signed) if vote(scene, signed) => self.other_half(scene, &signed.ballot),
            _ => None,
        };
        match other {
            Some((own, other)) if self.fellows.contains(&to) => {
                said.push((to, scene.wire(own)));
                said.push((to, scene.wire(other)));
            }
            Some((own, other)) => {
                self.lies += 1;
                said.push((to, scene.wire(if scene.odd(to) { other } else { own })));
            }
            // A quorum that is shown would give the two halves away.
            None if matches!(message, Message::Ballots(..)) => {}
            None => said.push((to, scene.wire(message))),
        }
    }

    /// The votes for the two values of a round: of the even half, and of the odd one.
    fn other_half(&self, scene: &Scene<'_>, ballot: &Ballot) -> Option<(Message, Message)> {
        let value = ballot.value?;
        // Conspirators give the value with the lower id to the even half.
        let mut values = self.proposed.get(&(ballot.index, ballot.round))?.iter().copied();
        let (even, odd) = (values.next()?, values.next()?);
        let vote = |value: Hash32| Message::Ballot(scene.sign(Ballot { value: Some(value), ..*ballot }));
        (value == even || value == odd).then(|| (vote(even), vote(odd)))
    }
}
