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

/// What a block has written.
pub struct Followed {
    /// Which of the replicas that are followed together, from 0.
    pub place: usize,
    /// The block.
    pub height: Height,
    /// Everything that it has written.
    pub writes: Arc<Writes>,
}

impl Followed {
    /// How much that is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len())).sum()
    }
}

/// The end at which one or several replicas are followed, each from the moment that it is told to ([`Followers::add`]).
pub struct Following {
    blocks: Receiver<Followed>,
    sender: SyncSender<Followed>,
    /// What waits, and what may.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    lost: Arc<AtomicBool>,
}

impl Following {
    /// Follows nobody yet.
    #[must_use]
    pub fn new(waiting: Waiting) -> Self {
        let Waiting { blocks_max, bytes_max } = waiting;
        let (sender, blocks) = sync_channel(blocks_max);
        Self { blocks, sender, bytes: Arc::default(), bytes_max, lost: Arc::default() }
    }

    /// The next block. Those of each replica come in order, and without a gap while nothing is [`Following::lost`].
    ///
    /// # Errors
    /// As of a channel: none came in that time, or none will.
    pub fn next(&self, within: Duration) -> Result<Followed, RecvTimeoutError> {
        let followed = self.blocks.recv_timeout(within)?;
        self.bytes.fetch_sub(followed.bytes(), Ordering::AcqRel);
        Ok(followed)
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

    /// What says the same on another thread; this end stays where it is.
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
    lost: Arc<AtomicBool>,
}

/// The followers of one replica; clones are the same.
#[derive(Clone, Default)]
pub struct Followers(Arc<Mutex<Vec<Follower>>>);

impl Followers {
    /// Tells a follower of every block from now on, as those of replica number `place`. Whoever calls this holds the lock of
    /// the replica's stand, so that no block is just being written.
    pub fn add(&self, place: usize, following: &Following) {
        let Following { sender, bytes, bytes_max, lost, .. } = following;
        let (sender, bytes, lost) = (sender.clone(), Arc::clone(bytes), Arc::clone(lost));
        self.0.lock().push(Follower { place, sender, bytes, bytes_max: *bytes_max, lost });
    }

    /// Whether anybody follows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// A block was written.
    pub fn block(&self, height: Height, writes: &Arc<Writes>) {
        self.0.lock().retain(|Follower { place, sender, bytes, bytes_max, lost }| {
            let followed = Followed { place: *place, height, writes: Arc::clone(writes) };
            let more = followed.bytes();
            // Before it is sent: whoever takes it takes it off.
            let waits = bytes.fetch_add(more, Ordering::AcqRel) + more;
            let told = waits <= *bytes_max && sender.try_send(followed).is_ok();
            if !told {
                lost.store(true, Ordering::Release);
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
        let (followers, following) = (Followers::default(), Following::new(waiting));
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

        let following = Following::new(waiting);
        followers.add(0, &following);
        followers.replaced();
        assert!(following.lost() && followers.is_empty());

        // What was taken has made room again.
        let following = Following::new(waiting);
        followers.add(0, &following);
        let large = Arc::new(vec![(vec![0; 60], None)]);
        followers.block(Height(1), &large);
        assert_eq!(following.waiting().len(), 1);
        followers.block(Height(2), &large);
        assert!(!following.lost());
        followers.block(Height(3), &large);
        assert!(following.lost() && followers.is_empty());
        assert_eq!(following.waiting().len(), 1);
    }
}
