//! What reads answer with, in its canonical encoding: the values of a `QueryReply`.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::claim::Claimed;
use ledger::{
    AccountRecord, Address, AssetId, Certificate, GroupId, Hash32, Header, Height, NodeId, OrgId, Receipt, Reject,
    TimeMs, TxId,
};

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

/// An account with everything that lies beside its record. `record.balances` has every asset, also
/// those beyond the record's own lines, with what is held; `record.flags` and `record.sequence` stand
/// there, too.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AccountView {
    /// Format version, 1.
    pub version: u8,
    /// Authorisation, flags, sequence, and all balances by asset.
    pub record: AccountRecord,
    /// Assets whose holdings the issuer has frozen or once froze, or of which something lies in
    /// suspense, by asset.
    pub restrictions: Vec<RestrictionLine>,
    /// What one transaction may debit at most, where the owner has set a limit, by asset.
    pub limits: Vec<(AssetId, u128)>,
    /// What the account, an issuer, has created and not destroyed again, by asset. What lies in other ledgers
    /// is part of it.
    pub supplies: Vec<(AssetId, u128)>,
    /// What undecided transactions rely on, other than held amounts, in the order they came.
    pub claims: Vec<Claimed>,
    /// Entries of balances, restrictions, limits and supplies that are not shown: of each kind those beyond
    /// [`ledger::limits::ACCOUNT_LINES_MAX`], counted up to [`ledger::limits::LINES_COUNTED_MAX`].
    pub more_lines: u32,
    /// Entries of the account's data by key: a page, from after the key that was asked for.
    pub data: Vec<(Vec<u8>, Vec<u8>)>,
    /// Further entries follow the last one here.
    pub more_data: bool,
}

/// What the issuer of an asset imposed on an account, and what arrived while debits were frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RestrictionLine {
    /// The asset.
    pub asset: AssetId,
    /// Debits are refused.
    pub frozen: bool,
    /// Credited, but not spendable until it is released or returned.
    pub suspense: u128,
}

/// What one group knows of a transaction. The answer to an explain query is one of these for each
/// group that knows the transaction or did not answer, in order of group.
///
/// A transaction that one group decides has a receipt and nothing prepared. One that several groups
/// vote on is prepared in each of them, and has a receipt where its outcome is applied. A group that
/// merely gets a credit knows nothing of the transaction: the history of the payee has a line with
/// its id.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Explain {
    /// Format version, 1.
    pub version: u8,
    /// The group.
    pub group: GroupId,
    /// The block that the answer stands at; 0 when the group did not answer.
    pub height: Height,
    /// Time of that block; 0 when the group did not answer.
    pub time_ms: TimeMs,
    /// The group has no leader that answers: this is what one of its replicas has.
    pub stale: bool,
    /// What the group knows, where several groups vote.
    pub prepared: Option<PreparedView>,
    /// What became of the transaction in this group.
    pub receipt: Option<Receipt>,
    /// Where one group decides: the encoded [`ledger::SignedTx`], as long as the block that executed
    /// it is there.
    pub tx: Vec<u8>,
    /// The credits that the receipt sent to other groups, in move order.
    pub credits: Vec<SentMail>,
    /// Why the group did not answer; everything else is then empty.
    pub unanswered: Option<Unanswered>,
}

/// Why a group could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Unanswered {
    /// Stable code.
    pub code: String,
    /// What happened.
    pub detail: String,
}

/// One message to another group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SentMail {
    /// Where it went.
    pub dest: GroupId,
    /// Its number in that stream.
    pub seq: u64,
    /// The destination has proved that it took the message. It may have before it was proved.
    pub taken: bool,
}

/// A block of a group's own chain, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockPoint {
    /// The block.
    pub height: Height,
    /// Its time.
    pub time_ms: TimeMs,
}

/// One group's part in a transaction that several groups vote on.
///
/// Legs have numbers: `2 × slot` is the first account that votes on the move of a slot, `2 × slot +
/// 1` the second one (`ledger::Move::voters`). A hidden slot is one leg.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PreparedView {
    /// The encoded [`ledger::SignedTx`], whose moves tell what the legs are and what they hold. Empty
    /// when the group has dropped its register and the block that brought it is gone.
    pub tx: Vec<u8>,
    /// Hidden slots of which this group has the opening. The openings themselves are not shown.
    pub opened: Vec<u16>,
    /// The groups that vote, this one included, sorted.
    pub voters: Vec<GroupId>,
    /// Every leg that has to say yes.
    pub legs: Vec<u16>,
    /// Last block time at which a YES may be written.
    pub valid_until_ms: TimeMs,
    /// When the group first saw the transaction.
    pub seen: BlockPoint,
    /// Whether a client handed it over here, rather than a vote of another group.
    pub handed_over: bool,
    /// This group's vote; `None` while it waits for openings, or, a channel, for a member that hands it over.
    pub own: Option<OwnVote>,
    /// Other groups' votes, in the order they came.
    pub received: Vec<ReceivedVote>,
    /// When the outcome was applied here, and whether it was posted (`true`) or set free.
    pub resolved: Option<(BlockPoint, bool)>,
    /// When the register was dropped: the record is history from then on.
    pub dropped: Option<BlockPoint>,
}

/// The vote of the group that answers. A YES holds what its legs debit until it is resolved.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OwnVote {
    /// Why it is a NO; `None` for a YES.
    pub no: Option<Reject>,
    /// The legs it speaks for.
    pub legs: Vec<u16>,
    /// Accounts that carry its register, as far as moves in the clear name them.
    pub accounts: Vec<Address>,
    /// Where it was mailed.
    pub sent: Vec<SentMail>,
    /// When it was written.
    pub at: BlockPoint,
}

/// Another group's vote, as it was delivered here.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReceivedVote {
    /// Whose.
    pub group: GroupId,
    /// Why it is a NO; `None` for a YES.
    pub no: Option<Reject>,
    /// The legs it speaks for.
    pub legs: Vec<u16>,
    /// When it was delivered here.
    pub at: BlockPoint,
}

/// A part of an account's history, newest first.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HistoryPage {
    /// Format version, 1.
    pub version: u8,
    /// The entries.
    pub lines: Vec<HistoryLine>,
    /// Where the next page starts: the place of the last line. `None` when nothing is older.
    pub before: Option<HistoryPlace>,
}

/// A place in an account's history: a line has one, and pages are asked for before one. Written as
/// `height:index`; a height alone is the beginning of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct HistoryPlace {
    /// Block of the account's group.
    pub height: Height,
    /// Position in it.
    pub index: u32,
}

impl fmt::Display for HistoryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.height.0, self.index)
    }
}

impl FromStr for HistoryPlace {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (height, index) = text.split_once(':').unwrap_or((text, "0"));
        Ok(Self { height: Height(height.parse()?), index: index.parse()? })
    }
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
    /// The account, an issuer, created supply.
    Minted {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
        /// For whom.
        to: Option<Address>,
    },
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
    /// An amount was set aside in a hash-lock.
    Locked {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
        /// Whom a claim pays.
        to: Option<Address>,
    },
    /// A hash-lock of the account was claimed.
    Claimed {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
        /// Who was paid.
        to: Option<Address>,
    },
    /// A hash-lock of the account was refunded.
    Refunded {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
    },
    /// The account recorded a hash.
    Recorded,
    /// The account granted access to a record: to whom, unless it is an organisation.
    Granted(Option<Address>),
    /// The account revoked access to a record: whose, unless it is an organisation's.
    Revoked(Option<Address>),
    /// An amount left for another ledger.
    Departed {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
        /// The payee, or, of a pair account, the payer where that is known.
        other: Option<Address>,
    },
    /// An amount came from another ledger; told of pair accounts alone.
    Arrived {
        /// What.
        asset: AssetId,
        /// How much.
        amount: u128,
        /// The payee.
        to: Option<Address>,
    },
}

/// What the beacon shows of a channel, to everybody in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChannelLine {
    /// Format version, 1.
    pub version: u8,
    /// The channel's group.
    pub group: GroupId,
    /// Name for people.
    pub name: String,
    /// The founding that it began with.
    pub founding: Hash32,
    /// Its members, ascending.
    pub members: Vec<OrgId>,
    /// The nodes that it is to run on, ascending.
    pub nodes: Vec<NodeId>,
    /// Those of them that carry its mail.
    pub anchors: Vec<NodeId>,
    /// `running`, `frozen`, `closing` or `closed`.
    pub status: String,
}
