//! Ballots: what a member of a Byzantine group signs while the group orders its entries, and the proof that
//! it has signed two that exclude each other.
//!
//! Owns the bytes that are signed, and the judgement of them by a committee. Never decides what to sign: that
//! is the engine's (`consensus::bft`). Terms and rules are those of Tendermint (Buchman, Kwon, Milosevic: *The
//! latest gossip on BFT consensus*, 2018): a round is a proposal, a prevote and a precommit of each member.
//!
//! A ballot names everything that it could be mistaken for: cluster, group, incarnation, committee, place in
//! the order, round and kind. So a ballot of another height, round or committee never counts.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::committee::Committee;
use crate::crypto::{self, PublicKey, SecretKey, Signature};
use crate::hash::{Hash32, tagged};
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId};

/// Version of the ballots that this program signs and takes.
pub const BALLOT_VERSION: u8 = 1;

/// What a ballot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum BallotKind {
    /// The round's proposer proposes its value.
    Proposal {
        /// The earlier round in which more than two thirds prevoted the value; none for one that is new.
        valid_round: Option<u32>,
    },
    /// The first vote of a round.
    Prevote,
    /// The second vote of a round. More than two thirds of them decide.
    Precommit,
}

impl BallotKind {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proposal { .. } => "proposal",
            Self::Prevote => "prevote",
            Self::Precommit => "precommit",
        }
    }
}

/// What a member signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Ballot {
    /// Format version, [`BALLOT_VERSION`].
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// The group's incarnation.
    pub incarnation: Incarnation,
    /// Hash of the committee that votes.
    pub committee: Hash32,
    /// Which entry is decided: its index in the group's log.
    pub index: u64,
    /// Which attempt at it, counted from 0.
    pub round: u32,
    /// What is said.
    pub kind: BallotKind,
    /// About which value; none for a vote that the round should end without one. A proposal has a value.
    pub value: Option<Hash32>,
    /// Who says it.
    pub node: NodeId,
}

impl Ballot {
    /// `sha256("seamark/ballot/v1" ‖ borsh)`: what is signed.
    #[must_use]
    pub fn digest(&self) -> Hash32 {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        tagged(b"seamark/ballot/v1", &[&bytes])
    }

    /// Signs it. The signature is the same whenever it is made (RFC 6979).
    #[must_use]
    pub fn sign(self, key: &SecretKey) -> SignedBallot {
        SignedBallot { signature: key.sign(&self.digest()), ballot: self }
    }

    /// Whether two ballots are two answers to one question, of which a member gives one.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        let question = |ballot: &Self| Self { value: None, kind: question(ballot.kind), ..*ballot };
        self != other && question(self) == question(other)
    }
}

/// The kind without what may differ between two answers.
const fn question(kind: BallotKind) -> BallotKind {
    match kind {
        BallotKind::Proposal { .. } => BallotKind::Proposal { valid_round: None },
        BallotKind::Prevote => BallotKind::Prevote,
        BallotKind::Precommit => BallotKind::Precommit,
    }
}

/// A ballot and the signature of the member that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct SignedBallot {
    /// What is signed.
    pub ballot: Ballot,
    /// Over [`Ballot::digest`].
    pub signature: Signature,
}

/// Why a ballot, or a proof of two, does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BallotError {
    /// Of a version that this verifier does not know.
    #[error("the ballot is of an unknown version")]
    Version,
    /// Of another cluster, group, incarnation or committee.
    #[error("the ballot is of another cluster, group or committee")]
    Committee,
    /// By a node that has no seat in the committee.
    #[error("the ballot is by a node that has no seat in the committee")]
    Signer,
    /// The signature is not by the member's key.
    #[error("the signature of the ballot does not verify")]
    Signature,
    /// A proposal of nothing, or one that refers to a round which is not before its own.
    #[error("the ballot is one that nobody casts")]
    Malformed,
    /// Two ballots that one member may both sign.
    #[error("the two ballots do not exclude each other")]
    NoConflict,
}

impl BallotError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Version => "ballot_version",
            Self::Committee => "ballot_committee",
            Self::Signer => "ballot_signer",
            Self::Signature => "ballot_signature",
            Self::Malformed => "ballot_malformed",
            Self::NoConflict => "ballots_agree",
        }
    }
}

impl SignedBallot {
    /// Judges the ballot by the committee that the caller expects. Whether the member was the proposer of the
    /// round is for the engine to know.
    ///
    /// # Errors
    /// [`BallotError`] names the first thing that does not hold.
    pub fn verify(&self, cluster: &ClusterId, committee: &Committee) -> Result<(), BallotError> {
        let ballot = &self.ballot;
        if ballot.version != BALLOT_VERSION {
            return Err(BallotError::Version);
        }
        if ballot.cluster != *cluster
            || ballot.group != committee.group
            || ballot.incarnation != committee.incarnation
            || ballot.committee != committee.hash()
        {
            return Err(BallotError::Committee);
        }
        let index = committee.index_of(ballot.node).ok_or(BallotError::Signer)?;
        self.verify_key(&committee.members[index].key)
    }

    /// Judges form and signature alone, by a key that the caller has found for the ballot's node, committee
    /// and group.
    ///
    /// # Errors
    /// [`BallotError::Malformed`] and [`BallotError::Signature`].
    pub fn verify_key(&self, key: &PublicKey) -> Result<(), BallotError> {
        if let BallotKind::Proposal { valid_round } = self.ballot.kind
            && (self.ballot.value.is_none() || valid_round.is_some_and(|valid| valid >= self.ballot.round))
        {
            return Err(BallotError::Malformed);
        }
        crypto::verify(key, &self.ballot.digest(), &self.signature).map_err(|_| BallotError::Signature)
    }
}

/// Proof that a member has signed two ballots that exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Equivocation {
    /// The lower one, so that a pair has one form.
    pub first: SignedBallot,
    /// The other one.
    pub second: SignedBallot,
}

impl Equivocation {
    /// The pair in its one form; `None` when they do not exclude each other. Signatures are not looked at.
    #[must_use]
    pub fn of(one: SignedBallot, other: SignedBallot) -> Option<Self> {
        let (first, second) = if one.ballot <= other.ballot { (one, other) } else { (other, one) };
        first.ballot.excludes(&second.ballot).then_some(Self { first, second })
    }

    /// Who has signed both.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.first.ballot.node
    }

    /// Judges the proof by the committee that the ballots name, and returns the member that has signed both.
    ///
    /// # Errors
    /// [`BallotError`] names the first thing that does not hold.
    pub fn verify(&self, cluster: &ClusterId, committee: &Committee) -> Result<NodeId, BallotError> {
        if self.first.ballot >= self.second.ballot || !self.first.ballot.excludes(&self.second.ballot) {
            return Err(BallotError::NoConflict);
        }
        self.first.verify(cluster, committee)?;
        self.second.verify(cluster, committee)?;
        Ok(self.node())
    }

    /// `sha256("seamark/equivocation/v1" ‖ the two ballots' digests)`: its name. Signatures are no part of it,
    /// so that a pair that is signed twice is one.
    #[must_use]
    pub fn id(&self) -> Hash32 {
        tagged(b"seamark/equivocation/v1", &[&self.first.ballot.digest().0, &self.second.ballot.digest().0])
    }
}

#[cfg(test)]
#[path = "ballot_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
