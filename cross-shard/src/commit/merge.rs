//! What a shard knows of a transaction of which both shards that it was joined from knew something.

use ledger::layout::BitPrefix;
use ledger::tx::Opening;

use super::record::{Cast, PREPARED_VERSION, Prepared, Stamp};

/// Joins what two shards knew of one transaction. `left` and `right` come with the prefixes of their shards.
///
/// Votes are united: each of them covers its legs whoever heard it. A vote that both have is that of a shard that both
/// came from; where one of them has carried it out and the other has not, both copies stay, each for its own accounts.
#[must_use]
pub fn merge_records(left: (BitPrefix, Prepared), right: (BitPrefix, Prepared)) -> Prepared {
    let ((left_prefix, left), (right_prefix, right)) = (left, right);
    let mut received = left.received;
    for vote in right.received {
        let known = received.iter().any(|known| {
            (known.group, known.decision, known.legs.as_slice()) == (vote.group, vote.decision, vote.legs.as_slice())
        });
        if !known {
            received.push(vote);
        }
    }
    let mut casts: Vec<Cast> = within(&left.casts, left_prefix).collect();
    casts.extend(within(&right.casts, right_prefix));
    for cast in left.casts.into_iter().chain(right.casts) {
        if !casts.iter().any(|known| same(known, &cast)) {
            casts.push(Cast { within: BitPrefix::ALL, ..cast });
        }
    }
    Prepared {
        version: PREPARED_VERSION,
        txid: left.txid,
        // Gone only where the register was dropped, and then the other may still need it; and shorter where only another
        // ledger has told of it, which sends no witnesses.
        tx: if left.tx.len() < right.tx.len() { right.tx } else { left.tx },
        openings: both(left.openings, right.openings),
        voters: if left.voters.is_empty() { right.voters } else { left.voters },
        legs: left.legs,
        valid_until_ms: left.valid_until_ms,
        seen: earlier(left.seen, right.seen),
        handed_over: left.handed_over || right.handed_over,
        casts: united(casts),
        received,
        dropped: left.dropped.filter(|_| right.dropped.is_some()),
    }
}

fn earlier(one: Stamp, other: Stamp) -> Stamp {
    if other.time_ms < one.time_ms { other } else { one }
}

/// Openings in order of slot, each once.
pub(super) fn both(mut openings: Vec<Opening>, others: Vec<Opening>) -> Vec<Opening> {
    for opening in others {
        if openings.iter().all(|known| known.slot != opening.slot) {
            openings.push(opening);
        }
    }
    openings.sort_by_key(|opening| opening.slot);
    openings
}

/// The votes as far as they are carried out for accounts under a prefix. A copy for accounts elsewhere goes: whoever
/// has these has a copy for them, and the copy for those here stays.
fn within(casts: &[Cast], prefix: BitPrefix) -> impl Iterator<Item = Cast> {
    casts.iter().filter_map(move |cast| {
        let within = match (prefix.holds(&cast.within), cast.within.holds(&prefix)) {
            (true, _) => cast.within,
            (false, true) => prefix,
            (false, false) => return None,
        };
        Some(Cast { within, ..cast.clone() })
    })
}

/// Whether two entries are of one vote.
fn same(one: &Cast, other: &Cast) -> bool {
    one.group == other.group && one.at == other.at && one.legs == other.legs
}

/// Copies of one vote become one where they are equally far.
fn united(casts: Vec<Cast>) -> Vec<Cast> {
    let mut one_each: Vec<Cast> = Vec::with_capacity(casts.len());
    for cast in &casts {
        let mut copies = casts.iter().filter(|copy| same(copy, cast));
        let apart = copies.any(|copy| copy.outcome.is_some() != cast.outcome.is_some());
        if apart {
            one_each.push(cast.clone());
        } else if !one_each.iter().any(|known| same(known, cast)) {
            one_each.push(Cast { within: BitPrefix::ALL, ..cast.clone() });
        }
    }
    one_each
}
