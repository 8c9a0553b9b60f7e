//! The record of an account: authorisation, flags and balances.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::auth::Authorisation;
use crate::ids::AssetId;

/// An amount of one asset on one account. `available = posted − held`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Balance {
    /// What the account owns.
    pub posted: u128,
    /// What prepared transactions have reserved of it.
    pub held: u128,
}

impl Balance {
    /// What may be spent now.
    #[must_use]
    pub fn available(&self) -> u128 {
        self.posted - self.held
    }
}

/// One leaf of the state tree. Up to [`crate::limits::INLINE_BALANCES_MAX`] balances, those with the
/// smallest asset ids, stand in the record itself, so that the usual account is one leaf; further
/// assets have entries of their own.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AccountRecord {
    /// Format version, 1.
    pub version: u8,
    /// The authorisation in force; `None` until the first spend reveals it.
    pub auth: Option<Authorisation>,
    /// Bit set of `FLAG_*`.
    pub flags: u8,
    /// Counts changes made by the account's owner; checks can name it.
    pub sequence: u64,
    /// Sorted by asset.
    pub balances: Vec<(AssetId, Balance)>,
}

/// Debits are refused while this flag is set.
pub const FLAG_FROZEN: u8 = 1;
/// Undecided transactions have claims here, listed under [`crate::schema::claims`].
pub const FLAG_CLAIMED: u8 = 2;
/// Holdings of some asset are or were frozen, or lie in suspense: [`crate::schema::restriction`].
pub const FLAG_RESTRICTED: u8 = 4;
/// The owner has set a spending limit for some asset: [`crate::schema::limit`].
pub const FLAG_LIMITED: u8 = 8;

impl Default for AccountRecord {
    fn default() -> Self {
        Self { version: 1, auth: None, flags: 0, sequence: 0, balances: Vec::new() }
    }
}
