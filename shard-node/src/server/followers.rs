//! Who is told of a replica's blocks as they are written: copies of its state that are kept warm ([`super::warm`]).
//!
//! The commit loop waits for nobody. A follower that does not keep up, and one whose replica has taken another state, is
//! told no more and finds that out: what it has made of the blocks so far is worth nothing then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ledger::ids::Height;
use parking_lot::Mutex;

use crate::core::follow::Writes;

/// What waits for a follower at most.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Blocks.
    pub blocks_max: usize,
    /// Bytes that they write.
    pub bytes_max: usize,
}

/// A copy of a large state is made in minutes, so that others lose little by it; what its parents write meanwhile waits.
pub const FOLLOWED_MAX: Waiting = Waiting { blocks_max: 65_536, bytes_max: 128 << 20 };
/// Bytes that wait for all followers of a node together, since many jobs may be under way at once.
pub const ROOM_BYTES: usize = 256 << 20;
/// For a follower no more than this waits also where others have taken all room.
const OWN_BYTES: usize = 8 << 20;

/// What waits for all followers of a node; clones are the same.
#[derive(Clone, Debug)]
pub struct Room {
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Room {
    /// For so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: Arc::default(), bytes_max }
    }
}

/// The room that a block takes until it is let go of.
struct Held {
    more: usize,
    own: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.own.fetch_sub(self.more, Ordering::AcqRel);
        self.all.fetch_sub(self.more, Ordering::AcqRel);
    }
}

/// What a block has written.
pub struct Followed {
    /// Which of the replicas that are followed together, from 0.
    pub place: usize,
    /// The block.
    pub height: Height,
    /// Everything that it has written.
    pub writes: Arc<Writes>,
    _held: Held,
}

impl Followed {
    /// How much that is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes_of(&self.writes)
    }
}

fn bytes_of(writes: &Writes) -> usize {
    writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len())).sum()
}

/// The end at which one or several replicas are followed, each from the moment that it is told to ([`Followers::add`]).
pub struct Following {
    blocks: Receiver<Followed>,
    sender: SyncSender<Followed>,
    /// What waits, and what may.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    room: Room,
    lost: Arc<AtomicBool>,
}

impl Following {
    /// Follows nobody yet. What waits takes its part of `room`, which others have theirs of.
    #[must_use]
    pub fn new(waiting: Waiting, room: &Room) -> Self {
        let Waiting { blocks_max, bytes_max } = waiting;
        let (sender, blocks) = sync_channel(blocks_max);
        Self { blocks, sender, bytes: Arc::default(), bytes_max, room: room.clone(), lost: Arc::default() }
    }

    /// The next block. Those of each replica come in order, and without a gap while nothing is [`Following::lost`].
    ///
    /// # Errors
    /// As of a channel: none came in that time, or none will.
    pub fn next(&self, within: Duration) -> Result<Followed, RecvTimeoutError> {
        self.blocks.recv_timeout(within)
    }

    /// Those that wait.
    pub fn waiting(&self) -> Vec<Followed> {
        std::iter::from_fn(|| self.next(Duration::ZERO).ok()).collect()
    }

    /// Whether blocks were left out, or states were replaced: there will be no more.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// What says on another thread how much of the room for what waits is taken, in percent: of its own or of the node's,
    /// whichever is fuller. At 100 all is lost.
    pub fn filled_elsewhere(&self) -> impl Fn() -> u32 + Send + Sync + use<> {
        let (own, own_max, room) = (Arc::clone(&self.bytes), self.bytes_max, self.room.clone());
        let percent =
            |taken: usize, most: usize| u32::try_from(taken.saturating_mul(100) / most.max(1)).unwrap_or(u32::MAX);
        move || {
            let all = percent(room.bytes.load(Ordering::Acquire), room.bytes_max);
            percent(own.load(Ordering::Acquire), own_max).max(all)
        }
    }

    /// What says the same as [`Following::lost`] on another thread; this end stays where it is.
    pub fn lost_elsewhere(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let lost = Arc::clone(&self.lost);
        move || lost.load(Ordering::Acquire)
    }
}

struct Follower {
    place: usize,
    sender: SyncSender<Followed>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    room: Room,
    lost: Arc<AtomicBool>,
}

impl Follower {
    /// The room for so many bytes more; `None` where there is none.
    fn hold(&self, more: usize) -> Option<Held> {
        let (own, all) = (Arc::clone(&self.bytes), Arc::clone(&self.room.bytes));
        let waits = own.fetch_add(more, Ordering::AcqRel).saturating_add(more);
        let taken = all.fetch_add(more, Ordering::AcqRel).saturating_add(more);
        // Gives back what there is no room for.
        let held = Held { more, own, all };
        let fits = waits <= self.bytes_max && (taken <= self.room.bytes_max || waits <= OWN_BYTES);
        fits.then_some(held)
    }

    /// Whether it was told of a block.
    fn told(&self, height: Height, writes: &Arc<Writes>) -> bool {
        let Some(held) = self.hold(bytes_of(writes)) else { return false };
        let followed = Followed { place: self.place, height, writes: Arc::clone(writes), _held: held };
        self.sender.try_send(followed).is_ok()
    }
}

/// The followers of one replica; clones are the same.
#[derive(Clone, Default)]
pub struct Followers(Arc<Mutex<Vec<Follower>>>);

impl Followers {
    /// Tells a follower of every block from now on, as those of replica number `place`. Whoever calls this holds the lock of
    /// the replica's stand, so that no block is just being written.
    pub fn add(&self, place: usize, following: &Following) {
        let Following { sender, bytes, bytes_max, room, lost, .. } = following;
        let (sender, bytes, lost) = (sender.clone(), Arc::clone(bytes), Arc::clone(lost));
        self.0.lock().push(Follower { place, sender, bytes, bytes_max: *bytes_max, room: room.clone(), lost });
    }

    /// Whether anybody follows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// A block was written.
    pub fn block(&self, height: Height, writes: &Arc<Writes>) {
        self.0.lock().retain(|follower| {
            let told = follower.told(height, writes);
            if !told {
                follower.lost.store(true, Ordering::Release);
            }
            told
        });
    }

    /// The whole state was replaced.
    pub fn replaced(&self) {
        self.0.lock().drain(..).for_each(|follower| follower.lost.store(true, Ordering::Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_keep_up_is_told_no_more_and_finds_out() {
        let waiting = Waiting { blocks_max: 2, bytes_max: 100 };
        let room = Room::new(1_000);
        let (followers, following) = (Followers::default(), Following::new(waiting, &room));
        assert!(followers.is_empty());
        followers.add(1, &following);
        let writes = Arc::new(vec![(b"key".to_vec(), None)]);
        for height in 1..=2 {
            followers.block(Height(height), &writes);
        }
        assert!(!following.lost() && !followers.is_empty());
        let elsewhere = following.lost_elsewhere();
        assert!(!elsewhere());
        followers.block(Height(3), &writes);
        assert!(following.lost() && elsewhere() && followers.is_empty());
        let told: Vec<(usize, u64, usize)> =
            following.waiting().iter().map(|followed| (followed.place, followed.height.0, followed.bytes())).collect();
        assert_eq!(told, [(1, 1, 3), (1, 2, 3)]);

        let following = Following::new(waiting, &room);
        followers.add(0, &following);
        followers.replaced();
        assert!(following.lost() && followers.is_empty());

        // What was taken has made room again.
        let following = Following::new(waiting, &room);
        followers.add(0, &following);
        let large = Arc::new(vec![(vec![0; 60], None)]);
        followers.block(Height(1), &large);
        let filled = following.filled_elsewhere();
        assert_eq!(filled(), 60, "of its own hundred bytes");
        assert_eq!(following.waiting().len(), 1);
        assert_eq!(filled(), 0);
        followers.block(Height(2), &large);
        assert!(!following.lost());
        followers.block(Height(3), &large);
        assert!(following.lost() && followers.is_empty());
        assert_eq!(following.waiting().len(), 1);
    }

    #[test]
    fn followers_of_a_node_share_its_room_and_each_has_a_little_of_its_own() {
        const MIB: usize = 1 << 20;
        let (waiting, room) = (Waiting { blocks_max: 16, bytes_max: 64 * MIB }, Room::new(16 * MIB));
        let taken = || room.bytes.load(Ordering::Acquire) / MIB;
        let large = Arc::new(vec![(vec![0; 6 * MIB], None)]);
        let [(one, slow), (other, quick)] = [0, 1].map(|_| (Followers::default(), Following::new(waiting, &room)));
        one.add(0, &slow);
        other.add(0, &quick);
        for height in 1..=2 {
            one.block(Height(height), &large);
        }
        // There is no room for it, but it has next to nothing.
        other.block(Height(1), &large);
        assert!(!slow.lost() && !quick.lost() && taken() == 18);
        one.block(Height(3), &large);
        assert!(slow.lost() && !quick.lost() && taken() == 18, "what was not taken takes no room");
        // What nobody waits for any more makes room for others.
        drop(slow);
        assert_eq!(taken(), 6);
        other.block(Height(2), &large);
        assert!(!quick.lost() && taken() == 12);
        let waited = quick.waiting().len();
        assert_eq!((waited, taken()), (2, 0), "what is let go of takes no room");
    }
}
