//! Streams that are not written any more, since a group at one of their ends was retired.
//!
//! Owns what groups tell each other about a change of layout, the record of a stream that has ended, and what becomes
//! of the messages in it: those that were taken are dropped, each other one is addressed anew, once. Never decides that a
//! group is retired: the beacon does. What a child finds of the streams of its parents is in [`crate::estate`].
//!
//! A group that had written to a retired one knows how far it was taken from the beacon ([`adopt`]). The children of a
//! retired group are told by whoever took its stream ([`Closed`], [`take`]); until then its messages wait with them.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::Committee;
use ledger::ids::{AssetId, GroupId, JobId, LayoutVersion};
use ledger::layout::Layout;
use ledger::schema;
use ledger::view::View;

use crate::message::Message;
use crate::route::{self, route};
use crate::stream::{self, OutStream};

/// Version written into new changes of the layout.
pub const RESHAPED_VERSION: u8 = 1;
/// Version written into new ends of a stream.
pub const CLOSED_VERSION: u8 = 1;
/// Version written into new records of closed streams.
pub const CLOSED_STREAM_VERSION: u8 = 1;

/// A change of the layout, at once and whole: from the beacon to every living group but the children.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reshaped {
    /// Format version, [`RESHAPED_VERSION`].
    pub version: u8,
    /// The job that made it.
    pub job: JobId,
    /// The layout that is in force with it.
    pub layout: Layout,
    /// The first committees of the children.
    pub committees: Vec<Committee>,
    /// The parents, and how far each has taken the receiver's stream.
    pub ended: Vec<Ended>,
}

/// How far a retired group has taken the receiver's stream: its last cursor, proved to the beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ended {
    /// The retired group.
    pub group: GroupId,
    /// It has taken every message below.
    pub taken: u64,
}

/// "The stream from `source` to `dest` has ended: everything below `taken` was taken." From `dest`, or an heir of it,
/// to every successor of `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Closed {
    /// Format version, [`CLOSED_VERSION`].
    pub version: u8,
    /// Who wrote the stream, a retired group.
    pub source: GroupId,
    /// Who took it.
    pub dest: GroupId,
    /// Every message below was taken.
    pub taken: u64,
}

/// A stream that is not written any more, under [`ledger::schema::closed`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClosedStream {
    /// Format version, [`CLOSED_STREAM_VERSION`].
    pub version: u8,
    /// Sequence number of the first message that is kept, or was when it ended. Of mail between two shards that were
    /// joined, some behind it may be gone: what a half of the joined one has taken before it was joined again.
    pub kept: u64,
    /// Sequence number behind the last message.
    pub next_seq: u64,
    /// How far it was taken; `None` while that is not known. Then its messages wait under
    /// [`ledger::schema::closed_mail`].
    pub taken: Option<u64>,
    /// Whether this group passes on all that was not taken, and not only the votes on its own legs.
    pub whole: bool,
    /// Where it was passed on to.
    pub passed: Vec<Passed>,
}

/// How far a stream holds what was passed on of a closed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Passed {
    /// Whose stream: the group that has passed it on, this one or one that it came from.
    pub by: GroupId,
    /// To whom.
    pub dest: GroupId,
    /// Sequence number behind the last of these messages.
    pub upto: u64,
}

/// What this group is left with when messages of a closed stream were passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Value that went on: it has come from the retired group, and has left for another one.
    pub value: Vec<MovedValue>,
    /// Messages that are for this group itself, with the group whose stream they stood in: they are to be taken as if
    /// that group's mail had brought them.
    pub own: Vec<(GroupId, Message)>,
}

/// Value that a message of a closed stream carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedValue {
    /// Whose stream it stood in.
    pub from: GroupId,
    /// Where it went.
    pub to: GroupId,
    /// What.
    pub asset: AssetId,
    /// How much.
    pub amount: u128,
}

impl Reshaped {
    /// Whether a group that goes by this layout takes it: it is the next one, and says of retired shards that they are.
    #[must_use]
    pub fn follows(&self, current: LayoutVersion) -> bool {
        self.version == RESHAPED_VERSION
            && current.0.checked_add(1) == Some(self.layout.version.0)
            && self.layout.well_formed()
            && self.committees.iter().all(|one| one.well_formed() && self.layout.prefix_of(one.group).is_some())
            && self.ended.iter().all(|ended| self.layout.retired(ended.group))
    }
}

/// Takes a change of the layout that follows on the one in force ([`Reshaped::follows`]): stores the layout and the
/// committees of the children, addresses anew what the parents have not taken, and tells their children how far their
/// streams were taken here.
pub fn adopt(view: &mut View<'_>, me: GroupId, reshaped: &Reshaped) {
    view.store(schema::layout(), &reshaped.layout);
    for committee in &reshaped.committees {
        view.store(schema::committee(committee.group, &committee.hash()), committee);
        view.store(schema::current_committee(committee.group), committee);
    }
    for ended in &reshaped.ended {
        readdress(view, &reshaped.layout, me, *ended);
    }
    for ended in &reshaped.ended {
        tell(view, &reshaped.layout, me, ended.group);
        view.delete(schema::current_committee(ended.group));
    }
}

/// Ends this group's own stream to a retired one: what it has taken is dropped as acknowledged, each other message goes,
/// in order, to those that [`route`] names.
pub fn readdress(view: &mut View<'_>, layout: &Layout, me: GroupId, ended: Ended) {
    let dest = ended.group;
    let Some(stream) = view.load::<OutStream>(&schema::outbox(dest)) else { return };
    // The beacon has the cursor proved; it cannot lie outside.
    let taken = ended.taken.clamp(stream.acked, stream.next_seq);
    let mut passed = Vec::new();
    for seq in stream.acked..stream.next_seq {
        let key = schema::mail(dest, seq);
        let message = if seq < taken { None } else { view.load::<Message>(&key) };
        view.delete(key);
        let Some(message) = message else { continue };
        for next in route(layout, dest, &message) {
            pass(view, me, next, &message, &mut passed);
        }
    }
    let next_seq = stream.next_seq;
    let closed = ClosedStream {
        version: CLOSED_STREAM_VERSION,
        kept: next_seq,
        next_seq,
        taken: Some(taken),
        whole: true,
        passed,
    };
    view.store(schema::closed(me, dest), &closed);
    view.delete(schema::outbox(dest));
}

/// Tells the children of a retired group how far its stream was taken here, and forgets the cursor: nothing of that
/// stream is taken any more.
pub fn tell(view: &mut View<'_>, layout: &Layout, me: GroupId, retired: GroupId) {
    let taken = stream::in_cursor(view, retired).next_seq;
    let closed = Message::Closed(Closed { version: CLOSED_VERSION, source: retired, dest: me, taken }).encode();
    for child in layout.successors(retired) {
        stream::emit(view, child, closed.clone());
    }
    if view.get(&schema::inbox(retired)).is_some() {
        view.delete(schema::inbox(retired));
    }
}

/// Takes the word on how far an inherited stream was taken, from whoever took it or came from there. The first word
/// counts. What was not taken is passed on: votes as far as they are on legs that this group speaks for, all else where
/// this group has the stream whole.
pub fn take(view: &mut View<'_>, layout: &Layout, me: GroupId, sender: GroupId, closed: &Closed) -> Moved {
    let (source, dest) = (closed.source, closed.dest);
    let key = schema::closed(source, dest);
    let mut moved = Moved::default();
    let Some(mut stream) = view.load::<ClosedStream>(&key) else { return moved };
    if closed.version != CLOSED_VERSION || stream.taken.is_some() || !layout.descends(sender, dest) {
        return moved;
    }
    let taken = closed.taken.clamp(stream.kept, stream.next_seq);
    for seq in stream.kept..stream.next_seq {
        let key = schema::closed_mail(source, dest, seq);
        let message = if seq < taken { None } else { view.load::<Message>(&key) };
        view.delete(key);
        let Some(message) = message.and_then(|message| share(layout, me, stream.whole, message)) else { continue };
        for next in route(layout, dest, &message) {
            if next == me {
                moved.own.push((source, message.clone()));
                continue;
            }
            if let Some((asset, amount)) = value_of(&message) {
                moved.value.push(MovedValue { from: source, to: next, asset, amount });
            }
            pass(view, me, next, &message, &mut stream.passed);
        }
    }
    stream.kept = stream.next_seq;
    stream.taken = Some(taken);
    view.store(key, &stream);
    moved
}

/// What of a message this group passes on.
fn share(layout: &Layout, me: GroupId, whole: bool, message: Message) -> Option<Message> {
    match message {
        Message::Vote(vote) => route::own_part(layout, me, vote).map(Message::Vote),
        other => whole.then_some(other),
    }
}

fn value_of(message: &Message) -> Option<(AssetId, u128)> {
    match message {
        Message::Credit(credit) => Some((credit.asset, credit.amount)),
        Message::Transfer(transfer) => Some((transfer.asset, transfer.amount)),
        _ => None,
    }
}

/// Appends to this group's stream to `dest`, and notes how far that is.
fn pass(view: &mut View<'_>, me: GroupId, dest: GroupId, message: &Message, passed: &mut Vec<Passed>) {
    let upto = stream::emit(view, dest, message.encode()) + 1;
    match passed.iter_mut().find(|known| known.by == me && known.dest == dest) {
        Some(known) => known.upto = upto,
        None => passed.push(Passed { by: me, dest, upto }),
    }
}

/// Whether a message is known to have been taken: by its destination, or, where that was retired, by all that it was
/// passed on to. It is the one with this number in the stream of `source`, this group or one that it came from, to
/// `dest`.
pub fn acknowledged(view: &mut View<'_>, me: GroupId, source: GroupId, dest: GroupId, seq: u64) -> bool {
    if let Some(closed) = view.load::<ClosedStream>(&schema::closed(source, dest)) {
        let Some(taken) = closed.taken else { return false };
        let passed_on = closed.kept == closed.next_seq;
        // What was passed on came later, into streams that lived longer, so this ends.
        return seq < taken
            || passed_on && closed.passed.iter().all(|mark| acknowledged(view, me, mark.by, mark.dest, mark.upto - 1));
    }
    // Of a group that this one came from, only what was not acknowledged was kept.
    source != me || stream::out_stream(view, dest).acked > seq
}
