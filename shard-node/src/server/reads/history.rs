//! Pages of an account's history, newest first.
//!
//! Owns how the lines are found. A page costs what it shows, whatever the shape of the history: blocks with
//! very many lines of one account, or long stretches without any. One of some assets alone, for which most lines may be
//! left out, ends when it has looked at enough of them.

use ledger::header::Header;
use ledger::ids::{Address, AssetId, Height, TxId};
use ledger::limits::HISTORY_LINES_MAX;
use ledger::rules::{HistoryKind, HistoryLine};
use ledger::schema;
use ledger::view::ReadFault;
use proto::views::{self, HistoryChange, HistoryPage, HistoryPlace};
use storage::KeyRange;

use super::{Failure, decoded, load};
use crate::server::replica::ViewReader;

/// Lines read at once while a page is filled.
const SCAN_MAX: usize = 4096;
/// Lines read for a page that shows few of them: it ends behind the window in which so many are reached.
const LOOKED_AT_MAX: usize = 4 * SCAN_MAX;
/// Bits of a line's position in its block.
const INDEX_BITS: u32 = 32;

/// The place of a line as one number, in the order of the keys.
fn number(place: HistoryPlace) -> u128 {
    (u128::from(place.height.0) << INDEX_BITS) | u128::from(place.index)
}

fn foreign() -> ReadFault {
    ReadFault("a line of history has a foreign key".into())
}

/// The place that the rest of a key names.
fn place(rest: &[u8]) -> Result<HistoryPlace, ReadFault> {
    let (height, index) = rest.split_first_chunk().ok_or_else(foreign)?;
    let index = index.try_into().map_err(|_| foreign())?;
    Ok(HistoryPlace { height: Height(u64::from_be_bytes(*height)), index: u32::from_be_bytes(index) })
}

/// At most `limit` lines of an account below a place, newest first, and where the next page starts.
pub(super) fn page(
    reader: &ViewReader<'_>,
    address: &Address,
    before: HistoryPlace,
    limit: u32,
) -> Result<HistoryPage, Failure> {
    page_of(reader, address, before, limit, None)
}

/// The same of the lines that are about one of `assets`, sorted, where these are named. A page of them may end early, also
/// without any line; the next one starts where it ended.
pub(super) fn page_of(
    reader: &ViewReader<'_>,
    address: &Address,
    before: HistoryPlace,
    limit: u32,
    assets: Option<&[AssetId]>,
) -> Result<HistoryPage, Failure> {
    let shown = |change: &HistoryChange| {
        assets.is_none_or(|assets| asset_of(change).is_some_and(|asset| assets.binary_search(&asset).is_ok()))
    };
    let limit = (limit as usize).clamp(1, HISTORY_LINES_MAX);
    let prefix = schema::history_prefix(address);
    // The key of a place: twelve bytes, of height and index, behind the prefix.
    let key = |number: u128| [prefix.as_slice(), &number.to_be_bytes()[4..]].concat();
    // Keys are only read forwards: walk back in windows, wider where there is little. One line more than is
    // shown tells whether there is another page.
    let (mut until, mut width) = (number(before), 64u128 << INDEX_BITS);
    // Where lines are known to lie below `until`, after a window had too many of them; and where the next
    // window starts because of that: in the upper half of that window.
    let (mut crowded, mut narrowed) = (None::<u128>, None::<u128>);
    let mut lines: Vec<views::HistoryLine> = Vec::new();
    let mut looked_at = 0;
    while until > 0 && lines.len() <= limit && (assets.is_none() || looked_at < LOOKED_AT_MAX) {
        let towards = crowded.filter(|place| *place < until).map(|place| place + (until - place) / 2);
        let from = narrowed.take().or(towards).unwrap_or_else(|| until.saturating_sub(width));
        let part = reader.0.scan(KeyRange::new(key(from), key(until)), SCAN_MAX + 1)?;
        if let Some((last, _)) = part.get(SCAN_MAX) {
            let last = number(place(&last[prefix.len()..])?);
            crowded = Some(last);
            narrowed = Some(last.max(from + (until - from) / 2));
            continue;
        }
        looked_at += part.len();
        for (key, value) in part.iter().rev() {
            if lines.len() > limit {
                break;
            }
            let found: HistoryLine = decoded(value)?;
            let change = change_of(&found);
            if shown(&change) {
                lines.push(line(reader, &key[prefix.len()..], found.txid, change, lines.last())?);
            }
        }
        if !part.is_empty() {
            (crowded, width) = (None, until - from);
        }
        if part.len() < SCAN_MAX / 8 {
            width = width.saturating_mul(4);
        }
        until = from;
    }
    let more = lines.len() > limit;
    lines.truncate(limit);
    let next = match lines.last().filter(|_| more) {
        Some(last) => Some(HistoryPlace { height: last.height, index: last.index }),
        None if until > 0 && !more => Some(place(&until.to_be_bytes()[4..])?),
        None => None,
    };
    Ok(HistoryPage { version: 1, lines, before: next })
}

/// A line as it is shown. `newer` is the one before it, which is often of the same block.
fn line(
    reader: &ViewReader<'_>,
    rest: &[u8],
    txid: TxId,
    change: HistoryChange,
    newer: Option<&views::HistoryLine>,
) -> Result<views::HistoryLine, Failure> {
    let HistoryPlace { height, index } = place(rest)?;
    let time_ms = match newer.filter(|newer| newer.height == height) {
        Some(newer) => newer.time_ms,
        None => load::<Header>(reader, &schema::header(height))?.ok_or_else(foreign)?.time_ms,
    };
    Ok(views::HistoryLine { height, index, time_ms, txid, change })
}

fn change_of(line: &HistoryLine) -> HistoryChange {
    let HistoryLine { kind, asset, amount, other, .. } = *line;
    match kind {
        HistoryKind::Sent => HistoryChange::Debit { asset, amount, to: other },
        HistoryKind::Burned => HistoryChange::Debit { asset, amount, to: None },
        HistoryKind::Received => HistoryChange::Credit { asset, amount, from: other },
        HistoryKind::Minted => HistoryChange::Minted { asset, amount, to: other },
        HistoryKind::Rotated => HistoryChange::Rotated,
        HistoryKind::Suspended => HistoryChange::Suspended { asset, amount, from: other },
        HistoryKind::Released => HistoryChange::Released { asset, amount },
        HistoryKind::Returned => HistoryChange::Returned { asset, amount, to: other },
        HistoryKind::Frozen => HistoryChange::Frozen(named(asset)),
        HistoryKind::Thawed => HistoryChange::Thawed(named(asset)),
        HistoryKind::Written => HistoryChange::Written,
        HistoryKind::Locked => HistoryChange::Locked { asset, amount, to: other },
        HistoryKind::Claimed => HistoryChange::Claimed { asset, amount, to: other },
        HistoryKind::Refunded => HistoryChange::Refunded { asset, amount },
        HistoryKind::Recorded => HistoryChange::Recorded,
        HistoryKind::Granted => HistoryChange::Granted(other),
        HistoryKind::Revoked => HistoryChange::Revoked(other),
        HistoryKind::Departed => HistoryChange::Departed { asset, amount, other },
        HistoryKind::Arrived => HistoryChange::Arrived { asset, amount, to: other },
    }
}

/// The asset that a change is about; none of what is about the account.
fn asset_of(change: &HistoryChange) -> Option<AssetId> {
    match change {
        HistoryChange::Debit { asset, .. }
        | HistoryChange::Credit { asset, .. }
        | HistoryChange::Minted { asset, .. }
        | HistoryChange::Suspended { asset, .. }
        | HistoryChange::Released { asset, .. }
        | HistoryChange::Returned { asset, .. }
        | HistoryChange::Locked { asset, .. }
        | HistoryChange::Claimed { asset, .. }
        | HistoryChange::Refunded { asset, .. }
        | HistoryChange::Departed { asset, .. }
        | HistoryChange::Arrived { asset, .. } => Some(*asset),
        HistoryChange::Frozen(asset) | HistoryChange::Thawed(asset) => *asset,
        HistoryChange::Rotated
        | HistoryChange::Written
        | HistoryChange::Recorded
        | HistoryChange::Granted(_)
        | HistoryChange::Revoked(_) => None,
    }
}

/// The asset of a line, where it names one.
fn named(asset: AssetId) -> Option<AssetId> {
    (asset != AssetId::default()).then_some(asset)
}
