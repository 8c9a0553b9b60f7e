//! Values: what the members of a group vote on, what they have decided, and how the next ones follow.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, SignedBallot};
use ledger::committee::Committee;
use ledger::crypto::Signature;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, NodeId};

use super::turn::Turn;
use crate::port::Payload;

/// Version of the values that this program proposes and takes.
pub const VALUE_VERSION: u8 = 2;
/// Version of the notes beside entries that this program writes and takes.
pub const CHAIN_VERSION: u8 = 2;

/// Entries that a group can have. No group gets there; what is said of more is made up, and would not add up.
const INDEX_MAX: u64 = u64::MAX >> 1;

/// What a value has the group do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Body {
    /// Nothing: a sign of life, and a place in the order for a reader to wait for.
    Blank,
    /// Apply a batch.
    Batch(Bytes),
}

impl Body {
    /// What the applier is given.
    #[must_use]
    pub fn payload(self) -> Payload {
        match self {
            Self::Blank => Payload::Blank,
            Self::Batch(batch) => Payload::Batch(batch),
        }
    }
}

/// One entry as it is proposed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Value {
    /// Format version, [`VALUE_VERSION`].
    pub version: u8,
    /// Its index in the group's log.
    pub index: u64,
    /// The value that was decided before it; for the first one, what the order starts from.
    pub previous: Hash32,
    /// Who has made it. Another member may propose it again in a later round.
    pub proposer: NodeId,
    /// The round that it was made for.
    pub round: u32,
    /// Who is to propose in the rest of the turn, when its proposer wants to hand over: another member.
    pub heir: Option<NodeId>,
    /// How long the turn had lasted when it was made, in milliseconds, as its proposer says. Never less than the value
    /// before it has said in the same turn.
    pub lasted_ms: u64,
    /// What it does.
    pub body: Body,
}

impl Value {
    /// Encodes it for the wire and the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        borsh::to_vec(self).expect("writing to memory does not fail").into()
    }

    /// What votes name: `sha256("seamark/value/v1" ‖ borsh)`.
    #[must_use]
    pub fn id(&self) -> Hash32 {
        Self::id_of(&self.encode())
    }

    /// The id of an encoded value.
    #[must_use]
    pub fn id_of(encoded: &[u8]) -> Hash32 {
        tagged(b"seamark/value/v1", &[encoded])
    }
}

/// Where the order stands behind an entry: what the next value has to follow, and whose turn it is. Kept with
/// the state, entry by entry, as the note of [`crate::port::Committed`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Chain {
    /// Format version, [`CHAIN_VERSION`].
    pub version: u8,
    /// Index of the last entry; 0 before the first.
    pub index: u64,
    /// Its value.
    pub value: Hash32,
    /// Who proposes next.
    pub turn: Turn,
}

impl Chain {
    /// The start of an order behind entry `index`: `anchor` is what its first value follows, the same for all
    /// members, such as the hash of the header that the engine begins behind.
    #[must_use]
    pub fn start(index: u64, anchor: Hash32, committee: &Committee) -> Self {
        Self { version: CHAIN_VERSION, index, value: anchor, turn: Turn::first(index, committee) }
    }

    /// The order behind a value that was decided.
    #[must_use]
    pub fn after(&self, value: &Value, id: Hash32, committee: &Committee) -> Self {
        Self { version: CHAIN_VERSION, index: value.index, value: id, turn: self.turn.after(value, committee) }
    }

    /// Whether this can be where an order stands: to be asked before anybody goes by what was stored or lent.
    /// Whether it is where the group stands, shows when the next value follows it.
    #[must_use]
    pub fn well_formed(&self) -> bool {
        self.version == CHAIN_VERSION && self.index <= INDEX_MAX && self.turn.well_formed(self.index)
    }

    /// The note of an entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        borsh::to_vec(self).expect("writing to memory does not fail").into()
    }
}

/// A value and the precommits that decide it: what a member keeps in its log, and gives to one that is behind.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Decided {
    /// What was decided.
    pub value: Value,
    /// In which round.
    pub round: u32,
    /// Sorted by node, without repetition.
    pub signatures: Vec<(NodeId, Signature)>,
}

/// Why a decided value does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecidedError {
    /// Fewer signatures than the threshold.
    #[error("too few precommits")]
    TooFew,
    /// Not sorted, repeated, or by a node that has no seat.
    #[error("a precommit by a node that has no seat, repeated, or out of order")]
    Signer,
    /// A signature does not verify.
    #[error("a precommit does not verify")]
    Signature,
}

impl Decided {
    /// Judges the precommits by the committee that decides the value's index.
    ///
    /// # Errors
    /// [`DecidedError`] names the first thing that does not hold.
    pub fn verify(&self, cluster: ClusterId, committee: &Committee) -> Result<(), DecidedError> {
        if self.signatures.len() < usize::from(committee.threshold) {
            return Err(DecidedError::TooFew);
        }
        let sorted = self.signatures.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if self.signatures.len() > committee.members.len() || !sorted {
            return Err(DecidedError::Signer);
        }
        let precommit = Ballot {
            version: BALLOT_VERSION,
            cluster,
            group: committee.group,
            incarnation: committee.incarnation,
            committee: committee.hash(),
            index: self.value.index,
            round: self.round,
            kind: BallotKind::Precommit,
            value: Some(self.value.id()),
            node: NodeId(0),
        };
        for (node, signature) in &self.signatures {
            let seat = committee.index_of(*node).ok_or(DecidedError::Signer)?;
            let signed = SignedBallot { ballot: Ballot { node: *node, ..precommit }, signature: *signature };
            signed.verify_key(&committee.members[seat].key).map_err(|_| DecidedError::Signature)?;
        }
        Ok(())
    }
}
