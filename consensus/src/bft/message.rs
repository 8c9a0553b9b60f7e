//! What members of a group send each other, and what a member writes down before it does.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::ballot::SignedBallot;
use ledger::hash::Hash32;

/// Bytes of a value in one part.
pub const PART_BYTES_MAX: usize = 256 * 1024;

/// What a quorum of ballots proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Quorum {
    /// More than two thirds have prevoted one value.
    Polka,
    /// More than two thirds have precommitted something: the next round may begin.
    Precommits,
    /// More than one third vote in a later round: it may be entered.
    Skip,
}

/// A piece of an encoded value. Taken from a member that proposes, or that was asked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Part {
    /// Index in the log.
    pub index: u64,
    /// Id of the whole value.
    pub value: Hash32,
    /// Length of the whole value.
    pub total_bytes: u32,
    /// Which part, counted from 0; all but the last have [`PART_BYTES_MAX`] bytes.
    pub part: u16,
    /// Its bytes.
    pub data: Bytes,
}

/// A message between two members, over a connection that tells who has sent it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// A proposal or a vote, of the sender or passed on.
    Ballot(SignedBallot),
    /// Ballots of one round that prove something, so that a member that has missed them can follow.
    Ballots(Quorum, Vec<SignedBallot>),
    /// A piece of a value.
    Part(Part),
    /// Asks for a value that the sender has a proposal or a quorum for, and not its bytes.
    Want {
        /// Index in the log.
        index: u64,
        /// Its id.
        value: Hash32,
    },
}

/// What a member writes down: everything that its votes follow from, so that it gives the same ones again
/// after a crash. Records are numbered without a gap, in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Record {
    /// Index that is being decided.
    pub index: u64,
    /// What happened.
    pub event: Event,
}

/// What a [`Record`] tells of.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Event {
    /// A value is here, encoded; `valid` says what the host has found.
    Value {
        /// The encoded value.
        encoded: Bytes,
        /// The round in which it was received or made.
        round: u32,
        /// Whether it may be voted for.
        valid: bool,
    },
    /// A ballot was cast here, or counted.
    Ballot(SignedBallot),
    /// A polka was counted as a whole.
    Polka(Vec<SignedBallot>),
    /// A time-out has passed.
    Timeout {
        /// Of the propose (0), prevote (1) or precommit (2) step.
        step: u8,
        /// Of which round.
        round: u32,
    },
}
