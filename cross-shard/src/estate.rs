//! The streams of a shard that others were cut or joined into, as it begins: its own are none, and what its parents
//! had written and nobody has acknowledged waits until it is known how far it was taken.
//!
//! Owns the name spaces of mail and streams at a birth. The rest of a child's first state is for the machine.

use bytes::Bytes;
use ledger::ids::GroupId;
use ledger::layout::Layout;
use ledger::schema;
use ledger::view::{ReadFault, StateReader, View};

use crate::closed::{CLOSED_STREAM_VERSION, ClosedStream};
use crate::message::Message;
use crate::route;
use crate::stream::{OutStream, in_cursor, peer_of};

/// A shard that has ended, as its last block left it.
#[derive(Clone, Copy)]
pub struct Parent<'a> {
    /// The shard.
    pub group: GroupId,
    /// Its state.
    pub state: &'a dyn StateReader,
}

/// What of the parents' streams a child begins with, as writes on top of the copied state of the first one. `parents`
/// are one or, of shards that are joined, two, the left one first; `whole` is false for the right one of two children, so
/// that what is not bound to one half is passed on once.
///
/// # Errors
/// [`ReadFault`] when a parent's state cannot be read.
pub fn inherit(parents: &[Parent<'_>], whole: bool) -> Result<Vec<(Vec<u8>, Option<Bytes>)>, ReadFault> {
    let Some((left, rest)) = parents.split_first() else { return Ok(Vec::new()) };
    let mut view = View::new(left.state);
    for (key, _) in view.scan_prefix(schema::INBOX_PREFIX) {
        view.delete(key);
    }
    for (key, _) in view.scan_prefix(schema::CLOSED_PREFIX) {
        if let (false, Some(closed)) = (whole, view.load::<ClosedStream>(&key)) {
            view.store(key, &ClosedStream { whole, ..closed });
        }
    }
    for (dest, stream) in out_streams(&mut view) {
        for seq in stream.acked..stream.next_seq {
            let message = view.get(&schema::mail(dest, seq));
            view.delete(schema::mail(dest, seq));
            keep(&mut view, left.group, dest, seq, message);
        }
        view.delete(schema::outbox(dest));
        close(&mut view, left.group, dest, &stream, whole);
    }
    for right in rest {
        join(&mut view, left, right)?;
    }
    view.into_writes()
}

/// Brings in the streams of the right one of two parents.
fn join(view: &mut View<'_>, left: &Parent<'_>, right: &Parent<'_>) -> Result<(), ReadFault> {
    let mut theirs = View::new(right.state);
    for (key, _) in theirs.scan_prefix(schema::CLOSED_PREFIX) {
        let (Some((source, dest)), Some(closed)) = (schema::closed_of(&key), theirs.load::<ClosedStream>(&key)) else {
            continue;
        };
        for seq in closed.kept..closed.next_seq {
            let message = theirs.get(&schema::closed_mail(source, dest, seq));
            keep(view, source, dest, seq, message);
        }
        let joined = match view.load::<ClosedStream>(&key) {
            Some(ours) => {
                forget_taken(view, (source, dest), &ours, &closed);
                merge_closed(ours, closed)
            }
            None => closed,
        };
        view.store(key, &joined);
    }
    for (dest, stream) in out_streams(&mut theirs) {
        for seq in stream.acked..stream.next_seq {
            let message = theirs.get(&schema::mail(dest, seq));
            keep(view, right.group, dest, seq, message);
        }
        close(view, right.group, dest, &stream, true);
    }
    let mut lefts = View::new(left.state);
    let taken_there = in_cursor(&mut theirs, left.group).next_seq;
    let taken_here = in_cursor(&mut lefts, right.group).next_seq;
    for (source, dest, taken) in [(left.group, right.group, taken_there), (right.group, left.group, taken_here)] {
        let key = schema::closed(source, dest);
        let Some(mut closed) = view.load::<ClosedStream>(&key) else { continue };
        let taken = taken.clamp(closed.kept, closed.next_seq);
        for seq in closed.kept..taken {
            view.delete(schema::closed_mail(source, dest, seq));
        }
        (closed.kept, closed.taken) = (taken, Some(taken));
        view.store(key, &closed);
    }
    lefts.into_writes().and(theirs.into_writes()).map(|_| ())
}

fn out_streams(view: &mut View<'_>) -> Vec<(GroupId, OutStream)> {
    let entries = view.scan_prefix(schema::OUTBOX_PREFIX);
    let stream = |(key, _): &(Vec<u8>, Bytes)| Some((peer_of(key, schema::OUTBOX_PREFIX)?, view.load(key)?));
    entries.iter().filter_map(stream).collect()
}

fn keep(view: &mut View<'_>, source: GroupId, dest: GroupId, seq: u64, message: Option<Bytes>) {
    if let Some(message) = message {
        view.put(schema::closed_mail(source, dest, seq), message);
    }
}

/// Notes a stream that has ended with messages left.
fn close(view: &mut View<'_>, source: GroupId, dest: GroupId, stream: &OutStream, whole: bool) {
    if stream.pending() > 0 {
        let closed = ClosedStream {
            version: CLOSED_STREAM_VERSION,
            kept: stream.acked,
            next_seq: stream.next_seq,
            taken: None,
            whole,
            passed: Vec::new(),
        };
        view.store(schema::closed(source, dest), &closed);
    }
}

/// Joins what two shards had of one stream, which they have from a shard that both came from. While one of them has not
/// passed on its part, that part waits. Of self mail each had taken its own share, perhaps not equally far: what one of
/// them has not taken is taken, and a vote or a word on a stream that comes twice says nothing new.
fn merge_closed(left: ClosedStream, right: ClosedStream) -> ClosedStream {
    let waits = |stream: &ClosedStream| stream.taken.is_none();
    let mut passed = left.passed.clone();
    passed.extend(right.passed.iter().filter(|mark| !left.passed.contains(mark)));
    let whole = match (waits(&left), waits(&right)) {
        (true, false) => left.whole,
        (false, true) => right.whole,
        _ => left.whole || right.whole,
    };
    let of_right = match (waits(&left), waits(&right)) {
        (left_waits, true) => !left_waits,
        (true, false) => false,
        (false, false) => right.kept < left.kept,
    };
    let of = if of_right { right } else { left };
    ClosedStream { whole, passed, ..of }
}

/// Drops from self mail that one of two shards has taken and the other has not what only one may take, where the one
/// that had it whole is ahead.
fn forget_taken(view: &mut View<'_>, (source, dest): (GroupId, GroupId), ours: &ClosedStream, theirs: &ClosedStream) {
    let (behind, ahead) = if ours.kept < theirs.kept { (ours, theirs) } else { (theirs, ours) };
    if ours.taken.is_none() || theirs.taken.is_none() || !ahead.whole {
        return;
    }
    for seq in behind.kept..ahead.kept {
        let key = schema::closed_mail(source, dest, seq);
        if view.load::<Message>(&key).is_some_and(|message| !for_each(&message)) {
            view.delete(key);
        }
    }
}

/// Whether each child of a shard takes a message of self mail, and not the left one alone: a vote, and the word on a
/// stream that both have, are for either.
const fn for_each(message: &Message) -> bool {
    matches!(message, Message::Vote(_) | Message::Closed(_))
}

/// Takes mail that the parents of this group had sent each other, `limit` messages at most: to be taken as if the group
/// that is named had brought it. While this returns something, a block is due.
pub fn self_mail(view: &mut View<'_>, layout: &Layout, me: GroupId, limit: usize) -> Vec<(GroupId, Message)> {
    let mut taken = Vec::new();
    let mut room = limit;
    for (key, _) in view.scan_prefix(schema::CLOSED_PREFIX) {
        let Some((source, dest)) = schema::closed_of(&key) else { continue };
        let Some(mut closed) = view.load::<ClosedStream>(&key) else { continue };
        let waits = closed.taken.is_some() && closed.kept < closed.next_seq;
        if room == 0 || !waits || !layout.descends(me, source) || !layout.descends(me, dest) {
            continue;
        }
        while room > 0 && closed.kept < closed.next_seq {
            let key = schema::closed_mail(source, dest, closed.kept);
            let message: Option<Message> = view.load(&key);
            view.delete(key);
            // Of two children the left one takes what is for one of them alone, and each the votes that it is to hear.
            let mine = |message: &Message| match message {
                Message::Vote(vote) => route::hears(layout, me, vote),
                other => closed.whole || for_each(other),
            };
            taken.extend(message.filter(mine).map(|message| (source, message)));
            closed.kept += 1;
            room -= 1;
        }
        closed.taken = Some(closed.kept);
        view.store(key, &closed);
    }
    taken
}
