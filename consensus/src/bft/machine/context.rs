//! The library's types, as this engine fills them in, and the translation between them and ballots.
//!
//! Owns: which member proposes in a round, who may vote with how much (each member with one), and the one
//! mapping between the library's votes and what is signed. Never signs and never judges.
//!
//! A value is its id here ([`Id`]): the library runs in its mode of proposals and parts, in which the bytes
//! travel beside it (see `parts`). Votes carry no extensions.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, SignedBallot};
use ledger::committee::{Committee, Engine};
use ledger::crypto::{PublicKey, Signature};
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, Incarnation, NodeId};
use malachite_types as types;
use types::{NilOrVal, Round, SignedMessage, SignedProposal, SignedVote, ThresholdParams, VoteType, VotingPower};

use super::super::turn::Turn;

/// Names this engine's types to the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bft;

/// A member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub NodeId);

impl fmt::Display for Address {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, form)
    }
}

impl types::Address for Address {}

/// An index in the group's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(pub u64);

impl fmt::Display for Height {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, form)
    }
}

impl types::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

/// The id of a value; to the library, the value itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub Hash32);

impl fmt::Display for Id {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, form)
    }
}

impl types::Value for Id {
    type Id = Self;

    fn id(&self) -> Self {
        *self
    }
}

/// A prevote or a precommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    pub height: Height,
    pub round: Round,
    pub kind: VoteType,
    pub value: NilOrVal<Id>,
    pub address: Address,
}

impl types::Vote<Bft> for Vote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<Id> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<Id> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.address
    }

    fn extension(&self) -> Option<&types::SignedExtension<Bft>> {
        None
    }

    fn take_extension(&mut self) -> Option<types::SignedExtension<Bft>> {
        None
    }

    fn extend(self, _: types::SignedExtension<Bft>) -> Self {
        self
    }
}

/// A proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub height: Height,
    pub round: Round,
    pub value: Id,
    pub valid_round: Round,
    pub address: Address,
}

impl types::Proposal<Bft> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &Id {
        &self.value
    }

    fn take_value(self) -> Id {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.valid_round
    }

    fn validator_address(&self) -> &Address {
        &self.address
    }
}

/// Parts do not pass through the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPart {}

impl types::ProposalPart<Bft> for NoPart {
    fn is_first(&self) -> bool {
        match *self {}
    }

    fn is_last(&self) -> bool {
        match *self {}
    }
}

/// A member with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    address: Address,
    key: PublicKey,
}

impl types::Validator<Bft> for Seat {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn voting_power(&self) -> VotingPower {
        1
    }
}

/// A committee, and whose turn it is while it decides one entry: so the proposer of a round follows from the
/// set alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seats {
    seats: Arc<[Seat]>,
    committee: Arc<Committee>,
    turn: Arc<Turn>,
}

impl Seats {
    /// The seats of a committee, in its order. [`fits`] holds for the committee.
    pub fn new(committee: &Arc<Committee>, turn: &Turn) -> Self {
        let seat = |member: &ledger::committee::Member| Seat { address: Address(member.node), key: member.key };
        Self {
            seats: committee.members.iter().map(seat).collect(),
            committee: Arc::clone(committee),
            turn: Arc::new(turn.clone()),
        }
    }
}

impl types::ValidatorSet<Bft> for Seats {
    fn count(&self) -> usize {
        self.seats.len()
    }

    fn total_voting_power(&self) -> VotingPower {
        self.seats.len() as u64
    }

    fn get_by_address(&self, address: &Address) -> Option<&Seat> {
        self.committee.index_of(address.0).and_then(|at| self.seats.get(at))
    }

    fn get_by_index(&self, index: usize) -> Option<&Seat> {
        self.seats.get(index)
    }
}

/// Whether the library decides as the committee wants it: by as many members as its threshold says, of a set
/// that is sorted and not empty.
pub fn fits(committee: &Committee) -> bool {
    let quorum = ThresholdParams::default().quorum.min_expected(committee.members.len() as u64);
    committee.well_formed() && committee.engine == Engine::Bft && u64::from(committee.threshold) == quorum
}

/// Signatures as the ledger makes them. Keys stay outside of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme;

impl types::SigningScheme for Scheme {
    type DecodingError = &'static str;
    type Signature = Signature;
    type PublicKey = PublicKey;
    type PrivateKey = Infallible;

    fn decode_signature(bytes: &[u8]) -> Result<Signature, &'static str> {
        bytes.try_into().map(Signature).map_err(|_| "a signature has 64 bytes")
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.0.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, &'static str> {
        bytes.try_into().map(PublicKey).map_err(|_| "a key has 33 bytes")
    }

    fn encode_public_key(key: &PublicKey) -> Vec<u8> {
        key.0.to_vec()
    }
}

impl types::Context for Bft {
    type Address = Address;
    type Height = Height;
    type ProposalPart = NoPart;
    type Proposal = Proposal;
    type Validator = Seat;
    type ValidatorSet = Seats;
    type Timeouts = types::LinearTimeouts;
    type Value = Id;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Scheme;

    fn select_proposer<'a>(&self, seats: &'a Seats, _: Height, round: Round) -> &'a Seat {
        let node = seats.turn.proposer(&seats.committee, round.as_u32().unwrap_or(0));
        let at = seats.committee.index_of(node).unwrap_or(0);
        // A set is only made of a committee that is not empty, and a proposer is one of its members.
        &seats.seats[at]
    }

    fn new_proposal(&self, height: Height, round: Round, value: Id, valid_round: Round, address: Address) -> Proposal {
        Proposal { height, round, value, valid_round, address }
    }

    fn new_prevote(&self, height: Height, round: Round, value: NilOrVal<Id>, address: Address) -> Vote {
        Vote { height, round, kind: VoteType::Prevote, value, address }
    }

    fn new_precommit(&self, height: Height, round: Round, value: NilOrVal<Id>, address: Address) -> Vote {
        Vote { height, round, kind: VoteType::Precommit, value, address }
    }
}

/// What a ballot names beside its vote: the same for all ballots of one committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub cluster: ClusterId,
    pub group: GroupId,
    pub incarnation: Incarnation,
    pub committee: Hash32,
}

impl Frame {
    /// Of ballots that a committee counts.
    pub fn new(cluster: ClusterId, committee: &Committee) -> Self {
        let (group, incarnation) = (committee.group, committee.incarnation);
        Self { cluster, group, incarnation, committee: committee.hash() }
    }

    /// Whether a ballot is one of the committee's.
    pub fn holds(&self, ballot: &Ballot) -> bool {
        ballot.version == BALLOT_VERSION
            && ballot.cluster == self.cluster
            && ballot.group == self.group
            && ballot.incarnation == self.incarnation
            && ballot.committee == self.committee
    }

    fn ballot(&self, height: Height, round: Round, kind: BallotKind, value: Option<Hash32>, by: Address) -> Ballot {
        Ballot {
            version: BALLOT_VERSION,
            cluster: self.cluster,
            group: self.group,
            incarnation: self.incarnation,
            committee: self.committee,
            index: height.0,
            // The library casts no vote before its first round.
            round: round.as_u32().unwrap_or(0),
            kind,
            value,
            node: by.0,
        }
    }

    /// The ballot of a vote.
    pub fn of_vote(&self, vote: &Vote) -> Ballot {
        let kind = match vote.kind {
            VoteType::Prevote => BallotKind::Prevote,
            VoteType::Precommit => BallotKind::Precommit,
        };
        self.ballot(vote.height, vote.round, kind, id_of(&vote.value), vote.address)
    }

    /// The ballot of a proposal.
    pub fn of_proposal(&self, proposal: &Proposal) -> Ballot {
        let kind = BallotKind::Proposal { valid_round: proposal.valid_round.as_u32() };
        self.ballot(proposal.height, proposal.round, kind, Some(proposal.value.0), proposal.address)
    }

    /// The ballot of a vote that is signed.
    pub fn of_signed_vote(&self, vote: &SignedVote<Bft>) -> SignedBallot {
        SignedBallot { ballot: self.of_vote(&vote.message), signature: vote.signature }
    }

    /// The ballot of a proposal that is signed.
    pub fn of_signed_proposal(&self, proposal: &SignedProposal<Bft>) -> SignedBallot {
        SignedBallot { ballot: self.of_proposal(&proposal.message), signature: proposal.signature }
    }
}

/// The value that a vote names.
pub fn id_of(value: &NilOrVal<Id>) -> Option<Hash32> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(id) => Some(id.0),
    }
}

/// A ballot in the library's words.
pub enum Said {
    Vote(SignedVote<Bft>),
    Proposal(SignedProposal<Bft>),
}

/// Translates a ballot of the committee at hand. `None` for a proposal of nothing, which nobody makes.
pub fn said(signed: &SignedBallot) -> Option<Said> {
    let ballot = &signed.ballot;
    let (height, round, address) = (Height(ballot.index), Round::new(ballot.round), Address(ballot.node));
    let vote = |kind| {
        let value = ballot.value.map_or(NilOrVal::Nil, |id| NilOrVal::Val(Id(id)));
        Said::Vote(SignedMessage::new(Vote { height, round, kind, value, address }, signed.signature))
    };
    Some(match ballot.kind {
        BallotKind::Prevote => vote(VoteType::Prevote),
        BallotKind::Precommit => vote(VoteType::Precommit),
        BallotKind::Proposal { valid_round } => {
            let value = Id(ballot.value?);
            let proposal = Proposal { height, round, value, valid_round: Round::from(valid_round), address };
            Said::Proposal(SignedMessage::new(proposal, signed.signature))
        }
    })
}
