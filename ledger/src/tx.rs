//! Transactions. The signed bytes are the bytes that are stored, hashed and forwarded, never
//! re-encoded.
//!
//! Owns the form of bodies, of signed transactions and of submissions with openings; [`crate::moves`] is what they
//! consist of, and what of it is refused without looking at state; [`crate::dealing`] is which ledger is given what of
//! one that spans several. No account is read here.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::auth::{Authorisation, Witness};
use crate::crypto::SecretKey;
use crate::dealing::LedgerWitnesses;
use crate::hash::{Hash32, tagged};
use crate::ids::{ClusterId, GroupId, LedgerId, TimeMs, TxId};
use crate::limits::{
    BODY_BYTES_MAX, MEMO_BYTES_MAX, MOVES_MAX, SIGNED_TX_BYTES_MAX, SUBMISSION_BYTES_MAX, WITNESSES_MAX,
};
use crate::moves::{check_move, check_together};
use crate::reject::Reject;

pub use crate::moves::{AccountWrite, Condition, Move, Voter};

/// Version written into new bodies.
pub const BODY_VERSION: u8 = 1;

/// A move in the clear, or hidden from all but its own group.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Slot {
    /// Visible to every group of the transaction.
    Clear {
        /// Account space of the move.
        ledger: LedgerId,
        /// The move.
        mv: Move,
    },
    /// Only its salted hash is visible; the opening goes to the ledger's group alone.
    Hidden {
        /// Account space of the move.
        ledger: LedgerId,
        /// Group that votes on it.
        group: GroupId,
        /// `sha256("seamark/slot/v1" ‖ salt ‖ borsh(move))`.
        hash: Hash32,
    },
}

impl Slot {
    /// Account space of the move.
    #[must_use]
    pub const fn ledger(&self) -> LedgerId {
        match self {
            Self::Clear { ledger, .. } | Self::Hidden { ledger, .. } => *ledger,
        }
    }
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TxBody {
    /// Format version, [`BODY_VERSION`].
    pub version: u8,
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// Last block time at which it may execute.
    pub valid_until_ms: TimeMs,
    /// Makes equal payments distinct.
    pub salt: [u8; 16],
    /// 1 to [`MOVES_MAX`].
    pub slots: Vec<Slot>,
    /// At most [`MEMO_BYTES_MAX`] bytes; none in a body that spans ledgers, each of which could read it.
    pub memo: Vec<u8>,
}

impl TxBody {
    /// Encodes the body; from here on only the bytes count.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes and checks all limits that need no state.
    ///
    /// # Errors
    /// [`Reject`] names the limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > BODY_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        let body: Self = borsh::from_slice(bytes).map_err(|_| Reject::Malformed)?;
        if body.version != BODY_VERSION {
            return Err(Reject::Malformed);
        }
        if body.memo.len() > MEMO_BYTES_MAX {
            return Err(Reject::MemoTooLarge);
        }
        if body.slots.is_empty() || body.slots.len() > MOVES_MAX {
            return Err(Reject::MoveCount);
        }
        if !body.memo.is_empty() && body.spans_ledgers() {
            return Err(Reject::MemoAcrossLedgers);
        }
        for (_, mv) in body.moves() {
            check_move(mv)?;
        }
        check_together(body.moves().map(|(_, mv)| mv))?;
        Ok(body)
    }

    /// Whether its moves are in more than one ledger. Each of these learns of it what concerns it, and that the
    /// others take part.
    #[must_use]
    pub fn spans_ledgers(&self) -> bool {
        self.slots.windows(2).any(|pair| pair[0].ledger() != pair[1].ledger())
    }

    /// The moves in the clear.
    pub fn moves(&self) -> impl Iterator<Item = (LedgerId, &Move)> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Clear { ledger, mv } => Some((*ledger, mv)),
            Slot::Hidden { .. } => None,
        })
    }
}

/// `sha256("seamark/tx/v1" ‖ cluster ‖ body)`.
#[must_use]
pub fn txid(cluster: &ClusterId, body: &[u8]) -> TxId {
    TxId(tagged(b"seamark/tx/v1", &[&cluster.0.0, body]))
}

/// A body with the authorisations of its debited accounts, as sent and stored.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedTx {
    /// Format version, 1.
    pub version: u8,
    /// The signed bytes.
    pub body: Vec<u8>,
    /// One for each debited account; several accounts may share one.
    pub witnesses: Vec<Witness>,
}

impl SignedTx {
    /// Signs a body with single keys.
    #[must_use]
    pub fn sign(body: &TxBody, keys: &[&SecretKey]) -> Self {
        let bytes = body.encode();
        let id = txid(&body.cluster, &bytes);
        let witnesses = keys
            .iter()
            .map(|key| Witness { auth: Authorisation::Single(key.public()), signatures: vec![(0, key.sign(&id.0))] })
            .collect();
        Self { version: 1, body: bytes, witnesses }
    }

    /// Encodes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// The id under a cluster.
    #[must_use]
    pub fn txid(&self, cluster: &ClusterId) -> TxId {
        txid(cluster, &self.body)
    }
}

/// The move behind a hidden slot, for the group that votes on it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Opening {
    /// Index of the slot.
    pub slot: u16,
    /// What the hash was salted with.
    pub salt: Hash32,
    /// The move.
    pub mv: Move,
}

impl Opening {
    /// `sha256("seamark/slot/v1" ‖ salt ‖ borsh(move))`, which stands in the body.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let mv = borsh::to_vec(&self.mv).expect("writing to memory does not fail");
        tagged(b"seamark/slot/v1", &[&self.salt.0, &mv])
    }
}

/// A signed transaction with openings of hidden slots, on its way to the groups that vote on them.
/// The openings are neither signed nor forwarded to other groups; the hashes in the body bind them.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Submission {
    /// Format version, 2; a transaction without openings travels as a [`SignedTx`], version 1.
    pub version: u8,
    /// The encoded [`SignedTx`].
    pub tx: Vec<u8>,
    /// Sorted by slot.
    pub openings: Vec<Opening>,
}

impl Submission {
    /// The bytes to send: the transaction alone where there is nothing to open.
    #[must_use]
    pub fn encode(tx: Vec<u8>, openings: Vec<Opening>) -> Vec<u8> {
        if openings.is_empty() {
            return tx;
        }
        borsh::to_vec(&Self { version: 2, tx, openings }).expect("writing to memory does not fail")
    }

    /// Separates the signed bytes from the openings. Bytes that are no submission are returned as
    /// they are: decoding them as a transaction tells what is wrong.
    ///
    /// # Errors
    /// [`Reject::Malformed`] or [`Reject::BodyTooLarge`].
    pub fn split(bytes: &[u8]) -> Result<(Vec<u8>, Vec<Opening>), Reject> {
        if bytes.len() > SUBMISSION_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        if bytes.first() != Some(&2) {
            return Ok((bytes.to_vec(), Vec::new()));
        }
        let submission: Self = borsh::from_slice(bytes).map_err(|_| Reject::Malformed)?;
        if submission.openings.is_empty() || submission.openings.len() > MOVES_MAX {
            return Err(Reject::Malformed);
        }
        Ok((submission.tx, submission.openings))
    }
}

/// A transaction decoded once, together with its id.
#[derive(Clone, Debug)]
pub struct ParsedTx {
    /// Its id.
    pub txid: TxId,
    /// The decoded body.
    pub body: TxBody,
    /// The bytes that were signed.
    pub body_bytes: Vec<u8>,
    /// Its authorisations.
    pub witnesses: Vec<Witness>,
    /// Openings of hidden slots, sorted by slot; those that came along.
    pub openings: Vec<Opening>,
    /// Which ledger is given which of the witnesses, where the sender of a body that spans ledgers says so.
    pub dealt: Vec<LedgerWitnesses>,
}

impl ParsedTx {
    /// Decodes a transaction, with or without openings, and checks everything that needs neither
    /// state nor the curve.
    ///
    /// # Errors
    /// [`Reject`] names what is wrong.
    pub fn decode(cluster: &ClusterId, bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.first() == Some(&2) {
            let (tx, openings) = Submission::split(bytes)?;
            let mut parsed = Self::decode_signed(cluster, &tx)?;
            parsed.open(openings)?;
            return Ok(parsed);
        }
        Self::decode_signed(cluster, bytes)
    }

    pub(crate) fn decode_signed(cluster: &ClusterId, bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > SIGNED_TX_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        let signed: SignedTx = borsh::from_slice(bytes).map_err(|_| Reject::Malformed)?;
        if signed.version != 1 || signed.witnesses.len() > WITNESSES_MAX {
            return Err(Reject::Malformed);
        }
        let body = TxBody::decode(&signed.body)?;
        if body.cluster != *cluster {
            return Err(Reject::WrongCluster);
        }
        // One witness for each voter that must authorise is the most that can be needed; more only
        // costs whoever checks.
        if signed.witnesses.len() > body.slots.len() || !signed.witnesses.iter().all(Witness::well_formed) {
            return Err(Reject::AuthForm);
        }
        let txid = txid(cluster, &signed.body);
        let (openings, dealt) = (Vec::new(), Vec::new());
        Ok(Self { txid, body, body_bytes: signed.body, witnesses: signed.witnesses, openings, dealt })
    }

    /// Takes openings, all of which must fit the body.
    ///
    /// # Errors
    /// [`Reject::OpeningMismatch`] for an opening of another slot or another move, and what a move
    /// in the clear would be refused for.
    pub fn open(&mut self, openings: Vec<Opening>) -> Result<(), Reject> {
        let sorted = openings.windows(2).all(|pair| pair[0].slot < pair[1].slot);
        if !sorted {
            return Err(Reject::OpeningMismatch);
        }
        for opening in &openings {
            let hash = match self.body.slots.get(usize::from(opening.slot)) {
                Some(Slot::Hidden { hash, .. }) => *hash,
                Some(Slot::Clear { .. }) | None => return Err(Reject::OpeningMismatch),
            };
            if opening.hash() != hash {
                return Err(Reject::OpeningMismatch);
            }
            check_move(&opening.mv)?;
        }
        let clear = self.body.moves().map(|(_, mv)| mv);
        check_together(clear.chain(openings.iter().map(|opening| &opening.mv)))?;
        self.openings = openings;
        Ok(())
    }

    /// The encoded [`SignedTx`], without openings: what a vote carries within a ledger.
    #[must_use]
    pub fn signed(&self) -> Vec<u8> {
        self.signed_with(self.witnesses.clone())
    }

    /// The encoded [`SignedTx`] with these witnesses instead of its own.
    #[must_use]
    pub fn signed_with(&self, witnesses: Vec<Witness>) -> Vec<u8> {
        SignedTx { version: 1, body: self.body_bytes.clone(), witnesses }.encode()
    }

    /// Every move that can be seen here, with its slot and ledger: those in the clear, and those
    /// whose opening came along.
    pub fn visible(&self) -> impl Iterator<Item = (u16, LedgerId, &Move)> {
        (0u16..).zip(&self.body.slots).filter_map(|(index, slot)| match slot {
            Slot::Clear { ledger, mv } => Some((index, *ledger, mv)),
            Slot::Hidden { ledger, .. } => {
                let at = self.openings.binary_search_by_key(&index, |opening| opening.slot).ok()?;
                Some((index, *ledger, &self.openings[at].mv))
            }
        })
    }

    /// Verifies every signature. The number of checks is the number of signatures.
    ///
    /// # Errors
    /// [`Reject::BadSignature`] if one does not hold, or there is none where one is needed.
    pub fn verify_signatures(&self) -> Result<(), Reject> {
        let all = self.witnesses.iter().all(|witness| witness.verifies(&self.txid.0));
        let enough = !self.witnesses.is_empty() || self.needs_no_signature();
        if all && enough { Ok(()) } else { Err(Reject::BadSignature) }
    }

    /// Whether every move is seen to be authorised by a secret. Of a body that spans ledgers the signatures may be none
    /// of this group's business: there one such move is enough, or an opening, whose salt a party has given away.
    fn needs_no_signature(&self) -> bool {
        let secrets = self.visible().filter(|(_, _, mv)| mv.opens_lock()).count();
        let shown = secrets > 0 || !self.openings.is_empty();
        secrets == self.body.slots.len() || (shown && self.body.spans_ledgers())
    }
}
