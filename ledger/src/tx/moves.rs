//! The steps of a transaction, and which accounts each of them asks.
//!
//! Owns the vocabulary of moves. What a move does to accounts is in [`crate::rules`].

use borsh::{BorshDeserialize, BorshSerialize};

use crate::asset::AssetSpec;
use crate::auth::Authorisation;
use crate::ids::{Address, AssetId};
#[cfg(doc)]
use crate::limits::{DATA_KEY_BYTES_MAX, DATA_VALUE_BYTES_MAX};

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
    /// Like `Pay`, but the credit votes too: it is refused for a frozen payee, and posted in the
    /// same transaction instead of following later.
    PaySync {
        /// Debited; must authorise.
        from: Address,
        /// Credited; votes, without having to authorise.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Demands something of an account, which must authorise: nobody else may pin its state while
    /// the transaction is undecided.
    Check {
        /// The account that votes.
        account: Address,
        /// What has to hold.
        condition: Condition,
    },
    /// Changes what an account says about itself.
    Write {
        /// The account; must authorise.
        account: Address,
        /// The change.
        write: AccountWrite,
    },
    /// Freezes or thaws what an account holds of an asset. Holds that exist are not touched.
    Freeze {
        /// The asset's issuer; must authorise.
        issuer: Address,
        /// Whose holdings; votes, without having to authorise.
        account: Address,
        /// The asset.
        asset: AssetId,
        /// Frozen from now on, or thawed.
        frozen: bool,
    },
    /// Moves an amount that arrived while the account was frozen into its balance, once it is not.
    Release {
        /// The account; must authorise.
        account: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
    /// Sends an amount that arrived while the account was frozen somewhere else, usually back.
    Return {
        /// The asset's issuer, or the account itself; must authorise.
        by: Address,
        /// In whose suspense the amount lies.
        account: Address,
        /// Credited.
        to: Address,
        /// What.
        asset: AssetId,
        /// How much, not zero.
        amount: u128,
    },
}

/// What a [`Move::Check`] demands. It must hold for every outcome of what is undecided on the
/// account: balances count without what is held, or with what is on its way, whichever is worse.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Condition {
    /// The available balance is at least this.
    AtLeast {
        /// Of this asset.
        asset: AssetId,
        /// The least amount.
        amount: u128,
    },
    /// The posted balance is at most this at the time of the vote. A credit that merely follows
    /// its debit may raise it before the outcome is known.
    AtMost {
        /// Of this asset.
        asset: AssetId,
        /// The greatest amount.
        amount: u128,
    },
    /// The account's sequence is this number: its owner has changed nothing since.
    Version(u64),
    /// Debits of the asset are possible: neither account nor holding is frozen.
    NotFrozen(AssetId),
    /// Only that the account has authorised the transaction: a payee's consent.
    Consent,
}

/// What an account may change about itself, besides its authorisation.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AccountWrite {
    /// Sets or removes an entry of the account's data.
    Data {
        /// 1 to [`DATA_KEY_BYTES_MAX`] bytes.
        key: Vec<u8>,
        /// At most [`DATA_VALUE_BYTES_MAX`] bytes; `None` removes.
        value: Option<Vec<u8>>,
    },
    /// Limits what one transaction may debit of an asset; `None` lifts the limit.
    Limit {
        /// The asset.
        asset: AssetId,
        /// Greatest sum of debits in one transaction.
        per_tx: Option<u128>,
    },
    /// Freezes the whole account, or thaws it: nothing can be debited meanwhile.
    Frozen(bool),
}

/// An account that can say no to a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voter {
    /// The account.
    pub account: Address,
    /// Whether it must authorise the transaction.
    pub authorises: bool,
}

impl Move {
    /// The accounts that vote on this move: one, or two for moves that need two accounts to agree.
    /// The first one always authorises.
    pub fn voters(&self) -> impl Iterator<Item = Voter> + use<> {
        let (first, second) = match self {
            Self::Pay { from, .. } => (*from, None),
            Self::PaySync { from, to, .. } => (*from, Some(*to)),
            Self::Mint { issuer, .. } | Self::Burn { issuer, .. } => (*issuer, None),
            Self::Issue(spec) => (spec.issuer, None),
            Self::Rotate { account, .. }
            | Self::Check { account, .. }
            | Self::Write { account, .. }
            | Self::Release { account, .. } => (*account, None),
            Self::Freeze { issuer, account, .. } => (*issuer, Some(*account)),
            Self::Return { by, account, .. } => (*by, Some(*account)),
        };
        let first = Voter { account: first, authorises: true };
        let second = second.map(|account| Voter { account, authorises: false });
        std::iter::once(first).chain(second)
    }

    /// The account whose credit follows and cannot fail, if the move has one.
    #[must_use]
    pub fn follower(&self) -> Option<Address> {
        match self {
            Self::Pay { to, .. } | Self::Mint { to, .. } | Self::Return { to, .. } => Some(*to),
            Self::Burn { .. }
            | Self::Issue(_)
            | Self::Rotate { .. }
            | Self::PaySync { .. }
            | Self::Check { .. }
            | Self::Write { .. }
            | Self::Freeze { .. }
            | Self::Release { .. } => None,
        }
    }

    /// Every account this move touches, voters first.
    pub fn accounts(&self) -> impl Iterator<Item = Address> + use<> {
        self.voters().map(|voter| voter.account).chain(self.follower())
    }
}
