//! When a trail shows where the streams of its group stand.
//!
//! A group has a stream to each group that it writes to and one from each that writes to it. If each trail showed all of
//! them, the beacon's load for each shard would grow with the number of shards. So time is cut into rounds, the longer the
//! more streams there are, and a group shows all of its streams at once, once in a round: with the first trail of it, or the
//! second where the round began while the first was under way. All groups go by the beacon's time, and each round is half of a
//! longer one, so all show in the same seconds, and what is compared was seen at about one time. A group with few streams shows
//! them with every trail, and nothing is kept here of it.
//!
//! Streams are shown all at once and never some of them at a time: a vote of a third group goes to both sides of a payment in one
//! block, and whoever knew one of these streams as of that block and the other one from before it would hold a difference
//! against two honest shards.
//!
//! What a trail has to do follows from the beacon's state and the time of its block, so every replica judges it alike. One
//! that owes streams and leaves one out is refused, and so is one that shows them sooner, which costs: the group is then no
//! further in the audit, as everybody can see. A group that rests makes no more trails; it shows by itself where its streams
//! stand at the block that it is audited to.
//!
//! | round since it last showed | it shows all | it shows none | it shows some |
//! |---|---|---|---|
//! | the same | refused | taken | refused |
//! | another, no trail was taken in it yet | taken | taken | refused |
//! | another, and a trail was taken in it | taken | refused | refused |
//! | none: its first trail, or it had few streams | taken | refused | refused |
//! | any, and the shard is retired | taken | refused | refused |

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{GroupId, Height, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::audit::AUDIT_VERSION;
use crate::audit::trail::{Trail, audited};
use crate::limits::AUDIT_STREAMS_PER_S;
use crate::registry;

/// Where a group with many streams last showed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Shown {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// The block at whose end they stood there.
    pub height: Height,
    /// How many there were, outgoing and incoming.
    pub streams: u64,
    /// Time of the beacon's block that took it.
    pub time_ms: TimeMs,
}

impl Shown {
    /// Whether another round has begun since.
    fn is_over(&self, now: TimeMs) -> bool {
        let round = round_ms(self.streams);
        now.0 / round > self.time_ms.0 / round
    }
}

/// What a trail that is taken at some moment has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// All streams.
    Owed,
    /// All streams, or none.
    Open,
    /// No streams.
    Early,
}

const SHOWN: &[u8] = b"audit-shown/";

/// Key of a [`Shown`].
#[must_use]
pub fn shown_key(group: GroupId) -> Vec<u8> {
    registry::key(SHOWN, &[&group.0.to_be_bytes()])
}

/// How long a round is for a group with so many streams, in milliseconds.
#[must_use]
pub fn round_ms(streams: u64) -> u64 {
    let seconds = streams.div_ceil(AUDIT_STREAMS_PER_S).max(1);
    // Lengths that divide each other, so that rounds begin together.
    seconds.checked_next_power_of_two().unwrap_or(u64::MAX).saturating_mul(1_000)
}

/// What the next trail of a group has to show, if it is taken now.
pub fn due(view: &mut View<'_>, group: GroupId, now: TimeMs) -> Due {
    let Some(shown) = view.load::<Shown>(&shown_key(group)) else { return Due::Owed };
    let retired = registry::layout(view).is_some_and(|layout| layout.retired(group));
    let missed = audited(view, group).is_none_or(|audit| shown.is_over(audit.taken_ms));
    match (retired || missed, shown.is_over(now)) {
        (true, _) => Due::Owed,
        (false, true) => Due::Open,
        (false, false) => Due::Early,
    }
}

/// The last block of a group of which it is known where the streams stood, and up to which its flows count in comparisons.
pub fn upto(view: &mut View<'_>, group: GroupId) -> Option<Height> {
    let shown: Option<Shown> = view.load(&shown_key(group));
    match shown {
        Some(shown) => Some(shown.height),
        None => audited(view, group).map(|audit| audit.height),
    }
}

/// Whether a trail shows its streams, if it does what it has to.
///
/// # Errors
/// [`Reject::AuditForm`]: it does not.
pub(crate) fn judge(view: &mut View<'_>, at: &BlockContext, trail: &Trail) -> Result<bool, Reject> {
    let bare = trail.outbox.is_empty() && trail.inbox.is_empty();
    let due = due(view, trail.certificate.header.group, at.time_ms);
    if due == Due::Early {
        // Those that come too early are not even hashed.
        return if bare { Ok(false) } else { Err(Reject::AuditForm) };
    }
    match trail.shows_streams() {
        true => Ok(true),
        false if bare && due == Due::Open => Ok(false),
        false => Err(Reject::AuditForm),
    }
}

/// Keeps that a group has shown its streams, if they are many.
pub(crate) fn keep(view: &mut View<'_>, at: &BlockContext, trail: &Trail) {
    let header = &trail.certificate.header;
    let key = shown_key(header.group);
    let streams = trail.outbox.len().saturating_add(trail.inbox.len()) as u64;
    if streams > AUDIT_STREAMS_PER_S {
        let shown = Shown { version: AUDIT_VERSION, height: header.height, streams, time_ms: at.time_ms };
        registry::put(view, key, &shown);
    } else if view.load::<Shown>(&key).is_some() {
        registry::remove(view, key);
    }
}

#[cfg(test)]
mod tests {
    use ledger::limits::PEERS_MAX;

    use super::*;

    #[test]
    fn rounds_are_as_long_as_streams_are_many_and_begin_together() {
        let mut longest = 0;
        for streams in 0..=2 * PEERS_MAX as u64 {
            let round = round_ms(streams);
            // Sixteen in a second at most, and not half as many as that.
            assert!(streams * 1_000 <= AUDIT_STREAMS_PER_S * round, "{streams} in {round} ms");
            assert!(round == 1_000 || 2 * streams * 1_000 > AUDIT_STREAMS_PER_S * round, "{streams} in {round} ms");
            assert!(round >= longest && (longest == 0 || round.is_multiple_of(longest)), "{streams}");
            longest = round;
        }
        assert_eq!([1, 16, 17, 32, 33, 1022].map(round_ms), [1_000, 1_000, 2_000, 2_000, 4_000, 64_000]);
    }
}
