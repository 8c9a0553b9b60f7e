//! Trails for the audit: what the beacon misses of a group's headers and streams, and these, read from state.
//!
//! Both run where the host reads: the first in a replica of the beacon, the second in one of the group, or, of a shard that
//! is gone, in one of a shard that came of it. Pure.

use beacon::audit::AUDIT_VERSION;
use beacon::audit::rounds::{self, Due};
use beacon::audit::trail::audited;
use beacon::limits::{AUDIT_BYTES_MAX, AUDIT_RETIRED_ASKED_MAX, AUDIT_TRAIL_BLOCKS_MAX, AUDIT_TRAIL_BYTES_MAX};
use beacon::{AuditEntry, Trail};
use ledger::certificate::Certificate;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, TimeMs};
use ledger::lineage::{BornShard, Origin, Segment};
use ledger::schema;
use ledger::view::{ReadFault, StateReader, View};

use crate::core::applied::AppliedRecord;
use crate::core::peer::Wanted;
use crate::core::records::BlockRecord;

/// What the beacon misses of a group that has certified this height, at a moment of its time: headers, with the streams where
/// they may be shown by now, or the streams alone of a group that rests. `None` when it misses nothing.
///
/// # Errors
/// [`ReadFault`] when the medium fails.
pub fn missed(
    reader: &dyn StateReader,
    group: GroupId,
    certified: Height,
    now: TimeMs,
) -> Result<Option<Wanted>, ReadFault> {
    let mut view = View::new(reader);
    let after = audited(&mut view, group).map(|audit| audit.height);
    let early = rounds::due(&mut view, group, now) == Due::Early;
    let unknown = rounds::upto(&mut view, group) < after;
    if let Some(fault) = view.fault() {
        return Err(fault.clone());
    }
    Ok(match after {
        Some(after) if after < certified && early => Some(Wanted::Headers(after)),
        Some(after) if after == certified && unknown && !early => Some(Wanted::Streams(after)),
        Some(after) if after >= certified => None,
        after => Some(Wanted::Trail(after)),
    })
}

/// What the beacon misses of shards that a group came from, until they are audited to their ends with their streams: those
/// that it came from last first, [`AUDIT_RETIRED_ASKED_MAX`] at most.
///
/// # Errors
/// [`ReadFault`] when the medium fails.
pub fn missed_before(reader: &dyn StateReader, group: GroupId) -> Result<Vec<(GroupId, Wanted)>, ReadFault> {
    let mut view = View::new(reader);
    let (mut missed, mut known) = (Vec::new(), vec![group]);
    let mut next = 0;
    while let Some(group) = known.get(next).copied().filter(|_| missed.len() < AUDIT_RETIRED_ASKED_MAX) {
        next += 1;
        let born: Option<BornShard> = view.load(&schema::born(group));
        for end in
            born.iter().flat_map(|born| &born.parents).filter(|end| !known.contains(&end.group)).collect::<Vec<_>>()
        {
            known.push(end.group);
            let after = audited(&mut view, end.group).map(|audit| audit.height);
            if after.is_none_or(|after| after < end.height) {
                missed.push((end.group, Wanted::Trail(after)));
            } else if rounds::upto(&mut view, end.group).is_none_or(|upto| upto < end.height) {
                missed.push((end.group, Wanted::Streams(end.height)));
            }
        }
    }
    missed.truncate(AUDIT_RETIRED_ASKED_MAX);
    match view.fault() {
        Some(fault) => Err(fault.clone()),
        None => Ok(missed),
    }
}

/// What is wanted of a shard that is gone, from the chain that a shard which came of it has inherited; as [`given`]. `None`
/// also where this one did not come of it.
///
/// # Errors
/// [`ReadFault`] when the medium fails.
pub fn lent(reader: &dyn StateReader, gone: GroupId, wanted: Wanted) -> Result<Option<Trail>, ReadFault> {
    let mut view = View::new(reader);
    let origin: Option<Origin> = view.load(&schema::origin());
    let of = |segments: &[Segment]| segments.iter().find(|segment| segment.group == gone).copied();
    let found = origin.and_then(|origin| {
        let on_spine = of(&origin.spine).map(|segment| (segment, false));
        on_spine.or_else(|| of(&origin.archived).map(|segment| (segment, true)))
    });
    let trail = found.and_then(|(segment, archived)| {
        let key = |plain: Vec<u8>| if archived { schema::archived(gone, &plain) } else { plain };
        read(&mut view, (segment.from, segment.to), wanted, &key)
    });
    match view.fault() {
        Some(fault) => Err(fault.clone()),
        None => Ok(trail),
    }
}

/// What is wanted of this group: headers behind a block, as many as one trail takes, up to the last of them that is certified
/// here, or the streams at a block. `None` when no certificate is kept of any of them, or they are too large.
///
/// # Errors
/// [`ReadFault`] when the medium fails.
pub fn given(reader: &dyn StateReader, wanted: Wanted) -> Result<Option<Trail>, ReadFault> {
    let mut view = View::new(reader);
    let trail = collect(&mut view, wanted);
    match view.fault() {
        Some(fault) => Err(fault.clone()),
        None => Ok(trail),
    }
}

fn collect(view: &mut View<'_>, wanted: Wanted) -> Option<Trail> {
    let applied: AppliedRecord = view.load(&schema::applied())?;
    // Blocks before the first one of a shard that others were cut or joined into are theirs.
    let first = view.load::<Origin>(&schema::origin()).map_or(0, |origin| origin.first.0);
    read(view, (Height(first), applied.height), wanted, &|plain| plain)
}

/// Where rows of a chain stand that are known by their keys in a chain of the group's own.
type Place<'a> = &'a dyn Fn(Vec<u8>) -> Vec<u8>;

/// Of the blocks from one to another one what is wanted, where they stand under these keys.
fn read(view: &mut View<'_>, of: (Height, Height), wanted: Wanted, key: Place<'_>) -> Option<Trail> {
    let (headers, certificate) = match wanted {
        Wanted::Trail(after) => stretch(view, of, after, key)?,
        Wanted::Headers(after) => stretch(view, of, Some(after), key)?,
        Wanted::Streams(at) if (of.0..=of.1).contains(&at) => {
            let header: Header = view.load(&key(schema::header(at)))?;
            (Vec::new(), certificate_of(view, &header, key)?)
        }
        Wanted::Streams(_) => return None,
    };
    let (outbox, inbox) = match wanted {
        Wanted::Headers(_) => (Vec::new(), Vec::new()),
        Wanted::Trail(_) | Wanted::Streams(_) => {
            let block: BlockRecord = view.load(&key(schema::block(certificate.header.height)))?;
            (block.outbox, block.inbox)
        }
    };
    let trail = Trail { version: AUDIT_VERSION, headers, certificate, outbox, inbox };
    let fits = borsh::object_length(&AuditEntry::Trail(trail.clone())).is_ok_and(|bytes| bytes <= AUDIT_BYTES_MAX);
    fits.then_some(trail)
}

/// Those of the blocks that stand behind a block: headers, and the certificate of the last.
fn stretch(
    view: &mut View<'_>,
    (first, last): (Height, Height),
    after: Option<Height>,
    key: Place<'_>,
) -> Option<(Vec<Header>, Certificate)> {
    let from = after.map_or(first.0, |after| after.0.saturating_add(1).max(first.0));
    let (mut headers, mut bytes, mut end) = (Vec::new(), 0, None);
    for height in (from..=last.0).take(AUDIT_TRAIL_BLOCKS_MAX).map(Height) {
        let header: Header = view.load(&key(schema::header(height)))?;
        bytes += borsh::object_length(&header).ok()?;
        if bytes > AUDIT_TRAIL_BYTES_MAX && !headers.is_empty() {
            break;
        }
        if let Some(certificate) = certificate_of(view, &header, key) {
            end = Some((headers.len(), certificate));
        }
        headers.push(header);
    }
    let (before, certificate) = end?;
    headers.truncate(before);
    Some((headers, certificate))
}

/// The certificate of a block, if one is kept.
fn certificate_of(view: &mut View<'_>, header: &Header, key: Place<'_>) -> Option<Certificate> {
    let certificate: Option<Certificate> = view.load(&key(schema::certificate(header.height)));
    // One that came with a snapshot may be of another block.
    certificate.filter(|certificate| certificate.header == *header)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that meets an error has failed
mod tests {
    use std::collections::BTreeMap;

    use beacon::audit::GroupAudit;
    use beacon::audit::rounds::Shown;
    use beacon::audit::trail::audited_key;
    use bytes::Bytes;
    use cross_shard::StreamLeaf;
    use ledger::hash::Hash32;
    use ledger::ids::{Incarnation, JobId, LayoutVersion};
    use ledger::layout::BitPrefix;
    use ledger::lineage::{BORN_VERSION, ParentEnd};
    use ledger::tree::SubtreeRoot;

    use super::*;
    use crate::core::support::{self, SHARD};

    type State = BTreeMap<Vec<u8>, Bytes>;

    fn behind(state: &State, after: Option<Height>) -> Result<Option<Trail>, ReadFault> {
        given(state, Wanted::Trail(after))
    }

    /// A chain of so many blocks behind block 0, of which some are certified.
    fn chain(blocks: u64, certified: &[u64]) -> (State, Vec<Header>) {
        let mut state = State::new();
        let mut put = |key: Vec<u8>, value: Vec<u8>| state.insert(key, Bytes::from(value));
        let mut headers: Vec<Header> = Vec::new();
        for height in 0..=blocks {
            let parents = vec![headers.last().map_or(Hash32::ZERO, Header::hash)];
            let header = Header { parents, ..support::header(SHARD, height) };
            put(schema::header(Height(height)), borsh::to_vec(&header).unwrap());
            put(schema::block(Height(height)), borsh::to_vec(&BlockRecord::default()).unwrap());
            if certified.contains(&height) {
                let certificate = support::certify(header.clone());
                put(schema::certificate(Height(height)), borsh::to_vec(&certificate).unwrap());
            }
            headers.push(header);
        }
        let last = headers.last().unwrap();
        let applied = AppliedRecord {
            version: 1,
            consensus: consensus::port::AppliedState::default(),
            height: Height(blocks),
            header_hash: last.hash(),
            time_ms: last.time_ms,
            state_root: last.state_root,
        };
        put(schema::applied(), borsh::to_vec(&applied).unwrap());
        (state, headers)
    }

    #[test]
    fn a_trail_leads_from_where_the_audit_is_to_the_last_certificate() {
        let (state, headers) = chain(9, &[3, 7]);
        for (after, first, last) in [(None, 0, 7), (Some(0), 1, 7), (Some(3), 4, 7), (Some(6), 7, 7)] {
            let trail = behind(&state, after.map(Height)).unwrap().unwrap();
            let all: Vec<&Header> = trail.all().collect();
            assert_eq!(all, headers[first..=last].iter().collect::<Vec<_>>(), "behind {after:?}");
        }
        assert_eq!(behind(&state, Some(Height(7))), Ok(None), "what follows is not certified");
        assert_eq!(behind(&state, Some(Height(u64::MAX))), Ok(None), "nor is there anything beyond the end");
        assert_eq!(behind(&State::new(), None), Ok(None));
    }

    #[test]
    fn a_long_trail_comes_in_parts() {
        let certified: Vec<u64> = (0..=700).step_by(10).collect();
        let (state, _) = chain(700, &certified);
        let (mut after, mut parts) = (None, 0);
        while let Some(trail) = behind(&state, after).unwrap() {
            assert!(trail.all().count() <= AUDIT_TRAIL_BLOCKS_MAX);
            after = Some(trail.certificate.header.height);
            parts += 1;
        }
        assert_eq!((after, parts), (Some(Height(700)), 3));
    }

    fn put<T: borsh::BorshSerialize>(state: &mut State, key: Vec<u8>, value: &T) {
        state.insert(key, Bytes::from(borsh::to_vec(value).unwrap()));
    }

    fn end(group: GroupId, height: u64) -> ParentEnd {
        let (header_hash, root) = (Hash32::ZERO, SubtreeRoot::EMPTY);
        ParentEnd { group, height: Height(height), header_hash, time_ms: TimeMs(1), root }
    }

    fn audit(group: GroupId, height: u64, taken_ms: u64) -> GroupAudit {
        GroupAudit {
            version: AUDIT_VERSION,
            group,
            incarnation: Incarnation(0),
            height: Height(height),
            header_hash: Hash32::ZERO,
            next_committee: Hash32::ZERO,
            time_ms: TimeMs(1),
            taken: Height(1),
            taken_ms: TimeMs(taken_ms),
            compared: None,
        }
    }

    fn shown(height: u64, time_ms: u64) -> Shown {
        Shown { version: AUDIT_VERSION, height: Height(height), streams: 20, time_ms: TimeMs(time_ms) }
    }

    #[test]
    fn a_shard_lends_what_it_has_inherited_of_those_it_came_from() {
        let (chain, headers) = chain(9, &[3, 7, 9]);
        let (other, stranger) = (GroupId::shard(8), GroupId::shard(9));
        let segment = |group, from, to| Segment { group, from: Height(from), to: Height(to) };
        for archived in [false, true] {
            let mut state = State::new();
            for (key, value) in &chain {
                let key = if archived { schema::archived(SHARD, key) } else { key.clone() };
                state.insert(key, value.clone());
            }
            let (own, beside) = (segment(SHARD, 2, 7), segment(other, 2, 9));
            let (spine, kept) = if archived { (vec![beside], vec![own]) } else { (vec![own], vec![beside]) };
            let origin = Origin {
                version: 1,
                job: JobId(1),
                first: Height(10),
                header_hash: Hash32::ZERO,
                parents: vec![end(SHARD, 7)],
                spine,
                archived: kept,
            };
            put(&mut state, schema::origin(), &origin);
            for (after, first) in [(None, 2), (Some(Height(0)), 2), (Some(Height(4)), 5)] {
                let trail = lent(&state, SHARD, Wanted::Trail(after)).unwrap().unwrap();
                // Its own last block is the end, also where others follow under the same keys.
                assert_eq!(trail.all().collect::<Vec<_>>(), headers[first..=7].iter().collect::<Vec<_>>());
            }
            assert_eq!(lent(&state, SHARD, Wanted::Trail(Some(Height(7)))), Ok(None), "that is all");
            let last = lent(&state, SHARD, Wanted::Streams(Height(7))).unwrap().unwrap();
            assert_eq!((last.headers.len(), &last.certificate.header), (0, &headers[7]));
            assert_eq!(lent(&state, SHARD, Wanted::Streams(Height(9))), Ok(None), "that is another one's");
            assert_eq!(lent(&state, stranger, Wanted::Trail(None)), Ok(None));
        }
        let nothing = lent(&State::new(), SHARD, Wanted::Trail(None));
        assert_eq!(nothing, Ok(None), "a shard of the genesis has inherited nothing");
    }

    #[test]
    fn the_beacon_misses_what_shards_have_left_that_are_gone() {
        let [whole, left, right, joined] = [0, 2, 3, 4].map(GroupId::shard);
        let mut state = State::new();
        for (group, parents) in
            [(left, vec![end(whole, 5)]), (right, vec![end(whole, 5)]), (joined, vec![end(left, 8), end(right, 9)])]
        {
            let born = BornShard {
                version: BORN_VERSION,
                group,
                prefix: BitPrefix::ALL,
                committee: Hash32::ZERO,
                job: JobId(1),
                layout: LayoutVersion(2),
                parents,
                roots: vec![SubtreeRoot::EMPTY],
            };
            put(&mut state, schema::born(group), &born);
        }
        let all = [left, right, whole].map(|group| (group, Wanted::Trail(None))).to_vec();
        assert_eq!(missed_before(&state, joined), Ok(all));
        assert_eq!(missed_before(&state, whole), Ok(Vec::new()));
        for (group, height) in [(left, 8), (whole, 3)] {
            put(&mut state, audited_key(group), &audit(group, height, 1));
        }
        let rest = vec![(right, Wanted::Trail(None)), (whole, Wanted::Trail(Some(Height(3))))];
        assert_eq!(missed_before(&state, joined), Ok(rest));
        // One of them was audited to its end before anybody knew it to be that, and did not show its streams there.
        put(&mut state, rounds::shown_key(left), &shown(6, 4_100));
        assert_eq!(missed_before(&state, joined).unwrap()[0], (left, Wanted::Streams(Height(8))));
        put(&mut state, rounds::shown_key(left), &shown(8, 4_100));
        assert_eq!(missed_before(&state, joined).unwrap()[0], (right, Wanted::Trail(None)));
    }

    #[test]
    fn headers_come_without_streams_and_streams_without_headers() {
        let (mut state, _) = chain(9, &[3, 7]);
        let leaf = |peer| StreamLeaf { peer: GroupId::shard(peer), next_seq: 1, head: Hash32::ZERO };
        let block = BlockRecord { outbox: vec![leaf(5)], inbox: vec![leaf(6)], ..BlockRecord::default() };
        put(&mut state, schema::block(Height(7)), &block);
        let all = given(&state, Wanted::Trail(Some(Height(3)))).unwrap().unwrap();
        assert_eq!((all.headers.len(), &all.outbox, &all.inbox), (3, &block.outbox, &block.inbox));
        let bare = given(&state, Wanted::Headers(Height(3))).unwrap().unwrap();
        assert_eq!(bare, Trail { outbox: Vec::new(), inbox: Vec::new(), ..all.clone() });
        let streams = given(&state, Wanted::Streams(Height(7))).unwrap().unwrap();
        assert_eq!(streams, Trail { headers: Vec::new(), ..all });
        assert_eq!(given(&state, Wanted::Streams(Height(8))), Ok(None), "no certificate is kept of it");
        assert_eq!(given(&state, Wanted::Streams(Height(10))), Ok(None), "it is not there yet");
    }

    #[test]
    fn streams_are_asked_for_once_in_a_round_and_alone_of_a_group_that_rests() {
        let mut state = State::new();
        let asked = |state: &State, certified, now| missed(state, SHARD, Height(certified), TimeMs(now)).unwrap();
        assert_eq!(asked(&state, 7, 4_600), Some(Wanted::Trail(None)), "nothing is audited");
        put(&mut state, audited_key(SHARD), &audit(SHARD, 5, 4_500));
        assert_eq!(asked(&state, 7, 4_600), Some(Wanted::Trail(Some(Height(5)))), "it has few streams");
        assert_eq!(asked(&state, 5, 9_000), None);
        // With so many streams a round is two seconds long.
        put(&mut state, rounds::shown_key(SHARD), &shown(3, 4_100));
        for (certified, now, wanted) in [
            (7, 5_999, Some(Wanted::Headers(Height(5)))),
            (7, 6_000, Some(Wanted::Trail(Some(Height(5))))),
            (5, 5_999, None),
            (5, 6_000, Some(Wanted::Streams(Height(5)))),
            (4, 6_000, None),
        ] {
            assert_eq!(asked(&state, certified, now), wanted, "{certified} at {now}");
        }
        put(&mut state, rounds::shown_key(SHARD), &shown(5, 4_500));
        assert_eq!(asked(&state, 5, 6_000), None, "they are known at its end");
    }

    #[test]
    fn a_certificate_of_another_block_ends_no_trail() {
        let (mut state, headers) = chain(4, &[2, 4]);
        let other = Header { state_root: Hash32([9; 32]), ..headers[4].clone() };
        let bytes = borsh::to_vec(&support::certify(other)).unwrap();
        state.insert(schema::certificate(Height(4)), Bytes::from(bytes));
        let trail = behind(&state, None).unwrap().unwrap();
        assert_eq!(trail.certificate.header, headers[2]);
    }
}
