//! The space of accounts that a shard has left to its sibling, given back.
//!
//! A shard that begins with half of another one's state removes the other half at once, and its bytes stay in table files.
//! Files in which nothing else lies go unread, before anything is compacted. The rest is compacted, a small piece of the keys
//! at a time, beside all other work. What a piece costs are the table files that it lies in, which are rewritten as a whole:
//! the next piece waits until so many bytes were due ([`Pace`]). What lies in the same files has its space back by then, and
//! costs nothing. Nothing is noted: a piece whose space has come back takes none, also after a restart.
//!
//! Nothing at all of such a state was compacted before, and the first compaction rewrites most of it. So it has its turn among
//! the pieces: both halves of a shard begin on a node at once, and were compacted at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ledger::Layout;
use ledger::layout::BitPrefix;
use ledger::limits::{TRIM_PIECE_BYTES, TRIM_PREFIX_MAX};
use ledger::lineage::Origin;
use ledger::schema;
use ledger::view::ReadFault;
use parking_lot::Mutex;
use storage::{KeyRange, Kv, StorageError};
use tokio::time::Instant;

use crate::server::group::GroupHandle;
use crate::server::warm::under;

/// How long after a shard has begun nothing is compacted yet: it is opened on all nodes just then, and payers wait for it.
const BEGIN_AFTER: Duration = Duration::from_secs(5);
/// So much later each further member of the shard begins, so that its payers wait for none that compacts: the others are
/// enough to go on.
const BEGIN_APART: Duration = Duration::from_secs(15);
/// For how much of what its first compaction rewrites other states wait, in seconds of the rate: as long as they wait they
/// gather table files, which their readers have to ask.
const WAKE_S_MAX: u64 = 60;

/// Where keys of accounts stand.
const SPACES: [u8; 2] = [schema::STATE, schema::HISTORY];

/// When so many bytes may be rewritten that it is no more than a rate, from the beginning on. Nothing is saved up: time in
/// which nothing was to be done does not count for what comes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    bytes_per_s: u64,
    /// When all that was begun so far was due, milliseconds since the beginning.
    due_ms: u64,
}

impl Pace {
    fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), due_ms: 0 }
    }

    /// How long the next piece has to wait.
    fn pause_ms(&self, now_ms: u64) -> u64 {
        self.due_ms.saturating_sub(now_ms)
    }

    /// The next piece rewrites so much. Returns how long it has to wait.
    fn begin(&mut self, now_ms: u64, bytes: u64) -> u64 {
        let pause_ms = self.pause_ms(now_ms);
        let takes_ms = bytes.saturating_mul(1_000).div_ceil(self.bytes_per_s);
        self.due_ms = self.due_ms.max(now_ms).saturating_add(takes_ms);
        pause_ms
    }

    /// A state is to be compacted in the background, which rewrites so much of it at once. Returns how long it has to wait.
    fn wake(&mut self, now_ms: u64, bytes: u64) -> u64 {
        self.begin(now_ms, bytes.min(self.bytes_per_s.saturating_mul(WAKE_S_MAX)))
    }
}

/// What a node rewrites for all of its shards together, one piece after the other. When each is due is said before it waits, so
/// that nobody waits for how long the one before really takes but the next piece.
pub struct Trimming {
    start: Instant,
    pace: Mutex<Pace>,
    /// Whose piece is being rewritten.
    turn: tokio::sync::Mutex<()>,
}

impl Trimming {
    /// So many bytes a second at most.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        Self { start: Instant::now(), pace: Mutex::new(Pace::new(bytes_per_s)), turn: tokio::sync::Mutex::default() }
    }

    /// Waits until a state may be woken of which so much is compacted then. A piece that is being rewritten is waited for no longer
    /// than it was to take: as long as a state is not compacted, its readers ask ever more files.
    async fn until_woken(&self, bytes: u64) {
        let pause_ms = self.pace.lock().wake(self.now_ms(), bytes);
        pause(pause_ms).await;
    }

    /// Waits until a piece may be rewritten that costs so much, for whoever has the turn.
    async fn until_due(&self, costs: u64) {
        let pause_ms = self.pace.lock().begin(self.now_ms(), costs);
        pause(pause_ms).await;
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn pause(pause_ms: u64) {
    if pause_ms > 0 {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// Lets the state of a group that has just begun be compacted, gives back what there is, and ends.
/// `member` is the node's place in the shard's committee.
pub async fn trim(handle: Arc<GroupHandle>, node: Arc<Trimming>, member: usize) {
    let stays = |error: &dyn std::fmt::Display| {
        tracing::warn!(group = %handle.group, %error, "the space of removed accounts stays");
    };
    let outside = left_to_others(&handle).unwrap_or_else(|fault| {
        stays(&fault);
        Vec::new()
    });
    let trimming = &handle.share.trimming_bytes;
    let Some(db) = handle.share.state.db() else { return };
    let estimates = removed(&outside).map(|range| db.disk_bytes(&range).unwrap_or_default());
    trimming.store(estimates.sum(), Ordering::Relaxed);
    drop(db);
    tokio::time::sleep(BEGIN_AFTER + BEGIN_APART * u32::try_from(member).unwrap_or(u32::MAX)).await;
    let Some(db) = handle.share.state.db() else { return };
    let found = match tokio::task::spawn_blocking(move || drop_files(&*db, &outside)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            stays(&error);
            Vec::new()
        }
        Err(panic) => {
            stays(&panic);
            Vec::new()
        }
    };
    trimming.store(found.iter().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
    if let Err(error) = wake(&handle, &node).await {
        tracing::warn!(group = %handle.group, %error, "the state is not compacted in the background before the next start");
    }
    for (range, bytes) in found {
        let _turn = node.turn.lock().await;
        let Some(costs) = handle.share.state.db().map(|db| costs(&*db, &range)) else { return };
        match costs {
            Ok(0) => {}
            Ok(costs) => {
                node.until_due(costs).await;
                let Some(db) = handle.share.state.db() else { return };
                let compacted = tokio::task::spawn_blocking(move || db.compact(&range)).await;
                if let Ok(Err(error)) = compacted {
                    stays(&error);
                }
            }
            Err(error) => stays(&error),
        }
        trimming.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What it costs to give a piece back: nothing where its space has come back with that of another one, whose files it was in.
fn costs(db: &dyn Kv, range: &KeyRange) -> Result<u64, StorageError> {
    if db.disk_bytes(range)? > 0 { db.compacted_bytes(range) } else { Ok(0) }
}

/// Has the state of a group compacted in the background from now on. One that was not until now waits until it is due.
async fn wake(handle: &GroupHandle, node: &Trimming) -> Result<(), StorageError> {
    let quiet = handle.share.state.db().filter(|db| db.is_quiet());
    if let Some(db) = quiet {
        let bytes = db.compacted_bytes(&KeyRange::all())?;
        // Whoever closes the state waits for nobody here.
        drop(db);
        node.until_woken(bytes).await;
    }
    handle.share.state.db().map_or(Ok(()), |db| db.wake())
}

/// The prefixes of which this shard has left the accounts to others; none where it began otherwise.
fn left_to_others(handle: &GroupHandle) -> Result<Vec<BitPrefix>, ReadFault> {
    let origin: Option<Origin> = handle.share.state.load(&schema::origin())?;
    let layout: Option<Layout> = handle.share.state.load(&schema::layout())?;
    if origin.is_none_or(|origin| origin.parents.len() != 1) {
        return Ok(Vec::new());
    }
    let prefix = layout.and_then(|layout| layout.prefix_ever(handle.group));
    Ok(prefix.map(outside).unwrap_or_default())
}

/// The keys of accounts under prefixes.
fn removed(prefixes: &[BitPrefix]) -> impl Iterator<Item = KeyRange> {
    SPACES.into_iter().flat_map(move |space| prefixes.iter().map(move |prefix| under(space, *prefix)))
}

/// Lets go of whatever costs nothing, and finds the pieces that are left. Blocks.
fn drop_files(db: &dyn Kv, outside: &[BitPrefix]) -> Result<Vec<(KeyRange, u64)>, StorageError> {
    // The shard writes none of these keys: it has no leaf outside of its prefix, and no history of one.
    db.drop_files(&removed(outside).collect::<Vec<_>>())?;
    pieces(outside, |range| db.disk_bytes(range))
}

/// Everything but what lies under a prefix: the sibling of each prefix on the way to it.
fn outside(prefix: BitPrefix) -> Vec<BitPrefix> {
    let (mut own, mut siblings) = (prefix, Vec::new());
    while let Some(parent) = own.parent() {
        siblings.push(if parent.child(false) == own { parent.child(true) } else { parent.child(false) });
        own = parent;
    }
    siblings
}

/// The keys of accounts under prefixes, halved until a piece takes no more of the disk than it may, by what is measured of
/// each; with that. Without those that take nothing.
fn pieces<E>(prefixes: &[BitPrefix], measure: impl Fn(&KeyRange) -> Result<u64, E>) -> Result<Vec<(KeyRange, u64)>, E> {
    let mut found = Vec::new();
    for space in SPACES {
        // The last one is looked at next.
        let mut open: Vec<BitPrefix> = prefixes.iter().rev().copied().collect();
        while let Some(prefix) = open.pop() {
            let range = under(space, prefix);
            match measure(&range)? {
                0 => {}
                bytes if bytes <= TRIM_PIECE_BYTES || prefix.length >= TRIM_PREFIX_MAX => found.push((range, bytes)),
                _ => open.extend([prefix.child(true), prefix.child(false)]),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::FutureExt;

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

    #[test]
    fn pieces_are_small_and_cover_all_that_takes_space_once() {
        // The right half has a hundred pieces under each first byte, nearly all of it under one of them, and nothing of
        // history. The left one has nothing.
        let bytes_at = |first: u8| match first {
            0..0x80 => 0,
            0xc1 => 200 * TRIM_PIECE_BYTES,
            _ => TRIM_PIECE_BYTES / 4,
        };
        let measure = |range: &KeyRange| -> Result<u64, Infallible> {
            let inside = |first: u8| range.contains(&[&[schema::STATE, first], &[0x5a; 31][..]].concat());
            Ok((0..=u8::MAX).filter(|first| inside(*first)).map(bytes_at).sum())
        };
        let Ok(found) = pieces(&[BitPrefix::ALL.child(true)], measure);
        for first in 0..=u8::MAX {
            let key = [&[schema::STATE, first], &[0x5a; 31][..]].concat();
            let covering: Vec<_> = found.iter().filter(|(range, _)| range.contains(&key)).collect();
            assert_eq!(covering.len(), usize::from(bytes_at(first) > 0), "{first}");
            // What lies under one key cannot be divided.
            assert!(covering.iter().all(|(_, bytes)| *bytes <= TRIM_PIECE_BYTES || first == 0xc1), "{first}");
        }
        let all: u64 = (0..=u8::MAX).map(bytes_at).sum();
        assert_eq!(found.iter().map(|(_, bytes)| bytes).sum::<u64>(), all);
        assert_eq!(pieces(&[BitPrefix::ALL], |_| Ok::<_, Infallible>(0)), Ok(Vec::new()));
        assert_eq!(pieces(&[BitPrefix::ALL], |_| Err(())), Err(()));
    }

    /// Pieces of so many bytes, each of which takes so long by itself: when each begins, and when the last one is due.
    fn begins(bytes_per_s: u64, pieces: &[(u64, u64)]) -> (Vec<u64>, u64) {
        let (mut pace, mut now_ms, mut begins) = (Pace::new(bytes_per_s), 0, Vec::new());
        for (bytes, works_ms) in pieces {
            now_ms += pace.begin(now_ms, *bytes);
            begins.push(now_ms);
            now_ms += works_ms;
        }
        (begins, pace.due_ms)
    }

    #[test]
    fn each_piece_waits_until_all_before_it_were_due() {
        // A disk that is faster than the rate.
        assert_eq!(begins(1_000, &[(500, 10), (2_000, 10), (1, 10)]), (vec![0, 500, 2_500], 2_501));
        // One that is slower is not waited for, and what it has missed is not made up for.
        assert_eq!(begins(1_000, &[(500, 5_000), (500, 10), (500, 10)]), (vec![0, 5_000, 5_500], 6_000));
        // Parts of a millisecond count as one: never too fast.
        assert_eq!(begins(3_000, &[(1, 0), (1, 0), (1, 0)]), (vec![0, 1, 2], 3));
        // Neither nothing nor everything divides by zero or overflows.
        assert_eq!(begins(0, &[(1, 0), (0, 0)]), (vec![0, 1_000], 1_000));
        assert_eq!(begins(1, &[(u64::MAX, 0), (u64::MAX, 0)]).0, [0, u64::MAX]);
    }

    #[test]
    fn both_halves_of_a_shard_are_not_compacted_at_once_and_none_waits_for_more_than_a_minute() {
        let mut pace = Pace::new(1_000);
        assert_eq!(pace.wake(5_000, 30_000), 0);
        assert_eq!(pace.wake(5_000, u64::MAX), 30_000);
        // A piece of the first one waits for both.
        assert_eq!(pace.pause_ms(35_000), 1_000 * WAKE_S_MAX);
        assert_eq!(pace.begin(95_000, 500), 0);
        assert_eq!(pace.pause_ms(95_000), 500);
        let mut fastest = Pace::new(u64::MAX);
        assert_eq!(fastest.wake(0, u64::MAX), 0);
        assert_eq!(fastest.pause_ms(0), 1);
    }

    #[tokio::test]
    async fn a_state_is_woken_while_a_piece_of_another_one_takes_longer_than_it_was_to() {
        let node = Trimming::new(1);
        let turn = node.turn.lock().await;
        node.until_due(0).await;
        assert!(node.until_woken(0).now_or_never().is_some(), "it has been due");
        assert!(node.turn.lock().now_or_never().is_none(), "another piece waits for this one");
        drop(turn);
        assert!(node.turn.lock().now_or_never().is_some());
        // What was said to take long is waited for.
        node.until_due(60).await;
        assert!(node.until_woken(0).now_or_never().is_none());
    }

    #[test]
    fn up_to_any_moment_no_more_is_rewritten_than_the_rate_allows_and_one_piece() {
        let (rate, mut seed) = (16_u64 << 20, 7_u64);
        let piece = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 38, (seed >> 33) % 700)
        };
        let pieces: Vec<(u64, u64)> = (0..500).map(piece).collect();
        let (begins, due_ms) = begins(rate, &pieces);
        let mut sum = 0_u64;
        for ((bytes, _), begin) in pieces.iter().zip(&begins) {
            assert!(u128::from(sum) * 1_000 <= u128::from(rate) * u128::from(*begin), "{sum} bytes by {begin} ms");
            sum += bytes;
        }
        assert!(u128::from(sum) * 1_000 <= u128::from(rate) * u128::from(due_ms));
    }
}
