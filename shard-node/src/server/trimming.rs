//! The space of accounts that a shard has left to its sibling, given back.
//!
//! A shard that begins with half of another one's state removes the other half at once, and its bytes stay in table files
//! until these are compacted. That is done here, a part at a time, no faster than the node allows, beside all other
//! work. Nothing is noted: a part whose space has come back takes none, also after a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ledger::Layout;
use ledger::layout::BitPrefix;
use ledger::lineage::Origin;
use ledger::schema;
use ledger::view::ReadFault;
use storage::{KeyRange, StorageError};

use crate::server::group::GroupHandle;
use crate::server::warm::under;

/// How long after a shard has begun nothing is compacted yet: it is opened on all nodes just then, and payers wait for it.
const BEGIN_AFTER: Duration = Duration::from_secs(5);
/// Bits by which what is outside is divided: its parts are compacted one after the other.
const PART_BITS: u8 = 5;

/// Gives back what there is, and ends.
pub async fn trim(handle: Arc<GroupHandle>, bytes_per_s: u64) {
    let ranges = match parts(&handle) {
        Ok(ranges) => ranges,
        Err(fault) => return tracing::warn!(group = %handle.group, %fault, "what is to be trimmed cannot be read"),
    };
    let sized = |range: KeyRange| -> Result<Option<(KeyRange, u64)>, StorageError> {
        let Some(db) = handle.share.state.db() else { return Ok(None) };
        let bytes = db.disk_bytes(&range)?;
        Ok((bytes > 0).then_some((range, bytes)))
    };
    let sized: Result<Vec<_>, _> = ranges.into_iter().map(sized).filter_map(Result::transpose).collect();
    let sized = match sized {
        Ok(sized) => sized,
        Err(error) => return tracing::warn!(group = %handle.group, %error, "the space of removed accounts stays"),
    };
    let trimming = &handle.share.trimming_bytes;
    trimming.store(sized.iter().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
    if !sized.is_empty() {
        tokio::time::sleep(BEGIN_AFTER).await;
    }
    for (range, bytes) in sized {
        let Some(db) = handle.share.state.db() else { return };
        let compacted = tokio::task::spawn_blocking(move || db.compact(&range)).await;
        if let Ok(Err(error)) = compacted {
            tracing::warn!(group = %handle.group, %error, "the space of removed accounts stays");
        }
        trimming.fetch_sub(bytes, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(bytes.saturating_mul(1_000) / bytes_per_s.max(1))).await;
    }
}

/// The keys that are not this shard's, in parts; none where it began otherwise.
fn parts(handle: &GroupHandle) -> Result<Vec<KeyRange>, ReadFault> {
    let origin: Option<Origin> = handle.share.state.load(&schema::origin())?;
    let layout: Option<Layout> = handle.share.state.load(&schema::layout())?;
    if origin.is_none_or(|origin| origin.parents.len() != 1) {
        return Ok(Vec::new());
    }
    let prefix = layout.and_then(|layout| layout.prefix_ever(handle.group));
    let outside = prefix.map(outside).unwrap_or_default();
    let spaces = [schema::STATE, schema::HISTORY];
    Ok(outside.into_iter().flat_map(|part| spaces.map(|space| under(space, part))).collect())
}

/// Everything but what lies under a prefix, in parts.
fn outside(prefix: BitPrefix) -> Vec<BitPrefix> {
    let (mut own, mut parts) = (prefix, Vec::new());
    while let Some(parent) = own.parent() {
        let sibling = if parent.child(false) == own { parent.child(true) } else { parent.child(false) };
        let mut of_sibling = vec![sibling];
        for _ in 0..PART_BITS.min(64 - sibling.length) {
            of_sibling = of_sibling.into_iter().flat_map(|part| [part.child(false), part.child(true)]).collect();
        }
        parts.extend(of_sibling);
        own = parent;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_is_everything_else_once() {
        let deep = BitPrefix::ALL.child(true).child(false).child(true);
        for prefix in [BitPrefix::ALL, BitPrefix::ALL.child(false), BitPrefix::ALL.child(true).child(true), deep] {
            let parts = outside(prefix);
            for first in 0..=u8::MAX {
                let mut partition = [0x5a; 32];
                partition[0] = first;
                let covering = parts.iter().filter(|part| part.covers(&partition)).count();
                assert_eq!(covering, usize::from(!prefix.covers(&partition)), "{prefix}, {first}");
            }
        }
    }
}
