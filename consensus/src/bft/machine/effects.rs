//! What the library asks for, done at once.
//!
//! Owns: everything of a member that the library's effects touch: signatures, the timers, what is written
//! down, what is sent, and the evidence. The library runs inside [`super::Machine`] and cannot be reached from
//! here; what needs it (a value to propose, a decision) is left on the desk and picked up afterwards.
//!
//! Lines "L.." are those of algorithm 1 in *The latest gossip on BFT consensus*.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::ballot::{Ballot, Equivocation, SignedBallot};
use ledger::committee::Committee;
use ledger::crypto::Signature;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{NodeId, Tick};
use malachite::{
    ConsensusMsg, Effect, Input, LivenessMsg, MisbehaviorEvidence, Resumable, Resume, SignedConsensusMsg,
    ThresholdParams, VoteExtensionError,
};
use malachite_types::{
    CertificateError, CommitCertificate, PolkaCertificate, RoundCertificate, RoundCertificateType, SignedMessage,
    Timeout, TimeoutKind, VoteType,
};

use super::super::api::{Output, Settings};
use super::super::message::{Event, Message, Quorum};
use super::super::value::Chain;
use super::context::{Address, Bft, Frame, Id, Vote};
use super::outbox::Outbox;
use super::parts::{Shelf, split};
use super::submit::Queue;

/// Time-outs grow with each round up to this, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 60_000;
/// Verified ballots of one index that are remembered.
const VERIFIED_MAX: usize = 16_384;
/// Pairs of one index that are reported: a liar makes as many as it likes, and one is enough.
const REPORTED_MAX: usize = 256;
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

/// Everything of a member but the library.
pub struct Desk {
    pub settings: Settings,
    pub committee: Arc<Committee>,
    pub frame: Frame,
    pub chain: Chain,
    /// Whether it votes on this index.
    pub votes: bool,
    pub now: Tick,
    pub out: Vec<Output>,
    pub outbox: Outbox,
    pub shelf: Shelf,
    pub queue: Queue,
    /// Whom the next value of this member hands over to.
    pub heir: Option<NodeId>,
    /// The library's timers.
    pub timers: Vec<(Timeout, Tick)>,
    pub round: u32,
    pub proposer: NodeId,
    /// The round that the library wants a value for (L18).
    pub wanted: Option<u32>,
    /// When a leader without work proposes a blank.
    pub idle_at: Option<Tick>,
    /// Proposals of this index by round.
    pub proposals: BTreeMap<u32, Vec<(SignedBallot, Seen)>>,
    /// What the library has decided (L49), until it is picked up.
    pub finalized: Option<CommitCertificate<Bft>>,
    /// Names of the records that are being replayed: they are written down already.
    pub replaying: BTreeSet<Hash32>,
    /// Whose message is looked at.
    pub sender: Option<NodeId>,
    /// Ballots of each peer that did not verify.
    pub strikes: BTreeMap<NodeId, u32>,
    /// Why the machine cannot go on.
    pub fault: Option<String>,
    verified: BTreeSet<SignedBallot>,
    reported: BTreeSet<Hash32>,
}

impl Desk {
    /// Behind a chain, with a committee that decides its next entry.
    pub fn new(settings: Settings, committee: Arc<Committee>, chain: Chain, outbox: Outbox, now: Tick) -> Self {
        Self {
            frame: Frame::new(settings.cluster, &committee),
            proposer: chain.turn.proposer(&committee, 0),
            settings,
            committee,
            chain,
            votes: false,
            now,
            out: Vec::new(),
            outbox,
            shelf: Shelf::default(),
            queue: Queue::default(),
            heir: None,
            timers: Vec::new(),
            round: 0,
            wanted: None,
            idle_at: None,
            proposals: BTreeMap::new(),
            finalized: None,
            replaying: BTreeSet::new(),
            sender: None,
            strikes: BTreeMap::new(),
            fault: None,
            verified: BTreeSet::new(),
            reported: BTreeSet::new(),
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.settings.node
    }

    /// The entry that is being decided.
    pub fn index(&self) -> u64 {
        self.chain.index + 1
    }

    /// Another index begins: what belongs to the one before is dropped.
    pub fn clear(&mut self) {
        self.shelf.clear();
        self.rest();
        self.round = 0;
        self.proposer = self.chain.turn.proposer(&self.committee, 0);
        self.proposals.clear();
        self.finalized = None;
        self.strikes.clear();
        self.verified.clear();
        self.reported.clear();
    }

    /// The index is decided: nothing more is done for it.
    pub fn rest(&mut self) {
        self.timers.clear();
        self.wanted = None;
        self.idle_at = None;
    }

    /// A moment that is so many milliseconds away.
    pub fn later(&self, ms: u64) -> Tick {
        Tick(self.now.0.saturating_add(ms))
    }

    /// The machine cannot go on; the first reason counts.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.fault.get_or_insert_with(|| why.into());
    }

    /// Sends a message to all other members, behind the records so far.
    pub fn broadcast(&mut self, message: &Message) {
        for member in &self.committee.members {
            if member.node != self.settings.node {
                self.outbox.send(member.node, message.clone());
            }
        }
    }

    /// Sends a value that is here, in parts: to one member, or to all others.
    pub fn send_value(&mut self, id: Hash32, to: Option<NodeId>) {
        let Some(whole) = self.shelf.get(&id) else { return };
        for part in split(self.index(), id, &whole.encoded) {
            let message = Message::Part(part);
            match to {
                Some(node) => self.outbox.send(node, message),
                None => self.broadcast(&message),
            }
        }
    }

    /// Verifies a ballot of the committee, once.
    pub fn verify(&mut self, signed: &SignedBallot) -> bool {
        if self.verified.contains(signed) {
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

    fn remember(&mut self, signed: SignedBallot) {
        if self.verified.len() < VERIFIED_MAX {
            self.verified.insert(signed);
        }
    }

    fn sign(&mut self, ballot: Ballot) -> Signature {
        if !self.votes || ballot.node != self.node() {
            self.fail("a ballot was to be signed that this member may not cast");
            return Signature([0; 64]);
        }
        let signed = ballot.sign(&self.settings.key);
        self.remember(signed);
        signed.signature
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

    /// Two ballots of one member that verify: evidence, when they exclude each other.
    fn report(&mut self, one: SignedBallot, other: SignedBallot) {
        let Some(pair) = Equivocation::of(one, other) else { return };
        if self.reported.len() < REPORTED_MAX && self.reported.insert(pair.id()) {
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

    /// Does what the library asks for.
    pub fn effect(&mut self, effect: Effect<Bft>) -> Resume<Bft> {
        match effect {
            Effect::CancelAllTimeouts(then) => {
                self.timers.clear();
                then.resume_with(())
            }
            Effect::CancelTimeout(timeout, then) => {
                self.timers.retain(|(other, _)| *other != timeout);
                if timeout.kind == TimeoutKind::Propose {
                    // It has proposed, or prevoted: nothing can be proposed in this round any more.
                    self.wanted = None;
                    self.idle_at = None;
                }
                then.resume_with(())
            }
            Effect::ScheduleTimeout(timeout, then) => {
                self.schedule(timeout);
                then.resume_with(())
            }
            Effect::StartRound(_, round, proposer, _, then) => {
                self.start_round(round.as_u32().unwrap_or(0), proposer.0);
                then.resume_with(())
            }
            Effect::PublishConsensusMsg(message, then) => {
                let ballot = match message {
                    SignedConsensusMsg::Vote(vote) => self.frame.of_signed_vote(&vote),
                    SignedConsensusMsg::Proposal(proposal) => self.frame.of_signed_proposal(&proposal),
                };
                self.broadcast(&Message::Ballot(ballot));
                then.resume_with(())
            }
            Effect::PublishLivenessMsg(message, then) => {
                let message = match message {
                    LivenessMsg::Vote(vote) => Message::Ballot(self.frame.of_signed_vote(&vote)),
                    LivenessMsg::PolkaCertificate(polka) => Message::Ballots(Quorum::Polka, self.polka(&polka)),
                    LivenessMsg::SkipRoundCertificate(round) => self.round_message(&round),
                };
                self.broadcast(&message);
                then.resume_with(())
            }
            Effect::RepublishVote(vote, then) => {
                let ballot = self.frame.of_signed_vote(&vote);
                self.broadcast(&Message::Ballot(ballot));
                then.resume_with(())
            }
            Effect::RepublishRoundCertificate(round, then) => {
                let message = self.round_message(&round);
                self.broadcast(&message);
                then.resume_with(())
            }
            Effect::GetValue(_, round, _, then) => {
                self.wanted = round.as_u32();
                self.idle_at = Some(self.later(self.settings.timing.idle_ms));
                then.resume_with(())
            }
            Effect::RestreamProposal(_, _, _, _, id, then) => {
                self.send_value(id.0, None);
                then.resume_with(())
            }
            // Values that were decided elsewhere are committed without the library.
            Effect::CertVerifiedSyncValue(_, _, then) => {
                self.fail("the library took a value from elsewhere that it was not given");
                then.resume_with(())
            }
            Effect::CertRejectedSyncValue(_, _, _, then) => {
                self.fail("the library refused a value from elsewhere that it was not given");
                then.resume_with(())
            }
            // No time is spent between decision and end of a height, so `Finalize` follows at once.
            Effect::Decide(_, _, then) => then.resume_with(()),
            Effect::Finalize(certificate, _, evidence, then) => {
                self.evidence(evidence);
                self.finalized = Some(certificate);
                then.resume_with(())
            }
            Effect::SignVote(vote, then) => {
                let signature = self.sign(self.frame.of_vote(&vote));
                then.resume_with(SignedMessage::<Bft, _>::new(vote, signature))
            }
            Effect::SignProposal(proposal, then) => {
                let signature = self.sign(self.frame.of_proposal(&proposal));
                then.resume_with(SignedMessage::<Bft, _>::new(proposal, signature))
            }
            Effect::VerifySignature(signed, _, then) => {
                let ballot = match &signed.message {
                    ConsensusMsg::Vote(vote) => self.frame.of_vote(vote),
                    ConsensusMsg::Proposal(proposal) => self.frame.of_proposal(proposal),
                };
                let valid = self.verify(&SignedBallot { ballot, signature: signed.signature });
                then.resume_with(valid)
            }
            Effect::VerifyCommitCertificate(certificate, _, thresholds, then) => {
                let ballots = self.commit(&certificate);
                then.resume_with(self.judge(&ballots, thresholds, true))
            }
            Effect::VerifyExtendedCommitCertificate(certificate, _, thresholds, _, then) => {
                let ballots = self.commit(&certificate.trim_vote_extensions());
                then.resume_with(self.judge(&ballots, thresholds, true))
            }
            Effect::VerifyPolkaCertificate(certificate, _, thresholds, then) => {
                let ballots = self.polka(&certificate);
                then.resume_with(self.judge(&ballots, thresholds, true))
            }
            Effect::VerifyRoundCertificate(certificate, _, thresholds, then) => {
                then.resume_with(self.judge_round(&certificate, thresholds))
            }
            Effect::WalAppend(_, input, then) => {
                self.write(input);
                then.resume_with(())
            }
            // Extensions are disabled: the library asks for none, and no vote can carry one.
            Effect::ExtendVote(_, _, _, _, then) => then.resume_with(None),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, then) => {
                then.resume_with(Err(VoteExtensionError::InvalidVoteExtension))
            }
        }
    }

    fn schedule(&mut self, timeout: Timeout) {
        let timing = self.settings.timing;
        let round = u64::from(timeout.round.as_u32().unwrap_or(0));
        let grown = timing.step_ms.saturating_mul(round);
        let ms = match timeout.kind {
            // In the first round the leader may wait for work; later ones propose at once.
            TimeoutKind::Propose if round == 0 => timing.idle_ms.saturating_add(timing.propose_ms),
            TimeoutKind::Propose => timing.propose_ms.saturating_add(grown),
            TimeoutKind::Prevote | TimeoutKind::Precommit => timing.vote_ms.saturating_add(grown),
            TimeoutKind::Rebroadcast => timing.repeat_ms,
            TimeoutKind::FinalizeHeight(wait) => u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        let at = self.later(ms.min(TIMEOUT_MS_MAX));
        self.timers.retain(|(other, _)| *other != timeout);
        self.timers.push((timeout, at));
    }

    /// L11.
    fn start_round(&mut self, round: u32, proposer: NodeId) {
        self.round = round;
        self.proposer = proposer;
        self.wanted = None;
        self.idle_at = None;
        if proposer != self.node() || !self.votes {
            self.heir = None;
            self.queue.lost(Some(proposer), &mut self.out);
        }
    }

    fn write(&mut self, input: Input<Bft>) {
        let event = match input {
            Input::Vote(vote) => Event::Ballot(self.frame.of_signed_vote(&vote)),
            Input::Proposal(proposal) => {
                let signed = self.frame.of_signed_proposal(&proposal);
                self.note_proposal(signed, Seen::Taken);
                Event::Ballot(signed)
            }
            Input::ProposedValue(proposed, _) => {
                let Some(whole) = self.shelf.get(&proposed.value.0) else {
                    return self.fail("a value is to be written down that is not here");
                };
                let round = proposed.round.as_u32().unwrap_or(0);
                Event::Value { encoded: whole.encoded.clone(), round, valid: proposed.validity.is_valid() }
            }
            Input::PolkaCertificate(certificate) => Event::Polka(self.polka(&certificate)),
            Input::TimeoutElapsed(timeout) => {
                let step = match timeout.kind {
                    TimeoutKind::Propose => 0,
                    TimeoutKind::Prevote => 1,
                    TimeoutKind::Precommit => 2,
                    TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => return,
                };
                Event::Timeout { step, round: timeout.round.as_u32().unwrap_or(0) }
            }
            Input::StartHeight(..) | Input::RoundCertificate(_) | Input::Propose(_) | Input::SyncValueResponse(_) => {
                return self.fail("the library wants something written down that has no form");
            }
        };
        // Who casts no ballots has nothing to come back to.
        let known = !self.replaying.is_empty() && self.replaying.contains(&name(&event));
        if self.votes && !known {
            self.outbox.record(self.index(), event);
        }
    }

    fn round_message(&self, certificate: &RoundCertificate<Bft>) -> Message {
        let quorum = match certificate.cert_type {
            RoundCertificateType::Precommit => Quorum::Precommits,
            RoundCertificateType::Skip => Quorum::Skip,
        };
        Message::Ballots(quorum, certificate.votes(&Bft).map(|vote| self.frame.of_signed_vote(&vote)).collect())
    }

    fn polka(&self, certificate: &PolkaCertificate<Bft>) -> Vec<SignedBallot> {
        certificate.votes(&Bft).map(|vote| self.frame.of_signed_vote(&vote)).collect()
    }

    fn commit(&self, certificate: &CommitCertificate<Bft>) -> Vec<SignedBallot> {
        let (height, round) = (certificate.height, certificate.round);
        let value = malachite_types::NilOrVal::<Id>::Val(certificate.value_id);
        let signed = certificate.commit_signatures.iter().map(|by| {
            let vote = Vote { height, round, kind: VoteType::Precommit, value, address: by.address };
            SignedBallot { ballot: self.frame.of_vote(&vote), signature: by.signature }
        });
        signed.collect()
    }

    fn judge_round(
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
    fn judge(
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

/// Names a record, to find it again.
pub fn name(event: &Event) -> Hash32 {
    let bytes = borsh::to_vec(event).expect("writing to memory does not fail");
    tagged(b"seamark/record/v1", &[&bytes])
}
