//! The heads of all streams of a group, kept from block to block.
//!
//! A header commits to the head of every stream, and a block changes few of them: among 512 groups, one in fifty. Owns
//! both trees over the heads and what of a stream its congestion follows from, as they are after one block, named by
//! its header. Only the block right behind that one goes on from here; before any other, and whenever a stream has ended, all is
//! read from the state again. So nothing here is ever needed, and nothing of it is kept on a disk.

use cross_shard::InCursor;
use cross_shard::stream::{OutStream, StreamLeaf, inbox_cursors, outbox_streams, peer_of};
use ledger::hash::Hash32;
use ledger::ids::GroupId;
use ledger::limits::MAIL_WINDOW_MESSAGES;
use ledger::merkle::MerkleTree;
use ledger::schema;
use ledger::view::View;

/// The heads of all streams after a block.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    /// The header of that block; none where they have to be read.
    behind: Option<Hash32>,
    outbox: Side,
    inbox: Side,
    /// Messages that wait in each outgoing stream.
    pending: Vec<u64>,
}

/// The heads of one direction, sorted by peer.
#[derive(Clone, Debug)]
struct Side {
    leaves: Vec<StreamLeaf>,
    tree: MerkleTree,
    /// A peer has come, and the tree is to be made again.
    grown: bool,
}

impl Default for Side {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl Side {
    fn of(leaves: Vec<StreamLeaf>) -> Self {
        let tree = tree_of(&leaves);
        Self { leaves, tree, grown: false }
    }

    /// Takes the head of a stream. Returns its place, and whether it was there before.
    fn put(&mut self, leaf: StreamLeaf) -> (usize, bool) {
        match self.leaves.binary_search_by_key(&leaf.peer, |known| known.peer) {
            Ok(at) => {
                if self.leaves[at] != leaf {
                    self.leaves[at] = leaf;
                    if !self.grown {
                        self.tree.set(at, leaf.hash());
                    }
                }
                (at, true)
            }
            Err(at) => {
                self.leaves.insert(at, leaf);
                self.grown = true;
                (at, false)
            }
        }
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.grown) {
            self.tree = tree_of(&self.leaves);
        }
    }
}

fn tree_of(leaves: &[StreamLeaf]) -> MerkleTree {
    MerkleTree::new(leaves.iter().map(StreamLeaf::hash).collect())
}

impl Heads {
    /// Takes what a block has written, on top of the block with the header `previous`. Returns the cursors that it has
    /// moved, or all of them where all was read. [`Heads::settle`] follows when the block is made.
    pub fn follow(&mut self, view: &mut View<'_>, previous: &Hash32) -> Vec<(GroupId, InCursor)> {
        let known = self.behind.take().is_some_and(|behind| behind == *previous);
        let moved = if known { self.step(view) } else { None };
        moved.unwrap_or_else(|| self.read(view))
    }

    /// The block is made: the next one goes on from its header.
    pub fn settle(&mut self, header_hash: Hash32) {
        self.behind = Some(header_hash);
    }

    /// Outgoing heads, sorted by destination.
    #[must_use]
    pub fn outbox(&self) -> &[StreamLeaf] {
        &self.outbox.leaves
    }

    /// Heads of cursors, sorted by source.
    #[must_use]
    pub fn inbox(&self) -> &[StreamLeaf] {
        &self.inbox.leaves
    }

    /// The roots over both, as [`cross_shard::stream::root`] has them: outgoing, incoming.
    #[must_use]
    pub fn roots(&self) -> (Hash32, Hash32) {
        (self.outbox.tree.root(), self.inbox.tree.root())
    }

    /// Streams at least half full, in percent of the window.
    #[must_use]
    pub fn congestion(&self) -> Vec<(GroupId, u8)> {
        let percent = |pending: u64| (pending.saturating_mul(100) / MAIL_WINDOW_MESSAGES).min(100);
        let streams = self.outbox.leaves.iter().zip(&self.pending);
        let full = streams.map(|(leaf, pending)| (leaf.peer, u8::try_from(percent(*pending)).unwrap_or(100)));
        full.filter(|(_, percent)| *percent >= 50).collect()
    }

    /// What the writes of one block change; nothing where a stream has ended, or does not decode.
    fn step(&mut self, view: &mut View<'_>) -> Option<Vec<(GroupId, InCursor)>> {
        for (key, there) in view.written(schema::OUTBOX_PREFIX) {
            let stream: OutStream = if there { view.load(&key)? } else { return None };
            let (at, known) = self.outbox.put(stream.leaf(peer_of(&key, schema::OUTBOX_PREFIX)?));
            if known {
                self.pending[at] = stream.pending();
            } else {
                self.pending.insert(at, stream.pending());
            }
        }
        let mut moved = Vec::new();
        for (key, there) in view.written(schema::INBOX_PREFIX) {
            let cursor: InCursor = if there { view.load(&key)? } else { return None };
            let peer = peer_of(&key, schema::INBOX_PREFIX)?;
            self.inbox.put(cursor.leaf(peer));
            moved.push((peer, cursor));
        }
        self.outbox.finish();
        self.inbox.finish();
        Some(moved)
    }

    /// Reads all streams of the state.
    fn read(&mut self, view: &mut View<'_>) -> Vec<(GroupId, InCursor)> {
        let (streams, cursors) = (outbox_streams(view), inbox_cursors(view));
        self.pending = streams.iter().map(|(_, stream)| stream.pending()).collect();
        self.outbox = Side::of(streams.iter().map(|(peer, stream)| stream.leaf(*peer)).collect());
        self.inbox = Side::of(cursors.iter().map(|(peer, cursor)| cursor.leaf(*peer)).collect());
        cursors
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use cross_shard::stream::{emit, root};
    use ledger::hash::sha256;

    use super::*;

    type State = BTreeMap<Vec<u8>, Bytes>;

    /// Does something as a block, lets `heads` follow it, and compares with what a reader of the whole state finds.
    fn block(state: &mut State, heads: &mut Heads, number: u64, work: impl FnOnce(&mut View<'_>)) -> usize {
        let name = |number: u64| sha256(&number.to_be_bytes());
        let mut view = View::new(&*state);
        work(&mut view);
        let moved = heads.follow(&mut view, &name(number - 1));
        let mut anew = Heads::default();
        let all = anew.follow(&mut view, &name(number - 1));
        heads.settle(name(number));
        assert_eq!((heads.outbox(), heads.inbox()), (anew.outbox(), anew.inbox()), "block {number}");
        assert_eq!(heads.roots(), (root(anew.outbox()), root(anew.inbox())), "block {number}");
        assert_eq!((heads.congestion(), &heads.pending), (anew.congestion(), &anew.pending), "block {number}");
        assert!(moved.iter().all(|line| all.contains(line)));
        let writes = view.into_writes().expect("a map does not fail");
        for (key, value) in writes {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
        moved.len()
    }

    fn take(view: &mut View<'_>, peer: u32) {
        let key = schema::inbox(GroupId::shard(peer));
        let mut cursor: InCursor = view.load(&key).unwrap_or_default();
        cursor.push(&[7]);
        view.store(key, &cursor);
    }

    #[test]
    fn what_follows_is_what_is_read() {
        let (mut state, mut heads) = (State::new(), Heads::default());
        block(&mut state, &mut heads, 1, |_| ());
        assert_eq!(heads.roots(), (root(&[]), root(&[])));
        let moved = block(&mut state, &mut heads, 2, |view| {
            for peer in [5, 1, 9, 3, 200] {
                emit(view, GroupId::shard(peer), vec![1]);
                take(view, peer + 1);
            }
        });
        assert_eq!(moved, 5);
        let moved = block(&mut state, &mut heads, 3, |view| {
            emit(view, GroupId::shard(9), vec![2]);
            take(view, 2);
        });
        assert_eq!(moved, 1, "the others stand");
        block(&mut state, &mut heads, 4, |view| {
            emit(view, GroupId::shard(4), vec![3]);
            emit(view, GroupId::shard(9), vec![4]);
            take(view, 300);
        });
        assert_eq!(block(&mut state, &mut heads, 5, |_| ()), 0);
        let moved = block(&mut state, &mut heads, 6, |view| view.delete(schema::outbox(GroupId::shard(1))));
        assert_eq!((moved, heads.outbox().len()), (6, 5), "a stream has ended: all is read");
    }

    #[test]
    fn a_full_stream_shows() {
        let (mut state, mut heads) = (State::new(), Heads::default());
        let waiting = |next_seq| OutStream { next_seq, ..OutStream::default() };
        let stored = |view: &mut View<'_>, next_seq| {
            view.store(schema::outbox(GroupId::shard(2)), &waiting(next_seq));
        };
        block(&mut state, &mut heads, 1, |view| stored(view, MAIL_WINDOW_MESSAGES / 2 - 1));
        assert_eq!(heads.congestion(), []);
        block(&mut state, &mut heads, 2, |view| stored(view, MAIL_WINDOW_MESSAGES / 2));
        assert_eq!(heads.congestion(), [(GroupId::shard(2), 50)]);
        block(&mut state, &mut heads, 3, |view| stored(view, 3 * MAIL_WINDOW_MESSAGES));
        assert_eq!(heads.congestion(), [(GroupId::shard(2), 100)]);
    }

    #[test]
    fn behind_another_block_all_is_read() {
        let (mut state, mut heads) = (State::new(), Heads::default());
        block(&mut state, &mut heads, 1, |view| take(view, 1));
        take_unseen(&mut state);
        assert_eq!(block(&mut state, &mut heads, 9, |view| take(view, 3)), 3, "block 8 was not followed");
    }

    /// A block that nobody has followed.
    fn take_unseen(state: &mut State) {
        let mut view = View::new(&*state);
        take(&mut view, 2);
        let writes = view.into_writes().expect("a map does not fail");
        state.extend(writes.into_iter().filter_map(|(key, value)| Some((key, value?))));
    }
}
