//! What reads answer with, in its canonical encoding: the values of a `QueryReply`.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::{Address, AssetId, Certificate, Header, Height, Receipt, TimeMs, TxId};

/// A block as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockView {
    /// Format version, 1.
    pub version: u8,
    /// Its header.
    pub header: Header,
    /// Its certificate, once enough replicas have signed.
    pub certificate: Option<Certificate>,
    /// Its receipts, in order.
    pub receipts: Vec<Receipt>,
}

/// A part of an account's history, newest first.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HistoryPage {
    /// Format version, 1.
    pub version: u8,
    /// The entries.
    pub lines: Vec<HistoryLine>,
    /// Where the next page starts: pass it as `before_height`. `None` when this is the last one.
    pub before_height: Option<Height>,
}

/// One thing that happened to an account.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HistoryLine {
    /// Block of the account's group.
    pub height: Height,
    /// Position in it.
    pub index: u32,
    /// Time of the block.
    pub time_ms: TimeMs,
    /// The transaction.
    pub txid: TxId,
    /// What it did to the account.
    pub change: HistoryChange,
}

/// What a transaction did to an account.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum HistoryChange {
    /// The account paid, or burned.
    Debit {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
        /// To whom; `None` when it was burned.
        to: Option<Address>,
    },
    /// The account received.
    Credit {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
        /// From whom, where that is known: a credit that came by mail does not name the payer.
        from: Option<Address>,
    },
    /// The account's authorisation was replaced.
    Rotated,
    /// The account issued an asset.
    Issued(AssetId),
    /// The account was credited while it was frozen; the amount waits in suspense.
    Suspended {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
        /// From whom, where that is known.
        from: Option<Address>,
    },
    /// An amount went from suspense into the balance.
    Released {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
    },
    /// An amount went from suspense to another account.
    Returned {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
        /// To whom.
        to: Option<Address>,
    },
    /// Debits were frozen: of one asset by its issuer, or of all by the owner.
    Frozen(Option<AssetId>),
    /// Debits were thawed.
    Thawed(Option<AssetId>),
    /// The owner changed the account's data or limits.
    Written,
}
