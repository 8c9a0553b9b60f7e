//! Legs in words: what a YES vote holds until the outcome is known.

use ledger::tx::{AccountWrite, Condition};
use ledger::{Move, ParsedTx};

use crate::draft::words::{Labels, quoted};

/// What the vote for this leg reserves, and whether that merely pins a fact; `None` where it
/// reserves nothing. `2 × slot` is the first account that votes on a move, `2 × slot + 1` the second.
pub(super) fn hold(tx: &ParsedTx, leg: u16, labels: &Labels) -> Option<(String, bool)> {
    let (slot, second) = (leg / 2, leg % 2 == 1);
    match tx.visible().find(|(at, _, _)| *at == slot) {
        Some((_, _, mv)) => reserved(mv, second, labels).map(|what| (what, matches!(mv, Move::Check { .. }))),
        None => Some((format!("what the hidden move {} needs", slot + 1), false)),
    }
}

fn reserved(mv: &Move, second: bool, labels: &Labels) -> Option<String> {
    let name = |account: &ledger::Address| labels.account(account);
    match mv {
        Move::Pay { from, asset, amount, .. }
        | Move::Lock { from, asset, amount, .. }
        | Move::Transfer { from, asset, amount, .. } => {
            Some(format!("{} of {}", labels.amount(*amount, asset), name(from)))
        }
        Move::PaySync { from, asset, amount, .. } if !second => {
            Some(format!("{} of {}", labels.amount(*amount, asset), name(from)))
        }
        Move::PaySync { to, asset, amount, .. } => {
            Some(format!("room for {} on {}", labels.amount(*amount, asset), name(to)))
        }
        Move::Burn { issuer, asset, amount } => Some(format!("{} of {}", labels.amount(*amount, asset), name(issuer))),
        Move::Mint { asset, amount, .. } => Some(format!("room for {} of supply", labels.amount(*amount, asset))),
        Move::Rotate { account, .. } => Some(format!("the keys of {}", name(account))),
        Move::Write { account, write } => Some(match write {
            AccountWrite::Data { key, .. } => format!("{} in the data of {}", quoted(key), name(account)),
            AccountWrite::Limit { asset, .. } => format!("the limit of {} on {}", labels.asset(asset), name(account)),
            AccountWrite::Frozen(_) => format!("whether {} is frozen", name(account)),
        }),
        Move::Check { account, condition } => match condition {
            Condition::AtLeast { asset, amount } => {
                Some(format!("{} stays at {} or more", name(account), labels.amount(*amount, asset)))
            }
            Condition::AtMost { asset, amount } => {
                Some(format!("{} stays at {} or less", name(account), labels.amount(*amount, asset)))
            }
            Condition::Version(sequence) => Some(format!("{} stays at version {sequence}", name(account))),
            Condition::NotFrozen(_) | Condition::Consent => None,
        },
        Move::Freeze { account, asset, .. } if second => {
            Some(format!("whether {} of {} is frozen", labels.asset(asset), name(account)))
        }
        Move::Release { account, asset, amount } => {
            Some(format!("{} in the suspense of {}", labels.amount(*amount, asset), name(account)))
        }
        Move::Return { account, asset, amount, .. } if second => {
            Some(format!("{} in the suspense of {}", labels.amount(*amount, asset), name(account)))
        }
        Move::Claim { from, lock, .. } | Move::Refund { from, lock, .. } => {
            Some(format!("the lock {lock} of {}", name(from)))
        }
        Move::Record { owner, hash, .. } => Some(format!("the record {hash} of {}", name(owner))),
        Move::Grant { owner, record, to: who, .. } | Move::Revoke { owner, record, from: who } => {
            Some(format!("the access of {} to the record {record} of {}", labels.grantee(who), name(owner)))
        }
        Move::Freeze { .. } | Move::Return { .. } | Move::Issue(_) => None,
    }
}

/// The move of a leg in words.
pub(super) fn sentence(tx: &ParsedTx, slot: u16, labels: &Labels) -> String {
    let found = tx.visible().find(|(at, _, _)| *at == slot);
    found.map_or_else(|| format!("the hidden move {}", slot + 1), |(_, _, mv)| labels.sentence(mv))
}
