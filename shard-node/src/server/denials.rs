//! Notes in the log of nodes that ask for what they have no part in, and are not answered.
//!
//! A node may ask as often as it likes, so the same of the same one is noted once in a while, with how often it came since.
//! Owns what was noted lately, and how much of that is kept. Whoever denies a call with an answer notes it there and then.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::ids::{GroupId, NodeId, OrgId};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two notes of the same.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// Different ones that are kept; what comes on top within that time is counted.
const NOTED_MAX: usize = 256;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// A certificate of the group, or its mail, over a link.
    ByLink,
    /// How the group began.
    Foundation,
}

/// Who asked for what of which group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denied {
    /// The group.
    pub group: GroupId,
    /// The node; none of a router.
    pub node: Option<NodeId>,
    /// Whose it is, if the registry knows that.
    pub org: Option<OrgId>,
    /// What was asked for.
    pub asked: Asked,
}

/// What was noted lately.
#[derive(Default)]
pub struct Denials(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    /// When each was noted, and how often it has come since.
    lately: BTreeMap<Denied, (Instant, u64)>,
    /// How many there was no room for since the last note.
    crowded: u64,
}

impl Denials {
    /// Notes that somebody was not answered, unless the same was noted a moment ago.
    pub fn note(&self, denied: Denied) {
        let Some(unnoted) = self.due(denied, Instant::now()) else { return };
        let Denied { group, node, org, asked } = denied;
        let (node, org) = (node.map(|node| node.0), org.map(|org| org.0));
        tracing::warn!(%group, ?node, ?org, ?asked, unnoted, "nothing was answered: the caller has no seat in the group");
    }

    /// How many were not noted since the last time, if this one is to be.
    fn due(&self, denied: Denied, now: Instant) -> Option<u64> {
        let noted = &mut *self.0.lock();
        let lately = |at: Instant| now.saturating_duration_since(at) < NOTED_EVERY;
        if let Some((_, since)) = noted.lately.get_mut(&denied).filter(|(at, _)| lately(*at)) {
            *since += 1;
            return None;
        }
        let since = noted.lately.remove(&denied).map_or(0, |(_, since)| since);
        if noted.lately.len() >= NOTED_MAX {
            noted.lately.retain(|_, (at, _)| lately(*at));
        }
        if noted.lately.len() >= NOTED_MAX {
            noted.crowded += 1 + since;
            return None;
        }
        noted.lately.insert(denied, (now, 0));
        Some(since + std::mem::take(&mut noted.crowded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(node: u32, asked: Asked) -> Denied {
        Denied { group: GroupId::channel(0), node: Some(NodeId(node)), org: Some(OrgId(3)), asked }
    }

    #[test]
    fn the_same_is_noted_once_in_a_while_with_how_often_it_came() {
        let (denials, start) = (Denials::default(), Instant::now());
        let (link, foundation) = (denied(3, Asked::ByLink), denied(3, Asked::Foundation));
        for (what, after, noted) in [
            (link, Duration::ZERO, Some(0)),
            (link, Duration::from_secs(1), None),
            (foundation, Duration::from_secs(1), Some(0)),
            (denied(4, Asked::ByLink), Duration::from_secs(1), Some(0)),
            (link, NOTED_EVERY / 2, None),
            (link, NOTED_EVERY, Some(2)),
            (link, NOTED_EVERY, None),
            (link, NOTED_EVERY * 2, Some(1)),
        ] {
            assert_eq!(denials.due(what, start + after), noted, "{what:?} after {after:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_has_no_room_is_counted() {
        let (denials, start) = (Denials::default(), Instant::now());
        let all = u32::try_from(NOTED_MAX).expect("a small number");
        for node in 0..all {
            assert_eq!(denials.due(denied(node, Asked::ByLink), start), Some(0));
        }
        for _ in 0..3 {
            assert_eq!(denials.due(denied(all, Asked::ByLink), start), None);
        }
        assert_eq!(denials.0.lock().lately.len(), NOTED_MAX);
        let later = start + NOTED_EVERY;
        assert_eq!(denials.due(denied(all, Asked::ByLink), later), Some(3), "those before are forgotten");
        assert_eq!(denials.0.lock().lately.len(), 1);
    }
}
