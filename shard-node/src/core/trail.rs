//! Trails for the audit: which headers the beacon misses of a group, and those headers, read from state.
//!
//! Both run where the host reads: the first in a replica of the beacon, the second in one of the group. Pure.

use beacon::audit::AUDIT_VERSION;
use beacon::audit::trail::audited;
use beacon::limits::{AUDIT_BYTES_MAX, AUDIT_TRAIL_BLOCKS_MAX, AUDIT_TRAIL_BYTES_MAX};
use beacon::{AuditEntry, Trail};
use ledger::certificate::Certificate;
use ledger::header::Header;
use ledger::ids::{GroupId, Height};
use ledger::lineage::Origin;
use ledger::schema;
use ledger::view::{ReadFault, StateReader, View};

use crate::core::applied::AppliedRecord;
use crate::core::records::BlockRecord;

/// Behind which block the beacon misses headers of a group that has certified this height: `Some(None)` when it has none
/// at all, `None` when it misses nothing.
///
/// # Errors
/// [`ReadFault`] when the medium fails.
pub fn missed(
    reader: &dyn StateReader,
    group: GroupId,
    certified: Height,
) -> Result<Option<Option<Height>>, ReadFault> {
    let mut view = View::new(reader);
    let after = audited(&mut view, group).map(|audit| audit.height);
    if let Some(fault) = view.fault() {
        return Err(fault.clone());
    }
    Ok(after.is_none_or(|after| after < certified).then_some(after))
}

/// The headers behind a block, as many as one trail takes, up to the last of them that is certified here. `None` when no
/// certificate is kept of any of them, or they are too large.
///
/// # Errors
/// [`ReadFault`] when the medium fails.
pub fn behind(reader: &dyn StateReader, after: Option<Height>) -> Result<Option<Trail>, ReadFault> {
    let mut view = View::new(reader);
    let trail = collect(&mut view, after);
    match view.fault() {
        Some(fault) => Err(fault.clone()),
        None => Ok(trail),
    }
}

fn collect(view: &mut View<'_>, after: Option<Height>) -> Option<Trail> {
    let applied: AppliedRecord = view.load(&schema::applied())?;
    // Blocks before the first one of a shard that others were cut or joined into are theirs.
    let first = view.load::<Origin>(&schema::origin()).map_or(0, |origin| origin.first.0);
    let from = after.map_or(first, |after| after.0.saturating_add(1).max(first));
    let (mut headers, mut bytes, mut end) = (Vec::new(), 0, None);
    for height in (from..=applied.height.0).take(AUDIT_TRAIL_BLOCKS_MAX).map(Height) {
        let header: Header = view.load(&schema::header(height))?;
        bytes += borsh::object_length(&header).ok()?;
        if bytes > AUDIT_TRAIL_BYTES_MAX && !headers.is_empty() {
            break;
        }
        // One that came with a snapshot may be of another block.
        let certificate: Option<Certificate> = view.load(&schema::certificate(height));
        if let Some(certificate) = certificate.filter(|certificate| certificate.header == header) {
            end = Some((headers.len(), certificate));
        }
        headers.push(header);
    }
    let (before, certificate) = end?;
    headers.truncate(before);
    let BlockRecord { outbox, inbox, .. } = view.load(&schema::block(certificate.header.height))?;
    let trail = Trail { version: AUDIT_VERSION, headers, certificate, outbox, inbox };
    let fits = borsh::object_length(&AuditEntry::Trail(trail.clone())).is_ok_and(|bytes| bytes <= AUDIT_BYTES_MAX);
    fits.then_some(trail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that meets an error has failed
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use ledger::hash::Hash32;

    use super::*;
    use crate::core::support::{self, SHARD};

    type State = BTreeMap<Vec<u8>, Bytes>;

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
