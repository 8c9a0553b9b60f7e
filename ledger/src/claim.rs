//! Claims: what undecided transactions have reserved or pinned on an account, besides amounts.
//!
//! An amount that a debit reserves is a hold and stands in [`crate::Balance::held`] as a sum, so
//! that a busy payer may have any number of them. Everything else that a YES vote relies on until
//! the outcome is known is a [`Claim`] in one short list of the account.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash::Hash32;
use crate::ids::{AssetId, LockId, TxId};
use crate::record::Grantee;

/// What one undecided transaction relies on.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Claim {
    /// The available balance has to stay at least this.
    AtLeast {
        /// Of this asset.
        asset: AssetId,
        /// The least amount.
        amount: u128,
    },
    /// No further synchronous credit may raise the posted balance above this.
    AtMost {
        /// Of this asset.
        asset: AssetId,
        /// The greatest amount.
        amount: u128,
    },
    /// A synchronous credit will be posted.
    Incoming {
        /// Of this asset.
        asset: AssetId,
        /// How much.
        amount: u128,
    },
    /// The account's sequence has to stay what it is.
    Version,
    /// This will be changed.
    Change(Item),
    /// Supply will be created.
    Mint {
        /// Of this asset.
        asset: AssetId,
        /// How much.
        amount: u128,
    },
    /// An amount in suspense will be taken.
    Suspense {
        /// Of this asset.
        asset: AssetId,
        /// How much.
        amount: u128,
    },
}

/// A thing of an account that one undecided transaction may change at a time.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Item {
    /// The authorisation.
    Auth,
    /// The entry of the account's data with this key.
    Data(Vec<u8>),
    /// The spending limit of an asset.
    Limit(AssetId),
    /// The flag that freezes the account.
    Frozen,
    /// Whether the issuer froze the holdings of an asset.
    Restriction(AssetId),
    /// A hash-lock, by its claim or its refund.
    Lock(LockId),
    /// The record with this hash.
    Record(Hash32),
    /// What a party may do with the record with this hash.
    Grant(Hash32, Grantee),
}

impl Item {
    /// Whether the account's owner changes it, which counts in the account's sequence.
    #[must_use]
    pub fn is_owners(&self) -> bool {
        match self {
            Self::Auth | Self::Data(_) | Self::Limit(_) | Self::Frozen | Self::Record(_) | Self::Grant(..) => true,
            Self::Restriction(_) | Self::Lock(_) => false,
        }
    }
}

/// A claim and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Claimed {
    /// The undecided transaction.
    pub txid: TxId,
    /// What it relies on.
    pub claim: Claim,
}

/// All claims on one account, in the order they came. Absent when there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClaimList {
    /// Format version, 1.
    pub version: u8,
    /// At most [`crate::limits::CLAIMS_MAX`].
    pub claims: Vec<Claimed>,
}

/// What the issuer of an asset imposed on an account, and what arrived while debits were frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Restriction {
    /// Format version, 1.
    pub version: u8,
    /// Debits of the asset are refused.
    pub frozen: bool,
    /// Credited, but not spendable until it is released or returned.
    pub suspense: u128,
}

impl Default for Restriction {
    fn default() -> Self {
        Self { version: 1, frozen: false, suspense: 0 }
    }
}
