//! Who is told of a replica's blocks as they are written: copies of its state that are kept warm ([`super::warm`]).
//!
//! The commit loop waits for nobody. A follower that does not keep up, and one whose replica has taken another state, is
//! told no more and finds that out: what it has made of the blocks so far is worth nothing then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ledger::ids::Height;
use parking_lot::Mutex;

use crate::core::follow::Writes;

/// Blocks that wait for a follower at most.
pub const FOLLOWED_MAX: usize = 4096;

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
    /// The blocks, those of each replica in order and without a gap while nothing is [`Following::lost`].
    pub blocks: Receiver<Followed>,
    sender: SyncSender<Followed>,
    lost: Arc<AtomicBool>,
}

impl Following {
    /// Follows nobody yet.
    #[must_use]
    pub fn new(blocks_max: usize) -> Self {
        let (sender, blocks) = sync_channel(blocks_max);
        Self { blocks, sender, lost: Arc::default() }
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
    lost: Arc<AtomicBool>,
}

/// The followers of one replica; clones are the same.
#[derive(Clone, Default)]
pub struct Followers(Arc<Mutex<Vec<Follower>>>);

impl Followers {
    /// Tells a follower of every block from now on, as those of replica number `place`. Whoever calls this holds the lock of
    /// the replica's stand, so that no block is just being written.
    pub fn add(&self, place: usize, following: &Following) {
        let follower = Follower { place, sender: following.sender.clone(), lost: Arc::clone(&following.lost) };
        self.0.lock().push(follower);
    }

    /// Whether anybody follows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// A block was written.
    pub fn block(&self, height: Height, writes: &Arc<Writes>) {
        self.0.lock().retain(|Follower { place, sender, lost }| {
            let told = sender.try_send(Followed { place: *place, height, writes: Arc::clone(writes) }).is_ok();
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
        let (followers, following) = (Followers::default(), Following::new(2));
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
            following.blocks.try_iter().map(|followed| (followed.place, followed.height.0, followed.bytes())).collect();
        assert_eq!(told, [(1, 1, 3), (1, 2, 3)]);

        let following = Following::new(2);
        followers.add(0, &following);
        followers.replaced();
        assert!(following.lost() && followers.is_empty());
    }
}
