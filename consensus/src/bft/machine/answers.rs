//! The answers of members to the questions of one entry, as far as they are remembered: what a second answer is compared
//! with, and what need not be verified again.
//!
//! Owns how much of it is kept. Every member has places of its own, so that nobody who signs a great deal takes those of
//! another; and when they are full those go that are farthest from the running round, on either side, so that nobody hides
//! a double vote of now behind ballots of rounds that nobody is in. What is given up is said, once for each member and
//! entry. Of one question two answers are kept: the second proves that its signer lies, and more prove nothing more.
//! Never verifies anything.

use std::collections::{BTreeMap, BTreeSet};

use ledger::ballot::{BallotKind, SignedBallot};
use ledger::ids::NodeId;

/// Questions of one entry that are remembered, of all members together.
pub const QUESTIONS_MAX: usize = 16_384;

/// A question to a member: of a round and a kind.
type Question = (u32, &'static str);

fn question(signed: &SignedBallot) -> Question {
    (signed.ballot.round, signed.ballot.kind.name())
}

/// Answers to one question.
struct Given {
    first: SignedBallot,
    second: Option<SignedBallot>,
}

/// What came of noting a ballot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Another answer of its signer to the same question, which came first.
    pub against: Option<SignedBallot>,
    /// An answer of its signer is not remembered any more, and that is to be said.
    pub lost: bool,
}

/// What is remembered of one entry.
#[derive(Default)]
pub struct Answers {
    given: BTreeMap<NodeId, BTreeMap<Question, Given>>,
    /// Members of which something was given up.
    lost: BTreeSet<NodeId>,
}

impl Answers {
    /// Another entry begins.
    pub fn clear(&mut self) {
        self.given.clear();
        self.lost.clear();
    }

    /// Whether this very ballot was noted.
    pub fn knows(&self, signed: &SignedBallot) -> bool {
        let given = self.given.get(&signed.ballot.node).and_then(|given| given.get(&question(signed)));
        given.is_some_and(|given| given.first == *signed || given.second == Some(*signed))
    }

    /// Whether a member has prevoted nothing in a round, and nothing else beside it.
    pub fn prevoted_nothing(&self, node: NodeId, round: u32) -> bool {
        let asked = (round, BallotKind::Prevote.name());
        let given = self.given.get(&node).and_then(|given| given.get(&asked));
        given.is_some_and(|given| given.first.ballot.value.is_none() && given.second.is_none())
    }

    /// Notes a ballot that verifies, while members are in about this round; each of `members` has its share of the places.
    pub fn note(&mut self, signed: SignedBallot, round: u32, members: usize) -> Noted {
        let node = signed.ballot.node;
        let given = self.given.entry(node).or_default();
        if let Some(known) = given.get_mut(&question(&signed)) {
            if known.first == signed {
                return Noted::default();
            }
            known.second.get_or_insert(signed);
            return Noted { against: Some(known.first), lost: false };
        }
        given.insert(question(&signed), Given { first: signed, second: None });
        if given.len() <= (QUESTIONS_MAX / members.max(1)).max(1) {
            return Noted::default();
        }
        let far = |entry: Option<(&Question, &Given)>| entry.map_or(0, |((of, _), _)| of.abs_diff(round));
        if far(given.first_key_value()) > far(given.last_key_value()) {
            given.pop_first();
        } else {
            given.pop_last();
        }
        Noted { against: None, lost: self.lost.insert(node) }
    }

    /// Ballots that are remembered.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        let all = self.given.values().flat_map(BTreeMap::values);
        all.map(|given| 1 + usize::from(given.second.is_some())).sum()
    }
}

#[cfg(test)]
mod tests {
    use ledger::ballot::{BALLOT_VERSION, Ballot};
    use ledger::crypto::Signature;
    use ledger::hash::Hash32;
    use ledger::ids::{ClusterId, GroupId, Incarnation};

    use super::*;

    fn prevote(node: u32, round: u32, value: u8) -> SignedBallot {
        let ballot = Ballot {
            version: BALLOT_VERSION,
            cluster: ClusterId(Hash32([7; 32])),
            group: GroupId::shard(0),
            incarnation: Incarnation(0),
            committee: Hash32([6; 32]),
            index: 5,
            round,
            kind: BallotKind::Prevote,
            value: Some(Hash32([value; 32])),
            node: NodeId(node),
        };
        SignedBallot { ballot, signature: Signature([value; 64]) }
    }

    /// So many members that each has four places.
    const MEMBERS: usize = QUESTIONS_MAX / 4;

    #[test]
    fn a_second_answer_is_shown_the_first_and_two_are_kept() {
        let mut answers = Answers::default();
        let [one, other, third] = [1, 2, 3].map(|value| prevote(1, 0, value));
        assert_eq!(answers.note(one, 0, MEMBERS), Noted::default());
        assert_eq!(answers.note(one, 0, MEMBERS), Noted::default(), "the same is no other answer");
        for second in [other, third, other] {
            assert_eq!(answers.note(second, 0, MEMBERS), Noted { against: Some(one), lost: false });
        }
        assert_eq!([one, other, third].map(|signed| answers.knows(&signed)), [true, true, false]);
        assert_eq!(answers.held(), 2);
        assert_eq!(answers.note(prevote(2, 0, 2), 0, MEMBERS), Noted::default(), "of another member");
        answers.clear();
        assert_eq!((answers.held(), answers.knows(&one)), (0, false));
    }

    #[test]
    fn who_has_prevoted_nothing_is_known_until_it_has_prevoted_something_too() {
        let mut answers = Answers::default();
        let value = prevote(1, 3, 1);
        let nothing = SignedBallot { ballot: Ballot { value: None, ..value.ballot }, ..value };
        assert!(!answers.prevoted_nothing(NodeId(1), 3), "it has said nothing at all");
        answers.note(nothing, 3, MEMBERS);
        assert!(answers.prevoted_nothing(NodeId(1), 3));
        assert!(!answers.prevoted_nothing(NodeId(1), 4) && !answers.prevoted_nothing(NodeId(2), 3));
        answers.note(value, 3, MEMBERS);
        assert!(!answers.prevoted_nothing(NodeId(1), 3), "it lies");
        answers.note(prevote(2, 3, 1), 3, MEMBERS);
        assert!(!answers.prevoted_nothing(NodeId(2), 3), "it has prevoted a value");
    }

    #[test]
    fn what_is_far_from_the_round_goes_first_and_that_is_said_once() {
        let mut answers = Answers::default();
        for round in [10, 11, 5_000, 1] {
            assert_eq!(answers.note(prevote(1, round, 1), 10, MEMBERS), Noted::default());
        }
        let lost = |lost| Noted { against: None, lost };
        assert_eq!(answers.note(prevote(1, 12, 1), 10, MEMBERS), lost(true), "5,000 has gone");
        assert_eq!(answers.note(prevote(1, 9, 1), 10, MEMBERS), lost(false), "1 has gone");
        assert_eq!(answers.note(prevote(1, 70, 1), 10, MEMBERS), lost(false), "it has not even come");
        for (round, known) in [(1, false), (9, true), (10, true), (11, true), (12, true), (70, false), (5_000, false)] {
            assert_eq!(answers.knows(&prevote(1, round, 1)), known, "{round}");
            let against = known.then(|| prevote(1, round, 1));
            assert_eq!(answers.note(prevote(1, round, 2), 10, MEMBERS).against, against, "{round}");
        }
        // What others have signed is untouched, and of them nothing was lost.
        assert_eq!(answers.note(prevote(2, 10, 1), 10, MEMBERS), Noted::default());
        assert!(answers.held() <= 2 * 2 * 4);
    }
}
