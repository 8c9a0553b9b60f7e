//! The checkers' own view of transactions: who votes, where accounts live, what each leg does to
//! which account. Nothing here is asked of the production code; it is worked out from the load, the
//! genesis and SHA-256.

use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, GroupId, LockId, TxId};
use ledger::receipt::{Outcome, Receipt};
use ledger::rules::HistoryKind;
use ledger::tx::{AccountWrite, Move};
use sha2::{Digest, Sha256};

use crate::workload::Operation;

/// `sha256("acct" ‖ address)`, under which everything of an account is kept.
#[must_use]
pub fn partition(account: &Address) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"acct");
    hasher.update(account.0);
    hasher.finalize().into()
}

/// The shard that owns an account.
#[must_use]
pub fn home(genesis: &Genesis, account: &Address) -> GroupId {
    let partition = partition(account);
    let bit = |at: u8| partition[usize::from(at / 8)] >> (7 - at % 8) & 1;
    let owns = |shard: &&ledger::layout::ShardRange| {
        (0..shard.prefix.length).all(|at| u64::from(bit(at)) == shard.prefix.bits >> (63 - at) & 1)
    };
    genesis.layout.shards.iter().find(owns).map_or(GroupId(0), |shard| shard.group)
}

/// An account that has a say in a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Index of the move.
    pub slot: usize,
    /// The account.
    pub account: Address,
    /// Its shard, or the beacon for the issue of an asset.
    pub group: GroupId,
    /// Whether it has to sign.
    pub signs: bool,
}

/// Who has a say in which move.
#[must_use]
pub fn legs(genesis: &Genesis, moves: &[Move]) -> Vec<Leg> {
    let mut legs = Vec::new();
    for (slot, mv) in moves.iter().enumerate() {
        let (first, second) = match mv {
            Move::Pay { from, .. }
            | Move::Lock { from, .. }
            | Move::Refund { from, .. }
            | Move::Transfer { from, .. } => (*from, None),
            Move::Record { owner, .. } | Move::Grant { owner, .. } | Move::Revoke { owner, .. } => (*owner, None),
            // The secret speaks for it.
            Move::Claim { from, .. } => {
                legs.push(Leg { slot, account: *from, group: home(genesis, from), signs: false });
                continue;
            }
            Move::PaySync { from, to, .. } => (*from, Some(*to)),
            Move::Mint { issuer, .. } | Move::Burn { issuer, .. } => (*issuer, None),
            Move::Freeze { issuer, account, .. } => (*issuer, Some(*account)),
            Move::Return { by, account, .. } => (*by, Some(*account)),
            Move::Rotate { account, .. }
            | Move::Check { account, .. }
            | Move::Write { account, .. }
            | Move::Release { account, .. } => (*account, None),
            Move::Issue(spec) => {
                legs.push(Leg { slot, account: spec.issuer, group: GroupId::BEACON, signs: true });
                continue;
            }
        };
        legs.push(Leg { slot, account: first, group: home(genesis, &first), signs: true });
        legs.extend(second.map(|account| Leg { slot, account, group: home(genesis, &account), signs: false }));
    }
    legs
}

/// The groups that vote, sorted.
#[must_use]
pub fn voters(legs: &[Leg]) -> Vec<GroupId> {
    let mut groups: Vec<GroupId> = legs.iter().map(|leg| leg.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Whether a receipt says that the transaction was executed.
#[must_use]
pub fn committed(receipt: &Receipt) -> bool {
    matches!(receipt.outcome, Outcome::Committed { .. })
}

/// What one leg takes from the balance of its account: asset and amount.
#[must_use]
pub fn debit(mv: &Move, leg: &Leg) -> Option<(AssetId, u128)> {
    match mv {
        Move::Pay { asset, amount, .. }
        | Move::Burn { asset, amount, .. }
        | Move::Lock { asset, amount, .. }
        | Move::Transfer { asset, amount, .. } => Some((*asset, *amount)),
        Move::PaySync { asset, amount, .. } if leg.signs => Some((*asset, *amount)),
        Move::PaySync { .. }
        | Move::Mint { .. }
        | Move::Issue(_)
        | Move::Rotate { .. }
        | Move::Check { .. }
        | Move::Write { .. }
        | Move::Freeze { .. }
        | Move::Release { .. }
        | Move::Return { .. }
        | Move::Claim { .. }
        | Move::Refund { .. }
        | Move::Record { .. }
        | Move::Grant { .. }
        | Move::Revoke { .. } => None,
    }
}

/// `sha256("seamark/lock/v1" ‖ txid ‖ slot)`, the name of the lock that a move makes.
#[must_use]
pub fn lock_id(txid: &TxId, slot: usize) -> LockId {
    let mut hasher = Sha256::new();
    hasher.update(b"seamark/lock/v1");
    hasher.update(txid.0.0);
    hasher.update(u16::try_from(slot).unwrap_or(u16::MAX).to_be_bytes());
    LockId(Hash32(hasher.finalize().into()))
}

/// A trace that a committed move has to leave in the history of an account: exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trace {
    /// Whose history.
    pub account: Address,
    /// What it tells; `u8` of a [`Kind`].
    pub kind: Kind,
    /// Of which asset; all zero where there is none.
    pub asset: AssetId,
    /// How much.
    pub amount: u128,
}

/// What a trace tells. A credit counts as one whether it went into the balance or into suspense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "they are named as the history kinds")]
pub enum Kind {
    Sent,
    Credited,
    Minted,
    Burned,
    Rotated,
    Released,
    Returned,
    Frozen,
    Thawed,
    Written,
    Locked,
    Claimed,
    Refunded,
    Recorded,
    Granted,
    Revoked,
    Departed,
    Arrived,
}

impl Kind {
    /// The kind of a history line.
    #[must_use]
    pub fn of(kind: HistoryKind) -> Self {
        match kind {
            HistoryKind::Sent => Self::Sent,
            HistoryKind::Received | HistoryKind::Suspended => Self::Credited,
            HistoryKind::Minted => Self::Minted,
            HistoryKind::Burned => Self::Burned,
            HistoryKind::Rotated => Self::Rotated,
            HistoryKind::Released => Self::Released,
            HistoryKind::Returned => Self::Returned,
            HistoryKind::Frozen => Self::Frozen,
            HistoryKind::Thawed => Self::Thawed,
            HistoryKind::Written => Self::Written,
            HistoryKind::Locked => Self::Locked,
            HistoryKind::Claimed => Self::Claimed,
            HistoryKind::Refunded => Self::Refunded,
            HistoryKind::Recorded => Self::Recorded,
            HistoryKind::Granted => Self::Granted,
            HistoryKind::Revoked => Self::Revoked,
            HistoryKind::Departed => Self::Departed,
            HistoryKind::Arrived => Self::Arrived,
        }
    }
}

/// All traces that a transaction leaves when it commits, sorted.
#[must_use]
pub fn traces(operation: &Operation) -> Vec<Trace> {
    let none = AssetId::default();
    let trace =
        |account: &Address, kind: Kind, asset: AssetId, amount: u128| Trace { account: *account, kind, asset, amount };
    let mut all = Vec::new();
    for mv in &operation.moves {
        match mv {
            Move::Pay { from, to, asset, amount } | Move::PaySync { from, to, asset, amount } => {
                all.push(trace(from, Kind::Sent, *asset, *amount));
                all.push(trace(to, Kind::Credited, *asset, *amount));
            }
            Move::Mint { issuer, to, asset, amount } => {
                all.push(trace(issuer, Kind::Minted, *asset, *amount));
                all.push(trace(to, Kind::Credited, *asset, *amount));
            }
            Move::Burn { issuer, asset, amount } => all.push(trace(issuer, Kind::Burned, *asset, *amount)),
            Move::Rotate { account, .. } => all.push(trace(account, Kind::Rotated, none, 0)),
            Move::Write { account, write } => {
                let kind = match write {
                    AccountWrite::Data { .. } | AccountWrite::Limit { .. } => Kind::Written,
                    AccountWrite::Frozen(true) => Kind::Frozen,
                    AccountWrite::Frozen(false) => Kind::Thawed,
                };
                all.push(trace(account, kind, none, 0));
            }
            Move::Freeze { account, asset, frozen, .. } => {
                let kind = if *frozen { Kind::Frozen } else { Kind::Thawed };
                all.push(trace(account, kind, *asset, 0));
            }
            Move::Release { account, asset, amount } => {
                all.push(trace(account, Kind::Released, *asset, *amount));
            }
            Move::Return { account, to, asset, amount, .. } => {
                all.push(trace(account, Kind::Returned, *asset, *amount));
                all.push(trace(to, Kind::Credited, *asset, *amount));
            }
            Move::Lock { from, asset, amount, .. } => all.push(trace(from, Kind::Locked, *asset, *amount)),
            Move::Claim { from, terms, .. } => {
                all.push(trace(from, Kind::Claimed, terms.asset, terms.amount));
                all.push(trace(&terms.to, Kind::Credited, terms.asset, terms.amount));
            }
            Move::Refund { from, terms, .. } => {
                all.push(trace(from, Kind::Refunded, terms.asset, terms.amount));
            }
            Move::Record { owner, .. } => all.push(trace(owner, Kind::Recorded, none, 0)),
            Move::Grant { owner, .. } => all.push(trace(owner, Kind::Granted, none, 0)),
            Move::Revoke { owner, .. } => all.push(trace(owner, Kind::Revoked, none, 0)),
            Move::Transfer { from, asset, amount, .. } => all.push(trace(from, Kind::Departed, *asset, *amount)),
            Move::Issue(_) | Move::Check { .. } => {}
        }
    }
    all.sort_unstable();
    all
}
