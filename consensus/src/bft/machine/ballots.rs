//! Ballots on the desk: signed, verified, noted, and counted into certificates.
//!
//! Owns: that a ballot is verified once, which proposals of an index were seen, and the proof when somebody has
//! signed two that exclude each other. Never decides what is signed or what a certificate is good for.
//!
//! A proof is found where the two ballots meet. So every ballot that verifies is compared with the first answer of its
//! member to the same question, whatever it came in: a message, a quorum, or the proof of a decision that was taken from
//! another member, and whoever else has signed how much (see `answers`). And whoever answers a proposal with its first vote shows it to the others, so that two proposals of
//! a round meet as soon as somebody has voted on each. What stays hidden are two votes for members of which no one takes
//! from another what proves anything.

use std::collections::BTreeSet;

use ledger::ballot::{Ballot, BallotKind, Equivocation, SignedBallot};
use ledger::crypto::Signature;
use ledger::hash::Hash32;
use ledger::limits::EVIDENCE_PER_MEMBER_MAX;
use malachite::{MisbehaviorEvidence, ThresholdParams};
use malachite_types::{
    CertificateError, CommitCertificate, NilOrVal, PolkaCertificate, Round, RoundCertificate, RoundCertificateType,
    VoteType,
};

use super::super::api::Output;
use super::super::message::{Message, Quorum};
use super::super::value::Decided;
use super::context::{Address, Bft, Height, Id, Vote};
use super::effects::Desk;

/// Proposals of one round that are looked at; the second one already proves that their signer lies.
const PROPOSALS_MAX: usize = 2;
/// Rounds of one index whose proposals are remembered.
const ROUNDS_MAX: usize = 64;

/// How far a proposal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Verified; its value is not here yet.
    Waits,
    /// The library has it.
    Taken,
    /// Its value was made for another round: nobody votes for it.
    Refused,
}

impl Desk {
    /// Verifies a ballot of the committee, once.
    pub fn verify(&mut self, signed: &SignedBallot) -> bool {
        if self.answers.knows(signed) {
            return true;
        }
        let seat = self.committee.index_of(signed.ballot.node);
        let verified = seat.is_some_and(|seat| signed.verify_key(&self.committee.members[seat].key).is_ok());
        if verified {
            self.remember(*signed);
        } else if let Some(sender) = self.sender {
            *self.strikes.entry(sender).or_default() += 1;
        }
        verified
    }

    /// Remembers a ballot that verifies. Another answer to the same question is a proof.
    fn remember(&mut self, signed: SignedBallot) {
        let node = signed.ballot.node;
        let noted = self.answers.note(signed, self.round, self.committee.members.len());
        if let Some(first) = noted.against {
            self.report(first, signed);
        }
        if noted.lost {
            self.out.push(Output::Unremembered(node));
        }
    }

    /// Remembers the precommits of a decision that others have made, and that was verified: who has precommitted
    /// something else here has signed both.
    pub fn remember_decision(&mut self, decided: &Decided, id: Hash32) {
        let (height, round) = (Height(decided.value.index), Round::new(decided.round));
        let value = NilOrVal::Val(Id(id));
        for (node, signature) in &decided.signatures {
            let vote = Vote { height, round, kind: VoteType::Precommit, value, address: Address(*node) };
            self.remember(SignedBallot { ballot: self.frame.of_vote(&vote), signature: *signature });
        }
    }

    /// Shows the others the proposal that this member's first vote of a round answers, also with nothing. It goes behind
    /// the vote and delays nothing; who has it already looks no further.
    pub fn pass_on(&mut self, vote: &Ballot) {
        if vote.kind != BallotKind::Prevote {
            return;
        }
        let round = || self.proposals.get(&vote.round).into_iter().flatten().map(|(signed, _)| signed);
        let answered = round().find(|signed| signed.ballot.value == vote.value).or_else(|| round().next());
        let Some(proposal) = answered.copied() else { return };
        let (own, proposer) = (self.settings.node, proposal.ballot.node);
        if proposer == own {
            return;
        }
        for member in &self.committee.members {
            if member.node != own && member.node != proposer {
                self.outbox.send(member.node, Message::Ballot(proposal));
            }
        }
    }

    /// Signs a ballot of this member's own.
    pub fn sign(&mut self, ballot: Ballot) -> Signature {
        let seat = self.committee.index_of(self.node()).filter(|_| self.votes && ballot.node == self.node());
        let key = seat.and_then(|seat| self.settings.key.of(&self.committee.members[seat].key));
        let Some(key) = key else {
            self.fail("a ballot was to be signed that this member may not cast");
            return Signature([0; 64]);
        };
        let signed = ballot.sign(&key);
        self.remember(signed);
        signed.signature
    }

    /// Whether another proposal of a round is looked at. Places are only taken by what verifies, so nobody but who proposes
    /// in the round can use them up; and what has no place is not worth a look at its signature.
    pub fn takes_proposal(&self, round: u32) -> bool {
        self.proposals.get(&round).is_none_or(|taken| taken.len() < PROPOSALS_MAX)
    }

    /// Notes a proposal that verifies. Returns whether it is one to look at: new, and not the third of its round.
    pub fn note_proposal(&mut self, signed: SignedBallot, seen: Seen) -> bool {
        let round = self.proposals.entry(signed.ballot.round).or_default();
        if let Some((_, known)) = round.iter_mut().find(|(other, _)| other.ballot == signed.ballot) {
            if seen == Seen::Taken {
                *known = seen;
            }
            return false;
        }
        let others: Vec<SignedBallot> = round.iter().map(|(other, _)| *other).collect();
        let kept = others.len() < PROPOSALS_MAX || seen == Seen::Taken;
        if kept {
            round.push((signed, seen));
        }
        others.into_iter().for_each(|other| self.report(other, signed));
        if self.proposals.len() > ROUNDS_MAX {
            self.proposals.pop_first();
        }
        kept
    }

    /// Whether the library has a proposal of a value.
    pub fn proposed(&self, id: Hash32) -> bool {
        let mut all = self.proposals.values().flatten();
        all.any(|(signed, seen)| *seen == Seen::Taken && signed.ballot.value == Some(id))
    }

    /// Two ballots of one member that verify: evidence, when they exclude each other. A liar makes as many as it likes, and
    /// the state keeps no more than a few of each member.
    fn report(&mut self, one: SignedBallot, other: SignedBallot) {
        let Some(pair) = Equivocation::of(one, other) else { return };
        let reported = self.reported.entry(pair.node()).or_default();
        if reported.len() < EVIDENCE_PER_MEMBER_MAX && reported.insert(pair.id()) {
            self.out.push(Output::Evidence(Box::new(pair)));
        }
    }

    /// What the library has found of members that have signed twice.
    pub fn evidence(&mut self, found: MisbehaviorEvidence<Bft>) {
        for (one, other) in found.votes.into_iter().flat_map(|(_, pairs)| pairs) {
            self.report(self.frame.of_signed_vote(&one), self.frame.of_signed_vote(&other));
        }
        for (one, other) in found.proposals.into_iter().flat_map(|(_, pairs)| pairs) {
            self.report(self.frame.of_signed_proposal(&one), self.frame.of_signed_proposal(&other));
        }
    }

    /// The message of a certificate that lets a round be entered.
    pub fn round_message(&self, certificate: &RoundCertificate<Bft>) -> Message {
        let quorum = match certificate.cert_type {
            RoundCertificateType::Precommit => Quorum::Precommits,
            RoundCertificateType::Skip => Quorum::Skip,
        };
        Message::Ballots(quorum, certificate.votes(&Bft).map(|vote| self.frame.of_signed_vote(&vote)).collect())
    }

    /// The prevotes of a certificate.
    pub fn polka(&self, certificate: &PolkaCertificate<Bft>) -> Vec<SignedBallot> {
        certificate.votes(&Bft).map(|vote| self.frame.of_signed_vote(&vote)).collect()
    }

    /// The precommits of a certificate.
    pub fn commit(&self, certificate: &CommitCertificate<Bft>) -> Vec<SignedBallot> {
        let (height, round) = (certificate.height, certificate.round);
        let value = NilOrVal::Val(certificate.value_id);
        let signed = certificate.commit_signatures.iter().map(|by| {
            let vote = Vote { height, round, kind: VoteType::Precommit, value, address: by.address };
            SignedBallot { ballot: self.frame.of_vote(&vote), signature: by.signature }
        });
        signed.collect()
    }

    /// Whether a certificate lets a round be entered.
    pub fn judge_round(
        &mut self,
        certificate: &RoundCertificate<Bft>,
        thresholds: ThresholdParams,
    ) -> Result<(), CertificateError<Bft>> {
        let precommits = certificate.cert_type == RoundCertificateType::Precommit;
        let stray = certificate.round_signatures.iter().find(|by| precommits && by.vote_type != VoteType::Precommit);
        if let Some(by) = stray {
            return Err(CertificateError::InvalidVoteType(by.address));
        }
        let votes = certificate.votes(&Bft).map(|vote| self.frame.of_signed_vote(&vote));
        let ballots: Vec<SignedBallot> = votes.collect();
        self.judge(&ballots, thresholds, precommits)
    }

    /// Whether ballots are by enough members, each of which has one: more than two thirds, or one honest one.
    pub fn judge(
        &mut self,
        ballots: &[SignedBallot],
        thresholds: ThresholdParams,
        quorum: bool,
    ) -> Result<(), CertificateError<Bft>> {
        let mut signers = BTreeSet::new();
        for signed in ballots {
            let node = signed.ballot.node;
            if self.committee.index_of(node).is_none() {
                return Err(CertificateError::UnknownValidator(Address(node)));
            }
            if !signers.insert(node) {
                return Err(CertificateError::DuplicateVote(Address(node)));
            }
        }
        let (total, signed) = (self.committee.members.len() as u64, signers.len() as u64);
        let threshold = if quorum { thresholds.quorum } else { thresholds.honest };
        let expected = threshold.min_expected(total);
        if signed < expected {
            return Err(CertificateError::NotEnoughVotingPower { signed, total, expected });
        }
        if ballots.iter().all(|ballot| self.verify(ballot)) {
            Ok(())
        } else {
            Err(CertificateError::VerificationError(None))
        }
    }
}
