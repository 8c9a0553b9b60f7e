//! What replicas of a Byzantine group send each other.

use borsh::{BorshDeserialize, BorshSerialize};
use consensus::bft::{Decided, Message, Quorum};
use ledger::ballot::{BallotKind, SignedBallot};

/// A message between replicas of a Byzantine group.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub enum BftWire {
    /// Of a machine to a machine.
    Machine(Message),
    /// Asks for decided values.
    Ask {
        /// Index of the first one.
        from: u64,
    },
    /// Answers that.
    Answer {
        /// The last entry that the sender has applied, or has begun the next one of.
        reached: u64,
        /// Whether it votes.
        votes: bool,
        /// What it has, in order and without a gap; nothing when its log begins later.
        values: Option<Vec<Decided>>,
    },
    /// Between conspirators: what their machines are not to hear.
    Aside(Message),
    /// Asks for the state.
    WantState,
    /// The state, exported.
    State(Vec<u8>),
}

impl BftWire {
    /// One line for the event log.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Machine(message) => describe(message),
            Self::Ask { from } => format!("asks for what was decided from {from} on"),
            Self::Answer { reached, votes, values } => match values {
                None => format!("has reached {reached} (votes: {votes}), and its log begins later"),
                Some(values) => format!("has reached {reached} (votes: {votes}): {} decided values", values.len()),
            },
            Self::Aside(message) => format!("between liars: {}", describe(message)),
            Self::WantState => "asks for the state".to_owned(),
            Self::State(bytes) => format!("its state, {} bytes", bytes.len()),
        }
    }
}

fn ballot(signed: &SignedBallot) -> String {
    let ballot = &signed.ballot;
    let kind = match ballot.kind {
        BallotKind::Proposal { valid_round } => format!("proposal (valid round {valid_round:?})"),
        BallotKind::Prevote => "prevote".to_owned(),
        BallotKind::Precommit => "precommit".to_owned(),
    };
    let value = ballot.value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
    format!("{kind} of n{} in {}.{} for {value}", ballot.node, ballot.index, ballot.round)
}

fn describe(message: &Message) -> String {
    match message {
        Message::Ballot(signed) => ballot(signed),
        Message::Ballots(quorum, ballots) => {
            let what = match quorum {
                Quorum::Polka => "polka",
                Quorum::Precommits => "precommits",
                Quorum::Skip => "skip",
            };
            let ballots: Vec<String> = ballots.iter().map(ballot).collect();
            format!("{what}: {}", ballots.join(", "))
        }
        Message::Part(part) => format!("part {} of {} for {}", part.part, part.value, part.index),
        Message::Want { index, value } => format!("wants {value} for {index}"),
    }
}
