//! Streams: per pair of groups, contiguous sequence numbers, kept until acknowledged on one side, a
//! cursor on the other. Both sides hash the messages into the same range, whose head headers commit to.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::hash::{Hash32, tagged};
use ledger::ids::GroupId;
use ledger::limits::MAIL_WINDOW_MESSAGES;
use ledger::merkle;
use ledger::schema;
use ledger::view::View;

use crate::range;

/// Head of an outgoing stream, in state.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OutStream {
    /// Sequence number of the next message; the first message has 0.
    pub next_seq: u64,
    /// Everything below has been acknowledged and dropped.
    pub acked: u64,
    /// Peaks of the range over all messages so far.
    pub peaks: Vec<Hash32>,
}

impl OutStream {
    /// Counts one more message and returns its sequence number.
    pub fn push(&mut self, message: &[u8]) -> u64 {
        let seq = self.next_seq;
        range::push(&mut self.peaks, seq, 0, message_hash(message));
        self.next_seq += 1;
        seq
    }

    /// The stream as a header commits to it.
    #[must_use]
    pub fn leaf(&self, peer: GroupId) -> StreamLeaf {
        StreamLeaf { peer, next_seq: self.next_seq, head: range::head(self.next_seq, &self.peaks) }
    }

    /// Messages that wait for acknowledgement.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.next_seq - self.acked
    }

    /// Whether new client transactions for this destination are refused. Mail that a delivery
    /// causes is always appended, so that two full streams facing each other never stop each other.
    #[must_use]
    pub fn full(&self) -> bool {
        self.pending() >= MAIL_WINDOW_MESSAGES
    }
}

/// Cursor into an incoming stream, in state.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct InCursor {
    /// Sequence number of the next message to take.
    pub next_seq: u64,
    /// Peaks of the range over all messages taken.
    pub peaks: Vec<Hash32>,
}

impl InCursor {
    /// Moves behind one more message.
    pub fn push(&mut self, message: &[u8]) {
        range::push(&mut self.peaks, self.next_seq, 0, message_hash(message));
        self.next_seq += 1;
    }

    /// The cursor as a header commits to it.
    #[must_use]
    pub fn leaf(&self, peer: GroupId) -> StreamLeaf {
        StreamLeaf { peer, next_seq: self.next_seq, head: range::head(self.next_seq, &self.peaks) }
    }

    /// Whether these hashes lead from here to a head: they are the roots of the largest complete
    /// subtrees between the two, in order, and no more.
    #[must_use]
    pub fn leads_to(&self, proof: &[Hash32], to: &StreamLeaf) -> bool {
        let mut peaks = self.peaks.clone();
        let mut steps = range::steps(self.next_seq, to.next_seq);
        for hash in proof {
            let Some((at, level)) = steps.next() else { return false };
            range::push(&mut peaks, at, level, *hash);
        }
        steps.next().is_none() && self.next_seq <= to.next_seq && range::head(to.next_seq, &peaks) == to.head
    }
}

/// A stream as `outbox_root` and `inbox_cursors_root` commit to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StreamLeaf {
    /// The destination in an outbox, the source in an inbox.
    pub peer: GroupId,
    /// Next sequence number.
    pub next_seq: u64,
    /// Head of the range over everything before it.
    pub head: Hash32,
}

impl StreamLeaf {
    /// The hash of this leaf.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        merkle::leaf_hash(&borsh::to_vec(self).expect("writing to memory does not fail"))
    }
}

/// Root over leaves sorted by peer.
#[must_use]
pub fn root(leaves: &[StreamLeaf]) -> Hash32 {
    let hashes: Vec<Hash32> = leaves.iter().map(StreamLeaf::hash).collect();
    merkle::root(&hashes)
}

/// Hash of one message as the range takes it. Its place in the range binds its sequence number.
#[must_use]
pub fn message_hash(message: &[u8]) -> Hash32 {
    tagged(b"seamark/mail/v2", &[message])
}

/// Appends a message to the stream to `dest` and returns its sequence number.
pub fn emit(view: &mut View<'_>, dest: GroupId, message: Vec<u8>) -> u64 {
    let key = schema::outbox(dest);
    let mut stream: OutStream = view.load(&key).unwrap_or_default();
    let seq = stream.push(&message);
    view.store(key, &stream);
    view.put(schema::mail(dest, seq), Bytes::from(message));
    seq
}

/// The head of the stream to `dest`.
pub fn out_stream(view: &mut View<'_>, dest: GroupId) -> OutStream {
    view.load(&schema::outbox(dest)).unwrap_or_default()
}

/// The cursor into the stream from `source`.
pub fn in_cursor(view: &mut View<'_>, source: GroupId) -> InCursor {
    view.load(&schema::inbox(source)).unwrap_or_default()
}

/// The peer of a stream, from the key of its record.
#[must_use]
pub fn peer_of(key: &[u8], prefix: &[u8]) -> Option<GroupId> {
    let id: [u8; 8] = key.get(prefix.len()..)?.try_into().ok()?;
    Some(GroupId(u64::from_be_bytes(id)))
}

/// All outgoing streams, sorted by destination.
pub fn outbox_streams(view: &mut View<'_>) -> Vec<(GroupId, OutStream)> {
    let entries = view.scan_prefix(schema::OUTBOX_PREFIX);
    entries
        .iter()
        .filter_map(|(key, _)| {
            // An entry that does not decode is a fault of the view and stops the group.
            let stream: OutStream = view.load(key)?;
            let peer = peer_of(key, schema::OUTBOX_PREFIX)?;
            Some((peer, stream))
        })
        .collect()
}

/// All outgoing streams as a header commits to them, sorted by destination.
pub fn outbox_leaves(view: &mut View<'_>) -> Vec<StreamLeaf> {
    outbox_streams(view).iter().map(|(peer, stream)| stream.leaf(*peer)).collect()
}

/// All incoming cursors, sorted by source.
pub fn inbox_cursors(view: &mut View<'_>) -> Vec<(GroupId, InCursor)> {
    let entries = view.scan_prefix(schema::INBOX_PREFIX);
    entries
        .iter()
        .filter_map(|(key, _)| {
            // An entry that does not decode is a fault of the view and stops the group.
            let cursor: InCursor = view.load(key)?;
            let peer = peer_of(key, schema::INBOX_PREFIX)?;
            Some((peer, cursor))
        })
        .collect()
}

/// All incoming cursors as a header commits to them, sorted by source.
pub fn inbox_leaves(view: &mut View<'_>) -> Vec<StreamLeaf> {
    inbox_cursors(view).iter().map(|(peer, cursor)| cursor.leaf(*peer)).collect()
}
