//! The bytes of the values of one index: put together from parts, kept while the index is decided, and given
//! to members that ask.
//!
//! Owns: what is whole, what is being put together by whom, and what is known of a whole value. Bounded: a
//! peer builds [`BUILDING_MAX`] values at a time, [`WHOLE_MAX`] are kept beside those that more than two
//! thirds have prevoted, and everything is dropped with the index. Never decides whom parts are taken from;
//! an id is believed only when the bytes are all here and have it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use ledger::hash::Hash32;
use ledger::ids::NodeId;
use ledger::limits::BATCH_BYTES_MAX;

use super::super::message::{PART_BYTES_MAX, Part};
use super::super::value::Value;

/// An encoded value: its batch, and the few fields around it.
pub const VALUE_BYTES_MAX: usize = BATCH_BYTES_MAX + 256;
/// Values that one peer's parts are put together to at a time.
pub const BUILDING_MAX: usize = 2;
/// Whole values of one index, beside those that have to be kept.
pub const WHOLE_MAX: usize = 16;

/// What is known of a value that is here.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Its bytes.
    pub encoded: Bytes,
    /// What they say.
    pub value: Value,
    /// Whether a judgement was asked for, and if so, whether as one that more than two thirds have prevoted.
    pub asked: Option<bool>,
    /// What was found.
    pub valid: Option<bool>,
    /// What the library was told.
    pub told: Option<bool>,
    /// Whether it must not be dropped: made here, or prevoted by more than two thirds.
    pub kept: bool,
}

impl Whole {
    /// A value about which nothing is known.
    pub fn new(value: Value, encoded: Bytes) -> Self {
        Self { encoded, value, asked: None, valid: None, told: None, kept: false }
    }
}

struct Building {
    peer: NodeId,
    value: Hash32,
    total: usize,
    parts: Vec<Option<Bytes>>,
    missing: usize,
}

/// The values of one index.
#[derive(Default)]
pub struct Shelf {
    whole: BTreeMap<Hash32, Whole>,
    /// In the order in which they were begun.
    building: Vec<Building>,
}

impl Shelf {
    /// Drops everything: another index begins.
    pub fn clear(&mut self) {
        self.whole.clear();
        self.building.clear();
    }

    /// A whole value.
    pub fn get(&self, id: &Hash32) -> Option<&Whole> {
        self.whole.get(id)
    }

    /// A whole value, to note something about it.
    pub fn get_mut(&mut self, id: &Hash32) -> Option<&mut Whole> {
        self.whole.get_mut(id)
    }

    /// All whole values.
    pub fn all(&self) -> impl Iterator<Item = (&Hash32, &Whole)> {
        self.whole.iter()
    }

    /// Keeps a whole value; one that is here stays as it is.
    pub fn keep(&mut self, id: Hash32, whole: Whole) {
        self.building.retain(|building| building.value != id);
        self.whole.entry(id).or_insert(whole);
        let spare = |whole: &Whole| !whole.kept;
        while self.whole.values().filter(|whole| spare(whole)).count() > WHOLE_MAX {
            // What the host was not asked about goes first, and the value of the earliest round.
            let spares = self.whole.iter().filter(|(other, whole)| **other != id && spare(whole));
            let Some(oldest) =
                spares.min_by_key(|(_, whole)| (whole.asked.is_some(), whole.value.round)).map(|(id, _)| *id)
            else {
                return;
            };
            self.whole.remove(&oldest);
        }
    }

    /// Takes a part. Returns the bytes of a value that is whole with it: not yet kept, and with its id.
    pub fn take(&mut self, from: NodeId, part: Part) -> Option<(Hash32, Bytes)> {
        let total = part.total_bytes as usize;
        let count = total.div_ceil(PART_BYTES_MAX);
        let at = usize::from(part.part);
        if total == 0 || total > VALUE_BYTES_MAX || at >= count || self.whole.contains_key(&part.value) {
            return None;
        }
        if part.data.len() != length_of(at, count, total) {
            return None;
        }
        let found = self.building.iter().position(|other| other.peer == from && other.value == part.value);
        let slot = found.unwrap_or_else(|| self.begin(from, part.value, total, count));
        let building = &mut self.building[slot];
        if building.total != total || building.parts[at].is_some() {
            return None;
        }
        building.parts[at] = Some(part.data);
        building.missing -= 1;
        if building.missing > 0 {
            return None;
        }
        let done = self.building.remove(slot);
        let mut whole = BytesMut::with_capacity(total);
        done.parts.into_iter().flatten().for_each(|data| whole.extend_from_slice(&data));
        let whole = whole.freeze();
        (Value::id_of(&whole) == done.value).then_some((done.value, whole))
    }

    /// Begins to put a value together; a peer that has begun too many loses its first.
    fn begin(&mut self, peer: NodeId, value: Hash32, total: usize, count: usize) -> usize {
        let of_peer: Vec<usize> = (0..self.building.len()).filter(|at| self.building[*at].peer == peer).collect();
        if of_peer.len() >= BUILDING_MAX {
            self.building.remove(of_peer[0]);
        }
        self.building.push(Building { peer, value, total, parts: vec![None; count], missing: count });
        self.building.len() - 1
    }

    /// Bytes that are held, and values that are being put together.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        let whole: usize = self.whole.values().map(|whole| whole.encoded.len()).sum();
        let parts = self.building.iter().flat_map(|building| building.parts.iter().flatten());
        (whole + parts.map(Bytes::len).sum::<usize>(), self.building.len())
    }
}

/// Bytes of one part.
const fn length_of(at: usize, count: usize, total: usize) -> usize {
    if at + 1 < count { PART_BYTES_MAX } else { total - (count - 1) * PART_BYTES_MAX }
}

/// Takes a value apart.
pub fn split(index: u64, value: Hash32, encoded: &Bytes) -> Vec<Part> {
    let total_bytes = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    let starts = (0..encoded.len()).step_by(PART_BYTES_MAX).zip(0_u16..);
    starts
        .map(|(start, part)| {
            let end = encoded.len().min(start + PART_BYTES_MAX);
            Part { index, value, total_bytes, part, data: encoded.slice(start..end) }
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::value::{Body, VALUE_VERSION};
    use super::*;

    fn value(bytes: usize, round: u32) -> (Hash32, Bytes) {
        let body = Body::Batch(vec![7; bytes].into());
        let value = Value {
            version: VALUE_VERSION,
            index: 1,
            previous: Hash32::ZERO,
            proposer: NodeId(1),
            round,
            heir: None,
            lasted_ms: 0,
            body,
        };
        (value.id(), value.encode())
    }

    #[test]
    fn parts_make_the_value_in_any_order_and_each_counts_once() {
        let (id, encoded) = value(PART_BYTES_MAX * 2, 0);
        let mut parts = split(1, id, &encoded);
        assert_eq!(parts.len(), 3);
        parts.reverse();
        let mut shelf = Shelf::default();
        for part in &parts[..2] {
            assert_eq!(shelf.take(NodeId(2), part.clone()), None);
            assert_eq!(shelf.take(NodeId(2), part.clone()), None, "a part twice");
        }
        assert_eq!(shelf.take(NodeId(3), parts[2].clone()), None, "another peer's part");
        assert_eq!(shelf.take(NodeId(2), parts[2].clone()), Some((id, encoded)));
    }

    #[test]
    fn garbage_is_no_value_and_takes_no_room() {
        let (id, encoded) = value(PART_BYTES_MAX, 0);
        let mut shelf = Shelf::default();
        let mut parts = split(1, id, &encoded);
        parts[1].data = vec![0; parts[1].data.len()].into();
        assert_eq!(shelf.take(NodeId(2), parts[0].clone()), None);
        assert_eq!(shelf.take(NodeId(2), parts[1].clone()), None, "the id does not hold");
        assert_eq!(shelf.held(), (0, 0));
        let part = &split(1, id, &encoded)[0];
        let bad = [
            Part { total_bytes: 0, ..part.clone() },
            Part { total_bytes: u32::MAX, ..part.clone() },
            Part { part: 2, ..part.clone() },
            Part { part: 1, ..part.clone() },
            Part { data: Bytes::new(), ..part.clone() },
        ];
        for part in bad {
            assert_eq!(shelf.take(NodeId(2), part), None);
        }
        assert_eq!(shelf.held(), (0, 0));
    }

    #[test]
    fn a_peer_that_never_finishes_holds_two_values_at_most_and_whole_ones_are_bounded() {
        let mut shelf = Shelf::default();
        for round in 0..50 {
            let (id, encoded) = value(PART_BYTES_MAX, round);
            shelf.take(NodeId(2), split(1, id, &encoded)[0].clone());
        }
        assert_eq!(shelf.held(), (BUILDING_MAX * PART_BYTES_MAX, BUILDING_MAX));
        shelf.clear();
        for round in 0..50 {
            let (id, encoded) = value(10, round);
            let value: Value = borsh::from_slice(&encoded).unwrap();
            shelf.keep(id, Whole { kept: round == 0, ..Whole::new(value, encoded) });
        }
        let rounds: Vec<u32> = shelf.all().map(|(_, whole)| whole.value.round).collect();
        assert_eq!(rounds.len(), WHOLE_MAX + 1);
        assert!(rounds.contains(&0) && rounds.contains(&49) && !rounds.contains(&1));
    }
}
