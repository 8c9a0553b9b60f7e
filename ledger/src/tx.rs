//! Transactions. The signed bytes are the bytes that are stored, hashed and forwarded, never
//! re-encoded.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::asset::AssetSpec;
use crate::auth::{Authorisation, Witness};
use crate::crypto::SecretKey;
use crate::hash::{Hash32, tagged};
use crate::ids::{Address, AssetId, ClusterId, GroupId, LedgerId, TimeMs, TxId};
use crate::limits::{BODY_BYTES_MAX, MEMO_BYTES_MAX, MOVES_MAX, SIGNED_TX_BYTES_MAX, WITNESSES_MAX};
use crate::reject::Reject;

/// Version written into new bodies.
pub const BODY_VERSION: u8 = 1;

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Move {
    /// Takes from one account (voter) and gives to another (follower).
    Pay {
        /// Debited; must authorise.
        from: Address,
        /// Credited.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Creates supply; the issuer is the voter.
    Mint {
        /// Must be the asset's issuer and authorise.
        issuer: Address,
        /// Credited.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Destroys supply that the issuer holds.
    Burn {
        /// Must be the asset's issuer and authorise.
        issuer: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Defines an asset; voted by the beacon, on the beacon's ledger.
    Issue(AssetSpec),
    /// Replaces an account's authorisation.
    Rotate {
        /// The account; the old authorisation must sign.
        account: Address,
        /// The new one.
        auth: Authorisation,
    },
}

/// An account that a move touches, and in which role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// Can fail: debits, checks, writes. Must authorise.
    Voter(Address),
    /// Cannot fail: credits.
    Follower(Address),
}

impl Move {
    /// The accounts this move touches, voters first.
    #[must_use]
    pub fn legs(&self) -> Vec<Leg> {
        match self {
            Self::Pay { from, to, .. } => vec![Leg::Voter(*from), Leg::Follower(*to)],
            Self::Mint { issuer, to, .. } => vec![Leg::Voter(*issuer), Leg::Follower(*to)],
            Self::Burn { issuer, .. } => vec![Leg::Voter(*issuer)],
            Self::Issue(spec) => vec![Leg::Voter(spec.issuer)],
            Self::Rotate { account, .. } => vec![Leg::Voter(*account)],
        }
    }

    /// The account that votes on this move. Every move has exactly one.
    #[must_use]
    pub fn voter(&self) -> Address {
        match self {
            Self::Pay { from, .. } => *from,
            Self::Mint { issuer, .. } | Self::Burn { issuer, .. } => *issuer,
            Self::Issue(spec) => spec.issuer,
            Self::Rotate { account, .. } => *account,
        }
    }
}

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
    /// At most [`MEMO_BYTES_MAX`] bytes.
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
        for slot in &body.slots {
            if let Slot::Clear { mv, .. } = slot {
                check_move(mv)?;
            }
        }
        Ok(body)
    }

    /// The moves in the clear.
    pub fn moves(&self) -> impl Iterator<Item = (LedgerId, &Move)> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Clear { ledger, mv } => Some((*ledger, mv)),
            Slot::Hidden { .. } => None,
        })
    }
}

fn check_move(mv: &Move) -> Result<(), Reject> {
    match mv {
        Move::Pay { amount, .. } | Move::Mint { amount, .. } | Move::Burn { amount, .. } => {
            if *amount == 0 {
                Err(Reject::ZeroAmount)
            } else {
                Ok(())
            }
        }
        Move::Issue(spec) => spec.well_formed().then_some(()).ok_or(Reject::AssetForm),
        Move::Rotate { auth, .. } => auth.well_formed().then_some(()).ok_or(Reject::AuthForm),
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

/// A transaction decoded once, together with its id.
#[derive(Clone, Debug)]
pub struct ParsedTx {
    /// Its id.
    pub txid: TxId,
    /// The decoded body.
    pub body: TxBody,
    /// Its authorisations.
    pub witnesses: Vec<Witness>,
}

impl ParsedTx {
    /// Decodes a signed transaction and checks everything that needs neither state nor the curve.
    ///
    /// # Errors
    /// [`Reject`] names what is wrong.
    pub fn decode(cluster: &ClusterId, bytes: &[u8]) -> Result<Self, Reject> {
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
        // One witness for each voter is the most that can be needed; more only costs whoever checks.
        if signed.witnesses.len() > body.slots.len() || !signed.witnesses.iter().all(Witness::well_formed) {
            return Err(Reject::AuthForm);
        }
        Ok(Self { txid: txid(cluster, &signed.body), body, witnesses: signed.witnesses })
    }

    /// Verifies every signature. The number of checks is the number of signatures.
    ///
    /// # Errors
    /// [`Reject::BadSignature`] if one does not hold.
    pub fn verify_signatures(&self) -> Result<(), Reject> {
        let all = self.witnesses.iter().all(|witness| witness.verifies(&self.txid.0));
        if all && !self.witnesses.is_empty() { Ok(()) } else { Err(Reject::BadSignature) }
    }
}
