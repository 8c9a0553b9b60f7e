//! The places that a replica's state has been at lately: what it tells others who have been lent a snapshot
//! (see `crate::raft::vouch`).
//!
//! Kept in memory alone. A replica that was started again tells where it is from then on, and others ask for a snapshot
//! that is not older; so the end of this never keeps anybody from catching up for longer than one attempt.

use std::collections::VecDeque;

use ledger::hash::Hash32;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::raft::vouch::{Ask, Told, WAIT};

/// Places that are remembered, of 32 bytes each. A group that orders a hundred entries a second, which is more than
/// any does, remembers as long as it takes to hash and send some tens of gigabytes.
const PLACES_MAX: usize = 16_384;

/// The latest places, without a gap.
struct Kept {
    /// The entry of the first one.
    from: u64,
    places: VecDeque<Hash32>,
}

/// What a replica remembers. Written by its task.
pub(super) struct Places {
    kept: Mutex<Kept>,
    /// The entry of the last one.
    upto: watch::Sender<u64>,
}

impl Places {
    /// A replica begins here.
    pub(super) fn at(index: u64, place: Option<Hash32>) -> Self {
        let kept = Kept { from: index, places: place.into_iter().collect() };
        Self { kept: Mutex::new(kept), upto: watch::Sender::new(index) }
    }

    /// The state stands behind this entry now. One that has jumped there does not know what was between.
    pub(super) fn note(&self, index: u64, place: Option<Hash32>) {
        {
            let mut kept = self.kept.lock();
            let next = kept.from.saturating_add(kept.places.len() as u64);
            if place.is_none() || index != next {
                kept.places.clear();
                kept.from = index;
            }
            kept.places.extend(place);
            if kept.places.len() > PLACES_MAX {
                kept.places.pop_front();
                kept.from = kept.from.saturating_add(1);
            }
        }
        self.upto.send_replace(index);
    }

    /// Answers a question, when the state has got there or after a short time.
    pub(super) async fn answer(&self, ask: Ask) -> Told {
        let mut upto = self.upto.subscribe();
        // Whether it has got there is looked up.
        drop(tokio::time::timeout(WAIT, upto.wait_for(|upto| *upto >= ask.index)).await);
        self.told(ask.index)
    }

    fn told(&self, index: u64) -> Told {
        let upto = *self.upto.borrow();
        let kept = self.kept.lock();
        let nth = index.checked_sub(kept.from).and_then(|nth| usize::try_from(nth).ok());
        let place = nth.and_then(|nth| kept.places.get(nth)).copied();
        Told { from: kept.from, upto, place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> Option<Hash32> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Some(Hash32(bytes))
    }

    #[test]
    fn what_was_passed_is_told_and_what_was_jumped_over_is_not() {
        let places = Places::at(7, hash(7));
        for index in 8..=10 {
            places.note(index, hash(index));
        }
        assert_eq!(places.told(0), Told { from: 7, upto: 10, place: None });
        for index in 7..=10 {
            assert_eq!(places.told(index), Told { from: 7, upto: 10, place: hash(index) }, "{index}");
        }
        for index in [6, 11, u64::MAX] {
            assert_eq!(places.told(index).place, None, "{index}");
        }
        // A snapshot has become the state.
        places.note(50, hash(50));
        assert_eq!(places.told(10), Told { from: 50, upto: 50, place: None });
        assert_eq!(places.told(50).place, hash(50));
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let places = Places::at(0, hash(0));
        let last = PLACES_MAX as u64 + 10;
        for index in 1..=last {
            places.note(index, hash(index));
        }
        let from = last + 1 - PLACES_MAX as u64;
        assert_eq!(places.told(from - 1), Told { from, upto: last, place: None });
        assert_eq!((places.told(from).place, places.told(last).place), (hash(from), hash(last)));
        // The index space ends before anybody gets there, and a state at its end is no reason to fail.
        places.note(u64::MAX, hash(1));
        places.note(u64::MAX, hash(2));
        assert_eq!(places.told(u64::MAX).upto, u64::MAX);
    }

    #[test]
    fn a_state_that_does_not_say_where_it_is_is_vouched_for_by_nobody() {
        let places = Places::at(3, None);
        assert_eq!(places.told(3), Told { from: 3, upto: 3, place: None });
        places.note(4, hash(4));
        assert_eq!(places.told(4), Told { from: 4, upto: 4, place: hash(4) });
        places.note(5, None);
        assert_eq!(places.told(4), Told { from: 5, upto: 5, place: None });
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_for_a_place_that_is_yet_to_come_waits_for_it_and_not_for_ever() {
        let places = std::sync::Arc::new(Places::at(3, hash(3)));
        assert_eq!(places.answer(Ask { index: 3 }).await.place, hash(3));
        let asked = places.clone();
        let waiting = tokio::spawn(async move { asked.answer(Ask { index: 4 }).await });
        tokio::task::yield_now().await;
        places.note(4, hash(4));
        assert_eq!(waiting.await.ok().and_then(|told| told.place), hash(4));
        assert_eq!(places.answer(Ask { index: 9 }).await, Told { from: 3, upto: 4, place: None });
    }
}
