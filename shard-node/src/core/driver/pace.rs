//! How often mail is sent, in a cluster of many groups.
//!
//! Each bundle brings a certificate, whose signatures cost the leader that takes it more than the payments in it. Among
//! hundreds of groups the credits of a block go to as many different ones, each under a certificate of its own. So credits
//! for a group that was sent some a moment ago wait for those that follow, and what was taken is told with the mail that
//! goes back, under the same certificate. Owns how long that is. Never holds what somebody waits for: votes and the
//! beacon's word go at once, and so does the first credit after a while. Nothing here is needed for
//! safety: late mail is mail.

use ledger::ids::Tick;

/// Among so many groups mail goes at once.
const GROUPS_AT_ONCE: usize = 16;
/// Each group adds so much to the time between two bundles of a stream: a leader then takes 200 certificates in a second,
/// as long as the bound below allows.
const PER_GROUP_MS: u64 = 5;
/// A credit waits no longer than this, and the time until the next look at the streams.
const BUNDLES_APART_MS_MAX: u64 = 2_500;
/// So many messages are worth a certificate.
const WORTH_MESSAGES: u64 = 256;
/// Looks at the streams that wait, for each time between two bundles: the tree that proves them is hashed for each look.
const LOOKS: u64 = 16;
/// Proofs of what was taken come with the mail that goes back. By themselves, they come once in so many times between
/// two bundles.
const ACKS_APART: u64 = 4;
/// A replica beside one that delivers is asked this often for what that one may hold back.
const PROBE_FRESH_EVERY_MS: u64 = 20_000;

/// The times of a cluster of so many groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    apart_ms: u64,
}

impl Pace {
    /// Among so many groups with a committee in force.
    pub(super) fn of(groups: usize) -> Self {
        let apart_ms = if groups <= GROUPS_AT_ONCE { 0 } else { groups as u64 * PER_GROUP_MS };
        Self { apart_ms: apart_ms.min(BUNDLES_APART_MS_MAX) }
    }

    /// Whether credits wait at all.
    pub(super) fn holds(self) -> bool {
        self.apart_ms > 0
    }

    /// Whether the next bundle of a stream goes now: at a look at all streams as soon as it is time, with a new
    /// certificate only when it was not sent any for longer.
    pub(super) fn bundle_due(self, now: Tick, sent: Option<Tick>, looks: bool, waiting: u64) -> bool {
        let slack = if looks { 0 } else { self.apart_ms / LOOKS };
        waiting >= WORTH_MESSAGES || sent.is_none_or(|at| now.0 >= at.0 + self.apart_ms + slack)
    }

    /// Whether it is time to look at all streams, for mail that waits or for proofs that are to go by themselves.
    pub(super) fn look_due(self, now: Tick, looked: Option<Tick>) -> bool {
        self.holds() && looked.is_none_or(|at| now.0 >= at.0 + self.apart_ms / LOOKS)
    }

    /// Whether a proof of what was taken goes by itself.
    pub(super) fn ack_due(self, now: Tick, proved: Option<Tick>) -> bool {
        proved.is_none_or(|at| now.0 >= at.0 + self.apart_ms * ACKS_APART)
    }

    /// Whether a source has delivered lately, as one does that has mail all the time.
    fn fresh(self, now: Tick, delivered: Option<Tick>) -> bool {
        self.holds() && delivered.is_some_and(|at| now.0 < at.0 + 2 * self.apart_ms)
    }

    /// How long after a question to another replica the next one comes, where it comes after `every_ms` when nothing waits.
    pub(super) fn probe_every_ms(self, every_ms: u64, now: Tick, delivered: Option<Tick>) -> u64 {
        if self.fresh(now, delivered) { PROBE_FRESH_EVERY_MS } else { self.within_ms(every_ms) }
    }

    /// Within what time something is delivered that took `ms` if nothing waited.
    pub(super) fn within_ms(self, ms: u64) -> u64 {
        ms + self.apart_ms + self.apart_ms / LOOKS
    }
}

/// Milliseconds that a credit waits at most before it is sent, among so many groups with a committee: for whoever studies
/// a cluster.
#[must_use]
pub fn credits_wait_ms(groups: usize) -> u64 {
    Pace::of(groups).within_ms(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_groups_wait_for_nothing() {
        for groups in [0, 2, GROUPS_AT_ONCE] {
            let pace = Pace::of(groups);
            assert!(!pace.holds() && !pace.look_due(Tick(9), None));
            assert!(pace.bundle_due(Tick(9), Some(Tick(9)), false, 1) && pace.ack_due(Tick(9), Some(Tick(9))));
            assert_eq!((pace.within_ms(600), pace.probe_every_ms(900, Tick(9), Some(Tick(9)))), (600, 900));
        }
    }

    #[test]
    fn the_time_between_bundles_grows_with_the_groups_up_to_a_bound() {
        let apart = |groups| Pace::of(groups).apart_ms;
        assert_eq!([17, 65, 500, 513, 100_000].map(apart), [85, 325, 2_500, 2_500, 2_500]);
        assert_eq!([9, 513].map(credits_wait_ms), [0, 2_656]);
    }

    #[test]
    fn mail_goes_first_at_once_then_at_a_look_and_early_when_there_is_much() {
        let pace = Pace::of(320);
        let due = |now, sent: Option<u64>, looks, waiting| pace.bundle_due(Tick(now), sent.map(Tick), looks, waiting);
        assert!(due(5, None, false, 1));
        assert!(!due(1_604, Some(5), true, 1) && due(1_605, Some(5), true, 1));
        assert!(!due(1_704, Some(5), false, 1) && due(1_705, Some(5), false, 1), "looks come first");
        assert!(!due(6, Some(5), false, WORTH_MESSAGES - 1) && due(6, Some(5), false, WORTH_MESSAGES));
        assert!(pace.look_due(Tick(5), None) && !pace.look_due(Tick(104), Some(Tick(5))));
        assert!(pace.look_due(Tick(105), Some(Tick(5))));
        assert!(!pace.ack_due(Tick(6_404), Some(Tick(5))) && pace.ack_due(Tick(6_405), Some(Tick(5))));
        assert_eq!(pace.within_ms(600), 2_300);
        assert_eq!(pace.probe_every_ms(900, Tick(3_204), Some(Tick(5))), PROBE_FRESH_EVERY_MS);
        assert_eq!(pace.probe_every_ms(900, Tick(3_205), Some(Tick(5))), 2_600);
    }
}
