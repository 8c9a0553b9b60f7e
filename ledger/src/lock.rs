//! Hash-locks: an amount set aside until somebody shows a secret, or its deadline passes.
//!
//! The amount stays with the payer, as a hold of its balance ([`crate::Balance::held`]), so that
//! totals and value flows do not know of locks at all. The lock itself is a leaf under the payer's
//! partition and moves with it. Once settled it stays, as proof of what became of it; a claim leaves
//! the secret there, which is what the other side of a swap waits for.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash::{Hash32, sha256, tagged};
use crate::ids::{Address, AssetId, LockId, TimeMs, TxId};

/// What is hashed: exactly 32 bytes, as hash-locks of Bitcoin (`OP_SIZE 32 … OP_SHA256`) and
/// Ethereum (`sha256(abi.encodePacked(bytes32))`) demand. A secret of another length could be good
/// in one place and not in the other.
pub type Secret = [u8; 32];

impl LockId {
    /// The id of the lock that a transaction's move makes:
    /// `sha256("seamark/lock/v1" ‖ txid ‖ slot (BE))`. Known before the transaction is sent, and
    /// never met again, since a transaction executes once.
    #[must_use]
    pub fn derive(txid: &TxId, slot: u16) -> Self {
        Self(tagged(b"seamark/lock/v1", &[&txid.0.0, &slot.to_be_bytes()]))
    }
}

/// The hash that a secret opens: plain SHA-256, without a tag, since other systems hash it too.
#[must_use]
pub fn hash_of(secret: &Secret) -> Hash32 {
    sha256(secret)
}

/// Who pays whom what when a lock is claimed. Whoever claims or refunds names them, so that the
/// transaction says what it does without a look at the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LockTerms {
    /// Credited by a claim.
    pub to: Address,
    /// What.
    pub asset: AssetId,
    /// How much, not zero.
    pub amount: u128,
}

/// What became of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum LockState {
    /// The amount is held.
    Open,
    /// It was paid.
    Claimed {
        /// What opened it, for the other side to read.
        secret: Secret,
        /// By which transaction.
        txid: TxId,
        /// Time of the block.
        at_ms: TimeMs,
    },
    /// It was given back.
    Refunded {
        /// By which transaction.
        txid: TxId,
        /// Time of the block.
        at_ms: TimeMs,
    },
}

/// A lock, under the partition of the account whose amount it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Lock {
    /// Format version, 1.
    pub version: u8,
    /// What a claim pays.
    pub terms: LockTerms,
    /// SHA-256 of the secret.
    pub hash: Hash32,
    /// A claim is voted for before this block time, a refund at or after it.
    pub deadline_ms: TimeMs,
    /// What became of it.
    pub state: LockState,
}
