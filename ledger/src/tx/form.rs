//! The form of moves, each alone and all of one transaction together.
//!
//! Owns every refusal that needs no state: what is refused here is refused by everybody, always.

use crate::ids::{Address, AssetId};
use crate::limits::{DATA_KEY_BYTES_MAX, DATA_VALUE_BYTES_MAX};
use crate::reject::Reject;
use crate::tx::{AccountWrite, Condition, Move};

pub(super) fn check_move(mv: &Move) -> Result<(), Reject> {
    match mv {
        Move::Pay { amount, .. }
        | Move::PaySync { amount, .. }
        | Move::Mint { amount, .. }
        | Move::Burn { amount, .. }
        | Move::Release { amount, .. }
        | Move::Return { amount, .. } => {
            if *amount == 0 {
                Err(Reject::ZeroAmount)
            } else {
                Ok(())
            }
        }
        Move::Write { write: AccountWrite::Data { key, value }, .. } => {
            let fits = (1..=DATA_KEY_BYTES_MAX).contains(&key.len())
                && value.as_ref().is_none_or(|value| value.len() <= DATA_VALUE_BYTES_MAX);
            fits.then_some(()).ok_or(Reject::WriteForm)
        }
        Move::Write { write: AccountWrite::Limit { .. } | AccountWrite::Frozen(_), .. }
        | Move::Check { .. }
        | Move::Freeze { .. } => Ok(()),
        Move::Issue(spec) => spec.well_formed().then_some(()).ok_or(Reject::AssetForm),
        Move::Rotate { auth, .. } => auth.well_formed().then_some(()).ok_or(Reject::AuthForm),
    }
}

/// What a move changes or demands, so that two moves on the same thing can be told.
#[derive(PartialEq, Eq)]
enum Subject<'a> {
    Auth,
    Data(&'a [u8]),
    Limit(AssetId),
    Frozen,
    Restriction(AssetId),
    Version,
}

fn subject(mv: &Move) -> Option<(Address, Subject<'_>)> {
    match mv {
        Move::Rotate { account, .. } => Some((*account, Subject::Auth)),
        Move::Write { account, write: AccountWrite::Data { key, .. } } => Some((*account, Subject::Data(key))),
        Move::Write { account, write: AccountWrite::Limit { asset, .. } } => Some((*account, Subject::Limit(*asset))),
        Move::Write { account, write: AccountWrite::Frozen(_) } => Some((*account, Subject::Frozen)),
        Move::Freeze { account, asset, .. } => Some((*account, Subject::Restriction(*asset))),
        Move::Check { account, condition: Condition::Version(_) } => Some((*account, Subject::Version)),
        Move::Pay { .. }
        | Move::PaySync { .. }
        | Move::Mint { .. }
        | Move::Burn { .. }
        | Move::Issue(_)
        | Move::Check { .. }
        | Move::Release { .. }
        | Move::Return { .. } => None,
    }
}

/// Bounds that two checks of one account and asset set, if they contradict each other.
fn contradict(a: &Move, b: &Move) -> bool {
    use Condition::{AtLeast, AtMost};
    let (Move::Check { account: one, condition: first }, Move::Check { account: two, condition: second }) = (a, b)
    else {
        return false;
    };
    let (least, most) = match (first, second) {
        (AtLeast { asset: x, amount: least }, AtMost { asset: y, amount: most })
        | (AtMost { asset: x, amount: most }, AtLeast { asset: y, amount: least })
            if x == y =>
        {
            (least, most)
        }
        _ => return false,
    };
    one == two && least > most
}

/// Refuses the same move twice, two changes of one thing, and checks that cannot both hold.
pub(super) fn check_together<'a>(moves: impl Iterator<Item = &'a Move>) -> Result<(), Reject> {
    let moves: Vec<&Move> = moves.collect();
    for (at, mv) in moves.iter().enumerate().skip(1) {
        let subject_here = subject(mv);
        for earlier in &moves[..at] {
            let same_subject = subject_here.is_some() && subject_here == subject(earlier);
            if mv == earlier || same_subject || contradict(earlier, mv) {
                return Err(Reject::DuplicateMove);
            }
        }
    }
    Ok(())
}
