//! Voters that lie: two answers to one question.

use consensus::bft::Message;
use ledger::ballot::{Ballot, BallotKind, SignedBallot};
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::NodeId;

use super::{Liar, Scene};
use crate::wire::Wire;
use crate::wire::bft::BftWire;

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
                self.deeds.lies += 1;
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

    /// The two halves of the honest members get proposals and votes of their own. Nobody but a conspirator is to have a
    /// value decided: of what others propose, all of them want nothing.
    pub(super) fn conspire(&mut self, scene: &Scene<'_>, to: NodeId, message: Message, said: &mut Vec<(NodeId, Wire)>) {
        let second = self.second(scene.committee, scene.node, to);
        if let Some(instead) = self.instead_of(scene, &message) {
            self.deeds.lies += 1;
            self.note_proposal(&message);
            instead.iter().for_each(|message| self.note_proposal(message));
            if second {
                said.extend(instead.into_iter().map(|message| (to, scene.wire(message))));
                return;
            }
            if self.fellows.contains(&to) {
                // Their machines hear of the first value alone, as those of the first half do.
                let proposals = instead.into_iter().filter(|message| matches!(message, Message::Ballot(_)));
                said.extend(proposals.map(|message| (to, scene.bft(BftWire::Aside(message)))));
            }
            said.push((to, scene.wire(message)));
            return;
        }
        match &message {
            Message::Ballot(signed) if vote(scene, signed) => self.vote_apart(scene, to, second, signed.ballot, said),
            // What is passed on of others would give the two halves away.
            Message::Ballots(..) => {}
            Message::Ballot(signed) if second && signed.ballot.node != scene.node => {}
            Message::Ballot(_) | Message::Part(_) | Message::Want { .. } => said.push((to, scene.wire(message))),
        }
    }

    fn vote_apart(
        &mut self,
        scene: &Scene<'_>,
        to: NodeId,
        second: bool,
        ballot: Ballot,
        said: &mut Vec<(NodeId, Wire)>,
    ) {
        let proposer = scene.chain.turn.proposer(scene.committee, ballot.round);
        let own = proposer == scene.node;
        let value = if ballot.index == scene.chain.index + 1 && !own && !self.fellows.contains(&proposer) {
            None
        } else {
            match (ballot.value, self.both(&ballot)) {
                (Some(value), Some((first, other))) if second && value == first => Some(other),
                (Some(_), None) if second && !own => {
                    // What the other value is has not been said yet.
                    self.owed.push(ballot);
                    return;
                }
                // It votes before it has said what it proposes.
                (Some(value), None) if second => Some(self.instead.get(&value).map_or(value, |instead| instead.id)),
                (value, _) => value,
            }
        };
        self.deeds.lies += u64::from(value != ballot.value);
        said.push((to, scene.wire(Message::Ballot(scene.sign(Ballot { value, ..ballot })))));
    }

    /// Votes for the second half that could not be cast before its value was known.
    pub(super) fn pay(&mut self, scene: &Scene<'_>, said: &mut Vec<(NodeId, Wire)>) {
        let owed = std::mem::take(&mut self.owed);
        let fresh = owed.into_iter().filter(|ballot| ballot.index + 2 > scene.chain.index);
        let (due, later): (Vec<Ballot>, Vec<Ballot>) = fresh.partition(|ballot| self.both(ballot).is_some());
        self.owed = later;
        let others = scene.others().into_iter();
        let second: Vec<NodeId> = others.filter(|node| self.second(scene.committee, scene.node, *node)).collect();
        for ballot in due {
            let Some((_, other)) = self.both(&ballot) else { continue };
            self.deeds.lies += 1;
            let vote = scene.sign(Ballot { value: Some(other), ..ballot });
            said.extend(second.iter().map(|node| (*node, scene.wire(Message::Ballot(vote)))));
        }
    }

    /// The two values of a round: the one with the lower id is that of the first half.
    fn both(&self, ballot: &Ballot) -> Option<(Hash32, Hash32)> {
        let mut values = self.proposed.get(&(ballot.index, ballot.round))?.iter().copied();
        Some((values.next()?, values.next()?))
    }

    /// Whether a member is of the second half of those whom the conspiracy is against.
    pub(super) fn second(&self, committee: &Committee, own: NodeId, node: NodeId) -> bool {
        let members = committee.members.iter().map(|member| member.node);
        let mut others = members.filter(|member| *member != own && !self.fellows.contains(member));
        others.position(|member| member == node).is_some_and(|place| place % 2 == 1)
    }
}
