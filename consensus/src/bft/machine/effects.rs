//! What the library asks for, done at once.
//!
//! Owns: everything of a member that the library's effects touch: the timers, what is written down and what is
//! sent; ballots are in `ballots`. The library runs inside [`super::Machine`] and cannot be reached from here;
//! what needs it (a value to propose, a decision) is left on the desk and picked up afterwards.
//!
//! Lines "L.." are those of algorithm 1 in *The latest gossip on BFT consensus*.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::ballot::SignedBallot;
use ledger::committee::Committee;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{NodeId, Tick};
use malachite::{ConsensusMsg, Effect, Input, LivenessMsg, Resumable, Resume, SignedConsensusMsg, VoteExtensionError};
use malachite_types::{CommitCertificate, Round, SignedMessage, Timeout, TimeoutKind};

use super::super::api::{Output, Settings};
use super::super::message::{Event, Message, Quorum};
use super::super::turn::Age;
use super::super::value::Chain;
use super::answers::Answers;
use super::ballots::Seen;
use super::context::{Bft, Frame};
use super::outbox::Outbox;
use super::parts::{Shelf, split};
use super::submit::Queue;

/// Time-outs grow with each round up to this, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 60_000;

/// Everything of a member but the library.
pub struct Desk {
    pub settings: Settings,
    pub committee: Arc<Committee>,
    pub frame: Frame,
    pub chain: Chain,
    /// How long the turn behind the chain has lasted, as seen here.
    pub age: Age,
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
    /// Ballots of each peer that did not verify, since they were last forgiven.
    pub strikes: BTreeMap<NodeId, u32>,
    /// Why the machine cannot go on.
    pub fault: Option<String>,
    /// Ballots of this index that verify.
    pub answers: Answers,
    /// Names of the pairs of this index that were reported, by whom they are about.
    pub reported: BTreeMap<NodeId, BTreeSet<Hash32>>,
}

impl Desk {
    /// Behind a chain, with a committee that decides its next entry.
    pub fn new(settings: Settings, committee: Arc<Committee>, chain: Chain, outbox: Outbox, now: Tick) -> Self {
        Self {
            frame: Frame::new(settings.cluster, &committee),
            proposer: chain.turn.proposer(&committee, 0),
            age: Age::new(&chain.turn, now),
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
            answers: Answers::default(),
            reported: BTreeMap::new(),
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.settings.node
    }

    /// The entry that is being decided.
    pub fn index(&self) -> u64 {
        self.chain.index.saturating_add(1)
    }

    /// Another index begins: what belongs to the one before is dropped.
    pub fn clear(&mut self) {
        self.shelf.clear();
        self.rest();
        self.round = 0;
        self.proposer = self.chain.turn.proposer(&self.committee, 0);
        self.proposals.clear();
        self.finalized = None;
        self.answers.clear();
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
                self.pass_on(&ballot.ballot);
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

    /// Takes the timer of the running round's proposal (L57), when so many have prevoted nothing that no value can get
    /// enough prevotes any more. One that comes late, because it lacked the entry before, would else wait as long as
    /// the others have before it, and they for it. One of them is honest and has waited, so nobody else makes it hurry.
    pub fn take_hopeless(&mut self) -> Option<Timeout> {
        let timeout = Timeout::propose(Round::new(self.round));
        let at = self.timers.iter().position(|(timer, _)| *timer == timeout)?;
        let members = &self.committee.members;
        let nothing = members.iter().filter(|member| self.answers.prevoted_nothing(member.node, self.round)).count();
        let hopeless = members.len() - nothing < usize::from(self.committee.threshold);
        hopeless.then(|| self.timers.remove(at).0)
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
                    if self.replaying.is_empty() {
                        self.fail("a value is to be written down that is not here");
                    }
                    return;
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
            let own = matches!(&event, Event::Ballot(signed) if signed.ballot.node == self.node());
            self.outbox.record(self.index(), event, own);
        }
    }
}

/// Names a record, to find it again.
pub fn name(event: &Event) -> Hash32 {
    let bytes = borsh::to_vec(event).expect("writing to memory does not fail");
    tagged(b"seamark/record/v1", &[&bytes])
}
